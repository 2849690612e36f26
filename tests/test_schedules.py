"""Every schedule: equal to torch's over whole horizons, to its formula, and strict about its arguments."""

import copy
import math
import pickle
import warnings

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.optim import lr_scheduler as torch_lr

import lrlib

RELATIVE = 1e-12

rates = st.floats(1e-6, 10.0)
lengths = st.integers(1, 300)
gammas = st.floats(0.05, 1.0)


def torch_rates(lr, make_scheduler, steps, **sgd):
    """The rates that a torch scheduler applies at updates 0 .. steps - 1."""
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=lr, **sgd)
    scheduler = make_scheduler(optimizer)
    applied = []
    for t in range(steps):
        applied.append(float(optimizer.param_groups[0]["lr"]))
        if t < steps - 1:
            optimizer.step()
            scheduler.step()
    return np.array(applied)


def assert_equal(schedule, expected, scale=0.0):
    """Relative agreement at every step; `scale` is the magnitude whose rounding the reference carries near zero."""
    np.testing.assert_allclose(schedule(np.arange(len(expected))), expected, rtol=RELATIVE, atol=RELATIVE * scale)


@given(lr=rates, step_size=st.integers(1, 50), gamma=gammas)
def test_step_equals_torch(lr, step_size, gamma):
    expected = torch_rates(lr, lambda o: torch_lr.StepLR(o, step_size, gamma), 200)
    assert_equal(lrlib.step(lr, step_size, gamma), expected)


@given(lr=rates, milestones=st.sets(st.integers(1, 190), min_size=1, max_size=6), gamma=gammas)
def test_multistep_equals_torch(lr, milestones, gamma):
    milestones = sorted(milestones)
    expected = torch_rates(lr, lambda o: torch_lr.MultiStepLR(o, milestones, gamma), 200)
    assert_equal(lrlib.multistep(lr, milestones, gamma), expected)


@given(lr=rates, gamma=st.floats(0.9, 1.05))
def test_exponential_equals_torch(lr, gamma):
    assert_equal(lrlib.exponential(lr, gamma), torch_rates(lr, lambda o: torch_lr.ExponentialLR(o, gamma), 300))


@given(lr=rates, total_iters=lengths, power=st.floats(0.3, 4.0))
def test_polynomial_equals_torch_past_the_end_too(lr, total_iters, power):
    expected = torch_rates(lr, lambda o: torch_lr.PolynomialLR(o, total_iters, power), total_iters + 20)
    assert_equal(lrlib.polynomial(lr, total_iters, power), expected, scale=lr)


@given(lr=rates, T_max=lengths, low=st.floats(0.0, 1.0))
def test_cosine_equals_torch_to_the_end(lr, T_max, low):
    eta_min = low * lr
    expected = torch_rates(lr, lambda o: torch_lr.CosineAnnealingLR(o, T_max, eta_min), T_max + 1)
    assert_equal(lrlib.cosine(lr, T_max, eta_min), expected, scale=lr)


def test_cosine_holds_its_last_value_where_torch_rises_again():
    schedule = lrlib.cosine(1.0, T_max=10)
    torch_values = torch_rates(1.0, lambda o: torch_lr.CosineAnnealingLR(o, 10), 21)
    assert schedule(20) == 0.0
    assert torch_values[20] == pytest.approx(1.0)


@given(lr=rates, T_0=st.integers(1, 40), T_mult=st.integers(1, 3), low=st.floats(0.0, 1.0))
def test_cosine_restarts_equal_torch(lr, T_0, T_mult, low):
    eta_min = low * lr
    expected = torch_rates(lr, lambda o: torch_lr.CosineAnnealingWarmRestarts(o, T_0, T_mult, eta_min), 250)
    assert_equal(lrlib.cosine_restarts(lr, T_0, T_mult, eta_min), expected, scale=lr)


@given(T_0=st.integers(1, 20), T_mult=st.integers(1, 3), decay=st.floats(0.3, 1.0))
def test_cosine_restarts_begin_each_cycle_at_the_decayed_peak(T_0, T_mult, decay):
    schedule = lrlib.cosine_restarts(1.0, T_0, T_mult, decay=decay)
    starts = np.cumsum([0, *(T_0 * T_mult**i for i in range(6))])
    np.testing.assert_allclose(schedule(starts), decay ** np.arange(7), rtol=RELATIVE)


