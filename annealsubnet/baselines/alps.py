"""ALPS: the weights of a whole layer under a count, by the alternating direction method of multipliers."""

from collections.abc import Iterable
from functools import partial
from typing import Any

import numpy as np

from annealsubnet.arguments import check_weight
from annealsubnet.baselines.layerwise import Choice, Request, Task, choose_by_layer, damped_target
from annealsubnet.baselines.selection import Result, keep_pattern
from annealsubnet.budgets import Keep, largest
from annealsubnet.losses import Loss, cross_entropy
from annealsubnet.solvers import splitting


def alps(
    model: Any,
    batches: Iterable[Any] | None,
    *,
    keep: Keep = None,
    unit: str = "weight",
    scope: str = "layer",
    exclude: Iterable[str] = (),
    seed: int = 0,
    loss: Loss = cross_entropy,
    pattern: str | None = None,
    ridge: float = 0.01,
    penalty: float = 0.1,
    max_iterations: int = 300,
    refinement: int = 10,
) -> Result:
    """Alternate between a dense solution W that is pulled towards a sparse one D, and the nearest sparse one to W.

        W ← (H + ρ)⁻¹ (H Ŵ − V + ρ D),    D ← the k largest entries of W + V/ρ,    V ← V + ρ (W − D)

    with inputs scaled to H_ii = 1, and ρ growing the faster the more D's support still changes, until it no longer does. Then
    conjugate gradients on the support refine the weights. The k largest are of the whole layer; with scope "neuron" those of
    each neuron, of which k is its own count. Inputs that are always zero go first.

    Args:
        model, batches, keep, unit, scope, exclude, seed, loss, pattern: as in `annealsubnet.baselines`; labels are not read.
        ridge: in units of the mean of H's diagonal.
        penalty: ρ at the start; above 0.
        max_iterations: of the alternation.
        refinement: steps of conjugate gradients.

    Returns:
        The mask, and the model with the refined weights.

    Raises:
        ValueError: for a ridge or penalty that is not finite and above 0, and as
            `annealsubnet.baselines.layerwise.choose_by_layer`.

    References:
        Meng, Behdin, Wang, Mazumder, "ALPS: Improved Optimization for Highly Sparse One-Shot Pruning for Large Language
        Models", NeurIPS 2024, algorithm 1 (ADMM and its ρ-update) and 2 (vectorized conjugate gradients).
    """
    check_weight("ridge", ridge, above_zero=True)
    check_weight("penalty", penalty, above_zero=True)
    request = Request("alps", keep, unit, scope, exclude, pattern, loss)
    choose = partial(alternate, ridge=ridge, penalty=penalty, max_iterations=max_iterations, refinement=refinement)
    return choose_by_layer(model, batches, request, choose, sequential=True)


def alternate(task: Task, *, ridge: float, penalty: float, max_iterations: int, refinement: int) -> Choice:
    """ADMM for one layer."""
    gram, wanted = damped_target(task.gram, task.weights, ridge)
    scale = np.sqrt(np.diag(gram))
    gram = gram / scale / scale[:, None]
    target = gram @ (wanted * scale[:, None])
    kept, sparse = splitting.alternate(
        gram, target, partial(_project, task=task), penalty=penalty, max_iterations=max_iterations
    )
    refined = splitting.conjugate_gradients(gram, target, sparse, kept, steps=refinement)
    dead = np.diag(task.gram)[:, None] <= 0
    return kept, np.where(dead & kept, task.weights, refined / scale[:, None])


def _project(weights: np.ndarray, task: Task) -> np.ndarray:
    """The largest entries: of each group of a pattern, of each neuron, or of the layer."""
    if task.pattern is not None:
        return keep_pattern(np.abs(weights)[None], task.pattern, 0)[0]
    if task.by_neuron:
        return splitting.largest_in_groups(task.num_kept, len(weights))(weights)
    return largest(np.abs(weights).ravel(), int(task.num_kept.sum())).reshape(weights.shape)
