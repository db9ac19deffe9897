"""`annealsubnet leap`: predict, send, look at, resume and read jobs on D-Wave's Leap."""

import json
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from annealsubnet.cli.commands import Prune
from annealsubnet.cli.leap_commands import Estimate, LeapCommand, Planned, Resume, Status, Submit
from annealsubnet.cli.refusals import Refusal

WIDE = 240
LEDGERS = Path("annealsubnet-leap")
"""Where `prune --sampler leap` keeps its ledgers; the same command, run again, goes on with them."""


def leap(command: LeapCommand) -> None:
    """Carry out one command.

    Raises:
        Refusal, ValueError, OSError: it can't be carried out; one sentence says why.
    """
    require_leap()
    output = Console(highlight=False, width=None if sys.stdout.isatty() else WIDE)
    if isinstance(command, Estimate):
        _estimate(command, output)
    elif isinstance(command, Submit):
        _submit(command, output)
    elif isinstance(command, Resume):
        _resume(command, output)
    elif isinstance(command, Status):
        _status(command, output)
    else:
        _results(command.ledger, command.out, output)


def require_leap() -> None:
    """Refuse where D-Wave's packages are not installed.

    Raises:
        Refusal: they are not.
    """
    from importlib.util import find_spec

    if find_spec("dwave") is None or find_spec("dwave.cloud") is None or find_spec("dwave.system") is None:
        raise Refusal("D-Wave's packages are not installed; add them with: pip install 'annealsubnet[leap]'.")


def confirmed(question: str, *, yes: bool) -> bool:
    """Whether the user agrees; without a terminal to ask at, only `yes` does."""
    if yes:
        return True
    if not sys.stdin.isatty():
        raise Refusal(f"{question} There is no terminal to ask at; add --yes to agree.")
    sys.stderr.write(f"{question} [y/N] ")
    sys.stderr.flush()
    return sys.stdin.readline().strip().lower() in ("y", "yes")


def leap_sampler(options: Prune) -> Any:
    """The sampler that `prune --sampler leap` asks for; None where it asks for another.

    Raises:
        Refusal: no budget, or one without that sampler.
    """
    if options.sampler != "leap":
        if options.budget_seconds is not None or options.yes:
            raise Refusal(f"{'--yes' if options.budget_seconds is None else '--budget-seconds'} goes with --sampler leap.")
        return None
    if options.budget_seconds is None:
        raise Refusal("--sampler leap spends QPU time; say how much it may, such as --budget-seconds 1.0.")
    require_leap()
    from annealsubnet.leap.cache import EmbeddingCache
    from annealsubnet.leap.sampler import LeapSampler, own_solver

    def confirm(made: Any, budget: float) -> bool:
        question = f"Spend up to {budget:g} QPU seconds on {made.solver.name} (this first plan: {made.qpu_seconds:.3f})?"
        return confirmed(question, yes=options.yes)

    budget = options.budget_seconds
    return LeapSampler(own_solver(), budget_seconds=budget, folder=LEDGERS, confirm=confirm, cache=EmbeddingCache())


def _problems(command: Planned) -> list[Any]:
    import dimod

    from annealsubnet.leap.planning import problem_of

    if not command.models:
        raise Refusal("There is no model; name one or more files that dimod's to_file wrote.")
    problems = []
    for path in command.models:
        try:
            with path.open("rb") as file:
                model = dimod.BinaryQuadraticModel.from_file(file)
        except OSError:
            raise
        except Exception as error:
            raise Refusal(f"{path} is no binary quadratic model of dimod ({error}); write one with to_file.") from None
        problems.append(problem_of(model, num_kept=command.num_kept))
    return problems


def _planned(command: Planned, solver: Any) -> Any:
    from annealsubnet.leap.cache import EmbeddingCache
    from annealsubnet.leap.planning import plan

    if command.cover not in ("contested", "all"):
        raise Refusal(f"--cover is {command.cover!r}; use contested or all.")
    with _watched("planning: parts, embeddings, jobs"):
        return plan(
            _problems(command), solver, seed=command.seed, limits=command.limits,
            cover="all" if command.cover == "all" else "contested", num_reads=command.reads,
            annealing_time=command.annealing_time, cache=EmbeddingCache(),
        )  # fmt: skip


def _estimate(command: Estimate, output: Console) -> None:
    made = _planned(command, command.solver)
    _show(made, command, output)
    output.print(f"\n{_summary(made)}\n")


def _show(made: Any, command: Planned, output: Console) -> None:
    """The tables of a plan."""
    from annealsubnet.leap.part_figures import part_rows

    if command.parts:
        _table(output, part_rows(made))
        output.print()
    _table(output, made.rows())


@contextmanager
def _watched(what: str) -> Iterator[Callable[[Any, int], None]]:
    """A line on the terminal, if there is one, that says what is going on; what it gives takes the news of a run."""
    console = Console(stderr=True, quiet=not sys.stderr.isatty())
    with console.status(what) as line:
        yield lambda spent, left: line.update(f"{what}: {left} jobs to go, {spent.reported:.3f} QPU seconds reported")


