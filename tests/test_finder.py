"""The range test: pairs rate and loss rightly, restores everything, and refuses where there is no answer."""

import contextlib
import copy
import math
import random
from functools import partial

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.optimize import brentq
from torch import nn
from torch.nn import functional as F

import lrlib
from lrlib.finder import RULES, NoSuggestion, RangeTest, range_test
from lrlib.restore import generators_restored, restored

X = torch.randn(256, 6, generator=torch.Generator().manual_seed(0))
Y = (X[:, 0] > 0).long() + (X[:, 1] > 0).long()


def network(seed=0):
    with lrlib.seeded(seed):
        return nn.Sequential(nn.Linear(6, 16), nn.BatchNorm1d(16), nn.ReLU(), nn.Dropout(0.3), nn.Linear(16, 3))


class Interrupting:
    """A loss that raises at its n-th call."""

    def __init__(self, calls, error):
        self.left, self.error = calls, error

    def __call__(self, logits, targets):
        self.left -= 1
        if self.left < 0:
            raise self.error
        return nn.functional.cross_entropy(logits, targets)


def photograph(model, optimizer):
    def plain(value):
        return value.clone() if isinstance(value, torch.Tensor) else copy.deepcopy(value)

    return {
        "tensors": [t.detach().clone() for t in (*model.parameters(), *model.buffers())],
        "gradients": [None if p.grad is None else p.grad.clone() for p in model.parameters()],
        "flags": [p.requires_grad for p in model.parameters()],
        "modes": [m.training for m in model.modules()],
        "state": [{k: plain(v) for k, v in entries.items()} for p, entries in optimizer.state.items()],
        "groups": [{k: plain(v) for k, v in g.items() if k != "params"} for g in optimizer.param_groups],
        "random": (torch.get_rng_state(), np.random.get_state()[1].copy(), random.getstate()),
    }  # fmt: skip


def same(a, b):
    if isinstance(a, torch.Tensor):
        return torch.equal(a, b)
    if isinstance(a, np.ndarray):
        return (a == b).all()
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(same(a[k], b[k]) for k in a)
    if isinstance(a, list | tuple):
        return len(a) == len(b) and all(map(same, a, b))
    return a == b


@given(
    steps_before=st.integers(0, 3),
    interrupted_at=st.none() | st.integers(0, 40),
    error=st.sampled_from([KeyboardInterrupt(), RuntimeError("broken")]),
    frozen=st.booleans(),
    evaluating=st.booleans(),
)
def test_everything_is_restored_exactly_also_when_interrupted(steps_before, interrupted_at, error, frozen, evaluating):
    model = network()
    optimizer = torch.optim.Adam([{"params": model[0].parameters()}, {"params": model[1:].parameters(), "lr": 1e-2}])
    for _ in range(steps_before):
        optimizer.zero_grad()
        nn.functional.cross_entropy(model(X), Y).backward()
        optimizer.step()
    model[4].bias.requires_grad_(not frozen)
    model[1].train(not evaluating)
    before = photograph(model, optimizer)
    if interrupted_at is None:
        range_test(model, (X, Y), optimizer, num_iter=15, repeats=2, reinitialize=True)
    else:
        loss = Interrupting(interrupted_at, error)
        try:
            range_test(model, (X, Y), optimizer, loss=loss, num_iter=12, repeats=3)
        except type(error):
            pass
    after = photograph(model, optimizer)
    assert [key for key in before if not same(before[key], after[key])] == []


def test_a_loader_s_generator_is_restored():
    generator = torch.Generator().manual_seed(7)
    loader = torch.utils.data.DataLoader(
        torch.utils.data.TensorDataset(X, Y), batch_size=32, shuffle=True, generator=generator
    )
    before = generator.get_state()
    model = network()
    test = range_test(model, loader, torch.optim.SGD(model.parameters(), lr=1.0), num_iter=20, repeats=2)
    assert torch.equal(generator.get_state(), before)
    assert np.isfinite(test.loss[:, :10]).all()


