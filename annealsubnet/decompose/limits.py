"""Limits: what a part of a problem may be, so that a quantum annealer can hold it.

A part over n variables takes n chains of qubits. What a chip can hold is therefore limited in four ways: by the number of
variables, by the number of couplings of a variable (`degree`), by the longest chain (long chains break) and by all the qubits
of the chains. The last two are known only after the embedding; before it they are predicted (`annealsubnet.decompose.chains`).
"""

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

import numpy as np

from annealsubnet.arguments import check_whole
from annealsubnet.problems import Problem

TOPOLOGIES = ("pegasus", "zephyr")


@dataclass(frozen=True)
class Limits:
    """The most that a part may have; None leaves a limit open.

    Attributes:
        variables: most variables.
        degree: most couplings of one variable to others of the same part.
        chain_length: most qubits in the longest chain, as predicted.
        qubits: most qubits in all chains, as predicted.
        coupler_range: least and greatest Ising coupling that the solver takes.
        field_range: least and greatest Ising field that the solver takes.
        topology: of the solver's graph, "pegasus" or "zephyr"; chains are predicted for it.

    Raises:
        TypeError: for a limit that is no whole number.
        ValueError: for a limit that no part could respect.

    Example:
        >>> Limits(variables=64, degree=8)
        Limits(variables=64, degree=8)
    """

    variables: int | None = None
    degree: int | None = None
    chain_length: int | None = None
    qubits: int | None = None
    coupler_range: tuple[float, float] | None = None
    field_range: tuple[float, float] | None = None
    topology: str = "zephyr"

    def __post_init__(self) -> None:
        least = {"variables": 1, "degree": 0, "chain_length": 1, "qubits": 1}
        for name, bound in least.items():
            value = getattr(self, name)
            if value is not None:
                object.__setattr__(self, name, check_whole(f"{name} of Limits", value, bound))
        for name in ("coupler_range", "field_range"):
            value = getattr(self, name)
            if value is not None and not (len(value) == 2 and value[0] < 0 < value[1]):
                raise ValueError(f"{name} of Limits must go from below 0 to above 0; it is {value!r}.")
        if self.topology not in TOPOLOGIES:
            raise ValueError(f"topology must be one of {', '.join(TOPOLOGIES)}; it is {self.topology!r}.")

    def __repr__(self) -> str:
        given = [name for name in self.__dataclass_fields__ if getattr(self, name) is not None]
        shown = [name for name in given if name != "topology" or self.topology != "zephyr"]
        return f"Limits({', '.join(f'{name}={getattr(self, name)!r}' for name in shown)})"


PROFILES: Mapping[str, Limits] = MappingProxyType(
    {
        "parallel": Limits(variables=24),
        "dense": Limits(variables=30),
        "balanced": Limits(variables=54),
        "large": Limits(variables=70),
        "sparse": Limits(variables=256, degree=8),
    }
)
"""Named limits: cliques that fill a chip with many parts, or with few large ones, and sparse local graphs."""


def limits_of(solver: Any, *, chain_length: int = 4) -> Limits:
    """Limits read from a solver's own graph and ranges.

    Args:
        solver: a `DWaveSampler`, a solver of the cloud client, or the dictionary of its properties.
        chain_length: longest chain; as many variables are allowed as a clique with such chains has.

    Returns:
        Limits for dense parts. For sparse ones raise `variables` and set `degree` (`dataclasses.replace`).

    Raises:
        TypeError: if the solver has no properties.
        ValueError: if its properties name no topology that chains can be predicted for.

    Example:
        >>> limits_of({"topology": {"type": "zephyr", "shape": [6, 4]}, "qubits": list(range(1200)), "h_range": [-4.0, 4.0]})
        Limits(variables=40, chain_length=4, qubits=1200, field_range=(-4.0, 4.0))
    """
    from annealsubnet.decompose.chains import largest_clique

    properties = solver if isinstance(solver, Mapping) else getattr(solver, "properties", None)
    if not isinstance(properties, Mapping):
        raise TypeError(f"a solver with a dictionary `properties` is needed; {type(solver).__name__} has none.")
    topology = properties.get("topology") or {}
    kind = topology.get("type")
    if kind not in TOPOLOGIES:
        raise ValueError(f"the solver's topology is {kind!r}; chains can be predicted for {', '.join(TOPOLOGIES)}.")
    couplers = properties.get("extended_j_range") or properties.get("j_range")
    fields = properties.get("h_range")
    qubits = properties.get("qubits")
    return Limits(
        variables=largest_clique(chain_length, topology=kind, rows=int(topology["shape"][0])),
        chain_length=chain_length,
        qubits=len(qubits) if qubits else properties.get("num_qubits"),
        coupler_range=None if couplers is None else (float(couplers[0]), float(couplers[1])),
        field_range=None if fields is None else (float(fields[0]), float(fields[1])),
        topology=kind,
    )


def scale_of(problem: Problem, limits: Limits) -> float:
    """By what factor the Ising form of a problem must be multiplied to lie within the solver's ranges; at most 1.

    With x = (1 + s) / 2 the couplings become J_ij = couplings_ij / 4 and the fields h_i = linear_i / 2 + Σ_j couplings_ij / 4.

    Example:
        >>> problem = Problem(np.array([0.0, 0.0]), np.array([[0.0, 8.0], [8.0, 0.0]]))
        >>> scale_of(problem, Limits(coupler_range=(-2.0, 1.0)))
        0.5
    """
    strengths = np.asarray(getattr(problem.couplings, "data", problem.couplings), np.float64).ravel() / 4
    if isinstance(problem.couplings, np.ndarray):
        strengths = problem.couplings.ravel() / 4
    fields = problem.linear / 2 + np.asarray(problem.couplings.sum(axis=1)).ravel() / 4
    scale = 1.0
    for values, bounds in ((strengths, limits.coupler_range), (fields, limits.field_range)):
        if bounds is not None and values.size:
            worst = max(float(values.max()) / bounds[1], float(values.min()) / bounds[0])
            scale = min(scale, 1.0 / worst) if worst > 0 else scale
    return scale
