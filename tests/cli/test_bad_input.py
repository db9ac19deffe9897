"""Every kind of bad input, through the command: one sentence with what was found and what to do, and code 2."""

import sys
from inspect import signature
from pathlib import Path

import numpy as np
import pytest
from flax import nnx

from annealsubnet import Mask, cli
from annealsubnet.baselines import ON_REQUEST
from annealsubnet.cli.methods import default_units, known_methods
from annealsubnet.networks import as_network

OWN = """
import jax
import numpy as np
from flax import nnx

RNG = np.random.default_rng(0)
X = RNG.normal(size=(60, 6)).astype("float32")
Y = RNG.integers(0, 3, 60)


def net(hidden=8):
    rngs = nnx.Rngs(0)
    return nnx.Sequential(nnx.Linear(6, hidden, rngs=rngs), nnx.relu, nnx.Linear(hidden, 3, rngs=rngs))


def good():
    return net(), (X, Y), (X, Y)


def other():
    return net(12), (X, Y), (X, Y)


def no_batches():
    return net(), [], (X, Y)


def other_shape():
    return net(), [(X, Y), (X[:, :5], Y)], (X, Y)


def other_dtype():
    return net(), [(X, Y), (X.astype("int32"), Y)], (X, Y)


def wide():
    return net(), (X[:, :5], Y), (X[:, :5], Y)


def wide_test():
    return net(), (X, Y), (X[:, :5], Y)


def nan_input():
    x = X.copy()
    x[3, 2] = np.nan
    return net(), (x, Y), (X, Y)


def infinite_test():
    x = X.copy()
    x[3, 2] = np.inf
    return net(), (X, Y), (x, Y)


def nan_weight():
    model = net()
    model.layers[0].kernel[...] = model.layers[0].kernel[...].at[1, 1].set(np.nan)
    return model, (X, Y), (X, Y)


def labels_beyond():
    return net(), (X, Y), (X, Y + 1)


def labels_missing():
    return net(), (X, Y), X


def labels_real():
    return net(), (X, Y), (X, Y + 0.5)


def labels_short():
    return net(), (X, Y), [(X, Y[:-1])]


class Recurrent(nnx.Module):
    def __init__(self):
        rngs = nnx.Rngs(0)
        self.inner, self.outer = nnx.Linear(6, 6, rngs=rngs), nnx.Linear(6, 3, rngs=rngs)

    def __call__(self, x):
        for _ in range(2):
            x = nnx.relu(self.inner(x))
        return self.outer(x)


def twice():
    return Recurrent(), (X, Y), (X, Y)


class Training(nnx.Module):
    def __init__(self):
        rngs = nnx.Rngs(0)
        self.inner, self.drop = nnx.Linear(6, 6, rngs=rngs), nnx.Dropout(0.5, rngs=rngs)
        self.outer = nnx.Linear(6, 3, rngs=rngs)

    def __call__(self, x):
        return self.outer(self.drop(nnx.relu(self.inner(x))))


def training():
    return Training(), (X, Y), (X, Y)


class Loose(nnx.Module):
    def __init__(self):
        rngs = nnx.Rngs(0)
        self.inner, self.spare = nnx.Linear(6, 6, rngs=rngs), nnx.Linear(6, 6, rngs=rngs)
        self.outer = nnx.Linear(6, 3, rngs=rngs)

    def __call__(self, x):
        return self.outer(nnx.relu(self.inner(x)))


def loose():
    return Loose(), (X, Y), (X, Y)


def no_model():
    return "a network", (X, Y), (X, Y)
"""

FUNCTIONS = {
    "no_batches": "There are no batches",
    "other_shape": "(5,)",
    "other_dtype": "int32",
    "wide": "(5,)",
    "wide_test": "(5,)",
    "nan_input": "NaN",
    "infinite_test": "NaN or infinite",
    "nan_weight": "NaN",
    "labels_beyond": "the network has 3 outputs",
    "labels_missing": "labels are needed",
    "labels_real": "float64",
    "labels_short": "60 inputs and 59 labels",
    "twice": "inner",
    "training": "drop",
    "no_model": "this is a str",
}
OPTIONS = {
    "keep beyond what there is": (["--keep", "1000"], "1000"),
    "no such sampler": (["--sampler", "quantum"], "no sampler 'quantum'; use one of annealer, simulated-annealing"),
    "no such option": (["--sampler", "annealer", "--sampler-option", "num_sweps=10"], "num_sweps"),
    "no such option of D-Wave's": (["--sampler", "simulated-annealing", "--sampler-option", "sweeps=10"], "sweeps"),
    "an option of no sampler": (["--sampler-option", "num_reads=10"], "needs --sampler"),
    "an option without value": (["--sampler", "annealer", "--sampler-option", "num_reads"], "write NAME=VALUE"),
    "no such layer": (["--exclude", "fc9"], "--exclude names 'fc9', which the network does not have; it has ['layers/0', 'la"),
    "no layer left": (["--exclude", "layers/0", "layers/2"], "keep and --exclude leave none of"),
    "a method for another unit": (["--unit", "weight", "--method", "activation"], "activation"),
    "a method for one of two units": (
        ["--unit", "neuron", "weight", "--method", "activation"],
        "activation can't choose weights",
    ),
    "no heads": (["--unit", "head", "--method", "magnitude"], "head"),
}


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.path", list(sys.path))
    monkeypatch.delitem(sys.modules, "mine", raising=False)
    Path("mine.py").write_text(OWN)


