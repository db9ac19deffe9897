"""Hidden neurons: exact where the nonlinearity is not felt, never worse where it is."""

from itertools import product

import numpy as np
import pytest

from annealsubnet.distillation import Schedule
from annealsubnet.distillation.hidden import Hidden, improve_hidden


def case(seed, *, bias=0.0, neurons=6, fan_in=8):
    rng = np.random.default_rng(seed)
    inputs = rng.random((60, fan_in))
    weights, outgoing = rng.normal(size=(fan_in, neurons)), rng.normal(size=(neurons, 3))
    targets = rng.normal(size=(60, 3)) + np.maximum(inputs @ rng.normal(size=(fan_in, 5)), 0) @ rng.normal(size=(5, 3))
    return Hidden(inputs, targets, weights, np.full(neurons, bias), outgoing), rng.random((fan_in, neurons)) < 0.5


def test_the_error_is_that_of_the_block():
    hidden, mask = case(0)
    outputs = np.maximum(hidden.inputs @ (hidden.weights * mask) + hidden.bias, 0) @ hidden.outgoing
    assert hidden.error(mask) == pytest.approx(np.mean(np.sum((hidden.targets - outputs) ** 2, axis=1)))


@pytest.mark.parametrize("seed", range(5))
def test_the_error_never_rises_and_counts_hold(seed):
    hidden, mask = case(seed)
    better = improve_hidden(hidden, mask, schedule=Schedule(50), seed=0)
    assert hidden.error(better) < hidden.error(mask)
    assert (better.sum(axis=0) <= mask.sum(axis=0)).all()
    assert (better == improve_hidden(hidden, mask, schedule=Schedule(50), seed=0)).all()


def test_one_neuron_that_is_always_active_meets_enumeration():
    hidden, mask = case(1, bias=100.0, neurons=1)
    kept = int(mask.sum())
    choices = np.array([choice for choice in product([False, True], repeat=8) if sum(choice) <= kept])
    best = min(hidden.error(choice[:, None]) for choice in choices)
    found = min(hidden.error(improve_hidden(hidden, mask, schedule=Schedule(100), seed=seed)) for seed in range(8))
    assert found == pytest.approx(best, rel=1e-6)
