"""ScheduleLR in plain PyTorch: groups, state, resuming, momentum."""

import copy
import math

import numpy as np
import pytest
import torch
from torch import nn

import lrlib

TWO = [lrlib.cosine(0.1, T_max=20), lrlib.step(0.01, step_size=4)]


def two_groups(optimizer=torch.optim.SGD, **options):
    first, second = nn.Parameter(torch.ones(3)), nn.Parameter(torch.ones(2))
    return optimizer([{"params": [first]}, {"params": [second]}], lr=1.0, **options)


def test_each_group_follows_its_schedule():
    optimizer = two_groups()
    scheduler = lrlib.ScheduleLR(optimizer, TWO)
    for t in range(30):
        assert [group["lr"] for group in optimizer.param_groups] == [s(t) for s in TWO] == scheduler.get_last_lr()
        optimizer.step()
        scheduler.step()


def test_one_schedule_serves_all_groups():
    optimizer = two_groups()
    lrlib.ScheduleLR(optimizer, lrlib.constant(0.3))
    assert [group["lr"] for group in optimizer.param_groups] == [0.3, 0.3]


def test_a_tensor_rate_stays_a_tensor():
    optimizer = torch.optim.SGD([nn.Parameter(torch.ones(1))], lr=torch.tensor(1.0, dtype=torch.float64))
    scheduler = lrlib.ScheduleLR(optimizer, lrlib.exponential(0.5, 0.5))
    rate = optimizer.param_groups[0]["lr"]
    optimizer.step()
    scheduler.step()
    assert optimizer.param_groups[0]["lr"] is rate and rate.item() == 0.25


@pytest.mark.parametrize("optimizer, read", [
    (lambda: two_groups(torch.optim.SGD, momentum=0.5), lambda group: group["momentum"]),
    (lambda: two_groups(torch.optim.Adam), lambda group: group["betas"][0]),
])  # fmt: skip
def test_momentum_follows_its_own_schedule(optimizer, read):
    optimizer, momentum = optimizer(), lrlib.polynomial(0.9, total_iters=10, end_lr=0.8)
    scheduler = lrlib.ScheduleLR(optimizer, lrlib.constant(0.1), momentum=momentum)
    for t in range(12):
        assert [read(group) for group in optimizer.param_groups] == [momentum(t)] * 2
        optimizer.step()
        scheduler.step()


def plain_loop(model, optimizer, scheduler, x, y, steps):
    """A PyTorch loop that knows nothing of lrlib."""
    for _ in range(steps):
        optimizer.zero_grad()
        nn.functional.cross_entropy(model(x), y).backward()
        optimizer.step()
        scheduler.step()


