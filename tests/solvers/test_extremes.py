"""Biases of any finite size, far apart or with a large mean: solved, or refused by name, and never silently wrong."""

import logging

import dimod
import numpy as np
import pytest

from annealsubnet.decompose import Limits, solve_by_parts
from annealsubnet.problems import Problem
from annealsubnet.solvers import Annealer, solve
from annealsubnet.solvers.schedules import default_beta_range


def random_problem(size, seed, factor=1.0, num_kept=None):
    rng = np.random.default_rng(seed)
    upper = np.triu(rng.normal(size=(size, size)), 1)
    return Problem(factor * rng.normal(size=size), factor * (upper + upper.T), num_kept=num_kept)


@pytest.mark.parametrize("mean", [1e8, -1e12])
def test_a_large_mean_of_linear_biases_hides_nothing_where_the_count_is_fixed(mean):
    rng = np.random.default_rng(0)
    # Multiples of 2⁻¹⁰, so that sums with the mean are exact.
    values = np.round(rng.normal(size=30) * 1024) / 1024
    problem = Problem(mean + values, np.zeros((30, 30)), num_kept=5)
    best = np.sort(values)[:5].sum()
    assert solve(problem, seed=0).energies[0] - 5 * mean == best
    many = Annealer().sample_many(problem.linear[None], problem.couplings[None], num_kept=5, seed=0)
    assert many.energies[0, 0] - 5 * mean == best
    groups = [(range(10), 2), (range(10, 20), 3)]
    shifted = dimod.BinaryQuadraticModel(dict(enumerate(values + mean * (np.arange(30) < 20))), {}, 0.0, "BINARY")
    found = Annealer().sample(shifted, groups=groups, seed=0).first.energy
    assert (
        found - 5 * mean == sum(np.sort(values[:10])[:2]) + sum(np.sort(values[10:20])[:3]) + values[20:][values[20:] < 0].sum()
    )


def test_coarse_biases_are_told_once_a_call_and_ordinary_ones_not(caplog):
    coarse = dimod.BinaryQuadraticModel({"a": 1e9, "b": -1e9}, {("a", "b"): 1.0}, 0.0, "BINARY")
    with caplog.at_level(logging.WARNING):
        Annealer().sample(coarse, seed=0)
    assert len(caplog.records) == 1 and "float32" in caplog.text
    caplog.clear()
    with caplog.at_level(logging.WARNING):
        for size in (1, 2, 40, 300):
            solve(random_problem(size, size), seed=0, num_sweeps=1)
            solve(random_problem(size, size, num_kept=size // 2), seed=0, num_sweeps=1)
        Annealer().sample(dimod.BinaryQuadraticModel({}, {(i, i + 1): -1.0 for i in range(500)}, 0.0, "SPIN"), num_sweeps=1)
    assert not caplog.records


@pytest.mark.parametrize("sparse", [False, True])
def test_the_default_range_scales_with_the_energy(sparse):
    problem = random_problem(60, 1)
    couplings = problem.couplings * (np.add.outer(range(60), range(60)) % 29 == 0) if sparse else problem.couplings
    couplings = Problem(problem.linear, couplings).to_bqm()
    for kept_share in (None, 0.3):
        reference = default_beta_range(problem.linear, problem.couplings, kept_share=kept_share)
        for power in (-980, -600, -400, 400, 600, 980):
            factor = 2.0**power
            scaled = default_beta_range(problem.linear * factor, problem.couplings * factor, kept_share=kept_share)
            assert scaled == pytest.approx(np.array(reference) / factor, rel=1e-12)
    reference = Annealer().sample(couplings, num_reads=4, num_sweeps=50, seed=0).record.sample
    for power in (-980, 520, 980):
        scaled = couplings.copy()
        scaled.scale(2.0**power)
        np.testing.assert_array_equal(Annealer().sample(scaled, num_reads=4, num_sweeps=50, seed=0).record.sample, reference)


def test_energies_that_overflow_are_refused_and_only_those():
    huge = {"a": 1e308, "b": -1e308, "c": 1e308}
    bqm = dimod.BinaryQuadraticModel(huge, {("a", "b"): -1e308, ("b", "c"): 1e308}, 0.0, "SPIN")
    with pytest.raises(ValueError, match="energies of the model overflow"):
        Annealer().sample(bqm, seed=0)
    with pytest.raises(ValueError, match="energies of the problems may overflow"):
        Annealer().sample_many(np.full((1, 4), 1e308), np.zeros((1, 4, 4)), seed=0)
    tiny = dimod.BinaryQuadraticModel({"a": -1e-310, "b": 2e-310}, {("a", "b"): -3e-310}, 0.0, "BINARY")
    assert Annealer().sample(tiny, seed=0).first.energy == pytest.approx(-2e-310)
    alone = dimod.BinaryQuadraticModel({"a": 1e308, "b": -1e307}, {}, 0.0, "BINARY")
    assert Annealer().sample(alone, seed=0).first.energy == -1e307


@pytest.mark.parametrize("vartype", ["BINARY", "SPIN"])
def test_an_empty_problem_keeps_nothing(vartype):
    empty = dimod.BinaryQuadraticModel({}, {}, 1.5, vartype)
    assert Annealer().sample(empty, num_kept=0, seed=0).first.energy == 1.5
    assert solve(empty, num_kept=0, seed=0).energies.tolist() == [1.5]
    problem = Problem(np.zeros(0), np.zeros((0, 0)), offset=1.5, num_kept=0)
    assert solve(problem, seed=0).energies.tolist() == [1.5]
    assert solve_by_parts(problem, Limits(variables=4), seed=0).energy == 1.5
