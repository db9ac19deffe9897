"""Statistics of weights: the gradients of single examples by every kernel, and their moments.

A layer multiplies its input vectors a_np (p a position) by its kernel W, so that with δ_np = ∂loss_n/∂z_np, which one backward
pass gives for every layer, the gradient of example n is

    g_n = Σ_p a_np δ_npᵀ

exactly. A layer that is called at one position an example needs no g_n at all: Σ_n g_n² = (a²)ᵀ δ². The others form g_n one
example after the other. Moments are exact either way, and as large as the kernels.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from annealsubnet.batches import stream
from annealsubnet.losses import Loss, cross_entropy
from annealsubnet.networks import Layer, Network, Params
from annealsubnet.statistics.passes import backward_chunk, curvature_chunk, labeled_for, over_factors
from annealsubnet.statistics.streams import accumulate, as_wide, check_statistics, chunks


@dataclass(frozen=True)
class KernelGradients:
    """Moments of the per-example gradients by kernels, by layer, each in the kernel's own shape and float64.

    Attributes:
        mean: E[g], the gradient of the mean loss.
        mean_absolute: E|g|.
        second: E[g²], the diagonal of the empirical Fisher information.
        count: how many examples went in.
    """

    mean: Mapping[str, np.ndarray]
    mean_absolute: Mapping[str, np.ndarray]
    second: Mapping[str, np.ndarray]
    count: int

    def __repr__(self) -> str:
        return f"KernelGradients({len(self.mean)} layers, {self.count:,} examples)"


def mean_gradients(
    network: Network, batches: Iterable[Any], *, loss: Loss = cross_entropy, params: Params | None = None
) -> dict[str, np.ndarray]:
    """Gradient of the mean loss by every kernel, in the kernel's own shape and float64, by layer; one ordinary backward pass.

    Args:
        network: traced.
        batches: (inputs, labels).
        loss: of one example.
        params: of the network; its own by default.

    Raises:
        ValueError: for bad batches or missing labels, or gradients that are not finite (layer named).
    """

    @network.jitted("mean gradients", loss)
    def step(values: Params, inputs: jax.Array, labels: jax.Array) -> Any:
        return _summed_gradient(network, values, loss, inputs, labels)(kernels_of(network, values))

    pairs = chunks(labeled_for(network, batches, loss), backward_chunk(network))
    sums, count = accumulate(partial(step, network.params if params is None else params), pairs)
    return _means(sums, count)


def gradient_products(
    network: Network,
    batches: Iterable[Any],
    tangents: Mapping[str, Any],
    *,
    loss: Loss = cross_entropy,
    params: Params | None = None,
) -> dict[str, np.ndarray]:
    """The Hessian of the mean loss in all kernels, times a vector: forward over backward, exact.

    Args:
        network, batches, loss, params: as in `mean_gradients`.
        tangents: the vector, one array of the kernel's shape a layer.

    Returns:
        The product by layer, in the kernel's own shape and float64.

    Raises:
        ValueError: as `mean_gradients`.
    """
    params = network.params if params is None else params
    directions = {name: jnp.asarray(tangents[name], kernel.dtype) for name, kernel in kernels_of(network, params).items()}

    @network.jitted("gradient products", loss)
    def step(values: Params, along: Params, inputs: jax.Array, labels: jax.Array) -> Any:
        gradient = _summed_gradient(network, values, loss, inputs, labels)
        return jax.jvp(gradient, (kernels_of(network, values),), (along,))[1]

    pairs = chunks(labeled_for(network, batches, loss), backward_chunk(network))
    sums, count = accumulate(partial(step, params, directions), pairs)
    return _means(sums, count)


def kernel_gradients(
    network: Network, batches: Iterable[Any], *, loss: Loss = cross_entropy, params: Params | None = None
) -> KernelGradients:
    """Moments of the per-example gradients by every kernel, exact, in one pass.

    Args:
        network, batches, loss, params: as in `mean_gradients`.

    Raises:
        ValueError: as `mean_gradients`; or if a layer is called with the examples not along its first axis (named).
    """
    layers = network.layers

    @network.jitted("kernel gradients", loss)
    def step(values: Params, inputs: jax.Array, labels: jax.Array) -> Any:
        outputs, pull, records = pull_back(network, values, inputs)
        slopes = jax.grad(lambda logits: loss.value(logits, labels).sum())(outputs)
        return {
            name: _moments(layers[name], records[name][0], deltas, inputs.shape[0]) for name, deltas in pull(slopes).items()
        }

    pairs = chunks(labeled_for(network, batches, loss), backward_chunk(network))
    sums, count = accumulate(partial(step, network.params if params is None else params), pairs)
    mean, mean_absolute, second = (_means({name: sums[name][part] for name in sums}, count) for part in range(3))
    return KernelGradients(mean, mean_absolute, second, count)


def kernel_curvature(
    network: Network, batches: Iterable[Any], *, loss: Loss = cross_entropy, params: Params | None = None
) -> dict[str, np.ndarray]:
    """Diagonal of the loss's Gauss-Newton Hessian in every kernel, E[Σ_c (s_cᵀ ∂outputs/∂w)²], exact; needs no labels.

    Args:
        network, loss, params: as in `mean_gradients`.
        batches: inputs or (inputs, labels); labels are not read.

    Returns:
        By layer, in the kernel's own shape and float64.

    Raises:
        ValueError: as `kernel_gradients`.
    """
    layers = network.layers

    @network.jitted("kernel curvature", loss)
    def step(values: Params, inputs: jax.Array) -> Any:
        outputs, pull, records = pull_back(network, values, inputs)

        def squares(factors: jax.Array) -> dict[str, jax.Array]:
            pulled = jax.vmap(pull)(factors)
            return {name: squares_of(layers[name], records[name][0], pulled[name], inputs.shape[0]) for name in layers}

        return over_factors(squares, loss.curvature_factor(outputs))

    inputs = ((inputs,) for inputs, _ in chunks(stream(batches), curvature_chunk(network)))
    sums, count = accumulate(partial(step, network.params if params is None else params), inputs)
    return _means(sums, count)


def kernels_of(network: Network, params: Params) -> dict[str, jax.Array]:
    """The kernel of every layer, by the layer's name."""
    return {name: params[layer.kernel] for name, layer in network.layers.items()}


