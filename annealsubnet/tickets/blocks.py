"""Blocks: all neurons of a layer anneal their own fan-in, each with the curvature of its own block.

A neuron with weights w over inputs of second moment H has the Gauss-Newton block h̄ w wᵀ ∘ H in the gates of its fan-in. With
c = √h̄ w, or whatever else it is scaled to,

    E(x) = −Σ_i f_i x_i + ½ (x − m)ᵀ (c cᵀ ∘ H) (x − m)

and the same H serves a whole layer. Starting from x = m, a flip i costs O(d) to bring u = G (x − m) up to date and a proposal
costs O(1), so a sweep in which few units flip is nearly free; no d × d matrix is written for a neuron.
"""

# Numba infers types; annotations would only repeat them.
# mypy: disable-error-code="no-untyped-def, call-arg"

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np
from jaxtyping import Bool, Float
from numba import njit

from annealsubnet.solvers.couplings import OPTIONS
from annealsubnet.solvers.running import default_num_threads
from annealsubnet.solvers.sweeps import mixed

_GOLDEN = np.uint64(0x9E3779B97F4A7C15)
_UNIT = 2.0**-53


def anneal_blocks(
    fields: Float[np.ndarray, "neurons inputs"],
    scales: Float[np.ndarray, "neurons inputs"],
    moment: Float[np.ndarray, "inputs inputs"],
    mask: Bool[np.ndarray, "neurons inputs"],
    *,
    temperature: float,
    num_sweeps: int,
    seed: int | Sequence[int],
    cooled: bool = False,
    num_threads: int | None = None,
) -> Bool[np.ndarray, "neurons inputs"]:
    """Heat-bath sweeps of every neuron's block from its present mask.

    Args:
        fields: f, the score less the price of each unit.
        scales: c of every neuron.
        moment: H of the layer's inputs.
        mask: m, where the quadratic model was taken.
        temperature: in units of the energy; 0 descends.
        num_sweeps: passes over the fan-in.
        seed: the same seed gives the same masks, for any number of threads.
        cooled: whether the temperature falls to zero by four fifths of the sweeps, instead of staying.
        num_threads: by default one a processor.

    Returns:
        The new mask.
    """
    arrays = (
        np.ascontiguousarray(fields, dtype=np.float32),
        np.ascontiguousarray(scales, dtype=np.float32),
        np.ascontiguousarray(moment, dtype=np.float32),
        np.ascontiguousarray(mask),
        np.array(mask, dtype=np.bool_, order="C"),
    )
    key = np.random.SeedSequence(seed).generate_state(1, np.uint64)[0]
    threads = default_num_threads() if num_threads is None else num_threads
    edges = np.linspace(0, len(fields), 4 * threads + 1 if threads > 1 else 2).astype(int)
    with ThreadPoolExecutor(threads) as pool:
        spans = zip(edges[:-1].tolist(), edges[1:].tolist(), strict=True)
        list(pool.map(lambda span: _sweep(*arrays, temperature, num_sweeps, cooled, key, *span), spans))
    return arrays[4]


def scaled_to_one(weights: np.ndarray, moment: np.ndarray) -> np.ndarray:
    """c of each neuron so that the diagonal of its block has a mean of one: w_i / √(mean_k w_k² H_kk)."""
    diagonal = np.diag(moment).astype(np.float64)
    return weights / np.sqrt(np.maximum((weights**2 * diagonal).mean(axis=1, keepdims=True), 1e-30))


def block_energy(fields: np.ndarray, scales: np.ndarray, moment: np.ndarray, mask: np.ndarray, state: np.ndarray) -> np.ndarray:
    """E of each neuron's state, from the definition, in float64."""
    change = scales * (state.astype(np.float64) - mask)
    return -(fields * state).sum(axis=1) + 0.5 * np.einsum("ni,ij,nj->n", change, moment, change)


@njit(**OPTIONS)
def _sweep(fields, scales, moment, mask, state, first_temperature, num_sweeps, cooled, key, begin, end):
    size = fields.shape[1]
    pull = np.zeros(size, np.float32)
    for neuron in range(begin, end):
        pull[:] = 0.0
        stream = mixed(key + np.uint64(neuron + 1) * _GOLDEN)
        for sweep in range(num_sweeps):
            flips = 0
            temperature = first_temperature * (max(0.0, 1.0 - 1.25 * sweep / num_sweeps) if cooled else 1.0)
            for i in range(size):
                sign = np.float32(-1.0 if state[neuron, i] else 1.0)
                scale = scales[neuron, i]
                change = -sign * fields[neuron, i] + sign * scale * pull[i] + 0.5 * scale * scale * moment[i, i]
                accept = change < 0.0
                if temperature > 0.0 and abs(change) < 36.0 * temperature:
                    uniform = np.float64(mixed(stream + np.uint64(sweep * size + i)) >> np.uint64(11)) * _UNIT
                    accept = uniform * (1.0 + np.exp(change / temperature)) < 1.0
                if accept:
                    flips += 1
                    state[neuron, i] = not state[neuron, i]
                    step = sign * scale
                    for j in range(size):
                        pull[j] += step * moment[i, j]
            if flips == 0 and temperature <= 0.0:
                break
