"""Tables say what the rows say, mark the best, and fit their terminal."""

import dataclasses
import io

from rich.console import Console

from annealsubnet.report import arrange, results_table
from annealsubnet.report.names import labels


def printed(rows, *, width: int, mark: str = "*") -> str:
    dense, blocks = arrange(rows)
    console = Console(file=io.StringIO(), width=width)
    console.print(results_table(dense, blocks, labels(), ours="annealed", width=width, mark=mark))
    return console.file.getvalue()


def test_blocks_come_by_unit_with_the_refit_first(rows) -> None:
    _, blocks = arrange(rows)
    assert [(block.unit, block.refit) for block in blocks] == [
        ("neuron", True),
        ("neuron", False),
        ("weight", True),
        ("weight", False),
    ]


def test_cells_are_means_and_spreads_in_percent_and_the_best_is_marked(rows) -> None:
    dense, blocks = arrange(rows)
    assert dense.text == "97.5 ± 0.7"
    assert [cell.text for cell in blocks[0].cells["annealed"]] == ["97.3 ± 0.7", "92.5 ± 0.7"]
    assert [cell.best for cell in blocks[0].cells["annealed"]] == [True, True]
    assert [cell.best for cell in blocks[1].cells["annealed"]] == [False, False]
    assert blocks[0].sizes == ("20 of 40 neurons", "10 of 40 neurons")


def test_equal_seeds_have_no_spread_and_many_examples_two_decimals(rows) -> None:
    one = [dataclasses.replace(row, examples=10_000) for row in rows if row.seed == 0]
    dense, blocks = arrange(one)
    assert dense.text == "97.00"
    assert blocks[0].cells["magnitude"][0].text == "86.80"


def test_a_single_method_is_not_called_best(rows) -> None:
    _, blocks = arrange([row for row in rows if row.method != "magnitude"])
    assert not any(cell.best for block in blocks for cells in block.cells.values() for cell in cells)


def test_the_printed_table_has_a_line_for_each_method_and_marks_the_best(rows) -> None:
    text = printed(rows, width=100)
    assert text.count("annealed (ours)") == text.count("magnitude") == text.count("dense network") == 2
    assert "97.3 ± 0.7*" in text and "87.3 ± 0.7*" not in text


def test_own_weights_stand_beside_the_refitted_where_there_is_room_and_below_them_where_not(rows) -> None:
    wide, narrow = printed(rows, width=100), printed(rows, width=42)
    assert any("refitted" in line and "own weights" in line for line in wide.splitlines())
    assert not any("refitted" in line and "own weights" in line for line in narrow.splitlines())
    assert wide.count("own weights") == narrow.count("own weights") == 2


def test_a_narrow_terminal_gets_spreads_below_the_means(rows) -> None:
    text = printed(rows, width=58, mark="")
    assert max(map(len, text.splitlines())) <= 58
    assert "97.3" in text and "97.3 ±" not in text
