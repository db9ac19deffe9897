"""Low rank: all weights of a network in one energy that couples every pair of them through a few rows.

With w_0 the dense weights, A the rows of `annealsubnet.statistics.weight_rows` around the weights w_0 ∘ m of a mask m, and
f_i = A_i w_0i the column of weight i, the masked network w_0 ∘ x moves from the dense one by

    E(x) = ½ ‖y(x)‖² + Σ_i (1 − x_i) cost_i,        y(x) = residual − Σ_i (1 − x_i) f_i

where the residual is taken at x = 1 and the costs hold a ridge and, if wanted, a gradient. All of F = [f_1 … f_p] is p · rows
numbers, an exchange of two weights changes y by f_a − f_j and so costs as many operations as there are rows, and nothing is
ever p². Any part of the weights, the others held, is an ordinary `Problem`; the fan-ins of single neurons, the others folded
into their fields, are the parts that the rest of this package solves.

References:
    Yu, Serra, Ramalingam, Zhe, *The Combinatorial Brain Surgeon*, ICML 2022, equations 3 to 5.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float, Int

from annealsubnet.arguments import check_states
from annealsubnet.problems.problem import Problem


@dataclass(frozen=True)
class LowRankProblem:
    """A low-rank energy over weights that are kept (1) or not (0), and how many an answer keeps.

    Arrays that are of the right kind already are not copied: the factor may take gigabytes.

    Attributes:
        factor: `[weights, rows]` f_i, float32.
        residual: `[rows]` y at x = 1, float32.
        cost: `[weights]` what removing a weight costs beside ½ ‖y‖², float64.
        group: `[weights]` weights are exchanged within their group only (a layer, a neuron); one group by default.
        offset: added to the energy.

    Raises:
        ValueError: for arrays that do not fit together or are not finite.

    Example:
        >>> problem = LowRankProblem(np.array([[1.0, 0.0], [-1.0, 0.0], [0.0, 3.0]]), np.zeros(2), np.zeros(3))
        >>> problem.energy(np.array([[1, 1, 1], [0, 0, 1], [0, 1, 1], [1, 1, 0]])).tolist()
        [0.0, 0.0, 0.5, 4.5]
    """

    factor: np.ndarray
    residual: np.ndarray
    cost: np.ndarray
    group: Int[np.ndarray, "weights"] | None = None
    offset: float = 0.0

    def __post_init__(self) -> None:
        factor = np.ascontiguousarray(self.factor, np.float32)
        residual = np.ascontiguousarray(self.residual, np.float32)
        cost = np.ascontiguousarray(self.cost, np.float64)
        group = np.zeros(len(cost), np.int64) if self.group is None else np.asarray(self.group, np.int64)
        if (
            factor.ndim != 2
            or residual.shape != factor.shape[1:]
            or cost.shape != factor.shape[:1]
            or group.shape != cost.shape
        ):
            raise ValueError(
                f"A factor [weights, rows] of {factor.shape} goes with one residual a row, one cost and one group a weight; "
                f"they are {residual.shape}, {cost.shape} and {group.shape}."
            )
        if not (np.isfinite(factor).all() and np.isfinite(residual).all() and np.isfinite(cost).all()):
            raise ValueError("A low-rank problem must be finite; its factor, residual or cost has NaN or infinite values.")
        for name, value in (("factor", factor), ("residual", residual), ("cost", cost), ("group", group)):
            held = value.view()  # the caller's own array stays as it is
            held.setflags(write=False)
            object.__setattr__(self, name, held)

    @property
    def size(self) -> int:
        """Number of weights."""
        return len(self.cost)

    def __repr__(self) -> str:
        weights, rows = self.factor.shape
        return f"LowRankProblem({weights:,} weights, {rows:,} rows)"

    def outputs(self, state: Any) -> Float[np.ndarray, "rows"]:
        """y of one state, in float64."""
        gone = ~check_states("state", state, self.size)
        return self.residual.astype(np.float64) - np.einsum("i,ij->j", gone.astype(np.float64), self.factor)

    def energy(self, states: Any) -> Float[np.ndarray, "*batch"]:
        """Energy of one state or of many, in float64."""
        states = check_states("states", states, self.size)
        flat = states.reshape(-1, self.size)
        energies = [0.5 * float(y @ y) + float(self.cost[~state].sum()) for state in flat for y in (self.outputs(state),)]
        return (self.offset + np.array(energies)).reshape(states.shape[:-1])

    def part(self, weights: Int[np.ndarray, "chosen"], state: Any, *, num_kept: int | None = None) -> Problem:
        """Some weights as an ordinary problem, the others held at a state: their couplings become fields.

        Args:
            weights: their numbers.
            state: of all weights.
            num_kept: how many of the chosen an answer keeps.
        """
        held = check_states("state", state, self.size).copy()
        held[weights] = False
        rows = self.factor[weights].astype(np.float64)
        matrix = rows @ rows.T
        diagonal = np.diag(matrix).copy()
        np.fill_diagonal(matrix, 0.0)
        linear = rows @ self.outputs(held) + 0.5 * diagonal - self.cost[weights]
        return Problem(linear, matrix, float(self.energy(held)), num_kept, tuple(str(number) for number in weights))
