"""Labelled pictures for training and testing: scikit-learn's digits, a harder set made from them, and what is done to
any such set: wrong labels, a held-out part, mini-batches. Nothing here needs a file or a network.
"""

import itertools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import ClassVar

import numpy as np
import torch

from lrlib import _check

__all__ = ["Dataset", "digits", "hard_digits", "relabelled", "hold_out", "batches"]

ARRAYS = ("x_train", "y_train", "x_test", "y_test")
Forms = Mapping[str, tuple[str, Sequence[str | int]]]  # the dtypes and shapes of "x" and "y"


def check_arrays(
    arrays: Mapping[str, np.ndarray | torch.Tensor], forms: Forms, num_classes: int, where: str = ""
) -> None:
    """The arrays have these forms, none is empty, and those of int64 hold numbers in [0, num_classes).

    A letter in a shape is one length wherever it stands, N one in each part. The errors' messages begin with `where`.
    """
    lengths: dict[str | int, int] = {}
    for name in ARRAYS:
        array, (dtype, axes) = arrays[name], forms[name[0]]
        if name.startswith("x"):
            lengths.pop("N", None)
        must = tuple(lengths.get(axis, axis) for axis in axes)
        found, shape = str(array.dtype).removeprefix("torch."), tuple(array.shape)
        fits = len(shape) == len(must) and all(isinstance(a, str) or a == b for a, b in zip(must, shape, strict=True))
        if found != dtype or not fits or 0 in shape:
            allowed = f"{dtype} of shape {must}".replace("'", "")
            raise ValueError(f"{where}{name}: is {found} of shape {shape}, must be {allowed}, not empty")
        lengths |= zip(axes, shape, strict=True)
        if dtype == "int64" and not 0 <= array.min() <= array.max() < num_classes:
            numbers = f"numbers from {array.min()} to {array.max()}"
            raise ValueError(f"{where}{name}: has {numbers}, must be in [0, {num_classes - 1}]")


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

    forms: ClassVar[Forms] = {"x": ("float32", "NCHW"), "y": ("int64", "N")}

    name: str
    x_train: torch.Tensor
    y_train: torch.Tensor
    x_test: torch.Tensor
    y_test: torch.Tensor
    num_classes: int
    sha256: str | None = None

    def __post_init__(self) -> None:
        _check.integer("num_classes", self.num_classes, 2)
        tensors = {name: getattr(self, name) for name in ARRAYS}
        for name, tensor in tensors.items():
            if not isinstance(tensor, torch.Tensor):
                raise TypeError(f"{name}: is a {type(tensor).__name__}, must be a tensor")
        check_arrays(tensors, self.forms, self.num_classes)

    def to(self, device: torch.device | str) -> "Dataset":
        """The same data set with its tensors on `device`."""
        return replace(self, **{name: getattr(self, name).to(device) for name in ARRAYS})

    def __repr__(self) -> str:
        shape = "x".join(map(str, self.x_train.shape[1:]))
        sizes = f"train {len(self.x_train)}, test {len(self.x_test)}"
        return f"Dataset({self.name!r}, {sizes}, pictures {shape}, {self.num_classes} classes)"


def standardised(name: str, arrays: Mapping[str, np.ndarray], sha256: str | None = None) -> Dataset:
    """A data set of ten classes, from uint8 pictures (N, H, W) or (N, H, W, C).

    The sums are of whole numbers and exact, and the rest is elementwise in float32: every CPU gives the same bits.
    """
    x, test = (a.reshape(*a.shape[:3], -1).transpose(0, 3, 1, 2) for a in (arrays["x_train"], arrays["x_test"]))
    x, test = x.astype(np.float32, order="C"), test.astype(np.float32, order="C")
    count = x.size // x.shape[1]
    mean = x.sum(axis=(0, 2, 3), dtype=np.float64) / count
    std = np.sqrt(np.einsum("nchw,nchw->c", x, x, dtype=np.float64) / count - mean**2)
    std[std == 0] = 1.0
    for pictures in (x, test):
        pictures -= mean.astype(np.float32)[:, None, None]
        pictures /= std.astype(np.float32)[:, None, None]
    y, y_test = (torch.from_numpy(arrays[key]) for key in ("y_train", "y_test"))
    return Dataset(name, torch.from_numpy(x), y, torch.from_numpy(test), y_test, num_classes=10, sha256=sha256)


