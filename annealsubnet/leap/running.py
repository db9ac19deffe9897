"""Running: send what the budget allows, wait, fetch, until nothing is left to do.

The budget is hard: a job is sent only if what was reported spent, plus what is predicted for everything that may have been
accepted and has not answered, plus its own prediction, stays within it. Nothing is sent twice: before a job leaves, the ledger
says so; when it is not known whether it arrived, it is looked for by its label, and if the service does not list it, it stays
*unresolved* until the user says what to do.
"""

import json
import logging
import math
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from numbers import Real
from typing import Any

from annealsubnet.leap.connection import DENIALS, Connection, Denied, InDoubt, Later, LeapError, Refused, Submission
from annealsubnet.leap.jobs import Job
from annealsubnet.leap.ledger import Entry, Ledger

logger = logging.getLogger(__name__)

LOOKS = 3
"""A label that the service did not list this often, with waits between, is not there."""
MARGIN = 1.01
"""Devices take up to about a hundredth longer than their own timing model says."""
_DOWNLOADS = 4


@dataclass(frozen=True)
class Pace:
    """How much is under way at a time.

    Attributes:
        batch: jobs sent in one request.
        in_flight: jobs accepted and not answered.
        seconds: after which nothing more is sent or waited for; None for no limit.
    """

    batch: int = 10
    in_flight: int = 100
    seconds: float | None = None

    def __post_init__(self) -> None:
        if not 1 <= self.batch <= self.in_flight:
            raise ValueError(f"a batch has at least one job and no more than are in flight; they are {self!r}.")


@dataclass(frozen=True)
class Spending:
    """QPU seconds of a ledger.

    Attributes:
        reported: what answers say they took.
        reserved: predictions for jobs that may have been accepted and have not answered.
        planned: predictions for jobs not sent.
    """

    reported: float
    reserved: float
    planned: float


def checked_budget(seconds: Any) -> float:
    """A budget of QPU seconds as Python's own number.

    Raises:
        LeapError: it is no number above 0.
    """
    if isinstance(seconds, bool) or not isinstance(seconds, Real) or not float(seconds) > 0:
        raise LeapError(f"budget_seconds must be above 0; it is {seconds!r}.")
    return float(seconds)


def spending(ledger: Ledger) -> Spending:
    """What was spent, what may be, and what is planned."""
    entries = ledger.entries()
    reported = sum(
        entry.predicted if entry.reported is None else entry.reported for entry in entries if entry.state == "completed"
    )
    reserved = sum(entry.predicted for entry in entries if entry.state in ("sending", "submitted", "unresolved"))
    return Spending(reported, reserved, sum(entry.predicted for entry in entries if entry.state == "planned"))


def run(
    ledger: Ledger,
    connection: Connection,
    *,
    budget_seconds: float,
    pace: Pace,
    report: Callable[[Spending, int], None] = lambda spending, left: None,
    resubmit: bool = False,
) -> None:
    """Work a ledger off.

    Args:
        ledger: open for writing.
        connection: to the service that the plan was made for.
        budget_seconds: QPU access time that may be spent, with what this ledger has spent already.
        pace: how much at a time.
        report: told now and then what was spent and how many jobs are left.
        resubmit: send unresolved jobs again that the service does not list.

    Raises:
        LeapError: the token is refused, the solver is off line, the service does not answer, or the ledger can't be written;
            the ledger can be resumed.
    """
    runner = _Runner(ledger, connection, budget_seconds, pace)
    try:
        runner.recover(resubmit=resubmit)
        while runner.step():
            report(spending(ledger), len(ledger.entries("planned", "submitted")))
    finally:
        runner.pool.shutdown(wait=True, cancel_futures=True)
    if runner.stopped is not None:
        raise runner.stopped


