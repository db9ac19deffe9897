"""The page tells everything and loads nothing."""

import json
import re
from html.parser import HTMLParser
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from annealsubnet.report import Facts, Story, read_rows, write_report
from annealsubnet.report.names import labels

VOID = {"meta", "link", "br", "img", "input", "hr"}


class Outline(HTMLParser):
    """Tags are closed in order; attributes are collected."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.attributes: list[tuple[str, str]] = []

    def handle_starttag(self, tag: str, attrs: list) -> None:
        self.attributes += attrs
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list) -> None:
        self.attributes += attrs

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


@pytest.fixture
def written(rows, tmp_path) -> Path:
    rng = np.random.default_rng(0)
    story = Story(
        rows=rows,
        labels=labels() | {"magnitude": "<magnitude>"},
        ours="annealed",
        network="the network of mine:<b>net</b>",
        data="its own data",
        pictures={
            "neuron": (0.5, {"fc1": rng.random(40) < 0.5}, None),
            "weight": (0.25, {"fc1": rng.random((64, 40)) < 0.25}, (8, 8, 1)),
        },
    )
    facts = Facts("annealsubnet prune 'a & b'", {"network": "mine"}, {"python": "3.11"}, {"load": 1.5, "prune": 2.0})
    mask = SimpleNamespace(save=lambda path: Path(path).write_bytes(b"mask"))
    write_report(tmp_path / "out", story, facts, files={"mask.safetensors": mask.save}, config={"seeds": [0, 1]})
    return tmp_path / "out"


def test_all_files_are_there_and_listed(written, rows) -> None:
    found = sorted(path.name for path in written.iterdir())
    config = json.loads((written / "config.json").read_text())
    assert found == config["files"]
    assert {"report.html", "results.csv", "accuracy.png", "accuracy.svg", "mask.safetensors"} < set(found)
    assert config["seeds"] == [0, 1]
    assert read_rows(written / "results.csv") == rows


def test_the_page_is_well_formed_and_loads_nothing(written) -> None:
    page = (written / "report.html").read_text()
    outline = Outline()
    outline.feed(page)
    assert outline.open == []
    references = [value for name, value in outline.attributes if name in ("src", "href", "xlink:href", "data")]
    assert all(value.startswith(("#", "data:")) for value in references)
    assert not re.search(r"<script|<link|@import|url\((?!#)", page)


def test_the_page_tells_the_whole_story(written) -> None:
    page = (written / "report.html").read_text()
    for text in ("97.5&nbsp;%", "annealed (ours)", "20 of 40 neurons", "97.3", "seed 0", "3.11"):
        assert text in page
    for heading in ("Accuracy against size", "The table", "What was kept", "How long each step took", "What was asked"):
        assert f"<h2>{heading}</h2>" in page
    assert "What is left to store and to compute" in page and "<td>30</td><td>100</td>" in page
    assert "in all" in page and "3.5 s" in page


def test_what_users_typed_is_escaped(written) -> None:
    page = (written / "report.html").read_text()
    assert "&lt;magnitude&gt;" in page and "<magnitude>" not in page
    assert "mine:&lt;b&gt;net" in page and "a &amp; b" in page


def test_a_check_that_raises_leaves_no_folder(rows, tmp_path) -> None:
    def interrupted() -> None:
        raise KeyboardInterrupt

    story = Story(rows, {}, "annealed", "a network", "data", {})
    with pytest.raises(KeyboardInterrupt):
        write_report(tmp_path / "out", story, Facts("", {}, {}, {}), files={}, config={}, check=interrupted)
    assert list(tmp_path.iterdir()) == []
