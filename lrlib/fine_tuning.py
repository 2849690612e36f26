r"""Fine-tuning: rates that fall from layer to layer, and LoRA, which trains a low-rank change of frozen weights."""

import math
from collections.abc import Sequence

import torch
from torch import nn
from torch.nn import functional as F

from lrlib import _check
from lrlib.architecture import copied

__all__ = ["layerwise_groups", "LoRA", "lora"]


def layerwise_groups(
    model: nn.Module, lr: float, decay: float, layers: Sequence[nn.Module | list[nn.Module]] | None = None
) -> list[dict]:
    r"""Parameter groups for a `torch.optim.Optimizer`, one a layer, whose rates fall from the output to the input.

    .. math:: \eta_k = \eta\, d^{L - k}, \qquad k = 1, \dots, L

    Args:
        model: the network.
        lr: :math:`\eta`, the rate of the last layer, > 0.
        decay: :math:`d`, > 0, and below 1 where early layers are to move less.
        layers: the L layers from the input to the output, each a module or a list of modules that share a rate; default
            the children of the model. Those without trainable parameters are left out and do not count.

    Returns:
        From the first layer to the last a dict with "params", the layer's trainable parameters, and "lr".

    Raises:
        TypeError: a layer is no module.
        ValueError: a number is out of its range, the layers leave out a trainable parameter of the model or hold one
            twice, or none has any.

    Source: Howard and Ruder (2018), with :math:`d = 1/2.6`.

    Example:
        >>> import lrlib
        >>> groups = layerwise_groups(lrlib.mlp(64, 32, 32, 10), lr=0.01, decay=0.5)
        >>> [group["lr"] for group in groups]
        [0.0025, 0.005, 0.01]
        >>> optimizer = torch.optim.AdamW(groups)
        >>> text = lrlib.char_transformer(depth=2)
        >>> layerwise_groups(text, lr=0.01, decay=0.5, layers=[text.embedding, *text.blocks, [text.norm, text.head]])
        Traceback (most recent call last):
        ...
        ValueError: layers: leave out 'place', must hold every trainable parameter of the model
    """
    lr, decay = _check.positive("lr", lr), _check.positive("decay", decay)
    names = {id(p): name for name, p in model.named_parameters() if p.requires_grad}
    left = dict(names)
    found: list[list[nn.Parameter]] = []
    for k, layer in enumerate(model.children() if layers is None else layers):
        modules = layer if isinstance(layer, list) else [layer]
        if not all(isinstance(module, nn.Module) for module in modules):
            raise TypeError(f"layers[{k}]: is a {type(layer).__name__}, must be a module or a list of modules")
        params = [p for module in modules for p in module.parameters() if p.requires_grad]
        for p in params:
            if left.pop(id(p), None) is None:
                what = f"{names[id(p)]!r}, which is in two layers" if id(p) in names else "a parameter not of the model"
                raise ValueError(f"layers[{k}]: holds {what}; each must be of the model, and in one layer")
        if params:
            found.append(params)
    if left:
        name = next(iter(left.values()))
        raise ValueError(f"layers: leave out {name!r}, must hold every trainable parameter of the model")
    if not found:
        raise ValueError("model: must have a parameter that requires a gradient")
    return [{"params": params, "lr": lr * decay ** (len(found) - 1 - k)} for k, params in enumerate(found)]


