"""Neurons: whole random neurons, chosen so that their sum returns what a teacher returns.

The last layer of a student adds up what its inputs u contribute, a_u v_u with random weights v_u. Keeping some of them leaves

    E(x) = E_n ‖s y − Σ_u x_u a_u v_u‖² = s² E‖y‖² − 2 s Σ_u x_u v_u·E[a_u y] + xᵀ (H ∘ V Vᵀ) x,      H = E[a aᵀ]

exactly quadratic again, and dense: all neurons of the layer are one problem. As no weight is refitted, s gives the teacher's
outputs the size that a choice of so many neurons has; which class is the largest does not depend on it.

References:
    T. Whitaker, Quantum Neuron Selection, GECCO 2022 companion (choosing neurons rather than weights).
"""

from typing import Any

import dimod
import numpy as np
from jaxtyping import Float

from annealsubnet.batches import Batches, first_inputs
from annealsubnet.budgets import Keep, budget_of
from annealsubnet.distillation.blocks import Block, Matching, measure_matching
from annealsubnet.masks import Mask
from annealsubnet.networks import as_network
from annealsubnet.problems import Problem
from annealsubnet.solvers import Annealer, solve


def neuron_problem(
    matching: Matching, weights: Float[np.ndarray, "neurons outputs"], *, num_kept: int, scale: float | None = None
) -> Problem:
    """The choice of `num_kept` neurons, its energy the error in units of the target's mean square.

    Args:
        matching: of the layer that reads the neurons.
        weights: of that layer.
        num_kept: how many stay.
        scale: s; by default what makes the target as large as the sum of so many random contributions.
    """
    own = np.diag(matching.gram) * np.square(weights).sum(axis=1)
    energy = max(float(matching.energy.sum()), 1e-30)
    scale = float(np.sqrt(num_kept / len(own) * own.sum() / energy)) if scale is None else scale
    total = scale**2 * energy
    couplings = 2 * matching.gram * (weights @ weights.T) / total
    np.fill_diagonal(couplings, 0.0)
    linear = (own - 2 * scale * (matching.cross * weights).sum(axis=1)) / total
    return Problem(linear, 0.5 * (couplings + couplings.T), offset=1.0, num_kept=num_kept)


def distill_neurons(
    teacher: Any,
    student: Any,
    batches: Batches,
    *,
    keep: Keep,
    scale: float | None = None,
    sampler: dimod.Sampler | None = None,
    seed: int,
    **options: Any,
) -> Mask:
    """The neurons of a random student's last hidden layer that together return what the teacher returns.

    Args:
        teacher: trained, in any form that `distill_ticket` takes.
        student: with random weights and as many outputs; its last layer reads the neurons of one layer.
        batches: of inputs or (inputs, labels); labels are not read.
        keep: how many neurons stay: a fraction in (0, 1] or a count.
        scale: the teacher's outputs are multiplied by it; by default see `neuron_problem`.
        sampler: any `dimod.Sampler`; `Annealer()` if None.
        seed: the same seed gives the same mask.
        options: of the sampler.

    Returns:
        A mask of the neurons of that layer.

    Raises:
        ValueError: for outputs that differ in number, a last layer that reads something else than a layer's neurons, or bad
            batches.

    Example:
        >>> from annealsubnet.examples import load, named_network
        >>> from annealsubnet.examples.architectures import MLP
        >>> from flax import nnx
        >>> data, named = load("digits", seed=0), named_network("digits-mlp")
        >>> batches = data.batches("train", 500, normalize=named.normalize)
        >>> distill_neurons(named.build(seed=0), MLP((8, 8, 1), (64, 10), rngs=nnx.Rngs(1)), batches, keep=16, seed=0)
        Mask(neuron, 16 of 64 kept in 1 site)
    """
    example = first_inputs(batches)
    theirs, ours = as_network(teacher, example), as_network(student, example)
    wanted, last = list(theirs.layers.values())[-1], list(ours.layers.values())[-1]
    sites = [site for site in ours.neurons.values() if site.size == last.fan_in]
    if wanted.outputs != last.outputs or not sites:
        raise ValueError(
            f"The student's last layer {last.name!r} reads {last.fan_in} inputs and returns {last.outputs}; it must read the "
            f"neurons of one layer and return {wanted.outputs}, as the teacher's {wanted.name!r} does."
        )
    site = sites[-1].name
    budget = budget_of(ours, keep={site: keep}, unit="neuron", scope="layer")
    matching = measure_matching(theirs, ours, ours.params, Block(wanted, None, last), batches)
    weights = np.asarray(last.matrix(np.asarray(ours.params[last.kernel], np.float64))[0])
    problem = neuron_problem(matching, weights, num_kept=budget.total, scale=scale)
    found = solve(problem, Annealer() if sampler is None else sampler, seed=seed, **options)
    return Mask.of(ours, "neuron", {site: np.asarray(found.best, bool)})
