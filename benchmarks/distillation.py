"""Distillation: a random student masked to compute what a trained teacher does, and what annealing and couplings add to it.

Section `mnist`. The teacher, 784-500-10 without biases, is trained on the training part of MNIST. The student is a perceptron
of four random layers, two for each of the teacher's (Pensia and others' form): nothing is trained, `distill_ticket` only masks,
from 10,000 images without labels. --kept is how many of the student's weights stay for each of the teacher's, both layers of
every block counted; the last block gets 4 for each of its weights, the first what is left. Methods: annealed; descent, the same
moves at temperature zero from random starts, the best of all for each neuron, for as long as annealing took on the same
processors; and uncoupled, the nearest subset of each weight (the same search without the couplings between inputs, which are
weighted by their mean square). Seeds draw student and search. Accuracies are on the test images (--split validation reads the
others); the gap is the teacher's less the student's, in points. Seconds are wall time of `distill_ticket`.

Section `hidden`, digits: both layers of every block chosen by annealing in turn (`Alternation`), against laid paths and against
hidden neurons of random fan-in, at the same count of kept weights at most.
"""

import argparse
import time
from functools import partial
from pathlib import Path

import numpy as np
from flax import nnx
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from rows import Rows, markdown, settle

from annealsubnet import evaluate, examples
from annealsubnet.distillation import Alternation, Fit, Schedule, Solve, Sums, anneal_sums, distill_ticket, draw_student
from annealsubnet.distillation.descend import descend_sums
from annealsubnet.examples.architectures import MLP
from annealsubnet.examples.networks import Scaling

METHODS = ("annealed", "descent", "uncoupled")
LAST = 4.0
"""Student's weights for each of the teacher's last layer."""


def teacher_of(name: str, hidden: int, epochs: int) -> tuple[MLP, examples.Data, Scaling]:
    """A trained perceptron without biases, its data, and how inputs are scaled."""
    data = examples.load(name, seed=0)
    scaling = Scaling(16 if name == "digits" else 255)
    model = MLP(data.input_shape, (hidden, data.num_classes), use_bias=False, rngs=nnx.Rngs(0))
    train = data.batches("train", 1000, normalize=scaling)
    return examples.train(model, train, seed=0, epochs=epochs, learning_rate=2e-3), data, scaling


def uncoupled(sums: Sums, *, num_kept: int, seed: int) -> np.ndarray:
    """Each source on its own: the nearest subset of its least-squares weight."""
    return anneal_sums(sums.uncoupled(), num_kept=num_kept, seed=seed)


