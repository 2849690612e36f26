"""The update rules against their formulas, and as optimizers of torch: groups, closures, states, copies, bad input."""

import copy
import pickle
from dataclasses import dataclass, fields

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

import lrlib

RULES = [
    lrlib.SGD(),
    lrlib.SGD(momentum=0.9, weight_decay=0.01, nesterov=True),
    lrlib.Adagrad(),
    lrlib.RMSprop(),
    lrlib.Adadelta(),
    lrlib.Adam(weight_decay=0.01),
    lrlib.AdamW(),
    lrlib.Lion(weight_decay=0.1),
    lrlib.Muon(),
    lrlib.FTRLProximal(l1=1e-3),
    lrlib.Parabola(),
    lrlib.Hypergradient(),
    lrlib.HillClimb(every=2, tune_smoothing=True),
    lrlib.PolyakStep(c=0.5, growth=1.1),
    lrlib.Armijo(),
]
TORCH = {
    torch.optim.SGD: (lrlib.SGD(momentum=0.9, nesterov=True), {"momentum": 0.9, "nesterov": True}),
    torch.optim.Adagrad: (lrlib.Adagrad(), {}),
    torch.optim.RMSprop: (lrlib.RMSprop(alpha=0.5), {"alpha": 0.5}),
    torch.optim.Adadelta: (lrlib.Adadelta(rho=0.5), {"rho": 0.5}),
    torch.optim.Adam: (lrlib.Adam(betas=(0.5, 0.8), weight_decay=0.1), {"betas": (0.5, 0.8), "weight_decay": 0.1}),
    torch.optim.AdamW: (lrlib.AdamW(betas=(0.0, 0.5)), {"betas": (0.0, 0.5)}),
}
every_rule = pytest.mark.parametrize("rule", RULES, ids=str)


def parameter(*values, dtype=torch.float64):
    return nn.Parameter(torch.tensor(values, dtype=dtype))


def gradients(steps, d=4, seed=0):
    rng = np.random.default_rng(seed)
    return torch.tensor(rng.normal(size=(steps, d)) * (rng.random((steps, d)) < 0.6))


def closure_for(*params):
    return lambda: sum(p.square().sum() for p in params)


def follow(optimizer, steps=10, seed=0):
    """Steps with given gradients, the same for every parameter."""
    params = [p for group in optimizer.param_groups for p in group["params"]]
    for g in gradients(steps, params[0].numel(), seed):
        for p in params:
            p.grad = g.to(p.dtype).view_as(p)
        optimizer.step(closure_for(*params)) if getattr(optimizer, "needs_closure", False) else optimizer.step()
    return torch.cat([p.detach().flatten() for p in params])


@pytest.mark.parametrize("kind", TORCH, ids=lambda kind: kind.__name__)
@settings(max_examples=25, deadline=None)
@given(st.lists(st.lists(st.floats(-1e3, 1e3), min_size=3, max_size=3), min_size=1, max_size=12))
def test_equal_to_torch_for_any_gradients(kind, gradients):
    rule, options = TORCH[kind]
    mine, theirs = parameter(1.0, -2.0, 0.5), parameter(1.0, -2.0, 0.5)
    optimizers = rule.optimizer([mine], lr=0.03), kind([theirs], lr=0.03, **options)
    for g in gradients:
        mine.grad, theirs.grad = (torch.tensor(g, dtype=torch.float64) for _ in range(2))
        for optimizer in optimizers:
            optimizer.step()
    torch.testing.assert_close(mine.data, theirs.data, rtol=1e-10, atol=1e-12)


def test_ftrl_without_penalties_is_gradient_descent_with_its_rates_and_follows_a_schedule():
    theta, expected, G = parameter(1.0, -1.0, 3.0, 0.0), torch.tensor([1.0, -1.0, 3.0, 0.0]).double(), 0.0
    optimizer = lrlib.FTRLProximal(beta=0.7).optimizer([theta], lr=0.3)
    for t, g in enumerate(gradients(200)):
        rate = 0.3 / (t + 1) ** 0.5
        optimizer.param_groups[0]["lr"] = rate
        theta.grad = g.clone()
        optimizer.step()
        G = G + g**2
        expected = expected - rate / (0.7 + G.sqrt()) * g
        torch.testing.assert_close(theta.data, expected, rtol=1e-10, atol=1e-12)


