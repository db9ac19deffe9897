"""Neurons: whole random neurons, chosen so that their sum returns what a teacher returns.

The last layer of a student adds up what its inputs u contribute, a_u v_u with random weights v_u. Keeping some of them leaves

    E(x) = E_n ‖s y − Σ_u x_u a_u v_u‖² = s² E‖y‖² − 2 s Σ_u x_u v_u·E[a_u y] + xᵀ (H ∘ V Vᵀ) x,      H = E[a aᵀ]

exactly quadratic again, and dense: all neurons of the layer are one problem. (A bias b of the layer is part of what it returns:
the sum is to come to s y − b.) As no weight is refitted, s gives the teacher's outputs the size that a choice of so many
neurons has; which class is the largest does not depend on it.

References:
    T. Whitaker, Quantum Neuron Selection, GECCO 2022 companion (choosing neurons rather than weights).
"""

from typing import Any

import dimod
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float, Int

from annealsubnet.batches import Batches, first_inputs
from annealsubnet.budgets import Keep, budget_of
from annealsubnet.distillation.blocks import CHECKED, Block, Matching, measure_matching
from annealsubnet.masks import Mask
from annealsubnet.networks import Layer, Network, as_network
from annealsubnet.networks.sites import Site
from annealsubnet.problems import Problem
from annealsubnet.solvers import Annealer, solve


def neuron_problem(
    matching: Matching,
    weights: Float[np.ndarray, "inputs outputs"],
    *,
    num_kept: int,
    scale: float | None = None,
    reads: Int[np.ndarray, "inputs"] | None = None,
) -> Problem:
    """The choice of `num_kept` neurons, its energy the error in units of the target's mean square.

    Args:
        matching: of the layer that reads the neurons.
        weights: of that layer.
        num_kept: how many stay.
        scale: s; by default what makes the target as large as the sum of so many random contributions.
        reads: the neuron behind each input of the layer, which reads all of them; by default inputs are neurons.
    """
    products = _products(matching, weights, reads)
    scale = _balanced(matching, products, num_kept) if scale is None else scale
    total = scale**2 * max(float(matching.energy.sum()), 1e-30)
    cross = (matching.cross * weights).sum(axis=1)
    linear = (np.diag(products) - 2 * scale * (cross if reads is None else _by_neuron(cross, reads))) / total
    couplings = (products + products.T) / total
    np.fill_diagonal(couplings, 0.0)
    return Problem(linear, couplings, offset=1.0, num_kept=num_kept)


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
        student: with random weights and as many outputs; its last layer, whose outputs are the network's, reads all neurons
            of one layer.
        batches: of inputs or (inputs, labels); labels are not read.
        keep: how many neurons stay: a fraction in (0, 1] or a count.
        scale: the teacher's outputs are multiplied by it; by default see `neuron_problem`.
        sampler: any `dimod.Sampler`; `Annealer()` if None.
        seed: the same seed gives the same mask.
        options: of the sampler.

    Returns:
        A mask of the neurons of that layer.

    Raises:
        ValueError: for outputs that differ in number, a last layer that reads something else than a layer's neurons or of whose
            neurons something is left when they are removed (an activation that is not 0 at 0), a scale that is not above 0, or
            bad batches.

    Example:
        >>> from annealsubnet.examples import load, named_network
        >>> from annealsubnet.examples.architectures import MLP
        >>> from flax import nnx
        >>> data, named = load("digits", seed=0), named_network("digits-mlp")
        >>> batches = data.batches("train", 500, normalize=named.normalize)
        >>> distill_neurons(named.build(seed=0), MLP((8, 8, 1), (64, 10), rngs=nnx.Rngs(1)), batches, keep=16, seed=0)
        Mask(neuron, 16 of 64 kept in 1 site)
    """
    if scale is not None and not 0 < scale < np.inf:
        raise ValueError(f"scale is {scale}; give what the teacher's outputs are multiplied by, above 0.")
    example = first_inputs(batches)
    theirs, ours = as_network(teacher, example), as_network(student, example)
    wanted, last = list(theirs.layers.values())[-1], list(ours.layers.values())[-1]
    site = _read_by(ours, last, example)
    if wanted.outputs != last.outputs or site is None:
        raise ValueError(
            f"The student's last layer {last.name!r} reads {last.fan_in} inputs and returns {last.outputs}; it must read "
            f"all neurons of one layer, and nothing of those that are removed, and return {wanted.outputs}, as the teacher's "
            f"{wanted.name!r} does."
        )
    budget = budget_of(ours, keep={site.name: keep}, unit="neuron", scope="layer")
    weights = last.weight_matrix(ours.params)[0]
    reads, block = site.consumers[last.name][0], Block(wanted, None, last)

    def measured(scale: float) -> Matching:
        """With bias b the sum must return s y − b = s (y − b/s)."""
        bias = {} if last.bias is None else {last.bias: ours.params[last.bias] / scale}
        return measure_matching(theirs, ours, {**ours.params, **bias}, block, batches)

    matching = measured(np.inf)
    scale = _balanced(matching, _products(matching, weights, reads), budget.total) if scale is None else scale
    if last.bias is not None and np.any(np.asarray(ours.params[last.bias])):
        matching = measured(scale)
    problem = neuron_problem(matching, weights, num_kept=budget.total, scale=scale, reads=reads)
    found = solve(problem, Annealer() if sampler is None else sampler, seed=seed, **options)
    return Mask.of(ours, "neuron", {site.name: np.asarray(found.best, bool)})


def _products(
    matching: Matching, weights: np.ndarray, reads: Int[np.ndarray, "inputs"] | None
) -> Float[np.ndarray, "neurons neurons"]:
    """Second moments of what neurons contribute, H ∘ V Vᵀ with the inputs of each neuron added up."""
    products = matching.gram * (weights @ weights.T)
    return products if reads is None else _by_neuron(_by_neuron(products, reads).T, reads)


def _by_neuron(values: np.ndarray, reads: Int[np.ndarray, "inputs"]) -> np.ndarray:
    """Values of inputs, along the first axis, added up over the inputs of each neuron."""
    sums = np.zeros((int(reads.max()) + 1, *values.shape[1:]))
    np.add.at(sums, reads, values)
    return sums


def _balanced(matching: Matching, products: np.ndarray, num_kept: int) -> float:
    """What makes the target as large as the sum of so many random contributions."""
    return float(np.sqrt(num_kept / len(products) * np.trace(products) / max(float(matching.energy.sum()), 1e-30)))


def _read_by(student: Network, last: Layer, example: np.ndarray) -> Site | None:
    """The site whose neurons, every one, are all that the last layer reads, each zero when removed; None if there is none."""
    sites = [site for site in student.neurons.values() if last.name in site.consumers]
    if len(sites) != 1 or sites[0].normalized_by or last.groups > 1:
        return None
    if not np.array_equal(np.unique(sites[0].consumers[last.name]), np.arange(sites[0].size)):
        return None
    closed = {sites[0].name: jnp.zeros(sites[0].size)}
    outputs, records = student.run(student.params, example[:CHECKED], gates=closed, record=(last.name,))
    read, returned = (np.asarray(array) for array in records[last.name])
    return None if read.any() or not np.array_equal(np.ravel(outputs), returned.ravel()) else sites[0]
