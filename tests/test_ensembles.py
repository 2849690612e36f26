"""Snapshots, weight averages, paths between states, BatchNorm refresh and the metrics of ensembles."""

import contextlib
import copy
import math
import pickle

import numpy as np
import pytest
import torch
from networks import Tied
from torch import nn
from torch.nn import functional as F

import lrlib
from lrlib import ensembles


def seeded_model(seed=0, norm=None):
    with lrlib.seeded(seed):
        return lrlib.mlp(64, 12, 10, norm=norm)


def same(a, b):
    return set(a) == set(b) and all(torch.equal(a[name], b[name]) for name in a)


def close(a, b):
    torch.testing.assert_close(dict(a), dict(b), rtol=1e-4, atol=1e-5)


def replica(state, r):
    return {name: tensor[r] for name, tensor in state.items()}


@pytest.fixture(scope="module")
def data():
    return lrlib.digits()


@pytest.fixture(scope="module")
def snapshots(data):
    taken = lrlib.Snapshots(at=[10, 20, 30])
    model = seeded_model(norm="batch")
    lrlib.train(model, data, lrlib.cosine_restarts(0.3, 10), steps=30, callbacks=[taken])
    assert same(taken[2], model.state_dict())
    return taken


STACKED = {
    "mlp": lambda: lrlib.mlp(64, 12, 10, norm="batch"),
    "conv_net": lambda: lrlib.conv_net(4, in_channels=1),
}


@pytest.fixture(scope="module", params=STACKED.values(), ids=STACKED.keys())
def both(data, request):
    """The snapshots of two networks trained at once, their stack, and each network with its own snapshots."""

    def built(seed):
        with lrlib.seeded(seed):
            return request.param()

    options = {"steps": 6, "batch_size": 32}
    stack, taken = lrlib.Stack([built(0), built(1)]), lrlib.Snapshots(at=[3, 6])
    lrlib.train(stack, data, lrlib.cosine_restarts(0.1, 3), seed=[0, 1], callbacks=[taken], **options)
    single = []
    for seed in (0, 1):
        model, own = built(seed), lrlib.Snapshots(at=[3, 6])
        lrlib.train(model, data, lrlib.cosine_restarts(0.1, 3), seed=seed, callbacks=[own], **options)
        single.append((model, own))
    return stack, taken, single


@pytest.fixture(scope="module")
def trained(data):
    """Two networks with BatchNorm, trained from different initial weights."""
    states = []
    for seed in (0, 1):
        model = seeded_model(seed, norm="batch")
        lrlib.train(model, data, lrlib.cosine(0.5, 150), steps=150, seed=seed)
        states.append(lrlib.copy_state(model))
    return states


def test_snapshots_are_the_states_of_the_run_and_later_training_leaves_them(data, snapshots):
    assert snapshots.steps == [10, 20, 30]
    shorter = seeded_model(norm="batch")
    lrlib.train(shorter, data, lrlib.cosine_restarts(0.3, 10), steps=20)
    assert same(snapshots[1], shorter.state_dict())


def test_a_run_that_diverges_leaves_the_snapshots_taken_before(data):
    taken = lrlib.Snapshots(at=[2, 100])
    history = lrlib.train(seeded_model(), data, lrlib.exponential(1.0, 1e3), steps=100, callbacks=[taken])
    assert history.diverged_at is not None and taken.steps == [2] and len(taken) == 1


def test_snapshots_of_a_stack_are_those_of_its_networks(both):
    _, taken, single = both
    for state, own in zip(taken, zip(*(own for _, own in single), strict=True), strict=True):
        for r in (0, 1):
            close(replica(state, r), own[r])


def test_an_ensemble_of_stacks_predicts_as_those_of_its_networks(data, both):
    stack, taken, single = both
    before = lrlib.copy_state(stack)
    members = lrlib.member_probabilities(stack, taken, data.x_test, batch_size=300)
    assert members.shape == (2, 2, 500, 10) and same(before, stack.tensors()) and stack.training
    for r, (model, own) in enumerate(single):
        expected = lrlib.member_probabilities(model, own, data.x_test)
        torch.testing.assert_close(members[:, r], expected, rtol=1e-3, atol=1e-4)


