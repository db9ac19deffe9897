"""Where annealing is worth its time: neurons of a random layer chosen to match a teacher's, against descent at equal time.

Protocol. A teacher 784-200-10 is trained on MNIST. The student's first layer is random (n ReLU neurons, Kaiming-normal
weights); its neurons have fixed random outgoing weights, no refit. Which of the n to keep, so that their sum matches a
pre-activation of the teacher's second layer (one target neuron; or 40 at once) on 5,000 images? With A_nu = a_u(x_n) v_u the
contributions, E(x) = ‖A x − t‖² is a quadratic model over n variables. Couplings are built once for all methods. Annealing
(`Annealer.sample`, flips) runs first; its processor time (one thread, conversion included) is then given to every other
method: restarted single-flip descent, restarted best-pair descent (steepest over all flips and pairs, compiled, O(n) a step
for flips and O(n²) for pairs), tabu (D-Wave's), forward selection, and random masks. Errors are E relative to ‖t‖² (centered),
on the 5,000 images (the optimization problem itself). Ratios are paired over targets, with a 95 % confidence interval from
Student's t over them.
"""

import argparse
import csv
import json
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import dimod
import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from numba import njit
from scipy.stats import t as student

from annealsubnet import Annealer, examples
from annealsubnet.report import provenance

METHODS = ("annealed", "pair descent", "flip descent", "tabu", "forward", "random")
FIELDS = ("task", "n", "target", "method", "error", "seconds")
SWEEPS, READS = 400, 16


def teacher(seed: int, quick: bool) -> tuple[np.ndarray, np.ndarray]:
    """Images [n, pixels], and the teacher's second-layer pre-activations [n, outputs], centered."""
    name = "digits" if quick else "mnist"
    data = examples.load(name, seed=seed)
    named = examples.named_network("digits-mlp" if quick else "mnist-mlp")
    model = examples.train(named.build(seed=seed), data.batches("train", 1000, normalize=named.normalize), seed=seed, epochs=2)
    inputs = named.normalize(data.train.inputs[: 500 if quick else 5000]).reshape(-1, np.prod(data.input_shape))
    first, second = model.fc1, model.fc2
    hidden = np.maximum(inputs @ np.asarray(first.kernel[...]) + np.asarray(first.bias[...]), 0)
    outputs = hidden @ np.asarray(second.kernel[...])
    return inputs, outputs - outputs.mean(axis=0)


