"""The two ways to update weights: by a rule, which may be captured on a GPU, and by a `torch.optim.Optimizer`."""

import contextlib
import inspect
import math
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import torch
from torch import nn

from lrlib import _check, capture
from lrlib.minibatches import MiniBatches, Place, row
from lrlib.rule import Now, Rule, RuleOptimizer, losses_at
from lrlib.run import Run, cloned, each
from lrlib.scheduler import separate_rates
from lrlib.schedules import Schedule
from lrlib.stack import Stack

__all__ = ["OptimizerRun", "RuleRun"]

WARM_UP = 3  # updates before a graph is captured


class RuleRun(Run):
    """Replicas that a :class:`~lrlib.Rule` trains. An update reads its row of tables and asks the host for nothing."""

    def __init__(self, model, data, schedule: Schedule | float | Sequence | None, rule: Rule, **options):
        self._rule, self.plain = rule, type(rule).evaluated is Rule.evaluated
        super().__init__(model, data, **options)
        if any(p.is_complex() for p in self._params):
            raise ValueError("model: has complex parameters, must have real ones for a rule of lrlib")

        def table(name: str, value, check: Callable) -> torch.Tensor:
            return _table(name, value, self.steps, self.size, check).to(self.active.device)

        self.rates = table("schedule", schedule, _check.nonnegative)
        self._settings = {
            name: value if isinstance(value, int | float) else table(name, value, rule.check)
            for name, value in rule.settings().items()
        }
        self.state = [rule.start(weight) for weight in self.weights]
        self._buffers = _statistics(model) if isinstance(model, Stack) else []  # a replica may stop before the others

    def cut(self, factor, replicas=None):
        chosen = list(range(self.size)) if replicas is None else list(replicas)
        self.rates[self.step :, chosen] *= factor

    def method_state(self):
        return self.state

    def load_method_state(self, state):
        for mine, saved in zip(self.state, state, strict=True):
            for name, tensor in saved.items():
                mine[name].copy_(tensor)

    def _update(self, k: Place) -> None:
        """Update k."""
        x, y = self._batches.batch(k % self._batches.window)
        before = [] if isinstance(k, int) and self._calm else [buffer.clone() for buffer in self._buffers]
        values = self.losses(x, y)
        total = values.sum() if self.size > 1 else values
        gradients = torch.autograd.grad(total, self._params, allow_unused=True)
        used = [i for i, g in enumerate(gradients) if g is not None]  # the others rest, as in torch.optim
        weights = [self.weights[i] for i in used]
        given = [gradients[i].to_dense().view_as(weight) for i, weight in zip(used, weights, strict=True)]
        values = values.detach()
        with torch.no_grad():
            active = self.active.clone() if before else self.active
            calm = isinstance(k, int) and self._calm and math.isfinite(total.item())
            _write(self.loss, k, values if calm else values.where(self.active, torch.nan))
            if not calm:
                newly = self.active & ~values.isfinite()
                self.diverged_at.copy_(torch.where(newly, k, self.diverged_at))
                self.active &= ~newly
                self._calm = False
            settings = {n: row(v, k) if isinstance(v, torch.Tensor) else v for n, v in self._settings.items()}
            now = Now(
                k + 1 if isinstance(k, int) else (k + 1).double()[0],
                {"lr": row(self.rates, k)} | settings,
                losses_at(weights, lambda: self.losses(x, y)) if self._rule.needs_loss else None,
                used=[g is not None for g in gradients],
            )
            moves = self._rule.moves(given, weights, [self.state[i] for i in used], now)
            for buffer, old in zip(self._buffers, before, strict=False):
                buffer.copy_(buffer.where(_like(active, buffer), old))
            if not calm:
                moves = [m.where(_like(self.active, m), 0.0) for m in moves]
            for weight, move in zip(weights, moves, strict=True):
                weight.sub_(move)
            self.gradients, self.moves = self._of_all(used, given), self._of_all(used, moves)
            if now.applied is not None:
                _write(self.rates, k, now.applied)

    def _of_all(self, used: list[int], tensors: list[torch.Tensor]) -> list[torch.Tensor]:
        """One for each of the weights, zero where the loss does not depend on it."""
        if len(used) == len(self.weights):
            return tensors
        found = dict(zip(used, tensors, strict=True))
        return [found[i] if i in found else torch.zeros_like(weight) for i, weight in enumerate(self.weights)]

    def updater(self) -> Callable[[int], None]:
        """On a CPU the update itself; on a GPU its graph, captured after a few updates and replayed."""
        fixed = self._rule.capturable and isinstance(self._batches, MiniBatches)
        if not fixed or not capture.possible(self.active.device):
            return self._update
        first, replay = self.step, None
        place = torch.tensor([first], device=self.active.device)

        def update(k: int) -> None:
            nonlocal replay
            if k < first + WARM_UP:
                capture.aside(lambda: self._update(place))
            else:
                replay = replay or capture.graph(lambda: self._update(place))
                replay()
            place.add_(1)

        return update

    @contextlib.contextmanager
    def shown(self) -> Iterator[None]:
        self._hidden = [] if self.plain else [weight.clone() for weight in self.weights]
        self.leave()
        yield
        for mine, value in zip(self.weights, self._hidden, strict=False):
            mine.copy_(value)
        self._hidden = []
        if [id(p) for p in self.model.parameters() if p.requires_grad] != [id(p) for p in self._params]:
            raise ValueError(
                "model: a callback has changed which parameters require gradients, which only a torch.optim.Optimizer "
                "follows; must leave them"
            )

    def leave(self) -> None:
        for mine, value in zip(self.weights, self._rule.evaluated(self.weights, self.state), strict=True):
            if mine is not value:
                mine.copy_(value)


