"""Switches: the units of a network as gates that a mask opens and closes, and the loss as a function of them.

A weight's gate multiplies the weight, a neuron's its output, so that with m the mask as zeros and ones

    L(m) = E_n ℓ(f(x_n; m), y_n)

is defined for every m in [0, 1]^p and has the gradient g = ∂L/∂m at a mask. The change of the loss with the mask is modeled
to second order by one forward derivative along δ = x − m, with F_n the curvature of the loss in the outputs:

    L(m + δ) − L(m) ≈ E_n [∂ℓ_n · J_n δ + ½ (J_n δ)ᵀ F_n (J_n δ)]                                  (Gauss-Newton)
"""

from collections.abc import Hashable, Mapping
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from annealsubnet.budgets import Budget
from annealsubnet.losses import Loss
from annealsubnet.networks import Network, Params
from annealsubnet.statistics.streams import as_wide

Gates = Mapping[str, jax.Array]


@dataclass(frozen=True)
class Switches:
    """The selected units of a network.

    Attributes:
        network: traced.
        budget: which units are selected and how many stay.
        loss: of one example.
    """

    network: Network
    budget: Budget
    loss: Loss

    @property
    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Shape of the gates of each selected site."""
        return {name: self.budget.shapes[name] for name in self.budget.selected}

    @property
    def key(self) -> tuple[Hashable, ...]:
        """What a compiled function of these switches depends on, but the network (see `Network.jitted`)."""
        budget = self.budget
        return (self.loss, budget.unit, budget.scope, budget.selected, tuple(budget.counts.items()), budget.total)

    def outputs(self, params: Params, gates: Gates, inputs: jax.Array) -> jax.Array:
        """The network's outputs with these gates, in float32 at least."""
        if self.budget.unit != "weight":
            return as_wide(self.network.run(params, inputs, gates=gates)[0])
        kernels = {self.network.layers[name].kernel: gate for name, gate in gates.items()}
        gated = {path: params[path] * gate.astype(params[path].dtype) for path, gate in kernels.items()}
        return as_wide(self.network.apply({**params, **gated}, inputs))

    def mean_loss(self, gates: Gates, params: Params, inputs: jax.Array, labels: jax.Array) -> jax.Array:
        """E ℓ over a batch."""
        return jnp.mean(self.loss.value(self.outputs(params, gates, inputs), labels))

    def measure(self, gates: Mapping[str, Any], inputs: np.ndarray, labels: np.ndarray) -> tuple[float, float]:
        """Loss and accuracy on a batch (accuracy NaN where labels are no integers or there is one output)."""

        @self.network.jitted("ticket measure", *self.key)
        def step(params: Params, gates: Gates, inputs: jax.Array, labels: jax.Array) -> tuple[jax.Array, jax.Array]:
            outputs = self.outputs(params, gates, inputs)
            classes = labels.ndim == 1 and jnp.issubdtype(labels.dtype, jnp.integer) and outputs.shape[-1] > 1
            right = jnp.argmax(outputs, axis=-1) == labels if classes else jnp.full(len(labels), jnp.nan)
            return jnp.mean(self.loss.value(outputs, labels)), jnp.mean(right)

        loss, accuracy = step(self.network.params, as_gates(gates), inputs, labels)
        return float(loss), float(accuracy)

    def predict(
        self, before: Mapping[str, Any], after: Mapping[str, Any], inputs: np.ndarray, labels: np.ndarray
    ) -> tuple[float, float]:
        """The change of the loss on a batch that the gradient, and the Gauss-Newton model, predict from one mask to another."""

        @self.network.jitted("ticket prediction", *self.key)
        def step(params: Params, before: Gates, after: Gates, inputs: jax.Array, labels: jax.Array) -> Any:
            along = {name: after[name] - gate for name, gate in before.items()}
            outputs, change = jax.jvp(lambda gates: self.outputs(params, gates, inputs), (before,), (along,))
            slopes = jax.grad(lambda logits: jnp.sum(self.loss.value(logits, labels)))(outputs)
            curved = jnp.einsum("rno,no->rn", self.loss.curvature_factor(outputs), change)
            linear = jnp.mean(jnp.sum(slopes * change, axis=1))
            return linear, linear + 0.5 * jnp.mean(jnp.sum(curved**2, axis=0))

        linear, quadratic = step(self.network.params, as_gates(before), as_gates(after), inputs, labels)
        return float(linear), float(quadratic)


def as_gates(kept: Mapping[str, Any]) -> dict[str, jax.Array]:
    """A mask as float gates on the device."""
    return {name: jnp.asarray(array, jnp.float32) for name, array in kept.items()}


def empty_site(kept: Mapping[str, np.ndarray]) -> str | None:
    """A site of which no unit is kept, if there is one: what comes after it no longer depends on the inputs."""
    return next((name for name, array in kept.items() if not array.any()), None)


def refuse_overflow(loss: float) -> None:
    """Refuse a network whose loss is not finite under a random mask."""
    if not np.isfinite(loss):
        raise ValueError(
            f"The loss of the network under a random mask is {loss}: its activations overflow; "
            'rescale the weights, for instance by annealsubnet.tickets.initialize(model, "signed-constant", seed=0).'
        )
