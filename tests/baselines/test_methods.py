"""What holds for every baseline: exact counts, the user's model untouched, its own form back, the same seed the same mask."""

import jax
import numpy as np
import pytest
from flax import nnx

from annealsubnet.baselines import METHODS, magnitude, random
from annealsubnet.networks import as_network
from annealsubnet.networks.model import parameters_of
from tests.models import EXAMPLES

DATA_FREE = ("random", "magnitude", "synflow")
CELLS = [(method, unit) for method in METHODS for unit in ("weight", "neuron") if (method, unit) != ("activation", "weight")]


def batches_of(example):
    return [(example.inputs, np.arange(len(example.inputs)) % 3)]


def options(method):
    return {"rounds": 4} if method == "synflow" else {}


@pytest.fixture(scope="module")
def mlp():
    return EXAMPLES["mlp"]()


@pytest.mark.parametrize(("method", "unit"), CELLS)
def test_counts_are_exact_and_what_is_removed_is_zero(mlp, method, unit):
    network, batches = mlp.network("nnx"), batches_of(mlp)
    run = METHODS[method]
    for scope in ("network", "layer", *(["neuron"] if unit == "weight" else [])):
        mask, pruned = run(network, batches, keep=0.5, unit=unit, scope=scope, seed=1, **options(method))
        sizes = {name: array.size for name, array in mask.kept.items()}
        assert list(sizes) == list(network.layers if unit == "weight" else network.neurons)
        if scope == "network":
            assert mask.kept_count == int(0.5 * sum(sizes.values()) + 0.5)
        for array in mask.kept.values():
            if scope == "layer":
                assert array.sum() == int(0.5 * array.size + 0.5)
            if scope == "neuron":
                assert (array.sum(0) == int(0.5 * len(array) + 0.5)).all()
        assert isinstance(pruned, nnx.Module)
        expected = parameters_of(mask.apply(network))
        for path, value in parameters_of(pruned).items():
            np.testing.assert_array_equal(value[...], expected[path][...])
    mask, _ = run(network, batches, keep=7, unit=unit, exclude=("fc1",), **options(method))
    assert mask.kept["fc1"].all() and mask.kept_count == 7 + mask.kept["fc1"].size
    mask, _ = run(network, batches, keep={"fc2": 3}, unit=unit, **options(method))
    assert mask.kept["fc1"].all() and mask.kept["fc2"].sum() == 3


@pytest.mark.parametrize("method", METHODS)
def test_the_same_seed_gives_the_same_mask(mlp, method):
    network, batches = mlp.network("nnx"), batches_of(mlp)
    first, second = (METHODS[method](network, batches, keep=0.3, unit="neuron", seed=3, **options(method))[0] for _ in range(2))
    assert all(np.array_equal(first.kept[name], second.kept[name]) for name in first.kept)


def test_other_seeds_give_other_random_masks(mlp):
    masks = [random(mlp.network("nnx"), None, keep=0.5, seed=seed)[0].kept["fc1"] for seed in range(4)]
    assert len({mask.tobytes() for mask in masks}) == 4
    many = np.stack([random(mlp.network("nnx"), None, keep=0.3, seed=seed)[0].kept["fc1"] for seed in range(400)])
    assert abs(many.mean() - 0.3) < 0.02 and np.abs(many.mean(0) - 0.3).max() < 0.12


@pytest.mark.parametrize("method", ["magnitude", "taylor", "synflow", "greedy"])
def test_the_form_that_came_in_comes_back_and_the_users_own_is_untouched(mlp, method):
    unit = "neuron" if method == "synflow" else "weight"
    for form, model in mlp.forms.items():
        before = jax.tree.map(np.array, dict(as_network(model, mlp.inputs).params))
        mask, pruned = METHODS[method](model, batches_of(mlp), keep=0.5, unit=unit, **options(method))
        after = as_network(model, mlp.inputs).params
        assert all(np.array_equal(before[path], after[path]) for path in before)
        if form == "nnx":
            assert isinstance(pruned, nnx.Module) and pruned is not model
        else:
            masked = model.replace(pruned)
            assert set(pruned) == ({"params"} if form == "linen" else {"fc1", "fc2", "out"})
            expected = mask.multiply(model.params)
            assert all(np.array_equal(masked.params[path], expected[path]) for path in expected)


@pytest.mark.parametrize("method", ["random", "magnitude"])
def test_weights_need_neither_data_nor_example(mlp, method):
    model = mlp.nnx
    mask, pruned = METHODS[method](model, None, keep=0.25)
    assert set(mask.kept) == {"fc1", "fc2", "out"}
    traced, _ = METHODS[method](model, [mlp.inputs], keep=0.25)
    assert all(np.array_equal(mask.kept[name], traced.kept[name]) for name in mask.kept)
    assert isinstance(pruned, nnx.Module)
    with pytest.raises(ValueError, match="give batches, or the model an example"):
        METHODS[method](model, None, keep=0.25, unit="neuron")


@pytest.mark.parametrize("method", [name for name in METHODS if name not in DATA_FREE])
def test_methods_that_read_data_say_so(mlp, method):
    with pytest.raises(ValueError, match=f"{method} reads data: give batches"):
        METHODS[method](mlp.nnx, None, keep=0.5, unit="neuron")


@pytest.mark.parametrize("method", ["taylor", "fisher", "snip", "grasp"])
def test_labels_are_checked(mlp, method):
    with pytest.raises(ValueError, match="labels are needed"):
        METHODS[method](mlp.network("nnx"), [mlp.inputs], keep=0.5)
    with pytest.raises(ValueError, match="labels from"):
        METHODS[method](mlp.network("nnx"), [(mlp.inputs, np.full(5, 3))], keep=0.5)


def test_bad_input_is_named(mlp):
    network, batches = mlp.network("nnx"), batches_of(mlp)
    for method, unit in CELLS:
        with pytest.raises(ValueError, match=r"keep=1\.5"):
            METHODS[method](network, batches, keep=1.5, unit=unit)
        with pytest.raises(ValueError, match="'nowhere'"):
            METHODS[method](network, batches, keep=0.5, unit=unit, exclude=("nowhere",))
    with pytest.raises(ValueError, match="a weight has no activation"):
        METHODS["activation"](network, batches, keep=0.5, unit="weight")
    with pytest.raises(ValueError, match="norm is 'l1' or 'l2', not 'l3'"):
        magnitude(network, None, keep=0.5, norm="l3")
    with pytest.raises(ValueError, match="form is 'absolute' or 'squared', not 'cubed'"):
        METHODS["taylor"](network, batches, keep=0.5, form="cubed")
    with pytest.raises(ValueError, match="rounds is at least 1"):
        METHODS["synflow"](network, None, keep=0.5, rounds=0)
    with pytest.raises(TypeError, match="unexpected keyword argument"):
        magnitude(network, None, keep=0.5, nrom="l1")
