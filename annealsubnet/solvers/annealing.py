"""Annealing of one energy in many reads: choose a schedule and a kernel, run, and take the energies in float64."""

import dataclasses
import sys
import time
from dataclasses import dataclass
from typing import Any

import numpy as np
import scipy.sparse

from annealsubnet.solvers.compiled import Compiled, Energy, Groups, centered, compile_energy
from annealsubnet.solvers.lanes import anneal_reads_in_lanes
from annealsubnet.solvers.options import NUM_READS, ONLY_NUMBA, Options
from annealsubnet.solvers.reads import anneal_reads
from annealsubnet.solvers.running import SUMMED, SUMS, Stops, keys_for, run_reads
from annealsubnet.solvers.schedules import default_beta_range, settled_beta_range
from annealsubnet.solvers.tabu import walk_reads
from annealsubnet.solvers.tempering import temper_reads
from annealsubnet.solvers.vectors import LANES

# Proposals from which an accelerator is worth its compilation and transfers, and variables of all reads from which its sweep
# takes longer than the launches of its kernels (docs/performance.md).
_DEVICE_WORK, _DEVICE_WIDTH = 1e9, 1e6
# By which share of itself an energy may miss the target in the kernels, which round biases to float32, and in float64.
_LENIENCE, _ROUNDING = 1e-6, 1e-12


@dataclass(frozen=True)
class Annealed:
    """What came of the reads.

    Attributes:
        states: 0 or 1, `[read, variable]`.
        energies: their energies in float64.
        info: how they were found.
    """

    states: np.ndarray
    energies: np.ndarray
    info: dict[str, Any]


def anneal(energy: Energy, groups: Groups, states: np.ndarray, options: Options, seed: int) -> Annealed:
    """Anneal from the given states (0 or 1, one row a read)."""
    begun = time.perf_counter()
    exact, energy = energy, centered(energy, groups)
    betas = options.betas(lambda: _range(energy, groups, states, options, seed))
    on_device = energy.size > 0 and _on_device(energy, options)
    if on_device:
        from annealsubnet.solvers.jax_kernels import anneal_on_device

        keep_best = options.state == "best"
        states = anneal_on_device(energy, groups, states, betas, seed, keep_best=keep_best)
        options = dataclasses.replace(options, beta_schedule=(), beta_range=None, num_sweeps=0)
    compiled = compile_energy(energy, groups, exchanges=options.exchanges)
    start = np.ascontiguousarray(states[:, compiled.order])
    states, counts = start.copy(), np.zeros((len(start), 5), np.int64)
    left = betas[:0] if on_device else betas
    reason = _run(compiled, energy, states, counts, left, options, seed) if energy.size else None
    met = _first_met(exact, compiled, states, counts, options.target)
    if reason is None and met is None and counts[:, 2].any():
        # In float32 a read met the target, in float64 none did: on from that read (or its sixteen), stopping at none.
        again = int(np.flatnonzero(counts[:, 2])[0])
        again -= again % LANES if _in_lanes(compiled, len(states), options) else 0
        states[again:], counts[again:] = start[again:], 0
        left_over = None if options.time_limit is None else max(options.time_limit - (time.perf_counter() - begun), 0.0)
        unmet = dataclasses.replace(options, target=None, time_limit=left_over)
        reason = _run(compiled, energy, states, counts, left, unmet, seed, begin=again)
        met = _first_met(exact, compiled, states, counts, options.target)
    if energy.size and options.state == "best" and not counts[:, 3].any():
        still = (keys_for(seed, 1), True, -np.inf, np.zeros(1, np.int64), states, 0, 1, counts)
        anneal_reads(compiled.model, compiled.moves, np.zeros(0, np.float32), *still)
    counts[:, 0] += betas.size if on_device else 0
    end = len(states) if met is None or reason else met + 1
    used = np.flatnonzero(counts[:end, 3]) if energy.size else np.arange(end)
    used = used if used.size else np.arange(1)
    answer = np.empty((used.size, energy.size), np.int8)
    answer[:, compiled.order] = states[used]
    info = {
        "beta_range": (float(betas[0]), float(betas[-1])) if betas.size else None,
        "kernel": "jax"
        if on_device
        else "lanes"
        if _in_lanes(compiled, len(states), options)
        else "dense"
        if compiled.is_dense
        else "sparse",
        "sweeps": int(counts[used, 0].sum()),
        "moves_tried": int(counts[used, 0].sum()) * _moves_a_sweep(groups, options),
        "moves_accepted": int(counts[used, 1].sum()),
        "tabu_steps": int(counts[used, 4].sum()),
        "stopped_by": reason or (None if met is None else "target"),
    }
    return Annealed(answer, exact.of(answer, num_threads=options.num_threads), info)


