"""Chunks: what a pass holds of one fits the memory, the factors of the loss's curvature too."""

from dataclasses import replace

import numpy as np
import pytest
from flax import nnx

from annealsubnet.losses import cross_entropy
from annealsubnet.networks import as_network
from annealsubnet.statistics.passes import backward_chunk, curvature_chunk
from annealsubnet.statistics.streams import CHUNK_BYTES


@pytest.mark.parametrize("outputs", [10, 1000])
def test_the_factors_of_a_chunk_fit_the_memory(outputs):
    network = as_network(nnx.Linear(4, outputs, rngs=nnx.Rngs(0)), np.zeros((2, 4), np.float32))
    factors = 4 * outputs**2
    without_products = replace(cross_entropy, curvature_products=None)
    assert 0 < curvature_chunk(network) * factors <= CHUNK_BYTES
    assert 0 < backward_chunk(network, loss=without_products) * factors <= CHUNK_BYTES
    assert backward_chunk(network, loss=cross_entropy) == backward_chunk(network)
