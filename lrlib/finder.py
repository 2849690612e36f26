r"""The learning-rate range test: one short run in which the rate rises at every step.

The loss that a rate is judged by is the one measured after the update it made, on the next batch. Loss and
:math:`\log\eta` are smoothed with the same weights, so that the smoothed curve does not lag. The test is repeated
over orders of the data, and over initialisations if asked, and every suggestion comes with an interval from these
repeats, or not at all: where the curve holds no answer, :class:`NoSuggestion` says why.
"""

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import partial

import matplotlib.pyplot as plt
import numpy as np
import torch
from scipy.signal import lfilter
from torch import nn
from torch.nn import functional as F

from lrlib import _check, runtime
from lrlib.data import Dataset
from lrlib.restore import generators_restored, restored
from lrlib.run import Run
from lrlib.schedules import Schedule
from lrlib.stack import Loss
from lrlib.stats import paired
from lrlib.training import train

__all__ = ["range_test", "RangeTest", "Suggestion", "NoSuggestion", "RULES"]

MIN_POINTS = 10


class NoSuggestion(ValueError):
    """The range test holds no answer; the message says why and what to try."""


@dataclass(frozen=True)
class Suggestion:
    """A rate with the interval that the repeats give for it.

    Attributes:
        lr: geometric mean over the repeats.
        low, high: Student's 95% interval for it, on the log scale; both None from a single repeat.
        n: the repeats that gave an answer.
        rule: the rule that was asked.
    """

    lr: float
    low: float | None
    high: float | None
    n: int
    rule: str

    def __repr__(self) -> str:
        interval = "" if self.low is None else f" [{self.low:.2g}, {self.high:.2g}]"
        return f"{self.rule}: {self.lr:.2g}{interval} (n = {self.n})"


