"""Interrupts: Ctrl-C, and the request to end that schedulers send (SIGTERM), are never lost.

Python turns the first into a `KeyboardInterrupt` wherever it happens to be. If that is a callback of a compiled library
or of the garbage collector, the exception is printed and dropped. So the signal is remembered too, and asked for at every
step. The handler is our own also because a shell starts what it runs in the background with the signal ignored.
"""

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType


class Terminated(KeyboardInterrupt):
    """The process was asked to end by SIGTERM: answered as Ctrl-C is, with another exit code."""


ANSWERED = {signal.SIGINT: KeyboardInterrupt, signal.SIGTERM: Terminated}


@contextmanager
def remembered_interrupts() -> Iterator[Callable[[], None]]:
    """Remember Ctrl-C and SIGTERM within the block.

    Yields:
        A function that raises `KeyboardInterrupt`, or `Terminated`, if there was one.
    """
    if threading.current_thread() is not threading.main_thread():
        yield lambda: None
        return
    seen: list[type[KeyboardInterrupt]] = []

    def remember(number: int, frame: FrameType | None) -> None:
        seen.append(ANSWERED[signal.Signals(number)])
        raise seen[-1]

    def check() -> None:
        if seen:
            raise seen[-1]

    before = {number: signal.signal(number, remember) for number in ANSWERED}
    try:
        yield check
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
