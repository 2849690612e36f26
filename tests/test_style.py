"""The code is formatted and linted as pyproject.toml says."""

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
FOLDERS = ["lrlib", "tests", "tools", "benchmarks", "book", "conftest.py"]


@pytest.mark.parametrize("arguments", [["check", "--output-format=concise"], ["format", "--check"]], ids=" ".join)
def test_ruff_finds_nothing(arguments):
    done = subprocess.run(
        [sys.executable, "-m", "ruff", *arguments, "--no-cache", *FOLDERS], cwd=ROOT, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout + done.stderr
