"""The data sets: splits, standardising, the derived digits, the .npz files, and batches. No network."""

import gzip
import hashlib
import pickle
import struct
import sys
import urllib.error
import urllib.request

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.nn import functional as F

import lrlib
from lrlib import _torchvision, datasets
from lrlib.datasets import Dataset, batches, digits, hard_digits, load

REAL = {"mnist": (28, 28), "fashion_mnist": (28, 28), "cifar10": (32, 32, 3)}
FOLDERS = {"mnist": "MNIST", "fashion_mnist": "FashionMNIST"}


def sets_of_pictures(name, n_train=30, n_test=20):
    rng = np.random.default_rng(0)
    arrays = {}
    for part, n in (("train", n_train), ("test", n_test)):
        arrays[f"x_{part}"] = rng.integers(0, 256, size=(n, *REAL[name]), dtype=np.uint8)
        arrays[f"y_{part}"] = np.arange(n) % 10
    return arrays


def raw(name, monkeypatch, **arguments):
    """The uint8 pictures and labels that a data set is made of."""
    with monkeypatch.context() as patch:
        patch.setattr(datasets, "_dataset", lambda name, arrays, sha256=None: arrays)
        return getattr(datasets, name)(**arguments)


# Dataset

X, Y = torch.zeros(3, 1, 2, 2), torch.tensor([0, 1, 2])


def a_dataset(**changes):
    return Dataset(**{"name": "d", "x_train": X, "y_train": Y, "x_test": X, "y_test": Y, "num_classes": 3} | changes)


@pytest.mark.parametrize(
    "changes, error, message",
    [
        ({"x_train": X.numpy()}, TypeError, "x_train: is a ndarray, must be a tensor"),
        ({"x_train": X.double()}, ValueError, "x_train: is torch.float64 .* must be torch.float32"),
        ({"x_test": X[0]}, ValueError, r"x_test: .* of shape \(1, 2, 2\), must be .* of shape \(N, C, H, W\)"),
        ({"x_test": X[:0], "y_test": Y[:0]}, ValueError, "x_test: .* and not empty"),
        ({"x_test": torch.zeros(3, 1, 2, 3)}, ValueError, r"x_test: .* of shape \(1, 2, 3\), must be \(1, 2, 2\)"),
        ({"y_train": Y.int()}, ValueError, "y_train: is torch.int32 .* must be torch.int64"),
        ({"y_train": Y[:2]}, ValueError, "y_train: has 2 labels, must have 3"),
        ({"y_test": Y + 1}, ValueError, r"y_test: has labels from 1 to 3, must be within \[0, 2\]"),
        ({"y_test": Y - 1}, ValueError, r"y_test: has labels from -1 to 1, must be within \[0, 2\]"),
        ({"num_classes": 1}, ValueError, "num_classes=1: must be an integer >= 2"),
    ],
)
def test_a_dataset_of_unfitting_parts_is_refused(changes, error, message):
    with pytest.raises(error, match=message):
        a_dataset(**changes)


def test_to_moves_the_four_tensors_and_keeps_the_rest(monkeypatch):
    data, asked = a_dataset(sha256="ab"), []
    monkeypatch.setattr(torch.Tensor, "to", lambda tensor, device: asked.append(device) or tensor.clone())
    moved = data.to("cuda")
    assert asked == ["cuda"] * 4
    assert all(torch.equal(getattr(moved, name), getattr(data, name)) for name in datasets.ARRAYS)
    assert (moved.name, moved.num_classes, moved.sha256) == ("d", 3, "ab")


def test_repr_is_short():
    assert repr(a_dataset()) == "Dataset('d', train 3, test 3, pictures 1x2x2, 3 classes)"


def test_standardised_by_the_training_pictures_alone():
    arrays = sets_of_pictures("cifar10")
    arrays["x_train"][..., 2] = 9  # a channel without variance
    data = datasets._dataset("d", arrays)
    mean = arrays["x_train"].mean((0, 1, 2), dtype=np.float64)
    std = arrays["x_train"].std((0, 1, 2), dtype=np.float64)
    std[2] = 1.0
    for part in ("train", "test"):
        expected = ((arrays[f"x_{part}"] - mean) / std).transpose(0, 3, 1, 2)
        np.testing.assert_allclose(getattr(data, f"x_{part}").numpy(), expected, rtol=1e-5, atol=1e-5)
    assert data.x_train.is_contiguous() and not data.x_train[:, 2].any()