def run_kernels(network: Network, params: Params, kernels: Params, inputs: jax.Array) -> jax.Array:
    """Outputs of the network with other kernels."""
    paths = {layer.kernel: kernels[name] for name, layer in network.layers.items()}
    return network.run({**params, **paths}, inputs)[0]


def _summed_gradient(
    network: Network, params: Params, loss: Loss, inputs: jax.Array, labels: jax.Array
) -> Callable[[Params], Params]:
    """The gradient of Σ_n loss_n, as a function of the kernels."""

    def total(kernels: Params) -> jax.Array:
        return loss.value(run_kernels(network, params, kernels, inputs), labels).sum()

    return jax.grad(total)


def pull_back(network: Network, params: Params, inputs: jax.Array) -> tuple[jax.Array, Any, Any]:
    """Run, and be ready to go back.

    Returns:
        Outputs; a function from a cotangent of the outputs to the cotangents of every layer's outputs; every layer's records.
    """
    names = tuple(network.layers)
    shapes = jax.eval_shape(lambda: network.run(params, inputs, record=names)[1])
    zeros = {name: jnp.zeros(shape.shape, shape.dtype) for name, (_, shape) in shapes.items()}

    def shifted(shifts: Params) -> tuple[jax.Array, Any]:
        return network.run(params, inputs, shifts=shifts, record=names)

    outputs, pull, records = jax.vjp(shifted, zeros, has_aux=True)
    return outputs, lambda cotangent: pull(cotangent.astype(outputs.dtype))[0], records


def _moments(layer: Layer, inputs: jax.Array, deltas: jax.Array, examples: int) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Σ over examples of g, |g| and g², each in the kernel's own shape."""
    vectors = vectors_of(layer, inputs, examples)
    deltas = as_wide(deltas).reshape(*vectors.shape[:3], -1)
    if vectors.shape[1] == 1:
        pairs = [(power(vectors), power(deltas)) for power in (jnp.asarray, jnp.abs, jnp.square)]
        sums = [jnp.einsum("npgi,npgo->gio", left, right, precision="highest") for left, right in pairs]
    else:

        def add(sums: list[jax.Array], example: tuple[jax.Array, jax.Array]) -> tuple[list[jax.Array], None]:
            gradient = jnp.einsum("pgi,pgo->gio", *example, precision="highest")
            values = (gradient, jnp.abs(gradient), jnp.square(gradient))
            return [total + value for total, value in zip(sums, values, strict=True)], None

        start = jnp.zeros((*vectors.shape[2:], deltas.shape[3]), deltas.dtype)
        sums = jax.lax.scan(add, [start] * 3, (vectors, deltas))[0]
    mean, absolute, square = (layer.from_matrix(total) for total in sums)
    return mean, absolute, square


def squares_of(layer: Layer, inputs: jax.Array, deltas: jax.Array, examples: int) -> jax.Array:
    """Σ over examples and factors of g², in the kernel's own shape; `deltas` has the factors in front."""
    vectors = vectors_of(layer, inputs, examples)
    together = jnp.moveaxis(as_wide(deltas).reshape(len(deltas), *vectors.shape[:3], -1), 0, 2)
    if vectors.shape[1] == 1:
        total = jnp.einsum("npgi,npgo->gio", vectors**2, (together**2).sum(2), precision="highest")
    else:

        def add(sums: jax.Array, example: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, None]:
            gradients = jnp.einsum("pgi,pcgo->gico", *example, precision="highest")
            return sums + jnp.square(gradients).sum(2), None

        start = jnp.zeros((*vectors.shape[2:], together.shape[-1]), together.dtype)
        total = jax.lax.scan(add, start, (vectors, together))[0]
    return layer.from_matrix(total)


def vectors_of(layer: Layer, inputs: jax.Array, examples: int) -> jax.Array:
    """What a layer multiplies, in float32 or wider: `[examples, positions, groups, fan_in]`.

    Raises:
        ValueError: if the layer is not called with the examples along the first axis.
    """
    if inputs.shape[0] != examples:
        raise ValueError(
            f"Layer {layer.name!r} is called with {inputs.shape} for {examples} examples; gradients of single examples need "
            "the examples along the first axis."
        )
    return layer.patches(as_wide(inputs)).reshape(examples, -1, layer.groups, layer.fan_in)


def _means(sums: Mapping[str, np.ndarray], count: int) -> dict[str, np.ndarray]:
    for name, total in sums.items():
        check_statistics(name, total)
    return {name: total / count for name, total in sums.items()}