def test_refresh_of_a_stack_is_that_of_its_networks(data, both):
    stack, _, single = both
    for training in (True, False):
        refreshed = copy.deepcopy(stack).train(training)
        next(t for name, t in refreshed.tensors().items() if name.endswith("running_var")).fill_(math.inf)
        lrlib.refresh_batchnorm(refreshed, data.x_train, batch_size=400)
        assert refreshed.training == training
        for r, (model, _) in enumerate(single):
            own = copy.deepcopy(model)
            lrlib.refresh_batchnorm(own, data.x_train, batch_size=400)
            close(refreshed.replica(r), own.state_dict())
    assert all(torch.equal(a, b) for a, b in zip(stack.weights, refreshed.weights, strict=True))


def test_snapshots_survive_a_file_bit_by_bit(tmp_path, snapshots):
    file = tmp_path / "snapshots.pt"
    snapshots.save(file)
    loaded = lrlib.Snapshots.load(file)
    assert loaded.steps == snapshots.steps
    assert all(map(same, loaded, snapshots))


def test_snapshots_of_two_runs_share_a_file_and_go_on_after_it(tmp_path, data):
    taken = lrlib.Snapshots(at=[2, 4])
    for seed in (0, 1):
        lrlib.train(seeded_model(seed), data, lrlib.constant(0.1), steps=4, callbacks=[taken])
    taken.save(tmp_path / "runs.pt")
    loaded = lrlib.Snapshots.load(tmp_path / "runs.pt")
    lrlib.train(seeded_model(2), data, lrlib.constant(0.1), steps=3, callbacks=[loaded])
    assert loaded.steps == [2, 4, 2, 4, 2] and all(map(same, loaded, taken))


@pytest.mark.skipif(torch.cuda.is_available(), reason="the device is there")
def test_a_device_that_is_not_there_is_no_damage(tmp_path, snapshots):
    snapshots.save(tmp_path / "whole.pt")
    with pytest.raises((AssertionError, RuntimeError), match="CUDA|NVIDIA"):
        lrlib.Snapshots.load(tmp_path / "whole.pt", device="cuda")


def test_a_state_that_is_more_than_tensors_is_refused():
    class Extra(nn.Linear):
        def get_extra_state(self):
            return {"version": 1}

    with pytest.raises(TypeError, match="model: _extra_state is a dict, must be a tensor"):
        lrlib.copy_state(Extra(2, 2))


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"nothing\.pt: no such file of snapshots"):
        lrlib.Snapshots.load(tmp_path / "nothing.pt")


class Explodes:
    """Unpickling it would run code."""

    def __reduce__(self):
        return (pytest.fail, ("code in the file was run",))


def test_code_in_a_file_is_not_run(tmp_path):
    file = tmp_path / "evil.pt"
    torch.save({"format": ensembles.FORMAT, "at": [1], "taken": [(1, Explodes())]}, file)
    with pytest.raises(ValueError, match=r"evil\.pt: is damaged or holds more than tensors"):
        lrlib.Snapshots.load(file)


@pytest.mark.parametrize("content", [b"", b"no zip file", pickle.dumps([1, 2])], ids=["empty", "text", "pickle"])
def test_a_file_of_something_else_is_named(tmp_path, content):
    file = tmp_path / "other.pt"
    file.write_bytes(content)
    with pytest.raises(ValueError, match=r"other\.pt: is"):
        lrlib.Snapshots.load(file)


def test_a_truncated_file_is_named(tmp_path, snapshots):
    file = tmp_path / "half.pt"
    snapshots.save(file)
    file.write_bytes(file.read_bytes()[:2000])
    with pytest.raises(ValueError, match=r"half\.pt: is damaged"):
        lrlib.Snapshots.load(file)


def test_a_flipped_byte_of_a_tensor_is_damage(tmp_path, snapshots):
    file = tmp_path / "flipped.pt"
    snapshots.save(file)
    content = bytearray(file.read_bytes())
    weights = snapshots[1]["1.weight"].numpy().tobytes()
    content[content.index(weights) + 5] ^= 0x3F
    file.write_bytes(content)
    with pytest.raises(ValueError, match=r"flipped\.pt: is damaged"):
        lrlib.Snapshots.load(file)


STATE = {"w": torch.ones(2)}


