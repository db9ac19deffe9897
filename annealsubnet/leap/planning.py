"""Plan: everything that can be decided before anything is spent.

A cheap local annealing finds a state of each problem. Problems that fit the solver are taken whole; of larger ones, parts are
taken: those that the annealing left contested, or all of them. Parts are priced (where a count is to be kept), embedded, packed
many to a job, scaled each to the device's ranges, and the QPU time of every job is predicted.
"""

import hashlib
import logging
import secrets
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, Literal

import dimod
import numpy as np

from annealsubnet.arguments import check_weight, check_whole
from annealsubnet.decompose import PROFILES, Limits, contested, decompose, limits_of
from annealsubnet.decompose.decomposition import checked_start
from annealsubnet.decompose.partition import compressed
from annealsubnet.leap.answers import prices_of
from annealsubnet.leap.connection import Connection, LeapError
from annealsubnet.leap.ising import placed_job
from annealsubnet.leap.jobs import Job
from annealsubnet.leap.ledger import Ledger
from annealsubnet.leap.merging import PlannedPart, Results, results, write_parts, write_problems
from annealsubnet.leap.patience import Patience
from annealsubnet.leap.running import Pace, Spending, checked_budget, run
from annealsubnet.leap.solvers import Description, chosen_params, described
from annealsubnet.problems import Problem
from annealsubnet.solvers import Annealer, solve

logger = logging.getLogger(__name__)

FoundPart = tuple[int, np.ndarray, Problem]
Report = Callable[[Spending, int], None]
_START_READS, _START_SWEEPS = 8, 200
_REVERSE_TURN, _REVERSE_SHARE = 0.45, 0.25
_CONTEST_READS, _CONTEST_SWEEPS = 32, 40
MOST_PARTS = 2
"""Of one problem, the most contested first: what a fan-in of hundreds of inputs leaves open is all but in two of them."""
VARIABLES = 24
"""Of a part, unless limits are given: cliques of this size fill a chip with the most variables at short chains."""


