"""The report of sizes is whole, and says what grew; it fails nothing."""

import json
import re
from pathlib import Path

import pytest
import sizes

ROOT = Path(__file__).resolve().parent.parent


def report(capsys):
    assert sizes.main([]) == 0
    return capsys.readouterr().out


def test_every_module_and_chapter_is_in_the_report(capsys):
    said = report(capsys)
    modules = {name: int(lines) for name, lines in re.findall(r"^  (\w+) +(\d+)$", said, re.MULTILINE)}
    chapters = {
        name: (int(words), int(seen), int(all_lines))
        for name, words, seen, all_lines in re.findall(r"^(\w+) +(\d+) +(\d+) +(\d+) +\d+%$", said, re.MULTILINE)
    }
    assert set(modules) == {path.stem for path in ROOT.glob("lrlib/*.py")}
    assert set(chapters) == {path.stem for path in ROOT.glob("book/*.ipynb")}
    assert int(re.match(r"lrlib +(\d+) code lines\n", said)[1]) == sum(modules.values())
    assert all(words > 0 and seen <= all_lines for words, seen, all_lines in chapters.values())


def test_what_grew_is_said(capsys, monkeypatch, tmp_path):
    monkeypatch.setattr(sizes, "STORED", tmp_path / "sizes.json")
    assert sizes.main(["--store"]) == 0
    capsys.readouterr()
    assert ", was" not in report(capsys)
    stored = json.loads(sizes.STORED.read_text(encoding="utf-8"))
    stored["range_test, words"] -= 1
    sizes.STORED.write_text(json.dumps(stored), encoding="utf-8")
    lines = re.findall("^! .*, was .*$", report(capsys), re.MULTILINE)
    assert len(lines) == 1 and lines[0].startswith("! range_test, words: ")


def test_the_stored_sizes_are_those_of_pages_that_exist():
    stored = json.loads(sizes.STORED.read_text(encoding="utf-8"))
    pages = {path.stem for path in ROOT.glob("book/*.ipynb")}
    assert {name.partition(",")[0] for name in stored} <= pages | {"lrlib"}


@pytest.mark.parametrize("arguments", [["--stor"], ["book"]])
def test_an_unknown_argument_shows_the_usage(arguments, capsys):
    assert sizes.main(arguments) == 2
    assert "--store" in capsys.readouterr().err
