"""Polyak's step and Armijo's search: the formulas, their guarantees, in the loop, on stacks; bad input is named."""

import numpy as np
import pytest
import torch
from descent import advance, quadratic
from torch import nn
from torch.nn import functional as F

import lrlib
from lrlib.linesearch import TRIES

DATA = lrlib.digits()
X, Y = DATA.x_train.double(), DATA.y_train


@pytest.mark.parametrize("lowest", [0.0, -3.0, 2.5])
@pytest.mark.parametrize("c", [0.5, 1.0, 3.0])
def test_polyak_is_the_formula_and_brings_every_step_closer(lowest, c):
    theta, closure, h = quadratic(lowest=lowest)
    optimizer, x = lrlib.PolyakStep(lowest=lowest, c=c).optimizer([theta], lr=1e6), theta.detach().clone()
    for _ in range(8):
        g = h * x
        rate = (0.5 * (h * x**2).sum() / (c * g @ g)).item()
        assert advance(optimizer, closure) == pytest.approx(rate, rel=1e-9)
        before, x = x.norm(), x - rate * g
        torch.testing.assert_close(theta.detach(), x, rtol=0, atol=1e-9)
        assert c < 1 or x.norm() < before


def test_with_momentum_it_is_the_mean_of_all_tangents_so_far():
    theta, _, h = quadratic()
    rule, beta = lrlib.PolyakStep(lowest=-1.0, momentum=0.7), 0.7
    optimizer, x, past = rule.optimizer([theta], lr=0.5), theta.detach().clone(), []
    for t in range(12):
        shift = torch.tensor([np.sin(t), np.cos(t)])  # of batch t

        def loss(at, shift=shift):
            return 0.5 * (h * (at - shift) ** 2).sum()

        past.append((x, loss(x), h * (x - shift)))
        weights = [(1 - beta) * beta ** (t - k) if k else beta**t for k in range(t + 1)]
        d = sum(w * g for w, (*_, g) in zip(weights, past, strict=True))
        tangent = sum(w * (value + g @ (x - at)) for w, (at, value, g) in zip(weights, past, strict=True))
        rate = min(0.5, max(0.0, (tangent + 1.0).item()) / (d @ d).item())
        assert advance(optimizer, lambda loss=loss: loss(theta)) == pytest.approx(rate, rel=1e-9)
        x = x - rate * d
        torch.testing.assert_close(theta.detach(), x, rtol=0, atol=1e-9)


def test_polyak_keeps_below_the_cap_and_its_growth():
    theta, closure, _ = quadratic(h=(1e-3, 1.0))
    free = lrlib.PolyakStep().optimizer([theta], lr=1e6)
    rates = [advance(free, closure) for _ in range(40)]
    steepest = max(new / old for old, new in zip(rates, rates[1:], strict=False))
    assert steepest > 2 and max(rates) > 5

    theta, closure, _ = quadratic(h=(1e-3, 1.0))
    held = lrlib.PolyakStep(growth=1.5).optimizer([theta], lr=4.0)
    rates = [advance(held, closure) for _ in range(40)]
    steepest = max(new / old for old, new in zip(rates, rates[1:], strict=False))
    assert steepest == pytest.approx(1.5) and max(rates) <= 4.0


def test_at_the_lowest_loss_or_below_it_and_without_a_gradient_nothing_moves():
    for lowest, start in ((0.0, 0.0), (10.0, 1.0)):
        theta = nn.Parameter(torch.tensor([start]))
        optimizer = lrlib.PolyakStep(lowest=lowest).optimizer([theta], lr=1.0)
        assert advance(optimizer, lambda theta=theta: theta.square().sum()) == 0.0
        assert theta.item() == start


@pytest.mark.parametrize("rule", [lrlib.PolyakStep(lowest=1.0, growth=2.0), lrlib.Armijo(growth=2.0)], ids=str)
def test_rates_come_back_after_a_cap_of_zero_or_a_low_batch(rule):
    theta = nn.Parameter(torch.tensor([3.0]))
    optimizer = rule.optimizer([theta], lr=0.1)
    assert advance(optimizer, lambda: theta.square().sum()) == pytest.approx(0.1)
    optimizer.param_groups[0]["lr"] = 0.0
    assert advance(optimizer, lambda: theta.square().sum()) == 0.0
    optimizer.param_groups[0]["lr"] = 0.3
    if isinstance(rule, lrlib.PolyakStep):
        assert advance(optimizer, lambda: theta.square().sum() / 100) == 0.0  # below the lowest loss
    assert advance(optimizer, lambda: theta.square().sum()) == pytest.approx(0.2)


