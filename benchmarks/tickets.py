"""Tickets of random networks: annealed masks against edge-popup, latent scores and supermasks, at equal examples seen.

Protocol. A network's weights are drawn for each seed (signed constant, rescaled by 1/√keep) and never trained. Every method
runs in the same loop on the same examples in the same order, keeps exactly the same share of each layer, and has a schedule of
its own that ends at the count of examples at which it is read: a run for each count (a pass is 55,000 images of MNIST, so 1.1
passes are one epoch of all 60,000). Steps were tuned on the validation part (docs/tickets.md); accuracies are on the test part,
`--split validation` reads the other. With --shift every method sees images shifted by up to one pixel; with --smoothing every
rule has its labels smoothed by that share. `read` counts the examples that checks pass, too. The searches without scores
judge a mask on `--judged-on` examples, and get as many evaluations as `--passes` has room for; blocks have as many in a round,
and as many rounds as that many examples can be passed in. Seconds are processor time.
Rows that are in the folder already are not measured again. Behind a difference from "annealed", paired over seeds, stand its
standard errors, over seeds and over seeds and images (`verdicts.py`).
"""

import argparse
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from rows import Rows, settle
from verdicts import cell, packed, unpacked, verdicts

from annealsubnet import Mask, examples, find_ticket
from annealsubnet.examples.ticket_networks import ticket_network
from annealsubnet.losses import cross_entropy, smoothed_cross_entropy
from annealsubnet.networks import Network, as_network
from annealsubnet.tickets import (
    Blocks,
    Check,
    Rule,
    annealed,
    edge_popup,
    genetic,
    greedy_exchanges,
    initialize,
    latent_scores,
    random_masks,
    sampled,
    supermask,
)
from annealsubnet.tickets.sequential import passes_of

RULES: dict[str, Callable[..., Rule]] = {
    "annealed": annealed,
    "sampled": sampled,
    "temperature zero": partial(sampled, temperature=0.0),
    "latent scores": latent_scores,
    "edge-popup": edge_popup,
    "supermask": supermask,
}
BLOCKS = {
    "blocks": Blocks(),
    "blocks, temperature zero": Blocks(temperature=0.0),
    # At the damping that serves it best, as 10 does the others (docs/tickets.md).
    "blocks, no couplings": Blocks(coupling=False, damping=20.0),
    "blocks, no couplings, damping 10": Blocks(coupling=False, damping=10.0),
}
SEARCHES: dict[str, Callable[..., Mask]] = {
    "genetic": genetic,
    "greedy exchanges": greedy_exchanges,
    "random masks": random_masks,
}
FIELDS = (
    "network",
    "keep",
    "shift",
    "split",
    "method",
    "seed",
    "passes",
    "batch_size",
    "smoothing",
    "seen",
    "read",
    "accuracy",
    "held_in_loss",
    "seconds",
    "right",
)


def shifted(inputs: np.ndarray, generator: np.random.Generator) -> np.ndarray:
    """Images shifted by −1, 0 or 1 pixel in each direction; edges repeat."""
    places = generator.integers(0, 3, (len(inputs), 2))
    padded = np.pad(inputs, ((0, 0), (1, 1), (1, 1), (0, 0)), mode="edge")
    height, width = inputs.shape[1:3]
    moved = np.empty_like(inputs)
    for down in range(3):
        for right in range(3):
            chosen = (places == (down, right)).all(axis=1)
            moved[chosen] = padded[chosen, down : down + height, right : right + width]
    return moved


def measure(options: argparse.Namespace, path: Path) -> None:
    """Append the rows that are missing."""
    rows = Rows(path, FIELDS[:9])
    traced: Network | None = None
    for seed in options.seeds:
        named = ticket_network(options.network)
        data = examples.load(named.data, seed=seed)
        train = list(data.batches("train", 1000, normalize=named.normalize, examples=options.examples))
        judge = list(data.batches(options.split, 1000, normalize=named.normalize))
        for keep in options.keeps:
            model = initialize(named.build(seed=seed), keep=keep, example=train[0][0], seed=seed)
            # One traced network for all seeds, so that every step is compiled once.
            traced = as_network(model, train[0][0]) if traced is None else traced.replace(model)
            for passes in options.passes:
                for method in options.methods:
                    key = (
                        options.network, str(keep), str(options.shift), options.split, method, str(seed), str(passes),
                        str(options.batch_size), str(options.smoothing),
                    )  # fmt: skip
                    if rows.has(*key):
                        continue
                    start = time.process_time()
                    mask, cost = found_by(method, traced, train, keep, passes, options, seed)
                    seconds = time.process_time() - start
                    right = verdicts(traced, mask.multiply(traced.params), judge)
                    found = (*cost[:2], float(right.mean()), cost[2], round(seconds, 2), packed(right))
                    rows.append(dict(zip(FIELDS, (*key, *found), strict=True)))


