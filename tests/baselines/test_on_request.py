"""What holds for every method that is compared on request: exact counts, patterns, the same seed the same mask."""

import re
from inspect import signature
from itertools import combinations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from annealsubnet.baselines import METHODS, ON_REQUEST, gradual, osscar
from annealsubnet.baselines.osscar import search
from annealsubnet.budgets import budget_of
from annealsubnet.networks import as_network, from_function
from annealsubnet.report.names import METHODS as NAMES
from tests.models import EXAMPLES

FAST = {"woodfisher": {"rows": 10}, "surgeon": {"rows": 10}, "zero-swaps": {"rows": 10}, "chita": {"rows": 10}}
FAST["gradual"] = {"stages": 2, "batch_size": 10}
WEIGHTS = [name for name in ON_REQUEST if name != "osscar"]
PATTERNED = [name for name in (*METHODS, *ON_REQUEST) if "pattern" in signature((METHODS | ON_REQUEST)[name]).parameters]


def batches_of(example, count=40):
    rng = np.random.default_rng(0)
    inputs = rng.normal(size=(count, *example.inputs.shape[1:])).astype(np.float32)
    return [(inputs[:25], rng.integers(3, size=25)), (inputs[25:], rng.integers(3, size=count - 25))]


@pytest.fixture(scope="module")
def mlp():
    return EXAMPLES["mlp"]()


def test_every_method_has_a_name_and_a_citation():
    for name, method in (METHODS | ON_REQUEST).items():
        assert name in NAMES
        assert "References:" in method.__doc__ or name == "random"


def test_the_line_about_a_method_cites_the_paper_of_its_defaults():
    """The one that its docstring names first."""
    for name, method in (METHODS | ON_REQUEST).items():
        cited = re.search(r"(\w*) ?(\d{4})\)$", NAMES[name][1])
        if cited is not None:
            first = method.__doc__.partition("References:")[2]
            author, year = cited.groups()
            assert author in first and re.search(r"\b\d{4}\b", first).group() == year, name


@pytest.mark.parametrize("name", WEIGHTS)
def test_counts_are_exact_and_what_is_removed_is_zero(mlp, name):
    network, batches = mlp.network("nnx"), batches_of(mlp)
    before = {path: np.array(value) for path, value in network.params.items()}
    for scope in ("network", "layer"):
        mask, pruned = ON_REQUEST[name](network, batches, keep=0.5, scope=scope, seed=1, **FAST.get(name, {}))
        again, _ = ON_REQUEST[name](network, batches, keep=0.5, scope=scope, seed=1, **FAST.get(name, {}))
        params = as_network(pruned, mlp.inputs).params
        sizes = {site: array.size for site, array in mask.kept.items()}
        if scope == "network":
            assert mask.kept_count == int(0.5 * sum(sizes.values()) + 0.5)
        for site, array in mask.kept.items():
            if scope == "layer":
                assert array.sum() == int(0.5 * array.size + 0.5)
            kernel = np.asarray(params[network.layers[site].kernel])
            assert not kernel[~array].any() and np.isfinite(kernel).all()
            np.testing.assert_array_equal(array, again.kept[site])
    assert all(np.array_equal(before[path], network.params[path]) for path in before)
    mask, _ = ON_REQUEST[name](network, batches, keep=7, scope="network", exclude=("fc1",), **FAST.get(name, {}))
    assert mask.kept["fc1"].all() and mask.kept_count == 7 + mask.kept["fc1"].size


@pytest.mark.parametrize("example", ["mlp", "separable"])
@pytest.mark.parametrize("name", [name for name in WEIGHTS if name not in ("surgeon", "zero-swaps")])
def test_every_neuron_keeps_exactly_its_own_count(name, example):
    """With scope "neuron"; the surgeon's exchanges, which know no neurons, refuse it."""
    given = EXAMPLES[example]()
    network, last = given.network("nnx"), list(given.network("nnx").layers)[-1]
    for keep in (0.3, 0.5, {last: 3}):
        budget = budget_of(network, keep=keep, unit="weight", scope="neuron")
        mask, _ = ON_REQUEST[name](network, batches_of(given), keep=keep, scope="neuron", seed=0, **FAST.get(name, {}))
        for site, count in budget.counts.items():
            assert (network.layers[site].matrix(mask.kept[site]).sum(axis=1) == count).all()


