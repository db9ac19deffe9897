"""Polish: exchanges of weights over all layers at once, when what is kept is refitted.

Each neuron's own selection serves its own output. The network's distance to the dense one couples neurons and layers: around
the present, refitted weights it is the joint least-squares problem of `annealsubnet.joint`, in which members that would be
missed least and others that promise most are exchanged, under a pattern N:M within their groups of M inputs; then all layers
are refitted (`annealsubnet.fitting`). The ridge is a trust region. Each round tries two of them, and the model's own word is
not taken for either: both candidates are measured, as refitted, on examples that were held out from problem and refit. The
better one and its ridge go on, unless the distance on these examples did not fall: then the round is undone.
"""

import logging
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from annealsubnet.budgets import Budget
from annealsubnet.fitting import fit_network, held_out
from annealsubnet.joint import Joint, Masks, groups_of, joint_moments, measure_joint, select_jointly
from annealsubnet.losses import Loss
from annealsubnet.masks import Mask
from annealsubnet.networks import Network, Params
from annealsubnet.patterns import Pattern
from annealsubnet.selection import Choice
from annealsubnet.statistics.weight_distance import distance_to

logger = logging.getLogger(__name__)

_MEMBERS, _OTHERS = 800, 800
"""Weights of both kinds that take part in one exchange: their moments are that many numbers squared."""
_ROWS_A_MEMBER = 5
"""Rows of the model for each member that is refitted in it, at least."""
_RIDGE, _SPREAD = 0.05, 1.7
"""ρ of the first round, and the factor by which its candidates are above and below it."""
_STEPS, _PRODUCTS = 2, 20
"""Of the fit between two rounds."""


@dataclass(frozen=True)
class Polished:
    """Where polishing ended.

    Attributes:
        kept: by layer, in the kernel's own shape.
        params: refitted, with the mask's zeros.
        values: the distance to the dense network before and after every round that was kept, on the held-out examples.
    """

    kept: Masks
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
        batches: calibration inputs, which are held in memory; labels are not read.
        budget: of weights; exchanges keep its counts: over the network, within each layer, or within each group of the
            pattern N:M that `choice` names. Budgets of each neuron, and blocks, are refitted but not exchanged.
        kept: the present masks of the budget's layers.
        params: present parameters.
        target_params: of the network whose outputs are kept to; the dense one's by default.
        rounds: of exchanges; 0 only refits.
        choice: how.
        loss: whose curvature measures the outputs' change.
        seed: of all that is random.
    """
    target = network.params if target_params is None else target_params
    task = _Task(network, *held_out(batches), budget, target, choice, loss)
    masks = {name: np.array(array) for name, array in kept.items()}
    values = [task.distance(params)]
    params = task.fit(masks, params)
    values.append(task.distance(params))
    ridge = _RIDGE
    for number in range(rounds if budget.scope != "neuron" or task.pattern else 0):
        problems = task.problems(masks, params, seed + 101 * number)
        candidates = [task.exchange(problems, masks, params, tried) for tried in (ridge * _SPREAD, ridge / _SPREAD)]
        fits = [task.fit(*candidate, steps=_STEPS, products=_PRODUCTS) for candidate in candidates]
        distances = [task.distance(fit) for fit in fits]
        best = int(np.argmin(distances))
        found, value = candidates[best][0], distances[best]
        changed = sum(int((found[name] & ~masks[name]).sum()) for name in masks)
        ridge = ridge / _SPREAD if best else ridge * _SPREAD
        logger.info("polish %d: ridge %.3g, %d exchanges, distance %.4g to %.4g", number + 1, ridge, changed, values[-1], value)
        if not value < values[-1]:
            ridge *= 10
            continue
        masks, params = found, fits[best]
        values.append(value)
        if changed == 0:
            break
    return Polished(masks, params, tuple(values))


@dataclass(frozen=True)
class _Task:
    """What stays the same from round to round."""

    network: Network
    examples: list[np.ndarray]
    held: list[np.ndarray]
    budget: Budget
    target: Params
    choice: Choice
    loss: Loss

    @property
    def pattern(self) -> Pattern | None:
        """Within whose groups weights are exchanged."""
        pattern = self.choice.pattern
        return None if pattern is None or pattern.is_block else pattern

    def distance(self, params: Params) -> float:
        """On the examples that are held out."""
        return distance_to(self.network, self.held, params=params, target_params=self.target, loss=self.loss)

    def fit(self, masks: Masks, params: Params, **options: int) -> Params:
        """All kept weights refitted together."""
        mask = Mask.of(self.network, "weight", masks)
        fit = fit_network(
            self.network, mask, self.examples, params=params, target_params=self.target, loss=self.loss, **options
        )
        return fit.params

    def problems(self, masks: Masks, params: Params, seed: int) -> list["_Problem"]:
        """The joint problem of each group of layers, the others as they are."""
        found = []
        for place, (names, _) in enumerate(groups_of(self.budget)):
            drawn = seed + 7 * place
            shared: dict[str, Any] = {"params": params, "target_params": self.target, "loss": self.loss, "seed": drawn}
            joint = measure_joint(self.network, self.examples, names, masks, **shared)
            active = _active(joint) if self.pattern is None else _active_groups(joint, self.pattern)
            rows = max(4000, _ROWS_A_MEMBER * int(joint.members[active].sum()))
            found.append(_Problem(joint, active, joint_moments(joint, self.examples, active, rows=rows, **shared), drawn))
        return found

    def exchange(self, problems: list["_Problem"], masks: Masks, params: Params, ridge: float) -> tuple[Masks, Params]:
        """The answers to all problems with one ridge."""
        pattern = None if self.pattern is None else self.pattern.text
        for problem in problems:
            joint, active = problem.joint, problem.active
            count = int(joint.members[active].sum())
            shared: dict[str, Any] = {"ridge": ridge, "choice": self.choice, "seed": problem.seed, "pattern": pattern}
            chosen = select_jointly(joint, active, problem.gram, count, start="present", **shared)
            masks, params = joint.replaced(masks, params, *chosen)
        return masks, params


@dataclass(frozen=True)
class _Problem:
    """Weights that may be exchanged, and their moments."""

    joint: Joint
    active: np.ndarray
    gram: np.ndarray
    seed: int


def _active(joint: Joint) -> np.ndarray:
    """The members that would be missed least, and the others that promise most, in order."""
    inside = np.argsort(joint.price(), kind="stable")[: min(_MEMBERS, int(joint.members.sum()))]
    outside = np.argsort(-joint.promise, kind="stable")[: min(_OTHERS, int((~joint.members).sum()))]
    return np.sort(np.concatenate([inside, outside]))


def _active_groups(joint: Joint, pattern: Pattern) -> np.ndarray:
    """Whole groups of a pattern, those in which one exchange promises most, in order."""
    groups = joint.groups(pattern.inputs)
    gains = joint.promise[groups].max(axis=1) - joint.price()[groups].min(axis=1)
    best = np.argsort(-gains, kind="stable")[: (_MEMBERS + _OTHERS) // pattern.inputs]
    return groups[np.sort(best)].ravel()
