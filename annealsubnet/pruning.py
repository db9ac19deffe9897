"""Prune: in a trained network, the best subnetwork of a given size.

One round walks the layers in the order of running. Each layer's statistics are taken in the network as it is by then, with
everything before it pruned and refitted, and its targets are the dense network's outputs; what feeds the layer is selected,
what stays is refitted, and the walk goes on:

    statistics → problems → solve → refit

Counts that compete over several layers are allocated first, from the layers' error curves weighted by the loss's curvature.
"""

import logging
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import jax.numpy as jnp
import numpy as np

from annealsubnet.arguments import check_whole
from annealsubnet.batches import first_inputs
from annealsubnet.budgets import Budget, Keep
from annealsubnet.frozen import select_frozen
from annealsubnet.frozen_weights import select_frozen_weights
from annealsubnet.gradual import Trained, Training, check_labels, train_kept
from annealsubnet.losses import Loss, check_loss, cross_entropy
from annealsubnet.masks import Mask
from annealsubnet.networks import Network, Params, as_network
from annealsubnet.patterns import parse_pattern, pattern_budget
from annealsubnet.polishing import polish_weights
from annealsubnet.progress import track
from annealsubnet.refitting import RIDGE, affordable, fit_together, kept_weights, refit_layer, weighed_by
from annealsubnet.selection import Choice, Importance, select_site, select_weights
from annealsubnet.shares import importance_of, site_counts, weight_counts
from annealsubnet.statistics.moments import Regression, targeted_regression
from annealsubnet.statistics.passes import num_outputs
from annealsubnet.statistics.row_curvature import (
    Deltas,
    RowCurvature,
    as_rows,
    from_rows,
    layer_targets,
    row_deltas,
    row_regression,
)
from annealsubnet.statistics.targets import LayerTargets
from annealsubnet.thinning import thin_weights

logger = logging.getLogger(__name__)


