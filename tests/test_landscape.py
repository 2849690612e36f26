"""Lines and planes against analytic losses and direct evaluation; what they leave untouched; projections."""

import copy
import io
import math
import threading

import matplotlib.pyplot as plt
import numpy as np
import pytest
import torch
from networks import Alias, Tied
from torch import nn
from torch.nn import functional as F
from torch.nn.utils import vector_to_parameters

import lrlib
from lrlib import landscape, planes


@pytest.fixture(scope="module")
def digits():
    data = lrlib.digits()
    return data.x_train[:60], data.y_train[:60]


def network(kind, seed=0):
    with lrlib.seeded(seed):
        model = {
            "mlp": lambda: lrlib.mlp(64, 12, 8, 10),
            "mlp-batch": lambda: lrlib.mlp(64, 12, 8, 10, norm="batch"),
            "conv": lambda: lrlib.conv_net(4),
            "resnet": lambda: lrlib.PreResNet(8, 4, in_channels=1),
        }[kind]()
        model.train()
        for _ in range(3):  # running statistics that are not the initial ones
            model(torch.randn(30, 1, 8, 8) + 0.3)
    return model


def direct(model, x, y, vector, batch_norm="keep"):
    """The loss at a point by writing it into a copy."""
    model = copy.deepcopy(model)
    vector_to_parameters(vector, [p for p in model.parameters() if p.requires_grad])
    if batch_norm == "recompute":
        for m in model.modules():
            if isinstance(m, nn.modules.batchnorm._BatchNorm):
                m.reset_running_stats()
                m.momentum = None
        model.train()
        with torch.no_grad():
            model(x)
    model.eval()
    with torch.no_grad():
        return F.cross_entropy(model(x), y).item()


KINDS = ("mlp", "mlp-batch", "conv", "resnet")


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("method", ["loop", "batched"])
@pytest.mark.parametrize("batch_size", [1000, 25])
def test_a_plane_is_what_writing_the_parameters_gives(digits, kind, method, batch_size):
    model = network(kind)
    u, v = (planes.random_direction(model, seed, vectors="entry") for seed in (1, 2))
    a, b = [-0.5, 0.0, 0.4], [-0.3, 0.7]
    plane = landscape.loss_plane(model, *digits, (u, v), a, b, method=method, batch_size=batch_size)
    theta = planes.parameter_vector(model)
    expected = [[direct(model, *digits, theta + s * u + t * v) for s in a] for t in b]
    np.testing.assert_allclose(plane.loss, expected, rtol=2e-5)
    assert plane.method == method


