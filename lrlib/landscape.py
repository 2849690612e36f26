r"""The loss along lines and planes through parameter space, and paths projected onto them.

A point is :math:`\theta + c_1 u_1 + \dots + c_m u_m`. A direction u is a tensor of shape (d,): one number for each
trainable parameter, in the order of `model.parameters()`, each one flattened. Networks are evaluated in evaluation
mode. The model itself is never written to: its parameters, buffers and modes are the same bits afterwards, also when
something fails on the way.
"""

import contextlib
import copy
import queue
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
import torch
from torch import nn
from torch.func import functional_call, vmap
from torch.nn import functional as F
from tqdm import tqdm

from lrlib import _check, runtime

__all__ = [
    "Line",
    "Plane",
    "Projection",
    "parameter_vector",
    "filter_normalised",
    "random_direction",
    "pca_directions",
    "project",
    "loss_line",
    "loss_between",
    "loss_plane",
    "plane_curvature",
    "negative_curvature",
    "draw_plane",
    "draw_surface",
    "draw_path",
]

Loss = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]
Method = Callable[[torch.Tensor, Callable[[int], object]], torch.Tensor]  # coefficients and a tick, to losses
BATCHED_EXAMPLES = 8192  # points times examples in one batched evaluation, at most
BATCHED_POINTS = 16
LOOP_POINTS = 8  # that a thread takes at a time
PROBED_POINTS = 4  # at a time, to find the faster way
CACHE_BYTES = 2**28  # of first-layer outputs, kept for a whole line or plane


@dataclass(frozen=True)
class Line:
    """Losses along a line: `position` (P,), `loss` (P,), and the `method` that was faster, "batched" or "loop"."""

    position: np.ndarray
    loss: np.ndarray
    method: str


@dataclass(frozen=True)
class Plane:
    """Losses over a plane.

    Attributes:
        a: coefficients of the first direction, shape (A,), ascending.
        b: coefficients of the second direction, shape (B,), ascending.
        loss: shape (B, A): ``loss[i, j]`` is that at θ + a[j] u₁ + b[i] u₂. It may hold NaN and infinity.
        method: the one that was faster, "batched" or "loop".
    """

    a: np.ndarray
    b: np.ndarray
    loss: np.ndarray
    method: str


@dataclass(frozen=True)
class Projection:
    """A path as seen from a plane (or a line, m = 1).

    Attributes:
        coordinates: of the nearest points of the plane, shape (T, m).
        distance: from each point of the path to the plane, shape (T,).
        explained: the share of the summed squared distances from the plane's origin that lies in the plane, in [0, 1].
    """

    coordinates: np.ndarray
    distance: np.ndarray
    explained: float


def _trainable(model: nn.Module) -> dict[str, nn.Parameter]:
    parameters = {name: p for name, p in model.named_parameters() if p.requires_grad}
    if not parameters:
        raise ValueError("model: must have a parameter that requires a gradient")
    if len({(p.dtype, p.device) for p in parameters.values()}) > 1:
        raise ValueError("model: has parameters of several dtypes or devices, must be of one")
    return parameters


def parameter_vector(model: nn.Module) -> torch.Tensor:
    """A copy of all trainable parameters as one vector, shape (d,).

    Example:
        >>> parameter_vector(nn.Linear(3, 2)).shape
        torch.Size([8])
    """
    return torch.cat([p.detach().reshape(-1) for p in _trainable(model).values()])


def _check_directions(name: str, directions, model: nn.Module, m: int) -> torch.Tensor:
    """m vectors of shape (d,) as one tensor (m, d)."""
    theta = parameter_vector(model)
    rows = list(directions)
    if len(rows) != m or any(not isinstance(u, torch.Tensor) or u.shape != theta.shape for u in rows):
        raise ValueError(f"{name}: must be {m} tensor(s) of shape ({len(theta)},), one number a trainable parameter")
    rows = torch.stack(rows).detach().to(theta)
    if not torch.isfinite(rows).all():
        raise ValueError(f"{name}: must be finite")
    return rows


