r"""Gradient descent and momentum on quadratic losses, where everything is known exactly.

The loss is :math:`L(\theta) = \tfrac12 \theta^\top H \theta` with a symmetric matrix :math:`H`. In an eigenvector of
:math:`H` with curvature :math:`h` a step of gradient descent multiplies the coordinate by :math:`1 - \eta h`. With
momentum in PyTorch's convention, :math:`v \leftarrow \beta v + g`, :math:`\theta \leftarrow \theta - \eta v`, it
multiplies the pair of this and the last coordinate, :math:`(\theta_t, \theta_{t-1})`, by the matrix

.. math:: \begin{pmatrix} 1 + \beta - \eta h & -\beta \\ 1 & 0 \end{pmatrix} .
"""

import numpy as np

from lrlib import _check

__all__ = ["descend", "spectral_radius", "best_rate", "best_momentum"]


def descend(H: np.ndarray, theta0: np.ndarray, lr: float, steps: int, momentum: float = 0.0) -> np.ndarray:
    r"""The path of gradient descent, with or without momentum, on :math:`\tfrac12 \theta^\top H \theta`.

    .. math:: v_{t+1} = \beta v_t + H \theta_t, \qquad \theta_{t+1} = \theta_t - \eta\, v_{t+1}, \qquad v_0 = 0

    Args:
        H: symmetric, shape (d, d).
        theta0: where to start, shape (d,).
        lr: :math:`\eta`, >= 0.
        steps: the number of updates, >= 1.
        momentum: :math:`\beta`, in [0, 1].

    Returns:
        The parameters before the first update and after each, shape (steps + 1, d).

    Raises:
        ValueError: H is not square and symmetric, shapes disagree, or a number is out of its range or not finite.

    Source: `torch.optim.SGD`, whose path it equals.

    Example:
        >>> descend([[2.0]], [1.0], lr=0.25, steps=3)[:, 0]
        array([1.   , 0.5  , 0.25 , 0.125])
    """
    H, theta = np.asarray(H, dtype=np.float64), np.asarray(theta0, dtype=np.float64)
    if H.ndim != 2 or H.shape[0] != H.shape[1] or not np.isfinite(H).all():
        raise ValueError(f"H: has shape {H.shape}, must be a square symmetric matrix of finite numbers")
    if np.abs(H - H.T).max(initial=0.0) > 1e-8 * np.abs(H).max(initial=0.0):
        raise ValueError(f"H={H}: must be symmetric")
    if theta.shape != H.shape[:1] or not np.isfinite(theta).all():
        raise ValueError(f"theta0: has shape {theta.shape}, must be {H.shape[:1]} finite numbers")
    lr, steps = _check.nonnegative("lr", lr), _check.integer("steps", steps, 1)
    momentum = _check.within("momentum", momentum, 0.0, 1.0)
    path, velocity = [theta], np.zeros_like(theta)
    for _ in range(steps):
        velocity = momentum * velocity + H @ path[-1]
        path.append(path[-1] - lr * velocity)
    return np.array(path)


def spectral_radius(lr_times_h: np.ndarray, momentum: np.ndarray) -> np.ndarray:
    r"""By what factor momentum shrinks (< 1) or grows (> 1) the error per step, in the long run.

    The larger modulus of the roots of :math:`z^2 - (1 + \beta - \eta h) z + \beta = 0`.

    Args:
        lr_times_h: :math:`\eta h`, any shape.
        momentum: :math:`\beta`, in [0, 1], of a shape that broadcasts with it.

    Raises:
        ValueError: a momentum is out of its range.

    Example:
        >>> spectral_radius([0.5, 1.5, 2.5], 0.0)
        array([0.5, 0.5, 1.5])
    """
    a, beta = np.asarray(lr_times_h, dtype=np.float64), np.asarray(momentum, dtype=np.float64)
    if not ((beta >= 0) & (beta <= 1)).all():
        raise ValueError(f"momentum={momentum!r}: must be in [0, 1]")
    trace = np.abs(1 + beta - a)
    discriminant = trace**2 - 4 * beta
    real = (trace + np.sqrt(np.maximum(discriminant, 0.0))) / 2
    return np.where(discriminant < 0, np.sqrt(beta), real)


def best_rate(h_min: float, h_max: float) -> tuple[float, float]:
    r"""The best constant rate of gradient descent, and the factor by which it shrinks the error per step.

    .. math:: \eta = \frac{2}{h_{\min} + h_{\max}}, \qquad \rho = \frac{\kappa - 1}{\kappa + 1}, \qquad
       \kappa = \frac{h_{\max}}{h_{\min}}

    Args:
        h_min, h_max: the smallest and the largest curvature, 0 < h_min <= h_max.

    Raises:
        ValueError: the curvatures are not positive or not in order.

    Example:
        >>> best_rate(1.0, 9.0)
        (0.2, 0.8)
    """
    h_min = _check.positive("h_min", h_min)
    h_max = _check.at_least("h_max", h_max, h_min)
    return 2 / (h_min + h_max), (h_max - h_min) / (h_max + h_min)


def best_momentum(h_min: float, h_max: float) -> tuple[float, float, float]:
    r"""The best rate and momentum together, and the factor by which they shrink the error per step.

    .. math:: \eta = \Big(\frac{2}{\sqrt{h_{\min}} + \sqrt{h_{\max}}}\Big)^2, \qquad \beta = \rho^2, \qquad
       \rho = \frac{\sqrt\kappa - 1}{\sqrt\kappa + 1}

    Args:
        h_min, h_max: the smallest and the largest curvature, 0 < h_min <= h_max.

    Raises:
        ValueError: the curvatures are not positive or not in order.

    Source: Polyak (1964).

    Example:
        >>> best_momentum(1.0, 9.0)
        (0.25, 0.25, 0.5)
    """
    low = np.sqrt(_check.positive("h_min", h_min))
    high = np.sqrt(_check.at_least("h_max", h_max, h_min))
    rho = float((high - low) / (high + low))
    return float((2 / (low + high)) ** 2), rho**2, rho
