"""Compiled steps of the multilevel partition: match, contract, grow, refine.

A graph is four arrays: `starts` and `neighbors` (compressed rows), `weights` (coupling strengths) and `sizes` (variables in
a vertex). With c(v, p) the strength between vertex v and part p, moving v from part a to b changes the weight inside parts by
c(v, b) − c(v, a); every step below only ever chooses vertices by such connections.
"""

# Numba infers types; annotations would only repeat them.
# mypy: disable-error-code="no-untyped-def, var-annotated"

from typing import Any

import numpy as np
from numba import njit

OPTIONS: dict[str, Any] = {"cache": True, "nogil": True, "error_model": "numpy"}
NEWEST = 512


@njit(**OPTIONS)
def shuffled(count, seed):
    """The numbers below `count` in random order (Fisher and Yates; xorshift64*, so that no global state is read)."""
    order = np.arange(count).astype(np.int32)
    state = np.uint64(seed) * np.uint64(0x9E3779B97F4A7C15) + np.uint64(0x2545F4914F6CDD1D)
    for i in range(count - 1, 0, -1):
        state ^= state >> np.uint64(12)
        state ^= state << np.uint64(25)
        state ^= state >> np.uint64(27)
        j = np.int64((state * np.uint64(0x2545F4914F6CDD1D)) >> np.uint64(33)) % (i + 1)
        order[i], order[j] = order[j], order[i]
    return order


@njit(**OPTIONS)
def match(starts, neighbors, weights, sizes, largest, order, parts):
    """Pair each vertex with the free neighbor of strongest coupling for its size; returns coarse vertices and how many.

    Args:
        starts: of rows.
        neighbors: of each entry.
        weights: of each entry.
        sizes: of each vertex.
        largest: no pair may hold more variables.
        order: in which vertices choose.
        parts: of each vertex; only vertices of the same part are paired.
    """
    count = sizes.size
    coarse = np.full(count, -1, np.int32)
    made = 0
    for position in range(count):
        vertex = order[position]
        if coarse[vertex] >= 0:
            continue
        best, best_rate = -1, 0.0
        for entry in range(starts[vertex], starts[vertex + 1]):
            other = neighbors[entry]
            if coarse[other] >= 0 or other == vertex or parts[other] != parts[vertex]:
                continue
            if sizes[vertex] + sizes[other] <= largest:
                rate = weights[entry] / sizes[other]
                if rate > best_rate:
                    best, best_rate = other, rate
        coarse[vertex] = made
        if best >= 0:
            coarse[best] = made
        made += 1
    return coarse, made


@njit(**OPTIONS)
def contract(starts, neighbors, weights, sizes, coarse, made):
    """The graph of coarse vertices: couplings between the same two added up, those inside one left out."""
    firsts = np.full(made, -1, np.int32)
    seconds = np.full(made, -1, np.int32)
    coarse_sizes = np.zeros(made, np.int32)
    for vertex in range(sizes.size):
        target = coarse[vertex]
        coarse_sizes[target] += sizes[vertex]
        if firsts[target] < 0:
            firsts[target] = vertex
        else:
            seconds[target] = vertex
    coarse_starts = np.zeros(made + 1, np.int64)
    coarse_neighbors = np.empty(neighbors.size, np.int32)
    coarse_weights = np.empty(neighbors.size, np.float32)
    place = np.full(made, -1, np.int64)
    used = 0
    for target in range(made):
        begin = used
        for turn in range(2):
            vertex = firsts[target] if turn == 0 else seconds[target]
            if vertex < 0:
                continue
            for entry in range(starts[vertex], starts[vertex + 1]):
                other = coarse[neighbors[entry]]
                if other == target:
                    continue
                if place[other] < begin:
                    place[other] = used
                    coarse_neighbors[used] = other
                    coarse_weights[used] = weights[entry]
                    used += 1
                else:
                    coarse_weights[place[other]] += weights[entry]
        coarse_starts[target + 1] = used
    return coarse_starts, coarse_neighbors[:used].copy(), coarse_weights[:used].copy(), coarse_sizes


@njit(**OPTIONS)
def first_of_part(outline, num_outline, parts, taken, total):
    """The free vertex with most of its coupling in finished parts, so that no gaps are left; and what remains of the outline.

    Only the newest vertices of the outline are looked at: a scan of all of them, once a part, would be quadratic.
    """
    best, best_rate = -1, -1.0
    while best < 0 and num_outline > 0:
        begin = max(0, num_outline - NEWEST)
        kept = begin
        for index in range(begin, num_outline):
            vertex = outline[index]
            if parts[vertex] >= 0:
                continue
            outline[kept] = vertex
            kept += 1
            rate = taken[vertex] / total[vertex]
            if rate > best_rate:
                best, best_rate = vertex, rate
        num_outline = kept
    return best, num_outline