@pytest.mark.parametrize(
    "change, message",
    [
        ({"format": "other"}, "is not a file of snapshots"),
        ({"at": [2, 1]}, "must be a strictly increasing"),
        ({"taken": None}, "NoneType"),
        ({"taken": [(1, STATE), (2, {"w": torch.ones(3)})]}, r"states\[1\]: w has shape \(3,\), must be \(2,\)"),
        ({"taken": [(1, STATE), (2, {"v": torch.ones(2)})]}, r"states\[1\]: differs from states\[0\]"),
        ({"taken": [(1, {"w": 1.0})]}, r"states\[0\]: w is a float, must be a tensor"),
    ],
    ids=["format", "steps", "nothing", "shapes", "names", "numbers"],
)
def test_a_file_that_does_not_hang_together_is_refused(tmp_path, change, message):
    file = tmp_path / "wrong.pt"
    torch.save({"format": ensembles.FORMAT, "at": [1, 2], "taken": [(1, STATE), (2, STATE)]} | change, file)
    with pytest.raises(ValueError, match=r"wrong\.pt: .*" + message):
        lrlib.Snapshots.load(file)


def test_an_empty_ensemble_is_refused(tmp_path, data):
    with pytest.raises(ValueError, match="states: is empty"):
        lrlib.member_probabilities(seeded_model(), lrlib.Snapshots(at=[5]), data.x_test)
    with pytest.raises(ValueError, match="snapshots: is empty"):
        lrlib.Snapshots(at=[5]).save(tmp_path / "none.pt")
    with pytest.raises(ValueError, match="average: is empty"):
        _ = lrlib.WeightAverage(at=[5]).model


def test_snapshots_of_another_network_are_refused_by_name(data, snapshots):
    wider = lrlib.mlp(64, 13, 10, norm="batch")
    with pytest.raises(ValueError, match=r"states\[0\]: 1.weight has shape \(12, 64\), must be \(13, 64\)"):
        lrlib.member_probabilities(wider, snapshots, data.x_test)
    with pytest.raises(ValueError, match=r"states\[0\]: differs from the model in the entries"):
        lrlib.member_probabilities(seeded_model(), snapshots, data.x_test)
    with pytest.raises(TypeError, match=r"states\[0\]: is a Tensor, must be a state dict"):
        lrlib.member_probabilities(seeded_model(), [torch.ones(1)], data.x_test)


@pytest.mark.parametrize("at", [[], [0, 1], [5, 5], [5, 3]], ids=str)
@pytest.mark.parametrize("collect", [lrlib.Snapshots, lrlib.WeightAverage])
def test_bad_steps_are_refused(collect, at):
    with pytest.raises(ValueError, match="at=.*must be a strictly increasing"):
        collect(at=at)


def test_an_ensemble_averages_probabilities_and_leaves_the_model(data, snapshots):
    model = seeded_model(5, norm="batch")
    before = lrlib.copy_state(model)
    members = lrlib.member_probabilities(model, snapshots, data.x_test, batch_size=77)
    assert same(before, model.state_dict()) and model.training
    for state, probabilities in zip(snapshots, members, strict=True):
        model.load_state_dict(state)
        model.eval()
        with torch.no_grad():
            torch.testing.assert_close(probabilities, F.softmax(model(data.x_test), dim=1), rtol=1e-5, atol=1e-6)
    y = data.y_test
    single = [lrlib.negative_log_likelihood(p, y) for p in members]
    assert lrlib.negative_log_likelihood(members.mean(0), y) <= np.mean(single)  # Jensen


