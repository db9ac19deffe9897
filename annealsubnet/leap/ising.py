"""Ising models on qubits: many parts, each with its own scale and chain strength, in one job.

With x = (1 + s)/2 a part has h_i = (linear_i + λ)/2 + Σ_j couplings_ij/4 and J_ij = couplings_ij/4, λ the price of its
cardinality. A chain of qubits stands for each variable: h_i is divided evenly among its qubits, J_ij among all couplers between
the two chains, and every coupler within a chain gets −κ. κ follows the *torque* that couplings exert on a chain,

    κ = 1.414 · √(mean of J²) · √(mean degree),

and each part is multiplied by the largest factor at which all its fields, couplings and chains are within the device's ranges.
Before any of it a part is divided by a power of two, which changes no digit, so that squares neither overflow nor vanish.

References:
    D-Wave Systems, "Programming the D-Wave QPU: setting the chain strength", white paper 14-1041A (2020).
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import scipy.sparse

from annealsubnet.leap.jobs import Job, Placement
from annealsubnet.problems import Problem

PREFACTOR = 1.414


def power_of_two(*values: np.ndarray) -> float:
    """The greatest power of two that is not above the largest of the sizes of `values`; 1 where all are zero.

    Example:
        >>> power_of_two(np.array([-3.0, 0.5])), power_of_two(np.zeros(2))
        (2.0, 1.0)
    """
    largest = max(float(np.abs(array).max(initial=0.0)) for array in values)
    return math.ldexp(0.5, math.frexp(largest)[1]) if largest > 0 else 1.0


def normalized(problem: Problem) -> tuple[Problem, float]:
    """A problem divided by a power of two that leaves its largest bias from 1 to 2, without its offset; and that power.

    Example:
        >>> normalized(Problem(np.array([6.0, -2.0]), np.zeros((2, 2))))[0].linear.tolist()
        [1.5, -0.5]
    """
    stored: Any = problem.couplings.data if scipy.sparse.issparse(problem.couplings) else problem.couplings
    unit = power_of_two(problem.linear, stored)
    return replace(problem, linear=problem.linear / unit, couplings=problem.couplings / unit, offset=0.0), unit


def logical_ising(problem: Problem, price: float = 0.0) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """h, pairs [couplings, 2] and J of a problem.

    Example:
        >>> fields, pairs, couplings = logical_ising(Problem(np.array([2.0, 0.0]), np.array([[0.0, 4.0], [4.0, 0.0]])))
        >>> fields.tolist(), pairs.tolist(), couplings.tolist()
        ([2.0, 1.0], [[0, 1]], [1.0])
    """
    upper = scipy.sparse.triu(scipy.sparse.coo_array(problem.couplings), k=1).tocoo()
    used = upper.data != 0
    pairs = np.stack([upper.row[used], upper.col[used]], axis=1).astype(np.int64)
    couplings = upper.data[used] / 4
    fields = (problem.linear + price) / 2
    for column in (0, 1):
        fields = fields + np.bincount(pairs[:, column], couplings, minlength=problem.size)
    return fields, pairs, couplings


def chain_strength(fields: np.ndarray, pairs: np.ndarray, couplings: np.ndarray) -> float:
    """κ in the part's own units; without couplings the largest field."""
    if not couplings.size:
        return float(np.abs(fields).max(initial=0.0)) or 1.0
    degree = 2 * len(pairs) / fields.size
    unit = power_of_two(couplings)
    return unit * PREFACTOR * float(np.sqrt(np.mean((couplings / unit) ** 2)) * np.sqrt(degree))


