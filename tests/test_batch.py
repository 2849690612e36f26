"""Noise scale, critical batch and noisy descent against closed forms; accumulation and data parallelism as one run."""

import copy

import joblib
import numpy as np
import pytest
import torch
from scipy import stats
from torch import nn
from torch.nn import functional as F

import lrlib

SIZES = 2.0 ** np.arange(0, 13, 2)


@pytest.fixture(scope="module")
def task():
    """A small network in float64, with examples, and its noise from the gradient of each example."""
    data = lrlib.digits()
    x, y = data.x_train[:60].double(), data.y_train[:60]
    with lrlib.seeded(0):
        model = lrlib.mlp(64, 4, 10).double()
    each = []
    for k in range(len(x)):
        gradients = torch.autograd.grad(F.cross_entropy(model(x[k : k + 1]), y[k : k + 1]), list(model.parameters()))
        each.append(torch.cat([g.flatten() for g in gradients]))
    gradients = torch.stack(each)
    signal = gradients.mean(0).square().sum().item()
    return model, x, y, signal, (gradients - gradients.mean(0)).square().sum(1).mean().item()


def test_both_estimates_are_unbiased(task):
    model, x, y, signal, noise = task
    for small, big in ((1, 8), (4, 64)):
        measured = lrlib.gradient_noise_scale(model, x, y, small=small, big=big, draws=400)
        for values, exact in ((measured.signal, signal), (measured.noise, noise)):
            error = values.std(ddof=1) / np.sqrt(len(values))
            assert abs(values.mean() - exact) < 4 * error and error < 0.3 * exact
    low, high = measured.interval()
    assert low < noise / signal < high < 2 * low and low < measured.scale < high


def test_a_stack_is_measured_as_its_networks_are(task):
    model, x, y, *_ = task
    other = copy.deepcopy(model)
    nn.init.zeros_(other[3].weight)
    options = {"small": 4, "big": 16, "draws": 5, "seed": 3}
    singles = [lrlib.gradient_noise_scale(some, x, y, **options) for some in (model, other)]
    both = lrlib.gradient_noise_scale(lrlib.Stack([model, other]), x, y, **options)
    assert both.scale.shape == (2,) and both.signal.shape == (2, 5)
    for name in ("signal", "noise"):
        expected = [getattr(single, name) for single in singles]
        np.testing.assert_allclose(getattr(both, name), expected, rtol=1e-9)
    np.testing.assert_allclose(np.transpose(both.interval()), [single.interval() for single in singles], rtol=1e-9)
    assert all(p.grad is None for p in model.parameters())


def test_fiellers_interval_covers_and_may_have_no_end():
    rng = np.random.default_rng(0)
    inside = unbounded = 0
    for _ in range(1000):
        measured = lrlib.NoiseScale(rng.normal(1.0, 1.0, 8), rng.normal(20.0, 2.0, 8))
        low, high = measured.interval(0.9)
        inside += low <= 20 <= high
        unbounded += np.isinf(high)
    assert 0.87 < inside / 1000 < 0.93 and 20 < unbounded < 500
    silent = lrlib.NoiseScale(np.array([-1.0, 1.0, -1.0, 1.1]), np.full(4, 5.0))
    low, high = silent.interval()
    assert low > 0 and high == np.inf  # it is at least so large
    lost = lrlib.NoiseScale(np.array([-1.0, 1.0, -1.0, 1.1]), np.array([-9.0, 9.0, 5.0, -4.0]))
    assert lost.interval() == (0.0, np.inf)


def test_what_has_no_noise_scale_is_refused(task):
    model, x, y, *_ = task
    for options, name in (({"small": 0}, "small"), ({"big": 12}, "big"), ({"big": 8}, "big"), ({"draws": 0}, "draws")):
        with pytest.raises(ValueError, match=name):
            lrlib.gradient_noise_scale(model, x, y, **options)
    normed = lrlib.mlp(64, 4, 10, norm="batch").double()
    with pytest.raises(ValueError, match="BatchNorm"):
        lrlib.gradient_noise_scale(normed, x, y)
    assert lrlib.gradient_noise_scale(normed.eval(), x, y, draws=3).scale > 0
    with pytest.raises(ValueError, match="draws"):
        lrlib.gradient_noise_scale(model, x, y, draws=2).interval()


class Recurrent(nn.Module):
    """A layer without a batching rule, and one that the loss does not see."""

    def __init__(self):
        super().__init__()
        self.layer, self.head, self.unused = nn.GRU(8, 4, batch_first=True), nn.Linear(4, 10), nn.Linear(3, 3)

    def forward(self, x):
        return self.head(self.layer(x.view(-1, 8, 8))[0][:, -1])


