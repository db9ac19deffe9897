"""Arguments: numbers that callers give, checked at the door."""

import math
from numbers import Real
from typing import Any

import numpy as np


def check_whole(name: str, value: Any, least: int | None = None) -> int:
    """An option as Python's own integer, which does not overflow, if it is a whole number (of at least so much).

    Raises:
        TypeError: for anything but a whole number.
        ValueError: for less.
    """
    if isinstance(value, bool) or not isinstance(value, int | np.integer):
        raise TypeError(f"{name} must be a whole number; it is {value!r}.")
    if least is not None and value < least:
        raise ValueError(f"{name} must be at least {least}; it is {value}.")
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
