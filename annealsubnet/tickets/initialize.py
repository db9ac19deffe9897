"""Initializations: random weights in which tickets are looked for.

With fan-in d and a share k of it kept, a weight's standard deviation is

    σ = √(2 / (k d)),

Kaiming's for ReLU, widened so that what stays of the fan-in has the variance that the whole had (Ramanujan's "scaled"; k = 1
leaves it out). "signed-constant" draws ±σ, "kaiming-normal" a normal with that deviation. Biases are zero.

References:
    V. Ramanujan and others, What's Hidden in a Randomly Weighted Neural Network?, CVPR 2020, section 3.2 (signed Kaiming
    constant; scaled).
    K. He and others, Delving Deep into Rectifiers, ICCV 2015.
"""

from collections.abc import Mapping
from typing import Any, Literal

import jax.numpy as jnp
import numpy as np

from annealsubnet.arguments import check_whole
from annealsubnet.budgets import Budget
from annealsubnet.networks import Network, as_network

Scheme = Literal["signed-constant", "kaiming-normal"]


def initialize(
    model: Any,
    scheme: Scheme = "signed-constant",
    *,
    keep: float | Mapping[str, float] = 1.0,
    example: Any = None,
    seed: int,
) -> Any:
    """The model with random kernels and zero biases.

    Args:
        model: an `nnx.Module`, what `from_linen` or `from_function` return, or a `Network`. It is not changed.
        scheme: "signed-constant" or "kaiming-normal".
        keep: share of the fan-in that will be kept, of all layers or by layer (1 for those left out; see `kept_fan_in`);
            weights are rescaled by 1/√keep.
        example: one batch of inputs, where the model does not know one.
        seed: of the weights.

    Returns:
        A new model in the form that came in.

    Raises:
        ValueError: for an unknown scheme, a `keep` outside (0, 1], a seed below 0, or a layer that is not there.

    Example:
        >>> from flax import nnx
        >>> model = nnx.Linear(8, 3, rngs=nnx.Rngs(0))
        >>> random = initialize(model, keep=0.5, example=np.zeros((1, 8), np.float32), seed=0)
        >>> np.unique(np.asarray(random.kernel[...], np.float64).round(3)).tolist()
        [-0.707, 0.707]
    """
    if scheme not in ("signed-constant", "kaiming-normal"):
        raise ValueError(f'scheme is "signed-constant" or "kaiming-normal", not {scheme!r}.')
    check_whole("seed", seed, 0)
    network = as_network(model, example)
    shares = dict(keep) if isinstance(keep, Mapping) else dict.fromkeys(network.layers, keep)
    if unknown := sorted(set(shares) - set(network.layers)):
        raise ValueError(f"keep names {unknown[0]!r}, which is no layer; there are {', '.join(network.layers)}.")
    for share in shares.values():
        if not 0 < share <= 1:
            raise ValueError(f"keep is {share}; give the share of the fan-in that will be kept, in (0, 1].")
    params = dict(network.params)
    for number, (name, layer) in enumerate(network.layers.items()):
        generator = np.random.default_rng([seed, number])
        deviation = np.sqrt(2.0 / (shares.get(name, 1.0) * layer.fan_in))
        normal = generator.normal(size=layer.shape)
        values = deviation * (np.where(normal < 0, -1.0, 1.0) if scheme == "signed-constant" else normal)
        params[layer.kernel] = jnp.asarray(values, params[layer.kernel].dtype)
        if layer.bias is not None:
            params[layer.bias] = jnp.zeros_like(params[layer.bias])
    return network.replace(network.model.export(params)) if isinstance(model, Network) else network.model.export(params)


def kept_fan_in(network: Network, budget: Budget) -> dict[str, float]:
    """The share of each layer's fan-in that a budget keeps, on average over its neurons.

    Of weights it is the share kept of the layer (of all layers, where they compete), of neurons that of the neurons which the
    layer reads.
    """
    sizes = {name: int(np.prod(shape)) for name, shape in budget.shapes.items()}
    kept = dict.fromkeys(budget.selected, budget.total / budget.size)
    if budget.scope == "layer":
        kept = {name: budget.counts[name] / sizes[name] for name in budget.selected}
    elif budget.scope == "neuron":
        kept = {name: budget.counts[name] / network.layers[name].fan_in for name in budget.selected}
    if budget.unit == "weight":
        return {name: kept.get(name, 1.0) for name in network.layers}
    shares = dict.fromkeys(network.layers, 1.0)
    for name, share in kept.items():
        for reader, unit_of_input in network.sites(budget.unit)[name].consumers.items():
            shares[reader] -= (1 - share) * float(np.mean(unit_of_input >= 0))
    return shares
