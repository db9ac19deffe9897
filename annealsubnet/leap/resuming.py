"""Resume: go on with a ledger, in any process, at any time.

What was accepted is asked for by its id and never sent again. What was left in the middle of being sent is looked for by its
label; only if the service does not list it, and the user says so, is it sent again, under a new label.
"""

from pathlib import Path
from typing import Any

from annealsubnet.leap.connection import Connection, LeapError
from annealsubnet.leap.ledger import Ledger
from annealsubnet.leap.merging import Results, results
from annealsubnet.leap.patience import Patience
from annealsubnet.leap.planning import Report
from annealsubnet.leap.running import Pace, checked_budget, run


def resume(
    ledger: str | Path,
    *,
    solver: Any = None,
    budget_seconds: float | None = None,
    resubmit: bool = False,
    pace: Pace | None = None,
    patience: Patience | None = None,
    report: Report = lambda spending, left: None,
) -> Results:
    """Fetch what is still to be had of a ledger's jobs, and send those that never were.

    Args:
        ledger: file that `Plan.submit` wrote.
        solver: whose client and credentials are used; the user's configuration is read if None.
        budget_seconds: QPU access time that may be spent in all, with what was spent before; as it was if None.
        resubmit: the user's word: jobs of which it is not known whether they arrived, and that the service still does not list,
            are sent again. If one did arrive after all, it is paid for twice.
        pace: how much is under way at a time.
        patience: with failures of the service.
        report: told now and then what was spent and how many jobs are left.

    Returns:
        What the ledger holds then.

    Raises:
        LeapError: no such ledger, no credentials, another endpoint than the one it was sent to, or anything that
            `Plan.submit` raises.
    """
    with Ledger(ledger, mode="write") as opened:
        facts = opened.plan_facts()
        budget = checked_budget(facts["budget_seconds"] if budget_seconds is None else budget_seconds)
        with Connection.open(solver, patience=patience) as connection:
            if connection.endpoint != facts["endpoint"]:
                # The token goes only where the user's own configuration leads, never where a file says.
                raise LeapError(
                    f"{opened.path} was sent to {facts['endpoint']}, but the configuration leads to {connection.endpoint}; "
                    "choose the profile or DWAVE_API_ENDPOINT that it was sent with."
                )
            opened.set_facts({"budget_seconds": budget})
            run(opened, connection, budget_seconds=budget, pace=pace or Pace(), report=report, resubmit=resubmit)
            return results(opened)
