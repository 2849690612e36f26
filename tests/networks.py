"""Networks with something unusual, for tests of more than one module."""

import torch
from torch import nn


class Tied(nn.Module):
    """A weight that two layers share."""

    def __init__(self):
        super().__init__()
        self.first, self.second, self.head = nn.Linear(64, 64), nn.Linear(64, 64), nn.Linear(64, 10)
        self.second.weight = self.first.weight

    def forward(self, x):
        return self.head(torch.tanh(self.second(torch.tanh(self.first(x.flatten(1))))))


class Alias(nn.Module):
    """A weight that is reached by another way than its name: from a "list", or by a "function" that holds the layer."""

    def __init__(self, way):
        super().__init__()
        self.layer = nn.Linear(64, 10)
        self.way = [self.layer.weight] if way == "list" else [lambda x: self.layer(x)]

    def forward(self, x):
        x, way = x.flatten(1), self.way[0]
        return x @ way.T + self.layer.bias if isinstance(way, torch.Tensor) else way(x)
