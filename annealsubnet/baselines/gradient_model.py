"""The quadratic model of the loss that WoodFisher, the Combinatorial Brain Surgeon and CHITA share.

With the gradients of n small batches as rows of A = (g_1, …, g_n)' / √n (the factor of the empirical Fisher information), a
change δ of all weights of all layers changes the loss by about

    Q(δ) = ½ ‖A δ‖² + (λ/2) ‖δ‖²    ( + ē'δ,  ē = mean of the g_k,  with `first_order` )

A is `[n, p]`, never p × p: with B = A_S on a set S of weights, (B'B + λ)⁻¹ r = (r − B' (B B' + λ)⁻¹ B r) / λ is an n × n system
(Woodbury), and for r = B'y there is no difference to lose digits in: (B'B + λ)⁻¹ B'y = B' (B B' + λ)⁻¹ y. As the slope is
ē = A'1 / √n, all that a refit asks for is of that kind.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import jax.numpy as jnp
import numpy as np
import scipy.linalg
from jaxtyping import Bool, Float

from annealsubnet.arguments import check_weight, check_whole
from annealsubnet.baselines.selection import Result, traced_on_data
from annealsubnet.budgets import Budget, Keep, budget_of, keep_best
from annealsubnet.losses import Loss
from annealsubnet.masks import Mask
from annealsubnet.networks import Network
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
        pull: 1 / √n for each row where the slope is part of Q, else 0: ē = A' pull.
        ridge: λ.
        base: A w.
    """

    network: Network
    budget: Budget
    places: Mapping[str, slice]
    rows: Float[np.ndarray, "rows weights"]
    weights: Float[np.ndarray, "weights"]
    pull: Float[np.ndarray, "rows"]
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
        return float((0.5 * moved + self.pull) @ moved) + 0.5 * self.ridge * float(change @ change)

    def gradient(self, change: Float[np.ndarray, "weights"]) -> Float[np.ndarray, "weights"]:
        """∂Q/∂δ."""
        moved = self._moved(change)
        return ((moved + self.pull) @ self.rows).astype(np.float64) + self.ridge * change

    def refit(self, kept: Bool[np.ndarray, "weights"]) -> Float[np.ndarray, "weights"]:
        """The change that minimizes Q with w + δ = 0 off the kept weights."""
        change = np.where(kept, 0.0, -self.weights)
        change[kept] = ridge_regression(self.rows[:, kept], self.ridge, -(self._moved(change) + self.pull))
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
        return _solved(root(rows.T, ridge), right)
    return (right - _solved(root(rows, ridge), rows @ right) @ rows) / ridge


def ridge_regression(
    rows: Float[np.ndarray, "rows weights"], ridge: float, target: Float[np.ndarray, "rows"]
) -> Float[np.ndarray, "weights"]:
    """The δ of least ½ ‖B δ − y‖² + (λ/2) ‖δ‖², by the smaller system, or by B's singular values where λ is lost in that."""
    count, size = rows.shape
    target = target.astype(np.float64)
    try:
        if size <= count:
            return _solved(_cholesky(rows.T, ridge), target @ rows)
        return _solved(_cholesky(rows, ridge), target) @ rows
    except scipy.linalg.LinAlgError:
        left, values, right = np.linalg.svd(rows.astype(np.float64), full_matrices=False)
        return (target @ left * values / (values**2 + ridge)) @ right


def root(rows: Float[np.ndarray, "rows weights"], ridge: float) -> Float[np.ndarray, "rows rows"]:
    """The lower triangle L of L L' = B B' + λ; where λ is lost in rounding beside B B', by triangulation of (B, √λ) itself."""
    try:
        return _cholesky(rows, ridge)
    except scipy.linalg.LinAlgError:
        stacked = np.vstack([rows.T.astype(np.float64), np.sqrt(ridge) * np.eye(len(rows))])
        return scipy.linalg.qr(stacked, mode="r", check_finite=False)[0][: len(rows)].T


def _cholesky(rows: Float[np.ndarray, "rows weights"], ridge: float) -> Float[np.ndarray, "rows rows"]:
    """L of L L' = B B' + λ.

    Raises:
        scipy.linalg.LinAlgError: if λ is lost in rounding.
    """
    gram = (rows @ rows.T).astype(np.float64)
    gram[np.diag_indices(len(gram))] += ridge
    return scipy.linalg.cholesky(gram, lower=True, check_finite=False)


def _solved(lower: Float[np.ndarray, "size size"], right: Float[np.ndarray, "size"]) -> Float[np.ndarray, "size"]:
    """(L L')⁻¹ r."""
    return scipy.linalg.cho_solve((lower, True), right, check_finite=False)


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
    count = len(matrix)
    return GradientModel(
        network,
        budget,
        found.places,
        matrix,
        weights,
        np.full(count, count**-0.5 if first_order else 0.0, matrix.dtype),
        ridge,
        matrix @ weights.astype(matrix.dtype),
    )
