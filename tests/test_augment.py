"""Whole-epoch augmentation against a loop over pictures, its draws, and what it leaves alone; alternating mirrors."""

import numpy as np
import pytest
import torch
from torch.nn import functional as F

import lrlib
from lrlib.augment import augmented


def one_by_one(x, generator, pad, mirror):
    """The same draws, then a plain loop over pictures."""
    n, _, height, width = x.shape
    draw = lambda high: torch.randint(high, (n, 1), generator=generator).flatten().tolist()  # noqa: E731
    down = draw(2 * pad + 1)
    flipped = draw(2) if mirror else [0] * n
    right = draw(2 * pad + 1)
    pictures = []
    for k, picture in enumerate(x):
        padded = F.pad(picture[None], (pad,) * 4, mode="reflect")[0]
        window = padded[:, down[k] : down[k] + height, right[k] : right[k] + width].clone()
        pictures.append(window.flip(2) if flipped[k] else window)
    return torch.stack(pictures)


@pytest.mark.parametrize("options", [(4, True), (3, False), (2, True), (0, True), (0, False)], ids=str)
def test_it_is_the_loop_over_pictures(options):
    pad, mirror = options
    x = torch.randn(200, 3, 7, 9, generator=torch.Generator().manual_seed(1))
    fast = augmented(x, torch.Generator().manual_seed(5), pad=pad, mirror=mirror)
    assert torch.equal(fast, one_by_one(x, torch.Generator().manual_seed(5), pad, mirror))
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
        ({"mirror": "random"}, ValueError, "mirror='random'"),
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
    with pytest.raises(ValueError, match="mirror: is torch.int64 of shape"):
        augmented(torch.zeros(3, 1, 4, 4), torch.Generator(), pad=1, mirror=torch.ones(3, dtype=torch.int64))


def test_alternating_mirrors_take_turns_and_each_picture_shows_both_sides_in_two_epochs():
    data = lrlib.digits()
    shown = lrlib.Augmentation(data, batch_size=400, seed=3, pad=0, mirror="alternate")
    epochs = []
    note = lrlib.Periodic(lambda run: epochs.append(shown.data.x_train.clone()), at=[0, 3, 6])
    lrlib.train(lrlib.mlp(64, 10), shown.data, 0.1, steps=7, batch_size=400, callbacks=[shown, note])
    plain, mirrored = data.x_train, data.x_train.flip(3)
    is_plain = (epochs[0] == plain).flatten(1).all(1)
    assert 0.4 < is_plain.double().mean() < 0.6
    assert torch.equal(epochs[0], torch.where(is_plain[:, None, None, None], plain, mirrored))
    assert torch.equal(epochs[1], epochs[0].flip(3)) and torch.equal(epochs[2], epochs[0])


@pytest.mark.parametrize("mirror", [True, "alternate"])
def test_a_run_that_goes_on_sees_the_same_pictures(mirror):
    data, states = lrlib.digits(), []

    def run(callbacks, **options):
        shown = lrlib.Augmentation(data, batch_size=400, seed=3, pad=1, mirror=mirror)
        with lrlib.seeded(0):
            model = lrlib.mlp(64, 10)
        callbacks = [shown, lrlib.Lookahead(every=2), *callbacks]
        lrlib.train(model, shown.data, 0.1, steps=9, batch_size=400, callbacks=callbacks, **options)
        return model[1].weight.detach()

    keep = lrlib.Periodic(lambda run: states.append(run.state_dict()), at=[5])
    assert torch.equal(run([keep]), run([], resume=states[0]))


def test_a_picture_and_its_mirror_image_get_one_answer():
    with lrlib.seeded(0):
        model, x = lrlib.conv_net(4).eval(), torch.randn(30, 1, 8, 8)
    both = lrlib.mirror_averaged(model)
    torch.testing.assert_close(both(x), (model(x) + model(x.flip(3))) / 2)


def test_a_run_on_other_pictures_than_those_that_change_is_refused():
    data = lrlib.digits()
    shown = [lrlib.Augmentation(data, batch_size=400, seed=seed, pad=1, mirror=False) for seed in range(2)]
    options = {"steps": 3, "batch_size": 400}
    for model, sets in (
        (lrlib.Stack([lrlib.mlp(64, 10) for _ in shown]), [some.data for some in shown]),
        (lrlib.mlp(64, 10), data),
        (lrlib.mlp(64, 10), lrlib.hold_out(shown[0].data, 0.1)[0]),
    ):
        with pytest.raises(ValueError, match="data: has other pictures than the Augmentation"):
            lrlib.train(model, sets, 0.1, callbacks=shown[:1], **options)
    same = shown[0].data
    loader = torch.utils.data.DataLoader(torch.utils.data.TensorDataset(same.x_train, same.y_train), 400)
    pair = same.x_train, same.y_train
    for model, sets in (
        (lrlib.Stack([lrlib.mlp(64, 10) for _ in shown]), [same, same]),
        (lrlib.Stack([lrlib.mlp(64, 10) for _ in shown]), pair),
        (lrlib.mlp(64, 10), pair),
        (lrlib.mlp(64, 10), loader),
    ):
        lrlib.train(model, sets, 0.1, callbacks=shown[:1], **options)
