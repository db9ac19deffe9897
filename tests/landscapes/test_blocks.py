"""Blocks of variables drawn at once: against enumeration, and what they find against dynamic programming."""

import numpy as np
import pytest
from scipy.stats import chisquare

from annealsubnet.landscapes import Landscape, anneal, random_landscape, solve_ring, solve_tree
from annealsubnet.landscapes.blocks import grow_blocks


def all_states(count):
    return (np.arange(2**count)[:, None] >> np.arange(count)) & 1


@pytest.mark.parametrize(("moves", "size", "width"), [("blocks", 3, 2), ("blocks", 5, 6), ("blocks", 6, 3), ("flips", 1, 0)])
@pytest.mark.parametrize("ring", [True, False])
def test_every_block_size_draws_from_the_boltzmann_distribution(moves, size, width, ring):
    """Chi-square of last states of independent reads against the enumerated distribution at a fixed temperature."""
    land, temperature = random_landscape(6, 2, seed=1, ring=ring), 0.5
    options = {"block_size": size, "width": width, "num_sweeps": 30, "temperatures": (temperature, temperature)}
    found = anneal(land, moves=moves, num_reads=20_000, state="last", seed=0, num_threads=1, **options)
    weights = np.exp(-land.energy(all_states(6)) / temperature)
    counts = np.bincount(found.states @ (1 << np.arange(6)), minlength=64)
    assert chisquare(counts, 20_000 * weights / weights.sum()).pvalue > 1e-3


@pytest.mark.parametrize(("moves", "size", "count"), [("blocks", 1, 2), ("blocks", 1, 8), ("blocks", 32, 64), ("flips", 1, 8)])
def test_what_is_drawn_does_not_decide_what_is_drawn_next(moves, size, count):
    """Where all states are alike, every variable is one in half of the reads, and any two are alike in half of them."""
    land = Landscape(np.arange(count)[:, None], np.zeros((count, 2)), count)
    options = {"block_size": size, "num_sweeps": 10, "temperatures": (1.0, 1.0), "num_threads": 1}
    spins = 2 * anneal(land, moves=moves, num_reads=20_000, state="last", seed=0, **options).states.astype(float) - 1
    pairs = np.abs(spins.T @ spins - 20_000 * np.eye(count)) / 20_000**0.5
    assert np.abs(spins.sum(0)).max() / 20_000**0.5 < 4.5 and pairs.max() < 5


def test_a_block_of_everything_is_an_exact_optimum_in_one_move():
    for seed in range(3):
        land = random_landscape(12, 3, seed=seed, ring=False)
        for cold in ((0, 0), [0, 0], np.zeros(2)):
            found = anneal(land, block_size=12, width=12, temperatures=cold, num_reads=1, num_sweeps=1, seed=0)
            assert found.energies[0] == pytest.approx(solve_tree(land)[1])


@pytest.mark.parametrize("ring", [True, False])
def test_blocks_respect_size_and_width_and_cover_everything(ring):
    land = random_landscape(60, 4, seed=0, ring=ring)
    blocks = grow_blocks(land, size=12, width=5, cover=3, seed=0)
    members = [blocks.of(number) for number in range(len(blocks.starts) - 1)]
    assert all(len(set(block.tolist())) == len(block) <= 12 for block in members)
    assert np.bincount(np.concatenate(members), minlength=60).min() >= 3
    assert np.diff(blocks.bags).max() == blocks.width <= 5
    if ring:
        gaps = [np.diff(np.sort(block)) for block in members]
        assert all(((gap == 1) | (gap == 60 - len(block) + 1)).all() for gap, block in zip(gaps, members, strict=True))


def test_blocks_find_the_optimum_where_flips_do_not():
    for seed in range(3):
        land = random_landscape(128, 6, seed=seed)
        least = solve_ring(land)[1]
        assert anneal(land, seed=seed).energies.min() == pytest.approx(least)
        assert anneal(land, moves="flips", num_sweeps=500, seed=seed).energies.min() > least + 1e-9


def test_random_windows_meet_the_tree_decomposition():
    for seed in range(3):
        land = random_landscape(32, 2, seed=seed, ring=False)
        assert anneal(land, seed=seed).energies.min() == pytest.approx(solve_tree(land)[1])


@pytest.mark.parametrize("moves", ["blocks", "flips"])
@pytest.mark.parametrize("temperatures", [None, (0, 0), (1.0, 0.01)])
def test_tables_times_a_power_of_two_have_the_same_states(moves, temperatures):
    land = random_landscape(40, 4, seed=0)
    options = {"moves": moves, "num_reads": 4, "num_sweeps": 30, "seed": 0}
    found = anneal(land, temperatures=temperatures, **options)
    for exponent in (-960, -60, -40, -1, 1, 40, 960):
        scaled = Landscape(land.windows, np.ldexp(land.tables, exponent), 40)
        same = None if temperatures is None else tuple(np.ldexp(temperatures, exponent))
        again = anneal(scaled, temperatures=same, **options)
        assert (again.states == found.states).all() and (again.energies == np.ldexp(found.energies, exponent)).all()


def test_tables_plus_constants_have_the_same_states():
    land = random_landscape(40, 4, seed=0)
    tables = np.round(land.tables * 2**20)
    offsets = np.arange(40)[:, None] * 2.0**32
    states = [anneal(Landscape(land.windows, table, 40), num_reads=4, seed=0).states for table in (tables, tables + offsets)]
    assert (states[0] == states[1]).all()


def test_a_landscape_without_windows_or_variables_is_fine():
    loose = Landscape(np.zeros((0, 2), int), np.zeros((0, 4)), 3)
    assert anneal(loose, seed=0, num_reads=2).energies.tolist() == [0.0, 0.0]
    flat = Landscape(np.array([[0, 1]]), np.full((1, 4), 3.0), 2)
    assert anneal(flat, seed=0, num_reads=2).energies.tolist() == [3.0, 3.0]


def test_bad_options_are_refused():
    land = random_landscape(8, 2, seed=0)
    for options, match in (
        ({"moves": "swaps"}, "moves"), ({"state": "first"}, "state"), ({"num_reads": 0}, "num_reads"),
        ({"temperatures": (0.1, 0.2)}, "temperatures"), ({"temperatures": (1.0, 0.0)}, "temperatures"),
        ({"block_size": 0}, "size"), ({"width": -1}, "width"),
    ):  # fmt: skip
        with pytest.raises(ValueError, match=match):
            anneal(land, seed=0, **options)
