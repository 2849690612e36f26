"""What the book found, on its front page: how the claims fared, and single figures, all of them from the ledger."""

import re
from collections import Counter
from functools import partial

from lrlib.claims import CLAIMS, Ledger

ASKED = re.compile(r"<!-- ledger: ([^>]*?) -->")
ESTIMATE = re.compile(r" \[[^]]*\]$")  # what follows the estimate: its interval
FARED = {
    "holds": "hold",
    "holds with a condition": "hold under a condition that they do not name",
    "corrected": "are wrong as they stand and are corrected here",
    "does not hold": "did not reproduce",
    "open at scale": "wait for a measurement at scale",
}


def counts(ledger: Ledger) -> str:
    """How the claims of the five documents fared, and how many of the later practice are settled, in two sentences."""
    five = [claim.id for claim in CLAIMS.values() if claim.source and not claim.question]
    verdicts = Counter(ledger.verdict(claim) for claim in five)
    *words, last = [f"{verdicts[verdict]} {phrase}" for verdict, phrase in FARED.items() if verdicts[verdict]]
    practice = [claim.id for claim in CLAIMS.values() if not claim.source]
    settled = [claim for claim in practice if ledger.verdict(claim) not in ("open", "open at scale")]
    return (
        f"Of the {len(five)} claims that five widely read documents make of the learning rate, {', '.join(words)} and "
        f"{last}. Of {len(practice)} that practice has added since, {len(settled)} are settled so far."
    )


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
