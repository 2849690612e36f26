r"""Optimizers that set their own rates: per coordinate from past gradients, or one rate by its own gradient.

Each is a `torch.optim.Optimizer` of a few lines. Where PyTorch has the method, names, defaults and results are
PyTorch's. In the formulas :math:`g_t` is the gradient of step t, :math:`\theta` one coordinate, :math:`\eta` the
group's `lr`, and all operations are coordinate by coordinate unless said otherwise.

A dense real gradient is needed. Anything else raises RuntimeError before any weight has changed.
"""

from collections.abc import Callable

import torch

from lrlib import _check

__all__ = ["Adagrad", "RMSprop", "Adadelta", "Adam", "FTRLProximal", "Parabola", "Hypergradient", "HillClimb"]


def _below_one(name: str, value) -> float:
    """The half-open interval [0, 1)."""
    number = _check.nonnegative(name, value)
    if number >= 1:
        raise ValueError(f"{name}={value!r}: must be in [0, 1)")
    return number


def _betas(name: str, value) -> tuple[float, float]:
    if not isinstance(value, tuple | list) or len(value) != 2:
        raise TypeError(f"{name}={value!r}: must be a pair of numbers in [0, 1)")
    return tuple(_below_one(f"{name}[{i}]", beta) for i, beta in enumerate(value))


class _Adaptive(torch.optim.Optimizer):
    """Checks the settings of every parameter group and, before it changes anything, every gradient."""

    _allowed: dict[str, Callable] = {}  # from the name of a setting to the check that it passes

    def add_param_group(self, param_group: dict) -> None:
        settings = {**self.defaults, **param_group}
        for name, check in self._allowed.items():
            check(name, settings[name])
        super().add_param_group(param_group)

    @torch.no_grad()
    def step(self, closure: Callable | None = None):
        """Update the parameters that have a gradient.

        Args:
            closure: optionally a function that computes the gradients anew and returns the loss.

        Returns:
            The loss that the closure returned, or None.

        Raises:
            RuntimeError: a gradient is sparse or complex.
        """
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            for p in group["params"]:
                if p.grad is not None and (p.grad.layout != torch.strided or p.grad.is_complex()):
                    raise RuntimeError(
                        f"{type(self).__name__}: the gradient of a parameter of shape {tuple(p.shape)} is "
                        f"{p.grad.layout}, {p.grad.dtype}; must be dense and real"
                    )
        for group in self.param_groups:
            self._step_group(group)
        return loss

    def _step_group(self, group: dict) -> None:
        for p in group["params"]:
            if p.grad is not None:
                self._update(p, p.grad, self.state[p], group)

    def _update(self, p: torch.Tensor, g: torch.Tensor, state: dict, group: dict) -> None:
        raise NotImplementedError


class Adagrad(_Adaptive):
    r"""A rate for each coordinate, from the sum of its squared gradients.

    .. math:: G_t = G_{t-1} + g_t^2, \qquad \theta_{t+1} = \theta_t - \frac{\eta}{\sqrt{G_t} + \epsilon}\, g_t

    Args:
        params: parameters, or dicts of parameter groups with their own settings.
        lr: :math:`\eta`, > 0.
        eps: :math:`\epsilon`, > 0.

    Raises:
        ValueError: a setting is out of its range.

    Source: Duchi, Hazan and Singer (2011); equals `torch.optim.Adagrad`.

    Example:
        >>> theta = torch.nn.Parameter(torch.tensor([1.0, 1.0]))
        >>> optimizer = Adagrad([theta], lr=0.5)
        >>> theta.grad = torch.tensor([100.0, 0.01])
        >>> optimizer.step()
        >>> theta.data  # the first step is lr, whatever the size of the gradient
        tensor([0.5000, 0.5000])
    """

    _allowed = {"lr": _check.positive, "eps": _check.positive}

    def __init__(self, params, lr: float = 1e-2, eps: float = 1e-10):
        super().__init__(params, {"lr": lr, "eps": eps})

    def _update(self, p, g, state, group):
        if not state:
            state["sum"] = torch.zeros_like(p)
        state["sum"].addcmul_(g, g)
        p.addcdiv_(g, state["sum"].sqrt() + group["eps"], value=-group["lr"])


