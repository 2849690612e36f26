r"""Update rules as pure functions of gradient, weights and state: from SGD to Muon, and rates that set themselves.

A rule answers one question: by what :math:`\Delta` do the weights move, :math:`\theta_{t+1} = \theta_t - \Delta_t`? It
never touches the weights itself. Everything has a leading axis of R replicas, so that a rule that trains one network
trains a :class:`~lrlib.Stack` of them: a parameter is (R, ...), and each number of a rule may be one for all, one for
each of R replicas, or a :class:`~lrlib.Schedule`. :func:`lrlib.train` runs rules; :meth:`Rule.optimizer` makes any of
them a `torch.optim.Optimizer` for a loop of your own. Names and defaults are PyTorch's where it has the method.

In the formulas :math:`g_t` is the gradient of update t, :math:`\eta_t` its rate, and all is coordinate by coordinate
unless said otherwise.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch

from lrlib import _check
from lrlib.rule import Rule, Setting

__all__ = [
    "SGD", "Adagrad", "RMSprop", "Adadelta", "Adam", "AdamW", "Lion", "Muon", "FTRLProximal", "Parabola",
    "Hypergradient",
]  # fmt: skip


def shaped(value: torch.Tensor, p: torch.Tensor) -> torch.Tensor:
    """One number a replica, (R,), in a shape and type that multiply a parameter (R, ...)."""
    return value.to(p.dtype).view(-1, *[1] * (p.ndim - 1))


def _is_zero(setting: Setting) -> bool:
    return isinstance(setting, int | float) and setting == 0


def _tiny(eps: float | torch.Tensor, p: torch.Tensor) -> float | torch.Tensor:
    """eps, or the smallest number of the weights' type where eps would be lost in it."""
    least = torch.finfo(p.dtype).smallest_normal
    return eps.clamp_min(least) if isinstance(eps, torch.Tensor) else max(eps, least)


@dataclass(frozen=True)
class SGD(Rule):
    r"""Gradient descent, with momentum.

    .. math:: v_t = \beta v_{t-1} + g_t + \lambda \theta_t, \qquad \theta_{t+1} = \theta_t - \eta_t v_t,

    and with Nesterov's variant :math:`\theta_{t+1} = \theta_t - \eta_t (g_t + \lambda \theta_t + \beta v_t)`.

    Args:
        momentum: :math:`\beta`, in [0, 1).
        weight_decay: :math:`\lambda`, >= 0.
        nesterov: whether to use Nesterov's variant.

    Raises:
        ValueError: a setting is out of its range.

    Source: equals `torch.optim.SGD`.

    Example:
        >>> theta = torch.nn.Parameter(torch.tensor([1.0]))
        >>> optimizer = SGD(momentum=0.5).optimizer([theta], lr=0.25)
        >>> for _ in range(2):
        ...     theta.grad = torch.ones(1)
        ...     optimizer.step()
        >>> theta.data
        tensor([0.3750])
    """

    momentum: Setting = 0.0
    weight_decay: Setting = 0.0
    nesterov: bool = False
    allowed = {"momentum": _check.below_one, "weight_decay": _check.nonnegative}

    def start(self, p):
        return {} if _is_zero(self.momentum) else {"momentum_buffer": torch.zeros_like(p)}

    def move(self, g, p, state, now):
        if not _is_zero(now["weight_decay"]):
            g = g + now["weight_decay"] * p
        if "momentum_buffer" not in state:
            if _is_zero(now["momentum"]):
                return now["lr"] * g
            state["momentum_buffer"] = torch.zeros_like(p)  # of an optimizer whose momentum has risen from zero
        v = state["momentum_buffer"].mul_(now["momentum"]).add_(g)
        return now["lr"] * (g + now["momentum"] * v if self.nesterov else v)


