"""Which units stay, neurons, channels or heads, when the layer that reads them is refitted (see `select_refit`)."""

import time
from typing import Literal

import numpy as np
import scipy.linalg
from numpy.typing import ArrayLike

from annealsubnet.solvers.select_refit_blocks import Tableau, own_values, pivot, price
from annealsubnet.solvers.select_refit_problem import (
    BoolArray,
    Effort,
    FloatArray,
    IntArray,
    Regression,
    Selection,
    checked,
    inverse_of,
    refit,
    schedule_of,
    seeds_of,
    to_regression,
)
from annealsubnet.solvers.select_refit_units_anneal import walk
from annealsubnet.solvers.threads import in_threads

_TIE = 1e-11  # of the explained part: an improvement smaller than this is rounding


def select_units(
    gram: ArrayLike,
    targets: ArrayLike,
    target_energy: ArrayLike,
    num_kept: int,
    *,
    seed: int,
    unit_of_input: ArrayLike | None = None,
    num_reads: int = 1,
    num_sweeps: int = 50,
    temperature: Literal["annealed", "zero"] = "annealed",
    ridge: float = 1e-6,
    start: Literal["auto", "forward", "backward"] | BoolArray = "auto",
    num_candidates: int = 32,
    num_threads: int | None = None,
) -> Selection:
    """The units whose inputs together predict all columns of `targets` best, with their least-squares weights.

    Args:
        gram: `[input, input]` second moment H of the inputs; may be singular.
        targets: `[input, column]` moments of inputs and targets.
        target_energy: `[column]` second moments of the targets.
        num_kept: how many units stay, exactly.
        seed: same seed, same answer, whatever the number of threads.
        unit_of_input: `[input]` the unit (0, 1, ...) that each input belongs to, or -1 where it is no unit's and always stays;
            by default each input is a unit.
        num_reads: annealings, each from the first local optimum; the best is returned.
        num_sweeps: visits to each kept (or unkept, if fewer) unit in a read.
        temperature: "zero" makes only exchanges that help, until none does.
        ridge: added to H's diagonal, in units of its mean diagonal; the error includes it.
        start: "forward" selection, "backward" elimination, "auto" (the better of both) or `[unit]` booleans.
        num_candidates: exchanges priced in a visit, where units have several inputs and there are more (the best by their own
            worth and by their coupling).
        num_threads: reads at once; by default one for each processor.

    Returns:
        Selection: `kept` by unit; its error is never above its start's.

    Raises:
        ValueError: shapes disagree, entries are not finite, or `num_kept`, `unit_of_input` or `start` cannot be met.

    Example:
        >>> inputs = np.random.default_rng(0).normal(size=(500, 6))
        >>> z = inputs[:, 2:4] @ np.array([[1.0, 2.0], [0.5, -1.0]])
        >>> found = select_units(
        ...     inputs.T @ inputs, inputs.T @ z, (z * z).sum(0), 1, seed=0, unit_of_input=[0, 0, 1, 1, 2, 2]
        ... )
        >>> found.kept.tolist()
        [False, True, False]

    References:
        Meng and others, OSSCAR: One-Shot Structured Pruning with Combinatorial Optimization, 2024, equation 5.
    """
    began = time.perf_counter()
    h, b, t = checked(gram, targets, target_energy)
    units = _checked_units(unit_of_input, b.shape[0])
    count = int(units.max()) + 1
    if not isinstance(num_kept, int | np.integer) or not 0 <= num_kept <= count:
        raise ValueError(f"num_kept is {num_kept!r}; give a whole number of at most {count} units.")
    temperatures = schedule_of(temperature, num_sweeps, num_reads)
    regression = to_regression(h, b, ridge)
    kept, counters = np.zeros(count, np.bool_), np.zeros((num_reads + 1, 3), np.int64)
    if num_kept in (0, count):
        kept[:] = num_kept == count
    elif count:
        base = _base(regression, units)
        limit = max(2, num_candidates)
        kept = _solve(base, int(num_kept), start, seed, num_reads, temperatures, limit, counters, num_threads)
    stays = np.where(units < 0, True, kept[units] if count else True)
    weights = refit(regression, stays, regression.columns)
    error = np.maximum(t - np.einsum("ni,ni->n", weights, regression.columns), 0.0)
    coefficients = np.ascontiguousarray((weights * regression.scale).T)
    evaluated, exchanges, recomputed = (int(n) for n in counters.sum(axis=0))
    effort = Effort(evaluated, exchanges, recomputed, time.perf_counter() - began)
    return Selection(kept, coefficients, error, effort)


