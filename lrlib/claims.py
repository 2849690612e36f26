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
from lrlib.stats import Interval, Summary

__all__ = ["CLAIMS", "SOURCES", "VERDICTS", "Claim", "Evidence", "Ledger", "Settled", "Verdict", "settle"]

MIME = "application/vnd.lrlib.verdict+json"
VERDICTS = ("holds", "holds with a condition", "corrected", "does not hold", "open at scale", "answered")

SOURCES = {
    "A": ("jang2018aesthetic", "Aesthetically pleasing learning rates"),
    "J": ("jordan2018setting", "Setting the learning rate of your neural network"),
    "H": ("hillclimbing", "A hill-climbing learning rate"),
    "L": ("li2019exponential_blog", "Exponential learning rates"),
    "Q": ("stackexchange_lr", "Choosing a learning rate"),
    "M": ("", "Practice since 2018"),
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
    "A10": "Does one picture's schedule do well across many tasks?",
    "J1": "Too low a rate is slow; too high a rate diverges.",
    "J2": "The landscape depends on the architecture: skip connections make it smoother.",
    "J3": "In a range test the loss curve has three phases, and the best rate is where it falls most steeply.",
    "J4": "Step decay: start high, cut every few epochs, and settle into deeper, narrower parts.",
    "J5": "The triangular cycle and its variants, as printed in the source.",
    "J6": "The triangular formula can be built step by step from the progress in half-cycles.",
    "J7": "Raising the rate may hurt in the short term and help in the long term.",
    "J8": "Sharp minima generalise worse than flat ones.",
    "J9": "A larger rate crosses the plateau around a saddle point faster.",
    "J10": "Cosine annealing with warm restarts can lengthen its cycles and lower its bounds from one to the next.",
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
    "H8": "Can momentum be tuned in the same way?",
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
    "Q3": "Adadelta needs no learning rate (a reply: in practice it needs one on some problems).",
    "Q4": "The best rate is near the highest stable one, then decayed.",
    "Q5": "Is a rate α/√t, the same for all coordinates, a sensible schedule?",
    "Q6": "The printed per-coordinate rate of FTRL.",
    "Q7": "Rates from time and from gradients can be combined as a sum or a product.",
    "Q8": "The size of an update relative to the weights should be about 1e-3.",
    "Q9": "No decrease for epochs may mean too low a rate; NaN too high a one, a division by zero or a log of zero.",
    "Q10": "Anneal by orders of magnitude with early stopping: switch down when progress slows.",
    "Q11": "A hyperparameter search package can find the rate.",
    "Q12": "On Fashion-MNIST a range test gives a best rate of about 2e-2.",
    "Q13": "The ratio of the standard deviations of weights and gradients is a second-order rate.",
    "Q14": "For a convex smooth loss a rate up to 1/L converges at O(1/k); else a larger one may work.",
    "Q15": "L-BFGS is a way around choosing a rate.",
    "M1": "At tuned rate and decay, no optimizer is more than 1.5 times as fast as AdamW on a language model.",
    "M2": "Orders of optimizers that are clear before the decay ends turn round by its end.",
    "M3": "Warm-up, QK-norm and z-loss make the final loss less sensitive to the peak rate.",
    "M4": "Linear decay to zero beats a cosine to a tenth at the same budget.",
    "M5": "Rankings of schedules on pictures carry over to a language model.",
    "M6": "Under AdamW the weights are a moving average of the updates with a timescale of 1/(ηλ) steps.",
    "M7": "Under AdamW the weights settle at an RMS of √(η/(2λ)) and turn by an angle of √(2ηλ) a step.",
    "M8": "With AdamW keep the product ηλ: double η, halve λ.",
    "M9": "Under Adam the best (η, λ) form a diagonal with L2 in the gradient, and a box with decoupled decay.",
    "M10": "The best rate grows with the batch as 1/(1 + B_noise/B); steps trade for examples along a hyperbola.",
    "M11": "The rate of SGD scales linearly with the batch below the critical batch, Adam's with its square root.",
    "M12": "The critical batch starts small and grows during training, so a batch ramp works.",
    "M13": "With β₂ at a fixed half-life in tokens, small batches work as well as large ones.",
    "M14": "Gradient accumulation and data parallelism are the same run, if the loss is the mean over the batch.",
    "M15": "With PyTorch's settings Adam's best rate falls as width grows; with µP it stays within a factor of two.",
    "M16": "Under µP the change of the activations by one update does not depend on the width.",
    "M17": "Later in training it is weight decay, not µP, that keeps the best rate over widths.",
    "M18": "At β₁ = 0.9 Adam's steady update has an RMS of about 0.23 η, near the 0.2 η of Muon's matched scaling.",
    "M19": "The defaults of torch.optim.Muon, 1e-3 with the original scaling, barely train a small network.",
    "M20": "With RMS matching Muon can use AdamW's rate; with spectral scaling its rate transfers over widths.",
    "M21": "For a convex Lipschitz loss one bound on the last iterate holds under every schedule.",
    "M22": "The last iterate's bound predicts schedules' tuned peaks within a factor of two, and ranks their results.",
    "M23": "The best rate falls as a power of the horizon, and less so with decay to zero.",
    "M24": "A cooldown of the shape 1 − √ does no worse than a linear one at a fifth of the run.",
    "M25": "With LoRA's factor α/r the best rate does not depend on the rank.",
    "M26": "LoRA wants about ten times the rate of full fine-tuning.",
    "M27": "The tuned variants of LoRA tie, their best rates going as the inverse of the sharpness.",
    "M28": "Rates that fall from layer to layer help fine-tuning, and a warm-up keeps what was learned.",
    "M29": "Under full-batch Adam the preconditioned sharpness settles at (2 + 2β₁)/((1 − β₁)η): 38/η at β₁ = 0.9.",
    "M30": "What warm-up gains is that a larger peak rate is tolerated.",
    "M31": "A constant rate with the mean of the last weights does as well as a decay.",
    "M32": "Schedule-free, Prodigy and D-Adaptation need no rate.",
    "M33": "Clipping the gradient's norm makes too high a rate survivable, and the best rate higher.",
    "M34": "The harder a task, the longer the best schedule keeps its peak.",
    "M35": "Given the lowest loss, Polyak's step needs no constant of a convex problem.",
    "M36": "In networks that fit their data the stochastic Polyak step needs no tuning.",
    "M37": "A stochastic line search trains a network as well as a tuned rate, at little more than its cost.",
    "M38": "Re-warming a finished run first raises its loss, and ends lower than going on at a low rate.",
    "M39": "The length of the warm-up of a second run does not matter.",
    "M40": "A second run on new data, with replay, does as well as a new run on all the data.",
    "M41": "Going on from a decayed network is no worse than from before its decay, at equal updates in all.",
    "M42": "A network trained on half of the data and then on all generalises worse than a fresh one.",
    "M43": "The bound on the last loss predicts the best peak of a second run.",
    "M44": "Weights rounded to nearest in bfloat16 lose small updates, and training ends worse.",
    "M45": "Stochastic rounding or Kahan summation makes up for weights in bfloat16.",
    "M46": "With stochastic rounding, below some rate a lower one ends no lower.",
    "M47": "Each bit less doubles the rate that weights rounded to nearest need.",
    "M48": "On weights in bfloat16 AdamW's weight decay does nothing at usual rates.",
    "M49": "In bfloat16, with β₂ = 0.999, Adam's average of squares cannot fall.",
    "M50": "Gradient descent at a low rate follows the flow on L + (η/4) ‖∇L‖² more closely than that on L.",
    "M51": "At equal training loss a higher rate generalises better.",
    "M52": "At least half of what a higher rate gains comes from a penalty η/4 on the squared gradient of a batch.",
    "M53": "In diagonal linear networks SGD finds sparser fits at higher rates, and gradient descent denser ones.",
}


