"""What the documentation shows: your own network and data, for NNX, Linen and a plain function."""

import re
import runpy
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file

from annealsubnet import Mask, cli, evaluate, load_parameters
from annealsubnet.networks import as_model
from annealsubnet.report import nearest, read_rows

NNX = """
from flax import nnx
from sklearn.datasets import load_wine
from sklearn.model_selection import train_test_split
from sklearn.preprocessing import scale
from annealsubnet.examples import train


def wine(seed=0):
    x, y = load_wine(return_X_y=True)
    x_train, x_test, y_train, y_test = train_test_split(scale(x).astype("float32"), y, random_state=seed)
    rngs = nnx.Rngs(seed)
    model = nnx.Sequential(nnx.Linear(13, 32, rngs=rngs), nnx.relu, nnx.Linear(32, 3, rngs=rngs))
    model = train(model, [(x_train, y_train)], seed=seed, epochs=100, learning_rate=0.01)
    return model, (x_train, y_train), (x_test, y_test)
"""

LINEN = """
import annealsubnet as asn
import jax
import optax
from flax import linen as nn
from sklearn.datasets import load_wine
from sklearn.preprocessing import scale


def wine():
    x, y = load_wine(return_X_y=True)
    x = scale(x).astype("float32")
    net = nn.Sequential([nn.Dense(32), nn.relu, nn.Dense(3)])
    variables, adam = net.init(jax.random.key(0), x[:1]), optax.adam(0.01)
    state = adam.init(variables)
    loss = lambda v: optax.softmax_cross_entropy_with_integer_labels(net.apply(v, x[::2]), y[::2]).mean()
    for _ in range(100):
        updates, state = adam.update(jax.grad(loss)(variables), state)
        variables = optax.apply_updates(variables, updates)
    return asn.from_linen(net, variables), (x[::2], y[::2]), (x[1::2], y[1::2])
"""


def check_saved_networks(rows) -> None:
    """What the command saved is the nearer network of those it measured, in the form in which it came."""
    import mine

    model, _, test = mine.wine()
    for row, suffix in zip(rows, ("", "-weight"), strict=True):
        mask = Mask.load(f"annealsubnet-results/mask{suffix}.safetensors")
        saved = as_model(model).replace(load_parameters(f"annealsubnet-results/pruned{suffix}.safetensors", model))
        assert evaluate(saved, [test]).accuracy == row.accuracy
        assert all(
            (np.asarray(saved.params[path])[np.broadcast_to(~keep, saved.params[path].shape)] == 0).all()
            for path, keep in mask.keeps().items()
        )


@pytest.mark.parametrize("code", [NNX, LINEN], ids=["nnx", "linen"])
def test_your_own_network_is_pruned(tmp_path, monkeypatch, code, capsys) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.path", list(sys.path))
    monkeypatch.delitem(sys.modules, "mine", raising=False)
    Path("mine.py").write_text(code)
    assert cli.main(["prune", "mine:wine", "--seed", "0", "--method", "annealed", "magnitude", "--keep", ".5"]) == 0
    rows = read_rows(Path("annealsubnet-results/results.csv"))
    assert rows[0].accuracy > 0.9 and len(rows) == 1 + 2 * 2 * 2
    annealed = [row for row in nearest(rows) if row.method == "annealed"]
    assert all(row.accuracy > 0.8 for row in annealed)
    check_saved_networks(annealed)
    assert "mine:wine" in capsys.readouterr().out


README = (Path(cli.__file__).parents[2] / "README.md").read_text()
BLOCKS = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
SHOWN = [block for block in BLOCKS if "def network()" in block]


@pytest.mark.parametrize("code", SHOWN, ids=["nnx", "linen"])
def test_the_networks_of_the_readme_are_pruned(tmp_path, monkeypatch, code) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.path", list(sys.path))
    monkeypatch.delitem(sys.modules, "mine", raising=False)
    Path("mine.py").write_text(code)
    assert (
        cli.main(["prune", "mine:network", "--seed", "0", "--method", "annealed", "magnitude", "--keep", ".5", "--quiet"]) == 0
    )
    rows = read_rows(Path("annealsubnet-results/results.csv"))
    assert len(rows) == 1 + 2 * 2 * 2 and all(0 <= row.accuracy <= 1 for row in rows)


def test_the_program_of_the_readme_runs(tmp_path, monkeypatch, capsys) -> None:
    monkeypatch.chdir(tmp_path)
    Path("program.py").write_text(BLOCKS[0])
    runpy.run_path("program.py", run_name="__main__")
    accuracies = dict(re.findall(r"^(.*): Evaluation\(accuracy ([0-9.]+)%", capsys.readouterr().out, re.MULTILINE))
    assert len(accuracies) == 5 and all(float(accuracy) > 93 for accuracy in accuracies.values())
    nonzeros = sum(np.count_nonzero(array) for array in load_file("pruned.safetensors").values())
    assert nonzeros <= round(0.05 * (64 * 128 + 128 * 10)) + 128 + 10


def test_python_m_annealsubnet_is_the_command() -> None:
    words = [sys.executable, "-m", "annealsubnet", "--help"]
    result = subprocess.run(words, cwd=Path(cli.__file__).parents[2], capture_output=True, text=True, check=True)
    assert "prune" in result.stdout and "evaluate" in result.stdout
