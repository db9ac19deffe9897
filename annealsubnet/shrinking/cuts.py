"""Cuts: what is left of every array when units are removed, whatever form the model has.

A removed unit takes with it its column of its own layer, its numbers in every BatchNorm on its way, and its rows of the
layers that read it. Where it would still say something when closed (f(0) ≠ 0, as for a sigmoid), that constant is moved into
the bias of the layer that reads it:

    W a + b = W_kept a_kept + (b + W_removed f(0))
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from annealsubnet.masks import Mask
from annealsubnet.networks import Layer, Network, Params, Site

Gone = dict[str, np.ndarray]


@dataclass(frozen=True)
class Smaller:
    """The arrays and sizes of a shrunk model.

    Attributes:
        params: every parameter by path, biases that the model did not have included.
        statistics: by path, the BatchNorm statistics that change.
        layers: the layers that change, with their new shape, groups and bias.
        norms: new number of channels of each BatchNorm that changes.
    """

    params: Mapping[str, Any]
    statistics: Mapping[str, Any]
    layers: Mapping[str, Layer]
    norms: Mapping[str, int]


def cut(network: Network, mask: Mask, statistics: Mapping[str, Any]) -> Smaller:
    """Remove units from the arrays of a network.

    Args:
        network: that the mask was made for.
        mask: of neurons or heads.
        statistics: the model's other arrays by path; the `mean` of a BatchNorm may take a constant.

    Raises:
        ValueError: as `annealsubnet.shrink`, except for what shows only when the smaller network runs.
    """
    sites = _cut_sites(network, mask)
    inputs, outputs, channels = _removed(network, mask, sites)
    params, statistics = dict(mask.multiply(network.params)), dict(statistics)
    layers = {name: network.layers[name] for name in network.layers if name in inputs or name in outputs}
    for name, shift in _constants(network, params, inputs, sites).items():
        layers[name] = _fold(layers[name], shift, network, params, statistics)
    for name, layer in layers.items():
        layers[name] = _cut_layer(layer, inputs.get(name), outputs.get(name), params)
    changed = {}
    for name, gone in channels.items():
        for leaf, arrays in (("scale", params), ("bias", params), ("mean", statistics), ("var", statistics)):
            if f"{name}/{leaf}" in arrays:
                arrays[f"{name}/{leaf}"] = changed[f"{name}/{leaf}"] = _take(arrays[f"{name}/{leaf}"], [~gone])
    return Smaller(params, statistics, layers, {name: int((~gone).sum()) for name, gone in channels.items()})


def _cut_sites(network: Network, mask: Mask) -> list[Site]:
    """The sites that lose units, after everything that can be refused by name."""
    mask.check_network(network)
    sites = []
    for name, kept in mask.kept.items():
        site = network.sites(mask.unit)[name]
        if kept.all():
            continue
        if not kept.any():
            raise ValueError(
                f"The mask removes all {len(kept)} {mask.unit}s of {name!r}; at least one must stay in each layer."
            )
        if site.normalized_by is not None:
            raise ValueError(
                f"The {mask.unit}s of {name!r} pass through {site.normalized_by}, which combines them with others, so "
                f"that a smaller network would compute something else; keep all of {name!r} (exclude it when pruning)."
            )
        sites.append(site)
    return sites


def _removed(network: Network, mask: Mask, sites: Iterable[Site]) -> tuple[Gone, Gone, Gone]:
    """True at what layers lose, inputs `[groups, fan_in]` and outputs `[outputs]`, and at the channels that BatchNorms lose."""
    inputs: Gone = {}
    outputs: Gone = {}
    channels: Gone = {}
    layer_of = {layer.kernel: layer for layer in network.layers.values()}

    def add(book: Gone, name: str, gone: np.ndarray) -> None:
        book[name] = book[name] | gone if name in book else gone

    for site in sites:
        # What no unit owns is −1 and reads the False appended here.
        removed = np.append(~mask.kept[site.name], False)
        for name, units in site.consumers.items():
            add(inputs, name, removed[units])
        for name, units in site.norms.items():
            add(channels, name, removed[units])
        for slot in site.zeroed:
            layer = layer_of.get(slot.path)
            if layer is not None and slot.first_axis >= layer.num_input_axes:
                last = slot.first_axis + slot.num_axes
                gone = removed[slot.unit_of_index].reshape(
                    layer.shape[slot.first_axis : last] + (1,) * (len(layer.shape) - last)
                )
                add(outputs, layer.name, np.broadcast_to(gone, layer.shape[layer.num_input_axes :]).ravel())
    return inputs, outputs, channels


def _constants(network: Network, params: Params, inputs: Gone, sites: Iterable[Site]) -> dict[str, np.ndarray]:
    """What removed units still add to each layer that reads them, `[outputs]`, where it is not zero.

    They are closed in `params`, so whatever they say is the same for every example; it is read off a run on noise.
    """
    noise = example_inputs(network.example)
    records = jax.jit(lambda values, x: network.run(values, x, record=inputs)[1])(params, noise)
    shifts = {}
    for name, gone in inputs.items():
        layer = network.layers[name]
        said = layer.patches(records[name][0])
        weights = layer.matrix(params[layer.kernel]) * gone[:, :, None]
        product = jnp.einsum("vgi,gio->vgo", said, weights, precision=jax.lax.Precision.HIGHEST).reshape(len(said), -1)
        values = np.asarray(product, np.float64)
        size = np.abs(values).max()
        if size == 0.0:
            continue
        if np.ptp(values, axis=0).max() > 1e-5 * size:
            sources = ", ".join(repr(site.name) for site in sites if name in site.consumers)
            raise ValueError(
                f"Removed units of {sources} reach {name!r} as numbers that are neither zero nor the same everywhere (a "
                "zero-padded border is enough), so its bias cannot stand for them; "
                f"keep all of {sources}, or use an activation with f(0) = 0."
            )
        shifts[name] = values.mean(axis=0)
    return shifts


def example_inputs(example: jax.ShapeDtypeStruct, examples: int = 4) -> np.ndarray:
    """A few inputs of a network's kind: noise, or token 0 and 1."""
    generator = np.random.default_rng(0)
    shape = (examples, *example.shape[1:])
    if jnp.issubdtype(example.dtype, jnp.floating):
        return generator.standard_normal(shape).astype(example.dtype)
    return generator.integers(0, 2, shape).astype(example.dtype)


