"""The one loop: replicas equal single runs, rules equal torch's, graphs equal updates, resumed runs whole ones."""

import contextlib
import copy
import dataclasses
import functools
import math

import numpy as np
import pytest
import pytorch_optimizer
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from networks import Alias, Tied
from torch import nn
from torch.nn import functional as F

import lrlib
from lrlib import capture, minibatches

DATA = lrlib.digits()
X, Y = DATA.x_train.double(), DATA.y_train
# A pixel that is the same in all pictures has no gradient behind BatchNorm but rounding, which adaptive rules blow up.
X = X + 0.1 * torch.randn(X.shape, generator=torch.Generator().manual_seed(0), dtype=X.dtype)
RULES = {
    "SGD": lrlib.SGD(),
    "momentum": lrlib.SGD(momentum=0.9, weight_decay=1e-3),
    "Nesterov": lrlib.SGD(momentum=0.9, nesterov=True),
    "Adam": lrlib.Adam(weight_decay=1e-3),
    "AdamW": lrlib.AdamW(),
    "Lion": lrlib.Lion(weight_decay=0.1),
    "RMSprop": lrlib.RMSprop(),
    "Adagrad": lrlib.Adagrad(),
    "Adadelta": lrlib.Adadelta(),
    "Muon": lrlib.Muon(),
    "FTRL": lrlib.FTRLProximal(l1=1e-3),
    "Parabola": lrlib.Parabola(warmup=2),
    "Hypergradient": lrlib.Hypergradient(),
    "HillClimb": lrlib.HillClimb(every=2),
    "HillClimb, smoothing too": lrlib.HillClimb(tune_smoothing=True),
    "PolyakStep": lrlib.PolyakStep(c=0.5, growth=1.1),
    "PolyakStep, momentum": lrlib.PolyakStep(momentum=0.5),
    "Armijo": lrlib.Armijo(),
}
TORCH = {
    "SGD": (torch.optim.SGD, {}),
    "momentum": (torch.optim.SGD, {"momentum": 0.9, "weight_decay": 1e-3}),
    "Nesterov": (torch.optim.SGD, {"momentum": 0.9, "nesterov": True}),
    "Adam": (torch.optim.Adam, {"weight_decay": 1e-3}),
    "AdamW": (torch.optim.AdamW, {}),
    "RMSprop": (torch.optim.RMSprop, {}),
    "Adagrad": (torch.optim.Adagrad, {}),
    "Adadelta": (torch.optim.Adadelta, {}),
}


def mlp(seed=0, norm=None, activation="tanh"):
    """No unit of a tanh network dies, so that no gradient is rounding alone, which adaptive rules would blow up."""
    with lrlib.seeded(seed):
        return lrlib.mlp(64, 12, 10, norm=norm, activation=activation).double()


def apart(a, b):
    return max((p.double() - q.double()).abs().max().item() for p, q in zip(a, b, strict=True))


def stack_and_singles(make, rule, rates, seeds, steps=40, data=(X, Y), **options):
    """How far the weights, buffers, losses and rates of a stack are from those of single runs."""
    stack = lrlib.Stack([make(seed) for seed in seeds])
    together = lrlib.train(stack, data, rates, steps=steps, optimizer=rule, seed=seeds, batch_size=32, **options)
    worst = 0.0
    for r, (rate, seed) in enumerate(zip(rates, seeds, strict=True)):
        model = make(seed)
        alone = lrlib.train(model, data, rate, steps=steps, optimizer=rule, seed=seed, batch_size=32, **options)
        mine, state = stack.replica(r), model.state_dict()
        assert set(mine) == set(state)
        worst = max(worst, apart(mine.values(), [state[name] for name in mine]))
        worst = max(worst, np.abs(together.loss[r] - alone.loss).max(), np.abs(together.lr[r] - alone.lr).max())
    return worst


@pytest.mark.parametrize("norm", [None, "batch", "layer"])
@pytest.mark.parametrize("name", RULES)
def test_replicas_equal_single_runs(name, norm):
    rates = [0.003, 0.01, lrlib.cosine(0.005, 40), 0.003]
    assert stack_and_singles(lambda seed: mlp(seed, norm), RULES[name], rates, [0, 0, 1, 1]) < 1e-12


@pytest.mark.parametrize("seeds", [[0, 0, 1, 1], [0, 1, 0, 1], [0, 0, 0, 1]], ids=str)
def test_replicas_that_share_batches_or_not_equal_single_runs(seeds):
    assert stack_and_singles(mlp, lrlib.SGD(momentum=0.5), [0.1, 0.2, 0.3, 0.4], seeds) < 1e-12


def between(*layers):
    return lambda: copy.deepcopy(nn.Sequential(nn.Flatten(), nn.Linear(64, 8), *layers, nn.Linear(8, 10)))


OTHERS = {
    "conv_net": lambda: lrlib.conv_net(2),
    "PreResNet": lambda: lrlib.PreResNet(8, 2, in_channels=1, norm="group"),
    "BatchNorm without affine": between(nn.BatchNorm1d(8, affine=False)),
    "BatchNorm without statistics": between(nn.BatchNorm1d(8, track_running_stats=False)),
    "LayerNorm without affine": between(nn.LayerNorm(8, elementwise_affine=False)),
    "Softmax": between(nn.Softmax(dim=1)),
}


@pytest.mark.parametrize("make", OTHERS.values(), ids=OTHERS)
def test_other_networks_equal_single_runs(make):
    def built(seed):
        with lrlib.seeded(seed):
            return make().double()

    assert stack_and_singles(built, lrlib.SGD(momentum=0.9), [0.01, 0.05, 0.02], [0, 1, 2], steps=6) < 1e-12


@pytest.mark.parametrize("name", TORCH)
def test_a_rule_equals_torchs(name):
    kind, options = TORCH[name]
    ours, theirs, in_a_loop = mlp(), mlp(), mlp()
    lrlib.train(ours, (X, Y), 0.01, steps=300, optimizer=RULES[name])
    lrlib.train(theirs, (X, Y), lrlib.constant(0.01), steps=300, optimizer=kind(theirs.parameters(), lr=1.0, **options))
    adapted = RULES[name].optimizer(in_a_loop.parameters(), lr=0.01)
    for rows in lrlib.batches(len(X), 64, 300, seed=0):
        adapted.zero_grad()
        F.cross_entropy(in_a_loop(X[rows]), Y[rows]).backward()
        adapted.step()
    assert apart(ours.parameters(), theirs.parameters()) < 1e-10
    assert apart(in_a_loop.parameters(), theirs.parameters()) < 1e-10


@pytest.mark.skipif(not hasattr(torch.optim, "Muon"), reason="this torch has no Muon to compare with")
@pytest.mark.parametrize("scaling", ["original", "match_rms_adamw"])
def test_muon_moves_matrices_as_torch_does_in_bfloat16(scaling):
    generator = torch.Generator().manual_seed(0)
    for shape in ((6, 20), (20, 6), (8, 8)):
        ours, theirs = (nn.Parameter(torch.zeros(shape)) for _ in range(2))
        rule = lrlib.Muon(weight_decay=0.1, adjust_lr_fn=scaling).optimizer([ours], lr=0.02)
        torchs = torch.optim.Muon([theirs], lr=0.02, weight_decay=0.1, adjust_lr_fn=scaling)
        for _ in range(20):
            ours.grad = torch.randn(shape, generator=generator)
            theirs.grad = ours.grad.clone()
            rule.step()
            torchs.step()
        assert (ours - theirs).norm() < 0.03 * theirs.norm()


def test_muons_spectral_scaling_is_the_root_of_outputs_over_inputs():
    for shape in ((6, 20), (20, 6), (8, 8)):
        plain, scaled = (nn.Parameter(torch.zeros(shape)) for _ in range(2))
        gradient = torch.randn(shape, generator=torch.Generator().manual_seed(0))
        for p, scaling in ((plain, "original"), (scaled, "spectral")):
            p.grad = gradient.clone()
            lrlib.Muon(adjust_lr_fn=scaling).optimizer([p], lr=1.0).step()
        factor = (shape[0] / shape[1]) ** 0.5
        torch.testing.assert_close(scaled.data, plain.data * factor / max(1.0, factor))


def test_numbers_of_a_rule_may_differ_by_replica_and_step():
    momenta, decays = [0.0, 0.5, lrlib.cosine(0.9, 40), 0.9], [0.0, 0.1, 0.0, 0.01]
    rule = lrlib.SGD(momentum=momenta, weight_decay=decays)
    stack = lrlib.Stack([mlp()] * 4)
    lrlib.train(stack, (X, Y), 0.05, steps=40, optimizer=rule)
    for r, (momentum, decay) in enumerate(zip(momenta, decays, strict=True)):
        model = mlp()
        lrlib.train(model, (X, Y), 0.05, steps=40, optimizer=lrlib.SGD(momentum=momentum, weight_decay=decay))
        assert apart(model.parameters(), stack.replica(r).values()) < 1e-12


def test_data_may_differ_by_replica():
    noisy = lrlib.relabelled(DATA, 0.5)
    parts = [(X, Y), (X, noisy.y_train), (X[:500], Y[:500]), (X[500:], noisy.y_train[500:])]
    stack, seeds = lrlib.Stack([mlp()] * 4), [0, 0, 1, 1]
    history = lrlib.train(stack, parts, 0.1, steps=30, seed=seeds)
    for r, part in enumerate(parts):
        model = mlp()
        alone = lrlib.train(model, part, 0.1, steps=30, seed=seeds[r])
        assert np.abs(history.loss[r] - alone.loss).max() < 1e-12


def test_one_momentum_schedule_is_torchs_cycled_momentum():
    model, other = mlp(), mlp()
    rates, momenta = lrlib.one_cycle(0.1, 40), lrlib.cyclic(0.85, 0.95, 20)
    lrlib.train(model, (X, Y), rates, steps=40, optimizer=lrlib.SGD(momentum=momenta))
    sgd = torch.optim.SGD(other.parameters(), lr=0.1, momentum=0.9)
    scheduler = lrlib.ScheduleLR(sgd, rates, momentum=momenta)
    for rows in lrlib.batches(len(X), 64, 40, seed=0):
        sgd.zero_grad()
        F.cross_entropy(other(X[rows]), Y[rows]).backward()
        sgd.step()
        scheduler.step()
    assert apart(model.parameters(), other.parameters()) < 1e-12


# ----------------------------------------------------------------------------------------------------- captured


