"""Example data by name: `digits` (bundled with scikit-learn), `mnist`, `cifar10`, or a file of your own.

A data set has three parts. `train` is what a network is trained on and statistics are taken from; `validation` is held
out of the training examples for every choice that a method makes; `test` is looked at once, for the final figures.
Inputs stay raw (uint8 for images); what a network wants done to them is the network's own `normalize`.

A file of your own is a `.npz` with `x_train` [examples, ...], `y_train` [examples], `x_test` and `y_test`: numeric
inputs and integer labels from 0.
"""

import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np

from annealsubnet.examples import sources

NAMES = ("digits", "mnist", "cifar10")


def unchanged(inputs: np.ndarray) -> np.ndarray:
    """The inputs as float32, otherwise as they are."""
    return np.asarray(inputs, np.float32)


@dataclass(frozen=True, repr=False)
class Batches:
    """Examples in batches of `size`, in their order, each passed through `normalize` when it is read.

    They can be iterated again and again, for statistics may need several passes.

    Args:
        inputs: examples along the first axis, raw (an image set stays uint8 in memory).
        labels: an int32 label for each example.
        size: examples in a batch.
        normalize: from a raw batch to what the network takes, float32.

    Raises:
        ValueError: when there are no examples, their labels do not match in number, or `size` is not positive.

    Example:
        >>> import numpy as np
        >>> batches = Batches(np.zeros((5, 3)), np.zeros(5, np.int32), size=2)
        >>> len(batches), [inputs.shape for inputs, labels in batches]
        (3, [(2, 3), (2, 3), (1, 3)])
    """

    inputs: np.ndarray
    labels: np.ndarray
    size: int
    normalize: Callable[[np.ndarray], np.ndarray] = unchanged

    def __post_init__(self) -> None:
        if len(self.inputs) == 0:
            raise ValueError("Batches got no examples; give at least one.")
        if len(self.inputs) != len(self.labels):
            raise ValueError(f"Batches got {len(self.inputs)} inputs but {len(self.labels)} labels; give one each.")
        if self.size < 1:
            raise ValueError(f"Batches got size={self.size}; a batch has at least one example.")

    @property
    def examples(self) -> int:
        """How many examples one pass reads."""
        return len(self.inputs)

    def __len__(self) -> int:
        return -(-len(self.inputs) // self.size)

    def __iter__(self) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        for start in range(0, len(self.inputs), self.size):
            piece = slice(start, start + self.size)
            yield self.normalize(self.inputs[piece]), self.labels[piece]

    def __repr__(self) -> str:
        return f"Batches({len(self)} of {self.size}: {self.examples} examples of shape {self.inputs.shape[1:]})"


class Split(NamedTuple):
    """One part of a data set: raw `inputs` along the first axis and an int32 label for each."""

    inputs: np.ndarray
    labels: np.ndarray


@dataclass(frozen=True, repr=False)
class Data:
    """A classification data set in three parts.

    Attributes:
        name: what it was loaded by.
        train: what networks are trained on, and statistics taken from.
        validation: held out of the training examples, for choices.
        test: for the final figures only.
        num_classes: labels run from 0 to one less than this.
    """

    name: str
    train: Split
    validation: Split
    test: Split
    num_classes: int

    @property
    def input_shape(self) -> tuple[int, ...]:
        """The shape of one raw example; images are (height, width, channels)."""
        return self.train.inputs.shape[1:]

    def batches(
        self,
        split: str,
        size: int,
        *,
        normalize: Callable[[np.ndarray], np.ndarray] = unchanged,
        examples: int | None = None,
    ) -> Batches:
        """The examples of one part in batches, to be iterated again and again.

        Args:
            split: `"train"`, `"validation"` or `"test"`.
            size: examples in a batch; the last one may be smaller.
            normalize: applied to each raw batch when it is read; a `NamedNetwork` has the one it was trained with.
            examples: only that many from the front (the training examples are in random order); None for all.

        Returns:
            Batches of (inputs, labels).

        Raises:
            ValueError: for an unknown part, or more examples than there are.
        """
        if split not in ("train", "validation", "test"):
            raise ValueError(f"Data has no part {split!r}; it has 'train', 'validation' and 'test'.")
        part: Split = getattr(self, split)
        if examples is not None and not 1 <= examples <= len(part.inputs):
            raise ValueError(f"examples={examples} of {self.name}'s {split} part; it has {len(part.inputs)}.")
        return Batches(part.inputs[:examples], part.labels[:examples], size, normalize)

    def __repr__(self) -> str:
        counts = "/".join(str(len(part.labels)) for part in (self.train, self.validation, self.test))
        return f"Data({self.name!r}, {counts} examples of shape {self.input_shape}, {self.num_classes} classes)"


def load(name: str | os.PathLike[str], *, seed: int) -> Data:
    """Load a data set by name, or from a `.npz` file.

    MNIST and CIFAR-10 are looked for in the folder that the environment variable `ANNEALSUBNET_DATA` names
    (`mnist.npz`, `cifar10.npz`), then in the cache, and are downloaded to the cache otherwise.

    Args:
        name: `"digits"`, `"mnist"`, `"cifar10"`, or the path of a `.npz` file with x_train, y_train, x_test, y_test.
        seed: draws the validation part (and for digits, which has none of its own, the test part), the same share of
            every class, and the order of the training examples.

    Returns:
        The data set, with train, validation and test parts.

    Raises:
        ValueError: for an unknown name, or a file that does not hold what it must.
        OSError: when a file is missing or a download fails.

    Example:
        >>> load("digits", seed=0)
        Data('digits', 1078/360/359 examples of shape (8, 8, 1), 10 classes)
    """
    if str(name).endswith(".npz"):
        return _held_out(str(name), sources.read_npz(Path(name)), seed=seed, share=0.1)
    if name == "digits":
        images, labels = sources.digits()
        rest, test = _stratified(Split(images, labels), seed=seed, share=0.2)
        return _held_out("digits", sources.Arrays(*rest, *test), seed=seed, share=0.25)
    if name == "mnist":
        return _held_out("mnist", sources.mnist(), seed=seed, share=1 / 12)
    if name == "cifar10":
        return _held_out("cifar10", sources.cifar10(), seed=seed, share=0.1)
    raise ValueError(f"There is no data set {str(name)!r}; use {', '.join(NAMES)}, or the path of a .npz file.")


def _held_out(name: str, arrays: sources.Arrays, *, seed: int, share: float) -> Data:
    """Data whose validation part is `share` of the training examples, the test part as given."""
    train, validation = _stratified(Split(arrays.x_train, arrays.y_train), seed=seed, share=share)
    num_classes = int(max(arrays.y_train.max(), arrays.y_test.max())) + 1
    return Data(name, train, validation, Split(arrays.x_test, arrays.y_test), num_classes)


def _stratified(part: Split, *, seed: int, share: float) -> tuple[Split, Split]:
    """The examples in random order, `share` of them, and of each class, set apart as the second value."""
    order = np.random.default_rng(seed).permutation(len(part.labels))
    grouped = np.argsort(part.labels[order], kind="stable")
    apart = np.zeros(len(order), bool)
    number = round(share * len(order))
    apart[grouped[((np.arange(number) + 0.5) * len(order) / max(number, 1)).astype(int)]] = True  # evenly over classes
    first, second = order[~apart], order[apart]
    return Split(part.inputs[first], part.labels[first]), Split(part.inputs[second], part.labels[second])
