"""Greedy elimination: remove the unit whose removal raises the energy least, again and again.

One run gives a nested family of states and the energy of each size, in O(n²) steps over the fields h_i = ∂E/∂x_i.
"""

from collections.abc import Sequence
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


def eliminate(problem: Problem, *, places: Sequence[slice] = (), counts: Sequence[int] = ()) -> Elimination:
    """Greedy elimination from all units kept to none.

    Args:
        problem: whose energy is followed.
        places: ranges of units that keep `counts` of them for as long as there are others to remove.
        counts: one for each place.

    Example:
        >>> problem = Problem(np.array([-3.0, -1.0, -2.0]), np.array([[0, 0, 2.5], [0, 0, 0], [2.5, 0, 0]]))
        >>> eliminate(problem).order.tolist(), eliminate(problem).energy.tolist()
        ([2, 1, 0], [0.0, -3.0, -4.0, -3.5])
        >>> eliminate(problem, places=[slice(0, 2), slice(2, 3)], counts=[1, 1]).order.tolist()
        [0, 1, 2]
    """
    couplings, size = problem.dense_couplings, problem.size
    place_of = np.full(size, -1)
    for number, place in enumerate(places):
        place_of[place] = number
    left = np.bincount(place_of[place_of >= 0], minlength=len(places))
    fields = problem.linear + couplings.sum(1)
    free = np.array([number < 0 or left[number] > counts[number] for number in place_of], bool)
    gone = np.zeros(size, bool)
    energy = np.empty(size + 1)
    energy[size] = problem.energy(np.ones(size))
    order = np.empty(size, int)
    for step in range(size):
        # Removing i changes the energy by −h_i; the unit with the largest field goes.
        candidates = free & ~gone if (free & ~gone).any() else ~gone
        unit = int(np.argmax(np.where(candidates, fields, -np.inf)))
        order[step] = unit
        energy[size - step - 1] = energy[size - step] - fields[unit]
        fields = fields - couplings[unit]
        gone[unit] = True
        number = place_of[unit]
        if number >= 0:
            left[number] -= 1
            if left[number] == counts[number]:
                free[places[number]] = False
    return Elimination(order, energy)
