"""Annealing of sparse problems by flips: one variable at a time, in sixteen reads at once.

A sparse row is too short for vectors, but sixteen reads visit the same variables in the same order. Their fields of one
variable lie side by side, their states are the bits of one 16-bit word, and a coupling is added to the fields of all
reads that flipped by one vector instruction. No branch depends on a single read. Each read makes the same moves as it
would alone (`solvers.sweeps`); only its best state is looked for at the end of each sweep instead of within it.
"""

# Numba infers types; annotations would only repeat them.
# mypy: disable-error-code="no-untyped-def, call-arg, var-annotated"

import numpy as np
from numba import njit

from annealsubnet.solvers.couplings import INNER, OPTIONS
from annealsubnet.solvers.reads import REFRESH, empty_state
from annealsubnet.solvers.sweeps import descend_by_flips, sweep_keys
from annealsubnet.solvers.vectors import CUT, LANES, add_to_lanes, flip_lanes, lanes_below


@njit(**INNER)
def lane_fields(linear, couplings, states, fields, changes):
    """Recompute the fields of sixteen reads from their states; returns their energies."""
    starts, columns, values = couplings
    energies = np.zeros(LANES)
    for i in range(linear.size):
        for lane in range(LANES):
            fields[i * LANES + lane] = linear[i]
    for i in range(linear.size):
        bits = np.int64(states[i])
        if bits != 0:
            for lane in range(LANES):
                changes[lane] = (bits >> lane) & 1
            add_to_lanes(fields, columns, values, starts[i], starts[i + 1], changes)
    for i in range(linear.size):
        bits = np.int64(states[i])
        for lane in range(LANES):
            if (bits >> lane) & 1:
                energies[lane] += 0.5 * (np.float64(linear[i]) + np.float64(fields[i * LANES + lane]))
    return energies


@njit(**INNER)
def lane_sweep(couplings, states, fields, keys_a, keys_b, cuts, scales, gains, changes):
    """One Metropolis sweep of sixteen reads; returns the number of flips. Energy changes are added to `gains`."""
    starts, columns, values = couplings
    accepted = 0
    for i in range(states.size):
        if lanes_below(fields, states, i, cuts) == 0:
            continue
        mask = flip_lanes(fields, states, i, keys_a, keys_b, scales, gains, changes)
        if mask != 0:
            add_to_lanes(fields, columns, values, starts[i], starts[i + 1], changes)
            while mask != 0:
                mask &= mask - np.uint32(1)
                accepted += 1
    return accepted


@njit(**INNER)
def keep_lanes(states, best_states, mask):
    """Copy the states of the reads in `mask`."""
    for i in range(states.size):
        best_states[i] = best_states[i] ^ ((best_states[i] ^ states[i]) & mask)


@njit(**INNER)
def anneal_lanes(model, temperatures, keys, keep_best, target, stop, states, best_states, first):
    """Anneal sixteen reads whose states are the bits of `states`; returns (sweeps, flips of all reads)."""
    linear, couplings = model[0], model[1]
    fields = np.empty(linear.size * LANES, np.float32)
    changes, gains = np.zeros(LANES, np.float32), np.zeros(LANES, np.float32)
    cuts, scales = np.zeros(LANES, np.float32), np.zeros(LANES, np.float32)
    keys_a, keys_b = np.zeros(LANES, np.uint32), np.zeros(LANES, np.uint32)
    energies = lane_fields(linear, couplings, states, fields, changes)
    best = np.zeros(LANES)
    for lane in range(LANES):
        best[lane] = energies[lane]
    for i in range(states.size):
        best_states[i] = states[i]
    done, accepted, since_refresh = 0, 0, 0
    for sweep in range(temperatures.size):
        if stop[0] < first:
            break
        for lane in range(LANES):
            scales[lane], cuts[lane] = temperatures[sweep], np.float32(CUT) * temperatures[sweep]
            keys_a[lane], keys_b[lane] = sweep_keys(keys[lane], sweep)
            gains[lane] = 0.0
        flips = lane_sweep(couplings, states, fields, keys_a, keys_b, cuts, scales, gains, changes)
        done += 1
        accepted += flips
        since_refresh += flips
        for lane in range(LANES):
            energies[lane] += gains[lane]
        if since_refresh > REFRESH * LANES * linear.size:
            energies = lane_fields(linear, couplings, states, fields, changes)
            since_refresh = 0
        mask, lowest = 0, np.inf
        for lane in range(LANES):
            if energies[lane] < best[lane]:
                best[lane] = energies[lane]
                mask |= 1 << lane
            lowest = min(lowest, best[lane] if keep_best else energies[lane])
        if keep_best and mask != 0:
            keep_lanes(states, best_states, np.uint16(mask))
        if lowest <= target or (flips == 0 and temperatures[sweep] == 0.0):
            break
    return done, accepted


@njit(**OPTIONS)
def anneal_reads_in_lanes(model, temperatures, keys, keep_best, target, stop, states, begin, end, counts):
    """Anneal the reads `begin` to `end`, sixteen at a time; the arguments are those of `reads.anneal_reads`.

    Reads of one sixteen stop together, when the first of them meets the target. Lanes past the last read repeat it.
    """
    size = model[0].size
    words, best_words = np.zeros(size, np.uint16), np.zeros(size, np.uint16)
    lane_keys = np.zeros(LANES, np.uint64)
    state = empty_state(model[3].size)
    signs = state[1]
    for first in range(begin, end, LANES):
        if stop[0] < first:
            break
        for i in range(size):
            words[i] = 0
        for lane in range(LANES):
            read = min(first + lane, end - 1)
            lane_keys[lane] = keys[read]
            for i in range(size):
                words[i] |= np.uint16(states[read, i]) << np.uint16(lane)
        done, accepted = anneal_lanes(model, temperatures, lane_keys, keep_best, target, stop, words, best_words, first)
        for read in range(first, min(first + LANES, end)):
            bit = np.uint16(read - first)
            source = best_words if keep_best else words
            for i in range(size):
                signs[i] = 1.0 - 2.0 * ((source[i] >> bit) & 1)
            energy = descend_by_flips(model, state) if keep_best else np.inf
            for i in range(size):
                states[read, i] = signs[i] < 0
            counts[read, 0], counts[read, 1], counts[read, 3] = done, accepted // LANES, 1
            if energy <= target:
                counts[read, 2] = 1
                stop[0] = min(stop[0], read)
