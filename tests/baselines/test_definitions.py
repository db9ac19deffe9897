"""Every baseline keeps the units that its paper's definition puts first, computed here one by one."""

from functools import cache
from itertools import pairwise

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from annealsubnet.baselines import METHODS, magnitude, synflow
from annealsubnet.losses import cross_entropy
from annealsubnet.networks import as_network, from_function
from annealsubnet.shares import importance_of
from annealsubnet.statistics.gates import gate_curvature
from tests.models import EXAMPLES

KEEP = 0.4


def batches_of(example):
    labels = np.arange(len(example.inputs)) % 3
    return [(example.inputs[:3], labels[:3]), (example.inputs[3:], labels[3:])]


def assert_keeps_best(mask, scores):
    """No removed unit scores higher than a kept one, and as many stay as were asked for."""
    names = list(scores)
    assert set(names) == set(mask.kept)
    kept = np.concatenate([mask.kept[name].ravel() for name in names])
    values = np.concatenate([np.asarray(scores[name], np.float64).ravel() for name in names])
    assert kept.sum() == round(KEEP * kept.size)
    # The best neuron of every site stays whatever it scores.
    best = np.concatenate(
        [_best_of_site(scores[name]) if mask.unit != "weight" else np.zeros(scores[name].size, bool) for name in names]
    )
    tolerance = 1e-4 * np.abs(values).max()
    assert values[kept & ~best].min(initial=np.inf) >= values[~kept].max() - tolerance


def _best_of_site(scores):
    return np.arange(np.size(scores)) == np.argmax(scores)


@cache
def per_example(name):
    """Gradients of each example's loss, one example at a time: by kernels, and by the gates of neurons and heads."""
    example = EXAMPLES[name]()
    network = example.network("nnx")
    kernels = {layer: network.params[network.layers[layer].kernel] for layer in network.layers}
    gates = {site: jnp.ones(found.size) for site, found in (network.neurons | network.heads).items()}

    def logits(values, factors, row):
        paths = {network.layers[layer].kernel: kernel for layer, kernel in values.items()}
        return network.run({**network.params, **paths}, row[None], gates=factors)[0]

    def loss(values, factors, row, label):
        return cross_entropy.value(logits(values, factors, row), label[None])[0]

    slopes = jax.jit(jax.grad(loss, (0, 1)))
    jacobians = jax.jit(jax.jacrev(logits, (0, 1)))
    probabilities = jax.jit(lambda row: jax.nn.softmax(logits(kernels, gates, row))[0])
    gradients, curvatures = [], []
    for inputs, labels in batches_of(example):
        for row, label in zip(inputs, labels, strict=True):
            gradients.append(slopes(kernels, gates, row, jnp.asarray(label)))
            probability = np.asarray(probabilities(row), np.float64)
            hessian = np.diag(probability) - np.outer(probability, probability)
            curvatures.append(
                jax.tree.map(
                    lambda array, hessian=hessian: np.einsum("c...,cd,d...->...", array[0], hessian, array[0]),
                    jax.tree.map(np.asarray, jacobians(kernels, gates, row)),
                )
            )

    def stacked(trees):
        return jax.tree.map(lambda *leaves: np.stack([np.asarray(leaf, np.float64) for leaf in leaves]), *trees)

    kernels = {layer: np.asarray(kernel, np.float64) for layer, kernel in kernels.items()}
    return network, kernels, stacked(gradients), stacked(curvatures)


def contributions(name, unit):
    """For each site or layer `[examples, units]`: the first-order change c and the curvature G of each example."""
    network, kernels, gradients, curvatures = per_example(name)
    if unit == "weight":
        first = {layer: gradient * kernels[layer] for layer, gradient in gradients[0].items()}
        return first, {layer: curvature * kernels[layer] ** 2 for layer, curvature in curvatures[0].items()}
    sites = network.sites(unit)
    return {site: gradients[1][site] for site in sites}, {site: curvatures[1][site] for site in sites}


