"""Shares: how many units each layer, site or neuron keeps of a budget that they have in common."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from jaxtyping import Int

from annealsubnet.allocation import Allocation, allocate, allocate_over_layers
from annealsubnet.arguments import check_whole
from annealsubnet.batches import first_inputs, stream
from annealsubnet.budgets import Budget, budget_of
from annealsubnet.evaluation import operations, positions
from annealsubnet.layer_costs import LayerCurves, divide
from annealsubnet.losses import Loss, check_loss, cross_entropy
from annealsubnet.networks import Network, Params, Site, as_network
from annealsubnet.problems import site_problem
from annealsubnet.refitting import RIDGE
from annealsubnet.selection import Choice, Importance, read_part, stack
from annealsubnet.solvers.greedy import eliminate
from annealsubnet.solvers.select_refit import ErrorCurves, error_curves, unit_curve
from annealsubnet.solvers.threads import by_group
from annealsubnet.statistics.curvature import neuron_curvature, sketched_curvature
from annealsubnet.statistics.moments import Regression, input_moments, self_regression
from annealsubnet.statistics.passes import num_outputs
from annealsubnet.statistics.row_curvature import RowCurvature, as_rows, own_row_regressions

_MOST_WORK = 2e10
"""Operations of a pass over the batches beyond which curvature is estimated."""
_ELIMINATED, _LONG = 1_024, 0.4
"""Inputs of a neuron up to which its error curve is that of backward elimination, which takes a time of their cube; and the
share of them from which forward selection takes longer (768 inputs: 22 ms a neuron; forward to .4 of them 19, to all 290)."""
_LEAST_RIDGE = 1e-6
"""Of error curves, so that dependent inputs do no harm."""


@dataclass(frozen=True)
class WeightCurves:
    """What every neuron's error would be with any number of its weights; any budget is divided by them at once.

    Attributes:
        errors: by layer, neuron after neuron, its error after the refit with 0, 1, 2, … weights, in units of the loss.
        costs: by layer, what one weight costs: {"weights": 1, "flops": for one example, "bytes": its value and its place}.
    """

    errors: Mapping[str, list[np.ndarray]]
    costs: Mapping[str, Mapping[str, int]]

    def __repr__(self) -> str:
        return f"WeightCurves({sum(map(len, self.errors.values())):,} neurons in {len(self.errors)} layers)"

    def divide(self, total: int, *, cost: str = "weights") -> tuple[dict[str, Int[np.ndarray, "neurons"]], Allocation]:
        """How many weights each neuron of each layer keeps so that all of them cost at most `total`, and how good that is.

        The sums by layer are a `keep` for `annealsubnet.prune`, for which no layer may have none.

        Raises:
            ValueError: if all weights cost less, or the cost is unknown.
        """
        known = ("weights", "flops", "bytes")
        if cost not in known:
            raise ValueError(f"cost is {cost!r}; give one of {', '.join(map(repr, known))}.")
        costs = np.concatenate([np.full(len(curves), self.costs[name][cost]) for name, curves in self.errors.items()])
        found = allocate([curve for curves in self.errors.values() for curve in curves], total, costs=costs)
        ends = np.cumsum([len(curves) for curves in self.errors.values()])[:-1]
        return dict(zip(self.errors, np.split(found.counts, ends), strict=True)), found


def weight_curves(
    model: Any, batches: Iterable[Any], *, exclude: Iterable[str] = (), max_kept: int | None = None, loss: Loss = cross_entropy
) -> WeightCurves:
    """The error curves of all neurons of a dense network, each along one greedy path.

    Args:
        model, batches, exclude, loss: as in `annealsubnet.prune`.
        max_kept: how far curves are followed, at least 1; to the end by default.

    Raises:
        ValueError: as `annealsubnet.prune`, or for a `max_kept` below 1.
        TypeError: for a `max_kept` that is no whole number.
    """
    if max_kept is not None:
        check_whole("max_kept", max_kept, 1)
    network = as_network(model, None if isinstance(model, Network) else first_inputs(batches))
    names = budget_of(network, keep=1.0, unit="weight", scope="layer", exclude=exclude).selected
    importance = importance_of(network, batches, params=network.params, loss=loss)
    moments = input_moments(network, batches, layers=names)
    times, errors, costs = positions(network), {}, {}
    for name in names:
        layer = network.layers[name]
        longest = layer.fan_in if max_kept is None else min(layer.fan_in, int(max_kept))
        regression = self_regression(layer, moments[name], network.params)
        curves = _weight_curves(regression, layer.weight_matrix(network.params), longest, RIDGE)
        errors[name] = curves.weighted(importance[name])
        place = 2 if layer.fan_in <= 2**16 else 4
        costs[name] = {
            "weights": 1,
            "flops": 2 * times[name],
            "bytes": np.dtype(network.params[layer.kernel].dtype).itemsize + place,
        }
    return WeightCurves(errors, costs)


def importance_of(network: Network, batches: Iterable[Any], *, params: Params, loss: Loss) -> Importance:
    """What squared error in a layer's outputs costs the loss: ½ of their mean Gauss-Newton curvature.

    The outputs of one layer count alike: weighing each by its own curvature, which rests on the few examples that the network
    is unsure of, chose no better neurons (docs/history.md, "Neurons"). Where a pass back for every class is costly, the mean is
    estimated from one.

    Raises:
        ValueError: for outputs that are not one vector an example.
        TypeError: for what is no loss.
    """
    check_loss(loss)
    num_outputs(network)
    work = operations(network) * sum(len(inputs) for inputs, _ in stream(batches))
    if work > _MOST_WORK:
        curvature = sketched_curvature(network, batches, seed=0, loss=loss, params=params)
    else:
        curvature = neuron_curvature(network, batches, loss=loss, params=params)
    importance = {}
    for name, layer in network.layers.items():
        mean = 0.5 * float(curvature[name].mean())
        importance[name] = np.full((layer.groups, layer.outputs // layer.groups), mean if mean > 0 else 1.0)
    return importance


def weight_counts(
    network: Network,
    batches: Iterable[Any],
    budget: Budget,
    importance: Importance,
    *,
    params: Params,
    ridge: float = RIDGE,
    curvature: RowCurvature | None = None,
    loss: Loss = cross_entropy,
) -> dict[str, np.ndarray]:
    """How many inputs each neuron keeps, `[groups, outputs]` for each selected layer, after a refit with this ridge.

    With the curvature of rows all errors are in units of the loss, and the importance of layers is not read; else layers of
    convolutional networks are weighed by the distance that the loss gives (`annealsubnet.layer_costs`).
    """
    layers = {name: network.layers[name] for name in budget.selected}
    shapes = {name: (layer.groups, layer.outputs // layer.groups) for name, layer in layers.items()}
    if budget.scope == "neuron":
        return {name: np.full(shapes[name], budget.counts[name]) for name in layers}
    moments = input_moments(network, batches, params=params, layers=layers)
    regressions = {name: self_regression(layer, moments[name], params) for name, layer in layers.items()}
    weights = {name: layer.weight_matrix(params) for name, layer in layers.items()}
    longest = {name: _longest(budget, name, layer.fan_in) for name, layer in layers.items()}
    if curvature is None:
        curves = {name: _weight_curves(regressions[name], weights[name], longest[name], ridge) for name in layers}
        if budget.scope == "network":
            return divide(network, batches, curves, importance, budget.total, params=params, loss=loss)
        weighted = {name: curves[name].weighted(importance[name]) for name in layers}
    else:
        rows = own_row_regressions(network, batches, regressions, params=params, curvature=curvature)
        weighted = {
            name: _weight_curves(own.regression, as_rows(weights[name]), longest[name], ridge).weighted(own.cost)
            for name, own in rows
        }
    if budget.scope == "network":
        return {name: counts.reshape(shapes[name]) for name, counts in allocate_over_layers(weighted, budget.total).items()}
    return {name: allocate(weighted[name], budget.counts[name]).counts.reshape(shapes[name]) for name in layers}


def _longest(budget: Budget, name: str, fan_in: int) -> int:
    """How far error curves are followed: well beyond the mean, for a neuron may get several times its share."""
    share = budget.counts[name] / np.prod(budget.shapes[name]) if budget.scope == "layer" else budget.total / budget.size
    return fan_in if share > 0.25 else max(min(fan_in, 64), int(np.ceil(min(1.0, 4 * share) * fan_in)))


def _weight_curves(regression: Regression, weights: np.ndarray, longest: int, ridge: float) -> LayerCurves:
    """By backward elimination where that is affordable: its errors are nearer to those of the supports that will be chosen."""
    centered = regression.centered().drawn_to(weights, max(ridge, _LEAST_RIDGE))
    inputs = regression.gram.shape[-1]
    path: Literal["backward", "forward"] = "backward" if inputs <= _ELIMINATED or longest > _LONG * inputs else "forward"
    options: dict[str, Any] = {"method": path, "max_kept": longest, "ridge": max(ridge, _LEAST_RIDGE)}

    def curves(group: int, threads: int | None) -> ErrorCurves:
        moments = centered.gram[group], centered.cross[group], centered.target_energy[group]
        return error_curves(*moments, num_threads=threads, **options)

    return LayerCurves(regression, tuple(by_group(curves, len(centered.gram))))


def site_counts(
    network: Network,
    batches: Iterable[Any],
    budget: Budget,
    importance: Importance,
    *,
    choice: Choice,
    params: Params,
) -> dict[str, int]:
    """How many units each selected site keeps."""
    if budget.scope == "layer":
        return dict(budget.counts)
    sites = {name: network.sites(budget.unit)[name] for name in budget.selected}
    readers = {consumer for site in sites.values() for consumer in site.consumers}
    moments = input_moments(network, batches, params=params, layers=[name for name in network.layers if name in readers])
    regressions = {name: self_regression(network.layers[name], moments[name], params) for name in readers}
    curves = [_unit_curve(network, site, regressions, params, importance, choice) for site in sites.values()]
    counts = allocate(curves, budget.total, least=1).counts
    return dict(zip(sites, counts.tolist(), strict=True))


def _unit_curve(
    network: Network, site: Site, regressions: Mapping[str, Regression], params: Params, importance: Importance, choice: Choice
) -> np.ndarray:
    """The error, after the refit if there is one, for every number of units; those that nobody reads come last, for nothing."""
    part, read = read_part(site)
    if choice.refit:
        stacked = stack(network, part, regressions, params, importance=importance, ridge=choice.ridge)
        curve = unit_curve(stacked.gram, stacked.cross, stacked.energy, unit_of_input=stacked.unit_of_input, ridge=0.0)
    else:
        curve = eliminate(site_problem(part, regressions, network.layers, params, importance=importance)).energy
    return np.pad(curve, (0, read.size - part.size), mode="edge")
