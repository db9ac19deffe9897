"""Renormalize: the statistics of BatchNorms, taken again in a network whose weights have changed.

In evaluation mode a BatchNorm is an affine map z = scale · u + bias, with u normalized by the statistics that training left.
Other weights before it give z another mean m and deviation s; statistics taken again would make it

    z' = |scale_0| (z − m) / s + bias_0

with scale_0 and bias_0 the dense network's. That is the same map with k scale in the place of its scale and k (bias − m) +
bias_0 in that of its bias, k = |scale_0| / s. So nothing but these two parameters changes, and every form of network can be
renormalized. One pass does for all of them: each reads what those before it, already renormalized, return.

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
from annealsubnet.networks import Network, Norm, Params, as_network
from annealsubnet.statistics.passes import backward_chunk
from annealsubnet.statistics.streams import accumulate, check_statistics, chunks

_FLAT = 1e-8
"""A channel whose variance is below this share of its square is float32 rounding: it keeps its scale and its constant."""


def renormalize(model: Any, pruned: Any, batches: Iterable[Any]) -> Any:
    """A pruned network whose BatchNorms are normalized on these inputs, in the form that came in.

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
        found: dict[str, tuple[jax.Array, jax.Array]] = {}
        maps = {name: partial(_normalized, norm, dense, found, len(inputs)) for name, norm in norms.items()}
        network.run(values, inputs, maps=maps)
        return found

    pieces = ((inputs,) for inputs, _ in chunks(stream(batches), backward_chunk(network, most=512)))
    sums, count = accumulate(partial(step, now, dict(network.params)), pieces)
    for name, norm in norms.items():
        mean, factor = (total / count for total in sums[name])
        check_statistics(name, mean, factor)
        assert norm.scale is not None and norm.bias is not None
        bias = factor * (np.asarray(now[norm.bias], np.float64) - mean) + np.asarray(network.params[norm.bias], np.float64)
        now[norm.scale] = jnp.asarray(factor * np.asarray(now[norm.scale], np.float64), now[norm.scale].dtype)
        now[norm.bias] = jnp.asarray(bias, now[norm.bias].dtype)
    return now


def _normalized(norm: Norm, dense: Params, found: dict[str, Any], examples: int, outputs: jax.Array) -> jax.Array:
    """A BatchNorm's outputs under the statistics of this chunk; m and k go into `found`, times the number of examples."""
    assert norm.scale is not None and norm.bias is not None
    axes = tuple(range(outputs.ndim - 1))
    mean, variance = outputs.mean(axes), outputs.var(axes)
    varies = variance > _FLAT * (mean**2 + dense[norm.scale] ** 2)
    factor = jnp.where(varies, jnp.abs(dense[norm.scale]) / jnp.sqrt(jnp.where(varies, variance, 1.0)), 1.0)
    mean = jnp.where(varies, mean, dense[norm.bias])
    found[norm.name] = (mean * examples, factor * examples)
    return (outputs - mean) * factor + dense[norm.bias]
