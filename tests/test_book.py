"""The book's settings, its references, and what every chapter must have."""

import json
import re
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).resolve().parent.parent
CHAPTERS = sorted((ROOT / "book").glob("**/*.ipynb"))
REFERENCES = (ROOT / "book" / "references.bib").read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def config():
    return yaml.safe_load((ROOT / "_config.yml").read_text(encoding="utf-8"))


def test_pages_show_the_stored_outputs(config):
    assert config["execute"]["execute_notebooks"] == "off"  # unquoted, YAML would read it as false


def test_the_strict_build_reads_no_hidden_folder(config):
    assert {".*", "**/.*", ".venv/**"} <= set(config["exclude_patterns"])


def test_extensions_and_static_files(config):
    sphinx = config["sphinx"]
    assert sphinx["recursive_update"] is True
    assert {"sphinx_proof", "sphinx_exercise"} <= set(sphinx["extra_extensions"])
    assert sphinx["config"]["html_static_path"] == ["book/_static"]
    for name in sphinx["config"]["html_css_files"]:
        assert (ROOT / "book" / "_static" / name).is_file(), name


def bib_entries(text: str) -> list[tuple[str, set[str]]]:
    """Key and field names of each entry.

    >>> entries = bib_entries("@misc{a1,\\n  author = {A},\\n  year = {2000},\\n}")
    >>> [(key, sorted(fields)) for key, fields in entries]
    [('a1', ['author', 'year'])]
    """
    parts = re.split(r"^@\w+\{", text, flags=re.MULTILINE)[1:]
    return [(part.split(",")[0], set(re.findall(r"^  (\w+) =", part, flags=re.MULTILINE))) for part in parts]


def cited(sources: str) -> set[str]:
    """The keys that a text cites.

    >>> sorted(cited("{cite:t}`smith2017cyclical`, {cite:p}`a, b`"))
    ['a', 'b', 'smith2017cyclical']
    """
    return {key.strip() for keys in re.findall(r"\{cite(?::\w+)?\}`([^`]+)`", sources) for key in keys.split(",")}


def test_references_are_whole_and_unique():
    entries = bib_entries(REFERENCES)
    keys = [key for key, _ in entries]
    assert len(keys) == len(set(keys)) == REFERENCES.count("\n@")
    assert [key for key, fields in entries if not {"author", "title", "year"} <= fields] == []


@pytest.mark.parametrize("path", CHAPTERS, ids=lambda path: path.stem)
def test_a_chapter_cites_and_only_what_is_there(path):
    cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
    keys = cited("\n".join("".join(cell["source"]) for cell in cells if cell["cell_type"] == "markdown"))
    assert keys, "no reference cited"
    assert keys <= {key for key, _ in bib_entries(REFERENCES)}