@dataclass(frozen=True)
class RangeTest:
    """The curves of a range test.

    Attributes:
        lr: the rates tried, shape (K,).
        loss: the loss after the update with each rate, shape (repeats, K); NaN from where a repeat had stopped.
        initial_loss: the loss before the first update, shape (repeats,).
        smoothing: the weight of the past in the exponential mean, in [0, 1).
    """

    lr: np.ndarray
    loss: np.ndarray
    initial_loss: np.ndarray
    smoothing: float

    def smoothed(self, repeat: int) -> tuple[np.ndarray, np.ndarray]:
        """Rates and losses of one repeat, both smoothed alike, up to the last finite loss.

        Returns:
            Two arrays of equal length: the geometric mean of the rates and the mean of the losses, each under the
            weights :math:`\\beta^{k-j}` for :math:`j \\le k`, normalised (the bias correction).
        """
        count = int(np.isfinite(self.loss[repeat]).cumprod().sum())
        log_lr, loss = np.log(self.lr[:count]), self.loss[repeat, :count]
        return np.exp(_exponential_mean(log_lr, self.smoothing)), _exponential_mean(loss, self.smoothing)

    def suggest(self, rule: str = "steepest") -> Suggestion:
        """The rate that a rule reads off the curve, with the interval from the repeats.

        Args:
            rule: one of :data:`RULES`:

                - "steepest": where the smoothed loss falls fastest per unit of log rate, by lines fitted to a tenth of
                  the curve (Smith 2017; Jordan 2018).
                - "minimum/10": a tenth of the rate of the lowest smoothed loss (Howard and Gugger 2020).
                - "valley": two thirds into the longest stretch of falling loss, as the documentation of fastai, whose
                  default it is, says; its code takes about the middle.
                - "slide": a window slides down from the highest rate until the slope changes little (Novetta).
                - "largest_stable": the highest rate at which the smoothed loss had not yet risen by a tenth of its
                  whole fall above its minimum.

        Raises:
            ValueError: an unknown rule.
            NoSuggestion: in half of the repeats or more the curve is flat, has too few points, was not finite or rose
                at once, or still falls at the highest rate where the rule needs to see it rise.

        Example:
            >>> lr = np.geomspace(1e-4, 1, 100)
            >>> loss = 2.3 - 2 * np.exp(-(np.log(lr / 0.05) ** 2) / 4)
            >>> RangeTest(lr, loss[None], np.array([2.3]), smoothing=0.5).suggest("minimum/10")
            minimum/10: 0.0051 (n = 1)
        """
        read = RULES[_check.choice("rule", rule, tuple(RULES))]
        found, reasons = [], []
        for repeat in range(len(self.loss)):
            try:
                found.append(math.log(read(*self._usable(repeat))))
            except NoSuggestion as reason:
                reasons.append(str(reason))
        if len(found) <= len(self.loss) / 2:
            common = max(reasons, key=reasons.count)
            raise NoSuggestion(f"{rule}: {len(reasons)} of {len(self.loss)} repeats give no answer: {common}")
        if len(found) == 1:
            return Suggestion(math.exp(found[0]), None, None, 1, rule)
        mean = paired(found, [0.0] * len(found))
        return Suggestion(math.exp(mean.estimate), math.exp(mean.low), math.exp(mean.high), mean.n, rule)

    def _usable(self, repeat: int) -> tuple[np.ndarray, np.ndarray]:
        """The smoothed curve of a repeat that falls before it rises; NoSuggestion for any other."""
        if not np.isfinite(self.initial_loss[repeat]):
            raise NoSuggestion("the loss was not finite before the first update; check the model and its inputs")
        lr, loss = self.smoothed(repeat)
        if len(lr) < MIN_POINTS:
            if len(lr) == 0 or loss[-1] > self.initial_loss[repeat]:
                raise NoSuggestion(f"it diverged at once, within {len(lr)} updates; lower min_lr")
            raise NoSuggestion(f"only {len(lr)} points, {MIN_POINTS} are needed; raise num_iter")
        raw = np.concatenate([self.initial_loss[[repeat]], self.loss[repeat, : len(lr)]])
        span = round(1 / (1 - self.smoothing))  # of the exponential mean
        start = raw[: span + 1].mean()
        if loss.argmin() < 2 and loss[-1] > start:
            raise NoSuggestion("it diverged at once: the loss rises from the first updates on; lower min_lr")
        deviation = np.median(np.abs(np.diff(raw))) * 1.4826 / math.sqrt(2)
        noise = deviation * math.sqrt((1 - self.smoothing) / (1 + self.smoothing))
        fall = start - loss.min()
        if fall <= max(0.02 * abs(start), 5 * noise):
            raise NoSuggestion(
                f"the curve is flat: the loss falls by {fall:.2g}, no more than its noise; raise max_lr or num_iter"
            )
        first = min(span, len(lr) - MIN_POINTS)
        return lr[first:], loss[first:]  # the means before are over too few losses

    def plot(self, ax: plt.Axes | None = None) -> plt.Axes:
        """The smoothed curves of all repeats, their median, and the three phases as shaded spans.

        The phases end where the median has made a tenth of its whole fall, and where it is lowest.

        Args:
            ax: axes to draw into; default new ones.
        """
        ax = plt.subplots()[1] if ax is None else ax
        curves = np.full_like(self.loss, np.nan)
        for repeat in range(len(self.loss)):
            lr, loss = self.smoothed(repeat)
            ax.plot(lr, loss, color="#0072B2", alpha=0.25, linewidth=1, linestyle="-")
            if len(lr):
                curves[repeat] = np.interp(np.log(self.lr), np.log(lr), loss, left=np.nan, right=np.nan)
        counted = np.isfinite(curves).sum(0) > len(self.loss) / 2
        if counted.any():
            lr, median = self.lr[counted], np.nanmedian(curves[:, counted], axis=0)
            ax.plot(lr, median, color="#0072B2", linestyle="-", label=f"median of {len(self.loss)}")
            lowest = int(median.argmin())
            onset = int(np.argmax(median <= median[0] - 0.1 * (median[0] - median[lowest])))
            edges, phases = lr[[0, onset, lowest, -1]], {"too low": "0.95", "falling": "#dcefe6", "too high": "#f7e0d2"}
            for low, high, (name, color) in zip(edges[:-1], edges[1:], phases.items(), strict=True):
                if high > low:
                    ax.axvspan(low, high, color=color, zorder=0, linewidth=0)
                    ax.text(math.sqrt(low * high), 1.0, name, transform=ax.get_xaxis_transform(), ha="center", va="top")
            top = median[: lowest + 1].max()
            ax.set_ylim(median[lowest] - 0.1 * (top - median[lowest]), top + 0.5 * (top - median[lowest]))
        ax.set(xscale="log", xlabel="learning rate η", ylabel="smoothed loss after the update")
        return ax


def _exponential_mean(values: np.ndarray, smoothing: float) -> np.ndarray:
    sums, weights = (lfilter([1.0], [1.0, -smoothing], v) for v in (values, np.ones(len(values))))
    return sums / weights