def filter_normalised(direction: torch.Tensor, model: nn.Module, vectors: str = "zero") -> torch.Tensor:
    r"""A direction whose filters have the norms of the model's own filters.

    .. math:: u_{\ell,i} \leftarrow \frac{u_{\ell,i}}{\|u_{\ell,i}\|}\, \|\theta_{\ell,i}\|

    A filter is what feeds one output of a layer: a row of a linear layer's weight, an output channel of a convolution.
    Each is normalised once. Parameters with one dimension, biases and the scales and shifts of normalisation layers,
    are no filters, and what becomes of them is a choice.

    Args:
        direction: u, shape (d,).
        model: whose parameters θ are.
        vectors: for one-dimensional parameters: "zero" leaves them where they are, "whole" scales each to the norm of
            the model's parameter as one filter, "entry" treats every number as a filter: its sign is kept, its size is
            the parameter's.

    Raises:
        ValueError: a direction of another shape, or an unknown choice.

    Source: Li et al., Visualizing the Loss Landscape of Neural Nets, NeurIPS (2018), who use "zero".

    Example:
        >>> model = nn.Linear(2, 2)
        >>> with torch.no_grad():
        ...     _ = model.weight.copy_(torch.tensor([[3.0, 4.0], [0.0, 1.0]]))
        >>> filter_normalised(torch.ones(6), model)[:4].reshape(2, 2).norm(dim=1)
        tensor([5.0000, 1.0000])
    """
    _check.choice("vectors", vectors, ("zero", "whole", "entry"))
    (direction,) = _check_directions("direction", [direction], model, 1)
    parts = []
    parameters = [p.detach() for p in _trainable(model).values()]
    for u, p in zip(direction.split([p.numel() for p in parameters]), parameters, strict=True):
        if p.ndim >= 2:
            u, filters = u.reshape(len(p), -1), p.reshape(len(p), -1)
        elif vectors == "zero":
            u, filters = torch.zeros_like(u)[None], torch.zeros_like(p).reshape(1, -1)
        else:
            shape = (1, -1) if vectors == "whole" else (-1, 1)
            u, filters = u.reshape(shape), p.reshape(shape)
        norm = u.norm(dim=1, keepdim=True)
        factor = filters.norm(dim=1, keepdim=True) / torch.where(norm > 0, norm, torch.ones_like(norm))
        parts.append((u * factor).reshape(-1))
    return torch.cat(parts)


def random_direction(
    model: nn.Module, seed: int = 0, *, normalise: str | None = "filter", vectors: str = "zero"
) -> torch.Tensor:
    """A direction of independent normal numbers, of the filters' own sizes unless asked otherwise.

    Args:
        model: whose trainable parameters it is for.
        seed: of the numbers, >= 0; they are drawn on the CPU in float64 and do not depend on the model's values.
        normalise: "filter" as :func:`filter_normalised`, or None: then the numbers are returned as drawn, and
            `vectors` must be "zero" (one-dimensional parameters stay) or "entry" (they move too).
        vectors: as for :func:`filter_normalised`.

    Returns:
        Shape (d,).

    Raises:
        ValueError: an argument is out of its range.

    Example:
        >>> model = nn.Linear(3, 2)
        >>> u = random_direction(model, seed=1)
        >>> torch.allclose(u[:3].norm(), model.weight[0].norm()), u[6:].tolist()
        (True, [0.0, 0.0])
    """
    _check.choice("normalise", normalise, ("filter", None))
    _check.choice("vectors", vectors, ("zero", "whole", "entry") if normalise else ("zero", "entry"))
    theta = parameter_vector(model)
    generator = torch.Generator().manual_seed(_check.integer("seed", seed, 0))
    direction = torch.randn(len(theta), generator=generator, dtype=torch.float64).to(theta)
    if normalise == "filter":
        return filter_normalised(direction, model, vectors)
    if vectors == "zero":
        sizes = [(p.numel(), p.ndim) for p in _trainable(model).values()]
        direction *= torch.cat([torch.full((size,), float(ndim >= 2)) for size, ndim in sizes]).to(theta)
    return direction


