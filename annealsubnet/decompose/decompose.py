"""Decompose: a problem and limits make parts, every one of which respects every limit.

The number of variables bounds the parts from the start. Parts that are too dense, or whose chains are predicted to be too long,
then give up variables or are split, and what they gave up is partitioned anew, until all parts respect all limits; a single
variable always does.
"""

from dataclasses import replace

import numpy as np

from annealsubnet.arguments import check_weight, check_whole
from annealsubnet.decompose import part_kernels as kernels
from annealsubnet.decompose.chains import largest_clique, predict_chains
from annealsubnet.decompose.decomposition import Decomposition
from annealsubnet.decompose.limits import Limits
from annealsubnet.decompose.partition import Graph, Rows, compressed, graph_of, partition
from annealsubnet.problems import Problem

_WIDEST = 20.0


def decompose(problem: Problem, limits: Limits, *, seed: int, overlap: int = 0, variety: float = 0.0) -> Decomposition:
    """Parts of a problem that respect limits and hold strongly coupled variables together.

    Args:
        problem: with any couplings.
        limits: of each part.
        seed: of the order in which variables are grouped; another seed gives other parts.
        overlap: how many variables of its surroundings each part takes in besides its own (those it is coupled to most),
            within the limits.
        variety: strengths are multiplied by random factors of this spread (of their logarithm) when variables are grouped,
            so that other seeds make truly other parts.

    Returns:
        Parts that cover all variables; without overlap each variable is in exactly one.

    Raises:
        TypeError: for limits that are none, a seed or an overlap that is no whole number, a variety that is no number.
        ValueError: for an overlap that leaves a part no variable of its own, a negative seed, or a variety that is negative or
            not finite.

    Example:
        >>> ring = np.roll(np.eye(100), 1, axis=0)
        >>> decompose(Problem(np.zeros(100), ring + ring.T), Limits(variables=25), seed=0).sizes.max() <= 25
        np.True_
    """
    if not isinstance(limits, Limits):
        raise TypeError(f"limits must be Limits, such as PROFILES['dense']; they are {type(limits).__name__}.")
    most = problem.size if limits.variables is None else min(limits.variables, problem.size)
    seed, overlap = check_whole("seed", seed, 0), check_whole("overlap", overlap, 0)
    if overlap and overlap >= most:
        raise ValueError(f"overlap must be from 0 to below the {most} variables of a part; it is {overlap}.")
    check_weight("variety", variety)
    rows = compressed(problem)
    graph = graph_of(rows)
    grouped = graph if variety == 0 else _varied(graph, variety, seed)
    parts = _within_limits(grouped, replace(limits, variables=max(1, most - overlap)), seed)
    count = int(parts.max(initial=-1)) + 1
    starts, members = kernels.gather(parts, count)
    if overlap:
        longer = kernels.extend(rows.starts, rows.neighbors, np.abs(rows.values), starts, members, overlap, problem.size)
        starts, members = _accepted(graph, (starts, members), longer, limits)
    return _finished(problem, limits, rows, starts, members)


def decompose_chosen(problem: Problem, limits: Limits, chosen: np.ndarray, interest: np.ndarray, *, seed: int) -> Decomposition:
    """Parts of some variables only, grouped by strengths |couplings_ij| (interest_i + interest_j), most interesting part first.

    Args:
        problem: the whole.
        limits: of each part.
        chosen: positions of the variables to group, rising; all others stay outside of all parts.
        interest: of every variable of the problem; not negative.
        seed: of the order in which variables are grouped.
    """
    rows = compressed(problem)
    own = _induced(graph_of(rows), chosen)
    ends = np.repeat(np.arange(own.count), np.diff(own.starts))
    factors = interest[chosen][ends] + interest[chosen][own.neighbors]
    weights = np.maximum(own.weights * factors, 1e-12).astype(np.float32)
    most = max(1, min(limits.variables or chosen.size, chosen.size))
    grouped = Graph(own.starts, own.neighbors, weights, own.sizes)
    parts = _within_limits(grouped, replace(limits, variables=most), seed)
    worth = np.bincount(parts, weights=np.bincount(ends, weights, own.count) + interest[chosen]) if chosen.size else np.zeros(0)
    rank = np.empty(worth.size, np.int32)
    rank[np.argsort(-worth, kind="stable")] = np.arange(worth.size)
    starts, members = kernels.gather(rank[parts] if chosen.size else parts, worth.size)
    return _finished(problem, limits, rows, starts, chosen[members])


def _finished(problem: Problem, limits: Limits, rows: Rows, starts: np.ndarray, members: np.ndarray) -> Decomposition:
    """A decomposition with the couplings and colors of its parts."""
    inner = kernels.induce(*rows.arrays, starts, members)
    homes = kernels.membership(starts, members, problem.size)
    colors = kernels.color(rows.starts, rows.neighbors, starts, members, *homes)
    return Decomposition(problem, limits, starts, members, colors, *inner)


