r"""A learning-rate study in one call: every pair of a schedule and a seed trained as a replica of one model.

Many small networks of the same shape are trained faster together than one after the other. Their parameters are
stacked along a first axis of R replicas, one forward pass gives R losses, and because no replica's loss depends on
another's parameters, one backward pass through their sum gives every replica its own gradient:

.. math:: \nabla_{\theta_r} \sum_q L_q(\theta_q) = \nabla_{\theta_r} L_r(\theta_r).

Where this does not pay, as for wide layers and large batches, the replicas are trained one by one. Both ways give
what :func:`lrlib.train` gives, up to rounding.
"""

import copy
import os
import threading
import time
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace

import joblib
import numpy as np
import torch
from joblib.parallel import get_active_backend
from torch import nn
from torch.func import functional_call, vmap
from torch.nn import functional as F
from tqdm import tqdm

from lrlib import _check, runtime
from lrlib.datasets import Dataset, batches
from lrlib.schedules import Schedule, constant
from lrlib.training import evaluate as evaluate_model
from lrlib.training import train

__all__ = ["GridResult", "Stack", "train_grid"]

WAYS = ("batched", "loop", "processes")
SHARD_REPLICAS = 32  # on a CPU, larger stacks gain nothing more
SHARD_MEMORY = 2**30  # bytes of stacked parameters, gradients and activations; on a GPU half of what is free
WORTH_MEASURING = 2000  # replica-steps
WORKER_START = 5.0  # seconds until new processes have imported torch
CLEARLY_FASTER = 0.9  # stacks share a processor's caches less well than loops do
ELEMENTWISE = (
    nn.ReLU, nn.Tanh, nn.Sigmoid, nn.GELU, nn.SiLU, nn.ELU, nn.LeakyReLU, nn.Softplus, nn.Hardtanh, nn.Identity,
)  # fmt: skip

_TURN = threading.Lock()


