"""Evidence: thousands of rounds on few examples each, of any rule that keeps scores.

A round reads a few examples once, forward and back: gradient at the mask → scores → energy → the next mask. Every so often the
search is checked: the ground state of the present scores is judged on held-in examples, its change of the loss since the last
check is compared with what the model predicted, and the best mask so far is remembered; it is the answer.
"""

import math
import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from annealsubnet.tickets.coupled import couple
from annealsubnet.tickets.progress import Check, Progress, Search
from annealsubnet.tickets.rules import PRICE_EVERY, Clock, Rule, State
from annealsubnet.tickets.switches import empty_site, refuse_overflow
from annealsubnet.tickets.thermal import ground_state, prices


def clock_of(search: Search, rule: Rule, number: int) -> Clock:
    """The time at round `number`, from 0."""
    share = number / search.rounds
    step = rule.step * 0.5 * (1 + math.cos(math.pi * share))
    return Clock(number + 1.0, step, rule.step * rule.temperature * (1 - share) ** rule.cooling, search.more(share))


def begin(search: Search, rule: Rule) -> Progress:
    """Scores without evidence, and the first mask.

    Raises:
        ValueError: if the loss at the first mask is not finite, or a site has no units kept.
    """
    shapes, key = search.switches.shapes, jax.random.key(search.seed)
    scores = rule.begin(jax.random.fold_in(key, 0), shapes)
    zeros = {name: jnp.zeros(shape) for name, shape in shapes.items()}
    clock = clock_of(search, rule, 0)
    state = {"scores": scores, "mean": zeros, "square": zeros}
    state["price"] = _price_step(search, rule)(scores, clock)
    state["mask"] = rule.draw(state, clock, jax.random.fold_in(key, 1))
    mask = _ground(search, rule, state)
    held_in = search.draws.held_in(search.held_in)
    loss, _ = search.switches.measure(mask, *held_in)
    refuse_overflow(loss)
    if missing := empty_site(mask):
        raise ValueError(f"No unit of {missing!r} is kept at the start, so that none can prove itself; {_remedy(search)}.")
    return Progress(state, read=len(held_in[1]), best=mask, best_loss=loss, last=mask, last_loss=loss)


def _remedy(search: Search) -> str:
    return "lower the price" if search.price is not None else 'keep more units, or as many of each layer: scope="layer"'


def stepper(search: Search, rule: Rule) -> Callable[[Progress, float], Progress]:
    """What takes a search on by a round, and the check if one is due; its other argument is when the search started."""
    slopes_of, renew, draw = _round_step(search, rule), _price_step(search, rule), _draw_step(search, rule)
    every = PRICE_EVERY if rule.temperature > 0 else 1
    key = jax.random.fold_in(jax.random.key(search.seed), 2)

    def step(progress: Progress, start: float) -> Progress:
        clock = clock_of(search, rule, progress.done)
        inputs, labels = search.draws.round(progress.done)
        state, loss = slopes_of(search.switches.network.params, progress.state, inputs, labels, clock)
        if search.price is None and progress.done % every == 0:
            state["price"] = renew(state["scores"], clock)
        state["mask"] = draw(state, clock, key)
        read = progress.read + 2 * len(labels)
        if search.coupling is not None:
            state = couple(search.switches, search.coupling, state, progress.state, clock, inputs, search.seed)
            read += min(search.coupling.examples, len(labels))
        after = replace(progress, state=state, done=progress.done + 1, read=read, running=[*progress.running, loss])
        return _checked(search, rule, after, clock, start) if _due(search, after.done) else after

    return step


def _due(search: Search, done: int) -> bool:
    """Whether a check follows the `done`-th round."""
    return done == search.rounds or (done * search.checks) // search.rounds > ((done - 1) * search.checks) // search.rounds


def _round_step(search: Search, rule: Rule) -> Callable[..., tuple[State, jax.Array]]:
    """From the state and a batch to the state with new scores, and the loss of the batch."""
    network, mean_loss, update = search.switches.network, search.switches.mean_loss, rule.update

    # Compiled apart: fused into one program they take twice as long on a CPU.
    @network.jitted("ticket gradient", *search.switches.key)
    def gradient(mask: Any, params: Any, inputs: jax.Array, labels: jax.Array) -> Any:
        return jax.value_and_grad(mean_loss)(mask, params, inputs, labels)

    @network.jitted("ticket update", rule)
    def updated(state: State, slopes: Any, clock: Clock) -> State:
        return update(state, slopes, clock)

    def step(params: Any, state: State, inputs: Any, labels: Any, clock: Clock) -> tuple[State, jax.Array]:
        loss, slopes = gradient(state["mask"], params, inputs, labels)
        return updated(state, slopes, clock), loss

    return step


def _price_step(search: Search, rule: Rule) -> Callable[[Any, Clock], dict[str, jax.Array]]:
    """From scores to the price of a unit."""
    budget, price = search.switches.budget, search.price

    @search.switches.network.jitted("ticket price", rule, price, *search.switches.key)
    def step(scores: Any, clock: Clock) -> dict[str, jax.Array]:
        ranks = {name: rule.rank(values) for name, values in scores.items()}
        if price is not None:
            return {name: jnp.full((1,) * rank.ndim, price) for name, rank in ranks.items()}
        return prices(ranks, clock.temperature if rule.temperature > 0 else None, budget, clock.more)

    return step


def _draw_step(search: Search, rule: Rule) -> Callable[[State, Clock, jax.Array], dict[str, jax.Array]]:
    """From scores and price to the mask of a round."""

    @search.switches.network.jitted("ticket draw", rule)
    def step(state: State, clock: Clock, key: jax.Array) -> dict[str, jax.Array]:
        return rule.draw(state, clock, jax.random.fold_in(key, jnp.asarray(clock.number, jnp.int32)))

    return step


def _ground(search: Search, rule: Rule, state: State) -> dict[str, np.ndarray]:
    ranks = {name: np.asarray(rule.rank(scores)) for name, scores in state["scores"].items()}
    return ground_state(ranks, search.switches.budget, search.price)


def _checked(search: Search, rule: Rule, progress: Progress, clock: Clock, start: float) -> Progress:
    """Judge the ground state, compare its change with the model's, and remember it if it is the best."""
    mean = float(np.mean([float(value) for value in progress.running]))
    if not math.isfinite(mean):
        raise ValueError(
            f"The loss became {mean} before round {progress.done}: lower step={rule.step}, or rescale the weights."
        )
    switches, held_in = search.switches, search.draws.held_in(search.held_in)
    mask = _ground(search, rule, progress.state)
    flips = sum(int(np.count_nonzero(mask[name] != progress.last[name])) for name in mask)
    loss, accuracy = switches.measure(mask, *held_in)
    linear, quadratic = switches.predict(progress.last, mask, *held_in)
    accepted = loss < progress.best_loss and empty_site(mask) is None
    read, seconds = progress.read + 3 * len(held_in[1]), time.perf_counter() - start
    check = Check(
        progress.done, progress.done * search.draws.size, read, seconds, mean, loss, accuracy,
        sum(int(array.sum()) for array in mask.values()), flips, float(clock.temperature), linear, quadratic,
        loss - progress.last_loss, accepted,
    )  # fmt: skip
    if accepted:
        progress = replace(progress, best=mask, best_loss=loss)
    log = [*progress.log, check]
    return replace(progress, seconds=seconds, read=read, last=mask, last_loss=loss, running=[], log=log)