def test_the_likelihood_is_the_cross_entropy(data):
    logits = torch.randn(50, 10, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    y = data.y_test[:50]
    expected = F.cross_entropy(logits, y).item()
    assert lrlib.negative_log_likelihood(logits.softmax(1), y) == pytest.approx(expected, rel=1e-12)
    assert math.isfinite(lrlib.negative_log_likelihood(torch.tensor([[1.0, 0.0]]), torch.tensor([1])))


def test_disagreement_counts_pairs():
    votes = torch.tensor([[0, 0, 1], [0, 1, 1], [0, 2, 0]])
    members = F.one_hot(votes, 3).float()
    assert lrlib.disagreement(members) == pytest.approx((1 / 3 + 2 / 3 + 2 / 3) / 3)
    assert lrlib.disagreement(members[:1].repeat(2, 1, 1)) == 0.0


@pytest.mark.parametrize(
    "call",
    [
        lambda: lrlib.negative_log_likelihood(torch.ones(3, 2), torch.zeros(2, dtype=torch.long)),
        lambda: lrlib.negative_log_likelihood(torch.tensor([[5.0, -5.0]]), torch.tensor([0])),
        lambda: lrlib.negative_log_likelihood(torch.tensor([[math.nan, 1.0]]), torch.tensor([0])),
        lambda: lrlib.disagreement(torch.ones(1, 3, 2)),
        lambda: lrlib.disagreement(torch.full((2, 3, 2), math.nan)),
        lambda: lrlib.WeightAverage(at=[1], decay=1.0),
        lambda: lrlib.refresh_batchnorm(nn.BatchNorm1d(1), torch.ones(1, 1)),
        lambda: lrlib.StatePath({"w": torch.ones(1)}, {"w": torch.ones(1)}, {"w": torch.ones(2)}),
        lambda: lrlib.StatePath({"w": torch.ones(1)}, {"w": torch.ones(1)}, {"v": torch.ones(1)}),
        lambda: lrlib.StatePath({"w": torch.ones(1)}, {"w": torch.ones(2)}),
        lambda: lrlib.StatePath({"w": torch.ones(1)}, {"w": torch.ones(1)}).at(1.1),
        lambda: lrlib.barrier([0.0, 0.5], [1.0, 2.0]),
        lambda: lrlib.barrier([0.0, 1.0], [1.0, 2.0, 3.0]),
    ],
)
def test_a_bad_argument_is_refused(call):
    with pytest.raises(ValueError, match="must"):
        call()


def test_swa_is_the_mean_and_ema_its_recursion(data):
    at = range(5, 31, 5)
    taken, mean, ema = lrlib.Snapshots(at), lrlib.WeightAverage(at), lrlib.WeightAverage(at, decay=0.6)
    lrlib.train(seeded_model(), data, lrlib.constant(0.2), steps=30, callbacks=[taken, mean, ema])
    assert mean.count == len(taken) == 6
    name = "1.weight"
    expected = taken[0][name]
    for state in taken[1:]:
        expected = 0.6 * expected + 0.4 * state[name]
    torch.testing.assert_close(ema.model.state_dict()[name], expected, rtol=1e-5, atol=1e-6)
    average = torch.stack([state[name] for state in taken]).mean(0)
    torch.testing.assert_close(mean.model.state_dict()[name], average, rtol=1e-5, atol=1e-6)


def test_an_average_of_a_stack_is_those_of_its_networks(data):
    rates, average = [0.1, 0.3], lrlib.WeightAverage(at=[2, 3, 5])
    stack = lrlib.Stack([seeded_model()] * 2)
    lrlib.train(stack, data, rates, steps=5, callbacks=[average])
    for r, rate in enumerate(rates):
        own = lrlib.WeightAverage(at=[2, 3, 5])
        lrlib.train(seeded_model(), data, rate, steps=5, callbacks=[own])
        close(average.model.replica(r), own.model.state_dict())


def test_a_mean_of_bfloat16_weights_is_kept_in_float32():
    model, average = nn.Linear(1, 1, bias=False).bfloat16(), lrlib.WeightAverage(at=[1])
    for k in range(2000):
        model.weight.data.fill_(1.0 if k < 1000 else 2.0)
        average.add(model)
    assert average.model.weight.item() == pytest.approx(1.5, abs=0.01)


def test_an_average_can_be_pickled():
    average = lrlib.WeightAverage(at=[1, 2], decay=0.9)
    average.add(seeded_model())
    again = pickle.loads(pickle.dumps(average))
    assert again.count == 1 and same(again.model.state_dict(), average.model.state_dict())


def test_refresh_gives_the_statistics_of_the_data_whatever_was_there_before(data):
    model = seeded_model(norm="batch").eval()
    norm = next(module for module in model if isinstance(module, nn.BatchNorm1d))
    norm.running_mean.fill_(1e6)
    parameters = [p.clone() for p in model.parameters()]
    lrlib.refresh_batchnorm(model, data.x_train, batch_size=len(data.x_train))
    with torch.no_grad():
        inputs = model[1](data.x_train.flatten(1))
    torch.testing.assert_close(norm.running_mean, inputs.mean(0), rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(norm.running_var, inputs.var(0), rtol=1e-4, atol=1e-5)
    assert not norm.training and norm.momentum == 0.1
    assert all(map(torch.equal, parameters, model.parameters()))


def test_refresh_leaves_a_network_without_batchnorm_alone(data):
    model = seeded_model(norm="layer")
    before = lrlib.copy_state(model)
    lrlib.refresh_batchnorm(model, data.x_train)
    assert same(before, model.state_dict())


def test_stale_statistics_spoil_a_weight_average_and_refreshing_repairs_it(data):
    model, average = seeded_model(norm="batch"), lrlib.WeightAverage(at=[1, 150])
    history = lrlib.train(model, data, lrlib.constant(0.5), steps=150, callbacks=[average])
    _, stale = lrlib.evaluate(average.model, data.x_test, data.y_test)
    lrlib.refresh_batchnorm(average.model, data.x_train)
    _, fresh = lrlib.evaluate(average.model, data.x_test, data.y_test)
    assert fresh > stale + 0.05 and fresh > 0.8 * history.accuracy


@pytest.mark.parametrize("curved", [False, True])
def test_a_path_begins_and_ends_at_its_states(curved, trained):
    start, end = trained
    control = {name: p.detach() for name, p in seeded_model(7, "batch").named_parameters()} if curved else {}
    path = lrlib.StatePath(start, end, control)
    assert same(path.at(0.0), start)
    parameters = [name for name in end if end[name].is_floating_point()]
    assert all(torch.equal(path.at(1.0)[name], end[name]) for name in parameters)


def test_paths_are_their_formulas():
    a, b, c = (torch.tensor([value], dtype=torch.float64) for value in (1.0, 5.0, -3.0))

    def at(t, **control):
        return lrlib.StatePath({"w": a}, {"w": b}, control).at(t)["w"].item()

    for t in np.linspace(0, 1, 9):
        assert at(t) == pytest.approx(1 + 4 * t) == at(t, w=(a + b) / 2)
        assert at(t, w=c) == pytest.approx((1 - t) ** 2 + 2 * t * (1 - t) * -3 + 5 * t**2)


def test_a_trained_path_goes_around_the_barrier_of_the_line(data, trained):
    model, positions = seeded_model(norm="batch"), np.linspace(0, 1, 11)
    before = lrlib.copy_state(model)
    path = lrlib.train_path(model, *trained, data, lrlib.cosine(0.1, 250), steps=250)
    refresh = data.x_train
    line, _ = lrlib.path_loss(model, lrlib.StatePath(*trained), data.x_train, data.y_train, positions, refresh=refresh)
    curve, _ = lrlib.path_loss(model, path, data.x_train, data.y_train, positions, refresh=refresh)
    assert same(before, model.state_dict()) and model.training
    assert curve[[0, -1]] == pytest.approx(line[[0, -1]], rel=1e-5)
    assert lrlib.barrier(positions, line) > 0.2
    assert lrlib.barrier(positions, curve) < 0.4 * lrlib.barrier(positions, line)


def test_a_path_is_trained_the_same_way_from_the_same_seed(data, trained):
    def control(seed):
        path = lrlib.train_path(seeded_model(norm="batch"), *trained, data, lrlib.constant(0.1), steps=5, seed=seed)
        return path.control

    assert same(control(3), control(3))
    assert not same(control(3), control(4))


class Gained(nn.Module):
    """A buffer that matters, and a frozen layer."""

    def __init__(self, gain):
        super().__init__()
        self.frozen, self.inner = nn.Linear(64, 12).requires_grad_(False), nn.Linear(12, 10)
        self.register_buffer("gain", torch.tensor(gain))

    def forward(self, x):
        return self.gain * self.inner(self.frozen(x.flatten(1)))


def test_a_path_does_not_read_the_values_of_the_model(data):
    def built(gain, seed):
        with lrlib.seeded(seed):
            return Gained(gain)

    ends = [lrlib.copy_state(built(5.0, seed)) for seed in (0, 1)]
    models = [built(5.0, 2), built(0.5, 3)]
    paths = [lrlib.train_path(model, *ends, data, lrlib.constant(0.01), steps=5) for model in models]
    assert set(paths[0].control) == {"inner.weight", "inner.bias"} and same(paths[0].control, paths[1].control)


def test_the_gradient_of_a_path_is_that_of_its_control_point(data):
    """One step from the middle, against autograd written out for one parameter."""
    with lrlib.seeded(0):
        model = lrlib.mlp(64, 10)
    start, end = lrlib.copy_state(model), {k: v + 0.1 for k, v in lrlib.copy_state(model).items()}
    path = lrlib.train_path(model, start, end, data, lrlib.constant(0.2), steps=1, seed=4)
    with lrlib.seeded(4):
        t = torch.rand(()).item()
    rows = next(lrlib.batches(len(data.x_train), 64, 1, seed=4))
    weight = (start["1.weight"] + end["1.weight"]) / 2
    weight.requires_grad_()
    mixed = (1 - t) ** 2 * start["1.weight"] + 2 * t * (1 - t) * weight + t**2 * end["1.weight"]
    bias = start["1.bias"] + 0.1 * (t * (1 - t) + t**2)
    loss = F.cross_entropy(data.x_train[rows].flatten(1) @ mixed.T + bias, data.y_train[rows])
    loss.backward()
    expected = weight.detach() - 0.2 * weight.grad
    torch.testing.assert_close(path.control["1.weight"], expected, rtol=1e-5, atol=1e-6)


def test_a_path_that_diverges_says_so(data, trained):
    with pytest.raises(ValueError, match="loss of the path is not finite"):
        lrlib.train_path(seeded_model(norm="batch"), *trained, data, lrlib.exponential(10.0, 1e6), steps=50)


def test_the_barrier_is_measured_from_the_line_between_the_ends():
    assert lrlib.barrier([0, 0.25, 1], [2.0, 3.0, 6.0]) == pytest.approx(0.0)
    assert lrlib.barrier([0, 0.25, 1], [2.0, 4.0, 6.0]) == pytest.approx(1.0)
    assert lrlib.barrier([0, 0.5, 1], [2.0, 1.0, 2.0]) == 0.0


# ------------------------------------------------------------------------------------------------- what may surprise


def twice():
    layer = nn.Linear(64, 64)
    return nn.Sequential(nn.Flatten(), layer, nn.Tanh(), layer, nn.Linear(64, 10))


@pytest.mark.parametrize("make, names", [(Tied, ("first.weight", "second.weight")), (twice, ("1.weight", "3.weight"))])
def test_a_path_of_a_tied_weight_has_one_control_point_for_it(make, names):
    states = []
    for seed in (0, 1):
        with lrlib.seeded(seed):
            states.append(lrlib.copy_state(make()))
    data = lrlib.digits()
    path = lrlib.train_path(make(), *states, data, lrlib.constant(0.1), steps=20)
    middle = path.at(0.5)
    assert torch.equal(*(middle[name] for name in names))
    model = make()
    model.load_state_dict(middle)
    expected = lrlib.evaluate(model, data.x_test, data.y_test)[0]
    assert lrlib.path_loss(make(), path, data.x_test, data.y_test, [0.5])[0] == pytest.approx(expected)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("batches", [3, 1000])
def test_statistics_are_means_of_few_and_of_many_batches_in_any_precision(dtype, batches):
    norm = nn.BatchNorm1d(1).to(dtype)
    x = torch.linspace(1.0, 2.0, batches).repeat_interleave(2) + torch.tensor([0.25, -0.25]).repeat(batches)
    lrlib.refresh_batchnorm(norm, x[:, None].to(dtype), 2)
    assert norm.running_mean.item() == pytest.approx(1.5, rel=1e-2)
    assert norm.running_var.item() == pytest.approx(0.125, rel=1e-2) and norm.running_mean.dtype == dtype


def test_layers_of_several_precisions_have_means_of_all_batches():
    norms = [nn.BatchNorm1d(1), nn.BatchNorm1d(1).bfloat16()]

    class Both(nn.Module):
        def __init__(self):
            super().__init__()
            self.norms = nn.ModuleList(norms)

        def forward(self, x):
            return [norm(x.to(norm.weight.dtype)) for norm in norms]

    x = torch.tensor([0.75, 1.25, 1.75, 2.25, 3.75, 4.25])[:, None]
    lrlib.refresh_batchnorm(Both(), x, 2)
    for norm in norms:
        assert norm.running_mean.item() == pytest.approx(7 / 3, rel=1e-2)


@pytest.mark.parametrize(
    "model, x, named",
    [
        (nn.Linear(4, 1), torch.ones(3, 4), "outputs of shape"),
        (nn.Linear(4, 3), torch.ones(3, 2, 4), "outputs of shape"),
        (nn.Sequential(nn.Linear(4, 3), nn.Softmax(-1)), torch.ones(3, 4), "before the softmax"),
        (nn.BatchNorm1d(4, track_running_stats=False), torch.ones(3, 4), "batch_size=2"),
    ],
    ids=["one logit", "sequence", "probabilities", "batches"],
)
def test_outputs_that_are_no_logits_have_no_probabilities(model, x, named):
    with pytest.raises(ValueError, match=named):
        lrlib.member_probabilities(model, [lrlib.copy_state(model)], x, batch_size=2)


@pytest.mark.parametrize("y", [[0, 2], [0, -100], [0.0, 1.0], [True, False]], ids=str)
def test_labels_are_whole_numbers_of_classes(y):
    with pytest.raises(ValueError, match=r"y: is .*must be whole numbers in \[0, 1\]"):
        lrlib.negative_log_likelihood(torch.tensor([[0.5, 0.5], [0.2, 0.8]]), torch.tensor(y))


class Locked(nn.Linear):
    def __deepcopy__(self, memo):
        raise TypeError("holds a lock")


@pytest.mark.parametrize(
    "call",
    [
        lambda model, state: lrlib.member_probabilities(model, [state], torch.ones(2, 64)),
        lambda model, state: lrlib.path_loss(model, lrlib.StatePath(state, state), torch.ones(2, 64), None, [0.0]),
        lambda model, state: lrlib.train_path(model, state, state, lrlib.digits(), lrlib.constant(0.1), steps=1),
    ],
    ids=["members", "path_loss", "train_path"],
)
def test_a_model_that_cannot_be_copied_is_named(call):
    model = Locked(64, 10)
    with pytest.raises(ValueError, match="model: cannot be copied: holds a lock"):
        call(model, lrlib.copy_state(model))


@pytest.mark.parametrize("taken", [[("a", None)], [(-1, None)], [(True, None)], [(1.5, None)], [(1, {})]], ids=str)
def test_a_file_whose_steps_or_states_are_none_is_refused(tmp_path, taken):
    state = {"w": torch.ones(1)}
    content = [(step, state if given is None else given) for step, given in taken]
    torch.save({"format": ensembles.FORMAT, "at": [1], "taken": content}, tmp_path / "s.pt")
    with pytest.raises(ValueError, match="s.pt: .*must"):
        lrlib.Snapshots.load(tmp_path / "s.pt")


def test_statistics_stay_where_the_network_refuses_its_inputs(data):
    for model in (seeded_model(norm="batch"), lrlib.Stack([seeded_model(norm="batch")] * 2)):
        lrlib.refresh_batchnorm(model, data.x_train)
        before = copy.deepcopy(model.state_dict())
        with pytest.raises((RuntimeError, ValueError)):
            lrlib.refresh_batchnorm(model, data.x_train[..., :3])
        assert same(before, model.state_dict())


@pytest.mark.parametrize("dtype", [torch.uint8, torch.int32, torch.int64])
def test_labels_may_be_short(dtype):
    y = torch.tensor([0, 1], dtype=dtype)
    assert lrlib.negative_log_likelihood(torch.tensor([[0.5, 0.5], [0.5, 0.5]]), y) == pytest.approx(math.log(2))


def test_only_statistics_are_renewed():
    class Counting(nn.BatchNorm1d):
        def __init__(self, width):
            super().__init__(width)
            self.register_buffer("my_running_var", torch.tensor(3.0))

    model = nn.Sequential(nn.Flatten(), nn.Linear(64, 4), Counting(4), nn.Linear(4, 10))
    lrlib.refresh_batchnorm(model, lrlib.digits().x_train[:100])
    assert model[2].my_running_var == 3 and model[2].running_mean.any()


def test_snapshots_are_compared_and_hashed_by_what_they_are():
    one, two = lrlib.Snapshots(at=[1]), lrlib.Snapshots(at=[1])
    for snapshots in (one, two):
        lrlib.train(lrlib.mlp(64, 8, 10), lrlib.digits(), 0.1, steps=1, callbacks=[snapshots])
    assert one != two and one in [two, one] and len({one, two}) == 2 and len(repr(one)) < 200


class _ByAnotherWay(nn.Module):
    def __init__(self):
        super().__init__()
        self.first, self.last = nn.Linear(64, 16), nn.Linear(16, 10)
        self.held = [self.first.weight]

    def forward(self, x):
        return self.last(F.relu(F.linear(x.flatten(1), self.held[0], self.first.bias)))


def test_a_path_of_a_model_that_reaches_a_parameter_by_another_way_is_refused():
    states = []
    for seed in range(2):
        with lrlib.seeded(seed):
            states.append(lrlib.copy_state(_ByAnotherWay()))
    with pytest.raises(ValueError, match="a parameter reached by another way"):
        lrlib.train_path(_ByAnotherWay(), *states, lrlib.digits(), lrlib.constant(0.1), steps=3)


def test_snapshots_that_are_there_outlive_a_failed_save(tmp_path, monkeypatch):
    snapshots, file = lrlib.Snapshots(at=[1, 2]), tmp_path / "run.pt"
    lrlib.train(lrlib.mlp(64, 4, 10), lrlib.digits(), 0.1, steps=2, callbacks=[snapshots])
    snapshots.save(file)

    def full(content, where):
        where.write_bytes(b"half")
        raise OSError("no space left")

    monkeypatch.setattr(torch, "save", full)
    with pytest.raises(OSError, match="no space"):
        snapshots.save(str(file))
    assert len(lrlib.Snapshots.load(file)) == 2 and list(tmp_path.iterdir()) == [file]


def test_the_loss_of_a_path_with_dropout_is_reproducible_and_leaves_the_generator():
    layers = nn.Flatten(), nn.Linear(64, 16), nn.Dropout(0.5), nn.BatchNorm1d(16), nn.Linear(16, 10)
    with lrlib.seeded(0):
        model = nn.Sequential(*layers)
    data, path = lrlib.digits(), lrlib.StatePath(model.state_dict(), model.state_dict())
    state = torch.get_rng_state()
    first, second = (
        lrlib.path_loss(model, path, data.x_test, data.y_test, [0.0, 1.0], refresh=data.x_train)[0] for _ in range(2)
    )
    assert np.array_equal(first, second) and first[0] == first[1] and torch.equal(torch.get_rng_state(), state)


@pytest.mark.parametrize("fails", [False, True])
def test_refreshing_batchnorm_leaves_all_other_buffers(fails):
    class Last(nn.Module):
        def forward(self, x):
            if fails:
                raise OSError("in the forward pass")
            return x

    other = nn.InstanceNorm1d(3, track_running_stats=True)
    model = nn.Sequential(nn.BatchNorm1d(3), other, nn.utils.parametrizations.spectral_norm(nn.Linear(4, 4)), Last())
    before = {name: buffer.clone() for name, buffer in model.named_buffers()}
    with contextlib.suppress(OSError):
        lrlib.refresh_batchnorm(model, 1 + torch.randn(20, 3, 4, generator=torch.Generator().manual_seed(0)))
    changed = {name for name, buffer in model.named_buffers() if not torch.equal(buffer, before[name])}
    assert changed == (set() if fails else {"0.running_mean", "0.running_var", "0.num_batches_tracked"})


def test_an_incomplete_last_batch_has_no_part_in_the_statistics():
    norm, x = nn.BatchNorm1d(1), torch.tensor([[0.0], [1.0], [5.0], [100.0], [200.0]])
    lrlib.refresh_batchnorm(norm, x, batch_size=3)
    assert norm.running_mean.item() == 2.0


def test_layers_without_statistics_have_none_to_refresh():
    model = nn.Sequential(nn.BatchNorm1d(1, track_running_stats=False), nn.BatchNorm1d(1))
    lrlib.refresh_batchnorm(model, torch.tensor([[1.0], [3.0]]))
    assert model[1].running_mean.item() == 0.0 and model[1].num_batches_tracked == 1


@pytest.mark.parametrize("dtype, cost", [(torch.float32, 87.3), (torch.float64, 708.4)])
def test_a_label_without_any_probability_costs_what_the_type_allows(dtype, cost):
    found = lrlib.negative_log_likelihood(torch.tensor([[1.0, 0.0]], dtype=dtype), torch.tensor([1]))
    assert found == pytest.approx(cost, abs=0.05)


def test_the_states_of_a_path_share_nothing_with_its_ends():
    start = {"w": torch.zeros(2), "count": torch.tensor(3)}
    path = lrlib.StatePath(start, {"w": torch.ones(2), "count": torch.tensor(5)})
    path.at(0.0)["count"].add_(1)
    path.at(0.0)["w"].add_(1)
    assert start["count"] == 3 and (start["w"] == 0).all()


def test_a_trained_path_is_no_longer_trained(data, trained):
    path = lrlib.train_path(seeded_model(norm="batch"), *trained, data, lrlib.constant(0.1), steps=1)
    assert not any(point.requires_grad for point in path.control.values())


@pytest.mark.parametrize("kind", [torch.uint8, torch.int8, torch.int16, torch.int32, torch.int64])
def test_labels_may_be_whole_numbers_of_any_kind(kind):
    value = ensembles.negative_log_likelihood(torch.tensor([[0.25, 0.75]]), torch.tensor([1], dtype=kind))
    assert value == pytest.approx(-np.log(0.75))


@pytest.mark.parametrize("kind", [torch.bool, torch.float32])
def test_labels_of_another_kind_are_refused(kind):
    with pytest.raises(ValueError, match=r"must be whole numbers in \[0, 1\]"):
        ensembles.negative_log_likelihood(torch.tensor([[0.25, 0.75]]), torch.tensor([1], dtype=kind))
