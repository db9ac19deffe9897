"""Flax Linen: layers are tapped by a method interceptor."""

import inspect
from collections.abc import Mapping
from typing import Any

import flax.linen as nn
import jax

from annealsubnet.networks.layer import Layer, Norm, Normalization, Window
from annealsubnet.networks.model import Model, Params, arrays
from annealsubnet.networks.taps import tap_in, tap_out
from annealsubnet.networks.windows import canonical_padding, per_axis
from annealsubnet.trees import replace_leaves


def from_linen(module: nn.Module, variables: Mapping[str, Any], *, example: Any = None, **options: Any) -> Model:
    """A Flax Linen module with its variables as a `Model`.

    Args:
        module: unbound.
        variables: what `module.init` returned, after training: `{"params": …, "batch_stats": …}`.
        example: inputs of the right shape, needed only where no batches are given.
        options: passed to every call, such as `train=False`.

    Raises:
        ValueError: if the variables hold no parameters.

    Example:
        >>> import jax, jax.numpy as jnp
        >>> module = nn.Dense(2)
        >>> from_linen(module, module.init(jax.random.key(0), jnp.zeros((1, 3))))
        Model(form='linen', 2 parameter arrays, 8 values)
    """
    if "params" not in variables:
        raise ValueError(f"The variables hold no 'params' collection, only {sorted(variables)}.")

    def merge(values: Params) -> dict[str, Any]:
        return {**variables, "params": replace_leaves(variables["params"], values)}

    def call(values: Params, inputs: Any) -> Any:
        with nn.intercept_methods(_tap):
            return module.apply(merge(values), inputs, **options)

    return Model("linen", arrays(variables["params"]), call, merge, (module, variables, options), example)


def _tap(call: Any, args: Any, kwargs: Any, context: nn.module.InterceptorContext) -> Any:
    module = context.module
    if context.method_name != "__call__":
        return call(*args, **kwargs)
    if isinstance(module, nn.Dropout):
        if not _flag(module, "deterministic", args, kwargs) and module.rate > 0:
            raise ValueError(_training_mode(module, "deterministic=True"))
        return call(*args, **kwargs)
    found = next((pair for pair in _TAPPED if isinstance(module, pair[0])), None)
    if found is None or not _is_of(found[0], context):
        return call(*args, **kwargs)
    inputs, *others = args
    spec = found[1](module, inputs, others, kwargs)
    return tap_out(call(tap_in(inputs, spec), *others, **kwargs), spec)


def _is_of(kind: Any, context: nn.module.InterceptorContext) -> bool:
    """Whether the call is the layer's own: what a subclass adds around `super().__call__` stays outside of the tap."""
    method: Any = context.orig_method
    return inspect.unwrap(method.func) is inspect.unwrap(kind.__call__)


def _flag(module: nn.Module, name: str, args: Any, kwargs: Any) -> bool:
    given = args[1] if len(args) > 1 else kwargs.get(name)
    return bool(getattr(module, name) if given is None else given)


def _training_mode(module: nn.Module, switch: str) -> str:
    return (
        f"{type(module).__name__} {_name(module)!r} is in training mode; give from_linen the option of your module that "
        f"sets {switch}, such as from_linen(module, variables, train=False)."
    )


def _name(module: nn.Module) -> str:
    return "/".join(module.path) or type(module).__name__


def _own(module: nn.Module, leaf: str) -> str:
    return "/".join((*module.path, leaf))


def _shape(module: Any, leaf: str) -> tuple[int, ...]:
    """Of a parameter as it is: what a module says of itself may be overruled (by `annealsubnet.shrink`, for one)."""
    (value,) = jax.tree.leaves(module.get_variable("params", leaf))
    return tuple(value.shape)


def _bias(module: Any) -> str | None:
    return _own(module, "bias") if module.has_variable("params", "bias") else None


def _dense(module: Any, _inputs: Any, _others: Any, _kwargs: Any) -> Layer:
    return Layer(_name(module), _own(module, "kernel"), _bias(module), _shape(module, "kernel"), 1)


def _dense_general(module: Any, inputs: Any, _others: Any, _kwargs: Any) -> Layer:
    axes = module.axis if isinstance(module.axis, tuple) else (module.axis,)
    trailing = tuple(range(inputs.ndim - len(axes), inputs.ndim))
    if module.batch_dims or tuple(axis % inputs.ndim for axis in axes) != trailing:
        raise ValueError(
            f"DenseGeneral {_name(module)!r} contracts axes {axes} with batch dims {module.batch_dims}; "
            "only trailing axes without batch dims are supported: leave it out, or transpose its input first."
        )
    return Layer(_name(module), _own(module, "kernel"), _bias(module), _shape(module, "kernel"), len(axes))


def _conv(module: Any, inputs: Any, _others: Any, _kwargs: Any) -> Layer:
    name = _name(module)
    if module.mask is not None:
        raise ValueError(f"Conv {name!r} has a mask of its own, which would hide the weights that stay; remove it first.")
    size = (module.kernel_size,) if isinstance(module.kernel_size, int) else tuple(module.kernel_size)
    rank = len(size)
    window = Window(
        size,
        per_axis(module.strides, rank),
        canonical_padding(module.padding, rank, name),
        per_axis(module.input_dilation, rank),
        per_axis(module.kernel_dilation, rank),
    )
    shape = _shape(module, "kernel")
    groups = max(inputs.shape[-1] // shape[-2], 1)
    return Layer(name, _own(module, "kernel"), _bias(module), shape, rank + 1, groups, window)


def _batch_norm(module: Any, inputs: Any, others: Any, kwargs: Any) -> Norm:
    if not _flag(module, "use_running_average", (None, *others), kwargs):
        raise ValueError(_training_mode(module, "use_running_average=True"))
    if module.axis not in (-1, inputs.ndim - 1):
        found = f"BatchNorm {_name(module)!r} normalizes axis {module.axis!r}"
        raise ValueError(f"{found}; only channels last (axis=-1) are supported.")
    scale = _own(module, "scale") if module.use_scale else None
    return Norm(_name(module), scale, _own(module, "bias") if module.use_bias else None)


def _normalization(module: Any, _inputs: Any, _others: Any, _kwargs: Any) -> Normalization:
    return Normalization(_name(module), type(module).__name__)


_TAPPED = (
    (nn.Dense, _dense),
    (nn.DenseGeneral, _dense_general),
    (nn.Conv, _conv),
    (nn.BatchNorm, _batch_norm),
    (nn.LayerNorm, _normalization),
    (nn.RMSNorm, _normalization),
    (nn.GroupNorm, _normalization),
)
