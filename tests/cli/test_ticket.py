"""`annealsubnet ticket`: its folder, its restart, and what it refuses."""

import csv
import json
import sys
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
from annealsubnet.tickets.progress import read_log

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


def stopped(options, *, checks):
    """Run the command as Ctrl-C stops it after so many checks, and return what it says."""
    left = [checks]

    def interrupt():
        left[0] -= 1
        if left[0] == 0:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt) as error:
        ticket(options, check_interrupt=interrupt)
    return str(error.value)


@pytest.mark.parametrize("checks", [1, 2])
def test_an_interrupted_search_replaces_the_results_before_it_as_a_whole_and_can_be_replaced(tmp_path, checks):
    options = Ticket(passes=1, checks=3, quiet=True, out=tmp_path / "found", overwrite=True)
    ticket(options)
    told = stopped(replace(options, seed=5), checks=checks)
    assert told.startswith(f"the search so far is in {options.out / 'search.npz'}; go on with")
    assert {path.name for path in options.out.iterdir()} == {"checks.csv", "ticket.png", "config.json", "search.npz"}
    config = json.loads((options.out / "config.json").read_text())
    assert config["options"]["seed"] == 5 and config["test_accuracy"] is None
    assert len(read_log(options.out / "search.npz")) == checks
    ticket(options)
    assert (options.out / "mask.safetensors").is_file()


@pytest.mark.parametrize("error", [KeyboardInterrupt, ValueError])
def test_a_search_that_came_to_nothing_leaves_the_results_before_it(tmp_path, monkeypatch, error):
    options = Ticket(passes=1, checks=2, quiet=True, out=tmp_path / "found", overwrite=True)
    ticket(options)
    before = {path.name: path.read_bytes() for path in options.out.iterdir()}

    def failing(search):
        raise error

    monkeypatch.setattr("annealsubnet.tickets.find.begin", failing)
    with pytest.raises(error) as stop:
        ticket(replace(options, seed=5))
    assert str(stop.value) == ""
    assert {path.name: path.read_bytes() for path in options.out.iterdir()} == before


def test_searches_at_the_same_time_have_a_folder_each(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    later = [1]

    def load_slowly(*arguments):
        if later:
            assert main([*WORDS, "--seed", str(later.pop())]) == 0
        return lottery_of(*arguments)

    monkeypatch.setattr("annealsubnet.cli.ticket.lottery_of", load_slowly)
    assert main([*WORDS, "--seed", "0"]) == 0
    folders = ["annealsubnet-ticket", "annealsubnet-ticket-2"]
    assert [json.loads((tmp_path / name / "config.json").read_text())["options"]["seed"] for name in folders] == [0, 1]
    assert sorted(path.name for path in tmp_path.iterdir()) == folders
    assert all((tmp_path / name / "mask.safetensors").is_file() for name in folders)


@pytest.mark.parametrize("error", [KeyboardInterrupt, ValueError])
def test_a_search_that_came_to_nothing_leaves_no_folder(tmp_path, monkeypatch, error):
    def failing(search):
        raise error

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("annealsubnet.tickets.find.begin", failing)
    with pytest.raises(error):
        ticket(Ticket(passes=1, checks=2, quiet=True))
    assert list(tmp_path.iterdir()) == []


def test_an_interrupted_search_without_a_name_goes_on_in_its_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    told = stopped(Ticket(passes=1, checks=3, quiet=True), checks=1)
    assert "--out annealsubnet-ticket and --resume" in told
    ticket(Ticket(passes=1, checks=3, quiet=True, resume=True))
    assert [path.name for path in tmp_path.iterdir()] == ["annealsubnet-ticket"]
    assert len(read_log(tmp_path / "annealsubnet-ticket" / "search.npz")) == 3


def test_the_command_says_once_what_an_interrupt_leaves(monkeypatch, capsys):
    for told in ("the search so far is in search.npz", ""):

        def interrupted(*words, told=told, **options):
            raise KeyboardInterrupt(told)

        monkeypatch.setattr("annealsubnet.cli.ticket.ticket", interrupted)
        assert main(["ticket"]) == 130
        said = capsys.readouterr().err
        assert said == f"\nannealsubnet: interrupted; {told or 'no unfinished files are left behind'}.\n"


OWN = """
import numpy as np
from flax import nnx

X, Y = np.random.default_rng(0).normal(size=(60, 6)).astype("float32"), np.arange(60) % 3

def net():
    return nnx.Linear(6, 3, rngs=nnx.Rngs(0))

def missing():
    return net(), (X, Y), X

def beyond():
    return net(), (X, Y), (X, Y + 1)

def wide():
    return net(), (X, Y), (X[:, :5], Y)
"""


@pytest.mark.parametrize(
    ("name", "says"),
    [("missing", "labels are needed"), ("beyond", "network has 3 outputs"), ("wide", "the network takes (6,)")],
)
def test_test_examples_are_checked_before_the_search(name, says, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.path", list(sys.path))
    monkeypatch.delitem(sys.modules, "lots", raising=False)
    (tmp_path / "lots.py").write_text(OWN)
    assert main(["ticket", "--network", f"lots:{name}", "--out", "found"]) == 2
    said = capsys.readouterr()
    assert said.err.startswith("annealsubnet: The test examples can't be used. ") and says in said.err
    assert said.out == "" and not (tmp_path / "found").exists()


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
        (["--network", "nowhere:find", "--no-rescale"], "leave out --no-rescale"),
        (["--passes", "0"], "passes is 0"),
        (["--seed", "-1"], "--seed must be at least 0; it is -1"),
        (["--seed", "9223372036854775808"], "--seed must be at most 9223372036854775807; it is 9223372036854775808"),
    ],
)
def test_bad_requests_are_refused_in_a_sentence(words, says, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert main(["ticket", *words]) == 2
    assert says in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []
