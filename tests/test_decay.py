"""The timescale of AdamW's weights against what the optimizers do, lrlib's and PyTorch's."""

import numpy as np
import pytest
import torch

import lrlib


def adamws(lr, weight_decay, betas=(0.9, 0.999)):
    """lrlib's rule and torch's optimizer on a weight of their own each."""
    for make in (
        lambda theta: lrlib.AdamW(betas=betas, weight_decay=weight_decay).optimizer([theta], lr=lr),
        lambda theta: torch.optim.AdamW([theta], lr=lr, betas=betas, weight_decay=weight_decay),
    ):
        theta = torch.nn.Parameter(torch.full((3,), 2.0, dtype=torch.float64))
        yield theta, make(theta)


@pytest.mark.parametrize(("lr", "weight_decay"), [(0.01, 1.0), (0.05, 4.0), (0.002, 0.1)])
def test_of_the_first_weights_a_power_of_one_minus_the_inverse_is_left(lr, weight_decay):
    tau = lrlib.ema_timescale(lr, weight_decay)
    for theta, optimizer in adamws(lr, weight_decay):
        for _ in range(50):
            theta.grad = torch.zeros_like(theta)
            optimizer.step()
        np.testing.assert_allclose(theta.detach().numpy() / 2, (1 - 1 / tau) ** 50, rtol=1e-12)


def test_a_constant_update_is_an_average_of_start_and_target():
    lr, weight_decay, steps = 0.02, 2.5, 30
    left = (1 - 1 / lrlib.ema_timescale(lr, weight_decay)) ** steps
    for theta, optimizer in adamws(lr, weight_decay, betas=(0.0, 0.0)):
        for _ in range(steps):
            theta.grad = torch.full_like(theta, 7.0)  # without means Adam's update is its sign
            optimizer.step()
        np.testing.assert_allclose(theta.detach().numpy(), left * 2 - (1 - left) / weight_decay, rtol=1e-7)


def test_the_mean_age_of_a_target_is_the_timescale_less_one():
    tau = lrlib.ema_timescale(0.004, 5.0)
    age = np.arange(5000)
    share = (1 - 1 / tau) ** age / tau
    assert share.sum() == pytest.approx(1, abs=1e-12)
    assert (share * age).sum() == pytest.approx(tau - 1, rel=1e-9)


@pytest.mark.parametrize(
    ("lr", "weight_decay", "named"),
    [(0.0, 1.0, "lr=0.0"), (0.1, 0.0, "weight_decay=0.0"), (0.1, float("nan"), "weight_decay=nan"), (1.0, 1.5, "<= 1")],
)
def test_a_bad_argument_is_refused(lr, weight_decay, named):
    with pytest.raises(ValueError, match=named):
        lrlib.ema_timescale(lr, weight_decay)


def test_at_the_limit_only_the_last_target_is_left():
    assert lrlib.ema_timescale(0.5, 2.0) == 1


def test_a_product_below_all_numbers_is_refused():
    with pytest.raises(ValueError, match="weight_decay=1e-200: times lr must be > 0"):
        lrlib.ema_timescale(1e-200, 1e-200)
