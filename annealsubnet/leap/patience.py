"""Patience: how often, and how long apart, something is tried again.

Exponential back-off with full jitter: before attempt n + 1 one waits a random time in [0, min(most, first · 2ⁿ)], so that many
clients that failed together do not come back together. Time is never read from a clock that can be set.

References:
    M. Brooker, "Exponential backoff and jitter", AWS Architecture Blog (2015).
"""

import random
import time
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Patience:
    """How failures of the service are met.

    Attributes:
        attempts: how often a request is tried in all.
        first: longest wait, in seconds, before the second attempt.
        most: longest wait before any.
        poll_seconds: longest time that one request waits for jobs to end.
        seed: of the jitter.

    Raises:
        ValueError: for values that would never try, or wait for less than nothing.
    """

    attempts: int = 8
    first: float = 0.5
    most: float = 30.0
    poll_seconds: int = 30
    seed: int = 0
    _random: random.Random = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        if self.attempts < 1 or self.first < 0 or self.most < 0 or self.poll_seconds < 0:
            raise ValueError(f"attempts must be at least 1 and no wait below 0 seconds; they are {self!r}.")
        object.__setattr__(self, "_random", random.Random(self.seed))

    def wait(self, failures: int) -> None:
        """Sleep after the `failures`-th failure in a row."""
        time.sleep(self._random.uniform(0.0, min(self.most, self.first * 2.0 ** min(failures - 1, 60))))
