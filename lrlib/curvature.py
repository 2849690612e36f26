r"""Curvature of a network's loss: the extreme eigenvalues of its Hessian, and sharpness, also of many replicas at once.

The loss is the mean over the examples, :math:`L(\theta) = \frac1N \sum_i \ell(f_\theta(x_i), y_i)`, and :math:`H` its
Hessian over all trainable parameters, of shape (d, d). It is never formed: all is made of products by differentiating
twice, each about two gradients' work (B. Pearlmutter, Neural Computation 6, 1994),

.. math:: H v = \nabla_\theta \,\big\langle \nabla_\theta L(\theta),\, v \big\rangle .

Networks are taken in evaluation mode, so BatchNorm layers use their running statistics and the loss of an example does
not depend on the others. Parameters, their `.grad` and all modes are left as they were. A vector of shape (d,) lists
the trainable parameters as in :mod:`lrlib.planes`.
"""

import contextlib
from collections.abc import Callable, Iterator, Sequence

import numpy as np
import torch
from scipy.sparse.linalg import LinearOperator, eigsh
from torch import nn
from torch.nn import functional as F
from torch.nn.attention import SDPBackend, sdpa_kernel

from lrlib import _check, runtime
from lrlib.landscape import Loss, scalar
from lrlib.minibatches import check_data
from lrlib.planes import trainable
from lrlib.stack import Stack, check_statistics

__all__ = ["hessian_eigenpairs", "sharpness", "adaptive_sharpness"]

DENSE = 40  # up to this many parameters the whole matrix is as cheap as Lanczos, and exact
TOLERANCE = 1e-5  # of an eigenvalue of one network, relative; float32 gives no less than 1e-6
PRODUCTS = 2000  # the most that Lanczos may spend, about
ENDS = {"largest": "LA", "smallest": "SA", "modulus": "LM"}  # of the spectrum, as ARPACK names them
Products = Callable[[torch.Tensor], torch.Tensor]  # vectors (R, d), one a replica, times the Hessian of each


def _check_gradients(gradients: Sequence[torch.Tensor]) -> None:
    """Refuse what differentiating again would take for a constant, and sparse ones."""
    if any(g.layout != torch.strided for g in gradients):
        raise ValueError("model: has sparse gradients, which have no derivative; must be made with sparse=False")
    seen, following = set(), [g.grad_fn for g in gradients]
    while following:
        node = following.pop()
        if node is not None and node not in seen:
            seen.add(node)
            following.extend(input for input, _ in node.next_functions)
            if node.name() == "torch::autograd::Error":
                raise ValueError("model: has a function that is once_differentiable, must have a second derivative")


