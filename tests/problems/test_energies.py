"""The energy of every problem equals its definition on a network's own activations."""

from itertools import product

import dimod
import numpy as np
import pytest
from flax import nnx

from annealsubnet.decompose import Limits, decompose
from annealsubnet.neighborhoods import strongest
from annealsubnet.networks import as_network
from annealsubnet.problems import LowRankProblem, Problem, Support, fan_in_problem, gate_problem, site_problem, sparsify
from annealsubnet.statistics.moments import input_moments, self_regression
from tests.models import regression_in


class Network(nnx.Module):
    """A site with two consumers of different windows, one that flattens, and a biased tail."""

    def __init__(self) -> None:
        rngs = nnx.Rngs(0)
        self.first = nnx.Conv(2, 5, (3, 3), rngs=rngs)
        self.left = nnx.Conv(5, 4, (3, 3), strides=2, rngs=rngs)
        self.right = nnx.Conv(5, 4, (1, 1), strides=2, use_bias=False, rngs=rngs)
        self.dense = nnx.Linear(16, 6, rngs=rngs)
        self.out = nnx.Linear(6, 3, rngs=rngs)

    def __call__(self, inputs):
        hidden = nnx.relu(self.first(inputs))
        hidden = nnx.relu(self.left(hidden) + self.right(hidden))
        return self.out(nnx.sigmoid(self.dense(hidden.reshape(len(hidden), -1))))


@pytest.fixture(scope="module")
def setting():
    inputs = np.random.default_rng(0).normal(size=(30, 4, 4, 2)).astype(np.float32)
    network = as_network(Network(), inputs)
    moments = input_moments(network, [inputs])
    regressions = {name: self_regression(layer, moments[name], network.params) for name, layer in network.layers.items()}
    return network, inputs, regressions


def states_of(size, count=12):
    return np.random.default_rng(1).random((count, size)) < 0.5


def error_without(network, inputs, site, kept, importance):
    """E‖Σ_u x_u c_u − (y − bias)‖² from the consumers' own inputs: zero what a removed unit feeds."""
    total = 0.0
    for name, unit_of_input in site.consumers.items():
        layer = network.layers[name]
        _, records = network.run(network.params, inputs, record=[name])
        vectors = np.asarray(layer.patches(records[name][0]), np.float64)
        weights = layer.matrix(np.asarray(network.params[layer.kernel], np.float64))
        gone = ~np.append(kept, True)[unit_of_input]
        change = np.einsum("vgi,gio->vgo", vectors * gone, weights)
        total += ((change**2).mean(0) * importance[name]).sum()
    return total


@pytest.mark.parametrize("name", ["first", "left", "dense"])
def test_site_energy_is_the_error_before_refit(setting, name):
    network, inputs, regressions = setting
    site = network.neurons[name]
    rng = np.random.default_rng(2)
    importance = {consumer: rng.random(regressions[consumer].target_mean.shape) for consumer in site.consumers}
    problem = site_problem(site, regressions, network.layers, network.params, importance=importance)
    states = states_of(site.size)
    wanted = [error_without(network, inputs, site, state, importance) for state in states]
    np.testing.assert_allclose(problem.energy(states), wanted, rtol=1e-4, atol=1e-6)
    assert abs(problem.energy(np.ones(site.size))) < 1e-6 * problem.energy(np.zeros(site.size))


def test_site_energy_in_a_network_pruned_before(setting):
    network, inputs, _ = setting
    params = dict(network.params)
    params["first/kernel"] = params["first/kernel"].at[..., 1].set(0)
    found = regression_in(network, inputs, "dense", params=params)
    site = network.neurons["left"]
    problem = site_problem(site, {"dense": found}, network.layers, network.params, importance={"dense": np.ones((1, 6))})
    _, now = network.run(params, inputs, record=["dense"])
    _, dense = network.run(network.params, inputs, record=["dense"])
    vectors = np.asarray(now["dense"][0], np.float64)
    kernel, bias = (np.asarray(network.params[f"dense/{part}"], np.float64) for part in ("kernel", "bias"))
    for state in states_of(site.size):
        stays = state[site.consumers["dense"][0]]
        error = (((vectors * stays) @ kernel + bias - np.asarray(dense["dense"][1])) ** 2).mean(0).sum()
        np.testing.assert_allclose(problem.energy(state), error, rtol=1e-4)


