"""A small Sphinx extension: what every page's head says of it, lines that wrap, and nothing that is not used.

Jupyter Book always adds Thebe's scripts, twice, so that every page begins with an error on the console; this book has
no Thebe. And docutils gives bibliographies roles that ARIA does not allow there, so that screen readers lose the list.
"""

import html
import importlib
import inspect
import re
from pathlib import Path

import cells
import choose
import found
import page_form

from lrlib.claims import Ledger

LISTING = re.compile(r'(<div class="([^"]*)"><div class="highlight"><pre>)(.*?)(</pre>)', re.DOTALL)
TAG = re.compile("<[^>]*>")
BRACKET = re.compile(r'(<span class="p">[^<]*[(\[{]</span>)')
DEEPEST = 24  # characters: what continues further right would not fit on a phone
GAP = re.compile(r"(?<=\S) {2,}(?=\S)")
FORMULA = re.compile(r'(\(?)(<span class="math notranslate nohighlight">[^<]*</span>)([.,;:!?)’”]*)')

AUTOMODULE = re.compile(r"automodule:: (\S+)")
MATHS = re.compile(r":math:`([^`]*)`")
MARKUP = re.compile(r":\w+:`~?(?:[\w.]+\.)?([^`]*)`")  # what a docstring marks as a class or a function

ROLES = (' role="list" class="citation-list"', ' class="citation-list"'), (' role="doc-biblioentry"', "")


def names(page: str) -> str:
    """A Markdown table of what the modules of an API page offer: each name with a link, and the first line of its text.

    >>> print(names("automodule:: lrlib.stack")[:76])
    | Name | In a line |
    | --- | --- |
    | {py:obj}`Stack <lrlib.stack.Stack>` | R
    """
    rows = ["| Name | In a line |", "| --- | --- |"]
    for path in AUTOMODULE.findall(page):
        module = importlib.import_module(path)
        for name in module.__all__:
            value = getattr(module, name)
            if getattr(value, "__module__", None) == path:
                line = (inspect.getdoc(value) or "").partition("\n\n")[0].replace("\n", " ").replace("|", r"\|")
                line = MARKUP.sub(r"\1", MATHS.sub(r"$\1$", line))
                rows.append(f"| {{py:obj}}`{name} <{path}.{name}>` | {line} |")
    return "\n".join(rows)


def pages(root: Path) -> str:
    """In Markdown: each page of the package in the order of the table of contents, with its table of names."""
    files = re.findall(r"file: (book/api/\S+)", (root / "_toc.yml").read_text(encoding="utf-8"))
    texts = [(file, (root / f"{file}.md").read_text(encoding="utf-8")) for file in files]
    return "\n\n".join(
        f"## {{doc}}`{text.partition('# ')[2].partition(chr(10))[0]} </{file}>`\n\n{names(text)}"
        for file, text in texts
    )


def generate(app, docname: str, source: list[str]) -> None:
    """Put in place what a page asks for in a comment: a table of names, all of them, or what the book found."""
    if "<!-- pages -->" in source[0]:
        for path in (Path(app.srcdir) / "book" / "api").glob("*.md"):
            app.env.note_dependency(str(path))
        source[0] = source[0].replace("<!-- pages -->", pages(Path(app.srcdir)))
    if "<!-- names -->" in source[0]:
        source[0] = source[0].replace("<!-- names -->", names(source[0]))
    if "<!-- ledger: " in source[0] or "<!-- choose: " in source[0]:
        for path in Path(app.srcdir).glob("book/*.ipynb"):  # what these pages say changes with the chapters
            app.env.note_dependency(str(path))
    if "<!-- ledger: " in source[0]:
        source[0] = found.generate(source[0], Ledger(Path(app.srcdir).glob("book/*.ipynb")))
    if "<!-- choose: " in source[0]:
        source[0] = choose.generate(source[0])


def describe(app, pagename, templatename, context, doctree) -> None:
    """The social preview; its picture has a full address where html_baseurl tells the book's."""
    picture = context["pathto"]("_static/front/social.jpg", 1)
    if app.config.html_baseurl:
        picture = app.config.html_baseurl.rstrip("/") + "/_static/front/social.jpg"
    title = re.sub("<[^>]*>", "", context.get("title") or "")
    about = page_form.description(context.get("body", ""), html.unescape(title) or pagename)
    tags = {
        "og:type": "article",
        "og:site_name": app.config.project,
        "og:title": html.unescape(title),
        "og:description": about,
        "og:image": picture,
    }
    lines = [f'<meta property="{name}" content="{html.escape(value)}" />' for name, value in tags.items()]
    lines += [f'<meta name="description" content="{html.escape(about)}" />']
    lines += ['<meta name="twitter:card" content="summary_large_image" />']
    context["metatags"] = context.get("metatags", "") + "\n".join(lines)


def wrapping(listing: re.Match) -> str:
    """A listing whose long lines continue under their own indent. A printed table of four or more columns stays.

    >>> printed = '<div class="output"><div class="highlight"><pre>{}\\n</pre>'
    >>> LISTING.sub(wrapping, printed.format("a sentence\\n  and another")).count('<span class="line"')
    2
    >>> LISTING.sub(wrapping, printed.format("a  1  2  3\\nb  4  5  6")).count("<span")
    0
    """
    start, classes, code, end = listing.groups()
    lines = code.removesuffix("\n").split("\n")
    texts = [html.unescape(TAG.sub("", line)) for line in lines]
    if "output" in classes.split() and sum(len(GAP.findall(text)) > 2 for text in texts) > 1:
        return listing[0]
    indents = [min(len(text) - len(text.lstrip(" ")), DEEPEST) for text in texts]
    styles = [f' style="--indent: {indent}"' if indent else "" for indent in indents]
    lines = [BRACKET.sub(r"\1<wbr>", line) for line in lines]
    wrapped = [f'<span class="line"{style}>{line}\n</span>' for style, line in zip(styles, lines, strict=True)]
    return start + "".join(wrapped) + end


def held_together(formula: re.Match) -> str:
    """A formula in a sentence together with the punctuation that touches it, which must not begin a line.

    >>> FORMULA.sub(held_together, '<span class="math notranslate nohighlight">x</span>, so')
    '<span class="lr-together"><span class="math notranslate nohighlight">x</span>,</span> so'
    """
    return f'<span class="lr-together">{formula[0]}</span>' if formula[1] or formula[3] else formula[0]


def clean(app, pagename, templatename, context, doctree) -> None:
    """Change the context of a page just before it is written."""
    context["script_files"] = [
        script
        for script in context["script_files"]
        if "thebe" not in str(getattr(script, "filename", script)).lower()
        and "THEBE_JS_URL" not in getattr(script, "attributes", {}).get("body", "")
    ]
    body = context.get("body", "")
    for before, after in ROLES:
        body = body.replace(before, after)
    context["body"] = FORMULA.sub(held_together, LISTING.sub(wrapping, body))


def setup(app) -> dict:
    app.connect("source-read", cells.apply)
    app.connect("source-read", generate)
    app.connect("html-page-context", describe)
    app.connect("html-page-context", clean, priority=900)
    app.connect("build-finished", page_form.finish, priority=400)
    app.add_js_file("form.js", defer="defer")
    return {"version": "1", "parallel_read_safe": True, "parallel_write_safe": True}
