"""Work spread over the workers of joblib's active backend: processes of this machine, or a Dask cluster."""

import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures.process import BrokenProcessPool
from typing import TypeVar

import joblib
from joblib.parallel import get_active_backend

__all__ = ["spread"]

T = TypeVar("T")
U = TypeVar("U")
FAILURES = 3  # workers lost one after the other, with nothing finished in between, until it is given up

_turn = threading.Lock()


def _call(function: Callable[[T], U], index: int, item: T) -> tuple[int, U]:
    """In a worker. Threads of one process take turns, as torch's random numbers are the process's; nothing nests."""
    with _turn, joblib.parallel_config(backend="sequential"):
        return index, function(item)


def spread(function: Callable[[T], U], items: Sequence[T]) -> Iterator[U]:
    """``function(item)`` for each item, in order, each as soon as it and those before it are there.

    Inside ``joblib.parallel_config(...)`` with more than one worker, or with a cluster, the calls are made there at the
    same time: ``parallel_config(n_jobs=4)`` starts four processes, ``parallel_config(backend="dask")`` uses a Dask
    cluster. Otherwise they are made one after the other in this process, when their result is asked for. What a killed
    worker was doing is done again.

    Args:
        function: of one item; it and its results must be picklable by cloudpickle, as closures of a notebook are.
        items: any sequence.

    Raises:
        BrokenProcessPool: three workers died one after the other with no result in between.
        Exception: what a call raised.

    Example:
        >>> list(spread(abs, [-1, 2, -3]))
        [1, 2, 3]
    """
    backend, _ = get_active_backend()
    elsewhere = not type(backend).__module__.startswith("joblib._parallel")  # a cluster, even if of one worker
    if not elsewhere and joblib.effective_n_jobs(None) == 1:
        yield from map(function, items)
        return
    kind = "generator_unordered" if backend.supports_return_generator else "list"
    done: dict[int, U] = {}
    following = failures = 0
    while following < len(items):
        missing = [index for index in range(following, len(items)) if index not in done]
        try:
            for index, result in joblib.Parallel(return_as=kind)(
                joblib.delayed(_call)(function, index, items[index]) for index in missing
            ):
                done[index], failures = result, 0
                while following in done:
                    yield done.pop(following)
                    following += 1
        except BrokenProcessPool:
            failures += 1
            if failures == FAILURES:
                raise
