"""Losses against their definitions, and their curvature against JAX's Hessian."""

from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from annealsubnet.losses import cross_entropy, smoothed_cross_entropy, squared_error

OUTPUTS = jnp.asarray(np.random.default_rng(0).normal(size=(4, 3)), jnp.float32)
LABELS = jnp.asarray([0, 2, 1, 1])


@pytest.mark.parametrize("share", [0.0, 0.3])
def test_smoothed_labels_are_a_mixture_of_the_label_and_of_all_classes(share):
    target = (1 - share) * jax.nn.one_hot(LABELS, 3) + share / 3
    by_definition = -jnp.sum(target * jax.nn.log_softmax(OUTPUTS), axis=1)
    np.testing.assert_allclose(smoothed_cross_entropy(share).value(OUTPUTS, LABELS), by_definition, rtol=1e-5)


@pytest.mark.parametrize("loss", [cross_entropy, smoothed_cross_entropy(0.2), squared_error], ids=repr)
def test_the_factor_is_one_of_the_hessian(loss):
    labels = jax.nn.one_hot(LABELS, 3) if loss is squared_error else LABELS
    factor = loss.curvature_factor(OUTPUTS)
    for n in range(4):
        hessian = jax.hessian(lambda row: loss.value(row[None], labels[n][None])[0])(OUTPUTS[n])  # noqa: B023
        np.testing.assert_allclose(jnp.einsum("ri,rj->ij", factor[:, n], factor[:, n]), hessian, atol=1e-6)


def test_squared_errors_take_labels_like_the_outputs_or_one_number_for_one_output():
    target = jnp.asarray(np.random.default_rng(1).normal(size=4), jnp.float32)
    single = OUTPUTS[:, :1]
    expected = 0.5 * (single[:, 0] - target) ** 2
    np.testing.assert_allclose(squared_error.value(single, target), expected, rtol=1e-6)
    np.testing.assert_allclose(squared_error.value(single, target[:, None]), expected, rtol=1e-6)
    for outputs in (OUTPUTS, OUTPUTS[:3]):  # three labels of three outputs could be broadcast
        with pytest.raises(ValueError, match="labels like the outputs"):
            squared_error.value(outputs, target[: len(outputs)])


def test_equal_shares_are_one_loss_and_others_are_refused():
    assert smoothed_cross_entropy(0.1) is smoothed_cross_entropy(0.1)
    with pytest.raises(ValueError, match="spread over all classes"):
        smoothed_cross_entropy(1.0)


@pytest.mark.parametrize("loss", [cross_entropy, smoothed_cross_entropy(0.2), squared_error], ids=repr)
@pytest.mark.parametrize("own", [True, False])
def test_products_with_the_factor_and_its_transpose_are_those_of_the_array(loss, own):
    vectors, coefficients = jnp.asarray(np.random.default_rng(1).normal(size=(2, 4, 3)), jnp.float32)
    factor = loss.curvature_factor(OUTPUTS)
    loss = loss if own else replace(loss, curvature_products=None)
    found, back = jax.vjp(loss.products_at(OUTPUTS), vectors)
    np.testing.assert_allclose(found, jnp.einsum("rni,ni->rn", factor, vectors), atol=1e-6)
    np.testing.assert_allclose(*back(coefficients.T), jnp.einsum("rni,nr->ni", factor, coefficients), atol=1e-6)
