r"""Scale invariance: checks of the lemma, and weight decay turned into a learning rate that grows.

A loss is scale-invariant in its parameters when :math:`L(c\,\theta) = L(\theta)` for every :math:`c > 0`. Then SGD with
weight decay :math:`\lambda` passes through the same functions as SGD without it whose rate grows. Everything here is in
PyTorch's convention, in which the rate multiplies the momentum buffer and the decay is part of the gradient:

.. math:: v_t = \beta v_{t-1} + \nabla L(\theta_t) + \lambda \theta_t, \qquad \theta_{t+1} = \theta_t - \eta_t v_t,
          \qquad v_{-1} = 0.

The functions that touch an optimizer act on its first parameter group: put the scale-invariant parameters there. The
other parameters keep their own rate and decay.
"""

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import nn

from lrlib import _check
from lrlib.schedules import Schedule, check_schedule

__all__ = [
    "ExponentialEquivalent", "TaperedExponential", "exponential_equivalent", "tapered_exponential", "rescale",
    "equivalent_schedule", "shift_momentum", "radial_cosine", "scaling_error", "is_scale_invariant", "set_norm_eps",
    "normalised_weights",
]  # fmt: skip

Loss = Callable[[], torch.Tensor]


def _one_minus_alpha(lr: float, weight_decay: float, momentum: float) -> float:
    r"""The smaller root :math:`1 - \alpha` of :math:`d^2 - (1 - \beta + \lambda\eta)\,d + \lambda\eta = 0`."""
    product, root = weight_decay * lr, math.sqrt(momentum)
    limit = (1 - root) ** 2
    if product > limit or product >= 1:
        raise ValueError(
            f"weight_decay * lr = {product:g}: must be {'<' if momentum == 0 else '<='} (1 - sqrt(momentum))**2 = "
            f"{limit:g}, or the roots of x**2 - (1 + momentum - weight_decay * lr) * x + momentum are "
            f"{'complex' if product < (1 + root) ** 2 else 'not positive'}; "
            f"lr={lr!r}, weight_decay={weight_decay!r}, momentum={momentum!r}"
        )
    discriminant = (limit - product) * ((1 + root) ** 2 - product)
    return 2 * product / (1 - momentum + product + math.sqrt(discriminant))


def _grown(lr, exponent: np.ndarray) -> np.ndarray:
    """The rate times the exponential, infinite where float64 ends."""
    with np.errstate(over="ignore"):
        return lr * np.exp(exponent)


@dataclass(frozen=True)
class ExponentialEquivalent:
    """A growing rate without weight decay that gives the same functions as a constant rate with it.

    Attributes:
        alpha: the factor by which the weights of the two runs come apart per step, in (0, 1].
        growth: of the rate, per step: alpha**-2.
        schedule: the rate of step t, lr * alpha**(-2 t - 1).
        initial_momentum: the factor f, <= 0: the momentum buffers must start at f times the weights.
    """

    alpha: float
    growth: float
    schedule: Schedule
    initial_momentum: float


def exponential_equivalent(lr: float, weight_decay: float, momentum: float) -> ExponentialEquivalent:
    r"""The exponentially growing rate that replaces weight decay on scale-invariant parameters.

    With :math:`\alpha` the larger root of :math:`x^2 - (1 + \beta - \lambda\eta)\,x + \beta = 0`,

    .. math:: \tilde\eta_t = \eta\,\alpha^{-2t-1}, \qquad \tilde v_{-1} = -\frac{1 - \alpha}{\alpha\eta}\,\theta_0,
              \qquad \tilde\theta_t = \alpha^{-t}\,\theta_t .

    Run `torch.optim.SGD` with the same momentum and weight decay 0, let :func:`shift_momentum` set its buffers before
    the first step, and let :class:`~lrlib.ScheduleLR` apply `schedule`.

    Args:
        lr: constant rate of the run to replace, > 0.
        weight_decay: its decay, >= 0, as in `torch.optim.SGD`, with
            weight_decay * lr <= (1 - sqrt(momentum))**2 (< 1 without momentum).
        momentum: of both runs, in [0, 1).

    Raises:
        ValueError: an argument is out of its range, or the roots are complex or not positive.

    Source: Li and Arora (2020), theorem 2.1; the initial momentum is derived in the chapter.

    Example:
        >>> same = exponential_equivalent(lr=0.1, weight_decay=5e-4, momentum=0.9)
        >>> round(same.growth, 7), round(same.growth**391, 5)
        (1.0010053, 1.48123)
    """
    lr = _check.positive("lr", lr)
    weight_decay = _check.nonnegative("weight_decay", weight_decay)
    momentum = _check.below_one("momentum", momentum)
    d = _one_minus_alpha(lr, weight_decay, momentum)
    log_alpha = math.log1p(-d)
    call = exponential_equivalent, lr, weight_decay, momentum
    schedule = Schedule(lambda t: _grown(lr, -(2 * t + 1) * log_alpha), call)
    return ExponentialEquivalent(1 - d, math.exp(-2 * log_alpha), schedule, -d / ((1 - d) * lr))