# Digits


def test_digits_are_all_there_once_and_in_proportion(monkeypatch):
    arrays = raw("digits", monkeypatch, seed=3)
    everything, labels = datasets._all_digits()
    together = np.concatenate([arrays["x_train"], arrays["x_test"]])
    assert (len(arrays["x_train"]), len(arrays["x_test"])) == (1297, 500)
    assert sorted(map(bytes, together)) == sorted(map(bytes, everything))
    share = np.bincount(labels) / len(labels)
    assert np.abs(np.bincount(arrays["y_test"]) - 500 * share).max() <= 1
    assert np.abs(np.bincount(arrays["y_train"]) - 1297 * share).max() <= 1


@pytest.mark.parametrize("make", [digits, hard_digits])
def test_the_seed_fixes_the_set_and_changes_it(make):
    a, b, c = make(seed=1), make(seed=1), make(seed=2)
    assert all(torch.equal(getattr(a, name), getattr(b, name)) for name in datasets.ARRAYS)
    assert not torch.equal(a.x_train, c.x_train) and not torch.equal(a.x_test, c.x_test)


def test_the_caller_may_write_into_a_set():
    digits().x_train.zero_()
    assert digits().x_train.any()


@pytest.mark.parametrize("make", [digits, hard_digits])
@pytest.mark.parametrize("seed, error", [(-1, ValueError), (2**32, ValueError), (0.5, TypeError), (True, TypeError)])
def test_bad_seeds_are_named(make, seed, error):
    with pytest.raises(error, match=f"seed={seed!r}: must be"):
        make(seed=seed)


@pytest.mark.parametrize("name", ["n_train", "n_test"])
def test_bad_sizes_are_named(name):
    with pytest.raises(ValueError, match=f"{name}=0: must be an integer >= 1"):
        hard_digits(**{name: 0})


# Hard digits


@pytest.mark.parametrize("altered, kept", [("test", "train"), ("train", "test")])
def test_pictures_come_from_their_own_part_of_the_digits(monkeypatch, altered, kept):
    before = raw("hard_digits", monkeypatch, n_train=500, n_test=500)
    split = datasets._split_digits

    def with_noise(seed):
        plain = split(seed)
        noise = np.random.default_rng(9).integers(0, 17, plain[f"x_{altered}"].shape)
        return plain | {f"x_{altered}": noise.astype(np.uint8)}

    monkeypatch.setattr(datasets, "_split_digits", with_noise)
    after = raw("hard_digits", monkeypatch, n_train=500, n_test=500)
    assert np.array_equal(before[f"x_{kept}"], after[f"x_{kept}"])
    assert not np.array_equal(before[f"x_{altered}"], after[f"x_{altered}"])


def test_the_number_of_test_pictures_leaves_the_training_pictures_alone(monkeypatch):
    a, b = (raw("hard_digits", monkeypatch, n_test=n) for n in (10, 1000))
    assert np.array_equal(a["x_train"], b["x_train"])


def test_each_digit_is_used_equally_often_and_lies_where_it_should(monkeypatch):
    monkeypatch.setattr(datasets, "NOISE", 0)
    monkeypatch.setattr(datasets, "FRAGMENTS", 0)
    monkeypatch.setattr(datasets, "CONTRAST", (5, 5))
    x = np.zeros((7, 8, 8), dtype=np.uint8)
    x[:, 0, 0] = np.arange(1, 8)
    made, labels = datasets._harden(x, np.arange(7), 700, np.random.default_rng(0))
    assert np.bincount(labels).tolist() == [100] * 7
    n, rows, columns = np.nonzero(made != 64)
    assert n.tolist() == list(range(700))
    assert np.array_equal(made[n, rows, columns], 64 + 5 * (labels + 1))
    assert np.unique(rows).tolist() == np.unique(columns).tolist() == [2, 3, 4, 5, 6]