@given(
    low=rates,
    height=st.floats(0.0, 10.0),
    up=st.integers(1, 60),
    mode=st.sampled_from(["triangular", "triangular2", "exp_range"]),
    decay=st.floats(0.9, 1.0),
)
def test_cyclic_equals_torch(low, height, up, mode, decay):
    gamma = decay if mode == "exp_range" else 1.0
    high = low + height

    def reference(optimizer):
        return torch_lr.CyclicLR(optimizer, low, high, up, mode=mode, gamma=gamma, cycle_momentum=False)

    assert_equal(lrlib.cyclic(low, high, up, mode, gamma), torch_rates(1.0, reference, 300), scale=high)


@given(
    peak=rates,
    total=st.integers(4, 300),
    pct=st.floats(0.1, 0.9),
    div=st.floats(1.0, 100.0),
    final=st.floats(1.0, 1e5),
    anneal=st.sampled_from(["cos", "linear"]),
)
def test_one_cycle_equals_torch(peak, total, pct, div, final, anneal):
    if pct * total <= 1.01:
        pct = 2.0 / total

    def reference(optimizer):
        return torch_lr.OneCycleLR(
            optimizer,
            peak,
            total_steps=total,
            pct_start=pct,
            div_factor=div,
            final_div_factor=final,
            anneal_strategy=anneal,
            cycle_momentum=False,
        )

    assert_equal(lrlib.one_cycle(peak, total, pct, div, final, anneal), torch_rates(1.0, reference, total), scale=peak)


HORIZON = 20_000  # updates of a whole run


@pytest.mark.parametrize("mode, gamma", [("triangular", 1.0), ("triangular2", 1.0), ("exp_range", 0.9997)])
@pytest.mark.parametrize("up", [10, 999, 2000])
def test_cyclic_equals_torch_over_a_whole_run(mode, gamma, up):
    def reference(optimizer):
        return torch_lr.CyclicLR(optimizer, 1e-3, 6e-3, up, mode=mode, gamma=gamma, cycle_momentum=False)

    assert_equal(lrlib.cyclic(1e-3, 6e-3, up, mode, gamma), torch_rates(1.0, reference, HORIZON), scale=6e-3)


@pytest.mark.parametrize("anneal", ["cos", "linear"])
@pytest.mark.parametrize("pct", [0.1, 0.3, 0.37])
def test_one_cycle_equals_torch_over_a_whole_run(anneal, pct):
    def reference(optimizer):
        return torch_lr.OneCycleLR(
            optimizer, 0.5, total_steps=HORIZON, pct_start=pct, anneal_strategy=anneal, cycle_momentum=False
        )

    schedule = lrlib.one_cycle(0.5, HORIZON, pct, anneal_strategy=anneal)
    assert_equal(schedule, torch_rates(1.0, reference, HORIZON), scale=0.5)


@pytest.mark.parametrize("T_0, T_mult", [(1, 1), (97, 1), (2000, 1), (1, 2), (97, 2), (1, 3)])
def test_cosine_restarts_equal_torch_over_a_whole_run(T_0, T_mult):
    expected = torch_rates(0.3, lambda o: torch_lr.CosineAnnealingWarmRestarts(o, T_0, T_mult, 1e-3), HORIZON)
    assert_equal(lrlib.cosine_restarts(0.3, T_0, T_mult, 1e-3), expected, scale=0.3)


# Where torch, the papers and lrlib differ: each test states both sides.


def test_exp_range_shrinks_the_height_as_torch_and_not_both_bounds_as_the_paper_says():
    gamma, steps = 0.99, np.arange(400)
    code = lrlib.cyclic(0.1, 0.5, 20, "exp_range", gamma)(steps)
    paper = gamma**steps * lrlib.cyclic(0.1, 0.5, 20)(steps)  # "each boundary value declines" (Smith 2017)
    theirs = torch_rates(
        1.0, lambda o: torch_lr.CyclicLR(o, 0.1, 0.5, 20, mode="exp_range", gamma=gamma, cycle_momentum=False), 400
    )
    np.testing.assert_allclose(code, theirs, rtol=1e-11)
    assert code[360] == pytest.approx(0.1) and paper[360] == pytest.approx(0.1 * gamma**360)


