"""What makes a built page fit for every reader: its description, its figures in the dark and on a phone, clean HTML.

A figure of lines or bars on white is shown in the theme's colours in the dark; a photograph, a heat map, or a figure
whose caption speaks of light and dark stays as drawn. On a phone a figure keeps the width at which its text is legible,
powers of ten on its axes too, and scrolls.
"""

import ast
import html
import re
from collections.abc import Mapping
from functools import cache
from pathlib import Path

import colab
import nbformat
from bs4 import BeautifulSoup
from docutils.nodes import make_id
from matplotlib import rc_params_from_file
from PIL import Image, ImageChops

ROOT = Path(__file__).resolve().parent.parent
LONGEST = 160  # characters of a description after its title
SHORTEST = 60
BEGINNING = 50_000  # characters of a page, in which what it is about is said
SENTENCE = re.compile(r"(?<=[.!?])\s")
NUMBER = re.compile(r"^[\d.]+\s")

WHITISH, MOSTLY = 205, 0.75  # grey level of bands and grids, and the share of a line plot that is lighter
BARS, FLAT, INKS = 0.6, 0.95, 12  # of bars: the share that is lighter, and the share of their twelve commonest colours
SAYS_COLOUR = re.compile(r"\b(?:dark|light|black|white)(?:er|est|s)?\b", re.IGNORECASE)
OF_WHITE = re.compile(r"\bwhite\b", re.IGNORECASE)
LEGIBLE = 10  # CSS pixels of the smallest text
TEXT_SIZES = ("legend.fontsize", "xtick.labelsize", "ytick.labelsize", "font.size")
OWN_SIZE = re.compile(r"\b(font|label|title)_?size=(\d+(?:\.\d+)?)\b")
LOG = """["'](?:sym)?log["']"""
LOGARITHMIC = {  # what makes an axis so
    "x": re.compile(rf"loglog|semilogx|xscale(?:=|\(){LOG}|\.plot\(ax\w*(?:\[\w+\])?(?:=|\))"),
    "y": re.compile(rf"loglog|semilogy|yscale(?:=|\(){LOG}"),
}
INDEX = re.compile(r"\$[^$\n]*[\^_]")
SCRIPT_SIZE = 0.7  # of the text around them, in matplotlib's maths

VIEWPORT = re.compile(r'\s*<meta name="viewport"[^>]*>')
SAME_ID = re.compile(r' id="(?:proof|exercise|solution)(?:-content)?"')
SIDEBAR = '<div id="pst-primary-sidebar" class'
FIGURE = re.compile(r'(<figure class="align-default" id="([^"]*)">\s*)(<img\b[^>]*>)(.*?</figure>)', re.DOTALL)
WORD = re.compile(r"\w+")
ATTRIBUTE = re.compile(r'\b(src|alt)="([^"]*)"')


def description(body: str, title: str) -> str:
    """What a page is about: its title, and its first sentences or points without formulas, some 160 characters.

    >>> description("<h1>Steps</h1><p>Short.</p><p>how long a step may be, and what happens to those that are longer. "
    ...     "It goes on.</p><p>And this.</p>", "3. Steps")
    'Steps. How long a step may be, and what happens to those that are longer. It goes on. And this.'
    >>> description("", "Index")
    'Index, a page of the book The Learning Rate.'
    """
    title, said = NUMBER.sub("", title), ""
    for block in BeautifulSoup(body[:BEGINNING], "html.parser").select("p, li"):
        if block.select(".math, p, li") or block.find_parent(["details", "td"]) or block.find_parent(class_="citation"):
            continue
        for sentence in SENTENCE.split(" ".join(block.get_text().split())):
            if not said and not SHORTEST <= len(sentence) <= LONGEST:
                continue
            if len(f"{said} {sentence}") > LONGEST:
                return f"{title}. {said}"
            said = f"{said} {sentence[:1].upper()}{sentence[1:].rstrip(';:')}".strip()
    return f"{title}. {said}" if said else f"{title}, a page of the book The Learning Rate."


def line_plot(picture: Image.Image) -> bool:
    """Whether a picture is lines, points, bands or bars on white, and no photograph or heat map."""
    picture = picture.convert("RGB")
    red, green, blue = picture.split()
    darkest, area = ImageChops.darker(ImageChops.darker(red, green), blue), picture.width * picture.height
    white = sum(darkest.histogram()[WHITISH:]) / area
    if not BARS <= white < MOSTLY:
        return white >= MOSTLY
    commonest = sorted((count for count, _ in picture.getcolors(area) or []), reverse=True)[:INKS]
    return sum(commonest) >= FLAT * area


@cache
def style_sizes() -> list[float]:
    """The sizes of text in the book's style, in points."""
    style = rc_params_from_file(ROOT / "lrlib" / "book.mplstyle", use_default_template=False)
    return [float(value) for name, value in style.items() if name in TEXT_SIZES]


def has_powers(code: str) -> bool:
    """Whether the labels along an axis may be powers of ten: it is logarithmic, and gets no labels of its own.

    >>> has_powers("ax.semilogx(t)"), has_powers("ax.set(xscale='log')\\nax.set_xticks(a, a)"), has_powers("ax.plot(t)")
    (True, False, False)
    """
    calls = [node for node in ast.walk(ast.parse(code)) if isinstance(node, ast.Call)]
    named = [call.func.attr for call in calls if isinstance(call.func, ast.Attribute) and len(call.args) > 1]
    rest = code
    for axis, logarithmic in LOGARITHMIC.items():
        if logarithmic.search(code) and f"set_{axis}ticks" not in named:
            return True
        rest = logarithmic.sub("", rest)
    return bool(re.search(LOG, rest))  # set by a variable


