"""The same network as an NNX module, a Linen module and a plain function is the same network."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from annealsubnet.networks import as_model, as_network
from tests.models import EXAMPLES

FORMS = ("nnx", "linen", "function")


@pytest.fixture(params=EXAMPLES)
def example(request):
    return EXAMPLES[request.param]()


@pytest.mark.parametrize("form", FORMS)
def test_outputs_and_what_passes_the_layers_agree(example, form):
    outputs, records = example.recorded(form)
    np.testing.assert_allclose(outputs, example.outputs, rtol=1e-5, atol=1e-6)
    for name, passed in example.recorded("nnx")[1].items():
        for values, same in zip(passed, records[name], strict=True):
            np.testing.assert_allclose(same, values, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("form", FORMS[1:])
def test_layers_and_sites_agree(example, form):
    first, other = example.network("nnx"), example.network(form)
    assert dict(first.layers) == dict(other.layers)
    assert dict(first.norms) == dict(other.norms)
    assert first.not_neurons.keys() == other.not_neurons.keys()
    for unit in ("neuron", "head"):
        assert first.sites(unit).keys() == other.sites(unit).keys()
        for site, same in zip(first.sites(unit).values(), other.sites(unit).values(), strict=True):
            assert (site.name, site.size, site.members) == (same.name, same.size, same.members)
            assert (site.normalized_by is None) == (same.normalized_by is None)
            jax.tree.map(np.testing.assert_array_equal, dict(site.consumers), dict(same.consumers))
            jax.tree.map(np.testing.assert_array_equal, dict(site.norms), dict(same.norms))


@pytest.mark.parametrize("form", FORMS)
def test_export_gives_the_form_that_came_in(example, form):
    model = as_model(example.forms[form])
    doubled = {path: 2 * value for path, value in model.params.items()}
    back = model.replace(model.export(doubled))
    assert set(back.params) == set(model.params)
    for path, value in model.params.items():
        np.testing.assert_array_equal(back.params[path], 2 * value)
        np.testing.assert_array_equal(as_model(example.forms[form]).params[path], value)


def test_a_model_of_other_shapes_does_not_replace():
    model = as_model(EXAMPLES["mlp"]().nnx)
    with pytest.raises(ValueError, match="do not fit this model: 'fc1/bias' is missing"):
        model.replace(nnx.Linear(2, 2, rngs=nnx.Rngs(0)))


def test_a_layer_runs_inside_jit_remat_and_custom_derivatives():
    class Wrapped(nnx.Module):
        def __init__(self):
            self.fc = nnx.Linear(3, 4, rngs=nnx.Rngs(0))
            self.out = nnx.Linear(4, 2, rngs=nnx.Rngs(1))

        def __call__(self, x):
            hidden = nnx.jit(lambda layer, y: layer(y))(self.fc, x)
            return nnx.remat(lambda layer, y: layer(jax.nn.relu(y)))(self.out, hidden)

    model = Wrapped()
    network = as_network(model, jnp.ones((2, 3)))
    assert list(network.neurons) == ["fc"]
    outputs, _ = network.run(network.params, jnp.ones((2, 3)), gates={"fc": jnp.zeros(4)})
    np.testing.assert_allclose(outputs, np.broadcast_to(model.out.bias[...], (2, 2)))
