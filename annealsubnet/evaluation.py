"""Evaluation: how well a network does on labeled batches, and what it costs, whole or under a mask."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from math import nan, prod
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from annealsubnet.batches import Batches, first_inputs
from annealsubnet.losses import Loss, cross_entropy
from annealsubnet.masks import Mask
from annealsubnet.networks import Model, Network, Params, as_network
from annealsubnet.statistics.passes import labeled_for
from annealsubnet.statistics.streams import as_wide


@dataclass(frozen=True)
class Evaluation:
    """What a network does and what it costs.

    A floating-point operation is one multiplication or one addition of a layer (Dense, Conv, the projections of an attention):
    2 for each number of a kernel that is not zero and whose input is still there, at each position of one example; a padded
    border counts as if it were multiplied. Not counted: biases, normalizations, activations, pooling, sums of branches, and the
    products inside an attention. So `flops` under a mask of neurons or heads is that of the shrunk network, and under a mask of
    weights that of an ideal sparse implementation.

    Attributes:
        accuracy: share of examples whose largest output is their label, in [0, 1]; NaN if labels are not integers, or
            there is one output.
        loss: mean over examples.
        examples: how many were read.
        parameters: numbers in all parameters, zeros included.
        nonzeros: those that are not zero and still read: under a mask of neurons or heads, the weights by which the next layer
            multiplies a removed one are not.
        dense_flops: operations for one example with every number of every kernel.
        flops: operations for one example with what is left.
    """

    accuracy: float
    loss: float
    examples: int
    parameters: int
    nonzeros: int
    dense_flops: int
    flops: int

    def __repr__(self) -> str:
        share = self.nonzeros / max(self.parameters, 1)
        return (
            f"Evaluation(accuracy {self.accuracy:.2%}, loss {self.loss:.4f} over {self.examples:,} examples; "
            f"{self.nonzeros:,} of {self.parameters:,} parameters nonzero ({share:.1%}), {self.flops:,} FLOPs)"
        )


def evaluate(model: Any, batches: Batches, mask: Mask | None = None, *, loss: Loss = cross_entropy) -> Evaluation:
    """Accuracy, loss and cost of a network, streamed over labeled batches.

    Args:
        model: an `nnx.Module`, what `from_linen` or `from_function` return, or a `Network`. Calls with the same `Model` or
            `Network` compile once.
        batches: of (inputs, labels).
        mask: applied first, nothing refitted.
        loss: cross-entropy with integer labels unless given.

    Raises:
        ValueError: if there are no batches or no labels, labels out of range, inputs that the model does not take or that are
            not finite, or a mask for another model.

    Example:
        >>> from flax import nnx
        >>> model = nnx.Linear(2, 2, use_bias=False, rngs=nnx.Rngs(0))
        >>> inputs = np.eye(2, dtype=np.float32)
        >>> labels = np.argmax(model(inputs), axis=1)
        >>> evaluate(model, [(inputs, labels)]).accuracy
        1.0
    """
    network = as_network(model, None if isinstance(model, Network) else first_inputs(batches))
    if mask is not None:
        mask.check_network(network)
    params = network.params if mask is None else mask.multiply(network.params)
    step = _step(network.model, loss)
    total_loss, correct, examples = 0.0, 0.0, 0
    for inputs, labels in labeled_for(network, batches, loss):
        batch_loss, batch_correct = step(params, inputs, labels)
        total_loss += float(batch_loss)
        correct += float(batch_correct)
        examples += len(inputs)
    counts = _counts(network, params, mask)
    return Evaluation(correct / examples, total_loss / examples, examples, *counts)


def positions(network: Network) -> dict[str, int]:
    """How many times each layer multiplies its kernel in one example: 1, or the pixels of its output, or the tokens."""
    example = jax.ShapeDtypeStruct((1, *network.example.shape[1:]), network.example.dtype)
    records = jax.eval_shape(lambda params, x: network.run(params, x, record=network.layers)[1], dict(network.params), example)
    return {name: records[name][1].size // layer.outputs for name, layer in network.layers.items()}


def operations(network: Network) -> int:
    """Multiplications and additions of all layers for one example, forward."""
    times = positions(network)
    return sum(2 * times[name] * prod(layer.shape) for name, layer in network.layers.items())


def _step(model: Model, loss: Loss) -> Callable[..., tuple[jax.Array, jax.Array]]:
    """Sums of the loss and of correct answers over one batch; kept with the model, which then compiles once."""
    call = model.call

    def step(params: Params, inputs: jax.Array, labels: jax.Array) -> tuple[jax.Array, jax.Array]:
        outputs = as_wide(call(params, inputs))
        values = loss.value(outputs, labels)
        # One output has no classes: whole numbers are its targets.
        if labels.ndim != 1 or not jnp.issubdtype(labels.dtype, jnp.integer) or outputs.shape[-1] == 1:
            return jnp.sum(values), jnp.asarray(nan)
        return jnp.sum(values), jnp.sum(jnp.argmax(outputs, axis=-1) == labels)

    return model.programs.setdefault(("evaluate", loss), jax.jit(step))


def _counts(network: Network, params: Params, mask: Mask | None) -> tuple[int, int, int, int]:
    """Parameters, nonzeros, dense FLOPs and FLOPs."""
    removed = {} if mask is None or mask.unit == "weight" else _removed_inputs(network, mask)
    times = positions(network)
    parameters = sum(value.size for value in params.values())
    nonzeros, dense, sparse = 0, 0, 0
    kernels = {layer.kernel: layer for layer in network.layers.values()}
    for path, value in params.items():
        array = np.asarray(value)
        layer = kernels.get(path)
        if layer is None:
            nonzeros += int(np.count_nonzero(array))
            continue
        used = layer.matrix(array) != 0
        if layer.name in removed:
            used &= ~removed[layer.name][:, :, None]
        left = int(np.count_nonzero(used))
        nonzeros += left
        dense += 2 * times[layer.name] * array.size
        sparse += 2 * times[layer.name] * left
    return parameters, nonzeros, dense, sparse


def _removed_inputs(network: Network, mask: Mask) -> Mapping[str, np.ndarray]:
    """For each layer that reads removed units, True at their inputs, `[groups, fan_in]`."""
    removed: dict[str, np.ndarray] = {}
    for name, kept in mask.kept.items():
        for reader, units in network.sites(mask.unit)[name].consumers.items():
            # An input that no unit of this site feeds is −1 and reads the False appended here.
            gone = np.append(~kept, False)[units]
            removed[reader] = removed[reader] | gone if reader in removed else gone
    return removed
