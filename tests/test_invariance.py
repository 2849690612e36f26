"""Scale invariance: the lemma on real networks, and weight decay turned into a growing rate, equal in float64."""

import copy
import math
import pickle
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn
from torch.nn import functional as F

import lrlib
from lrlib.invariance import (
    equivalent_schedule,
    exponential_equivalent,
    is_scale_invariant,
    normalised_weights,
    radial_cosine,
    rescale,
    scaling_error,
    set_norm_eps,
    shift_momentum,
    tapered_exponential,
)

LR, DECAY, MOMENTUM, STEPS = 0.05, 1e-3, 0.9, 1200
DATA = lrlib.digits()


def network(norm, seed=0, eps=1e-300):
    """A small normalised network in float64."""
    with lrlib.seeded(seed):
        if norm == "instance":
            model = nn.Sequential(
                nn.Conv2d(1, 4, 3, bias=False), nn.InstanceNorm2d(4, affine=True), nn.ReLU(), nn.Flatten(),
                nn.Linear(144, 10),
            )  # fmt: skip
        elif norm == "group":
            model = lrlib.mlp(64, 32, 32, 10, norm="layer", activation="tanh")
            model = nn.Sequential(*[nn.GroupNorm(4, 32) if isinstance(m, nn.LayerNorm) else m for m in model])
        else:
            model = lrlib.mlp(64, 32, 32, 10, norm=norm, activation="tanh")
    set_norm_eps(model.double(), eps)
    model.register_forward_pre_hook(lambda module, inputs: (inputs[0].double(),))
    return model


def optimizer_of(model, weight_decay, momentum=MOMENTUM):
    """SGD with the scale-invariant weights first; the others keep a decay of their own in every run."""
    weights = normalised_weights(model)
    others = [p for p in model.parameters() if all(p is not w for w in weights)]
    groups = [{"params": weights, "weight_decay": weight_decay}, {"params": others, "weight_decay": 1e-4}]
    return torch.optim.SGD(groups, lr=1.0, momentum=momentum)


def losses(norm, schedule, weight_decay, *, momentum=MOMENTUM, initial=0.0, steps=STEPS, callbacks=(), **options):
    model = network(norm, **options)
    optimizer = optimizer_of(model, weight_decay, momentum)
    shift_momentum(optimizer, initial)
    history = lrlib.train(
        model, DATA, [schedule, lrlib.constant(LR)], steps=steps, optimizer=optimizer, callbacks=callbacks
    )
    return history.loss


NORMS = ("batch", "group", "layer", "instance")


@pytest.mark.parametrize("norm", NORMS)
def test_weight_decay_equals_an_exponential_rate(norm):
    same = exponential_equivalent(LR, DECAY, MOMENTUM)
    decayed = losses(norm, lrlib.constant(LR), DECAY)
    grown = losses(norm, same.schedule, 0.0, initial=same.initial_momentum)
    assert len(grown) == STEPS and decayed[-1] < 0.1 * decayed[0]
    np.testing.assert_allclose(grown, decayed, rtol=0, atol=1e-10)


def test_without_the_initial_momentum_the_runs_differ():
    same = exponential_equivalent(LR, DECAY, MOMENTUM)
    decayed = losses("layer", lrlib.constant(LR), DECAY, steps=100)
    assert np.abs(losses("layer", same.schedule, 0.0, steps=100) - decayed).max() > 1e-5


def test_eps_breaks_the_equality():
    same = exponential_equivalent(LR, DECAY, MOMENTUM)
    decayed = losses("batch", lrlib.constant(LR), DECAY, steps=200, eps=1e-5)
    grown = losses("batch", same.schedule, 0.0, initial=same.initial_momentum, steps=200, eps=1e-5)
    assert 1e-9 < np.abs(grown - decayed).max() < 1e-2


def test_without_momentum():
    same = exponential_equivalent(LR, DECAY, 0.0)
    assert same.schedule(7) == pytest.approx(LR * (1 - LR * DECAY) ** -15, rel=1e-14)
    decayed = losses("batch", lrlib.constant(LR), DECAY, momentum=0.0)
    np.testing.assert_allclose(losses("batch", same.schedule, 0.0, momentum=0.0), decayed, rtol=0, atol=1e-10)


