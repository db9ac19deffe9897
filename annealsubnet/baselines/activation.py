"""Activation pruning: units that say little matter least."""

from collections.abc import Iterable
from typing import Any

from annealsubnet.baselines.selection import Result, comparable, from_scores, traced_on_data
from annealsubnet.budgets import Keep, budget_of
from annealsubnet.losses import Loss, cross_entropy
from annealsubnet.statistics.gates import by_site, unit_activations


def activation(
    model: Any,
    batches: Iterable[Any] | None,
    *,
    keep: Keep,
    unit: str = "neuron",
    scope: str = "network",
    exclude: Iterable[str] = (),
    seed: int = 0,
    loss: Loss = cross_entropy,
) -> Result:
    """Keep the neurons or heads with the largest mean activation: score_u = E|a_u| / √Σ_v (E|a_v|)², v over u's own site.

    The activation is what later layers read, behind the activation function and pooling, so that for a ReLU the absolute value
    changes nothing. The norm, from the paper of 2017, makes layers comparable. Labels are not read.

    Args:
        model, batches, keep, scope, exclude, seed, loss: as in `annealsubnet.baselines`.
        unit: "neuron" or "head"; a weight has no activation of its own.

    Returns:
        The mask, and the model with zeros for what it removes.

    Raises:
        ValueError: for weights, and as `annealsubnet.budgets.budget_of`.

    Example:
        >>> import jax, jax.numpy as jnp, numpy as np
        >>> from annealsubnet import from_function
        >>> def mlp(params, inputs, tap):
        ...     return tap.dense("out", jax.nn.relu(tap.dense("hidden", inputs)))
        >>> params = {"hidden": {"kernel": jnp.diag(jnp.array([1.0, 5.0, 2.0]))}, "out": {"kernel": jnp.ones((3, 2))}}
        >>> mask, pruned = activation(from_function(mlp, params), [np.ones((4, 3), np.float32)], keep=2, unit="neuron")
        >>> mask.kept["hidden"].tolist()
        [False, True, True]

    References:
        Polyak and Wolf, "Channel-Level Acceleration of Deep Face Representations", IEEE Access 2015; Molchanov, Tyree, Karras,
        Aila, Kautz, "Pruning Convolutional Neural Networks for Resource Efficient Inference", ICLR 2017, section 2.2
        ("Activation").
    """
    if unit == "weight":
        raise ValueError(
            "activation ranks neurons and heads; a weight has no activation of its own: give unit='neuron' or 'head'."
        )
    network = traced_on_data(model, batches, "activation")
    budget = budget_of(network, keep=keep, unit=unit, scope=scope, exclude=exclude)
    statistics = unit_activations(network, batches or (), unit=unit, sites=budget.selected)
    return from_scores(model, network, comparable(by_site(statistics.places, statistics.mean_absolute)), budget)
