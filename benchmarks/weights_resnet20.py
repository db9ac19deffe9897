"""Weights kept in ResNet20 on CIFAR-10 (the checkpoint of the WoodFisher, CBS and CHITA papers).

    python benchmarks/weights_resnet20.py --out out/resnet20                        # one shot, validation images
    python benchmarks/weights_resnet20.py --sections patterns gradual --sparsities .9 --methods annealed magnitude --seeds 0
    python benchmarks/weights_resnet20.py --quick --out /tmp/resnet20               # a small network on digits, for CI

Protocol. The first 16,000 of the 20,000 training images at hand are for calibration, the last 4,000 for validation, on which
everything is chosen; the test set is read with `--split test`. Each seed draws 400 images (or `--calibration` of them), without
labels, on which a method chooses. Sparsity is global over all kernels; `patterns` is 2:4 in all layers but the first, whose 27
inputs it does not divide.

All masks get the same refit. It starts from the method's own weights, from least squares for each layer (to the dense
network's outputs, residual sums restored), or from least squares weighed by curvature (the default of `annealsubnet.refit`),
whichever are nearest to the dense network's outputs on 1,000 of the 16,000 images; then 200 steps of Adam over batches of 32 of
the 16,000 images, without labels, to the same outputs, at the one of four rates that serves best on 1,000 of them held out, or
not at all if none helps there; the fit moves the scales and biases of BatchNorms too. "annealed" takes three sweeps. A row has
the accuracy of the method's own weights, after either least squares, after the fit, and after the statistics of BatchNorms have
then been taken again, relative to those of the dense network on the same images (`annealsubnet.renormalize`). Behind a
difference from "annealed" stand its standard errors, over seeds and over seeds and images (`verdicts.py`).

`gradual`: in each of `--stages` a method chooses on those images, until after `--ramp` of them all is gone that has to go; what
is left is trained on labels with Adam over `--trained-on` of the 16,000 images. The section's rows say how many gradients of
single examples that took in all. Rows of other settings of these need another folder.
"""

import argparse
import os
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from rows import Rows, settle
from verdicts import cell, packed, unpacked, verdicts

from annealsubnet import Mask, baselines, examples, prune
from annealsubnet.losses import cross_entropy
from annealsubnet.networks import Network, Params, as_network
from annealsubnet.refitting import refit_params
from annealsubnet.renormalizing import renormalize_params
from annealsubnet.statistics.row_curvature import RowCurvature
from annealsubnet.stochastic_fit import TEMPERATURE, divergence, fit_by_batches

SECTIONS = {"one-shot": (0.5, 0.6, 0.7, 0.8, 0.9), "patterns": (0.5,), "gradual": (0.7, 0.8, 0.9)}
METHODS: dict[str, Callable[..., Any]] = {
    "annealed": partial(prune, polish=0, effort=3),
    "descent": partial(prune, polish=0, effort=0),
    "magnitude": baselines.magnitude,
    **{name: baselines.ON_REQUEST[name] for name in ("obc", "alps", "sparsegpt", "wanda", "forward", "sparse-swaps")},
}
STATES = ("own", "layers", "weighed", "fitted", "renormalized")
CALIBRATION, VALIDATION, FITTED_ON = 400, 4_000, 6_400


@dataclass(frozen=True)
class Course:
    """Gradual pruning: stages, the share of them in which weights go, images trained on in each, and Adam's rate."""

    stages: int
    ramp: float
    trained_on: int
    learning_rate: float


@dataclass(frozen=True)
class Row:
    """One network pruned by one method; accuracies with its own weights, after least squares in each layer, after least squares
    weighed by curvature, after the fit of all from the nearest of these (or training), and after its BatchNorms have then been
    renormalized. `right` are the verdicts on every image, `[state, image]` in this order."""

    section: str
    method: str
    sparsity: float
    seed: int
    split: str
    kept: int
    size: int
    own: float
    layers: float
    weighed: float
    fitted: float
    renormalized: float
    gradients: int
    choose_seconds: float
    refit_seconds: float
    fit_seconds: float
    right: str

    @property
    def key(self) -> tuple[Any, ...]:
        return self.section, self.method, self.sparsity, self.seed, self.split