class RMSprop(_Adaptive):
    r"""Adagrad that forgets: a running mean of squared gradients instead of their sum.

    .. math:: v_t = \alpha v_{t-1} + (1 - \alpha) g_t^2, \qquad
       \theta_{t+1} = \theta_t - \frac{\eta}{\sqrt{v_t} + \epsilon}\, g_t

    Args:
        params: parameters, or dicts of parameter groups with their own settings.
        lr: :math:`\eta`, > 0.
        alpha: :math:`\alpha`, in [0, 1).
        eps: :math:`\epsilon`, > 0.

    Raises:
        ValueError: a setting is out of its range.

    Source: Tieleman and Hinton (2012); equals `torch.optim.RMSprop`.

    Example:
        >>> theta = torch.nn.Parameter(torch.tensor([1.0, 1.0]))
        >>> optimizer = RMSprop([theta], lr=0.05)
        >>> theta.grad = torch.tensor([100.0, 0.01])
        >>> optimizer.step()
        >>> theta.data  # the first step is lr / sqrt(1 - alpha)
        tensor([0.5000, 0.5000])
    """

    _allowed = {"lr": _check.positive, "alpha": _below_one, "eps": _check.positive}

    def __init__(self, params, lr: float = 1e-2, alpha: float = 0.99, eps: float = 1e-8):
        super().__init__(params, {"lr": lr, "alpha": alpha, "eps": eps})

    def _update(self, p, g, state, group):
        if not state:
            state["mean_square"] = torch.zeros_like(p)
        v = state["mean_square"].mul_(group["alpha"]).addcmul_(g, g, value=1 - group["alpha"])
        p.addcdiv_(g, v.sqrt() + group["eps"], value=-group["lr"])


class Adadelta(_Adaptive):
    r"""Steps in the unit of the weights: the size of past steps, divided by that of past gradients.

    .. math:: v_t &= \rho v_{t-1} + (1 - \rho) g_t^2, \qquad
       \Delta_t = \sqrt{\frac{u_{t-1} + \epsilon}{v_t + \epsilon}}\; g_t, \\
       u_t &= \rho u_{t-1} + (1 - \rho) \Delta_t^2, \qquad
       \theta_{t+1} = \theta_t - \eta \Delta_t

    Args:
        params: parameters, or dicts of parameter groups with their own settings.
        lr: :math:`\eta`, > 0; 1 in the paper.
        rho: :math:`\rho`, in [0, 1).
        eps: :math:`\epsilon`, > 0; it sets the first steps.

    Raises:
        ValueError: a setting is out of its range.

    Source: Zeiler (2012); equals `torch.optim.Adadelta`.

    Example:
        >>> theta = torch.nn.Parameter(torch.tensor([1.0, 1.0], dtype=torch.float64))
        >>> optimizer = Adadelta([theta], rho=0.75)
        >>> theta.grad = torch.tensor([100.0, 10.0], dtype=torch.float64)
        >>> optimizer.step()
        >>> 1 - theta.data  # sqrt(eps / (1 - rho))
        tensor([0.0020, 0.0020], dtype=torch.float64)
    """

    _allowed = {"lr": _check.positive, "rho": _below_one, "eps": _check.positive}

    def __init__(self, params, lr: float = 1.0, rho: float = 0.9, eps: float = 1e-6):
        super().__init__(params, {"lr": lr, "rho": rho, "eps": eps})

    def _update(self, p, g, state, group):
        if not state:
            state["square_grad"], state["square_step"] = torch.zeros_like(p), torch.zeros_like(p)
        rho, eps = group["rho"], group["eps"]
        v = state["square_grad"].mul_(rho).addcmul_(g, g, value=1 - rho)
        delta = ((state["square_step"] + eps) / (v + eps)).sqrt_().mul_(g)
        state["square_step"].mul_(rho).addcmul_(delta, delta, value=1 - rho)
        p.sub_(delta, alpha=group["lr"])


