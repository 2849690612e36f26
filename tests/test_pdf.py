"""The book as one page: every document in order, ids unique, links and pictures that lead somewhere, no scripts."""

import shutil
from pathlib import Path

import pdf
import pytest
import yaml
from browser import built_book, needs_chromium
from bs4 import BeautifulSoup

ROOT = Path(__file__).resolve().parent.parent
TOC = yaml.safe_load((ROOT / "_toc.yml").read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def page():
    return BeautifulSoup(pdf.one_page(TOC, built_book()), "html.parser")


def test_every_document_is_there_in_order(page):
    assert [article["id"] for article in page.find_all("article")] == [pdf.anchor(name) for name in pdf.in_order(TOC)]
    assert all(article.find("h1") for article in page.find_all("article"))


def test_ids_are_unique_and_links_and_sources_lead_somewhere(page):
    ids = [tag["id"] for tag in page.find_all(id=True)]
    assert len(ids) == len(set(ids))
    inner = [tag["href"] for tag in page.find_all("a", href=True) if tag["href"].startswith("#")]
    assert len(inner) > 500
    places = {href: href[1:].partition("?")[0] for href in inner}  # after "?" stands the state of an explorer
    assert [href for href, place in places.items() if place not in set(ids)] == []
    files = [tag.get("src") or tag.get("href") for tag in page.find_all(["img", "link", "script"])]
    local = [file.split("?")[0] for file in files if file and not file.startswith("data:")]
    assert len(local) > 100
    assert [file for file in local if not (ROOT / "_build" / file).is_file()] == []


def test_solutions_are_open_pictures_do_not_wait_and_nothing_runs(page):
    assert all(details.has_attr("open") for details in page.find_all("details"))
    assert page.find("script") is None
    assert page.find("img", loading=True) is None


def test_every_formula_is_drawn_with_glyphs_of_its_own_document(page):
    ids = {path["id"] for path in page.select(".lr-glyphs path")}
    used = [use["href"] for use in page.find_all("use")]
    assert len(used) > 10_000 and {href[1:] for href in used} == ids


@needs_chromium
def test_a_document_is_printed(tmp_path):
    html = built_book()
    shutil.copytree(html / "_static", tmp_path / "html" / "_static")
    (tmp_path / "html" / "book").mkdir()
    small = {"root": "book/glossary", "parts": []}
    shutil.copy(html / "book" / "glossary.html", tmp_path / "html" / "book")
    (tmp_path / "book.html").write_text(pdf.one_page(small, tmp_path / "html"), encoding="utf-8")
    pdf.print_pdf(tmp_path / "book.html", tmp_path / "book.pdf")
    printed = (tmp_path / "book.pdf").read_bytes()
    assert printed.startswith(b"%PDF") and printed.count(b"/Type /Page\n") >= 2 and b"/Outlines" in printed
