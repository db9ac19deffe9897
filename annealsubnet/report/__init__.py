"""Reports: methods compared on the same networks, as rows, a table, figures and one page.

`compare` measures, `arrange` and `results_table` show, `write_report` keeps; everything shown is drawn from rows.

Example:
    >>> from annealsubnet.report import Row, summarize
    >>> summarize([0.5, 0.75]).mean
    0.625
"""

from annealsubnet.report.comparison import (
    ANNEALED,
    Comparison,
    PackageProcedures,
    Plan,
    Procedures,
    Trial,
    compare,
    smallest_good,
)
from annealsubnet.report.folder import choose_folder, complete_folder
from annealsubnet.report.page import Facts, page
from annealsubnet.report.rows import (
    DENSE,
    Keep,
    Row,
    Summary,
    keep_label,
    nearest,
    parse_keep,
    read_rows,
    summarize,
    write_rows,
)
from annealsubnet.report.story import Story
from annealsubnet.report.tables import Block, Cell, arrange, results_table
from annealsubnet.report.write import write_report

__all__ = [
    "ANNEALED",
    "DENSE",
    "Block",
    "Cell",
    "Comparison",
    "Facts",
    "Keep",
    "PackageProcedures",
    "Plan",
    "Procedures",
    "Row",
    "Story",
    "Summary",
    "Trial",
    "arrange",
    "choose_folder",
    "compare",
    "complete_folder",
    "keep_label",
    "nearest",
    "page",
    "parse_keep",
    "read_rows",
    "results_table",
    "smallest_good",
    "summarize",
    "write_report",
    "write_rows",
]