def test_ftrl_minimises_its_objective():
    """Each point is the minimum of linear losses, proximal terms and penalties, found by a fine grid."""
    lr, beta, l1, l2 = 0.5, 1.0, 0.8, 0.3
    theta = parameter(0.0)
    optimizer = lrlib.FTRLProximal(beta=beta, l1=l1, l2=l2).optimizer([theta], lr=lr)
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


def test_lion_is_the_algorithm_of_its_paper():
    """Each line is one of algorithm 2 of Chen et al. (2023), coordinate by coordinate in plain numbers."""
    beta1, beta2, decay, start = 0.7, 0.95, 0.3, [1.0, -2.0, 0.0, 0.5]
    theta = parameter(*start)
    optimizer = lrlib.Lion(betas=(beta1, beta2), weight_decay=decay).optimizer([theta], lr=0.1)
    expected, memory, still = list(start), [0.0] * 4, 0
    for t, g in enumerate(gradients(40, seed=2).tolist()):
        rate = 0.1 / (t + 1) ** 0.5
        for i in range(4):
            update = beta1 * memory[i] + (1 - beta1) * g[i]
            sign = (update > 0) - (update < 0)
            still += sign == 0
            expected[i] = expected[i] - rate * (sign + decay * expected[i])
            memory[i] = beta2 * memory[i] + (1 - beta2) * g[i]
        optimizer.param_groups[0]["lr"] = rate
        theta.grad = torch.tensor(g, dtype=torch.float64)
        optimizer.step()
        assert theta.tolist() == pytest.approx(expected, rel=1e-12, abs=1e-12)
    assert still  # before the first gradient of a coordinate


def test_parabola_is_the_ratio_from_four_running_means():
    beta, theta, means = 0.8, parameter(1.0, -2.0), None
    optimizer = lrlib.Parabola(beta=beta, warmup=3, initial_rate=0.05).optimizer([theta], lr=0.5)
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
    optimizer = lrlib.Parabola(warmup=2, max_rate=1e6, eps=1e-30).optimizer([theta], lr=1.0)
    for _ in range(3):
        theta.grad = h * (theta.data - minimum)
        optimizer.step()
    torch.testing.assert_close(theta.data, minimum, rtol=1e-8, atol=1e-8)


def test_parabola_survives_constant_and_absent_gradients():
    theta = parameter(1.0, 1.0)
    optimizer = lrlib.Parabola(warmup=2, max_rate=0.5).optimizer([theta], lr=1.0)
    for _ in range(20):
        theta.grad = torch.tensor([0.0, 1.0]).double()
        before = theta.data.clone()
        optimizer.step()
        assert ((theta.data - before).abs() <= 0.5 + 1e-12).all()
    assert theta[0] == 1.0


def test_the_hypergradients_rate_follows_the_agreement_of_gradients():
    theta = [parameter(1.0, 2.0), parameter(3.0)]
    optimizer = lrlib.Hypergradient(hyper_lr=0.02).optimizer(theta, lr=0.1)
    lr, last = 0.1, None
    for g in gradients(30, 3, seed=5):
        if last is not None:
            lr += 0.02 * float(g @ last)
        last, before = g, torch.cat([p.data for p in theta])
        theta[0].grad, theta[1].grad = g[:2].clone(), g[2:].clone()
        optimizer.step()
        assert optimizer.param_groups[0]["applied_lr"] == pytest.approx(lr, rel=1e-10)
        torch.testing.assert_close(torch.cat([p.data for p in theta]), before - lr * g)


def test_the_hypergradient_is_the_derivative_of_the_loss_by_the_rate():
    h, start = torch.tensor([3.0, 0.4]).double(), torch.tensor([1.0, -2.0]).double()

    def loss_after(lr):
        theta = start - lr * h * start
        return float((h * theta**2).sum() / 2)

    slope = (loss_after(0.1 + 1e-6) - loss_after(0.1 - 1e-6)) / 2e-6
    theta = nn.Parameter(start.clone())
    optimizer = lrlib.Hypergradient(hyper_lr=1.0).optimizer([theta], lr=0.1)
    for _ in range(2):
        theta.grad = h * theta.data
        optimizer.step()
    assert optimizer.param_groups[0]["applied_lr"] - 0.1 == pytest.approx(-slope, rel=1e-6)


