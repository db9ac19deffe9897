"""Parts: pieces of a problem with the rest held fixed at a state.

With the variables outside part P held at x̄ the energy is that of a smaller problem, exactly:

    E(x_P, x̄) = offset_P + Σ_{i∈P} (linear_i + Σ_{j∉P} couplings_ij x̄_j) x_i + ½ Σ_{i,j∈P} couplings_ij x_i x_j.

The boundary is folded into the linear terms, and offset_P is the energy of the rest, so that a part's energy *is* the energy of
the whole. Minimizing over one part at a time (block-coordinate descent) can therefore never raise it.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import scipy.sparse
from jaxtyping import Float, Int

from annealsubnet.arguments import check_states
from annealsubnet.decompose import part_kernels as kernels
from annealsubnet.decompose.limits import Limits
from annealsubnet.decompose.partition import compressed
from annealsubnet.problems import Problem


@dataclass(frozen=True)
class Part:
    """A piece of a problem, its boundary folded in at a state.

    Attributes:
        variables: positions of its variables in the whole problem.
        linear: linear terms with the boundary folded in.
        rows: where the couplings of each variable begin.
        columns: the other end of each coupling, as a position in `variables`.
        values: of each coupling.
        offset: energy of the whole at the state with none of the part's variables kept.
        num_kept: ones of the state inside the part, if the whole problem keeps a number; else None.
        names: labels of all variables of the whole problem.
    """

    variables: Int[np.ndarray, "variables"]
    linear: Float[np.ndarray, "variables"]
    rows: Int[np.ndarray, "rows"]
    columns: Int[np.ndarray, "entries"]
    values: Float[np.ndarray, "entries"]
    offset: float
    num_kept: int | None
    names: Sequence[Any]

    def __repr__(self) -> str:
        return f"Part({self.size} variables, {self.values.size // 2} couplings)"

    @property
    def size(self) -> int:
        """Number of variables."""
        return int(self.variables.size)

    @property
    def labels(self) -> tuple[str, ...]:
        """Names of the part's variables, those of the whole problem."""
        return tuple(str(self.names[variable]) for variable in self.variables.tolist())

    @cached_property
    def problem(self) -> Problem:
        """The part as a problem: its energy is that of the whole with the part's variables set so."""
        couplings = scipy.sparse.csr_array((self.values, self.columns, self.rows), shape=(self.size, self.size))
        return Problem(self.linear, couplings, self.offset, self.num_kept, self.labels)

    def energies(self, states: np.ndarray) -> np.ndarray:
        """Energies of many states, `[states, variables]`, as `problem.energy` returns them but without building a problem."""
        kept = check_states("states", states, self.size).astype(np.float64)
        ends = np.repeat(np.arange(self.size), np.diff(self.rows))
        return self.offset + kept @ self.linear + 0.5 * (kept[:, ends] * kept[:, self.columns]) @ self.values

    @property
    def dense_couplings(self) -> Float[np.ndarray, "variables variables"]:
        """The couplings as a square array."""
        dense = np.zeros((self.size, self.size))
        dense[np.repeat(np.arange(self.size), np.diff(self.rows)), self.columns] = self.values
        return dense


