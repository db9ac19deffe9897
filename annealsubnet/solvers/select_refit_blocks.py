"""Compiled kernels of best-subset regression over units of one or several inputs, for any number of right-hand sides.

The state is one symmetric tableau of the inputs, swept on the kept set S (P = (H_SS)^-1, s the Schur complement)

    A = [ -P       P H_SN ]          Y = [ P B_S             ]          W = Y Y'
        [ H_NS P   s_NN   ]              [ B_N - H_NS P B_S  ]

A principal pivot on the inputs K adds, removes or exchanges them at once: with D = A_KK and Z = A_:K D^-1, A loses Z A_K: and Y
loses Z Y_K. Removing unit a raises the error by tr((P_aa)^-1 W_aa), adding unit g lowers it by tr((s_gg)^-1 W_gg), and after a
pivot on u alone the blocks of any other unit v are

    A'_vv = A_vv - A_vu D^-1 A_uv,     Y'_v = Y_v - A_vu D^-1 Y_u

which prices every exchange of u for v exactly, without making it. Units of single inputs keep W, where the number of right-hand
sides never appears again, and a price costs O(1); units of p inputs keep Y, no wider than it is long, and a price costs
O(p^3 + p^2 columns). Kept and unkept units play the same part up to a sign, so visits go to whichever are fewer.
"""

from typing import NamedTuple

import numpy as np
from numba import njit

from annealsubnet.solvers.couplings import INLINED, INNER, OPTIONS
from annealsubnet.solvers.select_refit_kernels import FLOOR, MATH, copy_floats, fill
from annealsubnet.solvers.select_refit_problem import BoolArray, FloatArray, IntArray

_REJECTED = -1e300
_ROWS = 64  # of a product at a time, so that it stays in cache


class Tableau(NamedTuple):
    """State of a set of kept units.

    Attributes:
        swept: A, `[input, input]`.
        outer: W, `[input, input]`, where units are single inputs; else `[0, 0]`.
        right: Y, `[input, column]`, where units have several inputs; else `[input, 0]`.
        offsets: `[unit + 1]` where each unit's inputs begin.
        inside: `[unit]` True where it is kept.
    """

    swept: FloatArray
    outer: FloatArray
    right: FloatArray
    offsets: IntArray
    inside: BoolArray


@njit(**INNER, fastmath=MATH)
def _subtract_product(target: FloatArray, left: FloatArray, right: FloatArray) -> None:
    """target -= left' @ right, in place: by BLAS for blocks, by a loop for single inputs."""
    rank, width = right.shape
    if rank > 8:
        for start in range(0, target.shape[0], _ROWS):
            stop = min(start + _ROWS, target.shape[0])
            part = np.empty((stop - start, rank))
            for i in range(start, stop):
                for e in range(rank):
                    part[i - start, e] = left[e, i]
            product = np.dot(part, right)
            for i in range(start, stop):
                row, other = target[i], product[i - start]
                for j in range(width):
                    row[j] -= other[j]
        return
    for i in range(target.shape[0]):
        row = target[i]
        for e in range(rank):
            factor, other = left[e, i], right[e]
            for j in range(width):
                row[j] -= factor * other[j]


@njit(**INLINED)
def _inputs_of(units: IntArray, offsets: IntArray) -> IntArray:
    """All inputs of `units`, in order."""
    count = 0
    for u in units:
        count += offsets[u + 1] - offsets[u]
    inputs = np.empty(count, np.int64)
    count = 0
    for u in units:
        for i in range(offsets[u], offsets[u + 1]):
            inputs[count] = i
            count += 1
    return inputs


@njit(**OPTIONS)
def pivot(units: IntArray, tableau: Tableau) -> None:
    """Add the `units` that are outside and remove those that are inside, in one step."""
    swept, outer, right, offsets, inside = tableau
    inputs = _inputs_of(units, offsets)
    size, width = inputs.size, swept.shape[0]
    rows, inverse = np.empty((size, width)), np.empty((size, size))
    for e in range(size):
        copy_floats(rows[e], swept[inputs[e]])
        for f in range(size):
            inverse[e, f] = rows[e, inputs[f]]
    _invert_small(inverse, size)
    z_rows = np.zeros((size, width))
    _subtract_product(z_rows, -inverse, rows)
    _subtract_product(swept, z_rows, rows)
    for e in range(size):
        i = inputs[e]
        for n in range(width):
            swept[i, n] = z_rows[e, n]
            swept[n, i] = z_rows[e, n]
    for e in range(size):
        for f in range(size):
            swept[inputs[e], inputs[f]] = -inverse[e, f]
            z_rows[f, inputs[e]] = (1.0 if e == f else 0.0) - inverse[e, f]
    if right.shape[1]:
        _update_right(right, inputs, z_rows)
    else:
        _update_outer(outer, inputs, z_rows)
    for u in units:
        if inside[u]:
            for i in range(offsets[u], offsets[u + 1]):
                _negate(i, swept)
                if right.shape[1]:
                    for n in range(right.shape[1]):
                        right[i, n] *= -1.0
                else:
                    _negate(i, outer)
        inside[u] = not inside[u]


