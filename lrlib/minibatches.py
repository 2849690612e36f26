"""Where the mini-batches of a run come from: tensors on the device, in an order that lies there too, or a loader."""

import itertools
from collections.abc import Iterable, Iterator, Sequence

import torch

from lrlib.data import Dataset, batches

__all__ = ["Data", "Loader", "MiniBatches", "Place", "check_data", "row"]

Data = Dataset | tuple[torch.Tensor, torch.Tensor]
Place = int | torch.Tensor  # a row of a table: an int, or a tensor (1,) on the device where a graph is captured
WINDOW = 2**24  # numbers of the order of examples that are kept at a time


def row(table: torch.Tensor, k: Place) -> torch.Tensor:
    """Row k of a table, without asking the host."""
    return table[k] if isinstance(k, int) else table.index_select(0, k)[0]


def check_data(x: torch.Tensor, y: torch.Tensor) -> None:
    """Refuse anything but tensors of equal length >= 1."""
    for name, part in (("x", x), ("y", y)):
        if not isinstance(part, torch.Tensor):
            raise TypeError(f"{name}: is a {type(part).__name__}, must be a tensor")
    if len(x) == 0 or len(x) != len(y):
        raise ValueError(f"x, y: have lengths {len(x)} and {len(y)}, must be equal and >= 1")


class MiniBatches:
    """Mini-batches of the examples of R replicas. Replicas side by side with the same data and seed share theirs.

    Args:
        data: of each replica.
        seeds: of the order of the examples, one for each replica.
        batch_size: B.
        steps: T.

    Raises:
        ValueError: the data is empty or does not fit together, or the batch size is larger than it.
    """

    def __init__(self, data: Sequence[Data], seeds: Sequence[int], batch_size: int, steps: int):
        pairs = [(d.x_train, d.y_train) if isinstance(d, Dataset) else d for d in data]
        for pair in pairs:
            if len(pair) != 2 or not all(isinstance(part, torch.Tensor) for part in pair):
                raise TypeError("data: must be a Dataset, or a pair of tensors, inputs and targets")
            if len(pair[0]) != len(pair[1]) or len(pair[0]) == 0:
                raise ValueError(f"data: has {len(pair[0])} inputs and {len(pair[1])} targets, must be equal and >= 1")
            if batch_size > len(pair[0]):
                raise ValueError(f"batch_size={batch_size}: must be <= {len(pair[0])}, the number of training examples")
        keys = [(id(x), id(y), seed) for (x, y), seed in zip(pairs, seeds, strict=True)]
        sizes = [len(list(same)) for _, same in itertools.groupby(keys)]
        group = sizes[0] if len(set(sizes)) == 1 else 1
        pairs, seeds = pairs[::group], seeds[::group]
        self._orders = [batches(len(x), batch_size, steps, seed) for (x, _), seed in zip(pairs, seeds, strict=True)]
        self._x, x_starts = _joined([x for x, _ in pairs])
        self._y, y_starts = _joined([y for _, y in pairs])
        self.device = self._x.device
        self._starts = [torch.tensor(starts, device=self.device)[:, None] for starts in (x_starts, y_starts)]
        self._plain = not any(x_starts) and not any(y_starts)
        self.window = max(1, min(steps, WINDOW // (len(pairs) * batch_size)))
        self._rows = torch.empty((self.window, len(pairs), batch_size), dtype=torch.int64, device=self.device)
        self._at = -1

    def seek(self, k: int) -> None:
        """Bring the window of the order that update k is in."""
        while self._at < k // self.window:
            columns = [torch.stack(list(itertools.islice(order, self.window))) for order in self._orders]
            self._rows[: len(columns[0])].copy_(torch.stack(columns, 1))
            self._at += 1

    def batch(self, w: Place) -> tuple[torch.Tensor, torch.Tensor]:
        """Inputs and targets (G, B, ...) of row w of the window, for G groups of replicas."""
        rows = row(self._rows, w)
        if self._plain:
            return self._x[rows], self._y[rows]
        return self._x[rows + self._starts[0]], self._y[rows + self._starts[1]]


def _joined(tensors: list[torch.Tensor]) -> tuple[torch.Tensor, list[int]]:
    """The different ones among them, one after the other, and where each begins."""
    different = {id(tensor): tensor for tensor in tensors}
    ends = itertools.accumulate(map(len, different.values()), initial=0)
    starts = dict(zip(different, ends, strict=False))
    whole = tensors[0] if len(different) == 1 else torch.cat(list(different.values()))
    return whole, [starts[id(tensor)] for tensor in tensors]


class Loader:
    """Mini-batches of one network from an iterable of pairs, such as a `DataLoader`, again and again."""

    window = 1

    def __init__(self, data: Iterable, device: torch.device):
        if not isinstance(data, Iterable) or isinstance(data, Iterator):
            raise TypeError(
                f"data={data!r}: must be a Dataset, a pair of tensors, or an iterable that can be restarted"
            )
        self.device, self._pairs = device, self._again(data)

    def _again(self, data: Iterable) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        empty = False
        while not empty:
            empty = True
            for pair in data:
                empty = False
                if not isinstance(pair, list | tuple) or len(pair) != 2:
                    kind = f"{len(pair)} parts" if isinstance(pair, list | tuple) else f"a {type(pair).__name__}"
                    raise ValueError(f"data: gave a batch of {kind}, must give pairs (inputs, targets)")
                if not all(isinstance(part, torch.Tensor) and len(part) for part in pair):
                    kinds = " and ".join(f"{type(part).__name__} of {getattr(part, 'shape', '?')}" for part in pair)
                    raise ValueError(f"data: gave a batch of {kinds}, must give pairs of tensors, not empty")
                yield pair[0].to(self.device)[None], pair[1].to(self.device)[None]
        raise ValueError("data: is empty, must give batches")

    def seek(self, k: int) -> None:
        """Nothing to prepare."""

    def batch(self, w: Place) -> tuple[torch.Tensor, torch.Tensor]:
        """The next pair, as (1, B, ...)."""
        return next(self._pairs)