class Bowl(nn.Module):
    """θ²/2 whatever the input; its minimum is one update of rate 1 away."""

    def __init__(self):
        super().__init__()
        self.theta = nn.Parameter(torch.tensor(1.0, dtype=torch.float64))

    def forward(self, x):
        return self.theta.expand(len(x))


def half_square(outputs, targets):
    return (outputs**2).mean() / 2


def test_each_loss_stands_beside_the_rate_that_made_it():
    model = Bowl()
    test = range_test(
        model, (X, Y), torch.optim.SGD(model.parameters(), lr=1.0), loss=half_square,
        min_lr=0.01, max_lr=3.0, num_iter=12, repeats=1, stop_factor=1e9,
    )  # fmt: skip
    expected = np.cumprod(1 - test.lr) ** 2 / 2
    np.testing.assert_allclose(test.loss[0], expected, rtol=1e-10)
    assert test.initial_loss[0] == 0.5


def test_groups_keep_their_ratio():
    first, second = nn.Linear(6, 3, bias=False), nn.Linear(6, 3, bias=False)
    model = nn.ModuleList([first, second])
    model.forward = lambda x: first(x) + second(x)
    seen = []

    class Watched(torch.optim.SGD):
        def step(self, closure=None):
            seen.append([group["lr"] for group in self.param_groups])
            return super().step(closure)

    optimizer = Watched([{"params": first.parameters(), "lr": 1e-3}, {"params": second.parameters(), "lr": 1e-2}])
    whole = range_test(model, (X, Y), optimizer, num_iter=10, batch_size=256, repeats=1)
    ratios = np.array(seen)[:10]
    np.testing.assert_allclose(ratios[:, 0] / ratios[:, 1], 0.1)
    np.testing.assert_allclose(ratios[:, 1], whole.lr)
    assert [group["lr"] for group in optimizer.param_groups] == [1e-3, 1e-2]


def test_products_in_bfloat16_fall_too():
    class Halved(nn.Module):
        def __init__(self):
            super().__init__()
            self.inner = network()

        def forward(self, x):
            with torch.autocast("cpu", torch.bfloat16):
                return self.inner(x).float()

    model = Halved()
    test = range_test(model, (X, Y), torch.optim.SGD(model.parameters(), lr=1.0), repeats=1)
    assert np.nanmin(test.loss) < 0.8 * test.initial_loss[0]


def test_a_scheduler_leaves_no_trace_on_the_optimizer():
    model = network()
    optimizer = torch.optim.SGD(model.parameters(), lr=1.0)
    before = set(vars(optimizer))
    range_test(model, (X, Y), optimizer, num_iter=10, repeats=2)
    assert set(vars(optimizer)) == before and "initial_lr" not in optimizer.param_groups[0]


def test_hill_climbing_is_swept_too():
    model = network()
    climb = lrlib.HillClimb().optimizer(model.parameters(), lr=0.1)
    assert np.isfinite(range_test(model, (X, Y), climb, num_iter=20, repeats=1).loss[0, :5]).all()


def test_an_optimizer_that_needs_a_closure_gets_one():
    model = Bowl()
    test = range_test(
        model, (X, Y), torch.optim.LBFGS(model.parameters(), lr=1.0, max_iter=1), loss=half_square,
        min_lr=0.1, max_lr=1.0, num_iter=10, repeats=1,
    )  # fmt: skip
    assert test.loss[0, -1] < test.initial_loss[0]


@given(shift=st.floats(-2, 2), smoothing=st.floats(0.0, 0.95))
def test_smoothing_does_not_lag_on_a_straight_line(shift, smoothing):
    lr = np.geomspace(1e-4, 1, 60)
    loss = shift - np.log(lr)
    smooth_lr, smooth_loss = RangeTest(lr, loss[None], np.array([20.0]), smoothing).smoothed(0)
    np.testing.assert_allclose(smooth_loss, shift - np.log(smooth_lr), atol=1e-9)


