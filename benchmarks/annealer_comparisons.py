"""The comparisons that `benchmarks/annealer.py` runs, each a function from (quick, seed) to rows."""

import functools
import math
import time
from collections.abc import Callable, Iterable
from typing import Any

import dimod
import numpy as np
from dwave.samplers import SimulatedAnnealingSampler
from local_problems import local_problems, random_problems

from annealsubnet.problems import Problem
from annealsubnet.solvers import Annealer

Row = dict[str, Any]
OURS, DWAVE, OPENJIJ, ZERO = "annealsubnet", "dwave-samplers", "openjij", "temperature zero"


def timed(function: Callable[[], Any]) -> tuple[float, Any]:
    """Processor seconds of this process, which other work on the machine does not disturb, and the result."""
    start = time.process_time()
    result = function()
    return time.process_time() - start, result


def timed_by_the_clock(function: Callable[[], Any]) -> tuple[float, Any]:
    """Seconds by the clock, for what runs on several threads."""
    start = time.perf_counter()
    result = function()
    return time.perf_counter() - start, result


def normal_ising(size: int, degree: int | None, seed: int) -> dimod.BinaryQuadraticModel:
    """Normally distributed couplings, all pairs or a random graph of this degree, fields of unit scale."""
    rng = np.random.default_rng(seed)
    if degree is None:
        rows, columns = np.triu_indices(size, 1)
    else:
        ends = np.sort(rng.integers(0, size, (size * degree // 2, 2)), axis=1)
        rows, columns = divmod(np.unique(ends[:, 0] * size + ends[:, 1]), size)
        rows, columns = rows[rows != columns], columns[rows != columns]
    couplings = rng.normal(size=rows.size) / math.sqrt(degree or size)
    return dimod.BinaryQuadraticModel.from_numpy_vectors(np.zeros(size), (rows, columns, couplings), 0.0, "SPIN")


def speed_runs(bqm: dimod.BinaryQuadraticModel, betas: np.ndarray, num_reads: int, seed: int) -> dict[str, Callable]:
    """The same schedule and reads for every sampler."""
    ours, dwave = Annealer(), SimulatedAnnealingSampler()
    shared = {"num_reads": num_reads, "seed": seed, "beta_schedule": betas}
    runs = {
        OURS: lambda: ours.sample(bqm, num_threads=1, **shared),
        OURS + ", last state": lambda: ours.sample(bqm, num_threads=1, state="last", **shared),
        DWAVE: lambda: dwave.sample(bqm, num_sweeps=betas.size, beta_schedule_type="custom", **shared),
    }
    try:
        from openjij import SASampler
    except ImportError:
        return runs
    schedule = [[float(beta), 1] for beta in betas]
    runs[OPENJIJ] = lambda: SASampler().sample(bqm, num_reads=num_reads, schedule=schedule, seed=seed)
    return runs


def speed(*, quick: bool, seed: int) -> list[Row]:
    """Spin updates a second, wall time of the whole call, medians over turns."""
    cases = [("dense 64", 64, None), ("dense 256", 256, None), ("dense 1024", 1024, None), ("sparse 10,000", 10_000, 8)]
    num_reads, num_sweeps, turns = (16, 100, 1) if quick else (64, 300, 5)
    rows: list[Row] = []
    for name, size, degree in cases:
        bqm = normal_ising(size, degree, seed)
        betas = np.geomspace(0.3, 20.0, num_sweeps)
        reads = num_reads if size < 1024 else 16
        runs = speed_runs(bqm, betas, reads, seed)
        for run in speed_runs(bqm, betas[:2], 4 if size < 10_000 else 16, seed).values():
            run()
        seconds: dict[str, list[float]] = {sampler: [] for sampler in runs}
        energies = {}
        for _ in range(turns):
            for sampler, run in runs.items():
                elapsed, sampleset = timed(run)
                seconds[sampler].append(elapsed)
                energies[sampler] = sampleset.record.energy
        limit = float(np.median(seconds[OURS]))
        zero = Annealer().sample(
            bqm, num_reads=100_000 if size < 1024 else 2000, beta_range=(np.inf, np.inf), time_limit=limit, seed=seed
        )
        energies[ZERO] = zero.record.energy
        updates = size * reads * num_sweeps
        for sampler, found in energies.items():
            median = float(np.median(seconds.get(sampler, [limit])))
            row = {"section": "speed", "problem": name, "sampler": sampler, "seconds": median, "reads": len(found)}
            row |= {"updates_a_second": updates / median if sampler != ZERO else ""}
            row |= {"mean_energy": found.mean(), "energy_error": found.std() / math.sqrt(len(found))}
            row |= {"lowest_energy": found.min()}
            rows.append(row)
        ratio = np.median(seconds[DWAVE]) / limit
        others = f", {np.median(seconds[OPENJIJ]) / limit:.1f} times openjij" if OPENJIJ in seconds else ""
        rows[-1]["summary"] = (
            f"{name}: {updates / limit / 1e6:.0f} million updates a second, {ratio:.1f} times dwave-samplers{others}; "
            f"mean energy {energies[OURS].mean():.2f} against {energies[DWAVE].mean():.2f}"
        )
    return rows


def time_to_target(energies: np.ndarray, seconds: float, lowest: float) -> float:
    """Seconds until the lowest energy has been seen with 99 % confidence, by repeating reads."""
    hits = float((energies <= lowest + 1e-6 * max(abs(lowest), 1e-9)).mean())
    hits = min(hits, 1.0 - 0.5 / len(energies))
    a_read = seconds / len(energies)
    return a_read * max(1.0, math.log(0.01) / math.log1p(-hits)) if hits > 0 else math.inf


def target_runs(
    bqm: dimod.BinaryQuadraticModel, num_sweeps: int, num_reads: int, seed: int
) -> list[tuple[str, float, np.ndarray]]:
    """(sampler, seconds, energies) at one number of sweeps; dwave-samplers with its own default range and with ours."""
    ours, dwave = Annealer(), SimulatedAnnealingSampler()
    shared = {"num_reads": num_reads, "num_sweeps": num_sweeps, "seed": seed}
    own_range = ours.sample(bqm, num_reads=1, num_sweeps=2, seed=seed).info["beta_range"]
    calls = [
        (OURS, lambda: ours.sample(bqm, num_threads=1, **shared)),
        (DWAVE, lambda: dwave.sample(bqm, **shared)),
        (DWAVE, lambda: dwave.sample(bqm, beta_range=own_range, **shared)),
        (OURS + " with exchanges", lambda: ours.sample(bqm, num_threads=1, exchanges=True, **shared)),
        (ZERO, lambda: ours.sample(bqm, num_threads=1, exchanges=True, beta_range=(np.inf, np.inf), **shared)),
    ]
    timings = [(sampler, *timed(call)) for sampler, call in calls]
    return [(sampler, seconds, sampleset.record.energy) for sampler, seconds, sampleset in timings]


def target(*, quick: bool, seed: int) -> list[Row]:
    """Time to target: the best over numbers of sweeps and ranges for each side."""
    problems = local_problems(4 if quick else 80, seed) + random_problems(2 if quick else 20, 64, seed)
    sweeps = (10, 100) if quick else (3, 10, 30, 100, 300)
    rows: list[Row] = []
    ratios = []
    for name, problem in problems:
        bqm = problem.to_bqm()
        runs = [run for num_sweeps in sweeps for run in target_runs(bqm, num_sweeps, 64 if quick else 200, seed)]
        lowest = min(found.min() for _, _, found in runs)
        best = {
            sampler: min(time_to_target(found, elapsed, lowest) for who, elapsed, found in runs if who == sampler)
            for sampler in dict.fromkeys(who for who, _, _ in runs)
        }
        best["annealsubnet, best of both"] = min(best[OURS], best[OURS + " with exchanges"])
        ratios.append(min(best[DWAVE], 1e9) / best["annealsubnet, best of both"])
        for sampler, seconds in best.items():
            rows.append({"section": "target", "problem": name, "sampler": sampler, "seconds": min(seconds, 1e9)})
    zero = [row["seconds"] for row in rows if row["sampler"] == ZERO]
    own = [row["seconds"] for row in rows if row["sampler"] == "annealsubnet, best of both"]
    missed = sum(row["seconds"] >= 1e9 for row in rows if row["sampler"] == DWAVE)
    rows[-1]["summary"] = (
        f"{len(problems)} problems, dwave-samplers takes {np.median(ratios):.1f} times as long in the median "
        f"(quartile {np.quantile(ratios, 0.25):.1f}, least {min(ratios):.1f}; it never found the lowest energy of {missed}); "
        f"temperature zero {np.median(np.divide(zero, own)):.1f} times as long"
    )
    return rows


def penalized(problem: Problem, strength: float) -> dimod.BinaryQuadraticModel:
    """The energy plus strength (Σ x - k)²."""
    bqm = problem.to_bqm()
    terms = [(name, 1.0) for name in problem.names]
    bqm.add_linear_equality_constraint(terms, lagrange_multiplier=strength, constant=-float(problem.num_kept or 0))
    return bqm


def cardinality(*, quick: bool, seed: int) -> list[Row]:
    """Exchanges against the best of a sweep of penalty strengths, feasible reads only."""
    sizes = [64, 128] if quick else [64] * 5 + [128] * 5 + [256] * 5 + [512] * 5
    strengths = (0.3, 1.0) if quick else (0.1, 0.2, 0.5, 1.0, 2.0, 5.0)
    ours, dwave = Annealer(), SimulatedAnnealingSampler()
    rows: list[Row] = []
    outcomes = []
    for index, size in enumerate(sizes):
        rng = np.random.default_rng([seed, index])
        upper = np.triu(rng.normal(size=(size, size)), 1) / math.sqrt(size)
        problem = Problem(rng.normal(size=size), upper + upper.T, num_kept=size // 4)
        bqm, name = problem.to_bqm(), f"normal{size}-{index}"
        shared = {"num_reads": 20, "num_sweeps": 300 if not quick else 100, "seed": seed}
        exact = {"num_kept": problem.num_kept, "num_threads": 1, "num_reads": 10, "num_sweeps": 60, "seed": seed}
        ours.sample(bqm, **(exact | {"num_sweeps": 1}))
        turns = [timed(functools.partial(ours.sample, bqm, **exact)) for _ in range(3)]
        seconds, found = float(np.median([turn[0] for turn in turns])), turns[0][1]
        assert (found.record.sample.sum(axis=1) == problem.num_kept).all()
        control = ours.sample(bqm, **(exact | {"num_reads": 10_000, "beta_range": (np.inf, np.inf), "time_limit": seconds}))
        best, taken = math.inf, math.nan
        for strength in strengths:
            model = penalized(problem, strength)
            elapsed, sampleset = timed(lambda m=model, s=shared: dwave.sample(m, **s))
            states = sampleset.record.sample[:, [sampleset.variables.index(label) for label in problem.names]]
            feasible = states[states.sum(axis=1) == problem.num_kept]
            lowest = problem.energy(feasible).min() if len(feasible) else math.inf
            if lowest < best:
                best, taken = lowest, elapsed
        outcomes.append((best - found.first.energy, taken / seconds))
        for sampler, time_taken, energy in (
            (OURS, seconds, found.first.energy),
            ("best penalty, dwave-samplers", taken, best),
            (ZERO, seconds, control.first.energy),
        ):
            row = {"section": "cardinality", "problem": name, "sampler": sampler}
            rows.append(row | {"seconds": time_taken, "lowest_energy": energy})
    gains, speeds = np.array(outcomes).T
    rows[-1]["summary"] = (
        f"{len(sizes)} problems, exact counts; best penalty lower on {int((gains < -1e-9).sum())}, "
        f"equal on {int((np.abs(gains) <= 1e-9).sum())}; {speeds.min():.1f} to {speeds.max():.1f} times its speed"
    )
    return rows


def many(*, quick: bool, seed: int) -> list[Row]:
    """Microseconds a problem of 32 variables in one call: nothing but loading and results, and with 100 sweeps."""
    count = 2_000 if quick else 10_000
    rng = np.random.default_rng(seed)
    couplings = rng.normal(size=(count, 32, 32))
    couplings += couplings.transpose(0, 2, 1)
    linear = rng.normal(size=(count, 32))
    rows: list[Row] = []
    for num_kept in (None, 8):
        options = {"num_kept": num_kept, "seed": seed, "num_threads": 1, "state": "last"}
        Annealer().sample_many(linear[:2], couplings[:2], num_sweeps=1, **options)
        cost = {}
        for num_sweeps in (0, 100):
            cost[num_sweeps] = min(
                timed(lambda n=num_sweeps, o=options: Annealer().sample_many(linear, couplings, num_sweeps=n, **o))[0]
                for _ in range(3)
            )
            row = {"section": "many", "problem": f"{count} of 32", "sampler": f"{num_sweeps} sweeps"}
            rows.append(row | {"seconds": cost[num_sweeps], "microseconds_a_problem": cost[num_sweeps] / count * 1e6})
        rows[-1]["summary"] = (
            f"num_kept={num_kept}: {cost[0] / count * 1e6:.1f} µs a problem beyond annealing, "
            f"{(cost[100] - cost[0]) / count * 1e6:.1f} µs for 100 sweeps"
        )
    return rows


def threaded_runs(quick: bool, seed: int) -> dict[str, Callable[[int], Any]]:
    """Work of about a second, as functions of the number of threads."""
    rng = np.random.default_rng(seed)
    problems, shorter = (2_000, 4) if quick else (10_000, 1)
    couplings = rng.normal(size=(problems, 32, 32))
    couplings += couplings.transpose(0, 2, 1)
    linear = rng.normal(size=(problems, 32))
    dense, large, sparse = normal_ising(256, None, seed), normal_ising(1024, None, seed), normal_ising(10_000, 8, seed)

    def sample(bqm: dimod.BinaryQuadraticModel, num_sweeps: int, count: int) -> Any:
        return Annealer().sample(bqm, num_reads=64, num_sweeps=num_sweeps // shorter, num_threads=count, seed=seed)

    return {
        "dense 256": functools.partial(sample, dense, 8000),
        "dense 1024": functools.partial(sample, large, 1000),
        "sparse 10,000": functools.partial(sample, sparse, 400),
        "many": lambda count: Annealer().sample_many(linear, couplings, num_sweeps=300, num_threads=count, seed=seed),
    }


def threads(*, quick: bool, seed: int) -> list[Row]:
    """The same work on one thread and on two, in turns."""
    rows: list[Row] = []
    for name, run in threaded_runs(quick, seed).items():
        run(1)
        turns: dict[int, list[float]] = {1: [], 2: []}
        for _ in range(3 if quick else 7):
            for count, taken in turns.items():
                taken.append(timed_by_the_clock(functools.partial(run, count))[0])
        for count, taken in turns.items():
            row = {"section": "threads", "problem": name, "sampler": f"{count} threads", "seconds": float(np.median(taken))}
            rows.append(row)
        ratio = float(np.median(np.divide(turns[1], turns[2])))
        rows[-1]["summary"] = f"{name}: two threads {ratio:.2f} times one"
    return rows


SECTIONS: dict[str, Callable[..., Iterable[Row]]] = {
    "speed": speed,
    "target": target,
    "cardinality": cardinality,
    "many": many,
    "threads": threads,
}
