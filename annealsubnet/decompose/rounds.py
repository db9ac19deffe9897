"""Rounds: a problem solved part by part until no part improves it.

Block-coordinate descent: every part is minimized with the rest held at the present state, and its answer is taken only if
it lowers the energy of the part, which is the energy of the whole. So the energy never rises. Parts of one color are not
coupled to each other and are solved at the same time. Every round groups the variables anew, with strengths multiplied by
random factors, so that couplings cut in one round lie inside a part in another. A count is kept by exchanges inside parts,
and, between them, by exchanges over the whole problem that lower the energy. Where nothing improves any more the best state
may be shaken; parts are small beside what must change together to leave a minimum, so tabu search over the whole comes first.
"""

import time
from dataclasses import dataclass, replace
from typing import Any

import dimod
import numpy as np
import scipy.sparse
from jaxtyping import Bool

from annealsubnet.arguments import check_whole
from annealsubnet.decompose.decompose import decompose
from annealsubnet.decompose.decomposition import Decomposition, Part, checked_start
from annealsubnet.decompose.limits import Limits
from annealsubnet.problems import Problem
from annealsubnet.solvers import Annealer, solve
from annealsubnet.solvers.annealing import anneal
from annealsubnet.solvers.compiled import Energy, Groups
from annealsubnet.solvers.options import Options

# Parts above this size have too many couplings for square arrays; each is annealed by itself.
_LARGEST_SQUARE = 512
_VARIETY = 0.5
# Steps of the tabu search in a restart, in multiples of the units; each looks at all of them, so for more than so many units
# there is none.
_TABU_SWEEPS, _MOST_WALKED = 20, 20_000
# Above this many units the first state of a given count is not eliminated to (quadratic), but filled up.
_MOST_ELIMINATED = 4096


@dataclass(frozen=True)
class PartsSolution:
    """What rounds over parts found.

    Attributes:
        state: the state of lowest energy.
        energy: of it, in float64.
        energies: the lowest at the start, after each round, and after each search over the whole that lowers it.
        parts: how many parts were solved in all.
    """

    state: Bool[np.ndarray, "variables"]
    energy: float
    energies: tuple[float, ...]
    parts: int

    def __repr__(self) -> str:
        return f"PartsSolution(energy {self.energy:.6g} after {len(self.energies) - 1} rounds, {self.parts} parts)"


def solve_by_parts(
    problem: Problem,
    limits: Limits,
    sampler: dimod.Sampler | None = None,
    *,
    seed: int,
    rounds: int = 20,
    patience: int = 3,
    state: Any = None,
    overlap: int = 0,
    restarts: int = 0,
    time_limit: float | None = None,
    **options: Any,
) -> PartsSolution:
    """Solve a problem in parts that respect limits.

    Args:
        problem: of any size; a `num_kept` is met exactly.
        limits: of each part.
        sampler: any `dimod.Sampler` for the parts; by default the compiled annealer, all parts of a color in one call.
        seed: of everything random.
        rounds: most passes over all parts.
        patience: rounds without improvement after which no more follow.
        state: where to start; by default no unit, or, with a count, what greedy elimination keeps.
        overlap: variables that a part shares with its surroundings.
        restarts: how often the best state is shaken and improved again when no part improves it any more; without a count
            a tabu search over the whole problem comes first (up to 20,000 units).
        time_limit: seconds after which no further round begins; it gives up reproducibility.
        **options: of the sampler; for the default one `num_reads` and `num_sweeps`.

    Returns:
        The state found, and the energy after each round.

    Raises:
        TypeError, ValueError: for a seed, rounds, patience or restarts that are no whole numbers of at least 0.
        ValueError: for a state that does not keep the problem's count.

    Example:
        >>> ring = np.roll(np.eye(200), 1, axis=0)
        >>> problem = Problem(np.full(200, -1.0), 1.5 * (ring + ring.T))
        >>> found = solve_by_parts(problem, Limits(variables=50), seed=0)
        >>> found.energy == found.energies[-1] <= -96.0
        True
    """
    seed = check_whole("seed", seed, 0)
    for name, value in (("rounds", rounds), ("patience", patience), ("restarts", restarts)):
        check_whole(name, value, 0)
    start, deadline = time.perf_counter(), np.inf if time_limit is None else time_limit
    stored = replace(problem, couplings=scipy.sparse.csr_array(problem.couplings))
    present = _start(problem, state)
    best, best_energy = present, float(problem.energy(present))
    energies, solved, number = [best_energy], 0, 0
    for restart in range(restarts + 1):
        if restart:
            present = shaken(best, seed=seed + restart)
            if problem.num_kept is None and problem.size <= _MOST_WALKED:
                present = walked(problem, present, seed=seed + restart, time_limit=deadline - (time.perf_counter() - start))
                if (energy := float(problem.energy(present))) < best_energy:
                    best, best_energy = present, energy
                    energies.append(best_energy)
        least, waited, last = float(problem.energy(present)), 0, number + rounds
        while number < last and waited < patience and (number == 0 or time.perf_counter() - start < deadline):
            found = decompose(stored, limits, seed=seed + number, overlap=overlap, variety=_VARIETY if number else 0.0)
            present = _round(found, present, sampler, seed + 7919 * number, options)
            solved, number = solved + len(found), number + 1
            energy = float(problem.energy(present))
            waited = 0 if energy < least - 1e-12 * abs(least) else waited + 1
            least = energy
            if energy < best_energy:
                best, best_energy = present, energy
            energies.append(best_energy)
            if len(found) <= 1:
                break
        if time.perf_counter() - start >= deadline:
            break
    return PartsSolution(best, best_energy, tuple(energies), solved)


