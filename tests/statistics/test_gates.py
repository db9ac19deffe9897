"""Gate statistics: their definitions by finite differences and automatic differentiation of a network written out by hand."""

from itertools import pairwise

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from annealsubnet.losses import cross_entropy, squared_error
from annealsubnet.networks import as_network, from_function
from annealsubnet.statistics.gates import by_site, gate_curvature, gate_gradients, unit_activations
from tests.models import EXAMPLES

SIZES = (5, 4, 3, 3)
UNITS = SIZES[1] + SIZES[2]


def tiny_params(seed: int = 0) -> dict:
    generator = np.random.default_rng(seed)
    return {
        f"layer{number}": {
            "kernel": jnp.asarray(generator.normal(size=shape)),
            "bias": jnp.asarray(0.3 * generator.normal(size=shape[1])),
        }
        for number, shape in enumerate(pairwise(SIZES))
    }


def tiny(params, inputs, tap):
    hidden = jnp.tanh(tap.dense("layer0", inputs))
    hidden = jnp.tanh(tap.dense("layer1", hidden))
    return tap.dense("layer2", hidden)


def by_hand(params, gates, inputs):
    """The same network for one example, its gates (all neurons side by side) written out."""
    first, second = gates[: SIZES[1]], gates[SIZES[1] :]
    hidden = jnp.tanh(first * (inputs @ params["layer0"]["kernel"] + params["layer0"]["bias"]))
    hidden = jnp.tanh(second * (hidden @ params["layer1"]["kernel"] + params["layer1"]["bias"]))
    return hidden @ params["layer2"]["kernel"] + params["layer2"]["bias"]


def data(count: int = 24, seed: int = 1) -> tuple[np.ndarray, np.ndarray]:
    generator = np.random.default_rng(seed)
    return generator.normal(size=(count, SIZES[0])), generator.integers(0, SIZES[-1], count)


@pytest.fixture
def double():
    with jax.enable_x64(True):
        yield


def test_gate_gradients_are_finite_differences(double):
    params, (inputs, labels) = tiny_params(), data()
    network = as_network(from_function(tiny, params), inputs)
    found = gate_gradients(network, [(inputs, labels)], form="full")

    def loss(gates):
        outputs = jnp.stack([by_hand(params, gates, row) for row in inputs])
        return np.asarray(cross_entropy.value(outputs, jnp.asarray(labels)))

    step = 1e-5 * np.eye(UNITS)
    gradients = np.stack([(loss(1 + row) - loss(1 - row)) / 2e-5 for row in step], axis=1)
    np.testing.assert_allclose(found.mean, gradients.mean(0), atol=1e-9)
    np.testing.assert_allclose(found.mean_absolute, np.abs(gradients).mean(0), atol=1e-9)
    np.testing.assert_allclose(found.second, gradients.T @ gradients / len(inputs), atol=1e-9)
    assert found.count == len(inputs)
    diagonal = gate_gradients(network, [(inputs, labels)])
    np.testing.assert_allclose(diagonal.second, np.diag(found.second))


@pytest.mark.parametrize("loss", [cross_entropy, squared_error], ids=repr)
def test_gauss_newton_is_jacobian_hessian_jacobian(double, loss):
    params, (inputs, _) = tiny_params(), data()
    network = as_network(from_function(tiny, params), inputs)
    found = gate_curvature(network, [inputs], form="full", loss=loss)
    expected = np.zeros((UNITS, UNITS))
    for row in inputs:
        outputs = by_hand(params, jnp.ones(UNITS), row)
        jacobian = jax.jacobian(lambda gates, row=row: by_hand(params, gates, row))(jnp.ones(UNITS))
        label = jnp.zeros(1, int) if loss is cross_entropy else jnp.zeros((1, SIZES[-1]))
        hessian = jax.hessian(lambda logits, label=label: loss.value(logits[None], label)[0])(outputs)
        expected += np.asarray(jacobian.T @ hessian @ jacobian) / len(inputs)
    np.testing.assert_allclose(found.curvature, expected, atol=1e-12)
    assert np.linalg.eigvalsh(found.curvature).min() > -1e-12
    np.testing.assert_allclose(gate_curvature(network, [inputs], loss=loss).curvature, np.diag(expected), atol=1e-12)


