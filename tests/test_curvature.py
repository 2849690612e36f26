"""Curvature against dense Hessians in float64, and its errors."""

import copy

import numpy as np
import pytest
import torch
from torch import nn
from torch.func import functional_call
from torch.nn import functional as F

import lrlib
from lrlib import curvature


def network(norm=None, activation="tanh", seed=0):
    with lrlib.seeded(seed):
        model = lrlib.mlp(6, 5, 4, 3, activation=activation, norm=norm).double()
        if norm == "batch":  # running statistics that are not the initial ones
            for _ in range(3):
                model(torch.randn(20, 6, dtype=torch.float64))
    return model


@pytest.fixture(scope="module")
def data():
    with lrlib.seeded(1):
        return torch.randn(23, 6, dtype=torch.float64), torch.randint(0, 3, (23,))


def dense_hessian(model, x, y, loss=F.cross_entropy):
    """Of the model in evaluation mode, by torch's own differentiation of a function of one vector."""
    model = copy.deepcopy(model).eval()
    names, parameters = zip(*[(n, p.detach()) for n, p in model.named_parameters() if p.requires_grad], strict=True)

    def value(vector):
        pieces = vector.split([p.numel() for p in parameters])
        values = {n: piece.view_as(p) for n, piece, p in zip(names, pieces, parameters, strict=True)}
        return loss(functional_call(model, values, (x,)), y)

    vector = torch.cat([p.reshape(-1) for p in parameters])
    return torch.autograd.functional.hessian(value, vector)


