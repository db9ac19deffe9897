"""Results: what a ledger holds, merged back into the problems that were planned.

Parts of one problem are folded at the same start, so two answers that are each an improvement may not be one together. They are
merged one after the other, the greatest improvement first, and only where the energy of the whole falls: the answer is never
worse than the start.
"""

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import scipy.sparse

from annealsubnet.leap.answers import PartAnswer, part_answer
from annealsubnet.leap.jobs import packed, unpacked
from annealsubnet.leap.ledger import Entry, Ledger
from annealsubnet.leap.running import Spending, spending
from annealsubnet.problems import Problem


@dataclass(frozen=True)
class PlannedPart:
    """A part of a problem as it was planned.

    Attributes:
        problem: which one.
        variables: positions in that problem.
        part: the part itself, its boundary folded in at the start.
        price: per kept unit.
        chain_length: of its longest chain.
        num_qubits: that its chains take.
    """

    problem: int
    variables: np.ndarray
    part: Problem
    price: float
    chain_length: int
    num_qubits: int


@dataclass(frozen=True)
class JobResult:
    """One job: what the ledger knows, and the timing that the answer reported.

    Attributes:
        entry: of the ledger.
        timing: in microseconds, as the service gave it.
        chain_breaks: share of chains broken over all its parts; None without an answer.
    """

    entry: Entry
    timing: Mapping[str, float]
    chain_breaks: float | None


@dataclass(frozen=True)
class Results:
    """Answers of a plan, as far as there are any.

    Attributes:
        states: one a problem.
        energies: of these.
        start_energies: of the states that the parts were folded at, which a local annealer found.
        parts: one for each part that was answered.
        planned: every part.
        jobs: all of them.
        spending: QPU seconds, as reported by the service or predicted.
        solver: its name.
        note: what the service said of its answers; of a loopback server, that they are classical.
    """

    states: tuple[np.ndarray, ...]
    energies: np.ndarray
    start_energies: np.ndarray
    parts: tuple[PartAnswer, ...]
    planned: tuple[PlannedPart, ...]
    jobs: tuple[JobResult, ...]
    spending: Spending
    solver: str
    note: str

    def __repr__(self) -> str:
        done = sum(job.entry.state == "completed" for job in self.jobs)
        parts = f"{len(self.parts)} of {len(self.planned)} parts answered"
        spent = f"{self.spending.reported:.3f} QPU seconds reported"
        note = f"; {self.note}" if self.note else ""
        return f"Results({done} of {len(self.jobs)} jobs completed on {self.solver}, {parts}, {spent}{note})"

    @property
    def unresolved(self) -> tuple[Entry, ...]:
        """Jobs that were not completed, each with its reason."""
        return tuple(job.entry for job in self.jobs if job.entry.state != "completed")

    @property
    def classical(self) -> bool:
        """Whether the answers are those of a loopback server."""
        return "classical" in self.note

    @property
    def improvement(self) -> float:
        """By how much the energies of all problems fell below those of the local annealer."""
        return float((self.start_energies - self.energies).sum())

    @property
    def improvement_per_second(self) -> float:
        """Improvement over the local annealer for each reported QPU second; 0 if nothing was spent."""
        return self.improvement / self.spending.reported if self.spending.reported > 0 else 0.0

    def rows(self) -> list[dict[str, Any]]:
        """One row a job, for a table or a CSV file."""
        return [
            {
                "job": job.entry.number,
                "label": job.entry.label,
                "problem_id": job.entry.problem_id or "",
                "state": job.entry.state,
                "predicted_seconds": job.entry.predicted,
                "reported_seconds": "" if job.entry.reported is None else job.entry.reported,
                "chain_breaks": "" if job.chain_breaks is None else job.chain_breaks,
                "reason": job.entry.reason,
                "note": self.note,
            }
            for job in self.jobs
        ]


def results(ledger: str | Path | Ledger) -> Results:
    """The answers that a ledger holds; asks nothing of the service.

    Args:
        ledger: the file, or an open ledger.

    Raises:
        LeapError: there is no such ledger, or no plan in it.
    """
    if not isinstance(ledger, Ledger):
        with Ledger(ledger) as opened:
            return results(opened)
    facts = ledger.plan_facts()
    problems, starts = read_problems(ledger.contents("problem"))
    planned = read_parts(ledger.contents("part"))
    answers: dict[int, PartAnswer] = {}
    jobs, note = [], ""
    for entry in ledger.entries():
        raw = ledger.answer(entry.number) if entry.state == "completed" else None
        if raw is None:
            jobs.append(JobResult(entry, {}, None))
            continue
        message = json.loads(raw)
        note = note or str(message["answer"].get("note", ""))
        job = ledger.job(entry.number)
        spins, counts = job.spins(message)
        found = [
            part_answer(place, planned[place.part].part, spins, counts, seed=int(facts["seed"]) + place.part)
            for place in job.placements
        ]
        for answer in found:
            before = answers.get(answer.part)
            answers[answer.part] = answer if before is None else _joined(before, answer)
        breaks = float(np.mean([answer.chain_breaks for answer in found])) if found else None
        jobs.append(JobResult(entry, dict(message["answer"].get("timing", {})), breaks))
    states = tuple(
        merged(
            problem,
            start,
            [(planned[number], answer) for number, answer in answers.items() if planned[number].problem == index],
        )
        for index, (problem, start) in enumerate(zip(problems, starts, strict=True))
    )
    return Results(
        states,
        np.array([float(problem.energy(state)) for problem, state in zip(problems, states, strict=True)]),
        np.array([float(problem.energy(start)) for problem, start in zip(problems, starts, strict=True)]),
        tuple(answers[number] for number in sorted(answers)),
        planned,
        tuple(jobs),
        spending(ledger),
        str(facts["solver"]),
        note,
    )


