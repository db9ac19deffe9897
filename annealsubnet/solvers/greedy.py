"""Greedy elimination: remove the unit whose removal raises the energy least, again and again.

One run gives a nested family of states and the energy of each size, in O(n²) steps over the fields h_i = ∂E/∂x_i.
"""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int

from annealsubnet.problems.problem import Problem


@dataclass(frozen=True)
class Elimination:
    """The course of a greedy elimination.

    Attributes:
        order: units in the order of their removal.
        energy: `[k]` is the energy with k units kept (the first `n − k` of `order` removed).
    """

    order: Int[np.ndarray, "units"]
    energy: Float[np.ndarray, "counts"]

    def kept(self, count: int) -> np.ndarray:
        """True at the `count` units that are removed last."""
        kept = np.zeros(len(self.order), bool)
        kept[self.order[len(self.order) - count :]] = True
        return kept


def eliminate(problem: Problem) -> Elimination:
    """Greedy elimination from all units kept to none.

    Example:
        >>> problem = Problem(np.array([-3.0, -1.0, -2.0]), np.array([[0, 0, 2.5], [0, 0, 0], [2.5, 0, 0]]))
        >>> eliminate(problem).order.tolist(), eliminate(problem).energy.tolist()
        ([2, 1, 0], [0.0, -3.0, -4.0, -3.5])
    """
    couplings = problem.dense_couplings
    size = problem.size
    fields = problem.linear + couplings.sum(1)
    energy = np.empty(size + 1)
    energy[size] = problem.energy(np.ones(size))
    order = np.empty(size, int)
    for step in range(size):
        # Removing i changes the energy by −h_i; the unit with the largest field goes.
        unit = int(np.argmax(fields))
        order[step] = unit
        energy[size - step - 1] = energy[size - step] - fields[unit]
        fields = fields - couplings[unit]
        fields[order[: step + 1]] = -np.inf
    return Elimination(order, energy)
