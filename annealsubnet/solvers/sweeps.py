"""Metropolis sweeps, sixteen variables at a time: single flips, and exchanges that keep the count of ones.

For variable i with state x_i, sign s_i = 1 - 2 x_i and field f_i = linear_i + Σ_j C_ij x_j, a flip changes the energy
by s_i f_i, and then every field by s_i C_:i. A sweep of flips visits the variables in order, exactly as a scalar
Metropolis sweep would: sixteen changes are compared with sixteen thresholds at once; the first variable that accepts
is flipped, the fields are brought up to date, and the rest of the sixteen are compared again. So a rejected proposal
costs a sixteenth of a comparison, and what is left is the arithmetic of the accepted ones.

A sweep of exchanges visits every grouped variable a and proposes to exchange it with each of the sixteen variables of
one random block of its group, in order: s_a (f_a - f_b) - C_ab for a pair of which one is 1 and one is 0. Which pairs
are proposed does not depend on the state, and each is accepted by Metropolis' rule, so every sweep leaves the Boltzmann
distribution over the states with these counts invariant.
"""

# Numba infers types; annotations would only repeat them.
# mypy: disable-error-code="no-untyped-def, call-arg, var-annotated"

import numpy as np
from numba import njit

from annealsubnet.solvers.couplings import (
    INNER,
    OPTIONS,
    add_coupling_row,
    close_row,
    copy_into,
    open_row,
    refresh_fields,
    row_source,
)
from annealsubnet.solvers.vectors import CUT, LANES, below, below_each, draw, first_lane, partners_below

_GOLDEN = np.uint64(0x9E3779B97F4A7C15)
_HALF = np.uint64(32)
_ALL = np.uint32(0xFFFF)
_UPPER = np.uint32(0xFFFE)
_EXCHANGE = np.uint32(0x5BD1E995)


@njit(**OPTIONS)
def mixed(value):
    """A 64-bit hash (the finalizer of SplitMix64)."""
    value = (value ^ (value >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    value = (value ^ (value >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return value ^ (value >> np.uint64(31))


@njit(**INNER)
def sweep_keys(key, sweep):
    """Two 32-bit keys for the random numbers of one sweep of the read that has this 64-bit key."""
    bits = mixed(key + np.uint64(sweep + 1) * _GOLDEN)
    return np.uint32(bits), np.uint32(bits >> _HALF)


@njit(**INNER)
def flip_sweep(model, temperature, keys, state, energy, best_energy):
    """Propose a flip of every free variable once; returns (energy, best energy, accepted).

    The best state is written down just before the first uphill move that leaves it.
    """
    couplings, free = model[1], model[2]
    fields, signs, best_signs, limits = state[0], state[1], state[2], state[3]
    cut = np.float32(CUT) * temperature
    accepted = 0
    for at in range(0, fields.size, LANES):
        allowed = free[at // LANES]
        if below(fields, signs, at, cut) & allowed == 0:
            continue
        draw(limits, at, keys[0], keys[1], temperature)
        mask = below_each(fields, signs, at, limits) & allowed
        while mask != 0:
            lane = first_lane(mask)
            i = at + lane
            sign = signs[i]
            change = sign * fields[i]
            if change > 0 and energy < best_energy:
                best_energy = energy
                copy_into(signs, best_signs)
            energy += change
            accepted += 1
            signs[i] = -sign
            add_coupling_row(couplings, i, sign, fields)
            allowed &= _UPPER << np.uint32(lane)
            mask = below_each(fields, signs, at, limits) & allowed
    return energy, best_energy, accepted


@njit(**INNER)
def exchange_sweep(model, temperature, keys, state, energy, best_energy, every_block):
    """Propose to exchange every grouped variable with sixteen others; returns (energy, best energy, accepted).

    With `every_block` each is exchanged with all the others of its group, for a descent that must not miss a pair.
    """
    couplings, groups, blocks = model[1], model[3], model[4]
    fields, signs, best_signs, limits, cuts, scratch = state
    rows = row_source(couplings, scratch)
    for lane in range(LANES):
        cuts[lane] = np.float32(CUT) * temperature
    key = np.uint64(keys[0]) << _HALF | np.uint64(keys[1])
    accepted = 0
    for a in range(model[0].size):
        if groups[a] < 0:
            continue
        first, count = blocks[a, 0], blocks[a, 1]
        if not every_block:
            first += np.int64((mixed(key + np.uint64(a) * _GOLDEN) >> _HALF) * np.uint64(count) >> _HALF)
            count = 1
        row = open_row(couplings, a, scratch)
        for at in range(first * LANES, (first + count) * LANES, LANES):
            mask = partners_below(fields, signs, groups, at, rows, row, a, cuts)
            if mask == 0:
                continue
            draw(limits, a * LANES, keys[0] ^ _EXCHANGE, keys[1], temperature)
            mask = partners_below(fields, signs, groups, at, rows, row, a, limits)
            allowed = _ALL
            while mask != 0:
                lane = first_lane(mask)
                b = at + lane
                sign = signs[a]
                change = sign * (fields[a] - fields[b]) - rows[row + b]
                if change > 0 and energy < best_energy:
                    best_energy = energy
                    copy_into(signs, best_signs)
                energy += change
                accepted += 1
                signs[a] = -sign
                signs[b] = sign
                add_coupling_row(couplings, a, sign, fields)
                add_coupling_row(couplings, b, -sign, fields)
                allowed &= _UPPER << np.uint32(lane)
                mask = partners_below(fields, signs, groups, at, rows, row, a, limits) & allowed
        close_row(couplings, a, scratch)
    return energy, best_energy, accepted


# Passes of a descent after which rounding could keep it going: from there on each must lower the energy, or is the last.
_SURE = 100


@njit(**INNER)
def descend_by_flips(model, state):
    """`descend` where every move is a flip, so that exchanges need not be compiled."""
    lowest, passes, accepted = np.inf, 0, 1
    while accepted > 0:
        energy = refresh_fields(model[0], model[1], state[1], state[0])
        if passes >= _SURE and energy >= lowest:
            break
        lowest, passes = energy, passes + 1
        energy, _, accepted = flip_sweep(model, np.float32(0.0), (np.uint32(0), np.uint32(0)), state, energy, -np.inf)
    return energy


@njit(**INNER)
def descend(model, moves, state):
    """Flips and exchanges at temperature zero until none lowers the energy; fields are recomputed before each pass."""
    keys = (np.uint32(0), np.uint32(0))
    zero = np.float32(0.0)
    lowest, passes, accepted = np.inf, 0, 1
    while accepted > 0:
        energy = refresh_fields(model[0], model[1], state[1], state[0])
        if passes >= _SURE and energy >= lowest:
            break
        lowest, passes, accepted = energy, passes + 1, 0
        if moves[0]:
            energy, _, accepted = flip_sweep(model, zero, keys, state, energy, -np.inf)
        if moves[1]:
            # moves[1] is true here; a constant would compile the sweep a second time.
            energy, _, exchanged = exchange_sweep(model, zero, keys, state, energy, -np.inf, moves[1])
            accepted += exchanged
    return energy
