"""Budgets: how many units stay, and among which of them the choice is.

`keep` is what a user writes: a fraction in (0, 1], a count, or either for each layer. A budget is what it comes to for one
network: exact counts, over the whole network, for each layer, or for each neuron's fan-in.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from decimal import ROUND_HALF_UP, Decimal
from numbers import Integral, Real
from typing import Any

import numpy as np

from annealsubnet.masks import UNITS, weight_layers
from annealsubnet.networks import Layer, Network, as_model, as_network

Keep = Any
"""float in (0, 1] | int | mapping from layer to either; numpy's scalars too."""

SCOPES = ("network", "layer", "neuron")


class ExcludeError(ValueError):
    """A refusal that speaks of the argument `exclude`; whoever calls it otherwise, as the command does, words it anew.

    Args:
        sentence: with `{exclude}` where the argument is named.
        layer: what is advised to be excluded, if anything.
    """

    def __init__(self, sentence: str, layer: str | None = None) -> None:
        self.sentence, self.layer = sentence, layer
        super().__init__(self.worded("exclude" if layer is None else f'exclude=("{layer}",)'))

    def worded(self, exclude: str) -> str:
        """The sentence with other words for the argument."""
        return self.sentence.replace("{exclude}", exclude)


@dataclass(frozen=True)
class Budget:
    """Exact counts of the units that stay.

    Attributes:
        unit: "weight", "neuron" or "head".
        scope: "network": all units compete for `total`; "layer": each site keeps `counts`; "neuron": each neuron of a layer
            keeps `counts` of its fan-in.
        shapes: shape of the units of each site, those that lose none included (a kernel's own shape; else `[units]`).
        selected: the sites that units are removed from, in the order of running; all other sites keep theirs.
        counts: kept units of each selected site (of each neuron, for scope "neuron"); empty for scope "network".
        total: kept units over all selected sites.
        layers: for scope "neuron" the layer of each selected site.
    """

    unit: str
    scope: str
    shapes: Mapping[str, tuple[int, ...]]
    selected: tuple[str, ...]
    counts: Mapping[str, int]
    total: int
    layers: Mapping[str, Layer] = field(default_factory=dict)

    @property
    def size(self) -> int:
        """How many units the selected sites have."""
        return sum(_size(self.shapes[name]) for name in self.selected)

    def stage(self, progress: float) -> "Budget":
        """The budget at a point of a geometric schedule, from everything (0) to itself (1)."""
        return self._changed(lambda kept, size: max(kept, round(size * (kept / size) ** progress)))

    def enlarged(self, times: float) -> "Budget":
        """The budget with so many times as many units, at most all."""
        return self._changed(lambda kept, size: min(size, round(times * kept)))

    def _changed(self, count: Callable[[int, int], int]) -> "Budget":
        """The budget with other counts, of how many units they were and of how many there are."""
        if self.scope == "network":
            return replace(self, total=count(self.total, self.size))
        sizes = self._competing()
        counts = {name: count(kept, sizes[name]) for name, kept in self.counts.items()}
        neurons = {name: self.layers[name].outputs if self.scope == "neuron" else 1 for name in counts}
        return replace(self, counts=counts, total=sum(neurons[name] * kept for name, kept in counts.items()))

    def _competing(self) -> dict[str, int]:
        """How many units the counts are of: those of a site, or of a neuron's fan-in."""
        if self.scope == "neuron":
            return {name: layer.fan_in for name, layer in self.layers.items()}
        return {name: _size(shape) for name, shape in self.shapes.items()}

    def __repr__(self) -> str:
        return f"Budget({self.total:,} of {self.size:,} {self.unit}s by {self.scope} in {len(self.selected)} sites)"