@dataclass(frozen=True, eq=False, repr=False)
class GridResult:
    """What :func:`train_grid` measured: a :class:`~lrlib.History` with an axis of K schedules and one of S seeds.

    Attributes:
        names: of the K schedules, in the order given.
        seeds: the S seeds, in the order given.
        lr: the rate of every update, shape (K, T).
        loss: the mini-batch loss before every update, shape (K, S, T); NaN from the step at which a run diverged.
        eval_step: the numbers of updates after which the test set was evaluated, shape (E,); the last one is T.
        test_loss, test_accuracy: of these evaluations, shape (K, S, E). Of a diverged run they are NaN from then on,
            but for the last one, which is of the weights that it kept.
        diverged_at: the step whose mini-batch loss was not finite and ended the run, shape (K, S); -1 for none.
        way: "batched" or "loop", how the replicas were trained.
        workers: the number of joblib workers that did it; 0 for this process alone.
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
    workers: int
    why: str
    seconds: float
    _states: dict

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
        return {key: value.clone() for key, value in self._states[name, seed].items()}

    def __repr__(self) -> str:
        diverged = int((self.diverged_at >= 0).sum())
        where = f"{self.workers} workers" if self.workers else "this process"
        return (
            f"GridResult({len(self.names)} schedules x {len(self.seeds)} seeds, {self.lr.shape[1]} steps, "
            f"{diverged} diverged; {self.way}, {where})"
        )


class Stack(nn.Module):
    """R replicas of one architecture as one module, each parameter and buffer stacked along a first axis of R.

    An `nn.Sequential` of Flatten, Linear and elementwise activations runs as a few large matrix products, any other
    module through `torch.func.vmap`. A layer that draws random numbers or branches on its data cannot be stacked: the
    forward pass then raises RuntimeError.

    Args:
        models: R >= 1 modules of one architecture, in any state; they are copied.

    Raises:
        ValueError: there is no model, or their parameters differ in name or shape.

    Example:
        >>> import lrlib
        >>> stack = Stack([lrlib.mlp(64, 16, 10) for _ in range(6)])
        >>> data = lrlib.digits()
        >>> x, y = data.x_train[:20].view(2, 10, 1, 8, 8), data.y_train[:20].view(2, 10)
        >>> stack(x).shape  # replicas 0, 1, 2 see x[0], replicas 3, 4, 5 see x[1]
        torch.Size([6, 10, 10])
        >>> stack.losses(x, y).shape
        torch.Size([6])
        >>> sorted(stack.replica(3))
        ['1.bias', '1.weight', '3.bias', '3.weight']
    """

    def __init__(self, models: Sequence[nn.Module]):
        super().__init__()
        models = list(models)
        if not models:
            raise ValueError("models: must be at least one")
        parts = [_parts(model) for model in models]
        shapes = [[{name: t.shape for name, t in part.items()} for part in pair] for pair in parts]
        if any(shape != shapes[0] for shape in shapes):
            raise ValueError("models: have parameters of different names or shapes, must be of one architecture")
        self.size = len(models)
        self._names = [list(part) for part in parts[0]]
        weights, fixed = (
            [torch.stack([pair[k][name].detach() for pair in parts]) for name in self._names[k]] for k in (0, 1)
        )
        self.weights = nn.ParameterList(weights)
        for k, tensor in enumerate(fixed):
            self.register_buffer(f"fixed{k}", tensor)
        self._layers = _layers(models[0])
        self._template = [copy.deepcopy(models[0]).to("meta")]  # in a list, so that it is no submodule
        self.train(models[0].training)

    def train(self, mode: bool = True) -> "Stack":
        """Training mode, or evaluation mode, of all replicas."""
        super().train(mode)
        self._template[0].train(mode)
        return self

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Logits of every replica, (R, B, classes).

        Args:
            x: (G, B, ...), where G divides R: the first R/G replicas see x[0], the next ones x[1], and so on.
        """
        repeats = self._repeats(x)
        if self._layers is not None:
            return self._matrices(x)
        template = self._template[0]

        def one(tensors, x):
            return functional_call(template, tensors, (x,))

        if len(x) == 1:
            return vmap(one, in_dims=(0, None))(self._tensors(), x[0])
        return vmap(one)(self._tensors(), x.repeat_interleave(repeats, 0))

    def losses(
        self,
        x: torch.Tensor,
        y: torch.Tensor,
        loss: Callable[[torch.Tensor, torch.Tensor], torch.Tensor] = F.cross_entropy,
    ) -> torch.Tensor:
        """The loss of every replica on its batch, (R,).

        Args:
            x: (G, B, ...) as in :meth:`forward`.
            y: labels, (G, B).
            loss: maps logits (B, classes) and labels (B,) to a scalar.
        """
        logits = self(x)
        y = y.repeat_interleave(self._repeats(y), 0)
        if loss is F.cross_entropy:
            return F.cross_entropy(logits.mT, y, reduction="none").mean(1)
        return vmap(loss)(logits, y)

    def replica(self, r: int) -> dict[str, torch.Tensor]:
        """A copy of the state of replica r, for ``model.load_state_dict``."""
        return {name: tensor[r].detach().clone() for name, tensor in self._tensors().items()}

    def _tensors(self) -> dict[str, torch.Tensor]:
        fixed = (getattr(self, f"fixed{k}") for k in range(len(self._names[1])))
        return dict(zip(sum(self._names, []), (*self.weights, *fixed), strict=True))

    def _repeats(self, x: torch.Tensor) -> int:
        if self.size % len(x):
            raise ValueError(f"x: has {len(x)} batches, must be a divisor of {self.size}, the number of replicas")
        return self.size // len(x)

    def _matrices(self, x: torch.Tensor) -> torch.Tensor:
        """Pictures along the last axis, so that replicas that share a batch make one product in the first layer."""
        groups, examples = x.shape[:2]
        weights = iter(self.weights)
        h = x.flatten(2).mT
        for layer in self._layers:
            if type(layer) is not nn.Linear:
                h = layer(h)
                continue
            weight = next(weights)
            weight = weight.view(len(h), -1, weight.shape[-1])
            if layer.bias is None:
                h = torch.bmm(weight, h)
            else:
                h = torch.baddbmm(next(weights).view(len(h), -1, 1), weight, h)
            h = h.view(self.size, -1, examples)
        return h.mT


