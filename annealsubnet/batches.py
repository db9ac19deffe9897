"""Batches: calibration data as anyone has them, checked once at the door.

`batches` is anything that can be iterated again and again over inputs or (inputs, labels).
"""

from collections.abc import Iterator
from typing import Any

import numpy as np

Batches = Any
"""An iterable over inputs or (inputs, labels); `Any`, since what is none is refused here in words."""
Pair = tuple[np.ndarray, np.ndarray | None]
_NO_NUMBERS = "OSUMm"  # kinds of dtype: objects, words, times; numbers may be of kinds that NumPy does not know, as bfloat16 is


def stream(batches: Batches) -> Iterator[Pair]:
    """Each batch as (inputs, labels or None), checked.

    Raises:
        ValueError: if there are none, if a batch has another shape or dtype than the first, inputs or labels that are no array
            of numbers, NaN or infinite, or as many labels as it has no inputs.
        TypeError: if `batches` cannot be iterated, or only once.
    """
    first: np.ndarray | None = None
    for number, batch in enumerate(_iterate(batches)):
        inputs, labels = _split(batch, number)
        if first is None:
            first = inputs
        _check(inputs, labels, first, number)
        yield inputs, labels
    if first is None:
        raise ValueError("There are no batches: the iterable is empty.")


def first_inputs(batches: Batches) -> np.ndarray:
    """The inputs of the first batch."""
    return next(stream(batches))[0]


def labeled(batches: Batches, *, classes: int | None) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Each batch as (inputs, labels).

    Args:
        batches: of (inputs, labels).
        classes: number of outputs if labels are integers below it, None to leave them unchecked.

    Raises:
        ValueError: if labels are missing or out of range; and as `stream`.
    """
    for number, (inputs, labels) in enumerate(stream(batches)):
        if labels is None:
            raise ValueError(f"Batch {number} has inputs only; labels are needed here: give batches of (inputs, labels).")
        if classes is not None:
            _check_labels(labels, classes, number)
        yield inputs, labels


def _iterate(batches: Batches) -> Iterator[Any]:
    if batches is None or isinstance(batches, (str, dict)) or not hasattr(batches, "__iter__"):
        raise TypeError(f"batches must be an iterable of inputs or of (inputs, labels), not {type(batches).__name__}.")
    if hasattr(batches, "shape") or _is_one_batch(batches):
        raise TypeError("batches is one batch, not an iterable of batches; give a list: [inputs] or [(inputs, labels)].")
    iterator = iter(batches)
    if iterator is batches:
        raise TypeError(f"batches are read more than once, and a {type(batches).__name__} can be read once only; give a list.")
    return iterator


def _is_one_batch(batches: Any) -> bool:
    """Whether this is (inputs, labels): two arrays, as long as each other, whose examples differ in shape."""
    if not isinstance(batches, tuple) or len(batches) != 2 or not all(hasattr(part, "shape") for part in batches):
        return False
    inputs, labels = (np.shape(part) for part in batches)
    return inputs[:1] == labels[:1] and inputs[1:] != labels[1:]


def _split(batch: Any, number: int) -> Pair:
    if isinstance(batch, (tuple, list)):
        if len(batch) != 2:
            raise ValueError(f"Batch {number} has {len(batch)} items; a batch is inputs or (inputs, labels).")
        inputs, labels = batch
        return _array(inputs, "inputs", number), None if labels is None else _array(labels, "labels", number)
    return _array(batch, "inputs", number), None


def _array(values: Any, what: str, number: int) -> np.ndarray:
    """Inputs or labels as an array over examples."""
    array = np.asarray(values)
    if array.ndim == 0 or array.dtype.kind in _NO_NUMBERS:
        raise ValueError(
            f"Batch {number} has {what} of type {type(values).__name__}, shape {array.shape} and dtype {array.dtype}; "
            f"give its {what} as one array of numbers, an example a row."
        )
    return array


def _check(inputs: np.ndarray, labels: np.ndarray | None, first: np.ndarray, number: int) -> None:
    if len(inputs) == 0:
        raise ValueError(f"Batch {number} holds no examples.")
    if inputs.shape[1:] != first.shape[1:] or inputs.dtype != first.dtype:
        raise ValueError(
            f"Batch {number} has inputs of shape {inputs.shape[1:]} and dtype {inputs.dtype} an example; "
            f"the first batch had {first.shape[1:]} and {first.dtype}."
        )
    if np.issubdtype(inputs.dtype, np.inexact) and not np.isfinite(inputs).all():
        raise ValueError(f"Batch {number} has {int((~np.isfinite(inputs)).sum())} inputs that are NaN or infinite.")
    if labels is not None and len(labels) != len(inputs):
        raise ValueError(f"Batch {number} has {len(inputs)} inputs and {len(labels)} labels.")
    if labels is not None and np.issubdtype(labels.dtype, np.inexact) and not np.isfinite(labels).all():
        raise ValueError(f"Batch {number} has {int((~np.isfinite(labels)).sum())} labels that are NaN or infinite.")


def _check_labels(labels: np.ndarray, classes: int, number: int) -> None:
    if not np.issubdtype(labels.dtype, np.integer) or labels.ndim != 1:
        raise ValueError(
            f"Batch {number} has labels of dtype {labels.dtype} and shape {labels.shape}; "
            "cross-entropy takes one integer an example."
        )
    if labels.min() < 0 or labels.max() >= classes:
        raise ValueError(
            f"Batch {number} has labels from {labels.min()} to {labels.max()}; "
            f"the network has {classes} outputs, 0 to {classes - 1}."
        )
