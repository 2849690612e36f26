"""A trial run that leaves no trace: everything that training changes is put back as it was."""

import contextlib
import copy
import random
from collections.abc import Iterator

import numpy as np
import torch
from torch import nn

from lrlib.runtime import modes_kept

__all__ = ["restored"]


@contextlib.contextmanager
def restored(model: nn.Module, optimizer: torch.optim.Optimizer, data) -> Iterator[None]:
    """Put everything that a run changes back as it was, whatever happens inside the block.

    That is of the model its weights, buffers (also rebound ones), gradients, training modes and requires_grad; of the
    optimizer its state and groups; the random generators of Python and NumPy and those of a data loader.

    Args:
        model, optimizer: that are trained.
        data: whose random generators are put back, where it is a `DataLoader`.

    Example:
        >>> layer = nn.Linear(1, 1)
        >>> before = layer.weight.item()
        >>> with restored(layer, torch.optim.SGD(layer.parameters()), None):
        ...     _ = layer.weight.data.fill_(3.0)
        >>> layer.weight.item() == before
        True
    """
    kept = {id(p): p for group in optimizer.param_groups for p in group["params"]}  # are not copied
    settings: list[dict] = [optimizer.state, *optimizer.param_groups, *(module._buffers for module in model.modules())]
    saved = copy.deepcopy([dict(values) for values in settings], kept | {id(b): b for b in model.buffers()})
    tensors = [(tensor, tensor.detach().clone()) for tensor in (*model.parameters(), *model.buffers())]
    gradients = [(p, None if p.grad is None else p.grad.clone(), p.requires_grad) for p in model.parameters()]
    generators = {generator: generator.get_state() for generator in _generators(data)}
    random_state, numpy_state = random.getstate(), np.random.get_state()
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
        for generator, generator_state in generators.items():
            generator.set_state(generator_state)
        random.setstate(random_state)
        np.random.set_state(numpy_state)


def _generators(data) -> set[torch.Generator]:
    """The random generators of a loader and of its samplers."""
    batch_sampler = getattr(data, "batch_sampler", None)
    owners = (data, getattr(data, "sampler", None), batch_sampler, getattr(batch_sampler, "sampler", None))
    found = (getattr(owner, "generator", None) for owner in owners)
    return {generator for generator in found if isinstance(generator, torch.Generator)}
