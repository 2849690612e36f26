r"""Vectors and planes in the space of a network's parameters: random and principal directions, projected paths.

A vector has shape (d,): one number for each trainable parameter, in the order of `model.parameters()`, each one
flattened, as `torch.nn.utils.parameters_to_vector` does.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import nn

from lrlib import _check

__all__ = ["Projection", "parameter_vector", "random_direction", "pca_directions", "project"]


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


def trainable(model: nn.Module) -> dict[str, nn.Parameter]:
    parameters = {name: p for name, p in model.named_parameters() if p.requires_grad}
    if not parameters:
        raise ValueError("model: must have a parameter that requires a gradient")
    kinds = {(p.dtype, p.device) for p in parameters.values()}
    if len(kinds) > 1 or any(dtype.is_complex for dtype, _ in kinds):
        raise ValueError(f"model: has parameters of the types {kinds}, must have real ones of one dtype and device")
    return parameters


def parameter_vector(model: nn.Module) -> torch.Tensor:
    """A copy of all trainable parameters as one vector, shape (d,).

    Example:
        >>> parameter_vector(nn.Linear(3, 2)).shape
        torch.Size([8])
    """
    return torch.cat([p.detach().reshape(-1) for p in trainable(model).values()])


def pieces(vector: torch.Tensor, model: nn.Module) -> dict[str, torch.Tensor]:
    """Views of a vector (d,) in the shapes of the parameters."""
    parameters = trainable(model)
    pieces = vector.split([p.numel() for p in parameters.values()])
    return {name: piece.view(p.shape) for (name, p), piece in zip(parameters.items(), pieces, strict=True)}


def random_direction(
    model: nn.Module, seed: int = 0, *, normalise: str | None = "filter", vectors: str = "zero"
) -> torch.Tensor:
    r"""A direction of independent normal numbers, whose filters have the norms of the model's own filters.

    .. math:: u_{\ell,i} \leftarrow \frac{u_{\ell,i}}{\|u_{\ell,i}\|}\, \|\theta_{\ell,i}\|

    A filter is what feeds one output of a layer: a row of a linear layer's weight, an output channel of a convolution.
    It is an entry of the weight's first axis, which of a transposed convolution is an input channel. Each is normalised
    once. Parameters with one dimension, biases and the scales and shifts of normalisation layers,
    are no filters, and what becomes of them is a choice.

    Args:
        model: whose trainable parameters θ are.
        seed: of the numbers, >= 0; they are drawn on the CPU in float64 and do not depend on the model's values.
        normalise: "filter" as above, or None for the numbers as drawn.
        vectors: for one-dimensional parameters: "zero" leaves them where they are, "whole" scales each to the norm of
            the model's parameter as one filter, "entry" treats every number as a filter: its sign is kept, its size is
            the parameter's. Without normalisation it is "zero", or "entry" where they move too.

    Returns:
        u, shape (d,).

    Raises:
        ValueError: an argument is out of its range.

    Source: Li et al., Visualizing the Loss Landscape of Neural Nets, NeurIPS (2018), who use "zero".

    Example:
        >>> model = nn.Linear(3, 2)
        >>> u = random_direction(model, seed=1)
        >>> torch.allclose(u[:3].norm(), model.weight[0].norm()), u[6:].tolist()
        (True, [0.0, 0.0])
    """
    _check.choice("normalise", normalise, ("filter", None))
    _check.choice("vectors", vectors, ("zero", "whole", "entry") if normalise else ("zero", "entry"))
    theta = parameter_vector(model)
    generator = torch.Generator().manual_seed(_check.seed("seed", seed))
    direction = torch.randn(len(theta), generator=generator, dtype=torch.float64).to(theta)
    for u, p in zip(pieces(direction, model).values(), pieces(theta, model).values(), strict=True):
        if not p.numel():
            continue
        if p.ndim < 2 and vectors == "zero":
            u.zero_()
        elif normalise:
            shape = (len(p), -1) if p.ndim >= 2 else (1, -1) if vectors == "whole" else (-1, 1)
            filters, drawn = p.reshape(shape), u.view(shape)
            drawn *= filters.norm(dim=1, keepdim=True) / drawn.norm(dim=1, keepdim=True)
    return direction


def pca_directions(path: Sequence[torch.Tensor], m: int = 2) -> tuple[torch.Tensor, np.ndarray]:
    r"""The m orthonormal directions through a path's last point that hold most of the path.

    The leading right singular vectors of the matrix with rows :math:`\theta_t - \theta_T`.

    Args:
        path: T + 1 vectors of shape (d,), such as copies by :func:`parameter_vector`; more than m.
        m: how many, between 1 and d.

    Returns:
        Directions, shape (m, d), and the share of the summed squares that each explains, shape (m,).

    Raises:
        ValueError: m is out of its range, or the path is too short or does not move.

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
    if m > stack.shape[1]:
        raise ValueError(f"m={m!r}: must be <= {stack.shape[1]}, the numbers in a point of the path")
    rows = (stack - stack[-1]).double()
    if not rows.isfinite().all() or not rows.any():
        raise ValueError("path: must be finite and move")
    _, sizes, directions = torch.linalg.svd(rows, full_matrices=False)
    total = (sizes**2).sum()
    return directions[:m].to(stack), (sizes[:m] ** 2 / total).cpu().numpy()


def project(path: Sequence[torch.Tensor], origin: torch.Tensor, directions: Sequence[torch.Tensor]) -> Projection:
    """Where a path is nearest to a plane, how far from it, and how much of it the plane explains.

    Args:
        path: T vectors of shape (d,), at least one.
        origin: of the plane, shape (d,).
        directions: m linearly independent vectors of shape (d,), 1 <= m <= d; they need not be orthogonal.

    Raises:
        ValueError: shapes disagree, the path is empty, or the directions are none or linearly dependent.

    Example:
        >>> path = [torch.tensor([2.0, 1.0, 2.0])]
        >>> p = project(path, torch.zeros(3), [torch.tensor([1.0, 0.0, 0.0]), torch.tensor([0.0, 2.0, 0.0])])
        >>> p.coordinates.round(6).tolist(), p.distance.round(6).tolist(), round(p.explained, 4)
        ([[2.0, 0.5]], [2.0], 0.5556)
    """
    if len(directions) == 0:
        raise ValueError("directions: are none, must be at least 1")
    if len(path) == 0:
        raise ValueError("path: is empty, must have at least one point")
    columns = torch.stack(list(directions)).detach().double().T
    rows = torch.stack(list(path)).detach().double()
    if rows.ndim != 2 or origin.shape != rows.shape[1:] or columns.shape[0] != rows.shape[1]:
        raise ValueError(
            f"path, origin, directions: have shapes {tuple(rows.shape)}, {tuple(origin.shape)}, "
            f"{tuple(columns.T.shape)}, must be (T, d), (d,), (m, d)"
        )
    q, r = torch.linalg.qr(columns)
    d, m = columns.shape
    if m > d or not (r.diagonal().abs() > 1e-10 * columns.norm(dim=0)).all():
        raise ValueError(f"directions: are {m} of {d} numbers, must be linearly independent")
    rows = rows - origin.detach().double()
    inside = rows @ q
    distance = (rows - inside @ q.T).norm(dim=1)
    total = (rows**2).sum()
    explained = 1.0 if total == 0 else float(1 - (distance**2).sum() / total)
    return Projection(torch.linalg.solve(r, inside.T).T.cpu().numpy(), distance.cpu().numpy(), explained)
