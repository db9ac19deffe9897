"""Chunks hold the same examples in the same order."""

import numpy as np
import pytest

from annealsubnet.statistics.streams import accumulate, chunks


@pytest.mark.parametrize("batch", [1, 3, 5, 12, 100])
@pytest.mark.parametrize("size", [1, 4, 100])
def test_chunks_keep_examples_and_labels_in_order(batch, size):
    inputs, labels = np.arange(37.0), np.arange(37)
    pairs = [(inputs[start : start + batch], labels[start : start + batch]) for start in range(0, 37, batch)]
    found = list(chunks(pairs, size))
    np.testing.assert_array_equal(np.concatenate([part for part, _ in found]), inputs)
    np.testing.assert_array_equal(np.concatenate([part for _, part in found]), labels)
    assert all(len(part) == size for part, _ in found[:-1])
    assert all(given is None for _, given in chunks([(inputs, None)], size))


def test_sums_over_chunks_are_float64():
    large = [np.full(4, 2.0**24, np.float32), np.ones(4, np.float32)]
    total, count = accumulate(lambda values: values.sum(), [(values,) for values in large])
    assert (total, count) == (2.0**26 + 4, 8)
