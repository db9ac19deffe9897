"""Sparse least squares of many columns at once by splitting (ADMM): a dense solution and a sparse one pull each other close.

    V ← (G + ρ)⁻¹ (C − Y + ρ D),    D ← the nearest sparse point to V + Y/ρ,    Y ← Y + ρ (V − D)

with G of unit diagonal, and ρ growing the faster the more the support of D still changes, until it no longer does. One
eigendecomposition of G serves all columns and every ρ; all that remains are matrix products. It finds good supports of any
size in the same time, where growth by one input at a time pays for every one of them.

References:
    Boyd, Parikh, Chu, Peleato, Eckstein, *Distributed optimization and statistical learning via ADMM*, 2011, section 9.1.
    Meng, Behdin, Wang, Mazumder, *ALPS*, NeurIPS 2024, algorithms 1 (with its ρ-update) and 2 (conjugate gradients).
"""

from collections.abc import Callable

import numpy as np

from annealsubnet.solvers.select_refit_problem import BoolArray, FloatArray, IntArray

_CHECK = 3  # iterations between two looks at how much the support has changed
_GROWTH = ((0.1, 1.3), (0.005, 1.2), (0.0, 1.1))  # the penalty's growth by the share of the support that has changed

Project = Callable[[FloatArray], BoolArray]
"""From dense weights `[input, column]` to the support that is kept of them."""


def alternate(
    gram: FloatArray, targets: FloatArray, project: Project, *, penalty: float = 0.1, max_iterations: int = 300
) -> tuple[BoolArray, FloatArray]:
    """The supports and sparse weights `[input, column]` where the alternation ends.

    Args:
        gram: G, `[input, input]`, of unit diagonal.
        targets: C, `[input, column]`.
        project: what stays.
        penalty: ρ at the start; above 0.
        max_iterations: of the alternation.
    """
    values, vectors = np.linalg.eigh(gram)
    projected = vectors.T @ targets
    sparse = vectors @ (projected / np.maximum(values, 1e-12 * values[-1])[:, None])
    dual, rho = np.zeros_like(targets), penalty
    kept = seen = project(sparse)
    for step in range(1, max_iterations + 1):
        right = projected + vectors.T @ (rho * sparse - dual)
        weights = vectors @ (right / (values + rho)[:, None])
        candidate = weights + dual / rho
        kept = project(candidate)
        sparse = np.where(kept, candidate, 0.0)
        dual += rho * (weights - sparse)
        if step % _CHECK == 0:
            changed = np.count_nonzero(kept != seen)
            if changed == 0:
                break
            seen = kept
            rho *= next(growth for share, growth in _GROWTH if changed >= share * np.count_nonzero(kept))
    return kept, sparse


def largest_in_groups(sizes: IntArray, group_size: int) -> Project:
    """The projection to the `sizes[column]` largest of every group of consecutive inputs, exactly that many."""

    def project(weights: FloatArray) -> BoolArray:
        inputs, columns = weights.shape
        groups = -np.abs(weights).reshape(inputs // group_size, group_size, columns)
        ranks = np.argsort(np.argsort(groups, axis=1, kind="stable"), axis=1, kind="stable")
        return (ranks < sizes).reshape(inputs, columns)

    return project


def conjugate_gradients(gram: FloatArray, targets: FloatArray, start: FloatArray, kept: BoolArray, *, steps: int) -> FloatArray:
    """Least squares on each column's own support, all columns at once; G's unit diagonal is the preconditioner."""
    weights = np.where(kept, start, 0.0)
    residual = np.where(kept, targets - gram @ weights, 0.0)
    direction, energy = residual.copy(), np.einsum("io,io->o", residual, residual)
    floor = 1e-20 * np.maximum(np.einsum("io,io->o", targets, targets), 1e-300)
    for _ in range(steps):
        moved = np.where(kept, gram @ direction, 0.0)
        curvature = np.einsum("io,io->o", direction, moved)
        active = (energy > floor) & (curvature > 0)
        if not active.any():
            break
        step = np.divide(energy, curvature, out=np.zeros_like(energy), where=active)
        weights += step * direction
        residual -= step * moved
        fresh = np.einsum("io,io->o", residual, residual)
        direction = residual + np.divide(fresh, energy, out=np.zeros_like(energy), where=active) * direction
        energy = fresh
    return weights
