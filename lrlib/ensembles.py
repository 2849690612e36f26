r"""Many models from one run, and what lies between them.

A *state* is what `model.state_dict()` returns: the parameters θ of a network and its buffers, such as the running
statistics of BatchNorm. An ensemble of states predicts with the mean of its members' probabilities. A path joins two
states; a weight average is one state. Where parameters are mixed, the running statistics of BatchNorm no longer
belong to them: :func:`refresh_batchnorm` computes them anew.

No function here writes to the model it is given, but for :func:`refresh_batchnorm`.
"""

import contextlib
import zipfile
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path as FilePath

import numpy as np
import torch
from scipy.spatial.distance import pdist
from torch import nn
from torch.nn import functional as F
from torch.nn.modules.batchnorm import _BatchNorm

from lrlib import _check, runtime
from lrlib.architecture import called, copied
from lrlib.callbacks import Callback, evaluate
from lrlib.data import Dataset
from lrlib.minibatches import check_data
from lrlib.rules import SGD
from lrlib.schedules import Schedule
from lrlib.stack import Stack, check_statistics, wide
from lrlib.training import train

__all__ = [
    "Snapshots", "StatePath", "copy_state", "member_probabilities", "negative_log_likelihood", "disagreement",
    "refresh_batchnorm", "train_path", "path_loss", "barrier",
]  # fmt: skip

State = Mapping[str, torch.Tensor]
HALVES = torch.float16, torch.bfloat16  # too short to hold a mean of many batches while it is made
FORMAT = "lrlib snapshots 2"


def copy_state(model: nn.Module) -> dict[str, torch.Tensor]:
    """A copy of a model's parameters and buffers, on their device, that later training does not touch.

    Of a :class:`~lrlib.Stack` each is (R, ...), under the name that it has in one network.

    Raises:
        TypeError: the model's state holds anything but tensors.

    Example:
        >>> model = nn.Linear(2, 1)
        >>> state = copy_state(model)
        >>> _ = model.weight.data.zero_()
        >>> bool((state["weight"] == 0).all())
        False
    """
    return {name: tensor.detach().clone() for name, tensor in _tensors("model", _state_of(model)).items()}


def _state_of(model: nn.Module) -> State:
    return model.tensors() if isinstance(model, Stack) else model.state_dict()


def _tensors(name: str, state: State) -> State:
    """A state, which must be a mapping from names to tensors."""
    if not isinstance(state, Mapping):
        raise TypeError(f"{name}: is a {type(state).__name__}, must be a state dict")
    for entry, value in state.items():
        if not isinstance(value, torch.Tensor):
            raise TypeError(f"{name}: {entry} is a {type(value).__name__}, must be a tensor")
    return state


def _check_state(name: str, state: State, reference: State, owner: str) -> None:
    """Names and shapes of a state are those of the reference."""
    if differing := sorted(_tensors(name, state).keys() ^ reference.keys()):
        raise ValueError(f"{name}: differs from {owner} in the entries {differing}, must have the same")
    for entry, tensor in reference.items():
        found, allowed = tuple(state[entry].shape), tuple(tensor.shape)
        if found != allowed:
            raise ValueError(f"{name}: {entry} has shape {found}, must be {allowed}, the shape in {owner}")


def _check_states(states: Iterable[State], model: nn.Module) -> list[State]:
    states = list(states)
    if not states:
        raise ValueError("states: is empty, must hold at least one state; was the run shorter than the first snapshot?")
    for k, state in enumerate(states):
        _check_state(f"states[{k}]", state, _state_of(model), "the model")
    return states


