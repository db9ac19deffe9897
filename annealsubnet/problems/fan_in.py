"""The weights of one neuron: which of its inputs to keep.

Keeping the set S of a neuron's inputs and refitting their weights costs (best-subset regression)

    e(S) = E[y²] − b_Sᵀ H_SS⁻¹ b_S,        b = E[a y],

which is not quadratic in x. Around candidate weights c it has the surrogate

    E(x) = Σ_ij c_i c_j H_ij x_i x_j − 2 Σ_i b_i c_i x_i + E[y²],

the exact error of the weights c ∘ x: a binary quadratic model over the neuron's fan-in. Solve, refit, repeat: the candidates
are the refitted weights on S and, off S, the coordinate-optimal value r_j / H_jj with r = b − H v.
"""

import numpy as np
from jaxtyping import Bool, Float

from annealsubnet.problems.problem import Problem


def candidate_weights(
    gram: Float[np.ndarray, "fan_in fan_in"],
    targets: Float[np.ndarray, "fan_in outputs"],
    weights: Float[np.ndarray, "fan_in outputs"],
    kept: Bool[np.ndarray, "fan_in outputs"],
) -> Float[np.ndarray, "fan_in outputs"]:
    """The candidates c of every neuron of a layer.

    Args:
        gram: H, shared by the neurons.
        targets: b of each neuron.
        weights: v, refitted on the kept inputs.
        kept: S of each neuron.
    """
    residual = targets - gram @ (weights * kept)
    diagonal = np.diag(gram)
    alone = np.divide(residual, diagonal[:, None], out=np.zeros_like(residual), where=diagonal[:, None] > 0)
    return np.where(kept, weights, alone)


def fan_in_problem(
    gram: Float[np.ndarray, "fan_in fan_in"],
    target: Float[np.ndarray, "fan_in"],
    candidates: Float[np.ndarray, "fan_in"],
    *,
    target_energy: float,
    num_kept: int | None = None,
    name: str = "",
) -> Problem:
    """One neuron's surrogate as a problem.

    Args:
        gram: H.
        target: b of the neuron.
        candidates: c of the neuron.
        target_energy: E[y²], so that the energy is the mean squared error of the weights c ∘ x.
        num_kept: how many inputs an answer keeps.
        name: of the neuron; variables are labeled `"<name>:<input>"`.

    Example:
        >>> gram, weights = np.array([[2.0, 1.0], [1.0, 2.0]]), np.array([1.0, -1.0])
        >>> problem = fan_in_problem(gram, gram @ weights, weights, target_energy=weights @ gram @ weights, num_kept=1)
        >>> problem.energy(np.array([[1, 1], [1, 0], [0, 0]])).tolist()
        [0.0, 2.0, 2.0]
    """
    couplings = 2.0 * candidates[:, None] * candidates[None, :] * gram
    linear = np.diag(couplings) / 2 - 2.0 * target * candidates
    np.fill_diagonal(couplings, 0.0)
    labels = tuple(f"{name}:{number}" for number in range(len(target)))
    return Problem(linear, couplings, target_energy, num_kept, labels)
