"""What an update rule is; any rule as a `torch.optim.Optimizer`, and any `torch.optim.Optimizer` as a rule."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, fields
from numbers import Real
from typing import Any, ClassVar

import torch

from lrlib import _check
from lrlib.schedules import Schedule

__all__ = ["LossAt", "Now", "Rule", "RuleOptimizer", "Setting", "State", "Values", "losses_at"]

Setting = float | Schedule | Sequence[float] | Sequence[Schedule]
State = dict[str, Any]
LossAt = Callable[[list[torch.Tensor]], torch.Tensor]
Values = dict[str, Any]  # of a rule's settings, "lr" and "t" at one update


@dataclass
class Now:
    """What holds at one update.

    Attributes:
        t: the number of this update, counted from one: an int, or a tensor while a graph is captured.
        settings: the rate "lr" and the rule's settings, numbers or one for each replica, (R,).
        loss_at: from a list of parameters (R, ...) to their losses on the same batch, (R,), without gradients.
        applied: a rule that sets its own rate writes it here, (R,).
        used: of each trainable parameter of the model whether it is among those to move; None where all are.
    """

    t: int | torch.Tensor
    settings: dict[str, Any]
    loss_at: LossAt | None = None
    applied: torch.Tensor | None = None
    used: Sequence[bool] | None = None
    _shaped: dict[tuple, Values] = field(default_factory=dict)

    def like(self, p: torch.Tensor) -> Values:
        """The rate "lr", "t" and the rule's settings, in a shape and type that multiply a parameter (R, ...)."""
        ones = (1,) * (p.ndim - 1) if len(p) > 1 else ()  # one number multiplies any shape
        key = ones, p.dtype
        if key not in self._shaped:
            kind = torch.promote_types(p.dtype, torch.float32)  # in bfloat16 a beta of 0.999 would be 1
            self._shaped[key] = {
                name: value.to(p.dtype if name == "lr" else kind).view(-1, *ones)
                if isinstance(value, torch.Tensor)
                else value
                for name, value in self.settings.items()
            } | {"t": self.t}
        return self._shaped[key]


@dataclass(frozen=True)
class Rule:
    """The base of all rules. A rule of your own gives :meth:`move`, and :meth:`start` if it remembers anything.

    Example:
        >>> @dataclass(frozen=True)
        ... class SignSGD(Rule):
        ...     def move(self, g, p, state, now):
        ...         return now["lr"] * g.sign()
        >>> theta = torch.nn.Parameter(torch.tensor([1.0, 1.0]))
        >>> optimizer = SignSGD().optimizer([theta], lr=0.25)
        >>> theta.grad = torch.tensor([100.0, -0.01])
        >>> optimizer.step()
        >>> theta.data
        tensor([0.7500, 1.2500])
    """

    joint: ClassVar[bool] = False  # whether a parameter's move depends on the other parameters
    needs_loss: ClassVar[bool] = False  # whether it asks for losses at other weights
    capturable: ClassVar[bool] = True  # whether its moves never wait for the host
    allowed: ClassVar[dict[str, Callable]] = {}  # from the name of a setting to the check that its numbers pass

    def __post_init__(self):
        for name, value in self.settings().items():
            numbers = value if isinstance(value, list | tuple) else [value]
            for number in numbers:
                if not isinstance(number, Schedule):
                    self.check(name, number)

    def check(self, name: str, value) -> None:
        """Raise ValueError or TypeError where a number is not allowed for a setting."""
        if name in self.allowed:
            self.allowed[name](name, value)

    def settings(self) -> dict[str, Setting]:
        """What may differ by replica or by step: from the names of the rule's numbers to their values."""
        return {f.name: getattr(self, f.name) for f in fields(self) if f.name in self.allowed}

    def start(self, p: torch.Tensor) -> State:
        """The state of a parameter (R, ...) before its first update; :meth:`move` changes it in place."""
        return {}

    def move(self, g: torch.Tensor, p: torch.Tensor, state: State, now: Values) -> torch.Tensor:
        r"""The step :math:`\Delta` of one parameter (R, ...), for its gradient g and :meth:`Now.like` of it."""
        raise NotImplementedError

    def moves(
        self, gradients: list[torch.Tensor], params: list[torch.Tensor], states: list[State], now: Now
    ) -> list[torch.Tensor]:
        """The steps of all parameters."""
        return [self.move(g, p, s, now.like(p)) for g, p, s in zip(gradients, params, states, strict=True)]

    def evaluated(self, params: list[torch.Tensor], states: list[State]) -> list[torch.Tensor]:
        """The weights to look at, where a method such as schedule-free takes its gradients at others."""
        return params

    def optimizer(self, params, lr: float) -> torch.optim.Optimizer:
        """The rule as a `torch.optim.Optimizer`; parameter groups may have their own `lr` and settings.

        Args:
            params: parameters, or dicts of parameter groups.
            lr: the rate, >= 0.

        Raises:
            TypeError: a number is none, but a schedule or a list for instance.
            ValueError: a number is out of its range.
        """
        return RuleOptimizer(params, self, lr)