def test_a_plane_of_a_quadratic_is_the_analytic_one():
    with lrlib.seeded(0):
        x, y = torch.randn(40, 7, dtype=torch.float64), torch.randn(40, 1, dtype=torch.float64)
        model = nn.Linear(7, 1).double()
    ones = torch.ones(40, 1, dtype=torch.float64)
    design = torch.cat([x, ones], dim=1)
    H, g = 2 * design.T @ design / 40, torch.zeros(8, dtype=torch.float64)
    theta = planes.parameter_vector(model)
    residual = design @ theta[:, None] - y
    g = 2 * (design.T @ residual).flatten() / 40
    U = torch.randn(2, 8, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    a, b = np.linspace(-2, 2, 7), np.linspace(-1, 3, 5)
    plane = landscape.loss_plane(model, x, y, U, a, b, loss=F.mse_loss, batch_size=13)
    A, B = np.meshgrid(a, b)
    C = np.stack([A, B], -1)
    small, slope = (U @ H @ U.T).numpy(), (U @ g).numpy()
    expected = (residual**2).mean().item() + C @ slope + 0.5 * np.einsum("...i,ij,...j", C, small, C)
    np.testing.assert_allclose(plane.loss, expected, rtol=1e-12)
    low, high = landscape.plane_curvature(plane)
    np.testing.assert_allclose([low.mean(), high.mean()], np.linalg.eigvalsh(small), rtol=1e-9)
    assert np.ptp(low) < 1e-8 and landscape.negative_curvature(plane) == 0.0


@pytest.mark.parametrize("kind", KINDS)
def test_both_methods_agree(digits, kind):
    model = network(kind)
    directions = [planes.random_direction(model, seed) for seed in (1, 2)]
    a = np.linspace(-1, 1, 9)
    loop, batched = (landscape.loss_plane(model, *digits, directions, a, a, method=m).loss for m in ("loop", "batched"))
    np.testing.assert_allclose(loop, batched, rtol=2e-5)


class Branch(nn.Module):
    """Its control flow depends on the data, which vmap cannot do."""

    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(64, 10)

    def forward(self, x):
        out = self.layer(x.flatten(1))
        return out if out.sum() > 0 else -out


class Frozen(nn.Module):
    def __init__(self):
        super().__init__()
        self.layer, self.head = nn.Linear(64, 16).requires_grad_(False), nn.Linear(16, 10)

    def forward(self, x):
        return self.head(torch.tanh(self.layer(x.flatten(1))))


class Hidden(nn.Module):
    """It reaches its weight through a list, where a call with other parameters leaves it as it is."""

    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(64, 10)
        self.hidden = [self.layer.weight]

    def forward(self, x):
        return x.flatten(1) @ self.hidden[0].T


class Drifting(nn.Module):
    """Its forward pass changes its buffers, one by rebinding and one in place, also in evaluation mode."""

    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(64, 10)
        self.register_buffer("rebound", torch.ones(()))
        self.register_buffer("written", torch.ones(()))

    def forward(self, x):
        self.rebound = 2 * self.rebound
        self.written.mul_(3)
        return self.layer(x.flatten(1) / (self.rebound * self.written))


class Locked(nn.Module):
    """What it holds cannot be copied: a lock, and a tensor with a history."""

    def __init__(self, norm=False):
        super().__init__()
        self.layer, self.lock = nn.Linear(64, 10), threading.Lock()
        self.norm = nn.BatchNorm1d(10) if norm else nn.Identity()
        self.kept = 2 * self.layer.weight

    def forward(self, x):
        return self.norm(self.layer(x.flatten(1)))


@pytest.mark.parametrize("module", [Branch, Frozen, Tied, Hidden, Drifting])
@pytest.mark.parametrize("method", ["auto", "loop"])
def test_unusual_networks(digits, module, method):
    with lrlib.seeded(0):
        model = module()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    u = planes.random_direction(model, 1, vectors="entry")
    line = landscape.loss_line(model, *digits, u, [-1.0, 0.5, 1.0], method=method)
    theta = planes.parameter_vector(model)
    expected = [direct(model, *digits, theta + c * u) for c in (-1.0, 0.5, 1.0)]
    np.testing.assert_allclose(line.loss, expected, rtol=1e-5)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


@pytest.mark.parametrize("module", [Branch, Hidden])
def test_what_cannot_be_batched_is_refused_and_done_by_auto(digits, module):
    with lrlib.seeded(0):
        model = module()
    u = planes.random_direction(model, 1)
    assert landscape.loss_line(model, *digits, u, [-1, 0, 1]).method == "loop"
    with pytest.raises(ValueError, match="method='batched'"):
        landscape.loss_line(model, *digits, u, [-1, 0, 1], method="batched")


@pytest.mark.parametrize("examples, width, method", [(128, 12, "batched"), (129, 12, "loop"), (128, 1000, "loop")])
def test_auto_batches_small_networks_on_few_examples(examples, width, method):
    data, model = lrlib.digits(), lrlib.mlp(64, width, 10)
    x, y = data.x_train[:examples], data.y_train[:examples]
    assert landscape.loss_line(model, x, y, planes.random_direction(model), [0, 1]).method == method


@pytest.mark.parametrize("method", ["auto", "batched", "loop"])
def test_a_model_that_cannot_be_copied(digits, method):
    with lrlib.seeded(0):
        model, plain = Locked(), nn.Sequential(nn.Flatten(), nn.Linear(64, 10))
    with pytest.raises((TypeError, RuntimeError)):
        copy.deepcopy(model)
    plain[1].load_state_dict(model.layer.state_dict())
    u = planes.random_direction(model, 1)
    lines = [landscape.loss_line(m, *digits, u, [-1, 0, 1], method=method).loss for m in (model, plain)]
    np.testing.assert_allclose(*lines, rtol=1e-5)
    with pytest.raises(ValueError, match="can be copied"):
        landscape.loss_line(Locked(norm=True), *digits, torch.ones(670), [-1, 0, 1], batch_norm="recompute")


def test_batch_norm_statistics_kept_or_recomputed(digits):
    model = network("conv")
    u, c = planes.random_direction(model, 1), [-0.5, 0.0, 0.5]
    theta = planes.parameter_vector(model)
    for batch_norm in ("keep", "recompute"):
        line = landscape.loss_line(model, *digits, u, c, batch_norm=batch_norm)
        expected = [direct(model, *digits, theta + s * u, batch_norm) for s in c]
        np.testing.assert_allclose(line.loss, expected, rtol=2e-5)
    kept, fresh = (landscape.loss_line(model, *digits, u, c, batch_norm=b).loss for b in ("keep", "recompute"))
    assert abs(kept - fresh).min() > 1e-3
    with pytest.raises(ValueError, match="method='batched'"):
        landscape.loss_line(model, *digits, u, c, batch_norm="recompute", method="batched")


def test_a_line_between_two_networks_ends_in_both(digits):
    one, two = network("conv", 0), network("conv", 1)
    line = landscape.loss_between(one, two, *digits, [0.0, 0.5, 1.0])
    for model, loss in ((one, line.loss[0]), (two, line.loss[2])):
        expected = direct(model, *digits, planes.parameter_vector(model), "recompute")
        assert loss == pytest.approx(expected, rel=1e-5)
    with pytest.raises(ValueError, match="same shapes"):
        landscape.loss_between(one, network("mlp"), *digits, [0, 1])


def test_a_last_batch_of_one_example_has_no_variance_and_does_no_harm(digits):
    ends = network("mlp-batch", 0), network("mlp-batch", 1)
    x, y = digits[0][:5], digits[1][:5]
    assert np.isfinite(landscape.loss_between(*ends, x, y, [0, 0.5, 1], batch_size=4).loss).all()
    with pytest.raises(ValueError, match="batch_size=1"):
        landscape.loss_between(*ends, x, y, [0, 1], batch_size=1)


def test_statistics_that_are_recomputed_under_dropout_leave_the_random_numbers_alone(digits):
    with lrlib.seeded(0):
        model = nn.Sequential(nn.Flatten(), nn.Dropout(), nn.Linear(64, 8), nn.BatchNorm1d(8), nn.Linear(8, 10))
    u, before = planes.random_direction(model), torch.get_rng_state()
    lines = [landscape.loss_line(model, *digits, u, [0, 1], batch_norm="recompute").loss for _ in range(2)]
    np.testing.assert_array_equal(*lines)
    assert torch.equal(torch.get_rng_state(), before)


def rescale_batch_norm(model):
    """Every filter before a BatchNorm times its own factor, and the running statistics with it."""
    factors = iter(np.geomspace(0.1, 30, 200))
    with torch.no_grad():
        layers = [m for m in model.modules() if isinstance(m, nn.Conv2d | nn.Linear | nn.modules.batchnorm._BatchNorm)]
        for layer, norm in zip(layers, layers[1:], strict=False):
            if isinstance(norm, nn.modules.batchnorm._BatchNorm) and not isinstance(layer, type(norm)):
                for i in range(len(layer.weight)):
                    c = next(factors)
                    layer.weight[i] *= c
                    norm.running_mean[i] *= c
                    norm.running_var[i] *= c * c


@pytest.mark.parametrize("kind", ["conv", "mlp-batch"])
@pytest.mark.parametrize("batch_norm", ["keep", "recompute"])
def test_filter_normalised_planes_do_not_see_the_scale_of_a_batch_norm_network(digits, kind, batch_norm):
    model = network(kind).double()
    x, y = digits[0].double(), digits[1]
    for m in model.modules():
        if isinstance(m, nn.modules.batchnorm._BatchNorm):
            m.eps = 1e-300
    scaled = copy.deepcopy(model)
    rescale_batch_norm(scaled)
    torch.testing.assert_close(model.eval()(x), scaled.eval()(x))
    a = np.linspace(-0.5, 0.5, 3)
    seen, raw = [], []
    for m in (model, scaled):
        directions = [planes.random_direction(m, seed) for seed in (1, 2)]
        seen.append(landscape.loss_plane(m, x, y, directions, a, a, batch_norm=batch_norm).loss)
        directions = [planes.random_direction(m, seed, normalise=None) for seed in (1, 2)]
        raw.append(landscape.loss_plane(m, x, y, directions, a, a, batch_norm=batch_norm).loss)
    np.testing.assert_allclose(*seen, rtol=1e-9)
    assert abs(raw[0] / raw[1] - 1).max() > 0.01


def test_filter_normalised_planes_do_not_see_the_scale_of_relu_layers(digits):
    model, scaled = network("mlp").double(), network("mlp").double()
    x, y = digits[0].double(), digits[1]
    with torch.no_grad():
        scaled[1].weight.mul_(8.0), scaled[1].bias.mul_(8.0), scaled[3].weight.div_(8.0)
    torch.testing.assert_close(model(x), scaled(x))
    a = np.linspace(-1, 1, 3)
    for vectors in ("zero", "whole", "entry"):
        seen = [
            landscape.loss_plane(
                m, x, y, [planes.random_direction(m, seed, vectors=vectors) for seed in (1, 2)], a, a
            ).loss
            for m in (model, scaled)
        ]
        np.testing.assert_allclose(*seen, rtol=1e-9)


def test_filters_are_normalised_once_each():
    model = network("conv")
    raw = planes.random_direction(model, 3, normalise=None, vectors="entry")
    sizes = [p.numel() for p in model.parameters()]
    for vectors in ("zero", "whole", "entry"):
        u = planes.random_direction(model, 3, vectors=vectors)
        for part, before, p in zip(u.split(sizes), raw.split(sizes), model.parameters(), strict=True):
            part, before = part.view_as(p), before.view_as(p)
            if p.ndim > 1:
                torch.testing.assert_close(part.flatten(1).norm(dim=1), p.detach().flatten(1).norm(dim=1))
                cosine = F.cosine_similarity(part.flatten(1), before.flatten(1))
                torch.testing.assert_close(cosine, torch.ones_like(cosine))
            elif vectors == "zero":
                assert not part.any()
            elif vectors == "whole":
                torch.testing.assert_close(part.norm(), p.detach().norm())
            else:
                torch.testing.assert_close(part, p.detach().abs() * before.sign())


def test_a_filter_of_zeros_gives_no_direction():
    model = nn.Linear(3, 2)
    with torch.no_grad():
        model.weight[0] = 0
    u = planes.random_direction(model, 0)
    assert u[:3].tolist() == [0.0] * 3 and torch.isfinite(u).all()


def test_directions_depend_on_the_seed_alone():
    model = network("mlp")
    state = torch.get_rng_state()
    one, same, other = (planes.random_direction(model, seed) for seed in (1, 1, 2))
    assert torch.equal(one, same) and not torch.equal(one, other)
    assert torch.equal(torch.get_rng_state(), state)
    assert abs(F.cosine_similarity(one, other, dim=0)) < 0.2


@pytest.mark.parametrize(
    "layer", [nn.ReLU(), nn.Threshold(1.0, 0.0), nn.Sequential(nn.ReLU(), nn.AdaptiveMaxPool2d(6))], ids=repr
)
def test_units_that_are_dead_here_may_live_far_away(digits, layer):
    with lrlib.seeded(0):
        model = nn.Sequential(nn.Conv2d(1, 4, 3), layer, nn.Flatten(), nn.Linear(144, 10))
    nn.init.constant_(model[0].bias, -8.0)
    u, v = (planes.random_direction(model, seed) for seed in (0, 1))
    plane = landscape.loss_plane(model, *digits, (u, v), [-20.0, 0.0], [0.0, 20.0])
    theta = planes.parameter_vector(model)
    expected = [[direct(model, *digits, theta + s * u + t * v) for s in (-20, 0)] for t in (0, 20)]
    assert expected[0][1] < 2.5 and max(map(max, expected)) > 20
    np.testing.assert_allclose(plane.loss, expected, rtol=1e-4)


def test_losses_that_are_not_finite_stay(digits):
    model = network("mlp")
    u = 1e30 * planes.random_direction(model, 1)
    line = landscape.loss_line(model, *digits, u, [0.0, 1.0, 1e8])
    assert np.isfinite(line.loss[0]) and not np.isfinite(line.loss[1:]).all()
    plane = landscape.Plane(np.arange(4.0), np.arange(4.0), np.full((4, 4), np.nan), "loop")
    with pytest.raises(ValueError, match="finite loss"):
        landscape.negative_curvature(plane)


def state(model):
    return (
        {name: value.clone() for name, value in model.state_dict().items()},
        [m.training for m in model.modules()],
        [getattr(m, "momentum", None) for m in model.modules()],
        [sorted(vars(m)) for m in model.modules()],
    )


@pytest.mark.parametrize("settings", [{"method": "batched"}, {"method": "loop"}, {"batch_norm": "recompute"}])
@pytest.mark.parametrize("fail_at", [None, 1, 2])
def test_the_model_is_left_as_it_was(digits, settings, fail_at):
    model = network("conv")
    model[1].eval()
    before, calls = state(model), []

    def loss(out, y):
        calls.append(1)
        if len(calls) == fail_at:
            raise KeyboardInterrupt
        return F.cross_entropy(out, y)

    u = planes.random_direction(model, 1)
    try:
        landscape.loss_line(model, *digits, u, np.linspace(-1, 1, 20), loss=loss, **settings)
        assert fail_at is None
    except KeyboardInterrupt:
        assert fail_at is not None
    after = state(model)
    assert all(torch.equal(value, before[0][name]) for name, value in after[0].items())
    assert after[1:] == before[1:]
    assert all(p.grad is None for p in model.parameters())
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in model.modules())


