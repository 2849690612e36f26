"""The programme of every chapter at full scale, run without Jupyter on tiny files of the real format."""

import sys
from pathlib import Path

import numpy as np
import pytest

from lrlib import records
from lrlib.rehearsal import rehearsing

BOOK = Path(__file__).resolve().parents[1] / "book"
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


@pytest.mark.filterwarnings("ignore::RuntimeWarning")  # of numpy, on pictures that are soon learnt by heart
@pytest.mark.parametrize("notebook", PROGRAMMES, ids=lambda path: path.stem)
def test_a_programme_runs_without_jupyter_and_records_nothing(notebook, tiny, monkeypatch):
    monkeypatch.setenv("LRLIB_SCALE", "small")
    monkeypatch.setenv("LRLIB_DATA", str(tiny))
    for module in ("IPython", "ipykernel", "nbformat", "nbclient"):
        monkeypatch.setitem(sys.modules, module, None)
    before = {path: path.read_bytes() for path in (BOOK.parent / "data" / "records").glob("*")}
    with rehearsing():  # the first updates of each run: that the cells can run is shown, not that they train
        assert records.run_notebook(notebook) == f"{notebook.name}: ran at small scale"
    assert before == {path: path.read_bytes() for path in (BOOK.parent / "data" / "records").glob("*")}


def test_every_record_has_a_programme_that_makes_it():
    names = {name for path in PROGRAMMES for name in records.record_names(records.full_cells(path))}
    stored = {path.stem for path in (BOOK.parent / "data" / "records").glob("*.json")}
    assert stored and stored <= names
