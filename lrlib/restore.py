"""A trial run that leaves no trace: everything that training changes is put back as it was."""

import contextlib
import copy
import random
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from types import CellType, FunctionType
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.utils.data import DataLoader, Dataset, Sampler

from lrlib.runtime import modes_kept

__all__ = ["generators_restored", "restored"]


@contextlib.contextmanager
def restored(model: nn.Module, optimizer: torch.optim.Optimizer) -> Iterator[None]:
    """Put everything that a run changes of these back as it was, whatever happens inside the block.

    That is of the model its weights, buffers (also rebound ones), gradients, training modes and requires_grad, and of
    the optimizer its state and groups, with the parameters that are not the model's.

    Example:
        >>> layer = nn.Linear(1, 1)
        >>> before = layer.weight.item()
        >>> with restored(layer, torch.optim.SGD(layer.parameters())):
        ...     _ = layer.weight.data.fill_(3.0)
        >>> layer.weight.item() == before
        True
    """
    kept = {id(p): p for group in optimizer.param_groups for p in group["params"]}  # are not copied
    settings: list[dict] = [optimizer.state, *optimizer.param_groups, *(module._buffers for module in model.modules())]
    rates = [value for group in optimizer.param_groups for value in group.values() if isinstance(value, torch.Tensor)]
    parameters = [*model.parameters(), *(kept[i] for i in kept.keys() - {id(p) for p in model.parameters()})]
    tensors = [(tensor, tensor.detach().clone()) for tensor in (*parameters, *model.buffers(), *rates)]
    saved = copy.deepcopy([dict(values) for values in settings], kept | {id(t): t for t, _ in tensors})
    gradients = [(p, None if p.grad is None else p.grad.clone(), p.requires_grad) for p in parameters]
    try:
        with modes_kept(model):
            yield
    finally:
        for values, before in zip(settings, saved, strict=True):
            values.clear()
            values.update(before)
        with torch.no_grad():
            for tensor, value in tensors:
                tensor.copy_(value)
        for parameter, gradient, requires_grad in gradients:
            parameter.requires_grad_(requires_grad)
            parameter.grad = gradient


@contextlib.contextmanager
def generators_restored(data) -> Iterator[None]:
    """Put the random generators of Python, NumPy and of data back as they were, whatever happens inside the block.

    Those of data are attributes of a data loader, its samplers, its data set and their functions, or in a list, a dict,
    a partial function or a closure there. Torch's own generator is left, and those of worker processes are out of
    reach.

    Example:
        >>> with generators_restored(None):
        ...     first = random.random()
        >>> random.random() == first
        True
    """
    generators = list(_generators(data))
    random_state, numpy_state = random.getstate(), np.random.get_state()
    try:
        yield
    finally:
        for put_back, generator_state in generators:
            put_back(generator_state)
        random.setstate(random_state)
        np.random.set_state(numpy_state)


def _generators(data) -> Iterator[tuple[Callable, Any]]:
    """How to put back each random generator that is in a loader, its samplers, its data set or its functions."""
    kinds, seen, following = (Dataset, Sampler, DataLoader), set(), [data]
    while following:
        value = following.pop()
        if id(value) in seen:
            continue
        seen.add(id(value))
        if isinstance(value, torch.Generator):
            yield value.set_state, value.get_state()
        elif isinstance(value, random.Random):
            yield value.setstate, value.getstate()
        elif isinstance(value, np.random.RandomState):
            yield value.set_state, value.get_state()
        elif isinstance(value, np.random.Generator):
            yield partial(setattr, value.bit_generator, "state"), value.bit_generator.state
        elif isinstance(value, list | tuple):
            following.extend(value if value and (isinstance(value[0], kinds) or callable(value[0])) else [])
        elif isinstance(value, Mapping):
            following.extend(value.values())
        elif value is data or isinstance(value, kinds) or callable(value):
            following.extend([getattr(value, "__self__", None), *getattr(value, "__dict__", {}).values()])
            if isinstance(value, partial):
                following.extend([value.func, *value.args, *value.keywords.values()])
            if isinstance(value, FunctionType):
                following.extend(cell.cell_contents for cell in value.__closure__ or () if cell != CellType())
