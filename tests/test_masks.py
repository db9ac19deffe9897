"""Masks: zeros where units are removed, in every form, in files and under any optimizer."""

import json
import re
import tracemalloc
from functools import partial
from time import perf_counter

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx
from safetensors.numpy import save_file

from annealsubnet.evaluation import evaluate
from annealsubnet.masks import Mask, masked, weight_layers
from annealsubnet.networks import as_model, as_network
from annealsubnet.refitting import refit
from tests.models import EXAMPLES, NnxMlp, build


def random_mask(network, unit, seed=0):
    generator = np.random.default_rng(seed)
    if unit == "weight":
        shapes = {name: layer.shape for name, layer in network.layers.items()}
    else:
        shapes = {name: (site.size,) for name, site in network.sites(unit).items()}
    return Mask.of(network, unit, {name: generator.random(shape) < 0.5 for name, shape in shapes.items()})


@pytest.fixture(params=["weight", "neuron", "head"])
def unit(request):
    return request.param


@pytest.mark.parametrize("form", ["nnx", "linen", "function"])
def test_a_mask_zeroes_what_it_removes_and_nothing_else(unit, form):
    example = EXAMPLES["transformer"]()
    network, model = example.network(form), as_model(example.forms[form])
    mask = random_mask(network, unit)
    applied = model.replace(mask.apply(example.forms[form]))
    keeps = mask.keeps()
    for path, value in model.params.items():
        keep = np.broadcast_to(keeps.get(path, np.True_), value.shape)
        np.testing.assert_array_equal(applied.params[path], np.where(keep, value, 0))
    np.testing.assert_array_equal(as_model(example.forms[form]).params["up/kernel"], model.params["up/kernel"])
    assert mask.kept_count == sum(int(kept.sum()) for kept in mask.kept.values()) < mask.size


def test_weight_masks_need_no_trace():
    example = EXAMPLES["cnn"]()
    for form, source in example.forms.items():
        assert weight_layers(source) == weight_layers(example.network(form))
    traced = random_mask(example.network(), "weight")
    bare = Mask.of(example.nnx, "weight", traced.kept)
    assert bare.example is None and traced.example is not None
    first, second = as_model(traced.apply(example.nnx)), as_model(bare.apply(example.nnx))
    jax.tree.map(np.testing.assert_array_equal, dict(first.params), dict(second.params))


def test_a_removed_nan_does_not_survive():
    model = nnx.Linear(2, 2, rngs=nnx.Rngs(0))
    mask = Mask.of(model, "weight", {"Linear": np.array([[True, False], [True, True]])})
    model.kernel[...] = model.kernel[...].at[0, 1].set(jnp.nan)
    assert np.isfinite(mask.apply(model).kernel[...]).all()


def test_what_it_says_of_itself():
    network = EXAMPLES["mlp"]().network()
    mask = Mask.of(network, "neuron", {"fc1": np.arange(8) < 6, "fc2": np.ones(7, bool)})
    assert repr(mask) == "Mask(neuron, 13 of 15 kept in 2 sites)"
    assert mask.sparsity == {"fc1": 0.25, "fc2": 0.0}
    with pytest.raises(ValueError, match="read-only"):
        mask.kept["fc1"][0] = False


def test_files_give_back_the_mask(tmp_path, unit):
    example = EXAMPLES["transformer"]()
    mask = random_mask(example.network(), unit)
    mask.save(tmp_path / "mask.safetensors")
    loaded = Mask.load(tmp_path / "mask.safetensors")
    assert (loaded.unit, loaded.shapes, loaded.example) == (mask.unit, mask.shapes, mask.example)
    jax.tree.map(np.testing.assert_array_equal, dict(loaded.kept), dict(mask.kept))
    jax.tree.map(np.testing.assert_array_equal, loaded.keeps(), mask.keeps())
    assert [path.name for path in tmp_path.iterdir()] == ["mask.safetensors"]


