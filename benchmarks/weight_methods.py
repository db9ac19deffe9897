"""What the weight benchmark compares: methods by name, the refit that all of them share, and what each read.

Every method is given the same calibration batches through a counter, so that "examples read" is what it iterated over: each
example once for each pass, forward or backward, with labels or without.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import partial
from inspect import signature
from typing import Any

import jax
import numpy as np
import optax
from flax import nnx

from annealsubnet import Mask, baselines, prune, thin
from annealsubnet.fitting import fit_network
from annealsubnet.networks import Network
from annealsubnet.refitting import refit_params
from annealsubnet.statistics.weight_distance import distance_to

Method = Callable[..., Any]

GRADIENTS = 16_000
"""Examples of a model of gradients, or of one stage of gradual pruning."""
STAGES, BUDGET = 15, 240_000
"""Of gradual pruning; the budget is of examples read, forward or back, each pass counted."""
OURS, ON_GRADIENTS = (2_000, 11_600), (3_000, 13_760)
"""Examples of a stage that are looked at (by ours in up to three passes, by methods on gradients in one) and trained on."""
RAMP, LEARNING_RATE, BATCH = 0.7, 3e-3, 32
"""The share of stages in which weights go, and Adam, the same for all, best on validation images among those tried."""


@dataclass
class Counted:
    """Batches that count how many examples were taken from them."""

    batches: list[Any]
    read: int = field(default=0)

    def __iter__(self) -> Iterator[Any]:
        for batch in self.batches:
            self.read += len(batch[0])
            yield batch

    def first(self, examples: int) -> list[Any]:
        """The first examples, as batches that count no more."""
        taken, left = [], examples
        for inputs, labels in self.batches:
            if left > 0:
                taken.append((inputs[:left], labels[:left]))
                left -= len(inputs)
        return taken


def ours() -> dict[str, Method]:
    """Annealed selection, its control at temperature zero, and both without the exchanges over all layers that follow."""
    return {
        "annealed": partial(prune, polish=3, effort=5),
        "descent": partial(prune, polish=3, effort=0),
        "annealed by neuron": partial(prune, polish=0, effort=5),
        "descent by neuron": partial(prune, polish=0, effort=0),
    }


def one_shot(rows: int, names: list[str] | None = None) -> dict[str, Method]:
    """Every method that prunes the whole network once; `rows` of gradients for those that need them."""
    on_gradients = ("woodfisher", "surgeon", "zero-swaps", "chita")
    methods = {**ours(), "magnitude": baselines.magnitude, "obd": baselines.obd}
    for name, method in baselines.ON_REQUEST.items():
        if name not in ("gradual", "osscar"):
            methods[name] = partial(method, rows=rows) if name in on_gradients else method
    return methods if names is None else {name: methods[name] for name in names}


def patterned(names: list[str] | None = None) -> dict[str, Method]:
    """Every method that keeps a pattern N:M."""
    methods = {**ours(), "magnitude": baselines.magnitude, **baselines.ON_REQUEST}
    able = {name: method for name, method in methods.items() if "pattern" in signature(method).parameters}
    return able if names is None else {name: able[name] for name in names}


@dataclass
class Staged:
    """A gradual method: what chooses in each stage, and the examples that it looks at and trains on there."""

    choose: Method
    looked_at: int
    trained_on: int
    read: int = 0

    def __call__(self, network: Network, batches: Any, *, keep: float, seed: int) -> Any:
        """Prune in stages; counts what is read on the way."""

        def choose(model: Any, part: Any, **options: Any) -> Any:
            counted = Counted(list(part))
            result = self.choose(model, counted, **options)
            self.read += counted.read
            return result

        trains = self.trained_on > 0
        self.read = STAGES * self.trained_on
        return baselines.gradual(
            network,
            batches,
            keep=keep,
            seed=seed,
            choose=choose,
            stages=STAGES,
            ramp=RAMP if trains else 1.0,
            examples=self.trained_on or self.looked_at,
            looked_at=self.looked_at,
            learning_rate=LEARNING_RATE if trains else 0.0,
            batch_size=BATCH,
        )


def staged(rows: int) -> dict[str, Staged]:
    """Gradual methods that all train alike and read at most `BUDGET` examples, each pass through the network counted.

    The last three take all their weights from the model of gradients, without training.
    """
    found = {
        "annealed, trained": Staged(partial(thin, effort=5), *OURS),
        "descent, trained": Staged(partial(thin, effort=0), *OURS),
        "magnitude, trained": Staged(baselines.magnitude, 1, BUDGET // STAGES),
    }
    on_gradients = ("surgeon", "zero-swaps", "chita")
    for name in on_gradients:
        found[f"{name}, trained"] = Staged(partial(baselines.ON_REQUEST[name], rows=rows), *ON_GRADIENTS)
    for name in on_gradients:
        found[name] = Staged(partial(baselines.ON_REQUEST[name], rows=rows), BUDGET // STAGES, 0)
    return found


def common_refit(network: Network, mask: Mask, own: Any, batches: Any, *, steps: int) -> tuple[Network, int]:
    """What every mask gets: all layers fitted together to the dense network's own outputs, from its method's own weights or
    from those of least squares layer by layer, whichever leave the network nearer to the dense one.

    Returns:
        The refitted network, and how many examples the second part read (the first reads `batches`).
    """
    starts = [refit_params(network, mask, batches), mask.multiply(network.replace(own).params)]
    params = min(starts, key=lambda params: distance_to(network, batches, params=params))
    if steps == 0:
        return network.replace(network.model.export(params)), 0
    fitted = fit_network(network, mask, list(batches), params=params, steps=steps)
    return network.replace(network.model.export(fitted.params)), fitted.examples


def recomputed(model: Any, batches: Any) -> Any:
    """The model with the statistics of its BatchNorms measured again: their mean over batches, each normalized by its own."""
    norms = (
        [node for _, node in nnx.iter_graph(model) if isinstance(node, nnx.BatchNorm)] if isinstance(model, nnx.Module) else []
    )
    if not norms:
        return model
    copy = nnx.clone(model)
    for _, node in nnx.iter_graph(copy):
        if isinstance(node, nnx.BatchNorm):
            node.momentum = 0.0  # the running statistics are those of the last batch
    copy.train()
    graph, state = nnx.split(copy)

    @jax.jit
    def run(state: Any, inputs: Any) -> Any:
        module = nnx.merge(graph, state)
        module(inputs)
        return nnx.state(module, nnx.BatchStat)

    found = [run(state, inputs) for inputs, _ in batches]
    mean = jax.tree.map(lambda *leaves: np.mean([np.asarray(leaf) for leaf in leaves], axis=0), *found)
    fresh = nnx.clone(model)
    nnx.update(fresh, jax.tree.map(jax.numpy.asarray, mean))
    return fresh


def fine_tuned(network: Network, batches: list[Any], *, seed: int, examples: int = BUDGET, batch_size: int = BATCH) -> Any:
    """The dense network after as many example-gradients as a gradual method spends (Adam, cosine, as `baselines.gradual`)."""
    inputs, labels = (np.concatenate([batch[part] for batch in batches]) for part in (0, 1))
    steps = examples // batch_size
    optimizer = optax.adam(optax.cosine_decay_schedule(LEARNING_RATE, steps))
    params: Any = dict(network.params)
    state = optimizer.init(params)

    @jax.jit
    def step(params: Any, state: Any, x: Any, y: Any) -> Any:
        def loss(values: Any) -> Any:
            return optax.softmax_cross_entropy_with_integer_labels(network.apply(values, x), y).mean()

        updates, state = optimizer.update(jax.grad(loss)(params), state, params)
        return optax.apply_updates(params, updates), state

    rng = np.random.default_rng(seed)
    order = np.concatenate([rng.permutation(len(labels)) for _ in range(-(-examples // len(labels)))])
    for number in range(steps):
        now = order[number * batch_size : (number + 1) * batch_size]
        params, state = step(params, state, inputs[now], labels[now])
    return network.model.export(params)


def sizes_of(sparsity: float, pattern: str | None) -> Mapping[str, Any]:
    """The options that say how much stays."""
    return {"pattern": pattern} if pattern else {"keep": round(1 - sparsity, 6), "scope": "network"}
