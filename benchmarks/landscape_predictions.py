"""What each model of the loss predicts for many neurons switched off at once, against what comes.

The first layer of 784-256-256-10 on MNIST (digits, 128 neurons with --quick), random and trained, all gates open, the loss on
100 images. r neurons are switched off, neighbors on the ring of windows or anywhere, 200 draws each (100 with --quick). Models:

- averaged: coefficients of the measured tables of K + 1 = 7 neighbors, each the mean over its windows (`measure_landscape`);
- pairs: the same without products of three and more;
- tables: the tables themselves added up and divided by K + 1, the most that can be done without coefficients;
- singles: the measured change of each neuron alone, added up;
- gradient; Gauss-Newton: derivatives by the gates, with the full matrix of curvatures (`gate_curvature`).

Columns are the root mean square error over that of the actual change (1: no better than predicting nothing), and the
correlation.
"""

import argparse
import csv
import json
import time
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from annealsubnet import examples
from annealsubnet.landscapes import Landscape, mobius, ring_windows, zeta
from annealsubnet.landscapes.measured import averaged, measured_tables
from annealsubnet.losses import cross_entropy
from annealsubnet.networks import Network, as_network
from annealsubnet.report import provenance
from annealsubnet.statistics.gates import gate_curvature, gate_gradients
from annealsubnet.tickets import initialize

SITE = "fc1"
FLIPS = (1, 2, 4, 7, 16, 32)
FIELDS = ("network", "where", "flips", "model", "relative_rms_error", "correlation", "rms_change")


def network_of(kind: str, quick: bool, seed: int) -> tuple[Network, list[Any]]:
    """The network and the batch that the loss is taken on."""
    named = examples.named_network("digits-mlp" if quick else "mnist-mlp")
    data = examples.load(named.data, seed=seed)
    batches = list(data.batches("train", 100, normalize=named.normalize, examples=100))
    model = named.build(seed=seed)
    if kind == "trained":
        model = examples.train(model, data.batches("train", 1000, normalize=named.normalize), seed=seed, epochs=2)
    else:
        model = initialize(model, example=batches[0][0], seed=seed)
    return as_network(model, batches[0][0]), batches


def losses(network: Network, batches: list[Any], states: np.ndarray) -> np.ndarray:
    """The mean loss at every state of the site's gates, `[states]`."""
    inputs, labels = batches[0]

    @jax.jit
    def run(gates: jax.Array) -> jax.Array:
        return jax.lax.map(
            lambda gate: cross_entropy.value(network.run(network.params, inputs, gates={SITE: gate})[0], labels).mean(), gates
        )

    return np.asarray(run(jnp.asarray(states, jnp.float32)), np.float64)


def truncated(tables: np.ndarray, degree: int) -> np.ndarray:
    """Tables over flips without products of more than `degree` of them."""
    coefficients = mobius(tables)
    sizes = np.array([setting.bit_count() for setting in range(tables.shape[1])])
    return zeta(np.where(sizes <= degree, coefficients, 0.0))


def models_of(network: Network, batches: list[Any], neighbors: int) -> tuple[dict[str, Any], float]:
    """For each model, a function from flips `[draws, neurons]` to the predicted change; and the seconds of measuring."""
    size = network.neurons[SITE].size
    windows, open_gates = ring_windows(size, neighbors), np.ones(size)
    begin = time.process_time()
    raw = measured_tables(network, batches, windows, open_gates > 0, {}, site=SITE, loss=cross_entropy)
    seconds = time.process_time() - begin
    # At open gates a table over gates is one over flips read backwards.
    flipped = averaged(windows, raw, open_gates > 0).tables[:, ::-1]
    lands = {
        "averaged": Landscape(windows, flipped, size),
        "pairs": Landscape(windows, truncated(flipped, 2), size),
        "singles": Landscape(windows, truncated(flipped, 1), size),
        "tables": Landscape(windows, raw / (neighbors + 1), size),
    }
    predictions: dict[str, Any] = {
        name: lambda flips, land=land: land.energy(flips) - land.energy(np.zeros(size)) for name, land in lands.items()
    }
    gradient = gate_gradients(network, batches, sites=[SITE]).mean
    curvature = gate_curvature(network, batches, sites=[SITE], form="full").curvature
    predictions["gradient"] = lambda flips: -flips @ gradient
    predictions["Gauss-Newton"] = lambda flips: -flips @ gradient + 0.5 * np.einsum("di,ij,dj->d", flips, curvature, flips)
    return predictions, seconds


def rows_of(kind: str, quick: bool, seed: int, neighbors: int) -> list[tuple[Any, ...]]:
    """One network: every number of flips, near and far, every model."""
    network, batches = network_of(kind, quick, seed)
    predictions, seconds = models_of(network, batches, neighbors)
    print(f"{kind}: tables measured in {seconds:.1f} s of processor time", flush=True)
    size, draws, rng = network.neurons[SITE].size, 100 if quick else 200, np.random.default_rng(seed)
    rows = []
    for where in ("neighbors", "anywhere"):
        for count in FLIPS:
            flips = np.zeros((draws, size))
            for draw in flips:
                start = rng.integers(size)
                draw[(start + np.arange(count)) % size if where == "neighbors" else rng.choice(size, count, replace=False)] = 1
            values = losses(network, batches, np.concatenate([np.ones((1, size)), 1 - flips]))
            actual = values[1:] - values[0]
            scale = np.sqrt((actual**2).mean())
            for name, predict in predictions.items():
                predicted = predict(flips)
                error = float(np.sqrt(((predicted - actual) ** 2).mean()) / scale)
                rows.append((kind, where, count, name, error, float(np.corrcoef(predicted, actual)[0, 1]), float(scale)))
    return rows


def table_of(rows: list[tuple[Any, ...]]) -> str:
    """Error (correlation) of each model by network, place and number of flips."""
    names = list(dict.fromkeys(row[3] for row in rows))
    lines = ["| network | flips | rms change | " + " | ".join(names) + " |", "|---" * (3 + len(names)) + "|"]
    for kind, where, count, scale in dict.fromkeys((row[0], row[1], row[2], row[6]) for row in rows):
        cells = [f"{row[4]:.3f} ({row[5]:.2f})" for row in rows if row[:3] == (kind, where, count)]
        lines.append(f"| {kind} | {count} {where} | {scale:.4f} | " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--neighbors", type=int, default=6)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=Path("landscape-predictions-results"))
    parser.add_argument("--quick", action="store_true", help="digits and small windows: seconds, for CI")
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    neighbors = 2 if options.quick else options.neighbors
    rows = [row for kind in ("random", "trained") for row in rows_of(kind, options.quick, options.seed, neighbors)]
    with (options.out / "rows.csv").open("w", newline="") as file:
        csv.writer(file).writerows([FIELDS, *rows])
    config = {"neighbors": neighbors, "seed": options.seed, "versions": provenance.versions(), "machine": provenance.machine()}
    (options.out / "config.json").write_text(json.dumps(config, indent=2) + "\n")
    (options.out / "table.md").write_text(table_of(rows))
    print(table_of(rows))


if __name__ == "__main__":
    main()
