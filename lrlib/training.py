"""The one training loop of the book, for one network or a stack of them, and the record of what it did."""

import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F

from lrlib import _check, runtime
from lrlib.callbacks import Callback, Evaluate, UpdateRatios, evaluate
from lrlib.data import Dataset
from lrlib.minibatches import Data
from lrlib.rule import Rule
from lrlib.rules import SGD
from lrlib.run import Run
from lrlib.schedules import Schedule
from lrlib.stack import Loss, Stack
from lrlib.updates import OptimizerRun, RuleRun

__all__ = ["History", "Run", "train", "evaluate"]


@dataclass(frozen=True, eq=False)
class History:
    """What happened in a run of T updates, of which the first U took place (U = T unless it diverged or was stopped).

    Of a stack of R replicas every array has R rows, U is T, and what a replica did not do is NaN; but eval_step is
    (E,), and update_ratio (U, R), with U the most that a replica did and 0 where one had ended.

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
        """Test accuracy at the end of the run, in [0, 1]; of a stack (R,). ValueError if there was no test set."""
        return self._last(self.test_accuracy)

    @property
    def final_loss(self):
        """Test loss at the end of the run; of a stack (R,). ValueError if there was no test set."""
        return self._last(self.test_loss)

    def _last(self, measured: np.ndarray):
        if not measured.shape[-1]:
            raise ValueError("history: has no evaluation, must be of a run on a Dataset, which has a test set")
        return measured[..., -1][()]


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
    period. A `torch.optim.Optimizer` runs as it is, update by update. A schedule-free one is looked at, and left, in
    its evaluation mode.

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
            its parameters; default ``lrlib.SGD()``. A rule counts the updates of the run, also for a parameter that the
            loss begins to use late; ``rule.optimizer(...)`` counts each parameter's own, as torch does.
        loss: maps outputs and targets to a scalar, the mean over the batch.
        seed: of the order of the examples and, for one network, of everything random in it, >= 0.
        eval_every: evaluate the test set before the first update and after every so many; default at the end only.
        track_updates: also measure the relative size of each update.
        callbacks: functions of the :class:`Run`, called after every update, or :class:`~lrlib.Callback` objects.
        resume: what :meth:`Run.state_dict` returned in a run with the same arguments; the run goes on from there,
            bit by bit as if it had not ended. Its callbacks are new ones of the same kinds, and get back what these
            remembered, but for :class:`~lrlib.Snapshots`, which have files of their own. A loader's place is lost.

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
    steps = _check.integer("steps", steps, 1)
    sets = [data] if isinstance(data, Dataset) else list(data) if isinstance(model, Stack) else []
    tests, ratios = evaluations(sets, steps, eval_every, loss), UpdateRatios() if track_updates else None
    watching = [callback for callback in (ratios, *callbacks, tests) if callback is not None]
    options = {"steps": steps, "batch_size": batch_size, "loss": loss, "seed": seed, "callbacks": watching}
    history = finished(make_run(model, data, schedule, optimizer, **options), tests, resume)
    if ratios is not None:
        history = replace(history, update_ratio=ratios.whole)
    return history if isinstance(model, Stack) else _of_one(history)


def evaluations(sets: Sequence, steps: int, eval_every: int | None, loss: Loss) -> Evaluate | None:
    """What evaluates the test set that data sets share, as :func:`train` plans it; None where there is none.

    The last evaluation is not in the plan, as it is made where the run has ended.
    """
    every = None if eval_every is None else _check.integer("eval_every", eval_every, 1)
    if not sets or not all(isinstance(some, Dataset) for some in sets):
        return None
    x, y = sets[0].x_test, sets[0].y_test
    if any(some.x_test is not x or some.y_test is not y for some in sets):
        raise ValueError("data: have different test sets, must share one; pass pairs (x_train, y_train) otherwise")
    return Evaluate(x, y, at=range(0, steps, every) if every else [steps + 1], loss=loss)


def make_run(model: nn.Module, data, schedule, optimizer: Rule | torch.optim.Optimizer | None, **options) -> Run:
    """The run that the arguments of :func:`train` describe, not yet begun: `options` are those of :class:`Run`."""
    if isinstance(optimizer, torch.optim.Optimizer) and not isinstance(model, Stack):
        return OptimizerRun(model, data, schedule, optimizer, **options)
    rule = SGD() if optimizer is None else optimizer
    if not isinstance(rule, Rule):
        kinds = "a rule of lrlib" if isinstance(model, Stack) else "a rule of lrlib or a torch.optim.Optimizer"
        raise TypeError(f"optimizer={optimizer!r}: must be {kinds}")
    return RuleRun(model, data, schedule, rule, **options)


def finished(run: Run, tests: Evaluate | None, resume: dict | None = None) -> History:
    """Make a run: what it left, as arrays with a row for each replica, one for a network, NaN where it had ended."""
    started = time.perf_counter()
    with runtime.seeded(run.seeds[0]):
        if resume is not None:
            run.load_state_dict(resume)
        run.go()
        if tests is not None:
            tests(run)
    run.model.train()
    diverged, updates = run.diverged_at.cpu().numpy(), run.updates()
    losses, rates = run.loss.cpu().numpy().T, run.rates.cpu().numpy().T
    after = np.arange(run.steps) >= updates[:, None]
    found = np.where(diverged < 0, np.nan, losses[np.arange(run.size), diverged])
    planned, test = np.array([], dtype=int), np.empty((2, run.size, 0))
    if tests is not None:
        planned = np.array([*(step for step in sorted(tests.at or ()) if step < run.steps), run.steps])
        measured = np.stack([tests.loss, tests.accuracy]).reshape(2, run.size, -1)
        test = np.full((2, run.size, len(planned)), np.nan)
        test[:, :, np.isin(planned, tests.steps[:-1])] = measured[:, :, :-1]
        test[:, planned > np.where(diverged < 0, run.steps, diverged)[:, None]] = np.nan
        test[:, :, -1] = measured[:, :, -1]  # of the weights that the run left
    rates, losses = (np.where(after, np.nan, values) for values in (rates, losses))
    seconds = time.perf_counter() - started
    return History(rates, losses, None, planned, test[0], test[1], diverged, updates, seconds, found)


def _of_one(rows: History) -> History:
    """The history of one network, cut off where it ended, from its row."""
    u, at, found = (np.array(of).item() for of in (rows.updates, rows.diverged_at, rows.diverged_loss))
    rates, done = rows.lr[:, :u], rows.eval_step < u
    done[-1:] = True
    return replace(
        rows,
        lr=rates[0] if len(rates) == 1 else rates.T,
        loss=rows.loss[0, :u],
        eval_step=rows.eval_step[done].clip(max=u),
        test_loss=rows.test_loss[0, done],
        test_accuracy=rows.test_accuracy[0, done],
        updates=u,
        diverged_at=None if at < 0 else at,
        diverged_loss=None if at < 0 else found,
    )
