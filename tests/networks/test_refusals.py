"""What cannot be handled is refused in one sentence that names it."""

import re

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from annealsubnet.budgets import budget_of
from annealsubnet.networks import as_model, as_network, from_function, from_linen
from tests.models import EXAMPLES, build

INPUTS = np.ones((2, 4), np.float32)


class Training(nnx.Module):
    def __init__(self, rngs, inner):
        self.fc, self.inner = nnx.Linear(4, 4, rngs=rngs), inner

    def __call__(self, x):
        return self.inner(self.fc(x))


@pytest.mark.parametrize(
    ("inner", "kind"), [(lambda: nnx.BatchNorm(4, rngs=nnx.Rngs(0)), "BatchNorm"), (lambda: nnx.Dropout(0.5), "Dropout")]
)
def test_nnx_in_training_mode(inner, kind):
    model = Training(nnx.Rngs(0), inner())
    with pytest.raises(ValueError, match=rf"{kind} 'inner' is in training mode; call model.eval\(\) first"):
        as_network(model, INPUTS)
    model.eval()
    assert len(as_network(model, INPUTS).layers) == 1


class LinenTraining(nn.Module):
    kind: str

    @nn.compact
    def __call__(self, x, train=True):
        x = nn.Dense(4)(x)
        if self.kind == "BatchNorm":
            return nn.BatchNorm(use_running_average=not train)(x)
        return nn.Dropout(0.5, deterministic=not train)(x)


@pytest.mark.parametrize("kind", ["BatchNorm", "Dropout"])
def test_linen_in_training_mode(kind):
    module = LinenTraining(kind)
    variables = module.init(jax.random.key(0), INPUTS, train=False)
    with pytest.raises(ValueError, match=rf"{kind} '{kind}_0' is in training mode.*train=False"):
        as_network(from_linen(module, variables), INPUTS)
    assert len(as_network(from_linen(module, variables, train=False), INPUTS).layers) == 1


def test_a_shared_layer():
    class Shared(nnx.Module):
        def __init__(self, rngs):
            self.fc = nnx.Linear(4, 4, rngs=rngs)

        def __call__(self, x):
            return self.fc(jax.nn.relu(self.fc(x)))

    with pytest.raises(ValueError, match="'fc' is called twice"):
        as_network(build(Shared), INPUTS)


@pytest.mark.parametrize("leaf", ["kernel", "bias"])
def test_layers_that_share_a_parameter(leaf):
    class Tied(nnx.Module):
        def __init__(self, rngs):
            self.one, self.two = nnx.Linear(4, 4, rngs=rngs), nnx.Linear(4, 4, rngs=rngs)
            setattr(self.two, leaf, getattr(self.one, leaf))

        def __call__(self, x):
            return self.two(jax.nn.relu(self.one(x)))

    with pytest.raises(ValueError, match=f"Layer 'two' shares its {leaf} with 'one'; tied layers are not supported"):
        as_network(build(Tied), INPUTS)


class Decoded(nnx.Module):
    def __init__(self, rngs):
        self.one, self.two = nnx.Linear(4, 5, rngs=rngs), nnx.Linear(4, 3, rngs=rngs)

    def __call__(self, x):
        return self.two(jax.nn.relu(self.one(x)) @ self.one.kernel.T)


class Normed(nn.Module):
    kind: str

    @nn.compact
    def __call__(self, x):
        one = nn.Dense(5, name="one")
        x = nn.WeightNorm(one)(x) if self.kind == "weight" else nn.SpectralNorm(one)(x, update_stats=False)
        return nn.Dense(3, name="two")(x)


@pytest.mark.parametrize("kind", ["decoder", "weight", "spectral"])
def test_weights_that_are_read_outside_of_their_layer(kind):
    """A refit would write weights that the network then multiplies by something else, or uses elsewhere too."""
    if kind == "decoder":
        model = build(Decoded)
    else:
        model = from_linen(Normed(kind), Normed(kind).init({"params": jax.random.key(0)}, INPUTS))
    with pytest.raises(ValueError, match="'one/kernel' of layer 'one' is also read outside of it"):
        as_network(model, INPUTS)


