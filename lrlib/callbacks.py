r"""What watches a run: evaluations, averages of the weights, sizes of updates.

A callback of :func:`lrlib.train` is any function of the :class:`~lrlib.Run`; it is called after each update. One of
this module has a period, and sees one network or a stack of R replicas alike. What it may do: read anything, stop
replicas (:meth:`Run.stop`), change the rates to come (`run.rates`), renew pictures. Schedules remember nothing; all
that a run remembers is in its callbacks.
"""

import math
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F

from lrlib import _check, runtime
from lrlib.architecture import copied
from lrlib.minibatches import check_data
from lrlib.stack import Loss, Stack, check_statistics, wide

if TYPE_CHECKING:
    from lrlib.training import Run

__all__ = ["Callback", "Periodic", "Evaluate", "WeightAverage", "UpdateRatios", "evaluate"]


@torch.no_grad()
def evaluate(
    model: nn.Module, x: torch.Tensor, y: torch.Tensor, loss: Loss = F.cross_entropy, batch_size: int = 2000
) -> tuple:
    """Mean loss and accuracy in evaluation mode, of one network or of each in a stack; its training mode is restored.

    The accuracy is that of the largest of C >= 2 outputs, where y are whole numbers in [0, C), one an example, or of
    the sign of a single output, where y are 0 and 1; it is NaN for anything else. A single output must be a logit: the
    sign of a probability names 1 always. Outputs in half precision are taken to float32.

    Args:
        model: maps x of shape (N, ...) to outputs (N, ...), such as logits (N, classes); or a :class:`Stack` of them.
        x, y: inputs and targets, shape (N, ...) and (N, ...), N >= 1.
        loss: returns a scalar, a mean over the examples it is given. One with class weights is none: its value for
            several batches depends on how they are cut, so give it one batch.
        batch_size: examples per forward pass, >= 1.

    Returns:
        Two floats; of a stack two arrays of shape (R,).

    Raises:
        TypeError: x or y is no tensor.
        ValueError: x is empty, x and y differ in length, there are several batches for a BatchNorm layer without
            running statistics or a loss that is no mean over the examples, or the loss is no scalar or one of
            probabilities.

    Example:
        >>> x, y = torch.eye(3), torch.arange(3)
        >>> evaluate(nn.Identity(), x, y)[1]
        1.0
    """
    batch_size = _check.integer("batch_size", batch_size, 1)
    check_data(x, y)
    check_statistics(model, len(x), batch_size)
    stack = model if isinstance(model, Stack) else None
    totals = torch.zeros(2, stack.size if stack else 1, dtype=torch.float64, device=x.device)
    with runtime.modes_kept(model):
        model.eval()
        for xs, ys in zip(x.split(batch_size), y.split(batch_size), strict=True):
            outputs = wide(model(xs[None]) if stack else model(xs)[None])
            _check.loss_of_logits("loss", loss, outputs[0], y, ys)
            values = stack.loss_of(outputs, ys[None], loss) if stack else loss(outputs[0], ys).reshape(1)
            totals[0] += values.double() * len(xs)
            totals[1] += _right(outputs, ys)
    losses, accuracies = (totals / len(x)).cpu().numpy()
    return (losses, accuracies) if stack else (float(losses[0]), float(accuracies[0]))


def _right(outputs: torch.Tensor, y: torch.Tensor) -> torch.Tensor | float:
    """How many of the outputs (R, N, ...) name the right class, (R,); NaN where they name none."""
    classes = 2 if outputs.ndim == 2 else max(2, outputs.shape[2])
    if y.ndim != 1 or outputs.ndim > 3 or not ((y >= 0) & (y < classes) & (y == y.long())).all():
        return math.nan
    if outputs.ndim == 2 or outputs.shape[2] == 1:
        return ((outputs.view(len(outputs), -1) > 0) == y).sum(1)
    return (outputs.argmax(2) == y).sum(1)


class Callback:
    """The base of what watches a run: when it is called, and what it does.

    Args:
        every: call it after every so many updates, >= 1; or
        at: after the given numbers of updates, strictly increasing, >= 0; 0 is before the first update.

    Raises:
        ValueError: neither or both are given, or one is out of its range.
    """

    needs_moves = False  # whether it reads `run.moves`
    remembers: tuple[str, ...] = ()  # the attributes that a resumed run needs

    def __init__(self, *, every: int | None = None, at: Iterable[int] | None = None):
        if (every is None) == (at is None):
            raise ValueError(f"every={every!r}, at={at!r}: one of the two must be given")
        self.every = None if every is None else _check.integer("every", every, 1)
        self.at = None if at is None else frozenset(_check.increasing("at", at, 0))

    def due(self, step: int) -> bool:
        """Whether to call it after so many updates."""
        return step in self.at if self.at is not None else step > 0 and step % (self.every or 1) == 0

    def start(self, run: "Run") -> None:
        """Called before the first update."""

    def __call__(self, run: "Run") -> None:
        raise NotImplementedError

    def finish(self, run: "Run") -> None:
        """Called after the last update, before the last evaluation."""

    def state_dict(self) -> dict:
        """What a resumed run needs of it, a part of :meth:`Run.state_dict`."""
        return {name: getattr(self, name) for name in self.remembers}

    def load_state_dict(self, state: dict, run: "Run") -> None:
        """Go on from what :meth:`state_dict` returned."""
        for name, value in state.items():
            setattr(self, name, value)


