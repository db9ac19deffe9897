"""Moments equal their definition, whatever the batches, and memory does not grow with the examples."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from annealsubnet.networks import as_network, from_function
from annealsubnet.solvers.select_refit import error_curves
from annealsubnet.statistics.moments import input_moments, self_regression
from annealsubnet.statistics.targets import targets_from_start
from tests.models import regression_in, residual


class Network(nnx.Module):
    """Conv, grouped Conv, Dense."""

    def __init__(self) -> None:
        rngs = nnx.Rngs(0)
        self.conv = nnx.Conv(2, 4, (3, 3), strides=2, rngs=rngs)
        self.grouped = nnx.Conv(4, 6, (2, 2), feature_group_count=2, padding="VALID", rngs=rngs)
        self.dense = nnx.Linear(24, 3, use_bias=False, rngs=rngs)

    def __call__(self, inputs):
        hidden = nnx.relu(self.grouped(nnx.relu(self.conv(inputs))))
        return self.dense(hidden.reshape(len(hidden), -1))


@pytest.fixture(scope="module")
def setting():
    inputs = np.random.default_rng(0).normal(size=(40, 6, 6, 2)).astype(np.float32)
    return as_network(Network(), inputs), inputs


def vectors_of(network, inputs, name, params=None):
    """The layer's input vectors and outputs, in float64."""
    layer = network.layers[name]
    _, records = network.run(network.params if params is None else params, inputs, record=[name])
    vectors = np.asarray(layer.patches(records[name][0]), np.float64)
    return vectors, np.asarray(records[name][1], np.float64).reshape(len(vectors), layer.groups, -1)


@pytest.mark.parametrize("name", ["conv", "grouped", "dense"])
def test_moments_equal_their_definition(setting, name):
    network, inputs = setting
    vectors, outputs = vectors_of(network, inputs, name)
    moments = input_moments(network, [inputs])[name]
    np.testing.assert_allclose(moments.gram, np.einsum("vgi,vgj->gij", vectors, vectors) / len(vectors), atol=1e-6)
    np.testing.assert_allclose(moments.mean, vectors.mean(0), atol=1e-6)
    assert moments.count == len(vectors)
    regression = self_regression(network.layers[name], moments, network.params)
    np.testing.assert_allclose(regression.cross, np.einsum("vgi,vgo->gio", vectors, outputs) / len(vectors), atol=1e-5)
    np.testing.assert_allclose(regression.target_energy, (outputs**2).mean(0), rtol=1e-5)


@pytest.mark.parametrize("name", ["conv", "grouped", "dense"])
def test_a_pass_over_data_and_algebra_give_the_same_regression(setting, name):
    network, inputs = setting
    measured = regression_in(network, inputs, name)
    derived = self_regression(network.layers[name], input_moments(network, [inputs])[name], network.params)
    for part in ("gram", "cross", "mean", "target_mean", "target_energy"):
        np.testing.assert_allclose(getattr(measured, part), getattr(derived, part), rtol=1e-5, atol=1e-6)


def test_present_inputs_are_held_against_the_dense_networks_outputs(setting):
    network, inputs = setting
    pruned = dict(network.params)
    pruned["conv/kernel"] = pruned["conv/kernel"].at[..., 0].set(0)
    present, _ = vectors_of(network, inputs, "grouped", pruned)
    _, dense = vectors_of(network, inputs, "grouped")
    found = regression_in(network, inputs, "grouped", params=pruned)
    np.testing.assert_allclose(found.cross, np.einsum("vgi,vgo->gio", present, dense) / len(dense), atol=1e-5)


def test_statistics_do_not_depend_on_the_batches(setting):
    network, inputs = setting
    whole = input_moments(network, [inputs])
    for size in (8, 7, 1):
        parts = input_moments(network, [inputs[start : start + size] for start in range(0, len(inputs), size)])
        for name, moments in whole.items():
            scale = np.abs(moments.gram).max()
            np.testing.assert_allclose(parts[name].gram, moments.gram, atol=1e-5 * scale)
            np.testing.assert_allclose(parts[name].mean, moments.mean, atol=1e-5 * np.sqrt(scale))


def test_centering_takes_the_best_constant_out(setting):
    network, inputs = setting
    regression = self_regression(network.layers["conv"], input_moments(network, [inputs])["conv"], network.params)
    vectors, outputs = vectors_of(network, inputs, "conv")
    centered = regression.centered()
    deviations = vectors - vectors.mean(0)
    np.testing.assert_allclose(centered.gram, np.einsum("vgi,vgj->gij", deviations, deviations) / len(vectors), atol=1e-5)
    np.testing.assert_allclose(centered.target_energy, outputs.var(0), rtol=1e-4)
    assert not regression.without(np.zeros_like(regression.target_mean)).with_bias


def test_statistics_that_overflow_name_the_layer(setting):
    network, inputs = setting
    with pytest.raises(ValueError, match="layer 'grouped'"):
        input_moments(network, [inputs * np.float32(1e30)], layers=["grouped"])


def test_inputs_that_never_vary_have_no_variance():
    inputs = np.random.default_rng(0).normal(size=(500, 6)).astype(np.float32)
    inputs[:, 1], inputs[:, 4] = 0.0, 3.3
    network = as_network(nnx.Linear(6, 2, rngs=nnx.Rngs(0)), inputs)
    (name,) = network.layers
    centered = self_regression(network.layers[name], input_moments(network, [inputs])[name], network.params).centered()
    assert not centered.gram[0][[1, 4]].any() and not centered.cross[0][[1, 4]].any()
    assert (np.diag(centered.gram[0])[[0, 2, 3, 5]] > 0.5).all()