def valley(lr, centre=0.1, depth=2.0, width=4.0):
    return 2.3 - depth * np.exp(-(np.log(lr / centre) ** 2) / width)


def synthetic(loss, repeats=3, noise=0.0, smoothing=0.0, initial=2.3):
    lr = np.geomspace(1e-4, 10, 100)
    rng = np.random.default_rng(0)
    curves = np.stack([loss(lr) + noise * rng.normal(size=100) for _ in range(repeats)])
    return RangeTest(lr, curves, np.full(repeats, initial), smoothing)


WINDOW = 14 * math.log(1e5) / 99  # of the rule "slide", in log: 14 of the 99 intervals of the curve


def slopes_differ(u):
    """By how much more than 0.05 the slopes of `valley` over its depth differ at u = log(lr / centre), u - WINDOW."""
    return (u * math.exp(-(u**2) / 4) - (u - WINDOW) * math.exp(-((u - WINDOW) ** 2) / 4)) / 2 - 0.05


@pytest.mark.parametrize("rule, expected", [
    ("steepest", 0.1 * math.exp(-math.sqrt(2))),
    ("minimum/10", 0.01),
    ("largest_stable", 0.1 * math.exp(math.sqrt(-4 * math.log(0.9)))),
    ("valley", 1e-4 * 1000 ** (2 / 3)),  # two thirds of the way down, in log
    ("slide", 0.1 * math.exp(brentq(slopes_differ, -2, 0) - WINDOW)),
])  # fmt: skip
def test_rules_read_a_known_curve(rule, expected):
    suggestion = synthetic(valley).suggest(rule)
    assert suggestion.lr == pytest.approx(expected, rel=0.13)  # one grid step
    assert suggestion.n == 3


@pytest.mark.parametrize("rule", RULES)
def test_every_rule_answers_between_the_first_fall_and_the_rise_and_moves_with_the_curve(rule):
    here = synthetic(valley).suggest(rule).lr
    there = synthetic(lambda lr: valley(lr, centre=1.0)).suggest(rule).lr
    assert 1e-3 < here < 0.4
    if rule == "valley":  # a share of the whole stretch of falling loss, which begins at min_lr for both
        assert 2 < there / here < 10
    else:
        assert there / here == pytest.approx(10, rel=0.15)


@pytest.mark.parametrize("depth, flat", [(0.1, True), (0.4, False)])
def test_a_fall_of_less_than_five_deviations_of_the_noise_is_none(depth, flat):
    test = synthetic(lambda lr: valley(lr, depth=depth), repeats=20, noise=0.1)
    fall = 2.3 - np.median(test.loss.min(axis=1))
    assert 0.25 < fall < 0.4 if flat else 0.55 < fall < 0.65
    with pytest.raises(NoSuggestion, match="flat") if flat else contextlib.nullcontext():
        test.suggest("steepest")


def test_repeats_that_differ_widen_the_interval():
    quiet = synthetic(valley, 5, noise=0.001).suggest("minimum/10")
    loud = synthetic(valley, 5, noise=0.1).suggest("minimum/10")
    assert quiet.low <= quiet.lr <= quiet.high
    assert loud.high / loud.low > 1.2 * quiet.high / quiet.low
    assert synthetic(valley, 1).suggest("minimum/10").low is None


