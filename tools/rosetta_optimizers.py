"""Parameter groups, weight decay and Muon in six libraries, for the page "Rosetta": their lines, and what each does.

tools/rosetta.py writes the page, tests/test_rosetta.py runs the lines again.
"""

import importlib
import os
import re
from collections.abc import Callable, Iterator
from itertools import islice
from types import ModuleType

import torch

import lrlib
from lrlib import _torchvision

MODULES = {"optax": "optax", "timm": "timm", "transformers": "transformers", "Keras": "keras"}
RATE = 0.1
DECAYS = (0.5, 0.05)
GROUP_STEPS = (0, 50, 99)

# Title, what is asked for, notes, and the line of each library that has one.
GROUPS = (
    (
        "Two groups, one schedule",
        "The body at 0.01, the head at 0.1, both linearly down to 0 at step 100.",
        '`groups` is `[{"params": [body], "lr": 0.01}, {"params": [head], "lr": 0.1}]`. The schedules of PyTorch, timm '
        "and transformers multiply the rate that each group was made with; lrlib takes one schedule a group. optax and "
        "Keras have no groups: optax scales a part (or splits by label, `optax.partition`), Keras (with its own `SGD` "
        "and `PolynomialDecay`) finds an optimizer by the name of the variable. {doc}`fine_tuning` says "
        "when groups pay.",
        {
            "lrlib": "lrlib.ScheduleLR(SGD(groups), [lrlib.polynomial(rate, total_iters=100) for rate in (0.01, 0.1)])",
            "PyTorch": "PolynomialLR(SGD(groups), total_iters=100)",
            "optax": "optax.chain(optax.sgd(optax.linear_schedule(0.1, 0.0, 100)), "
            'optax.masked(optax.scale(0.1), {"body": True, "head": False}))',
            "timm": "PolyLRScheduler(SGD(groups), t_initial=100, power=1.0)",
            "transformers": "get_linear_schedule_with_warmup(SGD(groups), num_warmup_steps=0, num_training_steps=100)",
            "Keras": "MultiOptimizer(OptimizerMap(SGD(PolynomialDecay(0.1, 100, 0.0)), "
            '{"body": SGD(PolynomialDecay(0.01, 100, 0.0))}))',
        },
    ),
    (
        "Groups that lose their ratio",
        "The same groups under a schedule that writes a rate of its own.",
        "PyTorch's `OneCycleLR` keeps the ratio with `max_lr=[0.01, 0.1]`. timm keeps it if the body's group has "
        '`"lr_scale": 0.1` in place of its rate. A floor, PyTorch\'s `eta_min` or, without that, timm\'s `lr_min`, '
        "is one number for all groups, too: there they meet.",
        {
            "lrlib": "lrlib.ScheduleLR(SGD(groups), lrlib.polynomial(0.1, total_iters=100))",
            "PyTorch": "OneCycleLR(SGD(groups), max_lr=0.1, total_steps=100, cycle_momentum=False)",
            "timm": "PolyLRScheduler(SGD(groups), t_initial=100, power=1.0, warmup_t=10, warmup_lr_init=0.01)",
        },
    ),
)  # fmt: skip

