r"""The loss along lines and planes through parameter space, and pictures of it.

A point is :math:`\theta + c_1 u_1 + \dots + c_m u_m` with directions u as in :mod:`lrlib.planes`. Networks are
evaluated in evaluation mode, each point with the buffers that the model has. The model itself is never written to: its
parameters, buffers and modes are the same bits afterwards, also when something fails on the way.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import nn
from torch.func import vmap
from torch.nn import functional as F
from torch.nn.utils.parametrize import type_before_parametrizations
from tqdm import tqdm

from lrlib import _check, runtime
from lrlib.architecture import called, copied
from lrlib.ensembles import refresh_batchnorm
from lrlib.minibatches import check_data
from lrlib.planes import Projection, parameter_vector, pieces, trainable
from lrlib.stack import Loss, check_statistics, scalar, wide

__all__ = [
    "Line", "Plane", "loss_line", "loss_between", "loss_plane", "plane_curvature", "negative_curvature", "draw_plane",
    "draw_path",
]  # fmt: skip

BATCHED_EXAMPLES, BATCHED_PARAMETERS = 128, 50_000  # up to here several points at once were faster, on a CPU
BATCHED_POINTS = 16


@dataclass(frozen=True)
class Line:
    """Losses along a line: `position` (P,), `loss` (P,), and the `method`, "batched" or "loop"."""

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
        method: how they were computed, "batched" or "loop".
    """

    a: np.ndarray
    b: np.ndarray
    loss: np.ndarray
    method: str


