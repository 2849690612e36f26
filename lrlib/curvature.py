r"""Curvature of a network's loss: Hessian-vector products, the largest eigenvalues, the trace, sharpness.

The loss is the mean over the examples, :math:`L(\theta) = \frac1N \sum_i \ell(f_\theta(x_i), y_i)`, and :math:`H` its
Hessian over all trainable parameters, of shape (d, d). It is never formed: all is made of products :math:`Hv`, each
about two gradients' work. Networks are taken in evaluation mode, so BatchNorm layers use their running statistics and
the loss of an example does not depend on the others. Parameters, their `.grad` and all modes are left as they were.

A vector of shape (d,) lists the trainable parameters in the order of `model.parameters()`, each one flattened, as
`torch.nn.utils.parameters_to_vector` does.
"""

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import torch
from scipy.sparse.linalg import ArpackNoConvergence, LinearOperator, eigsh
from torch import nn
from torch.nn import functional as F

from lrlib import _check, runtime

__all__ = [
    "TraceEstimate",
    "hessian_vector_product",
    "hessian_eigenpairs",
    "hessian_trace",
    "sharpness",
    "adaptive_sharpness",
]

Loss = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]
DENSE = 40  # up to this many parameters the whole matrix is as cheap as Lanczos, and exact


@dataclass(frozen=True)
class TraceEstimate:
    """An estimate of a trace, with its standard error from `samples` random vectors."""

    value: float
    standard_error: float
    samples: int

    def __format__(self, spec: str) -> str:
        spec = spec or ".3g"
        return f"{self.value:{spec}} ± {self.standard_error:{spec}} (standard error, {self.samples} vectors)"

    __str__ = lambda self: format(self, "")  # noqa: E731


def _trainable(model: nn.Module) -> list[nn.Parameter]:
    parameters = [p for p in model.parameters() if p.requires_grad]
    if not parameters:
        raise ValueError("model: must have a parameter that requires a gradient")
    if len({(p.dtype, p.device) for p in parameters}) > 1:
        raise ValueError("model: has parameters of several dtypes or devices, must be of one")
    return parameters


def _check_data(x: torch.Tensor, y: torch.Tensor) -> None:
    if len(x) == 0 or len(x) != len(y):
        raise ValueError(f"x, y: have lengths {len(x)} and {len(y)}, must be equal and >= 1")


def _gradient_graph(model, parameters, loss, x, y, weight) -> list[torch.Tensor]:
    """The gradient of `weight` times the loss, as a differentiable function of the parameters."""
    value = loss(model(x), y)
    if not isinstance(value, torch.Tensor) or value.numel() != 1:
        shape = tuple(value.shape) if isinstance(value, torch.Tensor) else type(value).__name__
        raise ValueError(f"loss: returned {shape}, must return a scalar tensor, the mean over the examples")
    if not value.requires_grad:
        raise ValueError("loss: its value must depend differentiably on the model's parameters; it has no gradient")
    if not torch.isfinite(value):
        raise ValueError(f"loss: is {value.item()}, must be finite for a curvature")
    return torch.autograd.grad(weight * value.reshape(()), parameters, create_graph=True, materialize_grads=True)


@contextlib.contextmanager
def _products(model, x, y, loss, batch_size) -> Iterator[tuple[Callable[[torch.Tensor], torch.Tensor], int]]:
    """A function that multiplies a (d,) vector by H, and d. For data of one batch the graph is built once."""
    batch_size = _check.integer("batch_size", batch_size, 1)
    _check_data(x, y)
    parameters = _trainable(model)
    sizes = [p.numel() for p in parameters]
    chunks = list(zip(x.split(batch_size), y.split(batch_size), strict=True))

    def gradient(chunk):
        return _gradient_graph(model, parameters, loss, *chunk, len(chunk[0]) / len(x))

    def add_product(total, g, vector, keep):
        pieces = [part.view_as(p) for part, p in zip(vector.split(sizes), parameters, strict=True)]
        inner = sum((a * b).sum() for a, b in zip(g, pieces, strict=True))
        if inner.requires_grad:  # else the loss is linear in the parameters
            product = torch.autograd.grad(inner, parameters, retain_graph=keep, materialize_grads=True)
            total += torch.cat([part.reshape(-1) for part in product])

    with torch.enable_grad(), runtime.modes_kept(model):
        model.eval()
        kept = gradient(chunks[0]) if len(chunks) == 1 else None

        def multiply(vector: torch.Tensor) -> torch.Tensor:
            total = torch.zeros_like(vector)
            for chunk in chunks:
                add_product(total, kept or gradient(chunk), vector, keep=kept is not None)
            return total

        yield multiply, sum(sizes)


