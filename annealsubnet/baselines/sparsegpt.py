"""SparseGPT: one pass over the inputs, in which what is removed is made up for by the inputs that come after."""

from collections.abc import Iterable
from functools import partial
from typing import Any

import numpy as np
import scipy.linalg

from annealsubnet.arguments import check_weight, check_whole
from annealsubnet.baselines.layerwise import Choice, Request, Task, choose_by_layer, damped
from annealsubnet.baselines.selection import Result
from annealsubnet.budgets import Keep, largest
from annealsubnet.losses import Loss, cross_entropy
from annealsubnet.solvers.splitting import largest_in_groups


def sparsegpt(
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
    block: int = 128,
    ridge: float = 0.01,
) -> Result:
    """Go through the inputs in order; remove the weights with the smallest OBS error, and let the inputs after them adapt.

    With U the upper Cholesky factor of (H + ridge)⁻¹, removing w_j costs w_j² / U_jj² when only inputs from j on may change;
    they change by −(w_j / U_jj) U_j,j:. The weights of `block` inputs are compared over all neurons when the pass reaches them;
    with scope "neuron", and in an N:M group, within each neuron. A block keeps its share of the count by its inputs, rounded so
    that the blocks up to input i together keep the nearest whole number to count · i / fan-in, and all of them the count.
    Inputs that are always zero go first.

    Args:
        model, batches, keep, unit, scope, exclude, seed, loss, pattern: as in `annealsubnet.baselines`; labels are not read.
        block: inputs whose masks are chosen at a time.
        ridge: in units of the mean of H's diagonal.

    Returns:
        The mask, and the model with the adapted weights.

    Raises:
        ValueError: for a block below 1 or a ridge that is not finite and above 0, and as
            `annealsubnet.baselines.layerwise.choose_by_layer`.

    Example:
        >>> import jax.numpy as jnp
        >>> from annealsubnet import from_function
        >>> model = from_function(lambda params, x, tap: tap.dense("out", x), {"out": {"kernel": jnp.array([[1.0], [2.0]])}})
        >>> mask, pruned = sparsegpt(model, [np.array([[1.0, 1.0]], np.float32)], keep=1)
        >>> pruned["out"]["kernel"].round(1).tolist()
        [[0.0], [3.0]]

    References:
        Frantar, Alistarh, "SparseGPT: Massive Language Models Can Be Accurately Pruned in One-Shot", ICML 2023, algorithm 1.
    """
    check_whole("block", block, 1)
    check_weight("ridge", ridge, above_zero=True)
    request = Request("sparsegpt", keep, unit, scope, exclude, pattern, loss)
    return choose_by_layer(model, batches, request, partial(prune_in_order, block=block, ridge=ridge), sequential=True)


def prune_in_order(task: Task, *, block: int, ridge: float) -> Choice:
    """The pass over one layer."""
    weights = task.weights.copy()
    inputs, outputs = weights.shape
    inverse = np.linalg.inv(damped(task.gram, ridge))
    factor = scipy.linalg.cholesky(0.5 * (inverse + inverse.T))
    # An input that is always zero goes first: its ridge alone would price it by its weight, which no training has moved.
    root = np.where(np.diag(task.gram) > 0, 1.0 / np.diag(factor), 0.0)[:, None]
    kept = np.ones(weights.shape, bool)
    if task.pattern is not None:
        block = max(block - block % task.pattern.inputs, task.pattern.inputs)
    share = task.num_kept.sum() / weights.size
    for first in range(0, inputs, block):
        last = min(first + block, inputs)
        if task.pattern is None:
            scores = (weights[first:last] * root[first:last]) ** 2
            if task.by_neuron:
                until, before = (np.rint(task.num_kept * end / inputs).astype(int) for end in (last, first))
                kept[first:last] = largest_in_groups(until - before, last - first)(scores)
            else:
                count = round(share * last * outputs) - round(share * first * outputs)
                kept[first:last] = largest(scores.ravel(), count).reshape(scores.shape)
        errors = np.zeros((last - first, outputs))
        for j in range(first, last):
            if task.pattern is not None and j % task.pattern.inputs == 0:
                group = slice(j, j + task.pattern.inputs)
                scores = (weights[group] * root[group]) ** 2
                kept[group] = largest(scores, task.pattern.stays, axis=0)
            errors[j - first] = np.where(kept[j], 0.0, weights[j] / factor[j, j])
            weights[j:last] -= factor[j, j:last, None] * errors[j - first]
        weights[last:] -= factor[first:last, last:].T @ errors
    return kept, weights * kept
