"""OSSCAR: neurons by local search on the error after the refit, one layer after the other."""

from collections.abc import Iterable
from typing import Any

import jax.numpy as jnp
import numpy as np
from jaxtyping import Bool, Float, Int

from annealsubnet.arguments import check_whole
from annealsubnet.baselines.selection import Result, traced_on_data
from annealsubnet.budgets import Keep, budget_of
from annealsubnet.losses import Loss, cross_entropy
from annealsubnet.masks import Mask
from annealsubnet.networks import Network, Params
from annealsubnet.refitting import kept_weights, refit_layer
from annealsubnet.selection import Choice, read_part, stack, with_unread
from annealsubnet.shares import importance_of, site_counts
from annealsubnet.statistics.moments import targeted_regression
from annealsubnet.statistics.row_curvature import layer_targets
from annealsubnet.statistics.targets import LayerTargets

_TIE = 1e-10  # of the error: an exchange that gains less is rounding


def osscar(
    model: Any,
    batches: Iterable[Any] | None,
    *,
    keep: Keep,
    unit: str = "neuron",
    scope: str = "layer",
    exclude: Iterable[str] = (),
    seed: int = 0,
    loss: Loss = cross_entropy,
    ridge: float = 1e-2,
    steps: int = 8,
) -> Result:
    """Remove neurons a few at a time, exchanging kept for removed ones in between, on the error of the refitted next layers.

    With H the second moment of all that the layers after a site read and B its moments with what they should return, the error
    is tr B_S' (H_SS)⁻¹ B_S below that of returning nothing; it is followed through rank-one (block) updates of the inverse.

    Args:
        model, batches, keep, scope, exclude, seed, loss: as in `annealsubnet.baselines`; labels are not read.
        unit: "neuron" or "head".
        ridge: in units of the mean of H's diagonal.
        steps: in which neurons are removed.

    Returns:
        The mask, and the model with zeros for what it removes and the layers after it refitted.

    Raises:
        ValueError: for weights, steps below 1 or a bad ridge, and as `budget_of`.

    References:
        Meng, Ibrahim, Behdin, Hazimeh, Ponomareva, Mazumder, "OSSCAR: One-Shot Structured Pruning in Vision and Language Models
        with Combinatorial Optimization", ICML 2024, problem 3 and algorithm 1 (local search).
    """
    if unit == "weight":
        raise ValueError("osscar chooses neurons and heads; give unit='neuron' or 'head'.")
    check_whole("steps", steps, 1)
    choice = Choice(ridge=ridge)
    network = traced_on_data(model, batches, "osscar")
    data = batches or ()
    budget = budget_of(network, keep=keep, unit=unit, scope=scope, exclude=exclude)
    importance = importance_of(network, data, params=network.params, loss=loss)
    counts = site_counts(network, data, budget, importance, choice=choice, params=network.params)
    params: Params = dict(network.params)
    kept: dict[str, np.ndarray] = {}
    targets = layer_targets(network, data, network.layers, weighed=(), target_params=network.params)
    for name, count in counts.items():
        site = network.sites(unit)[name]
        undecided = [network.sites(unit)[other] for other in counts if other not in kept]
        targets.advance(network.in_order(member for other in undecided for member in other.members)[0], params)
        branch, readers = targets.branch(), network.in_order(site.consumers)
        regressions = {reader: targeted_regression(network, reader, branch.of(reader, params)) for reader in readers}
        part, read = read_part(site)
        stacked = stack(network, part, regressions, params, importance=importance, ridge=ridge)
        chosen = search(stacked.gram, stacked.cross, stacked.unit_of_input, min(count, part.size), steps=steps)
        kept[name] = with_unread(chosen, read, count)
        mask = Mask.of(network, unit, kept)
        params = mask.multiply(_refitted(network, mask, readers, targets.branch(), params, ridge))
    mask = Mask.of(network, unit, kept)
    return mask, network.model.export(mask.multiply(params))


