"""Laws of parts: with their boundary they have the energy of the whole, they respect every limit, they cover all variables."""

from dataclasses import replace
from itertools import product

import dimod
import numpy as np
import pytest
import scipy.sparse

from annealsubnet.decompose import PROFILES, Limits, decompose, largest_clique, limits_of, merge, predict_chains, scale_of
from annealsubnet.problems import Problem


def sparse_problem(size, degree, seed, *, num_kept=None):
    """A ring whose variables are coupled to their `degree` nearest, in random order, with random couplings."""
    rng = np.random.default_rng(seed)
    order = rng.permutation(size)
    pairs = [(order[i], order[(i + step) % size]) for i in range(size) for step in range(1, degree // 2 + 1) if size > 2 * step]
    rows, columns = np.array(pairs, int).reshape(-1, 2).T
    upper = scipy.sparse.coo_array((rng.normal(size=len(rows)), (rows, columns)), shape=(size, size))
    return Problem(rng.normal(size=size), scipy.sparse.csr_array(upper + upper.T), rng.normal(), num_kept)


def dense_problem(size, seed, *, num_kept=None):
    rng = np.random.default_rng(seed)
    upper = np.triu(rng.normal(size=(size, size)), 1)
    return Problem(rng.normal(size=size), upper + upper.T, rng.normal(), num_kept)


PROBLEMS = [
    sparse_problem(200, 6, 0),
    sparse_problem(90, 4, 1, num_kept=30),
    dense_problem(40, 2),
    dense_problem(33, 3, num_kept=5),
]
LIMITS = [
    Limits(variables=16),
    Limits(variables=24, degree=3),
    Limits(variables=200, chain_length=2),
    Limits(qubits=40, topology="pegasus"),
    Limits(variables=20, degree=0),
    Limits(),
]


@pytest.mark.parametrize("problem", PROBLEMS, ids=str)
@pytest.mark.parametrize("limits", LIMITS, ids=str)
@pytest.mark.parametrize("overlap", [0, 5])
def test_parts_and_boundary_have_the_energy_of_the_whole(problem, limits, overlap):
    found = decompose(problem, limits, seed=3, overlap=overlap)
    rng = np.random.default_rng(4)
    state = rng.random(problem.size) < 0.4
    for part in found.parts(state):
        np.testing.assert_allclose(part.problem.energy(state[part.variables]), problem.energy(state), rtol=1e-9, atol=1e-9)
        for _ in range(3):
            answer = rng.random(part.size) < 0.5
            whole = merge(state, part, answer)
            np.testing.assert_allclose(part.problem.energy(answer), problem.energy(whole), rtol=1e-9, atol=1e-9)
            outside = np.setdiff1d(np.arange(problem.size), part.variables)
            assert (whole[part.variables] == answer).all() and (whole[outside] == state[outside]).all()
        if problem.num_kept is not None:
            assert part.problem.num_kept == state[part.variables].sum()


@pytest.mark.parametrize("problem", PROBLEMS, ids=str)
@pytest.mark.parametrize("limits", LIMITS, ids=str)
@pytest.mark.parametrize("overlap", [0, 5])
def test_every_part_respects_every_limit(problem, limits, overlap):
    found = decompose(problem, limits, seed=5, overlap=overlap)
    homes = np.bincount(found.members, minlength=problem.size)
    assert (homes >= 1).all() and (overlap or (homes == 1).all())
    dense = problem.dense_couplings != 0
    for part in found.parts(np.zeros(problem.size)):
        own = dense[np.ix_(part.variables, part.variables)]
        chains = predict_chains(part.rows, part.columns, topology=limits.topology)
        assert limits.variables is None or part.size <= limits.variables
        assert limits.degree is None or own.sum(1).max() <= limits.degree
        if part.size > 1:
            assert limits.chain_length is None or chains.length <= limits.chain_length
            assert limits.qubits is None or chains.qubits <= limits.qubits


@pytest.mark.parametrize("overlap", [0, 4])
def test_parts_of_one_color_do_not_touch(overlap):
    problem = sparse_problem(300, 6, 6)
    found = decompose(problem, Limits(variables=20), seed=7, overlap=overlap)
    touches = problem.dense_couplings != 0
    assert sorted(np.concatenate(found.batches).tolist()) == list(range(len(found)))
    for batch in found.batches:
        members = [found.members[found.starts[part] : found.starts[part + 1]] for part in batch]
        for one in range(len(members)):
            for other in range(one):
                assert not set(members[one]) & set(members[other])
                assert not touches[np.ix_(members[one], members[other])].any()


def test_coupled_variables_stay_together():
    """Ten cliques, shuffled, with weak couplings between them: the parts are the cliques."""
    rng = np.random.default_rng(8)
    clique = rng.permutation(np.repeat(np.arange(10), 12))
    couplings = np.where(clique[:, None] == clique[None, :], 1.0, 0.01 * (rng.random((120, 120)) < 0.1))
    couplings = np.maximum(couplings, couplings.T)
    np.fill_diagonal(couplings, 0.0)
    found = decompose(Problem(np.zeros(120), couplings), Limits(variables=12), seed=0)
    assert len(found) == 10
    for part in found.parts(np.zeros(120)):
        assert len(set(clique[part.variables])) == 1


def test_the_same_seed_makes_the_same_parts():
    problem = sparse_problem(500, 8, 9)
    first, again, other = (decompose(problem, Limits(variables=32), seed=seed) for seed in (0, 0, 1))
    np.testing.assert_array_equal(first.members, again.members)
    np.testing.assert_array_equal(first.starts, again.starts)
    np.testing.assert_array_equal(first.colors, again.colors)
    assert other.members.shape != first.members.shape or (other.members != first.members).any()


@pytest.mark.parametrize("size", [0, 1, 2])
def test_small_and_disconnected(size):
    problem = Problem(np.arange(float(size)), np.zeros((size, size)))
    found = decompose(problem, PROFILES["parallel"], seed=0)
    assert len(found) == (size > 0)
    assert sum(part.size for part in found.parts(np.zeros(size))) == size
    apart = decompose(Problem(np.zeros(100), np.zeros((100, 100))), Limits(variables=30), seed=0)
    assert len(apart) == 4 and sorted(apart.members.tolist()) == list(range(100))


def test_two_components_can_share_a_part_and_zero_couplings_are_none():
    couplings = scipy.sparse.csr_array((np.array([1.0, 1.0, 0.0, 0.0]), (np.array([0, 1, 2, 3]), np.array([1, 0, 3, 2]))))
    found = decompose(Problem(np.zeros(4), couplings), Limits(variables=4, degree=1), seed=0)
    assert len(found) == 1 and found.part(0, np.zeros(4)).problem.num_couplings == 1


def test_exact_parts_never_raise_the_energy():
    problem = sparse_problem(60, 4, 10)
    state = np.random.default_rng(11).random(60) < 0.5
    energy = float(problem.energy(state))
    found = decompose(problem, Limits(variables=8), seed=12)
    for batch in found.batches:
        for part in found.chosen(batch, state):
            answers = np.array(list(product((0, 1), repeat=part.size)))
            state = merge(state, part, answers[part.problem.energy(answers).argmin()])
        assert problem.energy(state) <= energy + 1e-12
        energy = float(problem.energy(state))


def test_a_part_survives_a_file():
    problem = replace(sparse_problem(50, 4, 13), labels=tuple(f"layer:{number}" for number in range(50)))
    state = np.random.default_rng(14).random(50) < 0.5
    part = decompose(problem, Limits(variables=10), seed=0).part(2, state)
    bqm = part.problem.to_bqm()
    with bqm.to_file() as file:
        again = dimod.BinaryQuadraticModel.from_file(file)
    states = np.random.default_rng(15).integers(0, 2, (20, part.size))
    np.testing.assert_allclose(again.energies((states, part.labels)), part.problem.energy(states), rtol=1e-6)
    assert again == bqm


def test_ranges_become_a_scale():
    problem = dense_problem(12, 16)
    limits = Limits(coupler_range=(-0.1, 0.05), field_range=(-4.0, 4.0))
    ising = problem.to_bqm().change_vartype("SPIN", inplace=False)
    scale = scale_of(problem, limits)
    couplings, fields = np.array(list(ising.quadratic.values())) * scale, np.array(list(ising.linear.values())) * scale
    tight = [couplings.max() / 0.05, couplings.min() / -0.1, fields.max() / 4, fields.min() / -4]
    assert max(tight) == pytest.approx(1.0)
    assert scale_of(problem, Limits()) == 1.0


def test_limits_from_a_solver():
    properties = {"topology": {"type": "pegasus", "shape": [16]}, "qubits": list(range(5612)), "j_range": [-1.0, 1.0]}
    limits = limits_of(properties | {"extended_j_range": [-2.0, 1.0]}, chain_length=4)
    assert limits == Limits(30, None, 4, 5612, (-2.0, 1.0), None, "pegasus")
    with pytest.raises(ValueError, match="chimera"):
        limits_of({"topology": {"type": "chimera", "shape": [4, 4, 4]}})
    with pytest.raises(TypeError, match="properties"):
        limits_of(3)


def test_bad_input_is_named():
    problem = sparse_problem(20, 4, 17)
    with pytest.raises(ValueError, match="variables of Limits"):
        Limits(variables=0)
    with pytest.raises(ValueError, match="topology must be"):
        Limits(topology="chimera")
    with pytest.raises(ValueError, match="coupler_range"):
        Limits(coupler_range=(0.0, 1.0))
    with pytest.raises(TypeError, match="limits must be Limits"):
        decompose(problem, 24, seed=0)
    with pytest.raises(ValueError, match="overlap must be"):
        decompose(problem, Limits(variables=5), seed=0, overlap=5)
    found = decompose(problem, Limits(variables=5), seed=0)
    with pytest.raises(ValueError, match="20 variables"):
        found.part(0, np.zeros(19))
    with pytest.raises(ValueError, match="0 or 1"):
        found.part(0, np.full(20, 0.5))


@pytest.mark.parametrize("length", [0, -1])
def test_no_clique_has_chains_of_less_than_a_qubit(length):
    with pytest.raises(ValueError, match="chain_length must be at least 1"):
        largest_clique(length)
    assert largest_clique(1) == min(largest_clique(number) for number in range(1, 30))


@pytest.mark.parametrize("variety", [0.5, 40.0, 1e30])
def test_any_variety_makes_parts(variety):
    dense = Problem(np.zeros(60), np.ones((60, 60)) - np.eye(60))
    for seed in range(5):
        found = decompose(dense, Limits(variables=4), seed=seed, variety=variety)
        assert found.sizes.max() <= 4 and sorted(found.members.tolist()) == list(range(60))


@pytest.mark.parametrize("value", [np.inf, np.nan, 2.5, True, "4"])
@pytest.mark.parametrize("name", ["variables", "degree", "chain_length", "qubits"])
def test_limits_that_are_no_whole_numbers_are_named(name, value):
    with pytest.raises(TypeError, match=f"{name} of Limits must be a whole number"):
        Limits(**{name: value})
    assert Limits(**{name: np.int32(4)}) == Limits(**{name: 4})


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"overlap": 1.5}, "overlap must be a whole number"),
        ({"overlap": -1}, "overlap must be at least 0"),
        ({"seed": 0.5}, "seed must be a whole number"),
        ({"seed": -1}, "seed must be at least 0"),
        ({"variety": -1.0}, "variety is -1.0"),
        ({"variety": np.inf}, "variety is inf"),
    ],
)
def test_options_that_cannot_be_are_named(options, message):
    with pytest.raises((TypeError, ValueError), match=message):
        decompose(sparse_problem(20, 4, 17), Limits(variables=5), **({"seed": 0} | options))


@pytest.mark.parametrize("seed", [2**31, 2**63 - 3, 2**63, 2**70])
def test_seeds_of_any_size_make_parts(seed):
    problem = sparse_problem(60, 4, 17)
    found = [decompose(problem, Limits(variables=5), seed=seed, variety=variety) for variety in (0.0, 0.0, 0.5)]
    assert np.array_equal(found[0].members, found[1].members)
    assert all(sorted(parts.members.tolist()) == list(range(60)) for parts in found)
