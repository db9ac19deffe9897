"""`annealsubnet ticket`: its folder, its restart, and what it refuses."""

import csv
import json
from dataclasses import replace

import numpy as np
import pytest

from annealsubnet.batches import first_inputs
from annealsubnet.budgets import budget_of
from annealsubnet.cli import main
from annealsubnet.cli.commands import Ticket
from annealsubnet.cli.ticket import lottery_of, ticket
from annealsubnet.masks import Mask
from annealsubnet.networks import as_network
from annealsubnet.report import parse_keep

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
    assert "seed 0 there and 1 here" in capsys.readouterr().err


def test_an_interrupted_search_keeps_its_log_and_goes_on(tmp_path):
    logs = {}
    for name, stop in (("whole", None), ("cut", 2)):
        left = [stop]

        def interrupt(left=left):
            if left[0] is not None:
                left[0] -= 1
                if left[0] == 0:
                    left[0] = None
                    raise KeyboardInterrupt

        options = Ticket(passes=1, checks=3, quiet=True, out=tmp_path / name)
        if stop is not None:
            with pytest.raises(KeyboardInterrupt):
                ticket(options, check_interrupt=interrupt)
            with (options.out / "checks.csv").open() as file:
                assert len(list(csv.DictReader(file))) == 2
            options = replace(options, resume=True)
        ticket(options, check_interrupt=interrupt)
        with (options.out / "checks.csv").open() as file:
            logs[name] = [{key: value for key, value in row.items() if key != "seconds"} for row in csv.DictReader(file)]
    assert logs["whole"] == logs["cut"] and len(logs["whole"]) == 3


@pytest.mark.parametrize(("unit", "keep"), [("weight", "600"), ("neuron", "0.25"), ("weight", "0.5")])
def test_weights_are_wider_by_what_is_kept_of_a_neurons_inputs(unit, keep):
    lottery = lottery_of(Ticket(unit=unit), parse_keep(keep))
    network = as_network(lottery.model, first_inputs(lottery.train))
    budget = budget_of(network, keep=parse_keep(keep), unit=unit, scope="layer")
    first = next(iter(network.layers.values()))
    for layer in network.layers.values():
        share = 0.25 if unit == "neuron" else budget.counts[layer.name] / np.prod(layer.shape)
        kept = 1.0 if unit == "neuron" and layer is first else share
        np.testing.assert_allclose(np.abs(network.params[layer.kernel]), np.sqrt(2 / (kept * layer.fan_in)), rtol=1e-5)


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["--resume"], "no search to go on with"),
        (["--keep", "1.5"], "1.5"),
        (["--network", "nonsense"], "no network 'nonsense'"),
        (["--network", "conv-2", "--data", "mnist"], "is for cifar10"),
        (["--network", "nowhere:find"], "no module nowhere"),
        (["--network", "nowhere:find", "--weights", "kaiming-normal"], "its own weights; leave out --weights"),
        (["--network", "nowhere:find", "--examples", "10"], "leave out --examples"),
        (["--passes", "0"], "passes is 0"),
    ],
)
def test_bad_requests_are_refused_in_a_sentence(words, says, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert main(["ticket", *words]) == 2
    assert says in capsys.readouterr().err
