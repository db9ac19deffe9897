"""Tables: rows arranged for reading, a method to a line and a size to a column.

`arrange` turns rows into blocks (one for each unit, refitted and with the methods' own weights) whose cells are finished text;
the terminal's table and the page's are both drawn from them, so that they can't disagree.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby

from rich.table import Table
from rich.text import Text

from annealsubnet.report.rows import DENSE, Keep, Row, Summary, keep_label, summarize

MANY_EXAMPLES = 5000
"""From so many test examples on, an accuracy in percent is shown with two decimals."""


@dataclass(frozen=True)
class Cell:
    """An accuracy in percent, as text.

    Attributes:
        mean: over seeds.
        spread: sample standard deviation; empty where all seeds agree.
        best: whether no other method shows more in this column.
    """

    mean: str
    spread: str
    best: bool

    @property
    def text(self) -> str:
        """Mean and spread on one line."""
        return f"{self.mean} ± {self.spread}" if self.spread else self.mean


@dataclass(frozen=True)
class Block:
    """The cells for one unit, refitted or with the methods' own weights.

    Attributes:
        unit: what was pruned.
        refit: whether the kept weights got the refit that is the same for all.
        keeps: the columns.
        sizes: what each column keeps, as "54 of 1,074 weights".
        cells: method to a cell for each column, `None` where nothing was measured.
    """

    unit: str
    refit: bool
    keeps: tuple[Keep, ...]
    sizes: tuple[str, ...]
    cells: Mapping[str, tuple[Cell | None, ...]]

    @property
    def title(self) -> str:
        """What the block shows."""
        return f"{self.unit}s kept, {self.stage}"

    @property
    def stage(self) -> str:
        """What weights its networks have."""
        return stage(refit=self.refit)


def stage(*, refit: bool) -> str:
    """What weights a network has, in words."""
    return "refitted" if refit else "own weights"


def arrange(rows: Sequence[Row]) -> tuple[Cell, tuple[Block, ...]]:
    """The dense network's cell, and a block for each unit and stage in `rows`, in their order.

    Args:
        rows: of a comparison.

    Returns:
        The dense cell and the blocks, of each unit the refitted one first.
    """
    decimals = 2 if rows[0].examples >= MANY_EXAMPLES else 1
    dense = _cell(summarize([row.accuracy for row in rows if row.method == DENSE]), decimals, best=False)
    pruned = [row for row in rows if row.method != DENSE]
    found = dict.fromkeys((row.unit, row.refit) for row in pruned)
    units = list(dict.fromkeys(unit for unit, _ in found))
    order = [(unit, refit) for unit in units for refit in (True, False) if (unit, refit) in found]
    return dense, tuple(_block([row for row in pruned if (row.unit, row.refit) == key], *key, decimals) for key in order)


def results_table(
    dense: Cell, blocks: Sequence[Block], labels: Mapping[str, str], *, ours: str, width: int, mark: str = ""
) -> Table:
    """The table for a terminal.

    Args:
        dense: the dense network's cell, repeated in every column.
        blocks: the parts of the table; those of one unit stand side by side if the terminal is wide enough.
        labels: method to the name that is shown.
        ours: method whose line is emphasized.
        width: columns of the terminal; means and spreads go on two lines where one would be too wide.
        mark: put behind the best, where bold letters are lost (in a file).

    Returns:
        A rich table.
    """
    cells = [cell for block in blocks for line in block.cells.values() for cell in line if cell]
    digits = max(len(cell.spread) for cell in cells)
    mean = max(len(cell.mean) for cell in cells)
    names = ["dense network", *(labels.get(method, method) for block in blocks for method in block.cells)]
    groups = [tuple(members) for _, members in groupby(blocks, key=lambda block: block.unit)]

    def fits(letters: int) -> bool:
        cell = letters + len(mark)
        lines = (sum(max(len(one.stage), cell) + 2 + (len(one.keeps) - 1) * (cell + 2) for one in group) for group in groups)
        return max(map(len, names)) + 2 + max(lines) <= width

    if not fits(max(mean, digits + 2)):
        groups = [(block,) for block in blocks]
    stacked = not fits(mean + 3 + digits if digits else mean)
    table = Table(box=None, show_header=False, pad_edge=False, padding=(0, 2, 0, 0))
    table.add_column(no_wrap=True)
    for _ in range(max(sum(len(block.keeps) for block in group) for group in groups)):
        table.add_column(justify="right", no_wrap=True)
    for number, group in enumerate(groups):
        if number:
            table.add_row()
        _add_group(table, group, dense, labels, ours=ours, texts=lambda cell: _rich(cell, digits, stacked, mark), mark=mark)
    return table


def _add_group(
    table: Table,
    group: Sequence[Block],
    dense: Cell,
    labels: Mapping[str, str],
    *,
    ours: str,
    texts: Callable[[Cell | None], Text],
    mark: str,
) -> None:
    """The lines of blocks of one unit, side by side."""
    stages = [text + " " * len(mark) for block in group for text in (block.stage, *[""] * (len(block.keeps) - 1))]
    sizes = [keep_label(keep) + " " * len(mark) for block in group for keep in block.keeps]
    table.add_row(Text(f"{group[0].unit}s kept", "bold"), *(Text(stage, "bold") for stage in stages))
    table.add_row("", *(Text(size, "bold") for size in sizes))
    table.add_row(Text("dense network", "dim"), *(texts(dense) for _ in sizes), style="dim")
    for method in group[0].cells:
        name = Text(labels.get(method, method), "cyan" if method == ours else "")
        table.add_row(name, *(texts(cell) for block in group for cell in block.cells[method]))


def _rich(cell: Cell | None, digits: int, stacked: bool, mark: str) -> Text:
    """The text of `cell` for the terminal; spreads fill `digits` letters, so that the means stand in a column."""
    if cell is None:
        return Text("–", "dim")
    text = Text(cell.mean, "bold" if cell.best else "")
    if cell.spread:
        text.append(("\n± " if stacked else " ± ") + cell.spread.rjust(digits), "bold" if cell.best else "dim")
    elif digits and not stacked:
        text.append(" " * (digits + 3))
    return text.append(mark if cell.best else " " * len(mark))


def _block(rows: Sequence[Row], unit: str, refit: bool, decimals: int) -> Block:
    """The block of `rows`, all of one unit and stage."""
    keeps = tuple(dict.fromkeys(row.keep for row in rows))
    accuracy: dict[tuple[str, Keep], list[float]] = {}
    for row in rows:
        accuracy.setdefault((row.method, row.keep), []).append(row.accuracy)
    shown = {key: _cell(summarize(values), decimals, best=False) for key, values in accuracy.items()}
    top = {keep: max(float(cell.mean) for (_, kept), cell in shown.items() if kept == keep) for keep in keeps}
    methods = dict.fromkeys(row.method for row in rows)
    cells = {
        method: tuple(_marked(shown.get((method, keep)), top[keep], alone=len(methods) == 1) for keep in keeps)
        for method in methods
    }
    counts = {row.keep: f"{row.kept:,} of {row.size:,} {unit}s" for row in reversed(rows)}
    return Block(unit, refit, keeps, tuple(counts[keep] for keep in keeps), cells)


def _marked(cell: Cell | None, top: float, *, alone: bool) -> Cell | None:
    """`cell`, best if it shows `top`; among one method there is no best."""
    return cell and Cell(cell.mean, cell.spread, best=not alone and float(cell.mean) == top)


def _cell(summary: Summary, decimals: int, *, best: bool) -> Cell:
    """The text of a share of 1, in percent."""
    spread = f"{100 * summary.spread:.{decimals}f}" if summary.spread > 0 else ""
    return Cell(f"{100 * summary.mean:.{decimals}f}", spread, best)
