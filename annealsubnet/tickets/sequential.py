"""Sequential blocks: rounds that solve a quadratic model of the loss in every fan-in, and trust it as far as it has been right.

A round anneals the blocks of all neurons (`quadratic`), starting from the mask; then, unless the count is free, whichever
weights cost least are flipped until it is right. Where neurons are chosen, they are one problem of the whole network, annealed
at that count (`gate_model`). The mask is taken if the loss on held-in examples falls (and what units cost, if they do). λ, the
price of a flip, is a trust region: it follows the ratio of the change that came to the one predicted, as a Levenberg-Marquardt
step does. Where a schedule asks for fewer units than before, they go whatever the loss.

Gradients are averaged over rounds with a decay, for a mask that fits one batch alone is worth little on others. With
`Blocks(coupling=False)` only the diagonal of every block is left, which shows what the couplings are worth.
"""

import math
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial

import numpy as np

from annealsubnet.networks import Network
from annealsubnet.statistics.passes import num_outputs
from annealsubnet.tickets.gate_model import gate_model_around
from annealsubnet.tickets.progress import Check, Progress, Search
from annealsubnet.tickets.quadratic import Blocks, Terms, models_around
from annealsubnet.tickets.searches import trusted
from annealsubnet.tickets.switches import empty_site, refuse_overflow
from annealsubnet.tickets.thermal import ground_state

_FIRST_PRICE = 1e-3


def begin(search: Search) -> Progress:
    """A random mask, and no gradients.

    Raises:
        ValueError: if its loss is not finite, or a site has no units kept.
    """
    generator, shapes = np.random.default_rng([search.seed, 4]), search.switches.shapes
    random = {name: generator.random(shape) for name, shape in shapes.items()}
    kept = ground_state(random, search.budget_at(0), None)
    held_in = search.draws.held_in(search.held_in)
    loss, _ = search.switches.measure(kept, *held_in)
    refuse_overflow(loss)
    _refuse_empty(kept)
    state = {
        "mean": {name: np.zeros(shape) for name, shape in shapes.items()},
        "price": {name: np.zeros(()) for name in shapes},
    }
    return Progress(state, read=len(held_in[1]), best=kept, best_loss=loss, last=kept, last_loss=loss)


def stepper(search: Search, blocks: Blocks) -> Callable[[Progress, float], Progress]:
    """What takes a search on by a round and its check; its other argument is when the search started.

    It raises ValueError if the schedule comes to a mask of which a site has no unit, or the loss is not finite, and after the
    last round if no mask was taken at a price.
    """
    return partial(_round, search, blocks)


def _round(search: Search, blocks: Blocks, progress: Progress, start: float) -> Progress:
    number, switches, kept = progress.done, search.switches, progress.last
    flip_price, unit_price = float(next(iter(progress.state["price"].values()))), search.price or 0.0
    held_in = search.draws.held_in(search.held_in)
    propose = _by_fan_ins if switches.budget.unit == "weight" else _by_gates
    move = propose(search, blocks, progress, Terms(flip_price, unit_price, progress.state["mean"] if number else None))
    moved, share = move.kept, _share(search, number)
    loss, accuracy = switches.measure(moved, *held_in)
    actual = loss - progress.last_loss if math.isfinite(loss) else math.inf
    count = _count(moved)
    paid = unit_price * (count - _count(kept))
    if search.price is None and count != _count(kept):
        if not math.isfinite(loss):
            raise ValueError(f"The loss became {loss} in round {number + 1}, with {count:,} units kept: rescale the weights.")
        _refuse_empty(moved)
        taken, came = True, actual
    else:
        # A mask that empties a site is no answer, whatever its loss: the next round is to flip less.
        came = actual + paid if empty_site(moved) is None else math.inf
        taken = came < 0
    if number == 0:
        flip_price = _FIRST_PRICE * move.steepest
    flip_price *= trusted(came, move.predicted + paid)
    read = progress.read + passes_of(switches.network, switches.budget.unit) * search.draws.size + len(held_in[1])
    seconds = time.perf_counter() - start
    check = Check(
        number + 1, (number + 1) * search.draws.size, read, seconds, progress.last_loss, progress.last_loss + actual, accuracy,
        count, sum(int(np.count_nonzero(moved[name] != kept[name])) for name in kept), share * blocks.temperature, move.linear,
        move.predicted, actual, taken,
    )  # fmt: skip
    none = number + 1 == search.rounds and not any(each.accepted for each in [*progress.log, check])
    if none and search.price is not None:
        raise ValueError(
            f"At a price of {search.price} no round found a better mask than the random first one: lower the price, so that "
            "every site has units that save what they cost, or give more passes."
        )
    if taken:
        progress = replace(progress, best=moved, best_loss=loss, last=moved, last_loss=loss)
    state = {"mean": move.slopes, "price": {name: np.asarray(flip_price) for name in kept}}
    return replace(progress, state=state, done=number + 1, seconds=seconds, read=read, log=[*progress.log, check])


