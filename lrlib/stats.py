"""Summaries over seeds: mean, standard deviation, n, and paired intervals between two treatments."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy import stats

from lrlib import _check

__all__ = ["Summary", "Interval", "summary", "paired", "correlation", "holm", "cross_tuned", "vertex"]

RESAMPLES = 2000


@dataclass(frozen=True)
class Summary:
    """Mean, sample standard deviation (n - 1) and number of values."""

    mean: float
    std: float
    n: int

    def short(self, spec: str = ".3g") -> str:
        """Mean and deviation alone, for tables whose caption names n."""
        return f"{self.mean:{spec}} ± {self.std:{spec}}"

    def __format__(self, spec: str) -> str:
        return f"{self.short(spec or '.3g')} (n = {self.n})"

    __str__ = __repr__ = lambda self: format(self, "")


@dataclass(frozen=True)
class Interval:
    """An estimate with a confidence interval from `low` to `high`, from n pairs."""

    estimate: float
    low: float
    high: float
    n: int
    confidence: float

    def short(self, spec: str = "+.3g") -> str:
        """Estimate and interval alone, for tables whose caption names the confidence and n."""
        return f"{self.estimate:{spec}} [{self.low:{spec}}, {self.high:{spec}}]"

    def __format__(self, spec: str) -> str:
        return f"{self.short(spec or '+.3g')} ({100 * self.confidence:g}%, n = {self.n})"

    __str__ = __repr__ = lambda self: format(self, "")


def _values(name: str, values: Sequence[float] | np.ndarray, minimum: int = 2) -> np.ndarray:
    array = np.asarray(values, dtype=np.float64)
    if array.ndim != 1 or len(array) < minimum:
        raise ValueError(f"{name}: has shape {array.shape}, must be one-dimensional with at least {minimum} values")
    if not np.isfinite(array).all():
        raise ValueError(f"{name}={array}: must be finite; count diverged runs apart")
    return array


def _pairs(a: Sequence[float], b: Sequence[float], minimum: int = 2) -> tuple[np.ndarray, np.ndarray]:
    first, second = _values("a", a, minimum), _values("b", b, minimum)
    if len(first) != len(second):
        raise ValueError(f"b: has {len(second)} values, must have as many as a, {len(first)}")
    return first, second


def summary(values: Sequence[float]) -> Summary:
    """Mean, sample standard deviation and n of one value per seed.

    Args:
        values: at least 2 finite numbers.

    Raises:
        ValueError: fewer than 2 values, or one is not finite.

    Example:
        >>> summary([1.0, 2.0, 3.0])
        2 ± 1 (n = 3)
    """
    array = _values("values", values)
    return Summary(float(array.mean()), float(array.std(ddof=1)), len(array))


def paired(a: Sequence[float], b: Sequence[float], confidence: float = 0.95) -> Interval:
    r"""The mean of :math:`a_i - b_i` with Student's interval, where run i of both shares its seed.

    .. math:: \bar d \pm t_{n-1,\,(1 + c)/2}\; s_d / \sqrt n

    Args:
        a, b: equally many finite numbers, at least 2, in the same order of seeds.
        confidence: :math:`c`, strictly between 0 and 1.

    Raises:
        ValueError: lengths differ, fewer than 2 values, one is not finite, or `confidence` out of range.

    Example:
        >>> paired([0.91, 0.93, 0.92, 0.95], [0.90, 0.91, 0.91, 0.93])
        +0.015 [+0.00581, +0.0242] (95%, n = 4)
    """
    confidence = _check.positive("confidence", _check.below_one("confidence", confidence))
    difference = np.subtract(*_pairs(a, b))
    mean, half = difference.mean(), stats.t.ppf((1 + confidence) / 2, len(difference) - 1) * stats.sem(difference)
    return Interval(float(mean), float(mean - half), float(mean + half), len(difference), confidence)


def correlation(a: Sequence[float], b: Sequence[float], confidence: float = 0.95) -> Interval:
    """Spearman's rank correlation with a bootstrap interval (2,000 resamples of pairs, fixed seed).

    Resamples in which one side is constant have no correlation and are left out.

    Args:
        a, b: equally many finite numbers, at least 3.
        confidence: strictly between 0 and 1.

    Raises:
        ValueError: lengths differ, fewer than 3 values, one is not finite, all values of one side are equal, or
            `confidence` out of range.

    Example:
        >>> correlation([1, 2, 3, 4, 5], [1, 3, 2, 4, 5]).estimate
        0.9
    """
    confidence = _check.positive("confidence", _check.below_one("confidence", confidence))
    first, second = _pairs(a, b, minimum=3)
    for name, values in (("a", first), ("b", second)):
        if np.ptp(values) == 0:
            raise ValueError(f"{name}={values}: must have values that differ, as a constant is correlated with nothing")
    rows = np.random.default_rng(0).integers(len(first), size=(RESAMPLES, len(first)))
    rows = rows[(np.ptp(first[rows], axis=1) > 0) & (np.ptp(second[rows], axis=1) > 0)]
    x, y = (stats.zscore(stats.rankdata(values[rows], axis=1), axis=1) for values in (first, second))
    low, high = np.quantile((x * y).mean(axis=1).clip(-1, 1), [(1 - confidence) / 2, (1 + confidence) / 2])
    rho = float(stats.spearmanr(first, second).statistic)
    return Interval(round(rho, 12), float(low), float(high), len(first), confidence)


def holm(p: Sequence[float]) -> np.ndarray:
    r"""Holm's adjusted p-values: those below α are significant at level α whatever number of tests was made.

    With the p-values in ascending order, number i is :math:`\max_{j \le i} \min\{1, (m - j + 1)\, p_{(j)}\}`.

    Args:
        p: the m p-values, each in [0, 1], at least one.

    Raises:
        ValueError: none, or one outside [0, 1] or not finite.

    Source: Holm (1979), A simple sequentially rejective multiple test procedure.

    Example:
        >>> holm([0.01, 0.04, 0.03]).round(2).tolist()
        [0.03, 0.06, 0.06]
    """
    values = _values("p", p, minimum=1)
    if values.min() < 0 or values.max() > 1:
        raise ValueError(f"p={values}: must lie in [0, 1]")
    order = values.argsort()
    adjusted = np.empty(len(values))
    adjusted[order] = np.maximum.accumulate(values[order] * np.arange(len(values), 0, -1)).clip(max=1)
    return adjusted


def cross_tuned(losses: np.ndarray, folds: int = 2) -> np.ndarray:
    """For each seed its loss at the setting that is best, on average, for the seeds of the other folds.

    So no seed takes part in the choice of the setting that it is judged at. The seeds are cut into folds in their
    order; as many folds as seeds leave one seed out at a time.

    Args:
        losses: of K settings and S seeds, shape (K, S), finite; pass minus a quantity that shall be large.
        folds: between 2 and S.

    Returns:
        Shape (S,).

    Raises:
        ValueError: `losses` is not of this shape, or not finite, or `folds` is out of its range.

    Example:
        >>> cross_tuned([[1.0, 2.0, 9.0, 9.0], [3.0, 3.0, 3.0, 4.0]])
        array([3., 3., 9., 9.])
    """
    values = np.asarray(losses, dtype=np.float64)
    if values.ndim != 2 or values.size == 0:
        raise ValueError(f"losses: has shape {values.shape}, must be settings by seeds, not empty")
    if not np.isfinite(values).all():
        raise ValueError("losses: must be finite; give diverged runs a large loss")
    if _check.integer("folds", folds, 2) > values.shape[1]:
        raise ValueError(f"folds={folds}: must be <= {values.shape[1]}, the number of seeds")
    seeds = np.arange(values.shape[1])
    return np.concatenate(
        [values[np.delete(values, part, axis=1).mean(1).argmin(), part] for part in np.array_split(seeds, folds)]
    )


def vertex(x: Sequence[float] | np.ndarray, y: np.ndarray) -> np.ndarray:
    r"""Where a parabola through the lowest of K points and its two neighbours is lowest, such as the tuned log rate.

    With slopes :math:`s_- = \frac{y_k - y_{k-1}}{x_k - x_{k-1}}` and :math:`s_+ = \frac{y_{k+1} - y_k}{x_{k+1} - x_k}`,

    .. math:: x^* = \frac{x_{k-1} + x_k}{2} - \frac{s_-}{2} \cdot \frac{x_{k+1} - x_{k-1}}{s_+ - s_-} .

    It is the lowest point itself where that lies at an end, has a neighbour that is not finite, or is level with both.

    Args:
        x: positions, shape (K,), K >= 1, ascending and finite; of rates their logarithms.
        y: values, shape (K,) or, for S seeds, (K, S); NaN or infinite for runs that diverged, but not all of a seed's.

    Returns:
        Shape () or (S,).

    Raises:
        ValueError: a shape or `x` is not so, or a seed has no finite value.

    Example:
        >>> vertex([-2.0, -1.0, 0.0], [[4.0, 1.0], [1.0, 2.0], [2.0, np.inf]])
        array([-0.75, -2.  ])
    """
    places = _values("x", x, minimum=1)
    values = np.asarray(y, dtype=np.float64)
    if not (np.diff(places) > 0).all():
        raise ValueError(f"x={places}: must be ascending")
    if values.ndim not in (1, 2) or len(values) != len(places):
        raise ValueError(f"y: has shape {values.shape}, must be ({len(places)},) or ({len(places)}, seeds)")
    heights = np.where(np.isfinite(values), values, np.inf)
    if np.isinf(heights).all(0).any():
        raise ValueError("y: must have a finite value for each seed")
    return np.apply_along_axis(lambda column: _vertex(places, column), 0, heights)


def _vertex(x: np.ndarray, y: np.ndarray) -> float:
    k = int(y.argmin())
    if not 0 < k < len(y) - 1 or np.isinf(y[k - 1 : k + 2]).any():
        return x[k]
    falls, rises = np.diff(y[k - 1 : k + 2]) / np.diff(x[k - 1 : k + 2])
    if not rises > falls:
        return x[k]
    return (x[k - 1] + x[k]) / 2 - falls * (x[k + 1] - x[k - 1]) / (2 * (rises - falls))
