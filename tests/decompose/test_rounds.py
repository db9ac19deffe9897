"""Laws of rounds, contested variables and prices: the energy never rises, counts are met, answers are those of enumeration."""

from itertools import product

import dimod
import numpy as np
import pytest
import scipy.sparse

from annealsubnet.decompose import Limits, contested, decompose, merge, priced, solve_by_parts, solve_by_price, summarize
from annealsubnet.problems import Problem
from annealsubnet.solvers import Annealer, solve


def random_problem(size, seed, *, num_kept=None, share=1.0):
    rng = np.random.default_rng(seed)
    upper = np.triu(rng.normal(size=(size, size)) * (rng.random((size, size)) < share), 1)
    couplings = upper + upper.T
    return Problem(rng.normal(size=size), scipy.sparse.csr_array(couplings) if share < 1 else couplings, 0.3, num_kept)


def enumerated(problem):
    states = np.array(list(product((0, 1), repeat=problem.size)), np.int8)
    if problem.num_kept is not None:
        states = states[states.sum(1) == problem.num_kept]
    energies = problem.energy(states)
    return states[energies.argmin()].astype(bool), float(energies.min())


@pytest.mark.parametrize("num_kept", [None, 40])
@pytest.mark.parametrize("overlap", [0, 4])
@pytest.mark.parametrize("share", [0.04, 1.0])
def test_the_energy_never_rises_and_the_count_stays(num_kept, overlap, share):
    problem = random_problem(120, 0, num_kept=num_kept, share=share)
    found = solve_by_parts(problem, Limits(variables=20), seed=1, rounds=6, overlap=overlap)
    assert all(later <= earlier + 1e-9 for earlier, later in zip(found.energies, found.energies[1:], strict=False))
    assert found.energy == pytest.approx(float(problem.energy(found.state))) == pytest.approx(found.energies[-1])
    if num_kept is not None:
        assert found.state.sum() == num_kept
    again = solve_by_parts(problem, Limits(variables=20), seed=1, rounds=6, overlap=overlap)
    np.testing.assert_array_equal(again.state, found.state)


@pytest.mark.parametrize("num_kept", [None, 5])
def test_one_part_is_the_whole(num_kept):
    problem = random_problem(12, 2, num_kept=num_kept)
    found = solve_by_parts(problem, Limits(), seed=0)
    assert found.energy == pytest.approx(enumerated(problem)[1])


def test_any_sampler_solves_parts():
    problem = random_problem(40, 3, share=0.1)
    found = solve_by_parts(problem, Limits(variables=8), dimod.ExactSolver(), seed=0, rounds=3)
    assert found.energy <= problem.energy(np.zeros(40))
    with pytest.raises(TypeError, match="no option 'num_reads'"):
        solve_by_parts(problem, Limits(variables=8), dimod.ExactSolver(), seed=0, num_reads=3)


def test_a_given_state_is_where_it_starts():
    problem = random_problem(30, 4, num_kept=10)
    best = Annealer().sample(problem.to_bqm(), num_kept=10, num_reads=20, seed=0).first
    state = np.array([best.sample[name] for name in problem.names])
    found = solve_by_parts(problem, Limits(variables=10), seed=0, state=state, rounds=2)
    assert found.energies[0] == pytest.approx(best.energy)
    with pytest.raises(ValueError, match="keeps 0 units"):
        solve_by_parts(problem, Limits(variables=10), seed=0, state=np.zeros(30))


def test_rounds_on_nothing():
    assert solve_by_parts(Problem(np.zeros(0), np.zeros((0, 0)), 2.0), Limits(), seed=0).energy == 2.0


def test_contested_variables_are_the_free_ones():
    """Strong fields decide the first forty; twenty pairs that must differ are open."""
    linear = np.concatenate([np.where(np.arange(40) % 2, 5.0, -5.0), np.full(40, -1.0)])
    couplings = np.zeros((80, 80))
    couplings[range(40, 60), range(60, 80)] = 2.0
    problem = Problem(linear, couplings + couplings.T)
    limits = Limits(variables=8)
    found = contested(problem, limits, seed=0)
    assert sorted(found.decomposition.members.tolist()) == list(range(40, 80))
    assert (found.marginals[:40] == (linear[:40] < 0)).all() and (found.entropy[40:] > 0.8).all()
    for part in found.parts:
        assert part.size <= 8
        assert part.problem.energy(found.state[part.variables]) == pytest.approx(found.energy)
        answer, energy = enumerated(part.problem)
        assert problem.energy(merge(found.state, part, answer)) == pytest.approx(energy) and energy <= found.energy + 1e-9
    again = contested(problem, limits, seed=0)
    np.testing.assert_array_equal(again.decomposition.members, found.decomposition.members)


