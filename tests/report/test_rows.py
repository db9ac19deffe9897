"""Rows survive a file, sizes are read as written, spreads are the textbook's."""

import dataclasses

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from annealsubnet.report import Row, keep_label, nearest, parse_keep, read_rows, summarize, write_rows

ROW = Row("weight", 0.05, "annealed", 3, True, 54, 1074, 0.9321, 0.25, 0.0625, 360, 60, 1100, 2200, 0.5, 0.25, 0.125)


@given(st.lists(st.floats(0, 1), min_size=2, max_size=9))
def test_a_spread_is_the_sample_standard_deviation(values: list[float]) -> None:
    summary = summarize(values)
    np.testing.assert_allclose([summary.mean, summary.spread], [np.mean(values), np.std(values, ddof=1)], atol=1e-12)


def test_one_seed_has_no_spread() -> None:
    assert summarize([0.5]).spread == 0


def test_rows_survive_the_file_they_are_written_to(tmp_path) -> None:
    rows = (ROW, dataclasses.replace(ROW, keep=200, refit=False, accuracy=1 / 3, unit="neuron"))
    write_rows(rows, tmp_path / "results.csv")
    assert read_rows(tmp_path / "results.csv") == rows


@given(st.lists(st.tuples(st.sampled_from([0, 1]), st.booleans(), st.floats(0, 9)), max_size=9))
def test_the_nearest_networks_are_one_for_each_choice_and_none_is_nearer(given: list[tuple[int, bool, float]]) -> None:
    rows = [dataclasses.replace(ROW, seed=seed, refit=refit, distance=distance) for seed, refit, distance in given]
    kept = nearest(rows)
    assert [row.seed for row in kept] == list(dict.fromkeys(row.seed for row in rows))
    assert all(row.distance == min(other.distance for other in rows if other.seed == row.seed) for row in kept)


def test_a_file_with_other_columns_is_refused(tmp_path) -> None:
    (tmp_path / "other.csv").write_text("a,b\n1,2\n")
    with pytest.raises(ValueError, match=r"has the columns \['a', 'b'\]"):
        read_rows(tmp_path / "other.csv")


@pytest.mark.parametrize(("text", "keep"), [(".5", 0.5), ("1.0", 1.0), ("1", 1), ("5%", 0.05), ("1e-2", 0.01), ("200", 200)])
def test_a_size_is_a_fraction_or_a_count(text: str, keep: float) -> None:
    assert parse_keep(text) == keep
    assert type(parse_keep(text)) is type(keep)


@pytest.mark.parametrize("text", ["0", "0.0", "1.5", "-3", "150%", "nan", "inf", "half", "", "1_0", "²"])
def test_anything_else_is_refused_with_what_was_found(text: str) -> None:
    with pytest.raises(ValueError, match="give a fraction above 0 and up to 1"):
        parse_keep(text)


def test_labels_say_fractions_in_percent() -> None:
    assert [keep_label(keep) for keep in (1.0, 0.07, 0.005, 7)] == ["100 %", "7 %", "0.5 %", "7"]
