"""Layer costs: by definition the distance that a layer alone causes for each unit of its error; no weight is left over."""

import numpy as np
import pytest
from flax import nnx

from annealsubnet import baselines, prune
from annealsubnet.layer_costs import LayerCurves, divide, layer_costs
from annealsubnet.losses import cross_entropy, squared_error
from annealsubnet.networks import as_network
from annealsubnet.refitting import RIDGE, refit_layer
from annealsubnet.solvers.select_refit import error_curves
from annealsubnet.statistics.moments import input_moments, self_regression
from annealsubnet.stochastic_fit import divergence


class Network(nnx.Module):
    """Two convolutions, the second averaged over positions."""

    def __init__(self, outputs: int = 3) -> None:
        rngs = nnx.Rngs(0)
        self.first = nnx.Conv(2, 4, (3, 3), rngs=rngs)
        self.second = nnx.Conv(4, 5, (3, 3), rngs=rngs)
        self.out = nnx.Linear(5, outputs, rngs=rngs)

    def __call__(self, inputs):
        return self.out(nnx.relu(self.second(nnx.relu(self.first(inputs)))).mean((1, 2)))


@pytest.fixture(scope="module")
def case():
    inputs = np.random.default_rng(0).normal(size=(60, 5, 5, 2)).astype(np.float32)
    network = as_network(Network(), inputs)
    moments = input_moments(network, [inputs])
    curves = {}
    for name, layer in network.layers.items():
        regression = self_regression(layer, moments[name], network.params)
        centered = regression.centered()
        found = error_curves(centered.gram[0], centered.cross[0], centered.target_energy[0], method="forward")
        curves[name] = LayerCurves(regression, (found,))
    return network, inputs, curves


def half_squared(outputs, target):
    return 0.5 * ((np.asarray(outputs) - np.asarray(target)) ** 2).sum(1).mean()


@pytest.mark.parametrize(
    ("loss", "distance"), [(cross_entropy, divergence), (squared_error, half_squared)], ids=["classes", "squared"]
)
def test_a_cost_is_the_distance_that_one_layer_causes_over_its_error(case, loss, distance):
    network, inputs, curves = case
    counts = {name: np.full((1, layer.outputs), layer.fan_in // 3) for name, layer in network.layers.items()}
    found = layer_costs(network, [inputs[:25], inputs[25:]], curves, counts, params=network.params, loss=loss)
    assert set(found) == set(network.layers)
    for name, layer in network.layers.items():
        kept = curves[name].kept(counts[name])
        assert (kept.sum(1) == counts[name]).all()
        params = refit_layer(layer, curves[name].regression, kept, network.params, ridge=RIDGE)
        moved = distance(network.apply(params, inputs), network.apply(network.params, inputs))
        read, wanted = network.run(network.params, inputs, record=[name])[1][name]
        left = network.run(params, inputs, record=[name])[1][name][1] - wanted
        error = float((np.asarray(left).reshape(-1, layer.outputs) ** 2).mean(0).sum())
        assert curves[name].error(counts[name]) == pytest.approx(error, rel=0.05)
        assert found[name] == pytest.approx(float(moved) / curves[name].error(counts[name]), rel=1e-3)


def test_a_layer_that_loses_nothing_costs_nothing(case):
    network, inputs, curves = case
    counts = {name: np.full((1, layer.outputs), layer.fan_in) for name, layer in network.layers.items()}
    free = {
        name: LayerCurves(curve.regression, tuple(_without_error(part) for part in curve.groups))
        for name, curve in curves.items()
    }
    assert set(layer_costs(network, [inputs], free, counts, params=network.params).values()) == {0.0}


def _without_error(curves):
    return type(curves)(np.zeros_like(curves.error), curves.order)


def test_every_weight_is_given_out_whatever_curvature_says(case):
    network, inputs, curves = case
    total = 60
    divided = []
    for odd in (1.0, 1e-6):
        importance = {
            name: np.full((1, layer.outputs), odd if name == "second" else 1.0) for name, layer in network.layers.items()
        }
        counts = divide(network, [inputs], curves, importance, total, params=network.params)
        assert sum(int(count.sum()) for count in counts.values()) == total
        divided.append({name: int(count.sum()) for name, count in counts.items()})
    # With curvature alone the second layer would get nothing at 1e-6.
    assert divided[1]["second"] > 0.5 * divided[0]["second"]


@pytest.mark.parametrize("choose", ["prune", "obc", "wanda"])
def test_a_network_with_one_output_keeps_a_way_to_it(choose):
    """A single output has no divergence; layers are weighed by how far they move it."""
    inputs = np.random.default_rng(0).normal(size=(60, 5, 5, 2)).astype(np.float32)
    model = Network(outputs=1)
    options = {"keep": 0.2, "seed": 0, "loss": squared_error}
    if choose == "prune":
        mask, pruned = prune(model, [inputs], polish=0, curvature=False, **options)
    else:
        mask, pruned = getattr(baselines, choose)(model, [inputs], **options)
    assert all(kept.any() for kept in mask.kept.values())
    assert np.std(pruned(inputs)) > 0.1 * np.std(model(inputs))


def test_where_no_layer_moves_the_outputs_curvature_divides(case):
    network, inputs, curves = case
    silent = {**network.params, "out/kernel": 0 * network.params["out/kernel"]}
    hidden = {name: curves[name] for name in ("first", "second")}
    for heavy, light in (("first", "second"), ("second", "first")):
        importance = {name: np.full((1, network.layers[name].outputs), 1.0 if name == heavy else 1e-6) for name in hidden}
        counts = divide(network, [inputs], hidden, importance, 60, params=silent)
        assert counts[heavy].sum() > counts[light].sum()


@pytest.mark.parametrize("cost", [0.0, -1.0])
def test_a_layer_without_a_positive_cost_counts_as_the_cheapest(case, monkeypatch, cost):
    network, inputs, curves = case
    importance = {name: np.ones((1, layer.outputs)) for name, layer in network.layers.items()}

    def divided(first):
        costs = {"first": first, "second": 0.5, "out": 2.0}
        monkeypatch.setattr("annealsubnet.layer_costs.layer_costs", lambda *given, **options: costs)
        return divide(network, [inputs], curves, importance, 100, params=network.params)

    found, expected = divided(cost), divided(0.5)
    assert all(np.array_equal(found[name], expected[name]) for name in curves)


def test_costs_of_mild_pruning_are_not_negative(case):
    network, inputs, curves = case
    for fewer in (1, 2):
        counts = {name: np.full((1, layer.outputs), layer.fan_in - fewer) for name, layer in network.layers.items()}
        for scale in (1.0, 1e-2, 1e-4):  # of the outputs, and of how far they move
            params = {path: value * (scale if path.startswith("out") else 1) for path, value in network.params.items()}
            hidden = {name: curves[name] for name in ("first", "second")}
            costs = layer_costs(network, [inputs], hidden, counts, params=params)
            assert min(costs.values()) >= 0