def unit_curve(
    gram: ArrayLike,
    targets: ArrayLike,
    target_energy: ArrayLike,
    *,
    unit_of_input: ArrayLike | None = None,
    ridge: float = 1e-6,
) -> FloatArray:
    """The error that nested choices of 0, 1, ... units leave: at every size the better of greedy growth and elimination.

    Args:
        gram, targets, target_energy, unit_of_input, ridge: as for `select_units`.

    Returns:
        `[units + 1]` sums over the columns, never rising.

    Raises:
        ValueError: shapes disagree or entries are not finite.

    Example:
        >>> unit_curve(np.eye(3), np.array([[1.0], [3.0], [2.0]]), np.array([14.0]), ridge=0.0).round(9).tolist()
        [14.0, 5.0, 1.0, 0.0]
    """
    h, b, t = checked(gram, targets, target_energy)
    units = _checked_units(unit_of_input, b.shape[0])
    regression = to_regression(h, b, ridge)
    base = _base(regression, units)
    count = base.inside.size

    def error(stays: BoolArray) -> float:
        weights = refit(regression, stays, regression.columns)
        return float(t.sum() - np.sum(weights * regression.columns))

    grown = _take_greedily(_swept(base, base.inside), count, adds=True)
    curve = error(units < 0) + np.concatenate([[0.0], np.cumsum(grown)])
    if _is_definite(base):
        removed = _take_greedily(_swept(base, ~base.inside), count, adds=False)
        whole = error(np.ones(units.size, np.bool_))
        curve = np.minimum(curve, whole + np.concatenate([[0.0], np.cumsum(removed)])[::-1])
    return np.minimum.accumulate(np.maximum(curve, 0.0))


def _checked_units(unit_of_input: ArrayLike | None, inputs: int) -> IntArray:
    """Unit of each input, -1 where it always stays."""
    if unit_of_input is None:
        return np.arange(inputs)
    units = np.asarray(unit_of_input)
    if units.shape != (inputs,) or units.dtype.kind not in "iu":
        raise ValueError(f"unit_of_input is {units.dtype} {units.shape}; give an integer for each of {inputs} inputs.")
    units = units.astype(np.int64)
    if units.min() < -1:
        raise ValueError(f"unit_of_input has {units.min()}; give units from 0, or -1 for an input that always stays.")
    absent = np.setdiff1d(np.arange(units.max() + 1), units)
    if absent.size:
        raise ValueError(f"unit_of_input gives no input to units {absent[:5].tolist()}; number the units without gaps.")
    return units


