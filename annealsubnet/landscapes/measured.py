"""Measured landscapes: the loss of a network in all settings of small windows of its neurons.

For window w the loss is measured for all 2^{K+1} settings of its neurons' gates, the others at the present mask m. Whole-loss
tables must not be added up: a flip that stands in K + 1 windows would count K + 1 times. So each table becomes a polynomial in
the flips δ_i = x_i ⊕ m_i, each coefficient the mean over the windows that contain it, and goes to one of them:

    L(m ⊕ δ) ≈ Σ_S c̄_S Π_{i ∈ S} δ_i

It is exact within a window wherever all windows agree, and coefficients of flips far apart are absent.
"""

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from annealsubnet.arguments import check_states
from annealsubnet.batches import Batches, first_inputs
from annealsubnet.landscapes.landscape import Landscape, mobius, zeta
from annealsubnet.losses import Loss, cross_entropy
from annealsubnet.masks import Mask
from annealsubnet.networks import Network, as_network
from annealsubnet.statistics.passes import backward_chunk, labeled_for
from annealsubnet.statistics.streams import as_wide, chunks

_LANES = 256
"""Most settings whose networks are evaluated at once."""


def measure_landscape(
    model: Any,
    batches: Batches,
    windows: Any,
    *,
    site: str,
    mask: Mask | Mapping[str, Any] | None = None,
    loss: Loss = cross_entropy,
) -> Landscape:
    """The loss as a landscape over the neurons of one site.

    Args:
        model: anything with layers; not changed.
        batches: of (inputs, labels); every setting is measured on all of them.
        windows: `[windows, members]` neurons of the site, whole numbers.
        site: whose neurons are the variables.
        mask: where the gates stand: of neurons or heads, or arrays `[units]` by site; all open where it says nothing.
        loss: of one example.

    Returns:
        A landscape over x, the gates of the site; its energy at the mask is the loss there.

    Raises:
        ValueError: for a site the network does not have, a mask of weights or of other sizes, windows of another form or of
            other neurons, or bad batches.
    """
    network = as_network(model, None if isinstance(model, Network) else first_inputs(batches))
    if site not in network.neurons:
        raise ValueError(f"The network has no neurons at {site!r}; it has them at {sorted(network.neurons)}.")
    size = network.neurons[site].size
    gates = _gates(network, {} if mask is None else mask)
    base = np.asarray(gates.pop(site, np.ones(size, np.bool_))) > 0
    windows = _checked_windows(windows, site, size)
    tables = measured_tables(network, batches, windows, base, gates, site=site, loss=loss)
    return averaged(windows, tables, base)


def _gates(network: Network, mask: Mask | Mapping[str, Any]) -> dict[str, jax.Array]:
    """The gates of a mask by site, checked."""
    if isinstance(mask, Mask) and mask.unit == "weight":
        raise ValueError(f"mask is {mask}; gates are of neurons or heads. Apply it to the model, and give that.")
    sites, kept = {**network.heads, **network.neurons}, mask.kept if isinstance(mask, Mask) else mask
    unknown = sorted(set(kept) - set(sites))
    if unknown:
        raise ValueError(f"mask names {unknown}, where the network has no gates; it has them at {sorted(sites)}.")
    for name, gates in kept.items():
        shape, own = np.shape(gates), sites[name]
        if shape != (own.size,):
            raise ValueError(f"mask[{name!r}] has shape {shape}; {name!r} has {own.size} {own.kind}s.")
    return {name: jnp.asarray(check_states(f"mask[{name!r}]", gates, len(gates)), jnp.float32) for name, gates in kept.items()}


def _checked_windows(windows: Any, site: str, size: int) -> np.ndarray:
    """The windows as an array, if they are of neurons of the site."""
    windows = np.asarray(windows)
    if windows.ndim != 2 or not windows.size or windows.dtype.kind not in "iu":
        raise ValueError(
            f"Windows are {windows.dtype} of shape {windows.shape}; give whole numbers [windows, members], at least one window "
            "of one member, as ring_windows does."
        )
    if windows.min() < 0 or windows.max() >= size:
        raise ValueError(f"Windows name neurons {windows.min()} to {windows.max()}; {site!r} has {size}.")
    return windows


def measured_tables(
    network: Network,
    batches: Batches,
    windows: np.ndarray,
    base: np.ndarray,
    gates: Mapping[str, jax.Array],
    *,
    site: str,
    loss: Loss,
) -> np.ndarray:
    """The mean loss for every setting of the *flips* of every window, `[windows, 2^members]`."""
    settings = 2 ** windows.shape[1]
    bits = (np.arange(settings)[:, None] >> np.arange(windows.shape[1])) & 1
    total, count = np.zeros(len(windows) * settings), 0

    @network.jitted("landscape", loss, site, tuple(sorted(gates)))
    def step(params: Any, lanes: jax.Array, gates: Any, inputs: jax.Array, labels: jax.Array) -> jax.Array:
        def one(gate: jax.Array) -> jax.Array:
            # Only what follows the gates depends on the lane, so layers before them are computed once.
            outputs = network.run(params, inputs, gates={**gates, site: gate})[0]
            return loss.value(as_wide(outputs), labels).sum()

        return jax.vmap(one)(lanes)

    # Every example is held once for every setting.
    held = backward_chunk(network, most=4096 * _LANES)
    width = min(held, _LANES)
    for inputs, labels in chunks(labeled_for(network, batches, loss), held // width):
        count += len(inputs)
        for start in range(0, total.size, width):
            place = np.arange(start, min(start + width, total.size))
            lanes = np.repeat(base[None].astype(np.float32), width, axis=0)
            rows, chosen = np.arange(place.size)[:, None], windows[place // settings]
            lanes[rows, chosen] = base[chosen] ^ (bits[place % settings] > 0)
            values = step(network.params, lanes, gates, inputs, labels)
            total[place] += np.asarray(values, np.float64)[: place.size]
    return total.reshape(len(windows), settings) / count


def averaged(windows: np.ndarray, tables: np.ndarray, base: np.ndarray) -> Landscape:
    """One landscape of whole-loss tables over flips: mean coefficients, each in one window.

    Args:
        windows: `[windows, members]`.
        tables: of the whole loss over the flips of each window.
        base: the mask the flips are taken from.
    """
    coefficients = mobius(tables)
    members = windows.shape[1]
    sums: dict[tuple[int, ...], list[float]] = {}
    homes: dict[tuple[int, ...], tuple[int, int]] = {}
    for number, window in enumerate(windows.tolist()):
        for setting in range(2**members):
            key = tuple(sorted(window[bit] for bit in range(members) if setting >> bit & 1))
            sums.setdefault(key, []).append(coefficients[number, setting])
            homes.setdefault(key, (number, setting))
    placed = np.zeros_like(coefficients)
    for key, values in sums.items():
        placed[homes[key]] = np.mean(values)
    flipped = zeta(placed)
    # From flips to gates: entry x of the table is entry x ⊕ m.
    codes = (base[windows].astype(np.int64) << np.arange(members)).sum(axis=1)
    entries = np.arange(2**members)[None] ^ codes[:, None]
    return Landscape(windows, np.take_along_axis(flipped, entries, axis=1), len(base))
