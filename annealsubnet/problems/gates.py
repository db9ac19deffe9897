"""Units of all sites at once: what closing their gates costs the loss.

With c = mean gradient of the loss by the gates and G their Gauss-Newton matrix, both at open gates, the loss with gates x is

    L(x) ≈ L(1) − c·(1 − x) + ½ (1 − x)ᵀ G (1 − x)

and couples neurons across layers. It holds only near x = 1: a ridge ρ (added to the diagonal of G) keeps the choice where the
model may be trusted. At a trained optimum the gradient estimated from a few thousand examples is noise; leave it out there.
"""

from collections.abc import Mapping

import numpy as np
from jaxtyping import Float

from annealsubnet.problems.problem import Problem


def gate_problem(
    sizes: Mapping[str, int],
    curvature: Float[np.ndarray, "units units"],
    *,
    gradient: Float[np.ndarray, "units"] | None = None,
    ridge: float = 0.0,
    num_kept: int | None = None,
) -> Problem:
    """The second-order model of the loss as a problem over the units of all sites.

    Args:
        sizes: units of each site, in the order of the rows of `curvature`.
        curvature: G.
        gradient: c; left out by default.
        ridge: ρ.
        num_kept: how many units an answer keeps, over all sites.

    Example:
        >>> problem = gate_problem({"a": 2}, np.array([[2.0, 1.0], [1.0, 4.0]]))
        >>> problem.energy(np.array([[1, 1], [0, 1], [0, 0]])).tolist()
        [0.0, 1.0, 4.0]
    """
    gradient = np.zeros(len(curvature)) if gradient is None else gradient
    matrix = 0.5 * (curvature + curvature.T) + ridge * np.eye(len(curvature))
    couplings = matrix.copy()
    np.fill_diagonal(couplings, 0.0)
    linear = gradient - matrix.sum(1) + np.diag(matrix) / 2
    offset = float(matrix.sum() / 2 - gradient.sum())
    labels = tuple(f"{site}:{unit}" for site, size in sizes.items() for unit in range(size))
    return Problem(linear, couplings, offset, num_kept, labels)
