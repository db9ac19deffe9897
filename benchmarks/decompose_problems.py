"""Problems that the benchmarks of the decomposer share: real ones from published networks, and graphs of any size.

- mlpnet, resnet20: which inputs of a neuron to keep, E(x) = E[(a·w − a·(w ∘ x))²], from second moments of real inputs of the
  published checkpoints ($ANNEALSUBNET_DATA/checkpoints);
- mlpnet-joined, resnet20-joined: those fan-ins as one problem of thousands of units, 16 couplings a unit;
- mnist-mlp: which neurons of a layer to keep, the error of the layer that reads them, in a network trained here for two epochs;
- digits: the same fan-in problems from scikit-learn's digits, where there is no data folder.

Each comes with a count (a tenth of the units) and with a price in place of it, the median of what the units cost alone.
"""

import os
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import scipy.sparse
from local_problems import digits_layers

from annealsubnet import examples
from annealsubnet.neighborhoods import strongest
from annealsubnet.networks import as_network
from annealsubnet.problems import Problem, fan_in_problem, site_problem, sparsify
from annealsubnet.statistics.moments import input_moments, self_regression

KEPT = 0.1
DEGREE = 16
RESNET_LAYERS = {"layer1/0/conv1", "layer2/0/conv2", "layer3/0/conv1", "layer3/2/conv2"}
CHECKPOINTS = {
    "mlpnet": "mlpnet_mnist.npz",
    "resnet20": "woodfisher_resnet20_cifar10.npz",
    "lenet-300-100": "dns_lenet300100_dense.npz",
}


def counted(problem: Problem) -> Problem:
    """The problem with a tenth of its units kept."""
    return replace(problem, num_kept=max(1, round(KEPT * problem.size)))


def with_price(problem: Problem) -> Problem:
    """The problem with a price a unit instead of a count: the median coupling of a unit to itself."""
    alone = -problem.linear
    return replace(problem, linear=problem.linear + np.median(np.abs(alone)), num_kept=None)


def fan_ins(gram: np.ndarray, weights: np.ndarray, neurons: np.ndarray, name: str) -> Iterator[tuple[str, Problem]]:
    """The problems of some neurons of a layer over their inputs that ever vary; the error relative to keeping none."""
    active = np.diag(gram) > 0
    own = gram[np.ix_(active, active)]
    for neuron in neurons.tolist():
        chosen = weights[active, neuron]
        energy = float(chosen @ own @ chosen)
        problem = fan_in_problem(own / energy, own @ chosen / energy, chosen, target_energy=1.0)
        yield f"{name}-{neuron}", replace(problem, labels=None)


def published(network: str, per_layer: int, seed: int) -> Iterator[tuple[str, Problem]]:
    """Fan-ins of a published network."""
    named = examples.named_network(network)
    data = examples.load(named.data, seed=0)
    folder = Path(os.environ["ANNEALSUBNET_DATA"]) / "checkpoints"
    model = examples.load_checkpoint(network, folder / CHECKPOINTS[network])
    batches = list(data.batches("train", 500, normalize=named.normalize, examples=2000))
    traced = as_network(model, batches[0][0])
    moments = input_moments(traced, batches)
    rng = np.random.default_rng(seed)
    for name, layer in traced.layers.items():
        if layer.fan_in < 100 or (network == "resnet20" and name not in RESNET_LAYERS):
            continue
        weights = layer.matrix(np.asarray(traced.params[layer.kernel], np.float64))[0]
        neurons = rng.choice(weights.shape[1], min(per_layer, weights.shape[1]), replace=False)
        yield from fan_ins(moments[name].gram[0], weights, neurons, f"{network}-{name.replace('/', '.')}")


def joined(problems: list[Problem]) -> Problem:
    """Many fan-ins as one problem of bounded degree: each unit's strongest couplings to others of its own neuron."""
    parts = [
        sparsify(own, strongest(own.dense_couplings, degree=DEGREE), at=np.zeros(own.size, bool)).problem for own in problems
    ]
    couplings = scipy.sparse.block_diag([part.couplings for part in parts], format="csr")
    return Problem(
        np.concatenate([part.linear for part in parts]), scipy.sparse.csr_array(couplings), sum(part.offset for part in parts)
    )


