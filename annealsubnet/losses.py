"""Losses: what a network is trained on, with its curvature in the outputs.

The Gauss-Newton Hessian of a loss is Σ_n J_nᵀ F_n J_n with J_n the Jacobian of the outputs and F_n the Hessian of the loss in
them. A loss brings F as a factor, F_n = Σ_c s_nc s_ncᵀ, so that one backward pass for each c gives the curvature of everything.

The factor is rank × outputs numbers an example, a million for a thousand classes. What takes it only as a product needs no such
array: from the products s_ncᵀ v_n, as numerous as the outputs, come vᵀF v, their squares' sum, and by the transpose of the map
from v to them F v and sums of factors with random signs.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cache, partial
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Shaped


@dataclass(frozen=True)
class Loss:
    """A loss of one example and its curvature.

    Attributes:
        name: for messages.
        value: `(outputs [batch, classes], labels [batch]) -> [batch]`.
        curvature_factor: `outputs [batch, classes] -> [rank, batch, classes]`, rows s_c with F = Σ_c s_c s_cᵀ; needs no labels.
        of_classes: whether labels are numbers of classes, one for each output; they are then checked.
        curvature_products: `(outputs [batch, classes], v [batch, classes]) -> [rank, batch]`, s_cᵀ v, linear in v, where there
            is a way without the factor; else they are taken from it.
    """

    name: str
    value: Callable[[Array, Array], Array]
    curvature_factor: Callable[[Array], Array]
    of_classes: bool = False
    curvature_products: Callable[[Array, Array], Array] | None = None

    def products_at(self, outputs: Array) -> Callable[[Array], Array]:
        """The linear map from vectors `[batch, classes]` to s_cᵀ v `[rank, batch]`; `jax.vjp` gives its transpose."""
        if self.curvature_products is not None:
            return partial(self.curvature_products, outputs)
        factor = self.curvature_factor(outputs)
        return lambda vectors: jnp.einsum("cnk,nk->cn", factor.astype(vectors.dtype), vectors, precision="highest")

    def __repr__(self) -> str:
        return f"Loss({self.name!r})"


def check_loss(loss: Any) -> None:
    """Raise unless a loss is one.

    Raises:
        TypeError: for a word, a function, or anything else.
    """
    if not isinstance(loss, Loss):
        raise TypeError(f"loss is {loss!r}; give a Loss, such as annealsubnet.losses.cross_entropy or squared_error.")


def _cross_entropy_value(outputs: Float[Array, "batch classes"], labels: Shaped[Array, "batch"]) -> Float[Array, "batch"]:
    chosen = jnp.take_along_axis(outputs, labels[:, None].astype(jnp.int32), axis=1)[:, 0]
    return jax.nn.logsumexp(outputs, axis=1) - chosen


def _cross_entropy_factor(outputs: Float[Array, "batch classes"]) -> Float[Array, "classes batch classes"]:
    # diag p − p pᵀ = Σ_c p_c (e_c − p)(e_c − p)ᵀ
    probability = jax.nn.softmax(outputs, axis=1)
    deviation = jnp.eye(outputs.shape[1])[:, None, :] - probability[None]
    return jnp.sqrt(probability.T)[:, :, None] * deviation


def _cross_entropy_products(
    outputs: Float[Array, "batch classes"], vectors: Float[Array, "batch classes"]
) -> Float[Array, "classes batch"]:
    # √p_c (e_c − p)ᵀ v
    probability = jax.nn.softmax(outputs, axis=1).astype(vectors.dtype)
    return (jnp.sqrt(probability) * (vectors - jnp.sum(probability * vectors, axis=1, keepdims=True))).T


def _squared_error_value(
    outputs: Float[Array, "batch outputs"], labels: Shaped[Array, "batch *outputs"]
) -> Float[Array, "batch"]:
    # One number an example is the target of a single output; anything else would be broadcast to what nobody meant.
    targets = labels[:, None] if labels.ndim == 1 and outputs.shape[1] == 1 else labels
    if targets.shape != outputs.shape:
        raise ValueError(f"squared error takes labels like the outputs, {outputs.shape}; they are {labels.shape}.")
    return 0.5 * jnp.sum((outputs - targets) ** 2, axis=1)


def _squared_error_factor(outputs: Float[Array, "batch classes"]) -> Float[Array, "classes batch classes"]:
    return jnp.broadcast_to(jnp.eye(outputs.shape[1])[:, None, :], (outputs.shape[1], *outputs.shape))


def _squared_error_products(
    outputs: Float[Array, "batch outputs"], vectors: Float[Array, "batch outputs"]
) -> Float[Array, "outputs batch"]:
    return vectors.T


cross_entropy = Loss(
    "cross-entropy",
    _cross_entropy_value,
    _cross_entropy_factor,
    of_classes=True,
    curvature_products=_cross_entropy_products,
)
"""Softmax cross-entropy with integer labels, in nats; F = diag p − p pᵀ."""

squared_error = Loss("squared error", _squared_error_value, _squared_error_factor, curvature_products=_squared_error_products)
"""½ ‖outputs − labels‖², with labels `[batch, outputs]`, or `[batch]` of a single output; F = identity."""


@cache
def smoothed_cross_entropy(share: float) -> Loss:
    """Cross-entropy with smoothed labels: the target is (1 − share) of the label and share / classes of every class.

    Examples that are right still have a slope unless they are right by just enough, which keeps a network from learning its
    training set by heart. F is that of the cross-entropy.

    Args:
        share: in [0, 1).

    References:
        C. Szegedy and others, Rethinking the Inception Architecture for Computer Vision, CVPR 2016, section 7.
    """
    if not 0 <= share < 1:
        raise ValueError(f"share is {share}; give what part of a label is spread over all classes, in [0, 1).")

    def value(outputs: Float[Array, "batch classes"], labels: Shaped[Array, "batch"]) -> Float[Array, "batch"]:
        # Σ_c q_c (lse − o_c) = (1 − share) (lse − o_y) + share (lse − mean o)
        everyone = jax.nn.logsumexp(outputs, axis=1) - jnp.mean(outputs, axis=1)
        return (1 - share) * _cross_entropy_value(outputs, labels) + share * everyone

    return replace(cross_entropy, name=f"cross-entropy with {share:g} of each label smoothed", value=value)
