"""`annealsubnet ticket`: its folder, its restart, and what it refuses."""

import csv
import json

import numpy as np
import pytest

from annealsubnet.cli import main
from annealsubnet.masks import Mask

WORDS = ["ticket", "--passes", "1", "--checks", "2", "--quiet"]


def test_a_ticket_is_found_and_gone_on_with(tmp_path, capsys):
    folder = tmp_path / "found"
    assert main([*WORDS, "--out", str(folder)]) == 0
    assert {path.name for path in folder.iterdir()} == {
        "mask.safetensors", "checks.csv", "ticket.png", "config.json", "search.npz",
    }  # fmt: skip
    mask = Mask.load(folder / "mask.safetensors")
    assert all(abs(2 * int(np.count_nonzero(kept)) - kept.size) <= 1 for kept in mask.kept.values())
    with (folder / "checks.csv").open() as file:
        rows = list(csv.DictReader(file))
    config = json.loads((folder / "config.json").read_text())
    assert len(rows) == 2 and 0 < config["test_accuracy"] <= 1
    assert main([*WORDS, "--out", str(folder), "--resume", "--seed", "1"]) == 2
    assert "other settings: seed" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["--resume"], "no search to go on with"),
        (["--keep", "1.5"], "1.5"),
        (["--network", "nonsense"], "no network 'nonsense'"),
        (["--network", "conv-2", "--data", "mnist"], "is for cifar10"),
        (["--network", "nowhere:find"], "no module nowhere"),
    ],
)
def test_bad_requests_are_refused_in_a_sentence(words, says, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert main(["ticket", *words]) == 2
    assert says in capsys.readouterr().err