def _summary(made: Any) -> str:
    if not made.jobs:
        empty = not any(problem.size for problem in made.problems)
        reason = "there is nothing in them." if empty else "local anneals agree on all of it. To plan it anyway: --cover all."
        return f"{len(made.problems)} problems and no job: {reason}"
    return (
        f"{len(made.problems)} problems, {len(made.parts)} parts, {len(made.jobs)} jobs, "
        f"{made.qpu_seconds:.4f} QPU seconds predicted on {made.solver.name or 'a typical QPU'}."
    )


def _submit(command: Submit, output: Console) -> None:
    from annealsubnet.leap.sampler import own_solver
    from annealsubnet.leap.solvers import described

    if command.budget_seconds is None:
        raise Refusal("--budget-seconds is missing; say how much QPU access time may be spent, such as --budget-seconds 0.5.")
    if not command.budget_seconds > 0:
        raise Refusal(f"--budget-seconds must be above 0; it is {command.budget_seconds:g}.")
    problems = _problems(command)
    del problems  # read once before anything asks the service, so that a bad file is told first
    solver = own_solver()
    if command.save_solver is not None:
        described(solver).save(command.save_solver)
    made = _planned(command, solver)
    _show(made, command, output)
    output.print(f"\n{_summary(made)}")
    if not made.jobs:
        return
    question = f"Spend up to {command.budget_seconds:g} QPU seconds on {made.solver.name}?"
    if not confirmed(question, yes=command.yes):
        raise Refusal("Nothing was sent.")
    with _watched("running") as report:
        found = made.submit(budget_seconds=command.budget_seconds, ledger=command.ledger, solver=solver, report=report)
    _tell(output, found, command.ledger)


def _resume(command: Resume, output: Console) -> None:
    from annealsubnet.leap.ledger import Ledger
    from annealsubnet.leap.resuming import resume

    with Ledger(command.ledger) as ledger:
        facts, waiting = ledger.facts(), len(ledger.entries("planned"))
    budget = command.budget_seconds if command.budget_seconds is not None else float(facts.get("budget_seconds", 0.0))
    spends = waiting or command.resubmit
    if spends and not confirmed(f"{waiting} jobs are still to be sent, within {budget:g} QPU seconds in all.", yes=command.yes):
        raise Refusal("Nothing was sent.")
    with _watched("running") as report:
        found = resume(command.ledger, budget_seconds=command.budget_seconds, resubmit=command.resubmit, report=report)
    _tell(output, found, command.ledger)


def _status(command: Status, output: Console) -> None:
    from annealsubnet.leap.ledger import Ledger
    from annealsubnet.leap.running import spending

    with Ledger(command.ledger) as ledger:
        entries, facts, spent = ledger.entries(), ledger.plan_facts(), spending(ledger)
    _table(
        output,
        [
            {
                "job": entry.number,
                "label": entry.label,
                "state": entry.state,
                "predicted": f"{entry.predicted:.4f}",
                "reported": "" if entry.reported is None else f"{entry.reported:.4f}",
                "reason": entry.reason,
            }
            for entry in entries
        ],
    )
    output.print(
        f"\n{len(entries)} jobs on {facts['solver']}: {spent.reported:.4f} QPU seconds reported, {spent.reserved:.4f} more "
        f"if jobs without an answer were run, {spent.planned:.4f} planned; the budget is {facts['budget_seconds']}.\n"
    )


def _results(path: Path, out: Path | None, output: Console) -> None:
    from annealsubnet.leap.merging import results

    found = results(path)
    _tell(output, found, path)
    if out is None:
        return
    content = {
        "note": found.note,
        "solver": found.solver,
        "reported_seconds": found.spending.reported,
        "problems": [
            {"energy": float(energy), "start_energy": float(start), "state": state.astype(int).tolist()}
            for energy, start, state in zip(found.energies, found.start_energies, found.states, strict=True)
        ],
        "jobs": found.rows(),
    }
    out.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
    output.print(f"States, energies and jobs are in {out}.")


def _tell(output: Console, found: Any, ledger: Path) -> None:
    _table(
        output,
        [
            {"problem": number, "energy": f"{energy:.6g}", "local annealer": f"{start:.6g}"}
            for number, (energy, start) in enumerate(zip(found.energies, found.start_energies, strict=True))
        ],
    )
    gained = f"{found.improvement:.6g}, that is {found.improvement_per_second:.6g} for each QPU second"
    output.print(f"\n{found!r}. Improvement over the local annealer: {gained}.")
    for entry in found.unresolved:
        output.print(f"Job {entry.number} ({entry.label}) is {entry.state}: {entry.reason}")
    if found.unresolved:
        output.print(f"To go on: annealsubnet leap resume {ledger}")


def _table(output: Console, rows: Sequence[Mapping[str, Any]]) -> None:
    if not rows:
        return
    table = Table(box=None, pad_edge=False)
    for name in rows[0]:
        table.add_column(name.replace("_", " "))
    for row in rows:
        table.add_row(*[f"{value:.4f}" if isinstance(value, float) else str(value) for value in row.values()])
    output.print(table)
