"""The one training loop of the book, and the record of what it did."""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F

from lrlib import _check, runtime
from lrlib.datasets import Dataset, batches
from lrlib.scheduler import ScheduleLR
from lrlib.schedules import Schedule

__all__ = ["History", "train", "evaluate"]

Callback = Callable[[int, nn.Module, torch.optim.Optimizer], None]


@dataclass(frozen=True)
class History:
    """What happened in a run of T updates, of which the first U took place (U = T unless it diverged or was stopped).

    Attributes:
        lr: the rate that each update applied, shape (U,), or (U, groups) for several parameter groups.
        loss: the mini-batch loss that each update's gradient was taken from, shape (U,).
        update_ratio: the size of each update relative to the weights, ‖Δθ‖/‖θ‖, shape (U,); None if not asked for.
        eval_step: the numbers of updates done when the test set was evaluated, shape (E,).
        test_loss, test_accuracy: of these evaluations, shape (E,). The last one is of the weights that the run left.
        diverged_at: the step whose mini-batch loss was not finite and ended the run, or None.
        seconds: wall time of the run, evaluations included.
        diverged_loss: that loss, inf or NaN, or None.
    """

    lr: np.ndarray
    loss: np.ndarray
    update_ratio: np.ndarray | None
    eval_step: np.ndarray
    test_loss: np.ndarray
    test_accuracy: np.ndarray
    diverged_at: int | None
    seconds: float
    diverged_loss: float | None = None

    @property
    def accuracy(self) -> float:
        """Test accuracy at the end of the run, in [0, 1]."""
        return float(self.test_accuracy[-1])

    @property
    def final_loss(self) -> float:
        """Test loss at the end of the run."""
        return float(self.test_loss[-1])


@torch.no_grad()
def evaluate(
    model: nn.Module,
    x: torch.Tensor,
    y: torch.Tensor,
    loss: Callable[[torch.Tensor, torch.Tensor], torch.Tensor] = F.cross_entropy,
    batch_size: int = 2000,
) -> tuple[float, float]:
    """Mean loss and accuracy of a classifier in evaluation mode; its training mode is restored.

    Args:
        model: maps x of shape (N, ...) to logits of shape (N, classes).
        x, y: inputs and labels, shape (N, ...) and (N,), N >= 1.
        loss: a mean over the examples it is given.
        batch_size: examples per forward pass, >= 1.

    Raises:
        ValueError: x is empty, or x and y differ in length.

    Example:
        >>> x, y = torch.eye(3), torch.arange(3)
        >>> evaluate(nn.Identity(), x, y)[1]
        1.0
    """
    batch_size = _check.integer("batch_size", batch_size, 1)
    if len(x) == 0 or len(x) != len(y):
        raise ValueError(f"x, y: have lengths {len(x)} and {len(y)}, must be equal and >= 1")
    total_loss, correct = 0.0, 0
    with runtime.modes_kept(model):
        model.eval()
        for xs, ys in zip(x.split(batch_size), y.split(batch_size), strict=True):
            logits = model(xs)
            total_loss += loss(logits, ys).item() * len(xs)
            correct += (logits.argmax(1) == ys).sum().item()
    return total_loss / len(x), correct / len(x)


