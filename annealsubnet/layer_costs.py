"""Layer costs: what a unit of a layer's error costs the network's outputs, and how layers divide a budget by it.

The curvature of the loss prices an error by position and by example as if errors were independent. In a convolutional network
they are not: the error that pruning leaves in a channel has the same sign over many positions, and where these are averaged
(the last block of a ResNet) it adds up. So each layer in turn gets its own refitted weights at the counts that it is about to
get, and the distance of the outputs that this causes (`annealsubnet.stochastic_fit.output_distance`: the divergence for
losses of classes), divided by the layer's squared error, is its cost.

In ResNet20 with a tenth of all weights kept, curvature leaves .4 % to the last convolution, which alone costs a divergence of
9.3, when a layer of the first stage costs .01 to .03 (a throwaway script).
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from annealsubnet.allocation import allocate_over_layers
from annealsubnet.batches import stream
from annealsubnet.losses import Loss, cross_entropy
from annealsubnet.networks import Network, Params
from annealsubnet.refitting import RIDGE, refit_layer
from annealsubnet.selection import Importance
from annealsubnet.solvers.select_refit import ErrorCurves
from annealsubnet.statistics.moments import Regression
from annealsubnet.stochastic_fit import output_distance

_EXAMPLES = 200
"""On which the outputs are compared."""
_ROUNDS = 2
"""Of measuring costs and dividing the budget by them: a cost depends on where it is measured."""


@dataclass(frozen=True)
class LayerCurves:
    """The error curves of a layer's neurons, and what they were computed from.

    Attributes:
        regression: of the layer's own outputs on its inputs.
        groups: for each group the curves of its neurons.
    """

    regression: Regression
    groups: tuple[ErrorCurves, ...]

    def weighted(self, weights: np.ndarray) -> list[np.ndarray]:
        """Every neuron's errors times its weight, `[groups, outputs]`."""
        return [
            curves.error[:, output] * weights[group, output]
            for group, curves in enumerate(self.groups)
            for output in range(weights.shape[1])
        ]

    def kept(self, counts: np.ndarray) -> np.ndarray:
        """The supports of `[groups, outputs]` sizes along the curves' paths: `[groups, fan_in, outputs]`."""
        kept = np.zeros(self.regression.cross.shape, bool)
        for group, curves in enumerate(self.groups):
            for output, count in enumerate(counts[group]):
                kept[group, curves.order[:count, output], output] = True
        return kept

    def error(self, counts: np.ndarray) -> float:
        """The sum of the neurons' errors at these sizes."""
        outputs = np.arange(counts.shape[1])
        return float(sum(curves.error[counts[group], outputs].sum() for group, curves in enumerate(self.groups)))


def divide(
    network: Network,
    batches: Iterable[Any],
    curves: Mapping[str, LayerCurves],
    importance: Importance,
    total: int,
    *,
    params: Params,
    loss: Loss = cross_entropy,
) -> dict[str, np.ndarray]:
    """How many of `total` weights each neuron keeps: `[groups, outputs]` for each layer.

    Args:
        network: traced.
        batches: inputs or (inputs, labels); labels are not read.
        curves: by layer.
        importance: what squared error in a layer's outputs costs, by curvature. Where there are convolutions it is only the
            start, and the cost is measured twice; it stands where no layer moves the outputs.
        total: number of weights.
        params: of the network.
        loss: whose distance measures outputs.
    """
    counts = _divided(curves, importance, total)
    if all(network.layers[name].window is None for name in curves):
        return counts
    for _ in range(_ROUNDS):
        costs = layer_costs(network, batches, curves, counts, params=params, loss=loss)
        least = min((cost for cost in costs.values() if cost > 0), default=0.0)
        if least == 0:
            return counts
        importance = {name: np.full(counts[name].shape, max(costs[name], least)) for name in curves}
        counts = _divided(curves, importance, total)
    return counts


def _divided(curves: Mapping[str, LayerCurves], importance: Importance, total: int) -> dict[str, np.ndarray]:
    found = allocate_over_layers({name: curves[name].weighted(importance[name]) for name in curves}, total)
    return {name: counts.reshape(importance[name].shape) for name, counts in found.items()}


def layer_costs(
    network: Network,
    batches: Iterable[Any],
    curves: Mapping[str, LayerCurves],
    counts: Mapping[str, np.ndarray],
    *,
    params: Params,
    loss: Loss = cross_entropy,
) -> dict[str, float]:
    """Distance of the outputs for each unit of squared error in a layer's outputs, around what the layers are to keep.

    Args:
        network: traced.
        batches: inputs or (inputs, labels); labels are not read. The first 200 examples are used.
        curves: by layer.
        counts: by layer, `[groups, outputs]`, how many inputs each neuron is to keep.
        params: of the network.
        loss: whose distance measures outputs.

    Returns:
        By layer, never negative (that would reward error); 0 for one that loses nothing.
    """
    inputs = _first(batches)
    target = _outputs(network)(params, inputs)
    costs = {}
    for name, layer in network.layers.items():
        if name not in curves:
            continue
        error = curves[name].error(counts[name])
        pruned = refit_layer(layer, curves[name].regression, curves[name].kept(counts[name]), params, ridge=RIDGE)
        moved = float(output_distance(_outputs(network)(pruned, inputs), target, loss))
        costs[name] = moved / error if error > 0 else 0.0
    return costs


def _first(batches: Iterable[Any]) -> np.ndarray:
    parts, missing = [], _EXAMPLES
    for inputs, _ in stream(batches):
        parts.append(inputs[:missing])
        missing -= len(parts[-1])
        if missing == 0:
            break
    return np.concatenate(parts)


def _outputs(network: Network) -> Any:
    return network.jitted("layer costs")(lambda params, inputs: network.apply(params, inputs))
