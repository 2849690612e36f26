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
@pytest.mark.parametrize("which", ["largest", "smallest"])
@pytest.mark.parametrize("k, batch_size", [(1, 1000), (3, 7)])
def test_eigenpairs_equal_the_dense_ones(data, norm, activation, which, k, batch_size):
    model = network(norm, activation)
    H = dense_hessian(model, *data).numpy()
    values, vectors = curvature.hessian_eigenpairs(model, *data, k, which=which, batch_size=batch_size)
    expected = np.linalg.eigvalsh(H)
    expected = expected[::-1][:k] if which == "largest" else expected[:k]
    np.testing.assert_allclose(values, expected, rtol=1e-5)
    assert vectors.shape == (k, len(H))
    np.testing.assert_allclose(vectors @ vectors.T, np.eye(k), atol=1e-8)
    np.testing.assert_allclose(H @ vectors.T, vectors.T * values, atol=1e-3 * abs(values[0]))


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
    expected = curvature.sharpness(network(), x, y)
    assert curvature.sharpness(network().float(), x.float(), y) == pytest.approx(expected, rel=1e-4)


def test_reparametrisation_moves_sharpness_and_not_its_adaptive_form(data):
    model = network(activation="relu")
    scaled = copy.deepcopy(model)
    with torch.no_grad():  # the hidden units of the first layer times c, what leaves them divided by c
        scaled[1].weight.mul_(20.0)
        scaled[1].bias.mul_(20.0)
        scaled[3].weight.div_(20.0)
    torch.testing.assert_close(model(data[0]), scaled(data[0]))
    assert curvature.sharpness(scaled, *data) > 10 * curvature.sharpness(model, *data)
    before, after = (curvature.adaptive_sharpness(m, *data) for m in (model, scaled))
    assert after == pytest.approx(before, rel=1e-5)


def test_adaptive_sharpness_is_that_of_the_scaled_hessian(data):
    model = network()
    H, size = dense_hessian(model, *data), lrlib.parameter_vector(model).abs()
    expected = torch.linalg.eigvalsh(size[:, None] * H * size)[-1].item()
    assert curvature.adaptive_sharpness(model, *data) == pytest.approx(expected, rel=1e-5)


def test_sharpness_in_other_units_is_that_of_the_loss_in_scaled_coordinates(data):
    stack = lrlib.Stack([network() for _ in range(2)])
    x, y = (part[None] for part in data)
    units = [torch.rand_like(p) + 0.5 for p in stack.weights]
    plain = curvature.sharpness(stack, x, y)
    doubled = curvature.sharpness(stack, x, y, units=[torch.full_like(p, 2.0) for p in stack.weights])
    np.testing.assert_allclose(doubled, 4 * plain, rtol=1e-6)
    own = [curvature.sharpness(m, *data, units=[u[r] for u in units]) for r, m in enumerate([network(), network()])]
    np.testing.assert_allclose(curvature.sharpness(stack, x, y, units=units), own, rtol=1e-2)
    with pytest.raises(ValueError, match="units: have the shapes"):
        curvature.sharpness(stack, x, y, units=units[:-1])


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
    assert curvature.sharpness(model, *data) == pytest.approx(expected, rel=1e-5)


def test_the_model_is_left_as_it_was(data):
    model = network("batch", "relu")
    model[1].eval()  # a mixture of modes
    model[4].weight.grad = torch.ones_like(model[4].weight)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    modes = [module.training for module in model.modules()]
    with torch.no_grad():  # also works where the caller has gradients off
        curvature.sharpness(model, *data)
        curvature.adaptive_sharpness(model, *data, batch_size=5)
    with pytest.raises(ValueError):
        curvature.sharpness(model, *data, loss=lambda out, y: F.cross_entropy(out, y, reduction="none"))
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert [module.training for module in model.modules()] == modes
    assert torch.equal(model[4].weight.grad, torch.ones_like(model[4].weight))
    assert model[1].weight.grad is None


