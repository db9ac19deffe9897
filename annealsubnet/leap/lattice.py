"""Lattice: a working graph as lines of qubits, and the shapes in which cliques lie on it.

A qubit of Zephyr or Pegasus is a short line segment, vertical (u = 0) or horizontal (u = 1). Collinear segments that follow
each other are coupled, and so are crossing ones. Let `qubits[u, line, track, place]` be the qubit that lies on a track of a
line over that place, so that qubits[0, x, ·, y] and qubits[1, y, ·, x] cross. A chain of a clique is then an L: a vertical
run on line x and a horizontal run on line y. Chains of blocks i = 1 … b at (x_i, y_i) all cross each other if

    the vertical run of block i covers y_j for all j ≥ i, and the horizontal run of block j covers x_i for all i ≤ j;

that is, if the x's before every j, and the y's after every i, are intervals. Every such order of x's and y's is a *shape*;
the staircase is one. Shapes interlock, tracks with defects are left out one by one, and so a graph holds far more cliques
than it holds tiles with one template each. Where cliques go is improved by ruin and recreate, annealed: windows are emptied
and filled again, and what is worth less is kept with a probability that falls.

References:
    T. Boothby, A. D. King, A. Roy, "Fast clique minor generation in Chimera qubit connectivity graphs", Quantum Information
    Processing 15 (2016); G. Schrimpf et al., "Record breaking optimization results using the ruin and recreate principle",
    Journal of Computational Physics 159 (2000).
"""

import time
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from itertools import product
from typing import Any

import networkx as nx
import numpy as np

from annealsubnet.leap.working_graphs import WorkingGraph

# All nested orders of up to this many blocks are tried as shapes; of more only some.
_ALL_ORDERS = 4
# A clique may cost up to these multiples of what it needs on a graph without defects, tried in this order.
_DEARER = (1.0, 1.06, 1.12, 1.2, 1.4)
_ROUNDS_A_CHECK = 25
# The first temperature of ruin and recreate, in qubits; it falls linearly to zero.
_HOT = 10.0
_MOST_SHAPES = 64


@dataclass(frozen=True)
class Lattice:
    """Tracks of qubits.

    Attributes:
        qubits: `[u, line, track, place]`; −1 where there is none.
        linked: whether the qubit at a place is that of the place before, or coupled to it.
    """

    qubits: np.ndarray
    linked: np.ndarray

    @property
    def tracks(self) -> int:
        """Tracks of a line."""
        return int(self.qubits.shape[2])

    @cached_property
    def number(self) -> np.ndarray:
        """Numbers of the qubits along each track, so that a run has as many as they differ, and one."""
        change = np.diff(self.qubits, axis=3, prepend=self.qubits[..., :1]) != 0
        return np.cumsum(change, axis=3).astype(np.int64)


def lattice_of(target: WorkingGraph) -> Lattice:
    """The tracks of a working graph; of two qubits whose coupler is missing one is left out."""
    graph, broken = target.graph, _without_coupler(target)
    qubits = _empty(graph)
    for line, place, qubit in _segments(graph):
        if qubit not in broken:
            qubits[(*line, place)] = qubit
    linked = np.zeros(qubits.shape, np.bool_)
    before, after = qubits[..., :-1], qubits[..., 1:]
    linked[..., 1:] = (before == after) & (after >= 0)
    for index in zip(*np.nonzero((before != after) & (before >= 0) & (after >= 0)), strict=True):
        if graph.has_edge(int(before[index]), int(after[index])):
            linked[(*index[:3], index[3] + 1)] = True
    return Lattice(qubits, linked)


def _empty(graph: nx.Graph) -> np.ndarray:
    m = graph.graph["rows"]
    zephyr = graph.graph["family"] == "zephyr"
    lines, tracks = (2 * m + 1, 2 * graph.graph["tile"]) if zephyr else (6 * m, 2)
    return np.full((2, lines, tracks, lines), -1, np.int32)


