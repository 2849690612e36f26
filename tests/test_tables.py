import pytest
from bs4 import BeautifulSoup

import lrlib

ROWS = [
    {"rule": "a < b", "gain": "+1.0 [-0.5, +2.5]", "rate": 0.1},
    {"rule": "1 & 2", "gain": "-12.3 [-20.0, -4.6] (n = 3)"},
]


def parsed(table):
    return BeautifulSoup(table._repr_html_(), "html.parser")


def test_the_page_shows_headings_cells_and_caption_as_they_are():
    page = parsed(lrlib.table(ROWS, "points, p < 0.05"))
    assert page.figure.figcaption.text == "points, p < 0.05"
    assert [cell.text for cell in page.find_all("th")] == ["rule", "gain", "rate"]
    cells = [[cell.text for cell in row.find_all("td")] for row in page.tbody.find_all("tr")]
    assert cells == [["a < b", "+1.0 [-0.5, +2.5]", "0.1"], ["1 & 2", "-12.3 [-20.0, -4.6] (n = 3)", ""]]
    assert [part.text for part in page.select(".text-nowrap")] == ["[-0.5, +2.5]", "[-20.0, -4.6]"]
    assert parsed(lrlib.table(ROWS)).figcaption is None


def test_columns_of_numbers_are_aligned_on_the_right():
    aligned = ["right" in cell.get("style", "") for cell in parsed(lrlib.table(ROWS)).find_all("th")]
    assert aligned == [False, True, True]


def test_the_text_has_the_same_cells():
    heading, line, *rows = repr(lrlib.table(ROWS, "points")).splitlines()[1:]
    assert heading.split() == ["rule", "gain", "rate"] and set(line) == {"-", " "}
    assert rows[0].split("  ")[0] == "a < b" and rows[0].endswith("0.1") and "[-20.0, -4.6]" in rows[1]


def test_bad_rows_are_named():
    with pytest.raises(ValueError, match="rows=.*at least one row"):
        lrlib.table([])
    with pytest.raises(ValueError, match="row 1 has the column 'loss'"):
        lrlib.table([{"a": 1}, {"a": 2, "loss": 3}])


def test_a_short_interval_leaves_out_confidence_and_n():
    interval = lrlib.paired([1.0, 2.0, 4.0], [0.0, 0.0, 1.0])
    assert f"{interval:+.1f}" == f"{interval.short('+.1f')} (95%, n = 3)"


def test_a_short_summary_leaves_out_n():
    assert lrlib.summary([1.0, 2.0, 3.0]).short(".1f") == "2.0 ± 1.0"
