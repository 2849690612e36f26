"""The form of the built pages: what their HTML holds, and what a reader sees on a phone, in the dark and on paper."""

import re
from collections import Counter
from pathlib import Path

import matplotlib.pyplot as plt
import nbformat
import numpy as np
import page_form
import pytest
from browser import ALL_LAID_OUT, HTML, built_book, needs_chromium
from bs4 import BeautifulSoup
from matplotlib.mathtext import MathTextParser
from PIL import Image

STATIC = Path(__file__).resolve().parent.parent / "book" / "_static"
ID = re.compile(r'<[a-zA-Z][^<>]*?\sid="([^"]+)"')
VIEWPORT = '<meta name="viewport"'
ABOUT = re.compile(r'<meta name="description" content="([^"]*)"')
RAW_TEX = re.compile(r"\$[^$\s][^$]*\$|\\[a-zA-Z]+")
CHAPTERS = ("annealing", "adamw", "range_test", "warm_restarts", "ledger", "rosetta")


def flaws(pages: dict[str, str]) -> list[str]:
    """What is wrong with the HTML of pages, a line each."""
    found, abouts = [], Counter()
    for name, page in pages.items():
        text = re.sub(r"<(script|style)\b.*?</\1>", "", page, flags=re.DOTALL)
        found += [
            f"{name}: {count} times the id {key}" for key, count in Counter(ID.findall(text)).items() if count > 1
        ]
        if page.count(VIEWPORT) != 1:
            found.append(f"{name}: {page.count(VIEWPORT)} viewports")
        about = ABOUT.findall(page)
        if len(about) != 1 or not about[0]:
            found.append(f"{name}: {len(about)} descriptions")
        abouts.update(about)
        sources = BeautifulSoup(text, "html.parser").select(".citation")
        found += [f"{name}: raw TeX in {raw[0]}" for source in sources if (raw := RAW_TEX.search(source.get_text()))]
    return found + [f"{count} pages say: {about}" for about, count in abouts.items() if count > 1]


@needs_chromium
def test_no_page_has_doubled_ids_viewports_or_descriptions_and_no_source_has_raw_tex():
    paths = [path for path in built_book().rglob("*.html") if "_static" not in path.parts]
    paths.remove(HTML / "index.html")  # sends the reader on
    assert flaws({path.relative_to(HTML).as_posix(): path.read_text(encoding="utf-8") for path in paths}) == []


def test_such_flaws_are_found():
    bad = (
        f'{VIEWPORT}>{VIEWPORT}><meta name="description" content="x"><p id="a"><p id="a"><i class="citation">$O(1)$</i>'
    )
    assert flaws({"a": bad, "b": bad.replace('id="a"', "")}) == [
        "a: 2 times the id a",
        "a: 2 viewports",
        "a: raw TeX in $O(1)$",
        "b: 2 viewports",
        "b: raw TeX in $O(1)$",
        "2 pages say: x",
    ]


def drawn(draw, tmp_path) -> Image.Image:
    with plt.rc_context({"figure.dpi": 110}):
        fig, ax = plt.subplots(figsize=(5.8, 3.4))
        draw(ax)
        fig.savefig(tmp_path / "figure.png")
        plt.close(fig)
    with Image.open(tmp_path / "figure.png") as picture:
        picture.load()
    return picture


NOISE = np.random.default_rng(0).random((40, 40))
X = np.linspace(0, 6, 200)


@pytest.mark.parametrize(
    ("draw", "lines"),
    [
        (lambda ax: ax.plot(X, np.sin(X)), True),
        (lambda ax: (ax.plot(X, np.sin(X)), ax.fill_between(X, -1, 1, alpha=0.15)), True),
        (lambda ax: ax.plot(NOISE, "o", ms=8, alpha=0.3), False),
        (lambda ax: ax.bar(range(5), [1, 4, 2, 3, 1], width=0.3), True),
        (lambda ax: ax.hist(NOISE.sum(1), bins=12), True),
        (lambda ax: ax.barh(range(10), range(10), color=["#0072B2", "#D55E00"] * 5), True),
        (lambda ax: ax.imshow(NOISE, aspect="auto"), False),
        (lambda ax: ax.pcolormesh(NOISE, cmap="Blues_r"), False),
        (lambda ax: ax.contourf(NOISE, 12), False),
    ],
    ids=["lines", "band", "crowd", "bars", "histogram", "wide bars", "picture", "heat map", "contours"],
)
def test_line_plots_are_told_from_pictures(draw, lines, tmp_path):
    assert page_form.line_plot(drawn(draw, tmp_path)) is lines