def test_torch_overflows_after_1024_halvings_where_triangular2_goes_on():
    with pytest.raises(OverflowError):
        torch_rates(
            1.0, lambda o: torch_lr.CyclicLR(o, 0.1, 0.5, 1, mode="triangular2", cycle_momentum=False), 2 * 1026
        )
    assert lrlib.cyclic(0.1, 0.5, 1, "triangular2")(2 * 1026 + 1) == pytest.approx(0.1)


def test_torch_cyclic_takes_over_the_momentum_unless_told_not_to():
    for momentum in (0.0, 0.99):
        optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=1.0, momentum=momentum)
        torch_lr.CyclicLR(optimizer, 0.1, 0.5, 10)
        assert optimizer.param_groups[0]["momentum"] == 0.9
        optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=1.0, momentum=momentum)
        lrlib.ScheduleLR(optimizer, lrlib.cyclic(0.1, 0.5, 10))
        assert optimizer.param_groups[0]["momentum"] == momentum


@pytest.mark.parametrize("total, rise", [(50, 9), (1000, 300), (HORIZON, 6000)])
def test_the_paper_has_three_straight_phases_where_torch_and_one_cycle_have_two_cosines(total, rise):
    def reference(optimizer, three_phase, anneal):
        return torch_lr.OneCycleLR(
            optimizer,
            0.5,
            total_steps=total,
            pct_start=(rise + 1) / total,
            anneal_strategy=anneal,
            three_phase=three_phase,
            cycle_momentum=False,
        )

    low = 0.5 / 25
    annihilation = lrlib.polynomial(low, total_iters=total - 1 - 2 * rise, end_lr=low / 1e4)
    paper = lrlib.join([lrlib.cyclic(low, 0.5, step_size_up=rise), annihilation], [2 * rise])
    assert_equal(paper, torch_rates(1.0, lambda o: reference(o, True, "linear"), total), scale=0.5)
    two_phases = lrlib.one_cycle(0.5, total, pct_start=(rise + 1) / total)
    assert_equal(two_phases, torch_rates(1.0, lambda o: reference(o, False, "cos"), total), scale=0.5)
    assert two_phases(2 * rise) > 2 * paper(2 * rise)


def test_one_step_past_the_end_torch_one_cycle_goes_below_zero_and_one_cycle_holds():
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=1.0)
    scheduler = torch_lr.OneCycleLR(optimizer, 0.1, total_steps=100, anneal_strategy="linear", cycle_momentum=False)
    for _ in range(100):
        optimizer.step()
        scheduler.step()
    assert optimizer.param_groups[0]["lr"] < 0
    with pytest.raises(ValueError, match="total steps"):
        scheduler.step()
    schedule = lrlib.one_cycle(0.1, 100, anneal_strategy="linear")
    assert schedule(100) == schedule(10_000) == schedule(99) > 0


def test_the_momentum_of_torch_one_cycle_is_a_schedule_of_its_own():
    total, applied = 200, []
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=1.0, momentum=0.9)
    scheduler = torch_lr.OneCycleLR(optimizer, 0.5, total_steps=total)
    for _ in range(total):
        applied.append(optimizer.param_groups[0]["momentum"])
        optimizer.step()
        scheduler.step()
    peak = 0.3 * total - 1

    def opposite(t):
        progress = np.where(t <= peak, t / peak, 1 - (t - peak) / (total - 1 - peak))
        return 0.95 - 0.1 * (1 - np.cos(np.pi * progress)) / 2

    assert_equal(lrlib.Schedule(opposite, "opposite"), np.array(applied))


def test_neither_torch_nor_cosine_restarts_applies_the_lowest_rate_that_the_formula_has_at_the_end_of_a_cycle():
    lowest = 1e-3
    theirs = torch_rates(1.0, lambda o: torch_lr.CosineAnnealingWarmRestarts(o, 10, 1, lowest), 100)
    at_last = lowest + (1.0 - lowest) * (1 + math.cos(math.pi * 0.9)) / 2
    assert theirs.min() == pytest.approx(at_last) and at_last > 20 * lowest
    assert lrlib.cosine_restarts(1.0, 10, 1, lowest)(range(100)).min() == pytest.approx(at_last)
    assert lrlib.cosine(1.0, 10, lowest)(10) == lowest


