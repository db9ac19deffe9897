"""Descent: the moves of annealing at temperature zero, from random starts; the control that annealing must be compared with."""

import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np
from jaxtyping import Bool

from annealsubnet.distillation.anneal import Walk, typical_price
from annealsubnet.distillation.sums import Sums
from annealsubnet.solvers.running import default_num_threads

_SWEEPS = 30


def descend_sums(
    sums: Sums, *, num_kept: int, seconds: float, seed: int, num_threads: int | None = None
) -> Bool[np.ndarray, "neurons candidates"]:
    """The candidates that each neuron keeps, the best local optimum of every neuron.

    A first descent from nothing finds the price; the others start from random candidates and pay it; at the end the price rises
    until no more are kept than may be.

    Args:
        sums: of a layer.
        num_kept: how many weights may stay, over all neurons.
        seconds: of wall time; at least one descent is made. (How many more is up to the machine: no two runs need agree.)
        seed: of the starts.
        num_threads: by default one a processor.
    """
    begin = time.perf_counter()
    state = np.zeros(sums.coefficients.shape, bool)
    price = typical_price(sums)
    if num_kept < 1 or price <= 0.0:
        return state
    threads = default_num_threads() if num_threads is None else num_threads
    parts = 1 if threads == 1 else 4 * threads
    with ThreadPoolExecutor(threads) as pool:
        price = Walk(sums, state, seed=seed, pool=pool, parts=parts).settle(price, num_kept)
        best, starts = state, 0
        energies = sums.errors(best) + price * best.sum(axis=1)
        while time.perf_counter() - begin < seconds:
            starts += 1
            start = np.random.default_rng([seed, starts]).random(state.shape) < num_kept / state.size
            walk = Walk(sums, start, seed=seed + starts, pool=pool, parts=parts)
            for _ in range(_SWEEPS):
                walk.sweep(price, 0.0)
            found = sums.errors(start) + price * start.sum(axis=1)
            best = np.where((found < energies)[:, None], start, best)
            energies = np.minimum(energies, found)
        Walk(sums, best, seed=seed, pool=pool, parts=parts).fit(price, num_kept)
    return best
