"""Claims: every id of the sources, and verdicts that can be read back from a notebook."""

import json
import re
from pathlib import Path

import pytest

import lrlib
from lrlib import claims


def test_every_claim_of_the_sources_is_there():
    counts = {letter: sum(key.startswith(letter) for key in claims.CLAIMS) for letter in "AJHLQ"}
    assert counts == {"A": 10, "J": 13, "H": 8, "L": 11, "Q": 15}
    assert len({claim.statement for claim in claims.CLAIMS.values()}) == len(claims.CLAIMS)


def stored(path, *verdicts):
    cells = [
        {"id": f"cell-{k}", "cell_type": "code", "outputs": [{"data": verdict._repr_mimebundle_()}]}
        for k, verdict in enumerate(verdicts)
    ]
    path.write_text(json.dumps({"cells": [{"id": "a", "cell_type": "markdown"}, *cells]}))
    return path


def test_a_verdict_is_read_back_from_the_notebook_it_was_stored_in(tmp_path):
    gain = lrlib.paired([3.0, 4.0, 5.5], [1.0, 2.0, 3.0])
    lines = [
        claims.Evidence("gain <, points", gain, "digits", "+.1f"),
        claims.Evidence("edge", "2/h", "quadratic", scale="exact"),
    ]
    verdict = claims.settle("J1", "holds with a condition", "Divergence begins at 2/h < 0.2.", lines)
    assert verdict.evidence[0] == ("gain <, points", gain.short("+.1f"), "digits", "3", "tour")
    page = verdict._repr_mimebundle_()["text/html"]
    assert "&lt; 0.2" in page and "gain &lt;" in page and 'class="claim holds-with-a-condition"' in page
    assert repr(verdict).endswith("edge: 2/h (quadratic, exact)")
    ledger = claims.Ledger([stored(tmp_path / "chapter.ipynb", verdict)])
    assert ledger.settled["J1"] == [claims.Settled("chapter", "cell-0", verdict)]


@pytest.mark.parametrize(
    "arguments, named",
    [
        (("Z9", "holds", "x"), "claim='Z9'"),
        (("J1", "open", "x"), "verdict='open'"),
        (("J1", "holds", " "), "answer=' '"),
        (("J1", "answered", "x"), "a claim is not; J1"),
        (("A10", "holds", "x"), "a question is 'answered'"),
        (("A5", "open at scale", "x"), "record=None"),
    ],
)
def test_a_bad_verdict_is_refused(arguments, named):
    with pytest.raises(ValueError, match=named):
        claims.settle(*arguments)


def test_a_record_is_named_only_where_a_claim_is_open():
    with pytest.raises(ValueError, match="record='race'"):
        claims.settle("A5", "holds", "x", record="race")
    assert "<code>race</code>" in claims.settle("A5", "open at scale", "x", record="race").details


@pytest.mark.parametrize("arguments, named", [(("", "1", "digits"), "quantity"), (("gain", "1", " "), "task")])
def test_evidence_without_quantity_or_task_is_refused(arguments, named):
    with pytest.raises(ValueError, match=named):
        claims.Evidence(*arguments)


def test_evidence_of_an_unknown_scale_is_refused():
    with pytest.raises(ValueError, match="scale='large'"):
        claims.Evidence("gain", "1", "digits", scale="large")


def test_the_ledger_finds_open_and_disputed_claims_and_links_the_rest(tmp_path):
    one = stored(tmp_path / "one.ipynb", claims.settle("J1", "holds", "A < B."), claims.settle("J2", "corrected", "C."))
    two = stored(tmp_path / "two.ipynb", claims.settle("J2", "does not hold", "D."))
    ledger = claims.Ledger([one, two])
    assert "J1" not in ledger.open and "J3" in ledger.open and len(ledger.open) == len(claims.CLAIMS) - 2
    assert ledger.disputed == ["J2"]
    assert [place.chapter for place in ledger.settled["J2"]] == ["one", "two"]
    assert repr(ledger).splitlines()[10:13] == ["J1   holds", "J2   corrected", "J3   open"]
    page = ledger._repr_html_()
    assert 'href="one.html#claim-J1"' in page and "A &lt; B." in page


def test_the_ledger_names_task_scale_and_n_and_every_row_can_be_filtered(tmp_path):
    lines = [
        claims.Evidence("gain", lrlib.summary([1.0, 2.0]), "digits"),
        claims.Evidence("edge", "2", "digits", scale="exact"),
    ]
    page = claims.Ledger([stored(tmp_path / "one.ipynb", claims.settle("J1", "holds", "x", lines))])._repr_html_()
    assert '<td class="holds">holds</td><td>digits</td><td>tour; exact</td><td>2</td>' in page
    css = (Path(__file__).resolve().parents[1] / "book/_static/book.css").read_text(encoding="utf-8")
    filters = re.findall(r'type="radio" name="ledger-(\w+)" value="([\w-]+)"', page)
    assert len(filters) == len(claims.VERDICTS) + 1 + len(claims.SOURCES)
    for title, value in filters:
        assert f'.ledger-page:has([name="ledger-{title}"][value="{value}"]:checked) tbody tr:not(.{value})' in css
    assert set(re.findall(r'<tr class="([\w-]+) ', page)) == {"holds", "open"}


BOOK = claims.Ledger((Path(__file__).resolve().parents[1] / "book").glob("*.ipynb"))


@pytest.mark.parametrize("claim", claims.CLAIMS)
def test_every_claim_of_the_five_sources_has_a_verdict_and_no_two_disagree(claim):
    assert claim not in BOOK.open or claim.startswith("M"), f"{claim} has no verdict in any chapter"
    assert claim not in BOOK.disputed, f"{claim}: {BOOK.settled[claim]}"


@pytest.mark.parametrize("claim", [["J1"], None, "J99"])
def test_what_names_no_claim_is_refused(claim):
    with pytest.raises(ValueError, match="claim="):
        claims.settle(claim, "holds", "x")


@pytest.mark.parametrize("wrong, error", [({"value": 0.5}, TypeError), ({"spec": "what"}, ValueError)])
def test_evidence_that_cannot_be_written_is_refused(wrong, error):
    with pytest.raises(error):
        lrlib.Evidence(**{"quantity": "edge", "value": lrlib.summary([1.0, 2.0]), "task": "quadratic"} | wrong)


@pytest.mark.parametrize("record", ["", "  "])
def test_an_open_claim_without_the_name_of_its_record_is_refused(record):
    with pytest.raises(ValueError, match="must name the record"):
        lrlib.settle("J1", "open at scale", "Not yet.", record=record)


def test_verdicts_that_agree_in_other_words_are_not_disputed_and_stand_in_the_order_of_chapters(tmp_path):
    paths = [stored(tmp_path / f"{name}.ipynb", claims.settle("J1", "holds", name)) for name in ("b", "a")]
    ledger = claims.Ledger(paths)
    assert ledger.disputed == [] and [place.chapter for place in ledger.settled["J1"]] == ["a", "b"]
