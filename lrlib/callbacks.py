r"""What watches a run: evaluations, snapshots, averages of the weights, sizes of updates, plateaus.

A callback of :func:`lrlib.train` is any function of the :class:`~lrlib.Run`; it is called after each update. One of
this module has a period, and sees one network or a stack of R replicas alike. What it may do: read anything, stop
replicas (:meth:`Run.stop`), change the rates to come (`run.rates`), renew pictures. Schedules remember nothing; all
that a run remembers is in its callbacks.
"""

import math
from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F

from lrlib import _check, runtime
from lrlib.architecture import copied
from lrlib.data import Dataset
from lrlib.minibatches import check_data, check_statistics
from lrlib.stack import Loss, Stack, wide

if TYPE_CHECKING:
    from lrlib.training import Run

__all__ = [
    "Callback", "Periodic", "Evaluate", "WeightAverage", "UpdateRatios", "plateaus", "ReduceOnPlateau", "EarlyStopping",
    "evaluate",
]  # fmt: skip


@torch.no_grad()
def evaluate(
    model: nn.Module, x: torch.Tensor, y: torch.Tensor, loss: Loss = F.cross_entropy, batch_size: int = 2000
) -> tuple:
    """Mean loss and accuracy in evaluation mode, of one network or of each in a stack; its training mode is restored.

    The accuracy is that of the largest of C >= 2 outputs, where y are whole numbers in [0, C), one an example, or of
    the sign of a single output, where y are 0 and 1; it is NaN for anything else. Outputs in half precision are taken
    to float32.

    Args:
        model: maps x of shape (N, ...) to outputs (N, ...), such as logits (N, classes); or a :class:`Stack` of them.
        x, y: inputs and targets, shape (N, ...) and (N, ...), N >= 1.
        loss: a mean over the examples it is given.
        batch_size: examples per forward pass, >= 1.

    Returns:
        Two floats; of a stack two arrays of shape (R,).

    Raises:
        TypeError: x or y is no tensor.
        ValueError: x is empty, x and y differ in length, or there are several batches for a BatchNorm layer without
            running statistics.

    Example:
        >>> x, y = torch.eye(3), torch.arange(3)
        >>> evaluate(nn.Identity(), x, y)[1]
        1.0
    """
    batch_size = _check.integer("batch_size", batch_size, 1)
    check_data(x, y)
    check_statistics(model.template if isinstance(model, Stack) else model, len(x), batch_size)
    size = model.size if isinstance(model, Stack) else 1
    totals = torch.zeros(2, size, dtype=torch.float64, device=x.device)
    with runtime.modes_kept(model):
        model.eval()
        for xs, ys in zip(x.split(batch_size), y.split(batch_size), strict=True):
            if isinstance(model, Stack):
                outputs = wide(model(xs[None]))
                values = model.loss_of(outputs, ys[None], loss)
            else:
                outputs = wide(model(xs))[None]
                values = loss(outputs[0], ys).reshape(1)
            totals[0] += values.double() * len(xs)
            totals[1] += _right(outputs, ys)
    losses, accuracies = (totals / len(x)).cpu().numpy()
    return (losses, accuracies) if isinstance(model, Stack) else (float(losses[0]), float(accuracies[0]))


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

    remembers = ("steps", "_found")

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

    def again(self, run: "Run") -> None:
        """Measure, in the place of the last evaluation where there was one at this step."""
        if self.steps and self.steps[-1] == run.step:
            self.steps.pop()
            self._found.pop()
        self(run)

    @property
    def loss(self) -> np.ndarray:
        return np.stack([np.asarray(loss) for loss, _ in self._found], axis=-1)

    @property
    def accuracy(self) -> np.ndarray:
        return np.stack([np.asarray(accuracy) for _, accuracy in self._found], axis=-1)


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
    remembers = ("names", "_rows", "_whole")

    def __init__(self, every: int = 1):
        super().__init__(every=every)
        self.names: list[str] = []
        self._rows: list[torch.Tensor] = []
        self._whole: list[torch.Tensor] = []

    def due(self, step: int) -> bool:
        return step > 0 and (step - 1) % (self.every or 1) == 0

    def __call__(self, run: "Run") -> None:
        self.names = run.names
        moved = torch.stack([_length(move) for move in run.moves])
        before = torch.stack([_length(p + m) for p, m in zip(run.weights, run.moves, strict=True)])
        self._rows.append(moved / before)
        self._whole.append(moved.norm(dim=0) / before.norm(dim=0))

    @property
    def ratios(self) -> np.ndarray:
        """The ratios of the logged updates, shape (U, L), or (U, R, L) of a stack."""
        if not self._rows:
            return np.empty((0, len(self.names)))
        values = torch.stack(self._rows).double().cpu().numpy().swapaxes(1, 2)
        return values[:, 0] if values.shape[1] == 1 else values

    @property
    def whole(self) -> np.ndarray:
        """The same of all parameters as one vector, shape (U,), or (U, R)."""
        if not self._whole:
            return np.empty(0)
        values = torch.stack(self._whole).double().cpu().numpy()
        return values[:, 0] if values.shape[1] == 1 else values


