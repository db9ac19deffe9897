"""Batches: an example set cut into pieces, in order, that can be iterated again and again.

Statistics need several passes over the same examples, so a generator will not do: each `iter(batches)` starts afresh.
The order never changes, and the last batch is smaller where the size does not divide the number of examples.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np


def unchanged(inputs: np.ndarray) -> np.ndarray:
    """The inputs as float32, otherwise as they are."""
    return np.asarray(inputs, np.float32)


@dataclass(frozen=True, repr=False)
class Batches:
    """Examples in batches of `size`, each passed through `normalize` when it is read.

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