DEFINITIONS = {
    "taylor": lambda first, second: np.abs(first).mean(0),
    "fisher": lambda first, second: 0.5 * (first**2).mean(0),
    "obd": lambda first, second: 0.5 * second.mean(0),
    "snip": lambda first, second: np.abs(first.mean(0)),
}


@pytest.mark.parametrize(
    ("name", "unit"), [("mlp", "weight"), ("mlp", "neuron"), ("cnn", "weight"), ("residual", "neuron"), ("transformer", "head")]
)
@pytest.mark.parametrize("method", DEFINITIONS)
def test_sensitivities(method, name, unit):
    example = EXAMPLES[name]()
    first, second = contributions(name, unit)
    scores = {site: DEFINITIONS[method](first[site], second[site]) for site in first}
    if method == "taylor" and unit != "weight":
        scores = {site: values / np.sqrt((values**2).sum()) for site, values in scores.items()}
    mask, _ = METHODS[method](example.network("nnx"), batches_of(example), keep=KEEP, unit=unit)
    assert_keeps_best(mask, scores)


def test_taylor_squared_ranks_like_snip():
    example = EXAMPLES["mlp"]()
    for unit in ("weight", "neuron"):
        squared, _ = METHODS["taylor"](example.network("nnx"), batches_of(example), keep=KEEP, unit=unit, form="squared")
        snip, _ = METHODS["snip"](example.network("nnx"), batches_of(example), keep=KEEP, unit=unit)
        assert all(np.array_equal(squared.kept[name], snip.kept[name]) for name in snip.kept)


def test_magnitudes():
    example = EXAMPLES["residual"]()
    network = example.network("nnx")
    kernels = {name: np.asarray(network.params[layer.kernel]) for name, layer in network.layers.items()}
    assert_keeps_best(magnitude(network, None, keep=KEEP)[0], {name: np.abs(kernel) for name, kernel in kernels.items()})
    for norm, order in (("l1", 1), ("l2", 2)):
        scores = {}
        for name, site in network.neurons.items():
            # The outputs of layers that are summed are one neuron: all the weights that feed it.
            rows = np.concatenate([kernels[member].reshape(-1, kernels[member].shape[-1]) for member in site.members])
            scores[name] = [np.linalg.norm(rows[:, unit], order) for unit in range(site.size)]
        mask, _ = magnitude(network, None, keep=KEEP, unit="neuron", norm=norm)
        assert_keeps_best(mask, {name: np.asarray(values) for name, values in scores.items()})


def test_magnitude_of_heads_is_that_of_their_projections():
    network = EXAMPLES["transformer"]().network("nnx")
    (site,) = network.heads
    axes = {"query": 1, "key": 1, "value": 1, "out": 0}
    parts = {part: np.asarray(network.params[f"{site}/{part}/kernel"]) for part in axes}
    scores = np.array(
        [np.sqrt(sum((np.take(parts[part], head, axis) ** 2).sum() for part, axis in axes.items())) for head in range(3)]
    )
    assert_keeps_best(magnitude(network, None, keep=KEEP, unit="head")[0], {site: scores})


def test_magnitude_by_layer_and_by_neuron():
    network = EXAMPLES["mlp"]().network("nnx")
    by_layer, _ = magnitude(network, None, keep=0.5, scope="layer")
    by_neuron, _ = magnitude(network, None, keep=0.5, scope="neuron")
    for name, layer in network.layers.items():
        kernel = np.abs(np.asarray(network.params[layer.kernel]))
        count = int(0.5 * kernel.size + 0.5)
        assert np.array_equal(by_layer.kept[name], kernel >= np.sort(kernel, axis=None)[-count])
        rows = int(0.5 * len(kernel) + 0.5)
        assert np.array_equal(by_neuron.kept[name], kernel >= np.sort(kernel, axis=0)[-rows])