@pytest.mark.parametrize("test, reason", [
    (synthetic(lambda lr: np.full_like(lr, 2.3)), "flat"),
    (synthetic(lambda lr: np.full_like(lr, 2.3), noise=0.2, smoothing=0.9), "flat"),
    (synthetic(lambda lr: np.full_like(lr, np.nan), initial=np.nan), "not finite before"),
    (synthetic(lambda lr: np.where(lr < 2e-4, 50.0, np.nan)), "diverged at once"),
    (synthetic(lambda lr: 2.4 + lr * 1e3), "diverged at once"),
    (synthetic(lambda lr: np.where(lr < 2e-4, 2.0, np.nan)), "points"),
])  # fmt: skip
@pytest.mark.parametrize("rule", RULES)
def test_no_answer_is_said_and_why(test, reason, rule):
    with pytest.raises(NoSuggestion, match=reason):
        test.suggest(rule)


@pytest.mark.parametrize("rule", ["minimum/10", "slide", "largest_stable"])
def test_a_curve_that_never_rises_has_no_answer_for_rules_that_need_it(rule):
    test = synthetic(lambda lr: 2.3 - 0.2 * np.log(lr / 1e-4))
    assert test.suggest("steepest").lr > 0
    with pytest.raises(NoSuggestion, match="raise max_lr"):
        test.suggest(rule)


@pytest.mark.parametrize("rule", ["minimum/10", "slide", "largest_stable"])
def test_a_curve_that_rises_by_exactly_a_tenth_of_its_fall_has_not_risen(rule):
    with pytest.raises(NoSuggestion, match="raise max_lr"):
        RULES[rule](np.geomspace(1e-4, 1, 12), np.array([*np.arange(10.0, -1.0, -1.0), 1.0]))


def test_of_reasons_as_frequent_as_each_other_the_first_is_named():
    curves = [lambda lr: np.full_like(lr, np.nan), lambda lr: np.full_like(lr, 2.3)]
    for order in (curves, curves[::-1]):
        tests = [synthetic(curve, repeats=1) for curve in order]
        both = RangeTest(tests[0].lr, np.concatenate([test.loss for test in tests]), np.full(2, 2.3), 0.0)
        with pytest.raises(NoSuggestion, match="flat" if order[0] is curves[1] else "diverged at once"):
            both.suggest()


def test_a_sweep_that_blows_up_stops_and_keeps_the_curve_until_then():
    model = network()
    test = range_test(model, (X, Y), torch.optim.SGD(model.parameters(), lr=1.0), max_lr=1e12, repeats=2)
    assert np.isnan(test.loss[:, -1]).all() and np.isfinite(test.loss[:, :20]).all()


def test_the_plot_marks_three_phases_and_every_repeat():
    import matplotlib.pyplot as plt

    ax = synthetic(valley, 4).plot()
    assert [text.get_text() for text in ax.texts] == ["too low", "falling", "too high"]
    a_tenth_down = 0.1 * math.exp(-math.sqrt(4 * math.log(10)))
    assert [span.get_x() for span in ax.patches] == pytest.approx([1e-4, a_tenth_down, 0.1], rel=0.13)
    assert len(ax.get_lines()) == 5 and ax.get_xscale() == "log"
    plt.close(ax.figure)


def test_the_median_of_the_plot_leaves_out_repeats_that_have_ended():
    import matplotlib.pyplot as plt

    test = synthetic(lambda lr: 2.3 + 0 * lr, repeats=5)
    loss = test.loss + np.arange(5)[:, None]
    loss[3:, 50:] = np.nan
    ax = RangeTest(test.lr, loss, test.initial_loss, 0.0).plot()
    lr, median = ax.get_lines()[-1].get_data()
    assert median[lr < test.lr[49]] == pytest.approx(4.3) and median[lr > test.lr[50]] == pytest.approx(3.3)
    plt.close(ax.figure)


def test_the_phases_end_with_the_median():
    import matplotlib.pyplot as plt

    test = synthetic(valley)
    test.loss[:, 90:] = np.nan
    ax = test.plot()
    assert max(patch.get_x() + patch.get_width() for patch in ax.patches) == pytest.approx(test.lr[89])
    plt.close(ax.figure)


