"""The optimizers of lrlib.adaptive against PyTorch, against their formulas, and on bad input."""

import copy

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional as F

import lrlib
from lrlib.adaptive import Adadelta, Adagrad, Adam, FTRLProximal, Hypergradient, Parabola, RMSprop

ALL = [Adagrad, RMSprop, Adadelta, Adam, FTRLProximal, Parabola, Hypergradient]
TORCH = {
    "Adagrad": (Adagrad, torch.optim.Adagrad),
    "RMSprop": (RMSprop, torch.optim.RMSprop),
    "Adadelta": (Adadelta, torch.optim.Adadelta),
    "Adam": (Adam, torch.optim.Adam),
}


def parameter(*values):
    return torch.nn.Parameter(torch.tensor(values, dtype=torch.float64))


def run(make, steps=100, dtype=torch.float64):
    """The parameters after training a small network on the digits."""
    data = lrlib.digits()
    with lrlib.seeded(0):
        model = lrlib.mlp(64, 12, 10).to(dtype)
    optimizer = make(model.parameters())
    for rows in lrlib.batches(len(data.x_train), 32, steps, 0):
        optimizer.zero_grad()
        F.cross_entropy(model(data.x_train[rows].to(dtype)), data.y_train[rows]).backward()
        optimizer.step()
    return [p.detach() for p in model.parameters()]


