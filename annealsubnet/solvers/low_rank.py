"""Exchanges of weights in a low-rank energy: annealing, or descent, that keeps every group's count exactly.

A *sweep* computes the fields F y of all weights at once, so that the change by removing or adding any one of them is known,
and draws for every group the members that go most cheaply and the others that come most cheaply: both lists sorted by their
change plus temperature × Gumbel noise, which is a draw without replacement from the Boltzmann weights. Their pairs are then
offered one after the other, with the exact change of an exchange,

    ΔE = −y · (f_a − f_j) + ½ ‖f_a − f_j‖² + cost_a − cost_j,

and taken by the Metropolis rule; an exchange that is made changes y at once. A proposal reads two columns of F. At temperature
zero the lists are the best of both kinds, and this is the swap descent of the Combinatorial Brain Surgeon with lists.

References:
    Yu, Serra, Ramalingam, Zhe, *The Combinatorial Brain Surgeon*, ICML 2022, algorithm 2.
    Vieira, *Gumbel-max trick and weighted reservoir sampling*, 2014 (sorting by perturbed weights draws without replacement).
"""

import time
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Bool, Float

from annealsubnet.arguments import check_whole
from annealsubnet.problems import LowRankProblem
from annealsubnet.solvers.low_rank_kernel import offer_pairs

# Temperatures at the first and the last sweep, in units of the median cost of an exchange of the first sweep's lists.
_HOT, _COLD = 0.3, 0.003
# Pairs offered a sweep, as a share of the members.
_OFFERED = 4
# Drawings of other partners that must all fail before descent ends.
_SHUFFLES = 3
# Sweeps of descent behind the annealing, at most.
_DESCENT = 60


@dataclass(frozen=True)
class Exchanged:
    """Where exchanges ended.

    Attributes:
        state: True for weights that stay, as many in every group as at the start.
        energy: of it.
        sweeps: made in all.
        exchanges: made in all.
        seconds: wall time.
    """

    state: Bool[np.ndarray, "weights"]
    energy: float
    sweeps: int
    exchanges: int
    seconds: float


def exchange_weights(
    problem: LowRankProblem, start: Any, *, seed: int, num_sweeps: int = 25, max_descent: int = _DESCENT
) -> Exchanged:
    """The best state that exchanges within groups find from a start.

    Args:
        problem: the energy.
        start: `[weights]`, True for weights that stay.
        seed: of all that is random.
        num_sweeps: of annealing; 0 for descent alone (temperature zero).
        max_descent: sweeps of descent before and after the annealing.

    Returns:
        Exchanged: its energy is never above the start's.

    Raises:
        ValueError: if the start has another shape or dtype.

    Example:
        >>> factor = np.random.default_rng(0).normal(size=(12, 5))
        >>> problem = LowRankProblem(factor, np.zeros(5), np.zeros(12))
        >>> found = exchange_weights(problem, np.arange(12) < 6, seed=0)
        >>> int(found.state.sum()), bool(found.energy <= problem.energy(np.arange(12) < 6))
        (6, True)
    """
    began = time.perf_counter()
    state = np.array(start)
    if state.dtype != np.bool_ or state.shape != (problem.size,):
        raise ValueError(f"start is {state.dtype} {state.shape}; give one boolean for each of the {problem.size} weights.")
    walk = _Walk(problem, state, np.random.default_rng(check_whole("seed", seed) % 2**63))
    walk.descend(max_descent)
    if num_sweeps:
        scale = walk.scale()
        for temperature in scale * np.geomspace(_HOT, _COLD, num_sweeps):
            walk.sweep(float(temperature))
        walk.descend(max_descent)
    return Exchanged(walk.best, float(problem.energy(walk.best)), walk.sweeps, walk.exchanges, time.perf_counter() - began)


class _Walk:
    """A state on its way, and the best one that it passed."""

    def __init__(self, problem: LowRankProblem, state: np.ndarray, rng: np.random.Generator) -> None:
        self.problem, self.state, self.rng = problem, state, rng
        self.group = np.asarray(problem.group)
        self.half = 0.5 * np.einsum("ij,ij->i", problem.factor, problem.factor).astype(np.float64)
        self.best, self.least = state.copy(), self._energy(self._outputs())
        self.sweeps = self.exchanges = 0

    def descend(self, most: int) -> None:
        """Sweeps at temperature zero from the best state, until other partners in the lists change nothing either."""
        self.state = self.best.copy()
        failed = 0
        for _ in range(most):
            failed = 0 if self.sweep(0.0, shuffled=failed > 0) else failed + 1
            if failed > _SHUFFLES:
                return

    def sweep(self, temperature: float, *, shuffled: bool = False) -> int:
        """One sweep; how many exchanges were made. Partners are drawn anew if `shuffled`."""
        y = self._outputs()
        leave, enter, _ = self._pairs(y, temperature)
        if shuffled:
            groups = self.group[leave]
            order = np.lexsort((self.rng.random(len(enter)), self.group[enter]))
            leave, enter = leave[np.argsort(groups, kind="stable")], enter[order]
        odds = self.rng.exponential(size=len(leave)) if temperature else np.zeros(len(leave))
        made = offer_pairs(self.problem.factor, y, self.problem.cost, self.state, leave, enter, temperature * odds)
        self.sweeps += 1
        self.exchanges += made
        energy = self._energy(y) if made else self.least
        if energy < self.least:
            self.best, self.least = self.state.copy(), energy
        return made

    def scale(self) -> float:
        """What an exchange costs in the middle of the lists at the present state, its coupling left out."""
        _, _, change = self._pairs(self._outputs(), 0.0)
        return float(np.median(np.abs(change))) if change.size else 0.0

    def _outputs(self) -> np.ndarray:
        """y of the state; one product in float32, for `LowRankProblem.outputs` copies most of F."""
        return self.problem.residual - (~self.state).astype(np.float32) @ self.problem.factor

    def _energy(self, y: np.ndarray) -> float:
        wide = y.astype(np.float64)
        return float(self.problem.offset + 0.5 * (wide @ wide) + self.problem.cost[~self.state].sum())

    def _pairs(self, y: np.ndarray, temperature: float) -> tuple[np.ndarray, np.ndarray, Float[np.ndarray, "pairs"]]:
        """Members that go, others that come, and their changes added up; the cheapest first."""
        fields = (self.problem.factor @ y).astype(np.float64)
        change = self.half + np.where(self.state, self.problem.cost - fields, fields - self.problem.cost)
        if temperature:
            change = change + temperature * self.rng.gumbel(size=len(change))
        lists = [self._lists(change, np.flatnonzero(self.group == group)) for group in np.unique(self.group)]
        leave = np.concatenate([leaving for leaving, _ in lists])
        enter = np.concatenate([entering for _, entering in lists])
        total = change[leave] + change[enter]
        order = np.argsort(total, kind="stable")
        return leave[order], enter[order], total[order]

    def _lists(self, change: np.ndarray, weights: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """The cheapest members and the cheapest others of one group, equally many."""
        members, others = weights[self.state[weights]], weights[~self.state[weights]]
        count = min(len(members) // _OFFERED + 50, len(members), len(others))
        return _smallest(change, members, count), _smallest(change, others, count)


def _smallest(values: np.ndarray, places: np.ndarray, count: int) -> np.ndarray:
    """The `count` places of the smallest values, in order."""
    if count == 0:
        return places[:0]
    found = places[np.argpartition(values[places], count - 1)[:count]]
    return found[np.argsort(values[found], kind="stable")]
