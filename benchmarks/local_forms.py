"""What the local form saves: the same selection as one problem, a problem a layer, and over bounded neighborhoods.

The founding paper's claim is that a neuron that chooses among its own neighborhood needs far fewer couplings than a choice
among all. Measured on neurons of trained networks that are not refitted, half and a quarter of them kept over the whole
network: the energy is the distance of the network from itself (`annealsubnet.frozen.distance_problem`), with

- global: all couplings;
- by layer: those between neurons of one layer;
- degree 16, 8, 4: each neuron's strongest, within and across layers;
- alone: none, which is a choice by the fields of the neurons.

Couplings that a form leaves out are folded into the fields at the present mask, first that of greedy elimination on the form
itself; it is solved and folded again for as long as the energy with all couplings falls. Every form gets the same annealer.
Shapes are those of the problems that are solved. For weights, where a problem over all of them cannot be written down, only
the shape is told: of one problem, one a layer, one a neuron, and neighborhoods of 8.

    ANNEALSUBNET_DATA=folder python benchmarks/local_forms.py --out out/local_forms        # some minutes
"""

import argparse
import time
from pathlib import Path

import numpy as np
from neurons import trial
from rows import Rows, markdown, settle

from annealsubnet import Mask, Problem, evaluate, examples
from annealsubnet.decompose import Shape, shape_of
from annealsubnet.frozen import distance_problem
from annealsubnet.neighborhoods import strongest
from annealsubnet.networks import Network, as_network
from annealsubnet.problems import sparsify
from annealsubnet.solvers import solve
from annealsubnet.solvers.greedy import eliminate
from annealsubnet.statistics.distance import gate_distance

FORMS = ("global", "by layer", "degree 16", "degree 8", "degree 4", "alone")
KEY = ("network", "keep", "form", "seed")
ROUNDS = 8


def edges_of(form: str, problem: Problem, places: list[slice]) -> np.ndarray:
    """Which couplings a form keeps."""
    size = problem.size
    if form == "global":
        return ~np.eye(size, dtype=bool)
    if form == "by layer":
        layer = np.repeat(np.arange(len(places)), [place.stop - place.start for place in places])
        return (layer[:, None] == layer) & ~np.eye(size, dtype=bool)
    return strongest(problem.dense_couplings, degree=0 if form == "alone" else int(form.split()[1]))


def chosen(problem: Problem, edges: np.ndarray, seed: int) -> tuple[np.ndarray, Shape]:
    """The state that the form finds, and the shape of what was solved."""
    whole = np.ones(problem.size, bool)
    sparse = sparsify(problem, edges, at=whole).problem
    best = eliminate(sparse).kept(problem.num_kept)
    least, shape = float(problem.energy(best)), shape_of(sparse)
    for number in range(ROUNDS):
        found = solve(sparsify(problem, edges, at=best).problem, None, seed=seed + number).best
        energy = float(problem.energy(found))
        if energy >= least:
            break
        least, best = energy, found
    return best, shape


def measure(rows: Rows, name: str, keeps: list[float], seed: int, calibration: int) -> None:
    """Every form at every size."""
    given = trial(name, examples.load(examples.named_network(name).data, seed=seed), seed, calibration)
    network = as_network(given.model, next(iter(given.calibration))[0])
    measured = gate_distance(network, given.calibration, unit="neuron", sites=network.sites("neuron"))
    places = measured.places
    for keep in keeps:
        problem = distance_problem(measured, num_kept=round(keep * measured.gates.size))
        for form in FORMS:
            if rows.has(name, keep, form, seed):
                continue
            start = time.process_time()
            state, shape = chosen(problem, edges_of(form, problem, list(places.values())), seed)
            seconds = time.process_time() - start
            mask = Mask.of(network, "neuron", {site: state[place] for site, place in places.items()})
            accuracy = evaluate(given.model, given.test, mask).accuracy
            rows.append(
                {"network": name, "keep": keep, "form": form, "seed": seed, **vars(shape)}
                | {"energy": float(problem.energy(state)), "accuracy": accuracy, "seconds": round(seconds, 2)}
            )


def weight_shapes(network: Network) -> list[list[str]]:
    """Variables, couplings, largest problem, degree and treewidth of a selection of weights, by how far it couples."""
    sizes = [(layer.outputs, layer.fan_in) for layer in network.layers.values()]
    counts = [outputs * fan_in for outputs, fan_in in sizes]
    total = sum(counts)
    pieces = {"global": [total], "by layer": counts, "by neuron": [fan_in for outputs, fan_in in sizes for _ in range(outputs)]}
    lines = [
        [form, f"{total:,}", f"{sum(n * (n - 1) // 2 for n in of):,}", f"{max(of):,}", f"{max(of) - 1:,}", f"{max(of) - 1:,}"]
        for form, of in pieces.items()
    ]
    fan_in = max(fan_in for _, fan_in in sizes)
    return [*lines, ["degree 8 in a fan-in", f"{total:,}", f"at most {4 * total:,}", f"{fan_in:,}", "8", "–"]]


def table(rows: list[dict[str, str]]) -> str:
    """Means over seeds."""
    lines = []
    for network, keep, form in dict.fromkeys((row["network"], row["keep"], row["form"]) for row in rows):
        mine = [row for row in rows if (row["network"], row["keep"], row["form"]) == (network, keep, form)]
        accuracy = [100 * float(row["accuracy"]) for row in mine]
        spread = f" ± {np.std(accuracy, ddof=1):.1f}" if len(mine) > 1 else ""
        worst = {
            name: max(int(row[name]) for row in mine) for name in ("variables", "couplings", "largest", "degree", "treewidth")
        }
        energy = np.mean([float(row["energy"]) for row in mine])
        cells = [network, keep, form, *(f"{value:,}" for value in worst.values())]
        lines.append([*cells, f"{energy:.4f}", f"{np.mean(accuracy):.1f}{spread}"])
    header = [
        "network",
        "kept",
        "form",
        "variables",
        "couplings",
        "largest part",
        "degree",
        "treewidth at most",
        "energy",
        "accuracy, %",
    ]
    return markdown(header, lines)


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--networks", nargs="+", default=["mnist-mlp"])
    parser.add_argument("--keeps", type=float, nargs="+", default=[0.5, 0.25])
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--calibration", type=int, default=5000)
    parser.add_argument("--out", type=Path, default=Path("out/local_forms"))
    parser.add_argument("--quick", action="store_true", help="digits, one seed: seconds, for CI")
    options = parser.parse_args()
    if options.quick:
        options.networks, options.seeds, options.keeps = ["digits-mlp"], [0], [0.5]
    settle(options.out / "config.json", vars(options), selecting=("networks", "keeps", "seeds", "quick", "out"))
    rows = Rows(options.out / "rows.csv", KEY)
    for name in options.networks:
        for seed in options.seeds:
            measure(rows, name, options.keeps, seed, options.calibration)
    named = examples.named_network("lenet-300-100")
    example = np.zeros((1, 28, 28, 1), np.float32)
    header = ["weights of LeNet-300-100", "variables", "couplings", "largest part", "degree", "treewidth"]
    text = table(rows.read()) + "\n" + markdown(header, weight_shapes(as_network(named.build(seed=0), example)))
    (options.out / "table.md").write_text(text)
    print(text)


if __name__ == "__main__":
    main()
