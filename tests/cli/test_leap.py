"""`annealsubnet leap` and `prune --sampler leap` against the loopback service; bad requests are told in one sentence."""

import json
import logging
import sys
from pathlib import Path

import dimod
import numpy as np
import pytest

pytest.importorskip("dwave.system")

from annealsubnet import cli
from annealsubnet.leap.ledger import Ledger
from annealsubnet.testing import LoopbackLeap


@pytest.fixture(autouse=True)
def no_configuration(monkeypatch, tmp_path):
    for name in ("DWAVE_API_TOKEN", "DWAVE_API_ENDPOINT", "DWAVE_PROFILE", "DWAVE_API_SOLVER", "DWAVE_CONFIG_FILE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("DWAVE_CACHE_HOME", "off")
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def service(monkeypatch):
    with LoopbackLeap(size=3) as leap:
        for name, value in leap.environment.items():
            monkeypatch.setenv(name, value)
        yield leap


@pytest.fixture
def model(tmp_path):
    bqm = dimod.generators.ran_r(3, 8, seed=1).change_vartype("BINARY")
    bqm = bqm.relabel_variables({variable: f"u{variable}" for variable in bqm.variables}, inplace=False)
    with (tmp_path / "model.bqm").open("wb") as file, bqm.to_file() as content:
        file.write(content.read())
    return bqm


def refused(capsys, *arguments) -> str:
    assert cli.main(arguments) == 2
    error = capsys.readouterr().err.strip()
    assert error.startswith("annealsubnet: ") and "\n" not in error
    return error


def test_estimate_needs_no_network(model, capsys):
    assert cli.main(["leap", "estimate", "model.bqm", "--solver", "zephyr:3", "--num-kept", "4"]) == 0
    shown = capsys.readouterr().out
    assert "1 problems, 1 parts, 1 jobs" in shown and "QPU seconds predicted on a typical QPU" in shown
    assert "treewidth" not in shown
    assert cli.main(["leap", "estimate", "model.bqm", "--solver", "zephyr:3", "--parts"]) == 0
    assert "treewidth  predicted chain  found chain" in capsys.readouterr().out


def test_submit_status_resume_results(service, model, capsys):
    asked = [
        "leap",
        "submit",
        "model.bqm",
        "--budget-seconds",
        "0.5",
        "--num-kept",
        "4",
        "--save-solver",
        "solver.json",
        "--yes",
    ]
    assert cli.main(asked) == 0
    assert "classical" in capsys.readouterr().out and len(service.jobs) == 1
    assert cli.main(["leap", "status", "jobs.sqlite"]) == 0
    assert "completed" in capsys.readouterr().out
    assert cli.main(["leap", "resume", "jobs.sqlite"]) == 0 and len(service.jobs) == 1
    assert cli.main(["leap", "results", "jobs.sqlite", "--out", "answer.json"]) == 0
    answer = json.loads(Path("answer.json").read_text())
    state = np.array(answer["problems"][0]["state"])
    assert state.sum() == 4 and "classical" in answer["note"]
    assert model.energy((state, list(model.variables))) == pytest.approx(answer["problems"][0]["energy"])
    assert cli.main(["leap", "estimate", "model.bqm", "--solver", "solver.json"]) == 0


def test_what_nothing_contests_costs_nothing(service, tmp_path, capsys):
    """Thirty variables that want nothing of each other: every anneal agrees, so no job is made, and the command says why."""
    decided = dimod.BinaryQuadraticModel({f"u{n}": (-1.0) ** n for n in range(30)}, {}, 0.0, "BINARY")
    with (tmp_path / "decided.bqm").open("wb") as file, decided.to_file() as content:
        file.write(content.read())
    for words in (["estimate", "decided.bqm"], ["submit", "decided.bqm", "--budget-seconds", "1"]):
        assert cli.main(["leap", *words]) == 0
        assert "1 problems and no job: local anneals agree on all" in capsys.readouterr().out
    assert not service.jobs and not Path("jobs.sqlite").exists()
    assert cli.main(["leap", "estimate", "decided.bqm", "--cover", "all"]) == 0
    assert "2 parts, 1 jobs" in capsys.readouterr().out


def test_the_token_is_nowhere(monkeypatch, model, capfd, caplog, tmp_path):
    """Neither on the terminal, nor in a log of any level, nor in any file: ledger, lock, cache, answers."""
    secret, refused = "DEV-0123456789abcdef0123456789abcdef", "DEV-fedcba9876543210fedcba9876543210"
    with LoopbackLeap(size=3, token=secret) as leap, caplog.at_level(logging.DEBUG):
        for name, value in leap.environment.items():
            monkeypatch.setenv(name, value)
        asked = ["leap", "submit", "model.bqm", "--budget-seconds", "0.5", "--save-solver", "solver.json", "--yes"]
        assert cli.main(asked) == 0 and len(leap.jobs) == 1
        assert cli.main(["leap", "results", "jobs.sqlite", "--out", "answer.json"]) == 0
        monkeypatch.setenv("DWAVE_API_TOKEN", refused)
        assert cli.main(["leap", "submit", "model.bqm", "--budget-seconds", "0.5", "--ledger", "new.sqlite", "--yes"]) == 2
    shown = capfd.readouterr()
    files = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert {"jobs.sqlite", "solver.json", "answer.json"} <= {path.name for path in files}
    for token in (secret, refused):
        assert not any(token.encode() in path.read_bytes() for path in files)
        assert token not in shown.out + shown.err
        assert [line for line in caplog.text.splitlines() if token in line] == []
    assert "'token': '***'" in caplog.text  # of the client's own lines


def test_nothing_is_spent_unasked(service, model, capsys):
    error = refused(capsys, "leap", "submit", "model.bqm", "--budget-seconds", "0.5")
    assert "add --yes to agree" in error and not service.jobs


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["leap", "submit", "model.bqm"], "--budget-seconds is missing"),
        (["leap", "submit", "model.bqm", "--budget-seconds", "-1"], "--budget-seconds must be above 0"),
        (["leap", "submit", "model.bqm", "--budget-seconds", "1", "--yes"], "set DWAVE_API_TOKEN"),
        (["leap", "estimate", "none.bqm"], "none.bqm"),
        (["leap", "estimate", "text.bqm"], "is no binary quadratic model of dimod"),
        (["leap", "estimate", "model.bqm", "--solver", "ring:5"], "neither a topology with its size"),
        (["leap", "estimate", "model.bqm", "--limits", "huge"], "there is no profile 'huge'"),
        (["leap", "estimate", "model.bqm", "--num-kept", "99"], "num_kept must be a whole number from 0 to the 8 units"),
        (["leap", "status", "nowhere.sqlite"], "there is no ledger nowhere.sqlite"),
        (["leap", "results", "text.bqm"], "check that it is a ledger"),
        (["leap", "status", "empty.sqlite"], "empty.sqlite holds no plan yet"),
        (["prune", "--sampler", "leap", "--unit", "weight"], "say how much it may"),
        (["prune", "--budget-seconds", "1"], "--budget-seconds goes with --sampler leap"),
    ],
)
def test_bad_requests(model, capsys, arguments, message, tmp_path):
    (tmp_path / "text.bqm").write_text("no model " * 200)
    Ledger(tmp_path / "empty.sqlite", mode="create").close()
    assert message in refused(capsys, *arguments)


