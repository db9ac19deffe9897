"""Rounds: the loop of every search for a ticket, its log, and the state from which it goes on.

A round reads a few examples once, forward and back: gradient at the mask → scores → energy → the next mask. Every so often the
search is checked: the ground state of the present scores is judged on held-in examples, its change of the loss since the last
check is compared with what the model predicted, and the best mask so far is remembered; it is the answer.
"""

import hashlib
import json
import math
import re
import time
import zipfile
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from annealsubnet.tickets.coupled import Coupling, couple
from annealsubnet.tickets.draws import Draws
from annealsubnet.tickets.rules import PRICE_EVERY, Clock, Rule, State
from annealsubnet.tickets.switches import Switches, empty_site, refuse_overflow
from annealsubnet.tickets.thermal import ground_state, prices


@dataclass(frozen=True)
class Check:
    """What was seen at one check of a search.

    Attributes:
        round: rounds done.
        seen: examples seen by rounds.
        read: examples passed forward or backward for any purpose, checks included; once for each pass: a round takes two, a
            check three (the ground state, and the model of its change forward and along it).
        seconds: wall time of the search so far.
        loss: mean loss of the rounds' own masks since the last check.
        held_in_loss, held_in_accuracy: of the ground state, on the held-in examples.
        kept: units in the ground state.
        flips: units in which it differs from that of the last check.
        temperature: in units of the scores.
        predicted_linear: change of the held-in loss since the last check by the gradient there.
        predicted: the same with the Gauss-Newton curvature of all units.
        actual: the change that came.
        accepted: whether this is the best mask so far.
    """

    round: int
    seen: int
    read: int
    seconds: float
    loss: float
    held_in_loss: float
    held_in_accuracy: float
    kept: int
    flips: int
    temperature: float
    predicted_linear: float
    predicted: float
    actual: float
    accepted: bool


@dataclass(frozen=True)
class Search:
    """Everything that a search is, but its progress.

    Attributes:
        switches: the units and the loss.
        rule: how scores become masks.
        draws: the examples of each round.
        rounds: how many.
        checks: how often the search is checked, the end included.
        held_in: examples that checks read.
        price: a unit stays when its score is above; None where the budget fixes the count.
        keep_from: share kept at the start, falling geometrically to what is asked for by half of the rounds; None for all
        along. coupling: γ and how its blocks are annealed; None for γ = 0.
        seed: of scores and masks.
    """

    switches: Switches
    rule: Rule
    draws: Draws
    rounds: int
    checks: int
    held_in: int
    price: float | None
    keep_from: float | None
    coupling: Coupling | None
    seed: int

    def clock(self, number: int) -> Clock:
        """The time at round `number`, from 0."""
        share = number / self.rounds
        step = self.rule.step * 0.5 * (1 + math.cos(math.pi * share))
        more = 1.0
        if self.keep_from is not None:
            budget = self.switches.budget
            more = max(self.keep_from * budget.size / budget.total, 1.0) ** max(0.0, 1 - 2 * share)
        return Clock(number + 1.0, step, self.rule.step * self.rule.temperature * (1 - share) ** self.rule.cooling, more)

    def due(self, done: int) -> bool:
        """Whether a check follows the `done`-th round."""
        return done == self.rounds or (done * self.checks) // self.rounds > ((done - 1) * self.checks) // self.rounds

    @cached_property
    def settings(self) -> dict[str, Any]:
        """What must agree for a saved state to go on, as JSON has it; of arrays and functions what tells them apart."""
        switches, budget, draws = self.switches, self.switches.budget, self.draws
        settings = {
            "weights": _digest(switches.network.params[path] for path in sorted(switches.network.params)),
            "examples": _digest([draws.inputs, draws.labels]), "batch_size": draws.size, "held_in": self.held_in,
            "augment": draws.augment, **{f"rule's {name}": value for name, value in vars(self.rule).items()},
            "units": {name: list(shape) for name, shape in switches.shapes.items()}, "unit": budget.unit, "scope": budget.scope,
            "kept": budget.total, "counts": dict(budget.counts), "price": self.price, "keep_from": self.keep_from,
            "loss": switches.loss.name, "coupling": self.coupling and vars(self.coupling),
            "rounds": self.rounds, "checks": self.checks, "seed": self.seed,
        }  # fmt: skip
        return dict(json.loads(json.dumps(settings, default=_plain)))


def _plain(value: Any) -> Any:
    """A NumPy scalar as a number; anything else in words that are the same in every process, without addresses."""
    return value.item() if isinstance(value, np.generic) else re.sub(r" at 0x[0-9a-fA-F]+", "", repr(value))


def _digest(arrays: Iterable[Any]) -> str:
    """Twelve hexadecimal digits that tell arrays apart."""
    found = hashlib.blake2b(digest_size=6)
    for array in map(np.asarray, arrays):
        found.update(f"{array.dtype} {array.shape}".encode())
        found.update(np.ascontiguousarray(array).tobytes())
    return found.hexdigest()