class Snapshots(Callback, Sequence):
    """A callback of :func:`lrlib.train` that keeps the state after the given numbers of updates.

    It is a sequence of states in the order in which they were taken. A run that ends early leaves fewer.

    Args:
        at: the numbers of updates done at which to take one, strictly increasing, each >= 1.

    Attributes:
        steps: the numbers of updates done at which states were taken.

    Raises:
        ValueError: `at` is empty or not strictly increasing.

    Source: Huang et al., *Snapshot Ensembles: Train 1, Get M for Free* (2017), at the end of each cosine cycle.

    Example:
        >>> import lrlib
        >>> with lrlib.seeded(0):
        ...     model = lrlib.mlp(64, 16, 10)
        >>> snapshots = Snapshots(at=[10, 20])
        >>> _ = lrlib.train(model, lrlib.digits(), lrlib.cosine_restarts(0.1, 10), steps=20, callbacks=[snapshots])
        >>> len(snapshots), snapshots.steps
        (2, [10, 20])
    """

    def __init__(self, at: Iterable[int]):
        super().__init__(at=_check.increasing("at", at, 1))
        self.steps: list[int] = []
        self._states: list[dict[str, torch.Tensor]] = []

    def __call__(self, run) -> None:
        self.steps.append(run.step)
        self._states.append(copy_state(run.model))

    def __len__(self) -> int:
        return len(self._states)

    def __getitem__(self, index):
        return self._states[index]

    def save(self, file: FilePath | str) -> None:
        """Write the states and their steps to one file; one that is there stays whole until the new one is.

        Raises:
            ValueError: there is no state to write.
        """
        if not self._states:
            raise ValueError("snapshots: is empty, must hold at least one state to be saved")
        taken = list(zip(self.steps, self._states, strict=True))
        with runtime.put_in_place(FilePath(file)) as partial:
            torch.save({"format": FORMAT, "at": sorted(self.at or ()), "taken": taken}, partial)

    @classmethod
    def load(cls, file: FilePath | str, device: torch.device | str = "cpu") -> "Snapshots":
        """Read what :meth:`save` wrote. Only tensors and plain containers are read; no code in the file can run.

        A run that is given them takes further ones at the same numbers of updates.

        Args:
            file: the path.
            device: where to put the tensors.

        Raises:
            FileNotFoundError: there is no such file.
            ValueError: the file is damaged, holds anything else, or holds states of different shapes.
        """
        if not FilePath(file).is_file():
            raise FileNotFoundError(f"{file}: no such file of snapshots; save(...) writes one")
        try:
            with zipfile.ZipFile(file) as archive:
                if broken := archive.testzip():
                    raise zipfile.BadZipFile(f"wrong checksum of {broken}")
            content = torch.load(file, map_location="cpu", weights_only=True)
        except Exception as error:  # damaged lists of a zip file raise errors of every kind
            raise ValueError(f"{file}: is damaged or holds more than tensors ({type(error).__name__})") from error
        parts = {"format", "at", "taken"}
        if not isinstance(content, dict) or not parts <= content.keys() or content["format"] != FORMAT:
            raise ValueError(f"{file}: is not a file of snapshots, must be written by Snapshots.save")
        try:
            loaded, taken = cls(content["at"]), content["taken"]
            for k, (step, state) in enumerate(taken):
                _check_state(f"states[{k}]", state, taken[0][1], "states[0]")
                if not state:
                    raise ValueError(f"states[{k}]: is empty, must hold tensors")
                loaded.steps.append(_check.integer(f"steps[{k}]", step, 1))
                loaded._states.append({name: tensor.to(device) for name, tensor in state.items()})
        except (KeyError, TypeError, ValueError) as error:
            raise ValueError(f"{file}: {error}") from error
        return loaded


@torch.no_grad()
def refresh_batchnorm(model: nn.Module, x: torch.Tensor, batch_size: int = 500) -> None:
    """Compute the running statistics of every BatchNorm layer anew, as means over batches of `x`, in place.

    Needed after parameters were averaged or interpolated. A network without BatchNorm is left as it is. An incomplete
    last batch is left out, as each batch has the same weight.

    Args:
        model: a network or a :class:`~lrlib.Stack`, whose statistics are written, but stay where its forward pass
            fails; parameters, other buffers and training modes stay.
        x: training inputs, shape (N, ...), N >= 2.
        batch_size: B, >= 2; a large one, since the spread between batch means is not part of the variance.

    Raises:
        ValueError: fewer than two inputs, or a batch size below 2.

    Source: as `torch.optim.swa_utils.update_bn`; the k-th batch enters with the momentum 1/k, which gives the mean.

    Example:
        >>> norm = nn.BatchNorm1d(1)
        >>> refresh_batchnorm(norm, torch.tensor([[1.0], [3.0]]))
        >>> norm.running_mean.item(), norm.running_var.item()
        (2.0, 2.0)
    """
    batch_size = _check.integer("batch_size", batch_size, 2)
    if len(x) < 2:
        raise ValueError(f"x: has {len(x)} inputs, must have at least 2")
    whole = len(x) // batch_size * batch_size or len(x)
    layers = model.template if isinstance(model, Stack) else model
    norms = {name: m for name, m in layers.named_modules() if isinstance(m, _BatchNorm) and m.track_running_stats}
    parts = ("running_mean", "running_var", "num_batches_tracked")

    def statistics() -> list[torch.Tensor]:
        places = ((*name.rpartition(".")[::2], s) for name, s in _state_of(model).items())
        return [s for layer, part, s in places if layer in norms and part in parts]

    own = statistics()
    with runtime.modes_kept(model), runtime.buffers_kept(model), contextlib.ExitStack() as restored:
        new = statistics()
        halves = [s for s in new if s.dtype in HALVES]
        means = [half.float() for half in halves]
        for s in new:
            s.zero_()
        for norm in norms.values():
            restored.callback(setattr, norm, "momentum", norm.momentum)
        model.train()
        for k, xs in enumerate(x[:whole].split(batch_size) if norms else (), 1):
            for norm in norms.values():
                norm.momentum = 1.0 if next(norm.buffers()).dtype in HALVES else 1 / k
            _outputs(model, xs)
            for mean, half in zip(means, halves, strict=True):
                mean.lerp_(half.float(), 1 / k)
    for mean, half in zip(means, halves, strict=True):
        half.copy_(mean)
    for s, value in zip(own, new, strict=True):
        s.copy_(value)


