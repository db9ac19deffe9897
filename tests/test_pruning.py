"""prune: exact counts, the optimum where it can be enumerated, the user's own form, one sentence for every mistake."""

from functools import partial
from inspect import unwrap
from itertools import combinations

import dimod
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from dwave.samplers import SimulatedAnnealingSampler, TabuSampler
from flax import nnx

from annealsubnet import Mask, baselines, prune, refit, shrink, thin, weight_curves
from annealsubnet.losses import cross_entropy, squared_error
from annealsubnet.networks import as_network, from_function
from annealsubnet.refitting import fit_together, refit_params
from annealsubnet.statistics import targets
from annealsubnet.statistics.weight_distance import distance_to
from tests.models import residual, separable, transformer


class Network(nnx.Module):
    """A small classifier."""

    def __init__(self, seed: int = 0) -> None:
        rngs = nnx.Rngs(seed)
        self.first = nnx.Linear(6, 9, rngs=rngs)
        self.second = nnx.Linear(9, 8, rngs=rngs)
        self.out = nnx.Linear(8, 3, rngs=rngs)

    def __call__(self, inputs):
        return self.out(nnx.relu(self.second(nnx.relu(self.first(inputs)))))


class Sigmoid(Network):
    """The same with neurons that return a half where they are gone."""

    def __call__(self, inputs):
        return self.out(nnx.sigmoid(self.second(nnx.sigmoid(self.first(inputs)))))


class Residual(nnx.Module):
    """A convolutional stem, a residual block, BatchNorm and an average."""

    def __init__(self) -> None:
        rngs = nnx.Rngs(0)
        self.stem = nnx.Conv(2, 6, (3, 3), rngs=rngs)
        self.norm = nnx.BatchNorm(6, rngs=rngs)
        self.inner = nnx.Conv(6, 8, (3, 3), use_bias=False, rngs=rngs)
        self.back = nnx.Conv(8, 6, (3, 3), use_bias=False, rngs=rngs)
        self.out = nnx.Linear(6, 3, rngs=rngs)

    def __call__(self, inputs):
        hidden = nnx.relu(self.norm(self.stem(inputs)))
        hidden = nnx.relu(hidden + self.back(nnx.relu(self.inner(hidden))))
        return self.out(hidden.mean((1, 2)))


class Attention(nnx.Module):
    """One attention with four heads."""

    def __init__(self) -> None:
        rngs = nnx.Rngs(0)
        self.attention = nnx.MultiHeadAttention(4, 8, decode=False, rngs=rngs)
        self.out = nnx.Linear(8, 3, rngs=rngs)

    def __call__(self, inputs):
        return self.out(self.attention(inputs).mean(1))


def example(model, count=80):
    shape = {Residual: (5, 5, 2), Attention: (4, 8)}.get(type(model), (6,))
    return np.random.default_rng(0).normal(size=(count, *shape)).astype(np.float32)


def distance(network, params, inputs):
    return float(((network.apply(params, inputs) - network.apply(network.params, inputs)) ** 2).mean())


@pytest.mark.parametrize("scope", ["network", "layer", "neuron"])
@pytest.mark.parametrize("keep", [0.3, 0.8])
@pytest.mark.parametrize("refitted", [True, False])
def test_weights_are_kept_exactly(scope, keep, refitted):
    model = Network()
    inputs = example(model)
    mask, pruned = prune(model, [inputs], keep=keep, unit="weight", scope=scope, refit=refitted, polish=0, seed=0)
    sizes = {name: array.size for name, array in mask.kept.items()}
    if scope == "network":
        assert mask.kept_count == round(keep * sum(sizes.values()))
    for name, array in mask.kept.items():
        if scope == "layer":
            assert array.sum() == int(keep * sizes[name] + 0.5)
        if scope == "neuron":
            assert (array.sum(0) == int(keep * len(array) + 0.5)).all()
        np.testing.assert_array_equal(np.asarray(getattr(pruned, name).kernel[...])[~array], 0)


