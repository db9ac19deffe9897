"""Sites: the neurons and attention heads of a network, and everything that removing one of them touches.

A site is a set of units of equal standing: the neurons of a layer (together with the layers whose outputs are summed with its
outputs), or the heads of one attention. Its index maps say which outputs a unit switches, which parameters are zero without
it, and which inputs of which later layers read it; nothing downstream needs to know whether a unit is a Dense column, a
Conv channel or a head.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from annealsubnet.networks.labels import DATA, Flow
from annealsubnet.networks.layer import Layer


@dataclass(frozen=True)
class Gate:
    """A tap where closing a unit multiplies its channels by zero.

    Attributes:
        tap: name of the layer or BatchNorm.
        side: "in" or "out" of it.
        unit_of_channel: `[channels]`, which unit each channel (trailing axes, flattened) belongs to; −1 for none.
        num_channel_axes: how many trailing axes of the array are channels.
    """

    tap: str
    side: str
    unit_of_channel: np.ndarray
    num_channel_axes: int


@dataclass(frozen=True)
class Slot:
    """Part of a parameter that belongs to units.

    Attributes:
        path: of the parameter.
        first_axis, num_axes: the axes that `unit_of_index` numbers, flattened.
        unit_of_index: `[size of these axes]`; −1 for an index that no unit owns.
    """

    path: str
    first_axis: int
    num_axes: int
    unit_of_index: np.ndarray


@dataclass(frozen=True)
class Site:
    """Units of one kind at one place.

    Attributes:
        name: of its first layer, or of the attention.
        kind: "neuron" or "head".
        size: how many units.
        members: the layers whose outputs the units are.
        gates: where they are switched.
        zeroed: which parameters are zero without a unit.
        consumers: for each layer that reads the units, `[groups, fan_in]`, the unit of each input; −1 for another's.
        normalized_by: the sum over the site's channels (LayerNorm, GroupNorm, softmax) that they pass through, or None.
        norms: for each BatchNorm that the units pass, `[channels]`, the unit of each channel; −1 for another's.
    """

    name: str
    kind: str
    size: int
    members: tuple[str, ...]
    gates: tuple[Gate, ...]
    zeroed: tuple[Slot, ...]
    consumers: Mapping[str, np.ndarray]
    normalized_by: str | None = None
    norms: Mapping[str, np.ndarray] = field(default_factory=dict)

    def __repr__(self) -> str:
        readers = ", ".join(self.consumers)
        return f"Site({self.name!r}, {self.size} {self.kind}s of {', '.join(self.members)}, read by {readers})"


def neuron_sites(flow: Flow) -> tuple[dict[str, Site], dict[str, str]]:
    """The neurons that may be selected, by site; and for every other layer the reason why its neurons may not."""
    root = _roots(flow)
    layers_of: dict[int, list[str]] = {}
    for name, layer in flow.layers.items():
        for label in np.unique(root[flow.first[name] : flow.first[name] + layer.outputs]).tolist():
            layers_of.setdefault(label, []).append(name)
    # Layers that share a tied neuron form one site.
    sites: dict[str, Site] = {}
    reasons: dict[str, str] = {}
    for members in _components(list(flow.layers), list(layers_of.values())):
        reason, site = _neuron_site(members, flow, root)
        if site is None:
            reasons.update(dict.fromkeys(members, reason))
        else:
            sites[site.name] = site
    return sites, reasons


def _roots(flow: Flow) -> np.ndarray:
    """The representative of each label under the ties."""
    size = flow.next_label
    if not flow.ties:
        return np.arange(size)
    pairs = np.concatenate(flow.ties)
    pairs = pairs[(pairs > 0).all(axis=1)]
    graph = coo_array((np.ones(len(pairs), bool), (pairs[:, 0], pairs[:, 1])), shape=(size, size))
    _, component = connected_components(graph, directed=False)
    least = np.full(component.max() + 1, size)
    np.minimum.at(least, component, np.arange(size))
    return least[component]


def _components(names: list[str], sets: list[list[str]]) -> list[tuple[str, ...]]:
    index = {name: number for number, name in enumerate(names)}
    pairs = [(index[group[0]], index[other]) for group in sets for other in group]
    rows, columns = np.array(pairs, dtype=int).reshape(-1, 2).T
    graph = coo_array((np.ones(len(rows), bool), (rows, columns)), shape=(len(names),) * 2)
    _, component = connected_components(graph, directed=False)
    return [tuple(name for name in names if component[index[name]] == part) for part in dict.fromkeys(component.tolist())]


def _neuron_site(members: tuple[str, ...], flow: Flow, root: np.ndarray) -> tuple[str, Site | None]:
    labels = {name: root[flow.first[name] : flow.first[name] + flow.layers[name].outputs] for name in members}
    units = np.unique(np.concatenate(list(labels.values())))
    if (units == root[DATA]).any():
        return "its outputs are summed with the network's input", None
    if np.isin(units, root[flow.output[flow.output > 0]]).any():
        return "its outputs are the network's outputs", None
    blocked = {root[label]: what for label, what in flow.blocked.items()}
    stop = next((blocked[unit] for unit in units.tolist() if unit in blocked), None)
    if stop is not None:
        return f"its outputs enter {stop}, through which neurons cannot be followed", None
    consumers = {}
    for name, channels in flow.inputs.items():
        if flow.layers[name].depthwise and name in members:
            continue
        unit = _unit_of(root[np.maximum(channels, 0)], units)
        if (unit >= 0).any():
            consumers[name] = flow.layers[name].inputs_of_channels(unit)
    if not consumers:
        return "no later layer reads its outputs channel by channel", None
    normalized = {root[label]: what for label, what in flow.normalized.items()}
    through = next((normalized[unit] for unit in units.tolist() if unit in normalized), None)
    gates, slots = [], []
    for name in members:
        layer, norm, unit = flow.layers[name], flow.norms.get(name), _unit_of(labels[name], units)
        slots.append(Slot(layer.kernel, layer.num_input_axes, layer.num_output_axes, unit))
        vectors = [layer.bias] if norm is None else [layer.bias, norm.scale, norm.bias]
        slots += [Slot(path, 0, layer.num_output_axes, unit) for path in vectors if path is not None]
        gates.append(Gate(name if norm is None else norm.name, "out", unit, layer.num_output_axes))
    passed = {name: _unit_of(root[np.maximum(channels, 0)], units) for name, channels in flow.norm_inputs.items()}
    passed = {name: unit for name, unit in passed.items() if (unit >= 0).any()}
    site = Site(members[0], "neuron", len(units), members, tuple(gates), tuple(slots), consumers, through, passed)
    return "", site


def _unit_of(labels: np.ndarray, units: np.ndarray) -> np.ndarray:
    """Position of each label among the site's units; −1 where it is not one of them."""
    place = np.searchsorted(units, labels).clip(max=len(units) - 1)
    return np.where(units[place] == labels, place, -1)


