"""Story: a comparison in sentences, for the terminal and the page alike.

What was done, how to read it and what was found, from rows and names only.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from annealsubnet.report.comparison import smallest_good
from annealsubnet.report.rows import DENSE, Keep, Row, keep_label, nearest, summarize
from annealsubnet.report.tables import MANY_EXAMPLES, stage

Picture = tuple[Keep, Mapping[str, np.ndarray], tuple[int, ...] | None]
"""Size, layers' masks and the shape of one input."""


@dataclass(frozen=True)
class Story:
    """Everything that a report tells about its results.

    Attributes:
        rows: every measurement.
        labels: method to the name that is shown.
        ours: method that is emphasized and whose masks are shown.
        network: what was pruned, as "a network trained here".
        data: what it was tested on, as "scikit-learn's handwritten digits".
        pictures: unit to the mask that is shown.
    """

    rows: tuple[Row, ...]
    labels: Mapping[str, str]
    ours: str
    network: str
    data: str
    pictures: Mapping[str, Picture]

    @property
    def seeds(self) -> tuple[int, ...]:
        """All seeds, in their order."""
        return tuple(dict.fromkeys(row.seed for row in self.rows))

    @property
    def has_refit(self) -> bool:
        """Whether any row is of a refitted network."""
        return any(row.refit for row in self.rows)

    @property
    def kept(self) -> Mapping[str, str]:
        """Unit to the stage, as the tables call it, of our network that is kept beside the mask that is shown."""
        ours = {(row.unit, row.keep): row for row in reversed(nearest(self.rows)) if row.method == self.ours}
        return {unit: stage(refit=ours[unit, keep].refit) for unit, (keep, _, _) in self.pictures.items()}

    @property
    def saved(self) -> str:
        """Which networks are kept, and why those."""
        if not self.has_refit:
            return "The networks in pruned*.safetensors have the weights as the method left them."
        kept = "; ".join(f"{unit}s: {weights}" for unit, weights in self.kept.items())
        return (
            "Of its own weights and the refitted ones those are in pruned*.safetensors, and in the headline of report.html, "
            f"whose outputs are nearer to the dense network's on the calibration examples ({kept})."
        )

    @property
    def units(self) -> tuple[str, ...]:
        """All units, in their order."""
        return tuple(dict.fromkeys(row.unit for row in self.rows if row.method != DENSE))

    def accuracy(self, unit: str, keep: Keep, method: str) -> float:
        """Mean accuracy over seeds, in percent, of the nearest networks."""
        rows = [row for row in nearest(self.rows) if (row.unit, row.keep, row.method) == (unit, keep, method)]
        return 100 * summarize([row.accuracy for row in rows]).mean

    @property
    def dense(self) -> float:
        """Mean accuracy of the dense networks, in percent."""
        return 100 * summarize([row.accuracy for row in self.rows if row.method == DENSE]).mean

    @property
    def headline(self) -> str:
        """What was found: the smallest size at which our method stays within a point of the dense network."""
        parts = []
        for unit in self.units:
            keep = smallest_good(self.rows, unit, self.ours)
            accuracy = self.accuracy(unit, keep, self.ours)
            parts.append(f"{self._percent(accuracy)} with {self._amount(keep)} of the {unit}s")
        return f"{', '.join(parts)}; {self._percent(self.dense)} with all"

    @property
    def before(self) -> str:
        """What was done."""
        methods = dict.fromkeys(row.method for row in self.rows if row.method != DENSE)
        others = len(methods) - (self.ours in methods)
        if others == 0:
            who = f"the method “{self.labels.get(self.ours, self.ours)}” chooses"
        elif self.ours == "annealed":
            who = f"annealing and {others} other method{'s' if others > 1 else ''} choose"
        else:
            who = f"{len(methods)} methods choose"
        chosen = " or ".join(f"{unit}s" for unit in self.units)
        weights = "“Own weights” are as the method left them: the dense network's, unless it refits by itself."
        if self.has_refit:
            weights = f"“Refitted”: what is left gets the same least-squares refit, whoever chose it. {weights}"
        return (
            f"{self.network[:1].upper()}{self.network[1:]} gets {self._percent(self.dense)} of {self.rows[0].examples:,} "
            f"test examples right ({self.data}). Here only part of its {chosen} stays; {who} which. {weights}"
        )

    def reading(self, best: str) -> str:
        """How to read the numbers; `best` says how the best of each column is marked."""
        seeds = len(self.seeds)
        over = f", mean ± standard deviation over {seeds} seeds" if seeds > 1 else ""
        marked = f"; the best of each column {best}" if self._compares else ""
        return f"The numbers are test accuracies in %{over}{marked}."

    @property
    def caption(self) -> str:
        """What the figure shows."""
        weights = "after the same refit for all" if self.has_refit else "with the weights as each method left them"
        spread = " Band and bars: one standard deviation over seeds." if len(self.seeds) > 1 else ""
        return f"Test accuracy {weights}; the vertical axis is logarithmic in the error.{spread}"

    @property
    def _compares(self) -> bool:
        """Whether there is more than one method."""
        return len({row.method for row in self.rows}) > 2

    def _percent(self, accuracy: float) -> str:
        """An accuracy as text."""
        decimals = 2 if self.rows[0].examples >= MANY_EXAMPLES else 1
        return f"{accuracy:.{decimals}f} %"

    @staticmethod
    def _amount(keep: Keep) -> str:
        """A size as text."""
        return keep_label(keep)