@pytest.mark.parametrize("model", [Network, Residual, Attention])
@pytest.mark.parametrize("scope", ["network", "layer"])
def test_sites_are_kept_exactly_and_the_model_is_left_alone(model, scope):
    model = model()
    model.eval()
    inputs = example(model)
    unit = "head" if isinstance(model, Attention) else "neuron"
    before = [np.array(leaf) for leaf in nnx.to_flat_state(nnx.state(model)).leaves if isinstance(leaf, nnx.Param)]
    mask, pruned = prune(model, [inputs, inputs[:10]], keep=0.5, unit=unit, scope=scope, polish=0, seed=0)
    assert mask.kept_count == -(-mask.size // 2) if scope == "network" else mask.kept_count
    if scope == "layer":
        assert all(array.sum() == int(0.5 * array.size + 0.5) for array in mask.kept.values())
    after = [np.array(leaf) for leaf in nnx.to_flat_state(nnx.state(model)).leaves if isinstance(leaf, nnx.Param)]
    assert all(np.array_equal(one, other) for one, other in zip(before, after, strict=True))
    assert type(pruned) is type(model)
    assert pruned(inputs).shape == (80, 3)


def test_pruned_is_the_refit_of_its_mask():
    model = Network()
    inputs = example(model)
    for unit in ("neuron", "weight"):
        mask, pruned = prune(model, [inputs], keep=0.4, unit=unit, polish=0, seed=0)
        np.testing.assert_allclose(pruned(inputs), refit(model, mask, [inputs])(inputs), atol=1e-5)


def test_pruned_neurons_end_with_the_fit_of_all_layers():
    model = Network()
    inputs = example(model)
    network = as_network(model, inputs)
    mask, walked = prune(model, [inputs], keep=0.4, unit="neuron", polish=0, seed=0)
    _, pruned = prune(model, [inputs], keep=0.4, unit="neuron", seed=0)
    options = {"params": network.replace(walked).params, "loss": cross_entropy, "seed": 0}
    fitted = fit_together(network, mask, [inputs], **options)
    np.testing.assert_allclose(pruned(inputs), network.apply(fitted, inputs), atol=1e-5)


@pytest.mark.parametrize("model", [Sigmoid, Residual, Attention])
def test_neurons_and_heads_that_are_fitted_together_bring_the_network_nearer(model):
    model = model()
    model.eval()
    inputs = example(model)
    network = as_network(model, inputs)
    unit = "head" if isinstance(model, Attention) else "neuron"
    distances, masks = [], []
    for polish in (0, 3):
        mask, pruned = prune(model, [inputs], keep=0.5, unit=unit, polish=polish, seed=0)
        params = network.replace(pruned).params
        distances.append(distance_to(network, [inputs], params=params))
        masks.append(mask)
        for path, keep in mask.keeps().items():
            assert not np.asarray(params[path])[~np.broadcast_to(keep, params[path].shape)].any()
        np.testing.assert_allclose(shrink(pruned, mask)(inputs), pruned(inputs), rtol=1e-3, atol=1e-4)
    assert distances[1] < distances[0]
    assert all(np.array_equal(kept, masks[1].kept[name]) for name, kept in masks[0].kept.items())


def test_neurons_before_the_last_layer_are_the_best_of_all_choices():
    model = Network()
    inputs = example(model)
    network = as_network(model, inputs)
    mask, _ = prune(model, [inputs], keep={"second": 3}, unit="neuron", polish=0, seed=0, ridge=1e-9)
    importance = uniform_error(network, inputs)
    errors = {chosen: importance(chosen) for chosen in combinations(range(8), 3)}
    assert importance(tuple(np.flatnonzero(mask.kept["second"]))) <= min(errors.values()) * (1 + 1e-3)


def uniform_error(network, inputs):
    """The curvature-weighted error of the logits after the refit, by definition."""
    from annealsubnet.shares import importance_of

    weights = importance_of(network, [inputs], params=network.params, loss=cross_entropy)["out"][0]
    dense = np.asarray(network.apply(network.params, inputs))

    def error(chosen):
        kept = np.isin(np.arange(8), chosen)
        params = refit_params(network, Mask.of(network, "neuron", {"second": kept}), [inputs], ridge=1e-9)
        return float(((np.asarray(network.apply(params, inputs)) - dense) ** 2).mean(0) @ weights)

    return error


@pytest.mark.parametrize(
    ("sampler", "options"),
    [
        (SimulatedAnnealingSampler(), {"num_reads": 8, "num_sweeps": 100}),
        (TabuSampler(), {"timeout": 5}),
        (dimod.ExactSolver(), {}),
    ],
)
@pytest.mark.parametrize("unit", ["weight", "neuron"])
def test_any_sampler_serves(sampler, options, unit):
    model = Network()
    inputs = example(model)
    network = as_network(model, inputs)
    mask, pruned = prune(model, [inputs], keep=0.5, unit=unit, scope="layer", sampler=sampler, sampler_options=options, seed=0)
    assert all(array.sum() == int(0.5 * array.size + 0.5) for array in mask.kept.values())
    rng = np.random.default_rng(0)
    at_random = {name: rng.permutation(array.ravel()).reshape(array.shape) for name, array in mask.kept.items()}
    other = refit_params(network, Mask.of(network, unit, at_random), [inputs])
    assert distance(network, as_network(pruned, inputs).params, inputs) < distance(network, other, inputs)


@pytest.mark.parametrize("unit", ["weight", "neuron"])
def test_the_same_seed_gives_the_same_mask(unit):
    model = Network()
    inputs = example(model)
    masks = [prune(model, [inputs], keep=0.5, unit=unit, polish=int(unit == "weight"), seed=3)[0] for _ in range(2)]
    for name, array in masks[0].kept.items():
        np.testing.assert_array_equal(array, masks[1].kept[name])


def test_rounds_end_at_the_same_count():
    model = Network()
    inputs = example(model)
    for unit in ("weight", "neuron"):
        mask, _ = prune(model, [inputs], keep=0.3, unit=unit, rounds=3, polish=0, seed=0)
        assert mask.kept_count == int(0.3 * mask.size + 0.5)


def test_layers_are_left_out():
    model = Network()
    inputs = example(model)
    mask, pruned = prune(model, [inputs], keep=0.3, unit="weight", exclude=("second", "out"), polish=1, seed=0)
    assert mask.kept["second"].all() and mask.kept["out"].all()
    assert mask.kept["first"].sum() == round(0.3 * 54)
    mask, _ = prune(model, [inputs], keep={"first": 4}, unit="neuron", polish=0, seed=0)
    assert mask.kept["first"].sum() == 4 and mask.kept.get("second", np.ones(1, bool)).all()


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"keep": 0.0}, "keep=0.0"),
        ({"keep": 1.5}, "keep=1.5"),
        ({"keep": 10**6}, "keep=1000000"),
        ({"keep": {"nowhere": 0.5}}, "nowhere"),
        ({"keep": 0.5, "exclude": ("nowhere",)}, "nowhere"),
        ({"keep": 0.5, "unit": "synapse"}, "synapse"),
        ({"keep": 0.5, "scope": "galaxy"}, "galaxy"),
        ({"keep": 0.5, "rounds": 0}, "rounds"),
        ({"keep": 0.5, "effort": -1}, "effort is -1"),
        ({"keep": 0.5, "ridge": -1.0}, "ridge"),
    ],
)
def test_bad_requests_say_what_was_found(options, words):
    model = Network()
    with pytest.raises(ValueError, match=words):
        prune(model, [example(model)], **{"unit": "neuron", "seed": 0, **options})


