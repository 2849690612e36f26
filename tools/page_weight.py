"""A small Sphinx extension: built pages that are light, and readable before or without any script.

After the build, in every page: formulas are typeset (tools/maths.py), icons are drawings instead of Font Awesome's
1.5 MB of script, pictures have a size and are loaded when they come near, scripts hold nothing up and
measure nothing out of sight, styles come in one sheet (tools/styles.py), code is an element only where it has a colour,
and the index of the search is left to the search page.
"""

import html
import importlib.resources
import re
from functools import cache
from pathlib import Path

import maths
import styles
from PIL import Image
from sphinx.errors import ExtensionError

ICON = re.compile(r'<(i|span) class="([^"]*\bfa-[^"]*)"([^>]*)>\s*</\1>')
LOOKS = {"fas": "", "fa-solid": "", "fa-lg": "lr-icon-large"}  # classes beside that of the icon
PICTURE = re.compile(r"<img\b[^>]*>")
SOURCE = re.compile(r'\bsrc="([^":?]+)"')
SIZED = re.compile(r"\b(?:width|height)[=:]")

FONT_AWESOME = re.compile(r'<script[^>]*\bsrc="[^"]*/fontawesome\.js[^"]*"[^>]*></script>')
SPHINX_SEARCH = re.compile(r'\s*<script src="[^"]*(?:searchtools|language_data|searchindex)\.js"></script>')
OPTIONS = re.compile(r'<script src="[^"]*/documentation_options\.js[^"]*"></script>')
UNCOLOURED = re.compile(r'<span class="(?:n|nn|p|w)">([^<]*)</span>')  # tokens that look like the text around them
UNUSED = re.compile("mathjax|sphinx-thebe", re.IGNORECASE)
PRELOAD = re.compile(r'\s*<link rel="preload" as="script"[^>]*>')  # nothing waits for these scripts
SCRIPT = re.compile(r'<script\b[^>]*\bsrc="([^"?:]+)')
BLOCKING = re.compile(r"<script (?![^>]*\b(?:defer|async)\b)(?=[^>]*\bsrc=)")
MEASURED = re.compile(r'\["pre",[^\]]*\](?=\.join\(", "\)\)\.forEach\(e=>\{e\.tabIndex=)')
UNNAMED = '<summary><span class="toctree-toggle"'  # in the table of contents, an arrow alone


@cache
def font_awesome() -> str:
    """The theme's script of icons."""
    theme = importlib.resources.files("pydata_sphinx_theme") / "theme" / "pydata_sphinx_theme"
    return (theme / "static" / "scripts" / "fontawesome.js").read_text(encoding="utf-8")


@cache
def shape(name: str) -> tuple[str, str, str]:
    """Width, height and outline of an icon, by its name without fa-."""
    known = re.findall(rf'[,{{]"?{name}"?:\[(\d+),(\d+),\[[^\]]*\],"[^"]*","([^"]+)"\]', font_awesome())
    if not known:
        raise ValueError(f"'icon': fa-{name} is not one of Font Awesome's")
    return known[-1]  # the solid ones come last


def drawing(icon: re.Match) -> str:
    """An icon of Font Awesome as the drawing that its script would put there.

    >>> ICON.sub(drawing, '<i class="more fas fa-download"></i>')[:61]
    '<svg class="lr-icon more" viewBox="0 0 512 512" aria-hidden="'
    >>> ICON.sub(drawing, '<i class="fa-solid fa-nothing"></i>')
    Traceback (most recent call last):
    ValueError: 'icon': fa-nothing is not one of Font Awesome's
    """
    classes = icon[2].split()
    (name,) = {one for one in classes if one.startswith("fa-")} - set(LOOKS)
    kept = ["lr-icon", *filter(None, (LOOKS.get(one, one) for one in classes if one != name))]
    width, height, path = shape(name[3:])
    rest = f'viewBox="0 0 {width} {height}" aria-hidden="true"{icon[3]}><path d="{path}"/></svg>'
    return f'<svg class="{" ".join(kept)}" {rest}'


