"""The shape of a problem: what makes it easy or hard for a solver, whatever its biases.

Variables that no path of couplings joins are problems of their own. How hard one is for an exact solver is told by its
treewidth (variable elimination takes 2^(treewidth + 1) entries), for a quantum annealer by its size and degree.
"""

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import scipy.sparse
from scipy.sparse.csgraph import connected_components

from annealsubnet.decompose.chains import treewidth_bound
from annealsubnet.problems import Problem

_MOST_ELIMINATED = 2048


@dataclass(frozen=True)
class Shape:
    """Of one problem or of many.

    Attributes:
        variables: in all.
        couplings: pairs that are coupled, in all.
        parts: connected components.
        largest: variables of the largest of them.
        degree: most couplings of one variable.
        treewidth: an upper bound for all parts, by minimum-degree elimination.
    """

    variables: int
    couplings: int
    parts: int
    largest: int
    degree: int
    treewidth: int


def shape_of(problems: Problem | Iterable[Problem]) -> Shape:
    """The shape of one problem, or of several that are solved apart.

    Example:
        >>> cliques = np.kron(np.eye(2), np.ones((4, 4)) - np.eye(4))
        >>> shape_of(Problem(np.zeros(8), cliques))
        Shape(variables=8, couplings=12, parts=2, largest=4, degree=3, treewidth=3)
    """
    shapes = [_one(problem) for problem in ([problems] if isinstance(problems, Problem) else problems)]
    return Shape(
        sum(shape.variables for shape in shapes),
        sum(shape.couplings for shape in shapes),
        sum(shape.parts for shape in shapes),
        max((shape.largest for shape in shapes), default=0),
        max((shape.degree for shape in shapes), default=0),
        max((shape.treewidth for shape in shapes), default=0),
    )


def _one(problem: Problem) -> Shape:
    graph = scipy.sparse.csr_array(problem.couplings, copy=True)
    graph.eliminate_zeros()
    if not problem.size:
        return Shape(0, 0, 0, 0, 0, 0)
    parts, part_of = connected_components(graph, directed=False)
    widths = []
    for part in range(parts):
        inner = np.flatnonzero(part_of == part)
        own = graph[inner][:, inner].tocsr()
        complete = own.nnz == inner.size * (inner.size - 1)
        widths.append(inner.size - 1 if complete else treewidth_bound(own.indptr, own.indices, most=_MOST_ELIMINATED))
    sizes = np.bincount(part_of)
    return Shape(problem.size, graph.nnz // 2, parts, int(sizes.max()), int(np.diff(graph.indptr).max(initial=0)), max(widths))