def test_a_truncated_file(tmp_path):
    path = tmp_path / "mask.safetensors"
    random_mask(EXAMPLES["mlp"]().network(), "neuron").save(path)
    whole = path.read_bytes()
    for length in (0, 5, 20, len(whole) // 2, len(whole) - 1):
        path.write_bytes(whole[:length])
        with pytest.raises(ValueError, match="is no mask file, or a truncated one"):
            Mask.load(path)


def test_a_file_whose_header_and_arrays_disagree(tmp_path):
    """Every name in the header with one letter changed, and every number of an axis."""
    path = tmp_path / "mask.safetensors"
    random_mask(EXAMPLES["mlp"]().network(), "neuron").save(path)
    whole = path.read_bytes()
    for name in (b"fc1/kernel", b"fc1/bias", b"fc2", b"slot:1:fc1", b"kept:fc1"):
        for place in [match.start() for match in re.finditer(name, whole)]:
            path.write_bytes(whole[:place] + b"F" + whole[place + 1 :])
            with pytest.raises(ValueError, match="is a mask file that is damaged"):
                Mask.load(path)
    for old, new in ((b'kernel\\", 1, 1]', b'kernel\\", 0, 1]'), (b'bias\\", 0, 1]', b'bias\\", 3, 1]')):
        assert old in whole
        path.write_bytes(whole.replace(old, new))
        with pytest.raises(ValueError, match=r"damaged.*does not fit the shape"):
            Mask.load(path)


def test_foreign_files(tmp_path):
    path = tmp_path / "other.safetensors"
    save_file({"a": np.ones(3)}, path)
    with pytest.raises(ValueError, match="is a safetensors file but no mask"):
        Mask.load(path)
    save_file({"a": np.ones(3)}, path, {"annealsubnet.mask": json.dumps({"version": 99})})
    with pytest.raises(ValueError, match=r"damaged or of a later version.*version 99"):
        Mask.load(path)
    path.write_text("[metadata]\nname = something else entirely\n")
    with pytest.raises(ValueError, match="is no mask file"):
        Mask.load(path)
    with pytest.raises(FileNotFoundError):
        Mask.load(tmp_path / "absent")


def test_a_failed_save_leaves_the_old_file(tmp_path, monkeypatch):
    path = tmp_path / "mask.safetensors"
    mask = random_mask(EXAMPLES["mlp"]().network(), "neuron")
    mask.save(path)
    before = path.read_bytes()

    def fail(*_):
        raise OSError("disk full")

    monkeypatch.setattr("annealsubnet.mask_files.os.replace", fail)
    with pytest.raises(OSError, match="disk full"):
        mask.save(path)
    assert path.read_bytes() == before and len(list(tmp_path.iterdir())) == 1


def test_a_mask_for_another_model():
    mask = random_mask(EXAMPLES["mlp"]().network(), "neuron")
    with pytest.raises(ValueError, match="another model: parameter 'fc1/kernel' is missing in this model"):
        mask.apply(EXAMPLES["cnn"]().nnx)
    wider = build(lambda rngs: nnx.Sequential(nnx.Linear(6, 9, rngs=rngs), nnx.Linear(9, 2, rngs=rngs)))
    narrow = build(lambda rngs: nnx.Sequential(nnx.Linear(6, 8, rngs=rngs), nnx.Linear(8, 2, rngs=rngs)))
    mask = random_mask(as_network(narrow, np.ones((1, 6), np.float32)), "neuron")
    with pytest.raises(ValueError, match=r"'layers/0/kernel' has shape \(6, 9\) in this model, \(6, 8\) in the mask"):
        mask.apply(wider)


@pytest.mark.parametrize("use", [refit, lambda model, mask, batches: evaluate(model, batches, mask)])
def test_a_mask_for_another_model_in_a_refit_and_an_evaluation(use):
    inputs, labels = np.ones((4, 6), np.float32), np.zeros(4, int)
    mask = random_mask(EXAMPLES["mlp"]().network(), "neuron")
    wider = build(lambda rngs: NnxMlp((jax.nn.relu, jnp.tanh), rngs))
    wider.fc1.kernel, wider.fc1.bias = nnx.Param(jnp.ones((6, 9))), nnx.Param(jnp.ones(9))
    wider.fc2.kernel = nnx.Param(jnp.ones((9, 7)))
    with pytest.raises(ValueError, match=r"'fc1/kernel' has shape \(6, 9\) in this model, \(6, 8\) in the mask"):
        use(wider, mask, [(inputs, labels)])
    # The same parameters, and neurons that cannot be followed.
    mixing = NnxMlp((jnp.sort, jnp.tanh), nnx.Rngs(0))
    with pytest.raises(ValueError, match="this one has no 8 neurons at 'fc1'"):
        use(mixing, mask, [(inputs, labels)])


@pytest.mark.parametrize(
    ("unit", "kept", "says"),
    [
        ("synapse", {}, "unit is one of 'weight', 'neuron', 'head', not 'synapse'"),
        ("neuron", {"fc9": np.ones(3, bool)}, r"no neurons at 'fc9'; it has them at \['fc1', 'fc2'\]"),
        ("neuron", {"fc1": np.ones(7, bool)}, r"kept\['fc1'\] is bool of shape \(7,\); it must be bool of shape \(8,\)"),
        ("weight", {"fc1": np.ones((6, 8))}, r"kept\['fc1'\] is float64"),
    ],
)
def test_masks_that_cannot_be(unit, kept, says):
    with pytest.raises(ValueError, match=says):
        Mask.of(EXAMPLES["mlp"]().network(), unit, kept)


def tree_of(form, example, mask):
    """Parameters under the mask as each form trains them."""
    applied = mask.apply(example.forms[form])
    return nnx.state(applied, nnx.Param) if form == "nnx" else applied


@pytest.mark.parametrize("form", ["nnx", "linen", "params", "function"])
def test_optimizers_keep_zeros(form):
    example = EXAMPLES["mlp"]()
    mask = random_mask(example.network(), "neuron")
    tree = tree_of("linen" if form == "params" else form, example, mask)
    tree = tree["params"] if form == "params" else tree
    tx = masked(optax.chain(optax.clip_by_global_norm(1.0), optax.adamw(0.1, weight_decay=0.1)), mask)
    state = tx.init(tree)
    step = jax.jit(lambda gradients, state, tree: tx.update(gradients, state, tree))
    for size in (-0.7, 0.3, 1.3):
        gradients = jax.tree.map(partial(jnp.full_like, fill_value=size), tree)
        updates, state = step(gradients, state, tree)
        tree = optax.apply_updates(tree, updates)
    params = as_model(example.nnx).replace(tree).params
    before = as_model(mask.apply(example.nnx)).params
    for path, keep in mask.keeps().items():
        keep = np.broadcast_to(keep, params[path].shape)
        assert not np.asarray(params[path])[~keep].any()
        assert (np.asarray(params[path]) != np.asarray(before[path]))[keep].all()


def test_masked_gradients_do_not_count_in_norms():
    model = nnx.Linear(2, 1, use_bias=False, rngs=nnx.Rngs(0))
    mask = Mask.of(model, "weight", {"Linear": np.array([[True], [False]])})
    tx = masked(optax.clip_by_global_norm(1.0), mask)
    gradients = {"kernel": jnp.array([[1.0], [1e6]])}
    updates, _ = tx.update(gradients, tx.init(gradients))
    np.testing.assert_allclose(updates["kernel"], [[1.0], [0.0]])


def test_nnx_optimizer():
    example = EXAMPLES["mlp"]()
    mask = random_mask(example.network(), "weight")
    model = mask.apply(example.nnx)
    optimizer = nnx.Optimizer(model, masked(optax.adam(0.1), mask), wrt=nnx.Param)
    gradients = nnx.grad(lambda net: (net(example.inputs) ** 2).sum())(model)
    optimizer.update(model, gradients)
    params = as_model(model).params
    assert all(not np.asarray(params[path])[~keep].any() for path, keep in mask.keeps().items())


def test_optimizers_of_another_tree():
    mask = random_mask(EXAMPLES["mlp"]().network(), "neuron")
    tx = masked(optax.sgd(0.1), mask)
    with pytest.raises(ValueError, match="are 0 times in this tree"):
        tx.init({"a": jnp.ones(3)})
    linen = EXAMPLES["mlp"]().linen
    twice = {"student": linen.export(linen.params), "teacher": linen.export(linen.params)}
    with pytest.raises(ValueError, match="are 2 times in this tree"):
        tx.init(twice)


def test_a_large_layer_takes_arrays_only():
    model = build(lambda rngs: nnx.Linear(4096, 4096, use_bias=False, rngs=rngs))
    kept = np.random.default_rng(0).random((4096, 4096)) < 0.5
    tracemalloc.start()
    started = perf_counter()
    mask = Mask.of(model, "weight", {"Linear": kept})
    count = mask.kept_count
    applied = mask.apply(model)
    seconds = perf_counter() - started
    snapshot = tracemalloc.take_snapshot()
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert count == kept.sum() == int((applied.kernel[...] != 0).sum())
    # An object for each weight would be at least 16 million blocks and a second.
    assert sum(statistic.count for statistic in snapshot.statistics("filename")) < 100_000
    assert peak < 4 * kept.size and seconds < 5
