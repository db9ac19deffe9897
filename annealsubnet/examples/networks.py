"""Named networks: an architecture together with the data it is for, its input normalization and its checkpoint's names.

A checkpoint's figures only hold under the normalization it was trained with, so the two travel together here.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial

import numpy as np
from flax import nnx

from annealsubnet.examples.architectures import CNN, MLP, ResNet20
from annealsubnet.examples.data import Data


@dataclass(frozen=True)
class Scaling:
    """Input normalization (x / scale − mean) / deviation, in float32."""

    scale: float
    mean: float = 0.0
    deviation: float = 1.0

    def __call__(self, inputs: np.ndarray) -> np.ndarray:
        """Raw inputs, normalized."""
        factor, shift = 1 / (self.scale * self.deviation), self.mean / self.deviation
        return np.asarray(inputs, np.float32) * np.float32(factor) - np.float32(shift)


@dataclass(frozen=True)
class NamedNetwork:
    """An architecture with what it needs to be used.

    Attributes:
        name: what the command calls it.
        data: the name of the data set it is for.
        create: draws the module's weights from `nnx.Rngs`.
        normalize: from raw inputs to what the module takes.
        checkpoint_names: parts of a checkpoint's names that differ from the module's, such as `{"ip1": "fc1"}`.
    """

    name: str
    data: str
    create: Callable[..., nnx.Module] = field(repr=False)
    normalize: Callable[[np.ndarray], np.ndarray]
    checkpoint_names: Mapping[str, str] = field(default_factory=dict, repr=False)

    def build(self, *, seed: int) -> nnx.Module:
        """The network with weights drawn from `seed`, in evaluation mode."""
        model = self.create(rngs=nnx.Rngs(seed))
        model.eval()
        return model


_DIGITS, _MNIST, _CIFAR = (8, 8, 1), (28, 28, 1), (32, 32, 3)

NETWORKS: dict[str, NamedNetwork] = {
    network.name: network
    for network in [
        NamedNetwork("digits-mlp", "digits", partial(MLP, _DIGITS, (128, 64, 10)), Scaling(16)),
        NamedNetwork("digits-cnn", "digits", partial(CNN, _DIGITS), Scaling(16)),
        NamedNetwork("mnist-mlp", "mnist", partial(MLP, _MNIST, (256, 256, 10)), Scaling(255)),
        NamedNetwork("mnist-cnn", "mnist", partial(CNN, _MNIST), Scaling(255)),
        NamedNetwork("cifar-cnn", "cifar10", partial(CNN, _CIFAR, channels=(32, 64), hidden=128), Scaling(255, 0.5, 0.25)),
        NamedNetwork("mlpnet", "mnist", partial(MLP, _MNIST, (40, 20, 10), use_bias=False), Scaling(255, 0.1307, 0.3081)),
        NamedNetwork(
            "lenet-300-100",
            "mnist",
            partial(MLP, _MNIST, (300, 100, 10)),
            Scaling(256),
            {"ip1": "fc1", "ip2": "fc2", "ip3": "fc3"},
        ),
        NamedNetwork(
            "resnet20",
            "cifar10",
            ResNet20,
            Scaling(255, 0.5, 0.5),
            {"downsample/0": "shortcut", "downsample/1": "shortcut_bn"},
        ),
    ]
}

_DEFAULT = {"digits": "digits-mlp", "mnist": "mnist-mlp", "cifar10": "cifar-cnn"}


def named_network(name: str) -> NamedNetwork:
    """The network of that name.

    Raises:
        ValueError: when there is none, with the names there are.

    Example:
        >>> named_network("lenet-300-100").normalize
        Scaling(scale=256, mean=0.0, deviation=1.0)
    """
    if name not in NETWORKS:
        raise ValueError(f"There is no network {name!r}; use one of {', '.join(NETWORKS)}.")
    return NETWORKS[name]


def network_for(data: Data) -> NamedNetwork:
    """A network that fits the data: the default one of a named set, else a perceptron of two layers of 128 neurons.

    The perceptron's inputs are standardized with the mean and the deviation of all training values.
    """
    if data.name in _DEFAULT:
        return NETWORKS[_DEFAULT[data.name]]
    inputs = data.train.inputs
    scaling = Scaling(1.0, float(inputs.mean(dtype=np.float64)), float(inputs.std(dtype=np.float64)) or 1.0)
    return NamedNetwork("mlp-128-128", data.name, partial(MLP, data.input_shape, (128, 128, data.num_classes)), scaling)
