"""Best-subset regression of real neurons: exchange annealing against OBC, forward selection and descent, in error and time.

For every neuron of a layer z = a.w, keep k of its d inputs and refit. The layers: a random one on scikit-learn's digits (64
inputs); and where the folder ANNEALSUBNET_DATA holds them, the first layer of MLPNet (784 inputs, 40 neurons, second moments of
20,000 MNIST training images) and four layers of ResNet20 (144 to 576 inputs, patches of 1,000 CIFAR-10 training images, biases
refitted). No labels and no test data are read.

Every method is compiled, runs on one thread with the same ridge, and is timed over the whole layer, in turns, once a seed.
Times are processor seconds (equal to wall time for one thread on a quiet machine, and fair on a busy one); rows have both.
  forward     forward selection (orthogonal least squares)
  obc         backward elimination by exact rank-one updates (its time is that of all sizes at once; it has no cheaper form)
  zero        forward selection, then exchanges at temperature zero until none helps
  restarts    zero, then descents from random supports, for as long as `annealed` of the same number of sweeps took
  kicks       zero, then descents from its best supports with a quarter of the members replaced by random inputs (iterated
              local search), for as long: the strongest control at equal time that has no temperature
  annealed    forward selection, then exchange annealing with --sweeps sweeps
  bqm         the exact error only to judge by: binary quadratic models of exchanges among at most 48 inputs around the refitted
              ones, solved by `Annealer`, refitted, repeated, from the largest dense weights (what a QPU can do); once a layer

And on problems small enough for enumeration (6 of 20 inputs of the same layers) how often `annealed` finds the optimum.

The rows hold the error summed over neurons relative to their summed energy. The summary gives ratios of summed errors with a
95 % interval over neurons (bootstrap) and ratios of times measured in the same turn.

    python benchmarks/select_refit.py --out results/select_refit            # some minutes
    python benchmarks/select_refit.py --quick --out /tmp/select_refit       # under a minute, for CI
"""

import argparse
import json
import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path

import numpy as np
from rows import Rows, settle
from threadpoolctl import threadpool_limits

from annealsubnet.selection import Choice, select_weights
from annealsubnet.solvers import Annealer
from annealsubnet.solvers.select_refit import error_curves, select_inputs
from annealsubnet.statistics.moments import Regression


@dataclass(frozen=True)
class Layer:
    """Right-hand sides of the neurons of a layer and what they are made of."""

    name: str
    gram: np.ndarray
    targets: np.ndarray
    energy: np.ndarray


@dataclass(frozen=True)
class Timed:
    """Errors `[neuron]`, supports `[input, neuron]`, wall and processor seconds of one run over a layer."""

    error: np.ndarray
    kept: np.ndarray | None
    seconds: float
    cpu_seconds: float


def layer_of(name: str, inputs: np.ndarray, weights: np.ndarray) -> Layer:
    gram = inputs.T @ inputs / len(inputs)
    targets = gram @ weights
    return Layer(name, gram, targets, np.einsum("ij,ij->j", weights, targets))


def digits_layer() -> Layer:
    from sklearn.datasets import load_digits

    images = load_digits().data / 16.0
    return layer_of("digits-random", images, np.random.default_rng(0).normal(size=(64, 40)) / 8.0)


def mlpnet_layer(folder: Path) -> Layer:
    images = np.load(folder / "mnist.npz")["x_train"][:20000].reshape(20000, -1)
    weights = np.load(folder / "checkpoints" / "mlpnet_mnist.npz")["fc1.weight"].astype(np.float64)
    return layer_of("mlpnet-fc1", (images / 255.0 - 0.1307) / 0.3081, weights.T)


