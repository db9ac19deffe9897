"""What the local form saves: the same selection as one problem, a problem a layer or a neuron, and over bounded neighborhoods.

The founding paper's claim is that a neuron that chooses among its own neighborhood needs far fewer couplings than a choice
among all. Measured on trained networks that are not refitted, a share of whose neurons, or weights, is kept over the whole
network: the energy is the distance of the network from itself, to second order in the gates of neurons
(`annealsubnet.frozen.distance_problem`), or in weights, with a row for every image and factor (`annealsubnet.frozen_weights`).
It is solved with

- global: all couplings;
- by layer, by neuron: those between units of one layer, between weights of one fan-in;
- degree 16, 8, 4: each unit's strongest, anywhere, or within its fan-in;
- alone: none, which is a choice by the fields of the units.

Couplings that a form leaves out are folded into the fields at the present mask: first at the whole network, where greedy
elimination on the form itself starts; then the form is solved and folded again for as long as the energy with all couplings
falls: by annealing for neurons, by descent from the present mask for weights. Every form gets the same solver and the same
ridges, of whose masks the one measured nearest to the dense network stays. Shapes are those of the problems that are solved. Of
LeNet-300-100, where a problem over all weights cannot be written down, only the shapes are told.

    ANNEALSUBNET_DATA=folder python benchmarks/local_forms.py --out out/local_forms        # some minutes
    python benchmarks/local_forms.py --unit weight --networks digits-32-16 --keeps .5 .25 .1 --seeds 0 1 2 3 4      # 15 minutes
    ANNEALSUBNET_DATA=folder python benchmarks/local_forms.py --unit weight --networks mnist-14-32-16 --keeps .5 .25 .1 \
        --calibration 2000                                                                                          # 30 minutes
"""

import argparse
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from math import prod
from pathlib import Path

import numpy as np
from neurons import EPOCHS, trial
from rows import Rows, markdown, settle

from annealsubnet import Mask, Problem, evaluate, examples
from annealsubnet.decompose import Shape, shape_of
from annealsubnet.examples.architectures import MLP
from annealsubnet.frozen import distance_problem
from annealsubnet.neighborhoods import strongest
from annealsubnet.networks import Network, as_network
from annealsubnet.problems import gate_problem, sparsify
from annealsubnet.solvers import solve
from annealsubnet.solvers.greedy import eliminate
from annealsubnet.statistics.distance import gate_distance
from annealsubnet.statistics.weight_distance import distance_to
from annealsubnet.statistics.weight_rows import distance_rows

# Within which group couplings stay, and how many of a unit (None: all).
FORMS = {
    "global": ("network", None),
    "by layer": ("layer", None),
    "by neuron": ("neuron", None),
    "degree 16": ("network", 16),
    "degree 8": ("network", 8),
    "degree 4": ("network", 4),
    "degree 8 in a fan-in": ("neuron", 8),
    "alone": ("network", 0),
}
# Small networks: whose data and scaling, inputs, hidden neurons.
SMALL = {
    "digits-32-16": ("digits-mlp", (8, 8, 1), (32, 16)),
    "digits-8": ("digits-mlp", (8, 8, 1), (8,)),
    "mnist-14-32-16": ("mnist-mlp", (14, 14, 1), (32, 16)),
}
TRAINING = EPOCHS | {"digits-32-16": (100, 2e-3), "digits-8": (100, 3e-3), "mnist-14-32-16": (6, 2e-3)}
RIDGES = {"neuron": (0.1,), "weight": (0.05, 0.3, 3.0)}
Solver = Callable[[Problem, np.ndarray, int], np.ndarray]
KEY = ("network", "unit", "keep", "form", "seed")
ROUNDS = 8
ROWS = 20_000  # of weights: more than images and factors of digits, and so one for each


