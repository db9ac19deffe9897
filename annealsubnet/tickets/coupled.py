"""Couplings: masks drawn with the curvature that couples the weights of a neuron."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from annealsubnet.networks import Params
from annealsubnet.tickets.blocks import anneal_blocks, scaled_to_one
from annealsubnet.tickets.rules import Clock, State
from annealsubnet.tickets.switches import Gates, Switches


@dataclass(frozen=True)
class Coupling:
    """How the blocks of neurons are annealed.

    Attributes:
        strength: γ, in units of the round's step η.
        num_sweeps: heat-bath sweeps a round.
        examples: of a round that the moments of a layer's inputs are taken from.
    """

    strength: float
    num_sweeps: int = 2
    examples: int = 64


def couple(
    switches: Switches, coupling: Coupling, state: State, before: State, clock: Clock, inputs: np.ndarray, seed: int
) -> State:
    """The state of a round with its mask drawn from the coupled energy, starting from the mask before.

    Args:
        switches: of the weights.
        coupling: how.
        state: after the round's scores and price are known.
        before: of the round before; its mask is m.
        clock: of the round.
        inputs: of the round.
        seed: of the search.
    """
    network = switches.network
    moments = _moments(switches, before["mask"], inputs[: coupling.examples])
    masks = {}
    for number, (name, old) in enumerate(before["mask"].items()):
        layer = network.layers[name]
        kernel, kept = layer.matrix(np.asarray(network.params[layer.kernel])), layer.matrix(np.asarray(old) > 0.5)
        fields = layer.matrix(np.asarray(state["scores"][name] - state["price"][name]))
        drawn = np.empty_like(kept)
        for group in range(layer.groups):
            # Scores divide by the size of the gradient already, so that a block enters with its size taken out, times γ η.
            scales = scaled_to_one(kernel[group].T, moments[name][group])
            drawn[group] = anneal_blocks(
                fields[group].T,
                np.sqrt(coupling.strength * float(clock.step)) * scales,
                moments[name][group],
                kept[group].T,
                temperature=float(clock.temperature),
                num_sweeps=coupling.num_sweeps,
                seed=hash((seed, int(clock.number), number, group)) & 0x7FFFFFFF,
            ).T
        masks[name] = jnp.asarray(layer.from_matrix(drawn), jnp.float32)
    return {**state, "mask": masks}


def _moments(switches: Switches, mask: Gates, inputs: np.ndarray) -> Mapping[str, Any]:
    """Second moment of each layer's inputs under the mask, `[groups, fan_in, fan_in]`."""
    network = switches.network

    @network.jitted("ticket moments", len(inputs))
    def step(params: Params, mask: Gates, inputs: jax.Array) -> dict[str, jax.Array]:
        kernels = {network.layers[name].kernel: params[network.layers[name].kernel] * gate for name, gate in mask.items()}
        _, records = network.run({**params, **kernels}, inputs, record=mask)
        found = {}
        for name in mask:
            vectors = network.layers[name].patches(records[name][0])
            found[name] = jnp.einsum("vgi,vgj->gij", vectors, vectors) / len(vectors)
        return found

    return {name: np.asarray(moment) for name, moment in step(network.params, mask, inputs).items()}