def _steepest(lr: np.ndarray, loss: np.ndarray) -> float:
    """The middle of the stretch, a tenth of the curve long, whose fitted line falls most before the lowest loss."""
    width = max(3, len(lr) // 10)
    log_lr = np.log(lr)
    windows = [slice(k, k + width) for k in range(max(1, int(loss.argmin()) + 2 - width))]
    slopes = [np.polyfit(log_lr[w], loss[w], 1)[0] for w in windows]
    return float(np.exp(log_lr[windows[int(np.argmin(slopes))]].mean()))


def _must_rise(lr: np.ndarray, loss: np.ndarray) -> tuple[int, float]:
    """Where the loss is lowest and how far it fell to there; NoSuggestion unless it then rises by more than a tenth."""
    lowest = int(loss.argmin())
    fall = loss[: lowest + 1].max() - loss[lowest]
    if loss[-1] <= loss[lowest] + 0.1 * fall:
        raise NoSuggestion(f"the loss has not risen again by {lr[-1]:.2g}; raise max_lr")
    return lowest, fall


def _minimum_tenth(lr: np.ndarray, loss: np.ndarray) -> float:
    lowest, _ = _must_rise(lr, loss)
    return float(lr[lowest] / 10)


def _valley(lr: np.ndarray, loss: np.ndarray) -> float:
    """The longest chain of ever lower losses, by dynamic programming, then its point at two thirds."""
    length, start = np.ones(len(loss), dtype=int), np.arange(len(loss))  # of the longest that ends at each point
    for k in range(1, len(loss)):
        before = np.where(loss[:k] > loss[k], length[:k], 0)
        if before.any():
            best = int(before.argmax())
            length[k], start[k] = before[best] + 1, start[best]
    last = int(length.argmax())
    first = int(start[last])
    return float(lr[first + round(2 * (last - first) / 3)])


def _slide(lr: np.ndarray, loss: np.ndarray) -> float:
    lowest, fall = _must_rise(lr, loss)
    slope = np.gradient(loss / fall, np.log(lr))
    window = max(2, len(lr) // 7)
    flat = (left for left in range(lowest - window, -1, -1) if abs(slope[left + window] - slope[left]) <= 0.05)
    return float(lr[next(flat, 0)])


def _largest_stable(lr: np.ndarray, loss: np.ndarray) -> float:
    lowest, fall = _must_rise(lr, loss)
    risen = loss[lowest:] > loss[lowest] + 0.1 * fall
    return float(lr[lowest + risen.argmax() - 1])


RULES: dict[str, Callable[[np.ndarray, np.ndarray], float]] = {
    "steepest": _steepest,
    "minimum/10": _minimum_tenth,
    "valley": _valley,
    "slide": _slide,
    "largest_stable": _largest_stable,
}


def range_test(
    model: nn.Module,
    data: Dataset | tuple[torch.Tensor, torch.Tensor] | Iterable,
    optimizer: torch.optim.Optimizer,
    *,
    loss: Loss = F.cross_entropy,
    min_lr: float = 1e-5,
    max_lr: float = 10.0,
    num_iter: int = 100,
    batch_size: int = 64,
    smoothing: float | None = None,
    stop_factor: float = 3.0,
    repeats: int = 5,
    reinitialize: bool = False,
    seed: int = 0,
) -> RangeTest:
    r"""Raise the rate from `min_lr` to `max_lr` over `num_iter` updates and record the loss after each.

    .. math:: \eta_k = \eta_{min} (\eta_{max}/\eta_{min})^{k/(K-1)}

    It is :func:`lrlib.train` with this schedule. Parameter groups keep the ratios of the rates they were built with;
    the highest of them gets :math:`\eta_k`. A repeat stops when a loss is not finite, or when the smoothed loss exceeds
    its lowest value by `stop_factor` times the initial loss. Afterwards, also after an exception or an interrupt,
    everything is as it was: weights, buffers, gradients, training modes and requires_grad of the model; state and
    groups of the optimizer; the random generators of torch, NumPy and Python, and those that are attributes of a data
    loader, its samplers, its data set and their functions, also in a list, a dict, a partial function or a closure.

    Mixed precision is the model's own affair, as with :func:`lrlib.in_bfloat16`; float16, which needs its losses
    scaled, is not supported.

    Args:
        model: any module; used on the device it is on.
        data: a :class:`~lrlib.Dataset`, a pair of tensors (inputs, targets), or an iterable of such pairs that can be
            iterated again and again, such as a `DataLoader`.
        optimizer: over the model's parameters, with a rate > 0 in each group.
        loss: maps outputs and targets to a scalar, the mean over the batch.
        min_lr, max_lr: the sweep, 0 < `min_lr` < `max_lr`.
        num_iter: updates :math:`K` per repeat, >= 10.
        batch_size: for tensors; an iterable brings its own batches.
        smoothing: weight of the past in the smoothed curve, in [0, 1); default 1 - 10/`num_iter`, a mean over about a
            tenth of the sweep, so that a longer test is smoothed over the same span of rates.
        stop_factor: > 0.
        repeats: sweeps, each over another order of the data (of a loader: whatever it gives next), >= 1.
        reinitialize: also draw new weights for every repeat but the first, by each submodule's `reset_parameters`.
        seed: of the data order and new weights, >= 0.

    Raises:
        ValueError: an argument is out of its range, the data is empty, or a batch is not a pair.
        TypeError: an argument is of a wrong type.

    Source: Smith (2017), section 3.3, with the mistakes of later implementations mended (see the chapter).

    Example:
        >>> import lrlib
        >>> with lrlib.seeded(0):
        ...     model = lrlib.mlp(64, 32, 10)
        >>> test = range_test(model, lrlib.digits(), torch.optim.SGD(model.parameters(), lr=1.0), min_lr=1e-4)
        >>> 0.01 < test.suggest("steepest").lr < 1
        True
    """
    min_lr, max_lr = _check.positive("min_lr", min_lr), _check.positive("max_lr", max_lr)
    if max_lr <= min_lr:
        raise ValueError(f"max_lr={max_lr!r}: must be > min_lr={min_lr!r}")
    num_iter = _check.integer("num_iter", num_iter, MIN_POINTS)
    batch_size = _check.integer("batch_size", batch_size, 1)
    smoothing = 1 - 10 / num_iter if smoothing is None else _check.below_one("smoothing", smoothing)
    stop_factor = _check.positive("stop_factor", stop_factor)
    repeats, seed = _check.integer("repeats", repeats, 1), _check.seed("seed", seed)
    if not isinstance(optimizer, torch.optim.Optimizer):
        raise TypeError(f"optimizer={optimizer!r}: must be a torch.optim.Optimizer")
    built = [float(group["lr"]) for group in optimizer.param_groups]
    if min(built) <= 0:
        raise ValueError(f"optimizer: has the rates {built}, must be > 0, since groups keep their ratios")
    held = {id(p) for group in optimizer.param_groups for p in group["params"]}
    trained = [id(p) for p in model.parameters() if p.requires_grad]
    if trained and held.isdisjoint(trained):
        raise ValueError(
            "optimizer: holds no trainable parameter of the model, must be one over the model's parameters"
        )
    if isinstance(data, Dataset):
        data = data.x_train, data.y_train
    if isinstance(data, tuple):
        batch_size = min(batch_size, max(1, len(data[0])))

    rates = np.geomspace(min_lr, max_lr, num_iter)
    schedules = [Schedule.from_table(rates * (ratio / max(built))) for ratio in built]
    losses = np.full((repeats, num_iter + 1), np.nan)
    sums, weights = np.zeros(num_iter + 1), np.cumsum(smoothing ** np.arange(num_iter))
    lowest = np.full(num_iter + 1, np.inf)

    def watch(row: np.ndarray, run: Run) -> None:
        """Keep the loss; end a sweep that is through, having measured its last rate, or has risen too far."""
        k = run.step - 1
        row[k] = run.loss[k, 0].item()
        if k:
            sums[k] = smoothing * sums[k - 1] + row[k]
            mean = sums[k] / weights[k - 1]
            lowest[k] = min(mean, lowest[k - 1])
            if mean > lowest[k] + stop_factor * max(abs(row[0]), 1e-12):
                run.stop()
                return
        if run.step == num_iter:
            row[num_iter] = run.ahead().item()
            run.stop()

    # Its last step makes no update: it gives the batch after the last update.
    options: dict = {"steps": num_iter + 1, "batch_size": batch_size, "optimizer": optimizer, "loss": loss}
    with generators_restored(data):
        for repeat in range(repeats):
            with restored(model, optimizer):
                if reinitialize and repeat:
                    with runtime.seeded(seed + repeat):
                        for module in model.modules():
                            getattr(module, "reset_parameters", lambda: None)()
                watching = [partial(watch, losses[repeat])]
                history = train(model, data, schedules, seed=seed + repeat, callbacks=watching, **options)
                if history.diverged_at == 0:
                    losses[repeat, 0] = history.diverged_loss
    losses[:, 1:][~np.isfinite(losses[:, 1:])] = np.nan
    return RangeTest(rates, losses[:, 1:], losses[:, 0], smoothing)
