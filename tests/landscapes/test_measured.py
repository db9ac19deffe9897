"""Measured landscapes against losses measured one by one."""

import numpy as np
import pytest
from flax import nnx

from annealsubnet import evaluate
from annealsubnet.examples.architectures import MLP
from annealsubnet.landscapes import measure_landscape, ring_windows
from annealsubnet.masks import Mask
from annealsubnet.networks import as_network


@pytest.fixture(scope="module")
def case():
    generator = np.random.default_rng(0)
    batches = [(generator.normal(size=(20, 5)).astype(np.float32), generator.integers(0, 3, 20)) for _ in range(2)]
    return as_network(MLP((5,), (8, 3), use_bias=False, rngs=nnx.Rngs(0)), batches[0][0]), batches


def loss_of(network, batches, state):
    return evaluate(network, batches, Mask.of(network, "neuron", {"fc1": np.asarray(state, bool)})).loss


def test_one_window_over_all_neurons_is_the_loss_itself(case):
    network, batches = case
    land = measure_landscape(network, batches, np.arange(8)[None], site="fc1")
    for state in np.random.default_rng(1).integers(0, 2, (6, 8)):
        assert land.energy(state) == pytest.approx(loss_of(network, batches, state), abs=1e-5)


def test_windows_are_exact_around_any_mask(case):
    network, batches = case
    base = np.array([1, 0, 1, 1, 0, 1, 1, 1], bool)
    windows = ring_windows(8, 2)
    land = measure_landscape(network, batches, windows, site="fc1", mask={"fc1": base})
    assert land.energy(base) == pytest.approx(loss_of(network, batches, base), abs=1e-5)
    for window in windows[:4]:
        state = base.copy()
        state[window[:2]] ^= True
        assert land.energy(state) == pytest.approx(loss_of(network, batches, state), abs=1e-5)


def test_bad_sites_and_windows_are_refused(case):
    network, batches = case
    with pytest.raises(ValueError, match="no neurons at 'fc9'"):
        measure_landscape(network, batches, ring_windows(8, 2), site="fc9")
    with pytest.raises(ValueError, match="has 8"):
        measure_landscape(network, batches, ring_windows(9, 2), site="fc1")
