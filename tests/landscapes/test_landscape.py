"""Landscapes: transforms, exact optima and the annealer, against enumeration."""

import dimod
import numpy as np
import pytest

from annealsubnet.landscapes import (
    Landscape,
    anneal,
    elimination_order,
    mobius,
    random_landscape,
    ring_windows,
    solve_ring,
    solve_tree,
    walsh,
    zeta,
)
from annealsubnet.landscapes.exact import LARGEST_BAG


def all_states(count):
    return (np.arange(2**count)[:, None] >> np.arange(count)) & 1


def test_mobius_is_the_polynomial_and_zeta_undoes_it():
    table = np.random.default_rng(0).normal(size=(3, 16))
    polynomial = mobius(table)
    bits = all_states(4)
    products = np.stack([bits[:, [i for i in range(4) if s >> i & 1]].prod(axis=1) for s in range(16)], axis=1)
    np.testing.assert_allclose(polynomial @ products.T, table)
    np.testing.assert_allclose(zeta(polynomial), table)


def test_walsh_keeps_the_sum_of_squares():
    table = np.random.default_rng(0).normal(size=32)
    np.testing.assert_allclose((walsh(table) ** 2).sum(), (table**2).mean())


@pytest.mark.parametrize(("count", "neighbors"), [(1, 0), (7, 0), (6, 1), (10, 3), (12, 4), (13, 6)])
def test_ring_and_tree_find_the_enumerated_optimum(count, neighbors):
    for seed in range(3):
        land = random_landscape(count, neighbors, seed=seed)
        least = land.energy(all_states(count)).min()
        for solve in (solve_ring, solve_tree):
            state, energy = solve(land)
            assert energy == pytest.approx(least) and land.energy(state) == pytest.approx(least)


def test_tree_solves_windows_of_random_neighbors():
    land = random_landscape(12, 2, seed=3, ring=False)
    assert solve_tree(land)[1] == pytest.approx(land.energy(all_states(12)).min())


def test_tree_and_ring_agree_where_nobody_can_enumerate():
    land = random_landscape(200, 5, seed=0)
    assert solve_tree(land)[1] == pytest.approx(solve_ring(land)[1])


def test_a_ring_too_wide_for_the_memory_is_refused_as_its_tree_is():
    land = random_landscape(LARGEST_BAG + 4, LARGEST_BAG // 2 + 1, seed=0)
    for solve in (solve_ring, solve_tree):
        with pytest.raises(ValueError, match=f"most {LARGEST_BAG} fit the memory. Use anneal"):
            solve(land)


def test_ring_width_is_twice_the_neighbors():
    order, width = elimination_order(ring_windows(40, 3).tolist(), 40)
    assert sorted(order) == list(range(40)) and width == 6


def test_annealer_meets_dynamic_programming():
    for seed in range(5):
        land = random_landscape(48, 4, seed=seed)
        assert anneal(land, seed=seed).energies.min() == pytest.approx(solve_ring(land)[1])


def test_annealer_is_the_same_for_any_number_of_threads():
    land = random_landscape(40, 4, seed=1)
    one, two = (anneal(land, seed=5, num_reads=6, num_sweeps=50, num_threads=threads) for threads in (1, 2))
    assert (one.states == two.states).all() and (one.energies == land.energy(one.states)).all()


def test_bqm_has_the_same_optimum():
    land = random_landscape(7, 3, seed=0)
    best = dimod.ExactSolver().sample(land.to_bqm()).first
    assert best.energy == pytest.approx(solve_tree(land)[1])


def test_bqm_keeps_the_optimum_where_many_products_share_a_pair():
    # 0 and 1 together gain 1 from each of seven others, and cost more than that through eight: 0 and 1 stay 0.
    windows = [(0, 1, other) for other in range(2, 17)]
    table = np.zeros((15, 8))
    table[:7, 7] = -1.0
    table[7:] = zeta(np.array([0, 0, 0, 0, -1.0, 0.9, 0.9, 0.0]))
    land = Landscape(np.array(windows), table, 17)
    bqm = land.to_bqm()
    energies = bqm.energies((all_states(len(bqm.variables)).astype(np.int8), list(bqm.variables)))
    assert energies.min() == pytest.approx(land.energy(all_states(17)).min())


def test_a_landscape_without_windows_is_a_bqm_too():
    bqm = Landscape(np.zeros((0, 3), int), np.zeros((0, 8)), 4).to_bqm()
    assert list(bqm.variables) == [0, 1, 2, 3] and not bqm.quadratic and not any(bqm.linear.values())


def test_bad_landscapes_are_refused():
    with pytest.raises(ValueError, match="need tables"):
        Landscape(np.array([[0, 1]]), np.zeros((1, 3)), 2)
    with pytest.raises(ValueError, match="twice"):
        Landscape(np.array([[0, 0]]), np.zeros((1, 4)), 2)
    with pytest.raises(ValueError, match="NaN"):
        Landscape(np.array([[0, 1]]), np.full((1, 4), np.nan), 2)
    with pytest.raises(ValueError, match="solve_tree"):
        solve_ring(random_landscape(8, 2, seed=0, ring=False))
    with pytest.raises(ValueError, match="num_neighbors"):
        ring_windows(3, 3)


@pytest.mark.parametrize(("state", "message"), [([-1, 1, 1], "there is -1"), ([0, 1], "an axis of 3 variables"), (0, "axis")])
def test_what_is_no_state_has_no_energy(state, message):
    with pytest.raises(ValueError, match=message):
        random_landscape(3, 1, seed=0).energy(np.array(state))
