"""Training for the example networks: Adam on the cross-entropy of integer labels, with a cosine-decayed rate.

Not a trainer for your networks (any optax loop is), only what makes the examples self-contained.
"""

import logging
import math
from collections.abc import Iterable
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx

from annealsubnet.progress import track

_LOG = logging.getLogger(__name__)

# One object at module level, so that all trainings of an architecture share one compilation of `_step`.
_ADAM = optax.scale_by_adam()


def train(
    model: nnx.Module,
    batches: Iterable[tuple[np.ndarray, np.ndarray]],
    *,
    seed: int,
    epochs: int,
    learning_rate: float = 1e-3,
    batch_size: int = 128,
    progress: bool = False,
) -> nnx.Module:
    """A trained copy of the model.

    Args:
        model: an `nnx.Module` from inputs to logits; it is not changed.
        batches: (inputs, labels); they are put together, and drawn anew in each epoch.
        seed: draws the order of the examples.
        epochs: passes over the examples.
        learning_rate: Adam's rate at the start; it falls to zero along half a cosine.
        batch_size: examples in a step. What is left over after the last full step sits out that epoch.
        progress: show a bar on a terminal.

    Returns:
        A new module in evaluation mode, BatchNorm's averages included.

    Raises:
        ValueError: when there are no batches, a label has no output, or the loss is no longer finite.
    """
    inputs, labels = _gathered(batches)
    batch_size = min(batch_size, len(labels))
    steps_per_epoch = len(labels) // batch_size
    copy = nnx.clone(model)
    copy.train()
    graph, *states = nnx.split(copy, nnx.Param, ...)
    params, rest = states
    _check_labels(graph, params, rest, inputs[:batch_size], labels)
    moments = _ADAM.init(params)
    rng = np.random.default_rng(seed)
    for epoch in track(range(epochs), "Training", progress=progress):
        order = rng.permutation(len(labels))[: steps_per_epoch * batch_size].reshape(steps_per_epoch, batch_size)
        loss = jnp.zeros(())
        for step, chosen in enumerate(order, epoch * steps_per_epoch):
            rate = 0.5 * learning_rate * (1 + math.cos(math.pi * step / (epochs * steps_per_epoch)))
            params, rest, moments, loss = _step(graph, params, rest, moments, inputs[chosen], labels[chosen], rate)
        if not np.isfinite(loss):
            raise ValueError(f"The training loss became {loss} in epoch {epoch + 1}; lower learning_rate={learning_rate}.")
        _LOG.info("epoch %d of %d: loss %.4f in its last step", epoch + 1, epochs, loss)
    trained = nnx.merge(graph, params, rest)
    trained.eval()
    return trained


def _gathered(batches: Iterable[tuple[np.ndarray, np.ndarray]]) -> tuple[np.ndarray, np.ndarray]:
    """All examples and labels of the batches, in one array each."""
    pieces = [(np.asarray(inputs), np.asarray(labels)) for inputs, labels in batches]
    if not pieces:
        raise ValueError("train got no batches; give at least one of (inputs, labels).")
    return np.concatenate([inputs for inputs, _ in pieces]), np.concatenate([labels for _, labels in pieces])


def _check_labels(graph: nnx.GraphDef, params: nnx.State, rest: nnx.State, inputs: np.ndarray, labels: np.ndarray) -> None:
    """Raise unless there is an output for every label: the loss of one beyond them would be NaN."""

    def logits(params: nnx.State, rest: nnx.State) -> jax.Array:
        return nnx.merge(graph, params, rest, copy=True)(inputs)

    outputs = jax.eval_shape(logits, params, rest).shape[-1]
    if labels.max() >= outputs:
        raise ValueError(
            f"The labels run to {labels.max()}, but the model has {outputs} outputs; give labels from 0 to {outputs - 1}, or a "
            "model with more outputs."
        )


@partial(jax.jit, static_argnums=0)
def _step(
    graph: nnx.GraphDef,
    params: nnx.State,
    rest: nnx.State,
    moments: optax.ScaleByAdamState,
    inputs: jax.Array,
    labels: jax.Array,
    rate: jax.typing.ArrayLike,
) -> tuple[nnx.State, nnx.State, optax.ScaleByAdamState, jax.Array]:
    """One Adam step: the new parameters, the new averages of BatchNorm, Adam's moments and the batch's loss."""

    def loss_of(candidate: nnx.State) -> tuple[jax.Array, nnx.State]:
        model = nnx.merge(graph, candidate, rest, copy=True)  # BatchNorm writes into its copy
        loss = optax.softmax_cross_entropy_with_integer_labels(model(inputs), labels).mean()
        return loss, nnx.state(model, nnx.Not(nnx.Param))

    (loss, rest), gradient = jax.value_and_grad(loss_of, has_aux=True)(params)
    updates, moments = _ADAM.update(gradient, moments, params)
    return jax.tree.map(lambda value, update: value - rate * update, params, updates), rest, moments, loss