def _base(regression: Regression, units: IntArray) -> Tableau:
    """The tableau that keeps no unit: inputs sorted by unit, the inputs that always stay regressed out."""
    order = np.argsort(units, kind="stable")
    fixed = order[: int((units < 0).sum())]
    order = order[fixed.size :]
    gram, right = regression.gram[np.ix_(order, order)], np.ascontiguousarray(regression.columns[:, order].T)
    if fixed.size:
        cross = regression.gram[np.ix_(order, fixed)]
        slopes = cross @ inverse_of(regression.gram[np.ix_(fixed, fixed)])
        gram = gram - slopes @ cross.T
        right -= slopes @ regression.columns[:, fixed].T
    offsets = np.concatenate([[0], np.cumsum(np.bincount(units[order]))]).astype(np.int64)
    inside = np.zeros(offsets.size - 1, np.bool_)
    gram = np.ascontiguousarray(gram)
    if inside.size == order.size:
        outer = scipy.linalg.blas.dsyrk(1.0, right, lower=0)
        outer = np.triu(outer) + np.triu(outer, 1).T
        return Tableau(gram, np.ascontiguousarray(outer), np.zeros((order.size, 0)), offsets, inside)
    if right.shape[1] > right.shape[0]:  # only W = Y Y' matters
        right = scipy.linalg.qr(right.T, mode="economic")[1].T
    return Tableau(gram, np.zeros((0, 0)), np.ascontiguousarray(right), offsets, inside)


def _swept(base: Tableau, inside: BoolArray) -> Tableau:
    """The tableau that keeps the units of `inside`, from `base`, which keeps none."""
    stays = np.repeat(inside, np.diff(base.offsets))
    if not stays.any():
        return _copy(base)
    inverse = inverse_of(base.swept[np.ix_(stays, stays)])
    slopes = inverse @ base.swept[stays]
    swept = base.swept - base.swept[:, stays] @ slopes
    swept[stays] = slopes
    swept[:, stays] = slopes.T
    swept[np.ix_(stays, stays)] = -inverse
    basis = np.diag(np.where(stays, 0.0, 1.0))  # Y = basis B
    basis[:, stays] -= slopes.T
    basis[np.ix_(stays, stays)] = inverse
    outer = basis @ base.outer @ basis.T if base.outer.size else base.outer
    outer = np.ascontiguousarray(0.5 * (outer + outer.T))
    return Tableau(np.ascontiguousarray(swept), outer, basis @ base.right, base.offsets, inside.copy())


def _copy(tableau: Tableau) -> Tableau:
    """The same state, to be changed."""
    swept, outer, right, offsets, inside = tableau
    return Tableau(swept.copy(), outer.copy(), right.copy(), offsets, inside.copy())


def _scratch(tableau: Tableau) -> FloatArray:
    """Room for the block of one unit and its right-hand sides."""
    size = max(1, int(np.diff(tableau.offsets).max(initial=1)))
    return np.zeros((size, size + tableau.right.shape[1]))


def _take_greedily(tableau: Tableau, steps: int, *, adds: bool) -> FloatArray:
    """Add the unit worth most, or remove the one worth least, `steps` times: what each did to the error."""
    scratch, values, changes = _scratch(tableau), np.empty(tableau.inside.size), np.empty(steps)
    for n in range(steps):
        own_values(tableau, scratch, values)
        candidates = np.flatnonzero(tableau.inside != adds)
        worths = values[candidates]
        chosen = candidates[np.argmax(worths) if adds else np.argmin(worths)]
        pivot(np.array([chosen]), tableau)
        changes[n] = -values[chosen] if adds else values[chosen]
    return changes


def _descend(base: Tableau, limit: int, tolerance: float, tableau: Tableau, counters: IntArray) -> None:
    """Exchanges at temperature zero until no visit finds a better one."""
    found = np.empty(base.inside.size, np.bool_)
    walk(base, np.uint64(0), np.empty(0), limit, tolerance, _scratch(tableau), tableau, found, counters)


