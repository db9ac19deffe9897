"""Thousands of small dense problems: each is scaled, given its own schedule and annealed, all in compiled code.

Problems are packed one behind the other. Neurons of a layer share one matrix H: the couplings of a neuron,
2 c_i c_j H_ij, are written into one working matrix a thread, so a layer takes the memory of H and no more.
"""

# Numba infers types; annotations would only repeat them.
# mypy: disable-error-code="no-untyped-def, call-arg, var-annotated"

import numpy as np
from numba import njit

from annealsubnet.solvers.compiled import HIDING
from annealsubnet.solvers.couplings import INNER, OPTIONS
from annealsubnet.solvers.reads import anneal_read, empty_state
from annealsubnet.solvers.schedules import COLD, HOT
from annealsubnet.solvers.sweeps import mixed
from annealsubnet.solvers.vectors import LANES

_GOLDEN = np.uint64(0x9E3779B97F4A7C15)
_UNIT = 2.0**-53


@njit(**INNER)
def coupling(packed, scales, shared, start, first, size, i, j):
    """Coupling of variables i and j (not equal) of one problem, in float64."""
    if shared:
        return 2.0 * scales[first + i] * scales[first + j] * packed[i * size + j]
    return packed[start + i * size + j]


@njit(**INNER)
def load_problem(packed_linear, packed, scales, shared, start, first, counted, linear, matrix):
    """Write one problem to `linear` and `matrix` (padded rows), divided by a power of two; returns that power.

    If the ones are `counted`, a mean of the linear biases that hides all else is left out (`compiled.centered`).
    """
    size = linear.size
    stride = matrix.size // size
    largest, mean, spread = 0.0, 0.0, 0.0
    own = np.empty(size)
    for i in range(size):
        own[i] = packed_linear[first + i]
        if shared:
            own[i] += scales[first + i] ** 2 * packed[i * size + i]
        mean += own[i] / size
        row_factor = 2.0 * scales[first + i] if shared else 1.0
        for j in range(size):
            value = row_factor * scales[first + j] * packed[i * size + j] if shared else packed[start + i * size + j]
            if i != j:
                largest = max(largest, abs(value))
    for i in range(size):
        spread = max(spread, abs(own[i] - mean))
    hidden = counted and abs(mean) > HIDING * max(spread, largest)
    for i in range(size):
        own[i] -= mean if hidden else 0.0
        largest = max(largest, abs(own[i]))
    scale = 2.0 ** np.floor(np.log2(largest)) if largest > 0 else 1.0
    for i in range(size):
        linear[i] = own[i] / scale
        row_factor = (2.0 * scales[first + i] if shared else 1.0) / scale
        for j in range(size):
            value = scales[first + j] * packed[i * size + j] if shared else packed[start + i * size + j]
            matrix[i * stride + j] = row_factor * value
        matrix[i * stride + i] = 0.0
    return scale


@njit(**INNER)
def grain(linear, matrix, stride):
    """The smallest value if all others are its multiples, by no more than 64; else 0 (`schedules`)."""
    smallest, largest = np.inf, 0.0
    size = linear.size
    for i in range(size):
        for j in range(size):
            value = abs(linear[i] if i == j else matrix[i * stride + j])
            if value > 0:
                smallest = min(smallest, value)
                largest = max(largest, value)
    if largest == 0.0 or largest > 64 * smallest:
        return 0.0
    for i in range(size):
        for j in range(size):
            ratio = abs(linear[i] if i == j else matrix[i * stride + j]) / smallest
            if abs(ratio - np.round(ratio)) > 1e-5:
                return 0.0
    return smallest


@njit(**INNER)
def ranked(values, share):
    """The value below which this share lies, interpolated (as `np.quantile`, which takes four seconds to compile)."""
    place = share * (values.size - 1)
    low = int(place)
    lower, upper = 0.0, 0.0
    for i in range(values.size):
        rank = 0
        for j in range(values.size):
            rank += 1 if values[j] < values[i] or (values[j] == values[i] and j < i) else 0
        lower = values[i] if rank == low else lower
        upper = values[i] if rank == min(low + 1, values.size - 1) else upper
    return lower + (place - low) * (upper - lower)


@njit(**INNER)
def temperature_range(linear, matrix, stride, num_kept):
    """Hot and cold temperature of one dense problem: `schedules.default_beta_range`, compiled."""
    size = linear.size
    share = num_kept / size if num_kept >= 0 else 0.5
    mean, spread, reach = np.zeros(size), np.zeros(size), np.zeros(size)
    for i in range(size):
        total, squares, absolute = 0.0, 0.0, 0.0
        for j in range(size):
            value = np.float64(matrix[i * stride + j])
            total += value
            squares += value * value
            absolute += abs(value)
        if num_kept >= 0:
            squares = max(squares - total * total / max(size - 1, 1), 0.0)
        mean[i] = linear[i] + share * total
        spread[i] = share * (1.0 - share) * squares
        reach[i] = absolute
    if num_kept >= 0:
        price = ranked(mean, share)
        for i in range(size):
            mean[i] -= price
    hot, inverse, count = 0.0, 0.0, 0
    for every in range(2):
        for i in range(size):
            change = np.sqrt(mean[i] ** 2 + spread[i])
            if change > 0 and (every == 1 or abs(mean[i]) <= reach[i]):
                hot = max(hot, change)
                inverse += 1.0 / change
                count += 1
        if count > 0:
            break
    if count == 0:
        return 1.0, 1.0
    hot *= HOT
    cold = COLD * count / inverse
    cold = max(cold, grain(linear, matrix, stride) / np.log(16.0 + count))
    return hot, min(cold, hot / 2)