def _outputs(model: nn.Module, x: torch.Tensor) -> torch.Tensor:
    return model(x[None]) if isinstance(model, Stack) else model(x)


@torch.no_grad()
def member_probabilities(
    model: nn.Module, states: Iterable[State], x: torch.Tensor, batch_size: int = 2000
) -> torch.Tensor:
    r"""The class probabilities that each state gives to each input; their mean over members is the ensemble's.

    .. math:: p(y \mid x) = \frac1M \sum_{m=1}^M \operatorname{softmax}(f(x; \theta_m))_y

    Args:
        model: the architecture, from (N, ...) to logits (N, classes).
        states: M >= 1 states of this architecture, such as :class:`Snapshots`.
        x: inputs, shape (N, ...).
        batch_size: inputs per forward pass, >= 1.

    Returns:
        Shape (M, N, classes), or (M, R, N, classes) of a :class:`~lrlib.Stack`; ``.mean(0)`` is the ensemble's
        prediction.

    Raises:
        ValueError: no state, one whose entries or shapes are not the model's (the message names it), a model that
            cannot be copied, or outputs that are no logits of two or more classes.

    Example:
        >>> model = nn.Linear(2, 2)
        >>> members = member_probabilities(model, [copy_state(model)] * 3, torch.ones(5, 2))
        >>> members.shape, bool(torch.allclose(members.mean(0).sum(1), torch.ones(5)))
        (torch.Size([3, 5, 2]), True)
    """
    states = _check_states(states, model)
    check_data(x, x)
    batch_size = _check.integer("batch_size", batch_size, 1)
    check_statistics(model, len(x), batch_size)
    worker = copied(model).eval()
    load = worker.load if isinstance(worker, Stack) else worker.load_state_dict
    members = []
    for state in states:
        load(state)
        examples = 1 if isinstance(worker, Stack) else 0
        logits = torch.cat([wide(_outputs(worker, xs)) for xs in x.split(batch_size)], dim=examples)
        if logits.ndim != examples + 2 or logits.shape[-1] < 2:
            shape = tuple(logits.shape)
            raise ValueError(f"model: has outputs of shape {shape}, must give logits (N, classes) of 2 classes or more")
        if (logits >= 0).all() and ((logits.sum(-1) - 1).abs() < 1e-3).all():
            raise ValueError("model: gives probabilities, must give logits, before the softmax")
        members.append(logits.softmax(-1))
    return torch.stack(members)


def negative_log_likelihood(probabilities: torch.Tensor, y: torch.Tensor) -> float:
    r"""The mean of :math:`-\log p(y_n \mid x_n)`: cross-entropy for who has probabilities, not logits.

    A probability of 0 counts as the smallest normal number of its type, so that the mean is finite: a right label costs
    87.3 then in float32, 708.4 in float64.

    Args:
        probabilities: shape (N, classes).
        y: labels, shape (N,).

    Raises:
        ValueError: shapes do not fit, these are no probabilities, or a label is none of the classes.

    Example:
        >>> round(negative_log_likelihood(torch.tensor([[0.5, 0.5]]), torch.tensor([0])), 4)
        0.6931
    """
    if probabilities.ndim != 2 or y.shape != probabilities.shape[:1] or len(y) == 0:
        raise ValueError(f"probabilities, y: have {probabilities.shape} and {y.shape}, must be (N >= 1, classes), (N,)")
    if not ((probabilities >= 0).all() and ((probabilities.sum(1) - 1).abs() < 0.01).all()):
        raise ValueError("probabilities: are negative or do not add up to 1, must be probabilities, not logits")
    classes = probabilities.shape[1]
    whole = y.dtype != torch.bool and not (y.is_floating_point() or y.is_complex())
    if not whole or not ((y >= 0) & (y < classes)).all():
        raise ValueError(f"y: is {y.dtype} from {y.min()} to {y.max()}, must be whole numbers in [0, {classes - 1}]")
    return F.nll_loss(probabilities.double().clamp_min(torch.finfo(probabilities.dtype).tiny).log(), y.long()).item()