@pytest.mark.parametrize("stop", [1, 7, 19])
def test_resuming_in_the_middle_is_bit_equal(stop, tmp_path):
    x, y = torch.randn(40, 5, generator=torch.Generator().manual_seed(0)), torch.arange(40) % 3

    def start():
        with lrlib.seeded(0):
            model = nn.Sequential(nn.Linear(5, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Linear(8, 3))
        groups = [{"params": model[0].parameters()}, {"params": model[1:].parameters()}]
        optimizer = torch.optim.SGD(groups, lr=1.0, momentum=0.9)
        schedules = [lrlib.warmup(lrlib.cosine(0.1, 20), 5), lrlib.cosine_restarts(0.2, 6)]
        return model, optimizer, lrlib.ScheduleLR(optimizer, schedules)

    whole = start()
    plain_loop(*whole, x, y, 20)
    first = start()
    plain_loop(*first, x, y, stop)
    torch.save([part.state_dict() for part in first], tmp_path / "checkpoint.pt")

    second = start()
    for part, state in zip(second, torch.load(tmp_path / "checkpoint.pt", weights_only=True), strict=True):
        part.load_state_dict(state)
    plain_loop(*second, x, y, 20 - stop)
    assert second[2].get_last_lr() == whole[2].get_last_lr()
    for name, value in whole[0].state_dict().items():
        assert torch.equal(value, second[0].state_dict()[name]), name


def test_a_state_of_another_schedule_is_refused_and_nothing_changes():
    other = lrlib.ScheduleLR(two_groups(), lrlib.constant(0.5)).state_dict()
    optimizer = two_groups()
    scheduler = lrlib.ScheduleLR(optimizer, TWO)
    before = copy.deepcopy(scheduler.state_dict())
    for state in (other, {"last_epoch": 3}):
        with pytest.raises(ValueError, match="must"):
            scheduler.load_state_dict(state)
    assert scheduler.state_dict() == before
    assert [group["lr"] for group in optimizer.param_groups] == [s(0) for s in TWO]


@pytest.mark.parametrize("schedule, error", [
    (0.1, TypeError),
    (lambda t: 0.1, TypeError),
    ([lrlib.constant(0.1)], ValueError),
    ([lrlib.constant(0.1)] * 3, ValueError),
    ([lrlib.constant(0.1), 0.1], TypeError),
    (lrlib.Schedule(lambda t: -np.ones_like(t), "negative"), ValueError),
    (lrlib.Schedule(lambda t: t * math.nan, "nan"), ValueError),
])  # fmt: skip
def test_a_bad_schedule_is_refused_before_the_optimizer_is_touched(schedule, error):
    optimizer = two_groups()
    with pytest.raises(error, match="must"):
        lrlib.ScheduleLR(optimizer, schedule)
    assert [group["lr"] for group in optimizer.param_groups] == [1.0, 1.0]
    assert not any("initial_lr" in group for group in optimizer.param_groups)


def test_momentum_is_refused_where_there_is_none():
    with pytest.raises(ValueError, match="momentum.*Adagrad"):
        lrlib.ScheduleLR(two_groups(torch.optim.Adagrad), TWO, momentum=lrlib.constant(0.9))


def test_not_an_optimizer():
    with pytest.raises(TypeError, match="must be a torch.optim.Optimizer"):
        lrlib.ScheduleLR("sgd", TWO)


def test_a_float32_tensor_rate_loads_its_own_state_of_plain_numbers():
    def start():
        optimizer = torch.optim.SGD([nn.Parameter(torch.ones(1))], lr=torch.tensor(1.0))
        return optimizer, lrlib.ScheduleLR(optimizer, lrlib.exponential(0.1, 0.7))

    optimizer, scheduler = start()
    for _ in range(3):
        optimizer.step()
        scheduler.step()
    state = scheduler.state_dict()
    assert [type(rate) for rate in state["_last_lr"]] == [float]
    other, resumed = start()
    resumed.load_state_dict(state)
    assert other.param_groups[0]["lr"].item() == optimizer.param_groups[0]["lr"].item()
    assert resumed.state_dict() == state


def test_a_group_that_joins_follows_the_one_schedule_and_has_none_of_several():
    for schedule in (lrlib.step(0.1, 1, 0.5), TWO):
        optimizer = two_groups()
        scheduler = lrlib.ScheduleLR(optimizer, schedule)
        state = scheduler.state_dict()
        optimizer.add_param_group({"params": [nn.Parameter(torch.ones(1))], "lr": 0.7})
        with pytest.raises(ValueError, match="group"):
            scheduler.load_state_dict(state)
        optimizer.step()
        if schedule is TWO:
            with pytest.raises(ValueError, match="one per parameter group, 3"):
                scheduler.step()
        else:
            scheduler.step()
            assert [group["lr"] for group in optimizer.param_groups] == [0.05] * 3


def test_a_momentum_that_leaves_its_range_is_refused_when_it_does():
    optimizer = two_groups(momentum=0.5)
    scheduler = lrlib.ScheduleLR(optimizer, TWO, momentum=lrlib.Schedule(lambda t: 0.9 + 0.1 * t, "rising"))
    optimizer.step()
    with pytest.raises(ValueError, match=r"momentum at step 1=1.0: must be in \[0, 1\)"):
        scheduler.step()


def momentum_from_zero(make, joins=False):
    """One weight under the constant gradient 1, whose momentum rises from zero; or a second one that joins later."""
    weights = [nn.Parameter(torch.ones(1)) for _ in range(2)]
    optimizer = make(weights[:1])
    scheduler = lrlib.ScheduleLR(optimizer, lrlib.constant(0.1), momentum=lrlib.warmup(lrlib.constant(0.8), 4))
    for k in range(6):
        if joins and k == 2:
            optimizer.add_param_group({"params": weights[1:], "momentum": 0.0})
        for weight in weights:
            weight.grad = torch.ones(1)
        optimizer.step()
        scheduler.step()
    return [weight.item() for weight in weights]


@pytest.mark.parametrize("momentum", [0.0, 0.8])
def test_a_momentum_may_rise_from_zero(momentum):
    sgd, rule = (
        momentum_from_zero(make)
        for make in (
            lambda weights: torch.optim.SGD(weights, lr=0.1, momentum=momentum),
            lambda weights: lrlib.SGD(momentum=momentum).optimizer(weights, lr=0.1),
        )
    )
    v, theta = 0.0, 1.0
    for beta in (0.0, 0.2, 0.4, 0.6, 0.8, 0.8):
        v = beta * v + 1 if beta else 0.0  # torch remembers nothing while the momentum is zero
        theta -= 0.1 * (v or 1)
    assert sgd == pytest.approx([theta, 1.0], rel=1e-5) and rule == pytest.approx([theta, 1.0], rel=1e-5)


@pytest.mark.parametrize("momentum", [0.0, 0.8])
def test_a_momentum_of_rmsprop_rises_from_zero_also_for_a_group_that_joins(momentum):
    found = momentum_from_zero(lambda weights: torch.optim.RMSprop(weights, lr=0.1, momentum=momentum), joins=True)
    expected = []
    for betas in ((0.0, 0.2, 0.4, 0.6, 0.8, 0.8), (0.0, 0.6, 0.8, 0.8)):
        theta, v, square = 1.0, 0.0, 0.0
        for beta in betas:
            square = 0.99 * square + 0.01
            step = 1 / square**0.5
            v = beta * v + step if beta else 0.0
            theta -= 0.1 * (v or step)
        expected.append(theta)
    assert found == pytest.approx(expected, rel=1e-5)


def test_an_optimizer_with_both_has_its_momentum_set_and_its_betas_left():
    optimizer = lrlib.Muon().optimizer([nn.Parameter(torch.ones(2, 2))], lr=0.1)
    betas = optimizer.param_groups[0]["betas"]
    lrlib.ScheduleLR(optimizer, lrlib.constant(0.1), momentum=lrlib.constant(0.5))
    assert optimizer.param_groups[0]["momentum"] == 0.5 and optimizer.param_groups[0]["betas"] == betas


def test_a_momentum_out_of_range_is_refused_before_anything_is_written():
    optimizer = torch.optim.SGD([nn.Parameter(torch.ones(1))], lr=7.0, momentum=0.9)
    with pytest.raises(ValueError, match=r"momentum at step 0=1.5: must be in \[0, 1\)"):
        lrlib.ScheduleLR(optimizer, lrlib.constant(0.1), momentum=lrlib.constant(1.5))
    assert optimizer.param_groups[0]["lr"] == 7.0 and "initial_lr" not in optimizer.param_groups[0]
    rising = lrlib.Schedule(lambda t: 0.6 * (t + 1), "rising")
    scheduler = lrlib.ScheduleLR(optimizer, lrlib.step(0.1, step_size=1), momentum=rising)
    with pytest.raises(ValueError, match=r"momentum at step 1=1.2"):
        scheduler.step()
    assert scheduler.last_epoch == 0 and optimizer.param_groups[0]["lr"] == 0.1


def test_a_state_at_which_the_momentum_is_out_of_range_is_refused_and_nothing_changes():
    def made(momentum):
        optimizer = torch.optim.SGD([torch.nn.Parameter(torch.ones(1))], lr=1.0, momentum=0.1)
        return optimizer, lrlib.ScheduleLR(optimizer, lrlib.step(0.1, 2, 0.5), momentum=momentum)

    optimizer, scheduler = made(lrlib.constant(0.5))
    for _ in range(5):
        optimizer.step()
        scheduler.step()
    other, rising = made(lrlib.Schedule(lambda t: 0.5 + 0.1 * t, "rising"))
    before = rising.state_dict(), other.param_groups[0]["lr"]
    with pytest.raises(ValueError, match="momentum at step 5=1.0"):
        rising.load_state_dict(scheduler.state_dict())
    assert (rising.state_dict(), other.param_groups[0]["lr"]) == before


def test_a_scheduled_momentum_leaves_the_other_beta():
    optimizer = two_groups(torch.optim.Adam, betas=(0.5, 0.98))
    lrlib.ScheduleLR(optimizer, lrlib.constant(0.1), momentum=lrlib.constant(0.9))
    assert [group["betas"] for group in optimizer.param_groups] == [(0.9, 0.98)] * 2


def test_a_scheduled_momentum_adds_nothing_to_the_state_of_adam():
    weight = nn.Parameter(torch.ones(1))
    optimizer = torch.optim.Adam([weight])
    scheduler = lrlib.ScheduleLR(optimizer, lrlib.constant(0.1), momentum=lrlib.constant(0.9))
    weight.grad = torch.ones(1)
    optimizer.step()
    before = set(optimizer.state[weight])
    scheduler.step()
    assert set(optimizer.state[weight]) == before


def test_groups_to_which_torch_gives_one_tensor_as_their_rate_have_rates_of_their_own():
    first, second = nn.Parameter(torch.ones(1)), nn.Parameter(torch.ones(1))
    optimizer = torch.optim.SGD([{"params": [first]}, {"params": [second]}], lr=torch.tensor(1.0))
    rate = optimizer.param_groups[0]["lr"]
    lrlib.ScheduleLR(optimizer, [lrlib.constant(0.1), lrlib.constant(0.2)])
    assert [group["lr"].item() for group in optimizer.param_groups] == pytest.approx([0.1, 0.2])
    assert optimizer.param_groups[0]["lr"] is rate
