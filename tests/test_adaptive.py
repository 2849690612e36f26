"""HillClimb: the formula step by step, alone, in the training loop and on a stack; nothing moves on bad input."""

import copy

import numpy as np
import pytest
import torch
from torch import nn

import lrlib
from lrlib.adaptive import HillClimb

DATA = lrlib.digits()


def quadratic(h=(1.0, 10.0)):
    theta = nn.Parameter(torch.tensor([1.0, -2.0], dtype=torch.float64))
    h = torch.tensor(h, dtype=torch.float64)
    return theta, lambda: 0.5 * (h * theta.square()).sum(), h


def advance(optimizer, closure):
    optimizer.zero_grad()
    closure().backward()
    optimizer.step(closure)


@pytest.mark.parametrize("smoothing", [0.0, 0.8])
@pytest.mark.parametrize("every", [1, 3])
def test_each_step_is_the_formula(smoothing, every):
    theta, closure, h = quadratic()
    optimizer = HillClimb([theta], lr=0.05, step_size=0.1, every=every, smoothing=smoothing)
    x, d, rate = theta.detach().clone(), torch.zeros(2, dtype=torch.float64), 0.05

    def value(point):
        return 0.5 * (h * point**2).sum()

    rates = []
    for t in range(40):
        d = smoothing * d + (1 - smoothing) * h * x
        if t % every == 0:
            rate *= 1.1 if value(x - 1.1 * rate * d) < value(x - 0.9 * rate * d) else 0.9
        x = x - rate * d
        advance(optimizer, closure)
        rates.append(optimizer.param_groups[0]["lr"])
        assert rates[-1] == pytest.approx(rate, rel=1e-12)
        torch.testing.assert_close(theta.detach(), x, rtol=0, atol=1e-12)
    assert min(rates) < max(rates)


def test_on_one_curvature_the_rate_finds_its_inverse_from_both_sides():
    for start in (1e-3, 1.9):
        theta, closure, _ = quadratic(h=(4.0, 4.0))
        optimizer = HillClimb([theta], lr=start, smoothing=0.0)
        for _ in range(800):
            advance(optimizer, closure)
            with torch.no_grad():
                theta.mul_(2.0)  # keep away from the minimum, where every rate is as good
                theta.div_(theta.norm())
        assert optimizer.param_groups[0]["lr"] == pytest.approx(0.25, rel=0.03)


@pytest.mark.parametrize("tune_smoothing", [False, True])
def test_a_stack_tunes_every_replica_as_if_it_were_alone(tune_smoothing):
    rates = [0.003, 0.03, 0.3]
    with lrlib.seeded(0):
        models = [lrlib.mlp(64, 8, 10).double() for _ in rates]
    stack = lrlib.Stack(models)
    settings = {"smoothing": 0.5, "every": 2, "tune_smoothing": tune_smoothing, "step_size": 0.1}
    together = HillClimb(stack.parameters(), lr=torch.tensor(rates, dtype=torch.float64), **settings)
    alone = [HillClimb(model.parameters(), lr=rate, **settings) for model, rate in zip(models, rates, strict=True)]
    for rows in lrlib.batches(len(DATA.x_train), 50, 30):
        x, y = DATA.x_train[rows].double(), DATA.y_train[rows]
        together.zero_grad()
        stack.losses(x[None], y[None]).sum().backward()
        together.step(lambda x=x, y=y: stack.losses(x[None], y[None]))
        for model, optimizer in zip(models, alone, strict=True):
            advance(optimizer, lambda model=model, x=x, y=y: nn.functional.cross_entropy(model(x), y))
    group = together.param_groups[0]
    singles = [optimizer.param_groups[0] for optimizer in alone]
    np.testing.assert_allclose(group["lr"], [single["lr"] for single in singles], rtol=1e-6)
    if tune_smoothing:
        np.testing.assert_allclose(group["smoothing"], [single["smoothing"] for single in singles], rtol=1e-9)
    for r, model in enumerate(models):
        for key, value in model.state_dict().items():
            torch.testing.assert_close(stack.replica(r)[key], value, rtol=0, atol=1e-9)


def test_tuned_smoothing_follows_the_better_loss_and_stays_in_its_range():
    theta, closure, h = quadratic(h=(3.0, 3.0))
    optimizer = HillClimb([theta], lr=0.05, step_size=0.5, smoothing=0.9, tune_smoothing=True)
    seen = []
    for _ in range(40):
        advance(optimizer, closure)
        seen.append(optimizer.param_groups[0]["smoothing"])
    assert seen[0] == pytest.approx(1 - 0.1 * 1.5) and min(seen) == 0.0
    assert all(0 <= s <= 1 - 0.005 for s in seen)