@dataclass(frozen=True)
class Plan:
    """What would be sent, where, and what it would cost.

    Attributes:
        problems: as given.
        starts: one state a problem, at which the parts are folded.
        parts: of all problems.
        jobs: that hold them.
        solver: that it was planned for.
        seed: of all that is random.
    """

    problems: tuple[Problem, ...]
    starts: tuple[np.ndarray, ...]
    parts: tuple[PlannedPart, ...]
    jobs: tuple[Job, ...]
    solver: Description
    seed: int

    def __repr__(self) -> str:
        return (
            f"Plan({len(self.problems)} problems, {len(self.parts)} parts, {len(self.jobs)} jobs, "
            f"{self.qpu_seconds:.3f} QPU seconds predicted on {self.solver.name or 'a typical QPU'})"
        )

    @property
    def qpu_seconds(self) -> float:
        """Predicted QPU access time of all jobs."""
        return float(sum(job.seconds for job in self.jobs))

    @property
    def fingerprint(self) -> str:
        """The same for the same problems, starts and jobs on the same solver, and for nothing else."""
        digest = hashlib.sha256(f"{self.solver.name} {self.solver.graph_id}".encode())
        for problem, start in zip(self.problems, self.starts, strict=True):
            stored = compressed(problem)
            digest.update(f"{problem.size} {problem.offset!r} {problem.num_kept} {problem.names}".encode())
            for array in (problem.linear, stored.firsts, stored.neighbors, stored.values, start):
                digest.update(np.ascontiguousarray(array).tobytes())
        for job in self.jobs:
            for array in (job.qubits, job.fields, job.pairs, job.couplings, job.gauge, job.initial):
                digest.update(np.ascontiguousarray(array).tobytes())
            digest.update(repr(sorted(job.params.items())).encode())
        return digest.hexdigest()[:16]

    def rows(self) -> list[dict[str, Any]]:
        """One row a job: its parts, qubits, chains, reads and predicted seconds."""
        return [
            {
                "job": number,
                "parts": len(job.placements),
                "variables": sum(len(place.chains) for place in job.placements),
                "qubits": int(job.qubits.size),
                "longest_chain": max((chain.size for place in job.placements for chain in place.chains), default=0),
                "num_reads": job.params["num_reads"],
                "annealing_time": job.params.get("annealing_time", job.params.get("anneal_schedule")),
                "predicted_seconds": job.seconds,
            }
            for number, job in enumerate(self.jobs)
        ]

    def submit(
        self,
        *,
        budget_seconds: float,
        ledger: str | Path,
        solver: Any = None,
        label: str = "annealsubnet",
        pace: Pace | None = None,
        patience: Patience | None = None,
        report: Report = lambda spending, left: None,
    ) -> Results:
        """Send the jobs, as many as the budget allows, and wait for their answers.

        Args:
            budget_seconds: QPU access time that may be spent; jobs that do not fit stay planned.
            ledger: SQLite file that everything is written to; one that is there is gone on with, if it is this plan's.
            solver: whose client and credentials are used; the user's configuration is read if None.
            label: that all jobs' own labels begin with.
            pace: how much is under way at a time.
            patience: with failures of the service.
            report: told now and then what was spent and how many jobs are left.

        Returns:
            What the ledger holds then.

        Raises:
            LeapError: no credentials, a ledger of another plan, a solver that is off line or unknown, a token refused, a disk
                that can't be written, a service that does not answer. What was paid for is in the ledger.
        """
        budget_seconds = checked_budget(budget_seconds)
        if not self.solver.name:
            raise LeapError("this plan is for a typical QPU, not for one that is there; plan with a DWaveSampler to submit.")
        mode = "write" if Path(ledger).exists() else "create"
        with Connection.open(solver, patience=patience) as connection, Ledger(ledger, mode=mode) as opened:
            self._write(opened, connection.endpoint, budget_seconds, label)
            run(opened, connection, budget_seconds=budget_seconds, pace=pace or Pace(), report=report)
            return results(opened)

    def _write(self, ledger: Ledger, endpoint: str, budget_seconds: float, label: str) -> None:
        facts = ledger.facts()
        if facts.get("fingerprint", self.fingerprint) != self.fingerprint:
            raise LeapError(
                f"{ledger.path} is the ledger of another plan ({facts['jobs']} jobs on {facts['solver']}); resume that one, or "
                f"give this plan a ledger of its own."
            )
        if "fingerprint" in facts:
            if facts["endpoint"] != endpoint:
                raise LeapError(f"{ledger.path} was sent to {facts['endpoint']}, but the configuration leads to {endpoint}.")
            ledger.set_facts({"budget_seconds": budget_seconds})
            return
        token = secrets.token_hex(4)
        with ledger.transaction():
            ledger.add_contents("problem", write_problems(self.problems, self.starts))
            ledger.add_contents("part", write_parts(self.parts))
            ledger.add_jobs((f"{label}-{token}-{number}", job) for number, job in enumerate(self.jobs))
            ledger.set_facts(
                {
                    "solver": self.solver.name,
                    "graph_id": self.solver.graph_id,
                    "endpoint": endpoint,
                    "budget_seconds": budget_seconds,
                    "seed": self.seed,
                    "jobs": len(self.jobs),
                    "version": _version(),
                    "fingerprint": self.fingerprint,
                }
            )