def test_no_progress_bar_where_there_is_no_terminal(digits, capsys):
    model = network("mlp")
    landscape.loss_line(model, *digits, planes.random_direction(model), [0.0, 1.0])
    assert capsys.readouterr() == ("", "")


def test_pca_finds_the_plane_of_a_planar_path():
    generator = torch.Generator().manual_seed(0)
    basis = torch.linalg.qr(torch.randn(30, 2, generator=generator, dtype=torch.float64))[0].T
    coefficients = torch.randn(12, 2, generator=generator, dtype=torch.float64)
    path = list(5 + coefficients @ basis)
    directions, explained = planes.pca_directions(path)
    torch.testing.assert_close(directions @ directions.T, torch.eye(2, dtype=torch.float64))
    assert explained.sum() == pytest.approx(1.0) and explained[0] >= explained[1]
    projection = planes.project(path, path[-1], directions)
    assert projection.explained == pytest.approx(1.0) and projection.distance.max() < 1e-12
    rebuilt = path[-1] + torch.as_tensor(projection.coordinates) @ directions
    torch.testing.assert_close(rebuilt, torch.stack(path))


def test_projection_equals_what_pca_says_and_takes_skew_directions():
    generator = torch.Generator().manual_seed(0)
    path = list(torch.randn(9, 20, generator=generator, dtype=torch.float64).cumsum(0))
    directions, explained = planes.pca_directions(path)
    projection = planes.project(path, path[-1], directions)
    assert projection.explained == pytest.approx(explained.sum())
    skew = torch.stack([directions[0], 3 * directions[0] + 0.1 * directions[1]])
    other = planes.project(path, path[-1], skew)
    np.testing.assert_allclose(other.distance, projection.distance, atol=1e-9)
    np.testing.assert_allclose(other.coordinates @ skew.numpy(), projection.coordinates @ directions.numpy())
    with pytest.raises(ValueError, match="independent"):
        planes.project(path, path[-1], [directions[0], 2 * directions[0]])
    with pytest.raises(ValueError, match="more than m=2"):
        planes.pca_directions(path[:2])
    with pytest.raises(ValueError, match="move"):
        planes.pca_directions([path[0]] * 4)
    with pytest.raises(ValueError, match="shapes"):
        planes.project(path, path[-1][:-1], directions)


