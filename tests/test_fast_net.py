"""The fast network: its layers, its filters, the rate of its shifts; the average that a run goes on from."""

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

import lrlib

DATA = lrlib.hard_digits(n_train=1000, n_test=500)


def small(seed=0, **options):
    with lrlib.seeded(seed):
        return lrlib.fast_net(1, 4, **{"filters": lrlib.whitening_filters(DATA.x_train)} | options)


def test_the_filters_whiten_patches():
    x = DATA.x_train[:500]
    filters = lrlib.whitening_filters(x, size=3, eps=1e-9)
    assert filters.shape == (18, 1, 3, 3) and torch.equal(filters[9:], -filters[:9])
    out = F.conv2d(x, filters[:9]).transpose(0, 1).flatten(1)
    torch.testing.assert_close(out @ out.T / out.shape[1], torch.eye(9), atol=2e-3, rtol=0)
    sizes = filters[:9].flatten(1).norm(dim=1)
    assert (sizes.diff() > 0).all()  # 1 / sqrt of falling eigenvalues
    assert lrlib.whitening_filters(x, size=3, eps=100.0).abs().max() <= 0.1


def test_a_channel_that_never_varies_gives_finite_filters():
    filters = lrlib.whitening_filters(torch.zeros(5, 2, 6, 6))
    torch.testing.assert_close(filters.flatten(1).norm(dim=1), torch.full((16,), 5e-4**-0.5))


@pytest.mark.parametrize(("width", "channels", "classes"), [(64, 3, 10), (6, 1, 7)])
def test_its_shapes_and_parameters_are_those_of_its_description(width, channels, classes):
    x = torch.randn(32, channels, 16, 16)
    model = lrlib.fast_net(channels, width, classes, filters=lrlib.whitening_filters(x))
    layers = [(8 * channels, width), (width, width), (width, 4 * width), *[(4 * width, 4 * width)] * 3]
    first, *convolutions = (m for m in model.modules() if isinstance(m, nn.Conv2d))
    assert (first.kernel_size, first.padding) == ((2, 2), (0, 0)) and not first.weight.requires_grad
    assert [(m.in_channels, m.out_channels) for m in convolutions] == layers
    trained = sum(9 * a * b + b for a, b in layers) + 4 * width * classes + 8 * channels
    assert lrlib.parameter_count(model) == trained
    pair = [nn.Conv2d, nn.MaxPool2d, nn.BatchNorm2d, nn.GELU, nn.Conv2d, nn.BatchNorm2d, nn.GELU]
    kinds = [nn.Conv2d, nn.GELU, *pair * 3, nn.AdaptiveMaxPool2d, nn.Flatten, nn.Linear]
    for module, kind in zip(model, kinds, strict=True):
        assert isinstance(module, kind)
    logits = model.eval()(x)
    assert logits.shape == (32, classes)
    torch.testing.assert_close(logits, model[:-1](x) @ model[-1].weight.T / 9)


def test_the_convolutions_begin_as_copies_of_their_inputs():
    for conv in [m for m in small().modules() if isinstance(m, nn.Conv2d)][2:]:
        x = torch.randn(1, conv.in_channels, 5, 5)
        torch.testing.assert_close(conv(x)[:, : conv.in_channels], x)
    plain = small(identity=False)
    assert not any((m.weight == 1).any() for m in plain.modules() if isinstance(m, nn.Conv2d))


def test_the_frozen_filters_stay_and_their_bias_learns():
    model = small()
    before = [p.detach().clone() for p in model[0].parameters()]
    lrlib.train(model, DATA, 0.1, steps=3, batch_size=50)
    assert torch.equal(model[0].weight, before[0]) and not torch.equal(model[0].bias, before[1])
    assert small(filters=None)[0].weight.requires_grad