def _scale_of(limit: int, tableau: Tableau) -> float:
    """Median over the visited units of what their best exchange would cost, at a local optimum."""
    inside = tableau.inside
    scratch, score, worth, costs = _scratch(tableau), np.empty(inside.size), np.zeros(inside.size), []
    own_values(tableau, scratch, worth)
    for u in np.flatnonzero(inside == (2 * inside.sum() <= inside.size)):
        stay, _ = price(u, limit, tableau, worth, score, scratch)
        if stay - score.max() < 1e290:
            costs.append(max(stay - score.max(), 0.0))
    return sorted(costs)[len(costs) // 2] if costs else 0.0


def _start(
    base: Tableau,
    num_kept: int,
    start: Literal["auto", "forward", "backward"] | BoolArray,
    limit: int,
    tolerance: float,
    counters: IntArray,
) -> Tableau:
    """The tableau at the first local optimum: of the better of the starts asked for."""
    tableaus = []
    if not isinstance(start, str):
        given = np.asarray(start)
        if given.dtype != np.bool_ or given.shape != base.inside.shape or given.sum() != num_kept:
            raise ValueError(
                f"start is {given.dtype} {given.shape} with {given.sum()} kept; give bool {base.inside.shape} with {num_kept}."
            )
        tableaus.append(_swept(base, given))
    elif start not in ("auto", "forward", "backward"):
        raise ValueError(f'start is {start!r}; choose "auto", "forward", "backward" or a boolean array [unit].')
    if isinstance(start, str) and start != "backward":
        tableaus.append(_swept(base, base.inside))
        _take_greedily(tableaus[-1], num_kept, adds=True)
    if isinstance(start, str) and (start == "backward" or (start == "auto" and _is_definite(base))):
        tableaus.append(_swept(base, ~base.inside))
        _take_greedily(tableaus[-1], base.inside.size - num_kept, adds=False)
    for tableau in tableaus:
        _descend(base, limit, tolerance, tableau, counters)
    return max(tableaus, key=lambda tableau: _explained(base, tableau.inside))


def _is_definite(base: Tableau) -> bool:
    """Whether all units can be kept at once, as backward elimination begins."""
    return scipy.linalg.lapack.dpotrf(base.swept, lower=1)[1] == 0


def _explained(base: Tableau, inside: BoolArray) -> float:
    """tr((H_SS)^-1 W_SS) for the units of `inside`, from nothing."""
    chosen = np.repeat(inside, np.diff(base.offsets))
    gram, right = base.swept[np.ix_(chosen, chosen)], base.right[chosen]
    outer = right @ right.T if right.shape[1] else base.outer[np.ix_(chosen, chosen)]
    factor, info = scipy.linalg.lapack.dpotrf(gram, lower=1)
    if info:  # singular, and no ridge
        return float(np.sum(np.linalg.pinv(gram, rcond=1e-11, hermitian=True) * outer))
    return float(np.trace(scipy.linalg.lapack.dpotrs(factor, outer, lower=1)[0]))


def _solve(
    base: Tableau,
    num_kept: int,
    start: Literal["auto", "forward", "backward"] | BoolArray,
    seed: int,
    num_reads: int,
    temperatures: FloatArray,
    limit: int,
    counters: IntArray,
    num_threads: int | None,
) -> BoolArray:
    """The best set of units over the first local optimum and `num_reads` annealings from it."""
    tolerance = _TIE * max(float(np.trace(base.outer) + np.sum(base.right**2)), 1e-300)
    first = _start(base, num_kept, start, limit, tolerance, counters[-1])
    scale = _scale_of(limit, first) if temperatures.size else 0.0
    if not scale > tolerance:
        return first.inside
    seeds = seeds_of(seed, num_reads)
    results: list[BoolArray] = [first.inside] * (2 * num_reads)

    def run(lo: int, hi: int) -> None:
        for read in range(lo, hi):
            tableau, found = _copy(first), first.inside.copy()
            scratch = _scratch(tableau)
            walk(base, seeds[read], scale * temperatures, limit, tolerance, scratch, tableau, found, counters[read])
            results[2 * read] = tableau.inside.copy()
            moves = np.flatnonzero(found != tableau.inside)
            for u in moves:
                pivot(np.array([u]), tableau)
            if moves.size:
                _descend(base, limit, tolerance, tableau, counters[read])
            results[2 * read + 1] = tableau.inside

    in_threads(run, num_reads, num_threads)
    return max([first.inside, *results], key=lambda inside: _explained(base, inside))
