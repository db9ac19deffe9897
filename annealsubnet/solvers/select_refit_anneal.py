"""Compiled exchange annealing of best-subset regression, over the `State` of `select_refit_kernels`.

A visit to a member evaluates all of its replacements (O(1) each) and draws one by heat bath; at temperature zero it takes the
best. Annealing walks over local optima: a *sweep* reheats the set by visits to a quarter of its members at a high temperature,
descends again, and keeps the new optimum by the Metropolis rule at a temperature that falls from sweep to sweep; else it goes
back. (One slow cooling of the visits themselves found worse sets in the same time.)

Temperatures are multiples of the problem's own scale, whatever the units of the error: the median over members, at the first
local optimum, of what the best replacement of the member would cost. At that temperature half of the members would leave for
their best replacement with odds of 1/e or better.
"""

from typing import NamedTuple

import numpy as np
from numba import njit

from annealsubnet.solvers.couplings import INLINED, INNER, OPTIONS
from annealsubnet.solvers.select_refit_kernels import (
    BARRED,
    FLOOR,
    MATH,
    State,
    copy_integers,
    drift,
    exchange,
    grow,
    median_of,
    next_uniform,
    rebuild,
)
from annealsubnet.solvers.select_refit_problem import BoolArray, FloatArray, IntArray, UintArray

_REFRESH = 64  # exchanges between two measurements of the drift
_DRIFT = 1e-9  # of the largest |c|: beyond it the inverse is recomputed
_REHEAT = 1.5  # temperature of the visits that disturb an optimum, in units of the scale
_TIE = 1e-11  # of F: an improvement smaller than this is rounding


class Task(NamedTuple):
    """One column's problem and the means to solve it.

    Attributes:
        gram: G, `[input, input]`.
        column: c, `[input]`.
        size: how many members.
        group_size: an exchange stays within a group of this many consecutive inputs.
        sign: 1 to maximize F, -1 to minimize it.
        tolerance: a change of F that is rounding.
        random: `[1]` state of the random stream.
        watched: `[1]` exchanges that had been made when the drift was last measured.
        counters: `[3]` replacements evaluated, exchanges made, inverses recomputed.
    """

    gram: FloatArray
    column: FloatArray
    size: int
    group_size: int
    sign: float
    tolerance: float
    random: UintArray
    watched: IntArray
    counters: IntArray


@njit(**INNER, fastmath=MATH)
def _scores(a: int, lo: int, hi: int, sign: float, state: State) -> tuple[float, float]:
    """sign * (gain of each input in the place of member a) into `state.score[lo:hi]`; that of a itself, and the largest."""
    inverse_paa = 1.0 / state.inverse[a, a]
    alpha = state.weights[a] * inverse_paa
    row, residual, schur = state.rows[a], state.residual, state.schur
    barred, score = state.barred, state.score
    for j in range(lo, hi):
        x = residual[j] + alpha * row[j]
        y = schur[j] + inverse_paa * row[j] * row[j]
        score[j] = (sign * x * x / y if y > FLOOR else 0.1 * BARRED) + barred[j]
    stay = sign * state.weights[a] * alpha
    score[state.active[a]] = BARRED
    best = 2 * BARRED
    for j in range(lo, hi):
        best = max(best, score[j])
    score[state.active[a]] = stay
    return stay, best


@njit(**INNER, fastmath=MATH)
def _draw(lo: int, hi: int, best: float, temperature: float, uniform: float, state: State) -> int:
    """An index of `state.score[lo:hi]` drawn with probability proportional to exp(score / temperature)."""
    score, shortlist, pivot = state.score, state.shortlist, state.pivot
    threshold = best - 25.0 * temperature  # what is left out weighs less than d e^-25
    count = 0
    for j in range(lo, hi):
        shortlist[count] = j
        count += score[j] > threshold
    if count <= 1:
        return shortlist[0]
    total = 0.0
    for i in range(count):
        total += np.exp((score[shortlist[i]] - best) / temperature)
        pivot[i] = total
    target = uniform * total
    for i in range(count):
        if pivot[i] > target:
            return shortlist[i]
    return shortlist[count - 1]


@njit(**INNER, fastmath=MATH)
def _index_of(value: float, lo: int, hi: int, state: State) -> int:
    """Where `state.score[lo:hi]` holds `value`."""
    for j in range(lo, hi):
        if state.score[j] == value:
            return j
    return lo


