"""Training makes a new network, the same for the same seed, and better than the one it was given."""

import numpy as np
import pytest
from flax import nnx

from annealsubnet.examples import load, named_network, train


def leaves(model: nnx.Module) -> list[np.ndarray]:
    return [np.asarray(leaf[...]) for _, leaf in nnx.to_flat_state(nnx.state(model))]


def equal(first: nnx.Module, second: nnx.Module) -> bool:
    return all(np.array_equal(a, b) for a, b in zip(leaves(first), leaves(second), strict=True))


@pytest.mark.parametrize("name", ["digits-mlp", "digits-cnn"])
def test_training_learns_and_leaves_its_argument_alone(name):
    network, data = named_network(name), load("digits", seed=0)
    model, untouched = network.build(seed=0), network.build(seed=0)
    batches = data.batches("train", 300, normalize=network.normalize)
    trained = train(model, batches, seed=0, epochs=12, learning_rate=3e-3, batch_size=64)
    assert equal(model, untouched) and not equal(model, trained)
    inputs, labels = next(iter(data.batches("test", 359, normalize=network.normalize)))
    assert np.mean(np.asarray(trained(inputs)).argmax(-1) == labels) > 0.94
    assert np.allclose(trained(inputs)[:3], trained(inputs[:3]), atol=1e-4)  # evaluation mode: no batch statistics


def test_same_seed_same_network_whatever_the_batches_it_reads():
    network, data = named_network("digits-mlp"), load("digits", seed=0)
    model = network.build(seed=0)

    def trained(size: int, seed: int) -> nnx.Module:
        return train(model, data.batches("train", size, normalize=network.normalize), seed=seed, epochs=1)

    assert equal(trained(100, 0), trained(77, 0))
    assert not equal(trained(100, 0), trained(100, 1))


def test_bad_training_is_refused():
    model = named_network("digits-mlp").build(seed=0)
    with pytest.raises(ValueError, match="no batches"):
        train(model, [], seed=0, epochs=1)
    inputs, labels = np.ones((8, 8, 8, 1), np.float32), np.zeros(8, np.int32)
    with pytest.raises(ValueError, match="in epoch 1; lower learning_rate"):
        train(model, [(inputs * np.inf, labels)], seed=0, epochs=1)


@pytest.mark.parametrize("name", ["digits-mlp", "digits-cnn", "resnet20"])
def test_labels_without_an_output_are_refused(name):
    network = named_network(name)
    shape = load("digits", seed=0).input_shape if network.data == "digits" else (32, 32, 3)
    inputs, labels = np.ones((12, *shape), np.float32), np.arange(12, dtype=np.int32)
    with pytest.raises(ValueError, match="labels run to 11, but the model has 10 outputs; give labels from 0 to 9, or a model"):
        train(network.build(seed=0), [(inputs[:6], labels[:6]), (inputs[6:], labels[6:])], seed=0, epochs=1)
