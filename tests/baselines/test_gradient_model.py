"""The methods on the quadratic model of gradients do what their papers define, computed here with the whole p × p matrix."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from annealsubnet.baselines.chita import chita
from annealsubnet.baselines.gradient_model import gradient_model, ridge_regression, woodbury
from annealsubnet.baselines.surgeon import exchanges, surgeon, zero_swaps
from annealsubnet.baselines.woodfisher import woodfisher
from annealsubnet.losses import cross_entropy, squared_error
from annealsubnet.networks import as_network
from tests.models import EXAMPLES

RIDGE = 1e-3
OPTIONS = {"rows": 20, "ridge": RIDGE}


@pytest.fixture(scope="module")
def given():
    """A network, batches of 40 examples, its weights in one vector, and the mean of g g' over 20 pairs of examples."""
    example = EXAMPLES["mlp"]()
    network = example.network("nnx")
    rng = np.random.default_rng(0)
    inputs = rng.normal(size=(40, *example.inputs.shape[1:])).astype(np.float32)
    labels = rng.integers(3, size=40)
    kernels = {name: network.params[layer.kernel] for name, layer in network.layers.items()}
    flat, restore = jax.flatten_util.ravel_pytree(kernels)

    def loss(values, rows, targets):
        paths = {network.layers[name].kernel: kernel for name, kernel in restore(values).items()}
        return cross_entropy.value(network.run({**network.params, **paths}, rows)[0], targets).mean()

    slope = jax.jit(jax.grad(loss))
    pairs = [slope(flat, inputs[i : i + 2], jnp.asarray(labels[i : i + 2])) for i in range(0, 40, 2)]
    rows = np.asarray(jnp.stack(pairs), np.float64)
    return network, [(inputs, labels)], np.asarray(flat, np.float64), rows.T @ rows / 20


def vector(network, result):
    """Mask and weights of a method's answer as vectors, in the order of `ravel_pytree`."""
    mask, pruned = result
    params = as_network(pruned, network.example).params
    names = sorted(network.layers)
    weights = [np.asarray(params[network.layers[name].kernel], np.float64).ravel() for name in names]
    return np.concatenate([mask.kept[name].ravel() for name in names]), np.concatenate(weights)


def best_on(fisher, dense, kept):
    """The weights of least ½ δ'(F + λ)δ with zeros off `kept`."""
    matrix = fisher + RIDGE * np.eye(len(dense))
    weights = np.zeros_like(dense)
    inside, outside = np.flatnonzero(kept), np.flatnonzero(~kept)
    right = matrix[np.ix_(inside, outside)] @ dense[outside]
    weights[inside] = dense[inside] + np.linalg.solve(matrix[np.ix_(inside, inside)], right)
    return weights


def cost(fisher, change):
    return 0.5 * change @ (fisher @ change) + 0.5 * RIDGE * change @ change


def test_woodbury_is_the_inverse():
    rows = np.random.default_rng(0).normal(size=(5, 12))
    for part in (rows, rows[:, :3]):
        right = np.arange(float(part.shape[1]))
        np.testing.assert_allclose(
            woodbury(part, 0.1, right), np.linalg.solve(part.T @ part + 0.1 * np.eye(part.shape[1]), right), rtol=1e-9
        )


@pytest.mark.parametrize("size", [4, 12])
@pytest.mark.parametrize("scale", [1.0, 1e8])
def test_ridge_regression_is_least_squares_with_the_ridge_as_rows_however_small_it_is_beside_them(size, scale):
    rng = np.random.default_rng(0)
    rows, target = scale * rng.normal(size=(6, 2)) @ rng.normal(size=(2, size)), rng.normal(size=6)
    stacked = np.vstack([rows, np.sqrt(RIDGE) * np.eye(size)])
    right = np.append(target, np.zeros(size))
    error = np.linalg.norm(stacked @ ridge_regression(rows, RIDGE, target) - right)
    least = np.linalg.norm(stacked @ np.linalg.lstsq(stacked, right, rcond=None)[0] - right)
    np.testing.assert_allclose(error, least, rtol=1e-9)


