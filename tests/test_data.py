"""The embedded data: splits, the digits made harder, wrong labels, held-out parts, batches."""

import hashlib

import numpy as np
import pytest
import sklearn.datasets
import sklearn.model_selection
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.nn import functional as F

import lrlib
from lrlib import Dataset, batches, digits, hard_digits
from lrlib.data import standardised

TENSORS = ("x_train", "y_train", "x_test", "y_test")


def same(a, b):
    return all(torch.equal(getattr(a, name), getattr(b, name)) for name in TENSORS)


def grey_levels(x):
    """The whole numbers that pictures of one channel had before they were standardised, above the lowest of them."""
    x = x.double().numpy()
    return np.rint((x - x.min()) / np.diff(np.unique(x)).min()).astype(int)


# Dataset

X, Y = torch.zeros(3, 1, 2, 2), torch.tensor([0, 1, 2])


def a_dataset(**changes):
    return Dataset(**{"name": "d", "x_train": X, "y_train": Y, "x_test": X, "y_test": Y, "num_classes": 3} | changes)


@pytest.mark.parametrize(
    "changes, error, message",
    [
        ({"x_train": X.numpy()}, TypeError, "x_train: is a ndarray, must be a tensor"),
        ({"x_train": X.double()}, ValueError, "x_train: is float64 .* must be float32"),
        (
            {"x_test": X[0]},
            ValueError,
            r"x_test: .* of shape \(1, 2, 2\), must be .* of shape \(N, 1, 2, 2\), not empty",
        ),
        ({"x_test": X[:0], "y_test": Y[:0]}, ValueError, "x_test: .*, not empty"),
        (
            {"x_test": torch.zeros(3, 1, 2, 3)},
            ValueError,
            r"x_test: .* of shape \(3, 1, 2, 3\), must be .* \(N, 1, 2, 2\)",
        ),
        ({"y_train": Y.int()}, ValueError, "y_train: is int32 .* must be int64"),
        ({"y_train": Y[:2]}, ValueError, r"y_train: is int64 of shape \(2,\), must be int64 of shape \(3,\)"),
        ({"y_test": Y + 1}, ValueError, r"y_test: has numbers from 1 to 3, must be in \[0, 2\]"),
        ({"y_test": Y - 1}, ValueError, r"y_test: has numbers from -1 to 1, must be in \[0, 2\]"),
        ({"num_classes": 1}, ValueError, "num_classes=1: must be an integer >= 2"),
    ],
)
def test_a_dataset_of_unfitting_parts_is_refused(changes, error, message):
    with pytest.raises(error, match=message):
        a_dataset(**changes)


def test_to_moves_the_four_tensors_and_keeps_the_rest(monkeypatch):
    data, asked = a_dataset(sha256="ab"), []
    monkeypatch.setattr(torch.Tensor, "to", lambda tensor, device: asked.append(device) or tensor.clone())
    moved = data.to("cuda")
    assert asked == ["cuda"] * 4
    assert all(torch.equal(getattr(moved, name), getattr(data, name)) for name in TENSORS)
    assert (moved.name, moved.num_classes, moved.sha256) == ("d", 3, "ab")


def test_repr_is_short():
    assert repr(a_dataset()) == "Dataset('d', train 3, test 3, pictures 1x2x2, 3 classes)"


def test_two_sets_are_equal_only_if_they_are_one():
    one = a_dataset()
    assert one == one and one != a_dataset() and len({one, a_dataset()}) == 2


# Digits


def test_digits_are_all_there_once_and_in_proportion():
    data, bunch = digits(seed=3), sklearn.datasets.load_digits()
    together = np.concatenate([grey_levels(data.x_train), grey_levels(data.x_test)])
    assert (len(data.x_train), len(data.x_test)) == (1297, 500)
    assert sorted(map(bytes, together)) == sorted(map(bytes, bunch.images[:, None].astype(int)))
    share = np.bincount(bunch.target) / len(bunch.target)
    assert np.abs(np.bincount(data.y_test) - 500 * share).max() <= 1
    assert np.abs(np.bincount(data.y_train) - 1297 * share).max() <= 1


