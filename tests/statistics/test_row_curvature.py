"""Moments by rows: the Gauss-Newton blocks of neurons, against Jacobians of the whole network; and what is made of them."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from annealsubnet import Mask, baselines, prune, refit
from annealsubnet.losses import cross_entropy, squared_error
from annealsubnet.networks import as_network, from_function
from annealsubnet.statistics import row_curvature
from annealsubnet.statistics import targets as targets_module
from annealsubnet.statistics.moments import input_moments, self_regression
from annealsubnet.statistics.row_curvature import (
    RowCurvature,
    RowProducts,
    as_rows,
    from_rows,
    layer_targets,
    mixed,
    own_row_regressions,
    row_deltas,
    row_regression,
)
from annealsubnet.stochastic_fit import divergence
from tests.models import regression_in


class Network(nnx.Module):
    """Two convolutions, one of them in groups and with a residual sum, averaged over positions."""

    def __init__(self, classes: int = 3) -> None:
        rngs = nnx.Rngs(0)
        self.first = nnx.Conv(2, 4, (3, 3), use_bias=False, rngs=rngs)
        self.second = nnx.Conv(4, 4, (3, 3), feature_group_count=2, rngs=rngs)
        self.out = nnx.Linear(4, classes, rngs=rngs)

    def __call__(self, inputs):
        hidden = nnx.relu(self.first(inputs))
        return 3 * self.out(nnx.relu(hidden + self.second(hidden)).mean((1, 2)))


def inputs_of(count: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(count, 5, 5, 2)).astype(np.float32)


@pytest.fixture(scope="module")
def case():
    inputs = inputs_of(20)
    return as_network(Network(), inputs), inputs


def own(network, inputs, curvature):
    moments = input_moments(network, [inputs])
    regressions = {name: self_regression(layer, moments[name], network.params) for name, layer in network.layers.items()}
    return regressions, dict(own_row_regressions(network, [inputs], regressions, params=network.params, curvature=curvature))


def blocks(network, name, inputs, hessian):
    """E Jᵀ F J of every neuron of a layer in its weights, and its bias where there is one: `[row, input, input]`."""
    layer = network.layers[name]
    paths = [layer.kernel] + ([layer.bias] if layer.bias is not None else [])

    @jax.jit
    def jacobians(values, one):
        return jax.jacrev(lambda moved: network.apply({**network.params, **moved}, one[None])[0])(values)

    total = 0.0
    for one in inputs:
        jacobian = jacobians({path: network.params[path] for path in paths}, one)
        curvature = hessian(np.asarray(network.apply(network.params, one[None]), np.float64)[0])
        kernels = [as_rows(np.asarray(layer.matrix(np.asarray(each, np.float64)))) for each in jacobian[layer.kernel]]
        rows = np.stack(kernels)[:, :, :, 0]
        if layer.bias is not None:
            rows = np.concatenate([rows, np.asarray(jacobian[layer.bias], np.float64).reshape(len(rows), -1, 1)], 2)
        total = total + np.einsum("cri,cd,drj->rij", rows, curvature, rows)
    return total / len(inputs)


def softmax_hessian(temperature):
    def hessian(outputs):
        share = np.exp(outputs / temperature - np.logaddexp.reduce(outputs / temperature))
        return np.diag(share) - np.outer(share, share)

    return hessian


@pytest.mark.parametrize("name", ["first", "second", "out"])
@pytest.mark.parametrize(
    ("curvature", "hessian"),
    [(RowCurvature(cross_entropy, 2.5), softmax_hessian(2.5)), (RowCurvature(squared_error, 2.5), lambda outputs: np.eye(3))],
)
def test_moments_are_half_the_gauss_newton_block_of_the_row(case, name, curvature, hessian):
    network, inputs = case
    regressions, found = own(network, inputs, curvature)
    regression, rows = regressions[name], found[name]
    block = blocks(network, name, inputs, hessian)
    fan_in = regression.gram.shape[1]
    for row in range(len(block)):
        gram = regression.gram[row * len(regression.gram) // len(block)]
        scale = np.trace(block[row][:fan_in, :fan_in]) / np.trace(gram)
        wanted = 0.5 * scale * gram + 0.5 * block[row][:fan_in, :fan_in]
        np.testing.assert_allclose(2 * rows.cost[row, 0] * rows.regression.gram[row], wanted, rtol=1e-4, atol=1e-5 * scale)
    if regression.with_bias:
        np.testing.assert_allclose(
            4 * rows.cost[:, 0] - block[:, fan_in, fan_in],
            [
                np.trace(each[:fan_in, :fan_in]) / np.trace(regression.gram[row * len(regression.gram) // len(block)])
                for row, each in enumerate(block)
            ],
            rtol=1e-4,
        )


def test_the_dense_weights_have_no_error(case):
    network, inputs = case
    _, found = own(network, inputs, RowCurvature(cross_entropy, 4.0))
    for name, rows in found.items():
        layer = network.layers[name]
        weights = as_rows(layer.matrix(np.asarray(network.params[layer.kernel], np.float64)))[:, :, 0]
        centered = rows.regression.centered()
        explained = 2 * np.einsum("ri,ri->r", centered.cross[:, :, 0], weights)
        explained -= np.einsum("ri,rij,rj->r", weights, centered.gram, weights)
        np.testing.assert_allclose(explained, centered.target_energy[:, 0], rtol=1e-4)


def test_at_the_dense_network_targets_are_the_layers_own_outputs(case):
    network, inputs = case
    curvature = RowCurvature(cross_entropy, 4.0)
    _, found = own(network, inputs, curvature)
    for name, rows in found.items():
        batches, dense = [inputs[:7], inputs[7:]], network.params
        targets = layer_targets(network, batches, [name], weighed=[name], target_params=dense)
        (deltas,) = row_deltas(network, targets.batches, [name], params=dense, curvature=curvature)
        again = row_regression(network, name, deltas, targets, params=dense)
        count = regression_in(network, inputs, name).count
        assert again.regression.count == count == rows.regression.count
        np.testing.assert_allclose(again.cost, rows.cost, rtol=1e-4)
        for which in ("gram", "mean", "cross", "target_mean", "target_energy"):
            ours, theirs = getattr(again.regression, which), getattr(rows.regression, which)
            np.testing.assert_allclose(ours, theirs, rtol=2e-3, atol=1e-4 * np.abs(theirs).max())


class Shuffled:
    """The same examples in another order at each pass, as many a loader gives them."""

    def __init__(self, inputs):
        self.inputs, self.generator = inputs, np.random.default_rng(0)

    def __iter__(self):
        mixed = self.generator.permutation(self.inputs)
        return iter([mixed[:7], mixed[7:]])


@pytest.mark.parametrize("most", [0, 2**28])
def test_the_order_of_examples_may_be_another_at_each_pass(case, most, monkeypatch):
    monkeypatch.setattr(targets_module, "_HELD", most)
    network, inputs = case
    curvature, dense = RowCurvature(cross_entropy, 4.0), network.params
    name = "second"
    found = []
    for batches in ([inputs], Shuffled(inputs)):
        targets = layer_targets(network, batches, [name], weighed=[name], target_params=dense)
        (deltas,) = row_deltas(network, targets.batches, [name], params=dense, curvature=curvature)
        found.append(row_regression(network, name, deltas, targets, params=dense))
    np.testing.assert_allclose(found[0].regression.gram, found[1].regression.gram, rtol=1e-3, atol=1e-5)
    np.testing.assert_allclose(found[0].regression.cross, found[1].regression.cross, rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize("most", [1, 3 * 20 * 5 * 5 * 4, 2**28])
def test_deltas_are_the_same_however_many_are_held(case, most, monkeypatch):
    """None, the first layer's, or all; 20 examples, 3 factors, 5 by 5 positions, 4 channels."""
    network, inputs = case
    monkeypatch.setattr(row_curvature, "_DELTAS", most)
    options = {"params": network.params, "curvature": RowCurvature(cross_entropy, 2.5)}
    found = row_deltas(network, [inputs], network.layers, **options)
    for name, pieces in zip(network.layers, found, strict=True):
        assert isinstance(pieces, list) == (most > 1)
        (alone,) = row_deltas(network, [inputs], [name], **options)
        ours, theirs = (np.concatenate([delta for _, delta in each], 1) for each in (pieces, alone))
        np.testing.assert_allclose(ours, theirs, rtol=1e-5, atol=1e-6)
        assert ours.shape[:2] == (3, 20)