def test_mean_activation_of_what_later_layers_read():
    example = EXAMPLES["cnn"]()
    network = example.network("nnx")
    _, records = network.run(network.params, jnp.asarray(example.inputs), record=network.layers)
    read = {"conv1": np.asarray(records["conv2"][0]), "conv2": np.asarray(records["out"][0]).reshape(5, -1, 5)}
    scores = {}
    for name, array in read.items():
        means = np.array([np.abs(array[..., channel]).mean() for channel in range(array.shape[-1])])
        scores[name] = means / np.sqrt((means**2).sum())
    assert_keeps_best(METHODS["activation"](network, batches_of(example), keep=KEEP, unit="neuron")[0], scores)


def test_grasp_by_the_whole_hessian():
    example = EXAMPLES["mlp"]()
    network = example.network("nnx")
    inputs, labels = (jnp.concatenate([batch[part] for batch in batches_of(example)]) for part in (0, 1))
    kernels = {name: network.params[layer.kernel] for name, layer in network.layers.items()}
    flat, restore = jax.flatten_util.ravel_pytree(kernels)

    def loss(values):
        paths = {network.layers[name].kernel: kernel for name, kernel in restore(values).items()}
        outputs, _ = network.run({**network.params, **paths}, inputs)
        return cross_entropy.value(outputs / 200.0, labels).mean()

    gradient = np.asarray(jax.jit(jax.grad(loss))(flat), np.float64)
    hessian = np.asarray(jax.jit(jax.hessian(loss))(flat), np.float64)
    # The paper's score is −θ ∘ Hg, and it removes the largest.
    papers = {name: np.asarray(part) for name, part in restore(jnp.asarray(-flat * (hessian @ gradient), flat.dtype)).items()}
    mask, _ = METHODS["grasp"](network, batches_of(example), keep=KEEP)
    assert_keeps_best(mask, {name: -part for name, part in papers.items()})
    mask, _ = METHODS["grasp"](network, batches_of(example), keep=KEEP, unit="neuron")
    assert_keeps_best(mask, {name: -papers[name].sum(0) for name in network.neurons})


def chain(seed=0, sizes=(6, 5, 4, 3)):
    generator = np.random.default_rng(seed)
    kernels = [generator.normal(size=shape).astype(np.float32) for shape in pairwise(sizes)]

    def apply(params, inputs, tap):
        for number in range(len(kernels) - 1):
            inputs = jax.nn.relu(tap.dense(f"layer{number}", inputs))
        return tap.dense(f"layer{len(kernels) - 1}", inputs)

    params = {f"layer{number}": {"kernel": jnp.asarray(kernel)} for number, kernel in enumerate(kernels)}
    return from_function(apply, params, example=np.ones((1, sizes[0]), np.float32)), kernels


def flow_by_paths(kernels, kept):
    """|w| times all paths from the input that reach it and all paths from it to the output."""
    values = [np.abs(kernel).astype(np.float64) * mask for kernel, mask in zip(kernels, kept, strict=True)]
    flows = []
    for number, value in enumerate(values):
        before, after = np.ones(len(values[0])), np.ones(values[-1].shape[1])
        for below in values[:number]:
            before = before @ below
        for above in reversed(values[number + 1 :]):
            after = above @ after
        flows.append(before[:, None] * value * after[None, :])
    return flows


