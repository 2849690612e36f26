"""The whole book as one page, _build/the-learning-rate.html, and as a PDF beside it, printed by a headless Chromium.

The page is made of the built pages, in the order of the table of contents, and uses their styles and pictures. Scripts
are left out, so solutions are open and explorers show their pictures.
"""

import posixpath
import subprocess
import sys
from pathlib import Path
from urllib.parse import urlsplit

import yaml
from bs4 import BeautifulSoup, Tag
from chromium import CHROMIUM, LAUNCH, MISSING

ROOT = Path(__file__).resolve().parent.parent
HTML = ROOT / "_build" / "html"
PAGE, PDF = ROOT / "_build" / "the-learning-rate.html", ROOT / "_build" / "the-learning-rate.pdf"
REFERENCES = ("href", "src", "for", "aria-labelledby", "aria-describedby")

STYLE = """
@page { size: A4; margin: 18mm 16mm 20mm; }
html { font-size: 10.5px; }
body { background: white; }
*, [class] { box-shadow: none !important; } /* a shadow is printed as a picture */
main { display: block; max-width: 100%; }
article { break-before: page; }
article:first-of-type { break-before: auto; }
h1, h2, h3, h4, .caption, .rubric, dt, .claim-statement { break-after: avoid; }
h1, h2, h3, h4, tr, img, svg, table, .claim, .admonition, .proof, .lr-explorer { break-inside: avoid; }
mjx-container[display="true"] { break-inside: avoid; }
table.ledger { break-inside: auto; }
div.cell_input pre, div.cell_output pre { white-space: pre-wrap; overflow-wrap: anywhere; }
.headerlink, .copybtn, .lr-chapter-line { display: none; }
figcaption, figcaption * { color: black !important; }
figcaption, .caption-text { font-weight: normal; }
"""


def in_order(toc: dict) -> list[str]:
    """The documents of a table of contents, each before its sections.

    >>> b = {"file": "b", "sections": [{"file": "b1"}, {"file": "b2"}]}
    >>> in_order({"root": "a", "parts": [{"chapters": [b, {"file": "c"}]}, {"chapters": [{"file": "d"}]}]})
    ['a', 'b', 'b1', 'b2', 'c', 'd']
    """
    chapters = [chapter for part in toc["parts"] for chapter in part["chapters"]]
    return [toc["root"], *(one["file"] for chapter in chapters for one in (chapter, *chapter.get("sections", ())))]


def anchor(name: str, fragment: str = "") -> str:
    """The id, in the one page, of an id in a document, or of the document.

    >>> anchor("book/annealing", "exercises"), anchor("book/annealing")
    ('book-annealing--exercises', 'book-annealing')
    """
    return name.replace("/", "-") + (f"--{fragment}" if fragment else "")


def moved(reference: str, name: str, names: set[str], base: str = "html") -> str:
    """A link or source of the document `name` as it is in the one page, which lies beside the folder `base`.

    >>> names = {"book/annealing", "book/cyclical"}
    >>> moved("cyclical.html#exercises", "book/annealing", names), moved("#top", "book/annealing", names)
    ('#book-cyclical--exercises', '#book-annealing--top')
    >>> moved("../_images/x.png", "book/annealing", names), moved("https://a.org/", "book/annealing", names)
    ('html/_images/x.png', 'https://a.org/')
    """
    parts = urlsplit(reference)
    if parts.scheme or parts.netloc:
        return reference
    if not parts.path:
        return f"#{anchor(name, parts.fragment)}"
    target = posixpath.normpath(posixpath.join(posixpath.dirname(name), parts.path))
    document = target.removesuffix(".html")
    if target.endswith(".html") and document in names:
        return f"#{anchor(document, parts.fragment)}"
    return f"{base}/{target}" + (f"#{parts.fragment}" if parts.fragment else "")


def article(html: str, name: str, names: set[str]) -> Tag:
    """The text of a built page, its ids and links those of the one page. Of a repeated id the first stays."""
    text = BeautifulSoup(html, "html.parser").article
    if text is None:
        raise ValueError(f"{name}: has no article, must be a built page")
    for script in text.find_all("script"):
        script.decompose()
    seen = set()
    for tag in text.find_all(True):
        if tag.get("id") in seen:
            del tag["id"]
        elif tag.get("id"):
            seen.add(tag["id"])
            tag["id"] = anchor(name, str(tag["id"]))
        for attribute in REFERENCES:
            value = str(tag.get(attribute, ""))
            if value and attribute in ("href", "src"):
                tag[attribute] = moved(value, name, names)
            elif value:
                tag[attribute] = " ".join(anchor(name, one) for one in value.split())
    for details in text.find_all("details"):
        details["open"] = ""
    for picture in text.find_all("img"):
        del picture["loading"]
    text["id"] = anchor(name)
    return text


def one_page(toc: dict, html: Path) -> str:
    """The whole book as one HTML page, to lie beside the folder `html` of the built pages."""
    names = in_order(toc)
    first = BeautifulSoup((html / f"{names[0]}.html").read_text(encoding="utf-8"), "html.parser")
    styles = first.select('head link[rel="stylesheet"]')
    for style in styles:
        style["href"] = moved(str(style["href"]), names[0], set(names), html.name)
    articles = [article((html / f"{name}.html").read_text(encoding="utf-8"), name, set(names)) for name in names]
    return (
        f'<!DOCTYPE html>\n<html lang="en" data-theme="light" data-mode="light"><head><meta charset="utf-8">'
        f"{first.title}{''.join(map(str, styles))}<style>{STYLE}</style></head>"
        f"<body><main>{''.join(map(str, articles))}</main></body></html>\n"
    )


def print_pdf(page: Path, pdf: Path) -> None:
    """Print a page with an outline and with numbered pages."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as play:
        chromium = play.chromium.launch(**LAUNCH)
        tab = chromium.new_page()
        tab.set_default_timeout(600_000)
        tab.goto(page.as_uri())
        tab.evaluate("document.fonts.ready")
        tab.pdf(
            path=pdf,
            prefer_css_page_size=True,
            print_background=True,
            outline=True,
            tagged=True,
            display_header_footer=True,
            header_template="<span></span>",
            footer_template='<div style="width: 100%; text-align: center; font-size: 8px" class="pageNumber"></div>',
        )
        chromium.close()


def main() -> int:
    if CHROMIUM is None:
        print(f"A PDF cannot be made: {MISSING}.", file=sys.stderr)
        return 1
    built = subprocess.run([sys.executable, ROOT / "tools" / "build.py"])
    if built.returncode:
        return built.returncode
    PAGE.write_text(one_page(yaml.safe_load((ROOT / "_toc.yml").read_text(encoding="utf-8")), HTML), encoding="utf-8")
    print_pdf(PAGE, PDF)
    print(f"One page: {PAGE}\nPDF: {PDF}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
