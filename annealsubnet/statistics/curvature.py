"""Curvature of the loss in what neurons return: how much an error of a neuron on an example matters.

    h_npo = (∂outputs_n/∂z_npo)ᵀ F_n (∂outputs_n/∂z_npo) = Σ_c (s_ncᵀ ∂outputs_n/∂z_npo)²

for example n, position p and neuron o; F_n the Hessian of the loss in the outputs (Gauss-Newton, no labels). An error e of the
neuron's pre-activation costs ½ h e²: its mean turns errors of layers into loss, and h_n weights examples in second moments.
"""

from collections.abc import Iterable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from annealsubnet.batches import stream
from annealsubnet.losses import Loss, cross_entropy
from annealsubnet.networks import Network, Params
from annealsubnet.statistics.gradients import pull_back
from annealsubnet.statistics.passes import backward_chunk, curvature_chunk, over_factors
from annealsubnet.statistics.signs import random_signs
from annealsubnet.statistics.streams import accumulate, check_statistics, chunks


def output_curvature(network: Network, params: Params, inputs: jax.Array, loss: Loss = cross_entropy) -> dict[str, jax.Array]:
    """h of every layer for one batch: pure, to be called inside a jitted step.

    Args:
        network: traced.
        params: by path.
        inputs: one batch.
        loss: of one example.

    Returns:
        For each layer an array of its outputs' own shape, `[batch, *positions, *outputs]`.
    """
    outputs, pull, _ = pull_back(network, params, inputs)

    def squares(factors: jax.Array) -> dict[str, jax.Array]:
        return {name: jnp.square(deltas).sum(0) for name, deltas in jax.vmap(pull)(factors).items()}

    return over_factors(squares, loss.curvature_factor(outputs))


def neuron_curvature(
    network: Network, batches: Iterable[Any], *, loss: Loss = cross_entropy, params: Params | None = None
) -> dict[str, np.ndarray]:
    """h̄ of every neuron of every layer: E_n[Σ_p h_npo], in one pass.

    Args:
        network: traced.
        batches: inputs or (inputs, labels); labels are not read.
        loss: of one example.
        params: of the network; its own by default.

    Returns:
        For each layer `[outputs]`, float64, in loss per squared unit of the neuron's output (times ½).

    Raises:
        ValueError: for bad batches, or curvatures that are not finite (layer named).
    """

    @network.jitted("neuron curvature", loss)
    def step(values: Params, inputs: jax.Array) -> Any:
        curvature = output_curvature(network, values, inputs, loss)
        return {name: array.reshape(-1, network.layers[name].outputs).sum(0) for name, array in curvature.items()}

    inputs = ((inputs,) for inputs, _ in chunks(stream(batches), curvature_chunk(network)))
    sums, count = accumulate(partial(step, network.params if params is None else params), inputs)
    for name, total in sums.items():
        check_statistics(name, total)
    return {name: total / count for name, total in sums.items()}


def sketched_curvature(
    network: Network, batches: Iterable[Any], *, seed: int, loss: Loss = cross_entropy, params: Params | None = None
) -> dict[str, np.ndarray]:
    """`neuron_curvature` from one backward pass an example, whatever the number of classes: an unbiased estimate.

    The factors of F are added with random signs ε before they go back: E_ε (Σ_c ε_c s_cᵀ ∂outputs/∂z)² = h.

    Args:
        network, batches, loss, params: as in `neuron_curvature`.
        seed: of the signs.

    Raises:
        ValueError: as `neuron_curvature`.
    """

    @network.jitted("sketched curvature", loss)
    def step(values: Params, key: jax.Array, number: jax.Array, inputs: jax.Array) -> Any:
        outputs, pull, _ = pull_back(network, values, inputs)
        factors = loss.curvature_factor(outputs)
        signs = random_signs(jax.random.fold_in(key, number), factors.shape[:2], factors.dtype)
        deltas = pull(jnp.einsum("cn,cnk->nk", signs, factors))
        return {name: jnp.square(array).reshape(-1, network.layers[name].outputs).sum(0) for name, array in deltas.items()}

    values = network.params if params is None else params
    key = jax.random.key(seed % 2**32)
    pieces = enumerate(inputs for inputs, _ in chunks(stream(batches), backward_chunk(network)))
    sums, count = accumulate(
        lambda inputs, number: step(values, key, np.uint32(number), inputs), ((inputs, number) for number, inputs in pieces)
    )
    for name, total in sums.items():
        check_statistics(name, total)
    return {name: total / count for name, total in sums.items()}
