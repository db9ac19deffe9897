"""Compiled kernels of best-subset regression for one right-hand side: greedy growth, exchanges, backward elimination.

They maximize (`sign` = 1) or minimize (`sign` = -1) over active sets A of a given size the form

    F(A) = c_A' (G_AA)^-1 c_A

With G = H, c = b and sign 1, A is the set that stays and the error is t - F. With G = H^-1, c = H^-1 b and sign -1, A is the
set that goes, and F is what going costs, exactly. The caller picks the smaller of the two sets.

The state of an active set of size q is P = (G_AA)^-1, U = P G_A: (q x d), v = P c_A, the residual r = c - G_:A v, and the
Schur diagonal s_j = G_jj - G_jA U_j (1 on A, where r is 0 and U the identity). Without member a the last two are

    r'_j = r_j + U_aj v_a / P_aa,     s'_j = s_j + U_aj^2 / P_aa

so that F gains r'_j^2 / s'_j - v_a^2 / P_aa when j takes its place: a handful of operations a proposal, and only an exchange
that is made costs O(q d). A *visit* to member a evaluates all of its replacements in one vectorized pass and draws one of them,
or none, from their Boltzmann distribution (heat bath); at temperature zero it takes the best. G has a unit diagonal.
"""

from typing import Any, NamedTuple

import numpy as np
from numba import njit

from annealsubnet.solvers.couplings import INNER, OPTIONS
from annealsubnet.solvers.select_refit_problem import FloatArray, IntArray, UintArray

# Neither "reassoc" nor "contract": a caller's own copy of an inner kernel and the kernel compiled by itself would round
# differently, and which of them runs depends on whether the code was compiled in this process or comes from the cache.
MATH = {"nsz", "nnan"}
BARRED = -1e300
FLOOR = 1e-11  # a Schur diagonal below this (of 1) is a linear combination of the others up to rounding


class State(NamedTuple):
    """Everything known about an active set; rows beyond its size are free.

    Attributes:
        active: `[slot]` the input in it.
        inverse: P, `[slot, slot]`.
        rows: U, `[slot, input]`.
        weights: v, `[slot]`.
        residual: r, `[input]`; 0 for members.
        schur: s, `[input]`; 1 for members.
        barred: `[input]` 0, or a huge negative number for members (and full groups).
        score: scratch, `[input]`.
        pivot: scratch, `[input]`.
        shortlist: scratch, `[input]`.
    """

    active: IntArray
    inverse: FloatArray
    rows: FloatArray
    weights: FloatArray
    residual: FloatArray
    schur: FloatArray
    barred: FloatArray
    score: FloatArray
    pivot: FloatArray
    shortlist: IntArray


@njit(cache=True, nogil=True, inline="always")
def next_uniform(counter: UintArray) -> float:
    """Splitmix64: the next number in [0, 1) of the stream whose one-word state is `counter`."""
    counter[0] += np.uint64(0x9E3779B97F4A7C15)
    z = counter[0]
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return float((z ^ (z >> np.uint64(31))) >> np.uint64(11)) * (1.0 / 9007199254740992.0)


@njit(**INNER)
def copy_floats(target: FloatArray, source: FloatArray) -> None:
    """target[:] = source, by a loop: numba takes seconds to compile each slice assignment."""
    for i in range(target.size):
        target[i] = source[i]


@njit(**INNER)
def copy_integers(target: IntArray, source: IntArray, count: int) -> None:
    """target[:count] = source[:count]."""
    for i in range(count):
        target[i] = source[i]


@njit(**INNER)
def fill(target: FloatArray, value: float) -> None:
    """target[:] = value."""
    for i in range(target.size):
        target[i] = value


