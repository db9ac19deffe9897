"""Masks: which units of a network stay.

A mask holds a boolean for each unit and knows which numbers of which parameters a removed unit sets to zero, so that it can be
applied, saved, loaded and kept up during training without the network being traced again:

    masked parameter = parameter where every unit that owns it is kept, else 0
"""

from collections.abc import Mapping
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from annealsubnet.mask_files import read_mask, write_mask
from annealsubnet.networks import Network, Params, Slot, as_model, as_network
from annealsubnet.trees import flatten, map_leaves

UNITS = ("weight", "neuron", "head")
_EVERY_INDEX = np.zeros(0, np.int32)
"""In the slot of a layer's weights: every number of the kernel is a unit of its own, in order."""


@dataclass(frozen=True, eq=False, repr=False)
class Mask:
    """Which units stay, and what the others zero.

    Attributes:
        unit: "weight", "neuron" or "head".
        kept: True for each unit that stays, by site: for weights by layer name, in the kernel's own shape; else `[units]`.
        slots: by site, the parts of parameters that its units own (for weights the whole kernel, with `unit_of_index` empty).
        shapes: of every parameter in a slot; a model with other shapes is refused.
        example: shape and dtype of one batch of inputs, None if the model was never traced.

    Example:
        >>> from flax import nnx
        >>> model = nnx.Linear(3, 2, rngs=nnx.Rngs(0))
        >>> mask = Mask.of(model, "weight", {"Linear": np.array([[True, False], [True, True], [False, False]])})
        >>> mask
        Mask(weight, 3 of 6 kept in 1 site)
        >>> int((mask.apply(model).kernel[...] != 0).sum())
        3
    """

    unit: str
    kept: Mapping[str, np.ndarray]
    slots: Mapping[str, tuple[Slot, ...]]
    shapes: Mapping[str, tuple[int, ...]]
    example: jax.ShapeDtypeStruct | None = None

    @classmethod
    def of(cls, network: Any, unit: str, kept: Mapping[str, Any]) -> "Mask":
        """A mask for a network, checked.

        Args:
            network: a `Network`; for weights any model does: there every parameter `kernel` of two or more axes is a layer's.
            unit: "weight", "neuron" or "head".
            kept: boolean arrays by site; a site that is left out keeps all its units.

        Raises:
            ValueError: for an unknown unit or site, or an array of another dtype or shape than the site's.
        """
        if unit not in UNITS:
            raise ValueError(f"unit is one of {', '.join(map(repr, UNITS))}, not {unit!r}.")
        slots, sizes = _weight_slots(network) if unit == "weight" else _site_slots(as_network(network), unit)
        _check_kept(unit, kept, sizes)
        arrays = {name: np.array(kept[name], dtype=bool) for name in sizes if name in kept}
        for array in arrays.values():
            array.setflags(write=False)
        params = network.params if isinstance(network, Network) else as_model(network).params
        shapes = {slot.path: tuple(params[slot.path].shape) for name in arrays for slot in slots[name]}
        example = network.example if isinstance(network, Network) else None
        return cls(unit, arrays, {name: slots[name] for name in arrays}, shapes, example)

    @property
    def kept_count(self) -> int:
        """How many units stay, over all sites of the mask."""
        return sum(int(np.count_nonzero(array)) for array in self.kept.values())

    @property
    def size(self) -> int:
        """How many units the sites of the mask have."""
        return sum(array.size for array in self.kept.values())

    @property
    def sparsity(self) -> dict[str, float]:
        """The removed share of each site, in [0, 1]."""
        return {name: 1.0 - int(np.count_nonzero(array)) / max(array.size, 1) for name, array in self.kept.items()}

    def keeps(self) -> dict[str, np.ndarray]:
        """For each parameter that the mask touches, True where it stays: a boolean array that broadcasts to its shape."""
        keeps: dict[str, np.ndarray] = {}
        for name, slots in self.slots.items():
            for slot in slots:
                keep = _spread(self.kept[name], slot, self.shapes[slot.path])
                keeps[slot.path] = keeps[slot.path] & keep if slot.path in keeps else keep
        return keeps

    def check(self, params: Params) -> None:
        """Raise unless the parameters are of a model like the one that the mask was made for.

        Raises:
            ValueError: naming the first parameter that is missing or has another shape.
        """
        for path, shape in self.shapes.items():
            found = tuple(params[path].shape) if path in params else None
            if found != shape:
                is_found = "is missing in this model" if found is None else f"has shape {found} in this model"
                raise ValueError(f"The mask was made for another model: parameter {path!r} {is_found}, {shape} in the mask.")

    def check_network(self, network: Network) -> None:
        """Raise unless a traced network has the mask's parameters, and its units where the mask has them.

        Raises:
            ValueError: as `check`; or naming the first site that is missing or has another size.
        """
        self.check(network.params)
        for name, kept in self.kept.items() if self.unit != "weight" else ():
            site = network.sites(self.unit).get(name)
            if site is None or site.size != len(kept):
                raise ValueError(f"The mask was made for another model: this one has no {len(kept)} {self.unit}s at {name!r}.")

    def multiply(self, params: Params) -> dict[str, Any]:
        """The flat parameters with zeros for removed units.

        Raises:
            ValueError: as `check`.
        """
        self.check(params)
        return {**params, **{path: _zeroed(params[path], keep) for path, keep in self.keeps().items()}}

    def apply(self, model: Any) -> Any:
        """A new model with zeros for removed units, the other weights untouched.

        Args:
            model: an `nnx.Module`, or what `from_linen` or `from_function` return.

        Returns:
            An `nnx.Module`, Linen variables or a parameter tree, as the model came.

        Raises:
            ValueError: as `check`.
        """
        model = model.model if isinstance(model, Network) else as_model(model)
        return model.export(self.multiply(model.params))

    def save(self, path: str | Path) -> None:
        """Write a safetensors file, whole or not at all."""
        write_mask(Path(path), self.unit, self.kept, self.slots, self.shapes, self.example)

    @classmethod
    def load(cls, path: str | Path) -> "Mask":
        """Read what `save` wrote.

        Raises:
            ValueError: if the file is truncated or holds something else.
            FileNotFoundError: if there is none.
        """
        return cls(*read_mask(Path(path)))

    def __repr__(self) -> str:
        sites = f"{len(self.kept)} site" + ("" if len(self.kept) == 1 else "s")
        return f"Mask({self.unit}, {self.kept_count:,} of {self.size:,} kept in {sites})"