def _run(
    compiled: Compiled,
    energy: Energy,
    states: np.ndarray,
    counts: np.ndarray,
    betas: np.ndarray,
    options: Options,
    seed: int,
    *,
    begin: int = 0,
) -> str | None:
    """Anneal the states from `begin` on in place; what ended that early."""
    with np.errstate(divide="ignore"):
        temperatures = (1.0 / (betas * compiled.scale)).astype(np.float32)
    target = -np.inf if options.target is None else (options.target - energy.offset) / compiled.scale
    target += 0.0 if np.isinf(target) or _is_exact(energy, compiled.scale) else _LENIENCE * abs(target)
    keys = keys_for(seed, len(states))[begin:]
    num_steps = (options.num_tabu_sweeps or 0) * energy.size
    best, in_lanes = options.state == "best", _in_lanes(compiled, len(states), options)
    states, counts = states[begin:], counts[begin:]

    def kernel(begin: int, end: int, stop: np.ndarray) -> None:
        model, moves = compiled.model, compiled.moves
        rest = (keys, best, target, stop, states, begin, end, counts)
        if options.num_replicas is not None:
            temper_reads(model, moves, temperatures, options.sweeps, *rest)
        elif in_lanes:
            anneal_reads_in_lanes(model, temperatures, *rest)
        else:
            anneal_reads(model, moves, temperatures, *rest)
        if num_steps:
            walk_reads(model, num_steps, keys, target, stop, states, begin, end, counts)

    tried = energy.size * (options.sweeps * (options.num_replicas or 1) + num_steps / LANES)
    return run_reads(
        kernel,
        len(states),
        num_threads=options.num_threads,
        proposals=len(states) * (tried + SUMS * energy.entries / SUMMED),
        stops=Stops(options.time_limit, options.interrupt_function),
        multiple=LANES if in_lanes else 1,
    )


def _is_exact(energy: Energy, scale: float) -> bool:
    """Whether float32 holds every bias to the last bit, as it does integers up to 2**24."""
    stored = energy.couplings.data if scipy.sparse.issparse(energy.couplings) else energy.couplings
    return all(((values / scale).astype(np.float32) == values / scale).all() for values in (energy.linear, stored))


def _first_met(energy: Energy, compiled: Compiled, states: np.ndarray, counts: np.ndarray, target: float | None) -> int | None:
    """The first read whose energy in float64 is no more than the target; reads behind one that stopped are not looked at."""
    if target is None:
        return None
    flagged = np.flatnonzero(counts[:, 2])
    done = int(flagged[0]) + 1 if flagged.size else len(states)
    ordered = np.empty((done, energy.size), np.int8)
    ordered[:, compiled.order] = states[:done]
    rounding = _ROUNDING * (abs(target) + abs(energy.offset)) if np.isfinite(target) else 0.0
    met = np.flatnonzero((energy.of(ordered) <= target + rounding) & ((counts[:done, 3] > 0) | (energy.size == 0)))
    return int(met[0]) if met.size else None


def _on_device(energy: Energy, options: Options) -> bool:
    """Whether JAX's kernels are asked for, or JAX is at hand with an accelerator and many reads of many flips are worth it."""
    if options.backend != "auto":
        return options.backend == "jax"
    given = options.exchanges or any(getattr(options, name) is not None for name in ("num_kept", *ONLY_NUMBA))
    width = float(energy.size) * (options.num_reads or NUM_READS)
    if "jax" not in sys.modules or given or width < _DEVICE_WIDTH or width * options.sweeps < _DEVICE_WORK:
        return False
    return bool(sys.modules["jax"].default_backend() in ("gpu", "tpu"))


def _in_lanes(compiled: Compiled, num_reads: int, options: Options) -> bool:
    """Whether sixteen reads at once are faster than one after the other: sparse, flips only, lanes mostly filled."""
    flips_only = not compiled.moves[1] and options.num_replicas is None
    return not compiled.is_dense and flips_only and num_reads >= LANES // 4


def _range(energy: Energy, groups: Groups, states: np.ndarray, options: Options, seed: int) -> tuple[float, float]:
    """The range from the biases, or from the flips of the local minimum that the first state descends to."""
    if not options.settled:
        return _default_range(energy, groups)
    still = Options(num_sweeps=0, beta_range=(np.inf, np.inf), time_limit=options.time_limit, backend="numba")
    return settled_beta_range(energy.linear, energy.couplings, anneal(energy, groups, states[:1], still, seed).states[0])


def _default_range(energy: Energy, groups: Groups) -> tuple[float, float]:
    kept = groups.counts.sum() / max(int((groups.member >= 0).sum()), 1)
    exchanged = groups.counts.size > 0 and groups.member.size > 0 and bool((groups.member >= 0).all())
    return default_beta_range(energy.linear, energy.couplings, kept_share=float(kept) if exchanged else None)


def _moves_a_sweep(groups: Groups, options: Options) -> int:
    """A flip for every free variable, and sixteen exchanges for every one that is exchanged."""
    grouped = int((groups.member >= 0).sum())
    free = groups.member.size - grouped
    return free + LANES * (grouped + (free if options.exchanges else 0))
