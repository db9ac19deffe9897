"""Rows: one measurement each, and their mean and spread over seeds.

Everything that is shown (the table on the terminal, the figure, the page) is drawn from rows alone, and the rows are
what `results.csv` holds: whoever has the file can make every figure again.

The spread of n seeds is the sample standard deviation, s = (Σ (aᵢ − ā)² / (n − 1))^½.
"""

import csv
import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

Keep = float | int

DENSE = "dense"
"""The method of the rows that measure the whole network."""


@dataclass(frozen=True)
class Row:
    """One network under one mask, measured on the test data.

    Attributes:
        unit: what the mask switches: "weight", "neuron" or "head"; empty for the dense network.
        keep: what was asked: a fraction in (0, 1] (float) or a count (int).
        method: name of the method that chose the mask, or "dense".
        seed: of the network, the calibration examples and the method.
        refit: whether the kept weights got the refit that is the same for all; else they are as the method left them.
        kept: units that stayed.
        size: units there were.
        accuracy: share of the test examples classified correctly, in [0, 1].
        loss: mean loss over the test examples.
        distance: how far the outputs are from the dense network's on the calibration examples
            (`annealsubnet.statistics.weight_distance`).
        examples: test examples.
        nonzeros: parameters that are not zero.
        parameters: parameters there are.
        flops: floating-point operations for one example.
        seconds_select: time to choose the mask (statistics, problems, solving).
        seconds_refit: time to refit; 0 without.
        seconds_evaluate: time to measure.
    """

    unit: str
    keep: Keep
    method: str
    seed: int
    refit: bool
    kept: int
    size: int
    accuracy: float
    loss: float
    distance: float
    examples: int
    nonzeros: int
    parameters: int
    flops: int
    seconds_select: float
    seconds_refit: float
    seconds_evaluate: float


@dataclass(frozen=True)
class Summary:
    """Mean and spread of a value over seeds.

    Attributes:
        mean: over the seeds.
        spread: sample standard deviation; 0 for a single seed.
        count: how many seeds.
    """

    mean: float
    spread: float
    count: int


def summarize(values: Sequence[float]) -> Summary:
    """Mean and sample standard deviation of `values`.

    Example:
        >>> summarize([0.25, 0.75])
        Summary(mean=0.5, spread=0.3535533905932738, count=2)
    """
    if not values:
        raise ValueError("There is nothing to summarize: no row was found for it.")
    if min(values) == max(values):
        return Summary(values[0], 0.0, len(values))
    mean = math.fsum(values) / len(values)
    squares = math.fsum((value - mean) ** 2 for value in values)
    return Summary(mean, math.sqrt(squares / (len(values) - 1)), len(values))


def nearest(rows: Iterable[Row]) -> tuple[Row, ...]:
    """For each choice of a mask its network that is nearest to the dense one: no test example has a say in it.

    Args:
        rows: of networks before and after the refit.

    Returns:
        Of the rows that differ in `refit` alone the one with the least distance; the first of equal ones.
    """
    found: dict[tuple[Any, ...], Row] = {}
    for row in rows:
        best = found.setdefault((row.unit, row.keep, row.method, row.seed), row)
        if row.distance < best.distance:
            found[row.unit, row.keep, row.method, row.seed] = row
    return tuple(found.values())


def parse_keep(text: str) -> Keep:
    """The size that `text` asks for: "0.05", ".05" and "5%" are fractions, "200" is a count.

    Args:
        text: as typed.

    Returns:
        A float in (0, 1], or an int of at least 1.

    Raises:
        ValueError: Neither of them.

    Example:
        >>> parse_keep(".05"), parse_keep("5%"), parse_keep("200")
        (0.05, 0.05, 200)
    """
    advice = "give a fraction above 0 and up to 1 (such as 0.05 or 5%) or a count of units (such as 200)"
    try:
        if text.isascii() and text.isdigit():
            count = int(text)
            if count < 1:
                raise ValueError
            return count
        fraction = float(text[:-1]) / 100 if text.endswith("%") else float(text)
        if not 0 < fraction <= 1:
            raise ValueError
    except ValueError:
        raise ValueError(f"keep is {text!r}; {advice}.") from None
    return fraction


def keep_label(keep: Keep) -> str:
    """How a size is shown: a fraction in percent, a count as it is.

    Example:
        >>> keep_label(0.05), keep_label(0.125), keep_label(1500)
        ('5 %', '12.5 %', '1,500')
    """
    return f"{100 * keep:.6g} %" if isinstance(keep, float) else f"{keep:,}"


def write_rows(rows: Iterable[Row], path: Path) -> None:
    """Write `rows` to the CSV file `path`, one line each."""
    names = [field.name for field in fields(Row)]
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(names)
        writer.writerows([getattr(row, name) for name in names] for row in rows)


def read_rows(path: Path) -> tuple[Row, ...]:
    """The rows of a CSV file that `write_rows` wrote.

    Raises:
        ValueError: The file has other columns.
    """
    readers: dict[Any, Callable[[str], Any]] = {
        int: int,
        float: float,
        str: str,
        bool: {"True": True, "False": False}.__getitem__,
        Keep: parse_keep,
    }
    kinds = {field.name: readers[field.type] for field in fields(Row)}
    with path.open(newline="", encoding="utf-8") as file:
        lines = csv.DictReader(file)
        if lines.fieldnames != list(kinds):
            raise ValueError(f"{path} has the columns {lines.fieldnames}; results have {list(kinds)}.")
        return tuple(Row(**{name: kind(line[name]) for name, kind in kinds.items()}) for line in lines)