class Adam(_Adaptive):
    r"""RMSprop along a running mean of the gradient, both means corrected for their start at zero.

    .. math:: m_t &= \beta_1 m_{t-1} + (1 - \beta_1) g_t, \qquad v_t = \beta_2 v_{t-1} + (1 - \beta_2) g_t^2, \\
       \theta_{t+1} &= \theta_t - \eta\, \frac{m_t / (1 - \beta_1^t)}{\sqrt{v_t / (1 - \beta_2^t)} + \epsilon}

    Args:
        params: parameters, or dicts of parameter groups with their own settings.
        lr: :math:`\eta`, > 0.
        betas: :math:`\beta_1` and :math:`\beta_2`, each in [0, 1).
        eps: :math:`\epsilon`, > 0.

    Raises:
        TypeError: betas is no pair.
        ValueError: a setting is out of its range.

    Source: Kingma and Ba (2015); equals `torch.optim.Adam`.

    Example:
        >>> theta = torch.nn.Parameter(torch.tensor([1.0, 1.0]))
        >>> optimizer = Adam([theta], lr=0.25)
        >>> theta.grad = torch.tensor([100.0, -0.01])
        >>> optimizer.step()
        >>> theta.data
        tensor([0.7500, 1.2500])
    """

    _allowed = {"lr": _check.positive, "betas": _betas, "eps": _check.positive}

    def __init__(self, params, lr: float = 1e-3, betas: tuple[float, float] = (0.9, 0.999), eps: float = 1e-8):
        super().__init__(params, {"lr": lr, "betas": betas, "eps": eps})

    def _update(self, p, g, state, group):
        if not state:
            state["step"] = 0
            state["mean"], state["mean_square"] = torch.zeros_like(p), torch.zeros_like(p)
        state["step"] += 1
        first, second = group["betas"]
        m = state["mean"].mul_(first).add_(g, alpha=1 - first)
        v = state["mean_square"].mul_(second).addcmul_(g, g, value=1 - second)
        root = (v / (1 - second ** state["step"])).sqrt_()
        p.addcdiv_(m, root + group["eps"], value=-group["lr"] / (1 - first ** state["step"]))


class FTRLProximal(_Adaptive):
    r"""Follow the regularised leader, centred on the points visited: Adagrad's rates, and weights exactly at zero.

    .. math:: \eta_t &= \frac{\eta}{\beta + \sqrt{G_t}}, \qquad G_t = \sum_{s \le t} g_s^2, \\
       \sigma_t &= \frac{1}{\eta_t} - \frac{1}{\eta_{t-1}}, \qquad z_t = z_{t-1} + g_t - \sigma_t \theta_t,
    .. math:: \theta_{t+1} = \begin{cases} 0 & |z_t| \le \lambda_1 \\
       -\dfrac{z_t - \lambda_1 \operatorname{sign} z_t}{1/\eta_t + \lambda_2} & \text{else} \end{cases}

    Without penalties it is gradient descent with the rates :math:`\eta_t`. It starts from
    :math:`z_0 = -\theta_0 / \eta_0`.

    Args:
        params: parameters, or dicts of parameter groups with their own settings.
        lr: :math:`\eta`, > 0, the paper's alpha.
        beta: :math:`\beta`, > 0.
        l1, l2: :math:`\lambda_1` and :math:`\lambda_2`, >= 0.

    Raises:
        ValueError: a setting is out of its range.

    Source: McMahan et al. (2013), algorithm 1.

    Example:
        >>> theta = torch.nn.Parameter(torch.zeros(2))
        >>> optimizer = FTRLProximal([theta], lr=1.0, l1=0.5)
        >>> theta.grad = torch.tensor([3.0, -0.25])
        >>> optimizer.step()
        >>> theta.data  # -(3 - 0.5) / (1 + 3), and a gradient within the threshold
        tensor([-0.6250,  0.0000])
    """

    _allowed = {"lr": _check.positive, "beta": _check.positive, "l1": _check.nonnegative, "l2": _check.nonnegative}

    def __init__(self, params, lr: float = 0.1, beta: float = 1.0, l1: float = 0.0, l2: float = 0.0):
        super().__init__(params, {"lr": lr, "beta": beta, "l1": l1, "l2": l2})

    def _update(self, p, g, state, group):
        if not state:
            state["sum"] = torch.zeros_like(p)
            state["inverse_rate"] = torch.full_like(p, group["beta"] / group["lr"])
            state["z"] = -p * state["inverse_rate"]
        G, z = state["sum"].addcmul_(g, g), state["z"]
        inverse = (group["beta"] + G.sqrt()) / group["lr"]
        z.add_(g).addcmul_(inverse - state["inverse_rate"], p, value=-1)
        state["inverse_rate"] = inverse
        p.copy_(torch.nn.functional.softshrink(-z, group["l1"]) / (inverse + group["l2"]))


