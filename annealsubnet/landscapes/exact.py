"""Exact optima of landscapes: dynamic programming along a ring, and by tree decomposition in general.

On a ring of windows i, i+1, …, i+K the least energy of everything up to a place depends on the last K variables alone; the
first K are carried along to close the ring. In general, variables are eliminated one after the other: all tables that hold a
variable are added, and its minimum over both values is a table over their other variables, its bag. The cost is exponential in
the largest bag (the width of the tree decomposition), not in the number of variables.

References:
    A. H. Wright, R. K. Thompson, J. Zhang, The computational complexity of N-K fitness functions, IEEE Trans. Evol. Comp.,
    2000. U. Bertelè, F. Brioschi, Nonserial Dynamic Programming, 1972.
"""

from collections.abc import Iterable

import numpy as np

from annealsubnet.landscapes.landscape import Landscape, ring_windows

LARGEST_BAG = 24
"""Most variables whose settings one table lists, besides the one that is minimized over."""


def solve_ring(landscape: Landscape) -> tuple[np.ndarray, float]:
    """A state of least energy of a landscape on a ring, and its energy.

    Raises:
        ValueError: if the windows are not those of `ring_windows`, hold more than half of the ring, or couple more than
            `LARGEST_BAG` variables.
    """
    count, members = landscape.windows.shape
    neighbors = members - 1
    if count != landscape.num_variables or (landscape.windows != ring_windows(count, neighbors)).any():
        raise ValueError("The windows are no ring of neighbors i, i+1, ..., i+K; use solve_tree.")
    if 2 * neighbors > count:
        raise ValueError(f"A ring of {count} with windows of {members} folds onto itself; use solve_tree.")
    if 2 * neighbors > LARGEST_BAG:
        raise ValueError(
            f"A ring with windows of {members} is solved over its first {neighbors} and last {neighbors} variables at once; at "
            f"most {LARGEST_BAG} fit the memory. Use anneal."
        )
    if not neighbors:  # each variable is alone
        state = landscape.tables.argmin(axis=1).astype(np.int8)
        return state, float(landscape.energy(state))
    states = 2**neighbors
    # best[first, last]: least energy of the windows so far, given the first K variables and the last K.
    best = np.full((states, states), np.inf)
    np.fill_diagonal(best, 0.0)
    choices = np.zeros((count - neighbors, states, states), np.uint8)
    last = np.arange(states)
    for place in range(count - neighbors):
        # Window: `last` K variables and the new one on top; what falls out is bit 0.
        costs = [best[:, last] + landscape.tables[place][last | (new << neighbors)] for new in (0, 1)]
        fresh = np.empty_like(best)
        for new, cost in enumerate(costs):
            # State (b1 … b_{K−1}, new) is reached from (0, b1 …) and (1, b1 …).
            pairs = cost.reshape(states, states // 2, 2)
            target = (last[: states // 2]) | (new << (neighbors - 1))
            fresh[:, target] = pairs.min(axis=2)
            choices[place][:, target] = pairs.argmin(axis=2)
        best = fresh
    total = best + _closing(landscape, neighbors)
    first, end = np.unravel_index(int(total.argmin()), total.shape)
    state = np.zeros(count, np.int8)
    bits = int(end)
    for place in range(count - neighbors - 1, -1, -1):
        state[place + neighbors] = bits >> (neighbors - 1)
        bits = ((bits << 1) & (states - 1)) | int(choices[place][first, bits])
    state[:neighbors] = (int(first) >> np.arange(neighbors)) & 1
    return state, float(landscape.energy(state))


def _closing(landscape: Landscape, neighbors: int) -> np.ndarray:
    """Energy of the K windows that reach over the end, for the first and the last K variables."""
    states, count = 2**neighbors, landscape.num_variables
    first, last = np.arange(states)[:, None], np.arange(states)[None, :]
    # The last K variables and the first K, in a row.
    row = last | (first << neighbors)
    total = np.zeros((states, states))
    for shift in range(neighbors):
        window = (row >> shift) & (2 ** (neighbors + 1) - 1)
        total += landscape.tables[count - neighbors + shift][window]
    return total


def solve_tree(landscape: Landscape) -> tuple[np.ndarray, float]:
    """A state of least energy of any landscape, and its energy, by eliminating variables in a min-fill order.

    Raises:
        ValueError: if a bag would hold more than `LARGEST_BAG` other variables.
    """
    order, width = elimination_order(landscape.windows.tolist(), landscape.num_variables)
    if width > LARGEST_BAG:
        raise ValueError(f"The tree decomposition has width {width}; at most {LARGEST_BAG} fit the memory. Use anneal.")
    tables = [_axes(window, table) for window, table in zip(landscape.windows.tolist(), landscape.tables, strict=True)]
    eliminated = []
    for variable in order:
        touched = [table for table in tables if variable in table[0]]
        tables = [table for table in tables if variable not in table[0]]
        bag = tuple(sorted({member for members, _ in touched for member in members} - {variable}))
        joined = np.zeros((2,) * (len(bag) + 1))
        for members, values in touched:
            joined = joined + _aligned(values, members, (*bag, variable))
        eliminated.append((variable, bag, joined.argmin(axis=-1).astype(np.int8)))
        tables.append((bag, joined.min(axis=-1)))
    state = np.zeros(landscape.num_variables, np.int8)
    for variable, bag, choice in reversed(eliminated):
        state[variable] = choice[tuple(state[list(bag)])]
    return state, float(landscape.energy(state))


def elimination_order(windows: Iterable[Iterable[int]], num_variables: int) -> tuple[list[int], int]:
    """A min-fill order of elimination, and its width: an upper bound of the treewidth.

    Args:
        windows: sets of variables that are coupled with each other (edges, too).
        num_variables: how many there are.
    """
    neighbors: list[set[int]] = [set() for _ in range(num_variables)]
    for window in windows:
        members = set(window)
        for member in members:
            neighbors[member] |= members - {member}
    left, order, width = set(range(num_variables)), [], 0
    fills = {variable: _fill(neighbors, variable) for variable in left}
    while left:
        variable = min(left, key=lambda one: (fills[one], len(neighbors[one]), one))
        around = neighbors[variable]
        width = max(width, len(around))
        changed = set(around)
        for one in around:
            neighbors[one] |= around - {one}
            neighbors[one].discard(variable)
            changed |= neighbors[one]
        left.discard(variable)
        order.append(variable)
        for one in changed & left:
            fills[one] = _fill(neighbors, one)
    return order, width


def _fill(neighbors: list[set[int]], variable: int) -> int:
    """How many edges its elimination would add."""
    around = neighbors[variable]
    return sum(len(around - neighbors[one]) - 1 for one in around)


def _axes(window: list[int], table: np.ndarray) -> tuple[tuple[int, ...], np.ndarray]:
    """A table with one axis a variable, in the order of the returned variables."""
    # Entry Σ x_k 2^k in C order has the first member last.
    return tuple(reversed(window)), table.reshape((2,) * len(window))


def _aligned(values: np.ndarray, members: tuple[int, ...], axes: tuple[int, ...]) -> np.ndarray:
    """The table with its axes in the order of `axes`, of length 1 where it does not depend on a variable."""
    order = sorted(range(len(members)), key=lambda place: axes.index(members[place]))
    present = set(members)
    return values.transpose(order).reshape([2 if axis in present else 1 for axis in axes])