def test_the_paper_lets_the_bounds_change_from_cycle_to_cycle_and_torch_keeps_them():
    theirs = torch_rates(1.0, lambda o: torch_lr.CosineAnnealingWarmRestarts(o, 10, 1, 0.1), 100)
    starts = np.arange(0, 100, 10)
    np.testing.assert_array_equal(theirs[starts], 1.0)
    decayed = lrlib.cosine_restarts(1.0, 10, 1, 0.1, decay=0.8)
    np.testing.assert_allclose(decayed(starts), 0.8 ** np.arange(10), rtol=RELATIVE)
    np.testing.assert_allclose(decayed(range(100)) / theirs, 0.8 ** np.repeat(np.arange(10), 10), rtol=1e-11)


def test_torch_restarts_late_where_it_is_told_the_epoch_and_its_logarithm_is_rounded_down():
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=1.0)
    scheduler = torch_lr.CosineAnnealingWarmRestarts(optimizer, T_0=1, T_mult=3)
    optimizer.step()
    scheduler.step(121)  # cycles of 1, 3, 9, 27, 81 are over: the sixth begins here
    stepped = torch_rates(1.0, lambda o: torch_lr.CosineAnnealingWarmRestarts(o, T_0=1, T_mult=3), 122)
    assert optimizer.param_groups[0]["lr"] == pytest.approx(0.0, abs=1e-12)
    assert stepped[121] == lrlib.cosine_restarts(1.0, T_0=1, T_mult=3)(121) == 1.0


@given(lr=rates, steps=st.integers(1, 50), start=st.floats(0.01, 1.0))
def test_warmup_equals_torch_linear_chained_with_the_schedule(lr, steps, start):
    def reference(optimizer):
        return torch_lr.ChainedScheduler(
            [torch_lr.LinearLR(optimizer, start, total_iters=steps), torch_lr.StepLR(optimizer, 30, 0.5)]
        )

    assert_equal(lrlib.warmup(lrlib.step(lr, 30, 0.5), steps, start), torch_rates(lr, reference, 100))


@given(lr=rates, boundary=st.integers(1, 40))
def test_join_equals_torch_sequential(lr, boundary):
    def reference(optimizer):
        parts = [torch_lr.ConstantLR(optimizer, 1.0, 1), torch_lr.ExponentialLR(optimizer, 0.9)]
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return torch_lr.SequentialLR(optimizer, parts, milestones=[boundary])

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        expected = torch_rates(lr, reference, 80)
    assert_equal(lrlib.join([lrlib.constant(lr), lrlib.exponential(lr, 0.9)], [boundary]), expected)


@given(t=st.integers(0, 10**6), decay=st.floats(0.0, 10.0), warmup_steps=st.integers(0, 1000))
def test_inverse_schedules_follow_their_formulas(t, decay, warmup_steps):
    assert lrlib.inverse_time(0.3, decay)(t) == pytest.approx(0.3 / (1 + decay * t), rel=RELATIVE)
    tau = t + 1
    if warmup_steps == 0:
        expected = 0.3 / math.sqrt(tau)
    elif tau <= warmup_steps:
        expected = 0.3 * tau / warmup_steps
    else:
        expected = 0.3 * math.sqrt(warmup_steps / tau)
    assert lrlib.inverse_sqrt(0.3, warmup_steps)(t) == pytest.approx(expected, rel=RELATIVE)


@pytest.mark.parametrize(
    "decay, half", [("linear", 0.5), ("cosine", 0.5), ("sqrt", 1 - math.sqrt(0.5))], ids=lambda v: str(v)
)
def test_wsd_rises_holds_and_falls(decay, half):
    schedule = lrlib.wsd(2.0, total_steps=100, warmup_steps=10, decay_steps=20, end_lr=0.2, decay=decay)
    np.testing.assert_allclose(schedule(range(11)), np.linspace(0, 2.0, 11), rtol=RELATIVE)
    np.testing.assert_array_equal(schedule(range(10, 81)), 2.0)
    assert schedule(90) == pytest.approx(0.2 + 1.8 * half, rel=RELATIVE)
    assert (np.diff(schedule(range(80, 101))) < 0).all()
    assert schedule(100) == schedule(10_000) == pytest.approx(0.2, rel=RELATIVE)