@dataclass(frozen=True)
class _Move:
    """What a round proposes.

    Attributes:
        kept: the mask.
        linear, predicted: the change of the loss that the model predicts, to first order and whole.
        slopes: averaged gradients.
        steepest: the largest gradient by a gate.
    """

    kept: dict[str, np.ndarray]
    linear: float
    predicted: float
    slopes: dict[str, np.ndarray]
    steepest: float


def _share(search: Search, number: int) -> float:
    """Of the temperature that is left."""
    return 1 - number / search.rounds


def passes_of(network: Network, unit: str) -> int:
    """Times that a round passes its examples through the network, forward or back; held-in examples are passed once more.

    For weights the gradient and the curvature, each forward and back, and the moments. For neurons the gradient, and the
    curvature forward and once back for each of its factors.
    """
    return 5 if unit == "weight" else 3 + num_outputs(network)


def _by_fan_ins(search: Search, blocks: Blocks, progress: Progress, terms: Terms) -> _Move:
    """Weights: the fan-ins of all neurons at once."""
    number = progress.done
    batch, seed = search.draws.round(number), search.seed + number
    models, slopes = models_around(search.switches, progress.last, batch, blocks, terms, seed=seed)
    ranks, moved = {}, {}
    for place, (name, model) in enumerate(models.items()):
        annealed = model.annealed(blocks, _share(search, number), (search.seed, 5, number, place))
        ranks[name], moved[name] = model.layer.from_matrix(model.ranks(annealed)), model.layer.from_matrix(annealed)
    if search.price is None:
        moved = ground_state(ranks, search.budget_at(number + 1), None)
    changes = [model.change(model.layer.matrix(moved[name])) for name, model in models.items()]
    linear, predicted = (float(sum(values)) for values in zip(*changes, strict=True))
    return _Move(moved, linear, predicted, slopes, max(float(np.abs(model.slopes).max()) for model in models.values()))


def _by_gates(search: Search, blocks: Blocks, progress: Progress, terms: Terms) -> _Move:
    """Neurons and heads: all of the network in one problem."""
    number = progress.done
    model, slopes = gate_model_around(search.switches, progress.last, search.draws.round(number), blocks, terms)
    budget = search.budget_at(number + 1) if search.price is None else None
    seed = int(np.random.SeedSequence([search.seed, 5, number]).generate_state(1)[0])
    state = model.annealed(blocks, budget, _share(search, number), seed)
    return _Move(model.by_site(state), *model.change(state), slopes, float(np.abs(model.slopes).max()))


def _count(kept: Mapping[str, np.ndarray]) -> int:
    return sum(int(array.sum()) for array in kept.values())


def _refuse_empty(kept: Mapping[str, np.ndarray]) -> None:
    if missing := empty_site(kept):
        raise ValueError(f'No unit of {missing!r} is kept; keep more units, or as many of each layer: scope="layer".')