class Words(nn.Module):
    """Gradients that are sparse."""

    def __init__(self):
        super().__init__()
        self.table = nn.EmbeddingBag(32, 10, mode="sum", sparse=True)

    def forward(self, x):
        return self.table((16 * x).flatten(1).clamp(0, 31).long())


@pytest.mark.parametrize(
    "make", [Recurrent, Words, lambda: nn.Sequential(nn.Flatten(), nn.Linear(64, 10), nn.Dropout(0.0))]
)
def test_a_network_that_cannot_be_stacked_has_a_noise_scale(task, make):
    _, x, y, *_ = task
    with lrlib.seeded(0):
        model = make().double()
    F.cross_entropy(model(x[:1]), y[:1]).backward()
    length = sum(p.grad.to_dense().square().sum().item() for p in model.parameters() if p.grad is not None)
    measured = lrlib.gradient_noise_scale(model, x[:1], y[:1], small=2, big=8, draws=3)  # of one example
    np.testing.assert_allclose(measured.signal, length, rtol=1e-9)
    np.testing.assert_allclose(measured.noise, 0, atol=1e-9 * length)


def test_dropout_draws_from_the_seed_and_leaves_the_random_numbers_alone(task):
    _, x, y, *_ = task
    model, before = nn.Sequential(nn.Flatten(), nn.Dropout(), nn.Linear(64, 10)).double(), torch.get_rng_state()
    signals = [lrlib.gradient_noise_scale(model, x, y, draws=2, seed=seed).signal for seed in (0, 0, 1)]
    assert (signals[0] == signals[1]).all() and (signals[0] != signals[2]).all()
    assert torch.equal(torch.get_rng_state(), before)


def test_what_mixes_examples_or_trains_nothing_has_no_noise_scale(task):
    _, x, y, *_ = task
    mixing = nn.Sequential(nn.Flatten(), nn.Linear(64, 10), nn.BatchNorm1d(10, track_running_stats=False)).double()
    for model in (mixing.eval(), lrlib.Stack([mixing.eval()])):
        with pytest.raises(ValueError, match="BatchNorm layer '2' mixes"):
            lrlib.gradient_noise_scale(model, x, y)
    model = nn.Sequential(nn.Flatten(), nn.Linear(64, 10)).double()
    with pytest.raises(ValueError, match="loss: returned shape"):
        lrlib.gradient_noise_scale(model, x, y, loss=lambda z, t: F.cross_entropy(z, t, reduction="none"))
    with pytest.raises(ValueError, match="model: must have a parameter"):
        lrlib.gradient_noise_scale(model.requires_grad_(False), x, y)


def test_the_hyperbola_is_found_again_and_its_parts_agree():
    fit = lrlib.critical_batch_size(SIZES, 30 + 5000 / SIZES)
    np.testing.assert_allclose([fit.steps_min, fit.examples_min], [30, 5000], rtol=1e-9)
    steps, examples = fit.steps(SIZES), fit.examples(SIZES)
    np.testing.assert_allclose((steps / fit.steps_min - 1) * (examples / fit.examples_min - 1), 1, rtol=1e-9)
    assert fit.steps(fit.batch_size) == pytest.approx(2 * fit.steps_min)
    assert fit.examples(fit.batch_size) == pytest.approx(2 * fit.examples_min)
    assert lrlib.critical_batch_size(SIZES, 5000 / SIZES**1.1).batch_size == np.inf
    assert lrlib.critical_batch_size(SIZES, np.full(len(SIZES), 7.0)).batch_size == pytest.approx(0, abs=1e-9)


@pytest.mark.parametrize(
    ("sizes", "steps", "name"),
    [([1], [1], "batch_sizes"), ([1, 2], [1, np.inf], "steps"), ([1, 2], [1, 2, 3], "batch_sizes"),
     ([2, 2], [1, 2], "batch_sizes"), ([0, 1], [1, 2], "batch_sizes")],
)  # fmt: skip
def test_what_has_no_hyperbola_is_refused(sizes, steps, name):
    with pytest.raises(ValueError, match=name):
        lrlib.critical_batch_size(sizes, steps)


def test_noisy_descent_is_the_mean_of_noisy_walks_and_no_other_rate_is_better():
    h, start, variance, batch = np.array([0.1, 1.0]), np.array([4.0, 1.0]), np.array([1.0, 2.0]), 3.0
    rates, losses = lrlib.noisy_descent(h, start, variance, batch, target=0.12)
    rng = np.random.default_rng(0)
    theta = np.sqrt(start) * np.ones((100_000, 2))
    for rate, expected in zip(rates, losses[1:], strict=True):
        noise = np.sqrt(variance / batch) * rng.standard_normal(theta.shape)
        theta = theta - rate * (h * theta + noise)
        assert (theta**2 @ h).mean() / 2 == pytest.approx(expected, rel=0.02)
    for factor in (0.9, 1.1):
        v = (1 - factor * rates[0] * h) ** 2 * start + (factor * rates[0]) ** 2 * variance / batch
        assert h @ v / 2 > losses[1]
    one, _ = lrlib.noisy_descent([2.0], [1.0], [3.0], 5.0, 0.01)
    np.testing.assert_allclose(one, lrlib.inverse_time(one[0], one[0] * 2.0)(np.arange(len(one))))


