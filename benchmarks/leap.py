"""Leap, on the loopback service: from a network to QPU answers and back; faults, kills and budgets.

    python benchmarks/leap.py --out out/leap                            # half an hour; rows that are there are kept
    python benchmarks/leap.py --sections network --out out/leap
    python benchmarks/leap.py --quick --out /tmp/leap                   # seconds

Sections. `network`: MLPNet's first layer with 5 % of each neuron's inputs kept, chosen by binary quadratic models that are
solved and refitted in turn, once by the local annealer and once by parts on a Zephyr Z12 with 5 % defects; the same calibration
images, refit and seed; accuracy on the last 10,000 training images (`--split test` for the test set). `faults`: 200 jobs while
30 % of all requests go wrong, in each of seven ways equally often, and 9 % of all jobs, in each of three. `kills`: SIGKILL at
50 random moments, each with a resume after it. `budget`: a plan of three times the budget.

Every answer here is classical (simulated annealing in the loopback server), and every row says so: what is measured is the way
to a quantum annealer and back, not the annealer.
"""

import argparse
import csv
import json
import os
import random
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from rows import settle, whole_lines, write_whole

os.environ["DWAVE_CACHE_HOME"] = "off"

from dwave.system import DWaveSampler

from annealsubnet import Annealer, evaluate, examples, leap, prune
from annealsubnet.leap.connection import LeapError
from annealsubnet.leap.ledger import Ledger
from annealsubnet.leap.patience import Patience
from annealsubnet.leap.running import Pace
from annealsubnet.networks import as_network
from annealsubnet.problems import Problem
from annealsubnet.testing import Faults, LoopbackLeap
from annealsubnet.testing.faults import JOB_FAULTS, REQUEST_FAULTS

PATIENCE = Patience(attempts=8, first=0.02, most=0.2, poll_seconds=2)
SECTIONS = ("network", "faults", "kills", "budget")
ROUTES = {"network": ("whole network", "local annealer", "parts on a QPU", "exact select-and-refit")}


@contextmanager
def service(**options: Any) -> Iterator[tuple[LoopbackLeap, DWaveSampler]]:
    """A loopback service and a sampler made while nothing goes wrong yet."""
    faults = options.pop("faults", None)
    with LoopbackLeap(**options) as server, DWaveSampler(**server.config) as sampler:
        if faults is not None:
            server.begin_faults(faults)
        yield server, sampler


def many_jobs(solver: DWaveSampler, count: int, seed: int) -> leap.Plan:
    """A plan of `count` small jobs: a few problems side by side, under as many spin-reversal transforms."""
    rng = np.random.default_rng(seed)
    problems = []
    for size in range(3, 9):
        upper = np.triu(rng.normal(size=(size, size)), 1)
        problems.append(Problem(rng.normal(size=size), upper + upper.T))
    return leap.plan(problems, solver, seed=seed, spin_reversals=count, num_reads=5 * count, annealing_time=5.0)


def settled(server: LoopbackLeap, path: Path) -> dict[str, Any]:
    """What became of every job; raises if one was lost or accepted twice."""
    with Ledger(path) as ledger:
        entries = ledger.entries()
    accepted = server.labels
    twice = sum(times > 1 for times in accepted.values())
    known = {entry.label for entry in entries}
    lost = len(set(accepted) - known) + sum(not entry.reason for entry in entries if entry.state != "completed")
    paid = {job.label for job in server.jobs if job.status == "COMPLETED"}
    unfetched = sum(entry.label in paid and entry.state not in ("completed", "unresolved") for entry in entries)
    states = Counter(entry.state for entry in entries)
    return {
        "jobs": len(entries),
        **{state: states.get(state, 0) for state in ("completed", "failed", "unresolved", "planned")},
        "accepted": len(accepted),
        "submitted_twice": twice,
        "lost": lost + unfetched,
        "reported_seconds": server.qpu_seconds,
    }


def faults(quick: bool, seed: int, folder: Path) -> dict[str, Any]:
    """200 jobs while 30 % of all requests and 9 % of all jobs go wrong."""
    count = 30 if quick else 200
    rates = {**dict.fromkeys(REQUEST_FAULTS, 0.3 / len(REQUEST_FAULTS)), **dict.fromkeys(JOB_FAULTS, 0.09 / len(JOB_FAULTS))}
    with service(size=3, seed=seed, faults=Faults(rates, seed=seed, slow_seconds=0.1)) as (server, solver):
        plan, path, resumes = many_jobs(solver, count, seed), folder / "jobs.sqlite", 0
        began = time.perf_counter()
        try:
            plan.submit(budget_seconds=1e3, ledger=path, solver=solver, pace=Pace(batch=5), patience=PATIENCE)
        except LeapError as error:
            print(f"  stopped: {error}")
            while resumes < 20:
                resumes += 1
                try:
                    leap.resume(path, solver=solver, pace=Pace(batch=5), patience=PATIENCE)
                    break
                except LeapError as again:
                    print(f"  stopped: {again}")
        row = {**settled(server, path), "seconds": time.perf_counter() - began, "resumes": resumes}
        return {**row, "requests": sum(server.service.requests.values()), "faults": dict(server.faults_thrown)}