@pytest.mark.parametrize("form", ["nnx", "linen", "function"])
@pytest.mark.parametrize("name", ["first/conv2", "second/conv2", "second/shortcut"])
def test_targets_through_a_sum_restore_the_dense_networks_sum(name, form):
    example = residual()
    network, inputs = example.network(form), example.inputs
    changed = {path: value * (1.5 if path.startswith("stem") else 1.0) for path, value in network.params.items()}
    with jax.disable_jit():  # as the run below, to the last digit
        ((read, targets),) = targets_from_start(network, [inputs], name, changed, network.params)
    _, records = network.run(changed, inputs, record=[name])
    np.testing.assert_array_equal(read, records[name][0])
    shifted, _ = network.run(changed, inputs, shifts={name: targets - records[name][1]})
    wanted = network.apply(network.params, inputs)
    assert np.abs(network.apply(changed, inputs) - wanted).max() > 0.01
    if name.startswith("second"):  # the outputs read nothing but the last sum
        np.testing.assert_allclose(shifted, wanted, atol=1e-4)
    found = regression_in(network, inputs, name, params=changed)
    flat = np.asarray(targets, np.float64).reshape(-1, targets.shape[-1])
    np.testing.assert_allclose(found.target_energy[0], (flat**2).mean(0), rtol=1e-4)


@pytest.mark.parametrize("name", ["stem", "first/conv1", "out"])
def test_without_a_sum_the_targets_are_the_dense_layers_outputs(name):
    example = residual()
    network, inputs = example.network(), example.inputs
    changed = {path: value * (1.5 if path.startswith("stem") else 1.0) for path, value in network.params.items()}
    ((read, targets),) = targets_from_start(network, [inputs], name, changed, network.params)
    np.testing.assert_allclose(read, network.run(changed, inputs, record=[name])[1][name][0], atol=1e-5)
    np.testing.assert_allclose(targets, network.run(network.params, inputs, record=[name])[1][name][1], atol=1e-5)


BEHIND = {
    "gelu": lambda tap, z: jax.nn.gelu(z),
    "a square root of a sum": lambda tap, z: z + jnp.sqrt(1 + z**2),
    "its own branch": lambda tap, z: z + tap.dense("inner", jnp.tanh(z)),
}


@pytest.mark.parametrize("behind", BEHIND.values(), ids=BEHIND)
def test_a_sum_with_what_follows_from_a_layer_is_no_residual_sum(behind):
    """Its other part errs because the layer errs, so nothing is to be made up for: the target is the dense layer's outputs."""
    rng = np.random.default_rng(0)
    names = ["below", "layer", *(["inner"] if behind is BEHIND["its own branch"] else []), "out"]
    weights = {name: {"kernel": jnp.asarray(rng.normal(size=(6, 6)), jnp.float32)} for name in names}

    def apply(params, inputs, tap):
        return tap.dense("out", behind(tap, tap.dense("layer", jax.nn.relu(tap.dense("below", inputs)))))

    inputs = rng.normal(size=(20, 6)).astype(np.float32)
    network = as_network(from_function(apply, weights), inputs)
    changed = {path: value * (0.5 if path.startswith("below") else 1.0) for path, value in network.params.items()}
    ((_, targets),) = targets_from_start(network, [inputs], "layer", changed, network.params)
    np.testing.assert_allclose(targets, network.run(network.params, inputs, record=["layer"])[1]["layer"][1], atol=1e-5)
    restored, _ = network.run(changed, inputs, maps={"layer": lambda _: targets})
    np.testing.assert_allclose(restored, network.apply(network.params, inputs), atol=1e-4)


def test_moments_of_half_floats_do_not_overflow():
    """Their squares add up beyond the largest float16."""
    inputs = np.full((4000, 2), 30.0, np.float32)
    network = as_network(
        nnx.Linear(2, 2, dtype=jnp.float16, param_dtype=jnp.float16, rngs=nnx.Rngs(0)), inputs.astype(np.float16)
    )
    (moments,) = input_moments(network, [inputs.astype(np.float16)]).values()
    np.testing.assert_allclose(moments.gram[0], 900.0)


@pytest.mark.parametrize("count", [60, 1000, 20_000])
def test_many_inputs_that_never_vary_are_dead_whatever_their_values(count):
    rng = np.random.default_rng(0)
    inputs = np.concatenate([rng.normal(size=(count, 2)), np.tile(rng.uniform(0.05, 8, size=200), (count, 1))], 1)
    inputs = inputs.astype(np.float32)
    network = as_network(nnx.Linear(202, 2, rngs=nnx.Rngs(0)), inputs)
    (moments,) = input_moments(network, [inputs]).values()
    centered = self_regression(next(iter(network.layers.values())), moments, network.params).centered()
    assert not centered.gram[0, 2:].any() and not centered.cross[0, 2:].any()
    for method in ("forward", "backward"):
        curves = error_curves(centered.gram[0], centered.cross[0], centered.target_energy[0], method=method)
        assert (curves.error[2] < 0.05 * curves.error[0]).all() and set(curves.order[:2].ravel().tolist()) == {0, 1}