def test_negative_curvature_counts():
    a = np.linspace(-2, 2, 41)
    half = np.where(a < 0, a**3, a**3)  # curved down on the left half
    plane = landscape.Plane(a, a, half + 0 * a[:, None] + 10 * a[:, None] ** 2, "loop")
    assert landscape.negative_curvature(plane) == pytest.approx(0.5, abs=0.03)
    broken = plane.loss.copy()
    broken[:, -8:] = np.inf  # of the right half; what is left is mostly the left one
    assert landscape.negative_curvature(landscape.Plane(a, a, broken, "loop")) > 0.55
    with pytest.raises(ValueError, match="equally spaced"):
        landscape.plane_curvature(landscape.Plane(a**3, a, plane.loss, "loop"))
    with pytest.raises(ValueError, match="3 x 3"):
        landscape.plane_curvature(landscape.Plane(a[:2], a, plane.loss[:, :2], "loop"))


def test_arguments_are_checked(digits):
    model = network("mlp")
    u = planes.random_direction(model)
    line = landscape.loss_line
    with pytest.raises(ValueError, match="direction"):
        line(model, *digits, u[:-1], [0, 1])
    with pytest.raises(ValueError, match="direction: must be finite"):
        line(model, *digits, u * float("nan"), [0, 1])
    with pytest.raises(ValueError, match="strictly increasing"):
        line(model, *digits, u, [0, 1, 1])
    with pytest.raises(ValueError, match="lengths 60 and 59"):
        line(model, digits[0], digits[1][:-1], u, [0, 1])
    with pytest.raises(ValueError, match="batch_norm"):
        line(model, *digits, u, [0, 1], batch_norm="reset")
    with pytest.raises(ValueError, match="method"):
        line(model, *digits, u, [0, 1], method="fast")
    with pytest.raises(ValueError, match="must return a scalar"):
        line(model, *digits, u, [0, 1], loss=lambda out, y: F.cross_entropy(out, y, reduction="none"))
    with pytest.raises(ValueError, match="directions: must be 2"):
        landscape.loss_plane(model, *digits, [u], [0, 1], [0, 1])
    with pytest.raises(ValueError, match="vectors"):
        planes.random_direction(model, vectors="none")
    with pytest.raises(ValueError, match="vectors"):
        planes.random_direction(model, normalise=None, vectors="whole")
    with pytest.raises(ValueError, match="requires a gradient"):
        planes.random_direction(network("mlp").requires_grad_(False))


