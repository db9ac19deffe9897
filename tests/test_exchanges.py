"""Exchanges by binary quadratic models: never worse, no single exchange left that helps, near the best where that is known."""

from itertools import combinations

import numpy as np
import pytest

from annealsubnet.exchanges import exchange_inputs
from annealsubnet.solvers.door import solve_all
from annealsubnet.solvers.select_refit import select_inputs


def regression(inputs, outputs, seed, examples=400):
    rng = np.random.default_rng(seed)
    values = rng.normal(size=(examples, inputs)) @ (np.eye(inputs) + 0.4 * rng.normal(size=(inputs, inputs)))
    targets = values @ rng.normal(size=(inputs, outputs))
    return values.T @ values / examples, values.T @ targets / examples, (targets**2).mean(0)


def annealed(problems, seeds):
    return solve_all(problems, seeds=seeds, num_reads=8, num_sweeps=50)


def errors(gram, cross, energy, kept, ridge):
    size = kept.sum(axis=0)
    found = select_inputs(gram, cross, energy, size, seed=0, start=kept, temperature="greedy", ridge=ridge)
    return found.error


@pytest.fixture(scope="module")
def case():
    gram, cross, energy = regression(40, 6, seed=0)
    start = np.zeros((40, 6), bool)
    start[np.argsort(np.random.default_rng(1).random((40, 6)), axis=0)[:10], np.arange(6)] = True
    return gram, cross, energy, start


def test_the_error_falls_below_every_single_exchange_and_the_count_stays(case):
    gram, cross, energy, start = case
    found = exchange_inputs(gram, cross, energy, start, ridge=1e-3, solve=annealed, rounds=60, seed=0)
    assert (found.sum(axis=0) == 10).all()
    reached = errors(gram, cross, energy, found, 1e-3)
    assert (reached < errors(gram, cross, energy, start, 1e-3)).all()
    for n in range(6):
        kept = found[:, n]
        for out in np.flatnonzero(kept):
            for into in np.flatnonzero(~kept):
                other = kept.copy()
                other[[out, into]] = False, True
                exchanged = errors(gram, cross[:, [n]], energy[[n]], other[:, None], 1e-3)
                assert exchanged[0] >= reached[n] * (1 - 1e-6)


def test_it_ends_near_where_descent_by_exact_exchanges_ends(case):
    gram, cross, energy, start = case
    found = exchange_inputs(gram, cross, energy, start, ridge=1e-3, solve=annealed, rounds=60, seed=0)
    descent = select_inputs(gram, cross, energy, 10, seed=0, start=start, temperature="zero", ridge=1e-3).error
    assert errors(gram, cross, energy, found, 1e-3).sum() < 1.1 * descent.sum()


def test_all_subsets_of_few_inputs():
    gram, cross, energy = regression(10, 8, seed=2)
    start = np.zeros((10, 8), bool)
    start[:4] = True
    found = exchange_inputs(gram, cross, energy, start, ridge=1e-3, solve=annealed, rounds=60, seed=0)
    reached = errors(gram, cross, energy, found, 1e-3)
    subsets = np.zeros((10, 210), bool)
    for number, subset in enumerate(combinations(range(10), 4)):
        subsets[list(subset), number] = True
    best = [errors(gram, np.tile(cross[:, [n]], 210), np.tile(energy[n], 210), subsets, 1e-3).min() for n in range(8)]
    assert np.mean(reached < np.array(best) * (1 + 1e-6)) >= 0.75


def test_what_a_bad_solver_says_never_raises_the_error(case):
    gram, cross, energy, start = case

    def drawn(problems, seeds):
        rng = np.random.default_rng(seeds[0])
        return [rng.permutation(problem.size) < problem.num_kept for problem in problems]

    found = exchange_inputs(gram, cross, energy, start, ridge=1e-3, solve=drawn, rounds=10, seed=0)
    assert (errors(gram, cross, energy, found, 1e-3) <= errors(gram, cross, energy, start, 1e-3) * (1 + 1e-9)).all()
    assert (found.sum(axis=0) == 10).all()


def test_neurons_that_keep_all_or_nothing_and_dead_inputs_stay():
    gram, cross, energy = regression(12, 3, seed=3)
    gram[5], gram[:, 5], cross[5] = 0.0, 0.0, 0.0
    start = np.zeros((12, 3), bool)
    start[:, 0], start[4:8, 2] = True, True
    found = exchange_inputs(gram, cross, energy, start, ridge=1e-2, solve=annealed, rounds=20, seed=0)
    assert found[:, 0].all() and not found[:, 1].any()
    assert found[:, 2].sum() == 4 and not found[5, 2]


@pytest.mark.parametrize("ridge", [0.0, 1e-9, 1e-6, 1e-2])
def test_dependent_inputs_and_few_examples(ridge):
    rng = np.random.default_rng(4)
    values = rng.normal(size=(10, 40))
    values[:, 20:] = values[:, :20]
    targets = values @ rng.normal(size=(40, 3))
    start = np.zeros((40, 3), bool)
    start[:20] = True
    gram, cross, energy = values.T @ values / 10, values.T @ targets / 10, (targets**2).mean(0)
    found = exchange_inputs(gram, cross, energy, start, ridge=ridge, solve=annealed, rounds=20, seed=0)
    assert (found.sum(axis=0) == 20).all()


def test_nothing_to_explain_asks_nothing():
    def refuses(problems, seeds):
        raise AssertionError("there is no error to lower")

    start = np.zeros((8, 2), bool)
    start[:3] = True
    for gram in (np.zeros((8, 8)), np.eye(8)):
        found = exchange_inputs(gram, np.zeros((8, 2)), np.zeros(2), start, ridge=1e-2, solve=refuses, rounds=9, seed=0)
        assert np.array_equal(found, start)
