"""Labelled pictures: embedded digits, a harder set made from them, and MNIST, Fashion-MNIST and CIFAR-10.

The embedded sets need no file and no network. The real ones are read from `mnist.npz`, `fashion_mnist.npz` and
`cifar10.npz` in the folder `LRLIB_DATA` (default `~/.cache/lrlib`), which torchvision's downloads fill once.
"""

import functools
import hashlib
import http.client
import os
import tempfile
import zipfile
import zlib
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch

from lrlib import _check, _torchvision

__all__ = [
    "Dataset",
    "digits",
    "hard_digits",
    "mnist",
    "fashion_mnist",
    "cifar10",
    "load",
    "relabelled",
    "hold_out",
    "batches",
    "data_folder",
]

ARRAYS = ("x_train", "y_train", "x_test", "y_test")


@dataclass(frozen=True, eq=False, repr=False)
class Dataset:
    """Pictures and labels for training and for testing.

    Attributes:
        name: such as "digits".
        x_train, x_test: float32 pictures, (N, C, H, W), standardised: from each channel the mean over the training
            pictures is taken, then it is divided by their standard deviation.
        y_train, y_test: int64 labels in [0, num_classes), (N,).
        num_classes: the number of labels, >= 2.
        sha256: of the file that the pictures were read from, None for the embedded sets.

    Raises:
        TypeError: a field is of a wrong type.
        ValueError: shapes, dtypes or labels do not fit together.

    Example:
        >>> digits()
        Dataset('digits', train 1297, test 500, pictures 1x8x8, 10 classes)
    """

    name: str
    x_train: torch.Tensor
    y_train: torch.Tensor
    x_test: torch.Tensor
    y_test: torch.Tensor
    num_classes: int
    sha256: str | None = None

    def __post_init__(self):
        _check.integer("num_classes", self.num_classes, 2)
        for part in ("train", "test"):
            self._validate(part)
        if self.x_train.shape[1:] != self.x_test.shape[1:]:
            raise ValueError(
                f"x_test: has pictures of shape {tuple(self.x_test.shape[1:])}, "
                f"must be {tuple(self.x_train.shape[1:])}, as x_train"
            )

    def _validate(self, part: str) -> None:
        x, y = getattr(self, f"x_{part}"), getattr(self, f"y_{part}")
        for name, tensor, dtype, ndim, shape in (
            (f"x_{part}", x, torch.float32, 4, "(N, C, H, W)"),
            (f"y_{part}", y, torch.int64, 1, "(N,)"),
        ):
            if not isinstance(tensor, torch.Tensor):
                raise TypeError(f"{name}: is a {type(tensor).__name__}, must be a tensor")
            if tensor.dtype != dtype or tensor.ndim != ndim or tensor.numel() == 0:
                raise ValueError(
                    f"{name}: is {tensor.dtype} of shape {tuple(tensor.shape)}, "
                    f"must be {dtype} of shape {shape} and not empty"
                )
        if len(x) != len(y):
            raise ValueError(f"y_{part}: has {len(y)} labels, must have {len(x)}, as many as x_{part} pictures")
        low, high = y.min().item(), y.max().item()
        if low < 0 or high >= self.num_classes:
            raise ValueError(f"y_{part}: has labels from {low} to {high}, must be within [0, {self.num_classes - 1}]")

    def to(self, device: torch.device | str) -> "Dataset":
        """The same data set with its tensors on `device`."""
        return replace(self, **{name: getattr(self, name).to(device) for name in ARRAYS})

    def __repr__(self) -> str:
        shape = "x".join(map(str, self.x_train.shape[1:]))
        sizes = f"train {len(self.x_train)}, test {len(self.x_test)}"
        return f"Dataset({self.name!r}, {sizes}, pictures {shape}, {self.num_classes} classes)"


def _channels_first(pictures: np.ndarray) -> np.ndarray:
    """uint8 (N, H, W) or (N, H, W, C) to float32 (N, C, H, W)."""
    pictures = pictures[:, None] if pictures.ndim == 3 else pictures.transpose(0, 3, 1, 2)
    return pictures.astype(np.float32, order="C")