@dataclass(frozen=True)
class TaperedExponential:
    """A piecewise growing rate without weight decay that gives the same functions as step decay with it (TEXP).

    Attributes:
        milestones: the first steps of phases 1, 2, ...
        alphas, growths: of each phase 0, 1, 2, ..., one more than milestones; growths are alphas**-2, per step.
        schedule: the rate of step t.
        initial_momentum: the factor f: the momentum buffers must start at f times the weights.
        corrections: one factor for each milestone: before that step, the buffers must gain it times the weights.
    """

    milestones: tuple[int, ...]
    alphas: tuple[float, ...]
    growths: tuple[float, ...]
    schedule: Schedule
    initial_momentum: float
    corrections: tuple[float, ...]

    def correct(self, run) -> None:
        """Correct the momentum at a milestone, else do nothing: a callback for :func:`lrlib.train`."""
        if run.step in self.milestones:
            shift_momentum(run.optimizer, self.corrections[self.milestones.index(run.step)])


def tapered_exponential(
    lr: float, milestones: Sequence[int], gamma: float, weight_decay: float, momentum: float
) -> TaperedExponential:
    r"""The tapered exponential rate that replaces weight decay under step decay.

    Phase :math:`I` has the rate :math:`\eta_I = \eta\gamma^I` and its own larger root :math:`\alpha_I`. With
    :math:`P_0 = 1`, :math:`P_{t+1} = \alpha_I P_t` in phase :math:`I`, and
    :math:`k_I = (1 - \alpha_I)/(\alpha_I\eta_I)`,

    .. math:: \tilde\eta_t = \frac{\eta_I}{P_t P_{t+1}}, \qquad \tilde v_{-1} = -k_0\theta_0, \qquad
              \tilde v_{s-1} \leftarrow \tilde v_{s-1} + (k_{I-1} - k_I) P_s^2\,\tilde\theta_s

    at the first step :math:`s` of phase :math:`I`. From the last step of a phase to the next one the rate is multiplied
    by :math:`\gamma / (\alpha_{I-1}\alpha_I)`.

    Args:
        lr: rate of phase 0 of the run to replace, > 0.
        milestones: the steps from which each cut holds, strictly increasing, each >= 1.
        gamma: factor of each cut, > 0.
        weight_decay: of the run to replace, >= 0; the condition of :func:`exponential_equivalent` holds in each phase.
        momentum: of both runs, in [0, 1).

    Raises:
        ValueError: an argument is out of its range, or a phase's roots are complex or not positive.

    Source: Li and Arora (2020), theorem 2.12.

    Example:
        >>> same = tapered_exponential(0.1, [100], gamma=0.1, weight_decay=5e-4, momentum=0.9)
        >>> [round(growth, 6) for growth in same.growths]
        [1.001005, 1.0001]
        >>> bool(same.schedule(100) < 0.11 * same.schedule(99))
        True
    """
    lr = _check.positive("lr", lr)
    cuts = tuple(_check.increasing("milestones", milestones, 1))
    gamma = _check.positive("gamma", gamma)
    weight_decay = _check.nonnegative("weight_decay", weight_decay)
    momentum = _check.below_one("momentum", momentum)
    rates = lr * gamma ** np.arange(len(cuts) + 1.0)
    d = np.array([_one_minus_alpha(float(rate), weight_decay, momentum) for rate in rates])
    log_alpha, k = np.log1p(-d), d / ((1 - d) * rates)
    starts = np.array([0, *cuts], dtype=np.float64)
    log_scale = np.concatenate([[0.0], np.cumsum(np.diff(starts) * log_alpha[:-1])])

    def formula(t):
        phase = np.searchsorted(starts, t, side="right") - 1
        return _grown(rates[phase], -2 * log_scale[phase] - (2 * (t - starts[phase]) + 1) * log_alpha[phase])

    return TaperedExponential(
        milestones=cuts,
        alphas=tuple((1 - d).tolist()),
        growths=tuple(np.exp(-2 * log_alpha).tolist()),
        schedule=Schedule(formula, (tapered_exponential, lr, cuts, gamma, weight_decay, momentum)),
        initial_momentum=-float(k[0]),
        corrections=tuple(((k[:-1] - k[1:]) * np.exp(2 * log_scale[1:])).tolist()),
    )


