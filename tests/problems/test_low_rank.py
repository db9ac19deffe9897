"""The low-rank energy: equal to its definition and to its parts; exchanges keep counts and find the optimum of small ones."""

from itertools import combinations

import numpy as np
import pytest

from annealsubnet.problems import LowRankProblem
from annealsubnet.solvers.low_rank import exchange_weights


def problem(seed, size=14, rows=6, **options):
    rng = np.random.default_rng(seed)
    return LowRankProblem(rng.normal(size=(size, rows)), rng.normal(size=rows), rng.random(size), **options)


def test_energy_is_its_definition():
    found = problem(0)
    for state in np.random.default_rng(1).random((20, 14)) < 0.5:
        y = found.residual - sum((found.factor[i] for i in range(14) if not state[i]), np.zeros(6))
        assert found.energy(state) == pytest.approx(0.5 * y @ y + found.cost[~state].sum(), rel=1e-6)


def test_a_part_is_the_whole_with_the_others_held():
    found = problem(1)
    rng = np.random.default_rng(2)
    state, weights = rng.random(14) < 0.5, rng.permutation(14)[:6]
    part = found.part(weights, state, num_kept=3)
    for inside in rng.random((16, 6)) < 0.5:
        whole = state.copy()
        whole[weights] = inside
        assert part.energy(inside) == pytest.approx(float(found.energy(whole)), rel=1e-5)


@pytest.mark.parametrize("seed", range(6))
def test_annealed_exchanges_find_the_optimum(seed):
    found = problem(seed)
    start = np.arange(14) < 7
    best = min(float(found.energy(np.isin(np.arange(14), chosen))) for chosen in combinations(range(14), 7))
    drawn = [exchange_weights(found, start, seed=number, num_sweeps=200) for number in range(4)]
    assert min(each.energy for each in drawn) == pytest.approx(best, rel=1e-5)
    assert all(each.energy == pytest.approx(float(found.energy(each.state)), rel=1e-9) for each in drawn)


@pytest.mark.parametrize("num_sweeps", [0, 20])
def test_every_group_keeps_its_count(num_sweeps):
    group = np.repeat([0, 1, 2], [20, 30, 10])
    found = problem(3, size=60, rows=20, group=group)
    start = np.random.default_rng(0).random(60) < 0.4
    drawn = exchange_weights(found, start, seed=0, num_sweeps=num_sweeps)
    for each in range(3):
        assert drawn.state[group == each].sum() == start[group == each].sum()
    assert drawn.energy < found.energy(start)
    again = exchange_weights(found, start, seed=0, num_sweeps=num_sweeps)
    np.testing.assert_array_equal(again.state, drawn.state)


@pytest.mark.parametrize("state", [np.ones(14, bool), np.zeros(14, bool)])
def test_nothing_to_exchange(state):
    drawn = exchange_weights(problem(0), state, seed=0)
    np.testing.assert_array_equal(drawn.state, state)


def test_what_does_not_fit_is_refused():
    with pytest.raises(ValueError, match="factor"):
        LowRankProblem(np.zeros((3, 2)), np.zeros(3), np.zeros(3))
    with pytest.raises(ValueError, match="finite"):
        LowRankProblem(np.full((3, 2), np.nan), np.zeros(2), np.zeros(3))
    with pytest.raises(ValueError, match="start"):
        exchange_weights(problem(0), np.ones(3, bool), seed=0)


def test_arrays_that_are_given_stay_as_they_are():
    given = np.ones((3, 2), np.float32), np.zeros(2, np.float32), np.zeros(3), np.zeros(3, np.int64)
    found = LowRankProblem(*given)
    for name, array in zip(("factor", "residual", "cost", "group"), given, strict=True):
        assert array.flags.writeable and np.shares_memory(getattr(found, name), array)
        with pytest.raises(ValueError, match="read-only"):
            getattr(found, name)[0] = 1
