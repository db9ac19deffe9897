"""The data sets and networks that the command, the notebooks and the benchmarks know by name.

Example:
    >>> from annealsubnet.examples import load, named_network, train
    >>> data = load("digits", seed=0)
    >>> network = named_network("digits-mlp")
    >>> model = network.build(seed=0)
    >>> batches = data.batches("train", 256, normalize=network.normalize)
    >>> trained = train(model, batches, seed=0, epochs=2)
"""

from annealsubnet.examples.checkpoints import load_checkpoint
from annealsubnet.examples.data import Batches, Data, Split, load
from annealsubnet.examples.networks import NETWORKS, NamedNetwork, named_network, network_for
from annealsubnet.examples.training import train

__all__ = [
    "NETWORKS",
    "Batches",
    "Data",
    "NamedNetwork",
    "Split",
    "load",
    "load_checkpoint",
    "named_network",
    "network_for",
    "train",
]