class OptimizerRun(Run):
    """One network that a `torch.optim.Optimizer` trains, update by update as it is."""

    optimizer: torch.optim.Optimizer

    def __init__(self, model, data, schedule, optimizer: torch.optim.Optimizer, **options):
        self.optimizer, self.plain = optimizer, not hasattr(optimizer, "eval")
        super().__init__(model, data, **options)
        separate_rates(optimizer)
        groups, self._planned = len(optimizer.param_groups), schedule is not None
        self._apart = isinstance(schedule, list | tuple)  # a schedule for each group
        self.rates = torch.full((self.steps, groups), torch.nan, dtype=torch.float64)
        if self._planned:
            self.rates = _table("schedule", schedule, self.steps, groups, _check.nonnegative)
        self._modes = [getattr(optimizer, mode, lambda: None) for mode in ("train", "eval")]  # of schedule-free methods
        self._modes[0]()

    def cut(self, factor, replicas=None):
        self.rates[self.step :] *= factor
        for group in self.optimizer.param_groups if not self._planned else ():
            group["lr"] *= factor

    def method_state(self):
        return [self.optimizer.state_dict()]

    def load_method_state(self, state: list[dict[str, Any]]) -> None:
        self.optimizer.load_state_dict(cloned(state[0]))

    def _apply_rates(self, k: int) -> None:
        """Give each group its rate of update k, or log the one that it has; one that has joined follows the first."""
        joined = len(self.optimizer.param_groups) - self.rates.shape[1]
        if joined and self._apart:
            raise ValueError(f"schedule: must be one for all groups, as {joined} joined during the run")
        if joined:
            column = self.rates[:, :1].clone()
            column[:k] = torch.nan
            self.rates = torch.cat([self.rates, column.expand(-1, joined)], 1)
        for j, group in enumerate(self.optimizer.param_groups):
            if not self._planned:
                self.rates[k, j] = float(group["lr"])
            elif isinstance(group["lr"], torch.Tensor):
                group["lr"].fill_(self.rates[k, j])
            else:
                group["lr"] = self.rates[k, j].item()

    def updater(self) -> Callable[[int], None]:
        lbfgs, asked = isinstance(self.optimizer, torch.optim.LBFGS), inspect.signature(self.optimizer.step).parameters
        required = "closure" in asked and asked["closure"].default is inspect.Parameter.empty
        closures = required or getattr(self.optimizer, "needs_closure", False)
        copies = any(callback.needs_moves for callback in self.callbacks)
        self._modes[0]()  # a resumed one may be in the other

        def update(k: int) -> None:
            x, y = self._batches.batch(k % self._batches.window)
            known: list[torch.Tensor] = []

            def closure():
                if known:
                    return known.pop()
                if torch.is_grad_enabled():  # where not, a rule compares losses and has taken its gradients
                    held = {id(p) for group in self.optimizer.param_groups for p in group["params"]}
                    for p in self.model.parameters():
                        if id(p) not in held:
                            p.grad = None
                    self.optimizer.zero_grad()
                value = self.losses(x, y)[0]
                if torch.is_grad_enabled():
                    value.backward()
                return value

            value = self.loss[k] = closure().detach()
            if not math.isfinite(value.item()):
                self.diverged_at[0] = k
                self.active[0] = self._calm = False
                return
            before = [weight.clone() for weight in self.weights] if copies else self.weights
            self._apply_rates(k)
            for group in self.optimizer.param_groups if isinstance(self.optimizer, RuleOptimizer) else ():
                group.pop("applied_lr", None)
            known.extend([value] * lbfgs)  # it asks first for the loss and the gradients that are there
            self.optimizer.step(*[closure] * closures)
            self.gradients = [torch.zeros_like(p)[None] if p.grad is None else p.grad[None] for p in self._params]
            self.moves = [old - new for old, new in zip(before, self.weights, strict=True)] if copies else []
            if isinstance(self.optimizer, RuleOptimizer):
                for j, group in enumerate(self.optimizer.param_groups[: self.rates.shape[1]]):
                    self.rates[k, j] = group.get("applied_lr", self.rates[k, j])  # of a rule that sets its own

        return update

    @contextlib.contextmanager
    def shown(self) -> Iterator[None]:
        self.leave()
        yield
        self._modes[0]()

    def leave(self) -> None:
        self._modes[1]()