@pytest.mark.parametrize("arguments, error, named", [
    ({"min_lr": 0.0}, ValueError, "min_lr=0.0"),
    ({"max_lr": 1e-6}, ValueError, "max_lr=1e-06"),
    ({"num_iter": 9}, ValueError, "num_iter=9"),
    ({"data": [{"x": X, "y": Y}]}, ValueError, "a dict, must give pairs"),
    ({"data": [(X, Y, Y)]}, ValueError, "3 parts, must give pairs"),
    ({"smoothing": 1.0}, ValueError, "smoothing=1.0"),
    ({"repeats": 0}, ValueError, "repeats=0"),
    ({"data": (X[:0], Y[:0])}, ValueError, "data"),
    ({"data": []}, ValueError, "data: is empty"),
    ({"data": iter([(X, Y)])}, TypeError, "restarted"),
    ({"optimizer": "sgd"}, TypeError, "optimizer"),
])  # fmt: skip
def test_bad_arguments_are_refused_by_name(arguments, error, named):
    model = network()
    arguments = {"data": (X, Y), "optimizer": torch.optim.SGD(model.parameters(), lr=1.0)} | arguments
    with pytest.raises(error, match=named):
        range_test(model, arguments.pop("data"), arguments.pop("optimizer"), **arguments)


def test_unknown_rule():
    with pytest.raises(ValueError, match="rule='best'"):
        synthetic(valley).suggest("best")


def test_a_sweep_makes_as_many_updates_as_it_has_rates():
    model, seen = network(), []
    optimizer = torch.optim.SGD(model.parameters(), lr=1.0)
    optimizer.register_step_pre_hook(lambda o, *_: seen.append(o.param_groups[0]["lr"]))
    test = range_test(model, (X, Y), optimizer, num_iter=12, repeats=2)
    np.testing.assert_array_equal(seen, np.tile(test.lr, 2))
    assert np.isfinite(test.loss).all()


def test_the_generator_of_a_batch_sampler_s_sampler_is_restored():
    generator = torch.Generator().manual_seed(3)
    data = torch.utils.data.TensorDataset(X, Y)
    sampler = torch.utils.data.RandomSampler(data, generator=generator)
    loader = torch.utils.data.DataLoader(data, batch_sampler=torch.utils.data.BatchSampler(sampler, 64, False))
    before, model = generator.get_state(), network()
    range_test(model, loader, torch.optim.SGD(model.parameters(), lr=1.0), num_iter=10, repeats=2)
    assert torch.equal(before, generator.get_state())


def test_a_rebound_buffer_is_put_back():
    class Rebinding(nn.Module):
        def __init__(self):
            super().__init__()
            self.inner = network()
            self.register_buffer("mean", torch.zeros(1))

        def forward(self, x):
            self.mean = self.mean + x.mean().abs()
            return self.inner(x - self.mean)

    model = Rebinding()
    mean = model.mean
    range_test(model, (X, Y), torch.optim.SGD(model.parameters(), lr=1.0), num_iter=10, repeats=2)
    assert model.mean is mean and mean.item() == 0


class Drawn(torch.utils.data.Dataset):
    """Inputs with noise from a generator of its own."""

    def __init__(self, generator):
        self.generator = generator

    def __len__(self):
        return 128

    def __getitem__(self, index):
        return X[index] + 0.1 * torch.randn(X.shape[1:], generator=self.generator, dtype=X.dtype), Y[index]


class Shuffled(torch.utils.data.Sampler):
    def __init__(self, rng):
        self.rng = rng

    def __iter__(self):
        numbers = list(range(128))
        self.rng.shuffle(numbers)
        return iter(numbers)

    def __len__(self):
        return 128


class Collate:
    def __init__(self, generator):
        self.generator = generator

    def __call__(self, rows):
        x, y = torch.utils.data.default_collate(rows)
        return x + 0.1 * torch.randn(x.shape, generator=self.generator, dtype=x.dtype), y


def jittered(rows, generator):
    return Collate(generator)(rows)