@contextlib.contextmanager
def _products(
    model: nn.Module,
    x: torch.Tensor,
    y: torch.Tensor,
    loss: Loss,
    batch_size: int,
    units: Sequence[torch.Tensor] | None = None,
) -> Iterator[tuple[Products, torch.Tensor]]:
    """Products with H, or with diag(s) H diag(s) for `units` s, and θ, shape (R, d); R = 1 for a plain module.

    For data of one batch the graph is built once. What is not finite in a replica's loss or gradient makes its products
    NaN.
    """
    batch_size = _check.integer("batch_size", batch_size, 1)
    if isinstance(model, Stack):
        size, axis, template, parameters = model.size, 1, model.template, list(model.weights)
    else:
        size, axis, template, parameters = 1, 0, model, list(trainable(model).values())
    check_data(*(part.movedim(axis, 0) if isinstance(part, torch.Tensor) else part for part in (x, y)))
    check_statistics(template, x.shape[axis], batch_size)
    if units is not None and [unit.shape for unit in units] != [p.shape for p in parameters]:
        shapes = [tuple(unit.shape) for unit in units]
        raise ValueError(f"units: have the shapes {shapes}, must be those of {[tuple(p.shape) for p in parameters]}")
    chunks = list(zip(x.split(batch_size, axis), y.split(batch_size, axis), strict=True))
    sizes = [p.numel() // size for p in parameters]

    def flat(tensors: Sequence[torch.Tensor]) -> torch.Tensor:
        return torch.cat([t.detach().reshape(size, -1) for t in tensors], 1)

    def gradient(xs: torch.Tensor, ys: torch.Tensor) -> Sequence[torch.Tensor]:
        with runtime.buffers_kept(model):
            values = model.losses(xs, ys, loss) if isinstance(model, Stack) else scalar(loss(model(xs), ys))
        if not isinstance(model, Stack) and not values.isfinite():
            raise ValueError(f"loss: is {values.item()}, must be finite for a curvature")
        if not values.requires_grad:
            raise ValueError("loss: its value must depend differentiably on the model's parameters; it has no gradient")
        share = xs.shape[axis] / x.shape[axis] + 0 * values.detach()  # NaN where the loss is not finite
        found = torch.autograd.grad((share * values).sum(), parameters, create_graph=True, materialize_grads=True)
        _check_gradients(found)
        return found

    def product(gradients: Sequence[torch.Tensor], vectors: torch.Tensor) -> torch.Tensor:
        total = 0 * flat(gradients)  # NaN where the gradient is not finite
        parts = [part.view_as(p) for part, p in zip(vectors.split(sizes, 1), parameters, strict=True)]
        inner = sum(((g * part).sum() for g, part in zip(gradients, parts, strict=True)), torch.zeros(()).to(total))
        if inner.requires_grad:  # else the loss is linear in the parameters
            retain = kept is not None
            try:
                total += flat(torch.autograd.grad(inner, parameters, retain_graph=retain, materialize_grads=True))
            except RuntimeError as error:
                if "is not implemented" not in str(error):
                    raise
                raise ValueError(f"model, loss: must have second derivatives: {error}") from error
        return total

    recurrent = any(isinstance(layer, nn.RNNBase) for layer in template.modules())  # cuDNN's have no second derivative
    kernels = torch.backends.cudnn.flags(enabled=False) if recurrent else contextlib.nullcontext()
    with sdpa_kernel(SDPBackend.MATH), kernels, torch.enable_grad(), runtime.modes_kept(model):
        model.eval()
        kept, theta = gradient(*chunks[0]) if len(chunks) == 1 else None, flat(parameters)
        unit = 1.0 if units is None else flat(units)

        def multiply(vectors: torch.Tensor) -> torch.Tensor:
            return unit * torch.stack([product(kept or gradient(*chunk), unit * vectors) for chunk in chunks]).sum(0)

        yield multiply, theta


def hessian_eigenpairs(
    model: nn.Module,
    x: torch.Tensor,
    y: torch.Tensor,
    k: int = 1,
    *,
    which: str = "largest",
    loss: Loss = F.cross_entropy,
    batch_size: int = 1000,
) -> tuple[np.ndarray, np.ndarray]:
    r"""The k largest or smallest (most negative) eigenvalues of the Hessian, with their eigenvectors, by Lanczos.

    Args:
        model: any module; see the module's text on its mode.
        x, y: inputs (N, ...) and targets (N, ...), N >= 1, on the model's device.
        k: how many, 1 <= k < d; of up to 40 parameters also all d.
        which: "largest" or "smallest", by value and not by modulus.
        loss: maps the model's output and targets to a scalar, the mean over the examples.
        batch_size: examples at a time, >= 1; bounds the memory and changes the result by rounding only.

    Returns:
        Eigenvalues, shape (k,), to a relative error of 1e-5, or about 1e-6 of the largest modulus in float32, the most
        extreme one first, and unit eigenvectors, shape (k, d); both float64.

    Raises:
        ValueError: an argument is out of range, shapes disagree, the loss is not a finite, differentiable scalar, the
            Hessian is not finite, or the model has a layer without second derivatives.
        RuntimeError: it did not converge within about 2,000 products.

    Source: Lanczos iteration by ARPACK, through `scipy.sparse.linalg.eigsh`.

    Example:
        >>> model = nn.Linear(2, 1, bias=False)
        >>> x, y = torch.tensor([[1.0, 0.0], [0.0, 2.0]]), torch.zeros(2, 1)
        >>> hessian_eigenpairs(model, x, y, loss=F.mse_loss)[0].round(4)
        array([4.])
    """
    if isinstance(model, Stack):
        raise ValueError("model: is a stack, must be one network; sharpness takes both")
    _check.choice("which", which, ("largest", "smallest"))
    with _products(model, x, y, loss, batch_size) as (multiply, theta):
        k, d = _check.integer("k", k, 1), theta.shape[1]
        most = d if d <= DENSE else d - 1
        if k > most:
            raise ValueError(f"k={k!r}: must be <= {most} for {d} trainable parameters")
        if d <= DENSE or (which, k) == ("largest", 1):
            return _eigenpairs(multiply, theta, k, which)
        if which == "smallest":
            return _smallest(multiply, theta, k)
        values, vectors = _smallest(lambda v: -multiply(v), theta, k)
        return -values, vectors


def _smallest(multiply: Products, theta: torch.Tensor, k: int) -> tuple[np.ndarray, np.ndarray]:
    """Of H + cI, as ARPACK asks for a share of an eigenvalue, and so for too much near zero.

    One after the other, each from a start of its own and with those before moved to the other end: of a multiple
    eigenvalue, such as the zero of a singular H, one start shows one vector.
    """
    shift = 2 * abs(_eigenpairs(multiply, theta, 1, "modulus", tolerance=0.1)[0][0])
    values, vectors = np.empty(0), np.empty((0, theta.shape[1]))
    for seed in range(k):
        known = torch.as_tensor(vectors).to(theta)

        def others(v: torch.Tensor, known=known) -> torch.Tensor:
            return multiply(v) + shift * v + 4 * shift * (v @ known.T) @ known

        value, vector = _eigenpairs(others, theta, 1, "smallest", seed)
        values = np.append(values, value - shift)
        vectors = np.linalg.qr(np.vstack([vectors, vector]).T)[0].T
    order = np.argsort(values)
    return values[order], vectors[order]


def _eigenpairs(
    multiply: Products, theta: torch.Tensor, k: int, which: str, seed: int = 0, tolerance: float = TOLERANCE
) -> tuple[np.ndarray, np.ndarray]:
    d = theta.shape[1]

    def matvec(v: np.ndarray) -> np.ndarray:
        product = multiply(torch.as_tensor(v.reshape(1, -1)).to(theta))
        if not product.isfinite().all():
            raise ValueError("model: has a gradient or a Hessian that is not finite at its parameters")
        return product[0].double().cpu().numpy()

    start = np.random.default_rng(seed).standard_normal(d)
    if d <= DENSE:
        H = np.stack([matvec(unit) for unit in np.eye(d)])
        values, vectors = np.linalg.eigh((H + H.T) / 2)
    elif not matvec(start).any():  # of a Hessian that is zero, which ARPACK refuses
        values, vectors = np.zeros(k), np.eye(d, k)
    else:
        operator, basis = LinearOperator((d, d), matvec=matvec, dtype=np.float64), min(d, max(2 * k + 1, 20))
        options = {"v0": start, "ncv": basis, "tol": tolerance, "maxiter": PRODUCTS // basis}
        values, vectors = eigsh(operator, k, which=ENDS[which], **options)
    order = np.argsort(values)[:: -1 if which == "largest" else 1][:k]
    return values[order], vectors[:, order].T


def _lanczos(multiply: Products, theta: torch.Tensor, iterations: int) -> np.ndarray:
    """The largest eigenvalue for each replica of a stack, by an iteration of all together."""
    v = torch.randn(theta.shape[1], generator=torch.Generator().manual_seed(0)).to(theta).expand_as(theta)
    v = v / v.norm(dim=1, keepdim=True)
    before, b = torch.zeros_like(v), torch.zeros_like(v[:, :1])
    diagonal: list[torch.Tensor] = []
    beside: list[torch.Tensor] = []
    unit = torch.ones_like(b)  # a power of two near the products, whose squares may leave float32
    for _ in range(iterations):
        w = multiply(v)
        if not diagonal:
            size = w.abs().amax(1, keepdim=True)
            unit = size / (2 * size.frexp().mantissa)
            unit = unit.where(unit.isfinite() & (unit > 0), 1.0)
        w = w / unit - b * before
        a = (w * v).sum(1, keepdim=True)
        if diagonal:  # where the iteration has come to its end, v is 0, and the row must add no eigenvalue
            a = torch.where(b == 0, diagonal[0], a)
        w = w - a * v
        before, b = v, w.norm(dim=1, keepdim=True)
        v = w / b.clamp_min(torch.finfo(b.dtype).tiny)
        diagonal.append(a)
        beside.append(b)
    main, side = torch.cat(diagonal, 1).double(), torch.cat(beside, 1).double()[:, :-1]
    T = torch.diag_embed(main) + torch.diag_embed(side, 1) + torch.diag_embed(side, -1)
    finite = T.isfinite().all(2).all(1)
    T[~finite] = 0
    return torch.where(finite, unit[:, 0].double() * torch.linalg.eigvalsh(T)[:, -1], torch.nan).cpu().numpy()


def sharpness(
    model: nn.Module,
    x: torch.Tensor,
    y: torch.Tensor,
    *,
    loss: Loss = F.cross_entropy,
    batch_size: int = 1000,
    iterations: int = 25,
    units: Sequence[torch.Tensor] | None = None,
) -> float | np.ndarray:
    r"""The largest eigenvalue of the Hessian, :math:`S = h_{\max}`; gradient descent is stable for :math:`\eta < 2/S`.

    Args:
        model: a module, or a :class:`~lrlib.Stack` of R replicas.
        x, y: inputs (N, ...) and targets (N, ...), N >= 1. For a stack (G, N, ...), where G divides R, as in
            ``Stack.losses``; ``x[None], y[None]`` is one set for all.
        loss: maps the output of a network and targets to a scalar, the mean over the examples.
        batch_size: examples at a time, >= 1; bounds the memory and changes the result by rounding only.
        iterations: of Lanczos for a stack, >= 1, one product each; 12 are right to about 1%, 25 to about 0.1%. For a
            plain module it goes on until it has converged to 1e-5.
        units: a tensor for each trainable parameter, of its shape. With s for all their entries, the largest
            eigenvalue is that of :math:`\operatorname{diag}(s)\, H \operatorname{diag}(s)`: the curvature with
            every parameter in a unit of its own.

    Returns:
        A number; for a stack shape (R,), with NaN for a replica whose loss, gradient or Hessian is not finite.

    Raises:
        ValueError, RuntimeError: as :func:`hessian_eigenpairs`.

    Example:
        >>> x, y = torch.tensor([[1.0, 0.0], [0.0, 2.0]]), torch.zeros(2, 1)
        >>> model = nn.Linear(2, 1, bias=False)
        >>> round(sharpness(model, x, y, loss=F.mse_loss), 4)
        4.0
        >>> sharpness(Stack([model, model]), x[None], y[None], loss=F.mse_loss).round(4)
        array([4., 4.])
        >>> round(sharpness(model, x, y, loss=F.mse_loss, units=[torch.tensor([[3.0, 0.5]])]), 4)
        9.0
    """
    iterations = _check.integer("iterations", iterations, 1)
    with _products(model, x, y, loss, batch_size, units) as (multiply, theta):
        if isinstance(model, Stack):
            return _lanczos(multiply, theta, iterations)
        return float(_eigenpairs(multiply, theta, 1, "largest")[0][0])


def adaptive_sharpness(model: nn.Module, x: torch.Tensor, y: torch.Tensor, **options) -> float | np.ndarray:
    r"""The largest eigenvalue of :math:`\operatorname{diag}|\theta|\, H \operatorname{diag}|\theta|`.

    It is the curvature with every parameter measured in units of its own size. Where a change of the parameters
    :math:`\theta \mapsto D\theta` with a positive diagonal D leaves the function alone, as in a ReLU network whose unit
    has its incoming weights multiplied by c and its outgoing ones divided by c, this number stays the same;
    :func:`sharpness` does not.

    Args:
        model, x, y: as for :func:`sharpness`, and so is what it returns.
        options: `loss`, `batch_size` and `iterations` of :func:`sharpness`.

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
    parameters = model.weights if isinstance(model, Stack) else trainable(model).values()
    return sharpness(model, x, y, **options, units=[p.detach().abs() for p in parameters])
