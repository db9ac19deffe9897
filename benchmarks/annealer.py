"""How fast and how good the annealer is, against dwave-samplers and openjij, in turns in one run, one thread each.

    python benchmarks/annealer.py [--quick] [--out FOLDER] [--sections NAME ...] [--device gpu]

- speed: spin updates a second with the same schedule for all; medians of processor seconds over turns; mean energies
  beside them.
- target: time to target with 99 % confidence on local problems, the best over schedules for each side.
- cardinality: exact-count problems against squared penalties over a sweep of strengths.
- many: thousands of problems in one call, and what a call costs beyond the annealing.
- threads: the same work on one thread and on two.
- compilation: the first call, without and with the kernels in the cache (not with --quick).
- device (with --device): spin updates a second of the JAX kernels on an accelerator, and the memory they move.

The control is temperature zero: descent by the same moves for the same time. Compilation is left out of every timing and
reported beside it. Rows go to `results.csv`, the configuration, versions and machine to `config.json`, the figure is
drawn from them.
"""

import argparse
import csv
import functools
import io
import json
import os
import platform
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable
from importlib.metadata import version
from pathlib import Path
from typing import Any

os.environ.setdefault("MPLBACKEND", "agg")

import numpy as np
from annealer_comparisons import SECTIONS
from annealer_device import device
from rows import write_whole

import annealsubnet


def machine() -> dict[str, Any]:
    """What the figures depend on."""
    model = platform.processor()
    if Path("/proc/cpuinfo").exists():
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        model = next((line.split(":")[1].strip() for line in lines if line.startswith("model name")), model)
    packages = ["annealsubnet", "numpy", "numba", "dimod", "dwave-samplers", "openjij"]
    versions = {}
    for package in packages:
        try:
            versions[package] = version(package)
        except Exception:
            versions[package] = "not installed"
    return {"processor": model, "processors": os.cpu_count(), "python": platform.python_version(), "versions": versions}


_SETUP = """
import time, dimod, numpy as np, numba, scipy.sparse, annealsubnet as asn
from annealsubnet.solvers import select_refit, select_refit_units
rng = np.random.default_rng(0)
pair = dimod.BinaryQuadraticModel({0: 1.0, 1: -1.0}, {(0, 1): 0.5}, 0.0, "BINARY")
ring = dimod.BinaryQuadraticModel({}, {(i, (i + 1) % 400): 0.5 for i in range(400)}, 0.0, "BINARY")
gram, targets = np.eye(8), rng.normal(size=(8, 3))
energy = (targets**2).sum(axis=0)
start = time.process_time()
"""
_CALLS = {
    "sample, dense": "asn.Annealer().sample(pair, seed=0)",
    "sample, sparse": "asn.Annealer().sample(ring, seed=0)",
    "sample, tabu": "asn.Annealer().sample(pair, num_tabu_sweeps=1, seed=0)",
    "sample_many": "asn.Annealer().sample_many(np.zeros((2, 3)), np.zeros((2, 3, 3)), seed=0)",
    "select_inputs": "select_refit.select_inputs(gram, targets, energy, 4, seed=0)",
    "select_units": "select_refit_units.select_units(gram, targets, energy, 4, seed=0)",
}


def compilation() -> list[dict[str, Any]]:
    """Processor seconds of the first call in a process without, and then with, the kernels in the cache."""
    rows = []
    for problem, call in _CALLS.items():
        with tempfile.TemporaryDirectory() as cache:
            paths = os.pathsep.join([str(Path(annealsubnet.__file__).parents[1]), os.environ.get("PYTHONPATH", "")])
            environment = os.environ | {"NUMBA_CACHE_DIR": cache, "PYTHONPATH": paths}
            taken = []
            for name in ("first call, compiling", "first call, from the cache"):
                command = [sys.executable, "-c", f"{_SETUP}{call}; print(time.process_time() - start)"]
                found = subprocess.run(command, env=environment, check=True, capture_output=True, text=True)
                taken.append(float(found.stdout))
                rows.append({"section": "compilation", "problem": problem, "sampler": name, "seconds": taken[-1]})
        rows[-1]["summary"] = f"{problem}: first call {taken[0]:.1f} s, in later processes {taken[1]:.2f} s"
    return rows