def _parts(model: nn.Module) -> tuple[dict[str, torch.Tensor], dict[str, torch.Tensor]]:
    """What is trained, and what stays or is changed by the forward pass; tied parameters once."""
    trained = {name: p for name, p in model.named_parameters() if p.requires_grad}
    fixed = {name: p for name, p in model.named_parameters() if not p.requires_grad}
    return trained, fixed | dict(model.named_buffers())


def _layers(model: nn.Module) -> list[nn.Module] | None:
    """The layers after Flatten of a trainable multilayer perceptron; None for any other model."""
    if type(model) is not nn.Sequential:
        return None
    flatten, *layers = model
    if type(flatten) is not nn.Flatten or (flatten.start_dim, flatten.end_dim) != (1, -1) or not layers:
        return None
    known = type(layers[0]) is nn.Linear and all(type(layer) in (nn.Linear, *ELEMENTWISE) for layer in layers)
    unshared = len(list(model.named_modules(remove_duplicate=False))) == len(layers) + 2 == len(set(model.modules()))
    plain = all(p.requires_grad for p in model.parameters()) and not any(
        m._forward_hooks or m._forward_pre_hooks or m._backward_hooks for m in model.modules()
    )
    tied = len(list(model.parameters())) < sum(1 for _ in model.named_parameters(remove_duplicate=False))
    return layers if known and unshared and plain and not tied else None


@dataclass(frozen=True, eq=False)
class _Job:
    make_model: Callable[[int], nn.Module]
    data: Dataset | Callable[[], Dataset]
    rates: np.ndarray  # (K, T)
    batch_size: int
    momentum: float
    weight_decay: float
    loss: Callable[[torch.Tensor, torch.Tensor], torch.Tensor]
    order_seed: int | None
    eval_every: int | None

    @property
    def steps(self) -> int:
        return self.rates.shape[1]

    @property
    def eval_step(self) -> np.ndarray:
        before = range(0, self.steps, self.eval_every) if self.eval_every else []
        return np.array([*before, self.steps])

    def model(self, seed: int, device: torch.device) -> nn.Module:
        with runtime.seeded(seed):
            return self.make_model(seed).to(device).train()

    def order(self, seed: int) -> int:
        return seed if self.order_seed is None else self.order_seed


@dataclass(frozen=True, eq=False)
class _Shard:
    """A rectangle of the grid."""

    columns: list[int]  # indices of the schedules
    seeds: list[int]

    @property
    def size(self) -> int:
        return len(self.columns) * len(self.seeds)


@dataclass(eq=False)
class _Outcome:
    """A shard after training."""

    loss: np.ndarray  # (S, K, T)
    test: np.ndarray  # (S, K, E, 2), loss and accuracy
    diverged_at: np.ndarray  # (S, K)
    states: dict[tuple[int, int], dict[str, torch.Tensor]] = field(default_factory=dict)  # by seed and column