@dataclass(frozen=True)
class Adagrad(Rule):
    r"""A rate for each coordinate, from the sum of its squared gradients.

    .. math:: G_t = G_{t-1} + g_t^2, \qquad \theta_{t+1} = \theta_t - \frac{\eta_t}{\sqrt{G_t} + \epsilon}\, g_t

    Args:
        eps: :math:`\epsilon`, > 0.

    Raises:
        ValueError: a setting is out of its range.

    Source: Duchi, Hazan and Singer (2011); equals `torch.optim.Adagrad`.

    Example:
        >>> theta = torch.nn.Parameter(torch.tensor([1.0, 1.0]))
        >>> optimizer = Adagrad().optimizer([theta], lr=0.5)
        >>> theta.grad = torch.tensor([100.0, 0.01])
        >>> optimizer.step()
        >>> theta.data  # the first step is lr, whatever the size of the gradient
        tensor([0.5000, 0.5000])
    """

    eps: Setting = 1e-10
    allowed = {"eps": _check.positive}

    def start(self, p):
        return {"sum": torch.zeros_like(p)}

    def move(self, g, p, state, now):
        return now["lr"] * g / (state["sum"].addcmul_(g, g).sqrt() + _tiny(now["eps"], p))


@dataclass(frozen=True)
class RMSprop(Rule):
    r"""Adagrad that forgets: a running mean of squared gradients instead of their sum.

    .. math:: v_t = \alpha v_{t-1} + (1 - \alpha) g_t^2, \qquad
       \theta_{t+1} = \theta_t - \frac{\eta_t}{\sqrt{v_t} + \epsilon}\, g_t

    Args:
        alpha: :math:`\alpha`, in [0, 1).
        eps: :math:`\epsilon`, > 0.

    Raises:
        ValueError: a setting is out of its range.

    Source: Tieleman and Hinton (2012); equals `torch.optim.RMSprop`.

    Example:
        >>> theta = torch.nn.Parameter(torch.tensor([1.0, 1.0]))
        >>> optimizer = RMSprop().optimizer([theta], lr=0.05)
        >>> theta.grad = torch.tensor([100.0, 0.01])
        >>> optimizer.step()
        >>> theta.data  # the first step is lr / sqrt(1 - alpha)
        tensor([0.5000, 0.5000])
    """

    alpha: Setting = 0.99
    eps: Setting = 1e-8
    allowed = {"alpha": _check.below_one, "eps": _check.positive}

    def start(self, p):
        return {"square_avg": torch.zeros_like(p)}

    def move(self, g, p, state, now):
        v = state["square_avg"].mul_(now["alpha"]).add_((1 - now["alpha"]) * g * g)
        return now["lr"] * g / (v.sqrt() + _tiny(now["eps"], p))


@dataclass(frozen=True)
class Adadelta(Rule):
    r"""Steps in the unit of the weights: the size of past steps, divided by that of past gradients.

    .. math:: v_t &= \rho v_{t-1} + (1 - \rho) g_t^2, \qquad
       \Delta_t = \sqrt{\frac{u_{t-1} + \epsilon}{v_t + \epsilon}}\; g_t, \\
       u_t &= \rho u_{t-1} + (1 - \rho) \Delta_t^2, \qquad
       \theta_{t+1} = \theta_t - \eta_t \Delta_t

    Args:
        rho: :math:`\rho`, in [0, 1).
        eps: :math:`\epsilon`, > 0; it sets the first steps.

    Raises:
        ValueError: a setting is out of its range.

    Source: Zeiler (2012), where :math:`\eta = 1`; equals `torch.optim.Adadelta`.

    Example:
        >>> theta = torch.nn.Parameter(torch.tensor([1.0, 1.0], dtype=torch.float64))
        >>> optimizer = Adadelta(rho=0.75).optimizer([theta], lr=1.0)
        >>> theta.grad = torch.tensor([100.0, 10.0], dtype=torch.float64)
        >>> optimizer.step()
        >>> 1 - theta.data  # sqrt(eps / (1 - rho))
        tensor([0.0020, 0.0020], dtype=torch.float64)
    """

    rho: Setting = 0.9
    eps: Setting = 1e-6
    allowed = {"rho": _check.below_one, "eps": _check.positive}

    def start(self, p):
        return {"square_avg": torch.zeros_like(p), "acc_delta": torch.zeros_like(p)}

    def move(self, g, p, state, now):
        v = state["square_avg"].mul_(now["rho"]).add_((1 - now["rho"]) * g * g)
        delta = ((state["acc_delta"] + now["eps"]) / (v + now["eps"])).sqrt() * g
        state["acc_delta"].mul_(now["rho"]).add_((1 - now["rho"]) * delta * delta)
        return now["lr"] * delta