def cooled(sums: Sums, *, num_kept: int, seed: int, sweeps: int) -> np.ndarray:
    """Annealed; a block of few neurons, whose sweeps cost little, up to ten times as slowly."""
    slower = min(10, max(1, 500 // len(sums.coefficients)))
    return anneal_sums(sums, num_kept=num_kept, schedule=Schedule(sweeps * slower), seed=seed)


class Timed:
    """A method that notes how long it took in each block."""

    def __init__(self, solve: Solve):
        self.solve, self.seconds = solve, list[float]()

    def __call__(self, sums: Sums, *, num_kept: int, seed: int) -> np.ndarray:
        start = time.perf_counter()
        state = self.solve(sums, num_kept=num_kept, seed=seed)
        self.seconds.append(time.perf_counter() - start)
        return state


class Descent:
    """Restarted descent for as long as annealing took in each block."""

    def __init__(self, seconds: list[float]):
        self.seconds, self.block = seconds, 0

    def __call__(self, sums: Sums, *, num_kept: int, seed: int) -> np.ndarray:
        self.block += 1
        return descend_sums(sums, num_kept=num_kept, seconds=self.seconds[self.block - 1], seed=seed)


def mnist(rows: Rows, options: argparse.Namespace) -> None:
    """The section `mnist`."""
    teacher, data, scaling = teacher_of("digits" if options.quick else "mnist", options.hidden, options.epochs)
    batches = list(data.batches("train", 1000, normalize=scaling, examples=options.examples))
    judge = list(data.batches(options.split, 1000, normalize=scaling))
    wanted = evaluate(teacher, judge).accuracy
    inputs, classes = int(np.prod(data.input_shape)), data.num_classes
    live = int((np.concatenate([batch for batch, _ in batches]).reshape(-1, inputs) != 0).any(axis=0).sum())
    widths = (options.copies[0] * live, options.hidden, options.copies[1] * options.hidden, classes)
    for seed in options.seeds:
        student = draw_student(teacher, MLP(data.input_shape, widths, use_bias=False, rngs=nnx.Rngs(0)), batches, seed=seed)
        for kept in options.kept:
            first, last = inputs * options.hidden, options.hidden * classes
            shares = {"fc1": (kept * (first + last) - LAST * last) / first, "fc2": LAST}
            annealed = Timed(partial(cooled, sweeps=options.sweeps))
            for method in METHODS:
                if rows.has("mnist", method, kept, seed):
                    continue
                if method == "descent" and not annealed.seconds:
                    distill_ticket(teacher, student, batches, kept_per_weight=shares, solve=annealed, seed=seed)
                solve = {"annealed": annealed, "descent": Descent(annealed.seconds), "uncoupled": uncoupled}[method]
                fits: list[Fit] = []
                start = time.perf_counter()
                mask = distill_ticket(
                    teacher, student, batches, kept_per_weight=shares, solve=solve, seed=seed, report=fits.append
                )
                seconds = time.perf_counter() - start
                found = evaluate(student, judge, mask).accuracy
                rows.append(_row("mnist", method, kept, seed, fits, wanted, found, seconds))


def hidden(rows: Rows, options: argparse.Namespace) -> None:
    """The section `hidden`."""
    teacher, data, scaling = teacher_of("digits", 32, 40 if options.quick else 60)
    batches = list(data.batches("train", 500, normalize=scaling))
    judge = list(data.batches(options.split, 500, normalize=scaling))
    wanted, shares = evaluate(teacher, judge).accuracy, {"fc1": 1.5, "fc2": 6.0}
    for seed in options.seeds:
        empty = MLP(data.input_shape, (256, 32, 128, 10), use_bias=False, rngs=nnx.Rngs(0))
        for method, fan_in, turns in (
            ("paths", 1, None),
            ("random hidden", 4, 0),
            ("annealed hidden", 4, 1 if options.quick else 3),
        ):
            if rows.has("hidden", method, 1.5, seed):
                continue
            student = draw_student(teacher, empty, batches, spread=2.0 if turns is None else 1.0, seed=seed)
            alternation = None if turns is None else Alternation(fan_in=fan_in, rounds=turns, examples=1000)
            fits: list[Fit] = []
            start = time.perf_counter()
            mask = distill_ticket(
                teacher, student, batches, kept_per_weight=shares, alternation=alternation, seed=seed, report=fits.append
            )
            seconds = time.perf_counter() - start
            found = evaluate(student, judge, mask).accuracy
            rows.append(_row("hidden", method, 1.5, seed, fits, wanted, found, seconds))


def _row(
    section: str, method: str, kept: float, seed: int, fits: list[Fit], teacher: float, student: float, seconds: float
) -> dict[str, object]:
    share = sum(fit.kept for fit in fits) / sum(fit.weights for fit in fits)
    return {
        "section": section, "method": method, "kept": kept, "seed": seed, "kept_per_weight": share,
        "error_first": fits[0].error, "error_last": fits[-1].error, "teacher": teacher, "student": student,
        "seconds": seconds,
    }  # fmt: skip


def table(rows: list[dict[str, str]]) -> str:
    """Means over seeds, with the sample standard deviation of the gap."""
    lines = []
    for section, method, kept in dict.fromkeys((row["section"], row["method"], row["kept"]) for row in rows):
        mine = [row for row in rows if (row["section"], row["method"], row["kept"]) == (section, method, kept)]
        mean = {name: np.mean([float(row[name]) for row in mine]) for name in list(mine[0])[4:]}
        gaps = [100 * (float(row["teacher"]) - float(row["student"])) for row in mine]
        spread = f" ± {np.std(gaps, ddof=1):.2f}" if len(gaps) > 1 else ""
        lines.append((
            section, method, f"{mean['kept_per_weight']:.3f}", f"{mean['error_first']:.4f}", f"{mean['error_last']:.4f}",
            f"{100 * mean['teacher']:.2f}", f"{100 * mean['student']:.2f}", f"{np.mean(gaps):+.2f}{spread}",
            f"{mean['seconds']:.1f}",
        ))  # fmt: skip
    header = ("section", "method", "kept for each", "error 1", "error 2", "teacher, %", "student, %", "gap", "seconds")
    return markdown(header, lines)


def figure(rows: list[dict[str, str]], path: Path) -> None:
    """Accuracy against what is kept."""
    mine = [row for row in rows if row["section"] == "mnist"]
    drawing = Figure(figsize=(5.2, 3.6), layout="constrained")
    FigureCanvasAgg(drawing)
    panel = drawing.subplots()
    for method in METHODS:
        counts = sorted({float(row["kept"]) for row in mine if row["method"] == method})
        means = [np.mean([float(r["student"]) for r in mine if (r["method"], float(r["kept"])) == (method, c)]) for c in counts]
        panel.plot(counts, 100 * np.array(means), marker="o", linewidth=3 if method == "annealed" else 1.3, label=method)
    panel.axhline(100 * float(mine[0]["teacher"]), color="gray", linestyle=":", label="teacher")
    panel.set(xlabel="random weights kept for each of the teacher's", ylabel="accuracy, %")
    panel.legend(fontsize=8)
    drawing.savefig(path, dpi=140)


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sections", nargs="+", default=["mnist", "hidden"], choices=["mnist", "hidden"])
    parser.add_argument("--kept", type=float, nargs="+", default=[0.2, 0.3, 0.4, 0.59])
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--hidden", type=int, default=500, help="neurons of the teacher")
    parser.add_argument("--epochs", type=int, default=6, help="of the teacher's training")
    parser.add_argument("--copies", type=int, nargs=2, default=[6, 8], help="neurons for each live input, in both blocks")
    parser.add_argument("--sweeps", type=int, default=100)
    parser.add_argument("--examples", type=int, default=10000)
    parser.add_argument("--split", default="test", choices=["test", "validation"])
    parser.add_argument("--out", type=Path, default=Path("distillation-results"))
    parser.add_argument("--quick", action="store_true", help="digits, one seed: seconds, for CI")
    options = parser.parse_args()
    if options.quick:
        options.kept, options.seeds, options.hidden, options.epochs, options.sweeps = [1.5], [0], 24, 40, 20
        options.examples = 1000
    settle(options.out / "config.json", vars(options), selecting=("sections", "kept", "seeds", "out"))
    rows = Rows(options.out / "rows.csv", ("section", "method", "kept", "seed"))
    for section in options.sections:
        {"mnist": mnist, "hidden": hidden}[section](rows, options)
    text = table(rows.read())
    (options.out / "table.md").write_text(text)
    if "mnist" in options.sections:
        figure(rows.read(), options.out / "distillation.png")
    print(text)


if __name__ == "__main__":
    main()
