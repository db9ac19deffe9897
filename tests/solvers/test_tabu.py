"""Tabu search walks as the definition says, never loses what annealing found, and stops when it should."""

import dimod
import numpy as np
import pytest

from annealsubnet.solvers import Annealer
from annealsubnet.solvers.compiled import Groups, compile_energy, energy_of
from annealsubnet.solvers.sweeps import mixed
from annealsubnet.solvers.tabu import walk_reads


def random_bqm(size, seed, *, vartype="BINARY", density=1.0):
    rng = np.random.default_rng(seed)
    rows, columns = np.triu_indices(size, 1)
    used = rng.random(rows.size) < density
    # Multiples of 2⁻¹⁷, so that sums are exact in float32 and ties rare.
    linear, couplings = (np.round(rng.normal(size=count) * 2**17) / 2**17 for count in (size, int(used.sum())))
    return dimod.BinaryQuadraticModel.from_numpy_vectors(linear, (rows[used], columns[used], couplings), 0.5, vartype)


def walked(energy, state, num_steps, key):
    """The walk by its definition, in float64."""
    size = energy.size
    tenure, spread = min(10 + size // 100, size // 4), min(10, size // 4 + 1)
    couplings = energy.couplings if isinstance(energy.couplings, np.ndarray) else energy.couplings.toarray()
    state, until = state.copy(), np.zeros(size, int)
    best, lowest, best_step, step = state.copy(), energy.of(state[None])[0], 0, 0
    while step - best_step < num_steps:
        step += 1
        changes = (1.0 - 2.0 * state) * (energy.linear + couplings @ state)
        now = energy.of(state[None])[0]
        limit = lowest - now - 1e-6 * abs(lowest - energy.offset)
        i = int(np.argmin(np.where((until <= step) | (changes < limit), changes, np.inf)))
        state[i] = 1 - state[i]
        with np.errstate(over="ignore"):
            drawn = mixed(key + np.uint64(step) * np.uint64(0xA0761D6478BD642F))
        until[i] = step + tenure + int(drawn >> np.uint64(32)) % spread
        if changes[i] < limit:
            best, lowest, best_step = state.copy(), now + changes[i], step
    return best, step


@pytest.mark.parametrize(("size", "density"), [(3, 1.0), (20, 1.0), (90, 1.0), (90, 0.03)])
def test_walk_is_that_of_the_definition(size, density):
    energy = energy_of(random_bqm(size, size, density=density))
    assert isinstance(energy.couplings, np.ndarray) == (density == 1.0)
    compiled = compile_energy(energy, Groups.none(size))
    states = np.random.default_rng(0).integers(0, 2, (4, size)).astype(np.int8)
    keys = np.arange(7, 11, dtype=np.uint64)
    expected = [walked(energy, state.astype(float), 2 * size, key) for state, key in zip(states, keys, strict=True)]
    counts = np.zeros((4, 5), np.int64)
    walk_reads(compiled.model, 2 * size, keys, -np.inf, np.full(1, 99), states, 0, 4, counts)
    assert (states == [state for state, _ in expected]).all()
    assert counts[:, 4].tolist() == [steps for _, steps in expected]


@pytest.mark.parametrize("vartype", ["BINARY", "SPIN"])
@pytest.mark.parametrize("density", [1.0, 0.03])
def test_walk_only_improves(vartype, density):
    bqm = random_bqm(120, 1, vartype=vartype, density=density)
    options = {"num_reads": 20, "num_sweeps": 3, "seed": 4}
    before = Annealer().sample(bqm, **options)
    after = Annealer().sample(bqm, num_tabu_sweeps=5, **options)
    assert (after.record.energy <= before.record.energy + 1e-9).all()
    assert after.record.energy.mean() < before.record.energy.mean() - 0.1
    assert after.info["tabu_steps"] >= 20 * 5 * 120
    np.testing.assert_allclose(after.record.energy, bqm.energies(after), rtol=1e-12)


@pytest.mark.parametrize("size", range(17))
def test_optimum_without_annealing(size):
    bqm = random_bqm(size, size)
    found = Annealer().sample(bqm, num_reads=8, num_sweeps=0, num_tabu_sweeps=50, seed=0)
    assert found.first.energy == pytest.approx(dimod.ExactSolver().sample(bqm).first.energy if size else bqm.offset)


def test_same_seed_same_answer_on_any_number_of_threads():
    bqm = random_bqm(100, 2)
    found = [Annealer().sample(bqm, num_tabu_sweeps=10, num_sweeps=2, seed=3, num_threads=n) for n in (1, 2, 3)]
    for other in found[1:]:
        assert (other.record.sample == found[0].record.sample).all()
    lowest = float(found[0].first.energy)
    stopped = [
        Annealer().sample(bqm, num_tabu_sweeps=10, num_sweeps=2, seed=3, num_threads=n, target=lowest) for n in (1, 2, 3)
    ]
    assert all(run.info["stopped_by"] == "target" and len(run) == len(stopped[0]) for run in stopped)
    assert stopped[0].first.energy == pytest.approx(lowest)


def test_time_limit_cuts_a_walk_short():
    found = Annealer().sample(random_bqm(300, 2), num_tabu_sweeps=10**7, num_reads=2, time_limit=0.1, seed=3)
    assert found.info["stopped_by"] == "time_limit"
    assert found.info["seconds"]["anneal"] < 5


@pytest.mark.parametrize("option", [{"num_kept": 2}, {"groups": [([0, 1], 1)]}, {"state": "last"}, {"backend": "jax"}])
def test_what_it_does_not_go_with(option):
    with pytest.raises(ValueError, match="num_tabu_sweeps"):
        Annealer().sample(random_bqm(5, 0), num_tabu_sweeps=1, **option)
