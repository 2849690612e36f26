"""A small language model: a transformer that reads characters and predicts, at each place, the next one."""

import functools
import math

import torch
from torch import nn
from torch.nn import functional as F

from lrlib import _check
from lrlib.stack import Loss

__all__ = ["char_transformer", "CharTransformer", "z_loss"]


class _Attention(nn.Module):
    """Each place takes a mean of what it and the places before it offer, weighted by how well key and query agree."""

    def __init__(self, width: int, heads: int, qk_norm: bool):
        super().__init__()
        self.heads, size = heads, width // heads
        self.query_key_value = nn.Linear(width, 3 * width, bias=False)
        self.query_norm = nn.LayerNorm(size, bias=False) if qk_norm else nn.Identity()
        self.key_norm = nn.LayerNorm(size, bias=False) if qk_norm else nn.Identity()
        self.out = nn.Linear(width, width, bias=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        examples, length, width = x.shape
        split = self.query_key_value(x).view(examples, length, 3, self.heads, width // self.heads)
        query, key, value = split.permute(2, 0, 3, 1, 4)
        scores = self.query_norm(query) @ self.key_norm(key).mT / math.sqrt(width // self.heads)
        later = torch.full((length, length), -math.inf, device=x.device).triu(1)
        mixed = (scores + later).softmax(-1).to(value.dtype) @ value  # the mask makes it float32
        return self.out(mixed.transpose(1, 2).reshape(x.shape))


class _Block(nn.Module):
    def __init__(self, width: int, heads: int, qk_norm: bool):
        super().__init__()
        self.norm1, self.attention = nn.LayerNorm(width, bias=False), _Attention(width, heads, qk_norm)
        self.norm2, self.up = nn.LayerNorm(width, bias=False), nn.Linear(width, 4 * width, bias=False)
        self.down = nn.Linear(4 * width, width, bias=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = x + self.attention(self.norm1(x))
        return x + self.down(F.relu(self.up(self.norm2(x))))


class CharTransformer(nn.Module):
    """What :func:`char_transformer` makes: from numbers of characters (B, T) to logits (B, characters, T)."""

    def __init__(self, characters: int, length: int, width: int, depth: int, heads: int, qk_norm: bool):
        super().__init__()
        self.length = length
        self.embedding, self.place = nn.Embedding(characters, width), nn.Parameter(torch.zeros(length, width))
        self.blocks = nn.Sequential(*(_Block(width, heads, qk_norm) for _ in range(depth)))
        self.norm, self.head = nn.LayerNorm(width, bias=False), nn.Linear(width, characters, bias=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Logits of the character that follows each place, in the layout of `F.cross_entropy`."""
        if x.shape[-1] > self.length:
            raise ValueError(f"x: has {x.shape[-1]} characters a window, must have at most length={self.length}")
        x = self.embedding(x) + self.place[: x.shape[-1]]
        return self.head(self.norm(self.blocks(x))).mT


def char_transformer(
    characters: int = 65,
    length: int = 64,
    width: int = 32,
    depth: int = 2,
    heads: int = 2,
    qk_norm: bool = False,
) -> CharTransformer:
    r"""A decoder-only transformer: pre-norm, causal, with learned places, without dropout and biases.

    Each of its blocks computes :math:`x \leftarrow x + \mathrm{attention}(\mathrm{norm}(x))`, then
    :math:`x \leftarrow x + W_2\, \mathrm{relu}(W_1 \mathrm{norm}(x))` with 4 `width` hidden units, where for queries q,
    keys k and values v of a head of size d, at places i and :math:`j \le i`,

    .. math:: \mathrm{attention}_i = W \sum_j a_{ij} v_j, \qquad a_{i\cdot} = \mathrm{softmax}_j\,
       \frac{\langle q_i, k_j \rangle}{\sqrt{d}}.

    With `qk_norm` queries and keys pass through a LayerNorm each, with a learned scale, so that the scores stay bounded
    unless the scales grow. It has no random numbers and no branches on its data, so that it can be stacked and
    captured. Places start at zero, all other weights as PyTorch draws them.

    Args:
        characters: V, how many there are, >= 2.
        length: the longest window that it reads, >= 1.
        width: of the stream of activations, >= 1, a multiple of `heads`.
        depth: the number of blocks, >= 1.
        heads: of the attention, >= 1.
        qk_norm: whether queries and keys are normalised.

    Returns:
        A module from int64 (B, T), T <= length, to logits (B, V, T), as `F.cross_entropy` takes them with targets
        (B, T); the loss is the mean over all places, in nats a character: divided by log 2, in bits.

    Raises:
        TypeError: a number is not an integer.
        ValueError: an argument is out of its range, or a window is too long.

    Source: Vaswani et al. (2017); the norms before the branches: Xiong et al. (2020); of queries and keys: Dehghani et
    al. (2023), arXiv 2302.05442, after Henry et al. (2020).

    Example:
        >>> import lrlib
        >>> data = lrlib.shakespeare(length=32)
        >>> model = char_transformer(data.num_classes, length=32)
        >>> model(data.x_train[:5]).shape, lrlib.parameter_count(model)
        (torch.Size([5, 65, 32]), 29920)
    """
    numbers = {"length": length, "width": width, "depth": depth, "heads": heads}
    for name, number in numbers.items():
        _check.integer(name, number, 1)
    if width % heads:
        raise ValueError(f"width={width!r}: must be a multiple of heads={heads}")
    return CharTransformer(_check.integer("characters", characters, 2), **numbers, qk_norm=bool(qk_norm))


def z_loss(weight: float = 1e-4) -> Loss:
    r"""The cross-entropy and a penalty on the size of the logits, as a loss for :func:`lrlib.train`.

    .. math:: L = \operatorname{mean}\big[-\log p_y + w \log^2 Z\big], \qquad Z = \sum_c e^{z_c},
       \quad p_y = \frac{e^{z_y}}{Z}

    The loss of a softmax does not change when all logits are shifted; the penalty holds them where log Z = 0.

    Args:
        weight: w, >= 0.

    Returns:
        A function of logits (B, C, ...) and targets (B, ...).

    Raises:
        ValueError: the weight is out of its range.

    Source: Chowdhery et al., *PaLM* (2022), with w = 1e-4.

    Example:
        >>> logits, y = torch.zeros(1, 4), torch.tensor([2])
        >>> round(float(z_loss(0.5)(logits, y)), 4), round(math.log(4) + 0.5 * math.log(4) ** 2, 4)
        (2.3472, 2.3472)
    """
    return functools.partial(_with_penalty, weight=_check.nonnegative("weight", weight))


def _with_penalty(logits: torch.Tensor, y: torch.Tensor, weight: float) -> torch.Tensor:
    return F.cross_entropy(logits, y) + weight * logits.logsumexp(1).square().mean()
