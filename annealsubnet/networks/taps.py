"""Taps: marks that say in a traced program where each layer begins and ends.

Both are identities. An adapter wraps every layer of the user's model in them; in the jaxpr of one call they then stand around
the layer's own computation, inside whatever `jit`, `remat` or `custom_jvp` the user wrote. Everything the project does to a
running network (record a layer's input, gate its neurons, shift its outputs) happens at a tap, and nowhere else.
"""

from typing import Any, TypeVar

import jax
import jax.numpy as jnp
from jax.extend.core import Primitive
from jax.interpreters import ad, batching, mlir

from annealsubnet.networks.layer import Layer, Norm, Normalization, Window
from annealsubnet.trees import flatten

Spec = Layer | Norm | Normalization
Leaf = TypeVar("Leaf")


def _refuse_batching(_args: Any, _dims: Any, *, spec: Spec) -> Any:
    raise ValueError(
        f"Layer {spec.name!r} is called under vmap or a mapped scan, so one call stands for many layers; "
        "call it on a whole batch, or leave it out."
    )


def _identity_primitive(name: str) -> Primitive:
    primitive = Primitive(name)
    primitive.def_impl(lambda value, *, spec: value)
    primitive.def_abstract_eval(lambda value, *, spec: value)
    mlir.register_lowering(primitive, lambda _context, value, *, spec: [value])
    ad.deflinear2(primitive, lambda cotangent, _value, *, spec: [cotangent])
    batching.primitive_batchers[primitive] = _refuse_batching
    return primitive


tap_in_p = _identity_primitive("tap_in")
tap_out_p = _identity_primitive("tap_out")


def tap_in(value: Leaf, spec: Spec) -> Leaf:
    """Mark `value` as what `spec` is called with."""
    return tap_in_p.bind(value, spec=spec)


def tap_out(value: Leaf, spec: Spec) -> Leaf:
    """Mark `value` as what `spec` returns."""
    return tap_out_p.bind(value, spec=spec)


class Tap:
    """What a plain function declares its layers with.

    Each method computes the layer from the parameters at `name` in the function's own tree: `kernel` (inputs first, Flax's
    layout) and, if it is there, `bias`.

    Example:
        >>> def mlp(params, inputs, tap):
        ...     hidden = jax.nn.relu(tap.dense("hidden", inputs))
        ...     return tap.dense("logits", hidden)
    """

    def __init__(self, params: Any) -> None:
        self._params = flatten(params)

    def _find(self, name: str) -> tuple[jax.Array, jax.Array | None]:
        kernel = self._params.get(f"{name}/kernel")
        if kernel is None:
            known = sorted(path.removesuffix("/kernel") for path in self._params if path.endswith("/kernel"))
            raise ValueError(f"The parameters hold no kernel at {name!r}; they hold kernels at {known}.")
        return kernel, self._params.get(f"{name}/bias")

    def _path(self, path: str) -> str | None:
        return path if path in self._params else None

    def dense(self, name: str, inputs: jax.Array, *, axes: int = 1) -> jax.Array:
        """inputs `[..., *in]` times the kernel `[*in, *out]` at `name`, plus its bias; `axes` counts the axes of `in`."""
        kernel, bias = self._find(name)
        layer = Layer(name, f"{name}/kernel", self._path(f"{name}/bias"), kernel.shape, axes)
        inputs = tap_in(inputs, layer)
        outputs = jnp.tensordot(inputs, kernel, axes=axes)
        return tap_out(outputs if bias is None else outputs + bias, layer)

    def conv(
        self,
        name: str,
        inputs: jax.Array,
        *,
        strides: int | tuple[int, ...] = 1,
        padding: str | tuple[tuple[int, int], ...] = "SAME",
        kernel_dilation: int | tuple[int, ...] = 1,
        groups: int = 1,
    ) -> jax.Array:
        """Convolve inputs `[batch, *space, channels]` with the kernel `[*window, channels per group, outputs]` at `name`."""
        kernel, bias = self._find(name)
        rank = kernel.ndim - 2
        window = Window(kernel.shape[:rank], _each(strides, rank), padding, (1,) * rank, _each(kernel_dilation, rank))
        layer = Layer(name, f"{name}/kernel", self._path(f"{name}/bias"), kernel.shape, rank + 1, groups, window)
        inputs = tap_in(inputs, layer)
        spatial = "HW"[-rank:]
        outputs = jax.lax.conv_general_dilated(
            inputs,
            kernel,
            window.strides,
            padding,
            rhs_dilation=window.kernel_dilation,
            dimension_numbers=(f"N{spatial}C", f"{spatial}IO", f"N{spatial}C"),
            feature_group_count=groups,
        )
        return tap_out(outputs if bias is None else outputs + bias, layer)

    def batch_norm(self, name: str, inputs: jax.Array, *, mean: jax.Array, var: jax.Array, epsilon: float = 1e-5) -> jax.Array:
        """(inputs − mean) / √(var + epsilon), times `scale` and plus `bias` at `name` where the parameters hold them."""
        norm = Norm(name, self._path(f"{name}/scale"), self._path(f"{name}/bias"))
        outputs = (tap_in(inputs, norm) - mean) * jax.lax.rsqrt(var + epsilon)
        if norm.scale is not None:
            outputs = outputs * self._params[norm.scale]
        if norm.bias is not None:
            outputs = outputs + self._params[norm.bias]
        return tap_out(outputs, norm)


def _each(value: int | tuple[int, ...], rank: int) -> tuple[int, ...]:
    return (value,) * rank if isinstance(value, int) else tuple(value)