@pytest.mark.parametrize("changed", [{}, {"lr": 0.03}, {"lr": 0.01, "eps": 1e-4}])
@pytest.mark.parametrize("name", TORCH)
def test_equal_to_torch_on_a_network(name, changed):
    ours, theirs = TORCH[name]
    for a, b in zip(run(lambda p: ours(p, **changed)), run(lambda p: theirs(p, **changed)), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize(
    ("name", "changed"),
    [
        ("RMSprop", {"alpha": 0.5}),
        ("Adadelta", {"rho": 0.5}),
        ("Adam", {"betas": (0.5, 0.8)}),
        ("Adam", {"betas": (0.0, 0.5)}),
    ],
)
def test_equal_to_torch_with_other_means(name, changed):
    ours, theirs = TORCH[name]
    for a, b in zip(run(lambda p: ours(p, **changed)), run(lambda p: theirs(p, **changed)), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("name", TORCH)
def test_defaults_are_torchs(name):
    ours, theirs = (make([parameter(1.0)]).defaults for make in TORCH[name])
    assert all(theirs[key] == value for key, value in ours.items())


@settings(max_examples=40, deadline=None)
@given(
    st.lists(st.lists(st.floats(-1e3, 1e3), min_size=3, max_size=3), min_size=1, max_size=12),
    st.sampled_from(sorted(TORCH)),
)
def test_equal_to_torch_for_any_gradients(gradients, name):
    pair = [parameter(1.0, -2.0, 0.5) for _ in range(2)]
    optimizers = [make([p]) for make, p in zip(TORCH[name], pair, strict=True)]
    for g in gradients:
        for p, optimizer in zip(pair, optimizers, strict=True):
            p.grad = torch.tensor(g, dtype=torch.float64)
            optimizer.step()
    torch.testing.assert_close(*[p.data for p in pair], rtol=1e-10, atol=1e-12)


def gradients(steps, d=4, seed=0):
    rng = np.random.default_rng(seed)
    return torch.tensor(rng.normal(size=(steps, d)) * (rng.random((steps, d)) < 0.6))


def test_ftrl_without_penalties_is_gradient_descent_with_its_rates():
    theta, expected, G = parameter(1.0, -1.0, 3.0, 0.0), torch.tensor([1.0, -1.0, 3.0, 0.0]).double(), 0.0
    optimizer = FTRLProximal([theta], lr=0.3, beta=0.7)
    for g in gradients(200):
        theta.grad = g.clone()
        optimizer.step()
        G = G + g**2
        expected = expected - 0.3 / (0.7 + G.sqrt()) * g
        torch.testing.assert_close(theta.data, expected, rtol=1e-10, atol=1e-12)


def test_ftrl_minimises_its_objective():
    """Each point is the minimum of linear losses, proximal terms and penalties, found by a fine grid."""
    lr, beta, l1, l2 = 0.5, 1.0, 0.8, 0.3
    theta = parameter(0.0)
    optimizer = FTRLProximal([theta], lr=lr, beta=beta, l1=l1, l2=l2)
    grid = np.linspace(-3, 3, 600_001)
    value, inverse, G = beta / lr / 2 * grid**2 + l1 * np.abs(grid) + l2 / 2 * grid**2, beta / lr, 0.0
    zeros = 0
    for g in (0.5, 0.2, 1.5, 2.0, -1.0, -3.0, 0.0, 0.4):
        G += g**2
        sigma, inverse = (beta + G**0.5) / lr - inverse, (beta + G**0.5) / lr
        value = value + g * grid + sigma / 2 * (grid - theta.item()) ** 2
        theta.grad = torch.tensor([g], dtype=torch.float64)
        optimizer.step()
        assert abs(theta.item() - grid[value.argmin()]) < 2e-5
        zeros += theta.item() == 0
    assert 0 < zeros < 8


def test_ftrl_follows_a_schedule():
    theta, expected, G = parameter(1.0), 1.0, 0.0
    optimizer = FTRLProximal([theta], lr=0.3)
    for t, g in enumerate(gradients(50, 1)[:, 0].tolist()):
        optimizer.param_groups[0]["lr"] = 0.3 / (t + 1) ** 0.5
        theta.grad = torch.tensor([g], dtype=torch.float64)
        optimizer.step()
        G += g**2
        expected -= 0.3 / (t + 1) ** 0.5 / (1 + G**0.5) * g
        assert theta.item() == pytest.approx(expected, rel=1e-10)


def test_parabola_is_the_ratio_from_four_running_means():
    beta, theta = 0.8, parameter(1.0, -2.0)
    optimizer = Parabola([theta], beta=beta, warmup=3, initial_rate=0.05, lr=0.5)
    means = None
    for t, g in enumerate(gradients(40, 2, seed=3) + 0.1):
        now = torch.stack([theta.data, theta.data**2, g, g**2])
        means = now if means is None else beta * means + (1 - beta) * now
        rate = ((means[1] - means[0] ** 2) / (means[3] - means[2] ** 2)).clamp(min=0).sqrt().clamp(max=10)
        expected = theta.data - 0.5 * (torch.full_like(rate, 0.05) if t < 3 else rate) * g
        theta.grad = g.clone()
        optimizer.step()
        torch.testing.assert_close(theta.data, expected, rtol=1e-6, atol=1e-9)


def test_parabola_lands_on_the_minimum_of_each_coordinate():
    h, minimum = torch.tensor([1e-2, 1.0, 50.0]).double(), torch.tensor([5.0, -3.0, 2.0]).double()
    theta = parameter(1.0, 1.0, 1.0)
    optimizer = Parabola([theta], warmup=2, initial_rate=1e-3, max_rate=1e6, eps=1e-30)
    for _ in range(3):
        theta.grad = h * (theta.data - minimum)
        optimizer.step()
    torch.testing.assert_close(theta.data, minimum, rtol=1e-8, atol=1e-8)


def test_parabola_survives_constant_and_absent_gradients():
    theta = parameter(1.0, 1.0)
    optimizer = Parabola([theta], warmup=2, max_rate=0.5)
    for _ in range(20):
        theta.grad = torch.tensor([0.0, 1.0]).double()
        before = theta.data.clone()
        optimizer.step()
        assert ((theta.data - before).abs() <= 0.5 + 1e-12).all()
    assert theta[0] == 1.0


def test_hypergradient_rate_follows_the_agreement_of_gradients():
    theta = [parameter(1.0, 2.0), parameter(3.0)]
    optimizer = Hypergradient(theta, lr=0.1, hyper_lr=0.02)
    lr, last = 0.1, None
    for g in gradients(30, 3, seed=5):
        if last is not None:
            lr += 0.02 * float(g @ last)
        last, before = g, torch.cat([p.data for p in theta])
        theta[0].grad, theta[1].grad = g[:2].clone(), g[2:].clone()
        optimizer.step()
        assert optimizer.param_groups[0]["lr"] == pytest.approx(lr, rel=1e-10)
        torch.testing.assert_close(torch.cat([p.data for p in theta]), before - lr * g)


def test_hypergradient_is_the_derivative_of_the_loss_by_the_rate():
    h, start = torch.tensor([3.0, 0.4]).double(), torch.tensor([1.0, -2.0]).double()

    def loss_after(lr):
        theta = start - lr * h * start
        return float((h * theta**2).sum() / 2)

    slope = (loss_after(0.1 + 1e-6) - loss_after(0.1 - 1e-6)) / 2e-6
    theta = torch.nn.Parameter(start.clone())
    optimizer = Hypergradient([theta], lr=0.1, hyper_lr=1.0)
    for _ in range(2):
        theta.grad = h * theta.data
        optimizer.step()
    assert optimizer.param_groups[0]["lr"] - 0.1 == pytest.approx(-slope, rel=1e-6)


@pytest.mark.parametrize("make", ALL)
def test_state_dict_resumes_exactly(make):
    theta = parameter(1.0, -1.0, 2.0)
    optimizer = make([theta])
    for g in gradients(15, 3):
        theta.grad = g.clone()
        optimizer.step()
    other = torch.nn.Parameter(theta.detach().clone())
    resumed = make([other])
    resumed.load_state_dict(copy.deepcopy(optimizer.state_dict()))
    for g in gradients(15, 3, seed=1):
        for p, o in ((theta, optimizer), (other, resumed)):
            p.grad = g.clone()
            o.step()
    assert torch.equal(theta, other)


@pytest.mark.parametrize("make", ALL)
def test_stacked_parameters_are_independent(make):
    """Coordinates do not see each other, except through the rate of the hypergradient."""
    if make is Hypergradient:
        pytest.skip("one rate for the whole group")
    both, alone = parameter(1.0, 2.0), parameter(2.0)
    pair = make([both]), make([alone])
    for g in gradients(20, 2):
        both.grad, alone.grad = g.clone(), g[1:].clone()
        for optimizer in pair:
            optimizer.step()
    assert torch.equal(both[1:], alone)


@pytest.mark.parametrize("make", ALL)
def test_closure_is_called_with_gradients_and_its_loss_returned(make):
    theta = parameter(3.0)
    optimizer = make([theta])

    def closure():
        optimizer.zero_grad()
        loss = theta.square().sum()
        loss.backward()
        return loss

    assert optimizer.step(closure).item() == 9.0
    assert theta.item() != 3.0


@pytest.mark.parametrize("make", ALL)
def test_parameters_without_a_gradient_stay(make):
    moved, still = parameter(1.0), parameter(1.0)
    optimizer = make([moved, still])
    moved.grad = torch.ones(1).double()
    optimizer.step()
    assert moved.item() != 1.0 and still.item() == 1.0 and still not in optimizer.state


BAD = [(make, {"lr": value}) for make in ALL for value in (0.0, -0.1, float("nan"), float("inf"))]
BAD += [(make, {"eps": 0.0}) for make in (Adagrad, RMSprop, Adadelta, Adam, Parabola)]
BAD += [(RMSprop, {"alpha": 1.0}), (RMSprop, {"alpha": -0.1}), (Adadelta, {"rho": 1.0}), (Adadelta, {"rho": -0.5})]
BAD += [(Adam, {"betas": pair}) for pair in ((1.0, 0.9), (0.9, 1.0), (-0.1, 0.9), (0.9, float("nan")))]
BAD += [(FTRLProximal, {"beta": 0.0}), (FTRLProximal, {"l1": -1.0}), (FTRLProximal, {"l2": -1.0})]
BAD += [(Parabola, wrong) for wrong in ({"beta": 1.0}, {"initial_rate": 0.0}, {"warmup": 0}, {"max_rate": 0.0})]
BAD += [(Hypergradient, {"hyper_lr": -1.0})]


@pytest.mark.parametrize(("make", "wrong"), BAD)
def test_settings_out_of_range_are_named(make, wrong):
    (name,) = wrong
    with pytest.raises(ValueError, match=name):
        make([parameter(1.0)], **wrong)
    with pytest.raises(ValueError, match=name):
        make([{"params": [parameter(1.0)], **wrong}])


@pytest.mark.parametrize(
    ("make", "wrong"),
    [(make, {"lr": "0.1"}) for make in ALL]
    + [(Adam, {"betas": 0.9}), (Adam, {"betas": (0.9,)}), (Parabola, {"warmup": 2.5})],
)
def test_settings_of_a_wrong_type_are_named(make, wrong):
    (name,) = wrong
    with pytest.raises(TypeError, match=name):
        make([parameter(1.0)], **wrong)


@pytest.mark.parametrize("make", ALL)
def test_a_refused_group_is_not_added(make):
    optimizer = make([parameter(1.0)])
    with pytest.raises(ValueError, match="lr"):
        optimizer.add_param_group({"params": [parameter(2.0)], "lr": -1.0})
    assert len(optimizer.param_groups) == 1


@pytest.mark.parametrize("make", ALL)
def test_sparse_gradients_are_refused_and_no_weight_changes(make):
    first = parameter(1.0, 2.0)
    table = torch.nn.Embedding(5, 2, sparse=True)
    before = table.weight.detach().clone()
    optimizer = make([first, table.weight])
    first.grad = torch.ones(2).double()
    table(torch.tensor([1, 3])).sum().backward()
    with pytest.raises(RuntimeError, match="sparse"):
        optimizer.step()
    assert first.tolist() == [1.0, 2.0] and torch.equal(table.weight, before) and not optimizer.state


@pytest.mark.parametrize("make", ALL)
def test_complex_gradients_are_refused(make):
    theta = torch.nn.Parameter(torch.ones(2, dtype=torch.complex64))
    optimizer = make([theta])
    theta.grad = torch.ones_like(theta)
    with pytest.raises(RuntimeError, match="complex"):
        optimizer.step()
    assert torch.equal(theta.data, torch.ones(2, dtype=torch.complex64))


@pytest.mark.parametrize("make", ALL)
def test_trains_with_lrlib_and_its_schedules(make):
    with lrlib.seeded(0):
        model = lrlib.mlp(64, 16, 10)
    schedule = lrlib.cosine(0.05, T_max=30)
    history = lrlib.train(model, lrlib.digits(), schedule, steps=30, optimizer=make(model.parameters()))
    assert history.diverged_at is None and np.isfinite(history.loss).all()
    if make is not Hypergradient:
        np.testing.assert_array_equal(history.lr, schedule(np.arange(30)))
