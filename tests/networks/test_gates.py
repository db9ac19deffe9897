"""Closing gates = zeroing parameters, unit by unit and for any set of them."""

import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from annealsubnet.masks import Mask
from annealsubnet.networks import as_network
from tests.models import EXAMPLES


def random_mask(network, unit, seed=0):
    generator = np.random.default_rng(seed)
    kept = {name: generator.random(site.size) < 0.5 for name, site in network.sites(unit).items()}
    for array in kept.values():
        array[generator.integers(len(array))] = True
    return Mask.of(network, unit, kept)


def outputs_gated(network, mask, inputs):
    gates = {name: jnp.asarray(array, jnp.float32) for name, array in mask.kept.items()}
    return network.run(network.params, inputs, gates=gates)[0]


@pytest.mark.parametrize("form", ["nnx", "linen", "function"])
@pytest.mark.parametrize("name", EXAMPLES)
@pytest.mark.parametrize("unit", ["neuron", "head"])
def test_closing_gates_is_zeroing_parameters(name, form, unit):
    example = EXAMPLES[name]()
    network = as_network(example.forms[form], example.inputs)
    for seed in range(2):
        mask = random_mask(network, unit, seed)
        zeroed = network.apply(mask.multiply(network.params), example.inputs)
        np.testing.assert_allclose(outputs_gated(network, mask, example.inputs), zeroed, rtol=1e-4, atol=1e-5)


def test_gates_of_each_example_are_its_own():
    example = EXAMPLES["cnn"]()
    network = as_network(example.nnx, example.inputs)
    gates = {
        name: jnp.asarray(np.random.default_rng(0).random((len(example.inputs), site.size)), jnp.float32)
        for name, site in network.neurons.items()
    }
    together, _ = network.run(network.params, example.inputs, gates=gates)
    for row in range(len(example.inputs)):
        alone = {name: array[row] for name, array in gates.items()}
        outputs, _ = network.run(network.params, example.inputs[row : row + 1], gates=alone)
        np.testing.assert_allclose(together[row], outputs[0], rtol=1e-4, atol=1e-5)


def test_a_shift_adds_to_a_layer():
    example = EXAMPLES["mlp"]()
    network = as_network(example.nnx, example.inputs)
    shift = jnp.arange(8.0)
    shifted, _ = network.run(network.params, example.inputs, shifts={"fc1": shift})
    params = {**network.params, "fc1/bias": network.params["fc1/bias"] + shift}
    np.testing.assert_allclose(shifted, network.apply(params, example.inputs), rtol=1e-5, atol=1e-6)


class Normed(nnx.Module):
    """A convolution whose BatchNorm cannot silence it alone."""

    def __init__(self, kind: str):
        rngs = nnx.Rngs(0)
        self.conv, self.out = nnx.Conv(2, 4, (3, 3), rngs=rngs), nnx.Linear(4, 2, rngs=rngs)
        self.bn = nnx.BatchNorm(4, use_scale=kind != "unscaled", rngs=rngs)
        self.bn.mean[...] = jnp.arange(1.0, 5.0)
        self.kind = kind

    def __call__(self, x):
        x = self.conv(x)
        if self.kind == "behind relu":
            x = self.bn(nnx.relu(x))
        elif self.kind == "beside":
            x = self.bn(x) + x
        else:
            x = self.bn(x)
        return self.out(x.mean(axis=(1, 2)))


@pytest.mark.parametrize("kind", ["unscaled", "behind relu", "beside"])
def test_a_batch_norm_that_cannot_silence_its_layer_is_not_gated(kind):
    model = Normed(kind)
    model.eval()
    inputs = np.random.default_rng(0).normal(size=(3, 4, 4, 2)).astype(np.float32)
    network = as_network(model, inputs)
    assert [gate.tap for gate in network.neurons["conv"].gates] == ["conv"]
    assert list(network.neurons["conv"].norms) == ["bn"]
    mask = Mask.of(network, "neuron", {"conv": np.array([True, False, True, False])})
    zeroed = mask.apply(model)(inputs)
    np.testing.assert_allclose(outputs_gated(network, mask, inputs), zeroed, rtol=1e-5, atol=1e-6)
