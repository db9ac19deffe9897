"""Compiled greedy starts, descent and annealing over the `Tableau` of `select_refit_blocks`."""

import numpy as np
from numba import njit

from annealsubnet.solvers.couplings import INNER, OPTIONS
from annealsubnet.solvers.select_refit_blocks import Tableau, draw, own_value, pivot, price
from annealsubnet.solvers.select_refit_kernels import copy_floats, median_of, next_uniform
from annealsubnet.solvers.select_refit_problem import BoolArray, FloatArray, IntArray

_REFRESH = 32  # exchanges between two measurements of the drift
_DRIFT = 1e-8  # beyond it the tableau is recomputed


@njit(**INNER)
def new_scratch(tableau: Tableau) -> FloatArray:
    """Room for the block of one unit and its right-hand sides."""
    size, offsets = 1, tableau.offsets
    for u in range(offsets.size - 1):
        size = max(size, offsets[u + 1] - offsets[u])
    return np.zeros((size, size + tableau.right.shape[1]))


@njit(**INNER)
def count_of(inside: BoolArray) -> int:
    """How many are kept."""
    count = 0
    for u in range(inside.size):
        count += inside[u]
    return count


@njit(**INNER)
def _largest(score: FloatArray) -> int:
    """Where the score is largest."""
    chosen = 0
    for v in range(score.size):
        if score[v] > score[chosen]:
            chosen = v
    return chosen


@njit(**OPTIONS)
def move_to(inside: BoolArray, tableau: Tableau) -> bool:
    """Pivot until exactly the units of `inside` are kept; False where they were already."""
    one, moved = np.empty(1, np.int64), False
    for u in range(inside.size):
        if inside[u] != tableau.inside[u]:
            one[0] = u
            pivot(one, tableau)
            moved = True
    return moved


@njit(**OPTIONS)
def take_greedily(adds: bool, tableau: Tableau, changes: FloatArray) -> None:
    """Add the unit worth most, or remove the one worth least, once for each of `changes`: what every step did to the error."""
    scratch = new_scratch(tableau)
    one = np.empty(1, np.int64)
    for n in range(changes.size):
        chosen, best = -1, 0.0
        for u in range(tableau.inside.size):
            if tableau.inside[u] != adds:
                value = own_value(u, tableau, scratch)
                if chosen < 0 or ((value > best) == adds and value != best):
                    chosen, best = u, value
        one[0] = chosen
        pivot(one, tableau)
        changes[n] = -best if adds else best


@njit(**INNER)
def _worths(tableau: Tableau, limit: int, scratch: FloatArray, worth: FloatArray) -> None:
    """Own worth of every unit, where shortlists will ask for it."""
    if tableau.right.shape[1] == 0 or tableau.inside.size <= limit:
        return
    for u in range(worth.size):
        worth[u] = own_value(u, tableau, scratch)


@njit(**INNER)
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


@njit(**INNER)
def refresh(base: Tableau, tableau: Tableau) -> None:
    """Recompute the tableau from `base`, which keeps nothing."""
    inside = np.empty(base.inside.size, np.bool_)
    for u in range(inside.size):
        inside[u] = tableau.inside[u]
        tableau.inside[u] = False
    for i in range(base.swept.shape[0]):
        copy_floats(tableau.swept[i], base.swept[i])
        copy_floats(tableau.right[i], base.right[i])
    for i in range(base.outer.shape[0]):
        copy_floats(tableau.outer[i], base.outer[i])
    move_to(inside, tableau)


@njit(**INNER)
def _exchange(u: int, v: int, base: Tableau, tableau: Tableau, counters: IntArray) -> None:
    """Swap the sides of u and v, watching the rounding errors."""
    pair = np.empty(2, np.int64)
    pair[0], pair[1] = u, v
    pivot(pair, tableau)
    counters[1] += 1
    if counters[1] % _REFRESH == 0 and _drift(base.swept, tableau) > _DRIFT:
        refresh(base, tableau)
        counters[2] += 1


@njit(**OPTIONS)
def descend(base: Tableau, limit: int, tolerance: float, tableau: Tableau, counters: IntArray) -> float:
    """Exchanges at temperature zero until no visit finds a better one; the fall of the error."""
    inside = tableau.inside
    scratch, score, worth = new_scratch(tableau), np.empty(inside.size), np.zeros(inside.size)
    fewer = 2 * count_of(inside) <= inside.size
    _worths(tableau, limit, scratch, worth)
    total, since, step = 0.0, 0, 0
    while since < inside.size:
        u = step % inside.size
        if inside[u] == fewer:
            stay, priced = price(u, limit, tableau, worth, score, scratch)
            counters[0] += priced
            v = _largest(score)
            if priced > 0 and score[v] > stay + tolerance:
                total += score[v] - stay
                _exchange(u, v, base, tableau, counters)
                _worths(tableau, limit, scratch, worth)
                since = 0
        since += 1
        step += 1
    return total


@njit(**OPTIONS)
def scale_of(limit: int, tableau: Tableau) -> float:
    """Median over the visited units of what their best exchange would cost, at a local optimum."""
    inside = tableau.inside
    scratch, score, worth = new_scratch(tableau), np.empty(inside.size), np.zeros(inside.size)
    fewer = 2 * count_of(inside) <= inside.size
    _worths(tableau, limit, scratch, worth)
    costs = np.zeros(inside.size)
    count = 0
    for u in range(inside.size):
        if inside[u] == fewer:
            stay, _ = price(u, limit, tableau, worth, score, scratch)
            cost = stay - score[_largest(score)]
            if cost < 1e290:
                costs[count] = max(cost, 0.0)
                count += 1
    return median_of(costs, count) if count else 0.0


@njit(**OPTIONS)
def anneal(
    base: Tableau,
    seed: int,
    temperatures: FloatArray,
    scale: float,
    limit: int,
    tolerance: float,
    tableau: Tableau,
    found: BoolArray,
    counters: IntArray,
) -> float:
    """One read: a sweep of random visits at each temperature; the best set seen in `found`, its fall of the error returned."""
    inside = tableau.inside
    scratch, score, worth = new_scratch(tableau), np.empty(inside.size), np.zeros(inside.size)
    random = np.empty(1, np.uint64)
    random[0] = seed
    fewer = 2 * count_of(inside) <= inside.size
    visited, count = np.empty(inside.size, np.int64), 0
    for u in range(inside.size):
        found[u] = inside[u]
        if inside[u] == fewer:
            visited[count] = u
            count += 1
    _worths(tableau, limit, scratch, worth)
    now, best = 0.0, 0.0
    for t in range(temperatures.size):
        for _ in range(count):
            n = int(next_uniform(random) * count)
            u = visited[n]
            stay, priced = price(u, limit, tableau, worth, score, scratch)
            counters[0] += priced
            if priced == 0:
                continue
            v = draw(score, stay, scale * temperatures[t], next_uniform(random))
            if v < 0:
                continue
            now += score[v] - stay
            _exchange(u, v, base, tableau, counters)
            _worths(tableau, limit, scratch, worth)
            visited[n] = v
            if now > best + tolerance:
                best = now
                for w in range(inside.size):
                    found[w] = inside[w]
    return best
