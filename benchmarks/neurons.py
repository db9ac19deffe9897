"""What the neuron benchmarks share: networks trained for each seed, all methods, all sizes, rows, table, figure.

Protocol. A network is trained for each seed; every method sees the same calibration images (the first of the training part,
with labels, which the annealed selection does not read) and chooses the same number of neurons in each layer. Accuracy is
on the test set, of the masked network and of the one that the same least-squares refit made of the mask. Without the refit
the annealed selection is `prune(refit=False)`, with it `prune()`; "descent" is `prune` at temperature zero, the control for
annealing itself. OSSCAR chooses by the error after the refit and is measured with it only. With `--together` the refit of every
mask ends with a fit of all layers together, as `prune()` has it by default, and is all that is measured. Differences are
paired over seeds. Rows that are in the folder already are not measured again.
"""

import argparse
import sys
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
from rows import settle

from annealsubnet import baselines, examples, prune
from annealsubnet.report import DENSE, PackageProcedures, Plan, Row, Trial, compare, read_rows, write_rows
from annealsubnet.report.figures import accuracy_figure, png
from annealsubnet.report.names import labels

KEEPS = (0.75, 0.5, 0.25, 0.12)
EPOCHS = {"mnist-mlp": (6, 2e-3), "mnist-cnn": (2, 3e-3), "digits-mlp": (40, 1e-3), "digits-cnn": (40, 3e-3)}
DESCENT, OSSCAR = "descent", "osscar"


def plans(keeps: tuple[float, ...], *, together: bool) -> list[Plan]:
    """Our own selection and OSSCAR at the stages at which they are measured; the other methods, which know of none, at both."""

    def plan(methods: Mapping[str, Callable], *stages: bool) -> Plan:
        return Plan({"neuron": methods}, {"neuron": keeps}, {"neuron": "layer"}, stages=stages)

    # The masks are those of `prune()`; the common refit follows.
    ours = {"annealed": partial(prune, polish=0), DESCENT: partial(prune, effort=0, polish=0)}
    osscar = {OSSCAR: baselines.ON_REQUEST[OSSCAR]}
    if together:
        return [plan({**ours, **osscar, **baselines.METHODS}, True)]
    return [plan({"annealed": prune}, False), plan(ours, True), plan(baselines.METHODS, False, True), plan(osscar, True)]


def trial(named: examples.NamedNetwork, seed: int, calibration: int, *, data_seed: int, training: tuple[int, float]) -> Trial:
    """A network trained for so many epochs at that rate, with its batches."""
    data, (epochs, rate) = examples.load(named.data, seed=data_seed), training
    train = data.batches("train", 1000, normalize=named.normalize)
    model = examples.train(named.build(seed=seed), train, seed=seed, epochs=epochs, learning_rate=rate)
    images = min(calibration, len(data.train.inputs))
    return Trial(
        seed,
        model,
        list(data.batches("train", 1000, normalize=named.normalize, examples=images)),
        list(data.batches("test", 1000, normalize=named.normalize)),
    )


def measure(
    network: str, seed: int, keeps: tuple[float, ...], calibration: int, *, data_seed: int, together: bool
) -> list[Row]:
    """All rows of one network and seed."""
    given = trial(examples.named_network(network), seed, calibration, data_seed=data_seed, training=EPOCHS[network])
    rows: list[Row] = []
    procedures = PackageProcedures(together=together)
    for plan in plans(keeps, together=together):
        step = partial(print, network, file=sys.stderr, flush=True)
        found = compare([given], plan, procedures=procedures, report=step).rows
        rows += [row for row in found if not (rows and row.method == DENSE)]
    return rows


def table(rows: list[Row]) -> str:
    """Mean accuracy in percent; behind it the paired difference from the annealed selection and its standard error."""
    lines = []
    for refit in (False, True):
        names = list(dict.fromkeys(row.method for row in rows if row.refit == refit and row.method != DENSE))
        if not names:
            continue
        keeps = sorted({row.keep for row in rows if row.method != DENSE}, reverse=True)
        lines += [f"\n{'with' if refit else 'without'} refit | " + " | ".join(f"{keep:.0%}" for keep in keeps)]
        lines += ["---|" * (len(keeps) + 1)]
        for name in names:
            lines.append(f"{name} | " + " | ".join(_cell(rows, refit, name, keep) for keep in keeps))
    dense = np.mean([row.accuracy for row in rows if row.method == DENSE])
    return f"dense {100 * dense:.2f} %\n" + "\n".join(lines) + "\n"


def _cell(rows: list[Row], refit: bool, name: str, keep: float) -> str:
    by_seed = {
        method: {row.seed: 100 * row.accuracy for row in rows if (row.method, row.refit, row.keep) == (method, refit, keep)}
        for method in (name, "annealed")
    }
    values = np.array(list(by_seed[name].values()))
    gaps = np.array([by_seed["annealed"][seed] - value for seed, value in by_seed[name].items()])
    error = gaps.std(ddof=1) / np.sqrt(len(gaps)) if len(gaps) > 1 else float("nan")
    gap = "" if name == "annealed" else f" ({-gaps.mean():+.2f} ± {error:.2f})"
    return f"{values.mean():.2f}{gap}"


def run(
    networks: list[str], seeds: list[int], keeps: tuple[float, ...], calibration: int, out: Path, *, together: bool
) -> None:
    """Measure what is missing, one file a network and seed; then draw everything."""
    settings = {"networks": networks, "seeds": seeds, "keeps": keeps, "calibration": calibration, "epochs": EPOCHS}
    settings["together"] = together
    settle(out / "config.json", settings, selecting=("networks", "seeds"))
    text = []
    for network in networks:
        rows: list[Row] = []
        for seed in seeds:
            path = out / f"{network}-{seed}.csv"
            if not path.exists():
                draft = path.with_suffix(".part")
                write_rows(measure(network, seed, keeps, calibration, data_seed=seed, together=together), draft)
                draft.rename(path)
            rows += read_rows(path)
        text.append(f"## {network}, {len(seeds)} seeds\n\n{table(rows)}")
        write_rows(rows, out / f"{network}.csv")
        figure = accuracy_figure([replace(row) for row in rows], labels() | {DESCENT: "temperature zero"}, ours="annealed")
        (out / f"{network}.png").write_bytes(png(figure))
    (out / "table.md").write_text("\n".join(text))
    print("\n".join(text))


def main(description: str, networks: list[str], *, out: str) -> None:
    """The command line of one benchmark."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--networks", nargs="+", default=networks)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2, 3, 4])
    parser.add_argument("--keeps", type=float, nargs="+", default=list(KEEPS))
    parser.add_argument("--calibration", type=int, default=5000)
    parser.add_argument("--out", type=Path, default=Path(out))
    parser.add_argument("--together", action="store_true", help="fit all layers of every mask together")
    parser.add_argument("--quick", action="store_true", help="digits, one seed, one size: a minute, for CI")
    options = parser.parse_args()
    if options.quick:
        run(["digits-mlp"], [0], (0.25,), 1000, options.out, together=options.together)
    else:
        run(options.networks, options.seeds, tuple(options.keeps), options.calibration, options.out, together=options.together)
