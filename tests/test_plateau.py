"""Reduce on plateau and early stopping: torch's cuts, plotted = trained, honest validation data, best weights kept."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

import lrlib
from lrlib.plateau import early_stopping, plateaus, reduce_on_plateau


@pytest.fixture(scope="module")
def parts():
    return lrlib.hold_out(lrlib.relabelled(lrlib.digits(), 0.3))


def small(seed=0):
    with lrlib.seeded(seed):
        return lrlib.mlp(64, 16, 10, norm="batch")


@given(
    losses=st.lists(
        st.sampled_from([0.0, 0.5, 0.9999, 1.0, 1.5, 2.0, math.inf, math.nan]) | st.floats(0, 3), max_size=60
    ),
    patience=st.integers(0, 4),
    threshold=st.sampled_from([0.0, 1e-4, 0.1, 0.9]),
)
def test_the_cuts_are_those_of_torch(losses, patience, threshold):
    optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=1.0)
    peer = torch.optim.lr_scheduler.ReduceLROnPlateau(
        optimizer, factor=0.5, patience=patience, threshold=threshold, eps=0.0
    )
    rates = [1.0]
    for loss in losses:
        peer.step(loss)
        rates.append(optimizer.param_groups[0]["lr"])
    assert plateaus(losses, patience, threshold) == np.flatnonzero(np.diff(rates)).tolist()


def test_a_run_equals_torch_s_scheduler_in_a_plain_loop(parts):
    final, valid = parts
    schedule = reduce_on_plateau(lrlib.constant(0.5), valid, every=10, factor=0.3, patience=1, threshold=0.02)
    history = lrlib.train(ours := small(), final, schedule, steps=300, batch_size=16, seed=1)

    theirs = small()
    optimizer = torch.optim.SGD(theirs.parameters(), lr=0.5)
    scheduler = torch.optim.lr_scheduler.ReduceLROnPlateau(optimizer, factor=0.3, patience=1, threshold=0.02)
    rates, readings = [], []
    for t, rows in enumerate(lrlib.batches(len(final.x_train), 16, 300, seed=1)):
        optimizer.zero_grad()
        nn.functional.cross_entropy(theirs(final.x_train[rows]), final.y_train[rows]).backward()
        optimizer.step()
        rates.append(optimizer.param_groups[0]["lr"])
        if (t + 1) % 10 == 0:
            readings.append((t + 1, lrlib.evaluate(theirs, valid.x_test, valid.y_test)[0]))
            scheduler.step(readings[-1][1])
    assert len(schedule.cuts) >= 2
    assert schedule.readings == readings
    np.testing.assert_allclose(history.lr, rates, rtol=1e-12)
    assert all(torch.equal(a, b) for a, b in zip(ours.parameters(), theirs.parameters(), strict=True))


@pytest.mark.parametrize("base", [lrlib.constant(0.5), lrlib.cosine(0.5, T_max=600)], ids=repr)
def test_plotted_is_trained_and_the_last_plateau_ends_the_run(base, parts):
    final, valid = parts
    schedule = reduce_on_plateau(base, valid, every=10, patience=1, max_cuts=2)
    history = lrlib.train(small(), final, schedule, steps=600, batch_size=16)
    updates = len(history.lr)
    assert updates < 600 and updates == schedule.stopped_at == schedule.readings[-1][0] == history.eval_step[-1]
    assert len(schedule.cuts) == 2 and schedule.cuts[-1] < updates
    assert history.diverged_at is None
    np.testing.assert_array_equal(history.lr, schedule(range(updates)))
    at = schedule.cuts[0]
    assert schedule(at) / base(at) == pytest.approx(0.1) and schedule(at - 1) == base(at - 1)


def test_early_stopping_leaves_the_best_weights(parts):
    final, valid = parts
    seen = {}

    def note(updates_done, model, optimizer):
        seen[updates_done] = {name: value.clone() for name, value in model.state_dict().items()}

    schedule = early_stopping(lrlib.constant(0.5), valid, every=10, patience=4)
    model = small()
    history = lrlib.train(model, final, schedule, steps=2000, eval_every=10, callbacks=[note])
    best_step, best = min(schedule.readings, key=lambda reading: reading[1])
    assert history.eval_step[-1] == schedule.stopped_at == len(history.lr) == best_step + 5 * 10
    assert all(torch.equal(value, seen[best_step][name]) for name, value in model.state_dict().items())
    assert lrlib.evaluate(model, valid.x_test, valid.y_test)[0] == best
    assert history.accuracy == lrlib.evaluate(model, final.x_test, final.y_test)[1]
    assert (np.diff(history.eval_step) > 0).all()


def test_the_best_weights_are_kept_when_the_run_ends_by_itself_or_diverges(parts):
    final, valid = parts
    for lr, steps in ((0.5, 35), (1e30, 50)):
        schedule = early_stopping(lrlib.join([lrlib.constant(0.5), lrlib.constant(lr)], [20]), valid, every=10)
        history = lrlib.train(model := small(), final, schedule, steps=steps)
        assert schedule.stopped_at is None
        assert (history.diverged_at is not None) == (lr > 1)
        best = min(loss for _, loss in schedule.readings)
        assert lrlib.evaluate(model, valid.x_test, valid.y_test)[0] == best


def test_they_compose(parts):
    final, valid = parts
    inner = reduce_on_plateau(lrlib.constant(0.5), valid, every=10, patience=1)
    outer = early_stopping(inner, valid, every=10, patience=5)
    history = lrlib.train(small(), final, outer, steps=2000, batch_size=16)
    assert len(inner.cuts) >= 1 and outer.stopped_at == len(history.lr)
    assert inner.readings == outer.readings
    np.testing.assert_array_equal(history.lr, outer(range(len(history.lr))))
    assert history.lr[-1] == 0.5 * 0.1 ** len([cut for cut in inner.cuts if cut < len(history.lr)])


def test_reading_changes_nothing_in_the_run(parts):
    """A watched run whose rate is never cut is the plain run, bit for bit, dropout and BatchNorm included."""
    final, valid = parts

    def make():
        with lrlib.seeded(0):
            return nn.Sequential(
                nn.Flatten(), nn.Linear(64, 16), nn.BatchNorm1d(16), nn.Dropout(0.5), nn.Linear(16, 10)
            )

    patient = reduce_on_plateau(lrlib.constant(0.1), valid, every=3, patience=1000)
    lrlib.train(watched := make(), final, patient, steps=50)
    lrlib.train(plain := make(), final, lrlib.constant(0.1), steps=50)
    assert len(patient.readings) == 16
    assert all(
        torch.equal(a, b) for a, b in zip(watched.state_dict().values(), plain.state_dict().values(), strict=True)
    )


@pytest.mark.parametrize("part", ["train", "test"])
def test_validation_pictures_that_are_not_set_apart_are_refused(part, parts):
    final, _ = parts
    x, y = getattr(final, f"x_{part}"), getattr(final, f"y_{part}")
    order = torch.randperm(len(x), generator=torch.Generator().manual_seed(1))[:300]
    leaking = lrlib.Dataset("leak", final.x_train, final.y_train, x[order], y[order], 10)
    model = small()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    optimizer = torch.optim.SGD(model.parameters(), lr=0.123)
    for combinator in (reduce_on_plateau, early_stopping):
        with pytest.raises(ValueError, match=f"valid: 300 of its 300 test pictures are in the {part} set"):
            lrlib.train(model, final, combinator(lrlib.constant(0.1), leaking, every=5), steps=10, optimizer=optimizer)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert optimizer.param_groups[0]["lr"] == 0.123


def test_each_run_needs_its_own(parts):
    final, valid = parts
    schedule = reduce_on_plateau(lrlib.constant(0.1), valid, every=5)
    lrlib.train(small(), final, schedule, steps=10)
    with pytest.raises(ValueError, match="has watched a run already"):
        lrlib.train(small(), final, schedule, steps=10)


def test_where_nobody_lets_it_watch_it_is_refused(parts):
    final, valid = parts
    watching = reduce_on_plateau(lrlib.constant(0.1), valid, every=5)
    for wrapped in (
        lambda: lrlib.warmup(watching, 5),
        lambda: lrlib.join([watching, watching], [5]),
        lambda: lrlib.scale(watching, 2.0),
        lambda: lrlib.train_grid(small, final, [watching], [0], steps=10),
    ):
        with pytest.raises(ValueError, match="must not watch a run"):
            wrapped()


@pytest.mark.parametrize(
    ("arguments", "error", "named"),
    [
        ({"every": 0}, ValueError, "every=0"),
        ({"every": 2.5}, TypeError, "every=2.5"),
        ({"factor": 1.0}, ValueError, "factor=1.0"),
        ({"factor": 0.0}, ValueError, "factor=0.0"),
        ({"factor": math.nan}, ValueError, "factor=nan"),
        ({"patience": -1}, ValueError, "patience=-1"),
        ({"threshold": 1.0}, ValueError, "threshold=1.0"),
        ({"max_cuts": -1}, ValueError, "max_cuts=-1"),
        ({"schedule": 0.1}, TypeError, "schedule=0.1"),
        ({"valid": None}, TypeError, "valid=None"),
    ],
)
def test_bad_arguments(arguments, error, named, parts):
    with pytest.raises(error, match=named):
        reduce_on_plateau(**({"schedule": lrlib.constant(0.1), "valid": parts[1], "every": 5} | arguments))
