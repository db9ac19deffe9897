"""Figures: accuracy against size, and masks as pictures.

Drawn from rows and masks with Matplotlib's objects directly (no pyplot, no global state). For the page the SVG's colors
are replaced by CSS variables, so that one figure is legible on light and on dark paper.
"""

import io
import re
from collections.abc import Collection, Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, NullLocator

from annealsubnet.report.rows import DENSE, Row, Summary, keep_label, summarize

INK, MUTED, FAINT, PAPER, OURS = "#1c2024", "#60646c", "#dfe3e8", "#ffffff", "#c8500a"
HUES = ("#0072b2", "#00855f", "#a3478d", "#7a6a00", "#3a8fc7", "#7d5b46", "#5e60b8", "#b04a5a", "#4d7a80", "#6b7280")
"""Okabe and Ito's colors, and their kin, darkened to a contrast of 4.5 with white."""
MARKERS = "osD^vPX<>h"
FINEST = 0.05
"""Errors below this, in percent, are drawn as this."""
PIXELS = 1.25
"""Pixels of the page for a point of a figure, at most."""
TICKS = (0, 20, 40, 60, 80, 90, 95, 97, 98, 99, 99.5, 99.9)
VARIABLES = {INK: "--ink", MUTED: "--muted", FAINT: "--faint", PAPER: "--paper", OURS: "--ours"} | {
    hue: f"--hue{number}" for number, hue in enumerate(HUES)
}
"""Color to the CSS variable that stands for it on the page."""

_STYLE: Any = {
    "font.family": "sans-serif",
    "font.size": 10,
    "svg.fonttype": "path",
    "svg.hashsalt": "annealsubnet",
    "text.color": INK,
    "axes.edgecolor": MUTED,
    "axes.labelcolor": INK,
    "xtick.color": MUTED,
    "ytick.color": MUTED,
    "xtick.labelcolor": INK,
    "ytick.labelcolor": INK,
}


def accuracy_figure(rows: Sequence[Row], labels: Mapping[str, str], *, ours: str, refit: bool = True) -> Figure:
    """Mean accuracy against size, a panel for each unit, with a band of one standard deviation for our method.

    Args:
        rows: of a comparison.
        labels: method to the name that is shown.
        ours: method drawn thick, on top. The vertical axis is logarithmic in the error, since what matters
            happens near the dense network.
        refit: which stage to draw.

    Returns:
        The figure.
    """
    drawn = [row for row in rows if row.method != DENSE and row.refit == refit]
    units = list(dict.fromkeys(row.unit for row in drawn))
    others = [method for method in dict.fromkeys([*labels, *(row.method for row in drawn)]) if method != ours]
    looks = _looks(others, {row.method for row in drawn})
    dense = summarize([row.accuracy for row in rows if row.method == DENSE])
    with rc_context(_STYLE):
        figure = Figure(figsize=(5.4 * len(units) if len(units) > 1 else 6.6, 4.3), layout="constrained")
        FigureCanvasAgg(figure)
        panels = figure.subplots(1, len(units), squeeze=False)[0]
        for panel, unit in zip(panels, units, strict=True):
            _panel(panel, [row for row in drawn if row.unit == unit], dense, labels, looks | {ours: (OURS, "o")})
            panel.set_title(f"{unit}s kept", loc="left", fontsize=11, fontweight="bold")
        panels[0].set_ylabel("test accuracy, %")
    return figure


def _looks(methods: Sequence[str], drawn: Collection[str]) -> dict[str, tuple[str, str]]:
    """Color and marker of each drawn method: those of its place among `methods`, or the next that no other drawn one has."""
    pairs = [(hue, MARKERS[(number + turn) % len(MARKERS)]) for turn in range(len(MARKERS)) for number, hue in enumerate(HUES)]
    looks: dict[str, tuple[str, str]] = {}
    for index, method in enumerate(methods):
        if method in drawn:
            first = index % len(HUES)
            ways = [*pairs[first : len(HUES)], *pairs[:first], *pairs[len(HUES) :]]
            looks[method] = next(pair for pair in ways if pair not in looks.values())
    return looks


