"""The Rosetta page against what its lines do: lrlib's and PyTorch's always, the others where they are installed."""

import dataclasses
import inspect
import math
import re
from types import SimpleNamespace

import pytest
import rosetta
import rosetta_optimizers
import torch

pytestmark = pytest.mark.filterwarnings("ignore")  # of the libraries

ROWS = [
    pytest.param(title, library, line, measured, id=f"{title}-{library}")
    for _, sections, _, measured in rosetta.SECTIONS
    for title, _, _, lines in sections
    for library, line in lines.items()
]


def told(title: str, library: str) -> tuple[str, list[str]]:
    """A line and its rates as the page shows them."""
    page = rosetta.PAGE.read_text(encoding="utf-8")
    section = page.split(f"## {title}\n")[1].split("\n## ")[0]
    line = re.search(rf"^{library}: +(.*)$", section, flags=re.MULTILINE)[1]
    row = re.search(rf"^\| {library} \| (.*) \|$", section, flags=re.MULTILINE)[1]
    return line, row.split(" | ")


def installed(library: str):
    try:
        return rosetta_optimizers.module(library)
    except ImportError:
        pytest.skip(f"pip install -r requirements-rosetta.lock to try {library}'s lines")


@pytest.mark.parametrize(("title", "library", "line", "measured"), ROWS)
def test_the_page_shows_what_the_line_does(title, library, line, measured):
    installed(library)
    shown_line, shown_rates = told(title, library)
    assert shown_line == line
    for shown, rate in zip(shown_rates, measured(library, line), strict=True):
        if shown == "refuses":
            assert rate is None
        else:
            assert math.isclose(float(shown), rate, rel_tol=1e-3, abs_tol=1e-8)


def line_of(sections: tuple, title: str, library: str) -> str:
    return next(lines[library] for name, _, _, lines in sections if name == title)


def ratios(library: str, line: str) -> list[float]:
    rates = rosetta_optimizers.group_rates(library, line)
    return [head / body for body, head in zip(rates[::2], rates[1::2], strict=True)]


def test_what_keeps_the_ratio_of_two_groups():
    lost = line_of(rosetta_optimizers.GROUPS, "Groups that lose their ratio", "PyTorch")
    kept = lost.replace("max_lr=0.1", "max_lr=[0.01, 0.1]")
    assert kept != lost
    assert ratios("PyTorch", lost) == pytest.approx([1, 1, 1])
    assert ratios("PyTorch", kept) == pytest.approx([10, 10, 10])
    assert ratios("PyTorch", "CosineAnnealingLR(SGD(groups), T_max=99, eta_min=0.001)")[::2] == pytest.approx([10, 1])


def test_what_keeps_the_ratio_of_two_groups_in_timm():
    installed("timm")
    lost = line_of(rosetta_optimizers.GROUPS, "Groups that lose their ratio", "timm")
    groups = '[{"params": groups[0]["params"], "lr_scale": 0.1}, groups[1]]'
    assert ratios("timm", lost)[0] == pytest.approx(1)
    assert ratios("timm", lost.replace("SGD(groups)", f"SGD({groups}, lr=0.1)")) == pytest.approx([10, 10, 10])
    floored = "CosineLRScheduler(SGD(groups), t_initial=99, lr_min=0.001)"
    assert ratios("timm", floored)[::2] == pytest.approx([10, 1])


def test_what_the_notes_say_of_keras():
    installed("Keras")
    adamw = line_of(rosetta_optimizers.DECOUPLED, "Decoupled weight decay", "Keras")
    adam = adamw.replace("AdamW", "Adam")
    assert rosetta_optimizers.remainders("Keras", adam) == rosetta_optimizers.remainders("Keras", adamw)
    line = line_of(rosetta_optimizers.MUON, "Muon, matched to AdamW", "Keras")
    assert (
        rosetta_optimizers.left("Keras", line.replace("decay)", "decay, adam_weight_decay=decay)"), 0.5, (16,)) < 0.96
    )


def test_what_the_notes_say_of_timm():
    timm = installed("timm")
    optimizer = timm.optim.create_optimizer_v2(torch.nn.Linear(2, 2), "adamw", lr=0.1, weight_decay=0.5)
    decays = {group["params"][0].ndim: group["weight_decay"] for group in optimizer.param_groups}
    assert decays == {1: 0.0, 2: 0.5}
    line = line_of(rosetta_optimizers.MUON, "Muon, matched to AdamW", "timm")
    peer = line_of(rosetta_optimizers.MUON, "Muon, matched to AdamW", "PyTorch")
    same = line.replace("decay)", 'decay, ns_coefficients="original")')
    assert rosetta_optimizers.muon("timm", same)[:2] == rosetta_optimizers.muon("PyTorch", peer)[:2]
    assert rosetta_optimizers.muon("timm", line)[0] > 1.1 * rosetta_optimizers.muon("PyTorch", peer)[0]
    assert inspect.signature(timm.optim.Muon).parameters["lr"].default == 0.02


def test_what_the_notes_say_of_optax():
    optax = installed("optax")
    line = line_of(rosetta_optimizers.MUON, "Muon, matched to AdamW", "optax")
    assert (
        rosetta_optimizers.left("optax", line.replace("decay,", "decay, adam_weight_decay=decay,"), 0.5, (16,)) < 0.96
    )
    plain = line.replace("decay,", "decay, nesterov=False,")
    assert rosetta_optimizers.muon("optax", plain)[2] == 1
    assert inspect.signature(optax.contrib.muon).parameters["learning_rate"].default is inspect.Parameter.empty


def test_what_the_notes_say_of_transformers():
    transformers = installed("transformers")
    fields = dataclasses.fields(transformers.TrainingArguments)
    defaults = {field.name: field.default for field in fields} | {"optim": "adamw_torch", "learning_rate": 0.1}
    kind, settings = transformers.Trainer.get_optimizer_cls_and_kwargs(SimpleNamespace(**defaults))
    assert kind is torch.optim.AdamW
    assert settings["lr"] == 0.1
    assert defaults["weight_decay"] == 0


def test_the_default_rates_of_muon():
    assert torch.optim.Muon([torch.nn.Parameter(torch.ones(2, 2))]).defaults["lr"] == 1e-3
    assert float(installed("Keras").optimizers.Muon().learning_rate.numpy()) == pytest.approx(1e-3)