@pytest.mark.parametrize(
    "rule", [lrlib.Adagrad(), lrlib.RMSprop(), lrlib.Adadelta(), lrlib.Adam(), lrlib.Parabola()], ids=str
)
def test_in_float16_a_zero_gradient_moves_nothing(rule):
    theta = parameter(1.0, 1.0, dtype=torch.float16)
    optimizer = rule.optimizer([theta], lr=0.1)
    for _ in range(15):
        theta.grad = torch.zeros_like(theta)
        optimizer.step()
    assert theta.tolist() == [1.0, 1.0]


@pytest.mark.parametrize("eps", [[1e-8, 1e-8], lrlib.constant(1e-8)], ids=["list", "schedule"])
@pytest.mark.parametrize("kind", [lrlib.Adagrad, lrlib.RMSprop, lrlib.Adam])
def test_in_float16_an_eps_of_each_replica_is_not_lost_either(kind, eps):
    stack = lrlib.Stack([nn.Linear(3, 2).half() for _ in range(2)])
    before = stack.weights[0].clone()
    lrlib.train(
        stack, (torch.zeros(8, 3).half(), torch.zeros(8).long()), 0.1, steps=4, batch_size=8, optimizer=kind(eps=eps)
    )
    assert torch.equal(stack.weights[0], before)  # the inputs, and with them the gradient, are zero


@pytest.mark.parametrize("rule", [rule for rule in RULES if not rule.joint], ids=str)
def test_coordinates_do_not_see_each_other(rule):
    both, alone = parameter(1.0, 2.0), parameter(2.0)
    pair = rule.optimizer([both], lr=0.03), rule.optimizer([alone], lr=0.03)
    for g in gradients(20, 2):
        both.grad, alone.grad = g.clone(), g[1:].clone()
        for optimizer in pair:
            optimizer.step()
    assert torch.equal(both[1:], alone)


@pytest.mark.parametrize("rule", [rule for rule in RULES if not rule.needs_loss], ids=str)
def test_a_closure_is_called_with_gradients_and_its_loss_returned(rule):
    theta = parameter(3.0)
    optimizer = rule.optimizer([theta], lr=0.1)

    def closure():
        optimizer.zero_grad()
        loss = theta.square().sum()
        loss.backward()
        return loss

    assert optimizer.step(closure).item() == 9.0
    assert theta.item() != 3.0


@every_rule
def test_a_saved_state_continues_exactly_and_brings_its_settings(rule):
    optimizer = rule.optimizer([parameter(1.0, -1.0, 2.0)], lr=0.03)
    middle = follow(optimizer)
    other = type(rule)().optimizer([nn.Parameter(middle.clone())], lr=0.5)
    other.load_state_dict(pickle.loads(pickle.dumps(optimizer.state_dict())))
    assert torch.equal(follow(optimizer, seed=1), follow(other, seed=1))


@every_rule
def test_rules_and_their_optimizers_can_be_copied_and_pickled(rule):
    assert copy.deepcopy(rule) == rule == pickle.loads(pickle.dumps(rule)) and hash(rule) == hash(copy.copy(rule))
    optimizer = rule.optimizer([parameter(1.0, -1.0, 2.0)], lr=0.03)
    follow(optimizer)
    copies = copy.deepcopy(optimizer), pickle.loads(pickle.dumps(optimizer))
    ends = [follow(each, seed=1) for each in (optimizer, *copies)]
    assert torch.equal(ends[0], ends[1]) and torch.equal(ends[0], ends[2])


@pytest.mark.parametrize("kind", TORCH, ids=lambda kind: kind.__name__)
def test_the_state_of_torchs_optimizer_goes_on_in_lrlibs(kind):
    rule, options = TORCH[kind]
    theirs = kind([parameter(1.0, -1.0, 2.0)], lr=0.03, **options)
    middle = follow(theirs)
    ours = rule.optimizer([nn.Parameter(middle.clone())], lr=0.5)
    ours.load_state_dict(copy.deepcopy(theirs.state_dict()))
    torch.testing.assert_close(follow(ours, seed=1), follow(theirs, seed=1), rtol=1e-10, atol=1e-12)


