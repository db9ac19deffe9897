"""`LeapSampler`: a QPU behind the same door as every other sampler, under one budget for all its calls.

Every call plans: what a local annealing leaves contested goes to the QPU, many problems packed into each job, as long as the
budget lasts; the answers are repaired, polished and merged. A problem that the budget does not reach keeps the local annealer's
state, and the sampler says so.
"""

import logging
import secrets
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import dimod
import numpy as np

from annealsubnet.arguments import check_whole
from annealsubnet.leap.concealing import conceal
from annealsubnet.leap.connection import LeapError, configured
from annealsubnet.leap.ledger import Ledger
from annealsubnet.leap.merging import Results, results
from annealsubnet.leap.patience import Patience
from annealsubnet.leap.planning import Plan, local_state, plan, problem_of, problems_of
from annealsubnet.leap.running import Pace, checked_budget
from annealsubnet.leap.solvers import described
from annealsubnet.problems import Problem
from annealsubnet.solvers.options import refuse_unknown

logger = logging.getLogger(__name__)

Confirm = Callable[[Plan, float], bool]


class LeapSampler(dimod.Sampler):
    """A QPU as a dimod sampler, with a hard budget over all calls.

    Args:
        solver: a `DWaveSampler` or a solver of the cloud client; made from the user's configuration when first needed if None.
        budget_seconds: QPU access time that all calls together may spend.
        folder: where the ledgers go, one a call, named after what it plans; a call made again goes on with its ledger.
        confirm: asked before the first spend with the plan and the budget; False gives up.
        patience: with failures of the service.
        pace: how much is under way at a time.
        **options: of every plan (`annealsubnet.leap.plan`), such as limits or cover.

    Example:
        >>> sampler = LeapSampler("zephyr:2", budget_seconds=0.5)
        >>> sampler
        LeapSampler(0.000 of 0.5 QPU seconds spent in 0 jobs)
    """

    def __init__(
        self,
        solver: Any = None,
        *,
        budget_seconds: float,
        folder: str | Path = "leap-ledgers",
        confirm: Confirm = lambda plan, budget: True,
        patience: Patience | None = None,
        pace: Pace | None = None,
        **options: Any,
    ) -> None:
        self._solver, self.budget_seconds, self.folder = solver, checked_budget(budget_seconds), Path(folder)
        self._confirm, self._confirmed = confirm, False
        self._patience, self._pace, self._options = patience, pace, options
        self._parameters: dict[str, Any] = {
            name: [] for name in ("seed", "num_kept", "num_reads", "annealing_time", "spin_reversals", "reverse")
        }
        # By the fingerprint of the plan: a call made again has the ledger of the first. `_calls` knows such calls unplanned.
        self._found: dict[str, Results] = {}
        self._calls: set[tuple[Any, ...]] = set()
        self.left_to_local = 0

    def __repr__(self) -> str:
        jobs = sum(len(found.jobs) for found in self.results)
        return f"LeapSampler({self.spent:.3f} of {self.budget_seconds:g} QPU seconds spent in {jobs} jobs)"

    @property
    def parameters(self) -> dict[str, Any]:
        """Every option of `sample`."""
        return self._parameters

    @property
    def properties(self) -> dict[str, Any]:
        """Of the QPU; empty before the first call."""
        return dict(getattr(self._solver, "properties", {}))

    @property
    def results(self) -> list[Results]:
        """What each ledger holds, in the order in which they were first asked."""
        return list(self._found.values())

    @property
    def spent(self) -> float:
        """QPU seconds reported, with those that jobs not answered may have taken."""
        return float(sum(map(_taken, self.results)))

    def story(self) -> str:
        """What was spent and what came of it, in a sentence or two."""
        gained = sum(found.improvement for found in self.results)
        reported = sum(found.spending.reported for found in self.results)
        rate = f", {gained / reported:.4g} for each second reported" if reported > 0 else ""
        notes = "; ".join(dict.fromkeys(found.note for found in self.results if found.note))
        missing = sum(len(found.unresolved) for found in self.results)
        jobs = sum(len(found.jobs) for found in self.results)
        return (
            f"{self.spent:.3f} of {self.budget_seconds:g} QPU seconds were spent in {jobs} jobs, "
            f"{missing} of them without an answer; they lowered energies by {gained:.4g} below the local annealer's{rate}. "
            f"{self.left_to_local} problems were left to the local annealer. Ledgers are in {self.folder}."
            + (f" Note: {notes}." if notes else "")
        )

    def close(self) -> None:
        """Close the client of the QPU."""
        if hasattr(self._solver, "close"):
            self._solver.close()

    def sample(
        self,
        bqm: dimod.BinaryQuadraticModel,
        *,
        seed: int | None = None,
        num_kept: int | None = None,
        **options: Any,
    ) -> dimod.SampleSet:
        """The best state found for one model.

        Args:
            bqm: of any size.
            seed: of all that is random on this side; drawn if None.
            num_kept: exactly how many variables are one (up, for SPIN).
            **options: num_reads, annealing_time, spin_reversals, reverse, as `annealsubnet.leap.plan` has them.

        Returns:
            One sample; `info` says what was spent and whose answer it is.

        Raises:
            LeapError: as `Plan.submit`.
            TypeError: for an option that does not exist.
        """
        seed = secrets.randbits(31) if seed is None else check_whole("seed", seed, 0)
        problem = problem_of(bqm, num_kept=num_kept)
        states, answered, found, seconds = self._answered([problem], seed, options)
        values = states[0].astype(np.int8) if bqm.vartype is dimod.BINARY else 2 * states[0].astype(np.int8) - 1
        answered_by = found.note or found.solver if found is not None and answered[0] else "local annealer"
        info = {"seed": seed, "qpu_seconds": seconds, "answered_by": answered_by}
        return dimod.SampleSet.from_samples_bqm((values[None], list(bqm.variables)), bqm, info=info)

    def sample_problems(
        self, problems: Sequence[Problem], *, seed: int, **options: Any
    ) -> tuple[tuple[np.ndarray, ...], tuple[bool, ...]]:
        """The best states found for many problems, packed into as few jobs as they fit.

        Args:
            problems: with or without a count.
            seed: of all that is random on this side.
            **options: as in `sample`.

        Returns:
            One state a problem, and whether the QPU had a say in it.
        """
        return self._answered(problems, check_whole("seed", seed, 0), options)[:2]

    def _answered(
        self, problems: Sequence[Problem], seed: int, options: dict[str, Any]
    ) -> tuple[tuple[np.ndarray, ...], tuple[bool, ...], Results | None, float]:
        """States, whether the QPU had a say in each, what the ledger holds, and the QPU seconds that this very call took."""
        refuse_unknown("LeapSampler", options, self._parameters)
        if self._solver is None:
            self._solver = own_solver()
        device, given = described(self._solver), problems_of(problems)
        nothing = tuple(np.zeros(0, np.bool_) for _ in given)
        call = (Plan(given, nothing, (), (), device, seed).fingerprint, seed, repr(sorted(options.items())))
        known = call in self._calls
        if not known and self.budget_seconds - self.spent < device.seconds(1, {"num_reads": 1}):
            return *self._locally(given, seed=seed), None, 0.0
        made = plan(given, self._solver, seed=seed, **{**self._options, **options})
        if not made.jobs:
            self.left_to_local += len(given)
            logger.info("nothing is contested in %d problems; the local annealer answers", len(given))
            return made.starts, (False,) * len(given), None, 0.0
        name = made.fingerprint
        left = self.budget_seconds - sum(_taken(found) for other, found in self._found.items() if other != name)
        if not known and made.jobs[0].seconds > left:
            return *self._locally(given, seed=seed), None, 0.0
        # Named after the plan: the same call made again, after a crash say, goes on with the same ledger and pays once.
        ledger = self.folder / f"{name}.sqlite"
        before = _held(ledger)
        if not self._confirmed and (before is None or any(job.entry.state == "planned" for job in before.jobs)):
            if not self._confirm(made, self.budget_seconds):
                raise LeapError("nothing was sent: you said no.")
            self._confirmed = True
        self.folder.mkdir(parents=True, exist_ok=True)
        try:
            # Where nothing is left nothing can be sent, and what the ledger holds is the answer.
            found = (
                before
                if before is not None and left <= 0
                else made.submit(
                    budget_seconds=left, ledger=ledger, solver=self._solver, patience=self._patience, pace=self._pace
                )
            )
        except BaseException:
            if (held := _held(ledger)) is not None:  # what was sent is spent, whatever went wrong after
                self._found[name] = held
            raise
        self._found[name] = found
        self._calls.add(call)
        reached = {found.planned[answer.part].problem for answer in found.parts}
        self.left_to_local += len(given) - len(reached)
        seconds = _taken(found) - (0.0 if before is None else _taken(before))
        return found.states, tuple(number in reached for number in range(len(given))), found, seconds

    def _locally(self, problems: Sequence[Problem], *, seed: int) -> tuple[tuple[np.ndarray, ...], tuple[bool, ...]]:
        """What the local annealer says, once the budget is spent."""
        if not self.left_to_local:
            logger.warning("the budget of %g QPU seconds is spent; the local annealer answers from here", self.budget_seconds)
        self.left_to_local += len(problems)
        found = [local_state(problem, seed=seed + number) for number, problem in enumerate(problems)]
        return tuple(found), (False,) * len(problems)


def _taken(found: Results) -> float:
    """QPU seconds of a ledger that are spent, or may be."""
    return found.spending.reported + found.spending.reserved


def _held(path: Path) -> Results | None:
    """What a ledger holds; None if there is none, or none with a plan in it."""
    if not path.exists():
        return None
    with Ledger(path) as ledger:
        return results(ledger) if "fingerprint" in ledger.facts() else None


def own_solver() -> Any:
    """The QPU of the user's configuration."""
    from dwave.cloud.exceptions import ConfigFileError, SolverError
    from dwave.system import DWaveSampler

    conceal(configured().token)
    try:
        return DWaveSampler()
    except (ConfigFileError, SolverError, OSError, ValueError) as error:
        text = str(error) or type(error).__name__
    raise LeapError(
        f"there is no QPU to be had ({text}); set DWAVE_API_TOKEN, or check the configuration with `dwave config inspect`."
    )
