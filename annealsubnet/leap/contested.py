"""Contested variables: where a cheap local annealing does not agree with itself.

Over R short reads each variable has a marginal p_i, the share of reads that keep it. Where all reads agree, nothing is to be
gained; the others are contested, most of all those of the largest entropy −p log p − (1 − p) log(1 − p). Parts are grown from
these: each begins at the most contested variable that is left and takes in, one by one, whatever has the largest sum of
entropy and coupling to the part (each relative to its largest). The rest stays at the best read.
"""

import numpy as np

from annealsubnet.decompose import Limits
from annealsubnet.problems import Problem
from annealsubnet.solvers import Annealer

READS, SWEEPS = 32, 40
MOST_PARTS = 2
"""Of one problem: the entropies of a fan-in of hundreds of inputs are all but spent after two parts."""


def contested_parts(problem: Problem, limits: Limits, *, seed: int) -> tuple[np.ndarray, list[tuple[np.ndarray, Problem]]]:
    """The best state of a cheap annealing, and the parts that it leaves contested, folded at that state.

    Args:
        problem: larger than a part.
        limits: of a part; `variables` is read.
        seed: of the annealing.

    Returns:
        The state, and (positions in the problem, the part) for each part; none if all reads agree.

    Example:
        >>> sure = Problem(np.array([-5.0, 5.0, -5.0]), np.zeros((3, 3)))
        >>> state, parts = contested_parts(sure, Limits(variables=2), seed=0)
        >>> state.tolist(), parts
        ([True, False, True], [])
    """
    samples = Annealer().sample_many(
        [problem.linear], [problem.dense_couplings], num_kept=problem.num_kept, num_reads=READS, num_sweeps=SWEEPS, seed=seed
    )
    state = samples.best()[0][0]
    entropy = _entropy(samples.states[0].mean(axis=0))
    size = min(limits.variables or problem.size, problem.size)
    free = entropy > 0
    parts = []
    strength = np.abs(problem.dense_couplings)
    strength = strength / max(float(strength.max(initial=0.0)), 1e-300)
    while free.any() and len(parts) < MOST_PARTS:
        chosen = _grown(entropy / entropy.max(), strength, free, size)
        free[chosen] = False
        parts.append((chosen, folded(problem, chosen, state)))
    return state, parts


def _entropy(share: np.ndarray) -> np.ndarray:
    terms = np.stack([share, 1.0 - share])
    return -(terms * np.log(np.maximum(terms, 1e-300))).sum(axis=0)


def _grown(entropy: np.ndarray, strength: np.ndarray, free: np.ndarray, size: int) -> np.ndarray:
    """Positions of one part, rising."""
    left = free.copy()
    first = int(np.where(left, entropy, -1.0).argmax())
    chosen, reach = [first], strength[first].copy()
    left[first] = False
    while len(chosen) < size and left.any():
        following = int(np.where(left, entropy + reach, -1.0).argmax())
        chosen.append(following)
        reach += strength[following]
        left[following] = False
    return np.sort(np.array(chosen))


def folded(problem: Problem, variables: np.ndarray, state: np.ndarray) -> Problem:
    """A part of a problem, everything else held at `state`; its energy is that of the whole.

    Example:
        >>> whole = Problem(np.zeros(2), np.array([[0.0, 3.0], [3.0, 0.0]]))
        >>> folded(whole, np.array([0]), np.array([True, True])).energy(np.array([1]))
        np.float64(3.0)
    """
    outside = state.astype(np.float64)
    num_kept = None if problem.num_kept is None else int(state[variables].sum())
    outside[variables] = 0.0
    couplings = problem.couplings
    linear = problem.linear[variables] + np.asarray(couplings @ outside).ravel()[variables]
    inner = couplings[np.ix_(variables, variables)] if isinstance(couplings, np.ndarray) else couplings[variables][:, variables]
    labels = tuple(problem.names[variable] for variable in variables.tolist())
    return Problem(linear, inner, float(problem.energy(outside)), num_kept, labels)