def test_fragments_are_of_other_digits_at_half_brightness(monkeypatch):
    monkeypatch.setattr(datasets, "NOISE", 0)
    monkeypatch.setattr(datasets, "CONTRAST", (1, 1))
    x = np.stack([np.full((8, 8), 4), np.full((8, 8), 16)]).astype(np.uint8)
    made, labels = datasets._harden(x, np.arange(2), 200, np.random.default_rng(0))
    for picture, label in zip(made, labels, strict=True):
        assert set(np.unique(picture) - 64) <= ({0, 4, 8} if label == 0 else {0, 2, 16})


def test_pictures_use_the_scale_without_leaving_it(monkeypatch):
    x = raw("hard_digits", monkeypatch)["x_train"]
    assert x.shape == (4000, 16, 16) and x.dtype == np.uint8
    assert x.min() >= 64 - 22 and 180 < x.max() <= 64 + 16 * 8 + 22


def test_hard_digits_are_the_same_everywhere(monkeypatch):
    arrays = raw("hard_digits", monkeypatch)
    digest = hashlib.sha256(b"".join(arrays[name].tobytes() for name in datasets.ARRAYS))
    assert digest.hexdigest()[:16] == "34b23723ac3adf54"


def accuracy_after_300_steps(model, data, lr):
    optimizer = torch.optim.SGD(model.parameters(), lr=lr, momentum=0.9)
    scheduler = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, 300)
    for rows in batches(len(data.x_train), 64, 300, seed=0):
        optimizer.zero_grad()
        F.cross_entropy(model(data.x_train[rows]), data.y_train[rows]).backward()
        optimizer.step()
        scheduler.step()
    model.eval()
    with torch.no_grad():
        return (model(data.x_test).argmax(1) == data.y_test).float().mean().item()


def test_generalisation_differs_visibly():
    data = hard_digits()
    with lrlib.seeded(0):
        dense, convolutional = lrlib.mlp(256, 64, 10), lrlib.conv_net(8)
    assert 0.5 < accuracy_after_300_steps(dense, data, 0.05) < 0.7
    assert 0.78 < accuracy_after_300_steps(convolutional, data, 0.2) < 0.92


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


def test_the_data_folder(monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("LRLIB_DATA", raising=False)
    assert datasets.data_folder() == tmp_path / ".cache" / "lrlib"
    monkeypatch.setenv("LRLIB_DATA", "")
    assert datasets.data_folder() == tmp_path / ".cache" / "lrlib"
    monkeypatch.setenv("LRLIB_DATA", "~/pictures")
    assert datasets.data_folder() == tmp_path / "pictures"


@pytest.mark.parametrize("name", REAL)
@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_a_file_already_there_is_used_as_is(folder, monkeypatch, name, save):
    monkeypatch.setattr(_torchvision, "datasets", lambda: pytest.fail("torchvision is not needed"))
    arrays = sets_of_pictures(name)
    path = folder / f"{name}.npz"
    save(path, **arrays)
    content = path.read_bytes()
    data = load(name)
    assert data.sha256 == hashlib.sha256(content).hexdigest() and path.read_bytes() == content
    assert data.name == name and data.num_classes == 10
    assert data.x_train.shape == ((30, 3, 32, 32) if name == "cifar10" else (30, 1, 28, 28))
    assert data.y_test.tolist() == arrays["y_test"].tolist()
    assert np.array_equal(raw(name, monkeypatch)["x_test"], arrays["x_test"])


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
        (lambda a: a | {"x_train": a["x_train"] / 255}, r"x_train is float64 of shape .* must be uint8"),
        (lambda a: a | {"x_test": a["x_test"].reshape(-1, 784)}, r"x_test is .* must be uint8 of shape \(N, 28, 28\)"),
        (lambda a: a | {"x_test": np.uint8(3)}, r"x_test is uint8 of shape \(\), must be"),
        (lambda a: a | {"x_train": a["x_train"][:0]}, "x_train is .* and not empty"),
        (lambda a: a | {"y_train": a["y_train"].astype(np.uint8)}, r"y_train is uint8 of shape \(30,\), must be int64"),
        (lambda a: a | {"y_train": a["y_train"][:, None]}, r"y_train is .* must be int64 of shape \(N,\)"),
        (lambda a: a | {"y_train": a["y_train"][:-1]}, "y_train has 29 labels, must have 30"),
        (lambda a: a | {"y_test": a["y_test"] + 1}, r"y_test has labels from 1 to 10, must be within \[0, 9\]"),
        (lambda a: a | {"y_test": a["y_test"] - 1}, r"y_test has labels from -1 to 8, must be within \[0, 9\]"),
        (pickled, "is damaged .*allow_pickle=False"),
    ],
)
def test_a_file_of_something_else_is_named(folder, change, message):
    path = folder / "mnist.npz"
    np.savez(path, **change(sets_of_pictures("mnist")))
    with pytest.raises(ValueError, match=f"{path}: {message}") as caught:
        load("mnist")
    assert "\n" not in str(caught.value)


