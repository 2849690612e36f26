r"""Schedules that watch a validation set: reduce the rate on a plateau, stop early, keep the best weights.

Both are combinators: they take a schedule and validation examples and return a schedule, which :func:`lrlib.train`
lets read the validation loss as it goes. All that such a schedule remembers are its readings, and its rates are a pure
function of the step and of them: what is plotted after a run is what was applied in it.
"""

import math
from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F

from lrlib import _check
from lrlib.datasets import Dataset
from lrlib.ensembles import copy_state
from lrlib.schedules import Schedule, _schedule
from lrlib.training import evaluate

__all__ = ["plateaus", "WatchingSchedule", "reduce_on_plateau", "early_stopping"]

BELOW_ONE = math.nextafter(1.0, 0.0)

Loss = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]


def plateaus(losses: Sequence[float], patience: int = 10, threshold: float = 1e-4) -> list[int]:
    r"""The readings at which patience is over.

    A reading is an improvement if it is below :math:`(1 - \tau)` times the best so far, with the threshold
    :math:`\tau`. Readings that are not are counted; an improvement sets the count to zero. Where it exceeds
    `patience`, there is a plateau, and the count starts again. What is not a number is no improvement.

    Args:
        losses: readings in their order, >= 0.
        patience: the number of readings without improvement that are borne, >= 0.
        threshold: :math:`\tau` in [0, 1).

    Returns:
        Positions in `losses`, increasing.

    Raises:
        TypeError: `patience` is not an integer.
        ValueError: an argument is out of its range.

    Source: `torch.optim.lr_scheduler.ReduceLROnPlateau`, which cuts at these readings.

    Example:
        >>> plateaus([1.0, 0.5, 0.6, 0.7, 0.8, 0.4, 0.4, 0.4], patience=1)
        [3, 7]
    """
    _check.integer("patience", patience, 0)
    _check.within("threshold", threshold, 0.0, BELOW_ONE)
    found, best, waited = [], math.inf, 0
    for position, value in enumerate(losses):
        if value < best * (1 - threshold):
            best, waited = value, 0
        else:
            waited += 1
        if waited > patience:
            found.append(position)
            waited = 0
    return found


class WatchingSchedule(Schedule):
    """A schedule that reads a validation loss during a run; made by the combinators of this module.

    :func:`lrlib.train` calls :meth:`begin` before a run, :meth:`watch` after each update and :meth:`finish` at the end.
    A loop of your own does the same, and asks for the rate of the next update after :meth:`watch`. Each run needs a
    schedule of its own.

    Attributes:
        readings: pairs (number of updates done, validation loss) in their order.
    """

    __slots__ = (
        "readings",
        "_plateaus",
        "_inner",
        "_valid",
        "_every",
        "_patience",
        "_threshold",
        "_factor",
        "_max_cuts",
        "_keeps_best",
        "_best",
        "_loss",
    )
    watches = True

    def __init__(
        self,
        text: str,
        schedule: Schedule,
        valid: Dataset,
        *,
        every: int,
        patience: int,
        threshold: float,
        factor: float,
        max_cuts: int | None,
        keeps_best: bool,
        loss: Loss,
    ):
        _schedule("schedule", schedule, may_watch=True)
        if not isinstance(valid, Dataset):
            raise TypeError(f"valid={valid!r}: must be a Dataset, the second of lrlib.hold_out")
        plateaus([], patience, threshold)
        super().__init__(
            self._rates,
            f"{text}({schedule}, every={every}, patience={patience})",
            horizon=schedule.horizon,
            warmup_steps=schedule.warmup_steps,
        )
        self.readings: list[tuple[int, float]] = []
        self._plateaus: list[int] = []  # the steps at which there is one in the readings
        self._inner, self._valid, self._loss = schedule, valid, loss
        self._every = _check.integer("every", every, 1)
        self._patience, self._threshold = patience, threshold
        self._factor, self._max_cuts = factor, max_cuts
        self._keeps_best, self._best = keeps_best, None

    def _rates(self, t: np.ndarray) -> np.ndarray:
        return self._inner._formula(t) * self._factor ** np.searchsorted(self.cuts, t, side="right")

    @property
    def cuts(self) -> list[int]:
        """The steps from which a cut holds."""
        return self._plateaus[: self._max_cuts]

    @property
    def stopped_at(self) -> int | None:
        """The number of updates after which it ended the run, or None."""
        too_many = [] if self._max_cuts is None else self._plateaus[self._max_cuts :]
        return too_many[0] if too_many else getattr(self._inner, "stopped_at", None)

    def begin(self, data: Dataset) -> None:
        """Before the first update of a run on `data`.

        Raises:
            ValueError: it has watched a run before, or most validation pictures are also among those of `data`.
        """
        if self.readings:
            raise ValueError(f"{self}: has watched a run already; make a new one for each run")
        held = _fingerprints(self._valid.x_test)
        for part in ("train", "test"):
            shared = len(held & _fingerprints(getattr(data, f"x_{part}")))
            if shared > len(held) / 2:
                raise ValueError(
                    f"valid: {shared} of its {len(held)} test pictures are in the {part} set of {data}; "
                    "they must be set apart from both, as by lrlib.hold_out"
                )
        if self._inner.watches:
            self._inner.begin(data)

    def watch(self, updates_done: int, model: nn.Module) -> bool:
        """After an update: read the validation loss if it is time to. True if the run is to end here."""
        ends = self._inner.watches and self._inner.watch(updates_done, model)
        if updates_done % self._every == 0:
            reading = evaluate(model, self._valid.x_test, self._valid.y_test, self._loss)[0]
            losses = [loss for _, loss in self.readings]
            if self._keeps_best and reading < min(losses, default=math.inf):
                self._best = copy_state(model)
            self.readings.append((updates_done, reading))
            found = plateaus([*losses, reading], self._patience, self._threshold)
            self._plateaus = [self.readings[position][0] for position in found]
        return ends or self.stopped_at is not None

    def finish(self, model: nn.Module) -> bool:
        """After the last update: put the best weights back where they are kept. True if it did."""
        if self._best is None:
            return self._inner.watches and self._inner.finish(model)
        model.load_state_dict(self._best)
        self._best = None
        return True


