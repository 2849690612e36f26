"""Diagnosis: every signature on runs of another data set, other networks and other seeds than it was set on."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torch.optim import lr_scheduler

import lrlib
from lrlib.diagnosis import Finding, diagnose

STEPS = 300
SEEDS = (200, 201)


@pytest.fixture(scope="module")
def data():
    return lrlib.hard_digits(seed=6)


def adam(lr):
    return lambda p: torch.optim.Adam(p, lr=lr)


def sgd(lr, momentum=0.0):
    return lambda p: torch.optim.SGD(p, lr=lr, momentum=momentum)


def run(data, seed, schedule=None, *, model=None, optimizer=None, scheduler=None, every=1, times=1, **rest):
    """Train; where a `scheduler` is given, step it so many times after every so many updates."""
    with lrlib.seeded(seed):
        model = model() if model else lrlib.mlp(data.x_train[0].numel(), 64, 10)
    optimizer = (optimizer or sgd(1.0))(model.parameters())
    callbacks = []
    if scheduler:
        stepped = scheduler(optimizer)

        def step(run):
            for _ in range(times if run.step % every == 0 else 0):
                stepped.step()

        callbacks = [step]
    rest = {"batch_size": 32, "track_updates": True, "steps": STEPS} | rest
    return lrlib.train(model, data, schedule, optimizer=optimizer, seed=seed, callbacks=callbacks, **rest)


def deep():
    return lrlib.mlp(256, 64, 64, 10, activation="tanh")


def conv(momentum):
    def make():
        model = lrlib.conv_net(8)
        for module in model.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.momentum = momentum
        return model

    return make


def absolute_cubed(logits, y):
    return 10 * (logits - F.one_hot(y, 10)).abs().pow(3).mean()


def mean_over_classes(logits, y):
    losses = F.cross_entropy(logits, y, reduction="none")
    return torch.stack([losses[y == k].mean() for k in range(10)]).mean()


class Normed(nn.Module):
    def forward(self, h):
        return h / h.pow(2).sum(1, keepdim=True).sqrt()


def dead_rows():
    model = nn.Sequential(nn.Flatten(), nn.Linear(256, 4), nn.ReLU(), Normed(), nn.Linear(4, 10))
    return model


def entropy_in_half(logits, y):
    p = F.softmax(logits, 1).half()
    return F.cross_entropy(logits, y) + 0.01 * (p * p.log()).float().sum(1).mean()


def with_a_blank(data):
    """Every picture brought to mean 0 and deviation 1, among them one that is blank: 0/0."""
    x = data.x_train.clone()
    x[7] = 0
    return replace(data, x_train=(x - x.mean((2, 3), keepdim=True)) / x.std((2, 3), keepdim=True))


def relabelled(data, share):
    generator = torch.Generator().manual_seed(1)
    chosen = torch.rand(len(data.y_train), generator=generator) < share
    drawn = torch.randint(10, (len(data.y_train),), generator=generator)
    return replace(data, y_train=torch.where(chosen, drawn, data.y_train))


def pixels(data):
    """Brightness from 0 to about a hundred, as files store it, in place of standardised values."""
    return replace(data, x_train=(data.x_train + 2) * 16, x_test=(data.x_test + 2) * 16)


ILL = {
    "too high, SGD": ("too high", lambda d, s: run(d, s, lrlib.constant(3.0))),
    "too high, deep tanh": ("too high", lambda d, s: run(d, s, lrlib.cosine(10.0, STEPS), model=deep)),
    "too high, Adam": ("too high", lambda d, s: run(d, s, lrlib.constant(1.0), optimizer=adam(1.0))),
    "too low, SGD": ("too low", lambda d, s: run(d, s, lrlib.constant(3e-4))),
    "too low, Adam": ("too low", lambda d, s: run(d, s, lrlib.cosine(3e-6, STEPS), optimizer=adam(1.0))),
    "overflow, cubed error": ("overflow", lambda d, s: run(d, s, lrlib.constant(1.0), loss=absolute_cubed)),
    "overflow, huge rate": ("overflow", lambda d, s: run(d, s, lrlib.constant(1e30))),
    "empty classes": ("arithmetic at zero", lambda d, s: run(d, s, lrlib.constant(0.05), loss=mean_over_classes)),
    "a norm at zero": ("arithmetic at zero", lambda d, s: run(d, s, lrlib.constant(0.1), model=dead_rows)),
    "zero times log of zero": ("arithmetic at zero", lambda d, s: run(d, s, lrlib.constant(0.2), loss=entropy_in_half)),
    "a blank picture": ("arithmetic at zero", lambda d, s: run(with_a_blank(d), s, lrlib.constant(0.1))),
    "warm-up missing": (
        "warm-up missing",
        lambda d, s: run(d, s, lrlib.cosine(0.03, STEPS), optimizer=adam(1.0), model=lambda: lrlib.mlp(256, 512, 10)),
    ),
    "plateau": (
        "plateau",
        lambda d, s: run(
            relabelled(lrlib.digits(seed=9), 0.5), s, lrlib.constant(0.2), steps=1200, batch_size=8,
            model=lambda: lrlib.mlp(64, 48, 24, 10),
        ),
    ),
    "stepped twice": (
        "scheduler",
        lambda d, s: run(
            d, s, optimizer=sgd(0.2), times=2, scheduler=lambda o: lr_scheduler.CosineAnnealingLR(o, STEPS)
        ),
    ),
    "horizon passed, held": ("scheduler", lambda d, s: run(d, s, lrlib.cosine(0.2, STEPS // 2))),
    "once per epoch": (
        "scheduler",
        lambda d, s: run(
            d, s, optimizer=sgd(0.2), every=25,
            scheduler=lambda o: lr_scheduler.OneCycleLR(o, 0.2, total_steps=STEPS, cycle_momentum=False),
        ),
    ),
    "set after the epoch": (
        "scheduler",
        lambda d, s: run(
            d, s, lrlib.join([lrlib.constant(0.2), lrlib.warmup(lrlib.constant(0.2), 100)], [30]),
        ),
    ),
    "stale BatchNorm": (
        "stale BatchNorm",
        lambda d, s: run(pixels(d), s, lrlib.cosine(0.01, 400), model=conv(1e-4), optimizer=adam(1.0), steps=400),
    ),
}  # fmt: skip
HEALTHY = {
    "SGD": lambda d, s: run(d, s, lrlib.constant(0.1)),
    "SGD, cosine": lambda d, s: run(d, s, lrlib.cosine(0.2, STEPS)),
    "SGD, tanh": lambda d, s: run(d, s, lrlib.constant(0.1), model=deep),
    "momentum, linear": lambda d, s: run(d, s, lrlib.polynomial(0.03, STEPS), optimizer=sgd(1.0, 0.9)),
    "Adam, one cycle": lambda d, s: run(d, s, lrlib.one_cycle(0.01, STEPS), optimizer=adam(1.0)),
    "Adam, warm-up": lambda d, s: run(d, s, lrlib.warmup(lrlib.cosine(0.003, STEPS), 30), optimizer=adam(1.0)),
    "step decay": lambda d, s: run(d, s, lrlib.step(0.2, 100)),
    "inverse square root": lambda d, s: run(d, s, lrlib.inverse_sqrt(1.0, warmup_steps=30)),
    "warm restarts": lambda d, s: run(d, s, lrlib.cosine_restarts(0.2, 100)),
    "triangles": lambda d, s: run(d, s, lrlib.cyclic(0.01, 0.2, step_size_up=50)),
    "WSD": lambda d, s: run(d, s, lrlib.wsd(0.2, STEPS, 20, 80)),
    "wrong labels, cosine": lambda d, s: run(relabelled(d, 0.3), s, lrlib.cosine(0.1, STEPS)),
    "BatchNorm": lambda d, s: run(d, s, lrlib.cosine(0.01, 400), model=conv(0.1), optimizer=adam(1.0), steps=400),
    "BatchNorm on pixels": lambda d, s: run(
        pixels(d), s, lrlib.cosine(0.01, 400), model=conv(0.1), optimizer=adam(1.0), steps=400
    ),
    "untracked": lambda d, s: run(d, s, lrlib.cosine(0.2, STEPS), track_updates=False),
}


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("name", ILL)
def test_the_signature_is_named(name, seed, data):
    expected, make = ILL[name]
    history = make(data, seed)
    findings = diagnose(history)
    assert [finding.signature for finding in findings] == [expected], findings
    # without the update ratios there is less evidence, but no other answer
    blind = [finding.signature for finding in diagnose(replace(history, update_ratio=None))]
    assert blind in ([expected], []) or name == "overflow, huge rate"


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("name", HEALTHY)
def test_it_is_silent_on_healthy_runs(name, seed, data):
    history = HEALTHY[name](data, seed)
    assert diagnose(history) == [], (history.accuracy, history.loss[:3], history.loss[-3:])


def digits_run(scheduler, every=1, times=1):
    return run(lrlib.digits(), 1, optimizer=sgd(0.2), scheduler=scheduler, every=every, times=times, steps=60)


COSINE = lrlib.cosine(0.2, 60)


@pytest.mark.parametrize("build, planned, every, times, reason", [
    (lambda o: lr_scheduler.CosineAnnealingLR(o, 60), COSINE, 1, 2, "2 times an update"),
    (lambda o: lr_scheduler.MultiStepLR(o, [50]), lrlib.multistep(0.2, [50]), 1, 2, "2 times an update"),
    (lambda o: lr_scheduler.CosineAnnealingLR(o, 60), COSINE, 6, 1, "once in 6 updates"),
    (lambda o: lr_scheduler.ConstantLR(o, 1.0), COSINE, 1, 1, "never changed"),
])  # fmt: skip
def test_against_a_plan_the_mistake_is_told(build, planned, every, times, reason):
    history = digits_run(build, every, times)
    (finding,) = diagnose(history, planned=planned)
    assert finding.signature == "scheduler" and reason in finding.evidence


def test_a_schedule_that_was_followed_is_no_finding():
    plan = lrlib.cosine_restarts(0.2, 45)  # ends at a high rate, in the middle of a cycle
    history = run(lrlib.digits(), 1, plan, steps=60)
    assert diagnose(history, planned=plan) == []


def test_stepped_before_the_optimizer():
    plan = lrlib.cosine(0.2, 60)
    shifted = lrlib.Schedule(lambda t: plan(t.astype(int) + 1), "one ahead")
    (finding,) = diagnose(run(lrlib.digits(), 1, shifted, steps=60), planned=plan)
    assert "before the optimizer" in finding.evidence


def test_a_rate_of_zero_is_found():
    (finding,) = diagnose(run(lrlib.digits(), 1, lrlib.constant(0.0), steps=20))
    assert finding.signature == "scheduler" and "zero" in finding.evidence


def test_an_exponential_growth_is_meant():
    history = run(lrlib.digits(), 1, lrlib.exponential(0.05, 1.005), steps=200)
    assert diagnose(history) == []


def test_parameter_groups_are_judged_too():
    def groups(parameters):
        return torch.optim.SGD([{"params": [p]} for p in parameters], lr=1.0)

    history = run(lrlib.digits(), 1, lrlib.constant(1e-5), optimizer=groups, steps=30)
    assert history.lr.ndim == 2
    assert [finding.signature for finding in diagnose(history)] == ["too low"]


@pytest.mark.parametrize("ratios, names", [([0.5, 0.3], ["too low"]), ([0.5, 0.49], [])])
def test_a_run_is_too_low_where_its_updates_cannot_have_moved_the_weights_by_their_length(ratios, names):
    """(1 + 0.5)(1 + 0.49) - 1 = 1.24, although the ratios add up to less than one."""
    steps = np.arange(100)
    history = lrlib.History(
        np.full(100, 0.1), 2.3 - 0.006 * steps, np.repeat(ratios, 50) ** np.where(steps % 50, np.inf, 1),
        np.array([100]), np.array([1.7]), np.array([0.4]), None, 100, 1.0,
    )  # fmt: skip
    assert [finding.signature for finding in diagnose(history)] == names


def test_a_finding_reads_as_a_sentence():
    assert str(Finding("plateau", "flat", "cut it")) == repr(Finding("plateau", "flat", "cut it"))
    assert str(Finding("plateau", "flat", "cut it")) == "plateau: flat. Try: cut it."


@pytest.mark.parametrize("arguments, named", [((3,), "history=3"), ((None,), "history=None")])
def test_a_wrong_type_is_refused(arguments, named):
    with pytest.raises(TypeError, match=named):
        diagnose(*arguments)
    history = run(lrlib.digits(), 1, lrlib.constant(0.1), steps=20)
    with pytest.raises(TypeError, match="planned=0.1"):
        diagnose(history, planned=0.1)


def test_a_stack_is_refused():
    stack = lrlib.Stack([lrlib.mlp(64, 8, 10) for _ in range(2)])
    history = lrlib.train(stack, lrlib.digits(), lrlib.constant(0.1), steps=5)
    with pytest.raises(ValueError, match=r"losses of shape \(2, 5\), must be of one network"):
        diagnose(history)


def test_negative_losses_are_refused():
    rates = np.full(3, 0.1)
    history = lrlib.History(rates, -rates, None, np.array([3]), -rates[:1], rates[:1], None, 3, 1.0)
    with pytest.raises(ValueError, match="history: has the loss -"):
        diagnose(history)


def test_a_run_without_a_test_set_or_an_update_is_not_judged_by_them(data):
    with lrlib.seeded(0):
        model = lrlib.mlp(256, 16, 10)
    history = lrlib.train(model, (data.x_train, data.y_train), 0.1, steps=200)
    assert diagnose(history) == []
    stop = lrlib.Periodic(lambda run: run.stop(), at=[0])
    for sets in (data, (data.x_train, data.y_train)):
        history = lrlib.train(model, sets, 0.1, steps=5, callbacks=[stop], track_updates=True)
        assert history.updates == 0 and diagnose(history) == [] == diagnose(history, lrlib.constant(0.1))


def test_a_run_that_went_beyond_all_numbers_is_far():
    with lrlib.seeded(0):
        model = lrlib.mlp(64, 16, 10)
    history = lrlib.train(model, lrlib.digits(), 0.1, steps=100, track_updates=True)
    assert isinstance(diagnose(replace(history, update_ratio=np.full(100, 1e4))), list)


def test_of_several_groups_the_highest_rate_counts():
    model, plan = lrlib.mlp(64, 16, 10), lrlib.constant(0.1)
    optimizer = torch.optim.SGD([{"params": model[1].parameters()}, {"params": model[3].parameters()}], lr=1.0)
    history = lrlib.train(model, lrlib.digits(), [lrlib.constant(0.0), plan], steps=100, optimizer=optimizer)
    assert not [found for found in diagnose(history) if found.signature == "scheduler"]
    assert not [found for found in diagnose(history, planned=plan) if found.signature == "scheduler"]
    found = diagnose(history, planned=lrlib.constant(0.10001))[0]
    assert "ran at 0.1, planned was 0.10001" in found.evidence


STEP = np.arange(100)
FALLING = 2.3 * 0.97**STEP
FLAT = np.where(STEP < 20, 2.3 - 0.06 * STEP, 1.0)  # it stalls at 1


def signatures(loss, lr=0.1, ratio=None, test_loss=0.5, accuracy=0.9, **ended):
    """What is found in a run of these curves."""
    steps = len(loss)
    rates = np.full(steps, lr) if isinstance(lr, float) else lr
    ended = {"diverged_at": None, "updates": steps, "seconds": 1.0} | ended
    history = lrlib.History(rates, loss, ratio, np.array([steps]), np.array([test_loss]), np.array([accuracy]), **ended)
    return diagnose(history)


def spiked(loss, at, height):
    return np.where(np.arange(len(loss)) == at, height, loss)


@pytest.mark.parametrize(
    "loss, lr, names",
    [
        (FALLING, np.where(STEP < 30, 0.0, 0.1), []),
        (FALLING, np.where(STEP < 10, 0.1, np.where(STEP < 20, 0.08, 0.09)), []),
        (FALLING, np.where(STEP < 10, 0.1, np.where(STEP < 20, 0.04, 0.09)), ["scheduler"]),
        (FALLING, 0.05 * 1.05**STEP, []),
        (FALLING, 0.1 + 0.01 * STEP, ["scheduler"]),
        (FLAT, 0.1, ["plateau"]),
        (FLAT, np.stack([np.zeros(100), np.full(100, 0.1)], 1), ["plateau"]),
        (FLAT, 0.1 * np.cos(np.pi * STEP / 200) ** 2, []),
        (spiked(FALLING, 3, 10.0), 0.1, ["warm-up missing"]),
        (spiked(FALLING, 3, 10.0), 0.01 * np.minimum(STEP + 1, 10), []),
        (spiked(2.3 - 0.005 * STEP, 50, 4.0), 0.1, []),
    ],
    ids=[
        "late start", "small cycle", "rate set late", "exponential", "still rising", "plateau", "of the fastest group",
        "annealed", "spike", "spike in a warm-up", "one bad batch",
    ],
)  # fmt: skip
def test_curves_have_their_signatures(loss, lr, names):
    assert [finding.signature for finding in signatures(loss, lr)] == names


@pytest.mark.parametrize("accuracy, names", [(0.5, []), (0.2, ["stale BatchNorm"])])
def test_a_right_answer_too_sure_of_its_errors_is_no_stale_batchnorm(accuracy, names):
    """The training loss of 0.5 promises an accuracy of exp(-0.5) = 0.61, and 0.6 of that is 0.36."""
    loss = np.maximum(FALLING, 0.5)
    loss[-50:] = np.linspace(0.7, 0.5, 50)
    assert [f.signature for f in signatures(loss, test_loss=3.0, accuracy=accuracy)] == names


@pytest.mark.parametrize("value, said", [(np.inf, "infinite: a logarithm of zero"), (np.nan, "NaN: zero over zero")])
def test_a_loss_that_calmed_down_did_not_overflow_and_what_it_became_is_told(value, said):
    loss = spiked(FALLING, 3, 50.0)
    [finding] = signatures(loss, diverged_at=100, diverged_loss=value)
    assert finding.signature == "arithmetic at zero" and said in finding.evidence
