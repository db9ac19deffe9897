"""Ledger: what was planned, sent, paid and answered, in one SQLite file that survives the death of the process at any moment.

A job's state says what is known, and is written before the world can change:

    planned → sending → submitted → completed
                  ↓         ↓  ↘
             unresolved ←———+    failed

`sending` is written, with the job's own label, before the request leaves: whoever finds a job in that state later does not know
whether the service has it, and looks for the label. `submitted` has the service's id of the job; `completed` its raw answer,
and what it cost. Only one process works on a ledger at a time; others may read it.
"""

import json
import sqlite3
import zlib
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from annealsubnet.leap.connection import LeapError
from annealsubnet.leap.jobs import Job, job_from_bytes, job_to_bytes

FORMAT = "annealsubnet-leap-1"
STATES = ("planned", "sending", "submitted", "completed", "failed", "unresolved")
_TABLES = """
CREATE TABLE facts (name TEXT PRIMARY KEY, value TEXT NOT NULL);
CREATE TABLE contents (kind TEXT, number INTEGER, content BLOB NOT NULL, PRIMARY KEY (kind, number));
CREATE TABLE jobs (
    number INTEGER PRIMARY KEY, label TEXT UNIQUE NOT NULL, state TEXT NOT NULL, problem_id TEXT UNIQUE,
    predicted REAL NOT NULL, reported REAL, reason TEXT NOT NULL DEFAULT '', content BLOB NOT NULL, lost TEXT NOT NULL
    DEFAULT '[]', answer BLOB);
CREATE TABLE events (number INTEGER PRIMARY KEY AUTOINCREMENT, time TEXT, job INTEGER, what TEXT);
"""


@dataclass(frozen=True)
class Entry:
    """What the ledger knows of one job.

    Attributes:
        number: of the job in its plan.
        label: its own, under which the service lists it.
        state: see above.
        problem_id: the service's id.
        predicted: QPU seconds.
        reported: QPU seconds that the answer says it took.
        reason: why it is unresolved, failed or still planned.
        lost: numbers of parts that it had to leave behind when the working graph changed.
    """

    number: int
    label: str
    state: str
    problem_id: str | None
    predicted: float
    reported: float | None
    reason: str
    lost: tuple[int, ...]


_ENTRY = "number, label, state, problem_id, predicted, reported, reason, lost"