class Periodic(Callback):
    """A function of the run, called after every so many updates, or after the given numbers of updates.

    Args:
        function: called as ``function(run)``.
        every: a period, >= 1; or
        at: numbers of updates done, strictly increasing, >= 0; 0 is before the first update.

    Raises:
        ValueError: neither or both are given, or one is out of its range.

    Example:
        >>> import lrlib
        >>> with lrlib.seeded(0):
        ...     model = lrlib.mlp(64, 16, 10)
        >>> seen = []
        >>> watch = Periodic(lambda run: seen.append(run.step), every=10)
        >>> _ = lrlib.train(model, lrlib.digits(), lrlib.constant(0.1), steps=25, callbacks=[watch])
        >>> seen
        [10, 20]
    """

    def __init__(
        self, function: Callable[["Run"], object], *, every: int | None = None, at: Iterable[int] | None = None
    ):
        super().__init__(every=every, at=at)
        self.function = function

    def __call__(self, run: "Run") -> None:
        self.function(run)


class Evaluate(Callback):
    """Mean loss and accuracy on any examples, in evaluation mode, before the first update and as the run goes.

    Args:
        x, y: the examples.
        every, at: when, as of :class:`Periodic`; `every` counts step 0 too.
        loss: as of :func:`lrlib.train`.

    Attributes:
        steps: the numbers of updates done, a list of E.
        loss, accuracy: arrays of shape (E,), or (R, E) of a stack.

    Example:
        >>> import lrlib
        >>> final, valid = lrlib.hold_out(lrlib.digits())
        >>> watch = Evaluate(valid.x_test, valid.y_test, every=10)
        >>> stack = lrlib.Stack([lrlib.mlp(64, 16, 10) for _ in range(3)])
        >>> _ = lrlib.train(stack, final, lrlib.constant(0.1), steps=20, callbacks=[watch])
        >>> watch.steps, watch.loss.shape
        ([0, 10, 20], (3, 3))
    """

    remembers: tuple[str, ...] = ("steps", "_found")

    def __init__(
        self,
        x: torch.Tensor,
        y: torch.Tensor,
        *,
        every: int | None = None,
        at: Iterable[int] | None = None,
        loss: Loss = F.cross_entropy,
    ):
        super().__init__(every=every, at=at)
        self._x, self._y, self._loss = x, y, loss
        self.steps: list[int] = []
        self._found: list[list] = []  # losses and accuracies, numbers or lists of R

    def due(self, step: int) -> bool:
        return super().due(step) or (step == 0 and self.every is not None)

    def __call__(self, run: "Run") -> None:
        self.steps.append(run.step)
        found = evaluate(run.model, self._x, self._y, self._loss)
        self._found.append([np.asarray(values).tolist() for values in found])

    @property
    def loss(self) -> np.ndarray:
        return np.array([loss for loss, _ in self._found]).T

    @property
    def accuracy(self) -> np.ndarray:
        return np.array([accuracy for _, accuracy in self._found]).T


