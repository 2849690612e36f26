"""Summaries and intervals, against SciPy and by coverage."""

import numpy as np
import pytest
from scipy import stats as scipy_stats

from lrlib import correlation, cross_tuned, holm, paired, summary, vertex


def test_summary_is_the_sample_mean_and_deviation():
    values = [0.3, 0.1, 0.7, 0.4]
    got = summary(values)
    assert (got.mean, got.std, got.n) == (pytest.approx(np.mean(values)), pytest.approx(np.std(values, ddof=1)), 4)
    assert f"{got:.1%}" == "37.5% ± 25.0% (n = 4)"


def test_paired_interval_is_student_s():
    rng = np.random.default_rng(0)
    a, b = rng.normal(1, 1, 12), rng.normal(0, 1, 12)
    got, expected = paired(a, b, 0.9), scipy_stats.ttest_rel(a, b).confidence_interval(0.9)
    assert (got.low, got.high) == (pytest.approx(expected.low), pytest.approx(expected.high))


def test_paired_interval_covers_the_truth_as_often_as_it_says():
    rng = np.random.default_rng(1)
    hits = 0
    for _ in range(1000):
        seed_effect = rng.normal(0, 5, 10)
        got = paired(seed_effect + rng.normal(0.3, 1, 10), seed_effect + rng.normal(0, 1, 10))
        hits += got.low <= 0.3 <= got.high
    assert 0.93 < hits / 1000 < 0.97


def test_correlation_is_spearman_s_with_an_interval_around_it():
    rng = np.random.default_rng(2)
    a = rng.normal(size=60)
    b = a + rng.normal(size=60)
    got = correlation(a, b)
    assert got.estimate == pytest.approx(scipy_stats.spearmanr(a, b).statistic)
    assert 0 < got.low < got.estimate < got.high < 1
    other = correlation(a, rng.normal(size=60))
    assert other.low < 0 < other.high


def test_equal_differences_have_an_interval_of_no_width():
    got = paired([1, 2, 3], [0, 1, 2])
    assert (got.low, got.estimate, got.high) == (1, 1, 1)


def test_a_correlation_whose_resamples_may_be_constant_has_an_interval():
    got = correlation([0, 0, 0, 1], [0, 1, 2, 3])
    assert -1 <= got.low <= got.estimate + 1e-9 and got.estimate <= got.high <= 1


def test_a_correlation_with_a_constant_is_refused():
    for a, b, name in (([1, 1, 1], [1, 2, 3], "a"), ([1, 2, 3], [0.5, 0.5, 0.5], "b")):
        with pytest.raises(ValueError, match=rf"{name}=.*must have values that differ"):
            correlation(a, b)


@pytest.mark.parametrize("values", [[1.0], [1.0, np.nan], [[1.0, 2.0]], []])
def test_bad_values_are_refused(values):
    for call in (lambda: summary(values), lambda: paired(values, values), lambda: correlation(values, values)):
        with pytest.raises(ValueError, match="must"):
            call()


def test_unequal_lengths_and_bad_confidence_are_refused():
    for call in (paired, correlation):
        with pytest.raises(ValueError, match="b: has 3 values, must have as many as a, 4"):
            call([1, 2, 3, 4], [1, 2, 3])
        for confidence in (0.0, 1.0):
            with pytest.raises(ValueError, match=f"confidence={confidence}: must be"):
                call([1, 2, 4], [2, 1, 5], confidence)
    with pytest.raises(ValueError, match="a: has shape .*at least 3 values"):
        correlation([1, 2], [2, 1])


def test_holm_rejects_step_by_step():
    assert holm([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06])
    assert holm([0.5, 0.9]) == pytest.approx([1, 1])
    p = np.random.default_rng(0).uniform(size=(2000, 10))
    wrong = np.mean([(holm(row) < 0.05).any() for row in p])
    assert 0.03 < wrong < 0.07  # one in twenty families of true hypotheses has a rejection
    for bad in ([-0.1], [1.1], [np.nan], []):
        with pytest.raises(ValueError, match="p.*must"):
            holm(bad)


