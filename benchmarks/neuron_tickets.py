"""Neurons of random networks: which of them to keep so that the rest performs, nothing trained or refitted.

Protocol. Random networks 784-4096-10 and 784-1024-1024-10 (Kaiming-normal, no biases) on MNIST; the same share of each hidden
layer's neurons is kept. Methods: `annealed`, `find_ticket(unit="neuron")` on labels; `genetic`, a genetic algorithm on masks
(population 32, the better half survives, uniform crossover repaired to the count, one neuron in 50 of those kept exchanged by
mutation; each generation on 250 images of its own, the last population judged on 2,000); `random`, the best of random masks,
each judged on 500 images; `blocks`, rounds of 250 images that anneal the Gauss-Newton model of all gates (`Blocks`), with its
couplings or its diagonal alone. All of these pass as many examples through the network as `annealed` does, forward and backward
counted, checks included. For the one hidden layer also `distilled`: `distill_neurons` from a trained teacher 784-500-10,
without labels; and `distilled, descent`: the same problem by the same moves at temperature zero, as many reads as take as
long. Steps were tuned on the validation part; accuracies are on the test part (--split validation reads the other). Seconds
are processor time.
"""

import argparse
import time
from pathlib import Path
from typing import Any

import jax
import numpy as np
from flax import nnx
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from rows import Rows, markdown, settle

from annealsubnet import Mask, evaluate, examples, find_ticket
from annealsubnet.distillation import distill_neurons
from annealsubnet.examples.architectures import MLP
from annealsubnet.examples.networks import Scaling
from annealsubnet.networks import Network, as_network
from annealsubnet.tickets import Blocks, Check, annealed, initialize
from annealsubnet.tickets.sequential import passes_of

POPULATION, GENERATION, JUDGES, RANDOM_JUDGES = 32, 250, 2000, 500
READS, SWEEPS = 4, 400
# Dampings from validation images of one network (docs/tickets.md).
BLOCKS = {"blocks": Blocks(), "blocks, no couplings": Blocks(coupling=False, damping=4.0)}
ROUND = 250
METHODS = ("annealed", *BLOCKS, "genetic", "random", "distilled", "distilled, descent")


class Judge:
    """Losses of many masks at once, and how many examples were passed for them.

    Args:
        network: whose neurons are switched.
        inputs, labels: that judges are drawn from.
        seed: of the draws.
    """

    def __init__(self, network: Network, inputs: np.ndarray, labels: np.ndarray, seed: int):
        self.inputs, self.labels, self.read = inputs, labels, 0
        self.rng = np.random.default_rng([seed, 1])
        self.sites = {name: site.size for name, site in network.neurons.items()}

        @jax.jit
        def losses(params: Any, masks: Any, inputs: jax.Array, labels: jax.Array) -> jax.Array:
            def one(mask: Any) -> jax.Array:
                outputs = network.run(params, inputs, gates=mask)[0]
                return -jax.numpy.take_along_axis(jax.nn.log_softmax(outputs), labels[:, None], axis=1).mean()

            return jax.lax.map(one, masks)

        self._losses = lambda masks, inputs, labels: losses(network.params, masks, inputs, labels)

    def losses(self, masks: dict[str, np.ndarray], images: int) -> np.ndarray:
        """Mean loss of each mask, all on the same `images` drawn anew."""
        chosen = self.rng.permutation(len(self.labels))[:images]
        self.read += images * len(next(iter(masks.values())))
        gates = {name: np.asarray(mask, np.float32) for name, mask in masks.items()}
        return np.asarray(self._losses(gates, self.inputs[chosen], self.labels[chosen]))


def drawn(rng: np.random.Generator, sites: dict[str, int], keep: float, count: int) -> dict[str, np.ndarray]:
    """Random masks of the right count."""
    ranks = {name: rng.random((count, size)).argsort(axis=1) for name, size in sites.items()}
    return {name: rank < round(keep * rank.shape[1]) for name, rank in ranks.items()}


def bred(rng: np.random.Generator, parents: np.ndarray, count: int) -> np.ndarray:
    """Children of random pairs: what both keep stays, the rest is drawn from what one of them keeps; then mutation."""
    pairs = rng.integers(0, len(parents), (count, 2))
    votes = parents[pairs[:, 0]].astype(float) + parents[pairs[:, 1]] + rng.random((count, parents.shape[1])) * 0.9
    kept = int(parents[0].sum())
    moved = rng.random(votes.shape) < 0.02 * kept / parents.shape[1]
    votes = np.where(moved, 3 * rng.random(votes.shape), votes)
    return votes.argsort(axis=1).argsort(axis=1) >= parents.shape[1] - kept


