"""Copies of the chapters for Google Colab and for download: a first cell fetches the repository and installs the book.

    tools/colab.py OWNER/NAME FOLDER

The cell does nothing where the package is installed. The workflow that publishes the pages puts the copies on a
branch, as Colab opens notebooks from GitHub only.
"""

import copy
import sys
from pathlib import Path

import nbformat
from chapter_line import ROOT

INSTALL = """import importlib.util

if importlib.util.find_spec("lrlib") is None:  # a notebook by itself: fetch the book and install what it needs
    import os
    import subprocess
    import sys

    if not os.path.exists("the-learning-rate"):
        subprocess.run(["git", "clone", "--depth=1", "https://github.com/{name}", "the-learning-rate"], check=True)
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--editable", "the-learning-rate[chapters]"]
    subprocess.run(pip, check=True)
    sys.path.insert(0, os.path.abspath("the-learning-rate"))  # found by itself only after a restart
    os.chdir("the-learning-rate/book")"""


def with_install(notebook, name: str):
    """A copy whose first cell installs the package of the repository `name`, "owner/name", where it is missing."""
    fetched = copy.deepcopy(notebook)
    fetched.cells.insert(0, nbformat.v4.new_code_cell(INSTALL.format(name=name), id="install"))
    return fetched


def for_colab(notebook, name: str):
    """Such a copy without outputs."""
    fetched = with_install(notebook, name)
    for cell in fetched.cells:
        if cell.cell_type == "code":
            cell.outputs, cell.execution_count = [], None
    return fetched


def main(arguments: list[str]) -> int:
    if len(arguments) != 2 or arguments[0].count("/") != 1:
        print(__doc__, file=sys.stderr)
        return 2
    name, folder = arguments[0], Path(arguments[1]) / "book"
    folder.mkdir(parents=True, exist_ok=True)
    for path in sorted((ROOT / "book").glob("*.ipynb")):
        nbformat.write(for_colab(nbformat.read(path, 4), name), folder / path.name)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
