"""Annealing of many small problems in one call: arrays in, arrays out.

A `SampleSet` for each problem would cost more than annealing it; here ten thousand problems cost a few microseconds
each beyond the sweeps.
"""

import secrets
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from jaxtyping import Bool, Float, Int

from annealsubnet.arguments import check_whole
from annealsubnet.solvers.options import NUM_SWEEPS
from annealsubnet.solvers.running import SUMMED, SUMS, Stops, run_reads
from annealsubnet.solvers.schedules import checked_range

# Couplings and their transpose may differ by so much of the largest: more than float32 rounds, of which the kernels make them.
_ASYMMETRY = 1e-6


@dataclass(frozen=True)
class ManySamples:
    """States found for many problems.

    Attributes:
        states: whether each variable is one; past the variables of a smaller problem, false.
        energies: energy of each state, in float64, from the biases as given.
        sizes: number of variables of each problem.
        beta_ranges: the inverse temperatures (hot, cold) of each problem's schedule.
        seed: the seed used.
    """

    states: Bool[np.ndarray, "problems reads variables"]
    energies: Float[np.ndarray, "problems reads"]
    sizes: Int[np.ndarray, "problems"]
    beta_ranges: Float[np.ndarray, "problems 2"]
    seed: int

    def __repr__(self) -> str:
        problems, reads, variables = self.states.shape
        return f"ManySamples({problems} problems, {reads} reads, up to {variables} variables)"

    def best(self) -> tuple[Bool[np.ndarray, "problems variables"], Float[np.ndarray, "problems"]]:
        """The state of lowest energy of each problem, and its energy."""
        reads = self.energies.argmin(axis=1)
        problems = np.arange(len(reads))
        return self.states[problems, reads], self.energies[problems, reads]


@dataclass(frozen=True)
class _Packed:
    """Problems one behind the other, as `many_kernel.anneal_problems` takes them."""

    linear: np.ndarray
    couplings: np.ndarray
    scales: np.ndarray
    shared: bool
    places: np.ndarray


def sample_many(
    linear: Any,
    couplings: Any,
    *,
    scales: Any = None,
    num_kept: Any = None,
    num_reads: int = 1,
    num_sweeps: int = NUM_SWEEPS,
    beta_range: Sequence[float] | None = None,
    initial_states: Any = None,
    seed: int | None = None,
    num_threads: int | None = None,
    state: Literal["best", "last"] = "best",
) -> ManySamples:
    """Anneal many problems; see `Annealer.sample_many`."""
    from annealsubnet.solvers.many_kernel import anneal_problems

    packed = _pack(linear, couplings, scales)
    seed = secrets.randbits(32) if seed is None else check_whole("seed", seed, 0)
    num_reads, num_sweeps = check_whole("num_reads", num_reads, 1), check_whole("num_sweeps", num_sweeps, 0)
    if num_threads is not None:
        check_whole("num_threads", num_threads, 1)
    sizes = packed.places[:, 0]
    problems, largest = len(sizes), int(sizes.max(initial=0))
    if state not in ("best", "last"):
        raise ValueError(f'state must be "best" or "last"; it is {state!r}.')
    kept = _kept(num_kept, sizes)
    given = _given(initial_states, kept, sizes, (problems, num_reads, largest))
    ranges = np.full((problems, 2), -1.0)
    if beta_range is not None:
        with np.errstate(divide="ignore"):
            ranges[:] = 1.0 / np.array(checked_range(beta_range))
    out = (
        np.zeros((problems, num_reads, largest), np.bool_),
        np.zeros((problems, num_reads)),
        np.ones((problems, 2)),
    )
    key = np.random.SeedSequence(seed).generate_state(1, np.uint64)[0]

    def kernel(begin: int, end: int, stop: np.ndarray) -> None:
        anneal_problems(
            packed.linear, packed.couplings, packed.scales, packed.shared, packed.places, kept, ranges, num_sweeps, key, given,
            state == "best", begin, end, stop, out,
        )  # fmt: skip

    proposals = num_reads * float((sizes * num_sweeps + SUMS * sizes**2 / SUMMED).sum())
    run_reads(kernel, problems, num_threads=num_threads, proposals=proposals, stops=Stops())
    with np.errstate(divide="ignore"):
        return ManySamples(out[0], out[1], sizes.copy(), 1.0 / out[2], seed)


