"""Layerwise distillation: a random student, masked block by block until it computes what a trained teacher computes.

Example:
    >>> import numpy as np
    >>> rng = np.random.default_rng(0)
    >>> inputs = rng.normal(size=(100, 3)).repeat(4, axis=1)  # each of three inputs four times
    >>> targets = inputs[:, ::4] @ np.array([[0.9], [-0.4], [0.2]])
    >>> sums = sums_of(rng.normal(size=(12, 1)), inputs.T @ inputs, inputs.T @ targets, (targets**2).sum(0))
    >>> state = anneal_sums(sums, num_kept=6, seed=0)
    >>> sums, int(state.sum()) <= 6, bool(sums.errors(state)[0] < 0.3 * sums.energy[0])
    (Sums(1 neurons of 12 random weights over 3 sources), True, True)
"""

from annealsubnet.distillation.anneal import Schedule, anneal_sums
from annealsubnet.distillation.distill import Alternation, Fit, Solve, distill_ticket
from annealsubnet.distillation.neurons import distill_neurons
from annealsubnet.distillation.students import draw_student
from annealsubnet.distillation.sums import Sums, sums_of

__all__ = [
    "Alternation",
    "Fit",
    "Schedule",
    "Solve",
    "Sums",
    "anneal_sums",
    "distill_neurons",
    "distill_ticket",
    "draw_student",
    "sums_of",
]