def placed_job(
    numbers: Sequence[int],
    problems: Sequence[Problem],
    prices: Sequence[float],
    embeddings: Sequence[Sequence[Sequence[int]]],
    properties: Mapping[str, Any],
    params: Mapping[str, Any],
    *,
    gauge_seed: int | None,
    states: Sequence[np.ndarray] | None = None,
) -> Job:
    """One job that holds some parts.

    Args:
        numbers: of the parts in the plan.
        problems: of the parts.
        prices: λ of each.
        embeddings: chains of each, disjoint.
        properties: of the solver.
        params: of the solver.
        gauge_seed: of the spin-reversal transform; None for none.
        states: of each part, to reverse-anneal from.
    """
    qubits = np.sort(np.concatenate([np.asarray(chain, np.int64) for embedding in embeddings for chain in embedding]))
    size = int(max(qubits.max(initial=0), np.max(properties["qubits"]))) + 1
    position = np.full(size, -1)
    position[qubits] = np.arange(qubits.size)
    couplers = position[np.asarray(properties["couplers"], np.int64).reshape(-1, 2)]
    couplers = np.sort(couplers[(couplers >= 0).all(axis=1)], axis=1)
    owner, variable = np.full(qubits.size, -1), np.full(qubits.size, -1)
    for part, embedding in enumerate(embeddings):
        for number, qubits_of in enumerate(embedding):
            owner[position[list(qubits_of)]], variable[position[list(qubits_of)]] = part, number
    inside = owner[couplers[:, 0]] == owner[couplers[:, 1]]
    couplers = couplers[inside]
    order = np.argsort(owner[couplers[:, 0]], kind="stable")
    couplers = couplers[order]
    begins = np.searchsorted(owner[couplers[:, 0]], np.arange(len(problems) + 1))
    fields, values = np.zeros(qubits.size), np.zeros(len(couplers))
    placements = []
    for part, problem in enumerate(problems):
        chains = tuple(position[np.asarray(chain, np.int64)] for chain in embeddings[part])
        rows = slice(begins[part], begins[part + 1])
        mine = np.concatenate(chains)
        fields[mine], values[rows], scale, strength = _embedded(
            problem, prices[part], chains, variable[mine], variable[couplers[rows]], couplers[rows], properties
        )
        placements.append(Placement(numbers[part], chains, scale, strength))
    used = values != 0
    gauge = np.ones(qubits.size, np.int8)
    if gauge_seed is not None:
        # One sign a chain: a chain's coupling may be as low as −2 and must not become +2, which no device takes.
        rng = np.random.default_rng(gauge_seed)
        for place in placements:
            for chain, sign in zip(place.chains, rng.choice(np.array([-1, 1], np.int8), len(place.chains)), strict=True):
                gauge[chain] = sign
    initial = np.zeros(0, np.int8)
    if states is not None:
        spins = [np.where(np.asarray(state) > 0, 1, -1).astype(np.int8) for state in states]
        initial = np.array([spins[part][number] for part, number in zip(owner, variable, strict=True)], np.int8)
    return Job(qubits, fields, couplers[used], values[used], gauge, tuple(placements), dict(params), initial)


def _embedded(
    problem: Problem,
    price: float,
    chains: Sequence[np.ndarray],
    variables: np.ndarray,
    ends: np.ndarray,
    couplers: np.ndarray,
    properties: Mapping[str, Any],
) -> tuple[np.ndarray, np.ndarray, float, float]:
    """Fields of the part's qubits, chain after chain, and values of its couplers, as the device gets them."""
    problem, unit = normalized(problem)
    h, pairs, j = logical_ising(problem, price / unit)
    strength = chain_strength(h, pairs, j)
    fields = (h / np.array([len(chain) for chain in chains]))[variables]
    low, high = ends.min(axis=1), ends.max(axis=1)
    flat = low * problem.size + high
    between = low != high
    counts = np.bincount(flat[between], minlength=problem.size**2)
    matrix = np.zeros(problem.size**2)
    matrix[pairs[:, 0] * problem.size + pairs[:, 1]] = j
    reached = counts[pairs[:, 0] * problem.size + pairs[:, 1]] > 0
    assert reached.all(), "an embedding lacks a coupler"
    values = np.where(between, matrix[flat] / np.maximum(counts[flat], 1), -strength)
    excess = _excess(fields, couplers, values, between, properties)
    factor = 1.0 / excess if excess > 0 else 1.0
    return factor * fields, factor * values, factor / unit, factor * strength


def _excess(
    fields: np.ndarray, couplers: np.ndarray, values: np.ndarray, between: np.ndarray, properties: Mapping[str, Any]
) -> float:
    """By how much the worst of fields, couplings and sums of couplings at a qubit goes beyond the device's ranges.

    Whatever the spin-reversal transform: it may turn the sign of a field or of a coupling between chains.
    """
    low, high = properties.get("extended_j_range") or properties["j_range"]
    worst = [
        float(np.abs(fields).max(initial=0.0)) / min(-properties["h_range"][0], properties["h_range"][1]),
        float(np.abs(values[between]).max(initial=0.0)) / min(-low, high),
        float(values[~between].min(initial=0.0)) / low,
    ]
    sums = properties.get("per_qubit_coupling_range")
    if sums is not None and len(couplers):
        chain = np.bincount(couplers.ravel(), np.repeat(np.where(between, 0.0, values), 2))
        others = np.bincount(couplers.ravel(), np.repeat(np.where(between, np.abs(values), 0.0), 2))
        worst += [float((chain - others).min()) / sums[0], float((chain + others).max()) / sums[1]]
    return max(worst)