def mask_figure(layers: Mapping[str, np.ndarray], unit: str, *, shape: tuple[int, ...] | None = None) -> Figure:
    """Which units a mask keeps: an image for each neuron's inputs, or a row of cells for each layer.

    Args:
        layers: layer to a boolean array: a kernel's shape for weights, one dimension for neurons and heads.
        unit: what the mask switches.
        shape: of one input of the network (height, width, channels); a Dense layer that takes it flattened is drawn as
            such images.

    Returns:
        The figure.
    """
    with rc_context(_STYLE):
        if unit == "weight":
            layer, kept = min(layers.items(), key=lambda each: bool(np.all(each[1])))  # the first that lost any
            picture, caption = _weights_picture(np.asarray(kept), shape)
            figure = _picture(picture, f"{layer}: {caption}")
        else:
            figure = _rows_picture(layers, unit)
    return figure


def png(figure: Figure) -> bytes:
    """The figure as a PNG of 200 dots per inch on white."""
    file = io.BytesIO()
    figure.savefig(file, format="png", dpi=200, facecolor=PAPER)
    return file.getvalue()


def svg(figure: Figure) -> str:
    """The figure as an SVG with a white ground."""
    file = io.StringIO()
    with rc_context(_STYLE):
        figure.savefig(file, format="svg", facecolor=PAPER, metadata={"Date": None})
    return file.getvalue()


def inline_svg(figure: Figure, title: str) -> str:
    """The figure as an SVG element for a page: colors are CSS variables, `title` is what a screen reader says."""
    element = svg(figure)
    element = element[element.index("<svg") :]
    for color, variable in VARIABLES.items():
        element = element.replace(color, f"var({variable})")
    widest = round(PIXELS * 72 * figure.get_figwidth())
    tag = rf'<svg viewBox="\1" style="max-width: {widest}px" role="img">'
    element = re.sub(r'<svg [^>]*?viewBox="([^"]*)"[^>]*>', tag, element, count=1)
    element = re.sub(r"<metadata>.*?</metadata>", "", element, flags=re.DOTALL)
    return element.replace(">", f"><title>{title}</title>", 1)


def _panel(
    panel: Axes, rows: Sequence[Row], dense: Summary, labels: Mapping[str, str], looks: Mapping[str, tuple[str, str]]
) -> None:
    """Draw one unit's curves, the last of `looks` on top; sizes shrink to the right, where each curve has its name."""
    keeps = list(dict.fromkeys(row.keep for row in rows))
    share = {row.keep: row.kept / row.size for row in rows}
    keeps.sort(key=share.__getitem__, reverse=True)
    place = np.array([share[keep] for keep in keeps])
    panel.set_xscale("log")
    panel.set_yscale("function", functions=(_to_height, _from_height))
    panel.axhline(100 * dense.mean, color=MUTED, linewidth=1, linestyle=(0, (4, 3)))
    ends: list[tuple[float, str, str]] = [(100 * dense.mean, "dense network", MUTED)]
    present = {row.method for row in rows}
    for method, (color, marker) in ((name, look) for name, look in looks.items() if name in present):
        found = [summarize([row.accuracy for row in rows if (row.method, row.keep) == (method, keep)]) for keep in keeps]
        mean, spread = 100 * np.array([one.mean for one in found]), 100 * np.array([one.spread for one in found])
        _curve(panel, place, mean, spread, color, marker)
        ends.append((float(mean[-1]), labels.get(method, method), color))
    panel.set_xlim(place.max() * 1.12, place.min() / 1.12 if len(place) > 1 else place.min() / 1.5)
    panel.set_xticks(place, [keep_label(keep) for keep in keeps])
    panel.xaxis.set_minor_locator(NullLocator())
    panel.spines[["top", "right"]].set_visible(False)
    panel.grid(axis="y", color=FAINT, linewidth=0.8)
    panel.set_axisbelow(True)
    low, high = _limits(rows, dense)
    panel.set_ylim(low, high)
    panel.yaxis.set_major_locator(FixedLocator([tick for tick in TICKS if low <= tick <= high]))
    panel.yaxis.set_major_formatter("{x:g}")
    panel.yaxis.set_minor_locator(NullLocator())
    _name_ends(panel, ends)


