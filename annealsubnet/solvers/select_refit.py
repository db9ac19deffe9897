"""Which inputs stay, when those that stay are refitted: best-subset regression, annealed by exchanges on the exact error.

A neuron z = a.w reads inputs a with second moment H = E[a a']. Keeping only the inputs S and refitting their weights costs

    e(S) = min_v E (z - a_S.v)^2 = t - b_S' (H_SS)^-1 b_S,      t = E z^2,  b = E[a z]  (= H w)

`select_inputs` minimizes it for every column b of `targets` by itself (the weights of the neurons of a layer); `select_units`
minimizes the sum over all columns for one common choice of units, which may be inputs or blocks of them (the neurons, channels
and heads that a layer reads). Neither energy is quadratic in the choice, yet an exchange of a kept for an unkept input is exact
in a handful of operations.

When more than half stays, the set that goes is the smaller one, and with M = H^-1 and w = M b its cost has the same form,
w_R' (M_RR)^-1 w_R: the same kernels then work on the complement.
"""

import time
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike

from annealsubnet.arguments import check_whole
from annealsubnet.solvers.select_refit_anneal import curve_columns, eliminate_columns, solve_columns
from annealsubnet.solvers.select_refit_kernels import State, new_state, set_members
from annealsubnet.solvers.select_refit_problem import (
    BoolArray,
    Effort,
    FloatArray,
    IntArray,
    Regression,
    Selection,
    checked,
    complement,
    refit,
    schedule_of,
    seeds_of,
    to_regression,
)
from annealsubnet.solvers.select_refit_units import select_units, unit_curve
from annealsubnet.solvers.splitting import alternate, largest_in_groups
from annealsubnet.solvers.threads import in_threads

_MANY, _SHARE = 48, 0.2
"""Inputs that stay, or go, and their share of all, from which on splitting is the better start, and no slower than growth."""

__all__ = ["Effort", "ErrorCurves", "Selection", "error_curves", "select_inputs", "select_units", "unit_curve"]


@dataclass(frozen=True)
class ErrorCurves:
    """Errors of nested supports of every size.

    Attributes:
        error: `[k, column]` error after the refit on the first k inputs of `order`, k = 0, 1, ...; it includes the ridge.
        order: `[rank, column]` inputs, the most valuable first: `order[:k, n]` is the support of size k.
    """

    error: FloatArray
    order: IntArray


@dataclass(frozen=True)
class _Schedule:
    """How to anneal: the groups of consecutive inputs, how many stay in each, reads, and temperatures (none: descent only)."""

    group_size: int
    per_group: int
    num_reads: int
    temperatures: FloatArray


