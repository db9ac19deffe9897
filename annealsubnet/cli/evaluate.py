"""`annealsubnet evaluate`: a network whole, under a saved mask, and refitted."""

from typing import Any

from rich.console import Console
from rich.table import Table

from annealsubnet.cli.commands import Evaluate
from annealsubnet.cli.refusals import Refusal
from annealsubnet.cli.subjects import subject_of
from annealsubnet.masks import Mask
from annealsubnet.report.comparison import PackageProcedures


def evaluate(options: Evaluate) -> None:
    """Print accuracy, loss, nonzeros and operations before the mask, under it, and after the refit.

    Args:
        options: from the command line.

    Raises:
        Refusal: They can't be carried out.
        ValueError, TypeError, OSError: As the package's functions raise them; a mask for another model among them.
    """
    if not options.mask.is_file():
        raise Refusal(f"There is no mask {options.mask}; give one that prune or Mask.save wrote with --mask.")
    mask = Mask.load(options.mask)
    procedures = PackageProcedures()
    subject = subject_of(options)
    trial = subject.trial(options.seed)
    network = procedures.prepare(trial.model, trial.calibration)
    results = {
        "dense network": procedures.evaluate(network, trial.test),
        "under the mask": procedures.evaluate(network, trial.test, mask),
        "then refitted": procedures.evaluate(procedures.refit(network, mask, trial.calibration), trial.test, mask),
    }
    output = Console(highlight=False)
    output.print(
        f"\n{subject.network[:1].upper()}{subject.network[1:]} on {results['dense network'].examples:,} test examples of "
        f"{subject.data}; the mask keeps {mask.kept_count:,} of {mask.size:,} {mask.unit}s.\n"
    )
    output.print(_table(results))


def _table(results: dict[str, Any]) -> Table:
    """A line for each result."""
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
    table.add_column("")
    for name in ("accuracy", "loss", "nonzero parameters", "FLOPs"):
        table.add_column(name, justify="right")
    for name, result in results.items():
        values = (f"{100 * result.accuracy:.2f} %", f"{result.loss:.4f}", f"{result.nonzeros:,}", f"{result.flops:,}")
        table.add_row(name, *values)
    return table
