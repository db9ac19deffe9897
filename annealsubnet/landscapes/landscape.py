"""Landscapes: an energy over binary variables as a sum of tables over small windows, the NK landscapes of the founding paper.

A window w is a tuple of variables, its table T_w a value for each of their settings, and

    E(x) = Σ_w T_w[x_w].

Kauffman's NK landscapes have one window for each of N variables, made of it and K others. The setting (x_a, x_b, ...) of a
window (a, b, ...) is entry x_a + 2 x_b + 4 x_c + ... of its table. The Möbius transform writes a table as a polynomial,

    T[x] = Σ_S c_S Π_{i ∈ S} x_i,     c_S = Σ_{R ⊆ S} (−1)^{|S| − |R|} T[R],

the Walsh transform as a sum over spins, ŵ_S = 2^−n Σ_x T[x] Π_{i ∈ S} (−1)^{x_i}.

References:
    S. Kauffman, E. Weinberger, The NK model of rugged fitness landscapes, J. Theoretical Biology 141, 1989.
    T. Whitaker, Quantum Neuron Selection, GECCO 2022 companion, section on K-bounded NK landscapes.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import combinations

import dimod
import numpy as np
from jaxtyping import Float, Int

from annealsubnet.arguments import check_states, check_whole

Coefficients = Mapping[tuple[int, ...], float]
"""Polynomial coefficient of each set of variables, the variables ascending."""


@dataclass(frozen=True, repr=False)
class Landscape:
    """A sum of tables over windows of equal size.

    Attributes:
        windows: the variables of each window, all different within a window.
        tables: value of each setting of each window.
        num_variables: how many variables there are.

    Example:
        >>> land = Landscape(np.array([[0, 1], [1, 2]]), np.array([[0., 1., 1., -1.], [0., 2., 2., 0.]]), 3)
        >>> land
        Landscape(3 variables, 2 windows of 2)
        >>> land.energy(np.array([1, 1, 0])).tolist()
        1.0
    """

    windows: Int[np.ndarray, "windows members"]
    tables: Float[np.ndarray, "windows settings"]
    num_variables: int

    def __post_init__(self) -> None:
        count, members = self.windows.shape
        if self.tables.shape != (count, 2**members):
            raise ValueError(f"{count} windows of {members} need tables {(count, 2**members)}; these are {self.tables.shape}.")
        if count and (self.windows.min() < 0 or self.windows.max() >= self.num_variables):
            raise ValueError(f"Windows name variables {self.windows.min()} to {self.windows.max()} of {self.num_variables}.")
        ordered = np.sort(self.windows, axis=1)
        if (ordered[:, 1:] == ordered[:, :-1]).any():
            raise ValueError("A window names a variable twice; give each of its members once.")
        if not np.isfinite(self.tables).all():
            raise ValueError(f"{int((~np.isfinite(self.tables)).sum())} table entries are NaN or infinite.")

    def energy(self, states: np.ndarray) -> np.ndarray:
        """E of one state `[variables]` or of many `[..., variables]`."""
        kept = check_states("states", states, self.num_variables).astype(np.int64)
        codes = (kept[..., self.windows] << np.arange(self.windows.shape[1])).sum(axis=-1)
        return self.tables[np.arange(len(self.tables)), codes].sum(axis=-1)

    def coefficients(self) -> dict[tuple[int, ...], float]:
        """The polynomial, windows added up; sets without a coefficient are left out."""
        total: dict[tuple[int, ...], float] = {}
        for window, values in zip(self.windows.tolist(), mobius(self.tables), strict=True):
            for setting in np.flatnonzero(values).tolist():
                members = tuple(sorted(window[bit] for bit in range(len(window)) if setting >> bit & 1))
                total[members] = total.get(members, 0.0) + float(values[setting])
        return total

    def to_bqm(self, *, strength: float | None = None) -> dimod.BinaryQuadraticModel:
        """The landscape as a binary quadratic model: products of three and more variables become auxiliary variables.

        Args:
            strength: of the penalty that ties an auxiliary variable to its product. If None enough for any landscape: states of
                least energy are those of the landscape, and have its energy. Annealers may do better with less.
        """
        terms = self.coefficients()
        offset = terms.pop((), 0.0)
        strength = _safe_strength(terms) if strength is None else strength
        bqm = dimod.make_quadratic(dimod.BinaryPolynomial(terms, "BINARY"), strength, dimod.BINARY)
        bqm.offset += offset
        for variable in range(self.num_variables):
            bqm.add_linear(variable, 0.0)
        return bqm

    def __repr__(self) -> str:
        return f"Landscape({self.num_variables} variables, {len(self.windows)} windows of {self.windows.shape[1]})"


def _safe_strength(terms: Coefficients) -> float:
    """More than what an auxiliary variable that is not its product can gain.

    It replaces a product of at least two variables i and j in terms that hold both; setting all auxiliary variables right
    changes those terms by no more than Σ_{S ∋ i, j} |c_S| for each one that was wrong, and frees one penalty at least.
    """
    gains: dict[tuple[int, int], float] = {}
    for members, value in terms.items():
        if len(members) > 2:
            for pair in combinations(members, 2):
                gains[pair] = gains.get(pair, 0.0) + abs(value)
    return 1.01 * max(gains.values(), default=0.0) or 1.0


def ring_windows(num_variables: int, num_neighbors: int) -> Int[np.ndarray, "windows members"]:
    """Window i is variable i and the `num_neighbors` after it on a ring.

    Raises:
        ValueError: if a window would hold more variables than there are.
    """
    if not 0 <= num_neighbors < num_variables:
        raise ValueError(f"num_neighbors is {num_neighbors}; a ring of {num_variables} has 0 to {num_variables - 1}.")
    return (np.arange(num_variables)[:, None] + np.arange(num_neighbors + 1)) % num_variables


def random_landscape(num_variables: int, num_neighbors: int, *, seed: int, ring: bool = True) -> Landscape:
    """A random NK landscape: tables uniform in [0, 1), windows on a ring or of random neighbors."""
    generator = np.random.default_rng(check_whole("seed", seed, 0))
    windows = ring_windows(num_variables, num_neighbors)
    if not ring:
        for variable in range(num_variables):
            others = np.delete(np.arange(num_variables), variable)
            windows[variable, 1:] = generator.choice(others, num_neighbors, replace=False)
    return Landscape(windows, generator.random((num_variables, 2 ** (num_neighbors + 1))), num_variables)


def mobius(tables: np.ndarray) -> np.ndarray:
    """Polynomial coefficients of tables `[..., 2^n]`, set S at entry Σ_{i ∈ S} 2^i.

    Example:
        >>> mobius(np.array([1.0, 3.0, 4.0, 10.0])).tolist()
        [1.0, 2.0, 3.0, 4.0]
    """
    return _butterfly(tables, lambda low, high: (low, high - low))


def zeta(coefficients: np.ndarray) -> np.ndarray:
    """Tables of polynomial coefficients: the inverse of `mobius`."""
    return _butterfly(coefficients, lambda low, high: (low, high + low))


def walsh(tables: np.ndarray) -> np.ndarray:
    """Walsh coefficients of tables `[..., 2^n]`."""
    return _butterfly(tables, lambda low, high: (0.5 * (low + high), 0.5 * (low - high)))


def _butterfly(values: np.ndarray, pair: object) -> np.ndarray:
    values = np.array(values, dtype=np.float64)
    size = values.shape[-1]
    if size & (size - 1):
        raise ValueError(f"A table has {size} entries; a window of n variables has 2^n.")
    half = 1
    while half < size:
        view = values.reshape(*values.shape[:-1], size // (2 * half), 2, half)
        low, high = pair(view[..., 0, :].copy(), view[..., 1, :].copy())  # type: ignore[operator]
        view[..., 0, :], view[..., 1, :] = low, high
        half *= 2
    return values