def test_drawing_clips_what_is_not_finite():
    a = np.linspace(-1, 1, 11)
    loss = 0.1 + a**2 + a[:, None] ** 2
    loss[0, 0], loss[-1, -1], loss[0, -1] = np.nan, np.inf, 1e30
    plane = landscape.Plane(a, a, loss, "loop")
    fig, flat = plt.subplots()
    landscape.draw_plane(flat, plane, top=3.0)
    landscape.draw_path(flat, planes.Projection(np.array([[0.0, 0.0], [0.5, 0.5]]), np.array([0.0, 2.5]), 0.875))
    assert flat.get_title(loc="left") or flat.get_title()
    fig.savefig(io.BytesIO(), format="png")
    plt.close(fig)
    with pytest.raises(ValueError, match="> 0"):
        landscape.draw_plane(flat, landscape.Plane(a, a, loss - 1, "loop"), top=3.0)
    with pytest.raises(ValueError, match=r"top=0.05: must be finite and >= 0\.1"):
        landscape.draw_plane(flat, plane, top=0.05)
    with pytest.raises(ValueError, match="finite losses"):
        landscape.draw_plane(flat, landscape.Plane(a, a, loss * np.nan, "loop"))
    with pytest.raises(ValueError, match="must have 2"):
        landscape.draw_path(flat, planes.Projection(np.zeros((3, 1)), np.zeros(3), 1.0))


