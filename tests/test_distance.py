"""Rules that estimate their rate: each beside the package it is written after, alone and in a stack."""

import numpy as np
import pytest
import torch

import lrlib

pytorch_optimizer = pytest.importorskip("pytorch_optimizer")

PAIRS = {
    "Prodigy": (lrlib.Prodigy, pytorch_optimizer.Prodigy, 1.0, {}),
    "Prodigy, from far": (lrlib.Prodigy, pytorch_optimizer.Prodigy, 0.3, {"d0": 1e-2, "betas": (0.8, 0.99)}),
    "Prodigy, decay": (lrlib.Prodigy, pytorch_optimizer.Prodigy, 1.0, {"weight_decay": 0.1, "d0": 1e-3}),
    "DAdaptAdam": (lrlib.DAdaptAdam, pytorch_optimizer.DAdaptAdam, 1.0, {}),
    "DAdaptAdam, from far": (lrlib.DAdaptAdam, pytorch_optimizer.DAdaptAdam, 2.0, {"d0": 1e-3, "betas": (0.8, 0.99)}),
    "ScheduleFreeAdamW": (lrlib.ScheduleFreeAdamW, pytorch_optimizer.ScheduleFreeAdamW, 0.01, {}),
    "ScheduleFreeAdamW, decay": (
        lrlib.ScheduleFreeAdamW,
        pytorch_optimizer.ScheduleFreeAdamW,
        0.01,
        {"weight_decay": 0.1, "betas": (0.8, 0.99)},
    ),
}


def run(model, rule, rates, seeds, steps):
    """The weights after training in float64, and the test losses on the way."""
    data = lrlib.digits()
    watch = lrlib.Evaluate(data.x_test.double(), data.y_test, every=10)
    pair, options = (data.x_train.double(), data.y_train), {"batch_size": 32, "callbacks": [watch]}
    lrlib.train(model, pair, rates, steps=steps, optimizer=rule, seed=seeds, **options)
    weights = model.weights if isinstance(model, lrlib.Stack) else [p[None] for p in model.parameters()]
    return torch.cat([w.detach().flatten(1) for w in weights], 1), watch.loss


def networks(seeds):
    return lrlib.initialised(lambda: lrlib.mlp(64, 8, 10).double(), seeds)


def trained(rule, seeds, rates, steps=40):
    """Replicas in a stack."""
    return run(lrlib.Stack(networks(seeds)), rule, rates, list(seeds), steps)


def trained_alone(theirs, settings, seeds, rates):
    """The same networks one after the other, by an optimizer of the package."""
    models = networks(seeds)
    found = [
        run(model, theirs(model.parameters(), lr=1.0, **settings), rate, seed, 40)
        for model, seed, rate in zip(models, seeds, rates, strict=True)
    ]
    return torch.cat([weights for weights, _ in found]), [losses for _, losses in found]


@pytest.mark.parametrize("name", PAIRS)
def test_the_rule_is_that_of_the_package(name):
    rule, theirs, lr, settings = PAIRS[name]
    rates = [lr, lr / 2, lr]
    mine, seen = trained(rule(**settings), [0, 1, 2], rates)
    other, also = trained_alone(theirs, settings, [0, 1, 2], rates)
    np.testing.assert_allclose(seen, also, rtol=2e-3)  # theirs sum in float32
    torch.testing.assert_close(mine, other, rtol=1e-2, atol=1e-3)
    assert not torch.allclose(mine[0], mine[1], atol=0.01)


@pytest.mark.parametrize("rule", [lrlib.Prodigy, lrlib.DAdaptAdam])
def test_a_first_estimate_of_its_own_for_each_replica(rule):
    guesses = [1e-6, 1e-3]
    together, _ = trained(rule(d0=guesses), [3, 3], 1.0, steps=20)
    for row, guess in zip(together, guesses, strict=True):
        torch.testing.assert_close(row, trained(rule(d0=guess), [3], 1.0, steps=20)[0][0], rtol=1e-8, atol=1e-10)
    assert not torch.allclose(*together, atol=1e-3)


@pytest.mark.parametrize(
    "schedule", [lrlib.warmup(lrlib.constant(0.02), 30, start_factor=0.1), lrlib.cosine(0.02, 60)], ids=["up", "down"]
)
def test_a_rate_that_changes_weighs_the_average_as_the_package_does(schedule):
    mine, _ = trained(lrlib.ScheduleFreeAdamW(), [0, 1], [schedule] * 2)
    other, _ = trained_alone(pytorch_optimizer.ScheduleFreeAdamW, {}, [0, 1], [schedule] * 2)
    torch.testing.assert_close(mine, other, rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: lrlib.Prodigy(d0=0.0), "d0=0.0"),
        (lambda: lrlib.Prodigy(weight_decay=-0.1), "weight_decay=-0.1"),
        (lambda: lrlib.DAdaptAdam(weight_decay=0.1), "weight_decay=0.1"),
        (lambda: lrlib.ScheduleFreeAdamW(betas=(0.0, 0.9)), r"betas\[0\]=0.0"),
    ],
)
def test_settings_out_of_range_are_named(make, message):
    with pytest.raises(ValueError, match=message):
        make()


def stepped(rule, gradients, rates):
    """The weight, first 1, after a step for each gradient at each rate."""
    theta = torch.nn.Parameter(torch.ones(1, dtype=torch.float64))
    optimizer = rule.optimizer([theta], lr=1.0)
    for g, rate in zip(gradients, rates, strict=True):
        optimizer.param_groups[0]["lr"] = rate
        theta.grad = torch.full_like(theta, g)
        optimizer.step()
    return theta.item()


def test_a_first_rate_of_zero_leaves_the_average_where_it_is():
    assert stepped(lrlib.ScheduleFreeAdamW(), [1.0], [0.0]) == 1
    assert stepped(lrlib.ScheduleFreeAdamW(), [1.0, 1.0], [0.0, 0.1]) < 1


@pytest.mark.parametrize("rule", [lrlib.Prodigy(), lrlib.DAdaptAdam()], ids=str)
def test_an_estimate_waits_for_the_first_gradient(rule):
    assert stepped(rule, [0.0], [1.0]) == 1
    assert stepped(rule, [0.0, 1.0], [1.0, 1.0]) < 1


def test_prodigy_is_its_formula_with_an_eps_that_counts():
    d0, eps, decay, slow, gradients = 0.01, 0.5, 0.1, 0.99**0.5, [1.0, 0.5, 2.0, 1.0] * 3
    theta, d, p, q, m, v, risen = 1.0, d0, 0.0, 0.0, 0.0, 0.0, 0
    for g in gradients:
        p, q = slow * p + d * d * g * (1.0 - theta), slow * q + d * d * g
        m, v = 0.9 * m + 0.1 * d * g, 0.99 * v + 0.01 * (d * g) ** 2
        new = max(d, p / abs(q))
        risen += new > d
        theta, d = theta - d * (m / (v**0.5 + new * eps) + decay * theta), new
    rule = lrlib.Prodigy(betas=(0.9, 0.99), eps=eps, weight_decay=decay, d0=d0)
    assert stepped(rule, gradients, [1.0] * 12) == pytest.approx(theta, rel=1e-9) and risen > 3
