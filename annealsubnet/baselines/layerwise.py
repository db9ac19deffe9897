"""Layer by layer: what the methods share that choose the weights of one layer at a time, from the second moment of its inputs.

For a layer z = W'a with weights w of each neuron they all look at the error that its outputs suffer on calibration data,

    E (w'a - v'a)^2 = (w - v)' H (w - v),        H = E[a a'],        v sparse,

and differ in how they choose the support of v, and whether they change what stays. Sequential methods take H from the network
whose earlier layers are pruned already; the others from the dense one. How many weights each neuron of each layer keeps, where
the budget doesn't say it, is the division of `prune(curvature=False)`, so that methods differ in the choice alone.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import jax.numpy as jnp
import numpy as np
from jaxtyping import Bool, Float, Int

from annealsubnet.baselines.selection import Result, traced_on_data
from annealsubnet.budgets import Budget, Keep
from annealsubnet.losses import Loss
from annealsubnet.masks import Mask
from annealsubnet.networks import Network, Params
from annealsubnet.patterns import Pattern, parse_pattern, pattern_budget
from annealsubnet.shares import importance_of, weight_counts
from annealsubnet.statistics.moments import input_moments, ridge_target


@dataclass(frozen=True)
class Task:
    """The weights of one layer (one group of a grouped convolution) that a method is to choose from.

    Attributes:
        gram: H.
        weights: dense weights.
        num_kept: how many each neuron keeps. Methods that choose over the whole layer keep their sum, unless `by_neuron`.
        pattern: that the weights keep, or None.
        by_neuron: whether each neuron keeps exactly its own count (scope "neuron").
    """

    gram: Float[np.ndarray, "fan_in fan_in"]
    weights: Float[np.ndarray, "fan_in outputs"]
    num_kept: Int[np.ndarray, "outputs"]
    pattern: Pattern | None = None
    by_neuron: bool = False


Choice = tuple[Bool[np.ndarray, "fan_in outputs"], Float[np.ndarray, "fan_in outputs"]]
"""What stays, and the weights then: zero where nothing stays."""


@dataclass(frozen=True)
class Request:
    """What a method of this family is asked for: the arguments that all methods have."""

    name: str
    keep: Keep
    unit: str
    scope: str
    exclude: Iterable[str]
    pattern: str | None
    loss: Loss


Counts = Callable[[Network, Iterable[Any], Budget, Loss], dict[str, np.ndarray]]


def shared_counts(network: Network, batches: Iterable[Any], budget: Budget, loss: Loss) -> dict[str, np.ndarray]:
    """How many weights each neuron keeps, `[groups, outputs]` a layer, by the division of `prune(curvature=False)`."""
    if budget.scope == "neuron":
        shapes = {name: (layer.groups, layer.outputs // layer.groups) for name, layer in network.layers.items()}
        return {name: np.full(shapes[name], budget.counts[name]) for name in budget.selected}
    importance = importance_of(network, batches, params=network.params, loss=loss)
    return weight_counts(network, batches, budget, importance, params=network.params, loss=loss)


def choose_by_layer(
    model: Any,
    batches: Iterable[Any] | None,
    request: Request,
    choose: Callable[[Task], Choice],
    *,
    sequential: bool,
    counts: Counts = shared_counts,
) -> Result:
    """Run a method over all layers.

    Args:
        model: the user's, in any of its forms; it is not changed.
        batches: calibration inputs or (inputs, labels); labels are not read.
        request: what was asked for.
        choose: the method, for one layer.
        sequential: whether each layer's moments are taken after the layers before it have been pruned.
        counts: how many weights each neuron keeps.

    Raises:
        ValueError: for another unit than weights, a pattern of blocks, and as `pattern_budget`.
    """
    if request.unit != "weight":
        raise ValueError(f"{request.name} chooses weights; give unit='weight', not {request.unit!r}.")
    form = None if request.pattern is None else parse_pattern(request.pattern)
    if form is not None and form.is_block:
        raise ValueError(f"{request.name} keeps patterns N:M, not blocks such as {request.pattern!r}.")
    network = traced_on_data(model, batches, request.name)
    data = batches or ()
    budget = pattern_budget(
        network, request.pattern, keep=request.keep, unit="weight", scope=request.scope, exclude=request.exclude
    )
    shares = counts(network, data, budget, request.loss)
    params: Params = dict(network.params)
    dense = None if sequential else input_moments(network, data, layers=list(shares))
    kept = {name: np.ones(shape, bool) for name, shape in budget.shapes.items()}
    for name, number in shares.items():
        layer = network.layers[name]
        moments = dense[name] if dense else input_moments(network, data, params=params, layers=[name])[name]
        weights = layer.weight_matrix(network.params)
        by_neuron = budget.scope == "neuron"
        tasks = [Task(moments.gram[group], weights[group], number[group], form, by_neuron) for group in range(layer.groups)]
        stays, changed = (np.stack(parts) for parts in zip(*map(choose, tasks), strict=True))
        kept[name] = layer.from_matrix(stays)
        params = {**params, layer.kernel: jnp.asarray(layer.from_matrix(changed), params[layer.kernel].dtype)}
    mask = Mask.of(network, "weight", kept)
    return mask, network.model.export(mask.multiply(params))


def damped(gram: Float[np.ndarray, "fan_in fan_in"], ridge: float) -> Float[np.ndarray, "fan_in fan_in"]:
    """H with `ridge` times the mean of its diagonal added to it; 1 where all inputs are dead."""
    mean = float(np.diag(gram).mean())
    return gram + (ridge * mean if mean > 0 else 1.0) * np.eye(len(gram))


def damped_target(
    gram: Float[np.ndarray, "fan_in fan_in"], weights: Float[np.ndarray, "fan_in outputs"], ridge: float
) -> tuple[Float[np.ndarray, "fan_in fan_in"], Float[np.ndarray, "fan_in outputs"]]:
    """`damped` H, and the weights w towards which (w − v)' H (w − v) then draws."""
    return damped(gram, ridge), ridge_target(gram, weights)
