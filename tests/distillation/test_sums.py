"""Sums: the model is the error, copies are one source, and annealing meets enumeration."""

from itertools import product

import dimod
import numpy as np
import pytest

from annealsubnet.distillation import Schedule, anneal_sums, sums_of
from annealsubnet.distillation.descend import descend_sums


def case(seed, *, sources=3, copies=4, neurons=1, examples=40):
    """Inputs with `copies` of each source, random weights, targets."""
    rng = np.random.default_rng(seed)
    distinct = rng.normal(size=(examples, sources)) @ rng.normal(size=(sources, sources))
    inputs = (distinct[:, :, None] * rng.uniform(0.5, 2, (sources, copies))).reshape(examples, -1)
    inputs = np.insert(inputs, 2, 0.0, axis=1)  # an input that is always zero
    weights = rng.normal(size=(inputs.shape[1], neurons))
    targets = distinct @ rng.normal(size=(sources, neurons)) + 0.1 * rng.normal(size=(examples, neurons))
    return inputs, weights, targets


def sums_from(inputs, weights, targets):
    count = len(inputs)
    return sums_of(weights, inputs.T @ inputs / count, inputs.T @ targets / count, np.square(targets).mean(axis=0))


def states_of(size):
    return np.array(list(product([False, True], repeat=size)))


def test_the_error_is_that_of_the_masked_weights():
    inputs, weights, targets = case(0, neurons=5)
    sums = sums_from(inputs, weights, targets)
    state = np.random.default_rng(1).random(sums.coefficients.shape) < 0.5
    mask = sums.to_mask(state)
    direct = np.square(targets - inputs @ (weights * mask)).mean(axis=0)
    np.testing.assert_allclose(sums.errors(state), direct, rtol=1e-8)
    assert len(sums.moment) == 3 and not mask[2].any()
    assert mask.sum() == state.sum()


def test_the_binary_quadratic_model_is_error_and_price():
    sums = sums_from(*case(1, copies=2))
    states = states_of(6)
    energies = sums.to_bqm(0, price=0.25).energies((states.astype(int), list(range(6))))
    wanted = [sums.errors(state[None])[0] + 0.25 * state.sum() for state in states]
    np.testing.assert_allclose(energies, wanted, atol=1e-9)
    lowest = dimod.ExactSolver().sample(sums.to_bqm(0, price=0.25)).first.energy
    assert lowest == pytest.approx(min(wanted))


def test_nothing_is_below_least_squares():
    inputs, weights, targets = case(2, neurons=3)
    sums = sums_from(inputs, weights, targets)
    v, *_ = np.linalg.lstsq(inputs, targets, rcond=None)
    np.testing.assert_allclose(sums.least_errors(), np.square(targets - inputs @ v).mean(axis=0), rtol=1e-3)
    state = anneal_sums(sums, num_kept=30, seed=0)
    assert (sums.errors(state) >= sums.least_errors() - 1e-9).all()


@pytest.mark.parametrize("seed", range(4))
def test_annealing_meets_enumeration(seed):
    sums = sums_from(*case(seed))
    states = states_of(12)
    states = states[states.sum(axis=1) <= 6]
    best = min(sums.errors(state[None])[0] for state in states)
    found = [sums.errors(anneal_sums(sums, num_kept=6, seed=read, num_threads=1))[0] for read in range(10)]
    assert min(found) == pytest.approx(best, rel=1e-6)


def test_counts_hold_and_threads_do_not_matter():
    sums = sums_from(*case(5, sources=6, copies=3, neurons=20))
    for wanted in (0, 1, 50, 200):
        one = anneal_sums(sums, num_kept=wanted, seed=3, num_threads=1)
        two = anneal_sums(sums, num_kept=wanted, seed=3, num_threads=2)
        assert one.sum() <= wanted and (one == two).all()
    assert anneal_sums(sums, num_kept=100, seed=3).sum() > 90


def test_annealing_is_below_descent_and_couplings_below_their_diagonal():
    sums = sums_from(*case(6, sources=40, copies=4, neurons=8, examples=400))
    kept = 8 * 40
    annealed, descended, alone = (
        sums.errors(state).sum()
        for state in (
            anneal_sums(sums, num_kept=kept, seed=0),
            anneal_sums(sums, num_kept=kept, schedule=Schedule(0), seed=0),
            anneal_sums(sums.uncoupled(), num_kept=kept, seed=0),
        )
    )
    assert annealed < descended < alone


def test_zeros_need_nothing():
    sums = sums_of(np.ones((3, 2)), np.zeros((3, 3)), np.zeros((3, 2)), np.zeros(2))
    assert anneal_sums(sums, num_kept=3, seed=0).shape == (2, 0)
    assert not sums.to_mask(np.zeros((2, 0), bool)).any() and (sums.errors(np.zeros((2, 0), bool)) == 0).all()


@pytest.mark.parametrize("bad", [{"num_sweeps": -1}, {"hot": 0.01}, {"cold": 0.0}])
def test_schedules_that_do_not_fall_are_refused(bad):
    with pytest.raises(ValueError, match="0 < cold <= hot"):
        Schedule(**bad)


def test_descent_keeps_counts_and_more_starts_are_no_worse():
    sums = sums_from(*case(7, sources=10, copies=4, neurons=4))
    one = descend_sums(sums, num_kept=40, seconds=0.0, seed=0)
    more = descend_sums(sums, num_kept=40, seconds=0.3, seed=0)
    assert one.sum() <= 40 and more.sum() <= 40
    assert sums.errors(more).sum() < sums.errors(one).sum()
