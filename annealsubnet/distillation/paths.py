"""Paths: the mask of a random layer that makes copies of its inputs, for the layer behind it to sum.

A hidden neuron that keeps one weight u of its fan-in hands on max(u a_i, 0): a copy of max(a_i, 0) if u > 0, of max(−a_i, 0)
if u < 0, and with the random weight v of the next layer a random coefficient u v of that part of the input. So a layer of
random neurons, each reading one input, turns the layer behind it into subset sums (Pensia and others: w a = w max(a, 0) −
w max(−a, 0), each part from a few random paths). Which input a neuron reads is ours to choose, for its fan-in is random and
dense: neurons are dealt in turn to the parts of inputs that are not always zero, the largest first, each part taking the first
neuron left whose weight has its sign.

References:
    A. Pensia and others, Optimal Lottery Tickets via SubsetSum, NeurIPS 2020, lemma 1 and figure 1.
"""

import numpy as np
from jaxtyping import Bool, Float, Int

from annealsubnet.distillation.sums import Copies

_SILENT = 1e-9


def lay_paths(
    weights: Float[np.ndarray, "fan_in neurons"], parts: Float[np.ndarray, "2 fan_in"]
) -> Bool[np.ndarray, "fan_in neurons"]:
    """The mask of the first of two layers: at most one weight of each neuron.

    Args:
        weights: of the layer, random.
        parts: E[max(a, 0)²] and E[max(−a, 0)²] of each input.

    Example:
        >>> lay_paths(np.array([[1.0, -1.0, 1.0], [1.0, 1.0, -1.0]]), np.array([[2.0, 1.0], [0.0, 0.0]])).astype(int).tolist()
        [[1, 0, 1], [0, 1, 0]]
    """
    mask = np.zeros(weights.shape, bool)
    live = np.flatnonzero(parts.ravel() > _SILENT * parts.max(initial=0.0))
    live = live[np.argsort(-parts.ravel()[live], kind="stable")]
    free = np.ones(weights.shape[1], bool)
    tried = 0
    while live.size and free.any() and tried < live.size:
        for part in live:
            negative, source = divmod(int(part), weights.shape[0])
            fits = free & ((weights[source] < 0) if negative else (weights[source] > 0))
            neuron = int(fits.argmax())
            if fits[neuron]:
                free[neuron], mask[source, neuron] = False, True
                tried = 0
            else:
                tried += 1
    return mask


def copies_of(weights: Float[np.ndarray, "fan_in neurons"], mask: Bool[np.ndarray, "fan_in neurons"]) -> Copies:
    """Which hidden neurons copy the same part of an input, if their nonlinearity is max(z, 0) and they have no bias."""
    source, busy = mask.argmax(axis=0), mask.any(axis=0)
    own = weights[source, np.arange(mask.shape[1])]
    part = np.where(busy, 2 * source + (own < 0), -1)
    _, leaders, number = np.unique(part[busy], return_index=True, return_inverse=True)
    leaders = np.flatnonzero(busy)[leaders]
    leader_of, ratio = np.full(len(part), -1), np.zeros(len(part))
    leader_of[busy] = number
    ratio[busy] = np.abs(own[busy]) / np.abs(own[leaders])[number]
    return Copies(leaders, leader_of, ratio)


def drop_unread(
    first: Bool[np.ndarray, "fan_in neurons"],
    last: Bool[np.ndarray, "inputs outputs"],
    reads: Int[np.ndarray, "inputs"] | None,
) -> Bool[np.ndarray, "fan_in neurons"]:
    """The first layer's mask without the neurons that no kept weight of the last layer reads.

    Args:
        first: mask of the first layer.
        last: mask of the last layer.
        reads: the neuron behind each input of the last layer, −1 for none; None if others read them too, and all stay.
    """
    if reads is None:
        return first
    read = np.zeros(first.shape[1], bool)
    read[reads[last.any(axis=1) & (reads >= 0)]] = True
    return first & read
