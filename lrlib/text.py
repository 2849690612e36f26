"""A text as a data set for language models: windows of characters, and for each character the one that follows."""

import functools
import hashlib
import lzma
from dataclasses import dataclass
from pathlib import Path

import torch

from lrlib import _check
from lrlib.data import Dataset

__all__ = ["Text", "shakespeare"]

FILE = Path(__file__).resolve().parents[1] / "data" / "text" / "shakespeare.txt.xz"
PARTS = {"valid": (0.90, 0.95), "test": (0.95, 1.0)}  # where each begins and ends, of the length of the text


@dataclass(frozen=True, eq=False, repr=False)
class Text(Dataset):
    """Windows of a text: the numbers of their characters, and at each place the number of the character that follows.

    Attributes:
        name: such as "shakespeare".
        x_train, x_test: int64 numbers of characters in [0, num_classes), (N, T).
        y_train, y_test: of the characters one place further, (N, T).
        num_classes: V, the number of different characters, >= 2.
        sha256: of the text, None for one of your own.
        characters: the V characters in the order of their numbers.

    Raises:
        TypeError: a field is of a wrong type.
        ValueError: shapes, dtypes or numbers do not fit together.

    Example:
        >>> data = shakespeare(length=32)
        >>> data.decode(data.x_test[1])
        " part's agreement stand?\\n\\nBAPTIS"
        >>> bool((data.encode("be")[1:] == data.encode("e")).all())
        True
    """

    forms = dict.fromkeys("xy", ("int64", "NT"))

    characters: str = ""

    def __post_init__(self) -> None:
        super().__post_init__()
        if len(set(self.characters)) != self.num_classes or len(self.characters) != self.num_classes:
            raise ValueError(f"characters={self.characters!r}: must be num_classes={self.num_classes} different ones")

    def encode(self, text: str) -> torch.Tensor:
        """The numbers of the characters of a text, (len(text),).

        Raises:
            ValueError: there is a character without a number.
        """
        if unknown := sorted(set(text) - set(self.characters)):
            raise ValueError(f"text: has {unknown[0]!r}, must be of the characters {self.characters!r}")
        return torch.tensor([self.characters.index(c) for c in text], dtype=torch.int64, device=self.x_train.device)

    def decode(self, numbers: torch.Tensor) -> str:
        """The text of numbers (N,)."""
        return "".join(self.characters[i] for i in numbers.tolist())

    def __repr__(self) -> str:
        sizes = f"train {len(self.x_train)}, test {len(self.x_test)}"
        return f"Text({self.name!r}, {sizes}, windows of {self.x_train.shape[1]}, {self.num_classes} characters)"


@functools.cache
def _read() -> tuple[torch.Tensor, str, str]:
    """The text as numbers, its characters in order, and its sha256."""
    raw = lzma.decompress(FILE.read_bytes())
    codes = torch.frombuffer(bytearray(raw), dtype=torch.uint8).long()
    different, numbers = codes.unique(return_inverse=True)
    return numbers, "".join(map(chr, different.tolist())), hashlib.sha256(raw).hexdigest()


def shakespeare(length: int = 64, held_out: str = "test", n_test: int | None = None) -> Text:
    """Plays of Shakespeare, 1.1 million characters, cut into windows side by side. It comes with the book.

    The parts are cut by position: the first 90% of the text are for training, the next 5% are the part "valid", to
    choose with, and the last 5% the part "test", to report.

    Args:
        length: T, the characters of a window, between 1 and 10,000.
        held_out: the part that stands as the test set, "valid" or "test".
        n_test: how many windows of it, evenly spread, >= 1; all if None, or if there are no more.

    Raises:
        TypeError: a number is not an integer.
        ValueError: an argument is out of its range.

    Source: the text "tiny Shakespeare" of A. Karpathy, char-rnn (2015); public domain.

    Example:
        >>> shakespeare(length=64)
        Text('shakespeare', train 15685, test 871, windows of 64, 65 characters)
        >>> data = shakespeare(length=64, held_out="valid", n_test=100)
        >>> data.x_train.shape, data.x_test.shape
        (torch.Size([15685, 64]), torch.Size([100, 64]))
        >>> bool((data.x_train[0, 1:] == data.y_train[0, :-1]).all())
        True
    """
    length = _check.integer("length", length, 1, 10_000)
    start, end = PARTS[_check.choice("held_out", held_out, PARTS)]
    numbers, characters, sha256 = _read()

    def windows(start: float, end: float) -> tuple[torch.Tensor, torch.Tensor]:
        part = numbers[int(start * len(numbers)) : int(end * len(numbers))]
        count = (len(part) - 1) // length
        x, y = part[: count * length], part[1 : count * length + 1]
        return x.view(count, length).clone(), y.view(count, length).clone()

    x, y = windows(start, end)
    if n_test is not None:
        count = min(_check.integer("n_test", n_test, 1), len(x))
        rows = torch.arange(count) * len(x) // count
        x, y = x[rows], y[rows]
    x_train, y_train = windows(0.0, min(begin for begin, _ in PARTS.values()))
    return Text("shakespeare", x_train, y_train, x, y, len(characters), sha256, characters)
