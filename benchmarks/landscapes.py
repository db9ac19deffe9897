"""NK landscapes: how long tables take to measure, and which moves find the exact optimum.

- random: 100 instances (N = 256, K = 6, ring, tables uniform); the optimum by dynamic programming, and annealing by blocks as
  it comes by default, again with other seeds until it meets the optimum or ten seconds of one processor are over.
- moves: on the first 20, flips and blocks of several sizes, annealed and at temperature zero, each repeated with other seeds
  for the same processor time (planning of blocks included): the share in which they meet the optimum, and how far above it
  they are on average.
- scattered: windows of random neighbors instead of a ring. N = 48, K = 2 against the optimum by tree decomposition; N = 256,
  K = 6, whose width no exact method can take, flips and blocks against the better of both.
- measured: the first layer of 784-256-256-10 on MNIST, random and trained (digits, 64 neurons with --quick), windows of K + 1
  neighbors among its neurons, the loss on 100 images in all 2^(K+1) settings of every window; times, and annealing against
  dynamic programming.
- reduced: dwave-samplers on the degree-reduced model (`Landscape.to_bqm`) of the first three random instances.
"""

import argparse
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from dwave.samplers import SimulatedAnnealingSampler
from rows import Rows, settle

from annealsubnet import Mask, evaluate, examples
from annealsubnet.landscapes import Landscape, anneal, measure_landscape, random_landscape, ring_windows, solve_ring, solve_tree
from annealsubnet.networks import as_network
from annealsubnet.tickets import initialize

FIELDS = ("section", "instance", "method", "exact", "energy", "seconds")
LIMIT = 10.0
SAME = 1e-9
Row = tuple[str, Any, str, float, float, float]

METHODS: dict[str, dict[str, Any]] = {
    "flips, annealed": {"moves": "flips", "num_reads": 2},
    "flips, temperature 0": {"moves": "flips", "num_reads": 256, "num_sweeps": 0, "temperatures": (0, 0)},
}
for _size in (8, 16, 32, 64):
    METHODS[f"blocks of {_size}, annealed"] = {"block_size": _size, "num_reads": 1}
    METHODS[f"blocks of {_size}, temperature 0"] = {
        "block_size": _size, "num_reads": 8, "num_sweeps": 5, "temperatures": (0, 0),
    }  # fmt: skip


def repeated(land: Landscape, seconds: float, least: float, **options: Any) -> tuple[float, float]:
    """The lowest energy of runs with seeds 0, 1, … until it is `least` or the time is over; and the time."""
    begin, best, seed = time.process_time(), np.inf, 0
    while best > least + SAME and (best == np.inf or time.process_time() - begin < seconds):
        best = min(best, float(anneal(land, seed=seed, num_threads=1, **options).energies.min()))
        seed += 1
    return best, time.process_time() - begin


def timed(solve: Callable[[Landscape], tuple[np.ndarray, float]], land: Landscape) -> tuple[np.ndarray, float, float]:
    """A state of least energy, its energy, and how long that took."""
    begin = time.process_time()
    state, energy = solve(land)
    return state, energy, time.process_time() - begin


def random_rows(number: int, size: int, neighbors: int) -> list[Row]:
    """The optimum of one instance, and annealing as it comes."""
    land = random_landscape(size, neighbors, seed=number)
    _, exact, seconds = timed(solve_ring, land)
    found, took = repeated(land, LIMIT, exact, num_reads=1)
    return [
        ("random", number, "dynamic programming", exact, exact, seconds),
        ("random", number, "annealed", exact, found, took),
    ]


def moves_rows(number: int, size: int, neighbors: int, seconds: float) -> list[Row]:
    """All moves for the same time."""
    land = random_landscape(size, neighbors, seed=number)
    exact = solve_ring(land)[1]
    return [("moves", number, name, exact, *repeated(land, seconds, exact, **options)) for name, options in METHODS.items()]


def scattered_rows(number: int, size: int, neighbors: int, seconds: float) -> list[Row]:
    """Flips and blocks on windows of random neighbors; `exact` is the better of both where there is no exact method."""
    land = random_landscape(size, neighbors, seed=number, ring=False)
    least = solve_tree(land)[1] if neighbors == 2 else -np.inf
    names = ["flips, annealed", "blocks of 16, annealed", "blocks of 32, annealed", "blocks of 32, temperature 0"]
    found = {name: repeated(land, seconds, least, **METHODS[name]) for name in names}
    exact = least if neighbors == 2 else min(energy for energy, _ in found.values())
    return [(f"scattered {size}, K = {neighbors}", number, name, exact, *row) for name, row in found.items()]