def test_a_figure_is_framed_with_its_width_and_one_whose_caption_speaks_of_dark_is_kept(tmp_path):
    drawn(lambda ax: ax.plot(X, X), tmp_path)
    figure = (
        '<figure class="align-default" id="f">\n<img alt="{}" src="figure.png" />\n<figcaption>{}</figcaption></figure>'
    )
    framed = page_form.framed(figure.format("A line.", "It rises."), tmp_path, {"f": "ax.plot(x)"})
    width = round(5.8 * 72 / 9.5 * 10)
    assert f'<div class="lr-frame"><img class="lr-plot" style="--least: {width}px" alt="A line."' in framed
    powers = page_form.framed(figure.format("A line.", "It rises."), tmp_path, {"f": "ax.semilogx(x)"})
    assert f"--least: {round(5.8 * 72 / 6.65 * 10)}px" in powers
    assert "lr-plot" not in page_form.framed(figure.format("A line.", "<b>Dark</b> is low."), tmp_path, {})
    assert "lr-plot" not in page_form.framed(figure.format("Tiles of white.", "They differ."), tmp_path, {})
    assert page_form.framed(figure.replace("figure.png", "gone.png"), tmp_path, {}).count("lr-frame") == 0


def smallest(ax) -> float:
    """The smallest letter, in points, of the labels along the axes as matplotlib draws them."""
    ax.figure.canvas.draw()
    parser, sizes = MathTextParser("path"), []
    for label in (*ax.get_xticklabels(), *ax.get_yticklabels(), ax.xaxis.label, ax.yaxis.label):
        if label.get_text():
            sizes += [glyph[1] for glyph in parser.parse(label.get_text(), 72, label.get_fontproperties()).glyphs]
    return min(sizes)


@pytest.mark.parametrize(
    "code",
    [
        "ax.plot([1, 2], [3, 4])",
        "ax.plot([1, 200], [3, 400]); ax.set_xscale('log')",
        "ax.loglog([1, 200], [3, 400])",
        "ax.semilogx([1, 200], [3, 400]); ax.set_xticks([1, 10, 200], [1, 10, 200]); ax.minorticks_off()",
        "scale = 'log'; ax.plot([1, 200], [3, 400]); ax.set_yscale(scale)",
        "ax.plot([1, 2], [3, 4]); ax.set_ylabel(r'curvature $h_{max}$')",
        "ax.plot([1, 2], [3, 4]); ax.set_xlabel('steps', fontsize=8)",
        "ax.plot([1, 2], [3, 4]); ax.set_xlabel('$h_0$', fontsize=8)",
        "ax.semilogy([1, 2], [3, 400]); ax.tick_params(labelsize=8)",
    ],
)
def test_no_letter_is_smaller_than_the_width_of_a_figure_reckons_with(code):
    with plt.style.context("lrlib.book"):
        fig, ax = plt.subplots()
        exec(code, {"ax": ax})
        found = smallest(ax)
        plt.close(fig)
    assert 0.9 * found < page_form.least_points(code) < 1.001 * found


def test_a_figure_is_drawn_by_its_cell_and_by_the_functions_that_it_calls():
    cells = [
        nbformat.v4.new_code_cell("def axis(ax):\n    ax.set_xscale('log')\ndef draw(ax):\n    axis(ax)"),
        nbformat.v4.new_code_cell("draw(ax)", metadata={"mystnb": {"figure": {"name": "a"}}}),
        nbformat.v4.new_code_cell("ax.plot(x)", metadata={"mystnb": {"figure": {"name": "b_c"}}}),
    ]
    drawn = page_form.drawn_by(nbformat.v4.new_notebook(cells=cells))
    assert {name: page_form.least_points(code) for name, code in drawn.items()} == {"a": 6.65, "b-c": 9.5}


