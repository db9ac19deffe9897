"""Compiled steps of packing cliques into a lattice of lines; `annealsubnet.leap.lattice` says what lines and shapes are.

`fill` and `ruin` are called from Python one by one: with both inlined into one compiled loop over windows, `fill` took five
times as long (numba 0.68).
"""

# Numba infers types; annotations would only repeat them.
# mypy: disable-error-code="no-untyped-def, var-annotated"

import numpy as np
from numba import njit

from annealsubnet.leap.shape_kernels import NONE, OPTIONS, SCALE, cheapest_shapes, follow


@njit(**OPTIONS)
def reach_track(qubits, linked, free, reach, u, line, track):
    """Bring `reach` of one track up to date: the last position up to which all qubits from here on are free and linked."""
    length = qubits.shape[3]
    for place in range(length - 1, -1, -1):
        if not free[u, line, track, place]:
            reach[u, line, track, place] = -1
        elif place + 1 < length and linked[u, line, track, place + 1] and free[u, line, track, place + 1]:
            reach[u, line, track, place] = reach[u, line, track, place + 1]
        else:
            reach[u, line, track, place] = place


@njit(**OPTIONS)
def set_run(qubits, linked, free, reach, u, line, track, low, high, value):
    """Make all qubits of a run free or not; a qubit at either end reaches beyond it."""
    length = qubits.shape[3]
    first, last = low, high
    while first > 0 and qubits[u, line, track, first - 1] == qubits[u, line, track, low]:
        first -= 1
    while last + 1 < length and qubits[u, line, track, last + 1] == qubits[u, line, track, high]:
        last += 1
    for place in range(first, last + 1):
        free[u, line, track, place] = value
    reach_track(qubits, linked, free, reach, u, line, track)


@njit(**OPTIONS)
def set_clique(lattice, free, reach, chains, value):
    """Make all qubits of a clique free or not."""
    qubits, linked, _ = lattice
    for chain in chains:
        set_run(qubits, linked, free, reach, 0, chain[0], chain[1], chain[2], chain[3], value)
        set_run(qubits, linked, free, reach, 1, chain[4], chain[5], chain[6], chain[7], value)


@njit(**OPTIONS)
def fill(
    lattice, free, reach, group, noise, most, window, directions, placed, chains, count, waiting, codes, ends, work, fresh
):
    """Place cliques of one size one after the other where they fit first, scanning a window; returns how many are placed.

    Args:
        lattice: (qubits, linked, number).
        free: overwritten.
        reach: overwritten.
        group: (number of the size, size, least blocks, most blocks).
        noise: `[u, line]` of the costs.
        most: qubits that one may cost.
        window: (first column, one past the last, first row, one past the last).
        directions: (leftwards, downwards, columns first).
        placed: (middle column, middle row, group, cost) of each clique, appended to.
        chains: of each clique, appended to.
        count: cliques placed before.
        waiting: how many cliques of each size are still to be placed; overwritten.
        codes, ends, work: of the cheapest shapes for each number of blocks; overwritten.
        fresh: how many cliques were placed when `ends` was found, or −1; overwritten.
    """
    number = lattice[2]
    which, size, fewest, largest = group
    left, right, low, high = window
    wide, tall = right - left, high - low
    own = np.empty((size, 8), np.int64)
    tracks = reach.shape[2]
    while waiting[which] > 0:
        if fresh[0] != count:
            for blocks in range(fewest, largest + 1):
                spare = blocks * tracks - size
                kind = blocks - fewest
                cheapest_shapes(number, reach, noise, blocks, spare, window, codes[kind], ends[kind], work)
            fresh[0] = count
        before = count
        for index in range(wide * tall):
            one, other = (index // tall, index % tall) if directions[2] else (index % wide, index // wide)
            x = right - 1 - one if directions[0] else left + one
            y = high - 1 - other if directions[1] else low + other
            for blocks in range(fewest, largest + 1):
                kind, spare = blocks - fewest, blocks * tracks - size
                if waiting[which] == 0 or x + blocks > right or ends[kind, x, y] >= SCALE * (most + size):
                    continue
                cost = follow(number, reach, blocks, spare, codes[kind], x, y, own)
                if cost < 0:
                    ends[kind, x, y] = NONE
                if cost < 0 or cost > most:
                    continue
                set_clique(lattice, free, reach, own, False)
                # The last chain is that of the first block with any, whose rows are those of nearly all blocks.
                middle = (own[size - 1, 2] + own[size - 1, 3]) // 2
                placed[count, 0], placed[count, 1], placed[count, 2], placed[count, 3] = x + blocks // 2, middle, which, cost
                chains[count, :size] = own
                count += 1
                waiting[which] -= 1
        if count == before:
            break
    return count


@njit(**OPTIONS)
def ruin(lattice, free, reach, sizes, placed, chains, count, waiting, x, y, width):
    """Take out the cliques whose middle is within `width` of (x, y); returns how many are left."""
    left = 0
    for index in range(count):
        which = placed[index, 2]
        if abs(placed[index, 0] - x) <= width and abs(placed[index, 1] - y) <= width:
            set_clique(lattice, free, reach, chains[index, : sizes[which]], True)
            waiting[which] += 1
        else:
            placed[left] = placed[index]
            chains[left] = chains[index]
            left += 1
    return left
