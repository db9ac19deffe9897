"""Selection: the supports of least error after the refit, whose ridge draws towards the weights that were there."""

from itertools import combinations

import numpy as np
import pytest

from annealsubnet.selection import Choice, select_weights
from annealsubnet.statistics.moments import Regression

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
