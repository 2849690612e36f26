"""What a chapter found, a line for each of its verdicts, from the verdicts stored in its notebook."""

import html
import re

from lrlib.claims import CLAIMS, Ledger, Settled

SENTENCE = re.compile(r"(?<=[.!?])\s+(?=[A-Z])")
LONGEST = 180  # characters of an answer


def shortened(text: str) -> str:
    """The first sentences of an answer, one at least, up to 180 characters.

    >>> shortened("It falls, by 0.3 or so. Then it rises. " + "And so it goes on. " * 20).count("And")
    7
    """
    said, *more = SENTENCE.split(text)
    for sentence in more:
        if len(f"{said} {sentence}") > LONGEST:
            break
        said += f" {sentence}"
    return said


def line(place: Settled) -> str:
    """A verdict as an item of a list: the verdict, the claim with a link to its card, and what was found instead.

    Where the claim holds, the claim is what was found.
    """
    claim, verdict = CLAIMS[place.verdict.claim], place.verdict.verdict
    answer = "" if verdict == "holds" else f" {html.escape(shortened(place.verdict.answer))}"
    return (
        f'<li class="{verdict.replace(" ", "-")}"><strong class="lr-verdict">{verdict.capitalize()}</strong> '
        f'<a href="#claim-{claim.id}">{html.escape(claim.statement)}</a>{answer}</li>'
    )


def found(ledger: Ledger) -> str:
    """A box with the verdicts of a ledger in the order of its claims, as HTML; nothing where there are none.

    It is closed, so that its answers do not stand above the chapter's predictions.
    """
    lines = [line(place) for places in ledger.settled.values() for place in places]
    if not lines:
        return ""
    return (
        '\n<details class="lr-found"><summary>What this chapter found <span>(its predictions answered)</span></summary>'
        f"<ul>{''.join(lines)}</ul></details>"
    )
