"""Parameter files: a network's arrays as safetensors, under the names that they have in the user's own tree.

Names and shapes are the file's fingerprint: it is read only into a model that has exactly these. State that is drawn anew in
every run (the random streams of NNX) is left out.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from safetensors import SafetensorError, safe_open
from safetensors.flax import save

from annealsubnet.mask_files import write_whole
from annealsubnet.networks import Model, Network
from annealsubnet.trees import check_finite, flatten, replace_leaves

_HEADER = "annealsubnet.parameters"
_VERSION = "1"
_FEW = 3


def save_parameters(pruned: Any, path: str | Path) -> None:
    """Write a safetensors file, whole or not at all.

    Args:
        pruned: what `prune`, `refit` or `Mask.apply` returned: an `nnx.Module`, Linen variables or a parameter tree. Of a
            module all arrays are written, statistics of BatchNorms among them.
        path: of the file; what is there is replaced.

    Example:
        >>> import tempfile
        >>> path = Path(tempfile.mkdtemp()) / "pruned.safetensors"
        >>> save_parameters({"out": {"kernel": jnp.ones((3, 2))}}, path)
        >>> load_parameters(path, {"out": {"kernel": jnp.zeros((3, 2))}})["out"]["kernel"].sum().item()
        6.0
    """
    write_whole(Path(path), save(dict(_arrays(_tree(pruned)[0])), {_HEADER: _VERSION}))


def load_parameters(path: str | Path, model: Any) -> Any:
    """Read what `save_parameters` wrote.

    Args:
        path: of the file.
        model: of the same architecture, with any weights: an `nnx.Module`, what `from_linen` or `from_function` return, or
            Linen variables or a parameter tree. It is not changed.

    Returns:
        A new `nnx.Module`, Linen variables or parameter tree, as the model came.

    Raises:
        ValueError: if the file is truncated or holds something else, was written for another model, or has values that are
            NaN or infinite.
        FileNotFoundError: if there is none.
    """
    tree, merge = _tree(model)
    arrays, found = _arrays(tree), _read(Path(path))
    odd = sorted(name for name in arrays.keys() | found.keys() if _shape(arrays, name) != _shape(found, name))
    if odd:
        told = "; ".join(f"{name!r} is {_shape(found, name)} there, {_shape(arrays, name)} here" for name in odd[:_FEW])
        more = f" and {len(odd) - _FEW} more" if len(odd) > _FEW else ""
        raise ValueError(f"{path} was written for another model: {told}{more}. Give the model that was pruned.")
    check_finite(found, what=f"{path}: array")
    return merge(replace_leaves(tree, {name: jnp.asarray(found[name], array.dtype) for name, array in arrays.items()}))


def _tree(model: Any) -> tuple[Any, Any]:
    """The tree of all arrays to save, and the function from such a tree to an object in the user's form."""
    if isinstance(model, Network):
        model = model.model
    if isinstance(model, Model):
        model = model.source if model.form == "nnx" else model.export(model.params)
    if not isinstance(model, nnx.Module):
        return model, lambda tree: tree
    split: Any = nnx.split(model, nnx.RngState, ...)
    graph, random, rest = split
    return rest, lambda tree: nnx.merge(graph, random, tree, copy=True)


def _arrays(tree: Any) -> dict[str, jax.Array]:
    return {name: jnp.asarray(leaf) for name, leaf in flatten(tree).items()}


def _shape(arrays: Mapping[str, jax.Array], name: str) -> Any:
    return arrays[name].shape if name in arrays else "missing"


def _read(path: Path) -> dict[str, jax.Array]:
    if not path.is_file():
        raise FileNotFoundError(f"There is no parameter file {path}; give the path of a file that save_parameters wrote.")
    try:
        with safe_open(path, framework="flax") as file:
            header = (file.metadata() or {}).get(_HEADER)
            arrays = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - not a dict
    except (SafetensorError, OSError) as error:
        raise ValueError(f"{path} is no parameter file, or a truncated one: {error}") from error
    if header != _VERSION:
        raise ValueError(f"{path} is no parameter file of version {_VERSION}: its metadata has {_HEADER!r} {header!r}.")
    return arrays
