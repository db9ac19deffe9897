"""Where the example data comes from: scikit-learn's bundled digits, `.npz` files, and two verified downloads.

References:
    E. Alpaydin and C. Kaynak, *Optical Recognition of Handwritten Digits*, UCI, 1998 (bundled with scikit-learn).
    Y. LeCun, L. Bottou, Y. Bengio, P. Haffner, *Gradient-based learning applied to document recognition*, 1998 (MNIST).
    A. Krizhevsky, *Learning multiple layers of features from tiny images*, 2009 (CIFAR-10).
"""

import os
import tarfile
from pathlib import Path
from typing import NamedTuple

import numpy as np

from annealsubnet.examples.archives import read_archive
from annealsubnet.examples.download import cache_folder, fetch

MNIST_URL = "https://storage.googleapis.com/tensorflow/tf-keras-datasets/mnist.npz"
MNIST_SHA256 = "731c5ac602752760c8e48fbffcf8c3b850d9dc2a2aedcf2cc48468fc17b673d1"
CIFAR10_URL = "https://www.cs.toronto.edu/~kriz/cifar-10-binary.tar.gz"
CIFAR10_SHA256 = "c4a38c50a1bc5f3a1c5537f2155ab9d68f9f25eb1ed8d9ddda3db29a59bca1dd"


class Arrays(NamedTuple):
    """The four arrays of a data file; labels are int32."""

    x_train: np.ndarray
    y_train: np.ndarray
    x_test: np.ndarray
    y_test: np.ndarray


def digits() -> tuple[np.ndarray, np.ndarray]:
    """The 1,797 digits of scikit-learn: float32 images [1797, 8, 8, 1] from 0 to 16, and their labels."""
    from sklearn.datasets import load_digits

    bunch = load_digits()
    return bunch.images[..., None].astype(np.float32), bunch.target.astype(np.int32)


def mnist() -> Arrays:
    """MNIST, 60,000 and 10,000 uint8 images of (28, 28, 1)."""
    path = _stored("mnist.npz")
    if path is None:
        path = fetch(MNIST_URL, cache_folder() / "mnist.npz", sha256=MNIST_SHA256, advice=_advice("mnist.npz"))
    arrays = read_npz(path)
    return arrays._replace(x_train=_with_channel(arrays.x_train), x_test=_with_channel(arrays.x_test))


def cifar10() -> Arrays:
    """CIFAR-10, 10,000 test and up to 50,000 training images, uint8 of (32, 32, 3)."""
    path = _stored("cifar10.npz")
    if path is not None:
        return read_npz(path)
    target = cache_folder() / "cifar-10-binary.tar.gz"
    if not target.exists():
        fetch(CIFAR10_URL, target, sha256=CIFAR10_SHA256, advice=_advice("cifar10.npz"))
    return read_cifar_archive(target)


def read_cifar_archive(path: Path) -> Arrays:
    """The arrays in CIFAR-10's binary archive: records of one label byte and 3 × 32 × 32 color bytes."""

    def records(archive: tarfile.TarFile, name: str) -> tuple[np.ndarray, np.ndarray]:
        member = archive.extractfile(f"cifar-10-batches-bin/{name}.bin")
        if member is None:
            raise ValueError(f"{path} has no file {name}.bin; delete it to download it again.")
        rows = np.frombuffer(member.read(), np.uint8).reshape(-1, 1 + 3 * 32 * 32)
        return rows[:, 1:].reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1), rows[:, 0].astype(np.int32)

    with tarfile.open(path) as archive:
        train = [records(archive, f"data_batch_{number}") for number in range(1, 6)]
        x_test, y_test = records(archive, "test_batch")
    return Arrays(np.concatenate([x for x, _ in train]), np.concatenate([y for _, y in train]), x_test, y_test)


def read_npz(path: Path) -> Arrays:
    """The four arrays of a `.npz` file, checked.

    Raises:
        FileNotFoundError: when there is no such file.
        ValueError: when it cannot be read, or an array is missing, of the wrong kind, or does not match its partner.
    """
    if not path.is_file():
        raise FileNotFoundError(f"There is no data file {path}; give the path of a .npz file.")
    try:
        return _checked(Arrays(**read_archive(path, Arrays._fields)))
    except (ValueError, OSError) as error:
        raise ValueError(
            f"Cannot use {path}: {error}. Give a .npz file with numeric x_train, x_test and integer y_train, y_test."
        ) from error


def _checked(arrays: Arrays) -> Arrays:
    """The arrays with int32 labels, once they are found to fit together."""
    for part in ("train", "test"):
        inputs, labels = getattr(arrays, f"x_{part}"), getattr(arrays, f"y_{part}")
        if inputs.ndim < 2 or inputs.dtype.kind not in "fiub":
            raise ValueError(f"x_{part} is {inputs.dtype} of shape {inputs.shape}, not numbers [examples, ...]")
        if labels.shape != inputs.shape[:1] or labels.dtype.kind not in "iu":
            raise ValueError(
                f"y_{part} is {labels.dtype} of shape {labels.shape}, not an integer for each of {len(inputs)} inputs"
            )
        if len(labels) == 0:
            raise ValueError(f"x_{part} has no examples")
        if labels.min() < 0 or labels.max() > np.iinfo(np.int32).max:
            raise ValueError(f"y_{part} runs from {labels.min()} to {labels.max()}; labels start at 0")
        if inputs.dtype.kind == "f" and not np.isfinite(inputs).all():
            raise ValueError(f"x_{part} has NaN or infinite values")
    if arrays.x_train.shape[1:] != arrays.x_test.shape[1:]:
        raise ValueError(f"x_train has examples of shape {arrays.x_train.shape[1:]}, x_test {arrays.x_test.shape[1:]}")
    return arrays._replace(y_train=arrays.y_train.astype(np.int32), y_test=arrays.y_test.astype(np.int32))


def _stored(file: str) -> Path | None:
    """The file in the folder of ANNEALSUBNET_DATA or in the cache; None when neither has it."""
    named = os.environ.get("ANNEALSUBNET_DATA")
    folders = [*([Path(named)] if named else []), cache_folder()]
    return next((folder / file for folder in folders if (folder / file).is_file()), None)


def _advice(file: str) -> str:
    return f"Put {file} into a folder and name that folder in the environment variable ANNEALSUBNET_DATA, or use digits."


def _with_channel(images: np.ndarray) -> np.ndarray:
    return images[..., None] if images.ndim == 3 else images