# For a rate of 0.1.
DECOUPLED = (
    (
        "Decoupled weight decay",
        "A decay outside of Adam's division, times the rate: a weight keeps 1 − ηλ.",
        "A weight of 1, a gradient of zero, one step: the table shows what is left, and the λ of the line without its "
        "last argument. Keras's `Adam(weight_decay=decay)` does the same, unlike PyTorch's. timm leaves out biases and "
        "scales of norms, if it is given the model. transformers' `Trainer` makes PyTorch's, with a λ of 0 by default. "
        "{doc}`adamw` says what to choose.",
        {
            "lrlib": "lrlib.AdamW(weight_decay=decay).optimizer([weight], lr=0.1)",
            "PyTorch": "torch.optim.AdamW([weight], lr=0.1, weight_decay=decay)",
            "optax": "optax.adamw(0.1, weight_decay=decay)",
            "timm": 'timm.optim.create_optimizer_v2([weight], "adamw", lr=0.1, weight_decay=decay)',
            "Keras": "keras.optimizers.AdamW(0.1, weight_decay=decay)",
        },
    ),
)  # fmt: skip
SCHEDULED = (
    (
        "Decay under a schedule",
        "What λ = 0.5 leaves at the peak rate of 0.1, and once a schedule has halved it.",
        "A decay times the rate fades with it. One that is added after the rate does not: this line of optax, with "
        "`rate` that of the step, leaves 1 − λ at any. timm's corrected rules, such as `adamc`, take λη²/η_max, which "
        "fades with the square. In the paper of AdamW the decay fades with the schedule but does not depend on the "
        "peak: {doc}`adamw`.",
        {
            "lrlib": "lrlib.AdamW(weight_decay=decay).optimizer([weight], lr=0.1)",
            "PyTorch": "torch.optim.AdamW([weight], lr=0.1, weight_decay=decay)",
            "optax": "optax.chain(optax.adam(rate), optax.add_decayed_weights(-decay))",
            "timm": 'timm.optim.create_optimizer_v2([weight], "adamc", lr=0.1, weight_decay=decay)',
        },
    ),
)  # fmt: skip
L2 = (
    (
        "L2 in the gradient",
        "The same step, where Adam divides the decay like any gradient: it takes the whole rate away, whatever λ is.",
        "",
        {
            "lrlib": "lrlib.Adam(weight_decay=decay).optimizer([weight], lr=0.1)",
            "PyTorch": "torch.optim.Adam([weight], lr=0.1, weight_decay=decay)",
            "optax": "optax.chain(optax.add_decayed_weights(decay), optax.adam(0.1))",
            "timm": 'timm.optim.create_optimizer_v2([weight], "adam", lr=0.1, weight_decay=decay)',
        },
    ),
)  # fmt: skip
MUON = (
    (
        "Muon, scaled as by its authors",
        "An orthogonal step times √max(1, outputs/inputs): {doc}`muon` derives it.",
        "Columns: the RMS over η of a first step, for matrices of 48 outputs and 16 inputs, of 16 and 48, and for "
        "a bias; what λ = 0.5 leaves of ones in a matrix and in a bias without gradient; the λ of the line "
        "without that argument. PyTorch takes matrices only. optax moves biases by Adam with Nesterov's momentum. "
        "`weight_decay` does not reach the biases of optax and Keras; `adam_weight_decay` does. Keras has no such "
        "scaling: without `rms_rate` it has none at all. optax and Keras hold a matrix as inputs × outputs.",
        {
            "lrlib": "lrlib.Muon(weight_decay=decay).optimizer([weight], lr=0.1)",
            "PyTorch": "torch.optim.Muon([weight], lr=0.1, weight_decay=decay)",
            "optax": "optax.contrib.muon(0.1, weight_decay=decay)",
            "timm": 'timm.optim.Muon([weight], lr=0.1, weight_decay=decay, adjust_lr_fn="original")',
            "Keras": "keras.optimizers.Muon(0.1, weight_decay=decay, rms_rate=None)",
        },
    ),
    (
        "Muon, matched to AdamW",
        "An orthogonal step times 0.2 √max(outputs, inputs).",
        "This is timm's and Keras's default. timm's steps are longer because its iteration has other coefficients, "
        'which end nearer to 1: with `ns_coefficients="original"` they are PyTorch\'s. The default rates '
        "differ as well: 0.001 in PyTorch and Keras, 0.02 in timm, none in optax and lrlib.",
        {
            "lrlib": 'lrlib.Muon(weight_decay=decay, adjust_lr_fn="match_rms_adamw").optimizer([weight], lr=0.1)',
            "PyTorch": 'torch.optim.Muon([weight], lr=0.1, weight_decay=decay, adjust_lr_fn="match_rms_adamw")',
            "optax": "optax.contrib.muon(0.1, weight_decay=decay, consistent_rms=0.2)",
            "timm": "timm.optim.Muon([weight], lr=0.1, weight_decay=decay)",
            "Keras": "keras.optimizers.Muon(0.1, weight_decay=decay)",
        },
    ),
)  # fmt: skip


def module(library: str) -> ModuleType:
    """A library, made ready to be used; ImportError where it is not installed."""
    if library in ("lrlib", "PyTorch"):
        return lrlib if library == "lrlib" else torch
    if library == "Keras":
        os.environ.setdefault("KERAS_BACKEND", "torch")
        os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    if library in ("timm", "transformers"):
        _torchvision.datasets()  # both may load torchvision, which may need help beside a CPU build of PyTorch
    made = importlib.import_module(MODULES[library])
    for part in {"optax": ("contrib",), "timm": ("optim", "scheduler"), "transformers": ("optimization",)}.get(
        library, ()
    ):
        importlib.import_module(f"{made.__name__}.{part}")
    return made


def stepped(
    library: str, line: str, weight: torch.Tensor, gradient: torch.Tensor, decay: float | None, rate: float = RATE
) -> torch.Tensor:
    """A weight after one step of a line's optimizer; without a decay the line's argument is left out."""
    if decay is None:
        line = re.sub(r"weight_decay=decay, |(, )?weight_decay=decay", "", line)
    made = module(library)
    parameter = torch.nn.Parameter(weight.clone())
    optimizer = eval(line, {"torch": torch, made.__name__: made, "weight": parameter, "decay": decay, "rate": rate})
    if library == "optax":
        numbers = importlib.import_module("jax.numpy")
        start, slope = numbers.asarray(weight.numpy()), numbers.asarray(gradient.numpy())
        update, _ = optimizer.update(slope, optimizer.init(start), start)
        return torch.tensor(made.apply_updates(start, update).tolist())
    if library == "Keras":
        variable = made.Variable(weight.numpy())
        optimizer.build([variable])
        optimizer.apply([made.ops.convert_to_tensor(gradient.numpy())], [variable])
        return torch.tensor(variable.numpy())
    for group in optimizer.param_groups:
        group["lr"] = rate
    parameter.grad = gradient.clone()
    optimizer.step()
    return parameter.detach()


