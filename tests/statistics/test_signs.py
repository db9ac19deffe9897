import jax
import numpy as np
import pytest

from annealsubnet.statistics.signs import random_signs


@pytest.mark.parametrize("shape", [(7,), (5, 3), (2, 5, 3)])
def test_signs_are_those_of_jax_for_the_shape(shape):
    key = jax.random.key(3)
    np.testing.assert_array_equal(random_signs(key, shape, np.float32), jax.random.rademacher(key, shape, dtype=np.float32))


def test_a_product_of_signs_with_a_matrix_has_its_gram_matrix_for_an_expectation():
    matrix = np.random.default_rng(0).normal(size=(4, 3))
    found = np.asarray(random_signs(jax.random.key(0), (20_000, 4), np.float32)) @ matrix
    np.testing.assert_allclose(found.T @ found / len(found), matrix.T @ matrix, atol=0.1)
