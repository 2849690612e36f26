"""What watches a run: periods, evaluations, averages, ratios; torch's plateaus, fair validation, best weights."""

import math

import numpy as np
import pytest
import torch
from hypothesis import example, given
from hypothesis import strategies as st
from torch import nn
from torch.nn import functional as F

import lrlib

DATA = lrlib.digits()


@pytest.fixture(scope="module")
def parts():
    return lrlib.hold_out(lrlib.relabelled(DATA, 0.3))


def small(seed=0):
    with lrlib.seeded(seed):
        return lrlib.mlp(64, 16, 10, norm="batch")


def stack_of(seeds):
    return lrlib.Stack([small(seed) for seed in seeds])


# ----------------------------------------------------------------------------------------- periods and evaluations


def test_a_function_is_called_after_every_update_and_a_period_is_kept():
    seen = {"all": [], "period": [], "at": []}
    callbacks = [
        lambda run: seen["all"].append(run.step),
        lrlib.Periodic(lambda run: seen["period"].append(run.step), every=4),
        lrlib.Periodic(lambda run: seen["at"].append(run.step), at=[0, 3, 10, 99]),
    ]
    lrlib.train(small(), DATA, 0.1, steps=10, callbacks=callbacks)
    assert seen == {"all": list(range(1, 11)), "period": [4, 8], "at": [0, 3, 10]}


@pytest.mark.parametrize("arguments", [{}, {"every": 1, "at": [1]}, {"every": 0}, {"at": []}, {"at": [3, 2]}], ids=str)
def test_a_callback_needs_one_period(arguments):
    with pytest.raises(ValueError, match="every|at"):
        lrlib.Periodic(print, **arguments)


def test_evaluations_are_those_of_the_models_of_the_time(parts):
    final, valid = parts
    watch = lrlib.Evaluate(valid.x_test, valid.y_test, every=5)
    stack = stack_of([0, 1])
    lrlib.train(stack, final, 0.1, steps=10, callbacks=[watch])
    assert watch.steps == [0, 5, 10] and watch.loss.shape == watch.accuracy.shape == (2, 3)
    for column, model in ((0, stack_of([0, 1])), (2, stack)):
        loss, accuracy = lrlib.evaluate(model, valid.x_test, valid.y_test)
        assert np.array_equal(watch.loss[:, column], loss) and np.array_equal(watch.accuracy[:, column], accuracy)


def test_accuracy_is_right_for_one_output_and_absent_for_numbers():
    x = torch.linspace(-1, 1, 10)[:, None]
    one = nn.Linear(1, 1, bias=False)
    with torch.no_grad():
        one.weight.fill_(2.0)
    labels = (x[:, 0] > 0).float()
    loss = lambda z, y: F.binary_cross_entropy_with_logits(z[:, 0], y)  # noqa: E731
    assert lrlib.evaluate(one, x, labels, loss)[1] == 1.0
    assert lrlib.evaluate(one, x, 1 - labels, loss)[1] == 0.0
    assert math.isnan(lrlib.evaluate(one, x, x, F.mse_loss)[1])


WEIGHTS = torch.tensor([1.0, 5.0, 1.0])


@pytest.mark.parametrize("stacked", [False, True])
@pytest.mark.parametrize(
    "loss, named",
    [
        (nn.CrossEntropyLoss(reduction="none"), r"a scalar, and is of shape \(4,\)"),
        (lambda z, y: F.cross_entropy(z, y, reduction="sum"), "a mean over the examples"),
        (nn.CrossEntropyLoss(WEIGHTS), "a mean over the examples"),
        (lambda z, y: F.cross_entropy(z, y, weight=WEIGHTS), "a mean over the examples"),
    ],
)
def test_a_loss_whose_value_would_mean_something_else_is_refused(loss, named, stacked):
    model = lrlib.Stack([nn.Linear(3, 3)]) if stacked else nn.Linear(3, 3)
    with pytest.raises(ValueError, match=f"loss=.*: must be {named}"):
        lrlib.evaluate(model, torch.randn(10, 3), torch.tensor([0, 1, 2, 1, 0] * 2), loss, batch_size=4)


