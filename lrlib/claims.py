"""The claims of the sources, and verdicts that chapters settle them with.

A cell that ends in ``claims.settle(...)`` leaves its verdict in the notebook twice: as a card for the reader, and as
data, from which the ledger is read.
"""

import html
import json
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path

from lrlib import _check

__all__ = ["CLAIMS", "SOURCES", "VERDICTS", "Claim", "Ledger", "Settled", "Verdict", "settle"]

_MIME = "application/vnd.lrlib.verdict+json"
VERDICTS = ("holds", "corrected", "does not hold")

SOURCES = {
    "A": ("jang2018aesthetic", "Aesthetically pleasing learning rates"),
    "J": ("jordan2018setting", "Setting the learning rate of your neural network"),
    "H": ("hillclimbing", "A hill-climbing learning rate"),
    "L": ("li2019exponential_blog", "Exponential learning rates"),
    "Q": ("stackexchange_lr", "Choosing a learning rate"),
}

_STATEMENTS = {
    "A1": "The pixels of a picture, scanned row by row, make a learning-rate schedule.",
    "A2": "A triangle wave between 1e-5 and 1e-2 with a half-cycle of 1,000 steps is a cyclic schedule.",
    "A3": "A fixed rate of 3e-4 with momentum SGD is bad; almost any schedule beats it.",
    "A4": "A rate of 3e-4 is far better with Adam than with momentum SGD.",
    "A5": "The usual step decay beats every picture on CIFAR-10.",
    "A6": "Some pictures beat the cyclic schedule and Adam at 3e-4.",
    "A7": "On MNIST all schedules do about equally well.",
    "A8": "A picture's pixel sequence is correlated, wanders like Brownian motion, and trends down.",
    "A9": "The right learning rate is commensurate with the smoothness of the gradient.",
    "A10": "Perhaps one picture's schedule does well across many tasks.",
    "J1": "Too low a rate is slow; too high a rate diverges.",
    "J2": "The landscape depends on the architecture: skip connections make it smoother.",
    "J3": "In a range test the loss curve has three phases, and the best rate is where it falls most steeply.",
    "J4": "Step decay: start high, cut every few epochs, and settle into deeper, narrower parts.",
    "J5": "The triangular cycle and its variants, as printed in the source.",
    "J6": "The triangular formula can be built step by step from the progress in half-cycles.",
    "J7": "Raising the rate may hurt in the short term and help in the long term.",
    "J8": "Sharp minima generalise worse than flat ones.",
    "J9": "A larger rate crosses the plateau around a saddle point faster.",
    "J10": "Cosine annealing with warm restarts, cycles that lengthen, and bounds that decay.",
    "J11": "Snapshots at the end of each cycle give an ensemble for the price of one training run.",
    "J12": "Minima are connected by simple curves of low loss, which fast geometric ensembling uses.",
    "J13": "All schedules can be callbacks of the training framework.",
    "H1": "At each step raise the rate by 1% if that lowers the loss, else lower it by 1%.",
    "H2": "On MNIST the self-tuned rate reaches 87.5% where the best plain rate reaches 63.5%.",
    "H3": "The self-tuned rate is more robust to its initial value than gradient descent is to its rate.",
    "H4": "The rate climbs to a peak, then tends to zero, within one order of magnitude in the best case.",
    "H5": "Tuning every ten steps loses much of the gain; steps of 10% return most of it.",
    "H6": "Self-tuning costs twice the computation if a loss costs as much as a gradient.",
    "H7": "Plain gradient descent already fails at a rate of 0.01 in the source's set-up.",
    "H8": "Momentum can be tuned in the same way.",
    "L1": "For a scale-invariant loss the gradient is orthogonal to the weights and scales inversely with them.",
    "L2": "Without weight decay the norm of scale-invariant weights never shrinks under SGD.",
    "L3": "Gradient descent with any fixed rate reaches an ε-stationary point in O(1/ε²) steps.",
    "L4": "Weight decay with a constant rate equals an exponentially growing rate without weight decay.",
    "L5": "Without momentum the equivalent rate is (1 − λη)^(−2t−1) η.",
    "L6": "For PreResNet32 on CIFAR-10 the equivalent rate is 0.1 · 1.481^t at iteration t.",
    "L7": "Step decay becomes a tapered exponential rate with the same sequence of networks.",
    "L8": "Fixing the output layer at random does not harm the final accuracy.",
    "L9": "The equivalence holds for group, layer and instance normalisation too.",
    "L10": "Normalisation with weight decay acts like raising the learning rate.",
    "L11": "float32 cannot hold the exponential growth for long.",
    "Q1": "Typical rates lie between 1e-5 and 1; start at 0.01 and tune over orders of magnitude.",
    "Q2": "Adagrad sets per-coordinate rates from the history of squared gradients.",
    "Q3": "Adadelta needs no learning rate, or in practice does on some problems.",
    "Q4": "The best rate is near the highest stable one, then decayed.",
    "Q5": "A rate α/√t, the same for all coordinates, is a sensible schedule.",
    "Q6": "The printed per-coordinate rate of FTRL.",
    "Q7": "Rates from time and from gradients can be combined as a sum or a product.",
    "Q8": "The size of an update relative to the weights should be about 1e-3.",
    "Q9": "No decrease for epochs means too low a rate; NaN means too high, a division by zero or a log of zero.",
    "Q10": "Anneal by orders of magnitude with early stopping: switch down when progress slows.",
    "Q11": "A hyperparameter search package can find the rate.",
    "Q12": "On Fashion-MNIST a range test gives a best rate of about 2e-2.",
    "Q13": "The ratio of the standard deviations of weights and gradients is a second-order rate.",
    "Q14": "For a convex smooth loss a rate up to 1/L converges at O(1/k); else a larger one may work.",
    "Q15": "L-BFGS is a way around choosing a rate.",
}


