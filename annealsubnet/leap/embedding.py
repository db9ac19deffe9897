"""Embedding: a chain of qubits for every variable of a part, on the working graph of one solver.

Couplings exist only between qubits that are wired, so a variable becomes a connected chain of qubits, and two coupled
variables need chains that touch. A dense part takes the template of a clique (all chains touch, whatever the couplings); a
sparse one is searched for by minorminer under a time limit, which finds shorter chains. Every embedding is verified before
it is returned, and kept on disk under the part's graph, the topology and the solver's `graph_id`: the working graph changes
without a change of the solver's name, and an embedding found on another one is used again only if it is still valid.

References:
    T. Boothby, A. D. King, A. Roy, "Fast clique minor generation in Chimera qubit connectivity graphs", Quantum Information
    Processing 15 (2016); J. Cai, W. G. Macready, A. Roy, "A practical heuristic for finding graph minors", arXiv 1406.2741.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import networkx as nx
import numpy as np

from annealsubnet.decompose import Part, largest_clique, predict_chains
from annealsubnet.decompose.partition import compressed
from annealsubnet.leap.cache import EmbeddingCache
from annealsubnet.leap.cliques import place_cliques
from annealsubnet.leap.templates import clique_chains_on
from annealsubnet.leap.working_graphs import WorkingGraph, hashed, working_graph
from annealsubnet.problems import Problem

__all__ = ["CannotEmbed", "Embedding", "EmbeddingCache", "couplings_of", "embed", "verified"]


class CannotEmbed(ValueError):
    """A part has no embedding; the message names the part, what was tried, and limits that would fit."""


@dataclass(frozen=True)
class Embedding:
    """A chain of qubits for each variable of a part.

    Attributes:
        chains: qubits of each variable, in the order of the part's variables.
        method: "clique" (a template), or "minorminer".
    """

    chains: tuple[tuple[int, ...], ...]
    method: str

    def __repr__(self) -> str:
        return f"Embedding({len(self.chains)} chains of up to {self.chain_length}, {self.num_qubits} qubits, {self.method})"

    @property
    def chain_length(self) -> int:
        """Qubits in the longest chain."""
        return max((len(chain) for chain in self.chains), default=0)

    @property
    def num_qubits(self) -> int:
        """Qubits in all chains."""
        return sum(len(chain) for chain in self.chains)

    def mapping(self, labels: Sequence[Any] | None = None) -> dict[Any, tuple[int, ...]]:
        """The chains by label, by default by position, as dwave-system's composites take them."""
        return dict(zip(range(len(self.chains)) if labels is None else labels, self.chains, strict=True))


@dataclass(frozen=True)
class Edges:
    """The graph of a part: how many variables, and which are coupled.

    Attributes:
        size: number of variables.
        pairs: coupled variables i < j, sorted; `[couplings, 2]`.
    """

    size: int
    pairs: np.ndarray

    @cached_property
    def key(self) -> str:
        """What identifies the graph in the cache."""
        return hashed((self.size, self.pairs.tobytes().hex()))

    @property
    def rows(self) -> tuple[np.ndarray, np.ndarray]:
        """The graph as compressed rows."""
        both = np.concatenate([self.pairs, self.pairs[:, ::-1]])
        order = np.lexsort((both[:, 1], both[:, 0]))
        counts = np.bincount(both[:, 0], minlength=self.size)
        return np.concatenate([[0], np.cumsum(counts)]).astype(np.int64), both[order, 1].astype(np.int32)


def couplings_of(part: Part | Problem) -> Edges:
    """The graph of a part or a problem.

    Raises:
        TypeError: if it is neither.
    """
    if isinstance(part, Part):
        ends = np.repeat(np.arange(part.size), np.diff(part.rows)), part.columns.astype(np.int64)
        used = part.values != 0
        size = part.size
    elif isinstance(part, Problem):
        entries = compressed(part)
        ends, used, size = (entries.firsts, entries.neighbors.astype(np.int64)), entries.values != 0, part.size
    else:
        raise TypeError(f"a Part or a Problem can be embedded; this is {type(part).__name__}.")
    upper = used & (ends[0] < ends[1])
    pairs = np.stack([ends[0][upper], ends[1][upper]], axis=1)
    return Edges(size, pairs[np.lexsort((pairs[:, 1], pairs[:, 0]))])