def test_the_training_loop_runs_it_and_logs_the_rate_that_each_update_applied():
    with lrlib.seeded(0):
        model = lrlib.mlp(64, 16, 10)
    optimizer = HillClimb(model.parameters(), lr=0.01, step_size=0.1, smoothing=0.0)
    history = lrlib.train(model, DATA, None, steps=30, optimizer=optimizer)
    ratios = history.lr[1:] / history.lr[:-1]
    assert np.all(np.isclose(ratios, 1.1) | np.isclose(ratios, 0.9))
    assert history.lr[0] == pytest.approx(0.011) and history.lr[-1] > 0.1
    assert history.loss[-1] < history.loss[0]


def test_groups_rise_and_fall_together():
    theta, closure, _ = quadratic()
    other = nn.Parameter(torch.tensor([3.0], dtype=torch.float64))
    optimizer = HillClimb([{"params": [theta]}, {"params": [other], "lr": 0.001}], lr=0.01)
    for _ in range(5):
        advance(optimizer, lambda: closure() + other.square().sum())
    first, second = (group["lr"] for group in optimizer.param_groups)
    assert first == pytest.approx(10 * second) and first > 0.01


def test_a_saved_state_continues_exactly():
    theta, closure, _ = quadratic()
    optimizer = HillClimb([theta], lr=0.02, every=3)
    for _ in range(7):
        advance(optimizer, closure)
    saved, point = copy.deepcopy(optimizer.state_dict()), theta.detach().clone()
    for _ in range(5):
        advance(optimizer, closure)
    expected = theta.detach().clone(), optimizer.param_groups[0]["lr"]
    theta, closure, _ = quadratic()
    with torch.no_grad():
        theta.copy_(point)
    again = HillClimb([theta], lr=0.5, every=3)
    again.load_state_dict(saved)
    for _ in range(5):
        advance(again, closure)
    assert torch.equal(theta.detach(), expected[0]) and again.param_groups[0]["lr"] == expected[1]


def test_without_a_closure_or_with_a_bad_one_nothing_moves():
    theta, closure, _ = quadratic()
    optimizer = HillClimb([theta], lr=0.1)
    closure().backward()
    before = theta.detach().clone()

    def broken():
        raise KeyError("no data")

    for bad, error in ((None, ValueError), (3, ValueError), (broken, KeyError)):
        with pytest.raises(error):
            optimizer.step(bad)
        assert torch.equal(theta.detach(), before) and optimizer.param_groups[0]["lr"] == 0.1
        assert optimizer.param_groups[0]["steps"] == 0 and not optimizer.state[theta]
    with pytest.raises(ValueError, match="closure=None"):
        optimizer.step()
    with pytest.raises(RuntimeError, match="grad"):
        optimizer.step(lambda: closure().backward())  # gradients are off, and the closure does not ask
    assert torch.equal(theta.detach(), before)


def test_a_sparse_gradient_is_refused_before_anything_moves():
    dense, table = nn.Linear(2, 1), nn.Embedding(5, 2, sparse=True)
    optimizer = HillClimb([*dense.parameters(), *table.parameters()], lr=0.1)
    before = dense.weight.detach().clone()

    def closure():
        return dense(table(torch.tensor([1, 2]))).square().sum()

    closure().backward()
    with pytest.raises(RuntimeError, match="must be dense"):
        optimizer.step(closure)
    assert torch.equal(dense.weight.detach(), before)


@pytest.mark.parametrize(
    "settings, error, message",
    [
        ({"lr": 0.0}, ValueError, "lr=0.0"),
        ({"lr": -1}, ValueError, "lr=-1"),
        ({"lr": float("nan")}, ValueError, "lr=nan"),
        ({"lr": torch.tensor([0.1, 0.0])}, ValueError, "lr="),
        ({"lr": torch.tensor([0.1, 0.1, 0.1])}, ValueError, "has 3 rates"),
        ({"step_size": 0}, ValueError, "step_size=0"),
        ({"step_size": 1.0}, ValueError, "step_size=1.0"),
        ({"every": 0}, ValueError, "every=0"),
        ({"every": 1.5}, TypeError, "every=1.5"),
        ({"smoothing": 1.0}, ValueError, "smoothing=1.0"),
        ({"smoothing": -0.1}, ValueError, "smoothing=-0.1"),
        ({"tune_smoothing": 1}, TypeError, "tune_smoothing=1"),
    ],
)
def test_bad_settings_are_named(settings, error, message):
    with pytest.raises(error, match=message):
        HillClimb([nn.Parameter(torch.ones(2, 3))], **settings)
