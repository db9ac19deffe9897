"""Devices: descriptions of solvers, in the form in which Leap's service gives them.

A QPU's *working graph* is its topology less the qubits and couplers that do not work. The timing model is the one that the
client's `estimate_qpu_access_time` knows (programming + reads × (annealing + readout + delay), readout growing with the
number of qubits), filled with the typical figures that D-Wave publishes for each generation.

References:
    D-Wave, "QPU-specific physical properties" and "Operation and timing", docs.dwavequantum.com (2026).
"""

import hashlib
from typing import Any, Literal

import numpy as np

Topology = Literal["zephyr", "pegasus"]

CLASSICAL = "answers are those of classical simulated annealing; there is no quantum hardware behind this server"

# Microseconds; readout of a single qubit and of the whole device.
_TIMES: dict[str, dict[str, float]] = {
    "zephyr": {"programming": 29_000.0, "delay": 41.0, "readout_one": 17.0, "readout_all": 101.0},
    "pegasus": {"programming": 14_000.0, "delay": 20.5, "readout_one": 17.0, "readout_all": 235.0},
}
_RANGES: dict[str, dict[str, Any]] = {
    "zephyr": {"h_range": [-4.0, 4.0], "j_range": [-1.0, 1.0], "extended_j_range": [-2.0, 1.0]},
    "pegasus": {
        "h_range": [-4.0, 4.0],
        "j_range": [-1.0, 1.0],
        "extended_j_range": [-2.0, 1.0],
        "per_qubit_coupling_range": [-18.0, 15.0],
    },
}
_PARAMETERS = (
    "anneal_schedule", "annealing_time", "answer_mode", "auto_scale", "initial_state", "label", "max_answers", "num_reads",
    "programming_thermalization", "readout_thermalization", "reduce_intersample_correlation", "reinitialize_state",
)  # fmt: skip


def qpu(topology: Topology, size: int, *, defects: float, seed: int) -> dict[str, Any]:
    """A QPU with a working graph that has defects.

    Args:
        topology: of its qubits.
        size: parameter m of that topology; production devices are Zephyr 12 and Pegasus 16.
        defects: share of the qubits, and of the couplers among those left, that do not work.
        seed: of the defects.

    Returns:
        Identity, status, description, properties and load.

    Example:
        >>> device = qpu("zephyr", 2, defects=0.0, seed=0)
        >>> device["properties"]["topology"], len(device["properties"]["qubits"])
        ({'type': 'zephyr', 'shape': [2, 4]}, 160)
    """
    from dwave.cloud.testing import mocks

    make = mocks.qpu_zephyr_solver_data if topology == "zephyr" else mocks.qpu_pegasus_solver_data
    full = make(size)["properties"]
    properties = {
        **without(full, share_of_qubits=defects, share_of_couplers=0.1 * defects, seed=seed),
        **_RANGES[topology],
        "topology": full["topology"],
        "num_qubits": full["num_qubits"],
        "category": "qpu",
        "supported_problem_types": ["ising", "qubo"],
        "tags": ["loopback", "classical"],
        "chip_id": f"loopback-{topology}-{size}",
        "num_reads_range": [1, 10000],
        "annealing_time_range": [0.5, 2000.0],
        "default_annealing_time": 20.0,
        "problem_run_duration_range": [0.0, 1_000_000.0],
        "default_programming_thermalization": 1000.0,
        "default_readout_thermalization": 0.0,
        "max_anneal_schedule_points": 12,
        "quota_conversion_rate": 1,
        "problem_timing_data": timing_data(topology, int(full["num_qubits"])),
        "parameters": dict.fromkeys(_PARAMETERS, ""),
    }
    return {
        "identity": {"name": f"Loopback_{topology}{size}", "version": {"graph_id": graph_id(properties)}},
        "status": "ONLINE",
        "description": f"Loopback of a QPU: {CLASSICAL}.",
        "properties": properties,
        "avg_load": 0.0,
    }


def without(properties: dict[str, Any], *, share_of_qubits: float, share_of_couplers: float, seed: int) -> dict[str, Any]:
    """Qubits and couplers of `properties` less a random share of each."""
    rng = np.random.default_rng(seed)
    qubits = np.asarray(properties["qubits"])
    couplers = np.asarray(properties["couplers"]).reshape(-1, 2)
    dead = rng.choice(qubits, size=round(share_of_qubits * qubits.size), replace=False)
    works = ~np.isin(couplers, dead).any(axis=1) & (rng.random(len(couplers)) >= share_of_couplers)
    return {"qubits": np.setdiff1d(qubits, dead).tolist(), "couplers": couplers[works].tolist()}


def graph_id(properties: dict[str, Any]) -> str:
    """A name for a working graph that changes whenever the graph does."""
    text = repr((properties["qubits"], properties["couplers"])).encode()
    return hashlib.sha256(text).hexdigest()[:10]


def timing_data(topology: Topology, num_qubits: int) -> dict[str, Any]:
    """What `estimate_qpu_access_time` of the client reads."""
    from dwave.cloud.testing import mocks

    times = _TIMES[topology]
    logarithms = np.log10([1.0, float(num_qubits), times["readout_one"], times["readout_all"]])
    return {
        **mocks.qpu_problem_timing_data(),
        "typical_programming_time": times["programming"],
        "qpu_delay_time_per_sample": times["delay"],
        "readout_time_model": "pwl_log_log",
        "readout_time_model_parameters": logarithms.tolist(),
    }


def hybrid(kind: Literal["bqm", "cqm"]) -> dict[str, Any]:
    """A hybrid solver of whole models, of any graph."""
    from dwave.cloud.testing import mocks

    make = mocks.hybrid_bqm_solver_data if kind == "bqm" else mocks.hybrid_cqm_solver_data
    data = make(name=f"loopback_hybrid_{kind}", description=f"Loopback of a hybrid solver: {CLASSICAL}.")
    data["properties"]["tags"] = ["loopback", "classical"]
    data["avg_load"] = 0.0
    return data
