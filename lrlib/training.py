"""The one training loop of the book, for one network or a stack of them, and the record of what it did."""

import contextlib
import itertools
import math
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F

from lrlib import _check, capture, runtime
from lrlib.callbacks import Callback, Evaluate, Periodic, UpdateRatios, evaluate
from lrlib.data import Dataset, batches
from lrlib.rules import SGD, LossAt, Now, Rule, losses_at
from lrlib.scheduler import ScheduleLR
from lrlib.schedules import Schedule
from lrlib.stack import Loss, Stack

__all__ = ["History", "Run", "train", "evaluate"]

Data = Dataset | tuple[torch.Tensor, torch.Tensor]
Where = int | torch.Tensor  # a row of a table: an int, or a tensor (1,) on the device while a graph is captured
WINDOW = 2**24  # numbers of the order of examples that are kept at a time
WARM_UP = 3  # updates before a graph is captured


@dataclass(frozen=True)
class History:
    """What happened in a run of T updates, of which the first U took place (U = T unless it diverged or was stopped).

    Of a stack of R replicas every array has R rows, U is T, and what a replica did not do is NaN.

    Attributes:
        lr: the rate that each update applied, shape (U,), or (U, groups) for several parameter groups.
        loss: the mini-batch loss that each update's gradient was taken from, shape (U,).
        update_ratio: the size of each update relative to the weights, ‖Δθ‖/‖θ‖, shape (U,); None if not asked for.
        eval_step: the numbers of updates done when the test set was evaluated, shape (E,).
        test_loss, test_accuracy: of these evaluations, shape (E,). The last one is of the weights that the run left.
        diverged_at: the step whose mini-batch loss was not finite and ended the run, or None; of a stack (R,), with -1.
        updates: the number U of updates done; of a stack (R,).
        seconds: wall time of the run, evaluations included.
        diverged_loss: the loss that was not finite, inf or NaN, or None; of a stack (R,), NaN for none.
    """

    lr: np.ndarray
    loss: np.ndarray
    update_ratio: np.ndarray | None
    eval_step: np.ndarray
    test_loss: np.ndarray
    test_accuracy: np.ndarray
    diverged_at: int | None | np.ndarray
    updates: int | np.ndarray
    seconds: float
    diverged_loss: float | None | np.ndarray = None

    @property
    def accuracy(self):
        """Test accuracy at the end of the run, in [0, 1]; of a stack (R,)."""
        return self.test_accuracy[..., -1][()]

    @property
    def final_loss(self):
        """Test loss at the end of the run; of a stack (R,)."""
        return self.test_loss[..., -1][()]


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
    """

    def __init__(self, model, data, schedule, steps, batch_size, optimizer, loss, seed, callbacks):
        stack = isinstance(model, Stack)
        if stack:
            model.check(_first(data))
        self.model, self.size, self.steps, self.step = model, model.size if stack else 1, steps, 0
        seeds = _each("seed", seed, self.size, (int, np.integer))
        self._seeds = [_check.integer("seed", value, 0) for value in seeds]
        named = [(name, p) for name, p in model.named_parameters() if p.requires_grad]
        if not named:
            raise ValueError("model: must have a parameter that requires a gradient")
        if stack or isinstance(data, Dataset | tuple):
            self.data = _each("data", data, self.size, (Dataset, tuple))
            self._source: _Source | _Loader = _Source(self.data, self._seeds, batch_size, steps)
        else:
            self.data, self._source = [data], _Loader(data, named[0][1].device)
        device = self._source.device
        self.names = list(model.names) if stack else [name for name, _ in named]
        self._params = [p for _, p in named]
        self.weights = [p.detach() if stack else p.detach()[None] for p in self._params]
        self.buffers = [b if stack else b[None] for b in model.buffers()]
        self.active = torch.ones(self.size, dtype=torch.bool, device=device)
        self._calm = True  # whether all replicas are active, as far as the host knows
        self.loss = torch.full((steps, self.size), torch.nan, dtype=torch.float64, device=device)
        self._diverged_at = torch.full((self.size,), -1, device=device)
        self._stopped_at = torch.full((self.size,), steps, device=device)
        self.gradients: list[torch.Tensor] = []
        self.moves: list[torch.Tensor] = []
        self._loss = loss
        self.callbacks = [c if isinstance(c, Callback) else Periodic(c, every=1) for c in callbacks]
        self._needs_moves = any(c.needs_moves for c in self.callbacks)
        self.optimizer, self.scheduler, self.rule = None, None, None
        if isinstance(optimizer, torch.optim.Optimizer):
            if stack:
                raise TypeError(f"optimizer={type(optimizer).__name__}: must be a rule of lrlib.rules for a Stack")
            self.optimizer, groups = optimizer, len(optimizer.param_groups)
            self.scheduler = None if schedule is None else ScheduleLR(optimizer, schedule)
            self.rates = torch.full((steps, groups), torch.nan, dtype=torch.float64)
        else:
            self.rule = SGD() if optimizer is None else optimizer
            if not isinstance(self.rule, Rule):
                raise TypeError(f"optimizer={optimizer!r}: must be a rule of lrlib.rules or a torch.optim.Optimizer")
            self.rates = _table("schedule", schedule, steps, self.size, _check_rate).to(device)
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
        self._calm = self._calm and not chosen.any()

    def state_dict(self) -> dict:
        """All that :func:`train` needs to go on from here, by its argument `resume`: copies on the CPU."""
        optimizer = self.optimizer.state_dict() if self.optimizer is not None else self.state
        schedule = None if self.scheduler is None else self.scheduler.state_dict()
        tensors = [
            *self.weights,
            *self.buffers,
            self.loss,
            self.rates,
            self.active,
            self._diverged_at,
            self._stopped_at,
        ]
        random = [torch.get_rng_state(), *(torch.cuda.get_rng_state_all() if self.active.is_cuda else [])]
        return _copied({"step": self.step, "tensors": tensors, "optimizer": optimizer, "scheduler": schedule,
                        "random": random})  # fmt: skip

    def _load(self, state: dict) -> None:
        here = [*self.weights, *self.buffers, self.loss, self.rates, self.active, self._diverged_at, self._stopped_at]
        if [t.shape for t in here] != [t.shape for t in state["tensors"]]:
            raise ValueError("resume: is of another model, length or number of replicas, must be of the same run")
        for mine, saved in zip(here, state["tensors"], strict=True):
            mine.copy_(saved)
        self.step, self._calm = state["step"], bool(self.active.all())
        if self.optimizer is not None:
            self.optimizer.load_state_dict(_copied(state["optimizer"]))
            if self.scheduler is not None:
                self.scheduler.load_state_dict(state["scheduler"])
        else:
            for mine, saved in zip(self.state, state["optimizer"], strict=True):
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

    def _update(self, k: Where, w: Where) -> None:
        """Update k by the rule, on row w of the window of the order. Nothing here asks the host, but on a CPU."""
        x, y = self._source.batch(w)
        values = self._losses(x, y)
        gradients = torch.autograd.grad(values.sum(), self._params, allow_unused=True)
        used = [i for i, g in enumerate(gradients) if g is not None]
        grads = [g if isinstance(self.model, Stack) else g[None] for g in gradients if g is not None]
        weights, values = [self.weights[i] for i in used], values.detach()
        with torch.no_grad():
            calm = isinstance(k, int) and self._calm and math.isfinite(values.sum().item())
            _write(self.loss, k, values if calm else values.where(self.active, torch.nan))
            if not calm:
                finite = values.isfinite()
                at = torch.as_tensor(k, device=finite.device)
                self._diverged_at.copy_(torch.where(self.active & ~finite, at, self._diverged_at))
                self.active &= finite
                self._calm = False
            now = self._now(k, values, losses_at(weights, lambda: self._losses(x, y)))
            moves = self.rule.moves(grads, weights, [self.state[i] for i in used], now)
            if not calm:
                moves = [m.where(self.active.view(-1, *[1] * (m.ndim - 1)), 0.0) for m in moves]
            for weight, move in zip(weights, moves, strict=True):
                weight.sub_(move)
            if now.applied is not None:
                _write(self.rates, k, now.applied)
        self.gradients, self.moves = grads, moves

    def _now(self, k: Where, values: torch.Tensor, loss_at: LossAt) -> Now:
        settings = {
            name: _row(value, k) if isinstance(value, torch.Tensor) else value for name, value in self._settings.items()
        }
        t = k + 1 if isinstance(k, int) else (k + 1).double()[0]
        return Now(t, {"lr": _row(self.rates, k)} | settings, values, loss_at, self.active)

    def _update_by_optimizer(self, k: int, w: int) -> None:
        """Update k by a torch.optim.Optimizer."""
        x, y = self._source.batch(w)

        def closure():
            self.optimizer.zero_grad()
            value = self._losses(x, y)[0]
            if torch.is_grad_enabled():
                value.backward()
            return value

        value = closure().detach()
        self.loss[k] = value
        if not torch.isfinite(value):
            self._diverged_at[0] = k
            self.active[0] = self._calm = False
            return
        before = [weight.clone() for weight in self.weights] if self._needs_moves else []
        rates = [float(group["lr"]) for group in self.optimizer.param_groups]
        self.rates[k] = torch.tensor(rates, dtype=torch.float64)
        if getattr(self.optimizer, "needs_closure", False) or isinstance(self.optimizer, torch.optim.LBFGS):
            self.optimizer.step(closure)
        else:
            self.optimizer.step()
        self.gradients = [p.grad[None] for p in self._params if p.grad is not None]
        self.moves = [old - new for old, new in zip(before, self.weights, strict=True)] if before else []
        if self.scheduler is not None and k + 1 < self.steps:
            self.scheduler.step()

    def _call(self, callbacks: Sequence[Callback]) -> None:
        """With the weights that an optimizer such as schedule-free means to be looked at."""
        due = [callback for callback in callbacks if callback.due(self.step)]
        if due:
            with _as_evaluated(self):
                for callback in due:
                    callback(self)
                    self.model.train()

    def go(self) -> None:
        """All updates from the present step on, with the callbacks."""
        self.model.train()
        for callback in self.callbacks:
            callback.start(self)
        if self.step == 0:
            self._call(self.callbacks)
        update = self._updater()
        for k in range(self.step, self.steps):
            if not self._calm and not self._any_active(k):
                break
            self._source.seek(k)
            update(k)
            self.step = k + 1
            if self._calm or self._any_active(k):
                self._call(self.callbacks)
        if self.size == 1:
            self.step = int(self._updates()[0])
        if self.rule is not None:
            _put(self.weights, self.rule.evaluated(self.weights, self.state))
        for callback in self.callbacks:
            callback.finish(self)

    def _updates(self) -> np.ndarray:
        """How many updates each replica has made, (R,)."""
        ended = torch.where(self._diverged_at < 0, self.step, self._diverged_at)
        return torch.minimum(ended, self._stopped_at).cpu().numpy()

    def _any_active(self, k: int) -> bool:
        """Whether anything is left to train; a GPU is asked only now and then."""
        return not (self.active.device.type == "cpu" or k % 100 == 0) or bool(self.active.any())

    def _updater(self) -> Callable[[int], None]:
        """On a CPU the update itself; on a GPU its graph, captured after a few updates and replayed."""
        window = self._source.window
        if self.optimizer is not None:
            return lambda k: self._update_by_optimizer(k, k % window)
        fixed = self.rule.capturable and isinstance(self._source, _Source)
        if not fixed or not capture.possible(self.active.device):
            return lambda k: self._update(k, k % window)
        place = torch.tensor([self.step], device=self.active.device)
        inside = torch.tensor([self.step % window], device=self.active.device)
        first, replay = self.step, None

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

    def outcome(self, evaluations: Evaluate | None, ratios: np.ndarray | None, started: float) -> History:
        """The history of the run so far."""
        diverged, updates = self._diverged_at.cpu().numpy(), self._updates()
        losses, rates = self.loss.cpu().numpy().T.copy(), self.rates.cpu().numpy()
        found = np.array([losses[r, k] if k >= 0 else np.nan for r, k in enumerate(diverged)])
        losses[np.arange(self.steps) >= updates[:, None]] = np.nan
        steps, test = np.array([], dtype=int), np.empty((2, self.size, 0))
        if evaluations is not None:
            steps, found_test = np.array(evaluations.steps), [evaluations.loss, evaluations.accuracy]
            test = np.stack(found_test).reshape(2, self.size, -1)
        seconds = time.perf_counter() - started
        if isinstance(self.model, Stack):
            steps, test = self._as_planned(evaluations, steps, test, diverged)
            rates = np.where(np.arange(self.steps) < updates[:, None], rates.T, np.nan)
            return History(rates, losses, ratios, steps, *test, diverged, updates, seconds, found)
        u = int(updates[0])
        rates = rates[:u, 0] if rates.shape[1] == 1 else rates[:u]
        at, value = (int(diverged[0]), float(found[0])) if diverged[0] >= 0 else (None, None)
        ratios = None if ratios is None else ratios[:u]
        return History(rates, losses[0, :u], ratios, steps, *test[:, 0], at, u, seconds, value)

    def _as_planned(self, evaluations: Evaluate | None, steps: np.ndarray, test: np.ndarray, diverged: np.ndarray):
        """The evaluations at the steps planned, NaN where a replica had ended before, but for the last one."""
        if evaluations is None or evaluations.at is None:
            return steps, test
        planned = np.array([step for step in sorted(evaluations.at) if step < self.steps] + [self.steps])
        values = np.full((2, self.size, len(planned)), np.nan)
        values[:, :, : len(steps) - 1], values[:, :, -1] = test[:, :, :-1], test[:, :, -1]
        late = planned[:-1] > np.where(diverged < 0, self.steps, diverged)[:, None]
        values[:, :, :-1][:, late] = np.nan
        return planned, values


class _Source:
    """Mini-batches of the examples of R replicas, from orders that lie on the device, a window of them at a time."""

    def __init__(self, data: Sequence[Data], seeds: Sequence[int], batch_size: int, steps: int):
        pairs = [(d.x_train, d.y_train) if isinstance(d, Dataset) else d for d in data]
        for pair in pairs:
            if len(pair) != 2 or len(pair[0]) != len(pair[1]) or len(pair[0]) == 0:
                raise ValueError("data: must be a Dataset or a pair of equally many inputs and targets, at least one")
            if batch_size > len(pair[0]):
                raise ValueError(
                    f"batch_size={batch_size!r}: must be <= {len(pair[0])}, the number of training examples"
                )
        keys = [(id(x), id(y), seed) for (x, y), seed in zip(pairs, seeds, strict=True)]
        groups = [(key, len(list(some))) for key, some in itertools.groupby(keys)]
        even = len({count for _, count in groups}) == 1
        first = range(0, len(keys), groups[0][1]) if even else range(len(keys))
        self._x, x_offset = _joined([pairs[r][0] for r in first])
        self._y, y_offset = _joined([pairs[r][1] for r in first])
        self.device = self._x.device
        self._x_offset, self._y_offset = (torch.tensor(o, device=self.device)[:, None] for o in (x_offset, y_offset))
        self._shared = not any(x_offset) and not any(y_offset)
        self.window = max(1, min(steps, WINDOW // (len(first) * batch_size)))
        orders = [batches(len(pairs[r][0]), batch_size, steps, seeds[r]) for r in first]
        self._windows, self._at = self._stacked(orders, batch_size), -1
        self._rows = torch.empty((self.window, len(first), batch_size), dtype=torch.int64, device=self.device)

    def _stacked(self, orders: list[Iterator[torch.Tensor]], batch_size: int) -> Iterator[torch.Tensor]:
        while True:
            columns = [list(itertools.islice(order, self.window)) for order in orders]
            if not columns[0]:
                return
            yield torch.stack([torch.stack(column) for column in columns], 1)

    def seek(self, k: int) -> None:
        """Bring the window that update k is in."""
        while self._at < k // self.window:
            rows = next(self._windows)
            self._at += 1
            if self._at == k // self.window:
                self._rows[: len(rows)].copy_(rows)

    def batch(self, w: Where) -> tuple[torch.Tensor, torch.Tensor]:
        """Inputs and targets (G, B, ...) of row w of the window."""
        rows = _row(self._rows, w)
        if self._shared:
            return self._x[rows], self._y[rows]
        return self._x[rows + self._x_offset], self._y[rows + self._y_offset]


class _Loader:
    """Mini-batches of one network from an iterable of pairs, again and again."""

    window = 1

    def __init__(self, data: Iterable, device: torch.device):
        if not isinstance(data, Iterable) or isinstance(data, Iterator):
            raise TypeError(
                f"data={data!r}: must be a Dataset, a pair of tensors, or an iterable that can be restarted"
            )
        self.device, self._pairs = device, self._again(data)

    def _again(self, data: Iterable) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        while True:
            count = 0
            for count, pair in enumerate(data, 1):  # noqa: B007
                if not isinstance(pair, list | tuple) or len(pair) != 2:
                    kind = f"{len(pair)} parts" if isinstance(pair, list | tuple) else f"a {type(pair).__name__}"
                    raise ValueError(f"data: gave a batch of {kind}, must give pairs (inputs, targets)")
                yield pair[0].to(self.device)[None], pair[1].to(self.device)[None]
            if not count:
                raise ValueError("data: is empty, must give batches")

    def seek(self, k: int) -> None:
        pass

    def batch(self, w: Where) -> tuple[torch.Tensor, torch.Tensor]:
        return next(self._pairs)


def _first(data: Data | Sequence[Data]) -> torch.Tensor:
    some = data if isinstance(data, Dataset | tuple) else data[0]
    return (some.x_train if isinstance(some, Dataset) else some[0])[:2]


def _joined(tensors: list[torch.Tensor]) -> tuple[torch.Tensor, list[int]]:
    """The different ones among them, one after the other, and where each begins."""
    starts, parts, length = {}, [], 0
    for tensor in tensors:
        if id(tensor) not in starts:
            starts[id(tensor)] = length
            parts.append(tensor)
            length += len(tensor)
    return (parts[0] if len(parts) == 1 else torch.cat(parts)), [starts[id(tensor)] for tensor in tensors]


def _each(name: str, value, size: int, single: tuple[type, ...]) -> list:
    """One value for each of R replicas."""
    if isinstance(value, single) or value is None:
        return [value] * size
    values = list(value)
    if len(values) != size or not all(isinstance(v, single) for v in values):
        raise ValueError(f"{name}: must be one, or {size}, one for each replica")
    return values


def _table(name: str, value, steps: int, size: int, check: Callable[[str, float], object]) -> torch.Tensor:
    """Numbers and schedules as (T, R) in float64, each checked."""
    values = list(value) if isinstance(value, list | tuple | np.ndarray | torch.Tensor) else [value] * size
    if len(values) != size:
        raise ValueError(f"{name}: has {len(values)} entries, must be one, or {size}, one for each replica")
    columns = []
    for entry in values:
        if isinstance(entry, Schedule):
            if entry.warmup_steps > steps:
                raise ValueError(f"steps={steps!r}: must be >= {entry.warmup_steps}, the warm-up of {entry}")
            column = entry(np.arange(steps))
            for t in {int(np.argmin(column)), int(np.argmax(column)), int(np.argmin(np.isfinite(column)))}:
                try:
                    check(name, float(column[t]))
                except ValueError as error:
                    raise ValueError(f"{name}={entry!r}: at step {t}: {error}") from None
        else:
            number = float(entry) if not isinstance(entry, str | bool | None) else entry
            check(name, number)
            column = np.full(steps, number)
        columns.append(column)
    return torch.from_numpy(np.stack(columns, 1))


def _check_rate(name: str, value: float) -> None:
    _check.nonnegative(name, value)


def _row(table: torch.Tensor, k: Where) -> torch.Tensor:
    return table[k] if isinstance(k, int) else table.index_select(0, k)[0]


def _write(table: torch.Tensor, k: Where, values: torch.Tensor) -> None:
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


def _put(weights: list[torch.Tensor], values: list[torch.Tensor]) -> None:
    for weight, value in zip(weights, values, strict=True):
        if value is not weight:
            weight.copy_(value)


@contextlib.contextmanager
def _as_evaluated(run: Run) -> Iterator[None]:
    """For the block, the weights that a schedule-free method is to be evaluated at."""
    kept, shown = run.weights, run.weights if run.rule is None else run.rule.evaluated(run.weights, run.state)
    modes = hasattr(run.optimizer, "eval") and hasattr(run.optimizer, "train")
    if shown is not kept:
        kept = [weight.clone() for weight in kept]
        _put(run.weights, shown)
    if modes:
        run.optimizer.eval()
    try:
        yield
    finally:
        _put(run.weights, kept)
        if modes:
            run.optimizer.train()


def train(
    model: nn.Module,
    data: Data | Sequence[Data] | Iterable,
    schedule: Schedule | float | Sequence[Schedule | float] | None,
    *,
    steps: int,
    batch_size: int = 64,
    optimizer: Rule | torch.optim.Optimizer | None = None,
    loss: Loss = F.cross_entropy,
    seed: int | Sequence[int] = 0,
    eval_every: int | None = None,
    track_updates: bool = False,
    callbacks: Sequence[Callback | Callable[[Run], object]] = (),
    resume: dict | None = None,
) -> History:
    """Train a network, or a stack of them, in place by mini-batches; what was applied and measured at every update.

    Update t takes the gradient of the loss on batch t and moves the weights by the rule with the rate ``schedule(t)``.
    The order of the examples depends on `seed` alone, so that runs with the same seed see the same batches. A network
    whose mini-batch loss stops being finite is trained no further, from before that update on.

    On a GPU an update is captured once as a CUDA graph and replayed, and never waits for the host: give callbacks a
    period. A `torch.optim.Optimizer` runs as it is, update by update.

    Args:
        model: maps inputs (B, ...) to outputs such as logits (B, classes), on the data's device; or a
            :class:`~lrlib.Stack` of R of them.
        data: a :class:`~lrlib.Dataset`, or a pair of tensors (inputs, targets), which has no test set; of a stack
            also one for each replica; for a network also an iterable of pairs that can be iterated again and again,
            such as a `DataLoader`, which brings its own batches.
        schedule: of the rate. For a stack one for all or one for each replica, a rate being a constant one; for a
            torch optimizer one for all groups or one for each, or None to leave it its own rates.
        steps: the number of updates T, >= 1 and at least the schedule's warm-up.
        batch_size: examples per update, between 1 and the number of training examples.
        optimizer: a rule, such as ``lrlib.SGD(momentum=0.9)``, or, for one network, any `torch.optim.Optimizer` over
            its parameters; default ``lrlib.SGD()``.
        loss: maps outputs and targets to a scalar, the mean over the batch.
        seed: of the order of the examples and, for one network, of everything random in it, >= 0.
        eval_every: evaluate the test set before the first update and after every so many; default at the end only.
        track_updates: also measure the relative size of each update.
        callbacks: functions of the :class:`Run`, called after every update, or :class:`~lrlib.Callback` objects.
        resume: what :meth:`Run.state_dict` returned in a run with the same arguments; the run goes on from there,
            bit by bit as if it had not ended.

    Raises:
        TypeError: an argument is of a wrong type.
        ValueError: an argument is out of its range, or a schedule's warm-up is longer than the run.

    Example:
        >>> import lrlib
        >>> with lrlib.seeded(0):
        ...     model = lrlib.mlp(64, 16, 10)
        >>> history = train(model, lrlib.digits(), lrlib.cosine(0.1, T_max=5), steps=5)
        >>> history.lr.round(4)
        array([0.1   , 0.0905, 0.0655, 0.0345, 0.0095])
        >>> stack = lrlib.Stack([lrlib.mlp(64, 16, 10) for _ in range(3)])
        >>> train(stack, lrlib.digits(), [0.01, 0.1, 1.0], steps=5, optimizer=lrlib.Adam()).loss.shape
        (3, 5)
    """
    started = time.perf_counter()
    steps = _check.integer("steps", steps, 1)
    batch_size = _check.integer("batch_size", batch_size, 1)
    every = steps + 1 if eval_every is None else _check.integer("eval_every", eval_every, 1)
    watching = list(callbacks)
    tests = None
    sets = [data] if isinstance(data, Dataset) else list(data) if isinstance(model, Stack) else []
    if sets and all(isinstance(some, Dataset) for some in sets):
        if any(some.x_test is not sets[0].x_test or some.y_test is not sets[0].y_test for some in sets):
            raise ValueError("data: have different test sets, must share one; pass pairs (x_train, y_train) otherwise")
        at = range(0 if eval_every else every, max(steps, every + 1), every)
        tests = Evaluate(sets[0].x_test, sets[0].y_test, at=at, loss=loss)
    ratios = UpdateRatios() if track_updates else None
    run = Run(
        model,
        data,
        schedule,
        steps,
        batch_size,
        optimizer,
        loss,
        seed,
        [c for c in (ratios, *watching, tests) if c is not None],
    )
    with runtime.seeded(run._seeds[0]):
        if resume is not None:
            run._load(resume)
        run.go()
        if tests is not None:
            with _as_evaluated(run) if run.rule is None else contextlib.nullcontext():
                tests.again(run)
    model.train()
    return run.outcome(tests, None if ratios is None else ratios.whole, started)
