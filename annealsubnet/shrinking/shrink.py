"""A physically smaller network that computes what the masked one does."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from annealsubnet.masks import Mask
from annealsubnet.networks import Model, Network, as_model, as_network, from_linen
from annealsubnet.shrinking.cuts import cut, example_inputs
from annealsubnet.shrinking.linen_modules import linen_statistics, rebuild_linen
from annealsubnet.shrinking.nnx_modules import nnx_statistics, rebuild_nnx


def shrink(model: Any, mask: Mask) -> Any:
    """Remove units for good: smaller arrays that give the outputs of `mask.apply(model)`.

    Layers summed with each other lose the same neurons, BatchNorms lose their statistics, the layers behind lose the inputs.
    What a closed unit still says (f(0) of a sigmoid, a BatchNorm behind a sum) goes into the next bias, which is made if there
    is none. The smaller network runs once on noise beside the masked one, so that a difference is found here.

    Args:
        model: an `nnx.Module`, or `from_linen(module, variables)`, refitted or not.
        mask: of neurons or heads.

    Returns:
        A new `nnx.Module`; for Linen a pair (module, variables), called as before: `module.apply(variables, inputs, ...)`.

    Raises:
        ValueError: for a mask of weights, a plain function, a mask for another model, a site that would lose all its units;
            for units that a LayerNorm, RMSNorm or GroupNorm combines, a constant that no bias can stand for (before a
            zero-padded border), or a grouped convolution left with unlike groups, naming the layer; for code that fixes sizes.

    Example:
        >>> from flax import nnx
        >>> model = nnx.Sequential(nnx.Linear(3, 4, rngs=nnx.Rngs(0)), nnx.relu, nnx.Linear(4, 2, rngs=nnx.Rngs(1)))
        >>> network = as_network(model, jnp.zeros((1, 3)))
        >>> mask = Mask.of(network, "neuron", {"layers/0": np.array([True, False, True, False])})
        >>> shrink(model, mask).layers[0].kernel.shape
        (3, 2)
    """
    if mask.unit == "weight":
        raise ValueError(
            "A mask of weights leaves every neuron in place, so there is nothing to shrink; mask neurons or heads."
        )
    network = as_network(model, None if isinstance(model, Network) else mask.example)
    source = network.model.source
    if network.model.form == "nnx":
        small: Any = rebuild_nnx(source, cut(network, mask, nnx_statistics(source)))
        _check_same(network, mask, as_model(small))
        return small
    if network.model.form == "linen":
        module, _, options = source
        variables = network.model.export(network.params)
        small, variables = rebuild_linen(module, variables, cut(network, mask, linen_statistics(variables)))
        _check_same(network, mask, from_linen(small, variables, **options))
        return small, variables
    raise ValueError(
        "A plain function may hold shapes of its own, so only nnx.Modules and Linen modules can be shrunk; "
        "mask.apply(model) gives its zeros."
    )


def _check_same(network: Network, mask: Mask, small: Model) -> None:
    """Run both once: code between the layers may know the old sizes in ways that no trace shows."""
    inputs = example_inputs(network.example)
    wanted = jax.jit(network.model.call)(mask.multiply(network.params), inputs)
    try:
        found = jax.jit(small.call)(small.params, inputs)
    except Exception as error:  # whatever the user's own code raises
        raise ValueError(f"The smaller network does not run, as code between its layers fixes their sizes: {error}") from error
    # Other summation orders differ by rounding, which grows with depth.
    tolerance = float(np.clip(1e4 * jnp.finfo(wanted.dtype).eps, 1e-3, 5e-2))
    difference = float(jnp.max(jnp.abs(found - wanted))) if found.shape == wanted.shape else np.inf
    if not difference <= tolerance * max(float(jnp.max(jnp.abs(wanted))), 1e-6):
        raise ValueError(
            f"The smaller network's outputs differ from the masked one's by {difference:.3g}: code between its layers depends "
            "on how many units there are, as a mean over channels does; exclude the layers around it."
        )
