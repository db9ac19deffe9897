"""Energies of states in float64, row by row of a dense matrix, in a kernel of our own.

A matrix product would do; but the threads of a BLAS library go on spinning for a tenth of a second after each, and while
they do, the next annealing has half a processor less (1.3 times on two threads instead of 1.8).
"""

# Numba infers types; annotations would only repeat them.
# mypy: disable-error-code="no-untyped-def, call-arg, var-annotated"

import numpy as np
from numba import njit

from annealsubnet.solvers.couplings import OPTIONS


@njit(**OPTIONS)
def dense_energies(linear, couplings, states, begin, end, energies):
    """linear·x + ½ xᵀ couplings x, into `energies`, for the rows x (0 or 1, int8) of `states` from `begin` to `end`."""
    size = linear.size
    fields = np.zeros((end - begin, size))
    energies[begin:end] = 0.0
    # A row of couplings stays in the nearest cache while it is added for every read that has its variable.
    for i in range(size):
        for read in range(begin, end):
            if states[read, i] != 0:
                energies[read] += linear[i]
                for j in range(size):
                    fields[read - begin, j] += couplings[i, j]
    for read in range(begin, end):
        for j in range(size):
            if states[read, j] != 0:
                energies[read] += 0.5 * fields[read - begin, j]