@dataclass(frozen=True)
class _WithBetas(Rule):
    """A rule with a pair of numbers, of which each may differ by replica or by step."""

    betas: tuple[Setting, Setting] = (0.9, 0.999)
    allowed = {"betas[0]": _check.below_one, "betas[1]": _check.below_one}

    def settings(self):
        if not isinstance(self.betas, tuple | list) or len(self.betas) != 2:
            raise TypeError(f"betas={self.betas!r}: must be a pair of numbers in [0, 1)")
        return super().settings() | {"betas[0]": self.betas[0], "betas[1]": self.betas[1]}


@dataclass(frozen=True)
class Adam(_WithBetas):
    r"""RMSprop along a running mean of the gradient, both means corrected for their start at zero.

    .. math:: m_t &= \beta_1 m_{t-1} + (1 - \beta_1) g_t, \qquad v_t = \beta_2 v_{t-1} + (1 - \beta_2) g_t^2, \\
       \theta_{t+1} &= \theta_t - \eta_t\, \frac{m_t / (1 - \beta_1^t)}{\sqrt{v_t / (1 - \beta_2^t)} + \epsilon}

    Here t counts from one. A weight decay is added to the gradient, as :math:`g_t + \lambda\theta_t`.

    Args:
        betas: :math:`\beta_1` and :math:`\beta_2`, each in [0, 1).
        eps: :math:`\epsilon`, > 0.
        weight_decay: :math:`\lambda`, >= 0.

    Raises:
        ValueError: a setting is out of its range.

    Source: Kingma and Ba (2015); equals `torch.optim.Adam`.

    Example:
        >>> theta = torch.nn.Parameter(torch.tensor([1.0, 1.0]))
        >>> optimizer = Adam().optimizer([theta], lr=0.25)
        >>> theta.grad = torch.tensor([100.0, -0.01])
        >>> optimizer.step()
        >>> theta.data
        tensor([0.7500, 1.2500])
    """

    eps: Setting = 1e-8
    weight_decay: Setting = 0.0
    allowed = {**_WithBetas.allowed, "eps": _check.positive, "weight_decay": _check.nonnegative}

    def start(self, p):
        return {"exp_avg": torch.zeros_like(p), "exp_avg_sq": torch.zeros_like(p)}

    def direction(self, g, p, state, now):
        beta1, beta2 = now["betas[0]"], now["betas[1]"]
        m = state["exp_avg"].mul_(beta1).add_((1 - beta1) * g)
        v = state["exp_avg_sq"].mul_(beta2).add_((1 - beta2) * g * g)
        root = (v / (1 - beta2 ** now["t"])).sqrt_().add_(_tiny(now["eps"], p))
        return m / root / (1 - beta1 ** now["t"])

    def move(self, g, p, state, now):
        if not _is_zero(now["weight_decay"]):
            g = g + now["weight_decay"] * p
        return now["lr"] * self.direction(g, p, state, now)


@dataclass(frozen=True)
class AdamW(Adam):
    r"""Adam with decoupled weight decay: the decay does not pass through the means.

    .. math:: \theta_{t+1} = (1 - \eta_t\lambda)\,\theta_t - \eta_t\,
       \frac{m_t / (1 - \beta_1^t)}{\sqrt{v_t / (1 - \beta_2^t)} + \epsilon}

    Args:
        betas, eps: as of :class:`Adam`.
        weight_decay: :math:`\lambda`, >= 0.

    Raises:
        ValueError: a setting is out of its range.

    Source: Loshchilov and Hutter, *Decoupled Weight Decay Regularization* (2019); equals `torch.optim.AdamW`.

    Example:
        >>> theta = torch.nn.Parameter(torch.tensor([1.0]))
        >>> optimizer = AdamW(weight_decay=0.5).optimizer([theta], lr=0.25)
        >>> theta.grad = torch.tensor([3.0])
        >>> optimizer.step()
        >>> theta.data  # 1 - 0.25 · 0.5 - 0.25
        tensor([0.6250])
    """

    weight_decay: Setting = 1e-2

    def move(self, g, p, state, now):
        return now["lr"] * (self.direction(g, p, state, now) + now["weight_decay"] * p)


