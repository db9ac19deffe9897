"""Which neuron each number in a network belongs to, read from one traced jaxpr.

Every element of every intermediate array carries a label: the neuron it is a function of. A layer's outputs start with labels
of their own; elementwise functions, pooling, reshapes and BatchNorm hand labels on; the labels that arrive at a layer say
which neuron feeds each of its inputs. Where two labels meet in one element (a residual sum, a product with a gate) the two
neurons are tied: they can only be removed together. Where labels meet in a sum over channels (LayerNorm, softmax) the
result is `MIXED`.

Labels seldom differ between positions, so arrays of them are views that repeat one element along such axes (stride 0), and are
computed with at their core: the attention weights of a thousand tokens would otherwise take gigabytes.
"""

from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import jax
import numpy as np
from jax.extend.core import ClosedJaxpr, Jaxpr, Literal, jaxprs_in_params

from annealsubnet.networks.jaxprs import bind, layers_in, subprogram
from annealsubnet.networks.layer import Layer, Norm, Normalization
from annealsubnet.networks.taps import Spec, tap_in_p, tap_out_p

NONE, DATA, MIXED = 0, 1, -1
"""No neuron (parameters, constants); the network's inputs; several neurons of one sum."""

_ELEMENTWISE_NAMES = """
    abs acos acosh add add_any and asin asinh atan atan2 atanh cbrt ceil clamp convert_element_type copy copy_p cos cosh
    device_put digamma div eq erf erf_inv erfc exp exp2 expm1 floor ge gt integer_pow is_finite le lgamma log log1p logistic
    lt max min mul name ne neg nextafter not optimization_barrier or pow real reduce_precision rem round rsqrt select_n
    sharding_constraint sign sin sinh sqrt square stop_gradient sub tan tanh xor
"""
_ELEMENTWISE = frozenset(_ELEMENTWISE_NAMES.split())
# After these a closed neuron is not silent if the other operand speaks.
_SUMS = frozenset(["add", "add_any", "sub", "max", "min"])
_REDUCTIONS = frozenset(
    ["reduce_sum", "reduce_max", "reduce_min", "reduce_prod", "reduce_and", "reduce_or", "argmax", "argmin"]
)
_POOLS = frozenset(["reduce_window_max", "reduce_window_min", "reduce_window_sum", "reduce_window"])


@dataclass
class Flow:
    """What the walk over a jaxpr finds out; label ids are resolved through `ties`.

    Attributes:
        first: the first label of each layer's outputs; layer L owns `first[L] … first[L] + outputs − 1`.
        inputs: labels of the channels that enter each layer, `[channels]`.
        ties: pairs of labels that meet in one element.
        norms: the BatchNorm that alone reads a layer's outputs, with nothing in between, and can silence them by its scale.
        every_norm: all BatchNorms by name.
        norm_inputs: labels of the channels that enter each BatchNorm, `[channels]`.
        normalized: labels that were mixed in a sum over channels, with the primitive that did it.
        blocked: labels that entered something that cannot be followed, with its name.
        output: labels that reach the network's output.
    """

    first: dict[str, int] = field(default_factory=dict)
    layers: dict[str, Layer] = field(default_factory=dict)
    inputs: dict[str, np.ndarray] = field(default_factory=dict)
    ties: list[np.ndarray] = field(default_factory=list)
    norms: dict[str, Norm] = field(default_factory=dict)
    every_norm: dict[str, Norm] = field(default_factory=dict)
    norm_inputs: dict[str, np.ndarray] = field(default_factory=dict)
    normalized: dict[int, str] = field(default_factory=dict)
    blocked: dict[int, str] = field(default_factory=dict)
    output: np.ndarray = field(default_factory=lambda: np.zeros(0, np.int64))
    next_label: int = DATA + 1


@dataclass(frozen=True)
class _Value:
    """Labels of an array; its number where it depends on nothing; the layer whose raw output it is, if nobody else reads it."""

    labels: np.ndarray
    constant: Any = None
    origin: str | None = None


def follow(closed: ClosedJaxpr, num_params: int) -> Flow:
    """Walk the jaxpr of `call(*params, inputs)` and return where labels went.

    Args:
        closed: whose first `num_params` inputs are parameters, the others data.

    Raises:
        ValueError: for a layer that is called twice, or inside a loop (named).
    """
    flow = Flow()
    invars = closed.jaxpr.invars
    arguments = [_Value(_all(NONE if number < num_params else DATA, var.aval.shape)) for number, var in enumerate(invars)]
    outputs = _walk(closed.jaxpr, closed.consts, arguments, flow)
    flow.output = np.unique(np.concatenate([value.labels.ravel() for value in outputs]))
    return flow