def test_a_flat_plane_is_drawn():
    a = np.linspace(-1, 1, 5)
    fig, ax = plt.subplots()
    landscape.draw_plane(ax, landscape.Plane(a, a, np.ones((5, 5)), "loop"))
    fig.savefig(io.BytesIO(), format="png")
    plt.close(fig)
    assert ax.get_xlim() == (-1, 1)


def test_targets_that_are_shares_of_the_classes(digits):
    model = network("mlp")
    shares = F.one_hot(digits[1], 10) * 0.9 + 0.01
    u = planes.random_direction(model)
    for y in (digits[1], shares):
        lines = [
            landscape.loss_line(model, digits[0], y, u, [0.0, 1.0], loss=loss).loss
            for loss in (F.cross_entropy, lambda out, y: F.cross_entropy(out, y))
        ]
        np.testing.assert_allclose(*lines, rtol=1e-5)


@pytest.mark.parametrize("way", ["list", "function"])
@pytest.mark.parametrize("position", [[0.0, 0.5, 1.0], [-1.0, 0.0, 1.0]])
def test_a_weight_that_is_reached_by_another_way_moves_too(digits, way, position):
    with lrlib.seeded(0):
        model, plain = Alias(way), nn.Sequential(nn.Flatten(), nn.Linear(64, 10))
    plain[1].load_state_dict(model.layer.state_dict())
    u = planes.random_direction(model, 1)
    expected = landscape.loss_line(plain, *digits, u, position).loss
    for method in ("auto", "loop"):
        found = landscape.loss_line(model, *digits, u, position, method=method).loss
        np.testing.assert_allclose(found, expected, rtol=1e-5)
    if way == "list":
        with pytest.raises(ValueError, match="another way than its name"):
            landscape.loss_line(model, *digits, u, position, method="batched")