def test_bad_batches_say_what_was_found():
    model = Network()
    inputs = example(model)
    bad = inputs.copy()
    bad[3, 2] = np.nan
    for batches, words in (
        ([], "no batches"),
        ([inputs, inputs[:, :3]], "Batch 1"),
        ([inputs, inputs.astype(np.float64)], "dtype"),
        ([bad], "NaN"),
    ):
        with pytest.raises(ValueError, match=words):
            prune(model, batches, keep=0.5, unit="neuron", seed=0)
    with pytest.raises(ValueError, match="first"):
        broken = Network()
        broken.first.kernel[...] = broken.first.kernel[...].at[0, 0].set(np.nan)
        prune(broken, [inputs], keep=0.5, unit="neuron", seed=0)
    with pytest.raises(TypeError, match="num_raeds"):
        prune(model, [inputs], keep=0.5, unit="neuron", sampler_options={"num_raeds": 3}, refit=False, seed=0)
    with pytest.raises(TypeError, match="str"):
        prune("model", [inputs], keep=0.5, seed=0)


@pytest.mark.parametrize("unit", ["weight", "neuron"])
def test_sparse_neighborhoods_serve_too(unit):
    model = Network()
    inputs = example(model)
    found = {}
    for degree in (1, 3, None):
        mask, pruned = prune(
            model,
            [inputs],
            keep=0.5,
            unit=unit,
            scope="layer",
            sampler=SimulatedAnnealingSampler(),
            sampler_options={"num_reads": 8, "num_sweeps": 100},
            degree=degree,
            seed=0,
        )
        assert all(array.sum() == int(0.5 * array.size + 0.5) for array in mask.kept.values())
        found[degree] = distance(as_network(model, inputs), as_network(pruned, inputs).params, inputs)
    assert found[1] < 2 * found[None] + 1e-3


