"""A learning-rate study in one call: every pair of a schedule and a seed, trained as a replica of one model."""

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace

import joblib
import numpy as np
import torch
from torch import nn
from torch.nn import functional as F

from lrlib import _check, runtime
from lrlib.data import Dataset
from lrlib.rule import Rule
from lrlib.rules import SGD
from lrlib.run import Run
from lrlib.schedules import Schedule
from lrlib.spread import spread
from lrlib.stack import Loss, Stack
from lrlib.training import History, make_run, train

__all__ = ["GridResult", "train_grid"]

REPLICAS = 32  # in a stack on a CPU; larger ones gain nothing more,
CACHE = 2**22  # unless the parameters of all are no more bytes than this
MEMORY = 2**30  # bytes of activations and parameters of a stack on a CPU; on a GPU half of what is free
WORTH_MEASURING = 2000  # replica-updates
CURVES = ("lr", "loss")
MEASURED = (*CURVES, "test_loss", "test_accuracy", "diverged_at", "eval_step")

Cell = tuple[int, int]  # the number of a schedule, and a seed


@dataclass(frozen=True, eq=False, repr=False)
class GridResult:
    """What :func:`train_grid` measured: a :class:`~lrlib.History` with an axis of K schedules and one of S seeds.

    Attributes:
        names: of the K schedules, in the order given.
        seeds: the S seeds, in the order given.
        lr: the rate of every update, shape (K, S, T); NaN from the step at which a run diverged.
        loss: the mini-batch loss before every update, shape (K, S, T); NaN from the step at which a run diverged.
        eval_step: the numbers of updates after which the test set was evaluated, shape (E,); the last one is T.
        test_loss, test_accuracy: of these evaluations, shape (K, S, E). Of a diverged run they are NaN from then on,
            but for the last one, which is of the weights that it kept.
        diverged_at: the step whose mini-batch loss was not finite and ended the run, shape (K, S); -1 for none.
        way: "stack" or "loop", how the replicas were trained.
        why: the reason for the way, in a sentence.
        seconds: wall time of the call.
    """

    names: tuple
    seeds: tuple[int, ...]
    lr: np.ndarray
    loss: np.ndarray
    eval_step: np.ndarray
    test_loss: np.ndarray
    test_accuracy: np.ndarray
    diverged_at: np.ndarray
    way: str
    why: str
    seconds: float
    states: dict = field(default_factory=dict)

    @property
    def final_loss(self) -> np.ndarray:
        """Test loss at the end of every run, shape (K, S)."""
        return self.test_loss[:, :, -1]

    @property
    def accuracy(self) -> np.ndarray:
        """Test accuracy at the end of every run, in [0, 1], shape (K, S)."""
        return self.test_accuracy[:, :, -1]

    def state_dict(self, name, seed: int) -> dict[str, torch.Tensor]:
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
        diverged = int((self.diverged_at >= 0).sum())
        return (
            f"GridResult({len(self.names)} schedules x {len(self.seeds)} seeds, {self.loss.shape[2]} steps, "
            f"{diverged} diverged; {self.way})"
        )


@dataclass(frozen=True, eq=False)
class _Job:
    """The study: everything that a worker must know of it."""

    make_model: Callable[[int], nn.Module]
    data: Dataset | Callable[[], Dataset]
    schedules: Sequence[Schedule | float]
    options: dict  # of lrlib.train

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
    _check.integer("steps", steps, 1)
    _check.integer("batch_size", batch_size, 1)
    rule = SGD() if optimizer is None else optimizer
    if not isinstance(rule, Rule):
        raise TypeError(f"optimizer={optimizer!r}: must be a rule of lrlib.rules")
    if not isinstance(data, Dataset) and not callable(data):
        raise TypeError(f"data: is a {type(data).__name__}, must be a Dataset, or a function that returns one")
    here = data if isinstance(data, Dataset) else data()
    options = {"steps": steps, "batch_size": batch_size, "optimizer": rule, "loss": loss, "eval_every": eval_every}
    job = _Job(make_model, here, entries, options)
    _refuse_early(job, here)
    shards = _cut(job, here, seeds)
    way, why = _choose(job, here, shards[0], len(names) * len(seeds), way)
    if not isinstance(data, Dataset) and joblib.effective_n_jobs(None) > 1:
        job = replace(job, data=data)
    found = {cell: row for rows in spread(lambda shard: _run(job, shard, way), shards) for cell, row in rows.items()}
    cells = [[found[k, seed] for seed in seeds] for k in range(len(names))]
    values = {name: np.array([[cell[name] for cell in row] for row in cells]) for name in MEASURED}
    states = {(names[k], seed): row["state"] for (k, seed), row in found.items()}
    eval_step, seconds = values.pop("eval_step")[0, 0], time.perf_counter() - started
    return GridResult(names, seeds, **values, eval_step=eval_step, way=way, why=why, seconds=seconds, states=states)


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
    seeds = tuple(_check.integer(f"seeds[{i}]", seed, 0) for i, seed in enumerate(seeds))
    if not seeds or len(set(seeds)) < len(seeds):
        raise ValueError(f"seeds={seeds!r}: must be at least one, none of them twice")
    return seeds


