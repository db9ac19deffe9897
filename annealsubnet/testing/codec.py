"""The `qp` codec: quadratic problems and their answers as the service encodes them.

A problem: `lin`, base64 of little-endian float64, one a working qubit, NaN where a qubit is not used; `quad`, one float64 a
coupler whose two qubits are both used, in the device's order, zeros included. An answer: rows of bits over the used qubits,
padded to whole bytes, most significant bit first, 0 for spin -1; energies in ascending order.
"""

import base64
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np


@dataclass(frozen=True)
class IsingProblem:
    """An Ising energy h·s + Σ J_ij s_i s_j over some qubits of a device.

    Attributes:
        qubits: those used, ascending in the device's order.
        fields: h of each.
        pairs: [couplers, 2], positions in `qubits`.
        couplings: J of each coupler.
        offset: constant that the conversion of a QUBO leaves. The sender's own offset is not in it: the client adds that.
    """

    qubits: np.ndarray
    fields: np.ndarray
    pairs: np.ndarray
    couplings: np.ndarray
    offset: float = 0.0


class Malformed(ValueError):
    """What was sent is no problem of this device."""


def _doubles(text: str) -> np.ndarray:
    return np.frombuffer(base64.b64decode(text), dtype="<f8")


def _text(array: np.ndarray) -> str:
    return base64.b64encode(array.tobytes()).decode("ascii")


def decode_problem(data: Mapping[str, Any], problem_type: str, properties: Mapping[str, Any]) -> IsingProblem:
    """The Ising problem in a job's data.

    Args:
        data: `format`, `lin`, `quad`, `offset`.
        problem_type: "ising" or "qubo". The client sends the diagonal of a QUBO as `lin` and the rest as `quad`.
        properties: of the device.

    Raises:
        Malformed: the arrays do not fit the device.
    """
    qubits, couplers = np.asarray(properties["qubits"]), np.asarray(properties["couplers"]).reshape(-1, 2)
    try:
        linear, quadratic = _doubles(data["lin"]), _doubles(data["quad"])
    except (KeyError, ValueError, TypeError) as error:
        raise Malformed(f"problem data can't be decoded: {error}") from None
    if linear.size != qubits.size:
        raise Malformed(f"lin has {linear.size} values; the device has {qubits.size} working qubits")
    used = ~np.isnan(linear)
    position = np.full(int(qubits.max(initial=0)) + 1, -1)
    position[qubits[used]] = np.arange(int(used.sum()))
    ends = position[couplers]
    inside = (ends >= 0).all(axis=1)
    if quadratic.size != int(inside.sum()):
        raise Malformed(f"quad has {quadratic.size} values; {int(inside.sum())} couplers have both qubits in use")
    coupled = quadratic != 0
    fields, pairs, couplings = linear[used], ends[inside][coupled], quadratic[coupled]
    offset = 0.0
    if problem_type == "qubo":
        fields, couplings, offset = _ising_of_qubo(fields, pairs, couplings)
    return IsingProblem(qubits[used], fields, pairs, couplings, offset)


def _ising_of_qubo(linear: np.ndarray, pairs: np.ndarray, quadratic: np.ndarray) -> tuple[np.ndarray, np.ndarray, float]:
    """x = (1 + s) / 2."""
    fields = linear / 2
    for column in (0, 1):
        fields = fields + np.bincount(pairs[:, column], quadratic / 4, minlength=linear.size)
    return fields, quadratic / 4, float(linear.sum() / 2 + quadratic.sum() / 4)


def encode_answer(
    spins: np.ndarray,
    energies: np.ndarray,
    qubits: np.ndarray,
    *,
    num_qubits: int,
    histogram: bool,
    max_answers: int | None,
    timing: Mapping[str, Any],
) -> dict[str, Any]:
    """An answer in the service's form.

    Args:
        spins: [reads, qubits used], -1 or 1.
        energies: of the reads.
        qubits: those used.
        num_qubits: of the device, working or not.
        histogram: equal states once, lowest energy first, with how often each was seen; else every read in its order.
        max_answers: most states to return.
        timing: in microseconds.
    """
    counts = np.ones(len(spins), dtype="<i4")
    if histogram:
        spins, first, seen = np.unique(spins, axis=0, return_index=True, return_counts=True)
        order = np.argsort(energies[first], kind="stable")
        spins, energies, counts = spins[order], energies[first][order], seen[order].astype("<i4")
    kept = slice(None if max_answers is None else int(max_answers))
    return {
        "format": "qp",
        "active_variables": _text(qubits.astype("<i4")),
        "energies": _text(energies[kept].astype("<f8")),
        "solutions": _text(np.packbits(spins[kept] > 0, axis=1)),
        "num_occurrences": _text(counts[kept]),
        "num_variables": num_qubits,
        "timing": dict(timing),
    }