def _walk(jaxpr: Jaxpr, consts: Any, arguments: list[_Value], flow: Flow) -> list[_Value]:
    readers = Counter(atom for equation in jaxpr.eqns for atom in equation.invars if not isinstance(atom, Literal))
    readers.update(atom for atom in jaxpr.outvars if not isinstance(atom, Literal))
    last = {
        atom: number for number, equation in enumerate(jaxpr.eqns) for atom in equation.invars if not isinstance(atom, Literal)
    }
    values: dict[Any, _Value] = {}

    def write(variables: Any, results: list[_Value]) -> None:
        for var, value in zip(variables, results, strict=True):
            values[var] = replace(value, origin=None) if readers[var] > 1 else value

    write(jaxpr.invars, arguments)
    for var, const in zip(jaxpr.constvars, consts, strict=True):
        values[var] = _Value(_all(NONE, np.shape(const)), const)

    def read(atom: Any) -> _Value:
        if isinstance(atom, Literal):
            return _Value(_all(NONE, np.shape(atom.val)), atom.val)
        return values[atom]

    results = {atom for atom in jaxpr.outvars if not isinstance(atom, Literal)}
    for number, equation in enumerate(jaxpr.eqns):
        operands = [read(atom) for atom in equation.invars]
        write(equation.outvars, _step(equation, operands, flow))
        for atom in {atom for atom in equation.invars if not isinstance(atom, Literal)} - results:
            if last[atom] == number:
                del values[atom]
    return [read(atom) for atom in jaxpr.outvars]


def _step(equation: Any, operands: list[_Value], flow: Flow) -> list[_Value]:
    name, params = equation.primitive.name, equation.params
    if equation.primitive is tap_in_p:
        return [_enter(params["spec"], operands[0], flow)]
    if equation.primitive is tap_out_p:
        return [_leave(params["spec"], operands[0], flow)]
    inner = subprogram(equation)
    if inner is not None:
        return _walk(inner.jaxpr, inner.consts, operands, flow)
    _refuse_layers_in_loops(equation)
    shapes = [var.aval.shape for var in equation.outvars]
    if all(operand.constant is not None for operand in operands):
        return _evaluate(equation, operands)
    if not any(_core(operand.labels).any() for operand in operands):
        return [_Value(_all(NONE, shape)) for shape in shapes]
    if name in _ELEMENTWISE:
        labels = _combine([operand.labels for operand in operands], shapes[0], flow)
        if name in _SUMS:
            _note_mixed(operands, labels, flow.normalized, f"{name!r} with what is no layer's output")
        origin = operands[0].origin if name in ("convert_element_type", "copy", "copy_p") else None
        return [_Value(labels, origin=origin)] * len(shapes)
    if name in _REDUCTIONS:
        return [_Value(_merge_axes(operands[0].labels, params["axes"], name, flow.normalized))]
    if name in _POOLS:
        return [_Value(_pool(equation, operands[0].labels, name, shapes[0], flow))]
    if name in ("dot_general", "conv_general_dilated"):
        return [_Value(_contract(equation, operands, shapes[0], flow))]
    if name in _MOVES:
        return [_Value(labels) for labels in _MOVES[name]([operand.labels for operand in operands], params, shapes)]
    if name in ("gather", "dynamic_slice", "scatter", "dynamic_update_slice", "split", "top_k") and all(
        operand.constant is not None or number == 0 for number, operand in enumerate(operands)
    ):
        arrays = [operands[0].labels.astype(np.int32), *(operand.constant for operand in operands[1:])]
        return [_Value(np.asarray(moved, np.int64)) for moved in bind(equation, [jax.numpy.asarray(array) for array in arrays])]
    for operand in operands:
        _note(flow.blocked, operand.labels, name)
    return [_Value(_all(MIXED, shape)) for shape in shapes]


def _refuse_layers_in_loops(equation: Any) -> None:
    for inner in jaxprs_in_params(equation.params):
        for name in layers_in(inner):
            raise ValueError(
                f"Layer {name!r} runs inside {equation.primitive.name!r}, so one set of weights stands for several layers; "
                "scanned and shared layers are not supported: unroll the loop, or wrap only the rest of the network."
            )


