"""Rows of a benchmark, measured one at a time into a file from which it goes on; shared by scripts, not one itself."""

import csv
import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from annealsubnet.report import provenance


class Rows:
    """The file `rows.csv` of a folder.

    Args:
        folder: made if it is not there; `config.json` in it tells settings, versions and machine.
        key: the columns that tell a row from others.
        settings: of this run.
    """

    def __init__(self, folder: Path, key: tuple[str, ...], settings: Mapping[str, Any]):
        self.key, self.path = key, folder / "rows.csv"
        folder.mkdir(parents=True, exist_ok=True)
        config = {**settings, "versions": provenance.versions(), "machine": provenance.machine()}
        (folder / "config.json").write_text(json.dumps(config, indent=2, default=str) + "\n")

    def read(self) -> list[dict[str, str]]:
        """The rows so far."""
        if not self.path.exists():
            return []
        with self.path.open() as file:
            return list(csv.DictReader(file))

    def has(self, *key: Any) -> bool:
        """Whether a row with this key is there."""
        wanted = tuple(map(str, key))
        return any(tuple(row[name] for name in self.key) == wanted for row in self.read())

    def append(self, row: Mapping[str, Any]) -> None:
        """Write one row."""
        fresh = not self.path.exists()
        with self.path.open("a", newline="") as file:
            writer = csv.DictWriter(file, list(row))
            if fresh:
                writer.writeheader()
            writer.writerow(row)


def markdown(header: Iterable[str], lines: Iterable[Iterable[str]]) -> str:
    """A table."""
    cells = list(header)
    text = ["| " + " | ".join(cells) + " |", "|---" * len(cells) + "|"]
    return "\n".join([*text, *("| " + " | ".join(line) + " |" for line in lines)]) + "\n"
