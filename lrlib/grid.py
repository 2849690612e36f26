"""A learning-rate study in one call: every pair of a schedule and a seed, trained as a replica of one model."""

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import joblib
import numpy as np
import torch
from torch import nn
from torch.nn import functional as F

from lrlib import _check, runtime
from lrlib.data import Dataset
from lrlib.rule import Rule
from lrlib.run import Run
from lrlib.schedules import Schedule
from lrlib.spread import spread
from lrlib.stack import Loss, Stack
from lrlib.training import History, evaluations, finished, make_run, train

__all__ = ["GridResult", "train_grid"]

REPLICAS = 32  # in a stack on a CPU; larger ones gain nothing more,
CACHE = 2**22  # unless the parameters of all are no more bytes than this
MEMORY = 2**30  # bytes of activations and parameters of a stack on a CPU; on a GPU half of what is free
WORTH_MEASURING = 2000  # replica-updates
ROWS = ("lr", "loss", "test_loss", "test_accuracy", "diverged_at", "updates", "diverged_loss")  # of a History

Cell = tuple[int, int]  # the number of a schedule, and a seed
State = dict[str, torch.Tensor]  # of a model


@dataclass(frozen=True, eq=False, repr=False)
class GridResult(History):
    """What :func:`train_grid` measured: a :class:`~lrlib.History` with an axis of K schedules and one of S seeds.

    Attributes:
        names: of the K schedules, in the order given.
        seeds: the S seeds, in the order given.
        lr: the rate of every update, shape (K, S, T); NaN from the step at which a run diverged.
        loss: the mini-batch loss before every update, shape (K, S, T); NaN from the step at which a run diverged.
        eval_step: the numbers of updates after which the test set was evaluated, shape (E,); the last one is T.
        test_loss, test_accuracy: of these evaluations, shape (K, S, E). Of a diverged run they are NaN from then on,
            but for the last one, which is of the weights that it kept.
        final_loss, accuracy: the last ones of these, shape (K, S).
        diverged_at: the step whose mini-batch loss was not finite and ended the run, shape (K, S); -1 for none.
        diverged_loss: that loss, shape (K, S); NaN for none.
        updates: the number of updates done, shape (K, S).
        way: "stack" or "loop", how the replicas were trained.
        why: the reason for the way, in a sentence.
        seconds: wall time of the call.
    """

    names: tuple = ()
    seeds: tuple[int, ...] = ()
    way: str = ""
    why: str = ""
    states: dict = field(default_factory=dict)

    def state_dict(self, name, seed: int) -> State:
        """The final state of one replica, for ``model.load_state_dict``.

        Args:
            name: one of `names`.
            seed: one of `seeds`.

        Raises:
            ValueError: there is no such replica.
        """
        _check.choice("name", name, self.names)
        _check.choice("seed", seed, self.seeds)
        return {key: value.clone() for key, value in self.states[name, seed].items()}

    def __repr__(self) -> str:
        diverged = np.sum(np.array(self.diverged_at) >= 0)
        return (
            f"GridResult({len(self.names)} schedules x {len(self.seeds)} seeds, {self.loss.shape[2]} steps, "
            f"{diverged} diverged; {self.way})"
        )


@dataclass(frozen=True, eq=False)
class _Job:
    """The study: everything that a worker must know of it, but for the data."""

    make_model: Callable[[int], nn.Module]
    schedules: Sequence[Schedule | float]
    eval_every: int | None
    options: dict  # of a run

    def model(self, seed: int, device: torch.device) -> nn.Module:
        with runtime.seeded(seed):
            return self.make_model(seed).to(device).train()


