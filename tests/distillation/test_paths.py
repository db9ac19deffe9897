"""Paths: copies of the parts of inputs, each from a random weight of the right sign."""

import numpy as np

from annealsubnet.distillation.paths import copies_of, drop_unread, lay_paths
from annealsubnet.distillation.sums import copies_in


def test_every_neuron_copies_a_part_of_one_input():
    rng = np.random.default_rng(0)
    inputs = np.stack([rng.random(50), rng.normal(size=50), np.zeros(50), -rng.random(50)], axis=1)
    parts = np.stack([np.maximum(inputs, 0) ** 2, np.maximum(-inputs, 0) ** 2]).mean(axis=1)
    weights = rng.normal(size=(4, 24))
    mask = lay_paths(weights, parts)
    assert (mask.sum(axis=0) == 1).all()
    assert not mask[2].any()
    assert (weights[0][mask[0]] > 0).all() and (weights[3][mask[3]] < 0).all()
    negative = (weights < 0) & mask
    copied = np.maximum(inputs @ (weights * mask), 0)
    for neuron in range(24):
        source = int(mask[:, neuron].argmax())
        part = np.maximum(-inputs[:, source] if negative[source, neuron] else inputs[:, source], 0)
        np.testing.assert_allclose(copied[:, neuron], abs(weights[source, neuron]) * part)
    # four parts are not silent, and each has its share of the neurons
    shares = [(mask & ~negative)[0].sum(), (mask & ~negative)[1].sum(), negative[1].sum(), negative[3].sum()]
    assert min(shares) >= 5


def test_more_parts_than_neurons_serves_the_largest():
    parts = np.array([[1.0, 5.0, 3.0], [0.0, 0.0, 0.0]])
    mask = lay_paths(np.ones((3, 2)), parts)
    assert mask.any(axis=1).tolist() == [False, True, True]


def test_no_weight_of_the_right_sign_leaves_a_neuron_out():
    assert not lay_paths(-np.ones((2, 3)), np.array([[1.0, 1.0], [0.0, 0.0]])).any()
    assert not lay_paths(np.ones((2, 3)), np.zeros((2, 2))).any()


def test_neurons_that_nobody_reads_are_dropped():
    first, last = np.ones((2, 2), bool), np.array([[True, False], [False, False], [False, False], [True, True]])
    assert drop_unread(first, last[:2], np.arange(2)).tolist() == [[True, False], [True, False]]
    assert drop_unread(first, last, np.array([0, 1, 0, 1])).all()  # a window of two positions
    assert drop_unread(first, last, np.array([1, 0, 0, -1])).tolist() == [[False, True], [False, True]]
    assert drop_unread(first, last[:2], None).all()


def test_copies_are_proportional_to_their_leaders():
    rng = np.random.default_rng(1)
    inputs = rng.normal(size=(50, 3))
    weights = rng.normal(size=(3, 20))
    mask = lay_paths(weights, np.stack([np.maximum(inputs, 0) ** 2, np.maximum(-inputs, 0) ** 2]).mean(axis=1))
    mask[:, 4] = False
    copies = copies_of(weights, mask)
    copied = np.maximum(inputs @ (weights * mask), 0)
    assert copies.leader_of[4] == -1 and len(copies.leaders) == 6
    busy = copies.leader_of >= 0
    wanted = copied[:, copies.leaders[copies.leader_of[busy]]] * copies.ratio[busy]
    np.testing.assert_allclose(copied[:, busy], wanted)
    found = copies_in(copied.T @ copied)
    assert (found.leaders[found.leader_of[busy]] == copies.leaders[copies.leader_of[busy]]).all()
    np.testing.assert_allclose(found.ratio, copies.ratio)
