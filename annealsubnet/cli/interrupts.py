"""Interrupts: Ctrl-C is never lost.

Python turns the signal into a `KeyboardInterrupt` wherever it happens to be. If that is a callback of a compiled library
or of the garbage collector, the exception is printed and dropped. So the signal is remembered too, and asked for at every
step. The handler is our own also because a shell starts what it runs in the background with the signal ignored.
"""

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType


@contextmanager
def remembered_interrupts() -> Iterator[Callable[[], None]]:
    """Remember Ctrl-C within the block.

    Yields:
        A function that raises `KeyboardInterrupt` if there was one.
    """
    if threading.current_thread() is not threading.main_thread():
        yield lambda: None
        return
    seen = threading.Event()

    def remember(number: int, frame: FrameType | None) -> None:
        seen.set()
        raise KeyboardInterrupt

    def check() -> None:
        if seen.is_set():
            raise KeyboardInterrupt

    before = signal.signal(signal.SIGINT, remember)
    try:
        yield check
    finally:
        signal.signal(signal.SIGINT, before)
