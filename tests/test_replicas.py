"""Grids of replicas: equal to single runs in float64, divergence, memory, the choice of a way, bad input."""

import dataclasses
import sys
import types

import joblib
import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

import lrlib
from lrlib import replicas
from lrlib.replicas import Stack, train_grid


def double(data: lrlib.Dataset) -> lrlib.Dataset:
    """The data set in float64, which its constructor does not take."""
    copy = dataclasses.replace(data)
    for name in ("x_train", "x_test"):
        object.__setattr__(copy, name, getattr(data, name).double())
    return copy


DATA = double(lrlib.digits())

MODELS = {
    "mlp": lambda seed: lrlib.mlp(64, 16, 10, activation="tanh").double(),
    "mlp with batch norm": lambda seed: lrlib.mlp(64, 16, 12, 10, norm="batch").double(),
    "conv with batch norm": lambda seed: lrlib.conv_net(2).double(),
}


def single(make_model, rate, seed, steps, order=None, data=DATA, **settings):
    """The run of the plain loop that a replica must equal."""
    with lrlib.seeded(seed):
        model = make_model(seed)
    names = {"momentum": settings.pop("momentum", 0.0), "weight_decay": settings.pop("weight_decay", 0.0)}
    trained = [p for p in model.parameters() if p.requires_grad]
    schedule = lrlib.constant(rate) if isinstance(rate, float) else rate
    history = lrlib.train(
        model,
        data,
        schedule,
        steps=steps,
        optimizer=torch.optim.SGD(trained, lr=0.0, **names),
        seed=seed if order is None else order,
        **settings,
    )
    return model, history


def assert_equal_to_single_runs(grid, make_model, schedules, seeds, steps, tolerance=1e-9, **settings):
    for k, (name, rate) in enumerate(zip(grid.names, schedules, strict=True)):
        for s, seed in enumerate(seeds):
            model, history = single(make_model, rate, seed, steps, **settings)
            np.testing.assert_allclose(grid.loss[k, s, : len(history.loss)], history.loss, rtol=0, atol=tolerance)
            assert (-1 if history.diverged_at is None else history.diverged_at) == grid.diverged_at[k, s]
            np.testing.assert_allclose(grid.final_loss[k, s], history.final_loss, rtol=0, atol=tolerance)
            assert grid.accuracy[k, s] == history.accuracy
            state = grid.state_dict(name, seed)
            expected = model.state_dict()
            assert list(state) == list(expected)
            for key, value in expected.items():
                torch.testing.assert_close(state[key], value, rtol=0, atol=tolerance, equal_nan=True)


@pytest.mark.parametrize("way", ["batched", "loop"])
@pytest.mark.parametrize("momentum", [0.0, 0.9])
@pytest.mark.parametrize("name", MODELS)
def test_replicas_equal_single_runs_in_float64(name, momentum, way):
    schedules, seeds, settings = [0.02, lrlib.cosine(0.1, T_max=100)], [0, 3], {"batch_size": 16, "momentum": momentum}
    grid = train_grid(MODELS[name], DATA, schedules, seeds, steps=100, way=way, **settings)
    assert grid.way == way and grid.workers == 0
    assert_equal_to_single_runs(grid, MODELS[name], schedules, seeds, 100, **settings)


def smooth_labels(logits, labels):
    return F.cross_entropy(logits, labels, label_smoothing=0.1)


@pytest.mark.parametrize("way", ["batched", "loop"])
def test_weight_decay_own_loss_shared_order_and_evaluations(way):
    settings = {"batch_size": 20, "momentum": 0.5, "weight_decay": 0.01, "loss": smooth_labels, "eval_every": 10}
    make, rates, seeds = MODELS["mlp"], [0.05, 0.2], [1, 2, 5]
    grid = train_grid(make, DATA, rates, seeds, steps=25, order_seed=7, way=way, **settings)
    assert grid.eval_step.tolist() == [0, 10, 20, 25]
    assert_equal_to_single_runs(grid, make, rates, seeds, 25, order=7, **settings)
    _, history = single(make, 0.2, 5, 25, order=7, **settings)
    np.testing.assert_allclose(grid.test_loss[1, 2], history.test_loss, atol=1e-9)
    np.testing.assert_array_equal(grid.test_accuracy[1, 2], history.test_accuracy)