def train_grid(
    make_model: Callable[[int], nn.Module],
    data: Dataset | Callable[[], Dataset],
    schedules: Mapping | Sequence[float | Schedule],
    seeds: Sequence[int],
    *,
    steps: int,
    batch_size: int = 64,
    optimizer: Rule | None = None,
    loss: Loss = F.cross_entropy,
    eval_every: int | None = None,
    way: str | None = None,
) -> GridResult:
    """Train one replica of a model for every pair of a schedule and a seed and return what was measured.

    Replica (schedule, seed) is the run ``train(make_model(seed), data, schedule, steps=steps, seed=seed, ...)``, up to
    rounding. All replicas of a seed start from the same weights and see the same batches, so that schedules can be
    compared in pairs.

    **How it is done.** "stack": one forward and backward pass for all replicas of a :class:`~lrlib.Stack`. "loop": one
    run after the other. By default a few updates of both decide, once. A model that cannot be stacked (it draws random
    numbers in training, or branches on its data) is trained in a loop.

    **Where it is done.** The grid is cut into shards that run through joblib's active backend, by default one after the
    other in this process. Inside ``joblib.parallel_config(n_jobs=4)`` they run in four processes, inside
    ``parallel_config(backend="dask")`` on a Dask cluster. How it is cut depends on the grid and the model only, so the
    result does not depend on the number of workers; what a killed worker was doing is done again.

    Args:
        make_model: called as ``make_model(seed)`` while torch's generator is seeded with it, so that
            ``lambda seed: lrlib.mlp(64, 32, 10)`` serves; returns a module from (B, C, H, W) to logits (B, classes). It
            is moved to the data's device.
        data: a :class:`~lrlib.Dataset`, or a function that returns it (such as ``lrlib.mnist``), which workers call
            instead of being sent the data.
        schedules: a mapping from names to rates or schedules, or a sequence of them: a rate is then its own name, a
            schedule is named by its text. K of them, >= 1.
        seeds: S different integers >= 0, of initial weights and order of examples.
        steps: the number of updates T, >= 1 and at least each schedule's warm-up.
        batch_size: examples per update, between 1 and the number of training examples.
        optimizer: a rule; default ``lrlib.SGD()``.
        loss: maps logits and labels to a scalar, the mean over the batch.
        eval_every: evaluate the test set before the first update and after every so many; default at the end only.
        way: None to choose, or "stack" or "loop".

    Raises:
        TypeError: an argument is of a wrong type.
        ValueError: an argument is out of its range, a name or seed is there twice, a schedule's warm-up is longer than
            the run, or `way` is "stack" and the model cannot be.

    Example:
        >>> import lrlib
        >>> data = lrlib.digits()
        >>> grid = train_grid(lambda seed: lrlib.mlp(64, 16, 10), data, [0.01, 0.5], seeds=[0, 1, 2], steps=50)
        >>> grid
        GridResult(2 schedules x 3 seeds, 50 steps, 0 diverged; stack)
        >>> grid.names, grid.accuracy.shape, grid.loss.shape
        ((0.01, 0.5), (2, 3), (2, 3, 50))
        >>> bool((grid.accuracy[1] > grid.accuracy[0]).all())
        True
        >>> sorted(grid.state_dict(0.5, seed=2))
        ['1.bias', '1.weight', '3.bias', '3.weight']
    """
    started = time.perf_counter()
    names, entries = _named(schedules)
    seeds = _distinct(seeds)
    _check.choice("way", way, (None, "stack", "loop"))
    steps, batch_size = _check.integer("steps", steps, 1), _check.integer("batch_size", batch_size, 1)
    if not isinstance(optimizer, Rule | None):
        raise TypeError(f"optimizer={optimizer!r}: must be a rule of lrlib.rules")
    if not isinstance(data, Dataset) and not callable(data):
        raise TypeError(f"data: is a {type(data).__name__}, must be a Dataset, or a function that returns one")
    here = data if isinstance(data, Dataset) else data()
    options = {"steps": steps, "batch_size": batch_size, "optimizer": optimizer, "loss": loss}
    job = _Job(make_model, entries, eval_every, options)
    _refuse_early(job, here)
    shards = _cut(job, here, seeds)
    way, why = _choose(job, here, shards[0], len(names) * len(seeds), way)
    sent = here if joblib.effective_n_jobs(None) == 1 else data

    def trained(shard: Sequence[Cell]) -> list[tuple[History, list[State]]]:
        given = sent if isinstance(sent, Dataset) else sent()
        return [_train(job, given, cells, way) for cells in ([shard] if way == "stack" else [[cell] for cell in shard])]

    parts = [part for some in spread(trained, shards) for part in some]
    place = {cell: n for n, cell in enumerate(cell for shard in shards for cell in shard)}
    order = np.array([[place[k, seed] for seed in seeds] for k in range(len(names))])
    rows = {name: np.concatenate([getattr(history, name) for history, _ in parts])[order] for name in ROWS}
    rows |= {"eval_step": parts[0][0].eval_step, "update_ratio": None, "seconds": time.perf_counter() - started}
    ends = [state for _, states in parts for state in states]
    states = {(names[k], seed): ends[n] for (k, seed), n in place.items()}
    return GridResult(**rows, names=names, seeds=seeds, way=way, why=why, states=states)


def _named(schedules) -> tuple[tuple, list[Schedule | float]]:
    if isinstance(schedules, Mapping):
        pairs = list(schedules.items())
    else:
        try:
            pairs = [(repr(entry) if isinstance(entry, Schedule) else entry, entry) for entry in schedules]
        except TypeError:
            raise TypeError(f"schedules={schedules!r}: must be a mapping or a sequence of rates or Schedules") from None
    names = tuple(name for name, _ in pairs)
    if not names or len(set(names)) < len(names):
        raise ValueError(f"schedules={schedules!r}: must be at least one, no name twice")
    for name, entry in pairs:
        if not isinstance(entry, Schedule):
            _check.nonnegative(f"schedules[{name!r}]", entry)
    return names, [entry for _, entry in pairs]


def _distinct(seeds) -> tuple[int, ...]:
    if not isinstance(seeds, Iterable):
        raise TypeError(f"seeds={seeds!r}: must be a sequence of integers >= 0")
    seeds = tuple(_check.seed(f"seeds[{i}]", seed) for i, seed in enumerate(seeds))
    if not seeds or len(set(seeds)) < len(seeds):
        raise ValueError(f"seeds={seeds!r}: must be at least one, none of them twice")
    return seeds


