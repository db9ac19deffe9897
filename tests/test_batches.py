"""Batches: what is let in at the door, and what is sent away."""

import jax.numpy as jnp
import numpy as np
import pytest

from annealsubnet.batches import first_inputs, labeled, stream

X = np.ones((3, 2), np.float32)
Y = np.array([0, 1, 1])


def test_inputs_alone_or_with_labels():
    assert [(inputs.shape, labels) for inputs, labels in stream([X, X[:1]])] == [((3, 2), None), ((1, 2), None)]
    assert [labels for _, labels in stream([(X, None)])] == [None]
    ((inputs, labels),) = stream([(jnp.asarray(X), jnp.asarray(Y))])
    assert isinstance(inputs, np.ndarray) and labels.tolist() == [0, 1, 1]
    np.testing.assert_array_equal(first_inputs([(X, Y)]), X)


@pytest.mark.parametrize(
    ("batches", "says"),
    [
        ([], "There are no batches"),
        ([X[:0]], "Batch 0 holds no examples"),
        ([(X, Y, Y)], "Batch 0 has 3 items"),
        ([{"x": X}], r"Batch 0 has inputs of type dict, .* dtype object; give its inputs as one array of numbers"),
        ([X, None], "Batch 1 has inputs of type NoneType"),
        ([X.astype(object)], "Batch 0 has inputs of type ndarray, .* dtype object"),
        ([(X, 3)], r"Batch 0 has labels of type int, shape \(\) .*; give its labels as one array of numbers"),
        ([(X, ["a", "b", "c"])], "Batch 0 has labels of type list, .* dtype <U1"),
        ([X, X[:, :1]], r"Batch 1 has inputs of shape \(1,\) and dtype float32 an example; the first batch had \(2,\)"),
        ([X, X.astype(np.float64)], "dtype float64 an example"),
        ([X, X * np.nan], "Batch 1 has 6 inputs that are NaN or infinite"),
        ([X, np.where(X > 0, np.inf, X)], "Batch 1 has 6 inputs that are NaN or infinite"),
        ([(X, Y[:2])], "Batch 0 has 3 inputs and 2 labels"),
        ([(X, Y + np.array([0, np.nan, 0]))], "Batch 0 has 1 labels that are NaN or infinite"),
    ],
)
def test_batches_that_cannot_be(batches, says):
    with pytest.raises(ValueError, match=says):
        list(stream(batches))


@pytest.mark.parametrize("batches", [None, "data", {"x": X}, 3])
def test_what_is_no_batches(batches):
    with pytest.raises(TypeError, match="batches must be an iterable"):
        list(stream(batches))


@pytest.mark.parametrize("batches", [X, jnp.asarray(X), (X, Y), (X, np.ones((3, 5))), (jnp.asarray(X), jnp.asarray(Y))])
def test_one_batch_is_no_list_of_batches(batches):
    with pytest.raises(TypeError, match=r"give a list: \[inputs\] or \[\(inputs, labels\)\]"):
        list(stream(batches))


@pytest.mark.parametrize("batches", [iter([X, X]), (inputs for inputs in [X, X])])
def test_what_can_be_read_once_only_loses_a_batch_to_the_first_look(batches):
    with pytest.raises(TypeError, match="can be read once only; give a list"):
        list(stream(batches))


@pytest.mark.parametrize(
    ("batch", "says"),
    [
        (X, "Batch 0 has inputs only; labels are needed"),
        ((X, np.array([0, 1, 2])), "labels from 0 to 2; the network has 2 outputs, 0 to 1"),
        ((X, np.array([-1, 1, 0])), "labels from -1 to 1"),
        ((X, Y.astype(np.float32)), "labels of dtype float32"),
        ((X, np.eye(3, dtype=int)), r"shape \(3, 3\); cross-entropy takes one integer an example"),
    ],
)
def test_labels_that_cannot_be(batch, says):
    with pytest.raises(ValueError, match=says):
        list(labeled([batch], classes=2))


def test_labels_of_other_losses_are_left_unchecked():
    ((_, labels),) = labeled([(X, np.eye(3))], classes=None)
    assert labels.shape == (3, 3)
