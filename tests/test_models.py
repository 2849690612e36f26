"""The networks: shapes, parameter counts, initialisation, what the norms and skips promise, and their errors."""

import math

import pytest
import torch
from torch import nn
from torch.nn import functional as F

import lrlib
from lrlib.models import PICTURE_NORMS, PreResNet, conv_net, mlp, parameter_count

NORMS = list(PICTURE_NORMS)
PER_EXAMPLE = ["group", "layer", "instance", None]
MAKERS = {
    "mlp": lambda norm=None: mlp(64, 7, 5, 10, norm=norm),
    "conv_net": lambda norm="batch": conv_net(4, norm=norm),
    "PreResNet": lambda norm="batch": PreResNet(8, 4, 1, norm=norm),
}


def pictures(n=4, channels=1, size=8, dtype=torch.float32):
    return torch.randn(n, channels, size, size, generator=torch.Generator().manual_seed(0), dtype=dtype)


def made(make, seed=0):
    with lrlib.seeded(seed):
        return make()


@pytest.mark.parametrize("make", MAKERS.values(), ids=MAKERS)
def test_the_seed_fixes_the_weights(make):
    a, b, c = made(make, 0).state_dict(), made(make, 0).state_dict(), made(make, 1).state_dict()
    assert all(torch.equal(a[key], b[key]) for key in a)
    assert any(not torch.equal(a[key], c[key]) for key in a)


@pytest.mark.parametrize("make", MAKERS.values(), ids=MAKERS)
def test_every_parameter_gets_a_finite_gradient(make):
    model = made(make)
    F.cross_entropy(model(pictures(8)), torch.arange(8)).backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in model.parameters())


def test_parameter_count_counts_trainable_scalars_once():
    layer = nn.Linear(3, 3)
    assert parameter_count(nn.Sequential(layer, layer)) == 12
    layer.bias.requires_grad_(False)
    assert parameter_count(layer) == 9


# mlp


@pytest.mark.parametrize(
    "activation, expected", [("relu", F.relu), ("tanh", torch.tanh), ("sigmoid", torch.sigmoid), ("gelu", F.gelu)]
)
def test_mlp_is_the_formula(activation, expected):
    model, x = made(lambda: mlp(64, 6, 3, activation=activation)), pictures()
    first, last = (m for m in model if isinstance(m, nn.Linear))
    hidden = expected(x.flatten(1) @ first.weight.T + first.bias)
    torch.testing.assert_close(model(x), hidden @ last.weight.T + last.bias)


def test_mlp_of_two_widths_is_linear():
    assert [type(m) for m in mlp(4, 2)] == [nn.Flatten, nn.Linear]


@pytest.mark.parametrize("norm, layer", [("batch", nn.BatchNorm1d), ("layer", nn.LayerNorm)])
def test_mlp_norm_comes_before_each_hidden_activation(norm, layer):
    model = mlp(64, 7, 5, 10, norm=norm)
    hidden = [nn.Linear, layer, nn.ReLU]
    assert [type(m) for m in model] == [nn.Flatten, *hidden, *hidden, nn.Linear]
    assert [m.bias is None for m in model if isinstance(m, nn.Linear)] == [True, True, False]
    assert parameter_count(model) == 64 * 7 + 2 * 7 + 7 * 5 + 2 * 5 + 5 * 10 + 10
    assert model(pictures()).shape == (4, 10)


# Networks for pictures


@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize("size", [8, 16, 28, 32])
@pytest.mark.parametrize("skip", [True, False])
def test_shapes(norm, size, skip):
    x = pictures(2, 3, size)
    assert PreResNet(14, 4, 3, 7, norm=norm, skip=skip)(x).shape == (2, 7)
    assert conv_net(4, 3, 7, norm=norm)(x).shape == (2, 7)


@pytest.mark.parametrize("width", [1, 3, 5, 12])
def test_group_norm_takes_any_width(width):
    assert PreResNet(8, width, 1, norm="group")(pictures()).shape == (4, 10)
    assert conv_net(width, norm="group")(pictures()).shape == (4, 10)


@pytest.mark.parametrize("norm, groups", [("group", 8), ("layer", 1), ("instance", 16)])
def test_groups_of_the_norms(norm, groups):
    assert PICTURE_NORMS[norm](16).num_groups == groups


@pytest.mark.parametrize("make", [conv_net, PreResNet])
@pytest.mark.parametrize("norm", [norm for norm in NORMS if norm is not None])
def test_a_norm_makes_the_convolution_before_it_scale_invariant(make, norm):
    model, x = (
        made(lambda: make(4, in_channels=1, norm=norm) if make is conv_net else make(8, 4, 1, norm=norm)).double(),
        pictures(dtype=torch.float64),
    )
    conv = model[0] if make is conv_net else model.blocks[0].conv1
    before = model(x)
    with torch.no_grad():
        conv.weight *= 7.0
    torch.testing.assert_close(model(x), before, rtol=1e-4, atol=1e-4)  # the norms' epsilon


@pytest.mark.parametrize("make", [MAKERS["conv_net"], MAKERS["PreResNet"]])
@pytest.mark.parametrize("norm", NORMS)
def test_only_batch_norm_lets_examples_see_each_other(make, norm):
    model, x = made(lambda: make(norm)), pictures()
    alone = torch.allclose(model(x)[:2], model(x[:2]), atol=1e-5)
    assert alone == (norm in PER_EXAMPLE)


