"""Downloads that are either complete and verified, or not there.

A file is streamed beside its final place, its SHA-256 is compared with the one written in this package, and only then
does it take its name (an atomic rename). An interrupted download leaves nothing under that name.
"""

import hashlib
import os
import sys
import tempfile
import urllib.request
from contextlib import suppress
from pathlib import Path

_CHUNK = 1 << 20


def cache_folder() -> Path:
    """Where downloads are kept: `$XDG_CACHE_HOME/annealsubnet`, by default `~/.cache/annealsubnet`."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "annealsubnet"


def fetch(url: str, target: Path, *, sha256: str, advice: str = "") -> Path:
    """Download `url` to `target` and verify it; progress is shown on a terminal.

    Args:
        url: what to read.
        target: the file to write; its folder is created.
        sha256: what the content must hash to, in hexadecimal.
        advice: a sentence added to the error when the download fails.

    Returns:
        `target`.

    Raises:
        OSError: when the file cannot be downloaded or written, or is not the expected one. Nothing is left behind.
    """
    from rich.console import Console
    from rich.progress import wrap_file

    digest = hashlib.sha256()
    target.parent.mkdir(parents=True, exist_ok=True)
    handle, partial = tempfile.mkstemp(dir=target.parent, prefix=target.name, suffix=".part")
    try:
        with os.fdopen(handle, "wb") as file, urllib.request.urlopen(url, timeout=30) as response:
            size = int(response.headers.get("Content-Length") or 0)
            with wrap_file(
                response,
                size,
                description=f"Downloading {target.name}",
                console=Console(stderr=True),
                disable=not sys.stderr.isatty(),
                transient=True,
            ) as stream:
                while chunk := stream.read(_CHUNK):
                    digest.update(chunk)
                    file.write(chunk)
        if digest.hexdigest() != sha256:
            raise OSError(f"its SHA-256 is {digest.hexdigest()}, expected {sha256}")
        os.replace(partial, target)
    except OSError as error:
        raise OSError(f"Could not download {url}: {error}. {advice}".rstrip()) from error
    finally:
        with suppress(FileNotFoundError):
            os.unlink(partial)
    return target
