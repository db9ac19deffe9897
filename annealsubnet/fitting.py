"""Fit: all that is left of a network at once, to the dense network's own outputs, without labels.

Layers refitted one after the other each do their best for their own outputs. What is left over is the network's,

    min_θ D(θ) = ½ E‖F^½ (f_θ(x) − f_0(x))‖²,

a nonlinear least-squares problem over the kept weights, the biases, and scales and biases of normalizations (θ). It is solved
by Levenberg-Marquardt: with J the Jacobian of the outputs by θ, each step solves

    (E[JᵀFJ] + λ) s = −E[JᵀF (f_θ − f_0)]

by conjugate gradients, which need J and Jᵀ only as products (`jax.jvp`, `jax.vjp`), and is taken if D falls; λ then shrinks,
else it grows, and shorter steps the same way are tried, for each of which one pass tells. (Where the dense network is sure of
its answers F is next to nothing, and a step may reach far.) D and its slope are those of all examples; products, of which there
are many, of some thousands of them.

A network of bfloat16 or float16 is moved in float32, in which small steps add up, and run in its own numbers: D is what it is
after rounding.

References:
    Marquardt, *An algorithm for least-squares estimation of nonlinear parameters*, 1963.
    Martens, *Deep learning via Hessian-free optimization*, ICML 2010, section 4 (Gauss-Newton products, fewer examples for
    them than for the gradient, a search along the step).
"""

import logging
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from annealsubnet.batches import stream
from annealsubnet.losses import Loss, cross_entropy
from annealsubnet.masks import Mask
from annealsubnet.networks import Network, Params
from annealsubnet.statistics.passes import backward_chunk
from annealsubnet.statistics.streams import as_wide
from annealsubnet.statistics.weight_distance import squared_distances

logger = logging.getLogger(__name__)

_FIRST_DAMPING = 0.01
"""λ of the first step, in units of the mean diagonal of E[JᵀFJ]."""
_CURVED = 5_000
"""Examples of which products are taken, about."""
_SHORTER = (0.25, 0.0625, 0.015625)
"""Parts of a step that are tried when D does not fall by all of it."""
_TOLERANCE = 0.01
"""A whole step that lowers D by a smaller share is the last."""
_EVERY, _ENOUGH = 10, 100
"""One example in so many is held out, if that makes enough of them."""


@dataclass(frozen=True)
class Fit:
    """Where the fit ended.

    Attributes:
        params: with the mask's zeros.
        value: D there.
        start: D before.
        examples: how many examples were passed through the network, forward or back, each time counted.
    """

    params: Params
    value: float
    start: float
    examples: int

    def __repr__(self) -> str:
        return f"Fit(distance {self.start:.4g} to {self.value:.4g}, {self.examples:,} examples read)"