MILESTONES, GAMMA = [400, 800], 0.1


def test_step_decay_equals_the_tapered_exponential_across_two_phase_changes():
    same = tapered_exponential(LR, MILESTONES, GAMMA, DECAY, MOMENTUM)
    decayed = losses("batch", lrlib.multistep(LR, MILESTONES, GAMMA), DECAY)
    options = {"initial": same.initial_momentum}
    tapered = losses("batch", same.schedule, 0.0, callbacks=[same.correct], **options)
    np.testing.assert_allclose(tapered, decayed, rtol=0, atol=1e-10)
    uncorrected = losses("batch", same.schedule, 0.0, **options)
    np.testing.assert_array_equal(uncorrected[:401], tapered[:401])
    assert np.abs(uncorrected - decayed).max() > 1e-8


def rayleigh(theta):
    """A scale-invariant loss of a vector."""
    h = torch.linspace(0.1, 2.0, len(theta), dtype=torch.float64)
    return (h * theta**2).sum() / (theta**2).sum()


def directions(schedule, weight_decay, momentum, steps, initial=0.0, correct=None):
    theta = nn.Parameter(torch.linspace(1, 2, 6, dtype=torch.float64))
    optimizer = torch.optim.SGD([theta], lr=1.0, momentum=momentum, weight_decay=weight_decay)
    shift_momentum(optimizer, initial)
    scheduler = lrlib.ScheduleLR(optimizer, schedule)
    path = []
    for t in range(steps):
        optimizer.zero_grad()
        rayleigh(theta).backward()
        optimizer.step()
        scheduler.step()
        if correct:
            correct(SimpleNamespace(step=t + 1, optimizer=optimizer))
        path.append((theta / theta.norm()).detach().numpy().copy())
    return np.array(path)


cases = {"lr": st.floats(1e-3, 1.0), "share": st.floats(0.0, 0.95), "momentum": st.floats(0.0, 0.9)}


def decay_of(lr, share, momentum):
    """A weight decay at `share` of its limit."""
    return share * (1 - math.sqrt(momentum)) ** 2 / lr


@given(**cases)
def test_any_admissible_setting(lr, share, momentum):
    decay = decay_of(lr, share, momentum)
    same = exponential_equivalent(lr, decay, momentum)
    assert same.alpha**2 - (1 + momentum - decay * lr) * same.alpha + momentum == pytest.approx(0, abs=1e-14)
    assert math.sqrt(momentum) <= same.alpha <= 1 and same.growth == pytest.approx(same.alpha**-2)
    steps = 60
    np.testing.assert_allclose(
        directions(same.schedule, 0.0, momentum, steps, same.initial_momentum),
        directions(lrlib.constant(lr), decay, momentum, steps),
        atol=1e-9,
    )


@given(**cases, gamma=st.floats(0.05, 1.0))
def test_any_admissible_step_decay(lr, share, momentum, gamma):
    decay, milestones = decay_of(lr, share, momentum), [10, 25]
    same = tapered_exponential(lr, milestones, gamma, decay, momentum)
    assert same.schedule(9) * gamma / (same.alphas[0] * same.alphas[1]) == pytest.approx(same.schedule(10), rel=1e-12)
    np.testing.assert_allclose(
        directions(same.schedule, 0.0, momentum, 40, same.initial_momentum, same.correct),
        directions(lrlib.multistep(lr, milestones, gamma), decay, momentum, 40),
        atol=1e-9,
    )


@pytest.mark.parametrize("schedule", [
    lrlib.cosine(0.4, T_max=60),
    lrlib.warmup(lrlib.cyclic(0.1, 0.5, step_size_up=7), steps=20),
    lrlib.multistep(0.4, [20, 40], gamma=0.1),
], ids=repr)  # fmt: skip
def test_any_schedule_without_touching_the_momentum(schedule):
    same = equivalent_schedule(schedule, weight_decay=1e-2, momentum=0.9, total_steps=60)
    np.testing.assert_allclose(directions(same, 0.0, 0.9, 60), directions(schedule, 1e-2, 0.9, 60), atol=1e-12)


