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

from typing import Any, Literal

import jax.numpy as jnp
import numpy as np

from annealsubnet.networks import Network, as_network

Scheme = Literal["signed-constant", "kaiming-normal"]


def initialize(model: Any, scheme: Scheme = "signed-constant", *, keep: float = 1.0, example: Any = None, seed: int) -> Any:
    """The model with random kernels and zero biases.

    Args:
        model: an `nnx.Module`, what `from_linen` or `from_function` return, or a `Network`. It is not changed.
        scheme: "signed-constant" or "kaiming-normal".
        keep: share of the fan-in that will be kept; kept weights are rescaled by 1/√keep. 1 rescales nothing.
        example: one batch of inputs, where the model does not know one.
        seed: of the weights.

    Returns:
        A new model in the form that came in.

    Raises:
        ValueError: for an unknown scheme or a `keep` outside (0, 1].

    Example:
        >>> from flax import nnx
        >>> model = nnx.Linear(8, 3, rngs=nnx.Rngs(0))
        >>> random = initialize(model, keep=0.5, example=np.zeros((1, 8), np.float32), seed=0)
        >>> np.unique(np.asarray(random.kernel[...], np.float64).round(3)).tolist()
        [-0.707, 0.707]
    """
    if scheme not in ("signed-constant", "kaiming-normal"):
        raise ValueError(f'scheme is "signed-constant" or "kaiming-normal", not {scheme!r}.')
    if not 0 < keep <= 1:
        raise ValueError(f"keep is {keep}; give the share of the fan-in that will be kept, in (0, 1].")
    network = as_network(model, example)
    params = dict(network.params)
    for number, layer in enumerate(network.layers.values()):
        generator = np.random.default_rng([seed, number])
        deviation = np.sqrt(2.0 / (keep * layer.fan_in))
        normal = generator.normal(size=layer.shape)
        values = deviation * (np.where(normal < 0, -1.0, 1.0) if scheme == "signed-constant" else normal)
        params[layer.kernel] = jnp.asarray(values, params[layer.kernel].dtype)
        if layer.bias is not None:
            params[layer.bias] = jnp.zeros_like(params[layer.bias])
    return network.replace(network.model.export(params)) if isinstance(model, Network) else network.model.export(params)