@dataclass(frozen=True)
class Units:
    """All units of a network side by side.

    Attributes:
        network: traced.
        unit: "neuron" or "weight".
        shapes: of the units of each site; a kernel's ends in its outputs.
        problems: the distance of the network from itself, by ridge.
    """

    network: Network
    unit: str
    shapes: Mapping[str, tuple[int, ...]]
    problems: Mapping[float, Problem]

    @property
    def sizes(self) -> list[int]:
        """How many units each site has."""
        return [prod(shape) for shape in self.shapes.values()]

    def groups(self, scope: str) -> np.ndarray:
        """The number of the network, layer or neuron that each unit belongs to."""
        if scope == "network":
            return np.zeros(sum(self.sizes), int)
        widths = [shape[-1] if scope == "neuron" else 1 for shape in self.shapes.values()]
        firsts = np.cumsum([0, *widths[:-1]])
        sites = zip(firsts, self.sizes, widths, strict=True)
        return np.concatenate([first + np.arange(size) % width for first, size, width in sites])

    def edges(self, form: str) -> np.ndarray:
        """Which couplings a form keeps."""
        scope, degree = FORMS[form]
        group, couplings = self.groups(scope), next(iter(self.problems.values())).dense_couplings
        inside = np.where(group[:, None] == group, couplings, 0.0)
        return inside != 0 if degree is None else strongest(inside, degree=degree)

    def mask(self, state: np.ndarray) -> Mask:
        """The state by site."""
        parts = zip(self.shapes.items(), np.split(state, np.cumsum(self.sizes)[:-1]), strict=True)
        return Mask.of(self.network, self.unit, {site: part.reshape(shape) for (site, shape), part in parts})


def neurons(network: Network, batches: list) -> Units:
    """Neurons, by the distance in their gates."""
    measured = gate_distance(network, batches, unit="neuron", sites=network.sites("neuron"))
    shapes = {site: (place.stop - place.start,) for site, place in measured.places.items()}
    return Units(network, "neuron", shapes, {ridge: distance_problem(measured, ridge=ridge) for ridge in RIDGES["neuron"]})


def weights(network: Network, batches: list) -> Units:
    """Weights, by the distance in them: a gate multiplies a column of the rows by its weight."""
    shapes = {name: layer.shape for name, layer in network.layers.items()}
    values = np.concatenate([np.ravel(network.params[layer.kernel]) for layer in network.layers.values()])
    factor = distance_rows(network, batches, rows=ROWS, seed=0).matrix * values
    curvature, squares = (factor.T @ factor).astype(np.float64), values.astype(np.float64) ** 2
    charge = np.diag(squares * np.trace(curvature) / squares.sum())
    sizes = {name: prod(shape) for name, shape in shapes.items()}
    return Units(
        network, "weight", shapes, {ridge: gate_problem(sizes, curvature + ridge * charge) for ridge in RIDGES["weight"]}
    )


@dataclass(frozen=True)
class Found:
    """What a form found.

    Attributes:
        state: the mask.
        energy: with all couplings.
        lowered: how often the solver lowered it.
        shape: of what was solved.
    """

    state: np.ndarray
    energy: float
    lowered: int
    shape: Shape


def annealed(problem: Problem, state: np.ndarray, seed: int) -> np.ndarray:
    """The best state, wherever it is."""
    return solve(problem, None, seed=seed).best


def descended(problem: Problem, state: np.ndarray, seed: int) -> np.ndarray:
    """Exchanges at temperature zero from the state."""
    start = (state[None].astype(np.int8), list(problem.names))
    return solve(problem, None, seed=seed, initial_states=start, num_sweeps=0).best


# All couplings of 2,720 weights, a quarter kept: descent to .0530 in a second, four reads of 1,000 sweeps to .0556 in 31.
SOLVERS = {"neuron": annealed, "weight": descended}


def chosen(problem: Problem, edges: np.ndarray, solver: Solver, seed: int) -> Found:
    """The state that a form finds: elimination, then the solver for as long as it helps."""
    sparse = sparsify(problem, edges, at=np.ones(problem.size, bool)).problem
    best = eliminate(sparse).kept(problem.num_kept)
    least, lowered = float(problem.energy(best)), 0
    while lowered < ROUNDS:
        found = solver(sparsify(problem, edges, at=best).problem, best, seed + lowered)
        energy = float(problem.energy(found))
        if energy >= least:
            break
        least, best, lowered = energy, found, lowered + 1
    return Found(best, least, lowered, shape_of(sparse))


def nearest(units: Units, edges: np.ndarray, keep: float, seed: int, batches: list) -> tuple[Mask, dict]:
    """The mask that a form finds, with the ridge by which the network stays nearest, and its columns."""
    candidates = []
    for ridge, problem in units.problems.items():
        counted = replace(problem, num_kept=round(keep * problem.size))
        found = chosen(counted, edges, SOLVERS[units.unit], seed)
        mask = units.mask(found.state)
        distance = distance_to(units.network, batches, params=mask.multiply(units.network.params))
        columns = {"ridge": ridge, "energy": found.energy, "lowered": found.lowered, "distance": distance}
        candidates.append((mask, vars(found.shape) | columns))
    return min(candidates, key=lambda candidate: candidate[1]["distance"])


