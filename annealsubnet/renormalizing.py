"""Renormalize: the statistics of BatchNorms, taken again in a network whose weights have changed.

In evaluation mode a BatchNorm is an affine map z = scale · u + bias, with u normalized by the statistics that training left.
Other weights before it give z another mean m and deviation s than the m_0 and s_0 that the dense network has on the same
examples. Normalized again it is

    z' = s_0 (z − m) / s + m_0,

the same map with k scale in the place of its scale and k bias + m_0 − k m in that of its bias, k = s_0 / s. So nothing but
these two parameters changes, and every form of network can be renormalized; the dense network itself stays as it is. One pass
does for all of them: each reads what those before it, already renormalized, return.

(Training mode would put the dense network's scale and bias in the place of s_0 and m_0. These are what it had on average over
training, augmented images included: the ResNet20 of the WoodFisher paper then loses four points by itself, in a throwaway
script.)

References:
    Ioffe and Szegedy, *Batch normalization*, ICML 2015, algorithm 2; Nagel et al., *Data-free quantization through weight
    equalization and bias correction*, ICCV 2019 (folding statistics into parameters).
"""

from collections.abc import Iterable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from annealsubnet.batches import first_inputs, stream
from annealsubnet.networks import Network, Params, as_network
from annealsubnet.statistics.passes import backward_chunk
from annealsubnet.statistics.streams import accumulate, check_statistics, chunks

Statistics = tuple[jax.Array, jax.Array]

_FLAT = 1e-8
"""A channel whose variance is below this share of its square, or of the wanted one, is float32 rounding: it keeps its scale."""


def renormalize(model: Any, pruned: Any, batches: Iterable[Any]) -> Any:
    """A pruned network whose BatchNorms return the mean and deviation that the dense network's return on these inputs.

    Args:
        model: the dense network, in evaluation mode: an `nnx.Module`, what `from_linen` or `from_function` return, or a
            `Network`.
        pruned: what `prune`, `refit` or a baseline returned for it.
        batches: inputs or (inputs, labels); labels are not read. Statistics are averaged over chunks of some hundred examples.
            Only a BatchNorm with a scale that alone reads the outputs of a layer is normalized.

    Raises:
        ValueError: for bad batches, a `pruned` of another model, a BatchNorm without a scale or a bias, or statistics that are
            not finite; each is named.
    """
    network = as_network(model, first_inputs(batches))
    params = network.replace(pruned).params
    return network.model.export(renormalize_params(network, batches, params=params))


def renormalize_params(network: Network, batches: Iterable[Any], *, params: Params) -> dict[str, Any]:
    """`renormalize` on a traced dense network, from and to flat parameters of the pruned one."""
    now = dict(params)
    norms = {norm.name: norm for norm in network.norms.values()}
    for norm in norms.values():
        if norm.scale is None or norm.bias is None:
            missing = "scale" if norm.scale is None else "bias"
            raise ValueError(f"BatchNorm {norm.name!r} has no {missing} to fold statistics into; give it one.")
    if not norms:
        return now

    @network.jitted("renormalize")
    def step(values: Params, dense: Params, inputs: jax.Array) -> Any:
        wanted: dict[str, Statistics] = {}
        network.run(dense, inputs, maps={name: partial(_noted, name, wanted) for name in norms})
        found: dict[str, Statistics] = {}
        network.run(values, inputs, maps={name: partial(_normalized, name, wanted, found) for name in norms})
        return {name: (len(inputs) * factor, len(inputs) * offset) for name, (factor, offset) in found.items()}

    pieces = ((inputs,) for inputs, _ in chunks(stream(batches), backward_chunk(network, most=512)))
    sums, count = accumulate(partial(step, now, dict(network.params)), pieces)
    for name, norm in norms.items():
        factor, offset = (total / count for total in sums[name])
        check_statistics(name, factor, offset)
        assert norm.scale is not None and norm.bias is not None
        bias = factor * np.asarray(now[norm.bias], np.float64) + offset
        now[norm.scale] = jnp.asarray(factor * np.asarray(now[norm.scale], np.float64), now[norm.scale].dtype)
        now[norm.bias] = jnp.asarray(bias, now[norm.bias].dtype)
    return now


def _noted(name: str, found: dict[str, Statistics], outputs: jax.Array) -> jax.Array:
    """The same outputs; their mean and variance go into `found`."""
    axes = tuple(range(outputs.ndim - 1))
    found[name] = (outputs.mean(axes), outputs.var(axes))
    return outputs


def _normalized(name: str, wanted: dict[str, Statistics], found: dict[str, Statistics], outputs: jax.Array) -> jax.Array:
    """A BatchNorm's outputs with the wanted mean and variance; k and m_0 − k m go into `found`."""
    axes = tuple(range(outputs.ndim - 1))
    (aim, spread), mean, variance = wanted[name], outputs.mean(axes), outputs.var(axes)
    varies = variance > _FLAT * (mean**2 + spread)
    factor = jnp.where(varies, jnp.sqrt(spread / jnp.where(varies, variance, 1.0)), 1.0)
    found[name] = (factor, aim - factor * mean)
    return outputs * factor + found[name][1]
