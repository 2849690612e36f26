"""Records: written as they grow, resumed, stale when their code changes, honest about what is missing."""

import json
import os
import re
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import joblib
import numpy as np
import pytest
import torch

import lrlib
from lrlib import records, rehearsal

CELL = """
import lrlib
CALLS = []
def run(seed, power):
    CALLS.append(seed)
    return {"value": float(seed) ** power}
rows = lrlib.measure("demo", [{"seed": s, "power": 2} for s in range(3)], run)
"""


def notebook(*cells):
    return {
        "cells": [
            {"cell_type": "code", "source": source, "metadata": {"tags": tags}, "outputs": []} for source, tags in cells
        ]
    }


@pytest.fixture
def root(tmp_path, monkeypatch):
    """A project of one chapter, demo.ipynb, at full scale."""
    monkeypatch.setattr(records, "ROOT", tmp_path)
    monkeypatch.setenv("LRLIB_SCALE", "full")
    monkeypatch.setenv("MPLBACKEND", "agg")  # main() sets it for good, and a notebook tested later would show no figure
    (tmp_path / "book").mkdir()
    write(tmp_path, CELL)
    return tmp_path


def write(root, source):
    cells = notebook(("raise RuntimeError('only at tour scale')", []), (source, ["full"]))
    (root / "book" / "demo.ipynb").write_text(json.dumps(cells))


def run(root):
    return records.run_notebook(root / "book" / "demo.ipynb")


def test_a_missing_record_is_false_and_says_so(root):
    record = lrlib.load_record("demo")
    assert not record and "no full-scale record yet" in record.label


def test_a_whole_record_is_there_only_while_all_its_runs_are_those_of_the_present_code(root):
    assert not lrlib.whole_record("demo")
    run(root)
    assert lrlib.whole_record("demo") == lrlib.load_record("demo")
    path = root / "data" / "records" / "demo.json"
    stored = json.loads(path.read_text())
    path.write_text(json.dumps(stored | {"complete": False}))
    assert lrlib.load_record("demo") and not lrlib.whole_record("demo") and lrlib.whole_record("demo").rows == []
    path.write_text(json.dumps(stored))
    assert lrlib.whole_record("demo")
    write(root, CELL.replace("** power", "** power + 1"))
    assert lrlib.load_record("demo") and not lrlib.whole_record("demo")


def test_values_are_gathered_by_a_key_in_the_order_of_the_rows():
    rows = [{"entry": name, "loss": loss} for name, loss in (("b", 1), ("a", 2), ("b", None), ("a", 4))]
    found = lrlib.values_by(rows, "entry", "loss")
    assert list(found) == ["b", "a"] and found["a"].tolist() == [2, 4]
    assert found["b"][0] == 1 and np.isnan(found["b"][1]) and lrlib.values_by([], "entry", "loss") == {}
    with pytest.raises(KeyError, match="entry"):
        lrlib.values_by([{"loss": 1}], "entry", "loss")


def test_the_tagged_cells_alone_make_the_record_with_its_provenance(root):
    line = run(root)
    record = lrlib.load_record("demo")
    assert record.complete and not record.stale
    assert record.rows == [{"seed": s, "power": 2, "value": float(s * s)} for s in range(3)]
    assert record.provenance["seeds"] == [0, 1, 2]
    assert set(record.provenance) == {
        "device", "torch", "date", "commit", "seeds", "seconds", "memory", "data", "cells", "library", "grid",
        "settings",
    }  # fmt: skip
    assert record.provenance["memory"] > 100  # MB, of a process that has loaded torch
    assert line == record.label and f"demo: 3 runs of seeds 0 to 2 on {record.provenance['device']}, torch" in line


@pytest.mark.parametrize(
    "seeds, words",
    [([], "1 run on"), ([4], "1 run of seed 4 on"), ([0, 1], "of seeds 0, 1 on"), ([0, 2, 3], "of seeds 0, 2, 3 on")],
)
def test_the_label_names_the_seeds(root, seeds, words):
    run(root)
    record = lrlib.load_record("demo")
    assert words in replace(record, rows=record.rows[:1], provenance=record.provenance | {"seeds": seeds}).label