class Keyed(Drawn):
    """Noise from a generator that it keeps under a name."""

    def __init__(self, generator):
        self.generators = {"noise": generator}

    @property
    def generator(self):
        return self.generators["noise"]


class Batches:
    """An iterable that is no loader."""

    def __init__(self, generator):
        self.generator = generator

    def __iter__(self):
        return iter([(X[rows], Y[rows]) for rows in torch.randperm(128, generator=self.generator).split(64)])


tools = torch.utils.data
LOADERS = {
    "a sampler of batches": (torch.Generator, lambda g: tools.DataLoader(
        tools.TensorDataset(X, Y), None, sampler=tools.BatchSampler(tools.RandomSampler(X, generator=g), 64, False))),
    "a sampler with NumPy's": (
        np.random.default_rng, lambda g: tools.DataLoader(Drawn(None), 64, sampler=Shuffled(g))),
    "a sampler with NumPy's old one": (
        np.random.RandomState, lambda g: tools.DataLoader(Drawn(None), 64, sampler=Shuffled(g))),
    "a sampler with Python's": (random.Random, lambda g: tools.DataLoader(Drawn(None), 64, sampler=Shuffled(g))),
    "a part of a data set": (torch.Generator, lambda g: tools.DataLoader(tools.Subset(Drawn(g), range(128)), 64)),
    "data sets in a row": (torch.Generator, lambda g: tools.DataLoader(tools.ConcatDataset([Drawn(g)] * 2), 64)),
    "what collates": (
        torch.Generator, lambda g: tools.DataLoader(tools.TensorDataset(X, Y), 64, collate_fn=Collate(g))),
    "what collates, in part": (
        torch.Generator,
        lambda g: tools.DataLoader(tools.TensorDataset(X, Y), 64, collate_fn=partial(jittered, generator=g))),
    "around what collates": (
        torch.Generator,
        lambda g: tools.DataLoader(tools.TensorDataset(X, Y), 64, collate_fn=lambda rows: jittered(rows, g))),
    "under a name": (torch.Generator, lambda g: tools.DataLoader(Keyed(g), 64)),
    "no loader": (torch.Generator, Batches),
}  # fmt: skip


def state_of(generator):
    if isinstance(generator, torch.Generator):
        return generator.get_state().tolist()
    if isinstance(generator, np.random.RandomState):
        return [*map(repr, generator.get_state(legacy=False)["state"].values())]
    return generator.getstate() if isinstance(generator, random.Random) else generator.bit_generator.state


@pytest.mark.parametrize("kind", LOADERS)
def test_generators_are_put_back_wherever_a_loader_holds_them(kind):
    make, loader = LOADERS[kind]
    generator, model = make(), network()
    before = copy.deepcopy(state_of(generator))
    range_test(model, loader(generator), torch.optim.SGD(model.parameters(), lr=1.0), num_iter=10, repeats=2)
    assert state_of(generator) == before


def test_a_rate_that_is_a_tensor_is_put_back_in_its_place():
    model, rate = network(), torch.tensor(0.5)
    optimizer = torch.optim.SGD(model.parameters(), lr=rate)
    range_test(model, (X, Y), optimizer, num_iter=10, repeats=1)
    assert optimizer.param_groups[0]["lr"] is rate and rate.item() == 0.5


@pytest.mark.parametrize(
    "pair, named",
    [
        ({"x": X[:64], "y": Y[:64]}, "a batch of a dict"),
        ((X[:64], Y[:64], Y[:64]), "3 parts"),
        ((X[:64].numpy(), Y[:64]), "ndarray"),
        (({"x": X[:64]}, Y[:64]), "dict"),
        (((X[:64], X[:64]), Y[:64]), "tuple"),
        ((X[:64], None), "NoneType"),
        ((X[:0], Y[:0]), "not empty"),
    ],
    ids=["dict", "three", "numpy", "dict of inputs", "two inputs", "no targets", "empty"],
)
def test_batches_of_another_form_are_refused(pair, named):
    model = network()
    with pytest.raises(ValueError, match=f"data: gave .*{named}"):
        range_test(model, [pair], torch.optim.SGD(model.parameters(), lr=1.0), num_iter=10, repeats=1)


