"""Random pruning: what any method must beat."""

from collections.abc import Iterable
from typing import Any

import numpy as np

from annealsubnet.baselines.selection import Result, from_scores, traced_if_needed
from annealsubnet.budgets import Keep, budget_of
from annealsubnet.losses import Loss, cross_entropy


def random(
    model: Any,
    batches: Iterable[Any] | None = None,
    *,
    keep: Keep,
    unit: str = "weight",
    scope: str = "network",
    exclude: Iterable[str] = (),
    seed: int = 0,
    loss: Loss = cross_entropy,
) -> Result:
    """Keep units drawn uniformly: score_u ~ U(0, 1).

    Args:
        model, batches, keep, unit, scope, exclude, loss: as in `annealsubnet.baselines`; no data is read.
        seed: the same seed keeps the same units.

    Returns:
        The mask, and the model with zeros for what it removes.

    Example:
        >>> from flax import nnx
        >>> random(nnx.Linear(4, 3, rngs=nnx.Rngs(0)), None, keep=0.5, seed=0)[0]
        Mask(weight, 6 of 12 kept in 1 site)
    """
    subject = traced_if_needed(model, batches, unit=unit, scope=scope)
    budget = budget_of(subject, keep=keep, unit=unit, scope=scope, exclude=exclude)
    generator = np.random.default_rng(seed)
    # Every site draws, excluded or not, so that its draw does not depend on what is excluded.
    scores = {name: generator.random(shape) for name, shape in budget.shapes.items()}
    return from_scores(model, subject, scores, budget)
