"""Greedy selection with exact refits: backward elimination (Optimal Brain Compression) and forward selection.

Both follow the error e(S) = w'Hw − b_S' (H_SS)⁻¹ b_S (b = Hw) of the refitted weights on a support S along one path of nested
supports, from all inputs down or from none up. The errors along the path of every neuron are its by-product, and a budget over
several neurons and layers is divided by them: where one more weight would save least, it goes.
"""

from collections.abc import Iterable
from functools import partial
from typing import Any, Literal

import numpy as np

from annealsubnet.allocation import allocate
from annealsubnet.arguments import check_weight
from annealsubnet.baselines.layerwise import Choice, Request, Task, choose_by_layer, damped_target, shared_counts
from annealsubnet.baselines.selection import Result
from annealsubnet.budgets import Budget, Keep
from annealsubnet.layer_costs import LayerCurves, divide
from annealsubnet.losses import Loss, cross_entropy
from annealsubnet.networks import Network
from annealsubnet.shares import importance_of
from annealsubnet.solvers.select_refit import error_curves, select_inputs
from annealsubnet.statistics.moments import input_moments, self_regression

Path = Literal["forward", "backward"]

_LEAST_RIDGE = 1e-9
"""Beside the one that H has by then: dependent inputs of a ridge of 0."""


def obc(
    model: Any,
    batches: Iterable[Any] | None,
    *,
    keep: Keep = None,
    unit: str = "weight",
    scope: str = "network",
    exclude: Iterable[str] = (),
    seed: int = 0,
    loss: Loss = cross_entropy,
    pattern: str | None = None,
    ridge: float = 0.01,
) -> Result:
    """Remove the weight of each neuron whose removal costs least when the others are refitted, again and again (ExactOBS).

    Removing w_p costs w_p² / [H⁻¹]_pp, the others then change by −w_p / [H⁻¹]_pp · [H⁻¹]_:p, and H⁻¹ loses row and column p
    by a rank-one update. All layers see the dense network's inputs. With scope "network" errors of different layers are weighed
    by the loss's mean Gauss-Newton curvature in their outputs, in convolutional networks by what they are measured to cost, as
    `prune` weighs them (the global step, which divides the budget by the traces).

    Args:
        model, batches, keep, unit, scope, exclude, seed, loss, pattern: as in `annealsubnet.baselines`; labels are not read.
        ridge: in units of the mean of H's diagonal, to which it is added: it draws the refitted weights towards the dense ones.

    Returns:
        The mask, and the model with the refitted weights.

    Raises:
        ValueError: for a ridge that is not finite and at least 0, and as `annealsubnet.baselines.layerwise.choose_by_layer`.

    Example:
        >>> import jax.numpy as jnp
        >>> from annealsubnet import from_function
        >>> model = from_function(lambda params, x, tap: tap.dense("out", x), {"out": {"kernel": jnp.array([[1.0], [2.0]])}})
        >>> mask, pruned = obc(model, [np.array([[1.0, 1.0], [0.9, 1.1]], np.float32)], keep=1)
        >>> np.asarray(pruned["out"]["kernel"], np.float64).round(1).tolist()
        [[0.0], [2.9]]

    References:
        Frantar, Singh, Alistarh, "Optimal Brain Compression", NeurIPS 2022, equation 4, algorithms 1 and 2, and section 5.
    """
    check_weight("ridge", ridge)
    request = Request("obc", keep, unit, scope, exclude, pattern, loss)
    choose = partial(follow_path, path="backward", ridge=ridge)
    return choose_by_layer(model, batches, request, choose, sequential=False, counts=partial(_traced_counts, ridge=ridge))


def forward(
    model: Any,
    batches: Iterable[Any] | None,
    *,
    keep: Keep = None,
    unit: str = "weight",
    scope: str = "network",
    exclude: Iterable[str] = (),
    seed: int = 0,
    loss: Loss = cross_entropy,
    pattern: str | None = None,
    ridge: float = 0.01,
) -> Result:
    """Add to each neuron the input that lowers the error of the refitted weights most (orthogonal least squares).

    Input j lowers it by r_j² / s_j, with r the residual's moments b − H_:S v and s the Schur complement's diagonal.

    Args:
        model, batches, keep, unit, scope, exclude, seed, loss, pattern: as in `annealsubnet.baselines`; labels are not read.
        ridge: in units of the mean of H's diagonal.

    Returns:
        The mask, and the model with the refitted weights.

    Raises:
        ValueError: for a ridge that is not finite and at least 0, and as `annealsubnet.baselines.layerwise.choose_by_layer`.

    References:
        Chen, Billings, Luo, "Orthogonal least squares methods and their application to non-linear system identification",
        International Journal of Control 1989, section 3.
    """
    check_weight("ridge", ridge)
    request = Request("forward", keep, unit, scope, exclude, pattern, loss)
    return choose_by_layer(model, batches, request, partial(follow_path, path="forward", ridge=ridge), sequential=False)


def follow_path(task: Task, *, path: Path, ridge: float) -> Choice:
    """The support of each neuron along its path, and the refitted weights."""
    gram, wanted = damped_target(task.gram, task.weights, ridge)
    targets = gram @ wanted
    found = select_inputs(
        gram,
        targets,
        np.einsum("io,io->o", wanted, targets),
        task.num_kept if task.pattern is None else None,
        pattern=None if task.pattern is None else task.pattern.text,
        start=path,
        temperature="greedy",
        ridge=_LEAST_RIDGE,
        seed=0,
    )
    return found.kept, found.coefficients


def _traced_counts(
    network: Network, batches: Iterable[Any], budget: Budget, loss: Loss, *, ridge: float
) -> dict[str, np.ndarray]:
    """Counts by the traces of backward elimination of all neurons that share the budget."""
    if budget.scope == "neuron":
        return shared_counts(network, batches, budget, loss)
    importance = importance_of(network, batches, params=network.params, loss=loss)
    moments = input_moments(network, batches, layers=budget.selected)
    curves: dict[str, LayerCurves] = {}
    for name in budget.selected:
        regression = self_regression(network.layers[name], moments[name], network.params)
        # OBC leaves biases alone: its errors are those of uncentered inputs.
        weights = network.layers[name].weight_matrix(network.params)
        groups = [damped_target(*group, ridge) for group in zip(moments[name].gram, weights, strict=True)]
        found = [
            error_curves(
                gram, gram @ wanted, np.einsum("io,ij,jo->o", wanted, gram, wanted), method="backward", ridge=_LEAST_RIDGE
            )
            for gram, wanted in groups
        ]
        curves[name] = LayerCurves(regression, tuple(found))
    if budget.scope == "network":
        return divide(network, batches, curves, importance, budget.total, params=network.params, loss=loss)
    weighted = {name: curves[name].weighted(importance[name]) for name in curves}
    return {name: allocate(weighted[name], budget.counts[name]).counts.reshape(importance[name].shape) for name in curves}