def test_weights_in_another_type():
    class Half(nnx.Module):
        def __init__(self, rngs):
            self.fc = nnx.Linear(4, 3, dtype=jnp.bfloat16, rngs=rngs)

        def __call__(self, x):
            return self.fc(x)

    assert list(as_network(build(Half), INPUTS).layers) == ["fc"]


@pytest.mark.parametrize("form", ["nnx", "linen"])
def test_an_attention_in_training_mode(form):
    tokens = np.ones((2, 3, 4), np.float32)
    if form == "nnx":
        model = nnx.MultiHeadAttention(2, 4, dropout_rate=0.5, deterministic=False, decode=False, rngs=nnx.Rngs(0))
    else:
        module = nn.MultiHeadDotProductAttention(2, dropout_rate=0.5, deterministic=False)
        random = {"params": jax.random.key(0), "dropout": jax.random.key(1)}
        model = from_linen(module, module.init(random, tokens), rngs={"dropout": jax.random.key(2)})
    with pytest.raises(ValueError, match="draws random numbers when it runs"):
        as_network(model, tokens)
    if form == "nnx":
        model.eval()
        assert list(as_network(model, tokens).layers) == ["query", "key", "value", "out"]


def test_a_shared_batch_norm():
    class Shared(nnx.Module):
        def __init__(self, rngs):
            self.one, self.two = nnx.Linear(4, 4, rngs=rngs), nnx.Linear(4, 4, rngs=rngs)
            self.bn = nnx.BatchNorm(4, rngs=rngs)

        def __call__(self, x):
            return self.bn(self.two(self.bn(self.one(x))))

    with pytest.raises(ValueError, match="BatchNorm 'bn' is called twice"):
        as_network(build(Shared), INPUTS)


class Cell(nn.Module):
    @nn.compact
    def __call__(self, carry, _):
        return nn.relu(nn.Dense(4, name="fc")(carry)), None


class Scanned(nn.Module):
    shared: bool

    @nn.compact
    def __call__(self, x):
        split = {"params": not self.shared}
        axes = {"variable_broadcast": "params"} if self.shared else {"variable_axes": {"params": 0}}
        return nn.scan(Cell, length=3, split_rngs=split, **axes)(name="cell")(x, None)[0]


@pytest.mark.parametrize("shared", [True, False])
def test_a_scanned_layer(shared):
    module = Scanned(shared)
    variables = module.init(jax.random.key(0), INPUTS)
    with pytest.raises(ValueError, match=r"'cell/fc'.*(unroll|not supported)"):
        as_network(from_linen(module, variables), INPUTS)


def test_a_mapped_layer():
    module = nn.vmap(nn.Dense, variable_axes={"params": None}, split_rngs={"params": False})(3)
    variables = module.init(jax.random.key(0), INPUTS)
    with pytest.raises(ValueError, match="under vmap"):
        as_network(from_linen(module, variables), INPUTS)


def test_unsupported_layers():
    with pytest.raises(ValueError, match=r"No supported layer was found.*kernel"):
        as_network(build(lambda rngs: nnx.ConvTranspose(2, 3, (3, 3), rngs=rngs)), np.ones((1, 4, 4, 2), np.float32))
    with pytest.raises(ValueError, match=r"LinearGeneral '.*' contracts axes \(-2,\)"):
        as_network(build(lambda rngs: nnx.LinearGeneral(3, 2, axis=-2, rngs=rngs)), np.ones((1, 3, 4), np.float32))


class HalfSupported(nnx.Module):
    def __init__(self, rngs):
        self.up, self.out = nnx.ConvTranspose(2, 3, (3, 3), rngs=rngs), nnx.Linear(3, 2, rngs=rngs)

    def __call__(self, x):
        return self.out(self.up(x).mean(axis=(1, 2)))


