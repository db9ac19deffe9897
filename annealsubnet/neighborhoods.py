"""Neighborhoods: which units stay coupled, at most `degree` to each.

A problem over all the units of a layer is a clique. Most of its couplings are weak; keeping each unit's strongest makes a
sparse problem that annealers solve faster and quantum annealers can embed (`annealsubnet.problems.sparsify` does that).
"""

import numpy as np
from jaxtyping import Bool, Float

from annealsubnet.arguments import check_whole


def strongest(couplings: Float[np.ndarray, "units units"], *, degree: int) -> Bool[np.ndarray, "units units"]:
    """A neighborhood for each unit, made of strong couplings, with at most `degree` members.

    Couplings are taken in rounds: each unit that still has room names its strongest free couplings, and those that both ends
    name are kept, until no round adds one. The result is the greedy b-matching by strength.

    Args:
        couplings: symmetric.
        degree: most couplings a unit may have.

    Returns:
        Symmetric; True where a coupling is kept.

    Raises:
        TypeError: if `degree` is no whole number.
        ValueError: if it is negative, or couplings are not finite.

    Example:
        >>> chain = np.array([[0.0, 3, 1], [3, 0, 2], [1, 2, 0]])
        >>> strongest(chain, degree=1).astype(int).tolist()
        [[0, 1, 0], [1, 0, 0], [0, 0, 0]]
    """
    degree, strength = check_whole("degree", degree, 0), np.abs(np.array(couplings, np.float64))
    if not np.isfinite(strength).all():
        raise ValueError(f"couplings must be finite; {int((~np.isfinite(strength)).sum())} are NaN or infinite.")
    np.fill_diagonal(strength, 0)
    units = len(strength)
    if degree >= units - 1:
        return strength > 0
    # Distinct ranks make the order of equal strengths the same for both ends.
    order = np.empty(units * units, np.int64)
    order[np.argsort(strength, axis=None, kind="stable")] = np.arange(units * units)
    rank = np.maximum(order.reshape(units, units), order.reshape(units, units).T)
    free = strength > 0
    kept = np.zeros_like(free)
    while True:
        room = degree - kept.sum(1)
        free &= (room > 0)[:, None] & (room > 0)[None, :]
        named = _largest(np.where(free, rank, -1), room)
        new = named & named.T
        if not new.any():
            return kept
        kept |= new
        free &= ~new


def _largest(values: np.ndarray, counts: np.ndarray) -> np.ndarray:
    """In each row, True at its `counts[row]` largest non-negative values."""
    most = int(counts.max(initial=0))
    if most <= 0:
        return np.zeros_like(values, bool)
    columns = np.argpartition(-values, min(most, values.shape[1] - 1), axis=1)[:, :most]
    found = np.take_along_axis(values, columns, 1)
    inside = np.argsort(np.argsort(-found, axis=1), axis=1) < counts[:, None]
    chosen = np.zeros_like(values, bool)
    np.put_along_axis(chosen, columns, inside & (found >= 0), 1)
    return chosen
