"""The Combinatorial Brain Surgeon: which weights go *together*, by exchanges on the quadratic model of the loss."""

from collections.abc import Iterable
from typing import Any

import numpy as np
from jaxtyping import Bool, Float

from annealsubnet.baselines.gradient_model import GradientModel, gradient_model
from annealsubnet.baselines.selection import Result
from annealsubnet.budgets import Keep
from annealsubnet.losses import Loss, cross_entropy

_WIDTH = 512
"""Weights of either kind that are looked at together: the cheapest to remove, and the most useful to bring back."""


def surgeon(
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
    max_passes: int = 200,
    update: bool = True,
) -> Result:
    """From the magnitude mask, exchange kept for removed weights until none lowers ½ ‖A ((1 − x) ∘ w)‖² + (λ/2) ‖(1 − x) ∘ w‖².

    Then, with `update`, the kept weights move to where the model, removed weights at zero, is least.

    Args:
        model, batches, keep, unit, scope, exclude, seed, loss: as in `annealsubnet.baselines`; labels are read.
        rows: gradients in the model, of as many groups of consecutive examples.
        ridge: λ.
        max_passes: over all weights.
        update: whether the kept weights change.

    Returns:
        The mask, and the model with the changed weights.

    Raises:
        ValueError: as `annealsubnet.baselines.gradient_model.gradient_model`.

    References:
        Yu, Serra, Ramalingam, Zhe, "The Combinatorial Brain Surgeon: Pruning Weights That Cancel One Another in Neural
        Networks", ICML 2022, equation 7 (selection), section 4.1 (local search by swaps), equation 11 (update).
    """
    given = gradient_model(
        model, batches, "surgeon", keep=keep, unit=unit, scope=scope, exclude=exclude, loss=loss, rows=rows, ridge=ridge
    )
    kept = given.keep_largest(np.abs(given.weights))
    places = [slice(0, len(kept))] if given.budget.scope == "network" else list(given.places.values())
    if given.budget.scope == "neuron":
        raise ValueError("surgeon exchanges weights of all neurons; give scope='network' or 'layer'.")
    for place in places if max_passes else ():
        kept = _exchange(given, kept, place, max_passes)
    change = given.refit(kept) if update else np.where(kept, 0.0, -given.weights)
    return given.result(kept, given.weights + change)


def zero_swaps(
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
) -> Result:
    """`surgeon` without a single exchange: the magnitude mask, with the same update of what stays. The control for its choice.

    Args:
        model, batches, keep, unit, scope, exclude, seed, loss, rows, ridge: as in `surgeon`.

    Returns:
        The mask, and the model with the changed weights.

    Raises:
        ValueError: as `surgeon`.

    References:
        As `surgeon`.
    """
    return surgeon(
        model, batches, keep=keep, unit=unit, scope=scope, exclude=exclude, loss=loss, rows=rows, ridge=ridge, max_passes=0
    )


def _exchange(
    given: GradientModel, kept: Bool[np.ndarray, "weights"], place: slice, max_passes: int
) -> Bool[np.ndarray, "weights"]:
    """Descent by exchanges among the weights of one place, the others held.

    With y = A ((1 − x) ∘ w) and a_j = w_j A_:j, removing u adds 2 y·a_u + ‖a_u‖² + λ w_u², bringing v back adds
    −2 y·a_v + ‖a_v‖² − λ w_v², and both together −2 a_u·a_v. A pass computes the first two for all weights, the third for the
    best few of either kind, and makes exchanges among these for as long as one helps.
    """
    kept, weights = kept.copy(), given.weights
    inside = np.zeros(len(kept), bool)
    inside[place] = True
    squares = np.einsum("kq,kq->q", given.rows, given.rows, dtype=np.float64) * weights**2
    moved = given.rows @ np.where(kept, 0.0, weights).astype(given.rows.dtype)
    for _ in range(max_passes):
        slope = 2 * (moved @ given.rows) * weights
        goes = np.where(kept & inside, slope + squares + given.ridge * weights**2, np.inf)
        comes = np.where(~kept & inside, -slope + squares - given.ridge * weights**2, np.inf)
        width = min(_WIDTH, int(np.isfinite(goes).sum()), int(np.isfinite(comes).sum()))
        if width == 0:
            return kept
        leaving, coming = (np.argpartition(costs, width - 1)[:width] for costs in (goes, comes))
        pairs = exchanges(
            given.rows[:, leaving] * weights[leaving].astype(given.rows.dtype),
            given.rows[:, coming] * weights[coming].astype(given.rows.dtype),
            goes[leaving],
            comes[coming],
            tolerance=1e-7 * float(moved @ moved),
        )
        if not pairs:
            return kept
        for out, back in pairs:
            kept[leaving[out]], kept[coming[back]] = False, True
        moved = given.rows @ np.where(kept, 0.0, weights).astype(given.rows.dtype)
    return kept


def exchanges(
    leaving: Float[np.ndarray, "rows leaving"],
    coming: Float[np.ndarray, "rows coming"],
    goes: Float[np.ndarray, "leaving"],
    comes: Float[np.ndarray, "coming"],
    *,
    tolerance: float,
) -> list[tuple[int, int]]:
    """The best exchange among a few candidates, again and again, each candidate at most once.

    Args:
        leaving: a_u of kept weights.
        coming: a_v of removed ones.
        goes: what removing each of the first costs alone.
        comes: what bringing each of the second back costs alone.
        tolerance: improvements below this are rounding.
    """
    twice = 2.0 * (leaving.T @ coming)
    within, across = 2.0 * (leaving.T @ leaving), 2.0 * (coming.T @ coming)
    goes, comes = goes.astype(np.float64), comes.astype(np.float64)
    pairs: list[tuple[int, int]] = []
    while True:
        costs = goes[:, None] + comes - twice
        u, v = np.unravel_index(int(np.argmin(costs)), costs.shape)
        if not costs[u, v] < -tolerance:
            return pairs
        pairs.append((int(u), int(v)))
        goes += within[:, u] - twice[:, v]
        comes += across[:, v] - twice[u]
        goes[u], comes[v] = np.inf, np.inf
