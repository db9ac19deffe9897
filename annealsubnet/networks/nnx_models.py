"""Flax NNX: layers are tapped on a fresh copy, by giving each the class of its own tapped kind."""

from functools import cache
from typing import Any

from flax import nnx

from annealsubnet.networks.layer import Layer, Norm, Normalization, Window
from annealsubnet.networks.model import Model, Params, arrays
from annealsubnet.networks.taps import tap_in, tap_out
from annealsubnet.networks.windows import canonical_padding, per_axis
from annealsubnet.trees import replace_leaves

# NNX has no hooks. A tapped copy lives for one trace only, so its instances may carry what their class needs: their name, and
# which parameter is another layer's too.
_NAME, _TIED = "_annealsubnet_name", "_annealsubnet_tied"


def from_nnx(model: nnx.Module, *, example: Any = None) -> Model:
    """A Flax NNX module as a `Model`; `prune` and the others do this by themselves.

    Args:
        model: in evaluation mode (`model.eval()`); it is never changed.
        example: inputs of the right shape, needed only where no batches are given.

    Example:
        >>> from flax import nnx
        >>> from_nnx(nnx.Linear(3, 2, rngs=nnx.Rngs(0)))
        Model(form='nnx', 2 parameter arrays, 8 values)
    """
    split: Any = nnx.split(model, nnx.Param, ...)
    graph, params, rest = split

    def merge(values: Params) -> nnx.Module:
        return nnx.merge(graph, replace_leaves(params, values), rest, copy=True)

    def call(values: Params, inputs: Any) -> Any:
        copy = merge(values)
        owners: dict[int, str] = {}
        for path, module in nnx.iter_modules(copy):
            tapped = _tapped_class(type(module))
            if tapped is not None:
                name = "/".join(map(str, path))
                _note_ties(module, name, owners)
                object.__setattr__(module, _NAME, name)
                object.__setattr__(module, "__class__", tapped)
        return copy(inputs)

    return Model("nnx", arrays(params), call, merge, model, example)


def _note_ties(module: nnx.Module, name: str, owners: dict[int, str]) -> None:
    """Leave word in a layer of a parameter that it shares; `owners` are the layers seen so far, by parameter."""
    for leaf in ("kernel", "bias", "scale"):
        value = getattr(module, leaf, None)
        owner = owners.setdefault(id(value), name) if isinstance(value, nnx.Variable) else name
        if owner != name:
            object.__setattr__(module, _TIED, f"its {leaf} with {owner!r}")


@cache
def _tapped_class(kind: type) -> type | None:
    """A subclass of a layer's class whose call is tapped; None for a module that is no layer."""
    for base, describe in _TAPPED:
        if issubclass(kind, base):
            return _with_call(kind, base, _tapped_call(base, describe))
    return _with_call(kind, nnx.Dropout, _checked_dropout) if issubclass(kind, nnx.Dropout) else None


def _with_call(kind: type, base: Any, call: Any) -> type:
    """`kind` with another call of its `base`: what a subclass adds around `super().__call__` stays outside of the tap."""
    tapped = type(base.__name__, (base,), {"__call__": call})
    return tapped if kind is base else type(kind.__name__, (kind, tapped), {})


def _tapped_call(base: Any, describe: Any) -> Any:
    def __call__(self: Any, inputs: Any, *args: Any, **kwargs: Any) -> Any:
        spec = describe(self, getattr(self, _NAME), args, kwargs)
        tied = getattr(self, _TIED, None)
        if tied is not None and not isinstance(spec, Normalization):
            raise ValueError(f"Layer {spec.name!r} shares {tied}; tied layers are not supported.")
        return tap_out(base.__call__(self, tap_in(inputs, spec), *args, **kwargs), spec)

    return __call__


def _checked_dropout(self: Any, inputs: Any, *args: Any, **kwargs: Any) -> Any:
    deterministic = kwargs.get("deterministic")
    if not (self.deterministic if deterministic is None else deterministic) and self.rate > 0:
        raise ValueError(_training_mode(getattr(self, _NAME), "Dropout"))
    return nnx.Dropout.__call__(self, inputs, *args, **kwargs)


def _training_mode(name: str, kind: str) -> str:
    return f"{kind} {name!r} is in training mode; call model.eval() first."


def _own(name: str, leaf: str, value: Any) -> str | None:
    """The path of a layer's own parameter; None where it has none. The model itself may be a layer: its name is ""."""
    if value is None or (isinstance(value, nnx.Variable) and value.get_value() is None):
        return None
    return f"{name}/{leaf}" if name else leaf


def _kernel(name: str) -> str:
    return f"{name}/kernel" if name else "kernel"


def _dense(module: Any, name: str, _args: Any, _kwargs: Any) -> Layer:
    return Layer(name or type(module).__name__, _kernel(name), _own(name, "bias", module.bias), tuple(module.kernel.shape), 1)


def _dense_general(module: Any, name: str, _args: Any, _kwargs: Any) -> Layer:
    axes = module.axis if isinstance(module.axis, tuple) else (module.axis,)
    if module.batch_axis or axes != tuple(range(-len(axes), 0)):
        raise ValueError(
            f"LinearGeneral {name!r} contracts axes {axes} with batch axes {dict(module.batch_axis)}; "
            "only trailing axes without batch axes are supported: leave it out, or transpose its input first."
        )
    shape = tuple(module.kernel.shape)
    return Layer(name or type(module).__name__, _kernel(name), _own(name, "bias", module.bias), shape, len(axes))


def _conv(module: Any, name: str, _args: Any, _kwargs: Any) -> Layer:
    if module.mask is not None:
        raise ValueError(f"Conv {name!r} has a mask of its own, which would hide the weights that stay; remove it first.")
    size = tuple(module.kernel_size)
    rank = len(size)
    window = Window(
        size,
        per_axis(module.strides, rank),
        canonical_padding(module.padding, rank, name),
        per_axis(module.input_dilation, rank),
        per_axis(module.kernel_dilation, rank),
    )
    shape = tuple(module.kernel.shape)
    bias = _own(name, "bias", module.bias)
    return Layer(name or type(module).__name__, _kernel(name), bias, shape, rank + 1, module.feature_group_count, window)


def _batch_norm(module: Any, name: str, args: Any, kwargs: Any) -> Norm:
    given = args[0] if args else kwargs.get("use_running_average")
    if not (module.use_running_average if given is None else given):
        raise ValueError(_training_mode(name, "BatchNorm"))
    if module.axis != -1:
        raise ValueError(f"BatchNorm {name!r} normalizes axis {module.axis!r}; only channels last (axis=-1) are supported.")
    return Norm(name or type(module).__name__, _own(name, "scale", module.scale), _own(name, "bias", module.bias))


def _normalization(module: Any, name: str, _args: Any, _kwargs: Any) -> Normalization:
    return Normalization(name, type(module).__name__)


_TAPPED = (
    (nnx.Linear, _dense),
    (nnx.LinearGeneral, _dense_general),
    (nnx.Conv, _conv),
    (nnx.BatchNorm, _batch_norm),
    (nnx.LayerNorm, _normalization),
    (nnx.RMSNorm, _normalization),
    (nnx.GroupNorm, _normalization),
)