@pytest.mark.parametrize("make", [digits, hard_digits])
def test_the_seed_fixes_the_set_and_changes_it(make):
    a, b, c = make(seed=1), make(seed=1), make(seed=2)
    assert same(a, b) and not torch.equal(a.x_train, c.x_train) and not torch.equal(a.x_test, c.x_test)


@pytest.mark.parametrize("make, digest", [(digits, "b57c7dfafa42ea24"), (hard_digits, "234ddabac6d3e485")])
def test_the_embedded_sets_are_the_same_everywhere(make, digest):
    data = make()
    content = b"".join(getattr(data, name).numpy().tobytes() for name in TENSORS)
    assert hashlib.sha256(content).hexdigest()[:16] == digest


def test_the_caller_may_write_into_a_set():
    digits().x_train.zero_()
    assert digits().x_train.any()


@pytest.mark.parametrize("make", [digits, hard_digits])
@pytest.mark.parametrize("seed, error", [(-1, ValueError), (2**32, ValueError), (0.5, TypeError), (True, TypeError)])
def test_bad_seeds_are_named(make, seed, error):
    with pytest.raises(error, match=f"seed={seed!r}: must be"):
        make(seed=seed)


@pytest.mark.parametrize("name", ["n_train", "n_test"])
def test_bad_sizes_are_named(name):
    with pytest.raises(ValueError, match=f"{name}=0: must be an integer >= 1"):
        hard_digits(**{name: 0})


# Hard digits


@pytest.fixture
def of_digits(monkeypatch):
    """hard_digits made from what `change` makes of the split (x_train, x_test, y_train, y_test)."""
    split = sklearn.model_selection.train_test_split

    def make(change, **sizes):
        with monkeypatch.context() as patch:
            patch.setattr(sklearn.model_selection, "train_test_split", lambda *a, **k: change(*split(*a, **k)))
            return hard_digits(**sizes)

    return make


@pytest.mark.parametrize("altered, kept", [("x_test", "x_train"), ("x_train", "x_test")])
def test_pictures_come_from_their_own_part_of_the_digits(of_digits, altered, kept):
    def with_noise(x_train, x_test, y_train, y_test):
        x = {"x_train": x_train, "x_test": x_test}
        x[altered] = np.random.default_rng(9).integers(0, 17, x[altered].shape).astype(np.uint8)
        return x["x_train"], x["x_test"], y_train, y_test

    before, after = hard_digits(n_train=500, n_test=500), of_digits(with_noise, n_train=500, n_test=500)
    assert np.array_equal(grey_levels(getattr(before, kept)), grey_levels(getattr(after, kept)))
    assert not np.array_equal(grey_levels(getattr(before, altered)), grey_levels(getattr(after, altered)))


def test_the_number_of_test_pictures_leaves_the_training_pictures_alone():
    assert torch.equal(hard_digits(n_test=10).x_train, hard_digits(n_test=1000).x_train)


def test_each_digit_is_used_equally_often():
    assert torch.equal(hard_digits(n_train=2 * 1297).y_train.bincount(), 2 * digits().y_train.bincount())


def pair(lit):
    """Two digits instead of all: an empty one, and one of these pixels at full brightness."""
    x = np.zeros((2, 8, 8), dtype=np.uint8)
    x[1][lit] = 16
    return lambda *split: (x, x, np.arange(2), np.arange(2))


def test_a_digit_lies_up_to_two_pixels_off_the_middle(of_digits):
    data = of_digits(pair((0, 0)), n_train=800)
    levels = 42 + grey_levels(data.x_train[data.y_train == 1, 0])  # the darkest noise is 64 - 22
    n, rows, columns = np.nonzero(levels >= 64 + 4 * 16 - 22)
    assert n.tolist() == list(range(400)) and (np.sort(levels.reshape(400, -1))[:, -2] <= 64 + 22).all()
    assert np.unique(rows).tolist() == np.unique(columns).tolist() == [2, 3, 4, 5, 6]


