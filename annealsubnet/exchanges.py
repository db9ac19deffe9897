"""Exchanges: the inputs that neurons keep, by binary quadratic models of a few dozen inputs at a time; solve, refit, repeat.

Around the inputs that a neuron keeps, refitted, the model of `annealsubnet.problems.exchanges` is exact while at most two
inputs change. An answer may change more. A charge for every two exchanges is its trust region, as in Levenberg and
Marquardt's method: it falls where the error came as predicted, and rises where it did not, in the end so far that an answer
makes one exchange, of which the model is exact. An answer that does not lower the error is not taken. Every answer keeps as
many inputs as before, and the problems of all neurons of a layer are solved together, for a QPU takes many in one call.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np
from jaxtyping import Bool, Float

from annealsubnet.problems import Problem, Support

_COUNTS = (12, 24)
"""Members and others that may be exchanged; the larger number where the smaller finds nothing more."""
_CHARGE, _FACTOR = 1.0, 3.0
"""The first charge, in units of the error for each kept input, and what it is multiplied by or divided by."""
_FREE = 1e-3
"""A charge this small, in the same units, is none."""
_LEAST_RIDGE, _NOTHING = 1e-9, 1e-12
"""A ridge that keeps dependent inputs apart; and an error, in units of the target's energy, that is none."""
_GOOD, _BAD = 0.7, 0.3
"""Shares of the predicted change above and below which the charge falls and rises."""

Solve = Callable[[list[Problem], list[int]], Sequence[np.ndarray]]
"""The best states of many problems, each with a seed."""


def exchange_inputs(
    gram: Float[np.ndarray, "inputs inputs"],
    cross: Float[np.ndarray, "inputs outputs"],
    target_energy: Float[np.ndarray, "outputs"],
    kept: Bool[np.ndarray, "inputs outputs"],
    *,
    ridge: float,
    solve: Solve,
    rounds: int,
    seed: int,
) -> Bool[np.ndarray, "inputs outputs"]:
    """Better inputs for each neuron, as many as it has.

    Args:
        gram: second moment of the inputs.
        cross: moments of inputs and targets.
        target_energy: second moments of the targets.
        kept: to start from.
        ridge: of the refit, in units of the mean of the gram's diagonal; the error includes it.
        solve: the solver of all problems of a round.
        rounds: at most.
        seed: of the problems' seeds.
    """
    mean = float(np.diag(gram).mean())
    if not mean > 0.0:
        return kept.copy()
    moments = gram + max(ridge, _LEAST_RIDGE) * mean * np.eye(len(gram))
    walks = [_Walk(moments, cross[:, n], float(target_energy[n]), kept[:, n].copy()) for n in range(cross.shape[1])]
    active = [n for n, walk in enumerate(walks) if 0 < walk.kept.sum() < len(gram) and walk.is_open]
    for number in range(rounds):
        if not active:
            break
        problems = [walks[n].problem(str(n)) for n in active]
        answers = solve(problems, [seed + 1000 * n + number for n in active])
        active = [n for n, problem, answer in zip(active, problems, answers, strict=True) if walks[n].moves(problem, answer)]
    return np.stack([walk.kept for walk in walks], axis=1)


@dataclass
class _Walk:
    """One neuron on its way down. What its supports need is as large as its fan-in times the inputs kept, and is not held."""

    moments: np.ndarray
    target: np.ndarray
    target_energy: float
    kept: np.ndarray
    level: int = 0
    refused: float = 0.0
    """The largest charge with which an answer around the present support did not lower the error."""
    error: float = field(init=False)
    charge: float = field(init=False)
    inputs: np.ndarray = field(init=False)

    def __post_init__(self) -> None:
        self.error = self._refitted(self.kept)
        self.charge = self._unit * _CHARGE

    @property
    def _unit(self) -> float:
        return self.error / max(1, int(self.kept.sum()))

    @property
    def is_open(self) -> bool:
        """Whether there is an error to lower."""
        return self.error > _NOTHING * self.target_energy

    def _refitted(self, kept: np.ndarray) -> float:
        """The error after the refit on some inputs."""
        members = np.flatnonzero(kept)
        target = self.target[members]
        return self.target_energy - float(target @ np.linalg.solve(self.moments[np.ix_(members, members)], target))

    def problem(self, name: str) -> Problem:
        """The problem of the next round."""
        support = Support.of(self.moments, self.target, self.kept, target_energy=self.target_energy)
        found, self.inputs = support.problem(_COUNTS[self.level], charge=self.charge, name=name)
        return found

    def moves(self, problem: Problem, answer: np.ndarray) -> bool:
        """Take an answer if it lowers the error; False where there is nothing more to find."""
        kept = self.kept.copy()
        kept[self.inputs] = answer
        leave = int((self.kept & ~kept).sum())
        if leave == 0:
            return self._widens()
        error = self._refitted(kept)
        predicted = self.error - float(problem.energy(answer)) + self.charge * leave * (leave - 1) / 2
        if not error < self.error * (1 - 1e-9):
            self.refused, self.charge = self.charge, self.charge * _FACTOR
            return True
        gained = self.error - error
        self.kept, self.error, self.refused = kept, error, 0.0
        self.charge *= 1 / _FACTOR if gained > _GOOD * predicted else _FACTOR if gained < _BAD * predicted else 1
        return self.is_open

    def _widens(self) -> bool:
        """No exchange pays with this charge: try a smaller one, or among more inputs."""
        if self.charge > _FREE * self._unit and self.charge > 1.01 * _FACTOR * self.refused:
            self.charge /= _FACTOR
            return True
        self.level, self.refused, self.charge = self.level + 1, 0.0, self._unit * _CHARGE
        return self.level < len(_COUNTS)
