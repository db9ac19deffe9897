"""The service behind the server: solvers, jobs and uploads, and the threads that solve them.

Jobs are accepted at once, solved by a few workers one after the other, and kept for as long as the server runs. What was
accepted is written down in order, so that a test can tell whether anything was sent twice.
"""

import base64
import hashlib
import threading
import time
import uuid
from collections import Counter
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

import numpy as np

from annealsubnet.leap import devices
from annealsubnet.testing.codec import Malformed, decode_problem, encode_answer
from annealsubnet.testing.faults import Dice
from annealsubnet.testing.sampling import Noise, sample_ising, sample_model

PENDING, IN_PROGRESS, COMPLETED, FAILED, CANCELLED = "PENDING", "IN_PROGRESS", "COMPLETED", "FAILED", "CANCELLED"
ENDED = {COMPLETED, FAILED, CANCELLED}


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


@dataclass
class Job:
    """One job that the service has accepted."""

    id: str
    label: str | None
    type: str
    solver: dict[str, Any]
    body: Mapping[str, Any]
    fault: str | None
    submitted_on: str = field(default_factory=_now)
    status: str = PENDING
    solved_on: str | None = None
    answer: dict[str, Any] | None = None
    error: str | None = None

    def summary(self, *, with_answer: bool = False) -> dict[str, Any]:
        """The job as the service tells it."""
        names = ("id", "label", "type", "solver", "status", "submitted_on", "solved_on")
        told = {name: getattr(self, name) for name in names if getattr(self, name) is not None}
        if self.error is not None:
            told["error_message"] = self.error
        if with_answer and self.answer is not None:
            told["answer"] = self.answer
        return told