@pytest.mark.parametrize("loss", [cross_entropy, squared_error], ids=repr)
def test_where_passes_are_costly_the_kept_weights_are_fitted_by_small_batches(monkeypatch, caplog, loss):
    import annealsubnet.refitting as refitting

    inputs = example(Network())
    network = as_network(Network(), inputs)
    monkeypatch.setattr(refitting, "_MOST_WORK", 1.0)
    caplog.set_level("INFO", logger="annealsubnet.refitting")
    options = {"keep": 0.5, "seed": 0, "effort": 0, "loss": loss}
    mask, fitted = prune(network, [inputs], **options)
    assert "fitted by small batches" in caplog.text
    same, walked = prune(network, [inputs], polish=0, **options)
    assert all(np.array_equal(mask.kept[name], same.kept[name]) for name in mask.kept)
    distance = [distance_to(network, [inputs], params=network.replace(found).params, loss=loss) for found in (walked, fitted)]
    assert distance[1] < distance[0]


def test_a_single_output_is_fitted_by_small_batches_too(monkeypatch):
    import annealsubnet.refitting as refitting

    inputs = example(Network())
    model = from_function(lambda values, x, tap: tap.dense("out", jnp.tanh(tap.dense("first", x))), _two_layers(outputs=1))
    network = as_network(model, inputs)
    monkeypatch.setattr(refitting, "_MOST_WORK", 1.0)
    options = {"keep": 0.5, "seed": 0, "effort": 0, "loss": squared_error}
    walked, fitted = (prune(network, [inputs], polish=polish, **options)[1] for polish in (0, 1))
    assert distance(network, network.replace(fitted).params, inputs) < distance(network, network.replace(walked).params, inputs)


def _two_layers(outputs):
    rng = np.random.default_rng(0)
    shapes = {"first": (6, 9), "out": (9, outputs)}
    return {name: {"kernel": jnp.asarray(rng.normal(size=shape) / 3, jnp.float32)} for name, shape in shapes.items()}


def test_layers_see_the_pruned_or_the_dense_network():
    """With the pruned network's inputs later layers make up for earlier ones; the dense network's say nothing of those."""
    rng = np.random.default_rng(0)
    inputs = rng.normal(size=(200, 8)).astype(np.float32)
    params = {"first": {"kernel": rng.normal(size=(8, 8)) / 3}, "out": {"kernel": rng.normal(size=(8, 2)) / 3}}
    params = jax.tree.map(lambda array: jnp.asarray(array, jnp.float32), params)
    model = from_function(lambda values, x, tap: tap.dense("out", jax.nn.relu(tap.dense("first", x))), params)
    network = as_network(model, inputs)
    target = np.asarray(network.apply(network.params, inputs))
    errors = {}
    for seen in ("pruned", "dense"):
        _, pruned = prune(model, [inputs], keep={"first": 24}, polish=0, inputs=seen, ridge=1e-4, seed=0)
        found = network.replace(pruned)
        errors[seen] = np.square(np.asarray(found.apply(found.params, inputs)) - target).mean()
        if seen == "dense":
            np.testing.assert_allclose(pruned["out"]["kernel"], params["out"]["kernel"], atol=1e-3)
    assert errors["pruned"] < errors["dense"]
    with pytest.raises(ValueError, match="inputs is 'both'"):
        prune(model, [inputs], keep=0.5, inputs="both", seed=0)


class Half(nnx.Module):
    """A convolution and two dense layers in one dtype."""

    def __init__(self, dtype) -> None:
        options = {"rngs": nnx.Rngs(0), "dtype": dtype, "param_dtype": dtype}
        self.conv = nnx.Conv(2, 6, (3, 3), **options)
        self.hidden = nnx.Linear(6, 8, **options)
        self.out = nnx.Linear(8, 3, **options)

    def __call__(self, inputs):
        return self.out(nnx.relu(self.hidden(nnx.relu(self.conv(inputs)).mean((1, 2)))))


