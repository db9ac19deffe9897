"""Weights at the edge: dead inputs, fewer examples than inputs, a layer with a single weight, neurons that keep nothing."""

from functools import partial

import numpy as np
import pytest
from flax import nnx

from annealsubnet import baselines, prune, thin
from annealsubnet.networks import as_network

METHODS = {
    "annealed": prune,
    "magnitude": baselines.magnitude,
    **{name: baselines.ON_REQUEST[name] for name in ("wanda", "sparsegpt", "obc", "forward", "alps", "sparse-swaps")},
}


class Narrow(nnx.Module):
    """Eight inputs, six neurons, one neuron with a single weight behind it, two outputs."""

    def __init__(self) -> None:
        self.first = nnx.Linear(8, 6, rngs=nnx.Rngs(0))
        self.waist = nnx.Linear(6, 1, rngs=nnx.Rngs(1))
        self.single = nnx.Linear(1, 1, use_bias=False, rngs=nnx.Rngs(2))
        self.out = nnx.Linear(1, 2, rngs=nnx.Rngs(3))

    def __call__(self, inputs):
        hidden = self.waist(nnx.relu(self.first(inputs)))
        return self.out(self.single(hidden))


def images(examples: int) -> np.ndarray:
    """Inputs of which two are always zero, as at MNIST's border, one never varies and two are alike."""
    inputs = np.random.default_rng(0).normal(size=(examples, 8)).astype(np.float32)
    inputs[:, 6:] = 0.0
    inputs[:, 5] = 1.0
    inputs[:, 4] = inputs[:, 3]
    return inputs


def weights_of(pruned, inputs):
    network = as_network(pruned, inputs)
    return {name: np.asarray(network.params[layer.kernel]) for name, layer in network.layers.items()}


@pytest.mark.parametrize("name", METHODS)
def test_singular_moments_give_finite_weights_of_sensible_size(name):
    inputs = images(5)  # fewer than inputs
    mask, pruned = METHODS[name](Narrow(), [inputs], keep=0.5, scope="layer", seed=0)
    dense = weights_of(Narrow(), inputs)
    for layer, kernel in weights_of(pruned, inputs).items():
        assert np.isfinite(kernel).all()
        assert np.abs(kernel).max() <= 30 * np.abs(dense[layer]).max()
        assert not kernel[~mask.kept[layer]].any()


@pytest.mark.parametrize("scope", ["layer", "neuron"])
@pytest.mark.parametrize("name", sorted(METHODS.keys() - {"magnitude"}))
def test_dead_inputs_are_not_kept_while_live_ones_go(name, scope):
    """However large their weights, which no training has moved."""
    model = Narrow()
    model.first.kernel[...] = model.first.kernel[...].at[6:].multiply(100)
    keep = {"first": 18 if scope == "layer" else 3}
    mask, _ = METHODS[name](model, [images(60)], keep=keep, scope=scope, seed=0)
    assert not mask.kept["first"][6:].any() and mask.kept["first"].sum() == 18


@pytest.mark.parametrize("scope", ["network", "layer"])
@pytest.mark.parametrize("effort", [0, 5])
@pytest.mark.parametrize("method", [partial(prune, refit=False, polish=1), thin], ids=["frozen", "thin"])
def test_all_layers_together_spend_nothing_on_dead_inputs_either(method, effort, scope):
    """No ridge may price weights that move nothing: what is kept does not depend on their size."""
    found, model = [], Narrow()
    for scale in (1, 100):
        model.first.kernel[...] = model.first.kernel[...].at[6:].multiply(scale)
        found.append(method(model, [images(60)], keep={"first": 18, "waist": 6}, scope=scope, effort=effort, seed=0)[0])
        assert not found[-1].kept["first"][6:].any() and found[-1].kept["first"].sum() == 18
    np.testing.assert_array_equal(found[0].kept["first"], found[1].kept["first"])


def test_thinning_leaves_weights_of_dead_inputs_as_they_are_where_more_are_asked_for_than_live():
    inputs = images(60)
    mask, pruned = thin(Narrow(), [inputs], keep={"first": 40}, scope="layer", effort=0, seed=0)
    kept = mask.kept["first"][6:]
    assert mask.kept["first"][:6].all() and kept.sum() == 4
    dense = weights_of(Narrow(), inputs)["first"][6:]
    np.testing.assert_array_equal(weights_of(pruned, inputs)["first"][6:][kept], dense[kept])


@pytest.mark.parametrize("name", sorted(METHODS.keys() - {"annealed", "obc", "forward"}))
def test_weights_of_dead_inputs_that_are_kept_stay_as_they_are(name):
    inputs = images(60)
    mask, pruned = METHODS[name](Narrow(), [inputs], keep={"first": 1.0}, scope="layer", seed=0)
    assert mask.kept["first"].all()
    np.testing.assert_allclose(weights_of(pruned, inputs)["first"], weights_of(Narrow(), inputs)["first"], atol=2e-2)


@pytest.mark.parametrize("name", METHODS)
def test_a_layer_with_a_single_weight_and_neurons_that_keep_nothing(name):
    inputs = images(60)
    mask, pruned = METHODS[name](Narrow(), [inputs], keep=4, scope="network", seed=0)
    assert mask.kept_count == 4
    assert (mask.kept["first"].sum(axis=0) == 0).any()
    assert np.isfinite(np.asarray(pruned(inputs))).all()


def test_a_layer_with_a_single_weight_keeps_it():
    mask, _ = prune(Narrow(), [images(60)], keep={"single": 1, "first": 3}, seed=0)
    assert mask.kept["single"].all() and mask.kept["first"].sum() == 3


def test_a_pattern_names_the_layer_that_it_does_not_divide():
    with pytest.raises(ValueError, match="'2:4' does not divide the 6 inputs of layer 'waist'"):
        prune(Narrow(), [images(20)], pattern="2:4", seed=0)