def trained_neurons(seed: int) -> Iterator[tuple[str, Problem]]:
    """Neurons of both hidden layers of an MNIST network trained here."""
    named = examples.named_network("mnist-mlp")
    data = examples.load("mnist", seed=0)
    train = data.batches("train", 1000, normalize=named.normalize, examples=20_000)
    model = examples.train(named.build(seed=seed), train, seed=seed, epochs=2, learning_rate=2e-3)
    batches = list(data.batches("train", 1000, normalize=named.normalize, examples=4000))
    network = as_network(model, batches[0][0])
    moments = input_moments(network, batches)
    for name, site in network.neurons.items():
        params, layers = network.params, network.layers
        regressions = {consumer: self_regression(layers[consumer], moments[consumer], params) for consumer in site.consumers}
        problem = site_problem(site, regressions, layers, params)
        yield f"mnist-mlp-{name}-{seed}", replace(problem, labels=None)


def digits(count: int, seed: int) -> Iterator[tuple[str, Problem]]:
    """Fan-ins of an MLP trained on the digits."""
    rng = np.random.default_rng(seed)
    for layer in digits_layers(seed)[:2]:
        gram = layer.inputs.T @ layer.inputs / len(layer.inputs)
        neurons = rng.choice(layer.weights.shape[1], count, replace=False)
        yield from fan_ins(gram, layer.weights, neurons, layer.name)


def real_problems(per_layer: int, seed: int, *, quick: bool = False, large: bool = False) -> list[tuple[str, Problem]]:
    """All of them, by name, and the joined ones too if `large`; those of the digits without a data folder or in a quick run."""
    if quick or "ANNEALSUBNET_DATA" not in os.environ:
        return list(digits(per_layer, seed))
    layers = [list(published("mlpnet", 2 * per_layer, seed)), list(published("resnet20", per_layer, seed))]
    together = [
        (f"{name}-joined", joined([problem for _, problem in own]))
        for name, own in zip(("mlpnet", "resnet20"), layers, strict=True)
    ]
    return [*layers[0], *layers[1], *trained_neurons(seed), *(together if large else [])]


def unseen_problems(per_layer: int, seed: int) -> list[tuple[str, Problem]]:
    """Problems of networks on which nothing in the package was fitted: LeNet-300-100, and an MLP trained on the digits."""
    return [*published("lenet-300-100", per_layer, seed), *digits(per_layer, seed)]


def lattice(count: int, seed: int) -> Problem:
    """A torus whose units are coupled to their eight nearest, with normally distributed couplings, in random order."""
    side = round(count**0.5)
    place = np.random.default_rng(seed).permutation(side * side).reshape(side, side)
    shifts = ((0, 1), (1, 0), (1, 1), (1, -1))
    pairs = [(place.ravel(), np.roll(place, shift, (0, 1)).ravel()) for shift in shifts]
    return _coupled(side * side, *(np.concatenate(ends) for ends in zip(*pairs, strict=True)), seed)


def geometric(count: int, seed: int) -> Problem:
    """Points in a square, each coupled to its nearest (eight a point in the mean)."""
    from scipy.spatial import cKDTree

    points = np.random.default_rng(seed).random((count, 2))
    near = cKDTree(points).query(points, k=8)[1][:, 1:]
    first, second = np.repeat(np.arange(count), near.shape[1]), near.ravel()
    once = np.unique(np.sort(np.stack([first, second], axis=1), axis=1), axis=0)
    return _coupled(count, once[:, 0], once[:, 1], seed)


def random_regular(count: int, seed: int) -> Problem:
    """Four random rings over the same units: degree eight and no locality at all."""
    rng = np.random.default_rng(seed)
    orders = [rng.permutation(count) for _ in range(4)]
    first, second = np.concatenate(orders), np.concatenate([np.roll(order, 1) for order in orders])
    once = np.unique(np.sort(np.stack([first, second], axis=1), axis=1), axis=0)
    return _coupled(count, once[:, 0], once[:, 1], seed)


GRAPHS = {"lattice": lattice, "geometric": geometric, "random": random_regular}


def _coupled(count: int, first: np.ndarray, second: np.ndarray, seed: int) -> Problem:
    rng = np.random.default_rng(seed + 1)
    upper = scipy.sparse.coo_array((rng.normal(size=first.size), (first, second)), shape=(count, count))
    return Problem(rng.normal(size=count), scipy.sparse.csr_array(upper + upper.T))