def equivalent_schedule(schedule: Schedule, weight_decay: float, momentum: float, total_steps: int) -> Schedule:
    r"""The rate that replaces weight decay under any schedule, with momentum buffers that start at zero as usual.

    With :math:`k_0 = 0`, :math:`P_0 = 1` and, step by step,

    .. math:: \alpha_t &= 1 - \eta_t(\lambda + \beta k_t), \quad k_{t+1} = (\lambda + \beta k_t)/\alpha_t, \quad
              P_{t+1} = \alpha_t P_t, \\ \tilde\eta_t &= \frac{\eta_t}{P_t P_{t+1}}, \quad
              \tilde\theta_t = \theta_t / P_t .

    For a constant rate :math:`\alpha_t` tends to the :math:`\alpha` of :func:`exponential_equivalent`.

    Args:
        schedule: of the run to replace.
        weight_decay: its decay, >= 0.
        momentum: of both runs, in [0, 1).
        total_steps: the length of the run, >= 1; later steps get the last rate and are not equivalent.

    Raises:
        TypeError: `schedule` is not a :class:`~lrlib.Schedule`.
        ValueError: an argument is out of its range, a rate is negative or not finite, or some :math:`\alpha_t` is not
            positive.

    Example:
        >>> import lrlib
        >>> equivalent_schedule(lrlib.constant(0.5), weight_decay=1.0, momentum=0.0, total_steps=3)(range(3))
        array([ 1.,  4., 16.])
    """
    check_schedule("schedule", schedule)
    weight_decay = _check.nonnegative("weight_decay", weight_decay)
    momentum = _check.below_one("momentum", momentum)
    total_steps = _check.integer("total_steps", total_steps, 1)
    rates = schedule(np.arange(total_steps))
    if not (np.isfinite(rates).all() and rates.min() >= 0):
        raise ValueError(f"schedule={schedule!r}: must have finite rates >= 0 in its first {total_steps} steps")
    k, log_scale = 0.0, np.zeros(total_steps + 1)
    for t, rate in enumerate(rates.tolist()):
        pull = weight_decay + momentum * k
        if not rate * pull < 1:
            most = f"< {1 / pull:g} there, or the weights change their sign"
            raise ValueError(f"schedule={schedule!r}: is {rate:g} at step {t}, must be {most}")
        k = pull / (1 - rate * pull)
        log_scale[t + 1] = log_scale[t] + math.log1p(-rate * pull)
    table = Schedule.from_table(_grown(rates, -log_scale[:-1] - log_scale[1:]))
    call = equivalent_schedule, schedule, weight_decay, momentum, total_steps
    return Schedule(table.at, call, horizon=total_steps)


def _first_group(optimizer: torch.optim.Optimizer) -> list[torch.Tensor]:
    if not isinstance(optimizer, torch.optim.SGD):
        raise TypeError(f"optimizer={type(optimizer).__name__}: must be a torch.optim.SGD")
    group = optimizer.param_groups[0]
    if group["dampening"] or group["nesterov"]:
        found = f"dampening={group['dampening']!r} and nesterov={group['nesterov']!r}"
        raise ValueError(f"optimizer: has {found}, must have neither")
    return group["params"]


