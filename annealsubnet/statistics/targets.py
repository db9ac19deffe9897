"""Targets: what a layer reads, and what it should return, while layers are pruned one after the other.

A layer reads what the pruned network gives it by then. What it should return is what the dense network's layer returned or,
where its outputs are added to others (a residual sum), what makes the sum that of the dense network:

    z + (s_0 − s) / g

with z what it returns, s the sum that g z goes into (g of a BatchNorm, if one reads it) and s_0 the dense network's sum.

Layers are visited in the order of running, and what came before one is known by then. So each visit runs on from the one
before, and all of them together take two runs of either network, however deep it is, instead of one for every layer. Where
several layers must be visited before an earlier one is settled (all that read a neuron, before it is removed), a branch visits
them, and what is held goes on from before that.
"""

from collections.abc import Iterable, Iterator
from copy import copy
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from annealsubnet.batches import stream
from annealsubnet.networks import Known, Layer, Network, Params, known_of
from annealsubnet.statistics.streams import chunks

_SILENT = 1e-6
"""A channel whose effect on a sum is below this share of the largest output has none."""
_HELD = 2**28
"""Most numbers that are held between visits, as many as 1 GiB holds; else each visit runs the network from its start. A branch
holds as many again."""

Targets = Iterable[tuple[jax.Array, jax.Array]]
"""What a layer reads and should return, a piece of the examples at a time."""


class LayerTargets:
    """Targets of the layers of a network, visited in the order of running.

    Args:
        network: traced.
        batches: inputs or (inputs, labels); labels are not read.
        size: examples a piece.
        target_params: of the network (the dense one) whose outputs are kept to.

    Attributes:
        batches: those given or, where what is known of them is held, their inputs in pieces, as they are held.
    """

    def __init__(self, network: Network, batches: Iterable[Any], size: int, *, target_params: Params) -> None:
        self.batches = batches
        self._network, self._size, self._target = network, size, target_params
        self._held: list[tuple[Known, Known]] | None = None
        if 2 * network.known_size() * sum(len(inputs) for inputs, _ in stream(batches)) <= _HELD:
            self.batches = [inputs for inputs, _ in chunks(stream(batches), size)]
            starts = [known_of(jnp.asarray(inputs)) for inputs in self.batches]
            self._held = [(start, start) for start in starts]

    def of(
        self, layer: str, params: Params, inputs: Iterable[np.ndarray] | None = None
    ) -> Iterator[tuple[jax.Array, jax.Array]]:
        """The targets of a layer.

        Args:
            layer: name; it runs no earlier than those visited before.
            params: of the pruned network. Layers that run before the last one visited are as they were then.
            inputs: of the network in pieces, where none are held; those of the batches by default.
        """
        if self._held is None:
            pieces = (piece for piece, _ in chunks(stream(self.batches), self._size)) if inputs is None else inputs
            yield from targets_from_start(self._network, pieces, layer, params, self._target)
            return
        for place in range(len(self._held)):
            now, then = self._run_on(place, layer, params)
            yield _targets(self._network, layer, params, now, self._target, then)

    def advance(self, layer: str, params: Params) -> None:
        """Run on to right before a layer, as if to visit it; what runs before it stays as it is in these parameters."""
        for place in range(len(self._held or ())):
            self._run_on(place, layer, params)

    def branch(self) -> "LayerTargets":
        """Targets that run on from where these are, and leave these there."""
        other = copy(self)
        other._held = None if self._held is None else list(self._held)
        return other

    def _run_on(self, place: int, layer: str, params: Params) -> tuple[Known, Known]:
        """Hold what is known of a piece right before a layer, in both networks."""
        assert self._held is not None
        now, then = self._held[place]
        again = now is then and params is self._target
        then = _before(self._network, layer, self._target, then)
        now = then if again else _before(self._network, layer, params, now)
        self._held[place] = now, then
        return now, then


def _before(network: Network, layer: str, params: Params, known: Known) -> Known:
    @network.jitted("run before", layer)
    def run(values: Params, known: Known) -> Known:
        return network.run_before(values, known, layer)

    return known if known.layer == layer else run(params, known)


def targets_from_start(
    network: Network, pieces: Iterable[np.ndarray], layer: str, params: Params, target_params: Params
) -> Iterator[tuple[jax.Array, jax.Array]]:
    """The targets of one layer, of inputs in pieces; other arguments as for `LayerTargets`."""
    for inputs in pieces:
        start = known_of(jnp.asarray(inputs))
        yield _targets(network, layer, params, start, target_params, start)


def _targets(
    network: Network, layer: str, params: Params, now: Known, target_params: Params, then: Known
) -> tuple[jax.Array, jax.Array]:
    """A layer is compiled once to run to its sum, and a geometry of layers once to make up for what sums lack."""
    described = network.layers[layer]

    @network.jitted("run to sum", layer)
    def run(values: Params, known: Known) -> Any:
        return network.run_to_sum(values, known, layer)

    made_up = network.jitted("made up", described.geometry)(partial(_made_up, described))
    read, returned, added, total = run(params, now)
    _, dense, _, wanted = run(target_params, then)
    return read, dense if total is None else made_up(returned, added, total, dense, wanted)


def _made_up(
    layer: Layer, returned: jax.Array, added: jax.Array, total: jax.Array, dense: jax.Array, wanted: jax.Array
) -> jax.Array:
    """What the layer would have to return for the sum that is wanted, or what the dense one does where it can't help."""
    axes = tuple(range(returned.ndim - layer.num_output_axes))
    centered = returned - returned.mean(axes)
    energy = jnp.square(centered).mean(axes)
    gain = (centered * added).mean(axes) / jnp.where(energy > 0, energy, 1.0)
    # A channel that does not vary, or that its BatchNorm silences, can make up for nothing.
    speaks = jnp.abs(gain) * jnp.sqrt(energy) > _SILENT * jnp.abs(returned).max()
    return jnp.where(speaks, returned + (wanted - total) / jnp.where(speaks, gain, 1.0), dense)
