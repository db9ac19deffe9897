"""Greedy elimination on the quadratic models that `prune` anneals: what coupling gives without annealing.

Weights: the squared error that removing inputs of a neuron makes in what it returns, before any refit,

    E(x) = (1 − x)ᵀ Q (1 − x),    Q = w wᵀ ∘ E[a aᵀ],

summed over neurons. Neurons and heads: the distance of the network from itself (`annealsubnet.statistics.distance`), which is
the model of `prune(refit=False)`. From all units kept, the one whose removal raises the sum least goes, again and again.
"""

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
from jaxtyping import Float, Int

from annealsubnet.baselines.selection import Result, from_scores, traced_on_data
from annealsubnet.budgets import Budget, Keep, budget_of
from annealsubnet.frozen import distance_problem
from annealsubnet.losses import Loss, cross_entropy
from annealsubnet.networks import Network
from annealsubnet.selection import Importance
from annealsubnet.shares import importance_of
from annealsubnet.solvers.greedy import eliminate
from annealsubnet.statistics.distance import gate_distance
from annealsubnet.statistics.moments import input_moments


def greedy(
    model: Any,
    batches: Iterable[Any] | None,
    *,
    keep: Keep,
    unit: str = "weight",
    scope: str = "network",
    exclude: Iterable[str] = (),
    seed: int = 0,
    loss: Loss = cross_entropy,
) -> Result:
    """Remove the unit that adds least to the energy, until as many stay as asked.

    Errors of the weights of different layers are weighed by the loss's mean Gauss-Newton curvature in their outputs, as in
    `prune`. All statistics are of the dense network; labels are not read.

    Args:
        model, batches, keep, unit, scope, exclude, seed, loss: as in `annealsubnet.baselines`.

    Returns:
        The mask, and the model with zeros for what it removes.

    Raises:
        ValueError: as `annealsubnet.budgets.budget_of`.

    Example:
        Either of two inputs that are always alike costs 1, both cost 4; the third costs 2.25. One by one they would go first:

        >>> import jax.numpy as jnp, numpy as np
        >>> from annealsubnet import from_function
        >>> params = {"out": {"kernel": jnp.array([[1.0, 0.0], [1.0, 0.0], [1.5, 0.0]])}}
        >>> model = from_function(lambda params, inputs, tap: tap.dense("out", inputs), params)
        >>> inputs = np.array([[1.0, 1.0, 1.0], [1.0, 1.0, -1.0]], np.float32)
        >>> greedy(model, [inputs], keep={"out": 1}, scope="neuron")[0].kept["out"][:, 0].tolist()
        [False, True, False]

    References:
        Singh and Alistarh, "WoodFisher", NeurIPS 2020, and Yu, Serra, Ramalingam, Zhe, "The Combinatorial Brain Surgeon", ICML
        2022, section 3, write pruning as such a quadratic problem; greedy elimination is the usual way through it. Removing
        one weight at a time goes back to Hassibi and Stork, "Second order derivatives for network pruning", NeurIPS 1992.
    """
    network = traced_on_data(model, batches, "greedy")
    budget = budget_of(network, keep=keep, unit=unit, scope=scope, exclude=exclude)
    if unit != "weight":
        return from_scores(model, network, _site_scores(network, batches or (), budget, loss), budget)
    importance = importance_of(network, batches or (), params=network.params, loss=loss)
    return from_scores(model, network, _weight_scores(network, batches or (), budget, importance), budget)


def _site_scores(network: Network, batches: Iterable[Any], budget: Budget, loss: Loss) -> dict[str, np.ndarray]:
    """When each neuron or head goes, over all sites."""
    measured = gate_distance(network, batches, unit=budget.unit, sites=budget.selected, loss=loss)
    counts = [budget.counts.get(name, 1) for name in measured.places]
    order = eliminate(distance_problem(measured), places=list(measured.places.values()), counts=counts).order
    when = np.argsort(order)
    return {name: when[place] for name, place in measured.places.items()}


def _weight_scores(network: Network, batches: Iterable[Any], budget: Budget, importance: Importance) -> dict[str, np.ndarray]:
    """When each weight goes, over all neurons."""
    layers = {name: network.layers[name] for name in budget.selected}
    moments = input_moments(network, batches, layers=layers)
    steps, rises = {}, {}
    for name, layer in layers.items():
        weights = layer.weight_matrix(network.params)
        groups = [eliminate_inputs(*group) for group in zip(moments[name].gram, weights, importance[name], strict=True)]
        steps[name] = np.concatenate([step for step, _ in groups], axis=1)
        rises[name] = np.concatenate([rise for _, rise in groups], axis=1)
    return {
        name: layers[name].from_matrix(when.reshape(len(when), layers[name].groups, -1).transpose(1, 0, 2))
        for name, when in _when(steps, rises).items()
    }


def _when(steps: Mapping[str, np.ndarray], rises: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """The place of each unit in one common elimination, from many that do not touch each other.

    The next unit of each is free once those before it have gone, so among all the next ones the least goes: a unit goes with
    the largest rise up to its own, and at once where those before it were larger.

    Args:
        steps: `[units, eliminations]`, the step of each unit within its own.
        rises: `[steps, eliminations]`, what each step costs.

    Returns:
        `[units, eliminations]`: 0 for the first unit of all to go.
    """
    ceilings = {name: np.maximum.accumulate(rise, axis=0) for name, rise in rises.items()}
    ceiling = {name: np.take_along_axis(ceilings[name], step, axis=0).ravel() for name, step in steps.items()}
    numbers = np.cumsum([0, *(step.shape[1] for step in steps.values())])
    which = [
        np.broadcast_to(np.arange(step.shape[1]) + first, step.shape).ravel()
        for step, first in zip(steps.values(), numbers[:-1], strict=True)
    ]
    order = np.lexsort(
        (
            np.concatenate([step.ravel() for step in steps.values()]),
            np.concatenate(which),
            np.concatenate(list(ceiling.values())),
        )
    )
    when = np.empty(len(order), np.int64)
    when[order] = np.arange(len(order))
    parts = np.split(when, np.cumsum([step.size for step in steps.values()])[:-1])
    return {name: part.reshape(step.shape) for (name, step), part in zip(steps.items(), parts, strict=True)}


def eliminate_inputs(
    gram: Float[np.ndarray, "fan_in fan_in"], weights: Float[np.ndarray, "fan_in outputs"], scale: Float[np.ndarray, "outputs"]
) -> tuple[Int[np.ndarray, "fan_in outputs"], Float[np.ndarray, "fan_in outputs"]]:
    """Greedy elimination of the inputs of many neurons that read the same inputs, all at once.

    Args:
        gram: H = E[a aᵀ].
        weights: of the neurons.
        scale: what squared error costs in each neuron.

    Returns:
        For each weight the step at which it went; and for each *step* by how much that raised its neuron's cost.
    """
    diagonal = np.diag(gram)[:, None] * weights**2
    # H (1 − x) ∘ w: what has gone so far, as each input meets it.
    gone = np.zeros_like(weights)
    steps = np.full(weights.shape, -1)
    rises = np.empty_like(weights)
    neurons = np.arange(weights.shape[1])
    for step in range(len(weights)):
        costs = np.where(steps >= 0, np.inf, diagonal + 2 * weights * gone)
        going = np.argmin(costs, axis=0)
        steps[going, neurons] = step
        rises[step] = costs[going, neurons] * scale
        gone += gram[:, going] * weights[going, neurons]
    return steps, rises