PLAIN_DECAYS = [
    lrlib.constant(0.3),
    lrlib.step(0.3, 7, 0.5),
    lrlib.multistep(0.3, [5, 60], 0.5),
    lrlib.exponential(0.3, 0.97),
    lrlib.inverse_time(0.3, 0.1),
    lrlib.inverse_sqrt(0.3),
    lrlib.polynomial(0.3, 80, 2.0, 0.01),
    lrlib.cosine(0.3, 80, 0.01),
]
ALL = [
    *PLAIN_DECAYS,
    lrlib.cosine_restarts(0.3, 10, 2, 0.01, 0.8),
    lrlib.cyclic(0.01, 0.3, 9),
    lrlib.one_cycle(0.3, 80),
    lrlib.wsd(0.3, 80, 10, 30),
    lrlib.warmup(lrlib.cosine(0.3, 80), 10),
    lrlib.join([lrlib.constant(0.3), lrlib.cosine(0.2, 40)], [25]),
    lrlib.scale(lrlib.cosine(0.6, 80), 0.5),
    lrlib.Schedule.from_table(np.linspace(0.3, 0.0, 100)),
]


@pytest.mark.parametrize("schedule", PLAIN_DECAYS, ids=repr)
def test_a_plain_decay_starts_at_lr_never_rises_and_stays_positive(schedule):
    values = schedule(range(200))
    assert values[0] == 0.3
    assert (np.diff(values) <= 0).all()
    assert (values > 0).all()


@pytest.mark.parametrize("schedule", ALL, ids=repr)
def test_a_schedule_is_bounded_vectorised_and_float64(schedule):
    steps = np.arange(240).reshape(4, 60)
    values = schedule(steps)
    assert values.shape == steps.shape and values.dtype == np.float64
    assert (values >= 0).all() and (values <= 0.3 * (1 + RELATIVE)).all()
    assert [schedule(int(t)) for t in steps.ravel()] == values.ravel().tolist()
    assert isinstance(schedule(0), float)


@pytest.mark.parametrize("schedule", [s for s in ALL if s.horizon], ids=repr)
def test_past_its_horizon_a_schedule_holds_its_last_value(schedule):
    assert len(set(schedule(np.arange(schedule.horizon, schedule.horizon + 50)).tolist())) == 1


@pytest.mark.parametrize("schedule", [s for s in ALL if "step(" not in repr(s) and "join" not in repr(s)], ids=repr)
def test_the_smooth_schedules_are_continuous_but_for_restarts(schedule):
    jumps = np.abs(np.diff(schedule(range(200))))
    if "restarts" in repr(schedule):
        jumps = np.delete(jumps, [9, 29, 69, 149])
    assert jumps.max() < 0.3 * 0.3


