"""A plain JAX function with a parameter tree: its layers are declared through a `tap` argument."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from annealsubnet.networks.model import Model, Params, arrays
from annealsubnet.networks.taps import Tap
from annealsubnet.trees import replace_leaves


def from_function(apply: Callable[[Any, Any, Tap], jax.Array], params: Any, *, example: Any = None) -> Model:
    """A pure function as a `Model`.

    Args:
        apply: `(params, inputs, tap) -> outputs`; it computes its layers by `tap.dense`, `tap.conv`, `tap.batch_norm`.
        params: any tree of arrays; the layer named `"a/b"` has its kernel at `params["a"]["b"]["kernel"]`.
        example: inputs of the right shape, needed only where no batches are given.

    Example:
        >>> from_function(lambda params, inputs, tap: tap.dense("out", inputs), {"out": {"kernel": jnp.ones((3, 2))}})
        Model(form='function', 1 parameter arrays, 6 values)
    """

    def merge(values: Params) -> Any:
        return replace_leaves(params, values)

    def call(values: Params, inputs: Any) -> Any:
        tree = merge(values)
        return apply(tree, jnp.asarray(inputs), Tap(tree))

    return Model("function", arrays(params), call, merge, apply, example)
