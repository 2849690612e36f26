"""Gradient descent whose rate is read off the loss of the batch: Polyak's step and Armijo's line search."""

import math
from dataclasses import dataclass

import torch

from lrlib import _check
from lrlib.rule import Rule, State
from lrlib.rules import shaped

__all__ = ["PolyakStep", "Armijo"]

TRIES = 100  # of one line search


def inner(one: list[torch.Tensor], other: list[torch.Tensor]) -> torch.Tensor:
    """The inner products of two lists of tensors (R, ...), over all of each replica's numbers: (R,), in float64."""
    products = [(a.double() * b.double()).reshape(len(a), -1).sum(1) for a, b in zip(one, other, strict=True)]
    return torch.stack(products).sum(0)


def _remember(rate: torch.Tensor, states: list[State]) -> None:
    """Keep the last rate that was not zero, as from zero none could grow."""
    for state in states:
        state["rate"].copy_(torch.where(rate > 0, rate, state["rate"]))


@dataclass(frozen=True)
class PolyakStep(Rule):
    r"""Gradient descent by the rate at which the tangent along the gradient meets the lowest loss.

    .. math:: \theta_{t+1} = \theta_t - \eta_t\, d_t, \qquad
        \eta_t = \min\Big\{ \eta^{\max}_t,\; \gamma\, \eta_{t-1},\; \frac{\ell_t - L^*}{c\, \|d_t\|^2} \Big\},

    where :math:`d_t = g_t` is the gradient and :math:`\ell_t = L(\theta_t)` the loss of the mini-batch, and the
    schedule is the cap :math:`\eta^{\max}_t`, also of the first step. With a momentum of :math:`\beta` both are running
    means,

    .. math:: d_t = \beta\, d_{t-1} + (1 - \beta)\, g_t, \qquad \ell_t = \sum_k w_k\,
        \big( L(\theta_k) + \langle g_k, \theta_t - \theta_k \rangle \big),

    the latter of the tangents of all batches so far, at the present weights, with the weights :math:`w_k` that
    :math:`d_t` gives their gradients; the first gradient begins the mean. The norm is of all parameters together. Where
    :math:`\ell_t` is not above :math:`L^*`, or :math:`d_t` is zero, the weights stay. One forward pass more than
    gradient descent, which layers such as BatchNorm count too, and for which dropout draws anew; a loop of your own has
    the loss. Every replica of a :class:`~lrlib.Stack` has its own rate.

    Args:
        lowest: :math:`L^*`, the lowest value of the loss, finite; 0 for a loss that a network can bring to zero.
        c: > 0; 1 is Polyak's step.
        growth: :math:`\gamma >= 1`, the factor by which a rate may exceed the last one above zero; by default any.
        momentum: :math:`\beta` in [0, 1). A rate here is as long as one of gradient descent; `torch.optim.SGD` with
            momentum multiplies its own by :math:`1/(1 - \beta)`.

    Raises:
        TypeError: a setting is not a number.
        ValueError: a setting is out of its range.

    Source: Polyak (1969); with mini-batches and c: Loizou et al. (2021), arXiv 2002.10542; with momentum, as MoMo:
        Schaipp et al. (2024), arXiv 2305.07583.

    Example:
        >>> theta = torch.nn.Parameter(torch.tensor([4.0]))
        >>> optimizer = PolyakStep().optimizer([theta], lr=10.0)
        >>> def closure():
        ...     return theta.square().sum()
        >>> for _ in range(2):
        ...     optimizer.zero_grad()
        ...     closure().backward()
        ...     optimizer.step(closure)
        >>> theta.data, optimizer.param_groups[0]["applied_lr"]  # 4, 2, 1: the tangent of a parabola goes half the way
        (tensor([1.]), 0.25)
    """

    lowest: float = 0.0
    c: float = 1.0
    growth: float = math.inf
    momentum: float = 0.0
    joint = True
    needs_loss = True
    capturable = False

    def __post_init__(self):
        _check.finite("lowest", self.lowest)
        _check.positive("c", self.c)
        _check.below_one("momentum", self.momentum)
        if self.growth != math.inf:
            _check.at_least("growth", self.growth, 1.0)

    def start(self, p):
        unset = torch.full((len(p),), torch.nan, dtype=torch.float64, device=p.device)
        return {"direction": torch.zeros_like(p), "height": unset, "rate": torch.full_like(unset, torch.inf)}

    def moves(self, gradients, params, states, now):
        assert now.loss_at is not None
        before = states[0]["height"]
        new = (1.0 - self.momentum) + self.momentum * before.isnan().double()  # the first update has no past
        at_zero = now.loss_at(params).double() - inner(gradients, params)  # the height of the tangent at the origin
        height = torch.where(before.isnan(), at_zero, before.lerp(at_zero, new))
        along = [s["direction"].lerp(g, shaped(new, g)) for s, g in zip(states, gradients, strict=True)]
        gap = (height + inner(along, params) - self.lowest).clamp_min(0.0)
        rate = (gap / (self.c * inner(along, along))).nan_to_num(0.0, posinf=torch.inf)  # 0/0 is no step
        now.applied = torch.minimum(torch.minimum(rate, now.settings["lr"]), self.growth * states[0]["rate"])
        _remember(now.applied, states)
        for state, d in zip(states, along, strict=True):
            state["direction"].copy_(d)
            state["height"].copy_(height)
        return [shaped(now.applied, d) * d for d in along]