ZYGOTE = """
import os, signal, sys, time
import dwave.cloud.api
from annealsubnet.leap.patience import Patience
from annealsubnet.leap.resuming import resume
from annealsubnet.leap.running import Pace
for line in sys.stdin:
    child = os.fork()
    if child == 0:
        code = 1
        try:
            patience = Patience(first=0.02, most=0.2, poll_seconds=2, seed=os.getpid())
            resume(sys.argv[1], pace=Pace(batch=4, in_flight=12), patience=patience)
            code = 0
        finally:
            os._exit(code)
    time.sleep(float(line))
    os.kill(child, signal.SIGKILL)
    print(int(os.WIFSIGNALED(os.waitpid(child, 0)[1])), flush=True)
"""


def kills(quick: bool, seed: int, folder: Path) -> dict[str, Any]:
    """SIGKILL at random moments. Processes are forked from one that has imported everything, so that they die at work."""
    count, times = (40, 4) if quick else (1000, 50)
    rng = random.Random(seed)
    with service(size=3, seed=seed, latency=0.03) as (server, solver):
        plan, path = many_jobs(solver, count, seed), folder / "jobs.sqlite"
        began = time.perf_counter()
        plan.submit(budget_seconds=1e3, ledger=path, solver=solver, pace=Pace(seconds=0.0), patience=PATIENCE)
        environment = {**os.environ, **server.environment}
        zygote = subprocess.Popen(
            [sys.executable, "-c", ZYGOTE, str(path)], env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        assert zygote.stdin is not None and zygote.stdout is not None
        killed, unfinished = 0, 0
        for _ in range(times):
            zygote.stdin.write(f"{rng.uniform(0.02, 0.6):.4f}\n")
            zygote.stdin.flush()
            killed += int(zygote.stdout.readline())
            unfinished += bool(settled_states(path).keys() & {"planned", "sending", "submitted"})
        zygote.stdin.close()
        zygote.wait()
        before = settled_states(path)
        leap.resume(path, solver=solver, patience=PATIENCE)
        seconds = time.perf_counter() - began
        return {
            **settled(server, path),
            "seconds": seconds,
            "killed_at_work": killed,
            "kills_before_the_end": unfinished,
            "states_before_the_last_resume": before,
        }


def settled_states(path: Path) -> dict[str, int]:
    with Ledger(path) as ledger:
        return dict(Counter(entry.state for entry in ledger.entries()))


def budget(quick: bool, seed: int, folder: Path) -> dict[str, Any]:
    """A third of what the plan would cost; what is reported is compared with what was allowed."""
    with service(size=3, seed=seed) as (server, solver):
        plan = many_jobs(solver, 30 if quick else 200, seed)
        allowed = plan.qpu_seconds / 3
        found = plan.submit(budget_seconds=allowed, ledger=folder / "jobs.sqlite", solver=solver, patience=PATIENCE)
        row = settled(server, folder / "jobs.sqlite")
        return {
            **row,
            "predicted_seconds": plan.qpu_seconds,
            "allowed_seconds": allowed,
            "kept": found.spending.reported <= allowed,
        }


def images(name: str, seed: int, split: str, calibration: int) -> tuple[Any, list[Any], list[Any]]:
    """A network, calibration batches and images to measure on."""
    named = examples.named_network(name)
    if name == "digits-mlp":
        data = examples.load("digits", seed=0)
        train = data.batches("train", 500, normalize=named.normalize)
        model = examples.train(named.build(seed=0), train, seed=0, epochs=20, learning_rate=3e-3)
        x, y = (np.concatenate(parts) for parts in zip(*train, strict=True))
        held, pool = (x[-200:], y[-200:]), (x[:-200], y[:-200])
    else:
        folder = Path(os.environ["ANNEALSUBNET_DATA"])
        model = examples.load_checkpoint(name, folder / "checkpoints" / "mlpnet_mnist.npz")
        data = np.load(folder / "mnist.npz")
        x, y = (named.normalize(data["x_train"][..., None]), data["y_train"].astype(np.int64))
        pool, held = (x[:-10_000], y[:-10_000]), (x[-10_000:], y[-10_000:])
        if split == "test":
            held = (named.normalize(data["x_test"][..., None]), data["y_test"].astype(np.int64))
    chosen = np.random.default_rng(seed).permutation(len(pool[1]))[:calibration]
    batches = [(pool[0][part], pool[1][part]) for part in np.array_split(chosen, -(-len(chosen) // 1000))]
    test = [(held[0][i : i + 1000], held[1][i : i + 1000]) for i in range(0, len(held[1]), 1000)]
    return model, batches, test


def network(quick: bool, seed: int, folder: Path, split: str, route: str) -> dict[str, Any]:
    """One layer pruned by binary quadratic models, by the local annealer or on a QPU; and what to compare with."""
    name, calibration, size = ("digits-mlp", 500, 4) if quick else ("mlpnet", 20_000, 12)
    model, batches, test = images(name, seed, split, calibration)
    traced = as_network(model, batches[0][0])
    layer, kernel = list(traced.layers.items())[-1 if quick else 0]
    kept = max(1, round((0.25 if quick else 0.05) * kernel.fan_in))
    row = {"network": name, "layer": layer, "kept": kept, "of": kernel.fan_in, "neurons": kernel.outputs}
    if route == "whole network":
        return {**row, "accuracy": evaluate(model, test).accuracy}
    common: dict[str, Any] = {"unit": "weight", "scope": "neuron", "keep": {layer: kept}, "seed": seed}
    began = time.perf_counter()
    if route != "parts on a QPU":
        local = {"sampler": Annealer(), "sampler_options": {"num_reads": 8, "num_sweeps": 200}}
        _, pruned = prune(traced, batches, **(local if route == "local annealer" else {}), **common)
        seconds = time.perf_counter() - began
        return {**row, "accuracy": evaluate(pruned, test).accuracy, "seconds": seconds}
    with service(size=size, seed=seed, workers=2) as (server, solver):
        quantum = leap.LeapSampler(solver, budget_seconds=3.0, folder=folder, patience=PATIENCE, num_reads=20 if quick else 60)
        _, pruned = prune(traced, batches, sampler=quantum, **common)
        seconds = time.perf_counter() - began
        return {**row, "accuracy": evaluate(pruned, test).accuracy, "seconds": seconds, **spent(server, quantum)}


def spent(server: LoopbackLeap, quantum: leap.LeapSampler) -> dict[str, Any]:
    """What went to the QPU, and what came back."""
    parts = [answer for found in quantum.results for answer in found.parts]
    jobs = [job for found in quantum.results for job in found.jobs]
    return {
        "qpu": f"{server.solver_name}, {len(server.qpu['properties']['qubits'])} qubits",
        "jobs": len(jobs),
        "problems": sum(len(found.states) for found in quantum.results),
        "parts": len(parts),
        "left_to_local": quantum.left_to_local,
        "predicted_seconds": sum(job.entry.predicted for job in jobs),
        "reported_seconds": server.qpu_seconds,
        "chain_breaks": float(np.mean([answer.chain_breaks for answer in parts])) if parts else 0.0,
        "longest_chain": max((part.chain_length for found in quantum.results for part in found.planned), default=0),
        "improvement_over_local_starts": sum(found.improvement for found in quantum.results),
        "unresolved": sum(len(found.unresolved) for found in quantum.results),
        "note": quantum.results[0].note if quantum.results else "",
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("out/leap"))
    parser.add_argument("--sections", nargs="+", choices=SECTIONS, default=SECTIONS)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--split", choices=("validation", "test"), default="validation")
    parser.add_argument("--quick", action="store_true")
    options = parser.parse_args()
    settle(options.out / "config.json", vars(options), selecting=("sections", "seeds", "split", "out"))
    path = options.out / "rows.jsonl"
    rows = [json.loads(line) for line in whole_lines(path).splitlines()] if not options.quick else []
    done = {(row["section"], row["seed"], row["split"], row["route"]) for row in rows}
    pairs = [(section, route) for section in options.sections for route in ROUTES.get(section, ("",))]
    for section, route in pairs:
        for seed in options.seeds:
            key = {"section": section, "seed": seed, "split": options.split if route else "", "route": route}
            if tuple(key.values()) in done:
                continue
            with tempfile.TemporaryDirectory() as name:
                if section == "network":
                    row = network(options.quick, seed, Path(name), options.split, route)
                else:
                    row = {"faults": faults, "kills": kills, "budget": budget}[section](options.quick, seed, Path(name))
            rows.append({**key, "answers": "classical", **row})
            print(", ".join(f"{name} {value}" for name, value in rows[-1].items() if value != ""), flush=True)
            write_whole(path, "".join(json.dumps(row) + "\n" for row in rows))
    write_table(rows, options.out / "rows.csv")
    check(rows)


def write_table(rows: list[dict[str, Any]], path: Path) -> None:
    names = list(dict.fromkeys(name for row in rows for name in row))
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, names, lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)


def check(rows: list[dict[str, Any]]) -> None:
    """What must hold, said out loud."""
    for row in rows:
        if "submitted_twice" in row:
            assert row["submitted_twice"] == 0 and row["lost"] == 0, row
        if row["section"] == "budget":
            assert row["kept"], row
    print("No job was lost or submitted twice, and no budget exceeded.")


if __name__ == "__main__":
    main()
