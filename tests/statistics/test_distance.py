"""The distance in gates equals its definition, and its expansion holds to second order."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from annealsubnet.losses import cross_entropy
from annealsubnet.networks import as_network
from annealsubnet.statistics.distance import gate_distance


class Network(nnx.Module):
    """Two hidden layers."""

    def __init__(self) -> None:
        rngs = nnx.Rngs(0)
        self.first = nnx.Linear(5, 6, rngs=rngs)
        self.second = nnx.Linear(6, 4, rngs=rngs)
        self.out = nnx.Linear(4, 3, rngs=rngs)

    def __call__(self, inputs):
        return self.out(nnx.tanh(self.second(nnx.tanh(self.first(inputs)))))


@pytest.fixture(scope="module")
def setting():
    inputs = np.random.default_rng(0).normal(size=(20, 5)).astype(np.float32)
    return as_network(Network(), inputs), inputs


def outputs_at(network, inputs, gates):
    return network.run(network.params, inputs, gates={"first": gates[:6], "second": gates[6:]})[0]


@pytest.mark.parametrize("open_gates", [True, False])
def test_distance_gradient_and_curvature_equal_their_definition(setting, open_gates):
    network, inputs = setting
    point = np.ones(10, np.float32) if open_gates else np.random.default_rng(1).random(10).astype(np.float32)
    found = gate_distance(network, [inputs[:7], inputs[7:]], gates={"first": point[:6], "second": point[6:]})
    dense = network.apply(network.params, inputs)
    factor = np.asarray(cross_entropy.curvature_factor(dense))
    metric = np.einsum("cno,cnp->nop", factor, factor)
    jacobian = np.asarray(jax.jacobian(lambda gates: outputs_at(network, inputs, gates))(jnp.asarray(point)))
    moved = np.asarray(outputs_at(network, inputs, jnp.asarray(point)) - dense)
    np.testing.assert_allclose(found.value, 0.5 * np.einsum("no,nop,np->n", moved, metric, moved).mean(), atol=1e-7)
    gradient = np.einsum("nou,nop,np->nu", jacobian, metric, moved).mean(0)
    np.testing.assert_allclose(found.gradient, gradient, rtol=1e-4, atol=1e-6)
    curvature = np.einsum("nou,nop,npv->uv", jacobian, metric, jacobian) / len(inputs)
    np.testing.assert_allclose(found.curvature, curvature, rtol=1e-4, atol=1e-6)
    if open_gates:
        assert found.value == 0 and not found.gradient.any()
