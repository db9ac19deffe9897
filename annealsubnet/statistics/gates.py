"""Statistics of gates: what the loss says about switching neurons and heads, one number an example and unit.

A gate g_u multiplies the channels of unit u, and is 1 in the network as it is. For example n

    c_nu = ∂loss_n/∂g_u,    A_n = s_nᵀ ∂outputs_n/∂g    with s_n s_nᵀ the Hessian of the loss in the outputs,

so that removing the units with 1 − x = 1 changes the loss by −E[c]ᵀ(1 − x) + ½ (1 − x)ᵀ G (1 − x), with G = E[c cᵀ] (empirical
Fisher, needs labels) or G = E[Aᵀ A] (Gauss-Newton, needs none). All units of all sites stand side by side in one vector, so a
full G couples neurons of different layers.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import partial
from math import prod
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float

from annealsubnet.batches import stream
from annealsubnet.losses import Loss, cross_entropy
from annealsubnet.networks import Network, Params, Site
from annealsubnet.statistics.passes import backward_chunk, curvature_chunk, labeled_for, over_factors
from annealsubnet.statistics.streams import accumulate, check_statistics, chunks


@dataclass(frozen=True)
class GateGradients:
    """First and second moments of the per-example gate gradients c_n.

    Attributes:
        places: where each site's units stand in the vectors.
        mean: E[c_u], the gradient of the mean loss by each gate.
        mean_absolute: E|c_u|.
        second: E[c_u²], or E[c_u c_v] of all pairs: the empirical Fisher information of the gates.
        count: how many examples went in.
    """

    places: Mapping[str, slice]
    mean: Float[np.ndarray, "units"]
    mean_absolute: Float[np.ndarray, "units"]
    second: Float[np.ndarray, "units"] | Float[np.ndarray, "units units"]
    count: int

    def __repr__(self) -> str:
        return f"GateGradients({self.mean.size} units in {len(self.places)} sites, {self.count:,} examples)"


@dataclass(frozen=True)
class GateCurvature:
    """Gauss-Newton curvature of the loss in the gates; needs no labels.

    Attributes:
        places: where each site's units stand.
        curvature: diagonal of E[A_nᵀ A_n], or all of it.
        count: how many examples went in.
    """

    places: Mapping[str, slice]
    curvature: Float[np.ndarray, "units"] | Float[np.ndarray, "units units"]
    count: int

    def __repr__(self) -> str:
        return f"GateCurvature({len(self.curvature)} units in {len(self.places)} sites, {self.count:,} examples)"


@dataclass(frozen=True)
class UnitActivations:
    """Moments of what units hand to the layers that read them (behind activation function and pooling).

    Attributes:
        places: where each site's units stand.
        mean, mean_absolute, second: E[a_u], E|a_u|, E[a_u²] over examples, positions, and the channels and readers of a unit.
        count: how many examples went in.
    """

    places: Mapping[str, slice]
    mean: Float[np.ndarray, "units"]
    mean_absolute: Float[np.ndarray, "units"]
    second: Float[np.ndarray, "units"]
    count: int

    def __repr__(self) -> str:
        return f"UnitActivations({self.mean.size} units in {len(self.places)} sites, {self.count:,} examples)"


def by_site(places: Mapping[str, slice], values: Any) -> dict[str, Any]:
    """An array whose last axis holds all units, cut into one array a site."""
    return {name: values[..., place] for name, place in places.items()}


def gate_gradients(
    network: Network,
    batches: Iterable[Any],
    *,
    unit: str = "neuron",
    sites: Iterable[str] | None = None,
    form: str = "diagonal",
    loss: Loss = cross_entropy,
    params: Params | None = None,
    gates: Mapping[str, np.ndarray] | None = None,
) -> GateGradients:
    """Per-example gradients of the loss by the gates of units, in one pass with one backward pass a chunk.

    Args:
        network: traced.
        batches: (inputs, labels).
        unit: "neuron" or "head".
        sites: names of sites; all of the unit's by default.
        form: second moments of each unit ("diagonal") or of all pairs ("full").
        loss: of one example.
        params: of the network; its own by default.
        gates: where the gates stand, `[units]` a site; 1 by default.

    Raises:
        ValueError: for bad batches or missing labels, an unknown site, or statistics that are not finite (site named).

    Example:
        >>> import jax, jax.numpy as jnp
        >>> from annealsubnet.networks import as_network, from_function
        >>> def mlp(params, inputs, tap):
        ...     return tap.dense("out", jax.nn.relu(tap.dense("hidden", inputs)))
        >>> params = {"hidden": {"kernel": jnp.eye(2)}, "out": {"kernel": jnp.array([[1.0, 0.0], [0.0, 0.0]])}}
        >>> inputs = np.array([[2.0, 3.0]], np.float32)
        >>> network = as_network(from_function(mlp, params), inputs)
        >>> gate_gradients(network, [(inputs, np.array([1]))]).mean.round(3).tolist()
        [1.762, 0.0]
    """
    chosen = _chosen(network, unit, sites)
    places = _places(chosen)
    point = _point(chosen, places, gates)

    @network.jitted("gate gradients", *places, form, loss)
    def step(values: Params, point: jax.Array, inputs: jax.Array, labels: jax.Array) -> Any:
        def total(factors: jax.Array) -> jax.Array:
            outputs, _ = network.run(values, inputs, gates=by_site(places, factors))
            return loss.value(outputs, labels).sum()

        gradients = jax.grad(total)(jnp.broadcast_to(point, (inputs.shape[0], point.size)))
        return gradients.sum(0), jnp.abs(gradients).sum(0), _products(gradients, form)

    pairs = chunks(labeled_for(network, batches, loss), backward_chunk(network))
    sums, count = accumulate(partial(step, network.params if params is None else params, point), pairs)
    mean, mean_absolute, second = (total / count for total in sums)
    check_units(places, mean, second)
    return GateGradients(places, mean, mean_absolute, second, count)


def gate_curvature(
    network: Network,
    batches: Iterable[Any],
    *,
    unit: str = "neuron",
    sites: Iterable[str] | None = None,
    form: str = "diagonal",
    loss: Loss = cross_entropy,
    params: Params | None = None,
    gates: Mapping[str, np.ndarray] | None = None,
) -> GateCurvature:
    """Gauss-Newton curvature of the loss in the gates of units, in one pass with one backward pass for each factor of the loss.

    Args:
        network, unit, sites, form, loss, params, gates: as in `gate_gradients`.
        batches: inputs or (inputs, labels); labels are not read.

    Raises:
        ValueError: for bad batches, an unknown site, or statistics that are not finite (site named).
    """
    chosen = _chosen(network, unit, sites)
    places = _places(chosen)
    point = _point(chosen, places, gates)

    @network.jitted("gate curvature", *places, form, loss)
    def step(values: Params, point: jax.Array, inputs: jax.Array) -> jax.Array:
        def outputs_of(factors: jax.Array) -> jax.Array:
            return network.run(values, inputs, gates=by_site(places, factors))[0]

        outputs, pull = jax.vjp(outputs_of, jnp.broadcast_to(point, (inputs.shape[0], point.size)))

        def products(factors: jax.Array) -> jax.Array:
            (jacobians,) = jax.vmap(pull)(factors)
            return _products(jacobians.reshape(-1, point.size), form)

        return over_factors(products, loss.curvature_factor(outputs).astype(outputs.dtype))

    inputs = ((inputs,) for inputs, _ in chunks(stream(batches), curvature_chunk(network)))
    total, count = accumulate(partial(step, network.params if params is None else params, point), inputs)
    check_units(places, total)
    return GateCurvature(places, total / count, count)


def unit_activations(
    network: Network,
    batches: Iterable[Any],
    *,
    unit: str = "neuron",
    sites: Iterable[str] | None = None,
    params: Params | None = None,
) -> UnitActivations:
    """Moments of the activations of units, as the layers that read them see them, in one pass forward.

    Args:
        network, unit, sites, params: as in `gate_gradients`.
        batches: inputs or (inputs, labels); labels are not read.

    Raises:
        ValueError: as `gate_curvature`.
    """
    chosen = _chosen(network, unit, sites)
    places = _places(chosen)
    readers = list(dict.fromkeys(name for site in chosen.values() for name in site.consumers))

    @network.jitted("unit activations", *places)
    def step(values: Params, inputs: jax.Array) -> Any:
        _, records = network.run(values, inputs, record=readers)
        means = [_unit_means(network, site, records, inputs.shape[0]) for site in chosen.values()]
        return [jnp.concatenate(parts) for parts in zip(*means, strict=True)]

    inputs = ((inputs,) for inputs, _ in chunks(stream(batches), backward_chunk(network)))
    sums, count = accumulate(partial(step, network.params if params is None else params), inputs)
    mean, mean_absolute, second = (total / count for total in sums)
    check_units(places, mean, second)
    return UnitActivations(places, mean, mean_absolute, second, count)


def _unit_means(network: Network, site: Site, records: Mapping[str, Any], examples: int) -> list[jax.Array]:
    """Σ over examples of the mean over positions, channels and readers of a, |a| and a²; each `[units]`."""
    powers: tuple[Callable[[jax.Array], jax.Array], ...] = (jnp.asarray, jnp.abs, jnp.square)
    sums = [jnp.zeros(site.size + 1) for _ in powers]
    numbers = np.zeros(site.size + 1)
    for name, unit_of_input in site.consumers.items():
        layer = network.layers[name]
        window = 1 if layer.window is None else prod(layer.window.size)
        unit_of_channel = unit_of_input.reshape(layer.groups, window, -1)[:, 0].ravel()
        values = records[name][0].reshape(-1, unit_of_channel.size)
        # Channels of no unit (−1) fall into the extra last place.
        np.add.at(numbers, unit_of_channel, len(values) / examples)
        sums = [total.at[unit_of_channel].add(power(values).sum(0)) for total, power in zip(sums, powers, strict=True)]
    return [total[:-1] / np.maximum(numbers[:-1], 1) for total in sums]


def _products(rows: jax.Array, form: str) -> jax.Array:
    """Σ over examples of r rᵀ, or of its diagonal."""
    if form == "diagonal":
        return jnp.square(rows).sum(0)
    if form != "full":
        raise ValueError(f"form is 'diagonal' or 'full', not {form!r}.")
    return jnp.matmul(rows.T, rows, precision="highest")


def _chosen(network: Network, unit: str, sites: Iterable[str] | None) -> dict[str, Site]:
    known = network.sites(unit)
    names = list(known if sites is None else sites)
    unknown = [name for name in names if name not in known]
    if unknown or not names:
        raise ValueError(f"The network has no {unit}s at {unknown[0] if unknown else 'all'!r}; it has them at {sorted(known)}.")
    return {name: known[name] for name in names}


def unit_places(network: Network, unit: str, sites: Iterable[str] | None) -> dict[str, slice]:
    """Where the units of each chosen site stand when all sites stand side by side."""
    return _places(_chosen(network, unit, sites))


def gate_vector(network: Network, unit: str, places: Mapping[str, slice], gates: Mapping[str, np.ndarray] | None) -> jax.Array:
    """Where the gates of these sites stand, side by side; open by default."""
    return _point({name: network.sites(unit)[name] for name in places}, places, gates)


def _places(sites: Mapping[str, Site]) -> dict[str, slice]:
    ends = np.cumsum([site.size for site in sites.values()]).tolist()
    return {name: slice(end - site.size, end) for (name, site), end in zip(sites.items(), ends, strict=True)}


def _point(sites: Mapping[str, Site], places: Mapping[str, slice], gates: Mapping[str, np.ndarray] | None) -> jax.Array:
    """Where the gates stand, all sites side by side."""
    given = gates or {}
    point = [np.asarray(given.get(name, np.ones(site.size)), np.float64) for name, site in sites.items()]
    for (name, site), values in zip(sites.items(), point, strict=True):
        if values.shape != (site.size,):
            raise ValueError(f"Site {name!r} has {site.size} units, but its gates have shape {values.shape}.")
    return jnp.asarray(np.concatenate(point))


def check_units(places: Mapping[str, slice], *arrays: np.ndarray) -> None:
    """Raise if a site's statistics are not finite, with its name."""
    for name, place in places.items():
        check_statistics(name, *(array[place] for array in arrays))