def _curve(panel: Axes, place: np.ndarray, mean: np.ndarray, spread: np.ndarray, color: str, marker: str) -> None:
    """Draw the curve of one method; every method has bars of one standard deviation, ours a band."""
    if color == OURS:
        panel.fill_between(place, mean - spread, mean + spread, color=color, alpha=0.18, linewidth=0, zorder=3)
        panel.plot(place, mean, color=color, linewidth=3, marker="o", markersize=6, zorder=5)
        return
    panel.errorbar(
        place, mean, yerr=spread, color=color, linewidth=1.3, elinewidth=0.8, marker=marker, markersize=4, zorder=4,
        alpha=0.9,
    )  # fmt: skip


def _to_height(accuracy: np.ndarray | float) -> np.ndarray:
    """Where an accuracy in percent is drawn: an error half as large is always the same step up."""
    return -np.log2(np.maximum(100.0 - np.asarray(accuracy, float), FINEST))


def _from_height(height: np.ndarray | float) -> np.ndarray:
    """The accuracy drawn at `height`."""
    return 100.0 - np.exp2(-np.asarray(height, float))


def _limits(rows: Sequence[Row], dense: Summary) -> tuple[float, float]:
    """Lowest and highest accuracy of a panel, in percent, with room around the means."""
    seen = [100 * row.accuracy for row in rows] + [100 * dense.mean]
    low, high = float(_to_height(min(seen))), float(_to_height(min(max(seen), 100 - 2 * FINEST)))
    margin = 0.06 * (high - low) + 0.05
    return max(0.0, float(_from_height(low - margin))), float(_from_height(high + margin))


def _name_ends(panel: Axes, ends: Sequence[tuple[float, str, str]]) -> None:
    """Write each curve's name at its right end, moved apart where they would overlap."""
    low, high = map(float, _to_height(np.array(panel.get_ylim())))
    order = sorted(ends, reverse=True)
    heights = _apart([min(max(float(_to_height(one[0])), low), high) for one in order], 0.052 * (high - low), low, high)
    places = _from_height(np.array(heights))
    across = panel.get_yaxis_transform()
    for (value, label, color), place in zip(order, places, strict=True):
        panel.plot((1.0, 1.04), (value, place), transform=across, color=color, linewidth=0.7, alpha=0.7, clip_on=False)
        weight = "bold" if color == OURS else "normal"
        panel.text(1.05, place, label, transform=across, color=color, fontsize=9, fontweight=weight, va="center")


def _apart(values: Sequence[float], step: float, low: float, high: float) -> list[float]:
    """Descending `values` moved as little as it takes for neighbors to be `step` apart, within [low, high] if they fit.

    Example:
        >>> _apart([3.0, 2.9, 0.0], 1.0, 0.0, 4.0)
        [3.45, 2.45, 0.0]
    """
    groups: list[tuple[float, int]] = []  # each: the least-squares place of its first label, and how many it has
    for value in values:
        group = (value, 1)
        while groups and groups[-1][0] - groups[-1][1] * step < group[0]:
            (first, above), (second, below) = groups.pop(), group
            group = ((above * first + below * (second + above * step)) / (above + below), above + below)
        groups.append(group)
    places = [first - step * index for first, members in groups for index in range(members)]
    last = len(places) - 1
    inside = (min(max(place, low + step * (last - index)), high - step * index) for index, place in enumerate(places))
    return list(inside)


