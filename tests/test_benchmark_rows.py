"""Benchmarks go on from the rows in their folder: none is lost, none is half a row, and none is of other settings."""

import json
import re
import runpy
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

from benchmarks.rows import Rows, settle, write_whole

BENCHMARKS = Path(__file__).parent.parent / "benchmarks"
ROWS = [{"method": "obc", "seed": seed, "accuracy": 4.56789 + seed} for seed in range(3)]
TOLD = [{name: str(value) for name, value in row.items()} for row in ROWS]
SETTINGS = [
    ("weights", "calibration"),
    ("weights_resnet20", "stages"),
    ("weights_resnet20", "quick"),
    ("weight_cost", "ridge"),
    ("select_refit", "sweeps"),
    ("tickets", "steps"),
    ("tickets", "examples"),
    ("neuron_tickets", "passes"),
    ("distillation", "sweeps"),
    ("local_forms", "calibration"),
    ("digits", "keeps"),
    ("decompose", "seed"),
    ("landscapes", "size"),
    ("worth", "seed"),
    ("leap", "quick"),
]


@dataclass(frozen=True)
class Typed:
    method: str
    seed: int
    accuracy: float


def test_wherever_a_row_is_cut_off_the_others_stay_and_it_is_measured_again(tmp_path):
    rows = Rows(tmp_path / "rows.csv", ("method", "seed"))
    rows.append(*ROWS[:2])
    text = rows.path.read_bytes()
    start = text[:-1].rfind(b"\n") + 1
    for end in range(start, len(text)):
        rows.path.write_bytes(text[:end])
        assert rows.read() == TOLD[:1] and rows.has("obc", 0) and not rows.has("obc", 1)
        rows.append(ROWS[2])
        assert rows.read() == [TOLD[0], TOLD[2]]
        assert rows.read_as(Typed) == [Typed(**ROWS[0]), Typed(**ROWS[2])]


def test_a_header_that_was_cut_off_is_written_again(tmp_path):
    rows = Rows(tmp_path / "rows.csv")
    rows.path.write_text("method,se")
    assert rows.read() == [] and rows.read_as(Typed) == []
    rows.append(*ROWS)
    assert rows.read() == TOLD


def test_rows_of_other_columns_are_refused_and_the_order_of_columns_does_not_matter(tmp_path):
    rows = Rows(tmp_path / "rows.csv")
    rows.append(ROWS[0])
    rows.append(dict(reversed(ROWS[1].items())))
    assert rows.read() == TOLD[:2]
    with pytest.raises(SystemExit, match=r"has the columns .*, these rows .*'loss'"):
        rows.append({**ROWS[2], "loss": 1.0})
    assert rows.read() == TOLD[:2]
    other = Rows(tmp_path / "other.csv")
    other.append({"method": "obc"})
    with pytest.raises(SystemExit, match="give these an --out of their own"):
        other.read_as(Typed)


def test_a_folder_takes_the_same_settings_again_and_refuses_others(tmp_path):
    path = tmp_path / "new" / "config.json"
    settle(path, {"out": path.parent, "keeps": (0.5, 0.25), "seeds": [0]}, selecting=("seeds",))
    settle(path, {"out": path.parent, "keeps": (0.5, 0.25), "seeds": [1, 2]}, selecting=("seeds",))
    assert json.loads(path.read_text())["config"]["seeds"] == [1, 2]
    with pytest.raises(SystemExit, match=r"holds rows of keeps \[0.5, 0.25\], not \[0.5\]: give"):
        settle(path, {"out": path.parent, "keeps": (0.5,), "seeds": [1, 2]}, selecting=("seeds",))
    assert json.loads(path.read_text())["config"]["keeps"] == [0.5, 0.25]


def test_a_file_written_whole_leaves_no_draft(tmp_path):
    write_whole(tmp_path / "rows.jsonl", "one\n")
    write_whole(tmp_path / "rows.jsonl", "one\ntwo\n")
    assert [path.name for path in tmp_path.iterdir()] == ["rows.jsonl"]
    assert (tmp_path / "rows.jsonl").read_text() == "one\ntwo\n"


@pytest.mark.parametrize(("script", "setting"), SETTINGS)
def test_benchmarks_refuse_a_folder_of_other_settings_before_they_measure(script, setting, tmp_path, monkeypatch):
    told = tmp_path / ("config one neuron.json" if script == "worth" else "config.json")
    told.write_text(json.dumps({"config": {setting: "another"}}))
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    monkeypatch.setenv("DWAVE_CACHE_HOME", "off")  # as `leap.py` sets it
    monkeypatch.setattr(sys, "argv", [script, "--out", str(tmp_path)])
    with pytest.raises(SystemExit, match=f"of {setting} 'another', not .*: give these an --out of their own"):
        runpy.run_path(str(BENCHMARKS / f"{script}.py"), run_name="__main__")
    assert [path.name for path in tmp_path.iterdir()] == [told.name]


@pytest.mark.parametrize("script", sorted(BENCHMARKS.glob("*.py")), ids=lambda path: path.stem)
def test_rows_are_appended_in_one_place(script):
    appends = re.search(r"""open\(["']a""", script.read_text(encoding="utf-8"))
    assert (appends is not None) == (script.stem == "rows"), f"{script.name} appends on its own; use rows.Rows.append."
