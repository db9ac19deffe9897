"""Classical pruning methods, for comparison; all are called alike and return what `prune` returns, before any refit.

    mask, pruned = annealsubnet.baselines.magnitude(model, None, keep=0.05, unit="weight")
    mask, pruned = annealsubnet.baselines.METHODS["snip"](model, batches, keep=0.5, unit="neuron")

Arguments of all:
    model: an `nnx.Module`, what `from_linen` or `from_function` return, or a traced `Network`.
    batches: inputs or (inputs, labels); None where no data is read (`random`, `magnitude`, `synflow`). Without batches neurons
        and heads need a model with an example of its inputs.
    keep: a fraction in (0, 1], a count, or a mapping from layer to either.
    unit: "weight", "neuron" or "head".
    scope: "network" (all layers compete), "layer", or for weights "neuron".
    exclude: layers from which nothing is removed; their weights change only where `gradual` trains, `osscar`
        refits what reads the neurons, or `refit` follows.
    pattern: "N:M" in place of `keep`, of the methods that have it (`magnitude`, `wanda`, `sparsegpt`, `obc`, `forward`, `alps`,
        `sparse_swaps`).
    seed: read by what draws numbers (`random`, `gradual`); the same seed gives the same mask.
    loss: read by what differentiates one.

Each returns the mask and the model, in the form that came in, with zeros for what the mask removes; methods that change the
weights that stay return them changed. `annealsubnet.refit` does for each mask what it does for `prune`.
"""

from collections.abc import Callable

from annealsubnet.baselines.activation import activation
from annealsubnet.baselines.alps import alps
from annealsubnet.baselines.chita import chita
from annealsubnet.baselines.gradual import gradual
from annealsubnet.baselines.magnitude import magnitude
from annealsubnet.baselines.obc import forward, obc
from annealsubnet.baselines.osscar import osscar
from annealsubnet.baselines.quadratic import greedy
from annealsubnet.baselines.random import random
from annealsubnet.baselines.selection import Result
from annealsubnet.baselines.sensitivity import fisher, grasp, obd, snip, taylor
from annealsubnet.baselines.sparse_swaps import sparse_swaps
from annealsubnet.baselines.sparsegpt import sparsegpt
from annealsubnet.baselines.surgeon import surgeon, zero_swaps
from annealsubnet.baselines.synflow import synflow
from annealsubnet.baselines.wanda import wanda
from annealsubnet.baselines.woodfisher import woodfisher

METHODS: dict[str, Callable[..., Result]] = {
    "greedy": greedy,
    "magnitude": magnitude,
    "activation": activation,
    "taylor": taylor,
    "fisher": fisher,
    "obd": obd,
    "snip": snip,
    "grasp": grasp,
    "synflow": synflow,
    "random": random,
}
"""The methods that the command compares where none is named, by the name that it knows them by."""

ON_REQUEST: dict[str, Callable[..., Result]] = {
    "wanda": wanda,
    "sparsegpt": sparsegpt,
    "obc": obc,
    "forward": forward,
    "alps": alps,
    "sparse-swaps": sparse_swaps,
    "woodfisher": woodfisher,
    "surgeon": surgeon,
    "zero-swaps": zero_swaps,
    "chita": chita,
    "gradual": gradual,
    "osscar": osscar,
}
"""Methods that choose one kind of unit (neurons for `osscar`, else weights), compared where they are named."""

__all__ = [
    "METHODS",
    "ON_REQUEST",
    "activation",
    "alps",
    "chita",
    "fisher",
    "forward",
    "gradual",
    "grasp",
    "greedy",
    "magnitude",
    "obc",
    "obd",
    "osscar",
    "random",
    "snip",
    "sparse_swaps",
    "sparsegpt",
    "surgeon",
    "synflow",
    "taylor",
    "wanda",
    "woodfisher",
    "zero_swaps",
]