class Odd(nn.Module):
    """Tied weights, a frozen layer, and a parameter that the loss does not reach."""

    def __init__(self):
        super().__init__()
        self.frozen = nn.Linear(64, 12)
        self.frozen.requires_grad_(False)
        self.inner = nn.Linear(12, 12)
        self.again = self.inner
        self.unused = nn.Parameter(torch.ones(3))
        self.head = nn.Linear(12, 10)

    def forward(self, x):
        return self.head(torch.tanh(self.again(torch.tanh(self.inner(self.frozen(x.flatten(1)))))))


@pytest.mark.parametrize("way", ["batched", "loop"])
def test_tied_frozen_and_unused_parameters(way):
    settings = {"batch_size": 16, "momentum": 0.9, "weight_decay": 0.01}

    def make(seed):
        return Odd().double()

    grid = train_grid(make, DATA, [0.05, 0.1], [0, 1], steps=30, way=way, **settings)
    assert_equal_to_single_runs(grid, make, [0.05, 0.1], [0, 1], 30, **settings)


@pytest.mark.parametrize("way", ["batched", "loop"])
@pytest.mark.parametrize("kind", ["matrices", "vmap", "batch norm"])
def test_diverged_replicas_are_kept_marked_and_harm_nobody(kind, way):
    def make(seed):
        inner = lrlib.mlp(64, 16, 10, norm="batch" if kind == "batch norm" else None).double()
        return inner if kind == "matrices" else nn.Sequential(*inner, Cube())

    rates, seeds, settings = [0.001, 1e100, 0.002, 1e200], [0, 1], {"batch_size": 16, "momentum": 0.5, "eval_every": 5}
    grid = train_grid(make, DATA, rates, seeds, steps=20, way=way, **settings)
    assert (grid.diverged_at[[1, 3]] > 0).all() and (grid.diverged_at[[0, 2]] == -1).all()
    assert "4 diverged" in repr(grid)
    for k, s in np.argwhere(grid.diverged_at >= 0):
        step = grid.diverged_at[k, s]
        assert np.isnan(grid.loss[k, s, step:]).all() and np.isfinite(grid.loss[k, s, :step]).all()
        assert np.isnan(grid.test_loss[k, s, :-1][grid.eval_step[:-1] > step]).all()
    assert np.isfinite(grid.test_loss[[0, 2]]).all()
    alive = train_grid(make, DATA, [0.001, 0.002], seeds, steps=20, way=way, **settings)
    np.testing.assert_allclose(grid.loss[[0, 2]], alive.loss, atol=1e-12)
    np.testing.assert_allclose(grid.test_loss[[0, 2]], alive.test_loss, atol=1e-12)
    for k, rate in enumerate(rates):
        for s, seed in enumerate(seeds):
            model, history = single(make, rate, seed, 20, **settings)
            assert (-1 if history.diverged_at is None else history.diverged_at) == grid.diverged_at[k, s]
            if kind == "batch norm" and history.diverged_at is not None:
                continue  # its gradients are differences of numbers that are nearly equal
            np.testing.assert_allclose(grid.final_loss[k, s], history.final_loss, rtol=1e-9)
            for key, value in model.state_dict().items():
                state = grid.state_dict(rate, seed)
                torch.testing.assert_close(state[key], value, rtol=1e-7, atol=1e-9, equal_nan=True)


class Cube(nn.Module):
    """Makes weights that are too large overflow at once."""

    def forward(self, x):
        return x**3


