"""A small Sphinx extension: what the search page searches, _static/search-data.js, made from the built pages.

Every section is an entry with its heading and its prose, without code, printed output and buttons, in the order of the
book. _static/search.js searches it, also when the page is opened from disk.
"""

import json
import re
from html.parser import HTMLParser
from pathlib import Path

from maths import ARTICLE

VOID = {"area", "base", "br", "col", "embed", "hr", "img", "input", "link", "meta", "source", "track", "wbr"}
LEFT_OUT = {"button", "pre", "script", "style", "summary", "svg"}
CLASSES_LEFT_OUT = {"cell_input", "eqno", "headerlink", "lr-chapter-line", "toctree-wrapper", "lr-glyphs"}
BLOCKS = {"dd", "dt", "div", "figure", "li", "p", "section", "table", "td", "th", "tr", "ul"}
HEADING = re.compile("h[1-6]")
SCRIPTS = ("search-data.js", "search.js")


class Sections(HTMLParser):
    """The sections of a built page as lists [anchor, heading, text]; a name of the API has the heading of its entry.

    >>> page = '<article class="bd-article"><section id="a"><h1>Rates<a class="headerlink">#</a></h1><p>Small '
    >>> page += '<b>steps</b>.</p><pre>x = 1</pre><section id="b"><h2>Limits</h2>2/h</section></section></article>'
    >>> Sections(page).found
    [['a', 'Rates', 'Small steps.'], ['b', 'Limits', '2/h']]
    """

    def __init__(self, page: str) -> None:
        super().__init__()
        self.found: list[list[str]] = []
        self.ids = [""]
        self.open: list[str] = []
        self.skipped = 0  # the depth at which what is left out began
        self.heading = self.script = ""
        head, article, rest = page.partition(ARTICLE)
        self.feed(rest.partition("</article>")[0] if article else "")
        for entry in self.found:
            entry[1:] = [re.sub(r"\s+", " ", part).strip() for part in entry[1:]]

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag in VOID:
            return
        given = dict(attrs)
        classes = set((given.get("class") or "").split())
        self.open.append(tag)
        if self.skipped:
            return
        display = tag == "mjx-container" and given.get("display")
        if tag in LEFT_OUT or classes & CLASSES_LEFT_OUT or display:
            self.skipped = len(self.open)
        elif tag == "section":
            self.ids.append(given.get("id") or "")
        elif HEADING.fullmatch(tag):
            self.heading = tag
            self.found.append([self.ids[-1], "", ""])
        elif tag == "dt" and "sig-object" in classes and given.get("id"):
            self.found.append([given["id"] or "", given["id"] or "", ""])
        elif tag in BLOCKS:
            self.handle_data(" ")
        elif tag in ("msup", "msub"):
            self.script = "^" if tag == "msup" else "_"

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        pass

    def handle_endtag(self, tag: str) -> None:
        if tag in VOID or tag not in self.open:
            return
        while self.open.pop() != tag:
            pass
        if len(self.open) < self.skipped:
            self.skipped = 0
        elif tag == self.heading:
            self.heading = ""
        elif tag == "section" and not self.skipped:
            self.ids.pop()

    def handle_data(self, data: str) -> None:
        if self.skipped or not self.found:
            return
        self.found[-1][1 if self.heading else 2] += data
        if self.script and data.strip():  # the base of a power or an index
            self.found[-1][1 if self.heading else 2] += self.script
            self.script = ""


def order(children: dict[str, list[str]], root: str) -> list[str]:
    """The documents of the book, each before those under it.

    >>> order({"a": ["b", "d"], "b": ["c"]}, "a")
    ['a', 'b', 'c', 'd']
    """
    return [root, *(name for child in children.get(root, []) for name in order(children, child))]


def finish(app, exception) -> None:
    """Write the data, and have the search page load it."""
    if exception is not None or app.builder.format != "html":
        return
    root = Path(app.outdir)
    pages = {name: root / f"{name}.html" for name in order(app.env.toctree_includes, app.config.root_doc)}
    data = [[f"{name}.html", *Sections(path.read_text(encoding="utf-8")).found] for name, path in pages.items()]
    script = f"window.LR = window.LR || {{}};\nLR.pages = {json.dumps(data, ensure_ascii=False)};\n"
    (root / "_static" / "search-data.js").write_text(script, encoding="utf-8")
    search = root / "search.html"
    page = search.read_text(encoding="utf-8")
    if SCRIPTS[0] not in page:
        tags = "".join(f'<script defer src="_static/{name}"></script>\n' for name in SCRIPTS)
        search.write_text(page.replace("</head>", f"{tags}</head>", 1), encoding="utf-8")


def setup(app) -> dict:
    app.connect("build-finished", finish, priority=900)
    return {"version": "1", "parallel_read_safe": True, "parallel_write_safe": True}
