"""Jobs: Ising problems over qubits, each holding many parts, and how they are written and read.

A job is kept apart from the working graph that it was planned for: the same fields and couplings over the same qubits can be
written for another graph, as long as that still has those qubits and couplers.

A *spin-reversal transform* g ∈ {−1, 1}ⁿ sends h_i g_i and J_ij g_i g_j in place of h and J and multiplies the spins read by g.
The problem is the same; what a device does wrong on one side of a qubit or coupler averages out.

References:
    S. Boixo et al., "Evidence for quantum annealing with more than one hundred qubits", Nature Physics 10 (2014).
"""

import base64
import io
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import pairwise
from typing import Any

import numpy as np


@dataclass(frozen=True)
class Placement:
    """Where one part is in a job.

    Attributes:
        part: its number in the plan.
        chains: positions in the job's qubits; chain v stands for variable v of the part.
        scale: energies of the part times this are energies on the device.
        chain_strength: coupling that holds chains together, on the device.
    """

    part: int
    chains: tuple[np.ndarray, ...]
    scale: float
    chain_strength: float


@dataclass(frozen=True)
class Job:
    """One Ising problem over qubits.

    Attributes:
        qubits: used, ascending.
        fields: h of each.
        pairs: [couplers, 2], positions in `qubits`.
        couplings: J of each coupler.
        gauge: spin-reversal transform, −1 or 1 a qubit.
        placements: of its parts.
        params: of the solver (num_reads, annealing_time, ...).
        initial: spins to reverse-anneal from, 0 where there is none; empty without.
        seconds: predicted QPU access time.
    """

    qubits: np.ndarray
    fields: np.ndarray
    pairs: np.ndarray
    couplings: np.ndarray
    gauge: np.ndarray
    placements: tuple[Placement, ...]
    params: Mapping[str, Any]
    initial: np.ndarray = field(default_factory=lambda: np.zeros(0, np.int8))
    seconds: float = 0.0

    def __repr__(self) -> str:
        return f"Job({len(self.placements)} parts on {self.qubits.size} qubits, {1e3 * self.seconds:.1f} ms predicted)"

    def body(self, label: str, identity: Mapping[str, Any], properties: Mapping[str, Any]) -> dict[str, Any]:
        """The job in the service's form, for a solver as it is now.

        Raises:
            ValueError: the solver lacks qubits or couplers that the job uses (`on` leaves such parts out).
        """
        qubits, couplers = np.asarray(properties["qubits"]), np.asarray(properties["couplers"]).reshape(-1, 2)
        if not np.isin(self.qubits, qubits).all():
            raise ValueError("the job uses qubits that the solver does not have.")
        size = int(max(qubits.max(initial=0), self.qubits.max(initial=0))) + 1
        position = np.full(size, -1)
        position[self.qubits] = np.arange(self.qubits.size)
        linear = np.full(qubits.size, np.nan)
        linear[np.argsort(qubits)[np.searchsorted(qubits, self.qubits, sorter=np.argsort(qubits))]] = self.fields * self.gauge
        ends = np.sort(position[couplers], axis=1)
        ends = ends[(ends >= 0).all(axis=1)]
        flat = ends[:, 0] * self.qubits.size + ends[:, 1]
        order = np.argsort(flat, kind="stable")
        asked = np.sort(self.pairs, axis=1)
        wanted = asked[:, 0] * self.qubits.size + asked[:, 1]
        place = np.minimum(np.searchsorted(flat[order], wanted), max(flat.size - 1, 0))
        if wanted.size and (flat.size == 0 or (flat[order][place] != wanted).any()):
            raise ValueError("the job uses couplers that the solver does not have.")
        quadratic = np.zeros(flat.size)
        signs = self.gauge[self.pairs[:, 0]] * self.gauge[self.pairs[:, 1]]
        np.add.at(quadratic, order[place] if wanted.size else np.zeros(0, int), self.couplings * signs)
        params = dict(self.params)
        if self.initial.size:
            state = np.full(int(properties["num_qubits"]), 3)
            state[self.qubits] = np.where(self.initial == 0, 1, self.initial) * self.gauge
            params["initial_state"] = state.tolist()
        return {
            "solver": dict(identity),
            "label": label,
            "type": "ising",
            "params": params,
            "data": {"format": "qp", "lin": _text(linear), "quad": _text(quadratic), "offset": 0.0},
        }

    def on(self, properties: Mapping[str, Any]) -> "tuple[Job, tuple[int, ...]]":
        """The job without the parts that a changed working graph cannot hold any more.

        Returns:
            The job, and the numbers of the parts that were left out.
        """
        there = np.isin(self.qubits, np.asarray(properties["qubits"]))
        couplers = {(min(pair), max(pair)) for pair in np.asarray(properties["couplers"]).reshape(-1, 2).tolist()}
        ends = np.sort(self.qubits[self.pairs], axis=1)
        works = np.array([tuple(pair) in couplers for pair in ends.tolist()], dtype=bool)
        broken = ~there
        np.logical_or.at(broken, self.pairs[~works].ravel(), True)
        gone = [any(broken[chain].any() for chain in place.chains) for place in self.placements]
        kept = tuple(place for place, lost in zip(self.placements, gone, strict=True) if not lost)
        lost = tuple(place.part for place, lost in zip(self.placements, gone, strict=True) if lost)
        return (self, ()) if not lost else (self._only(kept), lost)

    def _only(self, placements: Sequence[Placement]) -> "Job":
        stays = np.zeros(self.qubits.size, bool)
        for place in placements:
            for chain in place.chains:
                stays[chain] = True
        position = np.cumsum(stays) - 1
        inside = stays[self.pairs].all(axis=1)
        return replace(
            self,
            qubits=self.qubits[stays],
            fields=self.fields[stays],
            pairs=position[self.pairs[inside]],
            couplings=self.couplings[inside],
            gauge=self.gauge[stays],
            initial=self.initial[stays] if self.initial.size else self.initial,
            placements=tuple(replace(place, chains=tuple(position[chain] for chain in place.chains)) for place in placements),
        )

    def spins(self, message: Mapping[str, Any]) -> tuple[np.ndarray, np.ndarray]:
        """Spins [states, qubits] of an answer, the gauge undone, and how often each state was seen.

        Raises:
            ValueError: the answer does not hold what was asked for.
        """
        from dwave.cloud.coders import decode_qp_numpy

        try:
            decoded = decode_qp_numpy({"type": message["type"], "answer": dict(message["answer"])}, return_matrix=True)
            solutions, counts = decoded["solutions"][:, self.qubits], np.asarray(decoded["num_occurrences"])
        except Exception as error:
            raise ValueError(f"the answer can't be decoded ({type(error).__name__}: {error})") from None
        if solutions.size and (np.abs(solutions) != 1).any():
            raise ValueError("the answer lacks spins of some of the job's qubits")
        if len(counts) != len(solutions):
            raise ValueError(f"the answer holds {len(solutions)} states and {len(counts)} counts")
        return solutions * self.gauge, counts


