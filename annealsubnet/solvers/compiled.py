"""A quadratic model as the arrays that kernels work on.

Variables are reordered so that those that flip come first and each group is contiguous; energies are divided by a power
of two near their largest bias, which loses no bit and keeps float32 far from its limits whatever the scale.
"""

from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from typing import Any

import dimod
import numpy as np
import scipy.sparse

from annealsubnet.arguments import check_whole
from annealsubnet.solvers.running import SUMMED, Stops, run_reads
from annealsubnet.solvers.vectors import LANES

# A dense row costs a sixteenth of an operation a column, a sparse one about two a coupling.
_DENSE_SHARE = 1 / 24
_DENSE_LIMIT = 20_000
# A mean of linear biases hides their differences from here on, in units of the largest of them and of the couplings.
HIDING = 1e3
_ROWS = 64


@dataclass(frozen=True)
class Energy:
    """A quadratic energy of binary variables in float64: offset + linear·x + ½ xᵀ couplings x.

    Attributes:
        linear: one bias a variable.
        couplings: symmetric, zero diagonal; NumPy array or `scipy.sparse.csr_array`.
        offset: energy of all zeros.
    """

    linear: np.ndarray
    couplings: Any
    offset: float

    @property
    def size(self) -> int:
        """Number of variables."""
        return int(self.linear.size)

    @property
    def entries(self) -> int:
        """Number of couplings that are stored, each twice."""
        return int(self.couplings.nnz if scipy.sparse.issparse(self.couplings) else self.couplings.size)

    def of(self, states: np.ndarray, *, num_threads: int | None = 1) -> np.ndarray:
        """Energies of states (0 or 1) in float64, one a row; dense ones on threads (None: one a processor) where that pays."""
        if scipy.sparse.issparse(self.couplings):
            x = states.astype(np.float64)
            fields = self.linear + 0.5 * (self.couplings @ x.T).T
            return self.offset + np.einsum("ri,ri->r", x, fields)
        from annealsubnet.solvers.energies import dense_energies

        states, energies = np.ascontiguousarray(states, np.int8), np.empty(len(states))

        def kernel(begin: int, end: int, stop: np.ndarray) -> None:
            dense_energies(self.linear, self.couplings, states, begin, end, energies)

        proposals = float(len(states)) * self.entries / SUMMED
        run_reads(kernel, len(states), num_threads=num_threads, proposals=proposals, stops=Stops())
        return self.offset + energies


@dataclass(frozen=True)
class Groups:
    """Which variables move by exchanges.

    Attributes:
        member: the group of each variable; -1 for those that flip.
        counts: how many ones each group has.
    """

    member: np.ndarray
    counts: np.ndarray

    @classmethod
    def none(cls, size: int) -> "Groups":
        """No groups: every variable flips."""
        return cls(np.full(size, -1, np.int32), np.zeros(0, np.int64))

    @classmethod
    def one(cls, size: int, num_kept: int) -> "Groups":
        """One group of all variables."""
        if not 0 <= num_kept <= size:
            raise ValueError(f"num_kept must be from 0 to the {size} variables; it is {num_kept}.")
        return cls(np.zeros(size, np.int32), np.array([num_kept]))

    def random_states(self, num_states: int, rng: np.random.Generator) -> np.ndarray:
        """Uniformly random states with the right counts; the first rows do not depend on how many are asked for."""
        uniform = rng.random((num_states, self.member.size), dtype=np.float32)
        states = (uniform < 0.5).astype(np.int8)
        for group, count in enumerate(self.counts):
            members = np.flatnonzero(self.member == group)
            own = uniform[:, members]
            if 0 < count < members.size:
                lowest = np.argpartition(own, count - 1, axis=1)[:, :count]
                chosen = np.zeros(own.shape, np.int8)
                np.put_along_axis(chosen, lowest, 1, axis=1)
            else:
                chosen = np.full(own.shape, count > 0, np.int8)
            states[:, members] = chosen
        return states

    def check(self, states: np.ndarray) -> None:
        """Raise unless every state has the right count in every group.

        Raises:
            ValueError: with the first count that is wrong.
        """
        for group, count in enumerate(self.counts):
            found = states[:, self.member == group].sum(axis=1)
            if (found != count).any():
                read = int(np.flatnonzero(found != count)[0])
                raise ValueError(
                    f"initial state {read} has {found[read]} ones in group {group}; num_kept or groups ask for exactly {count}."
                )


