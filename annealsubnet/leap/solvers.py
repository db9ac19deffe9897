"""Solvers: a QPU as a value, described well enough to plan for it without a network.

A description is what Leap's service says of a solver: identity (name and id of its working graph) and properties (qubits,
couplers, ranges, timing). It can be saved to a file and read again.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from annealsubnet.leap.connection import LeapError
from annealsubnet.leap.devices import graph_id, qpu


@dataclass(frozen=True)
class Description:
    """A QPU.

    Attributes:
        name: of the solver; "" if it stands for no real one.
        graph_id: of its working graph.
        properties: as the service gives them.
    """

    name: str
    graph_id: str
    properties: Mapping[str, Any]

    def __repr__(self) -> str:
        topology = self.properties["topology"]
        return (
            f"Description({self.name or 'a typical QPU'}, {topology['type']} {topology['shape'][0]}, {self.num_qubits} qubits)"
        )

    @property
    def num_qubits(self) -> int:
        """Working qubits."""
        return len(self.properties["qubits"])

    def seconds(self, num_qubits: int, params: Mapping[str, Any]) -> float:
        """Predicted QPU access time of one job, by the client's own `estimate_qpu_access_time`.

        Args:
            num_qubits: that the job uses.
            params: of the job.

        Raises:
            LeapError: the description has no timing data.
        """
        from dwave.cloud.solver import StructuredSolver

        names = ("num_reads", "annealing_time", "anneal_schedule", "reinitialize_state", "programming_thermalization",
                 "readout_thermalization", "reduce_intersample_correlation")  # fmt: skip
        known = {name: params[name] for name in names if name in params}
        if "anneal_schedule" in known:
            known["initial_state"] = [(0.0, 1.0)]  # only that there is one matters for the time
        solver = StructuredSolver(client=None, data=self.to_data())
        try:
            return 1e-6 * float(solver.estimate_qpu_access_time(num_qubits, **known))
        except (KeyError, ValueError) as error:
            raise LeapError(f"the time on {self.name or 'this QPU'} can't be predicted: {error}.") from None

    def to_data(self) -> dict[str, Any]:
        """The description as the service gives it."""
        return {
            "identity": {"name": self.name or "typical", "version": {"graph_id": self.graph_id}},
            "status": "ONLINE",
            "description": "",
            "properties": dict(self.properties),
            "avg_load": 0.0,
        }

    def save(self, path: str | Path) -> None:
        """Write it to a JSON file, to plan with later without a network."""
        Path(path).write_text(json.dumps(self.to_data()), encoding="utf-8")


def described(solver: Any) -> Description:
    """The description of whatever stands for a QPU.

    Args:
        solver: a `DWaveSampler`, a solver of the cloud client, a dictionary as the service gives it or of properties alone,
            the path of a file that `Description.save` wrote, or a topology with its size, as "zephyr:12".

    Raises:
        LeapError: it is none of these, or no QPU.

    Example:
        >>> described("zephyr:2")
        Description(a typical QPU, zephyr 2, 160 qubits)
    """
    if isinstance(solver, Description):
        return solver
    if isinstance(solver, str | Path):
        return _named(str(solver))
    inner = getattr(solver, "solver", solver)
    data = solver if isinstance(solver, Mapping) else {"properties": getattr(inner, "properties", None)}
    properties: Any = data.get("properties", data)
    missing = {"qubits", "couplers", "topology", "h_range"} - set(properties or {})
    if missing:
        kind = type(solver).__name__
        raise LeapError(
            f"{kind} does not describe a QPU: it lacks {', '.join(sorted(missing))}; give a DWaveSampler or its like."
        )
    identity = data.get("identity") or getattr(inner, "identity", None)
    identity = identity if isinstance(identity, Mapping) else (identity.dict() if identity is not None else {})
    found = (identity.get("version") or {}).get("graph_id") or properties.get("graph_id") or graph_id(dict(properties))
    return Description(str(identity.get("name", "")), str(found), properties)


def _named(name: str) -> Description:
    topology, _, size = name.partition(":")
    if topology in ("zephyr", "pegasus") and size.isdigit() and int(size) > 1:
        device = qpu(topology, int(size), defects=0.0, seed=0)  # type: ignore[arg-type]
        return Description("", str(device["identity"]["version"]["graph_id"]), device["properties"])
    path = Path(name)
    if not path.is_file():
        raise LeapError(f"{name!r} is neither a topology with its size, such as zephyr:12 or pegasus:16, nor a file.")
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise LeapError(f"{name} is no description of a solver: {error}.") from None
    if not isinstance(data, Mapping):
        raise LeapError(f"{name} is no description of a solver: it holds a {type(data).__name__}, not an object.")
    return described(data)


def chosen_params(
    solver: Description, num_qubits: int, *, num_reads: int | None, annealing_time: float | None, turns: int
) -> dict[str, Any]:
    """Annealing time and reads of a job, where they are not given.

    Reading out and the delay before the next read take longer than a short annealing, so annealing for half as long as they
    take costs a third more a read; and so many reads are made that they take as long as programming does, which is paid
    whatever the number of reads. Both are less where the solver does not run a job for so long.

    Args:
        solver: that will run it.
        num_qubits: that it uses.
        num_reads: if given.
        annealing_time: in microseconds, if given.
        turns: jobs that share the reads.

    Raises:
        LeapError: a value that was given is out of the solver's range, or the two together are.
    """
    low, high = solver.properties.get("annealing_time_range", (0.5, 2000.0))
    fewest, most = solver.properties.get("num_reads_range", (1, 10000))
    room, rest = _running_time(solver.properties)
    high = min(high, room / max(fewest, 1) - rest)
    if num_reads is not None and not fewest <= num_reads <= most:
        raise LeapError(f"num_reads must be from {fewest} to {most}; it is {num_reads}.")
    if annealing_time is not None and not low <= annealing_time <= high:
        raise LeapError(f"annealing_time must be from {low:g} to {high:g} microseconds; it is {annealing_time:g}.")
    one, two = (solver.seconds(num_qubits, {"num_reads": reads, "annealing_time": 1.0}) for reads in (1, 2))
    if annealing_time is None:
        longest = high if num_reads is None else min(high, np.floor(room / -(-num_reads // turns) - rest))
        annealing_time = float(max(low, min(max(1.0, round(0.5 * (1e6 * (two - one) - 1.0))), longest)))
    fit = min(most, turns * int(min(room / (annealing_time + rest), most)))
    if num_reads is None:
        a_read = two - one + 1e-6 * (annealing_time - 1.0)
        num_reads = max(fewest, min(max(20, round((2 * one - two) / a_read)), fit))
    elif num_reads > fit:
        raise LeapError(
            f"num_reads is {num_reads}, but {fit} reads are the most that run within the solver's problem_run_duration_range "
            f"where each anneals for {annealing_time:g} microseconds; give it fewer reads, or a shorter annealing_time."
        )
    return {"num_reads": num_reads, "annealing_time": annealing_time, "answer_mode": "raw", "auto_scale": False}


def _running_time(properties: Mapping[str, Any]) -> tuple[float, float]:
    """Microseconds that the reads of a job may take in all, and that each takes beside its annealing.

    What is limited is reads × (annealing_time + readout_thermalization) + programming_thermalization.
    """
    longest = properties.get("problem_run_duration_range", (0.0, np.inf))[1]
    room = longest - properties.get("default_programming_thermalization", 0.0)
    return float(room), float(properties.get("default_readout_thermalization", 0.0))
