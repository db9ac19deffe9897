"""Compiled exchanges of the inputs of neurons on the error without a refit, (w − x∘w)' H (w − x∘w): steepest descent."""

import numpy as np
from numba import njit

from annealsubnet.solvers.select_refit_kernels import MATH
from annealsubnet.solvers.select_refit_problem import BoolArray, FloatArray


@njit(cache=True, nogil=True, fastmath=MATH)
def swap_columns(
    gram: FloatArray,
    weights: FloatArray,
    kept: BoolArray,
    size: int,
    max_swaps: int,
) -> None:
    """The best exchange within a group of `size` inputs, again and again, for each row of `weights`; `kept` is changed."""
    inputs = gram.shape[0]
    field, out, back = np.empty(inputs), np.empty(inputs), np.empty(inputs)
    for n in range(weights.shape[0]):
        w, x = weights[n], kept[n]
        field[:] = 0.0
        for j in range(inputs):
            if not x[j]:
                for i in range(inputs):
                    field[i] += gram[j, i] * w[j]
        for _ in range(max_swaps):
            total = 0.0
            for i in range(inputs):
                out[i] = 2.0 * w[i] * field[i] + w[i] * w[i] * gram[i, i]
                back[i] = -2.0 * w[i] * field[i] + w[i] * w[i] * gram[i, i]
                if not x[i]:
                    total += w[i] * field[i]
            best, p, u = -1e-10 * total, -1, -1
            for i in range(inputs):
                if x[i]:
                    first, row, twice = i // size * size, gram[i], 2.0 * w[i]
                    for j in range(first, min(first + size, inputs)):
                        change = out[i] + back[j] - twice * w[j] * row[j]
                        if change < best and not x[j]:
                            best, p, u = change, i, j
            if p < 0:
                break
            x[p], x[u] = False, True
            for i in range(inputs):
                field[i] += gram[p, i] * w[p] - gram[u, i] * w[u]
