"""Rounds: the loop of every search for a ticket, from a file or from nothing, and saved as it goes."""

import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from annealsubnet.tickets import evidence, sequential
from annealsubnet.tickets.progress import Check, Progress, Search, write_progress
from annealsubnet.tickets.quadratic import Blocks

UNWRITTEN_SECONDS = 30.0
"""At most so much of a search between checks is lost where its process is killed."""


def begin(search: Search) -> Progress:
    """The first mask, and nothing known.

    Raises:
        ValueError: if its loss is not finite, or a site has no units kept.
    """
    rule = search.rule
    return sequential.begin(search) if isinstance(rule, Blocks) else evidence.begin(search, rule)


def advance(
    search: Search,
    progress: Progress,
    *,
    until: int | None = None,
    report: Callable[[Check], None] = lambda check: None,
    save_to: Path | None = None,
) -> Progress:
    """Rounds up to `until`, all if None; `report` sees every check, and a file is written after each.

    An interrupt (Ctrl-C) writes the file too, so that nothing is lost, and so does a round after the first check that ends half
    a minute or more after it was last written, so that little is lost where a process is killed.
    """
    rule = search.rule
    step = sequential.stepper(search, rule) if isinstance(rule, Blocks) else evidence.stepper(search, rule)
    end = search.rounds if until is None else min(until, search.rounds)
    start = time.perf_counter() - progress.seconds
    written = time.perf_counter()
    try:
        while progress.done < end:
            checks = len(progress.log)
            # One assignment for a round and its check: an interrupt leaves both done or neither.
            progress = step(progress, start)
            checked = len(progress.log) > checks
            if checked:
                report(progress.log[-1])
            due = progress.log and time.perf_counter() - written >= UNWRITTEN_SECONDS
            if save_to is not None and (checked or due):
                write_progress(search, replace(progress, seconds=time.perf_counter() - start), save_to)
                written = time.perf_counter()
    except KeyboardInterrupt:
        if save_to is not None:
            write_progress(search, replace(progress, seconds=time.perf_counter() - start), save_to)
        raise
    return replace(progress, seconds=time.perf_counter() - start)