@torch.no_grad()
def shift_momentum(optimizer: torch.optim.SGD, factor: float) -> None:
    r"""Add a multiple of the weights to the momentum buffers of the first group: :math:`v \leftarrow v + f\,\theta`.

    A buffer that is not there yet counts as zero, as it does in the first step of `torch.optim.SGD`.

    Args:
        optimizer: a plain `torch.optim.SGD`, without dampening and without Nesterov's variant.
        factor: :math:`f`, such as `initial_momentum` before the first step.

    Raises:
        TypeError: `optimizer` is not a `torch.optim.SGD`.
        ValueError: `factor` is not finite, or the optimizer uses dampening or Nesterov's variant.

    Example:
        >>> weight = torch.nn.Parameter(torch.ones(2))
        >>> optimizer = torch.optim.SGD([weight], lr=0.1, momentum=0.9)
        >>> shift_momentum(optimizer, -0.5)
        >>> optimizer.state[weight]["momentum_buffer"]
        tensor([-0.5000, -0.5000])
    """
    factor = _check.finite("factor", factor)
    for p in _first_group(optimizer):
        buffer = optimizer.state[p].get("momentum_buffer")
        optimizer.state[p]["momentum_buffer"] = factor * p if buffer is None else buffer.add_(p, alpha=factor)


@torch.no_grad()
def rescale(optimizer: torch.optim.SGD, factor: float) -> None:
    r"""Multiply the weights of the first group by :math:`c` and divide their momentum buffers by it.

    Scale-invariant weights then compute the same function, and if the rate is multiplied by :math:`c^2` from here on,
    they go on to do so. A power of two only changes exponents: no digit is lost.

    Args:
        optimizer: a plain `torch.optim.SGD`, without dampening and without Nesterov's variant.
        factor: :math:`c` > 0.

    Raises:
        TypeError: `optimizer` is not a `torch.optim.SGD`.
        ValueError: `factor` is not > 0, or the optimizer uses dampening or Nesterov's variant.

    Example:
        >>> weight = torch.nn.Parameter(torch.ones(2))
        >>> rescale(torch.optim.SGD([weight], lr=0.1), 0.25)
        >>> weight.tolist()
        [0.25, 0.25]
    """
    factor = _check.positive("factor", factor)
    for p in _first_group(optimizer):
        p.mul_(factor)
        buffer = optimizer.state[p].get("momentum_buffer")
        if buffer is not None:
            buffer.div_(factor)


def _parameters(parameters: Iterable[torch.Tensor]) -> list[torch.Tensor]:
    tensors = [parameters] if isinstance(parameters, torch.Tensor) else list(parameters)
    if not tensors or not all(isinstance(p, torch.Tensor) and p.requires_grad for p in tensors):
        raise ValueError("parameters: must be one or more tensors that require a gradient")
    return list(dict.fromkeys(tensors))  # a tied weight once


def _flat(tensors: Iterable[torch.Tensor]) -> torch.Tensor:
    return torch.cat([tensor.detach().flatten() for tensor in tensors])


def _gradient(loss: Loss, parameters: list[torch.Tensor]) -> torch.Tensor:
    return _flat(torch.autograd.grad(loss(), parameters, materialize_grads=True))


def _at(factor: float, parameters: list[torch.Tensor], measure: Callable):
    """What is measured with the parameters multiplied by `factor`, which are restored exactly."""
    saved = [p.detach().clone() for p in parameters]
    try:
        for p in parameters:
            p.data.mul_(factor)
        return measure()
    finally:
        for p, value in zip(parameters, saved, strict=True):
            p.data.copy_(value)


def radial_cosine(loss: Loss, parameters: Iterable[torch.Tensor]) -> float:
    r"""The cosine between gradient and parameters, :math:`\langle\nabla L, \theta\rangle / (\|\nabla L\|\,\|\theta\|)`.

    It is zero for a scale-invariant loss.

    Args:
        loss: called without arguments, returns the scalar loss at the parameters' present values.
        parameters: one tensor or several, taken as one vector; each requires a gradient.

    Raises:
        ValueError: no parameters, or one that requires no gradient.

    Example:
        >>> w = torch.tensor([3.0, 4.0], dtype=torch.float64, requires_grad=True)
        >>> round(radial_cosine(lambda: w[0] / w.norm(), w), 12) == 0
        True
        >>> round(radial_cosine(lambda: w[0] ** 2, w), 12)
        0.6
    """
    tensors = _parameters(parameters)
    g, theta = _gradient(loss, tensors), _flat(tensors)
    return (torch.dot(g, theta) / (g.norm() * theta.norm())).item()


