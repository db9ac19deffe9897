"""Thinning: of a linear network the best subset, refitted; of any network exact counts, over all layers or in each."""

from itertools import combinations

import jax.numpy as jnp
import numpy as np
import pytest

from annealsubnet import Mask, thin
from annealsubnet.budgets import budget_of
from annealsubnet.joint import joint_moments, measure_joint
from annealsubnet.losses import cross_entropy, squared_error
from annealsubnet.networks import as_network, from_function
from annealsubnet.selection import Choice
from annealsubnet.statistics.weight_distance import distance_to
from annealsubnet.thinning import thin_weights
from tests.models import Classifier


@pytest.fixture(scope="module")
def case():
    inputs = np.random.default_rng(0).normal(size=(80, 6)).astype(np.float32)
    return as_network(Classifier(), inputs), inputs


@pytest.mark.parametrize("effort", [0, 10])
def test_one_linear_neuron_keeps_its_best_subset(effort):
    rng = np.random.default_rng(3)
    inputs = (rng.normal(size=(200, 8)) @ rng.normal(size=(8, 8))).astype(np.float32)
    weights = rng.normal(size=(8, 1)).astype(np.float32)
    model = from_function(lambda params, x, tap: tap.dense("out", x), {"out": {"kernel": jnp.asarray(weights)}})
    mask, pruned = thin(model, [inputs], keep=3, effort=effort, ridge=1e-6, loss=squared_error, seed=0)
    target = inputs.astype(np.float64) @ weights

    def error(chosen):
        return np.linalg.lstsq(inputs[:, chosen].astype(np.float64), target, rcond=None)[1][0]

    left = inputs @ np.asarray(pruned["out"]["kernel"]) - target
    assert mask.kept_count == 3
    assert (left**2).sum() == pytest.approx(min(error(list(chosen)) for chosen in combinations(range(8), 3)), rel=1e-3)


@pytest.mark.parametrize("scope", ["network", "layer"])
def test_counts_are_exact_and_removed_weights_stay_away(case, scope):
    network, inputs = case
    first, once = thin(network, [inputs], keep=0.6, scope=scope, seed=0)
    second, twice = thin(network.replace(once), [inputs], keep=0.3, scope=scope, seed=0)
    for mask, model, share in ((first, once, 0.6), (second, twice, 0.3)):
        assert mask.kept_count == budget_of(network, keep=share, unit="weight", scope=scope).total
        for name, kept in mask.kept.items():
            kernel = np.asarray(as_network(model, inputs).params[network.layers[name].kernel])
            assert not kernel[~kept].any()
    for name, kept in second.kept.items():
        assert not (kept & ~first.kept[name]).any()
    if scope == "layer":
        assert {name: int(kept.sum()) for name, kept in second.kept.items()} == {"first": 16, "out": 8}


def test_it_stays_nearer_than_the_smallest_weights_gone(case):
    network, inputs = case
    from annealsubnet.baselines import magnitude

    _, ours = thin(network, [inputs], keep=0.4, seed=0)
    theirs, _ = magnitude(network, None, keep=0.4, unit="weight")
    far = distance_to(network, [inputs], params=theirs.multiply(network.params))
    assert distance_to(network, [inputs], params=as_network(ours, inputs).params) < 0.5 * far


def test_more_can_go_than_take_part(case, monkeypatch):
    network, inputs = case
    monkeypatch.setattr("annealsubnet.thinning._ACTIVE", 20)
    monkeypatch.setattr("annealsubnet.thinning._TOGETHER", 10)
    budget = budget_of(network, keep=0.4, unit="weight", scope="network")
    kept = {name: np.ones(shape, bool) for name, shape in budget.shapes.items()}
    shared = {"choice": Choice(effort=0), "loss": cross_entropy, "seed": 0}
    found, params = thin_weights(network, [inputs], budget, kept=kept, params=network.params, **shared)
    assert sum(mask.sum() for mask in found.values()) == budget.total
    assert distance_to(network, [inputs], params=params) < distance_to(
        network, [inputs], params=Mask.of(network, "weight", found).multiply(network.params)
    )


def test_the_joint_model_is_the_distance_near_the_present_weights(case):
    """D(v) of the model against the measured one, for a small step in a few weights of both layers."""
    network, inputs = case
    rng = np.random.default_rng(0)
    params = {
        path: value * (1 + 0.1 * rng.normal(size=value.shape).astype(np.float32)) for path, value in network.params.items()
    }
    masks = {name: np.ones(layer.shape, bool) for name, layer in network.layers.items()}
    shared = {"params": params, "target_params": network.params, "loss": cross_entropy, "seed": 0}
    names = tuple(network.layers)
    joint = measure_joint(network, [inputs], names, masks, **shared)
    active = np.array([3, 20, 50, 60, 70])
    gram = joint_moments(joint, [inputs], active, rows=10 * len(inputs), **shared)
    step = 2e-3 * rng.normal(size=len(active))
    weights = joint.weights.copy()
    weights[active] += step
    _, moved = joint.replaced(masks, params, joint.members, weights)
    values = [distance_to(network, [inputs], params=at, target_params=network.params) for at in (params, moved)]
    assert values[1] - values[0] == pytest.approx(joint.gradient[active] @ step + 0.5 * step @ gram @ step, rel=0.05)


def test_bad_requests_are_named(case):
    network, inputs = case
    with pytest.raises(ValueError, match="scope='neuron'"):
        thin(network, [inputs], keep=0.5, scope="neuron", seed=0)
    _, thinned = thin(network, [inputs], keep=10, seed=0)
    with pytest.raises(ValueError, match="10 weights of first, out are not zero; 11 cannot be kept"):
        thin(network.replace(thinned), [inputs], keep=11, seed=0)
