"""What a link shows when a reader points at it: _static/previews-data.js, made from the built pages.

The theorems, equations, figures, exercises, verdicts, sources and terms that links lead to are copied into one script,
as a page opened from disk cannot read another page. _static/previews.js loads it when it is first needed.
"""

import copy
import json
import re
from pathlib import Path
from urllib.parse import unquote

from bs4 import BeautifulSoup, Tag

KINDS = ("math", "proof", "exercise", "citation", "claim")  # classes; a figure is a figure, a term a term
TERM = "term-"  # how the id of a glossary's term begins
GLYPH = re.compile(r'<path id="(TEX-[^"]+)" d="([^"]*)"')
NAMED = re.compile(r'<(\w+)(?=\s)[^>]*?\sid="([^"]+)"')
SHOWN = re.compile(rf'<(?:figure|dt)\b|<[^>]*\sclass="[^"]*\b(?:{"|".join(KINDS)})\b')  # what preview() may accept
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


def cut(page: str, start: int) -> str:
    """The element of a page whose first tag begins at a place.

    >>> cut("<p><b>a <b>c</b></b> d</p>", 3)
    '<b>a <b>c</b></b>'
    """
    name = re.compile(r"<(\w+)").match(page, start)
    if name is None:
        raise ValueError(f"'start': no element begins at {start}")
    depth = 0
    for tag in re.compile(rf"<(/?){name[1]}\b[^>]*>").finditer(page, start):
        depth += -1 if tag[1] else 1
        if depth == 0:
            return page[start : tag.end()]
    return page[start:]


def previews(root: Path) -> dict[str, str]:
    """From "page.html#id", seen from the root of the built book, to the HTML to show."""
    pages = {path.resolve(): path.read_text(encoding="utf-8") for path in sorted(root.rglob("*.html"))}
    found = {}
    for page, ids in sorted(linked(pages).items()):
        text = pages.get(page, "")
        for tag in NAMED.finditer(text):
            if tag[2] not in ids or not SHOWN.match(text, tag.start()):
                continue
            whole = cut(text, tag.start())
            if tag[1] == "dt":  # what a term means stands beside it
                meaning = text.find("<dd", tag.start())
                whole += cut(text, meaning) if meaning >= 0 else ""
            element = BeautifulSoup(whole, "html.parser").find(id=tag[2])
            if isinstance(element, Tag) and (shown := preview(element)) is not None:
                found[f"{page.relative_to(root.resolve()).as_posix()}#{tag[2]}"] = shown
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