def _weights_picture(kept: np.ndarray, shape: tuple[int, ...] | None) -> tuple[np.ndarray, str]:
    """A picture of a kernel's mask (NaN where there is nothing), and what it shows."""
    matrix = kept.reshape(-1, kept.shape[-1])
    inputs, outputs = matrix.shape
    image = _image_shape(inputs, shape)
    if kept.ndim > 2 or image is None:
        return matrix.astype(float), f"a column for each of {outputs} neurons, a row for each of {inputs} inputs"
    shown = min(outputs, 48)
    columns = min(shown, 12)
    lines = -(-shown // columns)
    height, width = image
    canvas = np.full((lines * (height + 1) - 1, columns * (width + 1) - 1), np.nan)
    for neuron in range(shown):
        top, left = neuron // columns * (height + 1), neuron % columns * (width + 1)
        tile = matrix[:, neuron].reshape(height, width, -1).mean(axis=2)
        canvas[top : top + height, left : left + width] = tile
    some = f"the first {shown} of {outputs}" if shown < outputs else f"each of {outputs}"
    return canvas, f"the inputs that {some} neurons kept, as {height} × {width} images"


def _image_shape(inputs: int, shape: tuple[int, ...] | None) -> tuple[int, int] | None:
    """Height and width, if a flattened input is an image of `shape`."""
    if shape is None or len(shape) not in (2, 3) or int(np.prod(shape)) != inputs:
        return None
    return shape[0], shape[1]


def _picture(picture: np.ndarray, title: str) -> Figure:
    """A figure of one picture: kept in our color, dropped as a faint ground, nothing where there is nothing."""
    height, width = picture.shape
    figure = Figure(figsize=(8.6, min(max(8.6 * height / width, 1.4), 7) + 0.5), layout="constrained")
    FigureCanvasAgg(figure)
    panel = figure.subplots()
    panel.imshow(_colored(picture), interpolation="nearest", aspect="auto" if height > width else "equal")
    panel.set_axis_off()
    panel.set_title(title, loc="left", fontsize=10)
    return figure


def _rows_picture(layers: Mapping[str, np.ndarray], unit: str) -> Figure:
    """A line of cells for each layer, wrapped at 64."""
    wrapped = {name: _wrapped(np.asarray(kept)) for name, kept in layers.items()}
    heights = [len(cells) for cells in wrapped.values()]
    figure = Figure(figsize=(8.6, sum(0.135 * height + 0.33 for height in heights)), layout="constrained")
    FigureCanvasAgg(figure)
    panels = figure.subplots(len(wrapped), 1, squeeze=False, height_ratios=heights)[:, 0]
    for panel, (name, cells) in zip(panels, wrapped.items(), strict=True):
        kept = np.asarray(layers[name])
        panel.imshow(_colored(cells), interpolation="nearest", aspect="equal")
        panel.set_xticks(np.arange(cells.shape[1] + 1) - 0.5, [])
        panel.set_yticks(np.arange(cells.shape[0] + 1) - 0.5, [])
        panel.grid(color=PAPER, linewidth=1.5)
        panel.tick_params(length=0)
        panel.spines[:].set_visible(False)
        panel.set_title(f"{name}: {int(kept.sum())} of {kept.size} {unit}s kept", loc="left", fontsize=10)
    return figure


def _wrapped(kept: np.ndarray) -> np.ndarray:
    """`kept` in lines of 64 cells, NaN after its end."""
    lines = -(-kept.size // 64)
    cells = np.full(lines * 64, np.nan)
    cells[: kept.size] = kept.reshape(-1)
    return cells.reshape(lines, 64)


def _colored(picture: np.ndarray) -> np.ndarray:
    """Red, green, blue, opacity: our color as strong as the share kept, over a gray that works on any paper."""
    red, green, blue = (int(OURS[place : place + 2], 16) / 255 for place in (1, 3, 5))
    share = np.nan_to_num(picture)[..., None]
    color = share * np.array([red, green, blue, 1.0]) + (1 - share) * np.array([0.5, 0.5, 0.5, 0.16])
    return np.where(np.isnan(picture)[..., None], 0.0, color)