@pytest.mark.parametrize("loss", [F.binary_cross_entropy, nn.BCELoss()], ids=["function", "module"])
@pytest.mark.parametrize("stacked", [False, True])
def test_a_loss_of_probabilities_is_refused_however_it_is_wrapped(loss, stacked):
    model = nn.Sequential(nn.Linear(3, 1), nn.Sigmoid())
    x, y = torch.randn(10, 3), torch.tensor([0, 1] * 5)
    with pytest.raises(ValueError, match="loss=.*: must be one of logits"):
        lrlib.evaluate(lrlib.Stack([model]) if stacked else model, x, y, lambda z, t: loss(z[:, 0], t.float()))
    logits = lrlib.evaluate(model, x, y, lambda z, t: F.binary_cross_entropy_with_logits(z[:, 0], t.float()))
    assert math.isfinite(logits[0])


def test_class_weights_are_right_in_one_batch():
    model, x, y = nn.Linear(3, 3), torch.randn(10, 3), torch.tensor([0, 1, 2, 1, 0] * 2)
    found = lrlib.evaluate(model, x, y, nn.CrossEntropyLoss(WEIGHTS))[0]
    assert found == pytest.approx(F.cross_entropy(model(x), y, WEIGHTS).item(), rel=1e-6)


# ------------------------------------------------------------------------------------------------ averages, ratios


@pytest.mark.parametrize("decay", [None, 0.8])
def test_averages_of_a_stack_are_those_of_its_replicas_and_of_the_formula(decay):
    at, weights = [2, 5, 6], []
    average = lrlib.WeightAverage(at=at, decay=decay)
    note = lrlib.Periodic(lambda run: weights.append([w.clone() for w in run.weights]), at=at)
    lrlib.train(stack_of([0, 1]), DATA, 0.1, steps=8, seed=[0, 1], callbacks=[average, note])
    mean = weights[0]
    for k, new in enumerate(weights[1:], 1):
        share = 1 / (k + 1) if decay is None else 1 - decay
        mean = [(1 - share) * old + share * w for old, w in zip(mean, new, strict=True)]
    assert average.count == 3
    assert all(torch.allclose(a, b, atol=1e-6) for a, b in zip(average.model.weights, mean, strict=True))
    alone = lrlib.WeightAverage(at=at, decay=decay)
    lrlib.train(small(1), DATA, 0.1, steps=8, seed=1, callbacks=[alone])
    mine = average.model.replica(1)
    assert all(torch.allclose(mine[name], p, atol=1e-5) for name, p in alone.model.named_parameters())


def test_an_average_of_bfloat16_weights_is_kept_in_float32():
    model, average = nn.Linear(1, 1, bias=False).bfloat16(), lrlib.WeightAverage(at=range(1, 2001))
    for k in range(2000):
        with torch.no_grad():
            model.weight.fill_(1.0 + (k % 2) / 128)
        average.add(model)
    with torch.no_grad():
        model.weight.fill_(1.0 + 0.5 / 128)  # rounded as the mean is when it is put into the model
    assert average.model.weight.item() == model.weight.item()


def test_an_empty_average_says_so():
    with pytest.raises(ValueError, match="average: is empty"):
        _ = lrlib.WeightAverage(at=[1]).model


@pytest.mark.parametrize(
    "optimizer", [lambda p: lrlib.SGD(momentum=0.9), lambda p: torch.optim.Adam(p, lr=1.0)], ids=["rule", "torch"]
)
def test_ratios_are_how_far_the_weights_moved(optimizer):
    model, path = small(), []
    note = lrlib.Periodic(lambda run: path.append([w.clone() for w in run.weights]), at=range(0, 11))
    watch = lrlib.UpdateRatios(every=3)
    history = lrlib.train(
        model, DATA, lrlib.constant(0.01), steps=10, optimizer=optimizer(model.parameters()), callbacks=[watch, note],
        track_updates=True,
    )  # fmt: skip
    assert watch.names == [name for name, _ in model.named_parameters()]
    for row, t in zip(watch.ratios, (0, 3, 6, 9), strict=True):
        expected = [((b - a).norm() / a.norm()).item() for a, b in zip(path[t], path[t + 1], strict=True)]
        expected = [math.inf if not math.isfinite(r) else r for r in expected]  # a shift of BatchNorm begins at zero
        np.testing.assert_allclose(row, expected, rtol=1e-3)
    whole = [torch.cat([w.flatten() for w in point]) for point in path]
    moved = [((b - a).norm() / a.norm()).item() for a, b in zip(whole, whole[1:], strict=False)]
    np.testing.assert_allclose(history.update_ratio, moved, rtol=1e-3)


