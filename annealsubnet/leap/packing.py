"""Packing: many different parts side by side on one working graph, so that one job reads all of them out.

Reading a QPU costs the same whether a few of its qubits work or all. Large sparse parts go first, each into a compact
region where minorminer finds it a place; dense parts follow as cliques of mixed sizes in the lattice of lines
(`annealsubnet.leap.lattice`), which works around defects and uses what is left between them. What does not fit is returned
by number, and nothing overlaps: every embedding is verified with dwave.embedding, and so is that no qubit is used twice.
"""

import time
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, TypeAlias

from annealsubnet.decompose import Part, predict_chains
from annealsubnet.leap.cliques import place_cliques
from annealsubnet.leap.embedding import (
    CannotEmbed,
    Edges,
    Embedding,
    EmbeddingCache,
    couplings_of,
    embed,
    minor,
    verified,
)
from annealsubnet.leap.working_graphs import WorkingGraph, working_graph
from annealsubnet.problems import Problem

# Windows that are emptied and filled again while parts are left out: at least so many, and so many for each qubit, divided by
# the number of different sizes, as a window takes longer in proportion.
_ROUNDS, _ROUNDS_A_QUBIT = 2000, {"zephyr": 8.0, "pegasus": 0.6}
# Of the way cliques are placed: packings that an earlier one left in a cache are not taken.
_VERSION = 2
# minorminer gets regions of this many times the predicted qubits, then ever larger ones.
_REGIONS = (1.5, 2.5, 5.0)

Chains: TypeAlias = tuple[tuple[int, ...], ...]
Known: TypeAlias = dict[tuple[tuple[int, int], ...], dict[int, list[Chains]]]


@dataclass(frozen=True)
class Packing:
    """Where parts are on one working graph.

    Attributes:
        placed: (number of the part, its embedding), rising; no qubit is in two of them.
        left_out: numbers of the parts that did not fit, rising.

    Example:
        >>> import dwave.graphs
        >>> import numpy as np
        >>> clique = Problem(np.zeros(8), np.ones((8, 8)) - np.eye(8))
        >>> pack([clique] * 4, dwave.graphs.zephyr_graph(2), seed=0).left_out
        ()
    """

    placed: tuple[tuple[int, Embedding], ...]
    left_out: tuple[int, ...]

    def __repr__(self) -> str:
        return f"Packing({len(self.placed)} parts on {self.num_qubits} qubits, {len(self.left_out)} left out)"

    @property
    def num_qubits(self) -> int:
        """Qubits in use."""
        return sum(embedding.num_qubits for _, embedding in self.placed)

    @cached_property
    def _embeddings(self) -> dict[int, Embedding]:
        return dict(self.placed)

    def embedding_of(self, index: int) -> Embedding:
        """The embedding of a part that was placed."""
        return self._embeddings[index]


def pack(
    parts: Sequence[Part | Problem],
    target: WorkingGraph | Any,
    *,
    seed: int,
    time_limit: float = 60.0,
    cache: EmbeddingCache | None = None,
) -> Packing:
    """Place as many parts as fit on a working graph at once.

    Args:
        parts: of any sizes and couplings.
        target: a `WorkingGraph`, or anything that `working_graph` takes.
        seed: of everything random.
        time_limit: seconds; packings cut short by it depend on the machine, others on the seed only.
        cache: of embeddings on disk; places that were found are kept in it.

    Returns:
        Embeddings of the parts that fit, and the numbers of those that do not.
    """
    target = working_graph(target)
    edges = [couplings_of(part) for part in parts]
    deadline = time.perf_counter() + time_limit
    return _pack(edges, list(range(len(edges))), target, {}, seed=seed, deadline=deadline, cache=cache)