INVALID = [
    (lambda: lrlib.constant(-0.1), "lr=-0.1"),
    (lambda: lrlib.constant(math.nan), "lr=nan"),
    (lambda: lrlib.constant(math.inf), "lr=inf"),
    (lambda: lrlib.step(0.1, 0), "step_size=0"),
    (lambda: lrlib.step(0.1, 5, gamma=0.0), "gamma=0.0"),
    (lambda: lrlib.multistep(0.1, [5, 3]), r"milestones=\[5, 3\]"),
    (lambda: lrlib.multistep(0.1, [3, 3]), r"milestones=\[3, 3\]"),
    (lambda: lrlib.multistep(0.1, [0]), r"milestones=\[0\]"),
    (lambda: lrlib.multistep(0.1, []), r"milestones=\[\]"),
    (lambda: lrlib.exponential(0.1, -1.0), "gamma=-1.0"),
    (lambda: lrlib.inverse_time(0.1, -1.0), "decay=-1.0"),
    (lambda: lrlib.inverse_sqrt(0.1, -1), "warmup_steps=-1"),
    (lambda: lrlib.polynomial(0.1, 0), "total_iters=0"),
    (lambda: lrlib.polynomial(0.1, 5, power=0.0), "power=0.0"),
    (lambda: lrlib.polynomial(0.1, 5, end_lr=0.2), "end_lr=0.2"),
    (lambda: lrlib.cosine(0.1, 0), "T_max=0"),
    (lambda: lrlib.cosine(0.1, 5, eta_min=-1.0), "eta_min=-1.0"),
    (lambda: lrlib.cosine_restarts(0.1, 0), "T_0=0"),
    (lambda: lrlib.cosine_restarts(0.1, 5, T_mult=0), "T_mult=0"),
    (lambda: lrlib.cosine_restarts(0.1, 5, decay=0.0), "decay=0.0"),
    (lambda: lrlib.cosine_restarts(0.1, 5, decay=1.5), "decay=1.5"),
    (lambda: lrlib.cyclic(0.1, 0.01, 5), "max_lr=0.01"),
    (lambda: lrlib.cyclic(0.1, 1.0, 5, mode="saw"), "mode='saw'"),
    (lambda: lrlib.cyclic(0.1, 1.0, 5, gamma=0.5), "gamma=0.5"),
    (lambda: lrlib.one_cycle(0.1, 10, pct_start=0.1), "pct_start=0.1"),
    (lambda: lrlib.one_cycle(0.1, 10, pct_start=1.0), "pct_start=1.0"),
    (lambda: lrlib.one_cycle(0.1, 10, div_factor=0.5), "div_factor=0.5"),
    (lambda: lrlib.wsd(0.1, 100, 60, 50), "warmup_steps=60"),
    (lambda: lrlib.wsd(0.1, 100, 10, 0), "decay_steps=0"),
    (lambda: lrlib.wsd(0.1, 100, 10, 10, end_lr=0.2), "end_lr=0.2"),
    (lambda: lrlib.wsd(0.1, 100, 10, 10, decay="step"), "decay='step'"),
    (lambda: lrlib.warmup(lrlib.constant(0.1), 0), "steps=0"),
    (lambda: lrlib.warmup(lrlib.cosine(0.1, 100), 101), "steps=101"),
    (lambda: lrlib.warmup(lrlib.constant(0.1), 5, start_factor=1.5), "start_factor=1.5"),
    (lambda: lrlib.join([lrlib.constant(0.1)], [5]), r"boundaries=\[5\]"),
    (lambda: lrlib.join([lrlib.constant(0.1)] * 3, [5, 5]), r"boundaries=\[5, 5\]"),
    (lambda: lrlib.scale(lrlib.constant(0.1), -1.0), "factor=-1.0"),
    (lambda: lrlib.constant(0.1)(-1), "step=-1"),
    (lambda: lrlib.constant(0.1)([3, -1]), r"step=\[3, -1\]"),
    (lambda: lrlib.cyclic(0.1, 0.2, 5)(10**30), "step=10{30}"),
    (lambda: lrlib.Schedule(lambda t: 0.1, "mine")(3), r"formula of mine: returns float64 of shape \(\)"),
    (
        lambda: lrlib.warmup(lrlib.Schedule(lambda t: t[:1], "mine"), 5)([3, 4]),
        r"formula of mine: returns float64 of shape \(1,\)",
    ),
    (lambda: lrlib.Schedule.from_table([]), r"rates=\[\]"),
    (lambda: lrlib.Schedule.from_table([[0.1]]), r"rates=\[\[0.1\]\]"),
    (lambda: lrlib.Schedule.from_table([0.1, -0.1]), r"rates=\[0.1, -0.1\]"),
    (lambda: lrlib.Schedule.from_table([math.nan]), r"rates=\[nan\]"),
]


@pytest.mark.parametrize("build, named", INVALID, ids=[named for _, named in INVALID])
def test_a_bad_value_is_refused_by_name(build, named):
    with pytest.raises(ValueError, match=named + ".*must"):
        build()


@pytest.mark.parametrize(
    "build",
    [
        lambda: lrlib.constant("0.1"),
        lambda: lrlib.constant(True),
        lambda: lrlib.step(0.1, 2.5),
        lambda: lrlib.multistep(0.1, [2.5]),
        lambda: lrlib.constant(0.1)(0.5),
        lambda: lrlib.warmup(0.1, 5),
        lambda: lrlib.join([0.1, 0.2], [5]),
    ],
)
def test_a_wrong_type_is_refused(build):
    with pytest.raises(TypeError, match="must"):
        build()


@settings(max_examples=20)
@given(factor=st.floats(0.0, 10.0))
def test_scale_multiplies_and_keeps_the_horizon(factor):
    scaled = lrlib.scale(lrlib.cosine(0.5, 40), factor)
    np.testing.assert_allclose(scaled(range(60)), factor * lrlib.cosine(0.5, 40)(range(60)), rtol=RELATIVE)
    assert scaled.horizon == 40


