"""What the extension does to a page: lines that wrap keep every character, and punctuation stays with its formula."""

import inspect
from pathlib import Path

import book_html
import pytest
from bs4 import BeautifulSoup
from pygments import highlight
from pygments.formatters import HtmlFormatter
from pygments.lexers import PythonLexer

import lrlib

CODE = '''def f(x):
    """A docstring
      of two lines, with a < b & c."""

    return {"a":  1,
            "b":  2}[x]
'''


def test_the_table_of_names_has_each_name_once_and_a_line_for_it():
    table = book_html.names("automodule:: lrlib.callbacks automodule:: lrlib.training").splitlines()[2:]
    assert [row.partition("`")[2].partition(" ")[0] for row in table] == [
        "Callback", "Periodic", "Evaluate", "WeightAverage", "UpdateRatios", "evaluate", "History", "train",
    ]  # fmt: skip
    assert all(row.split("|")[2].strip() for row in table)


def test_every_public_name_stands_on_one_page_of_the_package():
    book = Path(__file__).resolve().parent.parent / "book"
    told = [name for page in book.glob("api/*.md") for name in book_html.AUTOMODULE.findall(page.read_text("utf-8"))]
    assert len(told) == len(set(told))
    made = (getattr(lrlib, name) for name in lrlib.__all__)
    homes = {value.__module__ for value in made if inspect.isfunction(value) or inspect.isclass(value)}
    assert homes <= set(told)


def test_the_first_page_of_the_package_has_a_table_for_each_other_page():
    root = Path(__file__).resolve().parent.parent
    made = book_html.pages(root)
    assert made.count("| --- | --- |") == made.count("## {doc}") == len(list(root.glob("book/api/*.md")))
    assert "`cosine <lrlib.schedules.cosine>`" in made and "## {doc}`Schedules </book/api/schedules>`" in made


def listing(kind: str, code: str) -> str:
    return f'<div class="{kind}">{highlight(code, PythonLexer(), HtmlFormatter(wrapcode=False)).strip()}</div>'


def test_a_listing_keeps_its_text_and_each_line_its_indent():
    before = listing("highlight-ipython3 notranslate", CODE)
    after = BeautifulSoup(book_html.LISTING.sub(book_html.wrapping, before), "html.parser")
    lines = after.find("pre").find_all("span", class_="line", recursive=False)
    assert "".join(line.get_text() for line in lines) == after.get_text().strip("\n") + "\n" == CODE
    assert [line.get_text() for line in lines] == CODE.splitlines(keepends=True)
    assert [line.get("style") for line in lines[:3]] == [None, "--indent: 4", "--indent: 6"]


@pytest.mark.parametrize(
    ("printed", "wraps"),
    [("a  1  2  3\nb  4  5  6\n", False), ("a  1  2  3\n", True), ("one   and a sentence\ntwo   another\n", True)],
)
def test_a_printed_table_does_not_wrap(printed, wraps):
    before = listing("output stream highlight-myst-ansi notranslate", printed)
    assert (book_html.LISTING.sub(book_html.wrapping, before) != before) is wraps


@pytest.mark.parametrize(("left", "right", "held"), [("", ", so", ","), ("(", "), so", "),"), ("", " so", None)])
def test_punctuation_stays_with_its_formula(left, right, held):
    formula = '<span class="math notranslate nohighlight">x</span>'
    after = BeautifulSoup(book_html.FORMULA.sub(book_html.held_together, f"a {left}{formula}{right}"), "html.parser")
    assert after.get_text() == f"a {left}x{right}"
    together = after.find("span", class_="lr-together")
    assert (together and together.get_text()) == (held and f"{left}x{held}")