def prune(
    model: Any,
    batches: Iterable[Any],
    *,
    keep: Keep = None,
    unit: str = "weight",
    scope: str = "network",
    exclude: Iterable[str] = (),
    pattern: str | None = None,
    sampler: Any = None,
    sampler_options: Mapping[str, Any] | None = None,
    degree: int | None = None,
    refit: bool = True,
    ridge: float = RIDGE,
    rounds: int = 1,
    training: Training | None = None,
    polish: int = 3,
    effort: int = 25,
    inputs: str = "pruned",
    curvature: bool | None = None,
    loss: Loss = cross_entropy,
    seed: int,
    progress: bool = False,
) -> tuple[Mask, Any]:
    """Keep the best subnetwork of a given size, and refit its weights.

    Args:
        model: trained, in evaluation mode: an `nnx.Module`, what `from_linen` or `from_function` return, or a `Network`
            traced from one of these. It is not changed.
        batches: calibration inputs or (inputs, labels), iterated several times; labels are not read. Up to 1 GiB of what layers
            read is held from one to the next, of neurons and heads 2.
        keep: how much stays: a fraction in (0, 1], a count, or either for each layer by name.
        unit: "weight", "neuron" (Dense columns, Conv channels) or "head" (of attentions). Biases, and the neurons of the last
            layer, are not units.
        scope: over which units `keep` counts: the "network", each "layer", or (weights) the fan-in of each "neuron".
        exclude: layers from which nothing is removed, like those that a mapping leaves out; a refit still adapts their weights.
        pattern: of the zeros in a kernel (weights only): "N:M", such as "2:4", which says itself how much stays, or blocks
            "BxC" of inputs by neurons (`annealsubnet.patterns`).
        sampler: any `dimod.Sampler`, to solve the selection as binary quadratic models; by default the exact
            select-and-refit annealer.
        sampler_options: passed to the sampler; without one to the Annealer that chooses neurons and heads with `refit=False`.
        degree: most couplings that a unit keeps in a binary quadratic model (its neighborhood); all by default. The exact
            select-and-refit annealer has no such model and leaves it unread.
        refit: whether the kept weights are refitted to the dense network's outputs by least squares.
        ridge: of that refit, in units of the mean diagonal of the inputs' second moment.
        rounds: how often to walk the network, keeping geometrically less each time. Each chooses anew: what one removed may
            come back in the next, except for weights that `training` thins. Weights that are not refitted have one round.
        training: gradient steps on what is kept after every round, on labeled batches (`annealsubnet.gradual.Training`). The
            weights of a round then go from all layers at once (`annealsubnet.thinning`), unless a pattern or the scope "neuron"
            says where.
        polish: rounds of exchanges of weights over all layers at once, each around the network as it is by then, with what it
            keeps refitted together; under "N:M" within its groups, and none under blocks or the scope "neuron". Neurons and
            heads are refitted together after every one of `rounds`, but not exchanged. 0, or a sampler whose choice is
            refitted, leaves every layer as its own selection and refit made it. A refit takes some hundred passes: where one
            over the batches takes over 2·10¹⁰ operations there are no exchanges, and Adam fits the kept weights together, 200
            steps at each of two to four rates (`annealsubnet.stochastic_fit`).
        effort: sweeps of the select-and-refit annealer; 0 makes only exchanges that help (temperature zero).
        inputs: of which network each layer sees while its units are chosen and refitted to the dense outputs: the "pruned" one,
            so that a layer makes up for those before it, or the "dense" one.
        curvature: whether the errors of each neuron's weights are weighed by the loss's curvature in them
            (`annealsubnet.statistics.row_curvature`), instead of alike at all positions of all examples; weights only, without
            sampler, training or pattern of blocks. By default in networks with convolutions, where that takes at most 10¹³
            operations and moments of 512 MiB a layer; up to 1 GiB of derivatives is held besides.
        loss: whose curvature weighs the errors of layers and outputs against each other.
        seed: of all that is random; the same seed gives the same mask.
        progress: show progress on a terminal.

    Returns:
        The mask; and a new model in the form that came in: an `nnx.Module`, Linen variables, or a parameter tree.

    Raises:
        ValueError: for a `keep`, `scope`, layer or batch that does not fit, outputs that are not one vector an example, or
            weights or statistics that are not finite; each says what was found and what to do.
        TypeError: for a model, loss or sampler of another kind, a number that is not whole, or an option the sampler lacks.

    Example:
        >>> import jax, jax.numpy as jnp, numpy as np
        >>> from annealsubnet.networks import from_function
        >>> weights = np.random.default_rng(0).normal(size=(6, 4)).astype(np.float32)
        >>> params = {"hidden": {"kernel": jnp.asarray(weights)}, "out": {"kernel": jnp.ones((4, 2))}}
        >>> def network(params, inputs, tap):
        ...     return tap.dense("out", jax.nn.relu(tap.dense("hidden", inputs)))
        >>> inputs = np.random.default_rng(1).normal(size=(64, 6)).astype(np.float32)
        >>> mask, pruned = prune(from_function(network, params), [inputs], keep=0.5, unit="neuron", seed=0)
        >>> mask
        Mask(neuron, 2 of 4 kept in 1 site)
    """
    check_loss(loss)
    network = as_network(model, first_inputs(batches))
    budget = pattern_budget(network, pattern, keep=keep, unit=unit, scope=scope, exclude=exclude)
    seed = check_whole("seed", seed)
    check_whole("rounds", rounds, 1)
    check_whole("polish", polish, 0)
    if rounds > 1 and unit == "weight" and not refit:
        raise ValueError(f"rounds={rounds} is for a refit; weights that are not refitted have one round: give polish instead.")
    if sampler_options and sampler is None and (refit or unit == "weight"):
        raise ValueError(f"The options {sorted(sampler_options)} are for a sampler, and none is given; give one too.")
    if inputs not in ("pruned", "dense"):
        raise ValueError(f"inputs is {inputs!r}; give 'pruned' or 'dense'.")
    num_outputs(network)  # raises for outputs that no loss takes
    form = None if pattern is None else parse_pattern(pattern)
    choice = Choice(sampler, dict(sampler_options or {}), refit, ridge, effort, degree=degree, pattern=form)
    if form is not None and (rounds > 1 or sampler is not None or not refit):
        raise ValueError(f"pattern={pattern!r} goes with one round of the select-and-refit annealer: no sampler, refit=True.")
    if training is not None and (unit != "weight" or not refit or sampler is not None):
        raise ValueError("training goes with weights that the select-and-refit annealer refits: no sampler, refit=True.")
    if training is not None:
        check_labels(network, batches, loss)
    by_rows = _row_curvature(network, batches, budget, choice, training, loss, wanted=curvature)
    if unit == "weight" and not refit:
        kept = select_frozen_weights(network, batches, budget, rounds=polish, choice=choice, loss=loss, seed=seed)
        params: Params = network.params
    elif not refit:
        kept, params = {}, network.params
        for number in range(rounds):
            stage = budget.stage((number + 1) / rounds)
            kept = select_frozen(network, batches, stage, kept=kept, choice=choice, loss=loss, seed=seed + number)
    else:
        stages = [budget.stage((number + 1) / rounds) for number in range(rounds)]
        course = _Course(network, batches, choice, loss, seed, polish if sampler is None else 0, training, inputs, by_rows)
        kept, params = course.run(stages, progress=progress)
    left_alone = {name: np.ones(shape, bool) for name, shape in budget.shapes.items()}
    mask = Mask.of(network, unit, {**left_alone, **kept})
    params = mask.multiply(params if refit else network.params)
    return mask, network.model.export(params)


