"""CHITA: pruning as a sparse regression on gradients, by hard thresholding."""

from collections.abc import Iterable
from typing import Any

import numpy as np
from jaxtyping import Bool, Float

from annealsubnet.baselines.gradient_model import GradientModel, gradient_model
from annealsubnet.baselines.selection import Result
from annealsubnet.budgets import Keep
from annealsubnet.losses import Loss, cross_entropy

_TRIALS, _STEP = 16, 2.0  # step sizes tried, and the ratio of one to the next
_STILL = 1e-5  # of Q: less than this in two iterations is no progress


def chita(
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
    max_iterations: int = 50,
    first_order: bool = False,
    scaled: bool = True,
) -> Result:
    """Minimize ½ ‖A (w − w⁰)‖² + (λ/2) ‖w − w⁰‖² over weights w of which k are not zero.

    From the magnitude mask: w ← the k largest entries of w − τ ∇Q, with the step τ of least Q among a geometric series; where
    the support no longer changes, the exact minimum on it (Woodbury), and on from there until that changes nothing either.

    Args:
        model, batches, keep, unit, scope, exclude, seed, loss: as in `annealsubnet.baselines`; labels are read.
        rows: gradients in the model, of as many groups of consecutive examples.
        ridge: λ.
        max_iterations: of thresholding.
        first_order: whether the mean gradient is part of Q.
        scaled: whether steps and the cut are taken where Q has a unit diagonal, which the paper's coordinates do not: there
            thresholding moves on where, without it, it stays at the magnitude mask.

    Returns:
        The mask, and the model with the weights found.

    Raises:
        ValueError: as `annealsubnet.baselines.gradient_model.gradient_model`.

    References:
        Benbaki, Chen, Meng, Hazimeh, Ponomareva, Zhao, Mazumder, "Fast as CHITA: Neural Network Pruning with Combinatorial
        Optimization", ICML 2023, equation 6 (the regression), algorithm 1 and section 3.2 (thresholding with line search, and
        the backsolve).
    """
    given = gradient_model(
        model,
        batches,
        "chita",
        keep=keep,
        unit=unit,
        scope=scope,
        exclude=exclude,
        loss=loss,
        rows=rows,
        ridge=ridge,
        first_order=first_order,
    )
    kept = given.keep_largest(np.abs(given.weights))
    change = np.where(kept, 0.0, -given.weights)
    value, solved, step = given.value(change), False, 0.0
    diagonal = np.einsum("kq,kq->q", given.rows, given.rows, dtype=np.float64) + ridge if scaled else np.ones_like(change)
    for _ in range(max_iterations):
        moved, support, least, step = _threshold(given, change, diagonal, step / _STEP**2)
        if least < value * (1 - _STILL):
            same = np.array_equal(support, kept)
            change, kept, value, solved = moved, support, least, False
            if not same:
                continue
        if solved:
            break
        change, solved = given.refit(kept), True
        value = given.value(change)
    return given.result(kept, given.weights + (change if solved else given.refit(kept)))


def _threshold(
    given: GradientModel, change: Float[np.ndarray, "weights"], diagonal: Float[np.ndarray, "weights"], step: float
) -> tuple[Float[np.ndarray, "weights"], Bool[np.ndarray, "weights"], float, float]:
    """The best of several steps against the gradient, each cut to the budget: the change, its support, its Q and the step.

    They begin at `step`, or, where it is 0, at an eighth of the one that would be best without the cut.
    """
    gradient = given.gradient(change)
    direction, root = gradient / diagonal, np.sqrt(diagonal)
    if step == 0.0:
        along = given.rows @ direction.astype(given.rows.dtype)
        curvature = float(along @ along) + given.ridge * float(direction @ direction)
        step = float(gradient @ direction) / max(curvature, 1e-300) / 8.0
    best, size, worse = (change, change + given.weights != 0, np.inf), step, 0
    for _ in range(_TRIALS):
        moved = given.weights + change - step * direction
        support = given.keep_largest(np.abs(moved) * root)
        trial = np.where(support, moved, 0.0) - given.weights
        found = given.value(trial)
        worse = 0 if found < best[2] else worse + 1
        if found < best[2]:
            best, size = (trial, support, found), step
        if worse == 4:
            break
        step *= _STEP
    return *best, size
