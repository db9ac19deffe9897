"""Weights kept in published networks: annealed select-and-refit against the second-order methods.

    python benchmarks/weights.py --out out/weights                     # hours; rows that are there are not measured again
    python benchmarks/weights.py --sections mlpnet --sparsities .9 .95 --methods annealed obc --seeds 0
    python benchmarks/weights.py --quick --out /tmp/weights            # digits, half a minute

Sections: `mlpnet` and `resnet20` (one shot: calibration images without labels but for the methods on gradients; no training),
`mlpnet-gradual` and `resnet20-gradual` (15 stages, 240,000 examples read in all), `patterns` (2:4, both networks), `local` (one
layer at a time: see select_refit.py) and `cost` (large layers: see weight_cost.py).

Protocol. Each seed draws its own calibration images from the first part of the training set; its last part (10,000 images
of MNIST, 4,000 of the 20,000 of CIFAR-10 at hand) is for validation, on which everything is chosen (`--split validation`,
the default); the test set is read with `--split test`. Sparsity is global over all kernels. A row has the accuracy with the
method's own weights and, in one shot, with the refit that all masks get alike (Gauss-Newton on all layers together, to the
dense network's outputs, from the method's own weights or from least squares for each layer, whichever are nearer); and the
number of examples that the method and the refit read, once for each pass. BatchNorm statistics are measured again for every
network alike.
"""

import argparse
import os
import time
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import weight_methods as methods
from rows import Rows, settle
from verdicts import packed, verdicts
from weight_tables import draw

from annealsubnet import examples
from annealsubnet.networks import Network, as_network

SPARSITIES = {
    "mlpnet": (0.5, 0.7, 0.8, 0.9, 0.95, 0.98),
    "mlpnet-gradual": (0.9, 0.95, 0.98),
    "resnet20": (0.5, 0.6, 0.7, 0.8, 0.9),
    "resnet20-gradual": (0.7, 0.8, 0.9),
    "patterns": (0.5,),
    "digits": (0.9,),
}
CHECKPOINTS = {"mlpnet": "mlpnet_mnist.npz", "resnet20": "woodfisher_resnet20_cifar10.npz"}
VALIDATION = {"mlpnet": 10_000, "resnet20": 4_000}
CALIBRATION = {"mlpnet": 20_000, "resnet20": 1_000, "digits-mlp": 800}
ROWS = {"mlpnet": 1000, "resnet20": 500, "digits-mlp": 100}
FIT_STEPS = {"mlpnet": 4, "resnet20": 2, "digits-mlp": 2}
OUTSIDE = {"resnet20": ("conv1",)}
"""Layers whose fan-in no pattern divides (27 inputs)."""


@dataclass(frozen=True)
class Row:
    """One network pruned by one method; `right` are its verdicts on every image, `[state, image]`."""

    section: str
    network: str
    method: str
    sparsity: float
    seed: int
    split: str
    kept: int
    size: int
    own: float
    refitted: float
    examples: int
    refit_examples: int
    seconds: float
    refit_seconds: float
    right: str

    @property
    def key(self) -> tuple[Any, ...]:
        return self.section, self.network, self.method, self.sparsity, self.seed, self.split


@dataclass(frozen=True)
class Case:
    """A network with its data for one seed."""

    name: str
    network: Network
    calibration: methods.Counted
    pool: list[Any]
    test: list[Any]

    def right(self, model: Any) -> np.ndarray:
        """Which of the images to measure on it classifies rightly, the statistics of its BatchNorms measured again."""
        network = as_network(methods.recomputed(model, self.calibration.batches), self.test[0][0][:2])
        return verdicts(network, network.params, self.test)