def _length(p: torch.Tensor) -> torch.Tensor:
    """Of a parameter of each replica, (R,), at least in float32."""
    return p.flatten(1).norm(dim=1, dtype=torch.promote_types(p.dtype, torch.float32))


def plateaus(
    losses: Sequence[float], patience: int = 10, threshold: float = 1e-4, threshold_mode: str = "rel"
) -> list[int]:
    r"""The readings at which patience is over.

    A reading is an improvement if it is below the best so far by more than :math:`\tau` times its modulus ("rel"), or
    by more than :math:`\tau` ("abs"). Readings that are not are counted; an improvement sets the count to zero. Where
    it exceeds `patience`, there is a plateau, and the count starts again. What is not a number is no improvement.

    Args:
        losses: readings in their order.
        patience: the number of readings without improvement that are borne, >= 0.
        threshold: :math:`\tau` in [0, 1), or any number >= 0 in mode "abs".
        threshold_mode: "rel" or "abs".

    Returns:
        Positions in `losses`, increasing.

    Raises:
        TypeError: `patience` is not an integer.
        ValueError: an argument is out of its range, or a reading is negative in mode "rel" with a threshold > 0, where
            a fraction of the best is no improvement of it.

    Source: `torch.optim.lr_scheduler.ReduceLROnPlateau`, which cuts at these readings.

    Example:
        >>> plateaus([1.0, 0.5, 0.6, 0.7, 0.8, 0.4, 0.4, 0.4], patience=1)
        [3, 7]
    """
    _check.integer("patience", patience, 0)
    _check.choice("threshold_mode", threshold_mode, ("rel", "abs"))
    (_check.below_one if threshold_mode == "rel" else _check.nonnegative)("threshold", threshold)
    found, best, waited = [], math.inf, 0
    for position, value in enumerate(losses):
        if threshold_mode == "rel" and threshold and value < 0:
            raise ValueError(
                f"losses[{position}]={value!r}: must be >= 0 for a relative threshold={threshold!r}; use 0"
            )
        limit = best * (1 - threshold) if threshold_mode == "rel" else best - threshold
        if value < limit:
            best, waited = value, 0
        else:
            waited += 1
        if waited > patience:
            found.append(position)
            waited = 0
    return found


class _Plateau(Callback):
    """Reads the validation loss of a run of one network, or of each replica, and acts at plateaus."""

    remembers: tuple[str, ...] = ("steps", "_readings")

    def __init__(self, valid: Dataset, *, every: int, patience: int, threshold: float, loss: Loss):
        super().__init__(every=every)
        if not isinstance(valid, Dataset):
            raise TypeError(f"valid={valid!r}: must be a Dataset, the second of lrlib.hold_out")
        plateaus([], patience, threshold)
        self._valid, self._loss = valid, loss
        self._patience, self._threshold = patience, threshold
        self.steps: list[int] = []
        self._readings: list[list[float]] = []

    @property
    def readings(self) -> list:
        """The validation losses at these steps, floats, or arrays (R,) of a stack."""
        return [values[0] if len(values) == 1 else np.array(values) for values in self._readings]

    def start(self, run: "Run") -> None:
        if self.steps:
            raise ValueError(f"{type(self).__name__}: has watched a run already; make a new one for each run")
        held = _fingerprints(self._valid.x_test)
        for data in {id(data): data for data in run.data if isinstance(data, Dataset)}.values():
            for part in ("train", "test"):
                shared = len(held & _fingerprints(getattr(data, f"x_{part}")))
                if shared > len(held) / 2:
                    raise ValueError(
                        f"valid: {shared} of its {len(held)} test pictures are in the {part} set of {data}; "
                        "they must be set apart from both, as by lrlib.hold_out"
                    )

    def read(self, run: "Run") -> list[list[int]]:
        """A new reading; then for each replica the positions of its plateaus."""
        values, _ = evaluate(run.model, self._valid.x_test, self._valid.y_test, self._loss)
        self.steps.append(run.step)
        self._readings.append(np.atleast_1d(values).tolist())
        return [plateaus(column, self._patience, self._threshold) for column in np.array(self._readings).T]


