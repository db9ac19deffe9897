"""Gradients and curvature by weights: against `vmap(grad)`, `jax.hessian` and `jax.jacobian` of the network itself."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from annealsubnet.losses import cross_entropy
from annealsubnet.networks import as_network, from_function
from annealsubnet.statistics.curvature import neuron_curvature, output_curvature, sketched_curvature
from annealsubnet.statistics.gradients import (
    gradient_products,
    kernel_curvature,
    kernel_gradients,
    kernels_of,
    mean_gradients,
    run_kernels,
)


def apply(params, inputs, tap):
    """Strided, dilated and grouped convolutions, pooling, a layer at many positions and one at a single one."""
    hidden = jnp.tanh(tap.conv("conv", inputs, strides=2))
    hidden = jnp.tanh(tap.conv("grouped", hidden, groups=2, kernel_dilation=2))
    hidden = jnp.tanh(tap.dense("each", hidden))
    return tap.dense("out", hidden.mean(axis=(1, 2)))


def network_and_data():
    generator = np.random.default_rng(0)
    shapes = {"conv": (3, 3, 2, 4), "grouped": (2, 2, 2, 6), "each": (6, 3), "out": (3, 3)}
    params = {name: {"kernel": jnp.asarray(generator.normal(size=shape))} for name, shape in shapes.items()}
    inputs, labels = generator.normal(size=(10, 6, 6, 2)), np.arange(10) % 3
    return as_network(from_function(apply, params), inputs), inputs, labels


@pytest.fixture
def double():
    with jax.enable_x64(True):
        yield


def per_example(network, inputs, labels):
    def loss(kernels, row, label):
        return cross_entropy.value(run_kernels(network, network.params, kernels, row[None]), label[None])[0]

    return jax.jit(jax.vmap(jax.grad(loss), (None, 0, 0)))(kernels_of(network, network.params), inputs, labels)


def test_moments_are_those_of_per_example_gradients(double):
    network, inputs, labels = network_and_data()
    found = kernel_gradients(network, [(inputs, labels)])
    mean = mean_gradients(network, [(inputs, labels)])
    for name, gradients in jax.tree.map(np.asarray, per_example(network, inputs, labels)).items():
        np.testing.assert_allclose(found.mean[name], gradients.mean(0), atol=1e-12)
        np.testing.assert_allclose(mean[name], gradients.mean(0), atol=1e-12)
        np.testing.assert_allclose(found.mean_absolute[name], np.abs(gradients).mean(0), atol=1e-12)
        np.testing.assert_allclose(found.second[name], (gradients**2).mean(0), atol=1e-12)


def test_products_are_differences_of_gradients(double):
    network, inputs, labels = network_and_data()
    generator = np.random.default_rng(2)
    vector = {name: generator.normal(size=layer.shape) for name, layer in network.layers.items()}

    def gradient(step):
        moved = {layer.kernel: network.params[layer.kernel] + step * vector[name] for name, layer in network.layers.items()}
        return mean_gradients(network, [(inputs, labels)], params={**network.params, **moved})

    ahead, behind = gradient(1e-5), gradient(-1e-5)
    for name, found in gradient_products(network, [(inputs, labels)], vector).items():
        np.testing.assert_allclose(found, (ahead[name] - behind[name]) / 2e-5, atol=1e-8)


def test_curvature_is_the_diagonal_of_gauss_newton(double):
    network, inputs, _ = network_and_data()
    kernels = kernels_of(network, network.params)
    outputs = run_kernels(network, network.params, kernels, jnp.asarray(inputs))
    jacobian = jax.jit(jax.jacrev(lambda values: run_kernels(network, network.params, values, jnp.asarray(inputs))))(kernels)
    probability = jax.nn.softmax(outputs)
    hessian = jnp.eye(3) * probability[:, None] - probability[:, :, None] * probability[:, None, :]
    for name, found in kernel_curvature(network, [inputs]).items():
        rows = np.asarray(jacobian[name]).reshape(10, 3, -1)
        expected = np.einsum("nci,ncd,ndi->i", rows, hessian, rows) / 10
        np.testing.assert_allclose(found.ravel(), expected, atol=1e-12)


def test_neuron_curvature_is_that_of_shifts(double):
    network, inputs, _ = network_and_data()
    rows = jnp.asarray(inputs)
    outputs, records = network.run(network.params, rows, record=network.layers)
    probability = jax.nn.softmax(outputs)
    hessian = jnp.eye(3) * probability[:, None] - probability[:, :, None] * probability[:, None, :]
    single = jax.jit(lambda values: output_curvature(network, network.params, values))(rows)
    for name, found in neuron_curvature(network, [inputs[:4], inputs[4:]]).items():
        shape = records[name][1].shape

        def shifted(shift, name=name):
            return network.run(network.params, rows, shifts={name: shift})[0]

        jacobian = np.asarray(jax.jit(jax.jacrev(shifted))(jnp.zeros(shape)))
        own = np.stack([jacobian[number, :, number] for number in range(10)])
        expected = jnp.einsum("nc...,ncd,nd...->n...", own, hessian, own)
        np.testing.assert_allclose(single[name], expected, atol=1e-12)
        np.testing.assert_allclose(found, expected.reshape(10, -1, shape[-1]).sum(1).mean(0), atol=1e-12)


def test_one_pass_back_estimates_the_curvature_without_bias():
    network, inputs, _ = network_and_data()
    inputs = inputs.astype(np.float32)
    exact = neuron_curvature(network, [inputs])
    found = sketched_curvature(network, [np.tile(inputs, (500, *(1,) * (inputs.ndim - 1)))], seed=0)
    for name, expected in exact.items():
        np.testing.assert_allclose(found[name].mean(), expected.mean(), rtol=0.1)
        np.testing.assert_allclose(found[name], expected, rtol=0.3)


def test_statistics_do_not_depend_on_the_batch_size():
    network, inputs, labels = network_and_data()
    inputs = inputs.astype(np.float32)
    whole = [(inputs, labels)]
    parts = [(inputs[start : start + 3], labels[start : start + 3]) for start in range(0, 10, 3)]
    for statistic in (
        lambda batches: kernel_gradients(network, batches).second,
        lambda batches: kernel_curvature(network, batches),
        lambda batches: neuron_curvature(network, batches),
        lambda batches: mean_gradients(network, batches),
    ):
        found = statistic(parts)
        for name, reference in statistic(whole).items():
            np.testing.assert_allclose(found[name], reference, rtol=1e-5, atol=1e-6 * np.abs(reference).max())


def test_a_layer_that_mixes_examples_is_named():
    def merged(params, inputs, tap):
        rows = tap.dense("each", inputs.reshape(-1, 2))
        return tap.dense("out", jnp.tanh(rows).reshape(len(inputs), -1))

    params = {"each": {"kernel": jnp.ones((2, 2))}, "out": {"kernel": jnp.ones((6, 3))}}
    inputs = np.ones((4, 3, 2), np.float32)
    network = as_network(from_function(merged, params), inputs)
    with pytest.raises(ValueError, match="'each' is called with"):
        kernel_gradients(network, [(inputs, np.zeros(4, int))])