def measured_rows(kind: str, neighbors: int, quick: bool, seed: int) -> list[Row]:
    """Times and energies of a measured landscape; the last rows hold losses at all open and at the predicted optimum."""
    named = examples.named_network("digits-mlp" if quick else "mnist-mlp")
    data = examples.load(named.data, seed=seed)
    batches = list(data.batches("train", 100, normalize=named.normalize, examples=100))
    model = named.build(seed=seed)
    if kind == "trained":
        model = examples.train(model, data.batches("train", 1000, normalize=named.normalize), seed=seed, epochs=2)
    else:
        model = initialize(model, example=batches[0][0], seed=seed)
    network = as_network(model, batches[0][0])
    begin = time.process_time()
    land = measure_landscape(network, batches, ring_windows(network.neurons["fc1"].size, neighbors), site="fc1")
    took = time.process_time() - begin
    state, exact, seconds = timed(solve_ring, land)
    found, annealing = repeated(land, LIMIT, exact, num_reads=1)
    actual = evaluate(network, batches, Mask.of(network, "neuron", {"fc1": state.astype(bool)})).loss
    base = float(land.energy(np.ones(land.num_variables)))
    return [
        (f"measured, {kind}", seed, "tables (energy: all open)", exact, base, took),
        (f"measured, {kind}", seed, "dynamic programming", exact, exact, seconds),
        (f"measured, {kind}", seed, "annealed", exact, found, annealing),
        (f"measured, {kind}", seed, "actual loss at that optimum", exact, actual, 0.0),
    ]


def reduced_rows(number: int, size: int, neighbors: int) -> list[Row]:
    """The degree-reduced model with dwave-samplers, read as a state of the landscape.

    Its penalties are twice the largest coefficient: those that keep every optimum are far larger, and freeze an annealer.
    """
    land = random_landscape(size, neighbors, seed=number)
    exact = solve_ring(land)[1]
    begin = time.process_time()
    strength = 2.0 * max(abs(value) for members, value in land.coefficients().items() if members)
    found = SimulatedAnnealingSampler().sample(land.to_bqm(strength=strength), num_reads=4, num_sweeps=4000, seed=0)
    kept = np.array([found.first.sample[variable] for variable in range(size)])
    return [("reduced", number, "dwave-samplers", exact, float(land.energy(kept)), time.process_time() - begin)]


def work(options: argparse.Namespace) -> list[tuple[str, int, Callable[[], list[Row]]]]:
    """(section, instance, what to run) in order."""
    quick, size, neighbors = options.quick, options.size, options.neighbors
    count, compared, few, networks = (3, 1, 1, 1) if quick else (options.instances, 20, 5, 2)
    size, neighbors, seconds = (32, 3, 0.05) if quick else (size, neighbors, 0.5)
    plan: list[tuple[str, int, Callable[[], list[Row]]]] = []
    plan += [("random", n, lambda n=n: random_rows(n, size, neighbors)) for n in range(count)]  # type: ignore[misc]
    plan += [("reduced", n, lambda n=n: reduced_rows(n, size, neighbors)) for n in range(min(count, 3))]  # type: ignore[misc]
    plan += [("moves", n, lambda n=n: moves_rows(n, size, neighbors, seconds)) for n in range(compared)]  # type: ignore[misc]
    for other, near in ((24 if quick else 48, 2), (size, neighbors)):
        name = f"scattered {other}, K = {near}"
        run = lambda n, other=other, near=near: scattered_rows(n, other, near, 2 * seconds)  # noqa: E731
        plan += [(name, n, lambda n=n, run=run: run(n)) for n in range(few)]  # type: ignore[misc]
    for kind in ("random", "trained"):
        plan += [
            (f"measured, {kind}", n, lambda n=n, kind=kind: measured_rows(kind, neighbors, quick, n))  # type: ignore[misc]
            for n in range(networks)
        ]
    return plan


def summary(rows: list[dict[str, str]]) -> str:
    """Share of optima, mean gap and mean time of every section and method."""
    lines = [
        "| section | method | instances | optimum met | mean energy above it, % | mean seconds | longest |",
        "|---" * 7 + "|",
    ]
    for section, method in dict.fromkeys((row["section"], row["method"]) for row in rows):
        own = [row for row in rows if (row["section"], row["method"]) == (section, method)]
        gaps = np.array([float(row["energy"]) - float(row["exact"]) for row in own])
        above = 100 * np.mean(gaps / np.abs([float(row["exact"]) for row in own]))
        seconds = np.array([float(row["seconds"]) for row in own])
        met = f"{(gaps <= SAME).mean():.0%}"
        lines.append(
            f"| {section} | {method} | {len(own)} | {met} | {above:.3f} | {seconds.mean():.3f} | {seconds.max():.3f} |"
        )
    return "\n".join(lines) + "\n"


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--instances", type=int, default=100)
    parser.add_argument("--size", type=int, default=256)
    parser.add_argument("--neighbors", type=int, default=6)
    parser.add_argument("--out", type=Path, default=Path("landscapes-results"))
    parser.add_argument("--quick", action="store_true", help="small instances on digits: seconds, for CI")
    options = parser.parse_args()
    settle(options.out / "config.json", vars(options), selecting=("instances", "out"))
    rows = Rows(options.out / "rows.csv", FIELDS[:2])
    for moves in ("blocks", "flips"):  # compile before anything is timed
        anneal(random_landscape(8, 2, seed=0), moves=moves, num_reads=1, num_sweeps=1, seed=0)  # type: ignore[arg-type]
    for section, number, run in work(options):
        if not rows.has(section, number):
            rows.append(*(dict(zip(FIELDS, (section, *row[1:]), strict=True)) for row in run()))
    text = summary(rows.read())
    (options.out / "table.md").write_text(text)
    print(text)


if __name__ == "__main__":
    main()
