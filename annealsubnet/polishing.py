"""Polish: exchanges of weights over all layers at once, when what is kept is refitted.

Each neuron's own selection serves its own output. The network's distance to the dense one couples neurons and layers; around
the present weights w_t, refitted, it is again a least-squares problem in the weights (`annealsubnet.statistics.weight_rows`),

    D(v) = ½ ‖A (v − w_t) + r‖² + ½ ρ Σ_i (h_i + h̄) (v_i − w_ti)²,

so that the best set of k weights, each with its refitted value, is best-subset regression with one target: the exact
select-and-refit of a single neuron, whose inputs are weights of the whole network. The ridge, in units of the diagonal h of
AᵀA, keeps the answer where the model may be trusted. Not all weights can take part: the members whose loss would cost least,
and the others whose gain g_i² / h_i is largest. A round selects, refits the whole network (`annealsubnet.fitting`), and is
undone if the measured distance did not fall.
"""

import logging
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import jax.numpy as jnp
import numpy as np

from annealsubnet.budgets import Budget
from annealsubnet.fitting import fit_network
from annealsubnet.losses import Loss
from annealsubnet.masks import Mask
from annealsubnet.networks import Network, Params
from annealsubnet.selection import Choice
from annealsubnet.solvers.select_refit import select_inputs
from annealsubnet.statistics.weight_distance import weight_distance
from annealsubnet.statistics.weight_rows import distance_rows

logger = logging.getLogger(__name__)

_MEMBERS, _OTHERS = 1200, 1200
"""Weights of both kinds that take part in one exchange: their moments are that many numbers squared."""
_ROWS_A_MEMBER = 5
"""Rows of the model for each member that is refitted in it, at least."""
_FULL_EFFORT = 100
"""Members up to which an exchange anneals all the sweeps asked for; beyond, so many fewer. A sweep of 1,200 members takes
seconds: on digits (a fifth kept, one seed) 25 of them took 66 s a round for the accuracy of descent, which takes one."""
_RIDGE = 0.03
"""ρ of the first round; it grows where a round fails."""
_STEPS, _PRODUCTS = 2, 20
"""Of the fit between two rounds."""


@dataclass(frozen=True)
class Polished:
    """Where polishing ended.

    Attributes:
        kept: by layer, in the kernel's own shape.
        params: refitted, with the mask's zeros.
        values: the distance to the dense network before and after every round that was kept.
    """

    kept: dict[str, np.ndarray]
    params: Params
    values: tuple[float, ...]


def polish_weights(
    network: Network,
    batches: Iterable[Any],
    budget: Budget,
    *,
    kept: Mapping[str, np.ndarray],
    params: Params,
    target_params: Params | None = None,
    rounds: int,
    choice: Choice,
    loss: Loss,
    seed: int,
) -> Polished:
    """Refit all layers together, and exchange weights between refits.

    Args:
        network: traced.
        batches: calibration inputs; labels are not read.
        budget: of weights; exchanges keep its counts: over the network, or within each layer. A budget of each neuron, or a
            pattern, is refitted but not exchanged.
        kept: the present masks of the budget's layers.
        params: present parameters.
        target_params: of the network whose outputs are kept to; the dense one's by default.
        rounds: of exchanges; 0 only refits.
        choice: how.
        loss: whose curvature measures the outputs' change.
        seed: of all that is random.
    """
    exchanged = rounds if budget.scope != "neuron" else 0
    masks = {name: np.array(array) for name, array in kept.items()}
    target = network.params if target_params is None else target_params
    fit = fit_network(network, Mask.of(network, "weight", masks), batches, params=params, target_params=target, loss=loss)
    params, value, values, ridge = fit.params, fit.value, [fit.start, fit.value], _RIDGE
    for number in range(exchanged):
        found, start = dict(masks), params
        for place, names in enumerate(_groups(budget)):
            drawn = seed + 101 * number + 7 * place
            found, start = _exchange(network, batches, names, found, start, target, ridge, choice, loss, drawn)
        mask = Mask.of(network, "weight", found)
        fit = fit_network(
            network, mask, batches, params=start, target_params=target, steps=_STEPS, products=_PRODUCTS, loss=loss
        )
        changed = sum(int((found[name] & ~masks[name]).sum()) for name in masks)
        logger.info("polish %d: %d exchanges, distance %.4g to %.4g", number + 1, changed, value, fit.value)
        if not fit.value < value:
            ridge *= 10
            continue
        masks, params, value = found, fit.params, fit.value
        values.append(value)
        if changed == 0:
            break
    return Polished(masks, params, tuple(values))