class LoRA(nn.Module):
    r"""A linear layer with frozen weights and a trainable change of low rank.

    .. math:: h = W x + b + s\, B A x, \qquad s = \frac{\alpha}{r}

    A (r, m) starts as PyTorch draws the weights of a linear layer, :math:`U(-1/\sqrt m, 1/\sqrt m)`, and B (n, r) at
    zero, so that the layer's function is at first that of W and b.

    Args:
        layer: m inputs and n outputs; its parameters are frozen, and used as they are.
        rank: r, >= 1; above min(n, m) it is allowed, and no use.
        alpha: :math:`\alpha`, > 0.

    Attributes:
        weight, bias: W and b, the layer's own.
        A, B: the trainable parameters.
        scale: s.

    Raises:
        TypeError: the layer is not a plain `nn.Linear`, or the rank not an integer.
        ValueError: a number is out of its range, the weight is computed from others, or the layer has hooks, which this
            one would not have.

    Source: Hu et al., *LoRA* (2021); A is drawn as in their code and in the package peft.

    Example:
        >>> layer, x = nn.Linear(8, 4), torch.randn(5, 8)
        >>> adapted = LoRA(layer, rank=2, alpha=16)
        >>> adapted.scale, torch.equal(adapted(x), layer(x))
        (8.0, True)
    """

    def __init__(self, layer: nn.Linear, rank: int, alpha: float):
        super().__init__()
        if type(layer) is not nn.Linear:
            raise TypeError(f"layer: is a {type(layer).__name__}, must be an nn.Linear")
        if not isinstance(layer.weight, nn.Parameter):
            raise ValueError("layer: has a weight that is computed from others, must have one of its own")
        if any("ward_" in name and name.endswith("_hooks") and hooks for name, hooks in vars(layer).items()):
            raise ValueError("layer: has hooks, which its substitute would lose; must have none")
        rank = _check.integer("rank", rank, 1)
        self.in_features, self.out_features = layer.in_features, layer.out_features
        self.scale = _check.positive("alpha", alpha) / rank
        layer.requires_grad_(False)
        self.weight, self.bias = layer.weight, layer.bias
        self.A = nn.Parameter(self.weight.new_empty(rank, layer.in_features))
        self.B = nn.Parameter(self.weight.new_zeros(layer.out_features, rank))
        nn.init.kaiming_uniform_(self.A, a=math.sqrt(5))
        self.train(layer.training)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return F.linear(x, self.weight, self.bias) + self.scale * F.linear(F.linear(x, self.A), self.B)


def lora(model: nn.Module, rank: int, alpha: float) -> nn.Module:
    r"""A copy of a model with :class:`LoRA` in the place of each `nn.Linear`, and all else frozen.

    The A are drawn from torch's global generator. For the scale :math:`\alpha/\sqrt r` give
    :math:`\alpha\sqrt r`. Subclasses of `nn.Linear`, such as the output projection of `nn.MultiheadAttention`, and
    linear layers with a parametrisation stay as they are.

    Args:
        model: the pretrained network; it stays as it is.
        rank, alpha: of :class:`LoRA`.

    Raises:
        TypeError: the rank is not an integer.
        ValueError: the model has no `nn.Linear`, or an `nn.TransformerEncoderLayer` with `batch_first`, whose fast path
            does not call its linear layers; or a number is out of its range.

    Example:
        >>> import lrlib
        >>> model = lora(lrlib.mlp(64, 32, 10), rank=2, alpha=32)
        >>> lrlib.parameter_count(model) == 2 * (64 + 32) + 2 * (32 + 10)
        True
        >>> lrlib.Stack([model, model]).names
        ['1.A', '1.B', '3.A', '3.B']
    """
    for path, module in model.named_modules():
        if isinstance(module, nn.TransformerEncoderLayer) and module.self_attn.batch_first:
            raise ValueError(
                f"model: {path or 'it'} is an nn.TransformerEncoderLayer, whose fast path in evaluation reads the "
                "weights of its linear layers and would pass over LoRA; must be made with batch_first=False"
            )
    whole = nn.ModuleList([copied(model).requires_grad_(False)])
    layers = {id(m): LoRA(m, rank, alpha) for m in whole.modules() if type(m) is nn.Linear}
    if not layers:
        raise ValueError("model: must have an nn.Linear")
    for parent in list(whole.modules()):
        for name, child in parent._modules.items():  # named_children names a layer once
            parent._modules[name] = layers.get(id(child), child)
    return whole[0]
