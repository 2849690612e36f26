r"""Batch sizes: how noisy a mini-batch gradient is, what a larger batch is worth, and both on a quadratic.

The gradient of one example has the mean :math:`\nabla L` and a covariance :math:`\Sigma`; that of a batch of B has
:math:`\Sigma / B`. Where the two balance is the *noise scale*, a number of examples.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from scipy import optimize, stats
from torch import nn
from torch.nn import functional as F

from lrlib import _check, runtime
from lrlib.minibatches import check_data
from lrlib.planes import trainable
from lrlib.stack import Loss, Stack, scalar

__all__ = ["NoiseScale", "gradient_noise_scale", "CriticalBatch", "critical_batch_size", "noisy_descent"]


@dataclass(frozen=True)
class NoiseScale:
    r"""Measurements of a gradient's noise, one from each draw of examples.

    Attributes:
        signal: unbiased estimates of :math:`\|\nabla L\|^2`, shape (draws,), of a stack (R, draws); single ones may be
            negative.
        noise: of :math:`\operatorname{tr} \Sigma`, in the same shape.
    """

    signal: np.ndarray
    noise: np.ndarray

    @property
    def scale(self) -> np.ndarray:
        r"""The simple noise scale :math:`\operatorname{tr}\Sigma / \|\nabla L\|^2`, in examples, as the ratio of means.

        A ratio of unbiased estimates is biased, by the order of 1/draws. It is negative or huge where the signal
        drowns: look at :meth:`interval`.
        """
        return (self.noise.mean(-1) / self.signal.mean(-1))[()]

    def interval(self, confidence: float = 0.95) -> tuple[np.ndarray, np.ndarray]:
        r"""Fieller's interval for the ratio: all R for which the mean of noise - R signal does not differ from 0.

        With means :math:`\bar s, \bar q` of noise and signal, :math:`V` their covariance over the number of draws and
        Student's t, the R with

        .. math:: (\bar s - R \bar q)^2 \le t^2 (V_{ss} - 2 R V_{sq} + R^2 V_{qq}) .

        Returns:
            The lower and the upper end, both of the shape of `scale`, cut off at 0. The upper end is infinite where
            the signal could be zero.

        Raises:
            ValueError: there are fewer than 3 draws, or `confidence` is out of (0, 1).

        Source: Fieller, Some problems in interval estimation (1954).
        """
        confidence = _check.positive("confidence", _check.below_one("confidence", confidence))
        n = self.signal.shape[-1]
        if n < 3:
            raise ValueError(f"draws={n}: must be >= 3 for an interval")
        t2 = stats.t.ppf((1 + confidence) / 2, n - 1) ** 2 / n
        s, q = self.noise.mean(-1), self.signal.mean(-1)
        across = ((self.noise - s[..., None]) * (self.signal - q[..., None])).sum(-1) / (n - 1)
        a = q**2 - t2 * self.signal.var(-1, ddof=1)
        b, c = s * q - t2 * across, s**2 - t2 * self.noise.var(-1, ddof=1)
        root = np.sqrt(np.maximum(b**2 - a * c, 0.0))
        with np.errstate(divide="ignore", invalid="ignore"):
            ends = np.sort([(b - root) / a, (b + root) / a], axis=0)
        bounded = (a > 0) & (q > 0)
        whole = ~bounded & ((b**2 <= a * c) | (c <= 0))  # every R, or all but some below zero
        low = np.where(bounded, ends[0], np.where(whole, 0.0, ends[1]))
        return np.maximum(low, 0.0)[()], np.where(bounded, np.maximum(ends[1], 0.0), np.inf)[()]


def gradient_noise_scale(
    model: nn.Module,
    x: torch.Tensor,
    y: torch.Tensor,
    *,
    small: int = 8,
    big: int = 256,
    draws: int = 20,
    loss: Loss = F.cross_entropy,
    seed: int = 0,
) -> NoiseScale:
    r"""Measure how noisy the gradient is, from its length at two batch sizes.

    A mean of B independent gradients has :math:`\mathbb E\|\hat g_B\|^2 = \|\nabla L\|^2 + \operatorname{tr}\Sigma/B`.
    With b small and B big,

    .. math:: \operatorname{tr}\Sigma \approx \frac{\|\hat g_b\|^2 - \|\hat g_B\|^2}{1/b - 1/B}, \qquad
       \|\nabla L\|^2 \approx \frac{B \|\hat g_B\|^2 - b \|\hat g_b\|^2}{B - b} .

    Each draw takes B examples with replacement, cuts them into B/b small batches and uses the mean of their
    :math:`\|\hat g_b\|^2`, as the processes of data parallelism could. The model is left as it is.

    Args:
        model: a module, or a :class:`~lrlib.Stack` of R, which then all see the same examples.
        x, y: the examples to draw from, (N, ...) and (N, ...), N >= 1.
        small: b, >= 1.
        big: B, a multiple of b and >= 2 b.
        draws: how often to measure, >= 1; 3 or more give an interval.
        loss: maps outputs and targets to a scalar, the mean over the batch.
        seed: of the draws, >= 0.

    Raises:
        TypeError: an argument is of a wrong type.
        ValueError: an argument is out of its range, the loss is no scalar, nothing is trainable, or a BatchNorm layer
            is in training mode or has no running statistics, which leaves no gradient to a single example.

    Source: McCandlish et al., An Empirical Model of Large-Batch Training, arXiv 1812.06162 (2018), appendix A.

    Example:
        >>> x, y = torch.tensor([[1.0], [1.0]]), torch.tensor([[0.0], [4.0]])
        >>> model = nn.Linear(1, 1, bias=False)
        >>> _ = nn.init.zeros_(model.weight)  # the gradients of the two examples are 0 and -8, so |-4|² and 16
        >>> measured = gradient_noise_scale(model, x, y, small=1, big=64, draws=200, loss=F.mse_loss)
        >>> round(float(measured.scale), 1)
        1.0
    """
    check_data(x, y)
    small, draws = _check.integer("small", small, 1), _check.integer("draws", draws, 1)
    big = _check.integer("big", big, 2 * small)
    if big % small:
        raise ValueError(f"big={big!r}: must be a multiple of small={small!r}")
    stack = model if isinstance(model, Stack) else None
    size, parameters = (stack.size, list(stack.weights)) if stack else (1, list(trainable(model).values()))
    for name, layer in (stack.template if stack else model).named_modules():
        training = stack.training if stack else layer.training
        if isinstance(layer, nn.modules.batchnorm._BatchNorm) and (training or layer.running_mean is None):
            raise ValueError(
                f"model: its BatchNorm layer {name!r} mixes the examples of a batch, must be in eval mode and have "
                "running statistics"
            )

    def gradient(rows: torch.Tensor) -> torch.Tensor:
        with runtime.buffers_kept(model):
            value = stack.losses(x[rows][None], y[rows][None], loss).sum() if stack else loss(model(x[rows]), y[rows])
        found = torch.autograd.grad(scalar(value), parameters, materialize_grads=True)
        return torch.cat([g.to_dense().reshape(size, -1) for g in found], 1).detach().double()

    generator = torch.Generator().manual_seed(_check.seed("seed", seed))
    squares = np.empty((2, size, draws))
    with runtime.seeded(seed):  # for dropout
        for draw in range(draws):
            total, lengths = torch.tensor(0.0), torch.tensor(0.0)
            for rows in torch.randint(len(x), (big // small, small), generator=generator).to(x.device):
                flat = gradient(rows)
                total, lengths = total + flat, lengths + flat.square().sum(1)
            mean = total * (small / big)
            squares[:, :, draw] = torch.stack([lengths * (small / big), mean.square().sum(1)]).cpu().numpy()
    of_small, of_big = squares if stack else squares[:, 0]
    noise = (of_small - of_big) / (1 / small - 1 / big)
    return NoiseScale((big * of_big - small * of_small) / (big - small), noise)


@dataclass(frozen=True)
class CriticalBatch:
    r"""The hyperbola of steps S and examples E to one result.

    .. math:: (S/S_{\min} - 1)(E/E_{\min} - 1) = 1

    Attributes:
        steps_min: :math:`S_{\min}`, the updates that the largest batches need.
        examples_min: :math:`E_{\min}`, the examples that the smallest batches need.
    """

    steps_min: float
    examples_min: float

    @property
    def batch_size(self) -> float:
        r"""The critical batch :math:`E_{\min} / S_{\min}`, which takes twice the fewest steps and examples.

        It is infinite where no limit to the gain was seen.
        """
        return self.examples_min / self.steps_min if self.steps_min > 0 else np.inf

    def steps(self, batch_size):
        r""":math:`S(B) = S_{\min} + E_{\min}/B`, for a batch size or an array of them."""
        return self.steps_min + self.examples_min / np.asarray(batch_size, dtype=float)

    def examples(self, batch_size):
        r""":math:`E(B) = B\,S(B)`."""
        return np.asarray(batch_size, dtype=float) * self.steps(batch_size)


def critical_batch_size(batch_sizes: Sequence[float], steps: Sequence[float]) -> CriticalBatch:
    r"""Fit the hyperbola of steps and examples to the steps that each batch size took to one result.

    The fit minimises :math:`\sum_k \big( (S_{\min} + E_{\min}/B_k) / S_k - 1 \big)^2` over numbers >= 0: errors
    count relative to what was measured.

    Args:
        batch_sizes: the K >= 2 batch sizes, positive and not all equal.
        steps: the updates that each took, positive.

    Raises:
        ValueError: lengths differ, or a number is out of its range.

    Source: McCandlish et al., An Empirical Model of Large-Batch Training, arXiv 1812.06162 (2018).

    Example:
        >>> fit = critical_batch_size([1, 10, 100], [1010, 110, 20])
        >>> round(fit.steps_min, 6), round(fit.examples_min, 6), round(fit.batch_size, 6)
        (10.0, 1000.0, 100.0)
        >>> fit.examples(100.0).round(6)
        np.float64(2000.0)
    """
    sizes, counts = (np.asarray(values, dtype=float) for values in (batch_sizes, steps))
    for name, values in (("batch_sizes", sizes), ("steps", counts)):
        if values.ndim != 1 or len(values) < 2 or not (np.isfinite(values) & (values > 0)).all():
            raise ValueError(f"{name}={values}: must be at least 2 finite numbers > 0")
    if len(sizes) != len(counts) or np.ptp(sizes) == 0:
        raise ValueError(f"batch_sizes={sizes}: must be {len(counts)}, as many as steps, and not all equal")
    unit = sizes.max()  # so that both columns are of a size
    found, _ = optimize.nnls(np.stack([1 / counts, unit / (sizes * counts)], 1), np.ones(len(counts)))
    steps_min = float(found[0]) if found[0] > 1e-12 * counts.min() else 0.0  # else what rounding left
    return CriticalBatch(steps_min, float(found[1] * unit))


def noisy_descent(
    h: Sequence[float],
    mean_square: Sequence[float],
    variance: Sequence[float],
    batch_size: float,
    target: float,
    limit: int = 100_000,
) -> tuple[np.ndarray, np.ndarray]:
    r"""Descend a noisy quadratic, each step at the rate that lowers the expected loss most, to a target loss.

    With :math:`v_i = \mathbb E\,\theta_i^2`, curvatures :math:`h_i` and a gradient of one example whose noise has the
    variance :math:`\sigma_i^2`,

    .. math:: \eta &= \frac{\sum h_i^2 v_i}{\sum h_i^3 v_i + \sum h_i \sigma_i^2 / B}, \\
       v_i &\leftarrow (1 - \eta h_i)^2 v_i + \eta^2 \sigma_i^2 / B, \qquad \mathbb E L = \tfrac12 \sum h_i v_i .

    Args:
        h: curvatures, (d,), each > 0.
        mean_square: :math:`v_i` at the start, (d,), each >= 0.
        variance: :math:`\sigma_i^2`, (d,), each >= 0.
        batch_size: B, > 0.
        target: the expected loss to reach, > 0 and below that of the start.
        limit: the most steps, >= 1.

    Returns:
        The rates, (steps,), and the expected losses, (steps + 1,), of which the last is the first at or below the
        target.

    Raises:
        ValueError: shapes differ, a number is out of its range, or the target is not reached within the limit.

    Example:
        >>> rates, losses = noisy_descent([1.0], [2.0], [2.0], batch_size=1, target=0.3)
        >>> rates.round(3), losses.round(3)  # 1/v grows by the same amount in each step
        (array([0.5  , 0.333, 0.25 ]), array([1.   , 0.5  , 0.333, 0.25 ]))
    """
    curvature, v, noise = (np.asarray(values, dtype=float) for values in (h, mean_square, variance))
    for name, values, least in (("h", curvature, "> 0"), ("mean_square", v, ">= 0"), ("variance", noise, ">= 0")):
        fits = (values > 0) if least == "> 0" else (values >= 0)
        if values.ndim != 1 or values.shape != curvature.shape or not (fits & np.isfinite(values)).all():
            raise ValueError(f"{name}={values}: must be finite, {least} and of the shape of h, {curvature.shape}")
    batch_size, limit = _check.positive("batch_size", batch_size), _check.integer("limit", limit, 1)
    rates: list[float] = []
    losses = [float(curvature @ v) / 2]
    if not 0 < target < losses[0]:
        raise ValueError(f"target={target!r}: must be > 0 and < {losses[0]:g}, the loss at the start")
    while losses[-1] > target:
        if len(rates) == limit:
            raise ValueError(f"limit={limit!r}: too few steps, the loss is still {losses[-1]:g}, the target {target:g}")
        rate = float(curvature**2 @ v / (curvature**3 @ v + curvature @ noise / batch_size))
        v = (1 - rate * curvature) ** 2 * v + rate**2 * noise / batch_size
        rates.append(rate)
        losses.append(float(curvature @ v) / 2)
    return np.array(rates), np.array(losses)
