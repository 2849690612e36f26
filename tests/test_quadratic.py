"""Quadratics: the formulas against torch.optim, against simulated paths and against brute-force search."""

import numpy as np
import pytest
import torch

from lrlib import quadratic


def rotated(curvatures, seed=0):
    basis = np.linalg.qr(np.random.default_rng(seed).normal(size=(len(curvatures),) * 2))[0]
    return basis @ np.diag(curvatures) @ basis.T


@pytest.mark.parametrize("momentum", [0.0, 0.5, 0.9])
def test_the_path_is_that_of_torch(momentum):
    H, start = rotated([0.5, 2.0, 7.0]), np.array([1.0, -2.0, 0.5])
    theta = torch.nn.Parameter(torch.tensor(start))
    optimizer = torch.optim.SGD([theta], lr=0.2, momentum=momentum)
    path = [start]
    for _ in range(20):
        optimizer.zero_grad()
        (theta @ torch.tensor(H) @ theta / 2).backward()
        optimizer.step()
        path.append(theta.detach().numpy().copy())
    np.testing.assert_allclose(quadratic.descend(H, start, 0.2, 20, momentum), path, rtol=1e-12, atol=1e-14)


def test_the_spectral_radius_is_that_of_the_matrix():
    for a in np.linspace(-0.5, 4.5, 41):
        for beta in np.linspace(0, 1, 21):
            matrix = [[1 + beta - a, -beta], [1, 0]]  # from this coordinate and the last to the next and this
            expected = np.abs(np.linalg.eigvals(matrix)).max()
            assert quadratic.spectral_radius(a, beta) == pytest.approx(expected, abs=1e-7)


@pytest.mark.parametrize("momentum", [0.0, 0.5, 0.9])
def test_the_limit_is_two_plus_two_beta(momentum):
    limit = 2 * (1 + momentum)
    assert quadratic.spectral_radius(0.999 * limit, momentum) < 1 < quadratic.spectral_radius(1.001 * limit, momentum)


@pytest.mark.parametrize("kappa", [1.0, 4.0, 100.0])
def test_no_rate_beats_the_best_one(kappa):
    lr, rho = quadratic.best_rate(1.0, kappa)
    rates = np.linspace(0, 2, 4001)
    factors = np.maximum(np.abs(1 - rates), np.abs(1 - rates * kappa))
    assert factors.min() == pytest.approx(rho, abs=1e-3 * kappa)
    assert max(abs(1 - lr), abs(1 - lr * kappa)) == pytest.approx(rho)
    assert factors.min() >= rho - 1e-12


@pytest.mark.parametrize("kappa", [1.0, 4.0, 100.0])
def test_no_rate_and_momentum_beat_the_best_ones(kappa):
    lr, beta, rho = quadratic.best_momentum(1.0, kappa)

    def factor(rate, momentum):
        return np.maximum(*(quadratic.spectral_radius(rate * h, momentum) for h in (1.0, kappa)))

    assert factor(lr, beta) == pytest.approx(rho, abs=1e-6)
    grid = factor(np.linspace(0, 4 / kappa, 401)[:, None], np.linspace(0, 1, 401))
    assert grid.min() >= rho - 1e-9
    assert grid.min() <= rho + 0.05


@pytest.mark.parametrize(
    ("call", "said"),
    [
        (lambda: quadratic.descend(np.ones((2, 3)), [1.0, 1.0], 0.1, 1), "H"),
        (lambda: quadratic.descend([[0.0, 1.0], [0.0, 0.0]], [1.0, 1.0], 0.1, 1), "H"),
        (lambda: quadratic.descend(np.eye(2), [1.0], 0.1, 1), "theta0"),
        (lambda: quadratic.descend(np.eye(1), [1.0], -0.1, 1), "lr=-0.1"),
        (lambda: quadratic.descend(np.eye(1), [1.0], 0.1, 0), "steps=0"),
        (lambda: quadratic.descend(np.eye(1), [1.0], 0.1, 1, 1.5), "momentum=1.5"),
        (lambda: quadratic.spectral_radius(1.0, 1.1), "momentum=1.1"),
        (lambda: quadratic.best_rate(0.0, 1.0), "h_min=0.0"),
        (lambda: quadratic.best_momentum(2.0, 1.0), "h_max=1.0"),
    ],
)
def test_bad_arguments_are_named(call, said):
    with pytest.raises(ValueError, match=said):
        call()


def test_what_is_not_a_number_stays_none():
    assert np.isnan(quadratic.spectral_radius([np.nan, 1.0], 0.5)).tolist() == [True, False]


@pytest.mark.parametrize("H, theta", [([[1e-9, 5e-9], [0, 1e-9]], [1, 1]), ([[np.inf]], [1]), ([[1]], [np.nan])])
def test_small_matrices_are_symmetric_too_and_all_is_finite(H, theta):
    with pytest.raises(ValueError, match="H|theta0"):
        quadratic.descend(H, theta, 0.1, 2)