def measure(rows: Rows, unit: str, name: str, keeps: list[float], *, seed: int, calibration: int) -> None:
    """Every form at every size."""
    given = trial(network_of(name), seed, calibration, data_seed=seed, training=TRAINING[name])
    network = as_network(given.model, next(iter(given.calibration))[0])
    units = {"neuron": neurons, "weight": weights}[unit](network, given.calibration)
    for form, (scope, _) in FORMS.items():
        left = [keep for keep in keeps if not rows.has(name, unit, keep, form, seed)]
        if not left or unit == scope == "neuron":  # a neuron has no couplings with itself
            continue
        edges = units.edges(form)
        for keep in left:
            start = time.process_time()
            mask, columns = nearest(units, edges, keep, seed, given.calibration)
            seconds = round(time.process_time() - start, 2)
            accuracy = evaluate(given.model, given.test, mask).accuracy
            key = dict(zip(KEY, (name, unit, keep, form, seed), strict=True))
            rows.append(key | columns | {"accuracy": accuracy, "seconds": seconds})


def network_of(name: str) -> examples.NamedNetwork:
    """A network of the package, or a small one, whose images are made as coarse as its inputs."""
    if name not in SMALL:
        return examples.named_network(name)
    source, shape, hidden = SMALL[name]
    named = examples.named_network(source)

    def normalize(images: np.ndarray) -> np.ndarray:
        height, width, channels = shape
        scaled = named.normalize(images).reshape(len(images), height, -1, width, images.shape[1] // width, channels)
        return scaled.mean((2, 4))

    return replace(named, name=name, create=partial(MLP, shape, (*hidden, 10)), normalize=normalize)


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
    """Means over seeds; of shapes, the largest. Energies hold the ridge: where ridges differ, compare distances."""
    shapes = {"variables": "variables", "couplings": "couplings", "largest": "largest part", "degree": "degree"}
    shapes["treewidth"] = "treewidth at most"
    told, lines = KEY[:-1], []
    cases = dict.fromkeys(tuple(row[name] for name in told) for row in rows)
    for case in sorted(cases, key=lambda case: (*case[:2], -float(case[2]))):
        mine = [row for row in rows if tuple(row[name] for name in told) == case]
        worst = [f"{max(int(row[name]) for row in mine):,}" for name in shapes]
        energy, distance = (f"{np.mean([float(row[name]) for row in mine]):.4f}" for name in ("energy", "distance"))
        accuracy = [100 * float(row["accuracy"]) for row in mine]
        spread = f" ± {np.std(accuracy, ddof=1):.1f}" if len(mine) > 1 else ""
        lines.append([*case, *worst, energy, distance, f"{np.mean(accuracy):.1f}{spread}"])
    return markdown([*told, *shapes.values(), "energy", "distance", "accuracy, %"], lines)


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--unit", choices=list(RIDGES), default="neuron")
    parser.add_argument("--networks", nargs="+", choices=list(TRAINING), default=["mnist-mlp"])
    parser.add_argument("--keeps", type=float, nargs="+", default=[0.5, 0.25])
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--calibration", type=int, default=5000)
    parser.add_argument("--out", type=Path, default=Path("out/local_forms"))
    parser.add_argument("--quick", action="store_true", help="digits, one seed: seconds, for CI")
    options = parser.parse_args()
    cases = [(options.unit, name) for name in options.networks]
    if options.quick:
        cases, options.seeds, options.keeps = [("neuron", "digits-mlp"), ("weight", "digits-8")], [0], [0.5]
    settings = vars(options) | {
        "training": TRAINING,
        "ridges": RIDGES,
        "solvers": {unit: solver.__name__ for unit, solver in SOLVERS.items()},
    }
    settle(options.out / "config.json", settings, selecting=("unit", "networks", "keeps", "seeds", "quick", "out"))
    rows = Rows(options.out / "rows.csv", KEY)
    for unit, name in cases:
        for seed in options.seeds:
            measure(rows, unit, name, options.keeps, seed=seed, calibration=options.calibration)
    named = examples.named_network("lenet-300-100")
    example = np.zeros((1, 28, 28, 1), np.float32)
    header = ["weights of LeNet-300-100", "variables", "couplings", "largest part", "degree", "treewidth"]
    text = table(rows.read()) + "\n" + markdown(header, weight_shapes(as_network(named.build(seed=0), example)))
    (options.out / "table.md").write_text(text)
    print(text)


if __name__ == "__main__":
    main()