def _cross_entropy(logits: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    """F.cross_entropy; on a CPU the softmax of few classes is about five times as fast along the columns."""
    if logits.ndim == 2 and y.ndim == 1:
        logits, y = logits.T[None], y[None]
    return F.cross_entropy(logits, y)


@dataclass(frozen=True)
class _Evaluator:
    """The losses of a model in evaluation mode at θ + c U, for coefficients c (m,) and directions U (m, d)."""

    model: nn.Module
    theta: torch.Tensor
    directions: torch.Tensor
    x: torch.Tensor
    y: torch.Tensor
    loss: Loss
    batch_size: int

    def mean(self, network: Callable[[torch.Tensor], torch.Tensor]) -> torch.Tensor:
        batches = zip(self.x.split(self.batch_size), self.y.split(self.batch_size), strict=True)
        values = [len(x) / len(self.x) * scalar(self.loss(wide(network(x)), y)) for x, y in batches]
        return sum(values[1:], values[0])

    def at(self, c: torch.Tensor) -> torch.Tensor:
        """By a functional call, which vmap can batch and which needs no copy of the model."""
        buffers = {name: buffer.clone() for name, buffer in self.model.named_buffers()}
        tensors = pieces(self.theta + c @ self.directions, self.model) | buffers
        return self.mean(lambda x: called(self.model, tensors, x))

    def batched(self, points: torch.Tensor) -> torch.Tensor:
        """By a copy, if there can be one, whose own parameters are NaN, to show where another way leads to one."""
        try:
            twin = copied(self.model)
            for p in trainable(twin).values():
                p.fill_(torch.nan)
        except ValueError:
            twin = self.model
        with runtime.buffers_kept(twin):
            values = vmap(replace(self, model=twin).at, chunk_size=BATCHED_POINTS)(points)
        if (lost := values.isnan()).any() and not self.loop(points[lost]).isnan().all():
            raise RuntimeError("it reaches a parameter by another way than its name")
        return values

    def loop(self, points: torch.Tensor, recompute: bool = False) -> torch.Tensor:
        """By a copy of the model whose parameters are views of one vector, which goes from point to point."""
        bar = tqdm(points, desc="losses", unit="point", leave=False, disable=None)
        try:
            twin = copied(self.model)
        except ValueError as error:
            if recompute:
                raise ValueError(f"{error}; must be one that can be copied, to recompute statistics") from error
            with runtime.buffers_kept(self.model):
                return torch.stack([self.at(c) for c in bar])
        vector = self.theta.clone()
        for p, piece in zip(trainable(twin).values(), pieces(vector, self.model).values(), strict=True):
            p.data = piece
        values = []
        for c in bar:
            torch.addmv(self.theta, self.directions.T, c, out=vector)
            with runtime.buffers_kept(twin):
                if recompute:
                    with runtime.seeded(0):  # for dropout, which is on
                        refresh_batchnorm(twin, self.x, self.batch_size)
                values.append(self.mean(twin))
        return torch.stack(values)


@torch.no_grad()
def _losses(
    model: nn.Module,
    x: torch.Tensor,
    y: torch.Tensor,
    directions: torch.Tensor,
    coefficients: np.ndarray,
    loss: Loss,
    batch_size: int,
    batch_norm: str,
    method: str,
) -> tuple[np.ndarray, str]:
    """The losses at P points with coefficients (P, m), shape (P,), and the method."""
    check_data(x, y)
    check_statistics(model, len(x), _check.integer("batch_size", batch_size, 1))
    _check.choice("batch_norm", batch_norm, ("keep", "recompute"))
    _check.choice("method", method, ("auto", "batched", "loop"))
    theta = parameter_vector(model)
    points = torch.as_tensor(coefficients).to(theta)
    loss = _cross_entropy if loss is F.cross_entropy else loss
    evaluator = _Evaluator(model, theta, directions, x, y, loss, batch_size)
    recompute = batch_norm == "recompute" and any(getattr(m, "running_mean", None) is not None for m in model.modules())
    if recompute and method == "batched":
        raise ValueError("method='batched': must be 'loop' or 'auto' where BatchNorm statistics are recomputed")
    small = len(x) <= BATCHED_EXAMPLES and len(theta) <= BATCHED_PARAMETERS and not recompute
    with runtime.modes_kept(model):
        model.eval()
        if method == "batched" or (method == "auto" and small):
            try:
                return evaluator.batched(points).double().cpu().numpy(), "batched"
            except Exception as error:  # of any kind: the loop may do, or says what is wrong
                if method == "batched":
                    raise ValueError(f"method='batched': must be 'loop' or 'auto' for this model: {error}") from error
        return evaluator.loop(points, recompute).double().cpu().numpy(), "loop"


def _check_directions(name: str, directions: Sequence[torch.Tensor], model: nn.Module, m: int) -> torch.Tensor:
    """m vectors of shape (d,) as one tensor (m, d)."""
    theta, rows = parameter_vector(model), list(directions)
    if len(rows) != m or any(not isinstance(u, torch.Tensor) or u.shape != theta.shape for u in rows):
        raise ValueError(f"{name}: must be {m} tensor(s) of shape ({len(theta)},), one number a trainable parameter")
    stacked = torch.stack(rows).detach().to(theta)
    if not stacked.isfinite().all():
        raise ValueError(f"{name}: must be finite")
    return stacked


def _axis(name: str, values: Sequence[float]) -> np.ndarray:
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
        batch_size: examples at a time, >= 1, or >= 2 where statistics are recomputed; bounds the memory.
        batch_norm: "keep" uses the model's running statistics everywhere; "recompute" takes them anew from x at every
            point, by :func:`lrlib.refresh_batchnorm` in batches of `batch_size`, which doubles the work.
        method: "batched" evaluates 16 points at once through `torch.func.vmap`, "loop" one after the other; they agree
            to rounding. "auto" takes the former for at most 128 examples and 50,000 parameters, where it is the faster
            one, and the latter for the rest and for models that vmap cannot do.

    Raises:
        TypeError: x or y is no tensor.
        ValueError: an argument is out of its range, shapes disagree, the loss is no scalar, the model cannot be
            evaluated as `method` says, or there are several batches for a BatchNorm layer without running statistics.

    Example:
        >>> model = nn.Linear(1, 1, bias=False)
        >>> with torch.no_grad():
        ...     _ = model.weight.fill_(1.0)
        >>> loss_line(model, torch.ones(4, 1), torch.ones(4, 1), torch.ones(1), [-1, 0, 2], loss=F.mse_loss).loss
        array([1., 0., 4.])
    """
    at = _axis("position", position)
    directions = _check_directions("direction", [direction], model, 1)
    values, method = _losses(model, x, y, directions, at[:, None], loss, batch_size, batch_norm, method)
    return Line(at, values, method)


def _fixed(model: nn.Module) -> dict[str, torch.Tensor]:
    """What stays as it is between two networks: frozen parameters, and buffers but for those of BatchNorm."""
    norms = [name for name, m in model.named_modules() if isinstance(m, nn.modules.batchnorm._BatchNorm)]
    buffers = {name: b for name, b in model.named_buffers() if name.rpartition(".")[0] not in norms}
    return buffers | {name: p.detach() for name, p in model.named_parameters() if not p.requires_grad}


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
        model, other: of the same architecture, equal in what is not trained; see :func:`loss_line` for the rest.

    Raises:
        ValueError: as :func:`loss_line`, or the two differ in their layers, in the shapes or types of their parameters,
            in one that is frozen, in a buffer that is no statistic of BatchNorm, or in anything else that lets them
            compute another loss from the same parameters, such as a hook or a number that a module holds.

    Example:
        >>> ends = nn.Linear(1, 1), nn.Linear(1, 1)
        >>> x = torch.ones(2, 1)
        >>> line = loss_between(*ends, x, x, [0, 1], loss=F.mse_loss)
        >>> bool(np.isclose(line.loss[1], F.mse_loss(ends[1](x), x).item()))
        True
    """
    layers = [[(type_before_parametrizations(m), m.extra_repr()) for m in end.modules()] for end in (model, other)]
    shapes = [{name: (p.shape, p.dtype) for name, p in trainable(end).items()} for end in (model, other)]
    if layers[0] != layers[1] or shapes[0] != shapes[1]:
        raise ValueError("other: must have the layers of model, and trainable parameters of the same shapes and types")
    fixed = [_fixed(end) for end in (model, other)]
    for name in dict.fromkeys([*fixed[0], *fixed[1]]):
        if not (name in fixed[0] and name in fixed[1] and torch.equal(fixed[0][name], fixed[1][name])):
            raise ValueError(f"other: {name}, which is not trained, differs from that of model, must be the same")
    direction = parameter_vector(other) - parameter_vector(model)

    def line(network: nn.Module, direction: torch.Tensor, position: Sequence[float]) -> Line:
        return loss_line(network, x, y, direction, position, loss=loss, batch_size=batch_size, batch_norm="recompute")

    end, own = line(model, direction, [0, 1]).loss[1], line(other, 0 * direction, [0, 1]).loss[0]
    if not np.isclose(end, own, rtol=4 * torch.finfo(direction.dtype).eps ** 0.5, atol=1e-6, equal_nan=True):
        raise ValueError(
            f"other: has the loss {own:.6g}, and model {end:.6g} with its parameters, must differ in parameters alone"
        )
    return line(model, direction, position)


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
    across, up = _axis("a", a), _axis("b", b)
    coefficients = np.stack(np.meshgrid(across, up), axis=-1).reshape(-1, 2)
    both = _check_directions("directions", directions, model, 2)
    values, method = _losses(model, x, y, both, coefficients, loss, batch_size, batch_norm, method)
    return Plane(across, up, values.reshape(len(up), len(across)), method)


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
    if not (np.allclose(da, da[0], atol=0) and np.allclose(db, db[0], atol=0)):
        raise ValueError("plane: must have equally spaced a and b")
    z = np.where(np.isfinite(plane.loss), plane.loss, np.nan)
    middle = z[1:-1, 1:-1]
    aa = (z[1:-1, 2:] - 2 * middle + z[1:-1, :-2]) / da[0] ** 2
    bb = (z[2:, 1:-1] - 2 * middle + z[:-2, 1:-1]) / db[0] ** 2
    ab = (z[2:, 2:] - z[2:, :-2] - z[:-2, 2:] + z[:-2, :-2]) / (4 * da[0] * db[0])
    centre, radius = (aa + bb) / 2, np.hypot((aa - bb) / 2, ab)
    return centre - radius, centre + radius


def negative_curvature(plane: Plane) -> float:
    r"""How non-convex a plane looks: the share of its inner points where it is curved downwards in some direction.

    A point counts where the smaller curvature is below :math:`-0.01 \cdot |h|_{\max}` of the two there; the factor is
    above the rounding of the differences.

    Args:
        plane: as for :func:`plane_curvature`; points beside losses that are not finite are left out.

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
    low, high = plane_curvature(plane)
    known = np.isfinite(low) & np.isfinite(high)
    if not known.any():
        raise ValueError("plane: must have inner points whose neighbours all have a finite loss")
    low, high = low[known], high[known]
    return float((low < -0.01 * np.maximum(np.abs(low), np.abs(high))).mean())


def draw_plane(ax, plane: Plane, *, levels: Sequence[float] | None = None, top: float | None = None) -> None:
    """Contours of a plane, labelled with their losses, over a shading of the logarithm of the loss.

    Args:
        ax: axes to draw into.
        plane: of losses > 0 where they are finite.
        levels: losses to draw a line at; default nine, equally spaced in the logarithm.
        top: losses above it, infinite and NaN ones are drawn as this value; default the largest finite one.

    Raises:
        ValueError: no finite loss, one <= 0, or a `top` below the smallest.
    """
    finite = plane.loss[np.isfinite(plane.loss)]
    if not finite.size or not finite.min() > 0:
        raise ValueError("plane: must have finite losses, all > 0, to be drawn on a logarithmic scale")
    top = finite.max() if top is None else _check.at_least("top", top, finite.min())
    z = np.where(np.isfinite(plane.loss), plane.loss, top).clip(max=top)
    ax.contourf(plane.a, plane.b, np.log10(z), levels=40, cmap="viridis", zorder=0)
    if levels is None:
        levels = list(np.unique(np.geomspace(z.min(), z.max(), 11)[1:-1]))  # of a flat plane one
    lines = ax.contour(plane.a, plane.b, z, levels=levels, colors="white", linewidths=0.8, linestyles="-")
    ax.clabel(lines, fmt="%.2g", fontsize=7.5)
    ax.plot(0, 0, marker="+", color="white", ms=9, mew=1.6, linestyle="none")
    ax.grid(False)
    ax.set_aspect("equal")


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