def packed(facts: Mapping[str, Any], arrays: Mapping[str, np.ndarray]) -> bytes:
    """Facts (anything JSON holds) and arrays as bytes; nothing in them can run when they are read."""
    buffer = io.BytesIO()
    text = np.frombuffer(json.dumps(facts, sort_keys=True).encode(), np.uint8)
    np.savez_compressed(buffer, facts=text, **dict(sorted(arrays.items())))  # type: ignore[arg-type]
    return buffer.getvalue()


def unpacked(content: bytes) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """What `packed` was given."""
    with np.load(io.BytesIO(content), allow_pickle=False) as file:
        arrays = {name: file[name] for name in file.files}
    return json.loads(arrays.pop("facts").tobytes()), arrays


def job_to_bytes(job: Job) -> bytes:
    """A job as it is kept in a ledger."""
    chains = [chain for place in job.placements for chain in place.chains]
    facts = {
        "params": dict(job.params),
        "seconds": job.seconds,
        "parts": [place.part for place in job.placements],
        "scales": [place.scale for place in job.placements],
        "strengths": [place.chain_strength for place in job.placements],
        "variables": [len(place.chains) for place in job.placements],
        "lengths": [int(chain.size) for chain in chains],
    }
    names = ("qubits", "fields", "pairs", "couplings", "gauge", "initial")
    flat = np.concatenate([*chains, np.zeros(0, np.int64)]).astype(np.int64)
    return packed(facts, {**{name: getattr(job, name) for name in names}, "chains": flat})


def job_from_bytes(content: bytes) -> Job:
    """The job that `job_to_bytes` was given."""
    facts, arrays = unpacked(content)
    ends = np.cumsum([0, *facts["lengths"]])
    chains = [arrays["chains"][begin:end] for begin, end in pairwise(ends)]
    firsts = np.cumsum([0, *facts["variables"]])
    placements = tuple(
        Placement(part, tuple(chains[firsts[number] : firsts[number + 1]]), scale, strength)
        for number, (part, scale, strength) in enumerate(zip(facts["parts"], facts["scales"], facts["strengths"], strict=True))
    )
    arrays.pop("chains")
    return Job(placements=placements, params=facts["params"], seconds=facts["seconds"], **arrays)


def _text(array: np.ndarray) -> str:
    return base64.b64encode(array.astype("<f8").tobytes()).decode("ascii")