@contextlib.contextmanager
def no_host(monkeypatch):
    """Within the block a tensor that is read by the host raises."""

    def refused(self, *_):
        raise AssertionError("an update asks the host")

    with monkeypatch.context() as patch:
        for name in ("item", "tolist", "numpy", "cpu", "__bool__", "__float__", "__int__", "__index__"):
            patch.setattr(torch.Tensor, name, refused)
        yield


@pytest.mark.parametrize("norm", [None, "batch", "layer"])
@pytest.mark.parametrize("name", [name for name, rule in RULES.items() if rule.capturable])
def test_the_update_that_is_captured_never_asks_the_host_and_is_the_same(name, norm, monkeypatch):
    """A stand-in for the graph calls the update anew, which reads its place in the tables from tensors."""

    def run():
        stack = lrlib.Stack([mlp(seed, norm) for seed in range(3)])
        return stack, lrlib.train(stack, (X, Y), [0.01, 0.02, lrlib.cosine(0.05, 25)], steps=25, optimizer=RULES[name])

    eager, history = run()

    def unwatched(function):
        def replay():
            with no_host(monkeypatch):
                function()

        return replay

    monkeypatch.setattr(capture, "possible", lambda device: True)
    monkeypatch.setattr(capture, "aside", lambda function: function())
    monkeypatch.setattr(capture, "graph", unwatched)
    captured, again = run()
    assert apart(eager.tensors().values(), captured.tensors().values()) < 1e-12
    assert np.abs(history.loss - again.loss).max() < 1e-12 and np.array_equal(history.lr, again.lr)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.parametrize("name", [name for name, rule in RULES.items() if rule.capturable])
def test_a_captured_update_equals_an_eager_one(name, monkeypatch):
    def run():
        stack = lrlib.Stack([mlp(seed, "batch").cuda() for seed in range(3)])
        lrlib.train(stack, (X.cuda(), Y.cuda()), [0.01, 0.02, 0.03], steps=25, optimizer=RULES[name])
        return stack

    captured = run()
    monkeypatch.setattr(capture, "possible", lambda device: False)
    assert apart(captured.tensors().values(), run().tensors().values()) < 1e-12


# ------------------------------------------------------------------------------------- divergence, stops, resume


def test_a_replica_that_diverges_keeps_its_weights_and_disturbs_nobody():
    def relu():
        return mlp(activation="relu")

    stack = lrlib.Stack([relu()] * 3)
    history = lrlib.train(stack, (X, Y), [0.1, 1e200, 0.2], steps=30)
    assert history.diverged_at.tolist()[::2] == [-1, -1] and 0 < history.diverged_at[1] < 30
    for r, rate in enumerate((0.1, 1e200, 0.2)):
        model = relu()
        single = lrlib.train(model, (X, Y), rate, steps=30)
        assert single.updates == history.updates[r] == len(single.loss)
        assert (
            np.isfinite(history.loss[r, : single.updates]).all() and np.isnan(history.loss[r, single.updates :]).all()
        )
        mine, alone = (
            torch.cat([p.flatten() for p in some]) for some in (stack.replica(r).values(), model.parameters())
        )
        assert torch.allclose(mine, alone, rtol=1e-9, equal_nan=True)


def test_callbacks_stop_some_replicas_and_cut_rates():
    def watch(run):
        if run.step == 10:
            run.stop([0])
            run.rates[run.step :, 1] *= 0.5

    stack = lrlib.Stack([mlp()] * 3)
    history = lrlib.train(stack, (X, Y), 0.1, steps=20, callbacks=[watch])
    assert history.updates.tolist() == [10, 20, 20]
    assert history.lr[1].tolist() == [0.1] * 10 + [0.05] * 10
    short, cut = mlp(), mlp()
    lrlib.train(short, (X, Y), 0.1, steps=10)
    lrlib.train(cut, (X, Y), lrlib.multistep(0.1, [10], gamma=0.5), steps=20)
    assert apart(short.parameters(), stack.replica(0).values()) < 1e-12
    assert apart(cut.parameters(), stack.replica(1).values()) < 1e-12


@pytest.mark.parametrize(
    "optimizer",
    [
        lambda p: lrlib.AdamW(),
        lambda p: lrlib.HillClimb(),
        lambda p: lrlib.ScheduleFreeAdamW(),
        lambda p: torch.optim.Adam(p, lr=1.0),
        lambda p: pytorch_optimizer.ScheduleFreeAdamW(p, lr=1.0),
    ],
    ids=["rule", "HillClimb", "schedule-free", "torch", "schedule-free package"],
)
@settings(max_examples=5, deadline=None)
@given(middle=st.integers(1, 29))
def test_a_resumed_run_is_bit_equal(optimizer, middle):
    def model():
        with lrlib.seeded(1):
            return nn.Sequential(lrlib.mlp(64, 12, 12, norm="batch"), nn.Dropout(), nn.Linear(12, 10))

    def run(net, **options):
        return lrlib.train(
            net, DATA, lrlib.cosine(0.05, 30), steps=30, optimizer=optimizer(net.parameters()), **options
        )

    kept = {}
    whole = model()
    watch = lrlib.Periodic(lambda run: kept.update(state=copy.deepcopy(run.state_dict())), at=[middle])
    one = run(whole, callbacks=[watch])
    resumed = model()
    two = run(resumed, resume=kept["state"])
    assert all(
        torch.equal(a, b) for a, b in zip(whole.state_dict().values(), resumed.state_dict().values(), strict=True)
    )
    assert np.array_equal(one.loss, two.loss) and np.array_equal(one.lr, two.lr)


def test_a_resumed_stack_is_bit_equal_and_another_is_refused():
    def run(stack, steps=20, **options):
        return lrlib.train(stack, DATA, [0.1, 0.2], steps=steps, optimizer=lrlib.SGD(momentum=0.9), **options)

    kept = {}
    whole, resumed = (lrlib.Stack([lrlib_mlp(0), lrlib_mlp(1)]) for _ in range(2))
    run(whole, callbacks=[lrlib.Periodic(lambda run: kept.update(run.state_dict()), at=[7])])
    run(resumed, resume=kept)
    assert all(torch.equal(a, b) for a, b in zip(whole.tensors().values(), resumed.tensors().values(), strict=True))
    with pytest.raises(ValueError, match="resume"):
        run(resumed, steps=30, resume=kept)


def lrlib_mlp(seed, **options):
    with lrlib.seeded(seed):
        return lrlib.mlp(64, 12, 10, **options)


# ------------------------------------------------------------------------------------ what can, and cannot, be stacked


class Rebinding(nn.Module):
    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(64, 10)
        self.register_buffer("mean", torch.zeros(1))

    def forward(self, x):
        self.mean = self.mean + x.mean()
        return self.layer(x.flatten(1) - self.mean)


def frozen_head():
    model = lrlib.mlp(64, 12, 10, norm="batch")
    model[-1].requires_grad_(False)
    return model


@pytest.mark.parametrize("make", [Tied, frozen_head], ids=["tied", "frozen"])
def test_tied_and_frozen_parameters_stay_so(make):
    def built(seed):
        with lrlib.seeded(seed):
            return make().double()

    models = [built(seed) for seed in (0, 1)]
    stack = lrlib.Stack(models)
    lrlib.train(stack, (X, Y), [0.05, 0.1], steps=15, optimizer=lrlib.SGD(momentum=0.9), seed=[0, 1])
    for r, rate in enumerate((0.05, 0.1)):
        model = built(r)
        lrlib.train(model, (X, Y), rate, steps=15, optimizer=lrlib.SGD(momentum=0.9), seed=r)
        state = model.state_dict()
        assert apart(stack.replica(r).values(), [state[name] for name in stack.replica(r)]) < 1e-12


def test_a_tied_grid_gives_whole_states():
    grid = lrlib.train_grid(lambda seed: Tied(), DATA, [0.05], [0, 1], steps=5, way="stack")
    state = grid.state_dict(0.05, 1)
    assert torch.equal(state["first.weight"], state["second.weight"])


def test_rebound_buffers_are_refused_in_a_stack_and_grids_go_one_by_one():
    with pytest.raises(ValueError, match="rebinds"):
        lrlib.train(lrlib.Stack([Rebinding(), Rebinding()]), DATA, 0.1, steps=2)
    grid = lrlib.train_grid(lambda seed: Rebinding(), DATA, [0.1, 0.2], [0], steps=4)
    assert grid.way == "loop" and "rebinds" in grid.why
    model = grid_model(Rebinding)
    lrlib.train(model, DATA, 0.1, steps=4)
    assert torch.equal(grid.state_dict(0.1, 0)["mean"], model.mean)


def grid_model(make, seed=0):
    with lrlib.seeded(seed):
        return make()


def test_random_layers_are_refused_in_a_stack_and_grids_go_one_by_one():
    def noisy():
        return nn.Sequential(nn.Flatten(), nn.Dropout(0.5), nn.Linear(64, 10))

    with pytest.raises(RuntimeError):
        lrlib.train(lrlib.Stack([noisy(), noisy()]), DATA, 0.1, steps=2)
    grid = lrlib.train_grid(lambda seed: noisy(), DATA, [0.1, 0.2], [0], steps=4)
    assert grid.way == "loop" and "cannot be stacked" in grid.why
    with pytest.raises(ValueError, match="way='stack'"):
        lrlib.train_grid(lambda seed: noisy(), DATA, [0.1, 0.2], [0], steps=4, way="stack")


@pytest.mark.parametrize(
    "make",
    [
        lambda seed: lrlib.mlp(64, 8, 10, activation=("tanh", "relu")[seed % 2]),
        lambda seed: nn.Sequential(nn.Flatten(), nn.Linear(64, 10), nn.LeakyReLU(0.1 * (1 + seed))),
    ],
    ids=["activation", "number"],
)
def test_architectures_that_differ_by_seed_are_no_replicas(make):
    with pytest.raises(ValueError, match=r"models\[1\]: differs"):
        lrlib.Stack([make(0), make(1)])
    grid = lrlib.train_grid(make, DATA, [0.1], [0, 1], steps=5)
    assert grid.way == "loop"
    for seed in (0, 1):
        model = grid_model(lambda seed=seed: make(seed), seed)
        assert lrlib.train(model, DATA, 0.1, steps=5, seed=seed).final_loss == grid.final_loss[0, seed]


# ------------------------------------------------------------------------------------------------ grids, arguments