def budget_of(model: Any, *, keep: Keep, unit: str, scope: str, exclude: Iterable[str] = ()) -> Budget:
    """What `keep` comes to for a network.

    Fractions are of the selected units that compete with each other and are rounded half up.

    Args:
        model: a `Network`, or a model with an example; for weights with scope "network" or "layer" any model does.
        keep: a fraction in (0, 1], a count, or a mapping from layer to either; a layer that a mapping leaves out loses none.
        unit: "weight", "neuron" or "head".
        scope: "network", "layer", or (for weights) "neuron"; a mapping makes "network" mean "layer".
        exclude: layers that lose none.

    Raises:
        ValueError: for a `keep` outside (0, 1] or of more units than there are or of none, an unknown scope or layer, a kernel
            that no supported layer uses, or if no units are left.
    """
    if unit not in UNITS:
        raise ValueError(f"unit is one of {', '.join(map(repr, UNITS))}, not {unit!r}.")
    if scope not in SCOPES or (scope == "neuron" and unit != "weight"):
        choices = SCOPES if unit == "weight" else SCOPES[:2]
        raise ValueError(f"scope for {unit}s is one of {', '.join(map(repr, choices))}, not {scope!r}.")
    if isinstance(exclude, str):
        exclude = (exclude,)
    places = _weight_places(model, exclude, scope) if unit == "weight" else _site_places(as_network(model), unit)
    excluded = {places.site_of(name, "exclude") for name in exclude}
    if isinstance(keep, Mapping):
        wanted = _by_site(keep, places)
        scope = "layer" if scope == "network" else scope
        selected = tuple(name for name in places.shapes if name in wanted and name not in excluded)
    else:
        selected = tuple(name for name in places.shapes if name not in excluded)
        wanted = dict.fromkeys(selected, keep)
    if not selected:
        raise ExcludeError(f"There are no {unit}s to select: {places.reason_for_none()}.")
    return _resolve(keep, wanted, selected, unit, scope, places)


def keep_best(scores: Mapping[str, Any], budget: Budget) -> dict[str, np.ndarray]:
    """The units with the largest scores, exactly as many as the budget says.

    Of equal scores the earlier unit stays. Where neurons or heads compete over the network, the best one of each site stays.

    Args:
        scores: for each selected site an array of the shape of its units.
        budget: from `budget_of`.

    Returns:
        Boolean arrays for `Mask.of`; all True at the sites that lose none.

    Raises:
        ValueError: for a site without scores, or with scores of another shape or not finite.
    """
    kept = {name: np.ones(shape, bool) for name, shape in budget.shapes.items()}
    arrays = {name: _checked(name, scores, budget.shapes[name]) for name in budget.selected}
    if budget.scope == "network":
        if budget.unit != "weight":
            arrays = {name: _best_first(array) for name, array in arrays.items()}
        best = largest(np.concatenate([array.ravel() for array in arrays.values()]), budget.total)
        ends = np.cumsum([array.size for array in arrays.values()])[:-1]
        for (name, array), part in zip(arrays.items(), np.split(best, ends), strict=True):
            kept[name] = part.reshape(array.shape)
        return kept
    for name, array in arrays.items():
        if budget.scope == "neuron":
            layer = budget.layers[name]
            kept[name] = layer.from_matrix(largest(layer.matrix(array), budget.counts[name], axis=1))
        else:
            kept[name] = largest(array.ravel(), budget.counts[name]).reshape(array.shape)
    return kept


def largest(scores: np.ndarray, count: int, *, axis: int = 0) -> np.ndarray:
    """True at the `count` largest entries along an axis; of equal ones the earlier.

    Example:
        >>> largest(np.array([2.0, 3.0, 2.0, 2.0]), 2).tolist()
        [True, True, False, False]
    """
    size = scores.shape[axis]
    if count <= 0:
        return np.zeros(scores.shape, bool)
    threshold = np.take(np.partition(scores, size - count, axis=axis), [size - count], axis=axis)
    above = scores > threshold
    equal = scores == threshold
    missing = count - np.count_nonzero(above, axis=axis, keepdims=True)
    return above | (equal & (np.cumsum(equal, axis=axis, dtype=np.int64) <= missing))


@dataclass(frozen=True)
class _Places:
    """Where units are, under which names, and why not elsewhere."""

    shapes: Mapping[str, tuple[int, ...]]
    aliases: Mapping[str, str]
    without: Mapping[str, str]
    layers: Mapping[str, Layer] = field(default_factory=dict)

    def site_of(self, name: str, argument: str) -> str:
        if name in self.without and argument == "exclude":
            return name
        if name in self.without:
            raise ValueError(f"{argument} names {name!r}, which has no such units: {self.without[name]}.")
        site = self.aliases.get(name, name)
        if site not in self.shapes:
            known = sorted({*self.shapes, *self.aliases, *(self.without if argument == "exclude" else ())})
            found = f"names {name!r}, which the network does not have; it has {known}."
            raise ExcludeError(f"{{exclude}} {found}") if argument == "exclude" else ValueError(f"{argument} {found}")
        return site

    def reason_for_none(self) -> str:
        if self.shapes:
            return f"keep and {{exclude}} leave none of {sorted(self.shapes)}"
        return "; ".join(f"{name!r}: {reason}" for name, reason in self.without.items()) or "the network has none"


