"""Words of `annealsubnet leap`, as frozen values; docstrings are the help text."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import tyro


def _word(metavar: str, *, hint: str = "") -> Any:
    return tyro.conf.arg(metavar=metavar, help_behavior_hint=f"({hint})" if hint else "")


@dataclass(frozen=True)
class Planned:
    """What is planned."""

    models: Annotated[tuple[Path, ...], tyro.conf.Positional, _word("FILE ...")]
    """Binary quadratic models, as dimod's to_file writes them; one or more."""

    num_kept: Annotated[int | None, _word("INT")] = None
    """How many variables of each model are one; any number if not given."""

    limits: Annotated[str | None, _word("parallel|dense|balanced|large|sparse")] = None
    """How large parts are. By default cliques of 24 variables."""

    cover: Annotated[str, _word("contested|all", hint="default: contested")] = "contested"
    """Which parts of a model that is larger than one: those that a local annealing leaves contested, or all."""

    reads: Annotated[int | None, _word("INT")] = None
    """Reads of each job. By default as many as take as long as programming the chip."""

    annealing_time: Annotated[float | None, _word("MICROSECONDS")] = None
    """By default half as long as reading out."""

    parts: tyro.conf.FlagCreatePairsOff[bool] = False
    """Also list every part: degree, treewidth, chains and qubits predicted and found, share of the coupling inside."""

    seed: Annotated[int, _word("INT", hint="default: 0")] = 0
    """Of all that is random."""


@dataclass(frozen=True)
class Estimate(Planned):
    """Predict jobs, embeddings and QPU seconds. Needs no network and spends nothing."""

    solver: Annotated[str, _word("zephyr:12|pegasus:16|FILE.json", hint="default: zephyr:12")] = "zephyr:12"
    """A typical QPU, or the saved description of one (--save-solver of submit)."""


@dataclass(frozen=True)
class Submit(Planned):
    """Plan for your QPU, show what it would cost, ask, and send."""

    budget_seconds: Annotated[float | None, _word("SECONDS")] = None
    """QPU access time that may be spent. Has to be given."""

    ledger: Annotated[Path, _word("FILE", hint="default: jobs.sqlite")] = Path("jobs.sqlite")
    """Where everything is written, so that it can be resumed."""

    save_solver: Annotated[Path | None, _word("FILE.json")] = None
    """Also save the QPU's description, for estimates without a network."""

    yes: tyro.conf.FlagCreatePairsOff[bool] = False
    """Don't ask before spending."""


@dataclass(frozen=True)
class Status:
    """Show what a ledger knows of its jobs. Asks nothing of the service."""

    ledger: Annotated[Path, tyro.conf.Positional, _word("FILE")] = Path("jobs.sqlite")
    """Ledger."""


@dataclass(frozen=True)
class Resume:
    """Go on with a ledger: fetch what was paid for, send what never was."""

    ledger: Annotated[Path, tyro.conf.Positional, _word("FILE")] = Path("jobs.sqlite")
    """Ledger."""

    budget_seconds: Annotated[float | None, _word("SECONDS")] = None
    """QPU access time that may be spent in all, with what was spent before. As it was if not given."""

    resubmit: tyro.conf.FlagCreatePairsOff[bool] = False
    """Send unresolved jobs again. If one did arrive after all, it is paid for twice."""

    yes: tyro.conf.FlagCreatePairsOff[bool] = False
    """Don't ask before spending."""


@dataclass(frozen=True)
class Results:
    """Write what a ledger's answers come to. Asks nothing of the service."""

    ledger: Annotated[Path, tyro.conf.Positional, _word("FILE")] = Path("jobs.sqlite")
    """Ledger."""

    out: Annotated[Path | None, _word("FILE.json")] = None
    """Where states and energies go; only a summary is shown if not given."""


LeapCommand = Estimate | Submit | Status | Resume | Results

LEAP_COMMANDS = {"estimate": Estimate, "submit": Submit, "status": Status, "resume": Resume, "results": Results}