@pytest.mark.parametrize("method", ["batched", "loop"])
def test_a_layer_that_is_used_twice_is_left_as_it_was(digits, method):
    with lrlib.seeded(0):
        layer = nn.Linear(64, 64)
        model = nn.Sequential(nn.Flatten(), layer, nn.Tanh(), layer, nn.Linear(64, 10))
    before, u = planes.parameter_vector(model), planes.random_direction(model, 1)
    lines = [landscape.loss_line(model, *digits, u, [-1, 0, 1], method=method).loss for _ in range(2)]
    np.testing.assert_array_equal(*lines)
    torch.nn.utils.vector_to_parameters(before + u, model.parameters())
    assert F.cross_entropy(model(digits[0]), digits[1]).item() == pytest.approx(lines[0][2], rel=1e-5)
    assert all(isinstance(p, nn.Parameter) for p in model.parameters())


def test_losses_in_half_precision_are_added_in_float32(digits):
    model = network("conv").bfloat16()
    x, y = digits[0].bfloat16(), digits[1]
    with torch.no_grad():
        exact = F.cross_entropy(model.eval()(x).double(), y).item()
    line = landscape.loss_line(model, x, y, planes.random_direction(model, 1), [0, 1], batch_size=5)
    assert line.loss[0] == pytest.approx(exact, rel=1e-3)


def test_batches_do_not_decide_a_plane(digits):
    model = nn.Sequential(nn.Flatten(), nn.Linear(64, 10), nn.BatchNorm1d(10, track_running_stats=False))
    u = planes.random_direction(model, 1)
    assert np.isfinite(landscape.loss_line(model, *digits, u, [0, 1]).loss).all()
    with pytest.raises(ValueError, match="batch_size=5: must be >= "):
        landscape.loss_line(model, *digits, u, [0, 1], batch_size=5)


def buffered(gain):
    model = nn.Sequential(nn.Flatten(), nn.Linear(64, 10))
    model.register_buffer("gain", torch.tensor(gain))
    return model


@pytest.mark.parametrize(
    "ends, named",
    [
        ([buffered(1.0), buffered(2.0)], "gain"),
        ([buffered(1.0).requires_grad_(False), buffered(1.0).requires_grad_(False)], None),
        ([nn.Sequential(nn.Linear(64, 10), nn.ReLU()), nn.Sequential(nn.Linear(64, 10), nn.Tanh())], "layers of model"),
        ([nn.Sequential(nn.Linear(9, 9).requires_grad_(False), nn.Linear(9, 2)) for _ in range(2)], "0.weight"),
    ],
    ids=["buffer", "nothing trained", "activation", "frozen"],
)
def test_networks_that_differ_in_what_is_not_trained_have_no_line(digits, ends, named):
    with pytest.raises(ValueError, match=f"other: .*{named}" if named else "requires a gradient"):
        landscape.loss_between(*ends, *digits, [0, 1])


class Times(nn.Module):
    """A number that no state and no text of the module tells, and a lock, which cannot be compared."""

    def __init__(self, gain):
        super().__init__()
        self.layer, self.gain, self.lock = nn.Linear(64, 10), gain, threading.Lock()

    def forward(self, x):
        return self.gain * self.layer(x.flatten(1))


def hooked(gain):
    model = nn.Sequential(nn.Flatten(), nn.Linear(64, 10))
    model[1].register_forward_hook(lambda module, inputs, output: gain * output)
    return model