def _table(name: str, value, steps: int, size: int, check: Callable[[str, float], object]) -> torch.Tensor:
    """Numbers and schedules as (T, R) in float64, each checked."""
    if isinstance(value, torch.Tensor):
        value = value.tolist()
    entries = each(name, list(value) if isinstance(value, tuple) else value, size)
    return torch.from_numpy(np.stack([_column(name, entry, steps, check) for entry in entries], 1))


def _column(name: str, entry, steps: int, check: Callable[[str, float], object]) -> np.ndarray:
    """The values of a number or a schedule at all steps."""
    if not isinstance(entry, Schedule):
        check(name, entry)
        return np.full(steps, float(entry))
    if entry.warmup_steps > steps:
        raise ValueError(f"steps={steps!r}: must be >= {entry.warmup_steps}, the warm-up of {entry}")
    values = entry(np.arange(steps))
    for t in (values.argmin(), values.argmax()):  # one of them is the first NaN, if there is any
        try:
            check(name, float(values[t]))
        except ValueError as error:
            raise ValueError(f"{name}={entry!r}: at step {t}: {error}") from None
    return values


def _write(table: torch.Tensor, k: Place, values: torch.Tensor) -> None:
    if isinstance(k, int):
        table[k] = values
    else:
        table.index_copy_(0, k, values.to(table.dtype)[None])


def _statistics(stack: Stack) -> list[torch.Tensor]:
    """What normalisations count in training, each (R, ...)."""
    tensors, norms = stack.tensors(), nn.modules.batchnorm._NormBase
    layers = [(name, layer) for name, layer in stack.template.named_modules() if isinstance(layer, norms)]
    names = [f"{name}.{buffer}".lstrip(".") for name, layer in layers for buffer, _ in layer.named_buffers()]
    return [tensors[name] for name in names if name in tensors]


def _like(active: torch.Tensor, tensor: torch.Tensor) -> torch.Tensor:
    """One truth a replica, (R,), in a shape that goes with a tensor (R, ...)."""
    return active.view(-1, *[1] * (tensor.ndim - 1))
