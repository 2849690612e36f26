r"""What convex theory says of a schedule without any training: a bound on the loss of the last weights.

Let :math:`L` be convex with a minimum at :math:`\theta^*`, its gradients at most :math:`G` long (stochastic ones: of
mean square at most :math:`G^2`), and :math:`D = \|\theta_0 - \theta^*\|`. After T updates with the rates
:math:`\eta_0, \dots, \eta_{T-1}`, and for any :math:`\eta_T > 0`, the rate of an update that is not made,

.. math:: \mathbb E\,L(\theta_T) - L(\theta^*) &\le \frac{D^2}{2 A_0} + \frac{G^2}{2} C, \\
          C &= \frac{Q_0}{A_0} + \sum_{k=0}^{T-1} \frac{\eta_k}{A_{k+1}} \frac{Q_k}{A_k}, \\
          A_k &= \sum_{t=k}^{T} \eta_t, \quad Q_k = \sum_{t=k}^{T} \eta_t^2 .

Source: Defazio et al. (2023), arXiv 2310.07831, and Schaipp et al. (2025), arXiv 2501.18965. They count the rate of the
last gradient as one of the schedule; here it is free, and the best is taken. The chapter `schedule_theory` proves it.
"""

import math

import numpy as np
from numpy.typing import ArrayLike
from scipy import optimize

from lrlib import _check
from lrlib.schedules import Schedule, check_schedule

__all__ = ["bound_terms", "last_iterate_bound", "predicted_peak"]

RANGE = 1e12  # how far below the largest rate the last one is looked for


def bound_terms(rates: ArrayLike) -> tuple[float, float]:
    r"""The two numbers that the bound takes from the rates: :math:`A_0`, their sum, and :math:`C`, a rate too.

    Args:
        rates: :math:`\eta_0, \dots, \eta_T`, a vector of finite numbers >= 0, the last one > 0.

    Raises:
        ValueError: `rates` is not such a vector.

    Example:
        >>> bound_terms([1.0, 1.0, 1.0])  # of n equal rates: n, and 1 plus the harmonic number of n - 1
        (3.0, 2.5)
    """
    eta = np.asarray(rates, dtype=np.float64)
    if eta.ndim != 1 or not eta.size or not (np.isfinite(eta).all() and eta.min() >= 0 < eta[-1]):
        raise ValueError(f"rates={rates!r}: must be a vector of finite numbers >= 0, the last one > 0")
    A, Q = (np.cumsum(values[::-1])[::-1] for values in (eta, eta**2))
    return float(A[0]), float(Q[0] / A[0] + np.sum(eta[:-1] / A[1:] * Q[:-1] / A[:-1]))


def last_iterate_bound(schedule: Schedule, steps: int, distance: float = 1.0, gradient: float = 1.0) -> float:
    r"""The bound on :math:`\mathbb E\,L(\theta_T) - L(\theta^*)` after T updates with this schedule.

    Args:
        schedule: the rates, with their peak.
        steps: :math:`T` >= 1.
        distance: :math:`D` > 0, from the start to the minimum.
        gradient: :math:`G` > 0, the root mean square of the gradient's norm, at most.

    Raises:
        TypeError: `schedule` is not a :class:`~lrlib.Schedule`.
        ValueError: a number is out of its range, or a rate is negative or not finite.

    Source: see the module. :math:`\eta_T` is found by Brent's method over its logarithm; the bound holds with any.

    Example:
        >>> from lrlib import constant, polynomial
        >>> round(last_iterate_bound(constant(0.02), steps=400), 3)
        0.137
        >>> round(last_iterate_bound(polynomial(0.05, total_iters=400), steps=400), 3)
        0.1
    """
    rates = _rates(schedule, steps)
    distance, gradient = _check.positive("distance", distance), _check.positive("gradient", gradient)

    def bound(last: float) -> float:
        A, C = bound_terms(np.append(rates, last))
        return distance**2 / (2 * A) + gradient**2 * C / 2

    return bound(_best_last(bound, (rates.max(), distance / gradient)))


def predicted_peak(schedule: Schedule, steps: int, distance: float = 1.0, gradient: float = 1.0) -> float:
    r"""The peak, that is the highest rate of the run, at which the bound of a schedule of this shape is lowest.

    With the terms :math:`A_0` and :math:`C` of the shape with peak 1,

    .. math:: \eta = \frac{D}{G \sqrt{A_0 C}}, \qquad \text{where the bound is } D\,G \sqrt{C / A_0} .

    Args:
        schedule: the shape; its own peak does not matter.
        steps: :math:`T` >= 1.
        distance: :math:`D` > 0. It is not known for a network: use ratios of peaks, or fit it to one tuned schedule.
        gradient: :math:`G` > 0.

    Raises:
        TypeError: `schedule` is not a :class:`~lrlib.Schedule`.
        ValueError: a number is out of its range, a rate is negative or not finite, or all are 0.

    Source: see the module; set the derivative of the bound in the peak to zero.

    Example:
        >>> from lrlib import constant, cosine, polynomial
        >>> shapes = [constant(1.0), cosine(1.0, T_max=400), polynomial(1.0, total_iters=400)]
        >>> [round(predicted_peak(shape, steps=400), 3) for shape in shapes]
        [0.018, 0.048, 0.05]
    """
    rates = _rates(schedule, steps)
    distance, gradient = _check.positive("distance", distance), _check.positive("gradient", gradient)
    if rates.max() == 0:
        raise ValueError(f"schedule={schedule!r}: must have a rate > 0 in its first {steps} steps")
    shape = rates / rates.max()

    def at_best_peak(last: float) -> float:
        A, C = bound_terms(np.append(shape, last))
        return C / A

    A, C = bound_terms(np.append(shape, _best_last(at_best_peak, (1.0,))))
    return distance / (gradient * math.sqrt(A * C))


def _rates(schedule: Schedule, steps: int) -> np.ndarray:
    rates = check_schedule("schedule", schedule)(np.arange(_check.integer("steps", steps, 1)))
    if not (np.isfinite(rates).all() and rates.min() >= 0):
        raise ValueError(f"schedule={schedule!r}: must have finite rates >= 0 in its first {steps} steps")
    return rates


def _best_last(bound, scales: tuple[float, ...]) -> float:
    """The rate of the update that is not made, between the smallest of the scales / RANGE and ten times the largest."""
    low, high = math.log(min(scale for scale in scales if scale > 0) / RANGE), math.log(10 * max(scales))
    found = optimize.minimize_scalar(
        lambda u: math.log(bound(math.exp(u))), bounds=(low, high), method="bounded", options={"xatol": 1e-10}
    )
    return math.exp(found.x)
