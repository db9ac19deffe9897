"""Compiled moves of landscapes: a block drawn from its Boltzmann distribution given the rest, and single flips.

Forward, a variable v of a block with bag c is eliminated by adding its factors, J(x_c, x_v), and leaving the message

    m(x_c) = −T log Σ_{x_v} exp(−J(x_c, x_v) / T),        at T = 0 the smaller of both;

backward, in reverse order, x_v = 1 with probability 1 / (1 + exp((J(x_c, 1) − J(x_c, 0)) / T)). The result is an exact draw
from the conditional distribution whatever the state before, so any block, of any size, satisfies detailed balance.

References:
    F. Hamze, N. de Freitas, From fields to trees, UAI 2004, section 3.
"""

# Numba infers types; annotations would only repeat them.
# mypy: disable-error-code="no-untyped-def, call-arg"

import numpy as np
from numba import njit

from annealsubnet.solvers.couplings import INNER, OPTIONS
from annealsubnet.solvers.sweeps import mixed

_GOLDEN = np.uint64(0x9E3779B97F4A7C15)
_UNIT = 2.0**-53
# Beyond this many temperatures the less likely value has a share below 1e-15.
_FAR = 36.0
# Differences of energies below this are rounding, where tables differ by as much as one.
_SAME = 1e-12


@njit(**INNER)
def random_start(land, stream, state, codes):
    """A uniformly random state and the setting of every window."""
    windows = land[1]
    for i in range(state.size):
        state[i] = mixed(stream + np.uint64(i + 1) * _GOLDEN) >> np.uint64(63) == 0
    for window in range(windows.shape[0]):
        codes[window] = 0
        for bit in range(windows.shape[1]):
            if state[windows[window, bit]]:
                codes[window] |= 1 << bit


@njit(**INNER)
def energy_of(land, codes):
    """Sum of all tables at their settings."""
    total = 0.0
    for window in range(codes.size):
        total += land[0][window, codes[window]]
    return total


@njit(**INNER)
def flip(land, state, codes, i):
    """Flip one variable."""
    _, _, starts, holders, bits = land
    state[i] = not state[i]
    for entry in range(starts[i], starts[i + 1]):
        codes[holders[entry]] ^= 1 << bits[entry]


@njit(**INNER)
def flip_sweep(land, temperature, stream, state, codes, energy, best, best_energy):
    """Metropolis flips of all variables in turn; returns (energy, best energy, flips)."""
    tables, _, starts, holders, bits = land
    flips = 0
    for i in range(state.size):
        change = 0.0
        for entry in range(starts[i], starts[i + 1]):
            window = holders[entry]
            code = codes[window]
            change += tables[window, code ^ (1 << bits[entry])] - tables[window, code]
        accept = change < -_SAME
        if not accept and change < _FAR * temperature:
            uniform = np.float64(mixed(stream + np.uint64(i + 1) * _GOLDEN) >> np.uint64(11)) * _UNIT
            accept = uniform < np.exp(-change / temperature)
        if accept:
            if change > 0.0 and energy < best_energy:
                best_energy = energy
                best[:] = state
            flip(land, state, codes, i)
            energy += change
            flips += 1
    return energy, best_energy, flips


@njit(**INNER)
def _eliminate(land, plan, step, temperature, codes, work):
    """Add up the factors of a step, and leave its message and the differences of its values."""
    _, _, bags, _, messages, factors, sources, inside, places, shifts = plan
    joint, places_read, gaps, sent = work
    half = 1 << (bags[step + 1] - bags[step])
    joint[: 2 * half] = 0.0
    for factor in range(factors[step], factors[step + 1]):
        source = sources[factor]
        base = codes[source] & ~inside[factor] if source >= 0 else -1 - source
        place = places[factor]
        places_read[0] = base
        size = 1
        while size < 2 * half:
            shift = shifts[place]
            for entry in range(size):
                places_read[size + entry] = places_read[entry] + shift
            size *= 2
            place += 1
        if source >= 0:
            for entry in range(size):
                joint[entry] += land[0][source, places_read[entry]]
        else:
            for entry in range(size):
                joint[entry] += sent[places_read[entry]]
    begin = messages[step]
    for entry in range(half):
        gap = joint[half + entry] - joint[entry]
        value = min(joint[entry], joint[half + entry])
        if abs(gap) < _FAR * temperature:
            value -= temperature * np.log1p(np.exp(-abs(gap) / temperature))
        gaps[begin + entry] = gap
        sent[begin + entry] = value