def merged(problem: Problem, start: np.ndarray, answers: Sequence[tuple[PlannedPart, PartAnswer]]) -> np.ndarray:
    """The start with every answer put in that lowers the energy of the whole."""
    state, least = start.astype(bool), float(problem.energy(start))
    for planned, answer in sorted(answers, key=lambda pair: float(pair[1].energies[0])):
        trials = np.repeat(state[None], len(answer.states), axis=0)
        trials[:, planned.variables] = answer.states
        energies = problem.energy(trials)
        best = int(energies.argmin())
        if energies[best] < least - 1e-12 * abs(least):
            state, least = trials[best], float(energies[best])
    return state


def _joined(first: PartAnswer, second: PartAnswer) -> PartAnswer:
    """Two answers to the same part, from jobs with different spin-reversal transforms."""
    states, places = np.unique(np.concatenate([first.states, second.states]), axis=0, return_index=True)
    energies = np.concatenate([first.energies, second.energies])[places]
    order = np.argsort(energies, kind="stable")
    reads = first.reads + second.reads
    share = first.reads / reads
    counts = (
        min(first.counts[0], second.counts[0]),
        share * first.counts[1] + (1 - share) * second.counts[1],
        max(first.counts[2], second.counts[2]),
    )
    breaks = share * first.chain_breaks + (1 - share) * second.chain_breaks
    lowest = float(np.fmin(first.read_energy, second.read_energy))
    return PartAnswer(first.part, states[order], energies[order], lowest, breaks, counts, reads)


# How problems and parts are kept in a ledger


def _problem_arrays(problem: Problem) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    rows = scipy.sparse.csr_array(problem.couplings)
    facts = {"offset": problem.offset, "num_kept": problem.num_kept, "labels": list(problem.names), "sparse": problem.is_sparse}
    return facts, {"linear": problem.linear, "data": rows.data, "indices": rows.indices, "indptr": rows.indptr}


def _problem_from(facts: Mapping[str, Any], arrays: Mapping[str, np.ndarray]) -> Problem:
    size = arrays["linear"].size
    rows = scipy.sparse.csr_array((arrays["data"], arrays["indices"], arrays["indptr"]), shape=(size, size))
    couplings = rows if facts["sparse"] else rows.toarray()
    return Problem(arrays["linear"], couplings, facts["offset"], facts["num_kept"], tuple(facts["labels"]))


def write_problems(problems: Iterable[Problem], starts: Iterable[np.ndarray]) -> list[bytes]:
    """Problems and their starts as bytes."""
    contents = []
    for problem, start in zip(problems, starts, strict=True):
        facts, arrays = _problem_arrays(problem)
        contents.append(packed(facts, {**arrays, "start": start.astype(np.int8)}))
    return contents


def read_problems(contents: Iterable[bytes]) -> tuple[list[Problem], list[np.ndarray]]:
    """What `write_problems` was given."""
    pairs = [unpacked(content) for content in contents]
    return [_problem_from(*pair) for pair in pairs], [arrays["start"] > 0 for _, arrays in pairs]


def write_parts(parts: Iterable[PlannedPart]) -> list[bytes]:
    """Parts as bytes."""
    contents = []
    for part in parts:
        facts, arrays = _problem_arrays(part.part)
        own = {
            "problem": part.problem,
            "price": part.price,
            "chain_length": part.chain_length,
            "num_qubits": part.num_qubits,
        }
        contents.append(packed({**facts, **own}, {**arrays, "variables": part.variables}))
    return contents


def read_parts(contents: Iterable[bytes]) -> tuple[PlannedPart, ...]:
    """What `write_parts` was given."""
    parts = []
    for content in contents:
        facts, arrays = unpacked(content)
        numbers = (float(facts["price"]), int(facts["chain_length"]), int(facts["num_qubits"]))
        parts.append(PlannedPart(int(facts["problem"]), arrays["variables"], _problem_from(facts, arrays), *numbers))
    return tuple(parts)