@pytest.mark.parametrize("method", [woodfisher, surgeon, zero_swaps, chita])
def test_gradients_beside_which_the_ridge_is_lost_in_rounding(given, method):
    network, [(inputs, labels)], *_ = given
    targets = 1e4 * np.eye(3, dtype=np.float32)[labels]
    kept, weights = vector(network, method(network, [(1e3 * inputs, targets)], keep=40, loss=squared_error))
    assert kept.sum() == 40 and np.isfinite(weights).all()


def test_woodfisher_by_the_whole_inverse(given):
    network, batches, dense, fisher = given
    blocks = np.zeros_like(fisher)
    start = 0
    for name in sorted(network.layers):  # without couplings between blocks of 10 weights of a layer
        size = int(np.prod(network.layers[name].shape))
        for first in range(start, start + size, 10):
            part = slice(first, min(first + 10, start + size))
            blocks[part, part] = fisher[part, part]
        start += size
    inverse = np.linalg.inv(blocks + RIDGE * np.eye(len(dense)))
    scores = dense**2 / (2 * np.diag(inverse))
    for update in ("joint", "sum", "none"):
        kept, weights = vector(network, woodfisher(network, batches, keep=40, block=10, update=update, **OPTIONS))
        assert scores[kept].min() > scores[~kept].max() and kept.sum() == 40
        expected = dense * kept
        if update == "joint":
            expected = best_on(blocks, dense, kept)
        if update == "sum":
            change = sum(-dense[q] * inverse[:, q] / inverse[q, q] for q in np.flatnonzero(~kept))
            expected = np.where(kept, dense + change, 0.0)
        np.testing.assert_allclose(weights, expected, rtol=1e-3, atol=1e-4)


def test_zero_swaps_is_magnitude_with_the_best_weights(given):
    network, batches, dense, fisher = given
    kept, weights = vector(network, zero_swaps(network, batches, keep=40, **OPTIONS))
    assert np.abs(dense)[kept].min() > np.abs(dense)[~kept].max()
    np.testing.assert_allclose(weights, best_on(fisher, dense, kept), rtol=1e-3, atol=1e-4)


def test_the_surgeon_ends_where_no_exchange_helps(given):
    network, batches, dense, fisher = given
    kept, weights = vector(network, surgeon(network, batches, keep=40, **OPTIONS))
    here = cost(fisher, dense * ~kept)
    start = np.argsort(np.abs(dense))[:-40]
    assert here < cost(fisher, np.where(np.isin(np.arange(len(dense)), start), dense, 0.0))
    for out in np.flatnonzero(kept):
        for back in np.flatnonzero(~kept):
            gone = ~kept
            gone[[out, back]] = gone[[back, out]]
            assert cost(fisher, dense * gone) >= here * (1 - 1e-4)
    np.testing.assert_allclose(weights, best_on(fisher, dense, kept), rtol=1e-3, atol=1e-4)


def test_exchanges_are_the_best_ones_in_turn():
    rng = np.random.default_rng(0)
    leaving, coming = rng.normal(size=(6, 5)), rng.normal(size=(6, 4))
    gone = rng.normal(size=6) + coming.sum(1)
    goes = 2 * gone @ leaving + (leaving**2).sum(0)
    comes = -2 * gone @ coming + (coming**2).sum(0)
    used_out, used_back, current = set(), set(), gone
    for out, back in exchanges(leaving, coming, goes, comes, tolerance=1e-9):
        trials = {
            (u, v): float(((current + leaving[:, u] - coming[:, v]) ** 2).sum())
            for u in set(range(5)) - used_out
            for v in set(range(4)) - used_back
        }
        assert (out, back) == min(trials, key=trials.get)
        current = current + leaving[:, out] - coming[:, back]
        used_out.add(out)
        used_back.add(back)
    assert used_out