def scaling_error(loss: Loss, parameters: Iterable[torch.Tensor], factor: float) -> float:
    r"""How far the gradient is from scaling inversely with the parameters.

    .. math:: \|c\nabla L(c\,\theta) - \nabla L(\theta)\| / \|\nabla L(\theta)\|

    Args:
        loss: called without arguments, returns the scalar loss at the parameters' present values.
        parameters: one tensor or several, scaled together; each requires a gradient.
        factor: :math:`c` > 0.

    Raises:
        ValueError: no parameters, one that requires no gradient, or `factor` is not > 0.

    Example:
        >>> w = torch.tensor([3.0, 4.0], dtype=torch.float64, requires_grad=True)
        >>> scaling_error(lambda: w[0] / w.norm(), w, 100.0) < 1e-14
        True
    """
    tensors, factor = _parameters(parameters), _check.positive("factor", factor)
    here, there = (_at(c, tensors, lambda: _gradient(loss, tensors)) for c in (1.0, factor))
    return ((factor * there - here).norm() / here.norm()).item()


def is_scale_invariant(loss: Loss, parameters: Iterable[torch.Tensor], tolerance: float = 1e-9) -> bool:
    """Whether the loss stays the same, to a relative `tolerance`, when the parameters are multiplied by 1/10 and by 10.

    Args:
        loss: called three times without arguments, returns the scalar loss at the parameters' present values. A model
            in training mode counts these calls in the running statistics of its BatchNorm layers.
        parameters: one tensor or several, scaled together; each requires a gradient.
        tolerance: > 0, relative to the loss. The default is for float64 and for normalisation without eps.

    Raises:
        ValueError: no parameters, one that requires no gradient, or `tolerance` is not > 0.

    Example:
        >>> w = torch.tensor([3.0, 4.0], dtype=torch.float64, requires_grad=True)
        >>> is_scale_invariant(lambda: w[0] / w.norm(), w), is_scale_invariant(lambda: w[0], w)
        (True, False)
    """
    tensors, tolerance = _parameters(parameters), _check.positive("tolerance", tolerance)
    with torch.no_grad():
        here, *there = (_at(factor, tensors, lambda: loss().item()) for factor in (1.0, 0.1, 10.0))
    return all(abs(value - here) <= tolerance * abs(here) for value in there)


def normalised_weights(model: nn.Module) -> list[nn.Parameter]:
    """The weights of every linear and convolutional layer but the last linear one, the head; a tied one once.

    In the networks of :mod:`lrlib.models` with a norm, but for :func:`~lrlib.fast_net`, these are scale-invariant
    together; see :func:`is_scale_invariant` for other networks.

    Args:
        model: a module with a linear head and at least one such layer besides it.

    Raises:
        ValueError: it has no linear layer, or no other one.

    Example:
        >>> import lrlib
        >>> [tuple(weight.shape) for weight in normalised_weights(lrlib.mlp(64, 32, 16, 10, norm="batch"))]
        [(32, 64), (16, 32)]
    """
    layers = [m for m in model.modules() if isinstance(m, nn.Linear | nn.modules.conv._ConvNd)]
    heads = [m for m in layers if isinstance(m, nn.Linear)]
    weights: list = [m.weight for m in layers if m not in heads[-1:]]
    if not heads or not weights:
        raise ValueError(f"model={type(model).__name__}: must have a linear head and a layer before it")
    return list(dict.fromkeys(weights))  # a tied one once


def set_norm_eps(model: nn.Module, eps: float) -> None:
    """Set `eps` of every normalisation layer of a model.

    With 1e-300, which is lost in rounding beside any variance, the invariance is exact; torch refuses 0.

    Args:
        model: any module.
        eps: what the layers add to a variance, > 0.

    Raises:
        ValueError: `eps` is not > 0 and finite.

    Example:
        >>> model = nn.Sequential(nn.BatchNorm1d(3))
        >>> set_norm_eps(model, 1e-300)
        >>> model[0].eps
        1e-300
    """
    eps = _check.positive("eps", eps)
    for module in model.modules():
        if isinstance(module, nn.modules.batchnorm._NormBase | nn.GroupNorm | nn.LayerNorm | nn.RMSNorm):
            module.eps = eps