@njit(**INNER)
def _negate(i: int, matrix: FloatArray) -> None:
    """Change the sign of row and column i, and so that of the diagonal entry twice."""
    for n in range(matrix.shape[0]):
        matrix[i, n] *= -1.0
    for n in range(matrix.shape[0]):
        matrix[n, i] *= -1.0


@njit(**INLINED)
def _update_right(right: FloatArray, inputs: IntArray, z_rows: FloatArray) -> None:
    """Y loses Z Y_K."""
    rows = np.empty((inputs.size, right.shape[1]))
    for e in range(inputs.size):
        copy_floats(rows[e], right[inputs[e]])
    _subtract_product(right, z_rows, rows)


@njit(**INLINED)
def _update_outer(outer: FloatArray, inputs: IntArray, z_rows: FloatArray) -> None:
    """W of Y - Z Y_K: W loses Z Q + (Z Q)' with Q = W_K: - W_KK Z' / 2."""
    size = inputs.size
    outer_rows, half = np.empty((size, outer.shape[0])), np.empty((size, size))
    for e in range(size):
        copy_floats(outer_rows[e], outer[inputs[e]])
    for e in range(size):
        for f in range(size):
            half[f, e] = 0.5 * outer_rows[e, inputs[f]]
    _subtract_product(outer_rows, half, z_rows)
    _subtract_product(outer, z_rows, outer_rows)
    _subtract_product(outer, outer_rows, z_rows)


@njit(**INNER, fastmath=MATH)
def _invert_small(block: FloatArray, size: int) -> bool:
    """Invert a symmetric `block[:size, :size]` in place by sweeps in order; False where it is singular.

    The order is stable for definite blocks and for the quasi-definite ones of a pivot (-P_aa and the Schur block).
    """
    sound = True
    for k in range(size):
        d = block[k, k]
        if not abs(d) > FLOOR:
            sound, d = False, FLOOR
        d = 1.0 / d
        for i in range(size):
            if i != k:
                factor = block[i, k] * d
                for j in range(size):
                    if j != k:
                        block[i, j] -= factor * block[k, j]
        for i in range(size):
            if i != k:
                block[i, k] *= d
                block[k, i] = block[i, k]
        block[k, k] = -d
    for i in range(size):
        for j in range(size):
            block[i, j] = -block[i, j]
    return sound


@njit(**INNER, fastmath=MATH)
def _worth(rows: FloatArray, size: int, width: int) -> float:
    """tr(M^-1 R R') of `rows` = [M R], M positive definite `[size, size]` and R `[size, width]`; -1 where it is singular."""
    value = 0.0
    for k in range(size):
        row = rows[k]
        d = row[k]
        if not d > FLOOR:
            return -1.0
        d = 1.0 / d
        total = 0.0
        for n in range(size, size + width):
            total += row[n] * row[n]
        value += total * d
        for i in range(k + 1, size):
            other = rows[i]
            factor = other[k] * d
            for n in range(k + 1, size + width):
                other[n] -= factor * row[n]
    return value


@njit(**INNER, fastmath=MATH)
def own_value(u: int, tableau: Tableau, scratch: FloatArray) -> float:
    """What unit u is worth: the rise of the error on its removal, or the fall on its addition."""
    swept, right, inside = tableau.swept, tableau.right, tableau.inside
    lo = tableau.offsets[u]
    size, width = tableau.offsets[u + 1] - lo, right.shape[1]
    sign = -1.0 if inside[u] else 1.0
    if width == 0:
        schur = sign * swept[lo, lo]
        return tableau.outer[lo, lo] / schur if schur > FLOOR else 0.0
    for i in range(size):
        row = scratch[i]
        for j in range(size):
            row[j] = sign * swept[lo + i, lo + j]
        for n in range(width):
            row[size + n] = right[lo + i, n]
    return max(_worth(scratch, size, width), 0.0)


@njit(**OPTIONS)
def own_values(tableau: Tableau, scratch: FloatArray, values: FloatArray) -> None:
    """`own_value` of every unit into `values`."""
    for u in range(values.size):
        values[u] = own_value(u, tableau, scratch)


@njit(**INNER, fastmath=MATH)
def _pair_value(v: int, u: int, slopes: FloatArray, tableau: Tableau, scratch: FloatArray) -> float:
    """What block v is worth after a pivot on block u alone; `slopes` is (A_uu)^-1 A_u:."""
    swept, right, offsets = tableau.swept, tableau.right, tableau.offsets
    v_lo, u_lo = offsets[v], offsets[u]
    size, width = offsets[v + 1] - v_lo, right.shape[1]
    sign = -1.0 if tableau.inside[v] else 1.0
    for i in range(size):
        row, right_row = scratch[i], right[v_lo + i]
        for j in range(size):
            row[j] = sign * swept[v_lo + i, v_lo + j]
        for n in range(width):
            row[size + n] = right_row[n]
        for e in range(offsets[u + 1] - u_lo):
            slope, factor = slopes[e], sign * swept[v_lo + i, u_lo + e]
            for j in range(size):
                row[j] -= factor * slope[v_lo + j]
            factor, right_row = slopes[e, v_lo + i], right[u_lo + e]
            for n in range(width):
                row[size + n] -= factor * right_row[n]
    return _worth(scratch, size, width)