def _enter(spec: Spec, operand: _Value, flow: Flow) -> _Value:
    if isinstance(spec, Normalization):
        _note(flow.normalized, operand.labels, f"{spec.kind} {spec.name!r}")
        return operand
    if isinstance(spec, Norm):
        if spec.name in flow.norm_inputs:
            raise ValueError(f"BatchNorm {spec.name!r} is called twice in one pass; a shared layer is not supported.")
        flow.every_norm[spec.name] = spec
        least, most = (bound(operand.labels, axis=tuple(range(operand.labels.ndim - 1))) for bound in (np.min, np.max))
        flow.norm_inputs[spec.name] = np.where(least == most, most, MIXED)
        # Without a scale, or with one for several neurons, it cannot be made to answer a closed neuron by zero.
        layer = flow.layers.get(operand.origin or "")
        if layer is not None and layer.num_output_axes == 1 and spec.scale is not None:
            flow.norms[layer.name] = spec
        return operand
    if spec.name in flow.inputs:
        raise ValueError(f"Layer {spec.name!r} is called twice in one pass; a shared layer is not supported.")
    axes = tuple(range(operand.labels.ndim - spec.num_channel_axes))
    merged = _merge_axes(operand.labels, axes, f"{spec.name!r} at some positions only", flow.blocked)
    flow.inputs[spec.name] = merged.ravel()
    # Inside the layer nothing is followed: its outputs get labels of their own.
    return _Value(_all(NONE, operand.labels.shape))


