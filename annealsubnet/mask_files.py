"""Mask files: safetensors with one packed bit a unit, and a JSON header that names sites, parameters and shapes."""

import json
import os
from collections.abc import Mapping
from math import prod
from pathlib import Path
from tempfile import NamedTemporaryFile
from typing import Any

import jax
import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import save

from annealsubnet.networks import Slot

_HEADER = "annealsubnet.mask"
_VERSION = 1

Contents = tuple[
    str,
    dict[str, np.ndarray],
    dict[str, tuple[Slot, ...]],
    dict[str, tuple[int, ...]],
    jax.ShapeDtypeStruct | None,
]
"""Unit, kept, slots, shapes, example: the fields of a `Mask` in order."""


def write_mask(
    path: Path,
    unit: str,
    kept: Mapping[str, np.ndarray],
    slots: Mapping[str, tuple[Slot, ...]],
    shapes: Mapping[str, tuple[int, ...]],
    example: jax.ShapeDtypeStruct | None,
) -> None:
    """Write a mask through a temporary file beside `path`, so that the file is whole or not there."""
    tensors, sites = {}, {}
    for name, array in kept.items():
        tensors[f"kept:{name}"] = np.packbits(array.ravel())
        sites[name] = {"shape": array.shape, "slots": [(slot.path, slot.first_axis, slot.num_axes) for slot in slots[name]]}
        for number, slot in enumerate(slots[name]):
            tensors[f"slot:{number}:{name}"] = slot.unit_of_index.astype(np.int32)
    header = {
        "version": _VERSION,
        "unit": unit,
        "sites": sites,
        "shapes": shapes,
        "example": None if example is None else {"shape": example.shape, "dtype": str(example.dtype)},
    }
    write_whole(path, save(tensors, {_HEADER: json.dumps(header)}))


def write_whole(path: Path, contents: bytes) -> None:
    """Write a file through a temporary one beside it, so that it is whole or not there."""
    with NamedTemporaryFile(dir=path.parent, prefix=f".{path.name}.", delete=False) as file:
        temporary = Path(file.name)
        try:
            file.write(contents)
            file.flush()
            os.fsync(file.fileno())
            # A temporary file is its owner's alone; this one is for whoever may read the folder.
            umask = os.umask(0)
            os.umask(umask)
            temporary.chmod(0o666 & ~umask)
            os.replace(temporary, path)
        except BaseException:
            temporary.unlink(missing_ok=True)
            raise


def read_mask(path: Path) -> Contents:
    """Read what `write_mask` wrote.

    Raises:
        ValueError: if the file is truncated or holds something else.
        FileNotFoundError: if there is none.
    """
    from safetensors import safe_open

    if not path.is_file():
        raise FileNotFoundError(f"There is no mask file {path}; give the path of a file that Mask.save wrote.")
    try:
        with safe_open(path, framework="numpy") as file:
            header = (file.metadata() or {}).get(_HEADER)
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - not a dict
    except (SafetensorError, OSError) as error:
        raise ValueError(f"{path} is no mask file, or a truncated one: {error}") from error
    if header is None:
        raise ValueError(f"{path} is a safetensors file but no mask: its metadata has no {_HEADER!r}.")
    try:
        return _contents(json.loads(header), tensors)
    except (KeyError, TypeError, ValueError, IndexError) as error:
        raise ValueError(f"{path} is a mask file that is damaged or of a later version: {error!r}") from error


def _contents(header: Mapping[str, Any], tensors: Mapping[str, np.ndarray]) -> Contents:
    if header["version"] != _VERSION:
        raise ValueError(f"version {header['version']}, this package reads {_VERSION}")
    shapes = {path: tuple(shape) for path, shape in header["shapes"].items()}
    kept: dict[str, np.ndarray] = {}
    slots: dict[str, tuple[Slot, ...]] = {}
    for name, site in header["sites"].items():
        shape = tuple(site["shape"])
        size = int(np.prod(shape, dtype=np.int64))
        kept[name] = np.unpackbits(tensors[f"kept:{name}"], count=size).astype(bool).reshape(shape)
        kept[name].setflags(write=False)
        slots[name] = tuple(
            Slot(path, first_axis, num_axes, _units(tensors[f"slot:{number}:{name}"], size))
            for number, (path, first_axis, num_axes) in enumerate(site["slots"])
        )
        for slot in slots[name]:
            _check_slot(slot, shape, shapes[slot.path])
    example = header["example"]
    struct = None if example is None else jax.ShapeDtypeStruct(tuple(example["shape"]), example["dtype"])
    return header["unit"], kept, slots, shapes, struct


def _check_slot(slot: Slot, units: tuple[int, ...], shape: tuple[int, ...]) -> None:
    """Raise unless a slot numbers axes that its parameter has, or, where it numbers none, is a whole kernel of weights."""
    numbered = shape[slot.first_axis : slot.first_axis + slot.num_axes]
    fits = slot.unit_of_index.size == prod(numbered) if slot.unit_of_index.size else shape == units
    if not fits or len(numbered) != slot.num_axes:
        raise ValueError(f"a slot of {slot.path!r} does not fit the shape {shape}")


def _units(unit_of_index: np.ndarray, size: int) -> np.ndarray:
    if unit_of_index.size and not (unit_of_index.min() >= -1 and unit_of_index.max() < size):
        raise ValueError("a slot names a unit that its site does not have")
    return unit_of_index
