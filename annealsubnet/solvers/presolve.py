"""Presolve: fix what an optimum provably has, split what is not connected, and anneal only the rest.

Roof duality (a maximum flow) finds values that optimal states have. (The `strict=False` form of dwave-preprocessing, which
fixes ties too, loses the optimum on one in forty small problems with integer biases.) Components of the remaining graph do
not influence each other, so the best states of each make the best state of all.

References:
    P. L. Hammer, P. Hansen, B. Simeone, "Roof duality, complementation and persistency in quadratic 0-1 optimization",
    Mathematical Programming 28 (1984).
"""

import dataclasses
from collections.abc import Callable, Hashable
from dataclasses import dataclass
from typing import Any

import dimod
import numpy as np
import scipy.sparse
import scipy.sparse.csgraph

from annealsubnet.solvers.options import NUM_READS, Options


@dataclass(frozen=True)
class Presolved:
    """What is left of a model.

    Attributes:
        fixed: values that some optimal state has, all of them together.
        components: models of the connected components of the rest, largest first.
    """

    fixed: dict[Hashable, int]
    components: tuple[dimod.BinaryQuadraticModel, ...]


def presolve(bqm: dimod.BinaryQuadraticModel) -> Presolved:
    """Fix variables by roof duality and split the rest into connected components.

    Example:
        >>> bqm = dimod.BinaryQuadraticModel({"a": -3.0}, {("a", "b"): 1.0, ("c", "d"): -1.0}, 0.0, "BINARY")
        >>> presolve(bqm).fixed == {"a": 1, "b": 0, "c": 1, "d": 1}
        True
    """
    from dwave.preprocessing import roof_duality

    # Labels that are 0 to n - 1 in another order would come back as positions.
    names = list(bqm.variables)
    positions = bqm.relabel_variables({name: position for position, name in enumerate(names)}, inplace=False)
    fixed = {names[position]: int(value) for position, value in roof_duality(positions, strict=True)[1].items()}
    rest = bqm.copy()
    rest.fix_variables(fixed)
    labels = list(rest.variables)
    vectors = rest.to_numpy_vectors(variable_order=labels)
    pairs = (vectors.quadratic.row_indices, vectors.quadratic.col_indices)
    used = np.asarray(vectors.quadratic.biases) != 0
    graph = scipy.sparse.coo_array((used[used], (pairs[0][used], pairs[1][used])), shape=(len(labels), len(labels)))
    count, member = scipy.sparse.csgraph.connected_components(graph, directed=False)
    order = sorted(range(count), key=lambda component: -int((member == component).sum()))
    return Presolved(fixed, tuple(_component(rest, labels, member == component) for component in order))


def _component(bqm: dimod.BinaryQuadraticModel, labels: list[Hashable], inside: np.ndarray) -> dimod.BinaryQuadraticModel:
    position = np.cumsum(inside) - 1
    vectors = bqm.to_numpy_vectors(variable_order=labels)
    rows, columns = vectors.quadratic.row_indices, vectors.quadratic.col_indices
    kept = inside[rows] & inside[columns]  # an explicit zero may lead to another component
    quadratic = (position[rows[kept]], position[columns[kept]], np.asarray(vectors.quadratic.biases)[kept])
    names = [label for label, chosen in zip(labels, inside.tolist(), strict=True) if chosen]
    linear = np.asarray(vectors.linear_biases)[inside]
    return dimod.BinaryQuadraticModel.from_numpy_vectors(linear, quadratic, 0.0, bqm.vartype, variable_order=names)


def sample_presolved(
    bqm: dimod.BinaryQuadraticModel,
    options: Options,
    seed: int,
    sample: Callable[[dimod.BinaryQuadraticModel, Options], dimod.SampleSet],
) -> dimod.SampleSet:
    """Presolve, sample every component, and put states together, the best of each first.

    Raises:
        ValueError: for options that tie variables together or end reads early.
    """
    refused = ("num_kept", "groups", "initial_states", "target", "time_limit", "interrupt_function")
    given = [name for name in refused if getattr(options, name) is not None]
    if given or options.state == "last":
        raise ValueError(f"presolve cannot be combined with {', '.join(given) or 'state last'}.")
    found = presolve(bqm)
    num_reads = NUM_READS if options.num_reads is None else int(options.num_reads)
    columns = {variable: index for index, variable in enumerate(bqm.variables)}
    states = np.empty((num_reads, bqm.num_variables), np.int8)
    for variable, value in found.fixed.items():
        states[:, columns[variable]] = value
    part: dict[str, Any] = {"presolve": False, "num_reads": num_reads}
    infos = []
    for index, component in enumerate(found.components):
        sampleset = sample(component, dataclasses.replace(options, seed=seed + index, **part))
        order = np.argsort(sampleset.record.energy, kind="stable")
        states[:, [columns[variable] for variable in sampleset.variables]] = sampleset.record.sample[order]
        infos.append(sampleset.info)
    info = _together(infos) | {"seed": seed, "fixed": len(found.fixed), "components": len(found.components)}
    return dimod.SampleSet.from_samples_bqm((states, list(bqm.variables)), bqm, info=info, sort_labels=False)


def _together(infos: list[dict[str, Any]]) -> dict[str, Any]:
    """What all components took: sums, the widest range of temperatures, and every kernel that ran."""
    ranges = [info["beta_range"] for info in infos if info["beta_range"] is not None]
    together: dict[str, Any] = {
        "beta_range": (min(hot for hot, _ in ranges), max(cold for _, cold in ranges)) if ranges else None,
        "kernel": ", ".join(sorted({info["kernel"] for info in infos})) or None,
    }
    for name in ("sweeps", "moves_tried", "moves_accepted", "tabu_steps"):
        together[name] = sum(info[name] for info in infos)
    seconds = ("prepare", "anneal", "collect")
    return together | {"stopped_by": None, "seconds": {step: sum(info["seconds"][step] for info in infos) for step in seconds}}