def test_stack_of_matrices_equals_vmap_and_single_models(monkeypatch):
    with lrlib.seeded(0):
        models = [lrlib.mlp(64, 8, 6, 10, activation="gelu").double() for _ in range(6)]
    x = DATA.x_train[:20].view(2, 10, 1, 8, 8)
    expected = torch.stack([model(x[r // 3]) for r, model in enumerate(models)])
    torch.testing.assert_close(Stack(models)(x), expected, rtol=0, atol=1e-12)
    monkeypatch.setattr(replicas, "_layers", lambda model: None)
    torch.testing.assert_close(Stack(models)(x), expected, rtol=0, atol=1e-12)


def test_stack_leaves_the_models_alone_and_keeps_statistics_apart():
    with lrlib.seeded(0):
        models = [lrlib.mlp(64, 8, 10, norm="batch").double() for _ in range(2)]
    stack = Stack(models)
    stack(DATA.x_train[None, :10])
    stack(DATA.x_train[:20].view(2, 10, 1, 8, 8))
    assert models[0].state_dict()["2.num_batches_tracked"] == 0
    for r, model in enumerate(models):
        model(DATA.x_train[:10])
        model(DATA.x_train[10 * r : 10 * r + 10])
        for key, value in model.state_dict().items():
            torch.testing.assert_close(stack.replica(r)[key], value)


def test_which_models_run_as_matrix_products():
    inner = nn.Linear(8, 8)
    tied = nn.Sequential(nn.Flatten(), nn.Linear(8, 8), nn.Linear(8, 8))
    tied[2].weight = tied[1].weight
    frozen = lrlib.mlp(8, 4, 2)
    frozen[1].requires_grad_(False)
    hooked = lrlib.mlp(8, 4, 2)
    hooked[2].register_forward_hook(lambda *_: None)
    repeated = nn.Sequential(nn.Flatten(), inner, inner)
    others = [tied, frozen, hooked, repeated, lrlib.mlp(8, 4, 2, norm="batch"), lrlib.conv_net(2), nn.Linear(2, 2)]
    assert [replicas._layers(model) is None for model in others] == [True] * len(others)
    assert replicas._layers(lrlib.mlp(8, 4, 2)) is not None
    assert replicas._layers(nn.Sequential(nn.Flatten(), nn.Linear(8, 2, bias=False))) is not None


def test_stack_refuses_what_does_not_fit():
    with pytest.raises(ValueError, match="at least one"):
        Stack([])
    with pytest.raises(ValueError, match="one architecture"):
        Stack([lrlib.mlp(4, 3), lrlib.mlp(4, 2)])
    with pytest.raises(ValueError, match="divisor of 3"):
        Stack([lrlib.mlp(64, 10)] * 3)(torch.zeros(2, 5, 1, 8, 8))


class Dropout(nn.Module):
    def __init__(self):
        super().__init__()
        self.inner = lrlib.mlp(64, 8, 10)

    def forward(self, x):
        return self.inner(F.dropout(x, 0.2, self.training))


class Branching(Dropout):
    def forward(self, x):
        logits = self.inner(x)
        return logits * 2 if logits.mean() > 0 else logits


@pytest.mark.parametrize("kind", [Dropout, Branching])
def test_a_model_that_cannot_be_batched_is_looped_and_says_why(kind):
    grid = train_grid(lambda seed: kind(), lrlib.digits(), [0.1, 0.2], [0], steps=5)
    assert grid.way == "loop" and "cannot be batched" in grid.why
    _, history = single(lambda seed: kind(), 0.2, 0, 5, data=lrlib.digits())
    np.testing.assert_allclose(grid.loss[1, 0], history.loss, rtol=1e-6)
    with pytest.raises(ValueError, match="way='batched': must be 'loop'"):
        train_grid(lambda seed: kind(), lrlib.digits(), [0.1, 0.2], [0], steps=5, way="batched")


def test_chunks_bound_the_memory_and_change_nothing(monkeypatch):
    arguments = MODELS["mlp"], DATA, [0.01, 0.1, 0.2], range(4)
    whole = train_grid(*arguments, steps=15, way="batched")
    sizes, inner = [], replicas._train_stack

    def watched(job, data, shard, tick, chunk):
        sizes.append((shard.size, chunk))
        return inner(job, data, shard, tick, chunk)

    monkeypatch.setattr(replicas, "_train_stack", watched)
    most, examples = replicas._room(_job(*arguments), DATA)
    assert most > 1000
    for replicas_at_once, largest in ((7, 6), (2, 2), (1, 1)):
        sizes.clear()
        monkeypatch.setattr(replicas, "SHARD_MEMORY", replicas.SHARD_MEMORY_TEST * replicas_at_once)
        parts = train_grid(*arguments, steps=15, way="batched")
        assert max(size for size, _ in sizes) == largest and sum(size for size, _ in sizes) == 12
        assert all(chunk < 500 for _, chunk in sizes)  # the test set does not fit as a whole either
        np.testing.assert_allclose(parts.loss, whole.loss, atol=1e-12)
        np.testing.assert_allclose(parts.test_loss, whole.test_loss, atol=1e-12)
        np.testing.assert_array_equal(parts.accuracy, whole.accuracy)


def _job(make_model, data, rates, seeds):
    return replicas._job(make_model, data, rates, seeds, 15, 64, 0.0, 0.0, F.cross_entropy, None, None)[3]


@pytest.fixture(autouse=True)
def _memory_of_one_replica(monkeypatch):
    """Bytes that one replica of the small network needs for a step, as the module counts them."""
    seconds = _job(MODELS["mlp"], DATA, [0.1], [0])
    monkeypatch.setattr(replicas, "SHARD_MEMORY", 2**40)
    most = replicas._room(seconds, DATA)[0]
    monkeypatch.undo()
    monkeypatch.setattr(replicas, "SHARD_MEMORY_TEST", 2**40 // most + 1, raising=False)


def test_a_short_grid_is_not_measured_and_a_long_one_says_what_it_found(monkeypatch):
    monkeypatch.setattr(replicas, "_idle", lambda cores: 1)
    arguments = MODELS["mlp"], DATA, [0.01, 0.1], [0, 1]
    assert train_grid(*arguments, steps=3).why == "too short to measure"
    assert train_grid(MODELS["mlp"], DATA, [0.1], [0], steps=3).why == "a single run"
    monkeypatch.setattr(replicas, "WORTH_MEASURING", 10)
    grid = train_grid(*arguments, steps=5)
    assert "µs an update batched" in grid.why and grid.way in ("batched", "loop") and grid.workers == 0


@pytest.mark.parametrize(
    "batched, loop, idle, way, workers",
    [
        (1e-5, 3e-4, 2, "batched", 0),  # 0.4 s: no worker is worth starting
        (3e-4, 1e-5, 2, "loop", 0),
        (9.5e-4, 1e-3, 2, "loop", 2),  # not clearly faster
        (1e-3, 2e-3, 2, "batched", 2),
        (1e-3, 2e-3, 1, "batched", 0),
    ],
)
def test_the_fastest_way_is_chosen(monkeypatch, batched, loop, idle, way, workers):
    monkeypatch.setattr(joblib, "cpu_count", lambda: 2)
    monkeypatch.setattr(replicas, "_idle", lambda cores: idle)
    monkeypatch.setattr(replicas, "_seconds", lambda job, data, shard, how: {"batched": batched, "loop": loop}[how])
    job = dataclasses.replace(_job(MODELS["mlp"], DATA, np.linspace(0.1, 1, 10), [0]), rates=np.ones((10, 4000)))
    assert replicas._choose(job, DATA, range(10), None)[:2] == (way, workers)
    assert replicas._choose(job, DATA, range(10), "processes")[:2] == (way, 2)
    assert replicas._choose(job, DATA, range(10), "loop")[:2] == ("loop", 0)


def test_a_busy_machine_gets_no_workers(monkeypatch):
    for load, cores in ((0.1, 4), (1.0, 4), (2.2, 3), (9.0, 1)):
        monkeypatch.setattr("os.getloadavg", lambda load=load: (load, 0, 0))
        assert replicas._idle(4) == cores
    monkeypatch.delattr("os.getloadavg")
    assert replicas._idle(4) == 4


def test_processes_and_joblib_backends_give_the_same(monkeypatch):
    arguments = (lambda seed: lrlib.mlp(64, 8, 10)), lrlib.digits, [0.01, 0.1], [0, 1, 2]
    monkeypatch.setattr(replicas, "SHARD_REPLICAS", 2)
    here = train_grid(*arguments, steps=20, way="batched")
    with joblib.parallel_config(backend="threading", n_jobs=2):
        threads = train_grid(*arguments, steps=20, way="batched")
    with joblib.parallel_config(backend="loky", n_jobs=2):
        processes = train_grid(*arguments, steps=20)
    assert (here.workers, threads.workers, processes.workers) == (0, 2, 2)
    for other in (threads, processes):
        np.testing.assert_array_equal(other.loss, here.loss)
        np.testing.assert_array_equal(other.test_loss, here.test_loss)
        for key, value in here.state_dict(0.1, 2).items():
            torch.testing.assert_close(other.state_dict(0.1, 2)[key], value, rtol=0, atol=0)
    monkeypatch.setattr(joblib, "cpu_count", lambda: 2)
    assert train_grid(*arguments, steps=20, way="processes").workers == 2


def test_threads_and_random_numbers_are_left_as_they_were():
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    threads = torch.get_num_threads()
    train_grid(MODELS["mlp"], DATA, [0.1, 0.2], [0, 1], steps=3)
    assert torch.get_num_threads() == threads
    assert torch.equal(torch.rand(3), expected)


def test_names_and_states():
    grid = train_grid(MODELS["mlp"], DATA, {"low": 0.01, "cut": lrlib.step(0.1, 2)}, [4, 2], steps=4)
    assert grid.names == ("low", "cut") and grid.seeds == (4, 2)
    assert grid.lr[1].round(6).tolist() == [0.1, 0.1, 0.01, 0.01]
    unnamed = train_grid(MODELS["mlp"], DATA, [0.01, lrlib.constant(0.5)], [0], steps=1)
    assert unnamed.names == (0.01, "constant(0.5)")
    with pytest.raises(ValueError, match="seed=3"):
        grid.state_dict("low", 3)
    with pytest.raises(ValueError, match="name='high'"):
        grid.state_dict("high", 4)
    grid.state_dict("low", 4)["1.weight"].zero_()
    assert grid.state_dict("low", 4)["1.weight"].abs().sum() > 0


def test_a_progress_bar_is_drawn_on_a_terminal_only(monkeypatch, capsys):
    train_grid(MODELS["mlp"], DATA, [0.1, 0.2], [0], steps=3)
    assert capsys.readouterr().err == ""
    written = []
    terminal = types.SimpleNamespace(isatty=lambda: True, write=written.append, flush=lambda: None)
    monkeypatch.setattr(sys, "stderr", terminal)
    train_grid(MODELS["mlp"], DATA, [0.1, 0.2], [0], steps=3)
    assert "0.00/6.00" in "".join(written)


@pytest.mark.parametrize(
    "change, error, message",
    [
        ({"make_model": 3}, TypeError, "make_model=3"),
        ({"make_model": lambda seed: 3}, TypeError, "returned a int"),
        ({"make_model": lambda seed: nn.Flatten()}, ValueError, "without trainable parameters"),
        ({"data": 3}, TypeError, "data=3"),
        ({"schedules": []}, ValueError, r"schedules=\[\]"),
        ({"schedules": 0.1}, TypeError, "schedules=0.1"),
        ({"schedules": [0.1, 0.1]}, ValueError, "no name twice"),
        ({"schedules": [-0.1]}, ValueError, "-0.1"),
        ({"schedules": [lrlib.warmup(lrlib.constant(0.1), 10)]}, ValueError, "warm-up"),
        ({"seeds": []}, ValueError, "at least one"),
        ({"seeds": [1, 1]}, ValueError, "twice"),
        ({"seeds": [-1]}, ValueError, r"seeds\[0\]=-1"),
        ({"seeds": 3}, TypeError, "seeds=3"),
        ({"steps": 0}, ValueError, "steps=0"),
        ({"batch_size": 2000}, ValueError, "batch_size=2000"),
        ({"momentum": 1.0}, ValueError, "momentum=1.0"),
        ({"weight_decay": -1}, ValueError, "weight_decay=-1"),
        ({"loss": "mse"}, TypeError, "loss='mse'"),
        ({"order_seed": -1}, ValueError, "order_seed=-1"),
        ({"eval_every": 0}, ValueError, "eval_every=0"),
        ({"way": "gpu"}, ValueError, "way='gpu'"),
    ],
)
def test_bad_input_is_named(change, error, message):
    arguments = {"make_model": MODELS["mlp"], "data": DATA, "schedules": [0.1], "seeds": [0], "steps": 5}
    with pytest.raises(error, match=message):
        train_grid(**(arguments | change))
