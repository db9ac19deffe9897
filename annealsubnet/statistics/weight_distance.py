"""How far a network with other weights is from the dense one, and which way its weights pull.

    D(w) = ½ E‖F^½ (f(w) − f_0)‖²,      g = ∂D/∂w,      h_i = E‖F^½ ∂f/∂w_i‖²

with f_0 the dense network's outputs and F the Hessian of the loss in them: to second order the loss that is lost, measured
without a label. D and g are exact over the examples; h, the diagonal of the Gauss-Newton matrix, is estimated by one draw of
random signs over the factors of F for each example.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from annealsubnet.batches import stream
from annealsubnet.losses import Loss, cross_entropy
from annealsubnet.networks import Network, Params
from annealsubnet.statistics.gradients import pull_back, squares_of, vectors_of
from annealsubnet.statistics.passes import backward_chunk
from annealsubnet.statistics.signs import random_signs
from annealsubnet.statistics.streams import accumulate, as_wide, check_statistics, chunks


@dataclass(frozen=True)
class WeightDistance:
    """The distance at present weights, and its slopes by every kernel in the kernel's own shape.

    Attributes:
        value: D, in units of the loss.
        gradient: g by layer.
        curvature: h by layer, estimated.
        count: how many examples went in.
    """

    value: float
    gradient: Mapping[str, np.ndarray]
    curvature: Mapping[str, np.ndarray]
    count: int

    def __repr__(self) -> str:
        return f"WeightDistance({self.value:.4g}, {len(self.gradient)} layers, {self.count:,} examples)"


def distance_to(
    network: Network, batches: Iterable[Any], *, params: Params, target_params: Params | None = None, loss: Loss = cross_entropy
) -> float:
    """D alone: one pass forward in both networks.

    Args:
        network: traced.
        batches: inputs or (inputs, labels); labels are not read.
        params: of the present network.
        target_params: of the dense network; the network's own by default.
        loss: whose Hessian F measures outputs.

    Raises:
        ValueError: for bad batches.
    """

    @network.jitted("distance", loss)
    def step(now: Params, then: Params, inputs: jax.Array) -> jax.Array:
        return squared_distances(network.apply(now, inputs), network.apply(then, inputs), loss).sum()

    target = network.params if target_params is None else target_params
    pieces = chunks(stream(batches), backward_chunk(network, loss=loss))
    total, count = accumulate(partial(step, params, target), ((inputs,) for inputs, _ in pieces))
    return float(total) / count


def squared_distances(outputs: jax.Array, target: jax.Array, loss: Loss) -> jax.Array:
    """½ ‖F^½ (f − f_0)‖² of every example."""
    outputs, target = as_wide(outputs), as_wide(target)
    return 0.5 * jnp.square(loss.products_at(target)(outputs - target)).sum(0)


def weight_distance(
    network: Network,
    batches: Iterable[Any],
    *,
    params: Params,
    seed: int,
    target_params: Params | None = None,
    loss: Loss = cross_entropy,
) -> WeightDistance:
    """D, g and h, in one pass with two backward passes an example.

    Args:
        network, batches, params, target_params, loss: as in `distance_to`.
        seed: of the signs.

    Raises:
        ValueError: for bad batches, or statistics that are not finite (layer named).
    """
    layers = network.layers

    @network.jitted("weight distance", loss)
    def step(now: Params, then: Params, key: jax.Array, number: jax.Array, inputs: jax.Array) -> Any:
        outputs, pull, records = pull_back(network, now, inputs)
        target = network.apply(then, inputs)
        moved, back = jax.vjp(loss.products_at(target), outputs - target)
        signs = random_signs(jax.random.fold_in(key, number), moved.shape, moved.dtype)
        down, across = (pull(back(weights)[0]) for weights in (moved, signs))
        gradient, curvature = {}, {}
        for name, layer in layers.items():
            read = records[name][0]
            vectors = vectors_of(layer, read, len(inputs))
            deltas = down[name].reshape(*vectors.shape[:3], -1)
            gradient[name] = layer.from_matrix(jnp.einsum("npgi,npgo->gio", vectors, deltas, precision="highest"))
            curvature[name] = squares_of(layer, read, across[name][None], len(inputs))
        return 0.5 * jnp.square(moved).sum(), gradient, curvature

    target = network.params if target_params is None else target_params
    key = jax.random.key(seed % 2**32)
    pieces = enumerate(inputs for inputs, _ in chunks(stream(batches), backward_chunk(network, loss=loss)))
    total, count = accumulate(
        lambda inputs, number: step(params, target, key, np.uint32(number), inputs),
        ((inputs, number) for number, inputs in pieces),
    )
    value, gradient, curvature = jax.tree.map(lambda array: array / count, total)
    for name in layers:
        check_statistics(name, gradient[name], curvature[name])
    return WeightDistance(float(value), gradient, curvature, count)