@dataclass(frozen=True)
class Lion(_WithBetas):
    r"""Only the sign of an interpolated momentum: every coordinate moves by the rate, up, down or not at all.

    .. math:: c_t &= \beta_1 m_{t-1} + (1 - \beta_1) g_t, \qquad
       \theta_{t+1} = (1 - \eta_t\lambda)\,\theta_t - \eta_t \operatorname{sign}(c_t), \\
       m_t &= \beta_2 m_{t-1} + (1 - \beta_2) g_t

    A step of Lion is larger than one of :class:`AdamW` at the same rate: the source takes a rate 3 to 10 times smaller,
    and a decay larger by as much.

    Args:
        betas: :math:`\beta_1`, of the step, and :math:`\beta_2`, of the memory, each in [0, 1).
        weight_decay: :math:`\lambda`, >= 0, decoupled.

    Raises:
        ValueError: a setting is out of its range.

    Source: Chen et al., *Symbolic Discovery of Optimization Algorithms* (2023), algorithm 2.

    Example:
        >>> theta = torch.nn.Parameter(torch.tensor([1.0, 1.0, 1.0]))
        >>> optimizer = Lion().optimizer([theta], lr=0.25)
        >>> theta.grad = torch.tensor([100.0, -0.01, 0.0])
        >>> optimizer.step()
        >>> theta.data
        tensor([0.7500, 1.2500, 1.0000])
    """

    betas: tuple[Setting, Setting] = (0.9, 0.99)
    weight_decay: Setting = 0.0
    allowed = {**_WithBetas.allowed, "weight_decay": _check.nonnegative}

    def start(self, p):
        return {"exp_avg": torch.zeros_like(p)}

    def move(self, g, p, state, now):
        step = (now["betas[0]"] * state["exp_avg"] + (1 - now["betas[0]"]) * g).sign()
        state["exp_avg"].mul_(now["betas[1]"]).add_((1 - now["betas[1]"]) * g)
        return now["lr"] * (step + now["weight_decay"] * p)


_SCALINGS: dict[str, Callable[[int, int], float]] = {
    "original": lambda rows, columns: math.sqrt(max(1.0, rows / columns)),
    "match_rms_adamw": lambda rows, columns: 0.2 * math.sqrt(max(rows, columns)),
    "spectral": lambda rows, columns: math.sqrt(rows / columns),
}


@dataclass(frozen=True)
class Muon(AdamW):
    r"""Momentum whose matrices are made orthogonal before each step; vectors take :class:`AdamW`'s step.

    For a weight of n rows and m columns (a convolution's, flattened to a row for each output channel),

    .. math:: B_t &= \mu B_{t-1} + (1 - \mu) g_t, \qquad N_t = (1 - \mu) g_t + \mu B_t, \\
       \theta_{t+1} &= (1 - \eta_t\lambda)\,\theta_t - \eta_t\, s\,\operatorname{msign}(N_t),

    where :math:`\operatorname{msign}(U S V^\top) \approx U V^\top` comes from five steps of the Newton-Schulz iteration
    :math:`X \leftarrow aX + (bA + cA^2)X`, :math:`A = XX^\top`, and s is the chosen scaling.

    Args:
        momentum: :math:`\mu`, in [0, 1).
        weight_decay: :math:`\lambda`, >= 0, of both.
        betas, eps: of AdamW's step.
        adjust_lr_fn: "original" for :math:`s = \sqrt{\max(1, n/m)}`; "match_rms_adamw" for
            :math:`s = 0.2 \sqrt{\max(n, m)}`, with which a step has about the RMS of one of AdamW at the same rate; or
            "spectral" for :math:`s = \sqrt{n/m}`, which torch does not have.

    Raises:
        ValueError: a setting is out of its range.

    Source: Jordan et al., *Muon* (2024); for matrices `torch.optim.Muon`, which iterates in bfloat16 where this does so
    in the type of the weights.

    Example:
        >>> theta = torch.nn.Parameter(torch.zeros(2, 2))
        >>> optimizer = Muon().optimizer([theta], lr=1.0)
        >>> theta.grad = torch.tensor([[3.0, 0.0], [0.0, 0.5]])
        >>> optimizer.step()
        >>> bool((theta.data.diagonal() + 1).abs().max() < 0.35)  # both entries move by about one
        True
    """

    momentum: Setting = 0.95
    weight_decay: Setting = 0.1
    adjust_lr_fn: str = "original"
    allowed = {**AdamW.allowed, "momentum": _check.below_one}

    def __post_init__(self):
        super().__post_init__()
        _check.choice("adjust_lr_fn", self.adjust_lr_fn, tuple(_SCALINGS))

    def start(self, p):
        return super().start(p) if p.ndim < 3 else {"momentum_buffer": torch.zeros_like(p)}

    def direction(self, g, p, state, now):
        if p.ndim < 3:
            return super().direction(g, p, state, now)
        buffer = state["momentum_buffer"].mul_(now["momentum"]).add_((1 - now["momentum"]) * g)
        matrix = ((1 - now["momentum"]) * g + now["momentum"] * buffer).flatten(2)
        return _SCALINGS[self.adjust_lr_fn](*matrix.shape[1:]) * orthogonalised(matrix).view_as(p)


