"""What select-and-refit costs in large layers: time and memory of Dense layers of 768 to 4096 inputs at 2:4 and at 50 %.

    python benchmarks/weight_cost.py --out out/cost
    python benchmarks/weight_cost.py --quick --out /tmp/cost

The inputs are synthetic: rectified mixtures whose spectrum falls as 1/rank, as activations' do; the weights are normal. The
layers 768 to 3072 and 3072 to 768 are pruned whole. Of 4096 to 4096 one block of neurons is pruned, and the whole is
estimated: neurons are independent once the start, which serves all of them, is there. SparseGPT and ALPS prune the same
layer; the error is that of the layer's outputs, relative to their energy. Memory is the peak of the process so far, beside
what d² numbers and the weights take.
"""

import argparse
import resource
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from rows import Rows, settle

from annealsubnet.baselines.alps import alternate
from annealsubnet.baselines.layerwise import Task
from annealsubnet.baselines.sparsegpt import prune_in_order
from annealsubnet.patterns import parse_pattern
from annealsubnet.solvers.select_refit import select_inputs

LAYERS = ((768, 3072, 3072), (3072, 768, 768), (4096, 4096, 64))
"""Inputs, neurons, and neurons that are pruned."""
RIDGE = 1e-2


def layer(inputs: int, neurons: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Second moment and weights of a layer."""
    rng = np.random.default_rng(seed)
    examples = 4 * inputs
    mixed = (rng.normal(size=(examples, inputs)) / np.sqrt(np.arange(1, inputs + 1))) @ (
        rng.normal(size=(inputs, inputs)) / np.sqrt(inputs)
    )
    active = np.maximum(mixed / mixed.std(axis=0) + 0.3 * rng.normal(size=mixed.shape), 0.0)
    return active.T @ active / examples, rng.normal(size=(inputs, neurons)) / np.sqrt(inputs)


def peak() -> float:
    """Peak memory of the process in MiB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def methods(gram: np.ndarray, weights: np.ndarray, pattern: str | None) -> dict[str, Callable[[], np.ndarray]]:
    """From nothing to the weights that each method leaves."""
    inputs, neurons = weights.shape
    task = Task(gram, weights, np.full(neurons, inputs // 2), parse_pattern(pattern) if pattern else None)
    targets = gram @ weights
    energy = np.einsum("io,io->o", weights, targets)

    def ours(temperature: Any, sweeps: int) -> np.ndarray:
        size = {"pattern": pattern} if pattern else {"num_kept": inputs // 2}
        found = select_inputs(
            gram, targets, energy, **size, seed=0, ridge=RIDGE, temperature=temperature, num_sweeps=sweeps, start="splitting"
        )
        return found.coefficients

    return {
        "sparsegpt": lambda: prune_in_order(task, block=128, ridge=RIDGE)[1],
        "alps": lambda: alternate(task, ridge=RIDGE, penalty=0.1, max_iterations=300, refinement=10)[1],
        "start": lambda: ours("greedy", 0),
        "descent": lambda: ours("zero", 0),
        "annealed 1 sweep": lambda: ours("annealed", 1),
    }


def run(out: Path, layers: tuple[tuple[int, int, int], ...] = LAYERS, names: list[str] | None = None) -> list[dict[str, Any]]:
    """Measure what the file of rows does not hold yet."""
    settle(out / "config.json", {"layers": layers, "ridge": RIDGE}, selecting=("layers",))
    file = Rows(out / "cost.csv")
    rows: list[dict[str, Any]] = list(file.read())
    done = {(row["layer"], row["pattern"], row["method"]) for row in rows}
    for inputs, neurons, measured in layers:
        gram, weights = layer(inputs, measured)
        targets = gram @ weights
        total = float(np.einsum("io,io->", weights, targets))
        for pattern in ("2:4", None):
            for name, method in methods(gram, weights, pattern).items():
                key = (f"{inputs} to {neurons}", pattern or "50 %", name)
                if key in done or (names is not None and name not in names):
                    continue
                before, began = peak(), time.perf_counter()
                found = method()
                seconds = time.perf_counter() - began
                gap = weights - found
                row = {
                    "layer": key[0],
                    "pattern": key[1],
                    "method": name,
                    "neurons_measured": measured,
                    "relative_error": f"{np.einsum('io,io->', gap, gram @ gap) / total:.6g}",
                    "seconds": f"{seconds:.2f}",
                    "peak_mib": f"{peak():.0f}",
                    "peak_before_mib": f"{before:.0f}",
                    "gram_mib": f"{inputs * inputs * 8 / 2**20:.0f}",
                    "weights_mib": f"{inputs * neurons * 8 / 2**20:.0f}",
                }
                file.append(row)
                rows.append(row)
                print(", ".join(f"{name} {value}" for name, value in row.items()), flush=True)
    write_table(rows, out)
    return rows


def write_table(rows: list[dict[str, Any]], out: Path) -> None:
    """The rows as Markdown; where only a block was measured, the whole layer's time is estimated."""
    lines = ["| layer | zeros | method | relative error | seconds | estimated for the layer | peak memory |", "|---" * 7 + "|"]
    start = {(row["layer"], row["pattern"]): float(row["seconds"]) for row in rows if row["method"] == "start"}
    for row in rows:
        neurons, measured = int(row["layer"].split(" to ")[1]), int(row["neurons_measured"])
        seconds, common = float(row["seconds"]), start.get((row["layer"], row["pattern"]), 0.0)
        whole = seconds if neurons == measured or row["method"] in ("sparsegpt", "alps") else None
        if whole is None:
            whole = common + (seconds - common) * neurons / measured
        shown = "" if neurons == measured else f"{whole / 60:.0f} min" if row["method"] not in ("sparsegpt", "alps") else ""
        lines.append(
            f"| {row['layer']}{'' if neurons == measured else f' ({measured} neurons)'} | {row['pattern']} | {row['method']} | "
            f"{float(row['relative_error']):.4f} | {seconds:.1f} | {shown} | {row['peak_mib']} MiB |"
        )
    (out / "cost.md").write_text("\n".join(lines) + "\n")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("out/cost"))
    parser.add_argument("--methods", nargs="+")
    parser.add_argument("--quick", action="store_true", help="a layer of 128 inputs: seconds, for CI")
    options = parser.parse_args()
    layers = ((128, 32, 32), (256, 64, 16)) if options.quick else LAYERS
    run(options.out, layers, options.methods)
    print((options.out / "cost.md").read_text())


if __name__ == "__main__":
    main()
