"""What a link shows when a reader points at it: _static/previews-data.js, made from the built pages.

The theorems, equations, figures, exercises, verdicts, sources and terms that links lead to are copied into one script,
as a page opened from disk cannot read another page. _static/previews.js loads it when it is first needed.
"""

import copy
import json
import re
from pathlib import Path
from urllib.parse import unquote

from bs4 import BeautifulSoup, SoupStrainer, Tag

KINDS = ("math", "proof", "exercise", "citation", "claim")  # classes; a figure is a figure, a term a term
TERM = "term-"  # how the id of a glossary's term begins
GLYPH = re.compile(r'<path id="(TEX-[^"]+)" d="([^"]*)"')
LINK = re.compile(r'<a (?![^>]*\bheaderlink\b)[^>]*\bhref="([^"#:]+\.html)?#([^"]+)"')


def linked(pages: dict[Path, str]) -> dict[Path, set[str]]:
    """The ids of each page that links in the text lead to.

    >>> a, b = '<a href="b.html#t">', '<a class="reference" href="#u"> <a class="headerlink" href="#v">'
    >>> {page.name: sorted(ids) for page, ids in linked({Path("/a.html"): a, Path("/b.html"): b}).items()}
    {'b.html': ['t', 'u']}
    """
    targets: dict[Path, set[str]] = {}
    for path, text in pages.items():
        for page, anchor in LINK.findall(text):
            target = (path.parent / unquote(page)).resolve() if page else path
            targets.setdefault(target, set()).add(unquote(anchor))
    return targets


def preview(element: Tag) -> str | None:
    """The element without ids and links, or None where it is nothing to show, a section for example.

    >>> page = '<div class="proof" id="t"><a class="headerlink" href="#t">#</a><a href="b.html">Lemma</a></div>'
    >>> preview(BeautifulSoup(page, "html.parser").div)
    '<div class="proof">Lemma</div>'
    >>> preview(BeautifulSoup('<section id="s">long</section>', "html.parser").section)
    """
    if element.name == "dt" and str(element.get("id")).startswith(TERM):
        meaning = element.find_next_sibling("dd")
        return f"<dl>{_bare(element)}{_bare(meaning) if meaning else ''}</dl>"
    if element.name != "figure" and not set(KINDS) & set(element.get_attribute_list("class")):
        return None
    return _bare(element)


def _bare(element: Tag) -> str:
    element = copy.copy(element)
    for link in element.find_all("a"):
        if "headerlink" in link.get_attribute_list("class"):
            link.decompose()
        else:
            link.unwrap()
    for part in (element, *element.find_all(id=True)):
        del part["id"]
    return str(element)


def previews(root: Path) -> dict[str, str]:
    """From "page.html#id", seen from the root of the built book, to the HTML to show."""
    pages = {path.resolve(): path.read_text(encoding="utf-8") for path in sorted(root.rglob("*.html"))}
    found = {}
    for page, ids in sorted(linked(pages).items()):
        if page in pages:
            terms = any(name.startswith(TERM) for name in ids)  # what a term means stands beside it
            wanted = None if terms else SoupStrainer(id=list(ids))
            elements = BeautifulSoup(pages[page], "html.parser", parse_only=wanted)
            for element in elements.find_all(id=list(ids)):
                key = f"{page.relative_to(root.resolve()).as_posix()}#{element['id']}"
                if (shown := preview(element)) is not None:
                    found[key] = shown
    return found


def glyphs(root: Path) -> dict[str, str]:
    """The outlines of the glyphs that the formulas of the built pages refer to, by their ids."""
    return {
        name: path for page in root.rglob("*.html") for name, path in GLYPH.findall(page.read_text(encoding="utf-8"))
    }


def write(root: Path) -> None:
    """Write the script beside the other static files of the built book."""
    script = f"LR.previews = {json.dumps(previews(root), ensure_ascii=False)};\n"
    script += f"LR.glyphs = {json.dumps(glyphs(root))};\n"
    (root / "_static" / "previews-data.js").write_text(script, encoding="utf-8")