class Service:
    """Solvers, jobs and uploads.

    Args:
        solvers: descriptions, as `devices` makes them.
        dice: what goes wrong with jobs.
        noise: of the QPUs.
        latency: least seconds that a job takes.
        workers: jobs solved at a time.
        seed: of the sampling.
    """

    def __init__(
        self, solvers: Sequence[dict[str, Any]], dice: Dice, *, noise: Noise, latency: float, workers: int, seed: int
    ) -> None:
        self.solvers = {solver["identity"]["name"]: solver for solver in solvers}
        self.dice, self.noise, self.latency, self.seed = dice, noise, latency, seed
        self.jobs: dict[str, Job] = {}
        self.requests: Counter[str] = Counter()
        self._uploads: dict[str, dict[str, Any]] = {}
        self._changed = threading.Condition()
        self._pool = ThreadPoolExecutor(workers, thread_name_prefix="loopback-leap")
        self._closing = threading.Event()

    def close(self) -> None:
        """Stop the workers; jobs not begun are dropped."""
        self._closing.set()
        self._pool.shutdown(wait=True, cancel_futures=True)

    # Jobs

    def submit(self, body: Mapping[str, Any]) -> dict[str, Any]:
        """Accept one job, or say why not."""
        name, kind = (body.get("solver") or {}).get("name"), str(body.get("type"))
        solver = self.solvers.get(str(name))
        if solver is None or solver["status"] != "ONLINE":
            return {"error_code": 404, "error_msg": f"Solver {name!r} is {'offline' if solver else 'unknown'}"}
        fault = self.dice.of_job()
        if fault == "changed graph" and solver["properties"]["category"] == "qpu":
            self.change_graph(str(name))
        asked = ((body.get("solver") or {}).get("version") or {}).get("graph_id")
        current = (solver["identity"].get("version") or {}).get("graph_id")
        if asked is not None and asked != current:
            return {"error_code": 409, "error_msg": f"Solver {name!r} has the working graph {current}, not {asked}"}
        if kind not in solver["properties"]["supported_problem_types"]:
            return {"error_code": 400, "error_msg": f"Solver {name!r} does not solve problems of type {kind!r}"}
        job = Job(f"classical-{uuid.uuid4()}", body.get("label"), kind, dict(solver["identity"]), dict(body), fault)
        with self._changed:
            self.jobs[job.id] = job
            number = len(self.jobs)
        properties = solver["properties"]
        self._pool.submit(self._solve, job, properties, self.seed + 7919 * number)
        return job.summary()

    def statuses(self, ids: Sequence[str], *, timeout: float) -> list[dict[str, Any]]:
        """Short statuses; waits until one of the jobs has ended, `timeout` seconds at most."""
        end = time.monotonic() + timeout
        with self._changed:
            while not any(job_id not in self.jobs or self.jobs[job_id].status in ENDED for job_id in ids):
                left = end - time.monotonic()
                if left <= 0 or self._closing.is_set():
                    break
                self._changed.wait(min(left, 0.5))
            missing = {"error_code": 404, "error_msg": "Problem does not exist"}
            return [self.jobs[job_id].summary() if job_id in self.jobs else missing for job_id in ids]

    def listed(self, label: str | None, most: int) -> list[dict[str, Any]]:
        """The latest jobs, or those with a label."""
        with self._changed:
            found = [job for job in self.jobs.values() if label is None or job.label == label]
        return [job.summary() for job in found[::-1][:most]]

    def cancel(self, ids: Sequence[str]) -> list[dict[str, Any]]:
        """Cancel jobs that have not begun."""
        with self._changed:
            for job_id in ids:
                if job_id in self.jobs and self.jobs[job_id].status == PENDING:
                    self.jobs[job_id].status = CANCELLED
            self._changed.notify_all()
        return self.statuses(ids, timeout=0)

    def change_graph(self, name: str, *, lost: float = 0.01) -> str:
        """Let a few more qubits of a QPU fail, under the same solver name; returns the new graph's id."""
        solver = self.solvers[name]
        rng_seed = int(self.dice.uniform() * 2**31)
        properties = dict(solver["properties"])
        properties.update(devices.without(properties, share_of_qubits=lost, share_of_couplers=0.0, seed=rng_seed))
        new = devices.graph_id(properties)
        self.solvers[name] = {**solver, "properties": properties, "identity": {"name": name, "version": {"graph_id": new}}}
        return new

    def _solve(self, job: Job, properties: Mapping[str, Any], seed: int) -> None:
        with self._changed:
            if job.status != PENDING:
                return
            job.status = IN_PROGRESS
        start = time.monotonic()
        try:
            if job.fault == "failed job":
                raise Malformed("the solver failed (a fault asked for)")
            solve = self._solve_on_qpu if job.type in ("ising", "qubo") else self._solve_hybrid
            job.answer = solve(job, properties, seed)
        except (Malformed, ValueError, TypeError) as error:
            job.error = str(error)
        latency = self.latency + (self.dice.faults.slow_seconds if job.fault == "slow job" else 0.0)
        self._closing.wait(max(latency - (time.monotonic() - start), 0.0))
        with self._changed:
            job.status, job.solved_on = (COMPLETED if job.error is None else FAILED), _now()
            self._changed.notify_all()

    def _solve_on_qpu(self, job: Job, properties: Mapping[str, Any], seed: int) -> dict[str, Any]:
        params: Mapping[str, Any] = job.body.get("params") or {}
        _check_params(params, properties)
        problem = decode_problem(job.body["data"], job.type, properties)
        spins, energies = sample_ising(problem, properties, params, noise=self.noise, seed=seed)
        return {
            **encode_answer(
                spins,
                energies,
                problem.qubits,
                num_qubits=int(properties["num_qubits"]),
                histogram=params.get("answer_mode", "histogram") == "histogram",
                max_answers=params.get("max_answers"),
                timing=_timing(problem.qubits.size, params, job.solver, properties, seed),
            ),
            "note": devices.CLASSICAL,
        }

    def _solve_hybrid(self, job: Job, properties: Mapping[str, Any], seed: int) -> dict[str, Any]:
        upload = self._uploads.get(str(job.body["data"].get("data")))
        if upload is None or upload["status"] != "UPLOAD_COMPLETED":
            raise Malformed("the problem was not uploaded")
        answer = sample_model(b"".join(upload["parts"][number] for number in sorted(upload["parts"])), seed=seed)
        microseconds = 1e6 * float((job.body.get("params") or {}).get("time_limit", 1.0))
        answer.info.clear()
        answer.info.update(
            run_time=microseconds, charge_time=microseconds, qpu_access_time=0.0, problem_id=job.id, note=devices.CLASSICAL
        )
        return {"format": "bq", "data": answer.to_serializable()}

    # Uploads

    def begin_upload(self, size: int) -> dict[str, Any]:
        """A new upload of `size` bytes in parts."""
        upload_id = f"classical-upload-{uuid.uuid4()}"
        self._uploads[upload_id] = {"status": "UPLOAD_IN_PROGRESS", "size": size, "parts": {}}
        return {"id": upload_id}

    def put_part(self, upload_id: str, number: int, data: bytes, md5: str | None) -> bool:
        """Keep one part; False if its checksum is not what the client says."""
        good = md5 is None or base64.b64encode(hashlib.md5(data).digest()).decode("ascii") == md5
        if good:
            self._uploads[upload_id]["parts"][number] = data
        return good

    def combine(self, upload_id: str, checksum: str) -> bool:
        """Finish an upload; False if the parts are not those that the client sent."""
        upload = self._uploads[upload_id]
        digests = [hashlib.md5(upload["parts"][number]).digest() for number in sorted(upload["parts"])]
        good = hashlib.md5(b"".join(digests)).hexdigest() == checksum
        if good:
            upload["status"] = "UPLOAD_COMPLETED"
        return good

    def upload_status(self, upload_id: str) -> dict[str, Any] | None:
        """Which parts of an upload are there."""
        upload = self._uploads.get(upload_id)
        if upload is None:
            return None
        parts = [
            {"part_number": number, "checksum": hashlib.md5(data).hexdigest()}
            for number, data in sorted(upload["parts"].items())
        ]
        return {"status": upload["status"], "parts": parts}


