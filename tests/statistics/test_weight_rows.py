"""Rows of weights: against Jacobians computed directly, for dense layers, convolutions and groups of them."""

from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from annealsubnet import Mask
from annealsubnet.fitting import fit_network
from annealsubnet.losses import cross_entropy
from annealsubnet.networks import as_network
from annealsubnet.statistics.weight_distance import distance_to, weight_distance
from annealsubnet.statistics.weight_rows import distance_rows, gradient_rows


class Convolutional(nnx.Module):
    """A plain and a grouped convolution, and a dense layer."""

    def __init__(self) -> None:
        rngs = nnx.Rngs(0)
        self.first = nnx.Conv(2, 4, (3, 3), rngs=rngs)
        self.second = nnx.Conv(4, 4, (2, 2), feature_group_count=2, use_bias=False, rngs=rngs)
        self.out = nnx.Linear(4, 3, rngs=rngs)

    def __call__(self, inputs):
        return self.out(nnx.relu(self.second(nnx.relu(self.first(inputs)))).mean((1, 2)))


@pytest.fixture(scope="module")
def case():
    inputs = np.random.default_rng(0).normal(size=(12, 5, 5, 2)).astype(np.float32)
    network = as_network(Convolutional(), inputs)
    moved = {path: value * 0.8 + 0.05 for path, value in network.params.items()}
    return network, inputs, moved


def definition(network, params, inputs):
    """F^½ J by all kernels side by side `[examples, classes, weights]`, F^½ (f − f_0) likewise, and f."""
    kernels = {name: params[layer.kernel] for name, layer in network.layers.items()}

    def outputs(values):
        return network.apply({**params, **{network.layers[name].kernel: value for name, value in values.items()}}, inputs)

    jacobians = jax.jacrev(outputs)(kernels)
    flat = np.concatenate([np.asarray(jacobians[name]).reshape(len(inputs), 3, -1) for name in network.layers], axis=2)
    dense = network.apply(network.params, inputs)
    factors = np.asarray(cross_entropy.curvature_factor(dense))
    moved = np.asarray(outputs(kernels) - dense)
    return np.einsum("cnk,nkp->ncp", factors, flat), np.einsum("cnk,nk->nc", factors, moved)


def test_a_row_for_every_factor_is_the_gauss_newton_matrix(case):
    network, inputs, moved = case
    found = distance_rows(network, [inputs[:7], inputs[7:]], rows=36, seed=0, params=moved)
    rows, residual = definition(network, moved, inputs)
    assert found.matrix.shape == (36, rows.shape[2])
    np.testing.assert_allclose(found.matrix.T @ found.matrix, np.einsum("ncp,ncq->pq", rows, rows) / 12, atol=1e-5)
    np.testing.assert_allclose(found.matrix.T @ found.residual, np.einsum("ncp,nc->p", rows, residual) / 12, atol=1e-5)
    assert found.residual @ found.residual == pytest.approx((residual**2).sum() / 12, rel=1e-4)


@pytest.mark.parametrize("rows", [4, 12, 24])
def test_signed_rows_are_unbiased(case, rows):
    network, inputs, moved = case
    exact, residual = definition(network, moved, inputs)
    diagonal, pull = (exact**2).sum((0, 1)) / 12, np.einsum("ncp,nc->p", exact, residual) / 12
    drawn = [distance_rows(network, [inputs], rows=rows, seed=seed, params=moved) for seed in range(150)]
    assert {found.matrix.shape[0] for found in drawn} == {rows}
    mean = np.mean([(found.matrix**2).sum(0) for found in drawn], axis=0)
    assert np.abs(mean - diagonal).max() < 0.2 * diagonal.max()
    slope = np.mean([found.matrix.T @ found.residual for found in drawn], axis=0)
    assert np.abs(slope - pull).max() < 0.35 * np.abs(pull).max()


def test_chosen_weights_are_columns_of_all(case):
    network, inputs, moved = case
    whole = distance_rows(network, [inputs], rows=12, seed=3, params=moved)
    chosen = {"first": np.array([0, 5, 71]), "second": np.array([31, 2]), "out": np.array([11, 0])}
    part = distance_rows(network, [inputs], rows=12, seed=3, params=moved, chosen=chosen)
    for name, places in chosen.items():
        np.testing.assert_allclose(part.matrix[:, part.places[name]], whole.matrix[:, whole.places[name]][:, places], atol=1e-6)


def test_gradient_rows_are_gradients_of_groups(case):
    network, inputs, _ = case
    labels = np.arange(12) % 3
    found = gradient_rows(network, [(inputs, labels)], rows=4)

    def loss(kernels, images, answers):
        values = {**network.params, **{network.layers[name].kernel: value for name, value in kernels.items()}}
        return cross_entropy.value(network.apply(values, images), jnp.asarray(answers)).mean()

    kernels = {name: network.params[layer.kernel] for name, layer in network.layers.items()}
    for row in range(4):
        part = slice(3 * row, 3 * row + 3)
        gradient = jax.grad(loss)(kernels, inputs[part], labels[part])
        flat = np.concatenate([np.asarray(gradient[name]).ravel() for name in network.layers])
        np.testing.assert_allclose(found.matrix[row] * 2, flat, atol=1e-5)  # divided by the root of 4 rows


def test_distance_and_its_slopes(case):
    network, inputs, moved = case
    rows, residual = definition(network, moved, inputs)
    batches = [inputs[:5], inputs[5:]]
    drawn = [weight_distance(network, batches, params=moved, seed=seed) for seed in range(100)]
    assert drawn[0].value == pytest.approx((residual**2).sum() / 24, rel=1e-4)
    assert distance_to(network, batches, params=moved) == pytest.approx(drawn[0].value, rel=1e-5)
    gradient = np.concatenate([drawn[0].gradient[name].ravel() for name in network.layers])
    np.testing.assert_allclose(gradient, np.einsum("ncp,nc->p", rows, residual) / 12, atol=1e-5)
    curvature = np.mean([np.concatenate([each.curvature[name].ravel() for name in network.layers]) for each in drawn], axis=0)
    exact = (rows**2).sum((0, 1)) / 12
    assert np.abs(curvature - exact).max() < 0.25 * exact.max()
    assert weight_distance(network, batches, params=network.params, seed=0).value == pytest.approx(0.0, abs=1e-12)


def test_a_loss_with_products_is_measured_without_its_factors(case):
    """Of a thousand classes they would be a million numbers an example."""
    network, inputs, moved = case

    def no_factors(outputs):
        pytest.fail("the factors were asked for")

    with_products = replace(cross_entropy, curvature_factor=no_factors)
    with_factors = replace(cross_entropy, curvature_products=None)
    mask = Mask.of(network, "weight", {name: np.ones(layer.shape, bool) for name, layer in network.layers.items()})
    values = []
    for loss in (with_products, with_factors):
        options = {"params": moved, "loss": loss}
        distance = weight_distance(network, [inputs], seed=0, **options)
        rows = distance_rows(network, [inputs], rows=4, seed=0, **options)
        fit = fit_network(network, mask, [inputs], steps=1, products=3, **options)
        values.append(
            [
                distance_to(network, [inputs], **options),
                *(distance.value, distance.gradient, distance.curvature),
                *(rows.matrix, rows.residual, fit.start, fit.value),
            ]
        )
    jax.tree.map(lambda one, other: np.testing.assert_allclose(one, other, rtol=1e-3, atol=1e-6), *values)
