"""Tabu search from where a read ended: the best flip of all, even uphill, but none of the last few flips again.

In each step the variable i whose flip changes the energy least, s_i f_i, is flipped, and may not be flipped back for
n / 100 + 10 steps (n / 4 if that is less) and up to ten more by chance, unless that leads below the lowest energy seen.
A walk leaves the local minimum where a descent stops and looks at those around it, which a cold annealer no longer
reaches; it ends when it has found nothing lower for a given number of sweeps (n steps each).

References:
    G. Palubeckis, "Multistart tabu search strategies for the unconstrained binary quadratic optimization problem",
    Annals of Operations Research 131 (2004).
    Z. Lü, F. Glover, J.-K. Hao, "A hybrid metaheuristic approach to solving the UBQP problem", European Journal of
    Operational Research 207 (2010), section 2.3 (the tenure).
"""

# Numba infers types; annotations would only repeat them.
# mypy: disable-error-code="no-untyped-def, call-arg, var-annotated"

import numpy as np
from numba import njit

from annealsubnet.solvers.couplings import INNER, OPTIONS, add_coupling_row, copy_into, refresh_fields
from annealsubnet.solvers.reads import REFRESH, empty_state
from annealsubnet.solvers.sweeps import mixed
from annealsubnet.solvers.vectors import LANES, least_change

_STEPS = np.uint64(0xA0761D6478BD642F)
_ROUNDING = 1e-6
# Steps between looks at whether another thread asks to stop.
_LOOK = 256


@njit(**INNER)
def walk(model, num_steps, key, target, stop, index, state, until, changes, places):
    """Walk until `num_steps` steps brought nothing better; the state left behind is the best. Returns (steps, energy)."""
    linear, couplings = model[0], model[1]
    fields, signs, best_signs = state[0], state[1], state[2]
    energy = refresh_fields(linear, couplings, signs, fields)
    best_energy, best_step, step = energy, 0, 0
    # So short that never all flips are forbidden.
    tenure, spread = min(10 + linear.size // 100, linear.size // 4), min(10, linear.size // 4 + 1)
    improved = False
    copy_into(signs, best_signs)
    for i in range(until.size):
        until[i] = 0
    while step - best_step < num_steps and best_energy > target and (step % _LOOK != 0 or stop[0] >= index):
        step += 1
        # Rounding errors must not make the lowest state look lower than itself, or the walk turns around it.
        limit = best_energy - energy - _ROUNDING * abs(best_energy)
        least_change(fields, signs, until, np.int32(step), np.float32(limit), changes, places)
        lane = 0
        for other in range(1, LANES):
            lane = other if changes[other] < changes[lane] else lane
        change = changes[lane]
        if improved and energy + change >= best_energy:
            copy_into(signs, best_signs)
            improved = False
        i = places[lane] + lane
        sign = signs[i]
        energy += change
        signs[i] = -sign
        add_coupling_row(couplings, i, sign, fields)
        until[i] = step + tenure + np.int64(mixed(key + np.uint64(step) * _STEPS) >> np.uint64(32)) % spread
        if change < limit:
            best_energy, best_step, improved = energy, step, True
        if step % (REFRESH * linear.size) == 0:
            energy = refresh_fields(linear, couplings, signs, fields)
    if not improved:
        copy_into(best_signs, signs)
    return step, refresh_fields(linear, couplings, signs, fields)


@njit(**OPTIONS)
def walk_reads(model, num_steps, keys, target, stop, states, begin, end, counts):
    """Walk on from the states of the reads `begin` to `end`; the arguments are those of `reads.anneal_reads`."""
    linear = model[0]
    state = empty_state(model[3].size)
    signs = state[1]
    until = np.zeros(model[3].size, np.int32)
    changes, places = np.zeros(LANES, np.float32), np.zeros(LANES, np.int32)
    for read in range(begin, end):
        if stop[0] < read:
            break
        for i in range(linear.size):
            signs[i] = 1.0 - 2.0 * states[read, i]
        steps, energy = walk(model, num_steps, keys[read], target, stop, read, state, until, changes, places)
        for i in range(linear.size):
            states[read, i] = signs[i] < 0
        counts[read, 4] = steps
        if energy <= target:
            counts[read, 2] = 1
            if read < stop[0]:
                stop[0] = read
