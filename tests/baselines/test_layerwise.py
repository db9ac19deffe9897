"""The methods that go layer by layer do what their papers define, computed here densely, one neuron and one step at a time."""

from itertools import combinations

import numpy as np
import pytest

from annealsubnet.baselines.alps import alternate
from annealsubnet.baselines.layerwise import Task, damped
from annealsubnet.baselines.obc import follow_path
from annealsubnet.baselines.sparse_swaps import refine
from annealsubnet.baselines.sparsegpt import prune_in_order
from annealsubnet.baselines.wanda import keep_by_input_norm
from annealsubnet.patterns import parse_pattern
from annealsubnet.solvers.splitting import conjugate_gradients

PATTERNS = [None, "2:4"]


def task(pattern=None, inputs=12, outputs=5, share=0.5, seed=0, by_neuron=False):
    rng = np.random.default_rng(seed)
    a = rng.normal(size=(60, inputs)) @ rng.normal(size=(inputs, inputs))
    counts = np.full(outputs, round(share * inputs))
    return Task(a.T @ a / 60, rng.normal(size=(inputs, outputs)), counts, pattern and parse_pattern(pattern), by_neuron)


def refitted(gram, target, kept):
    rows = np.flatnonzero(kept)
    solution = np.zeros(len(gram))
    solution[rows] = np.linalg.solve(gram[np.ix_(rows, rows)], target[rows])
    return solution


def error(gram, dense, weights):
    return float(np.einsum("io,ij,jo->", dense - weights, gram, dense - weights))


def test_wanda_ranks_weights_times_norms_within_a_neuron():
    given = task()
    kept, weights = keep_by_input_norm(given)
    for n in range(5):
        scores = [abs(given.weights[i, n]) * given.gram[i, i] ** 0.5 for i in range(12)]
        assert set(np.flatnonzero(kept[:, n])) == set(np.argsort(scores)[-6:])
    np.testing.assert_array_equal(weights, given.weights * kept)


