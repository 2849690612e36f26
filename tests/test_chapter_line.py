"""The line under a chapter's title, and the copies for Colab."""

import importlib.machinery
import importlib.util
import json
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import chapter_line
import colab
import nbformat
import notebooks
import pytest

ROOT = Path(__file__).resolve().parent.parent
CHAPTERS = sorted((ROOT / "book").glob("*.ipynb"))


def test_every_chapter_has_been_timed_and_nothing_else():
    timed = json.loads(chapter_line.RUN_SECONDS.read_text(encoding="utf-8"))
    assert set(timed) == {path.stem for path in CHAPTERS}
    assert all(isinstance(seconds, int) and seconds >= 1 for seconds in timed.values())


@pytest.mark.parametrize("path", CHAPTERS, ids=lambda path: path.stem)
def test_no_chapter_types_its_times(path):
    first = "".join(json.loads(path.read_text(encoding="utf-8"))["cells"][0]["source"])
    assert not re.search(r"\d+ minutes|minutes? to run|hour to read|Reading takes|\*\*Time\*\*", first)
    assert 5 <= chapter_line.reading_minutes(json.loads(path.read_text(encoding="utf-8"))) <= 120


def test_links_need_a_repository():
    notebook = {"cells": []}
    alone = chapter_line.line(notebook, "x", "x.ipynb", {}, None)
    known = chapter_line.line(notebook, "x", "x.ipynb", {}, "someone/book")
    assert "https:" not in alone and "to run" not in alone
    assert known.startswith(alone.removesuffix("</p>")) and known.count("<a href=") == 3


@pytest.mark.parametrize(
    "url", ["", "https://gitlab.com/a/b", "https://github.com/a", "https://evil.org/github.com/a/b"]
)
def test_other_remotes_are_no_github_repositories(url):
    assert chapter_line.github_name(url) is None


@pytest.mark.parametrize("path", CHAPTERS, ids=lambda path: path.stem)
def test_a_copy_for_colab_is_the_chapter_behind_an_install_cell(path):
    notebook = nbformat.read(path, 4)
    made = colab.for_colab(notebook, "someone/book")
    nbformat.validate(made)
    install, *rest = made.cells
    assert [cell.source for cell in rest] == [cell.source for cell in notebook.cells]
    assert "https://github.com/someone/book" in install.source
    assert notebook.cells[0].id != install.id
    before = list(sys.path)
    exec(compile(install.source, "install", "exec"), {})  # outside of Colab it does nothing
    assert sys.path == before


def test_a_downloaded_notebook_fetches_the_book_and_finds_its_package(tmp_path, monkeypatch):
    calls = []

    def run(command, check):
        calls.append(command)
        if command[:2] == ["git", "clone"]:
            Path(command[-1]).symlink_to(ROOT, target_is_directory=True)

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [path for path in sys.path if path])
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)  # as where lrlib is not installed
    monkeypatch.setattr(subprocess, "run", run)
    exec(compile(colab.INSTALL.format(name="someone/book"), "install", "exec"), {})
    assert calls[0][-2:] == ["https://github.com/someone/book", "the-learning-rate"]
    assert calls[1][:4] == [sys.executable, "-m", "pip", "install"] and "the-learning-rate[chapters]" in calls[1]
    assert Path.cwd().name == "book" and (Path.cwd() / "annealing.ipynb").exists()
    assert importlib.machinery.PathFinder.find_spec("lrlib", sys.path[:1]) is not None
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["optional-dependencies"]
    assert "chapters" in extras


def test_run_seconds_are_kept_unless_they_have_really_changed():
    known = {"a": 60, "b": 10}
    assert notebooks.remembered(known, {"a": 90.0, "b": 6.0}) == known
    assert notebooks.remembered(known, {"a": 121.0}) == {"a": 121, "b": 10}
    assert notebooks.remembered(known, {"b": 4.4}) == {"a": 60, "b": 4}
    assert notebooks.remembered(known, {"c": 0.2}) == {"a": 60, "b": 10, "c": 1}


@pytest.mark.parametrize(
    ("chapter", "changed", "waves"),
    [
        ("annealing", True, [["annealing"], ["ledger"]]),
        ("annealing", False, [["annealing"]]),
        ("shootout", True, [["shootout"], ["schedule_theory"], ["ledger"]]),
        ("ledger", True, [["ledger"]]),
    ],
)
def test_what_reads_a_chapter_runs_after_it_where_it_has_changed(monkeypatch, chapter, changed, waves):
    ran = []

    def run_all(paths):
        ran.append([path.stem for path in paths])
        return 0, {}, paths if changed else []

    monkeypatch.setattr(notebooks, "run_all", run_all)
    monkeypatch.setattr(notebooks, "set_environment", lambda: None)
    assert notebooks.main([str(ROOT / "book" / f"{chapter}.ipynb")]) == 0
    assert ran == waves
