"""Compiled descent and annealing over the `Tableau` of `select_refit_blocks`."""

import numpy as np
from numba import njit

from annealsubnet.solvers.couplings import INLINED, OPTIONS
from annealsubnet.solvers.select_refit_blocks import Tableau, draw, own_values, pivot, price
from annealsubnet.solvers.select_refit_kernels import copy_floats, next_uniform
from annealsubnet.solvers.select_refit_problem import BoolArray, FloatArray, IntArray, UintArray

_REFRESH = 32  # exchanges between two measurements of the drift
_DRIFT = 1e-8  # beyond it the tableau is recomputed


@njit(**INLINED)
def _drift(gram: FloatArray, tableau: Tableau) -> float:
    """Largest entry of P (H_SS x) - x for a vector of alternating signs, by the tableau's P."""
    inputs = np.empty(gram.shape[0], np.int64)
    count = 0
    for u in range(tableau.inside.size):
        if tableau.inside[u]:
            for i in range(tableau.offsets[u], tableau.offsets[u + 1]):
                inputs[count] = i
                count += 1
    x, y = np.zeros(gram.shape[0]), np.zeros(gram.shape[0])
    for n in range(count):
        x[inputs[n]] = 1.0 - 2.0 * (n % 2)
    for n in range(count):
        row, total = gram[inputs[n]], 0.0
        for i in range(x.size):
            total += row[i] * x[i]
        y[inputs[n]] = total
    worst = 0.0
    for n in range(count):
        i = inputs[n]
        total = 0.0
        for e in range(count):
            total -= tableau.swept[i, inputs[e]] * y[inputs[e]]
        worst = max(worst, abs(total - x[i]))
    return worst


@njit(**INLINED)
def _refresh(base: Tableau, tableau: Tableau) -> None:
    """Recompute the tableau from `base`, which keeps nothing."""
    kept = np.empty(base.inside.size, np.bool_)
    one = np.empty(1, np.int64)
    for u in range(kept.size):
        kept[u] = tableau.inside[u]
        tableau.inside[u] = False
    for i in range(base.swept.shape[0]):
        copy_floats(tableau.swept[i], base.swept[i])
        copy_floats(tableau.right[i], base.right[i])
    for i in range(base.outer.shape[0]):
        copy_floats(tableau.outer[i], base.outer[i])
    for u in range(kept.size):
        if kept[u]:
            one[0] = u
            pivot(one, tableau)


@njit(**INLINED)
def _exchange(pair: IntArray, base: Tableau, tableau: Tableau, counters: IntArray) -> None:
    """Swap the sides of two units, watching the rounding errors."""
    pivot(pair, tableau)
    counters[1] += 1
    if counters[1] % _REFRESH == 0 and _drift(base.swept, tableau) > _DRIFT:
        _refresh(base, tableau)
        counters[2] += 1


@njit(**INLINED)
def _choose(
    hot: bool, stay: float, priced: int, temperature: float, tolerance: float, score: FloatArray, random: UintArray
) -> int:
    """The unit to exchange: drawn by heat bath where it is hot, else the best where it is better; -1 for none."""
    chosen = -1
    if priced > 0 and hot:
        chosen = draw(score, stay, temperature, next_uniform(random))
    elif priced > 0:
        best = stay + tolerance
        for v in range(score.size):
            if score[v] > best:
                chosen, best = v, score[v]
    return chosen


@njit(**OPTIONS)
def walk(
    base: Tableau,
    seed: int,
    temperatures: FloatArray,
    limit: int,
    tolerance: float,
    scratch: FloatArray,
    tableau: Tableau,
    found: BoolArray,
    counters: IntArray,
) -> None:
    """A sweep of random visits at each of `temperatures`, then exchanges at zero until no visit finds a better one.

    The best set seen before those at zero is left in `found`, which holds the set of the start. All visits in one loop, so
    that they are compiled once.
    """
    inside = tableau.inside
    score, worth = np.empty(inside.size), np.zeros(inside.size)
    random, pair = np.empty(1, np.uint64), np.empty(2, np.int64)
    random[0] = seed
    visited, count, kept = np.empty(inside.size, np.int64), 0, 0
    for u in range(inside.size):
        kept += inside[u]
    fewer = 2 * kept <= inside.size
    for u in range(inside.size):
        if inside[u] == fewer:
            visited[count] = u
            count += 1
    shortlists = tableau.right.shape[1] > 0 and inside.size > limit
    if shortlists:
        own_values(tableau, scratch, worth)
    now, best, since = 0.0, 0.0, 0
    step = -count * temperatures.size  # below zero while it is hot
    while since < inside.size:
        hot, n, temperature = step < 0, 0, 0.0
        if hot:
            temperature = temperatures[temperatures.size + step // count]
            n = int(next_uniform(random) * count)
            u = visited[n]
        else:
            u = step % inside.size
            since += 1
        step += 1
        if inside[u] != fewer:
            continue
        stay, priced = price(u, limit, tableau, worth, score, scratch)
        counters[0] += priced
        v = _choose(hot, stay, priced, temperature, tolerance, score, random)
        if v < 0:
            continue
        pair[0], pair[1] = u, v
        _exchange(pair, base, tableau, counters)
        if shortlists:
            own_values(tableau, scratch, worth)
        if not hot:
            since = 1
            continue
        now += score[v] - stay
        visited[n] = v
        if now > best + tolerance:
            best = now
            for w in range(inside.size):
                found[w] = inside[w]