def test_armijo_takes_the_first_rate_that_keeps_the_promise():
    theta, closure, h = quadratic()
    optimizer = lrlib.Armijo(c=0.3, backtrack=0.7, growth=1.2).optimizer([theta], lr=5.0)
    x, last, tried = theta.detach().clone(), np.inf, 0

    def loss(point):
        return 0.5 * (h * point**2).sum()

    for _ in range(30):
        g, rate = h * x, min(5.0, 1.2 * last)
        tried += 1
        while loss(x - rate * g) > loss(x) - 0.3 * rate * g @ g:
            rate, tried = 0.7 * rate, tried + 1
        assert advance(optimizer, closure) == pytest.approx(rate, rel=1e-9)
        assert rate >= min(5.0, 1.2 * last, 2 * 0.7 * (1 - 0.3) / 10.0) - 1e-12
        x, last = x - rate * g, rate
        torch.testing.assert_close(theta.detach(), x, rtol=0, atol=1e-12)
    assert optimizer.state[theta]["tries"].item() == tried > 30


def test_a_search_that_finds_nothing_ends():
    theta = nn.Parameter(torch.tensor([1.0]))
    optimizer = lrlib.Armijo().optimizer([theta], lr=1.0)
    theta.grad = torch.tensor([-1.0])  # of another loss, which rises this way
    optimizer.step(lambda: theta.sum())
    assert optimizer.state[theta]["tries"].item() == TRIES
    assert optimizer.param_groups[0]["applied_lr"] == pytest.approx(0.9**TRIES)


@pytest.mark.parametrize(
    "rule",
    [lrlib.PolyakStep(c=0.5, growth=1.1), lrlib.PolyakStep(momentum=0.9), lrlib.Armijo(growth=1.1)],
    ids=["PolyakStep", "with momentum", "Armijo"],
)
def test_the_loop_a_loop_of_ones_own_and_a_stack_agree(rule):
    def network(seed):
        with lrlib.seeded(seed):
            return lrlib.mlp(64, 16, 10).double()

    alone = []
    for seed in range(3):
        model, other = network(seed), network(seed)
        history = lrlib.train(model, (X, Y), 2.0, steps=20, optimizer=rule, seed=seed)
        optimizer = rule.optimizer(other.parameters(), lr=2.0)
        rates = [
            advance(optimizer, lambda rows=rows, other=other: F.cross_entropy(other(X[rows]), Y[rows]))
            for rows in lrlib.batches(len(X), 64, 20, seed=seed)
        ]
        np.testing.assert_allclose(history.lr, rates, rtol=1e-9)
        alone.append(history.lr)
    stack = lrlib.Stack([network(seed) for seed in range(3)])
    together = lrlib.train(stack, (X, Y), 2.0, steps=20, optimizer=rule, seed=[0, 1, 2])
    np.testing.assert_allclose(together.lr, alone, rtol=1e-6)
    assert len({tuple(row) for row in together.lr.round(6)}) == 3


def test_a_diverged_replica_costs_a_search_nothing():
    looks = []

    def loss(outputs, y):
        looks.append(1)
        return F.cross_entropy(outputs, y)

    stack = lrlib.Stack([lrlib.mlp(64, 8, 10) for _ in range(2)])
    with torch.no_grad():
        stack.weights[0][1] = torch.nan
    history = lrlib.train(stack, DATA, 0.01, steps=10, optimizer=lrlib.Armijo(), loss=loss)
    assert history.diverged_at[1] == 0 and len(looks) < 2 * TRIES


@pytest.mark.parametrize(
    ("make", "error", "name"),
    [
        (lambda: lrlib.PolyakStep(lowest=float("nan")), ValueError, "lowest"),
        (lambda: lrlib.PolyakStep(lowest="0"), TypeError, "lowest"),
        (lambda: lrlib.PolyakStep(c=0.0), ValueError, "c"),
        (lambda: lrlib.PolyakStep(growth=0.5), ValueError, "growth"),
        (lambda: lrlib.PolyakStep(momentum=1.0), ValueError, "momentum"),
        (lambda: lrlib.PolyakStep(growth=float("nan")), ValueError, "growth"),
        (lambda: lrlib.Armijo(c=1.0), ValueError, "c"),
        (lambda: lrlib.Armijo(c=0.0), ValueError, "c"),
        (lambda: lrlib.Armijo(backtrack=1.0), ValueError, "backtrack"),
        (lambda: lrlib.Armijo(growth=0.99), ValueError, "growth"),
        (lambda: lrlib.Armijo(growth=float("inf")), ValueError, "growth"),
    ],
)
def test_settings_out_of_range_are_named(make, error, name):
    with pytest.raises(error, match=f"^{name}="):
        make()
