"""Shrinking: the smaller network computes what the masked one does."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from annealsubnet.evaluation import evaluate
from annealsubnet.masks import Mask
from annealsubnet.networks import as_network, from_linen
from annealsubnet.shrinking import shrink
from tests.models import EXAMPLES, build, mlp

MOVED = {"transformer": ("up",)}  # the others pass a LayerNorm, or are one of two axes


def random_mask(network, unit, only=None, seed=0):
    generator = np.random.default_rng(seed)
    kept = {}
    for name, site in network.sites(unit).items():
        if only is None or name in only:
            kept[name] = generator.random(site.size) < 0.5
            kept[name][generator.permutation(site.size)[:2]] = [True, False][: site.size]
    return Mask.of(network, unit, kept)


def outputs(small, inputs):
    if isinstance(small, tuple):
        module, variables = small
        return module.apply(variables, inputs)
    return small(inputs)


def parameters(small):
    tree = small[1]["params"] if isinstance(small, tuple) else nnx.state(small, nnx.Param)
    return sum(leaf.size for leaf in jax.tree.leaves(tree))


CASES = [*((name, "neuron") for name in EXAMPLES), ("transformer", "head")]


@pytest.mark.parametrize("form", ["nnx", "linen"])
@pytest.mark.parametrize(("name", "unit"), CASES)
def test_shrinking_is_zeroing(name, unit, form):
    example = EXAMPLES[name]()
    network = example.network(form)
    mask = random_mask(network, unit, MOVED.get(name) if unit == "neuron" else None)
    small = shrink(example.forms[form], mask)
    zeroed = jax.jit(network.apply)(mask.multiply(network.params), example.inputs)
    np.testing.assert_allclose(outputs(small, example.inputs), zeroed, rtol=1e-4, atol=1e-5)
    assert parameters(small) < sum(value.size for value in network.params.values())
    np.testing.assert_allclose(example.nnx(example.inputs), example.outputs, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("form", ["nnx", "linen"])
def test_a_shrunk_network_is_a_network(form):
    """It can be traced, evaluated and shrunk again; its cost is what the mask promised."""
    example = EXAMPLES["residual"]()
    network = example.network(form)
    mask = random_mask(network, "neuron")
    small = shrink(example.forms[form], mask)
    model = from_linen(*small) if form == "linen" else small
    batches = [(example.inputs, np.arange(5) % 3)]
    masked, shrunk = evaluate(network, batches, mask), evaluate(model, batches)
    assert shrunk.dense_flops == masked.flops
    assert shrunk.loss == pytest.approx(masked.loss, rel=1e-4)
    again = as_network(model, example.inputs)
    assert {name: site.size for name, site in again.neurons.items()} == {
        name: int(kept.sum()) for name, kept in mask.kept.items()
    }
    twice = shrink(model, random_mask(again, "neuron", ["second/conv2"], seed=1))
    assert np.isfinite(outputs(twice, example.inputs)).all()


def test_a_shrunk_linen_module_initializes_and_differentiates():
    example = EXAMPLES["cnn"]()
    network = example.network("linen")
    module, variables = shrink(example.linen, random_mask(network, "neuron"))
    fresh = jax.eval_shape(lambda: module.init(jax.random.key(0), example.inputs))
    assert jax.tree.map(jnp.shape, fresh) == jax.tree.map(jnp.shape, variables)
    gradient = jax.grad(lambda params: module.apply({**variables, "params": params}, example.inputs).sum())(variables["params"])
    assert jax.tree.map(jnp.shape, gradient) == jax.tree.map(jnp.shape, variables["params"])


ACTIVATIONS = [(jax.nn.sigmoid, jnp.cos), (jax.nn.gelu, jax.nn.softplus), (jnp.tanh, jax.nn.relu)]


@pytest.mark.parametrize("form", ["nnx", "linen"])
@pytest.mark.parametrize("activations", ACTIVATIONS, ids=lambda pair: pair[0].__name__)
def test_what_a_closed_unit_still_says_goes_into_the_next_bias(activations, form):
    example = mlp(activations)
    mask = random_mask(example.network(form), "neuron")
    small = shrink(example.forms[form], mask)
    zeroed = example.network(form).apply(mask.multiply(example.network(form).params), example.inputs)
    np.testing.assert_allclose(outputs(small, example.inputs), zeroed, rtol=1e-4, atol=1e-5)


class Sigmoid(nnx.Module):
    """Constants that arrive at a convolution without a bias, with or without a BatchNorm behind it."""

    def __init__(self, rngs, padding="VALID", norm=False):
        self.conv1 = nnx.Conv(2, 4, (3, 3), rngs=rngs)
        self.conv2 = nnx.Conv(4, 5, (2, 2), padding=padding, use_bias=False, rngs=rngs)
        self.bn = nnx.BatchNorm(5, rngs=rngs) if norm else lambda x: x
        self.out = nnx.Linear(5, 2, use_bias=False, rngs=rngs)

    def __call__(self, x):
        x = self.bn(self.conv2(jax.nn.sigmoid(self.conv1(x))))
        return self.out(jax.nn.sigmoid(x).mean(axis=(1, 2)))


class LinenSigmoid(nn.Module):
    norm: bool = False

    @nn.compact
    def __call__(self, x):
        x = jax.nn.sigmoid(nn.Conv(4, (3, 3), name="conv1")(x))
        x = nn.Conv(5, (2, 2), padding="VALID", use_bias=False, name="conv2")(x)
        x = nn.BatchNorm(use_running_average=True, name="bn")(x) if self.norm else x
        return nn.Dense(2, use_bias=False, name="out")(jax.nn.sigmoid(x).mean(axis=(1, 2)))


IMAGES = np.random.default_rng(2).normal(size=(3, 6, 6, 2)).astype(np.float32)


@pytest.mark.parametrize("padding", ["VALID", "CIRCULAR"])
@pytest.mark.parametrize("norm", [False, True])
def test_a_constant_makes_its_bias(norm, padding):
    model = build(lambda rngs: Sigmoid(rngs, padding, norm))
    network = as_network(model, IMAGES)
    mask = random_mask(network, "neuron")
    small = shrink(model, mask)
    assert (small.conv2.bias is None) == norm and small.out.bias is not None
    np.testing.assert_allclose(small(IMAGES), mask.apply(model)(IMAGES), rtol=1e-4, atol=1e-5)
    assert model.conv2.bias is None and model.out.bias is None


@pytest.mark.parametrize("norm", [False, True])
def test_a_constant_makes_its_bias_in_linen(norm):
    module = LinenSigmoid(norm)
    model = from_linen(module, module.init(jax.random.key(0), IMAGES), example=IMAGES)
    mask = random_mask(as_network(model), "neuron")
    small = shrink(model, mask)
    assert ("bias" in small[1]["params"]["conv2"]) != norm
    np.testing.assert_allclose(outputs(small, IMAGES), module.apply(mask.apply(model), IMAGES), rtol=1e-4, atol=1e-5)


def test_a_constant_before_a_zero_padded_border_is_refused():
    model = build(lambda rngs: Sigmoid(rngs, "SAME"))
    network = as_network(model, IMAGES)
    with pytest.raises(ValueError, match=r"'conv1' reach 'conv2'.*zero-padded border"):
        shrink(model, random_mask(network, "neuron", ["conv1"]))
    shrink(model, random_mask(network, "neuron", ["conv2"]))


class PreActivation(nnx.Module):
    """A BatchNorm behind a sum, which answers a closed channel by a constant."""

    def __init__(self, rngs):
        self.conv1, self.conv2 = nnx.Conv(2, 4, (3, 3), rngs=rngs), nnx.Conv(4, 4, (1, 1), rngs=rngs)
        self.bn, self.out = nnx.BatchNorm(4, rngs=rngs), nnx.Linear(4, 2, rngs=rngs)

    def __call__(self, x):
        x = self.conv1(x)
        return self.out(nnx.relu(self.bn(x + self.conv2(nnx.relu(x)))).mean(axis=(1, 2)))


def test_a_batch_norm_behind_a_sum():
    model = build(PreActivation)
    mask = random_mask(as_network(model, IMAGES), "neuron")
    small = shrink(model, mask)
    assert small.bn.num_features == mask.kept_count
    np.testing.assert_allclose(small(IMAGES), mask.apply(model)(IMAGES), rtol=1e-4, atol=1e-5)


class Grouped(nnx.Module):
    def __init__(self, rngs):
        self.conv1 = nnx.Conv(2, 4, (3, 3), rngs=rngs)
        self.conv2 = nnx.Conv(4, 6, (3, 3), feature_group_count=2, rngs=rngs)
        self.out = nnx.Linear(6, 2, rngs=rngs)

    def __call__(self, x):
        return self.out(nnx.relu(self.conv2(nnx.relu(self.conv1(x)))).mean(axis=(1, 2)))


@pytest.mark.parametrize(
    ("first", "second"),
    [([1, 0, 0, 1], [1, 1, 0, 0, 1, 1]), ([1, 0, 0, 1], [1, 1, 1, 1, 1, 1]), ([0, 0, 1, 1], [0, 0, 0, 1, 0, 1])],
)
def test_a_grouped_convolution(first, second):
    model = build(Grouped)
    network = as_network(model, IMAGES)
    mask = Mask.of(network, "neuron", {"conv1": np.array(first, bool), "conv2": np.array(second, bool)})
    np.testing.assert_allclose(shrink(model, mask)(IMAGES), mask.apply(model)(IMAGES), rtol=1e-4, atol=1e-5)


def test_a_grouped_convolution_with_unlike_groups_is_refused():
    model = build(Grouped)
    mask = Mask.of(as_network(model, IMAGES), "neuron", {"conv1": np.array([True, True, True, False])})
    with pytest.raises(ValueError, match=r"'conv2' is a convolution in 2 groups.*must stay alike"):
        shrink(model, mask)


def test_layer_norm_is_refused_by_name():
    example = EXAMPLES["transformer"]()
    for form in ("nnx", "linen"):
        with pytest.raises(ValueError, match=r"neurons of 'embed' pass through LayerNorm 'norm1'.*keep all of 'embed'"):
            shrink(example.forms[form], random_mask(example.network(form), "neuron", ["embed"]))
    all_kept = Mask.of(example.network(), "neuron", {"embed": np.ones(6, bool)})
    np.testing.assert_allclose(shrink(example.nnx, all_kept)(example.inputs), example.outputs, rtol=1e-5, atol=1e-6)


def test_half_of_a_heads_values_is_refused():
    example = EXAMPLES["transformer"]()
    kept = np.array([True, False, False, True, True, True])
    with pytest.raises(ValueError, match=r"outputs of 'attention/value'.*no block"):
        shrink(example.nnx, Mask.of(example.network(), "neuron", {"attention/value": kept}))


def test_a_linen_module_of_modules():
    inputs = np.ones((2, 4), np.float32)
    module = nn.Sequential([nn.Dense(8), nn.relu, nn.Dense(6), jnp.cos, nn.Dense(3)])
    variables = module.init(jax.random.key(0), inputs)
    model = from_linen(module, variables, example=inputs)
    mask = random_mask(as_network(model), "neuron")
    small = shrink(model, mask)
    assert isinstance(small[0], nn.Sequential)
    np.testing.assert_allclose(outputs(small, inputs), module.apply(mask.apply(model), inputs), rtol=1e-4, atol=1e-5)
    np.testing.assert_array_equal(jax.tree.leaves(model.source[1])[0], jax.tree.leaves(variables)[0])


class Embedded(nnx.Module):
    """Attention added to an embedding, which no mask can close."""

    def __init__(self, rngs):
        self.embed, self.fc, self.out = nnx.Embed(7, 4, rngs=rngs), nnx.Linear(4, 4, rngs=rngs), nnx.Linear(4, 2, rngs=rngs)

    def __call__(self, tokens):
        x = self.embed(tokens)
        return self.out((x + self.fc(x)).mean(axis=1))


def test_a_sum_with_an_embedding_is_refused():
    model = build(Embedded)
    mask = random_mask(as_network(model, np.zeros((2, 3), np.int32)), "neuron")
    with pytest.raises(ValueError, match="neurons of 'fc' pass through 'add' with what is no layer's output"):
        shrink(model, mask)


class Fixed(nnx.Module):
    """Code that knows how many neurons there are."""

    def __init__(self, rngs, kind):
        self.fc, self.out, self.kind = nnx.Linear(2, 4, rngs=rngs), nnx.Linear(4, 2, rngs=rngs), kind

    def __call__(self, x):
        x = self.fc(x)
        x = x.reshape(-1, 2, 2).reshape(-1, 4) if self.kind == "shape" else x / x.shape[-1]
        return self.out(x)


@pytest.mark.parametrize(
    ("kind", "says"), [("shape", "does not run.*fixes their sizes"), ("number", "depends on how many units")]
)
def test_code_that_fixes_sizes_is_refused(kind, says):
    model = build(lambda rngs: Fixed(rngs, kind))
    mask = random_mask(as_network(model, np.ones((1, 2), np.float32)), "neuron")
    with pytest.raises(ValueError, match=says):
        shrink(model, mask)


class Rematerialized(nnx.Module):
    def __init__(self, rngs):
        self.first, self.out = nnx.Linear(4, 6, rngs=rngs), nnx.Linear(6, 3, rngs=rngs)

    def __call__(self, x):
        return self.out(nnx.remat(lambda layer, x: nnx.relu(layer(x)))(self.first, x))


def test_a_module_whose_layers_are_rematerialized():
    model, inputs = build(Rematerialized), np.random.default_rng(0).normal(size=(5, 4)).astype(np.float32)
    mask = random_mask(as_network(model, inputs), "neuron")
    np.testing.assert_allclose(shrink(model, mask)(inputs), mask.apply(model)(inputs), rtol=1e-5, atol=1e-6)


def test_other_refusals():
    example = EXAMPLES["mlp"]()
    network = example.network()
    with pytest.raises(ValueError, match=r"removes all 8 neurons of 'fc1'; at least one must stay"):
        shrink(example.nnx, Mask.of(network, "neuron", {"fc1": np.zeros(8, bool)}))
    with pytest.raises(ValueError, match="mask of weights"):
        shrink(example.nnx, Mask.of(network, "weight", {"fc1": np.ones((6, 8), bool)}))
    with pytest.raises(ValueError, match="plain function"):
        shrink(example.function, random_mask(network, "neuron"))
    other = build(lambda rngs: nnx.Sequential(nnx.Linear(6, 8, rngs=rngs), nnx.Linear(8, 2, rngs=rngs)))
    with pytest.raises(ValueError, match="made for another model"):
        shrink(other, random_mask(network, "neuron"))