def left(library: str, line: str, decay: float | None, shape: tuple[int, ...] = (2, 2), rate: float = RATE) -> float:
    """What one step leaves of weights of 1 whose gradient is zero."""
    return stepped(library, line, torch.ones(shape), torch.zeros(shape), decay, rate).flatten()[0].item()


def remainders(library: str, line: str) -> list[float]:
    """What each of DECAYS leaves."""
    return [left(library, line, decay) for decay in DECAYS]


def scheduled(library: str, line: str) -> list[float]:
    """What the first of DECAYS leaves at the rate and at half of it."""
    return [left(library, line, DECAYS[0], rate=rate) for rate in (RATE, RATE / 2)]


def default(library: str, line: str) -> float:
    """The λ that a line has where none is given, to two digits."""
    return float(f"{(1 - left(library, line, None)) / RATE:.2g}")


def remainders_and_default(library: str, line: str) -> list[float]:
    return [*remainders(library, line), default(library, line)]


def relative_rms(library: str, line: str, gradient: torch.Tensor) -> float:
    """The RMS of a first step from zero over the rate, to two digits: Muon's is made in bfloat16 by some."""
    step = stepped(library, line, torch.zeros_like(gradient), gradient, 0.0)
    return float(f"{step.square().mean().sqrt().item() / RATE:.2g}")


def muon(library: str, line: str) -> list[float | None]:
    """The columns of Muon's tables; None for a bias where the line refuses it."""
    values: list[float | None] = []
    for outputs, inputs in ((48, 16), (16, 48)):
        gradient = torch.randn(outputs, inputs, generator=torch.Generator().manual_seed(0))
        transposed = library in ("optax", "Keras")
        values.append(relative_rms(library, line, gradient.T.contiguous() if transposed else gradient))
    biases: list[float | None] = [None, None]
    try:
        biases = [relative_rms(library, line, torch.ones(16)), left(library, line, DECAYS[0], (16,))]
    except ValueError:
        pass
    return [*values, biases[0], left(library, line, DECAYS[0]), biases[1], default(library, line)]


def moves(library: str, line: str) -> Iterator[list[float]]:
    """How far each update of a line's optimizer moves the body and the head, whose gradients are 1."""
    made, names = module(library), ("body", "head")
    if library == "optax":
        numbers = importlib.import_module("jax.numpy")
        ones = {name: numbers.ones(1) for name in names}
        chain = eval(line, {"optax": made})
        state = chain.init(ones)
        while True:
            update, state = chain.update(ones, state, ones)
            yield [-float(update[name][0]) for name in names]
    if library == "Keras":
        optimizer = eval(line, vars(made.optimizers) | vars(made.optimizers.schedules))
        variables = [made.Variable([0.0], name=name) for name in names]
        optimizer.build(variables)
        while True:
            for variable in variables:
                variable.assign([0.0])
            optimizer.apply([made.ops.ones(1) for _ in names], variables)
            yield [-float(variable.numpy()[0]) for variable in variables]
    known = {"timm": "timm.scheduler", "transformers": "transformers.optimization"}.get(
        library, "torch.optim.lr_scheduler"
    )
    body, head = (torch.nn.Parameter(torch.zeros(1, dtype=torch.float64)) for _ in names)
    groups = [{"params": [body], "lr": 0.01}, {"params": [head], "lr": 0.1}]
    scheduler = eval(
        line, vars(importlib.import_module(known)) | {"lrlib": lrlib}, {"SGD": torch.optim.SGD, "groups": groups}
    )
    t = 0
    while True:
        if library == "timm":
            scheduler.step(t)
        for weight in (body, head):
            weight.data.zero_()
            weight.grad = torch.ones_like(weight)
        scheduler.optimizer.step()
        yield [-weight.item() for weight in (body, head)]
        if library != "timm":
            scheduler.step()
        t += 1


def group_rates(library: str, line: str) -> list[float]:
    """The rates of body and head at GROUP_STEPS."""
    pairs = list(islice(moves(library, line), max(GROUP_STEPS) + 1))
    return [rate for t in GROUP_STEPS for rate in pairs[t]]


# A label, the sections, their columns, and what measures a row of these.
SECTIONS: tuple[tuple[str, tuple, list[str], Callable], ...] = (
    ("groups", GROUPS, [f"{name}, step {t}" for t in GROUP_STEPS for name in ("body", "head")], group_rates),
    ("decay", DECOUPLED, [*(f"λ = {decay}" for decay in DECAYS), "default λ"], remainders_and_default),
    ("scheduled", SCHEDULED, ["rate 0.1", "rate 0.05"], scheduled),
    ("l2", L2, [f"λ = {decay}" for decay in DECAYS], remainders),
    (
        "muon",
        MUON,
        ["48 × 16", "16 × 48", "bias", "matrix left", "bias left", "default λ"],
        muon,
    ),
)
