r"""Rules that estimate their rate as they go, from how far the weights have come, and one that needs no schedule.

A stack of replicas is updated at once, each with an estimate of its own.
"""

from dataclasses import dataclass

import torch

from lrlib import _check
from lrlib.rule import Setting
from lrlib.rules import Adam, shaped

__all__ = ["DAdaptAdam", "Prodigy", "ScheduleFreeAdamW"]


def _total(parts: list[torch.Tensor]) -> torch.Tensor:
    """The sum over all coordinates of a list of tensors (R, ...), in float64: (R,)."""
    return torch.stack([part.reshape(len(part), -1).sum(1).double() for part in parts]).sum(0)


def _none(name: str, value: float) -> None:
    if value != 0:
        raise ValueError(f"{name}={value!r}: must be 0, as this rule has no weight decay")


@dataclass(frozen=True)
class _Estimating(Adam):
    joint = True
    d0: Setting = 1e-6
    allowed = {**Adam.allowed, "d0": _check.positive}

    def start(self, p):
        one = torch.ones(len(p), dtype=torch.float64, device=p.device)
        estimate = {"ratio": one, "top": torch.zeros_like(one)}  # d / d₀, and its numerator
        return super().start(p) | estimate | {"s": torch.zeros_like(p)}

    @staticmethod
    def raised(states: list[dict], top: torch.Tensor, factor) -> torch.Tensor:
        """The new d / d₀, the old one or top / (factor times the length of s), whichever is larger; kept with `top`."""
        length, ratio = _total([s["s"].abs() for s in states]), states[0]["ratio"]
        new = torch.where(length > 0, torch.maximum(ratio, top / (factor * length)), ratio)
        for s in states:
            s["ratio"].copy_(new)
            s["top"].copy_(top)
        return new


@dataclass(frozen=True)
class Prodigy(_Estimating):
    r"""Adam with the distance from the start, estimated on the way, as its rate.

    .. math:: p_t &= \tilde\beta\, p_{t-1} + \eta\, d_t^2\, \langle g_t, \theta_0 - \theta_t \rangle, \\
       q_t &= \tilde\beta\, q_{t-1} + \eta\, d_t^2\, g_t, \\
       d_{t+1} &= \max(d_t,\ p_t / \lVert q_t \rVert_1), \\
       \theta_{t+1} &= \theta_t - \eta\, d_t \Big( \frac{m_t}{\sqrt{v_t} + d_{t+1}\epsilon} + \lambda\, \theta_t \Big)

    with :math:`m_t` and :math:`v_t` as in Adam, of the gradients :math:`d_t g_t` and without the correction of their
    start, :math:`\tilde\beta = \sqrt{\beta_2}`, and :math:`\eta` from the schedule, usually 1.

    Args:
        betas, eps: as of :class:`~lrlib.Adam`.
        weight_decay: :math:`\lambda` >= 0, decoupled.
        d0: the first estimate, > 0; it can only rise.

    Raises:
        ValueError: a setting is out of its range.

    Source: Mishchenko and Defazio (2024); equals `pytorch_optimizer.Prodigy`.

    Example:
        >>> theta = torch.nn.Parameter(torch.tensor([0.0]))
        >>> optimizer = Prodigy().optimizer([theta], lr=1.0)
        >>> for _ in range(300):
        ...     theta.grad = theta.detach() - 1000.0
        ...     optimizer.step()
        >>> 900 < theta.item() < 1100
        True
    """

    def start(self, p):
        return super().start(p) | {"start": p.clone()}

    def moves(self, gradients, params, states, now):
        first, d0, gamma = states[0], now.settings["d0"], now.settings["lr"]
        beta1, beta2 = now.settings["betas[0]"], now.settings["betas[1]"]
        ratio = first["ratio"].clone()
        d = d0 * ratio
        pull = _total([g * (s["start"] - p) for g, p, s in zip(gradients, params, states, strict=True)])
        top = beta2**0.5 * first["top"] + ratio * d * gamma * pull
        for g, s in zip(gradients, states, strict=True):
            own = now.like(g)
            s["exp_avg"].mul_(own["betas[0]"]).add_(shaped(d * (1 - beta1), g) * g)
            s["exp_avg_sq"].mul_(own["betas[1]"]).add_(shaped(d * d * (1 - beta2), g) * g * g)
            s["s"].mul_(own["betas[1]"] ** 0.5).add_(shaped(ratio * d * gamma, g) * g)
        eps = d0 * self.raised(states, top, d0) * now.settings["eps"]
        moves = []
        for p, s in zip(params, states, strict=True):
            step = s["exp_avg"] / (s["exp_avg_sq"].sqrt() + shaped(eps, p)) + now.like(p)["weight_decay"] * p
            moves.append(shaped(d * gamma, p) * step)
        return moves


