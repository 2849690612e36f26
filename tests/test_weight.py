"""How heavy the built pages are and how soon they can be read, in a headless Chromium that a small server feeds.

Bytes, layout shift, what holds up the first paint and how much is laid out are asserted as they are aimed at. Seconds
depend on the machine and on what else it does, so they are only printed.
"""

import gzip
import mimetypes
import re
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from urllib.parse import unquote, urlsplit

import maths
import page_weight
import pytest
import styles
from browser import DRAWN, HTML, ROOT, built_book, needs_chromium
from bs4 import BeautifulSoup

PHONE = {"viewport": {"width": 390, "height": 844}, "device_scale_factor": 2, "is_mobile": True, "has_touch": True}
NETWORK = {"offline": False, "latency": 150, "downloadThroughput": 1.6e6 / 8, "uploadThroughput": 750e3 / 8}
SLOWER = 4  # times the CPU of this machine
HEAVIEST = 1_200_000  # bytes over the line, of a chapter with everything in it
HOLDS_UP = 100_000  # bytes that must come before the first paint, the text's face among them
LAID_OUT = 0.4  # the share of a chapter's elements that the first screen needs, with what is near
SHIFT = 0.05
NOT_LOADED = re.compile(r"mathjax|fontawesome|searchindex|searchtools|search-data|/fa-|thebe")

WATCH = """(() => {
  const seen = window.seen = { shift: 0, moved: [] }; // of the worst five seconds, as browsers count it
  let began = 0, last = 0, sum = 0;
  new PerformanceObserver((list) => {
    for (const entry of list.getEntries().filter((e) => !e.hadRecentInput)) {
      if (entry.startTime - last > 1000 || entry.startTime - began > 5000) [began, sum] = [entry.startTime, 0];
      last = entry.startTime;
      seen.shift = Math.max(seen.shift, sum += entry.value);
      seen.moved.push([entry.value, ...entry.sources.map((source) => source.node?.outerHTML?.slice(0, 80))]);
    }
  }).observe({ type: "layout-shift", buffered: true });
  document.addEventListener("readystatechange", () => {
    if (document.readyState !== "interactive") return; // all of the text is there
    requestAnimationFrame(() => setTimeout(() => { seen.formulas = performance.now(); }));
  });
})()"""
SEEN = """() => ({
  ...seen,
  paint: performance.getEntriesByName("first-contentful-paint")[0].startTime,
  laidOut: ((all) => all.filter((e) => e.checkVisibility({ contentVisibilityAuto: true })).length / all.length)(
    [...document.querySelectorAll("article section *:not(details *)")]),
  face: ["1em", "bold 1em"].map((style) => document.fonts.check(`${style} "Source Serif"`)),
  resources: performance.getEntriesByType("resource").map((r) => [r.name, r.renderBlockingStatus, r.encodedBodySize]),
})"""
SCROLL_THROUGH = f"""async (screen) => {{
  const pause = (ms) => new Promise((done) => setTimeout(done, ms));
  const drawn = {DRAWN};
  for (let y = 0; y < document.documentElement.scrollHeight; y += screen) {{ scrollTo(0, y); await drawn(); }}
  for (const explorer of document.querySelectorAll(".lr-explorer")) {{
    for (let k = 0; k < 100 && !explorer.dataset.live; k++) await pause(50);
  }}
  await pause(200);
}}"""


class Compressed(BaseHTTPRequestHandler):
    """Serves the built book as a web server does: text gzipped, connections kept."""

    protocol_version = "HTTP/1.1"

    def do_GET(self):
        file = HTML / unquote(urlsplit(self.path).path).lstrip("/")
        found = file.is_file()
        kind = mimetypes.guess_type(file.name)[0] or "application/octet-stream"
        body = file.read_bytes() if found else b""
        self.send_response(200 if found else 404)
        if re.match(r"text|.*(javascript|svg|json)", kind):
            body = gzip.compress(body, 6)
            self.send_header("Content-Encoding", "gzip")
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *arguments):
        pass