@pytest.mark.parametrize("rate", [64.0, 4.0])
def test_the_factor_is_a_rate_for_the_shifts_beside_parameter_groups_of_torch(rate):
    """Ours with one rate, and the plain network with a group of shifts at `rate` times it and a decay as large."""
    ours, theirs = small(bias_rate=rate).double(), small(bias_rate=1.0).double()
    shifts = [m.bias for m in theirs.modules() if isinstance(m, nn.BatchNorm2d)]
    rest = [p for p in theirs.parameters() if p.requires_grad and all(p is not shift for shift in shifts)]
    groups = [{"params": rest}, {"params": shifts, "lr": 0.02 * rate, "weight_decay": 0.1 / rate}]
    sgd = torch.optim.SGD(groups, lr=0.02, momentum=0.8, nesterov=True, weight_decay=0.1)
    rule = lrlib.SGD(momentum=0.8, nesterov=True, weight_decay=0.1).optimizer(
        [p for p in ours.parameters() if p.requires_grad], lr=0.02
    )
    x, y = DATA.x_train[:64].double(), DATA.y_train[:64]
    for _ in range(3):
        for model, optimizer in ((ours, rule), (theirs, sgd)):
            optimizer.zero_grad()
            F.cross_entropy(model(x), y).backward()
            optimizer.step()
    for mine, other in zip(ours.modules(), theirs.modules(), strict=True):
        if isinstance(mine, nn.BatchNorm2d):
            torch.testing.assert_close(mine.bias * rate**0.5, other.bias)
        elif isinstance(mine, nn.Conv2d):
            torch.testing.assert_close(mine.weight, other.weight)
    assert max(shift.abs().max() for shift in shifts) > 0


def test_a_stack_of_it_is_the_single_runs():
    models = [small(seed) for seed in range(2)]
    stack = lrlib.Stack(models)
    lrlib.train(stack, DATA, [0.1, 0.2], steps=4, batch_size=50, seed=[0, 1])
    for r, (model, lr) in enumerate(zip(models, (0.1, 0.2), strict=True)):
        lrlib.train(model, DATA, lr, steps=4, batch_size=50, seed=r)
        for name, value in model.state_dict().items():
            torch.testing.assert_close(stack.replica(r)[name], value, atol=1e-4, rtol=1e-3)


@pytest.mark.parametrize(
    ("arguments", "error", "named"),
    [
        ({"width": 0}, ValueError, "width=0"),
        ({"in_channels": 1.5}, TypeError, "in_channels=1.5"),
        ({"bias_rate": 0.0}, ValueError, "bias_rate=0.0"),
        ({"filters": torch.zeros(8, 1, 2, 2)}, ValueError, r"\(8, 1, 2, 2\), must be \(24, 3, 2, 2\)"),
    ],
)
def test_bad_arguments(arguments, error, named):
    with pytest.raises(error, match=named):
        lrlib.fast_net(**arguments)


@pytest.mark.parametrize(("options", "named"), [({"size": 5}, "size=5"), ({"eps": 0.0}, "eps=0.0")])
def test_bad_arguments_of_filters(options, named):
    with pytest.raises(ValueError, match=named):
        lrlib.whitening_filters(torch.zeros(3, 1, 4, 4), **options)
    with pytest.raises(ValueError, match="x: has shape"):
        lrlib.whitening_filters(torch.zeros(3, 4, 4))


def test_channels_last_and_bfloat16_change_the_logits_by_rounding_only():
    with lrlib.seeded(0):
        x = torch.randn(20, 3, 16, 16)
        model = lrlib.fast_net(width=8, filters=lrlib.whitening_filters(x)).eval()
    with torch.no_grad():
        plain = model(x)
        last = model.to(memory_format=torch.channels_last)(x)
        half = lrlib.in_bfloat16(model)(x)
    spread = plain.std()
    assert (last - plain).abs().max() < 1e-4 * spread
    assert 1e-4 * spread < (half - plain).abs().max() < 0.2 * spread
    assert half.dtype == torch.float32


