"""A smaller Flax Linen module: the user's own, whose layers are told their new sizes when they run.

A Linen module writes its sizes in code (`nn.Dense(512)` inside `__call__`), where nobody can change them; but every layer is an
object by the time it is called, and an interceptor can give it another `features` before.
"""

from collections.abc import Mapping
from dataclasses import fields
from functools import partial
from typing import Any

import flax.linen as nn
from flax.traverse_util import flatten_dict, unflatten_dict

from annealsubnet.networks import Layer
from annealsubnet.shrinking.cuts import Smaller
from annealsubnet.trees import flatten, replace_leaves

Sizes = Mapping[str, Mapping[str, Any]]
"""For each layer that changes, by path, the attributes it has while it runs."""

_STATISTICS = "batch_stats"
_SHRUNK = "_annealsubnet_shrunk"


def linen_statistics(variables: Mapping[str, Any]) -> dict[str, Any]:
    """Statistics of the model's BatchNorms by path."""
    return flatten(variables.get(_STATISTICS, {}))


def rebuild_linen(module: nn.Module, variables: Mapping[str, Any], smaller: Smaller) -> tuple[nn.Module, dict[str, Any]]:
    """The module with smaller layers, and its variables."""
    new = {**variables, "params": _with_leaves(variables["params"], smaller.params)}
    if _STATISTICS in variables:
        new[_STATISTICS] = replace_leaves(variables[_STATISTICS], smaller.statistics)
    sizes = {name: _layer_sizes(layer) for name, layer in smaller.layers.items()}
    for name, layer in smaller.layers.items():
        attention, _, last = name.rpartition("/")
        if last == "out" and f"{attention}/query" in smaller.layers:
            num_heads, head_size = layer.shape[:2]
            sizes[attention] = {"num_heads": num_heads, "qkv_features": num_heads * head_size, "out_features": layer.shape[-1]}
    arguments = {item.name: getattr(module, item.name) for item in fields(module) if item.init and item.name != "parent"}
    return _shrunk_class(type(module), sizes)(**arguments), new


def _shrunk_class(kind: type[nn.Module], sizes: Sizes) -> type[nn.Module]:
    """A subclass of the user's own that runs with other sizes; its variables have the names they had."""
    if hasattr(kind, _SHRUNK):
        kind, before = getattr(kind, _SHRUNK)
        sizes = {**before, **sizes}

    def __call__(self: Any, *args: Any, **kwargs: Any) -> Any:
        with nn.intercept_methods(partial(_resized, sizes)):
            return kind.__call__(self, *args, **kwargs)

    members = {"__call__": __call__, "__doc__": kind.__doc__, "__module__": kind.__module__, _SHRUNK: (kind, sizes)}
    return type(f"Shrunk{kind.__name__}", (kind,), members)


def _layer_sizes(layer: Layer) -> dict[str, Any]:
    features = layer.shape[layer.num_input_axes :]
    return {
        "features": features if len(features) > 1 else features[0],
        "feature_group_count": layer.groups,
        "use_bias": layer.bias is not None,
    }


def _with_leaves(tree: Mapping[str, Any], leaves: Mapping[str, Any]) -> dict[str, Any]:
    """The tree with other leaves, biases that it did not have among them."""
    flat = {tuple(path.split("/")): leaf for path, leaf in leaves.items()}
    return unflatten_dict({**flatten_dict(dict(tree)), **flat})


def _resized(sizes: Sizes, call: Any, args: Any, kwargs: Any, context: nn.module.InterceptorContext) -> Any:
    module = context.module
    found = sizes.get("/".join(module.path))
    if found is None:
        return call(*args, **kwargs)
    new = {name: value for name, value in found.items() if hasattr(module, name)}
    old = {name: getattr(module, name) for name in new}
    for name, value in new.items():
        object.__setattr__(module, name, value)
    try:
        return call(*args, **kwargs)
    finally:
        for name, value in old.items():
            object.__setattr__(module, name, value)
