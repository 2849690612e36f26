"""Records that are kept through a change of code: whose, and on what evidence."""

import json
import subprocess

import carry
import pytest

from lrlib import records

BEFORE = {"cells": "c0", "library": "l0", "grid": "g0"}
NOW = {"cells": "c0", "library": "l1", "grid": "g1"}


def test_a_record_of_the_code_before_gets_the_hashes_of_now_and_says_so():
    made = {"device": "a GPU", **BEFORE}
    assert carry.carried(made, BEFORE, NOW, "abc") == {"device": "a GPU", **NOW, "carried": ["abc"]}
    again = carry.carried(made | {"carried": ["abc"]}, BEFORE, NOW, "def")
    assert again["carried"] == ["abc", "def"]
    assert carry.carried(made | {"grid": "an older one"}, BEFORE, NOW, "abc")["grid"] == "an older one"


@pytest.mark.parametrize("part", ["cells", "library"])
def test_a_record_of_other_code_stays_stale(part):
    assert carry.carried(BEFORE | {part: "other"}, BEFORE, NOW, "abc") is None


def test_only_times_may_differ():
    rows = [{"loss": [1.0, {"x": 2.0, "seconds": 3.0}], "seconds": 1.0}]
    assert carry.timeless(rows) == [{"loss": [1.0, {"x": 2.0}]}]


def test_what_comes_out_otherwise_is_left_as_it_was(monkeypatch, tmp_path):
    monkeypatch.setattr(records, "ROOT", tmp_path)
    written = {"complete": True, "provenance": {"device": "a GPU", **BEFORE}, "rows": [{"seed": 0}]}
    path = tmp_path / "data" / "records" / "chapter.json"
    path.parent.mkdir(parents=True)
    for loss, said in (
        (2.0, "chapter: left, as it would come out otherwise now; make it again"),
        (1.0, "chapter: carried"),
    ):
        path.write_text(json.dumps(written))
        found = {"base": {"chapter": [[[{"loss": 1.0}]], BEFORE]}, "now": {"chapter": [[[{"loss": loss}]], NOW]}}
        monkeypatch.setattr(
            carry, "measured", lambda root, chapter, found=found: found["base" if root == "base" else "now"]
        )
        assert carry.carry("chapter", "base", "abc") == [said]
        kept = json.loads(path.read_text())["provenance"]
        assert (kept == written["provenance"]) == (loss == 2.0) and kept.get("carried", []) == ["abc"][: loss == 1.0]


def test_the_programme_of_a_folder_is_run_and_what_it_measures_comes_back(tmp_path):
    for name in ("lrlib", "data"):
        (tmp_path / name).symlink_to(carry.ROOT / name)
    (tmp_path / "book").mkdir()
    source = (
        "import lrlib\n\nrows = lrlib.measure('tiny', [{'seed': 0}, {'seed': 1}], lambda seed: {'double': 2 * seed})"
    )
    cell = {"cell_type": "code", "metadata": {"tags": ["full"]}, "source": source}
    (tmp_path / "book" / "tiny.ipynb").write_text(json.dumps({"cells": [cell]}))
    (rows,), code = carry.measured(tmp_path, "tiny")["tiny"]
    assert rows == [{"seed": 0, "double": 0}, {"seed": 1, "double": 2}] and set(code) <= {"cells", "library", "grid"}
    (tmp_path / "book" / "tiny.ipynb").write_text(
        json.dumps({"cells": [cell | {"source": source.replace("2 * seed", "1 / 0")}]})
    )
    with pytest.raises(subprocess.CalledProcessError):
        carry.measured(tmp_path, "tiny")


def test_runs_that_end_in_the_same_rows_are_told_apart_by_their_losses_and_weights(tmp_path):
    for name in ("lrlib", "data"):
        (tmp_path / name).symlink_to(carry.ROOT / name)
    (tmp_path / "book").mkdir()
    found = []
    for rate in (0.1, 0.1, 0.2):
        source = f"""import lrlib

def trained(seed):
    with lrlib.seeded(seed):
        model = lrlib.mlp(64, 4, 10)
    lrlib.train(model, lrlib.digits(), {rate}, steps=20)
    return {{"done": True}}

rows = lrlib.measure("tiny", [{{"seed": 0}}, {{"seed": 1}}], trained)"""
        cell = {"cell_type": "code", "metadata": {"tags": ["full"]}, "source": source}
        (tmp_path / "book" / "tiny.ipynb").write_text(json.dumps({"cells": [cell]}))
        found.append(carry.measured(tmp_path, "tiny")["tiny"][0])
    assert found[0] == found[1] != found[2] and found[0][0] == found[2][0] and len(found[0]) == 3


def test_a_record_whose_own_cells_have_changed_is_left_unless_it_is_asked_for(monkeypatch, tmp_path):
    monkeypatch.setattr(records, "ROOT", tmp_path)
    path = tmp_path / "data" / "records" / "chapter.json"
    path.parent.mkdir(parents=True)
    path.write_text(json.dumps({"complete": True, "provenance": BEFORE, "rows": [{"seed": 0}]}))
    codes = {"base": BEFORE, "now": NOW | {"cells": "c1"}}
    monkeypatch.setattr(
        carry, "measured", lambda root, chapter: {"chapter": [[[]], codes["base" if root == "base" else "now"]]}
    )
    assert "its own cells have changed" in carry.carry("chapter", "base", "abc")[0]
    assert carry.carry("chapter", "base", "abc", cells=True) == ["chapter: carried"]


def test_what_is_not_there_is_named():
    for arguments, said in (
        (["nosuch"], "nosuch: no such commit"),
        (["HEAD", "nochapter"], "nochapter: no such chapter"),
    ):
        with pytest.raises(SystemExit, match=said):
            carry.main(arguments[0], arguments[1:], cells=False)