def test_a_finished_record_is_not_made_again_unless_forced(root, monkeypatch):
    run(root)
    path = root / "data" / "records" / "demo.json"
    before = path.stat().st_mtime_ns
    assert run(root) == "demo.ipynb: up to date"
    assert path.stat().st_mtime_ns == before
    monkeypatch.setenv("LRLIB_FORCE", "1")
    run(root)
    assert path.stat().st_mtime_ns > before


def test_a_finished_record_is_not_written_again(root, monkeypatch):
    run(root)
    written = []
    monkeypatch.setattr(records, "_write", written.append)
    assert len(records.measure("demo", [{"seed": s, "power": 2} for s in range(3)], None)) == 3 and not written


def test_a_record_whose_chapter_is_gone_is_not_whole(root):
    run(root)
    (root / "book" / "demo.ipynb").unlink()
    assert lrlib.load_record("demo") and not lrlib.whole_record("demo")


def test_an_interrupted_run_resumes_where_it_stopped(root):
    calls = []

    def work(seed):
        calls.append(seed)
        if seed == 2 and calls.count(2) == 1:
            raise KeyboardInterrupt
        return {"value": seed}

    grid = [{"seed": s} for s in range(4)]
    with pytest.raises(KeyboardInterrupt):
        lrlib.measure("demo", grid, work)
    assert not lrlib.load_record("demo").complete and "incomplete" in lrlib.load_record("demo").label
    assert lrlib.measure("demo", grid, work) == [{"seed": s, "value": s} for s in range(4)]
    assert calls == [0, 1, 2, 2, 3] and lrlib.load_record("demo").complete


def test_a_changed_cell_makes_the_record_stale_and_the_next_run_makes_it_again(root):
    run(root)
    write(root, CELL.replace("** power", "** power + 1"))
    assert lrlib.load_record("demo").stale and "stale" in lrlib.load_record("demo").label
    run(root)
    assert not lrlib.load_record("demo").stale
    assert [row["value"] for row in lrlib.load_record("demo").rows] == [1.0, 2.0, 5.0]


LIBRARY = {
    "__init__": "from lrlib.models import net, other",
    "models": "from lrlib import parts\n\n\ndef net():\n    return parts.width()\n\n\ndef other():\n    return 1",
    "parts": "WIDTH = 3\n\n\ndef width():\n    return WIDTH",
}


def write_library(root, **changed):
    (root / "lrlib").mkdir(exist_ok=True)
    for name, text in (LIBRARY | changed).items():
        (root / "lrlib" / f"{name}.py").write_text(text)


def test_a_change_in_what_the_cells_use_of_lrlib_makes_the_record_stale(root):
    write(root, CELL.replace("CALLS = []", "CALLS, make = [], lambda: lrlib.net()"))
    write_library(root)
    run(root)
    write_library(root, models=LIBRARY["models"].replace("return 1", "return 2"))  # which no cell uses
    assert not lrlib.load_record("demo").stale
    write_library(root, parts=LIBRARY["parts"].replace("WIDTH = 3", "WIDTH = 4"))
    assert lrlib.load_record("demo").stale


def test_of_several_records_of_a_chapter_only_those_from_the_changed_cell_on_become_stale(root):
    later = CELL.replace("demo", "demo-more")

    def write_both(first, second):
        cells = notebook((first, ["full"]), (second, ["full"]))
        (root / "book" / "demo.ipynb").write_text(json.dumps(cells))
        return [lrlib.load_record(name).stale for name in ("demo", "demo-more")]

    write_both(CELL, later)
    run(root)
    assert write_both(CELL, later.replace("** power", "+ power")) == [False, True]
    assert write_both(CELL.replace("** power", "+ power"), later) == [True, True]
    assert write_both(CELL, later) == [False, False]


