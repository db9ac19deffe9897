"""Page: `report.html`, the whole story of a comparison in one file that needs nothing else.

What was found comes first, then the figure, the table, the masks, the times, and at the end what was asked and where
it ran. Style, figures and pictures are inside the file; it loads nothing.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape
from importlib.resources import files
from string import Template

from annealsubnet.report.figures import inline_svg, mask_figure
from annealsubnet.report.names import explanation
from annealsubnet.report.rows import DENSE, Row, keep_label
from annealsubnet.report.story import Story
from annealsubnet.report.tables import Block, Cell, arrange


@dataclass(frozen=True)
class Facts:
    """What a page tells beside the results, as pairs of a name and a text.

    Attributes:
        command: the command line that was typed.
        asked: network, data, sizes and all other choices.
        machine: versions, processor, date.
        seconds: stage of the run to its wall time.
    """

    command: str
    asked: Mapping[str, str]
    machine: Mapping[str, str]
    seconds: Mapping[str, float]


def page(story: Story, facts: Facts, figure: str) -> str:
    """The page.

    Args:
        story: rows, masks and names.
        facts: everything else there is to tell.
        figure: accuracy against size, as an SVG element.

    Returns:
        A complete HTML document.
    """
    dense, blocks = arrange(story.rows)
    template = Template((files("annealsubnet.report") / "page.html").read_text(encoding="utf-8"))
    return template.substitute(
        title=escape(story.headline),
        style=(files("annealsubnet.report") / "page.css").read_text(encoding="utf-8"),
        headline=_joined(story.headline),
        lead=_joined(story.before),
        figure=f"<figure>{figure}<figcaption>{escape(story.caption)}</figcaption></figure>",
        reading=escape(story.reading("is bold")),
        tables="\n".join(_results(dense, block, story) for block in blocks) + _legend(story),
        masks="\n".join(_mask(story, unit) for unit in story.pictures),
        saved=escape(story.saved),
        costs=_costs(story),
        times=_times(story.rows, facts.seconds, story.labels),
        command=escape(facts.command),
        asked=_facts(facts.asked),
        machine=_facts(facts.machine),
    )


def _joined(text: str) -> str:
    """Escaped `text` in which no line ends between a number and its percent sign."""
    return escape(text).replace(" %", "&nbsp;%")


def _results(dense: Cell, block: Block, story: Story) -> str:
    """A block of results as a table."""
    heads = "".join(
        f'<th scope="col">{escape(keep_label(keep))}<small>{escape(size)}</small></th>'
        for keep, size in zip(block.keeps, block.sizes, strict=True)
    )
    lines = [f'<tr class="dense"><th scope="row">dense network</th>{_cells([dense] * len(block.keeps))}</tr>']
    for method, cells in block.cells.items():
        kind = ' class="ours"' if method == story.ours else ""
        lines.append(f'<tr{kind}><th scope="row">{escape(story.labels.get(method, method))}</th>{_cells(cells)}</tr>')
    table = (
        f'<div class="scroll"><table class="results"><thead><tr><th scope="col">method</th>{heads}</tr></thead>'
        f"<tbody>{''.join(lines)}</tbody></table></div>"
    )
    return f"<h3>{escape(block.title.capitalize())}</h3>{table}"


def _cells(cells: Sequence[Cell | None]) -> str:
    """Table cells; the best in bold."""
    texts = []
    for cell in cells:
        spread = f" <small>± {cell.spread}</small>" if cell and cell.spread else ""
        texts.append(f"<td{' class=best' if cell and cell.best else ''}>{cell.mean if cell else '–'}{spread}</td>")
    return "".join(texts)


def _legend(story: Story) -> str:
    """A line about each method."""
    methods = dict.fromkeys(row.method for row in story.rows if row.method != DENSE and explanation(row.method))
    facts = _facts({story.labels.get(method, method): explanation(method) for method in methods})
    return f"<details><summary>What the methods do</summary>{facts}</details>"


def _mask(story: Story, unit: str) -> str:
    """The picture of the mask that was kept for `unit`."""
    keep, layers, shape = story.pictures[unit]
    text = f"{unit.capitalize()}s kept at {keep_label(keep)} by the method “{story.labels.get(story.ours, story.ours)}”"
    text += f", seed {story.seeds[0]}: orange stays, gray is removed."
    picture = inline_svg(mask_figure(layers, unit, shape=shape), escape(text))
    return f"<figure>{picture}<figcaption>{escape(text)}</figcaption></figure>"


def _costs(story: Story) -> str:
    """Nonzero parameters and operations of the dense network, and of ours at each size."""
    first = [row for row in story.rows if row.seed == story.seeds[0] and row.refit == (story.has_refit and row.method != DENSE)]
    lines = []
    for row in (row for row in first if row.method in (DENSE, story.ours)):
        name = "dense network" if row.method == DENSE else f"{keep_label(row.keep)} of the {row.unit}s"
        kind = ' class="dense"' if row.method == DENSE else ""
        numbers = f"<td>{row.nonzeros:,}</td><td>{row.flops:,}</td>"
        lines.append(f'<tr{kind}><th scope="row">{escape(name)}</th>{numbers}</tr>')
    return (
        '<h3>What is left to store and to compute</h3><div class="scroll"><table><thead><tr><th scope="col">kept</th>'
        '<th scope="col">nonzero parameters</th><th scope="col">operations for one example</th></tr></thead>'
        f"<tbody>{''.join(lines)}</tbody></table></div>"
    )


def _times(rows: Sequence[Row], stages: Mapping[str, float], labels: Mapping[str, str]) -> str:
    """The stages of the run, and the mean time of each method."""
    total = sum(stages.values())
    run = _facts({**{stage: f"{seconds:.1f} s" for stage, seconds in stages.items()}, "in all": f"{total:.1f} s"})
    pruned = [row for row in rows if row.method != DENSE]
    units = list(dict.fromkeys(row.unit for row in pruned))
    heads = "".join(f'<th scope="col">{unit}s: choose</th><th scope="col">refit</th>' for unit in units)
    lines = []
    for method in dict.fromkeys(row.method for row in pruned):
        cells = ""
        for unit in units:
            mine = [row for row in pruned if (row.method, row.unit) == (method, unit)]
            cells += f"<td>{_mean_time([row.seconds_select for row in mine])}</td>"
            cells += f"<td>{_mean_time([row.seconds_refit for row in mine if row.refit])}</td>"
        lines.append(f'<tr><th scope="row">{escape(labels.get(method, method))}</th>{cells}</tr>')
    return (
        f'{run}<h3>Mean time for one mask</h3><div class="scroll"><table><thead><tr><th scope="col">method</th>{heads}'
        f"</tr></thead><tbody>{''.join(lines)}</tbody></table></div>"
        '<p class="note">The first call of each method includes its compilation.</p>'
    )


def _mean_time(seconds: Sequence[float]) -> str:
    """The mean in seconds, as text."""
    return f"{sum(seconds) / len(seconds):.2f} s" if seconds else "–"


def _facts(facts: Mapping[str, str]) -> str:
    """A table of names and texts."""
    lines = (f'<tr><th scope="row">{escape(name)}</th><td>{escape(text)}</td></tr>' for name, text in facts.items())
    return f'<table class="facts"><tbody>{"".join(lines)}</tbody></table>'