@pytest.mark.parametrize("norm", NORMS)
def test_convolutions_start_as_he_says_and_have_a_bias_only_without_norm(norm):
    model = made(lambda: PreResNet(8, 32, 3, norm=norm))
    convolutions = [m for m in model.modules() if isinstance(m, nn.Conv2d)]
    assert len(convolutions) == 7
    for conv in convolutions:
        fan_out = 9 * conv.out_channels
        n = conv.weight.numel()
        assert conv.weight.std().item() == pytest.approx(math.sqrt(2 / fan_out), rel=4 / math.sqrt(2 * n))
        assert (conv.bias is None) == (norm is not None)
        assert conv.bias is None or not conv.bias.any()


@pytest.mark.parametrize("depth", [8, 14, 20])
@pytest.mark.parametrize("norm", NORMS)
def test_parameters_of_the_resnet(depth, norm):
    w, n = 4, (depth - 2) // 6
    shapes = [(3, w)] + [(w, w)] * 2 * n + [(w, 2 * w)] + [(2 * w, 2 * w)] * (2 * n - 1)
    shapes += [(2 * w, 4 * w)] + [(4 * w, 4 * w)] * (2 * n - 1)
    extra = sum(2 * a for a, _ in shapes[1:]) + 2 * 4 * w if norm else sum(b for _, b in shapes)
    expected = sum(9 * a * b for a, b in shapes) + extra + 4 * w * 10 + 10
    counts = [parameter_count(PreResNet(depth, w, norm=norm, skip=skip)) for skip in (True, False)]
    assert counts == [expected, expected]


def test_layers_of_the_resnet_are_its_depth():
    for depth in (8, 20, 56):
        layers = [m for m in PreResNet(depth, 1).modules() if isinstance(m, nn.Conv2d | nn.Linear)]
        assert len(layers) == depth


def test_with_its_branch_at_zero_a_block_is_its_shortcut():
    model, plain = made(lambda: PreResNet(14, 4, 1)), made(lambda: PreResNet(14, 4, 1, skip=False))
    for block, other in zip(model.blocks, plain.blocks, strict=True):
        channels_in, channels = block.conv1.in_channels, block.conv1.out_channels
        x = pictures(2, channels_in)
        with torch.no_grad():
            block.conv2.weight.zero_()
            other.conv2.weight.zero_()
        out = block(x)
        if channels == channels_in:
            assert torch.equal(out, x)
        else:
            assert torch.equal(out[:, :channels_in], x[:, :, ::2, ::2])
            assert not out[:, channels_in:].any()
        assert not other(x).any()


def test_stages_halve_the_picture_and_double_the_channels():
    model, x, shapes = PreResNet(14, 4, 3), pictures(2, 3, 32), []
    x = model.stem(x)
    for block in model.blocks:
        x = block(x)
        shapes.append(tuple(x.shape[1:]))
    assert shapes == [(4, 32, 32)] * 2 + [(8, 16, 16)] * 2 + [(16, 8, 8)] * 2


def test_skip_and_plain_start_from_the_same_weights():
    a, b = made(lambda: PreResNet(8, 4)).state_dict(), made(lambda: PreResNet(8, 4, skip=False)).state_dict()
    assert a.keys() == b.keys() and all(torch.equal(a[key], b[key]) for key in a)


# Errors


@pytest.mark.parametrize(
    "make, error, message",
    [
        (lambda: mlp(), ValueError, r"widths=\(\): must be at least 2 integers"),
        (lambda: mlp(64), ValueError, r"widths=\(64,\): must be at least 2 integers"),
        (lambda: mlp(64, 0, 10), ValueError, r"widths\[1\]=0: must be an integer >= 1"),
        (lambda: mlp(64, 2.5, 10), TypeError, r"widths\[1\]=2.5: must be an integer >= 1"),
        (lambda: mlp(64, 10, activation="swish"), ValueError, r"activation='swish': must be one of 'relu', 'tanh'"),
        (lambda: mlp(64, 10, norm="group"), ValueError, r"norm='group': must be one of 'batch', 'layer', None"),
        (lambda: conv_net(0), ValueError, r"width=0: must be an integer >= 1"),
        (lambda: conv_net(in_channels=-1), ValueError, r"in_channels=-1: must be an integer >= 1"),
        (lambda: conv_net(num_classes=0), ValueError, r"num_classes=0: must be an integer >= 1"),
        (lambda: conv_net(norm="Batch"), ValueError, r"norm='Batch': must be one of 'batch', 'group', .*None"),
        (lambda: PreResNet(9), ValueError, r"depth=9: must be 6n \+ 2 with n >= 1"),
        (lambda: PreResNet(2), ValueError, r"depth=2: must be 6n \+ 2 with n >= 1"),
        (lambda: PreResNet(-4), ValueError, r"depth=-4: must be"),
        (lambda: PreResNet(8.0), TypeError, r"depth=8.0: must be an integer"),
        (lambda: PreResNet(width=0), ValueError, r"width=0: must be an integer >= 1"),
        (lambda: PreResNet(norm="none"), ValueError, r"norm='none': must be one of"),
    ],
)
def test_bad_arguments_are_named_at_construction(make, error, message):
    with pytest.raises(error, match=message):
        make()