def _pack(linear: Any, couplings: Any, scales: Any) -> _Packed:
    rows = linear if isinstance(linear, np.ndarray) and linear.ndim == 2 else [np.asarray(row) for row in linear]
    sizes = np.array([len(row) for row in rows], np.int64)
    first = np.concatenate([[0], np.cumsum(sizes)[:-1]]) if sizes.size else np.zeros(0, np.int64)
    flat_linear = _flat(rows)
    if scales is not None:
        shared = np.ascontiguousarray(couplings, dtype=np.float64)
        factors = np.ascontiguousarray(scales, dtype=np.float64)
        if shared.ndim != 2 or (sizes != len(shared)).any() or factors.shape != (len(sizes), len(shared)):
            raise ValueError(
                f"with scales, couplings are one [d, d] matrix, linear and scales [problems, d]; "
                f"their shapes are {shared.shape}, {np.shape(linear)} and {factors.shape}."
            )
        _check_symmetric([shared])
        places = np.stack([sizes, first, np.zeros_like(first)], axis=1)
        packed = _Packed(flat_linear, shared.ravel(), factors.ravel(), True, places)
    else:
        matrices = couplings if isinstance(couplings, np.ndarray) else [np.asarray(matrix) for matrix in couplings]
        shapes_fit = len(matrices) == len(sizes) and all(
            matrix.shape == (size, size) for matrix, size in zip(matrices, sizes.tolist(), strict=True)
        )
        if not shapes_fit:
            raise ValueError("couplings must be one square matrix for each problem, of the size of its linear biases.")
        _check_symmetric(matrices)
        start = np.concatenate([[0], np.cumsum(sizes**2)[:-1]]) if sizes.size else np.zeros(0, np.int64)
        places = np.stack([sizes, first, start], axis=1)
        packed = _Packed(flat_linear, _flat(matrices), np.ones(1), False, places)
    largest = []
    for name, values in (("linear", packed.linear), ("couplings", packed.couplings), ("scales", packed.scales)):
        # NaN counts as the greatest and the least of all.
        largest.append(float(np.abs([values.max(initial=0.0), values.min(initial=0.0)]).max()))
        if not np.isfinite(largest[-1]):
            raise ValueError(f"{name} holds {int((~np.isfinite(values)).sum())} values that are NaN or infinite.")
    size, (one, pair, scale) = float(sizes.max(initial=0)), largest
    # Python's floats: an overflow is infinite, without a warning.
    if not np.isfinite(size * one + size * size * pair * scale * scale):
        raise ValueError("energies of the problems may overflow: the sizes of their biases add up to infinity; divide them.")
    return packed


def _check_symmetric(matrices: Any) -> None:
    if isinstance(matrices, np.ndarray) and (matrices == matrices.transpose(0, 2, 1)).all():
        return
    for number, matrix in enumerate(matrices):
        if (matrix == matrix.T).all():
            continue
        coupled = np.where(np.eye(len(matrix), dtype=np.bool_), 0.0, matrix)
        asymmetry = np.abs(coupled - coupled.T).max()
        if asymmetry > _ASYMMETRY * np.abs(coupled).max():
            which = f"couplings of problem {number}" if len(matrices) > 1 else "couplings"
            raise ValueError(
                f"{which} must be symmetric; they differ from their transpose by up to {asymmetry:.3g}. Add the transpose to a "
                "triangle."
            )


def _flat(arrays: Any) -> np.ndarray:
    """Arrays one behind the other in float64."""
    if isinstance(arrays, np.ndarray):
        return np.ascontiguousarray(arrays, dtype=np.float64).ravel()
    if not arrays:
        return np.zeros(0)
    return np.concatenate(arrays, axis=None, dtype=np.float64)


def _kept(num_kept: Any, sizes: np.ndarray) -> np.ndarray:
    if num_kept is None:
        return np.full(sizes.size, -1, np.int64)
    given = np.asarray(num_kept)
    if given.size and given.dtype.kind not in "iu":
        raise TypeError(f"num_kept must be a whole number, or one a problem; it is {num_kept!r}.")
    if given.shape not in ((), sizes.shape):
        raise ValueError(f"num_kept must be one number, or one for each of {sizes.size} problems; its shape is {given.shape}.")
    kept = np.broadcast_to(given.astype(np.int64), sizes.shape).copy()
    bad = np.flatnonzero((kept < 0) | (kept > sizes))
    if bad.size:
        problem = int(bad[0])
        raise ValueError(f"num_kept of problem {problem} is {kept[problem]}; it has {sizes[problem]} variables.")
    return kept


def _given(initial_states: Any, kept: np.ndarray, sizes: np.ndarray, shape: tuple[int, int, int]) -> np.ndarray:
    if initial_states is None:
        return np.zeros((0, 0, 0), np.bool_)
    states = np.asarray(initial_states)
    other = states[(states != 0) & (states != 1)]
    if other.size:
        raise ValueError(f"initial_states must be 0 or 1 (or booleans); there is {other[0]} among them.")
    states = states.astype(np.bool_)
    if states.shape == (shape[0], shape[2]):
        states = np.broadcast_to(states[:, None], shape)
    if states.shape != shape:
        raise ValueError(f"initial_states must be {shape} (problems, reads, variables); they are {states.shape}.")
    inside = states & (np.arange(shape[2]) < sizes[:, None])[:, None]
    wrong = (inside.sum(axis=2) != kept[:, None]) & (kept >= 0)[:, None]
    if wrong.any():
        problem, read = np.argwhere(wrong)[0].tolist()
        raise ValueError(
            f"initial state {read} of problem {problem} has {int(inside[problem, read].sum())} ones; "
            f"num_kept asks for {kept[problem]}."
        )
    return np.ascontiguousarray(inside)