@njit(**INNER)
def draw_block(land, plan, block, temperature, stream, state, codes, work):
    """Draw the variables of a block given all others; at temperature zero, set them to their best values.

    Args:
        land: (tables, windows, and for each variable, as compressed rows, the windows that hold it and its bits there).
        plan: the arrays of `Blocks`, in order.
        block: which one.
        temperature: in units of energy.
        stream: key of the random numbers.
        state: changed.
        codes: setting of every window; changed.
        work: (joint table, places read, differences, messages), as long as the longest need.
    """
    starts, variables, bags, members, messages = plan[0], plan[1], plan[2], plan[3], plan[4]
    gaps = work[2]
    for step in range(starts[block], starts[block + 1]):
        _eliminate(land, plan, step, temperature, codes, work)
    for step in range(starts[block + 1] - 1, starts[block] - 1, -1):
        entry = messages[step]
        for bit in range(bags[step + 1] - bags[step]):
            if state[members[bags[step] + bit]]:
                entry += 1 << bit
        gap, variable = gaps[entry], variables[step]
        if abs(gap) >= _FAR * temperature:
            wanted = state[variable] if abs(gap) <= _SAME else gap < 0.0
        else:
            uniform = np.float64(mixed(stream + np.uint64(step + 1) * _GOLDEN) >> np.uint64(11)) * _UNIT
            wanted = uniform * (1.0 + np.exp(gap / temperature)) < 1.0
        if wanted != state[variable]:
            flip(land, state, codes, variable)


@njit(**INNER)
def descend(land, plan, by_blocks, state, codes, best, work):
    """Moves at temperature zero until none of them lowers the energy; returns it."""
    energy = energy_of(land, codes)
    while True:
        if by_blocks:
            for block in range(plan[0].size - 1):
                draw_block(land, plan, block, 0.0, np.uint64(0), state, codes, work)
        else:
            flip_sweep(land, 0.0, np.uint64(0), state, codes, energy, best, -np.inf)
        fresh = energy_of(land, codes)
        if fresh >= energy - _SAME:
            return fresh
        energy = fresh


@njit(**OPTIONS)
def anneal_reads(land, plan, by_blocks, temperatures, keep_best, keys, begin, end, states):
    """Anneal the reads `begin` to `end`; `states` of random starts, `[read, variable]`, are written.

    A step is a block, drawn at random, or a sweep of flips; `temperatures` has one for each.
    """
    size = land[2].size - 1
    state, best = np.zeros(size, np.bool_), np.zeros(size, np.bool_)
    codes = np.zeros(land[1].shape[0], np.int64)
    longest, widest = 1, 0
    for step in range(plan[1].size):
        widest = max(widest, plan[2][step + 1] - plan[2][step])
        longest = max(longest, plan[4][step] + (1 << (plan[2][step + 1] - plan[2][step])))
    work = (np.zeros(2 << widest), np.zeros(2 << widest, np.int64), np.zeros(longest), np.zeros(longest))
    for read in range(begin, end):
        # Streams of the start and of each step are hashes of different numbers, so that none of theirs is used twice.
        random_start(land, mixed(keys[read]), state, codes)
        energy = energy_of(land, codes)
        best_energy = energy
        best[:] = state
        for step in range(temperatures.size):
            stream = mixed(keys[read] + np.uint64(step + 1) * _GOLDEN)
            if by_blocks:
                block = np.int64((stream >> np.uint64(32)) * np.uint64(plan[0].size - 1) >> np.uint64(32))
                draw_block(land, plan, block, temperatures[step], stream, state, codes, work)
                energy = energy_of(land, codes)
                if energy < best_energy:
                    best_energy = energy
                    best[:] = state
            else:
                moved = flip_sweep(land, temperatures[step], stream, state, codes, energy, best, best_energy)
                energy, best_energy = moved[0], moved[1]
        if keep_best:
            if best_energy < energy:
                for i in range(size):
                    if state[i] != best[i]:
                        flip(land, state, codes, i)
            descend(land, plan, by_blocks, state, codes, best, work)
        states[read] = state
