"""A problem's energy is its definition, in every form it converts to."""

import dimod
import numpy as np
import pytest
import scipy.sparse
from hypothesis import given
from hypothesis import strategies as st

from annealsubnet.problems import Problem


def random_problem(size: int, seed: int, *, sparse: bool = False, **options) -> Problem:
    rng = np.random.default_rng(seed)
    upper = np.triu(rng.normal(size=(size, size)), 1)
    if sparse:
        upper = scipy.sparse.csr_array(np.where(rng.random((size, size)) < 0.4, upper, 0.0))
    return Problem(rng.normal(size=size), upper + upper.T, offset=float(rng.normal()), **options)


@given(size=st.integers(0, 9), seed=st.integers(0, 1000), sparse=st.booleans())
def test_energy_is_the_definition_in_every_form(size, seed, sparse):
    problem = random_problem(size, seed, sparse=sparse)
    states = np.random.default_rng(seed).integers(0, 2, (7, size))
    dense = problem.couplings.toarray() if sparse else problem.couplings
    expected = [
        problem.offset
        + sum(problem.linear[i] * x[i] for i in range(size))
        + sum(dense[i, j] * x[i] * x[j] for i in range(size) for j in range(i))
        for x in states
    ]
    np.testing.assert_allclose(problem.energy(states), expected, rtol=1e-12, atol=1e-12)
    np.testing.assert_allclose(problem.to_bqm().energies((states, problem.names)), expected, rtol=1e-12, atol=1e-12)
    assert problem.energy(states[0]).shape == ()


def test_labels_survive_a_file():
    problem = random_problem(5, 0, labels=tuple("abcde"))
    bqm = problem.to_bqm()
    loaded = dimod.BinaryQuadraticModel.from_file(bqm.to_file())
    assert list(loaded.variables) == list("abcde")
    assert loaded == bqm
    assert list(random_problem(3, 0).to_bqm().variables) == ["0", "1", "2"]


def test_cqm_holds_the_cardinality():
    problem = random_problem(6, 1, num_kept=2)
    sampleset = dimod.ExactCQMSolver().sample_cqm(problem.to_cqm())
    feasible = sampleset.record[sampleset.record.is_feasible]
    assert set(feasible.sample.sum(axis=1)) == {2}
    order = [list(sampleset.variables).index(name) for name in problem.names]
    np.testing.assert_allclose(problem.energy(feasible.sample[:, order]), feasible.energy)


def test_a_problem_is_frozen():
    linear = np.zeros(2)
    problem = Problem(linear, np.zeros((2, 2)))
    linear[0] = 1.0
    assert problem.linear[0] == 0.0
    with pytest.raises(ValueError):
        problem.linear[0] = 1.0
    with pytest.raises(AttributeError):
        problem.offset = 1.0


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"linear": np.zeros((2, 1))}, "one axis"),
        ({"couplings": np.zeros((3, 3))}, "2 x 2"),
        ({"couplings": np.eye(2)}, "diagonal"),
        ({"couplings": np.array([[0, 1], [2, 0]])}, "symmetric"),
        ({"linear": np.array([np.nan, 0])}, "linear of a problem must be finite"),
        ({"couplings": scipy.sparse.csr_array([[0, np.inf], [np.inf, 0]])}, "finite"),
        ({"offset": np.inf}, "offset"),
        ({"num_kept": 3}, "num_kept"),
        ({"num_kept": -1}, "num_kept"),
        ({"labels": ("a", "a")}, "differ"),
        ({"labels": ("a",)}, "2 labels"),
    ],
)
def test_what_does_not_fit_is_refused(options, message):
    with pytest.raises(ValueError, match=message):
        Problem(**({"linear": np.zeros(2), "couplings": np.zeros((2, 2))} | options))


@pytest.mark.parametrize("sparse", [False, True])
@pytest.mark.parametrize("largest", [1.0, 1e10, 1e13])
def test_a_coupling_that_is_there_one_way_only_is_found_beside_any_other(largest, sparse):
    couplings = np.zeros((4, 4))
    couplings[2, 3] = couplings[3, 2] = largest
    couplings[0, 1] = 1.0
    with pytest.raises(ValueError, match="must be symmetric; they differ from their transpose by up to 1"):
        Problem(np.zeros(4), scipy.sparse.csr_array(couplings) if sparse else couplings)
    couplings[1, 0] = 1.0 + 1e-12  # rounding is none
    Problem(np.zeros(4), scipy.sparse.csr_array(couplings) if sparse else couplings)