def test_the_same_call_gives_the_same_numbers(data):
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
    with pytest.raises(ValueError, match=f"k={d}: must be <= {d - 1}"):
        curvature.hessian_eigenpairs(model, x, y, d)
    with pytest.raises(ValueError, match="which"):
        curvature.hessian_eigenpairs(model, x, y, which="LA")
    with pytest.raises(ValueError, match="batch_size"):
        curvature.sharpness(model, x, y, batch_size=0)
    with pytest.raises(ValueError, match="iterations"):
        curvature.sharpness(model, x, y, iterations=0)
    with pytest.raises(ValueError, match="is a stack"):
        curvature.hessian_eigenpairs(lrlib.Stack([model]), x[None], y[None])
    with pytest.raises(ValueError, match="requires a gradient"):
        curvature.sharpness(network().requires_grad_(False), x, y)


@pytest.mark.parametrize("measure", [curvature.sharpness, curvature.adaptive_sharpness])
@pytest.mark.parametrize("norm, activation", [(None, "tanh"), ("batch", "relu"), ("layer", "gelu")])
@pytest.mark.parametrize("batch_size", [1000, 7])
def test_a_stack_is_each_of_its_networks(data, measure, norm, activation, batch_size):
    x, y = data
    models = [network(norm, activation, seed) for seed in range(4)]
    stack = lrlib.Stack(models)
    expected = [measure(model, x, y) for model in models]
    shared = measure(stack, x[None], y[None], batch_size=batch_size, iterations=40)
    np.testing.assert_allclose(shared, expected, rtol=1e-4)
    apart = measure(stack, torch.stack([x, 2 * x]), torch.stack([y, y]), batch_size=batch_size, iterations=40)
    np.testing.assert_allclose(apart[:2], expected[:2], rtol=1e-4)
    np.testing.assert_allclose(apart[2:], [measure(model, 2 * x, y) for model in models[2:]], rtol=1e-4)
    assert stack.training and all(w.grad is None for w in stack.weights)


def test_a_few_iterations_are_right_to_one_percent(data):
    models = [network(seed=seed) for seed in range(6)]
    stack = lrlib.Stack(models)
    expected = np.array([curvature.sharpness(model, *data) for model in models])
    few = curvature.sharpness(stack, data[0][None], data[1][None], iterations=12)
    assert (few <= expected * (1 + 1e-4)).all() and (few >= 0.99 * expected).all()


def test_a_stack_of_what_goes_through_vmap():
    data = lrlib.digits()
    x, y = data.x_train[:30], data.y_train[:30]
    models = [lrlib.conv_net(2).train() for _ in range(2)]
    found = curvature.sharpness(lrlib.Stack(models), x[None], y[None])
    np.testing.assert_allclose(found, [curvature.sharpness(model, x, y) for model in models], rtol=1e-2)


@pytest.mark.parametrize("broken", [float("nan"), float("inf"), 1e200])
def test_a_replica_that_is_not_finite_disturbs_no_other(data, broken):
    x, y = data[0][None], data[1][None]
    whole = lrlib.Stack([network(activation="relu", seed=seed) for seed in range(3)])
    stack = copy.deepcopy(whole)
    with torch.no_grad():
        for weight in stack.weights:
            weight[1] = broken
    for measure in (curvature.sharpness, curvature.adaptive_sharpness):
        found, expected = measure(stack, x, y), measure(whole, x, y)
        assert np.isnan(found[1])
        np.testing.assert_allclose(found[[0, 2]], expected[[0, 2]], rtol=1e-9)


@pytest.mark.parametrize("sign", [1.0, -1.0])
def test_an_iteration_that_comes_to_its_end_early_adds_no_eigenvalue(sign):
    model, x = nn.Linear(4, 1, bias=False).double(), torch.eye(4, dtype=torch.float64)
    y = torch.zeros(4, 1, dtype=torch.float64)
    found = curvature.sharpness(lrlib.Stack([model]), x[None], y[None], loss=lambda z, y: sign * F.mse_loss(z, y))
    assert found[0] == pytest.approx(sign * 0.5)


def test_a_loss_linear_in_the_parameters_has_no_curvature():
    model, x = nn.Linear(50, 1), torch.randn(4, 50, generator=torch.Generator().manual_seed(0))
    values, vectors = curvature.hessian_eigenpairs(model, x, x, 2, loss=lambda out, _: out.mean())
    assert values.tolist() == [0.0, 0.0]
    np.testing.assert_array_equal(vectors @ vectors.T, np.eye(2))
    stack = lrlib.Stack([model, model])
    assert curvature.sharpness(stack, x[None], x[None], loss=lambda out, _: out.mean()).tolist() == [0.0, 0.0]