def test_a_grid_equals_single_runs_in_either_way_and_in_processes():
    import joblib

    rates = {"low": 0.05, "cosine": lrlib.cosine(0.5, 20)}

    def grid(way):
        make = lambda seed: lrlib.mlp(64, 12, 10, norm="batch", activation="tanh")  # noqa: E731
        rule = lrlib.SGD(momentum=0.5)
        return lrlib.train_grid(make, DATA, rates, [3, 5, 8], steps=20, optimizer=rule, eval_every=7, way=way)

    stack, loop = grid("stack"), grid("loop")
    with joblib.parallel_config(backend="loky", n_jobs=2):
        there = grid("stack")
    for field in ("lr", "loss", "test_loss", "test_accuracy"):
        assert np.allclose(getattr(stack, field), getattr(loop, field), rtol=1e-3, atol=1e-3), field
        assert np.array_equal(getattr(stack, field), getattr(there, field)), field
    assert stack.eval_step.tolist() == loop.eval_step.tolist() == [0, 7, 14, 20]
    assert (stack.way, loop.way) == ("stack", "loop") and stack.test_loss.shape == (2, 3, 4)


def test_rates_that_differ_in_the_seventh_digit_are_told_apart():
    a, b = lrlib.cosine(0.1000001, 10), lrlib.cosine(0.1000002, 10)
    grid = lrlib.train_grid(lambda seed: lrlib.mlp(64, 8, 10), DATA, [a, b], [0], steps=3)
    assert len(set(grid.names)) == 2


def test_a_grid_marks_what_diverged():
    grid = lrlib.train_grid(lambda seed: lrlib.mlp(64, 8, 10), DATA, [0.1, 1e30], [0, 1], steps=12, eval_every=4)
    assert (grid.diverged_at[0] == -1).all() and (grid.diverged_at[1] > 0).all()
    assert np.isfinite(grid.test_loss[0]).all() and np.isnan(grid.test_loss[1, :, 2]).all()
    loop = lrlib.train_grid(
        lambda seed: lrlib.mlp(64, 8, 10), DATA, [0.1, 1e30], [0, 1], steps=12, eval_every=4, way="loop"
    )
    assert np.array_equal(grid.diverged_at, loop.diverged_at)
    assert np.array_equal(np.isnan(grid.test_loss), np.isnan(loop.test_loss))


@pytest.mark.parametrize(
    ("change", "error", "words"),
    [
        ({"steps": 0}, ValueError, "steps=0"),
        ({"steps": 2.5}, TypeError, "steps=2.5"),
        ({"batch_size": 10**6}, ValueError, "batch_size=1000000"),
        ({"schedule": -0.1}, ValueError, "schedule=-0.1"),
        ({"schedule": [0.1, 0.2]}, ValueError, "schedule: has 2 entries"),
        ({"schedule": lrlib.warmup(lrlib.constant(0.1), 50)}, ValueError, "steps=10: must be >= 50"),
        ({"schedule": None}, TypeError, "schedule"),
        ({"optimizer": "SGD"}, TypeError, "optimizer='SGD'"),
        ({"optimizer": lrlib.SGD(momentum=[0.1, 0.2])}, ValueError, "momentum: has 2 entries"),
        ({"optimizer": lrlib.SGD(momentum=lrlib.constant(1.5))}, ValueError, "momentum"),
        ({"seed": -1}, ValueError, "seed=-1"),
        ({"eval_every": 0}, ValueError, "eval_every=0"),
        ({"data": (X, Y[:-1])}, ValueError, "data"),
        ({"loss": lambda out, y: out.sum(1)}, ValueError, "loss: returned shape"),
    ],
    ids=range(14),
)
def test_bad_arguments_are_named(change, error, words):
    arguments = {"data": (X, Y), "schedule": 0.1, "steps": 10} | change
    before = mlp()
    model = copy.deepcopy(before)
    with pytest.raises(error, match=words):
        lrlib.train(model, arguments.pop("data"), arguments.pop("schedule"), **arguments)
    assert apart(model.parameters(), before.parameters()) == 0


def test_a_loader_trains_a_network_as_its_tensors_do():
    pairs = [(X[rows], Y[rows]) for rows in lrlib.batches(len(X), 64, 10, seed=0)]
    loaded, plain = mlp(), mlp()
    lrlib.train(loaded, pairs, 0.1, steps=10)
    lrlib.train(plain, (X, Y), 0.1, steps=10)
    assert apart(loaded.parameters(), plain.parameters()) == 0


def test_closures_reach_torchs_optimizers():
    model = mlp()
    optimizer = torch.optim.LBFGS(model.parameters(), lr=1.0, max_iter=20, line_search_fn="strong_wolfe")
    history = lrlib.train(model, (X[:200], Y[:200]), None, steps=5, batch_size=200, optimizer=optimizer)
    assert history.loss[-1] < 0.01 * history.loss[0]


def test_lbfgs_evaluates_the_loss_as_often_as_in_a_plain_loop():
    x, y, calls = X[:100], Y[:100], []

    def loss(logits, targets):
        calls.append(1)
        return F.cross_entropy(logits, targets)

    def lbfgs(model):
        return torch.optim.LBFGS(model.parameters(), lr=1.0, max_iter=5, line_search_fn="strong_wolfe")

    ours, theirs = mlp(), mlp()
    lrlib.train(ours, (x, y), None, steps=4, batch_size=100, optimizer=lbfgs(ours), loss=loss)
    inside = len(calls)
    optimizer = lbfgs(theirs)

    def closure():
        optimizer.zero_grad()
        value = loss(theirs(x), y)
        value.backward()
        return value

    for _ in range(4):
        optimizer.step(closure)
    assert inside == len(calls) - inside
    assert apart(ours.parameters(), theirs.parameters()) < 1e-6


class Uncopied(nn.Module):
    """A model that refuses to be copied, as those do that hold files or locks."""

    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(64, 10)

    def forward(self, x):
        return self.layer(x.flatten(1))

    def __deepcopy__(self, memo):
        raise AttributeError


def sparse_words(seed):
    class Words(nn.Module):
        def __init__(self):
            super().__init__()
            self.table = nn.EmbeddingBag(32, 10, mode="sum", sparse=True)

        def forward(self, x):
            return self.table(x.flatten(1).clamp(0, 31).long())

    return Words()


@pytest.mark.parametrize("make", [lambda seed: Uncopied(), sparse_words], ids=["uncopied", "sparse"])
def test_what_cannot_be_stacked_is_trained_one_by_one(make):
    grid = lrlib.train_grid(make, DATA, [0.1], [0, 1], steps=4)
    assert grid.way == "loop" and "cannot be stacked" in grid.why
    for seed in (0, 1):
        model = grid_model(lambda seed=seed: make(seed), seed)
        assert lrlib.train(model, DATA, 0.1, steps=4, seed=seed).final_loss == grid.final_loss[0, seed]


@pytest.mark.parametrize("rule", [lrlib.SGD(momentum=0.9), lrlib.AdamW(), lrlib.Hypergradient()], ids=str)
def test_sparse_gradients_train_as_dense_ones(rule):
    words = sparse_words(0).double()
    dense = copy.deepcopy(words)
    dense.table.sparse = False
    for model in (words, dense):
        lrlib.train(model, DATA, 0.01, steps=5, optimizer=rule)
    assert apart(words.parameters(), dense.parameters()) < 1e-9


@pytest.mark.parametrize(
    "rule", [lrlib.SGD(momentum=0.9, weight_decay=0.1), lrlib.AdamW(), lrlib.Hypergradient()], ids=str
)
def test_a_layer_that_the_loss_does_not_depend_on_rests_as_in_torch(rule):
    def model():
        net = mlp()
        net.register_module("unused", nn.Linear(3, 3).double())
        net.forward = lambda x: nn.Sequential.forward(net[:-1], x)
        return net

    net, plain, seen = model(), mlp(), []
    before = net.unused.weight.detach().clone()
    lrlib.train(net, (X, Y), 0.01, steps=5, optimizer=rule, callbacks=[lambda run: seen.append(run.gradients[-2])])
    lrlib.train(plain, (X, Y), 0.01, steps=5, optimizer=rule)
    assert torch.equal(net.unused.weight, before) and not any(g.any() for g in seen)
    assert apart(list(net.parameters())[:-2], plain.parameters()) == 0


def test_complex_parameters_are_refused():
    model = nn.Linear(64, 10, dtype=torch.complex64)
    with pytest.raises(ValueError, match="model: has complex parameters"):
        lrlib.train(model, (X.cfloat().flatten(1), Y), 0.1, steps=1, loss=lambda z, y: z.abs().mean())