def refused(capsys, *words: str) -> str:
    """What the command says when it refuses `words` and writes nothing."""
    before = sorted(path for path in Path().iterdir() if path.name != "__pycache__")
    assert cli.main(list(words)) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.startswith("annealsubnet: ") and captured.err.count("\n") == 1
    assert sorted(path for path in Path().iterdir() if path.name != "__pycache__") == before
    return captured.err


@pytest.mark.parametrize("method", ["annealed", "magnitude"])
@pytest.mark.parametrize("function", FUNCTIONS)
def test_bad_networks_and_data_are_refused(capsys, function, method) -> None:
    words = ["prune", f"mine:{function}", "--seed", "0", "--unit", "weight", "--keep", ".5", "--method", method]
    assert FUNCTIONS[function] in refused(capsys, *words)


@pytest.mark.parametrize("name", OPTIONS)
def test_options_that_do_not_exist_are_refused(capsys, name) -> None:
    words, says = OPTIONS[name]
    unit = [] if "--unit" in words else ["--unit", "weight"]
    method = [] if "--method" in words else ["--method", "annealed"]
    size = [] if "--keep" in words else ["--keep", ".5"]
    assert says in refused(capsys, "prune", "mine:good", "--seed", "0", *unit, *method, *size, *words)


@pytest.mark.parametrize("method", ["annealed", "magnitude"])
def test_the_command_goes_through_with_the_option_that_its_refusal_advises(capsys, method) -> None:
    words = ["prune", "mine:good", "--seed", "0", "--unit", "weight", "--pattern", "2:4", "--method", method]
    said = refused(capsys, *words)
    assert "does not divide the 6 inputs of layer 'layers/0'" in said and "exclude=" not in said
    advised = said[said.index("--exclude") :].rstrip(".\n").split()
    assert cli.main([*words, *advised, "--quiet"]) == 0
    kept = Mask.load("annealsubnet-results/mask.safetensors").kept
    assert kept["layers/0"].all() and (kept["layers/2"].reshape(2, 4, 3).sum(1) == 2).all()
    assert "<td>layers/0</td>" in Path("annealsubnet-results/report.html").read_text()


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["--unit", "weight", "neuron", "--keep", ".5", "30"], "keep=30 asks for 30 of the 8 neurons of 'layers/0'; give 1"),
        (["--unit", "weight", "--keep", ".5", "73"], "keep=73 asks for 73 of the 72 weights of the network"),
        (["--unit", "weight", "--scope", "layer", "--keep", ".5", "30"], "keep=30 asks for 30 of the 24 weights of 'layers/2'"),
        (["--unit", "weight", "--exclude", "layers/2", "--keep", ".5", "49"], "keep=49 asks for 49 of the 48 weights"),
        (["--pattern", "2x1", "--keep", ".5", "7"], "keep=7 asks for 7 of the 6 weights that feed each neuron of 'layers/0'"),
        (["--pattern", "2:4"], "does not divide the 6 inputs of layer 'layers/0'"),
        (["--unit", "neuron", "head", "--keep", ".5"], "no heads"),
    ],
)
def test_every_size_is_refused_before_any_method_works(capsys, monkeypatch, words, says) -> None:
    def lost(*arguments: object) -> None:
        raise AssertionError("a method works before every size is known to be one that can be kept")

    monkeypatch.setattr("annealsubnet.report.comparison._measure", lost)
    assert says in refused(capsys, "prune", "mine:good", "--seed", "0", "--method", "magnitude", *words)


def test_sizes_are_of_the_layers_that_are_not_excluded() -> None:
    words = ["--unit", "weight", "--scope", "layer", "--keep", "30", "--method", "magnitude", "--seed", "0", "--quiet"]
    assert cli.main(["prune", "mine:good", *words]) == 2
    assert cli.main(["prune", "mine:good", *words, "--exclude", "layers/2"]) == 0


def test_a_named_network_with_fewer_outputs_than_classes_is_refused(capsys) -> None:
    inputs, labels = np.random.default_rng(0).random((60, 8, 8, 1), np.float32), np.arange(60) % 12
    np.savez("mine.npz", x_train=inputs, y_train=labels, x_test=inputs, y_test=labels)
    words = ["prune", "--data", "mine.npz", "--seed", "0", "--unit", "weight", "--method", "magnitude", "--quiet"]
    said = refused(capsys, *words, "--network", "digits-mlp")
    assert "digits-mlp has 10 outputs, but the labels of mine.npz run to 11; give labels from 0 to 9, or leave out" in said
    assert cli.main(words) == 0