# What scrolls without a sign, what has a sign and does not scroll, short words in several lines, and figures with text
# below ten pixels.
FORM = """() => {
  const said = (box) => `${box.tagName}.${box.className}: ${box.textContent.trim().slice(0, 50)}`, found = [];
  for (const box of document.querySelectorAll(".bd-article *")) {
    if (box.closest("details:not([open]), .lr-explorer, svg") || !box.clientWidth) continue;
    const wide = box.scrollWidth > box.clientWidth + 2;
    const scrolls = wide && ["auto", "scroll"].includes(getComputedStyle(box).overflowX);
    if (scrolls !== Boolean(box.dataset.more)) found.push(`${scrolls ? "no sign" : "a sign in vain"}: ${said(box)}`);
    if (scrolls && box.tabIndex < 0) found.push(`no way for the keyboard: ${said(box)}`);
  }
  for (const cell of document.querySelectorAll(".bd-article :is(td, th)")) {
    const words = cell.textContent.trim(), text = document.createRange();
    text.selectNodeContents(cell);
    if (!/^\\S{2,8}$/.test(words) || cell.closest("details:not([open]), .lr-explorer") || !cell.clientWidth) continue;
    const lines = new Set([...text.getClientRects()].map((line) => Math.round(line.top)));
    if (lines.size > 2) found.push(`broken word: ${said(cell)}`);
  }
  for (const picture of document.querySelectorAll(".lr-frame img")) {
    const least = parseFloat(picture.style.getPropertyValue("--least"));
    if (!(picture.getBoundingClientRect().width >= least - 1)) found.push(`small text: ${picture.alt.slice(0, 50)}`);
  }
  return found;
}"""
BAD = """<article class="bd-article">
<div style="overflow-x: auto; width: 200px"><div style="width: 400px">wide</div></div>
<div data-more="right">narrow</div>
<table><tr><td style="display: block; width: 1em; overflow-wrap: anywhere">letters</td></tr></table>
<div class="lr-frame"><img alt="tiny" style="--least: 500px; width: 300px"></div></article>"""


@pytest.fixture
def phone(browser):
    context = browser.new_context(
        viewport={"width": 390, "height": 844}, has_touch=True, is_mobile=True, color_scheme="dark"
    )
    yield context.new_page()
    context.close()


def settled(page, name):
    page.goto((built_book() / "book" / f"{name}.html").as_uri())
    page.add_style_tag(content=ALL_LAID_OUT)
    page.evaluate("document.querySelectorAll('img').forEach((picture) => { picture.loading = 'eager'; })")
    page.wait_for_function("[...document.images].every((picture) => picture.complete)")
    page.wait_for_timeout(100)


@needs_chromium
@pytest.mark.parametrize("name", CHAPTERS)
def test_on_a_phone_what_scrolls_says_so_and_text_in_figures_is_legible(phone, name):
    settled(phone, name)
    assert phone.evaluate(FORM) == []


@needs_chromium
def test_a_bad_form_is_found(phone):
    phone.set_content(BAD)
    kinds = [line.partition(":")[0] for line in phone.evaluate(FORM)]
    assert kinds == ["no sign", "no way for the keyboard", "a sign in vain", "broken word", "small text"]


@needs_chromium
def test_the_sign_follows_the_scrolling_and_the_first_column_stays(phone):
    settled(phone, "rosetta")
    table = phone.locator("[data-more]:has(table)").first
    assert table.get_attribute("data-more") == "right"
    column = table.locator("tbody tr").first.locator("th, td").first
    left = column.bounding_box()["x"]
    table.evaluate("(box) => { box.scrollLeft = (box.scrollWidth - box.clientWidth) / 2; }")
    phone.wait_for_function("(box) => box.dataset.more === 'both'", arg=table.element_handle())
    assert abs(column.bounding_box()["x"] - left) < 20
    table.evaluate("(box) => { box.scrollLeft = box.scrollWidth; }")
    phone.wait_for_function("(box) => box.dataset.more === 'left'", arg=table.element_handle())


