"""Find a ticket: in a network whose weights stay as they are, a subnetwork that performs.

Thousands of rounds, one annealing: scores collect the evidence of small batches, and the distribution of masks that they give
cools to a single mask (`rules`). Or few rounds on large batches, each of which anneals a quadratic model of the loss
(`sequential`). No weight, bias or normalization statistic is ever changed.
"""

import logging
import math
from collections.abc import Callable, Iterable
from numbers import Real
from pathlib import Path
from typing import Any

from annealsubnet.arguments import MOST_SEED, check_whole
from annealsubnet.batches import Batches, first_inputs
from annealsubnet.budgets import Budget, Keep, budget_of
from annealsubnet.losses import Loss, cross_entropy
from annealsubnet.masks import Mask
from annealsubnet.networks import as_network
from annealsubnet.tickets.coupled import Coupling
from annealsubnet.tickets.draws import Augment, draws_of
from annealsubnet.tickets.progress import Check, Search, read_progress
from annealsubnet.tickets.quadratic import Blocks
from annealsubnet.tickets.rounds import advance, begin
from annealsubnet.tickets.rules import Rule, annealed, sampled
from annealsubnet.tickets.switches import Switches

logger = logging.getLogger(__name__)


def find_ticket(
    model: Any,
    batches: Batches,
    *,
    keep: Keep = 0.5,
    price: float | None = None,
    keep_from: float | None = None,
    unit: str = "weight",
    scope: str = "layer",
    exclude: Iterable[str] = (),
    loss: Loss = cross_entropy,
    passes: float = 10,
    batch_size: int | None = None,
    rule: Rule | Blocks | None = None,
    coupling: float = 0.0,
    augment: Augment | None = None,
    checks: int = 10,
    held_in: int | None = None,
    seed: int,
    report: Callable[[Check], None] | None = None,
    state_file: str | Path | None = None,
    resume: bool = False,
) -> Mask:
    """The mask of a subnetwork that performs without any weight being trained.

    Args:
        model: with random weights (see `initialize`), in evaluation mode: an `nnx.Module`, what `from_linen` or
            `from_function` return, or a `Network`. It is not changed.
        batches: of (inputs, labels), read once and put together.
        keep: how much stays of each layer (see `scope`): a fraction in (0, 1], a count, or either by layer.
        price: keep whatever unit has a score above this, instead of a fixed count; 0 asks only for a better loss. With
            `Blocks()` it is the loss that a kept unit has to save, and `keep` what the first mask has.
        keep_from: start from this share of all units, each layer from as many times its own, and get to `keep` by half of the
            rounds, geometrically.
        unit: "weight" or "neuron" ("head" where there are attentions).
        scope: over which units `keep` counts: each "layer", the "network", or the fan-in of each "neuron".
        exclude: layers to leave whole.
        loss: of one example.
        passes: how often every example is seen; the whole schedule ends there. (`Blocks()` wants some 36 rounds:
            36 · `batch_size` / number of examples.)
        batch_size: examples a round; if None 100, and 5,000 for `Blocks()`.
        rule: how scores become masks; if None `annealed()`, or with couplings `sampled()`. (The others:
            `latent_scores()`, `edge_popup()`, `supermask()`.) `Blocks()` keeps no scores and solves a quadratic model of the
            loss in every fan-in instead, or in all neurons.
        coupling: γ, the weight of the couplings within each neuron's fan-in, in units of the step; weights only, and a rule
            that draws masks (`sampled()`, `latent_scores()`).
        augment: `(inputs, generator) -> inputs`, applied to each round's examples.
        checks: how often the ground state is judged; the best of them is the answer. (`Blocks()` judges every round.)
        held_in: examples it is judged on, drawn from `batches`; if None 500, and with `Blocks()` as many as a round has.
        seed: the same seed gives the same ticket.
        report: called with every `Check`.
        state_file: where the search is saved at every check and on an interrupt.
        resume: go on from `state_file`, with the same network, examples and options.

    Returns:
        The mask.

    Raises:
        ValueError: for batches without labels, of one class, or not finite; a loss that is NaN at the start (rescale the
            weights); a `keep` or `price` that leaves a layer without units; settings that do not fit; another search's state.
        TypeError: for a `rule` that is none, and a `batch_size`, `checks`, `held_in` or `seed` that is no whole number.
        FileNotFoundError: if there is no folder to save in, or no `state_file` to go on from.

    Example:
        >>> import jax, jax.numpy as jnp, numpy as np
        >>> from annealsubnet.networks import from_function
        >>> rng = np.random.default_rng(0)
        >>> params = {"hidden": {"kernel": rng.normal(size=(4, 32))}, "out": {"kernel": rng.normal(size=(32, 2))}}
        >>> def network(params, inputs, tap):
        ...     return tap.dense("out", jax.nn.relu(tap.dense("hidden", inputs)))
        >>> inputs = rng.normal(size=(200, 4)).astype(np.float32)
        >>> labels = (inputs[:, 0] > 0).astype(np.int32)
        >>> model = from_function(network, jax.tree.map(jnp.float32, params))
        >>> find_ticket(model, [(inputs, labels)], keep=0.5, batch_size=20, seed=0)
        Mask(weight, 96 of 192 kept in 2 sites)
    """
    network = as_network(model, first_inputs(batches))
    budget = budget_of(network, keep=keep, unit=unit, scope=scope, exclude=exclude)
    rule = rule or (sampled() if coupling > 0 else annealed())
    in_blocks = isinstance(rule, Blocks)
    batch_size = check_whole("batch_size", (5000 if in_blocks else 100) if batch_size is None else batch_size, 1)
    held_in = (batch_size if in_blocks else 500) if held_in is None else held_in
    seed = check_whole("seed", seed, 0, MOST_SEED)
    checks, held_in = check_whole("checks", checks, 1), check_whole("held_in", held_in, 1)
    path = None if state_file is None else Path(state_file)
    _check(budget, price, keep_from, passes, rule, coupling, resume, path)
    draws = draws_of(network, batches, loss, size=batch_size, seed=seed, augment=augment)
    rounds = max(1, round(passes * len(draws.labels) / draws.size))
    search = Search(
        Switches(network, budget, loss),
        rule,
        draws,
        rounds,
        rounds if in_blocks else min(checks, rounds),
        min(held_in, len(draws.labels)),
        price,
        keep_from,
        Coupling(coupling) if coupling > 0 else None,
        seed,
    )
    progress = read_progress(search, path) if resume and path is not None else begin(search)
    progress = advance(search, progress, report=report or _logged, save_to=path)
    return Mask.of(network, unit, progress.best)


