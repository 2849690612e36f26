"""What a programme of runs would take: the first updates of each run are made and timed, the others counted."""

import contextlib
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch

__all__ = ["Rehearsal", "rehearsing", "shortened"]

FIRST, TIMED = 5, 8  # updates that prepare, among them the capture of a graph; updates that are timed after them

_now: "Rehearsal | None" = None


@dataclass
class Rehearsal:
    """What has been left out so far.

    Attributes:
        seconds: what the updates that were not made would have taken.
    """

    seconds: float = 0.0


@contextlib.contextmanager
def rehearsing() -> Iterator[Rehearsal]:
    """Inside the block every run makes its first updates only, all that watches it is called as ever.

    The time that a run would have taken is that of the block and what the result holds at its end. A run that ends
    early is counted to where it ends: a callback may stop it at any update, divergence is seen in the first ones only.

    Example:
        >>> import lrlib, numpy
        >>> with rehearsing() as left_out:
        ...     history = lrlib.train(lrlib.mlp(64, 16, 10), lrlib.digits(), 0.1, steps=1000)
        >>> left_out.seconds > 0, len(history.loss), int(numpy.isfinite(history.loss).sum())
        (True, 1000, 13)
    """
    global _now
    before, _now = _now, Rehearsal()
    try:
        yield _now
    finally:
        _now = before


def shortened(update: Callable[[int], None], device: torch.device) -> Callable[[int], None]:
    """`update` itself or, in a rehearsal, a function that makes the first few and counts the others."""
    if _now is None:
        return update
    rehearsal, made, each = _now, 0, 0.0

    def first_ones(k: int) -> None:
        nonlocal made, each
        made += 1
        if made > FIRST + TIMED:
            rehearsal.seconds += each
            return
        started = _clock(device)
        update(k)
        if made > FIRST:  # by itself: what watches the run between two updates is called in a rehearsal, too
            each += (_clock(device) - started) / TIMED

    return first_ones


def _clock(device: torch.device) -> float:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter()
