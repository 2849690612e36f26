"""Hygiene of the chapters. Every check is shown to fail on a notebook broken in the one way that it is there for."""

import copy
import json
import os
import subprocess
import sys
from pathlib import Path

import notebook_checks as checks
import pytest
import yaml

from lrlib import claims

ROOT = Path(__file__).resolve().parent.parent
CHAPTERS = sorted((ROOT / "book").glob("**/*.ipynb"))
ALT = "Loss against step for three rates: the largest rises, the others fall to zero."


def picture():
    return {"output_type": "display_data", "metadata": {}, "data": {"image/png": "AA==", "text/plain": "<Figure>"}}


def code(source, *outputs, count=None, alt=None):
    figure = {"caption": "A red line.", "name": f"figure-{count}"}
    metadata = {"mystnb": {"image": {"alt": alt}, "figure": figure}} if alt else {}
    return {
        "cell_type": "code",
        "source": source,
        "metadata": metadata,
        "outputs": list(outputs),
        "execution_count": count,
    }


def stream(name, text):
    return {"output_type": "stream", "name": name, "text": text}


def result(count, text="1"):
    return {"output_type": "execute_result", "execution_count": count, "metadata": {}, "data": {"text/plain": text}}


def sound():
    """A notebook in which no check finds anything; cells 1 and 2 are code."""
    return {
        "cells": [
            {"cell_type": "markdown", "metadata": {}, "source": "# Title\n![a red line](line.png)"},
            code("x = 7 % 3; y = 'a;b'  # ;\nx != y", stream("stdout", "a\n"), result(1, "True"), count=1),
            code(["_ = ax.plot(x)\n", "plt.show()"], picture(), count=2, alt=ALT),
        ],
        "metadata": {
            "kernelspec": {"name": "python3"},
            "language_info": {"name": "python"},
            "lrlib": {"scale": "tour"},
        },
    }


def all_problems(notebook):
    return [problem for check in checks.CHECKS for problem in check(notebook)]


def unexecuted(nb):
    nb["cells"][2]["execution_count"] = None


def out_of_order(nb):
    nb["cells"][1]["execution_count"], nb["cells"][2]["execution_count"] = 2, 1


def counted_from_two(nb):
    nb["cells"][1]["execution_count"], nb["cells"][2]["execution_count"] = 2, 3


def output_of_another_run(nb):
    nb["cells"][1]["outputs"][1]["execution_count"] = 9


def error_output(nb):
    nb["cells"][2]["outputs"] = [
        {"output_type": "error", "ename": "ValueError", "evalue": "lr must be positive", "traceback": []}
    ]


def stderr_output(nb):
    nb["cells"][1]["outputs"][0]["name"] = "stderr"


def split_stream(nb):
    nb["cells"][1]["outputs"].insert(0, stream("stdout", "b\n"))


def without_alt(nb):
    nb["cells"][2]["metadata"] = {}


def empty_alt(nb):
    nb["cells"][2]["metadata"]["mystnb"]["image"]["alt"] = "   "


def short_alt(nb):
    nb["cells"][2]["metadata"]["mystnb"]["image"]["alt"] = "A plot of the loss."


def same_alt(nb):
    nb["cells"].append(code("plt.show()", picture(), count=3, alt=ALT))


def without_caption(nb):
    nb["cells"][2]["metadata"]["mystnb"]["figure"]["caption"] = " "


def same_name(nb):
    nb["cells"].append(copy.deepcopy(nb["cells"][2]))


def two_figures(nb):
    nb["cells"][2]["outputs"].append(picture())


def markdown_picture_without_alt(nb):
    nb["cells"][0]["source"] = "![](line.png)"


def full_scale(nb):
    nb["metadata"]["lrlib"]["scale"] = "full"


def scale_not_said(nb):
    del nb["metadata"]["lrlib"]


def other_kernel(nb):
    nb["metadata"]["kernelspec"]["name"] = "venv311"


def patch_version(nb):
    nb["metadata"]["language_info"]["version"] = "3.11.7"


def timing(nb):
    nb["cells"][1]["metadata"]["execution"] = {"iopub.status.busy": "2026-01-01T00:00:00Z"}


def magic(nb):
    nb["cells"][1]["source"] = "%matplotlib inline"


def assigned_magic(nb):
    nb["cells"][1]["source"] = "x = 1\nt = %timeit -o x"


def shell_escape(nb):
    nb["cells"][1]["source"] = "!ls"


def get_ipython(nb):
    nb["cells"][1]["source"] = "get_ipython().run_line_magic('time', '1')"


def semicolon(nb):
    nb["cells"][2]["source"] = ["ax.plot(x);\n", "plt.show()"]


