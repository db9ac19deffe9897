"""Units of all sites at once: a second-order model of the network in its gates.

Around gates m (open, m = 1, to begin with) the loss, or the distance of the network from itself, is

    E(x) = E(m) + g·(x − m) + ½ (x − m)ᵀ G (x − m)

with g the gradient by the gates and G their Gauss-Newton matrix: it couples neurons within layers and across them. It holds
only near m: a ridge ρ, added to the diagonal of G, charges every flip and keeps the choice where the model may be trusted.
"""

from collections.abc import Mapping

import numpy as np
from jaxtyping import Float

from annealsubnet.arguments import check_weight
from annealsubnet.problems.problem import Problem


def gate_problem(
    sizes: Mapping[str, int],
    curvature: Float[np.ndarray, "units units"],
    *,
    gradient: Float[np.ndarray, "units"] | None = None,
    at: Float[np.ndarray, "units"] | None = None,
    value: float = 0.0,
    ridge: float = 0.0,
    num_kept: int | None = None,
) -> Problem:
    """The second-order model as a problem over the units of all sites, labeled `"<site>:<number>"`.

    Args:
        sizes: units of each site, in the order of the rows of `curvature`.
        curvature: G.
        gradient: g; zero by default. At a trained optimum the gradient of the loss, estimated from a few thousand examples, is
            noise, and including it was ruinous.
        at: m; open gates by default.
        value: E(m).
        ridge: ρ.
        num_kept: how many units an answer keeps, over all sites.

    Raises:
        TypeError, ValueError: for a ridge that is no finite number of at least 0.

    Example:
        >>> problem = gate_problem({"a": 2}, np.array([[2.0, 1.0], [1.0, 4.0]]))
        >>> problem.energy(np.array([[1, 1], [0, 1], [0, 0]])).tolist()
        [0.0, 1.0, 4.0]
    """
    check_weight("ridge", ridge)
    units = len(curvature)
    gradient = np.zeros(units) if gradient is None else gradient
    at = np.ones(units) if at is None else at
    matrix = 0.5 * (curvature + curvature.T) + ridge * np.eye(units)
    pull = matrix @ at
    couplings = matrix.copy()
    np.fill_diagonal(couplings, 0.0)
    linear = gradient - pull + np.diag(matrix) / 2
    offset = float(value - gradient @ at + at @ pull / 2)
    labels = tuple(f"{site}:{unit}" for site, size in sizes.items() for unit in range(size))
    return Problem(linear, couplings, offset, num_kept, labels)
