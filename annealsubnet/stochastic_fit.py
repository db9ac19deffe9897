"""Stochastic fit: all that is left of a network at once, to the dense network's own outputs, a small batch at a time.

Levenberg-Marquardt (`annealsubnet.fitting`) passes through all examples some hundred times. Where a pass is costly, more
examples passed once serve better: Adam on the divergence of outputs softened by a temperature T,

    min_θ  T² E KL(softmax(f_0 / T) ‖ softmax(f_θ / T)),

over the kept weights, the biases, and scales and biases of normalizations (θ). To second order around the dense network's
outputs f_0 that is ½ (f_θ − f_0)ᵀ F (f_θ − f_0) with F the Hessian of cross-entropy at outputs f_0 / T, the distance that the
other fit minimizes; a temperature above 1 also holds what the dense network is sure of. No labels are read.

References:
    Hinton, Vinyals, Dean, *Distilling the knowledge in a neural network*, 2015, section 2.
    Kingma, Ba, *Adam: a method for stochastic optimization*, ICLR 2015, algorithm 1.
"""

import logging
from collections.abc import Iterable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from annealsubnet.batches import stream
from annealsubnet.fitting import Fit
from annealsubnet.masks import Mask
from annealsubnet.networks import Network, Params

logger = logging.getLogger(__name__)


TEMPERATURE = 4.0
"""T, unless another is given."""


def divergence(outputs: jax.Array, target: jax.Array, temperature: float = TEMPERATURE) -> jax.Array:
    """T² E KL(softmax(target / T) ‖ softmax(outputs / T)) of `[examples, classes]`."""
    wanted, found = jax.nn.log_softmax(target / temperature), jax.nn.log_softmax(outputs / temperature)
    return temperature**2 * (jnp.exp(wanted) * (wanted - found)).sum(1).mean()


def fit_by_batches(
    network: Network,
    mask: Mask,
    batches: Iterable[Any],
    *,
    params: Params,
    seed: int,
    examples: int,
    target_params: Params | None = None,
    batch_size: int = 32,
    learning_rate: float = 3e-3,
    temperature: float = TEMPERATURE,
) -> Fit:
    """Adam on the divergence from the dense network, its rate falling to zero by a cosine.

    Args:
        network: traced, with outputs `[batch, classes]`.
        mask: what is kept; its zeros stay zeros.
        batches: inputs or (inputs, labels); labels are not read. They are held in memory and drawn without replacement, again
            and again.
        params: where to start.
        seed: of the drawing.
        examples: how many gradients of single examples are taken; those that fill no batch are not.
        target_params: of the dense network; the network's own by default.
        batch_size: of them in a step.
        learning_rate: of Adam at the start.
        temperature: T.

    Returns:
        Fit: its values are the mean divergence in the first and in the last tenth of the steps, each measured on a batch before
        the step that it makes.

    Raises:
        ValueError: for bad batches, a mask for another model, or numbers that are not positive.
    """
    if min(examples, batch_size) < 1 or min(learning_rate, temperature) <= 0:
        raise ValueError(
            f"examples is {examples}, batch_size {batch_size}, learning_rate {learning_rate} and temperature {temperature}; "
            "all must be positive."
        )
    dense = network.params if target_params is None else target_params
    inputs = np.concatenate([batch for batch, _ in stream(batches)])
    size = min(batch_size, len(inputs))
    steps = max(1, examples // size)
    keeps = {path: jnp.asarray(keep, params[path].dtype) for path, keep in mask.keeps().items()}
    optimizer = optax.adam(optax.cosine_decay_schedule(learning_rate, steps))
    step = _step_of(network, optimizer, (learning_rate, steps), temperature)
    now: Any = dict(mask.multiply(params))
    state = optimizer.init(now)
    rng = np.random.default_rng(seed % 2**63)
    order = np.zeros(0, int)
    values = []
    for _ in range(steps):
        if len(order) < size:
            order = np.concatenate([order, rng.permutation(len(inputs))])
        drawn, order = order[:size], order[size:]
        now, state, value = step(now, state, keeps, dense, inputs[drawn])
        values.append(float(value))
    tenth = max(1, steps // 10)
    start, end = float(np.mean(values[:tenth])), float(np.mean(values[-tenth:]))
    logger.info("fit by batches: divergence %.4g to %.4g in %d steps of %d examples", start, end, steps, size)
    return Fit(now, end, start, 2 * steps * size)


def _step_of(network: Network, optimizer: optax.GradientTransformation, schedule: Any, temperature: float) -> Any:
    """One step of Adam: parameters, state, and the divergence before it."""

    @network.jitted("fit by batches", schedule, temperature)
    def step(now: Params, state: Any, keeps: Params, dense: Params, images: jax.Array) -> Any:
        target = network.apply(dense, images)

        def moved(values: Params) -> jax.Array:
            return divergence(network.apply(values, images), target, temperature)

        def kept(tree: Params) -> Params:
            return {path: value * keeps[path] if path in keeps else value for path, value in tree.items()}

        value, slopes = jax.value_and_grad(moved)(dict(now))
        updates, state = optimizer.update(kept(slopes), state, dict(now))
        after: Any = optax.apply_updates(dict(now), updates)
        return kept(after), state, value

    return step