@njit(**INNER)
def median_of(values: FloatArray, count: int) -> float:
    """Upper median of `values[:count]`, which are sorted on the way (by insertion: a few hundred at most matter)."""
    for i in range(1, count):
        value, j = values[i], i
        while j > 0 and values[j - 1] > value:
            values[j] = values[j - 1]
            j -= 1
        values[j] = value
    return values[count // 2]


def new_state(size: int, inputs: int) -> State:
    """An unset `State` with room for `size` members of `inputs`; made in Python, for numba takes long over allocations."""
    return State(
        np.zeros(size, np.int64),
        np.zeros((size, size)),
        np.zeros((size, inputs)),
        np.zeros(size),
        np.zeros(inputs),
        np.ones(inputs),
        np.zeros(inputs),
        np.zeros(inputs),
        np.zeros(inputs),
        np.zeros(inputs, np.int64),
    )


@njit(**INNER)
def clear(c: FloatArray, state: State) -> None:
    """The empty active set."""
    copy_floats(state.residual, c)
    fill(state.schur, 1.0)
    fill(state.barred, 0.0)


@njit(**INNER, fastmath=MATH)
def _pivot_row(gram: FloatArray, j: int, q: int, state: State) -> None:
    """Row j of the Schur complement, G_j: - G_jA U, into `state.pivot`."""
    pivot = state.pivot
    copy_floats(pivot, gram[j])
    active, rows, source = state.active, state.rows, gram[j]
    b = 0
    while b + 4 <= q:  # four rows at a time: half the traffic of `pivot`
        f0, f1, f2, f3 = source[active[b]], source[active[b + 1]], source[active[b + 2]], source[active[b + 3]]
        r0, r1, r2, r3 = rows[b], rows[b + 1], rows[b + 2], rows[b + 3]
        for i in range(pivot.size):
            pivot[i] -= (f0 * r0[i] + f1 * r1[i]) + (f2 * r2[i] + f3 * r3[i])
        b += 4
    while b < q:
        f0, r0 = source[active[b]], rows[b]
        for i in range(pivot.size):
            pivot[i] -= f0 * r0[i]
        b += 1


@njit(**INNER, fastmath=MATH)
def append(gram: FloatArray, j: int, q: int, state: State) -> None:
    """Add input j to an active set of size q."""
    _pivot_row(gram, j, q, state)
    pivot, rows, inverse = state.pivot, state.rows, state.inverse
    for b in range(q):
        pivot[state.active[b]] = 0.0
    schur = max(pivot[j], FLOOR)
    inverse_schur = 1.0 / schur
    weight = state.residual[j] * inverse_schur
    inverse[q, q] = inverse_schur
    for b in range(q):
        inverse[b, q] = -rows[b, j] * inverse_schur
    for b in range(q):
        factor = rows[b, j] * inverse_schur
        row = rows[b]
        for i in range(pivot.size):
            row[i] -= factor * pivot[i]
        row[j] = 0.0
        state.weights[b] += inverse[b, q] * state.residual[j]
        for e in range(q):
            inverse[b, e] += inverse[b, q] * inverse[e, q] * schur
        inverse[q, b] = inverse[b, q]
    row = rows[q]
    for i in range(pivot.size):
        row[i] = pivot[i] * inverse_schur
        state.residual[i] -= pivot[i] * weight
        state.schur[i] -= pivot[i] * row[i]
    _enter(j, q, weight, state)


@njit(cache=True, nogil=True, inline="always")
def _enter(j: int, slot: int, weight: float, state: State) -> None:
    """Write down that input j is in `slot`."""
    state.rows[slot, j] = 1.0
    state.residual[j] = 0.0
    state.schur[j] = 1.0
    state.barred[j] = BARRED
    state.weights[slot] = weight
    state.active[slot] = j


@njit(**INNER, fastmath=MATH)
def exchange(gram: FloatArray, a: int, j: int, q: int, state: State) -> None:
    """Replace the member in slot a by input j: removal and addition in two passes over U."""
    leaving = state.active[a]
    rows, inverse, pivot = state.rows, state.inverse, state.pivot
    inverse_paa, out_weight, cross = 1.0 / inverse[a, a], state.weights[a], rows[a, j]
    _pivot_row(gram, j, q, state)
    gone, removed, added = np.empty(pivot.size), np.empty(q), np.empty(q)
    copy_floats(gone, rows[a])
    for b in range(q):
        removed[b] = inverse[a, b]
    for i in range(pivot.size):  # back to what they are without a
        pivot[i] += cross * inverse_paa * gone[i]
        state.residual[i] += out_weight * inverse_paa * gone[i]
        state.schur[i] += inverse_paa * gone[i] * gone[i]
    for b in range(q):
        pivot[state.active[b]] = 0.0
    pivot[leaving] = cross * inverse_paa
    state.residual[leaving] = out_weight * inverse_paa
    state.schur[leaving] = inverse_paa
    inverse_schur = 1.0 / max(pivot[j], FLOOR)
    weight = state.residual[j] * inverse_schur
    for b in range(q):
        if b == a:
            continue
        back = removed[b] * inverse_paa
        factor = (rows[b, j] - back * cross) * inverse_schur
        row = rows[b]
        for i in range(pivot.size):
            row[i] -= back * gone[i] + factor * pivot[i]
        row[j] = 0.0
        state.weights[b] -= back * out_weight + factor * state.residual[j]
        added[b] = -factor
    added[a] = inverse_schur
    for b in range(q):
        back, factor = removed[b] * inverse_paa, added[b] / inverse_schur
        for e in range(q):
            inverse[b, e] += factor * added[e] - back * removed[e]
    for b in range(q):
        inverse[a, b] = added[b]
        inverse[b, a] = added[b]
    row = rows[a]
    for i in range(pivot.size):
        row[i] = pivot[i] * inverse_schur
        state.residual[i] -= pivot[i] * weight
        state.schur[i] -= pivot[i] * row[i]
    state.barred[leaving] = 0.0
    _enter(j, a, weight, state)


@njit(**OPTIONS)
def rebuild(gram: FloatArray, c: FloatArray, q: int, state: State) -> None:
    """Recompute the state of the members in `state.active[:q]` from nothing, one after the other."""
    active = np.empty(q, np.int64)
    copy_integers(active, state.active, q)
    clear(c, state)
    for b in range(q):
        append(gram, active[b], b, state)


def set_members(gram: FloatArray, c: FloatArray, members: IntArray, state: State) -> None:
    """Make `members` the active set, by one inverse and one product in Python; by `rebuild` where they are nearly dependent."""
    q, rows = members.size, gram[members]
    state.active[:q] = members
    try:
        inverse = np.linalg.inv(rows[:, members])
    except np.linalg.LinAlgError:
        inverse = np.zeros((q, q))
    diagonal = np.diag(inverse)
    if not ((diagonal > 0.0) & (diagonal < 1e-2 / FLOOR)).all():
        rebuild(gram, c, q, state)
        return
    inverse = 0.5 * (inverse + inverse.T)
    solved = inverse @ rows
    weights = inverse @ c[members]
    state.residual[:] = c - weights @ rows
    state.schur[:] = 1.0 - np.einsum("bi,bi->i", rows, solved)
    solved[:, members] = np.eye(q)
    state.inverse[:q, :q], state.rows[:q], state.weights[:q] = inverse, solved, weights
    state.residual[members], state.schur[members] = 0.0, 1.0
    state.barred[:] = 0.0
    state.barred[members] = BARRED


@njit(**INNER, fastmath=MATH)
def drift(gram: FloatArray, c: FloatArray, q: int, state: State) -> float:
    """Largest difference between the residual and c - G_:A v, relative to the largest |c|."""
    fresh = np.empty(c.size)
    copy_floats(fresh, c)
    for b in range(q):
        row, weight = gram[state.active[b]], state.weights[b]
        for i in range(fresh.size):
            fresh[i] -= weight * row[i]
    worst, scale = 0.0, 1e-300
    for i in range(fresh.size):
        worst = max(worst, abs(fresh[i] - state.residual[i]))
        scale = max(scale, abs(c[i]))
    return worst / scale


@njit(**INNER, fastmath=MATH)
def grow(
    gram: FloatArray, c: FloatArray, size: int, sign: float, group_size: int, group_cap: int, state: State, curve: FloatArray
) -> None:
    """Greedy growth to `size` members; `curve[q]` is F with q members.

    Sign 1 on H is forward selection (orthogonal least squares); sign -1 on H^-1 is backward elimination (OBC).
    """
    clear(c, state)
    counts = np.zeros(c.size // group_size + 1, np.int64)
    curve[0] = 0.0
    for q in range(size):
        chosen: Any = np.int64(-1)  # a literal would compile `append` a second time
        best = 2 * BARRED
        for j in range(c.size):
            usable = state.schur[j] > FLOOR
            score = sign * state.residual[j] * state.residual[j] / state.schur[j] if usable else 0.1 * BARRED
            score += state.barred[j]
            if score > best:
                chosen, best = j, score
        curve[q + 1] = curve[q] + (state.residual[chosen] ** 2 / state.schur[chosen] if best > 0.01 * BARRED else 0.0)
        append(gram, chosen, q, state)
        group = chosen // group_size
        counts[group] += 1
        if counts[group] == group_cap:
            for j in range(group * group_size, min((group + 1) * group_size, c.size)):
                state.barred[j] = BARRED
    fill(state.barred, 0.0)  # from here on only members are barred, not the rest of a full group
    for b in range(size):
        state.barred[state.active[b]] = BARRED
