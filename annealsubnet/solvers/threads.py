"""Threads over columns or groups: each calls NumPy and SciPy for itself, with one thread of BLAS.

More of those would wait for each other by spinning, on processors that the others of ours need.
"""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from threading import Lock
from typing import Any, TypeVar

from threadpoolctl import ThreadpoolController

from annealsubnet.solvers.running import default_num_threads

Found = TypeVar("Found")


class _OneBlasThread:
    """A context in which BLAS has one thread: whoever enters first limits it, and whoever leaves last ends that."""

    def __init__(self) -> None:
        self._lock, self._inside = Lock(), 0
        self._libraries: ThreadpoolController | None = None
        self._limit: Any = None

    def __enter__(self) -> None:
        with self._lock:
            if self._libraries is None:  # to look for them takes a hundred times as long as to limit them
                self._libraries = ThreadpoolController()
            if self._inside == 0:
                self._limit = self._libraries.limit(limits=1, user_api="blas")
            self._inside += 1

    def __exit__(self, *_: object) -> None:
        with self._lock:
            self._inside -= 1
            if self._inside == 0:
                self._limit.restore_original_limits()


ONE_BLAS_THREAD = _OneBlasThread()


def in_threads(run: Callable[[int, int], None], count: int, num_threads: int | None) -> None:
    """Call `run(lo, hi)` on ranges that cover 0 to `count`, `num_threads` at a time."""
    threads = max(1, min(num_threads or default_num_threads(), count))
    if threads == 1:
        run(0, count)
        return
    size = max(1, count // (8 * threads))
    ranges = [(lo, min(lo + size, count)) for lo in range(0, count, size)]
    with ONE_BLAS_THREAD, ThreadPoolExecutor(threads) as pool:
        for future in [pool.submit(run, lo, hi) for lo, hi in ranges]:
            future.result()


def by_group(solve: Callable[[int, int | None], Found], count: int) -> list[Found]:
    """`solve(group, num_threads)` of every group: several groups at once where there are several, else one with all threads."""
    if count == 1:
        return [solve(0, None)]
    found: list[Found | None] = [None] * count

    def run(lo: int, hi: int) -> None:
        for group in range(lo, hi):
            found[group] = solve(group, 1)

    in_threads(run, count, None)
    return [each for each in found if each is not None]