def test_under_a_constant_rate_the_equivalent_schedule_becomes_exponential():
    table = equivalent_schedule(lrlib.constant(0.1), 5e-4, 0.9, total_steps=1000)(range(1000))
    growth = exponential_equivalent(0.1, 5e-4, 0.9).growth
    assert table[-1] / table[-2] == pytest.approx(growth, rel=1e-12)
    assert table[1] / table[0] < 1 + 0.2 * (growth - 1)


@pytest.mark.parametrize("make", [
    lambda lr: exponential_equivalent(lr, 5e-4, 0.9).schedule,
    lambda lr: tapered_exponential(lr, [10, 20], 0.1, 5e-4, 0.9).schedule,
    lambda lr: equivalent_schedule(lrlib.cosine(lr, 30), 5e-4, 0.9, 30),
])  # fmt: skip
def test_the_schedules_pickle_copy_and_compare(make):
    schedule = make(0.1)
    for other in (make(0.1), pickle.loads(pickle.dumps(schedule)), copy.deepcopy(schedule)):
        assert other == schedule and hash(other) == hash(schedule) and repr(other) == repr(schedule)
        np.testing.assert_array_equal(other(range(40)), schedule(range(40)))
    assert make(0.1 + 1e-16) != schedule and repr(make(0.1 + 1e-16)) != repr(schedule)


def test_growth_of_the_source():
    same = exponential_equivalent(0.1, 5e-4, 0.9)
    assert same.growth == pytest.approx(1.0010053, abs=1e-7)
    assert same.growth**391 == pytest.approx(1.48123, abs=1e-5)


def test_no_decay_changes_nothing():
    same = exponential_equivalent(0.1, 0.0, 0.9)
    assert (same.alpha, same.growth, same.initial_momentum) == (1.0, 1.0, 0.0)
    np.testing.assert_array_equal(same.schedule(range(5)), np.full(5, 0.1))


def test_the_limit_of_the_condition_is_included():
    momentum = 0.25
    same = exponential_equivalent(1.0, (1 - math.sqrt(momentum)) ** 2, momentum)
    assert same.alpha == pytest.approx(math.sqrt(momentum))


@pytest.mark.parametrize("arguments, words", [
    ((0.0, 1e-3, 0.9), "lr=0.0"),
    ((-0.1, 1e-3, 0.9), "lr=-0.1"),
    ((math.inf, 1e-3, 0.9), "lr=inf"),
    ((0.1, -1e-3, 0.9), "weight_decay=-0.001"),
    ((0.1, 1e-3, 1.0), "momentum=1.0"),
    ((0.1, 1e-3, -0.1), "momentum=-0.1"),
    ((0.1, 0.1, 0.9), r"weight_decay \* lr = 0.01: must be <= \(1 - sqrt\(momentum\)\)\*\*2 = 0.0026\d+, .*complex"),
    ((1.0, 5.0, 0.9), "must be <= .*not positive"),
    ((0.5, 2.0, 0.0), "weight_decay \\* lr = 1: must be < .* = 1, .*not positive"),
])  # fmt: skip
def test_invalid_settings_are_refused(arguments, words):
    with pytest.raises(ValueError, match=words):
        exponential_equivalent(*arguments)
    with pytest.raises(ValueError, match=words):
        tapered_exponential(arguments[0], [10], 0.5, *arguments[1:])


def test_a_later_phase_may_break_the_condition():
    with pytest.raises(ValueError, match=r"weight_decay \* lr = 0.01"):
        tapered_exponential(0.01, [5], 10.0, 0.1, 0.9)


@pytest.mark.parametrize("milestones, gamma", [([], 0.1), ([5, 5], 0.1), ([0], 0.1), ([5], 0.0)])
def test_invalid_phases_are_refused(milestones, gamma):
    with pytest.raises(ValueError, match="milestones|gamma"):
        tapered_exponential(0.1, milestones, gamma, 5e-4, 0.9)