def _weight_places(model: Any, exclude: Iterable[str], scope: str) -> _Places:
    if scope == "neuron":
        model = as_network(model)
    params = model.params if isinstance(model, Network) else as_model(model).params
    kernels = weight_layers(model)
    unsupported: dict[str, str] = {}
    if isinstance(model, Network):
        used = set(kernels.values())
        unsupported = {
            name: "no supported layer uses its kernel" for name, path in weight_layers(model.model).items() if path not in used
        }
    left = [name for name in unsupported if name not in set(exclude)]
    if left:
        raise ExcludeError(
            f"The kernel of {left[0]!r} is used by no supported layer (Dense, Conv and the projections of attention are), or "
            "does not run; leave it alone with {exclude}.",
            left[0],
        )
    shapes = {name: tuple(params[path].shape) for name, path in kernels.items()}
    layers = dict(model.layers) if isinstance(model, Network) else {}
    return _Places(shapes, {}, unsupported, layers)


def _site_places(network: Network, unit: str) -> _Places:
    sites = network.sites(unit)
    aliases = {member: name for name, site in sites.items() for member in site.members}
    if unit == "neuron":
        without = dict(network.not_neurons)
    else:
        without = dict.fromkeys((name for name in network.layers if name not in aliases), "it is no projection to heads")
    return _Places({name: (site.size,) for name, site in sites.items()}, aliases, without)


def _by_site(keep: Mapping[str, Any], places: _Places) -> dict[str, Any]:
    wanted: dict[str, Any] = {}
    for name, value in keep.items():
        site = places.site_of(name, "keep")
        if site in wanted and wanted[site] != value:
            raise ValueError(
                f"keep asks for {wanted[site]} and {value} of the units that {name!r} shares with other layers summed with it; "
                "give one of these layers."
            )
        wanted[site] = value
    return wanted


def _resolve(
    keep: Keep, wanted: Mapping[str, Any], selected: tuple[str, ...], unit: str, scope: str, places: _Places
) -> Budget:
    shapes = dict(places.shapes)
    if scope == "network":
        size = sum(_size(shapes[name]) for name in selected)
        total = _count(keep, size, f"{unit}s of the network")
        if unit != "weight" and total < len(selected):
            raise ValueError(f"keep={keep} leaves {total} {unit}s for {len(selected)} layers; each needs at least one.")
        return Budget(unit, scope, shapes, selected, {}, total)
    if scope == "layer":
        counts = {name: _count(wanted[name], _size(shapes[name]), f"{unit}s of {name!r}") for name in selected}
        return Budget(unit, scope, shapes, selected, counts, sum(counts.values()))
    layers = {name: places.layers[name] for name in selected}
    counts = {
        name: _count(wanted[name], layer.fan_in, f"weights that feed each neuron of {name!r}") for name, layer in layers.items()
    }
    total = sum(counts[name] * layer.outputs for name, layer in layers.items())
    return Budget(unit, scope, shapes, selected, counts, total, layers)


def _count(keep: Any, size: int, what: str) -> int:
    if isinstance(keep, (bool, np.bool_)) or not isinstance(keep, Real):
        raise ValueError(f"keep={keep!r} is neither a fraction, nor a count, nor a mapping from layer to either.")
    if isinstance(keep, Integral):
        if not 1 <= int(keep) <= size:
            raise ValueError(f"keep={keep} asks for {keep} of the {size:,} {what}; give 1 to {size:,}, or a fraction.")
        return int(keep)
    if not 0 < float(keep) <= 1:
        raise ValueError(f"keep={keep} is no fraction: give a float above 0 and at most 1, or a whole number for a count.")
    # In decimals, so that 0.29 of 50 is 14.5 and not 14.499999999999998.
    count = int((Decimal(str(keep)) * size).quantize(Decimal(1), ROUND_HALF_UP))
    if count == 0:
        raise ValueError(f"keep={keep} leaves none of the {size:,} {what}; give at least {1 / size:.2g}, or a count.")
    return count


def _checked(name: str, scores: Mapping[str, Any], shape: tuple[int, ...]) -> np.ndarray:
    if name not in scores:
        raise ValueError(f"There are no scores for {name!r}; there are for {sorted(scores)}.")
    array = np.asarray(scores[name])
    if array.shape != shape:
        raise ValueError(f"The scores of {name!r} have shape {array.shape}; its units have {shape}.")
    bad = array.size - int(np.isfinite(array).sum())
    if bad:
        raise ValueError(f"Layer {name!r} has {bad} of {array.size} scores that are NaN or infinite.")
    return array


def _best_first(scores: np.ndarray) -> np.ndarray:
    """The same scores, the best of them infinite, so that a site never loses all its units."""
    scores = scores.astype(np.result_type(scores.dtype, np.float32))
    scores[np.argmax(scores)] = np.inf
    return scores


def _size(shape: tuple[int, ...]) -> int:
    return int(np.prod(shape, dtype=np.int64))
