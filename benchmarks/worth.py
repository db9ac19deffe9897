"""Where annealing is worth its time, against descent, tabu search and growth at equal processor time.

Tasks (`worth_models.py`; a trained 784-256-256-10 teacher, 5,000 images of MNIST, the couplings built once for all methods):

- one neuron: which of n random ReLU neurons with fixed random outgoing weights to keep, no refit, so that their sum matches
  one pre-activation of the teacher's second layer; "layer": forty of them at once, every random neuron with forty weights.
- "scale": the same with outgoing weights of another size than that at which half of them together vary as much as the target.
- weights: which of one, two or four random weights from every pixel, to match a neuron of the teacher's first layer.
- trained layer: which of the first layer's own neurons stay, with their trained weights, to match the second layer; across
  layers: which of both, in the Gauss-Newton model of the network. There a price on every unit, the same for all methods, makes
  about half of them stay, and is part of the error.

Every method gets the same processor time (one thread), from the same arrays (`worth_methods.py`); errors are relative to the
target, on the images of the problem. "Best descent" is the better of restarted single-flip and best-pair descent, target by
target. Ratios are paired over targets, with a 95 % confidence interval from Student's t. Rows are resumable.

    python benchmarks/worth.py                                          # one neuron at 1,024 and 2,048, ten targets
    python benchmarks/worth.py --task scale --sizes 1024 2048 --targets 4 --seconds .4
"""

import argparse
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from rows import Rows, settle
from scipy.stats import t as student
from worth_methods import METHODS, compile_all, priced
from worth_models import Model, Teacher, across_layers, random_neurons, random_weights, teacher, trained_layer

FIELDS = ("task", "n", "target", "method", "budget", "error", "seconds")
TASKS = ("one neuron", "layer", "scale", "weights", "trained layer", "across layers")
SCALES = (0.35, 0.5, 0.7, 1.4)
OUTPUTS = 40
_SLOW = {"pair descent": 4096, "kicked": 4096}
"""Largest n for methods whose every step takes O(n²)."""


@cache
def _teacher(seed: int, quick: bool) -> Teacher:
    return teacher(seed, quick)


def models(task: str, sizes: list[int], target: int, seed: int, quick: bool) -> Iterator[tuple[str, int, Model]]:
    """(name of the task, n, model) for one target; trained networks have another teacher for every target."""
    if task in ("trained layer", "across layers"):
        source = _teacher(seed + target, quick)
        model = priced(trained_layer(source) if task == "trained layer" else across_layers(source))
        yield task, model.linear.size, model
        return
    source = _teacher(seed, quick)
    if task == "weights":
        for copies in (1, 2, 4):
            model = random_weights(source, copies, seed + target)
            yield task, model.linear.size, model
        return
    outputs = OUTPUTS if task == "layer" else 1
    for n in sizes:
        if task == "scale":
            for scale in SCALES:
                yield f"one neuron, scale {scale}", n, random_neurons(source, n, outputs, seed + target, scale)
        else:
            yield task, n, random_neurons(source, n, outputs, seed + target, 1.0)


def measure(chosen: str, options: argparse.Namespace, file: Rows) -> None:
    """Append the rows that are missing, target by target."""
    done = {tuple(row[name] for name in FIELDS[:5]) for row in file.read()}
    compile_all()
    for target in range(options.targets):
        for task, n, model in models(chosen, options.sizes, target, options.seed, options.quick):
            rows = []
            for name in options.methods:
                key = (task, str(n), str(target), name)
                budgets = [budget for budget in options.seconds if (*key, str(budget)) not in done]
                if budgets and n <= _SLOW.get(name, n):
                    course = METHODS[name](model, budgets, target)
                    rows += [dict(zip(FIELDS, (*key, *row), strict=True)) for row in _with(budgets, course)]
            file.append(*rows)


def _with(budgets: list[float], course: list[tuple[float, float]]) -> list[tuple[float, float, float]]:
    """(budget, error, seconds); nothing where the method does not run."""
    return [(budget, *found) for budget, found in zip(budgets, course, strict=True)] if course else []


Table = dict[tuple[str, int, float], dict[str, dict[str, float]]]


def table_of(rows: list[dict[str, str]]) -> Table:
    """Errors by (task, n, budget), method and target."""
    found: Table = {}
    for row in rows:
        key = (row["task"], int(row["n"]), float(row["budget"]))
        found.setdefault(key, {}).setdefault(row["method"], {})[row["target"]] = float(row["error"])
    return found