def _refuse_early(job: _Job, data: Dataset) -> None:
    """Refuse what would be refused later, before anything is trained."""
    with runtime.seeded(0):
        model = nn.Linear(1, 1)
    for schedule in job.schedules:
        make_run(model, (data.x_train, data.y_train), schedule, **job.options, seed=0, callbacks=[])


def _train(job: _Job, data: Dataset, cells: Sequence[Cell], way: str) -> tuple[History, list[State]]:
    """Train a stack of cells, or one: what was measured, a row for each, and the final states on the CPU."""
    schedules, seeds = [job.schedules[k] for k, _ in cells], [seed for _, seed in cells]
    made = {seed: job.model(seed, data.x_train.device) for seed in seeds}
    models = [made[seed] for seed in seeds]
    model = Stack(models) if way == "stack" else models[0]
    tests = evaluations([data], job.options["steps"], job.eval_every, job.options["loss"])
    run = make_run(model, data, schedules, **job.options, seed=seeds, callbacks=[tests])
    history, states = finished(run, tests), []
    for r, one in enumerate(models):
        if isinstance(model, Stack):
            one.load_state_dict(model.replica(r), strict=False)  # tied parameters are in the stack once
        states.append({name: tensor.detach().cpu().clone() for name, tensor in one.state_dict().items()})
    return history, states


def _cut(job: _Job, data: Dataset, seeds: Sequence[int]) -> list[list[Cell]]:
    """Shards: all schedules of a few seeds, or some schedules of one seed where these do not fit."""
    count, most = len(job.schedules), _fitting(job, data, seeds[0])
    parts = np.array_split(np.arange(count), -(-count // most))
    groups = np.array_split(np.array(seeds), -(-len(seeds) // max(1, most // count)))
    return [[(k, seed) for seed in group.tolist() for k in part.tolist()] for group in groups for part in parts]


def _fitting(job: _Job, data: Dataset, seed: int) -> int:
    """How many replicas may be in a stack: as many as fit into memory, by the tensors that one forward pass keeps."""
    device, kept = data.x_train.device, []
    model, size = job.model(seed, device), job.options["batch_size"]

    def count(tensor: torch.Tensor) -> torch.Tensor:
        kept.append(tensor.numel() * tensor.element_size())
        return tensor

    with runtime.seeded(0), torch.autograd.graph.saved_tensors_hooks(count, lambda tensor: tensor):
        job.options["loss"](model(data.x_train[:size]), data.y_train[:size])
    weights = sum(p.numel() * p.element_size() for p in model.parameters())
    memory = torch.cuda.mem_get_info(device)[0] // 2 if device.type == "cuda" else MEMORY
    fits = max(1, memory // max(1, sum(kept) + 6 * weights))
    return fits if device.type == "cuda" else min(fits, max(REPLICAS, CACHE // max(1, weights)))


def _choose(job: _Job, data: Dataset, shard: Sequence[Cell], size: int, way: str | None) -> tuple[str, str]:
    """A stack or a loop, and why."""
    if way == "loop" or (size == 1 and way != "stack"):
        return "loop", "asked for" if way else "a single run"
    try:
        pair = Stack([job.model(seed, data.x_train.device) for _, seed in (shard[0], shard[-1])])
        x, y = (part[: job.options["batch_size"]] for part in (data.x_train, data.y_train))
        pair.check(x[:2])
        pair.losses(x[None], y[None], job.options["loss"]).sum().backward()
    except Exception as error:  # whatever keeps a model from being stacked, one by one it can be trained
        problem = (str(error).splitlines() or [type(error).__name__])[0]
        if way == "stack":
            raise ValueError(f"way={way!r}: must be 'loop', as this model cannot be stacked: {problem}") from error
        return "loop", f"the model cannot be stacked: {problem}"
    if way == "stack" or size * job.options["steps"] < WORTH_MEASURING:
        return "stack", "asked for" if way else "too short to measure"
    seconds = {kind: _seconds(job, data, shard, kind) for kind in ("stack", "loop")}
    faster = min(seconds, key=lambda kind: seconds[kind])
    return faster, ", ".join(f"{value * 1e6:.0f} µs an update in a {kind}" for kind, value in seconds.items())


def _seconds(job: _Job, data: Dataset, shard: Sequence[Cell], way: str) -> float:
    """Seconds of an update of one replica, the fastest of a few after the first ones, which prepare."""
    models = [job.model(seed, data.x_train.device) for _, seed in (shard if way == "stack" else shard[:1])]
    model, stamps = Stack(models) if way == "stack" else models[0], []

    def stamp(run: Run) -> None:
        run.loss[run.step - 1].sum().item()
        stamps.append(time.perf_counter())

    few = 4 if way == "stack" and data.x_train.device.type == "cpu" else 13
    train(model, (data.x_train, data.y_train), 0.0, callbacks=[stamp], **(job.options | {"steps": few}))
    return float(np.diff(stamps).min()) / len(models)