@njit(**OPTIONS)
def next_of_part(frontier, num_frontier, parts, inside, taken, total, sizes, room):
    """The free neighbor of a part most of whose coupling is in it or in finished parts; and what is left of the frontier."""
    best, best_rate, kept = -1, -1.0, 0
    for index in range(num_frontier):
        vertex = frontier[index]
        if parts[vertex] >= 0:
            continue
        frontier[kept] = vertex
        kept += 1
        rate = (0.5 * inside[vertex] + 0.5 * taken[vertex]) / total[vertex]
        if sizes[vertex] <= room and rate > best_rate:
            best, best_rate = vertex, rate
    return best, kept


@njit(**OPTIONS)
def grow(starts, neighbors, weights, sizes, largest, target, order):
    """Parts grown one after the other: the free vertex most of whose coupling is inside comes next.

    Args:
        starts: of rows.
        neighbors: of each entry.
        weights: of each entry.
        sizes: of each vertex.
        largest: most variables of a part.
        target: variables at which a part stops growing.
        order: in which vertices are tried where no part is beside them.

    Returns:
        The part of each vertex, and how many parts.
    """
    count = sizes.size
    parts = np.full(count, -1, np.int32)
    total = np.full(count, np.float32(1e-30))
    for vertex in range(count):
        for entry in range(starts[vertex], starts[vertex + 1]):
            total[vertex] += weights[entry]
    inside = np.zeros(count, np.float32)
    taken = np.zeros(count, np.float32)
    frontier = np.empty(count, np.int32)
    outline = np.empty(count, np.int32)
    listed = np.full(count, -1, np.int32)
    outlined = np.zeros(count, np.bool_)
    num_outline, num_frontier, position, made, held = 0, 0, 0, 0, 0
    while True:
        vertex = -1
        if held > 0:
            vertex, num_frontier = next_of_part(frontier, num_frontier, parts, inside, taken, total, sizes, largest - held)
        if vertex < 0:
            vertex, num_outline = first_of_part(outline, num_outline, parts, taken, total)
            while vertex < 0 and position < count:
                if parts[order[position]] < 0:
                    vertex = order[position]
                else:
                    position += 1
            if vertex < 0:
                return parts, made + (held > 0)
        if held > 0 and (held >= target or held + sizes[vertex] > largest):
            made, held, num_frontier = made + 1, 0, 0
            continue
        parts[vertex] = made
        held += sizes[vertex]
        for entry in range(starts[vertex], starts[vertex + 1]):
            other = neighbors[entry]
            taken[other] += weights[entry]
            if parts[other] >= 0:
                continue
            if not outlined[other]:
                outlined[other] = True
                outline[num_outline] = other
                num_outline += 1
            if listed[other] != made:
                listed[other] = made
                inside[other] = 0.0
                frontier[num_frontier] = other
                num_frontier += 1
            inside[other] += weights[entry]


@njit(**OPTIONS)
def refine(starts, neighbors, weights, sizes, parts, held, largest, passes):
    """Move vertices to the part they are coupled to most while the weight inside parts rises; changes `parts`, `held`."""
    count = sizes.size
    num_parts = held.size
    connection = np.zeros(num_parts, np.float32)
    seen = np.empty(num_parts, np.int32)
    active = np.ones(count, np.bool_)
    for _ in range(passes):
        moved = 0
        for vertex in range(count):
            if not active[vertex]:
                continue
            active[vertex] = False
            own = parts[vertex]
            num_seen, outside = 0, False
            for entry in range(starts[vertex], starts[vertex + 1]):
                part = parts[neighbors[entry]]
                if connection[part] == 0.0:
                    seen[num_seen] = part
                    num_seen += 1
                connection[part] += weights[entry]
                outside = outside or part != own
            if outside:
                best, best_connection = own, connection[own]
                for index in range(num_seen):
                    part = seen[index]
                    if part == own or held[part] + sizes[vertex] > largest:
                        continue
                    better = connection[part] > best_connection
                    tie = connection[part] == best_connection and held[part] + sizes[vertex] < held[best]
                    if better or tie:
                        best, best_connection = part, connection[part]
                if best != own:
                    parts[vertex] = best
                    held[own] -= sizes[vertex]
                    held[best] += sizes[vertex]
                    moved += 1
                    active[vertex] = True
                    for entry in range(starts[vertex], starts[vertex + 1]):
                        active[neighbors[entry]] = True
            for index in range(num_seen):
                connection[seen[index]] = 0.0
        if moved == 0:
            break


@njit(**OPTIONS)
def weight_inside(starts, neighbors, weights, parts):
    """Twice the weight of couplings whose two ends are in the same part."""
    total = 0.0
    for vertex in range(parts.size):
        for entry in range(starts[vertex], starts[vertex + 1]):
            if parts[neighbors[entry]] == parts[vertex]:
                total += weights[entry]
    return total