def semicolon_at_the_end(nb):
    nb["cells"][2]["source"] = "ax.plot(x);  # hide"


def clear_output(nb):
    nb["cells"][1]["source"] = "from IPython.display import clear_output"


def typed_number(nb):
    nb["cells"][0]["source"] += "\nThe cosine is ahead by 3.7 points."


def typed_percentage(nb):
    nb["cells"][0]["source"] += "\n```{prf:remark}\nIt reaches 94% here.\n```"


def number_in_an_alt_text(nb):
    nb["cells"][2]["metadata"]["mystnb"]["image"]["alt"] += " The red one ends at 0.93."


def number_in_a_caption(nb):
    nb["cells"][2]["metadata"]["mystnb"]["figure"]["caption"] = "Loss, lowest at 2.6e-3."


def number_in_a_verdict(nb):
    nb["cells"].append(code("assert x\nsettle('J1', 'holds' if x else 'corrected', f'{x}, up to 0.31')", count=3))


def verdict_without_assertion(nb):
    nb["cells"] += [code("settle('J1', 'holds' if x else 'corrected', 'It does.')", count=3), code("print(x)", count=4)]


def verdict_with_another_assertion(nb):
    nb["cells"] += [code("assert y\nsettle('J1', 'holds' if x else 'corrected', 'It does.')", count=3)]


def verdict_that_is_asserted_too_late(nb):
    nb["cells"] += [
        code("settle('J1', 'holds' if x else 'corrected', 'It does.')", count=3),
        code("assert y", count=4),
        code("assert x", count=5),
    ]


def verdict_asserted_only_for_another_claim(nb):
    nb["cells"] += [
        code("v = 'holds' if x else 'corrected'\nsettle('J1', v, 'It does.')", count=3),
        code("v = 'holds' if y else 'corrected'\nassert v == 'holds'\nsettle('J2', v, 'It does.')", count=4),
    ]


def typed_verdict(nb):
    nb["cells"] += [code("settle('J1', 'holds', 'It does.')", count=3), code("assert x", count=4)]


def answer_without_assertion(nb):
    nb["cells"] += [code("settle('H8', 'answered', f'It can, at {low}.')", count=3)]


def answer_with_another_assertion(nb):
    nb["cells"] += [code("assert y\nsettle('H8', 'answered', f'It can, at {low}.')", count=3)]


BREAKS = [
    (unexecuted, checks.executed),
    (unexecuted, checks.in_order),
    (out_of_order, checks.in_order),
    (counted_from_two, checks.in_order),
    (output_of_another_run, checks.outputs_counted),
    (error_output, checks.no_errors),
    (stderr_output, checks.no_stderr),
    (split_stream, checks.streams_merged),
    (without_alt, checks.described),
    (empty_alt, checks.described),
    (short_alt, checks.described),
    (same_alt, checks.described),
    (without_caption, checks.captioned),
    (same_name, checks.captioned),
    (two_figures, checks.described),
    (markdown_picture_without_alt, checks.pictures_described),
    (full_scale, checks.tour_scale),
    (scale_not_said, checks.tour_scale),
    (other_kernel, checks.kernel_named),
    (patch_version, checks.no_patch_versions),
    (timing, checks.no_timing),
    (magic, checks.plain_python),
    (assigned_magic, checks.plain_python),
    (shell_escape, checks.plain_python),
    (get_ipython, checks.plain_python),
    (semicolon, checks.no_semicolons),
    (semicolon_at_the_end, checks.no_semicolons),
    (clear_output, checks.no_clear_output),
    (typed_number, checks.no_typed_numbers),
    (typed_percentage, checks.no_typed_numbers),
    (number_in_an_alt_text, checks.no_typed_numbers),
    (number_in_a_caption, checks.no_typed_numbers),
    (number_in_a_verdict, checks.no_typed_numbers),
    (verdict_without_assertion, checks.verdicts_pinned),
    (verdict_with_another_assertion, checks.verdicts_pinned),
    (verdict_that_is_asserted_too_late, checks.verdicts_pinned),
    (verdict_asserted_only_for_another_claim, checks.verdicts_pinned),
    (typed_verdict, checks.verdicts_pinned),
    (answer_without_assertion, checks.verdicts_pinned),
    (answer_with_another_assertion, checks.verdicts_pinned),
]


def test_a_sound_notebook_has_no_problems():
    assert all_problems(sound()) == []


@pytest.mark.parametrize(("spoil", "check"), BREAKS, ids=[f"{b.__name__}-{c.__name__}" for b, c in BREAKS])
def test_each_check_can_fail(spoil, check):
    notebook = sound()
    whole = copy.deepcopy(notebook)
    spoil(notebook)
    assert notebook != whole
    assert check(whole) == []
    assert len(check(notebook)) == 1