@dataclass(frozen=True)
class Progress:
    """How far a search has come: after a round, and after its check if one is due."""

    state: State
    done: int = 0
    seconds: float = 0.0
    read: int = 0
    best: dict[str, np.ndarray] = field(default_factory=dict)
    best_loss: float = math.inf
    last: dict[str, np.ndarray] = field(default_factory=dict)
    last_loss: float = math.nan
    running: list[Any] = field(default_factory=list)
    log: list[Check] = field(default_factory=list)


def begin(search: Search) -> Progress:
    """Scores without evidence, and the first mask.

    Raises:
        ValueError: if the loss at the first mask is not finite, or a site has no units kept.
    """
    shapes, key = search.switches.shapes, jax.random.key(search.seed)
    scores = search.rule.begin(jax.random.fold_in(key, 0), shapes)
    zeros = {name: jnp.zeros(shape) for name, shape in shapes.items()}
    clock = search.clock(0)
    state = {"scores": scores, "mean": zeros, "square": zeros}
    state["price"] = _price_step(search)(scores, clock)
    state["mask"] = search.rule.draw(state, clock, jax.random.fold_in(key, 1))
    mask = _ground(search, state)
    held_in = search.draws.held_in(search.held_in)
    loss, _ = search.switches.measure(mask, *held_in)
    refuse_overflow(loss)
    if missing := empty_site(mask):
        raise ValueError(f"No unit of {missing!r} is kept at the start, so that none can prove itself; {_remedy(search)}.")
    return Progress(state, read=len(held_in[1]), best=mask, best_loss=loss, last=mask, last_loss=loss)


def _remedy(search: Search) -> str:
    return "lower the price" if search.price is not None else 'keep more units, or as many of each layer: scope="layer"'


def advance(
    search: Search,
    progress: Progress,
    *,
    until: int | None = None,
    report: Callable[[Check], None] = lambda check: None,
    save_to: Path | None = None,
) -> Progress:
    """Rounds up to `until`, all if None; `report` sees every check, and a file is written after each.

    An interrupt (Ctrl-C) writes the file too, so that nothing is lost.
    """
    step, renew, draw = _round_step(search), _price_step(search), _draw_step(search)
    every = PRICE_EVERY if search.rule.temperature > 0 else 1
    key = jax.random.fold_in(jax.random.key(search.seed), 2)
    end = search.rounds if until is None else min(until, search.rounds)
    start = time.perf_counter() - progress.seconds
    try:
        while progress.done < end:
            clock = search.clock(progress.done)
            inputs, labels = search.draws.round(progress.done)
            state, loss = step(search.switches.network.params, progress.state, inputs, labels, clock)
            if search.price is None and progress.done % every == 0:
                state["price"] = renew(state["scores"], clock)
            state["mask"] = draw(state, clock, key)
            read = 2 * len(labels)
            if search.coupling is not None:
                state = couple(search.switches, search.coupling, state, progress.state, clock, inputs, search.seed)
                read += min(search.coupling.examples, len(labels))
            after = replace(
                progress, state=state, done=progress.done + 1, read=progress.read + read, running=[*progress.running, loss]
            )
            if not search.due(after.done):
                progress = after
                continue
            # One assignment for a round and its check: an interrupt leaves both done or neither.
            progress = _checked(search, after, clock, start)
            report(progress.log[-1])
            if save_to is not None:
                write_progress(search, progress, save_to)
    except KeyboardInterrupt:
        if save_to is not None:
            write_progress(search, replace(progress, seconds=time.perf_counter() - start), save_to)
        raise
    return replace(progress, seconds=time.perf_counter() - start)


def _round_step(search: Search) -> Callable[..., tuple[State, jax.Array]]:
    """From the state and a batch to the state with new scores, and the loss of the batch."""
    network, mean_loss, update = search.switches.network, search.switches.mean_loss, search.rule.update

    # Compiled apart: fused into one program they take twice as long on a CPU.
    @network.jitted("ticket gradient", *search.switches.key)
    def gradient(mask: Any, params: Any, inputs: jax.Array, labels: jax.Array) -> Any:
        return jax.value_and_grad(mean_loss)(mask, params, inputs, labels)

    @network.jitted("ticket update", search.rule)
    def updated(state: State, slopes: Any, clock: Clock) -> State:
        return update(state, slopes, clock)

    def step(params: Any, state: State, inputs: Any, labels: Any, clock: Clock) -> tuple[State, jax.Array]:
        loss, slopes = gradient(state["mask"], params, inputs, labels)
        return updated(state, slopes, clock), loss

    return step


