"""The Boltzmann distribution of masks at a temperature, while nothing couples the units.

With scores s and a price μ a kept unit, E(x) = −Σ_i (s_i − μ) x_i, and its Boltzmann distribution at temperature T is a
product,

    P(x_i = 1) = σ((s_i − μ) / T),

sampled at once by x_i = [s_i − μ + T·ξ_i > 0] with ξ logistic. The price is the one at which the expected number of kept units
is the number asked for, so no squared penalty is needed. At T = 0 the mask is the ground state, the units of largest score.
"""

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from annealsubnet.budgets import Budget
from annealsubnet.networks import Layer

_HALVINGS = 22
_COLDEST = 1e-30  # stands for zero where something is divided by the temperature


def prices(scores: Mapping[str, jax.Array], temperature: Any, budget: Budget, more: Any = 1.0) -> dict[str, jax.Array]:
    """The price of each site's units, as an array that broadcasts to their shape.

    One price over all sites, one a site, or one a neuron, as the budget's scope says.

    Args:
        scores: by site.
        temperature: in units of the scores; None for zero, where the count is that of the ground state.
        budget: how many units stay.
        more: times as many are wanted (a schedule that starts from more).
    """
    if budget.scope == "network":
        flat = jnp.concatenate([array.ravel() for array in scores.values()])
        price = _price(flat, budget.total * more, temperature)
        return {name: price.reshape((1,) * array.ndim) for name, array in scores.items()}
    found = {}
    for name, array in scores.items():
        columns = _columns(array, budget, name)
        found[name] = _spread(_price(columns, budget.counts[name] * more, temperature), array, budget.layers.get(name))
    return found


def expected(scores: Mapping[str, jax.Array], price: Mapping[str, Any], temperature: jax.Array) -> dict[str, jax.Array]:
    """The probability that each unit is kept; at temperature zero ½ for units that are worth just their price."""
    scale = jnp.maximum(temperature, _COLDEST)
    return {name: jax.nn.sigmoid((array - price[name]) / scale) for name, array in scores.items()}


def drawn(
    scores: Mapping[str, jax.Array], price: Mapping[str, Any], temperature: jax.Array, key: jax.Array
) -> dict[str, jax.Array]:
    """A mask from the Boltzmann distribution, as zeros and ones."""
    masks = {}
    for number, (name, array) in enumerate(scores.items()):
        noise = jax.random.logistic(jax.random.fold_in(key, number), array.shape)
        masks[name] = (array - price[name] + temperature * noise > 0).astype(jnp.float32)
    return masks


def _columns(array: jax.Array, budget: Budget, name: str) -> jax.Array:
    """Units that compete with each other along the first axis."""
    if budget.scope != "neuron":
        return array.ravel()
    layer = budget.layers[name]
    return jnp.asarray(layer.matrix(array)).transpose(1, 0, 2).reshape(layer.fan_in, -1)


def _spread(price: jax.Array, array: jax.Array, layer: Layer | None) -> jax.Array:
    if layer is None:
        return price.reshape((1,) * array.ndim)
    per_group = price.reshape(layer.groups, 1, -1)
    return jnp.asarray(layer.from_matrix(jnp.broadcast_to(per_group, (layer.groups, layer.fan_in, per_group.shape[-1]))))


def _price(columns: jax.Array, count: Any, temperature: Any) -> jax.Array:
    """μ with Σ σ((s − μ)/T) = count in each column, by bisection."""
    # Sums run over a flat array or down the columns of a matrix; XLA takes a hundred times as long for a single column.
    reach = 1e-6 if temperature is None else 20.0 * temperature + 1e-6
    low, high = columns.min(axis=0) - reach, columns.max(axis=0) + reach

    def kept(price: jax.Array) -> jax.Array:
        if temperature is None:
            return jnp.sum(columns > price, axis=0)
        return jax.nn.sigmoid((columns - price) / temperature).sum(axis=0)

    def halve(_: int, bounds: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, jax.Array]:
        middle = 0.5 * (bounds[0] + bounds[1])
        many = kept(middle) > count
        return jnp.where(many, middle, bounds[0]), jnp.where(many, bounds[1], middle)

    _, above = jax.lax.fori_loop(0, _HALVINGS, halve, (low, high))
    return jnp.where(count >= columns.shape[0], low, above)


def ground_state(scores: Mapping[str, Any], budget: Budget, price: float | None) -> dict[str, np.ndarray]:
    """The mask of least energy: exactly as many units as the budget says, or all whose score is above the price."""
    from annealsubnet.budgets import keep_best

    if price is not None:
        return {name: np.asarray(scores[name]) > price for name in budget.selected}
    kept = keep_best(scores, budget)
    return {name: kept[name] for name in budget.selected}