def train(
    model: nn.Module,
    data: Dataset,
    schedule: Schedule | Sequence[Schedule] | None,
    *,
    steps: int,
    batch_size: int = 64,
    optimizer: torch.optim.Optimizer | None = None,
    momentum: Schedule | None = None,
    loss: Callable[[torch.Tensor, torch.Tensor], torch.Tensor] = F.cross_entropy,
    seed: int = 0,
    eval_every: int | None = None,
    track_updates: bool = False,
    callbacks: Sequence[Callback] = (),
) -> History:
    """Train `model` in place by mini-batches and return what was applied and measured at every update.

    Update t takes the gradient of the loss on batch t and moves the weights with the rate ``schedule(t)``. The
    order of the examples depends on `seed` alone, so that runs with the same seed see the same batches. A run whose
    mini-batch loss stops being finite ends there, before that update. A schedule of :mod:`lrlib.plateau` reads the
    validation loss as the run goes, and may end it.

    Args:
        model: maps inputs of shape (B, C, H, W) to logits of shape (B, classes); already on the data's device.
        data: a :class:`~lrlib.Dataset`.
        schedule: a schedule for all parameter groups, one per group, or None to leave the optimizer its own rate.
        steps: the number of updates T, >= 1 and at least the schedule's warm-up.
        batch_size: examples per update, between 1 and the number of training examples.
        optimizer: over the parameters of `model`; default `torch.optim.SGD` without momentum.
        momentum: optionally a schedule for the optimizer's momentum.
        loss: maps logits and labels to a scalar, the mean over the batch.
        seed: of the order of the examples and of everything random in the model, >= 0.
        eval_every: evaluate the test set before the first update and after every so many; default at the end only.
        track_updates: also measure the relative size of each update (a copy of the weights per step).
        callbacks: each called as ``callback(updates_done, model, optimizer)`` after every update.

    Raises:
        TypeError: an argument is of a wrong type.
        ValueError: an argument is out of its range, or the schedule's warm-up is longer than the run.

    Example:
        >>> import lrlib
        >>> with lrlib.seeded(0):
        ...     model = lrlib.mlp(64, 16, 10)
        >>> history = train(model, lrlib.digits(), lrlib.cosine(0.1, T_max=5), steps=5)
        >>> history.lr.round(4)
        array([0.1   , 0.0905, 0.0655, 0.0345, 0.0095])
    """
    steps = _check.integer("steps", steps, 1)
    batch_size = _check.integer("batch_size", batch_size, 1)
    seed = _check.integer("seed", seed, 0)
    if eval_every is not None:
        eval_every = _check.integer("eval_every", eval_every, 1)
    if batch_size > len(data.x_train):
        raise ValueError(f"batch_size={batch_size!r}: must be <= {len(data.x_train)}, the number of training examples")
    parts = [*(schedule if isinstance(schedule, list | tuple) else [schedule]), momentum]
    for part in parts:
        if getattr(part, "warmup_steps", 0) > steps:
            raise ValueError(f"steps={steps!r}: must be >= {part.warmup_steps}, the warm-up of {part}")
    watchers = list(dict.fromkeys(part for part in parts if getattr(part, "watches", False)))
    if schedule is None and momentum is not None:
        raise ValueError("momentum: must be None without a schedule")
    if optimizer is None:
        if schedule is None:
            raise ValueError("schedule=None: must be a Schedule unless an optimizer brings its own rate")
        optimizer = torch.optim.SGD(model.parameters(), lr=0.0)
    for watcher in watchers:
        watcher.begin(data)
    scheduler = None if schedule is None else ScheduleLR(optimizer, schedule, momentum=momentum)

    rates, losses, ratios, evaluations = [], [], [], []
    diverged_at = None
    started = time.perf_counter()

    def measure(updates_done):
        evaluations.append((updates_done, *evaluate(model, data.x_test, data.y_test, loss)))

    with runtime.seeded(seed):
        model.train()
        if eval_every:
            measure(0)
        for t, rows in enumerate(batches(len(data.x_train), batch_size, steps, seed)):
            x, y = data.x_train[rows], data.y_train[rows]

            def closure(x=x, y=y):
                optimizer.zero_grad()
                value = loss(model(x), y)
                if torch.is_grad_enabled():
                    value.backward()
                return value

            value = closure()
            if not torch.isfinite(value):
                diverged_at = t
                break
            before = _weights(model) if track_updates else None
            if getattr(optimizer, "needs_closure", False):
                optimizer.step(closure)
            else:
                optimizer.step()
            losses.append(value.detach())
            rates.append([float(group["lr"]) for group in optimizer.param_groups])
            if track_updates:
                ratios.append((torch.dist(_weights(model), before) / before.norm()).item())
            ends = [watcher.watch(t + 1, model) for watcher in watchers]
            if scheduler is not None:
                scheduler.step()
            for callback in callbacks:
                callback(t + 1, model, optimizer)
            if eval_every and (t + 1) % eval_every == 0:
                measure(t + 1)
            if any(ends):
                break
        if any([watcher.finish(model) for watcher in watchers]) and evaluations and evaluations[-1][0] == len(losses):
            evaluations.pop()
        if not evaluations or evaluations[-1][0] != len(losses):
            measure(len(losses))

    lr = np.array(rates, dtype=np.float64).reshape(len(rates), len(optimizer.param_groups))
    eval_step, test_loss, test_accuracy = (np.array(column) for column in zip(*evaluations, strict=True))
    return History(
        lr=lr[:, 0] if lr.shape[1] == 1 else lr,
        loss=torch.stack(losses).double().cpu().numpy() if losses else np.empty(0),
        update_ratio=np.array(ratios) if track_updates else None,
        eval_step=eval_step,
        test_loss=test_loss,
        test_accuracy=test_accuracy,
        diverged_at=diverged_at,
        seconds=time.perf_counter() - started,
        diverged_loss=None if diverged_at is None else value.item(),
    )


def _weights(model: nn.Module) -> torch.Tensor:
    """All trainable parameters as one vector, copied."""
    return torch.cat([p.detach().flatten() for p in model.parameters() if p.requires_grad])
