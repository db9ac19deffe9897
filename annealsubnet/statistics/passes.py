"""What a pass back from the loss needs before it starts: labels that fit the outputs, and chunks that fit the memory."""

from collections.abc import Callable, Iterable, Iterator
from math import prod
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from annealsubnet.batches import labeled
from annealsubnet.losses import Loss, check_loss
from annealsubnet.networks import Network, Params
from annealsubnet.statistics.streams import chunk_size


def labeled_for(network: Network, batches: Iterable[Any], loss: Loss) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Each batch as (inputs, labels), the labels checked against the network's outputs where the loss is cross-entropy.

    Raises:
        ValueError: as `annealsubnet.batches.labeled`; if the network does not return `[batch, classes]`, or takes inputs of
            another shape.
        TypeError: for what is no loss.
    """
    check_loss(loss)
    count = num_outputs(network)
    pairs = labeled(batches, classes=count if loss.of_classes else None)
    return ((_fitting(network, inputs), labels) for inputs, labels in pairs)


def num_outputs(network: Network) -> int:
    """How many outputs a network has for each example.

    Raises:
        ValueError: if it does not return `[batch, outputs]`.
    """
    outputs = jax.eval_shape(network.apply, network.params, one_example(network))
    if outputs.ndim != 2:
        raise ValueError(
            f"The network returns {outputs.shape[1:]} an example; the loss takes one vector of outputs an example: "
            "give a model that flattens or averages them."
        )
    return int(outputs.shape[1])


def _fitting(network: Network, inputs: np.ndarray) -> np.ndarray:
    if inputs.shape[1:] != network.example.shape[1:]:
        raise ValueError(
            f"The batches have examples of shape {inputs.shape[1:]}; the network takes {network.example.shape[1:]}."
        )
    return inputs


FACTORS = 16
"""How many factors of a loss's curvature go back at once."""


def over_factors(function: Callable[[jax.Array], Any], factors: jax.Array) -> Any:
    """Sum a tree of arrays over the factors of a loss's curvature, a block of them at a time.

    Args:
        function: from a block `[at most FACTORS, batch, classes]` to sums over it; factors of zeros, which fill up the last
            block, must add nothing.
        factors: `[rank, batch, classes]`.
    """
    if len(factors) <= FACTORS:
        return function(factors)
    padded = jnp.pad(factors, [(0, -len(factors) % FACTORS), (0, 0), (0, 0)])
    blocks = padded.reshape(-1, FACTORS, *factors.shape[1:])

    def add(total: Any, block: jax.Array) -> tuple[Any, None]:
        return jax.tree.map(jnp.add, total, function(block)), None

    return jax.lax.scan(add, function(blocks[0]), blocks[1:])[0]


def curvature_chunk(network: Network) -> int:
    """How many examples to pass forward once, and back once for each factor of the loss's curvature in a block.

    All factors are held as well: outputs² numbers an example.

    Raises:
        ValueError: as `num_outputs`.
    """
    outputs = num_outputs(network)
    back = backward_chunk(network, most=4096) // (1 + min(outputs, FACTORS))
    return max(1, min(back, chunk_size(4 * outputs**2)))


def backward_chunk(network: Network, *, most: int = 1024, loss: Loss | None = None) -> int:
    """How many examples to pass forward and back at once: every layer's inputs and outputs are held until the way back.

    Args:
        network: traced.
        most: never more.
        loss: of which products with the curvature's factors are taken; if it has these only from the factors, outputs² numbers
            an example are held too.
    """

    def records(params: Params, inputs: jax.Array) -> Any:
        return network.run(params, inputs, record=network.layers)[1]

    held = sum(prod(array.shape) for array in jax.tree.leaves(jax.eval_shape(records, network.params, one_example(network))))
    factors = 0 if loss is None or loss.curvature_products else num_outputs(network) ** 2
    return chunk_size(4 * (held + factors), most=most)


def one_example(network: Network) -> jax.ShapeDtypeStruct:
    """The shape of one example."""
    return jax.ShapeDtypeStruct((1, *network.example.shape[1:]), network.example.dtype)
