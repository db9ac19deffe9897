"""Allocation meets the budget exactly and equals the optimum where curves are convex."""

from itertools import product

import numpy as np
import pytest

from annealsubnet.allocation import allocate


def random_curves(rng, *, convex):
    curves = []
    for length in rng.integers(2, 6, 4):
        drops = rng.random(length)
        curves.append(10 - np.append(0, np.cumsum(np.sort(drops)[::-1] if convex else drops)))
    return curves


def best_error(curves, total, least):
    counts = product(*(range(least, len(curve)) for curve in curves))
    return min(sum(curve[k] for curve, k in zip(curves, ks, strict=True)) for ks in counts if sum(ks) == total)


@pytest.mark.parametrize("convex", [True, False])
@pytest.mark.parametrize("least", [0, 1])
def test_allocation_against_enumeration(convex, least):
    rng = np.random.default_rng(0)
    for _ in range(30):
        curves = random_curves(rng, convex=convex)
        most = sum(len(curve) - 1 for curve in curves)
        for total in range(4 * least, most + 1):
            found = allocate(curves, total, least=least)
            assert found.counts.sum() == total
            assert found.counts.min() >= least
            optimum = best_error(curves, total, least)
            assert found.bound <= optimum + 1e-9 <= found.error + 2e-9
            if convex:
                np.testing.assert_allclose([found.error, found.bound], optimum)


def test_a_budget_that_cannot_be_met_is_refused():
    with pytest.raises(ValueError, match="2 parts can take 2 to 4 units, not 5"):
        allocate([np.zeros(3), np.zeros(3)], 5, least=1)