@dataclass(frozen=True)
class Compiled:
    """What `solvers.reads` calls a model, with what is needed to go back and forth.

    Attributes:
        model: (linear, couplings, free, groups, blocks), see `solvers.reads`.
        moves: whether any variables flip, and whether any are exchanged.
        order: position `p` of the model holds variable `order[p]`.
        scale: energies of the model times `scale` are energies of the problem.
    """

    model: tuple[Any, ...]
    moves: tuple[bool, bool]
    order: np.ndarray
    scale: float

    @property
    def is_dense(self) -> bool:
        """Whether the couplings are a dense matrix."""
        return len(self.model[1]) == 1


def energy_of(bqm: dimod.BinaryQuadraticModel) -> Energy:
    """The arrays of a model in BINARY variables, in the order of `bqm.variables`, dense where that is faster.

    Raises:
        ValueError: naming the first variable or pair whose bias is NaN or infinite, or for energies that overflow.
    """
    size = bqm.num_variables
    vectors = bqm.to_numpy_vectors(variable_order=list(bqm.variables))
    linear, values = (np.asarray(biases, np.float64) for biases in (vectors.linear_biases, vectors.quadratic.biases))
    rows, columns, offset = vectors.quadratic.row_indices, vectors.quadratic.col_indices, float(vectors.offset)
    _check_finite(bqm, linear, rows, columns, values, offset)
    with np.errstate(over="ignore", invalid="ignore"):
        if bqm.vartype is dimod.SPIN:
            # s = 2 x - 1: h s + J s t = 2 h x - h + 4 J x y - 2 J x - 2 J y + J.
            offset += float(values.sum() - linear.sum())
            half = np.bincount(rows, values, size) + np.bincount(columns, values, size)
            linear, values = 2.0 * linear - 2.0 * half, 4.0 * values
        if not np.isfinite(abs(offset) + np.abs(linear).sum() + np.abs(values).sum()):
            raise ValueError(
                "energies of the model overflow: the sizes of its biases (as BINARY) add up to infinity; scale it."
            )
    return Energy(linear, symmetric(size, rows, columns, values), offset)


def centered(energy: Energy, groups: Groups) -> Energy:
    """The same energy of states with these counts, without a mean in a group's linear biases that hides their differences.

    Where the mean is so much larger than all else that float32 would round that away, it goes to the offset.
    """
    linear, offset, coupled = energy.linear.copy(), energy.offset, None
    for group, count in enumerate(groups.counts):
        members = groups.member == group
        mean = float(linear[members].mean()) if members.any() else 0.0
        rest = linear[members] - mean
        if abs(mean) <= HIDING * np.abs(rest).max(initial=0.0):
            continue
        coupled = _largest(energy.couplings) if coupled is None else coupled
        if abs(mean) > HIDING * coupled:
            linear[members] = rest
            offset += mean * int(count)
    return Energy(linear, energy.couplings, offset)


def is_coarse(energy: Energy) -> bool:
    """Whether some variable has one bias so large that float32 rounds away the mean of its others."""
    for begin in range(0, energy.size, _ROWS):  # a few rows at a time stay in the cache
        sizes, own = abs(energy.couplings[begin : begin + _ROWS]), np.abs(energy.linear[begin : begin + _ROWS])
        if scipy.sparse.issparse(sizes):
            most, count = sizes.max(axis=1).toarray().ravel(), np.diff(sizes.indptr)
        else:
            most, count = sizes.max(axis=1), np.count_nonzero(sizes, axis=1)
        largest = np.maximum(own, most)
        others = own + np.asarray(sizes.sum(axis=1)).ravel() - largest
        # What lies below float64's own rounding is no bias.
        if ((2.0**24 * others < largest * count) & (others > 2.0**-50 * largest)).any():
            return True
    return False


def _largest(couplings: Any) -> float:
    stored = couplings.data if scipy.sparse.issparse(couplings) else couplings
    return max(float(stored.max(initial=0.0)), -float(stored.min(initial=0.0)))


def _check_finite(bqm: dimod.BinaryQuadraticModel, linear: Any, rows: Any, columns: Any, values: Any, offset: float) -> None:
    labels = bqm.variables
    for bad in np.flatnonzero(~np.isfinite(linear))[:1]:
        raise ValueError(f"the bias of variable {labels[bad]!r} is {linear[bad]}; every bias must be finite.")
    for bad in np.flatnonzero(~np.isfinite(values))[:1]:
        pair = (labels[rows[bad]], labels[columns[bad]])
        raise ValueError(f"the coupling of variables {pair} is {values[bad]}; every coupling must be finite.")
    if not np.isfinite(offset):
        raise ValueError(f"the offset of the model is {offset}; it must be finite.")


