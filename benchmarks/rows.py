"""Rows of a benchmark, measured one at a time into a file from which it goes on; shared by scripts, not one itself.

A run that is stopped may leave half a line. What follows the last line break is therefore no row: nobody reads it, and it is
gone before the next row is written. Rows of other settings are no rows of this run either: their folder is refused.
"""

import csv
import io
import json
import os
from collections.abc import Iterable, Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any

from annealsubnet.report import provenance


class Rows:
    """A CSV file of rows.

    Args:
        path: in a folder that is there (`settle` makes it); the file need not be.
        key: the columns that tell a row from others, for `has`.
    """

    def __init__(self, path: Path, key: tuple[str, ...] = ()):
        self.path, self.key = path, key

    def read(self) -> list[dict[str, str]]:
        """The rows so far."""
        return list(csv.DictReader(io.StringIO(whole_lines(self.path), newline="")))

    def read_as(self, kind: type[Any]) -> list[Any]:
        """The rows so far, as values of a dataclass whose fields are the columns.

        Raises:
            SystemExit: if the file has other columns.
        """
        rows = self.read()
        types = {field.name: field.type for field in fields(kind)}
        if rows:
            self._check(list(rows[0]), list(types))
        return [kind(**{name: of(row[name]) for name, of in types.items()}) for row in rows]

    def has(self, *key: Any) -> bool:
        """Whether a row with this key is there."""
        wanted = tuple(map(str, key))
        return any(tuple(row[name] for name in self.key) == wanted for row in self.read())

    def append(self, *rows: Mapping[str, Any]) -> None:
        """Write rows in one go; they are on the disk before the next is measured.

        Raises:
            SystemExit: if the file has other columns.
        """
        if not rows:
            return
        whole = whole_lines(self.path)
        names = csv.DictReader(io.StringIO(whole, newline="")).fieldnames or list(rows[0])
        lines = io.StringIO(newline="")
        writer = csv.DictWriter(lines, names, lineterminator="\n")
        if not whole:
            writer.writeheader()
        for row in rows:
            self._check(list(names), list(row))
            writer.writerow(row)
        with self.path.open("ab") as file:
            if file.tell() > len(whole.encode()):
                file.truncate(len(whole.encode()))
            file.write(lines.getvalue().encode())
            file.flush()
            os.fsync(file.fileno())

    def _check(self, columns: list[str], wanted: list[str]) -> None:
        if set(columns) != set(wanted):
            raise SystemExit(f"{self.path} has the columns {columns}, these rows {wanted}: give these an --out of their own.")


def settle(path: Path, settings: Mapping[str, Any], *, selecting: Iterable[str] = ()) -> None:
    """Write the settings of this run, with versions and machine, where no rows of other settings are.

    Args:
        path: of a JSON file beside the rows; its folder is made if it is not there.
        settings: of this run.
        selecting: those that only say which rows are measured (seeds, methods), or are columns of the rows' key.

    Raises:
        SystemExit: if the file tells another value of a setting that isn't `selecting`.
    """
    config = json.loads(json.dumps(dict(settings), default=str))
    if path.exists():
        about = json.loads(path.read_text())
        before = about.get("config", about)
        compared = [name for name in config if name not in set(selecting)]
        others = [f"{name} {before.get(name)!r}, not {config[name]!r}" for name in compared if before.get(name) != config[name]]
        if others:
            raise SystemExit(f"{path.parent} holds rows of {'; of '.join(others)}: give these an --out of their own.")
    path.parent.mkdir(parents=True, exist_ok=True)
    about = {"config": config, "machine": provenance.machine(), "versions": provenance.versions()}
    write_whole(path, json.dumps(about, indent=2) + "\n")


def whole_lines(path: Path) -> str:
    """A file's text up to its last line break; empty where there is no file."""
    text = path.read_bytes() if path.exists() else b""
    return text[: text.rfind(b"\n") + 1].decode()


def write_whole(path: Path, text: str) -> None:
    """Write a file so that whoever is stopped leaves the one before it."""
    draft = path.with_name(f"{path.name}.part")
    draft.write_text(text)
    draft.replace(path)


def markdown(header: Iterable[str], lines: Iterable[Iterable[str]]) -> str:
    """A table."""
    cells = list(header)
    text = ["| " + " | ".join(cells) + " |", "|---" * len(cells) + "|"]
    return "\n".join([*text, *("| " + " | ".join(line) + " |" for line in lines)]) + "\n"