def _segments(graph: nx.Graph) -> Any:
    """((u, line, track), place, qubit) of every place that a qubit covers."""
    import dwave.graphs

    m = graph.graph["rows"]
    if graph.graph["family"] == "zephyr":
        zephyr = dwave.graphs.zephyr_coordinates(m, graph.graph["tile"])
        for qubit in graph:
            u, w, k, j, z = zephyr.linear_to_zephyr(qubit)
            yield (u, w, 2 * k + j), 2 * z + j, qubit
            yield (u, w, 2 * k + j), 2 * z + j + 1, qubit
        return
    pegasus = dwave.graphs.pegasus_coordinates(m)
    offsets = graph.graph["vertical_offsets"], graph.graph["horizontal_offsets"]
    for qubit in graph:
        u, w, k, z = pegasus.linear_to_pegasus(qubit)
        first = (12 * z + offsets[u][k]) // 2
        for place in range(first, min(first + 6, 6 * m)):
            yield (u, 6 * w + k // 2, k % 2), place, qubit


def _without_coupler(target: WorkingGraph) -> set[int]:
    """Qubits to leave out so that no two that are left lack a coupler which the full graph has."""
    full = _full(target.topology, target.graph.graph["rows"])
    graph = target.graph
    missing = [pair for pair in full.edges(graph.nodes) if pair[1] in graph and not graph.has_edge(*pair)]
    left_out: set[int] = set()
    counts: dict[int, int] = {}
    for pair in missing:
        for qubit in pair:
            counts[qubit] = counts.get(qubit, 0) + 1
    for pair in sorted(missing):
        if not left_out & set(pair):
            left_out.add(max(pair, key=lambda qubit: (counts[qubit], qubit)))
    return left_out


@lru_cache(maxsize=8)
def _full(topology: str, rows: int) -> nx.Graph:
    import dwave.graphs

    return (dwave.graphs.zephyr_graph if topology == "zephyr" else dwave.graphs.pegasus_graph)(rows)


@lru_cache(maxsize=64)
def shapes_of(blocks: int) -> np.ndarray:
    """Shapes of so many blocks: for each block its column and row, the columns and the rows that its runs cover."""
    if blocks <= _ALL_ORDERS:
        orders = [_nested(turns) for turns in product((False, True), repeat=blocks - 1)]
    else:
        rising = (True,) * (blocks - 1)
        middles = (blocks // 3, blocks // 2, 2 * blocks // 3)
        turns = [rising, tuple(not turn for turn in rising)]
        turns += [rising[:cut] + (False,) * (blocks - 1 - cut) for cut in middles]
        turns += [(False,) * cut + rising[: blocks - 1 - cut] for cut in middles]
        orders = [_nested(turn) for turn in dict.fromkeys(turns)]
    pairs = [(columns, rows) for columns in orders for rows in orders]
    step = -(-len(pairs) // _MOST_SHAPES)
    return np.array([_runs(columns, rows[::-1]) for columns, rows in pairs[:: step + (step > 1 and step % 2 == 0)]], np.int64)


def _nested(turns: Sequence[bool]) -> list[int]:
    """Positions of blocks of which every first few are an interval: each next one to the right of them, or to the left."""
    left = right = sum(not turn for turn in turns)
    order = [left]
    for turn in turns:
        left, right = (left, right + 1) if turn else (left - 1, right)
        order.append(right if turn else left)
    return order


def _runs(columns: list[int], rows: list[int]) -> list[tuple[int, ...]]:
    return [
        (column, row, min(columns[: i + 1]), max(columns[: i + 1]), min(rows[i:]), max(rows[i:]))
        for i, (column, row) in enumerate(zip(columns, rows, strict=True))
    ]


def place_cliques(
    target: WorkingGraph, free: set[int], sizes: Sequence[int], *, seed: int, rounds: int, time_limit: float
) -> dict[int, tuple[tuple[int, ...], ...]]:
    """Disjoint cliques of mixed sizes on the free qubits of a working graph.

    Args:
        target: the working graph.
        free: its qubits that may be used.
        sizes: variables of each clique.
        seed: of the order in which places are tried.
        rounds: windows that are emptied and filled again, as long as a clique is left out.
        time_limit: seconds after which no further windows are tried.

    Returns:
        Chains of each clique that was placed, by its position in `sizes`.
    """
    from annealsubnet.leap import lattice_kernels as kernels

    deadline = time.perf_counter() + time_limit
    lattice = lattice_of(target)
    distinct = sorted(set(sizes) - {0}, reverse=True)
    kinds, groups, limits = _kinds(lattice.tracks, distinct, target)
    if not len(groups):
        return {}
    waiting = np.array([sum(size == groups[k, 0] for size in sizes) for k in range(len(groups))])
    count, total = 0, int(waiting.sum())
    usable = np.isin(lattice.qubits, np.fromiter(free, np.int64, len(free))) & (lattice.qubits >= 0)
    reach = _reach(lattice, usable)
    arrays = (lattice.qubits, lattice.linked, lattice.number)
    placed, chains = np.zeros((total, 5), np.int64), np.zeros((total, int(groups[:, 0].max()), 3), np.int64)
    random = np.array([np.random.SeedSequence(seed).generate_state(1, np.uint64)[0] | np.uint64(1)])
    lines = lattice.qubits.shape[1]
    window, directions = (0, lines, 0, lines), (False, False, False)
    count = kernels.fill_all(
        arrays, usable, reach, kinds, groups, limits, window, directions, random, placed, chains, count, waiting, 0
    )
    width = int(kinds[1].max())
    best = (kernels.worth(placed, count, groups), count, placed[:count].copy(), chains[:count].copy())
    for number in range(0, rounds, _ROUNDS_A_CHECK):
        if not waiting.sum() or time.perf_counter() > deadline:
            break
        temperature = _HOT * (1 - number / rounds)
        found = (placed, chains, count, waiting, _ROUNDS_A_CHECK, width, temperature)
        count = kernels.improve(arrays, usable, reach, kinds, groups, limits, random, *found)
        worth = kernels.worth(placed, count, groups)
        if worth > best[0] or not waiting.sum():
            best = (worth, count, placed[:count].copy(), chains[:count].copy())
    _, count, placed, chains = best
    return _chains(lattice, kinds[0], groups, placed[:count], chains[:count], sizes)


def _reach(lattice: Lattice, usable: np.ndarray) -> np.ndarray:
    from annealsubnet.leap import lattice_kernels as kernels

    reach = np.full(lattice.qubits.shape, -1, np.int64)
    for u, line, track in np.ndindex(lattice.qubits.shape[:3]):
        kernels.reach_track(lattice.qubits, lattice.linked, usable, reach, u, line, track)
    return reach


def _kinds(
    tracks: int, distinct: Sequence[int], target: WorkingGraph
) -> tuple[tuple[np.ndarray, np.ndarray, np.ndarray], np.ndarray, np.ndarray]:
    """Shapes with their blocks; (size, first shape, last shape, least qubits) of each size; the most that each may cost."""
    from annealsubnet.leap import lattice_kernels as kernels

    full = _full(target.topology, target.graph.graph["rows"])
    lattice = lattice_of(WorkingGraph(full, "", target.topology))
    reach, lines = _reach(lattice, lattice.qubits >= 0), lattice.qubits.shape[1]
    lists, groups = [], []
    for size in distinct:
        least = -(-size // tracks)
        lists.append([*shapes_of(least), *(shapes_of(least + 1) if least < _ALL_ORDERS + 2 or tracks == 2 else ())])
    widest = max((len(shape) for some in lists for shape in some), default=1)
    shapes = np.zeros((sum(map(len, lists)), widest, 6), np.int64)
    blocks = np.zeros(len(shapes), np.int64)
    first = 0
    for size, some in zip(distinct, lists, strict=True):
        for index, shape in enumerate(some, start=first):
            shapes[index, : len(shape)], blocks[index] = shape, len(shape)
        last, middle = first + len(some), lines // 2
        own, random = np.empty((size, 3), np.int64), np.ones(1, np.uint64)
        places = [(x, y) for x in range(max(0, middle - 6), middle) for y in range(max(0, middle - 6), middle)]
        kinds, dearest = (shapes, blocks, np.ones(len(shapes), np.bool_)), kernels.DEAREST
        tried = [
            kernels.best_shape(lattice.number, reach, x, y, kinds, first, last, size, dearest, random, own) for x, y in places
        ]
        least = min((cost for shape, cost in tried if shape >= 0), default=0)
        if least:
            groups.append((size, first, last, least))
        first = last
    table = np.array(groups, np.int64).reshape(len(groups), 4)
    return (shapes, blocks, np.ones(len(shapes), np.bool_)), table, (table[:, 3:] * np.array(_DEARER)).astype(np.int64)


def _chains(
    lattice: Lattice, shapes: np.ndarray, groups: np.ndarray, placed: np.ndarray, chains: np.ndarray, sizes: Sequence[int]
) -> dict[int, tuple[tuple[int, ...], ...]]:
    """Qubits of every chain, by position in `sizes`."""
    waiting: dict[int, list[int]] = {}
    for index in range(len(sizes) - 1, -1, -1):
        waiting.setdefault(sizes[index], []).append(index)
    found = {}
    for (x, y, shape, which, _), own in zip(placed.tolist(), chains, strict=True):
        size = int(groups[which, 0])
        qubits = []
        for block, one, other in own[:size].tolist():
            column, row, left, right, low, high = shapes[shape, block].tolist()
            vertical = lattice.qubits[0, x + column, one, y + low : y + high + 1]
            horizontal = lattice.qubits[1, y + row, other, x + left : x + right + 1]
            qubits.append(tuple(sorted({int(qubit) for qubit in np.concatenate([vertical, horizontal])})))
        found[waiting[size].pop()] = tuple(qubits)
    return found
