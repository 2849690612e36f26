r"""What a training run's history says is wrong with it: signatures, their evidence, and what to try.

Every rule compares the run with itself: with the loss that it began at, with its own highest rate, with its own
weights. So the rules need no knowledge of the task. Each threshold is a constant below, with its reason.
"""

import math
from dataclasses import dataclass

import numpy as np

from lrlib.schedules import Schedule, check_schedule
from lrlib.training import History

__all__ = ["Finding", "diagnose"]

# A classifier starts near the loss of guessing, and a batch of 8 or more scatters around it by less than a tenth.
SPIKE = 2.0  # a loss of twice the start is worse than knowing nothing, and far outside that scatter
SUSTAINED = 1.5  # the same for the mean of five batches in a row, which scatters less
RISE = 1.3  # three times the scatter: enough where the run has learned nothing either
NOTHING = 0.95  # of the start: with a loss above this the run has learned nothing
LEARNED = 0.7  # of the start: what a run of useful length is below, unless the task is mostly noise
BLOW_UP = 10.0  # times the start: float32 overflows near 1e38, so a loss on its way there passes this first
FAR = 1.0  # of the first weights: a run that cannot have moved them by their own length is close to where it began
REPLACED = 1.0  # of the weights in the last update: it put others in their place
LARGE_UPDATE = 0.1  # of the weights in one step: ten such steps replace them
EARLY = 0.1  # of the run: as long as common warm-ups last
STALLED = 0.1  # fall from the second quarter to the last, of the loss: one like 1/√t would fall by a third there
PROGRESS = 0.9  # of the start: below it there was some progress, and a plateau comes after progress
CONVERGED = 0.1  # of the start: below, a flat loss is the end of the task and not a plateau
SPENT = 1e-3  # of the highest rate: no update at such a rate undoes one at the highest
SPENT_SHARE = 0.2  # of the run; a cosine or a power up to 2 of the remaining time spends less than a twentieth there,
# a power p the share 10^(-3/p), which passes a fifth above p = 4


@dataclass(frozen=True)
class Finding:
    """One thing that is wrong with a run.

    Attributes:
        signature: "overflow", "arithmetic at zero", "scheduler", "too high", "too low", "warm-up missing", "plateau" or
            "stale BatchNorm".
        evidence: the figures of this run that say so.
        advice: what to try.
    """

    signature: str
    evidence: str
    advice: str

    def __str__(self) -> str:
        return f"{self.signature}: {self.evidence}. Try: {self.advice}."

    __repr__ = __str__


def diagnose(history: History, planned: Schedule | None = None) -> list[Finding]:
    """What is wrong with a run, the surest first; an empty list where nothing shows, as in a run without an update.

    A run that ended in a loss that is not finite gets one finding, the reason for that, and one whose scheduler was
    stepped wrongly is not judged by its rate. The rules are heuristics:
    they were set on some networks and tested on others, see the chapter. They read a loss that falls from that of
    guessing towards zero, such as the cross-entropy, or the squared error of one-hot labels. Of several parameter
    groups the highest rate counts.

    Args:
        history: of :func:`lrlib.train`. With ``track_updates=True`` it holds more evidence.
        planned: optionally the schedule that the run should have followed; a difference is then found exactly. Give it
            for one that is meant to end in a long stretch near zero, such as a power above 4 of the remaining time.

    Raises:
        TypeError: an argument is of another type.
        ValueError: the history is that of a stack, or has a negative loss.

    Example:
        >>> import lrlib
        >>> with lrlib.seeded(0):
        ...     model = lrlib.mlp(64, 16, 10)
        >>> history = lrlib.train(model, lrlib.digits(), lrlib.constant(1e-5), steps=50, track_updates=True)
        >>> [finding.signature for finding in diagnose(history)]
        ['too low']
    """
    if not isinstance(history, History):
        raise TypeError(f"history={history!r}: must be a History, as lrlib.train returns it")
    if planned is not None:
        check_schedule("planned", planned)
    if history.loss.ndim != 1:
        raise ValueError(f"history: has losses of shape {history.loss.shape}, must be of one network, (U,)")
    if history.loss.min(initial=0.0) < 0:
        raise ValueError(f"history: has the loss {history.loss.min():.3g}, must be >= 0 for these rules")
    if history.diverged_at is not None:
        return [_not_finite(history)]
    if not len(history.loss):
        return []
    return list(filter(None, [_scheduler(history, planned) or _progress(history), _batchnorm(history)]))


