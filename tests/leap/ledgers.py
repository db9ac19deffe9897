"""A loopback service, and ledgers of jobs so small that what is measured is the machinery around them."""

import numpy as np
from dwave.cloud import config

from annealsubnet.leap.connection import Connection
from annealsubnet.leap.jobs import Job, Placement
from annealsubnet.leap.ledger import Ledger
from annealsubnet.leap.merging import PlannedPart, write_parts, write_problems
from annealsubnet.leap.patience import Patience
from annealsubnet.problems import Problem
from annealsubnet.testing import LoopbackLeap

QUICK = Patience(attempts=8, first=0.005, most=0.05, poll_seconds=1)


def connect(leap: LoopbackLeap, patience: Patience = QUICK) -> Connection:
    loaded = config.validate_config_v1(config.load_config(config_file=False, endpoint=leap.endpoint, token=leap.token))
    return Connection(loaded, patience=patience)


def small_jobs(leap: LoopbackLeap, count: int, *, seconds: float = 0.031) -> list[Job]:
    """Jobs of one coupler each."""
    rng = np.random.default_rng(count)
    couplers = np.sort(np.array(leap.qpu["properties"]["couplers"]), axis=1)
    jobs = []
    for number in range(count):
        pair = couplers[rng.integers(len(couplers))]
        place = Placement(number, (np.array([0]), np.array([1])), 1.0, 1.0)
        params = {"num_reads": 5, "auto_scale": True, "answer_mode": "raw"}
        fields, couplings = rng.normal(size=2), rng.normal(size=1)
        jobs.append(
            Job(pair, fields, np.array([[0, 1]]), couplings, np.array([1, -1], np.int8), (place,), params, seconds=seconds)
        )
    return jobs


def _problem(job: Job) -> Problem:
    """The problem whose Ising form a job of one coupler holds."""
    coupling = float(job.couplings[0])
    return Problem(2 * (job.fields - coupling), np.array([[0.0, 4 * coupling], [4 * coupling, 0.0]]))


def write_ledger(path, leap: LoopbackLeap, count: int, *, budget: float = 1e9, seconds: float = 0.031):
    jobs = small_jobs(leap, count, seconds=seconds)
    problems = [_problem(job) for job in jobs]
    parts = [PlannedPart(number, np.arange(2), problem, 0.0, 1, 2) for number, problem in enumerate(problems)]
    with Ledger(path, mode="create") as ledger, ledger.transaction():
        ledger.add_contents("problem", write_problems(problems, [np.zeros(2)] * count))
        ledger.add_contents("part", write_parts(parts))
        ledger.add_jobs((f"job-{number}", job) for number, job in enumerate(jobs))
        ledger.set_facts(
            {
                "solver": leap.solver_name,
                "endpoint": leap.endpoint,
                "budget_seconds": budget,
                "seed": 0,
                "jobs": count,
                "fingerprint": "small",
            }
        )
    return path