def fit_network(
    network: Network,
    mask: Mask,
    batches: Iterable[Any],
    *,
    params: Params,
    target_params: Params | None = None,
    steps: int = 4,
    products: int = 30,
    loss: Loss = cross_entropy,
) -> Fit:
    """Levenberg-Marquardt on the distance to the dense network.

    Args:
        network: traced.
        mask: what is kept; its zeros stay zeros.
        batches: inputs or (inputs, labels); labels are not read. They are held in memory.
        params: where to start.
        target_params: of the dense network; the network's own by default.
        steps: at most.
        products: of conjugate gradients in a step, each a pass forward and back.
        loss: whose Hessian F measures outputs.

    Returns:
        Fit: its distance is never above the start's.

    Raises:
        ValueError: for bad batches or a mask for another model.
    """
    size = backward_chunk(network)
    inputs, weights = _stacked(np.concatenate([batch for batch, _ in stream(batches)]), size)
    dense = network.params if target_params is None else target_params
    target = _outputs_of(network)(dense, inputs)
    now = widened(mask.multiply(params))
    measure, step = _measure_of(network, loss), _step_of(network, loss)
    keeps = {path: jnp.asarray(keep, now[path].dtype) for path, keep in mask.keeps().items()}
    signs = mask.multiply(_signs(now))
    value = start = float(measure(now, inputs, target, weights))
    count, damping = int(weights.sum()), _FIRST_DAMPING
    everything = (inputs, target, weights)
    part = tuple(array[:: max(1, count // _CURVED)] for array in everything)
    curved = int(part[-1].sum())
    examples = 2 * count
    for _ in range(steps):
        move, used = step(now, keeps, signs, everything, part, jnp.float32(damping), jnp.int32(products))
        examples += count + curved * (int(used) + 1)
        for part_of_it in (1.0, *_SHORTER):
            found = {path: now[path] + part_of_it * move[path] for path in now}
            fell = float(measure(found, inputs, target, weights))
            examples += count
            logger.info(
                "fit: distance %.4g to %.4g by %g of a step at damping %.1e, %d products",
                value, fell, part_of_it, damping, int(used),
            )  # fmt: skip
            if fell < value:
                break
        else:
            damping *= 10
            continue
        share = (value - fell) / value
        now, value = found, fell
        if part_of_it < 1:
            damping *= 10
        elif share < _TOLERANCE:
            break
        else:
            damping /= 3
    return Fit(narrowed(now, params), value, start, examples)


def held_out(batches: Iterable[Any]) -> tuple[list[np.ndarray], list[np.ndarray]]:
    """Inputs to fit by, and one in ten of them to measure on; of fewer than 1,000 all for both."""
    inputs = np.concatenate([batch for batch, _ in stream(batches)])
    if len(inputs) < _EVERY * _ENOUGH:
        return [inputs], [inputs]
    held = np.arange(len(inputs)) % _EVERY == _EVERY - 1
    return [inputs[~held]], [inputs[held]]


def widened(params: Params) -> dict[str, jax.Array]:
    """Parameters in float32, if they have fewer digits."""
    return {path: as_wide(value) for path, value in params.items()}


def narrowed(params: Params, like: Params) -> dict[str, jax.Array]:
    """Parameters rounded to the dtypes of others."""
    return {path: value.astype(like[path].dtype) for path, value in params.items()}


def apply_rounded(network: Network, params: Params, inputs: jax.Array) -> jax.Array:
    """The network's outputs at parameters rounded to its own dtypes, in float32 or wider; slopes pass through the rounding."""
    return as_wide(network.apply(narrowed(params, network.params), inputs))


def _stacked(inputs: np.ndarray, size: int) -> tuple[jax.Array, jax.Array]:
    """Inputs as `[chunks, size, ...]`, and 1 for each example, 0 for those that fill up the last chunk."""
    number = -(-len(inputs) // size)
    size = -(-len(inputs) // number)
    padding = number * size - len(inputs)
    padded = np.concatenate([inputs, np.zeros((padding, *inputs.shape[1:]), inputs.dtype)])
    weights = np.arange(number * size) < len(inputs)
    shape = (number, size)
    return jnp.asarray(padded.reshape(*shape, *inputs.shape[1:])), jnp.asarray(weights.reshape(shape), jnp.float32)


def _outputs_of(network: Network) -> Any:
    @network.jitted("fit outputs")
    def outputs(params: Params, inputs: jax.Array) -> jax.Array:
        return jax.lax.map(lambda chunk: apply_rounded(network, params, chunk), inputs)

    return outputs


def _measure_of(network: Network, loss: Loss) -> Any:
    """The distance of parameters, over stacked examples."""

    @network.jitted("fit distance", loss)
    def measure(params: Params, inputs: jax.Array, target: jax.Array, weights: jax.Array) -> jax.Array:
        def chunk(arrays: Any) -> jax.Array:
            images, outputs, ones = arrays
            return ones @ squared_distances(apply_rounded(network, params, images), outputs, loss)

        return jax.lax.map(chunk, (inputs, target, weights)).sum() / weights.sum()

    return measure


def _step_of(network: Network, loss: Loss) -> Any:
    """One damped Gauss-Newton step by at most so many conjugate gradients, and how many it took."""

    @network.jitted("fit step", loss)
    def step(
        params: Params,
        keeps: Params,
        signs: Params,
        everything: tuple[jax.Array, ...],
        part: tuple[jax.Array, ...],
        damping: Any,
        products: Any,
    ) -> Any:
        def kept(tree: Params) -> Params:
            return {path: value * keeps[path] if path in keeps else value for path, value in tree.items()}

        def mean_over(examples: tuple[jax.Array, ...], function: Any) -> Params:
            """The mean over examples of a tree of sums over chunks of them, times the mask."""
            add = lambda sums, arrays: (jax.tree.map(jnp.add, sums, function(*arrays)), None)  # noqa: E731
            zeros = jax.tree.map(jnp.zeros_like, dict(params))
            sums, total = jax.lax.scan(add, zeros, examples)[0], examples[-1].sum()
            return kept(jax.tree.map(lambda value: value / total, sums))

        def curved(outputs: jax.Array, target: jax.Array, ones: jax.Array) -> jax.Array:
            factors = loss.curvature_factor(target).astype(outputs.dtype)
            along = jnp.einsum("cnk,nk->cn", factors, outputs)
            return jnp.einsum("cn,cnk->nk", along, factors) * ones[:, None]

        def slope(images: jax.Array, target: jax.Array, ones: jax.Array) -> Params:
            outputs, pull = jax.vjp(lambda values: apply_rounded(network, values, images), dict(params))
            return pull(curved(outputs - target, target, ones))[0]

        def product(direction: Params) -> Params:
            def chunk(images: jax.Array, target: jax.Array, ones: jax.Array) -> Params:
                function = lambda values: apply_rounded(network, values, images)  # noqa: E731
                _, moved = jax.jvp(function, (dict(params),), (direction,))
                return jax.vjp(function, dict(params))[1](curved(moved, target, ones))[0]

            return mean_over(part, chunk)

        # zᵀ G z of one draw of signs is the trace of G in expectation.
        entries = sum(jnp.sum(jnp.abs(value)) for value in signs.values())
        mean = sum(jnp.vdot(value, signs[path]) for path, value in product(signs).items()) / entries
        return _conjugate_gradients(product, mean_over(everything, slope), damping * jnp.maximum(mean, 1e-12), products)

    return step


def _signs(params: Params) -> dict[str, jax.Array]:
    keys = jax.random.split(jax.random.key(0), len(params))
    return {
        path: jax.random.rademacher(key, value.shape, dtype=value.dtype)
        for key, (path, value) in zip(keys, params.items(), strict=True)
    }


def _conjugate_gradients(product: Any, slope: Params, damping: Any, most: Any) -> tuple[Params, jax.Array]:
    """Solve (G + damping) s = −slope, to a hundredth of the slope's length."""

    def dot(left: Params, right: Params) -> Any:
        return sum(jnp.vdot(left[path], right[path]) for path in left)

    def going(state: Any) -> Any:
        *_, square, number = state
        return (number < most) & (square > 1e-4 * first)

    def advance(state: Any) -> Any:
        found, residual, direction, square, number = state
        turned = jax.tree.map(lambda value, along: value + damping * along, product(direction), direction)
        length = square / jnp.maximum(dot(direction, turned), 1e-30)
        found = jax.tree.map(lambda value, along: value + length * along, found, direction)
        residual = jax.tree.map(lambda value, along: value - length * along, residual, turned)
        new = dot(residual, residual)
        direction = jax.tree.map(lambda value, along: value + new / square * along, residual, direction)
        return found, residual, direction, new, number + 1

    residual = jax.tree.map(jnp.negative, slope)
    first = dot(residual, residual)
    start = (jax.tree.map(jnp.zeros_like, residual), residual, residual, first, jnp.int32(0))
    found, _, _, _, number = jax.lax.while_loop(going, advance, start)
    return found, number
