"""Arguments: numbers and states that callers give, checked at the door."""

import math
from numbers import Real
from typing import Any

import numpy as np

MOST_SEED = 2**63 - 1
"""What JAX takes for a seed."""


def check_whole(name: str, value: Any, least: int | None = None, most: int | None = None) -> int:
    """An option as Python's own integer, which does not overflow, if it is a whole number (of at least, and at most, so much).

    Raises:
        TypeError: for anything but a whole number.
        ValueError: for less or more.
    """
    if isinstance(value, bool) or not isinstance(value, int | np.integer):
        raise TypeError(f"{name} must be a whole number; it is {value!r}.")
    if least is not None and value < least:
        raise ValueError(f"{name} must be at least {least}; it is {value}.")
    if most is not None and value > most:
        raise ValueError(f"{name} must be at most {most}; it is {value}.")
    return int(value)


def check_weight(name: str, value: Any, *, above_zero: bool = False) -> None:
    """Raise unless a ridge, or what else a term weighs, is finite and not negative, or not zero either.

    Raises:
        TypeError: for anything but a number.
        ValueError: for a number that is no such weight.
    """
    if isinstance(value, bool) or not isinstance(value, Real):
        raise TypeError(f"{name} must be a number; it is {value!r}.")
    if not math.isfinite(value) or value < 0 or (above_zero and value == 0):
        least = "above 0" if above_zero else "of at least 0"
        raise ValueError(f"{name} is {value}; give a finite number {least}.")


def check_states(name: str, states: Any, size: int) -> np.ndarray:
    """States of `size` variables, along the last axis, as booleans.

    Raises:
        ValueError: for another number of variables, or anything but 0 and 1: spins of −1 and 1 would be taken for all ones.
    """
    values = np.asarray(states)
    if values.ndim == 0 or values.shape[-1] != size:
        raise ValueError(f"{name} must end in an axis of {size} variables, 0 or 1 each; the shape is {values.shape}.")
    if values.dtype == np.bool_:
        return values
    chosen = values.astype(np.bool_)
    if (chosen != values).any():
        raise ValueError(f"{name} must be 0 or 1 for each variable; there is {values[chosen != values][0]}.")
    return chosen
