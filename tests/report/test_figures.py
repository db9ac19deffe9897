"""Figures draw every method, keep labels apart, and leave nothing global behind."""

import re

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from annealsubnet import baselines
from annealsubnet.report.figures import VARIABLES, _apart, accuracy_figure, inline_svg, mask_figure, png, svg
from annealsubnet.report.names import labels

FINITE = st.floats(0, 10, allow_nan=False)


def test_there_is_a_panel_for_each_unit_and_a_name_for_each_method(rows) -> None:
    figure = accuracy_figure(rows, labels(), ours="annealed")
    assert [panel.get_title(loc="left") for panel in figure.axes] == ["neurons kept", "weights kept"]
    for panel in figure.axes:
        assert {"annealed (ours)", "magnitude"} <= {text.get_text() for text in panel.texts}
        assert panel.get_xlim()[0] > panel.get_xlim()[1], "sizes shrink to the right"


def test_the_methods_of_a_figure_look_different(rows) -> None:
    import dataclasses

    names = [*baselines.METHODS, "alps", "obc"]
    own = [dataclasses.replace(row, method=name) for row in rows if row.method == "magnitude" for name in names]
    own += [row for row in rows if row.method == "dense"]
    panel = accuracy_figure(own, labels(), ours="annealed").axes[0]
    looks = {(line.get_color(), line.get_marker()) for line in panel.lines if line.get_marker() not in ("", "None", None)}
    assert len(looks) == len(names)


def test_a_figure_of_one_size_one_method_and_perfect_accuracy_can_be_drawn(rows) -> None:
    import dataclasses

    one = [dataclasses.replace(row, accuracy=1.0) for row in rows if row.keep != 0.25 and row.method != "magnitude"]
    assert png(accuracy_figure(one, labels(), ours="annealed")).startswith(b"\x89PNG")


def test_the_same_rows_give_the_same_figure(rows) -> None:
    assert svg(accuracy_figure(rows, {}, ours="annealed")) == svg(accuracy_figure(rows, {}, ours="annealed"))


def test_an_inline_figure_takes_its_colors_from_the_page(rows) -> None:
    element = inline_svg(accuracy_figure(rows, labels(), ours="annealed"), "accuracy")
    assert element.startswith("<svg viewBox=") and element.rstrip().endswith("</svg>")
    assert "<title>accuracy</title>" in element and "var(--ours)" in element
    assert not any(color in element for color in VARIABLES)


@pytest.mark.parametrize(
    ("layers", "unit", "shape", "says"),
    [
        ({"fc1": (64, 32)}, "weight", (8, 8, 1), "as 8 × 8 images"),
        ({"fc1": (784, 300)}, "weight", (28, 28, 1), "neurons kept"),
        ({"fc2": (20, 10)}, "weight", (8, 8, 1), "a row for each of 20 inputs"),
        ({"conv1": (3, 3, 16, 32)}, "weight", (32, 32, 3), "a row for each of 144 inputs"),
        ({"fc1": (200,), "fc2": (5,)}, "neuron", None, "of 200 neurons kept"),
    ],
)
def test_masks_are_drawn_as_what_they_are(layers, unit, shape, says) -> None:
    rng = np.random.default_rng(0)
    figure = mask_figure({name: rng.random(size) < 0.3 for name, size in layers.items()}, unit, shape=shape)
    assert any(says in panel.get_title(loc="left") for panel in figure.axes)
    assert png(figure).startswith(b"\x89PNG")


def test_the_first_layer_that_lost_weights_is_drawn() -> None:
    whole, pruned = np.ones((64, 32), bool), np.eye(32, dtype=bool)
    for layers, drawn in (({"fc1": whole, "fc2": pruned, "fc3": pruned}, "fc2"), ({"fc1": whole, "fc2": whole}, "fc1")):
        assert mask_figure(layers, "weight").axes[0].get_title(loc="left").startswith(f"{drawn}: ")


@given(st.lists(FINITE, min_size=1, max_size=12))
def test_labels_are_kept_apart_in_order_and_inside(values: list[float]) -> None:
    order = sorted(values, reverse=True)
    places = np.array(_apart(order, 0.5, 0.0, 10.0))
    assert len(places) == len(order)
    assert (np.diff(places) <= -0.5 + 1e-6).all()
    assert places.min() >= -1e-6 and places.max() <= 10 + 1e-6


@given(st.integers(1, 8))
def test_labels_that_are_apart_stay_where_they_are(count: int) -> None:
    values = [10.0 - place for place in range(count)]
    np.testing.assert_allclose(_apart(values, 0.5, 0.0, 10.0), values)


def test_nothing_is_drawn_through_pyplot(rows) -> None:
    import sys

    accuracy_figure(rows, labels(), ours="annealed")
    pyplot = sys.modules.get("matplotlib.pyplot")
    assert pyplot is None or not pyplot.get_fignums()


def test_ids_of_an_inline_figure_are_referred_to_within_it(rows) -> None:
    element = inline_svg(accuracy_figure(rows, labels(), ours="annealed"), "accuracy")
    ids = set(re.findall(r'id="([^"]+)"', element))
    assert set(re.findall(r"(?:url\(#|href=\"#)([^\")]+)", element)) <= ids
