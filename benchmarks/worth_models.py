"""The problems of `worth.py`: energies whose minimum is a choice of neurons or weights, as arrays.

With contributions A (a column for every unit: what it adds to the targets on every image) the error of a choice x is
‖A x − t‖² / ‖t‖², a quadratic model of as many variables as there are units.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np

from annealsubnet import examples
from annealsubnet.networks import as_network
from annealsubnet.problems.gates import gate_problem
from annealsubnet.statistics.distance import gate_distance


@dataclass(frozen=True)
class Model:
    """offset + linear·x + ½ xᵀ couplings x, relative to the size of the target.

    Attributes:
        linear: `[n]`.
        couplings: `[n, n]`, symmetric, zero diagonal.
        offset: the error of choosing nothing.
    """

    linear: np.ndarray
    couplings: np.ndarray
    offset: float

    def error(self, states: np.ndarray) -> np.ndarray:
        """The error of each state."""
        x = np.atleast_2d(states).astype(float)
        return self.offset + x @ self.linear + 0.5 * np.einsum("si,si->s", x @ self.couplings, x)


@dataclass(frozen=True)
class Teacher:
    """A trained 784-256-256-10 network and what its layers do on 5,000 images.

    Attributes:
        inputs: images, `[images, pixels]`.
        hidden: what the first layer hands on, `[images, neurons]`.
        first, second: pre-activations of the first two layers.
        outgoing: weights of the second layer.
        network: all of it.
    """

    inputs: np.ndarray
    hidden: np.ndarray
    first: np.ndarray
    second: np.ndarray
    outgoing: np.ndarray
    network: Any


def teacher(seed: int, quick: bool) -> Teacher:
    """Train it: two epochs."""
    named = examples.named_network("digits-mlp" if quick else "mnist-mlp")
    data = examples.load(named.data, seed=seed)
    model = examples.train(named.build(seed=seed), data.batches("train", 1000, normalize=named.normalize), seed=seed, epochs=2)
    images = named.normalize(data.train.inputs[: 500 if quick else 5000])
    inputs = images.reshape(-1, np.prod(data.input_shape))
    first = inputs @ np.asarray(model.fc1.kernel[...]) + np.asarray(model.fc1.bias[...])
    hidden, outgoing = np.maximum(first, 0), np.asarray(model.fc2.kernel[...])
    return Teacher(inputs, hidden, first, hidden @ outgoing, outgoing, as_network(model, images[:1]))


def matched(active: np.ndarray, outgoing: np.ndarray, targets: np.ndarray) -> Model:
    """How far Σ_u x_u a_u v_u is from the targets, up to a bias of each.

    Args:
        active: what every unit says, `[images, n]`.
        outgoing: its weights v, `[n, outputs]`.
        targets: `[images, outputs]`.
    """
    active = (active - active.mean(axis=0)).astype(np.float32)
    targets = targets - targets.mean(axis=0)
    total = float((targets**2).sum())
    couplings = (active.T @ active).astype(np.float64)
    couplings *= (2 / total) * (outgoing @ outgoing.T)
    linear = np.diag(couplings) / 2 - 2 * ((active.T @ targets.astype(np.float32)) * outgoing).sum(axis=1) / total
    np.fill_diagonal(couplings, 0.0)
    return Model(np.ascontiguousarray(linear, dtype=np.float64), couplings, 1.0)


def _scaled(active: np.ndarray, outgoing: np.ndarray, targets: np.ndarray, scale: float) -> np.ndarray:
    """Outgoing weights at `scale` times the size at which half of the units together vary as much as the targets."""
    varied = 0.5 * active.var(axis=0) @ (outgoing**2).sum(axis=1)
    return scale * outgoing * np.sqrt(targets.var(axis=0).sum() / varied)


def random_neurons(source: Teacher, n: int, outputs: int, seed: int, scale: float) -> Model:
    """n random ReLU neurons (Kaiming-normal) with random outgoing weights, to match neurons of the teacher's second layer."""
    rng = np.random.default_rng([seed, n])
    targets = source.second[:, rng.permutation(source.second.shape[1])[:outputs]]
    weights = rng.normal(size=(source.inputs.shape[1], n)) * np.sqrt(2 / source.inputs.shape[1])
    active = np.maximum(source.inputs @ weights, 0)
    outgoing = rng.normal(size=(n, outputs))
    return matched(active, _scaled(active, outgoing, targets, scale), targets)


def random_weights(source: Teacher, copies: int, seed: int) -> Model:
    """`copies` random weights from every pixel that varies, to match a neuron of the teacher's first layer."""
    rng = np.random.default_rng([seed, copies])
    targets = source.first[:, [rng.integers(source.first.shape[1])]]
    active = np.tile(source.inputs[:, source.inputs.std(axis=0) > 0], copies)
    outgoing = rng.normal(size=(active.shape[1], 1))
    return matched(active, _scaled(active, outgoing, targets, 1.0), targets)


def trained_layer(source: Teacher) -> Model:
    """The trained neurons of the first layer with their trained outgoing weights, to match the whole second layer."""
    return matched(source.hidden, source.outgoing, source.second)


def across_layers(source: Teacher) -> Model:
    """The trained neurons of both layers, in the Gauss-Newton model of the network's distance from itself."""
    images = source.inputs.reshape(-1, *source.network.example.shape[1:]).astype(np.float32)
    found = gate_distance(source.network, np.split(images, len(images) // 500))
    sizes = {site: place.stop - place.start for site, place in found.places.items()}
    problem = gate_problem(sizes, found.curvature)
    couplings, total = problem.dense_couplings, float(problem.energy(np.zeros(problem.size)))
    return Model(problem.linear / total, couplings / total, problem.offset / total)
