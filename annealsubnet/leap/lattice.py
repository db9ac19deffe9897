"""Lattice: a working graph as lines of qubits, and the shapes in which cliques lie on it.

A qubit of Zephyr or Pegasus is a short line segment, vertical (u = 0) or horizontal (u = 1). Collinear segments that follow
each other are coupled, and so are crossing ones. Let `qubits[u, line, track, place]` be the qubit that lies on a track of a
line over that place, so that qubits[0, x, ·, y] and qubits[1, y, ·, x] cross. A chain of a clique is then an L: a vertical
run on line x and a horizontal run on line y. Chains of blocks i = 1 … b at (x_i, y_i) all cross each other if

    the vertical run of block i covers y_j for all j ≥ i, and the horizontal run of block j covers x_i for all i ≤ j;

that is, if the x's before every j, and the y's after every i, are intervals. Every such order of x's and y's is a *shape*;
the staircase is one. Shapes interlock, tracks with defects are left out one by one, and so a graph holds far more cliques
than it holds tiles with one template each (`annealsubnet.leap.cliques`).

References:
    T. Boothby, A. D. King, A. Roy, "Fast clique minor generation in Chimera qubit connectivity graphs", Quantum Information
    Processing 15 (2016).
"""

from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import Any

import networkx as nx
import numpy as np

from annealsubnet.leap.working_graphs import WorkingGraph


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
    full = full_graph(target.topology, target.graph.graph["rows"])
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
def full_graph(topology: str, rows: int) -> nx.Graph:
    """The graph of a topology without defects."""
    import dwave.graphs

    return (dwave.graphs.zephyr_graph if topology == "zephyr" else dwave.graphs.pegasus_graph)(rows)
