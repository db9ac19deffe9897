"""Joint: some weights of several layers in one least-squares problem, around the weights that a network has.

The network's distance to a dense one couples neurons and layers. Around present weights w it is (`annealsubnet.statistics.
weight_rows`), with gradient g, rows A and h the diagonal of AᵀA,

    D(v) = D(w) + gᵀ(v − w) + ½ ‖A (v − w)‖² + ½ ρ Σ_i (h_i + h̄) (v_i − w_i)²,

so that the best set of k weights, each with its refitted value, is best-subset regression with one target: the exact
select-and-refit of a single neuron, whose inputs are weights of the whole network. The ridge ρ keeps the answer where the model
may be trusted; idle weights, as of inputs that are always zero, move nothing and are without it. The moments of the weights
that take part are that many numbers squared, so not all weights do.
"""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal

import jax.numpy as jnp
import numpy as np
from jaxtyping import Bool, Float, Int

from annealsubnet.budgets import Budget
from annealsubnet.losses import Loss
from annealsubnet.networks import Network, Params
from annealsubnet.selection import Choice
from annealsubnet.solvers.select_refit import select_inputs
from annealsubnet.statistics.weight_distance import weight_distance
from annealsubnet.statistics.weight_rows import distance_rows

_FULL_EFFORT = 100
"""Members up to which a selection anneals all the sweeps asked for; beyond, so many fewer. A sweep of 1,200 members takes
seconds: on digits (a fifth kept, one seed) 25 of them took 66 s a round for the accuracy of descent, which takes one."""

Masks = dict[str, np.ndarray]


@dataclass(frozen=True)
class Joint:
    """All weights of some layers side by side, each kernel raveled in its own shape.

    Attributes:
        network: traced.
        names: of the layers.
        weights: w; zero where removed.
        members: which weights are kept.
        gradient: g, exact over the examples.
        curvature: h, estimated.
        idle: members that have none, here and in the network whose outputs are kept to; what only a mask makes idle may serve.
        count: how many examples they were measured on.
    """

    network: Network
    names: tuple[str, ...]
    weights: Float[np.ndarray, "weights"]
    members: Bool[np.ndarray, "weights"]
    gradient: Float[np.ndarray, "weights"]
    curvature: Float[np.ndarray, "weights"]
    idle: Bool[np.ndarray, "weights"]
    count: int

    def price(self, ridge: float = 0.0) -> Float[np.ndarray, "weights"]:
        """What removing each member costs by itself, nothing refitted; infinite for the others."""
        priced = np.where(self.idle, 0.0, self.curvature + ridge * self.curvature.mean())
        return np.where(self.members, self.weights**2 * priced, np.inf)

    @property
    def promise(self) -> Float[np.ndarray, "weights"]:
        """What each of the others gains by itself; −infinite for members."""
        floor = 1e-6 * self.curvature.mean() + np.finfo(np.float64).tiny
        return np.where(self.members, -np.inf, self.gradient**2 / (self.curvature + floor))

    def groups(self, size: int) -> Int[np.ndarray, "groups size"]:
        """Numbers of the weights of every `size` consecutive inputs of a neuron, layer by layer."""
        found, first = [], 0
        for layer in (self.network.layers[name] for name in self.names):
            numbers = first + np.arange(int(np.prod(layer.shape))).reshape(layer.shape)
            found.append(layer.matrix(numbers).transpose(0, 2, 1).reshape(-1, size))
            first += numbers.size
        return np.concatenate(found)

    def by_layer(self, active: Int[np.ndarray, "active"]) -> Masks:
        """Numbers of weights as flat indices into each layer's kernel."""
        ends = np.cumsum([int(np.prod(self.network.layers[name].shape)) for name in self.names])
        firsts = np.concatenate([[0], ends[:-1]])
        return {
            name: active[(active >= first) & (active < end)] - first
            for name, first, end in zip(self.names, firsts.tolist(), ends.tolist(), strict=True)
        }

    def replaced(self, masks: Mapping[str, np.ndarray], params: Params, members: Any, weights: Any) -> tuple[Masks, Params]:
        """Masks and parameters with those of these layers exchanged."""
        found, changed = dict(masks), dict(params)
        ends = np.cumsum([masks[name].size for name in self.names])[:-1]
        parts = zip(self.names, np.split(members, ends), np.split(weights * members, ends), strict=True)
        for name, kept, values in parts:
            layer = self.network.layers[name]
            found[name] = kept.reshape(layer.shape)
            changed[layer.kernel] = jnp.asarray(values.reshape(layer.shape), params[layer.kernel].dtype)
        return found, changed