def test_the_loss_of_a_changed_neuron_is_predicted(case):
    """To second order the row's error, with nothing of the layer's own moments in it, is the divergence."""
    network, inputs = case
    temperature = 2.0
    block = blocks(network, "first", inputs, softmax_hessian(temperature))
    change = 0.05 * np.random.default_rng(1).normal(size=block.shape[1])
    layer = network.layers["first"]
    kernel = layer.matrix(np.asarray(network.params[layer.kernel], np.float64)).copy()
    kernel[0, :, 2] += change
    moved = {**network.params, layer.kernel: jnp.asarray(layer.from_matrix(kernel), jnp.float32)}
    found = divergence(network.apply(moved, inputs), network.apply(network.params, inputs), temperature)
    assert float(found) == pytest.approx(0.5 * change @ block[2] @ change, rel=0.1)


@pytest.mark.parametrize(("classes", "examples", "most"), [(40, 400, 2**13), (3, 1500, 1500)])
def test_many_classes_or_examples_are_added_up_with_random_signs(classes, examples, most, monkeypatch):
    monkeypatch.setattr(row_curvature, "_VECTORS", most)
    inputs = inputs_of(examples)
    network = as_network(Network(classes), inputs)
    _, found = own(network, inputs, RowCurvature(cross_entropy, 4.0))
    for name in ("first", "second"):
        block = blocks(network, name, inputs, softmax_hessian(4.0))[:, : network.layers[name].fan_in]
        regression = self_regression(network.layers[name], input_moments(network, [inputs])[name], network.params)
        for row in range(len(block)):
            gram = regression.gram[row * len(regression.gram) // len(block)]
            square = block[row][:, : len(gram)]
            wanted = 0.5 * np.trace(square) / np.trace(gram) * gram + 0.5 * square
            got = 2 * found[name].cost[row, 0] * found[name].regression.gram[row]
            assert np.linalg.norm(got - wanted) < 0.15 * np.linalg.norm(wanted)


def test_a_neuron_that_moves_nothing_costs_next_to_nothing(case):
    network, inputs = case
    regression = self_regression(network.layers["first"], input_moments(network, [inputs])["first"], network.params)
    fan_in, outputs = regression.cross.shape[1:]
    gram = np.stack([np.eye(fan_in + 1)] * outputs)
    gram[1] = 0.0
    rows = mixed(regression, RowProducts(gram, np.zeros((outputs, fan_in + 1)), np.zeros(outputs)))
    assert np.isfinite(rows.regression.gram).all()
    assert 0 < rows.cost[1, 0] < 1e-3 * rows.cost[0, 0]
    np.testing.assert_allclose(rows.regression.gram[1], regression.gram[0], rtol=1e-6)


def test_a_layer_whose_inputs_are_all_zero_gives_finite_weights():
    model = Network()
    model.first.kernel[...] = -jnp.abs(model.first.kernel[...])
    inputs = np.abs(inputs_of(30))
    mask, pruned = prune(model, [inputs], keep=0.5, polish=0, effort=1, curvature=True, seed=0)
    assert mask.kept_count == round(0.5 * mask.size)
    assert np.isfinite(np.asarray(pruned(inputs))).all()


def test_rows_are_the_matrix_and_back():
    matrix = np.arange(2 * 3 * 4).reshape(2, 3, 4)
    rows = as_rows(matrix)
    assert rows.shape == (8, 3, 1)
    assert (rows[5, :, 0] == matrix[1, :, 1]).all()
    assert (from_rows(rows, 2) == matrix).all()


def test_weighing_by_curvature_leaves_the_outputs_nearer():
    inputs, others = inputs_of(200), inputs_of(1000, seed=1)
    model = Network()
    dense = model(others)
    ends = {}
    for curvature in (True, False):
        _, pruned = prune(model, [inputs], keep=0.3, polish=0, effort=3, curvature=curvature, seed=0)
        ends[curvature] = float(divergence(pruned(others), dense))
    assert ends[True] < 0.9 * ends[False]


@pytest.mark.parametrize(
    ("options", "message"),
    [({"unit": "neuron"}, "curvature=True cannot be had"), ({"pattern": "2x1", "keep": 0.5}, "without training or blocks")],
)
def test_curvature_that_cannot_be_had_is_refused(options, message):
    with pytest.raises(ValueError, match=message):
        prune(Network(), [inputs_of(20)], **{"keep": 0.5, **options}, curvature=True, seed=0)


def test_the_refit_of_a_mask_by_rows_is_the_one_that_pruning_made():
    inputs, model = inputs_of(60), Network()
    mask, pruned = prune(model, [inputs], keep=0.4, polish=0, effort=1, seed=0)
    np.testing.assert_allclose(refit(model, mask, [inputs])(inputs), pruned(inputs), rtol=1e-4, atol=1e-5)
    by_layers = refit(model, mask, [inputs], curvature=False)(inputs)
    assert np.abs(by_layers - pruned(inputs)).max() > 1e-3


def test_a_refit_by_rows_leaves_the_outputs_nearer():
    inputs, others = inputs_of(200), inputs_of(1000, seed=1)
    model = Network()
    mask, _ = baselines.magnitude(model, [inputs], keep=0.3, seed=0)
    ends = [
        float(divergence(refit(model, mask, [inputs], curvature=weighed)(others), model(others))) for weighed in (True, False)
    ]
    assert ends[0] < 0.9 * ends[1]


def test_removed_neurons_are_refitted_by_rows_if_that_is_wanted():
    inputs, others = inputs_of(200), inputs_of(1000, seed=1)
    model = Network()
    network = as_network(model, inputs)
    mask = Mask.of(network, "neuron", {"first": np.array([True, True, False, True])})
    by_layers, by_default, by_rows = (
        refit(model, mask, [inputs], curvature=weighed)(others) for weighed in (False, None, True)
    )
    np.testing.assert_array_equal(by_layers, by_default)
    assert float(divergence(by_rows, model(others))) < float(divergence(by_layers, model(others)))


def test_a_refit_by_rows_that_cannot_be_had_is_refused():
    inputs = np.ones((4, 6, 3), np.float32)
    params = {"out": {"kernel": jnp.eye(3)}}
    model = from_function(lambda values, x, tap: tap.dense("out", x), params)
    mask = Mask.of(as_network(model, inputs), "weight", {"out": np.eye(3) > 0})
    with pytest.raises(ValueError, match="curvature=True cannot be had: the network returns"):
        refit(model, mask, [inputs], curvature=True)
    refit(model, mask, [inputs])


def test_patterns_and_budgets_hold_by_rows():
    inputs, model = inputs_of(60), Network()
    mask, _ = prune(model, [inputs], pattern="1:3", exclude=["out"], effort=1, polish=0, curvature=True, seed=0)
    for name in ("first", "second"):
        kept = as_network(model, inputs).layers[name].matrix(np.asarray(mask.kept[name]))
        assert (kept.reshape(kept.shape[0], -1, 3, kept.shape[2]).sum(2) == 1).all()
    for scope in ("network", "layer", "neuron"):
        mask, _ = prune(model, [inputs], keep=0.5, scope=scope, effort=1, polish=0, curvature=True, seed=0)
        counts = {
            name: layer.matrix(np.asarray(mask.kept[name])).sum(1) for name, layer in as_network(model, inputs).layers.items()
        }
        assert scope != "network" or mask.kept_count == round(0.5 * mask.size)
        assert scope != "layer" or all(2 * count.sum() == mask.kept[name].size for name, count in counts.items())
        assert scope != "neuron" or all((2 * counts[name] == [18, 18, 4][n]).all() for n, name in enumerate(counts))
