"""Renormalized BatchNorms: what training mode computes on the same examples."""

import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from annealsubnet.renormalizing import renormalize


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


def test_it_is_what_training_mode_returns(model):
    inputs = 3 + 2 * np.random.default_rng(1).normal(size=(60, 6, 6, 2)).astype(np.float32)
    before = np.asarray(model(inputs))
    found = renormalize(model, model, [inputs[:25], inputs[25:]])
    np.testing.assert_array_equal(model(inputs), before)
    again = renormalize(model, found, [inputs])
    model.train()
    wanted = np.asarray(model(inputs))
    assert np.abs(wanted - before).max() > 0.1
    np.testing.assert_allclose(found(inputs), wanted, atol=1e-3)
    np.testing.assert_allclose(again(inputs), found(inputs), atol=1e-4)


def test_channels_that_never_vary_are_left_alone(model):
    inputs = np.random.default_rng(1).normal(size=(20, 6, 6, 2)).astype(np.float32)
    model.first.kernel[...] = model.first.kernel[...].at[..., 2].set(0)
    model.norm.scale[...] = model.norm.scale[...].at[3].set(0)
    found = renormalize(model, model, [inputs])
    assert found.norm.scale[2] == model.norm.scale[2] and found.norm.scale[3] == 0
    assert np.isfinite(found(inputs)).all()


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