@pytest.mark.parametrize("rounds", [1, 100])
def test_synflow_by_paths(rounds):
    model, kernels = chain()
    kept = [np.ones(kernel.shape, bool) for kernel in kernels]
    size = sum(kernel.size for kernel in kernels)
    for number in range(1, rounds + 1):
        flows = flow_by_paths(kernels, kept)
        # The law of conservation (theorem 2): every layer has the same total.
        totals = [flow.sum() for flow in flows]
        np.testing.assert_allclose(totals, totals[0], rtol=1e-10)
        flat = np.where(np.concatenate([mask.ravel() for mask in kept]), np.concatenate([flow.ravel() for flow in flows]), -1)
        count = max(round(KEEP * size), round(size * (round(KEEP * size) / size) ** (number / rounds)))
        best = np.zeros(size, bool)
        best[np.argsort(-flat, kind="stable")[:count]] = True
        kept = [
            part.reshape(mask.shape)
            for part, mask in zip(np.split(best, np.cumsum([k.size for k in kept])[:-1]), kept, strict=True)
        ]
    mask, _ = synflow(model, None, keep=round(KEEP * size), rounds=rounds)
    for number, expected in enumerate(kept):
        assert np.array_equal(mask.kept[f"layer{number}"], expected)


def test_synflow_of_a_neuron_is_the_sum_over_its_weights():
    model, kernels = chain()
    flows = flow_by_paths(kernels, [np.ones(kernel.shape, bool) for kernel in kernels])
    mask, _ = synflow(model, None, keep=KEEP, unit="neuron", rounds=1)
    assert_keeps_best(mask, {f"layer{number}": flows[number].sum(0) for number in range(2)})


def test_synflow_never_empties_a_layer_that_magnitude_empties():
    model, kernels = chain(sizes=(20, 20, 20, 3))
    params = {f"layer{n}": {"kernel": jnp.asarray(kernel * 0.01 if n == 1 else kernel)} for n, kernel in enumerate(kernels)}
    small = model.replace(params)
    assert not magnitude(small, None, keep=40)[0].kept["layer1"].any()
    assert all(kept.any() for kept in synflow(small, None, keep=40)[0].kept.values())


def test_synflow_leaves_running_means_out():
    """The same mask whatever the running means, also where they would push everything below zero."""

    def network(mean):
        def apply(params, inputs, tap):
            hidden = tap.batch_norm("norm", tap.dense("hidden", inputs), mean=mean, var=jnp.linspace(0.5, 2.0, 5))
            return tap.dense("out", jax.nn.relu(hidden))

        generator = np.random.default_rng(0)
        params = {
            "hidden": {"kernel": jnp.asarray(generator.normal(size=(6, 5)), jnp.float32), "bias": jnp.linspace(-1, 1, 5)},
            "norm": {"scale": jnp.linspace(-1, 1.5, 5), "bias": jnp.linspace(0.5, -0.5, 5)},
            "out": {"kernel": jnp.asarray(generator.normal(size=(5, 3)), jnp.float32)},
        }
        return from_function(apply, params, example=np.ones((1, 6), np.float32))

    for unit in ("weight", "neuron"):
        plain, shifted = (synflow(network(mean), None, keep=KEEP, unit=unit)[0] for mean in (jnp.zeros(5), jnp.full(5, 50.0)))
        assert all(np.array_equal(plain.kept[name], shifted.kept[name]) for name in plain.kept)


def test_synflow_says_when_it_overflows():
    model, kernels = chain()
    huge = model.replace({f"layer{number}": {"kernel": jnp.asarray(1e20 * kernel)} for number, kernel in enumerate(kernels)})
    with pytest.raises(ValueError, match="'layer0' is NaN or infinite"):
        synflow(huge, None, keep=KEEP)


def test_greedy_removes_the_weight_that_adds_least():
    example = EXAMPLES["mlp"]()
    network = example.network("nnx")
    _, records = network.run(network.params, jnp.asarray(example.inputs), record=network.layers)
    layer = network.layers["fc1"]
    weights, inputs = np.asarray(network.params[layer.kernel], np.float64), np.asarray(records["fc1"][0], np.float64)
    mask, _ = METHODS["greedy"](network, [example.inputs], keep={"fc1": 2}, scope="neuron")
    for neuron in range(8):
        contribution = inputs * weights[:, neuron]
        kept = list(range(6))
        while len(kept) > 2:
            errors = [
                ((contribution.sum(1) - np.delete(contribution, _gone(kept, unit), 1).sum(1)) ** 2).mean() for unit in kept
            ]
            kept.pop(int(np.argmin(errors)))
        assert np.flatnonzero(mask.kept["fc1"][:, neuron]).tolist() == kept