def _not_finite(history: History) -> Finding:
    loss, value = history.loss, history.diverged_loss
    ratio = 0.0 if history.update_ratio is None or not len(loss) else float(history.update_ratio[-1])
    at = f"the loss was {value} at step {history.diverged_at}"
    highest = float(loss[-10:].max(initial=0.0))
    if ratio > REPLACED or (len(loss) and highest > BLOW_UP * loss[0]):
        last = f", and the last update was {ratio:.2g} times the weights" if ratio > REPLACED else ""
        how = f"it had grown from {loss[0]:.3g} to {highest:.3g}{last}"
        return Finding("overflow", f"{at}; {how}", "a rate lower by ten or more, warm-up, or clipped gradients")
    calm = f"before it the loss was {loss[-1]:.3g}, with no growth" if len(loss) else "no update had been made"
    if not math.isfinite(ratio):
        likely = "that loss was finite and its gradient was not: a square root, a norm or a logarithm near zero"
    elif value is not None and math.isinf(value):
        likely = "infinite: a logarithm of zero or a number over zero"
    else:
        likely = "NaN: zero over zero, or zero times the logarithm of zero"
    advice = (
        "torch.autograd.set_detect_anomaly(True), which names the operation; cross_entropy on logits in place of a "
        "logarithm, an epsilon in a denominator; the data, if it is the first step"
    )
    return Finding("arithmetic at zero", f"{at}; {calm}; {likely}; the rate alone does not explain it", advice)


def _scheduler(history: History, planned: Schedule | None) -> Finding | None:
    lr = history.lr if history.lr.ndim == 1 else history.lr.max(axis=1)
    if planned is not None:
        return _against_plan(lr, planned)
    top, last = lr.max(), lr[-1]
    if top == 0:
        return Finding("scheduler", "the rate was zero in every update", "print the rate that the optimizer holds")
    spent = int((lr[::-1] <= SPENT * top).cumprod().sum())
    if spent > SPENT_SHARE * len(lr):
        evidence = f"the last {spent} of {len(lr)} updates ran at less than {SPENT:g} of the highest rate"
        return Finding("scheduler", evidence, "a horizon of as many steps as updates; one scheduler step an update")
    lowest = lr[lr.argmax() :].min()
    if lowest < 0.01 * top and last > 0.1 * top:
        evidence = f"the rate fell to {lowest / top:.1g} of its highest and ended at {last / top:.2g} of it"
        return Finding("scheduler", evidence, "a schedule whose horizon is the run's, and that holds its last value")
    changes = np.flatnonzero(np.diff(lr))
    if len(changes) > 1:
        before, after, following = lr[changes[0]], lr[changes[0] + 1], lr[changes[1] + 1]
        if after < 0.5 * before and following > after:
            first = changes[0] + 1
            evidence = f"the first {first} updates ran at {before:.2g}, then the rate fell to {after:.2g} and rose"
            return Finding("scheduler", evidence, "set the rate before the updates that shall use it")
    if len(changes) and (np.diff(lr) >= 0).all():
        bend = np.diff(np.log(lr[lr > 0]), 2)
        growing = len(bend) > 0 and np.abs(bend).max() < 1e-3  # an exponential growth is meant, a warm-up bends
        if changes[-1] >= (1 - SPENT_SHARE) * len(lr) and not growing:
            evidence = f"the rate was still rising at the end, from {lr[0]:.2g} to {last:.2g} in {len(changes)} changes"
            return Finding("scheduler", evidence, "a step of the scheduler for each update, not for each epoch")
    return None


