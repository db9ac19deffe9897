"""The quadratic model of the loss that WoodFisher, the Combinatorial Brain Surgeon and CHITA share.

With the gradients of n small batches as rows of A = (g_1, …, g_n)' / √n (the factor of the empirical Fisher information), a
change δ of all weights of all layers changes the loss by about

    Q(δ) = ½ ‖A δ‖² + (λ/2) ‖δ‖²    ( + ē'δ,  ē = mean of the g_k,  with `first_order` )

A is `[n, p]`, never p × p: with B = A_S on a set S of weights, (B'B + λ)⁻¹ r = (r − B' (B B' + λ)⁻¹ B r) / λ is an n × n system
(Woodbury).
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import jax.numpy as jnp
import numpy as np
import scipy.linalg
from jaxtyping import Bool, Float

from annealsubnet.baselines.selection import Result, traced_on_data
from annealsubnet.budgets import Budget, Keep, budget_of, keep_best
from annealsubnet.losses import Loss
from annealsubnet.masks import Mask
from annealsubnet.networks import Network
from annealsubnet.solvers.options import check_weight, check_whole
from annealsubnet.statistics.weight_rows import gradient_rows


@dataclass(frozen=True)
class GradientModel:
    """Q around the present weights of the selected layers, side by side in one vector.

    Attributes:
        network: traced.
        budget: how many weights stay, and where.
        places: where each layer's weights stand, raveled in the kernel's own shape.
        rows: A.
        weights: present weights w.
        slope: ē, or zeros.
        ridge: λ.
        base: A w.
    """

    network: Network
    budget: Budget
    places: Mapping[str, slice]
    rows: Float[np.ndarray, "rows weights"]
    weights: Float[np.ndarray, "weights"]
    slope: Float[np.ndarray, "weights"]
    ridge: float
    base: Float[np.ndarray, "rows"]

    def _moved(self, change: Float[np.ndarray, "weights"]) -> Float[np.ndarray, "rows"]:
        """A δ, over the weights that are not zero afterwards, which are few."""
        after = self.weights + change
        used = np.flatnonzero(after)
        return self.rows[:, used] @ after[used].astype(self.rows.dtype) - self.base

    def value(self, change: Float[np.ndarray, "weights"]) -> float:
        """Q(δ)."""
        moved = self._moved(change)
        own = 0.5 * self.ridge * float(change @ change) + float(self.slope @ change)
        return 0.5 * float(moved @ moved) + own

    def gradient(self, change: Float[np.ndarray, "weights"]) -> Float[np.ndarray, "weights"]:
        """∂Q/∂δ."""
        moved = self._moved(change)
        return (moved @ self.rows).astype(np.float64) + self.ridge * change + self.slope

    def refit(self, kept: Bool[np.ndarray, "weights"]) -> Float[np.ndarray, "weights"]:
        """The change that minimizes Q with w + δ = 0 off the kept weights."""
        change = np.where(kept, 0.0, -self.weights)
        right = -self.gradient(change)[kept]
        change[kept] = woodbury(self.rows[:, kept], self.ridge, right)
        return change

    def keep_largest(self, scores: Float[np.ndarray, "weights"]) -> Bool[np.ndarray, "weights"]:
        """The weights with the largest scores within the budget."""
        by_layer = {name: scores[place].reshape(self.budget.shapes[name]) for name, place in self.places.items()}
        kept = keep_best(by_layer, self.budget)
        return np.concatenate([kept[name].ravel() for name in self.places])

    def result(self, kept: Bool[np.ndarray, "weights"], weights: Float[np.ndarray, "weights"]) -> Result:
        """The mask, and the model with these weights where they are kept."""
        masks = {name: np.ones(shape, bool) for name, shape in self.budget.shapes.items()}
        params = dict(self.network.params)
        for name, place in self.places.items():
            masks[name] = kept[place].reshape(masks[name].shape)
            kernel = self.network.layers[name].kernel
            params[kernel] = jnp.asarray(weights[place].reshape(params[kernel].shape), params[kernel].dtype)
        mask = Mask.of(self.network, "weight", masks)
        return mask, self.network.model.export(mask.multiply(params))


def woodbury(
    rows: Float[np.ndarray, "rows weights"], ridge: float, right: Float[np.ndarray, "weights"]
) -> Float[np.ndarray, "weights"]:
    """(B'B + λ)⁻¹ r by whichever system is smaller."""
    count, size = rows.shape
    if size <= count:
        gram = (rows.T @ rows).astype(np.float64)
        gram[np.diag_indices(size)] += ridge
        return scipy.linalg.solve(gram, right, assume_a="pos", check_finite=False)
    gram = (rows @ rows.T).astype(np.float64)
    gram[np.diag_indices(count)] += ridge
    inner = scipy.linalg.solve(gram, rows @ right, assume_a="pos", check_finite=False)
    return (right - inner @ rows) / ridge


def gradient_model(
    model: Any,
    batches: Iterable[Any] | None,
    method: str,
    *,
    keep: Keep,
    unit: str,
    scope: str,
    exclude: Iterable[str],
    loss: Loss,
    rows: int,
    ridge: float,
    first_order: bool = False,
) -> GradientModel:
    """Gather the model.

    Args:
        model, batches, keep, unit, scope, exclude, loss: as in `annealsubnet.baselines`; labels are read.
        method: its name, for messages.
        rows: n; the examples are divided evenly among them.
        ridge: λ.
        first_order: whether the slope is part of Q.

    Raises:
        ValueError: for another unit than weights, rows below 1, a ridge that is not positive and finite, missing labels, and as
            `budget_of`.
    """
    if unit != "weight":
        raise ValueError(f"{method} chooses weights; give unit='weight', not {unit!r}.")
    check_whole("rows", rows, 1)
    check_weight("ridge", ridge, above_zero=True)  # there are fewer rows than weights
    network = traced_on_data(model, batches, method)
    budget = budget_of(network, keep=keep, unit=unit, scope=scope, exclude=exclude)
    found = gradient_rows(network, batches or (), rows=rows, layers=budget.selected, loss=loss)
    weights = np.concatenate(
        [np.asarray(network.params[network.layers[name].kernel], np.float64).ravel() for name in found.places]
    )
    matrix = np.asfortranarray(found.matrix)  # columns are gathered again and again
    slope = np.sqrt(len(found.matrix)) * found.matrix.mean(0, dtype=np.float64)
    return GradientModel(
        network,
        budget,
        found.places,
        matrix,
        weights,
        slope if first_order else np.zeros_like(slope),
        ridge,
        matrix @ weights.astype(matrix.dtype),
    )
