"""Packing cliques on damaged working graphs: ours, and minorminer's two utilities for parallel embeddings.

The peers get busclique as their embedder, all sublattice sizes that a clique fits into, and both of the utility's modes (one
template for every tile; a search in every tile). find_sublattice_embeddings may return embeddings that overlap; of those the
disjoint ones are counted, first come first served.
"""

import time
from typing import Any

import networkx as nx
import numpy as np

from annealsubnet.leap.cliques import place_cliques
from annealsubnet.leap.embedding import couplings_of, verified
from annealsubnet.leap.packing import pack
from annealsubnet.leap.templates import busclique_chains
from annealsubnet.leap.working_graphs import working_graph
from annealsubnet.problems import Problem

DEFECTS = 0.01
MIXED = (12, 16, 24, 32, 40)
TEMPLATES = (24, 40, 54, 70, 100)
TIMEOUT = 20.0


def damaged(graph: nx.Graph, seed: int) -> nx.Graph:
    """A copy with one percent of its qubits missing."""
    nodes = sorted(graph)
    dead = np.random.default_rng(seed).choice(len(nodes), round(DEFECTS * len(nodes)), replace=False)
    working = graph.copy()
    working.remove_nodes_from([nodes[index] for index in dead])
    return working


def clique(size: int) -> Problem:
    return Problem(np.zeros(size), np.ones((size, size)) - np.eye(size))


def disjoint(embeddings: list[dict[Any, Any]]) -> int:
    """How many embeddings are left if those that overlap an earlier one are taken out."""
    used: set[int] = set()
    count = 0
    for embedding in embeddings:
        qubits = {qubit for chain in embedding.values() for qubit in chain}
        if not qubits & used:
            used |= qubits
            count += 1
    return count


def peers(graph: nx.Graph, size: int) -> dict[str, Any]:
    """The most disjoint cliques that each utility finds, over its settings, and the seconds of all its settings together."""
    from minorminer import busclique
    from minorminer.utils.parallel_embeddings import find_multiple_embeddings, find_sublattice_embeddings

    source = nx.complete_graph(size)
    search: dict[str, Any] = {
        "max_num_emb": None,
        "embedder": lambda source, target, **_: busclique.find_clique_embedding(len(source), target, use_cache=False),
        "one_to_iterable": True,
        "timeout": TIMEOUT,
    }
    start = time.perf_counter()
    multiple = disjoint(find_multiple_embeddings(source, graph, **search))
    between = time.perf_counter()
    sublattice = 0
    for tile in (2, 3, 4):
        for mode in ({"use_tile_embedding": True}, {"use_filter": False}):
            found = find_sublattice_embeddings(source, graph, sublattice_size=tile, **search, **mode)
            sublattice = max(sublattice, disjoint(found))
    seconds = {"seconds_multiple": between - start, "seconds_sublattice": time.perf_counter() - between}
    return {"multiple": multiple, "sublattice": sublattice, **seconds}


def fill(graph: nx.Graph, sizes: list[int], seed: int) -> tuple[int, float, float]:
    """Parts placed, share of the qubits in use, seconds; every embedding checked once more here."""
    target = working_graph(graph)
    parts = [clique(size) for size in sizes]
    start = time.perf_counter()
    packing = pack(parts, target, seed=seed, time_limit=240.0)
    seconds = time.perf_counter() - start
    used = [qubit for _, embedding in packing.placed for chain in embedding.chains for qubit in chain]
    assert len(used) == len(set(used)), "embeddings overlap"
    assert all(verified(embedding.chains, couplings_of(parts[index]), target) for index, embedding in packing.placed)
    return len(packing.placed), len(used) / len(graph), seconds


def measure_cliques(graph: nx.Graph, seed: int, size: int) -> dict[str, Any]:
    """Cliques of one size."""
    working = damaged(graph, seed)
    count, share, seconds = fill(working, [size] * (len(working) // (2 * size)), seed)
    found = {"placed": count, "share": share, "seconds": seconds} | peers(working, size)
    return found | {"ratio": count / max(1, found["multiple"], found["sublattice"])}


def measure_template(graph: nx.Graph, seed: int, size: int) -> dict[str, Any]:
    """Longest chain and qubits of one clique's template, ours and busclique's."""
    target = working_graph(damaged(graph, seed))
    start = time.perf_counter()
    ours = place_cliques(target, set(target.graph), [size], seed=seed, rounds=0, time_limit=60.0).get(0, ())
    between = time.perf_counter()
    theirs = busclique_chains(target, size) or ()
    seconds = {"seconds": between - start, "seconds_busclique": time.perf_counter() - between}
    longest = {"longest": max(map(len, ours), default=0), "longest_busclique": max(map(len, theirs), default=0)}
    return longest | {"qubits": sum(map(len, ours)), "qubits_busclique": sum(map(len, theirs))} | seconds


def measure_mixed(graph: nx.Graph, seed: int, quick: bool) -> dict[str, Any]:
    """Cliques of mixed sizes against the best single size, by the share of qubits in use."""
    working = damaged(graph, seed)
    sizes = MIXED[:2] if quick else MIXED
    plenty = {size: len(working) // (2 * size) for size in sizes}
    single = max(fill(working, [size] * plenty[size], seed)[1] for size in sizes)
    rng = np.random.default_rng(seed)
    count, share, seconds = fill(working, rng.choice(sizes, sum(plenty.values())).tolist(), seed)
    nothing = {"multiple": "", "sublattice": "", "seconds_multiple": "", "seconds_sublattice": ""}
    return {"placed": count, "share": share, "seconds": seconds} | nothing | {"ratio": share / single}