def test_what_the_runs_do_not_use_does_not_make_the_record_stale(root):
    run(root)
    made = (root / "data" / "records" / "demo.json").read_text()
    for other in ("seed = 4\n", "def best(rows): return max(rows)\n", "power = [seed for seed in (1, 2)]\n"):
        write(root, other + CELL)
        assert lrlib.whole_record("demo") and run(root) == "demo.ipynb: up to date"
    write(root, CELL.replace("import lrlib\n", "import lrlib\nlrlib.COLORS[:0] = []\n"))  # may change anything
    assert lrlib.load_record("demo").stale
    assert (root / "data" / "records" / "demo.json").read_text() == made


def test_a_grid_grows_and_shrinks_and_what_was_measured_stays(root, capsys):
    run(root)
    write(root, CELL.replace("range(3)", "range(1, 5)"))
    record = lrlib.load_record("demo")
    assert len(record.rows) == 3 and not record.stale and not record.complete and "incomplete" in record.label
    capsys.readouterr()
    run(root)
    assert [line.split()[1] for line in capsys.readouterr().err.splitlines()] == ["3/4", "4/4"]
    grown = lrlib.whole_record("demo")
    assert [row["seed"] for row in grown.rows] == grown.provenance["seeds"] == [1, 2, 3, 4]
    write(root, CELL.replace("range(3)", "(4, 2)"))
    assert not lrlib.whole_record("demo")
    run(root)
    shrunk = lrlib.whole_record("demo")
    assert [row["seed"] for row in shrunk.rows] == [4, 2] and capsys.readouterr().err == ""
    assert {k for k, v in shrunk.provenance.items() if grown.provenance[k] != v} == {"grid", "seeds"}


def test_a_carried_record_that_grows_still_says_so(root):
    run(root)
    path = root / "data" / "records" / "demo.json"
    stored = json.loads(path.read_text())
    stored["provenance"]["carried"] = ["abc"]
    path.write_text(json.dumps(stored))
    write(root, CELL.replace("range(3)", "range(5)"))
    run(root)
    assert len(lrlib.whole_record("demo").rows) == 5 and lrlib.whole_record("demo").provenance["carried"] == ["abc"]
    write(root, CELL.replace("** power", "+ power"))
    run(root)
    assert "carried" not in lrlib.whole_record("demo").provenance


def test_trailing_white_space_does_not_make_a_record_stale(root):
    run(root)
    write(root, CELL.replace("CALLS = []\n", "CALLS = []   \n") + "\n\n")
    assert not lrlib.load_record("demo").stale


def test_at_tour_scale_nothing_is_written(root, monkeypatch):
    monkeypatch.setenv("LRLIB_SCALE", "tour")
    result = {"a": np.float32(0.5), "b": np.array([1, np.nan]), "c": {1: torch.tensor([-torch.inf])}, "d": (True, "x")}
    rows = lrlib.measure("demo", [{"seed": 1}], lambda seed: result)
    assert rows == [{"seed": 1, "a": 0.5, "b": [1.0, None], "c": {"1": [None]}, "d": [True, "x"]}]
    assert not (root / "data").exists()


@pytest.mark.parametrize("grid", [[], [{"seed": 1}, {"seed": 1}]])
def test_an_empty_or_repeated_grid_is_refused(grid):
    with pytest.raises(ValueError, match="grid"):
        lrlib.measure("demo", grid, lambda seed: {})


def test_a_result_that_cannot_be_kept_is_refused():
    with pytest.raises(TypeError, match="to go into a record"):
        lrlib.measure("demo", [{"seed": 1}], lambda seed: {"model": object()})


def test_a_damaged_record_is_named(root):
    path = root / "data" / "records" / "demo.json"
    path.parent.mkdir(parents=True)
    path.write_text('{"rows": [')
    with pytest.raises(ValueError, match="demo.json: is not a record"):
        lrlib.load_record("demo")


def test_a_damaged_chapter_is_not_taken_for_a_damaged_record(root):
    run(root)
    (root / "book" / "demo.ipynb").write_text('{"cells": [')
    with pytest.raises(json.JSONDecodeError):
        lrlib.load_record("demo")
    (root / "book" / "demo.ipynb").write_text("{}")
    with pytest.raises(KeyError, match="cells"):
        lrlib.load_record("demo")


