"""Wanda: weights times the norm of what they multiply."""

from collections.abc import Iterable
from typing import Any

import numpy as np

from annealsubnet.baselines.layerwise import Choice, Request, Task, choose_by_layer
from annealsubnet.baselines.selection import Result, keep_pattern
from annealsubnet.budgets import Keep
from annealsubnet.losses import Loss, cross_entropy


def wanda(
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
) -> Result:
    """Keep, among the weights of each neuron, those with the largest score_ij = |w_ij| ‖a_i‖₂; what stays is not changed.

    Args:
        model, batches, keep, unit, scope, exclude, seed, loss, pattern: as in `annealsubnet.baselines`; labels are not read.

    Returns:
        The mask, and the model with zeros for what it removes.

    Raises:
        ValueError: as `annealsubnet.baselines.layerwise.choose_by_layer`.

    Example:
        >>> import jax.numpy as jnp
        >>> from annealsubnet import from_function
        >>> model = from_function(lambda params, x, tap: tap.dense("out", x), {"out": {"kernel": jnp.array([[2.0], [1.0]])}})
        >>> wanda(model, [np.array([[1.0, 3.0]], np.float32)], keep=1)[0].kept["out"].tolist()
        [[False], [True]]

    References:
        Sun, Liu, Bair, Kolter, "A Simple and Effective Pruning Approach for Large Language Models", ICLR 2024, equation 1.
    """
    request = Request("wanda", keep, unit, scope, exclude, pattern, loss)
    return choose_by_layer(model, batches, request, keep_by_input_norm, sequential=True)


def keep_by_input_norm(task: Task) -> Choice:
    """The scores of one layer, compared within each neuron."""
    scores = np.abs(task.weights) * np.sqrt(np.diag(task.gram))[:, None]
    if task.pattern is not None:
        kept = keep_pattern(scores[None], task.pattern, 0)[0]
    else:
        ranks = np.argsort(np.argsort(-scores, axis=0, kind="stable"), axis=0)
        kept = ranks < task.num_kept
    return kept, task.weights * kept