def _varied(graph: Graph, variety: float, seed: int) -> Graph:
    """The graph with a random factor for each variable on its strengths, so that they stay symmetric."""
    # Clipped where products of two, and sums of millions of them, would leave float32: the partition of infinities never ends.
    exponents = np.clip(variety * np.random.default_rng(seed).normal(size=graph.count), -_WIDEST, _WIDEST)
    factors = np.exp(exponents).astype(np.float32)
    weights = graph.weights * np.repeat(factors, np.diff(graph.starts)) * factors[graph.neighbors]
    return Graph(graph.starts, graph.neighbors, np.maximum(weights, np.float32(1e-20)), graph.sizes)


def _within_limits(graph: Graph, limits: Limits, seed: int) -> np.ndarray:
    """The part of each variable, after as many partitions as it takes to respect all limits."""
    parts = np.full(graph.count, -1, np.int32)
    waiting, largest, made = np.arange(graph.count), limits.variables or 1, 0
    first = True
    while waiting.size:
        own = graph if first else _induced(graph, waiting)
        found = partition(own, largest, seed=seed + made)
        count = int(found.max()) + 1
        if limits.degree is not None:
            starts, members = kernels.gather(found, count)
            kernels.trim(own.starts, own.neighbors, own.weights, found, count, limits.degree, starts, members)
        if limits.chain_length is not None or limits.qubits is not None:
            _break_long(own, found, count, limits)
        kept = found >= 0
        if first and kept.all():
            return found
        numbers, found_kept = np.unique(found[kept], return_inverse=True)
        parts[waiting[kept]] = made + found_kept
        made += numbers.size
        typical = int(np.ceil(1.25 * kept.sum() / max(numbers.size, 1)))
        largest = max(1, min(largest, typical)) if numbers.size else max(1, largest // 2)
        waiting, first = waiting[~kept], False
    return parts


def _break_long(graph: Graph, parts: np.ndarray, count: int, limits: Limits) -> None:
    """Give the part −1 to all variables of parts that are predicted to take too many qubits; changes `parts`."""
    starts, members = kernels.gather(np.where(parts < 0, count, parts).astype(np.int32), count + 1)
    inner = kernels.induce(graph.starts, graph.neighbors, graph.weights.astype(np.float64), starts, members)
    for part in range(count):
        begin, end = int(starts[part]), int(starts[part + 1])
        if not _fits((inner[0], inner[1]), begin, end, limits):
            parts[members[begin:end]] = -1


def _fits(inner: tuple[np.ndarray, np.ndarray], begin: int, end: int, limits: Limits) -> bool:
    """Whether the predicted chains of one part respect the limits; a single variable always does."""
    if end - begin <= 1:
        return True
    length = limits.chain_length
    if limits.qubits is None and length is not None and end - begin <= largest_clique(length, topology=limits.topology):
        return True
    rows, columns = inner
    first, last = int(rows[begin]), int(rows[end])
    chains = predict_chains(rows[begin : end + 1] - first, columns[first:last], topology=limits.topology)
    long = length is not None and chains.length > length
    return not long and (limits.qubits is None or chains.qubits <= limits.qubits)


def _induced(graph: Graph, chosen: np.ndarray) -> Graph:
    starts = np.array([0, chosen.size], np.int64)
    rows, columns, values = kernels.induce(
        graph.starts, graph.neighbors, graph.weights.astype(np.float64), starts, chosen.astype(np.int64)
    )
    return Graph(rows, columns, values.astype(np.float32), np.ones(chosen.size, np.int32))


def _accepted(
    graph: Graph, own: tuple[np.ndarray, np.ndarray], longer: tuple[np.ndarray, np.ndarray], limits: Limits
) -> tuple[np.ndarray, np.ndarray]:
    """Each part with its surroundings where that respects the limits, else without."""
    if limits.degree is None and limits.chain_length is None and limits.qubits is None:
        return longer
    starts, members = longer
    inner = kernels.induce(graph.starts, graph.neighbors, graph.weights.astype(np.float64), starts, members)
    degrees = kernels.inner_degrees(inner[0], starts)
    chosen = []
    for part in range(starts.size - 1):
        begin, end = int(starts[part]), int(starts[part + 1])
        dense = limits.degree is not None and degrees[part] > limits.degree
        fits = not dense and ((limits.chain_length is None and limits.qubits is None) or _fits(inner[:2], begin, end, limits))
        chosen.append(members[begin:end] if fits else own[1][own[0][part] : own[0][part + 1]])
    return np.concatenate([[0], np.cumsum([len(one) for one in chosen])]).astype(np.int64), np.concatenate(chosen)