def _leave(spec: Spec, operand: _Value, flow: Flow) -> _Value:
    if not isinstance(spec, Layer):
        return _Value(operand.labels)
    flow.layers[spec.name] = spec
    first = flow.next_label
    flow.first[spec.name] = first
    flow.next_label += spec.outputs
    own = np.arange(first, first + spec.outputs)
    if spec.depthwise:
        flow.ties.append(np.stack([own, np.repeat(flow.inputs[spec.name], spec.outputs // spec.groups)], 1))
    shape = operand.labels.shape
    channels = own.reshape(shape[len(shape) - spec.num_output_axes :])
    return _Value(np.broadcast_to(channels, shape), origin=spec.name)


def _all(label: int, shape: tuple[int, ...]) -> np.ndarray:
    """An array of one label."""
    return np.broadcast_to(np.int64(label), shape)


def _core(labels: np.ndarray) -> np.ndarray:
    """One element along each axis on which a view repeats itself."""
    return labels[(..., *(slice(0, 1) if stride == 0 else slice(None) for stride in labels.strides))]


def _combine(operands: list[np.ndarray], shape: tuple[int, ...], flow: Flow) -> np.ndarray:
    result = np.full((1,) * len(shape), NONE)
    for labels in operands:
        result, labels = np.broadcast_arrays(result, _core(np.broadcast_to(labels, shape)))
        clash = (result > 0) & (labels > 0) & (result != labels)
        if clash.any():
            flow.ties.append(np.unique(np.stack([result[clash], labels[clash]], 1), axis=0))
        result = np.where((result > 0) | (labels == NONE), result, labels)
    return np.broadcast_to(result, shape)


def _merge_axes(labels: np.ndarray, axes: Any, what: str, book: dict[int, str]) -> np.ndarray:
    """One label for all elements along `axes`: theirs if they agree, else MIXED."""
    axes, core = tuple(int(axis) for axis in axes), _core(labels)
    least, most = core.min(axis=axes), core.max(axis=axes)
    mixed = least != most
    if mixed.any():
        _note(book, labels, what)
    shape = [size for axis, size in enumerate(labels.shape) if axis not in axes]
    return np.broadcast_to(np.where(mixed, MIXED, most), shape)


def _pool(equation: Any, labels: np.ndarray, name: str, shape: tuple[int, ...], flow: Flow) -> np.ndarray:
    core, sizes = _core(labels), equation.params["window_dimensions"]
    if all(found == 1 or (size == 1 and found == out) for found, size, out in zip(core.shape, sizes, shape, strict=True)):
        return np.broadcast_to(core, shape)
    keys = ("window_dimensions", "window_strides", "padding", "base_dilation", "window_dilation")
    window = [equation.params[key] for key in keys]
    big = np.int32(np.iinfo(np.int32).max)
    values = labels.astype(np.int32)
    most = np.asarray(jax.lax.reduce_window(values, -big, jax.lax.max, *window), np.int64)
    least = np.asarray(jax.lax.reduce_window(values, big, jax.lax.min, *window), np.int64)
    if (most != least).any():
        _note(flow.normalized, labels, name)
    return np.where(most == least, most, MIXED)


def _contract(equation: Any, operands: list[_Value], shape: tuple[int, ...], flow: Flow) -> np.ndarray:
    """An untapped product. A label survives if all it is summed with carry the same one (attention weights times values)."""
    if equation.primitive.name == "conv_general_dilated":
        for operand in operands:
            _note(flow.blocked, operand.labels, "an untapped convolution")
        return _all(MIXED, shape)
    (contract, batch) = equation.params["dimension_numbers"]
    sides = []
    for operand, axes, batch_axes in zip(operands, contract, batch, strict=True):
        labels, core = operand.labels, _core(operand.labels)
        least, most = core.min(axis=axes, keepdims=True), core.max(axis=axes, keepdims=True)
        if (least != most).any():
            _note(flow.blocked, labels, "an untapped matrix product")
        kept = [1 if axis in axes else size for axis, size in enumerate(labels.shape)]
        merged = np.squeeze(np.broadcast_to(np.where(least == most, most, MIXED), kept), axes)
        others = [axis for axis in range(labels.ndim) if axis not in axes]
        order = [others.index(axis) for axis in batch_axes]
        order += [number for number, axis in enumerate(others) if axis not in batch_axes]
        sides.append(merged.transpose(order))
    batches = len(batch[0])
    left_free, right_free = sides[0].ndim - batches, sides[1].ndim - batches
    left = sides[0][(..., *(None,) * right_free)]
    right = sides[1][(*(slice(None),) * batches, *(None,) * left_free)]
    return _combine([left, right], shape, flow)


def _note_mixed(operands: list[_Value], labels: np.ndarray, book: dict[int, str], what: str) -> None:
    """Note the labels of elements in which an operand is MIXED."""
    shape = labels.shape
    mixed = [_core(np.broadcast_to(operand.labels, shape)) == MIXED for operand in operands]
    if any(array.any() for array in mixed):
        *mixed, labels = np.broadcast_arrays(*mixed, _core(labels))
        _note(book, labels[np.logical_or.reduce(mixed)], what)


def _note(book: dict[int, str], labels: np.ndarray, what: str) -> None:
    core = _core(labels)
    for label in np.unique(core[core > DATA]).tolist():
        book.setdefault(label, what)


def _evaluate(equation: Any, operands: list[_Value]) -> list[_Value]:
    results = bind(equation, [operand.constant for operand in operands])
    return [_Value(_all(NONE, np.shape(result)), result) for result in results]


def _broadcast(operands: list[np.ndarray], params: Mapping[str, Any], shapes: Any) -> list[np.ndarray]:
    shape, axes = params["shape"], params["broadcast_dimensions"]  # the axes ascend
    return [np.broadcast_to(operands[0][tuple(slice(None) if axis in axes else None for axis in range(len(shape)))], shape)]


def _reshape(operands: list[np.ndarray], params: Mapping[str, Any], shapes: Any) -> list[np.ndarray]:
    core = _core(operands[0])
    return [_all(core.item(), shapes[0]) if core.size == 1 else operands[0].reshape(shapes[0])]


def _slice(operands: list[np.ndarray], params: Mapping[str, Any], shapes: Any) -> list[np.ndarray]:
    steps = params["strides"] or (1,) * operands[0].ndim
    starts, limits = params["start_indices"], params["limit_indices"]
    return [operands[0][tuple(map(slice, starts, limits, steps))]]


def _pad(operands: list[np.ndarray], params: Mapping[str, Any], shapes: Any) -> list[np.ndarray]:
    value = np.int32(operands[1])
    return [np.asarray(jax.lax.pad(operands[0].astype(np.int32), value, params["padding_config"]), np.int64)]


def _split(operands: list[np.ndarray], params: Mapping[str, Any], shapes: Any) -> list[np.ndarray]:
    return np.split(operands[0], np.cumsum(params["sizes"])[:-1], axis=params["axis"])


_MOVES: dict[str, Callable[[list[np.ndarray], Mapping[str, Any], Any], list[np.ndarray]]] = {
    "broadcast_in_dim": _broadcast,
    "concatenate": lambda operands, params, _: [np.concatenate(operands, params["dimension"])],
    "expand_dims": lambda operands, params, _: [np.expand_dims(operands[0], params["dimensions"])],
    "pad": _pad,
    "reshape": _reshape,
    "rev": lambda operands, params, _: [np.flip(operands[0], params["dimensions"])],
    "slice": _slice,
    "split": _split,
    "squeeze": lambda operands, params, _: [np.squeeze(operands[0], params["dimensions"])],
    "transpose": lambda operands, params, _: [np.transpose(operands[0], params["permutation"])],
}