@dataclass(frozen=True)
class Claim:
    """One claim of a source: its id, the source's citation key and title, and the claim in the book's words."""

    id: str
    source: str
    title: str
    statement: str


CLAIMS: dict[str, Claim] = {key: Claim(key, *SOURCES[key[0]], statement) for key, statement in _STATEMENTS.items()}


@dataclass(frozen=True)
class Verdict:
    """How a chapter settled a claim: the verdict, and the measured evidence in a sentence."""

    claim: str
    verdict: str
    evidence: str

    def __repr__(self) -> str:
        return f"{self.claim} {self.verdict}: {self.evidence}"

    def _repr_mimebundle_(self, include: object = None, exclude: object = None) -> dict[str, object]:
        claim = CLAIMS[self.claim]
        card = (
            f'<div class="claim {self.verdict.replace(" ", "-")}" id="claim-{self.claim}">'
            f'<p class="claim-statement"><strong>{self.claim}</strong> {html.escape(claim.statement)} '
            f"<cite>{html.escape(claim.title)}</cite></p>"
            f'<p class="claim-verdict"><strong>{self.verdict.capitalize()}.</strong> {html.escape(self.evidence)}</p>'
            "</div>"
        )
        return {"text/plain": repr(self), "text/html": card, _MIME: asdict(self)}


def settle(claim: str, verdict: str, evidence: str) -> Verdict:
    """The verdict on a claim, to be the last expression of the cell that measured it.

    Args:
        claim: the id of a claim in :data:`CLAIMS`, such as "J1".
        verdict: "holds", "corrected" or "does not hold"; computed from the measurement, not typed.
        evidence: one or two plain sentences with the measured figures, n and interval.

    Raises:
        ValueError: an unknown claim or verdict, or empty evidence.

    Example:
        >>> settle("J1", "holds", "Divergence begins at 2/h_max = 0.2.")
        J1 holds: Divergence begins at 2/h_max = 0.2.
    """
    _check.choice("claim", claim, tuple(CLAIMS))
    _check.choice("verdict", verdict, VERDICTS)
    if not evidence.strip():
        raise ValueError(f"evidence={evidence!r}: must say what was measured")
    return Verdict(claim, verdict, evidence)


@dataclass(frozen=True)
class Settled:
    """A verdict and where it was reached: the chapter's name and the id of the cell."""

    chapter: str
    cell: str
    verdict: Verdict


class Ledger:
    """The verdicts of all chapters, by claim.

    Args:
        notebooks: paths of .ipynb files with stored outputs.

    Attributes:
        settled: for each claim of :data:`CLAIMS` the places that settle it; an empty list for an open claim.
    """

    def __init__(self, notebooks: Iterable[Path]):
        self.settled: dict[str, list[Settled]] = {claim: [] for claim in CLAIMS}
        for path in sorted(notebooks):
            for cell in json.loads(path.read_text(encoding="utf-8"))["cells"]:
                for output in cell.get("outputs", ()):
                    if stored := output.get("data", {}).get(_MIME):
                        self.settled[stored["claim"]].append(Settled(path.stem, cell["id"], Verdict(**stored)))

    @property
    def open(self) -> list[str]:
        """Claims without a verdict."""
        return [claim for claim, places in self.settled.items() if not places]

    @property
    def disputed(self) -> list[str]:
        """Claims with verdicts that disagree."""
        return [claim for claim, places in self.settled.items() if len({place.verdict.verdict for place in places}) > 1]

    def verdict(self, claim: str) -> str:
        """The verdict on a claim, or "open"."""
        return self.settled[claim][0].verdict.verdict if self.settled[claim] else "open"

    def table(self, claims: Iterable[str]) -> "_LedgerTable":
        """Claims, verdicts, evidence and links, to be the last expression of a cell."""
        return _LedgerTable(self, tuple(claims))


@dataclass(frozen=True, repr=False)
class _LedgerTable:
    """Some claims of a :class:`Ledger`, as a table in HTML and as lines of text."""

    ledger: Ledger
    claims: tuple[str, ...]

    def __repr__(self) -> str:
        return "\n".join(f"{claim:4} {self.ledger.verdict(claim)}" for claim in self.claims)

    def _repr_html_(self) -> str:
        names = ("Claim", "In our words; open it for the evidence", "Verdict", "Where")
        head = "".join(f'<th scope="col">{name}</th>' for name in names)
        rows = "".join(map(self._row, self.claims))
        return f'<table class="ledger"><thead><tr>{head}</tr></thead><tbody>{rows}</tbody></table>'

    def _row(self, claim: str) -> str:
        verdict, places = self.ledger.verdict(claim), self.ledger.settled[claim]
        chapters = [place.chapter for place in places]
        links = ", ".join(f'<a href="{name}.html#claim-{claim}">{name.replace("_", " ")}</a>' for name in chapters)
        evidence = "".join(f"<p>{html.escape(place.verdict.evidence)}</p>" for place in places)
        return (
            f'<tr><th scope="row">{claim}</th>'
            f"<td><details><summary>{html.escape(CLAIMS[claim].statement)}</summary>{evidence}</details></td>"
            f'<td class="{verdict.replace(" ", "-")}">{verdict}</td><td>{links}</td></tr>'
        )
