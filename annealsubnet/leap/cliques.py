"""Cliques: as many as fit, of mixed sizes, side by side on the lattice of a working graph.

Windows are filled in scanning order with the cheapest shapes that are free (`shape_kernels`), and the packing is improved by
ruin and recreate, annealed: a window is emptied and filled again in another order, and what is then worth less is kept with a
probability that falls.

References:
    G. Schrimpf et al., "Record breaking optimization results using the ruin and recreate principle", Journal of
    Computational Physics 159 (2000).
"""

import math
import time
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from annealsubnet.leap.lattice import Lattice, full_graph, lattice_of
from annealsubnet.leap.working_graphs import WorkingGraph

# A clique may cost up to these multiples of what it needs on a graph without defects, tried in this order.
_DEARER = (1.0, 1.06, 1.12, 1.2, 1.4)
# A clique may have so many blocks more than it needs on a graph without defects.
_MORE_BLOCKS = 1
# The first temperature of ruin and recreate, in qubits; it falls linearly to zero.
_HOT = 10.0
# Random costs of less than this are added to runs, in units of 1/SCALE qubits, so that other shapes are the cheapest.
_NOISE = 48


@dataclass(frozen=True)
class _Group:
    """Cliques of one size: their blocks without and with all that are allowed, and the qubits that one needs at least."""

    size: int
    fewest: int
    most: int
    least: int


@dataclass
class _Tables:
    """Room for the dynamic programs of one size: how states are reached, least costs, and whether they are up to date."""

    codes: np.ndarray
    ends: np.ndarray
    work: tuple[np.ndarray, ...]
    fresh: np.ndarray


class _Packed:
    """Cliques on a lattice so far; everything is overwritten as they come and go."""

    def __init__(self, lattice: Lattice, usable: np.ndarray, groups: Sequence[_Group], waiting: np.ndarray) -> None:
        self.arrays = (lattice.qubits, lattice.linked, lattice.number)
        self.groups = groups
        self.free, self.reach = usable, reach_of(lattice, usable)
        self.tables = [_tables_for(lattice, group) for group in groups]
        self.waiting, self.count = waiting, 0
        total = int(waiting.sum())
        self.placed = np.zeros((total, 4), np.int64)
        self.chains = np.zeros((total, max(group.size for group in groups), 8), np.int64)

    def copy(self) -> tuple[np.ndarray, ...]:
        """What `restore` takes."""
        count = self.count
        return self.free.copy(), self.reach.copy(), self.waiting.copy(), self.placed[:count].copy(), self.chains[:count].copy()

    def restore(self, copied: tuple[np.ndarray, ...]) -> None:
        """The packing as it was."""
        self.free[:], self.reach[:], self.waiting[:], placed, chains = copied
        self.count = len(placed)
        self.placed[: self.count], self.chains[: self.count] = placed, chains

    @property
    def worth(self) -> float:
        """The least qubits that the cliques need, less half of what they take beyond."""
        least = np.array([group.least for group in self.groups])[self.placed[: self.count, 2]]
        return float((1.5 * least - 0.5 * self.placed[: self.count, 3]).sum())

    def fill(self, noise: np.ndarray, window: tuple[int, ...], directions: tuple[bool, ...], first: int) -> None:
        """Place cliques of all sizes in a window, largest first, cheap places before dear ones."""
        from annealsubnet.leap import lattice_kernels as kernels

        for tables in self.tables:
            tables.fresh[:] = -1
        for dearer in _DEARER[first:]:
            for which, (group, tables) in enumerate(zip(self.groups, self.tables, strict=True)):
                if self.waiting[which]:
                    kind, most = (which, group.size, group.fewest, group.most), int(group.least * dearer)
                    packing = (self.placed, self.chains, self.count, self.waiting)
                    room = (tables.codes, tables.ends, tables.work, tables.fresh)
                    self.count = kernels.fill(
                        self.arrays, self.free, self.reach, kind, noise, most, window, directions, *packing, *room
                    )

    def ruin(self, x: int, y: int, width: int) -> None:
        """Take out the cliques whose middle is within `width` of (x, y)."""
        from annealsubnet.leap import lattice_kernels as kernels

        sizes = np.array([group.size for group in self.groups])
        packing = (self.placed, self.chains, self.count, self.waiting)
        self.count = kernels.ruin(self.arrays, self.free, self.reach, sizes, *packing, x, y, width)