def below(cell: dict[str, dict[str, float]], rivals: tuple[str, ...]) -> np.ndarray:
    """By how many percent the annealed error is below the least of the rivals', for each target."""
    names = [name for name in rivals if name in cell]
    least = {target: min(cell[name][target] for name in names) for target in cell["annealed"]} if names else {}
    return np.array([100 * (1 - cell["annealed"][target] / error) for target, error in least.items()])


def interval(values: np.ndarray) -> str:
    """Mean and 95 % confidence interval."""
    if not values.size:
        return "–"
    spread = student.ppf(0.975, len(values) - 1) * values.std(ddof=1) / np.sqrt(len(values)) if len(values) > 1 else np.nan
    return f"{values.mean():.1f} ± {spread:.1f}"


def summary(table: Table) -> str:
    """Mean error of each method, and how much less the annealed error is than the best descent's and the kicked one's."""
    heads = ("task", "n", "seconds", "targets", *METHODS, "below the best descent, %", "below kicked, %")
    lines = ["| " + " | ".join(heads) + " |", "|---" * len(heads) + "|"]
    for (task, n, budget), cell in sorted(table.items()):
        errors = [f"{np.mean(list(cell[name].values())):.4f}" if name in cell else "–" for name in METHODS]
        gains = (interval(below(cell, ("flip descent", "pair descent"))), interval(below(cell, ("kicked",))))
        lines.append("| " + " | ".join((task, str(n), f"{budget:g}", str(len(cell["annealed"])), *errors, *gains)) + " |")
    return "\n".join(lines) + "\n"


def figure(table: Table, path: Path) -> None:
    """Error against width, at the middle of the budgets of each, and against time, at the two widest with three budgets."""
    own = {(n, budget): cell for (task, n, budget), cell in table.items() if task == "one neuron"}
    sizes = sorted({n for n, _ in own})
    times = {n: sorted(budget for other, budget in own if other == n) for n in sizes}
    timed = [n for n in sizes if len(times[n]) > 1][-2:]
    if not sizes:
        return
    drawing = Figure(figsize=(4.6 * (1 + len(timed)), 3.6), layout="constrained")
    FigureCanvasAgg(drawing)
    panels = np.atleast_1d(drawing.subplots(1, 1 + len(timed)))
    for name in METHODS:
        style = {"marker": "o", "linewidth": 3 if name == "annealed" else 1.3, "label": name}
        middle = [own[n, times[n][len(times[n]) // 2]].get(name, {}) for n in sizes]
        panels[0].loglog(sizes, [np.mean(list(cell.values())) if cell else np.nan for cell in middle], **style)
        for panel, n in zip(panels[1:], timed, strict=True):
            means = [np.mean(list(own[n, budget].get(name, {"": np.nan}).values())) for budget in times[n]]
            panel.loglog(times[n], means, **style)
            panel.set(title=f"{n} random neurons", xlabel="seconds of one processor", ylabel="relative error")
    panels[0].set(title="one neuron", xlabel="random neurons to choose from", ylabel="relative error")
    panels[0].legend(fontsize=8)
    drawing.savefig(path, dpi=140)


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--task", choices=TASKS, default="one neuron")
    parser.add_argument("--sizes", type=int, nargs="+", default=[1024, 2048])
    parser.add_argument("--targets", type=int, default=10)
    parser.add_argument("--seconds", type=float, nargs="+", default=[0.1, 0.4, 1.6], help="budgets, ascending")
    parser.add_argument("--methods", nargs="+", choices=list(METHODS), default=list(METHODS))
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=Path("worth-results"))
    parser.add_argument("--quick", action="store_true", help="small sizes of every task on digits: seconds, for CI")
    options = parser.parse_args()
    if options.quick:
        options.sizes, options.targets, options.seconds = [64, 128], 2, [0.01, 0.03]
    selecting = ("task", "sizes", "targets", "seconds", "methods", "out")
    rows = Rows(options.out / "rows.csv")
    for task in TASKS if options.quick else [options.task]:
        settle(options.out / f"config {task}.json", vars(options), selecting=selecting)
        measure(task, options, rows)
    table = table_of(rows.read())
    (options.out / "table.md").write_text(summary(table))
    figure(table, options.out / "worth.png")
    print(summary(table))


if __name__ == "__main__":
    main()