def test_every_check_is_shown_to_fail():
    assert {check for _, check in BREAKS} == set(checks.CHECKS)


@pytest.mark.parametrize(
    "prose",
    [
        "A rate of 0.3 is too high.",
        "At least 80% of the runs end well.",
        "The limit is $\\eta = 0.75$.",
        "That limit of 0.75 is sharp: $0.75 = 3/4$.",
        "Intervals hold 95% of them.",
        "Page reports 94.1% {cite:p}`page2019`.",
        "```{exercise}\nTry a momentum of 0.97.\n```",
        "Set `lr=0.123`, see [there](https://x.org/0.123) and Theorem 4.13, since PyTorch 2.4.",
        "Three times in 2019.",
    ],
)
def test_a_number_that_is_set_or_asserted_or_cited_may_stand_in_prose(prose):
    notebook = sound()
    notebook["cells"][0]["source"] += "\n" + prose
    notebook["cells"].append(code("rate = 0.3\nassert share > 0.8", count=3))
    assert checks.no_typed_numbers(notebook) == []


@pytest.mark.parametrize(
    "cells",
    [
        ["ok = low > 0\nassert ok\nsettle('J1', 'holds' if ok else 'corrected', 'So.')"],
        ["v = 'holds' if low > 0 else 'corrected'\nsettle('J1', v, 'So.')", "plt.show()", "assert low > 0.1"],
        ["settle('H8', 'answered', 'It can.', [Evidence('gain', low)])", "assert low > 0.1"],
    ],
)
def test_a_verdict_that_is_pinned_passes(cells):
    notebook = sound()
    notebook["cells"] += [code(source, count=3 + n) for n, source in enumerate(cells)]
    assert checks.verdicts_pinned(notebook) == []


TOC = {
    "root": "book/index",
    "parts": [{"caption": "A", "chapters": [{"file": "book/a", "sections": [{"file": "book/b"}]}]}],
}


def test_toc_files_are_in_reading_order():
    assert checks.toc_files(TOC) == ["book/index", "book/a", "book/b"]


def test_a_sound_toc_has_no_problems():
    assert checks.toc_problems(TOC, {"book/index", "book/a", "book/b"}) == []


@pytest.mark.parametrize(
    ("present", "said"),
    [
        ({"book/index", "book/a"}, "_toc.yml names book/b, which does not exist"),
        ({"book/index", "book/a", "book/b", "book/c"}, "book/c is not in _toc.yml"),
    ],
)
def test_toc_problems_can_be_found(present, said):
    assert checks.toc_problems(TOC, present) == [said]


def test_a_chapter_listed_twice_is_found():
    toc = {"root": "book/index", "parts": [{"chapters": [{"file": "book/index"}]}]}
    assert checks.toc_problems(toc, {"book/index"}) == ["_toc.yml names book/index twice"]


def test_toc_and_files_agree():
    toc = yaml.safe_load((ROOT / "_toc.yml").read_text(encoding="utf-8"))
    files = [*CHAPTERS, *(ROOT / "book").rglob("*.md")]
    present = {file.relative_to(ROOT).with_suffix("").as_posix() for file in files}
    assert checks.toc_problems(toc, present) == []


@pytest.mark.parametrize("path", CHAPTERS, ids=lambda path: path.stem)
def test_chapter(path):
    notebook = json.loads(path.read_text(encoding="utf-8"))
    assert [problem for check in checks.CHECKS for problem in check(notebook)] == []


@pytest.mark.parametrize(("stored", "failed"), [("holds", 0), ("corrected", 1)])
def test_a_verdict_that_differs_from_the_stored_one_fails_though_its_output_is_ignored(tmp_path, stored, failed):
    source = 'import lrlib\nlrlib.settle("J1", "holds", "x", [lrlib.Evidence("edge", "0.2", "quadratic")])'
    output = result(1) | {"data": {claims.MIME: {"claim": "J1", "verdict": stored}}}
    cell = code(source, output, count=1) | {"metadata": {"tags": ["nbval-ignore-output"]}}
    kernel = {"kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"}}
    notebook = {"cells": [cell], "metadata": kernel, "nbformat": 4, "nbformat_minor": 4}
    (tmp_path / "claim.ipynb").write_text(json.dumps(notebook), encoding="utf-8")
    options = ["--nbval", "--nbval-current-env", "-p", "conftest", "-p", "no:cacheprovider", "claim.ipynb"]
    done = subprocess.run(
        [sys.executable, "-m", "pytest", *options],
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
    )
    assert done.returncode == failed, done.stdout + done.stderr
    assert ("the cell reaches the verdicts {'J1': 'holds'}" in done.stdout) == bool(failed)