def least_points(code: str) -> float:
    """The smallest text, in points, that a figure may have: of the book's style, or as its code sets it.

    >>> least_points("ax.plot(x)"), least_points("ax.text(0, 0, 'a', fontsize=8)"), least_points("ax.loglog(x)")
    (9.5, 8.0, 6.65)
    """
    powers = has_powers(code)
    sizes = [size * SCRIPT_SIZE if powers or INDEX.search(code) else size for size in style_sizes()]
    for line in code.splitlines():
        for kind, size in OWN_SIZE.findall(line):
            small = INDEX.search(line) or (powers and kind == "label")
            sizes.append(float(size) * (SCRIPT_SIZE if small else 1))
    return round(min(sizes), 3)


def functions(code: str) -> dict[str, str]:
    """The functions that a piece of code defines, by their names.

    >>> functions("x = 1\\ndef f(a):\\n    return a\\n")
    {'f': 'def f(a):\\n    return a'}
    """
    lines = code.split("\n")
    found = (node for node in ast.parse(code).body if isinstance(node, ast.FunctionDef))
    return {node.name: "\n".join(lines[node.lineno - 1 : node.end_lineno]) for node in found}


@cache
def drawing_functions() -> dict[str, str]:
    """The functions of the package that draw into given axes."""
    texts = (path.read_text(encoding="utf-8") for path in (ROOT / "lrlib").glob("*.py"))
    return {name: code for text in texts for name, code in functions(text).items() if re.search(r"\bax\b", code)}


def drawn_by(notebook: nbformat.NotebookNode) -> dict[str, str]:
    """For the id of each figure the code that draws it: its cell, and the functions that are called there."""
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    known = drawing_functions() | {name: text for cell in code for name, text in functions(cell.source).items()}
    found = {}
    for cell in code:
        if name := cell.metadata.get("mystnb", {}).get("figure", {}).get("name"):
            used, waiting = [cell.source], set(WORD.findall(cell.source))
            seen = set(functions(cell.source))
            while called := (waiting & known.keys()) - seen:
                seen |= called
                used += [known[one] for one in called]
                waiting = {word for one in called for word in WORD.findall(known[one])}
            found[make_id(name)] = "\n".join(used)
    return found


def least_width(picture: Image.Image, points: float) -> int | None:
    """The width in CSS pixels at which text of so many points is 10 pixels high; None for a picture without inches.

    >>> picture = Image.new("RGB", (720, 360))
    >>> picture.info["dpi"] = (100, 100)
    >>> least_width(picture, 9)
    576
    """
    if "dpi" not in picture.info:
        return None
    return round(picture.width / picture.info["dpi"][0] * 72 / points * LEGIBLE)


def framed(page: str, folder: Path, drawn: Mapping[str, str]) -> str:
    """Each figure of a page in a frame that scrolls, with the width that its code needs; line plots are marked."""

    every = "\n".join(drawn.values())  # for a figure that no cell has drawn

    def frame(match: re.Match) -> str:
        start, name, tag, rest = match.groups()
        attributes = dict(ATTRIBUTE.findall(tag))
        file = folder / html.unescape(attributes["src"])
        if not file.exists():
            return match[0]
        with Image.open(file) as picture:
            width = least_width(picture, least_points(drawn.get(name, every)))
            if width is None:
                return match[0]
            coloured = OF_WHITE.search(attributes.get("alt", "")) or SAYS_COLOUR.search(re.sub("<[^>]*>", "", rest))
            kind = ' class="lr-plot"' if line_plot(picture) and not coloured else ""
        tag = tag.replace("<img", f'<img{kind} style="--least: {width}px"', 1)
        return f'{start}<div class="lr-frame">{tag}</div>{rest}'

    return FIGURE.sub(frame, page)


def tidy(page: str) -> str:
    """A page with one viewport, without the ids that every proof and exercise has, and with its sidebar a landmark.

    >>> tidy('<meta name="viewport" content="a" /> <meta name="viewport" content="b"/><p id="proof"><p id="own">')
    '<meta name="viewport" content="a" /><p><p id="own">'
    """
    if first := VIEWPORT.search(page):
        page = page[: first.end()] + VIEWPORT.sub("", page[first.end() :])
    return SAME_ID.sub("", page).replace(SIDEBAR, f'<div role="region" aria-label="The book"{SIDEBAR[4:]}')


def finish(app, exception) -> None:
    """Tidy the pages that this build has written, and let the notebooks that readers download install the book."""
    if exception is not None or app.builder.format != "html":
        return
    root = Path(app.outdir)
    for path in sorted(root.rglob("*.html")):
        page, drawn = path.read_text(encoding="utf-8"), {}
        source = Path(app.srcdir) / path.relative_to(root).with_suffix(".ipynb")
        if source.exists():
            notebook = nbformat.read(source, 4)
            drawn = drawn_by(notebook)
            if app.config.lr_repository:
                fetched = colab.with_install(notebook, app.config.lr_repository)
                nbformat.write(fetched, root / "_sources" / source.relative_to(app.srcdir))
        done = tidy(page if 'class="lr-frame"' in page else framed(page, path.parent, drawn))
        if done != page:
            path.write_text(done, encoding="utf-8")