def place_cliques(
    target: WorkingGraph, free: set[int], sizes: Sequence[int], *, seed: int, rounds: int, time_limit: float
) -> dict[int, tuple[tuple[int, ...], ...]]:
    """Disjoint cliques of mixed sizes on the free qubits of a working graph.

    Args:
        target: the working graph.
        free: its qubits that may be used.
        sizes: variables of each clique.
        seed: of the windows that are emptied and filled again.
        rounds: how many, as long as a clique is left out.
        time_limit: seconds after which no further windows are tried.

    Returns:
        Chains of each clique that was placed, by its position in `sizes`.
    """
    deadline = time.perf_counter() + time_limit
    rows = target.graph.graph["rows"]
    least = [(size, _least(target.topology, rows, size)) for size in sorted(set(sizes) - {0}, reverse=True)]
    groups = [group for _, group in least if group is not None]
    if not groups:
        return {}
    lattice = lattice_of(target)
    usable = np.isin(lattice.qubits, np.fromiter(free, np.int64, len(free))) & (lattice.qubits >= 0)
    waiting = np.array([sum(size == group.size for size in sizes) for group in groups])
    packed, lines = _Packed(lattice, usable, groups, waiting), lattice.qubits.shape[1]
    packed.fill(np.zeros((2, lines), np.int64), (0, lines, 0, lines), (False, False, False), 0)
    best, most = packed.copy(), packed.worth
    random = np.random.default_rng(seed)
    for number in range(rounds):
        if not packed.waiting.any() or time.perf_counter() > deadline:
            break
        before, worth = packed.copy(), packed.worth
        _recreate(packed, random)
        if packed.worth > most or not packed.waiting.any():
            best, most = packed.copy(), packed.worth
        elif packed.worth < worth + _HOT * (1 - number / rounds) * math.log(1 - random.random()):
            packed.restore(before)
    placed, chains = best[3:]
    return _chains(lattice, groups, placed, chains, sizes)


def _recreate(packed: _Packed, random: np.random.Generator) -> None:
    """Empty a random window, and fill it in random order, at first with cliques as dear as a random limit allows."""
    lines, widest = packed.reach.shape[1], max(group.most for group in packed.groups)
    width = int(widest // 2 + random.integers(widest))
    x, y = random.integers(lines, size=2).tolist()
    packed.ruin(x, y, width)
    margin = width + widest
    window = (max(0, x - margin), min(lines, x + margin), max(0, y - margin), min(lines, y + margin))
    leftwards, downwards, columns_first = (random.random(3) < 0.5).tolist()
    first = min(int(random.geometric(0.7)), len(_DEARER)) - 1
    packed.fill(random.integers(_NOISE, size=(2, lines)), window, (leftwards, downwards, columns_first), first)


def reach_of(lattice: Lattice, usable: np.ndarray) -> np.ndarray:
    """`[u, line, track, place]`: the last place up to which all qubits of a track are usable and linked; −1 for none."""
    from annealsubnet.leap import lattice_kernels as kernels

    reach = np.full(lattice.qubits.shape, -1, np.int64)
    for u, line, track in np.ndindex(lattice.qubits.shape[:3]):
        kernels.reach_track(lattice.qubits, lattice.linked, usable, reach, u, line, track)
    return reach


def _tables_for(lattice: Lattice, group: _Group) -> _Tables:
    lines, tracks, kinds = lattice.qubits.shape[1], lattice.tracks, group.most - group.fewest + 1
    spare = group.most * tracks - group.size + 1
    codes = np.zeros((kinds, group.most, lines, lines + 1, spare), np.int8)
    runs = [np.zeros((lines, lines, tracks + 1), np.int32) for _ in range(2)]
    states = [np.zeros((lines + 1, lines + 1, spare), np.int32) for _ in range(2)]
    return _Tables(codes, np.zeros((kinds, lines, lines), np.int32), (*runs, *states), np.full(1, -1, np.int64))


@lru_cache(maxsize=256)
def _least(topology: str, rows: int, size: int) -> _Group | None:
    """What a clique needs in the middle of a graph without defects; None if it has no room for it."""
    from annealsubnet.leap import shape_kernels as kernels

    lattice = _whole(topology, rows)
    lines, fewest = lattice.qubits.shape[1], -(-size // lattice.tracks)
    if fewest > lines:
        return None
    most = min(fewest + _MORE_BLOCKS, lines)
    tables, reach = _tables_for(lattice, _Group(size, fewest, most, 0)), reach_of(lattice, lattice.qubits >= 0)
    low, high = max(0, lines // 2 - most - 3), min(lines, lines // 2 + most + 3)
    for kind, blocks in enumerate(range(fewest, most + 1)):
        spare, window = blocks * lattice.tracks - size, (low, high, low, high)
        arrays = (lattice.number, reach, np.zeros((2, lines), np.int64))
        kernels.cheapest_shapes(*arrays, blocks, spare, window, tables.codes[kind], tables.ends[kind], tables.work)
    least = int(tables.ends[:, low:high, low:high].min())
    return _Group(size, fewest, most, least // kernels.SCALE) if least < kernels.NONE else None


@lru_cache(maxsize=8)
def _whole(topology: str, rows: int) -> Lattice:
    return lattice_of(WorkingGraph(full_graph(topology, rows), "", topology))


def _chains(
    lattice: Lattice, groups: Sequence[_Group], placed: np.ndarray, chains: np.ndarray, sizes: Sequence[int]
) -> dict[int, tuple[tuple[int, ...], ...]]:
    """Qubits of every chain, by position in `sizes`."""
    waiting: dict[int, list[int]] = {}
    for index in range(len(sizes) - 1, -1, -1):
        waiting.setdefault(sizes[index], []).append(index)
    found = {}
    for which, own in zip(placed[:, 2].tolist(), chains, strict=True):
        size = groups[which].size
        qubits = []
        for column, one, low, high, row, other, left, right in own[:size].tolist():
            vertical = lattice.qubits[0, column, one, low : high + 1]
            horizontal = lattice.qubits[1, row, other, left : right + 1]
            qubits.append(tuple(sorted({int(qubit) for qubit in np.concatenate([vertical, horizontal])})))
        found[waiting[size].pop()] = tuple(qubits)
    return found
