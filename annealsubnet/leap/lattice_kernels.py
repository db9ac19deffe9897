"""Compiled steps of packing cliques into a lattice of lines; `annealsubnet.leap.lattice` says what lines and shapes are."""

# Numba infers types; annotations would only repeat them.
# mypy: disable-error-code="no-untyped-def, var-annotated"

from typing import Any

import numpy as np
from numba import njit

OPTIONS: dict[str, Any] = {"cache": True, "nogil": True, "error_model": "numpy"}
DEAREST = 1 << 30
ONE_IN = 4


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
def cost_of(number, reach, u, line, track, low, high):
    """Qubits of a run over the places `low` to `high`; −1 if it is not free."""
    if reach[u, line, track, low] < high:
        return -1
    return number[u, line, track, high] - number[u, line, track, low] + 1


@njit(**OPTIONS)
def cheapest(costs):
    """The track of least positive cost; −1 if there is none."""
    best = -1
    for track in range(costs.size):
        if costs[track] > 0 and (best < 0 or costs[track] < costs[best]):
            best = track
    return best


@njit(**OPTIONS)
def evaluate(number, reach, x, y, shape, blocks, size, chains):
    """Least qubits of a clique at (x, y) in one shape, −1 if none; leaves chains (block, vertical track, horizontal track)."""
    tracks = reach.shape[2]
    vertical, horizontal = np.empty(tracks, np.int64), np.empty(tracks, np.int64)
    found = np.empty((blocks * tracks, 4), np.int64)
    made = 0
    for block in range(blocks):
        column, row, left, right, low, high = shape[block]
        standing, lying = 0, 0
        for track in range(tracks):
            vertical[track] = cost_of(number, reach, 0, x + column, track, y + low, y + high)
            standing += vertical[track] > 0
            horizontal[track] = cost_of(number, reach, 1, y + row, track, x + left, x + right)
            lying += horizontal[track] > 0
        pairs = min(standing, lying)
        if made + pairs + (blocks - 1 - block) * tracks < size:
            return -1
        for _ in range(pairs):
            one, other = cheapest(vertical), cheapest(horizontal)
            found[made, 0], found[made, 1] = vertical[one] + horizontal[other], block
            found[made, 2], found[made, 3] = one, other
            vertical[one], horizontal[other] = -1, -1
            made += 1
    total, chosen, cost = 0, 0, 2
    while chosen < size:
        for index in range(made):
            if found[index, 0] == cost and chosen < size:
                chains[chosen, :] = found[index, 1:]
                chosen += 1
                total += cost
        cost += 1
    return total


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
def set_clique(lattice, free, reach, x, y, shape, size, chains, value):
    """Make all qubits of a clique free or not."""
    qubits, linked, _ = lattice
    for chain in range(size):
        column, row, left, right, low, high = shape[chains[chain, 0]]
        set_run(qubits, linked, free, reach, 0, x + column, chains[chain, 1], y + low, y + high, value)
        set_run(qubits, linked, free, reach, 1, y + row, chains[chain, 2], x + left, x + right, value)


@njit(**OPTIONS)
def next_random(random):
    """A random word (xorshift64*); changes `random`."""
    state = random[0]
    state ^= state >> np.uint64(12)
    state ^= state << np.uint64(25)
    state ^= state >> np.uint64(27)
    random[0] = state
    return np.int64((state * np.uint64(0x2545F4914F6CDD1D)) >> np.uint64(33))


@njit(**OPTIONS)
def best_shape(number, reach, x, y, kinds, first, last, size, most, random, chains):
    """The shape of least cost for a clique at (x, y), and that cost, ties broken by chance; −1 if none costs up to `most`."""
    shapes, blocks, tried = kinds
    lines = reach.shape[1]
    best, best_cost, ties = -1, most, 0
    for shape in range(first, last):
        if not tried[shape] or x + blocks[shape] > lines or y + blocks[shape] > lines:
            continue
        cost = evaluate(number, reach, x, y, shapes[shape], blocks[shape], size, chains)
        if cost < 0 or cost > best_cost:
            continue
        ties = 1 if cost < best_cost or best < 0 else ties + 1
        if next_random(random) % ties == 0:
            best = shape
        best_cost = cost
    return best, best_cost


