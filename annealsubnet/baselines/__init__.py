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
    exclude: layers that are left alone.
    seed: read by what draws numbers (`random`); the same seed gives the same mask.
    loss: read by what differentiates one.

Each returns the mask and the model, in the form that came in, with zeros for what the mask removes. `annealsubnet.refit` then
does for each of them what it does for `prune`.
"""

from collections.abc import Callable

from annealsubnet.baselines.activation import activation
from annealsubnet.baselines.magnitude import magnitude
from annealsubnet.baselines.quadratic import greedy
from annealsubnet.baselines.random import random
from annealsubnet.baselines.selection import Result
from annealsubnet.baselines.sensitivity import fisher, grasp, obd, snip, taylor
from annealsubnet.baselines.synflow import synflow

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
"""Every method by the name that the command knows it by."""

__all__ = [
    "METHODS",
    "activation",
    "fisher",
    "grasp",
    "greedy",
    "magnitude",
    "obd",
    "random",
    "snip",
    "synflow",
    "taylor",
]