def orthogonalised(matrix: torch.Tensor) -> torch.Tensor:
    r"""Matrices (R, n, m) with all their singular values moved near one, by Muon's Newton-Schulz iteration."""
    tall = matrix.shape[1] > matrix.shape[2]
    x = matrix.mT if tall else matrix
    x = x / x.flatten(1).norm(dim=1).clamp_min(1e-7).view(-1, 1, 1)
    a, b, c = 3.4445, -4.7750, 2.0315
    for _ in range(5):
        gram = x @ x.mT
        x = a * x + (b * gram + c * gram @ gram) @ x
    return x.mT if tall else x


@dataclass(frozen=True)
class FTRLProximal(Rule):
    r"""Follow the regularised leader, centred on the points visited: Adagrad's rates, and weights exactly at zero.

    .. math:: \eta_t &= \frac{\eta}{\beta + \sqrt{G_t}}, \qquad G_t = \sum_{s \le t} g_s^2, \\
       \sigma_t &= \frac{1}{\eta_t} - \frac{1}{\eta_{t-1}}, \qquad z_t = z_{t-1} + g_t - \sigma_t \theta_t,
    .. math:: \theta_{t+1} = \begin{cases} 0 & |z_t| \le \lambda_1 \\
       -\dfrac{z_t - \lambda_1 \operatorname{sign} z_t}{1/\eta_t + \lambda_2} & \text{else} \end{cases}

    Without penalties it is gradient descent with the rates :math:`\eta_t`. It starts from
    :math:`z_0 = -\theta_0 / \eta_0`. The state holds :math:`\eta z`, so that the rate may change.

    Args:
        beta: :math:`\beta`, > 0.
        l1, l2: :math:`\lambda_1` and :math:`\lambda_2`, >= 0.

    Raises:
        ValueError: a setting is out of its range.

    Source: McMahan et al. (2013), algorithm 1, whose alpha is the rate.

    Example:
        >>> theta = torch.nn.Parameter(torch.zeros(2))
        >>> optimizer = FTRLProximal(l1=0.5).optimizer([theta], lr=1.0)
        >>> theta.grad = torch.tensor([3.0, -0.25])
        >>> optimizer.step()
        >>> theta.data  # -(3 - 0.5) / (1 + 3), and a gradient within the threshold
        tensor([-0.6250,  0.0000])
    """

    beta: Setting = 1.0
    l1: Setting = 0.0
    l2: Setting = 0.0
    allowed = {"beta": _check.positive, "l1": _check.nonnegative, "l2": _check.nonnegative}

    def start(self, p):
        return {"sum": torch.zeros_like(p), "scaled_z": torch.full_like(p, torch.nan)}

    def move(self, g, p, state, now):
        old = now["beta"] + state["sum"].sqrt()
        new = now["beta"] + state["sum"].addcmul_(g, g).sqrt()
        z = state["scaled_z"]
        z.copy_(torch.where(z.isnan(), -old * p, z)).add_(now["lr"] * g - (new - old) * p)
        kept = z.sign() * (z.abs() - now["lr"] * now["l1"]).clamp_min(0)
        return p + kept / (new + now["lr"] * now["l2"])


