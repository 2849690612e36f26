"""Small networks that train in seconds: a multilayer perceptron, plain convolutional nets, a pre-activation ResNet.

All take pictures of shape (B, C, H, W) and return logits of shape (B, classes). Their initial weights are drawn from
torch's global generator, so `torch.manual_seed` (or :func:`lrlib.seeded`) fixes them.
"""

import math
from collections.abc import Callable
from itertools import pairwise

import torch
from torch import nn
from torch.nn import functional as F

from lrlib import _check

__all__ = [
    "mlp", "conv_net", "PreResNet", "fast_net", "whitening_filters", "in_bfloat16", "parameter_count",
]  # fmt: skip

ACTIVATIONS = {"relu": nn.ReLU, "tanh": nn.Tanh, "sigmoid": nn.Sigmoid, "gelu": nn.GELU}
VECTOR_NORMS = {"batch": nn.BatchNorm1d, "layer": nn.LayerNorm}
PICTURE_NORMS: dict[str | None, Callable[[int], nn.Module]] = {
    "batch": nn.BatchNorm2d,
    "group": lambda channels: nn.GroupNorm(math.gcd(8, channels), channels),
    "layer": lambda channels: nn.GroupNorm(1, channels),
    "instance": lambda channels: nn.GroupNorm(channels, channels),
    None: lambda channels: nn.Identity(),
}


def parameter_count(model: nn.Module) -> int:
    """The number of trainable scalars in `model`; a tensor that is used twice counts once.

    Example:
        >>> parameter_count(nn.Linear(3, 2))
        8
    """
    return sum(p.numel() for p in model.parameters() if p.requires_grad)


def mlp(*widths: int, activation: str = "relu", norm: str | None = None) -> nn.Sequential:
    """A multilayer perceptron that flattens its input first, with PyTorch's default initialisation.

    Args:
        widths: sizes of the input, of each hidden layer and of the output, at least 2 integers >= 1.
        activation: after each hidden layer: "relu", "tanh", "sigmoid" or "gelu".
        norm: before each activation: None, "batch" or "layer". A normalised layer has no bias, as the norm adds one.

    Returns:
        A module from (B, ...) with ``widths[0]`` numbers an example to (B, ``widths[-1]``).

    Raises:
        TypeError: a width is not an integer.
        ValueError: fewer than 2 widths, a width < 1, an unknown activation or norm.

    Example:
        >>> model = mlp(64, 32, 10)
        >>> model(torch.zeros(5, 1, 8, 8)).shape
        torch.Size([5, 10])
        >>> parameter_count(model) == 64 * 32 + 32 + 32 * 10 + 10
        True
    """
    if len(widths) < 2:
        raise ValueError(f"widths={widths!r}: must be at least 2 integers, from the input to the output")
    widths = tuple(_check.integer(f"widths[{i}]", width, 1) for i, width in enumerate(widths))
    _check.choice("activation", activation, ACTIVATIONS)
    _check.choice("norm", norm, (*VECTOR_NORMS, None))
    layers: list[nn.Module] = [nn.Flatten()]
    for fan_in, fan_out in pairwise(widths[:-1]):
        layers.append(nn.Linear(fan_in, fan_out, bias=norm is None))
        if norm is not None:
            layers.append(VECTOR_NORMS[norm](fan_out))
        layers.append(ACTIVATIONS[activation]())
    return nn.Sequential(*layers, nn.Linear(widths[-2], widths[-1]))


def _conv(channels_in: int, channels_out: int, stride: int, norm: str | None) -> nn.Conv2d:
    """A 3x3 convolution with He's initialisation, and with a bias where no norm brings one."""
    conv = nn.Conv2d(channels_in, channels_out, 3, stride=stride, padding=1, bias=norm is None)
    nn.init.kaiming_normal_(conv.weight, mode="fan_out", nonlinearity="relu")
    if conv.bias is not None:
        nn.init.zeros_(conv.bias)
    return conv


def _checked(norm: str | None, **numbers: int) -> list[int]:
    _check.choice("norm", norm, PICTURE_NORMS)
    return [_check.integer(name, number, 1) for name, number in numbers.items()]


