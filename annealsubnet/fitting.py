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
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import partial, reduce
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
    dense = network.params if target_params is None else target_params
    outputs = network.jitted("fit outputs")(lambda values, images: apply_rounded(network, values, images))
    inputs = np.concatenate([batch for batch, _ in stream(batches)])
    everything = _chunks(inputs, backward_chunk(network, loss=loss), partial(outputs, dense))
    part = everything[:: max(1, len(inputs) // _CURVED)]
    distance = _Distance(network, mask, loss)
    now = widened(mask.multiply(params))
    signs = mask.multiply(_signs(now))
    value = start = distance.value(now, everything)
    count, curved, damping = len(inputs), _count(part), _FIRST_DAMPING
    examples = 2 * count
    for _ in range(steps):
        product = partial(distance.product, now, part)
        move, used = _step(product, distance.slope(now, everything), signs, damping, products)
        examples += count + curved * (used + 1)
        for part_of_it in (1.0, *_SHORTER):
            found = _moved(now, move, part_of_it)
            fell = distance.value(found, everything)
            examples += count
            logger.info(
                "fit: distance %.4g to %.4g by %g of a step at damping %.1e, %d products",
                value, fell, part_of_it, damping, used,
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


_Chunk = tuple[jax.Array, jax.Array, np.ndarray]
"""Examples, the outputs they should have, and 1 for each of them, 0 for those that fill up the last chunk: the first once more,
as a model that standardizes each example has no finite outputs for zeros."""


def _chunks(inputs: np.ndarray, size: int, outputs: Callable[[jax.Array], jax.Array]) -> list[_Chunk]:
    """Inputs in chunks of one size, at most this one, with the outputs that a function gives them."""
    number = -(-len(inputs) // size)
    size = -(-len(inputs) // number)
    padded = np.resize(inputs, (number * size, *inputs.shape[1:]))
    ones = (np.arange(number * size) < len(inputs)).astype(np.float32)
    parts = zip(map(jnp.asarray, np.split(padded, number)), np.split(ones, number), strict=True)
    return [(images, outputs(images), each) for images, each in parts]


def _count(chunks: list[_Chunk]) -> int:
    return sum(int(ones.sum()) for *_, ones in chunks)


class _Distance:
    """D, and the products with its derivatives that a step takes.

    Chunks and products are looped over here, not in XLA, which takes twice as long to compile a convolution's gradient within a
    loop, and seven times as long to run it on a CPU.
    """

    def __init__(self, network: Network, mask: Mask, loss: Loss) -> None:
        def curved(outputs: jax.Array, target: jax.Array, ones: jax.Array) -> jax.Array:
            along, back = jax.vjp(loss.products_at(target), outputs)
            return back(along)[0] * ones[:, None]

        @network.jitted("fit value", loss)
        def value(params: Params, images: jax.Array, target: jax.Array, ones: jax.Array) -> jax.Array:
            return ones @ squared_distances(apply_rounded(network, params, images), target, loss)

        @network.jitted("fit slope", loss)
        def slope(sums: Params, params: Params, images: jax.Array, target: jax.Array, ones: jax.Array) -> Params:
            outputs, pull = jax.vjp(lambda values: apply_rounded(network, values, images), params)
            return jax.tree.map(jnp.add, sums, pull(curved(outputs - target, target, ones))[0])

        @network.jitted("fit product", loss)
        def product(
            sums: Params, params: Params, direction: Params, images: jax.Array, target: jax.Array, ones: jax.Array
        ) -> Params:
            function = lambda values: apply_rounded(network, values, images)  # noqa: E731
            _, moved = jax.jvp(function, (params,), (direction,))
            return jax.tree.map(jnp.add, sums, jax.vjp(function, params)[1](curved(moved, target, ones))[0])

        self._value, self._slope, self._product = value, slope, product
        self._keeps = {path: jnp.asarray(keep, jnp.float32) for path, keep in mask.keeps().items()}

    def value(self, params: Params, chunks: list[_Chunk]) -> float:
        """D."""
        return float(sum(self._value(params, *chunk) for chunk in chunks)) / _count(chunks)

    def slope(self, params: Params, chunks: list[_Chunk]) -> Params:
        """E[JᵀF (f − f_0)] where the mask keeps."""
        return self._mean(lambda sums, chunk: self._slope(sums, params, *chunk), params, chunks)

    def product(self, params: Params, chunks: list[_Chunk], direction: Params) -> Params:
        """E[JᵀFJ] · direction where the mask keeps."""
        return self._mean(lambda sums, chunk: self._product(sums, params, direction, *chunk), params, chunks)

    def _mean(self, add: Callable[[Params, _Chunk], Params], params: Params, chunks: list[_Chunk]) -> Params:
        return _scaled(reduce(add, chunks, _zeros(params)), self._keeps, 1 / _count(chunks))


@jax.jit
def _zeros(params: Params) -> Params:
    return jax.tree.map(jnp.zeros_like, params)


@jax.jit
def _moved(params: Params, move: Params, by: float) -> Params:
    return {path: value + by * move[path] for path, value in params.items()}


@jax.jit
def _scaled(sums: Params, keeps: Params, by: float) -> Params:
    return {path: value * by * keeps[path] if path in keeps else value * by for path, value in sums.items()}


def _signs(params: Params) -> dict[str, jax.Array]:
    rng = np.random.default_rng(0)
    return {path: jnp.asarray(rng.choice([-1.0, 1.0], value.shape), value.dtype) for path, value in params.items()}


def _step(product: Any, slope: Params, signs: Params, damping: float, most: int) -> tuple[Params, int]:
    """One damped Gauss-Newton step by at most so many conjugate gradients, and how many it took."""
    # zᵀ G z of one draw of signs is the trace of G in expectation.
    mean = float(_dot(product(signs), signs)) / float(_dot(signs, signs))
    return _conjugate_gradients(product, slope, damping * max(mean, 1e-12), most)


def _conjugate_gradients(product: Any, slope: Params, damping: float, most: int) -> tuple[Params, int]:
    """Solve (G + damping) s = −slope, to a hundredth of the slope's length."""
    residual = _scaled(slope, {}, -1.0)
    found, direction = _zeros(slope), residual
    square = first = _dot(residual, residual)
    for number in range(most):
        if not square > 1e-4 * first:
            return found, number
        found, residual, direction, square = _advanced(product(direction), found, residual, direction, square, damping)
    return found, most


@jax.jit
def _advanced(turned: Params, found: Params, residual: Params, direction: Params, square: Any, damping: Any) -> Any:
    """Solution, residual, direction and the residual's square after one more product G · direction."""
    turned = jax.tree.map(lambda value, along: value + damping * along, turned, direction)
    length = square / jnp.maximum(_dot(direction, turned), 1e-30)
    found = jax.tree.map(lambda value, along: value + length * along, found, direction)
    residual = jax.tree.map(lambda value, along: value - length * along, residual, turned)
    new = _dot(residual, residual)
    direction = jax.tree.map(lambda value, along: value + new / square * along, residual, direction)
    return found, residual, direction, new


@jax.jit
def _dot(left: Params, right: Params) -> Any:
    return sum(jnp.vdot(left[path], right[path]) for path in left)
