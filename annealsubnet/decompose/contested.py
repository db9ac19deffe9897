"""Contested variables: where a cheap local annealing disagrees with itself.

Most variables of a problem are decided: every good state sets them alike, and a quantum annealer can add nothing there. The
marginals p_i of quick anneals tell which are not; their entropy h_i = −p_i log₂ p_i − (1 − p_i) log₂ (1 − p_i) is 0 for a
decided variable and 1 for one that comes out either way. Parts are grown from the contested ones, by strengths
|couplings_ij| (h_i + h_j), and the rest is held at the best state found.
"""

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from jaxtyping import Bool, Float

from annealsubnet.decompose.decompose import decompose_chosen
from annealsubnet.decompose.decomposition import Decomposition, Part
from annealsubnet.decompose.limits import Limits
from annealsubnet.problems import Problem
from annealsubnet.solvers import Annealer


@dataclass(frozen=True)
class Contested:
    """What a cheap annealing decided, and parts of what it did not.

    Attributes:
        state: the best state that it found.
        energy: of that state.
        marginals: share of the anneals that keep each variable.
        entropy: of the marginals, in bits.
        decomposition: parts that hold the contested variables only, most contested first.

    Example:
        >>> pairs = np.kron(np.eye(3), np.array([[0.0, 2.0], [2.0, 0.0]]))
        >>> found = contested(Problem(np.array([-1.0, -1.0, -1.0, -1.0, -3.0, -0.5]), pairs), Limits(variables=2), seed=0)
        >>> found.energy, sorted(part.variables.tolist() for part in found.parts)
        (-5.0, [[0, 1], [2, 3]])
    """

    state: Bool[np.ndarray, "variables"]
    energy: float
    marginals: Float[np.ndarray, "variables"]
    entropy: Float[np.ndarray, "variables"]
    decomposition: Decomposition

    def __repr__(self) -> str:
        inside = self.decomposition.members.size
        return f"Contested({inside} of {self.state.size} variables in {len(self.decomposition)} parts, {self.energy:.6g})"

    @cached_property
    def parts(self) -> tuple[Part, ...]:
        """The parts, the rest held at the best state."""
        return self.decomposition.parts(self.state)


def contested(
    problem: Problem,
    limits: Limits,
    *,
    seed: int,
    num_reads: int = 64,
    num_sweeps: int = 100,
    least_entropy: float = 0.1,
) -> Contested:
    """Parts grown from the variables that a cheap annealing leaves open.

    Args:
        problem: of any size.
        limits: of each part.
        seed: of everything random.
        num_reads: anneals whose answers are compared.
        num_sweeps: of each.
        least_entropy: bits from which on a variable is contested; a tenth of a bit is 1 in 78.

    Returns:
        Marginals, the best state, and parts; none if nothing is contested.

    Raises:
        ValueError: for an entropy outside [0, 1].
    """
    if not 0 <= least_entropy <= 1:
        raise ValueError(f"least_entropy is in bits, from 0 to 1; it is {least_entropy}.")
    if problem.size == 0:
        nothing = np.zeros(0)
        found = decompose_chosen(problem, limits, np.zeros(0, np.int64), np.zeros(0), seed=seed)
        return Contested(nothing.astype(np.bool_), problem.offset, nothing, nothing, found)
    samples = Annealer().sample(
        problem.to_bqm(), num_reads=num_reads, num_sweeps=num_sweeps, num_kept=problem.num_kept, seed=seed
    )
    states = samples.record.sample > 0
    best = states[int(samples.record.energy.argmin())]
    marginals = states.mean(axis=0)
    entropy = bits(marginals)
    open_ones = np.flatnonzero((entropy >= least_entropy) & (entropy > 0))
    found = decompose_chosen(problem, limits, open_ones, entropy, seed=seed)
    return Contested(best, float(problem.energy(best)), marginals, entropy, found)


def bits(marginals: np.ndarray) -> np.ndarray:
    """Entropy of each marginal, in bits.

    Example:
        >>> bits(np.array([0.0, 0.5, 1.0])).tolist()
        [0.0, 1.0, 0.0]
    """
    both = np.stack([marginals, 1 - marginals])
    logarithms = np.log2(both, out=np.zeros_like(both), where=both > 0)
    return np.abs((both * logarithms).sum(axis=0))