def test_the_state_of_another_rule_is_refused_and_nothing_changes():
    optimizer = lrlib.Adam().optimizer([parameter(1.0)], lr=0.1)
    before = copy.deepcopy(optimizer.state_dict())
    with pytest.raises(ValueError, match="betas"):
        optimizer.load_state_dict(torch.optim.SGD([parameter(1.0)], lr=0.2).state_dict())
    assert optimizer.state_dict() == before


def test_groups_have_their_own_rates_and_settings():
    one, two = parameter(1.0), parameter(1.0)
    groups = [{"params": [one]}, {"params": [two], "lr": 0.5, "momentum": 0.5}]
    optimizer = lrlib.SGD(momentum=0.9).optimizer(groups, lr=0.1)
    for _ in range(2):
        one.grad, two.grad = torch.ones(1).double(), torch.ones(1).double()
        optimizer.step()
    assert one.item() == pytest.approx(1 - 0.1 * (1 + 1.9)) and two.item() == pytest.approx(1 - 0.5 * (1 + 1.5))


@pytest.mark.parametrize("rule", [rule for rule in RULES if not isinstance(rule, lrlib.Armijo)], ids=str)
def test_a_group_and_a_parameter_may_join_later(rule):
    """They begin afresh, and the others go on as if alone; a search asks for the loss of all, which rounds."""
    first, late, alone = parameter(1.0, -1.0, 2.0), parameter(2.0, 1.0, 1.0), parameter(1.0, -1.0, 2.0)
    optimizer, lonely = rule.optimizer([first], lr=0.03), rule.optimizer([alone], lr=0.03)
    assert torch.equal(follow(optimizer, 4), follow(lonely, 4))
    optimizer.add_param_group({"params": [late]})
    fresh = rule.optimizer([nn.Parameter(late.detach().clone())], lr=0.03)
    both = follow(optimizer, 4, seed=1)
    assert torch.equal(both[:3], follow(lonely, 4, seed=1)) and torch.equal(both[3:], follow(fresh, 4, seed=1))


@pytest.mark.parametrize("rule", [lrlib.Hypergradient(hyper_lr=0.1), lrlib.HillClimb(step_size=0.1)], ids=str)
def test_a_rate_for_all_does_not_begin_anew_when_a_first_layer_is_unfrozen(rule):
    frozen, trained = parameter(1.0), parameter(1.0)
    optimizer, rates = rule.optimizer([frozen, trained], lr=0.01), []
    for t in range(6):
        trained.grad = trained.detach().clone()
        frozen.grad = frozen.detach().clone() if t >= 4 else None
        optimizer.step(closure_for(frozen, trained))
        rates.append(optimizer.param_groups[0]["applied_lr"])
    assert (np.diff(rates) > 0).all()


def test_a_state_that_was_loaded_is_not_written():
    p = parameter(1.0, dtype=torch.float32)
    optimizer = lrlib.Hypergradient(hyper_lr=0.1).optimizer([p], lr=0.1)
    follow(optimizer)
    saved = copy.deepcopy(optimizer.state_dict())
    before = copy.deepcopy(saved)
    optimizer.load_state_dict(saved)
    follow(optimizer)
    assert saved == before and optimizer.state[p]["gain"] != saved["state"][0]["gain"]


@every_rule
def test_parameters_without_a_gradient_stay(rule):
    moved, still = parameter(1.0), parameter(1.0)
    optimizer = rule.optimizer([still, moved], lr=0.1)
    moved.grad = torch.ones(1).double()
    optimizer.step(closure_for(moved))
    assert moved.item() != 1.0 and still.item() == 1.0 and not optimizer.state[still]


@every_rule
def test_sparse_gradients_are_refused_and_nothing_changes(rule):
    first, table = parameter(1.0, 2.0), nn.Embedding(5, 2, sparse=True)
    before = table.weight.detach().clone()
    optimizer = rule.optimizer([first, table.weight], lr=0.1)
    first.grad = torch.ones(2).double()
    table(torch.tensor([1, 3])).sum().backward()
    with pytest.raises(RuntimeError, match="sparse"):
        optimizer.step(closure_for(first))
    assert first.tolist() == [1.0, 2.0] and torch.equal(table.weight, before) and not optimizer.state


