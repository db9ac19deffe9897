"""Searches without evidence: random masks, a genetic algorithm, greedy exchanges.

They keep no scores. The first two read only the loss of whole masks, many for each answer; greedy exchanges read a gradient and
believe it as far as it has been right. All start from, and stay at, the count asked for: a mask m is changed by giving units
the rank m_i + c_i and keeping the best ranked (`budgets.keep_best`), whatever the scope of the count.

- Random: the best of so many random masks.
- Genetic: parents are the better of two drawn; a child keeps what both parents keep and fills up from what one of them keeps,
  then exchanges a share of its units; some newcomers are random; the best survive. Fitness is the loss on a batch that the
  generation shares.
- Greedy: with the gradient g at the mask, the exchanges of least g·δ + ½ τ |δ|² for the flips δ, which is rank m_i − g_i / τ.
  They are made if the loss falls; τ follows the ratio of the actual to the predicted change, as a trust region does. (With
  the curvature of fan-ins besides: `sequential`.)

References:
    P. Altmann and others, Finding Strong Lottery Ticket Networks with Genetic Algorithms, ECTA 2024 (arXiv 2411.04658). Theirs
    leaves the count free and takes the accuracy for fitness; parents, crossover and newcomers are as there.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import jax
import numpy as np

from annealsubnet.arguments import check_whole
from annealsubnet.batches import Batches, first_inputs
from annealsubnet.budgets import Budget, Keep, budget_of, keep_best
from annealsubnet.losses import Loss, cross_entropy
from annealsubnet.masks import Mask
from annealsubnet.networks import as_network
from annealsubnet.tickets.draws import Draws, draws_of
from annealsubnet.tickets.switches import Gates, Switches, as_gates, empty_site, refuse_overflow

Kept = dict[str, np.ndarray]
_POPULATION, _TOURNAMENT, _NEWCOMERS, _MUTATION = 32, 2, 0.1, 0.01


@dataclass(frozen=True)
class Pool:
    """What a search draws from.

    Attributes:
        switches: the units and the loss.
        draws: examples; a round's serve for the masks that are compared.
        evaluations: masks that may be judged, each on one round's examples.
        seed: of every choice.
    """

    switches: Switches
    draws: Draws
    evaluations: int
    seed: int

    def ranked(self, ranks: Mapping[str, Any]) -> Kept:
        """The mask that keeps the best ranked."""
        kept = keep_best(ranks, self.switches.budget)
        return {name: kept[name] for name in self.switches.shapes}

    def random(self, generator: np.random.Generator) -> Kept:
        """A random mask."""
        return self.ranked({name: generator.random(shape) for name, shape in self.switches.shapes.items()})

    def loss(self, kept: Kept, number: int) -> float:
        """On the examples of round `number`; infinite if not finite."""
        found, _ = self.switches.measure(kept, *self.draws.round(number))
        return found if np.isfinite(found) else np.inf


def random_masks(model: Any, batches: Batches, **options: Any) -> Mask:
    """The best of `evaluations` random masks, all judged on the same examples; called like `genetic`."""
    return searched(model, batches, _best_of_random, **options)


def genetic(model: Any, batches: Batches, **options: Any) -> Mask:
    """The best mask of a genetic algorithm.

    Args:
        model: as for `find_ticket`.
        batches: of (inputs, labels).
        options: keep, unit, scope, exclude, loss and seed as for `find_ticket`; evaluations (1,000): how many masks are judged;
            batch_size (500): on how many examples each.

    Returns:
        The mask.
    """
    return searched(model, batches, _evolved, **options)


def greedy_exchanges(model: Any, batches: Batches, **options: Any) -> Mask:
    """Exchanges down the gradient within a trust region; called like `genetic`.

    A gradient counts as two evaluations.
    """
    return searched(model, batches, _greedy, **options)


def searched(
    model: Any,
    batches: Batches,
    search: Callable[[Pool], Kept],
    *,
    keep: Keep = 0.5,
    unit: str = "weight",
    scope: str = "layer",
    exclude: Iterable[str] = (),
    loss: Loss = cross_entropy,
    evaluations: int = 1000,
    batch_size: int = 500,
    seed: int,
) -> Mask:
    """The mask that a search finds, its options checked (see `genetic`)."""
    evaluations, seed = check_whole("evaluations", evaluations, 1), check_whole("seed", seed, 0)
    network = as_network(model, first_inputs(batches))
    budget: Budget = budget_of(network, keep=keep, unit=unit, scope=scope, exclude=exclude)
    draws = draws_of(network, batches, loss, size=batch_size, seed=seed)
    pool = Pool(Switches(network, budget, loss), draws, evaluations, seed)
    kept = search(pool)
    refuse_overflow(pool.loss(kept, 0))
    if missing := empty_site(kept):
        raise ValueError(f'The best mask found keeps no unit of {missing!r}; keep more units, or scope="layer".')
    return Mask.of(network, unit, kept)


def _best_of_random(pool: Pool) -> Kept:
    generators = [np.random.default_rng([pool.seed, 4, number]) for number in range(pool.evaluations)]
    losses = [pool.loss(pool.random(generator), 0) for generator in generators]
    # Drawn again rather than remembered: a thousand masks of a large network do not fit in memory.
    return pool.random(np.random.default_rng([pool.seed, 4, int(np.argmin(losses))]))


def _evolved(pool: Pool) -> Kept:
    generator = np.random.default_rng([pool.seed, 4])
    size = min(_POPULATION, pool.evaluations)
    population = [pool.random(generator) for _ in range(size)]
    losses, left = [pool.loss(kept, 0) for kept in population], pool.evaluations - size
    # All are judged on the generation's own examples, where there are several: a lucky batch keeps nobody alive.
    again, number = pool.draws.rounds_a_pass > 1, 0
    while size > 1 and left >= size // 2 + again * size:
        number += 1
        newcomers = round(_NEWCOMERS * size)
        children = [pool.random(generator) for _ in range(newcomers)]
        for _ in range(size // 2 - newcomers):
            one, other = (population[_winner(losses, generator)] for _ in range(2))
            children.append(_child(pool, one, other, _MUTATION * 10 ** generator.uniform(-2, 0), generator))
        everyone = population + children
        known = [] if again else losses
        fresh = known + [pool.loss(kept, number) for kept in everyone[len(known) :]]
        left -= len(everyone) - len(known)
        best = np.argsort(fresh, kind="stable")[:size]
        population, losses = [everyone[place] for place in best], [fresh[place] for place in best]
    return population[int(np.argmin(losses))]


def _winner(losses: list[float], generator: np.random.Generator) -> int:
    """The better of two drawn."""
    places = generator.integers(0, len(losses), _TOURNAMENT)
    return int(min(places, key=lambda place: losses[place]))


def _child(pool: Pool, one: Kept, other: Kept, rate: float, generator: np.random.Generator) -> Kept:
    """What both keep, filled up at random from what one of them keeps; then a share `rate` of the units is exchanged."""
    ranks = {}
    for name, kept in one.items():
        crossed = kept.astype(float) + other[name] + generator.random(kept.shape)
        ranks[name] = np.where(generator.random(kept.shape) < rate, 3 - crossed, crossed)
    return pool.ranked(ranks)


def _greedy(pool: Pool) -> Kept:
    switches, budget = pool.switches, pool.switches.budget

    @switches.network.jitted("ticket greedy gradient", *switches.key)
    def gradient(gates: Gates, params: Any, inputs: Any, labels: Any) -> Any:
        return jax.value_and_grad(switches.mean_loss)(gates, params, inputs, labels)

    kept = pool.random(np.random.default_rng([pool.seed, 4]))
    stiffness, left, number = None, pool.evaluations, 0
    while left >= 3:
        value, slopes = gradient(as_gates(kept), switches.network.params, *pool.draws.round(number))
        refuse_overflow(float(value))
        slopes = {name: np.asarray(slope, np.float64) for name, slope in slopes.items()}
        if stiffness is None:
            # So few flips at the start that the gradient is right about them.
            stiffness = 2 * max(float(np.quantile(np.abs(slope), 0.99)) for slope in slopes.values()) + 1e-12
        moved = pool.ranked({name: kept[name] - slopes[name] / stiffness for name in budget.selected})
        predicted = sum(float((slopes[name] * (moved[name].astype(float) - kept[name])).sum()) for name in kept)
        actual = pool.loss(moved, number) - float(value)
        stiffness *= trusted(actual, predicted)
        if actual < 0:
            kept = moved
        left, number = left - 3, number + 1
    return kept


def trusted(actual: float, predicted: float) -> float:
    """What the price of a flip is multiplied by: less if the change that came is near to the one predicted, more if not.

    Far less if nothing was flipped, and nothing predicted.
    """
    if predicted == 0:
        return 0.35
    return 0.7 if actual < 0.5 * predicted < 0 else 1.0 if actual < 0.2 * predicted < 0 else 1.4