def model_of(inputs: np.ndarray, targets: np.ndarray, n: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Linear biases [n] and couplings Q [n, n] (diagonal zero) of E(x) = linear·x + ½ xᵀ Q x, in units of ‖t‖²."""
    rng = np.random.default_rng([seed, n])
    weights = rng.normal(size=(inputs.shape[1], n)) * np.sqrt(2 / inputs.shape[1])
    active = np.maximum(inputs @ weights, 0)
    active -= active.mean(axis=0)
    # The outgoing weights have the scale at which half of the neurons together vary as much as the target.
    outgoing = rng.normal(size=(n, targets.shape[1]))
    outgoing *= np.sqrt((targets**2).sum() / (0.5 * (active**2).sum(axis=0) @ (outgoing**2).sum(axis=1)))
    scale = (targets**2).sum()
    quadratic = (active.T @ active) * (outgoing @ outgoing.T) / scale
    linear = np.diag(quadratic) - 2 * ((active.T @ targets) * outgoing).sum(axis=1) / scale
    couplings = 2 * quadratic
    np.fill_diagonal(couplings, 0.0)
    return np.ascontiguousarray(linear), np.ascontiguousarray(couplings)


def energy(linear: np.ndarray, couplings: np.ndarray, states: np.ndarray) -> np.ndarray:
    """E + 1 of each state: the relative error."""
    x = np.atleast_2d(states).astype(float)
    return 1 + x @ linear + 0.5 * np.einsum("si,si->s", x @ couplings, x)


@njit(cache=True)
def _fields(linear, couplings, state):
    fields = linear.copy()
    for i in range(state.size):
        if state[i]:
            fields += couplings[i]
    return fields


@njit(cache=True)
def _flip(couplings, state, fields, i):
    sign = -1.0 if state[i] else 1.0
    state[i] = not state[i]
    for j in range(state.size):
        fields[j] += sign * couplings[i, j]


@njit(cache=True)
def flip_descent(linear, couplings, state):
    """Steepest single flips until none helps."""
    fields = _fields(linear, couplings, state)
    while True:
        best, where = -1e-12, -1
        for i in range(state.size):
            change = -fields[i] if state[i] else fields[i]
            if change < best:
                best, where = change, i
        if where < 0:
            return
        _flip(couplings, state, fields, where)


@njit(cache=True)
def pair_descent(linear, couplings, state):
    """The best of all flips and pairs of flips, until none helps. Pairs that cannot beat the best so far are passed over."""
    size = state.size
    fields = _fields(linear, couplings, state)
    strongest = np.zeros(size)
    for i in range(size):
        strongest[i] = np.abs(couplings[i]).max()
    while True:
        signs = np.where(state, -1.0, 1.0)
        change = signs * fields
        order = np.argsort(change)
        best, a, b = -1e-12, -1, -1
        if change[order[0]] < best:
            best, a = change[order[0]], order[0]
        for place in range(size):
            i = order[place]
            for other in range(place + 1, size):
                j = order[other]
                base = change[i] + change[j]
                if base - strongest[i] >= best:
                    break  # later partners only cost more
                total = base + signs[i] * signs[j] * couplings[i, j]
                if total < best:
                    best, a, b = total, i, j
        if a < 0:
            return
        _flip(couplings, state, fields, a)
        if b >= 0:
            _flip(couplings, state, fields, b)


def restarted(descend: Callable, linear: np.ndarray, couplings: np.ndarray, seconds: float, seed: int) -> float:
    """The best local optimum of as many random starts as begin within the time."""
    rng, best, start = np.random.default_rng(seed), np.inf, time.process_time()
    while time.process_time() - start < seconds or best == np.inf:
        state = rng.random(linear.size) < 0.5
        descend(linear, couplings, state)
        best = min(best, float(energy(linear, couplings, state)[0]))
    return best


def forward(linear: np.ndarray, couplings: np.ndarray) -> float:
    """Add the neuron that helps most, until none helps."""
    state, fields = np.zeros(linear.size, bool), linear.copy()
    while (choice := int(np.where(state, np.inf, fields).argmin())) >= 0 and fields[choice] < 0 and not state[choice]:
        state[choice] = True
        fields += couplings[choice]
    return float(energy(linear, couplings, state)[0])


def random_masks(linear: np.ndarray, couplings: np.ndarray, seconds: float, seed: int) -> float:
    """The best of as many random masks as fit the time."""
    rng, best, start = np.random.default_rng(seed), np.inf, time.process_time()
    while time.process_time() - start < seconds or best == np.inf:
        best = min(best, float(energy(linear, couplings, rng.random((64, linear.size)) < 0.5).min()))
    return best


def tabu(bqm: dimod.BinaryQuadraticModel, seconds: float, seed: int) -> float:
    """D-Wave's tabu search, one read of all the time."""
    from dwave.samplers import TabuSampler

    found = TabuSampler().sample(bqm, timeout=max(1, int(1000 * seconds)), num_reads=1, seed=seed)
    return 1 + float(found.first.energy)


def trial(linear: np.ndarray, couplings: np.ndarray, seed: int) -> Iterator[tuple[str, float, float]]:
    """(method, error, seconds) of every method on one model."""
    upper = np.triu(couplings, 1)
    rows, columns = np.nonzero(upper)
    bqm = dimod.BinaryQuadraticModel.from_numpy_vectors(linear, (rows, columns, upper[rows, columns]), 0.0, "BINARY")
    Annealer().sample(bqm, num_reads=1, num_sweeps=1, seed=0)
    start = time.process_time()
    found = Annealer().sample(bqm, num_reads=READS, num_sweeps=SWEEPS, seed=seed, num_threads=1)
    anneal_seconds = time.process_time() - start
    yield "annealed", 1 + float(found.first.energy), anneal_seconds
    runs: dict[str, Callable[[], float]] = {
        "pair descent": lambda: restarted(pair_descent, linear, couplings, anneal_seconds, seed),
        "flip descent": lambda: restarted(flip_descent, linear, couplings, anneal_seconds, seed),
        "tabu": lambda: tabu(bqm, anneal_seconds, seed),
        "forward": lambda: forward(linear, couplings),
        "random": lambda: random_masks(linear, couplings, anneal_seconds, seed),
    }
    for name, run in runs.items():
        begin = time.process_time()
        error = run()
        yield name, error, time.process_time() - begin


def measure(sizes: list[int], targets: int, layer: int, out: Path, quick: bool, seed: int) -> None:
    """Append the rows that are missing."""
    path = out / "rows.csv"
    done = set()
    if path.exists():
        with path.open() as file:
            done = {(row["task"], int(row["n"]), int(row["target"])) for row in csv.DictReader(file)}
    inputs, outputs = teacher(seed, quick)
    tiny = np.triu(np.random.default_rng(0).normal(size=(4, 4)), 1)
    for descend in (flip_descent, pair_descent):  # compile before anything is timed
        descend(tiny[0].copy(), tiny + tiny.T, np.zeros(4, bool))
    for n in sizes:
        for task, number in [(task, number) for number in range(targets) for task in ("one neuron", f"layer of {layer}")]:
            if (task, n, number) in done:
                continue
            rng = np.random.default_rng([seed, number])
            chosen = rng.permutation(outputs.shape[1])[: 1 if task == "one neuron" else layer]
            linear, couplings = model_of(inputs, outputs[:, chosen], n, seed + number)
            rows = [(task, n, number, *row) for row in trial(linear, couplings, number)]
            fresh = not path.exists()
            with path.open("a", newline="") as file:
                writer = csv.writer(file)
                if fresh:
                    writer.writerow(FIELDS)
                writer.writerows(rows)


def _errors(rows: list[dict[str, str]], task: str, n: int, method: str) -> dict[str, float]:
    """Error by target."""
    wanted = [row for row in rows if (row["task"], row["n"], row["method"]) == (task, str(n), method)]
    return {row["target"]: float(row["error"]) for row in wanted}


def summary(out: Path) -> str:
    """A table: mean error of each method, and how much less the annealed error is than the best descent's."""
    with (out / "rows.csv").open() as file:
        rows = list(csv.DictReader(file))
    lines = ["| task | n | " + " | ".join(METHODS) + " | below the best descent, % (95 %) |", "|---" * (len(METHODS) + 3) + "|"]
    for task in dict.fromkeys(row["task"] for row in rows):
        for n in sorted({int(row["n"]) for row in rows if row["task"] == task}):
            errors = {method: _errors(rows, task, n, method) for method in METHODS}
            common = sorted(errors["annealed"])
            best = np.array([min(errors["pair descent"][c], errors["flip descent"][c]) for c in common])
            less = 100 * (1 - np.array([errors["annealed"][c] for c in common]) / best)
            spread = student.ppf(0.975, len(less) - 1) * less.std(ddof=1) / np.sqrt(len(less)) if len(less) > 1 else np.nan
            cells = " | ".join(f"{np.mean(list(errors[method].values())):.4f}" for method in METHODS)
            lines.append(f"| {task} | {n} | {cells} | {less.mean():.1f} ± {spread:.1f} |")
    return "\n".join(lines) + "\n"


def figure(out: Path) -> None:
    """Error against width."""
    with (out / "rows.csv").open() as file:
        rows = list(csv.DictReader(file))
    tasks = list(dict.fromkeys(row["task"] for row in rows))
    drawing = Figure(figsize=(4.6 * len(tasks), 3.6), layout="constrained")
    FigureCanvasAgg(drawing)
    for panel, task in zip(np.atleast_1d(drawing.subplots(1, len(tasks))), tasks, strict=True):
        for method in METHODS:
            sizes = sorted({int(row["n"]) for row in rows if row["task"] == task})
            means = [
                np.mean([float(r["error"]) for r in rows if (r["task"], int(r["n"]), r["method"]) == (task, n, method)])
                for n in sizes
            ]
            panel.loglog(sizes, means, marker="o", linewidth=3 if method == "annealed" else 1.3, label=method)
        panel.set(title=task, xlabel="random neurons to choose from", ylabel="relative error")
        panel.legend(fontsize=8)
    drawing.savefig(out / "worth.png", dpi=140)


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", type=int, nargs="+", default=[256, 512, 1024, 2048])
    parser.add_argument("--targets", type=int, default=10)
    parser.add_argument("--layer", type=int, default=40)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=Path("worth-results"))
    parser.add_argument("--quick", action="store_true", help="two small sizes on digits: seconds, for CI")
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    sizes, targets = ([64, 128], 2) if options.quick else (options.sizes, options.targets)
    settings = {
        "sizes": sizes,
        "targets": targets,
        "layer": options.layer,
        "seed": options.seed,
        "reads": READS,
        "sweeps": SWEEPS,
    }
    config = {**settings, "versions": provenance.versions(), "machine": provenance.machine()}
    (options.out / "config.json").write_text(json.dumps(config, indent=2) + "\n")
    measure(sizes, targets, options.layer, options.out, options.quick, options.seed)
    text = summary(options.out)
    (options.out / "table.md").write_text(text)
    figure(options.out)
    print(text)


if __name__ == "__main__":
    main()
