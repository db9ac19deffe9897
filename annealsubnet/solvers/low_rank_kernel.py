"""Compiled exchanges in a low-rank energy: each proposal reads two columns, in O(rows)."""

import numpy as np
from numba import njit
from numpy.typing import NDArray


# Sums over rows in any order, several at once: no other kernel holds a copy of this one that could round differently.
@njit(cache=True, nogil=True, fastmath={"contract", "reassoc", "nsz", "arcp", "nnan"})
def offer_pairs(
    factor: NDArray[np.float32],
    y: NDArray[np.float32],
    cost: NDArray[np.float64],
    state: NDArray[np.bool_],
    leave: NDArray[np.int64],
    enter: NDArray[np.int64],
    allowed: NDArray[np.float64],
) -> int:
    """Offer exchanges one after the other; changes `y` and `state`, and returns how many were made.

    Args:
        factor: `[weights, rows]`.
        y: `[rows]`, of the state.
        cost: `[weights]` of removing each.
        state: `[weights]`.
        leave: members.
        enter: others, one for each member.
        allowed: an exchange is made if it raises the energy by less than this.
    """
    made = 0
    for pair in range(leave.size):
        a, j = leave[pair], enter[pair]
        along, square = np.float32(0.0), np.float32(0.0)
        for row in range(y.size):
            step = factor[a, row] - factor[j, row]
            along += step * y[row]
            square += step * step
        if 0.5 * square - along + cost[a] - cost[j] < allowed[pair]:
            for row in range(y.size):
                y[row] -= factor[a, row] - factor[j, row]
            state[a], state[j] = False, True
            made += 1
    return made
