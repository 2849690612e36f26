"""The Rosetta page against what its lines do: lrlib's and PyTorch's always, the others where they are installed."""

import math
import re

import pytest
import rosetta

ROWS = [
    pytest.param(title, library, line, measured, id=f"{title}-{library}")
    for sections, measured in ((rosetta.SCHEDULES, rosetta.rates), (rosetta.OPTIMIZERS, rosetta.remainders))
    for title, _, _, lines in sections
    for library, line in lines.items()
]


def told(title: str, library: str) -> tuple[str, list[str]]:
    """A line and its rates as the page shows them."""
    page = rosetta.PAGE.read_text(encoding="utf-8")
    section = page.split(f"## {title}\n")[1].split("\n## ")[0]
    line = re.search(rf"^{library}: +(.*)$", section, flags=re.MULTILINE)[1]
    row = re.search(rf"^\| {library} \| (.*) \|$", section, flags=re.MULTILINE)[1]
    return line, row.split(" | ")


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(("title", "library", "line", "measured"), ROWS)
def test_the_page_shows_what_the_line_does(title, library, line, measured):
    try:
        rosetta.names(library)
    except ImportError:
        pytest.skip(f"pip install -r requirements-rosetta.lock to try {library}'s lines")
    shown_line, shown_rates = told(title, library)
    assert shown_line == line
    for shown, rate in zip(shown_rates, measured(library, line), strict=True):
        if shown == "refuses":
            assert rate is None
        else:
            assert math.isclose(float(shown), rate, rel_tol=1e-3, abs_tol=1e-8)
