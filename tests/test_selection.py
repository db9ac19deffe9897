"""Selection: the supports of least error after the refit, whose ridge draws towards the weights that were there."""

from itertools import combinations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from annealsubnet import from_function
from annealsubnet.networks import as_network
from annealsubnet.selection import Choice, select_site, select_weights, stack
from annealsubnet.statistics.moments import Regression, input_moments, self_regression

FAN_IN, NEURONS = 7, 5


def layer(*, with_bias):
    """Second moments of a layer whose inputs are correlated and have a mean, its weights and its biases; input 3 is dead."""
    rng = np.random.default_rng(0)
    inputs = rng.normal(size=(60, FAN_IN)) @ rng.normal(size=(FAN_IN, FAN_IN)) + 1.0
    inputs[:, 3] = 0.0
    weights, bias = rng.normal(size=(FAN_IN, NEURONS)), rng.normal(size=NEURONS) * with_bias
    targets = inputs @ weights + bias
    moments = inputs.T @ inputs, inputs.sum(0), inputs.T @ targets, targets.sum(0), (targets**2).sum(0)
    return Regression(*(total[None] / len(inputs) for total in moments), len(inputs), with_bias), weights, bias


def error(gram, weights, kept, ridge):
    """min over v on `kept` of (v − w)' H (v − w) + ρ‖v − w‖²."""
    damped = gram + ridge * np.diag(gram).mean() * np.eye(len(gram))
    dropped, change = np.setdiff1d(np.arange(len(gram)), kept), weights.copy()
    change[kept] = -np.linalg.solve(damped[np.ix_(kept, kept)], damped[np.ix_(kept, dropped)] @ weights[dropped])
    return change @ damped @ change


@pytest.mark.parametrize("with_bias", [False, True])
@pytest.mark.parametrize("ridge", [1e-6, 0.05, 1.0])
def test_the_support_of_least_error_by_enumeration(with_bias, ridge):
    regression, weights, bias = layer(with_bias=with_bias)
    gram = regression.centered().gram[0]
    alive = np.where(np.diag(gram)[:, None] > 0, weights, 0.0)
    for size in range(1, FAN_IN):
        counts = np.full((1, NEURONS), size)
        found = select_weights(regression, weights[None], counts, bias=bias[None], choice=Choice(ridge=ridge), seed=0)[0]
        for neuron in range(NEURONS):
            errors = [error(gram, alive[:, neuron], np.array(kept), ridge) for kept in combinations(range(FAN_IN), size)]
            ours = error(gram, alive[:, neuron], np.flatnonzero(found[:, neuron]), ridge)
            assert found[:, neuron].sum() == size
            assert ours <= min(errors) * (1 + 1e-9) + 1e-12


def read_twice(ridge):
    """Seven neurons that two layers read, and what each choice among them costs after the refit, computed directly."""
    rng = np.random.default_rng(1)
    params = {
        "hidden": {"kernel": rng.normal(size=(6, 7)), "bias": rng.normal(size=7)},
        "left": {"kernel": rng.normal(size=(7, 3)), "bias": np.zeros(3)},
        "right": {"kernel": rng.normal(size=(7, 2))},
    }

    def apply(values, x, tap):
        hidden = jax.nn.relu(tap.dense("hidden", x))
        return jnp.concatenate([tap.dense("left", hidden), tap.dense("right", hidden)], axis=-1)

    inputs = rng.normal(size=(300, 6)).astype(np.float32)
    network = as_network(from_function(apply, jax.tree.map(jnp.float32, params)), inputs)
    moments = input_moments(network, [inputs])
    regressions = {name: self_regression(network.layers[name], moments[name], network.params) for name in ("left", "right")}
    importance = {"left": np.full((1, 3), 2.0), "right": np.full((1, 2), 0.5)}
    grams = {name: regression.centered().gram[0] for name, regression in regressions.items()}
    damping = ridge * np.mean([np.diag(gram).mean() for gram in grams.values()])

    def cost(kept):
        total = 0.0
        for name, gram in grams.items():
            own = damping / np.diag(gram).mean()
            columns = np.asarray(params[name]["kernel"], np.float32).astype(float).T
            total += importance[name][0, 0] * sum(error(gram, column, np.array(kept), own) for column in columns)
        return total

    return network, network.neurons["hidden"], regressions, importance, cost


@pytest.mark.parametrize("ridge", [1e-6, 0.05, 1.0])
def test_the_neurons_of_least_error_by_enumeration(ridge):
    network, site, regressions, importance, cost = read_twice(ridge)
    options = {"importance": importance, "choice": Choice(ridge=ridge), "seed": 0}
    for size in range(1, 7):
        found = select_site(network, site, regressions, network.params, size, **options)
        assert found.sum() == size
        assert cost(np.flatnonzero(found)) <= min(map(cost, combinations(range(7), size))) * (1 + 1e-6)


@pytest.mark.parametrize("ridge", [1e-6, 0.05, 1.0])
def test_a_model_around_refitted_neurons_has_their_error(ridge):
    network, site, regressions, importance, cost = read_twice(ridge)
    stacked = stack(network, site, regressions, network.params, importance=importance, ridge=ridge)
    for chosen in combinations(range(7), 4):
        kept = np.isin(np.arange(7), chosen)
        found, weights = stacked.refit(kept)
        np.testing.assert_allclose(found, cost(chosen), rtol=1e-6)
        np.testing.assert_allclose(stacked.problem(weights, kept, 4).energy(kept), found, rtol=1e-6)
