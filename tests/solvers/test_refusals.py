"""What solvers cannot do is refused by name, before anything runs; what they can is taken in every form."""

import dimod
import numpy as np
import pytest

from annealsubnet.decompose.price import solve_by_price
from annealsubnet.problems import Problem
from annealsubnet.solvers import Annealer, annealing, compiled, solve
from annealsubnet.solvers.options import Options
from annealsubnet.solvers.select_refit import error_curves, select_inputs, select_units, unit_curve

BQM = dimod.BinaryQuadraticModel({"a": -1.0, "b": 2.0, "c": -3.0}, {("a", "b"): 1.0, ("b", "c"): -2.0}, 0.0, "BINARY")
PROBLEM = Problem(np.array([-3.0, -2.0, -1.0]), np.zeros((3, 3)), num_kept=2)


@pytest.mark.parametrize("count", [1.5, 1.0, True, "1"])
def test_counts_are_whole_numbers(count):
    for call in (
        lambda: Annealer().sample(BQM, groups=[(["a", "b"], count)], seed=0),
        lambda: Annealer().sample(BQM, num_kept=count, seed=0),
        lambda: solve(BQM, seed=0, num_kept=count),
        lambda: solve(BQM, dimod.ExactSolver(), seed=0, num_kept=count),
    ):
        with pytest.raises(TypeError, match=r"(count of group 0|num_kept) must be a whole number; it is"):
            call()


def test_seeds_below_zero_are_taken_where_they_are_not_numpys():
    np.testing.assert_array_equal(solve(PROBLEM, seed=-1).states, solve(PROBLEM, seed=2**31 - 1).states)
    for call in (
        lambda: Annealer().sample(BQM, seed=-1),
        lambda: Annealer().sample_many(np.zeros((1, 2)), [np.eye(2)], seed=-1),
    ):
        with pytest.raises(ValueError, match="seed must be at least 0; it is -1"):
            call()


@pytest.mark.parametrize("option", [{"time_limit": 1.0}, {"interrupt_function": lambda: False}])
def test_an_accelerator_has_no_early_stop(option, monkeypatch):
    name = next(iter(option))
    with pytest.raises(ValueError, match=f'backend "jax" has no {name}'):
        Annealer().sample(BQM, backend="jax", seed=0, **option)
    jax = pytest.importorskip("jax")
    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
    energy, wide = compiled.energy_of(BQM), {"num_reads": 10**7, "num_sweeps": 1000}
    assert annealing._on_device(energy, Options(**wide))
    assert not annealing._on_device(energy, Options(**wide, **option))


def test_a_sampler_that_returns_nothing_is_named():
    for num_kept in (None, 1):
        with pytest.raises(ValueError, match="the sampler returned no sample"):
            solve(BQM, dimod.NullSampler(), seed=0, num_kept=num_kept)


def test_ranges_of_temperatures_may_be_arrays():
    reference = Annealer().sample(BQM, beta_range=(0.1, 3.0), seed=0).record.sample
    for beta_range in (np.array([0.1, 3.0]), [0.1, 3.0]):
        np.testing.assert_array_equal(Annealer().sample(BQM, beta_range=beta_range, seed=0).record.sample, reference)
    with pytest.raises(ValueError, match="beta_range must be"):
        Annealer().sample(BQM, beta_range=np.array([3.0, 0.1]), seed=0)
    with pytest.raises(ValueError, match="beta_range must be"):
        Annealer().sample_many(np.zeros((1, 2)), np.zeros((1, 2, 2)), beta_range="settled", seed=0)


@pytest.mark.parametrize("option", ["rounds", "prices"])
def test_prices_and_rounds_are_at_least_one(option):
    with pytest.raises(ValueError, match=f"{option} must be at least 1; it is 0"):
        solve_by_price(PROBLEM, lambda problems: [np.ones((1, 3))] * len(problems), seed=0, **{option: 0})


def test_second_moments_and_sizes_of_supports_are_not_negative():
    gram, cross = np.eye(3), np.array([[1.0, 0.5], [3.0, 0.5], [2.0, 0.5]])
    with pytest.raises(ValueError, match="max_kept must be at least 0; it is -1"):
        error_curves(gram, cross, [14.0, 1.0], method="forward", max_kept=-1)
    for call in (
        lambda energy: select_inputs(gram, cross, energy, 1, seed=0),
        lambda energy: select_units(gram, cross, energy, 1, seed=0),
        lambda energy: error_curves(gram, cross, energy, method="backward"),
        lambda energy: unit_curve(gram, cross, energy),
    ):
        with pytest.raises(ValueError, match="target_energy has -1 among its entries"):
            call([14.0, -1.0])
        call([14.0, -1e-7])  # rounding
