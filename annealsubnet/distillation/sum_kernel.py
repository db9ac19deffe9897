"""The sweep of all neurons' sums, compiled: flips of candidates, and of two of one source.

With f = H v − b kept up to date, adding δ to a neuron's source g changes its error by 2 δ f_g + δ² H_gg, in O(1); an accepted
move costs O(sources). Every candidate kept more pays the price; two that change places pay nothing.
"""

# Numba infers types; annotations would only repeat them.
# mypy: disable-error-code="no-untyped-def, call-arg"

import numpy as np
from numba import njit

from annealsubnet.solvers.couplings import INNER, OPTIONS
from annealsubnet.solvers.sweeps import mixed

_GOLDEN = np.uint64(0x9E3779B97F4A7C15)
_UNIT = 2.0**-53
_CUT = 36.0


@njit(**INNER)
def _accepted(change, temperature, bits):
    """Metropolis."""
    if change < 0.0:
        return True
    if change >= _CUT * temperature:
        return False
    return np.float64(bits >> np.uint64(11)) * _UNIT < np.exp(-change / temperature)


@njit(**INNER)
def _add(fields, moment, source, delta):
    """Bring the fields up to date."""
    row = moment[source]
    for g in range(fields.size):
        fields[g] += delta * row[g]


@njit(**OPTIONS)
def sweep_sums(coefficients, starts, moment, state, fields, price, temperature, key, begin, end):
    """One Metropolis sweep of the neurons `begin` to `end`; returns how many weights they keep.

    Args:
        coefficients: `[neurons, candidates]`, float32.
        starts: of each source's candidates.
        moment: H, float32.
        state: `[neurons, candidates]`, changed.
        fields: H v − b of each neuron, changed.
        price: of a kept weight.
        temperature: in units of the error; 0 descends.
        key: of this sweep's random numbers.
        begin, end: neurons.
    """
    kept = 0
    for neuron in range(begin, end):
        own, mine, pull = coefficients[neuron], state[neuron], fields[neuron]
        stream = mixed(key + np.uint64(neuron + 1) * _GOLDEN)
        for source in range(starts.size - 1):
            first, last = starts[source], starts[source + 1]
            curve = moment[source, source]
            for c in range(first, last):
                bits = mixed(stream + np.uint64(2 * c))
                delta = -own[c] if mine[c] else own[c]
                change = delta * (2.0 * pull[source] + delta * curve) + (-price if mine[c] else price)
                if _accepted(change, temperature, bits):
                    mine[c] = not mine[c]
                    _add(pull, moment, source, delta)
                if last - first > 1:
                    bits = mixed(stream + np.uint64(2 * c + 1))
                    other = first + np.int64(mixed(bits) % np.uint64(last - first - 1))
                    other += other >= c
                    delta = (-own[c] if mine[c] else own[c]) + (-own[other] if mine[other] else own[other])
                    more = price * ((-1.0 if mine[c] else 1.0) + (-1.0 if mine[other] else 1.0))
                    if _accepted(delta * (2.0 * pull[source] + delta * curve) + more, temperature, bits):
                        mine[c], mine[other] = not mine[c], not mine[other]
                        _add(pull, moment, source, delta)
        for c in range(mine.size):
            kept += mine[c]
    return kept
