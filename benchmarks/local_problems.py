"""Local problems of real networks: which inputs of a neuron to keep.

Two kinds, each from second moments of real activations (scikit-learn's digits; the network is an MLP trained on them):

- trained: E(x) = Σ_ij w_i w_j H_ij x_i x_j - 2 Σ_i b_i w_i x_i + λ Σ_i x_i, the error of a trained neuron that keeps
  the inputs x, with a price λ at which about half of them stay;
- random: the same with random weights c in place of w and the trained neuron's own pre-activation as the target, as when
  a subnetwork is looked for in a random network; contributions have random signs, so the landscape is rugged.
"""

from dataclasses import dataclass

import numpy as np
from sklearn.datasets import load_digits
from sklearn.neural_network import MLPClassifier

from annealsubnet.problems import Problem


@dataclass(frozen=True)
class Layer:
    """Inputs of a trained layer and its weights, [inputs, neurons]."""

    name: str
    inputs: np.ndarray
    weights: np.ndarray


def digits_layers(seed: int = 0) -> list[Layer]:
    """The layers of a 64-64-48-10 MLP trained on the digits for a few seconds."""
    images = load_digits().data / 16.0
    network = MLPClassifier((64, 48), max_iter=60, random_state=seed, early_stopping=False, tol=0.0, n_iter_no_change=60)
    import warnings

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        network.fit(images, load_digits().target)
    layers, values = [], images
    for index, (weights, bias) in enumerate(zip(network.coefs_, network.intercepts_, strict=True)):
        layers.append(Layer(f"digits-layer{index}", values, weights))
        values = np.maximum(values @ weights + bias, 0.0)
    return layers


def local_problem(layer: Layer, neuron: int, kind: str, rng: np.random.Generator) -> Problem:
    """The problem of one neuron over those of its inputs that are ever active."""
    active = layer.inputs.std(axis=0) > 1e-6
    inputs, target_weights = layer.inputs[:, active], layer.weights[active, neuron]
    moments = inputs.T @ inputs / len(inputs)
    target = moments @ target_weights
    factors = target_weights
    if kind == "random":
        factors = rng.normal(size=target_weights.size) * target_weights.std() * 2.0
    error = np.outer(factors, factors) * moments
    price = np.median(np.diag(error)) if kind == "trained" else 0.0
    scale = float(target_weights @ target)
    couplings = 2.0 * error / scale
    np.fill_diagonal(couplings, 0.0)
    linear = (np.diag(error) - 2.0 * target * factors + price) / scale
    return Problem(linear, 0.5 * (couplings + couplings.T), offset=1.0)


def local_problems(count: int, seed: int = 0) -> list[tuple[str, Problem]]:
    """Named problems of at most 64 variables, kinds and layers in turn, no neuron of a kind twice (there are 244)."""
    rng = np.random.default_rng(seed)
    layers = digits_layers(seed)
    most = max(layer.weights.shape[1] for layer in layers)
    cases = [(neuron, kind, layer) for neuron in range(most) for kind in ("trained", "random") for layer in layers]
    cases = [case for case in cases if case[0] < case[2].weights.shape[1]]
    if count > len(cases):
        raise ValueError(f"count is {count}; these layers have {len(cases)} problems.")
    return [
        (f"{layer.name}-{kind}-{index}", local_problem(layer, neuron, kind, rng))
        for index, (neuron, kind, layer) in enumerate(cases[:count])
    ]


def random_problems(count: int, size: int, seed: int = 0) -> list[tuple[str, Problem]]:
    """Dense problems with normally distributed biases."""
    rng = np.random.default_rng(seed)
    problems = []
    for index in range(count):
        upper = np.triu(rng.normal(size=(size, size)), 1)
        problems.append((f"normal{size}-{index}", Problem(rng.normal(size=size), upper + upper.T)))
    return problems
