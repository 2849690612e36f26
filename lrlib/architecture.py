"""What a module is besides the values of its tensors: whether two are alike, copies, and calls with other values."""

import copy
import functools
import random
from collections.abc import Iterator, Mapping
from types import FunctionType, MethodType
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
    if isinstance(a, FunctionType):
        return a.__code__ is b.__code__ and _equal(_held(a), _held(b), known, copies=False)
    if isinstance(a, Mapping):
        return list(a) == list(b) and all(_equal(a[key], b[key], known, copies) for key in a)
    if isinstance(a, list | tuple):
        return len(a) == len(b) and all(_equal(x, y, known, copies) for x, y in zip(a, b, strict=True))
    if isinstance(a, MethodType):
        return _equal([a.__func__, a.__self__], [b.__func__, b.__self__], known, copies)
    if isinstance(a, functools.partial):
        return _equal([a.func, a.args, a.keywords], [b.func, b.args, b.keywords], known, copies)
    if hasattr(a, "__dict__") and not isinstance(a, type | random.Random):
        return _equal(vars(a), vars(b), known, copies)
    return (a == b) is True


def _held(function: FunctionType) -> list:
    cells = [cell.cell_contents for cell in function.__closure__ or () if cell != type(cell)()]
    return [*cells, *(function.__defaults__ or ()), *(function.__kwdefaults__ or {}).values()]


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
        for value in _inside(list(_settings(module).values()), set()):
            if isinstance(value, FunctionType) and any(id(part) in parts for part in _inside(_held(value), set())):
                kind = type(module).__name__
                raise ValueError(
                    f"model: cannot be copied, as the function {value.__qualname__!r} of its {kind} holds a part of it"
                )
    try:
        return copy.deepcopy(model)
    except Exception as error:  # of any kind: it holds a lock, a file, a computed tensor
        raise ValueError(f"model: cannot be copied: {error}") from error


def _inside(value: Any, seen: set[int]) -> Iterator[Any]:
    """A value and, of containers, methods, functions and partial ones, what is in them."""
    if id(value) in seen:
        return
    seen.add(id(value))
    yield value
    content: list = []
    if isinstance(value, Mapping):
        content = list(value.values())
    elif isinstance(value, list | tuple | set):
        content = list(value)
    elif isinstance(value, FunctionType):
        content = _held(value)
    elif isinstance(value, MethodType):
        content = [value.__self__]
    elif isinstance(value, functools.partial):
        content = [value.func, *value.args, *value.keywords.values()]
    for item in content:
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
