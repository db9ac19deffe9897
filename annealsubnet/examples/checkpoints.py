"""Checkpoints of named networks: files with PyTorch's names and layouts, or with the module's own.

PyTorch stores a dense weight as [out, in] and a convolution's as [out, in, height, width]; Flax as [in, out] and
[height, width, in, out]. A name such as `layer2.0.bn1.running_mean` becomes the path `layer2/0/bn1/mean`. A file whose
names contain "/" is read as it is, names and layouts being the module's own.

The module's dense layers flatten (height, width, channels), as PyTorch's would a single channel.
"""

import os
from collections.abc import Mapping
from pathlib import Path

import jax.numpy as jnp
import numpy as np
from flax import nnx

from annealsubnet.examples.archives import read_archive
from annealsubnet.examples.networks import named_network

_LEAVES = {"running_mean": "mean", "running_var": "var"}


def load_checkpoint(name: str, path: str | os.PathLike[str]) -> nnx.Module:
    """The named network with the weights of a checkpoint, in evaluation mode.

    Args:
        name: one of `NETWORKS`.
        path: a `.npz` or `.safetensors` file.

    Returns:
        A new module.

    Raises:
        ValueError: when the network is unknown, the file cannot be read, its names or shapes are not the network's (all
            that are missing, unexpected or of another shape are listed), or a weight is NaN or infinite.
        FileNotFoundError: when there is no such file.
    """
    network = named_network(name)
    graph, state = nnx.split(nnx.eval_shape(lambda: network.build(seed=0)))  # shapes only: no weights are drawn
    flat = {"/".join(map(str, keys)): (keys, leaf) for keys, leaf in nnx.to_flat_state(state)}
    found = _converted(read_arrays(Path(path)), network.checkpoint_names)
    _check(found, {key: leaf.shape for key, (_, leaf) in flat.items()}, f"{path} as a checkpoint of {name}")
    loaded = [(keys, leaf.replace(jnp.asarray(found[key], leaf.dtype))) for key, (keys, leaf) in flat.items()]
    return nnx.merge(graph, nnx.from_flat_state(loaded))


def read_arrays(path: Path) -> dict[str, np.ndarray]:
    """All arrays of a `.npz` or `.safetensors` file by name.

    Raises:
        FileNotFoundError: when there is no such file.
        ValueError: when it is neither, or damaged.
    """
    from safetensors import SafetensorError
    from safetensors.numpy import load_file

    if not path.is_file():
        raise FileNotFoundError(f"There is no checkpoint {path}; give the path of a .npz or .safetensors file.")
    try:
        if path.suffix == ".safetensors":
            return load_file(path)
        if path.suffix == ".npz":
            return read_archive(path)
    except (ValueError, OSError, SafetensorError) as error:
        raise ValueError(f"Cannot read the checkpoint {path}: {error}. The file may be truncated.") from error
    raise ValueError(f"Cannot read the checkpoint {path}: its name ends neither in .npz nor in .safetensors.")


def _converted(arrays: Mapping[str, np.ndarray], renames: Mapping[str, str]) -> dict[str, np.ndarray]:
    """The arrays under the module's paths and in Flax's layouts, from PyTorch's where the names are PyTorch's."""
    if any("/" in name for name in arrays):
        return dict(arrays)
    converted = {}
    for name, array in arrays.items():
        if name.endswith("num_batches_tracked"):
            continue
        layer, _, leaf = name.replace(".", "/").rpartition("/")
        for theirs, ours in renames.items():
            layer = layer.replace(theirs, ours)
        if leaf == "weight":
            leaf = "scale" if array.ndim == 1 else "kernel"
            array = array.transpose(2, 3, 1, 0) if array.ndim == 4 else array.T
        converted[f"{layer}/{_LEAVES.get(leaf, leaf)}".lstrip("/")] = array
    return converted


def _check(found: Mapping[str, np.ndarray], shapes: Mapping[str, tuple[int, ...]], what: str) -> None:
    """Refuse arrays that are not exactly those of `shapes`, naming every difference."""
    missing = sorted(set(shapes) - set(found))
    extra = sorted(set(found) - set(shapes))
    mismatched = [
        f"{name} of {found[name].shape} instead of {shapes[name]}"
        for name in sorted(set(shapes) & set(found))
        if found[name].shape != shapes[name]
    ]
    problems = [
        f"{label}: {', '.join(names)}"
        for label, names in (("missing", missing), ("unexpected", extra), ("of another shape", mismatched))
        if names
    ]
    if problems:
        raise ValueError(f"Cannot use {what}; {'; '.join(problems)}. Give a checkpoint of that network.")
    infinite = sorted(name for name in shapes if not np.isfinite(found[name]).all())
    if infinite:
        raise ValueError(f"Cannot use {what}; NaN or infinite values in {', '.join(infinite)}.")