@dataclass(frozen=True)
class Claim:
    """One claim of a source: its id, the source's citation key and title, and the claim in the book's words.

    The practice since 2018 (M) has no one source: its key is empty, and the chapter cites the papers.
    A `question` of a source is answered, and is no claim.
    """

    id: str
    source: str
    title: str
    statement: str

    @property
    def question(self) -> bool:
        return self.statement.endswith("?")


CLAIMS: dict[str, Claim] = {key: Claim(key, *SOURCES[key[0]], statement) for key, statement in _STATEMENTS.items()}


@dataclass(frozen=True)
class Evidence:
    """One measured line of a verdict.

    Args:
        quantity: what was measured, in the reader's words, with its unit.
        value: an :class:`~lrlib.Interval` or :class:`~lrlib.Summary` over seeds, or a text for what has no seeds.
        task: data and network, such as "digits, MLP 64-32-10".
        spec: how the numbers of `value` are written.
        scale: "tour", "full" for a record on real data, or "exact" for arithmetic without chance.

    Raises:
        TypeError: `value` is none of these.
        ValueError: an empty quantity or task, an unknown scale, or a spec by which no number can be written.
    """

    quantity: str
    value: Interval | Summary | str
    task: str
    spec: str = "+.3g"
    scale: str = "tour"

    def __post_init__(self):
        for name in ("quantity", "task"):
            if not getattr(self, name).strip():
                raise ValueError(f"{name}={getattr(self, name)!r}: must say what was measured, and on what")
        _check.choice("scale", self.scale, ("tour", "full", "exact"))
        if not isinstance(self.value, Interval | Summary | str):
            raise TypeError(f"value={self.value!r}: must be an Interval, a Summary or a text")
        format(0.0, self.spec)

    @property
    def cells(self) -> tuple[str, str, str, str, str]:
        """Quantity, value, task, n and scale, as texts."""
        if isinstance(self.value, str):
            return self.quantity, self.value, self.task, "", self.scale
        return self.quantity, self.value.short(self.spec), self.task, str(self.value.n), self.scale