def test_behind_it_are_two_fragments_of_another_at_half_brightness(of_digits):
    data = of_digits(pair((slice(None), slice(None))), n_train=800)
    levels = 42 + grey_levels(data.x_train[:, 0])
    behind, whole = (levels[data.y_train.numpy() == label] for label in (0, 1))
    assert 64 + 8 * 8 < behind.max() <= 64 + 8 * 8 + 22 < 64 + 8 * 16 < whole.max() <= 64 + 8 * 16 + 22
    assert 0 < (behind > 64 + 22).sum((1, 2)).max() <= 2 * 4 * 4


def accuracy_after_300_steps(model, data, lr):
    optimizer = torch.optim.SGD(model.parameters(), lr=lr, momentum=0.9)
    scheduler = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, 300)
    for rows in batches(len(data.x_train), 64, 300, seed=0):
        optimizer.zero_grad()
        F.cross_entropy(model(data.x_train[rows]), data.y_train[rows]).backward()
        optimizer.step()
        scheduler.step()
    model.eval()
    with torch.no_grad():
        return (model(data.x_test).argmax(1) == data.y_test).float().mean().item()


def test_generalisation_differs_visibly():
    data = hard_digits()
    with lrlib.seeded(0):
        dense, convolutional = lrlib.mlp(256, 64, 10), lrlib.conv_net(8)
    assert 0.5 < accuracy_after_300_steps(dense, data, 0.05) < 0.7
    assert 0.78 < accuracy_after_300_steps(convolutional, data, 0.2) < 0.92


# Batches

SIZES = st.integers(1, 40).flatmap(lambda n: st.tuples(st.just(n), st.integers(1, n)))


@given(SIZES, st.integers(0, 30), st.integers(0, 2**63 - 1))
def test_an_epoch_visits_no_example_twice(sizes, steps, seed):
    n, size = sizes
    rows = list(batches(n, size, steps, seed))
    assert len(rows) == steps
    assert all(row.shape == (size,) and row.dtype == torch.int64 for row in rows)
    per_epoch = n // size
    for start in range(0, steps, per_epoch):
        epoch = torch.cat(rows[start : start + per_epoch])
        assert len(epoch.unique()) == len(epoch) and 0 <= epoch.min() and epoch.max() < n


@given(SIZES, st.integers(1, 20), st.integers(0, 20), st.integers(0, 1000))
def test_a_longer_run_begins_like_a_shorter_one(sizes, steps, more, seed):
    short, long = list(batches(*sizes, steps, seed)), list(batches(*sizes, steps + more, seed))
    assert all(torch.equal(a, b) for a, b in zip(short, long[:steps], strict=True))


def test_the_order_depends_on_the_seed_alone():
    first = list(batches(100, 10, 25, seed=5))
    torch.manual_seed(123)
    state = torch.get_rng_state()
    second = []
    for rows in batches(100, 10, 25, seed=5):
        second.append(rows)
    assert torch.equal(torch.get_rng_state(), state)
    assert torch.equal(torch.stack(first), torch.stack(second))
    assert not torch.equal(torch.stack(first), torch.stack(list(batches(100, 10, 25, seed=6))))
    assert not torch.equal(torch.cat(first[:10]), torch.cat(first[10:20]))