def select_inputs(
    gram: ArrayLike,
    targets: ArrayLike,
    target_energy: ArrayLike,
    num_kept: int | ArrayLike | None = None,
    *,
    seed: int,
    num_reads: int = 1,
    num_sweeps: int = 25,
    temperature: Literal["annealed", "zero", "greedy"] = "annealed",
    pattern: str | None = None,
    ridge: float = 1e-6,
    start: Literal["auto", "forward", "backward", "splitting"] | BoolArray = "auto",
    num_threads: int | None = None,
) -> Selection:
    """For every column of `targets` by itself, the inputs that predict it best, with their least-squares weights.

    Args:
        gram: `[input, input]` second moment H of the inputs; may be singular.
        targets: `[input, column]` (or `[input]`) moments b of inputs and targets.
        target_energy: `[column]` second moments t of the targets.
        num_kept: how many inputs stay, exactly: one number, or one for each column. None with a `pattern`.
        seed: same seed, same answer, whatever the number of threads.
        num_reads: annealings of each column, each from the first local optimum; the best is returned.
        num_sweeps: in a read; each reheats a quarter of the members, descends again, and keeps or discards what it found.
        temperature: "zero" makes only exchanges that help, until none does; "greedy" makes none: the start is the answer.
        pattern: "N:M" keeps N of every M consecutive inputs.
        ridge: added to H's diagonal, in units of its mean diagonal; the error includes it.
        start: "forward" selection, "backward" elimination, "splitting" (ADMM; see `annealsubnet.solvers.splitting`), a support
            `[input, column]`, or "auto": splitting where many inputs stay and many go, else the way with fewer steps.
        num_threads: columns solved at once; by default one for each processor.

    Returns:
        Selection: its error is never above its start's.

    Raises:
        ValueError: shapes disagree, entries are not finite, or `num_kept`, `pattern` or `start` cannot be met.

    Example:
        >>> inputs = np.random.default_rng(0).normal(size=(500, 8))
        >>> z = inputs[:, 2] - 2 * inputs[:, 5]
        >>> found = select_inputs(inputs.T @ inputs / 500, inputs.T @ z / 500, z @ z / 500, 2, seed=0)
        >>> np.flatnonzero(found.kept[:, 0]).tolist()
        [2, 5]

    References:
        Miller, Subset Selection in Regression, 2002, section 3 (exchanges); Chen, Billings and Luo, 1989 (forward selection by
        orthogonal least squares); Frantar and Alistarh, Optimal Brain Compression, 2022, equation 4 (backward elimination).
    """
    began = time.perf_counter()
    h, b, t = checked(gram, targets, target_energy)
    inputs, count = b.shape
    group_size, per_group = _parse_pattern(pattern, inputs)
    sizes = _sizes(num_kept, pattern, inputs, count, per_group)
    is_greedy = temperature == "greedy"
    schedule = _Schedule(
        group_size, per_group, num_reads, schedule_of("zero" if is_greedy else temperature, num_sweeps, num_reads)
    )
    regression = to_regression(h, b, ridge)
    starts = _starts(regression, start, sizes, schedule, num_threads, own=is_greedy)
    kept = np.zeros((count, inputs), np.bool_)
    counters = np.zeros((count, 3), np.int64)
    stays = _smaller_side(sizes, inputs, schedule)
    if is_greedy:
        assert starts is not None
        kept = starts
    for side in (True, False):
        chosen = np.flatnonzero(stays == side)
        if chosen.size and not is_greedy:
            given = None if starts is None else starts[chosen]
            kept[chosen], counters[chosen] = _solve_side(
                regression, side, chosen, sizes[chosen], given, schedule, seeds_of(seed, count)[chosen], num_threads
            )
    coefficients, error = _refit_each(regression, kept, t, num_threads)
    evaluated, exchanges, recomputed = (int(n) for n in counters.sum(axis=0))
    effort = Effort(evaluated, exchanges, recomputed, time.perf_counter() - began)
    return Selection(np.ascontiguousarray(kept.T), coefficients, error, effort)


def _solve_side(
    regression: Regression,
    stays: bool,
    chosen: IntArray,
    sizes: IntArray,
    starts: BoolArray | None,
    schedule: _Schedule,
    seeds: np.ndarray,
    num_threads: int | None,
) -> tuple[BoolArray, IntArray]:
    """Supports of the columns `chosen`, found over the set that stays or over the set that goes; and the kernels' counters."""
    side = regression if stays else complement(regression)
    inputs = side.gram.shape[0]
    columns = side.columns[chosen]
    active = sizes if stays else inputs - sizes
    cap = schedule.per_group if stays else schedule.group_size - schedule.per_group
    sign = 1.0 if stays else -1.0
    members = None if starts is None else [np.flatnonzero(start == stays) for start in starts]
    marked, counters = np.zeros((chosen.size, inputs), np.bool_), np.zeros((chosen.size, 3), np.int64)

    def solve(part: slice, state: State) -> None:
        solve_columns(
            side.gram, columns[part], active[part], sign, schedule.group_size, cap, members is not None,
            seeds[part], schedule.num_reads, schedule.temperatures, state, marked[part], counters[part],
        )  # fmt: skip

    def run(lo: int, hi: int) -> None:
        state = new_state(max(1, int(active[lo:hi].max())), inputs)
        if members is None:
            solve(slice(lo, hi), state)
            return
        for n in range(lo, hi):
            set_members(side.gram, columns[n], members[n], state)
            solve(slice(n, n + 1), state)

    in_threads(run, chosen.size, num_threads)
    return (marked if stays else ~marked), counters


