"""Sampling in place of a quantum processor: simulated annealing at a temperature, with noise.

A device applies its fields and couplings only to some precision (its integrated control errors), anneals, and reads spins out
with errors of their own. Here h and J are scaled to the device's ranges, perturbed by Gaussian noise, annealed by
`annealsubnet.Annealer` from hot down to the device's temperature, and read with rare flips: so chains of coupled qubits break
as they do on hardware, and low energies are found often but not always. None of it is quantum.
"""

import io
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import dimod
import numpy as np
from dimod.serialization.fileview import load

from annealsubnet.solvers import Annealer
from annealsubnet.testing.codec import IsingProblem, Malformed

SWEEPS_A_MICROSECOND = 10
_SWEEPS = (20, 400)


@dataclass(frozen=True)
class Noise:
    """How far the simulated device is from an ideal one.

    Attributes:
        temperature: in units of the largest regular coupling, J = 1.
        fields: standard deviation of the error of h, in units of h.
        couplings: standard deviation of the error of J.
        readout: probability that a spin is read wrongly.
    """

    temperature: float = 0.1
    fields: float = 0.02
    couplings: float = 0.01
    readout: float = 0.001


def scaled(problem: IsingProblem, properties: Mapping[str, Any], *, auto_scale: bool) -> tuple[np.ndarray, np.ndarray]:
    """h and J as they are applied.

    Raises:
        Malformed: they are out of range and `auto_scale` is off.
    """
    coupling_range = properties.get("extended_j_range") or properties["j_range"]
    factors = [_excess(problem.fields, properties["h_range"]), _excess(problem.couplings, coupling_range)]
    excess = max(factors)
    if not auto_scale:
        if excess > 1 + 1e-9:
            name, bounds = ("h", properties["h_range"]) if factors[0] > 1 + 1e-9 else ("J", coupling_range)
            raise Malformed(f"{name} has values outside of the range {bounds}; auto_scale is off")
        return problem.fields, problem.couplings
    return (problem.fields / excess, problem.couplings / excess) if excess > 0 else (problem.fields, problem.couplings)


def _excess(values: np.ndarray, bounds: Any) -> float:
    low, high = bounds
    return max(float(values.max(initial=0.0)) / high, float(values.min(initial=0.0)) / low, 0.0)


def sample_ising(
    problem: IsingProblem, properties: Mapping[str, Any], params: Mapping[str, Any], *, noise: Noise, seed: int
) -> tuple[np.ndarray, np.ndarray]:
    """Spins [reads, qubits] and their energies in the problem's own units."""
    fields, couplings = scaled(problem, properties, auto_scale=bool(params.get("auto_scale", True)))
    rng = np.random.default_rng(seed)
    fields = fields + noise.fields * rng.normal(size=fields.size)
    couplings = couplings + noise.couplings * rng.normal(size=couplings.size)
    model = dimod.BinaryQuadraticModel.from_numpy_vectors(
        fields, (problem.pairs[:, 0], problem.pairs[:, 1], couplings), 0.0, dimod.SPIN, variable_order=range(fields.size)
    )
    options = _schedule(problem, properties, params, noise=noise)
    answer = Annealer().sample(
        model, num_reads=int(params.get("num_reads", 1)), state="last", num_threads=1, seed=seed % 2**31, **options
    )
    columns = [answer.variables.index(number) for number in range(fields.size)]
    spins = answer.record.sample[:, columns].astype(np.int8)
    spins = np.where(rng.random(spins.shape) < noise.readout, -spins, spins)
    pairs = spins[:, problem.pairs[:, 0]] * spins[:, problem.pairs[:, 1]]
    return spins, problem.offset + spins @ problem.fields + pairs @ problem.couplings


def _schedule(
    problem: IsingProblem, properties: Mapping[str, Any], params: Mapping[str, Any], *, noise: Noise
) -> dict[str, Any]:
    """Sweeps, inverse temperatures and, for reverse annealing, the states to start from."""
    cold = 1.0 / noise.temperature
    schedule = params.get("anneal_schedule")
    length = schedule[-1][0] if schedule else params.get("annealing_time", properties["default_annealing_time"])
    sweeps = int(np.clip(SWEEPS_A_MICROSECOND * float(length), *_SWEEPS))
    if not params.get("initial_state"):
        return {"num_sweeps": sweeps, "beta_range": (0.05 * cold, cold)}
    # Reverse annealing goes back to the least s of its schedule, where thermal motion stands in for the transverse field.
    turning = min(point[1] for point in schedule) if schedule else 0.5
    state = np.asarray(params["initial_state"], np.int8)[problem.qubits]
    hot = max(float(turning), 0.05) ** 2 * cold
    start = np.where(state == 1, 1, -1).astype(np.int8)
    given = (start[None, :], list(range(start.size)))
    return {"num_sweeps": sweeps, "beta_range": (hot, cold), "initial_states": given, "initial_states_generator": "tile"}


def sample_model(encoded: bytes, *, seed: int) -> dimod.SampleSet:
    """Sample an uploaded binary or constrained quadratic model.

    Raises:
        Malformed: it is neither.
    """
    try:
        model = load(io.BytesIO(encoded))
    except Exception as error:
        raise Malformed(f"the uploaded model can't be read: {error}") from None
    if isinstance(model, dimod.BinaryQuadraticModel):
        return Annealer().sample(model, num_reads=8, num_sweeps=500, num_threads=1, seed=seed % 2**31)
    if isinstance(model, dimod.ConstrainedQuadraticModel):
        return _sample_constrained(model, seed=seed)
    raise Malformed(f"the uploaded model is a {type(model).__name__}; this server solves BQMs and CQMs")


def _sample_constrained(model: dimod.ConstrainedQuadraticModel, *, seed: int) -> dimod.SampleSet:
    """Counts are kept exactly, by exchanges; any other constraint by a penalty."""
    groups = _counts(model)
    if groups is not None:
        energy = dimod.BinaryQuadraticModel(model.objective.linear, model.objective.quadratic, model.objective.offset, "BINARY")
        found = Annealer().sample(energy, num_reads=8, num_sweeps=500, num_threads=1, seed=seed % 2**31, groups=groups)
        states: Any = (found.record.sample, list(found.variables))
    else:
        penalized, invert = dimod.cqm_to_bqm(model)
        found = Annealer().sample(penalized, num_reads=8, num_sweeps=500, num_threads=1, seed=seed % 2**31)
        states = [invert(dict(sample)) for sample in found.samples()]
    return dimod.SampleSet.from_samples_cqm(states, model)


def _counts(model: dimod.ConstrainedQuadraticModel) -> list[tuple[list[Any], int]] | None:
    """The constraints as disjoint groups of binary variables with exact counts, if that is what they are."""
    groups: list[tuple[list[Any], int]] = []
    seen: set[Any] = set()
    for constraint in model.constraints.values():
        left = constraint.lhs
        rhs = constraint.rhs - left.offset
        counts = constraint.sense is dimod.sym.Sense.Eq and left.is_linear() and set(left.linear.values()) <= {1.0}
        if not counts or rhs != int(rhs) or seen & set(left.variables):
            return None
        seen |= set(left.variables)
        groups.append((list(left.variables), int(rhs)))
    binary = all(model.vartype(variable) is dimod.BINARY for variable in model.variables)
    return groups if binary else None
