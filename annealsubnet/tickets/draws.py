"""Draws: which examples each round sees.

A pass reads the user's batches once, in an order drawn from (seed, pass), and is cut into rounds of `size` examples; what does
not fill a round sits that pass out. Round t is a function of the seed and t alone, so that a search can go on from any round.
"""

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np

from annealsubnet.arguments import check_whole
from annealsubnet.batches import Batches
from annealsubnet.losses import Loss
from annealsubnet.networks import Network
from annealsubnet.statistics.passes import labeled_for

Augment = Callable[[np.ndarray, np.random.Generator], np.ndarray]
"""From the inputs of one round and a generator to inputs of the same shape."""


@dataclass(frozen=True)
class Draws:
    """The examples of every round.

    Attributes:
        inputs, labels: all examples.
        size: examples a round.
        seed: of the order, and of `augment`.
        augment: applied to the inputs of each round; None for none.
    """

    inputs: np.ndarray
    labels: np.ndarray
    size: int
    seed: int
    augment: Augment | None = None
    orders: dict[int, np.ndarray] = field(default_factory=dict, repr=False, compare=False)

    @property
    def rounds_a_pass(self) -> int:
        """Full rounds in one pass over the examples."""
        return len(self.labels) // self.size

    def round(self, number: int) -> tuple[np.ndarray, np.ndarray]:
        """Inputs and labels of one round, numbered from 0.

        Raises:
            ValueError: if `augment` returns anything but as many numbers in the same shape.
        """
        number_of_pass, place = divmod(number, self.rounds_a_pass)
        if number_of_pass not in self.orders:
            self.orders.clear()
            generator = np.random.default_rng([self.seed, 1, number_of_pass])
            self.orders[number_of_pass] = generator.permutation(len(self.labels))
        chosen = self.orders[number_of_pass][place * self.size : (place + 1) * self.size]
        inputs = self.inputs[chosen]
        if self.augment is not None:
            inputs = np.asarray(self.augment(inputs, np.random.default_rng([self.seed, 2, number])))
            shape = (len(chosen), *self.inputs.shape[1:])
            if inputs.shape != shape or inputs.dtype.kind in "OSU":
                raise ValueError(
                    f"augment returns {inputs.dtype} of shape {inputs.shape} for inputs of shape {shape}; it must return an "
                    "array of numbers of the same shape."
                )
        return inputs, self.labels[chosen]

    def held_in(self, size: int) -> tuple[np.ndarray, np.ndarray]:
        """The same `size` examples each time, without augmentation, to judge masks on."""
        chosen = np.random.default_rng([self.seed, 3]).permutation(len(self.labels))[:size]
        return self.inputs[chosen], self.labels[chosen]


def draws_of(network: Network, batches: Batches, loss: Loss, *, size: int, seed: int, augment: Augment | None = None) -> Draws:
    """Read the batches once, checked.

    Raises:
        TypeError, ValueError: for a size that is no whole number above 0.
        ValueError: for batches without labels, of one class only, or of another shape than the network takes.
    """
    size = check_whole("batch_size", size, 1)
    pairs = list(labeled_for(network, batches, loss))
    inputs = np.concatenate([inputs for inputs, _ in pairs])
    labels = np.concatenate([labels for _, labels in pairs])
    if labels.ndim == 1 and len(labels) > 1 and (labels == labels[0]).all():
        raise ValueError(
            f"All {len(labels)} labels are {labels[0]}: a network that always answers {labels[0]} has no loss; give batches "
            "with examples of at least two classes."
        )
    return Draws(inputs, labels, min(size, len(labels)), seed, augment)