def test_it_learns_with_the_one_training_loop():
    shifted = lrlib.Augmentation(DATA, batch_size=50, pad=1, mirror=False)
    with lrlib.seeded(0):
        model = lrlib.in_bfloat16(lrlib.fast_net(1, 8, filters=lrlib.whitening_filters(DATA.x_train)))
    sgd = lrlib.SGD(momentum=0.85, nesterov=True, weight_decay=1e-3)
    options = {"steps": 100, "batch_size": 50, "optimizer": sgd, "callbacks": [shifted, lrlib.Lookahead()]}
    assert lrlib.train(model, shifted.data, lrlib.one_cycle(0.4, total_steps=100), **options).accuracy > 0.5


def test_lookahead_is_its_formula():
    data = (torch.randn(40, 3, generator=torch.Generator().manual_seed(0)), torch.arange(40) % 3)

    def run(callbacks):
        with lrlib.seeded(0):
            model, path = nn.Linear(3, 3), []
        note = lambda run: path.append(run.weights[0][0].clone())  # noqa: E731
        grow = lambda run: run.weights[0].add_(1.0)  # noqa: E731
        lrlib.train(model, data, 0.0, steps=7, batch_size=40, callbacks=[grow, *callbacks, note])
        return model.weight.detach(), torch.stack(path)[:, 0, 0].numpy()

    start = run([])[1][0] - 1
    final, path = run([lrlib.Lookahead(every=3, decay=0.9)])
    slow = fast = start
    for t in range(1, 8):
        fast += 1.0
        if t % 3 == 0:
            kept = 0.9**3 * (t / 7) ** 3
            slow = fast = kept * slow + (1 - kept) * fast
        np.testing.assert_allclose(path[t - 1], fast, rtol=1e-6)
    np.testing.assert_allclose(final[0, 0], slow, rtol=1e-6)


def test_lookahead_averages_running_statistics_and_leaves_a_replica_that_has_ended():
    stack = lrlib.Stack([lrlib.conv_net(4) for _ in range(2)])
    stop = lrlib.Periodic(lambda run: (run.stop([1]), kept.append(stack.replica(1))), at=[3])
    kept: list[dict] = []
    lrlib.train(stack, DATA, 0.1, steps=8, batch_size=50, callbacks=[stop, lrlib.Lookahead(every=4, decay=0.99)])
    ended = stack.replica(1)
    assert all(torch.equal(ended[name], value) for name, value in kept[0].items() if name.endswith("weight"))
    for options in ({"every": 0}, {"decay": 1.0}):
        with pytest.raises(ValueError, match=next(iter(options))):
            lrlib.Lookahead(**options)


def test_torch_refreshes_its_statistics_too():
    model = lrlib.fast_net(1, width=4)
    x = 1 + 3 * torch.randn(200, 1, 12, 12, generator=torch.Generator().manual_seed(0))
    torch.optim.swa_utils.update_bn(x.split(50), model)
    found = {name: buffer.clone() for name, buffer in model.named_buffers()}
    lrlib.refresh_batchnorm(model, x, batch_size=50)
    for name, buffer in model.named_buffers():
        torch.testing.assert_close(buffer, found[name])
    assert found["2.running_mean" if "2.running_mean" in found else next(iter(found))].any()


def test_what_comes_after_the_last_look_ahead_is_dropped_from_running_statistics_too():
    data, seen = (torch.randn(40, 3, generator=torch.Generator().manual_seed(0)), torch.arange(40) % 3), []
    model = nn.Sequential(nn.BatchNorm1d(3), nn.Linear(3, 3))
    note = lrlib.Periodic(lambda run: seen.append(model[0].running_mean.clone()), at=[5, 6, 7])
    lrlib.train(model, data, 0.1, steps=7, batch_size=20, callbacks=[lrlib.Lookahead(every=3), note])
    assert torch.equal(model[0].running_mean, seen[1]) and not torch.equal(seen[1], seen[2])