def genetic(judge: Judge, keep: float, budget: int, seed: int) -> dict[str, np.ndarray]:
    """The best of the last population."""
    rng = np.random.default_rng([seed, 2])
    masks = drawn(rng, judge.sites, keep, POPULATION)
    judges = min(JUDGES, len(judge.labels), budget // (2 * POPULATION))
    while judge.read + POPULATION * (GENERATION + judges) <= budget:
        order = judge.losses(masks, GENERATION).argsort()[: POPULATION // 2]
        masks = {
            name: np.concatenate([mask[order], bred(rng, mask[order], POPULATION - len(order))]) for name, mask in masks.items()
        }
    best = int(judge.losses(masks, judges).argmin())
    return {name: mask[best] for name, mask in masks.items()}


def random_search(judge: Judge, keep: float, budget: int, seed: int) -> dict[str, np.ndarray]:
    """The best of random masks."""
    count = max(1, budget // RANDOM_JUDGES)
    masks = drawn(np.random.default_rng([seed, 3]), judge.sites, keep, count)
    best = int(judge.losses(masks, RANDOM_JUDGES).argmin())
    return {name: mask[best] for name, mask in masks.items()}


class Distilled:
    """`distill_neurons`, annealed or by descent."""

    def __init__(self, teacher: Any, network: Network, batches: Any):
        self.teacher, self.network, self.batches, self.seconds = teacher, network, batches, 0.0

    def annealed(self, keep: float, seed: int) -> Mask:
        """With the annealer's own schedule."""
        start = time.process_time()
        mask = distill_neurons(
            self.teacher, self.network, self.batches, keep=keep, seed=seed, num_reads=READS, num_sweeps=SWEEPS
        )
        self.seconds = time.process_time() - start
        return mask

    def descent(self, keep: float, seed: int) -> Mask:
        """At temperature zero (β = ∞): reads in doubling numbers until they take as long as annealing did."""
        reads, spent = READS, 0.0
        while True:
            start = time.process_time()
            mask = distill_neurons(
                self.teacher, self.network, self.batches, keep=keep, seed=seed, num_reads=reads, num_sweeps=SWEEPS,
                beta_range=(1e12, 1e12),
            )  # fmt: skip
            spent = time.process_time() - start
            if spent > 0.7 * self.seconds:
                return mask
            reads *= 2


def measure(rows: Rows, options: argparse.Namespace) -> None:
    """Append the rows that are missing."""
    name, scaling = ("digits", Scaling(16, 0.3, 0.37)) if options.quick else ("mnist", Scaling(255, 0.1307, 0.3081))
    data = examples.load(name, seed=0)
    train = list(data.batches("train", 1000, normalize=scaling, examples=options.examples))
    judges = list(data.batches(options.split, 1000, normalize=scaling))
    inputs, labels = (np.concatenate(parts) for parts in zip(*train, strict=True))
    shape, classes = data.input_shape, data.num_classes
    teacher = MLP(shape, (options.teacher, classes), use_bias=False, rngs=nnx.Rngs(0))
    teacher = examples.train(
        teacher, data.batches("train", 1000, normalize=scaling), seed=0, epochs=30 if options.quick else 3, learning_rate=2e-3
    )
    for widths in options.widths:
        wide = MLP(shape, (*(int(width) for width in widths.split("-")), classes), use_bias=False, rngs=nnx.Rngs(0))
        for seed in options.seeds:
            network = as_network(initialize(wide, "kaiming-normal", example=train[0][0], seed=seed), train[0][0])
            for keep in options.keeps:
                _measure_one(rows, options, network, teacher, train, judges, (inputs, labels), (widths, keep, seed))


def _measure_one(
    rows: Rows,
    options: argparse.Namespace,
    network: Network,
    teacher: Any,
    train: list[Any],
    judges: list[Any],
    arrays: tuple[np.ndarray, np.ndarray],
    case: tuple[str, float, int],
) -> None:
    """All methods on one network and share."""
    widths, keep, seed = case
    distilled = Distilled(teacher, network, train)
    budget = next((int(row["read"]) for row in rows.read() if _is(row, widths, "annealed", keep, seed)), 0)
    for method in options.methods:
        if rows.has(widths, method, keep, seed) or ("-" in widths and method.startswith("distilled")):
            continue
        judge, start = Judge(network, *arrays, seed), time.process_time()
        if method == "annealed":
            checks: list[Check] = []
            mask = find_ticket(
                network, train, unit="neuron", keep=keep, passes=options.passes, rule=annealed(step=options.step), seed=seed,
                report=checks.append,
            )  # fmt: skip
            budget = read = checks[-1].read
        elif method in BLOCKS:
            checks = []
            passed = (passes_of(network, "neuron") + 1) * ROUND
            mask = find_ticket(
                network, train, unit="neuron", keep=keep, passes=max(1, (budget - ROUND) // passed) * ROUND / len(arrays[1]),
                rule=BLOCKS[method], batch_size=ROUND, seed=seed, report=checks.append,
            )  # fmt: skip
            read = checks[-1].read
        elif method == "distilled":
            mask, read = distilled.annealed(keep, seed), len(arrays[1])
        elif method == "distilled, descent":
            if not distilled.seconds:
                distilled.annealed(keep, seed)
            mask, read = distilled.descent(keep, seed), len(arrays[1])
        else:
            search = {"genetic": genetic, "random": random_search}[method]
            mask = Mask.of(network, "neuron", search(judge, keep, budget, seed))
            read = judge.read
        seconds = time.process_time() - start
        found, whole = evaluate(network, judges, mask), evaluate(teacher, judges)
        rows.append({
            "widths": widths, "method": method, "keep": keep, "seed": seed, "kept": mask.kept_count, "read": read,
            "accuracy": found.accuracy, "loss": found.loss, "teacher": whole.accuracy, "seconds": round(seconds, 2),
        })  # fmt: skip


def _is(row: dict[str, str], widths: str, method: str, keep: float, seed: int) -> bool:
    return (row["widths"], row["method"], row["keep"], row["seed"]) == (widths, method, str(keep), str(seed))


def table(rows: list[dict[str, str]]) -> str:
    """Mean accuracy over seeds and its sample standard deviation, by share kept."""
    lines, keeps = [], sorted({float(row["keep"]) for row in rows})
    for widths, method in dict.fromkeys((row["widths"], row["method"]) for row in rows):
        cells = []
        for keep in keeps:
            mine = [row for row in rows if (row["widths"], row["method"], float(row["keep"])) == (widths, method, keep)]
            values = [100 * float(row["accuracy"]) for row in mine]
            spread = f" ± {np.std(values, ddof=1):.1f}" if len(values) > 1 else ""
            cells.append(f"{np.mean(values):.1f}{spread}" if values else "–")
        lines.append((widths, method, *cells))
    return markdown(("hidden neurons", "method", *(f"{keep:g} kept" for keep in keeps)), lines)


def figure(rows: list[dict[str, str]], path: Path) -> None:
    """Accuracy against kept neurons."""
    networks = list(dict.fromkeys(row["widths"] for row in rows))
    drawing = Figure(figsize=(4.6 * len(networks), 3.6), layout="constrained")
    FigureCanvasAgg(drawing)
    for panel, widths in zip(np.atleast_1d(drawing.subplots(1, len(networks))), networks, strict=True):
        mine = [row for row in rows if row["widths"] == widths]
        for method in dict.fromkeys(row["method"] for row in mine):
            counts = sorted({int(row["kept"]) for row in mine if row["method"] == method})
            means = [
                np.mean([float(r["accuracy"]) for r in mine if (r["method"], int(r["kept"])) == (method, c)]) for c in counts
            ]
            panel.plot(counts, 100 * np.array(means), marker="o", label=method)
        panel.set(title=f"{widths} random neurons", xlabel="neurons kept", ylabel="accuracy, %", xscale="log")
        panel.legend(fontsize=8)
    drawing.savefig(path, dpi=140)


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--widths", nargs="+", default=["4096", "1024-1024"], help="hidden layers")
    parser.add_argument("--methods", nargs="+", default=METHODS, choices=METHODS, help="annealed first, as the measure")
    parser.add_argument("--keeps", type=float, nargs="+", default=[0.125, 0.25, 0.5])
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--passes", type=float, default=3.0)
    parser.add_argument("--step", type=float, default=0.005)
    parser.add_argument("--examples", type=int, default=20000)
    parser.add_argument("--teacher", type=int, default=500, help="neurons of the teacher")
    parser.add_argument("--split", default="test", choices=["test", "validation"])
    parser.add_argument("--out", type=Path, default=Path("neuron-tickets-results"))
    parser.add_argument("--quick", action="store_true", help="digits, small networks, one seed: seconds, for CI")
    options = parser.parse_args()
    if options.quick:
        options.widths, options.keeps, options.seeds, options.passes = ["128", "48-48"], [0.5], [0], 30.0
        options.examples, options.teacher = 1000, 32
    settle(options.out / "config.json", vars(options), selecting=("widths", "methods", "keeps", "seeds", "out"))
    rows = Rows(options.out / "rows.csv", ("widths", "method", "keep", "seed"))
    measure(rows, options)
    text = table(rows.read())
    (options.out / "table.md").write_text(text)
    figure(rows.read(), options.out / "neuron_tickets.png")
    print(text)


if __name__ == "__main__":
    main()