@njit(**INLINED)
def _visit(a: int, temperature: float, task: Task, state: State) -> float:
    """Offer member a every replacement; how much sign * F changed (0 where it stays)."""
    leaving = state.active[a]
    lo = leaving // task.group_size * task.group_size
    hi = min(lo + task.group_size, task.column.size)
    stay, best = _scores(a, lo, hi, task.sign, state)
    task.counters[0] += hi - lo
    if temperature > 0.0:
        if stay - best > 36.0 * temperature:
            return 0.0
        j = _draw(lo, hi, max(best, stay), temperature, next_uniform(task.random), state)
    else:
        j = _index_of(best, lo, hi, state) if best > stay + task.tolerance else leaving
    if j == leaving:
        return 0.0
    change = state.score[j] - stay
    exchange(task.gram, a, j, task.size, state)
    task.counters[1] += 1
    return change


@njit(**INNER)
def _walk(visits: int, temperature: float, task: Task, state: State) -> bool:
    """Visits to random members at a temperature, then exchanges at zero until no member has a better replacement.

    Both in one loop, so that a visit is compiled once. False where it was left because rounding errors have grown.
    """
    since, step = 0, -visits
    while since < task.size:
        a = step % task.size if step >= 0 else int(next_uniform(task.random) * task.size)
        change = _visit(a, 0.0 if step >= 0 else temperature, task, state)
        since = since + 1 if step >= 0 and change <= 0.0 else 0
        step += 1
        if task.counters[1] >= task.watched[0] + _REFRESH:
            task.watched[0] = task.counters[1]
            if drift(task.gram, task.column, task.size, state) > _DRIFT:
                return False
    return True


@njit(**INLINED)
def _descend(visits: int, temperature: float, task: Task, state: State) -> None:
    """A walk to its end; it goes on from a recomputed state, at zero, wherever rounding errors have grown."""
    left = visits
    while not _walk(left, temperature, task, state):
        rebuild(task.gram, task.column, task.size, state)
        task.counters[2] += 1
        left *= 0  # for a literal 0 the walk would be compiled once more


@njit(**INNER)
def _scale_of(task: Task, state: State) -> float:
    """Median over members of what the best replacement would cost, at a local optimum."""
    costs = np.empty(task.size)
    for a in range(task.size):
        lo = state.active[a] // task.group_size * task.group_size
        stay, best = _scores(a, lo, min(lo + task.group_size, task.column.size), task.sign, state)
        costs[a] = max(stay - best, 0.0)
    return median_of(costs, task.size)


@njit(**INNER)
def _value(column: FloatArray, size: int, sign: float, state: State) -> float:
    """sign * F of the state."""
    total = 0.0
    for b in range(size):
        total += state.weights[b] * column[state.active[b]]
    return sign * total


@njit(**INNER)
def _return_to(saved: IntArray, marks: IntArray, task: Task, state: State) -> None:
    """Exchange back until the members are those of `saved`, in any order; `marks` is all zero before and after."""
    for b in range(task.size):
        marks[state.active[b]] += 1
        marks[saved[b]] += 2
    b = 0
    for a in range(task.size):
        if marks[state.active[a]] == 1:  # a member, but not of `saved`
            while marks[saved[b]] != 2:
                b += 1
            marks[state.active[a]] = 0
            marks[saved[b]] = 0
            exchange(task.gram, a, saved[b], task.size, state)
            task.counters[1] += 1
    for b in range(task.size):
        marks[saved[b]] = 0