class ReduceOnPlateau(_Plateau):
    r"""Multiply the rate by `factor` at each plateau of the validation loss, of each replica by itself.

    Args:
        valid: its test set is the validation set: the second data set of :func:`lrlib.hold_out`.
        every: updates between two readings, >= 1.
        factor: in (0, 1), of each cut.
        patience: the number of readings without improvement that are borne, >= 0.
        threshold: the relative improvement that counts as one, in [0, 1).
        max_cuts: the plateau after so many cuts ends the run; default: never.
        loss: as in :func:`lrlib.train`, >= 0 unless the threshold is 0.

    Attributes:
        steps: the numbers of updates done at which the loss was read.
        readings: the validation losses, a list of floats, or of arrays (R,) of a stack.
        cuts: the steps from which a cut holds; of a stack one such list for each replica.

    Raises:
        TypeError: an argument is of a wrong type.
        ValueError: an argument is out of its range; at the start of a run, if it has watched one before, or if most
            validation pictures are among those trained or tested on.

    Source: `torch.optim.lr_scheduler.ReduceLROnPlateau`, whose cuts are the same when it is stepped with the readings.

    Example:
        >>> import lrlib
        >>> final, valid = lrlib.hold_out(lrlib.relabelled(lrlib.digits(), 0.2))
        >>> with lrlib.seeded(0):
        ...     model = lrlib.mlp(64, 16, 10)
        >>> watch = ReduceOnPlateau(valid, every=50, patience=1, max_cuts=2)
        >>> history = lrlib.train(model, final, lrlib.constant(0.5), steps=2000, callbacks=[watch])
        >>> len(watch.cuts), len(history.lr) < 2000
        (2, True)
    """

    remembers = ("steps", "_readings", "cuts")

    def __init__(
        self,
        valid: Dataset,
        *,
        every: int,
        factor: float = 0.1,
        patience: int = 10,
        threshold: float = 1e-4,
        max_cuts: int | None = None,
        loss: Loss = F.cross_entropy,
    ):
        super().__init__(valid, every=every, patience=patience, threshold=threshold, loss=loss)
        self._factor = _check.below_one("factor", _check.positive("factor", factor))
        self._max_cuts = None if max_cuts is None else _check.integer("max_cuts", max_cuts, 0)
        self.cuts: list = []

    def __call__(self, run: "Run") -> None:
        found = self.read(run)
        cuts = [[self.steps[k] for k in positions][: self._max_cuts] for positions in found]
        self.cuts = cuts if isinstance(run.model, Stack) else cuts[0]
        for r, positions in enumerate(found):
            if positions and self.steps[positions[-1]] == run.step:
                if self._max_cuts is not None and len(positions) > self._max_cuts:
                    run.stop([r])
                else:
                    run.cut(self._factor, [r])


class EarlyStopping(_Plateau):
    """End the run at the first plateau of the validation loss, and put the best weights back, of each replica.

    Best is the reading with the lowest validation loss, whether the run was ended early or not. As that reading is the
    best of many it is partly luck: report the loss on the test set, which took no part in the choice.

    Args:
        valid: its test set is the validation set: the second data set of :func:`lrlib.hold_out`.
        every: updates between two readings, >= 1.
        patience: the number of readings without improvement that are borne, >= 0.
        threshold: the relative improvement that counts as one, in [0, 1).
        loss: as in :func:`lrlib.train`, >= 0 unless the threshold is 0.

    Attributes:
        steps, readings: as of :class:`ReduceOnPlateau`.

    Raises:
        TypeError, ValueError: as :class:`ReduceOnPlateau`.

    Source: Prechelt, *Early stopping, but when?* (1998).

    Example:
        >>> import lrlib
        >>> final, valid = lrlib.hold_out(lrlib.relabelled(lrlib.digits(), 0.4))
        >>> with lrlib.seeded(0):
        ...     model = lrlib.mlp(64, 64, 10)
        >>> watch = EarlyStopping(valid, every=20, patience=5)
        >>> history = lrlib.train(model, final, lrlib.constant(0.5), steps=5000, callbacks=[watch])
        >>> len(history.lr) == watch.steps[-1]
        True
        >>> lrlib.evaluate(model, valid.x_test, valid.y_test)[0] == min(watch.readings)
        True
    """

    remembers = ("steps", "_readings", "_best")

    def __init__(
        self,
        valid: Dataset,
        *,
        every: int,
        patience: int = 10,
        threshold: float = 0.0,
        loss: Loss = F.cross_entropy,
    ):
        super().__init__(valid, every=every, patience=patience, threshold=threshold, loss=loss)
        self._best: list[torch.Tensor] = []

    def __call__(self, run: "Run") -> None:
        found = self.read(run)
        past, now = np.array(self._readings[:-1]).reshape(-1, run.size), np.array(self._readings[-1])
        lowest = np.nanmin(np.vstack([np.full((1, run.size), np.inf), past]), axis=0)
        state = run.values
        if not self._best:
            self._best = [tensor.clone() for tensor in state]
        for r in np.flatnonzero(now < lowest):
            for best, tensor in zip(self._best, state, strict=True):
                best[r] = tensor[r]
        run.stop([r for r, positions in enumerate(found) if positions])

    def finish(self, run: "Run") -> None:
        for best, tensor in zip(self._best, run.values, strict=False):
            tensor.copy_(best)


def _fingerprints(pictures: torch.Tensor) -> set[int]:
    return {hash(picture.tobytes()) for picture in pictures.cpu().numpy()}