@dataclass(frozen=True)
class Verdict:
    """How a chapter settled a claim: the verdict, one or two plain sentences, and the measured lines behind it.

    `evidence` holds the cells of each :class:`Evidence`; `record` names the record that would settle what is open.
    """

    claim: str
    verdict: str
    answer: str
    evidence: tuple[tuple[str, ...], ...] = ()
    record: str | None = None

    def __repr__(self) -> str:
        lines = (f"\n    {': '.join(row[:2])} ({', '.join(filter(None, row[2:]))})" for row in self.evidence)
        return f"{self.claim} {self.verdict}: {self.answer}" + "".join(lines)

    @property
    def details(self) -> str:
        """The measured lines as a table in HTML, and the record that is missing."""
        head = "".join(f'<th scope="col">{name}</th>' for name in ("Measured", "Value", "Task", "n", "Scale"))
        rows = (f"<tr>{''.join(f'<td>{html.escape(cell)}</td>' for cell in row)}</tr>" for row in self.evidence)
        table = f"<table><thead><tr>{head}</tr></thead><tbody>{''.join(rows)}</tbody></table>" if self.evidence else ""
        missing = f"<p>The record <code>{html.escape(self.record)}</code> would settle it.</p>" if self.record else ""
        return table + missing

    def _repr_mimebundle_(self, include: object = None, exclude: object = None) -> dict[str, object]:
        claim = CLAIMS[self.claim]
        kind = "Question" if claim.question else "Claim"
        card = (
            f'<div class="claim {_css(self.verdict)}" id="claim-{self.claim}">'
            f'<p class="claim-statement"><a href="ledger.html">{kind} {self.claim}</a> {html.escape(claim.statement)} '
            f"<cite>{html.escape(claim.title)}</cite></p>"
            f'<p class="claim-verdict"><strong>{self.verdict.capitalize()}.</strong> {html.escape(self.answer)}</p>'
            f"{self.details}</div>"
        )
        return {"text/plain": repr(self), "text/html": card, MIME: asdict(self)}