@pytest.mark.parametrize("dtype", [jnp.bfloat16, jnp.float16])
@pytest.mark.parametrize("most_work", [2e10, 0.0], ids=["polished", "fitted by batches"])
def test_networks_of_half_floats_are_pruned_in_float32_and_come_back_as_they_were(dtype, most_work, monkeypatch):
    import annealsubnet.refitting as refitting

    monkeypatch.setattr(refitting, "_MOST_WORK", most_work)
    inputs = np.random.default_rng(0).normal(size=(200, 5, 5, 2)).astype(np.float32)
    model = Half(dtype)
    mask, pruned = prune(model, [inputs], keep=0.4, effort=0, polish=1, seed=0)
    state = [leaf[...] for leaf in jax.tree.leaves(nnx.state(pruned), is_leaf=lambda leaf: isinstance(leaf, nnx.Variable))]
    assert all(value.dtype == dtype and jnp.isfinite(value).all() for value in state)
    outputs = [np.asarray(each(inputs), np.float32) for each in (model, pruned)]
    dense, found = (each - each.mean(1, keepdims=True) for each in outputs)  # softmax leaves a common shift out
    assert ((found - dense) ** 2).mean() < 0.3 * dense.var()
    assert mask.kept_count == round(0.4 * mask.size)


class Images(nnx.Module):
    """Two convolutions that return an image."""

    def __init__(self) -> None:
        rngs = nnx.Rngs(0)
        self.first = nnx.Conv(2, 6, (3, 3), rngs=rngs)
        self.second = nnx.Conv(6, 4, (3, 3), rngs=rngs)

    def __call__(self, inputs):
        return self.second(nnx.relu(self.first(inputs)))


def test_outputs_that_are_not_one_vector_are_refused_and_still_refitted():
    model, inputs = Images(), np.random.default_rng(0).normal(size=(20, 6, 6, 2)).astype(np.float32)
    words = r"returns \(6, 6, 4\) an example; the loss takes one vector"
    for options in ({}, {"polish": 0}, {"scope": "neuron"}, {"unit": "neuron"}, {"refit": False}, {"curvature": False}):
        with pytest.raises(ValueError, match=words):
            prune(model, [inputs], keep=0.3, seed=0, **options)
    for call in (
        weight_curves,
        partial(thin, keep=0.3, seed=0),
        partial(baselines.obd, keep=0.3),
        partial(baselines.obc, keep=0.3),
    ):
        with pytest.raises(ValueError, match=words):
            call(model, [inputs])
    mask, _ = baselines.magnitude(model, [inputs], keep=0.5)
    assert refit(model, mask, [inputs])(inputs).shape == (20, 6, 6, 4)


@pytest.mark.parametrize(
    ("options", "error", "words"),
    [
        ({"refit": False, "rounds": 5}, ValueError, "rounds=5 .* give polish"),
        ({"sampler_options": {"num_reads": 3}}, ValueError, r"options \['num_reads'\] are for a sampler"),
        ({"sampler_options": {"num_reads": 3}, "refit": False}, ValueError, "are for a sampler"),
        ({"sampler_options": {"num_reads": 3}, "unit": "neuron"}, ValueError, "are for a sampler"),
        ({"sampler": "tabu"}, TypeError, "sampler is 'tabu'; give a dimod.Sampler"),
        ({"polish": 1.5}, TypeError, "polish must be a whole number; it is 1.5"),
        ({"rounds": 1.5}, TypeError, "rounds must be a whole number; it is 1.5"),
        ({"polish": -1}, ValueError, "polish must be at least 0"),
    ],
)
def test_what_would_not_be_read_is_refused(options, error, words):
    model = Network()
    with pytest.raises(error, match=words):
        unwrap(prune)(model, [example(model)], keep=0.5, seed=0, **options)  # without the tests' own checks of types


@pytest.mark.parametrize(("max_kept", "error"), [(0, ValueError), (-1, ValueError), (1.5, TypeError)])
def test_curves_are_followed_for_at_least_one_weight(max_kept, error):
    with pytest.raises(error, match="max_kept must be"):
        unwrap(weight_curves)(Network(), [example(Network())], max_kept=max_kept)


