"""Whole-epoch augmentation against a loop over pictures, its draws, and what it leaves alone; the fast network."""

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

import lrlib
from lrlib.augment import augmented


def one_by_one(x, generator, pad, mirror, cutout):
    """The same draws, then a plain loop over pictures."""
    n, _, height, width = x.shape
    draw = lambda high: torch.randint(high, (n, 1), generator=generator).flatten().tolist()  # noqa: E731
    down = draw(2 * pad + 1)
    flipped = draw(2) if mirror else [0] * n
    right = draw(2 * pad + 1)
    top, left = (draw(height - cutout + 1), draw(width - cutout + 1)) if cutout else ([0] * n, [0] * n)
    pictures = []
    for k, picture in enumerate(x):
        padded = F.pad(picture[None], (pad,) * 4, mode="reflect")[0]
        window = padded[:, down[k] : down[k] + height, right[k] : right[k] + width].clone()
        window = window.flip(2) if flipped[k] else window
        window[:, top[k] : top[k] + cutout, left[k] : left[k] + cutout] = 0
        pictures.append(window)
    return torch.stack(pictures)


@pytest.mark.parametrize("options", [(4, True, 0), (3, False, 0), (2, True, 5), (0, True, 7), (0, False, 0)], ids=str)
def test_it_is_the_loop_over_pictures(options):
    pad, mirror, cutout = options
    x = torch.randn(200, 3, 7, 9, generator=torch.Generator().manual_seed(1))
    fast = augmented(x, torch.Generator().manual_seed(5), pad=pad, mirror=mirror, cutout=cutout)
    assert torch.equal(fast, one_by_one(x, torch.Generator().manual_seed(5), pad, mirror, cutout))
    assert fast.is_contiguous(memory_format=torch.channels_last)


def test_every_shift_and_both_sides_come_up_about_equally_often():
    x = torch.arange(81.0).view(1, 1, 9, 9).expand(9000, -1, -1, -1)
    out = augmented(x, torch.Generator().manual_seed(0), pad=1)
    kinds, counts = np.unique(out[:, 0, 4, 3:6].numpy(), axis=0, return_counts=True)
    assert len(kinds) == 18  # 3 x 3 shifts, two directions
    assert counts.min() > 500 - 5 * 22 and counts.max() < 500 + 5 * 22  # 5 standard deviations


def test_each_epoch_has_new_pictures_and_the_data_set_stays(monkeypatch):
    data = lrlib.digits()
    before = data.x_train.clone()
    shifted = lrlib.Augmentation(data, batch_size=400, seed=2, pad=1, mirror=False)
    seen = [shifted.data.x_train.clone()]
    note = lambda run: seen.append(shifted.data.x_train.clone())  # noqa: E731
    lrlib.train(lrlib.mlp(64, 10), shifted.data, 0.1, steps=6, batch_size=400, callbacks=[shifted, note])
    changed = [not torch.equal(a, b) for a, b in zip(seen, seen[1:], strict=False)]
    assert changed == [False, False, True, False, False, True]
    assert torch.equal(data.x_train, before) and torch.equal(shifted.data.y_train, data.y_train)
    generator = torch.Generator().manual_seed(2)
    for epoch in (0, 3, 6):
        assert torch.equal(seen[epoch], augmented(before, generator, pad=1, mirror=False))


@pytest.mark.parametrize(
    ("arguments", "error", "named"),
    [
        ({"pad": 8}, ValueError, "pad=8"),
        ({"pad": -1}, ValueError, "pad=-1"),
        ({"pad": 1.5}, TypeError, "pad=1.5"),
        ({"cutout": 9}, ValueError, "cutout=9"),
        ({"batch_size": 0}, ValueError, "batch_size=0"),
        ({"batch_size": 2000}, ValueError, "batch_size=2000"),
        ({"seed": -1}, ValueError, "seed=-1"),
    ],
)
def test_bad_arguments(arguments, error, named):
    with pytest.raises(error, match=named):
        lrlib.Augmentation(lrlib.digits(), **({"batch_size": 64} | arguments))
    with pytest.raises(ValueError, match="x: has shape"):
        augmented(torch.zeros(3, 4, 4), torch.Generator())


@pytest.mark.parametrize(("width", "channels", "classes"), [(4, 3, 10), (6, 1, 7)])
def test_resnet9_has_the_shapes_and_parameters_of_its_description(width, channels, classes):
    with lrlib.seeded(0):
        model = lrlib.resnet9(width, channels, classes)
    w = width
    layers = [(channels, w), (w, 2 * w), *[(2 * w, 2 * w)] * 2, (2 * w, 4 * w), (4 * w, 8 * w), *[(8 * w, 8 * w)] * 2]
    convolutions = [m for m in model.modules() if isinstance(m, nn.Conv2d)]
    assert [(m.in_channels, m.out_channels) for m in convolutions] == layers
    assert lrlib.parameter_count(model) == sum(9 * a * b + 2 * b for a, b in layers) + 8 * w * classes
    plain, pooled = [nn.Conv2d, nn.BatchNorm2d, nn.CELU], [nn.Conv2d, nn.MaxPool2d, nn.BatchNorm2d, nn.CELU]
    order = [*plain, *pooled, *plain * 2, *pooled, *pooled, *plain * 2, nn.AdaptiveMaxPool2d, nn.Flatten]
    found = [type(m) for m in model.modules() if not list(m.children())]
    assert found[:-1] == order and issubclass(found[-1], nn.Linear)
    assert {m.alpha for m in model.modules() if isinstance(m, nn.CELU)} == {0.075}
    x = torch.randn(32, channels, 16, 16)
    logits = model.eval()(x)
    assert logits.shape == (32, classes)
    torch.testing.assert_close(logits, model[:-1](x) @ model[-1].weight.T / 8)
    with pytest.raises(ValueError, match="width=0"):
        lrlib.resnet9(0)


def test_channels_last_and_bfloat16_change_the_logits_by_rounding_only():
    with lrlib.seeded(0):
        model, x = lrlib.resnet9(8).eval(), torch.randn(20, 3, 16, 16)
    with torch.no_grad():
        plain = model(x)
        last = model.to(memory_format=torch.channels_last)(x)
        half = lrlib.in_bfloat16(model)(x)
    spread = plain.std()
    assert (last - plain).abs().max() < 1e-4 * spread
    assert 1e-4 * spread < (half - plain).abs().max() < 0.2 * spread
    assert half.dtype == torch.float32


def test_the_fast_network_learns_with_the_one_training_loop():
    data = lrlib.hard_digits(n_train=1000, n_test=500)
    shifted = lrlib.Augmentation(data, batch_size=50, pad=1, mirror=False)
    with lrlib.seeded(0):
        model = lrlib.in_bfloat16(lrlib.resnet9(4, in_channels=1))
    sgd = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9, nesterov=True, weight_decay=5e-4)
    schedule = lrlib.one_cycle(0.2, total_steps=100)
    history = lrlib.train(model, shifted.data, schedule, steps=100, batch_size=50, optimizer=sgd, callbacks=[shifted])
    np.testing.assert_array_equal(history.lr, schedule(range(100)))
    assert history.accuracy > 0.55
