"""Iterative synaptic flow pruning: no data, and no layer that loses all its weights before the others.

The network with absolute parameters is run on an input of ones; R is the sum of its outputs. The score of a weight,

    |w| ∂R/∂|w|,

is its share in all paths from input to output. The scores of all weights into a neuron sum to those out of it, so every layer
has the same total (theorem 2 of the paper), and removing in many small rounds keeps layers from collapsing.
"""

from collections.abc import Iterable, Mapping
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from annealsubnet.baselines.selection import Result, from_scores, traced
from annealsubnet.budgets import Keep, budget_of, keep_best
from annealsubnet.losses import Loss, cross_entropy
from annealsubnet.networks import Network, Params

Scores = dict[str, np.ndarray]


def synflow(
    model: Any,
    batches: Iterable[Any] | None = None,
    *,
    keep: Keep,
    unit: str = "weight",
    scope: str = "network",
    exclude: Iterable[str] = (),
    seed: int = 0,
    loss: Loss = cross_entropy,
    rounds: int = 100,
) -> Result:
    """Keep the units with the most synaptic flow, scored anew after each of `rounds` removals.

        score = |w| ∂R/∂|w|,    R = Σ outputs of the network with |parameters| on ones;    after round r of R: keep^(r/R) stay

    A neuron's or head's score is g ∂R/∂g of its gate g: the sum of the scores of the weights that feed it. BatchNorms are in
    evaluation mode with absolute scale and shift; the running mean of one that stands right behind a layer is left out (it is
    zero in the untrained networks of the paper, and no path from the input goes through it). Made for ReLU networks: an
    activation function that saturates on ones stops the flow.

    Args:
        model, keep, unit, scope, exclude, seed, loss: as in `annealsubnet.baselines`.
        batches: only the shape of the first is read; None where the model has an example.
        rounds: of removal, with the paper's exponential schedule.

    Returns:
        The mask, and the model with zeros for what it removes.

    Raises:
        ValueError: if the inputs are not real numbers, rounds is below 1, the flow overflows, and as
            `annealsubnet.budgets.budget_of`.

    Example:
        >>> import jax.numpy as jnp, numpy as np
        >>> from annealsubnet import from_function
        >>> model = from_function(lambda params, inputs, tap: tap.dense("2", tap.dense("1", inputs)), {
        ...     "1": {"kernel": jnp.array([[3.0, 2.0]])}, "2": {"kernel": jnp.array([[1.0], [4.0]])}}, example=np.ones((1, 1)))
        >>> mask, pruned = synflow(model, None, keep=2)
        >>> mask.kept["1"].tolist(), mask.kept["2"].tolist()
        ([[False, True]], [[False], [True]])

    References:
        Tanaka, Kunin, Yamins, Ganguli, "Pruning neural networks without any data by iteratively conserving synaptic flow",
        NeurIPS 2020, algorithm 1; theorems 1 and 2 are the laws of conservation.
    """
    if rounds < 1:
        raise ValueError(f"rounds is at least 1, not {rounds}.")
    network = traced(model, batches)
    if not jnp.issubdtype(network.example.dtype, jnp.floating):
        raise ValueError(f"SynFlow runs the network on ones, so inputs must be real numbers, not {network.example.dtype}.")
    budget = budget_of(network, keep=keep, unit=unit, scope=scope, exclude=exclude)
    flow = network.jitted("synaptic flow", unit)(partial(_weight_flow if unit == "weight" else _gate_flow, network, unit))
    kept: Mapping[str, np.ndarray] = {name: np.ones(shape, bool) for name, shape in budget.shapes.items()}
    scores: Scores = {}
    for number in range(1, rounds + 1):
        flows = {name: np.asarray(values, np.float64) for name, values in flow(network.params, kept).items()}
        _check(flows)
        # What has gone never comes back, not even before a unit through which nothing flows any more.
        scores = {name: np.where(kept[name], flows[name], -1.0) for name in budget.selected}
        kept = keep_best(scores, budget.stage(number / rounds))
    return from_scores(model, network, scores, budget)


def _weight_flow(network: Network, unit: str, params: Params, kept: Params) -> dict[str, jax.Array]:
    """|w| ∂R/∂|w| of every weight, by layer."""
    magnitudes = {path: jnp.abs(value) for path, value in params.items()}
    kernels = {name: magnitudes[layer.kernel] * kept[name] for name, layer in network.layers.items()}

    def total(values: Params) -> jax.Array:
        paths = {layer.kernel: values[name] for name, layer in network.layers.items()}
        return _run(network, {**magnitudes, **paths}, {})

    return {name: kernels[name] * gradient for name, gradient in jax.grad(total)(kernels).items()}


def _gate_flow(network: Network, unit: str, params: Params, kept: Params) -> dict[str, jax.Array]:
    """g ∂R/∂g of every gate, by site."""
    magnitudes = {path: jnp.abs(value) for path, value in params.items()}
    gates = {name: jnp.asarray(kept[name], jnp.float32) for name in network.sites(unit)}
    gradients = jax.grad(lambda factors: _run(network, magnitudes, factors))(gates)
    return {name: gates[name] * gradient for name, gradient in gradients.items()}


def _run(network: Network, params: Params, gates: Params) -> jax.Array:
    """R: the sum of the outputs on one input of ones, the running means of BatchNorms left out."""
    ones = jnp.ones((1, *network.example.shape[1:]), network.example.dtype)
    norms = {norm.name: norm for norm in network.norms.values()}
    # Nothing comes through kernels of zeros, so a norm behind a layer returns (0 − mean) scale / √var + bias: shift it to bias.
    silent = {layer.kernel for layer in network.layers.values()} | {layer.bias for layer in network.layers.values()}
    muted = {path: jnp.zeros_like(value) if path in silent else value for path, value in params.items()}
    _, records = network.run(muted, ones, record=norms)
    biases = {name: 0.0 if norm.bias is None else params[norm.bias] for name, norm in norms.items()}
    shifts = {name: jax.lax.stop_gradient(biases[name] - records[name][1]) for name in norms}
    return network.run(params, ones, gates=gates, shifts=shifts)[0].sum()


def _check(flows: Mapping[str, np.ndarray]) -> None:
    for name, flow in flows.items():
        if not np.isfinite(flow).all():
            raise ValueError(
                f"The synaptic flow of layer {name!r} is NaN or infinite: the product of all layers overflows float32."
            )