@njit(**INNER, fastmath=MATH)
def _score_inputs(u: int, tableau: Tableau, score: FloatArray) -> None:
    """Worth of every other single input after a pivot on input u alone, into `score` (meaningless on u's own side)."""
    swept, outer = tableau.swept, tableau.outer
    inverse = 1.0 / swept[u, u]
    row, outer_row, outer_u = swept[u], outer[u], outer[u, u]
    sign = 1.0 if tableau.inside[u] else -1.0  # of A on the other side
    for v in range(score.size):
        z = row[v] * inverse
        schur = sign * (swept[v, v] - z * row[v])
        score[v] = (outer[v, v] - 2.0 * z * outer_row[v] + z * z * outer_u) / schur if schur > FLOOR else -1.0


@njit(**INNER)
def _mark_largest(values: FloatArray, limit: int, marked: BoolArray) -> None:
    """Mark the `limit` largest finite values that are not marked yet."""
    for _ in range(limit):
        best, chosen = _REJECTED, -1
        for v in range(values.size):
            if values[v] > best and not marked[v]:
                best, chosen = values[v], v
        if chosen >= 0:
            marked[chosen] = True


@njit(**INLINED)
def _shortlist(u: int, limit: int, tableau: Tableau, worth: FloatArray, marked: BoolArray) -> None:
    """Mark units of the other side to price exactly: half by their own worth, half by their coupling to u."""
    swept, offsets, inside = tableau.swept, tableau.offsets, tableau.inside
    others = 0
    for v in range(inside.size):
        marked[v] = inside[v] != inside[u]
        others += marked[v]
    if others <= limit:
        return
    sign = 1.0 if inside[u] else -1.0
    values, couplings = np.empty(inside.size), np.empty(inside.size)
    for v in range(inside.size):
        values[v] = sign * worth[v] if marked[v] else _REJECTED
        total = 0.0
        for i in range(offsets[u], offsets[u + 1]):
            for j in range(offsets[v], offsets[v + 1]):
                total += swept[i, j] * swept[i, j] / (abs(swept[j, j]) + 1e-30)
        couplings[v] = total if marked[v] else _REJECTED
        marked[v] = False
    _mark_largest(values, limit // 2, marked)
    _mark_largest(couplings, limit - limit // 2, marked)


@njit(**OPTIONS)
def price(u: int, limit: int, tableau: Tableau, worth: FloatArray, score: FloatArray, scratch: FloatArray) -> tuple[float, int]:
    """Worth of the exchanges of u into `score`, with the sign that makes the largest the best; the same of leaving u as it is.

    A kept u wants the replacement that is worth most; for an unkept u the kept unit that is worth least should go.
    """
    swept, offsets, inside = tableau.swept, tableau.offsets, tableau.inside
    sign = 1.0 if inside[u] else -1.0
    priced = 0
    if tableau.right.shape[1] == 0:
        _score_inputs(u, tableau, score)
        for v in range(score.size):
            if inside[v] == inside[u] or score[v] < 0.0:
                score[v] = _REJECTED
            else:
                score[v] *= sign
                priced += 1
        return sign * own_value(u, tableau, scratch), priced
    fill(score, _REJECTED)
    marked = np.empty(inside.size, np.bool_)
    lo, hi = offsets[u], offsets[u + 1]
    inverse = sign * -swept[lo:hi, lo:hi]
    if not _invert_small(inverse, hi - lo):
        return 0.0, 0
    slopes = np.dot(inverse, -sign * swept[lo:hi])
    _shortlist(u, limit, tableau, worth, marked)
    for v in range(inside.size):
        if marked[v]:
            value = _pair_value(v, u, slopes, tableau, scratch)
            score[v] = sign * value if value >= 0.0 else _REJECTED
            priced += 1
    return sign * own_value(u, tableau, scratch), priced


@njit(**INNER)
def draw(score: FloatArray, stay: float, temperature: float, uniform: float) -> int:
    """A unit drawn with probability proportional to exp(score / temperature), or -1 for leaving things as they are."""
    best = stay
    for v in range(score.size):
        best = max(best, score[v])
    total = np.exp((stay - best) / temperature)
    for v in range(score.size):
        if score[v] > best - 30.0 * temperature:
            total += np.exp((score[v] - best) / temperature)
    target = uniform * total
    for v in range(score.size):
        if score[v] > best - 30.0 * temperature:
            target -= np.exp((score[v] - best) / temperature)
            if target < 0.0:
                return v
    return -1