@needs_chromium
def test_a_formula_in_a_paragraph_can_be_scrolled_to_its_end(phone):
    settled(phone, "scale_invariance")
    paragraph = phone.wait_for_selector("p:has(.lr-together)[data-more=right]")  # scrolled, it says something else
    paragraph.evaluate("(box) => { box.scrollLeft = box.scrollWidth; }")
    right = "(e) => e.getBoundingClientRect().right"
    end = paragraph.evaluate(right)
    assert all(formula.evaluate(right) <= end + 1 for formula in paragraph.query_selector_all("svg"))
    overflows = "(all) => [...new Set(all.map((formula) => getComputedStyle(formula).overflow))]"
    assert phone.locator(".bd-article span.math").evaluate_all(overflows) == ["visible"]


@needs_chromium
def test_a_link_in_the_contents_closes_them(phone):
    settled(phone, "step_size")
    phone.locator(".secondary-toggle").tap()
    contents = phone.locator("#pst-secondary-sidebar-modal")
    contents.locator("a", has_text="1.4").tap()
    contents.wait_for(state="hidden")
    assert "#" in phone.url


def ground(page, box, tmp_path) -> tuple[int, ...]:
    """The commonest colour of what is shown of an element."""
    box.scroll_into_view_if_needed()
    box.screenshot(path=tmp_path / "shown.png")
    with Image.open(tmp_path / "shown.png") as picture:
        colours = picture.convert("RGB").getcolors(picture.width * picture.height)
    return max(colours)[1]


@needs_chromium
def test_line_plots_have_the_ground_of_the_page_in_the_dark_and_pictures_keep_theirs(browser, tmp_path):
    page = browser.new_page(viewport={"width": 1280, "height": 900}, color_scheme="dark")
    settled(page, "scale_invariance")
    behind = page.evaluate("getComputedStyle(document.body).backgroundColor")
    body = tuple(int(number) for number in re.findall(r"\d+", behind)[:3])
    plot = ground(page, page.locator("img.lr-plot").first, tmp_path)
    assert max(abs(a - b) for a, b in zip(plot, body, strict=True)) < 6
    kept = page.locator(".lr-frame img:not(.lr-plot)").first
    assert min(ground(page, kept, tmp_path)) > 150
    page.close()


@needs_chromium
def test_a_stretched_line_over_a_formula_ends_where_the_formula_ends(browser):
    page = browser.new_page()
    settled(page, "race")
    pieces = page.locator("mjx-container svg svg")
    assert pieces.count() > 0
    for k in range(pieces.count()):
        assert pieces.nth(k).evaluate("(piece) => getComputedStyle(piece).overflow") == "hidden"
    page.close()


@needs_chromium
def test_paper_is_light_whatever_the_theme(browser):
    page = browser.new_page(color_scheme="dark")
    settled(page, "annealing")
    theme = "document.documentElement.dataset.theme"
    assert page.evaluate(theme) == "dark"
    page.emulate_media(media="print")
    page.wait_for_function(f"{theme} === 'light'")
    page.emulate_media(media="screen")
    page.wait_for_function(f"{theme} === 'dark'")
    page.close()


@needs_chromium
def test_copying_needs_no_pointer_and_verdicts_have_signs(phone):
    settled(phone, "adamw")
    button = phone.locator("div.cell_input:not(details div) button.copybtn").first
    assert float(button.evaluate("(button) => getComputedStyle(button).opacity")) > 0.5
    known = ("holds", "holds-with-a-condition", "corrected", "does-not-hold", "open-at-scale", "answered")
    ledger = BeautifulSoup((HTML / "book" / "ledger.html").read_text(encoding="utf-8"), "html.parser")
    kinds = [kind for kind in known if ledger.select(f"tr.{kind}")]  # the style sheet holds what is used
    assert len(kinds) >= 4
    signs = phone.evaluate(
        """(kinds) => kinds.map((kind) => {
          const item = document.querySelector(".lr-found li");
          item.className = kind;
          return getComputedStyle(item.querySelector(".lr-verdict"), "::before").content.split("/")[0];
        })""",
        kinds,
    )
    assert len(set(signs)) == len(kinds) and all(sign.strip("\" '") for sign in signs)
