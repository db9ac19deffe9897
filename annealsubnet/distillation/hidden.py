"""Hidden neurons: the first of two layers, one neuron after the other, as binary quadratic models.

A block y ≈ Σ_k v_k max(z_k, 0), z_k = Σ_i w_ik x_ik a_i, is quadratic in the mask of its last layer, but not in that of its
first, for the nonlinearity stands between. While neuron k moves on its own, the error is, to Gauss-Newton's order, quadratic in
its mask: with the residual r = y − Σ_k v_k max(z_k, 0), the slope g = [z_k > 0], and δ the change of z_k,

    E_n ‖r − v_k (max(z_k + δ, 0) − max(z_k, 0))‖² ≈ E[‖r‖²] − 2 E[g (r·v_k) δ] + ‖v_k‖² E[g δ²],

again a model over the neuron's fan-in, with the second moment of the examples on which it is active. It is annealed, and taken
if the true error, nonlinearity and all, falls.

References:
    T. Whitaker, Quantum Neuron Selection, GECCO 2022 companion, section 4.1 (two layers for each teacher layer).
"""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float

from annealsubnet.distillation.anneal import Schedule, anneal_sums
from annealsubnet.distillation.sums import sums_of


@dataclass(frozen=True, eq=False)
class Hidden:
    """The examples and weights of a block of two layers.

    Attributes:
        inputs: `[n, i]`, what the first layer reads.
        targets: `[n, o]`, what the last should return, less its bias.
        weights: of the first layer.
        bias: of the first layer.
        outgoing: the weights of the last layer under its mask.
    """

    inputs: Float[np.ndarray, "examples fan_in"]
    targets: Float[np.ndarray, "examples outputs"]
    weights: Float[np.ndarray, "fan_in neurons"]
    bias: Float[np.ndarray, "neurons"]
    outgoing: Float[np.ndarray, "neurons outputs"]

    def returned(self, mask: Bool[np.ndarray, "fan_in neurons"]) -> Float[np.ndarray, "examples neurons"]:
        """max(z, 0) of every neuron."""
        return np.maximum(self.inputs @ (self.weights * mask) + self.bias, 0.0)

    def error(self, mask: Bool[np.ndarray, "fan_in neurons"]) -> float:
        """Mean squared error of the block, summed over outputs."""
        return float(np.square(self.targets - self.returned(mask) @ self.outgoing).sum(axis=1).mean())


def improve_hidden(
    hidden: Hidden, mask: Bool[np.ndarray, "fan_in neurons"], *, schedule: Schedule, seed: int
) -> Bool[np.ndarray, "fan_in neurons"]:
    """Anneal the fan-in of every neuron once, each keeping at most as many weights as it has; the error never rises.

    Args:
        hidden: the block.
        mask: of its first layer.
        schedule: how each neuron is cooled.
        seed: of the annealing.
    """
    mask = mask.copy()
    before = hidden.inputs @ (hidden.weights * mask) + hidden.bias
    residual = hidden.targets - np.maximum(before, 0.0) @ hidden.outgoing
    sizes = np.square(hidden.outgoing).sum(axis=1)
    for neuron in np.flatnonzero((sizes > 0) & mask.any(axis=0)):
        out, z = hidden.outgoing[neuron], before[:, neuron]
        found = _annealed(hidden, mask[:, neuron], z, residual @ out / sizes[neuron], int(neuron), schedule, seed)
        moved = hidden.inputs @ (hidden.weights[:, neuron] * found) + hidden.bias[neuron]
        changed = residual - (np.maximum(moved, 0.0) - np.maximum(z, 0.0))[:, None] * out
        if np.square(changed).sum() < np.square(residual).sum():
            mask[:, neuron], before[:, neuron], residual = found, moved, changed
    return mask


def _annealed(
    hidden: Hidden, kept: np.ndarray, z: np.ndarray, wanted: np.ndarray, neuron: int, schedule: Schedule, seed: int
) -> np.ndarray:
    """The fan-in of one neuron that moves z by what is wanted of it where it is active."""
    rows = hidden.inputs[z > 0]
    count = max(len(rows), 1)
    target = (z + wanted)[z > 0, None] - hidden.bias[neuron]
    sums = sums_of(
        hidden.weights[:, [neuron]], rows.T @ rows / count, rows.T @ target / count, np.square(target).sum(0) / count
    )
    own = np.random.SeedSequence([seed, neuron]).generate_state(1)[0]
    state = anneal_sums(sums, num_kept=int(kept.sum()), schedule=schedule, seed=int(own), num_threads=1)
    return sums.to_mask(state)[:, 0]
