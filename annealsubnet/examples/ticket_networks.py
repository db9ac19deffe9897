"""The networks of the literature on tickets: LeNet-300-100, Conv-2 and Conv-4, without biases.

References:
    J. Frankle, M. Carbin, The Lottery Ticket Hypothesis, ICLR 2019, figure 2 (Conv-2 and Conv-4).
    V. Ramanujan and others, What's Hidden in a Randomly Weighted Neural Network?, CVPR 2020, table 1.
"""

import re
from functools import partial

import jax
import jax.numpy as jnp
from flax import nnx
from jax.typing import ArrayLike

from annealsubnet.examples.architectures import MLP
from annealsubnet.examples.networks import NETWORKS, NamedNetwork, Scaling


class ConvNet(nnx.Module):
    """Pairs of 3×3 convolutions with ReLU, each pair followed by 2×2 average-pooling; then dense layers 256, 256, classes.

    (The papers pool by the maximum, whose gradient takes 20 times as long on a CPU.)

    Args:
        input_shape: (height, width, channels).
        channels: outputs of both convolutions of each pair.
        num_classes: outputs of the last layer.
        rngs: draws the weights.
    """

    def __init__(
        self, input_shape: tuple[int, ...], *, channels: tuple[int, ...] = (64,), num_classes: int = 10, rngs: nnx.Rngs
    ):
        height, width, fan_in = input_shape
        self.pairs = len(channels)
        for number, width_of_pair in enumerate(channels, 1):
            setattr(self, f"conv{number}a", nnx.Conv(fan_in, width_of_pair, (3, 3), use_bias=False, rngs=rngs))
            setattr(self, f"conv{number}b", nnx.Conv(width_of_pair, width_of_pair, (3, 3), use_bias=False, rngs=rngs))
            fan_in = width_of_pair
        side = 2**self.pairs
        self.fc1 = nnx.Linear((height // side) * (width // side) * fan_in, 256, use_bias=False, rngs=rngs)
        self.fc2 = nnx.Linear(256, 256, use_bias=False, rngs=rngs)
        self.fc3 = nnx.Linear(256, num_classes, use_bias=False, rngs=rngs)

    def __call__(self, inputs: ArrayLike) -> jax.Array:
        """Logits [examples, classes]."""
        x = jnp.asarray(inputs)
        for number in range(1, self.pairs + 1):
            x = nnx.relu(getattr(self, f"conv{number}a")(x))
            x = nnx.relu(getattr(self, f"conv{number}b")(x))
            x = nnx.avg_pool(x, (2, 2), strides=(2, 2))
        x = x.reshape(x.shape[0], -1)
        return self.fc3(nnx.relu(self.fc2(nnx.relu(self.fc1(x)))))


def _lenet(*hidden: int) -> NamedNetwork:
    """Dense layers for MNIST with that many hidden neurons."""
    name = "lenet-" + "-".join(map(str, hidden))
    return NamedNetwork(name, "mnist", partial(MLP, (28, 28, 1), (*hidden, 10), use_bias=False), Scaling(255, 0.1307, 0.3081))


_CIFAR = (32, 32, 3)

TICKET_NETWORKS: dict[str, NamedNetwork] = {
    network.name: network
    for network in [
        NamedNetwork("digits-mlp", "digits", partial(MLP, (8, 8, 1), (128, 64, 10), use_bias=False), Scaling(16, 0.3, 0.37)),
        _lenet(300, 100),
        NamedNetwork("conv-2", "cifar10", partial(ConvNet, _CIFAR, channels=(64,)), Scaling(255, 0.473, 0.251)),
        NamedNetwork("conv-4", "cifar10", partial(ConvNet, _CIFAR, channels=(64, 128)), Scaling(255, 0.473, 0.251)),
    ]
}
TICKET_DEFAULTS = {"digits": "digits-mlp", "mnist": "lenet-300-100", "cifar10": "conv-2"}


def ticket_network(name: str) -> NamedNetwork:
    """The network of that name: of this list, of the trained ones, or a LeNet of other widths, as in "lenet-75-25".

    Raises:
        ValueError: when there is none, with the names there are.

    Example:
        >>> ticket_network("conv-4").data
        'cifar10'
    """
    found = TICKET_NETWORKS.get(name) or NETWORKS.get(name)
    if found is None and (widths := re.fullmatch(r"lenet-([1-9]\d*)-([1-9]\d*)", name)):
        found = _lenet(*map(int, widths.groups()))
    if found is None:
        known = ", ".join({**TICKET_NETWORKS, **NETWORKS})
        raise ValueError(f"There is no network {name!r}; use one of {known}, or a LeNet of other widths, as in lenet-75-25.")
    return found
