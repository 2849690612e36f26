"""A quadratic, and a step of an optimizer that looks at its loss, for the tests of rates that set themselves."""

import torch
from torch import nn


def quadratic(h=(1.0, 10.0), lowest=0.0):
    """A point, a closure with its loss, and the curvatures."""
    theta = nn.Parameter(torch.tensor([1.0, -2.0], dtype=torch.float64))
    h = torch.tensor(h, dtype=torch.float64)
    return theta, lambda: 0.5 * (h * theta.square()).sum() + lowest, h


def advance(optimizer, closure):
    """The rate that the step applied."""
    optimizer.zero_grad()
    closure().backward()
    optimizer.step(closure)
    return optimizer.param_groups[0]["applied_lr"]