def _gone(kept, unit):
    return [number for number in range(6) if number not in kept or number == unit]


def test_greedy_over_layers_is_greedy_on_their_sum():
    """Merging the courses of single neurons equals one elimination over all weights of the network."""
    example = EXAMPLES["mlp"]()
    network = example.network("nnx")
    importance = importance_of(network, [example.inputs], params=network.params, loss=cross_entropy)
    _, records = network.run(network.params, jnp.asarray(example.inputs), record=network.layers)
    blocks, where = [], []
    for name, layer in network.layers.items():
        inputs = np.asarray(records[name][0], np.float64)
        weights = np.asarray(network.params[layer.kernel], np.float64)
        for neuron in range(layer.outputs):
            contribution = inputs * weights[:, neuron]
            blocks.append(importance[name][0, neuron] * contribution.T @ contribution / len(inputs))
            where += [(name, row, neuron) for row in range(len(weights))]
    size = len(where)
    matrix = np.zeros((size, size))
    start = 0
    for block in blocks:
        matrix[start : start + len(block), start : start + len(block)] = block
        start += len(block)
    gone = np.zeros(size)
    for _ in range(size - round(KEEP * size)):
        costs = np.where(gone > 0, np.inf, np.diag(matrix) + 2 * matrix @ gone)
        gone[np.argmin(costs)] = 1
    mask, _ = METHODS["greedy"](network, [example.inputs], keep=KEEP)
    found = np.array([mask.kept[name][row, neuron] for name, row, neuron in where])
    assert np.array_equal(found, gone == 0)


@pytest.mark.parametrize(("name", "unit"), [("cnn", "neuron"), ("residual", "neuron"), ("transformer", "head")])
@pytest.mark.parametrize("scope", ["network", "layer"])
def test_greedy_of_neurons_moves_the_outputs_least(name, unit, scope):
    """One elimination over all sites on (1 − x)ᵀ G (1 − x), a tenth of the mean curvature added to the diagonal."""
    example = EXAMPLES[name]()
    network = example.network("nnx")
    found = gate_curvature(network, [example.inputs], unit=unit, form="full")
    matrix = found.curvature + 0.1 * np.diag(found.curvature).mean() * np.eye(len(found.curvature))
    site_of = np.concatenate([np.full(place.stop - place.start, site) for site, place in found.places.items()])
    mask, _ = METHODS["greedy"](network, [example.inputs], keep=KEEP, unit=unit, scope=scope)
    least = {site: 1 if scope == "network" else int(mask.kept[site].sum()) for site in found.places}
    gone = np.zeros(len(matrix))
    while (gone == 0).sum() > mask.kept_count:
        errors = np.full(len(matrix), np.inf)
        for candidate in np.flatnonzero(gone == 0):
            if (gone[site_of == site_of[candidate]] == 0).sum() > least[site_of[candidate]]:
                step = np.where(np.arange(len(matrix)) == candidate, 1, gone)
                errors[candidate] = step @ matrix @ step
        gone[np.argmin(errors)] = 1
    for site, place in found.places.items():
        assert np.array_equal(mask.kept[site], gone[place] == 0)


def test_traced_once_or_on_every_call_is_the_same():
    example = EXAMPLES["mlp"]()
    for form in example.forms.values():
        mask, _ = METHODS["snip"](form, batches_of(example), keep=KEEP)
        same, _ = METHODS["snip"](as_network(form, example.inputs), batches_of(example), keep=KEEP)
        assert all(np.array_equal(mask.kept[name], same.kept[name]) for name in same.kept)
