"""One style sheet instead of fourteen: what the pages link to, in their order, without the rules that no page needs.

A rule stays when each class and id of its selector stands in a built page, or as a word in a script that pages load,
for scripts set classes too. Seven eighths of what the theme, its framework and its extensions bring along go.
"""

import re
from base64 import b64encode
from collections.abc import Iterable, Iterator
from hashlib import sha256
from pathlib import Path, PurePosixPath
from posixpath import normpath

NAME = "styles.css"
# The face of the text comes with the sheet; decoded before the page is laid out, it moves nothing.
DECODE = '<script>for (const face of document.fonts) if (face.family.includes("Source Serif")) face.load()</script>\n'
SMALL = 20_000  # bytes of a font that comes with the sheet
LINK = re.compile(r'[ \t]*<link\b[^>]*\brel="stylesheet"[^>]*>\n?')
CONTENT_ROOT = re.compile(r'\bdata-content_root="([^"]*)"')
TARGET = re.compile(r'\bhref="([^"?]*)')
IMPORT = re.compile(r"""@import\s+(?:url\()?["']?([^"')]+)["']?\)?\s*;""")
URL = re.compile(r"""url\((["']?)(?!data:|#|[a-z]+:)([^"')?#]+)[^)]*\)""")
COMMENT = re.compile(r"/\*.*?\*/", re.DOTALL)
QUOTED = r""""(?:\\.|[^"\\])*"|'(?:\\.|[^'\\])*'"""
TOKEN = re.compile(rf"{QUOTED}|url\((?:{QUOTED}|[^)]*)\)|[{{}};]", re.DOTALL)
COMMA = re.compile(r",(?![^(]*\))")
WITHIN = re.compile(r":(?:not|is|where|has)\((?:[^()]|\([^()]*\))*\)")  # what stands there is no condition of its own
NAMED = re.compile(r"[.#]((?:\\.|[\w-])+)")
GIVEN = re.compile(r"""\b(?:class|id)=["']([^"']*)["']""")
WORD = re.compile(r"[A-Za-z_][\w-]*")


def words(pages: Iterable[str], scripts: Iterable[str]) -> set[str]:
    """The classes and ids of pages, and every word of scripts.

    >>> sorted(words(['<p class="a b" id="c">d</p>'], ["e.classList.add('f-g')"]))
    ['a', 'add', 'b', 'c', 'classList', 'e', 'f-g']
    """
    found = {name for page in pages for given in GIVEN.findall(page) for name in given.split()}
    return found | {word for script in scripts for word in WORD.findall(script)}


def rules(css: str) -> Iterator[tuple[str, str | None]]:
    """The rules of a style sheet: what stands before the braces and in them, None where there are none.

    >>> list(rules('@charset "a;b"; p, i { color: red } @media print { p { x: y } }'))
    [('@charset "a;b"', None), ('p, i', 'color: red'), ('@media print', 'p { x: y }')]
    """
    depth = start = opened = 0
    for token in TOKEN.finditer(css):
        if token[0] == "{":
            depth += 1
            if depth == 1:
                opened = token.start()
        elif token[0] == "}":
            depth -= 1
            if depth == 0:
                yield css[start:opened].strip(), css[opened + 1 : token.start()].strip()
                start = token.end()
        elif token[0] == ";" and depth == 0:
            yield css[start : token.start()].strip(), None
            start = token.end()


def needed(css: str, known: set[str]) -> str:
    """A style sheet without the selectors that name a class or an id that is not known, and without comments.

    >>> needed("a.x, b.y:not(.z) { c: d } .x .y { e: f } @media print { .x { g: h } } @font-face { i: j }", {"y"})
    'b.y:not(.z){c: d}@font-face{i: j}'
    """
    kept = []
    for before, block in rules(COMMENT.sub("", css)):
        if block is None:
            kept += [] if before.startswith("@charset") else [f"{before};"]
        elif before.startswith(("@media", "@supports", "@container")):
            if inner := needed(block, known):
                kept.append(f"{before}{{{inner}}}")
        elif before.startswith("@"):
            kept.append(f"{before}{{{block}}}")
        else:
            parts = [part.strip() for part in COMMA.split(before)]
            parts = [part for part in parts if known.issuperset(_names(part))]
            if parts and block:
                kept.append(f"{','.join(parts)}{{{' '.join(block.split())}}}")
    return "".join(kept)


def _names(selector: str) -> list[str]:
    return [name.replace("\\", "") for name in NAMED.findall(WITHIN.sub("", selector))]


def read(file: Path, root: Path) -> str:
    """A style sheet with what it imports and small fonts in place, and its addresses as seen from the folder `root`.

    A font that comes with the sheet is there at the first paint, so that no line breaks anew when it comes.
    """

    def moved(match: re.Match) -> str:
        target = file.parent / match[2]
        if target.suffix == ".woff2" and target.exists() and target.stat().st_size <= SMALL:
            return f"url(data:font/woff2;base64,{b64encode(target.read_bytes()).decode()})"
        return f"url({normpath(PurePosixPath(file.relative_to(root).parent.as_posix()) / match[2])})"

    css = IMPORT.sub(
        lambda match: read((file.parent / match[1]).resolve(), root), COMMENT.sub("", file.read_text(encoding="utf-8"))
    )
    return URL.sub(moved, css)


def united(pages: dict[Path, str], scripts: Iterable[str], root: Path) -> dict[Path, str]:
    """The built pages with one link each, to the one style sheet, which is written. No page is new: all as it was."""
    sheets: dict[Path, None] = {}
    for path, page in pages.items():
        for link in LINK.findall(page):
            if target := TARGET.search(link):
                sheets.setdefault((path.parent / target[1]).resolve())
    sheets.pop((root / "_static" / NAME).resolve(), None)
    if not sheets:
        return pages
    known, static = words(pages.values(), scripts), (root / "_static").resolve()
    css = '@charset "UTF-8";' + "\n".join(needed(read(sheet, static), known) for sheet in sheets)
    (static / NAME).write_text(css, encoding="utf-8")
    version = sha256(css.encode()).hexdigest()[:8]
    return {path: _linked(page, version) for path, page in pages.items()}


def _linked(page: str, version: str) -> str:
    first, here = LINK.search(page), CONTENT_ROOT.search(page)
    if not first or not here:
        return page
    link = f'<link rel="stylesheet" href="{here[1]}_static/{NAME}?v={version}" />\n'
    return page[: first.start()] + link + DECODE + LINK.sub("", page[first.end() :].replace(DECODE, ""))