@pytest.mark.parametrize("make", [Times, hooked], ids=["number", "hook"])
def test_networks_that_compute_something_else_have_no_line(digits, make):
    ends = []
    for seed, gain in enumerate((1.0, 1.0, 3.0)):
        with lrlib.seeded(seed):
            ends.append(make(gain))
    line = landscape.loss_between(*ends[:2], *digits, [0, 1])
    assert line.loss[1] == pytest.approx(F.cross_entropy(ends[1](digits[0]), digits[1]).item(), rel=1e-5)
    with pytest.raises(ValueError, match="other: has the loss .* must differ in parameters alone"):
        landscape.loss_between(ends[0], ends[2], *digits, [0, 1])
    with pytest.raises(ValueError, match="same shapes and types"):
        landscape.loss_between(ends[0], ends[1].double(), *digits, [0, 1])


def test_what_is_no_number_has_no_direction():
    with pytest.raises(ValueError, match="path: must be finite"):
        planes.pca_directions([torch.full((3,), math.nan)] * 4)
    with pytest.raises(ValueError, match="complex"):
        planes.random_direction(nn.Linear(2, 2, dtype=torch.complex64))


def test_there_are_no_more_directions_than_parameters():
    path = list(torch.eye(3)[:, :2])
    assert planes.pca_directions([*path, torch.ones(2)], 2)[0].shape == (2, 2)
    with pytest.raises(ValueError, match="m=3: must be <= 2"):
        planes.pca_directions([*path, torch.ones(2)], 3)
    with pytest.raises(ValueError, match="directions: are 3 of 2 numbers, must be linearly independent"):
        planes.project(path, path[0], path)
    with pytest.raises(ValueError, match="directions: are none, must be at least 1"):
        planes.project(path, path[0], [])


@pytest.mark.parametrize("method", ["auto", "batched", "loop"])
def test_what_a_module_keeps_of_a_forward_pass_is_that_of_the_users_own(method):
    class Keeping(nn.Linear):
        def forward(self, x):
            self.last = x.detach()
            return super().forward(x)

    model = nn.Sequential(nn.Flatten(), nn.Linear(64, 8), nn.ReLU(), Keeping(8, 10))
    x, y = lrlib.digits().x_train[:32], lrlib.digits().y_train[:32]
    model(x)
    before = model[3].last
    direction = planes.random_direction(model, seed=0, normalise=None)
    landscape.loss_line(model, x, y, direction, [-1.0, 0.0, 1.0], method=method)
    assert model[3].last is before
    torch.save(model.state_dict(), io.BytesIO())
    copy.deepcopy(model)


def test_small_planes_must_be_equally_spaced_too():
    a, b = 1e-9 * np.array([0.0, 1.0, 3.0, 4.0]), 1e-9 * np.array([-1.0, 0.0, 1.0])
    with pytest.raises(ValueError, match="equally spaced"):
        lrlib.plane_curvature(landscape.Plane(a, b, (a**2 + b[:, None] ** 2) * 1e18, "loop"))


def test_a_network_with_a_buffer_more_is_another_one():
    ends = [nn.Sequential(nn.Linear(2, 2)) for _ in range(2)]
    ends[0][0].register_buffer("q", torch.ones(1))
    for pair in (ends, ends[::-1]):
        with pytest.raises(ValueError, match="other: 0.q, which is not trained, differs"):
            lrlib.loss_between(*pair, torch.ones(3, 2), torch.zeros(3, dtype=torch.long), [0, 1])


def test_directions_of_very_different_lengths_are_independent():
    first, second = torch.eye(3, dtype=torch.float64)[:2]
    found = planes.project([torch.ones(3).double()], torch.zeros(3), [1e6 * first, 1e-5 * second])
    assert found.coordinates[0] == pytest.approx([1e-6, 1e5])
    with pytest.raises(ValueError, match="linearly independent"):
        planes.project([torch.ones(3).double()], torch.zeros(3), [first, first + 1e-12 * second])
    with pytest.raises(ValueError, match="path: is empty"):
        planes.project([], torch.zeros(3), [first])


def test_a_direction_of_a_model_with_an_empty_parameter_is_drawn():
    model = nn.Sequential(nn.Linear(3, 2))
    model.register_parameter("none", nn.Parameter(torch.empty(0, 3)))
    assert planes.random_direction(model).shape == (8,)
