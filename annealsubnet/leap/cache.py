"""Embeddings on disk, so that what took minutes to find is found once.

A file a problem graph and topology; it holds the chains and the `graph_id` of the working graph that they were verified on.
Whoever loads chains verifies them: the solver's `graph_id` may have changed since, and a file may hold anything.
"""

import hashlib
import json
import os
import tempfile
from pathlib import Path
from typing import Any

# Of a key in a file's name; file systems take 255 characters.
_LONGEST_NAME = 200


class EmbeddingCache:
    """Embeddings in a folder.

    Args:
        folder: by default `annealsubnet/embeddings` in the user's cache folder ($XDG_CACHE_HOME or ~/.cache).

    Example:
        >>> import tempfile
        >>> cache = EmbeddingCache(tempfile.mkdtemp())
        >>> cache.store("graph", "zephyr", "a", ((1, 2), (3,)), "clique")
        >>> cache.load("graph", "zephyr", "a"), cache.load("graph", "zephyr", "b")[2]
        ((((1, 2), (3,)), 'clique', True), False)
    """

    def __init__(self, folder: str | os.PathLike[str] | None = None) -> None:
        base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
        self.folder = Path(folder) if folder is not None else Path(base) / "annealsubnet" / "embeddings"

    def __repr__(self) -> str:
        return f"EmbeddingCache({str(self.folder)!r})"

    def load(self, key: str, topology: str, graph_id: str) -> tuple[tuple[tuple[int, ...], ...], str, bool] | None:
        """(chains, method, whether they were stored for this very graph), or None; a damaged file counts as none."""
        try:
            held: dict[str, Any] = json.loads(self._path(key, topology).read_text(encoding="utf-8"))
            chains = tuple(tuple(int(qubit) for qubit in chain) for chain in held["chains"])
            return chains, str(held["method"]), held["graph_id"] == graph_id
        except (OSError, ValueError, KeyError, TypeError):
            return None

    def store(self, key: str, topology: str, graph_id: str, chains: Any, method: str) -> None:
        """Keep chains that are valid on this graph; without effect where the folder cannot be written."""
        path = self._path(key, topology)
        text = json.dumps({"graph_id": graph_id, "method": method, "chains": [list(chain) for chain in chains]})
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            with tempfile.NamedTemporaryFile("w", dir=self.folder, delete=False, encoding="utf-8") as file:
                file.write(text)
        except OSError:
            return
        try:
            os.replace(file.name, path)  # a reader sees the old file or the new one, never half of it
        except OSError:
            Path(file.name).unlink(missing_ok=True)

    def _path(self, key: str, topology: str) -> Path:
        short = key if len(key) <= _LONGEST_NAME else f"{key[:40]}-{hashlib.sha256(key.encode()).hexdigest()[:24]}"
        return self.folder / f"{topology}-{short}.json"
