"""Frozen: neurons and heads chosen when nothing will be refitted, all sites together.

Without a refit nothing repairs what a removed unit leaves behind, except that other removals may cancel it. To second order in
the gates the network moves away from itself by D(x) (`annealsubnet.statistics.distance`), whose couplings, within a layer and
across layers, are just these cancellations. Each round measures D at the mask of the round before and keeps less.

The model is not the distance: far from where it was taken its lowest state need not be the best mask. So it is solved with a
small and a large charge for every flip, by the sampler and by greedy elimination, and of these candidates the one stays that is
measured nearest to the dense network (`annealsubnet.statistics.weight_distance.distance_to`: a pass forward for each).
"""

import logging
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

from annealsubnet.budgets import Budget
from annealsubnet.losses import Loss
from annealsubnet.masks import Mask
from annealsubnet.networks import Network
from annealsubnet.problems import Problem, gate_problem
from annealsubnet.selection import Choice, best_state
from annealsubnet.solvers.greedy import eliminate
from annealsubnet.statistics.distance import GateDistance, gate_distance
from annealsubnet.statistics.weight_distance import distance_to

logger = logging.getLogger(__name__)

# Rounds over the sites, each solved with the others held; a few suffice, for the energy falls in every one.
_SWEEPS = 6
# What a flip costs beyond the model, in units of its mean curvature; a candidate for each.
_RIDGES = (0.1, 1.0)


def select_frozen(
    network: Network,
    batches: Iterable[Any],
    budget: Budget,
    *,
    kept: Mapping[str, np.ndarray],
    choice: Choice,
    loss: Loss,
    seed: int,
) -> dict[str, np.ndarray]:
    """Masks of the selected sites that move the outputs of the network least.

    Args:
        network: traced.
        batches: calibration inputs; labels are not read.
        budget: of neurons or heads.
        kept: the present mask, around which the distance is expanded; sites that it leaves out are whole.
        choice: the sampler.
        loss: whose curvature measures the outputs' change.
        seed: of all that is random.
    """
    measured = gate_distance(network, batches, unit=budget.unit, sites=budget.selected, gates=kept, loss=loss)
    candidates = [
        state
        for ridge in _RIDGES
        for state in _candidates(measured, budget, ridge=ridge, choice=choice, seed=seed)
    ]  # fmt: skip
    masks = [{name: state[place] for name, place in measured.places.items()} for state in np.unique(candidates, axis=0)]
    if len(masks) == 1:
        return masks[0]
    distances = [
        distance_to(network, batches, params=Mask.of(network, budget.unit, mask).multiply(network.params), loss=loss)
        for mask in masks
    ]
    logger.info("candidates are at distances %s", ", ".join(f"{distance:.4g}" for distance in distances))
    return masks[int(np.argmin(distances))]


def _candidates(measured: GateDistance, budget: Budget, *, ridge: float, choice: Choice, seed: int) -> list[np.ndarray]:
    """The sampler's state and that of greedy elimination, both with the budget's counts."""
    places, at = measured.places, measured.gates > 0
    problem = distance_problem(measured, num_kept=budget.total, ridge=ridge)
    if budget.scope == "network":
        found = best_state(problem, choice, seed=seed), eliminate(problem).kept(budget.total)
        return [_with_one_each(state, problem, list(places.values())) for state in found]
    counts = [budget.counts[name] for name in places]
    eliminated = eliminate(problem, places=list(places.values()), counts=counts).kept(sum(counts))
    return [_by_layer(problem, places, budget.counts, at, choice, seed), eliminated]


def distance_problem(measured: GateDistance, *, num_kept: int | None = None, ridge: float = _RIDGES[0]) -> Problem:
    """The distance as a problem over the units of all sites, with a charge for every flip in units of the mean curvature."""
    return gate_problem(
        {name: place.stop - place.start for name, place in measured.places.items()},
        measured.curvature,
        gradient=measured.gradient,
        at=measured.gates,
        value=measured.value,
        ridge=ridge * float(np.diag(measured.curvature).mean()),
        num_kept=num_kept,
    )


def _by_layer(
    problem: Problem,
    places: Mapping[str, slice],
    counts: Mapping[str, int],
    state: np.ndarray,
    choice: Choice,
    seed: int,
) -> np.ndarray:
    """Each site keeps its own count: site after site, the others held, until the energy no longer falls."""
    state, best, least = state.copy(), state, np.inf
    for sweep in range(_SWEEPS):
        for number, (name, place) in enumerate(places.items()):
            part = _part(problem, place, state, counts[name])
            state[place] = best_state(part, choice, seed=seed + 100 * sweep + number)
        energy = float(problem.energy(state))
        if energy >= least - 1e-9 * abs(least):
            break
        least, best = energy, state.copy()
    return best


def _part(whole: Problem, place: slice, state: np.ndarray, num_kept: int) -> Problem:
    """One site's units, the others held at a state: their couplings become fields."""
    held = state.astype(np.float64)
    held[place] = 0.0
    couplings = whole.dense_couplings
    fields = whole.linear[place] + couplings[place] @ held
    return Problem(fields, couplings[place, place], float(whole.energy(held)), num_kept)


def _with_one_each(kept: np.ndarray, problem: Problem, places: list[slice]) -> np.ndarray:
    """Where a site lost all its units, its best one for the cheapest of another site."""
    kept = kept.copy()
    for place in places:
        if kept[place].any():
            continue
        fields = problem.linear + problem.dense_couplings @ kept
        best = place.start + int(np.argmin(fields[place]))
        spare = np.concatenate([np.arange(other.start, other.stop) for other in places if kept[other].sum() > 1])
        givers = spare[kept[spare]]
        kept[givers[np.argmax(fields[givers])]] = False
        kept[best] = True
    return kept