def _refuse_early(job: _Job, data: Dataset) -> None:
    """Let :func:`lrlib.train` refuse every schedule that it would refuse later, before anything is trained."""
    options = {name: value for name, value in job.options.items() if name != "eval_every"}
    for schedule in job.schedules:
        make_run(nn.Linear(1, 1), (data.x_train, data.y_train), schedule, **options, seed=0, callbacks=[])


def _run(job: _Job, shard: Sequence[Cell], way: str) -> dict[Cell, dict]:
    """Train the cells of a shard: what was measured, and the final states on the CPU."""
    data = job.data if isinstance(job.data, Dataset) else job.data()
    models = {seed: job.model(seed, data.x_train.device) for _, seed in shard}
    if way == "loop":
        rows = {}
        for k, seed in shard:
            model = job.model(seed, data.x_train.device)
            history = train(model, data, job.schedules[k], seed=seed, **job.options)
            rows[k, seed] = _padded(history, job) | {"state": _on_cpu(model)}
        return rows
    stack = Stack([models[seed] for _, seed in shard])
    schedules, seeds = [job.schedules[k] for k, _ in shard], [seed for _, seed in shard]
    history = train(stack, data, schedules, seed=seeds, **job.options)
    rows = {}
    for r, (k, seed) in enumerate(shard):
        models[seed].load_state_dict(stack.replica(r), strict=False)  # tied parameters are in the stack once
        rows[k, seed] = {name: getattr(history, name)[r] for name in MEASURED[:-1]}
        rows[k, seed] |= {"eval_step": history.eval_step, "state": _on_cpu(models[seed])}
    return rows


def _padded(history: History, job: _Job) -> dict:
    """A single run in the form of a stack's row: NaN after its end, but for the last evaluation."""
    steps, every = job.options["steps"], job.options["eval_every"]
    planned = np.array([*(range(0, steps, every) if every else ()), steps])
    row: dict = {"eval_step": planned, "diverged_at": -1 if history.diverged_at is None else history.diverged_at}
    for name in MEASURED[:4]:
        values, length = getattr(history, name), steps if name in CURVES else len(planned)
        row[name] = np.pad(values.astype(float), (0, length - len(values)), constant_values=np.nan)
    last = len(history.eval_step) - 1
    for name in MEASURED[2:4]:
        if history.eval_step[last] != planned[last]:
            row[name][last] = np.nan
        row[name][-1] = getattr(history, name)[-1]
    return row


def _on_cpu(model: nn.Module) -> dict[str, torch.Tensor]:
    return {name: tensor.detach().cpu().clone() for name, tensor in model.state_dict().items()}


def _cut(job: _Job, data: Dataset, seeds: Sequence[int]) -> list[list[Cell]]:
    """Shards: all schedules of a few seeds, or some schedules of one seed where these do not fit."""
    count, most = len(job.schedules), _fitting(job, data)
    if count > most:
        parts = np.array_split(np.arange(count), -(-count // most))
        return [[(k, seed) for k in part.tolist()] for seed in seeds for part in parts]
    parts = np.array_split(np.array(seeds), -(-len(seeds) // (most // count)))
    return [[(k, seed) for seed in part.tolist() for k in range(count)] for part in parts]


def _fitting(job: _Job, data: Dataset) -> int:
    """How many replicas may be in a stack: as many as fit into memory, by the tensors that one forward pass keeps."""
    device, kept = data.x_train.device, 0
    model, size = job.model(0, device), job.options["batch_size"]

    def count(tensor):
        nonlocal kept
        kept += tensor.numel() * tensor.element_size()
        return tensor

    with runtime.seeded(0), torch.autograd.graph.saved_tensors_hooks(count, lambda tensor: tensor):
        job.options["loss"](model(data.x_train[:size]), data.y_train[:size])
    weights = sum(p.numel() * p.element_size() for p in model.parameters())
    memory = torch.cuda.mem_get_info(device)[0] // 2 if device.type == "cuda" else MEMORY
    fits = max(1, memory // (kept + 6 * weights))
    return fits if device.type == "cuda" else min(fits, max(REPLICAS, CACHE // weights))


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
    options = job.options | {"steps": few, "eval_every": None}
    train(model, (data.x_train, data.y_train), 0.0, seed=0, callbacks=[stamp], **options)
    return float(np.diff(stamps).min()) / len(models)