def settle(
    claim: str, verdict: str, answer: str, evidence: Iterable[Evidence] = (), *, record: str | None = None
) -> Verdict:
    """The verdict on a claim, to be the last expression of the cell that measured it.

    Args:
        claim: the id of a claim in :data:`CLAIMS`, such as "J1".
        verdict: one of :data:`VERDICTS`, computed from the measurement and not typed; "answered" for a question.
        answer: one or two plain sentences that stand by themselves.
        evidence: the measured lines, each with task, scale, n and interval.
        record: the record that would settle a claim that is "open at scale".

    Raises:
        ValueError: an unknown claim or verdict, an empty answer, "answered" for a claim or another verdict for a
            question, "open at scale" without the record that would settle it, or a record with another verdict.

    Example:
        >>> settle("J1", "holds", "Beyond 2/h the loss grows.", [Evidence("edge", "0.2", "quadratic", scale="exact")])
        J1 holds: Beyond 2/h the loss grows.
            edge: 0.2 (quadratic, exact)
    """
    known = CLAIMS[_check.choice("claim", claim, tuple(CLAIMS))]
    _check.choice("verdict", verdict, VERDICTS)
    if not answer.strip():
        raise ValueError(f"answer={answer!r}: must say what was found")
    if known.question != (verdict == "answered"):
        raise ValueError(f"verdict={verdict!r}: a question is 'answered', a claim is not; {claim}: {known.statement}")
    if bool(record and record.strip()) != (verdict == "open at scale"):
        raise ValueError(f"record={record!r}: must name the record that would settle what is open at scale, only there")
    return Verdict(claim, verdict, answer, tuple(line.cells for line in evidence), record)


@dataclass(frozen=True)
class Settled:
    """A verdict and where it was reached: the chapter's name and the id of the cell."""

    chapter: str
    cell: str
    verdict: Verdict


class Ledger:
    """The verdicts of all chapters, by claim.

    It shows itself as a table in HTML, filtered by verdict and source without a script, and as lines of text.

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
                    if stored := output.get("data", {}).get(MIME):
                        stored["evidence"] = tuple(map(tuple, stored["evidence"]))
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

    def __repr__(self) -> str:
        return "\n".join(f"{claim:4} {self.verdict(claim)}" for claim in CLAIMS)

    def _repr_html_(self) -> str:
        sources = {letter: title for letter, (_, title) in SOURCES.items()}
        verdicts = {_css(verdict): verdict for verdict in (*VERDICTS, *(["open"] if self.open else []))}
        names = ("Claim", "In our words; open it for the evidence", "Verdict", "Task", "Scale", "n", "Where")
        head = "".join(f'<th scope="col">{name}</th>' for name in names)
        rows = "".join(map(self._row, CLAIMS))
        return (
            f'<div class="ledger-page">{_filter("Verdict", verdicts)}{_filter("Source", sources)}'
            f'<table class="ledger"><thead><tr>{head}</tr></thead><tbody>{rows}</tbody></table></div>'
        )

    def _row(self, claim: str) -> str:
        verdict, places = self.verdict(claim), self.settled[claim]
        links = (f'<a href="{p.chapter}.html#claim-{claim}">{p.chapter.replace("_", " ")}</a>' for p in places)
        evidence = "".join(f"<p>{html.escape(p.verdict.answer)}</p>{p.verdict.details}" for p in places)
        lines = [line for place in places for line in place.verdict.evidence]
        task, n, scale = ("; ".join(dict.fromkeys(line[k] for line in lines if line[k])) for k in (2, 3, 4))
        return (
            f'<tr class="{_css(verdict)} {claim[0]}"><th scope="row">{claim}</th>'
            f"<td><details><summary>{html.escape(CLAIMS[claim].statement)}</summary>{evidence}</details></td>"
            f'<td class="{_css(verdict)}">{verdict}</td><td>{html.escape(task)}</td><td>{scale}</td><td>{n}</td>'
            f"<td>{', '.join(links)}</td></tr>"
        )


def _css(verdict: str) -> str:
    return verdict.replace(" ", "-")


def _filter(title: str, choices: dict[str, str]) -> str:
    """Radio buttons, the first of which shows all; book.css hides the rows of the other classes."""
    buttons = "".join(
        f'<label><input type="radio" name="ledger-{title}" value="{value}"{"" if value else " checked"}> '
        f"{html.escape(label)}</label>"
        for value, label in {"": "all", **choices}.items()
    )
    return f'<fieldset class="ledger-filter"><legend>{title}</legend>{buttons}</fieldset>'