@pytest.mark.parametrize("block", [1, 3, 4, 128])
def test_sparsegpt_keeps_every_neurons_count_whatever_the_block(mlp, block):
    for count in range(1, 7):
        mask, _ = ON_REQUEST["sparsegpt"](mlp.network("nnx"), batches_of(mlp), keep={"fc1": count}, scope="neuron", block=block)
        assert (mask.kept["fc1"].sum(axis=0) == count).all()


@pytest.mark.parametrize("name", ["surgeon", "zero-swaps"])
def test_the_surgeon_knows_no_neurons(mlp, name):
    with pytest.raises(ValueError, match="give scope='network' or 'layer'"):
        ON_REQUEST[name](mlp.network("nnx"), batches_of(mlp), keep=0.5, scope="neuron", rows=10)


@pytest.mark.parametrize("name", WEIGHTS)
def test_bad_requests_are_named(mlp, name):
    network, batches = mlp.network("nnx"), batches_of(mlp)
    with pytest.raises(ValueError, match=r"keep=1\.5"):
        ON_REQUEST[name](network, batches, keep=1.5)
    with pytest.raises(ValueError, match="give unit='weight'"):
        ON_REQUEST[name](network, batches, keep=0.5, unit="neuron")
    with pytest.raises(ValueError, match="reads data: give batches"):
        ON_REQUEST[name](mlp.nnx, None, keep=0.5)


@pytest.mark.parametrize("name", PATTERNED)
def test_patterns_hold_in_every_group(mlp, name):
    mask, _ = (METHODS | ON_REQUEST)[name](mlp.network("nnx"), batches_of(mlp), pattern="1:2", seed=0, exclude=("out",))
    assert mask.kept["out"].all()
    for array in (mask.kept["fc1"], mask.kept["fc2"]):
        assert (array.reshape(-1, 2, array.shape[1]).sum(axis=1) == 1).all()
    with pytest.raises(ValueError, match="does not divide the 6 inputs of layer 'fc1'"):
        (METHODS | ON_REQUEST)[name](mlp.network("nnx"), batches_of(mlp), pattern="2:4", seed=0)


def test_gradual_holds_zeros_and_trains_the_rest(mlp):
    network, batches = mlp.network("nnx"), batches_of(mlp)
    still, unmoved = gradual(network, batches, keep=0.5, stages=3, learning_rate=0.0, seed=0)
    mask, moved = gradual(network, batches, keep=0.5, stages=3, learning_rate=1e-2, batch_size=10, seed=0)
    assert still.kept_count == mask.kept_count
    before, after = (as_network(model, mlp.inputs).params for model in (unmoved, moved))
    kernel = network.layers["fc1"].kernel
    dense = np.asarray(network.params[kernel])
    np.testing.assert_array_equal(np.asarray(before[kernel])[still.kept["fc1"]], dense[still.kept["fc1"]])
    assert not np.asarray(after[kernel])[~mask.kept["fc1"]].any()
    assert np.abs(np.asarray(after[kernel]) - dense)[mask.kept["fc1"]].min() > 0
    with pytest.raises(ValueError, match="stages must be at least 1"):
        gradual(network, batches, keep=0.5, stages=0)
    with pytest.raises(ValueError, match="ramp is 0"):
        gradual(network, batches, keep=0.5, ramp=0)