def test_ratios_of_a_stack_are_those_of_its_replicas():
    together, alone = lrlib.UpdateRatios(every=2), lrlib.UpdateRatios(every=2)
    lrlib.train(stack_of([0, 1]), DATA, [0.1, 0.2], steps=6, seed=[0, 1], callbacks=[together])
    lrlib.train(small(1), DATA, 0.2, steps=6, seed=1, callbacks=[alone])
    assert together.ratios.shape == (3, 2, 5)
    np.testing.assert_allclose(together.ratios[:, 1], alone.ratios, rtol=1e-3)


# -------------------------------------------------------------------------------------------------------- plateaus


@given(
    losses=st.lists(
        st.sampled_from([0.0, 0.5, 0.9999, 1.0, 1.5, 2.0, math.inf, math.nan]) | st.floats(0, 3), max_size=60
    ),
    patience=st.integers(0, 4),
    threshold=st.sampled_from([0.0, 1e-4, 0.1, 0.9]),
)
@example(losses=[1.0] * 4, patience=1, threshold=0.0)
def test_the_cuts_are_those_of_torch(losses, patience, threshold):
    optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=1.0)
    peer = torch.optim.lr_scheduler.ReduceLROnPlateau(
        optimizer, factor=0.5, patience=patience, threshold=threshold, eps=0.0
    )
    rates = [1.0]
    for loss in losses:
        peer.step(loss)
        rates.append(optimizer.param_groups[0]["lr"])
    assert lrlib.plateaus(losses, patience, threshold) == np.flatnonzero(np.diff(rates)).tolist()


def test_a_negative_loss_has_no_relative_improvement():
    with pytest.raises(ValueError, match=r"losses\[1\]=-1.0: must be >= 0"):
        lrlib.plateaus([1.0, -1.0])
    assert lrlib.plateaus([-1.0, -2.0, -2.0, -2.0], patience=1, threshold=0.0) == [3]


def test_a_run_equals_torch_s_scheduler_in_a_plain_loop(parts):
    final, valid = parts
    ours, theirs = small(), small()
    watch = lrlib.ReduceOnPlateau(valid, every=10, factor=0.3, patience=1, threshold=0.02)
    sgd = torch.optim.SGD(ours.parameters(), lr=0.5)
    history = lrlib.train(ours, final, None, steps=300, batch_size=16, seed=1, optimizer=sgd, callbacks=[watch])

    optimizer = torch.optim.SGD(theirs.parameters(), lr=0.5)
    scheduler = torch.optim.lr_scheduler.ReduceLROnPlateau(optimizer, factor=0.3, patience=1, threshold=0.02)
    rates, readings = [], []
    for t, rows in enumerate(lrlib.batches(len(final.x_train), 16, 300, seed=1)):
        optimizer.zero_grad()
        F.cross_entropy(theirs(final.x_train[rows]), final.y_train[rows]).backward()
        optimizer.step()
        rates.append(optimizer.param_groups[0]["lr"])
        if (t + 1) % 10 == 0:
            readings.append(lrlib.evaluate(theirs, valid.x_test, valid.y_test)[0])
            scheduler.step(readings[-1])
    assert len(watch.cuts) >= 2
    assert watch.readings == readings and watch.steps == list(range(10, 301, 10))
    np.testing.assert_allclose(history.lr, rates, rtol=1e-12)
    assert all(torch.equal(a, b) for a, b in zip(ours.parameters(), theirs.parameters(), strict=True))