def test_seeds_are_those_of_the_points_and_of_the_results(root):
    write(
        root,
        'import lrlib\nlrlib.measure("demo", [{"seeds": [0, 3]}, {"seeds": [3, 5]}], '
        'lambda seeds: {"n": 2, "seed": 7 + seeds[0] // 3})',
    )
    run(root)
    assert lrlib.load_record("demo").provenance["seeds"] == [0, 3, 5, 7, 8]


def test_seeds_that_every_run_uses_are_named_by_the_caller(root):
    write(
        root,
        CELL.replace(
            '[{"seed": s, "power": 2} for s in range(3)], run', '[{"seed": 7, "power": 2}], run, seeds=[3, 1]'
        ),
    )
    assert "1 run of seeds 1, 3, 7 on" in run(root)


def test_runs_on_workers_make_the_same_record_and_resume(root):
    grid, fail = [{"seed": s} for s in range(6)], [4]

    def work(seed):
        if seed in fail:
            raise KeyError(fail.pop())
        return {"value": seed}

    with joblib.parallel_config(backend="threading", n_jobs=2):
        with pytest.raises(KeyError):
            lrlib.measure("demo", grid, work)
        before = lrlib.load_record("demo").rows
        rows = lrlib.measure("demo", grid, work)
    assert rows == lrlib.load_record("demo").rows == [{"seed": s, "value": s} for s in range(6)]
    assert before == rows[: len(before)]


TRAINING = """
import lrlib
def run(width, seed):
    model = lrlib.mlp(64, width, 10)
    history = lrlib.train(model, lrlib.digits(), 0.1, steps=2000, seed=seed)
    return {"accuracy": history.accuracy, "loss": history.loss[-1]}
rows = lrlib.measure("demo", [{"width": w, "seed": s} for w in (4, 8) for s in range(50)], run)
best = max(row["accuracy"] for row in rows)
"""


def command(root, *arguments, capsys):
    records.main([*arguments, str(root / "book" / "demo.ipynb")])
    return capsys.readouterr().out


def planned(out, record="demo"):
    (cells,) = [line.split()[1:] for line in out.splitlines() if line.split()[:1] == [record]]
    return cells


def test_a_plan_counts_what_is_missing_and_writes_nothing(root, capsys):
    write(root, TRAINING)
    out = command(root, "--plan", capsys=capsys)
    rows, seconds, each = planned(out)
    assert [rows, seconds, each] == planned(out, "total") and rows == "100" and float(seconds) > 50 * float(each) > 0
    assert not (root / "data").exists()


def test_a_plan_leaves_out_what_is_there(root, capsys, monkeypatch):
    write(root, CELL.replace("CALLS.append(seed)", "print('made', seed)"))
    clock = iter(range(1000))
    monkeypatch.setattr(records.time, "monotonic", lambda: next(clock))
    command(root, "--budget", "3", capsys=capsys)
    out = command(root, "--plan", capsys=capsys)
    assert planned(out)[0] == "1" and [line for line in out.splitlines() if "made" in line] == ["made 2"]


def test_a_plan_says_where_it_broke(root, capsys):
    write(root, CELL + "\nrows[0]['nothing']\n")
    out = command(root, "--plan", capsys=capsys)
    assert planned(out)[0] == "3" and "demo.ipynb: could not be planned to its end: KeyError: 'nothing'" in out


def test_a_budget_leaves_whole_rows_and_the_next_run_goes_on(root, capsys, monkeypatch):
    clock = iter(range(1000))
    monkeypatch.setattr(records.time, "monotonic", lambda: next(clock))
    assert "the 3 s do not reach for another run" in command(root, "--budget", "3", capsys=capsys)
    record = lrlib.load_record("demo")
    assert [row["seed"] for row in record.rows] == [0, 1] and not record.complete
    command(root, capsys=capsys)
    assert [row["seed"] for row in lrlib.load_record("demo").rows] == [0, 1, 2] and lrlib.load_record("demo").complete


def test_at_small_scale_nothing_is_recorded(root, capsys):
    assert "demo.ipynb: ran at small scale" in command(root, "--scale", "small", capsys=capsys)
    assert not (root / "data").exists()


