"""Annealing with moves on the tables: no auxiliary variables, no penalties.

A flip of variable i changes the energy by Σ_{w ∋ i} T_w[code ⊕ bit] − T_w[code]; with each window's code at hand, a proposal
costs as many look-ups as windows hold i. Every read cools geometrically and ends in a descent by flips.
"""

# Numba infers types; annotations would only repeat them.
# mypy: disable-error-code="no-untyped-def, call-arg"

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float
from numba import njit

from annealsubnet.landscapes.landscape import Landscape
from annealsubnet.solvers.couplings import OPTIONS
from annealsubnet.solvers.running import Stops, keys_for, run_reads
from annealsubnet.solvers.sweeps import mixed

_GOLDEN = np.uint64(0x9E3779B97F4A7C15)
_UNIT = 2.0**-53


@dataclass(frozen=True)
class Optimum:
    """What annealing found.

    Attributes:
        states: the best state of every read.
        energies: their energies.
    """

    states: Bool[np.ndarray, "reads variables"]
    energies: Float[np.ndarray, "reads"]

    @property
    def best(self) -> Bool[np.ndarray, "variables"]:
        """The state of lowest energy."""
        return self.states[int(self.energies.argmin())]

    def __repr__(self) -> str:
        return f"Optimum({len(self.energies)} reads, best energy {self.energies.min():.6g})"


def anneal(
    landscape: Landscape,
    *,
    num_reads: int = 16,
    num_sweeps: int = 1000,
    seed: int,
    num_threads: int | None = None,
) -> Optimum:
    """Simulated annealing of a landscape.

    Args:
        landscape: any.
        num_reads: independent runs.
        num_sweeps: passes over the variables in a run.
        seed: the same seed gives the same answer, for any number of threads.
        num_threads: by default one a processor where that pays.

    Example:
        >>> from annealsubnet.landscapes import random_landscape, solve_ring
        >>> land = random_landscape(24, 3, seed=0)
        >>> round(float(anneal(land, seed=0).energies.min() - solve_ring(land)[1]), 9)
        0.0
    """
    count, members = landscape.windows.shape
    flat = landscape.windows.ravel()
    order = np.argsort(flat, kind="stable")
    starts = np.concatenate([[0], np.cumsum(np.bincount(flat, minlength=landscape.num_variables))])
    holders, bits = order // members, order % members
    tables = np.ascontiguousarray(landscape.tables, dtype=np.float64)
    spread = tables.std(axis=1)
    hot = max(float(np.sqrt((spread**2).sum() * members / max(count, 1))), 1e-12) * 2
    # A local optimum is left by about one step of a table's grid: a thousandth of the hot end is cold for windows of eight.
    temperatures = hot * np.geomspace(1.0, 5e-3, max(num_sweeps, 1))[: max(num_sweeps, 0)]
    states = np.zeros((num_reads, landscape.num_variables), np.bool_)
    energies = np.zeros(num_reads)
    keys = keys_for(seed, num_reads)

    def kernel(begin: int, end: int, stop: np.ndarray) -> None:
        _anneal_reads(tables, landscape.windows, starts, holders, bits, temperatures, keys, begin, end, states)

    proposals = float(landscape.num_variables) * num_reads * num_sweeps * members
    run_reads(kernel, num_reads, num_threads=num_threads, proposals=proposals, stops=Stops())
    energies[:] = landscape.energy(states)
    return Optimum(states, energies)


@njit(**OPTIONS)
def _change(tables, codes, starts, holders, bits, i):
    """Energy change of a flip."""
    total = 0.0
    for entry in range(starts[i], starts[i + 1]):
        window = holders[entry]
        code = codes[window]
        total += tables[window, code ^ (1 << bits[entry])] - tables[window, code]
    return total


@njit(**OPTIONS)
def _flip(codes, starts, holders, bits, i):
    for entry in range(starts[i], starts[i + 1]):
        codes[holders[entry]] ^= 1 << bits[entry]


@njit(**OPTIONS)
def _anneal_reads(tables, windows, starts, holders, bits, temperatures, keys, begin, end, out):
    size = starts.size - 1
    state, best = np.zeros(size, np.bool_), np.zeros(size, np.bool_)
    codes = np.zeros(windows.shape[0], np.int64)
    for read in range(begin, end):
        stream = keys[read]
        for i in range(size):
            state[i] = mixed(stream + np.uint64(i + 1) * _GOLDEN) >> np.uint64(63) == 0
        stream = mixed(stream)
        for window in range(windows.shape[0]):
            codes[window] = 0
            for bit in range(windows.shape[1]):
                if state[windows[window, bit]]:
                    codes[window] |= 1 << bit
        energy, lowest = 0.0, 0.0
        best[:] = state
        counter = np.uint64(0)
        for step in range(temperatures.size + 1000):
            cooling = step < temperatures.size
            if step == temperatures.size and lowest < energy:
                for i in range(size):
                    if state[i] != best[i]:
                        _flip(codes, starts, holders, bits, i)
                        state[i] = best[i]
                energy = lowest
            flips = 0
            for i in range(size):
                counter += np.uint64(1)
                change = _change(tables, codes, starts, holders, bits, i)
                accept = change < -1e-12
                if cooling and change >= 0.0 and change < 36.0 * temperatures[step]:
                    uniform = np.float64(mixed(stream + counter * _GOLDEN) >> np.uint64(11)) * _UNIT
                    accept = uniform < np.exp(-change / temperatures[step])
                if accept:
                    if change > 0.0 and energy < lowest:
                        lowest = energy
                        best[:] = state
                    flips += 1
                    state[i] = not state[i]
                    _flip(codes, starts, holders, bits, i)
                    energy += change
            if flips == 0 and not cooling:
                break
        out[read] = state