@pytest.mark.parametrize("curvature", [False, True])
def test_inputs_that_never_vary_do_no_harm(curvature):
    """Behind them the hidden neurons never vary either: nothing but rounding is left of their covariances."""
    rng = np.random.default_rng(0)
    shapes = {"first": (68, 16), "out": (16, 3)}
    params = {
        name: {"kernel": jnp.asarray(rng.normal(size=shape) / 8, jnp.float32), "bias": jnp.zeros(shape[1])}
        for name, shape in shapes.items()
    }
    model = from_function(lambda values, x, tap: tap.dense("out", jax.nn.relu(tap.dense("first", x))), params)
    for value in (0.7, 1.0, 5.0):
        inputs = np.full((60, 68), value, np.float32)
        mask, pruned = prune(model, [inputs], keep=0.3, polish=0, effort=0, curvature=curvature, seed=0)
        assert mask.kept_count == round(0.3 * mask.size)
        network = as_network(model, inputs)
        params_left = network.replace(pruned).params
        np.testing.assert_allclose(
            network.apply(params_left, inputs), network.apply(network.params, inputs), rtol=1e-3, atol=1e-3
        )


@pytest.mark.parametrize(
    ("options", "adapted"),
    [({"polish": 0}, True), ({"polish": 1}, True), ({"unit": "neuron"}, True), ({"refit": False}, False)],
)
def test_excluded_layers_lose_nothing_and_are_refitted_with_the_rest(options, adapted):
    model = Network()
    inputs = example(model)
    mask, pruned = prune(model, [inputs], keep=0.4, exclude=("second",), effort=0, seed=0, **options)
    assert "second" not in mask.kept or mask.kept["second"].all()
    moved = not np.array_equal(pruned.second.kernel[...], model.second.kernel[...])
    assert moved == adapted


def test_thinning_and_baselines_leave_excluded_layers_as_they_are():
    model = Network()
    inputs = example(model)
    names = ("obc", "sparsegpt", "alps", "chita", "surgeon", "woodfisher")
    for method in (thin, *(getattr(baselines, name) for name in names)):
        labels = np.arange(len(inputs)) % 3
        _, pruned = method(model, [(inputs, labels)], keep=0.4, exclude=("second",), seed=0)
        np.testing.assert_array_equal(pruned.second.kernel[...], model.second.kernel[...])


@pytest.mark.parametrize("options", [{"polish": 0}, {"refit": False}, {"unit": "neuron"}], ids=str)
def test_seeds_may_be_numbers_of_numpy_and_must_be_whole(options):
    inputs = np.random.default_rng(0).normal(size=(60, 6)).astype(np.float32)
    network = as_network(Network(), inputs)
    as_called = unwrap(prune)  # without the check of types that only tests have
    ours, theirs = (as_called(network, [inputs], keep=0.5, seed=seed, **options)[0] for seed in (3, np.uint8(3)))
    assert all((ours.kept[name] == theirs.kept[name]).all() for name in ours.kept)
    for seed in (0.5, "a", None, True):
        with pytest.raises(TypeError, match="seed must be a whole number"):
            as_called(network, [inputs], keep=0.5, seed=seed, **options)


@pytest.mark.parametrize("choose", [partial(prune, polish=0), baselines.osscar], ids=["prune", "osscar"])
@pytest.mark.parametrize(
    ("example", "unit"),
    [(residual, "neuron"), (separable, "neuron"), (transformer, "head")],
    ids=["residual", "separable", "heads"],
)
def test_units_are_chosen_as_if_each_layer_ran_from_the_start(example, unit, choose, monkeypatch):
    """A site of a residual stream is read by layers far behind the first, and masks layers that have run by then."""
    given, found = example(), []
    noise = np.random.default_rng(0).normal(size=(7, *given.inputs.shape)).astype(np.float32)
    inputs = np.concatenate(given.inputs + 0.3 * noise)
    for most in (0, 2**28):
        monkeypatch.setattr(targets, "_HELD", most)
        network = given.network()
        mask, pruned = choose(network, [inputs], keep=0.5, unit=unit, scope="layer", seed=0)
        found.append((mask.kept, network.replace(pruned).params))
    (kept, params), (kept_running_on, params_running_on) = found
    for name in kept:
        np.testing.assert_array_equal(kept[name], kept_running_on[name])
    for name in params:
        np.testing.assert_allclose(params[name], params_running_on[name], rtol=1e-3, atol=1e-4)
