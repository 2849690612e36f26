"""A run in progress: its state on the device, the update, and the loop that calls it and what watches."""

import contextlib
import math
from collections.abc import Callable, Iterable, Iterator, Sequence

import numpy as np
import torch
from torch import nn

from lrlib import _check, capture
from lrlib.callbacks import Callback, Periodic
from lrlib.data import Dataset
from lrlib.minibatches import Data, Loader, MiniBatches, Place, row
from lrlib.rule import Now, Rule, losses_at
from lrlib.rules import SGD
from lrlib.scheduler import ScheduleLR
from lrlib.schedules import Schedule
from lrlib.stack import Loss, Stack

__all__ = ["Run"]

WARM_UP = 3  # updates before a graph is captured
LOOK = 100  # updates after which a GPU is asked whether anything is left to train


class Run:
    """A run in progress, as callbacks see it. Tensors are on the device of the data and may be read at any time.

    Attributes:
        model: the network, or the :class:`Stack`.
        data: the data of each replica, a list of R.
        size: R, 1 for a network.
        steps: T, the number of updates planned.
        step: the number of updates done.
        names: of the trainable parameters.
        weights: their values, each (R, ...), which share the model's memory; `buffers` likewise.
        gradients, moves: of the last update, each (R, ...), the moves being what was taken from the weights.
        loss: the mini-batch losses, (T, R).
        rates: the rate of every update, (T, R), in float64; a callback may change what is to come.
        active: whether a replica is still trained, (R,).
        state: the rule's state of each parameter, a list of dicts.
        optimizer: the `torch.optim.Optimizer` that trains a network, or None.
    """

    def __init__(
        self,
        model: nn.Module,
        data: Data | Sequence[Data] | Iterable,
        schedule: Schedule | float | Sequence | None,
        *,
        steps: int,
        batch_size: int,
        optimizer: Rule | torch.optim.Optimizer | None,
        loss: Loss,
        seed: int | Sequence[int],
        callbacks: Sequence,
    ):
        stack = model if isinstance(model, Stack) else None
        self.model, self.size, self.steps, self.step, self._loss = model, stack.size if stack else 1, steps, 0, loss
        self.seeds = [_check.integer("seed", value, 0) for value in _each("seed", seed, self.size)]
        named = {name: p for name, p in model.named_parameters() if p.requires_grad}
        if not named:
            raise ValueError("model: must have a parameter that requires a gradient")
        self.names, self._params = stack.names if stack else list(named), list(named.values())
        self._batches: MiniBatches | Loader
        if stack or isinstance(data, Dataset | tuple):
            self.data = _each("data", data, self.size)
            self._batches = MiniBatches(self.data, self.seeds, batch_size, steps)
        else:
            self.data, self._batches = [data], Loader(data, self._params[0].device)
        if stack:
            stack.check(self.data[0].x_train[:2] if isinstance(self.data[0], Dataset) else self.data[0][0][:2])
        self.weights = [p.detach() if stack else p.detach()[None] for p in self._params]
        self.buffers = [b if stack else b[None] for b in model.buffers()]
        self.gradients: list[torch.Tensor] = []
        self.moves: list[torch.Tensor] = []
        self.state: list[dict] = []
        device = self._batches.device
        self.loss = torch.full((steps, self.size), torch.nan, dtype=torch.float64, device=device)
        self.active = torch.ones(self.size, dtype=torch.bool, device=device)
        self.diverged_at = torch.full((self.size,), -1, device=device)
        self._stopped_at = torch.full((self.size,), steps, device=device)
        self._calm = True  # all replicas are active, as far as the host knows
        self.callbacks = [c if isinstance(c, Callback) else Periodic(c, every=1) for c in callbacks]
        self.optimizer = optimizer if isinstance(optimizer, torch.optim.Optimizer) else None
        self._scheduler: ScheduleLR | None = None
        self.rule = SGD() if optimizer is None else optimizer
        if self.optimizer is not None:
            if stack:
                raise TypeError(f"optimizer={type(optimizer).__name__}: must be a rule of lrlib for a Stack")
            self._scheduler = None if schedule is None else ScheduleLR(self.optimizer, schedule)
            self.rates = torch.full((steps, len(self.optimizer.param_groups)), torch.nan, dtype=torch.float64)
            return
        if not isinstance(self.rule, Rule):
            raise TypeError(f"optimizer={optimizer!r}: must be a rule of lrlib or a torch.optim.Optimizer")
        self.rates = _table("schedule", schedule, steps, self.size, _check.nonnegative).to(device)
        self._settings = {
            name: value
            if isinstance(value, int | float)
            else _table(name, value, steps, self.size, self.rule.check).to(device)
            for name, value in self.rule.settings().items()
        }
        self.state = [self.rule.start(weight) for weight in self.weights]

    def stop(self, replicas: Sequence[int] | None = None) -> None:
        """Train these replicas no further, or none at all; what they have reached stays."""
        chosen = torch.zeros_like(self.active)
        chosen[list(range(self.size)) if replicas is None else list(replicas)] = True
        self._stopped_at.copy_(torch.where(chosen & self.active, self.step, self._stopped_at))
        self.active &= ~chosen
        self._calm = False

    def updates(self) -> np.ndarray:
        """How many updates each replica has made, (R,)."""
        ended = torch.where(self.diverged_at < 0, self.step, self.diverged_at)
        return torch.minimum(ended, self._stopped_at).cpu().numpy()

    def _tensors(self) -> list[torch.Tensor]:
        return [*self.weights, *self.buffers, self.loss, self.rates, self.active, self.diverged_at, self._stopped_at]

    def state_dict(self) -> dict:
        """All that :func:`train` needs to go on from here, by its argument `resume`: copies on the CPU."""
        cuda = torch.cuda.get_rng_state_all() if self.active.is_cuda else []
        return _copied(
            {
                "step": self.step,
                "tensors": self._tensors(),
                "optimizer": self.state if self.optimizer is None else self.optimizer.state_dict(),
                "scheduler": None if self._scheduler is None else self._scheduler.state_dict(),
                "random": [torch.get_rng_state(), *cuda],
            }
        )

    def load_state_dict(self, state: dict) -> None:
        """Go on from what :meth:`state_dict` returned.

        Raises:
            ValueError: it is of a run of another model, length or number of replicas.
        """
        if [t.shape for t in self._tensors()] != [t.shape for t in state["tensors"]]:
            raise ValueError("resume: is of another model, length or number of replicas, must be of the same run")
        for mine, saved in zip(self._tensors(), state["tensors"], strict=True):
            mine.copy_(saved)
        self.step, self._calm = state["step"], bool(self.active.all())
        if self.optimizer is not None:
            self.optimizer.load_state_dict(_copied(state["optimizer"]))
            if self._scheduler is not None:
                self._scheduler.load_state_dict(state["scheduler"])
        for mine, saved in zip(self.state, state["optimizer"] if self.optimizer is None else [], strict=False):
            for name, tensor in saved.items():
                mine[name].copy_(tensor)
        torch.set_rng_state(state["random"][0])
        if self.active.is_cuda:
            torch.cuda.set_rng_state_all(state["random"][1:])

    def _losses(self, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        """(R,) of a batch (G, B, ...)."""
        if isinstance(self.model, Stack):
            return self.model.losses(x, y, self._loss)
        value = self._loss(self.model(x[0]), y[0])
        if value.numel() != 1:
            raise ValueError(f"loss: returned shape {tuple(value.shape)}, must return a scalar, the mean over examples")
        return value.reshape(1)

    def _update(self, k: Place, w: Place) -> None:
        """Update k by the rule, on row w of the window of the order. It asks the host for nothing, but on a CPU."""
        x, y = self._batches.batch(w)
        values = self._losses(x, y)
        gradients = torch.autograd.grad(values.sum(), self._params, allow_unused=True)
        used = [i for i, g in enumerate(gradients) if g is not None]
        self.gradients = [g if isinstance(self.model, Stack) else g[None] for g in gradients if g is not None]
        weights, values = [self.weights[i] for i in used], values.detach()
        with torch.no_grad():
            calm = isinstance(k, int) and self._calm and math.isfinite(values.sum().item())
            _write(self.loss, k, values if calm else values.where(self.active, torch.nan))
            if not calm:
                newly = self.active & ~values.isfinite()
                self.diverged_at.copy_(torch.where(newly, torch.as_tensor(k, device=newly.device), self.diverged_at))
                self.active &= ~newly
                self._calm = False
            settings = {n: row(v, k) if isinstance(v, torch.Tensor) else v for n, v in self._settings.items()}
            now = Now(
                k + 1 if isinstance(k, int) else (k + 1).double()[0],
                {"lr": row(self.rates, k)} | settings,
                values,
                losses_at(weights, lambda: self._losses(x, y)),
                None if calm else self.active,
            )
            self.moves = self.rule.moves(self.gradients, weights, [self.state[i] for i in used], now)
            if not calm:
                self.moves = [m.where(self.active.view(-1, *[1] * (m.ndim - 1)), 0.0) for m in self.moves]
            for weight, move in zip(weights, self.moves, strict=True):
                weight.sub_(move)
            if now.applied is not None:
                _write(self.rates, k, now.applied)

    def _update_by_optimizer(self, k: int, w: int) -> None:
        """Update k by the `torch.optim.Optimizer`."""
        x, y = self._batches.batch(w)

        def closure():
            self.optimizer.zero_grad()
            value = self._losses(x, y)[0]
            if torch.is_grad_enabled():
                value.backward()
            return value

        value = self.loss[k] = closure().detach()
        if not torch.isfinite(value):
            self.diverged_at[0] = k
            self.active[0] = self._calm = False
            return
        before = [w.clone() for w in self.weights] if any(c.needs_moves for c in self.callbacks) else self.weights
        rates = [float(group["lr"]) for group in self.optimizer.param_groups]
        self.rates[k] = torch.tensor(rates, dtype=torch.float64)
        closures = getattr(self.optimizer, "needs_closure", False) or isinstance(self.optimizer, torch.optim.LBFGS)
        self.optimizer.step(*[closure] * closures)
        self.gradients = [p.grad[None] for p in self._params if p.grad is not None]
        self.moves = [old - new for old, new in zip(before, self.weights, strict=True)]
        if self._scheduler is not None and k + 1 < self.steps:
            self._scheduler.step()

    def _updater(self) -> Callable[[int], None]:
        """On a CPU the update itself; on a GPU its graph, captured after a few updates and replayed."""
        window = self._batches.window
        if self.optimizer is not None:
            return lambda k: self._update_by_optimizer(k, k % window)
        fixed = self.rule.capturable and isinstance(self._batches, MiniBatches)
        if not fixed or not capture.possible(self.active.device):
            return lambda k: self._update(k, k % window)
        first, replay = self.step, None
        place, inside = (torch.tensor([k], device=self.active.device) for k in (first, first % window))

        def update(k: int) -> None:
            nonlocal replay
            if k % window == 0:
                inside.zero_()
            if k < first + WARM_UP:
                capture.aside(lambda: self._update(place, inside))
            else:
                replay = replay or capture.graph(lambda: self._update(place, inside))
                replay()
            place.add_(1)
            inside.add_(1)

        return update

    def go(self) -> None:
        """All updates from the present step on, with the callbacks."""
        self.model.train()
        if hasattr(self.optimizer, "train"):
            self.optimizer.train()
        for callback in self.callbacks:
            callback.start(self)
        if self.step == 0:
            self._call()
        update = self._updater()
        for k in range(self.step, self.steps):
            self._batches.seek(k)
            update(k)
            self.step = k + 1
            if not self._calm and (self.active.device.type == "cpu" or k % LOOK == 0) and not self.active.any():
                break
            self._call()
            if not self._calm and not self.active.is_cuda and not self.active.any():
                break
        if self.size == 1:
            self.step = int(self.updates()[0])
        for callback in self.callbacks:
            callback.finish(self)

    def _call(self) -> None:
        due = [callback for callback in self.callbacks if callback.due(self.step)]
        with self.shown() if due else contextlib.nullcontext():
            for callback in due:
                callback(self)
                self.model.train()

    @contextlib.contextmanager
    def shown(self) -> Iterator[None]:
        """For the block, the weights that a method such as schedule-free means to be looked at."""
        modes = all(hasattr(self.optimizer, mode) for mode in ("eval", "train"))
        shown = self.weights if self.optimizer is not None else self.rule.evaluated(self.weights, self.state)
        kept = [w.clone() for w in self.weights] if shown is not self.weights else []
        if modes:
            self.optimizer.eval()
        for mine, value in zip(self.weights, shown, strict=True) if kept else ():
            mine.copy_(value)
        yield
        if modes:
            self.optimizer.train()
        for mine, value in zip(self.weights, kept, strict=False):
            mine.copy_(value)


def _each(name: str, value, size: int) -> list:
    """One value for each of R replicas."""
    if not isinstance(value, list | range | np.ndarray):
        return [value] * size
    if len(value) != size:
        raise ValueError(f"{name}: has {len(value)} entries, must be one, or {size}, one for each replica")
    return list(value)


def _table(name: str, value, steps: int, size: int, check: Callable[[str, float], object]) -> torch.Tensor:
    """Numbers and schedules as (T, R) in float64, each checked."""
    columns = []
    for entry in _each(name, list(value) if isinstance(value, tuple | torch.Tensor) else value, size):
        if not isinstance(entry, Schedule):
            check(name, entry)
            columns.append(np.full(steps, float(entry)))
            continue
        if entry.warmup_steps > steps:
            raise ValueError(f"steps={steps!r}: must be >= {entry.warmup_steps}, the warm-up of {entry}")
        columns.append(entry(np.arange(steps)))
        for t in {columns[-1].argmin(), columns[-1].argmax(), np.isfinite(columns[-1]).argmin()}:
            try:
                check(name, float(columns[-1][t]))
            except ValueError as error:
                raise ValueError(f"{name}={entry!r}: at step {t}: {error}") from None
    return torch.from_numpy(np.stack(columns, 1))


def _write(table: torch.Tensor, k: Place, values: torch.Tensor) -> None:
    if isinstance(k, int):
        table[k] = values
    else:
        table.index_copy_(0, k, values.to(table.dtype)[None])


def _copied(value):
    if isinstance(value, torch.Tensor):
        return value.detach().cpu().clone()
    if isinstance(value, dict):
        return {key: _copied(item) for key, item in value.items()}
    return [_copied(item) for item in value] if isinstance(value, list) else value
