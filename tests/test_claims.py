"""Claims: every id of the sources, and verdicts that can be read back from a notebook."""

import json
from pathlib import Path

import pytest

from lrlib import claims


def test_every_claim_of_the_five_sources_is_there():
    counts = {letter: sum(key.startswith(letter) for key in claims.CLAIMS) for letter in claims.SOURCES}
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
    verdict = claims.settle("J1", "holds", "Divergence begins at 2/h < 0.2.")
    page = verdict._repr_mimebundle_()["text/html"]
    assert "&lt; 0.2" in page and 'class="claim holds"' in page
    ledger = claims.Ledger([stored(tmp_path / "chapter.ipynb", verdict)])
    assert ledger.settled["J1"] == [claims.Settled("chapter", "cell-0", verdict)]


@pytest.mark.parametrize(
    "arguments, named",
    [(("Z9", "holds", "x"), "claim='Z9'"), (("J1", "open", "x"), "verdict='open'"), (("J1", "holds", " "), "evidence")],
)
def test_a_bad_verdict_is_refused(arguments, named):
    with pytest.raises(ValueError, match=named):
        claims.settle(*arguments)


def test_the_ledger_finds_open_and_disputed_claims_and_links_the_rest(tmp_path):
    one = stored(tmp_path / "one.ipynb", claims.settle("J1", "holds", "A < B."), claims.settle("J2", "corrected", "C."))
    two = stored(tmp_path / "two.ipynb", claims.settle("J2", "does not hold", "D."))
    ledger = claims.Ledger([one, two])
    assert "J1" not in ledger.open and "J3" in ledger.open and len(ledger.open) == len(claims.CLAIMS) - 2
    assert ledger.disputed == ["J2"]
    assert [place.chapter for place in ledger.settled["J2"]] == ["one", "two"]
    table = ledger.table(["J1", "J3"])
    assert repr(table) == "J1   holds\nJ3   open"
    assert 'href="one.html#claim-J1"' in table._repr_html_() and "A &lt; B." in table._repr_html_()


BOOK = claims.Ledger((Path(__file__).resolve().parents[1] / "book").glob("*.ipynb"))


@pytest.mark.parametrize("claim", claims.CLAIMS)
def test_every_claim_has_a_verdict_and_no_two_disagree(claim):
    assert claim not in BOOK.open, f"{claim} has no verdict in any chapter"
    assert claim not in BOOK.disputed, f"{claim}: {BOOK.settled[claim]}"