def conv_net(width: int = 16, in_channels: int = 1, num_classes: int = 10, norm: str | None = "batch") -> nn.Sequential:
    """A plain net of three 3x3 convolutions, then the mean over the picture and a linear layer.

    The convolutions have `width`, 2 `width` and 4 `width` channels, each followed by the norm and a ReLU, the first
    two also by 2x2 max pooling. Convolutions are initialised as in He et al. (2015), by fan-out.

    Args:
        width: channels of the first convolution, >= 1.
        in_channels, num_classes: C of the input (B, C, H, W) and the number of logits, >= 1; H, W >= 4.
        norm: "batch", "group" (8 groups, or gcd(8, channels)), "layer" (all channels and pixels of an example),
            "instance" (each channel of an example by itself) or None; all with a learned scale and shift.

    Raises:
        TypeError: a number is not an integer.
        ValueError: a number is < 1, or the norm is unknown.

    Example:
        >>> conv_net(width=8)(torch.zeros(5, 1, 16, 16)).shape
        torch.Size([5, 10])
    """
    width, in_channels, num_classes = _checked(norm, width=width, in_channels=in_channels, num_classes=num_classes)

    def layer(channels_in: int, channels: int, pool: nn.Module) -> list[nn.Module]:
        return [_conv(channels_in, channels, 1, norm), PICTURE_NORMS[norm](channels), nn.ReLU(), pool]

    return nn.Sequential(
        *layer(in_channels, width, nn.MaxPool2d(2)),
        *layer(width, 2 * width, nn.MaxPool2d(2)),
        *layer(2 * width, 4 * width, nn.AdaptiveAvgPool2d(1)),
        nn.Flatten(),
        nn.Linear(4 * width, num_classes),
    )


class _Block(nn.Module):
    """x + conv(relu(norm(conv(relu(norm(x)))))), or without the x where `skip` is False.

    Where the channels double, x is taken at every second pixel and its new channels are zero.
    """

    def __init__(self, channels_in: int, channels: int, norm: str | None, skip: bool):
        super().__init__()
        self.stride, self.new_channels, self.skip = channels // channels_in, channels - channels_in, skip
        self.norm1, self.conv1 = PICTURE_NORMS[norm](channels_in), _conv(channels_in, channels, self.stride, norm)
        self.norm2, self.conv2 = PICTURE_NORMS[norm](channels), _conv(channels, channels, 1, norm)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        out = self.conv1(F.relu(self.norm1(x)))
        out = self.conv2(F.relu(self.norm2(out)))
        if self.new_channels:
            x = F.pad(x[:, :, :: self.stride, :: self.stride], (0, 0, 0, 0, 0, self.new_channels))
        return x + out if self.skip else out