@pytest.mark.parametrize("loss", [F.mse_loss, F.l1_loss, F.binary_cross_entropy_with_logits], ids=lambda f: f.__name__)
def test_means_over_elements_are_those_of_each_replica(loss):
    stack, targets = lrlib.Stack([mlp(seed) for seed in range(4)]), F.one_hot(Y, 10).double()
    x, y = X[:20].view(2, 10, *X.shape[1:]), targets[:20].view(2, 10, 10)
    outputs = stack(x)
    expected = [loss(outputs[r], y[r // 2]).item() for r in range(4)]
    np.testing.assert_allclose(stack.losses(x, y, loss).detach(), expected, rtol=1e-12)


def test_averages_and_rules_pickle_and_copy():
    import pickle

    average = lrlib.WeightAverage(at=[1, 2], decay=0.9)
    average.add(mlp())
    for other in (copy.deepcopy(average), pickle.loads(pickle.dumps(average))):
        assert other.count == 1 and apart(other.model.parameters(), average.model.parameters()) == 0
    for rule in RULES.values():
        assert pickle.loads(pickle.dumps(rule)) == copy.deepcopy(rule) == rule


# ------------------------------------------------------------------------------------------------- what may surprise


def resumed(make_model, make_callbacks, middle=13, data=DATA, make_optimizer=lambda model: None, **options):
    """The same run whole, and stopped in the middle and taken up again by another network; with their callbacks."""
    kept, found = {}, []
    for resume in (False, True):
        model, callbacks = make_model(), make_callbacks()
        save = [] if resume else [lrlib.Periodic(lambda run: kept.update(copy.deepcopy(run.state_dict())), at=[middle])]
        settings = options | {"steps": 40, "optimizer": make_optimizer(model), "resume": kept if resume else None}
        history = lrlib.train(model, data, callbacks=save + callbacks, **settings)
        found.append((model, history, callbacks))
    return found


def test_a_resumed_run_has_what_its_callbacks_remember():
    final, valid = lrlib.hold_out(lrlib.relabelled(DATA, 0.5))

    def callbacks():
        return [
            lrlib.ReduceOnPlateau(valid, every=2, patience=1, factor=0.5),
            lrlib.EarlyStopping(valid, every=4, patience=100),
            lrlib.WeightAverage(at=range(5, 31, 5)),
            lrlib.WeightAverage(at=[3, 9], decay=0.5),
        ]

    options = {"data": final, "schedule": 1.0, "eval_every": 10, "track_updates": True}
    for middle in (12, 30):
        whole, again = resumed(lambda: lrlib_mlp(0, norm="batch"), callbacks, middle, **options)
        assert apart(whole[0].state_dict().values(), again[0].state_dict().values()) == 0
        for name in ("lr", "loss", "update_ratio", "eval_step", "test_loss", "test_accuracy"):
            np.testing.assert_array_equal(getattr(whole[1], name), getattr(again[1], name))
        for one, other in zip(whole[2], again[2], strict=True):
            if isinstance(one, lrlib.WeightAverage):
                states = [average.model.state_dict().values() for average in (one, other)]
                assert one.count == other.count and apart(*states) == 0
            else:
                assert one.readings == other.readings
        assert whole[2][0].cuts == again[2][0].cuts != []


@pytest.mark.parametrize("method", ["rule", "torch"])
def test_a_callback_that_comes_after_the_one_that_saved_sees_the_moves_of_the_last_update(method):
    make = {"make_optimizer": lambda model: torch.optim.SGD(model.parameters(), lr=0.1)} if method == "torch" else {}
    whole, again = resumed(lambda: lrlib_mlp(0), lambda: [lrlib.UpdateRatios(every=3)], schedule=0.1, **make)
    np.testing.assert_array_equal(whole[2][0].ratios, again[2][0].ratios)
    assert len(again[2][0].ratios) == 14  # one of them at the thirteenth update, where it was saved


def test_a_resumed_run_has_rebound_buffers_and_unfrozen_layers():
    def model():
        net = nn.Sequential(Rebinding(), nn.Linear(10, 10))
        net[1].requires_grad_(False)
        return net

    thaw = lrlib.Periodic(lambda run: run.model.requires_grad_(True), at=[5])
    torch_sgd = {"make_optimizer": lambda model: torch.optim.SGD(model.parameters(), lr=0.1)}
    with lrlib.seeded(0):
        whole, again = resumed(model, lambda: [thaw], schedule=None, **torch_sgd)
    assert np.array_equal(whole[1].loss[13:], again[1].loss[13:])
    assert apart(whole[0].state_dict().values(), again[0].state_dict().values()) == 0


def test_a_run_cannot_be_taken_up_from_a_loader_or_with_other_callbacks():
    loader = torch.utils.data.DataLoader(torch.utils.data.TensorDataset(X.float(), Y), batch_size=20)
    with pytest.raises(ValueError, match="place in a loader"):
        lrlib.train(lrlib_mlp(0), loader, 0.1, steps=2, callbacks=[lambda run: run.state_dict()])
    kept = {}
    lrlib.train(lrlib_mlp(0), DATA, 0.1, steps=2, callbacks=[lambda run: kept.update(run.state_dict())])
    average = lrlib.WeightAverage(at=[1])
    with pytest.raises(ValueError, match=r"resume: .*callbacks \['Evaluate'\]"):
        lrlib.train(lrlib_mlp(0), DATA, 0.1, steps=2, resume=kept, callbacks=[average])
    for wrong in ({}, [1], {"step": 1}):
        with pytest.raises(ValueError, match="resume: .*Run.state_dict"):
            lrlib.train(lrlib_mlp(0), DATA, 0.1, steps=2, resume=wrong)


@pytest.mark.parametrize("planned", [True, False])
def test_a_group_that_joins_a_run_follows_its_schedule(planned):
    model = lrlib_mlp(0)
    optimizer = torch.optim.SGD(model[1].parameters(), lr=0.2)

    def join(run):
        optimizer.add_param_group({"params": list(model[3].parameters()), "lr": 0.05})

    schedule = lrlib.multistep(0.1, [4]) if planned else None
    watch = lrlib.Periodic(join, at=[2])
    history = lrlib.train(model, DATA, schedule, steps=6, optimizer=optimizer, callbacks=[watch])
    rates = [0.1, 0.1, 0.1, 0.1, 0.01, 0.01] if planned else [0.2] * 6
    joined = [math.nan] * 2 + (rates[2:] if planned else [0.05] * 4)
    np.testing.assert_allclose(history.lr, np.stack([rates, joined], 1), rtol=1e-12)
    with pytest.raises(ValueError, match="schedule: must be one for all groups"):
        each = torch.optim.SGD(model[1].parameters(), lr=0.2)
        late = lrlib.Periodic(lambda run: each.add_param_group({"params": [model[3].weight]}), at=[1])
        lrlib.train(model, DATA, [lrlib.constant(0.1)], steps=3, optimizer=each, callbacks=[late])


@pytest.mark.parametrize("trained", [True, False])
def test_a_rule_refuses_layers_that_are_frozen_or_unfrozen_on_the_way(trained):
    model = lrlib_mlp(0)
    model[1].requires_grad_(not trained)
    turn = lrlib.Periodic(lambda run: model[1].requires_grad_(trained), at=[1])
    with pytest.raises(ValueError, match="has changed which parameters require gradients"):
        lrlib.train(model, DATA, 0.1, steps=3, callbacks=[turn])


def test_a_step_that_asks_for_a_closure_gets_one():
    class Twice(torch.optim.SGD):
        def step(self, closure):
            with torch.enable_grad():
                closure()
            return super().step()

    models = mlp(), mlp()
    for model, make in zip(models, (Twice, torch.optim.SGD), strict=True):
        lrlib.train(model, (X, Y), 0.1, steps=5, optimizer=make(model.parameters(), lr=0.1))
    assert apart(*(model.parameters() for model in models)) < 1e-12


@pytest.mark.parametrize(
    "loss, words",
    [
        (lambda z, y: 1.0, "a float"),
        (lambda z, y: (F.cross_entropy(z, y), 0), "a tuple"),
        (lambda z, y: F.cross_entropy(z, y, reduction="none"), "shape"),
        (lambda z, y: z.detach().sum(), "no gradient"),
        (lambda z, y: (z.argmax(1) == y).sum(), "no gradient"),
    ],
    ids=["float", "tuple", "none", "detached", "whole"],
)
def test_what_is_no_loss_is_refused(loss, words):
    with pytest.raises(ValueError, match=f"loss: .*{words}"):
        lrlib.train(mlp(), (X, Y), 0.1, steps=2, loss=loss)


@pytest.mark.parametrize("data", [(X, Y), None, [DATA]], ids=["pair", "None", "list"])
def test_a_grid_takes_a_data_set_or_a_function(data):
    with pytest.raises(TypeError, match="data: is a .*must be a Dataset, or a function"):
        lrlib.train_grid(lambda seed: lrlib.mlp(64, 8, 10), data, [0.1], [0], steps=1)


class Holder(nn.Module):
    """A layer whose output goes through something else that the module holds."""

    def __init__(self, held, use):
        super().__init__()
        self.layer, self.held, self.use = nn.Linear(64, 10), held, use

    def forward(self, x):
        return self.use(self.held, self.layer(x.flatten(1)))


class Gain:
    def __init__(self, value):
        self.value = value

    def times(self, z):
        return self.value * z


def hooked(gain, register="register_forward_hook"):
    model = lrlib.mlp(64, 8, 10)
    if register == "register_hook":
        model[1].weight.register_hook(lambda g: gain * g)
    elif register == "register_forward_hook":
        model[3].register_forward_hook(lambda module, inputs, output: gain * output)
    else:
        model[3].register_full_backward_pre_hook(lambda module, slopes: (gain * slopes[0],))
    return model


def scaled(gain):
    class Times(nn.Module):
        def forward(self, w):
            return self.gain[0] * w

    model, times = nn.Sequential(nn.Flatten(), nn.Linear(64, 10)), Times()
    times.gain = [gain]
    nn.utils.parametrize.register_parametrization(model[1], "weight", times)
    return model


def call(held, z):
    return held(z)


SEEDED = {
    "list": lambda gain: Holder([gain], lambda held, z: held[0] * z),
    "dict": lambda gain: Holder({"gain": gain}, lambda held, z: held["gain"] * z),
    "object": lambda gain: Holder(Gain(gain), lambda held, z: held.value * z),
    "tensor": lambda gain: Holder(torch.tensor(float(gain)), lambda held, z: held * z),
    "array": lambda gain: Holder(np.array(float(gain)), lambda held, z: held.item() * z),
    "closure": lambda gain: Holder(lambda z: gain * z, call),
    "default": lambda gain: Holder(lambda z, gain=gain: gain * z, call),
    "method": lambda gain: Holder(Gain(gain).times, call),
    "partial": lambda gain: Holder(functools.partial(torch.mul, torch.tensor(float(gain))), call),
    "hidden layer": lambda gain: Holder([nn.Linear(10, 10)], lambda held, z: held[0](z)),
    "hook": hooked,
    "backward hook": lambda gain: hooked(gain, "register_full_backward_pre_hook"),
    "tensor's hook": lambda gain: hooked(gain, "register_hook"),
    "parametrization": scaled,
}


@pytest.mark.parametrize("kind", SEEDED)
def test_whatever_differs_by_seed_makes_no_replicas(kind):
    def make(seed):
        return SEEDED[kind](1 + 4 * seed)

    grid = lrlib.train_grid(make, DATA, [0.1], [0, 1], steps=4)
    assert grid.way == "loop" and ("has a backward hook" if kind == "backward hook" else "differs") in grid.why
    for seed in (0, 1):
        model = grid_model(lambda seed=seed: make(seed), seed)
        assert lrlib.train(model, DATA, 0.1, steps=4, seed=seed).final_loss == grid.final_loss[0, seed]


class OneMemory(nn.Module):
    """Two parameters in the same memory."""

    def __init__(self):
        super().__init__()
        self.first, self.second, self.head = nn.Linear(64, 64), nn.Linear(64, 64), nn.Linear(64, 10)
        self.second.weight.data = self.first.weight.data

    def forward(self, x):
        return self.head(torch.tanh(self.second(torch.tanh(self.first(x.flatten(1))))))


class LateNoise(nn.Module):
    """Noise in batches of more than two."""

    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(64, 10)

    def forward(self, x):
        z = self.layer(x.flatten(1))
        return F.dropout(z, 0.5, self.training) if len(x) > 2 else z


@pytest.mark.parametrize(
    "make",
    [lambda: Alias("list"), lambda: Alias("function"), OneMemory, LateNoise],
    ids=["list", "function", "memory", "noise"],
)
def test_what_would_go_wrong_in_a_stack_is_trained_one_by_one(make):
    grid = lrlib.train_grid(lambda seed: make(), DATA, [0.1, 0.2], [0], steps=4)
    assert grid.way == "loop"
    for rate in (0.1, 0.2):
        model = grid_model(make)
        assert lrlib.train(model, DATA, rate, steps=4, seed=0).final_loss == grid.final_loss[grid.names.index(rate), 0]


def test_a_layer_that_is_used_twice_is_left_as_it_was():
    def make():
        layer = nn.Linear(64, 64)
        return nn.Sequential(nn.Flatten(), layer, nn.Tanh(), layer, nn.Linear(64, 10))

    models = [grid_model(make, seed) for seed in (0, 1)]
    stack = lrlib.Stack(models)
    for _ in range(2):
        torch.testing.assert_close(stack(DATA.x_test[None, :20]), torch.stack([m(DATA.x_test[:20]) for m in models]))
    assert all(isinstance(p, nn.Parameter) for p in stack.template.parameters())
    assert stack.template[1].weight is stack.template[3].weight


@pytest.mark.parametrize("make", [lambda model: model, lambda model: lrlib.Stack([model, model])], ids=["one", "stack"])
def test_a_batch_of_one_under_batchnorm_is_named(make):
    with pytest.raises(ValueError, match="data: gave a batch of one example, of which BatchNorm"):
        lrlib.train(make(mlp(norm="batch")), (X, Y), 0.1, steps=2, batch_size=1)
    loader = torch.utils.data.DataLoader(torch.utils.data.TensorDataset(X[:65], Y[:65]), batch_size=64)
    with pytest.raises(ValueError, match="drop_last=True"):
        lrlib.train(mlp(norm="batch"), loader, 0.1, steps=2)


def test_a_stack_leaves_labels_out_that_cross_entropy_ignores():
    x, y = torch.randn(6, 4), torch.tensor([0, 1, -100, 2, -100, 1])
    model = nn.Sequential(nn.Flatten(), nn.Linear(4, 3))
    stack = lrlib.Stack([model, model])
    alone = F.cross_entropy(model(x), y)
    torch.testing.assert_close(stack.losses(x[None], y[None]), alone.expand(2))


def test_a_stack_of_networks_with_layers_in_two_modes_is_refused():
    model = lrlib.mlp(4, 8, 3, norm="batch").train()
    model[2].eval()
    with pytest.raises(ValueError, match=r"models\[0\]: has layers in training and in evaluation mode"):
        lrlib.Stack([model])


@pytest.mark.parametrize("other", [lrlib.Adam(), "torch"])
def test_a_run_does_not_go_on_by_another_method(other):
    states, model = [], lrlib.mlp(64, 4, 10)
    keep = lrlib.Periodic(lambda run: states.append(run.state_dict()), at=[3])
    lrlib.train(model, DATA, 0.1, steps=5, optimizer=lrlib.SGD(momentum=0.9), callbacks=[keep])
    before = copy.deepcopy(model.state_dict())
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1) if other == "torch" else other
    with pytest.raises(ValueError, match="resume: is of a run by another method"):
        lrlib.train(model, DATA, 0.1, steps=5, optimizer=optimizer, resume=states[0])
    assert all(torch.equal(value, model.state_dict()[name]) for name, value in before.items())


def test_a_run_does_not_go_on_with_other_groups():
    states, model = [], lrlib.mlp(64, 4, 10)
    keep = lrlib.Periodic(lambda run: states.append(run.state_dict()), at=[3])
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    lrlib.train(model, DATA, 0.1, steps=5, optimizer=optimizer, callbacks=[keep])
    before = copy.deepcopy(model.state_dict())
    with pytest.raises(ValueError, match="group"):
        head = torch.optim.SGD(model[3].parameters(), lr=0.1)
        lrlib.train(model, DATA, 0.1, steps=5, optimizer=head, resume=states[0])
    assert all(torch.equal(value, model.state_dict()[name]) for name, value in before.items())


def test_one_run_of_a_grid_is_a_stack_where_that_is_asked_for():
    assert lrlib.train_grid(lambda seed: lrlib.mlp(64, 4, 10), DATA, [0.1], [0], steps=3, way="stack").way == "stack"
    with pytest.raises(ValueError, match="way='stack': must be 'loop'"):
        lrlib.train_grid(
            lambda seed: nn.Sequential(nn.Flatten(), nn.Dropout(), nn.Linear(64, 10)),
            DATA, [0.1], [0], steps=3, way="stack",
        )  # fmt: skip


def test_a_grid_refuses_sizes_before_it_trains():
    for name in ("steps", "batch_size"):
        with pytest.raises(ValueError, match=f"{name}=0: must be an integer >= 1"):
            lrlib.train_grid(
                lambda seed: lrlib.mlp(64, 4, 10), DATA, [lrlib.cosine(0.1, 5)], [0], **{"steps": 5, name: 0}
            )


@pytest.mark.parametrize("seeds", [[0], [0, 1]], ids=str)
def test_a_loop_and_a_stack_keep_the_evaluation_at_which_a_run_diverged(seeds):
    x_train = DATA.x_train.clone()
    x_train[:6] = torch.nan
    data = dataclasses.replace(DATA, x_train=x_train)
    stack, loop = (
        lrlib.train_grid(lambda seed: lrlib.mlp(64, 4, 10), data, [0.1], seeds, steps=9, eval_every=1, way=way)
        for way in ("stack", "loop")
    )
    assert (stack.diverged_at == loop.diverged_at).all() and (stack.diverged_at > 0).all()
    assert (stack.updates == loop.updates).all() and np.isnan([stack.diverged_loss, loop.diverged_loss]).all()
    ended = [grid.test_loss[0, range(len(seeds)), grid.diverged_at[0]] for grid in (stack, loop)]
    assert np.isfinite(ended).all() and (np.isnan(stack.test_loss) == np.isnan(loop.test_loss)).all()


@pytest.mark.parametrize("kind", [int, np.int64, np.int16])
def test_numbers_of_any_integer_type_train(kind):
    grid = lrlib.train_grid(lambda seed: lrlib.mlp(64, 8, 10), DATA, [0.1], [0], steps=kind(3), batch_size=kind(32))
    assert grid.loss.shape == (1, 1, 3)
    assert lrlib.train(lrlib_mlp(0), DATA, 0.1, steps=kind(3), batch_size=kind(32)).updates == 3


@pytest.mark.parametrize("wrong", [0, -3, 2.5, "x", True, None])
def test_a_batch_size_is_checked_with_a_loader_too(wrong):
    loader = torch.utils.data.DataLoader(torch.utils.data.TensorDataset(X, Y), batch_size=8)
    with pytest.raises((TypeError, ValueError), match="batch_size"):
        lrlib.train(lrlib_mlp(0).double(), loader, 0.1, steps=2, batch_size=wrong)


@pytest.mark.parametrize("wrong", [{"batch_size": 0}, {"optimizer": "adam"}, {"steps": 0}])
def test_a_grid_refuses_before_it_loads_the_data(wrong):
    loaded = []
    with pytest.raises((TypeError, ValueError), match=next(iter(wrong))):
        lrlib.train_grid(
            lambda seed: lrlib.mlp(64, 8, 10), lambda: loaded.append(0), [0.1], [0], **{"steps": 2} | wrong
        )
    assert not loaded


def test_seeds_are_checked_before_anything_begins():
    started = []

    class Watch(lrlib.Callback):
        def start(self, run):
            started.append(run)

    loader = torch.utils.data.DataLoader(torch.utils.data.TensorDataset(X, Y), batch_size=8)
    for data, model, seed in ((loader, lrlib_mlp(0), -1), (DATA, lrlib.Stack([lrlib_mlp(0), lrlib_mlp(1)]), [1, True])):
        with pytest.raises((TypeError, ValueError), match="seed"):
            lrlib.train(model, data, 0.1, steps=2, seed=seed, callbacks=[Watch(every=1)])
    assert not started


def test_results_are_compared_and_hashed_by_what_they_are():
    one, two = (lrlib.train_grid(lambda seed: lrlib.mlp(64, 8, 10), DATA, [0.1], [0], steps=2) for _ in range(2))
    assert one != two and one in [two, one] and len({one, two}) == 2
    history = lrlib.train(lrlib_mlp(0), DATA, 0.1, steps=2)
    assert history == history and history in {history}


def test_the_state_of_a_run_holds_moves_only_for_who_reads_them():
    def state(callbacks):
        kept = {}
        save = lrlib.Periodic(lambda run: kept.update(run.state_dict()), at=[2])
        lrlib.train(lrlib_mlp(0), DATA, 0.1, steps=3, callbacks=[save, *callbacks])
        return kept

    assert state([])["last"] == [[], []] and len(state([lrlib.UpdateRatios()])["last"][1]) == len(
        [*lrlib_mlp(0).parameters()]
    )


def test_sizes_of_updates_are_measured_of_a_scalar_too():
    class Scaled(nn.Module):
        def __init__(self):
            super().__init__()
            self.scale, self.layer = nn.Parameter(torch.tensor(2.0)), lrlib_mlp(0)

        def forward(self, x):
            return self.scale * self.layer(x)

    ratios = lrlib.UpdateRatios()
    lrlib.train(Scaled(), DATA, 0.1, steps=3, callbacks=[ratios])
    assert ratios.ratios.shape == (3, 5) and (ratios.ratios > 0).all()
    np.testing.assert_array_less(ratios.whole, ratios.ratios.max(1))


@pytest.mark.parametrize("first", [0.0, 1.0], ids=["a probability", "none"])
@pytest.mark.parametrize("size", [2000, 20, 7])
def test_a_loss_that_squeezes_its_outputs_is_evaluated(first, size):
    x = torch.linspace(-1, 1, 40)[:, None]
    y = (x[:, 0] > 0).float()
    model = nn.Linear(1, 1)
    nn.init.ones_(model.weight)
    nn.init.constant_(model.bias, 1.5 + first)

    def loss(z, t):
        return F.binary_cross_entropy_with_logits(z.squeeze(), t)

    found, _ = lrlib.evaluate(model, x, y, loss, size)
    assert found == pytest.approx(loss(model(x), y).item(), rel=1e-5)
    with pytest.raises(ValueError, match="a mean over the examples"):
        lrlib.evaluate(model, x, y, lambda z, t: len(t) * loss(z, t), 20)


@pytest.mark.parametrize("optimizer", [lrlib.SGD(), torch.optim.SGD])
def test_what_is_stopped_before_its_first_update_stays(optimizer):
    model = mlp(norm="batch")
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    method = optimizer if isinstance(optimizer, lrlib.Rule) else optimizer(model.parameters(), 0.1)
    stop = lrlib.Periodic(lambda run: run.stop(), at=[0])
    history = lrlib.train(model, (X, Y), 0.1, steps=5, optimizer=method, callbacks=[stop])
    assert history.updates == 0 and all(torch.equal(before[n], t) for n, t in model.state_dict().items())


def test_a_run_that_was_saved_when_it_was_about_to_stop_stops():
    final, valid = lrlib.hold_out(lrlib.relabelled(DATA, 0.5))

    def run(resume=None):
        saved, model = [], lrlib_mlp(0)
        save = lrlib.Periodic(lambda run: saved.append(run.state_dict()), every=2)
        stop = lrlib.ReduceOnPlateau(valid, every=2, patience=1, max_cuts=1)
        optimizer = torch.optim.SGD(model.parameters(), 1.0)
        options = {"steps": 400, "optimizer": optimizer, "callbacks": [save, stop], "resume": resume}
        return lrlib.train(model, final, 1.0, **options), model, saved

    whole, one, saved = run()
    resumed, other, _ = run(saved[-1])
    assert resumed.updates == whole.updates == saved[-1]["step"] < 400
    assert all(torch.equal(a, b) for a, b in zip(one.parameters(), other.parameters(), strict=True))


def test_a_replica_that_is_stopped_keeps_its_statistics():
    def run(model):
        return lrlib.train(
            model, (X, Y), 0.1, steps=20, seed=3, callbacks=[lambda run: run.step == 5 and run.stop([0])]
        )

    alone, stack = mlp(norm="batch"), lrlib.Stack([mlp(norm="batch"), mlp(norm="batch")])
    run(alone), run(stack)
    state = alone.state_dict()
    assert state.keys() == stack.replica(0).keys()
    for name, tensor in stack.replica(0).items():
        torch.testing.assert_close(tensor, state[name], rtol=1e-9, atol=1e-9)
    assert [int(stack.replica(r)["2.num_batches_tracked"]) for r in (0, 1)] == [5, 20]


def test_a_replica_that_is_stopped_keeps_the_statistics_of_an_instance_norm():
    def make():
        with lrlib.seeded(0):
            norm = nn.InstanceNorm2d(2, track_running_stats=True)
            return nn.Sequential(nn.Conv2d(1, 2, 3), norm, nn.Flatten(), nn.Linear(72, 10)).double()

    alone, stack = make(), lrlib.Stack([make()] * 2)
    lrlib.train(stack, (X, Y), 0.1, steps=6, callbacks=[lambda run: run.step == 3 and run.stop([0])])
    lrlib.train(alone, (X, Y), 0.1, steps=3)
    torch.testing.assert_close(stack.replica(0)["1.running_mean"], alone[1].running_mean)
    assert not torch.allclose(stack.replica(1)["1.running_mean"], alone[1].running_mean)


def test_replicas_count_the_batch_at_which_they_diverge_as_single_runs_do():
    batches = list(lrlib.batches(len(X), 64, 9))
    data, models = [], [mlp(seed, norm="batch") for seed in range(2)]
    for last in (3, 6):
        targets = X.flatten(1)[:, :10].clone()
        targets[batches[last]] = torch.inf
        data.append((X, targets))
    options = {"loss": F.mse_loss, "steps": 9}
    stack = lrlib.Stack(models)
    found = lrlib.train(stack, data, 0.1, **options).diverged_at
    for r, model in enumerate(models):
        assert lrlib.train(model, data[r], 0.1, **options).diverged_at == found[r]
        for name, tensor in stack.replica(r).items():
            torch.testing.assert_close(tensor, model.state_dict()[name], rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize(
    "rule", [lrlib.Prodigy(), lrlib.DAdaptAdam(), lrlib.ScheduleFreeAdamW(), lrlib.Hypergradient()]
)
def test_an_optimizer_of_a_rule_goes_on_bit_by_bit_in_single_precision(rule):
    def run(resume=None):
        with lrlib.seeded(0):
            model, saved = lrlib.mlp(64, 12, 10), []
        optimizer = rule.optimizer(model.parameters(), lr=0.1)
        save = lrlib.Periodic(lambda run: saved.append(run.state_dict()), at=[10])
        options = {"steps": 30, "optimizer": optimizer, "callbacks": [save], "resume": resume}
        return lrlib.train(model, DATA, 0.1, **options), saved

    whole, saved = run()
    resumed, _ = run(saved[0])
    assert np.array_equal(whole.loss, resumed.loss) and np.isfinite(whole.loss).all()


def test_a_state_in_half_precision_counts_on():
    p = nn.Parameter(torch.zeros(1, dtype=torch.bfloat16))
    optimizer = lrlib.ScheduleFreeAdamW().optimizer([p], lr=1.0)
    for k in range(600):
        p.grad = torch.ones_like(p)
        optimizer.step()
        if k == 299:
            optimizer.load_state_dict(optimizer.state_dict())
    assert optimizer.state[p]["weight_sum"] == 600


def test_a_stack_moves_and_changes_type_with_its_template():
    with lrlib.seeded(0):
        models = [lrlib.conv_net(4), lrlib.conv_net(4)]
    stack = lrlib.Stack(models).double()
    assert np.isfinite(lrlib.train(stack, (X, Y), 0.1, steps=2).loss).all()
    assert {p.device.type for p in lrlib.Stack(models).to("meta").template.parameters()} == {"meta"}


class Scaled(nn.Linear):
    def __init__(self):
        super().__init__(64, 10, dtype=torch.float64)
        self.scale = nn.Parameter(torch.tensor(1.0, dtype=torch.float64))

    def forward(self, x):
        return self.scale * super().forward(x.flatten(1))


@pytest.mark.parametrize(
    "rule",
    [*RULES.values(), lrlib.Prodigy(), lrlib.DAdaptAdam(), lrlib.ScheduleFreeAdamW()],
    ids=lambda r: type(r).__name__,
)
def test_a_scalar_parameter_trains(rule):
    with lrlib.seeded(0):
        models = [Scaled(), Scaled()]
    alone, stack = copy.deepcopy(models[0]), lrlib.Stack(models)
    single = lrlib.train(alone, (X, Y), 0.01, steps=3, optimizer=rule)
    both = lrlib.train(stack, (X, Y), 0.01, steps=3, optimizer=rule)
    assert single.loss == pytest.approx(both.loss[0], rel=1e-9) and alone.scale != 1


@pytest.mark.parametrize("name", ["Adam", "momentum", "Lion", "RMSprop"])
def test_numbers_by_replica_and_step_keep_their_digits_in_bfloat16(name):
    def losses(rule):
        model = mlp().bfloat16()
        return lrlib.train(model, (X.bfloat16(), Y), 0.01, steps=5, optimizer=rule).loss

    settings = {"Adam": ("betas", (0.9, 0.999)), "Lion": ("betas", (0.9, 0.99)), "RMSprop": ("alpha", 0.999)}
    key, value = settings.get(name, ("momentum", 0.9))
    planned = tuple(map(lrlib.constant, value)) if isinstance(value, tuple) else lrlib.constant(value)
    rule = RULES[name]
    found = losses(dataclasses.replace(rule, **{key: planned}))
    assert len(found) == 5 and found == pytest.approx(losses(dataclasses.replace(rule, **{key: value})), rel=0.02)


def test_a_grid_makes_only_the_models_of_its_seeds_and_leaves_the_generator():
    made = {seed: lrlib_mlp(seed) for seed in (5, 6)}
    torch.manual_seed(0)
    before = torch.get_rng_state()
    lrlib.train_grid(lambda seed: copy.deepcopy(made[seed]), DATA, [0.1], seeds=[5, 6], steps=2)
    assert torch.equal(before, torch.get_rng_state())


def test_gradients_and_rates_of_torchs_optimizers_are_those_of_the_update():
    fixed = X[:64], Y[:64]
    seen = []

    def note(run):
        seen.append([g.norm().item() for g in run.gradients])

    model = mlp()
    head = torch.optim.SGD(model[-1].parameters(), 0.1)
    lrlib.train(model, fixed, 0.0, steps=3, batch_size=64, optimizer=head, callbacks=[note])
    assert seen[0] == pytest.approx(seen[2]) and min(seen[0]) > 0
    seen.clear()
    for method in (lrlib.HillClimb(), lrlib.HillClimb().optimizer(model.parameters(), lr=0.0)):
        lrlib.train(model, fixed, 0.0, steps=1, batch_size=64, optimizer=method, callbacks=[note])
    assert seen[0] == pytest.approx(seen[1]) and min(seen[0]) > 0
    rule, one, other = lrlib.Hypergradient(0.01), mlp(), mlp()
    by_rule = lrlib.train(one, (X, Y), 0.1, steps=4, optimizer=rule)
    by_optimizer = lrlib.train(other, (X, Y), 0.1, steps=4, optimizer=rule.optimizer(other.parameters(), lr=0.1))
    assert by_rule.lr == pytest.approx(by_optimizer.lr.ravel()) and by_rule.lr[-1] != 0.1


def test_a_look_ahead_leaves_statistics_and_generator():
    def run(*callbacks):
        with lrlib.seeded(0):
            model = nn.Sequential(lrlib.mlp(64, 12, norm="batch"), nn.Dropout(0.5), nn.Linear(12, 10)).double()
            history = lrlib.train(model, (X, Y), 0.1, steps=9, callbacks=callbacks)
        return history.loss, model.state_dict()

    (loss, state), (other, same) = run(), run(lambda run: run.step < 9 and run.ahead())
    assert np.array_equal(loss, other) and all(torch.equal(state[name], same[name]) for name in state)


class Table(nn.Module):
    """Two layers share one constant."""

    def __init__(self, seed):
        super().__init__()
        table = torch.full((4,), 1.0 + seed)
        with lrlib.seeded(seed):
            self.first, self.second = nn.Linear(4, 4), nn.Linear(4, 4)
        self.first.register_buffer("table", table)
        self.second.register_buffer("table", table)

    def forward(self, x):
        return self.second((self.first(x) + self.first.table).tanh()) + self.second.table


def test_what_layers_of_a_stack_share_stays_shared_where_its_type_changes():
    models, x = [Table(0), Table(1)], torch.randn(1, 3, 4, dtype=torch.float64)
    stack = lrlib.Stack(models).double()
    outputs = stack(x)
    for model, found in zip(models, outputs, strict=True):
        torch.testing.assert_close(model.double()(x[0]), found)
    x, y = torch.randn(20, 4, dtype=torch.float64), torch.arange(20) % 4
    assert np.isfinite(lrlib.train(stack, (x, y), 0.1, steps=2, batch_size=5).loss).all()


class Accumulating(torch.optim.SGD):
    """Steps at every second call, by the gradients of both."""

    calls = 0

    def zero_grad(self, set_to_none=True):
        if self.calls % 2 == 0:
            super().zero_grad(set_to_none)

    def step(self, closure=None):
        self.calls += 1
        if self.calls % 2 == 0:
            super().step()


def test_an_optimizer_that_accumulates_gradients_keeps_them():
    x, y, model, plain = X[:20], Y[:20], mlp(), mlp()
    optimizer = Accumulating(model.parameters(), 0.5)
    lrlib.train(model, (x, y), 0.5, steps=2, batch_size=20, optimizer=optimizer)
    lrlib.train(plain, (x, y), 1.0, steps=1, batch_size=20, optimizer=torch.optim.SGD(plain.parameters(), 1.0))
    for p, q in zip(model.parameters(), plain.parameters(), strict=True):
        torch.testing.assert_close(p, q)


def test_a_rule_in_half_precision_has_its_rate_in_that_type():
    @dataclasses.dataclass(frozen=True)
    class Averaged(lrlib.Rule):
        def start(self, p):
            return {"mean": torch.zeros_like(p)}

        def move(self, g, p, state, now):
            return state["mean"].lerp_(g, now["lr"])

    model = mlp().bfloat16()
    assert len(lrlib.train(model, (X.bfloat16(), Y), 0.1, steps=3, optimizer=Averaged()).loss) == 3


def test_a_look_ahead_leaves_a_loaders_order_random():
    x, seen = torch.arange(6.0)[:, None], []

    class Net(nn.Linear):
        def forward(self, x):
            seen.append(x[:, 0].tolist())
            return super().forward(x)

    data = torch.utils.data.TensorDataset(x, torch.zeros(6, 1))
    loader = torch.utils.data.DataLoader(data, batch_size=2, shuffle=True)
    with lrlib.seeded(0):
        ahead = [lrlib.Periodic(lambda run: run.ahead(), every=1)]
        lrlib.train(Net(1, 1), loader, 0.0, steps=9, loss=F.mse_loss, callbacks=ahead)
    epochs = [tuple(sum(seen[k : k + 3], [])) for k in range(0, 18, 3)]
    assert len(set(epochs)) == len(epochs)


def test_hooks_see_and_change_the_state_that_a_rules_optimizer_loads():
    p = nn.Parameter(torch.zeros(2))
    optimizer = lrlib.Hypergradient(0.1).optimizer([p], lr=0.1)
    p.grad = torch.ones(2)
    optimizer.step(), optimizer.step()
    saved = optimizer.state_dict()
    optimizer.register_load_state_dict_post_hook(lambda made: made.state[p]["gain"].zero_())
    optimizer.load_state_dict(saved)
    assert optimizer.state[p]["gain"].item() == 0 and optimizer.state[p]["gain"].dtype == torch.float64
    other = lrlib.Hypergradient(0.1).optimizer([p], lr=0.1)
    changed = {0: saved["state"][0] | {"gain": torch.tensor(0.25, dtype=torch.float64)}}
    other.register_load_state_dict_pre_hook(lambda made, state: state | {"state": changed})
    other.load_state_dict(saved)
    assert other.state[p]["gain"].item() == 0.25


def test_a_loss_that_is_a_number_for_some_examples_is_evaluated():
    def masked(z, t):
        kept = t != -100
        return F.cross_entropy(z[kept], t[kept], reduction="sum") / len(t) if kept.any() else 0.0

    y = Y.clone()
    y[:6] = -100
    model = mlp()
    assert lrlib.evaluate(model, X, y, masked, 100)[0] == pytest.approx(masked(model.eval()(X), y).item())


def test_looks_of_a_stopped_replica_do_not_count():
    stack = lrlib.Stack([mlp(norm="batch"), mlp(norm="batch")])
    stop = [lambda run: run.step == 5 and run.stop([0])]
    lrlib.train(stack, (X, Y), 0.1, steps=10, optimizer=lrlib.HillClimb(), callbacks=stop)
    one, other = (int(stack.replica(r)["2.num_batches_tracked"]) for r in (0, 1))
    assert 2 * one == other


def test_the_rate_of_a_group_that_rests_is_the_planned_one():
    model, plan = mlp(), lrlib.exponential(0.1, 0.5)
    groups = [{"params": model[1].parameters()}, {"params": model[-1].parameters()}]
    optimizer = lrlib.Hypergradient(0.01).optimizer(groups, lr=0.1)
    freeze = lrlib.Periodic(lambda run: model[1].requires_grad_(False), at=[3])
    rates = lrlib.train(model, (X, Y), plan, steps=6, optimizer=optimizer, callbacks=[freeze]).lr
    planned = plan(range(6))
    assert (rates[1:, 1] != planned[1:]).all() and (rates[1:3, 0] != planned[1:3]).all()
    np.testing.assert_allclose(rates[3:, 0], planned[3:])


def test_a_callback_that_had_been_called_when_the_run_was_saved_is_not_called_again():
    kept, watches = {}, []
    for resume in (None, kept):
        watches.append(lrlib.Evaluate(DATA.x_test, DATA.y_test, every=5))
        save = lrlib.Periodic(lambda run: kept.update(copy.deepcopy(run.state_dict())), at=[10])
        callbacks = [watches[-1]] if resume else [watches[-1], save]
        lrlib.train(lrlib_mlp(0), (X.float(), Y), 0.1, steps=15, callbacks=callbacks, resume=resume)
    assert watches[0].steps == watches[1].steps == [0, 5, 10, 15]


def test_a_replica_that_was_stopped_rests_in_a_resumed_run():
    kept = {}

    def watch(run):
        if run.step == 3:
            run.stop([0])
        if run.step == 5:
            kept.update(run.state_dict())

    whole, again = (lrlib.Stack([lrlib_mlp(0), lrlib_mlp(1)]) for _ in range(2))
    one = lrlib.train(whole, DATA, 0.1, steps=9, callbacks=[watch])
    two = lrlib.train(again, DATA, 0.1, steps=9, resume=kept)
    assert one.updates.tolist() == two.updates.tolist() == [3, 9]
    assert apart(whole.tensors().values(), again.tensors().values()) == 0


def test_a_saved_run_is_taken_up_again_and_again():
    kept = {}
    lrlib.train(lrlib_mlp(0), DATA, 0.1, steps=9, eval_every=2, callbacks=[
        lrlib.Periodic(lambda run: kept.update(run.state_dict()), at=[5])
    ])  # fmt: skip
    first, second = (lrlib.train(lrlib_mlp(0), DATA, 0.1, steps=9, eval_every=2, resume=kept) for _ in range(2))
    np.testing.assert_array_equal(first.test_loss, second.test_loss)


def test_a_look_ahead_sees_the_loss_of_the_next_update_in_every_window_of_the_order(monkeypatch):
    monkeypatch.setattr(minibatches, "WINDOW", 3 * 64)
    seen = []

    def watch(run):
        if run.step < run.steps:
            seen.append(run.ahead().item())

    history = lrlib.train(lrlib_mlp(0), DATA, 0.1, steps=8, callbacks=[watch])
    assert seen == pytest.approx(history.loss[1:].tolist(), rel=1e-6)


def test_a_callback_that_evaluates_leaves_the_run_in_training_mode():
    def trained(*callbacks):
        model = lrlib_mlp(0, norm="batch")
        return lrlib.train(model, DATA, 0.1, steps=5, callbacks=callbacks).loss

    np.testing.assert_array_equal(trained(), trained(lambda run: run.model.eval()))


def test_what_is_random_in_a_run_depends_on_its_seed():
    def drawn(seed):
        found = []
        lrlib.train(lrlib_mlp(0), DATA, 0.1, steps=1, seed=seed, callbacks=[lambda run: found.append(torch.rand(3))])
        return found[0].tolist()

    assert drawn(3) == drawn(3) != drawn(4)


@pytest.mark.parametrize("part", ["x_test", "y_test"])
def test_replicas_with_test_sets_of_their_own_are_refused(part):
    other = dataclasses.replace(DATA, **{part: getattr(DATA, part).clone()})
    with pytest.raises(ValueError, match="different test sets"):
        lrlib.train(lrlib.Stack([lrlib_mlp(0)] * 2), [DATA, other], 0.1, steps=1)


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize(
    "norm",
    [
        lambda: nn.BatchNorm1d(12, eps=0.3, momentum=0.7),
        lambda: nn.BatchNorm1d(12, track_running_stats=False),
        lambda: nn.LayerNorm(12, eps=0.3),
    ],
    ids=["batch", "without statistics", "layer"],
)
def test_settings_of_a_norm_hold_in_a_stack(norm, training):
    def model(seed):
        with lrlib.seeded(seed):
            return nn.Sequential(nn.Flatten(), nn.Linear(64, 12), norm(), nn.Linear(12, 10)).double().train(training)

    models, x = [model(0), model(1)], X[:20]
    stack = lrlib.Stack(models)
    together, alone = stack(x[None]), [one(x) for one in models]
    assert apart(together, alone) < 1e-12
    for r, one in enumerate(models):
        assert apart(stack.replica(r).values(), [one.state_dict()[name] for name in stack.replica(r)]) < 1e-12


def test_a_stack_flattens_the_axes_that_its_networks_flatten():
    model = nn.Sequential(nn.Flatten(2), nn.Linear(64, 10)).double()
    assert torch.equal(lrlib.Stack([model])(X[None, :5])[0], model(X[:5]))


def test_a_replicas_state_outlives_further_training():
    stack = lrlib.Stack([lrlib_mlp(0)])
    state = stack.replica(0)
    before = {name: tensor.clone() for name, tensor in state.items()}
    lrlib.train(stack, DATA, 0.1, steps=2)
    assert apart(state.values(), before.values()) == 0


def test_a_grid_that_has_to_look_for_random_layers_leaves_the_generator():
    torch.manual_seed(0)
    before = torch.get_rng_state()
    lrlib.train_grid(lambda seed: nn.Sequential(lrlib_mlp(seed), nn.Dropout()), DATA, [0.1, 0.2], [0], steps=2)
    assert torch.equal(before, torch.get_rng_state())


def test_a_grid_counts_what_diverged_at_the_first_update():
    def loss(outputs, y):
        return F.cross_entropy(outputs, y) * math.inf

    grid = lrlib.train_grid(lrlib_mlp, DATA, [0.1], [0, 1], steps=2, loss=loss)
    assert (grid.diverged_at == 0).all() and "2 diverged" in repr(grid)


def test_a_state_of_a_grid_is_a_copy():
    grid = lrlib.train_grid(lrlib_mlp, DATA, [0.1], [0], steps=1)
    grid.state_dict(0.1, 0)["1.bias"].fill_(7.0)
    assert (grid.state_dict(0.1, 0)["1.bias"] != 7.0).all()


def test_a_run_is_taken_up_in_any_window_of_the_order(monkeypatch):
    monkeypatch.setattr(minibatches, "WINDOW", 2 * 64)
    kept = {}
    save = lrlib.Periodic(lambda run: kept.update(run.state_dict()), at=[7])
    whole = lrlib.train(lrlib_mlp(0), DATA, 0.1, steps=9, callbacks=[save])
    assert np.array_equal(whole.loss, lrlib.train(lrlib_mlp(0), DATA, 0.1, steps=9, resume=kept).loss)


def test_targets_may_differ_by_replica_where_inputs_are_shared():
    targets = [Y, Y.roll(1)]
    stack = lrlib.Stack([mlp(), mlp()])
    together = lrlib.train(stack, [(X, y) for y in targets], 0.1, steps=5)
    for r, y in enumerate(targets):
        assert together.loss[r] == pytest.approx(lrlib.train(mlp(), (X, y), 0.1, steps=5).loss)


def test_types_may_differ_by_parameter_and_each_has_its_rate_in_its_own():
    class Mixed(nn.Module):
        def __init__(self):
            super().__init__()
            self.first = nn.Parameter(torch.ones(2, dtype=torch.bfloat16))
            self.second = nn.Parameter(torch.ones(2, dtype=torch.float64))

        def forward(self, x):
            return self.first.double() * self.second * x

    model, x = Mixed(), torch.ones(4, 2, dtype=torch.float64)
    lrlib.train(model, (x, 0 * x), 0.1, steps=1, batch_size=4, loss=F.mse_loss)
    torch.testing.assert_close(model.second.data, torch.full((2,), 0.9, dtype=torch.float64))


class Watch(lrlib.Callback):
    needs_moves = True

    def __init__(self):
        super().__init__(every=1)
        self.seen = []

    def __call__(self, run):
        self.seen.append([[t.clone() for t in some] for some in (run.weights, run.moves, run.gradients)])


@pytest.mark.parametrize("torchs", [False, True])
def test_moves_are_what_is_taken_from_the_weights_and_what_rests_has_none(torchs):
    model, watch = nn.ModuleList([nn.Linear(64, 10), nn.Linear(3, 3)]).double(), Watch()
    model.forward = lambda x: model[0](x.flatten(1))
    method = torch.optim.SGD(model.parameters(), 0.1) if torchs else lrlib.SGD()
    before = [p.detach().clone()[None] for p in model.parameters()]
    lrlib.train(model, (X, Y), 0.1, steps=2, optimizer=method, callbacks=[watch])
    for weights, moves, gradients in watch.seen:
        for old, new, move, gradient in zip(before, weights, moves, gradients, strict=True):
            torch.testing.assert_close(old - new, move)
            torch.testing.assert_close(move, 0.1 * gradient)
        before = weights
    assert moves[0].any() and not moves[2].any() and not gradients[3].any()


def test_a_rate_that_is_a_tensor_stays_one_in_a_run():
    model, rate = mlp(), torch.tensor(1.0, dtype=torch.float64)
    optimizer = torch.optim.SGD(model.parameters(), lr=rate)
    lrlib.train(model, (X, Y), lrlib.step(0.5, 2, 0.5), steps=3, optimizer=optimizer)
    assert optimizer.param_groups[0]["lr"] is rate and rate == 0.25


@pytest.mark.parametrize("torchs", [False, True])
def test_a_run_may_be_taken_up_twice_from_one_state(torchs):
    kept = {}

    def loss(**options):
        model = lrlib_mlp(0)
        method = torch.optim.SGD(model.parameters(), 0.1, momentum=0.9) if torchs else lrlib.SGD(momentum=0.9)
        return lrlib.train(model, DATA, 0.1, steps=8, optimizer=method, **options).loss

    whole = loss(callbacks=[lrlib.Periodic(lambda run: kept.update(run.state_dict()), at=[3])])
    assert all(np.array_equal(whole, loss(resume=kept)) for _ in range(2))


@pytest.mark.parametrize("torchs", [False, True])
def test_a_run_diverges_at_the_update_whose_loss_is_not_finite(torchs):
    model = mlp()
    method = torch.optim.SGD(model.parameters(), 0.1) if torchs else lrlib.SGD()
    spoil = lrlib.Periodic(lambda run: run.weights[0].fill_(torch.nan), at=[3])
    assert lrlib.train(model, (X, Y), 0.1, steps=6, optimizer=method, callbacks=[spoil]).diverged_at == 3


def test_a_schedule_that_falls_below_zero_is_refused_with_the_step():
    with pytest.raises(ValueError, match="schedule=falling: at step 2: schedule=-0.0"):
        lrlib.train(mlp(), (X, Y), lrlib.Schedule(lambda t: 0.1 - 0.06 * t, "falling"), steps=3)


@pytest.mark.parametrize("hook", ["register_full_backward_hook", "register_full_backward_pre_hook"])
def test_a_backward_hook_keeps_a_model_from_being_stacked(hook):
    def hooked(seed=0):
        model = mlp(seed).float()
        getattr(model[-1], hook)(lambda module, *gradients: tuple(g / 2 for g in gradients[0]))
        return model

    with pytest.raises(ValueError, match=r"models\[0\]: has a backward hook, which a stack would not call"):
        lrlib.Stack([hooked(), hooked()])
    grid = lrlib.train_grid(hooked, DATA, [0.1, 0.2], [0], steps=4)
    assert grid.way == "loop" and "has a backward hook" in grid.why
    for k, rate in enumerate((0.1, 0.2)):
        assert grid.loss[k, 0] == pytest.approx(lrlib.train(hooked(), DATA, rate, steps=4).loss)


def test_no_mini_batch_is_to_come_after_the_last_update():
    with pytest.raises(RuntimeError, match="ahead: all 3 updates are done, no mini-batch is to come"):
        lrlib.train(mlp(), (X, Y), 0.1, steps=3, callbacks=[lambda run: run.ahead()])


def test_a_grid_of_a_model_without_parameters_is_refused_by_name():
    with pytest.raises(ValueError, match="model: must have a parameter"):
        lrlib.train_grid(lambda seed: nn.Flatten(), DATA, [0.1], [0], steps=3)


def test_what_was_not_evaluated_is_said():
    history = lrlib.train(mlp(), (X, Y), 0.1, steps=3)
    for name in ("accuracy", "final_loss"):
        with pytest.raises(ValueError, match="history: has no evaluation, must be of a run on a Dataset"):
            getattr(history, name)


def test_a_replica_that_diverged_rests_where_its_later_losses_are_finite():
    x, options = torch.cat([torch.full_like(X[:8], torch.nan), X[:56]]), {"steps": 24, "batch_size": 1}
    stack = lrlib.Stack([mlp(), mlp()])
    history = lrlib.train(stack, (x, Y[:64]), 0.1, seed=[0, 1], **options)
    assert history.diverged_at[0] != history.diverged_at[1]
    for r, end in enumerate(history.diverged_at):
        model = mlp()
        alone = lrlib.train(model, (x, Y[:64]), 0.1, seed=r, **options)
        assert alone.diverged_at == end < 23 and np.isnan(history.loss[r, end + 1 :]).all()
        assert apart(model.parameters(), stack.replica(r).values()) < 1e-12


@pytest.mark.parametrize("torchs", [False, True])
def test_the_weights_before_a_loss_that_is_not_finite_are_left(torchs):
    def trained(steps):
        model, x = mlp(), torch.cat([torch.full_like(X[:8], torch.nan), X[:56]])
        method = torch.optim.SGD(model.parameters(), 0.1) if torchs else lrlib.SGD()
        return model, lrlib.train(model, (x, Y[:64]), 0.1, steps=steps, batch_size=1, optimizer=method)

    model, history = trained(24)
    assert apart(model.parameters(), trained(history.diverged_at)[0].parameters()) == 0


def test_a_resumed_run_warms_up_too_before_it_is_captured(monkeypatch):
    kept, calls = {}, []

    def aside(function):
        calls.append("aside")
        function()

    def graph(function):
        calls.append("graph")
        function()
        return function

    monkeypatch.setattr(capture, "possible", lambda device: True)
    monkeypatch.setattr(capture, "aside", aside)
    monkeypatch.setattr(capture, "graph", graph)
    save = lrlib.Periodic(lambda run: kept.update(run.state_dict()), at=[6])
    for options in ({"callbacks": [save]}, {"resume": kept}):
        calls.clear()
        lrlib.train(mlp(), (X, Y), 0.1, steps=12, **options)
        assert calls == ["aside"] * 3 + ["graph"]


def test_groups_with_one_tensor_as_their_rate_are_trained_and_cut_each_by_itself():
    def of(model):
        return torch.optim.SGD([{"params": [p]} for p in model.parameters()], lr=torch.tensor(1.0))

    model = mlp()
    before = [p.detach().clone() for p in model.parameters()]
    lrlib.train(model, (X, Y), [0.0, 0.1, 0.0, 0.0], steps=1, optimizer=of(model))
    moved = [not torch.equal(old, p) for old, p in zip(before, model.parameters(), strict=True)]
    assert moved == [False, True, False, False]
    halve = lrlib.Periodic(lambda run: run.cut(0.5), at=[2])
    model = mlp()
    history = lrlib.train(model, (X, Y), None, steps=3, optimizer=of(model), callbacks=[halve])
    assert history.lr.tolist() == [[1.0] * 4] * 2 + [[0.5] * 4]
