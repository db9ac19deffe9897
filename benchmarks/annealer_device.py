"""What the annealer's JAX kernels do on an accelerator, beside the compiled kernels on all processors."""

import functools
import math
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from annealer_comparisons import Row, normal_ising, timed_by_the_clock

from annealsubnet.solvers import Annealer
from annealsubnet.solvers.compiled import energy_of


def copy_rate(quick: bool) -> float:
    """Bytes a second that an addition to a large array reads and writes on JAX's device."""
    import jax

    array = jax.numpy.zeros(2**22 if quick else 2**28, jax.numpy.float32)
    add = jax.jit(lambda values: values + 1)
    add(array).block_until_ready()
    seconds = min(timed_by_the_clock(lambda: add(array).block_until_ready())[0] for _ in range(5))
    return 2 * array.nbytes / seconds


@dataclass(frozen=True)
class DeviceRun:
    """The same work by a kernel of JAX on its device and by compiled kernels on all processors.

    Attributes:
        problem: its name.
        kernel: of JAX, called with arrays that are on the device already; returns states.
        variables: of all problems and reads together, those that a sweep of the kernel moves.
        sweeps: of `kernel`.
        bytes_a_move: the fewest that the kernel moves in the device's memory.
        energies: of states that the kernel returned.
        processors: from a number of sweeps to energies.
        longer: times as many sweeps are measured as well, so that the difference is that of the sweeps alone.
        share: of the variables that the processors are given (their time goes by the variable).
    """

    problem: str
    kernel: Callable[[], Any]
    variables: int
    sweeps: int
    bytes_a_move: float
    energies: Callable[[np.ndarray], np.ndarray]
    processors: Callable[[int], np.ndarray]
    longer: int
    share: float

    def rows(self, most: float) -> list[Row]:
        """Seconds, moves a second and mean energies of both; those of the processors from two numbers of sweeps."""
        import jax

        compiling, states = timed_by_the_clock(lambda: self.kernel().block_until_ready())
        seconds = min(timed_by_the_clock(lambda: self.kernel().block_until_ready())[0] for _ in range(3))
        rate = self.variables * self.sweeps / seconds
        self.processors(1)
        short, energies = timed_by_the_clock(lambda: self.processors(self.sweeps))
        long, _ = timed_by_the_clock(lambda: self.processors(self.longer * self.sweeps))
        slower = (long - short) / (self.longer - 1) / self.share
        kind, threads = jax.devices()[0].device_kind, len(os.sched_getaffinity(0))
        found = {
            f"JAX on {kind}": (seconds, self.energies(np.asarray(states))),
            f"numba on {threads} processors": (slower, energies),
        }
        rows: list[Row] = [
            {"section": "device", "problem": self.problem, "sampler": sampler, "seconds": taken}
            | {"updates_a_second": self.variables * self.sweeps / taken, "mean_energy": energy.mean()}
            for sampler, (taken, energy) in found.items()
        ]
        rows[0]["share_of_bandwidth"] = rate * self.bytes_a_move / most
        (_, ours), (_, theirs) = found.values()
        rows[-1]["summary"] = (
            f"{self.problem}, {self.sweeps} sweeps on {kind}: {seconds * 1e3:.1f} ms, {rate / 1e6:.0f} million moves a second, "
            f"at least {rate * self.bytes_a_move / most:.0%} of the bytes that a copy moves ({most / 1e9:.0f} GB/s); "
            f"first call {compiling:.1f} s; {threads} processors {slower * 1e3:.1f} ms, {slower / seconds:.2f} times; "
            f"mean energy {ours.mean():.6g} against {theirs.mean():.6g}"
        )
        return rows