def _price_step(search: Search) -> Callable[[Any, Clock], dict[str, jax.Array]]:
    """From scores to the price of a unit."""
    rule, budget, price = search.rule, search.switches.budget, search.price

    @search.switches.network.jitted("ticket price", rule, price, *search.switches.key)
    def step(scores: Any, clock: Clock) -> dict[str, jax.Array]:
        ranks = {name: rule.rank(values) for name, values in scores.items()}
        if price is not None:
            return {name: jnp.full((1,) * rank.ndim, price) for name, rank in ranks.items()}
        return prices(ranks, clock.temperature if rule.temperature > 0 else None, budget, clock.more)

    return step


def _draw_step(search: Search) -> Callable[[State, Clock, jax.Array], dict[str, jax.Array]]:
    """From scores and price to the mask of a round."""
    rule = search.rule

    @search.switches.network.jitted("ticket draw", rule)
    def step(state: State, clock: Clock, key: jax.Array) -> dict[str, jax.Array]:
        return rule.draw(state, clock, jax.random.fold_in(key, jnp.asarray(clock.number, jnp.int32)))

    return step


def _ground(search: Search, state: State) -> dict[str, np.ndarray]:
    ranks = {name: np.asarray(search.rule.rank(scores)) for name, scores in state["scores"].items()}
    return ground_state(ranks, search.switches.budget, search.price)


def _checked(search: Search, progress: Progress, clock: Clock, start: float) -> Progress:
    """Judge the ground state, compare its change with the model's, and remember it if it is the best."""
    mean = float(np.mean([float(value) for value in progress.running]))
    if not math.isfinite(mean):
        raise ValueError(
            f"The loss became {mean} before round {progress.done}: lower step={search.rule.step}, or rescale the weights."
        )
    switches, held_in = search.switches, search.draws.held_in(search.held_in)
    mask = _ground(search, progress.state)
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


def write_progress(search: Search, progress: Progress, path: Path) -> None:
    """Write all that the search needs to go on, whole or not at all."""
    arrays = {f"{part}:{name}": np.asarray(value) for part, values in progress.state.items() for name, value in values.items()}
    arrays |= {f"best:{name}": array for name, array in progress.best.items()}
    arrays |= {f"last:{name}": array for name, array in progress.last.items()}
    numbers = {name: getattr(progress, name) for name in ("done", "seconds", "read", "best_loss", "last_loss")}
    header = {
        "settings": search.settings,
        "numbers": numbers,
        "running": [float(value) for value in progress.running],
        "log": [asdict(check) for check in progress.log],
    }
    draft = path.with_name(f".{path.name}.part")
    try:
        with draft.open("wb") as file:
            np.savez(file, allow_pickle=False, header=np.array(json.dumps(header)), **arrays)
        draft.replace(path)
    finally:
        draft.unlink(missing_ok=True)


def read_progress(search: Search, path: Path) -> Progress:
    """Read what `write_progress` wrote.

    Raises:
        ValueError: if the file is damaged, or its search had other settings (they are named).
        FileNotFoundError: if there is none.
    """
    header, arrays = _read(path)
    settings, numbers, ours = header["settings"], header["numbers"], search.settings
    different = sorted(name for name in ours if settings.get(name) != ours[name])
    if different:
        told = ", ".join(f"{name} {settings.get(name)} there and {ours[name]} here" for name in different[:3])
        raise ValueError(f"{path} holds a search with other settings: {told}; use the same, or another file.")
    state: State = {part: {} for part in ("scores", "mean", "square", "mask", "price")}
    found: dict[str, dict[str, np.ndarray]] = {"best": {}, "last": {}}
    for label, array in arrays.items():
        part, _, name = label.partition(":")
        if part in found:
            found[part][name] = array
        else:
            state[part][name] = jnp.asarray(array)
    missing = [part for part, values in {**state, **found}.items() if set(values) != set(search.switches.shapes)]
    if missing:
        raise ValueError(f"{path} is a damaged search: its {missing[0]} is not there for every layer.")
    # JAX's order of a dictionary is that of its keys; ours is that of the layers.
    return Progress(state, best=found["best"], last=found["last"], running=header["running"], log=header["log"], **numbers)


def read_log(path: Path) -> list[Check]:
    """The checks of a saved search so far.

    Raises:
        ValueError: if the file is damaged.
        FileNotFoundError: if there is none.
    """
    log: list[Check] = _read(path)[0]["log"]
    return log


def _read(path: Path) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    if not path.is_file():
        raise FileNotFoundError(f"There is no saved search {path}; leave resume out to start one.")
    try:
        with np.load(path, allow_pickle=False) as file:
            header = json.loads(str(file["header"]))
            arrays = {name: file[name] for name in file.files if name != "header"}
        header["log"] = [Check(**check) for check in header["log"]]
        if not {"settings", "numbers", "running"} <= header.keys():
            raise KeyError("settings, numbers or running")
    except (OSError, ValueError, KeyError, TypeError, AttributeError, EOFError, zipfile.BadZipFile) as error:
        raise ValueError(f"{path} is no saved search, or a damaged one ({type(error).__name__}).") from error
    return header, arrays