def symmetric(size: int, rows: np.ndarray, columns: np.ndarray, values: np.ndarray) -> Any:
    """A symmetric matrix from its pairs: dense where a dense row is faster to add than its entries, else CSR."""
    if size <= _DENSE_LIMIT and 2 * values.size >= _DENSE_SHARE * size**2:
        matrix = np.zeros((size, size))
        matrix[rows, columns] = values
        return matrix + matrix.T
    upper = scipy.sparse.coo_array((values, (rows, columns)), shape=(size, size)).tocsr()
    return scipy.sparse.csr_array(upper + upper.T)


def scale_of(linear: np.ndarray, stored: np.ndarray) -> float:
    """A power of two near the largest absolute value; 1 if all are zero."""
    largest = max(_largest(linear), _largest(stored))
    return float(2.0 ** np.floor(np.log2(largest))) if largest > 0 else 1.0


def compile_energy(energy: Energy, groups: Groups, *, exchanges: bool = False) -> Compiled:
    """An energy and its groups as a kernel's model; with `exchanges`, variables that flip are exchanged as well."""
    size = energy.size
    order = np.argsort(groups.member, kind="stable")
    member = groups.member[order]
    stride = -(-size // LANES) * LANES
    padded = np.full(stride, -2, np.int32)
    padded[:size] = member
    bits = (padded == -1).reshape(-1, LANES)
    free = (bits * (1 << np.arange(LANES, dtype=np.uint32))).sum(axis=1, dtype=np.uint32)
    sparse = scipy.sparse.issparse(energy.couplings)
    scale = scale_of(energy.linear, energy.couplings.data if sparse else energy.couplings)
    in_order = bool((order == np.arange(size)).all())
    linear = (energy.linear[order] / scale).astype(np.float32)
    couplings: tuple[np.ndarray, ...]
    if sparse:
        matrix = energy.couplings if in_order else energy.couplings[order][:, order].tocsr()
        values = (matrix.data / scale).astype(np.float32)
        couplings = (matrix.indptr.astype(np.int64), matrix.indices.astype(np.int32), values)
    else:
        matrix = energy.couplings if in_order else energy.couplings[np.ix_(order, order)]
        rows = np.zeros((size, stride), np.float32)
        np.divide(matrix, scale, out=rows[:, :size], casting="same_kind")
        couplings = (rows.ravel(),)
    exchanged = np.where(padded == -1, groups.counts.size, padded).astype(np.int32) if exchanges else padded
    model = (linear, couplings, free, exchanged, _blocks(member))
    moves = (bool((member == -1).any()), bool((exchanged >= 0).any()))
    return Compiled(model, moves, order, scale)


def _blocks(member: np.ndarray) -> np.ndarray:
    """For each variable, the first block of sixteen that its group touches and how many it touches."""
    first = np.searchsorted(member, member, side="left")
    last = np.searchsorted(member, member, side="right") - 1
    return np.stack([first // LANES, last // LANES - first // LANES + 1], axis=1).astype(np.int64)


def groups_of(
    variables: Sequence[Hashable], num_kept: int | None, groups: Sequence[tuple[Sequence[Hashable], int]] | None
) -> Groups:
    """The options `num_kept` and `groups` of a sampler as arrays.

    Raises:
        ValueError: if both are given, a variable is unknown or in two groups, or a count cannot be met.
    """
    size = len(variables)
    if groups is None:
        return Groups.none(size) if num_kept is None else Groups.one(size, int(num_kept))
    if num_kept is not None:
        raise ValueError("give num_kept or groups, not both; num_kept is one group of all variables.")
    index = {variable: position for position, variable in enumerate(variables)}
    member = np.full(size, -1, np.int32)
    counts = []
    for number, (labels, count) in enumerate(groups):
        unknown = [label for label in labels if label not in index]
        if unknown:
            raise ValueError(f"group {number} names the variable {unknown[0]!r}, which the problem does not have.")
        members = np.array([index[label] for label in labels], dtype=np.int64)
        if (member[members] >= 0).any() or len(set(labels)) != len(labels):
            raise ValueError(f"group {number} has a variable that is there twice or in another group.")
        if not 0 <= check_whole(f"the count of group {number}", count) <= members.size:
            raise ValueError(f"group {number} has {members.size} variables, of which exactly {count} cannot be ones.")
        member[members] = number
        counts.append(int(count))
    return Groups(member, np.array(counts, np.int64))