def hessian_vector_product(
    model: nn.Module,
    x: torch.Tensor,
    y: torch.Tensor,
    vector: torch.Tensor,
    *,
    loss: Loss = F.cross_entropy,
    batch_size: int = 1000,
) -> torch.Tensor:
    r"""The product of the loss's Hessian with a vector, by differentiating twice.

    .. math:: H v = \nabla_\theta \,\big\langle \nabla_\theta L(\theta),\, v \big\rangle

    Args:
        model: any module; see the module's text on its mode.
        x, y: inputs (N, ...) and targets (N, ...), N >= 1, on the model's device.
        vector: v, shape (d,), of the dtype and on the device of the parameters.
        loss: maps the model's output and targets to a scalar, the mean over the examples.
        batch_size: examples at a time, >= 1; bounds the memory and changes the result by rounding only.

    Returns:
        Hv, shape (d,).

    Raises:
        ValueError: lengths or shapes disagree, or the loss is not a finite, differentiable scalar.

    Source: B. Pearlmutter, Fast Exact Multiplication by the Hessian, Neural Computation 6 (1994).

    Example:
        >>> model = nn.Linear(2, 1, bias=False)
        >>> x, y = torch.tensor([[1.0, 0.0], [0.0, 2.0]]), torch.zeros(2, 1)
        >>> hessian_vector_product(model, x, y, torch.tensor([1.0, 1.0]), loss=F.mse_loss)
        tensor([1., 4.])
    """
    with _products(model, x, y, loss, batch_size) as (multiply, d):
        _check_vector("vector", vector, d, next(p for p in model.parameters() if p.requires_grad))
        return multiply(vector.detach())


def _check_vector(name: str, vector: torch.Tensor, d: int, like: torch.Tensor) -> None:
    if not isinstance(vector, torch.Tensor) or vector.shape != (d,) or vector.dtype != like.dtype:
        got = f"{vector.dtype} of shape {tuple(vector.shape)}" if isinstance(vector, torch.Tensor) else repr(vector)
        raise ValueError(f"{name}: is {got}, must be {like.dtype} of shape ({d},), one number a trainable parameter")


