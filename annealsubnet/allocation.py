"""Allocation: how a common budget is divided among parts whose error curves are known.

Part p keeps k_p units at error e_p(k_p); minimize Σ_p e_p(k_p) subject to Σ_p k_p = K. With a price λ on every unit the
parts decouple, and min_k e_p(k) + λ k lies on the lower convex hull of the curve; so the hulls' segments are taken steepest
first, and the price is where the budget runs out. The dual bound Σ_p min_k (e_p(k) + λ k) − λ K says how far from optimal
that can be. Where the units of different parts cost differently (operations, bytes), K is what all of them may cost, and the
price is that of a unit of cost.
"""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Int

from annealsubnet.solvers.prices import lower_hull

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Allocation:
    """A division of a budget.

    Attributes:
        counts: units of each part.
        error: Σ of the parts' errors at these counts.
        bound: no division has a smaller error.
        price: λ, the error that one more unit (of cost) would save.
    """

    counts: Int[np.ndarray, "parts"]
    error: float
    bound: float
    price: float


def allocate(
    curves: Sequence[np.ndarray], total: int, *, least: int = 0, costs: Int[np.ndarray, "parts"] | None = None
) -> Allocation:
    """Divide `total` units among parts.

    Args:
        curves: for each part `[counts]`, its error at 0, 1, 2, … units; a part never gets more units than its curve has.
        total: units in all, or what they may cost.
        least: units that every part gets in any case.
        costs: of one unit of each part; 1 by default. What is left over then is less than a unit.

    Raises:
        ValueError: if the parts cannot take as much as `total`, or cost more.

    Example:
        >>> allocate([np.array([9.0, 4.0, 3.0]), np.array([5.0, 1.0, 0.0])], 3).counts.tolist()
        [2, 1]
    """
    cost = np.ones(len(curves), int) if costs is None else np.asarray(costs)
    most, fewest = (int(cost @ counts) for counts in ([len(curve) - 1 for curve in curves], np.full(len(curves), least)))
    if not fewest <= total <= most or any(len(curve) <= least for curve in curves):
        raise ValueError(f"{len(curves)} parts can take {fewest} to {most} units, not {total}.")
    segments = [_hull(np.asarray(curve, np.float64), least) for curve in curves]
    part = np.repeat(np.arange(len(curves)), [len(ends) for ends, _ in segments])
    ends = _joined([ends for ends, _ in segments]).astype(int)
    lengths = _joined([np.diff(ends, prepend=least) for ends, _ in segments]).astype(int)
    slopes = _joined([slopes for _, slopes in segments]) / cost[part]
    # Steepest first; a part's own segments are already in that order.
    order = np.lexsort((ends, part, slopes))
    taken = np.cumsum((lengths * cost[part])[order])
    left = total - fewest
    whole = order[: int(np.searchsorted(taken, left, side="right"))]
    counts = np.full(len(curves), least)
    np.maximum.at(counts, part[whole], ends[whole])
    price = 0.0
    if len(whole) < len(order):
        cut = order[len(whole)]
        price = float(-slopes[cut])
        counts[part[cut]] += (left - (int(taken[len(whole) - 1]) if len(whole) else 0)) // int(cost[part[cut]])
    error = float(sum(curve[count] for curve, count in zip(curves, counts, strict=True)))
    units = [np.arange(least, len(curve)) for curve in curves]
    tilted = [np.asarray(curve)[least:] + price * each * k for curve, each, k in zip(curves, cost, units, strict=True)]
    bound = float(sum(values.min() for values in tilted) - price * total)
    return Allocation(counts, error, min(bound, error), price)


def allocate_over_layers(curves: Mapping[str, Sequence[np.ndarray]], total: int) -> dict[str, Int[np.ndarray, "neurons"]]:
    """Divide `total` units among all neurons of all layers; how near that is to the best division is logged.

    Args:
        curves: by layer, each neuron's error at 0, 1, 2, … units.
        total: units in all.

    Raises:
        ValueError: as `allocate`.
    """
    found = allocate([curve for of_layer in curves.values() for curve in of_layer], total)
    gap = 100 * (found.error - found.bound) / max(found.bound, 1e-30)
    logger.info("allocation: error %.4g, at most %.2g %% above the best", found.error, gap)
    ends = np.cumsum([len(of_layer) for of_layer in curves.values()])[:-1]
    return dict(zip(curves, np.split(found.counts, ends), strict=True))


def _joined(arrays: list[np.ndarray]) -> np.ndarray:
    return np.concatenate(arrays) if arrays else np.zeros(0)


def _hull(curve: np.ndarray, least: int) -> tuple[np.ndarray, np.ndarray]:
    """Ends and slopes of the segments of a curve's lower convex hull, from `least` on."""
    corners = lower_hull(range(least, len(curve)), curve)
    ends = np.array(corners[1:], int)
    return ends, np.diff(curve[corners]) / np.diff(corners)