@pytest.mark.parametrize("limits", [Limits(variables=6), Limits(degree=2), Limits(chain_length=1)], ids=str)
def test_parts_of_contested_variables_respect_limits(limits):
    problem = random_problem(60, 5, share=0.2)
    found = contested(problem, limits, seed=0, least_entropy=0.0)
    rows = summarize(found.decomposition).rows
    assert rows
    for row in rows:
        assert limits.variables is None or row.variables <= limits.variables
        assert limits.degree is None or row.degree <= limits.degree
        assert limits.chain_length is None or row.chain_length <= 1 or row.variables == 1


def test_nothing_contested():
    decided = Problem(np.array([-5.0, 5.0]), np.zeros((2, 2)))
    found = contested(decided, Limits(), seed=0)
    assert found.parts == () and found.energy == -5.0
    assert contested(Problem(np.zeros(0), np.zeros((0, 0))), Limits(), seed=0).parts == ()
    with pytest.raises(ValueError, match="least_entropy"):
        contested(decided, Limits(), seed=0, least_entropy=2.0)


def by_annealing(problems):
    return [solve(problem, seed=0, num_reads=8, num_sweeps=50).states for problem in problems]


@pytest.mark.parametrize("num_kept", [0, 1, 5, 11, 12])
def test_the_price_meets_the_count(num_kept):
    problem = random_problem(12, 6, num_kept=num_kept)
    found = solve_by_price(problem, by_annealing, seed=0)
    assert found.state.sum() == num_kept
    assert found.energy == pytest.approx(float(problem.energy(found.state)))
    if num_kept in (0, 1, 5, 12):
        assert found.energy == pytest.approx(enumerated(problem)[1])


def test_the_price_repairs_a_bad_sampler():
    """A sampler that returns all or nothing, whatever it is asked: repair and exchanges do the rest."""
    problem = random_problem(20, 7, num_kept=7)
    found = solve_by_price(problem, lambda problems: [np.array([[0] * 20, [1] * 20])] * len(problems), seed=0)
    assert found.state.sum() == 7 and not found.exact and len(found.counts) == 4
    with pytest.raises(ValueError, match="states of 20 units"):
        solve_by_price(problem, lambda problems: [np.zeros(20)] * len(problems), seed=0)
    with pytest.raises(ValueError, match="num_kept"):
        solve_by_price(random_problem(4, 0), by_annealing, seed=0)


def test_a_price_changes_linear_terms_only():
    problem = random_problem(10, 8, num_kept=3)
    states = np.random.default_rng(9).integers(0, 2, (20, 10))
    np.testing.assert_allclose(priced(problem, 0.7).energy(states), problem.energy(states) + 0.7 * states.sum(1))


def test_the_summary_counts_coupling_once():
    problem = random_problem(50, 10, share=0.2)
    whole = summarize(decompose(problem, Limits(), seed=0))
    assert whole.share_inside == pytest.approx(1.0) and len(whole.rows) == 1
    for overlap in (0, 3):
        found = decompose(problem, Limits(variables=10), seed=0, overlap=overlap)
        inside = np.zeros((50, 50), bool)
        for part in found.parts(np.zeros(50)):
            inside[np.ix_(part.variables, part.variables)] = True
        strengths = np.abs(problem.dense_couplings)
        assert summarize(found).share_inside == pytest.approx(strengths[inside].sum() / strengths.sum())
    rows = summarize(decompose(problem, Limits(variables=10, coupler_range=(-0.1, 0.1)), seed=0), {0: (3, 25)}).rows
    assert (rows[0].found_chain_length, rows[0].found_qubits) == (3, 25) and 0 < rows[0].scale < 1


@pytest.mark.parametrize("num_kept", [None, 30])
def test_restarts_only_help(num_kept):
    problem = random_problem(80, 11, num_kept=num_kept)
    once = solve_by_parts(problem, Limits(variables=12), seed=0)
    often = solve_by_parts(problem, Limits(variables=12), seed=0, restarts=4)
    assert often.energy <= once.energy and (num_kept is None or often.state.sum() == num_kept)
    assert often.energy == often.energies[-1] == pytest.approx(float(problem.energy(often.state)))
    assert often.energies[: len(once.energies)] == once.energies
    assert all(later <= earlier for earlier, later in zip(often.energies, often.energies[1:], strict=False))
    short = solve_by_parts(problem, Limits(variables=12), seed=0, restarts=10**6, time_limit=0.0)
    assert len(short.energies) == 2


def test_seeds_of_any_size_solve_by_parts():
    problem = random_problem(40, 0)
    for seed in (2**63 - 3, 2**70):
        found = solve_by_parts(problem, Limits(variables=8), seed=seed, rounds=4, restarts=1)
        assert found.energy == pytest.approx(float(problem.energy(found.state))) and found.energy < 0
    for options in ({"seed": 0.5}, {"rounds": 2.5}, {"restarts": -1}, {"patience": "3"}):
        with pytest.raises((TypeError, ValueError), match=f"{next(iter(options))} must be"):
            solve_by_parts(problem, Limits(variables=8), **({"seed": 0} | options))
