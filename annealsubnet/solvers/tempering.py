"""Parallel tempering: replicas of one problem at fixed temperatures, exchanged between neighbors in temperature.

After every sweep neighbors k and k + 1 swap temperatures with probability min(1, exp((β_k - β_k+1)(E_k - E_k+1))), which
leaves the product of their Boltzmann distributions invariant; a state stuck in the cold is carried back into the heat.

References:
    K. Hukushima, K. Nemoto, "Exchange Monte Carlo method and application to spin glass simulations", J. Phys. Soc. Jpn.
    65 (1996).
"""

# Numba infers types; annotations would only repeat them.
# mypy: disable-error-code="no-untyped-def, call-arg, var-annotated"

import numpy as np
from numba import njit

from annealsubnet.solvers.couplings import INNER, OPTIONS, copy_into, refresh_fields
from annealsubnet.solvers.reads import FAR, REFRESH, empty_state
from annealsubnet.solvers.sweeps import descend, exchange_sweep, flip_sweep, mixed, sweep_keys

_SWAPS = np.uint64(0xD1B54A32D192ED03)
_UNIT = 2.0**-53


@njit(**INNER)
def swap_neighbors(holders, energies, temperatures, key, sweep):
    """Propose to swap every second pair of neighbors; `holders[k]` is the replica at temperature k."""
    for k in range(sweep % 2, temperatures.size - 1, 2):
        one, other = holders[k], holders[k + 1]
        gap = 1.0 / np.float64(temperatures[k]) - 1.0 / np.float64(temperatures[k + 1])
        bits = mixed(key ^ (np.uint64(sweep * temperatures.size + k + 1) * _SWAPS))
        if np.log((np.float64(bits >> np.uint64(11)) + 0.5) * _UNIT) < gap * (energies[one] - energies[other]):
            holders[k], holders[k + 1] = other, one


@njit(**INNER)
def temper_read(model, moves, temperatures, num_sweeps, key, keep_best, target, stop, index, fields, signs, shared):
    """Temper the replicas in `signs`; the state left in `shared` is the best seen, or that of the coldest replica.

    Returns (sweeps of all replicas, moves accepted, energy).
    """
    linear, couplings = model[0], model[1]
    replicas = temperatures.size
    energies = np.zeros(replicas)
    holders = np.zeros(replicas, np.int64)
    since_refresh = np.zeros(replicas, np.int64)
    best_signs = shared[2]
    copy_into(signs[0], best_signs)
    for replica in range(replicas):
        holders[replica] = replica
        energies[replica] = refresh_fields(linear, couplings, signs[replica], fields[replica])
    best_energy = energies[0] if keep_best else -np.inf
    done, accepted = 0, 0
    for sweep in range(num_sweeps):
        if stop[0] < index or (keep_best and best_energy <= target):
            break
        for level in range(replicas):
            replica = holders[level]
            state = (fields[replica], signs[replica], best_signs, shared[3], shared[4], shared[5])
            keys = sweep_keys(key, sweep * replicas + level)
            energy, flipped, exchanged = energies[replica], 0, 0
            if moves[0]:
                energy, best_energy, flipped = flip_sweep(model, temperatures[level], keys, state, energy, best_energy)
            if moves[1]:
                energy, best_energy, exchanged = exchange_sweep(
                    model, temperatures[level], keys, state, energy, best_energy, not moves[1]
                )
            accepted += flipped + exchanged
            since_refresh[replica] += flipped + exchanged
            if since_refresh[replica] > REFRESH * linear.size:
                energy = refresh_fields(linear, couplings, signs[replica], fields[replica])
                since_refresh[replica] = 0
            if energy < best_energy:
                best_energy = energy
                copy_into(signs[replica], best_signs)
            energies[replica] = energy
            done += 1
        swap_neighbors(holders, energies, temperatures, key, sweep)
    coldest = holders[replicas - 1]
    if not keep_best:
        copy_into(signs[coldest], shared[1])
        return done, accepted, energies[coldest]
    copy_into(best_signs, shared[1])
    return done, accepted, descend(model, moves, shared)


@njit(**OPTIONS)
def temper_reads(model, moves, temperatures, num_sweeps, keys, keep_best, target, stop, states, begin, end, counts):
    """Temper the reads `begin` to `end`, each with a replica for every temperature; else as `reads.anneal_reads`."""
    size, stride = model[0].size, model[3].size
    shared = empty_state(stride)
    fields = np.empty((temperatures.size, stride), np.float32)
    signs = np.empty((temperatures.size, stride), np.float32)
    for replica in range(temperatures.size):
        for i in range(stride):
            fields[replica, i], signs[replica, i] = FAR, 1.0
    for read in range(begin, end):
        if stop[0] < read:
            break
        for replica in range(temperatures.size):
            for i in range(size):
                signs[replica, i] = 1.0 - 2.0 * states[read, i]
        done, accepted, energy = temper_read(
            model, moves, temperatures, num_sweeps, keys[read], keep_best, target, stop, read, fields, signs, shared
        )
        for i in range(size):
            states[read, i] = shared[1][i] < 0
        counts[read, 0], counts[read, 1], counts[read, 3] = done, accepted, 1
        if energy <= target:
            counts[read, 2] = 1
            stop[0] = min(stop[0], read)
