"""Faults: what goes wrong between a client and a service far away, on purpose and in the order of a seed."""

import threading
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

REQUEST_FAULTS = (
    "unauthorized",
    "too many requests",
    "server error",
    "unavailable",
    "dropped before",
    "dropped after",
    "truncated",
)
"""Of a request: answers 401, 429, 500, 503; the connection lost before a request is carried out, or after; half an answer."""

JOB_FAULTS = ("failed job", "slow job", "changed graph")
"""Of a job: it fails; it takes longer; the working graph has changed, so that it is refused."""

FAULTS = REQUEST_FAULTS + JOB_FAULTS


@dataclass(frozen=True)
class Faults:
    """How often each fault happens, at random.

    Attributes:
        rates: fault to its probability: of a request (`REQUEST_FAULTS`) or of a job sent (`JOB_FAULTS`).
        seed: of the dice.
        slow_seconds: how much longer a slow job takes.

    Raises:
        ValueError: for an unknown fault, or rates that are no probabilities.

    Example:
        >>> Faults.everything(0.3).rates["unavailable"]
        0.03
        >>> Faults({"fire": 0.1})
        Traceback (most recent call last):
        ...
        ValueError: there is no fault 'fire'; there are unauthorized, ..., changed graph.
    """

    rates: Mapping[str, float] = field(default_factory=dict)
    seed: int = 0
    slow_seconds: float = 0.5

    def __post_init__(self) -> None:
        for name, rate in self.rates.items():
            if name not in FAULTS:
                raise ValueError(f"there is no fault {name!r}; there are {', '.join(FAULTS)}.")
            if not 0 <= rate <= 1:
                raise ValueError(f"the rate of {name!r} must be from 0 to 1; it is {rate}.")
        for kind in (REQUEST_FAULTS, JOB_FAULTS):
            total = sum(self.rates.get(name, 0.0) for name in kind)
            if total > 1:
                raise ValueError(f"rates of {', '.join(kind)} must not add up to more than 1; they add up to {total:g}.")

    @classmethod
    def everything(cls, rate: float, *, seed: int = 0, slow_seconds: float = 0.5) -> "Faults":
        """Every fault, equally often, `rate` in all."""
        return cls(dict.fromkeys(FAULTS, round(rate / len(FAULTS), 12)), seed, slow_seconds)


class Dice:
    """Decides what goes wrong next: first what was asked for by name, then at random.

    Attributes:
        thrown: how often each fault has happened.
    """

    def __init__(self, faults: Faults) -> None:
        self.thrown: Counter[str] = Counter()
        self._asked: list[str] = []
        self._lock = threading.Lock()
        self.begin(faults)

    def begin(self, faults: Faults) -> None:
        """From now on throw these, in the order of their seed."""
        self.faults = faults
        self._rng = np.random.default_rng(faults.seed)

    def ask(self, name: str, times: int) -> None:
        """Let the fault `name` happen to the next `times` requests or jobs that it can happen to."""
        if name not in FAULTS:
            raise ValueError(f"there is no fault {name!r}; there are {', '.join(FAULTS)}.")
        with self._lock:
            self._asked += [name] * times

    def of_request(self) -> str | None:
        """What goes wrong with this request, if anything."""
        return self._throw(REQUEST_FAULTS)

    def of_job(self) -> str | None:
        """What goes wrong with this job, if anything."""
        return self._throw(JOB_FAULTS)

    def uniform(self) -> float:
        """A number in [0, 1)."""
        with self._lock:
            return float(self._rng.random())

    def _throw(self, kind: tuple[str, ...]) -> str | None:
        with self._lock:
            asked = next((name for name in self._asked if name in kind), None)
            if asked is not None:
                self._asked.remove(asked)
            else:
                bounds = np.cumsum([self.faults.rates.get(name, 0.0) for name in kind])
                place = int(np.searchsorted(bounds, self._rng.random(), side="right"))
                asked = kind[place] if place < len(kind) else None
            if asked is not None:
                self.thrown[asked] += 1
            return asked
