"""Losses: what a network is trained on, with its curvature in the outputs.

The Gauss-Newton Hessian of a loss is Σ_n J_nᵀ F_n J_n with J_n the Jacobian of the outputs and F_n the Hessian of the loss in
them. A loss brings F as a factor, F_n = Σ_c s_nc s_ncᵀ, so that one backward pass for each c gives the curvature of everything.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
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
    """

    name: str
    value: Callable[[Array, Array], Array]
    curvature_factor: Callable[[Array], Array]
    of_classes: bool = False

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


cross_entropy = Loss("cross-entropy", _cross_entropy_value, _cross_entropy_factor, of_classes=True)
"""Softmax cross-entropy with integer labels, in nats; F = diag p − p pᵀ."""

squared_error = Loss("squared error", _squared_error_value, _squared_error_factor)
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

    return Loss(f"cross-entropy with {share:g} of each label smoothed", value, _cross_entropy_factor, of_classes=True)