def test_attention_has_a_second_derivative():
    with lrlib.seeded(0):
        model = nn.Sequential(nn.TransformerEncoderLayer(4, 2, 8, batch_first=True), nn.Flatten(), nn.Linear(12, 3))
        model, x, y = model.double(), torch.randn(9, 3, 4, dtype=torch.float64), torch.arange(9) % 3
    with torch.nn.attention.sdpa_kernel(torch.nn.attention.SDPBackend.MATH):
        expected = torch.linalg.eigvalsh(dense_hessian(model, x, y))[-1].item()
    assert curvature.sharpness(model, x, y) == pytest.approx(expected, rel=1e-5)


class Once(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x):
        ctx.save_for_backward(x.exp())
        return x.exp()

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx, slope):
        return slope * ctx.saved_tensors[0]


class Words(nn.Module):
    def __init__(self):
        super().__init__()
        self.table = nn.Parameter(torch.ones(5, 3))

    def forward(self, x):
        return F.embedding(x, self.table, sparse=True).mean(1)


class Through(nn.Module):
    def __init__(self, function):
        super().__init__()
        self.layer, self.function = nn.Linear(6, 3), function

    def forward(self, x):
        return self.function(self.layer(x.float()))


def flash(h):
    with torch.nn.attention.sdpa_kernel(torch.nn.attention.SDPBackend.FLASH_ATTENTION):
        return F.scaled_dot_product_attention(h[None, None], h[None, None], h[None, None])[0, 0]


def of_words(make, data):
    return curvature.sharpness(make(), torch.zeros(6, 2, dtype=torch.long), data[1][:6])


@pytest.mark.parametrize(
    "measure, words",
    [
        (lambda data: of_words(Words, data), "sparse=False"),
        (lambda data: curvature.sharpness(Through(Once.apply), *data), "once_differentiable"),
        (lambda data: curvature.sharpness(Through(flash), *data), "second derivatives"),
        (lambda data: curvature.sharpness(network(), *data, loss=F.multi_margin_loss), "second derivatives"),
    ],
    ids=["sparse", "once differentiable", "flash attention", "margin"],
)
def test_what_has_no_second_derivative_is_refused_and_not_taken_for_flat(data, measure, words):
    with pytest.raises(ValueError, match=words):
        measure(data)


class Bowl(nn.Module):
    def __init__(self, curvatures):
        super().__init__()
        self.w = nn.Parameter(torch.ones(len(curvatures)))
        self.register_buffer("h", torch.as_tensor(curvatures))

    def forward(self, x):
        return (self.h * self.w**2).sum() / 2 + 0 * x.sum()


@pytest.mark.parametrize("size", [1e-30, 1.0, 1e30])
@pytest.mark.parametrize("d", [1, 60])
def test_a_curvature_of_any_size_and_of_one_parameter(data, size, d):
    bowl = Bowl([size] * d)
    x, y = data
    assert curvature.sharpness(bowl, x, y, loss=lambda out, _: out) == pytest.approx(size, rel=1e-5)
    stack = lrlib.Stack([bowl, Bowl([2 * size] * d)])
    found = curvature.sharpness(stack, x[None], y[None], loss=lambda out, _: out)
    np.testing.assert_allclose(found, [size, 2 * size], rtol=1e-5)


class Drifting(nn.Module):
    """A mean that every forward pass moves, in evaluation too: by a new tensor, or in its place."""

    def __init__(self, rebinds):
        super().__init__()
        self.layer, self.rebinds = nn.Linear(6, 3).double(), rebinds
        self.register_buffer("mean", torch.zeros((), dtype=torch.float64))

    def forward(self, x):
        if self.rebinds:
            self.mean = self.mean + 1
        else:
            self.mean.add_(1)
        return self.layer(x) / self.mean


@pytest.mark.parametrize("rebinds", [True, False])
@pytest.mark.parametrize("batch_size", [1000, 12])
def test_all_products_are_of_the_buffers_that_the_model_has(data, rebinds, batch_size):
    model, (x, y) = Drifting(rebinds), data
    plain = nn.Linear(6, 3).double()
    plain.load_state_dict(model.layer.state_dict())
    expected = torch.linalg.eigvalsh(dense_hessian(plain, x, y))[-1].item()
    assert curvature.sharpness(model, x, y, batch_size=batch_size) == pytest.approx(expected, rel=1e-6)
    assert model.mean == 0


