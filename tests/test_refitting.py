"""Refit: the least-squares optimum on the kept weights, for any mask."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from annealsubnet import Mask, refit
from annealsubnet.fitting import Fit
from annealsubnet.losses import cross_entropy
from annealsubnet.networks import as_network, from_function
from annealsubnet.refitting import fit_together, kept_weights, least_squares, refit_params
from annealsubnet.statistics.weight_distance import distance_to
from tests.models import regression_in


class Network(nnx.Module):
    """Two hidden layers, the second without a bias."""

    def __init__(self) -> None:
        rngs = nnx.Rngs(0)
        self.first = nnx.Linear(6, 8, rngs=rngs)
        self.second = nnx.Linear(8, 7, use_bias=False, rngs=rngs)
        self.out = nnx.Linear(7, 3, rngs=rngs)

    def __call__(self, inputs):
        return self.out(nnx.relu(self.second(nnx.tanh(self.first(inputs)))))


@pytest.fixture(scope="module")
def inputs():
    return np.random.default_rng(0).normal(size=(300, 6)).astype(np.float32)


def random_kept(network, seed=1):
    rng = np.random.default_rng(seed)
    return {name: rng.random(layer.shape) < 0.6 for name, layer in network.layers.items()}


@pytest.mark.parametrize("name", ["first", "second", "out"])
def test_least_squares_equals_numpy_on_the_examples(inputs, name):
    network = as_network(Network(), inputs)
    layer = network.layers[name]
    _, records = network.run(network.params, inputs, record=[name])
    vectors, targets = (np.asarray(part, np.float64) for part in records[name])
    kept = random_kept(network)[name]
    weights, bias = least_squares(regression_in(network, inputs, name), kept[None], np.zeros((1, *kept.shape)), ridge=0.0)
    constant = np.ones((len(vectors), int(layer.bias is not None)))
    for output in range(layer.outputs):
        chosen = kept[:, output]
        design = np.concatenate([vectors[:, chosen], constant], 1)
        wanted = np.linalg.lstsq(design, targets[:, output], rcond=None)[0]
        np.testing.assert_allclose(weights[0, chosen, output], wanted[: chosen.sum()], rtol=1e-3, atol=1e-4)
        if layer.bias is not None:
            np.testing.assert_allclose(bias[0, output], wanted[-1], atol=1e-3)
    assert not weights[0][~kept].any()


def test_refit_lowers_the_distance_to_the_dense_network(inputs):
    model = Network()
    network = as_network(model, inputs)
    mask = Mask.of(network, "weight", random_kept(network))
    before = {name: np.asarray(value) for name, value in network.params.items()}

    def distance(params):
        return float(((network.apply(params, inputs) - network.apply(network.params, inputs)) ** 2).mean())

    refitted = refit_params(network, mask, [inputs])
    assert distance(refitted) < 0.5 * distance(mask.multiply(network.params))
    for name, value in before.items():
        np.testing.assert_array_equal(value, network.params[name])
    for name, keep in mask.keeps().items():
        assert not np.asarray(refitted[name])[~np.broadcast_to(keep, refitted[name].shape)].any()
    np.testing.assert_allclose(refit(model, mask, [inputs])(inputs), network.apply(refitted, inputs), atol=1e-6)


@pytest.mark.parametrize(("count", "most_work"), [(64, 1e12), (1200, 1e12), (1200, 0.0)])
def test_a_refit_of_all_layers_together_is_nearer(count, most_work, monkeypatch):
    """By small batches where passes cost more than that, else all examples at once."""
    monkeypatch.setattr("annealsubnet.refitting._MOST_WORK", most_work)
    examples = np.random.default_rng(5).normal(size=(count, 6)).astype(np.float32)
    model = Network()
    network = as_network(model, examples)
    mask = Mask.of(network, "weight", random_kept(network))

    def distance(pruned):
        return distance_to(network, [examples], params=network.replace(pruned).params)

    apart = refit(model, mask, [examples])
    together = refit(model, mask, [examples], together=True, seed=1)
    assert distance(together) < 0.9 * distance(apart)
    params = network.replace(together).params
    for path, keep in mask.keeps().items():
        assert not np.asarray(params[path])[~np.broadcast_to(keep, params[path].shape)].any()


def test_a_seed_is_a_whole_number(inputs):
    network = as_network(Network(), inputs)
    with pytest.raises(TypeError, match="seed"):
        refit(network, Mask.of(network, "weight", random_kept(network)), [inputs], seed=0.5)


def test_a_fit_that_does_not_carry_over_to_held_out_examples_is_not_taken(monkeypatch):
    examples = np.random.default_rng(5).normal(size=(1000, 6)).astype(np.float32)
    network = as_network(Network(), examples)
    mask = Mask.of(network, "weight", random_kept(network))
    start = refit_params(network, mask, [examples])
    options = {"params": start, "loss": cross_entropy, "seed": 0}
    seen = []

    def worse(network, mask, batches, **_):
        seen.append(sum(map(len, batches)))
        return Fit({path: 1.5 * value for path, value in start.items()}, 0.0, 1.0, 0)

    assert fit_together(network, mask, [examples], **options) is not start
    monkeypatch.setattr("annealsubnet.refitting.fit_network", worse)
    assert fit_together(network, mask, [examples], **options) is start
    assert seen == [900]


def test_a_full_mask_changes_nothing(inputs):
    network = as_network(Network(), inputs)
    mask = Mask.of(network, "weight", {name: np.ones(layer.shape, bool) for name, layer in network.layers.items()})
    for name, value in refit_params(network, mask, [inputs]).items():
        np.testing.assert_array_equal(value, network.params[name])


def test_removed_neurons_leave_the_support_of_their_consumers(inputs):
    network = as_network(Network(), inputs)
    kept = np.arange(8) % 3 > 0
    mask = Mask.of(network, "neuron", {"first": kept})
    second = kept_weights(network, mask, network.layers["second"])
    np.testing.assert_array_equal(second, np.broadcast_to(kept[None, :, None], (1, 8, 7)))
    assert kept_weights(network, mask, network.layers["first"])[0][:, kept].all()
    assert not kept_weights(network, mask, network.layers["first"])[0][:, ~kept].any()


def test_an_exact_subnetwork_is_recovered(inputs):
    """Where the dense outputs are a linear function of the kept inputs, the refit finds it."""
    rng = np.random.default_rng(3)
    doubled = np.repeat(rng.normal(size=(6, 4)), 2, axis=1).astype(np.float32)
    params = {"hidden": {"kernel": jnp.asarray(doubled)}, "out": {"kernel": jnp.asarray(rng.normal(size=(8, 3)), jnp.float32)}}
    model = from_function(lambda p, x, tap: tap.dense("out", jax.nn.relu(tap.dense("hidden", x))), params)
    network = as_network(model, inputs)
    mask = Mask.of(network, "neuron", {"hidden": np.arange(8) % 2 == 0})
    refitted = refit(model, mask, [inputs], ridge=0.0)
    np.testing.assert_allclose(model.replace(refitted).call(model.replace(refitted).params, inputs),
                               network.apply(network.params, inputs), atol=1e-4)  # fmt: skip


def test_inputs_that_never_vary_keep_the_weight_they_had(inputs):
    dead = inputs.copy()
    dead[:, 2] = 0.0
    network = as_network(Network(), dead)
    kept = {"first": np.arange(48).reshape(6, 8) % 5 > 0}
    refitted = refit_params(network, Mask.of(network, "weight", kept), [dead])
    stays = kept["first"][2]
    np.testing.assert_allclose(refitted["first/kernel"][2][stays], network.params["first/kernel"][2][stays], rtol=1e-5)
    assert all(np.isfinite(value).all() for value in refitted.values())


def test_fewer_examples_than_inputs_stay_finite(inputs):
    network = as_network(Network(), inputs)
    refitted = refit_params(network, Mask.of(network, "weight", random_kept(network)), [inputs[:3]])
    assert all(np.isfinite(value).all() for value in refitted.values())


def test_a_negative_ridge_is_refused(inputs):
    network = as_network(Network(), inputs)
    with pytest.raises(ValueError, match="ridge is -1; give a finite number of at least 0"):
        refit_params(network, Mask.of(network, "weight", random_kept(network)), [inputs], ridge=-1)
