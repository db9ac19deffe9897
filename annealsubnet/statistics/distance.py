"""How far closing gates moves a network from itself, to second order in the gates.

With f_0 the outputs of the network at open gates, f at gates m, J the Jacobian of f by the gates and F the Hessian of the
loss in the outputs at f_0, the distance of gates x is

    D(x) = ½ E‖F^½ [J (x − m) + f − f_0]‖² = D(m) + g·(x − m) + ½ (x − m)ᵀ G (x − m)

It needs no labels; at m = 1 its gradient is zero by construction.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float

from annealsubnet.batches import stream
from annealsubnet.losses import Loss, cross_entropy
from annealsubnet.networks import Network
from annealsubnet.statistics.gates import by_site, check_units, gate_vector, unit_places
from annealsubnet.statistics.passes import curvature_chunk, over_factors
from annealsubnet.statistics.streams import accumulate, chunks


@dataclass(frozen=True)
class GateDistance:
    """The distance D around gates m.

    Attributes:
        places: where each site's units stand.
        gates: m.
        value: D(m), in units of the loss.
        gradient: g.
        curvature: G.
        count: how many examples went in.
    """

    places: Mapping[str, slice]
    gates: Float[np.ndarray, "units"]
    value: float
    gradient: Float[np.ndarray, "units"]
    curvature: Float[np.ndarray, "units units"]
    count: int

    def __repr__(self) -> str:
        return f"GateDistance({self.gates.size} units in {len(self.places)} sites, {self.count:,} examples)"


def gate_distance(
    network: Network,
    batches: Iterable[Any],
    *,
    unit: str = "neuron",
    sites: Iterable[str] | None = None,
    gates: Mapping[str, np.ndarray] | None = None,
    loss: Loss = cross_entropy,
) -> GateDistance:
    """Measure D, g and G in one pass, with one backward pass for each factor of the loss.

    Args:
        network: traced.
        batches: inputs or (inputs, labels); labels are not read.
        unit: "neuron" or "head".
        sites: all by default.
        gates: m by site; open by default.
        loss: whose Hessian F measures outputs.

    Raises:
        ValueError: for bad batches, an unknown site, or statistics that are not finite (site named).
    """
    places = unit_places(network, unit, sites)
    point = gate_vector(network, unit, places, gates)

    @network.jitted("gate distance", *places, loss)
    def step(values: Any, point: jax.Array, inputs: jax.Array) -> Any:
        def outputs_of(factors: jax.Array) -> jax.Array:
            return network.run(values, inputs, gates=by_site(places, factors))[0]

        dense = network.apply(values, inputs)
        outputs, pull = jax.vjp(outputs_of, jnp.broadcast_to(point, (inputs.shape[0], point.size)))

        def sums(factors: jax.Array) -> Any:
            (jacobians,) = jax.vmap(pull)(factors)
            rows, moved = jacobians.reshape(-1, point.size), jnp.sum(factors * (outputs - dense), axis=2).ravel()
            return 0.5 * jnp.sum(moved**2), moved @ rows, jnp.matmul(rows.T, rows, precision="highest")

        return over_factors(sums, loss.curvature_factor(dense).astype(dense.dtype))

    inputs = ((inputs,) for inputs, _ in chunks(stream(batches), curvature_chunk(network)))
    sums, count = accumulate(partial(step, network.params, point), inputs)
    value, gradient, curvature = (total / count for total in sums)
    check_units(places, gradient, curvature)
    return GateDistance(places, np.asarray(point, np.float64), float(value), gradient, curvature, count)