@pytest.mark.parametrize(
    "arguments, error, message",
    [
        ((0, 1, 1, 0), ValueError, "num_examples=0: must be an integer >= 1"),
        ((10, 0, 1, 0), ValueError, "batch_size=0: must be an integer >= 1"),
        ((10, 11, 1, 0), ValueError, "batch_size=11: must be an integer >= 1 and <= 10"),
        ((10, 2.0, 1, 0), TypeError, "batch_size=2.0: must be an integer"),
        ((10, 1, -1, 0), ValueError, "steps=-1: must be an integer >= 0"),
        ((10, 1, 1, -1), ValueError, "seed=-1: must be an integer >= 0"),
        ((10, 1, 1, 2**63), ValueError, "seed=9223372036854775808: must be an integer >= 0 and <= "),
    ],
)
def test_bad_batches_are_refused_when_asked_for(arguments, error, message):
    with pytest.raises(error, match=message):
        batches(*arguments)


def test_relabelled_draws_a_share_of_the_training_labels():
    data = lrlib.digits()
    for fraction in (0.0, 0.4, 1.0):
        noisy = lrlib.relabelled(data, fraction, seed=3)
        wrong = (noisy.y_train != data.y_train).double().mean().item()
        assert wrong == pytest.approx(0.9 * fraction, abs=0.04)  # 3 standard deviations of 1,297 draws
        assert torch.equal(noisy.y_test, data.y_test) and torch.equal(noisy.x_train, data.x_train)
    again = lrlib.relabelled(data, 0.4, seed=3)
    assert torch.equal(again.y_train, lrlib.relabelled(data, 0.4, seed=3).y_train)
    assert not torch.equal(again.y_train, lrlib.relabelled(data, 0.4, seed=4).y_train)


def test_hold_out_splits_the_training_set_and_keeps_the_test_set():
    data = lrlib.digits()
    final, valid = lrlib.hold_out(data, 0.25, seed=2)
    assert len(valid.x_test) == 324 and len(final.x_train) == 1297 - 324
    assert torch.equal(final.x_test, data.x_test) and torch.equal(final.x_train, valid.x_train)
    together = torch.cat([final.x_train, valid.x_test]).flatten(1).sum(1).sort().values
    assert torch.equal(together, data.x_train.flatten(1).sum(1).sort().values)
    assert len(set(map(bytes, torch.cat([final.x_train, valid.x_test]).numpy()))) == 1297
    pairs = {bytes(x): y for x, y in zip(data.x_train.numpy(), data.y_train.tolist(), strict=True)}
    for part in ((final.x_train, final.y_train), (valid.x_test, valid.y_test)):
        assert all(pairs[bytes(x)] == y for x, y in zip(part[0].numpy(), part[1].tolist(), strict=True))


@pytest.mark.parametrize(
    ("call", "named"),
    [
        (lambda data: lrlib.relabelled(data, 1.5), "fraction=1.5"),
        (lambda data: lrlib.relabelled(data, 0.5, seed=-1), "seed=-1"),
        (lambda data: lrlib.hold_out(data, 0.0), "fraction=0.0"),
        (lambda data: lrlib.hold_out(data, 1.0), "fraction=1.0"),
        (lambda data: lrlib.hold_out(data, 0.5, seed=-1), "seed=-1"),
    ],
)
def test_relabelled_and_hold_out_refuse(call, named):
    with pytest.raises(ValueError, match=named):
        call(lrlib.digits())


def test_pictures_of_one_grey_are_zero():
    pictures, labels = np.full((4, 2, 2), 7, dtype=np.uint8), np.arange(4)
    data = standardised("grey", {"x_train": pictures, "y_train": labels, "x_test": pictures, "y_test": labels})
    assert (data.x_train == 0).all() and (data.x_test == 0).all()


def test_labels_that_are_drawn_anew_are_of_all_classes_alike():
    counts = lrlib.relabelled(lrlib.digits(), 1.0).y_train.bincount(minlength=10)
    assert 90 < counts.min() and counts.max() < 170


def test_a_share_that_is_a_whole_number_of_examples_is_set_apart_whole():
    for percent in range(1, 100):
        _, valid = lrlib.hold_out(lrlib.hard_digits(n_train=100, n_test=10), percent / 100)
        assert len(valid.x_test) == percent