def test_networks_without_a_hessian_are_refused(data):
    x, y = data
    with pytest.raises(ValueError, match="sparse=False"):
        words = nn.Sequential(nn.Embedding(5, 4, sparse=True), nn.Flatten(), nn.Linear(8, 3))
        curvature.sharpness(words, torch.zeros(6, 2, dtype=torch.long), y[:6])
    with pytest.raises(ValueError, match="batch_size=7: must be >= 23"):
        norm = nn.Sequential(nn.Linear(6, 3), nn.BatchNorm1d(3, track_running_stats=False)).double()
        curvature.sharpness(norm, x, y, batch_size=7)
    with pytest.raises(ValueError, match="not finite"):  # the root has an infinite slope at 0
        model = nn.Linear(50, 1, bias=False)
        nn.init.zeros_(model.weight)
        curvature.sharpness(model, torch.ones(3, 50), y[:3], loss=lambda out, _: out.abs().sqrt().mean())


@pytest.mark.parametrize("scale", [1.0, 1e-3])
@pytest.mark.parametrize("d, k", [(100, 1), (100, 3), (200, 3)])
def test_the_smallest_eigenvalues_of_a_singular_hessian_are_zero(d, k, scale):
    with lrlib.seeded(0):
        model, x = nn.Linear(d, 1, bias=False), scale * torch.randn(3 * d // 4, d)
    values, vectors = curvature.hessian_eigenpairs(model, x, x[:, :1], k, which="smallest", loss=F.mse_loss)
    largest, _ = curvature.hessian_eigenpairs(model, x, x[:, :1], loss=F.mse_loss)
    np.testing.assert_allclose(values, 0, atol=2e-6 * largest[0])
    np.testing.assert_allclose(vectors @ vectors.T, np.eye(k), atol=1e-8)


def test_the_smallest_eigenvalues_of_a_hessian_that_mirrors_its_largest():
    """At the modulus of a random product the shifted Hessian would be singular."""

    class Product(nn.Module):
        def __init__(self):
            super().__init__()
            self.u, self.v = nn.Parameter(torch.ones(30)), nn.Parameter(torch.ones(30))

        def forward(self, x):
            return (self.u * self.v).sum() * x

    one = torch.ones(1, 1)
    values, _ = curvature.hessian_eigenpairs(Product(), one, one, 2, which="smallest", loss=lambda z, y: z.mean())
    np.testing.assert_allclose(values, -1, rtol=1e-5)


def test_of_a_multiple_eigenvalue_every_vector_is_found():
    with lrlib.seeded(0):
        model, x = nn.Linear(20, 4, bias=False).double(), torch.randn(50, 20, dtype=torch.float64)
    each = np.linalg.eigvalsh((x.T @ x).numpy() / 100)[::-1]  # of the mean of squares: four outputs have them alike
    values, vectors = lrlib.hessian_eigenpairs(model, x, torch.zeros(50, 4).double(), 6, loss=F.mse_loss)
    assert values == pytest.approx([*4 * [each[0]], *2 * [each[1]]], rel=1e-5)
    assert np.abs(vectors @ vectors.T - np.eye(6)).max() < 1e-8


def test_the_smallest_of_few_parameters_come_first():
    model = nn.Linear(3, 1, bias=False)
    x, y = torch.tensor([1.0, 2.0, 3.0]).diag(), torch.zeros(3, 1)
    values, vectors = lrlib.hessian_eigenpairs(model, x, y, 2, which="smallest", loss=F.mse_loss)
    assert values == pytest.approx([2 / 3, 8 / 3]) and np.abs(vectors) == pytest.approx(np.eye(2, 3), abs=1e-6)


def test_a_replica_whose_loss_alone_is_infinite_has_no_sharpness():
    def loss(outputs, y):
        return F.mse_loss(outputs, y) - (outputs.mean() > 100).float().log()

    models = [nn.Linear(2, 1), nn.Linear(2, 1)]
    nn.init.constant_(models[0].bias, 1000.0)
    found = lrlib.sharpness(lrlib.Stack(models), torch.eye(2)[None], torch.zeros(1, 2, 1), loss=loss)
    assert np.isfinite(found[0]) and np.isnan(found[1])