class Parabola(_Adaptive):
    r"""The step to the minimum of a parabola through the points (weight, gradient), for each coordinate.

    On a parabola :math:`g = h (\theta - \theta^*)`, so that :math:`\sigma_\theta / \sigma_g = 1/|h|`, the step that
    lands on the minimum:

    .. math:: \theta_{t+1} = \theta_t - \eta\, \min\Big(\frac{\sigma_\theta}{\sigma_g + \epsilon},\, r_{\max}\Big)\, g_t

    The four running means of :math:`\theta, \theta^2, g, g^2`, started at the first point, are kept as two means and
    two variances: :math:`d = x - m`, :math:`m \leftarrow m + (1 - \beta) d`, :math:`v \leftarrow \beta (v + (1 - \beta)
    d^2)`. This equals mean(x²) - mean(x)² and loses no digits.

    Args:
        params: parameters, or dicts of parameter groups with their own settings.
        lr: :math:`\eta`, > 0: a factor; 1 in the source.
        beta: :math:`\beta`, in [0, 1), of the running means.
        initial_rate: > 0, instead of the ratio in the first `warmup` steps, which give the first points of the line.
        warmup: their number, >= 1.
        max_rate: :math:`r_{\max}`, > 0, where gradients hardly vary.
        eps: :math:`\epsilon`, > 0.

    Raises:
        ValueError: a setting is out of its range.

    Source: Duda (2019).

    Example:
        >>> theta = torch.nn.Parameter(torch.tensor([3.0, 3.0], dtype=torch.float64))
        >>> h = torch.tensor([2.0, 0.5], dtype=torch.float64)
        >>> optimizer = Parabola([theta], warmup=1)
        >>> for _ in range(2):
        ...     theta.grad = h * (theta.detach() - 1)
        ...     optimizer.step()
        >>> theta.data  # the second step lands on the minimum
        tensor([1.0000, 1.0000], dtype=torch.float64)
    """

    _allowed = {
        "lr": _check.positive,
        "beta": _below_one,
        "initial_rate": _check.positive,
        "warmup": lambda name, value: _check.integer(name, value, 1),
        "max_rate": _check.positive,
        "eps": _check.positive,
    }

    def __init__(
        self,
        params,
        lr: float = 1.0,
        beta: float = 0.9,
        initial_rate: float = 1e-3,
        warmup: int = 10,
        max_rate: float = 10.0,
        eps: float = 1e-12,
    ):
        settings = {"lr": lr, "beta": beta, "initial_rate": initial_rate, "warmup": warmup}
        super().__init__(params, settings | {"max_rate": max_rate, "eps": eps})

    def _update(self, p, g, state, group):
        if not state:
            state["step"] = 0
            for name, x in (("theta", p), ("g", g)):
                state[f"mean_{name}"], state[f"var_{name}"] = x.clone(), torch.zeros_like(x)
        state["step"] += 1
        beta = group["beta"]
        for name, x in (("theta", p), ("g", g)):
            d = x - state[f"mean_{name}"]
            state[f"mean_{name}"].add_(d, alpha=1 - beta)
            state[f"var_{name}"].addcmul_(d, d, value=1 - beta).mul_(beta)
        if state["step"] <= group["warmup"]:
            p.sub_(g, alpha=group["lr"] * group["initial_rate"])
            return
        rate = state["var_theta"].sqrt() / (state["var_g"].sqrt() + group["eps"])
        p.addcmul_(rate.clamp_(max=group["max_rate"]), g, value=-group["lr"])


