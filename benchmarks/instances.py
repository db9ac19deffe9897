"""Public instances: Beasley's bqp50 to bqp1000 and thirteen G-set graphs, against their best known values.

    python benchmarks/instances.py [PATH] [--quick] [--out FOLDER] [--seconds 60] [--samplers ...]
    python benchmarks/instances.py --export FOLDER

PATH holds bqp.npz, gset.npz and best_known.json; by default $ANNEALSUBNET_DATA/instances.

- bqp: time to the best known value with 99 % confidence on all processors, by repeating reads of 30 sweeps of annealing
  and 20 of tabu search, for every instance the same; beside it, the median time that dwave-samplers' tabu search takes
  to the same value.
- gset: gap to the best known cut after a given time, on all processors, with the gap at fractions of that time.
- --export writes a hundred local problems of real networks as BQM files with their best energies.

Rows that are in the folder already are not measured again.
"""

import argparse
import csv
import functools
import json
import math
import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

os.environ.setdefault("MPLBACKEND", "agg")

import dimod
import numpy as np
from annealer import machine, write_rows
from dwave.samplers import SimulatedAnnealingSampler, TabuSampler
from local_problems import local_problems
from rows import Rows, settle

from annealsubnet.solvers import Annealer
from annealsubnet.solvers.running import default_num_threads

Row = dict[str, Any]
# Chosen on bqp250.1, bqp500.1, bqp1000.1 and bqp1000.6 among 0 to 100 sweeps and 5 to 50 of tabu search.
NUM_SWEEPS, NUM_TABU_SWEEPS = 30, 20


def load(path: Path) -> dict[str, tuple[dimod.BinaryQuadraticModel, float]]:
    """Every instance as a model to minimize and the energy of its best known value."""
    known = json.loads((path / "best_known.json").read_text())
    instances = {}
    with np.load(path / "bqp.npz") as file:
        for name, value in known["bqp"].items():
            rows, columns = file[f"{name}_ij"].T
            q = file[f"{name}_q"].astype(np.float64)
            linear = np.zeros(int(file[f"{name}_n"]))
            own = rows == columns
            np.add.at(linear, rows[own], -q[own])
            quadratic = (rows[~own], columns[~own], -2.0 * q[~own])
            bqm = dimod.BinaryQuadraticModel.from_numpy_vectors(linear, quadratic, 0.0, "BINARY")
            instances[name] = (bqm, -float(value))
    with np.load(path / "gset.npz") as file:
        for name, value in known["gset"].items():
            edges, weights = file[f"{name}_edges"], file[f"{name}_w"].astype(np.float64)
            quadratic = (edges[:, 0], edges[:, 1], weights / 2)
            linear = np.zeros(int(file[f"{name}_n"]))
            bqm = dimod.BinaryQuadraticModel.from_numpy_vectors(linear, quadratic, -weights.sum() / 2, "SPIN")
            instances[name] = (bqm, -float(value))
    return instances