def test_fan_in_energy_is_the_error_of_the_weights(setting):
    _, _, regressions = setting
    regression = regressions["dense"]
    gram, target = regression.gram[0], regression.cross[0]
    weights = np.random.default_rng(4).normal(size=len(target))
    problem = fan_in_problem(gram, target[:, 0], weights, target_energy=regression.target_energy[0, 0], name="n")
    for state in states_of(len(gram)):
        chosen = weights * state
        error = regression.target_energy[0, 0] - 2 * chosen @ target[:, 0] + chosen @ gram @ chosen
        np.testing.assert_allclose(problem.energy(state), error, rtol=1e-9)


def test_exchange_energy_is_the_refitted_error_where_at_most_two_inputs_change():
    rng = np.random.default_rng(0)
    inputs = rng.normal(size=(60, 9)) @ rng.normal(size=(9, 9))
    wanted = inputs @ rng.normal(size=9) + rng.normal(size=60)
    moments, target, energy = inputs.T @ inputs / 60 + 0.1 * np.eye(9), inputs.T @ wanted / 60, wanted @ wanted / 60
    kept = np.isin(np.arange(9), (1, 2, 5, 8))

    def error(stays):
        chosen = np.flatnonzero(stays)
        return energy - target[chosen] @ np.linalg.solve(moments[np.ix_(chosen, chosen)], target[chosen])

    support = Support.of(moments, target, kept, target_energy=energy)
    assert support.error == pytest.approx(error(kept))
    for charge in (0.0, 0.3):
        problem, places = support.problem(9, charge=charge, name="n")
        assert sorted(places) == list(range(9)) and problem.names == tuple(f"n:{place}" for place in places)
        assert problem.num_kept == 4
        states = [np.array(state) for state in product((False, True), repeat=9) if (state != kept[places]).sum() <= 2]
        assert len(states) == 1 + 9 + 36
        for state in states:
            stays = np.zeros(9, bool)
            stays[places] = state
            left = (kept & ~stays).sum()
            np.testing.assert_allclose(problem.energy(state), error(stays) + charge * (left == 2), rtol=1e-9)
    few, places = support.problem(2)
    assert few.size == 4 and kept[places].tolist() == [True, True, False, False]
    alone = [error(kept & (np.arange(9) != place)) for place in np.flatnonzero(kept)]
    assert set(places[:2]) == set(np.flatnonzero(kept)[np.argsort(alone)[:2]])


def test_inputs_that_repeat_a_kept_one_take_no_part_in_exchanges():
    moments = np.array([[1.0, 1.0, 0.2], [1.0, 1.0, 0.2], [0.2, 0.2, 1.0]]) + 1e-9 * np.eye(3)
    problem, places = Support.of(moments, np.ones(3), np.array([True, False, False]), target_energy=3.0).problem(3)
    assert places.tolist() == [0, 2] and np.isfinite(problem.energy(np.array([0, 1])))


def test_gate_energy_is_the_second_order_model():
    rng = np.random.default_rng(0)
    curvature, gradient = np.cov(rng.normal(size=(7, 20))), rng.normal(size=7)
    for at in (np.ones(7), rng.random(7)):
        problem = gate_problem({"a": 3, "b": 4}, curvature, gradient=gradient, at=at, value=2.0, ridge=0.3)
        for state in states_of(7):
            step = state - at
            wanted = 2.0 + gradient @ step + 0.5 * step @ (curvature + 0.3 * np.eye(7)) @ step
            np.testing.assert_allclose(problem.energy(state), wanted, rtol=1e-9, atol=1e-12)
    assert problem.names[:4] == ("a:0", "a:1", "a:2", "b:0")


def random_problem(size, seed):
    rng = np.random.default_rng(seed)
    couplings = np.triu(rng.normal(size=(size, size)), 1)
    return Problem(rng.normal(size=size), couplings + couplings.T, rng.normal())


