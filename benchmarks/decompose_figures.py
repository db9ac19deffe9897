"""What the rows of the decomposer's benchmark say: the table on the terminal and the figure, from the files alone."""

from pathlib import Path

import numpy as np
from rows import Rows


def read(folder: Path, section: str) -> list[dict[str, str]]:
    return Rows(folder / f"{section}.csv").read()


def column(rows: list[dict[str, str]], name: str) -> np.ndarray:
    return np.array([float(row[name]) for row in rows if row.get(name)])


def conclude(folder: Path) -> None:
    """Print one line a claim and draw the figure."""
    parts, solutions, packing, chains = (read(folder, name) for name in ("parts", "solutions", "packing", "chains"))
    for graph in dict.fromkeys(row["graph"] for row in parts):
        own = [row for row in parts if row["graph"] == graph]
        ratio = np.median(column(own, "share") / column(own, "metis_share"))
        speed = min(np.median(column(own, "energy_speedup")), np.median(column(own, "pfs_speedup")))
        weight = np.median(column(own, "weight_a_part") / column(own, "pfs_weight_a_part"))
        seconds, count = 1000 * np.median(column(own, "seconds")), own[0]["parts"]
        print(f"{graph}: {seconds:.1f} ms for {count} parts, a part {speed:.0f} times as fast as dwave-hybrid's;", end=" ")
        print(f"coupling inside {ratio:.3f} of pymetis's, {weight:.2f} of pfs's a part")
    for row in read(folder, "million"):
        print(f"{int(row['variables']):,} variables: {float(row['seconds']):.1f} s, {float(row['peak_gib']):.2f} GiB")
    for kind in ("count", "price"):
        own = [row for row in solutions if row["kind"] == kind]
        if own:
            gaps = 100 * column(own, "gap")
            worst = gaps.max()
            print(f"by parts, with a {kind}: gap {np.mean(gaps):.2f} % in the mean, {worst:.2f} % at most, {len(own)} problems")
    priced = [row for row in solutions if row["kind"] == "price"]
    for peer in ("qbsolv", "kerberos"):
        if priced:
            for name, time in (("parts", "the same time"), ("quarter", "a quarter of its time")):
                ours, theirs = column(priced, f"{name}_{peer}"), column(priced, peer)
                slack = 1e-9 * np.abs(ours)
                wins, losses = int((ours < theirs - slack).sum()), int((ours > theirs + slack).sum())
                gap = 100 * ((theirs - ours) / np.abs(theirs)).mean()
                print(f"against {peer} in {time}: better {wins}, equal {len(ours) - wins - losses}, worse {losses};", end=" ")
                late = (column(priced, f"seconds_{name}_{peer}") / column(priced, f"seconds_{peer}")).max()
                print(f"its energy above ours {gap:.3f} % in the mean; ours took at most {late:.2f} times as long as it")
    for row in packing:
        against = f", peers {row['multiple']} and {row['sublattice']}" if row["multiple"] else ""
        print(f"{row['topology']} {row['kind']}: {row['placed']} placed{against}; ratio {float(row['ratio']):.2f}")
    if chains:
        found = [row for row in chains if row["found"] != "0"]
        away = np.abs(column(found, "predicted") - column(found, "found"))
        sparse = np.array([row["method"] == "sparse" for row in found])
        near = away <= 1
        print(
            f"chains: right within 1 for {np.mean(near):.1%} of {len(found)} parts ({np.mean(near[sparse]):.1%} of sparse)",
            end="",
        )
        print(f"; {len(chains) - len(found)} more had no embedding")
    draw(folder, solutions, chains)


def draw(folder: Path, solutions: list[dict[str, str]], chains: list[dict[str, str]]) -> None:
    """Energies by parts against the whole, and predicted against found chains."""
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(1, 2, figsize=(10, 4.2), layout="constrained")
    for kind in ("count", "price"):
        own = [row for row in solutions if row["kind"] == kind]
        axes[0].plot(column(own, "variables"), 100 * column(own, "gap"), "o", alpha=0.7, label=f"with a {kind}")
    axes[0].axhline(1.0, color="gray", linewidth=1)
    axes[0].set(xlabel="variables", ylabel="energy above the undecomposed (%)", title="Solved by parts of 64")
    axes[0].legend()
    found = [row for row in chains if row["found"] != "0"]
    jitter = np.random.default_rng(0).uniform(-0.15, 0.15, (2, len(found)))
    for topology, mark in (("zephyr", "o"), ("pegasus", "s")):
        own = np.array([row["topology"] == topology for row in found], bool)
        both = [column(found, name) + shift for name, shift in zip(("predicted", "found"), jitter, strict=True)]
        axes[1].plot(both[0][own], both[1][own], mark, alpha=0.5, label=topology)
    longest = max([2.0, *column(found, "found")])
    axes[1].plot([1, longest], [1, longest], color="gray", linewidth=1)
    axes[1].set(xlabel="predicted longest chain", ylabel="found", title="Chains of parts of real problems")
    axes[1].legend()
    figure.savefig(folder / "decompose.png", dpi=150)