def test_records_of_the_same_code_are_taken_over(root, tmp_path, capsys):
    run(root)
    there = tmp_path / "elsewhere"
    (root / "data" / "records").rename(there)
    records.main(["--merge", str(there)])
    assert "demo: taken over; demo: 3 runs" in capsys.readouterr().out
    assert lrlib.load_record("demo").complete
    records.main(["--merge", str(there)])
    assert "demo: left, as it has no more rows" in capsys.readouterr().out


def test_a_record_of_another_grid_is_taken_over_and_is_incomplete(root, tmp_path, capsys):
    run(root)
    there = tmp_path / "elsewhere"
    (root / "data" / "records").rename(there)
    write(root, CELL.replace("range(3)", "range(4)"))
    records.main(["--merge", str(there)])
    assert "taken over" in capsys.readouterr().out
    assert len(lrlib.load_record("demo").rows) == 3 and not lrlib.load_record("demo").complete
    run(root)
    assert [row["value"] for row in lrlib.whole_record("demo").rows] == [0, 1, 4, 9]


def test_records_of_other_code_are_left(root, tmp_path, capsys):
    run(root)
    there = tmp_path / "elsewhere"
    (root / "data" / "records").rename(there)
    (there / "stranger.json").write_text((there / "demo.json").read_text())
    write(root, CELL.replace("** power", "+ power"))
    records.main(["--merge", str(there)])
    out = capsys.readouterr().out
    assert "demo: left, as other code made it" in out and "stranger: left, as other code made it" in out
    assert not list((root / "data" / "records").glob("*"))


@pytest.mark.parametrize("jobs", ["0", "-1"])
def test_jobs_that_are_none_are_refused(jobs, capsys):
    with pytest.raises(SystemExit):
        records.main(["--jobs", jobs])
    assert f"--jobs {jobs}: must be >= 1" in capsys.readouterr().err


@pytest.mark.parametrize("other", [["--plan"], ["--merge", "."]])
def test_jobs_beside_what_makes_no_runs_are_refused(other, capsys):
    with pytest.raises(SystemExit):
        records.main(["--jobs", "2", *other])
    assert "--jobs 2: goes neither with --plan nor with --merge" in capsys.readouterr().err


def test_the_seconds_of_all_chapters_are_said(root, capsys):
    write(root, CELL)
    chapter = str(root / "book" / "demo.ipynb")
    records.main([chapter])
    assert "notebooks in" not in capsys.readouterr().out
    records.main([chapter, chapter])
    assert re.fullmatch(r"2 notebooks in \d+ s", capsys.readouterr().out.splitlines()[-1])


def test_a_folder_that_is_none_is_refused(root, capsys):
    with pytest.raises(SystemExit):
        records.main(["--merge", str(root / "nowhere")])
    assert "must be a folder of records" in capsys.readouterr().err


@pytest.mark.parametrize("scale", ["tour", "full"])
def test_points_have_the_same_settings_and_results_other_names(root, monkeypatch, scale):
    monkeypatch.setenv("LRLIB_SCALE", scale)
    with pytest.raises(ValueError, match=r"grid: has settings \['seed', 'lr'\] in a point, must be \['seed'\]"):
        lrlib.measure("demo", [{"seed": 0}, {"seed": 0, "lr": 1}], lambda **point: {"value": 1})
    with pytest.raises(ValueError, match="run: returned 'seed', which is a setting of the grid"):
        lrlib.measure("demo", [{"seed": 0}], lambda seed: {"seed": seed, "value": 1})


def test_a_budget_knows_from_the_record_before_what_a_run_takes(root, capsys, monkeypatch):
    write(root, CELL + CELL.replace('"demo"', '"demo-more"'))
    clock, watch = iter(range(1000)), iter(range(0, 10_000, 2))  # each run takes two seconds of perf_counter
    monkeypatch.setattr(records, "_took", 0.0)
    monkeypatch.setattr(records.time, "monotonic", lambda: next(clock))
    monkeypatch.setattr(records.time, "perf_counter", lambda: next(watch))
    assert "the 5.5 s do not reach" in command(root, "--budget", "5.5", capsys=capsys)
    assert len(lrlib.load_record("demo").rows) == 3 and not lrlib.load_record("demo-more")
    clock = iter(range(1000))
    command(root, "--budget", "2.5", capsys=capsys)
    assert not lrlib.load_record("demo-more")


