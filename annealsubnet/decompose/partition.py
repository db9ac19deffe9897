"""Partition: which variables belong together, so that strong couplings lie inside parts of bounded size.

The multilevel scheme of graph partitioning, on arrays and compiled: pairs of strongly coupled variables are merged again and
again (`match`, `contract`) until a few vertices a part are left; parts are grown over these, each next to finished ones
(`grow`); then the merging is undone step by step, and after each step vertices move to the part that they are coupled to most
(`refine`). A second descent and ascent merges only inside the parts found, so that groups of variables move together.

References:
    G. Karypis, V. Kumar, "Multilevel k-way partitioning scheme for irregular graphs", Journal of Parallel and Distributed
    Computing 48 (1998); C. M. Fiduccia, R. M. Mattheyses, "A linear-time heuristic for improving network partitions",
    Design Automation Conference (1982).
"""

from dataclasses import dataclass

import numpy as np
import scipy.sparse

from annealsubnet.decompose import partition_kernels as kernels
from annealsubnet.problems import Problem

# Tuned on geometric, lattice and random graphs of 10,000 variables: the share of coupling inside parts against the time.
_VERTICES_A_PART = 6
_LARGEST_VERTEX = 4
_PASSES = 4
_STALLED = 0.92
# Where less of the coupling than this is inside parts the graph has no locality: variables move alone, and merging them once
# more takes as long as all before (15 ms of 30 on a random graph) for 2 % more.
_LOCAL = 0.6
# Kernels take integers of 64 bits; seeds may be longer.
_SEEDS = 2**63


@dataclass(frozen=True)
class Graph:
    """Coupling strengths as compressed rows.

    Attributes:
        starts: where the row of each vertex begins; int64, one more than vertices.
        neighbors: the other end of each entry; int32.
        weights: |coupling| of each entry; float32; none is zero.
        sizes: variables in each vertex; int32.
    """

    starts: np.ndarray
    neighbors: np.ndarray
    weights: np.ndarray
    sizes: np.ndarray

    @property
    def count(self) -> int:
        """Number of vertices."""
        return int(self.sizes.size)

    @property
    def arrays(self) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
        """The four arrays, as the kernels take them."""
        return self.starts, self.neighbors, self.weights, self.sizes


@dataclass(frozen=True)
class Rows:
    """Couplings as compressed rows, in arrays of one kind, so that every kernel is compiled once.

    Attributes:
        starts: where the row of each variable begins; int64.
        neighbors: the other end of each coupling; int32.
        values: of each coupling; float64; none is zero.
    """

    starts: np.ndarray
    neighbors: np.ndarray
    values: np.ndarray

    @property
    def arrays(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """The three arrays, as the kernels take them."""
        return self.starts, self.neighbors, self.values

    @property
    def firsts(self) -> np.ndarray:
        """The variable in whose row each coupling is."""
        return np.repeat(np.arange(self.starts.size - 1), np.diff(self.starts))


def compressed(problem: Problem) -> Rows:
    """The couplings of a problem as compressed rows without zeros."""
    rows = scipy.sparse.csr_array(problem.couplings)
    if rows.data.size and not rows.data.all():
        rows = rows.copy()
        rows.eliminate_zeros()
    return Rows(np.array(rows.indptr, np.int64), np.array(rows.indices, np.int32), np.array(rows.data, np.float64))


def graph_of(rows: Rows) -> Graph:
    """The graph of a problem's couplings."""
    strengths = np.abs(rows.values)
    largest = strengths.max(initial=0.0)
    scaled = strengths / largest if largest > 0 else strengths
    weights = np.maximum(scaled.astype(np.float32), np.float32(1e-12))  # so small that float32 would lose it, but coupled
    return Graph(rows.starts, rows.neighbors, weights, np.ones(rows.starts.size - 1, np.int32))


def partition(graph: Graph, largest: int, *, seed: int, cycles: int = 1) -> np.ndarray:
    """The part of each vertex of a graph of single variables; no part has more than `largest`.

    Args:
        graph: of coupling strengths.
        largest: most variables of a part.
        seed: of the order in which vertices choose.
        cycles: descents and ascents after the first.
    """
    if graph.count <= largest:
        return np.zeros(graph.count, np.int32)
    levels, maps, _ = _coarsen(graph, np.zeros(graph.count, np.int32), largest, seed)
    coarsest = levels[-1]
    order = kernels.shuffled(coarsest.count, seed % _SEEDS)
    parts, made = kernels.grow(*coarsest.arrays, largest, largest, order)
    held = np.bincount(parts, weights=coarsest.sizes, minlength=made).astype(np.int64)
    parts = _ascend(levels, maps, parts, held, largest)
    for cycle in range(cycles):
        inside = kernels.weight_inside(graph.starts, graph.neighbors, graph.weights, parts)
        if inside < _LOCAL * float(graph.weights.sum(dtype=np.float64)):
            break
        levels, maps, parts = _coarsen(graph, parts, largest, seed + cycle + 1)
        parts = _ascend(levels, maps, parts, held, largest)
    used = np.cumsum(held > 0) - 1
    return used[parts].astype(np.int32)


def _coarsen(graph: Graph, parts: np.ndarray, largest: int, seed: int) -> tuple[list[Graph], list[np.ndarray], np.ndarray]:
    """Graphs from fine to coarse, the coarse vertex of each vertex, and the parts on the coarsest."""
    levels, maps = [graph], []
    enough = _VERTICES_A_PART * graph.count / largest
    while levels[-1].count > enough:
        last = levels[-1]
        order = kernels.shuffled(last.count, seed % _SEEDS)
        coarse, made = kernels.match(*last.arrays, max(2, largest // _LARGEST_VERTEX), order, parts)
        if made > _STALLED * last.count:
            break
        levels.append(Graph(*kernels.contract(*last.arrays, coarse, made)))
        maps.append(coarse)
        coarse_parts = np.empty(made, np.int32)
        coarse_parts[coarse] = parts
        parts = coarse_parts
    return levels, maps, parts


def _ascend(levels: list[Graph], maps: list[np.ndarray], parts: np.ndarray, held: np.ndarray, largest: int) -> np.ndarray:
    """Undo the merging, refining the parts on every graph; changes `held`."""
    kernels.refine(*levels[-1].arrays, parts, held, largest, _PASSES)
    for graph, coarse in zip(levels[-2::-1], maps[::-1], strict=True):
        parts = parts[coarse]
        kernels.refine(*graph.arrays, parts, held, largest, _PASSES)
    return parts
