"""The real data sets: .npz files read, checked, and made by torchvision. No network."""

import gzip
import hashlib
import os
import pickle
import struct
import subprocess
import sys
import urllib.error
import urllib.request
from pathlib import Path

import numpy as np
import pytest

import lrlib
from lrlib import _torchvision

REAL = {"mnist": (28, 28), "fashion_mnist": (28, 28), "cifar10": (32, 32, 3)}
FOLDERS = {"mnist": "MNIST", "fashion_mnist": "FashionMNIST"}


def sets_of_pictures(name, n_train=30, n_test=20):
    rng = np.random.default_rng(0)
    arrays = {}
    for part, n in (("train", n_train), ("test", n_test)):
        arrays[f"x_{part}"] = rng.integers(0, 256, size=(n, *REAL[name]), dtype=np.uint8)
        arrays[f"y_{part}"] = np.arange(n) % 10
    return arrays


# The real sets, from .npz files


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """An empty data folder, and no network."""

    def offline(*args, **kwargs):
        raise urllib.error.URLError("no network")

    monkeypatch.setattr(urllib.request, "urlopen", offline)
    monkeypatch.setenv("LRLIB_DATA", str(tmp_path / "data"))
    (tmp_path / "data").mkdir()
    return tmp_path / "data"


@pytest.mark.parametrize("setting, place", [(None, ".cache/lrlib"), ("", ".cache/lrlib"), ("~/pictures", "pictures")])
def test_the_data_folder(monkeypatch, tmp_path, setting, place):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("LRLIB_DATA", raising=False)
    if setting is not None:
        monkeypatch.setenv("LRLIB_DATA", setting)
    (tmp_path / place).mkdir(parents=True)
    np.savez(tmp_path / place / "mnist.npz", **sets_of_pictures("mnist"))
    assert len(lrlib.mnist().x_train) == 30


@pytest.mark.parametrize("name", REAL)
@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_a_file_already_there_is_used_as_is(folder, monkeypatch, name, save):
    monkeypatch.setattr(_torchvision, "datasets", lambda: pytest.fail("torchvision is not needed"))
    arrays = sets_of_pictures(name)
    path = folder / f"{name}.npz"
    save(path, **arrays)
    content = path.read_bytes()
    data = getattr(lrlib, name)()
    assert data.sha256 == hashlib.sha256(content).hexdigest() and path.read_bytes() == content
    assert data.name == name and data.num_classes == 10
    assert data.x_train.shape == ((30, 3, 32, 32) if name == "cifar10" else (30, 1, 28, 28))
    assert data.y_test.tolist() == arrays["y_test"].tolist()


def test_standardised_by_the_training_pictures_alone(folder):
    arrays = sets_of_pictures("cifar10")
    arrays["x_train"][..., 2] = 9  # a channel without variance
    np.savez(folder / "cifar10.npz", **arrays)
    data = lrlib.cifar10()
    mean = arrays["x_train"].mean((0, 1, 2), dtype=np.float64)
    std = arrays["x_train"].std((0, 1, 2), dtype=np.float64)
    std[2] = 1.0
    for part in ("train", "test"):
        expected = ((arrays[f"x_{part}"] - mean) / std).transpose(0, 3, 1, 2)
        np.testing.assert_allclose(getattr(data, f"x_{part}").numpy(), expected, rtol=1e-5, atol=1e-5)
    assert data.x_train.is_contiguous() and not data.x_train[:, 2].any()


def pickled(arrays):
    return arrays | {"y_test": arrays["y_test"].astype(object)}


@pytest.mark.parametrize(
    "change, message",
    [
        (
            lambda a: {key: a[key] for key in a if key != "y_test"},
            "has no y_test, must have the arrays x_train, y_train",
        ),
        (lambda a: {"images": a["x_train"]}, "has no x_train, y_train, x_test, y_test"),
        (lambda a: a | {"x_train": a["x_train"] / 255}, r"x_train: is float64 of shape .* must be uint8"),
        (lambda a: a | {"x_test": a["x_test"].reshape(-1, 784)}, r"x_test: is .* must be uint8 of shape \(N, 28, 28\)"),
        (lambda a: a | {"x_test": np.uint8(3)}, r"x_test: is uint8 of shape \(\), must be"),
        (lambda a: a | {"x_train": a["x_train"][:0]}, "x_train: is .*, not empty"),
        (
            lambda a: a | {"y_train": a["y_train"].astype(np.uint8)},
            r"y_train: is uint8 of shape \(30,\), must be int64",
        ),
        (lambda a: a | {"y_train": a["y_train"][:, None]}, r"y_train: is .* must be int64 of shape \(30,\)"),
        (
            lambda a: a | {"y_train": a["y_train"][:-1]},
            r"y_train: is int64 of shape \(29,\), must be int64 of shape \(30,\)",
        ),
        (lambda a: a | {"y_test": a["y_test"] + 1}, r"y_test: has numbers from 1 to 10, must be in \[0, 9\]"),
        (lambda a: a | {"y_test": a["y_test"] - 1}, r"y_test: has numbers from -1 to 8, must be in \[0, 9\]"),
        (pickled, "is damaged or no .npz file of plain arrays"),
    ],
)
def test_a_file_of_something_else_is_named(folder, change, message):
    path = folder / "mnist.npz"
    np.savez(path, **change(sets_of_pictures("mnist")))
    with pytest.raises(ValueError, match=f"{path}: {message}") as caught:
        lrlib.mnist()
    assert "\n" not in str(caught.value)


