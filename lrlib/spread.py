from collections.abc import Callable, Iterator, Sequence
def spread(function, items):
    return map(function, items)