def _row_curvature(
    network: Network,
    batches: Iterable[Any],
    budget: Budget,
    choice: Choice,
    training: Training | None,
    loss: Loss,
    *,
    wanted: bool | None,
) -> RowCurvature | None:
    """By which curvature the errors of neurons are weighed, or None.

    Raises:
        ValueError: if it is wanted and cannot be had.
    """
    is_block = choice.pattern is not None and choice.pattern.is_block
    reason: str | None = "it is for weights that are refitted by the select-and-refit annealer, without training or blocks"
    if budget.unit == "weight" and choice.refit and choice.sampler is None and training is None and not is_block:
        reason = None
    return weighed_by(network, batches, list(budget.selected), loss, wanted=wanted, reason=reason)


@dataclass(frozen=True)
class _Course:
    """Rounds of selection and refit, each from the parameters of the round before, with fewer units.

    A removed neuron or head is zero there, which no refit of what reads it undoes; so it is put back before the next choice.
    """

    network: Network
    batches: Iterable[Any]
    choice: Choice
    loss: Loss
    seed: int
    polish: int
    training: Training | None
    inputs: str
    curvature: RowCurvature | None

    def run(self, stages: list[Budget], *, progress: bool) -> tuple[dict[str, np.ndarray], Params]:
        """Masks and parameters after the last stage."""
        network, batches = self.network, self.batches
        kept: dict[str, np.ndarray] = {}
        trained = Trained(network.params)
        for number, stage in enumerate(stages):
            target = network.params if self.training is None else trained.params
            seed = self.seed + 7919 * number
            if self.training is not None and stage.scope != "neuron" and self.choice.pattern is None:
                kept = kept or {name: np.ones(stage.shapes[name], bool) for name in stage.selected}
                shared: dict[str, Any] = {"choice": self.choice, "loss": self.loss, "seed": seed}
                kept, params = thin_weights(network, batches, stage, kept=kept, params=target, **shared)
            else:
                importance: Importance = {}
                present = self._with_removed(stage, kept, trained.params, target)
                if self.curvature is None:
                    importance = importance_of(network, batches, params=present, loss=self.loss)
                walk = _Walk(
                    network, batches, stage, importance, self.choice, self.loss, seed, target, self.inputs, self.curvature
                )
                kept, params = walk.run(present, progress=progress)
            logger.info("round %d of %d keeps %d of %d %ss", number + 1, len(stages), stage.total, stage.size, stage.unit)
            if self.polish and (stage.unit != "weight" or number + 1 == len(stages)):
                kept, params = self._polished(stage, kept, params, target)
            trained = replace(trained, params=params)
            if self.training is not None:
                mask = Mask.of(network, stage.unit, kept)
                trained = train_kept(
                    network, mask, batches, trained, training=self.training, loss=self.loss, seed=self.seed + number
                )
        return kept, trained.params

    def _with_removed(self, stage: Budget, kept: dict[str, np.ndarray], params: Params, target: Params) -> Params:
        """Parameters in which neurons and heads that the round before removed are what they are in the target network."""
        if stage.unit == "weight":
            return params
        keeps = Mask.of(self.network, stage.unit, kept).keeps()
        return {**params, **{path: jnp.where(keep, params[path], target[path]) for path, keep in keeps.items()}}

    def _polished(
        self, budget: Budget, kept: dict[str, np.ndarray], params: Params, target: Params
    ) -> tuple[dict[str, np.ndarray], Params]:
        """Kept weights fitted together, and exchanged between fits where there is a move for that."""
        if budget.unit != "weight" or not affordable(self.network, self.batches):
            mask = Mask.of(self.network, budget.unit, kept)
            options: dict[str, Any] = {"params": params, "target_params": target, "loss": self.loss, "seed": self.seed}
            return kept, fit_together(self.network, mask, self.batches, **options)
        polished = polish_weights(
            self.network,
            self.batches,
            budget,
            kept=kept,
            params=params,
            target_params=target,
            rounds=self.polish,
            choice=self.choice,
            loss=self.loss,
            seed=self.seed,
        )
        return polished.kept, polished.params