class WeightAverage(Callback):
    r"""An average of the weights of one run, or of each replica: SWA or EMA.

    With :math:`\theta_k` the weights at the k-th of the given updates (k = 0, 1, ...),

    .. math:: \bar\theta_k &= \frac{k\,\bar\theta_{k-1} + \theta_k}{k + 1}
              \quad\text{(SWA)}, \\
              \bar\theta_k &= d\,\bar\theta_{k-1} + (1 - d)\,\theta_k,\quad \bar\theta_0 = \theta_0
              \quad\text{(EMA)}.

    The sums are kept in float32, or in float64 for weights in float64.

    Args:
        at: the numbers of updates done at which weights enter the mean, strictly increasing, each >= 1.
        decay: None for the plain mean (SWA), or :math:`d` in [0, 1) for the exponential one (EMA).

    Attributes:
        count: how many weights have entered.

    Raises:
        ValueError: an argument is out of its range.

    Source: Izmailov et al., *Averaging Weights Leads to Wider Optima and Better Generalization* (2018).

    Example:
        >>> import lrlib
        >>> model = nn.Linear(1, 1, bias=False)
        >>> average = WeightAverage(at=[1, 2])
        >>> for value in (1.0, 3.0):
        ...     _ = model.weight.data.fill_(value)
        ...     average.add(model)
        >>> average.model.weight.item()
        2.0
    """

    remembers = ("count", "_means")

    def __init__(self, at: Iterable[int], decay: float | None = None):
        super().__init__(at=_check.increasing("at", at, 1))
        self._decay = None if decay is None else _check.below_one("decay", decay)
        self._model: nn.Module | None = None
        self._means: list[torch.Tensor] = []
        self.count = 0

    def __call__(self, run: "Run") -> None:
        self.add(run.model)

    @torch.no_grad()
    def add(self, model: nn.Module) -> None:
        """Let the present weights of a model enter; its buffers are those of the average from now on."""
        weights = [p.detach().to(torch.promote_types(p.dtype, torch.float32)) for p in model.parameters()]
        if self._model is None:
            self._model = copied(model)
            self._means = [weight.clone() for weight in weights]
        share = 1 / (self.count + 1) if self._decay is None else 1 - self._decay
        for mean, weight in zip(self._means, weights, strict=True):
            mean.lerp_(weight, share)
        for mine, buffer in zip(self._model.buffers(), model.buffers(), strict=True):
            mine.copy_(buffer)
        self.count += 1

    def state_dict(self):
        return super().state_dict() | {"buffers": [] if self._model is None else list(self._model.buffers())}

    def load_state_dict(self, state, run):
        buffers = state.pop("buffers")
        super().load_state_dict(state, run)
        if self.count:
            self._model = copied(run.model)
            for mine, buffer in zip(self._model.buffers(), buffers, strict=True):
                mine.copy_(buffer)

    @property
    def model(self) -> nn.Module:
        """The network, or stack, with the mean weights. Its buffers are those of the last one that entered: with
        BatchNorm, pass it to :func:`refresh_batchnorm` before use.

        Raises:
            ValueError: no weights have entered yet.
        """
        if self._model is None:
            raise ValueError("average: is empty, must have been called at one of its updates")
        with torch.no_grad():
            for p, mean in zip(self._model.parameters(), self._means, strict=True):
                p.copy_(mean)
        return self._model


class UpdateRatios(Callback):
    r"""The relative size of updates, layer by layer.

    .. math:: r_{t,l} = \|\theta_{t+1,l} - \theta_{t,l}\| \,/\, \|\theta_{t,l}\|

    A layer is a trainable parameter tensor. Where it was all zero, the ratio is infinite, or NaN if it stayed so.

    Args:
        every: log every so many updates, the first one among them.

    Attributes:
        names: of the L parameters, in the model's order.

    Source: A. Karpathy, lecture 5 of Stanford's CS231n (2016), where the ratio is said to be best near 1e-3.

    Example:
        >>> import lrlib
        >>> with lrlib.seeded(0):
        ...     model = lrlib.mlp(64, 16, 10)
        >>> watch = UpdateRatios()
        >>> _ = lrlib.train(model, lrlib.digits(), lrlib.constant(0.1), steps=5, callbacks=[watch])
        >>> watch.names
        ['1.weight', '1.bias', '3.weight', '3.bias']
        >>> watch.ratios.shape
        (5, 4)
    """

    needs_moves = True
    remembers = ("names", "_rows")

    def __init__(self, every: int = 1):
        super().__init__(every=every)
        self.names: list[str] = []
        self._rows: list[torch.Tensor] = []  # of L parameters and of all as one vector, each (L + 1, R)

    def due(self, step: int) -> bool:
        return step > 0 and (step - 1) % (self.every or 1) == 0

    def __call__(self, run: "Run") -> None:
        self.names = run.names
        moved = torch.stack([_length(move) for move in run.moves])
        before = torch.stack([_length(p + m) for p, m in zip(run.weights, run.moves, strict=True)])
        moved, before = (torch.cat([part, part.norm(dim=0, keepdim=True)]) for part in (moved, before))
        self._rows.append(moved / before)

    def _table(self, part: slice) -> np.ndarray:
        if not self._rows:
            return np.empty((0, len(self.names) + 1))[:, part]
        values = torch.stack([row[part] for row in self._rows]).double().cpu().numpy().swapaxes(1, 2)
        return values[:, 0] if values.shape[1] == 1 else values

    @property
    def ratios(self) -> np.ndarray:
        """The ratios of the logged updates, shape (U, L), or (U, R, L) of a stack."""
        return self._table(slice(-1))

    @property
    def whole(self) -> np.ndarray:
        """The same of all parameters as one vector, shape (U,), or (U, R)."""
        return self._table(slice(-1, None))[..., 0]


def _length(p: torch.Tensor) -> torch.Tensor:
    """Of a parameter of each replica, (R,), at least in float32."""
    return p.reshape(len(p), -1).norm(dim=1, dtype=torch.promote_types(p.dtype, torch.float32))