def _fold(layer: Layer, shift: np.ndarray, network: Network, params: dict[str, Any], statistics: dict[str, Any]) -> Layer:
    """Add a constant to a layer's outputs: in its bias, in the mean of the BatchNorm behind it, or in a new bias."""
    shift = shift.reshape(layer.shape[layer.num_input_axes :])
    norm = network.norms.get(layer.name)
    mean = "" if norm is None else f"{norm.name}/mean"
    if layer.bias is None and mean in statistics:
        statistics[mean] = statistics[mean] - shift.astype(statistics[mean].dtype)
        return layer
    bias = layer.bias or f"{layer.kernel.removesuffix('kernel')}bias"
    value = jnp.asarray(shift, params[layer.kernel].dtype)
    params[bias] = params[bias] + value if bias in params else value
    return replace(layer, bias=bias)


def _cut_layer(layer: Layer, inputs: np.ndarray | None, outputs: np.ndarray | None, params: dict[str, Any]) -> Layer:
    """Cut a layer's kernel and bias in `params` and return it with its new shape."""
    gone_outputs = np.zeros(layer.outputs, bool) if outputs is None else outputs
    last = _by_axis(~gone_outputs, layer.shape[layer.num_input_axes :], layer.name, "outputs")
    if layer.bias is not None:
        params[layer.bias] = _take(params[layer.bias], last)
    if layer.groups > 1:
        return _cut_groups(layer, inputs, gone_outputs, params)
    gone_inputs = np.zeros((1, layer.fan_in), bool) if inputs is None else inputs
    first = _by_axis(~gone_inputs, layer.shape[: layer.num_input_axes], layer.name, "inputs")
    params[layer.kernel] = _take(params[layer.kernel], first + last)
    return replace(layer, shape=tuple(params[layer.kernel].shape))


def _cut_groups(layer: Layer, inputs: np.ndarray | None, outputs: np.ndarray, params: dict[str, Any]) -> Layer:
    """Cut a grouped convolution: groups may vanish, the others must stay alike."""
    window = int(np.prod(layer.shape[:-2]))
    out_kept = ~outputs.reshape(layer.groups, -1)
    if inputs is not None:
        in_kept = ~inputs.reshape(layer.groups, window, -1)[:, 0]
    elif layer.depthwise:
        in_kept = np.asarray(out_kept.any(axis=1, keepdims=True))
    else:
        in_kept = np.ones((layer.groups, layer.shape[-2]), bool)
    left = np.flatnonzero(in_kept.any(axis=1) | out_kept.any(axis=1))
    counts = {(int(in_kept[group].sum()), int(out_kept[group].sum())) for group in left}
    if len(counts) != 1 or 0 in next(iter(counts)):
        raise ValueError(
            f"{layer.name!r} is a convolution in {layer.groups} groups; the mask leaves them with (inputs, outputs) "
            f"{sorted(counts)}, and they must stay alike: remove as many channels from each, or exclude the layers around it."
        )
    matrix = layer.matrix(params[layer.kernel]).reshape(layer.groups, window, layer.shape[-2], -1)
    blocks = [matrix[group][:, np.flatnonzero(in_kept[group])][..., np.flatnonzero(out_kept[group])] for group in left]
    ((num_inputs, num_outputs),) = counts
    shape = (*layer.shape[:-2], num_inputs, num_outputs * len(left))
    smaller = replace(layer, shape=shape, groups=len(left))
    stacked = jnp.stack(blocks).reshape(len(left), window * num_inputs, num_outputs)
    params[layer.kernel] = smaller.from_matrix(stacked)
    return smaller


def _by_axis(kept: np.ndarray, shape: tuple[int, ...], name: str, side: str) -> list[np.ndarray]:
    """The kept indices of each axis, if the kept elements form a block."""
    block = kept.reshape(shape)
    axes = range(len(shape))
    lines = [np.asarray(block.any(axis=tuple(other for other in axes if other != axis))) for axis in axes]
    whole = np.ix_(*lines)
    if not block[whole].all():
        raise ValueError(
            f"The {side} of {name!r} have the shape {shape}, and the mask leaves no block of it: "
            "remove whole slices along one axis (heads, for an attention), or exclude the layer."
        )
    return lines


def _take(array: Any, kept: Iterable[np.ndarray]) -> jax.Array:
    """The array with only the kept indices of each axis."""
    for axis, line in enumerate(kept):
        if not line.all():
            array = jnp.take(array, np.flatnonzero(line), axis=axis)
    return jnp.asarray(array)
