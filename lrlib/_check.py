"""Early validation: each function returns the value as given, or raises an error naming argument, value and range."""

import math
from collections.abc import Callable, Collection, Mapping, Sequence
from itertools import pairwise
from numbers import Integral, Real

import torch

FLOATS = 2**1023  # up to it an integer has a float


def _require(condition: bool, name: str, value, allowed: str) -> None:
    if not condition:
        raise ValueError(f"{name}={value!r}: must be {allowed}")


def _number(name: str, value, allowed: str, fits: Callable[[float], bool]) -> float:
    if isinstance(value, bool) or not isinstance(value, Real):
        raise TypeError(f"{name}={value!r}: must be a number, {allowed}")
    try:
        number = float(value)
    except OverflowError:  # of an integer
        number = math.inf
    _require(fits(number), name, value, allowed)
    return number


def finite(name: str, value) -> float:
    return _number(name, value, "finite", math.isfinite)


def positive(name: str, value) -> float:
    return _number(name, value, "finite and > 0", lambda number: 0 < number < math.inf)


def nonnegative(name: str, value) -> float:
    return at_least(name, value, 0)


def at_least(name: str, value, low: float) -> float:
    return _number(name, value, f"finite and >= {low}", lambda number: low <= number < math.inf)


def within(name: str, value, low: float, high: float) -> float:
    """The closed interval [low, high]."""
    return _number(name, value, f"in [{low}, {high}]", lambda number: low <= number <= high)


def below_one(name: str, value) -> float:
    """The interval [0, 1), that of a momentum."""
    return _number(name, value, "in [0, 1)", lambda number: 0 <= number < 1)


def integer(name: str, value, minimum: int, maximum: int | None = None) -> int:
    allowed = f"an integer >= {minimum}" + ("" if maximum is None else f" and <= {maximum}")
    if not isinstance(value, Integral) or isinstance(value, bool):
        raise TypeError(f"{name}={value!r}: must be {allowed}")
    number = int(value)
    _require(minimum <= number and (maximum is None or number <= maximum), name, value, allowed)
    _require(number < FLOATS, name, value, "an integer < 2**1023")
    return number


def seed(name: str, value) -> int:
    """What a generator of PyTorch takes and some number can still be added to."""
    return integer(name, value, 0, 2**63 - 1)


def increasing(name: str, values, minimum: int) -> list[int]:
    """Integers, strictly increasing, the first at least `minimum`."""
    allowed = f"a strictly increasing sequence of integers >= {minimum}"
    try:
        items = [integer(name, value, minimum) for value in values]
    except (TypeError, ValueError) as error:
        raise type(error)(f"{name}={values!r}: must be {allowed}") from None
    _require(bool(items) and all(a < b for a, b in pairwise(items)), name, values, allowed)
    return items


def choice(name: str, value, options: Collection):
    _require(value in options, name, value, "one of " + ", ".join(map(repr, options)))
    return value


def _takes_probabilities(loss: Callable, output: torch.Tensor, y: torch.Tensor) -> bool:
    """Whether an output that may be a probability is refused by the loss where it is none."""
    if output.numel() != 1 or not 0 <= output.item() <= 1:
        return False
    try:
        loss(torch.full_like(output, 2.0, device="cpu"), y.cpu())
    except Exception as error:
        return "between 0 and 1" in str(error)
    return False


def loss_of_logits(name: str, loss: Callable, outputs: torch.Tensor, y: torch.Tensor, ys: torch.Tensor) -> None:
    """A loss gives a scalar for logits; of several batches a mean, so that it does not matter how they are cut.

    It is judged by the outputs for ys, where that is the first batch of y.
    """
    if ys.data_ptr() != y.data_ptr():
        return
    _require(not _takes_probabilities(loss, outputs[:1], ys[:1]), name, loss, "one of logits, not of probabilities")
    spread = slice(None, None, -(-len(ys) // 8))  # at most 8 of them, far apart, as examples may be sorted
    outputs, some = outputs[spread], ys[spread]
    whole = loss(outputs, some)
    _require(whole.numel() == 1, name, loss, f"a scalar, and is of shape {tuple(whole.shape)}")
    if 1 < len(some) and len(ys) < len(y):
        try:
            whole, mean = _in_pieces(loss, outputs, some, 1)
        except Exception:  # it squeezes its outputs, say, and so cannot take a single one
            whole, mean = _in_pieces(loss, outputs, some, 2)
        fits = torch.isclose(whole, mean, rtol=1e-3, atol=1e-5) | ~torch.isfinite(whole + mean)
        _require(bool(fits), name, loss, "a mean over the examples, or be given them in one batch")


def _in_pieces(loss: Callable, outputs: torch.Tensor, y: torch.Tensor, size: int) -> tuple[torch.Tensor, torch.Tensor]:
    """The loss of as many examples as make whole pieces, and the mean of those of the pieces."""
    count = len(y) - len(y) % size
    pieces = [loss(z, t) for z, t in zip(outputs[:count].split(size), y[:count].split(size), strict=True)]
    return loss(outputs[:count], y[:count]), sum(pieces) / len(pieces)


def one_a_parameter(name: str, factors: Mapping[str, Sequence[float]], count: int) -> None:
    """As many factors of each name as there are parameters."""
    for key, values in factors.items():
        if len(values) != count:
            raise ValueError(f"{name}[{key!r}]: has {len(values)} factors, must be {count}, one a parameter")