@pytest.mark.parametrize("by", ["rule", "torch"])
@pytest.mark.parametrize("base", [lrlib.constant(0.5), lrlib.cosine(0.5, T_max=600)], ids=repr)
def test_a_cut_holds_from_its_step_and_the_last_plateau_ends_the_run(base, by, parts):
    final, valid = parts
    model = small()
    watch = lrlib.ReduceOnPlateau(valid, every=10, patience=1, max_cuts=2)
    optimizer = torch.optim.SGD(model.parameters(), lr=1.0) if by == "torch" else None
    history = lrlib.train(model, final, base, steps=600, batch_size=16, optimizer=optimizer, callbacks=[watch])
    updates = len(history.lr)
    assert updates < 600 and updates == watch.steps[-1] == history.eval_step[-1]
    assert len(watch.cuts) == 2 and watch.cuts[-1] < updates and history.diverged_at is None
    passed = np.searchsorted(watch.cuts, np.arange(updates), side="right")
    np.testing.assert_allclose(history.lr, base(np.arange(updates)) * 0.1**passed, rtol=1e-12)


def test_replicas_have_their_own_plateaus(parts):
    final, valid = parts
    rates, seeds = [0.5, 0.1, 0.5], [0, 0, 1]
    together = lrlib.ReduceOnPlateau(valid, every=10, patience=0, max_cuts=1)
    history = lrlib.train(stack_of(seeds), final, rates, steps=400, seed=seeds, batch_size=16, callbacks=[together])
    assert len({int(updates) for updates in history.updates}) > 1
    for r, rate in enumerate(rates):
        readings = np.array(together.readings)[: history.updates[r] // 10, r]
        assert lrlib.plateaus(readings, patience=0)[:2] == [together.steps.index(c) for c in together.cuts[r]] + [
            len(readings) - 1
        ]
        updates = np.arange(history.updates[r])
        passed = np.searchsorted(together.cuts[r], updates, side="right")
        np.testing.assert_allclose(history.lr[r, updates], rate * 0.1**passed, rtol=1e-12)


def test_early_stopping_leaves_the_best_weights(parts):
    final, valid = parts
    seen = {}

    def note(run):
        seen[run.step] = {name: value.clone() for name, value in run.model.state_dict().items()}

    watch = lrlib.EarlyStopping(valid, every=10, patience=4)
    model = small()
    history = lrlib.train(model, final, 0.5, steps=2000, eval_every=10, callbacks=[note, watch])
    best = int(np.argmin(watch.readings))
    assert history.eval_step[-1] == watch.steps[-1] == len(history.lr) == watch.steps[best] + 5 * 10
    assert all(torch.equal(value, seen[watch.steps[best]][name]) for name, value in model.state_dict().items())
    assert lrlib.evaluate(model, valid.x_test, valid.y_test)[0] == watch.readings[best]
    assert history.accuracy == lrlib.evaluate(model, final.x_test, final.y_test)[1]
    assert (np.diff(history.eval_step) > 0).all()


def test_early_stopping_of_a_stack_leaves_the_best_weights_of_each(parts):
    final, valid = parts
    watch, stack = lrlib.EarlyStopping(valid, every=10, patience=2), stack_of([0, 1, 2])
    history = lrlib.train(stack, final, [0.5, 0.2, 0.5], steps=600, seed=[0, 1, 2], callbacks=[watch])
    readings = np.array(watch.readings)
    readings[np.array(watch.steps)[:, None] > history.updates] = np.inf
    np.testing.assert_array_equal(lrlib.evaluate(stack, valid.x_test, valid.y_test)[0], readings.min(0))


def test_the_best_weights_are_kept_when_the_run_ends_by_itself_or_diverges(parts):
    final, valid = parts
    for lr, steps in ((0.5, 35), (1e30, 50)):
        schedule = lrlib.join([lrlib.constant(0.5), lrlib.constant(lr)], [20])
        watch = lrlib.EarlyStopping(valid, every=10)
        history = lrlib.train(model := small(), final, schedule, steps=steps, callbacks=[watch])
        assert (history.diverged_at is not None) == (lr > 1)
        assert lrlib.evaluate(model, valid.x_test, valid.y_test)[0] == np.nanmin(watch.readings)


@pytest.mark.parametrize(
    "values",
    [
        (math.nan, 2.0, 1.0, 3.0),
        (math.nan, math.nan, 1.0, 3.0),
        (math.nan, 1.0, math.nan, 2.0),
        (math.inf, 3.0, 1.0, 2.0),
    ],
    ids=str,
)
def test_a_reading_that_is_no_number_is_not_the_best(parts, values):
    final, valid = parts
    readings, best = iter(values), values.index(1.0)
    model, states = small(), []

    def loss(logits, y):
        value = F.cross_entropy(logits, y)
        return value if torch.is_grad_enabled() or len(y) != len(valid.y_test) else 0 * value + next(readings)

    watch = lrlib.EarlyStopping(valid, every=5, patience=50, loss=loss)
    note = lrlib.Periodic(lambda run: states.append(lrlib.copy_state(run.model)), every=5)
    lrlib.train(model, final, 0.1, steps=20, callbacks=[watch, note])
    assert all(torch.equal(value, states[best][name]) for name, value in model.state_dict().items())


def test_they_compose(parts):
    final, valid = parts
    cuts = lrlib.ReduceOnPlateau(valid, every=10, patience=1)
    ends = lrlib.EarlyStopping(valid, every=10, patience=5)
    history = lrlib.train(small(), final, 0.5, steps=2000, batch_size=16, callbacks=[cuts, ends])
    assert len(cuts.cuts) >= 1 and ends.steps[-1] == len(history.lr)
    assert cuts.readings == ends.readings
    assert history.lr[-1] == pytest.approx(0.5 * 0.1 ** len([cut for cut in cuts.cuts if cut < len(history.lr)]))


def test_reading_changes_nothing_in_the_run(parts):
    """A watched run whose rate is never cut is the plain run, bit for bit, dropout and BatchNorm included."""
    final, valid = parts

    def make():
        with lrlib.seeded(0):
            return nn.Sequential(
                nn.Flatten(), nn.Linear(64, 16), nn.BatchNorm1d(16), nn.Dropout(0.5), nn.Linear(16, 10)
            )

    patient = lrlib.ReduceOnPlateau(valid, every=3, patience=1000)
    lrlib.train(watched := make(), final, 0.1, steps=50, callbacks=[patient])
    lrlib.train(plain := make(), final, 0.1, steps=50)
    assert len(patient.readings) == 16
    assert all(
        torch.equal(a, b) for a, b in zip(watched.state_dict().values(), plain.state_dict().values(), strict=True)
    )


@pytest.mark.parametrize("kind", [lrlib.ReduceOnPlateau, lrlib.EarlyStopping])
@pytest.mark.parametrize("part", ["train", "test"])
def test_validation_pictures_that_are_not_set_apart_are_refused(part, kind, parts):
    final, _ = parts
    x, y = getattr(final, f"x_{part}"), getattr(final, f"y_{part}")
    order = torch.randperm(len(x), generator=torch.Generator().manual_seed(1))[:300]
    leaking = lrlib.Dataset("leak", final.x_train, final.y_train, x[order], y[order], 10)
    model = small().eval()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    optimizer = torch.optim.SGD(model.parameters(), lr=0.123)
    with pytest.raises(ValueError, match=f"valid: 300 of its 300 test pictures are in the {part} set"):
        watch = kind(leaking, every=5)
        lrlib.train(model, final, lrlib.constant(0.1), steps=10, optimizer=optimizer, callbacks=[watch])
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert optimizer.param_groups[0]["lr"] == 0.123 and not model.training


def test_each_run_needs_its_own(parts):
    final, valid = parts
    watch = lrlib.ReduceOnPlateau(valid, every=5)
    lrlib.train(small(), final, 0.1, steps=10, callbacks=[watch])
    with pytest.raises(ValueError, match="has watched a run already"):
        lrlib.train(small(), final, 0.1, steps=10, callbacks=[watch])


@pytest.mark.parametrize(
    ("arguments", "error", "named"),
    [
        ({"every": 0}, ValueError, "every=0"),
        ({"every": 2.5}, TypeError, "every=2.5"),
        ({"factor": 1.0}, ValueError, "factor=1.0"),
        ({"factor": 0.0}, ValueError, "factor=0.0"),
        ({"factor": math.nan}, ValueError, "factor=nan"),
        ({"patience": -1}, ValueError, "patience=-1"),
        ({"threshold": 1.0}, ValueError, "threshold=1.0"),
        ({"max_cuts": -1}, ValueError, "max_cuts=-1"),
        ({"valid": None}, TypeError, "valid=None"),
    ],
)
def test_bad_arguments(arguments, error, named, parts):
    with pytest.raises(error, match=named):
        lrlib.ReduceOnPlateau(**({"valid": parts[1], "every": 5} | arguments))


# ------------------------------------------------------------------------------------------------ what may surprise


class Rebinding(nn.Module):
    """A buffer that training replaces instead of writing into it."""

    def __init__(self):
        super().__init__()
        self.inner = small()
        self.register_buffer("mean", torch.zeros(()))

    def forward(self, x):
        if self.training:
            self.mean = 0.9 * self.mean + 0.1 * x.abs().mean()
        return self.inner(x - self.mean)


def frozen_first():
    model = small()
    model[1].requires_grad_(False)
    return model


@pytest.mark.parametrize("make", [Rebinding, frozen_first], ids=["a rebound buffer", "an unfrozen layer"])
def test_the_best_weights_are_of_all_that_changes(make, parts):
    final, valid = parts
    model, watch = make(), lrlib.EarlyStopping(valid, every=5, patience=1000)
    thaw = lrlib.Periodic(lambda run: run.model.requires_grad_(True), at=[15])
    optimizer = torch.optim.SGD(model.parameters(), lr=0.5)
    lrlib.train(model, final, None, steps=80, optimizer=optimizer, callbacks=[watch, thaw])
    assert watch.readings.index(min(watch.readings)) < len(watch.readings) - 1  # or nothing is to be put back
    assert lrlib.evaluate(model, valid.x_test, valid.y_test)[0] == min(watch.readings)


@pytest.mark.parametrize("last", [7, 11], ids=["before a reading", "after the last one"])
def test_a_layer_that_joins_leaves_no_best_weights_to_put_back(last, parts):
    final, valid = parts
    model = nn.Sequential(nn.Flatten(), nn.Linear(64, 10))
    grow = lrlib.Periodic(lambda run: model.append(nn.Linear(10, 10)), at=[last])
    watch, optimizer = lrlib.EarlyStopping(valid, every=5, patience=9), torch.optim.SGD(model.parameters(), lr=0.1)
    with pytest.raises(ValueError, match="model: has other parameters or buffers than at the first reading"):
        lrlib.train(model, final, None, steps=12, optimizer=optimizer, callbacks=[watch, grow])


def test_early_stopping_takes_negative_losses_and_relative_cuts_refuse_them(parts):
    final, valid = parts

    def loss(z, y):
        return F.cross_entropy(z, y) - 10

    watches = [lrlib.EarlyStopping(valid, every=5, patience=2, loss=part) for part in (loss, F.cross_entropy)]
    for watch in watches:
        lrlib.train(small(), final, 0.5, steps=60, callbacks=[watch])
    assert watches[0].steps == watches[1].steps
    with pytest.raises(ValueError, match=r"losses\[0\].*threshold=0.0001"):
        cut = lrlib.ReduceOnPlateau(valid, every=5, loss=loss)
        lrlib.train(small(), final, 0.5, steps=5, callbacks=[cut])


@pytest.mark.parametrize(
    "outputs, y, accuracy",
    [
        ([[1.0], [-1.0]], [1, 1], 0.5),
        ([1.0, -1.0], [1.0, 0.0], 1.0),
        ([[1.0], [-1.0]], [True, True], 0.5),
        ([[1.0], [-1.0]], [1, -1], math.nan),
        ([[1.0], [-1.0]], [3.0, 2.0], math.nan),
        ([[0.0, 1.0], [1.0, 0.0]], [1, 2], math.nan),
        ([[0.0, 1.0], [1.0, 0.0]], [1, -100], math.nan),
        ([[0.0, 1.0], [1.0, 0.0]], [0.5, 0.0], math.nan),
    ],
)
def test_an_accuracy_is_of_labels_that_the_outputs_can_name(outputs, y, accuracy):
    found = lrlib.evaluate(nn.Identity(), torch.tensor(outputs), torch.tensor(y), loss=lambda z, y: z.sum())[1]
    assert found == pytest.approx(accuracy, nan_ok=True)


def test_a_loss_in_half_precision_is_measured_in_float32():
    model = small().bfloat16()
    x, y = DATA.x_test.bfloat16(), DATA.y_test
    with torch.no_grad():
        exact = F.cross_entropy(model.eval()(x).double(), y).item()
    assert lrlib.evaluate(model, x, y)[0] == pytest.approx(exact, rel=1e-6)


def test_ratios_of_weights_whose_length_leaves_float16():
    class Wide(nn.Module):
        def __init__(self):
            super().__init__()
            self.w = nn.Parameter(torch.full((64, 2000), 300.0, dtype=torch.float16))

        def forward(self, x):
            return (x.flatten(1) @ self.w)[:, :10] * 1e-4

    watch = lrlib.UpdateRatios()
    lrlib.train(Wide(), (DATA.x_train.half(), DATA.y_train), 1e3, steps=1, callbacks=[watch])
    assert 0 < watch.whole[0] < math.inf


@pytest.mark.parametrize("part", ["x", "y"])
def test_only_tensors_are_evaluated(part):
    given = {"x": DATA.x_test, "y": DATA.y_test}
    given[part] = given[part].numpy()
    with pytest.raises(TypeError, match=f"{part}: is a ndarray"):
        lrlib.evaluate(small(), **given)


def test_an_evaluation_in_batches_needs_statistics_that_do_not_depend_on_them():
    model = nn.Sequential(nn.Flatten(), nn.Linear(64, 10), nn.BatchNorm1d(10, track_running_stats=False))
    for size in (500, 2000):
        assert math.isfinite(lrlib.evaluate(model, DATA.x_test, DATA.y_test, batch_size=size)[0])
    with pytest.raises(ValueError, match="batch_size=100: must be >= 500"):
        lrlib.evaluate(model, DATA.x_test, DATA.y_test, batch_size=100)


def test_an_average_of_a_model_that_cannot_be_copied_is_refused_by_name():
    class Held(nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = nn.Linear(64, 10)
            self.function = lambda x: self.layer(x.flatten(1))

        def forward(self, x):
            return self.function(x)

    with pytest.raises(ValueError, match="model: cannot be copied, as the function"):
        lrlib.WeightAverage(at=[1]).add(Held())


@pytest.mark.parametrize("kind", ["rule", "torch"])
def test_early_stopping_leaves_the_best_weights_that_a_schedule_free_method_showed(kind):
    pytorch_optimizer = pytest.importorskip("pytorch_optimizer")
    final, valid = lrlib.hold_out(lrlib.relabelled(lrlib.digits(), 0.4))
    with lrlib.seeded(0):
        model = lrlib.mlp(64, 32, 10)
    own = lrlib.ScheduleFreeAdamW()
    optimizer = own if kind == "rule" else pytorch_optimizer.ScheduleFreeAdamW(model.parameters(), lr=0.05)
    watch = lrlib.EarlyStopping(valid, every=20, patience=3)
    lrlib.train(model, final, lrlib.constant(0.05), steps=600, optimizer=optimizer, callbacks=[watch])
    assert min(watch.readings) < watch.readings[-1]
    assert lrlib.evaluate(model, valid.x_test, valid.y_test)[0] == min(watch.readings)


def test_lookahead_refuses_a_method_that_trains_other_weights_than_it_shows():
    pytorch_optimizer = pytest.importorskip("pytorch_optimizer")
    model = lrlib.mlp(64, 8, 10)
    theirs = pytorch_optimizer.ScheduleFreeAdamW(model.parameters(), lr=0.05)
    for optimizer in (lrlib.ScheduleFreeAdamW(), theirs):
        with pytest.raises(ValueError, match="must train those that Lookahead sets"):
            lrlib.train(model, lrlib.digits(), 0.1, steps=5, optimizer=optimizer, callbacks=[lrlib.Lookahead()])


def test_an_evaluation_that_has_not_begun_is_empty():
    watch = lrlib.Evaluate(torch.zeros(1, 4), torch.zeros(1, dtype=torch.long), every=5)
    assert watch.loss.shape == watch.accuracy.shape == (0,)


def test_an_evaluation_at_given_updates_is_made_at_no_other():
    watch = lrlib.Evaluate(DATA.x_test, DATA.y_test, at=[2])
    lrlib.train(small(), DATA, 0.1, steps=3, callbacks=[watch])
    assert watch.steps == [2] and watch.loss.shape == (1,)


@pytest.mark.parametrize("taken", [120, 180])
def test_validation_pictures_are_refused_where_most_are_among_those_trained_on(taken, parts):
    final, valid = parts
    x = torch.cat([final.x_train[:taken], valid.x_test[: 300 - taken]])
    y = torch.cat([final.y_train[:taken], valid.y_test[: 300 - taken]])
    watch = lrlib.ReduceOnPlateau(lrlib.Dataset("mixed", final.x_train, final.y_train, x, y, 10), every=1)
    if taken > 150:
        with pytest.raises(ValueError, match="valid: 180 of its 300 test pictures are in the train set"):
            lrlib.train(small(), final, 0.1, steps=1, callbacks=[watch])
    else:
        assert lrlib.train(small(), final, 0.1, steps=1, callbacks=[watch]).updates == 1


def test_of_readings_that_are_as_good_the_first_is_the_best(parts):
    final, valid = parts
    model, states = small(), []

    def loss(logits, y):
        return 0 * F.cross_entropy(logits, y) + 1 if len(y) == len(valid.y_test) else F.cross_entropy(logits, y)

    watch = lrlib.EarlyStopping(valid, every=2, loss=loss)
    note = lrlib.Periodic(lambda run: states.append(lrlib.copy_state(run.model)), every=2)
    lrlib.train(model, final, 0.1, steps=6, callbacks=[watch, note])
    assert watch.readings == [1.0] * 3 and not torch.equal(states[0]["1.weight"], states[2]["1.weight"])
    assert all(torch.equal(value, states[0][name]) for name, value in model.state_dict().items())


def test_a_resumed_run_knows_its_cuts(parts):
    final, valid = parts
    kept, watches = {}, []
    for resume in (None, kept):
        watch = lrlib.ReduceOnPlateau(valid, every=2, patience=0, loss=lambda z, y: 0 * F.cross_entropy(z, y) + 1)
        save = [] if resume else [lrlib.Periodic(lambda run: kept.update(run.state_dict()), at=[6])]
        lrlib.train(small(), final, 0.1, steps=7, callbacks=[watch, *save], resume=resume)
        watches.append(watch)
    assert watches[0].cuts == watches[1].cuts == [4, 6]


def test_a_resumed_run_knows_its_best_weights(parts):
    final, valid = parts
    kept, models = {}, []
    for resume in (None, kept):
        watch = lrlib.EarlyStopping(valid, every=2, loss=lambda z, y: -F.cross_entropy(z, y))
        save = [] if resume else [lrlib.Periodic(lambda run: kept.update(run.state_dict()), at=[4])]
        lrlib.train(model := small(), final, 0.1, steps=8, callbacks=[watch, *save], resume=resume)
        models.append(model)
        assert np.argmin(watch.readings) == 0
    assert all(torch.equal(a, b) for a, b in zip(*(model.parameters() for model in models), strict=True))
