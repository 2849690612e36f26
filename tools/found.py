"""What the book found, on its front page: how the claims fared, and single figures, all of them from the ledger."""

import re
from collections import Counter
from functools import partial

from lrlib.claims import CLAIMS, Ledger

ASKED = re.compile(r"<!-- ledger: ([^>]*?) -->")
ESTIMATE = re.compile(r" \[[^]]*\]$")  # what follows the estimate: its interval
FARED = {
    "holds": "hold",
    "holds with a condition": "hold in part or under a condition",
    "corrected": "had to be corrected",
    "does not hold": "did not reproduce",
    "open at scale": "wait for a measurement at scale",
    "open": "are open",
}


def counts(ledger: Ledger) -> str:
    """How the claims of the five documents fared, and those of the later practice, in two sentences."""
    claims = [claim for claim in CLAIMS.values() if not claim.question]
    total, five = _fared([ledger.verdict(claim.id) for claim in claims if claim.source])
    added, practice = _fared([ledger.verdict(claim.id) for claim in claims if not claim.source])
    return f"Of {total} claims of five documents from the web, {five}. Of {added} of the practice since, {practice}."


def _fared(verdicts: list[str]) -> tuple[int, str]:
    counted = Counter(verdicts)
    *words, last = [f"{counted[verdict]} {phrase}" for verdict, phrase in FARED.items() if counted[verdict]]
    return len(verdicts), f"{', '.join(words)} and {last}"


def verdict(ledger: Ledger, claim: str) -> str:
    """A link to the verdict on a claim, as HTML.

    >>> from pathlib import Path
    >>> verdict(Ledger(Path(__file__).parents[1].glob("book/range_test.ipynb")), "J3")
    '<a href="range_test.html#claim-J3">J3: corrected</a>'
    """
    place = ledger.settled[claim][0]
    return f'<a href="{place.chapter}.html#claim-{claim}">{claim}: {place.verdict.verdict}</a>'


def figure(ledger: Ledger, claim: str, what: str, task: str = "") -> str:
    """The estimate that the evidence for a claim gives for something, on a task whose name begins so.

    Raises:
        ValueError: the evidence has no such line, or several.

    >>> from pathlib import Path
    >>> figure(Ledger(Path(__file__).parents[1].glob("book/range_test.ipynb")), "J3", "no such thing")
    Traceback (most recent call last):
    ValueError: J3 | no such thing: not one line of the evidence
    """
    evidence = [line for place in ledger.settled[claim] for line in place.verdict.evidence]
    values = [value for about, value, on, *_ in evidence if about == what and on.startswith(task)]
    if len(values) != 1:
        raise ValueError(f"{' | '.join(filter(None, (claim, what, task)))}: not one line of the evidence")
    return ESTIMATE.sub("", values[0]).replace("+", "").replace("-", "−")


def _said(ledger: Ledger, asked: re.Match) -> str:
    claim, *rest = asked[1].split(" | ")
    if claim == "counts":
        return counts(ledger)
    claim = claim.partition(" ")[0]  # behind it stands the verdict on which the sentence stands; a test compares
    return figure(ledger, claim, *rest) if rest else verdict(ledger, claim)


def generate(page: str, ledger: Ledger) -> str:
    """The source of a page with what it asks of the ledger in its place."""
    return ASKED.sub(partial(_said, ledger), page)
