"""The command prints one table and writes one folder."""

import json
from pathlib import Path

import numpy as np
import pytest

from annealsubnet.cli.methods import known_methods
from annealsubnet.report import read_rows

FILES = ["accuracy.png", "accuracy.svg", "config.json", "mask-weight.safetensors", "mask.safetensors"]
FILES += ["pruned-weight.safetensors", "pruned.safetensors", "report.html", "results.csv"]


def test_the_bare_command_prunes_digits(command, capsys) -> None:
    assert command("prune", "--seed", 0) == 0
    text = " ".join(capsys.readouterr().out.split())
    assert "scikit-learn's handwritten digits" in text and "annealed (ours)" in text and "report.html" in text
    assert sorted(path.name for path in Path("annealsubnet-results").iterdir()) == FILES
    rows = read_rows(Path("annealsubnet-results/results.csv"))
    assert {row.unit for row in rows} == {"", "neuron", "weight"}
    assert {row.method for row in rows} == {"dense", "annealed", "magnitude", "random", "taylor"}
    config = json.loads(Path("annealsubnet-results/config.json").read_text())
    assert config["seeds"] == [0] and config["keeps"]["neuron"] == [0.5, 0.25, 0.12] and "jax" in config["versions"]


def test_your_own_function_is_called_with_each_seed(command, capsys) -> None:
    assert command("prune", "mine:pairs", "--seeds", 3, 4, "--unit", "weight", "--keep", ".5", "10") == 0
    rows = read_rows(Path("annealsubnet-results/results.csv"))
    assert {(row.keep, row.kept) for row in rows if row.unit} == {(0.5, 20), (10, 10)}
    assert {row.seed for row in rows} == {3, 4} and rows[0].examples == 1200 and rows[0].accuracy == 1
    assert "mine:pairs" in capsys.readouterr().out


@pytest.mark.parametrize("words", [["mine:batches"], ["mine:batches", "--calibration", 20], ["mine:pairs", "--calibration", 7]])
def test_batches_and_pairs_of_arrays_are_data(command, words) -> None:
    assert command("prune", *words, "--seed", 0, "--unit", "weight", "--quiet") == 0


def test_few_methods_are_shown_before_the_refit_too(command, capsys) -> None:
    assert command("prune", "mine:pairs", "--method", "magnitude", "--seed", 0, "--unit", "weight") == 0
    text = capsys.readouterr().out
    assert "weights kept, then refitted" in text and "weights kept, no refit" in text
    assert command("prune", "mine:pairs", "--seed", 0, "--unit", "weight") == 0
    assert "no refit" not in capsys.readouterr().out


def test_without_refit_nothing_is_refitted(command, capsys) -> None:
    assert command("prune", "mine:pairs", "--no-refit", "--seed", 0, "--unit", "weight") == 0
    assert "refitted" not in capsys.readouterr().out
    assert not any(row.refit for row in read_rows(Path("annealsubnet-results/results.csv")))


def test_quiet_says_nothing_and_writes_everything(command, capsys) -> None:
    assert command("prune", "mine:pairs", "--quiet", "--seed", 0) == 0
    captured = capsys.readouterr()
    assert captured.out == captured.err == ""
    assert Path("annealsubnet-results/report.html").exists()


def test_a_second_run_takes_another_folder_and_overwrite_replaces(command) -> None:
    words = ("prune", "mine:pairs", "--quiet", "--seed", 0, "--unit", "weight")
    assert command(*words) == command(*words) == 0
    assert Path("annealsubnet-results-2/report.html").exists()
    before = Path("annealsubnet-results/config.json").read_text()
    assert command(*words, "--overwrite") == 0
    assert Path("annealsubnet-results/config.json").read_text() != before
    assert len(list(Path().glob("annealsubnet-results*"))) == 2


def test_a_file_of_your_own_data_gets_a_network(command, capsys) -> None:
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 3, 300)
    inputs = (rng.normal(size=(300, 5)) + labels[:, None]).astype(np.float32)
    np.savez("mine.npz", x_train=inputs[:200], y_train=labels[:200], x_test=inputs[200:], y_test=labels[200:])
    assert command("prune", "--data", "mine.npz", "--seed", 0, "--keep", ".5") == 0
    assert "mine.npz" in capsys.readouterr().out


def test_the_same_command_gives_the_same_numbers(command) -> None:
    words = ("prune", "mine:pairs", "--quiet", "--seed", 0, "--unit", "weight")
    assert command(*words) == command(*words) == 0
    first, second = (
        [(row.unit, row.keep, row.method, row.refit, row.accuracy, row.kept) for row in read_rows(path)]
        for path in sorted(Path().glob("annealsubnet-results*/results.csv"))
    )
    assert first == second


@pytest.mark.parametrize(("given", "timeout"), [((), 5), (("timeout=20",), 20)])
def test_tabu_search_gets_little_time_unless_told_otherwise(given, timeout):
    options = known_methods("tabu", given)["annealed"].keywords["sampler_options"]
    assert options == {"timeout": timeout}
