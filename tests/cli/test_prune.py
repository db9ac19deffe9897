"""The command prints one table and writes one folder."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import annealsubnet
from annealsubnet import report
from annealsubnet.cli.commands import parse
from annealsubnet.cli.methods import known_methods
from annealsubnet.cli.prune import polish_rounds
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


@pytest.mark.parametrize("methods", [["--method", "magnitude"], []], ids=["one", "all"])
def test_own_weights_are_shown_beside_the_refitted(command, capsys, methods) -> None:
    assert command("prune", "mine:pairs", *methods, "--seed", 0, "--unit", "weight") == 0
    lines = capsys.readouterr().out.splitlines()
    assert any(line.split() == ["weights", "kept", "refitted", "own", "weights"] for line in lines)


@pytest.mark.parametrize(("words", "kept"), [([], "refitted"), (["--no-refit"], "own weights")])
def test_it_says_whose_weights_the_saved_networks_have(command, capsys, words, kept) -> None:
    assert command("prune", "mine:pairs", "--seed", 0, *words) == 0
    assert json.loads(Path("annealsubnet-results/config.json").read_text())["networks"] == {"neuron": kept, "weight": kept}
    said = f"(neurons: {kept}; weights: {kept})" if not words else "the weights as the method left them"
    for text in (capsys.readouterr().out, Path("annealsubnet-results/report.html").read_text()):
        assert said in " ".join(text.split())


def test_without_refit_nothing_is_refitted(command, capsys) -> None:
    assert command("prune", "mine:pairs", "--no-refit", "--seed", 0, "--unit", "weight") == 0
    assert "refitted" not in capsys.readouterr().out.lower()
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


def test_a_run_that_starts_while_another_works_takes_another_folder(command, monkeypatch) -> None:
    words = ("prune", "mine:pairs", "--quiet", "--unit", "weight", "--seed")
    compare, later = report.compare, [1]

    def compare_slowly(*arguments: Any, **options: Any) -> Any:
        found = compare(*arguments, **options)
        assert not later or command(*words, later.pop()) == 0
        return found

    monkeypatch.setattr(report, "compare", compare_slowly)
    assert command(*words, 0) == 0
    folders = ["annealsubnet-results", "annealsubnet-results-2"]
    assert [json.loads(Path(folder, "config.json").read_text())["seeds"] for folder in folders] == [[0], [1]]
    assert sorted(map(str, Path().glob("annealsubnet*"))) == folders


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


def test_annealed_is_prune_as_it_is_but_in_the_demonstration() -> None:
    assert known_methods()["annealed"] is annealsubnet.prune
    for words, rounds in ((["mine:pairs"], None), (["--data", "digits"], None), ([], 0), (["--polish", "3"], 3)):
        assert polish_rounds(parse(["prune", *words])) == rounds


@pytest.mark.parametrize(("given", "timeout"), [((), 5), (("timeout=20",), 20)])
def test_tabu_search_gets_little_time_unless_told_otherwise(given, timeout):
    options = known_methods("tabu", given)["annealed"].keywords["sampler_options"]
    assert options == {"timeout": timeout}