@pytest.mark.parametrize("degree", [0, 1, 3, 8, 20])
def test_neighborhoods_are_symmetric_and_bounded(degree):
    problem = random_problem(21, degree)
    edges = strongest(problem.couplings, degree=degree)
    assert (edges == edges.T).all() and not edges.diagonal().any()
    assert edges.sum(1).max(initial=0) <= degree
    # Greedy: a coupling is dropped only where an end is full of couplings at least as strong.
    strength = np.abs(problem.couplings)
    for one, other in np.argwhere(~edges & ~np.eye(21, dtype=bool)):
        full = [
            edges[end].sum() == degree and (degree == 0 or strength[end][edges[end]].min() >= strength[one, other])
            for end in (one, other)
        ]
        assert any(full)


@pytest.mark.parametrize("degree", [0, 2, 5])
def test_sparse_energy_is_exact_to_first_order_at_the_mask(degree):
    problem, at = random_problem(12, 9), np.random.default_rng(5).random(12) < 0.5
    found = sparsify(problem, strongest(problem.couplings, degree=degree), at=at)
    flips = np.vstack([at, at ^ np.eye(12, dtype=bool)])
    np.testing.assert_allclose(found.problem.energy(flips), problem.energy(flips), rtol=1e-9, atol=1e-9)
    assert found.degree <= degree
    assert 0 <= found.share_kept <= 1
    whole = sparsify(problem, ~np.eye(12, dtype=bool), at=at)
    assert whole.share_kept == 1.0
    states = states_of(12)
    np.testing.assert_allclose(whole.problem.energy(states), problem.energy(states))


def test_problems_agree_with_dimod(setting, tmp_path):
    network, _, regressions = setting
    problem = site_problem(network.neurons["first"], regressions, network.layers, network.params, num_kept=2)
    bqm = problem.to_bqm()
    with bqm.to_file() as file:
        again = dimod.BinaryQuadraticModel.from_file(file)
    states = np.array(list(product([0, 1], repeat=problem.size)))
    np.testing.assert_allclose(again.energies((states, problem.names)), problem.energy(states), rtol=1e-6, atol=1e-9)
    best = dimod.ExactCQMSolver().sample_cqm(problem.to_cqm()).filter(lambda row: row.is_feasible).first
    least = problem.energy(states[states.sum(1) == 2]).min()
    np.testing.assert_allclose(best.energy, least, rtol=1e-9)


@pytest.mark.parametrize(
    ("state", "message"),
    [
        ([-1, 1], "there is -1"),
        ([0.5, 1], "there is 0.5"),
        ([np.nan, 1], "there is nan"),
        ([1, 0, 1], "2 variables"),
        (1, "axis"),
    ],
)
def test_what_is_no_state_is_refused_at_every_door(state, message):
    problem = Problem(np.array([1.0, 2.0]), np.zeros((2, 2)))
    low_rank = LowRankProblem(np.ones((2, 1)), np.zeros(1), np.zeros(2))
    part = decompose(problem, Limits(), seed=0).part(0, np.zeros(2))
    for door in (
        problem.energy,
        low_rank.energy,
        low_rank.outputs,
        lambda state: low_rank.part(np.array([0]), state),
        lambda state: sparsify(problem, np.eye(2) == 0, at=state),
        part.energies,
    ):
        with pytest.raises(ValueError, match=message):
            door(np.array(state))


def test_neighborhoods_of_what_is_no_number():
    couplings = random_problem(6, 0).couplings
    with pytest.raises(TypeError, match="degree"):
        strongest(couplings, degree=2.5)
    with pytest.raises(ValueError, match="degree must be at least 0"):
        strongest(couplings, degree=-1)
    for value in (np.nan, np.inf):
        with pytest.raises(ValueError, match="couplings must be finite; 1 are NaN or infinite"):
            strongest(np.where(np.arange(36).reshape(6, 6) == 4, value, couplings), degree=2)


@pytest.mark.parametrize("kind", [np.bool_, np.int8, np.float32, np.float64, list])
def test_states_of_every_kind_are_the_same(kind):
    problem = Problem(np.array([1.0, 2.0]), np.array([[0.0, 4.0], [4.0, 0.0]]))
    states = [[0, 1], [1, 1]] if kind is list else np.array([[0, 1], [1, 1]], kind)
    assert problem.energy(states).tolist() == [2.0, 7.0]