def weight_layers(model: Any) -> dict[str, str]:
    """The kernel's path for each layer whose weights can be units, by the layer's name.

    Args:
        model: a `Network`, whose layers are known; or any model, of which every parameter `kernel` of two or more axes counts.
    """
    if isinstance(model, Network):
        return {name: layer.kernel for name, layer in model.layers.items()}
    model = as_model(model)
    paths = [path for path, value in model.params.items() if path.rpartition("/")[2] == "kernel" and value.ndim >= 2]
    # The name of a model that is itself a layer, as the adapters give it.
    root = model.source[0] if model.form == "linen" else model.source
    return {path.rpartition("/")[0] or type(root).__name__: path for path in paths}


def masked(tx: optax.GradientTransformation, mask: Mask) -> optax.GradientTransformationExtraArgs:
    """An optimizer that leaves removed units at zero.

    Gradients are masked on the way in, so that norms and moments see the subnetwork only, and updates on the way out.

    Args:
        tx: any optax optimizer.
        mask: whose zeros to keep; the parameters must already have them (`mask.apply`).

    Returns:
        An optimizer for `nnx.Optimizer`, Linen parameters or variables, or a plain tree.

    Raises:
        ValueError: from `init` or `update`, if the tree does not hold the mask's parameters exactly once.

    Example:
        >>> from flax import nnx
        >>> model = nnx.Linear(2, 2, rngs=nnx.Rngs(0))
        >>> mask = Mask.of(model, "weight", {"Linear": np.eye(2, dtype=bool)})
        >>> optimizer = nnx.Optimizer(mask.apply(model), masked(optax.adam(1e-3), mask), wrt=nnx.Param)
    """
    inner = optax.with_extra_args_support(tx)
    keeps = mask.keeps()

    def kept_only(tree: Any) -> Any:
        names = _names_in(tree, mask.shapes)
        return map_leaves(lambda path, leaf: _zeroed(leaf, keeps[names[path]]) if path in names else leaf, tree)

    def init(params: Any) -> Any:
        _names_in(params, mask.shapes)
        return inner.init(params)

    def update(updates: Any, state: Any, params: Any = None, **extra: Any) -> Any:
        updates, state = inner.update(kept_only(updates), state, params, **extra)
        return kept_only(updates), state

    return optax.GradientTransformationExtraArgs(init, update)


