"""Previews of what links lead to: what is collected from the pages, and what a reader sees in a headless Chromium."""

import previews
import pytest
from browser import HTML, built_book, needs_chromium

TARGETS = """<div class="math" id="eq">x<span class="eqno">(1)<a class="headerlink" href="#eq">#</a></span></div>
<div class="proof lemma" id="lemma"><p>see <a href="a.html">A</a></p><div class="math" id="inner">and</div></div>
<figure id="fig"><img src="x.png"></figure><section id="sec"><h2>title</h2></section>"""


def test_what_pages_link_to_is_collected_without_ids_and_links(tmp_path):
    (tmp_path / "book").mkdir()
    links = "".join(f'<a href="b.html#{name}">x</a>' for name in ("eq", "lemma", "inner", "fig", "sec", "missing"))
    here = '<p class="proof" id="here"></p><a href="#here">x</a><a href="gone.html#x">x</a>'
    (tmp_path / "book" / "a.html").write_text(links + here, encoding="utf-8")
    (tmp_path / "book" / "b.html").write_text(TARGETS + '<div class="math" id="unlinked">y</div>', encoding="utf-8")
    assert previews.previews(tmp_path) == {
        "book/a.html#here": '<p class="proof"></p>',
        "book/b.html#eq": '<div class="math">x<span class="eqno">(1)</span></div>',
        "book/b.html#lemma": '<div class="proof lemma"><p>see A</p><div class="math">and</div></div>',
        "book/b.html#inner": '<div class="math">and</div>',
        "book/b.html#fig": '<figure><img src="x.png"/></figure>',
    }


def test_terms_come_with_their_meaning_and_verdicts_and_sources_are_shown(tmp_path):
    targets = """<dl class="glossary"><dt id="term-rate">rate</dt><dd><p>how far</p></dd><dt id="term-x">x</dt></dl>
    <div class="claim holds" id="claim-J1"><p>It does.</p></div><div class="citation" id="id3"><p>A book.</p></div>"""
    (tmp_path / "b.html").write_text(targets, encoding="utf-8")
    links = "".join(f'<a href="b.html#{name}">x</a>' for name in ("term-rate", "term-x", "claim-J1", "id3"))
    (tmp_path / "a.html").write_text(links, encoding="utf-8")
    assert previews.previews(tmp_path) == {
        "b.html#term-rate": "<dl><dt>rate</dt><dd><p>how far</p></dd></dl>",
        "b.html#term-x": "<dl><dt>x</dt></dl>",
        "b.html#claim-J1": '<div class="claim holds"><p>It does.</p></div>',
        "b.html#id3": '<div class="citation"><p>A book.</p></div>',
    }


@pytest.fixture(scope="module")
def page(browser):
    page = browser.new_page(viewport={"width": 1280, "height": 900})
    page.goto((built_book() / "book" / "annealing.html").as_uri())
    return page


@needs_chromium
def test_a_pointer_on_an_equation_number_shows_the_equation_until_it_leaves(page):
    link, tip = page.locator("a.reference[href='#equation-eq-floor']").first, page.locator("#lr-preview")
    assert tip.is_hidden()
    link.hover()
    tip.wait_for()
    assert tip.locator("mjx-container").count() == 1 and tip.locator(".headerlink").count() == 0
    assert link.get_attribute("aria-describedby") == "lr-preview"
    tip.hover()
    page.wait_for_timeout(500)
    assert tip.is_visible()
    page.locator(".bd-article h1").hover()
    tip.wait_for(state="hidden")
    assert link.get_attribute("aria-describedby") is None
    assert page.locator("[id='equation-eq-floor']").count() == 1


@needs_chromium
def test_the_keyboard_shows_a_theorem_of_another_page_and_escape_hides_it(page):
    pages = {path: path.read_text(encoding="utf-8") for path in (HTML / "book").glob("*.html")}
    known = previews.previews(HTML)
    path, (target, anchor) = next(
        (path, link)
        for path, text in pages.items()
        for link in previews.LINK.findall(text)
        if link[0] != path.name and "proof" in known.get(f"book/{link[0]}#{link[1]}", "")
    )
    page.goto(path.as_uri())
    tip = page.locator("#lr-preview")
    page.locator(f".bd-article a[href='{target}#{anchor}']").first.focus()
    tip.wait_for()
    assert tip.locator(".proof, .math, .exercise, figure").count() >= 1
    assert "\\(" not in tip.text_content()
    page.keyboard.press("Escape")
    tip.wait_for(state="hidden")


@needs_chromium
@pytest.mark.parametrize(
    ("name", "link", "kind"),
    [
        ("annealing", "a[href*='bibliography.html#']", ".citation"),
        ("annealing", ".lr-found a", ".claim"),
        ("glossary", "a.reference[href^='#term-']", "dt"),
    ],
)
def test_a_first_tap_shows_what_a_link_leads_to_and_a_second_one_follows_it(page, name, link, kind):
    context = page.context.browser.new_context(viewport={"width": 390, "height": 844}, has_touch=True, is_mobile=True)
    phone = context.new_page()
    phone.goto((HTML / "book" / f"{name}.html").as_uri())
    for summary in phone.locator(".lr-found > summary").all():
        summary.tap()
    chosen, tip = phone.locator(f".bd-article:not(.lr-preview) {link}").first, phone.locator("#lr-preview")
    before = phone.url
    chosen.tap()
    tip.wait_for()
    assert tip.locator(kind).count() == 1 and phone.url == before
    assert phone.evaluate("document.documentElement.scrollWidth <= innerWidth")
    chosen.tap()
    phone.wait_for_url(lambda url: url != before)
    context.close()


@needs_chromium
def test_a_tap_beside_a_preview_closes_it(page):
    context = page.context.browser.new_context(viewport={"width": 390, "height": 844}, has_touch=True, is_mobile=True)
    phone = context.new_page()
    phone.goto((HTML / "book" / "annealing.html").as_uri())
    phone.locator(".lr-found > summary").tap()
    phone.locator(".lr-found a").first.tap()
    phone.locator("#lr-preview").wait_for()
    phone.locator(".bd-article h1").tap()
    phone.locator("#lr-preview").wait_for(state="hidden")
    context.close()


@needs_chromium
def test_a_link_to_a_section_shows_nothing(page):
    page.goto((HTML / "book" / "annealing.html").as_uri())
    page.evaluate("document.querySelector('.lr-chapter-line a').href = '#exercises'")
    page.locator(".lr-chapter-line a").hover()
    page.wait_for_timeout(600)
    assert page.locator("#lr-preview").is_hidden()


@needs_chromium
@pytest.mark.parametrize("place", [0.2, 0.5, 0.8])
def test_a_preview_stays_in_the_window_wherever_its_link_is(page, place):
    page.goto((HTML / "book" / "ledger.html").as_uri())
    link, tip = page.locator(".bd-article:not(.lr-preview) li a[href$='#claim-M15']").first, page.locator("#lr-preview")
    link.evaluate("(a, place) => scrollBy(0, a.getBoundingClientRect().top - place * innerHeight)", place)
    link.evaluate("(a) => a.focus({preventScroll: true})")
    tip.wait_for()
    box = tip.bounding_box()
    assert box["y"] >= 0 and box["y"] + box["height"] <= 900
    page.keyboard.press("Escape")