def error_curves(
    gram: ArrayLike,
    targets: ArrayLike,
    target_energy: ArrayLike,
    *,
    method: Literal["forward", "backward"],
    max_kept: int | None = None,
    ridge: float = 1e-6,
    num_threads: int | None = None,
) -> ErrorCurves:
    """The error of every number of kept inputs, for every column of `targets`, along one greedy path.

    Args:
        gram: as in `select_inputs`.
        targets: as in `select_inputs`.
        target_energy: as in `select_inputs`.
        method: "forward" selection (orthogonal least squares), cheap for few kept inputs, or "backward" elimination (OBC).
        max_kept: the largest number wanted; all by default. Forward selection stops there.
        ridge: as in `select_inputs`.
        num_threads: columns at once; by default one for each processor.

    Returns:
        ErrorCurves: for k = 0, ..., max_kept.

    Raises:
        ValueError: shapes disagree or entries are not finite, the method is unknown, or `max_kept` is negative.

    Example:
        >>> curves = error_curves(np.eye(3), np.array([[1.0], [3.0], [2.0]]), 14.0, method="backward", ridge=0.0)
        >>> curves.error[:, 0].round(6).tolist(), curves.order[:, 0].tolist()
        ([14.0, 5.0, 1.0, 0.0], [1, 2, 0])
    """
    if method not in ("forward", "backward"):
        raise ValueError(f'method is {method!r}; choose "forward" or "backward".')
    h, b, t = checked(gram, targets, target_energy)
    inputs = b.shape[0]
    last = inputs if max_kept is None else min(check_whole("max_kept", max_kept, 0), inputs)
    regression = to_regression(h, b, ridge)
    if method == "forward":
        order, explained = _forward_order(regression, last, inputs, last, num_threads)
        error = t[:, None] - explained[:, : last + 1]
    else:
        goes = complement(regression)
        order, costs = _backward_order(goes, num_threads)
        whole = np.einsum("ni,ni->n", goes.columns / goes.scale, regression.columns)
        error = (t - whole)[:, None] + costs[:, : last + 1]
        error[:, 0] = t
    error = np.minimum.accumulate(np.maximum(error, 0.0), axis=1)
    return ErrorCurves(np.ascontiguousarray(error.T), np.ascontiguousarray(order[:, :last].T))


def _forward_order(
    regression: Regression, size: int, group_size: int, cap: int, num_threads: int | None, sign: float = 1.0
) -> tuple[IntArray, FloatArray]:
    """Greedy growth of every column to `size` members: the order in which they enter, and F after each."""
    count, inputs = regression.columns.shape
    order, values = np.zeros((count, inputs), np.int64), np.zeros((count, inputs + 1))

    def run(lo: int, hi: int) -> None:
        part = slice(lo, hi)
        state = new_state(size, inputs)
        curve_columns(regression.gram, regression.columns[part], size, sign, group_size, cap, state, order[part], values[part])

    in_threads(run, count, num_threads)
    return order, values


def _backward_order(goes: Regression, num_threads: int | None) -> tuple[IntArray, FloatArray]:
    """Backward elimination of every column: inputs, the last removed first, and what removing all but k of them costs."""
    count, inputs = goes.columns.shape
    order, costs = np.zeros((count, inputs), np.int64), np.zeros((count, inputs + 1))

    def run(lo: int, hi: int) -> None:
        eliminate_columns(goes.gram, goes.columns[lo:hi], order[lo:hi], costs[lo:hi])

    in_threads(run, count, num_threads)
    return order, costs


def _smaller_side(sizes: IntArray, inputs: int, schedule: _Schedule) -> BoolArray:
    """Where the set that stays is no larger than the set that goes."""
    return 2 * sizes <= inputs


def _starts(
    regression: Regression,
    start: Literal["auto", "forward", "backward", "splitting"] | BoolArray,
    sizes: IntArray,
    schedule: _Schedule,
    num_threads: int | None,
    *,
    own: bool,
) -> BoolArray | None:
    """`[column, input]` supports to start from; None where the kernels grow their own, unless `own` forbids that."""
    count, inputs = regression.columns.shape
    if not isinstance(start, str):
        return _checked_start(np.asarray(start), sizes, schedule, inputs)
    if start not in ("auto", "forward", "backward", "splitting"):
        known = '"auto", "forward", "backward", "splitting" or a boolean array [input, column]'
        raise ValueError(f"start is {start!r}; choose {known}.")
    if start == "auto" and not own and np.minimum(sizes, inputs - sizes).mean() >= max(_MANY, _SHARE * inputs):
        start = "splitting"
    if start == "splitting":
        per_group = sizes if schedule.group_size == inputs else np.full(count, schedule.per_group)
        project = largest_in_groups(per_group, schedule.group_size)
        return np.ascontiguousarray(alternate(regression.gram, regression.columns.T, project)[0].T)
    native = _smaller_side(sizes, inputs, schedule)
    if own and start == "auto":
        start = "forward" if native.all() else "backward"
    if not own and (start == "auto" or (native.all() if start == "forward" else not native.any())):
        return None
    group_size, cap = schedule.group_size, schedule.per_group
    if start == "forward":
        cap = cap if group_size < inputs else inputs
        order, _ = _forward_order(regression, int(sizes.max()), group_size, cap, num_threads)
    elif group_size < inputs:
        goes, size = complement(regression), inputs - int(sizes[0])
        order, _ = _forward_order(goes, size, group_size, group_size - cap, num_threads, sign=-1.0)
        starts = np.ones((count, inputs), np.bool_)
        np.put_along_axis(starts, order[:, :size], False, axis=1)
        return starts
    else:
        order, _ = _backward_order(complement(regression), num_threads)
    starts = np.zeros((count, inputs), np.bool_)
    for n in range(count):
        starts[n, order[n, : sizes[n]]] = True
    return starts


