"""Parameter trees as flat dictionaries.

A parameter has one name everywhere: its path in the user's tree, joined by "/" (`"encoder/layers/0/kernel"`).
"""

from collections.abc import Callable, Mapping
from typing import Any

import jax
import numpy as np

# NNX states end every path with the attribute that holds the array.
_VALUE = "value"


def path_of(key_path: tuple[Any, ...]) -> str:
    """The "/"-joined name of a leaf; the trailing attribute of an NNX variable is not part of it."""
    names = [jax.tree_util.keystr((key,), simple=True) for key in key_path]
    if len(names) > 1 and names[-1] == _VALUE and isinstance(key_path[-1], jax.tree_util.GetAttrKey):
        names.pop()
    return "/".join(names)


def flatten(tree: Any) -> dict[str, Any]:
    """Every leaf of a tree by its path.

    Example:
        >>> sorted(flatten({"dense": {"kernel": 1.0, "bias": 2.0}, "scale": 3.0}))
        ['dense/bias', 'dense/kernel', 'scale']
    """
    leaves, _ = jax.tree_util.tree_flatten_with_path(tree)
    return {path_of(path): leaf for path, leaf in leaves}


def replace_leaves(tree: Any, leaves: Mapping[str, Any]) -> Any:
    """A new tree of the same structure whose leaves named in `leaves` are exchanged."""
    return map_leaves(lambda path, leaf: leaves.get(path, leaf), tree)


def map_leaves(function: Callable[[str, Any], Any], tree: Any) -> Any:
    """A new tree with `function(path, leaf)` in every place."""
    return jax.tree_util.tree_map_with_path(lambda path, leaf: function(path_of(path), leaf), tree)


def check_finite(arrays: Mapping[str, Any], *, what: str) -> None:
    """Raise if a floating array holds NaN or infinity.

    Raises:
        ValueError: with the name of the first such array and how many of its values are not finite.
    """
    for name, array in arrays.items():
        values = np.asarray(array)
        if np.issubdtype(values.dtype, np.integer) or values.dtype == bool:
            continue
        bad = values.size - int(np.isfinite(values.astype(np.float32, copy=False)).sum())
        if bad:
            raise ValueError(f"{what} {name!r} holds {bad} of {values.size} values that are NaN or infinite.")