def _check_params(params: Mapping[str, Any], properties: Mapping[str, Any]) -> None:
    for name in params:
        if name not in properties["parameters"] and not name.startswith("x_"):
            raise Malformed(f"{name} is not a parameter of this solver")
    for name, bounds in (("num_reads", "num_reads_range"), ("annealing_time", "annealing_time_range")):
        low, high = properties[bounds]
        if name in params and not low <= params[name] <= high:
            raise Malformed(f"{name} must be from {low} to {high}; it is {params[name]}")
    low, high = properties["problem_run_duration_range"]
    duration = _run_duration(params, properties)
    if not low <= duration <= high * (1 + 1e-9):
        raise Malformed(f"the problem run duration must be from {low} to {high} microseconds; it is {duration}")


def _run_duration(params: Mapping[str, Any], properties: Mapping[str, Any]) -> float:
    """What problem_run_duration_range limits, in microseconds."""
    readout = params.get("readout_thermalization", properties["default_readout_thermalization"])
    programming = params.get("programming_thermalization", properties["default_programming_thermalization"])
    return float(params.get("num_reads", 1) * (_annealing_time(params, properties) + readout) + programming)


def _annealing_time(params: Mapping[str, Any], properties: Mapping[str, Any]) -> float:
    """Of one read, in microseconds."""
    schedule = params.get("anneal_schedule")
    return float(schedule[-1][0] if schedule else params.get("annealing_time", properties["default_annealing_time"]))


def _timing(
    num_qubits: int, params: Mapping[str, Any], identity: dict[str, Any], properties: Mapping[str, Any], seed: int
) -> dict[str, Any]:
    """What the device reports: the timing model's figures, up to half a percent off, as real ones are."""
    from dwave.cloud.solver import StructuredSolver

    data = {"identity": identity, "status": "ONLINE", "description": "", "properties": dict(properties), "avg_load": 0.0}
    solver = StructuredSolver(client=None, data=data)
    reads = int(params.get("num_reads", 1))
    known = {name: value for name, value in params.items() if name not in ("num_reads", "label")}
    access = solver.estimate_qpu_access_time(num_qubits, num_reads=reads, **known)
    programming = access - (solver.estimate_qpu_access_time(num_qubits, num_reads=2 * reads, **known) - access)
    off = 1.0 + 0.01 * (float(np.random.default_rng(seed).random()) - 0.5)
    anneal = _annealing_time(params, properties)
    delay = properties["problem_timing_data"]["qpu_delay_time_per_sample"]
    sampling = access - programming
    return {
        "qpu_sampling_time": off * sampling,
        "qpu_anneal_time_per_sample": anneal,
        "qpu_readout_time_per_sample": sampling / reads - anneal - delay,
        "qpu_delay_time_per_sample": delay,
        "qpu_programming_time": off * programming,
        "qpu_access_time": off * access,
        "qpu_access_overhead_time": 1000.0,
        "total_post_processing_time": 0.0,
        "post_processing_overhead_time": 0.0,
    }