def search(
    gram: Float[np.ndarray, "inputs inputs"],
    cross: Float[np.ndarray, "inputs outputs"],
    unit_of_input: Int[np.ndarray, "inputs"],
    num_kept: int,
    *,
    steps: int,
) -> Bool[np.ndarray, "units"]:
    """Removal in steps, each followed by exchanges until none helps.

    Args:
        gram: H, with its ridge.
        cross: B.
        unit_of_input: the unit of each input; −1 for those that always stay.
        num_kept: how many units stay.
        steps: in which the others go.
    """
    units = int(unit_of_input.max()) + 1
    kept = np.ones(units, bool)
    for target in np.unique(np.linspace(units, num_kept, steps + 1).round().astype(int))[::-1][1:]:
        while kept.sum() > target:
            inverse, weights = _solution(gram, cross, kept, unit_of_input)
            costs = np.full(units, np.inf)
            for unit in np.flatnonzero(kept):
                costs[unit] = _removal(inverse, weights, unit_of_input == unit)
            # Several at a time while many are left to go: the cheapest by themselves, as the paper removes them.
            some = max(1, int(kept.sum() - target) // 4)
            kept[np.argsort(costs, kind="stable")[:some]] = False
        kept = _exchanges(gram, cross, kept, unit_of_input)
    return kept


def _exchanges(gram: np.ndarray, cross: np.ndarray, kept: np.ndarray, unit_of_input: np.ndarray) -> np.ndarray:
    """Bring the best removed unit back and remove the cheapest, for as long as the error falls."""
    kept = kept.copy()
    explained = _explained(gram, cross, kept, unit_of_input)
    while not kept.all():
        inverse, weights = _solution(gram, cross, kept, unit_of_input)
        inside = np.append(kept, True)[unit_of_input]
        residual = cross - gram @ weights
        projected = gram[:, inside] @ inverse[np.ix_(inside, inside)]
        gains = np.full(len(kept), -np.inf)
        for unit in np.flatnonzero(~kept):
            rows = np.flatnonzero(unit_of_input == unit)
            schur = gram[np.ix_(rows, rows)] - projected[rows] @ gram[np.ix_(np.flatnonzero(inside), rows)]
            gains[unit] = np.sum(residual[rows] * np.linalg.solve(schur, residual[rows]))
        entering = int(np.argmax(gains))
        trial = kept.copy()
        trial[entering] = True
        inverse, weights = _solution(gram, cross, trial, unit_of_input)
        costs = [_removal(inverse, weights, unit_of_input == unit) if trial[unit] else np.inf for unit in range(len(kept))]
        trial[int(np.argmin(costs))] = False
        found = _explained(gram, cross, trial, unit_of_input)
        if found <= explained * (1 + _TIE):
            return kept
        kept, explained = trial, found
    return kept


def _solution(
    gram: np.ndarray, cross: np.ndarray, kept: np.ndarray, unit_of_input: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """(H_SS)⁻¹ and (H_SS)⁻¹ B_S, zero off the kept inputs."""
    inside = np.flatnonzero(np.append(kept, True)[unit_of_input])
    inverse, weights = np.zeros_like(gram), np.zeros_like(cross)
    block = np.linalg.inv(gram[np.ix_(inside, inside)])
    inverse[np.ix_(inside, inside)] = block
    weights[inside] = block @ cross[inside]
    return inverse, weights


def _removal(inverse: np.ndarray, weights: np.ndarray, rows: np.ndarray) -> float:
    """What removing some inputs costs: tr W_r' ([H⁻¹]_rr)⁻¹ W_r."""
    place = np.flatnonzero(rows)
    return float(np.sum(weights[place] * np.linalg.solve(inverse[np.ix_(place, place)], weights[place])))


def _explained(gram: np.ndarray, cross: np.ndarray, kept: np.ndarray, unit_of_input: np.ndarray) -> float:
    """tr B_S' (H_SS)⁻¹ B_S."""
    return float(np.sum(_solution(gram, cross, kept, unit_of_input)[1] * cross))


def _refitted(network: Network, mask: Mask, readers: list[str], targets: LayerTargets, params: Params, ridge: float) -> Params:
    """Parameters with layers that read pruned sites refitted, in the order of running."""
    for name in readers:
        layer = network.layers[name]
        masked = mask.multiply(params)
        regression = targeted_regression(network, name, targets.of(name, masked))
        params = refit_layer(layer, regression, kept_weights(network, mask, layer), masked, ridge=ridge)
    return {path: jnp.asarray(value) for path, value in params.items()}
