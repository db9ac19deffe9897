"""Example data: every example in exactly one part, the same for the same seed, and one clear sentence for a bad file."""

import hashlib
import io
import os
import tarfile
from pathlib import Path

import numpy as np
import pytest

from annealsubnet.examples import Batches, load
from annealsubnet.examples.download import fetch
from annealsubnet.examples.sources import read_cifar_archive


def arrays(**changes: np.ndarray) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(0)
    made = {
        "x_train": rng.normal(size=(200, 3)),
        "y_train": rng.integers(4, size=200),
        "x_test": rng.normal(size=(20, 3)),
        "y_test": rng.integers(4, size=20),
    }
    return {name: array for name, array in (made | changes).items() if array is not None}


def saved(folder: Path, **changes: np.ndarray) -> Path:
    path = folder / "mine.npz"
    np.savez(path, **arrays(**changes))
    return path


def test_digits_parts_share_no_example_and_miss_none():
    from sklearn.datasets import load_digits

    data = load("digits", seed=3)
    parts = [data.train, data.validation, data.test]
    rows = np.concatenate([part.inputs.reshape(-1, 64) for part in parts])
    labels = np.concatenate([part.labels for part in parts])
    given = load_digits()
    expected = np.c_[given.data, given.target]
    assert np.array_equal(np.unique(np.c_[rows, labels], axis=0), np.unique(expected, axis=0))
    assert len(rows) == len(expected)


def test_each_class_has_the_same_share_in_every_part():
    data = load("digits", seed=0)
    counts = np.array([np.bincount(part.labels) for part in (data.train, data.validation, data.test)])
    shares = counts / counts.sum(axis=0)
    assert np.abs(shares - [[0.6], [0.2], [0.2]]).max() < 0.02


def test_seed_draws_the_parts():
    first, again, other = load("digits", seed=1), load("digits", seed=1), load("digits", seed=2)
    assert np.array_equal(first.test.inputs, again.test.inputs)
    assert not np.array_equal(first.test.labels, other.test.labels)


def test_batches_can_be_read_again_and_hold_every_example_in_order():
    data = load("digits", seed=0)
    batches = data.batches("train", 100, normalize=lambda x: x / 16)
    first, second = list(batches), list(batches)
    assert len(batches) == len(first) == 11
    assert all(np.array_equal(a[0], b[0]) and np.array_equal(a[1], b[1]) for a, b in zip(first, second, strict=True))
    assert np.array_equal(np.concatenate([x for x, _ in first]), data.train.inputs / 16)
    assert data.batches("train", 100, examples=150).examples == 150


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda data: data.batches("training", 10), "no part 'training'"),
        (lambda data: data.batches("train", 0), "size=0"),
        (lambda data: data.batches("test", 10, examples=400), "it has 359"),
        (lambda data: Batches(np.zeros((0, 2)), np.zeros(0), 1), "no examples"),
        (lambda data: Batches(np.zeros((3, 2)), np.zeros(2), 1), "3 inputs but 2 labels"),
    ],
)
def test_bad_batches_are_refused(call, message):
    with pytest.raises(ValueError, match=message):
        call(load("digits", seed=0))


def test_a_file_of_your_own(tmp_path):
    path = saved(tmp_path)
    data = load(path, seed=0)
    assert data.input_shape == (3,) and data.num_classes == 4
    assert (len(data.train.labels), len(data.validation.labels), len(data.test.labels)) == (180, 20, 20)
    assert data.train.labels.dtype == np.int32
    assert np.array_equal(data.test.inputs, np.load(path)["x_test"])


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"y_test": None}, r"not \['y_test'\]"),
        ({"y_train": np.zeros(199, int)}, r"y_train is int64 of shape \(199,\)"),
        ({"y_train": np.zeros(200)}, "y_train is float64"),
        ({"y_test": np.full(20, -1)}, "y_test runs from -1"),
        ({"x_train": np.full((200, 3), np.nan)}, "x_train has NaN"),
        ({"x_train": np.full((200, 3), "a")}, "x_train is <U1"),
        ({"x_test": np.zeros((20, 2))}, r"x_test \(2,\)"),
        ({"x_test": np.zeros((0, 3)), "y_test": np.zeros(0, int)}, "x_test has no examples"),
    ],
)
def test_a_bad_file_is_refused_by_name(tmp_path, changes, message):
    with pytest.raises(ValueError, match=message) as caught:
        load(saved(tmp_path, **changes), seed=0)
    assert "mine.npz" in str(caught.value)