def plan(
    problems: Problem | dimod.BinaryQuadraticModel | Sequence[Problem | dimod.BinaryQuadraticModel],
    solver: Any,
    *,
    seed: int,
    limits: Limits | str | None = None,
    cover: Literal["contested", "all"] | None = None,
    starts: Sequence[Any] | None = None,
    num_reads: int | None = None,
    annealing_time: float | None = None,
    spin_reversals: int = 1,
    reverse: bool = False,
    time_limit: float = 60.0,
    cache: Any = None,
) -> Plan:
    """Decide what to send to a QPU, and predict what it costs; nothing is sent.

    Args:
        problems: one or many, of any size; binary quadratic models too.
        solver: a `DWaveSampler`, a solver of the cloud client, a saved description, or "zephyr:12" for a typical one.
        seed: of all that is random.
        limits: of a part, or the name of a profile (`annealsubnet.decompose.PROFILES`); by default parts of 24 variables, of
            fewer where the solver holds no such clique.
        cover: of problems larger than a part: the two parts that a local annealing left most "contested" (by default), which
            hold nearly all that it leaves open in a fan-in of hundreds; or "all" parts (with starts, where there is no such
            annealing, always).
        starts: states to begin with, one a problem: 0 or 1 for each unit, with the problem's count if it has one; found by
            a local annealing if None.
        num_reads: reads of each job; by default as many as take as long as programming.
        annealing_time: in microseconds; by default half as long as reading out, or less where so many reads take too long.
        spin_reversals: how many spin-reversal transforms share the reads of a job as evenly as can be, each a job of its own;
            0 for none.
        reverse: anneal in reverse from the starts.
        time_limit: seconds to look for embeddings and places.
        cache: of embeddings, an `EmbeddingCache`.

    Returns:
        Parts, jobs and predicted QPU seconds.

    Raises:
        ValueError: a part cannot be embedded (it is named, with limits that would fit), a cover that there is not, or that
            starts leave unknown, a start that is no state of its problem, or options that do not fit.
        TypeError: something that is no problem, or an option that is no number, or no whole one.

    Example:
        >>> from annealsubnet.problems import Problem
        >>> rng = np.random.default_rng(0)
        >>> upper = np.triu(rng.normal(size=(8, 8)), 1)
        >>> plan([Problem(rng.normal(size=8), upper + upper.T)], "zephyr:2", seed=0, num_reads=100)
        Plan(1 problems, 1 parts, 1 jobs, 0.0... QPU seconds predicted on a typical QPU)
    """
    given = problems_of(problems)
    device = described(solver)
    seed, spin_reversals = check_whole("seed", seed, 0), check_whole("spin_reversals", spin_reversals, 0)
    num_reads = None if num_reads is None else check_whole("num_reads", num_reads)
    if annealing_time is not None:
        check_weight("annealing_time", annealing_time)
        annealing_time = float(annealing_time)
    bounds = _limits(limits, device)
    parts, begun = _parts(given, starts, bounds, cover=cover, seed=seed)
    if not parts:
        return Plan(given, begun, (), (), device, seed)
    prices = prices_of([part for _, _, part in parts], seed=seed)
    planned, jobs = _jobs(
        parts, begun, prices, device, seed=seed, num_reads=num_reads, annealing_time=annealing_time,
        spin_reversals=spin_reversals, reverse=reverse, time_limit=time_limit, cache=cache,
    )  # fmt: skip
    made = Plan(given, begun, planned, jobs, device, seed)
    logger.info("%r", made)
    return made


def problem_of(model: dimod.BinaryQuadraticModel, *, num_kept: int | None = None) -> Problem:
    """A binary quadratic model as a problem; a SPIN model's variables are kept where they are up.

    Units are in the order of the model's variables, and labeled with their strings; by position where two have the same one.
    """
    from annealsubnet.solvers.compiled import energy_of

    energy = energy_of(model)
    names = tuple(str(label) for label in model.variables)
    return Problem(energy.linear, energy.couplings, energy.offset, num_kept, names if len(set(names)) == len(names) else None)


def problems_of(problems: Any) -> tuple[Problem, ...]:
    """One problem or model, or many, as problems."""
    single = isinstance(problems, Problem | dimod.BinaryQuadraticModel)
    found = []
    for number, problem in enumerate([problems] if single else list(problems)):
        if isinstance(problem, dimod.BinaryQuadraticModel):
            problem = problem_of(problem)
        if not isinstance(problem, Problem):
            raise TypeError(f"problem {number} is a {type(problem).__name__}; give a Problem or a binary quadratic model.")
        found.append(problem)
    return tuple(found)


def _limits(limits: Limits | str | None, device: Description) -> Limits:
    own = limits_of(device.properties)
    if limits is None:
        return replace(own, variables=min(VARIABLES, own.variables or VARIABLES))
    if isinstance(limits, str):
        if limits not in PROFILES:
            raise ValueError(f"there is no profile {limits!r}; there are {', '.join(PROFILES)}.")
        limits = PROFILES[limits]
    return replace(limits, topology=own.topology)