@dataclass(frozen=True)
class Armijo(Rule):
    r"""Gradient descent by the first rate of a falling row that lowers the batch's loss by a share of what it promises.

    Step t tries :math:`\eta = \eta^0_t, \rho\, \eta^0_t, \rho^2 \eta^0_t, \dots` and takes the first one with

    .. math:: L(\theta_t - \eta\, g_t) \le L(\theta_t) - c\, \eta\, \|g_t\|^2, \qquad
        \eta^0_t = \min\{\eta^{\max}_t,\; \gamma\, \eta_{t-1}\},

    L being the loss of the mini-batch. The schedule is the cap :math:`\eta^{\max}_t`, from which the first search
    starts. If none of a hundred rates does, the last one is taken. At each step as many forward passes more than
    gradient descent as there are tries, and one for :math:`L(\theta_t)`; the state "tries" counts the former. Layers
    that change in a forward pass, such as BatchNorm, count these passes too; dropout draws the same numbers in all of
    them. Every replica of a :class:`~lrlib.Stack` searches for itself.

    Args:
        c: the share of the promised fall, in (0, 1).
        backtrack: :math:`\rho`, in (0, 1).
        growth: :math:`\gamma >= 1`, the factor by which a first try may exceed the last rate above zero.

    Raises:
        TypeError: a setting is not a number.
        ValueError: a setting is out of its range.

    Source: Armijo (1966); with mini-batches and these settings: Vaswani et al. (2019), arXiv 1905.09997, where
        :math:`\gamma` is 2 an epoch.

    Example:
        >>> theta = torch.nn.Parameter(torch.tensor([1.0]))
        >>> optimizer = Armijo(c=0.5, backtrack=0.5).optimizer([theta], lr=8.0)
        >>> def closure():
        ...     return theta.square().sum()
        >>> optimizer.zero_grad()
        >>> closure().backward()
        >>> optimizer.step(closure)
        >>> optimizer.param_groups[0]["applied_lr"]  # of 8, 4, 2, 1, 0.5 the first that lowers this loss by a half
        0.5
    """

    c: float = 0.1
    backtrack: float = 0.9
    growth: float = 1.05
    joint = True
    needs_loss = True
    capturable = False

    def __post_init__(self):
        for name in ("c", "backtrack"):
            value = getattr(self, name)
            _check.below_one(name, _check.positive(name, value))
        _check.at_least("growth", self.growth, 1.0)

    def start(self, p):
        unset = torch.full((len(p),), torch.inf, dtype=torch.float64, device=p.device)
        return {"rate": unset, "tries": torch.zeros_like(unset)}

    def moves(self, gradients, params, states, now):
        assert now.loss_at is not None
        promised = self.c * inner(gradients, gradients)
        before = now.loss_at(params).double()
        rate = torch.minimum(states[0]["rate"] * self.growth, now.settings["lr"].expand(len(before)))
        tries, searching = states[0]["tries"].clone(), before.isfinite()
        for _ in range(TRIES):
            tries += searching
            moved = [p - shaped(rate, p) * g for p, g in zip(params, gradients, strict=True)]
            searching = searching & ~(now.loss_at(moved).double() <= before - rate * promised)
            if not searching.any():
                break
            rate = torch.where(searching, rate * self.backtrack, rate)
        _remember(rate, states)
        for state in states:
            state["tries"].copy_(tries)
        now.applied = rate
        return [shaped(rate, g) * g for g in gradients]