def test_gauss_newton_of_more_outputs_than_go_back_at_once(double):
    generator = np.random.default_rng(0)
    params = {
        name: {"kernel": jnp.asarray(generator.normal(size=shape))}
        for name, shape in {"hidden": (4, 3), "out": (3, 37)}.items()
    }
    inputs = generator.normal(size=(6, 4))

    def linear(tree, rows, tap):
        return tap.dense("out", tap.dense("hidden", rows))

    network = as_network(from_function(linear, params), inputs)
    hidden, kernel = inputs @ np.asarray(params["hidden"]["kernel"]), np.asarray(params["out"]["kernel"])
    expected = (hidden.T @ hidden / 6) * (kernel @ kernel.T)
    found = gate_curvature(network, [inputs], form="full", loss=squared_error).curvature
    np.testing.assert_allclose(found, expected, atol=1e-12)


def test_gauss_newton_is_the_hessian_where_outputs_are_linear_in_the_gates(double):
    params, (inputs, labels) = tiny_params(), data()

    def linear_behind(tree, rows, tap):
        return tap.dense("layer2", tap.dense("layer1", jnp.tanh(tap.dense("layer0", rows))))

    def mean_loss(gates):
        hidden = jnp.tanh(inputs @ params["layer0"]["kernel"] + params["layer0"]["bias"])
        hidden = gates * (hidden @ params["layer1"]["kernel"] + params["layer1"]["bias"])
        return cross_entropy.value(hidden @ params["layer2"]["kernel"] + params["layer2"]["bias"], jnp.asarray(labels)).mean()

    network = as_network(from_function(linear_behind, params), inputs)
    found = gate_curvature(network, [inputs], sites=["layer1"], form="full")
    np.testing.assert_allclose(found.curvature, jax.hessian(mean_loss)(jnp.ones(SIZES[2])), atol=1e-12)


def test_gates_may_stand_elsewhere(double):
    params, (inputs, labels) = tiny_params(), data()
    network = as_network(from_function(tiny, params), inputs)
    point = np.random.default_rng(3).random(UNITS)
    gates = {"layer0": point[: SIZES[1]], "layer1": point[SIZES[1] :]}

    def mean_loss(values):
        outputs = jax.vmap(lambda row: by_hand(params, values, row))(inputs)
        return cross_entropy.value(outputs, jnp.asarray(labels)).mean()

    found = gate_gradients(network, [(inputs, labels)], gates=gates)
    np.testing.assert_allclose(found.mean, jax.grad(mean_loss)(jnp.asarray(point)), atol=1e-12)
    with pytest.raises(ValueError, match="'layer0' has 4 units"):
        gate_gradients(network, [(inputs, labels)], gates={"layer0": np.ones(2)})


def test_statistics_do_not_depend_on_the_batch_size():
    inputs, labels = data(64)
    inputs = inputs.astype(np.float32)
    network = as_network(from_function(tiny, tiny_params()), inputs)
    whole = [(inputs, labels)]
    parts = [(inputs[start : start + 8], labels[start : start + 8]) for start in range(0, 64, 8)]
    uneven = [(inputs[:50], labels[:50]), (inputs[50:], labels[50:])]
    for statistic in (
        lambda batches: gate_gradients(network, batches, form="full").second,
        lambda batches: gate_curvature(network, batches, form="full").curvature,
        lambda batches: unit_activations(network, batches).second,
    ):
        reference = statistic(whole)
        for batches in (parts, uneven):
            np.testing.assert_allclose(statistic(batches), reference, rtol=1e-5, atol=1e-5 * np.abs(reference).max())


