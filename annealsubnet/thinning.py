"""Thinning: fewer weights, taken from all layers at once, around the weights that a network has.

Where a network is pruned a little at a time, each step keeps to the outputs f_t of the network as it is: with no weight removed
the distance to it is zero, and so is its gradient. What a removal costs, and how those that stay make up for it, is the joint
least-squares problem of `annealsubnet.joint`; its members compete over all layers, and of some of them a given number go,
chosen together and exchanged until that helps no more. No label is read.

Only so many members can take part: those whose removal costs least by itself. Where more have to go than half of those, the
first to go are the cheapest ones.
"""

import logging
from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any

import numpy as np

from annealsubnet.arguments import check_weight, check_whole
from annealsubnet.batches import first_inputs
from annealsubnet.budgets import Budget, Keep, budget_of
from annealsubnet.joint import Masks, groups_of, joint_moments, measure_joint, select_jointly
from annealsubnet.losses import Loss, check_loss, cross_entropy
from annealsubnet.masks import Mask
from annealsubnet.networks import Network, Params, as_network
from annealsubnet.selection import Choice
from annealsubnet.statistics.passes import num_outputs

logger = logging.getLogger(__name__)

_ACTIVE, _TOGETHER = 2500, 1250
"""Members that take part, and how many of them go together."""
_RIDGE = 0.5
"""ρ: one step may reach far, and its rows are few."""
_ROWS_AN_EXAMPLE = 2


def thin(
    model: Any,
    batches: Iterable[Any],
    *,
    keep: Keep,
    unit: str = "weight",
    scope: str = "network",
    exclude: Iterable[str] = (),
    effort: int = 25,
    ridge: float = _RIDGE,
    loss: Loss = cross_entropy,
    seed: int,
) -> tuple[Mask, Any]:
    """Remove weights from a network whose removed weights are zero already, and move those that stay to make up for them.

    It is called like `prune`, passes the batches at most three times through the network, and is meant for steps between which
    that is trained or fitted (`annealsubnet.baselines.gradual` takes it as `choose`).

    Args:
        model, batches, keep, exclude, loss, seed: as in `annealsubnet.prune`; weights that are zero are not brought back, and
            those of excluded layers stay as they are.
        unit: "weight".
        scope: "network" or "layer".
        effort: sweeps of the select-and-refit annealer; 0 makes only exchanges that help.
        ridge: ρ of the joint problem, in units of its diagonal.

    Returns:
        The mask, and a new model in the form that came in.

    Raises:
        ValueError: for another unit or scope, a bad ridge, fewer weights left than `keep` asks for, and as `prune`.
        TypeError: as `prune`.

    Example:
        >>> import jax.numpy as jnp
        >>> from annealsubnet.losses import squared_error
        >>> from annealsubnet.networks import from_function
        >>> model = from_function(lambda params, x, tap: tap.dense("out", x), {"out": {"kernel": jnp.array([[1.0], [2.0]])}})
        >>> mask, pruned = thin(model, [np.array([[1.0, 1.0], [0.9, 1.1]], np.float32)], keep=1, ridge=0.01, loss=squared_error,
        ...                     seed=0)
        >>> np.asarray(pruned["out"]["kernel"], np.float64).round(1).tolist()
        [[0.0], [2.9]]
    """
    seed = check_whole("seed", seed)
    if unit != "weight" or scope not in ("network", "layer"):
        asked = f"unit={unit!r}, scope={scope!r}"
        raise ValueError(f"thin takes weights from whole layers; give unit='weight', scope='network' or 'layer', not {asked}.")
    check_loss(loss)
    check_weight("ridge", ridge)
    network = as_network(model, None if isinstance(model, Network) else first_inputs(batches))
    num_outputs(network)  # raises for outputs that no loss takes
    budget = budget_of(network, keep=keep, unit=unit, scope=scope, exclude=exclude)
    kept = {name: np.asarray(network.params[network.layers[name].kernel]) != 0 for name in budget.selected}
    for names, count in groups_of(budget):
        left = sum(int(kept[name].sum()) for name in names)
        if left < count:
            raise ValueError(f"{left} weights of {', '.join(names)} are not zero; {count} cannot be kept of them.")
    choice = Choice(effort=effort)
    kept, params = thin_weights(
        network, batches, budget, kept=kept, params=network.params, choice=choice, ridge=ridge, loss=loss, seed=seed
    )
    whole = {name: np.ones(shape, bool) for name, shape in budget.shapes.items()}
    mask = Mask.of(network, "weight", {**whole, **kept})
    return mask, network.model.export(mask.multiply(params))


def thin_weights(
    network: Network,
    batches: Iterable[Any],
    budget: Budget,
    *,
    kept: Mapping[str, np.ndarray],
    params: Params,
    choice: Choice,
    loss: Loss,
    seed: int,
    ridge: float = _RIDGE,
) -> tuple[Masks, Params]:
    """Masks with as many weights as a budget says, and parameters in which those that take part are refitted.

    Args:
        network: traced.
        batches: inputs or (inputs, labels); labels are not read.
        budget: of weights, over the network or by layer.
        kept: the present masks, of the budget's layers.
        params: present parameters, with zeros for what is removed already; it is their outputs that are kept to.
        choice: how.
        loss: whose curvature measures the outputs' change.
        seed: of all that is random.
        ridge: ρ.
    """
    masks = {name: np.array(array) for name, array in kept.items()}
    for number, (names, count) in enumerate(groups_of(budget)):
        if sum(int(masks[name].sum()) for name in names) > count:
            masks, params = _thinned(network, batches, names, masks, params, count, choice, loss, seed + 7 * number, ridge)
    return masks, params


def _thinned(
    network: Network,
    batches: Iterable[Any],
    names: tuple[str, ...],
    masks: Masks,
    params: Params,
    count: int,
    choice: Choice,
    loss: Loss,
    seed: int,
    ridge: float,
) -> tuple[Masks, Params]:
    target = params
    joint = measure_joint(network, batches, names, masks, params=params, target_params=target, loss=loss, seed=seed)
    spare = int(joint.members.sum()) - count
    before = spare - _TOGETHER
    if before > 0:
        gone = np.argsort(joint.price(ridge), kind="stable")[:before]
        members = joint.members.copy()
        members[gone] = False
        masks, params = joint.replaced(masks, params, members, joint.weights)
        joint = measure_joint(network, batches, names, masks, params=params, target_params=target, loss=loss, seed=seed)
        spare -= before
    else:
        joint = replace(joint, gradient=np.zeros_like(joint.gradient))
    active = np.sort(np.argsort(joint.price(ridge), kind="stable")[: min(_ACTIVE, int(joint.members.sum()))])
    gram = joint_moments(
        joint,
        batches,
        active,
        params=params,
        target_params=target,
        rows=_ROWS_AN_EXAMPLE * joint.count,
        loss=loss,
        seed=seed,
    )
    chosen = select_jointly(joint, active, gram, len(active) - spare, ridge=ridge, choice=choice, seed=seed, start="backward")
    logger.info("thinned to %d weights, %d of them chosen together", count, spare)
    return joint.replaced(masks, params, *chosen)
