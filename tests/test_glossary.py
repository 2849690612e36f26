"""The glossary: in alphabetical order, each term once and explained; pages refer to terms that it has."""

import re
from pathlib import Path

import nbformat
import pytest

BOOK = Path(__file__).resolve().parent.parent / "book"
PAGES = sorted([*BOOK.glob("*.ipynb"), *BOOK.glob("*.md")])
ROLE = re.compile(r"\{term\}`(?:[^`<]*<)?([^`<>]+?)>?`")


def entries(text):
    """From each term of the `{glossary}` to its explanation."""
    blocks = text.split("```{glossary}\n")[1].split("\n```")[0].split("\n\n")
    terms, explanations = zip(*(block.partition("\n")[::2] for block in blocks), strict=True)
    assert list(terms) == sorted(set(terms), key=str.casefold)
    assert all(line.startswith("  ") for explanation in explanations for line in explanation.split("\n"))
    return dict(zip(terms, explanations, strict=True))


def prose(path):
    if path.suffix == ".md":
        return path.read_text(encoding="utf-8")
    return "\n".join(cell.source for cell in nbformat.read(path, 4).cells if cell.cell_type == "markdown")


TERMS = {term.casefold() for term in entries(prose(BOOK / "glossary.md"))}


@pytest.mark.parametrize("body", ["b\n  B.\n\na\n  A.", "a\n  A.\n\na\n  A.", "a\n\nb\n  B.", "a\nA."])
def test_a_faulty_glossary_is_noticed(body):
    assert list(entries("```{glossary}\na\n  A.\n\nB\n  B.\n```")) == ["a", "B"]
    with pytest.raises(AssertionError):
        entries(f"```{{glossary}}\n{body}\n```")


def test_roles_are_found():
    assert ROLE.findall("a {term}`finder`, {term}`2/S <stability limit>`") == ["finder", "stability limit"]


@pytest.mark.parametrize("path", PAGES, ids=lambda path: path.name)
def test_pages_refer_to_terms_that_the_glossary_has(path):
    assert [term for term in ROLE.findall(prose(path)) if term.casefold() not in TERMS] == []
