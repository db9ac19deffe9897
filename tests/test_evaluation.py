"""Evaluation: what a network does, and what it costs, counted by hand."""

import gc
import weakref

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from annealsubnet.evaluation import evaluate, positions
from annealsubnet.losses import cross_entropy, squared_error
from annealsubnet.masks import Mask
from annealsubnet.networks import from_function, from_nnx
from tests.models import EXAMPLES


def data(example):
    return example.inputs, np.arange(len(example.inputs)) % 3


@pytest.mark.parametrize("form", ["nnx", "linen", "function"])
def test_accuracy_and_loss_by_definition(form):
    example = EXAMPLES["mlp"]()
    inputs, labels = data(example)
    found = evaluate(example.network(form), [(inputs, labels)])
    assert found.accuracy == pytest.approx(np.mean(example.outputs.argmax(1) == labels))
    log_probability = jax.nn.log_softmax(example.outputs)
    assert found.loss == pytest.approx(-float(log_probability[np.arange(5), labels].mean()), rel=1e-5)
    assert found.examples == 5


def test_batch_sizes_do_not_matter():
    example = EXAMPLES["mlp"]()
    inputs, labels = data(example)
    whole = evaluate(example.network(), [(inputs, labels)])
    parts = evaluate(example.network(), [(inputs[:2], labels[:2]), (inputs[2:4], labels[2:4]), (inputs[4:], labels[4:])])
    assert parts.loss == pytest.approx(whole.loss, rel=1e-6)
    assert (parts.accuracy, parts.flops, parts.examples) == (whole.accuracy, whole.flops, whole.examples)


@pytest.mark.parametrize("dtype", [jnp.float16, jnp.bfloat16])
def test_half_floats_do_not_overflow_or_depend_on_batches(dtype):
    rng = np.random.default_rng(0)
    inputs, labels = rng.normal(size=(60_000, 2)).astype(np.float32), rng.integers(0, 3, 60_000)
    params = {"out": {"kernel": jnp.asarray(rng.normal(size=(2, 3)), dtype)}}
    model = from_function(lambda params, x, tap: tap.dense("out", x.astype(dtype)), params)
    parts = [(inputs[i : i + 100], labels[i : i + 100]) for i in range(0, 60_000, 100)]
    assert evaluate(model, [(inputs, labels)]).loss == pytest.approx(evaluate(model, parts).loss, rel=1e-5)


def test_other_losses_have_no_accuracy():
    example = EXAMPLES["mlp"]()
    found = evaluate(example.network(), [(example.inputs, example.outputs)], loss=squared_error)
    assert found.loss == pytest.approx(0.0, abs=1e-9) and np.isnan(found.accuracy)


def test_costs_of_a_dense_network():
    example = EXAMPLES["mlp"]()
    found = evaluate(example.network(), [data(example)])
    weights = 6 * 8 + 8 * 7 + 7 * 3
    assert found.parameters == found.nonzeros == weights + 8 + 7 + 3
    assert found.dense_flops == found.flops == 2 * weights
    assert repr(found).startswith("Evaluation(accuracy ")


def test_costs_of_convolutions_and_attention():
    assert positions(EXAMPLES["cnn"]().network()) == {"conv1": 64, "conv2": 4, "out": 1}
    assert positions(EXAMPLES["separable"]().network()) == {"stem": 36, "depthwise": 36, "pointwise": 36, "out": 1}
    found = positions(EXAMPLES["transformer"]().network())
    assert found == dict.fromkeys(found, 4) | {"out": 1}
    example = EXAMPLES["cnn"]()
    flops = 2 * (64 * 3 * 3 * 2 * 4 + 4 * 2 * 2 * 4 * 5 + 20 * 3)
    assert evaluate(example.network(), [data(example)]).dense_flops == flops


def test_costs_under_masks():
    example = EXAMPLES["mlp"]()
    network = example.network()
    kept = np.random.default_rng(0).random((8, 7)) < 0.5
    found = evaluate(network, [data(example)], Mask.of(network, "weight", {"fc2": kept}))
    assert found.nonzeros == found.parameters - 56 + kept.sum()
    assert found.flops == found.dense_flops - 2 * (56 - kept.sum())
    neurons = Mask.of(network, "neuron", {"fc1": np.arange(8) < 3})
    found = evaluate(network, [data(example)], neurons)
    assert found.flops == 2 * (6 * 3 + 3 * 7 + 7 * 3)
    assert found.nonzeros == found.flops // 2 + 3 + 7 + 3
    assert found.loss == pytest.approx(evaluate(neurons.apply(example.nnx), [data(example)]).loss, rel=1e-5)


def test_refusals():
    example = EXAMPLES["mlp"]()
    inputs, labels = data(example)
    for batches, says in [
        ([], "There are no batches"),
        ([inputs], "labels are needed"),
        ([(inputs, labels + 1)], "the network has 3 outputs, 0 to 2"),
        ([(inputs[:, :5], labels)], r"examples of shape \(5,\); the network takes \(6,\)"),
        ([(inputs, labels.astype(float))], "one integer an example"),
    ]:
        with pytest.raises(ValueError, match=says):
            evaluate(example.network(), batches)
    other = Mask.of(EXAMPLES["cnn"]().network(), "neuron", {"conv1": np.ones(4, bool)})
    with pytest.raises(ValueError, match="made for another model"):
        evaluate(example.network(), [(inputs, labels)], other)


def test_it_compiles_once():
    example = EXAMPLES["mlp"]()
    network = example.network()
    inputs, labels = data(example)
    calls = []

    def value(outputs, labels):
        calls.append(1)
        return cross_entropy.value(outputs, labels)

    loss = type(cross_entropy)("counted", value, cross_entropy.curvature_factor)
    mask = Mask.of(network, "neuron", {"fc1": np.arange(8) < 3})
    for _ in range(2):
        evaluate(network, [(inputs, labels)] * 3, loss=loss)
        evaluate(network, [(inputs, labels)], mask, loss=loss)
    assert len(calls) == 1


def test_it_keeps_no_model_alive():
    """What it compiles holds the model's arrays, so it must go when the model goes."""
    example = EXAMPLES["mlp"]()
    model = from_nnx(example.nnx)
    held = weakref.ref(model.call)
    evaluate(model, [data(example)])
    del model
    gc.collect()
    assert held() is None