@pytest.fixture(scope="module")
def server():
    built_book()
    running = ThreadingHTTPServer(("127.0.0.1", 0), Compressed)
    Thread(target=running.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{running.server_port}"
    running.shutdown()
    running.server_close()


def chapters():
    return sorted(path.relative_to(HTML).as_posix() for path in (built_book() / "book").glob("*.html"))


def loaded(browser, address, slow=False, scroll=False):
    """What a first visit on a phone loads and sees, with the bytes that came over the line."""
    context = browser.new_context(**PHONE)
    page = context.new_page()
    line = context.new_cdp_session(page)
    line.send("Network.enable")
    sizes = []
    line.on("Network.loadingFinished", lambda event: sizes.append(event["encodedDataLength"]))
    if slow:
        line.send("Network.emulateNetworkConditions", NETWORK)
        line.send("Emulation.setCPUThrottlingRate", {"rate": SLOWER})
    page.add_init_script(WATCH)
    page.goto(address, wait_until="load", timeout=120_000)
    page.wait_for_function("seen.formulas", timeout=120_000)
    if scroll:
        page.evaluate(SCROLL_THROUGH, PHONE["viewport"]["height"])
    found = page.evaluate(SEEN) | {"bytes": sum(sizes)}
    context.close()
    return found


@pytest.fixture(scope="module")
def visits(browser, server):
    """Every page in the folder of chapters, scrolled to its end."""
    found = {name: loaded(browser, f"{server}/{name}", scroll=True) for name in chapters()}
    print()
    for name, seen in sorted(found.items(), key=lambda item: -item[1]["bytes"]):
        print(f"{name}: {seen['bytes'] / 1000:.0f} kB with everything, layout shift {seen['shift']:.3f}")
    return found


@needs_chromium
def test_a_chapter_with_everything_is_light(visits):
    assert len(visits) > 20
    assert {name: seen["bytes"] for name, seen in visits.items() if seen["bytes"] > HEAVIEST} == {}


@needs_chromium
def test_nothing_moves_while_a_page_comes_and_is_scrolled_through(visits):
    assert {name: seen["moved"][:3] for name, seen in visits.items() if seen["shift"] > SHIFT} == {}


@needs_chromium
def test_one_sheet_holds_up_the_first_paint_and_nothing_is_loaded_that_is_not_used(visits):
    for name, seen in visits.items():
        ((url, size),) = [(url, size) for url, status, size in seen["resources"] if status == "blocking"]
        assert urlsplit(url).path.endswith(f"/{styles.NAME}") and size < HOLDS_UP, name
        assert [url for url, _, _ in seen["resources"] if NOT_LOADED.search(url)] == [], name
        assert [url for url, _, _ in seen["resources"] if url.endswith(".woff2")] == [], name
        assert seen["face"] == [True, True], name


@needs_chromium
def test_of_the_heaviest_chapters_little_is_laid_out_before_a_phone_shows_them(browser, server, visits):
    notebooks = [name for name in visits if (ROOT / name).with_suffix(".ipynb").exists()]
    heaviest = sorted(notebooks, key=lambda name: len((HTML / name).read_bytes()))[-3:]
    for name in heaviest:
        seen = loaded(browser, f"{server}/{name}", slow=True)
        assert seen["laidOut"] < LAID_OUT, name
        print(f"{name}: first paint {seen['paint'] / 1000:.1f} s, every formula there {seen['formulas'] / 1000:.1f} s")


@needs_chromium
def test_without_scripts_formulas_pictures_and_icons_are_there(browser, server):
    context = browser.new_context(java_script_enabled=False, **PHONE)
    page = context.new_page()
    page.goto(f"{server}/book/step_size.html")
    formulas = page.locator("article mjx-container > svg")
    assert formulas.count() > 100
    for k in range(0, formulas.count(), 20):
        box = formulas.nth(k).bounding_box()
        assert box and box["width"] > 3 and box["height"] > 3
    glyph = page.locator("article mjx-container use").first.bounding_box()
    assert glyph and glyph["width"] > 3
    context.close()


def test_every_formula_of_the_book_is_typeset_and_its_glyphs_are_there():
    total = 0
    for name in chapters():
        text = (HTML / name).read_text(encoding="utf-8")
        assert maths.formulas(text) == [], name
        page = BeautifulSoup(text, "html.parser")
        places = page.select(".math")
        total += len(places)
        assert all(len(place.find_all("mjx-container")) == 1 for place in places), name
        assert not any(re.search(r"\\[()\[\]a-z]", "".join(place.find_all(string=True))) for place in places), name
        known = {path["id"] for path in page.select(".lr-glyphs path")}
        assert {use["href"][1:] for use in page.find_all("use")} == known, name
    assert total > 2000


def test_equation_numbers_stay_with_their_equations():
    page = BeautifulSoup((built_book() / "book" / "adamw.html").read_text(encoding="utf-8"), "html.parser")
    equation = page.find(id="equation-eq-adamw-step")
    assert re.fullmatch(r"\(\d+\.1\)#", equation.select_one(".eqno").get_text())
    assert equation.select_one('mjx-container[display="true"] > svg') and equation.find("math")


def test_pictures_have_sizes_and_all_but_the_first_wait():
    for name in chapters():
        page = BeautifulSoup((HTML / name).read_text(encoding="utf-8"), "html.parser")
        first, *others = page.select("article img") or [None]
        assert first is None or "loading" not in first.attrs, name
        assert all(picture["loading"] == "lazy" for picture in others), name
        for picture in filter(None, [first, *others]):
            assert picture.get("width") and picture.get("height") or "width" in picture.get("style", ""), picture


def test_icons_are_drawings():
    for path in [*(built_book() / "book").glob("*.html"), HTML / "search.html"]:
        text = path.read_text(encoding="utf-8")
        assert not page_weight.ICON.search(text) and text.count('class="lr-icon') >= 5, path.name


HEAVY = """<html><head><script src="../_static/documentation_options.js?v=1"></script><script src="a.js"></script>
<script defer src="../_static/scripts/fontawesome.js?digest=1"></script><script>inline()</script>
    <script src="../searchindex.js"></script></head><body><article class="bd-article"><i class="fas fa-expand"></i>
<span class="math notranslate nohighlight">\\(a &lt; b\\)</span><div class="math notranslate nohighlight" id="e">
<span class="eqno">(1)</span>\\[\\begin{split} a \\\\[2pt] b \\end{split}\\]</div>
<span class="n">name</span><span class="k">def</span><img src="front/social.jpg"/></article></body></html>"""


def test_a_heavy_page_becomes_light():
    done = maths.typeset(maths.formulas(HEAVY))
    page = page_weight.light(maths.replaced(HEAVY, done), ROOT / "book" / "_static", "const OPTIONS = {}")
    head, article = page.split("</head>")
    assert re.findall(r"<script[^>]*>", head) == ["<script>", '<script defer src="a.js">', "<script>"]
    assert "const OPTIONS = {}" in head and "searchindex" not in page and "fontawesome" not in page
    assert (
        article.count("<mjx-container") == 2
        and '<span class="eqno">(1)</span><mjx-container display="true" tabindex="0">' in article
    )
    assert 'name<span class="k">def</span>' in article and '<svg class="lr-icon" viewBox' in article
    assert re.search(r'<img width="\d+" height="\d+" src="front/social.jpg"/>', article)
    assert page_weight.light(maths.replaced(page, done), ROOT / "book" / "_static", "") == page


@pytest.mark.parametrize("tex", [r"\frac{x", r"\nosuchcommand x", r"x \tag{3}"])
def test_a_formula_that_cannot_be_shown_is_an_error_that_shows_it(tex):
    with pytest.raises(ValueError, match=re.escape(tex)):
        maths.typeset([maths.Formula(tex, True)])
