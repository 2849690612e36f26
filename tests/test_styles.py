"""The one style sheet of the pages: what it keeps, and where its addresses lead."""

import pytest
import styles

SHEET = """/* p { q: r } */ @charset "UTF-8"; .kept, .gone > a { color: red } .gone:hover { color: blue }
.kept::before { content: "} .x {"; background: url("data:image/svg+xml,%3csvg viewBox='0 (0'%3e{}") }
@media print { .gone { a: b } .kept:not(.gone) { c: d } }
@media screen { .gone { e: f } }
@font-face { font-family: "Face"; src: url(../fonts/face.woff2?v=1) format("woff2") }"""


def test_only_selectors_whose_classes_are_known_stay():
    css = styles.needed(SHEET, {"kept"})
    assert ".kept{color: red}" in css and "@media print{.kept:not(.gone){c: d}}" in css
    assert '.kept::before{content: "} .x {";' in css and "(0'%3e{}\")" in css
    assert ".gone{" not in css and ".gone:hover" not in css and "@media screen" not in css and "@charset" not in css


@pytest.mark.parametrize("known", [{"kept"}, {"kept", "gone"}])
def test_what_was_cut_once_is_cut_no_further(known):
    css = styles.needed(SHEET, known)
    assert styles.needed(css, known) == css


PAGE = """<html data-content_root="{}"><link href="{}_static/a/first.css?v=1" rel="stylesheet" />
<link rel="stylesheet" type="text/css" href="{}_static/second.css" /><p class="kept">"""


def test_pages_get_one_link_and_the_sheet_has_all_in_order(tmp_path):
    static = tmp_path / "_static"
    (static / "a").mkdir(parents=True)
    (static / "a" / "first.css").write_text('@import "../zeroth.css"; ' + SHEET)
    (static / "fonts").mkdir()
    (static / "fonts" / "face.woff2").write_bytes(b"f" * (styles.SMALL + 1))
    (static / "fonts" / "small.woff2").write_bytes(b"f")
    (static / "zeroth.css").write_text(".kept { first: 1 }")
    (static / "second.css").write_text(".kept { last: 1 } .by-script { src: url(fonts/small.woff2) }")
    pages = {
        tmp_path / "x.html": PAGE.format("./", "", ""),
        tmp_path / "b" / "y.html": PAGE.format("../", *["../"] * 2),
    }
    done = styles.united(pages, ["classList.add('by-script')"], tmp_path)
    css = (static / styles.NAME).read_text()
    assert css.startswith('@charset "UTF-8";.kept{first: 1}') and css.endswith(
        ".kept{last: 1}.by-script{src: url(data:font/woff2;base64,Zg==)}"
    )
    assert "url(fonts/face.woff2)" in css and "data:image" in css
    assert [page.count("<link") for page in done.values()] == [1, 1]
    assert [page.count(styles.DECODE) for page in done.values()] == [1, 1]
    assert f'href="./_static/{styles.NAME}?v=' in done[tmp_path / "x.html"]
    assert f'href="../_static/{styles.NAME}?v=' in done[tmp_path / "b" / "y.html"]
    assert styles.united(done, [], tmp_path) == done