def _groups(budget: Budget) -> Iterator[tuple[str, ...]]:
    """Layers among which weights may be exchanged."""
    if budget.scope == "layer":
        yield from ((name,) for name in budget.selected)
    else:
        yield budget.selected


def _exchange(
    network: Network,
    batches: Iterable[Any],
    names: tuple[str, ...],
    masks: Mapping[str, np.ndarray],
    params: Params,
    target: Params,
    ridge: float,
    choice: Choice,
    loss: Loss,
    seed: int,
) -> tuple[dict[str, np.ndarray], Params]:
    """One selection among the weights of some layers, with the weights that the model fits."""
    measured = weight_distance(network, batches, params=params, target_params=target, seed=seed, loss=loss)
    layers = [network.layers[name] for name in names]
    weights = _joined(names, {layer.name: params[layer.kernel] for layer in layers})
    members, gradient, curvature = _joined(names, masks), _joined(names, measured.gradient), _joined(names, measured.curvature)
    active = _active(members, weights, gradient, curvature)
    count = int(members[active].sum())
    ends = np.cumsum([masks[name].size for name in names])
    chosen = {
        name: active[(active >= end - masks[name].size) & (active < end)] - (end - masks[name].size)
        for name, end in zip(names, ends.tolist(), strict=True)
    }
    rows = max(4000, _ROWS_A_MEMBER * count)
    factor = distance_rows(
        network, batches, rows=rows, seed=seed, params=params, target_params=target, chosen=chosen, loss=loss
    ).matrix
    gram = (factor.T @ factor).astype(np.float64)
    diagonal = np.diag(gram).copy()
    gram[np.diag_indices_from(gram)] += ridge * (diagonal + diagonal.mean())
    cross = gram @ weights[active] - gradient[active]
    found = select_inputs(
        gram,
        cross,
        float(weights[active] @ (gram @ weights[active])),
        count,
        seed=seed,
        ridge=1e-9,
        start=members[active][:, None],
        num_sweeps=max(1, choice.effort * _FULL_EFFORT // max(count, _FULL_EFFORT)),
        temperature="annealed" if choice.effort else "zero",
    )
    members, weights = members.copy(), weights.copy()
    members[active], weights[active] = found.kept[:, 0], found.coefficients[:, 0]
    return _replaced(network, names, masks, params, members, weights)


def _active(members: np.ndarray, weights: np.ndarray, gradient: np.ndarray, curvature: np.ndarray) -> np.ndarray:
    """The members that would be missed least, and the others that promise most, in order."""
    floor = 1e-6 * curvature.mean() + np.finfo(np.float64).tiny
    cost = np.where(members, weights**2 * curvature, np.inf)
    gain = np.where(members, -np.inf, gradient**2 / (curvature + floor))
    inside = np.argsort(cost, kind="stable")[: min(_MEMBERS, int(members.sum()))]
    outside = np.argsort(-gain, kind="stable")[: min(_OTHERS, int((~members).sum()))]
    return np.sort(np.concatenate([inside, outside]))


def _joined(names: tuple[str, ...], arrays: Mapping[str, Any]) -> np.ndarray:
    """Arrays of layers side by side, raveled; numbers as float64."""
    parts = [np.asarray(arrays[name]).ravel() for name in names]
    joined = np.concatenate(parts)
    return joined if joined.dtype == bool else joined.astype(np.float64)


def _replaced(
    network: Network,
    names: tuple[str, ...],
    masks: Mapping[str, np.ndarray],
    params: Params,
    members: np.ndarray,
    weights: np.ndarray,
) -> tuple[dict[str, np.ndarray], Params]:
    """Masks and parameters with those of some layers exchanged."""
    found, changed = dict(masks), dict(params)
    end = 0
    for name in names:
        layer = network.layers[name]
        place, end = slice(end, end + masks[name].size), end + masks[name].size
        found[name] = members[place].reshape(layer.shape)
        changed[layer.kernel] = jnp.asarray((weights[place] * members[place]).reshape(layer.shape), params[layer.kernel].dtype)
    return found, changed
