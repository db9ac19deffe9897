"""Chunks hold the same examples in the same order."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from annealsubnet.statistics import streams
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


@pytest.mark.parametrize("count", [1, 2, 5])
def test_sums_that_stay_on_the_device_are_those_of_the_host(monkeypatch, count):
    generator = np.random.default_rng(0)
    pieces = [(generator.normal(size=(3, 4)).astype(np.float32),) for _ in range(count)]
    step = jax.jit(lambda values: {"cubes": jnp.power(values, 3).sum(0), "count": jnp.ones((), jnp.int32)})
    on_host = accumulate(step, pieces)
    assert jax.default_backend() != "cpu" or not streams._stays_on_device(step(*pieces[0])), "a host adds faster"
    monkeypatch.setattr(streams, "_stays_on_device", lambda sums: True)
    on_device = accumulate(step, pieces)
    jax.tree.map(np.testing.assert_array_equal, on_device, on_host)
    assert {value.dtype for value in on_device[0].values()} == {np.dtype(np.float64)}
    on_device[0]["cubes"] += 1  # the caller's own