def _zeroed(value: Any, keep: np.ndarray) -> Any:
    # Not a product: a NaN in a removed weight must not survive it.
    return jnp.where(keep, value, jnp.zeros((), value.dtype))


def _weight_slots(model: Any) -> tuple[dict[str, tuple[Slot, ...]], dict[str, tuple[int, ...]]]:
    params = model.params if isinstance(model, Network) else as_model(model).params
    layers = weight_layers(model)
    sizes = {name: tuple(params[path].shape) for name, path in layers.items()}
    return {name: (Slot(path, 0, len(sizes[name]), _EVERY_INDEX),) for name, path in layers.items()}, sizes


def _site_slots(network: Network, unit: str) -> tuple[dict[str, tuple[Slot, ...]], dict[str, tuple[int, ...]]]:
    sites = network.sites(unit)
    return {name: site.zeroed for name, site in sites.items()}, {name: (site.size,) for name, site in sites.items()}


def _check_kept(unit: str, kept: Mapping[str, Any], sizes: Mapping[str, tuple[int, ...]]) -> None:
    unknown = sorted(set(kept) - set(sizes))
    if unknown:
        raise ValueError(f"The network has no {unit}s at {unknown[0]!r}; it has them at {sorted(sizes)}.")
    for name, array in kept.items():
        dtype, shape = np.asarray(array).dtype, np.shape(array)
        if dtype.kind != "b" or shape != sizes[name]:
            raise ValueError(f"kept[{name!r}] is {dtype} of shape {shape}; it must be bool of shape {sizes[name]}.")


def _spread(kept: np.ndarray, slot: Slot, shape: tuple[int, ...]) -> np.ndarray:
    """The booleans of a site's units as an array that broadcasts to a parameter's shape."""
    if slot.unit_of_index.size == 0:
        return kept
    last = slot.first_axis + slot.num_axes
    # An index that no unit owns is −1 and reads the True appended here.
    owned = np.append(kept, True)[slot.unit_of_index]
    assert owned.size == prod(shape[slot.first_axis : last])
    return owned.reshape((1,) * slot.first_axis + shape[slot.first_axis : last] + (1,) * (len(shape) - last))


def _names_in(tree: Any, shapes: Mapping[str, tuple[int, ...]]) -> dict[str, str]:
    """For each leaf of a tree that a mask touches, the mask's name for it: the leaf's path without one common prefix."""
    leaves = flatten(tree)
    if not shapes:
        return {}
    first = next(iter(shapes))
    prefixes = [path.removesuffix(first) for path in leaves if path == first or path.endswith(f"/{first}")]
    fitting = [prefix for prefix in prefixes if all(prefix + name in leaves for name in shapes)]
    if "" in fitting:
        fitting = [""]
    if len(fitting) != 1:
        raise ValueError(
            f"The mask's parameters, {first!r} among them, are {len(fitting)} times in this tree; "
            f"it must hold them once, and holds {sorted(leaves)}."
        )
    prefix = fitting[0]
    for name, shape in shapes.items():
        if tuple(leaves[prefix + name].shape) != shape:
            raise ValueError(
                f"The mask was made for another model: {prefix + name!r} is {leaves[prefix + name].shape}, not {shape}."
            )
    return {prefix + name: name for name in shapes}