@pytest.mark.parametrize("model", [nn.Flatten(), network().requires_grad_(False)], ids=["none", "frozen"])
def test_a_model_with_nothing_to_train_is_refused(model):
    optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=1.0)
    with pytest.raises(ValueError, match="model: must have a parameter that requires a gradient"):
        range_test(model, (X, Y), optimizer, num_iter=10)
    with pytest.raises(ValueError, match="model: must have a parameter that requires a gradient"):
        lrlib.train(model, (X, Y), 0.1, steps=1)


def test_negative_losses_give_the_same_answers():
    answers = []
    for shift in (0.0, 10.0):
        model = network()
        optimizer = torch.optim.SGD(model.parameters(), lr=1.0)
        test = range_test(
            model, (X, Y), optimizer, num_iter=50, repeats=1, min_lr=1e-4, batch_size=256, stop_factor=50.0,
            loss=lambda z, y, shift=shift: F.cross_entropy(z, y) - shift)  # fmt: skip
        answers.append(test.loss[0, :20] + shift)
    np.testing.assert_allclose(*answers, rtol=1e-5)


@pytest.mark.parametrize("source", ["generator", "random"])
def test_repeats_see_a_loader_s_data_in_other_orders_and_leave_its_generators(source):
    generator, data = torch.Generator().manual_seed(0), lrlib.digits()
    pairs = torch.utils.data.TensorDataset(data.x_train, data.y_train)

    class Shuffled(torch.utils.data.Sampler):
        def __iter__(self):
            return iter(random.sample(range(len(pairs)), len(pairs)))

        def __len__(self):
            return len(pairs)

    how = {"shuffle": True, "generator": generator} if source == "generator" else {"sampler": Shuffled()}
    loader = torch.utils.data.DataLoader(pairs, batch_size=32, **how)
    before = generator.get_state(), random.getstate()
    model = lrlib.mlp(64, 16, 10)
    test = range_test(model, loader, torch.optim.SGD(model.parameters(), lr=1.0), num_iter=20, repeats=3)
    assert len({tuple(np.nan_to_num(curve)) for curve in test.loss}) == 3
    assert torch.equal(generator.get_state(), before[0]) and random.getstate() == before[1]


