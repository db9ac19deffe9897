"""Templates: a chain of qubits for each variable of a clique, all of which touch, whatever couplings are used later.

Up to four variables a clique is there among the qubits themselves. For more the lattice of lines (`cliques`) has one in a
fraction of a second, with chains as short as busclique's or shorter (on Zephyr for 40 variables and more), but for some of more
than 76 on Pegasus. Where it has none, or its chains are longer than those in the table of `decompose.chains`, minorminer's
busclique is asked too, in a process of its own under a time limit:

- on a damaged Pegasus graph that it has not seen it takes over a minute, and can't be interrupted;
- on a graph most of whose qubits are missing it ends the process that asks;
- without its cache it allocates memory without end for 5 to 8 variables on any Zephyr graph (minorminer 0.2.22, in the branch
  of its search for cliques that one unit cell holds; seen on Z2, Z3, Z4 and Z12). With its cache, as here, it never goes there.
"""

import json
import logging
import subprocess
import sys
from typing import TypeAlias

import networkx as nx

from annealsubnet.decompose.chains import clique_chains
from annealsubnet.leap.cliques import place_cliques
from annealsubnet.leap.working_graphs import WorkingGraph

Chains: TypeAlias = tuple[tuple[int, ...], ...]

logger = logging.getLogger(__name__)

_SMALL = 4
_ROUNDS = 200
LONGEST = 180.0
"""Seconds that busclique gets by default; it took 73 s on P16 with 2 % of the qubits missing, a second on most graphs."""
_SCRIPT = """
import json, sys
import dwave.graphs
from minorminer import busclique

asked = json.load(sys.stdin)
make = {"zephyr": dwave.graphs.zephyr_graph, "pegasus": dwave.graphs.pegasus_graph}[asked["topology"]]
graph = make(*asked["shape"], node_list=asked["qubits"], edge_list=asked["couplers"])
found = busclique.busgraph_cache(graph, seed=0).find_clique_embedding(asked["size"])
json.dump([list(map(int, found[variable])) for variable in range(asked["size"])] if found else [], sys.stdout)
"""


def clique_chains_on(target: WorkingGraph, size: int, *, seed: int, time_limit: float = LONGEST) -> Chains | None:
    """Chains of a clique on a working graph; None if there is no room for it.

    Args:
        target: the working graph.
        size: variables of the clique.
        seed: of the order in which places are tried.
        time_limit: seconds that busclique may take, if it is asked.

    Example:
        >>> import dwave.graphs
        >>> from annealsubnet.leap.working_graphs import working_graph
        >>> whole = working_graph(dwave.graphs.zephyr_graph(2))
        >>> [max(map(len, clique_chains_on(whole, size, seed=0))) for size in (1, 4, 8, 16)]
        [1, 1, 2, 3]
    """
    if size > len(target.graph):
        return None
    if size <= _SMALL:
        cliques = (clique for clique in nx.find_cliques(target.graph) if len(clique) >= size)
        if (found := next(cliques, None)) is not None:
            return tuple((int(qubit),) for qubit in sorted(found)[:size])
    own = place_cliques(target, set(target.graph), [size], seed=seed, rounds=_ROUNDS, time_limit=1.0).get(0)
    if own is not None and _longest(own) <= (clique_chains(size, topology=target.topology) or 0):
        return own
    found = [chains for chains in (own, busclique_chains(target, size, time_limit=time_limit)) if chains is not None]
    return min(found, key=lambda chains: (_longest(chains), sum(map(len, chains))), default=None)


def _longest(chains: Chains) -> int:
    return max(map(len, chains))


def busclique_chains(target: WorkingGraph, size: int, *, time_limit: float = LONGEST) -> Chains | None:
    """Chains of a clique by minorminer's busclique, in a process of its own; None if it finds none in time."""
    graph = target.graph
    shape = [graph.graph["rows"], graph.graph["tile"]] if target.topology == "zephyr" else [graph.graph["rows"]]
    asked = {
        "topology": target.topology,
        "shape": shape,
        "qubits": [int(qubit) for qubit in graph.nodes],
        "couplers": [[int(one), int(other)] for one, other in graph.edges],
        "size": size,
    }
    command = [sys.executable, "-c", _SCRIPT]
    try:
        done = subprocess.run(command, input=json.dumps(asked), capture_output=True, text=True, timeout=time_limit)
    except subprocess.TimeoutExpired:
        logger.warning("busclique found no clique of %d variables on %r within %g s", size, target, time_limit)
        return None
    if done.returncode != 0:
        logger.warning("busclique ended with status %d, asked for %d variables on %r", done.returncode, size, target)
        return None
    return tuple(tuple(chain) for chain in json.loads(done.stdout)) or None
