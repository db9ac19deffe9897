"""Frozen weights: which of them stay when none will be refitted, all layers together.

With w_0 the dense weights the network w_0 ∘ x moves from the dense one, to second order around a mask m, by the low-rank
energy of `annealsubnet.problems.low_rank`, with a ridge on what is flipped and moves the dense network at all,

    E(x) = ½ ‖A (w_0 ∘ (x − m)) + r‖² + ½ ρ Σ_i w_0i² |x_i − m_i|.

It couples weights within neurons and across layers: without a refit, nothing but other removals makes up for a removal. The
first round starts at the dense network, where r = 0; the model then reaches far beyond what it was measured for, so several
ridges are tried and the answer whose measured distance is least goes on. Later rounds measure A and r again at the mask that
was found, make exchanges, and are undone, with a larger ridge for the next, if the measured distance did not fall.
"""

import logging
from collections.abc import Iterable
from typing import Any

import numpy as np

from annealsubnet.budgets import Budget
from annealsubnet.losses import Loss
from annealsubnet.masks import Mask
from annealsubnet.networks import Network
from annealsubnet.problems import LowRankProblem
from annealsubnet.selection import Choice, best_state
from annealsubnet.solvers.low_rank import exchange_weights
from annealsubnet.statistics.weight_distance import distance_to
from annealsubnet.statistics.weight_rows import WeightRows, distance_rows

logger = logging.getLogger(__name__)

_ROWS, _NUMBERS = 2000, 2**27
"""Rows of the model, and at most so many numbers in it."""
_RIDGES = (0.05, 0.3, 3.0)
"""ρ of the candidates of the first round, in units of the mean curvature of a weight."""


def select_frozen_weights(
    network: Network, batches: Iterable[Any], budget: Budget, *, rounds: int, choice: Choice, loss: Loss, seed: int
) -> dict[str, np.ndarray]:
    """Masks of the selected layers that move the outputs of the network least, by layer.

    Args:
        network: traced.
        batches: calibration inputs; labels are not read.
        budget: of weights.
        rounds: of exchanges around the mask found so far, behind the first.
        choice: how; with a sampler every neuron's fan-in is a binary quadratic model, the others folded in.
        loss: whose curvature measures the outputs' change.
        seed: of all that is random.
    """
    task = _Task(network, batches, budget, choice, loss, seed)
    state, value, ridge = np.ones(len(task.weights), bool), np.inf, _RIDGES[0]
    model = task.rows(state, 0)
    idle = np.asarray(~model.matrix.any(axis=0))
    for candidate in _RIDGES:
        found = task.solve(model, state, candidate, 0, idle=idle)
        distance = task.distance(found)
        logger.info("ridge %g: distance %.4g", candidate, distance)
        if distance < value:
            best, value, ridge = found, distance, candidate
    state = best
    for number in range(1, rounds + 1):
        found = task.solve(task.rows(state, number), state, ridge, number, idle=idle)
        distance = task.distance(found)
        logger.info("round %d: %d exchanges, distance %.4g to %.4g", number, int((found & ~state).sum()), value, distance)
        if np.array_equal(found, state):
            break
        if distance < value:
            state, value = found, distance
        else:
            ridge *= 5
    return task.masks(state)