def test_rows_of_other_settings_are_not_taken_for_those_of_the_grid(root):
    body = CELL.replace("def run(seed, power)", "def run(seed, power=1, rate=None)").replace(', "power": 2', "{more}")
    for more, values in ((', "power": 2', [0, 1, 4]), ("", [0, 1, 2]), (', "rate": None', [0, 1, 2])):
        write(root, body.replace("{more}", more))
        run(root)
        assert [row["value"] for row in lrlib.whole_record("demo").rows] == values
        assert "power" in lrlib.load_record("demo").rows[0] or more != ', "power": 2'


@pytest.mark.parametrize("scale", ["tour", "full"])
@pytest.mark.parametrize("point", [{"seed": [1, 2]}, {"seed": "one"}, {"seeds": 3}, {"seeds": ["one"]}])
def test_seeds_that_are_no_integers_are_refused_before_a_run_is_made(root, monkeypatch, scale, point):
    monkeypatch.setenv("LRLIB_SCALE", scale)
    with pytest.raises(ValueError, match="seed must be an integer, seeds a list"):
        lrlib.measure("demo", [point], lambda **given: pytest.fail("a run was made"))


@pytest.mark.parametrize("value", [float("inf"), float("nan"), [1.0, -np.inf]])
def test_a_setting_that_is_not_finite_is_refused(value):
    with pytest.raises(ValueError, match="grid: has a setting .*, must be of JSON's types"):
        lrlib.measure("demo", [{"clip": 1.0}, {"clip": value}], lambda clip: {"got": repr(clip)})


def test_a_merge_keeps_runs_that_only_the_record_here_has(root, tmp_path, capsys):
    write(root, CELL.replace("range(3)", "range(1, 5)"))
    run(root)
    there = tmp_path / "elsewhere"
    (root / "data" / "records").rename(there)
    write(root, CELL.replace("range(3)", "range(2)"))
    run(root)
    write(root, CELL.replace("range(3)", "range(6)"))
    records.main(["--merge", str(there)])
    assert "demo: left, as it lacks runs of the one here" in capsys.readouterr().out
    assert [row["seed"] for row in lrlib.load_record("demo").rows] == [0, 1]


def test_a_call_of_measure_may_name_its_arguments(root):
    write(root, CELL.replace("2} for s in range(3)], run)", "2} for s in range(3)], run=run)"))
    assert "3 runs of seeds 0 to 2" in run(root)
    assert records.records_of(["remeasure(3)", "lrlib.measure('a', grid=[1], run=f)"]) == {"a": ("[1]", "f")}
    with pytest.raises(ValueError, match="must have a name in quotes, a grid and a run"):
        records.records_of(["lrlib.measure(name, [1], f)"])


def test_a_record_of_other_types_is_named(root):
    run(root)
    path = root / "data" / "records" / "demo.json"
    path.write_text('{"rows": [], "provenance": null, "complete": true}')
    with pytest.raises(ValueError, match="demo.json: is not a record"):
        lrlib.load_record("demo")


def test_a_plan_counts_what_watches_a_run_as_often_as_it_looks(monkeypatch):
    clock = iter(range(10_000))
    monkeypatch.setattr(rehearsal, "_clock", lambda device: next(clock))
    with rehearsal.rehearsing() as left_out:
        update = rehearsal.shortened(lambda k: None, torch.device("cpu"))
        for k in range(rehearsal.FIRST + rehearsal.TIMED + 100):
            update(k)
            next(clock), next(clock)  # a look at the run between two updates
    assert left_out.seconds == 100


def test_a_record_under_another_name_than_the_chapters_is_refused(root):
    with pytest.raises(ValueError, match="name='other': must be CHAPTER or CHAPTER-PART"):
        lrlib.measure("other", [{"seed": 0}], lambda seed: {"value": 1})