class PreResNet(nn.Module):
    """The pre-activation residual network of He et al., *Identity Mappings in Deep Residual Networks* (2016).

    A 3x3 convolution, three stages of (depth - 2)/6 blocks of two 3x3 convolutions with `width`, 2 `width` and
    4 `width` channels (the second and third stage begin with stride 2), then norm, ReLU, the mean over the picture and
    a linear layer. A block computes x + f(x), f = norm, ReLU, convolution, norm, ReLU, convolution. Where the shape
    changes, the shortcut takes every second pixel and fills the new channels with zeros: it has no parameters, so the
    network with `skip=False`, which computes f(x) alone, has the same parameters. Convolutions are initialised as in
    He et al. (2015), by fan-out.

    Args:
        depth: 6n + 2 with n >= 1: 8, 14, 20, ..., the number of layers with weights.
        width: channels of the first stage, >= 1.
        in_channels, num_classes: C of the input (B, C, H, W) and the number of logits, >= 1; H, W >= 8.
        norm: "batch", "group" (8 groups, or gcd(8, channels)), "layer" (all channels and pixels of an example),
            "instance" (each channel of an example by itself) or None; all with a learned scale and shift.
        skip: whether the shortcuts are there.

    Raises:
        TypeError: a number is not an integer.
        ValueError: a number is out of its range, or the norm is unknown.

    Example:
        >>> PreResNet(depth=8, width=4)(torch.zeros(5, 3, 32, 32)).shape
        torch.Size([5, 10])
        >>> parameter_count(PreResNet(depth=20)) == parameter_count(PreResNet(depth=20, skip=False))
        True
    """

    def __init__(
        self,
        depth: int = 8,
        width: int = 16,
        in_channels: int = 3,
        num_classes: int = 10,
        norm: str | None = "batch",
        skip: bool = True,
    ):
        super().__init__()
        depth = _check.integer("depth", depth, 1)
        if depth < 8 or depth % 6 != 2:
            raise ValueError(f"depth={depth!r}: must be 6n + 2 with n >= 1, such as 8, 14, 20, 32, 56")
        width, in_channels, num_classes = _checked(norm, width=width, in_channels=in_channels, num_classes=num_classes)
        self.stem = _conv(in_channels, width, 1, norm)
        widths = [width] + [width * 2**stage for stage in range(3) for _ in range((depth - 2) // 6)]
        self.blocks = nn.Sequential(*(_Block(before, after, norm, skip) for before, after in pairwise(widths)))
        self.norm = PICTURE_NORMS[norm](widths[-1])
        self.head = nn.Linear(widths[-1], num_classes)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Logits of shape (B, num_classes) of pictures of shape (B, in_channels, H, W)."""
        x = F.relu(self.norm(self.blocks(self.stem(x))))
        return self.head(x.mean(dim=(2, 3)))


@torch.no_grad()
def whitening_filters(x: torch.Tensor, size: int = 2, eps: float = 5e-4) -> torch.Tensor:
    r"""Filters whose outputs on the patches of pictures are uncorrelated and of variance one, then their negatives.

    A patch :math:`p` is a window of `size` x `size` pixels, a vector of :math:`n = C\,\text{size}^2` numbers. With the
    eigenvalues :math:`\lambda_i` and eigenvectors :math:`v_i` of the mean of :math:`p p^\top` over all patches,

    .. math:: w_i = v_i / \sqrt{\lambda_i + \epsilon}, \qquad w_{n+i} = -w_i, \qquad i = 1, \dots, n,

    so that the mean of :math:`(w_i \cdot p)(w_j \cdot p)` is 0 for i different from j <= n, and almost 1 for i = j. The
    order is that of falling eigenvalues; the sign of an eigenvector is arbitrary.

    Args:
        x: pictures (N, C, H, W); a few thousand are enough.
        size: of a patch, in pixels, in [1, min(H, W)].
        eps: :math:`\epsilon` > 0, which bounds the filters of directions that hardly vary.

    Returns:
        Shape (2n, C, size, size), for a convolution without padding.

    Raises:
        TypeError: `size` is not an integer.
        ValueError: x has no four dimensions, or a number is out of its range.

    Source: Page, *How to train your ResNet* (2018), part 8; with negatives: Jordan (2024), arXiv 2404.00498.

    Example:
        >>> import lrlib
        >>> x = lrlib.hard_digits().x_train
        >>> filters = whitening_filters(x)
        >>> filters.shape
        torch.Size([8, 1, 2, 2])
        >>> F.conv2d(x, filters[:4]).transpose(0, 1).flatten(1).cov().round(decimals=1) + 0.0
        tensor([[1., 0., 0., 0.],
                [0., 1., 0., 0.],
                [0., 0., 1., 0.],
                [0., 0., 0., 1.]])
    """
    if x.ndim != 4:
        raise ValueError(f"x: has shape {tuple(x.shape)}, must be (N, C, H, W)")
    size, eps = _check.integer("size", size, 1, min(x.shape[2:])), _check.positive("eps", eps)
    patches = F.unfold(x, size).transpose(0, 1).flatten(1)
    values, vectors = torch.linalg.eigh((patches @ patches.T / patches.shape[1]).double().cpu())
    filters = (vectors / (values + eps).sqrt()).T.flip(0).reshape(-1, x.shape[1], size, size)
    return torch.cat([filters, -filters]).to(x)


class _ShiftNorm(nn.BatchNorm2d):
    """BatchNorm without a learned scale, its shift being `factor` times the parameter `bias`; quick to forget."""

    def __init__(self, channels: int, factor: float):
        super().__init__(channels, momentum=0.4)
        self.factor = factor
        self.weight.requires_grad_(False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        share, shift = self.momentum, self.factor * self.bias
        if self.training and self.num_batches_tracked is not None:
            self.num_batches_tracked.add_(1)
            share = 1 / self.num_batches_tracked.item() if share is None else share
        return F.batch_norm(
            x, self.running_mean, self.running_var, self.weight, shift, self.training, share or 0.0, self.eps
        )


class _Scaled(nn.Linear):
    """A linear layer without bias whose output is divided by 9."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return super().forward(x) / 9


def fast_net(
    in_channels: int = 3,
    width: int = 64,
    num_classes: int = 10,
    *,
    filters: torch.Tensor | None = None,
    identity: bool = True,
    bias_rate: float = 64.0,
) -> nn.Sequential:
    r"""A plain convolutional network that trains fast, after Jordan (2024).

    A 2x2 convolution to 8 C channels and a GELU; three stages of w, 4w and 4w channels, each a 3x3 convolution, 2x2 max
    pooling, norm, GELU, another 3x3 convolution, norm, GELU; the maximum over the picture; a linear layer without
    bias, divided by 9. The norms are BatchNorms with a shift and no scale, whose running statistics are means over the
    last few batches. Only the first layer's weights can be frozen filters, only its bias is then trained.

    **A rate of its own for the shifts.** The shift is :math:`b = c\,u` with the parameter u. A step of SGD, with or
    without momentum, moves u by :math:`\eta\, c\, \partial L/\partial b` and so b by :math:`c^2` times what it would
    move it by itself, while weight decay shrinks b as before: `bias_rate` is :math:`c^2`.

    Args:
        in_channels, num_classes: C of the input (B, C, H, W) and the number of logits, >= 1; H, W >= 9.
        width: w, >= 1.
        filters: of the first layer, (8 C, C, 2, 2), such as :func:`whitening_filters` gives; they stay as they are.
            None: that layer is learned, from what PyTorch draws.
        identity: whether the first channels of each 3x3 convolution begin as copies of its inputs.
        bias_rate: :math:`c^2` > 0, the rate of the norms' shifts relative to that of all else.

    Raises:
        TypeError: a number is not an integer where it must be.
        ValueError: a number is out of its range, or the filters are of another shape.

    Source: K. Jordan, *94% on CIFAR-10 in 3.29 seconds on a single GPU* (2024), arXiv 2404.00498.

    Example:
        >>> x = torch.randn(5, 3, 32, 32)
        >>> model = fast_net(filters=whitening_filters(x))
        >>> model(x).shape
        torch.Size([5, 10])
        >>> f"{parameter_count(model):,}"
        '1,971,352'
    """
    w, in_channels, num_classes = _checked(None, width=width, in_channels=in_channels, num_classes=num_classes)
    factor = math.sqrt(_check.positive("bias_rate", bias_rate))
    first = nn.Conv2d(in_channels, 8 * in_channels, 2)
    if filters is not None:
        if filters.shape != first.weight.shape:
            raise ValueError(f"filters: have shape {tuple(filters.shape)}, must be {tuple(first.weight.shape)}")
        first.weight = nn.Parameter(filters.detach().to(first.weight, copy=True), requires_grad=False)

    def layer(channels_in: int, channels: int, *pool: nn.Module) -> list[nn.Module]:
        conv = nn.Conv2d(channels_in, channels, 3, padding=1, bias=False)
        if identity:
            nn.init.dirac_(conv.weight.data[:channels_in])
        return [conv, *pool, _ShiftNorm(channels, factor), nn.GELU()]

    widths = [8 * in_channels, w, 4 * w, 4 * w]
    stages = [[*layer(a, b, nn.MaxPool2d(2)), *layer(b, b)] for a, b in pairwise(widths)]
    ending = [nn.AdaptiveMaxPool2d(1), nn.Flatten(), _Scaled(4 * w, num_classes, bias=False)]
    return nn.Sequential(first, nn.GELU(), *(part for stage in stages for part in stage), *ending)


class _InBfloat16(nn.Module):
    def __init__(self, model: nn.Module):
        super().__init__()
        self.model = model

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        with torch.autocast(x.device.type, torch.bfloat16):
            return self.model(x).float()


def in_bfloat16(model: nn.Module) -> nn.Module:
    """The model with its products computed in bfloat16 and its pictures in channels-last order, to be fast on a GPU.

    The parameters, and the logits that come out, stay float32: `torch.autocast` casts what goes into convolutions and
    linear layers. The parameters are those of `model`, their memory laid out anew.

    Args:
        model: maps pictures (B, C, H, W) to logits (B, classes).

    Example:
        >>> fast = in_bfloat16(fast_net(width=4))
        >>> fast(torch.zeros(5, 3, 32, 32)).dtype, {p.dtype for p in fast.parameters()}
        (torch.float32, {torch.float32})
    """
    return _InBfloat16(model.to(memory_format=torch.channels_last))  # type: ignore[call-overload]