class _Task:
    """The weights of the selected layers side by side, and how many of which stay."""

    def __init__(self, network: Network, batches: Iterable[Any], budget: Budget, choice: Choice, loss: Loss, seed: int) -> None:
        self.network, self.batches, self.budget = network, batches, budget
        self.choice, self.loss, self.seed = choice, loss, seed
        self.layers = {name: network.layers[name] for name in budget.selected}
        kernels = [np.asarray(network.params[layer.kernel], np.float64).ravel() for layer in self.layers.values()]
        self.weights = np.concatenate(kernels)
        # A kernel ends in its outputs, so every so many numbers belong to the same neuron.
        neurons = [np.arange(kernel.size) % layer.outputs for kernel, layer in zip(kernels, self.layers.values(), strict=True)]
        firsts = np.cumsum([0, *(layer.outputs for layer in self.layers.values())])[:-1]
        self.neuron = np.concatenate([first + own for first, own in zip(firsts, neurons, strict=True)])
        sizes = [kernel.size for kernel in kernels]
        layer_of = np.repeat(np.arange(len(sizes)), sizes)
        self.group = {"network": np.zeros_like(layer_of), "layer": layer_of, "neuron": self.neuron}[budget.scope]
        self.counts = self._counts()

    def _counts(self) -> np.ndarray:
        """How many weights of each group stay."""
        budget = self.budget
        if budget.scope == "network":
            return np.array([budget.total])
        repeats = [layer.outputs if budget.scope == "neuron" else 1 for layer in self.layers.values()]
        return np.repeat([budget.counts[name] for name in self.layers], repeats)

    def masks(self, state: np.ndarray) -> dict[str, np.ndarray]:
        """The state by layer, in the kernels' own shapes."""
        ends = np.cumsum([int(np.prod(layer.shape)) for layer in self.layers.values()])[:-1]
        parts = np.split(state, ends)
        return {name: part.reshape(layer.shape) for (name, layer), part in zip(self.layers.items(), parts, strict=True)}

    def _params(self, state: np.ndarray) -> dict[str, Any]:
        return Mask.of(self.network, "weight", self.masks(state)).multiply(self.network.params)

    def distance(self, state: np.ndarray) -> float:
        """The measured distance of the network under a mask."""
        return distance_to(self.network, self.batches, params=self._params(state), loss=self.loss)

    def rows(self, state: np.ndarray, number: int) -> WeightRows:
        """The network's movement around a mask."""
        rows = max(100, min(_ROWS, _NUMBERS // len(self.weights)))
        return distance_rows(
            self.network,
            self.batches,
            rows=rows,
            seed=self.seed + 1009 * number,
            params=self._params(state),
            layers=self.layers,
            loss=self.loss,
        )

    def solve(self, model: WeightRows, state: np.ndarray, ridge: float, number: int, *, idle: np.ndarray) -> np.ndarray:
        """The best mask around another, of the counts that are asked for.

        Weights that are idle in the dense network, as those of inputs that are always zero, go for nothing, however large they
        are; those that only the mask makes idle may serve again, and are charged.
        """
        factor = np.ascontiguousarray((model.matrix * self.weights.astype(np.float32)).T)
        half = 0.5 * np.einsum("ij,ij->i", factor, factor).astype(np.float64)
        weights = np.where(idle & (half == 0), 0.0, self.weights)
        mean = 2 * half.sum() / max(float(weights @ weights), np.finfo(np.float64).tiny)
        cost = np.where(state, 0.5, -0.5) * ridge * mean * weights**2
        residual = model.residual + factor[~state].sum(0, dtype=np.float64)
        problem = LowRankProblem(factor, residual, cost, self.group)
        removal = half - factor @ problem.outputs(state).astype(np.float32) + cost
        start = self._fewest(np.where(state, removal, np.inf), state)
        if self.choice.sampler is not None:
            return self._by_sampler(problem, start, self.seed + number)
        found = exchange_weights(problem, start, seed=self.seed + number, num_sweeps=self.choice.effort)
        return found.state

    def _fewest(self, removal: np.ndarray, state: np.ndarray) -> np.ndarray:
        """The state without the members whose removal costs least by itself, down to each group's count."""
        state = state.copy()
        for group, count in enumerate(self.counts):
            members = np.flatnonzero((self.group == group) & state)
            spare = len(members) - int(count)
            if spare > 0:
                state[members[np.argsort(removal[members], kind="stable")[:spare]]] = False
        return state

    def _by_sampler(self, problem: LowRankProblem, state: np.ndarray, seed: int) -> np.ndarray:
        """Every neuron's fan-in as a binary quadratic model around the others, one after the other."""
        state = state.copy()
        for neuron in range(int(self.neuron.max()) + 1):
            weights = np.flatnonzero(self.neuron == neuron)
            count = int(state[weights].sum())
            if 0 < count < len(weights):
                part = problem.part(weights, state, num_kept=count)
                state[weights] = best_state(part, self.choice, seed=seed + 1000 * neuron)
        return state