def hard_thresholding(fisher, dense, count, scaled):
    """Weights of least ½ ‖A w − A w⁰‖² + (λ/2) ‖w − w⁰‖² as CHITA finds them, by the whole A'A, of diagonal 1 if `scaled`."""
    matrix = fisher + RIDGE * np.eye(len(dense))
    scale = np.sqrt(np.diag(matrix)) if scaled else np.ones(len(dense))
    hessian, goal, step = matrix / np.outer(scale, scale), dense * scale, None

    def value(point):
        return 0.5 * (point - goal) @ hessian @ (point - goal)

    def cut(point, sizes):
        return np.where(np.argsort(np.argsort(-sizes)) < count, point, 0.0)

    point, solved = cut(goal, np.abs(dense)), False
    for _ in range(50):
        gradient = hessian @ (point - goal)
        first = gradient @ gradient / (gradient @ hessian @ gradient) / 8 if step is None else step / 4
        trials = []  # steps twice as long each, until four in a row are no better than the best of those before
        while len(trials) < 16 and (len(trials) < 5 or min(trials[-4:])[0] < min(trials[:-4])[0]):
            tried = point - first * 2.0 ** len(trials) * gradient
            trials.append((value(cut(tried, np.abs(tried))), len(trials), cut(tried, np.abs(tried))))
        least, number, moved = min(trials)
        step = first * 2.0**number
        if least < value(point) * (1 - 1e-5):
            changed = ((moved != 0) != (point != 0)).any()
            point, solved = moved, False
            if changed:
                continue
        if solved:
            break
        point, solved = best_on(fisher, dense, point != 0) * scale, True
    return best_on(fisher, dense, point != 0)


@pytest.mark.parametrize("scaled", [True, False])
@pytest.mark.parametrize("count", [5, 15, 30, 40, 70])  # where the search does not hang on the last digits of the gradients
def test_chita_is_hard_thresholding_of_the_whole_regression(given, count, scaled):
    network, batches, dense, fisher = given
    kept, weights = vector(network, chita(network, batches, keep=count, scaled=scaled, **OPTIONS))
    expected = hard_thresholding(fisher, dense, count, scaled)
    np.testing.assert_array_equal(kept, expected != 0)
    np.testing.assert_allclose(weights, expected, rtol=1e-3, atol=1e-4)


def test_chita_is_below_magnitude_and_ends_at_the_best_weights(given):
    network, batches, dense, fisher = given
    kept, weights = vector(network, chita(network, batches, keep=30, **OPTIONS))
    assert kept.sum() == 30
    np.testing.assert_allclose(weights, best_on(fisher, dense, kept), rtol=1e-3, atol=1e-4)
    magnitude = np.zeros(len(dense), bool)
    magnitude[np.argsort(np.abs(dense))[-30:]] = True
    assert (kept != magnitude).any()
    assert cost(fisher, weights - dense) < cost(fisher, best_on(fisher, dense, magnitude) - dense)


def test_the_first_order_term_is_the_mean_gradient(given):
    network, batches, dense, _ = given
    options = {"keep": 40, "unit": "weight", "scope": "network", "exclude": (), "loss": cross_entropy}
    model = gradient_model(network, batches, "chita", **options, rows=40, ridge=RIDGE, first_order=True)
    kernels = {name: network.params[layer.kernel] for name, layer in network.layers.items()}

    def loss(values):
        paths = {network.layers[name].kernel: kernel for name, kernel in values.items()}
        outputs = network.run({**network.params, **paths}, batches[0][0])[0]
        return cross_entropy.value(outputs, jnp.asarray(batches[0][1])).mean()

    slopes = jax.jit(jax.grad(loss))(kernels)
    expected = np.concatenate([np.asarray(slopes[name]).ravel() for name in model.places])
    np.testing.assert_allclose(model.pull @ model.rows, expected, atol=1e-5)


@pytest.mark.parametrize("method", [woodfisher, surgeon, zero_swaps, chita])
def test_bad_requests_are_named(given, method):
    network, batches, *_ = given
    with pytest.raises(ValueError, match="give unit='weight'"):
        method(network, batches, keep=5, unit="neuron")
    with pytest.raises(ValueError, match="ridge is 0"):
        method(network, batches, keep=5, ridge=0.0)
    with pytest.raises(ValueError, match="labels are needed"):
        method(network, [batches[0][0]], keep=5)