def _parts(
    problems: Sequence[Problem], starts: Sequence[Any] | None, limits: Limits, *, cover: str | None, seed: int
) -> tuple[list[FoundPart], tuple[np.ndarray, ...]]:
    """(number of the problem, positions in it, part), and the states at which the parts are folded."""
    if starts is not None and len(starts) != len(problems):
        raise ValueError(f"there are {len(starts)} starts for {len(problems)} problems; give one for each.")
    if cover not in (None, "contested", "all"):
        raise ValueError(f"cover must be 'contested' or 'all'; it is {cover!r}.")
    if starts is not None and cover == "contested":
        raise ValueError("what is contested is not known of starts that are given; leave out starts, or take cover='all'.")
    found: list[FoundPart] = []
    states: list[np.ndarray] = []
    for number, problem in enumerate(problems):
        small = problem.size <= (limits.variables or problem.size) and limits.degree is None
        if starts is None and not small and cover != "all":
            left = contested(problem, limits, seed=seed + number, num_reads=_CONTEST_READS, num_sweeps=_CONTEST_SWEEPS)
            states.append(left.state)
            found += [(number, part.variables, part.problem) for part in left.parts[:MOST_PARTS]]
            continue
        if starts is None:
            states.append(local_state(problem, seed=seed + number))
        else:
            states.append(checked_start(starts[number], problem, name=f"starts[{number}]"))
        if problem.size:
            decomposition = decompose(problem, limits, seed=seed + number)
            found += [(number, part.variables, part.problem) for part in decomposition.parts(states[number])]
    return found, tuple(states)


def local_state(problem: Problem, *, seed: int) -> np.ndarray:
    """The state of a cheap local annealing."""
    return solve(problem, Annealer(), seed=seed, num_reads=_START_READS, num_sweeps=_START_SWEEPS).best


def _jobs(
    parts: Sequence[FoundPart],
    starts: Sequence[np.ndarray],
    prices: Sequence[float],
    device: Description,
    *,
    seed: int,
    num_reads: int | None,
    annealing_time: float | None,
    spin_reversals: int,
    reverse: bool,
    time_limit: float,
    cache: Any,
) -> tuple[tuple[PlannedPart, ...], tuple[Job, ...]]:
    from annealsubnet.leap.packing import pack_jobs
    from annealsubnet.leap.working_graphs import working_graph

    graph = working_graph({**device.properties, "graph_id": device.graph_id})
    problems = [part for _, _, part in parts]
    packings = pack_jobs(problems, graph, seed=seed, time_limit=time_limit, cache=cache)
    lengths: dict[int, tuple[int, int]] = {}
    jobs: list[Job] = []
    for packing in packings:
        numbers = [number for number, _ in packing.placed]
        chains = [embedding.chains for _, embedding in packing.placed]
        lengths.update({number: (embedding.chain_length, embedding.num_qubits) for number, embedding in packing.placed})
        used = sum(len(chain) for part in chains for chain in part)
        turns = max(spin_reversals, 1)
        params = chosen_params(device, used, num_reads=num_reads, annealing_time=annealing_time, turns=turns)
        shares = _shares(params["num_reads"], turns)
        states = None
        if reverse:
            states = [starts[parts[number][0]][parts[number][1]] for number in numbers]
            params = _reversed(params)
        for turn, reads in enumerate(shares):
            params = {**params, "num_reads": reads}
            gauge_seed = None if spin_reversals == 0 else seed + 104729 * len(jobs) + turn
            job = placed_job(
                numbers, [problems[number] for number in numbers], [prices[number] for number in numbers], chains,
                device.properties, params, gauge_seed=gauge_seed, states=states,
            )  # fmt: skip
            jobs.append(replace(job, seconds=device.seconds(used, params)))
    planned = tuple(
        PlannedPart(problem, np.asarray(variables), part, prices[number], *lengths[number])
        for number, (problem, variables, part) in enumerate(parts)
    )
    return planned, tuple(jobs)


def _shares(reads: int, turns: int) -> list[int]:
    """The reads of each of some jobs that share them."""
    if turns > reads:
        raise ValueError(f"spin_reversals is {turns}, but a job has {reads} reads; give it more reads, or fewer reversals.")
    return [reads // turns + (turn < reads % turns) for turn in range(turns)]


def _reversed(params: dict[str, Any]) -> dict[str, Any]:
    """Reverse annealing: back from s = 1 to where the state can change, a pause, and forth again."""
    time = float(params.pop("annealing_time"))
    ramp = _REVERSE_SHARE * time
    schedule = [[0.0, 1.0], [ramp, _REVERSE_TURN], [time - ramp, _REVERSE_TURN], [time, 1.0]]
    return {**params, "anneal_schedule": schedule, "reinitialize_state": True}


def _version() -> str:
    try:
        return version("annealsubnet")
    except PackageNotFoundError:
        return "not installed"