def test_a_schedule_prints_the_call_that_makes_it():
    assert repr(lrlib.cosine(0.1, T_max=100)) == "cosine(0.1, T_max=100, eta_min=0.0)"
    namespace = {name: getattr(lrlib, name) for name in lrlib.__all__}
    for schedule in [*ALL[:-1], lrlib.Schedule.from_table([0.1, 0.2])]:
        assert eval(repr(schedule), namespace) == schedule


@pytest.mark.parametrize("schedule", ALL, ids=repr)
def test_a_copy_is_equal_and_gives_the_same_rates(schedule):
    for other in (pickle.loads(pickle.dumps(schedule)), copy.deepcopy(schedule), copy.copy(schedule)):
        assert other == schedule and hash(other) == hash(schedule) and repr(other) == repr(schedule)
        assert (other.horizon, other.warmup_steps) == (schedule.horizon, schedule.warmup_steps)
        np.testing.assert_array_equal(other(range(200)), schedule(range(200)))


def test_schedules_differ_where_an_argument_does_in_the_last_digit_and_so_do_their_texts():
    table = np.linspace(0.3, 0.0, 100)
    others = [
        lrlib.cosine(0.3, 80, 0.01 + 1e-15),
        lrlib.scale(lrlib.cosine(0.6 + 1e-15, 80), 0.5),
        lrlib.Schedule.from_table(np.where(np.arange(100) == 50, table + 1e-15, table)),
    ]
    assert len({*ALL, *others}) == len(set(map(repr, [*ALL, *others]))) == len(ALL) + len(others)
    assert lrlib.constant(0.1) != 0.1


def test_equal_arguments_may_be_given_in_any_way():
    assert lrlib.multistep(1, np.array([2, 5])) == lrlib.multistep(1.0, milestones=[2, 5], gamma=0.1)
    assert lrlib.join([lrlib.constant(1)] * 2, [3]) == lrlib.join((lrlib.constant(1.0),) * 2, boundaries=(3,))


def falling(t):
    return 1 / (1 + t)


def test_a_formula_of_one_s_own_compares_by_its_function():
    mine = lrlib.Schedule(falling, "mine")
    assert mine == lrlib.Schedule(falling, "mine") == pickle.loads(pickle.dumps(mine)) == copy.deepcopy(mine)
    assert mine != lrlib.Schedule(lambda t: 1 / (1 + t), "mine")
    assert lrlib.scale(mine, 2.0) == pickle.loads(pickle.dumps(lrlib.scale(mine, 2.0)))


@pytest.mark.parametrize("schedule", ALL, ids=repr)
def test_no_steps_give_no_rates(schedule):
    assert schedule([]).shape == (0,) and schedule(np.empty((0, 3), dtype=int)).shape == (0, 3)


def test_a_table_is_copied_and_past_its_end_the_last_rate_holds():
    table = np.array([0.1, 0.3, 0.2])
    schedule = lrlib.Schedule.from_table(table)
    table[:] = 0.0
    assert schedule([0, 1, 2, 3, 10**15]).tolist() == [0.1, 0.3, 0.2, 0.2, 0.2]
    assert schedule.horizon == 3


def test_a_formula_may_write_into_its_steps():
    def writing(t):
        t /= 10
        return 0.1 * (1 - t)

    pure, written = lrlib.Schedule(lambda t: 0.1 * (1 - t / 10), "pure"), lrlib.Schedule(writing, "writing")
    for wrap in (lambda s: lrlib.warmup(s, 4), lambda s: lrlib.scale(s, 2.0), lambda s: lrlib.join([s, s], [3])):
        np.testing.assert_allclose(wrap(written)(range(8)), wrap(pure)(range(8)), rtol=1e-12)


@pytest.mark.parametrize("value", [1j, None, "a"], ids=str)
@pytest.mark.parametrize("steps", [3, [1, 2]], ids=str)
def test_a_formula_gives_real_numbers(value, steps):
    with pytest.raises(ValueError, match="formula of mine: returns .*must be real numbers"):
        lrlib.Schedule(lambda t: np.array([value] * len(t)), "mine")(steps)


