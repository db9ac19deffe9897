"""The command `annealsubnet`.

`annealsubnet prune` compares pruning by annealing with the classical methods: on a network of scikit-learn's digits,
on a named network and checkpoint, or on your own (`annealsubnet prune MODULE:FUNCTION`). `annealsubnet prune --help`
lists every choice.

Exit codes: 0 done; 2 the request can't be carried out, one sentence on stderr says why; 130 interrupted (143 by
SIGTERM), nothing is left behind but a search or a ledger to go on with. Anything else is a bug and shows its traceback.
"""

import sys
from collections.abc import Callable, Sequence

from annealsubnet.cli.interrupts import Terminated, remembered_interrupts
from annealsubnet.cli.refusals import is_refusal, sentence

REFUSED, INTERRUPTED, TERMINATED = 2, 130, 143


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command.

    Args:
        arguments: words after the command's name; those of the process if `None`.

    Returns:
        The exit code.

    Raises:
        SystemExit: The words can't be parsed, or ask for help.
    """
    try:
        with remembered_interrupts() as check_interrupt:
            _run(sys.argv[1:] if arguments is None else list(arguments), check_interrupt)
    except KeyboardInterrupt as interrupt:
        sys.stderr.write(f"\nannealsubnet: interrupted; {str(interrupt) or 'no unfinished files are left behind'}.\n")
        return TERMINATED if isinstance(interrupt, Terminated) else INTERRUPTED
    except Exception as error:
        if not is_refusal(error):
            raise
        sys.stderr.write(f"annealsubnet: {sentence(error)}\n")
        return REFUSED
    return 0


def _run(arguments: Sequence[str], check_interrupt: Callable[[], None]) -> None:
    """Parse the words and do what they ask for; modules are loaded when they are needed, for they take a second."""
    from annealsubnet.cli.commands import Leap, Prune, Ticket, parse

    command = parse(arguments)
    if isinstance(command, Prune):
        from annealsubnet.cli.prune import prune

        prune(command, check_interrupt=check_interrupt)
    elif isinstance(command, Leap):
        from annealsubnet.cli.leap import leap

        leap(command.command)
    elif isinstance(command, Ticket):
        from annealsubnet.cli.ticket import ticket

        ticket(command, check_interrupt=check_interrupt)
    else:
        from annealsubnet.cli.evaluate import evaluate

        evaluate(command)
