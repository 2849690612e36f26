"""Early validation: each function returns the value as given, or raises an error naming argument, value and range."""

import math
from collections.abc import Collection
from numbers import Integral, Real


def _number(name: str, value, allowed: str) -> float:
    if isinstance(value, bool) or not isinstance(value, Real):
        raise TypeError(f"{name}={value!r}: must be a number, {allowed}")
    return float(value)


def _require(condition: bool, name: str, value, allowed: str) -> None:
    if not condition:
        raise ValueError(f"{name}={value!r}: must be {allowed}")


def finite(name: str, value) -> float:
    number = _number(name, value, "finite")
    _require(math.isfinite(number), name, value, "finite")
    return number


def positive(name: str, value) -> float:
    number = _number(name, value, "finite and > 0")
    _require(math.isfinite(number) and number > 0, name, value, "finite and > 0")
    return number


def nonnegative(name: str, value) -> float:
    number = _number(name, value, "finite and >= 0")
    _require(math.isfinite(number) and number >= 0, name, value, "finite and >= 0")
    return number


def within(name: str, value, low: float, high: float) -> float:
    """The closed interval [low, high]."""
    number = _number(name, value, f"in [{low}, {high}]")
    _require(low <= number <= high, name, value, f"in [{low}, {high}]")
    return number


def below_one(name: str, value) -> float:
    """The interval [0, 1), that of a momentum."""
    number = _number(name, value, "in [0, 1)")
    _require(0 <= number < 1, name, value, "in [0, 1)")
    return number


def integer(name: str, value, minimum: int) -> int:
    allowed = f"an integer >= {minimum}"
    if isinstance(value, bool) or not isinstance(value, Integral):
        raise TypeError(f"{name}={value!r}: must be {allowed}")
    number = int(value)
    _require(number >= minimum, name, value, allowed)
    return number


def increasing(name: str, values, minimum: int) -> list[int]:
    """Integers, strictly increasing, the first at least `minimum`."""
    allowed = f"a strictly increasing sequence of integers >= {minimum}"
    try:
        items = list(values)
    except TypeError:
        raise TypeError(f"{name}={values!r}: must be {allowed}") from None
    if any(isinstance(item, bool) or not isinstance(item, Integral) for item in items):
        raise TypeError(f"{name}={values!r}: must be {allowed}")
    ordered = all(a < b for a, b in zip(items, items[1:], strict=False))
    _require(bool(items) and items[0] >= minimum and ordered, name, values, allowed)
    return [int(item) for item in items]


def choice(name: str, value, options: Collection):
    _require(value in options, name, value, "one of " + ", ".join(repr(option) for option in options))
    return value
