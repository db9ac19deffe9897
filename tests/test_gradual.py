"""Gradual pruning: exact counts in every round, a budget that is kept, a loss that falls."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from annealsubnet import Mask, evaluate, prune, pruning
from annealsubnet.gradual import Trained, Training, train_kept
from annealsubnet.losses import cross_entropy, squared_error
from annealsubnet.networks import as_network
from tests.models import Classifier


@pytest.fixture(scope="module")
def case():
    inputs = np.random.default_rng(0).normal(size=(120, 6)).astype(np.float32)
    labels = np.argmax(inputs[:, :3], axis=1)
    return as_network(Classifier(), inputs), [(inputs[:70], labels[:70]), (inputs[70:], labels[70:])]


def test_a_step_is_the_optimizers_on_what_is_kept(case):
    network, batches = case
    inputs, labels = (np.concatenate(arrays) for arrays in zip(*batches, strict=True))
    kept = np.random.default_rng(1).random((6, 9)) < 0.5
    mask = Mask.of(network, "weight", {"first": kept})
    training = Training(optax.sgd(0.1), examples=240, batch_size=120)
    found = train_kept(network, mask, batches, Trained(network.params), training=training, loss=cross_entropy, seed=0)
    assert found.examples == 240
    params = mask.multiply(network.params)
    for _ in range(2):
        slopes = jax.grad(lambda values: cross_entropy.value(network.apply(values, inputs), jnp.asarray(labels)).mean())(params)
        params = mask.multiply({path: value - 0.1 * slopes[path] for path, value in params.items()})
    for path, value in params.items():
        np.testing.assert_allclose(found.params[path], value, atol=1e-5)


def test_rounds_with_training_keep_the_count_and_learn(case):
    network, batches = case
    training = Training(optax.adam(0.02), examples=1200, batch_size=40)
    options = {"keep": 0.4, "unit": "weight", "seed": 0, "polish": 0}
    mask, learned = prune(network, batches, rounds=3, training=training, **options)
    assert mask.kept_count == round(0.4 * mask.size)
    for name, kept in mask.kept.items():
        assert not np.asarray(getattr(learned, name).kernel[...])[~kept].any()
    _, still = prune(network, batches, rounds=3, **options)
    assert evaluate(learned, batches).loss < 0.5 * evaluate(still, batches).loss


@pytest.mark.parametrize(
    ("labels", "loss", "message"),
    [
        (None, cross_entropy, "labels are needed"),
        (7, cross_entropy, "labels from 7"),
        (0, squared_error, "labels like the outputs"),
    ],
)
def test_labels_that_cannot_be_trained_on_are_refused_before_any_work(case, monkeypatch, labels, loss, message):
    network, batches = case
    monkeypatch.setattr(pruning, "thin_weights", lambda *given, **options: pytest.fail("weights were chosen"))
    wrong = [inputs if labels is None else (inputs, given * 0 + labels) for inputs, given in batches]
    with pytest.raises(ValueError, match=message):
        prune(network, wrong, keep=0.5, training=Training(optax.sgd(0.1), 10), loss=loss, seed=0)


def test_what_does_not_go_together_is_refused(case):
    network, batches = case
    with pytest.raises(ValueError, match="training"):
        prune(network, batches, keep=0.5, unit="neuron", training=Training(optax.sgd(0.1), 10), seed=0)
    with pytest.raises(ValueError, match="labels"):
        prune(network, [batches[0][0]], keep=0.5, polish=0, training=Training(optax.sgd(0.1), 10), seed=0)
    with pytest.raises(ValueError, match="1 or more"):
        Training(optax.sgd(0.1), 0)


@pytest.mark.parametrize("dtype", [jnp.bfloat16, jnp.float16])
def test_half_floats_stay_half_floats(case, dtype):
    network, batches = case
    network = network.replace(network.model.export({path: value.astype(dtype) for path, value in network.params.items()}))
    kept = np.random.default_rng(1).random((6, 9)) < 0.5
    mask = Mask.of(network, "weight", {"first": kept})
    training = Training(optax.adam(0.01), examples=120)
    found = train_kept(network, mask, batches, Trained(network.params), training=training, loss=cross_entropy, seed=0)
    assert {value.dtype for value in found.params.values()} == {jnp.dtype(dtype)}
    state = train_kept(network, mask, batches, found, training=training, loss=cross_entropy, seed=1).state
    assert jax.tree.map(jnp.result_type, state) == jax.tree.map(jnp.result_type, training.tx.init(network.params))
    first = np.asarray(found.params["first/kernel"])
    assert not first[~kept].any() and (first[kept] != np.asarray(network.params["first/kernel"])[kept]).any()