def pca_directions(path: Sequence[torch.Tensor], m: int = 2) -> tuple[torch.Tensor, np.ndarray]:
    r"""The m orthonormal directions through a path's last point that hold most of the path.

    The leading right singular vectors of the matrix with rows :math:`\theta_t - \theta_T`.

    Args:
        path: T + 1 vectors of shape (d,), such as copies by :func:`parameter_vector`; more than m.
        m: how many, >= 1.

    Returns:
        Directions, shape (m, d), and the share of the summed squares that each explains, shape (m,).

    Raises:
        ValueError: the path is too short or does not move.

    Source: Li et al. (2018), section 7.

    Example:
        >>> path = [torch.tensor([3.0, 0.0, 0.0]), torch.tensor([0.0, 1.0, 0.0]), torch.zeros(3)]
        >>> pca_directions(path, 1)[1].round(6)
        array([0.9])
    """
    m = _check.integer("m", m, 1)
    if len(path) <= m:
        raise ValueError(f"path: has {len(path)} points, must have more than m={m}")
    stack = torch.stack(list(path)).detach()
    rows = (stack - stack[-1]).double()
    _, sizes, directions = torch.linalg.svd(rows, full_matrices=False)
    total = (sizes**2).sum()
    if not torch.isfinite(total) or total == 0:
        raise ValueError("path: must be finite and move")
    return directions[:m].to(stack), (sizes[:m] ** 2 / total).cpu().numpy()


def project(path: Sequence[torch.Tensor], origin: torch.Tensor, directions: Sequence[torch.Tensor]) -> Projection:
    """Where a path is nearest to a plane, how far from it, and how much of it the plane explains.

    Args:
        path: T vectors of shape (d,), at least one.
        origin: of the plane, shape (d,).
        directions: m linearly independent vectors of shape (d,); they need not be orthogonal.

    Raises:
        ValueError: shapes disagree, or the directions are linearly dependent.

    Example:
        >>> path = [torch.tensor([2.0, 1.0, 2.0])]
        >>> p = project(path, torch.zeros(3), [torch.tensor([1.0, 0.0, 0.0]), torch.tensor([0.0, 2.0, 0.0])])
        >>> p.coordinates.round(6).tolist(), p.distance.round(6).tolist(), round(p.explained, 4)
        ([[2.0, 0.5]], [2.0], 0.5556)
    """
    columns = torch.stack(list(directions)).detach().double().T
    rows = torch.stack(list(path)).detach().double()
    if rows.ndim != 2 or origin.shape != rows.shape[1:] or columns.shape[0] != rows.shape[1]:
        raise ValueError(
            f"path, origin, directions: have shapes {tuple(rows.shape)}, {tuple(origin.shape)}, "
            f"{tuple(columns.T.shape)}, must be (T, d), (d,), (m, d)"
        )
    q, r = torch.linalg.qr(columns)
    diagonal = r.diagonal().abs()
    if not diagonal.min() > 1e-10 * diagonal.max():
        raise ValueError("directions: must be linearly independent")
    rows = rows - origin.detach().double()
    inside = rows @ q
    distance = (rows - inside @ q.T).norm(dim=1)
    total = (rows**2).sum()
    explained = 1.0 if total == 0 else float(1 - (distance**2).sum() / total)
    return Projection(torch.linalg.solve(r, inside.T).T.cpu().numpy(), distance.cpu().numpy(), explained)


