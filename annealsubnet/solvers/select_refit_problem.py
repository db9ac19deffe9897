"""What both selections share: their results, and a regression with its ridge, scaled to inputs of unit second moment."""

from dataclasses import dataclass

import numpy as np
import scipy.linalg
from numpy.typing import ArrayLike, NDArray

from annealsubnet.arguments import check_weight, check_whole

FloatArray = NDArray[np.float64]
BoolArray = NDArray[np.bool_]
IntArray = NDArray[np.int64]
UintArray = NDArray[np.uint64]

_HOT, _COLD = 0.4, 0.1  # tuned on the first layer of an MNIST network at 2, 5 and 10 % kept: see benchmarks/select_refit.py
_ROUNDING = 1e-6  # of the largest target energy: what differences of moments in float32 are below zero by chance


@dataclass(frozen=True)
class Effort:
    """What a selection took.

    Attributes:
        evaluated: exchanges whose exact change of the error was computed.
        exchanges: exchanges made.
        recomputed: inverses recomputed because rounding errors had grown.
        seconds: wall time.
    """

    evaluated: int
    exchanges: int
    recomputed: int
    seconds: float


@dataclass(frozen=True)
class Selection:
    """A choice of inputs (or units) with the least-squares refit on it.

    Attributes:
        kept: `[input, column]` of `select_inputs`, `[unit]` of `select_units`: True where it stays.
        coefficients: `[input, column]` refitted weights; 0 where the input went.
        error: `[column]` the error after the refit, in squared target units; it includes the ridge.
        effort: what it took.
    """

    kept: BoolArray
    coefficients: FloatArray
    error: FloatArray
    effort: Effort

    def __repr__(self) -> str:
        return f"Selection(kept={int(self.kept.sum())} of {self.kept.size}, error={self.error.sum():.6g})"


@dataclass(frozen=True)
class Regression:
    """min_v t_n - 2 c_n.v + v'Gv for each n, over inputs divided by the root of their second moment.

    Attributes:
        gram: `[input, input]` G, with the ridge; its diagonal is 1.
        columns: `[column, input]` right-hand sides c.
        scale: `[input]` what multiplies a coefficient for the inputs as they came.
    """

    gram: FloatArray
    columns: FloatArray
    scale: FloatArray


def checked(gram: ArrayLike, targets: ArrayLike, target_energy: ArrayLike) -> tuple[FloatArray, FloatArray, FloatArray]:
    """The three as float64 arrays `[input, input]`, `[input, column]`, `[column]`.

    Raises:
        ValueError: shapes disagree, entries are not finite, or a target energy is negative.
    """
    h, b, t = (np.asarray(a, dtype=np.float64) for a in (gram, targets, target_energy))
    b = b[:, None] if b.ndim == 1 else b
    t = np.atleast_1d(t)
    if h.ndim != 2 or h.shape[0] != h.shape[1] or h.shape[0] == 0:
        raise ValueError(f"gram has shape {h.shape}; give a square matrix over the inputs.")
    if b.ndim != 2 or b.shape[0] != h.shape[0]:
        raise ValueError(f"targets has shape {b.shape} and gram has {h.shape[0]} inputs; give targets [input, column].")
    if t.shape != (b.shape[1],):
        raise ValueError(f"target_energy has shape {t.shape} and targets has {b.shape[1]} columns; give one for each.")
    for name, array in (("gram", h), ("targets", b), ("target_energy", t)):
        if not np.isfinite(array).all():
            raise ValueError(f"{name} has {int((~np.isfinite(array)).sum())} entries that are NaN or infinite; mend them.")
    if (t < -_ROUNDING * np.abs(t).max(initial=0.0)).any():
        raise ValueError(f"target_energy has {t.min():.3g} among its entries; a second moment is not negative.")
    if not np.allclose(h, h.T, rtol=1e-4, atol=1e-4 * max(float(np.abs(h).max()), 1e-300)):
        raise ValueError(f"gram is not symmetric: entries differ by up to {np.abs(h - h.T).max():.3g}; give E[a a'].")
    return h, b, t


