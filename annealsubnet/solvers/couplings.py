"""Couplings as the kernels see them: a dense matrix or compressed rows, behind the same four operations.

A tuple of one array is a dense float32 matrix, flattened, its rows padded to a multiple of sixteen columns. A tuple of
three arrays is a sparse matrix: row starts, column indices, float32 values. Numba compiles every kernel once for each.
"""

# Numba infers types; annotations would only repeat them.
# mypy: disable-error-code="no-untyped-def, call-arg, var-annotated"

from typing import Any

from numba import njit
from numba.extending import overload, register_jitable

from annealsubnet.solvers.vectors import add_row, kept_sum

OPTIONS: dict[str, Any] = {"cache": True, "nogil": True, "error_model": "numpy", "no_cfunc_wrapper": True}
# For functions that only compiled code calls: without the wrapper for Python (a third of the compilation, with that for C).
INNER: dict[str, Any] = OPTIONS | {"no_cpython_wrapper": True}
# For inner functions with one caller, inlined before compilation: else they are compiled by themselves and in all above them.
INLINED: dict[str, Any] = INNER | {"inline": "always"}


def add_coupling_row(couplings, i, factor, fields):
    """Add `factor` times the couplings of variable i to the fields."""
    raise NotImplementedError("compiled code only")


@overload(add_coupling_row)
def _add_coupling_row(couplings, i, factor, fields):
    def dense(couplings, i, factor, fields):
        add_row(fields, couplings[0], i * fields.size, factor)

    def sparse(couplings, i, factor, fields):
        starts, columns, values = couplings
        for entry in range(starts[i], starts[i + 1]):
            fields[columns[entry]] += factor * values[entry]

    return dense if len(couplings) == 1 else sparse


def row_source(couplings, scratch):
    """The array in which `open_row` leaves rows: the dense matrix, or `scratch`, a row of zeros."""
    raise NotImplementedError("compiled code only")


@overload(row_source)
def _row_source(couplings, scratch):
    def dense(couplings, scratch):
        return couplings[0]

    def sparse(couplings, scratch):
        return scratch

    return dense if len(couplings) == 1 else sparse


def open_row(couplings, i, scratch):
    """Make the couplings of variable i a dense row of `row_source`; returns its offset."""
    raise NotImplementedError("compiled code only")


@overload(open_row)
def _open_row(couplings, i, scratch):
    def dense(couplings, i, scratch):
        return i * scratch.size

    def sparse(couplings, i, scratch):
        starts, columns, values = couplings
        for entry in range(starts[i], starts[i + 1]):
            scratch[columns[entry]] = values[entry]
        return 0

    return dense if len(couplings) == 1 else sparse


def close_row(couplings, i, scratch):
    """Make `scratch` a row of zeros again after `open_row`."""
    raise NotImplementedError("compiled code only")


@overload(close_row)
def _close_row(couplings, i, scratch):
    def dense(couplings, i, scratch):
        pass

    def sparse(couplings, i, scratch):
        starts, columns, _ = couplings
        for entry in range(starts[i], starts[i + 1]):
            scratch[columns[entry]] = 0.0

    return dense if len(couplings) == 1 else sparse


def kept_couplings(couplings, i, signs, stride):
    """Sum, in float64, of the couplings of variable i to the variables that are 1."""
    raise NotImplementedError("compiled code only")


@overload(kept_couplings)
def _kept_couplings(couplings, i, signs, stride):
    def dense(couplings, i, signs, stride):
        return kept_sum(couplings[0], i * stride, signs)

    def sparse(couplings, i, signs, stride):
        starts, columns, values = couplings
        total = 0.0
        for entry in range(starts[i], starts[i + 1]):
            if signs[columns[entry]] < 0:
                total += values[entry]
        return total

    return dense if len(couplings) == 1 else sparse


@register_jitable
def copy_into(source, destination):
    """Copy one row over another."""
    for i in range(source.size):
        destination[i] = source[i]


@njit(**INNER)
def refresh_fields(linear, couplings, signs, fields):
    """Recompute all fields from the state, summing in float64; returns the energy.

    Fields past the last variable keep what padding they hold.
    """
    energy = 0.0
    for i in range(linear.size):
        total = kept_couplings(couplings, i, signs, fields.size)
        fields[i] = linear[i] + total
        if signs[i] < 0:
            energy += linear[i] + 0.5 * total
    return energy
