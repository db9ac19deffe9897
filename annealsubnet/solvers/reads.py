"""Whole reads: a state is annealed through a schedule of temperatures, its best state kept and descended from.

A model is the tuple (linear, couplings, free, groups, blocks): float32 linear biases; couplings as in
`solvers.couplings`; a 16-bit mask for each block of sixteen variables of those that may flip; the group of each
variable (-1: none, -2: padding); and, for each variable, the first block of its group and how many there are.
`moves` says whether there are any variables to flip and any to exchange.
"""

# Numba infers types; annotations would only repeat them.
# mypy: disable-error-code="no-untyped-def, call-arg, var-annotated"

import numpy as np
from numba import njit

from annealsubnet.solvers.couplings import INNER, OPTIONS, copy_into, refresh_fields
from annealsubnet.solvers.sweeps import descend, exchange_sweep, flip_sweep, sweep_keys
from annealsubnet.solvers.vectors import LANES

# Rounding errors of incremental float32 fields grow with the square root of the number of flips; recomputing the
# fields after this many flips a variable costs one part in 64.
REFRESH = 64
FAR = np.float32(3e38)


@njit(**INNER)
def empty_state(stride):
    """Working arrays of one read: fields, signs, best signs, limits, cuts, a row of zeros."""
    fields, signs, best_signs = np.empty(stride, np.float32), np.empty(stride, np.float32), np.empty(stride, np.float32)
    for i in range(stride):
        fields[i], signs[i], best_signs[i] = FAR, 1.0, 1.0
    limits = np.zeros(LANES, np.float32)
    cuts = np.zeros(LANES, np.float32)
    return fields, signs, best_signs, limits, cuts, np.zeros(stride, np.float32)


@njit(**INNER)
def anneal_read(model, moves, temperatures, key, keep_best, target, stop, index, state):
    """Anneal the state in `state`; returns (sweeps done, moves accepted, lowest energy seen).

    `stop[0]` below `index` ends the read early. With `keep_best` the state left behind is the best one seen, after a
    descent; else the last one.
    """
    linear, couplings = model[0], model[1]
    fields, signs, best_signs = state[0], state[1], state[2]
    energy = refresh_fields(linear, couplings, signs, fields)
    best_energy = energy if keep_best else -np.inf
    copy_into(signs, best_signs)
    done, accepted, since_refresh = 0, 0, 0
    for sweep in range(temperatures.size):
        if stop[0] < index:
            break
        temperature = temperatures[sweep]
        keys = sweep_keys(key, sweep)
        flipped, exchanged = 0, 0
        if moves[0]:
            energy, best_energy, flipped = flip_sweep(model, temperature, keys, state, energy, best_energy)
        if moves[1]:
            energy, best_energy, exchanged = exchange_sweep(model, temperature, keys, state, energy, best_energy, not moves[1])
        done += 1
        accepted += flipped + exchanged
        since_refresh += flipped + exchanged
        if since_refresh > REFRESH * linear.size:
            energy = refresh_fields(linear, couplings, signs, fields)
            since_refresh = 0
        if min(energy, best_energy if keep_best else energy) <= target:
            break
        if temperature == 0.0 and flipped + exchanged == 0:
            break
    if keep_best:
        if best_energy < energy:
            copy_into(best_signs, signs)
        energy = descend(model, moves, state)
    return done, accepted, energy


@njit(**OPTIONS)
def anneal_reads(model, moves, temperatures, keys, keep_best, target, stop, states, begin, end, counts):
    """Anneal the reads `begin` to `end` in place.

    Args:
        model: see the module.
        moves: (flips, exchanges) as booleans.
        temperatures: one a sweep, float32.
        keys: one a read, uint64.
        keep_best: whether reads end in their best state seen (and a descent from it) or in their last.
        target: energy at which a read stops.
        stop: `stop[0]` is the index of the read after which none is needed; -1 stops all.
        states: 0 or 1, `[read, variable]`, overwritten.
        begin: first read.
        end: one past the last read.
        counts: `[read]`: sweeps done, moves accepted, whether the target was met, whether it began, and steps of tabu
            search; overwritten.
    """
    linear = model[0]
    stride = model[3].size
    state = empty_state(stride)
    signs = state[1]
    for read in range(begin, end):
        if stop[0] < read:
            break
        for i in range(linear.size):
            signs[i] = 1.0 - 2.0 * states[read, i]
        done, accepted, energy = anneal_read(model, moves, temperatures, keys[read], keep_best, target, stop, read, state)
        for i in range(linear.size):
            states[read, i] = signs[i] < 0
        counts[read, 0] = done
        counts[read, 1] = accepted
        counts[read, 3] = 1
        if energy <= target:
            counts[read, 2] = 1
            if read < stop[0]:
                stop[0] = read
