"""The product distribution of masks: its mean count, its samples, and its ground state."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from annealsubnet.budgets import budget_of
from annealsubnet.examples.architectures import MLP
from annealsubnet.networks import as_network
from annealsubnet.tickets.thermal import drawn, expected, ground_state, prices


@pytest.mark.parametrize("scope", ["network", "layer", "neuron"])
@pytest.mark.parametrize("temperature", [None, 0.5])
def test_the_price_makes_the_expected_count_the_one_asked_for(scope, temperature):
    network = as_network(MLP((20,), (15, 10), rngs=nnx.Rngs(0)), np.zeros((1, 20), np.float32))
    budget = budget_of(network, keep=0.3, unit="weight", scope=scope)
    generator = np.random.default_rng(0)
    scores = {name: jnp.asarray(generator.normal(size=budget.shapes[name]), jnp.float32) for name in budget.selected}
    price = prices(scores, temperature, budget)
    chance = {
        name: np.asarray(values > price[name]) if temperature is None else jax.nn.sigmoid((values - price[name]) / temperature)
        for name, values in scores.items()
    }
    total = sum(float(values.sum()) for values in chance.values())
    assert total == pytest.approx(budget.total, abs=0.05)
    if scope == "neuron":
        for name, values in chance.items():
            np.testing.assert_allclose(np.asarray(values).sum(axis=0), budget.counts[name], atol=0.01)
    if temperature is None:
        truth = ground_state(scores, budget, None)
        assert all((chance[name] == truth[name]).all() for name in truth)


def test_samples_have_the_boltzmann_mean():
    scores = {"a": jnp.linspace(-1, 1, 5)}
    keys = jax.random.split(jax.random.key(0), 4000)
    masks = jax.vmap(lambda key: drawn(scores, {"a": jnp.full(1, 0.1)}, 0.4, key)["a"])(keys)
    np.testing.assert_allclose(masks.mean(axis=0), expected(scores, {"a": 0.1}, 0.4)["a"], atol=0.03)


def test_the_mean_gate_is_that_of_the_boltzmann_distribution_by_enumeration():
    scores, price, temperature = np.array([0.3, -0.2, 0.05]), 0.1, 0.25
    states = np.array(list(np.ndindex(2, 2, 2)))
    chances = np.exp((states @ (scores - price)) / temperature)
    mean = chances @ states / chances.sum()
    np.testing.assert_allclose(expected({"a": jnp.asarray(scores)}, {"a": price}, temperature)["a"], mean, rtol=1e-5)