def train_grid(
    make_model: Callable[[int], nn.Module],
    data: Dataset | Callable[[], Dataset],
    schedules: Mapping | Sequence[float | Schedule],
    seeds: Sequence[int],
    *,
    steps: int,
    batch_size: int = 64,
    momentum: float = 0.0,
    weight_decay: float = 0.0,
    loss: Callable[[torch.Tensor, torch.Tensor], torch.Tensor] = F.cross_entropy,
    order_seed: int | None = None,
    eval_every: int | None = None,
    way: str | None = None,
) -> GridResult:
    """Train one replica of a model for every pair of a schedule and a seed, by SGD, and return what was measured.

    Replica (schedule, seed) is the run ``train(make_model(seed), data, schedule, steps=steps, seed=seed, ...)`` with
    `torch.optim.SGD`, up to rounding. All replicas of a seed start from the same weights and see the same batches, so
    that schedules can be compared in pairs.

    **How it is done.** "batched": stacked parameters, one forward and backward pass for all replicas of a
    :class:`Stack`. "loop": one run after the other. By default a short measurement on copies decides, and long runs go
    to one process an idle core where that is estimated to be faster. Either way each process uses one thread on a CPU.
    A model that cannot be batched (it draws random numbers in training, or branches on its data) is trained in a loop.

    **Where it is done.** Inside ``joblib.parallel_config(...)`` with more than one worker, the grid is cut into shards
    that run through that backend: ``parallel_config(backend="dask")`` trains it on a Dask cluster. How it is cut
    depends on the grid and the model only, so the result does not depend on the number of workers. Workers that are
    threads of one process take turns. What fits into memory is found from one forward pass, and the shards are cut so.

    **BatchNorm.** Every replica normalises with its own batch statistics and keeps its own running statistics, which
    every step updates in its slice of stacked buffers, as the plain loop does in the model's.

    **Divergence.** A replica whose mini-batch loss is not finite keeps the weights that it had, and is marked; the
    others go on undisturbed.

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
        momentum: in [0, 1); the buffer is v ← momentum v + g, the update θ ← θ - η v, as in `torch.optim.SGD`.
        weight_decay: λ >= 0, added to the gradient as λθ.
        loss: maps logits and labels to a scalar, the mean over the batch.
        order_seed: None for an order of examples by each replica's seed; an integer >= 0 for one order for all.
        eval_every: evaluate the test set before the first update and after every so many; default at the end only.
        way: None to choose, or "batched", "loop", or "processes" for joblib workers even where not estimated faster.

    Raises:
        TypeError: an argument is of a wrong type.
        ValueError: an argument is out of its range, a name or seed is there twice, a schedule's warm-up is longer than
            the run, or `way` is "batched" and the model cannot be.

    Example:
        >>> import lrlib
        >>> data = lrlib.digits()
        >>> grid = train_grid(lambda seed: lrlib.mlp(64, 16, 10), data, [0.01, 0.5], seeds=[0, 1, 2], steps=50)
        >>> grid
        GridResult(2 schedules x 3 seeds, 50 steps, 0 diverged; batched, this process)
        >>> grid.names, grid.accuracy.shape, grid.loss.shape
        ((0.01, 0.5), (2, 3), (2, 3, 50))
        >>> bool((grid.accuracy[1] > grid.accuracy[0]).all())
        True
        >>> sorted(grid.state_dict(0.5, seed=2))
        ['1.bias', '1.weight', '3.bias', '3.weight']
    """
    started = time.perf_counter()
    names, seeds, dataset, job = _job(
        make_model, data, schedules, seeds, steps, batch_size, momentum, weight_decay, loss, order_seed, eval_every
    )
    if way is not None:
        _check.choice("way", way, WAYS)
    how, workers, why = _choose(job, dataset, seeds, way)
    shards = _shards(job, dataset, seeds, how)
    total = len(names) * len(seeds) * job.steps
    with tqdm(total=total, unit="update", unit_scale=True, leave=False, disable=None) as bar:
        if workers:
            outcomes = _run_on_workers(job, shards, how, workers, bar.update)
        else:
            outcomes = [_run(job, dataset, shard, how, bar.update) for shard in shards]

    shape = len(names), len(seeds)
    curves = np.empty((*shape, job.steps))
    test = np.empty((*shape, len(job.eval_step), 2))
    diverged_at = np.empty(shape, dtype=np.int64)
    states = {}
    for shard, outcome in zip(shards, outcomes, strict=True):
        where = np.ix_(shard.columns, [seeds.index(seed) for seed in shard.seeds])
        curves[where] = outcome.loss.swapaxes(0, 1)
        test[where] = outcome.test.swapaxes(0, 1)
        diverged_at[where] = outcome.diverged_at.T
        states |= {(names[column], seed): state for (seed, column), state in outcome.states.items()}
    return GridResult(
        names=names,
        seeds=seeds,
        lr=job.rates,
        loss=curves,
        eval_step=job.eval_step,
        test_loss=test[..., 0],
        test_accuracy=test[..., 1],
        diverged_at=diverged_at,
        way=how,
        workers=workers,
        why=why,
        seconds=time.perf_counter() - started,
        _states=states,
    )


# ---------------------------------------------------------------------------------------------------- arguments