def pictures(page: str, folder: Path) -> str:
    """Every picture with its size, so that nothing moves when it comes; all but the first are loaded when near.

    >>> pictures('<img src="missing.png"/><img src="missing.png"/>', Path())
    '<img src="missing.png"/><img loading="lazy" src="missing.png"/>'
    """
    seen = 0

    def settled(match: re.Match) -> str:
        nonlocal seen
        tag, source = match[0], SOURCE.search(match[0])
        seen += 1
        if seen > 1 and "loading=" not in tag:
            tag = tag.replace("<img", '<img loading="lazy"', 1)
        file = folder / html.unescape(source[1]) if source else None
        if file and file.suffix in (".png", ".jpg", ".webp") and file.exists() and not SIZED.search(tag):
            with Image.open(file) as picture:
                tag = tag.replace("<img", '<img width="{}" height="{}"'.format(*picture.size), 1)
        return tag

    return PICTURE.sub(settled, page)


def light(page: str, folder: Path, options: str) -> str:
    """A page, in this folder, with its icons drawn, its pictures settled, and scripts that wait for the text."""
    page = SPHINX_SEARCH.sub("", PRELOAD.sub("", FONT_AWESOME.sub("", page)))
    page = page.replace(UNNAMED, UNNAMED.replace("<summary>", '<summary aria-label="Pages of this section">'))
    page = BLOCKING.sub("<script defer ", OPTIONS.sub(lambda _: f"<script>{options}</script>", page))
    head, article, text = ICON.sub(drawing, UNCOLOURED.sub(r"\1", page)).partition(maths.ARTICLE)
    return head + article + pictures(text, folder)


def without_measuring(script: str) -> str:
    """The theme's script without its search for what scrolls, which lays out the whole page; form.js sees to that.

    >>> without_measuring('f(["pre",".b"].join(", ")).forEach(e=>{e.tabIndex=0})')
    'f(["#none"].join(", ")).forEach(e=>{e.tabIndex=0})'
    """
    done, count = MEASURED.subn('["#none"]', script)
    if not count and '["#none"]' not in script:
        raise ValueError("'script': measures what scrolls in another way than the theme that is known")
    return done


def scripts(pages: dict[Path, str], root: Path) -> list[str]:
    """The scripts that pages load, at once or when a reader comes near an explorer."""
    files = {(path.parent / source).resolve() for path, page in pages.items() for source in SCRIPT.findall(page)}
    files |= set((root / "_static" / "explorers").glob("*.js"))
    return [file.read_text(encoding="utf-8") for file in sorted(files) if file.exists()]


def without_unused(app, pagename, templatename, context, doctree) -> None:
    """Leave out what would typeset the formulas in the reader's browser, and the styles of Thebe, which is not used."""
    for kind in ("script_files", "css_files"):
        context[kind] = [file for file in context[kind] if not UNUSED.search(str(file))]


def finish(app, exception) -> None:
    """Make the pages light that this build has written; the others are so already."""
    if exception is not None or app.builder.format != "html":
        return
    root = Path(app.outdir)
    options = (root / "_static" / "documentation_options.js").read_text(encoding="utf-8")
    paths = [path for path in sorted(root.rglob("*.html")) if "_static" not in path.relative_to(root).parts]
    before = {path: path.read_text(encoding="utf-8") for path in paths}
    theme = root / "_static" / "scripts" / "pydata-sphinx-theme.js"
    try:
        theme.write_text(without_measuring(theme.read_text(encoding="utf-8")), encoding="utf-8")
        done = maths.typeset(formula for page in before.values() for formula in maths.formulas(page))
        after = {path: light(maths.replaced(page, done), path.parent, options) for path, page in before.items()}
    except ValueError as error:
        raise ExtensionError(f"page_weight: {error}") from error
    for path, page in styles.united(after, scripts(after, root), root).items():
        if page != before[path]:
            path.write_text(page, encoding="utf-8")
    explorers = root / "_static" / "explorers"
    own = [path.read_text(encoding="utf-8") for path in sorted(explorers.glob("*.js"))]
    (explorers / "formulas.js").write_text(maths.script(own), encoding="utf-8")


def setup(app) -> dict:
    app.connect("html-page-context", without_unused, priority=950)
    app.connect("build-finished", finish, priority=800)  # the theme writes its style of code there, too
    return {"version": "1", "parallel_read_safe": True, "parallel_write_safe": True}