def test_activations_are_what_the_next_layer_reads():
    inputs, _ = data()
    inputs = inputs.astype(np.float32)
    network = as_network(from_function(tiny, tiny_params()), inputs)
    found = by_site(unit_activations(network, [inputs]).places, unit_activations(network, [inputs]).mean_absolute)
    params = jax.tree.map(np.asarray, tiny_params())
    hidden = np.tanh(inputs @ params["layer0"]["kernel"] + params["layer0"]["bias"])
    np.testing.assert_allclose(found["layer0"], np.abs(hidden).mean(0), rtol=1e-5)
    hidden = np.tanh(hidden @ params["layer1"]["kernel"] + params["layer1"]["bias"])
    np.testing.assert_allclose(found["layer1"], np.abs(hidden).mean(0), rtol=1e-5)


@pytest.mark.parametrize(("name", "unit"), [("cnn", "neuron"), ("transformer", "head")])
def test_adapters_agree(name, unit):
    example = EXAMPLES[name]()
    batches = [(example.inputs, np.arange(len(example.inputs)) % 3)]
    networks = [example.network(form) for form in example.forms]
    for statistic in (
        lambda network: gate_gradients(network, batches, unit=unit, form="full").second,
        lambda network: unit_activations(network, batches, unit=unit).mean_absolute,
    ):
        reference, *others = (statistic(network) for network in networks)
        for array in others:
            np.testing.assert_allclose(array, reference, rtol=1e-5, atol=1e-5 * np.abs(reference).max())


def test_closing_a_gate_is_what_the_quadratic_model_says_for_squared_error(double):
    """With a squared error and outputs linear in the gates the second-order model is the change of the loss, exactly."""
    params, (inputs, _) = tiny_params(), data()

    def linear_behind(tree, rows, tap):
        return tap.dense("layer2", tap.dense("layer1", jnp.tanh(tap.dense("layer0", rows))))

    network = as_network(from_function(linear_behind, params), inputs)
    targets = np.random.default_rng(5).normal(size=(len(inputs), SIZES[-1]))
    gradients = gate_gradients(network, [(inputs, targets)], sites=["layer1"], loss=squared_error)
    curvature = gate_curvature(network, [inputs], sites=["layer1"], form="full", loss=squared_error).curvature
    removed = np.array([1.0, 0.0, 1.0])

    def mean_loss(gates):
        outputs, _ = network.run(network.params, jnp.asarray(inputs), gates={"layer1": jnp.asarray(gates)})
        return float(squared_error.value(outputs, jnp.asarray(targets)).mean())

    predicted = -gradients.mean @ removed + 0.5 * removed @ curvature @ removed
    assert mean_loss(1 - removed) - mean_loss(np.ones(3)) == pytest.approx(predicted, rel=1e-10)


def test_bad_input_is_named():
    inputs, labels = data()
    inputs = inputs.astype(np.float32)
    network = as_network(from_function(tiny, tiny_params()), inputs)
    with pytest.raises(ValueError, match="no neurons at 'layer2'"):
        gate_gradients(network, [(inputs, labels)], sites=["layer2"])
    with pytest.raises(ValueError, match="no heads"):
        gate_curvature(network, [inputs], unit="head")
    with pytest.raises(ValueError, match="labels are needed"):
        gate_gradients(network, [inputs])
    with pytest.raises(ValueError, match="0 to 2"):
        gate_gradients(network, [(inputs, labels + 1)])
    with pytest.raises(ValueError, match="NaN"):
        gate_gradients(network, [(np.full_like(inputs, np.nan), labels)])
    with pytest.raises(ValueError, match="form is 'diagonal' or 'full'"):
        gate_curvature(network, [inputs], form="both")
    huge = as_network(
        from_function(tiny, jax.tree.map(lambda leaf: 3e38 * jnp.sign(leaf).astype(jnp.float32), tiny_params())), inputs
    )
    with pytest.raises(ValueError, match="layer"):
        gate_curvature(huge, [inputs])