def test_an_equivalent_schedule_that_turns_the_weights_round_is_refused():
    with pytest.raises(ValueError, match="is 2 at step 0, must be < 1"):
        equivalent_schedule(lrlib.constant(2.0), weight_decay=1.0, momentum=0.0, total_steps=3)
    for rate in (-0.1, math.nan, math.inf):
        with pytest.raises(ValueError, match="must have finite rates >= 0 in its first 3 steps"):
            bad = lrlib.Schedule(lambda t, rate=rate: np.where(t < 1, 0.1, rate), (lrlib.constant, rate))
            equivalent_schedule(bad, weight_decay=0.0, momentum=0.0, total_steps=3)
    with pytest.raises(TypeError, match="schedule"):
        equivalent_schedule(0.1, weight_decay=1.0, momentum=0.0, total_steps=3)


def test_a_rate_past_the_end_of_float64_is_refused_when_it_is_applied():
    same = exponential_equivalent(0.5, 1.0, 0.0)
    assert same.schedule(2000) == math.inf
    with pytest.raises(ValueError, match="must be finite"):
        directions(lrlib.Schedule(lambda t: same.schedule((t + 2000).astype(int)), "late"), 0.0, 0.0, 1)


def test_shift_momentum_acts_on_the_first_group_only():
    first, second = nn.Parameter(torch.full((2,), 3.0)), nn.Parameter(torch.ones(2))
    optimizer = torch.optim.SGD([{"params": [first]}, {"params": [second]}], lr=0.1, momentum=0.5)
    shift_momentum(optimizer, -2.0)
    shift_momentum(optimizer, 1.0)
    torch.testing.assert_close(optimizer.state[first]["momentum_buffer"], torch.full((2,), -3.0))
    assert second not in optimizer.state
    first.grad, second.grad = torch.ones(2), torch.ones(2)
    optimizer.step()
    torch.testing.assert_close(first.data, torch.full((2,), 3.0 - 0.1 * (0.5 * -3.0 + 1.0)))


@pytest.mark.parametrize("function", [shift_momentum, rescale])
def test_only_plain_sgd_is_changed(function):
    weight = nn.Parameter(torch.ones(1))
    with pytest.raises(TypeError, match="Adam: must be a torch.optim.SGD"):
        function(torch.optim.Adam([weight]), 1.0)
    with pytest.raises(ValueError, match="nesterov=True"):
        function(torch.optim.SGD([weight], lr=0.1, momentum=0.9, nesterov=True), 1.0)
    with pytest.raises(ValueError, match="factor"):
        function(torch.optim.SGD([weight], lr=0.1), math.nan)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_rescaling_by_a_power_of_two_changes_no_bit(dtype):
    def run(every):
        model = network("batch").to(dtype)
        set_norm_eps(model, 1e-300)
        optimizer, path = optimizer_of(model, 0.0), []
        exponent = 0
        for t in range(60):
            if every and t and t % every == 0:
                rescale(optimizer, 0.25)
                exponent += 1
            optimizer.param_groups[0]["lr"] = 0.05 * 1.01**t * 16.0**-exponent
            optimizer.param_groups[1]["lr"] = 0.05
            optimizer.zero_grad()
            x = DATA.x_train[:64].to(dtype)
            loss = F.cross_entropy(nn.Sequential.forward(model, x), DATA.y_train[:64])
            loss.backward()
            optimizer.step()
            path.append(loss.item())
        return path

    assert run(every=7) == run(every=None)


def loss_of(model):
    x, y = DATA.x_train[:50], DATA.y_train[:50]
    return lambda: F.cross_entropy(model(x), y)


@pytest.mark.parametrize("norm", NORMS)
def test_the_lemma_on_networks(norm):
    model = network(norm)
    loss, weights = loss_of(model), normalised_weights(model)
    for parameters in (weights, *weights):
        assert abs(radial_cosine(loss, parameters)) < 1e-12
        assert max(scaling_error(loss, parameters, 10.0**p) for p in range(-6, 7, 3)) < 1e-12
        assert is_scale_invariant(loss, parameters)
    head = [model[-1].weight, model[-1].bias]
    assert not is_scale_invariant(loss, head) and scaling_error(loss, head, 10.0) > 0.1


def test_residual_weights_are_invariant_together_not_alone():
    with lrlib.seeded(0):
        model = lrlib.PreResNet(8, 4, in_channels=1).double()
    set_norm_eps(model, 1e-300)
    model.register_forward_pre_hook(lambda module, inputs: (inputs[0].double(),))
    loss = loss_of(model)
    assert is_scale_invariant(loss, normalised_weights(model))
    assert is_scale_invariant(loss, model.blocks[1].conv1.weight)
    assert not is_scale_invariant(loss, model.stem.weight)