@njit(**OPTIONS)
def fill(lattice, free, reach, kinds, group, most, window, directions, random, placed, chains, count, waiting, costs):
    """Place cliques of one size one after the other where they fit first, scanning a window; returns how many are placed.

    Args:
        lattice: (qubits, linked, number).
        free: overwritten.
        reach: overwritten.
        kinds: (shapes, blocks of each, whether each is tried).
        group: (number of the size, size, first shape, last shape).
        most: qubits that one may cost.
        window: (left, right, low, high) of the corners that are tried.
        directions: (leftwards, downwards, columns first).
        random: state of the random numbers.
        placed: (x, y, shape, group, cost) of each clique, appended to.
        chains: of each clique, appended to.
        count: cliques placed before.
        waiting: how many cliques of each size are still to be placed; overwritten.
        costs: at least what a clique of each size costs at each corner; overwritten.
    """
    number = lattice[2]
    which, size, first, last = group
    left, right, low, high = window
    own = np.empty((size, 3), np.int64)
    wide, tall = right - left, high - low
    # What is placed only takes room away, so a place that was too dear stays so: `least` is what each cost when last looked at.
    least = costs[which]
    for index in range(wide * tall):
        one, other = (index // tall, index % tall) if directions[2] else (index % wide, index // wide)
        x = right - 1 - one if directions[0] else left + one
        y = high - 1 - other if directions[1] else low + other
        while waiting[which] > 0 and least[x, y] <= most:
            shape, cost = best_shape(number, reach, x, y, kinds, first, last, size, DEAREST, random, own)
            least[x, y] = cost
            if cost > most or shape < 0:
                break
            evaluate(number, reach, x, y, kinds[0][shape], kinds[1][shape], size, own)
            set_clique(lattice, free, reach, x, y, kinds[0][shape], size, own, False)
            placed[count, 0], placed[count, 1], placed[count, 2] = x, y, shape
            placed[count, 3], placed[count, 4] = which, cost
            chains[count, :size] = own
            count += 1
            waiting[which] -= 1
    return count


@njit(**OPTIONS)
def fill_all(lattice, free, reach, kinds, groups, limits, window, directions, random, placed, chains, count, waiting, start):
    """Place cliques of all sizes, largest first, cheap places before dear ones."""
    lines = reach.shape[1]
    costs = np.zeros((groups.shape[0], lines, lines), np.int64)
    for step in range(start, limits.shape[1]):
        for which in range(groups.shape[0]):
            if waiting[which] > 0:
                group = (which, groups[which, 0], groups[which, 1], groups[which, 2])
                most = limits[which, step]
                count = fill(
                    lattice, free, reach, kinds, group, most, window, directions, random, placed, chains, count, waiting, costs
                )
    return count


@njit(**OPTIONS)
def ruin(lattice, free, reach, kinds, groups, placed, chains, count, waiting, x, y, width):
    """Take out the cliques whose middle is within `width` of (x, y); returns how many are left."""
    left = 0
    for index in range(count):
        shape, which = placed[index, 2], placed[index, 3]
        half = kinds[1][shape] // 2
        if abs(placed[index, 0] + half - x) <= width and abs(placed[index, 1] + half - y) <= width:
            corner = placed[index, 0], placed[index, 1]
            set_clique(lattice, free, reach, corner[0], corner[1], kinds[0][shape], groups[which, 0], chains[index], True)
            waiting[which] += 1
        else:
            placed[left] = placed[index]
            chains[left] = chains[index]
            left += 1
    return left


@njit(**OPTIONS)
def worth(placed, count, groups):
    """What a packing is worth: the least qubits that its cliques need, less half of what they take beyond."""
    total = 0.0
    for index in range(count):
        least = groups[placed[index, 3], 3]
        total += least - 0.5 * (placed[index, 4] - least)
    return total


@njit(**OPTIONS)
def improve(lattice, free, reach, kinds, groups, limits, random, placed, chains, count, waiting, rounds, width, temperature):
    """Ruin and recreate: empty a random window, fill it anew in random order and shapes, keep that by the Metropolis rule.

    Args:
        lattice, free, reach, kinds, groups, limits, random, placed, chains, count, waiting: as in `fill_all`; overwritten.
        rounds: windows.
        width: of a window, about.
        temperature: in qubits of worth; at 0 what is worth less is never kept.

    Returns:
        How many cliques are placed; the arrays hold the packing.
    """
    lines, widest = reach.shape[1], kinds[1].max()
    for _ in range(rounds):
        if waiting.sum() == 0:
            break
        before = (free.copy(), reach.copy(), placed[:count].copy(), chains[:count].copy(), waiting.copy())
        value = worth(placed, count, groups)
        reach_out = width // 2 + next_random(random) % width
        x, y = next_random(random) % lines, next_random(random) % lines
        left = ruin(lattice, free, reach, kinds, groups, placed, chains, count, waiting, x, y, reach_out)
        margin = reach_out + widest
        window = (max(0, x - margin), min(lines, x + margin), max(0, y - margin), min(lines, y + margin))
        turns = next_random(random)
        directions = (turns % 2 == 0, turns // 2 % 2 == 0, turns // 4 % 2 == 0)
        for shape in range(kinds[2].size):
            kinds[2][shape] = next_random(random) % ONE_IN == 0
        start = 0
        while start < limits.shape[1] - 1 and next_random(random) % 10 < 3:
            start += 1
        made = fill_all(
            lattice, free, reach, kinds, groups, limits, window, directions, random, placed, chains, left, waiting, start
        )
        threshold = np.log((next_random(random) + 1) / 2.0**31)
        if worth(placed, made, groups) >= value + temperature * threshold:
            count = made
        else:
            free[:], reach[:] = before[0], before[1]
            placed[:count], chains[:count] = before[2], before[3]
            waiting[:] = before[4]
    return count