def resnet20_layers(folder: Path) -> list[Layer]:
    from annealsubnet.examples.checkpoints import load_checkpoint
    from annealsubnet.networks import trace
    from annealsubnet.networks.nnx_models import from_nnx
    from annealsubnet.statistics.moments import input_moments, self_regression

    images = ((np.load(folder / "cifar10.npz")["x_train"][:1000] / 255.0 - 0.5) / 0.5).astype(np.float32)
    module = load_checkpoint("resnet20", folder / "checkpoints" / "woodfisher_resnet20_cifar10.npz")
    network = trace(from_nnx(module, example=images[:2]), images[:2])
    names = ("layer1/1/conv2", "layer2/1/conv1", "layer3/1/conv1", "layer3/2/conv2")
    moments = input_moments(network, [images[i : i + 100] for i in range(0, len(images), 100)], layers=names)
    layers = []
    for name in names:
        found = self_regression(network.layers[name], moments[name], network.params).centered()
        layers.append(Layer(f"resnet20-{name}", found.gram[0], found.cross[0], found.target_energy[0]))
    return layers


def timed(run: Callable[[], tuple[np.ndarray, np.ndarray | None]]) -> Timed:
    wall, cpu = time.perf_counter(), time.process_time()
    error, kept = run()
    return Timed(error, kept, time.perf_counter() - wall, time.process_time() - cpu)


def anneal(layer: Layer, kept: int, seed: int, sweeps: int, temperature: str = "annealed") -> Timed:
    def run() -> tuple[np.ndarray, np.ndarray]:
        found = select_inputs(
            layer.gram, layer.targets, layer.energy, kept, seed=seed, num_sweeps=sweeps, temperature=temperature, num_threads=1
        )
        return found.error, found.kept

    return timed(run)


def curve(layer: Layer, kept: int, method: str) -> Timed:
    def run() -> tuple[np.ndarray, None]:
        curves = error_curves(layer.gram, layer.targets, layer.energy, method=method, max_kept=kept, num_threads=1)
        return curves.error[kept], None

    return timed(run)


def repeated(layer: Layer, kept: int, seed: int, seconds: float, kicked: int) -> Timed:
    """Descent, and descents from its best supports with `kicked` members replaced, until the time is over."""
    rng = np.random.default_rng(seed)

    def run() -> tuple[np.ndarray, np.ndarray]:
        began = time.process_time()
        best = anneal(layer, kept, seed, 0, "zero")
        error, support = best.error.copy(), best.kept.copy()
        while time.process_time() - began < seconds:
            order = rng.random(support.shape) + 2.0 * support  # members last
            start = support.copy()
            ranks = np.argsort(order, axis=0)
            np.put_along_axis(start, ranks[-kept:][:kicked], False, axis=0)
            np.put_along_axis(start, ranks[:kicked], True, axis=0)
            found = select_inputs(
                layer.gram, layer.targets, layer.energy, kept, seed=seed, temperature="zero", start=start, num_threads=1
            )
            better = found.error < error
            error[better], support[:, better] = found.error[better], found.kept[:, better]
        return error, support

    return timed(run)


def interval(mine: np.ndarray, other: np.ndarray, rng: np.random.Generator) -> tuple[float, float, float]:
    """Ratio of summed errors and its 95 % interval over neurons (rows are seeds, columns neurons)."""
    mine, other = mine.mean(axis=0), other.mean(axis=0)
    drawn = rng.integers(mine.size, size=(2000, mine.size))
    low, high = np.quantile(mine[drawn].sum(axis=1) / other[drawn].sum(axis=1), [0.025, 0.975])
    return float(mine.sum() / other.sum()), float(low), float(high)


