"""Sums: a neuron put together from random weights, as a binary quadratic model over its fan-in.

A neuron that reads the inputs a ∈ R^d and has random weights w keeps some of them, x ∈ {0, 1}^d, to return what another one
returns, y. No nonlinearity stands between its weights and its sum, so the mean squared error is exactly quadratic:

    E(x) = E_n (y − Σ_i w_i x_i a_i)² + λ Σ_i x_i = E[y²] − 2 bᵀ(w ∘ x) + (w ∘ x)ᵀ H (w ∘ x) + λ Σ_i x_i

with H = E[a aᵀ] of all neurons of the layer, b = E[a y] of each and λ the price of a weight. Inputs that are proportional to
each other, such as the copies a_i = s_i a_g of an input that a random layer before makes of it, are one *source* g with many
coefficients c_i = s_i w_i: a number v_g is put together from a few random ones (subset sums), and the model is one in the
sources,

    E(x) = E[y²] − 2 bᵀv + vᵀHv + λ Σ x,   v_g = Σ_{i of g} c_i x_i.

References:
    A. Pensia and others, Optimal Lottery Tickets via SubsetSum, NeurIPS 2020, section 3.
    T. Whitaker, Quantum Neuron Selection, GECCO 2022 companion, section 4.1 (layerwise distillation).
"""

from dataclasses import dataclass
from functools import cached_property

import dimod
import numpy as np
from jaxtyping import Bool, Float, Int

# Inputs whose squared cosine is within this of one are copies of each other: the error of the model is of this order.
_PROPORTIONAL = 1e-5
_RIDGE = 1e-6


@dataclass(frozen=True, eq=False)
class Sums:
    """The neurons of one layer, each with its own random coefficients of the same sources.

    Attributes:
        coefficients: `[j, c]` of neuron j, the candidates of a source side by side.
        starts: where the candidates of each source begin; one more at the end.
        order: place of each candidate in the layer's fan-in.
        moment: `[g, h]` is E[a_g a_h] of the sources.
        cross: `[j, g]` is E[a_g y_j].
        energy: `[j]` is E[y_j²].
        fan_in: inputs of the layer, those that are always zero included.
    """

    coefficients: Float[np.ndarray, "neurons candidates"]
    starts: Int[np.ndarray, "bounds"]
    order: Int[np.ndarray, "candidates"]
    moment: Float[np.ndarray, "sources sources"]
    cross: Float[np.ndarray, "neurons sources"]
    energy: Float[np.ndarray, "neurons"]
    fan_in: int

    @cached_property
    def source_of(self) -> Int[np.ndarray, "candidates"]:
        """The source of each candidate."""
        return np.repeat(np.arange(len(self.starts) - 1), np.diff(self.starts))

    def values(self, state: Bool[np.ndarray, "neurons candidates"]) -> Float[np.ndarray, "neurons sources"]:
        """v, what each neuron has of each source."""
        if not self.order.size:
            return np.zeros_like(self.cross)
        return np.add.reduceat(np.where(state, self.coefficients, 0.0), self.starts[:-1], axis=1)

    def errors(self, state: Bool[np.ndarray, "neurons candidates"]) -> Float[np.ndarray, "neurons"]:
        """Mean squared error of each neuron."""
        values = self.values(state)
        return self.energy + np.einsum("jg,jg->j", values, values @ self.moment - 2 * self.cross)

    def least_squares(self) -> Float[np.ndarray, "neurons sources"]:
        """The v of least error, from any real numbers."""
        ridge = _RIDGE * float(np.trace(self.moment)) / max(len(self.moment), 1)
        return np.linalg.solve(self.moment + ridge * np.eye(len(self.moment)), self.cross.T).T

    def least_errors(self) -> Float[np.ndarray, "neurons"]:
        """Mean squared error of each neuron with any real numbers: what no choice of candidates goes below."""
        return self.energy - np.einsum("jg,jg->j", self.least_squares(), self.cross)

    def to_mask(self, state: Bool[np.ndarray, "neurons candidates"]) -> Bool[np.ndarray, "fan_in neurons"]:
        """The layer's mask; inputs that are always zero are not kept."""
        mask = np.zeros((self.fan_in, len(state)), bool)
        mask[self.order] = state.T
        return mask

    def to_bqm(self, neuron: int, *, price: float = 0.0) -> dimod.BinaryQuadraticModel:
        """The model of one neuron, its variables numbered as the candidates."""
        coefficients, source = self.coefficients[neuron], self.source_of
        couplings = 2 * np.outer(coefficients, coefficients) * self.moment[np.ix_(source, source)]
        linear = 0.5 * np.diag(couplings) - 2 * coefficients * self.cross[neuron, source] + price
        rows, columns = np.triu_indices(len(linear), 1)
        quadratic = (rows, columns, couplings[rows, columns])
        return dimod.BinaryQuadraticModel.from_numpy_vectors(linear, quadratic, float(self.energy[neuron]), dimod.BINARY)

    def uncoupled(self) -> "Sums":
        """The same sums with each source on its own, its target the least-squares weight of that source."""
        weights, alone = self.least_squares(), np.diag(self.moment)
        energy = np.einsum("jg,g->j", weights**2, alone)
        return Sums(self.coefficients, self.starts, self.order, np.diag(alone), weights * alone, energy, self.fan_in)

    def __repr__(self) -> str:
        neurons, candidates = self.coefficients.shape
        return f"Sums({neurons} neurons of {candidates} random weights over {len(self.moment)} sources)"


