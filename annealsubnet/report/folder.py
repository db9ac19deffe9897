"""The output folder: complete or not there.

Everything is written into a hidden sibling folder, flushed to the disk, and renamed into place as the last act: whoever
looks at the folder, at any moment and after any interruption, finds all of its files or none. (A search that can be gone on
with writes into the folder itself, the marker first.) A name that nobody gave is reserved by an empty folder until then, so
that no two commands take the same one. Folders that hold anything other than results of this package are never touched.
"""

import json
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

MARKER = "config.json"
"""The file by which a folder of results is recognized."""
FORMAT = "annealsubnet results 1"
"""The value of `format` in it; `files` lists the others."""


@contextmanager
def choose_folder(asked: Path | None, *, default: Path, overwrite: bool) -> Iterator[Path]:
    """Where the results go, for a block that does the work; checked before any is done.

    Args:
        asked: the folder that the user named, or `None`.
        default: taken when none was named; if it exists, the first free of `default-2`, `default-3`, and so on. It is reserved
            by an empty folder, which goes again if the block ends, well or not, before there is anything in it.
        overwrite: whether earlier results may be replaced; when no folder was named, those in `default` are.

    Yields:
        A folder that does not exist, is empty, or holds results that may be replaced.

    Raises:
        ValueError: The folder can't be used; the sentence says why.
    """
    if asked is None and not overwrite:
        folder = _reserve(default)
        reserved = folder.absolute()  # what is done in the block may go to another folder
        try:
            yield folder
        finally:
            with suppress(OSError):  # not empty: there are results
                reserved.rmdir()
        return
    folder = default if asked is None else asked
    _check_parent(folder)
    if folder.is_symlink() or (folder.exists() and not folder.is_dir()):
        raise ValueError(f"{folder} is not a folder; choose another one with --out.")
    if folder.exists() and any(folder.iterdir()):
        _check_ours(folder, overwrite)
    yield folder


@contextmanager
def complete_folder(folder: Path, *, overwrite: bool) -> Iterator[Path]:
    """A new folder to write into that becomes `folder` when the block ends well, and vanishes otherwise.

    Args:
        folder: from `choose_folder`.
        overwrite: whether earlier results in it may be replaced.

    Yields:
        The temporary folder.

    Raises:
        ValueError: Somebody else filled `folder` in the meantime.
    """
    folder = folder.absolute()
    folder.parent.mkdir(parents=True, exist_ok=True)
    draft = Path(tempfile.mkdtemp(prefix=f".{folder.name}-", suffix=".partial", dir=folder.parent))
    try:
        yield draft
        draft.chmod(0o777 & ~_umask())
        _flush(draft)
        _rename(draft, folder, overwrite)
    finally:
        shutil.rmtree(draft, ignore_errors=True)


def remove_results(folder: Path, *, but: str) -> None:
    """Remove the results that `folder` says it holds, all but the marker and one file."""
    removed = _files_of(folder) - {MARKER, but}
    for path in folder.iterdir():
        if path.name in removed:
            path.unlink()


def _reserve(default: Path) -> Path:
    """The first free of `default`, `default-2`, `default-3`, and so on, made in the moment in which it is found free."""
    _check_parent(default)
    folder, number = default, 1
    while not _is_made(folder):
        number += 1
        folder = default.with_name(f"{default.name}-{number}")
    return folder


def _is_made(folder: Path) -> bool:
    """Whether a new `folder` could be made; False if there is something of that name."""
    try:
        folder.mkdir(parents=True)
    except FileExistsError:
        return False
    return True


def _check_parent(folder: Path) -> None:
    """Raise unless `folder` could be made: its closest existing ancestor is a folder that may be written to."""
    ancestor = folder.absolute().parent
    while not ancestor.exists():
        ancestor = ancestor.parent
    if not ancestor.is_dir():
        raise ValueError(f"{folder} can't be made, since {ancestor} is not a folder; choose another one with --out.")
    if not os.access(ancestor, os.W_OK | os.X_OK):
        raise ValueError(f"{folder} can't be made, since {ancestor} may not be written to; choose another with --out.")


def _check_ours(folder: Path, overwrite: bool) -> None:
    """Raise unless `folder` holds results of this package, nothing else, and may be replaced."""
    files = _files_of(folder)
    foreign = sorted(path.name for path in folder.iterdir() if path.name not in files)
    if foreign:
        shown = ", ".join(foreign[:3]) + (f" and {len(foreign) - 3} more" if len(foreign) > 3 else "")
        raise ValueError(f"{folder} exists and holds other files ({shown}); choose an empty or new folder with --out.")
    if not overwrite:
        raise ValueError(f"{folder} holds earlier results; choose another folder with --out, or add --overwrite.")


def _files_of(folder: Path) -> set[str]:
    """Names of the result files that `folder` says it holds; none if it isn't a folder of results."""
    try:
        config = json.loads((folder / MARKER).read_text(encoding="utf-8"))
        return {MARKER, *map(str, config["files"])} if config["format"] == FORMAT else set()
    except (OSError, ValueError, KeyError, TypeError):
        return set()


def _rename(draft: Path, folder: Path, overwrite: bool) -> None:
    """Put `draft` in the place of `folder`; earlier results are moved aside first and come back if that fails."""
    aside = draft.with_suffix(".previous")
    try:
        if folder.exists() and any(folder.iterdir()):
            _check_ours(folder, overwrite)
            folder.rename(aside)
        elif folder.exists() and os.name == "nt":
            folder.rmdir()  # elsewhere `rename` replaces an empty folder, so that its name is never free for another command
        draft.rename(folder)
    except BaseException:
        if aside.exists() and not folder.exists():
            aside.rename(folder)
        raise
    shutil.rmtree(aside, ignore_errors=True)
    _flush_directory(folder.parent)


def _flush(draft: Path) -> None:
    """Have the disk hold every file of `draft`."""
    for path in draft.iterdir():
        with path.open("rb") as file:
            os.fsync(file.fileno())
    _flush_directory(draft)


def _flush_directory(path: Path) -> None:
    """Have the disk hold the names in `path`, where the system lets one ask for it."""
    if os.name == "nt":
        return
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _umask() -> int:
    """The permissions that new files do not get."""
    mask = os.umask(0o022)
    os.umask(mask)
    return mask
