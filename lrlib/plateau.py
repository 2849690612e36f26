"""Plateaus of a validation loss: the rule that finds them, cuts of the rate at them, and early stopping."""

import math
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch.nn import functional as F

from lrlib import _check
from lrlib.callbacks import Callback, Evaluate
from lrlib.data import Dataset
from lrlib.stack import Loss, Stack

if TYPE_CHECKING:
    from lrlib.training import Run

__all__ = ["plateaus", "ReduceOnPlateau", "EarlyStopping"]


def plateaus(losses: Sequence[float], patience: int = 10, threshold: float = 1e-4) -> list[int]:
    r"""The readings at which patience is over.

    A reading is an improvement if it is below the best so far by more than the share :math:`\tau` of it. Readings that
    are not are counted; an improvement sets the count to zero. Where it exceeds `patience`, there is a plateau, and the
    count starts again. What is not a number is no improvement.

    Args:
        losses: readings in their order.
        patience: the number of readings without improvement that are borne, >= 0.
        threshold: :math:`\tau` in [0, 1).

    Returns:
        Positions in `losses`, increasing.

    Raises:
        TypeError: `patience` is not an integer.
        ValueError: an argument is out of its range, or a reading is negative with a threshold > 0, where a share of the
            best is no improvement of it.

    Source: `torch.optim.lr_scheduler.ReduceLROnPlateau`, which cuts at these readings.

    Example:
        >>> plateaus([1.0, 0.5, 0.6, 0.7, 0.8, 0.4, 0.4, 0.4], patience=1)
        [3, 7]
    """
    _check.integer("patience", patience, 0)
    _check.below_one("threshold", threshold)
    found, best, waited = [], math.inf, 0
    for position, value in enumerate(losses):
        if threshold and value < 0:
            raise ValueError(f"losses[{position}]={value!r}: must be >= 0 unless threshold={threshold!r} is 0")
        if value < best * (1 - threshold):
            best, waited = value, 0
        else:
            waited += 1
        if waited > patience:
            found.append(position)
            waited = 0
    return found


class ReduceOnPlateau(Evaluate):
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

    Source: `torch.optim.lr_scheduler.ReduceLROnPlateau`, whose cuts are the same when it is stepped with the readings
    and has `eps=0`.

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

    remembers = ("steps", "_found", "cuts")
    due = Callback.due  # not before the first update

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
        if not isinstance(valid, Dataset):
            raise TypeError(f"valid={valid!r}: must be a Dataset, the second of lrlib.hold_out")
        super().__init__(valid.x_test, valid.y_test, every=every, loss=loss)
        plateaus([], patience, threshold)
        self._patience, self._threshold = patience, threshold
        self._factor = _check.below_one("factor", _check.positive("factor", factor))
        self._max_cuts = None if max_cuts is None else _check.integer("max_cuts", max_cuts, 0)
        self.cuts: list = []

    @property
    def readings(self) -> list:
        return [np.array(loss) if isinstance(loss, list) else loss for loss, _ in self._found]

    def start(self, run: "Run") -> None:
        if self.steps:
            raise ValueError(f"{type(self).__name__}: has watched a run already; make a new one for each run")
        own = _fingerprints(self._x)
        for data in {id(data): data for data in run.data if isinstance(data, Dataset)}.values():
            for part in ("train", "test"):
                shared = len(own & _fingerprints(getattr(data, f"x_{part}")))
                if shared > len(own) / 2:
                    found = f"{shared} of its {len(own)} test pictures are in the {part} set"
                    raise ValueError(f"valid: {found}, they must be set apart, as by lrlib.hold_out")

    def __call__(self, run: "Run") -> None:
        super().__call__(run)
        found = [plateaus(losses, self._patience, self._threshold) for losses in np.atleast_2d(self.loss)]
        cuts = [[self.steps[k] for k in positions][: self._max_cuts] for positions in found]
        self.cuts = cuts if isinstance(run.model, Stack) else cuts[0]
        for r, positions in enumerate(found):
            if positions and self.steps[positions[-1]] == run.step:
                if self._max_cuts is not None and len(positions) > self._max_cuts:
                    run.stop([r])
                else:
                    run.cut(self._factor, [r])


class EarlyStopping(ReduceOnPlateau):
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
        TypeError, ValueError: as :class:`ReduceOnPlateau`; ValueError also where the model has got or lost parameters
            or buffers since the first reading.

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

    remembers = ("steps", "_found", "_best")

    def __init__(
        self,
        valid: Dataset,
        *,
        every: int,
        patience: int = 10,
        threshold: float = 0.0,
        loss: Loss = F.cross_entropy,
    ):
        super().__init__(valid, every=every, patience=patience, threshold=threshold, max_cuts=0, loss=loss)
        self._best: list[torch.Tensor] = []

    def __call__(self, run: "Run") -> None:
        super().__call__(run)
        *before, last = np.atleast_2d(self.loss).T
        better = last < np.nanmin([[np.inf] * run.size, *before], axis=0)
        self._best = self._best or [tensor.clone() for tensor in run.values]
        for best, tensor in self._pairs(run):
            for r in np.flatnonzero(better):
                best[r] = tensor[r]

    def finish(self, run: "Run") -> None:
        for best, tensor in self._pairs(run) if self._best else ():
            tensor.copy_(best)

    def _pairs(self, run: "Run") -> Iterable[tuple[torch.Tensor, torch.Tensor]]:
        """The best values, and those that the run has now."""
        if [best.shape for best in self._best] != [tensor.shape for tensor in run.values]:
            raise ValueError("model: has other parameters or buffers than at the first reading, must keep them")
        return zip(self._best, run.values, strict=True)


def _fingerprints(pictures: torch.Tensor) -> set[int]:
    return {hash(picture.tobytes()) for picture in pictures.cpu().numpy()}
