"""Shapes of problems, against graphs whose treewidth is known."""

import numpy as np
import pytest
import scipy.sparse

from annealsubnet.decompose import Shape, shape_of
from annealsubnet.problems import Problem


def problem(size, edges):
    couplings = np.zeros((size, size))
    for i, j in edges:
        couplings[i, j] = couplings[j, i] = 1.0
    return Problem(np.zeros(size), couplings)


@pytest.mark.parametrize(
    ("size", "edges", "wanted"),
    [
        (5, [(i, i + 1) for i in range(4)], Shape(5, 4, 1, 5, 2, 1)),
        (6, [(i, (i + 1) % 6) for i in range(6)], Shape(6, 6, 1, 6, 2, 2)),
        (5, [(i, j) for i in range(5) for j in range(i)], Shape(5, 10, 1, 5, 4, 4)),
        (4, [], Shape(4, 0, 4, 1, 0, 0)),
        (5, [(0, 1), (2, 3), (3, 4), (2, 4)], Shape(5, 4, 2, 3, 2, 2)),
    ],
)
def test_known_graphs(size, edges, wanted):
    assert shape_of(problem(size, edges)) == wanted


def test_problems_that_are_solved_apart_add_up():
    ring = problem(6, [(i, (i + 1) % 6) for i in range(6)])
    assert shape_of([ring, problem(2, [(0, 1)]), ring]) == Shape(14, 13, 3, 6, 2, 2)
    assert shape_of([]) == Shape(0, 0, 0, 0, 0, 0)


def test_a_sparse_problem_is_counted_and_left_alone():
    couplings = scipy.sparse.csr_array(np.array([[0.0, 2.0, 0.0], [2.0, 0.0, 0.0], [0.0, 0.0, 0.0]]))
    couplings.data.setflags(write=False)
    assert shape_of(Problem(np.zeros(3), couplings)) == Shape(3, 1, 2, 2, 1, 1)
