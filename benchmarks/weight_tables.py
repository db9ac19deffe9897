"""Tables and figures of the weight benchmark, from the rows of its file alone."""

from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
from verdicts import cell, unpacked

OURS = "annealed"
STATES = ("own", "refitted")
"""In which a network is measured: with its method's own weights, and after the common refit."""


Cells = dict[str, dict[float, dict[int, np.ndarray]]]


def cells(rows: list[Any], section: str, network: str, which: str) -> Cells:
    """Which images are classified rightly, by method, sparsity and seed."""
    found: Cells = {}
    for row in rows:
        if (row.section, row.network) == (section, network):
            right = unpacked(row.right)[STATES.index(which)]
            found.setdefault(row.method, {}).setdefault(row.sparsity, {})[row.seed] = right
    return found


def table(rows: list[Any], section: str, network: str, which: str, title: str) -> list[str]:
    """One table as lines of Markdown."""
    found = cells(rows, section, network, which)
    sparsities = sorted({sparsity for by_sparsity in found.values() for sparsity in by_sparsity})
    lines = ["", f"| {title} | " + " | ".join(f"{sparsity:g}" for sparsity in sparsities) + " |"]
    lines.append("|---" * (len(sparsities) + 1) + "|")
    for method, by_sparsity in found.items():
        ours = found.get(OURS, found.get(f"{OURS}, trained", {}))
        values = [
            cell(by_sparsity[sparsity], ours.get(sparsity, {})) if sparsity in by_sparsity else "" for sparsity in sparsities
        ]
        lines.append(f"| {method} | " + " | ".join(values) + " |")
    return lines


def draw(rows: list[Any], folder: Path) -> str:
    """Write table.md and a figure a section; the table's text."""
    lines: list[str] = []
    for section, network in dict.fromkeys((row.section, row.network) for row in rows):
        here = [row for row in rows if (row.section, row.network) == (section, network)]
        seeds = sorted({row.seed for row in here})
        lines += ["", f"## {section}, {network}, {here[0].split} images, seeds {', '.join(map(str, seeds))}"]
        if section.endswith("-gradual"):
            lines += table(rows, section, network, "own", "sparsity")
        else:
            lines += table(rows, section, network, "refitted", "with the common refit")
            lines += table(rows, section, network, "own", "with its own weights")
        lines += ["", "| | examples read | by the refit | seconds | of the refit |", "|---|---|---|---|---|"]
        for method in dict.fromkeys(row.method for row in here):
            mine = [row for row in here if row.method == method]
            means = [np.mean([getattr(row, name) for row in mine]) for name in ("examples", "refit_examples", "seconds")]
            refit_seconds = np.mean([row.refit_seconds for row in mine])
            lines.append(f"| {method} | {means[0]:,.0f} | {means[1]:,.0f} | {means[2]:.1f} | {refit_seconds:.1f} |")
        if len({row.sparsity for row in here}) > 1:
            figure(rows, section, network, folder / f"{section}.png")
    text = "\n".join(lines).strip() + "\n"
    (folder / "table.md").write_text(text)
    return text


def figure(rows: list[Any], section: str, network: str, path: Path) -> None:
    """Accuracy over sparsity, a line a method, the spread over seeds as bars."""
    found = cells(rows, section, network, "refitted")
    fig, axes = plt.subplots(figsize=(7, 4.5))
    for number, (method, by_sparsity) in enumerate(found.items()):
        xs = sorted(by_sparsity)
        values = [np.array([100 * right.mean() for right in by_sparsity[x].values()]) for x in xs]
        style = (
            {"linewidth": 2.5, "color": "black"}
            if method.split(",")[0] == OURS
            else {"linewidth": 1.0, "color": f"C{number % 10}"}
        )
        axes.errorbar(
            xs, [v.mean() for v in values], [v.std() for v in values], marker="o.sv^Dxp*"[number % 9], label=method, **style
        )
    axes.set(xlabel="sparsity", ylabel="accuracy in percent", title=f"{section} ({network})")
    axes.legend(fontsize=7, ncols=2)
    fig.savefig(path, dpi=120, bbox_inches="tight")
    plt.close(fig)