def test_runs_of_other_data_do_not_join_those_that_are_there(root, monkeypatch):
    cell = CELL.replace("], run)", "], run, [DATA])").replace(
        "import lrlib\n",
        "import os, lrlib\nDATA = lrlib.digits() if os.environ['WHICH'] == 'plain' else lrlib.hard_digits()\n",
    )
    write(root, cell)
    monkeypatch.setenv("WHICH", "plain")
    run(root)
    write(root, cell.replace("range(3)", "range(4)"))
    monkeypatch.setenv("WHICH", "hard")
    with pytest.raises(ValueError, match="data: demo has runs on"):
        run(root)
    assert len(lrlib.load_record("demo").rows) == 3
    monkeypatch.setenv("WHICH", "plain")
    run(root)
    assert len(lrlib.whole_record("demo").rows) == 4


def test_a_merge_leaves_a_whole_record_for_no_part_of_a_larger_one(root, tmp_path, capsys):
    write(root, CELL.replace("range(3)", "range(6)"))
    run(root)
    there = tmp_path / "elsewhere"
    (root / "data" / "records").rename(there)
    stored = json.loads((there / "demo.json").read_text())
    (there / "demo.json").write_text(json.dumps(stored | {"rows": stored["rows"][:5], "complete": False}))
    write(root, CELL)
    run(root)
    records.main(["--merge", str(there)])
    assert "demo: left, as it is incomplete and the one here is whole" in capsys.readouterr().out
    assert lrlib.whole_record("demo")


def test_what_cannot_be_done_is_said_before_it_begins(root, capsys):
    for arguments, said in (
        (["--force", "--budget", "5"], "must be one of them"),
        (["gone.ipynb"], "no such notebook"),
    ):
        with pytest.raises(SystemExit):
            records.main(arguments)
        assert said in capsys.readouterr().err


BESIDE = """
import os, time
from pathlib import Path
import lrlib
def run(seed, name, beside):
    began, last = time.monotonic(), time.monotonic() + 60
    Path(name).touch()
    while not all(Path(other).exists() for other in beside):
        assert time.monotonic() < last, f"{name} runs without {beside}"
        time.sleep(0.05)
    return {"began": began, "ended": time.monotonic(), "process": os.getpid()}
lrlib.measure("NAME", [{"seed": s, "name": "NAME", "beside": BESIDE} for s in range(2)], run)
"""


def side_by_side(tmp_path, chapters, *arguments):
    """What the command says of chapters in a copy of the project, and their records."""
    shutil.copytree(Path(lrlib.__file__).parent, tmp_path / "lrlib", ignore=shutil.ignore_patterns("__pycache__"))
    (tmp_path / "book").mkdir()
    for name, (source, *tags) in chapters.items():
        cells = notebook((source, ["full", *tags]))
        (tmp_path / "book" / f"{name}.ipynb").write_text(json.dumps(cells))
    said = subprocess.run(
        [sys.executable, "-m", "lrlib.records", "--jobs", "2", *arguments],
        env=os.environ | {"PYTHONPATH": str(tmp_path)},
        cwd=tmp_path,
        capture_output=True,
        text=True,
    )
    return said, {path.stem: json.loads(path.read_text()) for path in (tmp_path / "data" / "records").glob("*.json")}


def test_chapters_run_side_by_side_and_one_that_reports_seconds_alone(tmp_path):
    chapters = {name: (BESIDE.replace("NAME", name).replace("BESIDE", "['a', 'b']"),) for name in ("a", "b")}
    chapters["c"] = (BESIDE.replace("NAME", "c").replace("BESIDE", "[]"), "alone")
    chapters["d"] = ("import lrlib\nlrlib.measure('d', [{'seed': 0}], lambda seed: 1 / seed)",)
    said, made = side_by_side(tmp_path, chapters)
    assert said.returncode == 1 and said.stderr.endswith("failed: d.ipynb\n")
    assert "ZeroDivisionError" in said.stderr and "a: 2 runs" in said.stdout
    assert made.keys() == {"a", "b", "c"} and all(record["complete"] for record in made.values())
    began, ended = (
        {name: choose(row[when] for row in record["rows"]) for name, record in made.items()}
        for choose, when in ((min, "began"), (max, "ended"))
    )
    assert ended["c"] < min(began["a"], began["b"])
    assert len({row["process"] for record in made.values() for row in record["rows"]}) == 3