def test_noisy_descent_trades_steps_for_examples_along_a_hyperbola():
    h = np.geomspace(0.03, 1, 12)
    steps = [len(lrlib.noisy_descent(h, 1 / h, 10 * h, size, target=0.6)[0]) for size in SIZES]
    fit = lrlib.critical_batch_size(SIZES, steps)
    np.testing.assert_allclose(fit.steps(SIZES), steps, rtol=0.05)
    assert 50 < fit.batch_size < 200


@pytest.mark.parametrize(
    ("change", "name"),
    [({"h": [1.0, -1.0]}, "h"), ({"variance": [1.0]}, "variance"), ({"mean_square": [1.0, -1.0]}, "mean_square"),
     ({"batch_size": 0}, "batch_size"), ({"target": 5.0}, "target"), ({"limit": 2}, "limit")],
)  # fmt: skip
def test_what_cannot_descend_is_refused(change, name):
    arguments = {"h": [1.0, 2.0], "mean_square": [1.0, 1.0], "variance": [1.0, 1.0], "batch_size": 1, "target": 0.1}
    with pytest.raises(ValueError, match=f"^{name}"):
        lrlib.noisy_descent(**(arguments | change))


# Accumulation and data parallelism -----------------------------------------------------------------------------------

ORDER = list(lrlib.batches(60, 24, steps=12))
RATE = lrlib.cosine(0.1, T_max=12)


def network(norm=None):
    with lrlib.seeded(0):
        return lrlib.mlp(64, 8, 10, norm=norm).double()


def trained(model, optimizer, x, y, parts):
    """The weights after the run, each batch in so many parts whose mean losses are averaged."""
    scheduler = lrlib.ScheduleLR(optimizer, RATE)
    for rows in ORDER:
        optimizer.zero_grad()
        for part in rows.chunk(parts):
            (F.cross_entropy(model(x[part]), y[part]) / parts).backward()
        optimizer.step()
        scheduler.step()
    return torch.cat([p.detach().flatten() for p in model.parameters()])


OPTIMIZERS = {
    "SGD": lambda p: torch.optim.SGD(p, lr=1.0, momentum=0.9),
    "AdamW": lambda p: torch.optim.AdamW(p, lr=1.0),
}


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_accumulation_is_the_run_at_the_whole_batch_but_for_batchnorm(task, name):
    _, x, y, *_ = task
    runs = {}
    for norm in (None, "batch"):
        models = [network(norm) for _ in (1, 4)]
        runs[norm] = [
            trained(model, OPTIMIZERS[name](model.parameters()), x, y, parts)
            for model, parts in zip(models, (1, 4), strict=True)
        ]
    torch.testing.assert_close(*runs[None], rtol=0, atol=1e-10)
    assert (runs["batch"][0] - runs["batch"][1]).abs().max() > 1e-4


CASES = [("SGD", None), ("AdamW", None), ("SGD", "batch")]


def shared(rank, meeting, x, y):
    """One of two processes, which takes its half of every batch; returns its weights at the end of each run."""
    torch.distributed.init_process_group("gloo", init_method=meeting, rank=rank, world_size=2)
    ends = []
    for name, norm in CASES:
        model = nn.parallel.DistributedDataParallel(network(norm))
        optimizer = OPTIMIZERS[name](model.parameters())
        scheduler = lrlib.ScheduleLR(optimizer, RATE)
        for rows in ORDER:
            optimizer.zero_grad()
            mine = rows.chunk(2)[rank]
            F.cross_entropy(model(x[mine]), y[mine]).backward()  # averages the gradients of both
            optimizer.step()
            scheduler.step()
        ends.append(torch.cat([p.detach().flatten() for p in model.parameters()]))
    torch.distributed.destroy_process_group()
    return ends


@pytest.mark.skipif(
    not (torch.distributed.is_available() and torch.distributed.is_gloo_available()),
    reason="this torch has no gloo, through which two processes would talk",
)
def test_two_processes_are_one(task, tmp_path):
    _, x, y, *_ = task
    jobs = (joblib.delayed(shared)(rank, (tmp_path / "meeting").as_uri(), x, y) for rank in range(2))
    both = joblib.Parallel(n_jobs=2, backend="loky", batch_size=1, pre_dispatch="all", timeout=120)(jobs)
    for (name, norm), first, second in zip(CASES, *both, strict=True):
        assert (first == second).all()
        model = network(norm)
        one = trained(model, OPTIMIZERS[name](model.parameters()), x, y, parts=1)
        apart = (first - one).abs().max()
        assert apart > 1e-4 if norm else apart < 1e-10


