"""The whole network at once: the fit is the least-squares solution where that is known, and no step makes it worse."""

import numpy as np
import pytest
from flax import nnx

from annealsubnet import Mask, prune
from annealsubnet.budgets import budget_of
from annealsubnet.fitting import fit_network
from annealsubnet.losses import cross_entropy, squared_error
from annealsubnet.networks import as_network
from annealsubnet.patterns import parse_pattern, pattern_budget
from annealsubnet.polishing import polish_weights
from annealsubnet.selection import Choice
from annealsubnet.statistics.weight_distance import distance_to
from tests.models import Classifier


@pytest.fixture(scope="module")
def case():
    inputs = np.random.default_rng(0).normal(size=(80, 6)).astype(np.float32)
    return as_network(Classifier(), inputs), inputs


def drawn_masks(network, share):
    rng = np.random.default_rng(1)
    return {name: rng.random(layer.shape) < share for name, layer in network.layers.items()}


@pytest.mark.parametrize("chunk", [1024, 7])
def test_the_fit_of_one_linear_layer_is_least_squares(chunk, monkeypatch):
    monkeypatch.setattr("annealsubnet.fitting.backward_chunk", lambda network, **options: chunk)
    inputs = np.random.default_rng(0).normal(size=(50, 5)).astype(np.float32)
    network = as_network(nnx.Linear(5, 2, rngs=nnx.Rngs(0)), inputs)
    (name,) = network.layers
    kept = np.array([[1, 0], [1, 1], [0, 1], [1, 1], [0, 0]], bool)
    mask = Mask.of(network, "weight", {name: kept})
    found = fit_network(network, mask, [inputs], params=network.params, steps=12, products=50, loss=squared_error)
    target = np.asarray(network.apply(network.params, inputs), np.float64)
    for output in range(2):
        columns = np.column_stack([inputs[:, kept[:, output]], np.ones(50)])
        error = target[:, output] - columns @ np.linalg.lstsq(columns, target[:, output], rcond=None)[0]
        left = np.asarray(network.apply(found.params, inputs))[:, output] - target[:, output]
        assert (left**2).sum() == pytest.approx((error**2).sum(), rel=1e-3)


def test_the_fit_only_lowers_the_distance_and_keeps_the_zeros(case):
    network, inputs = case
    mask = Mask.of(network, "weight", drawn_masks(network, 0.5))
    found = fit_network(network, mask, [inputs[:30], inputs[30:]], params=network.params)
    start = mask.multiply(network.params)
    assert found.start == pytest.approx(distance_to(network, [inputs], params=start), rel=1e-4)
    assert found.value == pytest.approx(distance_to(network, [inputs], params=found.params), rel=1e-4)
    assert found.value < 0.5 * found.start
    for name, kept in mask.kept.items():
        assert not np.asarray(found.params[network.layers[name].kernel])[~kept].any()


def test_a_step_that_reaches_too_far_is_shortened(case, monkeypatch):
    network, inputs = case
    network = network.replace(network.model.export({path: 2 * value for path, value in network.params.items()}))
    mask = Mask.of(network, "weight", drawn_masks(network, 0.6))
    options = {"params": network.params, "steps": 1}
    found = fit_network(network, mask, [inputs], **options)
    assert found.value < 0.9 * found.start
    assert found.value == pytest.approx(distance_to(network, [inputs], params=found.params), rel=1e-3)
    monkeypatch.setattr("annealsubnet.fitting._SHORTER", ())
    assert fit_network(network, mask, [inputs], **options).value == found.start, "the whole step is none"


@pytest.mark.parametrize("scope", ["network", "layer", "neuron"])
@pytest.mark.parametrize("effort", [0, 10])
def test_polishing_keeps_counts_and_lowers_the_distance(case, scope, effort):
    network, inputs = case
    budget = budget_of(network, keep=0.4, unit="weight", scope=scope)
    mask, _ = prune(network, [inputs], keep=0.4, unit="weight", scope=scope, polish=0, seed=0)
    found = polish_weights(
        network,
        [inputs],
        budget,
        kept=mask.kept,
        params=mask.multiply(network.params),
        rounds=3,
        choice=Choice(effort=effort),
        loss=cross_entropy,
        seed=0,
    )
    assert all(later < earlier for earlier, later in zip(found.values, found.values[1:], strict=False))
    assert found.values[-1] == pytest.approx(distance_to(network, [inputs], params=found.params), rel=1e-3)
    assert sum(kept.sum() for kept in found.kept.values()) == mask.kept_count
    if scope == "layer":
        assert all(found.kept[name].sum() == kept.sum() for name, kept in mask.kept.items())
    if scope == "neuron":
        assert all(np.array_equal(found.kept[name], kept) for name, kept in mask.kept.items())
    for name, kept in found.kept.items():
        assert not np.asarray(found.params[network.layers[name].kernel])[~kept].any()


@pytest.mark.parametrize("word", ["1:3", "2:3", "3x1"])
@pytest.mark.parametrize("effort", [0, 10])
def test_polishing_exchanges_within_the_groups_of_a_pattern(case, word, effort):
    network, inputs = case
    pattern = parse_pattern(word)
    options = {"keep": 0.5 if pattern.is_block else None, "unit": "weight", "scope": "network"}
    mask, _ = prune(network, [inputs], pattern=word, polish=0, seed=0, **options)
    found = polish_weights(
        network,
        [inputs],
        pattern_budget(network, word, **options),
        kept=mask.kept,
        params=mask.multiply(network.params),
        rounds=3,
        choice=Choice(effort=effort, pattern=pattern),
        loss=cross_entropy,
        seed=0,
    )
    assert all(later < earlier for earlier, later in zip(found.values, found.values[1:], strict=False))
    exchanged = any(not np.array_equal(found.kept[name], kept) for name, kept in mask.kept.items())
    assert exchanged != pattern.is_block
    for name, layer in network.layers.items():
        groups = layer.matrix(found.kept[name]).transpose(0, 2, 1).reshape(-1, pattern.inputs)
        assert np.isin(groups.sum(1), [0, 3] if pattern.is_block else [pattern.stays]).all()
        assert not np.asarray(found.params[layer.kernel])[~found.kept[name]].any()


def test_polished_networks_are_nearer_to_the_dense_one(case):
    network, inputs = case
    distances = {}
    for polish in (0, 3):
        _, pruned = prune(network, [inputs], keep=0.4, unit="weight", polish=polish, seed=0)
        distances[polish] = distance_to(network, [inputs], params=as_network(pruned, inputs).params)
    assert distances[3] < distances[0]


@pytest.mark.parametrize("scope", ["network", "layer", "neuron"])
def test_frozen_weights_are_chosen_better_than_by_magnitude(case, scope):
    network, inputs = case
    from annealsubnet.baselines import magnitude

    ours, _ = prune(network, [inputs], keep=0.5, unit="weight", scope=scope, refit=False, seed=0)
    theirs, _ = magnitude(network, None, keep=0.5, unit="weight", scope=scope)
    assert ours.kept_count == theirs.kept_count
    near, far = (distance_to(network, [inputs], params=mask.multiply(network.params)) for mask in (ours, theirs))
    assert near < far
