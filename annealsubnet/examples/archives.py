"""Archives: the arrays of a `.npz` file, or what is wrong with it."""

import zipfile
import zlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np

_DAMAGE = (ValueError, OSError, EOFError, RuntimeError, zipfile.BadZipFile, zlib.error)
"""What a member of an archive that was cut, changed, encrypted or made by something else makes NumPy raise."""


def read_archive(path: Path, wanted: Sequence[str] | None = None) -> dict[str, np.ndarray]:
    """Arrays of a `.npz` file by name.

    Args:
        path: of a file that there is.
        wanted: names; all by default.

    Raises:
        ValueError: if it is no such file, lacks an array, or is damaged; the words go on after "Cannot read FILE:".
    """
    # NumPy takes any other file for a single array or for a pickle, whatever its name.
    if not zipfile.is_zipfile(path):
        raise ValueError("it is no .npz file, or a truncated one")
    try:
        with path.open("rb") as raw, np.load(raw, allow_pickle=False) as file:
            missing = [name for name in wanted or () if name not in file.files]
            arrays = {} if missing else {name: file[name] for name in (file.files if wanted is None else wanted)}
            present = list(file.files)
    except _DAMAGE as error:
        raise ValueError(f"it is damaged, or not of numbers alone ({type(error).__name__}: {error})") from error
    if missing:
        raise ValueError(f"it has {present} but not {missing}")
    foreign = [name for name, array in arrays.items() if not isinstance(array, np.ndarray)]
    if foreign:
        raise ValueError(f"{foreign} in it are no arrays")
    return arrays