def write_rows(rows: list[dict[str, Any]], path: Path) -> None:
    """All rows in one table."""
    names = list(dict.fromkeys(name for row in rows for name in row))
    table = io.StringIO(newline="")
    writer = csv.DictWriter(table, names, lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    write_whole(path, table.getvalue())


def draw(path: Path, figure: Path) -> None:
    """The figure, from the table alone."""
    import matplotlib.pyplot as plt

    with path.open() as file:
        rows = list(csv.DictReader(file))
    axes = plt.subplots(1, 2, figsize=(11, 4.2), layout="constrained")[1]
    speed = [row for row in rows if row["section"] == "speed" and row.get("updates_a_second")]
    problems = list(dict.fromkeys(row["problem"] for row in speed))
    samplers = list(dict.fromkeys(row["sampler"] for row in speed if row["sampler"] != "temperature zero"))
    for offset, sampler in enumerate(samplers):
        rates = {row["problem"]: float(row["updates_a_second"]) / 1e6 for row in speed if row["sampler"] == sampler}
        positions = [problems.index(name) + offset * 0.8 / len(samplers) for name in rates]
        axes[0].bar(positions, list(rates.values()), 0.75 / len(samplers), label=sampler)
    scale = "log" if speed else "linear"
    axes[0].set(ylabel="spin updates a second (millions)", yscale=scale, title="Same schedule, one thread")
    axes[0].set_xticks(range(len(problems)), problems, rotation=20)
    if speed:
        axes[0].legend()
    target = [row for row in rows if row["section"] == "target"]
    for sampler in dict.fromkeys(row["sampler"] for row in target):
        seconds = np.sort([float(row["seconds"]) for row in target if row["sampler"] == sampler])
        axes[1].plot(seconds * 1e3, np.linspace(0, 1, len(seconds)), label=sampler)
    scale = "log" if target else "linear"
    axes[1].set(xscale=scale, xlabel="time to target, 99 % (ms)", ylabel="share of problems", title="Local problems")
    if target:
        axes[1].legend()
    plt.gcf().savefig(figure, dpi=150)


def main(arguments: Iterable[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="small sizes, under a minute")
    parser.add_argument("--out", type=Path, default=Path("out/annealer"))
    parser.add_argument("--seed", type=int, default=0)
    usual = list(SECTIONS)
    parser.add_argument("--sections", nargs="+", choices=[*SECTIONS, "compilation"], help="only these")
    parser.add_argument("--device", choices=["cpu", "gpu", "tpu"], help="time the JAX kernels there, and nothing else")
    chosen = parser.parse_args(None if arguments is None else list(arguments))
    if chosen.device:
        os.environ["JAX_PLATFORMS"] = {"gpu": "cuda"}.get(chosen.device, chosen.device)
        chosen.sections = ["device"]
    wanted = chosen.sections or (usual if chosen.quick else [*usual, "compilation"])
    chosen.out.mkdir(parents=True, exist_ok=True)
    rows: list[dict[str, Any]] = []
    start = time.perf_counter()
    measured: dict[str, Callable[..., Iterable[dict[str, Any]]]] = SECTIONS | {"device": device}
    sections = {
        name: compilation if name == "compilation" else functools.partial(measured[name], quick=chosen.quick, seed=chosen.seed)
        for name in wanted
    }
    for name, section in sections.items():
        for row in section():
            rows.append(row)
            write_rows(rows, chosen.out / "results.csv")
            if row.get("summary"):
                print(f"{name}: {row['summary']}", flush=True)
    config = {"quick": chosen.quick, "seed": chosen.seed, "seconds": time.perf_counter() - start, **machine()}
    (chosen.out / "config.json").write_text(json.dumps(config, indent=2) + "\n")
    draw(chosen.out / "results.csv", chosen.out / "annealer.png")
    print(f"{len(rows)} rows, {config['seconds']:.0f} s: {chosen.out}")


if __name__ == "__main__":
    main()
