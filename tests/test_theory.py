"""The bound on the last iterate: closed forms, brute force, and convex problems that must stay below it."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import lrlib

tables = st.lists(st.floats(1e-3, 1.0), min_size=1, max_size=30)


def harmonic(n):
    return sum(1 / k for k in range(1, n + 1))


def by_the_formula(rates, D, G):
    """The bound for given rates, the last one that of the update that is not made, term by term."""
    T = len(rates) - 1
    S, Q = (lambda k, p=p: sum(rate**p for rate in rates[k:]) for p in (1, 2))
    inner = sum(rates[k] / S(k + 1) * Q(k) / S(k) for k in range(T))
    return D**2 / (2 * S(0)) + G**2 / 2 * (Q(0) / S(0) + inner)


@pytest.mark.parametrize("n", [1, 2, 7, 400])
def test_terms_of_equal_and_of_falling_rates_have_closed_forms(n):
    np.testing.assert_allclose(lrlib.bound_terms(np.full(n, 0.3)), (0.3 * n, 0.3 * (1 + harmonic(n - 1))))
    falling = np.arange(n, 0, -1) / n
    np.testing.assert_allclose(lrlib.bound_terms(falling), ((n + 1) / 2, 2 + (2 * harmonic(n - 1) - 1) / n))


@settings(max_examples=50)
@given(table=tables, last=st.floats(1e-3, 1.0), D=st.floats(0.1, 10), G=st.floats(0.1, 10))
def test_bound_is_the_formula_at_the_best_last_rate(table, last, D, G):
    S, C = lrlib.bound_terms([*table, last])
    assert math.isclose(D**2 / (2 * S) + G**2 * C / 2, by_the_formula([*table, last], D, G), rel_tol=1e-12)
    bound = lrlib.last_iterate_bound(lrlib.Schedule.from_table(table), len(table), D, G)
    tried = np.geomspace(1e-6, 100 * max(1, D / G), 400)
    least = min(by_the_formula([*table, w], D, G) for w in tried)
    assert least * 0.98 < bound <= least * (1 + 1e-12)


@pytest.mark.parametrize("name", lrlib.SHAPES)
def test_bound_is_lowest_at_the_predicted_peak(name):
    D, G, T = 3.0, 0.5, 200
    shape = lrlib.SHAPES[name](0.7, T)

    def bound(peak):
        return lrlib.last_iterate_bound(lrlib.scale(shape, peak / shape(np.arange(T)).max()), T, D, G)

    peak = lrlib.predicted_peak(shape, T, D, G)
    for factor in (0.5, 0.97, 1.03, 2.0):
        assert bound(peak * factor) > bound(peak)
    assert math.isclose(peak, lrlib.predicted_peak(lrlib.scale(shape, 0.1), T) * D / G, rel_tol=1e-7)


def test_a_run_that_does_not_move_is_bounded_by_distance_times_gradient():
    assert math.isclose(lrlib.last_iterate_bound(lrlib.constant(0.0), 10, 3.0, 2.0), 6.0, rel_tol=1e-9)
    moved = lrlib.last_iterate_bound(lrlib.Schedule.from_table([0.1, 0.0, 0.0]), 3)
    assert math.isclose(moved, lrlib.last_iterate_bound(lrlib.constant(0.1), 1), rel_tol=1e-9)


def test_linear_decay_is_within_one_percent_of_the_best_schedule():
    def best(schedule):
        return lrlib.last_iterate_bound(lrlib.scale(schedule, lrlib.predicted_peak(schedule, 400)), 400)

    linear = best(lrlib.polynomial(1.0, total_iters=400))
    assert 2 / math.sqrt(401) < linear < 2.02 / math.sqrt(401)
    rng = np.random.default_rng(0)
    for _ in range(20):
        bent = lrlib.Schedule.from_table((1 - np.arange(400) / 400) * np.exp(0.3 * rng.standard_normal(400)))
        assert best(bent) > linear


def absolute_errors(seed):
    """The mean absolute error over 20 examples: its value, and a gradient of one example or of all."""
    rng = np.random.default_rng(seed)
    A, minimum = rng.standard_normal((20, 5)), rng.standard_normal(5)
    A /= np.linalg.norm(A, axis=1, keepdims=True)

    def gradient(theta, rows):
        return np.mean(np.sign(A[rows] @ (theta - minimum))[:, None] * A[rows], axis=0)

    return lambda theta: np.abs(A @ (theta - minimum)).mean(), gradient, minimum


@pytest.mark.parametrize("name", ["constant", "linear", "cosine", "1/√t", "restarts", "digit"])
def test_a_convex_problem_stays_below_its_bound(name):
    T, rng = 60, np.random.default_rng(1)
    for seed, times in [(0, 0.3), (1, 1.0), (2, 3.0)]:
        loss, gradient, minimum = absolute_errors(seed)
        D = np.linalg.norm(minimum)
        schedule = lrlib.scale(
            lrlib.SHAPES[name](1.0, T), times * lrlib.predicted_peak(lrlib.SHAPES[name](1.0, T), T, D)
        )
        bound = lrlib.last_iterate_bound(schedule, T, D)
        ends = []
        for chosen in [np.arange(20)[None].repeat(T, 0), *rng.integers(20, size=(30, T, 1))]:
            theta = np.zeros(5)
            for t, rows in enumerate(chosen):
                theta = theta - schedule(t) * gradient(theta, rows)
            ends.append(loss(theta))
        assert ends[0] <= bound and np.mean(ends[1:]) <= bound


def test_the_highest_coordinate_comes_within_a_factor_of_three():
    """A bound far above every problem would say little; here L is the largest |θ_i| of T + 1, all 1 at the start."""
    T = 100
    peak = lrlib.predicted_peak(lrlib.constant(1.0), T, math.sqrt(T + 1))
    theta = np.ones(T + 1)
    for _ in range(T):
        theta[np.abs(theta).argmax()] -= peak * np.sign(theta[np.abs(theta).argmax()])
    bound = lrlib.last_iterate_bound(lrlib.constant(peak), T, math.sqrt(T + 1))
    assert bound / 3 < np.abs(theta).max() <= bound


@pytest.mark.parametrize(
    ("call", "named"),
    [
        (lambda: lrlib.bound_terms([]), "rates"),
        (lambda: lrlib.bound_terms([1.0, 0.0]), "rates"),
        (lambda: lrlib.bound_terms([-1.0, 1.0]), "rates"),
        (lambda: lrlib.bound_terms([[1.0]]), "rates"),
        (lambda: lrlib.bound_terms([math.nan, 1.0]), "rates"),
        (lambda: lrlib.last_iterate_bound(lrlib.constant(0.1), 0), "steps"),
        (lambda: lrlib.last_iterate_bound(lrlib.constant(0.1), 5, distance=0), "distance"),
        (lambda: lrlib.last_iterate_bound(lrlib.constant(0.1), 5, gradient=math.inf), "gradient"),
        (lambda: lrlib.last_iterate_bound(lrlib.Schedule(lambda t: -t, "falling"), 5), "schedule"),
        (lambda: lrlib.predicted_peak(lrlib.constant(0.0), 5), "schedule"),
        (lambda: lrlib.predicted_peak(lrlib.exponential(1.0, 1e300), 5), "schedule"),
    ],
)
def test_bad_arguments_are_named(call, named):
    with np.errstate(over="ignore"), pytest.raises(ValueError, match=f"^{named}="):
        call()


def test_a_number_is_no_schedule():
    with pytest.raises(TypeError, match="^schedule=0.1"):
        lrlib.last_iterate_bound(0.1, 5)


def test_the_last_rate_is_looked_for_far_above_the_largest():
    rates, gradient = [1e-3] * 8, 1e-3
    least = min(by_the_formula([*rates, last], 1.0, gradient) for last in np.geomspace(1e-6, 1e4, 2000))
    assert lrlib.last_iterate_bound(lrlib.constant(1e-3), 8, 1.0, gradient) == pytest.approx(least, rel=1e-4)


def test_the_predicted_peak_of_a_single_update_has_a_closed_form():
    peak = lrlib.predicted_peak(lrlib.constant(0.1), 1, 3.0, 2.0)
    assert peak == pytest.approx(1.5 / math.sqrt(4 + 4 * math.sqrt(2)), rel=1e-6)
