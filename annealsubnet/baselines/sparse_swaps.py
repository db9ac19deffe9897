"""SparseSwaps: exchanges of weights within each neuron on the error without refit, until none helps."""

from collections.abc import Iterable
from functools import partial
from typing import Any

import numpy as np

from annealsubnet.baselines.layerwise import Choice, Request, Task, choose_by_layer
from annealsubnet.baselines.selection import Result
from annealsubnet.baselines.wanda import keep_by_input_norm
from annealsubnet.budgets import Keep
from annealsubnet.losses import Loss, cross_entropy
from annealsubnet.solvers.input_swaps import swap_columns


def sparse_swaps(
    model: Any,
    batches: Iterable[Any] | None,
    *,
    keep: Keep = None,
    unit: str = "weight",
    scope: str = "neuron",
    exclude: Iterable[str] = (),
    seed: int = 0,
    loss: Loss = cross_entropy,
    pattern: str | None = None,
    max_swaps: int = 1000,
) -> Result:
    """From Wanda's mask, make in each neuron the best exchange of a kept for a removed weight, until none lowers the error.

    With g = H ((1 − x) ∘ w), exchanging the kept p for the removed u changes (w − x∘w)' H (w − x∘w) by

        2 w_p g_p + w_p² H_pp − 2 w_u g_u + w_u² H_uu − 2 w_p w_u H_pu;

    what stays is not changed.

    Args:
        model, batches, keep, unit, scope, exclude, seed, loss, pattern: as in `annealsubnet.baselines`; labels are not read.
        max_swaps: of one neuron.

    Returns:
        The mask, and the model with zeros for what it removes.

    Raises:
        ValueError: as `annealsubnet.baselines.layerwise.choose_by_layer`.

    References:
        "SparseSwaps: Tractable LLM Pruning Mask Refinement at Scale", 2025 (arXiv:2512.10922), 1-swaps from the Gram matrix.
    """
    request = Request("sparse-swaps", keep, unit, scope, exclude, pattern, loss)
    return choose_by_layer(model, batches, request, partial(refine, max_swaps=max_swaps), sequential=True)


def refine(task: Task, *, max_swaps: int) -> Choice:
    """Wanda's mask of one layer, refined."""
    kept, _ = keep_by_input_norm(task)
    size = len(task.weights) if task.pattern is None else task.pattern.inputs
    columns = np.ascontiguousarray(kept.T)
    swap_columns(np.ascontiguousarray(task.gram), np.ascontiguousarray(task.weights.T), columns, size, max_swaps)
    return columns.T, task.weights * columns.T
