"""A problem: a quadratic energy over binary units, with the number of units that an answer keeps.

    E(x) = offset + Σ_i linear_i x_i + ½ Σ_ij couplings_ij x_i x_j,    x_i ∈ {0, 1},    Σ_i x_i = num_kept

The cardinality stands beside the energy and is never folded into it as a squared penalty: a penalty couples every pair
of units and freezes the landscape, while an annealer that exchanges units keeps the count exactly.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import dimod
import numpy as np
import scipy.sparse
from jaxtyping import Float

from annealsubnet.arguments import check_states

Couplings: TypeAlias = np.ndarray | scipy.sparse.csr_array


@dataclass(frozen=True)
class Problem:
    """A quadratic energy over units that are kept (1) or not (0), and how many of them an answer keeps.

    Attributes:
        linear: change of the energy by keeping one unit alone; float64.
        couplings: `[i, j]` is the further change by keeping both; float64, symmetric, zero diagonal; a NumPy array, or
            a `scipy.sparse.csr_array` (other sparse forms are converted).
        offset: energy of keeping nothing.
        num_kept: exactly how many units an answer keeps; None leaves it free.
        labels: one string a unit, or a `range` of integers (their decimal strings name the variables of `to_bqm`);
            by default the units' positions.

    Raises:
        ValueError: for arrays that do not fit together, values that are not finite, couplings that are not symmetric
            or have a diagonal, labels that repeat, or a `num_kept` that cannot be met.

    Example:
        >>> problem = Problem(np.array([-1.0, -2.0]), np.array([[0.0, 1.5], [1.5, 0.0]]), num_kept=1)
        >>> problem.energy(np.array([[1, 0], [0, 1], [1, 1]])).tolist()
        [-1.0, -2.0, -1.5]
        >>> problem
        Problem(2 units, 1 couplings, keeps 1)
    """

    linear: np.ndarray
    couplings: Couplings
    offset: float = 0.0
    num_kept: int | None = None
    labels: tuple[str, ...] | range | None = None

    def __post_init__(self) -> None:
        linear = np.array(self.linear, dtype=np.float64)
        if linear.ndim != 1:
            raise ValueError(f"linear must have one axis, one value a unit; it has shape {linear.shape}.")
        couplings = _checked_couplings(self.couplings, linear.size)
        _check_finite("linear", linear)
        _check_finite("offset", np.asarray(self.offset, dtype=np.float64))
        linear.setflags(write=False)
        for name, value in (("linear", linear), ("couplings", couplings), ("offset", float(self.offset))):
            object.__setattr__(self, name, value)
        object.__setattr__(self, "labels", _checked_labels(self.labels, linear.size))
        if self.num_kept is not None:
            kept = int(self.num_kept)
            if kept != self.num_kept or not 0 <= kept <= linear.size:
                raise ValueError(f"num_kept must be a whole number from 0 to the {linear.size} units; it is {self.num_kept}.")
            object.__setattr__(self, "num_kept", kept)

    def __repr__(self) -> str:
        kept = "keeps any number" if self.num_kept is None else f"keeps {self.num_kept}"
        return f"Problem({self.size} units, {self.num_couplings} couplings, {kept})"

    @property
    def size(self) -> int:
        """Number of units."""
        return int(self.linear.size)

    @property
    def is_sparse(self) -> bool:
        """Whether the couplings are stored as a sparse array."""
        return scipy.sparse.issparse(self.couplings)

    @property
    def dense_couplings(self) -> np.ndarray:
        """The couplings as a NumPy array, `[units, units]`."""
        return self.couplings if isinstance(self.couplings, np.ndarray) else self.couplings.toarray()

    @property
    def num_couplings(self) -> int:
        """Number of pairs of units whose coupling is not zero."""
        stored = self.couplings.data if scipy.sparse.issparse(self.couplings) else self.couplings
        return int(np.count_nonzero(stored)) // 2

    @property
    def names(self) -> tuple[str, ...]:
        """The variables of `to_bqm`, in order."""
        return tuple(str(label) for label in self.labels or ())

    def energy(self, states: Any) -> Float[np.ndarray, "*batch"]:
        """Energy of one state or of many, in float64.

        Args:
            states: 0 or 1 (or booleans) for each unit along the last axis.

        Returns:
            One energy a state.

        Raises:
            ValueError: for states of another number of units, or other values.
        """
        states = check_states("states", states, self.size).astype(np.float64)
        flat = states.reshape(math.prod(states.shape[:-1]), self.size)
        fields = (self.couplings @ flat.T).T
        energies = self.offset + flat @ self.linear + 0.5 * np.einsum("bi,bi->b", flat, fields)
        return energies.reshape(states.shape[:-1])

    def to_bqm(self) -> dimod.BinaryQuadraticModel:
        """The energy as a BINARY model of dimod; its variables are strings, so they survive `to_file`.

        `num_kept` has no place in a binary quadratic model: give it to the sampler, or use `to_cqm`.

        Example:
            >>> Problem(np.array([1.0, 2.0]), np.array([[0.0, 3.0], [3.0, 0.0]]), labels=("a", "b")).to_bqm().quadratic
            {('b', 'a'): 3.0}
        """
        upper = scipy.sparse.triu(scipy.sparse.coo_array(self.couplings), k=1).tocoo()
        used = upper.data != 0
        quadratic = (upper.row[used], upper.col[used], upper.data[used])
        return dimod.BinaryQuadraticModel.from_numpy_vectors(
            self.linear, quadratic, self.offset, dimod.BINARY, variable_order=list(self.names)
        )

    def to_cqm(self) -> dimod.ConstrainedQuadraticModel:
        """The energy as the objective and `num_kept`, if there is one, as a constraint named "num_kept"."""
        model = dimod.ConstrainedQuadraticModel.from_bqm(self.to_bqm())
        if self.num_kept is not None and self.size:
            ones = dimod.BinaryQuadraticModel(dict.fromkeys(self.names, 1.0), {}, 0.0, dimod.BINARY)
            model.add_constraint(ones, sense="==", rhs=self.num_kept, label="num_kept")
        return model


def _checked_couplings(couplings: Any, size: int) -> Couplings:
    """The couplings as a read-only float64 matrix, dense or CSR, after every check."""
    if scipy.sparse.issparse(couplings):
        matrix: Any = scipy.sparse.csr_array(couplings, dtype=np.float64, copy=True)
        matrix.sum_duplicates()
        arrays = [matrix.data, matrix.indices, matrix.indptr]
    else:
        matrix = np.array(couplings, dtype=np.float64)
        arrays = [matrix]
    stored = arrays[0]
    if matrix.shape != (size, size):
        raise ValueError(f"couplings must be {size} x {size}, as linear has {size} units; they are {matrix.shape}.")
    _check_finite("couplings", stored)
    if matrix.diagonal().any():
        raise ValueError("couplings must have a zero diagonal; add it to linear, as x * x = x.")
    apart = abs(matrix - matrix.T)
    # Relative to the entry, as any is small beside one that is large enough; and to what rounding leaves of the largest.
    if size and apart.max() > 0 and (apart - 1e-9 * abs(matrix)).max() > 1e-14 * np.abs(stored).max():
        raise ValueError(f"couplings must be symmetric; they differ from their transpose by up to {apart.max():.3g}.")
    for array in arrays:
        array.setflags(write=False)
    return matrix


def _check_finite(name: str, values: np.ndarray) -> None:
    bad = values.size - int(np.isfinite(values).sum())
    if bad:
        raise ValueError(f"{name} of a problem must be finite; {bad} of {values.size} values are NaN or infinite.")


def _checked_labels(labels: Sequence[Any] | range | None, size: int) -> tuple[str, ...] | range:
    if labels is None:
        return range(size)
    if not isinstance(labels, range):
        labels = tuple(str(label) for label in labels)
        if len(set(labels)) != len(labels):
            raise ValueError("labels of a problem must differ; some label is there twice.")
    if len(labels) != size:
        raise ValueError(f"a problem of {size} units needs {size} labels; there are {len(labels)}.")
    return labels
