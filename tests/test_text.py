"""The text: its parts, its windows, its characters, and what is refused."""

import hashlib
from dataclasses import replace

import pytest
import torch

import lrlib
from lrlib.text import PARTS

DATA = lrlib.shakespeare(length=50)


def test_the_text_is_whole_and_its_parts_lie_one_after_the_other():
    whole = ""
    for part in PARTS:
        data = lrlib.shakespeare(length=1, held_out=part)
        assert torch.equal(data.x_train, lrlib.shakespeare(length=1).x_train)
        if not whole:
            whole = data.decode(data.x_train[:, 0]) + data.decode(data.y_train[-1:, 0])
        whole += data.decode(data.x_test[:, 0]) + data.decode(data.y_test[-1:, 0])
    assert hashlib.sha256(whole.encode()).hexdigest() == DATA.sha256
    assert hashlib.md5(whole.encode()).hexdigest() == "6fb458f1232090904fb40fe944165e91"  # as its note says
    assert len(whole) == 1_115_394 and whole.startswith("First Citizen:\nBefore we proceed any further, hear me speak.")
    assert "".join(sorted(set(whole))) == DATA.characters


@pytest.mark.parametrize("part", ["train", "test"])
def test_windows_lie_side_by_side_and_each_target_is_the_next_character(part):
    x, y = getattr(DATA, f"x_{part}"), getattr(DATA, f"y_{part}")
    assert x.dtype == y.dtype == torch.int64 and x.shape == y.shape and x.shape[1] == 50
    assert torch.equal(x.flatten()[1:], y.flatten()[:-1])


def test_a_few_windows_of_the_held_out_part_are_evenly_spread():
    few = lrlib.shakespeare(length=50, n_test=10)
    rows = [(DATA.x_test == window).all(1).nonzero().item() for window in few.x_test]
    assert rows == [len(DATA.x_test) * k // 10 for k in range(10)]
    assert len(lrlib.shakespeare(length=50, n_test=10**6).x_test) == len(DATA.x_test)


def test_characters_there_and_back():
    text = "O Romeo, Romeo! wherefore art thou?\n"
    assert DATA.decode(DATA.encode(text)) == text and DATA.encode("").shape == (0,)
    with pytest.raises(ValueError, match="text: has 'é', must be of the characters"):
        DATA.encode("café")


def test_the_engine_takes_it():
    data = lrlib.shakespeare(length=8, n_test=50)
    held, kept = lrlib.hold_out(data)
    assert type(held) is type(kept) is lrlib.Text and kept.characters == data.characters
    assert repr(data) == "Text('shakespeare', train 125481, test 50, windows of 8, 65 characters)"
    grid = lrlib.train_grid(lambda seed: lrlib.char_transformer(length=8, width=4), data, [0.0, 0.1], [0, 1], steps=8)
    assert (grid.final_loss[1] < grid.final_loss[0]).all()


@pytest.mark.parametrize(
    "changes, error, message",
    [
        ({"x_train": DATA.x_train.numpy()}, TypeError, "x_train: is a ndarray, must be a tensor"),
        ({"x_train": DATA.x_train.float()}, ValueError, "x_train: is float32 .*, must be int64 of shape"),
        ({"y_train": DATA.y_train[:, 0]}, ValueError, "y_train: is int64 of shape .*, must be int64 of shape"),
        ({"x_test": DATA.x_test[:, 1:]}, ValueError, r"x_test: .*, must be int64 of shape \(N, 50\)"),
        ({"x_test": DATA.x_test[:0]}, ValueError, "x_test: .* not empty"),
        (
            {"y_test": DATA.y_test[1:]},
            ValueError,
            r"y_test: .*of shape \(1114, 50\), must be int64 of shape \(1115, 50\)",
        ),
        ({"y_train": DATA.y_train + 1}, ValueError, r"y_train: has numbers from 1 to 65, must be in \[0, 64\]"),
        ({"y_train": DATA.y_train - 1}, ValueError, r"y_train: has numbers from -1 to 63, must be in \[0, 64\]"),
        ({"characters": "ab"}, ValueError, "characters='ab': must be num_classes=65 different ones"),
        ({"characters": "a" * 65}, ValueError, "characters=.*: must be num_classes=65 different ones"),
        ({"num_classes": 1}, ValueError, "num_classes=1: must be an integer >= 2"),
    ],
)
def test_a_text_of_unfitting_parts_is_refused(changes, error, message):
    with pytest.raises(error, match=message):
        replace(DATA, **changes)


@pytest.mark.parametrize(
    "wrong, error",
    [
        ({"length": 0}, ValueError),
        ({"length": 10_001}, ValueError),
        ({"length": 2.5}, TypeError),
        ({"held_out": "train"}, ValueError),
        ({"n_test": 0}, ValueError),
    ],
)
def test_bad_arguments_are_named(wrong, error):
    (name,) = wrong
    with pytest.raises(error, match=f"{name}="):
        lrlib.shakespeare(**wrong)


def test_numbers_of_a_text_are_not_relabelled():
    with pytest.raises(ValueError, match=r"data.y_train: has shape \(.*, 32\), must be \(N,\)"):
        lrlib.relabelled(lrlib.shakespeare(length=32, n_test=5), 0.1)


def test_what_is_done_to_a_text_stays_with_it():
    first, untouched = lrlib.shakespeare(32), lrlib.shakespeare(32).x_train.clone()
    targets = first.y_train.clone()
    first.x_train[:] = 0
    assert torch.equal(first.y_train, targets) and torch.equal(lrlib.shakespeare(32).x_train, untouched)


def test_a_character_has_one_number():
    with pytest.raises(ValueError, match="must be num_classes=65 different ones"):
        replace(DATA, characters=DATA.characters + DATA.characters[0])