def test_buffers_that_are_written_through_another_tensor_are_put_back():
    class Counting(nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = lrlib.mlp(64, 8, 10)
            self.register_buffer("stats", torch.zeros(2, 3))
            self.first = self.stats[0]

        def forward(self, x):
            self.first.add_(1)
            return self.layer(x)

    model = Counting()
    range_test(model, lrlib.digits(), torch.optim.SGD(model.parameters(), lr=0.1), num_iter=20)
    assert not model.stats.any() and not model.first.any()


def test_what_the_optimizer_trains_besides_the_model_comes_back_too():
    class Tempered(nn.Module):
        def __init__(self):
            super().__init__()
            self.t = nn.Parameter(torch.tensor(1.0))

        def forward(self, outputs, y):
            return F.cross_entropy(outputs * self.t, y)

    model, loss = lrlib.mlp(64, 16, 10), Tempered()
    loss.t.grad = torch.tensor(5.0)
    range_test(model, lrlib.digits(), torch.optim.SGD([*model.parameters(), loss.t], lr=0.1), loss=loss, repeats=2)
    assert loss.t.item() == 1.0 and loss.t.grad.item() == 5.0


def test_an_optimizer_of_another_model_is_refused():
    model, other = lrlib.mlp(64, 16, 10), lrlib.mlp(64, 16, 10)
    with pytest.raises(ValueError, match="optimizer: holds no trainable parameter of the model"):
        range_test(model, lrlib.digits(), torch.optim.SGD(other.parameters(), lr=0.1))


def test_gradients_that_are_written_in_place_are_put_back():
    model = network()
    optimizer = torch.optim.SGD(model.parameters(), lr=1.0)
    model(X).sum().backward()
    before = photograph(model, optimizer)["gradients"]
    with restored(model, optimizer):
        optimizer.zero_grad(set_to_none=False)
    assert same(photograph(model, optimizer)["gradients"], before)


def test_half_of_the_repeats_are_too_few_for_an_answer():
    curves = np.concatenate([synthetic(curve, 1).loss for curve in (valley, lambda lr: np.full_like(lr, 2.3))])
    test = RangeTest(np.geomspace(1e-4, 10, 100), curves, np.full(2, 2.3), 0.0)
    with pytest.raises(NoSuggestion, match="1 of 2 repeats"):
        test.suggest()


@pytest.mark.parametrize("height, stops", [(3.7, False), (5.0, True)])
def test_a_sweep_stops_where_the_smoothed_loss_has_risen_from_its_own_lowest(height, stops):
    """The smoothed loss is lowest at 0.78, of which the one loss of 0 is a part; the initial one is 1."""
    values = iter([1.0] * 10 + [0.0] + [height] * 39 + [height] * 10)

    def loss(outputs, y):
        return 0 * outputs.sum() + next(values)

    model = nn.Linear(6, 3)
    sgd = torch.optim.SGD(model.parameters(), lr=1.0)
    test = range_test(model, (X, Y), sgd, loss=loss, num_iter=40, smoothing=0.8, repeats=1)
    assert np.isnan(test.loss[0, -1]) == stops


def test_generators_of_numpy_and_python_are_put_back():
    before = np.random.get_state()[1].copy(), random.getstate()
    with generators_restored(None):
        np.random.seed(7)
        random.seed(7)
    assert same((np.random.get_state()[1], random.getstate()), before)


def test_new_weights_depend_on_the_seed():
    def initial(seed):
        with lrlib.seeded(0):
            model = nn.Linear(6, 3)
        sgd = torch.optim.SGD(model.parameters(), lr=1.0)
        options = {"num_iter": 10, "batch_size": len(X), "repeats": 2, "reinitialize": True}
        return range_test(model, (X, Y), sgd, seed=seed, **options).initial_loss

    assert initial(0)[0] == pytest.approx(initial(5)[0], rel=1e-5)
    assert abs(initial(0)[1] - initial(5)[1]) > 1e-3


def test_the_largest_stable_rate_is_the_last_before_the_rise():
    lr = np.geomspace(1e-4, 1, 14)
    assert RULES["largest_stable"](lr, np.array([*np.arange(10.0, -1.0, -1.0), 0.5, 2.0, 9.0])) == lr[11]


@pytest.mark.parametrize("first, flat", [(1.06, False), (1.03, True)])
def test_a_fall_is_measured_from_the_mean_of_the_initial_loss_and_those_of_a_span(first, flat):
    """It is half of what the first loss lies above all others, and must be above 0.02."""
    test = synthetic(lambda lr: np.where(lr == lr[0], first, 1.0), initial=1.0)
    with pytest.raises(NoSuggestion, match="flat") if flat else contextlib.nullcontext():
        test.suggest()


@pytest.mark.parametrize("points", [10, 14])
def test_rules_read_at_least_ten_points_of_a_short_curve(points):
    lr = np.geomspace(1e-4, 1, points)
    test = RangeTest(lr, 2.3 - 0.1 * np.arange(points)[None] ** 1.5, np.array([2.3]), smoothing=0.9)
    assert test.suggest("valley").lr == pytest.approx(RULES["valley"](*(curve[-10:] for curve in test.smoothed(0))))
