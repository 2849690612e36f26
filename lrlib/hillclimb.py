"""Gradient descent whose rate climbs downhill: the rule that compares the losses of two rates at every step."""

from dataclasses import dataclass

import torch

from lrlib import _check
from lrlib.rule import Rule
from lrlib.rules import shaped

__all__ = ["HillClimb"]


@dataclass(frozen=True)
class HillClimb(Rule):
    r"""Gradient descent whose rate is raised or lowered, whichever lowers the mini-batch loss more.

    With the smoothed gradient :math:`d_t = \beta\, d_{t-1} + (1 - \beta)\, g_t`, :math:`d_{-1} = 0`, step t compares
    the loss of the same mini-batch at the two points that a larger and a smaller rate lead to, and goes to the better:

    .. math:: \eta_t &= \eta_{t-1} (1 + \epsilon) \text{ if } L(\theta_t - \eta_{t-1} (1 + \epsilon)\, d_t)
        < L(\theta_t - \eta_{t-1} (1 - \epsilon)\, d_t), \\
        &\phantom{{}={}} \eta_{t-1} (1 - \epsilon) \text{ otherwise}, \\
        \theta_{t+1} &= \theta_t - \eta_t\, d_t .

    Two forward passes more than gradient descent, at every step that tunes. Layers that change in a forward pass, such
    as BatchNorm, count these passes too; dropout draws the same numbers in all of them. The schedule is the rate to
    begin with; the state "factor" is by how much it has been changed. Every replica of a :class:`~lrlib.Stack` tunes
    its own rate.

    Args:
        step_size: :math:`\epsilon`, the relative change of the rate, in (0, 1).
        every: tune at every so many steps, >= 1, beginning with the first.
        smoothing: :math:`\beta` in [0, 1), the weight of the past in the direction.
        tune_smoothing: also tune :math:`\beta`, after the rate and in the same way: :math:`1 - \beta` is raised or
            lowered, and stays in [`step_size`/100, 1]. Two more forward passes.

    Raises:
        TypeError: a setting is of a wrong type.
        ValueError: a setting is out of its range.

    Source: the blog post *A hill-climbing learning rate*, and the smoothing that it mentions.

    Example:
        >>> theta = torch.nn.Parameter(torch.tensor([1.0]))
        >>> optimizer = HillClimb(smoothing=0.0).optimizer([theta], lr=0.1)
        >>> def closure():
        ...     return theta.square().sum()
        >>> for _ in range(2):
        ...     optimizer.zero_grad()
        ...     closure().backward()
        ...     optimizer.step(closure)
        >>> round(optimizer.param_groups[0]["applied_lr"], 6)  # the best rate here is 0.5
        0.10201
    """

    step_size: float = 0.01
    every: int = 1
    smoothing: float = 0.9
    tune_smoothing: bool = False
    joint = True
    needs_loss = True
    capturable = False

    def __post_init__(self):
        _check.below_one("step_size", _check.positive("step_size", self.step_size))
        _check.below_one("smoothing", self.smoothing)
        _check.integer("every", self.every, 1)
        if not isinstance(self.tune_smoothing, bool):
            raise TypeError(f"tune_smoothing={self.tune_smoothing!r}: must be True or False")

    def start(self, p):
        one = torch.ones(len(p), dtype=torch.float64, device=p.device)
        return {"direction": torch.zeros_like(p), "factor": one, "smoothing": self.smoothing * one}

    def moves(self, gradients, params, states, now):
        lr, factor, smoothing = now.settings["lr"], states[0]["factor"], states[0]["smoothing"]

        def directions(s):
            return [
                shaped(s, g) * state["direction"] + shaped(1 - s, g) * g
                for g, state in zip(gradients, states, strict=True)
            ]

        def loss(factor, along):
            return now.loss_at([p - shaped(lr * factor, p) * d for p, d in zip(params, along, strict=True)])

        along, up, down = directions(smoothing), 1 + self.step_size, 1 - self.step_size
        if (now.t - 1) % self.every == 0:
            higher = loss(factor * up, along) < loss(factor * down, along)
            factor = torch.where(higher, factor * up, factor * down)
            if self.tune_smoothing:
                more, less = (1 - ((1 - smoothing) * f).clamp(self.step_size / 100, 1.0) for f in (up, down))
                better = loss(factor, directions(more)) < loss(factor, directions(less))
                smoothing = torch.where(better, more, less)
                along = directions(smoothing)
        for state, d in zip(states, along, strict=True):
            state["direction"].copy_(d)
            state["factor"].copy_(factor)
            state["smoothing"].copy_(smoothing)
        now.applied = lr * factor
        return [shaped(now.applied, d) * d for d in along]