def pack_jobs(
    parts: Sequence[Part | Problem],
    target: WorkingGraph | Any,
    *,
    seed: int,
    time_limit: float = 60.0,
    cache: EmbeddingCache | None = None,
) -> tuple[Packing, ...]:
    """Place all parts, on as few copies of a working graph as it takes: one packing a job.

    Args:
        parts: of any sizes and couplings.
        target: a `WorkingGraph`, or anything that `working_graph` takes.
        seed: of everything random.
        time_limit: seconds for each packing.
        cache: of embeddings on disk.

    Returns:
        Packings whose numbers are those of `parts`; in each but the last `left_out` are the parts that later ones hold.

    Raises:
        CannotEmbed: for a part that does not fit even alone.
    """
    target = working_graph(target)
    edges = [couplings_of(part) for part in parts]
    waiting = list(range(len(edges)))
    jobs: list[Packing] = []
    known: Known = {}
    while waiting:
        deadline = time.perf_counter() + time_limit
        packing = _pack(edges, waiting, target, known, seed=seed, deadline=deadline, cache=cache)
        if not packing.placed:
            index = waiting[0]
            alone = embed(parts[index], target, seed=seed, time_limit=time_limit, cache=cache, name=f"part {index}")
            packing = Packing(((index, alone),), tuple(waiting[1:]))
        jobs.append(packing)
        waiting = list(packing.left_out)
    return tuple(jobs)


def _pack(
    edges: list[Edges],
    chosen: list[int],
    target: WorkingGraph,
    known: Known,
    *,
    seed: int,
    deadline: float,
    cache: EmbeddingCache | None,
) -> Packing:
    free = set(target.graph.nodes)
    found: dict[int, Embedding] = {}
    chains = {index: predict_chains(*edges[index].rows, topology=target.topology) for index in chosen}
    sparse = sorted((k for k in chosen if chains[k].method == "sparse"), key=lambda k: (-chains[k].qubits, k))
    for index in sparse:
        hopeless = chains[index].qubits > len(free) or len(edges[index].pairs) > target.graph.size()
        if hopeless or time.perf_counter() > deadline:
            continue
        embedding = _in_region(edges[index], target, free, chains[index].qubits, seed=seed, deadline=deadline, cache=cache)
        _take(found, index, embedding, edges, target, free)
    dense = [k for k in chosen if k not in found]
    places = _places([edges[k].size for k in dense], target, free, known, seed=seed, deadline=deadline, cache=cache)
    for index in dense:
        if places.get(edges[index].size):
            qubits = places[edges[index].size].pop()
            _take(found, index, Embedding(_trimmed(qubits, edges[index], target), "clique"), edges, target, free)
    placed = tuple(sorted(found.items()))
    used = [qubit for _, embedding in placed for chain in embedding.chains for qubit in chain]
    assert len(set(used)) == len(used), "two parts of a packing share a qubit"
    return Packing(placed, tuple(k for k in chosen if k not in found))