@dataclass(frozen=True)
class Case:
    """The network and its images."""

    network: Network
    pool: tuple[np.ndarray, np.ndarray]
    held: list[tuple[np.ndarray, np.ndarray]]

    def drawn(self, seed: int, count: int) -> list[tuple[np.ndarray, np.ndarray]]:
        """Calibration images of a seed, in batches."""
        chosen = np.random.default_rng(seed).permutation(len(self.pool[1]))[:count]
        return [(self.pool[0][chosen[i : i + 200]], self.pool[1][chosen[i : i + 200]]) for i in range(0, count, 200)]

    def right(self, params: Params) -> np.ndarray:
        """Which held images are classified rightly."""
        return verdicts(self.network, params, self.held)

    def distance(self, params: Params) -> float:
        """The divergence from the dense network on the first images of the pool."""
        apply = self.network.jitted("outputs")(lambda values, images: self.network.apply(values, images))
        images = [self.pool[0][i : i + 200] for i in range(0, min(1_000, len(self.pool[0])), 200)]
        return float(np.mean([divergence(apply(params, each), apply(self.network.params, each)) for each in images]))


def quick_case() -> Case:
    """A small network with BatchNorms, trained here on digits."""
    named, data = examples.named_network("digits-cnn"), examples.load("digits", seed=0)
    train = data.batches("train", 200, normalize=named.normalize)
    model = examples.train(named.build(seed=0), train, seed=0, epochs=2, learning_rate=3e-3)
    x, y = (np.concatenate(parts) for parts in zip(*train, strict=True))
    return Case(as_network(model, x[:2]), (x[:-200], y[:-200]), [(x[-200:], y[-200:])])


def case(split: str) -> Case:
    """The published network and its images."""
    named, folder = examples.named_network("resnet20"), Path(os.environ["ANNEALSUBNET_DATA"])
    model = examples.load_checkpoint("resnet20", folder / "checkpoints" / "woodfisher_resnet20_cifar10.npz")
    data = np.load(folder / "cifar10.npz")

    def images(part: str) -> tuple[np.ndarray, np.ndarray]:
        return named.normalize(data[f"x_{part}"]), data[f"y_{part}"].astype(np.int64).ravel()

    x, y = images("train")
    pool = x[:-VALIDATION], y[:-VALIDATION]
    held = images("test") if split == "test" else (x[-VALIDATION:], y[-VALIDATION:])
    batches = [(held[0][i : i + 200], held[1][i : i + 200]) for i in range(0, len(held[1]), 200)]
    return Case(as_network(model, pool[0][:2]), pool, batches)


def one_shot(given: Case, name: str, options: dict[str, Any], *, seed: int, calibration: int, fitted_on: int) -> dict[str, Any]:
    """Prune once, refit, and measure."""
    network, images = given.network, given.drawn(seed, calibration)
    clock = [time.perf_counter()]
    mask, pruned = METHODS[name](network, images, seed=seed, **options)
    clock.append(time.perf_counter())
    own, layers = network.replace(pruned).params, refit_params(network, mask, images)
    weighed = refit_params(network, mask, images, curvature=RowCurvature(cross_entropy, TEMPERATURE))
    clock.append(time.perf_counter())
    start = min(own, layers, weighed, key=given.distance)
    fitted = fit_by_batches(network, mask, [given.pool[0]], params=start, seed=seed, examples=fitted_on)
    clock.append(time.perf_counter())
    renormalized = renormalize_params(network, images, params=fitted.params)
    return {
        **counts(mask),
        **measured([given.right(params) for params in (own, layers, weighed, fitted.params, renormalized)]),
        "gradients": 0,
        **dict(zip(("choose_seconds", "refit_seconds", "fit_seconds"), np.diff(clock).tolist(), strict=True)),
    }


def gradual(given: Case, name: str, options: dict[str, Any], *, seed: int, calibration: int, course: Course) -> dict[str, Any]:
    """Prune in stages, training in between, and measure."""

    def choose(model: Any, batches: Any, **others: Any) -> Any:
        # After every stage comes training, and the moments by rows would take as long as that.
        options = {"curvature": False} if name in ("annealed", "descent") else {}
        return METHODS[name](model, [(x[:calibration], y[:calibration]) for x, y in batches[:1]], **others, **options)

    began = time.perf_counter()
    run = partial(baselines.gradual, given.network, [given.pool], seed=seed, choose=choose)
    rest = {"stages": course.stages, "ramp": course.ramp, "learning_rate": course.learning_rate}
    mask, pruned = run(examples=course.trained_on, keep=options["keep"], **rest)
    seconds = time.perf_counter() - began
    params = given.network.replace(pruned).params
    again = renormalize_params(given.network, given.drawn(seed, calibration), params=params)
    right = [given.right(params)] * 4 + [given.right(again)]
    spent = {"choose_seconds": seconds, "refit_seconds": 0.0, "fit_seconds": 0.0}
    return {**counts(mask), **measured(right), "gradients": course.stages * course.trained_on, **spent}


def measured(right: list[np.ndarray]) -> dict[str, Any]:
    """The columns of accuracies, and of verdicts."""
    return {**dict(zip(STATES, [float(each.mean()) for each in right], strict=True)), "right": packed(np.stack(right))}