@every_rule
def test_complex_gradients_are_refused(rule):
    theta = parameter(1.0, 1.0, dtype=torch.complex64)
    optimizer = rule.optimizer([theta], lr=0.1)
    theta.grad = torch.ones_like(theta)
    with pytest.raises(RuntimeError, match="complex"):
        optimizer.step(closure_for(theta))
    assert torch.equal(theta.data, torch.ones(2, dtype=torch.complex64))


BAD = [
    (lrlib.SGD, {"momentum": 1.0}),
    (lrlib.SGD, {"weight_decay": -1e-4}),
    *((kind, {"eps": 0.0}) for kind in (lrlib.Adagrad, lrlib.RMSprop, lrlib.Adadelta, lrlib.Adam, lrlib.Parabola)),
    (lrlib.RMSprop, {"alpha": 1.0}),
    (lrlib.RMSprop, {"alpha": -0.1}),
    (lrlib.Adadelta, {"rho": 1.0}),
    *((lrlib.Adam, {"betas": pair}) for pair in ((1.0, 0.9), (0.9, 1.0), (-0.1, 0.9), (0.9, float("nan")))),
    (lrlib.AdamW, {"weight_decay": float("inf")}),
    *((lrlib.Lion, wrong) for wrong in ({"betas": (0.9, 1.0)}, {"betas": (-0.1, 0.9)}, {"weight_decay": -1.0})),
    (lrlib.Muon, {"momentum": -0.5}),
    (lrlib.Muon, {"adjust_lr_fn": "muP"}),
    (lrlib.FTRLProximal, {"beta": 0.0}),
    (lrlib.FTRLProximal, {"l1": -1.0}),
    (lrlib.FTRLProximal, {"l2": -1.0}),
    *((lrlib.Parabola, wrong) for wrong in ({"beta": 1.0}, {"initial_rate": 0.0}, {"warmup": 0}, {"max_rate": 0.0})),
    (lrlib.Hypergradient, {"hyper_lr": -1.0}),
    (lrlib.HillClimb, {"step_size": 1.0}),
    (lrlib.PolyakStep, {"c": -1.0}),
    (lrlib.Armijo, {"backtrack": 0.0}),
]


@pytest.mark.parametrize(("kind", "wrong"), BAD)
def test_settings_out_of_range_are_named(kind, wrong):
    (name,) = wrong
    with pytest.raises(ValueError, match=name):
        kind(**wrong)
    with pytest.raises(ValueError, match=name):
        kind().optimizer([{"params": [parameter(1.0)], **wrong}], lr=0.1)


@pytest.mark.parametrize(
    ("make", "name"),
    [
        (lambda: lrlib.Adam(betas=0.9), "betas"),
        (lambda: lrlib.Adam(betas=(0.9,)), "betas"),
        (lambda: lrlib.Lion(betas=(0.9,)), "betas"),
        (lambda: lrlib.SGD(momentum="0.9"), "momentum"),
        (lambda: lrlib.SGD(momentum=[0.9, True]), "momentum"),
        (lambda: lrlib.Parabola(warmup=2.5), "warmup"),
        (lambda: lrlib.SGD().optimizer([parameter(1.0)], lr="0.1"), "lr"),
        (lambda: lrlib.SGD(momentum=lrlib.constant(0.9)).optimizer([parameter(1.0)], lr=0.1), "momentum"),
        (lambda: lrlib.Adam(betas=([0.5, 0.9], 0.999)).optimizer([parameter(1.0)], lr=0.1), r"betas\[0\]"),
    ],
)
def test_settings_of_a_wrong_type_are_named(make, name):
    with pytest.raises(TypeError, match=f"^{name}="):
        make()


@pytest.mark.parametrize("lr", [-0.1, float("nan"), float("inf")])
def test_a_refused_rate_or_group_is_not_added(lr):
    with pytest.raises(ValueError, match="lr"):
        lrlib.Adam().optimizer([parameter(1.0)], lr=lr)
    optimizer = lrlib.Adam().optimizer([parameter(1.0)], lr=0.1)
    with pytest.raises(ValueError, match="lr"):
        optimizer.add_param_group({"params": [parameter(2.0)], "lr": lr})
    assert len(optimizer.param_groups) == 1


