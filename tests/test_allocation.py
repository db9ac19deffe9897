"""Allocation meets the budget exactly and equals the optimum where curves are convex."""

from itertools import product

import jax.numpy as jnp
import numpy as np
import pytest

from annealsubnet import baselines, from_function, prune, shares, weight_curves
from annealsubnet.allocation import allocate, allocate_over_layers
from annealsubnet.evaluation import positions
from annealsubnet.networks import as_network


def random_curves(rng, *, convex):
    curves = []
    for length in rng.integers(2, 6, 4):
        drops = rng.random(length)
        curves.append(10 - np.append(0, np.cumsum(np.sort(drops)[::-1] if convex else drops)))
    return curves


def best_error(curves, total, least):
    counts = product(*(range(least, len(curve)) for curve in curves))
    return min(sum(curve[k] for curve, k in zip(curves, ks, strict=True)) for ks in counts if sum(ks) == total)


def test_a_budget_over_layers_is_that_of_all_neurons_and_says_how_near_to_the_best_it_is(caplog):
    rng = np.random.default_rng(1)
    layers = {"a": random_curves(rng, convex=False), "b": random_curves(rng, convex=False)}
    together = allocate(layers["a"] + layers["b"], 9)
    with caplog.at_level("INFO", logger="annealsubnet.allocation"):
        found = allocate_over_layers(layers, 9)
    assert np.concatenate(list(found.values())).tolist() == together.counts.tolist()
    ((error, gap),) = (record.args for record in caplog.records)
    assert error == together.error and error == pytest.approx(together.bound * (1 + gap / 100))


@pytest.mark.parametrize("convex", [True, False])
@pytest.mark.parametrize("least", [0, 1])
def test_allocation_against_enumeration(convex, least):
    rng = np.random.default_rng(0)
    for _ in range(30):
        curves = random_curves(rng, convex=convex)
        most = sum(len(curve) - 1 for curve in curves)
        for total in range(4 * least, most + 1):
            found = allocate(curves, total, least=least)
            assert found.counts.sum() == total
            assert found.counts.min() >= least
            optimum = best_error(curves, total, least)
            assert found.bound <= optimum + 1e-9 <= found.error + 2e-9
            if convex:
                np.testing.assert_allclose([found.error, found.bound], optimum)


def test_a_budget_that_cannot_be_met_is_refused():
    with pytest.raises(ValueError, match="2 parts can take 2 to 4 units, not 5"):
        allocate([np.zeros(3), np.zeros(3)], 5, least=1)


def test_costs_against_enumeration():
    """With a cost for each part: within the budget, less than a unit left, and the bound below every division."""
    rng = np.random.default_rng(1)
    for _ in range(30):
        curves = random_curves(rng, convex=True)
        costs = rng.integers(1, 4, len(curves))
        most = int(costs @ [len(curve) - 1 for curve in curves])
        for total in range(most + 1):
            found = allocate(curves, total, costs=costs)
            divisions = list(product(*(range(len(curve)) for curve in curves)))
            errors = [sum(curve[k] for curve, k in zip(curves, ks, strict=True)) for ks in divisions if costs @ ks <= total]
            assert 0 <= total - costs @ found.counts < costs.max()
            assert found.bound <= min(errors) + 1e-9 and found.error >= min(errors) - 1e-9


@pytest.mark.parametrize("share", [0.15, 0.3])
def test_inputs_without_mean_divide_a_budget_as_optimal_brain_compression_does(share):
    rng = np.random.default_rng(0)
    inputs = rng.normal(size=(400, 20)) @ (np.eye(20) + 0.5 * rng.normal(size=(20, 20)))
    inputs = (inputs - inputs.mean(0)).astype(np.float32)
    params = {"out": {"kernel": jnp.asarray(rng.normal(size=(20, 6)) * np.linspace(0.1, 2, 6), jnp.float32)}}
    network = as_network(from_function(lambda values, x, tap: tap.dense("out", x), params), inputs)
    ours, _ = prune(network, [inputs], keep=share, polish=0, ridge=1e-6, seed=0)
    theirs, _ = baselines.obc(network, [inputs], keep=share, ridge=1e-6)
    np.testing.assert_array_equal(ours.kept["out"].sum(0), theirs.kept["out"].sum(0))


@pytest.mark.parametrize(("share", "size"), [(0.1, 20), (0.25, 20), (0.6, 20), (0.04, 200)])
def test_a_division_by_error_curves_leaves_less_than_equal_counts(share, size, monkeypatch):
    """Measured after the choice and the refit, with neurons of different sizes that read different numbers of inputs."""
    monkeypatch.setattr(shares, "_ELIMINATED", 100)  # beyond this, forward where little stays
    rng = np.random.default_rng(0)
    inputs = (rng.normal(size=(400, size)) @ (np.eye(size) + 0.5 * rng.normal(size=(size, size)))).astype(np.float32)
    weights = rng.normal(size=(size, 6)) * np.linspace(0.1, 2, 6) * (rng.random((size, 6)) < np.linspace(0.2, 1, 6))
    params = {"out": {"kernel": jnp.asarray(weights, jnp.float32)}}
    network = as_network(from_function(lambda values, x, tap: tap.dense("out", x), params), inputs)
    errors = {}
    for scope in ("layer", "neuron"):
        _, pruned = prune(network, [inputs], keep=share, scope=scope, polish=0, seed=0)
        moved = inputs @ (np.asarray(pruned["out"]["kernel"]) - weights)
        errors[scope] = float((moved**2).sum(1).mean())
    assert errors["layer"] < errors["neuron"]


def test_the_same_curves_divide_any_budget():
    from tests.models import EXAMPLES

    example = EXAMPLES["cnn"]()
    network = example.network("nnx")
    curves = weight_curves(network, [example.inputs])
    dense = sum(network.layers[name].fan_in * network.layers[name].outputs for name in curves.errors)
    counts, found = curves.divide(dense // 2)
    assert sum(part.sum() for part in counts.values()) == dense // 2 and found.bound <= found.error
    times = positions(network)
    total = sum(2 * times[name] * int(np.prod(network.layers[name].shape)) for name in curves.errors) // 2
    by_flops, _ = curves.divide(total, cost="flops")
    spent = sum(2 * times[name] * int(part.sum()) for name, part in by_flops.items())
    assert total - 2 * max(times.values()) < spent <= total
    mask, _ = prune(
        network, [example.inputs], keep={name: int(part.sum()) for name, part in by_flops.items()}, polish=0, seed=0
    )
    assert {name: int(mask.kept[name].sum()) for name in by_flops} == {name: int(n.sum()) for name, n in by_flops.items()}
    with pytest.raises(ValueError, match="cost is 'joules'"):
        curves.divide(10, cost="joules")
