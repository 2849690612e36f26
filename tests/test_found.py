"""What the front page says was found: every figure from the ledger, every sentence on a verdict that stands."""

import re
from collections import Counter
from pathlib import Path

import found
import pytest

from lrlib.claims import CLAIMS, Ledger

BOOK = Path(found.__file__).parents[1] / "book"
SOURCE = (BOOK / "index.md").read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def ledger():
    return Ledger(BOOK.glob("*.ipynb"))


def test_every_claim_is_counted_once(ledger):
    for text, of_practice in zip(found.counts(ledger).split(" Of "), (False, True), strict=True):
        total, *counts = map(int, re.findall(r"\b\d+\b", text))
        claims = [c.id for c in CLAIMS.values() if not c.question and (not c.source) == of_practice]
        verdicts = Counter(map(ledger.verdict, claims))
        assert total == sum(counts) == len(claims) and counts == [verdicts[v] for v in found.FARED if verdicts[v]]
        assert 0 not in counts


def test_the_sentences_stand_on_verdicts_that_have_not_changed(ledger):
    asked = [text.partition(" ") for text in found.ASKED.findall(SOURCE) if "|" not in text and text != "counts"]
    assert len(asked) >= 5
    for claim, _, verdict in asked:
        assert ledger.verdict(claim) == verdict, f"read what book/index.md says of {claim} again"
    figures = {text.split(" | ")[0] for text in found.ASKED.findall(SOURCE) if "|" in text}
    assert len(figures) >= 4 and figures <= {claim for claim, _, _ in asked}


def test_a_figure_is_the_estimate_of_its_evidence(ledger):
    for text in found.ASKED.findall(SOURCE):
        if "|" in text:
            claim, what, *task = text.split(" | ")
            shown = found.figure(ledger, claim, what, *task).replace("−", "-")
            (value,) = [
                value
                for about, value, on, *_ in ledger.settled[claim][0].verdict.evidence
                if about == what and on.startswith("".join(task))
            ]
            assert re.search(r"\d", shown) and value.replace("+", "").startswith(shown) and "[" not in shown
    page = found.generate(SOURCE, ledger)
    assert "<!-- ledger" not in page and page.count("claim-") >= 5


def test_a_line_of_the_evidence_that_stands_twice_is_refused(ledger):
    with pytest.raises(ValueError, match=re.escape("M11 | log-log slope, SGD, small batches: not one line")):
        found.figure(ledger, "M11", "log-log slope, SGD, small batches")
