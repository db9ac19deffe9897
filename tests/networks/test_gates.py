"""Closing gates = zeroing parameters, unit by unit and for any set of them."""

import jax
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
    return jax.jit(lambda params, x, factors: network.run(params, x, gates=factors)[0])(network.params, inputs, gates)


@pytest.mark.parametrize("form", ["nnx", "linen", "function"])
@pytest.mark.parametrize(("name", "unit"), [*((name, "neuron") for name in EXAMPLES), ("transformer", "head")])
def test_closing_gates_is_zeroing_parameters(name, form, unit):
    example = EXAMPLES[name]()
    network = example.network(form)
    mask = random_mask(network, unit)
    zeroed = jax.jit(network.apply)(mask.multiply(network.params), example.inputs)
    np.testing.assert_allclose(outputs_gated(network, mask, example.inputs), zeroed, rtol=1e-4, atol=1e-5)


def test_gates_of_each_example_are_its_own():
    example = EXAMPLES["cnn"]()
    network = example.network()
    gates = {
        name: jnp.asarray(np.random.default_rng(0).random((len(example.inputs), site.size)), jnp.float32)
        for name, site in network.neurons.items()
    }
    run = jax.jit(lambda x, factors: network.run(network.params, x, gates=factors)[0])
    together = run(example.inputs, gates)
    for row in range(len(example.inputs)):
        alone = run(example.inputs[row : row + 1], {name: array[row] for name, array in gates.items()})
        np.testing.assert_allclose(together[row], alone[0], rtol=1e-4, atol=1e-5)


def test_a_shift_adds_to_a_layer():
    example = EXAMPLES["mlp"]()
    network = example.network()
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
