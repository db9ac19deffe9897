"""Prices: at which price on every variable that is one a sampler's states have the count asked for.

With E*(k) the least energy with k ones, the least of E(x) + λ Σ_i x_i lies on the lower convex hull of E*, at the k where the
hull's slope is −λ. The states seen so far bound that hull from above, and two are known without asking: none and all. The next
price is the slope of the edge over the count, at which its two ends tie: either the sampler finds a state below the edge,
which divides it, or the edge belongs to the hull, and no price leads nearer to the count. That takes a handful of calls, about
log₂ n of them; bisecting the range of all possible prices takes ten to twenty.

References:
    Everett, *Generalized Lagrange multiplier method*, Operations Research 11, 1963 (the price).
    Handler, Zang, *A dual algorithm for the constrained shortest path problem*, Networks 10, 1980, section 2 (the next price).
"""

from collections.abc import Iterable, Mapping, Sequence
from itertools import pairwise

import numpy as np

_ROUNDING = 1e-9
"""Of an energy, relative to the range of those seen: what lies less than this below an edge lies on it."""


def next_price(least: Mapping[int, float], wanted: int) -> float:
    """The price to ask next: minus the slope, at the count asked for, of the lower convex hull of the energies seen.

    Args:
        least: the lowest energy seen with each number of ones, from a number that is at most `wanted` to one that is at least.
        wanted: the count asked for. If it is a corner of the hull, the price lies halfway between those of the edges beside it.

    Example:
        >>> next_price({0: 0.0, 4: -8.0}, 1)
        2.0
        >>> next_price({0: 0.0, 1: -5.0, 4: -8.0}, 1)
        3.0
    """
    edges = [edge for edge in pairwise(lower_hull(sorted(least), least)) if edge[0] <= wanted <= edge[1]]
    return sum((least[first] - least[second]) / (second - first) for first, second in edges) / len(edges)


def lower_hull(counts: Iterable[int], values: Mapping[int, float] | Sequence[float] | np.ndarray) -> list[int]:
    """The counts, given in rising order, at the corners of the lower convex hull of `values[count]`."""
    corners: list[int] = []
    for count in counts:
        while len(corners) > 1:
            first, second = corners[-2], corners[-1]
            if (values[second] - values[first]) * (count - second) < (values[count] - values[second]) * (second - first):
                break
            corners.pop()
        corners.append(count)
    return corners


def is_on_hull(least: Mapping[int, float], price: float, count: int, energy: float) -> bool:
    """Whether a state of this count and energy is no lower, at this price, than those seen before."""
    priced = [value + price * ones for ones, value in least.items()]
    return energy + price * count >= min(priced) - _ROUNDING * (max(priced) - min(priced))
