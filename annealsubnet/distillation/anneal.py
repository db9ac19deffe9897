"""Anneal the sums of all neurons of a layer at once, under one count of kept weights.

All neurons are swept at one temperature at a time, and after each sweep the price λ of a kept weight follows the count,

    log λ ← log λ + ½ (kept / wanted − 1),

so that at every temperature about as many weights are kept as may stay. A descent comes first, and gives the unit of
temperature: what its error has above that of least squares, for each neuron and source (a quadratic energy at temperature T has
T/2 for each degree of freedom). At the end the temperature is zero and the price rises until no more are kept than may be.
"""

from concurrent.futures import Executor, ThreadPoolExecutor
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from jaxtyping import Bool, Float

from annealsubnet.distillation.sum_kernel import sweep_sums
from annealsubnet.distillation.sums import Sums
from annealsubnet.solvers.running import default_num_threads

_GAIN, _SETTLING_GAIN = 0.5, 2.0
_SETTLING = 30
"""Sweeps at temperature zero, the price still following."""
_RISE = 1.01
_LEAST = 1e-6
"""Share of itself below which a price does not fall: where more may be kept than helps, it would fall for ever."""
_REFRESH = 20
"""Sweeps after which fields are computed anew: they are float32."""
_MOST_FINAL = 10_000
_STEP = 0xD1B54A32D192ED03
"""From the key of one sweep to that of the next; not the step between neurons."""


@dataclass(frozen=True)
class Schedule:
    """How sums are cooled.

    Attributes:
        num_sweeps: passes over all candidates while the temperature falls; 0 descends only.
        hot, cold: temperatures at the start and at the end, in units of the excess error of descent for each neuron and source.
    """

    num_sweeps: int = 300
    hot: float = 10.0
    cold: float = 0.05

    def __post_init__(self) -> None:
        if self.num_sweeps < 0 or not 0 < self.cold <= self.hot:
            raise ValueError(
                f"A schedule has at least 0 sweeps and 0 < cold <= hot; this one has {self.num_sweeps} sweeps, "
                f"cold={self.cold} and hot={self.hot}."
            )

    def temperatures(self) -> Float[np.ndarray, "sweeps"]:
        """Falling geometrically."""
        return np.geomspace(self.hot, self.cold, self.num_sweeps)


class Walk:
    """A state of all neurons' sums that is swept.

    Args:
        sums: of a layer.
        state: where it starts; changed by `sweep`.
        seed: of its random numbers.
        pool: whose threads share the neurons.
        parts: into which the neurons are cut.
    """

    def __init__(self, sums: Sums, state: Bool[np.ndarray, "neurons candidates"], *, seed: int, pool: Executor, parts: int):
        self.sums, self.state = sums, state
        self._pool, self._done = pool, 0
        self._key = int(np.random.SeedSequence(seed).generate_state(1, np.uint64)[0])
        self._fields = np.empty(sums.cross.shape, np.float32)
        self._arrays = (
            sums.coefficients.astype(np.float32),
            np.asarray(sums.starts, np.int64),
            np.ascontiguousarray(sums.moment, np.float32),
        )
        edges = np.linspace(0, len(state), parts + 1).astype(int).tolist()
        self._spans = list(pairwise(edges))

    def sweep(self, price: float, temperature: float) -> int:
        """One sweep of all neurons; returns how many weights they keep then."""
        if self._done % _REFRESH == 0:
            self._fields[:] = self.sums.values(self.state) @ self.sums.moment - self.sums.cross
        key = np.uint64((self._key + self._done * _STEP) & (2**64 - 1))
        self._done += 1
        arrays = (*self._arrays, self.state, self._fields, price, temperature, key)
        if len(self._spans) == 1:  # handing it to a thread takes longer than sweeping one neuron
            return int(sweep_sums(*arrays, *self._spans[0]))
        return sum(self._pool.map(lambda span: sweep_sums(*arrays, *span), self._spans))

    def settle(self, price: float, num_kept: int, *, num_sweeps: int = _SETTLING) -> float:
        """Sweep at temperature zero while the price follows the count; returns it."""
        least = _LEAST * price
        for _ in range(num_sweeps):
            price = max(followed(price, self.sweep(price, 0.0), num_kept, _SETTLING_GAIN), least)
        return price

    def fit(self, price: float, num_kept: int) -> float:
        """Raise the price until no more than `num_kept` weights are kept; returns it."""
        for _ in range(_MOST_FINAL):
            if self.sweep(price, 0.0) <= num_kept:
                break
            price *= _RISE
        return price


def followed(price: float, kept: int, num_kept: int, gain: float = _GAIN) -> float:
    """The next price: higher where more is kept than wanted."""
    return price * float(np.exp(np.clip(gain * (kept / num_kept - 1), -0.5, 0.5)))


def typical_price(sums: Sums) -> float:
    """The median of c²H_gg, the error that a weight would be of alone: where a price starts."""
    alone = np.square(sums.coefficients) * np.diag(sums.moment)[sums.source_of]
    return float(np.median(alone)) if alone.size else 0.0


def anneal_sums(
    sums: Sums, *, num_kept: int, schedule: Schedule | None = None, seed: int, num_threads: int | None = None
) -> Bool[np.ndarray, "neurons candidates"]:
    """The candidates that each neuron keeps.

    Args:
        sums: of a layer.
        num_kept: how many weights may stay, over all neurons; fewer do where more would not help.
        schedule: how they are cooled; `Schedule()` if None.
        seed: the same seed keeps the same weights, for any number of threads.
        num_threads: by default one a processor.

    Example:
        >>> from annealsubnet.distillation.sums import sums_of
        >>> sums = sums_of(np.array([[0.7], [0.2], [0.5]]), np.ones((3, 3)), np.full((3, 1), 0.9), np.array([0.81]))
        >>> anneal_sums(sums, num_kept=2, seed=0).tolist()  # .7 + .2
        [[True, True, False]]
    """
    state = np.zeros(sums.coefficients.shape, bool)
    price = typical_price(sums)
    if num_kept < 1 or price <= 0.0:
        return state
    schedule = Schedule() if schedule is None else schedule
    threads = default_num_threads() if num_threads is None else num_threads
    with ThreadPoolExecutor(threads) as pool:
        walk = Walk(sums, state, seed=seed, pool=pool, parts=1 if threads == 1 else 4 * threads)
        least, price = _LEAST * price, walk.settle(price, num_kept)
        unit = float((sums.errors(state) - sums.least_errors()).mean()) / len(sums.moment)
        for temperature in schedule.temperatures():
            price = max(followed(price, walk.sweep(price, unit * temperature), num_kept), least)
        walk.fit(walk.settle(price, num_kept), num_kept)
    return state