class Hypergradient(_Adaptive):
    r"""Gradient descent on the rate: one rate a parameter group, which rises while successive gradients agree.

    .. math:: \eta_t = \eta_{t-1} + \kappa\, \langle g_t, g_{t-1} \rangle, \qquad \theta_{t+1} = \theta_t - \eta_t\, g_t

    since :math:`\partial L(\theta_t) / \partial \eta_{t-1} = -\langle g_t, g_{t-1} \rangle`. The rate is the group's
    `lr`; it can become negative. A schedule overwrites it.

    Args:
        params: parameters, or dicts of parameter groups with their own settings.
        lr: the rate of the first step, > 0.
        hyper_lr: :math:`\kappa`, >= 0, in units of a rate per squared gradient; 0 gives plain gradient descent.

    Raises:
        ValueError: a setting is out of its range.

    Source: Baydin et al. (2018), SGD-HD.

    Example:
        >>> theta = torch.nn.Parameter(torch.tensor([1.0]))
        >>> optimizer = Hypergradient([theta], lr=0.25, hyper_lr=0.5)
        >>> for _ in range(2):
        ...     theta.grad = theta.detach().clone()
        ...     optimizer.step()
        ...     print(optimizer.param_groups[0]["lr"])
        0.25
        0.625
    """

    _allowed = {"lr": _check.positive, "hyper_lr": _check.nonnegative}

    def __init__(self, params, lr: float = 1e-2, hyper_lr: float = 1e-3):
        super().__init__(params, {"lr": lr, "hyper_lr": hyper_lr})

    def _step_group(self, group):
        moving = [p for p in group["params"] if p.grad is not None]
        agreement = sum(torch.sum(p.grad * self.state[p]["last"]).item() for p in moving if "last" in self.state[p])
        group["lr"] += group["hyper_lr"] * agreement
        for p in moving:
            self.state[p]["last"] = p.grad.clone()
            p.sub_(p.grad, alpha=group["lr"])