def disagreement(members: torch.Tensor) -> float:
    """The share of inputs on which two members predict different classes, averaged over all pairs of members.

    Args:
        members: probabilities, shape (M, N, classes), M >= 2.

    Raises:
        ValueError: another shape, fewer than two members, or NaN.

    Source: Fort et al., *Deep Ensembles: A Loss Landscape Perspective* (2019).

    Example:
        >>> disagreement(torch.tensor([[[0.9, 0.1], [0.9, 0.1]], [[0.8, 0.2], [0.3, 0.7]]]))
        0.5
    """
    if members.ndim != 3 or len(members) < 2 or members.isnan().any():
        raise ValueError(f"members: has shape {tuple(members.shape)}, must be (M >= 2, N, classes), without NaN")
    return float(pdist(members.argmax(dim=2).cpu().numpy(), "hamming").mean())


@dataclass(frozen=True, eq=False)
class StatePath:
    r"""A path between two states of one network: a line, or a curve towards a control point.

    .. math:: \theta(t) = (1 - t)^2\,\theta_a + 2t(1 - t)\,\theta_c + t^2\,\theta_b

    A parameter without a control point goes along the line, on which :math:`\theta_c` is the middle of the ends. So do
    buffers of floating point; see :func:`path_loss`.

    Attributes:
        start, end: the states at t = 0 and t = 1.
        control: the parameters θ_c by name; none for a line.

    Raises:
        ValueError: the states differ in entries or shapes, or a control point is of no parameter of theirs.

    Source: Garipov et al., *Loss Surfaces, Mode Connectivity, and Fast Ensembling of DNNs* (2018).

    Example:
        >>> a, b = {"w": torch.tensor([0.0])}, {"w": torch.tensor([1.0])}
        >>> StatePath(a, b).at(0.25)["w"].item()
        0.25
        >>> StatePath(a, b, {"w": torch.tensor([3.0])}).at(0.5)["w"].item()
        1.75
    """

    start: State = field(repr=False)
    end: State = field(repr=False)
    control: State = field(default_factory=dict, repr=False)

    def __post_init__(self):
        _check_state("end", self.end, self.start, "start")
        _check_state("control", {**self.start, **self.control}, self.start, "start")

    def at(self, t: float) -> dict[str, torch.Tensor]:
        """The state at t in [0, 1].

        Raises:
            ValueError: t is out of its range.
        """
        return self._mixed(torch.tensor(_check.within("t", t, 0.0, 1.0), dtype=torch.float64))

    def _mixed(self, t: torch.Tensor) -> dict[str, torch.Tensor]:
        """Of a tensor of whole numbers the start's."""
        state = {}
        for name, a in self.start.items():
            near, far = a, self.end[name]
            if name in self.control:
                near, far = near.lerp(self.control[name], t.to(a)), self.control[name].lerp(far, t.to(a))
            state[name] = near.lerp(far, t.to(a)) if a.is_floating_point() else a.clone()
        return state


class _Bent(nn.Module):
    """A network at a random place of a path, whose control point is all that is trained."""

    def __init__(self, model: nn.Module, path: StatePath):
        super().__init__()
        self._net, self._path = [copied(model).train()], path
        with torch.no_grad():
            for p in self._net[0].parameters():
                p.fill_(torch.nan)  # so that a use of its own ones is seen
        self._control = nn.ParameterList(path.control.values())

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return called(self._net[0], self._path._mixed(torch.rand((), device=x.device)), x)


