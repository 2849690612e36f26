"""The rule for what a page shows of a chapter's code."""

import json
from pathlib import Path

import cells
import pytest

CHAPTERS = sorted((Path(__file__).resolve().parent.parent / "book").glob("*.ipynb"))
PICTURE = [{"output_type": "display_data", "data": {"image/png": "", "text/plain": ""}}]


def cell(source, tags=(), outputs=(), **metadata):
    return {
        "cell_type": "code",
        "source": source,
        "metadata": {"tags": list(tags), **metadata},
        "outputs": list(outputs),
    }


@pytest.mark.parametrize(
    ("given", "much", "line"),
    [
        (cell("import torch\n\nimport lrlib\n\nlrlib.setup()"), "nothing", "Preparation"),
        (cell("import torch\n\nrate = torch.ones(1)"), "whole", None),
        (cell("assert a == b\nassert c < d"), "nothing", "How it was checked"),
        (cell("c = a + b\nassert c < 1"), "folded", "How it was checked"),
        (cell("a = 1\nb = 2\nc = a + b\nassert c < 1"), "whole", None),
        (cell("def f(x):\n    return x\n\n\nassert f(1) == 1"), "whole", None),
        (cell("plt.plot(x)\nplt.show()", outputs=PICTURE), "folded", "How the figure was drawn"),
        (cell("assert m1\nlrlib.settle('M1', m1, 'It does.')"), "folded", "How the verdict was reached"),
        (cell("lrlib.table(rows)", ["hide-input"]), "folded", "How the table was made"),
        (cell("def f(x):\n    return x", ["hide-input"]), "folded", "The code of f"),
        (cell("def f(x):\n    return x\n\n\nr = lrlib.train_grid(f)", ["hide-input"]), "folded", "How it was measured"),
        (cell("\n".join(f"x{k} = {k}" for k in range(15))), "whole", None),
        (cell("\n".join(f"x{k} = {k}" for k in range(16))), "folded", "How it was measured"),
        (cell("if record := lrlib.load_record('x'):\n    draw(record)"), "nothing", None),
        (cell("if record := lrlib.whole_record('x'):\n    draw(record)"), "nothing", None),
        (cell("x = 1", ["remove-input"]), "nothing", None),
    ],
)  # fmt: skip
def test_what_is_shown_of_a_cell(given, much, line):
    assert cells.shown(given) == much
    (marked,) = cells.page({"cells": [given]})["cells"]
    tags = set(marked["metadata"]["tags"])
    assert (
        tags & {"hide-input", "remove-input"}
        == {"whole": set(), "folded": {"hide-input"}, "nothing": {"remove-input"}}[much]
    )
    if much == "folded":
        assert marked["metadata"]["mystnb"]["code_prompt_show"] == line
    assert given["metadata"]["tags"] == cell("", given["metadata"]["tags"])["metadata"]["tags"]


def test_a_cell_may_say_its_line_itself_and_keeps_its_other_tags():
    given = cell(
        "lrlib.table(rows)", ["full", "hide-input"], mystnb={"code_prompt_show": "All runs", "image": {"alt": "x"}}
    )
    (marked,) = cells.page({"cells": [given]})["cells"]
    assert marked["metadata"]["tags"] == ["full", "hide-input"]
    assert marked["metadata"]["mystnb"] == {
        "code_prompt_show": "All runs",
        "code_prompt_hide": "How the table was made",
        "image": {"alt": "x"},
    }


@pytest.mark.parametrize("path", CHAPTERS, ids=lambda path: path.stem)
def test_no_output_is_lost_but_that_of_the_set_up(path):
    notebook = json.loads(path.read_text(encoding="utf-8"))
    for before, after in zip(notebook["cells"], cells.page(notebook)["cells"], strict=True):
        assert before["source"] == after["source"]
        if before["cell_type"] == "code":
            first = "".join("".join(output.get("text", "")) for output in before["outputs"])
            rest = "".join("".join(output.get("text", "")) for output in after["outputs"])
            assert "scale: tour" not in rest and first in (rest, f"scale: tour\n{rest}")
            assert len(before["outputs"]) - len(after["outputs"]) == (first == "scale: tour\n")
            if "remove-output" in after["metadata"]["tags"]:
                assert first in ("", "scale: tour\n")