def case(name: str, seed: int, split: str, calibration: int | None) -> Case:
    """A published network (or a small one trained here), calibration images, and images to measure on."""
    named = examples.named_network(name)
    if name == "digits-mlp":
        data = examples.load("digits", seed=0)
        train = data.batches("train", 500, normalize=named.normalize)
        model = examples.train(named.build(seed=0), train, seed=0, epochs=30, learning_rate=3e-3)
        x, y = (np.concatenate(parts) for parts in zip(*train, strict=True))
        held, pool = (x[-200:], y[-200:]), (x[:-200], y[:-200])
    else:
        folder = Path(os.environ["ANNEALSUBNET_DATA"])
        model = examples.load_checkpoint(name, folder / "checkpoints" / CHECKPOINTS[name])
        data = np.load(folder / {"mlpnet": "mnist.npz", "resnet20": "cifar10.npz"}[name])

        def images(part: str) -> tuple[np.ndarray, np.ndarray]:
            raw = data[f"x_{part}"]
            return named.normalize(raw.reshape(*raw.shape[:3], -1)), data[f"y_{part}"].astype(np.int64).ravel()

        x, y = images("train")
        pool = (x[: -VALIDATION[name]], y[: -VALIDATION[name]])
        held = images("test") if split == "test" else (x[-VALIDATION[name] :], y[-VALIDATION[name] :])
    chosen = np.random.default_rng(seed).permutation(len(pool[1]))[: calibration or CALIBRATION[name]]
    size = 1000 if name != "resnet20" else 200
    drawn = [(pool[0][part], pool[1][part]) for part in np.array_split(chosen, -(-len(chosen) // size))]
    test = [(held[0][i : i + 1000], held[1][i : i + 1000]) for i in range(0, len(held[1]), 1000)]
    return Case(name, as_network(model, pool[0][:2]), methods.Counted(drawn), [pool], test)


def one_shot(given: Case, section: str, name: str, method: Any, sparsity: float, seed: int, split: str) -> Row:
    """Prune once; measure with the method's own weights, and after the common refit."""
    pattern = "2:4" if section == "patterns" else None
    options = dict(methods.sizes_of(sparsity, pattern))
    if pattern:
        options["exclude"] = OUTSIDE.get(given.name, ())
    source: Any = methods.Counted(given.calibration.batches)
    if name in ("woodfisher", "surgeon", "zero-swaps", "chita"):
        source = methods.Counted(source.first(methods.GRADIENTS))
    began = time.perf_counter()
    mask, pruned = method(given.network, source, seed=seed, **options)
    seconds = time.perf_counter() - began
    refitting = methods.Counted(given.calibration.batches)
    began = time.perf_counter()
    refitted, more = methods.common_refit(given.network, mask, pruned, refitting, steps=FIT_STEPS[given.name])
    refit_seconds = time.perf_counter() - began
    right = np.stack([given.right(model) for model in (pruned, refitted.model.export(refitted.params))])
    accuracies = right.mean(axis=1).tolist()
    counts = (mask.kept_count, mask.size)
    read = (source.read, refitting.read + more)
    spent = (*read, seconds, refit_seconds)
    return Row(section, given.name, name, sparsity, seed, split, *counts, *accuracies, *spent, packed(right))


def staged(given: Case, section: str, name: str, method: Any, sparsity: float, seed: int, split: str) -> Row:
    """Prune in stages; measure the network as it comes out."""
    began = time.perf_counter()
    if method is None:
        pruned, counts, spent = methods.fine_tuned(given.network, given.pool, seed=seed), (0, 0), methods.BUDGET
    else:
        mask, pruned = method(given.network, given.pool, seed=seed, keep=round(1 - sparsity, 6))
        counts, spent = (mask.kept_count, mask.size), method.read
    seconds = time.perf_counter() - began
    right = np.stack([given.right(pruned)] * 2)
    rates = right.mean(axis=1).tolist()
    return Row(section, given.name, name, sparsity, seed, split, *counts, *rates, spent, 0, seconds, 0.0, packed(right))


def plan(
    section: str, only: list[str] | None, names: list[str] | None, sparsities: Iterable[float] | None
) -> list[tuple[str, str, Any, float]]:
    """(network, method's name, method, sparsity) of a section, in turns; of some networks and methods only, unless None."""
    networks = ["mlpnet", "resnet20"] if section == "patterns" else [section.removesuffix("-gradual")]
    networks = ["digits-mlp"] if section == "digits" else networks
    if only is not None:
        networks = [network for network in networks if network in only]
        if not networks:
            raise SystemExit(f"{section} has none of the networks {', '.join(only)}.")
    cells = []
    for sparsity in sparsities or SPARSITIES[section]:
        for network in networks:
            rows = ROWS[network]
            if section == "patterns":
                found = methods.patterned()
            elif section.endswith("-gradual"):
                found = {"dense, trained": None, **methods.staged(rows)}
            else:
                found = methods.one_shot(rows)
            chosen = [name for name in found if names is None or name in names]
            if names is not None and not chosen:
                raise SystemExit(f"{section} has none of {', '.join(names)}; it has {', '.join(found)}.")
            cells += [(network, name, found[name], sparsity) for name in chosen]
    return cells


def columns(row: Row) -> dict[str, str]:
    """A row as it is written."""
    return {name: f"{value:.6g}" if isinstance(value, float) else str(value) for name, value in asdict(row).items()}


def run(options: argparse.Namespace) -> None:
    """Measure what is missing."""
    rows = Rows(options.out / "rows.csv")
    done = {row.key for row in rows.read_as(Row)}
    cases: dict[tuple[str, int], Case] = {}
    for seed in options.seeds:
        for section in options.sections:
            if section in ("local", "cost"):
                continue
            for network, name, method, sparsity in plan(section, options.networks, options.methods, options.sparsities):
                if (section, network, name, sparsity, seed, options.split) in done:
                    continue
                if (network, seed) not in cases:
                    cases = {(network, seed): case(network, seed, options.split, options.calibration)}
                measure = staged if section.endswith("-gradual") else one_shot
                row = measure(cases[network, seed], section, name, method, sparsity, seed, options.split)
                rows.append(columns(row))
                print(
                    f"{section} {network} {name} {sparsity} seed {seed}: own {100 * row.own:.2f} refitted "
                    f"{100 * row.refitted:.2f} %, {row.seconds:.0f} + {row.refit_seconds:.0f} s",
                    flush=True,
                )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("out/weights"))
    parser.add_argument(
        "--sections",
        nargs="+",
        choices=[*SPARSITIES, "local", "cost"],
        default=[name for name in SPARSITIES if name != "digits"],
    )
    parser.add_argument("--networks", nargs="+", choices=list(CHECKPOINTS), help="only these of a section")
    parser.add_argument("--methods", nargs="+")
    parser.add_argument("--sparsities", type=float, nargs="+")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--split", choices=["validation", "test"], default="validation")
    parser.add_argument("--calibration", type=int, help="images; by default 20,000 of MNIST, 1,000 of CIFAR-10")
    parser.add_argument("--quick", action="store_true", help="digits, one seed, a few methods: half a minute, for CI")
    options = parser.parse_args()
    if options.quick:
        options.sections, options.seeds, options.methods = ["digits"], [0], ["annealed", "magnitude", "obc", "chita"]
    settle(options.out / "config.json", vars(options), selecting=set(vars(options)) - {"calibration"})
    if "local" in options.sections:
        import select_refit

        select_refit.run(options.out / "local", seeds=len(options.seeds))
    if "cost" in options.sections:
        import weight_cost

        weight_cost.run(options.out / "cost")
    run(options)
    print(draw([row for row in Rows(options.out / "rows.csv").read_as(Row) if row.split == options.split], options.out))


if __name__ == "__main__":
    main()