def flip_a_byte(content):
    middle = len(content) // 3
    return content[:middle] + bytes([content[middle] ^ 255]) + content[middle + 1 :]


def listed(content, place, value):
    """With other bytes at a place of the first entry in the list of the parts."""
    place += content.index(b"PK\1\2")
    return content[:place] + value + content[place + len(value) :]


@pytest.mark.parametrize(
    "damage",
    [
        lambda content: b"",
        lambda content: b"<html>Not found</html>",
        lambda content: content[: len(content) // 2],
        lambda content: content[:-10],
        flip_a_byte,
        lambda content: listed(content, 8, b"\1"),  # as encrypted: a RuntimeError of zipfile
        lambda content: listed(content, 10, b"\x63"),  # by an unknown method: a NotImplementedError
        lambda content: listed(content, 45, b"\x80"),  # before or after the file
        lambda content: content[:-6] + b"\xff\xff\xff\x7f" + content[-2:],  # and the list itself
    ],
)
@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_a_damaged_file_is_named_and_left_alone(folder, damage, save):
    path = folder / "mnist.npz"
    save(path, **sets_of_pictures("mnist"))
    damaged = damage(path.read_bytes())
    path.write_bytes(damaged)
    with pytest.raises(ValueError, match=f"{path}: is damaged or no .npz file .*: delete it or put a whole one there"):
        lrlib.mnist()
    assert path.read_bytes() == damaged


def test_a_single_array_is_no_npz_file(folder):
    with (folder / "mnist.npz").open("wb") as file:
        np.save(file, np.zeros(3))
    with pytest.raises(ValueError, match="is damaged or no .npz file"):
        lrlib.mnist()


# The real sets, through torchvision


def idx(array):
    header = struct.pack(">HBB", 0, 8, array.ndim) + struct.pack(f">{array.ndim}I", *array.shape)
    return header + array.astype(np.uint8).tobytes()


def idx_files(arrays):
    for part, prefix in (("train", "train"), ("test", "t10k")):
        yield f"{prefix}-images-idx3-ubyte", idx(arrays[f"x_{part}"])
        yield f"{prefix}-labels-idx1-ubyte", idx(arrays[f"y_{part}"])


def write_idx(folder, name, arrays):
    target = folder / FOLDERS[name] / "raw"
    target.mkdir(parents=True)
    for file, content in idx_files(arrays):
        (target / file).write_bytes(content)


def write_cifar10(folder, arrays, monkeypatch):
    """The Python version of CIFAR-10: pickled batches with rows of 1,024 red, then green, then blue pixels."""
    target = folder / "cifar-10-batches-py"
    target.mkdir()
    kind = _torchvision.datasets().CIFAR10
    md5 = {}

    def write(file, content):
        (target / file).write_bytes(pickle.dumps(content))
        md5[file] = hashlib.md5((target / file).read_bytes()).hexdigest()

    def batch(x, y):
        return {"data": x.transpose(0, 3, 1, 2).reshape(len(x), 3072), "labels": y.tolist()}

    for i in range(5):
        rows = slice(6 * i, 6 * i + 6)
        write(f"data_batch_{i + 1}", batch(arrays["x_train"][rows], arrays["y_train"][rows]))
    write("test_batch", batch(arrays["x_test"], arrays["y_test"]))
    write("batches.meta", {"label_names": [str(i) for i in range(10)]})
    monkeypatch.setattr(kind, "train_list", [[file, md5[file]] for file, _ in kind.train_list])
    monkeypatch.setattr(kind, "test_list", [[file, md5[file]] for file, _ in kind.test_list])
    monkeypatch.setattr(kind, "meta", kind.meta | {"md5": md5["batches.meta"]})


@pytest.mark.parametrize("name", REAL)
def test_torchvisions_files_are_decoded_once_and_kept(folder, monkeypatch, name):
    arrays = sets_of_pictures(name)
    if name == "cifar10":
        write_cifar10(folder, arrays, monkeypatch)
    else:
        write_idx(folder, name, arrays)
    data = getattr(lrlib, name)()
    path = folder / f"{name}.npz"
    with np.load(path, allow_pickle=False) as kept:
        assert set(kept.files) == set(arrays)
        for key, array in arrays.items():
            assert kept[key].dtype == (np.uint8 if key.startswith("x") else np.int64)
            assert np.array_equal(kept[key], array)
    assert data.sha256 == hashlib.sha256(path.read_bytes()).hexdigest()
    assert not list(folder.glob("*.part"))
    monkeypatch.setattr(_torchvision, "datasets", lambda: pytest.fail("decoded twice"))
    assert getattr(lrlib, name)().sha256 == data.sha256


def test_compressed_downloads_are_checked_and_unpacked(folder, monkeypatch):
    arrays = sets_of_pictures("mnist")
    target = folder / "MNIST" / "raw"
    target.mkdir(parents=True)
    resources = []
    for file, content in idx_files(arrays):
        packed = gzip.compress(content)
        (target / f"{file}.gz").write_bytes(packed)
        resources.append((f"{file}.gz", hashlib.md5(packed).hexdigest()))
    monkeypatch.setattr(_torchvision.datasets().MNIST, "resources", resources)
    lrlib.mnist()
    with np.load(folder / "mnist.npz") as kept:
        assert np.array_equal(kept["x_train"], arrays["x_train"])


@pytest.mark.parametrize("name", REAL)
def test_offline_and_absent_says_what_to_do_in_one_line(folder, name):
    with pytest.raises(FileNotFoundError) as caught:
        getattr(lrlib, name)()
    message = str(caught.value)
    assert message.startswith(f"{name}: there is no {folder / name}.npz, and torchvision could not get it (")
    assert "no network" in message
    assert message.endswith(
        f"connect to a network, delete a damaged download from {folder}, put {name}.npz there, or set LRLIB_DATA to "
        "the folder that holds it"
    )
    assert "\n" not in message
    assert not list(folder.glob("*.npz*"))


def test_without_torchvision_the_message_says_so(folder, monkeypatch):
    def missing():
        raise ModuleNotFoundError("No module named 'torchvision'")

    monkeypatch.setattr(_torchvision, "datasets", missing)
    with pytest.raises(FileNotFoundError, match="mnist: there is no .*No module named 'torchvision'.*put mnist.npz"):
        lrlib.mnist()


def test_a_data_folder_that_cannot_be_made_says_so(tmp_path, monkeypatch):
    (tmp_path / "file").touch()
    monkeypatch.setenv("LRLIB_DATA", str(tmp_path / "file" / "data"))
    with pytest.raises(FileNotFoundError, match="mnist: there is no .*set LRLIB_DATA") as caught:
        lrlib.mnist()
    assert isinstance(caught.value.__cause__, NotADirectoryError)


def test_a_half_unpacked_download_is_named(folder):
    write_idx(folder, "mnist", sets_of_pictures("mnist"))
    images = folder / "MNIST" / "raw" / "train-images-idx3-ubyte"
    images.write_bytes(images.read_bytes()[:-100])
    with pytest.raises(FileNotFoundError, match=f"could not get it .*: .* delete a damaged download from {folder}"):
        lrlib.mnist()
    assert not list(folder.glob("*.npz*"))


def test_labels_out_of_range_are_refused_before_they_are_kept(folder):
    arrays = sets_of_pictures("mnist")
    write_idx(folder, "mnist", arrays | {"y_test": arrays["y_test"] + 1})
    with pytest.raises(ValueError, match=r"MNIST: y_test: has numbers from 1 to 10"):
        lrlib.mnist()
    assert not list(folder.glob("*.npz*"))


def test_an_interrupted_save_leaves_nothing(folder, monkeypatch):
    def interrupted(file, **arrays):
        file.write(b"PK")
        raise KeyboardInterrupt

    monkeypatch.setattr(np, "savez", interrupted)
    write_idx(folder, "mnist", sets_of_pictures("mnist"))
    with pytest.raises(KeyboardInterrupt):
        lrlib.mnist()
    assert [path.name for path in folder.iterdir()] == ["MNIST"]


# torchvision

NEEDS_NMS = """
import torch
try:
    torch.ops.torchvision.nms
except AttributeError:
    raise RuntimeError("operator torchvision::nms does not exist")
"""


@pytest.fixture
def pretend(tmp_path):
    """What becomes of _torchvision.datasets() in a process whose torchvision is a package of this content."""
    package = tmp_path / "torchvision"
    package.mkdir()
    (package / "datasets.py").write_text("NAME = 'the pretended one'")

    def run(body):
        (package / "__init__.py").write_text(body)
        ask = "from lrlib import _torchvision; print(_torchvision.datasets().NAME)"
        path = os.pathsep.join([str(tmp_path), str(Path(lrlib.__file__).parents[1])])
        return subprocess.run(
            [sys.executable, "-c", ask], env=os.environ | {"PYTHONPATH": path}, capture_output=True, text=True
        )

    return run


@pytest.mark.parametrize("body", ["", NEEDS_NMS])
def test_missing_schemas_are_declared_and_the_import_repeated(pretend, body):
    assert pretend(body).stdout == "the pretended one\n"


@pytest.mark.parametrize("reason", ["operator torchvision::nms does not exist", "other"])
def test_a_torchvision_that_does_not_load_is_an_import_error(pretend, reason):
    assert f"ImportError: torchvision does not load: {reason}" in pretend(f"raise RuntimeError({reason!r})").stderr


def test_the_installed_torchvision_has_the_three_sets():
    assert {"MNIST", "FashionMNIST", "CIFAR10"} <= set(dir(_torchvision.datasets()))