def _against_plan(lr: np.ndarray, planned: Schedule) -> Finding | None:
    steps, changes = np.arange(len(lr)), np.flatnonzero(np.diff(lr))

    def follows(of_step):
        return np.isclose(lr[: len(of_step)], planned(of_step), rtol=1e-6, atol=1e-12)

    if follows(steps).all():
        return None
    wrong = int(follows(steps).argmin())
    evidence = f"update {wrong} ran at {lr[wrong]:.6g}, planned was {planned(wrong):.6g}"
    # Of a scheduler that runs ahead the later steps are past the horizon.
    ahead = [times for times in (2, 3, 4, 8) if times < len(lr) and follows(times * steps[: len(lr) // times]).all()]
    if follows(steps + 1).all():
        evidence += "; every update ran at the rate of the next one: the scheduler is stepped before the optimizer"
    elif not len(changes):
        evidence += "; the rate never changed: the scheduler is not stepped, or was used up by a plot"
    elif ahead:
        evidence += f"; the scheduler was stepped {ahead[0]} times an update"
    elif changes[0] and follows(steps // (changes[0] + 1)).all():
        evidence += f"; the scheduler was stepped once in {changes[0] + 1} updates"
    return Finding("scheduler", evidence, "one scheduler step after each update, as many as the horizon")


def _end(history: History) -> float:
    """The mean loss of the last twentieth of the run."""
    return float(history.loss[-max(5, len(history.loss) // 20) :].mean())


def _progress(history: History) -> Finding | None:
    """Too high, too low, warm-up missing or plateau: they exclude each other."""
    loss, ratio = history.loss, history.update_ratio
    lr = history.lr if history.lr.ndim == 1 else history.lr.max(axis=1)
    start, end = loss[0], _end(history)
    largest, size, moved = 0.0, "", None
    if ratio is not None:
        with np.errstate(over="ignore"):  # beyond all numbers is far, too
            largest, moved = float(np.nanmax(ratio)), float(np.expm1(np.nansum(np.log1p(ratio))))
        size = f"; the largest update was {largest:.2g} times the weights"
    early = loss[: max(1, round(EARLY * len(loss)))].max()
    ends = f"it ended at {end:.3g}, having begun at {start:.3g}"
    if end > LEARNED * start:
        thrown = loss.max() > RISE * start or largest > LARGE_UPDATE
        five = np.convolve(loss, np.ones(5) / 5, mode="valid") if len(loss) >= 5 else loss
        if five.max() > SUSTAINED * start or (end > NOTHING * start and thrown):
            evidence = f"the loss rose to {loss.max():.3g}; {ends}{size}"
            return Finding("too high", evidence, "a rate lower by ten, or the highest stable one of a range test")
        if end > PROGRESS * start if moved is None else moved < FAR:
            evidence = f"the loss never rose and hardly fell: {ends}"
            if moved is not None:
                evidence += f"; all updates together can have moved the weights by {moved:.2g} of their length at most"
            return Finding("too low", evidence, "a rate higher by ten, or a range test")
    elif early > SPIKE * start and lr[0] > 0.5 * lr.max():
        evidence = f"the loss rose to {early:.3g} in the first tenth of the run, at its full rate; {ends}{size}"
        return Finding("warm-up missing", evidence, "a linear warm-up over a tenth of the run, or a lower rate")
    quarters = [part.mean() for part in np.array_split(loss, 4)]
    stalled = quarters[1] < PROGRESS * start and 1 - quarters[3] / quarters[1] < STALLED
    if quarters[3] > CONVERGED * start and stalled and lr[-(len(lr) // 4) :].mean() > 0.5 * lr.max():
        evidence = (
            f"the loss is {quarters[3]:.3g} in the last quarter of the run and was {quarters[1]:.3g} in the second, "
            "with the rate still near its highest"
        )
        return Finding("plateau", evidence, "cut the rate by ten, or anneal it")
    return None


def _batchnorm(history: History) -> Finding | None:
    if not history.test_loss.size:  # there was no test set
        return None
    end = _end(history)
    start, test, accuracy = history.loss[0], history.final_loss, history.accuracy
    expected = math.exp(-end)  # the geometric mean of the probability of the right label
    if end < LEARNED * start and (test > SPIKE * start or (test > start and accuracy < 0.6 * expected)):
        evidence = (
            f"the training loss is {end:.2g}, that of evaluation {test:.3g}, more than the {start:.3g} of the start, "
            f"with an accuracy of {accuracy:.2f}"
        )
        advice = (
            "evaluate the training set too; if that is as bad, BatchNorm's running statistics are stale: "
            "refresh_batchnorm, or a larger momentum of theirs; if not, it is overfitting"
        )
        return Finding("stale BatchNorm", evidence, advice)
    return None