def test_an_unsupported_kernel_must_be_excluded():
    network = as_network(build(HalfSupported), np.ones((1, 4, 4, 2), np.float32))
    with pytest.raises(ValueError, match=r"'up' is used by no supported layer.*exclude=\(\"up\",\)"):
        budget_of(network, keep=0.5, unit="weight", scope="network")
    assert budget_of(network, keep=0.5, unit="weight", scope="network", exclude=["up"]).selected == ("out",)


def test_a_convolution_with_a_mask_of_its_own():
    model = nnx.Conv(2, 3, (3, 3), mask=jnp.ones((3, 3, 2, 3)), rngs=nnx.Rngs(0))
    with pytest.raises(ValueError, match="mask of its own"):
        as_network(model, np.ones((1, 4, 4, 2), np.float32))


def test_a_batch_norm_of_another_axis():
    images = np.ones((1, 4, 4, 2), np.float32)
    with pytest.raises(ValueError, match=r"BatchNorm '.*' normalizes axis 1; only channels last"):
        as_network(nnx.BatchNorm(4, axis=1, use_running_average=True, rngs=nnx.Rngs(0)), images)
    module = nn.BatchNorm(use_running_average=True, axis=1)
    with pytest.raises(ValueError, match=r"BatchNorm '.*' normalizes axis 1; only channels last"):
        as_network(from_linen(module, module.init(jax.random.key(0), images)), images)


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_weights_that_are_not_finite(bad):
    model = nnx.Linear(4, 2, rngs=nnx.Rngs(0))
    model.kernel[...] = model.kernel[...].at[0, 0].set(bad)
    with pytest.raises(ValueError, match="Parameter 'kernel' holds 1 of 8 values that are NaN or infinite"):
        as_network(model, INPUTS)


@pytest.mark.parametrize("form", ["nnx", "linen"])
def test_inputs_of_another_shape(form):
    example = EXAMPLES["mlp"]()
    with pytest.raises(ValueError, match=r"does not accept inputs of shape \(1, 5\)"):
        as_network(example.forms[form], np.ones((2, 5), np.float32))


def test_no_example():
    with pytest.raises(ValueError, match="give batches, or the model an example"):
        as_network(nnx.Linear(4, 2, rngs=nnx.Rngs(0)))


@pytest.mark.parametrize("thing", [{"params": {}}, nn.Dense(3), None, 3])
def test_what_is_no_model(thing):
    with pytest.raises(TypeError, match=r"A model is an nnx.Module, annealsubnet.from_linen"):
        as_model(thing)


@pytest.mark.parametrize(("thing", "says"), [({"params": {}}, "from_linen(module, variables)"), ((3, 4), "from_linen(*pair)")])
def test_what_came_back_for_linen_is_wrapped_again(thing, says):
    with pytest.raises(TypeError, match=re.escape(f"give {says}")):
        as_model(thing)


def test_variables_without_parameters():
    with pytest.raises(ValueError, match="no 'params' collection"):
        from_linen(nn.Dense(3), {"kernel": INPUTS})


def test_a_function_without_such_a_kernel():
    model = from_function(lambda _, x, tap: tap.dense("fc2", x), {"fc1": {"kernel": jnp.ones((4, 2))}})
    with pytest.raises(ValueError, match=r"no kernel at 'fc2'; they hold kernels at \['fc1'\]"):
        as_network(model, INPUTS)


def test_a_model_of_several_outputs():
    model = from_function(lambda _, x, tap: (tap.dense("fc", x), x), {"fc": {"kernel": jnp.ones((4, 2))}})
    with pytest.raises(ValueError, match="must return one array, not tuple"):
        as_network(model, INPUTS)


def test_neurons_that_are_none():
    network = EXAMPLES["transformer"]().network()
    assert "network's outputs" in network.not_neurons["out"]
    assert "cannot be followed" in network.not_neurons["attention/query"]
