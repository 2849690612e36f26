"""`tools/margins.py`: what is noted of an assertion, and which bounds of a notebook it finds too tight."""

import ast

import margins
import nbformat
import numpy as np
import pytest
import torch


def noted(source, **names):
    watch = margins.Watch()
    exec(compile(watch.visit(ast.parse(source)), "cell", "exec"), {"_watch": watch} | names)
    return watch


def test_an_assertion_keeps_its_meaning_and_its_margins_are_noted():
    watch = noted("assert 1 < x <= 4 and not x > 5 and x in (3,) and x is not None, 'text'", x=3.0)
    assert not watch.false
    assert watch.margins == {"1, 1 < x": 2, "1, x <= 4": 1, "1, x > 5": -2}


def test_a_false_assertion_is_noted_and_the_rest_of_the_cell_runs():
    watch = noted("for x in (1, 3):\n    assert x < 2\ndone.append(x)", done=(done := []))
    assert watch.false == ["1, x < 2"] and watch.margins == {"1, x < 2": -1} and done == [3]
    assert noted("assert 3 < x < 4", x=1.0).false  # in a chain each part counts


def test_of_arrays_the_smallest_margin_counts_and_of_words_none():
    assert noted("assert (x > 1).all()", x=np.array([1.5, 3])).margins == {"1, x > 1": 0.5}
    assert noted("assert (x > 1).all()", x=torch.tensor([1.5, 3], requires_grad=True)).margins == {"1, x > 1": 0.5}
    assert noted("assert 'a' < x == 'b'", x="b").margins == {}


def test_of_each_kind_one_line():
    draws = [
        {
            "false": {"a: x == 1"} if k else set(),
            "margins": {"a: x > 0": 0.1 * k, "a: x < 9": 9 - 0.1 * k, "a: 1 < 2": 1},
        }
        for k in range(3)
    ]
    assert margins.report(draws) == ["false in 2 of 3 draws: a: x == 1", "margins 0 0.1 0.2: a: x > 0"]


def test_a_bound_within_the_noise_is_found_and_a_wide_one_not(tmp_path, capsys):
    source = """
import torch, lrlib
with lrlib.seeded(0):
    net = lrlib.mlp(4, 8, 2)
before = sum(p.double().sum().item() for p in net.parameters())
data = torch.randn(8, 4), torch.zeros(8, dtype=torch.long)
lrlib.train(net, data, 0.0, steps=1, batch_size=8)
moved = abs(sum(p.double().sum().item() for p in net.parameters()) - before)
assert moved < 1e-7
assert moved < 1
"""
    path = tmp_path / "one.ipynb"
    nbformat.write(nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(source, id="cell")]), path)
    assert margins.main(["--draws", "2", str(path)]) == 0
    printed = capsys.readouterr().out
    assert printed.startswith("one: ") and "cell: moved < 1e-07" in printed and "moved < 1\n" not in printed


def test_a_notebook_that_fails_is_named_and_the_others_are_reported(tmp_path, capsys):
    paths = [tmp_path / f"{name}.ipynb" for name in ("broken", "sound")]
    for path, source in zip(paths, ("1 / 0", "assert 1 < 2"), strict=True):
        nbformat.write(nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(source)]), path)
    assert margins.main(["--draws", "2", *map(str, paths)]) == 1
    printed = capsys.readouterr()
    assert printed.err.startswith("broken: FAILED") and "ZeroDivisionError" in printed.err
    assert printed.out == "sound: 0 to look at\n"


@pytest.mark.parametrize("arguments", [["--draws", "1", "a.ipynb"], ["missing.ipynb"]])
def test_bad_arguments_are_refused(arguments, capsys):
    with pytest.raises(SystemExit):
        margins.main(arguments)
    assert arguments[-1 if len(arguments) == 1 else 1] in capsys.readouterr().err
