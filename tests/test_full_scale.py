"""The programme of every chapter at full scale, on tiny files of the real format and a device that is not the CPU."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from torch.utils import backend_registration

from lrlib import records

BOOK = Path(__file__).resolve().parents[1] / "book"
RECORDS = BOOK.parent / "data" / "records"
SHAPES = {"mnist": (28, 28), "fashion_mnist": (28, 28), "cifar10": (32, 32, 3)}
PROGRAMMES = [path for path in sorted(BOOK.glob("*.ipynb")) if records.full_cells(path)]


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    """A folder of the real sets' files, each of a few hundred pictures that can be learnt."""
    folder, rng = tmp_path_factory.mktemp("tiny"), np.random.default_rng(0)
    for name, shape in SHAPES.items():
        arrays, kinds = {}, rng.integers(0, 256, size=(10, *shape))
        for part, n in (("train", 600), ("test", 200)):
            labels = rng.permutation(np.arange(n) % 10)
            noisy = kinds[labels] + rng.normal(0, 60, size=(n, *shape))
            arrays |= {f"x_{part}": noisy.clip(0, 255).astype(np.uint8), f"y_{part}": labels}
        np.savez(folder / f"{name}.npz", **arrays)
    return folder


SETTINGS = {"LRLIB_SCALE": "small", "MPLBACKEND": "agg", "OMP_NUM_THREADS": "1"}
# glibc would give the memory of the larger tensors back to the system, and ask for it again, at every operation
SETTINGS |= {f"MALLOC_{name}_THRESHOLD_": str(2**29) for name in ("MMAP", "TRIM")}

needs_python_device = pytest.mark.skipif(
    not hasattr(backend_registration, "_setup_privateuseone_for_python_backend"),
    reason="this torch knows no devices that are written in Python",
)


def elsewhere(notebooks, **variables):
    """What became of each programme on a device that is not the CPU, in a process of their own and without Jupyter."""
    ran = subprocess.run(
        [sys.executable, Path(__file__).parent / "elsewhere.py", *notebooks],
        env=os.environ | variables | SETTINGS,
        cwd=BOOK.parent,
        capture_output=True,
        text=True,
    )
    assert ran.returncode == 0, ran.stderr
    return [json.loads(line) for line in ran.stdout.splitlines() if line.startswith('{"notebook"')]


@pytest.fixture(scope="module")
def answers(tiny):
    before = {path: path.read_bytes() for path in RECORDS.glob("*")}
    found = {answer.pop("notebook"): answer for answer in elsewhere(PROGRAMMES, LRLIB_DATA=str(tiny))}
    assert before == {path: path.read_bytes() for path in RECORDS.glob("*")}
    return found


@needs_python_device
@pytest.mark.parametrize("name", [path.stem for path in PROGRAMMES])
def test_a_programme_runs_on_another_device_and_records_nothing(name, answers):
    assert answers[name] == {"said": f"{name}.ipynb: ran at small scale"}, answers[name].get("failed")


NET, SAME = "lrlib.mlp(64, 4, 10).to(device)", "expected all tensors to be on the same"
LEFT_ON_THE_CPU = {
    "x = torch.ones(3, device=device) + torch.ones(3)": "aten.add.Tensor: expected all tensors to be on the same",
    "torch.nn.Linear(2, 2)(torch.ones(1, 2, device=device))": "addmm.default: expected all tensors to be on the same",
    "torch.ones(3)[torch.tensor([0, 2], device=device)]": "aten.index.Tensor: expected all tensors to be on the same",
    "torch.rand(3, device=device, generator=torch.Generator())": "expected the generator to be on the device",
    "torch.ones(3, device=device).numpy()": "can't convert a tensor of elsewhere to numpy",
    "lrlib.train(lrlib.mlp(64, 4, 10), lrlib.digits().to(device), 0.1, steps=2)": "expected all tensors to be on the",
    "lrlib.train(lrlib.mlp(64, 4, 10).to(device), lrlib.digits().to(device), 0.1, steps=2)": "",
    f"lrlib.evaluate({NET}, lrlib.digits().x_test, lrlib.digits().y_test)": SAME,
    f"lrlib.sharpness({NET}, lrlib.digits().x_test, lrlib.digits().y_test)": SAME,
    "lrlib.train(lrlib.mlp(64, 4, 10), lrlib.digits(), 0.1, steps=2)": "expected the run to be on the device",
    f"watch = lrlib.Evaluate(lrlib.digits().x_test, lrlib.digits().y_test, at=[9])\n"
    f"lrlib.train({NET}, lrlib.digits().to(device), 0.1, steps=9, callbacks=[watch])": SAME,
    "def run(arm, seed):\n    torch.ones(3, device=device) + torch.ones(3, device=None if arm else device)\n"
    "    return {}\n"
    "lrlib.measure('arms', [{'arm': arm, 'seed': seed} for arm in (0, 1) for seed in (0, 1)], run)": SAME,
}


@needs_python_device
def test_the_device_that_is_not_there_finds_what_was_left_on_the_cpu(tmp_path):
    notebooks = [tmp_path / f"{k}.ipynb" for k in range(len(LEFT_ON_THE_CPU))]
    for notebook, mistake in zip(notebooks, LEFT_ON_THE_CPU, strict=True):
        source = f"import lrlib, torch\ndevice = lrlib.device()\n{mistake}\nlrlib.measure('none', [{{}}], dict)\n"
        cell = {"cell_type": "code", "metadata": {"tags": ["full"]}, "source": source}
        notebook.write_text(json.dumps({"cells": [cell]}), encoding="utf-8")
    for answer, message in zip(elsewhere(notebooks), LEFT_ON_THE_CPU.values(), strict=True):
        assert ("failed" in answer) == bool(message) and message in answer.get("failed", ""), answer


def test_every_record_has_a_programme_that_makes_it():
    names = {name for path in PROGRAMMES for name in records.records_of(records.full_cells(path))}
    stored = {path.stem for path in RECORDS.glob("*.json")}
    assert stored and stored <= names
