"""Formulas typeset while the book is built: TeX to an SVG that everyone sees and MathML that screen readers read.

MathJax does it, in the Node.js that Playwright brings along. A page holds the shape of each glyph once and needs no
script; what the explorers show is typeset as well, into _static/explorers/formulas.js.
"""

import html
import json
import re
import subprocess
import sys
from collections.abc import Iterable
from importlib.util import find_spec
from pathlib import Path
from typing import NamedTuple

SCRIPT = Path(__file__).parent / "mathjax" / "typeset.js"

ARTICLE = '<article class="bd-article">'
INLINE = re.compile(r'(<span class="math notranslate nohighlight">)\\\((.*?)\\\)(</span>)', re.DOTALL)
DISPLAY = re.compile(
    r'(<div class="(?:amsmath )?math notranslate nohighlight"[^>]*>\s*(?:<span class="eqno">.*?</span>)?)'
    r"(?:\\\[(.*?)\\\]|(\\begin\{.*?))(\s*</div>)",
    re.DOTALL,
)
USED = re.compile(r'<use href="#(TEX-[^"]+)"')
OWN = re.compile(r"\btex: String\.raw`([^`]*)`")  # the formulas of an explorer


class Formula(NamedTuple):
    """TeX, and whether it stands by itself."""

    tex: str
    display: bool


class Typeset(NamedTuple):
    """What to show for each formula, and the outline of each glyph that it refers to."""

    shown: dict[Formula, str]
    glyphs: dict[str, str]


def node() -> Path:
    """The Node.js of the package playwright."""
    package = find_spec("playwright")
    if package is None or package.origin is None:
        raise ModuleNotFoundError("formulas are typeset by the Node.js of playwright, which is not installed")
    return Path(package.origin).parent / "driver" / ("node.exe" if sys.platform == "win32" else "node")


def formulas(page: str) -> list[Formula]:
    """The formulas of a page that are still TeX.

    >>> formulas('<span class="math notranslate nohighlight">\\\\(a&lt;b\\\\)</span>')
    [Formula(tex='a<b', display=False)]
    """
    inline = [Formula(html.unescape(tex), False) for _, tex, _ in INLINE.findall(page)]
    return inline + [Formula(html.unescape(tex or plain), True) for _, tex, plain, _ in DISPLAY.findall(page)]


def typeset(wanted: Iterable[Formula]) -> Typeset:
    """Typeset all in one go. A formula that TeX does not understand is a ValueError that shows it.

    >>> done = typeset([Formula(r"\\eta^2", False)])
    >>> done.shown[Formula(r"\\eta^2", False)][:42], sorted(done.glyphs)
    ('<mjx-container><svg width="2.112ex" height', ['TEX-I-1D702', 'TEX-N-32'])
    >>> typeset([Formula(r"\\frac{x", True)])
    Traceback (most recent call last):
    ValueError: 'wanted': \\frac{x: Missing close brace
    """
    wanted = sorted(set(wanted))
    done = subprocess.run([node(), SCRIPT], input=json.dumps(wanted), capture_output=True, text=True, encoding="utf-8")
    if done.returncode:
        raise RuntimeError(f"MathJax failed: {done.stderr}")
    made = json.loads(done.stdout)
    wrong = [f"{one.tex}: {out['error']}" for one, out in zip(wanted, made["formulas"], strict=True) if out["error"]]
    if wrong:
        raise ValueError("'wanted': " + "; ".join(wrong))
    return Typeset({one: out["html"] for one, out in zip(wanted, made["formulas"], strict=True)}, made["glyphs"])


def definitions(text: str, glyphs: dict[str, str]) -> str:
    """The glyphs that a text refers to, invisible."""
    paths = [f'<path id="{name}" d="{glyphs[name]}"/>' for name in sorted(set(USED.findall(text)))]
    return f'<svg class="lr-glyphs" width="0" height="0" aria-hidden="true"><defs>{"".join(paths)}</defs></svg>'


def replaced(page: str, done: Typeset) -> str:
    """A page with its formulas typeset, and their glyphs at the head of its article."""

    def inline(match: re.Match) -> str:
        return match[1] + done.shown[Formula(html.unescape(match[2]), False)] + match[3]

    def display(match: re.Match) -> str:
        return match[1] + done.shown[Formula(html.unescape(match[2] or match[3]), True)] + match[4]

    after = DISPLAY.sub(display, INLINE.sub(inline, page))
    if after == page:
        return page
    head, article, rest = after.partition(ARTICLE)
    if not article:
        raise ValueError("'page': has formulas and no article to put their glyphs into")
    return head + article + definitions(after, done.glyphs) + rest


def script(explorers: Iterable[str]) -> str:
    """A script with the formulas of explorers, from TeX to what to show: LR.typeset."""
    done = typeset(Formula(tex, True) for text in explorers for tex in OWN.findall(text))

    def outline(use: re.Match) -> str:
        return f'<path d="{done.glyphs[use[1]]}"'

    shown = {formula.tex: USED.sub(outline, text) for formula, text in done.shown.items()}
    return f"LR.typeset = {json.dumps(shown, ensure_ascii=False)};\n"