def test_a_seed_takes_no_part_in_the_choice_it_is_judged_by():
    rng = np.random.default_rng(0)
    losses = rng.normal(size=(5, 10))
    halves = [losses[losses[:, 5:].mean(1).argmin(), :5], losses[losses[:, :5].mean(1).argmin(), 5:]]
    assert cross_tuned(losses).tolist() == np.concatenate(halves).tolist()
    alone = cross_tuned(losses, folds=10)
    for seed in range(10):
        changed = losses.copy()
        changed[:, seed] = rng.normal(size=5)
        chosen = np.flatnonzero(losses[:, seed] == alone[seed]).item()
        assert cross_tuned(changed, folds=10)[seed] == changed[chosen, seed]


@pytest.mark.parametrize(
    ("losses", "folds", "message"),
    [
        ([1.0, 2.0], 2, "losses: has shape"),
        ([[1.0, np.nan]], 2, "losses: must be finite"),
        ([[1.0, 2.0]], 3, "folds=3: must be <= 2"),
        ([[1.0, 2.0]], 1, "folds=1"),
    ],
)
def test_cross_tuning_refuses_what_it_cannot_cut(losses, folds, message):
    with pytest.raises(ValueError, match=message):
        cross_tuned(losses, folds)


def test_the_vertex_is_that_of_a_parabola_and_lies_between_the_neighbours():
    rng = np.random.default_rng(0)
    x = np.sort(rng.normal(size=9))
    lowest = rng.uniform(x[1], x[-2], size=40)
    assert vertex(x, 3.0 * (x[:, None] - lowest) ** 2 - 1) == pytest.approx(lowest)
    y = rng.normal(size=(9, 200))
    for found, k, column in zip(vertex(x, y), y.argmin(0), y.T, strict=True):
        if not 0 < k < 8:
            assert found == x[k]
            continue
        a, b, _ = np.polyfit(x[k - 1 : k + 2], column[k - 1 : k + 2], 2)
        assert found == pytest.approx(-b / (2 * a)) and x[k - 1] < found < x[k + 1]


def test_the_vertex_is_the_lowest_point_where_no_parabola_bends_around_it():
    x = np.arange(4.0)
    assert vertex(x, [2.0, 1.0, np.nan, 3.0]).item() == 1 and vertex(x, [0.0, 1.0, 2.0, 3.0]).item() == 0
    assert vertex(x, [5.0, 1.0, 1.0, 1.0]).item() == 1.5 and vertex(x, [1.0, 1.0, 1.0, 1.0]).item() == 0
    assert vertex([2.0], [7.0]).item() == 2


@pytest.mark.parametrize(
    ("x", "y", "message"),
    [
        ([1.0, 0.0], [1.0, 2.0], "x=.*ascending"),
        ([], [], "x: has shape"),
        ([0.0, 1.0], [1.0, 2.0, 3.0], r"y: has shape \(3,\), must be \(2,\)"),
        ([0.0, 1.0], [[1.0, np.nan], [2.0, np.inf]], "y: must have a finite value for each seed"),
    ],
)
def test_a_vertex_needs_points_in_order(x, y, message):
    with pytest.raises(ValueError, match=message):
        vertex(x, y)


@pytest.mark.parametrize("confidence", [0.5, 0.9])
def test_the_bootstrap_interval_has_its_share_of_the_resamples(confidence):
    rng = np.random.default_rng(1)
    a, noise = rng.normal(size=(2, 15))
    b = a + noise
    rows = rng.integers(15, size=(4000, 15))
    x, y = (scipy_stats.zscore(scipy_stats.rankdata(values[rows], axis=1), axis=1) for values in (a, b))
    low, high = np.quantile((x * y).mean(1), [(1 - confidence) / 2, (1 + confidence) / 2])
    found = correlation(a, b, confidence)
    assert (found.low, found.high) == pytest.approx((low, high), abs=0.04)


def test_resamples_in_which_either_side_is_constant_are_left_out():
    for a, b in (([1, 2, 3], [1, 1, 2]), ([1, 1, 2], [1, 2, 3])):
        found = correlation(a, b)
        assert -1 <= found.low <= found.high <= 1
