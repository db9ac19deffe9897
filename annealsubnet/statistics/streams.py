"""Streaming: batches of any size, cut into chunks of one size, so that every statistic compiles once and memory is bounded."""

from collections.abc import Callable, Iterable, Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

CHUNK_BYTES = 64 * 2**20
"""What one chunk's largest intermediate may take."""
_HELD_ON_DEVICE = 2**27
"""Most numbers in sums that stay on an accelerator, as many as 1 GiB holds: an H100 adds 256 MB of them in half a millisecond,
and takes .2 s to give them to the host, which takes .1 to add them."""


def chunks(pairs: Iterable[tuple[np.ndarray, np.ndarray | None]], size: int) -> Iterator[tuple[np.ndarray, np.ndarray | None]]:
    """The same examples in the same order, `size` at a time (the last chunk may be smaller).

    Args:
        pairs: (inputs, labels or None), as `annealsubnet.batches.stream` yields them.
        size: examples a chunk.
    """
    waiting: list[tuple[np.ndarray, np.ndarray | None]] = []
    held = 0
    for inputs, labels in pairs:
        waiting.append((inputs, labels))
        held += len(inputs)
        if held >= size:
            whole, whole_labels = _join(waiting)
            whole_chunks = held - held % size
            for start in range(0, whole_chunks, size):
                part = slice(start, start + size)
                yield whole[part], None if whole_labels is None else whole_labels[part]
            held -= whole_chunks
            rest = None if whole_labels is None else whole_labels[whole_chunks:]
            waiting = [(whole[whole_chunks:], rest)] if held else []
    if held:
        yield _join(waiting)


def _join(pairs: list[tuple[np.ndarray, np.ndarray | None]]) -> tuple[np.ndarray, np.ndarray | None]:
    if len(pairs) == 1:
        return pairs[0]
    labels = [labels for _, labels in pairs if labels is not None]
    return np.concatenate([inputs for inputs, _ in pairs]), np.concatenate(labels) if len(labels) == len(pairs) else None


def chunk_size(bytes_an_example: int, *, most: int = 4096) -> int:
    """How many examples fit `CHUNK_BYTES`."""
    return int(np.clip(CHUNK_BYTES // max(bytes_an_example, 1), 1, most))


def accumulate(step: Callable[..., Any], chunked: Iterable[tuple[Any, ...]]) -> tuple[Any, int]:
    """Sum a tree of arrays over chunks: float32 within a chunk, float64 across chunks.

    Args:
        step: jitted, from the arrays of one chunk to a tree of sums over its examples.
        chunked: tuples of arrays, each with the examples along its first axis.

    Returns:
        The sums as float64 NumPy arrays, and how many examples went in.
    """
    total: Any = None
    pending: Any = None
    count = 0
    for arrays in chunked:
        # The device works on this chunk while the host adds the one before.
        running = step(*arrays)
        count += len(arrays[0])
        total = _add(total, pending)
        pending = running
    return jax.tree.map(_to_host, _add(total, pending)), count


def _add(total: Any, new: Any) -> Any:
    if new is None:
        return total
    if total is None:
        return new if _stays_on_device(new) else jax.tree.map(_to_host, new)
    if any(isinstance(value, jax.Array) for value in jax.tree.leaves(total)):
        with jax.enable_x64(True):
            return _add_on_device(total, new)
    return jax.tree.map(lambda sums, value: np.add(sums, np.asarray(value), out=sums), total, new)


def _stays_on_device(sums: Any) -> bool:
    """Whether sums are added up where they are: on an accelerator, if they fit."""
    leaves = jax.tree.leaves(sums)
    if not all(isinstance(value, jax.Array) for value in leaves):
        return False
    return all(device.platform != "cpu" for value in leaves for device in value.devices()) and (
        sum(value.size for value in leaves) <= _HELD_ON_DEVICE
    )


@jax.jit
def _add_on_device(total: Any, new: Any) -> Any:
    return jax.tree.map(lambda sums, value: sums.astype(np.float64) + value.astype(np.float64), total, new)


def _to_host(value: Any) -> np.ndarray:
    return value if isinstance(value, np.ndarray) and value.dtype == np.float64 else np.array(value, np.float64)


def as_wide(array: jax.Array) -> jax.Array:
    """The same numbers in float32, if they have fewer digits: sums of half floats round and overflow."""
    return array.astype(jnp.promote_types(array.dtype, jnp.float32))


def check_statistics(name: str, *arrays: np.ndarray) -> None:
    """Raise if a layer's statistics are not finite.

    Raises:
        ValueError: with the layer's name.
    """
    if not all(np.isfinite(array).all() for array in arrays):
        raise ValueError(f"The statistics of layer {name!r} are NaN or infinite: its activations overflow on these batches.")