class _Runner:
    """The state of one run; what must survive it is in the ledger."""

    def __init__(self, ledger: Ledger, connection: Connection, budget: float, pace: Pace) -> None:
        self.ledger, self.connection, self.budget, self.pace = ledger, connection, budget, pace
        self.patience = connection.patience
        self.pool = ThreadPoolExecutor(_DOWNLOADS, thread_name_prefix="leap-answers")
        self.stopped: LeapError | None = None
        self.end = math.inf if pace.seconds is None else time.monotonic() + pace.seconds
        self.name = str(ledger.facts()["solver"])
        self.identity: dict[str, Any] = {}
        self.properties: dict[str, Any] = {}

    def recover(self, *, resubmit: bool) -> None:
        """Find out what became of jobs that an earlier process left in the middle of something."""
        unsure: dict[str, list[Entry]] = {}
        for entry in self.ledger.entries("sending", "unresolved"):
            if entry.problem_id is not None:
                self.ledger.submitted({entry.number: entry.problem_id})
            else:
                reason = "the process ended while it was being sent, and the service lists no job of that label"
                unsure.setdefault(entry.reason or reason, []).append(entry)
        for reason, entries in unsure.items():
            self._settle(entries, reason)
        for entry in self.ledger.entries("unresolved") if resubmit else ():
            if entry.problem_id is None:
                reason = f"to be sent again at the user's word; before: {entry.reason}"
                self.ledger.move([entry.number], "planned", reason, label=f"{entry.label}-again")

    def step(self) -> bool:
        """Send or wait, whatever can be done; False when nothing can."""
        if time.monotonic() >= self.end:
            return False
        flying = self.ledger.entries("submitted")
        batch = self._affordable(len(flying)) if self.stopped is None else []
        if batch:
            self._send(batch)
            return True
        if flying:
            self._collect(flying)
            return True
        if self.stopped is None and (left := self.ledger.entries("planned")):
            spent = spending(self.ledger)
            reason = (
                f"the budget of {self.budget:g} QPU seconds does not allow it: {spent.reported:.3f} s are spent, "
                f"{spent.reserved:.3f} s may be, and it is predicted to take {left[0].predicted:.3f} s"
            )
            self.ledger.move([entry.number for entry in left], "planned", reason)
        return False

    def _affordable(self, flying: int) -> list[Entry]:
        """The next jobs that fit into the budget, a batch at most."""
        planned = self.ledger.entries("planned")
        if not planned or flying >= self.pace.in_flight:
            return []
        spent = spending(self.ledger)
        left = self.budget - spent.reported - MARGIN * spent.reserved
        batch: list[Entry] = []
        for entry in planned[: min(self.pace.batch, self.pace.in_flight - flying)]:
            if MARGIN * entry.predicted > left:
                break
            left -= MARGIN * entry.predicted
            batch.append(entry)
        return batch

    # Sending

    def _send(self, batch: Sequence[Entry]) -> None:
        """Send jobs, as often as it is certain that they did not arrive."""
        if not self.properties and not self._refresh():
            return
        self.ledger.move([entry.number for entry in batch], "sending")
        left, failures, denials = list(batch), 0, 0
        while left:
            left, bodies = self._bodies(left)
            if not left:
                return
            try:
                left, reason = self._accepted(left, self.connection.submit(bodies))
            except Later as error:
                reason = str(error)
            except Denied as error:
                reason, denials = str(error), denials + 1
                if denials >= DENIALS:
                    self._stop(left, error)
                    return
            except Refused as error:
                self.ledger.move([entry.number for entry in left], "failed", f"the service refused it: {error}")
                return
            except InDoubt as error:
                left, reason = self._doubted(left, error), str(error)
            failures += 1
            if left and failures >= self.patience.attempts:
                self._stop(
                    left, LeapError(f"Leap did not take jobs {failures} times in a row ({reason}); resume the ledger later.")
                )
                return
            if left:
                self.patience.wait(failures)

    def _bodies(self, entries: Sequence[Entry]) -> tuple[list[Entry], list[dict[str, Any]]]:
        """The jobs in the service's form, for the working graph as it is now; those that it can't hold any more fail."""
        kept, bodies, changed = [], [], 0
        for entry in entries:
            job = self.ledger.job(entry.number)
            try:
                body = job.body(entry.label, self.identity, self.properties)
            except ValueError:
                job = self._fitted(entry, job)
                if not job.placements:
                    reason = "the working graph has changed and lacks qubits that every part of this job needs; plan them again"
                    self.ledger.move([entry.number], "failed", reason)
                    continue
                body = job.body(entry.label, self.identity, self.properties)
                changed += 1
            kept.append(entry)
            bodies.append(body)
        if changed:
            logger.warning("the working graph has changed: %d of %d jobs leave parts behind (`lost`)", changed, len(entries))
        return kept, bodies

    def _fitted(self, entry: Entry, job: Job) -> Job:
        """A job without the parts that the working graph has lost room for."""
        fitted, lost = job.on(self.properties)
        self.ledger.replace_job(entry.number, fitted, {*entry.lost, *lost})
        return fitted

    def _accepted(self, entries: Sequence[Entry], submissions: Sequence[Submission]) -> tuple[list[Entry], str]:
        """Write down what was accepted; returns what may be sent again, and why it was not accepted."""
        pairs = list(zip(entries, submissions, strict=True))
        self.ledger.submitted({entry.number: sent.problem_id for entry, sent in pairs if sent.problem_id is not None})
        again: list[Entry] = []
        reason, sent_for = "", self.identity
        for entry, sent in pairs:
            if sent.problem_id is not None:
                continue
            reason = f"error {sent.code}: {sent.message}"
            if sent.code == 429:
                again.append(entry)
            elif sent.code >= 500:
                again += self._settle([entry], reason, keep=True)
            elif self._changed_since(sent_for):
                again.append(entry)
            elif self.stopped is None:
                self.ledger.move([entry.number], "failed", f"the service refused it: {sent.message}")
            else:
                self.ledger.move([entry.number], "planned", str(self.stopped))
        return again, reason

    def _doubted(self, entries: Sequence[Entry], error: InDoubt) -> list[Entry]:
        """Look for jobs that may have arrived; returns those that certainly did not."""
        # Where the service itself said that it failed, it did not take what it does not list. Else one can't know.
        answered = str(error).startswith("error 5")
        return self._settle(entries, f"{error}, and the service lists no job of that label", keep=answered)

    def _settle(self, entries: Sequence[Entry], reason: str, *, keep: bool = False) -> list[Entry]:
        """Look for jobs by label: those found are submitted; the others are returned (`keep`) or become unresolved."""
        missing = list(entries)
        for look in range(1, LOOKS + 1):
            self.patience.wait(look)
            try:
                found = {entry.number: self.connection.find(entry.label) for entry in missing}
            except LeapError as error:
                reason, keep = f"{reason}; it could not be looked for ({error})", False
                break
            self.ledger.submitted({number: ids[0] for number, ids in found.items() if ids})
            missing = [entry for entry in missing if not found[entry.number]]
            if not missing:
                return []
        if not keep:
            self.ledger.move([entry.number for entry in missing], "unresolved", reason)
            return []
        return missing

    def _changed_since(self, identity: dict[str, Any]) -> bool:
        """Whether the solver's working graph is another one by now."""
        return (self.identity is not identity or self._refresh()) and self.identity.get("version") != identity.get("version")

    def _refresh(self) -> bool:
        """Read the solver's description again; False if that stops the run."""
        try:
            described = self.connection.solver(self.name)
        except LeapError as error:
            self.stopped = error
            return False
        if str(described.get("status", "ONLINE")).upper() != "ONLINE":
            self.stopped = LeapError(
                f"the solver {self.name} is off line; resume the ledger when it is back, or plan for another."
            )
            return False
        self.identity, self.properties = dict(described["identity"]), dict(described["properties"])
        return True

    def _stop(self, entries: Sequence[Entry], error: LeapError) -> None:
        """Send no more; what is in flight is still collected."""
        self.ledger.move([entry.number for entry in entries], "planned", str(error))
        self.stopped = error

    # Collecting

    def _collect(self, flying: Sequence[Entry]) -> None:
        """Wait until a job has ended, and fetch the answers of all that have."""
        numbers = {str(entry.problem_id): entry.number for entry in flying}
        wait = min(float(self.patience.poll_seconds), max(self.end - time.monotonic(), 0.0))
        ended = self.connection.ended(list(numbers), timeout=int(wait))
        jobs = {problem_id: self.ledger.job(numbers[problem_id]) for problem_id in ended}
        for problem_id, (state, reason, raw, seconds) in zip(
            ended, self.pool.map(lambda item: self._fetch(*item), jobs.items()), strict=True
        ):
            self.ledger.move([numbers[problem_id]], state, reason, answer=raw, reported=seconds)
        if not ended and wait < 1:
            self.patience.wait(1)

    def _fetch(self, problem_id: str, job: Job) -> tuple[str, str, bytes | None, float | None]:
        """State, reason, raw answer and reported seconds of a job that has ended."""
        reason, raw = "", None
        for failures in range(1, self.patience.attempts + 1):
            try:
                raw = self.connection.answer(problem_id)
                message = json.loads(raw)
                status = message["status"]
                if status != "COMPLETED":
                    return (
                        "failed",
                        f"{status.lower()} on the service: {message.get('error_message', 'no reason given')}",
                        raw,
                        None,
                    )
                job.spins(message)
                microseconds = message["answer"].get("timing", {}).get("qpu_access_time")
                return "completed", "", raw, None if microseconds is None else 1e-6 * float(microseconds)
            except (Later, InDoubt, Denied, ValueError, KeyError, TypeError) as error:
                reason = str(error) or type(error).__name__
                self.patience.wait(failures)
        return (
            "unresolved",
            f"accepted, but its answer could not be had in {failures} attempts ({reason}); resume tries again",
            raw,
            None,
        )
