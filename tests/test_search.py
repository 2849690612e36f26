"""The search page, opened from disk in a headless Chromium, against what a reader means and expects first."""

import pdf
import pytest
import yaml
from browser import ROOT, built_book, needs_chromium

pytestmark = needs_chromium

TOC = yaml.safe_load((ROOT / "_toc.yml").read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def search(browser):
    """From a query to the list items of the search page."""
    page = browser.new_page()

    def results(query):
        page.goto(f"{(built_book() / 'search.html').as_uri()}?q={query.replace(' ', '+')}")
        page.locator("#search-results [role=status]").wait_for(state="attached")
        return page.locator("ul.search > li").evaluate_all(
            """(items) => items.map((item) => ({
              title: item.querySelector("a").textContent, url: item.querySelector("a").getAttribute("href"),
              text: item.querySelector(".context")?.textContent ?? "",
              marked: [...item.querySelectorAll("mark")].map((mark) => mark.textContent),
              links: [...item.querySelectorAll("a")].map((link) => link.getAttribute("href")),
            }))"""
        )

    return results


def urls(results):
    return [result["url"] for result in results]


@pytest.mark.parametrize(
    ("query", "first"),
    [
        ("restart", "book/warm_restarts.html"),
        ("learning rate finder", "book/range_test.html"),
        ("lr finder", "book/range_test.html"),
        ("range test", "book/range_test.html"),
        ("weight decay", "book/adamw.html"),
        ("AdamW fine-tuning", "book/choose.html"),
        ("which learning rate for fine tuning", "book/choose.html"),
        ("finetuning adamw learning rate", "book/choose.html"),
        ("lr for lora", "book/choose.html"),
        ("warmup", "book/choose.html"),
        ("learning rate vs batch size adam", "book/choose.html"),
        ("llm pretraining learning rate", "book/choose.html"),
        ("loss not decreasing", "book/diagnosis.html"),
        ("onecyclelr", "book/schedulers.html"),
        ("cyclical learning rates", "book/cyclical.html"),
    ],
)
def test_the_page_that_a_reader_means_comes_first(search, query, first):
    assert urls(search(query))[0] == first


def test_the_page_to_choose_by_is_second_to_titles_alone(search):
    for query in ("range test", "weight decay"):
        assert "book/choose.html" in urls(search(query))[:2]


@pytest.mark.parametrize(
    ("query", "chapter"),
    [
        ("finetuning adamw learning rate", "fine_tuning"),
        ("batch size learning rate scaling", "batch_size"),
        ("muon learning rate", "muon"),
        ("discriminative learning rates", "fine_tuning"),
        ("mup transfer", "width"),
        ("linear scaling rule", "batch_size"),
        ("continue training from a checkpoint", "going_on"),
        ("rewarming", "going_on"),
        ("bf16 weights", "rounding"),
        ("stochastic rounding", "rounding"),
        ("implicit regularization", "regulariser"),
        ("label noise", "regulariser"),
    ],
)
def test_the_chapter_about_it_is_among_the_first_three(search, query, chapter):
    assert f"book/{chapter}.html" in urls(search(query))[:3]


def test_what_only_the_text_has_comes_in_the_order_of_the_book_chapters_first(search):
    known = [f"{name}.html" for name in pdf.in_order(TOC)]
    found = [url for url in urls(search("gradient")) if url != "book/choose.html"]
    places = [known.index(url) for url in found]
    falls = sum(later < earlier for earlier, later in zip(places, places[1:], strict=False))
    assert len(found) > 10 and falls <= 3  # titles, then headings, then text, then reference: each in order
    reference = [
        url.startswith(("book/index", "book/ledger", "book/glossary", "book/bibliography", "book/api")) for url in found
    ]
    assert reference == sorted(reference) and any(reference)


def test_where_no_chapter_has_every_word_those_with_most_are_found_and_it_is_said(search, browser):
    assert "book/choose.html" in urls(search("warmup xyzzy"))
    page = browser.new_page()
    page.goto(f"{(built_book() / 'search.html').as_uri()}?q=warmup+xyzzy")
    assert "No page has all of “warmup xyzzy”" in page.locator("#search-results [role=status]").text_content()
    page.close()


@pytest.mark.parametrize(
    "same",
    [
        ("warmup", "warm-up", "warm up", "Warmup"),
        ("learning rate finder", "lr finder", "range test"),
        ("weight decay", "wd"),
        ("fine-tuning", "finetuning", "fine tuning"),
        ("cycle", "cycles"),
        ("batch size and lr", "batchsize vs learning rate"),
        ("swa", "weight averaging"),
        ("normalization", "normalisation"),
        ("optimiser", "optimizer"),
        ("beta", "β"),
        ("lambda", "λ"),
    ],
)
def test_what_means_the_same_finds_the_same(search, same):
    first, *others = (urls(search(query)) for query in same)
    assert len(first) >= 2 and all(other == first for other in others)


def test_a_name_of_the_package_leads_to_its_entry(search):
    (first, *_) = search("range_test")
    assert any(link.endswith("#lrlib.finder.range_test") for link in first["links"])


@pytest.mark.parametrize("query", ["finetuning adamw learning rate", "AdamW fine-tuning"])
def test_a_practitioner_reads_the_rate_in_the_snippet(search, query):
    assert "AdamW: start at 2e-5" in search(query)[0]["text"]


def test_snippets_are_prose_in_which_what_was_asked_is_marked(search):
    results = search("momentum")
    assert len(results) > 10
    for result in results:
        assert result["marked"] == [] or all("moment" in mark.lower() for mark in result["marked"])
        assert not any(noise in result["text"] for noise in ("import ", "lrlib.train(", "Show code", "Contents", "\\("))
    assert sum(bool(result["marked"]) for result in results) > len(results) / 2


def test_nothing_found_says_so(search):
    assert search("xyzzy") == []


def test_a_long_word_does_not_widen_the_page(browser):
    page = browser.new_page(viewport={"width": 390, "height": 844})
    page.goto(f"{(built_book() / 'search.html').as_uri()}?q={'x' * 90}")
    assert page.evaluate("document.documentElement.scrollWidth") == 390
    page.close()