def solved_time(
    bqm: dimod.BinaryQuadraticModel, best: float, schedule: dict[str, int], seed: int, limit: float
) -> tuple[float, float, float]:
    """Time to target with 99 % confidence (at least a read's on one thread), the share of reads that hit, seconds a read."""
    num_reads = max(64, min(1024, 100_000 // bqm.num_variables))
    start = time.perf_counter()
    sampleset = Annealer().sample(bqm, num_reads=num_reads, seed=seed, time_limit=limit, **schedule)
    seconds = (time.perf_counter() - start) / len(sampleset)
    hits = float((sampleset.record.energy <= best + 1e-6).mean())
    hits = min(hits, 1 - 0.5 / len(sampleset))
    repeats = max(1.0, math.log(0.01) / math.log1p(-hits)) if hits > 0 else math.inf
    return seconds * max(default_num_threads(), repeats), hits, seconds


def tabu_time(bqm: dimod.BinaryQuadraticModel, best: float, seed: int, limit: float, turns: int) -> float:
    """Median seconds of dwave-samplers' tabu search to the value; infinite if it misses it in half of the turns."""
    times = []
    for turn in range(turns):
        start = time.perf_counter()
        found = TabuSampler().sample(
            bqm, timeout=int(limit * 1000), energy_threshold=best + 1e-6, seed=seed + turn, num_reads=1
        )
        reached = found.first.energy <= best + 1e-6
        times.append(time.perf_counter() - start if reached else math.inf)
    return float(np.median(times))


def bqp(instances: dict[str, Any], earlier: list[Row], *, schedule: dict[str, int], quick: bool, seed: int) -> Iterator[Row]:
    """One row an instance that `earlier` does not have."""
    done = {row["instance"] for row in earlier}
    for name, (bqm, best) in instances.items():
        if not name.startswith("bqp") or name in done or (quick and not name.endswith(".1")):
            continue
        seconds, hits, a_read = solved_time(bqm, best, schedule, seed, 10.0)
        tabu = tabu_time(bqm, best, seed, 2.0 if quick else 5.0, 1 if quick else 5)
        row = {"section": "bqp", "instance": name, "variables": bqm.num_variables, "best_known": -best}
        print(f"{name}: {seconds:.4f} s to target, {hits:.0%} of reads; tabu {tabu:.3f} s", flush=True)
        yield row | {"seconds": seconds, "hits": hits, "seconds_a_read": a_read, "tabu_seconds": tabu}


def summary(rows: list[Row], limit: float) -> str:
    """What the rows say, in a line for bqp and one a sampler for the graphs, of what was found in `limit` seconds."""
    lines = []
    solved = [row for row in rows if row["section"] == "bqp"]
    if solved:
        ratios = [float(row["tabu_seconds"]) / float(row["seconds"]) for row in solved]
        largest = max(int(row["variables"]) for row in solved)
        at_largest = [ratio for ratio, row in zip(ratios, solved, strict=True) if int(row["variables"]) == largest]
        lines.append(
            f"{len(solved)} instances: longest {max(float(row['seconds']) for row in solved):.3f} s; tabu takes "
            f"{np.median(ratios):.1f} times as long in the median, {np.median(at_largest):.1f} times at {largest} variables"
        )
    graphs = [row for row in rows if row["section"] == "gset"]
    for sampler in dict.fromkeys(row["sampler"] for row in graphs):
        own = [row for row in graphs if row["sampler"] == sampler and float(row["seconds"]) < limit + 0.5]
        last = {row["instance"]: float(row["gap"]) for row in own}  # gaps never rise: the last is the lowest
        listed = ", ".join(f"{instance} {gap:.3f}" for instance, gap in last.items())
        lines.append(f"{sampler}: median gap {np.median(list(last.values())):.3f} % after {limit:g} s ({listed})")
    return "\n".join(lines)


def courses(bqm: dimod.BinaryQuadraticModel, seed: int) -> dict[str, Callable[[int, int, float], float]]:
    """For each sampler, (sweeps, round, seconds left) to the lowest energy of one round of reads."""
    ours, dwave, tabu = Annealer(), SimulatedAnnealingSampler(), TabuSampler()

    def own(num_sweeps: int, turn: int, left: float) -> float:
        options = {"num_reads": 32, "num_sweeps": num_sweeps, "seed": seed + turn, "time_limit": left}
        return float(ours.sample(bqm, **options).record.energy.min())

    def peer(num_sweeps: int, turn: int, left: float) -> float:
        deadline = time.perf_counter() + left
        options = {"num_reads": 8, "num_sweeps": num_sweeps, "seed": seed + turn}
        found = dwave.sample(bqm, interrupt_function=lambda: time.perf_counter() > deadline, **options)
        return float(found.record.energy.min())

    def search(num_sweeps: int, turn: int, left: float) -> float:
        return float(tabu.sample(bqm, timeout=max(1, int(left * 1000)), seed=seed + turn).first.energy)

    runs = {"annealsubnet": own, "dwave-samplers": peer, "dwave-samplers tabu": search}
    try:
        from openjij import SASampler
    except ImportError:
        return runs
    runs["openjij"] = lambda num_sweeps, turn, left: float(  # one read a call: for one seed all its reads are the same
        SASampler().sample(bqm, num_reads=1, num_sweeps=num_sweeps, seed=seed + turn).record.energy.min()
    )
    return runs


def gset(
    instances: dict[str, Any], earlier: list[Row], *, quick: bool, seed: int, seconds: float, samplers: list[str]
) -> Iterator[list[Row]]:
    """Gap against time: each sampler repeats rounds of ever more sweeps until its time is up; yields its rows on one graph."""
    done = {(row["instance"], row.get("sampler")) for row in earlier}
    for name, (bqm, best) in instances.items():
        if not name.startswith("G") or (quick and name not in ("G11", "G43")):
            continue
        for sampler, run in courses(bqm, seed).items():
            if sampler not in samplers or (name, sampler) in done:
                continue
            rows: list[Row] = []
            start, lowest, turn, num_sweeps = time.perf_counter(), math.inf, 0, 100
            while (elapsed := time.perf_counter() - start) < seconds:
                round_start = time.perf_counter()
                left = seconds - elapsed
                lowest = min(lowest, run(num_sweeps, turn, left if sampler != "dwave-samplers tabu" else min(left, 2**turn)))
                taken = time.perf_counter() - start
                row = {"section": "gset", "instance": name, "variables": bqm.num_variables, "best_known": -best}
                row |= {"sampler": sampler, "seconds": taken, "gap": 100 * (lowest - best) / abs(best)}
                rows.append(row)
                turn += 1
                if time.perf_counter() - round_start < seconds / 4:
                    num_sweeps *= 2
            print(f"{name} {sampler}: gap {rows[-1]['gap']:.3f} % after {rows[-1]['seconds']:.0f} s", flush=True)
            yield rows


def export(folder: Path, seed: int) -> None:
    """A hundred local problems as BQM files, and best.json with the lowest energy found for each."""
    folder.mkdir(parents=True, exist_ok=True)
    energies = {}
    for name, problem in local_problems(100, seed):
        bqm = problem.to_bqm()
        found = Annealer().sample(bqm, num_reads=256, num_sweeps=2000, seed=seed)
        energies[name] = float(found.first.energy)
        with (folder / f"{name}.bqm").open("wb") as file:
            file.write(bqm.to_file().read())
    (folder / "best.json").write_text(json.dumps(energies, indent=2) + "\n")
    print(f"{len(energies)} problems: {folder}")


def draw(path: Path, figure: Path, limit: float) -> None:
    """Median gap over the graphs against time, and time to target of the bqp instances against tabu's, where there are any."""
    import matplotlib.pyplot as plt

    with path.open() as file:
        rows = list(csv.DictReader(file))
    kinds = list(dict.fromkeys(row["section"] for row in rows))
    panels = plt.subplots(1, len(kinds), figsize=(5.5 * len(kinds), 4.2), layout="constrained", squeeze=False)[1][0]
    for kind, axes in zip(kinds, panels, strict=True):
        own = [row for row in rows if row["section"] == kind]
        (_draw_bqp if kind == "bqp" else functools.partial(_draw_gset, limit=limit))(axes, own)
        axes.legend()
    plt.gcf().savefig(figure, dpi=150)


def _draw_gset(axes: Any, rows: list[Row], limit: float) -> None:
    times = np.geomspace(0.05, limit + 0.5, 80)
    for sampler in dict.fromkeys(row["sampler"] for row in rows):
        gaps = []
        for instance in dict.fromkeys(row["instance"] for row in rows):
            own = [row for row in rows if row["instance"] == instance and row["sampler"] == sampler]
            course = [[float(row["gap"]) for row in own if float(row["seconds"]) <= moment] for moment in times]
            gaps.append([min(seen) if seen else math.nan for seen in course])
        axes.plot(times, np.median(gaps, axis=0), label=sampler)  # drawn from where every graph has a first state
    axes.set(xscale="log", xlabel="seconds", ylabel="median gap (%)", title="G-set")


def _draw_bqp(axes: Any, rows: list[Row]) -> None:
    for column, label in (("seconds", "annealsubnet"), ("tabu_seconds", "dwave-samplers tabu")):
        axes.plot([float(row["variables"]) for row in rows], [float(row[column]) for row in rows], "o", label=label)
    axes.set(xscale="log", yscale="log", xlabel="variables", ylabel="time to target (s)", title="bqp")


def main() -> None:
    everything = ["annealsubnet", "dwave-samplers", "openjij", "dwave-samplers tabu"]
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("path", type=Path, nargs="?", help="folder with bqp.npz, gset.npz and best_known.json")
    parser.add_argument("--quick", action="store_true", help="a few instances")
    parser.add_argument("--out", type=Path, default=Path("out/instances"))
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--seconds", type=float, default=60.0, help="for each graph and sampler")
    parser.add_argument("--samplers", nargs="+", choices=everything, default=everything, help="for the graphs")
    parser.add_argument("--sections", nargs="+", choices=["bqp", "gset"], default=["bqp", "gset"])
    parser.add_argument("--num-sweeps", type=int, default=NUM_SWEEPS, help="of annealing a read, for bqp")
    parser.add_argument("--num-tabu-sweeps", type=int, default=NUM_TABU_SWEEPS, help="of tabu search a read, for bqp")
    parser.add_argument("--instances", nargs="+", metavar="NAME", help="only these")
    parser.add_argument("--export", type=Path, help="write local problems to this folder, and nothing else")
    chosen = parser.parse_args()
    if chosen.export:
        export(chosen.export, chosen.seed)
        return
    if chosen.path is None and "ANNEALSUBNET_DATA" not in os.environ:
        parser.error("give the folder of the instances, or set ANNEALSUBNET_DATA.")
    path = chosen.path or Path(os.environ["ANNEALSUBNET_DATA"]) / "instances"
    instances = load(path)
    first = {name: instances[name][0] for name in ("bqp50.1", "G11")}
    instances = {name: instances[name] for name in chosen.instances or instances}
    schedule = {"num_sweeps": chosen.num_sweeps, "num_tabu_sweeps": chosen.num_tabu_sweeps}
    settings = {"seed": chosen.seed, "bqp": schedule, "quick": chosen.quick, "seconds": chosen.seconds}
    settle(chosen.out / "config.json", {**settings, "peers": machine()["versions"]}, selecting=("peers",))
    for bqm in first.values():
        Annealer().sample(bqm, num_reads=16, num_sweeps=2, num_tabu_sweeps=1, seed=0)
    results = chosen.out / "results.csv"
    rows: list[Row] = list(Rows(results).read())
    if "bqp" in chosen.sections:
        for row in bqp(instances, rows[:], schedule=schedule, quick=chosen.quick, seed=chosen.seed):
            rows.append(row)
            write_rows(rows, results)
    seconds = min(chosen.seconds, 3.0) if chosen.quick else chosen.seconds
    if "gset" in chosen.sections:
        options = {"quick": chosen.quick, "seed": chosen.seed, "samplers": chosen.samplers}
        for course in gset(instances, rows[:], seconds=seconds, **options):
            rows += course
            write_rows(rows, results)
    print(summary(rows, seconds))
    draw(results, chosen.out / "instances.png", seconds)


if __name__ == "__main__":
    main()