def test_checks_restore_the_parameters():
    model = network("batch")
    before = [p.detach().clone() for p in model.parameters()]
    loss, weights = loss_of(model), normalised_weights(model)
    scaling_error(loss, weights, 1e6)
    is_scale_invariant(loss, weights)
    assert all(torch.equal(p, q) for p, q in zip(model.parameters(), before, strict=True))
    assert all(p.grad is None for p in model.parameters())


def test_bad_parameters_are_refused():
    for parameters in ([], [torch.ones(2)], [3.0]):
        with pytest.raises(ValueError, match="parameters"):
            radial_cosine(lambda: torch.ones(()), parameters)
    with pytest.raises(ValueError, match="factor"):
        scaling_error(lambda: torch.ones(()), torch.ones(1, requires_grad=True), 0.0)


def test_eps_of_every_kind_of_norm_is_set():
    model = nn.Sequential(nn.BatchNorm1d(4), nn.InstanceNorm1d(4), nn.GroupNorm(2, 4), nn.LayerNorm(4), nn.RMSNorm(4))
    set_norm_eps(model, 1e-300)
    assert [norm.eps for norm in model] == [1e-300] * 5


def test_a_tied_weight_counts_once_and_one_without_a_gradient_as_zero():
    w = torch.tensor([3.0, 4.0], dtype=torch.float64, requires_grad=True)
    unused = torch.ones(2, dtype=torch.float64, requires_grad=True)
    for function in (lambda p: radial_cosine(lambda: w[0] / w.norm(), p), lambda p: scaling_error(w.norm, p, 10.0)):
        assert function([w, w]) == function([w])
    assert scaling_error(lambda: w[0] / w.norm(), [w, w], 10.0) < 1e-14
    cosine = radial_cosine(lambda: w[0] ** 2, [w, unused])
    assert cosine == pytest.approx(18 / (6 * math.sqrt(27)))
    model = nn.Sequential(nn.Linear(8, 8), nn.Linear(8, 8), nn.Linear(8, 2))
    model[1].weight = model[0].weight
    assert [id(p) for p in normalised_weights(model)] == [id(model[0].weight)]


def test_the_head_is_not_a_normalised_weight():
    model = lrlib.conv_net(width=4)
    assert [w.ndim for w in normalised_weights(model)] == [4, 4, 4]
    with pytest.raises(ValueError, match="head"):
        normalised_weights(nn.Sequential(nn.Linear(2, 2)))


def test_the_scaling_error_of_a_quadratic_is_the_square_of_the_factor_less_one():
    w = torch.tensor([3.0, 4.0], dtype=torch.float64, requires_grad=True)
    assert scaling_error(lambda: w.square().sum(), w, 10.0) == pytest.approx(99.0)


def test_invariance_is_judged_relative_to_the_loss_and_in_both_directions():
    w = torch.tensor([3.0, 4.0], dtype=torch.float64, requires_grad=True)
    assert not is_scale_invariant(lambda: 1e-12 * w.norm(), w)
    assert is_scale_invariant(lambda: 1e12 * w[0] / w.norm(), w)
    assert not is_scale_invariant(lambda: w.norm().clamp(max=5.0), w)
    assert not is_scale_invariant(lambda: w.norm().clamp(min=5.0), w)


def test_an_equivalent_schedule_that_stops_the_weights_is_refused_and_has_the_length_of_its_run():
    with pytest.raises(ValueError, match="is 1 at step 0, must be < 1"):
        equivalent_schedule(lrlib.constant(1.0), weight_decay=1.0, momentum=0.0, total_steps=3)
    assert equivalent_schedule(lrlib.constant(0.1), weight_decay=1.0, momentum=0.0, total_steps=3).horizon == 3


@pytest.mark.parametrize("function", [shift_momentum, rescale])
def test_dampening_is_refused(function):
    with pytest.raises(ValueError, match="dampening=0.5"):
        function(torch.optim.SGD([nn.Parameter(torch.ones(1))], lr=0.1, momentum=0.9, dampening=0.5), 1.0)
