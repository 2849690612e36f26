"""What a chapter found, a line for each of its verdicts, from the verdicts stored in its notebook."""

import html

from lrlib.claims import CLAIMS, Ledger, Settled


def line(place: Settled) -> str:
    """A verdict as an item of a list: the verdict, the claim with a link to its card, and the whole answer.

    The answer has the numbers and the conditions, where the claim holds too.
    """
    claim, verdict = CLAIMS[place.verdict.claim], place.verdict.verdict
    return (
        f'<li class="{verdict.replace(" ", "-")}"><strong class="lr-verdict">{verdict.capitalize()}</strong> '
        f'<a href="#claim-{claim.id}">{html.escape(claim.statement)}</a> {html.escape(place.verdict.answer)}</li>'
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