def _logged(check: Check) -> None:
    logger.info(
        "round %d: held-in loss %.4f (predicted change %+.4f, actual %+.4f), %d flips",
        check.round, check.held_in_loss, check.predicted, check.actual, check.flips,
    )  # fmt: skip


def _check(
    budget: Budget,
    price: float | None,
    keep_from: float | None,
    passes: float,
    rule: Rule | Blocks,
    coupling: float,
    resume: bool,
    path: Path | None,
) -> None:
    """Refuse settings that do not fit."""
    if price is not None and (isinstance(price, bool) or not isinstance(price, Real) or not math.isfinite(price)):
        raise ValueError(f"price is {price!r}; give a finite number, or none for a fixed count.")
    if not 0 < passes < math.inf:
        raise ValueError(f"passes is {passes}; give how often every example is to be seen, above 0.")
    if not isinstance(rule, Rule | Blocks):
        raise TypeError(f"rule is {rule!r}; give one that is made, such as annealsubnet.tickets.edge_popup() or Blocks().")
    if isinstance(rule, Blocks) and coupling > 0:
        raise ValueError(f"Blocks() has couplings of its own (see its damping); leave out coupling={coupling}.")
    if coupling > 0 and isinstance(rule, Rule) and not rule.couples:
        raise ValueError(f"The rule {rule.name!r} goes with no coupling; leave it out for the rule that does, sampled().")
    if not coupling >= 0 or (coupling > 0 and budget.unit != "weight"):
        raise ValueError(f'coupling is {coupling} for unit="{budget.unit}"; it is at least 0, and above 0 for weights only.')
    if keep_from is not None and (price is not None or not budget.total / budget.size <= keep_from <= 1):
        raise ValueError(f"keep_from is {keep_from}; it is a share from that kept up to 1, and goes with keep, not with price.")
    if keep_from is not None and isinstance(rule, Rule) and not rule.counted:
        raise ValueError(f"The rule {rule.name!r} leaves its count free until the end; leave out keep_from={keep_from}.")
    if resume and path is None:
        raise ValueError("resume=True needs the state_file to go on from.")
    if path is not None and not path.parent.is_dir():
        raise FileNotFoundError(f"There is no folder {path.parent} to save the search in.")
    if path is not None and path.is_dir():
        raise ValueError(f"state_file is {path}, a folder; name a file in it.")
