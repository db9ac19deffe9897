"""Progress bars: on a terminal and only when asked for."""

from collections.abc import Collection, Iterator
from typing import TypeVar

Item = TypeVar("Item")


def track(items: Collection[Item], what: str, *, progress: bool) -> Iterator[Item]:
    """Iterate over items under a bar that says what is going on."""
    if not progress:
        yield from items
        return
    from rich.console import Console
    from rich.progress import track as bar

    console = Console(stderr=True)
    yield from bar(items, what, console=console, transient=True, disable=not console.is_terminal)
