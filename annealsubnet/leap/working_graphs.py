"""Working graphs: which qubits and couplers of a solver work, and what identifies that very set.

The working graph changes without a change of the solver's name; `graph_id` is what tells one from another.
"""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from numbers import Integral
from typing import Any

import networkx as nx

_TILE = 4


@dataclass(frozen=True)
class WorkingGraph:
    """The qubits and couplers of one solver that work.

    Attributes:
        graph: as `dwave.graphs` makes it, with the topology in its attributes.
        graph_id: what identifies this very set of qubits and couplers.
        topology: "zephyr" or "pegasus".
    """

    graph: nx.Graph
    graph_id: str
    topology: str

    def __repr__(self) -> str:
        rows = self.graph.graph["rows"]
        return f"WorkingGraph({self.topology} {rows}, {len(self.graph)} qubits, {self.graph_id})"

    @cached_property
    def neighbors(self) -> dict[int, frozenset[int]]:
        """The qubits that each qubit is coupled to."""
        return {qubit: frozenset(near) for qubit, near in self.graph.adjacency()}


def working_graph(solver: Any) -> WorkingGraph:
    """The working graph of a solver.

    Args:
        solver: a `DWaveSampler`, a solver of the cloud client, the dictionary of its properties, or a graph made by
            `dwave.graphs`.

    Raises:
        TypeError: if it is none of these.
        ValueError: if its topology is neither Zephyr (of tile parameter 4) nor Pegasus, or its qubits are coordinates.

    Example:
        >>> import dwave.graphs
        >>> working_graph(dwave.graphs.zephyr_graph(2)).topology
        'zephyr'
    """
    import dwave.graphs

    if isinstance(solver, WorkingGraph):
        return solver
    if isinstance(solver, nx.Graph):
        family = _checked_topology(solver.graph.get("family"), solver.graph.get("tile"))
        if not all(isinstance(qubit, Integral) for qubit in solver):
            raise ValueError("qubits must be numbers; make the graph without coordinates.")
        return WorkingGraph(solver, hashed(sorted(map(sorted, solver.edges))), family)
    properties = solver if isinstance(solver, Mapping) else getattr(solver, "properties", None)
    if not isinstance(properties, Mapping):
        raise TypeError(f"a solver with a dictionary `properties`, or a graph, is needed; this is {type(solver).__name__}.")
    topology = properties.get("topology") or {}
    family = _checked_topology(topology.get("type"), (topology.get("shape") or [0])[-1])
    nodes, edges = list(properties["qubits"]), [tuple(coupler) for coupler in properties["couplers"]]
    make = {"zephyr": dwave.graphs.zephyr_graph, "pegasus": dwave.graphs.pegasus_graph}[family]
    shape = topology["shape"] if family == "zephyr" else topology["shape"][:1]
    graph = make(*shape, node_list=nodes, edge_list=edges)
    identity = properties.get("graph_id") or _stated_id(solver) or hashed(sorted(map(sorted, edges)))
    return WorkingGraph(graph, str(identity), family)


def _checked_topology(family: Any, tile: Any) -> str:
    if family not in ("zephyr", "pegasus"):
        raise ValueError(f"the topology must be zephyr or pegasus; it is {family!r}.")
    if family == "zephyr" and tile != _TILE:
        raise ValueError(f"a Zephyr graph must have a tile parameter of {_TILE}, as all QPUs have; it is {tile!r}.")
    return str(family)


def _stated_id(solver: Any) -> str | None:
    """The `graph_id` in the version that a cloud solver states, if it states one."""
    for candidate in (solver, getattr(solver, "solver", None)):
        version = getattr(candidate, "version", None)
        found = version.get("graph_id") if isinstance(version, Mapping) else getattr(version, "graph_id", None)
        if found:
            return str(found)
    return None


def hashed(value: Any) -> str:
    """A short name for a value, the same in every process."""
    return hashlib.sha256(repr(value).encode()).hexdigest()[:16]
