"""What a module is besides the values of its tensors: whether two are alike, copies, and calls with other values."""

import copy
import functools
import random
from collections import deque
from collections.abc import Iterator, Mapping
from types import CellType, FunctionType, MethodType
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.func import functional_call
from torch.nn.utils.parametrize import type_before_parametrizations

__all__ = ["alike", "called", "copied"]

Pairs = dict[tuple[int, int], tuple]  # of things that are compared already, which stay alive while they are here
OWN = ("training", "_parameters", "_buffers", "_modules")  # what a module has by name, and its mode


def alike(a: nn.Module, b: nn.Module) -> bool:
    """Whether two modules compute the same function of their input, parameters and buffers, as far as can be seen.

    They have the same layers, and all else that a layer has is equal: numbers, containers, hooks, functions with what
    these hold. Things that cannot be compared are equal to themselves only, and so are parameters that are reached by
    another way than their names, which functional calls do not follow.

    Example:
        >>> alike(nn.Dropout(0.1), nn.Dropout(0.1)), alike(nn.Dropout(0.1), nn.Dropout(0.2))
        (True, False)
    """
    first, second = (dict(module.named_modules(remove_duplicate=False)) for module in (a, b))
    if list(first) != list(second):
        return False
    known: Pairs = {(id(first[name]), id(second[name])): (first[name], second[name]) for name in first}
    return all(
        type_before_parametrizations(m) is type_before_parametrizations(n)
        and not any(p._backward_hooks for p in (*m.parameters(False), *n.parameters(False)))
        and _equal(_settings(m), _settings(n), known)
        for m, n in zip(first.values(), second.values(), strict=True)
    )


def _settings(module: nn.Module) -> dict[str, Any]:
    """What a module has besides its tensors and layers; hooks without their numbers."""
    found = {name: value for name, value in vars(module).items() if name not in OWN and ("_hooks" not in name or value)}
    return {name: list(value.values()) if "_hooks" in name else value for name, value in found.items()}


def _equal(a: Any, b: Any, known: Pairs, copies: bool = True) -> bool:
    """`copies`: whether a copy of a model copies them too, which it does not do with what a function holds."""
    if a is b:
        return not isinstance(a, nn.Parameter)
    if isinstance(a, nn.Module):
        return copies and (id(a), id(b)) in known
    if (id(a), id(b)) in known:
        return True
    if type(a) is not type(b):
        return False
    if isinstance(a, torch.Tensor):
        return not a.requires_grad and a.shape == b.shape and a.dtype == b.dtype and torch.equal(a, b)
    if isinstance(a, np.ndarray):
        return a.dtype == b.dtype and np.array_equal(a, b)
    known[id(a), id(b)] = a, b
    held, other = _content(a), _content(b)
    if held is not None and other is not None:
        copies = copies and not isinstance(a, FunctionType)
        return len(held) == len(other) and all(_equal(x, y, known, copies) for x, y in zip(held, other, strict=True))
    if isinstance(a, complex | float | int | str | bytes) and a != b:
        return False
    if hasattr(a, "__dict__") and not isinstance(a, type | random.Random):
        return _equal(vars(a), vars(b), known, copies)
    return (a == b) is True


def _content(value: Any) -> list | None:
    """What is in a container with an order, a function, a method or a partial function; None of anything else."""
    if isinstance(value, Mapping):
        return [*value, *value.values()]
    if isinstance(value, list | tuple | deque):
        return list(value)
    if isinstance(value, FunctionType):
        cells = [cell.cell_contents for cell in value.__closure__ or () if cell != CellType()]
        return [id(value.__code__), *cells, *(value.__defaults__ or ()), *(value.__kwdefaults__ or {}).values()]
    if isinstance(value, MethodType):
        return [value.__func__, value.__self__]
    if isinstance(value, functools.partial):
        return [value.func, value.args, value.keywords]
    return None


def copied(model: nn.Module) -> nn.Module:
    """A copy that shares nothing with a model.

    Raises:
        ValueError: it cannot be copied, or one of its functions holds a part of it, which the copy's would hold too.

    Example:
        >>> layer = nn.Linear(1, 1)
        >>> copied(layer).weight is layer.weight
        False
    """
    parts = {id(part) for part in (*model.modules(), *model.parameters(), *model.buffers())}
    for module in model.modules():
        for value in _inside(_settings(module), set()):
            if isinstance(value, FunctionType) and any(id(part) in parts for part in _inside(value, set())):
                kind = type(module).__name__
                raise ValueError(
                    f"model: cannot be copied, as the function {value.__qualname__!r} of its {kind} holds a part of it"
                )
    try:
        return copy.deepcopy(model)
    except Exception as error:  # of any kind: it holds a lock, a file, a computed tensor
        raise ValueError(f"model: cannot be copied: {error}") from error


def _inside(value: Any, seen: set[int]) -> Iterator[Any]:
    """A value and all that is in it."""
    if id(value) not in seen:
        seen.add(id(value))
        yield value
        for item in value if isinstance(value, set) else _content(value) or ():
            yield from _inside(item, seen)


def called(model: nn.Module, tensors: Mapping[str, torch.Tensor], x: torch.Tensor) -> Any:
    """The output of a model with other tensors in the place of its parameters and buffers, also of tied ones.

    `torch.func.functional_call`, which by itself leaves its tensors in a layer that a model uses twice.

    Args:
        tensors: by the names that `named_parameters` and `named_buffers` give.

    Example:
        >>> layer = nn.Linear(1, 1)
        >>> called(layer, {"weight": torch.tensor([[2.0]]), "bias": torch.tensor([1.0])}, torch.tensor([3.0]))
        tensor([7.])
    """
    first: dict[int, str] = {}
    placed = {}
    for prefix, module in model.named_modules():
        for name, tensor in (*module._parameters.items(), *module._buffers.items()):
            place = f"{prefix}.{name}" if prefix else name
            if tensor is not None and first.setdefault(id(tensor), place) in tensors:
                placed[place] = tensors[first[id(tensor)]]
    return functional_call(model, placed, (x,), tie_weights=False)