def dense_device_runs(quick: bool, seed: int) -> Iterator[DeviceRun]:
    """Many dense problems by flips, cold and hot, and by exchanges."""
    import jax

    from annealsubnet.solvers.jax_kernels import exchange_dense, flip_dense

    problems, few, size, sweeps = (16, 8, 64, 5) if quick else (4096, 512, 256, 20)
    rng, key = np.random.default_rng(seed), jax.random.key(seed)
    upper = jax.numpy.triu(jax.random.normal(jax.random.key(seed + 1), (problems, size, size)), 1)
    linear, couplings = jax.numpy.zeros((problems, size)), upper + upper.transpose(0, 2, 1)
    nothing, some = np.zeros((few, size)), np.asarray(couplings[:few], np.float64)

    def energies(states: np.ndarray) -> np.ndarray:
        kept = states[:few, 0].astype(np.float64)
        return 0.5 * np.einsum("pi,pij,pj->p", kept, some, kept, optimize=True)

    def processors(num_kept: int | None, betas: np.ndarray, num_sweeps: int) -> np.ndarray:
        options = {"num_kept": num_kept, "num_sweeps": num_sweeps, "beta_range": (betas[0], betas[-1])}
        return Annealer().sample_many(nothing, some, seed=seed, **options).energies

    num_kept = size // 4
    flips = rng.random((problems, 1, size)) < 0.5
    kept = rng.permuted(np.broadcast_to(np.arange(size) < num_kept, (problems, 1, size)), axis=2)
    # Fields are about √size large, so that few flips are accepted when it is cold.
    cold = np.geomspace(0.3, 20.0, sweeps).astype(np.float32)
    hot = cold / np.float32(math.sqrt(size))
    for name, kernel, states, moves, count, betas, moved, longer in (
        # A flip reads a row of couplings; an exchange two, and all fields and states.
        (f"flips, dense {size} x {problems}, cold", flip_dense, flips, size, None, cold, 4 * size, 200),
        (f"flips, dense {size} x {problems}, hot", flip_dense, flips, size, None, hot, 4 * size, 50),
        (f"exchanges, {num_kept} of {size} x {problems}", exchange_dense, kept, num_kept, num_kept, cold, 18 * size, 20),
    ):
        run = functools.partial(kernel, linear, couplings, jax.device_put(states), jax.device_put(betas), key, keep_best=True)
        on_processors = functools.partial(processors, count, betas)
        yield DeviceRun(name, run, problems * moves, sweeps, moved, energies, on_processors, longer, few / problems)


def sparse_device_run(quick: bool, seed: int) -> DeviceRun:
    """A large sparse problem by flips."""
    import jax

    from annealsubnet.solvers.jax_kernels import color_classes, flip_sparse, padded_neighbors

    size, sweeps = (2_000, 5) if quick else (250_000, 20)
    bqm = normal_ising(size, 8, seed)
    energy = energy_of(bqm)
    neighbors, values = padded_neighbors(energy.couplings, 1.0)
    states = np.random.default_rng(seed).random((size + 1, 16)) < 0.5
    linear, betas = np.append(energy.linear, 1.0).astype(np.float32), np.geomspace(0.3, 20.0, sweeps).astype(np.float32)
    arrays = map(jax.device_put, (linear, neighbors, values, color_classes(energy.couplings), states, betas))
    run = functools.partial(flip_sparse, *arrays, jax.random.key(seed), keep_best=True)

    def energies(found: np.ndarray) -> np.ndarray:
        return energy.of(found[:-1].T)

    def processors(num_sweeps: int) -> np.ndarray:
        schedule = np.geomspace(0.3, 20.0, num_sweeps)
        return Annealer().sample(bqm, num_reads=16, beta_schedule=schedule, backend="numba", seed=seed).record.energy

    # A flip reads its neighbors' numbers and couplings once for sixteen reads, and the states of each.
    moved = neighbors.shape[1] * (1 + 8 / 16)
    return DeviceRun(f"flips, sparse {size} x 16 reads", run, size * 16, sweeps, moved, energies, processors, 10, 1.0)


def device(*, quick: bool, seed: int) -> Iterator[Row]:
    """JAX's kernels on the device that JAX has, and whole calls of `sample` with either backend."""
    most = copy_rate(quick)
    for run in dense_device_runs(quick, seed):
        yield from run.rows(most)
    yield from sparse_device_run(quick, seed).rows(most)
    cases = [("dense 64", 64, None, 16)] if quick else [
        ("dense 1024", 1024, None, 64), ("dense 1024", 1024, None, 1024), ("sparse 10,000", 10_000, 8, 256)
    ]  # fmt: skip
    for name, size, degree, num_reads in cases:
        bqm, problem = normal_ising(size, degree, seed), f"sample, {name} x {num_reads} reads"
        options = {"num_reads": num_reads, "beta_schedule": np.geomspace(0.3, 20.0, 100), "seed": seed}
        taken, energies = {}, {}
        for backend in ("jax", "numba"):
            call = functools.partial(Annealer().sample, bqm, backend=backend, **options)
            # The first of two compiles.
            taken[backend], found = min((timed_by_the_clock(call) for _ in range(2)), key=lambda pair: pair[0])
            energies[backend] = float(found.record.energy.mean())
        rows: list[Row] = [
            {"section": "device", "problem": problem, "sampler": f'backend="{backend}"'}
            | {"seconds": taken[backend], "mean_energy": energies[backend]}
            for backend in taken
        ]
        rows[-1]["summary"] = (
            f"{problem}: {taken['jax'] * 1e3:.0f} ms with JAX, {taken['numba'] * 1e3:.0f} ms with numba; "
            f"mean energy {energies['jax']:.6g} against {energies['numba']:.6g}"
        )
        yield from rows
