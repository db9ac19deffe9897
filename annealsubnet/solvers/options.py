"""The annealer's options, checked once."""

import math
import secrets
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from annealsubnet.arguments import check_whole
from annealsubnet.solvers.schedules import checked_range, geometric

NUM_READS = 16
NUM_SWEEPS = 1000
_LEAST = {
    "num_reads": 1, "num_sweeps": 0, "num_threads": 1, "num_kept": 0, "seed": 0, "num_replicas": 2, "num_tabu_sweeps": 0
}  # fmt: skip
"""Whole numbers, and what each must at least be."""
ONLY_NUMBA = ("groups", "target", "time_limit", "interrupt_function", "num_replicas", "num_tabu_sweeps")
"""What the kernels of an accelerator do not have, beside `exchanges`."""


def refuse_unknown(name: str, unknown: Any, known: Any) -> None:
    """Raise if there are options that `name` does not have.

    Raises:
        TypeError: naming them, and those it has.
    """
    extra = sorted(set(unknown) - set(known))
    if extra:
        raise TypeError(f"{name} has no option {', '.join(map(repr, extra))}; it has {', '.join(sorted(known)) or 'none'}.")


@dataclass(frozen=True)
class Options:
    """Options of one call of `Annealer.sample`; see there for what each means."""

    num_reads: int | None = None
    num_sweeps: int | None = None
    beta_range: Sequence[float] | Literal["settled"] | None = None
    beta_schedule: Sequence[float] | None = None
    initial_states: Any = None
    initial_states_generator: Literal["none", "tile", "random"] = "random"
    seed: int | None = None
    num_threads: int | None = None
    num_kept: int | None = None
    groups: Sequence[tuple[Sequence[Hashable], int]] | None = None
    target: float | None = None
    time_limit: float | None = None
    interrupt_function: Callable[[], bool] | None = None
    state: Literal["best", "last"] = "best"
    exchanges: bool = False
    num_replicas: int | None = None
    num_tabu_sweeps: int | None = None
    presolve: bool = False
    backend: Literal["auto", "numba", "jax"] = "auto"

    def __post_init__(self) -> None:
        for name, least in _LEAST.items():
            if getattr(self, name) is not None:
                check_whole(name, getattr(self, name), least)
        if self.state not in ("best", "last"):
            raise ValueError(f'state must be "best" or "last"; it is {self.state!r}.')
        if self.backend not in ("auto", "numba", "jax"):
            raise ValueError(f'backend must be "auto", "numba" or "jax"; it is {self.backend!r}.')
        not_flipped = [name for name in ("num_kept", "groups") if getattr(self, name) is not None]
        not_flipped += ['state "last"'] if self.state == "last" else []
        if self.num_tabu_sweeps and not_flipped:
            raise ValueError(f"num_tabu_sweeps searches by flips for the best state; it cannot go with {not_flipped[0]}.")
        only_numba = [name for name in ONLY_NUMBA if getattr(self, name) is not None]
        only_numba += ["exchanges"] if self.exchanges else []
        if self.backend == "jax" and only_numba:
            raise ValueError(f'backend "jax" has no {", ".join(only_numba)}; leave the backend to choose itself.')
        if self.initial_states_generator not in ("none", "tile", "random"):
            raise ValueError(
                f'initial_states_generator must be "none", "tile" or "random"; it is {self.initial_states_generator!r}.'
            )
        if self.beta_schedule is not None:
            if self.beta_range is not None:
                raise ValueError("give beta_range or beta_schedule, not both.")
            betas = np.asarray(self.beta_schedule, dtype=np.float64)
            if betas.ndim != 1 or not (betas >= 0).all():
                raise ValueError("beta_schedule must be a sequence of numbers that are at least 0, one a sweep.")
            if self.num_sweeps not in (None, betas.size):
                raise ValueError(f"num_sweeps is {self.num_sweeps}, but beta_schedule has {betas.size} sweeps.")
        if self.settled and (self.num_kept is not None or self.groups is not None):
            raise ValueError(f'beta_range "settled" looks at single flips; it cannot go with {not_flipped[0]}.')
        if self.num_replicas is not None and self.beta_schedule is not None:
            raise ValueError("num_replicas takes a beta_range, over which the replicas are spread, not a schedule.")
        if self.num_replicas is not None and self.given_range and math.isinf(max(self.given_range)):
            raise ValueError("replicas need finite inverse temperatures; beta_range holds an infinite one.")
        if self.time_limit is not None and not self.time_limit >= 0:
            raise ValueError(f"time_limit must be at least 0 seconds; it is {self.time_limit}.")
        if self.target is not None and math.isnan(self.target):
            raise ValueError("target must be an energy; it is NaN.")

    @property
    def settled(self) -> bool:
        """Whether the range of temperatures comes from the flips of a local minimum."""
        return isinstance(self.beta_range, str) and self.beta_range == "settled"

    @property
    def given_range(self) -> tuple[float, float] | None:
        """The range of inverse temperatures, if it is given in numbers.

        Raises:
            ValueError: for any word but "settled", and as `checked_range`.
        """
        if self.beta_range is None or self.settled:
            return None
        if isinstance(self.beta_range, str):
            raise ValueError(f'beta_range must be (hot, cold) or "settled"; it is {self.beta_range!r}.')
        return checked_range(self.beta_range)

    @property
    def drawn_seed(self) -> int:
        """The seed given, or one drawn from the system."""
        return secrets.randbits(32) if self.seed is None else int(self.seed)

    @property
    def sweeps(self) -> int:
        """Number of sweeps of a read."""
        if self.beta_schedule is not None:
            return len(self.beta_schedule)
        return NUM_SWEEPS if self.num_sweeps is None else int(self.num_sweeps)

    def betas(self, default_range: Callable[[], tuple[float, float]]) -> np.ndarray:
        """The inverse temperature of each sweep, or of each replica; `default_range` finds the range if none is given."""
        if self.beta_schedule is not None:
            return np.asarray(self.beta_schedule, dtype=np.float64)
        steps = self.sweeps if self.num_replicas is None else int(self.num_replicas)
        return geometric(self.given_range or default_range(), steps)
