"""Magnitude pruning: small weights matter least."""

from collections.abc import Iterable
from typing import Any

import numpy as np

from annealsubnet.baselines.selection import Result, from_scores, sum_over_units, traced_if_needed
from annealsubnet.budgets import Keep
from annealsubnet.losses import Loss, cross_entropy
from annealsubnet.masks import weight_layers
from annealsubnet.patterns import parse_pattern, pattern_budget


def magnitude(
    model: Any,
    batches: Iterable[Any] | None = None,
    *,
    keep: Keep = None,
    unit: str = "weight",
    scope: str = "network",
    exclude: Iterable[str] = (),
    seed: int = 0,
    loss: Loss = cross_entropy,
    norm: str = "l2",
    pattern: str | None = None,
) -> Result:
    """Keep the units with the largest weights.

    For a weight |w|; for a neuron the norm of the kernel that feeds it, for a head that of its four projections,

        ‖w_u‖₁ = Σ_i |w_iu|    or    ‖w_u‖₂ = √Σ_i w_iu².

    Args:
        model, batches, keep, unit, exclude, seed, loss: as in `annealsubnet.baselines`; no data is read.
        scope: "network" compares all layers ("global magnitude"), "layer" each with itself.
        norm: "l1" or "l2", of neurons and heads; for weights both are |w|.
        pattern: as in `annealsubnet.baselines`.

    Returns:
        The mask, and the model with zeros for what it removes.

    Raises:
        ValueError: for another norm, and as `annealsubnet.budgets.budget_of`.

    Example:
        >>> import jax.numpy as jnp
        >>> from annealsubnet import from_function
        >>> model = from_function(lambda params, inputs, tap: tap.dense("out", inputs), {"out": {"kernel": jnp.eye(2) + 1}})
        >>> mask, pruned = magnitude(model, None, keep=2)
        >>> pruned["out"]["kernel"].tolist()
        [[2.0, 0.0], [0.0, 2.0]]

    References:
        Han, Pool, Tran, Dally, "Learning both Weights and Connections for Efficient Neural Networks", NeurIPS 2015, section 3
        (weights); Li, Kadav, Durdanovic, Samet, Graf, "Pruning Filters for Efficient ConvNets", ICLR 2017, section 3.1
        (filters, ℓ1).
    """
    powers = {"l1": 1, "l2": 2}
    if norm not in powers:
        raise ValueError(f"norm is 'l1' or 'l2', not {norm!r}.")
    subject = traced_if_needed(model, batches, unit=unit, scope=scope if pattern is None else "neuron")
    budget = pattern_budget(subject, pattern, keep=keep, unit=unit, scope=scope, exclude=exclude)
    kernels = {name: np.asarray(subject.params[path], np.float64) for name, path in weight_layers(subject).items()}
    if unit == "weight":
        form = None if pattern is None else parse_pattern(pattern)
        return from_scores(model, subject, {name: np.abs(kernel) for name, kernel in kernels.items()}, budget, pattern=form)
    power = powers[norm]
    raised = {name: np.abs(kernel) ** power for name, kernel in kernels.items()}
    sites = subject.sites(unit)
    scores = {name: sum_over_units(subject, sites[name], raised) ** (1 / power) for name in budget.selected}
    return from_scores(model, subject, scores, budget)
