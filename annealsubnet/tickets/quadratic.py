"""The quadratic model of the loss in every neuron's own fan-in, around a mask.

Around the mask m, neuron n of a layer with weights w, inputs of second moment H and curvature h̄ (`statistics.curvature`) has

    E(x) = g · (x − m) + ½ γ h̄ (w ∘ (x − m))ᵀ H (w ∘ (x − m)) + λ |x − m| + μ |x|

with g the gradient of the loss by its gates, λ the price of a flip and μ that of a kept unit. The block of a neuron takes the
others for fixed, which they are not: all neurons move at once, so γ damps each.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from annealsubnet.arguments import check_weight, check_whole
from annealsubnet.masks import Mask
from annealsubnet.networks import Layer
from annealsubnet.statistics.curvature import sketched_curvature
from annealsubnet.statistics.gradients import mean_gradients
from annealsubnet.statistics.moments import input_moments
from annealsubnet.tickets.blocks import anneal_blocks
from annealsubnet.tickets.switches import Switches


@dataclass(frozen=True)
class Blocks:
    """Search by rounds of quadratic models, `find_ticket(rule=Blocks())`: how the blocks are modeled and annealed.

    Attributes:
        damping: γ, what the curvature of a block is multiplied by; if None 10 for weights, 2 for neurons and heads.
        temperature: in units of the root mean square of a layer's fields; it falls to zero within a round, and over the rounds.
        num_sweeps: heat-bath sweeps a round.
        coupling: whether blocks have more than their diagonal. (A block is a neuron's fan-in, or all neurons of the network.)
    """

    damping: float | None = None
    temperature: float = 0.003
    num_sweeps: int = 20
    coupling: bool = True

    def __post_init__(self) -> None:
        check_weight("damping", self.strength("weight"), above_zero=True)
        check_weight("temperature", self.temperature)
        check_whole("num_sweeps", self.num_sweeps, 1)

    def strength(self, unit: str) -> float:
        """γ."""
        return (10.0 if unit == "weight" else 2.0) if self.damping is None else self.damping


@dataclass(frozen=True)
class Terms:
    """What a model of the loss has besides what is measured of it in a round.

    Attributes:
        flip_price, unit_price: λ and μ.
        known: gradients of the rounds before, by site; None for none.
        decay: their share in the average.
    """

    flip_price: float = 0.0
    unit_price: float = 0.0
    known: Mapping[str, np.ndarray] | None = None
    decay: float = 0.7

    def averaged(self, fresh: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """The gradients of a round, averaged with those before."""
        if self.known is None:
            return dict(fresh)
        return {name: self.decay * self.known[name] + (1 - self.decay) * fresh[name] for name in fresh}


@dataclass(frozen=True)
class Model:
    """The quadratic model of one layer in its neurons' own fan-ins, all arrays `[groups, fan_in, outputs per group]`.

    Attributes:
        layer: whose.
        kept: the mask m.
        kernel: w.
        slopes: g by the gates.
        gram: H, `[groups, fan_in, fan_in]`.
        curvature: γ h̄, `[groups, outputs per group]`.
        flip_price: λ.
        unit_price: μ.
    """

    layer: Layer
    kept: np.ndarray
    kernel: np.ndarray
    slopes: np.ndarray
    gram: np.ndarray
    curvature: np.ndarray
    flip_price: float
    unit_price: float = 0.0

    @property
    def fields(self) -> np.ndarray:
        """What keeping a unit gains to first order, the present mask favored by the price of a flip."""
        return self.flip_price * np.where(self.kept, 1.0, -1.0) - self.unit_price - self.slopes

    def change(self, state: np.ndarray) -> tuple[float, float]:
        """The predicted change of the loss, without prices: to first order, and whole."""
        flips = state.astype(float) - self.kept
        moved = self.kernel * flips
        linear = float((self.slopes * flips).sum())
        return linear, linear + 0.5 * float((self.curvature * np.einsum("gio,gio->go", moved, self.gram @ moved)).sum())

    def annealed(self, blocks: Blocks, share: float, seed: tuple[int, ...]) -> np.ndarray:
        """The state of all blocks, by heat bath from m; `share` of the temperature is left."""
        state, fields = np.empty_like(self.kept), self.fields
        heat = share * blocks.temperature * float(np.sqrt(np.square(fields).mean()))
        for group, gram in enumerate(self.gram):
            state[group] = anneal_blocks(
                fields[group].T,
                (np.sqrt(self.curvature[group]) * self.kernel[group]).T,
                gram,
                self.kept[group].T,
                temperature=heat,
                num_sweeps=blocks.num_sweeps,
                seed=(*seed, group),
                cooled=True,
            ).T
        return state

    def ranks(self, state: np.ndarray) -> np.ndarray:
        """How much better than closed each unit is open, the others as in the state."""
        moved = self.kernel * (state.astype(float) - self.kept)
        own = 0.5 * np.where(state, 1.0, -1.0) * self.kernel**2 * np.diagonal(self.gram, axis1=1, axis2=2)[:, :, None]
        return self.fields - self.curvature[:, None, :] * (self.kernel * (self.gram @ moved) - own)


def models_around(
    switches: Switches,
    kept: Mapping[str, np.ndarray],
    batch: tuple[np.ndarray, np.ndarray],
    blocks: Blocks,
    terms: Terms,
    *,
    seed: int,
) -> tuple[dict[str, Model], dict[str, np.ndarray]]:
    """The model of every selected layer around a mask.

    Args:
        switches: of weights.
        kept: the mask.
        batch: inputs and labels that everything is measured on.
        blocks: how blocks are modeled.
        terms: prices, and gradients by the kernels to average with.
        seed: of the sketched curvature.

    Returns:
        The models, and the averaged gradients by the kernels.
    """
    network, loss = switches.network, switches.loss
    params = Mask.of(network, "weight", kept).multiply(network.params)
    fresh = mean_gradients(network, [batch], loss=loss, params=params)
    slopes = terms.averaged({name: fresh[name] for name in kept})
    curvature = sketched_curvature(network, [batch], seed=seed, loss=loss, params=params)
    moments: Mapping[str, Any] = input_moments(network, [batch], params=params, layers=kept)
    models = {}
    for name, mask in kept.items():
        layer = network.layers[name]
        kernel, gram = layer.weight_matrix(network.params), moments[name].gram
        if not blocks.coupling:
            gram = np.stack([np.diag(np.diag(each)) for each in gram])
        damped = blocks.strength("weight") * curvature[name].reshape(layer.groups, -1)
        by_gate = layer.matrix(slopes[name]) * kernel
        models[name] = Model(layer, layer.matrix(mask), kernel, by_gate, gram, damped, terms.flip_price, terms.unit_price)
    return models, slopes