def _round(found: Decomposition, state: np.ndarray, sampler: Any, seed: int, options: dict[str, Any]) -> np.ndarray:
    """The state after every part was solved once, color by color."""
    problem = found.problem
    for color, batch in enumerate(found.batches):
        parts = found.chosen(batch, state)
        for part, answer in zip(parts, _answers(parts, sampler, seed + color, options), strict=True):
            state = _better(state, part, answer)
    return state if problem.num_kept is None else exchanged(problem, state, seed=seed)


def shaken(state: np.ndarray, *, seed: int) -> np.ndarray:
    """A state with the values of a random tenth of its variables shuffled among them; its count stays."""
    rng = np.random.default_rng(seed)
    chosen = rng.choice(state.size, -(-state.size // 10), replace=False)
    moved = state.copy()
    moved[chosen] = state[rng.permutation(chosen)]
    return moved


def exchanged(problem: Problem, state: np.ndarray, *, seed: int) -> np.ndarray:
    """A state after exchanges of a one and a zero, for as long as one lowers the energy; the count stays."""
    better = _improved(problem, Groups.one(problem.size, int(state.sum())), state, Options(num_sweeps=0), seed)
    return better if problem.energy(better) < problem.energy(state) else state


def walked(problem: Problem, state: np.ndarray, *, seed: int, time_limit: float) -> np.ndarray:
    """The best state that tabu search over the whole problem, whose count is free, finds from a state."""
    limit = None if np.isinf(time_limit) else max(time_limit, 1e-6)
    options = Options(num_sweeps=0, num_tabu_sweeps=_TABU_SWEEPS, time_limit=limit)
    return _improved(problem, Groups.none(problem.size), state, options, seed)


def _improved(problem: Problem, groups: Groups, state: np.ndarray, options: Options, seed: int) -> np.ndarray:
    energy = Energy(problem.linear, problem.couplings, problem.offset)
    return anneal(energy, groups, state.astype(np.int8)[None], options, seed).states[0] > 0


def _start(problem: Problem, state: Any) -> np.ndarray:
    if state is not None:
        return checked_start(state, problem)
    if problem.num_kept is None:
        return np.zeros(problem.size, np.bool_)
    if problem.size <= _MOST_ELIMINATED:
        from annealsubnet.solvers.greedy import eliminate

        return eliminate(problem).kept(problem.num_kept)
    first = np.zeros(problem.size, np.bool_)
    first[np.argsort(problem.linear, kind="stable")[: problem.num_kept]] = True
    return first


def _answers(parts: tuple[Part, ...], sampler: Any, seed: int, options: dict[str, Any]) -> list[np.ndarray]:
    """A state for each part."""
    if sampler is None and max(part.size for part in parts) <= _LARGEST_SQUARE:
        chosen = {"num_reads": 4, "num_sweeps": 200} | options
        counts = None if parts[0].num_kept is None else [part.num_kept for part in parts]
        samples = Annealer().sample_many(
            [part.linear for part in parts], [part.dense_couplings for part in parts], num_kept=counts, seed=seed, **chosen
        )
        return [state[: part.size] for state, part in zip(samples.best()[0], parts, strict=True)]
    return [solve(part.problem, sampler, seed=seed + number, **options).best for number, part in enumerate(parts)]


def _better(state: np.ndarray, part: Part, answer: np.ndarray) -> np.ndarray:
    """The state with the answer where that lowers the part's energy, else as it was."""
    before, after = part.energies(np.stack([state[part.variables], answer]))
    if not after < before:
        return state
    merged = state.copy()
    merged[part.variables] = answer
    return merged
