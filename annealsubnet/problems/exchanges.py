"""Exchanges between the inputs that a neuron keeps and others, every change of the error after the refit known to second order.

With S the inputs that stay, H their ridged second moment and b the moments with the target, let P = (H_SS)⁻¹, v = P b_S,
U = P H_S:, r = b − H_:S v and s = H − H_:S U. What removing R from S, or adding J, changes in e(S) = t − b_Sᵀ P b_S is

    e(S \\ R) − e(S) = v_Rᵀ (P_RR)⁻¹ v_R,        e(S ∪ J) − e(S) = −r_Jᵀ (s_JJ)⁻¹ r_J,

and j in the place of a changes it by v_a² / P_aa − (r_j + U_aj v_a / P_aa)² / (s_jj + U_aj² / P_aa). The changes by one and by
two inputs are the linear terms and couplings of a binary quadratic model over some of the inputs, exact where at most two
change. Other than the error of fixed weights (`annealsubnet.problems.fan_in`) it knows that the rest is refitted.

References:
    Miller, *Subset Selection in Regression*, 2002, section 3 (the terms).
    Boros, Hammer, *Pseudo-Boolean optimization*, 2002, section 4 (functions of bits as polynomials; here of degree two).
"""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Int

from annealsubnet.problems.problem import Problem

_FLOOR = 1e-6
"""Of two inputs' determinant, relative to the product of its diagonal: below it they are taken for one and the same."""


@dataclass(frozen=True)
class Support:
    """The error after the refit around the inputs that a neuron keeps.

    Attributes:
        members: S, in order.
        error: e(S).
        inverse: P.
        across: U.
        weights: v.
        residual: r.
        moments: H.
    """

    members: Int[np.ndarray, "kept"]
    error: float
    inverse: Float[np.ndarray, "kept kept"]
    across: Float[np.ndarray, "kept inputs"]
    weights: Float[np.ndarray, "kept"]
    residual: Float[np.ndarray, "inputs"]
    moments: Float[np.ndarray, "inputs inputs"]

    @classmethod
    def of(
        cls,
        moments: Float[np.ndarray, "inputs inputs"],
        target: Float[np.ndarray, "inputs"],
        kept: Bool[np.ndarray, "inputs"],
        *,
        target_energy: float,
    ) -> "Support":
        """The support `kept` of a neuron with moments b = `target` of inputs and target.

        Args:
            moments: H, positive definite: with a ridge.
            target: b.
            kept: S.
            target_energy: t, the second moment of the target.
        """
        members = np.flatnonzero(kept)
        rows = moments[members]
        inverse = _symmetric(np.linalg.inv(rows[:, members]))
        weights = inverse @ target[members]
        error = float(target_energy - weights @ target[members])
        return cls(members, error, inverse, inverse @ rows, weights, target - weights @ rows, moments)

    def problem(self, count: int, *, charge: float = 0.0, name: str = "") -> tuple[Problem, Int[np.ndarray, "variables"]]:
        """The exchanges of those `count` members that would be missed least with those `count` others that gain most alone.

        Args:
            count: of each kind, at most.
            charge: added to the energy for every two members that leave, in units of the error: what keeps answers where the
                model holds. The first exchange is free of it.
            name: of the neuron; variables are labeled `"<name>:<input>"`.

        Returns:
            The problem, its energy the error, and the inputs that its variables stand for: members, then others.

        Example:
            >>> gram = np.array([[1.0, 0.9, 0.0], [0.9, 1.0, 0.0], [0.0, 0.0, 1.0]])
            >>> support = Support.of(gram, np.array([0.5, 0.6, 1.0]), np.array([True, False, True]), target_energy=2.0)
            >>> problem, inputs = support.problem(2)
            >>> inputs.tolist(), problem.energy(np.array([[1, 1, 0], [0, 1, 1]])).round(3).tolist()
            ([0, 2, 1], [0.75, 0.64])
        """
        costs = self.weights**2 / np.diag(self.inverse)
        schur = np.diag(self.moments) - np.einsum("ij,ij->j", self.moments[self.members], self.across)
        apart = schur > _FLOOR * np.diag(self.moments)
        apart[self.members] = False
        gains = np.divide(self.residual**2, schur, out=np.zeros_like(schur), where=apart)
        out = np.sort(np.argsort(costs, kind="stable")[:count])
        others = np.flatnonzero(apart)
        into = np.sort(others[np.argsort(-gains[others], kind="stable")[:count]])
        block = _symmetric(self.moments[np.ix_(into, into)] - self.moments[np.ix_(into, self.members)] @ self.across[:, into])
        leaving = _pairs(self.weights[out], self.inverse[np.ix_(out, out)]) - (costs[out][:, None] + costs[out]) + charge
        entering = (gains[into][:, None] + gains[into]) - _pairs(self.residual[into], block)
        mixed = gains[into] - self._in_place_of(out, into, schur)
        for square in (leaving, entering):
            np.fill_diagonal(square, 0.0)
        # Members are kept at x = 1, so their changes are in 1 − x.
        couplings = np.block([[leaving, -mixed], [-mixed.T, entering]])
        linear = np.concatenate([-costs[out] - leaving.sum(1), mixed.sum(0) - gains[into]])
        inputs = np.concatenate([self.members[out], into])
        labels = tuple(f"{name}:{number}" for number in inputs)
        offset = self.error + float(costs[out].sum()) + float(leaving.sum()) / 2
        return Problem(linear, couplings, offset, len(out), labels), inputs

    def _in_place_of(self, out: np.ndarray, into: np.ndarray, schur: np.ndarray) -> Float[np.ndarray, "out into"]:
        """What each of some others gains once each of some members, by their places, has left."""
        shares = self.across[np.ix_(out, into)] / np.diag(self.inverse)[out][:, None]
        return (self.residual[into] + shares * self.weights[out][:, None]) ** 2 / (
            schur[into] + shares * self.across[np.ix_(out, into)]
        )


def _pairs(values: np.ndarray, matrix: np.ndarray) -> np.ndarray:
    """valuesᵀ matrix⁻¹ values of every two of the entries, at `[first, second]`."""
    diagonal = np.diag(matrix)
    products = diagonal[:, None] * diagonal
    determinants = np.maximum(products - matrix**2, _FLOOR * products)
    first, second = values[:, None], values[None]
    return _symmetric((first**2 * diagonal - 2 * first * second * matrix + second**2 * diagonal[:, None]) / determinants)


def _symmetric(matrix: np.ndarray) -> np.ndarray:
    """A matrix that is symmetric but for rounding, without that."""
    return 0.5 * (matrix + matrix.T)
