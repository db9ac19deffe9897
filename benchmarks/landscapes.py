"""NK landscapes: how long tables take to measure, and whether an annealer finds the exact optimum.

Measured: a random 784-256-10 network on MNIST (digits with --quick), windows of K = 6 neighbors on a ring of its 256 neurons,
the loss on 100 images in all 128 settings of each window; then the exact optimum by dynamic programming, by tree
decomposition, and annealing with moves on the tables. Random: 100 NK instances (N = 256, K = 6, tables uniform), each with 10
seconds of processor time at most; the share in which annealing meets the optimum, and the gap of dwave-samplers on the
degree-reduced model (`Landscape.to_bqm`) on the first of them at the same sweeps.
"""

import argparse
import csv
import json
import time
from pathlib import Path

import numpy as np
from dwave.samplers import SimulatedAnnealingSampler

from annealsubnet import Mask, evaluate, examples
from annealsubnet.landscapes import anneal, measure_landscape, random_landscape, ring_windows, solve_ring, solve_tree
from annealsubnet.networks import as_network
from annealsubnet.report import provenance
from annealsubnet.tickets import initialize

FIELDS = ("instance", "exact", "annealed", "reduced", "seconds_exact", "seconds_annealed", "seconds_reduced")


def measured(neighbors: int, quick: bool, seed: int) -> dict[str, float]:
    """Times and energies of the measured landscape."""
    named = examples.named_network("digits-mlp" if quick else "mnist-mlp")
    data = examples.load(named.data, seed=seed)
    batches = list(data.batches("train", 100, normalize=named.normalize, examples=100))
    network = as_network(initialize(named.build(seed=seed), example=batches[0][0], seed=seed), batches[0][0])
    site = "fc2" if quick else "fc1"
    windows = ring_windows(network.neurons[site].size, neighbors)
    start = time.process_time()
    land = measure_landscape(network, batches, windows, site=site)
    took = time.process_time() - start
    start = time.process_time()
    state, least = solve_ring(land)
    exact = time.process_time() - start
    found = anneal(land, seed=seed, num_threads=1)
    mask = {site: state.astype(bool)}
    actual = evaluate(network, batches, Mask.of(network, "neuron", mask)).loss
    base = float(land.energy(np.ones(land.num_variables)))
    return {
        "seconds_measure": took, "seconds_exact": exact, "loss_at_all_open": base, "predicted_loss_at_optimum": least,
        "actual_loss_at_optimum": actual, "annealed_minus_exact": float(found.energies.min()) - least,
    }  # fmt: skip


def instance(number: int, size: int, neighbors: int, reduced: bool) -> tuple[float, ...]:
    """One random instance."""
    land = random_landscape(size, neighbors, seed=number)
    start = time.process_time()
    _, exact = solve_ring(land)
    seconds_exact = time.process_time() - start
    start = time.process_time()
    best, seed = np.inf, 0
    while time.process_time() - start < 8.0 and best > exact + 1e-9:
        best = min(best, float(anneal(land, num_reads=4, num_sweeps=4000, seed=seed, num_threads=1).energies.min()))
        seed += 1
    seconds = time.process_time() - start
    other, seconds_reduced = np.nan, np.nan
    if reduced:
        start = time.process_time()
        found = SimulatedAnnealingSampler().sample(land.to_bqm(), num_reads=4, num_sweeps=4000, seed=0)
        seconds_reduced = time.process_time() - start
        kept = np.array([found.first.sample[variable] for variable in range(size)])
        other = float(land.energy(kept))
    return exact, best, other, seconds_exact, seconds, seconds_reduced


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--instances", type=int, default=100)
    parser.add_argument("--size", type=int, default=256)
    parser.add_argument("--neighbors", type=int, default=6)
    parser.add_argument("--out", type=Path, default=Path("landscapes-results"))
    parser.add_argument("--quick", action="store_true", help="small instances on digits: seconds, for CI")
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    count, size, neighbors = (3, 32, 3) if options.quick else (options.instances, options.size, options.neighbors)
    config = {
        "instances": count, "size": size, "neighbors": neighbors,
        "versions": provenance.versions(), "machine": provenance.machine(),
    }  # fmt: skip
    (options.out / "config.json").write_text(json.dumps(config, indent=2) + "\n")
    path = options.out / "rows.csv"
    rows = list(csv.DictReader(path.open())) if path.exists() else []
    for number in range(len(rows), count):
        row = dict(zip(FIELDS, (number, *instance(number, size, neighbors, number < 3)), strict=True))
        with path.open("a", newline="") as file:
            writer = csv.DictWriter(file, FIELDS)
            if not rows:
                writer.writeheader()
            writer.writerow(row)
        rows.append({name: str(value) for name, value in row.items()})
    gaps = np.array([float(row["annealed"]) - float(row["exact"]) for row in rows])
    lost = np.array([float(row["reduced"]) / float(row["exact"]) - 1 for row in rows if row["reduced"] != "nan"])
    lines = [
        f"{(gaps < 1e-9).mean():.0%} of {len(rows)} instances solved exactly; mean processor time "
        f"{np.mean([float(row['seconds_annealed']) for row in rows]):.2f} s (exact: "
        f"{np.mean([float(row['seconds_exact']) for row in rows]):.2f} s); largest gap {gaps.max():.2e}.",
        f"Degree-reduced model with dwave-samplers: {100 * lost.mean():.1f} % above the optimum.",
    ]
    facts = options.out / "measured.json"
    if not facts.exists():
        facts.write_text(json.dumps(measured(neighbors, options.quick, 0), indent=2) + "\n")
    lines.append(f"Measured landscape: {facts.read_text()}")
    (options.out / "table.md").write_text("\n".join(lines))
    print("\n".join(lines))
    if options.quick:
        land = random_landscape(size, neighbors, seed=0)
        assert abs(solve_tree(land)[1] - solve_ring(land)[1]) < 1e-9


if __name__ == "__main__":
    main()