@dataclass(frozen=True)
class DAdaptAdam(_Estimating):
    r"""Adam whose rate is a lower bound on the distance to the minimum, which rises on the way.

    .. math:: p_t &= \tilde\beta\, p_{t-1} + (1 - \tilde\beta)\, \eta d_t \Big\langle g_t,
       \frac{q_{t-1}}{\sqrt{v_{t-1}} + \epsilon} \Big\rangle, \\
       q_t &= \tilde\beta\, q_{t-1} + (1 - \tilde\beta)\, \eta d_t\, g_t, \\
       d_{t+1} &= \max\Big(d_t,\ \frac{p_t}{(1 - \tilde\beta) \lVert q_t \rVert_1}\Big), \\
       \theta_{t+1} &= \theta_t - \frac{m_t}{\sqrt{v_t} + \epsilon}

    with :math:`v_t` as in Adam, :math:`m_t` of the gradients :math:`\eta d_t g_t`, both without the correction of
    their start, :math:`\tilde\beta = \sqrt{\beta_2}`, and :math:`\eta` from the schedule, usually 1.

    Args:
        betas, eps: as of :class:`~lrlib.Adam`.
        d0: the first estimate, > 0; it can only rise.

    Raises:
        ValueError: a setting is out of its range.

    Source: Defazio and Mishchenko (2023); equals `pytorch_optimizer.DAdaptAdam`.

    Example:
        >>> theta = torch.nn.Parameter(torch.tensor([0.0]))
        >>> optimizer = DAdaptAdam().optimizer([theta], lr=1.0)
        >>> theta.grad = torch.tensor([-5.0])
        >>> optimizer.step()
        >>> round(theta.item() * 1e6, 3)  # d₀ (1 - β₁) / √(1 - β₂)
        3.162
    """

    allowed = {**_Estimating.allowed, "weight_decay": _none}

    def moves(self, gradients, params, states, now):
        first, d0 = states[0], now.settings["d0"]
        beta1, beta2 = now.settings["betas[0]"], now.settings["betas[1]"]
        step, slow = d0 * first["ratio"] * now.settings["lr"], beta2**0.5
        pulls = []
        for g, s in zip(gradients, states, strict=True):
            own = now.like(g)
            pulls.append(g * s["s"] / (s["exp_avg_sq"].sqrt() + own["eps"]))
            s["exp_avg"].mul_(own["betas[0]"]).add_(shaped(step * (1 - beta1), g) * g)
            s["exp_avg_sq"].mul_(own["betas[1]"]).add_((1 - own["betas[1]"]) * g * g)
            s["s"].mul_(own["betas[1]"] ** 0.5).add_(shaped(step * (1 - slow), g) * g)
        top = slow * first["top"] + (1 - slow) * step * _total(pulls)
        self.raised(states, top, (1 - slow) * d0)
        return [s["exp_avg"] / (s["exp_avg_sq"].sqrt() + now.like(s["s"])["eps"]) for s in states]


@dataclass(frozen=True)
class ScheduleFreeAdamW(Adam):
    r"""Adam without a first mean, its gradients taken between a fast sequence and the average of that, the result.

    .. math:: y_t &= (1 - \beta_1)\, z_t + \beta_1\, x_t, \qquad
       z_{t+1} = z_t - \eta_t\, \frac{g(y_t)}{\sqrt{v_t / (1 - \beta_2^t)} + \epsilon}, \\
       x_{t+1} &= (1 - c_t)\, x_t + c_t\, z_{t+1}, \qquad c_t = \bar\eta_t^2 \Big/ \sum_{s \le t} \bar\eta_s^2

    where :math:`\bar\eta_t` is the largest rate so far and t counts from one; with a constant rate
    :math:`c_t = 1/t`. The parameters hold y. In :func:`lrlib.train` callbacks and test sets see x, which is also what
    a run leaves; an :meth:`optimizer` has no such mode, and leaves y.

    Args:
        betas: :math:`\beta_1` in (0, 1) and :math:`\beta_2` in [0, 1); the first is one number.
        eps: :math:`\epsilon`, > 0.
        weight_decay: :math:`\lambda` >= 0, added to the divided gradient as :math:`\lambda y_t`.

    Raises:
        ValueError: a setting is out of its range.

    Source: Defazio et al. (2024); equals `pytorch_optimizer.ScheduleFreeAdamW`.

    Example:
        >>> import lrlib
        >>> model = lrlib.mlp(64, 16, 10)
        >>> rule = ScheduleFreeAdamW()
        >>> bool(lrlib.train(model, lrlib.digits(), 0.01, steps=300, optimizer=rule).accuracy > 0.9)
        True
    """

    def __post_init__(self):
        super().__post_init__()
        _check.positive("betas[0]", self.betas[0])

    def start(self, p):
        numbers = {name: torch.zeros(len(p), dtype=torch.float64, device=p.device) for name in ("lr_max", "weight_sum")}
        return {"z": p.clone(), "exp_avg_sq": torch.zeros_like(p)} | numbers

    def moves(self, gradients, params, states, now):
        moves = []
        for g, y, s in zip(gradients, params, states, strict=True):
            own = now.like(y)
            s["lr_max"].copy_(torch.maximum(s["lr_max"], now.settings["lr"]))
            s["weight_sum"].add_(s["lr_max"] ** 2)
            part = torch.where(s["weight_sum"] > 0, s["lr_max"] ** 2 / s["weight_sum"], 0.0)
            c, beta2 = shaped(part, y), own["betas[1]"]
            v = s["exp_avg_sq"].mul_(beta2).add_((1 - beta2) * g * g)
            u = g / ((v / (1 - beta2**now.t)).sqrt() + own["eps"]) + own["weight_decay"] * y
            moves.append(c * (y - s["z"]) - own["lr"] * (own["betas[0]"] * (1 - c) - 1) * u)
            s["z"].sub_(own["lr"] * u)
        return moves

    def evaluated(self, params, states):
        back = 1 - 1 / self.betas[0]
        return [y.lerp(s["z"], back) if "z" in s else y for y, s in zip(params, states, strict=True)]
