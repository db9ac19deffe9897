"""Answers: from spins of qubits to states of parts.

A chain of qubits reads as one variable by majority; where its qubits disagree it is *broken*. A part whose count is fixed was
priced, so its reads have counts around the right one: those nearest are repaired by the flips that cost least, and all are then
polished, by exchanges where the count is fixed and by flips where it is not, until no move helps. Prices are found beforehand,
by bisection with the local annealer, so that no QPU time goes into the search for them.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from annealsubnet.leap.ising import normalized
from annealsubnet.leap.jobs import Placement
from annealsubnet.problems import Problem
from annealsubnet.solvers import Annealer
from annealsubnet.solvers.compiled import Energy
from annealsubnet.solvers.door import repair

CANDIDATES = 8
_BISECTIONS, _READS, _SWEEPS = 16, 8, 60


@dataclass(frozen=True)
class PartAnswer:
    """What a job said of one part.

    Attributes:
        part: its number in the plan.
        states: the best distinct states, after repair and polish; lowest energy first.
        energies: of these, as the part's own problem has them.
        read_energy: lowest among the reads as they came that have the right count; NaN if none has.
        chain_breaks: share of chains broken, over all reads.
        counts: least, mean and greatest number of ones in the reads.
        reads: how many there were.
    """

    part: int
    states: np.ndarray
    energies: np.ndarray
    read_energy: float
    chain_breaks: float
    counts: tuple[int, float, int]
    reads: int


def prices_of(problems: Sequence[Problem], *, seed: int) -> list[float]:
    """For each problem with a count, the price per kept unit at which the local annealer's answers have about that count.

    Example:
        >>> none = np.zeros((3, 3))
        >>> prices = prices_of([Problem(np.arange(3.0), none), Problem(np.arange(3.0), none, num_kept=1)], seed=0)
        >>> prices[0], -1.0 < prices[1] < 0.0
        (0.0, True)
    """
    chosen = [number for number, problem in enumerate(problems) if problem.num_kept is not None and problem.size]
    if not chosen:
        return [0.0] * len(problems)
    # A reach of one more than the biases, in their own unit: prices have the scale of the biases, whatever it is.
    scaled = [normalized(problems[number]) for number in chosen]
    couplings = [problem.dense_couplings for problem, _ in scaled]
    linear = [problem.linear for problem, _ in scaled]
    kept = np.array([int(problems[number].num_kept or 0) for number in chosen])
    reach = np.array(
        [float((np.abs(row) + np.abs(matrix).sum(1)).max()) + 1.0 for row, matrix in zip(linear, couplings, strict=True)]
    )
    low, high = -reach, reach.copy()
    for step in range(_BISECTIONS):
        middle = 0.5 * (low + high)
        priced = [row + price for row, price in zip(linear, middle, strict=True)]
        samples = Annealer().sample_many(priced, couplings, num_reads=_READS, num_sweeps=_SWEEPS, seed=seed + step)
        counts = samples.best()[0].sum(axis=1)
        # Both ends close in on a count that is met, so that the price lies in the middle of those that meet it.
        many = counts > kept
        if step % 2:
            many |= counts == kept
        low, high = np.where(many, middle, low), np.where(many, high, middle)
    prices = [0.0] * len(problems)
    for number, price, (_, unit) in zip(chosen, 0.5 * (low + high), scaled, strict=True):
        prices[number] = unit * float(price)
    return prices


def logical(placement: Placement, spins: np.ndarray) -> tuple[np.ndarray, float]:
    """States [reads, variables] of one part as booleans, and the share of its chains that are broken."""
    states = np.empty((len(spins), len(placement.chains)), bool)
    broken = 0.0
    for variable, chain in enumerate(placement.chains):
        total = spins[:, chain].sum(axis=1, dtype=np.int64)
        broken += float((np.abs(total) < chain.size).mean()) if len(spins) else 0.0
        states[:, variable] = np.where(total == 0, spins[:, chain[0]] > 0, total > 0)
    return states, broken / max(len(placement.chains), 1)


def part_answer(placement: Placement, problem: Problem, spins: np.ndarray, counts: np.ndarray, *, seed: int) -> PartAnswer:
    """The states of one part that a job found.

    Args:
        placement: of the part in the job.
        problem: the part, without its price.
        spins: [states, qubits of the job].
        counts: how often each state was read.
        seed: of the polish, whose moves come in random order.
    """
    states, broken = logical(placement, spins)
    ones = states.sum(axis=1)
    energies = problem.energy(states)
    found = candidates(problem, states, energies)
    polished = Annealer().sample_many(
        [problem.linear] * len(found),
        [problem.dense_couplings] * len(found),
        num_kept=problem.num_kept,
        num_sweeps=0,
        initial_states=found[:, None, :],
        seed=seed,
    )
    best = np.unique(np.concatenate([polished.states[:, 0], found]), axis=0)
    final = problem.energy(best)
    order = np.argsort(final, kind="stable")[:CANDIDATES]
    exact = energies if problem.num_kept is None else energies[ones == problem.num_kept]
    lowest = float(exact.min()) if exact.size else float("nan")
    spread = (int(ones.min()), float(np.average(ones, weights=counts)), int(ones.max()))
    return PartAnswer(placement.part, best[order], final[order], lowest, broken, spread, int(counts.sum()))


def candidates(problem: Problem, states: np.ndarray, energies: np.ndarray) -> np.ndarray:
    """The most promising distinct states, with the right count if there is one."""
    states, first = np.unique(states, axis=0, return_index=True)
    energies = energies[first]
    if problem.num_kept is None:
        return states[np.argsort(energies, kind="stable")[:CANDIDATES]]
    off = np.abs(states.sum(axis=1) - problem.num_kept)
    order = np.lexsort((energies, off))[: 2 * CANDIDATES]
    energy = Energy(problem.linear, problem.couplings, problem.offset)
    fixed = np.array([repair(energy, states[number], problem.num_kept) for number in order])
    return fixed[np.argsort(problem.energy(fixed), kind="stable")[:CANDIDATES]]