def _places(
    sizes: list[int],
    target: WorkingGraph,
    free: set[int],
    known: Known,
    *,
    seed: int,
    deadline: float,
    cache: EmbeddingCache | None,
) -> dict[int, list[Chains]]:
    """Places of cliques by size; on an empty graph they depend on the sizes alone, so they are found once, and cached."""
    counts = {size: min(sizes.count(size), len(free) // size) for size in sorted(set(sizes) - {0}, reverse=True)}
    wanted = tuple((size, count) for size, count in counts.items() if count)
    if not wanted:
        return {}
    empty = len(free) == len(target.graph)
    key = f"cliques-{_VERSION}-{seed}-" + "-".join(f"{size}x{count}" for size, count in wanted)
    if empty and wanted not in known and cache is not None:
        stored = cache.load(key, target.topology, target.graph_id)
        if stored is not None and stored[2]:
            known[wanted] = _split(stored[0], [int(size) for size in stored[1].split()])
    if not empty or wanted not in known:
        flat = [size for size, count in wanted for _ in range(count)]
        left = max(0.0, deadline - time.perf_counter())
        rounds = round(max(_ROUNDS, _ROUNDS_A_QUBIT[target.topology] * len(target.graph)) / len(wanted))
        cliques = place_cliques(target, free, flat, seed=seed, rounds=rounds, time_limit=left)
        places: dict[int, list[Chains]] = {}
        for position in sorted(cliques, reverse=True):
            places.setdefault(flat[position], []).append(cliques[position])
        if not empty:
            return places
        known[wanted] = places
        # What the time limit cut short is not worth keeping.
        if cache is not None and time.perf_counter() < deadline:
            lengths = [size for size, some in places.items() for _ in some]
            chains = [chain for some in places.values() for clique in some for chain in clique]
            cache.store(key, target.topology, target.graph_id, chains, " ".join(map(str, lengths)))
    return {size: list(some) for size, some in known[wanted].items()}


def _split(chains: Chains, lengths: list[int]) -> dict[int, list[Chains]]:
    """Cliques by size, from all their chains one after the other."""
    places: dict[int, list[Chains]] = {}
    first = 0
    for length in lengths:
        places.setdefault(length, []).append(chains[first : first + length])
        first += length
    return places


def _take(
    found: dict[int, Embedding],
    index: int,
    embedding: Embedding | None,
    edges: list[Edges],
    target: WorkingGraph,
    free: set[int],
) -> None:
    """Put an embedding down if it is valid and its qubits are free; changes `found` and `free`."""
    if embedding is None or not verified(embedding.chains, edges[index], target):
        return
    qubits = {qubit for chain in embedding.chains for qubit in chain}
    if qubits <= free:
        found[index] = embedding
        free -= qubits


def _in_region(
    edges: Edges,
    target: WorkingGraph,
    free: set[int],
    predicted: int,
    *,
    seed: int,
    deadline: float,
    cache: EmbeddingCache | None,
) -> Embedding | None:
    """minorminer's embedding on a compact region of free qubits, or the cached one where its qubits are free."""
    stored = cache.load(edges.key, target.topology, target.graph_id) if cache is not None else None
    fits = stored is not None and all(qubit in free for chain in stored[0] for qubit in chain)
    if stored is not None and fits and verified(stored[0], edges, target):
        return Embedding(stored[0], stored[1])
    for factor in _REGIONS:
        wanted = int(factor * predicted)
        region = _region(target, free, min(wanted, len(free)))
        limit = min(10.0, deadline - time.perf_counter())
        if limit <= 0:
            return None
        found = minor(edges, target.graph.subgraph(region), seed=seed, time_limit=limit)
        if found is not None:
            trimmed = replace(found, chains=_trimmed(found.chains, edges, target))
            if cache is not None and verified(trimmed.chains, edges, target):
                cache.store(edges.key, target.topology, target.graph_id, trimmed.chains, trimmed.method)
            return trimmed
        if wanted >= len(free):
            return None
    return None


def _region(target: WorkingGraph, free: set[int], count: int) -> set[int]:
    """So many free qubits around the one with fewest free neighbors, nearest first: compact, at the edge of what is free."""
    neighbors = target.neighbors
    first = min(free, key=lambda qubit: (len(neighbors[qubit] & free), qubit))
    region, queue, rest = {first}, deque([first]), free - {first}
    while len(region) < count:
        if not queue:
            if not rest:
                break
            first = min(rest)
            queue.append(first)
            region.add(first)
            rest.discard(first)
            continue
        for other in sorted(neighbors[queue.popleft()] & rest):
            if len(region) < count:
                region.add(other)
                rest.discard(other)
                queue.append(other)
    return region


def _trimmed(chains: Sequence[Sequence[int]], edges: Edges, target: WorkingGraph) -> tuple[tuple[int, ...], ...]:
    """Chains without the qubits at their ends that no coupling needs; shorter chains break less."""
    neighbors = target.neighbors
    owner = {qubit: variable for variable, chain in enumerate(chains) for qubit in chain}
    near: list[set[int]] = [set() for _ in range(edges.size)]
    for one, other in edges.pairs.tolist():
        near[one].add(other)
        near[other].add(one)
    left = [set(chain) for chain in chains]
    for variable in sorted(range(edges.size), key=lambda number: (-len(left[number]), number)):
        changed = True
        while changed and len(left[variable]) > 1:
            changed = False
            for qubit in sorted(left[variable]):
                inside = neighbors[qubit] & left[variable]
                if len(inside) != 1:
                    continue
                rest = left[variable] - {qubit}
                touched = {owner[other] for other in neighbors[qubit] if other in owner} & near[variable]
                others = {owner[other] for kept in rest for other in neighbors[kept] if other in owner}
                if touched <= others:
                    left[variable] = rest
                    del owner[qubit]
                    changed = True
                    break
    return tuple(tuple(sorted(chain)) for chain in left)


__all__ = ["CannotEmbed", "Packing", "pack", "pack_jobs"]
