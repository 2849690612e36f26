"""HillClimb: the formula step by step, as an optimizer, in the loop and on a stack; nothing moves on bad input."""

import copy
from dataclasses import dataclass

import numpy as np
import pytest
import torch
from descent import advance, quadratic
from torch import nn
from torch.nn import functional as F

import lrlib
from lrlib.rule import losses_at

DATA = lrlib.digits()
X, Y = DATA.x_train.double(), DATA.y_train


@pytest.mark.parametrize("smoothing", [0.0, 0.8])
@pytest.mark.parametrize("every", [1, 3])
def test_each_step_is_the_formula(smoothing, every):
    theta, closure, h = quadratic()
    optimizer = lrlib.HillClimb(step_size=0.5, every=every, smoothing=smoothing).optimizer([theta], lr=0.05)
    x, d, rate = theta.detach().clone(), torch.zeros(2, dtype=torch.float64), 0.05

    def value(point):
        return 0.5 * (h * point**2).sum()

    rates = []
    for t in range(40):
        d = smoothing * d + (1 - smoothing) * h * x
        if t % every == 0:
            rate *= 1.5 if value(x - 1.5 * rate * d) < value(x - 0.5 * rate * d) else 0.5
        x = x - rate * d
        rates.append(advance(optimizer, closure))
        assert rates[-1] == pytest.approx(rate, rel=1e-12)
        torch.testing.assert_close(theta.detach(), x, rtol=0, atol=1e-12)
    assert min(rates) < max(rates) and optimizer.param_groups[0]["lr"] == 0.05


def test_on_one_curvature_the_rate_finds_its_inverse_from_both_sides():
    for start in (1e-3, 1.9):
        theta, closure, _ = quadratic(h=(4.0, 4.0))
        optimizer = lrlib.HillClimb(smoothing=0.0).optimizer([theta], lr=start)
        for _ in range(800):
            rate = advance(optimizer, closure)
            with torch.no_grad():
                theta.mul_(2.0)  # keep away from the minimum, where every rate is as good
                theta.div_(theta.norm())
        assert rate == pytest.approx(0.25, rel=0.03)


def test_tuned_smoothing_follows_the_better_loss_and_stays_in_its_range():
    theta, closure, _ = quadratic(h=(3.0, 3.0))
    rule = lrlib.HillClimb(step_size=0.5, smoothing=0.9, tune_smoothing=True)
    optimizer, seen = rule.optimizer([theta], lr=0.05), []
    for _ in range(40):
        advance(optimizer, closure)
        seen.append(optimizer.state[theta]["smoothing"].item())
    assert seen[0] == pytest.approx(1 - 0.1 * 1.5) and min(seen) == 0.0
    assert all(0 <= s <= 1 - 0.005 for s in seen)


def test_the_loop_and_the_optimizer_in_a_loop_of_ones_own_agree():
    with lrlib.seeded(0):
        model, other = (lrlib.mlp(64, 16, 10).double() for _ in range(2))
    other.load_state_dict(model.state_dict())
    rule = lrlib.HillClimb(step_size=0.1, smoothing=0.5, every=2)
    history = lrlib.train(model, (X, Y), 0.01, steps=30, optimizer=rule)
    optimizer = rule.optimizer(other.parameters(), lr=0.01)
    rates = [
        advance(optimizer, lambda rows=rows: F.cross_entropy(other(X[rows]), Y[rows]))
        for rows in lrlib.batches(len(X), 64, 30, seed=0)
    ]
    np.testing.assert_allclose(history.lr, rates, rtol=1e-12)
    for mine, theirs in zip(model.parameters(), other.parameters(), strict=True):
        torch.testing.assert_close(mine, theirs, rtol=0, atol=1e-12)
    assert history.lr[0] == pytest.approx(0.011) and history.loss[-1] < history.loss[0]


@dataclass(frozen=True)
class Blind(lrlib.HillClimb):
    """Judged by losses that have nothing to do with the mini-batch: how far the weights are from zero."""

    def moves(self, gradients, params, states, now):
        now.loss_at = losses_at(params, lambda: sum(-p.flatten(1).square().sum(1) for p in params))
        return super().moves(gradients, params, states, now)


def test_another_judge_may_take_the_place_of_the_mini_batch():
    stack = lrlib.Stack([lrlib.mlp(64, 8, 10) for _ in range(3)])
    before = [p.detach().clone() for p in stack.weights]
    history = lrlib.train(stack, DATA, [1e3, 2e3, 0.0], steps=1, optimizer=Blind(smoothing=0.0))
    assert history.lr[:, 0] == pytest.approx([1010, 2020, 0])  # the longer step leads farther
    assert all(torch.equal(new[2], old[2]) for new, old in zip(stack.weights, before, strict=True))