def hessian_eigenpairs(
    model: nn.Module,
    x: torch.Tensor,
    y: torch.Tensor,
    k: int = 1,
    *,
    which: str = "largest",
    scale: torch.Tensor | None = None,
    loss: Loss = F.cross_entropy,
    batch_size: int = 1000,
    tolerance: float = 1e-5,
    max_products: int = 2000,
    seed: int = 0,
) -> tuple[np.ndarray, np.ndarray]:
    r"""The k largest or smallest (most negative) eigenvalues of the Hessian, with their eigenvectors, by Lanczos.

    With `scale` :math:`s` they are those of :math:`\operatorname{diag}(s)\, H \operatorname{diag}(s)`.

    Args:
        model, x, y, loss, batch_size: as for :func:`hessian_vector_product`.
        k: how many, 1 <= k < d.
        which: "largest" or "smallest", by value and not by modulus.
        scale: optionally one factor for each parameter, shape (d,).
        tolerance: of an eigenvalue, relative to it, > 0. Below 1e-6 it needs a float64 model.
        max_products: the most products Hv to spend, about, >= 1.
        seed: of the start vector, >= 0.

    Returns:
        Eigenvalues, shape (k,), the most extreme one first, and unit eigenvectors, shape (k, d); both float64.

    Raises:
        ValueError: an argument is out of range, shapes disagree, or the loss is not a finite, differentiable scalar.
        RuntimeError: it did not converge within `max_products`.

    Source: Lanczos iteration by ARPACK, through `scipy.sparse.linalg.eigsh`.

    Example:
        >>> model = nn.Linear(2, 1, bias=False)
        >>> x, y = torch.tensor([[1.0, 0.0], [0.0, 2.0]]), torch.zeros(2, 1)
        >>> hessian_eigenpairs(model, x, y, loss=F.mse_loss)[0].round(4)
        array([4.])
    """
    k = _check.integer("k", k, 1)
    _check.choice("which", which, ("largest", "smallest"))
    tolerance = _check.positive("tolerance", tolerance)
    max_products = _check.integer("max_products", max_products, 1)
    seed = _check.integer("seed", seed, 0)
    like = next((p for p in model.parameters() if p.requires_grad), None)
    with _products(model, x, y, loss, batch_size) as (multiply, d):
        if k >= d:
            raise ValueError(f"k={k!r}: must be < {d}, the number of trainable parameters")
        if scale is not None:
            _check_vector("scale", scale, d, like)
            scale = scale.detach()

        def matvec(v: np.ndarray) -> np.ndarray:
            vector = torch.as_tensor(v.reshape(-1), dtype=like.dtype, device=like.device)
            product = multiply(vector) if scale is None else scale * multiply(scale * vector)
            return product.double().cpu().numpy()

        if d <= DENSE:
            H = np.stack([matvec(unit) for unit in np.eye(d)])
            values, vectors = np.linalg.eigh((H + H.T) / 2)
        else:
            basis = min(d, max(2 * k + 1, 20))
            try:
                values, vectors = eigsh(
                    LinearOperator((d, d), matvec=matvec, dtype=np.float64),
                    k=k,
                    which="LA" if which == "largest" else "SA",
                    v0=np.random.default_rng(seed).standard_normal(d),
                    ncv=basis,
                    tol=tolerance,
                    maxiter=max(1, max_products // basis),
                )
            except ArpackNoConvergence as error:
                raise RuntimeError(
                    f"Lanczos found {len(error.eigenvalues)} of {k} eigenvalues within max_products={max_products}: "
                    f"raise it, or tolerance={tolerance:g}"
                ) from None
    order = np.argsort(values)[::-1][:k] if which == "largest" else np.argsort(values)[:k]
    return values[order], vectors[:, order].T


def sharpness(
    model: nn.Module,
    x: torch.Tensor,
    y: torch.Tensor,
    *,
    loss: Loss = F.cross_entropy,
    batch_size: int = 1000,
    tolerance: float = 1e-5,
) -> float:
    r"""The largest eigenvalue of the Hessian, :math:`S = h_{\max}`; gradient descent is stable for :math:`\eta < 2/S`.

    Args:
        model, x, y, loss, batch_size: as for :func:`hessian_vector_product`.
        tolerance: relative, > 0; below 1e-6 it needs a float64 model.

    Raises:
        ValueError, RuntimeError: as :func:`hessian_eigenpairs`.

    Example:
        >>> x, y = torch.tensor([[1.0, 0.0], [0.0, 2.0]]), torch.zeros(2, 1)
        >>> round(sharpness(nn.Linear(2, 1, bias=False), x, y, loss=F.mse_loss), 4)
        4.0
    """
    values, _ = hessian_eigenpairs(model, x, y, loss=loss, batch_size=batch_size, tolerance=tolerance)
    return float(values[0])


def adaptive_sharpness(
    model: nn.Module,
    x: torch.Tensor,
    y: torch.Tensor,
    *,
    loss: Loss = F.cross_entropy,
    batch_size: int = 1000,
    tolerance: float = 1e-5,
) -> float:
    r"""The largest eigenvalue of :math:`\operatorname{diag}|\theta|\, H \operatorname{diag}|\theta|`.

    It is the curvature with every parameter measured in units of its own size. Where a change of the parameters
    :math:`\theta \mapsto D\theta` with a positive diagonal D leaves the function alone, as in a ReLU network whose unit
    has its incoming weights multiplied by c and its outgoing ones divided by c, this number stays the same;
    :func:`sharpness` does not.

    Args:
        model, x, y, loss, batch_size, tolerance: as for :func:`sharpness`.

    Raises:
        ValueError, RuntimeError: as :func:`hessian_eigenpairs`.

    Source: after J. Kwon et al., ASAM: Adaptive Sharpness-Aware Minimization, ICML (2021), for a small radius.

    Example:
        >>> model = nn.Linear(2, 1, bias=False)
        >>> with torch.no_grad():
        ...     _ = model.weight.copy_(torch.tensor([[3.0, 0.5]]))
        >>> x, y = torch.tensor([[1.0, 0.0], [0.0, 2.0]]), torch.zeros(2, 1)
        >>> round(adaptive_sharpness(model, x, y, loss=F.mse_loss), 4)
        9.0
    """
    size = torch.cat([p.detach().abs().reshape(-1) for p in _trainable(model)])
    values, _ = hessian_eigenpairs(model, x, y, scale=size, loss=loss, batch_size=batch_size, tolerance=tolerance)
    return float(values[0])


def hessian_trace(
    model: nn.Module,
    x: torch.Tensor,
    y: torch.Tensor,
    *,
    samples: int = 100,
    loss: Loss = F.cross_entropy,
    batch_size: int = 1000,
    seed: int = 0,
) -> TraceEstimate:
    r"""Hutchinson's estimate of the trace of the Hessian, the sum of all its eigenvalues.

    .. math:: \operatorname{tr} H = \mathbb E\, z^\top H z, \qquad z_i = \pm 1 \text{ with probability } \tfrac12

    Args:
        model, x, y, loss, batch_size: as for :func:`hessian_vector_product`.
        samples: how many random vectors z, >= 2.
        seed: of these, >= 0.

    Returns:
        Mean and standard error over the vectors. Off-diagonal entries make the error: for a diagonal Hessian it is 0.

    Raises:
        ValueError: as :func:`hessian_vector_product`.

    Source: M. Hutchinson, A Stochastic Estimator of the Trace of the Influence Matrix (1990).

    Example:
        >>> x, y = torch.tensor([[1.0, 0.0], [0.0, 2.0]]), torch.zeros(2, 1)
        >>> hessian_trace(nn.Linear(2, 1, bias=False), x, y, samples=4, loss=F.mse_loss)
        TraceEstimate(value=5.0, standard_error=0.0, samples=4)
    """
    samples = _check.integer("samples", samples, 2)
    generator = torch.Generator().manual_seed(_check.integer("seed", seed, 0))
    like = next((p for p in model.parameters() if p.requires_grad), None)
    with _products(model, x, y, loss, batch_size) as (multiply, d):
        values = []
        for _ in range(samples):
            z = (2 * torch.randint(0, 2, (d,), generator=generator) - 1).to(like)
            values.append(torch.dot(z, multiply(z)).item())
    return TraceEstimate(float(np.mean(values)), float(np.std(values, ddof=1) / np.sqrt(samples)), samples)