def bqm(layer: Layer, kept: int, seed: int) -> Timed:
    """The route through binary quadratic models, of all neurons."""
    inputs, neurons = layer.targets.shape
    none = np.zeros((1, inputs))
    regression = Regression(layer.gram[None], none, layer.targets[None], np.zeros((1, neurons)), layer.energy[None], 1, False)
    ridged = layer.gram + 1e-6 * np.diag(layer.gram).mean() * np.eye(inputs)
    dense = np.linalg.solve(ridged, layer.targets)

    def run() -> tuple[np.ndarray, np.ndarray]:
        support = select_weights(
            regression,
            dense[None],
            np.full((1, neurons), kept),
            bias=np.zeros((1, neurons)),
            choice=Choice(Annealer(), {"num_reads": 4, "num_sweeps": 100, "num_threads": 1}, ridge=1e-6),
            seed=seed,
        )[0]
        found = select_inputs(
            layer.gram, layer.targets, layer.energy, kept, seed=0, start=support, temperature="greedy", num_threads=1
        )
        return found.error, support

    return timed(run)


def enumerated(layer: Layer, seed: int) -> float:
    """Share of the neurons of a layer that keep the best 6 of 20 inputs, drawn at random for all of them."""
    subsets = np.array(list(combinations(range(20), 6)))
    chosen = np.random.default_rng(seed).permutation(np.flatnonzero(np.diag(layer.gram) > 0))[:20]
    gram, targets = layer.gram[np.ix_(chosen, chosen)], layer.targets[chosen]
    found = select_inputs(gram, targets, layer.energy, 6, seed=seed, num_reads=8, num_sweeps=100)
    ridged = gram + 1e-6 * np.diag(gram).mean() * np.eye(20)
    blocks = np.linalg.inv(ridged[subsets[:, :, None], subsets[:, None, :]])
    parts = targets[subsets]
    best = layer.energy - np.einsum("sio,sij,sjo->so", parts, blocks, parts, optimize=True).max(axis=0)
    return float(np.mean(found.error <= best + 1e-9 * layer.energy))