@pytest.mark.parametrize("sizes, steps", [([1, 10, 100], [1000, 100, 10]), ([1, 2], [8, 4]), ([3, 6, 12], [4, 2, 1])])
def test_the_critical_batch_is_infinite_where_all_gains_are_perfect(sizes, steps):
    assert lrlib.critical_batch_size(sizes, steps).batch_size == np.inf


def test_fiellers_ends_are_where_students_test_turns():
    rng = np.random.default_rng(1)
    signal = rng.normal(3.0, 1.0, 6)
    measured = lrlib.NoiseScale(signal, 5 * signal + rng.normal(20.0, 2.0, 6))
    for end in measured.interval(0.9):
        assert stats.ttest_1samp(measured.noise - end * measured.signal, 0).pvalue == pytest.approx(0.1, rel=1e-6)


def test_a_descent_may_take_as_many_steps_as_its_limit_and_begins_above_its_target():
    assert len(lrlib.noisy_descent([1.0], [2.0], [2.0], 1, target=0.3, limit=3)[0]) == 3
    with pytest.raises(ValueError, match="^limit=2"):
        lrlib.noisy_descent([1.0], [2.0], [2.0], 1, target=0.3, limit=2)
    with pytest.raises(ValueError, match="^target=1.0"):
        lrlib.noisy_descent([1.0], [2.0], [2.0], 1, target=1.0)


def test_the_hyperbola_is_the_nearest_in_relative_error():
    sizes, steps = np.array([1.0, 10.0, 100.0, 1000.0]), np.array([1010.0, 90.0, 25.0, 9.0])
    fit = lrlib.critical_batch_size(sizes, steps)

    def error(more_steps, more_examples):
        return np.square((more_steps * fit.steps_min + more_examples * fit.examples_min / sizes) / steps - 1).sum()

    assert all(error(1, 1) < error(*change) for change in ((1.01, 1), (0.99, 1), (1, 1.01), (1, 0.99)))


def test_the_seed_chooses_the_examples(task):
    model, x, y, *_ = task
    first, same, other = (
        lrlib.gradient_noise_scale(model, x, y, small=4, big=8, draws=2, seed=seed).signal for seed in (0, 0, 1)
    )
    assert (first == same).all() and (first != other).all()


def test_an_interval_begins_at_zero_where_the_noise_could_be_zero():
    """Noise and signal go together, so that every ratio but some around theirs is left, zero among them."""
    signal = np.array([-1.0, 1.0, -1.0, 0.9])
    measured = lrlib.NoiseScale(signal, 5 * signal + np.array([0.3, 0.31, 0.29, 0.3]))
    assert stats.ttest_1samp(measured.noise, 0).pvalue > 0.5
    assert stats.ttest_1samp(measured.noise - 5 * measured.signal, 0).pvalue < 1e-3
    assert measured.interval() == (0.0, np.inf)


def test_a_signal_of_zero_in_every_draw_bounds_nothing():
    assert lrlib.NoiseScale(np.zeros(4), np.full(4, 5.0)).interval() == (0.0, np.inf)


class Counting(nn.Module):
    """It puts another tensor in the place of a buffer, and writes into a second one."""

    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(64, 10)
        self.register_buffer("mean", torch.zeros(1))
        self.register_buffer("calls", torch.zeros(1))

    def forward(self, x):
        self.mean, _ = self.mean + x.mean(), self.calls.add_(1)
        return self.layer(x.flatten(1))


def test_a_measurement_leaves_the_buffers(task):
    _, x, y, *_ = task
    model = Counting().double()
    before = dict(model.named_buffers())
    lrlib.gradient_noise_scale(model, x, y, draws=2)
    assert all(model.get_buffer(name) is buffer and buffer.item() == 0 for name, buffer in before.items())


def test_a_signal_that_is_measured_below_zero_bounds_nothing():
    assert lrlib.NoiseScale(np.array([-1.0, -1.1, -0.9, -1.05]), np.full(4, 5.0)).interval() == (0.0, np.inf)


def test_a_descent_ends_where_its_target_is_reached_exactly():
    rates, losses = lrlib.noisy_descent([1.0, 3.0], [2.0, 1.0], [2.0, 1.0], 4, target=0.3)
    again, _ = lrlib.noisy_descent([1.0, 3.0], [2.0, 1.0], [2.0, 1.0], 4, target=losses[-1])
    assert len(again) == len(rates) > 1
