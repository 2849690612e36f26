"""What `make fix` would change or ruff would find: nothing, notebooks included."""

import shutil
import subprocess
import sys
from pathlib import Path

import nbformat
import pytest
import yaml

ROOT = Path(__file__).resolve().parent.parent
CHECKS = [["check", "--output-format=concise"], ["format", "--check"]]
UNTIDY = "import os\nx = {  'a':1 }\n"


def ruff(arguments, folder):
    command = [sys.executable, "-m", "ruff", *arguments, "--no-cache", "."]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, encoding="utf-8")


@pytest.mark.parametrize("arguments", CHECKS, ids=" ".join)
def test_ruff_finds_nothing(arguments):
    done = ruff(arguments, ROOT)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("arguments", CHECKS, ids=" ".join)
@pytest.mark.parametrize("name", ["module.py", "chapter.ipynb"])
def test_ruff_finds_an_untidy_module_and_an_untidy_cell(tmp_path, arguments, name):
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    cell = nbformat.v4.new_code_cell(UNTIDY, id="a")
    text = UNTIDY if name.endswith(".py") else nbformat.writes(nbformat.v4.new_notebook(cells=[cell]))
    (tmp_path / name).write_text(text, encoding="utf-8")
    done = ruff(arguments, tmp_path)
    assert done.returncode == 1 and name in done.stdout, done.stdout + done.stderr


def test_the_hooks_of_pre_commit_run_the_versions_of_the_lock():
    repos = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text(encoding="utf-8"))["repos"]
    assert [repo["repo"] for repo in repos] == ["local"]
    assert all(hook["entry"].startswith(".venv/bin/python -m ") for hook in repos[0]["hooks"])