def test_chapters_side_by_side_share_a_budget(tmp_path):
    chapters = {name: (BESIDE.replace("NAME", name).replace("BESIDE", "[]"),) for name in ("a", "b")}
    said, made = side_by_side(tmp_path, chapters, "--budget", "1e-9")
    assert said.returncode == 0 and not made
    *each, together = said.stdout.splitlines()
    assert sorted(each) == [f"{name}.ipynb: not begun, as the time is over" for name in chapters]
    assert re.fullmatch(r"2 notebooks in \d+ s", together)


def test_a_point_is_the_same_in_any_order_of_its_settings():
    with pytest.raises(ValueError, match="no twice"):
        lrlib.measure("demo", [{"seed": 0, "power": 1}, {"power": 1, "seed": 0}], lambda seed, power: {"value": 1.0})


def test_a_rehearsal_goes_on_after_one_inside_it():
    with rehearsal.rehearsing():
        with rehearsal.rehearsing():
            pass
        history = lrlib.train(lrlib.mlp(64, 8, 10), lrlib.digits(), 0.1, steps=30)
    assert np.isfinite(history.loss).sum() == 13


def test_a_record_notes_all_its_devices_and_the_most_memory(root, monkeypatch):
    for count, device, peak in ((2, "A", 500), (3, "B", 300)):
        write(root, CELL.replace("range(3)", f"range({count})"))
        monkeypatch.setattr(records, "device_name", lambda where, device=device: device)
        monkeypatch.setattr(records, "peak_memory", lambda where, peak=peak: peak)
        run(root)
    provenance = lrlib.load_record("demo").provenance
    assert (provenance["device"], provenance["memory"]) == ("A, B", 500)


def test_a_stale_record_gives_way_to_one_of_the_same_runs(root, tmp_path, capsys):
    run(root)
    there = tmp_path / "elsewhere"
    (root / "data" / "records").rename(there)
    write(root, CELL.replace("** power", "+ power"))
    run(root)
    write(root, CELL)
    assert lrlib.load_record("demo").stale
    records.main(["--merge", str(there)])
    assert "demo: taken over" in capsys.readouterr().out and not lrlib.load_record("demo").stale


def timed(monkeypatch, *seconds):
    """Runs take so many seconds, one after the other, on a clock that else stands still."""
    ends = np.cumsum(seconds)
    watch = iter(np.stack([ends - seconds, ends], 1).ravel().tolist())
    monkeypatch.setattr(records.time, "monotonic", lambda: 0.0)
    monkeypatch.setattr(records.time, "perf_counter", lambda: next(watch))


def test_a_budget_that_reaches_for_a_run_as_long_as_those_before_begins_it(root, capsys, monkeypatch):
    timed(monkeypatch, 2, 2, 2, 0)
    write(root, CELL.replace("range(3)", "range(2)"))
    command(root, capsys=capsys)
    write(root, CELL.replace("range(3)", "range(4)"))
    command(root, "--budget", "3", capsys=capsys)
    assert len(lrlib.load_record("demo").rows) == 4


def test_a_plan_counts_the_time_of_a_run_for_each_of_its_seeds(root, capsys, monkeypatch):
    timed(monkeypatch, 2)
    assert planned(command(root, "--plan", capsys=capsys)) == ["3", "6.0", "2.00"]


def test_what_is_not_made_takes_the_mean_of_the_updates_that_are_timed(monkeypatch):
    now = 0.0
    monkeypatch.setattr(rehearsal.time, "perf_counter", lambda: now)

    def update(k):
        nonlocal now
        now += k

    with rehearsal.rehearsing() as left_out:
        shortened = rehearsal.shortened(update, torch.device("cpu"))
        timed_ones = range(rehearsal.FIRST, rehearsal.FIRST + rehearsal.TIMED)
        for k in range(timed_ones.stop + 10):
            shortened(k)
    assert left_out.seconds == pytest.approx(10 * np.mean(timed_ones))