def found_by(
    method: str, network: Network, train: list[Any], keep: float, passes: float, options: argparse.Namespace, seed: int
) -> tuple[Mask, tuple[int, int, float]]:
    """The mask a method finds, and the examples its rounds saw, all that it read, and its loss on held-in examples."""
    augment = shifted if options.shift else None
    if method in SEARCHES:
        size = options.judged_on
        evaluations = max(1, round(passes * sum(len(labels) for _, labels in train) / size))
        if augment is not None:
            raise SystemExit(f"--shift is not for {method}.")
        mask = SEARCHES[method](network, train, keep=keep, evaluations=evaluations, batch_size=size, seed=seed)
        return mask, (evaluations * size, evaluations * size, float("nan"))
    checks: list[Check] = []
    step, size = options.steps.get(method), options.batch_size
    rule: Rule | Blocks
    if method in BLOCKS:
        # Read by the examples that are passed: a round passes its own five times and the held-in ones once.
        rule, size, total = BLOCKS[method], options.judged_on, sum(len(labels) for _, labels in train)
        passes = max(1, (round(passes * total / size) - 1) // (passes_of(network, "weight") + 1)) * size / total
    else:
        rule = RULES[method]() if step is None else RULES[method](step=step)
    loss = smoothed_cross_entropy(options.smoothing) if options.smoothing else cross_entropy
    mask = find_ticket(
        network, train, keep=keep, passes=passes, batch_size=size, rule=rule, augment=augment, loss=loss,
        seed=seed, report=checks.append,
    )  # fmt: skip
    return mask, (checks[-1].seen, checks[-1].read, checks[-1].held_in_loss)


def table(rows: list[dict[str, str]]) -> str:
    """Mean accuracy in percent, and behind it the paired difference from the annealed masks with its standard errors."""
    lines = []
    for network, keep, shift in dict.fromkeys((row["network"], row["keep"], row["shift"]) for row in rows):
        mine = [row for row in rows if (row["network"], row["keep"], row["shift"]) == (network, keep, shift)]
        counts = sorted({float(row["passes"]) for row in mine})
        title = f"{network}, {keep} kept{', shifted' if shift == 'True' else ''}"
        lines += [f"\n{title} | " + " | ".join(f"{count:g} passes" for count in counts)]
        lines += ["---|" * (len(counts) + 1)]
        for method in dict.fromkeys(row["method"] for row in mine):
            lines.append(f"{method} | " + " | ".join(_cell(mine, method, count) for count in counts))
    return "\n".join(lines) + "\n"


def _cell(rows: list[dict[str, str]], method: str, passes: float) -> str:
    def by_seed(name: str) -> dict[int, np.ndarray]:
        here = (row for row in rows if row["method"] == name and float(row["passes"]) == passes)
        return {int(row["seed"]): unpacked(row["right"]) for row in here}

    values = by_seed(method)
    return cell(values, values if method == "annealed" else by_seed("annealed")) if values else "–"


def figure(rows: list[dict[str, str]], out: Path) -> None:
    """Accuracy against examples seen and against seconds."""
    drawing = Figure(figsize=(9, 3.6), layout="constrained")
    FigureCanvasAgg(drawing)
    for panel, name in zip(drawing.subplots(1, 2), ("seen", "seconds"), strict=True):
        for method in dict.fromkeys(row["method"] for row in rows):
            mine = [row for row in rows if row["method"] == method]
            counts = sorted({float(row["passes"]) for row in mine})
            groups = [[row for row in mine if float(row["passes"]) == count] for count in counts]
            across = [np.mean([float(row[name]) for row in group]) for group in groups]
            accuracy = [100 * np.mean([float(row["accuracy"]) for row in group]) for group in groups]
            panel.plot(across, accuracy, marker="o", linewidth=3 if method == "annealed" else 1.3, label=method)
        panel.set(xscale="log", xlabel="examples seen" if name == "seen" else "seconds of processor time", ylabel="accuracy, %")
        panel.legend(fontsize=8)
    drawing.savefig(out / "tickets.png", dpi=140)


def named_step(text: str) -> tuple[str, float]:
    """METHOD=STEP."""
    method, _, step = text.partition("=")
    if method not in RULES:
        raise argparse.ArgumentTypeError(f"{method!r} is none of {', '.join(RULES)}")
    return method, float(step)


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--network", default="lenet-300-100")
    parser.add_argument(
        "--methods", nargs="+", default=["annealed", "latent scores", "edge-popup"], choices=[*RULES, *BLOCKS, *SEARCHES]
    )
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2, 3, 4])
    parser.add_argument("--passes", type=float, nargs="+", default=[1.1, 5.0, 20.0])
    parser.add_argument("--keeps", type=float, nargs="+", default=[0.5])
    parser.add_argument("--examples", type=int, default=None)
    parser.add_argument("--batch-size", type=int, default=100)
    parser.add_argument(
        "--judged-on",
        type=int,
        default=500,
        help="examples of an evaluation, for searches without scores, and of a round of blocks",
    )
    parser.add_argument("--smoothing", type=float, default=0.0, help="of labels, for every rule")
    parser.add_argument("--steps", type=named_step, nargs="+", default=[], metavar="METHOD=STEP", help="instead of the default")
    parser.add_argument("--split", default="test", choices=["test", "validation"])
    parser.add_argument("--shift", action="store_true")
    parser.add_argument("--out", type=Path, default=Path("tickets-results"))
    parser.add_argument("--quick", action="store_true", help="digits, one seed: seconds, for CI")
    options = parser.parse_args()
    if options.quick:
        options.network, options.seeds, options.passes = "digits-mlp", [0], [3.0]
        options.methods, options.judged_on = [*options.methods, *BLOCKS, *SEARCHES], 100
    options.steps = dict(options.steps)
    columns = ("network", "keeps", "shift", "split", "methods", "seeds", "passes", "batch_size", "smoothing")
    settle(options.out / "config.json", vars(options), selecting=(*columns, "quick", "out"))
    measure(options, options.out / "rows.csv")
    rows = Rows(options.out / "rows.csv").read()
    text = table(rows)
    (options.out / "table.md").write_text(text)
    figure(rows, options.out)
    print(text)


if __name__ == "__main__":
    main()
