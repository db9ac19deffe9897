"""Second moments of what enters a layer, and of what it should return.

For a layer z = a · W + bias, the sums over examples (and positions)

    H = E[a aᵀ],   C = E[a yᵀ],   E[a],   E[y],   E[y²]

are all that least squares, best-subset regression and their quadratic models need to know about the data, whether y is the
layer's own output or that of another network (the dense one). They are gathered in one pass, in float32 within a chunk and in
float64 across chunks.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float

from annealsubnet.batches import stream
from annealsubnet.networks import Layer, Network, Params
from annealsubnet.statistics.streams import accumulate, as_wide, check_statistics, chunk_size, chunks
from annealsubnet.statistics.targets import Targets

_ROUNDING = 2e-5
"""Variances below this share of the second moment are rounding, for sums within a chunk are float32: inputs that never vary are
left with up to 4e-6 of it by a thousand vectors, and 1e-5 by 400,000."""


@dataclass(frozen=True)
class Moments:
    """Second moment of the vectors that a layer multiplies.

    Attributes:
        gram: `[g, i, j]` is E[a_i a_j] in group g, over examples and positions; in squared input units.
        mean: `[g, i]` is E[a_i].
        count: how many vectors went in.
    """

    gram: Float[np.ndarray, "groups fan_in fan_in"]
    mean: Float[np.ndarray, "groups fan_in"]
    count: int

    def __repr__(self) -> str:
        groups, fan_in = self.mean.shape
        return f"Moments({groups} groups of {fan_in} inputs, {self.count:,} vectors)"


@dataclass(frozen=True)
class Regression:
    """A layer's outputs as a linear function of its inputs: everything least squares needs.

    Attributes:
        gram, mean, count: as in `Moments`.
        cross: `[g, i, o]` is E[a_i y_o].
        target_mean: `[g, o]` is E[y_o].
        target_energy: `[g, o]` is E[y_o²].
        with_bias: whether the layer has a bias, so that a constant may be fitted too.
    """

    gram: Float[np.ndarray, "groups fan_in fan_in"]
    mean: Float[np.ndarray, "groups fan_in"]
    cross: Float[np.ndarray, "groups fan_in outputs"]
    target_mean: Float[np.ndarray, "groups outputs"]
    target_energy: Float[np.ndarray, "groups outputs"]
    count: int
    with_bias: bool

    def centered(self) -> "Regression":
        """The same regression with the best constant taken out: covariances if the layer has a bias, else unchanged.

        An input whose variance is below what float32 sums can tell has none: its row and column are zero.

        An error of centered moments is the error after the bias has been refitted.
        """
        if not self.with_bias:
            return self
        gram = self.gram - self.mean[:, :, None] * self.mean[:, None, :]
        # What is left of an input that never varies is rounding of either sign, and many of them make an indefinite matrix.
        varies = np.einsum("gii->gi", gram) > _ROUNDING * np.einsum("gii->gi", self.gram)
        return Regression(
            gram * varies[:, :, None] * varies[:, None, :],
            np.zeros_like(self.mean),
            (self.cross - self.mean[:, :, None] * self.target_mean[:, None, :]) * varies[:, :, None],
            np.zeros_like(self.target_mean),
            np.maximum(self.target_energy - self.target_mean**2, 0.0),
            self.count,
            False,
        )

    def without(self, constant: Float[np.ndarray, "groups outputs"]) -> "Regression":
        """The regression of what is left of the targets when a fixed constant is taken out: y − constant."""
        return Regression(
            self.gram,
            self.mean,
            self.cross - self.mean[:, :, None] * constant[:, None, :],
            self.target_mean - constant,
            self.target_energy - 2 * constant * self.target_mean + constant**2,
            self.count,
            False,
        )

    def drawn_to(self, weights: Float[np.ndarray, "groups fan_in outputs"], ridge: float) -> "Regression":
        """The regression whose ridge draws towards these weights when it is solved with one that draws towards zero.

        E(y − a · v)² + ρ‖v − w‖² is E(y' − a · v)² + ρ‖v‖² with E[a y'] = E[a y] + ρ w and E[y'²] = E[y²] + ρ‖w‖².

        Args:
            weights: w, of which those count that `ridge_target` leaves.
            ridge: ρ in units of the mean of each group's diagonal.
        """
        amount = ridge * np.einsum("gii->gi", self.gram).mean(axis=1)[:, None, None]
        drawn = ridge_target(self.gram, weights)
        return replace(
            self, cross=self.cross + amount * drawn, target_energy=self.target_energy + (amount * drawn**2).sum(axis=1)
        )

    def __repr__(self) -> str:
        groups, fan_in, outputs = self.cross.shape
        return f"Regression({groups} groups of {fan_in} inputs to {outputs} outputs, {self.count:,} vectors)"


def ridge_target(
    gram: Float[np.ndarray, "*groups fan_in fan_in"], weights: Float[np.ndarray, "*groups fan_in outputs"]
) -> Float[np.ndarray, "*groups fan_in outputs"]:
    """What a ridge draws towards: the weights there are, and zero for inputs that are always zero.

    Such inputs have nothing but the ridge to be kept for, which prices them by weights that no training has moved.
    """
    return np.where(np.einsum("...ii->...i", gram)[..., None] > 0, weights, 0.0)


def input_moments(
    network: Network, batches: Iterable[Any], *, params: Params | None = None, layers: Iterable[str] | None = None
) -> dict[str, Moments]:
    """Second moments of the inputs of layers, in one pass over the batches.

    Args:
        network: traced.
        batches: inputs or (inputs, labels); labels are not read.
        params: of the network; its own by default.
        layers: names; all by default.

    Returns:
        For each layer its moments; memory is the moments' own, whatever the number of examples.

    Raises:
        ValueError: for bad batches (see `annealsubnet.batches.stream`), or statistics that are not finite (layer named).
    """
    chosen = {name: network.layers[name] for name in (network.layers if layers is None else layers)}
    params = network.params if params is None else params

    @network.jitted("input moments", *chosen)
    def step(values: Params, inputs: jax.Array) -> Any:
        _, records = network.run(values, inputs, record=chosen)
        vectors = {name: layer.patches(as_wide(records[name][0])) for name, layer in chosen.items()}
        return {name: (_number(rows), _products(rows, rows), rows.sum(0)) for name, rows in vectors.items()}

    pieces = ((inputs,) for inputs, _ in chunks(stream(batches), moments_chunk(network, chosen)))
    moments = {}
    for name, (count, *totals) in accumulate(partial(step, params), pieces)[0].items():
        gram, mean = (total / count for total in totals)
        check_statistics(name, gram, mean)
        moments[name] = Moments(gram, mean, round(float(count)))
    return moments


def targeted_regression(network: Network, layer: str, targets: Targets) -> Regression:
    """The regression of what a layer should return on what it reads, a piece of the examples at a time.

    Raises:
        ValueError: as `input_moments`.
    """
    described = network.layers[layer]
    step = network.jitted("target sums", described.geometry)(partial(target_sums, described))
    return regression_of(described, accumulate(step, targets)[0])


def target_sums(layer: Layer, read: jax.Array, targets: jax.Array) -> tuple[jax.Array, ...]:
    """What a regression is made of, as sums over the vectors that a layer reads; first how many they are."""
    rows = layer.patches(as_wide(read))
    targets = as_wide(targets).reshape(rows.shape[0], layer.groups, -1)
    return _number(rows), _products(rows, rows), rows.sum(0), _products(rows, targets), targets.sum(0), (targets**2).sum(0)


def regression_of(layer: Layer, sums: Iterable[np.ndarray]) -> Regression:
    """The regression from its `target_sums`."""
    count, *totals = sums
    gram, mean, cross, target_mean, energy = (total / count for total in totals)
    check_statistics(layer.name, gram, cross, energy)
    return Regression(gram, mean, cross, target_mean, energy, round(float(count)), layer.bias is not None)


def self_regression(layer: Layer, moments: Moments, params: Mapping[str, Any]) -> Regression:
    """The regression of a layer's own outputs on its own inputs: no pass over data, since C = H W + E[a] bias."""
    weights = layer.weight_matrix(params)
    bias = layer.bias_matrix(params)
    product = moments.gram @ weights
    linear_mean = np.einsum("gi,gio->go", moments.mean, weights)
    return Regression(
        moments.gram,
        moments.mean,
        product + moments.mean[:, :, None] * bias[:, None, :],
        linear_mean + bias,
        np.einsum("gio,gio->go", weights, product) + 2 * bias * linear_mean + bias**2,
        moments.count,
        layer.bias is not None,
    )


def _number(rows: jax.Array) -> jax.Array:
    """How many vectors there are: a sum like the others."""
    return jnp.full((), len(rows), jnp.float32)


def _products(left: jax.Array, right: jax.Array) -> jax.Array:
    """Σ over vectors of left rightᵀ, group by group: `[groups, left, right]`."""
    if left.shape[1] == 1:
        return jnp.matmul(left[:, 0].T, right[:, 0], precision="highest")[None]
    return jnp.einsum("vgi,vgj->gij", left, right, precision="highest")


def moments_chunk(network: Network, layers: Iterable[str]) -> int:
    """How many examples to pass at once, from the shapes of what layers read."""
    chosen = list(layers)

    def vectors(params: Params, inputs: jax.Array) -> list[jax.Array]:
        _, records = network.run(params, inputs, record=chosen)
        return [network.layers[name].patches(records[name][0]) for name in chosen]

    one = jax.ShapeDtypeStruct((1, *network.example.shape[1:]), network.example.dtype)
    return chunk_size(max((4 * shape.size for shape in jax.eval_shape(vectors, network.params, one)), default=4))