@njit(**INNER)
def random_state(key, num_kept, signs, size):
    """A uniformly random state, with exactly `num_kept` ones unless that is negative, as signs."""
    remaining = num_kept
    for i in range(size):
        uniform = np.float64(mixed(key + np.uint64(i + 1) * _GOLDEN) >> np.uint64(11)) * _UNIT
        if num_kept < 0:
            one = uniform < 0.5
        else:
            one = uniform * (size - i) < remaining
            remaining -= 1 if one else 0
        signs[i] = -1.0 if one else 1.0


@njit(**INNER)
def model_of(linear, matrix, stride, num_kept):
    """The model of one problem, see `solvers.reads`."""
    size = linear.size
    groups = np.empty(stride, np.int32)
    free = np.zeros(stride // LANES, np.uint32)
    blocks = np.zeros((size, 2), np.int64)
    for i in range(stride):
        groups[i] = -2 if i >= size else -1 if num_kept < 0 else 0
    for i in range(size):
        blocks[i, 1] = stride // LANES
        if num_kept < 0:
            free[i // LANES] |= np.uint32(1) << np.uint32(i % LANES)
    return linear, (matrix,), free, groups, blocks


@njit(**INNER)
def state_energy(packed_linear, packed, scales, shared, start, first, signs, size):
    """Energy of a state in float64, from the values as they were given."""
    energy = 0.0
    for i in range(size):
        if signs[i] < 0:
            energy += packed_linear[first + i]
            if shared:
                energy += scales[first + i] ** 2 * packed[i * size + i]
            for j in range(i):
                if signs[j] < 0:
                    energy += coupling(packed, scales, shared, start, first, size, i, j)
    return energy


@njit(**OPTIONS)
def anneal_problems(
    packed_linear, packed, scales, shared, places, num_kept, ranges, num_sweeps, seed, given, keep_best, begin, end, stop, out
):
    """Anneal the problems `begin` to `end`.

    Args:
        packed_linear: linear biases of all problems, one behind the other.
        packed: couplings of all problems, row by row, or the one shared matrix.
        scales: factors c of all problems if the matrix is shared.
        shared: whether it is.
        places: `[problem]`: number of variables, first linear bias, first coupling.
        num_kept: `[problem]`: how many ones; negative for any number.
        ranges: `[problem]`: hot and cold temperature; not positive for the default.
        num_sweeps: sweeps a read.
        seed: 64-bit key of the whole call.
        given: initial states `[problem, read, variable]`, or an empty array for random ones.
        keep_best: whether to return the best state seen or the last.
        begin: first problem.
        end: one past the last.
        stop: `stop[0]` below zero ends all.
        out: (states `[problem, read, variable]`, energies `[problem, read]`, temperatures used `[problem]`).
    """
    states, energies, used = out
    for problem in range(begin, end):
        size, first, start = places[problem, 0], places[problem, 1], places[problem, 2]
        if size == 0 or stop[0] < 0:
            continue
        stride = (size + LANES - 1) // LANES * LANES
        linear = np.empty(size, np.float32)
        matrix = np.zeros(size * stride, np.float32)
        kept = num_kept[problem]
        scale = load_problem(packed_linear, packed, scales, shared, start, first, kept >= 0, linear, matrix)
        hot, cold = ranges[problem, 0] / scale, ranges[problem, 1] / scale
        if hot < 0:
            hot, cold = temperature_range(linear, matrix, stride, kept)
        used[problem, 0], used[problem, 1] = hot * scale, cold * scale
        temperatures = np.empty(num_sweeps, np.float32)
        for sweep in range(num_sweeps):
            share = sweep / max(num_sweeps - 1, 1)
            temperatures[sweep] = hot * (cold / hot) ** share if cold > 0 else 0.0
        model = model_of(linear, matrix, stride, kept)
        state = empty_state(stride)
        signs = state[1]
        moves = (kept < 0, kept >= 0)
        for read in range(energies.shape[1]):
            key = mixed(seed + np.uint64(problem * energies.shape[1] + read) * _GOLDEN)
            if given.size > 0:
                for i in range(size):
                    signs[i] = -1.0 if given[problem, read, i] else 1.0
            else:
                random_state(~key, kept, signs, size)
            anneal_read(model, moves, temperatures, key, keep_best, -np.inf, stop, 0, state)
            for i in range(size):
                states[problem, read, i] = signs[i] < 0
            energies[problem, read] = state_energy(packed_linear, packed, scales, shared, start, first, signs, size)
