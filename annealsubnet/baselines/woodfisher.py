"""WoodFisher: Optimal Brain Surgeon with a block-diagonal empirical Fisher information."""

from collections.abc import Iterable
from typing import Any

import numpy as np
import scipy.linalg
from jaxtyping import Float

from annealsubnet.arguments import check_whole
from annealsubnet.baselines.gradient_model import GradientModel, gradient_model, ridge_regression, root, woodbury
from annealsubnet.baselines.selection import Result
from annealsubnet.budgets import Keep
from annealsubnet.losses import Loss, cross_entropy


def woodfisher(
    model: Any,
    batches: Iterable[Any] | None,
    *,
    keep: Keep,
    unit: str = "weight",
    scope: str = "network",
    exclude: Iterable[str] = (),
    seed: int = 0,
    loss: Loss = cross_entropy,
    rows: int = 1000,
    ridge: float = 1e-4,
    block: int = 2000,
    update: str = "joint",
) -> Result:
    """Remove the weights with the smallest w_q² / (2 [F⁻¹]_qq), and let the others make up for them.

    F = λ + A'A (`annealsubnet.baselines.gradient_model`), without couplings between blocks of `block` consecutive weights of a
    layer. What stays changes by the sum of each removed weight's own −w_q F⁻¹ e_q / [F⁻¹]_qq, as in the paper, or by what is
    best for all of them together (the same problem for a set).

    Args:
        model, batches, keep, unit, scope, exclude, seed, loss: as in `annealsubnet.baselines`; labels are read.
        rows: gradients, of as many groups of consecutive examples.
        ridge: λ.
        block: weights in a block.
        update: "joint", "sum" or "none".

    Returns:
        The mask, and the model with the changed weights.

    Raises:
        ValueError: for another update, a block below 1, and as `annealsubnet.baselines.gradient_model.gradient_model`.

    References:
        Singh, Alistarh, "WoodFisher: Efficient Second-Order Approximation for Neural Network Compression", NeurIPS 2020,
        equations 5 to 8 (Woodbury), 9 and 10 (removal of one weight).
    """
    if update not in ("joint", "sum", "none"):
        raise ValueError(f"update is {update!r}; give 'joint', 'sum' or 'none'.")
    check_whole("block", block, 1)
    given = gradient_model(
        model, batches, "woodfisher", keep=keep, unit=unit, scope=scope, exclude=exclude, loss=loss, rows=rows, ridge=ridge
    )
    blocks = _blocks(given, block)
    diagonal = np.concatenate([_inverse_diagonal(given.rows[:, place], ridge) for place in blocks])
    kept = given.keep_largest(given.weights**2 / (2 * diagonal))
    weights = given.weights.copy()
    for place in blocks if update != "none" else ():
        weights[place] += _change(given, place, kept[place], update)
    return given.result(kept, weights)


def _blocks(given: GradientModel, size: int) -> list[slice]:
    """Consecutive weights of a layer, `size` at a time."""
    return [
        slice(first, min(first + size, place.stop))
        for place in given.places.values()
        for first in range(place.start, place.stop, size)
    ]


def _inverse_diagonal(rows: Float[np.ndarray, "rows block"], ridge: float) -> Float[np.ndarray, "block"]:
    """diag F⁻¹ of one block, of rows B: of (B'B + λ)⁻¹, or (1 − b_q' (B B' + λ)⁻¹ b_q) / λ where there are fewer rows."""
    part = rows.astype(np.float64)
    count, size = part.shape
    smaller, right = (part.T, np.eye(size)) if size <= count else (part, part)
    solved = scipy.linalg.solve_triangular(root(smaller, ridge), right, lower=True, check_finite=False)
    if size <= count:
        return np.einsum("kq,kq->q", solved, solved)
    return np.maximum(1.0 - np.einsum("kq,kq->q", solved, solved), 1e-12) / ridge


def _change(given: GradientModel, place: slice, kept: np.ndarray, update: str) -> np.ndarray:
    """What removing weights of one block changes in it."""
    rows, weights = given.rows[:, place], given.weights[place]
    change = np.where(kept, 0.0, -weights)
    if kept.all():
        return change
    if update == "joint":
        change[kept] = ridge_regression(rows[:, kept], given.ridge, -(rows[:, ~kept] @ change[~kept]))
        return change
    return woodbury(rows, given.ridge, change / _inverse_diagonal(rows, given.ridge))