@njit(**INLINED)
def _anneal(temperatures: FloatArray, scale: float, task: Task, state: State, marks: IntArray, found: IntArray) -> float:
    """One read, of a reheating and a descent at each temperature (times `scale`); the best value, and its set in `found`."""
    saved = np.empty(task.size, np.int64)
    copy_integers(saved, state.active, task.size)
    copy_integers(found, state.active, task.size)
    current = _value(task.column, task.size, task.sign, state)
    best = current
    for t in range(temperatures.size):
        _descend(2 + task.size // 4, _REHEAT * scale, task, state)
        value = _value(task.column, task.size, task.sign, state)
        if value < current and next_uniform(task.random) >= np.exp((value - current) / (scale * temperatures[t])):
            _return_to(saved, marks, task, state)
            continue
        current = value
        copy_integers(saved, state.active, task.size)
        if value > best:
            best = value
            copy_integers(found, state.active, task.size)
    return best


@njit(**INLINED)
def _solve(seed: int, num_reads: int, temperatures: FloatArray, task: Task, state: State, best_active: IntArray) -> None:
    """Descent from the state, then `num_reads` annealings from that optimum; the best set in `best_active`."""
    found, first = np.empty(task.size, np.int64), np.empty(task.size, np.int64)
    marks = np.zeros(task.column.size, np.int64)
    best = _value(task.column, task.size, task.sign, state)
    _descend(np.int64(0), 0.0, task, state)
    value = _value(task.column, task.size, task.sign, state)
    if value > best:
        best = value
        copy_integers(best_active, state.active, task.size)
    copy_integers(first, state.active, task.size)
    scale = _scale_of(task, state)
    if temperatures.size == 0 or scale <= task.tolerance:
        return
    for read in range(num_reads):
        task.random[0] = seed + np.uint64(read) * np.uint64(0xD1342543DE82EF95)
        _return_to(first, marks, task, state)
        value = _anneal(temperatures, scale, task, state, marks, found)
        if value > best:
            best = value
            copy_integers(best_active, found, task.size)


@njit(**OPTIONS)
def solve_columns(
    gram: FloatArray,
    columns: FloatArray,
    sizes: IntArray,
    sign: float,
    group_size: int,
    group_cap: int,
    given: bool,
    seeds: UintArray,
    num_reads: int,
    temperatures: FloatArray,
    state: State,
    chosen: BoolArray,
    counters: IntArray,
) -> None:
    """Best active set of each row of `columns` (its own problem): `chosen[n]`, all False before, marks the members.

    `state` has room for the largest set. Where `given` it holds the start, of the one row there is; else growth starts.
    """
    inputs = gram.shape[0]
    best_active, curve = np.empty(state.active.size, np.int64), np.empty(inputs + 1)
    random, watched = np.empty(1, np.uint64), np.zeros(1, np.int64)
    for n in range(columns.shape[0]):
        q, c = sizes[n], columns[n]
        if q == 0:
            continue
        if not given:
            grow(gram, c, q, sign, group_size, group_cap, state, curve)
        copy_integers(best_active, state.active, q)
        if q < inputs:
            tolerance = _TIE * abs(_value(c, q, sign, state))
            watched[0] = counters[n, 1]
            task = Task(gram, c, q, group_size, sign, tolerance, random, watched, counters[n])
            _solve(seeds[n], num_reads, temperatures, task, state, best_active)
        for b in range(q):
            chosen[n, best_active[b]] = True


@njit(**INNER, fastmath=MATH)
def eliminate(inverse: FloatArray, weights: FloatArray, num_kept: int, order: IntArray, costs: FloatArray) -> None:
    """Backward elimination (OBC) from the full set: `order` of removal and what each costs, by rank-one updates.

    `inverse` and `weights` are overwritten; only the lower triangle of `inverse` is used, and it shrinks as inputs go.
    """
    left = weights.size
    alive = np.arange(left)
    column = np.empty(left)
    for step in range(weights.size - num_kept):
        p, cheapest = 0, np.inf
        for i in range(left):
            cost = weights[i] * weights[i] / inverse[i, i]
            if cost < cheapest:
                p, cheapest = i, cost
        order[step], costs[step] = alive[p], cheapest
        left -= 1
        for i in range(left + 1):
            column[i] = inverse[p, i] if i <= p else inverse[i, p]
        pivot, weight, last_weight = column[p], weights[p], weights[left]
        if p < left:  # the last input takes the place of p
            last_column = inverse[left]
            alive[p], weights[p], column[p] = alive[left], last_weight, column[left]
            for i in range(p):
                inverse[p, i] = last_column[i]
            for i in range(p + 1, left):
                inverse[i, p] = last_column[i]
            inverse[p, p] = last_column[left]
        for i in range(left):
            factor = column[i] / pivot
            weights[i] -= factor * weight
            row = inverse[i]
            for e in range(i + 1):
                row[e] -= factor * column[e]


@njit(**OPTIONS)
def eliminate_columns(inverse: FloatArray, columns: FloatArray, orders: IntArray, values: FloatArray) -> None:
    """Backward elimination of each row of `columns` to nothing.

    `orders[n]`: inputs, the last removed first; `values[n, k]`: what removing all but k of them costs.
    """
    inputs = inverse.shape[0]
    removed, costs = np.empty(inputs, np.int64), np.empty(inputs)
    for n in range(columns.shape[0]):
        eliminate(inverse.copy(), columns[n].copy(), 0, removed, costs)
        values[n, inputs] = 0.0
        for step in range(inputs):
            orders[n, inputs - step - 1] = removed[step]
            values[n, inputs - step - 1] = values[n, inputs - step] + costs[step]


@njit(**OPTIONS)
def curve_columns(
    gram: FloatArray,
    columns: FloatArray,
    size: int,
    sign: float,
    group_size: int,
    group_cap: int,
    state: State,
    orders: IntArray,
    values: FloatArray,
) -> None:
    """Greedy growth of each row of `columns` to `size` members: `orders[n]` as they enter, `values[n, q]` F with q of them."""
    for n in range(columns.shape[0]):
        grow(gram, columns[n], size, sign, group_size, group_cap, state, values[n])
        copy_integers(orders[n], state.active, size)