@pytest.mark.parametrize(
    "make, named",
    [
        (lambda n: lrlib.step(0.1, n), "step_size"),
        (lambda n: lrlib.multistep(0.1, [3, n]), "milestones"),
        (lambda n: lrlib.cosine(0.1, n), "T_max"),
        (lambda n: lrlib.cosine_restarts(0.1, 2, n), "T_mult"),
        (lambda n: lrlib.warmup(lrlib.constant(0.1), n), "steps"),
        (lambda n: lrlib.join([lrlib.constant(0.1), lrlib.constant(0.2)], [n]), "boundaries"),
        (lambda n: lrlib.constant(n), "lr"),
    ],
)
def test_an_integer_that_is_no_float_is_refused_by_name(make, named):
    with pytest.raises(ValueError, match=f"^{named}=.*must be"):
        make(10**400)


def test_a_warm_up_that_a_boundary_cuts_off_is_no_longer_than_that():
    cut = lrlib.join([lrlib.warmup(lrlib.constant(1.0), 100), lrlib.constant(1.0)], [10])
    assert cut.warmup_steps == 10
    assert lrlib.train(lrlib.mlp(64, 4, 10), lrlib.digits(), cut, steps=50).updates == 50


def test_a_rate_of_zero_stays_zero_however_it_grows():
    assert lrlib.exponential(0.0, gamma=2.0)([0, 2000]).tolist() == [0.0, 0.0]
    with pytest.raises(ValueError, match="must be a vector of numbers >= 0"):
        lrlib.Schedule.from_table([0.1, np.inf])


def test_a_rate_of_zero_stays_zero_however_large_its_factor():
    assert lrlib.step(0.0, 1, 2.0)(5000) == 0


def test_no_rate_stays_none_whatever_the_cuts():
    assert lrlib.multistep(0.0, [1, 2, 3], gamma=1e200)([0, 2, 3]).tolist() == [0, 0, 0]


@pytest.mark.parametrize(
    "wrong, error",
    [
        ({"formula": 0.1}, TypeError),
        ({"text": None}, TypeError),
        ({"horizon": -3}, ValueError),
        ({"warmup_steps": "a"}, TypeError),
    ],
)
def test_a_schedule_of_what_does_not_fit_is_refused(wrong, error):
    with pytest.raises(error, match=next(iter(wrong))):
        lrlib.Schedule(**{"formula": lambda t: 0 * t, "text": "none"} | wrong)


def test_the_warm_up_of_a_schedule_is_known_whatever_it_is_made_of():
    plain = lrlib.wsd(1.0, 100, 10, 20)
    made = (plain, lrlib.inverse_sqrt(1.0, 7), lrlib.scale(plain, 2.0), lrlib.warmup(plain, 3), lrlib.warmup(plain, 20))
    assert [schedule.warmup_steps for schedule in made] == [10, 7, 10, 10, 20]
    joined = [lrlib.join([first, plain], [30]) for first in (plain, lrlib.constant(1.0))]
    assert [schedule.warmup_steps for schedule in joined] == [10, 0]
    assert lrlib.warmup(lrlib.cosine(1.0, 30), 30).warmup_steps == 30


def test_restarts_go_on_however_far():
    assert lrlib.cosine_restarts(1.0, T_0=1, T_mult=2)([2**40 - 1, 2**50 - 1]).tolist() == [1.0, 1.0]


@pytest.mark.parametrize(("count", "cut"), [(20, False), (21, True)])
def test_only_a_long_table_is_cut_short_where_it_is_printed(count, cut):
    assert ("..." in repr(lrlib.Schedule.from_table([0.1] * count))) == cut


def test_the_horizon_is_the_length_that_a_schedule_is_planned_for():
    plain = lrlib.polynomial(1.0, total_iters=7)
    made = (
        plain, lrlib.cosine(1.0, T_max=9), lrlib.one_cycle(1.0, total_steps=11), lrlib.wsd(1.0, 13, 1, 2),
        lrlib.warmup(plain, 3), lrlib.scale(plain, 2.0), lrlib.join([plain, plain], [4]),
    )  # fmt: skip
    assert [schedule.horizon for schedule in made] == [7, 9, 11, 13, 7, 7, 11]
    assert lrlib.join([plain, lrlib.constant(1.0)], [4]).horizon is None


def test_a_step_that_float64_skips_is_refused():
    assert lrlib.constant(1.0)(2**53) == 1
    with pytest.raises(ValueError, match="step"):
        lrlib.constant(1.0)(2**53 + 1)