@dataclass(frozen=True, eq=False)
class Copies:
    """Which inputs of a layer are proportional to each other.

    Attributes:
        leaders: an input of each source.
        leader_of: number of each input's leader, −1 for one that is always zero.
        ratio: of each input to its leader.
    """

    leaders: Int[np.ndarray, "sources"]
    leader_of: Int[np.ndarray, "fan_in"]
    ratio: Float[np.ndarray, "fan_in"]


def sums_of(
    weights: Float[np.ndarray, "fan_in neurons"],
    gram: Float[np.ndarray, "inputs inputs"],
    cross: Float[np.ndarray, "inputs neurons"],
    energy: Float[np.ndarray, "neurons"],
    *,
    copies: Copies | None = None,
) -> Sums:
    """The sums of a layer, inputs that are proportional to each other put together.

    Args:
        weights: of the layer, random.
        gram: E[a aᵀ] of its inputs; where `copies` are given, of their leaders only.
        cross: E[a yᵀ] with the targets; likewise.
        energy: E[y²] of the targets.
        copies: where they are known; otherwise they are found in `gram`.

    Example:
        >>> copies = np.array([[1.0, 2.0, 0.0], [2.0, 4.0, 0.0], [0.0, 0.0, 3.0]])
        >>> sums_of(np.ones((3, 1)), copies, np.ones((3, 1)), np.ones(1))
        Sums(1 neurons of 3 random weights over 2 sources)
    """
    if copies is None:
        copies = copies_in(gram)
        gram, cross = gram[np.ix_(copies.leaders, copies.leaders)], cross[copies.leaders]
    live = np.flatnonzero(copies.leader_of >= 0)
    order = live[np.argsort(copies.leader_of[live], kind="stable")]
    starts = np.searchsorted(copies.leader_of[order], np.arange(len(copies.leaders) + 1))
    coefficients = np.ascontiguousarray((weights[order] * copies.ratio[order, None]).T, np.float64)
    return Sums(coefficients, starts, order, gram, np.ascontiguousarray(cross.T), energy, len(weights))


def copies_in(gram: Float[np.ndarray, "fan_in fan_in"]) -> Copies:
    """The inputs whose second moments say that they are proportional."""
    norms = np.sqrt(np.maximum(np.diag(gram), 0.0))
    leader_of, ratio = np.full(len(gram), -1), np.zeros(len(gram))
    waiting = norms > 1e-6 * norms.max(initial=0.0)
    leaders: list[int] = []
    for i in range(len(gram)):
        if not waiting[i]:
            continue
        same = waiting & (gram[i] ** 2 >= (1 - _PROPORTIONAL) * (norms[i] * norms) ** 2)
        same[i] = True
        leader_of[same], ratio[same] = len(leaders), gram[i, same] / gram[i, i]
        waiting &= ~same
        leaders.append(i)
    return Copies(np.array(leaders, int), leader_of, ratio)
