"""MNIST, Fashion-MNIST and CIFAR-10, read from `mnist.npz`, `fashion_mnist.npz` and `cifar10.npz`.

The files lie in the folder `LRLIB_DATA` (default `~/.cache/lrlib`). One that is not there is made, once, from what
torchvision downloads.
"""

import hashlib
import os
from pathlib import Path

import numpy as np

from lrlib import _torchvision, runtime
from lrlib.data import ARRAYS, Dataset, check_arrays, standardised

__all__ = ["mnist", "fashion_mnist", "cifar10"]


def _check_arrays(where: Path, arrays: dict[str, np.ndarray], shape: tuple[int, ...]) -> None:
    if missing := [key for key in ARRAYS if key not in arrays]:
        raise ValueError(f"{where}: has no {', '.join(missing)}, must have the arrays {', '.join(ARRAYS)}")
    check_arrays(arrays, {**Dataset.forms, "x": ("uint8", ("N", *shape))}, 10, where=f"{where}: ")


def _download(path: Path, kind: str) -> dict[str, np.ndarray]:
    """Fetch and decode through torchvision; files that it finds in the folder are not fetched again."""
    arrays = {}
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        for part in ("train", "test"):
            decoded = getattr(_torchvision.datasets(), kind)(path.parent, train=part == "train", download=True)
            arrays[f"x_{part}"] = np.asarray(decoded.data, dtype=np.uint8)
            arrays[f"y_{part}"] = np.asarray(decoded.targets, dtype=np.int64)
    except Exception as error:
        reason = " ".join(f"{type(error).__name__}: {error}".split())
        raise FileNotFoundError(
            f"{path.stem}: there is no {path}, and torchvision could not get it ({reason}): connect to a network, "
            f"delete a damaged download from {path.parent}, put {path.name} there, or set LRLIB_DATA to the folder "
            "that holds it"
        ) from error
    return arrays


def _read(path: Path) -> tuple[dict[str, np.ndarray], str]:
    """The arrays of a .npz file that bear our names, and the file's sha256."""
    with path.open("rb") as file:
        sha256 = hashlib.file_digest(file, "sha256").hexdigest()
        file.seek(0)
        try:
            with np.load(file, allow_pickle=False) as arrays:
                return {key: arrays[key] for key in ARRAYS if key in arrays}, sha256
        except Exception as error:  # damaged lists of a zip file raise errors of every kind
            problem = "is damaged or no .npz file of plain arrays: delete it or put a whole one there"
            raise ValueError(f"{path}: {problem}") from error


def _dataset(name: str, kind: str, shape: tuple[int, ...]) -> Dataset:
    """From its file, made from torchvision's class `kind` where there is none; `shape` is that of a stored picture."""
    path = Path(os.environ.get("LRLIB_DATA") or "~/.cache/lrlib").expanduser() / f"{name}.npz"
    if not path.exists():
        arrays = _download(path, kind)
        _check_arrays(path.parent / kind, arrays, shape)
        with runtime.put_in_place(path) as partial, partial.open("wb") as file:
            np.savez(file, allow_pickle=False, **arrays)
    arrays, sha256 = _read(path)
    _check_arrays(path, arrays, shape)
    return standardised(name, arrays, sha256)


def mnist() -> Dataset:
    """MNIST: 60,000 and 10,000 handwritten digits, 1x28x28.

    Read from `mnist.npz` in the folder `LRLIB_DATA` (default `~/.cache/lrlib`). If it is not there, torchvision
    downloads the set into that folder, and the file is written.

    Raises:
        FileNotFoundError: the file is not there and cannot be had; the message says what to do.
        ValueError: the file is damaged, or holds something else; the message names it.

    Source: Y. LeCun, L. Bottou, Y. Bengio, P. Haffner, *Gradient-based learning applied to document recognition*
    (1998).

    Example:
        >>> mnist()  # doctest: +SKIP
        Dataset('mnist', train 60000, test 10000, pictures 1x28x28, 10 classes)
    """
    return _dataset("mnist", "MNIST", (28, 28))


def fashion_mnist() -> Dataset:
    """Fashion-MNIST: 60,000 and 10,000 pictures of clothes, 1x28x28, from `fashion_mnist.npz` as in :func:`mnist`.

    Raises:
        FileNotFoundError: the file is not there and cannot be had; the message says what to do.
        ValueError: the file is damaged, or holds something else; the message names it.

    Source: H. Xiao, K. Rasul, R. Vollgraf, *Fashion-MNIST: a novel image dataset for benchmarking machine learning
    algorithms* (2017).

    Example:
        >>> fashion_mnist()  # doctest: +SKIP
        Dataset('fashion_mnist', train 60000, test 10000, pictures 1x28x28, 10 classes)
    """
    return _dataset("fashion_mnist", "FashionMNIST", (28, 28))


def cifar10() -> Dataset:
    """CIFAR-10: 50,000 and 10,000 colour pictures of things, 3x32x32, from `cifar10.npz` as in :func:`mnist`.

    In float32 it takes 740 MB of memory.

    Raises:
        FileNotFoundError: the file is not there and cannot be had; the message says what to do.
        ValueError: the file is damaged, or holds something else; the message names it.

    Source: A. Krizhevsky, *Learning multiple layers of features from tiny images* (2009).

    Example:
        >>> cifar10()  # doctest: +SKIP
        Dataset('cifar10', train 50000, test 10000, pictures 3x32x32, 10 classes)
    """
    return _dataset("cifar10", "CIFAR10", (32, 32, 3))