@dataclass(frozen=True)
class Decomposition:
    """Parts of a problem as arrays; part p holds `members[starts[p] : starts[p + 1]]`.

    Attributes:
        problem: the whole.
        limits: that every part respects.
        starts: where each part begins; one more than there are parts.
        members: positions of variables in the whole problem, rising within a part.
        colors: of each part; parts of one color are not coupled to each other and share no variable.
        inner_rows: where the couplings of each member begin.
        inner_columns: the other end of each coupling inside a part, as a position in the part.
        inner_values: of each coupling inside a part.

    Example:
        >>> from annealsubnet.decompose import decompose
        >>> chain = np.diag(np.ones(5), 1)
        >>> found = decompose(Problem(np.zeros(6), chain + chain.T), Limits(variables=2), seed=0)
        >>> found, found.part(0, np.ones(6)).problem.energy(np.ones(2)) == found.problem.energy(np.ones(6))
        (Decomposition(3 parts of up to 2 of 6 variables, 2 colors), np.True_)
    """

    problem: Problem
    limits: Limits
    starts: Int[np.ndarray, "starts"]
    members: Int[np.ndarray, "members"]
    colors: Int[np.ndarray, "parts"]
    inner_rows: Int[np.ndarray, "rows"]
    inner_columns: Int[np.ndarray, "entries"]
    inner_values: Float[np.ndarray, "entries"]

    def __len__(self) -> int:
        return int(self.starts.size - 1)

    def __repr__(self) -> str:
        colors = int(self.colors.max(initial=-1)) + 1
        largest = int(self.sizes.max(initial=0))
        return f"Decomposition({len(self)} parts of up to {largest} of {self.problem.size} variables, {colors} colors)"

    @property
    def sizes(self) -> Int[np.ndarray, "parts"]:
        """Number of variables of each part."""
        return np.diff(self.starts)

    @property
    def batches(self) -> tuple[Int[np.ndarray, "batch"], ...]:
        """Numbers of the parts of each color: those that can be solved at the same time."""
        return tuple(np.flatnonzero(self.colors == color) for color in range(int(self.colors.max(initial=-1)) + 1))

    def part(self, index: int, state: Any) -> Part:
        """One part, the rest held at a state.

        Args:
            index: of the part.
            state: 0 or 1 for each variable of the whole problem.
        """
        return self._folded((index,), state)[0]

    def parts(self, state: Any) -> tuple[Part, ...]:
        """Every part, each with the rest held at the same state."""
        return self._folded(range(len(self)), state)

    def chosen(self, indices: Any, state: Any) -> tuple[Part, ...]:
        """Some of the parts, the rest held at a state."""
        return self._folded(indices, state)

    @cached_property
    def _model(self) -> tuple[np.ndarray, ...]:
        return (*compressed(self.problem).arrays, np.array(self.problem.linear))

    def _folded(self, indices: Any, state: Any) -> tuple[Part, ...]:
        state = checked_state(state, self.problem.size)
        whole = float(self.problem.energy(state))
        indices = np.asarray(indices, np.int64)
        places = np.concatenate([[0], np.cumsum(self.sizes[indices])])
        folded, energies = np.empty(int(places[-1])), np.empty(indices.size)
        parts = (self.starts, self.members, self.inner_rows, self.inner_columns, self.inner_values)
        kernels.fold(self._model, parts, indices, state, places, folded, energies)
        kept = state if self.problem.num_kept is not None else None
        names = range(self.problem.size) if self.problem.labels is None else self.problem.labels
        starts = self.starts.tolist()
        return tuple(
            self._part(starts[index], starts[index + 1], folded[places[k] : places[k + 1]], whole - energies[k], kept, names)
            for k, index in enumerate(indices.tolist())
        )

    def _part(
        self, begin: int, end: int, linear: np.ndarray, offset: float, kept: np.ndarray | None, names: Sequence[Any]
    ) -> Part:
        rows = self.inner_rows[begin : end + 1]
        first, last = rows[0], rows[-1]
        variables = self.members[begin:end]
        num_kept = None if kept is None else int(kept[variables].sum())
        columns, values = self.inner_columns[first:last], self.inner_values[first:last]
        return Part(variables, linear, rows - first, columns, values, offset, num_kept, names)


def checked_state(state: Any, size: int, *, name: str = "state") -> np.ndarray:
    """A state as booleans.

    Raises:
        ValueError: if it is not 0 or 1 for each of `size` variables.
    """
    values = np.asarray(state)
    if values.shape != (size,):
        raise ValueError(f"{name} must be 0 or 1 for each of {size} variables; its shape is {values.shape}.")
    return check_states(name, values, size)


def checked_start(state: Any, problem: Problem, *, name: str = "state") -> np.ndarray:
    """A state of a problem as booleans.

    Raises:
        ValueError: if it is no state of its variables, or does not keep the problem's count.
    """
    given = checked_state(state, problem.size, name=name)
    if problem.num_kept is not None and int(given.sum()) != problem.num_kept:
        raise ValueError(f"{name} keeps {int(given.sum())} units; the problem keeps {problem.num_kept}.")
    return given


def merge(state: Any, part: Part, answer: Any) -> np.ndarray:
    """The state of the whole with a part's variables set to an answer; nothing given is changed.

    Args:
        state: 0 or 1 for each variable of the whole problem.
        part: whose variables are set.
        answer: 0 or 1 for each variable of the part, in its order.

    Example:
        >>> from annealsubnet.decompose import decompose
        >>> whole = Problem(np.zeros(3), np.array([[0, 1.0, 0], [1, 0, 0], [0, 0, 0]]))
        >>> part = decompose(whole, Limits(variables=3), seed=0).part(0, np.zeros(3))
        >>> part.variables.tolist(), merge(np.zeros(3), part, [1, 1, 0]).astype(int).tolist()
        ([0, 1, 2], [1, 1, 0])
    """
    merged = checked_state(state, np.size(state)).copy()
    merged[part.variables] = checked_state(answer, part.size)
    return merged