def counts(mask: Mask) -> dict[str, int]:
    return {"kept": mask.kept_count, "size": mask.size}


def sizes_of(section: str, sparsity: float) -> dict[str, Any]:
    """The options that say how much stays, and where."""
    if section == "patterns":
        return {"pattern": "2:4", "exclude": ("conv1",)}
    return {"keep": round(1 - sparsity, 6), "scope": "network"}


def able(section: str) -> list[str]:
    """The methods of a section: without keeping a pattern, or training by its own gradients, all."""
    return list(METHODS) if section != "gradual" else ["annealed", "descent", "magnitude", "obc"]


def run(options: argparse.Namespace) -> None:
    """Measure what is missing, a row at a time."""
    rows = Rows(options.out / "rows.csv")
    done = {row.key for row in rows.read_as(Row)}
    calibration, fitted_on = (200, 320) if options.quick else (options.calibration, FITTED_ON)
    course = Course(options.stages, options.ramp, 320 if options.quick else options.trained_on, options.learning_rate)
    given = quick_case() if options.quick else case(options.split)
    for seed in options.seeds:
        for section in options.sections:
            for sparsity in options.sparsities if section != "patterns" and options.sparsities else SECTIONS[section]:
                for name in options.methods or able(section):
                    if (section, name, sparsity, seed, options.split) in done:
                        continue
                    measure = (
                        partial(gradual, course=course) if section == "gradual" else partial(one_shot, fitted_on=fitted_on)
                    )
                    found = measure(given, name, sizes_of(section, sparsity), seed=seed, calibration=calibration)
                    row = Row(section, name, sparsity, seed, options.split, **found)
                    rows.append(asdict(row))
                    print(
                        ", ".join(
                            f"{key} {value:.6g}" if isinstance(value, float) else f"{value}"
                            for key, value in asdict(row).items()
                            if key != "right"
                        ),
                        flush=True,
                    )


def table(rows: list[Row], state: str) -> str:
    """Accuracies in one state as Markdown, mean over seeds, how they differ from ours, and the seconds to choose."""
    lines = []
    for section in dict.fromkeys(row.section for row in rows):
        found: dict[str, dict[float, dict[int, np.ndarray]]] = {}
        for row in rows:
            if row.section == section:
                right = unpacked(row.right)[STATES.index(state)]
                found.setdefault(row.method, {}).setdefault(row.sparsity, {})[row.seed] = right
        sparsities = sorted({sparsity for by_sparsity in found.values() for sparsity in by_sparsity})
        lines += ["", f"| {section}, {state} | " + " | ".join(f"{sparsity:g}" for sparsity in sparsities) + " | seconds |"]
        lines.append("|---" * (len(sparsities) + 2) + "|")
        for name, mine in found.items():
            ours = found.get("annealed", {})
            cells = [cell(mine[each], ours.get(each, {})) if each in mine else "" for each in sparsities]
            seconds = np.mean([row.choose_seconds for row in rows if (row.section, row.method) == (section, name)])
            lines.append(f"| {name} | " + " | ".join(cells) + f" | {seconds:.0f} |")
    return "\n".join(lines).strip() + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("out/resnet20"))
    parser.add_argument("--sections", nargs="+", choices=list(SECTIONS), default=["one-shot", "patterns"])
    parser.add_argument("--methods", nargs="+", choices=list(METHODS))
    parser.add_argument("--sparsities", type=float, nargs="+")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--split", choices=["validation", "test"], default="validation")
    parser.add_argument("--calibration", type=int, default=CALIBRATION, help="images that a method chooses on")
    parser.add_argument("--stages", type=int, default=2)
    parser.add_argument("--ramp", type=float, default=1.0, help="the share of the stages in which weights go")
    parser.add_argument("--trained-on", type=int, default=12_800, help="images in each stage")
    parser.add_argument("--learning-rate", type=float, default=1e-3)
    parser.add_argument("--quick", action="store_true", help="a small network on digits: seconds, for CI")
    options = parser.parse_args()
    if options.quick:
        options.sections, options.methods, options.sparsities = ["one-shot", "gradual"], ["descent", "magnitude"], [0.9]
    selecting = ("sections", "methods", "sparsities", "seeds", "split", "out")
    settle(options.out / "config.json", vars(options), selecting=selecting)
    run(options)
    rows = [row for row in Rows(options.out / "rows.csv").read_as(Row) if row.split == options.split]
    text = "\n".join(table(rows, state) for state in STATES)
    (options.out / "table.md").write_text(text)
    print(text)


if __name__ == "__main__":
    main()
