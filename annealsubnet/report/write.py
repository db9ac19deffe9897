"""Writing: every file of a report, complete or not at all."""

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from annealsubnet.report.figures import accuracy_figure, inline_svg, png, svg
from annealsubnet.report.folder import FORMAT, MARKER, complete_folder
from annealsubnet.report.page import Facts, page
from annealsubnet.report.rows import write_rows
from annealsubnet.report.story import Story


def write_report(
    folder: Path,
    story: Story,
    facts: Facts,
    *,
    files: Mapping[str, Callable[[Path], None]],
    config: Mapping[str, Any],
    overwrite: bool = False,
    check: Callable[[], None] = lambda: None,
) -> tuple[str, ...]:
    """Write results.csv, accuracy.png, accuracy.svg, `files`, config.json and report.html into a new folder.

    Args:
        folder: from `choose_folder`.
        story: rows, names and pictures.
        facts: what the page tells beside them.
        files: masks and pruned networks: name of a file to what writes it.
        config: everything that it takes to run it again; written to config.json.
        overwrite: whether complete earlier results in `folder` may be replaced.
        check: called when all files are written and before they appear; what it raises leaves no folder behind.

    Returns:
        Names of the files.

    Raises:
        ValueError: Somebody else filled `folder` in the meantime.
        OSError: The disk doesn't take the files.
    """
    names = ("report.html", "results.csv", "accuracy.png", "accuracy.svg", *files, MARKER)
    with complete_folder(folder, overwrite=overwrite) as draft:
        write_rows(story.rows, draft / "results.csv")
        figure = accuracy_figure(story.rows, story.labels, ours=story.ours, refit=story.has_refit)
        (draft / "accuracy.png").write_bytes(png(figure))
        (draft / "accuracy.svg").write_text(svg(figure), encoding="utf-8")
        for name, write in files.items():
            write(draft / name)
        document = page(story, facts, inline_svg(figure, story.caption))
        (draft / "report.html").write_text(document, encoding="utf-8")
        whole = {"format": FORMAT, "files": sorted(names), **config}
        (draft / MARKER).write_text(json.dumps(whole, indent=2, default=str) + "\n", encoding="utf-8")
        check()
    return names
