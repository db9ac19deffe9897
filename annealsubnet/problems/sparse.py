"""Sparse problems: only the couplings inside neighborhoods, the others folded into the linear terms.

A coupling that is dropped is replaced by its first-order form at a reference state x⁰ (the current mask),

    x_i x_j ≈ x_i x⁰_j + x⁰_i x_j − x⁰_i x⁰_j,

which keeps the energy at x⁰, and its change under every single flip of x⁰, exact.
"""

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import scipy.sparse
from jaxtyping import Bool

from annealsubnet.arguments import check_states
from annealsubnet.problems.problem import Problem


@dataclass(frozen=True)
class Sparsified:
    """A problem with bounded degree, and what the bound cost.

    Attributes:
        problem: with CSR couplings.
        share_kept: Σ |kept couplings| / Σ |couplings|, in [0, 1].
        degree: the largest number of couplings of a unit.
    """

    problem: Problem
    share_kept: float
    degree: int


def sparsify(problem: Problem, edges: Bool[np.ndarray, "units units"], *, at: Any) -> Sparsified:
    """Keep the couplings on `edges` and fold the others into the linear terms at the state `at`.

    Args:
        problem: with any couplings.
        edges: symmetric, from `strongest` or any other neighborhood.
        at: 0 or 1 for each unit: the state where the sparse energy, and its change under any one flip, equal the dense ones.

    Raises:
        ValueError: for what is no state of the problem.

    Example:
        >>> from annealsubnet.neighborhoods import strongest
        >>> dense = Problem(np.array([1.0, 1.0, 1.0]), np.array([[0, 3.0, 1], [3, 0, 2], [1, 2, 0]]))
        >>> sparse = sparsify(dense, strongest(dense.couplings, degree=1), at=np.array([True, False, True]))
        >>> sparse.share_kept, sparse.problem.energy(np.array([1, 0, 1])) == dense.energy(np.array([1, 0, 1]))
        (0.5, np.True_)
    """
    dense = problem.dense_couplings
    kept = np.where(edges, dense, 0.0)
    dropped = dense - kept
    state = check_states("at", at, problem.size).astype(np.float64)
    fields = dropped @ state
    sparse = replace(
        problem,
        linear=problem.linear + fields,
        couplings=scipy.sparse.csr_array(kept),
        offset=problem.offset - 0.5 * float(state @ fields),
    )
    total = float(np.abs(dense).sum())
    share = float(np.abs(kept).sum()) / total if total else 1.0
    return Sparsified(sparse, share, int((kept != 0).sum(1).max(initial=0)))
