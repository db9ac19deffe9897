"""The joint fit does not depend on how its examples are cut into chunks, whatever the model computes of an example."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from annealsubnet import Mask, from_function
from annealsubnet.fitting import fit_network
from annealsubnet.networks import as_network
from annealsubnet.statistics.weight_distance import distance_to


def standardizing(params, inputs, tap):
    """Two layers behind a standardization of each example, which has no finite value for a constant one."""
    inputs = (inputs - inputs.mean(1, keepdims=True)) / inputs.std(1, keepdims=True)
    return tap.dense("out", jax.nn.relu(tap.dense("first", inputs)))


@pytest.mark.parametrize("chunk", [1024, 20, 7])
def test_the_last_chunk_is_filled_up_with_nothing_that_counts(chunk, monkeypatch):
    rng = np.random.default_rng(0)
    params = {
        name: {"kernel": jnp.asarray(rng.normal(size=shape) / np.sqrt(shape[0]), jnp.float32)}
        for name, shape in (("first", (6, 9)), ("out", (9, 3)))
    }
    inputs = rng.normal(size=(41, 6)).astype(np.float32)
    network = as_network(from_function(standardizing, params), inputs[:2])
    kept = {name: rng.random(layer.shape) < 0.6 for name, layer in network.layers.items()}
    mask = Mask.of(network, "weight", kept)
    monkeypatch.setattr("annealsubnet.fitting.backward_chunk", lambda network, **options: chunk)
    found = fit_network(network, mask, [inputs], params=network.params, steps=2)
    assert found.start == pytest.approx(distance_to(network, [inputs], params=mask.multiply(network.params)), rel=1e-4)
    assert found.value == pytest.approx(distance_to(network, [inputs], params=found.params), rel=1e-3)
    assert found.value < 0.5 * found.start