class HillClimb(torch.optim.Optimizer):
    r"""Gradient descent whose rate climbs downhill: it is raised or lowered, whichever lowers the mini-batch loss more.

    With the smoothed gradient :math:`d_t = s\, d_{t-1} + (1 - s)\, g_t`, :math:`d_{-1} = 0`, step t compares the loss
    of the same mini-batch at the two points that a larger and a smaller rate lead to, and goes to the better one:

    .. math:: \eta_t &= \eta_{t-1} (1 + \epsilon) \text{ if } L(\theta_t - \eta_{t-1} (1 + \epsilon)\, d_t)
        < L(\theta_t - \eta_{t-1} (1 - \epsilon)\, d_t), \\
        &\phantom{{}={}} \eta_{t-1} (1 - \epsilon) \text{ otherwise}, \\
        \theta_{t+1} &= \theta_t - \eta_t\, d_t .

    Two forward passes more than gradient descent, at every step that tunes. Layers that change in a forward pass, such
    as BatchNorm, count these passes too.

    **A stack of replicas.** With a vector of R rates, for parameters of shape (R, ...) such as those of a
    :class:`~lrlib.Stack`, the closure returns R losses and every replica tunes its own rate.

    Args:
        params: parameters, or dicts of parameter groups with their own `lr`; all groups rise or fall together.
        lr: the rate to begin with, > 0, or a tensor of R of them.
        step_size: :math:`\epsilon`, the relative change of the rate, in (0, 1).
        every: tune at every so many steps, >= 1, beginning with the first.
        smoothing: s in [0, 1), the weight of the past in the direction.
        tune_smoothing: also tune s, after the rate and in the same way: 1 - s is raised or lowered, and stays in
            [`step_size`/100, 1]. Two more forward passes.

    Raises:
        TypeError: a setting is of a wrong type.
        ValueError: a setting is out of its range.

    Source: the blog post *A hill-climbing learning rate*, and the smoothing that it mentions.

    Example:
        >>> theta = torch.nn.Parameter(torch.tensor([1.0]))
        >>> optimizer = HillClimb([theta], lr=0.1, smoothing=0.0)
        >>> def closure():
        ...     return theta.square().sum()
        >>> for _ in range(2):
        ...     optimizer.zero_grad()
        ...     closure().backward()
        ...     optimizer.step(closure)
        >>> round(optimizer.param_groups[0]["lr"], 6)  # the best rate here is 0.5
        0.10201
    """

    needs_closure = True

    def __init__(
        self,
        params,
        lr: float | torch.Tensor = 1e-3,
        step_size: float = 0.01,
        every: int = 1,
        smoothing: float = 0.9,
        tune_smoothing: bool = False,
    ):
        _check.positive("step_size", step_size)
        _below_one("step_size", step_size)
        _below_one("smoothing", smoothing)
        _check.integer("every", every, 1)
        if not isinstance(tune_smoothing, bool):
            raise TypeError(f"tune_smoothing={tune_smoothing!r}: must be True or False")
        self._step_size, self._every, self._tune_smoothing = step_size, every, tune_smoothing
        super().__init__(params, {"lr": lr, "smoothing": smoothing, "steps": 0})

    def add_param_group(self, param_group: dict) -> None:
        lr = param_group.get("lr", self.defaults["lr"])
        if isinstance(lr, torch.Tensor):
            if lr.ndim != 1 or not ((lr > 0) & lr.isfinite()).all():
                raise ValueError(f"lr={lr!r}: must be finite and > 0, a number or a vector")
            for p in param_group["params"] if isinstance(param_group["params"], list | tuple) else ():
                if p.shape[:1] != lr.shape:
                    raise ValueError(f"lr: has {len(lr)} rates, must be as many as parameters of shape {p.shape} stack")
            param_group = param_group | {"lr": lr.double()}
        else:
            _check.positive("lr", lr)
        super().add_param_group(param_group)

    @torch.no_grad()
    def step(self, closure: Callable | None = None) -> None:
        """Update the parameters from their gradients, and tune the rate.

        Args:
            closure: computes the loss of the same mini-batch anew, without gradients: it is called where they are
                switched off, so a closure that also calls ``backward()`` must do so only
                ``if torch.is_grad_enabled()``. It may clear the gradients.

        Raises:
            ValueError: there is no closure.
            RuntimeError: a gradient is sparse or complex. Before either, no weight has changed; nor where the closure
                raises an error.
        """
        if not callable(closure):
            raise ValueError(f"closure={closure!r}: must be a function that computes the loss of the mini-batch")
        moves = []  # parameter, its value, gradient, past direction, group
        for group in self.param_groups:
            for p in group["params"]:
                if p.grad is None:
                    continue
                if p.grad.layout != torch.strided or p.grad.is_complex():
                    raise RuntimeError(
                        f"HillClimb: the gradient of a parameter of shape {tuple(p.shape)} is {p.grad.layout}, "
                        f"{p.grad.dtype}; must be dense and real"
                    )
                past = self.state[p].get("direction", torch.zeros_like(p))
                moves.append((p, p.clone(), p.grad.clone(), past, group))

        def directions(smoothings):
            result = []
            for _, _, g, past, group in moves:
                s = _like(smoothings[id(group)], g)
                result.append(past * s + g * (1 - s))
            return result

        def go(rate_factor, along) -> None:
            for (p, value, _, _, group), d in zip(moves, along, strict=True):
                torch.addcmul(value, _like(group["lr"] * rate_factor, p, always=True), d, value=-1, out=p)

        def better(first, second):
            """Whether the first point has the lower loss, of a stack for every replica."""
            go(*first)
            loss = closure()
            go(*second)
            found = loss < closure()
            return found if found.ndim else bool(found)

        smoothings = {id(group): group["smoothing"] for group in self.param_groups}
        along = directions(smoothings)
        factor = 1.0
        try:
            if self.param_groups[0]["steps"] % self._every == 0:
                up, down = 1 + self._step_size, 1 - self._step_size
                factor = _where(better((up, along), (down, along)), up, down)
                if self._tune_smoothing:
                    more, less = (
                        {key: 1 - _clamp((1 - s) * f, self._step_size / 100, 1.0) for key, s in smoothings.items()}
                        for f in (up, down)
                    )
                    found = better((factor, directions(more)), (factor, directions(less)))
                    smoothings = {key: _where(found, more[key], less[key]) for key in smoothings}
                    along = directions(smoothings)
        except BaseException:
            for p, value, *_ in moves:
                p.copy_(value)
            raise
        go(factor, along)
        for (p, *_), d in zip(moves, along, strict=True):
            self.state[p]["direction"] = d
        for group in self.param_groups:
            group["lr"] = group["lr"] * factor
            group["smoothing"] = smoothings[id(group)]
            group["steps"] += 1


def _like(value, p: torch.Tensor, always: bool = False):
    """One number a replica in the shape and type of their stacked parameter; a number as it is, or as a tensor."""
    if isinstance(value, torch.Tensor):
        return value.to(p).view(-1, *[1] * (p.ndim - 1))
    return torch.as_tensor(value, dtype=p.dtype, device=p.device) if always else value


def _where(found, a, b):
    if not isinstance(found, torch.Tensor):
        return a if found else b
    a, b = (torch.as_tensor(value, dtype=torch.float64, device=found.device) for value in (a, b))
    return torch.where(found, a, b)


def _clamp(value, low: float, high: float):
    return value.clamp(low, high) if isinstance(value, torch.Tensor) else min(max(value, low), high)