def _mean_std(x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Of each channel. The sums are of whole numbers and exact in float64, in whatever order they are taken."""
    count = x.size // x.shape[1]
    mean = x.sum(axis=(0, 2, 3), dtype=np.float64) / count
    parts = np.array_split(x, 50)  # no second copy of the whole in memory
    squares = sum(np.square(part).sum(axis=(0, 2, 3), dtype=np.float64) for part in parts)
    std = np.sqrt(squares / count - mean**2)
    return mean, np.where(std > 0, std, 1.0)


def _dataset(name: str, arrays: dict[str, np.ndarray], sha256: str | None = None) -> Dataset:
    """Standardise uint8 pictures; the arithmetic is elementwise in float32, so every CPU gives the same bits."""
    x = {part: _channels_first(arrays[f"x_{part}"]) for part in ("train", "test")}
    mean, std = (values.astype(np.float32)[:, None, None] for values in _mean_std(x["train"]))
    for pictures in x.values():
        pictures -= mean
        pictures /= std
    return Dataset(
        name,
        torch.from_numpy(x["train"]),
        torch.from_numpy(arrays["y_train"]),
        torch.from_numpy(x["test"]),
        torch.from_numpy(arrays["y_test"]),
        num_classes=10,
        sha256=sha256,
    )


@functools.cache
def _all_digits() -> tuple[np.ndarray, np.ndarray]:
    from sklearn.datasets import load_digits

    bunch = load_digits()
    return bunch.images.astype(np.uint8), bunch.target.astype(np.int64)


def _split_digits(seed: int) -> dict[str, np.ndarray]:
    from sklearn.model_selection import train_test_split

    x, y = _all_digits()
    x_train, x_test, y_train, y_test = train_test_split(x, y, test_size=500, random_state=seed, stratify=y)
    return {"x_train": x_train, "y_train": y_train, "x_test": x_test, "y_test": y_test}


def _split_seed(seed: int) -> int:
    seed = _check.integer("seed", seed, 0)
    _check.within("seed", seed, 0, 2**32 - 1)
    return seed


def digits(seed: int = 0) -> Dataset:
    """The 1,797 handwritten digits of scikit-learn, 1x8x8, split into 1,297 for training and 500 for testing.

    Args:
        seed: of the split, in [0, 2**32 - 1]; both parts have the classes in the same proportions.

    Raises:
        TypeError: the seed is not an integer.
        ValueError: the seed is out of its range.

    Source: E. Alpaydin and C. Kaynak, *Optical Recognition of Handwritten Digits*, UCI repository (1998).

    Example:
        >>> data = digits(seed=0)
        >>> data.x_train.shape, data.x_test.shape
        (torch.Size([1297, 1, 8, 8]), torch.Size([500, 1, 8, 8]))
    """
    return _dataset("digits", _split_digits(_split_seed(seed)))


CANVAS = 16  # pixels a side
SHIFT = 2  # pixels from the middle, at most, each way
FRAGMENTS = 2  # squares cut from other digits, at half brightness
FRAGMENT = 4  # pixels a side
CONTRAST = (4, 8)  # grey levels for each of the 16 steps of a digit
NOISE = 22  # grey levels up or down, at most; with 64 + 16 * 8 no picture leaves 0..255


def _paste(canvas: np.ndarray, patches: np.ndarray, low: int, high: int, rng: np.random.Generator) -> None:
    """Draw each square patch on its canvas, its corner anywhere in [low, high]^2, keeping the brighter pixels."""
    n, size, _ = patches.shape
    top, left = rng.integers(low, high + 1, size=(2, n, 1, 1))
    where = np.arange(n)[:, None, None], top + np.arange(size)[:, None], left + np.arange(size)
    canvas[where] = np.maximum(canvas[where], patches)


def _harden(x: np.ndarray, y: np.ndarray, n: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """n pictures from the digits x alone, each used equally often to within one; in whole numbers throughout."""
    source = rng.permutation(np.resize(np.arange(len(x)), n))
    canvas = np.zeros((n, CANVAS, CANVAS), dtype=np.int64)
    window = np.arange(FRAGMENT)
    for _ in range(FRAGMENTS):
        other = (source + rng.integers(1, len(x), size=n)) % len(x)
        top, left = rng.integers(0, x.shape[1] - FRAGMENT + 1, size=(2, n, 1, 1))
        fragments = x[other[:, None, None], top + window[:, None], left + window] // 2
        _paste(canvas, fragments, 0, CANVAS - FRAGMENT, rng)
    middle = (CANVAS - x.shape[1]) // 2
    _paste(canvas, x[source], middle - SHIFT, middle + SHIFT, rng)
    contrast = rng.integers(CONTRAST[0], CONTRAST[1] + 1, size=(n, 1, 1))
    noise = rng.integers(-NOISE, NOISE + 1, size=canvas.shape)
    return (64 + contrast * canvas + noise).astype(np.uint8), y[source]


def hard_digits(seed: int = 0, n_train: int = 4000, n_test: int = 1000) -> Dataset:
    """Digits that take some generalising: 1x16x16 pictures made on the fly from those of :func:`digits`.

    Each shows a digit up to 2 pixels off the middle, at a random contrast, before fragments of two other digits and
    in noise. Training pictures are made from the training digits of ``digits(seed)`` alone, test pictures from its
    test digits. Test accuracy after 300 steps of SGD (batch 64, momentum 0.9, cosine rate), mean and standard
    deviation, n = 6 seeds: 60.4 ± 1.3 % for ``mlp(256, 64, 10)`` from rate 0.05, 85.1 ± 1.4 % for ``conv_net(8)`` and
    91.0 ± 1.4 % for ``conv_net(16)`` from rate 0.2.

    Args:
        seed: of the split and of everything random, in [0, 2**32 - 1]. The same on every CPU.
        n_train, n_test: numbers of pictures, >= 1.

    Raises:
        TypeError: an argument is not an integer.
        ValueError: an argument is out of its range.

    Example:
        >>> hard_digits(n_train=2000)
        Dataset('hard_digits', train 2000, test 1000, pictures 1x16x16, 10 classes)
    """
    seed = _split_seed(seed)
    sizes = {"train": _check.integer("n_train", n_train, 1), "test": _check.integer("n_test", n_test, 1)}
    plain, arrays = _split_digits(seed), {}
    for stream, (part, n) in enumerate(sizes.items()):
        rng = np.random.default_rng([seed, stream])
        arrays[f"x_{part}"], arrays[f"y_{part}"] = _harden(plain[f"x_{part}"], plain[f"y_{part}"], n, rng)
    return _dataset("hard_digits", arrays)


def data_folder() -> Path:
    """The folder of the real data sets: `LRLIB_DATA` if it is set, else `~/.cache/lrlib`."""
    return Path(os.environ.get("LRLIB_DATA") or "~/.cache/lrlib").expanduser()


@dataclass(frozen=True)
class _Source:
    shape: tuple[int, ...]  # of one picture in the .npz
    torchvision: str  # the class that downloads and decodes the set
    raw: str  # where that class keeps its files, inside the data folder


_SOURCES = {
    "mnist": _Source((28, 28), "MNIST", "MNIST"),
    "fashion_mnist": _Source((28, 28), "FashionMNIST", "FashionMNIST"),
    "cifar10": _Source((32, 32, 3), "CIFAR10", "cifar-10-batches-py"),
}


def _download(name: str, folder: Path) -> dict[str, np.ndarray]:
    """Fetch and decode through torchvision; files that it finds in the folder are not fetched again."""
    source, path, arrays = _SOURCES[name], folder / f"{name}.npz", {}
    try:
        folder.mkdir(parents=True, exist_ok=True)
        make = getattr(_torchvision.datasets(), source.torchvision)
        for part in ("train", "test"):
            decoded = make(folder, train=part == "train", download=True)
            arrays[f"x_{part}"] = np.asarray(decoded.data, dtype=np.uint8)
            arrays[f"y_{part}"] = np.asarray(decoded.targets, dtype=np.int64)
    except Exception as error:
        reason = " ".join(f"{type(error).__name__}: {error}".split())
        raw = folder / source.raw
        unpacked = len(list(raw.rglob("*-ubyte"))) == 4  # then a RuntimeError comes from reading, not from fetching
        absent = (OSError, http.client.HTTPException, ImportError) + (() if unpacked else (RuntimeError,))
        if isinstance(error, absent):
            raise FileNotFoundError(
                f"{name}: there is no {path}, and torchvision could not get it ({reason}): connect to a network, "
                f"or put {path.name} into {folder}, or set LRLIB_DATA to the folder that holds it"
            ) from error
        raise ValueError(f"{raw}: is damaged ({reason}): delete it and run again") from error
    return arrays


def _save(path: Path, arrays: dict[str, np.ndarray]) -> None:
    """Write beside the place and rename, so that no half-written file ever stands there."""
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=path.name, suffix=".part")
    try:
        with os.fdopen(handle, "wb") as file:
            np.savez(file, **arrays)
        os.chmod(temporary, 0o644)
        os.replace(temporary, path)
    except BaseException:
        os.unlink(temporary)
        raise


def _read(path: Path) -> tuple[dict[str, np.ndarray], str]:
    """The arrays of a .npz file that bear our names, and the file's sha256."""
    with path.open("rb") as file:
        sha256 = hashlib.file_digest(file, "sha256").hexdigest()
        if not zipfile.is_zipfile(file):
            raise ValueError(f"{path}: is truncated or no .npz file: delete it or put a whole one there")
        file.seek(0)
        try:
            with np.load(file, allow_pickle=False) as arrays:
                return {key: arrays[key] for key in ARRAYS if key in arrays}, sha256
        except (zipfile.BadZipFile, zlib.error, EOFError, ValueError) as error:
            reason = " ".join(str(error).split())
            raise ValueError(f"{path}: is damaged ({reason}): delete it or put a whole one there") from error


def _validate_file(path: Path, arrays: dict[str, np.ndarray], shape: tuple[int, ...]) -> None:
    missing = [key for key in ARRAYS if key not in arrays]
    if missing:
        raise ValueError(f"{path}: has no {', '.join(missing)}, must have the arrays {', '.join(ARRAYS)}")
    for key in ARRAYS:
        array = arrays[key]
        dtype, tail, allowed = np.int64, (), "(N,)"
        if key.startswith("x"):
            dtype, tail, allowed = np.uint8, shape, f"(N, {', '.join(map(str, shape))})"
        if array.dtype != dtype or array.ndim == 0 or array.shape[1:] != tail or len(array) == 0:
            raise ValueError(
                f"{path}: {key} is {array.dtype} of shape {array.shape}, "
                f"must be {np.dtype(dtype)} of shape {allowed} and not empty"
            )
    for part in ("train", "test"):
        x, y = arrays[f"x_{part}"], arrays[f"y_{part}"]
        if len(x) != len(y):
            raise ValueError(f"{path}: y_{part} has {len(y)} labels, must have {len(x)}, one for each picture")
        if y.min() < 0 or y.max() > 9:
            raise ValueError(f"{path}: y_{part} has labels from {y.min()} to {y.max()}, must be within [0, 9]")


def _real(name: str) -> Dataset:
    folder = data_folder()
    path = folder / f"{name}.npz"
    if not path.exists():
        arrays = _download(name, folder)
        _validate_file(folder / _SOURCES[name].raw, arrays, _SOURCES[name].shape)
        _save(path, arrays)
    arrays, sha256 = _read(path)
    _validate_file(path, arrays, _SOURCES[name].shape)
    return _dataset(name, arrays, sha256)


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
    return _real("mnist")


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
    return _real("fashion_mnist")


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
    return _real("cifar10")


_LOADERS = {loader.__name__: loader for loader in (digits, hard_digits, mnist, fashion_mnist, cifar10)}


def load(name: str) -> Dataset:
    """A data set by name: "digits", "hard_digits", "mnist", "fashion_mnist" or "cifar10", with its defaults.

    Raises:
        ValueError: the name is none of these; also what the set's own function raises.

    Example:
        >>> load("digits").name
        'digits'
    """
    return _LOADERS[_check.choice("name", name, _LOADERS)]()


def relabelled(data: Dataset, fraction: float, seed: int = 0) -> Dataset:
    """The same data with about this fraction of the training labels drawn anew; the test labels stay true.

    Each training label is drawn anew with probability p, uniformly from the c classes. One in c of those drawn is
    right by chance, so that a share of p (1 - 1/c) is wrong, and gradients stay noisy however long one trains.

    Args:
        data: any data set.
        fraction: p, in [0, 1].
        seed: of the choice and of the draws, >= 0.

    Raises:
        TypeError: an argument is of a wrong type.
        ValueError: an argument is out of its range.

    Example:
        >>> noisy = relabelled(digits(), 0.2)
        >>> noisy.name, round((noisy.y_train != digits().y_train).double().mean().item(), 2)
        ('noisy digits', 0.19)
    """
    fraction = _check.within("fraction", fraction, 0.0, 1.0)
    generator = torch.Generator().manual_seed(_check.integer("seed", seed, 0))
    chosen = torch.rand(len(data.y_train), generator=generator) < fraction
    drawn = torch.randint(data.num_classes, (len(data.y_train),), generator=generator)
    labels = torch.where(chosen, drawn, data.y_train.cpu()).to(data.y_train.device)
    return replace(data, name=f"noisy {data.name}", y_train=labels)


def hold_out(data: Dataset, fraction: float = 0.2, seed: int = 0) -> tuple[Dataset, Dataset]:
    """Set a random part of the training set apart, to choose with, so that the test set is read only once.

    Args:
        data: any data set of N training examples.
        fraction: the share set apart, in (0, 1); the part has at least one example and leaves at least one.
        seed: of the order in which the examples are dealt, >= 0.

    Returns:
        Two data sets with the same training set, the N - floor(fraction N) examples that are left. The first has the
        test set of `data`, the second the examples set apart as its test set: train on the second to choose, on the
        first to report.

    Raises:
        TypeError: an argument is of a wrong type.
        ValueError: an argument is out of its range, or one of the two parts would be empty.

    Example:
        >>> final, valid = hold_out(digits())
        >>> final
        Dataset('digits', train 1038, test 500, pictures 1x8x8, 10 classes)
        >>> valid
        Dataset('digits', train 1038, test 259, pictures 1x8x8, 10 classes)
    """
    total = len(data.x_train)
    count = int(_check.within("fraction", fraction, 0.0, 1.0) * total)
    if not 0 < count < total:
        raise ValueError(f"fraction={fraction!r}: sets {count} of {total} examples apart, must be some and not all")
    order = torch.randperm(total, generator=torch.Generator().manual_seed(_check.integer("seed", seed, 0)))
    held, kept = order.to(data.x_train.device).split([count, total - count])
    final = replace(data, x_train=data.x_train[kept], y_train=data.y_train[kept])
    return final, replace(final, x_test=data.x_train[held], y_test=data.y_train[held])


def batches(num_examples: int, batch_size: int, steps: int, seed: int = 0) -> Iterator[torch.Tensor]:
    """The rows of each mini-batch: epoch after epoch in a new random order, without replacement.

    What is left of an epoch after its last whole batch is dropped. The order depends on the arguments alone, so that
    two models trained with the same seed see the same batches.

    Args:
        num_examples: N, >= 1.
        batch_size: B, between 1 and N.
        steps: the number of batches, >= 0; as many epochs are begun as they take.
        seed: of the order, in [0, 2**63 - 1].

    Returns:
        An iterator of `steps` int64 tensors of shape (B,) on the CPU, with values in [0, N).

    Raises:
        TypeError: an argument is not an integer.
        ValueError: an argument is out of its range.

    Example:
        >>> [rows.tolist() for rows in batches(num_examples=5, batch_size=2, steps=3, seed=0)]
        [[4, 0], [1, 3], [3, 4]]
    """
    num_examples = _check.integer("num_examples", num_examples, 1)
    batch_size = _check.integer("batch_size", batch_size, 1)
    steps = _check.integer("steps", steps, 0)
    seed = _check.integer("seed", seed, 0)
    _check.within("seed", seed, 0, 2**63 - 1)
    if batch_size > num_examples:
        raise ValueError(f"batch_size={batch_size!r}: must be <= num_examples={num_examples!r}")
    return _batches(num_examples, batch_size, steps, torch.Generator().manual_seed(seed))


def _batches(num_examples: int, batch_size: int, steps: int, generator: torch.Generator) -> Iterator[torch.Tensor]:
    per_epoch = num_examples // batch_size
    for step in range(steps):
        if step % per_epoch == 0:
            order = torch.randperm(num_examples, generator=generator)
        start = step % per_epoch * batch_size
        yield order[start : start + batch_size]
