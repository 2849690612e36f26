"""Copies of the chapters for Google Colab, with a first cell that fetches the repository and installs what it needs.

    tools/colab.py OWNER/NAME FOLDER

The cell is skipped everywhere else. The workflow that publishes the pages puts the copies on a branch, as Colab opens
notebooks from GitHub only.
"""

import copy
import sys
from pathlib import Path

import nbformat
from chapter_line import ROOT

INSTALL = """import sys

if "google.colab" in sys.modules:
    import os
    import subprocess

    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--editable", "/content/book[chapters]"]
    subprocess.run(["git", "clone", "--depth=1", "https://github.com/{name}", "/content/book"], check=True)
    subprocess.run(pip, check=True)
    sys.path.insert(0, "/content/book")  # an editable package is found by itself only after a restart
    os.chdir("/content/book/book")"""


def for_colab(notebook, name: str):
    """A copy without outputs whose first cell installs the package of the repository `name`, "owner/name"."""
    fetched = copy.deepcopy(notebook)
    for cell in fetched.cells:
        if cell.cell_type == "code":
            cell.outputs, cell.execution_count = [], None
    first = nbformat.v4.new_code_cell(INSTALL.format(name=name), id="install-in-colab")
    fetched.cells.insert(0, first)
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