def _job(
    make_model, data, schedules, seeds, steps, batch_size, momentum, weight_decay, loss, order_seed, eval_every
) -> tuple[tuple, tuple[int, ...], Dataset, _Job]:
    if not callable(make_model):
        raise TypeError(f"make_model={make_model!r}: must be a function of a seed that returns a module")
    if not callable(loss):
        raise TypeError(f"loss={loss!r}: must be a function of logits and labels")
    steps = _check.integer("steps", steps, 1)
    batch_size = _check.integer("batch_size", batch_size, 1)
    momentum = _check.nonnegative("momentum", momentum)
    if momentum >= 1:
        raise ValueError(f"momentum={momentum!r}: must be in [0, 1)")
    weight_decay = _check.nonnegative("weight_decay", weight_decay)
    if order_seed is not None:
        order_seed = _check.integer("order_seed", order_seed, 0)
    if eval_every is not None:
        eval_every = _check.integer("eval_every", eval_every, 1)
    seeds = _seeds(seeds)
    names, rates = _rates(schedules, steps)

    dataset = data() if callable(data) and not isinstance(data, Dataset) else data
    if not isinstance(dataset, Dataset):
        raise TypeError(f"data={data!r}: must be a Dataset or a function that returns one")
    if batch_size > len(dataset.x_train):
        raise ValueError(
            f"batch_size={batch_size!r}: must be <= {len(dataset.x_train)}, the number of training examples"
        )
    job = _Job(make_model, data, rates, batch_size, momentum, weight_decay, loss, order_seed, eval_every)
    with runtime.seeded(seeds[0]):
        model = make_model(seeds[0])
    if not isinstance(model, nn.Module):
        raise TypeError(f"make_model: returned a {type(model).__name__}, must return a torch.nn.Module")
    if not any(p.requires_grad for p in model.parameters()):
        raise ValueError(f"make_model: returned a {type(model).__name__} without trainable parameters")
    return names, seeds, dataset, job


def _seeds(seeds) -> tuple[int, ...]:
    try:
        seeds = list(seeds)
    except TypeError:
        raise TypeError(f"seeds={seeds!r}: must be a sequence of integers >= 0") from None
    seeds = tuple(_check.integer(f"seeds[{i}]", seed, 0) for i, seed in enumerate(seeds))
    if not seeds or len(set(seeds)) < len(seeds):
        raise ValueError(f"seeds={seeds!r}: must be at least one, none of them twice")
    return seeds


def _rates(schedules, steps: int) -> tuple[tuple, np.ndarray]:
    """Names, and the rate of every update, shape (K, T)."""
    if isinstance(schedules, Mapping):
        pairs = list(schedules.items())
    else:
        try:
            entries = list(schedules)
        except TypeError:
            raise TypeError(f"schedules={schedules!r}: must be a mapping or a sequence of rates or Schedules") from None
        pairs = [(repr(entry) if isinstance(entry, Schedule) else entry, entry) for entry in entries]
    names = tuple(name for name, _ in pairs)
    if not names or len(set(names)) < len(names):
        raise ValueError(f"schedules={schedules!r}: must be at least one, no name twice")
    table = np.empty((len(pairs), steps))
    for row, (name, entry) in zip(table, pairs, strict=True):
        schedule = entry if isinstance(entry, Schedule) else constant(_check.nonnegative(f"schedules[{name!r}]", entry))
        if schedule.watches:
            raise ValueError(
                f"schedules[{name!r}]={schedule!r}: must not watch a run; lrlib.train takes such schedules"
            )
        if schedule.warmup_steps > steps:
            raise ValueError(f"steps={steps!r}: must be >= {schedule.warmup_steps}, the warm-up of {schedule}")
        row[:] = schedule(np.arange(steps))
        wrong = ~(np.isfinite(row) & (row >= 0))
        if wrong.any():
            t = int(wrong.argmax())
            raise ValueError(f"schedules[{name!r}]: is {row[t]} at step {t}, must be finite and >= 0")
    return names, table


# ------------------------------------------------------------------------------------------- training one shard


