"""A run in progress: its state on the device, what watches it, and the loop that calls both."""

import contextlib
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np
import torch
from torch import nn

from lrlib import _check, runtime
from lrlib.callbacks import Callback, Periodic
from lrlib.data import Dataset
from lrlib.minibatches import Data, Loader, MiniBatches
from lrlib.rehearsal import shortened
from lrlib.stack import Loss, Stack, scalar

__all__ = ["Run"]

STATE = {"step", "tensors", "trained", "random", "hidden", "last", "method", "callbacks", "to_call"}  # of a run
LOOK = 100  # updates after which a GPU is asked whether anything is left to train


class Run(ABC):
    """A run in progress, as callbacks see it. Tensors are on the device of the data and may be read at any time.

    Attributes:
        model: the network, or the :class:`Stack`.
        data: the data of each replica, a list of R.
        size: R, 1 for a network.
        steps: T, the number of updates planned.
        step: the number of updates done.
        names: of the trainable parameters.
        weights: their values, each (R, ...), which share the model's memory; `values` likewise, of all parameters and
            buffers, as they are now.
        gradients, moves: of the last update, each (R, ...), the moves being what was taken from the weights; with a
            torch optimizer they are kept only if a callback has `needs_moves`.
        loss: the mini-batch losses, (T, R).
        rates: the rate of every update, (T, R), in float64; a callback may change what is to come. With a torch
            optimizer (T, groups), on the CPU.
        active: whether a replica is still trained, (R,).
        state: the rule's state of each parameter, a list of dicts.
        optimizer: the `torch.optim.Optimizer` that trains a network, or None.
        plain: whether the weights that are looked at are those that are trained, unlike a schedule-free method's.
    """

    rates: torch.Tensor
    optimizer: torch.optim.Optimizer | None = None
    plain = True

    def __init__(
        self,
        model: nn.Module,
        data: Data | Sequence[Data] | Iterable,
        *,
        steps: int,
        batch_size: int,
        loss: Loss,
        seed: int | Sequence[int],
        callbacks: Sequence[Callback | Callable],
    ):
        stack = model if isinstance(model, Stack) else None
        self.model, self.size, self.steps, self.step, self._loss = model, stack.size if stack else 1, steps, 0, loss
        batch_size = _check.integer("batch_size", batch_size, 1)
        seeds = each("seed", list(seed) if isinstance(seed, tuple) else seed, self.size)
        self.seeds = [_check.seed("seed", value) for value in seeds]
        named = {name: p for name, p in model.named_parameters() if p.requires_grad}
        if not named:
            raise ValueError("model: must have a parameter that requires a gradient")
        self.names, self._params = stack.names if stack else list(named), list(named.values())
        self._batches: MiniBatches | Loader
        if stack or isinstance(data, Dataset | tuple):
            self.data = each("data", data, self.size)
            self._batches = MiniBatches(self.data, self.seeds, batch_size, steps)
        else:
            self.data, self._batches = [data], Loader(data, self._params[0].device)
        if stack:
            stack.check(self.data[0].x_train[:2] if isinstance(self.data[0], Dataset) else self.data[0][0][:2])
        self.weights = [p.detach() if stack else p.detach()[None] for p in self._params]
        self.gradients: list[torch.Tensor] = []
        self.moves: list[torch.Tensor] = []
        self._hidden: list[torch.Tensor] = []  # what is trained, while other weights are shown
        self.state: list[dict[str, Any]] = []
        device = self._batches.device
        self.loss = torch.full((steps, self.size), torch.nan, dtype=torch.float64, device=device)
        self.active = torch.ones(self.size, dtype=torch.bool, device=device)
        self.diverged_at = torch.full((self.size,), -1, device=device)
        self._stopped_at = torch.full((self.size,), steps, device=device)
        self._calm = True  # all replicas are active, as far as the host knows
        self.callbacks = [c if isinstance(c, Callback) else Periodic(c, every=1) for c in callbacks]
        self._to_call: Sequence[Callback] = self.callbacks  # at this step
        for callback in self.callbacks:
            callback.start(self)

    @property
    def values(self) -> list[torch.Tensor]:
        tensors = [p.detach() for p in self.model.parameters()] + list(self.model.buffers())
        return tensors if isinstance(self.model, Stack) else [tensor[None] for tensor in tensors]

    @abstractmethod
    def updater(self) -> Callable[[int], None]:
        """The function that makes update k, called with k = `step`, `step` + 1, ..."""

    @abstractmethod
    def cut(self, factor: float, replicas: Sequence[int] | None = None) -> None:
        """Multiply the schedule's rates to come by a factor, of these replicas or of all."""

    @abstractmethod
    def shown(self) -> contextlib.AbstractContextManager[None]:
        """For the block, the weights that a method such as schedule-free means to be looked at."""

    @abstractmethod
    def leave(self) -> None:
        """Put these weights into the model, at the end."""

    @abstractmethod
    def method_state(self) -> list[dict[str, Any]]:
        """What the method remembers, for :meth:`state_dict`; another method does so by other names."""

    @abstractmethod
    def load_method_state(self, state: list[dict[str, Any]]) -> None:
        """Go on from what :meth:`method_state` returned."""

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
        return [*self.values, self.loss, self.rates, self.active, self.diverged_at, self._stopped_at]

    def state_dict(self) -> dict[str, Any]:
        """All that :func:`train` needs to go on from here, by its argument `resume`: copies on the CPU.

        Raises:
            ValueError: the data comes from a loader, whose place cannot be found again.
        """
        if isinstance(self._batches, Loader):
            raise ValueError("data: must be tensors or a Dataset for a run that goes on; the place in a loader is lost")
        cuda = torch.cuda.get_rng_state_all() if self.active.is_cuda else []
        to_call = [c for c in self._to_call if c.remembers]
        read = any(c.due(self.step) for c in to_call)
        return cloned(
            {
                "step": self.step,
                "tensors": self._tensors(),
                "trained": [p.requires_grad for p in self.model.parameters()],
                "random": [torch.get_rng_state(), *cuda],
                "hidden": self._hidden,
                "last": [self.gradients, self.moves] if read else [[], []],
                "method": self.method_state(),
                "callbacks": [[type(c).__name__, c.state_dict()] for c in self.callbacks if c.remembers],
                "to_call": len(to_call),
            }
        )

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from what :meth:`state_dict` returned.

        Raises:
            ValueError: it is of a run of another model, method, length or number of replicas, or with other callbacks;
                nothing has changed then.
        """
        if not isinstance(state, dict) or not STATE <= state.keys():
            raise ValueError(f"resume: is a {type(state).__name__}, must be what Run.state_dict returned")
        watching, names = [c for c in self.callbacks if c.remembers], [name for name, _ in state["callbacks"]]
        if [type(callback).__name__ for callback in watching] != names:
            raise ValueError(f"resume: is of a run with the callbacks {names}, must be with the same")
        if [*map(set, state["method"])] != [*map(set, self.method_state())]:
            raise ValueError("resume: is of a run by another method, must be by the same")
        if [t.shape for t in self._tensors()] != [t.shape for t in state["tensors"]]:
            raise ValueError("resume: is of another model, length or number of replicas, must be of the same run")
        self.load_method_state(state["method"])  # first, as torch's optimizers refuse other groups
        for mine, saved in zip(self._tensors(), state["tensors"], strict=True):
            mine.copy_(saved)
        for mine, saved in zip(self.weights, state["hidden"], strict=False):
            mine.copy_(saved)
        self.step, self._calm = state["step"], bool(self.active.all())
        self._to_call = watching[len(watching) - state["to_call"] :]
        self.gradients, self.moves = cloned(state["last"], self.active.device)
        for parameter, trained in zip(self.model.parameters(), state["trained"], strict=True):
            parameter.requires_grad_(trained)
        for callback, (_, memory) in zip(watching, state["callbacks"], strict=True):
            callback.load_state_dict(cloned(memory, self.active.device), self)
        torch.set_rng_state(state["random"][0])
        if self.active.is_cuda:
            torch.cuda.set_rng_state_all(state["random"][1:])

    def losses(self, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        """The losses (R,) of a batch (G, B, ...)."""
        try:
            if isinstance(self.model, Stack):
                return self.model.losses(x, y, self._loss)
            value = scalar(self._loss(self.model(x[0]), y[0]))
        except ValueError as error:
            if x.shape[1] > 1 or "more than 1 value per channel" not in str(error):
                raise
            raise ValueError(
                "data: gave a batch of one example, of which BatchNorm has no variance; must give larger ones, "
                "by batch_size, or drop_last=True of a loader"
            ) from error
        if torch.is_grad_enabled() and not value.requires_grad:
            raise ValueError("loss: its value has no gradient, must depend on the model's trainable parameters")
        return value[None]

    def ahead(self) -> torch.Tensor:
        """The losses (R,) of the mini-batch to come, at the present weights; a loader's is spent by that.

        Raises:
            RuntimeError: the last update is done, and no loader gives more.
        """
        if self.step >= self.steps and isinstance(self._batches, MiniBatches):
            raise RuntimeError(f"ahead: all {self.steps} updates are done, no mini-batch is to come")
        self._batches.seek(self.step)
        x, y = self._batches.batch(self.step % self._batches.window)  # a loader draws what is to stay drawn
        devices = [self.active.device] if self.active.is_cuda else []
        with torch.no_grad(), runtime.buffers_kept(self.model), torch.random.fork_rng(devices):
            return self.losses(x, y)

    def go(self) -> None:
        """All updates from the present step on, with the callbacks."""
        self.model.train()
        self._call(self._to_call)
        update = shortened(self.updater(), self.active.device)
        for k in range(self.step, self.steps):
            if self._nothing_left():
                break
            self._batches.seek(k)
            update(k)
            self.step = k + 1
            if not self._nothing_left():
                self._call(self.callbacks)
        if self.size == 1:
            self.step = int(self.updates()[0])
        self.leave()
        for callback in self.callbacks:
            callback.finish(self)

    def _nothing_left(self) -> bool:
        """Whether no replica is active; a GPU is asked only now and then."""
        ask = not self._calm and (self.active.device.type == "cpu" or self.step % LOOK == 0)
        return ask and not self.active.any()

    def _call(self, callbacks: Sequence[Callback]) -> None:
        due = [callback.due(self.step) for callback in callbacks]
        with self.shown() if any(due) else contextlib.nullcontext():
            for n, now in enumerate(due):
                self._to_call = callbacks[n:]
                if now:
                    callbacks[n](self)
                    self.model.train()
        self._to_call = []


def each(name: str, value: Any, size: int) -> list:
    """One value for each of R replicas.

    Raises:
        ValueError: there are several, and not R of them.
    """
    if not isinstance(value, list | range | np.ndarray):
        return [value] * size
    if len(value) != size:
        raise ValueError(f"{name}: has {len(value)} entries, must be one, or {size}")
    return list(value)


def cloned(value: Any, device: torch.device | str = "cpu") -> Any:
    """The same containers with copies of their tensors on a device."""
    if isinstance(value, torch.Tensor):
        return value.detach().to(device, copy=True)
    if isinstance(value, dict):
        return {key: cloned(item, device) for key, item in value.items()}
    return [cloned(item, device) for item in value] if isinstance(value, list) else value