def measure(layer: Layer, fraction: float, sweeps: list[int], seed: int, *, with_bqm: bool) -> list[dict]:
    """One turn: every method once."""
    kept = max(1, round(fraction * layer.gram.shape[0]))
    turn = {
        ("forward", 0): curve(layer, kept, "forward"),
        ("obc", 0): curve(layer, kept, "backward"),
        ("zero", 0): anneal(layer, kept, seed, 0, "zero"),
    }
    for count in sweeps:
        turn["annealed", count] = anneal(layer, kept, seed, count)
        seconds = turn["annealed", count].cpu_seconds
        turn["restarts", count] = repeated(layer, kept, seed, seconds, kept)
        turn["kicks", count] = repeated(layer, kept, seed, seconds, max(1, kept // 4))
    if with_bqm:
        turn["bqm", 0] = bqm(layer, kept, seed)
    return [
        {
            "layer": layer.name,
            "fraction": fraction,
            "kept": kept,
            "seed": seed,
            "method": method,
            "sweeps": count,
            "relative_error": run.error.sum() / layer.energy.sum(),
            "seconds": run.seconds,
            "cpu_seconds": run.cpu_seconds,
            "obc_cpu_seconds": turn["obc", 0].cpu_seconds,
            "errors": " ".join(f"{value:.8g}" for value in run.error / layer.energy.sum()),
        }
        for (method, count), run in turn.items()
    ]


def summarize(rows: list[dict]) -> list[str]:
    """Ratios of one layer and fraction; rows are the file's."""
    rng = np.random.default_rng(0)
    runs: dict[tuple[str, int], list[dict]] = {}
    for row in rows:
        runs.setdefault((row["method"], int(row["sweeps"])), []).append(row)
    errors = {key: np.array([np.fromstring(row["errors"], sep=" ") for row in found]) for key, found in runs.items()}
    lines = [f"{rows[0]['layer']}, {rows[0]['kept']} kept, seeds {sorted({int(row['seed']) for row in rows})}"]
    for (method, count), found in runs.items():
        obc = errors["obc", 0][: len(found)]
        ratio, low, high = interval(errors[method, count], obc, rng)
        turns = np.median([float(row["cpu_seconds"]) / float(row["obc_cpu_seconds"]) for row in found])
        text = f"  {method:<11}{count or '':>4}  error / OBC's {ratio:.3f} [{low:.3f}, {high:.3f}]  time / OBC's {turns:6.3f}"
        if method == "annealed":
            for other in (("zero", 0), ("restarts", count), ("kicks", count)):
                ratio, low, high = interval(errors[method, count], errors[other], rng)
                text += f"  / {other[0]} {ratio:.3f} [{low:.3f}, {high:.3f}]"
        lines.append(text)
    return lines


def run(
    out: Path,
    *,
    seeds: int = 3,
    fractions: tuple[float, ...] = (0.02, 0.05, 0.10),
    sweeps: tuple[int, ...] = (3, 10),
    bqm_seeds: int = 1,
    quick: bool = False,
    named: tuple[str, ...] = (),
) -> None:
    """Measure the turns that the file of rows does not hold yet; then summarize."""
    settings = {"sweeps": sweeps, "bqm_seeds": bqm_seeds, "seeds": seeds, "fractions": fractions, "layers": named}
    settle(out / "config.json", settings, selecting=("seeds", "fractions", "layers"))
    threadpool_limits(1)
    layers = [digits_layer()]
    folder = os.environ.get("ANNEALSUBNET_DATA")
    if folder and not quick:
        layers += [mlpnet_layer(Path(folder)), *resnet20_layers(Path(folder))]
    unknown = set(named) - {layer.name for layer in layers}
    if unknown:
        raise SystemExit(f"There is no layer {sorted(unknown)}; there are {[layer.name for layer in layers]}.")
    layers = [layer for layer in layers if not named or layer.name in named]
    file = Rows(out / "select_refit.csv")
    rows = file.read()
    measure(layers[0], 0.05, [1], 1, with_bqm=bqm_seeds > 0)  # compiles
    for seed in range(seeds):
        for layer in layers:
            for fraction in fractions:
                key = (layer.name, str(fraction), str(seed))
                if any((row["layer"], str(row["fraction"]), str(row["seed"])) == key for row in rows):
                    continue
                new = measure(layer, fraction, list(sweeps), seed, with_bqm=seed < bqm_seeds)
                file.append(*new)
                rows += new
                together = [row for row in rows if (row["layer"], str(row["fraction"])) == key[:2]]
                print("\n".join(summarize(together)), flush=True)
    optimal = {layer.name: float(np.mean([enumerated(layer, seed) for seed in range(5)])) for layer in layers}
    report = [f"optimal among all 6 of 20 inputs: {', '.join(f'{name} {share:.1%}' for name, share in optimal.items())}"]
    for name, fraction in dict.fromkeys((row["layer"], str(row["fraction"])) for row in rows):
        report += summarize([row for row in rows if (row["layer"], str(row["fraction"])) == (name, fraction)])
    (out / "optimal.json").write_text(json.dumps(optimal, indent=2) + "\n")
    (out / "select_refit.txt").write_text("\n".join(report) + "\n")
    print(report[0])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("results/select_refit"))
    parser.add_argument("--fractions", type=float, nargs="+", default=[0.02, 0.05, 0.10])
    parser.add_argument("--sweeps", type=int, nargs="+", default=[3, 10])
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--layers", nargs="+", default=[], help="names such as mlpnet-fc1; all by default")
    parser.add_argument("--bqm-seeds", type=int, default=1, help="seeds with which the route by quadratic models is run")
    parser.add_argument("--quick", action="store_true", help="one seed, 10 sweeps, digits only")
    options = parser.parse_args()
    if options.quick:
        options.sweeps, options.seeds = [10], 1
    run(
        options.out,
        seeds=options.seeds,
        fractions=tuple(options.fractions),
        sweeps=tuple(options.sweeps),
        bqm_seeds=options.bqm_seeds,
        quick=options.quick,
        named=tuple(options.layers),
    )


if __name__ == "__main__":
    main()