def test_units_that_are_not_named_are_those_of_the_methods(capsys) -> None:
    said = refused(capsys, "prune", "mine:good", "--method", "obc", "osscar")
    assert "obc, osscar choose no unit in common" in said
    network = as_network(nnx.Linear(8, 4, rngs=nnx.Rngs(0)), np.ones((4, 8), np.float32))
    batches = [(np.random.default_rng(0).normal(size=(4, 8)).astype(np.float32), np.arange(4))]
    for name, method in ON_REQUEST.items():
        units = default_units(["annealed", name])
        assert units == (("neuron",) if name == "osscar" else ("weight",))
        with pytest.raises(ValueError, match=f"chooses {units[0]}s"):
            method(network, batches, keep=0.5, unit="weight" if name == "osscar" else "neuron")
    assert default_units(["annealed", "magnitude"]) == default_units([]) == ("neuron", "weight")


@pytest.mark.parametrize("pattern", ["4x1", "2:4"])
def test_the_methods_advised_for_a_pattern_are_those_that_keep_it(capsys, pattern) -> None:
    words = ["prune", "none:loaded", "--seed", "0", "--unit", "weight", "--pattern", pattern]
    said = refused(capsys, *words, "--method", "osscar")
    assert f"osscar can't keep the pattern {pattern}; use one or more of" in said
    advised = said.strip().removesuffix(".").rpartition(" of ")[2].split(", ")
    keep = {"keep": 0.5} if "x" in pattern else {}
    inputs = np.random.default_rng(0).normal(size=(40, 8)).astype(np.float32)
    model = nnx.Linear(8, 4, rngs=nnx.Rngs(0))
    for name, method in known_methods().items():
        if "pattern" not in signature(method).parameters:
            assert name not in advised
        elif name in advised:
            mask, _ = method(model, [inputs], unit="weight", pattern=pattern, seed=0, **keep)
            assert mask.kept_count == 16
        else:
            with pytest.raises(ValueError, match="not blocks"):
                method(model, [inputs], unit="weight", pattern=pattern, seed=0, **keep)
            assert f"{name} can't keep" in refused(capsys, *words, "--method", name)


def test_a_kernel_that_no_layer_uses_is_refused_with_the_option_that_leaves_it_alone(capsys) -> None:
    words = ["prune", "mine:loose", "--seed", "0", "--unit", "weight", "--keep", ".5", "--method", "magnitude", "--quiet"]
    assert "leave it alone with --exclude spare." in refused(capsys, *words)
    assert cli.main([*words, "--exclude", "spare"]) == 0


def test_a_mask_that_is_truncated_foreign_or_for_another_network_is_refused(capsys) -> None:
    words = ["--seed", "0", "--unit", "weight", "--keep", ".5", "--method", "magnitude", "--quiet"]
    assert cli.main(["prune", "mine:good", *words]) == 0
    mask = Path("annealsubnet-results/mask.safetensors")
    assert cli.main(["evaluate", "mine:good"]) == 0
    assert "then refitted" in capsys.readouterr().out
    assert "another model" in refused(capsys, "evaluate", "mine:other", "--mask", str(mask))
    Path("truncated.safetensors").write_bytes(mask.read_bytes()[:-10])
    Path("foreign.safetensors").write_bytes(b"\x89PNG and so on")
    for name in ("truncated", "foreign"):
        assert f"{name}.safetensors" in refused(capsys, "evaluate", "mine:good", "--mask", f"{name}.safetensors")
    assert "none.safetensors" in refused(capsys, "evaluate", "mine:good", "--mask", "none.safetensors")


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda arrays: arrays.pop("fc2/bias"), "missing: fc2/bias"),
        (lambda arrays: arrays.update({"fc9/kernel": np.zeros(3)}), "unexpected: fc9/kernel"),
        (lambda arrays: arrays.update({"fc1/bias": np.zeros(3)}), "of another shape: fc1/bias"),
        (lambda arrays: arrays["fc1/kernel"].fill(np.nan), "NaN or infinite values in fc1/kernel"),
    ],
)
def test_checkpoints_that_do_not_fit_are_refused(capsys, change, says) -> None:
    from annealsubnet.examples import named_network

    state = nnx.to_flat_state(nnx.state(named_network("digits-mlp").build(seed=0), nnx.Param))
    arrays = {"/".join(map(str, keys)): np.array(leaf[...]) for keys, leaf in state}
    change(arrays)
    np.savez("weights.npz", **arrays)
    says_what = refused(capsys, "prune", "--network", "digits-mlp", "--checkpoint", "weights.npz")
    assert says in says_what and "weights.npz" in says_what


def test_a_checkpoint_that_is_truncated_is_refused(capsys) -> None:
    Path("weights.npz").write_bytes(b"PK\x03\x04 half a file")
    assert "weights.npz" in refused(capsys, "prune", "--network", "digits-mlp", "--checkpoint", "weights.npz")


def test_a_sampler_solves_the_quadratic_models() -> None:
    words = ["--sampler", "simulated-annealing", "--sampler-option", "num_reads=2", "num_sweeps=20"]
    common = ["--seed", "0", "--unit", "weight", "--keep", ".5", "--method", "annealed", "--quiet"]
    assert cli.main(["prune", "mine:good", *common, *words]) == 0
    assert "num_sweeps=20" in Path("annealsubnet-results/config.json").read_text()