def _cross_entropy(logits: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    """F.cross_entropy; on a CPU the softmax of few classes is about five times as fast along the columns."""
    if logits.ndim == 2 and y.ndim == 1:
        logits, y = logits.T[None], y[None]
    return F.cross_entropy(logits, y)


class _Evaluator:
    """Losses of a model at θ + C U for coefficients C (P, m) and directions U (m, d), by functional calls."""

    def __init__(self, model, directions, x, y, loss, batch_size, recompute):
        if len(x) == 0 or len(x) != len(y):
            raise ValueError(f"x, y: have lengths {len(x)} and {len(y)}, must be equal and >= 1")
        self.model, self.directions = model, directions
        self.loss = _cross_entropy if loss is F.cross_entropy else loss
        self.parameters = _trainable(model)
        self.theta = parameter_vector(model)
        self.sizes = [p.numel() for p in self.parameters.values()]
        self.chunks = list(zip(x.split(batch_size), y.split(batch_size), strict=True))
        self.weights = [len(xs) / len(x) for xs, _ in self.chunks]
        self.norms = [m for m in model.modules() if isinstance(m, nn.modules.batchnorm._BatchNorm)]
        self.recompute = recompute and any(m.running_mean is not None for m in self.norms)
        self.here = threading.local()  # coefficients and chunk in evaluation, for the first layer's shortcut

    def views(self, vector: torch.Tensor) -> dict[str, torch.Tensor]:
        pieces = vector.split(self.sizes)
        return {name: v.view(p.shape) for (name, p), v in zip(self.parameters.items(), pieces, strict=True)}

    def mean_loss(self, values: dict[str, torch.Tensor], model: nn.Module | None = None) -> torch.Tensor:
        """At these parameters and buffers; they may be in `model` already."""
        total = 0.0
        for i, ((x, y), weight) in enumerate(zip(self.chunks, self.weights, strict=True)):
            self.here.chunk = i
            out = functional_call(self.model, values, (x,)) if model is None else model(x)
            total = total + weight * self.loss(out, y)
        return total

    def at(self, c: torch.Tensor) -> torch.Tensor:
        """The loss at one point."""
        self.here.coefficients = c
        return self.scalar(self.mean_loss(self.views(self.theta + c @ self.directions)))

    def scalar(self, value: torch.Tensor) -> torch.Tensor:
        if value.numel() != 1:
            raise ValueError(f"loss: returned shape {tuple(value.shape)}, must return a scalar, the mean over examples")
        return value.reshape(())

    def fresh_statistics(self, values: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        """Running means and variances of BatchNorm layers: averages over the chunks, at these parameters."""
        buffers = {name: b.clone() for name, b in self.model.named_buffers()}
        for name, module in self.model.named_modules():
            if module in self.norms and module.running_mean is not None:
                buffers[f"{name}.running_mean".lstrip(".")].zero_()
                buffers[f"{name}.running_var".lstrip(".")].fill_(1)
                buffers[f"{name}.num_batches_tracked".lstrip(".")].zero_()
        for m in self.norms:
            m.training = True
        momenta = [m.momentum for m in self.norms]
        try:
            for m in self.norms:
                m.momentum = None
            for i, (x, _) in enumerate(self.chunks):
                self.here.chunk = i
                functional_call(self.model, (values, buffers), (x,))
        finally:
            for m, momentum in zip(self.norms, momenta, strict=True):
                m.training, m.momentum = False, momentum
        return buffers

    @contextlib.contextmanager
    def looping(self) -> Iterator[Method]:
        """Gives, for the block, the method that goes from point to point.

        On a CPU it does so in as many threads as PyTorch would use inside of one point: whole points in parallel are
        faster than parts of one. Each thread has a copy of the model that lives in one vector: plain calls are faster
        than functional ones.
        """
        walkers = [_Walker(self)]
        if self.theta.device.type == "cpu" and walkers[0].double is not None:
            walkers += [_Walker(self) for _ in range(torch.get_num_threads() - 1)]

        def method(walk: Callable[[Sequence[torch.Tensor]], Iterator[torch.Tensor]]) -> Method:
            def loop(coefficients, tick):
                points = min(LOOP_POINTS, -(-len(coefficients) // len(walkers)))
                values = []
                for losses in walk(coefficients.split(points)):
                    values.append(losses)
                    tick(len(losses))
                return torch.cat(values)

            return loop

        if len(walkers) == 1:
            yield method(lambda pieces: map(walkers[0].losses, pieces))
            return

        free: queue.SimpleQueue[_Walker] = queue.SimpleQueue()
        for walker in walkers:
            free.put(walker)

        def walk(some):
            walker = free.get()
            try:
                return walker.losses(some)
            finally:
                free.put(walker)

        threads = torch.get_num_threads()
        pool = ThreadPoolExecutor(len(walkers), initializer=torch.set_num_threads, initargs=(1,))
        try:
            yield method(lambda pieces: pool.map(walk, pieces))
        finally:
            pool.shutdown(cancel_futures=True)
            torch.set_num_threads(threads)

    def batched(self, coefficients: torch.Tensor, points: int, tick: Callable[[int], object]) -> torch.Tensor:
        values = []
        for some in coefficients.split(points):
            values.append(vmap(self.at)(some))
            tick(len(some))
        return torch.cat(values)

    @contextlib.contextmanager
    def first_layer_shared(self) -> Iterator[None]:
        """Within the block, a first linear layer is computed m + 1 times, not at every point.

        The layer is one that is called once, on an input that does not depend on the parameters. Then its output at a
        point is its output at θ plus the coefficients times its outputs, on the same input, at the directions. For a
        convolution of pictures this was not faster on a CPU: it has few input channels, and its layout gets lost.
        """
        name, layer, inputs = self.first_layer()
        outputs = [] if layer is None else self.first_outputs(name, layer, inputs)
        del inputs
        if not outputs:
            yield
            return

        def forward(_):
            base, *moved = outputs[self.here.chunk]
            for c, out in zip(self.here.coefficients.unbind(-1), moved, strict=True):
                base = torch.addcmul(base, out, c)
            return base

        layer.forward = forward
        try:
            yield
        finally:
            del layer.forward

    def first_layer(self) -> tuple[str, nn.Module | None, list[torch.Tensor]]:
        """Its name, the layer and its input for every chunk; None where there is none of the kind."""
        candidates = {
            name: m
            for name, m in self.model.named_modules()
            if type(m) is nn.Linear and "forward" not in vars(m) and not m._forward_hooks and not m._forward_pre_hooks
        }
        trainable = {id(p) for p in self.parameters.values()}
        candidates = {n: m for n, m in candidates.items() if all(id(p) in trainable for p in m.parameters())}
        seen: list[tuple[str, torch.Tensor]] = []
        handles = [
            m.register_forward_pre_hook(lambda _, args, name=name: seen.append((name, args[0])))
            for name, m in candidates.items()
        ]
        try:
            passes = []
            for factor in (0.0, 0.7):  # at θ and at another point of the plane
                values = self.views(self.theta + factor * self.directions.sum(0))
                for x, _ in self.chunks:
                    functional_call(self.model, values, (x,))
                passes.append(list(seen))
                seen.clear()
        finally:
            for handle in handles:
                handle.remove()
        here, there = passes
        first = here[0][0] if here else None
        inputs = [tensor for name, tensor in here if name == first]
        others = [tensor for name, tensor in there if name == first]
        if len(inputs) != len(self.chunks) or not all(map(torch.equal, inputs, others)):
            return "", None, []
        return first, candidates[first], inputs

    def first_outputs(self, name, layer, inputs) -> list[torch.Tensor]:
        """For every chunk (m + 1, ...): the output at θ, then at the directions; none where that is too much memory."""
        outputs, limit = [], CACHE_BYTES / len(inputs)
        for tensor in inputs:
            at = []
            for vector in (self.theta, *self.directions):
                views = self.views(vector)
                own = {key: views[f"{name}.{key}".lstrip(".")] for key, _ in layer.named_parameters()}
                at.append(functional_call(layer, own, (tensor,)))
                if len(at) == 1 and (1 + len(self.directions)) * at[0].numel() * at[0].element_size() > limit:
                    return []
            outputs.append(torch.stack(at))
        return outputs


class _Walker:
    """A copy of the evaluator's model that lives in one vector, to go from point to point in a thread of its own."""

    def __init__(self, evaluator: _Evaluator):
        self.evaluator, self.vector = evaluator, evaluator.theta.clone()
        self.views, self.double = evaluator.views(self.vector), None
        if evaluator.recompute:
            return
        try:
            self.double = copy.deepcopy(evaluator.model)
        except RuntimeError:  # a model that keeps computed tensors cannot be copied
            return
        for name, p in self.double.named_parameters():
            if name in self.views:
                p.data = self.views[name]

    @torch.no_grad()  # which holds for a thread
    def losses(self, coefficients: torch.Tensor) -> torch.Tensor:
        evaluator, values = self.evaluator, []
        for c in coefficients:
            torch.addmv(evaluator.theta, evaluator.directions.T, c, out=self.vector)
            evaluator.here.coefficients = c
            fresh = evaluator.fresh_statistics(self.views) if evaluator.recompute else {}
            values.append(evaluator.scalar(evaluator.mean_loss(self.views | fresh, self.double)))
        return torch.stack(values)


def _losses(model, x, y, directions, coefficients, loss, batch_size, batch_norm, method, what) -> tuple:
    """The losses of all points, shape (P,), and the method."""
    batch_size = _check.integer("batch_size", batch_size, 1)
    _check.choice("batch_norm", batch_norm, ("keep", "recompute"))
    _check.choice("method", method, ("auto", "batched", "loop"))
    with torch.no_grad(), runtime.modes_kept(model):
        model.eval()
        evaluator = _Evaluator(model, directions, x, y, loss, batch_size, batch_norm == "recompute")
        coefficients = torch.as_tensor(coefficients).to(evaluator.theta)
        points = min(BATCHED_POINTS, max(1, BATCHED_EXAMPLES // len(evaluator.chunks[0][0])))
        if evaluator.recompute:
            if method == "batched":
                raise ValueError("method='batched': must be 'loop' or 'auto' where BatchNorm statistics are recomputed")
            method = "loop"
        with (
            evaluator.first_layer_shared(),
            contextlib.nullcontext() if method == "batched" else evaluator.looping() as loop,
            tqdm(total=len(coefficients), desc=what, unit="point", leave=False, disable=None) as bar,
        ):
            if method == "auto":
                values, method = _auto(evaluator, loop, coefficients, points, bar.update)
            elif method == "batched":
                values = evaluator.batched(coefficients, points, bar.update)
            else:
                values = loop(coefficients, bar.update)
    return values.double().cpu().numpy(), method


def _auto(evaluator: _Evaluator, loop: Method, coefficients: torch.Tensor, points: int, tick) -> tuple:
    """Each way does some of the first points, whose losses are kept, and the faster one does the rest."""
    if points < PROBED_POINTS or len(coefficients) < 16 * PROBED_POINTS:
        return loop(coefficients, tick), "loop"
    values, seconds = [], {"batched": [], "loop": []}
    turns = ("loop", "loop", "batched", "batched")  # the first call of each also prepares
    for some, method in zip(coefficients.split(PROBED_POINTS), turns, strict=False):
        start = time.perf_counter()
        if method == "loop":
            values.append(loop(some, tick))
        else:
            try:
                values.append(evaluator.batched(some, PROBED_POINTS, tick))
            except RuntimeError:  # what vmap cannot do, such as control flow that depends on the data
                return loop(coefficients, tick), "loop"
        values[-1].sum().item()
        seconds[method].append(time.perf_counter() - start)
    method = "batched" if seconds["batched"][1] < seconds["loop"][1] else "loop"
    rest = coefficients[len(turns) * PROBED_POINTS :]
    values.append(evaluator.batched(rest, points, tick) if method == "batched" else loop(rest, tick))
    return torch.cat(values), method


def _axis(name: str, values) -> np.ndarray:
    array = np.asarray(values, dtype=np.float64)
    if array.ndim != 1 or len(array) < 2 or not np.isfinite(array).all() or not (np.diff(array) > 0).all():
        raise ValueError(f"{name}={values!r}: must be at least 2 finite, strictly increasing numbers")
    return array


def loss_line(
    model: nn.Module,
    x: torch.Tensor,
    y: torch.Tensor,
    direction: torch.Tensor,
    position: Sequence[float],
    *,
    loss: Loss = F.cross_entropy,
    batch_size: int = 2000,
    batch_norm: str = "keep",
    method: str = "auto",
) -> Line:
    r"""The loss along a line, :math:`L(\theta + c\,u)`.

    Args:
        model: any module; its parameters are θ.
        x, y: inputs (N, ...) and targets (N, ...), N >= 1, on the model's device.
        direction: u, shape (d,).
        position: the values of c, shape (P,), P >= 2, strictly increasing.
        loss: maps the model's output and targets to a scalar, the mean over the examples.
        batch_size: examples at a time, >= 1; bounds the memory (several points at once take no more than 8,192).
        batch_norm: "keep" uses the model's running statistics everywhere; "recompute" takes them anew from x at every
            point, as averages over the batches, which doubles the work.
        method: "batched" evaluates several points at once, "loop" one after the other; they agree to rounding.
            "auto" times both on the first points and goes on with the faster one.

    Raises:
        ValueError: an argument is out of its range, shapes disagree, or the loss is no scalar.

    Example:
        >>> model = nn.Linear(1, 1, bias=False)
        >>> with torch.no_grad():
        ...     _ = model.weight.fill_(1.0)
        >>> loss_line(model, torch.ones(4, 1), torch.ones(4, 1), torch.ones(1), [-1, 0, 2], loss=F.mse_loss).loss
        array([1., 0., 4.])
    """
    position = _axis("position", position)
    directions = _check_directions("direction", [direction], model, 1)
    values, method = _losses(model, x, y, directions, position[:, None], loss, batch_size, batch_norm, method, "line")
    return Line(position, values, method)


def loss_between(
    model: nn.Module,
    other: nn.Module,
    x: torch.Tensor,
    y: torch.Tensor,
    position: Sequence[float],
    *,
    loss: Loss = F.cross_entropy,
    batch_size: int = 2000,
) -> Line:
    r"""The loss on the straight line from one network (position 0) to another (position 1).

    BatchNorm statistics are recomputed from x at every point, as neither network's fit the points between.

    Args:
        model, other: of the same architecture; see :func:`loss_line` for the rest.

    Raises:
        ValueError: as :func:`loss_line`, or the two differ in the shapes of their parameters.

    Example:
        >>> ends = nn.Linear(1, 1), nn.Linear(1, 1)
        >>> x = torch.ones(2, 1)
        >>> line = loss_between(*ends, x, x, [0, 1], loss=F.mse_loss)
        >>> bool(np.isclose(line.loss[1], F.mse_loss(ends[1](x), x).item()))
        True
    """
    shapes = [[p.shape for p in _trainable(m).values()] for m in (model, other)]
    if shapes[0] != shapes[1]:
        raise ValueError("other: must have trainable parameters of the same shapes as model")
    direction = parameter_vector(other) - parameter_vector(model)
    return loss_line(model, x, y, direction, position, loss=loss, batch_size=batch_size, batch_norm="recompute")


def loss_plane(
    model: nn.Module,
    x: torch.Tensor,
    y: torch.Tensor,
    directions: Sequence[torch.Tensor],
    a: Sequence[float],
    b: Sequence[float],
    *,
    loss: Loss = F.cross_entropy,
    batch_size: int = 2000,
    batch_norm: str = "keep",
    method: str = "auto",
) -> Plane:
    r"""The loss over a plane, :math:`L(\theta + a\,u_1 + b\,u_2)`.

    Args:
        directions: u₁ and u₂, each of shape (d,).
        a, b: their coefficients, shapes (A,) and (B,), at least 2 each, strictly increasing.
        model, x, y, loss, batch_size, batch_norm, method: as for :func:`loss_line`.

    Raises:
        ValueError: as :func:`loss_line`.

    Example:
        >>> model = nn.Linear(2, 1, bias=False)
        >>> with torch.no_grad():
        ...     _ = model.weight.zero_()
        >>> x, y = torch.eye(2), torch.zeros(2, 1)
        >>> loss_plane(model, x, y, torch.eye(2), [0, 2], [0, 1, 4], loss=F.mse_loss).loss
        array([[ 0. ,  2. ],
               [ 0.5,  2.5],
               [ 8. , 10. ]])
    """
    a, b = _axis("a", a), _axis("b", b)
    directions = _check_directions("directions", directions, model, 2)
    coefficients = np.stack(np.meshgrid(a, b), axis=-1).reshape(-1, 2)
    values, method = _losses(model, x, y, directions, coefficients, loss, batch_size, batch_norm, method, "plane")
    return Plane(a, b, values.reshape(len(b), len(a)), method)


def plane_curvature(plane: Plane) -> tuple[np.ndarray, np.ndarray]:
    r"""The two principal curvatures of a plane's loss at its inner points, by central differences.

    They are the eigenvalues of the 2 x 2 matrix :math:`U H U^\top` with the rows :math:`u_1, u_2` of U. A negative one
    shows that the full Hessian H has a negative eigenvalue there; the converse does not hold.

    Args:
        plane: with equally spaced a and b, at least 3 of each.

    Returns:
        The smaller and the larger one, each of shape (B - 2, A - 2); NaN beside losses that are not finite.

    Raises:
        ValueError: too few points, or not equally spaced.

    Example:
        >>> a = np.linspace(-1, 1, 5)
        >>> saddle = Plane(a, a, 3 * a**2 - a[:, None] ** 2, "loop")
        >>> [h.round(6).tolist()[0] for h in plane_curvature(saddle)]
        [[-2.0, -2.0, -2.0], [6.0, 6.0, 6.0]]
    """
    if len(plane.a) < 3 or len(plane.b) < 3:
        raise ValueError(f"plane: has {len(plane.a)} x {len(plane.b)} points, must have at least 3 x 3")
    da, db = np.diff(plane.a), np.diff(plane.b)
    if not (np.allclose(da, da[0]) and np.allclose(db, db[0])):
        raise ValueError("plane: must have equally spaced a and b")
    z = np.where(np.isfinite(plane.loss), plane.loss, np.nan)
    middle = z[1:-1, 1:-1]
    aa = (z[1:-1, 2:] - 2 * middle + z[1:-1, :-2]) / da[0] ** 2
    bb = (z[2:, 1:-1] - 2 * middle + z[:-2, 1:-1]) / db[0] ** 2
    ab = (z[2:, 2:] - z[2:, :-2] - z[:-2, 2:] + z[:-2, :-2]) / (4 * da[0] * db[0])
    centre, radius = (aa + bb) / 2, np.hypot((aa - bb) / 2, ab)
    return centre - radius, centre + radius


def negative_curvature(plane: Plane, tolerance: float = 0.01) -> float:
    r"""How non-convex a plane looks: the share of its inner points where it is curved downwards in some direction.

    A point counts where the smaller curvature is below :math:`-\text{tolerance} \cdot |h|_{\max}` of the two there.

    Args:
        plane: as for :func:`plane_curvature`; points beside losses that are not finite are left out.
        tolerance: >= 0, above the rounding of the differences.

    Returns:
        In [0, 1].

    Raises:
        ValueError: as :func:`plane_curvature`, or no point is left.

    Source: after Li et al. (2018), section 6, who map the ratio of the full Hessian's extreme eigenvalues.

    Example:
        >>> a = np.linspace(-1, 1, 5)
        >>> negative_curvature(Plane(a, a, 3 * a**2 - a[:, None] ** 2, "loop"))
        1.0
    """
    tolerance = _check.nonnegative("tolerance", tolerance)
    low, high = plane_curvature(plane)
    known = np.isfinite(low) & np.isfinite(high)
    if not known.any():
        raise ValueError("plane: must have inner points whose neighbours all have a finite loss")
    low, high = low[known], high[known]
    return float((low < -tolerance * np.maximum(np.abs(low), np.abs(high))).mean())


def _clipped(loss: np.ndarray, top: float) -> np.ndarray:
    """Losses above `top`, infinite and NaN ones drawn as `top`."""
    return np.minimum(np.where(np.isfinite(loss), loss, top), top)


def _top(loss: np.ndarray, top: float | None) -> float:
    finite = loss[np.isfinite(loss)]
    if finite.size == 0:
        raise ValueError("plane: has no finite loss to draw")
    return float(finite.max()) if top is None else _check.finite("top", top)


def draw_plane(ax, plane: Plane, *, levels: Sequence[float] | None = None, top: float | None = None) -> None:
    """Contours of a plane, labelled with their losses, over a shading of the logarithm of the loss.

    Args:
        ax: axes to draw into.
        plane: of losses > 0 where they are finite.
        levels: losses to draw a line at; default nine, equally spaced in the logarithm.
        top: losses above it, infinite and NaN ones are drawn as this value; default the largest finite one.

    Raises:
        ValueError: no finite loss, or one <= 0.
    """
    top = _top(plane.loss, top)
    z = _clipped(plane.loss, top)
    if not z.min() > 0:
        raise ValueError("plane: must have losses > 0 to be drawn on a logarithmic scale")
    if levels is None:
        levels = np.geomspace(z.min(), top, 11)[1:-1]
    log = np.log10(z)
    ax.contourf(plane.a, plane.b, log, levels=40, cmap="viridis", zorder=0)
    lines = ax.contour(plane.a, plane.b, z, levels=levels, colors="white", linewidths=0.8, linestyles="-")
    ax.clabel(lines, fmt="%.2g", fontsize=7.5)
    ax.plot(0, 0, marker="+", color="white", ms=9, mew=1.6, linestyle="none")
    ax.grid(False)
    ax.set_aspect("equal")


def draw_surface(ax, plane: Plane, *, top: float | None = None) -> None:
    """A plane as a surface, the loss as height on a linear scale.

    Args:
        ax: axes with ``projection="3d"``.
        plane: what to draw.
        top: losses above it, infinite and NaN ones are drawn as this value; default the largest finite one.

    Raises:
        ValueError: no finite loss.
    """
    top = _top(plane.loss, top)
    a, b = np.meshgrid(plane.a, plane.b)
    ax.plot_surface(
        a, b, _clipped(plane.loss, top), cmap="viridis", rstride=1, cstride=1, linewidth=0, antialiased=True
    )
    ax.set_xlabel("a")
    ax.set_ylabel("b")
    ax.set_zlabel("loss L")


def draw_path(ax, projection: Projection) -> None:
    """A projected path, and in a line of text how much of it the plane holds and how far it leaves it.

    Args:
        ax: axes, such as those of :func:`draw_plane`.
        projection: onto a plane, m = 2.

    Raises:
        ValueError: the projection is not onto a plane.
    """
    if projection.coordinates.shape[1] != 2:
        raise ValueError(f"projection: has {projection.coordinates.shape[1]} coordinates, must have 2")
    ax.plot(*projection.coordinates.T, "-o", color="#D55E00", ms=3, lw=1.2)
    text = f"in the plane: {100 * projection.explained:.1f}%, farthest out: {projection.distance.max():.2g}"
    ax.set_title(text, fontsize=9.5)