def _train_loop(job: _Job, data: Dataset, shard: _Shard, tick: Callable[[int], object]) -> _Outcome:
    shape = len(shard.seeds), len(shard.columns)
    outcome = _Outcome(
        np.full((*shape, job.steps), np.nan), np.full((*shape, len(job.eval_step), 2), np.nan), np.full(shape, -1)
    )
    for i, seed in enumerate(shard.seeds):
        for j, column in enumerate(shard.columns):
            model = job.model(seed, data.x_train.device)
            rates = job.rates[column]
            history = train(
                model,
                data,
                Schedule(lambda t, rates=rates: rates[np.minimum(t, job.steps - 1).astype(int)], "a row of the grid"),
                steps=job.steps,
                batch_size=job.batch_size,
                optimizer=torch.optim.SGD(
                    [p for p in model.parameters() if p.requires_grad],
                    lr=0.0,
                    momentum=job.momentum,
                    weight_decay=job.weight_decay,
                ),
                loss=job.loss,
                seed=job.order(seed),
                eval_every=job.eval_every,
                callbacks=[lambda *_: tick(1)],
            )
            outcome.loss[i, j, : len(history.loss)] = history.loss
            measured = np.stack([history.test_loss, history.test_accuracy], axis=1)
            outcome.test[i, j, : len(measured)] = measured
            if history.diverged_at is not None:
                outcome.diverged_at[i, j] = history.diverged_at
                outcome.test[i, j, np.flatnonzero(job.eval_step > history.diverged_at)] = np.nan
                outcome.test[i, j, -1] = measured[-1]
            outcome.states[seed, column] = {key: value.cpu() for key, value in model.state_dict().items()}
    return outcome


