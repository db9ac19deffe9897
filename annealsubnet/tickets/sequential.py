"""Sequential blocks: rounds that solve a quadratic model of the loss in every fan-in, and trust it as far as it has been right.

Around the mask m, neuron n of a layer with weights w, inputs of second moment H and curvature h̄ (`statistics.curvature`) has

    E(x) = g · (x − m) + ½ γ h̄ (w ∘ (x − m))ᵀ H (w ∘ (x − m)) + λ |x − m|

with g the gradient of the loss by its gates. The block of a neuron takes the others for fixed, which they are not: all neurons
move at once, so γ damps each. A round anneals all blocks, starting from m; then whichever units cost least are flipped until
the count is right, and the mask is taken if the loss on held-in examples falls. λ, the price of a flip, is a trust region: it
follows the ratio of the change that came to the one predicted, as a Levenberg-Marquardt step does.

Gradients are averaged over rounds with a decay, for a mask that fits one batch alone is worth little on others. With
`coupling=False` only the diagonal of every block is left, which shows what the couplings are worth.
"""

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from annealsubnet.batches import Batches
from annealsubnet.masks import Mask
from annealsubnet.networks import Layer
from annealsubnet.statistics.curvature import sketched_curvature
from annealsubnet.statistics.gradients import mean_gradients
from annealsubnet.statistics.moments import input_moments
from annealsubnet.tickets.blocks import anneal_blocks
from annealsubnet.tickets.searches import Kept, Pool, searched, trusted
from annealsubnet.tickets.switches import refuse_overflow

logger = logging.getLogger(__name__)

_PASSES = 6
"""Evaluations a round: the gradient and the curvature, each forward and back, the moments, and the held-in loss."""
_DECAY, _FIRST_PRICE = 0.7, 1e-3


@dataclass(frozen=True)
class Blocks:
    """How blocks are modeled and annealed.

    Attributes:
        damping: γ, what the curvature of a block is multiplied by.
        temperature: in units of the root mean square of a layer's fields; it falls to zero within a round, and over the rounds.
        num_sweeps: heat-bath sweeps a round.
        coupling: whether blocks have more than their diagonal.
    """

    damping: float = 10.0
    temperature: float = 0.003
    num_sweeps: int = 20
    coupling: bool = True

    def __post_init__(self) -> None:
        if not (0 < self.damping < np.inf and 0 <= self.temperature < np.inf and self.num_sweeps >= 1):
            raise ValueError(
                f"damping is above 0, temperature at least 0, both finite, num_sweeps at least 1; they are {self.damping}, "
                f"{self.temperature} and {self.num_sweeps}."
            )


def sequential_blocks(model: Any, batches: Batches, *, blocks: Blocks | None = None, **options: Any) -> Mask:
    """Blocks of all neurons, annealed together, round after round; called like `genetic`, for weights.

    A round counts as six evaluations, and the first mask, a random one, as one; the predicted and the actual change of the loss
    are logged for each. Batches of thousands of examples suit it (`batch_size=5000`).

    Args:
        model: as for `find_ticket`.
        batches: of (inputs, labels).
        blocks: how they are modeled and annealed.
        options: as for `genetic`.

    Returns:
        The mask.

    Raises:
        ValueError: as `genetic`, and for other units than weights.
    """
    if options.get("unit", "weight") != "weight":
        raise ValueError(f"sequential_blocks chooses weights, not unit={options['unit']!r}; find_ticket chooses neurons.")
    chosen = Blocks() if blocks is None else blocks
    return searched(model, batches, lambda pool: _rounds(pool, chosen), **options)


@dataclass(frozen=True)
class _Model:
    """The quadratic model of one layer in its neurons' own fan-ins, all arrays `[groups, fan_in, outputs per group]`.

    Attributes:
        layer: whose.
        kept: the mask m.
        kernel: w.
        slopes: g by the gates.
        gram: H, `[groups, fan_in, fan_in]`.
        curvature: γ h̄, `[groups, outputs per group]`.
        price: λ.
    """

    layer: Layer
    kept: np.ndarray
    kernel: np.ndarray
    slopes: np.ndarray
    gram: np.ndarray
    curvature: np.ndarray
    price: float

    @property
    def fields(self) -> np.ndarray:
        """What keeping a unit gains to first order, the present mask favored by the price."""
        return self.price * np.where(self.kept, 1.0, -1.0) - self.slopes

    def change(self, state: np.ndarray) -> float:
        """The predicted change of the loss, without the price."""
        moved = self.kernel * (state.astype(float) - self.kept)
        curved = self.curvature * np.einsum("gio,gio->go", moved, self.gram @ moved)
        return float((self.slopes * (state.astype(float) - self.kept)).sum() + 0.5 * curved.sum())

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


def _rounds(pool: Pool, blocks: Blocks) -> Kept:
    held_in = pool.draws.held_in(pool.draws.size)
    kept = pool.random(np.random.default_rng([pool.seed, 4]))
    loss, _ = pool.switches.measure(kept, *held_in)
    refuse_overflow(loss)
    rounds, price, averaged = (pool.evaluations - 1) // _PASSES, 0.0, None
    for number in range(rounds):
        models, averaged = _models(pool, kept, averaged, blocks, price, number)
        share = 1 - number / rounds
        ranks = {
            name: model.layer.from_matrix(model.ranks(model.annealed(blocks, share, (pool.seed, 5, number, place))))
            for place, (name, model) in enumerate(models.items())
        }
        moved = pool.ranked(ranks)
        predicted = sum(model.change(model.layer.matrix(moved[name])) for name, model in models.items())
        found, _ = pool.switches.measure(moved, *held_in)
        actual = found - loss if np.isfinite(found) else np.inf
        flips = sum(int(np.count_nonzero(moved[name] != kept[name])) for name in kept)
        logger.info(
            "round %d: held-in loss %.4f (predicted change %+.4f, actual %+.4f), %d flips%s",
            number + 1, loss + actual, predicted, actual, flips, "" if actual < 0 else " not taken",
        )  # fmt: skip
        if price == 0:
            price = _FIRST_PRICE * max(float(np.abs(model.slopes).max()) for model in models.values())
        price *= trusted(actual, predicted)
        if actual < 0:
            kept, loss = moved, found
    return kept


def _models(
    pool: Pool, kept: Kept, averaged: Mapping[str, np.ndarray] | None, blocks: Blocks, price: float, number: int
) -> tuple[dict[str, _Model], dict[str, np.ndarray]]:
    """The model of every selected layer around a mask, on the examples of a round, and the gradients by kernels averaged."""
    network, loss, batch = pool.switches.network, pool.switches.loss, [pool.draws.round(number)]
    params = Mask.of(network, "weight", kept).multiply(network.params)
    fresh = mean_gradients(network, batch, loss=loss, params=params)
    slopes = {name: fresh[name] if averaged is None else _DECAY * averaged[name] + (1 - _DECAY) * fresh[name] for name in kept}
    curvature = sketched_curvature(network, batch, seed=pool.seed + number, loss=loss, params=params)
    moments = input_moments(network, batch, params=params, layers=kept)
    models = {}
    for name, mask in kept.items():
        layer = network.layers[name]
        kernel, gram = layer.matrix(np.asarray(network.params[layer.kernel], np.float64)), moments[name].gram
        if not blocks.coupling:
            gram = np.stack([np.diag(np.diag(each)) for each in gram])
        damped = blocks.damping * curvature[name].reshape(layer.groups, -1)
        models[name] = _Model(layer, layer.matrix(mask), kernel, layer.matrix(slopes[name]) * kernel, gram, damped, price)
    return models, slopes