def test_each_group_climbs_by_itself():
    theta, closure, _ = quadratic()
    other = nn.Parameter(torch.tensor([3.0], dtype=torch.float64))
    optimizer = lrlib.HillClimb().optimizer([{"params": [theta]}, {"params": [other], "lr": 4.0}], lr=0.01)
    for _ in range(5):
        advance(optimizer, lambda: closure() + other.square().sum())
    first, second = (group["applied_lr"] for group in optimizer.param_groups)
    assert first > 0.01 and second < 4.0


def test_without_a_closure_or_with_a_bad_one_nothing_moves():
    theta, closure, _ = quadratic()
    optimizer = lrlib.HillClimb().optimizer([theta], lr=0.1)
    advance(optimizer, closure)
    before, state = theta.detach().clone(), copy.deepcopy(optimizer.state_dict())

    def broken():
        raise KeyError("no data")

    def asks_for_gradients():  # they are off
        closure().backward()

    for bad, error in ((None, ValueError), (3, ValueError), (broken, KeyError), (asks_for_gradients, RuntimeError)):
        with pytest.raises(error):
            optimizer.step(bad)
        assert torch.equal(theta.detach(), before) and str(optimizer.state_dict()) == str(state)
    with pytest.raises(ValueError, match="closure=None"):
        optimizer.step()


@pytest.mark.parametrize(
    "settings, error, message",
    [
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
        lrlib.HillClimb(**settings)


def test_dropout_drops_the_same_units_at_both_points():
    data, rates = lrlib.digits(), []
    for drop in (0.0, 0.5):
        with lrlib.seeded(0):
            layers = nn.Flatten(), nn.Linear(64, 64), nn.ReLU(), nn.Dropout(drop), nn.Linear(64, 10)
        history = lrlib.train(nn.Sequential(*layers), data, 1e-4, steps=100, optimizer=lrlib.HillClimb(step_size=0.01))
        rates.append(history.lr[-1] / 1e-4)
    assert min(rates) > 2  # with other units at each point half of the steps lower it


def test_a_look_leaves_the_generator():
    layer, x = nn.Dropout(0.5), torch.ones(100)
    state = torch.get_rng_state()
    first, second = (losses_at([torch.zeros(1, 1)], lambda: layer(x).sum())([torch.ones(1, 1)]) for _ in range(2))
    assert torch.equal(first, second) and torch.equal(torch.get_rng_state(), state)


def test_each_step_with_tuned_smoothing_is_the_formula():
    theta, closure, h = quadratic()
    optimizer = lrlib.HillClimb(step_size=0.5, smoothing=0.8, tune_smoothing=True).optimizer([theta], lr=0.05)
    x, memory, rate, beta = theta.detach().clone(), torch.zeros(2, dtype=torch.float64), 0.05, 0.8

    def along(beta):
        return beta * memory + (1 - beta) * h * x

    def value(rate, beta):
        return 0.5 * (h * (x - rate * along(beta)) ** 2).sum()

    for _ in range(12):
        rate *= 1.5 if value(1.5 * rate, beta) < value(0.5 * rate, beta) else 0.5
        more, less = (1 - min(max((1 - beta) * factor, 0.005), 1.0) for factor in (1.5, 0.5))
        beta = more if value(rate, more) < value(rate, less) else less
        memory = along(beta)
        x = x - rate * memory
        assert advance(optimizer, closure) == pytest.approx(rate, rel=1e-12)
        torch.testing.assert_close(theta.detach(), x, rtol=0, atol=1e-12)


def test_where_both_rates_are_as_good_both_fall():
    theta, closure, _ = quadratic()
    theta.data.zero_()
    optimizer = lrlib.HillClimb(step_size=0.5, smoothing=0.8, tune_smoothing=True).optimizer([theta], lr=0.05)
    assert advance(optimizer, closure) == pytest.approx(0.025)
    assert 1 - optimizer.state[theta]["smoothing"].item() == pytest.approx(0.1)


def test_a_closure_may_set_the_gradients_to_zero_in_place():
    theta, value, h = quadratic()
    optimizer = lrlib.HillClimb(step_size=0.5, smoothing=0.0, tune_smoothing=True).optimizer([theta], lr=0.01)

    def closure():
        optimizer.zero_grad(set_to_none=False)
        loss = value()
        if torch.is_grad_enabled():
            loss.backward()
        return loss

    closure()
    before = theta.detach().clone()
    optimizer.step(closure)
    torch.testing.assert_close(theta.detach(), before - 0.015 * h * before)