def _split_digits(seed: int) -> dict[str, np.ndarray]:
    from sklearn.datasets import load_digits
    from sklearn.model_selection import train_test_split

    seed, (x, y) = _check.integer("seed", seed, 0, 2**32 - 1), load_digits(return_X_y=True)
    x, y = x.reshape(-1, 8, 8).astype(np.uint8), y.astype(np.int64)
    x_train, x_test, y_train, y_test = train_test_split(x, y, test_size=500, random_state=seed, stratify=y)
    return {"x_train": x_train, "y_train": y_train, "x_test": x_test, "y_test": y_test}


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
    return standardised("digits", _split_digits(seed))


CANVAS = 16  # pixels a side
SHIFT = 2  # pixels from the middle, at most, each way
FRAGMENTS = 2  # squares cut from other digits, at half brightness
FRAGMENT = 4  # pixels a side
CONTRAST = (4, 8)  # grey levels for each of the 16 steps of a digit
NOISE = 22  # grey levels up or down, at most; with 64 + 16 * 8 no picture leaves 0..255


def _squares(pictures: np.ndarray, side: int, low: int, high: int, rng: np.random.Generator) -> tuple:
    """The index of a square of `side` pixels in each of these pictures, its corner anywhere in [low, high]^2."""
    top, left = rng.integers(low, high + 1, size=(2, len(pictures), 1, 1))
    return pictures[:, None, None], top + np.arange(side)[:, None], left + np.arange(side)


def _harden(x: np.ndarray, y: np.ndarray, n: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """n pictures from the digits x alone, each used equally often to within one; in whole numbers throughout."""
    source, side = rng.permutation(np.resize(np.arange(len(x)), n)), x.shape[1]
    canvas = np.zeros((n, CANVAS, CANVAS), dtype=np.int64)
    for _ in range(FRAGMENTS):
        other = (source + rng.integers(1, len(x), size=n)) % len(x)
        fragments = x[_squares(other, FRAGMENT, 0, side - FRAGMENT, rng)] // 2
        where = _squares(np.arange(n), FRAGMENT, 0, CANVAS - FRAGMENT, rng)
        canvas[where] = np.maximum(canvas[where], fragments)
    middle = (CANVAS - side) // 2
    where = _squares(np.arange(n), side, middle - SHIFT, middle + SHIFT, rng)
    canvas[where] = np.maximum(canvas[where], x[source])
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
    sizes = {"train": _check.integer("n_train", n_train, 1), "test": _check.integer("n_test", n_test, 1)}
    plain = _split_digits(seed)
    arrays: dict[str, np.ndarray] = {}
    for stream, (part, n) in enumerate(sizes.items()):
        rng = np.random.default_rng([seed, stream])
        arrays[f"x_{part}"], arrays[f"y_{part}"] = _harden(plain[f"x_{part}"], plain[f"y_{part}"], n, rng)
    return standardised("hard_digits", arrays)


def relabelled(data: Dataset, fraction: float, seed: int = 0) -> Dataset:
    """The same data with about this fraction of the training labels drawn anew; the test labels stay true.

    Each training label is drawn anew with probability p, uniformly from the c classes. One in c of those drawn is
    right by chance, so that a share of p (1 - 1/c) is wrong, and gradients stay noisy however long one trains.

    Args:
        data: any data set with one label an example.
        fraction: p, in [0, 1].
        seed: of the choice and of the draws, >= 0.

    Raises:
        TypeError: an argument is of a wrong type.
        ValueError: an argument is out of its range, or the labels are not of shape (N,).

    Example:
        >>> noisy = relabelled(digits(), 0.2)
        >>> noisy.name, round((noisy.y_train != digits().y_train).double().mean().item(), 2)
        ('noisy digits', 0.19)
    """
    if data.y_train.ndim != 1:
        raise ValueError(f"data.y_train: has shape {tuple(data.y_train.shape)}, must be (N,), one label an example")
    fraction = _check.within("fraction", fraction, 0.0, 1.0)
    generator = torch.Generator().manual_seed(_check.seed("seed", seed))
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
    count = int(_check.within("fraction", fraction, 0.0, 1.0) * total + 1e-9)  # 0.29 of 100 is 28.999... in float64
    if not 0 < count < total:
        raise ValueError(f"fraction={fraction!r}: sets {count} of {total} examples apart, must be some and not all")
    order = torch.randperm(total, generator=torch.Generator().manual_seed(_check.seed("seed", seed)))
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
    batch_size = _check.integer("batch_size", batch_size, 1, num_examples)
    steps = _check.integer("steps", steps, 0)
    generator = torch.Generator().manual_seed(_check.seed("seed", seed))
    whole = num_examples // batch_size * batch_size
    epochs = (torch.randperm(num_examples, generator=generator)[:whole].split(batch_size) for _ in itertools.count())
    return itertools.islice(itertools.chain.from_iterable(epochs), steps)