def _checked_start(start: np.ndarray, sizes: IntArray, schedule: _Schedule, inputs: int) -> BoolArray:
    """A given support as `[column, input]`."""
    start = start[:, None] if start.ndim == 1 else start
    if start.dtype != np.bool_ or start.shape != (inputs, sizes.size):
        raise ValueError(f"start is {start.dtype} {start.shape}; give bool {(inputs, sizes.size)}, True where it stays.")
    wrong = np.flatnonzero(start.sum(axis=0) != sizes)
    if wrong.size:
        n = wrong[0]
        raise ValueError(f"start keeps {start[:, n].sum()} inputs of column {n}, not {sizes[n]}; give as many as num_kept.")
    if schedule.group_size < inputs:
        groups = start.reshape(-1, schedule.group_size, sizes.size).sum(axis=1)
        if (groups != schedule.per_group).any():
            raise ValueError(f"start does not keep {schedule.per_group} of every {schedule.group_size} inputs.")
    return np.ascontiguousarray(start.T)


def _refit_each(
    regression: Regression, kept: BoolArray, energy: FloatArray, num_threads: int | None
) -> tuple[FloatArray, FloatArray]:
    """Coefficients `[input, column]` and errors of every column on its own support."""
    weights, error = np.zeros(kept.shape), np.zeros(kept.shape[0])

    def run(lo: int, hi: int) -> None:
        for n in range(lo, hi):
            weights[n] = refit(regression, kept[n], regression.columns[n : n + 1])[0]
            error[n] = max(energy[n] - weights[n] @ regression.columns[n], 0.0)

    in_threads(run, kept.shape[0], num_threads)
    return np.ascontiguousarray((weights * regression.scale).T), error


def _parse_pattern(pattern: str | None, inputs: int) -> tuple[int, int]:
    """Group size and how many stay in each; without a pattern one group of all inputs."""
    if pattern is None:
        return inputs, inputs
    parts = pattern.split(":")
    if len(parts) != 2 or not all(p.isdecimal() for p in parts) or not 0 < int(parts[0]) <= int(parts[1]):
        raise ValueError(f'pattern is {pattern!r}; give "N:M" with 0 < N <= M, as in "2:4".')
    stay, size = int(parts[0]), int(parts[1])
    if inputs % size:
        raise ValueError(f"pattern {pattern!r} does not divide {inputs} inputs; pad the inputs or choose another pattern.")
    return size, stay


def _sizes(num_kept: int | ArrayLike | None, pattern: str | None, inputs: int, count: int, per_group: int) -> IntArray:
    """How many inputs of each column stay."""
    if pattern is not None:
        if num_kept is not None:
            raise ValueError(f"both num_kept and pattern {pattern!r} are given; the pattern says how many stay.")
        group_size = int(pattern.split(":")[1])
        return np.full(count, per_group * (inputs // group_size))
    if num_kept is None:
        raise ValueError("neither num_kept nor pattern is given; give one of them.")
    sizes = np.asarray(num_kept)
    if sizes.dtype.kind not in "iu" or sizes.shape not in ((), (count,)):
        raise ValueError(f"num_kept is {sizes.dtype} {sizes.shape}; give an integer, or one for each of {count} columns.")
    if (sizes < 0).any() or (sizes > inputs).any():
        raise ValueError(f"num_kept is between {sizes.min()} and {sizes.max()}; there are {inputs} inputs.")
    return np.broadcast_to(sizes, (count,)).astype(np.int64)
