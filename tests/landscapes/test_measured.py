"""Measured landscapes against losses measured one by one."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from annealsubnet import evaluate
from annealsubnet.examples.architectures import MLP
from annealsubnet.landscapes import measure_landscape, ring_windows
from annealsubnet.masks import Mask
from annealsubnet.networks import Network, as_network
from annealsubnet.statistics import streams


@pytest.fixture(scope="module")
def case():
    generator = np.random.default_rng(0)
    batches = [(generator.normal(size=(20, 5)).astype(np.float32), generator.integers(0, 3, 20)) for _ in range(2)]
    return as_network(MLP((5,), (8, 3), use_bias=False, rngs=nnx.Rngs(0)), batches[0][0]), batches


def loss_of(network, batches, state):
    return evaluate(network, batches, Mask.of(network, "neuron", {"fc1": np.asarray(state, bool)})).loss


def test_one_window_over_all_neurons_is_the_loss_itself(case):
    network, batches = case
    land = measure_landscape(network, batches, np.arange(8)[None], site="fc1")
    for state in np.random.default_rng(1).integers(0, 2, (6, 8)):
        assert land.energy(state) == pytest.approx(loss_of(network, batches, state), abs=1e-5)


def test_windows_are_exact_around_any_mask(case):
    network, batches = case
    base = np.array([1, 0, 1, 1, 0, 1, 1, 1], bool)
    windows = ring_windows(8, 2)
    land = measure_landscape(network, batches, windows, site="fc1", mask={"fc1": base})
    assert land.energy(base) == pytest.approx(loss_of(network, batches, base), abs=1e-5)
    for window in windows[:4]:
        state = base.copy()
        state[window[:2]] ^= True
        assert land.energy(state) == pytest.approx(loss_of(network, batches, state), abs=1e-5)


@pytest.mark.parametrize(("pairs", "lanes"), [(10, 10), (256 * 7, 256), (2**20, 256)])
def test_as_many_networks_are_held_as_fit_a_chunk_and_tables_do_not_depend_on_it(case, monkeypatch, pairs, lanes):
    network, batches = case
    whole = measure_landscape(network, batches, ring_windows(8, 2), site="fc1").tables
    seen = []

    def jitted(self, *key):
        def noted(function):
            step = jax.jit(function)
            return lambda params, gates, *rest: seen.append((len(gates), len(rest[1]))) or step(params, gates, *rest)

        return noted

    monkeypatch.setattr(Network, "jitted", jitted)
    monkeypatch.setattr(streams, "CHUNK_BYTES", pairs * 4 * (5 + 8 + 8 + 3))  # what both layers read and return
    tables = measure_landscape(network, batches, ring_windows(8, 2), site="fc1").tables
    assert max(count for count, _ in seen) == lanes
    assert max(examples for _, examples in seen) == min(40, pairs // lanes)
    np.testing.assert_allclose(tables, whole, atol=1e-6)


class Half(nnx.Module):
    """A perceptron of few digits."""

    def __init__(self, dtype):
        options = {"dtype": dtype, "param_dtype": dtype, "rngs": nnx.Rngs(0)}
        self.one, self.two = nnx.Linear(5, 8, **options), nnx.Linear(8, 3, **options)

    def __call__(self, inputs):
        return self.two(nnx.relu(self.one(jnp.asarray(inputs))))


@pytest.mark.parametrize("dtype", [jnp.bfloat16, jnp.float16])
def test_a_network_of_half_floats_has_the_loss_that_evaluation_has(dtype):
    generator = np.random.default_rng(0)
    batches = [(generator.normal(size=(1000, 5)).astype(np.float32), generator.integers(0, 3, 1000))]
    network = as_network(Half(dtype), batches[0][0])
    land = measure_landscape(network, batches, ring_windows(8, 1), site="one")
    for state in (np.ones(8, bool), *(1 - np.eye(8, dtype=int)[:3])):
        wanted = evaluate(network, batches, Mask.of(network, "neuron", {"one": state.astype(bool)})).loss
        assert land.energy(state) == pytest.approx(wanted, abs=1e-5)


def test_bad_sites_and_windows_are_refused(case):
    network, batches = case
    with pytest.raises(ValueError, match="no neurons at 'fc9'"):
        measure_landscape(network, batches, ring_windows(8, 2), site="fc9")
    with pytest.raises(ValueError, match="has 8"):
        measure_landscape(network, batches, ring_windows(9, 2), site="fc1")


def test_a_mask_and_its_arrays_by_site_are_the_same_gates_and_windows_may_be_lists():
    inputs = np.random.default_rng(0).normal(size=(20, 5)).astype(np.float32)
    batches = [(inputs, np.arange(20) % 3)]
    network = as_network(MLP((5,), (8, 6, 3), rngs=nnx.Rngs(0)), inputs)
    kept = {"fc1": np.arange(8) % 3 > 0, "fc2": np.arange(6) % 2 > 0}
    windows = ring_windows(8, 1)
    lands = [
        measure_landscape(network, batches, windows, site="fc1", mask=Mask.of(network, "neuron", kept)),
        measure_landscape(
            network, batches, windows.tolist(), site="fc1", mask={name: list(gate) for name, gate in kept.items()}
        ),
    ]
    assert (lands[0].tables == lands[1].tables).all() and (lands[0].windows == lands[1].windows).all()
    wanted = evaluate(network, batches, Mask.of(network, "neuron", kept)).loss
    assert lands[0].energy(kept["fc1"]) == pytest.approx(wanted, abs=1e-5)


@pytest.mark.parametrize(
    ("mask", "words"),
    [
        ({"fc1": np.zeros(5)}, r"mask\['fc1'\] has shape \(5,\); 'fc1' has 8 neurons"),
        ({"fc1": np.zeros((2, 8))}, r"has shape \(2, 8\); 'fc1' has 8 neurons"),
        ({"fc1": np.full(8, 0.3)}, r"mask\['fc1'\] must be 0 or 1 for each variable; there is 0.3"),
        ({"qq": np.zeros(8)}, r"mask names \['qq'\], where the network has no gates; it has them at \['fc1'\]"),
    ],
)
def test_masks_of_other_sites_and_sizes_are_refused(case, mask, words):
    network, batches = case
    with pytest.raises(ValueError, match=words):
        measure_landscape(network, batches, ring_windows(8, 2), site="fc1", mask=mask)


def test_a_mask_of_weights_has_no_gates(case):
    network, batches = case
    mask = Mask.of(network, "weight", {"fc1": np.ones((5, 8), bool)})
    with pytest.raises(ValueError, match="gates are of neurons or heads"):
        measure_landscape(network, batches, ring_windows(8, 2), site="fc1", mask=mask)


@pytest.mark.parametrize("windows", [[], np.zeros((0, 2), int), np.zeros((2, 0), int), np.arange(8), np.zeros((1, 2)), [["a"]]])
def test_windows_of_another_form_are_refused(case, windows):
    network, batches = case
    with pytest.raises(ValueError, match="give whole numbers \\[windows, members\\]"):
        measure_landscape(network, batches, windows, site="fc1")