def test_gradual_looks_at_the_first_examples_until_the_ramp_ends(mlp):
    network, batches = mlp.network("nnx"), batches_of(mlp)
    kept, seen = [], []

    def choose(model, part, **options):
        seen.append(sum(len(labels) for _, labels in part))
        mask, pruned = METHODS["magnitude"](model, None, keep=options["keep"], unit="weight", scope=options["scope"])
        kept.append(mask.kept_count)
        return mask, pruned

    mask, _ = gradual(
        network, batches, keep=0.5, stages=8, ramp=0.5, looked_at=3, learning_rate=1e-3, batch_size=4, choose=choose
    )
    last = budget_of(network, keep=0.5, unit="weight", scope="network").total
    assert kept == [last + round((mask.size - last) * (1 - stage / 4) ** 3) for stage in range(1, 5)]
    assert seen == [3] * 4 and mask.kept_count == kept[-1]


@pytest.mark.parametrize("block", [1, 2])
def test_osscar_is_near_the_best_of_all_choices(block):
    """Local search with exact refits: never below the greedy start, within a few percent of the optimum."""
    ratios = []
    for seed in range(6):
        rng = np.random.default_rng(seed)
        units = np.r_[np.repeat(np.arange(8), block), -1]
        a = rng.normal(size=(60, len(units))) @ rng.normal(size=(len(units), len(units)))
        gram = a.T @ a / 60 + 1e-6 * np.eye(len(units))
        cross = gram @ rng.normal(size=(len(units), 3))

        def explained(chosen, gram=gram, cross=cross, units=units):
            rows = np.flatnonzero(np.isin(units, chosen) | (units < 0))
            return np.sum(cross[rows] * np.linalg.solve(gram[np.ix_(rows, rows)], cross[rows]))

        found = search(gram, cross, units, 4, steps=4)
        total = np.sum(cross * np.linalg.solve(gram, cross))
        best = max(map(explained, combinations(range(8), 4)))
        assert found.sum() == 4
        ratios.append((total - explained(np.flatnonzero(found))) / (total - best))
    assert min(ratios) >= 1 - 1e-9 and np.median(ratios) < 1.1


def test_osscar_prunes_neurons_and_heads(mlp):
    network = mlp.network("nnx")
    mask, pruned = osscar(network, batches_of(mlp), keep=0.5, unit="neuron")
    assert {name: int(kept.sum()) for name, kept in mask.kept.items()} == {
        name: int(0.5 * site.size + 0.5) for name, site in network.neurons.items()
    }
    assert as_network(pruned, mlp.inputs).params.keys() == network.params.keys()
    heads = EXAMPLES["transformer"]()
    mask, _ = osscar(heads.network("nnx"), [heads.inputs], keep=2, unit="head", scope="network")
    assert mask.kept_count == 2
    with pytest.raises(ValueError, match="give unit='neuron' or 'head'"):
        osscar(network, batches_of(mlp), keep=0.5, unit="weight")


@pytest.mark.parametrize(("scale", "bias"), [(1.0, -1e3), (0.0, 1.0), (1e-7, 1.0)])
def test_osscar_keeps_as_many_neurons_that_never_vary(scale, bias):
    rng = np.random.default_rng(0)
    params = {
        "hidden": {"kernel": scale * rng.normal(size=(6, 12)), "bias": np.full(12, bias)},
        "out": {"kernel": rng.normal(size=(12, 3)), "bias": np.zeros(3)},
    }
    model = from_function(
        lambda values, x, tap: tap.dense("out", jax.nn.relu(tap.dense("hidden", x))), jax.tree.map(jnp.float32, params)
    )
    inputs = rng.normal(size=(200, 6)).astype(np.float32)
    mask, pruned = osscar(model, [inputs], keep=0.5, unit="neuron")
    assert mask.kept_count == 6
    dense = as_network(model, inputs)
    outputs = dense.apply(dense.replace(pruned).params, inputs)
    np.testing.assert_allclose(outputs, dense.apply(dense.params, inputs), rtol=1e-3, atol=1e-3)