def measure_joint(
    network: Network,
    batches: Iterable[Any],
    names: tuple[str, ...],
    masks: Mapping[str, np.ndarray],
    *,
    params: Params,
    target_params: Params,
    loss: Loss,
    seed: int,
) -> Joint:
    """Weights, gradient and curvature at present parameters, in one pass; in another which are idle, if any can be."""
    measured = weight_distance(network, batches, params=params, target_params=target_params, seed=seed, loss=loss)
    members = _joined(names, masks)
    idle = members & (_joined(names, measured.curvature) == 0)
    if params is not target_params and idle.any():
        dense = weight_distance(network, batches, params=target_params, target_params=target_params, seed=seed, loss=loss)
        idle &= _joined(names, dense.curvature) == 0
    return Joint(
        network,
        names,
        _joined(names, {name: params[network.layers[name].kernel] for name in names}),
        members,
        _joined(names, measured.gradient),
        _joined(names, measured.curvature),
        idle,
        measured.count,
    )


def joint_moments(
    joint: Joint,
    batches: Iterable[Any],
    active: Int[np.ndarray, "active"],
    *,
    params: Params,
    target_params: Params,
    rows: int,
    loss: Loss,
    seed: int,
) -> Float[np.ndarray, "active active"]:
    """AᵀA of some weights, in one pass."""
    matrix = distance_rows(
        joint.network,
        batches,
        rows=rows,
        seed=seed,
        params=params,
        target_params=target_params,
        chosen=joint.by_layer(active),
        count=joint.count,
        loss=loss,
    ).matrix
    return (matrix.T @ matrix).astype(np.float64)


def select_jointly(
    joint: Joint,
    active: Int[np.ndarray, "active"],
    gram: Float[np.ndarray, "active active"],
    count: int,
    *,
    ridge: float,
    choice: Choice,
    seed: int,
    start: Literal["present", "backward"],
    pattern: str | None = None,
) -> tuple[np.ndarray, np.ndarray]:
    """Members and weights after the best `count` of the active weights have been chosen and refitted, the rest as they are.

    Idle weights are not refitted either.

    Args:
        joint: around present weights.
        active: numbers of the weights that take part.
        gram: their moments.
        count: how many of them stay.
        ridge: ρ.
        choice: whose effort is the annealer's; 0 for descent.
        seed: of all that is random.
        start: from the present members, or by backward elimination.
        pattern: "N:M" if N of every M consecutive active weights stay, as they do at present.
    """
    members, weights = joint.members.copy(), joint.weights.copy()
    diagonal = np.diag(gram).copy()
    moves = ~joint.idle[active]
    damped = gram.copy()
    damped[np.diag_indices_from(damped)] += np.where(moves, ridge * (diagonal + diagonal.mean()), 0.0)
    cross = damped @ weights[active] - joint.gradient[active]
    moving = min(count, len(active) - count)
    found = select_inputs(
        damped,
        cross,
        float(weights[active] @ (damped @ weights[active])),
        count if pattern is None else None,
        seed=seed,
        ridge=1e-9,
        pattern=pattern,
        start=members[active][:, None] if start == "present" else start,
        num_sweeps=max(1, choice.effort * _FULL_EFFORT // max(moving, _FULL_EFFORT)),
        temperature="annealed" if choice.effort else "zero",
    )
    members[active], weights[active] = found.kept[:, 0], np.where(moves, found.coefficients[:, 0], weights[active])
    return members, weights


def groups_of(budget: Budget) -> Iterator[tuple[tuple[str, ...], int]]:
    """Layers among which weights may be exchanged, and how many they keep."""
    if budget.scope == "layer":
        yield from (((name,), budget.counts[name]) for name in budget.selected)
    else:
        yield budget.selected, budget.total


def _joined(names: tuple[str, ...], arrays: Mapping[str, Any]) -> np.ndarray:
    """Arrays of layers side by side, raveled; numbers as float64."""
    joined = np.concatenate([np.asarray(arrays[name]).ravel() for name in names])
    return joined if joined.dtype == bool else joined.astype(np.float64)