def _train_stack(
    job: _Job, data: Dataset, shard: _Shard, tick: Callable[[int], object], chunk: int | None = None
) -> _Outcome:
    device = data.x_train.device
    models = [job.model(seed, device) for seed in shard.seeds]
    stack = Stack([model for model in models for _ in shard.columns])
    owners = [(seed, column) for seed in shard.seeds for column in shard.columns]
    weights = list(stack.weights)
    velocity = [torch.zeros_like(p) for p in weights] if job.momentum else None
    rates = torch.as_tensor(job.rates[shard.columns]).repeat(len(shard.seeds), 1).to(device, weights[0].dtype)
    curves = torch.full((stack.size, job.steps), torch.nan, dtype=torch.float64, device=device)
    diverged_at = torch.full((stack.size,), -1, device=device)
    test = np.full((stack.size, len(job.eval_step), 2), np.nan)
    states = {}

    def evaluate(column: int) -> None:
        alive = (diverged_at < 0).cpu().numpy()
        test[alive, column] = _evaluate_stack(stack, data, job.loss, chunk)[alive]

    orders = shard.seeds if job.order_seed is None else [job.order_seed]
    rows = [batches(len(data.x_train), job.batch_size, job.steps, seed) for seed in orders]
    for t, each in enumerate(zip(*rows, strict=True)):
        if job.eval_every and t % job.eval_every == 0:
            evaluate(t // job.eval_every)
        chosen = torch.stack(each).to(device)
        values = stack.losses(data.x_train[chosen], data.y_train[chosen], job.loss)
        gradients = torch.autograd.grad(values.sum(), weights, allow_unused=True)
        values = values.detach()
        with torch.no_grad():
            ended = (diverged_at < 0) & ~values.isfinite()
            if ended.any():
                # Put the state aside; zeros take its place and stay, so that it can disturb nothing.
                diverged_at[ended] = t
                rates[ended] = 0
                for r in ended.nonzero().flatten().tolist():
                    states[owners[r]] = stack.replica(r)
                for tensor in (*weights, *(g for g in gradients if g is not None), *(velocity or ())):
                    tensor[ended] = 0
            curves[:, t] = values.double().where(diverged_at < 0, torch.nan)
            for k, (p, g) in enumerate(zip(weights, gradients, strict=True)):
                if g is None:
                    continue
                if job.weight_decay:
                    g = g.add(p, alpha=job.weight_decay)
                if velocity is not None:
                    g = velocity[k].mul_(job.momentum).add_(g)
                p.addcmul_(rates[:, t].view(-1, *[1] * (p.ndim - 1)), g, value=-1)
        tick(stack.size)
    evaluate(len(job.eval_step) - 1)
    for r, owner in enumerate(owners):
        if owner in states:
            model = models[shard.seeds.index(owner[0])]
            model.load_state_dict(states[owner], strict=False)
            test[r, -1] = evaluate_model(model, data.x_test, data.y_test, job.loss)
        else:
            states[owner] = stack.replica(r)
        # Tied parameters are there once in a stack; the model's own state has all names.
        models[0].load_state_dict(states[owner], strict=False)
        states[owner] = {key: value.detach().cpu().clone() for key, value in models[0].state_dict().items()}
    shape = len(shard.seeds), len(shard.columns)
    return _Outcome(
        curves.view(*shape, -1).cpu().numpy(),
        test.reshape(*shape, -1, 2),
        diverged_at.view(shape).cpu().numpy(),
        states,
    )


@torch.no_grad()
def _evaluate_stack(stack: Stack, data: Dataset, loss, chunk: int | None) -> np.ndarray:
    """Test loss and accuracy of every replica, (R, 2), from `chunk` examples at a time."""
    stack.eval()
    total = torch.zeros(2, stack.size, dtype=torch.float64, device=data.x_test.device)
    chunk = chunk or len(data.x_test)
    for x, y in zip(data.x_test.split(chunk), data.y_test.split(chunk), strict=True):
        logits, labels = stack(x[None]), y.expand(stack.size, -1)
        if loss is F.cross_entropy:
            values = F.cross_entropy(logits.mT, labels, reduction="none").mean(1)
        else:
            values = vmap(loss)(logits, labels)
        total[0] += values.double() * len(x)
        total[1] += (logits.argmax(2) == labels).sum(1)
    stack.train()
    return (total / len(data.x_test)).T.cpu().numpy()


def _run(job: _Job, data: Dataset | None, shard: _Shard, how: str, tick: Callable[[int], object]) -> _Outcome:
    """Train a shard with one thread; a worker gets no data and makes its own."""
    with _TURN:  # the number of threads and the random numbers are the process's
        threads = torch.get_num_threads()
        torch.set_num_threads(1)
        try:
            if data is None:
                data = job.data if isinstance(job.data, Dataset) else job.data()
            if how == "loop":
                return _train_loop(job, data, shard, tick)
            return _train_stack(job, data, shard, tick, _room(job, data)[1] // shard.size or 1)
        finally:
            torch.set_num_threads(threads)


def _nothing(_count: int) -> None:
    pass


def _run_on_workers(job: _Job, shards: Sequence[_Shard], how: str, workers: int, tick) -> list[_Outcome]:
    backend = get_active_backend()[0]
    ordered = "generator" if backend.supports_return_generator else "list"
    tasks = (joblib.delayed(_run)(job, None, shard, how, _nothing) for shard in shards)
    outcomes = []
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "A worker stopped while some jobs")  # large stacks look to it like a leak
        for shard, outcome in zip(shards, joblib.Parallel(n_jobs=workers, return_as=ordered)(tasks), strict=True):
            outcomes.append(outcome)
            tick(shard.size * job.steps)
    return outcomes


# ------------------------------------------------------------------------------------------ cutting and choosing


def _room(job: _Job, data: Dataset) -> tuple[int, int]:
    """How many replicas of a training step, and how many examples of one replica's forward pass, fit into memory."""
    device = data.x_train.device
    model = job.model(0, device)
    saved = 0

    def count(tensor):
        nonlocal saved
        saved += tensor.numel() * tensor.element_size()
        return tensor

    with runtime.seeded(0), torch.autograd.graph.saved_tensors_hooks(count, lambda tensor: tensor):
        job.loss(model(data.x_train[: job.batch_size]), data.y_train[: job.batch_size])
    weights = sum(p.numel() * p.element_size() for p in model.parameters())
    memory = torch.cuda.mem_get_info(device)[0] // 2 if device.type == "cuda" else SHARD_MEMORY
    example = max(saved // job.batch_size, data.x_train[0].numel() * data.x_train.element_size())
    return max(1, memory // (saved + 4 * weights)), max(1, memory // example)


def _shards(job: _Job, data: Dataset, seeds: Sequence[int], how: str) -> list[_Shard]:
    """Rectangles of the grid that fit into memory, all schedules of a few seeds where possible, of similar sizes."""
    most = _room(job, data)[0]
    if how == "loop" or data.x_train.device.type == "cpu":
        most = min(most, SHARD_REPLICAS)
    columns = list(range(len(job.rates)))

    def split(items, largest):
        return [part.tolist() for part in np.array_split(items, -(-len(items) // largest))]

    parts = [columns] if most >= len(columns) else split(columns, most)
    return [_Shard(part, some) for some in split(seeds, max(1, most // len(columns))) for part in parts]


def _choose(job: _Job, data: Dataset, seeds: Sequence[int], way: str | None) -> tuple[str, int, str]:
    """Batched or loop, the number of workers (0 for this process), and why."""
    backend = get_active_backend()[0]
    given = joblib.effective_n_jobs(None)
    elsewhere = not type(backend).__module__.startswith("joblib._parallel")  # a cluster, even if of one worker
    cluster = given if given > 1 or elsewhere else 0
    on_cpu = data.x_train.device.type == "cpu"
    cores = joblib.cpu_count() if on_cpu else 1
    idle = _idle(cores)
    size = len(job.rates) * len(seeds)
    shard = _shards(job, data, seeds, "batched")[0]

    worth_measuring = size > 1 and size * job.steps >= WORTH_MEASURING
    problem = _problem(job, data, shard) if way == "batched" or (way != "loop" and size > 1) else None
    seconds = {}
    if way == "batched" and problem:
        raise ValueError(f"way={way!r}: must be 'loop', as this model cannot be batched: {problem}")
    if way in ("batched", "loop"):
        how, why = way, "asked for"
    elif size == 1:
        how, why = "loop", "a single run"
    elif problem:
        how, why = "loop", f"the model cannot be batched: {problem}"
        seconds = {"loop": _seconds(job, data, shard, "loop")} if worth_measuring else {}
    elif not worth_measuring:
        how, why = "batched", "too short to measure"
    else:
        seconds = {kind: _seconds(job, data, shard, kind) for kind in ("batched", "loop")}
        how = "batched" if seconds["batched"] < CLEARLY_FASTER * seconds["loop"] else "loop"
        why = f"{seconds['batched'] * 1e6:.0f} µs an update batched, {seconds['loop'] * 1e6:.0f} µs in a loop"

    if cluster:
        return how, cluster, why
    if way == "processes":
        return how, cores, why
    if seconds and idle > 1:
        count = len(_shards(job, data, seeds, how))
        alone = seconds[how] * size * job.steps
        shared = alone * -(-count // idle) / count + WORKER_START
        if shared < alone:
            return how, idle, f"{why}; {shared:.0f} s on {idle} cores against {alone:.0f} s on one"
    return how, 0, why


def _idle(cores: int) -> int:
    """How many of the cores this process can have, by the load of the last minute, which it is itself a part of."""
    try:
        busy = max(0.0, os.getloadavg()[0] - 1)
    except (AttributeError, OSError):  # not on Windows
        busy = 0.0
    return max(1, round(cores - busy))


def _short(job: _Job, steps: int) -> _Job:
    return replace(job, rates=job.rates[:, :steps], eval_every=None)


def _problem(job: _Job, data: Dataset, shard: _Shard) -> str | None:
    """Why two replicas cannot be batched, or None."""
    pair = _Shard(shard.columns[:1], shard.seeds[:2])
    try:
        models = [job.model(seed, data.x_train.device) for seed in pair.seeds]
        Stack(models).losses(data.x_train[None, :2], data.y_train[None, :2], job.loss)
    except (RuntimeError, ValueError, NotImplementedError) as error:
        return str(error).splitlines()[0]
    return None


def _seconds(job: _Job, data: Dataset, shard: _Shard, how: str) -> float:
    """Seconds of one update of one replica, the median over a few after the first."""
    if how == "loop":
        shard = _Shard(shard.columns[:1], shard.seeds[:1])
    steps = min(job.steps, 3 if how == "batched" else 12)
    stamps = []
    _run(_short(job, steps), data, shard, how, lambda _: stamps.append(time.perf_counter()))
    return float(np.median(np.diff(stamps))) / shard.size
