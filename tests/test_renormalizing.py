"""Renormalized BatchNorms: they return what the dense network's return on the same examples, in mean and deviation."""

import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from annealsubnet.networks import as_network
from annealsubnet.renormalizing import renormalize, renormalize_params


class Network(nnx.Module):
    """Two convolutions with BatchNorm, the second behind a residual sum."""

    def __init__(self) -> None:
        rngs = nnx.Rngs(0)
        self.first = nnx.Conv(2, 5, (3, 3), rngs=rngs)
        self.norm = nnx.BatchNorm(5, rngs=rngs)
        self.second = nnx.Conv(5, 5, (3, 3), use_bias=False, rngs=rngs)
        self.behind = nnx.BatchNorm(5, rngs=rngs)
        self.out = nnx.Linear(5, 3, rngs=rngs)

    def __call__(self, inputs):
        hidden = nnx.relu(self.norm(self.first(inputs)))
        return self.out(nnx.relu(hidden + self.behind(self.second(hidden))).mean((1, 2)))


@pytest.fixture
def model():
    model = Network()
    rng = np.random.default_rng(0)
    for norm in (model.norm, model.behind):
        norm.scale[...] = jnp.asarray(rng.normal(size=5), jnp.float32)
        norm.bias[...] = jnp.asarray(rng.normal(size=5), jnp.float32)
    model.eval()
    return model


def statistics(model, params, inputs):
    """Mean and deviation of what each BatchNorm returns under some parameters."""
    network = as_network(model, inputs)
    found = {}

    def noted(name):
        def note(outputs):
            found[name] = (outputs.mean((0, 1, 2)), outputs.std((0, 1, 2)))
            return outputs

        return note

    network.run(params, inputs, maps={norm.name: noted(norm.name) for norm in network.norms.values()})
    return found


def test_batch_norms_return_what_those_of_the_dense_network_return(model):
    inputs = 3 + 2 * np.random.default_rng(1).normal(size=(60, 6, 6, 2)).astype(np.float32)
    network = as_network(model, inputs)
    pruned = {path: value * (value > 0) if path.endswith("kernel") else value for path, value in network.params.items()}
    wanted, before = statistics(model, network.params, inputs), statistics(model, pruned, inputs)
    found = renormalize_params(network, [inputs[:25], inputs[25:]], params=pruned)
    after = statistics(model, found, inputs)
    assert list(wanted) == ["norm", "behind"]
    for name in wanted:
        assert np.abs(before[name][0] - wanted[name][0]).max() > 0.1
        # chunks are normalized each by itself
        np.testing.assert_allclose(after[name][0], wanted[name][0], atol=0.02)
        np.testing.assert_allclose(after[name][1], wanted[name][1], atol=0.02)
    kernels = [path for path in pruned if path.endswith("kernel")]
    assert all(found[path] is pruned[path] for path in kernels)


def test_the_dense_network_stays_as_it_is(model):
    inputs = 3 + 2 * np.random.default_rng(1).normal(size=(60, 6, 6, 2)).astype(np.float32)
    np.testing.assert_allclose(renormalize(model, model, [inputs])(inputs), model(inputs), atol=1e-4)


def test_channels_that_never_vary_keep_their_scale_and_get_the_mean(model):
    inputs = np.random.default_rng(1).normal(size=(20, 6, 6, 2)).astype(np.float32)
    pruned = nnx.clone(model)
    pruned.first.kernel[...] = pruned.first.kernel[...].at[..., 2].set(0)
    pruned.norm.scale[...] = pruned.norm.scale[...].at[3].set(0)
    found = renormalize(model, pruned, [inputs])
    assert found.norm.scale[2] == model.norm.scale[2] and found.norm.scale[3] == 0
    wanted = statistics(model, as_network(model, inputs).params, inputs)["norm"][0]
    after = statistics(model, as_network(found, inputs).params, inputs)["norm"][0]
    np.testing.assert_allclose(after, wanted, atol=1e-4)


def test_without_batch_norms_nothing_changes():
    network = nnx.Linear(3, 2, rngs=nnx.Rngs(0))
    inputs = np.ones((4, 3), np.float32)
    np.testing.assert_array_equal(renormalize(network, network, [inputs])(inputs), network(inputs))


class Plain(nnx.Module):
    """A BatchNorm without a bias."""

    def __init__(self) -> None:
        rngs = nnx.Rngs(0)
        self.out = nnx.Linear(3, 4, rngs=rngs)
        self.norm = nnx.BatchNorm(4, use_bias=False, rngs=rngs)

    def __call__(self, inputs):
        return self.norm(self.out(inputs))


def test_a_norm_without_a_bias_is_refused():
    model = Plain()
    model.eval()
    with pytest.raises(ValueError, match="bias"):
        renormalize(model, model, [np.ones((4, 3), np.float32)])
