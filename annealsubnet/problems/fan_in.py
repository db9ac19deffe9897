"""The weights of one neuron: which of its inputs to keep, when their weights are given.

Keeping the weights c ∘ x of a neuron y = w.a, x ∈ {0, 1}, costs

    E(x) = Σ_ij c_i c_j H_ij x_i x_j − 2 Σ_i b_i c_i x_i + E[y²],        H = E[a aᵀ],  b = E[a y]:

a binary quadratic model over the neuron's fan-in. Weights that are refitted: `annealsubnet.problems.exchanges`.
"""

import numpy as np
from jaxtyping import Float

from annealsubnet.problems.problem import Problem


def fan_in_problem(
    gram: Float[np.ndarray, "fan_in fan_in"],
    target: Float[np.ndarray, "fan_in"],
    weights: Float[np.ndarray, "fan_in"],
    *,
    target_energy: float,
    num_kept: int | None = None,
    name: str = "",
) -> Problem:
    """The choice of one neuron's weights as a problem.

    Args:
        gram: H.
        target: b of the neuron.
        weights: c of the neuron.
        target_energy: E[y²], so that the energy is the mean squared error of the weights c ∘ x.
        num_kept: how many inputs an answer keeps.
        name: of the neuron; variables are labeled `"<name>:<input>"`.

    Example:
        >>> gram, weights = np.array([[2.0, 1.0], [1.0, 2.0]]), np.array([1.0, -1.0])
        >>> problem = fan_in_problem(gram, gram @ weights, weights, target_energy=weights @ gram @ weights, num_kept=1)
        >>> problem.energy(np.array([[1, 1], [1, 0], [0, 0]])).tolist()
        [0.0, 2.0, 2.0]
    """
    couplings = 2.0 * weights[:, None] * weights[None, :] * gram
    linear = np.diag(couplings) / 2 - 2.0 * target * weights
    np.fill_diagonal(couplings, 0.0)
    labels = tuple(f"{name}:{number}" for number in range(len(target)))
    return Problem(linear, couplings, target_energy, num_kept, labels)
