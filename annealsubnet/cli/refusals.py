"""Refusals: which exceptions are answers to a bad request, and which are bugs.

The package's functions check their arguments at the public door and raise `ValueError` or `TypeError` with a sentence
that says what was found and what to do. The command shows that sentence alone. The same classes raised anywhere else
(inside JAX, inside the user's own function, by an operation gone wrong in ours) are bugs and keep their traceback. What
tells them apart is the innermost frame of the traceback: a `raise` statement of this package, or anything else.
"""

import dis
from pathlib import Path
from types import TracebackType

PACKAGE = Path(__file__).resolve().parents[1]
_RAISE = dis.opmap["RAISE_VARARGS"]


class Refusal(Exception):
    """A request that the command itself can't carry out."""


def is_refusal(error: Exception) -> bool:
    """Whether `error` is a sentence for the user and not a bug.

    Args:
        error: as caught, with its traceback.

    Returns:
        True for a `Refusal`, for a `ValueError`, `TypeError` or `OSError` that a `raise` statement of this package
        raised, and for an `OSError` about a file, whoever raised it.
    """
    if isinstance(error, Refusal):
        return True
    if isinstance(error, OSError) and error.filename is not None:
        return True
    return isinstance(error, ValueError | TypeError | OSError) and _raised_here(error.__traceback__)


def sentence(error: Exception) -> str:
    """What to tell the user: the error's own words on one line."""
    if isinstance(error, OSError) and error.filename is not None:
        return f"{error.filename}: {error.strerror or error}; check the path, its permissions and the space on the disk."
    return " ".join(str(error).split())


def _raised_here(traceback: TracebackType | None) -> bool:
    """Whether the innermost frame of `traceback` is at a `raise` statement of this package."""
    if traceback is None:
        return False
    while traceback.tb_next is not None:
        traceback = traceback.tb_next
    code = traceback.tb_frame.f_code
    return code.co_code[traceback.tb_lasti] == _RAISE and Path(code.co_filename).resolve().is_relative_to(PACKAGE)