def to_regression(gram: FloatArray, targets: FloatArray, ridge: float) -> Regression:
    """The scaled problem with `ridge` times the mean of the diagonal added to the diagonal.

    Raises:
        TypeError, ValueError: the ridge is no finite number of at least 0, or the gram has a negative diagonal.
    """
    check_weight("ridge", ridge)
    diagonal = np.diag(gram)
    if diagonal.min() < 0.0:
        raise ValueError(f"gram has {diagonal.min():.3g} on its diagonal; a second moment has no negative entries there.")
    ridged = diagonal + ridge * diagonal.mean()
    ridged = np.where(ridged > 0.0, ridged, 1.0)  # a dead input without a ridge: nothing to explain, nothing to cost
    scale = 1.0 / np.sqrt(ridged)
    scaled = (gram + gram.T) * (0.5 * scale) * scale[:, None]
    np.fill_diagonal(scaled, 1.0)
    return Regression(np.ascontiguousarray(scaled), np.ascontiguousarray((targets * scale[:, None]).T), scale)


def inverse_of(gram: FloatArray) -> FloatArray:
    """The symmetric inverse of a positive definite matrix.

    Raises:
        ValueError: it is singular.
    """
    factor, info = scipy.linalg.lapack.dpotrf(gram, lower=1)
    if info == 0:
        lower, info = scipy.linalg.lapack.dpotri(factor, lower=1)
    if info != 0:
        raise ValueError("gram with its ridge is not positive definite; give a larger ridge.")
    lower = np.tril(lower)
    return np.ascontiguousarray(lower + np.tril(lower, -1).T)


def complement(regression: Regression) -> Regression:
    """The same problem for the inputs that go: gram H^-1 and columns H^-1 b, scaled to a unit diagonal.

    Raises:
        ValueError: the gram is singular.
    """
    inverse = inverse_of(regression.gram)
    weights = regression.columns @ inverse
    scale = 1.0 / np.sqrt(np.diag(inverse))
    inverse *= scale
    inverse *= scale[:, None]
    np.fill_diagonal(inverse, 1.0)
    return Regression(inverse, np.ascontiguousarray(weights * scale), scale)


def refit(regression: Regression, kept: BoolArray, columns: FloatArray) -> FloatArray:
    """`[column, input]` least-squares weights of all `columns` on the inputs `kept`, in scaled units."""
    chosen = np.flatnonzero(kept)
    weights = np.zeros(columns.shape)
    if chosen.size:
        gram, right = regression.gram[np.ix_(chosen, chosen)], columns[:, chosen].T
        factor, info = scipy.linalg.lapack.dpotrf(gram, lower=1)
        if info == 0:
            weights[:, chosen] = scipy.linalg.lapack.dpotrs(factor, right, lower=1)[0].T
        else:  # singular, and no ridge: the shortest solution
            weights[:, chosen] = np.linalg.lstsq(gram, right, rcond=1e-11)[0].T
    return weights


def schedule_of(temperature: str, num_sweeps: int, num_reads: int) -> FloatArray:
    """Temperatures of the sweeps in units of the problem's own scale (see `select_refit_anneal`); none for descent.

    Raises:
        ValueError: there is no such schedule.
    """
    if temperature not in ("annealed", "zero"):
        raise ValueError(f'temperature is {temperature!r}; choose "annealed" or "zero".')
    if num_sweeps < 0 or num_reads < 1:
        raise ValueError(f"num_sweeps is {num_sweeps} and num_reads {num_reads}; give at least 0 and 1.")
    if temperature == "zero" or num_sweeps == 0:
        return np.empty(0)
    return np.geomspace(_HOT, _COLD, num_sweeps)


def seeds_of(seed: int, count: int) -> NDArray[np.uint64]:
    """A stream for each column that depends on the seed and the column's index alone."""
    with np.errstate(over="ignore"):
        z = np.arange(count, dtype=np.uint64) + np.uint64(check_whole("seed", seed) % 2**64) * np.uint64(0xD1342543DE82EF95)
        for shift, factor in ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB)):
            z = (z ^ (z >> np.uint64(shift))) * np.uint64(factor)
        return z ^ (z >> np.uint64(31))
