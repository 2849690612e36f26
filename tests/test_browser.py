"""The built book in a headless Chromium: every page loads cleanly from disk, fits a phone, and passes axe-core.

Each page is visited once, in several tabs at a time. Screenshots of every page lie in _build/screenshots afterwards,
unless CI is set, where nobody looks at them.
"""

import asyncio
import html
import os
import re
import shutil
from pathlib import Path
from urllib.parse import unquote

import pytest
from browser import ALL_LAID_OUT, HTML, ROOT, built_book, needs_chromium
from chromium import LAUNCH

SHOTS = ROOT / "_build" / "screenshots"
TABS = max(2, (os.cpu_count() or 2) // 2)
WIDE, PHONE = {"width": 1280, "height": 900}, {"width": 390, "height": 844}
HEAVIEST = 1_500_000  # bytes of a page and its pictures
TALLEST = 3_000  # pixels of a page in its screenshot

pytestmark = needs_chromium

# axe-core is slow, so it sees one of each look: a token's class fixes its colour, and formulas have the colour of the
# text around them. For the contrast one block with the same classes above it and inside it is enough, too.
THIN_OUT_TOKENS = """() => {
  const style = document.createElement("style");
  style.textContent = "*, ::before, ::after { transition: none !important; animation: none !important; }";
  document.head.append(style);
  const tokens = new Set();
  for (const token of document.querySelectorAll(".highlight pre span")) {
    if (token.id || token.children.length) continue;
    if (tokens.has(token.className)) token.replaceWith(token.textContent);
    else tokens.add(token.className);
  }
  [...document.querySelectorAll("mjx-container")].slice(1).forEach((formula) => formula.replaceWith("x"));
}"""
THIN_OUT_BLOCKS = """() => {
  const look = (element) => `${element.tagName}.${element.getAttribute("class")}`;
  const blocks = new Set();
  for (const block of document.querySelectorAll("main :is(p, li, td, th, dd, dt, pre)")) {
    const key = [...new Set([...block.querySelectorAll("*")].map(look))].sort();
    for (let e = block; e && e.tagName !== "MAIN"; e = e.parentElement) key.push(look(e));
    if (blocks.has(key.join())) block.remove();
    else blocks.add(key.join());
  }
}"""
# Explorers start when the reader comes near them.
SCROLL_THROUGH = """async () => {
  for (const explorer of document.querySelectorAll(".lr-explorer")) {
    explorer.scrollIntoView();
    for (let k = 0; k < 100 && !explorer.dataset.live; k++) await new Promise((done) => setTimeout(done, 50));
    if (!explorer.dataset.live) console.error(`${explorer.id} has not started`);
  }
  scrollTo(0, 0);
}"""
AXE = "(rules) => axe.run(document, {resultTypes: ['violations'], preload: false, iframes: false, ...rules})"
LONG_LINES = """() => [...document.querySelectorAll("pre:has(> .line)")]
  .filter((listing) => listing.scrollWidth > listing.clientWidth + 1)
  .map((listing) => listing.textContent.slice(0, 120))"""
SCROLLING = """() => [...document.querySelectorAll(".bd-article :is(mjx-container[display=true], pre, .text_html)")]
  .filter((box) => box.scrollWidth > box.clientWidth + 1)
  .map((box) => (box.closest("[id]")?.id ?? "") + ": " + box.textContent.trim().slice(0, 60))"""
WIDER = """() => document.documentElement.scrollWidth <= innerWidth ? null : [...document.querySelectorAll("main *")]
  .filter((e) => e.getBoundingClientRect().right > innerWidth + 1).slice(0, 5).map((e) => e.outerHTML.slice(0, 120))"""


def serious(result: dict) -> list[str]:
    """What axe-core found of moderate, serious or critical impact, a line each."""
    return [
        f"{rule['id']} ({len(rule['nodes'])}x): {node['html'][:120]} {node['failureSummary'][:200]}"
        for rule in result["violations"]
        if rule["impact"] in ("moderate", "serious", "critical")
        for node in rule["nodes"][:2]
    ]


async def photograph(page, name: str, size: dict[str, int]) -> None:
    height = min(TALLEST, await page.evaluate("document.documentElement.scrollHeight"))
    await page.set_viewport_size({**size, "height": height})
    for theme in ("light", "dark"):
        await page.emulate_media(color_scheme=theme)
        await page.screenshot(path=SHOTS / f"{name}-{size['width']}-{theme}.jpg", type="jpeg", quality=60)


async def visit(browser, path: Path, root: Path, axe: str) -> dict[str, list[str]]:
    """Load a page as a reader does, in both themes and widths, and note what is wrong with it."""
    name = path.relative_to(root).as_posix()
    context = await browser.new_context(viewport=WIDE, color_scheme="light")
    page = await context.new_page()
    noise, foreign, wide, flaws = [], [], [], []
    page.on("console", lambda message: noise.append(message.text) if message.type in ("error", "warning") else None)
    page.on("pageerror", lambda error: noise.append(str(error)))
    page.on("requestfailed", lambda request: noise.append(f"failed: {request.url}"))
    page.on("request", lambda request: foreign.append(request.url) if request.url.startswith(("http", "ws")) else None)
    await page.goto(path.as_uri())
    await page.wait_for_load_state("load")
    await page.add_style_tag(content=ALL_LAID_OUT)
    await page.evaluate(SCROLL_THROUGH)

    wide += [f"{name} on a wide screen: {box}" for box in await page.evaluate(SCROLLING)]
    for size in (WIDE, PHONE):
        await page.set_viewport_size(size)
        found = await page.evaluate(WIDER)
        if found is not None:
            wide.append(f"{name} at {size['width']} px: {found}")
        wide += [f"{name} at {size['width']} px: {code}" for code in await page.evaluate(LONG_LINES)]
        if root == HTML and not os.environ.get("CI"):
            await photograph(page, name.removesuffix(".html").replace("/", "-"), size)
    await page.evaluate(THIN_OUT_TOKENS)
    await page.evaluate(axe)
    contrast, others = {"runOnly": ["color-contrast"]}, {"rules": {"color-contrast": {"enabled": False}}}
    for theme, size, rules in (("light", PHONE, others), ("light", PHONE, contrast), ("dark", WIDE, contrast)):
        await page.emulate_media(color_scheme=theme)
        if page.viewport_size != size:
            await page.set_viewport_size(size)
            await page.wait_for_timeout(400)  # after 0.3 s the theme lets the keyboard reach what scrolls
        found = await page.evaluate(AXE, rules)
        flaws += [f"{name} in {theme} at {size['width']} px: {flaw}" for flaw in serious(found)]
        await page.evaluate(THIN_OUT_BLOCKS)
    await context.close()
    return {"noise": [f"{name}: {text}" for text in noise], "foreign": foreign, "wide": wide, "flaws": flaws}


async def visit_all(paths: list[Path], root: Path) -> dict[str, list[str]]:
    import axe_playwright_python
    from playwright.async_api import async_playwright

    axe = (Path(axe_playwright_python.__file__).parent / "axe.min.js").read_text(encoding="utf-8")
    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(**LAUNCH)
        tabs = asyncio.Semaphore(TABS)

        async def one(path):
            async with tabs:
                return await visit(browser, path, root, axe)

        reports = await asyncio.gather(*map(one, paths))
        await browser.close()
    return {key: [line for report in reports for line in report[key]] for key in reports[0]}


@pytest.fixture(scope="module")
def report():
    pages = sorted(path for path in built_book().rglob("*.html") if "_static" not in path.parts)
    pages.remove(HTML / "index.html")  # sends the reader on to book/index.html
    shutil.rmtree(SHOTS, ignore_errors=True)
    SHOTS.mkdir(parents=True)
    return asyncio.run(visit_all(pages, HTML))


def test_no_page_complains_on_the_console(report):
    assert not report["noise"], "\n".join(report["noise"])


def test_no_page_asks_another_host_for_anything(report):
    assert not report["foreign"], "\n".join(report["foreign"])


def test_no_page_listing_table_or_formula_scrolls_sideways(report):
    assert not report["wide"], "\n".join(report["wide"])


def test_axe_core_finds_no_serious_violation_in_light_and_dark(report):
    assert not report["flaws"], "\n".join(report["flaws"])


def test_no_page_is_heavy_and_no_link_dangles():
    pages = {path.resolve(): path.read_text(encoding="utf-8") for path in built_book().rglob("*.html")}
    anchors = {path: set(re.findall(r'\b(?:id|name)="([^"]+)"', text)) for path, text in pages.items()}
    problems = []
    for path, text in pages.items():
        if "_static" in path.parts:
            continue
        name = path.relative_to(HTML.resolve())
        shown = re.sub(r"<pre>.*?</pre>", "", text, flags=re.DOTALL)  # code may speak of links
        for link in re.findall(r'(?:href|src)="([^"#?]*(?:\?[^"#]*)?(?:#[^"]*)?)"', shown):
            target, _, anchor = html.unescape(unquote(link)).partition("#")
            target, anchor = target.partition("?")[0], anchor.partition("?")[0]
            if re.match(r"[a-z]+:|//", target) or link == "#":
                continue
            file = (path.parent / target).resolve() if target else path
            if not file.exists():
                problems.append(f"{name}: {link} leads nowhere")
            elif anchor and file in anchors and anchor not in anchors[file]:
                problems.append(f"{name}: {link} has no such place")
        pictures = {(path.parent / link).resolve() for link in re.findall(r'<img[^>]*\bsrc="([^":]+)"', text)}
        weight = len(text.encode()) + sum(picture.stat().st_size for picture in pictures if picture.exists())
        if weight > HEAVIEST:
            problems.append(f"{name} weighs {weight:,} bytes with its pictures")
    assert not problems, "\n".join(problems)


BAD_PAGE = """<!DOCTYPE html><html lang="en"><head><title>Bad</title></head><body><main>
<p style="color: #ccc; background: #fff">Too faint to read</p><div style="width: 2000px">wide</div>
<div class="bd-article"><pre style="width: 300px; overflow: auto">a table  of text  that is
  wider  than  the  box  that it is printed in</pre></div>
<img src="missing.png" alt=""><img src="https://example.org/x.png" alt=""><script>undefinedFunction()</script>
</main></body></html>"""


def test_a_bad_page_is_found_out(tmp_path):
    (tmp_path / "bad.html").write_text(BAD_PAGE, encoding="utf-8")
    report = asyncio.run(visit_all([tmp_path / "bad.html"], tmp_path))
    assert any("undefinedFunction" in line for line in report["noise"])
    assert any("missing.png" in line for line in report["noise"])
    assert report["foreign"] == ["https://example.org/x.png"]
    assert [("wide screen" in line) for line in report["wide"]] == [True, False, False]
    assert sum("color-contrast" in line for line in report["flaws"]) == 2