def _fingerprints(pictures: torch.Tensor) -> set[int]:
    return {hash(picture.tobytes()) for picture in pictures.cpu().numpy()}


def reduce_on_plateau(
    schedule: Schedule,
    valid: Dataset,
    *,
    every: int,
    factor: float = 0.1,
    patience: int = 10,
    threshold: float = 1e-4,
    max_cuts: int | None = None,
    loss: Loss = F.cross_entropy,
) -> WatchingSchedule:
    r"""The schedule, multiplied by `factor` at each plateau of the validation loss.

    .. math:: \eta'_t = \eta_t\,f^{\#\{c \in C:\ c \le t\}}

    where :math:`C` are the steps at which :func:`plateaus` finds one in the readings so far.

    Args:
        schedule: any :class:`Schedule`.
        valid: its test set is the validation set: the second data set of :func:`lrlib.hold_out`.
        every: updates between two readings, >= 1.
        factor: :math:`f` in (0, 1), of each cut.
        patience: the number of readings without improvement that are borne, >= 0.
        threshold: the relative improvement that counts as one, in [0, 1).
        max_cuts: the plateau after so many cuts ends the run; default: never.
        loss: as in :func:`lrlib.train`.

    Raises:
        TypeError: an argument is of a wrong type.
        ValueError: an argument is out of its range.

    Source: `torch.optim.lr_scheduler.ReduceLROnPlateau`, whose cuts are the same when it is stepped with the readings.

    Example:
        >>> import lrlib
        >>> final, valid = lrlib.hold_out(lrlib.relabelled(lrlib.digits(), 0.2))
        >>> with lrlib.seeded(0):
        ...     model = lrlib.mlp(64, 16, 10)
        >>> schedule = reduce_on_plateau(lrlib.constant(0.5), valid, every=50, patience=1, max_cuts=2)
        >>> history = lrlib.train(model, final, schedule, steps=2000)
        >>> len(schedule.cuts), len(history.lr) == schedule.stopped_at
        (2, True)
        >>> bool((history.lr == schedule(range(len(history.lr)))).all())
        True
    """
    factor = _check.within("factor", _check.positive("factor", factor), 0.0, BELOW_ONE)
    if max_cuts is not None:
        max_cuts = _check.integer("max_cuts", max_cuts, 0)
    return WatchingSchedule(
        "reduce_on_plateau",
        schedule,
        valid,
        every=every,
        patience=patience,
        threshold=threshold,
        factor=factor,
        max_cuts=max_cuts,
        keeps_best=False,
        loss=loss,
    )


def early_stopping(
    schedule: Schedule,
    valid: Dataset,
    *,
    every: int,
    patience: int = 10,
    threshold: float = 0.0,
    loss: Loss = F.cross_entropy,
) -> WatchingSchedule:
    """The schedule, ended at the first plateau of the validation loss; the model is left with its best weights.

    Best is the reading with the lowest validation loss, whether the run was ended early or not. As that reading is the
    best of many it is partly luck: report the loss on the test set, which took no part in the choice.

    Args:
        schedule: any :class:`Schedule`, also one of :func:`reduce_on_plateau`.
        valid: its test set is the validation set: the second data set of :func:`lrlib.hold_out`.
        every: updates between two readings, >= 1.
        patience: the number of readings without improvement that are borne, >= 0.
        threshold: the relative improvement that counts as one, in [0, 1).
        loss: as in :func:`lrlib.train`.

    Raises:
        TypeError: an argument is of a wrong type.
        ValueError: an argument is out of its range.

    Source: Prechelt, *Early stopping, but when?* (1998).

    Example:
        >>> import lrlib
        >>> final, valid = lrlib.hold_out(lrlib.relabelled(lrlib.digits(), 0.4))
        >>> with lrlib.seeded(0):
        ...     model = lrlib.mlp(64, 64, 10)
        >>> schedule = early_stopping(lrlib.constant(0.5), valid, every=20, patience=5)
        >>> history = lrlib.train(model, final, schedule, steps=5000)
        >>> schedule.stopped_at == len(history.lr)
        True
        >>> best = min(loss for _, loss in schedule.readings)
        >>> lrlib.evaluate(model, valid.x_test, valid.y_test)[0] == best
        True
    """
    return WatchingSchedule(
        "early_stopping",
        schedule,
        valid,
        every=every,
        patience=patience,
        threshold=threshold,
        factor=1.0,
        max_cuts=0,
        keeps_best=True,
        loss=loss,
    )
