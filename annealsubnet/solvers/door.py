"""One door to every sampler: `solve` takes any `dimod.Sampler` and returns the best distinct states as arrays.

A sampler that can keep a count exactly (one with the option `num_kept`, as `Annealer` has) is asked to. For all others
the count is met by a *price* λ: E(x) + λ Σ_i x_i changes linear biases only, its minimizers keep ever fewer variables as
λ rises, and so λ is moved until the count is met (`annealsubnet.solvers.prices`). A squared penalty (Σ_i x_i - k)² would
do it in one call, but it couples every pair of variables. Counts that no price reaches (E is not convex along the count)
are repaired by the single flips that cost least, and every answer is then polished by exchanges.
"""

import inspect
import secrets
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import dimod
import numpy as np
from jaxtyping import Bool, Float

from annealsubnet.arguments import check_whole
from annealsubnet.problems import Problem
from annealsubnet.solvers.annealer import Annealer
from annealsubnet.solvers.options import refuse_unknown
from annealsubnet.solvers.prices import is_on_hull, next_price

# This many prices at most; about log₂ n are needed.
_PRICES = 20
_STATES_A_PRICE = 16


@dataclass(frozen=True)
class Solution:
    """The best distinct states of a problem, lowest energy first.

    Attributes:
        states: whether each variable is one, in the order of the problem's variables.
        energies: their energies, in float64.
        variables: labels of the columns of `states`.
        calls: how often the sampler was called.
        info: what the sampler reported of its last call.
    """

    states: Bool[np.ndarray, "states variables"]
    energies: Float[np.ndarray, "states"]
    variables: tuple[Any, ...]
    calls: int
    info: dict[str, Any]

    def __repr__(self) -> str:
        lowest = f", lowest energy {self.energies[0]:.6g}" if self.energies.size else ""
        return f"Solution({len(self.states)} states of {len(self.variables)} variables{lowest})"

    @property
    def best(self) -> Bool[np.ndarray, "variables"]:
        """The state of lowest energy."""
        return self.states[0]


def solve(
    problem: Problem | dimod.BinaryQuadraticModel,
    sampler: dimod.Sampler | None = None,
    *,
    seed: int | None,
    num_kept: int | None = None,
    **options: Any,
) -> Solution:
    """Solve a problem with any dimod sampler.

    Args:
        problem: a `Problem`, or a binary quadratic model.
        sampler: `Annealer()` if None; `dwave.samplers.SimulatedAnnealingSampler()`, `TabuSampler()`,
            `TreeDecompositionSolver()`, `dimod.ExactSolver()`, `neal.SimulatedAnnealingSampler()` and every other one.
        seed: passed on if the sampler takes one; drawn if None.
        num_kept: exactly how many variables are one; by default the problem's own `num_kept`.
        **options: the sampler's own options, checked against `sampler.parameters`.

    Returns:
        The best distinct states; with `num_kept`, every one of them has exactly that many ones.

    Raises:
        TypeError: for an option that the sampler does not have.
        ValueError: for a count that the problem cannot meet, and a sampler that returns nothing.

    Example:
        >>> import dimod
        >>> problem = Problem(np.array([-3.0, -2.0, -1.0]), np.zeros((3, 3)), num_kept=2)
        >>> solve(problem, dimod.ExactSolver(), seed=0).best.tolist()
        [True, True, False]
        >>> solve(problem, dimod.ExactSolver(), seed=0, num_reads=3)
        Traceback (most recent call last):
        ...
        TypeError: ExactSolver has no option 'num_reads'; it has none.
    """
    sampler = Annealer() if sampler is None else sampler
    refuse_unknown(type(sampler).__name__, options, sampler.parameters)
    bqm = problem.to_bqm() if isinstance(problem, Problem) else problem
    if num_kept is None and isinstance(problem, Problem):
        num_kept = problem.num_kept
    if num_kept is not None and not 0 <= (num_kept := check_whole("num_kept", num_kept)) <= bqm.num_variables:
        raise ValueError(f"num_kept must be from 0 to the {bqm.num_variables} variables; it is {num_kept}.")
    seed = secrets.randbits(31) if seed is None else check_whole("seed", seed)
    if takes_seed(sampler):
        options["seed"] = seed % 2**31
    if num_kept is None or "num_kept" in sampler.parameters or bqm.num_variables == 0:
        if num_kept is not None and "num_kept" in sampler.parameters:
            options["num_kept"] = num_kept
        sampleset = sampler.sample(bqm, **options)
        return _solution(bqm, _states(sampleset, bqm), 1, sampleset.info)
    return _solve_by_price(bqm, sampler, num_kept, seed, options)


