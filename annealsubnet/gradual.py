"""Gradual: gradient steps on what is kept, between rounds.

With rounds the network is pruned a little at a time; with `Training` its kept parameters also follow the labeled loss after
every round, and the next round keeps to the outputs of the network that was trained, not to the dense one's. The budget is
counted in examples whose gradient is taken; what the rounds read to select and refit comes on top of it."""

import logging
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from annealsubnet.losses import Loss
from annealsubnet.masks import Mask
from annealsubnet.networks import Network, Params
from annealsubnet.statistics.passes import labeled_for

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Training:
    """Gradient steps after every round.

    Attributes:
        tx: any optax optimizer; its state and schedule go on from round to round.
        examples: how many gradients of single examples are taken after each round.
        batch_size: of them in a step.

    Raises:
        ValueError: for counts below 1.

    Example:
        >>> Training(optax.adam(1e-3), examples=16_000).steps
        250
    """

    tx: optax.GradientTransformation
    examples: int
    batch_size: int = 64

    def __post_init__(self) -> None:
        if self.examples < 1 or self.batch_size < 1:
            raise ValueError(f"examples and batch_size must be 1 or more, not {self.examples} and {self.batch_size}.")

    @property
    def steps(self) -> int:
        """Steps after each round; the examples that fill no batch are not read."""
        return max(1, self.examples // self.batch_size)

    def __repr__(self) -> str:
        return f"Training({self.examples:,} examples a round in batches of {self.batch_size})"


@dataclass(frozen=True)
class Trained:
    """Where training stands.

    Attributes:
        params: of the network.
        state: of the optimizer; None before the first step.
        examples: gradients taken so far.
    """

    params: Params
    state: Any = None
    examples: int = 0


def check_labels(network: Network, batches: Iterable[Any], loss: Loss) -> None:
    """Refuse batches that cannot be trained on, before any work is done.

    Raises:
        ValueError: for bad batches, or labels that are missing or not what the loss takes.
    """
    for number, (inputs, labels) in enumerate(labeled_for(network, batches, loss)):
        if number == 0:
            jax.eval_shape(loss.value, jax.eval_shape(network.apply, network.params, inputs), labels)


def train_kept(
    network: Network, mask: Mask, batches: Iterable[Any], before: Trained, *, training: Training, loss: Loss, seed: int
) -> Trained:
    """Gradient steps on the parameters that a mask keeps.

    Args:
        network: traced.
        mask: whose zeros stay zeros.
        batches: of (inputs, labels); they are held in memory and drawn from without replacement, over and over.
        before: where training stands.
        training: how.
        loss: of one example.
        seed: of the drawing.

    Raises:
        ValueError: for bad batches or missing labels.
    """
    pairs = list(labeled_for(network, batches, loss))
    inputs, labels = (np.concatenate(arrays) for arrays in zip(*pairs, strict=True))
    keeps = {path: jnp.asarray(keep) for path, keep in mask.keeps().items()}

    @network.jitted("train", loss, training.tx)
    def step(values: Params, state: Any, keeps: Params, images: jax.Array, answers: jax.Array) -> Any:
        def kept(tree: Params) -> Params:
            return {path: jnp.where(keeps[path], value, 0) if path in keeps else value for path, value in tree.items()}

        slopes = jax.grad(lambda values: loss.value(network.apply(values, images), answers).mean())(values)
        updates, state = training.tx.update(kept(slopes), state, values)
        return kept(dict(optax.apply_updates(values, updates))), state

    params = mask.multiply(before.params)
    state = training.tx.init(params) if before.state is None else before.state
    rng = np.random.default_rng(seed % 2**63)
    size = min(training.batch_size, len(inputs))
    order = np.zeros(0, int)
    for _ in range(training.steps):
        if len(order) < size:
            order = np.concatenate([order, rng.permutation(len(inputs))])
        drawn, order = order[:size], order[size:]
        params, state = step(params, state, keeps, inputs[drawn], labels[drawn])
    examples = before.examples + size * training.steps
    logger.info("trained on %d examples so far", examples)
    return Trained(params, state, examples)