def head_sites(flow: Flow) -> dict[str, Site]:
    """The heads of every multi-head attention, found by its four projections `query`, `key`, `value` and `out`."""
    sites = {}
    for out in flow.layers.values():
        name, _, last = out.name.rpartition("/")
        projections = [flow.layers.get(f"{name}/{part}") for part in ("query", "key", "value")]
        if last != "out" or out.num_input_axes != 2 or not all(_to_heads(part, out.shape[0]) for part in projections):
            continue
        sites[name] = _head_site(name, [part for part in projections if part is not None], out)
    return sites


def _to_heads(layer: Layer | None, num_heads: int) -> bool:
    """Whether a projection gives each head its own; where heads share keys and values, they cannot be removed one by one."""
    return layer is not None and layer.num_output_axes == 2 and layer.shape[layer.num_input_axes] == num_heads


def _head_site(name: str, projections: list[Layer], out: Layer) -> Site:
    num_heads, head_size = out.shape[:2]
    heads = np.arange(num_heads)
    unit_of_input = np.repeat(heads, head_size)
    slots = [Slot(out.kernel, 0, 1, heads)]
    for layer in projections:
        slots.append(Slot(layer.kernel, layer.num_input_axes, 1, heads))
        if layer.bias is not None:
            slots.append(Slot(layer.bias, 0, 1, heads))
    members = tuple(layer.name for layer in projections)
    gate = Gate(out.name, "in", unit_of_input, 2)
    return Site(name, "head", num_heads, members, (gate,), tuple(slots), {out.name: unit_of_input[None]})
