"""The stochastic fit: it approaches the dense outputs, holds the zeros, reads no labels, and repeats itself."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.special import log_softmax

from annealsubnet import Mask
from annealsubnet.losses import squared_error
from annealsubnet.networks import as_network
from annealsubnet.stochastic_fit import divergence as measured_divergence
from annealsubnet.stochastic_fit import fit_by_batches
from tests.models import Classifier


@pytest.fixture(scope="module")
def case():
    inputs = np.random.default_rng(0).normal(size=(200, 6)).astype(np.float32)
    network = as_network(Classifier(), inputs)
    rng = np.random.default_rng(1)
    return (
        network,
        inputs,
        Mask.of(network, "weight", {name: rng.random(layer.shape) < 0.6 for name, layer in network.layers.items()}),
    )


def divergence(network, params, inputs, temperature=4.0):
    wanted, found = (jax.nn.log_softmax(network.apply(dict(which), inputs) / temperature) for which in (network.params, params))
    return float(temperature**2 * (jnp.exp(wanted) * (wanted - found)).sum(1).mean())


def test_it_approaches_the_dense_outputs_and_holds_the_zeros(case):
    network, inputs, mask = case
    start = mask.multiply(network.params)
    found = fit_by_batches(network, mask, [inputs], params=network.params, seed=0, examples=6000)
    assert divergence(network, found.params, inputs) < 0.5 * divergence(network, start, inputs)
    assert found.value < found.start
    for name, kept in mask.kept.items():
        assert not np.asarray(found.params[network.layers[name].kernel])[~kept].any()
    held = inputs[9::10]
    assert found.start == pytest.approx(divergence(network, start, held), rel=1e-4)
    assert found.value == pytest.approx(divergence(network, found.params, held), rel=1e-4)
    steps = 6000 // 32
    tried = range(2, 5)  # 1e-3, and one to three others on the better side of it
    assert found.examples in [len(inputs) - len(held) + 32 * steps * count + len(held) * (2 + count) for count in tried]


@pytest.mark.parametrize(
    "rates", [(1e-6, 3e-3, 10.0), (10.0, 1e-6, 3e-3), (1e-7, 1e-6, 3e-3), (3e-3, 10.0, 20.0), (1e-6, 3e-3)]
)
def test_of_several_rates_the_one_that_ends_nearest_serves(case, rates):
    network, inputs, mask = case
    options = {"params": network.params, "seed": 0, "examples": 3200}
    several = fit_by_batches(network, mask, [inputs], learning_rate=rates, **options)
    one = fit_by_batches(network, mask, [inputs], learning_rate=3e-3, **options)
    assert several.value == one.value and several.examples > one.examples


def test_squared_error_sees_what_all_outputs_have_in_common(case):
    """The divergence does not: softmax leaves a common shift out."""
    network, inputs, _ = case
    whole = Mask.of(network, "weight", {name: np.ones(layer.shape, bool) for name, layer in network.layers.items()})
    shifted = {**network.params, "out/bias": network.params["out/bias"] + 0.1}
    options = {"params": shifted, "seed": 0, "examples": 3200}
    assert fit_by_batches(network, whole, [inputs], **options).start == pytest.approx(0, abs=1e-5)
    found = fit_by_batches(network, whole, [inputs], loss=squared_error, **options)
    assert found.start == pytest.approx(0.5 * 3 * 0.1**2, rel=1e-3)
    left = network.apply(found.params, inputs[9::10]) - network.apply(network.params, inputs[9::10])
    assert found.value == pytest.approx(0.5 * float((left**2).sum(1).mean()), rel=1e-3)
    assert found.value < 0.1 * found.start


def test_a_fit_that_leads_away_is_not_taken(case):
    network, inputs, mask = case
    near = fit_by_batches(network, mask, [inputs], params=network.params, seed=0, examples=6000).params
    found = fit_by_batches(network, mask, [inputs], params=near, seed=1, examples=64, learning_rate=1.0)
    assert found.value == found.start
    assert all(np.array_equal(found.params[path], near[path]) for path in near)


def test_the_dense_network_stays_where_it_is(case):
    network, inputs, _ = case
    whole = Mask.of(network, "weight", {name: np.ones(layer.shape, bool) for name, layer in network.layers.items()})
    found = fit_by_batches(network, whole, [inputs], params=network.params, seed=0, examples=100)
    assert found.start == pytest.approx(0, abs=1e-5)
    assert divergence(network, found.params, inputs) < 1e-5


def test_labels_are_not_read_and_the_seed_decides(case):
    network, inputs, mask = case
    options = {"params": network.params, "examples": 320}
    first = fit_by_batches(network, mask, [inputs], seed=3, **options).params
    labeled = fit_by_batches(network, mask, [(inputs, np.zeros(200, int))], seed=3, **options).params
    other = fit_by_batches(network, mask, [inputs], seed=4, **options).params
    assert all(np.array_equal(first[path], labeled[path]) for path in first)
    assert any(not np.array_equal(first[path], other[path]) for path in first)


@pytest.mark.parametrize(
    "wrong", [{"examples": 0}, {"batch_size": 0}, {"learning_rate": 0.0}, {"learning_rate": ()}, {"temperature": -1.0}]
)
def test_numbers_that_are_not_positive_are_refused(case, wrong):
    network, inputs, mask = case
    with pytest.raises(ValueError, match="must be positive"):
        fit_by_batches(network, mask, [inputs], params=network.params, seed=0, **{"examples": 100, **wrong})


@pytest.mark.parametrize("apart", [0.0, 1e-5, 1e-4, 1e-3, 0.1, 1.0, 10.0, 1000.0])
def test_the_divergence_of_float32_is_that_of_float64_and_never_negative(apart):
    rng = np.random.default_rng(0)
    target = rng.normal(size=(200, 10)).astype(np.float32) * 3
    outputs = target + apart * rng.normal(size=target.shape).astype(np.float32)
    wanted, found = (log_softmax(each.astype(np.float64) / 4, axis=1) for each in (target, outputs))
    by_definition = 16 * (np.exp(wanted) * (wanted - found)).sum(1).mean()
    value, slope = jax.value_and_grad(measured_divergence)(outputs, target)
    assert value >= 0
    assert float(value) == pytest.approx(by_definition, rel=3e-3, abs=2e-11)
    np.testing.assert_allclose(slope, 4 * (np.exp(found) - np.exp(wanted)) / len(target), rtol=1e-3, atol=1e-7)


def test_the_divergence_of_half_floats_is_taken_in_float32():
    target, outputs = np.random.default_rng(0).normal(size=(2, 50, 10)).astype(jnp.bfloat16)
    wide = measured_divergence(outputs.astype(np.float32), target.astype(np.float32))
    assert measured_divergence(outputs, target) == wide
