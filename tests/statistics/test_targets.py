"""What layers read and should return does not depend on what is held between visits."""

import gc
import weakref

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from annealsubnet.networks import Tap, as_network, from_function, known_of
from annealsubnet.statistics import targets
from annealsubnet.statistics.targets import LayerTargets, targets_from_start
from tests.models import residual, separable, transformer


def scaled(network, name, factor):
    """Parameters in which one layer's kernel is another."""
    kernel = network.layers[name].kernel
    return lambda params: {**params, kernel: params[kernel] * factor}


@pytest.mark.parametrize("example", [residual, separable, transformer])
@pytest.mark.parametrize("most", [0, 2**28])
def test_visits_see_what_a_run_from_the_start_sees(example, most, monkeypatch):
    """Every layer is changed after its visit, as when it is pruned; one is not visited."""
    monkeypatch.setattr(targets, "_HELD", most)
    network, inputs = example().network(), example().inputs
    batches, size = [inputs[:2], inputs[2:]], 3
    visits = LayerTargets(network, batches, size, target_params=network.params)
    params, skipped = dict(network.params), list(network.layers)[1]
    for number, name in enumerate(network.layers):
        if name != skipped:
            found = list(visits.of(name, params))
            pieces = [inputs[start : start + size] for start in range(0, len(inputs), size)]
            expected = list(targets_from_start(network, pieces, name, params, network.params))
            assert len(found) == len(expected) == -(-len(inputs) // size)
            for ours, theirs in zip(found, expected, strict=True):
                for mine, other in zip(ours, theirs, strict=True):
                    np.testing.assert_allclose(mine, other, rtol=1e-4, atol=1e-5)
        params = scaled(network, name, 0.7 + 0.1 * (number % 5))(params)


def test_of_the_dense_network_itself_nothing_is_run_twice():
    network, inputs = residual().network(), residual().inputs
    visits = LayerTargets(network, [inputs], len(inputs), target_params=network.params)
    _, records = network.run(network.params, inputs, record=network.layers)
    for name in network.layers:
        ((read, wanted),) = visits.of(name, network.params)
        np.testing.assert_allclose(read, records[name][0], atol=1e-5)
        np.testing.assert_allclose(wanted, records[name][1], atol=1e-4)
        assert all(now is then for now, then in visits._held)


def test_what_no_input_enters_is_not_held_but_computed_again():
    """A network that casts all its weights before it runs: what was cast before a layer is pruned would be old behind it."""
    generator = np.random.default_rng(0)
    weights = {name: {"kernel": jnp.asarray(generator.normal(size=(5, 5)), jnp.float32)} for name in ("a", "b", "c")}

    def apply(params, inputs, tap):
        halved = Tap(jax.tree.map(lambda leaf: leaf.astype(jnp.bfloat16), params))
        hidden = inputs.astype(jnp.bfloat16)
        for name in weights:
            hidden = jnp.tanh(halved.dense(name, hidden))
        return hidden.astype(jnp.float32)

    inputs = generator.normal(size=(4, 5)).astype(np.float32)
    network = as_network(from_function(apply, weights), inputs)
    known = network.run_before(network.params, known_of(jnp.asarray(inputs)), "b")
    assert [value.shape for value in known.values] == [(4, 5)]
    changed = scaled(network, "b", -1.0)(network.params)
    read, returned, _, _ = network.run_to_sum(changed, known, "c")
    expected = network.run(changed, inputs, record=["c"])[1]["c"]
    np.testing.assert_allclose(np.asarray(read, np.float32), np.asarray(expected[0], np.float32), atol=1e-2)
    np.testing.assert_allclose(np.asarray(returned, np.float32), np.asarray(expected[1], np.float32), atol=1e-2)


def test_what_is_held_goes_with_the_visits():
    network, inputs = residual().network(), residual().inputs
    visits = LayerTargets(network, [inputs], len(inputs), target_params=network.params)
    for name in network.layers:
        list(visits.of(name, network.params))
    gone = weakref.ref(visits)
    del visits
    gc.collect()
    assert gone() is None
