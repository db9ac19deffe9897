"""Descents end where no move lowers the energy, however many passes that takes and however little time there is."""

import dimod
import numpy as np
import pytest

from annealsubnet.solvers import Annealer


def chain(size):
    """Ones spread from the last variable to the first, one more in each pass over the variables."""
    linear = dict.fromkeys(range(size - 1), 0.5) | {size - 1: -1.0}
    return dimod.BinaryQuadraticModel(linear, {(i, i + 1): -1.0 for i in range(size - 1)}, 0.0, "BINARY")


def lowest_flip(bqm, state):
    """The least change of the energy by a single flip."""
    flipped = np.abs(np.asarray(state) - np.eye(bqm.num_variables, dtype=np.int8))
    return float((bqm.energies((flipped, list(bqm.variables))) - bqm.energies((state, list(bqm.variables)))).min())


@pytest.mark.parametrize("options", [{"num_reads": 1}, {"num_reads": 16}, {"num_reads": 1, "num_replicas": 2}])
def test_a_long_descent_by_flips_ends_in_a_local_minimum(options):
    bqm = chain(400)
    start = {"initial_states": dict.fromkeys(range(400), 0), "initial_states_generator": "tile"}
    found = Annealer().sample(bqm, num_sweeps=0, seed=0, **start, **options)
    assert len(found) == options["num_reads"]
    assert set(found.record.energy) == {-200.5}
    assert lowest_flip(bqm, found.record.sample[0]) >= 0


def test_a_long_descent_by_exchanges_ends_in_a_local_minimum():
    bqm = chain(400)
    start = np.zeros((1, 400), np.int8)
    start[0, ::2] = 1
    found = Annealer().sample(bqm, initial_states=start, num_kept=200, num_sweeps=0, seed=0)
    state = found.record.sample[0]
    fields = np.array([bqm.linear[i] for i in range(400)]) - np.append(state[1:], 0) - np.insert(state[:-1], 0, 0)
    ones, zeros = np.flatnonzero(state), np.flatnonzero(state == 0)
    coupled = np.abs(ones[:, None] - zeros) == 1
    assert (fields[zeros] - fields[ones][:, None] + coupled >= 0).all()


def test_descents_of_real_biases_end():
    rng = np.random.default_rng(0)
    for seed in range(20):
        upper = np.triu(rng.normal(size=(60, 60)), 1)
        bqm = dimod.BinaryQuadraticModel(rng.normal(size=60), upper + upper.T, 0.0, "BINARY")
        found = Annealer().sample(bqm, num_reads=4, num_sweeps=0, seed=seed)
        assert all(lowest_flip(bqm, state) >= -1e-5 for state in found.record.sample)


@pytest.mark.parametrize("options", [{}, {"num_replicas": 3}, {"num_kept": 2}, {"num_tabu_sweeps": 4}])
def test_without_time_the_state_that_comes_back_has_descended(options):
    bqm = dimod.BinaryQuadraticModel({0: -1.0, 1: -3.0, 2: -2.0}, {}, 0.0, "BINARY")
    for seed in range(5):
        found = Annealer().sample(bqm, num_reads=5, seed=seed, time_limit=0, **options)
        assert found.info["stopped_by"] == "time_limit"
        assert found.first.energy == (-5.0 if "num_kept" in options else -6.0)
    last = Annealer().sample(bqm, initial_states={0: 1, 1: 0, 2: 0}, num_reads=1, time_limit=0, state="last", seed=0)
    assert len(last) == 1
