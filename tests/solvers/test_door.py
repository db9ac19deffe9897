"""Any dimod sampler, with exact counts, through one door."""

import itertools

import dimod
import numpy as np
import pytest
from dwave import samplers

from annealsubnet.problems import Problem
from annealsubnet.solvers import Annealer, solve


def random_problem(size, seed, **options):
    rng = np.random.default_rng(seed)
    upper = np.triu(rng.normal(size=(size, size)), 1)
    return Problem(rng.normal(size=size), upper + upper.T, **options)


def lowest(problem, num_kept):
    states = np.array(list(itertools.product((0, 1), repeat=problem.size)))
    states = states[states.sum(axis=1) == num_kept]
    return problem.energy(states).min()


SAMPLERS = [
    (None, {}),
    (Annealer(), {"num_reads": 8, "num_sweeps": 100}),
    (samplers.SimulatedAnnealingSampler(), {"num_reads": 8, "num_sweeps": 100}),
    (samplers.TabuSampler(), {"timeout": 10}),
    (samplers.TreeDecompositionSolver(), {}),
    (dimod.ExactSolver(), {}),
]


@pytest.mark.parametrize(("sampler", "options"), SAMPLERS, ids=lambda value: type(value).__name__)
@pytest.mark.parametrize("num_kept", [0, 1, 4, 10])
def test_every_sampler_keeps_the_count_and_finds_the_optimum(sampler, options, num_kept):
    problem = random_problem(10, 3)
    solution = solve(problem, sampler, num_kept=num_kept, seed=0, **options)
    assert (solution.states.sum(axis=1) == num_kept).all()
    np.testing.assert_allclose(solution.energies, problem.energy(solution.states))
    assert (np.diff(solution.energies) >= 0).all()
    assert len(np.unique(solution.states, axis=0)) == len(solution.states)
    assert solution.energies[0] == pytest.approx(lowest(problem, num_kept), abs=1e-9)


def test_a_price_meets_a_count_that_is_on_the_convex_hull():
    values = np.arange(1.0, 21.0)
    solution = solve(Problem(-values, np.zeros((20, 20))), samplers.SimulatedAnnealingSampler(), num_kept=7, seed=0)
    assert 13.0 < solution.info["price"] < 14.0
    np.testing.assert_array_equal(solution.best, values > 13)


def test_without_a_count_the_sampler_is_asked_once():
    problem = random_problem(10, 4)
    solution = solve(problem, samplers.SimulatedAnnealingSampler(), seed=1, num_reads=20)
    assert solution.calls == 1
    assert solution.energies[0] == pytest.approx(dimod.ExactSolver().sample(problem.to_bqm()).first.energy)


def test_the_problem_brings_its_count_and_spins_count_up():
    problem = random_problem(9, 5, num_kept=3)
    spins = problem.to_bqm().change_vartype("SPIN", inplace=False)
    expected = lowest(problem, 3)
    for sampler in (Annealer(), samplers.SimulatedAnnealingSampler()):
        assert solve(problem, sampler, seed=0).energies[0] == pytest.approx(expected)
        assert solve(spins, sampler, num_kept=3, seed=0).energies[0] == pytest.approx(expected)


def test_misspelled_options_are_named():
    problem = random_problem(4, 0)
    with pytest.raises(TypeError, match=r"SimulatedAnnealingSampler has no option 'num_sweep'; it has .*num_sweeps"):
        solve(problem, samplers.SimulatedAnnealingSampler(), seed=0, num_sweep=3)
    with pytest.raises(TypeError, match="Annealer has no option 'sweeps'"):
        solve(problem, seed=0, sweeps=3)
    with pytest.raises(ValueError, match="num_kept must be from 0 to the 4"):
        solve(problem, seed=0, num_kept=5)


def test_same_seed_same_answer():
    problem = random_problem(40, 6, num_kept=10)
    for sampler in (Annealer(), samplers.SimulatedAnnealingSampler()):
        first, second = (solve(problem, sampler, seed=7, num_reads=3, num_sweeps=20) for _ in range(2))
        np.testing.assert_array_equal(first.states, second.states)


def test_an_empty_problem_has_one_state():
    solution = solve(Problem(np.zeros(0), np.zeros((0, 0)), offset=2.5), seed=0)
    assert solution.states.shape == (1, 0)
    assert solution.energies.tolist() == [2.5]