def solve_all(
    problems: Sequence[Problem], sampler: dimod.Sampler | None = None, *, seeds: Sequence[int], **options: Any
) -> list[np.ndarray]:
    """The best state of each of many problems.

    A sampler with a method `sample_problems` (one that can put many problems into one call, as `annealsubnet.leap.LeapSampler`
    does on a QPU) is given all of them at once; others solve one after the other, as `solve` does.

    Args:
        problems: with or without a count.
        sampler: as in `solve`.
        seeds: one a problem; of a single call the first counts.
        **options: the sampler's own.

    Returns:
        One boolean state a problem.

    Example:
        >>> import dimod
        >>> problems = [Problem(np.array([-1.0, -2.0]), np.zeros((2, 2)), num_kept=1)] * 2
        >>> [state.tolist() for state in solve_all(problems, dimod.ExactSolver(), seeds=(0, 1))]
        [[False, True], [False, True]]
    """
    together = getattr(sampler, "sample_problems", None)
    if together is not None and problems:
        states, _ = together(problems, seed=int(seeds[0]) % 2**31, **options)
        return [np.asarray(state, np.bool_) for state in states]
    return [solve(problem, sampler, seed=seed, **options).best for problem, seed in zip(problems, seeds, strict=True)]


def takes_seed(sampler: dimod.Sampler) -> bool:
    """Whether a sampler has the option `seed`."""
    return "seed" in sampler.parameters or "seed" in inspect.signature(sampler.sample).parameters


def _solve_by_price(
    bqm: dimod.BinaryQuadraticModel, sampler: dimod.Sampler, num_kept: int, seed: int, options: dict[str, Any]
) -> Solution:
    from annealsubnet.solvers.compiled import energy_of

    energy = energy_of(bqm)
    ends = np.array([np.zeros(bqm.num_variables, bool), np.ones(bqm.num_variables, bool)])
    least = dict(zip((0, bqm.num_variables), energy.of(ends).tolist(), strict=True))
    found, calls, info, price = [], 0, {}, 0.0
    for _ in range(_PRICES):
        price = next_price(least, num_kept)
        sampleset = sampler.sample(_priced(bqm, price), **options)
        calls, info = calls + 1, dict(sampleset.info)
        states = np.unique(_states(sampleset, bqm), axis=0)
        counts, energies = states.sum(axis=1), energy.of(states)
        priced = energies + price * counts
        found.append(states[np.lexsort((priced, np.abs(counts - num_kept)))[:_STATES_A_PRICE]])
        first = int(priced.argmin())
        count, lowest = int(counts[first]), float(energies[first])
        if count == num_kept or is_on_hull(least, price, count, lowest):
            break
        for ones, value in zip(counts.tolist(), energies.tolist(), strict=True):
            least[ones] = min(value, least.get(ones, np.inf))
    states = np.unique(np.concatenate(found), axis=0)
    near = np.argsort(np.abs(states.sum(axis=1) - num_kept), kind="stable")[: 4 * _STATES_A_PRICE]
    repaired = np.array([repair(energy, state, num_kept) for state in states[near]])
    is_spin = bqm.vartype is dimod.SPIN
    polished = Annealer().sample(
        bqm,
        initial_states=(repaired.astype(np.int8) * (2 if is_spin else 1) - is_spin, list(bqm.variables)),
        num_sweeps=0,
        num_kept=num_kept,
        seed=seed,
    )
    return _solution(bqm, _states(polished, bqm), calls, info | {"price": price})


def _priced(bqm: dimod.BinaryQuadraticModel, price: float) -> dimod.BinaryQuadraticModel:
    """A model with a price on every variable that is one."""
    vectors = bqm.to_numpy_vectors(variable_order=list(bqm.variables))
    linear = np.asarray(vectors.linear_biases, np.float64) + (0.5 if bqm.vartype is dimod.SPIN else 1.0) * price
    return dimod.BinaryQuadraticModel.from_numpy_vectors(
        linear, vectors.quadratic, float(vectors.offset), bqm.vartype, variable_order=list(bqm.variables)
    )


def repair(energy: Any, state: np.ndarray, num_kept: int) -> np.ndarray:
    """A state with exactly `num_kept` ones, by the single flips that raise the energy least, one after the other."""
    state = state.astype(np.bool_)
    fields = energy.linear + energy.couplings @ state.astype(np.float64)
    missing = num_kept - int(state.sum())
    sign = 1.0 if missing > 0 else -1.0
    for _ in range(abs(missing)):
        costs = np.where(state == (missing < 0), sign * fields, np.inf)
        flip = int(costs.argmin())
        state[flip] = missing > 0
        row = energy.couplings[[flip]]
        fields = fields + sign * (row.toarray() if hasattr(row, "toarray") else row).ravel()
    return state


def _states(sampleset: dimod.SampleSet, bqm: dimod.BinaryQuadraticModel) -> np.ndarray:
    """The samples as booleans, their columns in the order of the model's variables.

    Raises:
        ValueError: if there is none.
    """
    if not len(sampleset):
        raise ValueError("the sampler returned no sample; solve needs one that returns a state of the model at least.")
    columns = [sampleset.variables.index(variable) for variable in bqm.variables]
    return sampleset.record.sample[:, columns] > 0


def _solution(bqm: dimod.BinaryQuadraticModel, states: np.ndarray, calls: int, info: dict[str, Any]) -> Solution:
    from annealsubnet.solvers.compiled import energy_of

    states = np.unique(states, axis=0)
    energies = energy_of(bqm).of(states)
    order = np.argsort(energies, kind="stable")
    return Solution(states[order], energies[order], tuple(bqm.variables), calls, dict(info))