@dataclass(frozen=True)
class Clipped(lrlib.Rule):
    """A rule of a reader: descent whose gradient is clipped, replica by replica."""

    def start(self, p):
        return {"clips": torch.zeros_like(p)}

    def move(self, g, p, state, now):
        state["clips"].add_(g.abs() > 1)
        return now["lr"] * g.clamp(-1, 1)


def test_a_rule_of_ones_own():
    theta = parameter(1.0, 2.0)
    optimizer = Clipped().optimizer([theta], lr=0.5)
    for _ in range(2):
        theta.grad = torch.tensor([0.5, -7.0]).double()
        optimizer.step()
    assert theta.tolist() == [0.5, 3.0] and optimizer.state[theta]["clips"].tolist() == [0.0, 2.0]


@every_rule
def test_a_step_leaves_the_gradients_as_they_are(rule):
    theta = parameter(1.0, -2.0, 3.0)
    optimizer = rule.optimizer([theta], lr=0.1)
    for _ in range(2):
        theta.grad = parameter(0.5, 1.0, -1.0).data
        optimizer.step(closure_for(theta)) if optimizer.needs_closure else optimizer.step()
        assert theta.grad.tolist() == [0.5, 1.0, -1.0]


@pytest.mark.parametrize("rule", [rule for rule in RULES if not rule.joint], ids=str)
def test_a_parameter_whose_gradients_begin_late_is_moved_as_one_that_is_new(rule):
    first, late, fresh = parameter(1.0, -1.0), parameter(2.0, 1.0), parameter(2.0, 1.0)
    optimizer, alone = rule.optimizer([first, late], lr=0.03), rule.optimizer([fresh], lr=0.03)
    for t, g in enumerate(gradients(8, 2) + 0.1):
        first.grad, late.grad, fresh.grad = g.clone(), g.clone() if t >= 4 else None, g.clone()
        optimizer.step()
        if t >= 4:
            alone.step()
    assert torch.equal(late, fresh)


@pytest.mark.parametrize("kind", [*TORCH, *([torch.optim.Muon] if hasattr(torch.optim, "Muon") else [])])
def test_defaults_are_those_of_torch(kind):
    theirs = kind([nn.Parameter(torch.ones(1, 1))]).defaults
    rule = getattr(lrlib, kind.__name__)()
    of_vectors = {"eps", "adjust_lr_fn"} if kind.__name__ == "Muon" else set()  # eps is that of AdamW's step
    names = {f.name for f in fields(rule)} & set(theirs) - of_vectors
    assert names and {name: getattr(rule, name) for name in names} == {name: theirs[name] for name in names}


def test_other_defaults_are_those_of_the_sources():
    assert lrlib.Lion().betas == (0.9, 0.99) and lrlib.FTRLProximal().beta == 1 and lrlib.Parabola().beta == 0.9


def test_by_default_parabola_makes_ten_steps_at_a_thousandth_and_then_none_above_ten():
    theta, steps = parameter(0.0), []
    optimizer = lrlib.Parabola().optimizer([theta], lr=1.0)
    for _ in range(11):
        before, theta.grad = theta.item(), torch.ones(1).double()
        optimizer.step()
        steps.append(before - theta.item())
    assert steps == pytest.approx([1e-3] * 10 + [10.0])


def test_by_default_the_hypergradients_rate_gains_a_thousandth_of_the_agreement():
    theta = parameter(0.0)
    optimizer = lrlib.Hypergradient().optimizer([theta], lr=0.1)
    for _ in range(2):
        theta.grad = 2 * torch.ones(1).double()
        optimizer.step()
    assert optimizer.param_groups[0]["applied_lr"] == pytest.approx(0.1 + 1e-3 * 4)


def test_muon_takes_a_kernel_as_a_matrix_with_a_row_for_each_output():
    gradient = torch.randn(4, 3, 2, 2, generator=torch.Generator().manual_seed(0))
    kernel, matrix = nn.Parameter(torch.zeros(4, 3, 2, 2)), nn.Parameter(torch.zeros(4, 12))
    for p in (kernel, matrix):
        p.grad = gradient.view_as(p).clone()
        lrlib.Muon().optimizer([p], lr=1.0).step()
    torch.testing.assert_close(kernel.data.flatten(1), matrix.data)
