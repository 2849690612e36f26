"""A trial run that leaves no trace: everything that training changes is put back as it was."""

import contextlib
import copy
import random
from collections.abc import Iterator

import numpy as np
import torch
from torch import nn

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
    modules = [(module, module.training, dict(module._buffers)) for module in model.modules()]
    tensors = [(tensor, tensor.detach().clone()) for tensor in (*model.parameters(), *model.buffers())]
    gradients = [(p, None if p.grad is None else p.grad.clone(), p.requires_grad) for p in model.parameters()]
    state = {p: copy.deepcopy(entries) for p, entries in optimizer.state.items()}
    groups = [
        {key: copy.deepcopy(value) for key, value in group.items() if key != "params"}
        for group in optimizer.param_groups
    ]
    generators = {generator: generator.get_state() for generator in _generators(data)}
    random_state, numpy_state = random.getstate(), np.random.get_state()
    try:
        yield
    finally:
        for module, mode, buffers in modules:
            module.training = mode
            module._buffers.clear()
            module._buffers.update(buffers)
        with torch.no_grad():
            for tensor, value in tensors:
                tensor.copy_(value)
        for parameter, gradient, requires_grad in gradients:
            parameter.requires_grad_(requires_grad)
            parameter.grad = gradient
        optimizer.state.clear()
        optimizer.state.update(state)
        for group, saved in zip(optimizer.param_groups, groups, strict=True):
            for key in set(group) - set(saved) - {"params"}:
                del group[key]
            group.update(saved)
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
