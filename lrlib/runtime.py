"""What a run depends on besides its code: scale, device, threads, random numbers; what it keeps, and files whole."""

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

import torch
from torch import nn

from lrlib import _check

__all__ = ["scale_name", "at_scale", "device", "seeded", "setup"]


def scale_name() -> str:
    """The scale of this run, from the environment variable `LRLIB_SCALE`: "tour" (default), "small" or "full".

    Raises:
        ValueError: the variable holds anything else.
    """
    return _check.choice("LRLIB_SCALE", os.environ.get("LRLIB_SCALE", "tour"), ("tour", "small", "full"))


def at_scale(*, tour, full):
    """`tour` or `full`, whichever is the scale of this run.

    The small scale is the full programme cut short: it takes from `full` what is callable, as that makes the data, and
    all else, such as sizes, from `tour`.

    Example:
        >>> at_scale(tour=200, full=10_000)
        200
    """
    scale = scale_name()
    return full if scale == "full" or (scale == "small" and callable(full)) else tour


def device() -> torch.device:
    """Where to train: the CPU at tour scale, otherwise a CUDA or Apple GPU when there is one."""
    if scale_name() != "tour":
        if torch.cuda.is_available():
            return torch.device("cuda")
        if torch.backends.mps.is_available():
            return torch.device("mps")
    return torch.device("cpu")


@contextlib.contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Draw torch's random numbers from `seed` inside the block; the generators outside are left as they were.

    These are the CPU's and, where CUDA was in use before the block, those of all its devices. That of an Apple GPU, or
    of a CUDA device first used later, goes on from the seed; those of Python and NumPy are not touched.

    Args:
        seed: an integer >= 0.

    Raises:
        ValueError: `seed` is negative.

    Example:
        >>> with seeded(0):
        ...     a = torch.rand(())
        >>> with seeded(0):
        ...     b = torch.rand(())
        >>> bool(a == b)
        True
    """
    seed = _check.seed("seed", seed)
    cuda = range(torch.cuda.device_count()) if torch.cuda.is_initialized() else []
    with torch.random.fork_rng(devices=cuda):
        torch.manual_seed(seed)
        yield


@contextlib.contextmanager
def modes_kept(model: nn.Module) -> Iterator[None]:
    """Every module has after the block the training mode that it had before, also after an error.

    Example:
        >>> model = nn.Sequential(nn.Dropout(), nn.Linear(1, 1).eval())
        >>> with modes_kept(model):
        ...     _ = model.eval()
        >>> [module.training for module in model]
        [True, False]
    """
    modes = [(module, module.training) for module in model.modules()]
    try:
        yield
    finally:
        for module, mode in modes:
            module.training = mode


@contextlib.contextmanager
def buffers_kept(model: nn.Module) -> Iterator[None]:
    """Inside the block a model has copies of its buffers, and after it its own again, also rebound and new ones.

    Example:
        >>> norm = nn.BatchNorm1d(1)
        >>> with buffers_kept(norm):
        ...     _ = norm.running_mean.fill_(3.0)
        >>> norm.running_mean
        tensor([0.])
    """
    own = [(module, dict(module._buffers)) for module in model.modules()]
    copies = {id(buffer): buffer.clone() for _, buffers in own for buffer in buffers.values() if buffer is not None}
    for module, buffers in own:
        module._buffers.update({name: copies.get(id(buffer)) for name, buffer in buffers.items()})
    try:
        yield
    finally:
        for module, buffers in own:
            module._buffers.clear()
            module._buffers.update(buffers)


@contextlib.contextmanager
def put_in_place(path: Path) -> Iterator[Path]:
    """A path beside this one to write to, moved there after the block: no half-written file ever stands there.

    Example:
        >>> import tempfile
        >>> path = Path(tempfile.mkdtemp()) / "a.txt"
        >>> with put_in_place(path) as beside:
        ...     _ = beside.write_text("all of it")
        >>> path.read_text()
        'all of it'
    """
    beside = path.with_name(f"{path.name}.{os.getpid()}.part")
    try:
        yield beside
        beside.replace(path)
    finally:
        beside.unlink(missing_ok=True)


def setup() -> None:
    """Begin a chapter: one thread on the CPU (small networks are fastest so), the book's figure style, the scale."""
    from lrlib import plotting

    if device().type == "cpu":
        torch.set_num_threads(1)
    plotting.use_style()
    print(f"scale: {scale_name()}")
