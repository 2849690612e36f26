"""The training loop: plotted = trained, reproducible, equal to a plain PyTorch loop, strict about its arguments."""

import numpy as np
import pytest
import torch
from test_schedules import ALL
from torch import nn

import lrlib
from lrlib.training import evaluate, train


@pytest.fixture(scope="module")
def data():
    return lrlib.digits()


def small(seed=0):
    with lrlib.seeded(seed):
        return lrlib.mlp(64, 8, 10)


@pytest.mark.parametrize("schedule", ALL, ids=repr)
def test_plotted_is_trained(schedule, data):
    history = train(small(), data, schedule, steps=100, batch_size=8)
    np.testing.assert_array_equal(history.lr, schedule(range(100)))


def test_the_rate_moves_the_weights(data):
    """The logged rate is the one that the update used, first and last included."""
    model, schedule, steps = small(), lrlib.cosine(0.5, T_max=4), 4
    weights = [[p.detach().clone() for p in model.parameters()]]
    gradients = []

    def watch(run):
        weights.append([p.detach().clone() for p in run.model.parameters()])
        gradients.append([g[0].clone() for g in run.gradients])

    history = train(model, data, schedule, steps=steps, callbacks=[watch])
    for t in range(steps):
        for before, after, gradient in zip(weights[t], weights[t + 1], gradients[t], strict=True):
            torch.testing.assert_close(after, before - schedule(t) * gradient)
            assert history.lr[t] == schedule(t)


def test_equal_to_a_plain_loop(data):
    model, twin = small(), small()
    train(model, data, lrlib.exponential(0.2, 0.9), steps=10, batch_size=32, seed=3)
    optimizer = torch.optim.SGD(twin.parameters(), lr=0.2)
    scheduler = torch.optim.lr_scheduler.ExponentialLR(optimizer, 0.9)
    for rows in lrlib.batches(len(data.x_train), 32, 10, 3):
        optimizer.zero_grad()
        nn.functional.cross_entropy(twin(data.x_train[rows]), data.y_train[rows]).backward()
        optimizer.step()
        scheduler.step()
    for a, b in zip(model.parameters(), twin.parameters(), strict=True):
        torch.testing.assert_close(a, b)


def test_a_rate_may_be_a_tensor(data):
    losses = [train(small(), data, rate, steps=5).loss for rate in (0.5, torch.tensor(0.5))]
    np.testing.assert_array_equal(*losses)


def test_the_same_seed_gives_the_same_run_and_another_does_not(data):
    first, second, other = (train(small(), data, lrlib.constant(0.1), steps=20, seed=seed) for seed in (1, 1, 2))
    np.testing.assert_array_equal(first.loss, second.loss)
    assert (first.loss != other.loss).any()


def test_the_random_state_outside_is_left_alone(data):
    model = nn.Sequential(nn.Flatten(), nn.Dropout(0.5), nn.Linear(64, 10))
    before = torch.get_rng_state()
    train(model, data, lrlib.constant(0.1), steps=3)
    assert torch.equal(torch.get_rng_state(), before)


def test_it_learns(data):
    history = train(small(), data, lrlib.constant(0.5), steps=300, eval_every=100)
    assert history.eval_step.tolist() == [0, 100, 200, 300]
    assert history.test_accuracy[0] < 0.3 and history.accuracy > 0.85
    assert history.final_loss < history.test_loss[0]
    assert history.diverged_at is None and history.diverged_loss is None and len(history.loss) == 300


def test_a_diverging_run_ends_and_says_where(data):
    history = train(small(), data, lrlib.join([lrlib.constant(0.1), lrlib.constant(1e30)], [5]), steps=50)
    assert 5 < history.diverged_at < 12
    assert len(history.lr) == len(history.loss) == history.diverged_at
    assert np.isfinite(history.loss).all()
    assert not np.isfinite(history.diverged_loss)


def test_update_ratio_is_the_rate_times_gradient_over_weights(data):
    model = small()
    norm = torch.cat([p.detach().flatten() for p in model.parameters()]).norm()
    gradients = []
    history = train(
        model, data, lrlib.constant(0.1), steps=1, track_updates=True,
        callbacks=[lambda run: gradients.append(torch.cat([g.flatten() for g in run.gradients]).norm())],
    )  # fmt: skip
    assert history.update_ratio[0] == pytest.approx(float(0.1 * gradients[0] / norm), rel=1e-4)


def test_parameter_groups_are_logged_apart(data):
    model = small()
    optimizer = torch.optim.SGD([{"params": [p]} for p in model.parameters()], lr=1.0)
    schedules = [lrlib.constant(0.1 * k) for k in range(len(optimizer.param_groups))]
    history = train(model, data, schedules, steps=3, optimizer=optimizer)
    np.testing.assert_array_equal(history.lr, [[0.1 * k for k in range(len(schedules))]] * 3)


def test_without_a_schedule_the_optimizer_keeps_its_rate(data):
    model = small()
    history = train(model, data, None, steps=3, optimizer=torch.optim.Adam(model.parameters(), lr=0.02))
    np.testing.assert_array_equal(history.lr, [0.02] * 3)


def test_evaluate_restores_every_module_s_mode(data):
    model = nn.Sequential(nn.Flatten(), nn.BatchNorm1d(64), nn.Linear(64, 10))
    model.train()
    model[1].eval()
    evaluate(model, data.x_test, data.y_test)
    assert (model.training, model[1].training, model[2].training) == (True, False, True)


def test_evaluate_is_the_same_for_any_batch_size(data):
    model = small()
    whole, split = (evaluate(model, data.x_test, data.y_test, batch_size=size) for size in (10_000, 7))
    assert whole == pytest.approx(split, rel=1e-5)


@pytest.mark.parametrize("arguments, error, named", [
    ({"steps": 0}, ValueError, "steps=0"),
    ({"steps": 2.5}, TypeError, "steps=2.5"),
    ({"batch_size": 0}, ValueError, "batch_size=0"),
    ({"batch_size": 10_000}, ValueError, "batch_size=10000"),
    ({"seed": -1}, ValueError, "seed=-1"),
    ({"eval_every": 0}, ValueError, "eval_every=0"),
    ({"schedule": lrlib.warmup(lrlib.constant(0.1), 100)}, ValueError, "steps=10: must be >= 100"),
    ({"schedule": "cosine"}, TypeError, "schedule='cosine'"),
    ({"schedule": None}, TypeError, "schedule=None"),
])  # fmt: skip
def test_bad_arguments_leave_the_model_unchanged(arguments, error, named, data):
    model = small()
    before = [p.detach().clone() for p in model.parameters()]
    arguments = {"schedule": lrlib.constant(0.1), "steps": 10} | arguments
    with pytest.raises(error, match=named):
        train(model, data, arguments.pop("schedule"), **arguments)
    assert all(torch.equal(a, b) for a, b in zip(before, model.parameters(), strict=True))