@dataclass(frozen=True)
class Parabola(Rule):
    r"""The step to the minimum of a parabola through the points (weight, gradient), for each coordinate.

    On a parabola :math:`g = h (\theta - \theta^*)`, so that :math:`\sigma_\theta / \sigma_g = 1/|h|`, the step that
    lands on the minimum:

    .. math::
       \theta_{t+1} = \theta_t - \eta_t\, \min\Big(\frac{\sigma_\theta}{\sigma_g + \epsilon},\, r_{\max}\Big)\, g_t

    The four running means of :math:`\theta, \theta^2, g, g^2`, started at the first point, are kept as two means and
    two variances: :math:`d = x - m`, :math:`m \leftarrow m + (1 - \beta) d`, :math:`v \leftarrow \beta (v + (1 - \beta)
    d^2)`. This equals mean(x²) - mean(x)² and loses no digits.

    Args:
        beta: :math:`\beta`, in [0, 1), of the running means.
        initial_rate: > 0, instead of the ratio in the first `warmup` steps, which give the first points of the line.
        warmup: their number, >= 1.
        max_rate: :math:`r_{\max}`, > 0, where gradients hardly vary.
        eps: :math:`\epsilon`, > 0.

    Raises:
        ValueError: a setting is out of its range.

    Source: Duda (2019), where the factor :math:`\eta` is 1.

    Example:
        >>> theta = torch.nn.Parameter(torch.tensor([3.0, 3.0], dtype=torch.float64))
        >>> h = torch.tensor([2.0, 0.5], dtype=torch.float64)
        >>> optimizer = Parabola(warmup=1).optimizer([theta], lr=1.0)
        >>> for _ in range(2):
        ...     theta.grad = h * (theta.detach() - 1)
        ...     optimizer.step()
        >>> theta.data  # the second step lands on the minimum
        tensor([1.0000, 1.0000], dtype=torch.float64)
    """

    beta: Setting = 0.9
    initial_rate: Setting = 1e-3
    warmup: int = 10
    max_rate: Setting = 10.0
    eps: Setting = 1e-12
    allowed = {"beta": _check.below_one, **dict.fromkeys(("initial_rate", "max_rate", "eps"), _check.positive)}

    def __post_init__(self):
        super().__post_init__()
        _check.integer("warmup", self.warmup, 1)

    def start(self, p):
        names = ("mean_theta", "mean_g", "var_theta", "var_g")
        return {name: torch.full_like(p, torch.nan if "mean" in name else 0.0) for name in names}

    def move(self, g, p, state, now):
        for name, x in (("theta", p), ("g", g)):
            mean = state[f"mean_{name}"]
            mean.copy_(torch.where(mean.isnan(), x, mean))
            d = x - mean
            mean.add_((1 - now["beta"]) * d)
            state[f"var_{name}"].add_((1 - now["beta"]) * d * d).mul_(now["beta"])
        rate = state["var_theta"].sqrt() / (state["var_g"].sqrt() + _tiny(now["eps"], p))
        at_first = torch.as_tensor(now["t"] <= self.warmup, device=p.device)
        return now["lr"] * torch.where(at_first, now["initial_rate"], rate.clamp_max(now["max_rate"])) * g


@dataclass(frozen=True)
class Hypergradient(Rule):
    r"""Gradient descent on the rate: one rate for all parameters, which rises while successive gradients agree.

    .. math:: \eta_t = \eta_{t-1} + \nu\, \langle g_t, g_{t-1} \rangle, \qquad \theta_{t+1} = \theta_t - \eta_t\, g_t

    since :math:`\partial L(\theta_t) / \partial \eta_{t-1} = -\langle g_t, g_{t-1} \rangle`. The schedule gives
    :math:`\eta_0` where it is constant; what the rule adds to it is the state "gain". The rate can become negative.

    Args:
        hyper_lr: :math:`\nu`, >= 0, in units of a rate per squared gradient; 0 gives plain gradient descent.

    Raises:
        ValueError: a setting is out of its range.

    Source: Baydin et al. (2018), SGD-HD.

    Example:
        >>> theta = torch.nn.Parameter(torch.tensor([1.0]))
        >>> optimizer = Hypergradient(hyper_lr=0.5).optimizer([theta], lr=0.25)
        >>> for _ in range(2):
        ...     theta.grad = theta.detach().clone()
        ...     optimizer.step()
        ...     print(0.25 + optimizer.state[theta]["gain"].item())
        0.25
        0.625
    """

    joint = True
    hyper_lr: Setting = 1e-3
    allowed = {"hyper_lr": _check.nonnegative}

    def start(self, p):
        return {"last": torch.zeros_like(p), "gain": torch.zeros(len(p), dtype=torch.float64, device=p.device)}

    def moves(self, gradients, params, states, now):
        agreement = sum((g * s["last"]).reshape(len(g), -1).sum(1) for g, s in zip(gradients, states, strict=True))
        gain = now.settings["hyper_lr"] * agreement
        for g, s in zip(gradients, states, strict=True):
            s["last"].copy_(g)
            s["gain"].add_(gain)
        now.applied = now.settings["lr"] + states[0]["gain"]
        return [shaped(now.applied, g) * g for g in gradients]
