"""Every layer is a matrix product: patches times matrix = what the layer returned."""

import tracemalloc

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from annealsubnet.networks import as_network, from_function, from_linen
from tests.models import build

IMAGES = (2, 7, 8, 4)
SERIES = (2, 9, 4)

# name: (arguments of the convolution, inputs)
CONVOLUTIONS = {
    "plain": ({"kernel_size": (3, 3)}, IMAGES),
    "strided": ({"kernel_size": (3, 2), "strides": (2, 1)}, IMAGES),
    "valid": ({"kernel_size": (3, 3), "padding": "VALID"}, IMAGES),
    "circular": ({"kernel_size": (4, 3), "padding": "CIRCULAR"}, IMAGES),
    "circular dilated": ({"kernel_size": (2, 3), "padding": "CIRCULAR", "kernel_dilation": 2}, IMAGES),
    "reflect": ({"kernel_size": (3, 4), "padding": "REFLECT"}, IMAGES),
    "explicit": ({"kernel_size": (3, 3), "padding": ((2, 0), (1, 3)), "strides": 2}, IMAGES),
    "one number": ({"kernel_size": (3, 3), "padding": 2}, IMAGES),
    "dilated": ({"kernel_size": (3, 2), "kernel_dilation": (2, 3)}, IMAGES),
    "input dilated": ({"kernel_size": (3, 3), "input_dilation": 2, "padding": 2}, IMAGES),
    "grouped": ({"kernel_size": (3, 3), "feature_group_count": 2}, IMAGES),
    "depthwise": ({"kernel_size": (3, 3), "feature_group_count": 4}, IMAGES),
    "series": ({"kernel_size": (3,), "strides": 2}, SERIES),
    "causal": ({"kernel_size": (3,), "padding": "CAUSAL", "kernel_dilation": 2}, SERIES),
    "grouped series": ({"kernel_size": (4,), "feature_group_count": 2}, SERIES),
}


def check_product(model, inputs):
    """Returns the network's only layer, after comparing its product with what it returned."""
    network = as_network(model, inputs)
    (layer,) = network.layers.values()
    _, records = network.run(network.params, inputs, record=[layer.name])
    read, returned = records[layer.name]
    matrix = layer.matrix(network.params[layer.kernel])
    product = jnp.einsum("ngi,gio->ngo", layer.patches(read), matrix).reshape(returned.shape)
    if layer.bias is not None:
        product = product + network.params[layer.bias]
    np.testing.assert_allclose(product, returned, rtol=1e-4, atol=1e-5)
    np.testing.assert_array_equal(layer.from_matrix(matrix), network.params[layer.kernel])
    return layer


def noise(shape):
    return np.random.default_rng(0).normal(size=shape).astype(np.float32)


@pytest.mark.parametrize("name", CONVOLUTIONS)
def test_nnx_convolutions(name):
    options, shape = CONVOLUTIONS[name]
    layer = check_product(build(lambda rngs: nnx.Conv(4, 8, **options, rngs=rngs)), noise(shape))
    assert (layer.outputs, layer.depthwise) == (8, name == "depthwise")


@pytest.mark.parametrize("name", ["strided", "circular", "causal", "depthwise"])
def test_linen_convolutions(name):
    options, shape = CONVOLUTIONS[name]
    module, inputs = nn.Conv(8, **options), noise(shape)
    check_product(from_linen(module, module.init(jax.random.key(0), inputs)), inputs)


@pytest.mark.parametrize("shape", [(2, 6), (2, 3, 6)])
def test_dense(shape):
    assert check_product(build(lambda rngs: nnx.Linear(6, 5, use_bias=False, rngs=rngs)), noise(shape)).bias is None


@pytest.mark.parametrize(
    ("axis", "inputs", "outputs"), [(-1, (6,), (2, 3)), ((-2, -1), (2, 3), (4,)), ((-2, -1), (3, 2), (2, 2))]
)
def test_dense_general(axis, inputs, outputs):
    layer = check_product(build(lambda rngs: nnx.LinearGeneral(inputs, outputs, axis=axis, rngs=rngs)), noise((2, 3, *inputs)))
    assert (layer.fan_in, layer.outputs) == (6, np.prod(outputs))
    module = nn.DenseGeneral(outputs, axis=axis)
    check_product(from_linen(module, module.init(jax.random.key(0), noise((2, 3, *inputs)))), noise((2, 3, *inputs)))


def test_a_function_declares_its_layers():
    params = {"deep": {"conv": {"kernel": noise((3, 3, 2, 6)), "bias": noise((6,))}}}
    model = from_function(lambda _, x, tap: tap.conv("deep/conv", x, strides=2, padding=((1, 1), (0, 2)), groups=2), params)
    assert check_product(model, noise(IMAGES)).name == "deep/conv"


def test_channels_are_spread_over_the_window():
    layer = check_product(build(lambda rngs: nnx.Conv(4, 8, (3, 2), feature_group_count=2, rngs=rngs)), noise(IMAGES))
    spread = layer.inputs_of_channels(np.arange(4))
    np.testing.assert_array_equal(spread, [[0, 1] * 6, [2, 3] * 6])


def test_a_large_layer_makes_no_object_for_each_weight():
    model = build(lambda rngs: nnx.Linear(4096, 4096, rngs=rngs))
    network = as_network(model, np.zeros((1, 4096), np.float32))
    (layer,) = network.layers.values()
    assert layer.matrix(np.asarray(network.params["kernel"])).base is not None


class Activated(nnx.Linear):
    def __call__(self, x):
        return nnx.relu(super().__call__(x))


class LinenActivated(nn.Dense):
    @nn.compact
    def __call__(self, x):
        return nn.relu(super().__call__(x))


def low_rank(rngs):
    return nnx.LoRALinear(4, 3, lora_rank=2, b_initializer=nnx.initializers.normal(), rngs=rngs)


@pytest.mark.parametrize("kind", [lambda rngs: Activated(4, 3, rngs=rngs), low_rank, LinenActivated(3)])
def test_what_a_subclass_adds_is_not_the_layer(kind):
    inputs = noise((5, 4))
    if isinstance(kind, nn.Module):
        check_product(from_linen(kind, kind.init(jax.random.key(0), inputs)), inputs)
    else:
        check_product(build(kind), inputs)


def test_a_linen_layer_in_remat():
    module, inputs = nn.remat(nn.Dense)(3), noise((5, 4))
    check_product(from_linen(module, module.init(jax.random.key(0), inputs)), inputs)


class LongAttention(nnx.Module):
    def __init__(self, rngs):
        self.fc, self.attention = nnx.Linear(2, 4, rngs=rngs), nnx.MultiHeadAttention(2, 4, decode=False, rngs=rngs)

    def __call__(self, x):
        return self.attention(self.fc(x))


def test_following_labels_takes_no_memory_for_every_pair_of_tokens():
    """A label a weight of this attention would be 256 MiB an operation."""
    model = build(LongAttention)
    tracemalloc.start()
    try:
        network = as_network(model, np.zeros((1, 2**12, 2), np.float32))
        _, most = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert list(network.heads) == ["attention"] and most < 2**26