@pytest.mark.parametrize(("pattern", "by_neuron"), [(None, False), (None, True), ("2:4", False)])
@pytest.mark.parametrize("block", [4, 128])
def test_sparsegpt_by_refits_over_the_inputs_that_are_left(pattern, by_neuron, block):
    """Each removal is the optimum of the paper's problem: earlier inputs frozen, removed ones zero, later ones free."""
    given = task(pattern, by_neuron=by_neuron)
    kept, weights = prune_in_order(given, block=block, ridge=0.01)
    gram = damped(given.gram, 0.01)
    current, expected = given.weights.copy(), np.ones((12, 5), bool)
    for j in range(12):
        if (pattern and j % 4 == 0) or (not pattern and j % block == 0):
            group = slice(j, j + (4 if pattern else block))
            scores = np.array(
                [[current[i, n] ** 2 / np.linalg.inv(gram[i:, i:])[0, 0] for n in range(5)] for i in range(12)][group]
            )
            if pattern:
                ranks = np.argsort(np.argsort(scores, axis=0), axis=0)
                expected[group] = ranks >= 2
            elif by_neuron:
                expected[group] = scores >= np.sort(scores, axis=0)[-(len(scores) // 2)]
            else:
                expected[group] = scores >= np.sort(scores, axis=None)[-(scores.size // 2)]
        for n in range(5):
            if not expected[j, n]:
                rest = np.arange(j + 1, 12)
                shift = np.linalg.solve(gram[np.ix_(rest, rest)], gram[rest, j]) * current[j, n] if rest.size else 0.0
                current[j, n] = 0.0
                current[rest, n] += shift
    np.testing.assert_array_equal(kept, expected)
    np.testing.assert_allclose(weights, current, atol=1e-9)


@pytest.mark.parametrize("ridge", [1e-9, 0.01, 0.3])
@pytest.mark.parametrize("pattern", PATTERNS)
def test_obc_removes_the_weight_that_costs_least_after_a_refit(pattern, ridge):
    """With H + ridge in the place of H, as in the paper's code."""
    given = task(pattern)
    kept, weights = follow_path(given, path="backward", ridge=ridge)
    gram = damped(given.gram, ridge)
    for n in range(5):
        target, left = gram @ given.weights[:, n], np.ones(12, bool)

        def cost(j, left=left, target=target):
            return -target @ refitted(gram, target, left & (np.arange(12) != j))

        while left.sum() > 6:
            free = [j for j in np.flatnonzero(left) if not pattern or left[j // 4 * 4 : j // 4 * 4 + 4].sum() > 2]
            left[min(free, key=cost)] = False
        np.testing.assert_array_equal(kept[:, n], left)
        np.testing.assert_allclose(weights[:, n], refitted(gram, target, left), rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("path", ["backward", "forward"])
def test_weights_of_which_all_stay_are_those_of_the_dense_network(path):
    given = task(share=1.0)
    kept, weights = follow_path(given, path=path, ridge=0.1)
    assert kept.all()
    np.testing.assert_allclose(weights, given.weights, rtol=1e-5)


def test_forward_adds_the_input_that_helps_most_after_a_refit():
    given = task(share=0.3)
    kept, _ = follow_path(given, path="forward", ridge=1e-9)
    for n in range(5):
        target, chosen = given.gram @ given.weights[:, n], np.zeros(12, bool)
        while chosen.sum() < 4:
            gains = [
                target @ refitted(given.gram, target, chosen | (np.arange(12) == j)) if not chosen[j] else -np.inf
                for j in range(12)
            ]
            chosen[int(np.argmax(gains))] = True
        np.testing.assert_array_equal(kept[:, n], chosen)


@pytest.mark.parametrize("pattern", PATTERNS)
def test_alps_ends_at_the_refit_of_a_good_support(pattern):
    given = task(pattern, inputs=16, outputs=8)
    kept, weights = alternate(given, ridge=1e-6, penalty=0.1, max_iterations=500, refinement=200)
    assert kept.sum() == 64
    if pattern:
        assert (kept.reshape(4, 4, 8).sum(axis=1) == 2).all()
    for n in range(8):
        exact = refitted(given.gram, given.gram @ given.weights[:, n], kept[:, n])
        np.testing.assert_allclose(weights[:, n], exact, rtol=1e-3, atol=1e-3)
    greedy, of_greedy = keep_by_input_norm(given)
    of_greedy = np.stack([refitted(given.gram, given.gram @ given.weights[:, n], greedy[:, n]) for n in range(8)], axis=1)
    assert error(given.gram, given.weights, weights) < error(given.gram, given.weights, of_greedy)


@pytest.mark.parametrize("by_neuron", [False, True])
def test_alps_is_optimal_where_inputs_are_independent(by_neuron):
    """With H diagonal the best support of a layer, or of a neuron, is that of the largest scaled weights, and these stay."""
    rng = np.random.default_rng(0)
    given = Task(np.diag(rng.uniform(1, 4, 10)), rng.normal(size=(10, 3)), np.array([2, 4, 6]), by_neuron=by_neuron)
    kept, weights = alternate(given, ridge=1e-9, penalty=0.1, max_iterations=300, refinement=10)
    scores = np.abs(given.weights) * np.sqrt(np.diag(given.gram))[:, None]
    least = np.sort(scores, axis=0)[[-2, -4, -6], [0, 1, 2]] if by_neuron else np.sort(scores, axis=None)[-12]
    np.testing.assert_array_equal(kept, scores >= least)
    np.testing.assert_allclose(weights, given.weights * kept, atol=1e-6)


def test_conjugate_gradients_solve_each_neuron_on_its_own_support():
    given = task(inputs=10, outputs=4)
    scale = np.sqrt(np.diag(given.gram))
    gram = given.gram / scale / scale[:, None]
    kept = np.random.default_rng(1).random((10, 4)) < 0.5
    found = conjugate_gradients(gram, gram @ given.weights, np.zeros((10, 4)), kept, steps=100)
    for n in range(4):
        np.testing.assert_allclose(found[:, n], refitted(gram, gram @ given.weights[:, n], kept[:, n]), atol=1e-6)


@pytest.mark.parametrize("pattern", PATTERNS)
def test_sparse_swaps_ends_where_no_exchange_helps_and_never_above_wanda(pattern):
    given = task(pattern)
    kept, weights = refine(given, max_swaps=1000)
    first = keep_by_input_norm(given)[0]
    for n in range(5):
        dense = given.weights[:, [n]]
        here = error(given.gram, dense, weights[:, [n]])
        assert here <= error(given.gram, dense, dense * first[:, [n]]) + 1e-9
        assert kept[:, n].sum() == 6
        for p, u in combinations(range(12), 2):
            if kept[p, n] != kept[u, n] and (not pattern or p // 4 == u // 4):
                other = kept[:, [n]].copy()
                other[[p, u]] = other[[u, p]]
                assert error(given.gram, dense, dense * other) >= here * (1 - 1e-9)
