"""Progress: what a search for a ticket is, how far it has come, and the file from which it goes on."""

import hashlib
import json
import math
import re
import zipfile
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from annealsubnet.budgets import Budget
from annealsubnet.tickets.coupled import Coupling
from annealsubnet.tickets.draws import Draws
from annealsubnet.tickets.quadratic import Blocks
from annealsubnet.tickets.rules import Rule, State
from annealsubnet.tickets.switches import Switches


@dataclass(frozen=True)
class Check:
    """What was seen at one check of a search.

    Attributes:
        round: rounds done.
        seen: examples seen by rounds.
        read: examples passed forward or backward for any purpose, checks included; once for each pass: a round takes two, a
            check three (the ground state, and the model of its change forward and along it); of `Blocks` a round takes five
            (for neurons three and one for each output) and a check one.
        seconds: wall time of the search so far.
        loss: mean loss of the rounds' own masks since the last check.
        held_in_loss, held_in_accuracy: of the ground state (of `Blocks`, of the mask that a round proposes), on the held-in
            examples.
        kept: units in the ground state.
        flips: units in which it differs from that of the last check (of `Blocks`, from the mask before).
        temperature: in units of the scores (of `Blocks`, of its fields).
        predicted_linear: change of the held-in loss since the last check by the gradient there.
        predicted: the same with the Gauss-Newton curvature of all units (of `Blocks`, within each fan-in where
            weights are chosen, damped).
        actual: the change that came.
        accepted: whether this is the best mask so far (of `Blocks` on a schedule, or of a smaller count).
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
        rule: how scores become masks, or how blocks are solved.
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
    rule: Rule | Blocks
    draws: Draws
    rounds: int
    checks: int
    held_in: int
    price: float | None
    keep_from: float | None
    coupling: Coupling | None
    seed: int

    @property
    def parts(self) -> tuple[str, ...]:
        """What the state of the search has for every site."""
        return ("mean", "price") if isinstance(self.rule, Blocks) else ("scores", "mean", "square", "mask", "price")

    def more(self, share: float) -> float:
        """Times as many units as asked for stay when this share of the rounds is done."""
        if self.keep_from is None:
            return 1.0
        budget = self.switches.budget
        return max(self.keep_from * budget.size / budget.total, 1.0) ** max(0.0, 1 - 2 * share)

    def budget_at(self, done: int) -> Budget:
        """How many units stay after so many rounds."""
        return self.switches.budget.enlarged(self.more(done / self.rounds))

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
    found: State = {part: {} for part in (*search.parts, "best", "last")}
    for label, array in arrays.items():
        part, _, name = label.partition(":")
        found.get(part, {})[name] = array
    missing = [part for part, values in found.items() if set(values) != set(search.switches.shapes)]
    if missing:
        raise ValueError(f"{path} is a damaged search: its {missing[0]} is not there for every layer.")
    best, last = found.pop("best"), found.pop("last")
    # JAX's order of a dictionary is that of its keys; ours is that of the layers.
    return Progress(found, best=best, last=last, running=header["running"], log=header["log"], **numbers)


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