class RuleOptimizer(torch.optim.Optimizer):
    """A :class:`Rule` as a `torch.optim.Optimizer`; made by :meth:`Rule.optimizer`.

    A rule that sets its own rate leaves it in the group's "applied_lr". It does so for each group by itself, one after
    the other.
    """

    def __init__(self, params, rule: Rule, lr: float):
        self.rule = rule
        super().__init__(params, {"lr": lr} | {f.name: getattr(rule, f.name) for f in fields(rule)})

    @property
    def needs_closure(self) -> bool:
        """Whether :meth:`step` must be given a closure."""
        return self.rule.needs_loss

    def __getstate__(self) -> dict:
        return super().__getstate__() | {"rule": self.rule}

    def __setstate__(self, state: dict) -> None:
        names = {f.name for f in fields(state.get("rule") or self.rule)}
        for group in state["param_groups"]:
            if missing := names - set(group):
                raise ValueError(f"state_dict: a group lacks {sorted(missing)}, must be of the same rule")
        super().__setstate__(state)

    def load_state_dict(self, state_dict: dict) -> None:
        """As of every optimizer; what a rule counts in another type than the weights' keeps that type."""
        given: list[dict] = []  # what is loaded, after the hooks before and before those after
        hooks = [
            self.register_load_state_dict_pre_hook(lambda _, some: given.append(some)),
            self.register_load_state_dict_post_hook(lambda _: self._keep_types(given[-1]), prepend=True),
        ]
        try:
            super().load_state_dict(state_dict)
        finally:
            for hook in hooks:
                hook.remove()

    def _keep_types(self, state_dict: dict) -> None:
        names = [name for group in state_dict["param_groups"] for name in group["params"]]
        for name, p in zip(names, (p for group in self.param_groups for p in group["params"]), strict=True):
            saved = state_dict["state"].get(name, {})
            for key, fresh in self.rule.start(p.detach()[None]).items():
                if fresh.dtype != p.dtype and isinstance(saved.get(key), torch.Tensor):
                    self.state[p][key] = saved[key].to(p.device, fresh.dtype, copy=True)

    def _rule(self, group: dict) -> Rule:
        return type(self.rule)(**{f.name: group[f.name] for f in fields(self.rule)})

    def add_param_group(self, param_group: dict) -> None:
        group = {**self.defaults, **param_group}
        _check.nonnegative("lr", group["lr"].item() if isinstance(group["lr"], torch.Tensor) else group["lr"])
        for name, value in self._rule(group).settings().items():
            if not isinstance(value, Real):
                raise TypeError(f"{name}={value!r}: must be a number; lrlib.train takes schedules and lists")
        super().add_param_group(param_group)

    @torch.no_grad()
    def step(self, closure: Callable | None = None):
        """Update the parameters that have a gradient.

        Args:
            closure: computes the loss, and its gradients where they are switched on. A rule that compares losses calls
                it where they are switched off.

        Raises:
            ValueError: the rule compares losses and there is no closure.
            RuntimeError: a gradient is sparse or complex. Before either, no weight has changed; nor where the closure
                raises an error in the first group, where a rule compares losses.
        """
        loss = None
        if self.rule.needs_loss and not callable(closure):
            raise ValueError(f"closure={closure!r}: must be a function that computes the loss of the mini-batch")
        if closure is not None and not self.rule.needs_loss:
            with torch.enable_grad():
                loss = closure()
        groups = [(group, [p for p in group["params"] if p.grad is not None]) for group in self.param_groups]
        for p in (p for _, ready in groups for p in ready):
            if p.grad.layout != torch.strided or p.grad.is_complex():
                raise RuntimeError(
                    f"{type(self.rule).__name__}: the gradient of a parameter of shape {tuple(p.shape)} is "
                    f"{p.grad.layout}, {p.grad.dtype}; must be dense and real"
                )
        for group, ready in groups:
            ready.sort(key=lambda p: -self._steps(p))  # one that joined late does not speak for a group
            for some in [ready] if self.rule.joint else [[p] for p in ready]:
                if some:
                    self._update(some, group, closure)
        return loss

    def _steps(self, p: torch.Tensor) -> int:
        return int(self.state[p].get("step", 0))

    def _update(self, params: list[torch.Tensor], group: dict, closure: Callable | None) -> None:
        rule = self._rule(group)
        views = [p.detach()[None] for p in params]
        for p, view in zip(params, views, strict=True):
            if "step" not in self.state[p]:  # also of an optimizer of torch that counts none, whose state was loaded
                given = {name: value for name, value in self.state[p].items() if value is not None}
                self.state[p] = {"step": 0} | {name: value[0] for name, value in rule.start(view).items()} | given
        states = [{name: v[None] for name, v in self.state[p].items() if name != "step"} for p in params]
        lr = torch.as_tensor(group["lr"], dtype=torch.float64, device=params[0].device).reshape(1)
        now = Now(self._steps(params[0]) + 1, {"lr": lr} | rule.settings())
        gradients = [p.grad.detach()[None] for p in params if p.grad is not None]
        if rule.needs_loss:
            assert closure is not None
            gradients, now.loss_at = [g.clone() for g in gradients], losses_at(views, closure)
        moves = rule.moves(gradients, views, states, now)
        for p, view, state, move in zip(params, views, states, moves, strict=True):
            view.sub_(move)
            new = {name: value[0] for name, value in state.items() if name not in self.state[p]}
            self.state[p].update(new, step=self._steps(p) + 1)
        if now.applied is not None:
            group["applied_lr"] = now.applied.item()


def losses_at(views: list[torch.Tensor], losses: Callable[[], torch.Tensor]) -> LossAt:
    """A function that puts weights in the place of the model's, computes its losses and puts the model's back.

    Layers that draw random numbers, such as dropout, draw the same ones each time, and the generators stay.
    """
    devices = [view.device for view in views[:1] if view.is_cuda]

    def loss_at(candidate: list[torch.Tensor]) -> torch.Tensor:
        before = [view.clone() for view in views]
        try:
            for view, value in zip(views, candidate, strict=True):
                view.copy_(value)
            with torch.random.fork_rng(devices):
                return torch.as_tensor(losses()).detach().reshape(-1)
        finally:
            for view, value in zip(views, before, strict=True):
                view.copy_(value)

    return loss_at