class Ledger:
    """An open ledger; use it in a `with` statement.

    Args:
        path: of the file.
        mode: "create" a new one, "write" to one that is there, or only "read".

    Raises:
        LeapError: no such file, a file that is no ledger, a disk that cannot be written, or a ledger another process works on.
    """

    def __init__(self, path: str | Path, *, mode: str = "read") -> None:
        self.path = Path(path)
        self._lock: sqlite3.Connection | None = None
        if mode == "create" and self.path.exists():
            raise LeapError(f"{self.path} is there already; resume it, or give another name.")
        if mode != "create" and not self.path.is_file():
            raise LeapError(f"there is no ledger {self.path}; check the name.")
        if mode != "read":
            self._lock = self._locked()
        with self._meaning("opened"):
            # Where a process was killed while it wrote, a reader too must first undo what is half written.
            address = self.path.resolve().as_uri() + ("?mode=rw" if mode == "read" else "")
            self._file = sqlite3.connect(address, uri=True, isolation_level=None, timeout=30.0)
            if mode == "read":
                self._file.execute("PRAGMA query_only = ON")
            if mode == "create":
                self._file.executescript(f"BEGIN;{_TABLES}INSERT INTO facts VALUES ('format', '{FORMAT}');COMMIT;")
            found = self._file.execute("SELECT value FROM facts WHERE name = 'format'").fetchone()
            if found is None or found[0] != FORMAT:
                raise LeapError(f"{self.path} is of another format ({found and found[0]}); this version reads {FORMAT}.")

    def __repr__(self) -> str:
        return f"Ledger({self.path})"

    def __enter__(self) -> "Ledger":
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the file and let other processes work on it."""
        self._file.close()
        if self._lock is not None:
            self._lock.close()

    def _locked(self) -> sqlite3.Connection:
        """A lock that the operating system releases when this process ends, however it ends."""
        with self._meaning("locked"):
            lock = sqlite3.connect(f"{self.path}.lock", isolation_level=None, timeout=0.0)
            try:
                lock.execute("BEGIN EXCLUSIVE")
            except sqlite3.OperationalError as error:
                lock.close()
                if "locked" in str(error):
                    raise LeapError(f"another process works on {self.path}; wait for it, or end it.") from None
                raise
            return lock

    @contextmanager
    def _meaning(self, done: str) -> Iterator[None]:
        try:
            yield
        except sqlite3.Error as error:
            raise LeapError(
                f"the ledger {self.path} can't be {done} ({error}); check that it is a ledger, that its folder can be written "
                "and that the disk is not full. Nothing was sent that is not in it."
            ) from None

    @contextmanager
    def transaction(self) -> Iterator[None]:
        """Everything in the block is written at once, to the disk, or not at all."""
        with self._meaning("written"):
            self._file.execute("BEGIN IMMEDIATE")
            try:
                yield
            except BaseException:
                self._file.execute("ROLLBACK")
                raise
            self._file.execute("COMMIT")

    def facts(self) -> dict[str, Any]:
        """What holds for the whole ledger: solver, endpoint, budget, fingerprint of the plan."""
        with self._meaning("read"):
            rows = self._file.execute("SELECT name, value FROM facts WHERE name != 'format'")
            return {name: json.loads(value) for name, value in rows}

    def plan_facts(self) -> dict[str, Any]:
        """The facts of a ledger that holds a plan.

        Raises:
            LeapError: it holds none.
        """
        facts = self.facts()
        if "fingerprint" not in facts:
            raise LeapError(f"{self.path} holds no plan yet: the process ended before it was written. Submit the plan again.")
        return facts

    def set_facts(self, facts: Mapping[str, Any]) -> None:
        """Write or change some of them."""
        with self._meaning("written"):
            self._file.executemany(
                "INSERT OR REPLACE INTO facts VALUES (?, ?)", [(name, json.dumps(value)) for name, value in facts.items()]
            )

    def add_contents(self, kind: str, contents: Iterable[bytes]) -> None:
        """Keep problems or parts of the plan."""
        with self._meaning("written"):
            rows = [(kind, number, content) for number, content in enumerate(contents)]
            self._file.executemany("INSERT INTO contents VALUES (?, ?, ?)", rows)

    def contents(self, kind: str) -> list[bytes]:
        """What `add_contents` was given, in order."""
        with self._meaning("read"):
            rows = self._file.execute("SELECT content FROM contents WHERE kind = ? ORDER BY number", (kind,))
            return [row[0] for row in rows]

    def add_jobs(self, jobs: Iterable[tuple[str, Job]]) -> None:
        """Write down planned jobs with their labels."""
        rows = [(number, label, "planned", job.seconds, job_to_bytes(job)) for number, (label, job) in enumerate(jobs)]
        with self._meaning("written"):
            self._file.executemany("INSERT INTO jobs (number, label, state, predicted, content) VALUES (?, ?, ?, ?, ?)", rows)

    def entries(self, *states: str) -> list[Entry]:
        """What is known of the jobs in some states, or of all."""
        chosen = states or STATES
        with self._meaning("read"):
            marks = ", ".join("?" * len(chosen))
            rows = self._file.execute(f"SELECT {_ENTRY} FROM jobs WHERE state IN ({marks}) ORDER BY number", chosen)
            return [Entry(*(*known, tuple(json.loads(lost)))) for *known, lost in rows]

    def job(self, number: int) -> Job:
        """A job itself."""
        with self._meaning("read"):
            return job_from_bytes(self._file.execute("SELECT content FROM jobs WHERE number = ?", (number,)).fetchone()[0])

    def replace_job(self, number: int, job: Job, lost: Iterable[int]) -> None:
        """A job that had to leave parts behind."""
        with self.transaction():
            self._file.execute(
                "UPDATE jobs SET content = ?, predicted = ?, lost = ? WHERE number = ?",
                (job_to_bytes(job), job.seconds, json.dumps(sorted(lost)), number),
            )
            self._tell(number, f"left parts {sorted(lost)} behind: the working graph has changed")

    def answer(self, number: int) -> bytes | None:
        """The raw answer to a job, as the service sent it."""
        with self._meaning("read"):
            found = self._file.execute("SELECT answer FROM jobs WHERE number = ?", (number,)).fetchone()[0]
            return None if found is None else zlib.decompress(found)

    def move(self, numbers: Iterable[int], state: str, reason: str = "", **columns: Any) -> None:
        """Jobs change state; written to the disk before this returns.

        Args:
            numbers: of the jobs.
            state: the new one.
            reason: why.
            **columns: `label`, `problem_id`, `reported` or `answer`, if they change too.
        """
        if "answer" in columns and columns["answer"] is not None:
            columns["answer"] = zlib.compress(columns["answer"])
        named = "".join(f", {name} = ?" for name in columns)
        with self.transaction():
            for number in numbers:
                self._file.execute(
                    f"UPDATE jobs SET state = ?, reason = ?{named} WHERE number = ?", (state, reason, *columns.values(), number)
                )
                self._tell(number, f"{state}: {reason}" if reason else state)

    def submitted(self, ids: Mapping[int, str]) -> None:
        """Jobs that the service has accepted, with its ids."""
        with self.transaction():
            for number, problem_id in ids.items():
                self._file.execute(
                    "UPDATE jobs SET state = 'submitted', reason = '', problem_id = ? WHERE number = ?", (problem_id, number)
                )
                self._tell(number, f"submitted as {problem_id}")

    def events(self) -> list[tuple[str, int, str]]:
        """(time, job, what happened), in order."""
        with self._meaning("read"):
            return list(self._file.execute("SELECT time, job, what FROM events ORDER BY number"))

    def _tell(self, number: int, what: str) -> None:
        now = datetime.now(UTC).isoformat(timespec="milliseconds")
        self._file.execute("INSERT INTO events (time, job, what) VALUES (?, ?, ?)", (now, number, what))