def train_path(
    model: nn.Module,
    start: State,
    end: State,
    data: Dataset,
    schedule: Schedule,
    *,
    steps: int,
    batch_size: int = 64,
    seed: int = 0,
) -> StatePath:
    r"""Bend a path between two states, whose ends stay fixed, until the loss along it is low.

    The control point :math:`\theta_c` begins in the middle of the line. Update k draws a place t uniformly from [0, 1]
    and takes the gradient of the mini-batch loss at :math:`\theta(t)` with respect to :math:`\theta_c`: an unbiased
    estimate of that of :math:`\int_0^1 L(\theta(t))\,dt`. BatchNorm uses the statistics of the batch.

    Args:
        model: the architecture; of its tensors only those that no state holds, its non-persistent buffers, are read.
        start, end: states θ_a and θ_b.
        data: mini-batches are drawn from its training part.
        schedule: the rate of the update of θ_c.
        steps: the number of updates, >= 1.
        batch_size: of SGD with the momentum 0.9.
        seed: of the batches and of the places t.

    Raises:
        ValueError: states that do not fit the model, an argument out of its range, or a loss that is not finite.

    Source: Garipov et al. (2018), section 3.

    Example:
        >>> import lrlib
        >>> states = []
        >>> for seed in (0, 1):
        ...     with lrlib.seeded(seed):
        ...         states.append(copy_state(lrlib.mlp(64, 16, 10)))
        >>> model = lrlib.mlp(64, 16, 10)
        >>> sorted(train_path(model, *states, lrlib.digits(), lrlib.constant(0.1), steps=3).control)
        ['1.bias', '1.weight', '3.bias', '3.weight']
    """
    start, end = _check_states([start, end], model)
    control, own = {}, dict[nn.Parameter, nn.Parameter]()  # one control point for all names of a tied parameter
    for name, p in model.named_parameters(remove_duplicate=False):
        if p.requires_grad:
            control[name] = own.setdefault(p, nn.Parameter((start[name] + end[name]) / 2))
    bent, rule = _Bent(model, StatePath(start, end, control)), SGD(momentum=0.9)
    examples = data.x_train, data.y_train
    history = train(bent, examples, schedule, steps=steps, batch_size=batch_size, optimizer=rule, seed=seed)
    if history.diverged_at == 0:
        raise ValueError(
            "model: has a loss that is not finite on the path, or a parameter reached by another way than name"
        )
    if history.diverged_at is not None:
        raise ValueError(f"schedule={schedule!r}: the loss of the path is not finite, lower the rate")
    return StatePath(start, end, {name: p.detach() for name, p in control.items()})


def path_loss(
    model: nn.Module,
    path: StatePath,
    x: torch.Tensor,
    y: torch.Tensor,
    positions: Sequence[float],
    *,
    refresh: torch.Tensor | None = None,
) -> tuple[np.ndarray, np.ndarray]:
    """Mean loss and accuracy in evaluation mode at places along a path.

    Args:
        model: the architecture.
        path: between two states of it.
        x, y: inputs and labels, shape (N, ...) and (N,).
        positions: P places t in [0, 1].
        refresh: training inputs with which BatchNorm's statistics are computed anew at every place
            (:func:`refresh_batchnorm`); None evaluates with the interpolated, stale ones.

    Returns:
        Losses and accuracies, each of shape (P,).

    Raises:
        ValueError: states that do not fit the model, or a place out of [0, 1].

    Example:
        >>> model = nn.Linear(2, 2, bias=False)
        >>> zero, one = {"weight": torch.zeros(2, 2)}, {"weight": torch.eye(2)}
        >>> loss, _ = path_loss(model, StatePath(zero, one), torch.eye(2), torch.arange(2), [0.0, 1.0])
        >>> loss.round(4)
        array([0.6931, 0.3133])
    """
    _check_states([path.start], model)
    worker = copied(model)
    measured = np.empty((2, len(positions)))
    for k, t in enumerate(positions):
        worker.load_state_dict(path.at(t))
        if refresh is not None:
            with runtime.seeded(0):
                refresh_batchnorm(worker, refresh)
        measured[:, k] = evaluate(worker, x, y)
    return measured[0], measured[1]


def barrier(positions: Sequence[float], loss: Sequence[float]) -> float:
    r"""How high a path climbs above the straight line between the losses at its ends.

    .. math:: \max_t \left[L(\theta(t)) - (1 - t)\,L(\theta(0)) - t\,L(\theta(1))\right] \ge 0

    Args:
        positions: ascending from 0 to 1, at least two.
        loss: at these places.

    Raises:
        ValueError: the places do not ascend from 0 to 1, or are not as many as the losses.

    Source: Entezari et al., *The Role of Permutation Invariance in Linear Mode Connectivity of Neural Networks* (2022),
    after Frankle et al., *Linear Mode Connectivity and the Lottery Ticket Hypothesis* (2020), who subtract the mean of
    the ends' errors.

    Example:
        >>> barrier([0.0, 0.5, 1.0], [1.0, 5.0, 3.0])
        3.0
    """
    t, height = np.asarray(positions, dtype=np.float64), np.asarray(loss, dtype=np.float64)
    if t.ndim != 1 or len(t) < 2 or t[0] != 0 or t[-1] != 1 or (np.diff(t) <= 0).any() or height.shape != t.shape:
        raise ValueError(f"positions={positions!r}: must ascend from 0 to 1, one for each of {height.size} losses")
    return float((height - (1 - t) * height[0] - t * height[-1]).max())