def embed(
    part: Part | Problem,
    target: WorkingGraph | Any,
    *,
    seed: int,
    time_limit: float = 10.0,
    cache: EmbeddingCache | None = None,
    name: str = "part",
) -> Embedding:
    """A verified embedding of one part on a working graph.

    Args:
        part: whose couplings need couplers.
        target: a `WorkingGraph`, or anything that `working_graph` takes.
        seed: of minorminer.
        time_limit: seconds that minorminer may take, and busclique before it where it is asked for a clique's chains.
        cache: of embeddings on disk; none by default.
        name: of the part, for messages.

    Raises:
        CannotEmbed: if there is no room for it.

    Example:
        >>> import dwave.graphs
        >>> clique = np.ones((8, 8)) - np.eye(8)
        >>> embed(Problem(np.zeros(8), clique), dwave.graphs.zephyr_graph(2), seed=0)
        Embedding(8 chains of up to 2, 16 qubits, clique)
    """
    target = working_graph(target)
    edges = couplings_of(part)
    stored = cache.load(edges.key, target.topology, target.graph_id) if cache is not None else None
    if stored is not None:
        chains, method, _ = stored
        if verified(chains, edges, target):
            return Embedding(chains, method)
    found = search(edges, target, seed=seed, time_limit=time_limit)
    if found is None:
        raise CannotEmbed(_advice(edges, target, name, time_limit))
    if cache is not None:
        cache.store(edges.key, target.topology, target.graph_id, found.chains, found.method)
    return found


def search(edges: Edges, target: WorkingGraph, *, seed: int, time_limit: float) -> Embedding | None:
    """The better of the clique's template and minorminer's answer, verified; None if there is neither."""
    if edges.size == 0:
        return Embedding((), "clique")
    clique = _clique(edges, target, seed, time_limit)
    predicted = predict_chains(*edges.rows, topology=target.topology)
    if clique is not None and predicted.method == "clique":
        return clique
    sparse = minor(edges, target.graph, seed=seed, time_limit=time_limit)
    if sparse is not None and not verified(sparse.chains, edges, target):
        sparse = None
    found = [embedding for embedding in (sparse, clique) if embedding is not None]
    return min(found, key=lambda embedding: (embedding.chain_length, embedding.num_qubits), default=None)


def _clique(edges: Edges, target: WorkingGraph, seed: int, time_limit: float) -> Embedding | None:
    if edges.size > largest_clique(64, topology=target.topology, rows=target.graph.graph["rows"]):
        return None
    chains = clique_chains_on(target, edges.size, seed=seed, time_limit=time_limit)
    return Embedding(chains, "clique") if chains is not None and verified(chains, edges, target) else None


def minor(edges: Edges, graph: nx.Graph, *, seed: int, time_limit: float) -> Embedding | None:
    """Minorminer's embedding of a part in a graph, or None; not verified."""
    import minorminer

    lone = np.setdiff1d(np.arange(edges.size), edges.pairs)
    found = minorminer.find_embedding(edges.pairs.tolist(), graph, random_seed=seed % 2**31, timeout=time_limit, threads=1)
    if edges.pairs.size and not found:
        return None
    used = {qubit for chain in found.values() for qubit in chain}
    free = iter(sorted(set(graph) - used))
    for variable in lone.tolist():
        qubit = next(free, None)
        if qubit is None:
            return None
        found[variable] = (qubit,)
    return Embedding(tuple(tuple(sorted(int(qubit) for qubit in found[v])) for v in range(edges.size)), "minorminer")


def verified(chains: Sequence[Sequence[int]], edges: Edges, target: WorkingGraph) -> bool:
    """Whether chains are connected, disjoint, on working qubits, and touch wherever variables are coupled."""
    from dwave.embedding import verify_embedding
    from dwave.embedding.exceptions import EmbeddingError

    try:
        source = nx.Graph()
        source.add_nodes_from(range(edges.size))
        source.add_edges_from(edges.pairs.tolist())
        verify_embedding(dict(enumerate(chains)), source, target.graph)
    except EmbeddingError:
        return False
    return len(chains) == edges.size


def _advice(edges: Edges, target: WorkingGraph, name: str, time_limit: float) -> str:
    rows, columns = edges.rows
    predicted = predict_chains(rows, columns, topology=target.topology)
    degree = int(np.diff(rows).max(initial=0))
    fitting = min(largest_clique(64, topology=target.topology, rows=target.graph.graph["rows"]), max(1, edges.size - 1))
    while fitting > 1 and not place_cliques(target, set(target.graph), [fitting], seed=0, rounds=0, time_limit=1.0):
        fitting -= max(1, fitting // 20)
    return (
        f"{name} with {edges.size} variables of up to {degree} couplings has no embedding on {target!r}: minorminer found none "
        f"in {time_limit:g} s (predicted: chains of {predicted.length}, {predicted.qubits} qubits). A clique of {fitting} "
        f"variables has one there: decompose with Limits(variables={fitting})."
    )