MINE = """
import numpy as np
from flax import nnx

class MLP(nnx.Module):
    def __init__(self, rngs):
        self.first, self.last = nnx.Linear(40, 8, rngs=rngs), nnx.Linear(8, 3, rngs=rngs)

    def __call__(self, inputs):
        return self.last(nnx.relu(self.first(inputs)))

def network():
    inputs = np.random.default_rng(0).normal(size=(200, 40)).astype("float32")
    inputs += np.roll(inputs, 1, axis=1)
    return MLP(nnx.Rngs(0)), (inputs, inputs[:, :3].argmax(1)), (inputs, inputs[:, :3].argmax(1))
"""


def test_prune_on_the_loopback_service(service, capsys, tmp_path, monkeypatch):
    (tmp_path / "mine_on_leap.py").write_text(MINE)
    monkeypatch.setattr("sys.path", list(sys.path))
    asked = ["prune", "mine_on_leap:network", "--unit", "weight", "--keep", "20%", "--method", "annealed", "--seed", "0"]
    asked += ["--sampler", "leap", "--budget-seconds", "0.08", "--scope", "neuron"]
    assert "add --yes to agree" in refused(capsys, *asked) and not service.jobs
    assert cli.main([*asked, "--yes"]) == 0
    assert service.jobs and service.qpu_seconds <= 0.08
    shown = capsys.readouterr().out
    assert "QPU seconds" in shown and "classical" in shown
    assert (tmp_path / "annealsubnet-results" / "report.html").exists()