@pytest.mark.parametrize("norm, activation", [(None, "tanh"), ("batch", "relu"), ("layer", "gelu")])
@pytest.mark.parametrize("batch_size", [1000, 7, 1])
def test_product_equals_the_dense_hessian(data, norm, activation, batch_size):
    model = network(norm, activation)
    H = dense_hessian(model, *data)
    v = torch.randn(len(H), dtype=torch.float64, generator=torch.Generator().manual_seed(2))
    product = curvature.hessian_vector_product(model, *data, v, batch_size=batch_size)
    torch.testing.assert_close(product, H @ v, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("which", ["largest", "smallest"])
@pytest.mark.parametrize("k", [1, 3])
@pytest.mark.parametrize("batch_size", [1000, 7])
def test_eigenpairs_equal_the_dense_ones(data, which, k, batch_size):
    model = network()
    H = dense_hessian(model, *data).numpy()
    values, vectors = curvature.hessian_eigenpairs(model, *data, k, which=which, tolerance=1e-9, batch_size=batch_size)
    expected = np.linalg.eigvalsh(H)
    expected = expected[::-1][:k] if which == "largest" else expected[:k]
    np.testing.assert_allclose(values, expected, rtol=1e-6)
    assert vectors.shape == (k, len(H))
    np.testing.assert_allclose(vectors @ vectors.T, np.eye(k), atol=1e-8)
    np.testing.assert_allclose(H @ vectors.T, vectors.T * values, atol=1e-6 * abs(values[0]))


def test_small_networks_are_solved_densely():
    with lrlib.seeded(0):
        model = nn.Linear(3, 2).double()
        x, y = torch.randn(9, 3, dtype=torch.float64), torch.randint(0, 2, (9,))
    expected = np.linalg.eigvalsh(dense_hessian(model, x, y).numpy())
    values, vectors = curvature.hessian_eigenpairs(model, x, y, 7)
    np.testing.assert_allclose(values, expected[::-1][:7], atol=1e-12)
    assert vectors.shape == (7, 8)


def test_float32_agrees_with_float64(data):
    x, y = data
    expected = curvature.sharpness(network(), x, y, tolerance=1e-9)
    assert curvature.sharpness(network().float(), x.float(), y) == pytest.approx(expected, rel=1e-4)


def test_trace_within_its_standard_error(data):
    model = network()
    exact = dense_hessian(model, *data).trace().item()
    few = curvature.hessian_trace(model, *data, samples=50, batch_size=7)
    many = curvature.hessian_trace(model, *data, samples=3200)
    assert abs(few.value - exact) < 4 * few.standard_error
    assert abs(many.value - exact) < 4 * many.standard_error
    assert many.standard_error == pytest.approx(few.standard_error / 8, rel=0.35)
    assert "standard error, 50 vectors" in str(few)


def test_scaled_eigenvalues(data):
    model = network()
    H = dense_hessian(model, *data)
    s = torch.rand(len(H), dtype=torch.float64, generator=torch.Generator().manual_seed(3)) + 0.5
    expected = torch.linalg.eigvalsh(s[:, None] * H * s)[-1].item()
    values, _ = curvature.hessian_eigenpairs(model, *data, scale=s, tolerance=1e-9)
    assert values[0] == pytest.approx(expected, rel=1e-6)


def test_reparametrisation_moves_sharpness_and_not_its_adaptive_form(data):
    model = network(activation="relu")
    scaled = copy.deepcopy(model)
    with torch.no_grad():  # the hidden units of the first layer times c, what leaves them divided by c
        scaled[1].weight.mul_(20.0)
        scaled[1].bias.mul_(20.0)
        scaled[3].weight.div_(20.0)
    torch.testing.assert_close(model(data[0]), scaled(data[0]))
    assert curvature.sharpness(scaled, *data) > 10 * curvature.sharpness(model, *data)
    before, after = (curvature.adaptive_sharpness(m, *data, tolerance=1e-9) for m in (model, scaled))
    assert after == pytest.approx(before, rel=1e-6)


def test_the_limit_of_gradient_descent_is_two_over_sharpness():
    with lrlib.seeded(0):
        x, y = torch.randn(30, 5, dtype=torch.float64), torch.randn(30, 1, dtype=torch.float64)
    S = curvature.sharpness(nn.Linear(5, 1, bias=False).double(), x, y, loss=F.mse_loss)
    sizes = []
    for lr in (0.98 * 2 / S, 1.02 * 2 / S):
        with lrlib.seeded(1):
            model = nn.Linear(5, 1, bias=False).double()
        for _ in range(600):
            (g,) = torch.autograd.grad(F.mse_loss(model(x), y), [model.weight])
            with torch.no_grad():
                model.weight -= lr * g
        sizes.append(g.norm().item())
    assert sizes[0] < 1e-4 and sizes[1] > 1e4


def test_frozen_parameters_are_left_out(data):
    model = network()
    model[1].requires_grad_(False)
    H = dense_hessian(model, *data)
    assert len(H) == lrlib.parameter_count(model)
    expected = torch.linalg.eigvalsh(H)[-1].item()
    assert curvature.sharpness(model, *data, tolerance=1e-9) == pytest.approx(expected, rel=1e-6)


def test_a_loss_linear_in_the_parameters_has_no_curvature():
    model, x = nn.Linear(50, 1), torch.randn(4, 50)
    product = curvature.hessian_vector_product(model, x, x, torch.ones(51), loss=lambda out, _: out.mean())
    assert product.tolist() == [0.0] * 51


def test_the_model_is_left_as_it_was(data):
    model = network("batch", "relu")
    model[1].eval()  # a mixture of modes
    model[4].weight.grad = torch.ones_like(model[4].weight)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    modes = [module.training for module in model.modules()]
    with torch.no_grad():  # also works where the caller has gradients off
        curvature.sharpness(model, *data)
        curvature.hessian_trace(model, *data, samples=2, batch_size=5)
    with pytest.raises(ValueError):
        curvature.sharpness(model, *data, loss=lambda out, y: F.cross_entropy(out, y, reduction="none"))
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert [module.training for module in model.modules()] == modes
    assert torch.equal(model[4].weight.grad, torch.ones_like(model[4].weight))
    assert model[1].weight.grad is None


def test_the_same_seed_gives_the_same_numbers(data):
    runs = [curvature.hessian_eigenpairs(network(), *data, 2)[0] for _ in range(2)]
    assert np.array_equal(*runs)


@pytest.mark.parametrize(
    "loss, message",
    [
        (lambda out, y: F.cross_entropy(out, y, reduction="none"), "must return a scalar"),
        (lambda out, y: 0.5, "must return a scalar"),
        (lambda out, y: (out.argmax(1) == y).double().mean(), "has no gradient"),
        (lambda out, y: out.mean() * float("nan"), "must be finite"),
        (lambda out, y: F.cross_entropy(out, y) / 0.0, "must be finite"),
    ],
)
def test_losses_without_a_curvature_are_refused(data, loss, message):
    with pytest.raises(ValueError, match=message):
        curvature.sharpness(network(), *data, loss=loss)


def test_arguments_are_checked(data):
    x, y = data
    model = network()
    d = lrlib.parameter_count(model)
    with pytest.raises(ValueError, match="lengths 23 and 22"):
        curvature.sharpness(model, x, y[:-1])
    with pytest.raises(ValueError, match="lengths 0 and 0"):
        curvature.sharpness(model, x[:0], y[:0])
    with pytest.raises(ValueError, match=rf"shape \({d},\)"):
        curvature.hessian_vector_product(model, x, y, torch.ones(d - 1, dtype=torch.float64))
    with pytest.raises(ValueError, match="float64"):
        curvature.hessian_vector_product(model, x, y, torch.ones(d))
    with pytest.raises(ValueError, match=f"k={d}: must be < {d}"):
        curvature.hessian_eigenpairs(model, x, y, d)
    with pytest.raises(ValueError, match="which"):
        curvature.hessian_eigenpairs(model, x, y, which="LA")
    with pytest.raises(ValueError, match="tolerance"):
        curvature.sharpness(model, x, y, tolerance=0)
    with pytest.raises(ValueError, match="batch_size"):
        curvature.sharpness(model, x, y, batch_size=0)
    with pytest.raises(ValueError, match="samples"):
        curvature.hessian_trace(model, x, y, samples=1)
    with pytest.raises(ValueError, match="requires a gradient"):
        curvature.sharpness(network().requires_grad_(False), x, y)


def test_no_convergence_is_said(data):
    model = network()
    with pytest.raises(RuntimeError, match="max_products=1"):
        curvature.hessian_eigenpairs(model, *data, 5, tolerance=1e-12, max_products=1)