class _Walk:
    """One round over the layers."""

    def __init__(
        self,
        network: Network,
        batches: Iterable[Any],
        budget: Budget,
        importance: Importance,
        choice: Choice,
        loss: Loss,
        seed: int,
        target: Params,
        inputs: str,
        curvature: RowCurvature | None,
    ) -> None:
        self.network, self.batches, self.budget = network, batches, budget
        self.importance, self.choice, self.seed, self.target = importance, choice, seed, target
        self.loss, self.inputs, self.curvature = loss, inputs, curvature

    def run(self, params: Params, *, progress: bool) -> tuple[dict[str, np.ndarray], Params]:
        """Masks of all sites, and parameters refitted on them."""
        if self.budget.unit == "weight":
            return self._weights(params, progress=progress)
        return self._sites(params, progress=progress)

    def _regressions(self, layers: Iterable[str], params: Params, targets: LayerTargets) -> dict[str, Regression]:
        """Of layers in the order of running, from where the targets are, and these stay there."""
        branch, seen = targets.branch(), self._seen(params)
        return {name: targeted_regression(self.network, name, branch.of(name, seen)) for name in self.network.in_order(layers)}

    def _seen(self, params: Params) -> Params:
        return params if self.inputs == "pruned" else self.target

    def _weights(self, params: Params, *, progress: bool) -> tuple[dict[str, np.ndarray], Params]:
        network, choice = self.network, self.choice
        counts = weight_counts(
            network,
            self.batches,
            self.budget,
            self.importance,
            params=params,
            ridge=choice.ridge,
            curvature=self.curvature,
            loss=self.loss,
        )
        selected = [name for name in network.layers if name in counts]
        weighed = selected if self.curvature is not None else []
        targets = layer_targets(network, self.batches, network.layers, weighed=weighed, target_params=self.target)
        deltas: Iterator[Deltas] = iter(())
        if self.curvature is not None:
            deltas = row_deltas(network, targets.batches, selected, params=self.target, curvature=self.curvature)
        kept: dict[str, np.ndarray] = {}
        for number, (name, layer) in enumerate(track(network.layers.items(), "Weights", progress=progress)):
            if name not in counts and not kept:
                continue
            stays = np.ones((layer.groups, layer.fan_in, layer.outputs // layer.groups), bool)
            if name not in counts:
                regression = targeted_regression(network, name, targets.of(name, self._seen(params)))
            else:
                regression, stays = self._chosen(
                    name, params, counts[name], targets, deltas=next(deltas, None), seed=self.seed + 31 * number
                )
                kept[name] = layer.from_matrix(stays)
            params = refit_layer(layer, regression, stays, params, ridge=choice.ridge)
        return kept, params

    def _chosen(
        self, name: str, params: Params, counts: np.ndarray, targets: LayerTargets, *, deltas: Deltas | None, seed: int
    ) -> tuple[Regression, np.ndarray]:
        """The regression, by rows where curvature counts, and what stays of a layer."""
        layer = self.network.layers[name]
        weights, bias = layer.weight_matrix(params), layer.bias_matrix(params)
        select = partial(select_weights, choice=self.choice, seed=seed)
        if deltas is None:
            regression = targeted_regression(self.network, name, targets.of(name, self._seen(params)))
            return regression, select(regression, weights, counts, bias=bias)
        rows = row_regression(self.network, name, deltas, targets, params=self._seen(params))
        found = select(rows.regression, as_rows(weights), counts.reshape(-1, 1), bias=bias.reshape(-1, 1))
        return rows.regression, from_rows(found, layer.groups)

    def _sites(self, params: Params, *, progress: bool) -> tuple[dict[str, np.ndarray], Params]:
        network, choice, unit = self.network, self.choice, self.budget.unit
        sites = network.sites(unit)
        counts = site_counts(network, self.batches, self.budget, self.importance, choice=choice, params=params)
        targets = layer_targets(network, self.batches, network.layers, weighed=(), target_params=self.target)
        kept: dict[str, np.ndarray] = {}
        for number, (name, layer) in enumerate(track(network.layers.items(), "Neurons", progress=progress)):
            undecided = [sites[chosen] for chosen in counts if chosen not in kept]
            # What runs before the first layer that may still lose neurons, or is about to be refitted, is settled.
            first, *_ = network.in_order([name, *(member for site in undecided for member in site.members)])
            targets.advance(first, self._seen(params))
            regressions: dict[str, Regression] = {}
            for site in (site for site in undecided if name in site.consumers):
                missing = [consumer for consumer in site.consumers if consumer not in regressions]
                regressions.update(self._regressions(missing, params, targets))
                kept[site.name] = select_site(
                    network,
                    site,
                    regressions,
                    params,
                    counts[site.name],
                    importance=self.importance,
                    choice=choice,
                    seed=self.seed + 31 * number,
                )
            if not kept:
                continue
            mask = Mask.of(network, unit, kept)
            if choice.refit:
                regressions = regressions or self._regressions([name], params, targets)
                stays = kept_weights(network, mask, layer)
                params = refit_layer(layer, regressions[name], stays, params, ridge=choice.ridge)
            params = mask.multiply(params)
        return kept, params
