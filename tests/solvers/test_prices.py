"""Prices that meet a count: on the hull of the least energies by count, found in a handful of calls."""

import itertools

import dimod
import numpy as np
import pytest

from annealsubnet.problems import Problem
from annealsubnet.solvers import solve
from annealsubnet.solvers.prices import lower_hull, next_price


def least_energies(problem):
    states = np.array(list(itertools.product((0, 1), repeat=problem.size)))
    energies, counts = problem.energy(states), states.sum(axis=1)
    return {count: float(energies[counts == count].min()) for count in range(problem.size + 1)}


def random_problem(size, seed):
    rng = np.random.default_rng(seed)
    upper = np.triu(rng.normal(size=(size, size)), 1)
    return Problem(rng.normal(size=size), upper + upper.T)


@pytest.mark.parametrize("seed", range(8))
def test_the_price_reached_has_the_greatest_dual_bound(seed):
    problem = random_problem(11, seed)
    least = least_energies(problem)
    for wanted in range(12):
        solution = solve(problem, dimod.ExactSolver(), num_kept=wanted, seed=0)
        price = solution.info["price"]
        bound = min(energy + price * (count - wanted) for count, energy in least.items())
        corners = lower_hull(range(12), least)
        hull = float(np.interp(wanted, corners, [least[count] for count in corners]))
        assert bound == pytest.approx(hull, abs=1e-9)
        assert solution.calls <= 7


@pytest.mark.parametrize("size", [20, 200])
def test_calls_grow_with_the_logarithm_of_the_size(size):
    rng = np.random.default_rng(size)
    problem = Problem(rng.normal(size=size), np.zeros((size, size)))
    for wanted in rng.integers(1, size, size=6):
        solution = solve(problem, Minimum(), num_kept=int(wanted), seed=0)
        np.testing.assert_array_equal(np.flatnonzero(solution.best), np.sort(np.argsort(problem.linear)[:wanted]))
        assert solution.calls <= np.log2(size) + 1


class Minimum(dimod.Sampler):
    """The lowest state of variables without couplings."""

    @property
    def parameters(self):
        return {}

    @property
    def properties(self):
        return {}

    def sample(self, bqm):
        state = {variable: int(bias < 0) for variable, bias in bqm.linear.items()}
        return dimod.SampleSet.from_samples_bqm(state, bqm)


def test_the_hull_leaves_out_what_lies_above_or_on_an_edge():
    assert lower_hull(range(5), [0.0, 1.0, -2.0, -3.0, -4.0]) == [0, 4]
    assert next_price({0: 0.0, 2: -4.0, 4: -6.0}, 2) == 1.5
