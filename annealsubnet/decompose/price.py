"""A count without a clique: a price for every unit kept.

Where a sampler keeps no count by itself, as a quantum annealer does not, (Σ_i x_i − k)² would couple every pair of
variables. A price λ changes linear terms only,

    E(x) + λ Σ_i x_i,

and its minimizers keep ever fewer units as λ rises. So λ is narrowed down until the sampled counts lie on both sides of k;
what came nearest is repaired by the single flips that cost least, and polished by exchanges. Several prices are asked at
once, because several problems fit into one job.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from jaxtyping import Bool

from annealsubnet.arguments import check_whole
from annealsubnet.decompose.rounds import exchanged
from annealsubnet.problems import Problem
from annealsubnet.solvers.compiled import energy_of
from annealsubnet.solvers.door import repair

# This many states nearest to the count, per price, are repaired and polished.
_REPAIRED = 8


@dataclass(frozen=True)
class PriceSolution:
    """The best state with the count asked for.

    Attributes:
        state: which units are kept.
        energy: of the problem itself, without price.
        price: at which the counts were nearest.
        counts: (price, least, mean and greatest count sampled) of every price asked, in the order asked.
        exact: whether the state's count was sampled, before any repair.
    """

    state: Bool[np.ndarray, "variables"]
    energy: float
    price: float
    counts: tuple[tuple[float, int, float, int], ...]
    exact: bool

    def __repr__(self) -> str:
        return f"PriceSolution(keeps {int(self.state.sum())}, energy {self.energy:.6g}, {len(self.counts)} prices)"


def priced(problem: Problem, price: float) -> Problem:
    """The problem with a price for each unit kept, and no count.

    Example:
        >>> priced(Problem(np.array([-1.0, -2.0]), np.zeros((2, 2)), num_kept=1), 1.5)
        Problem(2 units, 0 couplings, keeps any number)
    """
    return replace(problem, linear=problem.linear + price, num_kept=None)


def solve_by_price(
    problem: Problem,
    sample: Callable[[Sequence[Problem]], Sequence[Any]],
    *,
    seed: int,
    prices: int = 4,
    rounds: int = 8,
) -> PriceSolution:
    """Meet a problem's count with a sampler that cannot.

    Args:
        problem: with a `num_kept`.
        sample: from problems without count to states of each, 0 or 1, `[reads, units]`.
        seed: of the exchanges.
        prices: how many are asked at once.
        rounds: most calls of `sample`.

    Returns:
        A state with exactly `num_kept` units.

    Raises:
        ValueError: for a problem without `num_kept`, states that do not fit it, or no price or round.

    Example:
        >>> from annealsubnet.solvers import solve
        >>> problem = Problem(np.array([-3.0, -2.0, -1.0]), np.zeros((3, 3)), num_kept=2)
        >>> sample = lambda problems: [solve(one, seed=0).states for one in problems]
        >>> solve_by_price(problem, sample, seed=0).state.tolist()
        [True, True, False]
    """
    if problem.num_kept is None:
        raise ValueError("the problem keeps any number; give it a num_kept, or solve it without a price.")
    prices, rounds = check_whole("prices", prices, 1), check_whole("rounds", rounds, 1)
    wanted = problem.num_kept
    reach = np.abs(problem.linear) + np.asarray(abs(problem.couplings).sum(axis=1)).ravel()
    low, high = -float(reach.max(initial=0.0)) - 1.0, float(reach.max(initial=0.0)) + 1.0
    seen: list[tuple[float, np.ndarray]] = []
    for number in range(rounds):
        asked = _spread(low, high, prices, first=number == 0)
        answers = [_states(states, problem.size) for states in sample([priced(problem, price) for price in asked])]
        seen += list(zip(asked, answers, strict=True))
        means = [float(states.sum(1).mean()) for states in answers]
        if any(states.sum(1).min() <= wanted <= states.sum(1).max() for states in answers):
            break
        low = max([low, *(price for price, mean in zip(asked, means, strict=True) if mean > wanted)])
        high = min([high, *(price for price, mean in zip(asked, means, strict=True) if mean < wanted)])
    return _best(problem, seen, seed)


def _spread(low: float, high: float, count: int, *, first: bool) -> list[float]:
    """Prices strictly between two; the first time also 0, where the answer often is near."""
    inside = np.linspace(low, high, count + 2)[1:-1]
    if first and count > 1:
        inside[np.abs(inside).argmin()] = 0.0
    return inside.tolist()


def _states(states: Any, size: int) -> np.ndarray:
    found = np.asarray(states) > 0
    if found.ndim != 2 or found.shape[1] != size or not len(found):
        raise ValueError(f"sample must return states of {size} units, [reads, units]; it returned {np.shape(states)}.")
    return found


def _best(problem: Problem, seen: list[tuple[float, np.ndarray]], seed: int) -> PriceSolution:
    """Repair and polish what came nearest to the count, and keep the lowest energy."""
    wanted = int(problem.num_kept or 0)
    energy = energy_of(problem.to_bqm()) if problem.size else None
    least: tuple[float, float, bool, np.ndarray] | None = None
    for price, states in seen:
        away = np.abs(states.sum(1) - wanted)
        order = np.lexsort((problem.energy(states), away))[:_REPAIRED]
        for state in np.unique(states[order], axis=0):
            fixed = repair(energy, state, wanted) if problem.size else state
            polished = exchanged(problem, fixed, seed=seed) if 0 < wanted < problem.size else fixed
            value = float(problem.energy(polished))
            if least is None or value < least[0]:
                least = value, price, int(state.sum()) == wanted, polished
    assert least is not None
    counts = tuple((price, int(s.sum(1).min()), float(s.sum(1).mean()), int(s.sum(1).max())) for price, s in seen)
    return PriceSolution(least[3], least[0], least[1], counts, least[2])