def test_a_truncated_file_is_refused(tmp_path):
    path = saved(tmp_path)
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(ValueError, match=r"mine\.npz"):
        load(path, seed=0)


def test_missing_files_and_names_are_refused(tmp_path):
    with pytest.raises(FileNotFoundError, match="no data file"):
        load(tmp_path / "absent.npz", seed=0)
    with pytest.raises(ValueError, match="digits, mnist, cifar10"):
        load("fashion", seed=0)


def test_mnist_is_read_from_the_named_folder_and_then_from_the_cache(tmp_path, monkeypatch):
    images = {"x_train": np.arange(200 * 4, dtype=np.uint8).reshape(200, 2, 2), "x_test": np.ones((20, 2, 2), np.uint8)}
    saved(tmp_path, **images).rename(tmp_path / "mnist.npz")
    monkeypatch.setenv("ANNEALSUBNET_DATA", str(tmp_path))
    named = load("mnist", seed=0)
    assert named.input_shape == (2, 2, 1) and named.train.inputs.dtype == np.uint8
    (tmp_path / "annealsubnet").mkdir()
    (tmp_path / "mnist.npz").rename(tmp_path / "annealsubnet" / "mnist.npz")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert np.array_equal(load("mnist", seed=0).train.inputs, named.train.inputs)


def test_a_download_is_verified_or_not_there(tmp_path):
    source, target = tmp_path / "source", tmp_path / "cache" / "target"
    source.write_bytes(os.urandom(3 << 20))
    digest = hashlib.sha256(source.read_bytes()).hexdigest()
    with pytest.raises(OSError, match=r"expected 0123.* Use digits"):
        fetch(source.as_uri(), target, sha256="0123", advice="Use digits.")
    assert list(target.parent.iterdir()) == []
    with pytest.raises(OSError, match="Could not download"):
        fetch((tmp_path / "absent").as_uri(), target, sha256=digest)
    assert list(target.parent.iterdir()) == []
    assert fetch(source.as_uri(), target, sha256=digest).read_bytes() == source.read_bytes()


def test_cifar_archive_is_read_in_its_order(tmp_path):
    rng = np.random.default_rng(0)
    images = rng.integers(256, size=(6, 2, 32, 32, 3), dtype=np.uint8)
    labels = rng.integers(10, size=(6, 2), dtype=np.uint8)
    path = tmp_path / "archive.tar.gz"
    names = [*(f"data_batch_{number}" for number in range(1, 6)), "test_batch"]
    with tarfile.open(path, "w:gz") as archive:
        for name, image, label in zip(names, images, labels, strict=True):
            content = np.c_[label, image.transpose(0, 3, 1, 2).reshape(2, -1)].tobytes()
            entry = tarfile.TarInfo(f"cifar-10-batches-bin/{name}.bin")
            entry.size = len(content)
            archive.addfile(entry, io.BytesIO(content))
    read = read_cifar_archive(path)
    assert np.array_equal(read.x_train, images[:5].reshape(10, 32, 32, 3))
    assert np.array_equal(read.y_train, labels[:5].reshape(10))
    assert np.array_equal(read.x_test, images[5]) and np.array_equal(read.y_test, labels[5])


@pytest.mark.data
def test_the_real_sets_have_their_published_sizes():
    mnist, cifar = load("mnist", seed=0), load("cifar10", seed=0)
    assert (len(mnist.train.labels), len(mnist.validation.labels), len(mnist.test.labels)) == (55000, 5000, 10000)
    assert cifar.input_shape == (32, 32, 3) and len(cifar.test.labels) == 10000
