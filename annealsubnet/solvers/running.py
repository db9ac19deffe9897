"""Reads on threads: the same answer for any number of them, and every way of stopping early.

Kernels release the interpreter's lock, so threads are enough. Reads are handed out in order, and each depends only on
its own key and initial state. A read that meets the target makes later reads needless; earlier ones are still
finished, so the reads that are returned do not depend on how they were spread over threads.
"""

import os
import time
from collections.abc import Callable
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass

import numpy as np

# Below this many proposals, starting threads costs more than they save.
_SMALL = 2_000_000
_POLL_SECONDS = 0.005
# Proposals in a part: about a millisecond, so that handing it out costs little and no thread waits long for the last.
_PART = 200_000
# Couplings that are summed in about the time of one proposal, and how often a read sums all of its own: at the start, the
# end, and in the passes of its descent.
SUMMED, SUMS = 16, 4
_NEVER = np.iinfo(np.int64).max


@dataclass(frozen=True)
class Stops:
    """When to stop before every read is done.

    Attributes:
        time_limit: seconds after which running reads are cut short and no more are begun.
        interrupt_function: called every few milliseconds; a true answer stops as the time limit does.
    """

    time_limit: float | None = None
    interrupt_function: Callable[[], bool] | None = None

    def __bool__(self) -> bool:
        return self.time_limit is not None or self.interrupt_function is not None


def default_num_threads() -> int:
    """Number of processors that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def run_reads(
    kernel: Callable[[int, int, np.ndarray], None],
    num_reads: int,
    *,
    num_threads: int | None,
    proposals: float,
    stops: Stops,
    multiple: int = 1,
) -> str | None:
    """Call `kernel(begin, end, stop)` until all reads are done, on threads if that pays.

    All but small work is done on other threads than the caller's, even on one, so that Ctrl-C is seen while it goes on.

    Args:
        kernel: anneals the reads from `begin` to `end`, and leaves off a read whose index is above `stop[0]`.
        num_reads: how many reads there are.
        num_threads: how many threads; None for one a processor.
        proposals: moves to be tried in all, to judge whether threads pay.
        stops: when to stop early.
        multiple: reads are handed out in multiples of this number.

    Returns:
        "time_limit" or "interrupt_function" if that ended the run, else None.
    """
    stop = np.full(1, _NEVER, np.int64)
    threads = default_num_threads() if num_threads is None else num_threads
    bundles = -(-num_reads // multiple)
    if num_threads is None and proposals < _SMALL:
        threads = 1
    threads = min(threads, bundles)
    if threads <= 1 and proposals < _SMALL and not stops:
        kernel(0, num_reads, stop)
        return None
    parts = max(4 * threads, min(64 * threads, int(proposals / _PART)))
    step = max(1, bundles // parts) * multiple
    with ThreadPoolExecutor(max(threads, 1)) as pool:
        futures = [pool.submit(kernel, begin, min(begin + step, num_reads), stop) for begin in range(0, num_reads, step)]
        try:
            reason = _watch(set(futures), stops, stop)
        except BaseException:
            stop[0] = -1
            pool.shutdown(cancel_futures=True)
            raise
        for future in futures:
            future.result()
    return reason


def _watch(pending: set[Future[None]], stops: Stops, stop: np.ndarray) -> str | None:
    start = time.perf_counter()
    poll = _POLL_SECONDS if stops else None
    while pending:
        if stops.time_limit is not None and time.perf_counter() - start >= stops.time_limit:
            stop[0] = -1
            return "time_limit"
        if stops.interrupt_function is not None and stops.interrupt_function():
            stop[0] = -1
            return "interrupt_function"
        _, pending = wait(pending, timeout=poll, return_when=FIRST_COMPLETED)
    return None


def keys_for(seed: int, num_reads: int) -> np.ndarray:
    """A 64-bit key for each read; the first ones do not depend on how many are asked for."""
    return np.random.SeedSequence(seed).generate_state(num_reads, np.uint64)
