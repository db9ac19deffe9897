"""Compiled search for the cheapest shapes of a clique; `annealsubnet.leap.lattice` says what lines, runs and shapes are.

A shape of b blocks takes its columns and its rows one by one, always at an end of an interval: after i blocks the columns in
use are [x, x + i) and the rows that are left [y, y + b - i). Block i has its vertical run over the rows that were left before
it, and its horizontal run over the columns in use after it, so that x and y are all that later blocks need to know. Hence
dynamic programming over the states (i, x, y) and the number of tracks passed over so far finds the cheapest of all
4^(b - 1) shapes, at every place of a window, on whatever tracks are free.
"""

# Numba infers types; annotations would only repeat them.
# mypy: disable-error-code="no-untyped-def, var-annotated"

from typing import Any

import numpy as np
from numba import njit

OPTIONS: dict[str, Any] = {"cache": True, "nogil": True, "error_model": "numpy"}
NONE = 1 << 29
# Costs are in units of 1/SCALE qubits, so that noise can break ties.
SCALE = 64


@njit(**OPTIONS)
def cheapest_runs(number, reach, u, line, low, high, tracks, costs):
    """Tracks on which the run from `low` to `high` is free, cheapest first, and their qubits; returns how many."""
    found = 0
    for track in range(reach.shape[2]):
        if reach[u, line, track, low] < high:
            continue
        cost = number[u, line, track, high] - number[u, line, track, low] + 1
        place = found
        while place > 0 and costs[place - 1] > cost:
            costs[place], tracks[place] = costs[place - 1], tracks[place - 1]
            place -= 1
        costs[place], tracks[place] = cost, track
        found += 1
    return found


@njit(**OPTIONS)
def tabulate_runs(number, reach, noise, u, length, lines, places, table):
    """Fill `table[line, first place, p]` with what the p cheapest runs of a length cost together, in a window."""
    most = reach.shape[2]
    tracks, costs = np.empty(most, np.int64), np.empty(most, np.int64)
    for line in range(lines[0], lines[1]):
        for low in range(places[0], places[1] - length + 1):
            found = cheapest_runs(number, reach, u, line, low, low + length - 1, tracks, costs)
            total = 0
            table[line, low, 0] = 0
            for index in range(found):
                total += SCALE * costs[index] + noise[u, line]
                table[line, low, index + 1] = total
            table[line, low, found + 1 :] = NONE


@njit(**OPTIONS)
def add_block(block, blocks, spare, window, standing, lying, before, now, codes):
    """Find how each state after a block is reached at least cost, for every number of tracks passed over; whether any is."""
    left, right, low, high = window
    rows, columns, tracks = blocks - block, block + 1, standing.shape[2] - 1
    reached = False
    for x in range(left, right - columns + 1):
        for y in range(low, high - rows + 2):
            now[x, y, : spare + 1] = NONE
            for turn in range(4):
                lowest, leftmost = turn // 2, turn % 2
                first = y - lowest
                # The first column is both the leftmost and the rightmost, and so is the last row.
                if first < low or first + rows > high or (leftmost and block == 0) or (lowest and rows == 1):
                    continue
                column, row = x if leftmost else x + columns - 1, first if lowest else first + rows - 1
                for used in range(spare + 1):
                    base = before[x + leftmost, first, used]
                    if base >= NONE:
                        continue
                    for count in range(max(0, tracks - spare + used), tracks + 1):
                        total = base + standing[column, first, count] + lying[row, x, count]
                        passed = used + tracks - count
                        if total < now[x, y, passed]:
                            now[x, y, passed] = total
                            codes[block, x, y, passed] = 4 * count + turn
                            reached = True
    return reached


@njit(**OPTIONS)
def cheapest_shapes(number, reach, noise, blocks, spare, window, codes, ends, work):
    """Find the least cost of a clique for each place where it may end.

    Args:
        number: `[u, line, track, place]`, numbers of the qubits along each track.
        reach: `[u, line, track, place]`, the last place up to which a track is free from here.
        noise: `[u, line]`, added to the cost of each run.
        blocks: columns and rows of the clique.
        spare: tracks that are passed over: blocks times tracks, less the size.
        window: (first column, one past the last, first row, one past the last).
        codes: `[block, x, y, spare]`, overwritten with how each state is best reached; `follow` reads it.
        ends: `[x, row]`, overwritten with the least cost of a clique on the columns from x whose last block is on that row.
        work: (standing, lying, before, now): `[line, place, tracks + 1]` twice, and `[x, y, spare + 1]` twice; overwritten.
    """
    left, right, low, high = window
    standing, lying, before, now = work
    ends[left:right, low:high] = NONE
    before[left : right + 1, low : high + 1, 1 : spare + 1] = NONE
    before[left : right + 1, low : high + 1, 0] = 0
    for block in range(blocks):
        rows, columns = blocks - block, block + 1
        tabulate_runs(number, reach, noise, 0, rows, (left, right), (low, high), standing)
        tabulate_runs(number, reach, noise, 1, columns, (low, high), (left, right), lying)
        if not add_block(block, blocks, spare, window, standing, lying, before, now, codes):
            return
        before, now = now, before
    for x in range(left, right - blocks + 1):
        ends[x, low:high] = before[x, low:high, spare]


@njit(**OPTIONS)
def follow(number, reach, blocks, spare, codes, x, row, chains):
    """Chains of the cheapest clique that ends at a place, on tracks that are free now; returns its qubits, −1 if some are not.

    A chain is (column, track, first row, last row, row, track, first column, last column).
    """
    tracks = reach.shape[2]
    up, across = np.empty(tracks, np.int64), np.empty(tracks, np.int64)
    heights, widths = np.empty(tracks, np.int64), np.empty(tracks, np.int64)
    y, made, total = row, 0, 0
    for block in range(blocks - 1, -1, -1):
        rows, columns = blocks - block, block + 1
        code = codes[block, x, y, spare]
        count, lowest, leftmost = code // 4, code // 2 % 2, code % 2
        y -= lowest
        column, line = x if leftmost else x + columns - 1, y if lowest else y + rows - 1
        standing = cheapest_runs(number, reach, 0, column, y, y + rows - 1, up, heights)
        lying = cheapest_runs(number, reach, 1, line, x, x + columns - 1, across, widths)
        if min(standing, lying) < count:
            return -1
        for index in range(count):
            # The shortest with the longest, so that chains are of like length.
            other = count - 1 - index
            chains[made, 0], chains[made, 1], chains[made, 2], chains[made, 3] = column, up[index], y, y + rows - 1
            chains[made, 4], chains[made, 5], chains[made, 6], chains[made, 7] = line, across[other], x, x + columns - 1
            total += heights[index] + widths[other]
            made += 1
        x += leftmost
        spare -= tracks - count
    return total
