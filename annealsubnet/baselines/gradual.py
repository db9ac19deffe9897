"""Gradual pruning: a little at a time, with training in between.

Stage t of T keeps the share

    s_t = s_T + (1 − s_T) (1 − t/(ρT))³    until t = ρT, and s_T from then on

of the weights, chosen by any method that is called like `prune` at the weights of that stage; after it, what is left is trained
for one pass over the stage's examples, the zeros held. A stage in which nothing goes only trains.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from annealsubnet.arguments import check_whole
from annealsubnet.baselines.magnitude import magnitude
from annealsubnet.baselines.selection import Result, traced_on_data
from annealsubnet.budgets import Budget, Keep, budget_of
from annealsubnet.losses import Loss, cross_entropy
from annealsubnet.masks import Mask
from annealsubnet.networks import Network
from annealsubnet.statistics.passes import labeled_for

Chooser = Callable[..., Result]


def gradual(
    model: Any,
    batches: Iterable[Any] | None,
    *,
    keep: Keep,
    unit: str = "weight",
    scope: str = "network",
    exclude: Iterable[str] = (),
    seed: int = 0,
    loss: Loss = cross_entropy,
    choose: Chooser = magnitude,
    stages: int = 15,
    ramp: float = 1.0,
    examples: int | None = None,
    looked_at: int | None = None,
    learning_rate: float = 1e-3,
    batch_size: int = 64,
) -> Result:
    """Prune in stages, with a pass of Adam over some examples after each.

    Args:
        model, batches, keep, unit, scope, exclude, seed, loss: as in `annealsubnet.baselines`; labels are read.
        choose: the method that chooses at each stage; by default magnitude.
        stages: T.
        ramp: ρ, the share of the stages after which no more weights go.
        examples: drawn for each stage, to train on; all by default.
        looked_at: how many of them, the first ones, `choose` is given; all by default.
        learning_rate: of Adam, falling to zero over all stages by a cosine; 0 for no training.
        batch_size: of Adam.

    Returns:
        The mask, and the trained model with zeros for what it removes.

    Raises:
        ValueError: for counts below 1, a ramp outside (0, 1], another unit than weights, missing labels, and as `budget_of`.

    References:
        Zhu, Gupta, "To prune, or not to prune: exploring the efficacy of pruning for model compression", 2017, equation 1.
    """
    seed = check_whole("seed", seed)
    if unit != "weight":
        raise ValueError(f"gradual chooses weights; give unit='weight', not {unit!r}.")
    check_whole("stages", stages, 1)
    check_whole("batch_size", batch_size, 1)
    for name, count in (("examples", examples), ("looked_at", looked_at)):
        if count is not None:
            check_whole(name, count, 1)
    if not 0 < ramp <= 1:
        raise ValueError(f"ramp is {ramp}; give the share of the stages in which weights go, above 0 and at most 1.")
    network = traced_on_data(model, batches, "gradual")
    budget = budget_of(network, keep=keep, unit=unit, scope=scope, exclude=exclude)
    pairs = list(labeled_for(network, batches or (), loss))
    inputs, labels = (np.concatenate([np.asarray(pair[part]) for pair in pairs]) for part in (0, 1))
    drawn = len(labels) if examples is None else min(examples, len(labels))
    rng = np.random.default_rng(seed)
    trainer = _Trainer(learning_rate, stages * (drawn // min(batch_size, drawn)), min(batch_size, drawn), loss)
    state = trainer.optimizer.init(dict(network.params))
    mask = Mask.of(network, "weight", {name: np.ones(shape, bool) for name, shape in budget.shapes.items()})
    order = np.zeros(0, np.int64)
    for stage in range(1, stages + 1):
        while len(order) < drawn:
            order = np.append(order, rng.permutation(len(labels)))
        now, order = order[:drawn], order[drawn:]
        part = [(inputs[now[i : i + 1000]], labels[now[i : i + 1000]]) for i in range(0, drawn, 1000)]
        amount, last = (_amount(budget, min(1.0, at / (ramp * stages))) for at in (stage, stage - 1))
        if amount != last:
            seen = _first(part, looked_at)
            mask, pruned = choose(network, seen, keep=amount, scope=scope, exclude=exclude, seed=seed + stage, loss=loss)
            network = network.replace(pruned)
        if learning_rate > 0:
            params, state = trainer.run(network, mask, part, state)
            network = network.replace(network.model.export(params))
    return mask, network.model.export(mask.multiply(network.params))


def _first(batches: list[Any], count: int | None) -> list[Any]:
    """The first examples of some batches."""
    if count is None:
        return batches
    starts = np.cumsum([0, *(len(labels) for _, labels in batches)])
    parts = [
        (inputs[: count - start], labels[: count - start]) for (inputs, labels), start in zip(batches, starts, strict=False)
    ]
    return [part for part, start in zip(parts, starts, strict=False) if start < count]


def _amount(budget: Budget, progress: float) -> Keep:
    """How much stays at a point of the cubic schedule, from everything (0) to the budget (1)."""

    def count(kept: int, size: int) -> int:
        return kept + round((size - kept) * (1 - progress) ** 3)

    if budget.scope == "network":
        return count(budget.total, budget.size)
    sizes = {name: int(np.prod(budget.shapes[name])) for name in budget.selected}
    if budget.scope == "neuron":
        sizes = {name: layer.fan_in for name, layer in budget.layers.items()}
    return {name: count(budget.counts[name], sizes[name]) for name in budget.selected}


@dataclass(frozen=True)
class _Trainer:
    """Adam with a learning rate that falls to zero over `steps`."""

    learning_rate: float
    steps: int
    batch_size: int
    loss: Loss

    @property
    def optimizer(self) -> optax.GradientTransformation:
        return optax.adam(optax.cosine_decay_schedule(self.learning_rate, self.steps))

    def run(self, network: Network, mask: Mask, batches: Iterable[Any], state: Any) -> tuple[Any, Any]:
        """One pass over full batches; parameters and the optimizer's state after it."""
        keeps = {path: jnp.asarray(keep) for path, keep in mask.keeps().items()}
        optimizer = self.optimizer

        @network.jitted("gradual training", self)
        def step(params: Any, state: Any, keeps: Any, inputs: jax.Array, labels: jax.Array) -> Any:
            def mean(values: Any) -> jax.Array:
                return self.loss.value(network.run(values, inputs)[0], labels).mean()

            gradient = jax.grad(mean)(params)
            gradient = {path: slope * keeps[path] if path in keeps else slope for path, slope in gradient.items()}
            updates, state = optimizer.update(gradient, state, params)
            moved: Any = optax.apply_updates(params, updates)
            return {path: jnp.where(keeps[path], value, 0) if path in keeps else value for path, value in moved.items()}, state

        params: Any = dict(mask.multiply(network.params))
        inputs, labels = (np.concatenate(parts) for parts in zip(*batches, strict=True))
        for first in range(0, len(labels) - self.batch_size + 1, self.batch_size):
            part = slice(first, first + self.batch_size)
            params, state = step(params, state, keeps, inputs[part], labels[part])
        return params, state
