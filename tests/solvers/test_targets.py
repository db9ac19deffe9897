"""A target is met when an energy in float64 says so, by the first read that meets it."""

import dimod
import numpy as np
import pytest

from annealsubnet.solvers import Annealer


def far_apart(large, small, sparse):
    """Three large biases and a small one that float32 tells apart, but not within its leniency of the sum; in any order."""
    linear = dict.fromkeys(range(3), -large) | {3: -small}
    pairs = {(3, i): 0.0 for i in range(3)} if not sparse else {}
    return dimod.BinaryQuadraticModel(linear, pairs, 0.0, "BINARY")


@pytest.mark.parametrize("sparse", [False, True])
@pytest.mark.parametrize(("large", "small"), [(1e6, 1.0), (1e6 / 3, 1 / 3)], ids=["integers", "reals"])
@pytest.mark.parametrize("options", [{}, {"num_threads": 2}, {"num_kept": 3}, {"num_replicas": 2}])
def test_only_reads_at_the_target_meet_it(large, small, sparse, options):
    bqm = far_apart(large, small, sparse)
    hot = {"num_reads": 200, "num_sweeps": 1, "beta_range": (1e-7 / large, 1e-7 / large), "state": "last", "seed": 1} | options
    everything = Annealer().sample(bqm, **hot).record
    lowest = everything.energy.min()
    never = Annealer().sample(bqm, target=lowest - small / 2, **hot)
    assert never.info["stopped_by"] is None
    np.testing.assert_array_equal(never.record.sample, everything.sample)
    found = Annealer().sample(bqm, target=lowest, **hot)
    first = int(np.flatnonzero(everything.energy == lowest)[0])
    assert found.info["stopped_by"] == "target" and len(found) == first + 1
    np.testing.assert_array_equal(found.record.sample, everything.sample[: first + 1])


def test_a_target_that_was_computed_in_another_order_is_met():
    rng = np.random.default_rng(0)
    for size, density in ((60, 1.0), (200, 0.02)):
        upper = np.triu(rng.normal(size=(size, size)) * (rng.random((size, size)) < density), 1)
        bqm = dimod.BinaryQuadraticModel(rng.normal(size=size), upper + upper.T, 0.3, "SPIN")
        best = Annealer().sample(bqm, seed=0).first
        found = Annealer().sample(bqm, target=float(bqm.energies(best.sample)[0]), seed=0)
        assert found.info["stopped_by"] == "target"
