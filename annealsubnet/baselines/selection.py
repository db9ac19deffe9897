"""From scores to a mask: what every method that ranks units has in common."""

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
from jaxtyping import Bool, Float

from annealsubnet.batches import first_inputs
from annealsubnet.budgets import Budget, keep_best, largest
from annealsubnet.masks import Mask
from annealsubnet.networks import Network, Site, as_model, as_network
from annealsubnet.patterns import Pattern

Result = tuple[Mask, Any]
"""The mask, and the model in the form that came in with zeros for what the mask removes."""


def traced(model: Any, batches: Iterable[Any] | None) -> Network:
    """The network of a model, traced on the first batch or, without batches, on the model's own example.

    Raises:
        ValueError: if there is neither.
    """
    return as_network(model, None if batches is None or isinstance(model, Network) else first_inputs(batches))


def traced_on_data(model: Any, batches: Iterable[Any] | None, method: str) -> Network:
    """The network of a model for a method that reads data.

    Raises:
        ValueError: if there are no batches, with the method's name.
    """
    if batches is None:
        raise ValueError(f"{method} reads data: give batches, an iterable of (inputs, labels), instead of None.")
    return traced(model, batches)


def traced_if_needed(model: Any, batches: Iterable[Any] | None, *, unit: str, scope: str) -> Any:
    """A network; or, for weights that are ranked without data or example, just the model: its kernels are enough."""
    if isinstance(model, Network):
        return model
    model = as_model(model)
    enough = unit == "weight" and scope != "neuron" and batches is None and model.example is None
    return model if enough else traced(model, batches)


def from_scores(
    model: Any, subject: Any, scores: Mapping[str, Any], budget: Budget, *, pattern: Pattern | None = None
) -> Result:
    """Keep the units with the largest scores.

    Args:
        model: the user's, in any of its forms; it is not changed.
        subject: the `Network` (or for weights the `Model`) of it.
        scores: by site, in the shape of its units; not negative where there is a pattern of blocks, which have their sums.
        budget: how many stay where.
        pattern: that the weights keep.
    """
    kept = keep_best(scores, budget) if pattern is None else _keep_patterned(scores, budget, pattern)
    mask = Mask.of(subject, budget.unit, kept)
    return mask, mask.apply(model)


def _keep_patterned(scores: Mapping[str, Any], budget: Budget, pattern: Pattern) -> dict[str, np.ndarray]:
    """The weights with the largest scores in each group, or the blocks with the largest sums of scores."""
    kept = {name: np.ones(shape, bool) for name, shape in budget.shapes.items()}
    for name, layer in budget.layers.items():
        matrix = layer.matrix(np.asarray(scores[name], np.float64))
        kept[name] = layer.from_matrix(keep_pattern(matrix, pattern, budget.counts[name]))
    return kept


def keep_pattern(
    scores: Float[np.ndarray, "groups fan_in outputs"], pattern: Pattern, num_kept: int
) -> Bool[np.ndarray, "groups fan_in outputs"]:
    """The best weights of a kernel under a pattern; `num_kept` of each neuron's, where the pattern is of blocks."""
    groups, fan_in, outputs = scores.shape
    if not pattern.is_block:
        parts = scores.reshape(groups, fan_in // pattern.inputs, pattern.inputs, outputs)
        return largest(parts, pattern.stays, axis=2).reshape(scores.shape)
    shape = (groups, fan_in // pattern.inputs, pattern.inputs, outputs // pattern.neurons, pattern.neurons)
    blocks = largest(scores.reshape(shape).sum(axis=(2, 4)), num_kept // pattern.inputs, axis=1)
    return np.broadcast_to(blocks[:, :, None, :, None], shape).reshape(scores.shape)


def comparable(scores: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Scores of each site divided by their ℓ2 norm, so that sites can be compared; all zeros stay."""
    return {name: values / (np.linalg.norm(values) or 1.0) for name, values in scores.items()}


def sum_over_units(network: Network, site: Site, values: Mapping[str, Any]) -> np.ndarray:
    """For each unit of a site the sum of what its kernels' numbers are worth: `[units]`, float64.

    Args:
        network: traced.
        site: of neurons (the kernels are those that feed them) or heads (all four projections).
        values: arrays of the kernels' shapes, by layer.
    """
    layer_of = {layer.kernel: name for name, layer in network.layers.items()}
    totals = np.zeros(site.size + 1)
    for slot in site.zeroed:
        if slot.path not in layer_of:
            continue
        array = np.asarray(values[layer_of[slot.path]], np.float64)
        axes = range(slot.first_axis, slot.first_axis + slot.num_axes)
        sums = array.sum(axis=tuple(axis for axis in range(array.ndim) if axis not in axes))
        # An index that no unit owns (−1) falls into the extra last place.
        np.add.at(totals, slot.unit_of_index, sums.ravel())
    return totals[:-1]