def flip_a_byte(content):
    middle = len(content) // 3
    return content[:middle] + bytes([content[middle] ^ 255]) + content[middle + 1 :]


@pytest.mark.parametrize(
    "damage, message",
    [
        (lambda content: b"", "is truncated or no .npz file"),
        (lambda content: b"<html>Not found</html>", "is truncated or no .npz file"),
        (lambda content: content[: len(content) // 2], "is truncated or no .npz file"),
        (lambda content: content[:-10], "is truncated or no .npz file"),
        (flip_a_byte, "is damaged .*: delete it or put a whole one there"),
    ],
)
@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_a_damaged_file_is_named_and_left_alone(folder, damage, message, save):
    path = folder / "mnist.npz"
    save(path, **sets_of_pictures("mnist"))
    damaged = damage(path.read_bytes())
    path.write_bytes(damaged)
    with pytest.raises(ValueError, match=f"{path}: {message}"):
        load("mnist")
    assert path.read_bytes() == damaged


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
    data = load(name)
    path = folder / f"{name}.npz"
    with np.load(path, allow_pickle=False) as kept:
        assert set(kept.files) == set(arrays)
        for key, array in arrays.items():
            assert kept[key].dtype == (np.uint8 if key.startswith("x") else np.int64)
            assert np.array_equal(kept[key], array)
    assert data.sha256 == hashlib.sha256(path.read_bytes()).hexdigest()
    assert not list(folder.glob("*.part"))
    monkeypatch.setattr(_torchvision, "datasets", lambda: pytest.fail("decoded twice"))
    assert load(name).sha256 == data.sha256


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
    assert np.array_equal(raw("mnist", monkeypatch)["x_train"], arrays["x_train"])


@pytest.mark.parametrize("name", REAL)
def test_offline_and_absent_says_what_to_do_in_one_line(folder, name):
    with pytest.raises(FileNotFoundError) as caught:
        load(name)
    message = str(caught.value)
    assert message.startswith(f"{name}: there is no {folder / name}.npz, and torchvision could not get it (")
    assert "no network" in message
    assert message.endswith(
        f"connect to a network, or put {name}.npz into {folder}, or set LRLIB_DATA to the folder that holds it"
    )
    assert "\n" not in message
    assert not list(folder.glob("*.npz*"))


def test_without_torchvision_the_message_says_so(folder, monkeypatch):
    def missing():
        raise ModuleNotFoundError("No module named 'torchvision'")

    monkeypatch.setattr(_torchvision, "datasets", missing)
    with pytest.raises(FileNotFoundError, match="mnist: there is no .*No module named 'torchvision'.*put mnist.npz"):
        load("mnist")


def test_a_data_folder_that_cannot_be_made_says_so(tmp_path, monkeypatch):
    (tmp_path / "file").touch()
    monkeypatch.setenv("LRLIB_DATA", str(tmp_path / "file" / "data"))
    with pytest.raises(FileNotFoundError, match="mnist: there is no .*set LRLIB_DATA") as caught:
        load("mnist")
    assert isinstance(caught.value.__cause__, NotADirectoryError)


def test_a_half_unpacked_download_is_named(folder):
    write_idx(folder, "mnist", sets_of_pictures("mnist"))
    images = folder / "MNIST" / "raw" / "train-images-idx3-ubyte"
    images.write_bytes(images.read_bytes()[:-100])
    with pytest.raises(ValueError, match=f"{folder / 'MNIST'}: is damaged .*: delete it and run again"):
        load("mnist")
    assert not list(folder.glob("*.npz*"))


def test_labels_out_of_range_are_refused_before_they_are_kept(folder):
    arrays = sets_of_pictures("mnist")
    write_idx(folder, "mnist", arrays | {"y_test": arrays["y_test"] + 1})
    with pytest.raises(ValueError, match=r"MNIST: y_test has labels from 1 to 10"):
        load("mnist")
    assert not list(folder.glob("*.npz*"))


def test_an_interrupted_save_leaves_nothing(folder, monkeypatch):
    def interrupted(file, **arrays):
        file.write(b"PK")
        raise KeyboardInterrupt

    monkeypatch.setattr(np, "savez", interrupted)
    write_idx(folder, "mnist", sets_of_pictures("mnist"))
    with pytest.raises(KeyboardInterrupt):
        load("mnist")
    assert [path.name for path in folder.iterdir()] == ["MNIST"]


def test_load_names_the_sets():
    with pytest.raises(ValueError, match="name='imagenet': must be one of 'digits', 'hard_digits', 'mnist'"):
        load("imagenet")


# torchvision


def fake_torchvision(tmp_path, monkeypatch, body):
    """A package of that name, first on the path, and nothing imported of the true one."""
    package = tmp_path / "torchvision"
    package.mkdir()
    (package / "__init__.py").write_text(body)
    (package / "datasets.py").touch()
    monkeypatch.syspath_prepend(str(tmp_path))
    for name in [name for name in sys.modules if name.split(".")[0] == "torchvision"]:
        monkeypatch.delitem(sys.modules, name)
    declared = []
    monkeypatch.setattr(_torchvision, "_libraries", declared)
    monkeypatch.setattr(_torchvision, "_declare_missing", lambda: declared.append("schemas"))
    yield declared
    for name in ("torchvision", "torchvision.datasets"):
        sys.modules.pop(name, None)


@pytest.fixture
def pretend(tmp_path, monkeypatch):
    running = []

    def start(body):
        running.append(fake_torchvision(tmp_path, monkeypatch, body))
        return next(running[-1])

    yield start
    for fake in running:
        next(fake, None)


def test_a_torchvision_that_imports_is_left_alone(pretend, tmp_path):
    declared = pretend("")
    assert _torchvision.datasets().__file__ == str(tmp_path / "torchvision" / "datasets.py")
    assert declared == []


def test_missing_schemas_are_declared_and_the_import_repeated(pretend):
    declared = pretend(
        "from lrlib import _torchvision\n"
        "if not _torchvision._libraries:\n"
        "    raise RuntimeError('operator torchvision::nms does not exist')\n"
    )
    assert _torchvision.datasets().__name__ == "torchvision.datasets"
    assert declared == ["schemas"]


@pytest.mark.parametrize("reason, declarations", [("operator torchvision::nms does not exist", 1), ("other", 0)])
def test_a_torchvision_that_does_not_load_is_an_import_error(pretend, reason, declarations):
    declared = pretend(f"raise RuntimeError({reason!r})")
    with pytest.raises(ImportError, match=f"torchvision does not load: {reason}"):
        _torchvision.datasets()
    assert len(declared) == declarations


def test_the_installed_torchvision_has_the_three_sets():
    assert {"MNIST", "FashionMNIST", "CIFAR10"} <= set(dir(_torchvision.datasets()))


# Batches

SIZES = st.integers(1, 40).flatmap(lambda n: st.tuples(st.just(n), st.integers(1, n)))


@given(SIZES, st.integers(0, 30), st.integers(0, 2**63 - 1))
def test_an_epoch_visits_no_example_twice(sizes, steps, seed):
    n, size = sizes
    rows = list(batches(n, size, steps, seed))
    assert len(rows) == steps
    assert all(row.shape == (size,) and row.dtype == torch.int64 for row in rows)
    per_epoch = n // size
    for start in range(0, steps, per_epoch):
        epoch = torch.cat(rows[start : start + per_epoch])
        assert len(epoch.unique()) == len(epoch) and 0 <= epoch.min() and epoch.max() < n


@given(SIZES, st.integers(1, 20), st.integers(0, 20), st.integers(0, 1000))
def test_a_longer_run_begins_like_a_shorter_one(sizes, steps, more, seed):
    short, long = list(batches(*sizes, steps, seed)), list(batches(*sizes, steps + more, seed))
    assert all(torch.equal(a, b) for a, b in zip(short, long, strict=False))


def test_the_order_depends_on_the_seed_alone():
    first = list(batches(100, 10, 25, seed=5))
    torch.manual_seed(123)
    state = torch.get_rng_state()
    second = []
    for rows in batches(100, 10, 25, seed=5):
        second.append(rows)
    assert torch.equal(torch.get_rng_state(), state)
    assert torch.equal(torch.stack(first), torch.stack(second))
    assert not torch.equal(torch.stack(first), torch.stack(list(batches(100, 10, 25, seed=6))))
    assert not torch.equal(torch.cat(first[:10]), torch.cat(first[10:20]))


@pytest.mark.parametrize(
    "arguments, error, message",
    [
        ((0, 1, 1, 0), ValueError, "num_examples=0: must be an integer >= 1"),
        ((10, 0, 1, 0), ValueError, "batch_size=0: must be an integer >= 1"),
        ((10, 11, 1, 0), ValueError, "batch_size=11: must be <= num_examples=10"),
        ((10, 2.0, 1, 0), TypeError, "batch_size=2.0: must be an integer"),
        ((10, 1, -1, 0), ValueError, "steps=-1: must be an integer >= 0"),
        ((10, 1, 1, -1), ValueError, "seed=-1: must be an integer >= 0"),
        ((10, 1, 1, 2**63), ValueError, r"seed=9223372036854775808: must be in \[0, "),
    ],
)
def test_bad_batches_are_refused_when_asked_for(arguments, error, message):
    with pytest.raises(error, match=message):
        batches(*arguments)


def test_relabelled_draws_a_share_of_the_training_labels():
    data = lrlib.digits()
    for fraction in (0.0, 0.4, 1.0):
        noisy = lrlib.relabelled(data, fraction, seed=3)
        wrong = (noisy.y_train != data.y_train).double().mean().item()
        assert wrong == pytest.approx(0.9 * fraction, abs=0.04)  # 3 standard deviations of 1,297 draws
        assert torch.equal(noisy.y_test, data.y_test) and torch.equal(noisy.x_train, data.x_train)
    again = lrlib.relabelled(data, 0.4, seed=3)
    assert torch.equal(again.y_train, lrlib.relabelled(data, 0.4, seed=3).y_train)
    assert not torch.equal(again.y_train, lrlib.relabelled(data, 0.4, seed=4).y_train)


def test_hold_out_splits_the_training_set_and_keeps_the_test_set():
    data = lrlib.digits()
    final, valid = lrlib.hold_out(data, 0.25, seed=2)
    assert len(valid.x_test) == 324 and len(final.x_train) == 1297 - 324
    assert torch.equal(final.x_test, data.x_test) and torch.equal(final.x_train, valid.x_train)
    together = torch.cat([final.x_train, valid.x_test]).flatten(1).sum(1).sort().values
    assert torch.equal(together, data.x_train.flatten(1).sum(1).sort().values)
    assert len(set(map(bytes, torch.cat([final.x_train, valid.x_test]).numpy()))) == 1297
    pairs = {bytes(x): y for x, y in zip(data.x_train.numpy(), data.y_train.tolist(), strict=True)}
    for part in ((final.x_train, final.y_train), (valid.x_test, valid.y_test)):
        assert all(pairs[bytes(x)] == y for x, y in zip(part[0].numpy(), part[1].tolist(), strict=True))


@pytest.mark.parametrize(
    ("call", "named"),
    [
        (lambda data: lrlib.relabelled(data, 1.5), "fraction=1.5"),
        (lambda data: lrlib.relabelled(data, 0.5, seed=-1), "seed=-1"),
        (lambda data: lrlib.hold_out(data, 0.0), "fraction=0.0"),
        (lambda data: lrlib.hold_out(data, 1.0), "fraction=1.0"),
        (lambda data: lrlib.hold_out(data, 0.5, seed=-1), "seed=-1"),
    ],
)
def test_relabelled_and_hold_out_refuse(call, named):
    with pytest.raises(ValueError, match=named):
        call(lrlib.digits())
