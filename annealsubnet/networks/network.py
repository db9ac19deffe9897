"""Network: a model that has been traced, so that its layers and units are known and its taps can be used.

One jaxpr serves for everything: `sites` reads from it which neuron feeds what, and `run` evaluates it again with gates on
units, shifts of layers' outputs, and a record of what passes the taps.
"""

from collections.abc import Callable, Hashable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from flax.errors import FlaxError
from jax.extend.core import ClosedJaxpr

from annealsubnet.networks.jaxprs import bind, draws_in
from annealsubnet.networks.labels import follow
from annealsubnet.networks.layer import Layer, Norm
from annealsubnet.networks.model import Model, Params
from annealsubnet.networks.program import Program, in_a_row, read
from annealsubnet.networks.reads import check_reads
from annealsubnet.networks.sites import Gate, Site, head_sites, neuron_sites
from annealsubnet.networks.taps import tap_in_p, tap_out_p
from annealsubnet.trees import check_finite


@partial(jax.tree_util.register_dataclass, data_fields=["values"], meta_fields=["layer", "shape"])
@dataclass(frozen=True)
class Known:
    """What the rest of a network's run needs to know of examples right before a layer, whatever came before.

    Attributes:
        layer: name; None before everything.
        shape: of the inputs.
        values: arrays in the order of running.
    """

    layer: str | None
    shape: jax.ShapeDtypeStruct
    values: tuple[jax.Array, ...]

    def place(self, program: Program) -> int:
        """Where the rest begins."""
        return 0 if self.layer is None else program.places[self.layer]


def known_of(inputs: Any) -> Known:
    """What is known before everything: the inputs."""
    return Known(None, jax.ShapeDtypeStruct(inputs.shape, inputs.dtype), (inputs,))


@dataclass(frozen=True)
class Network:
    """A model, its layers and its units.

    Attributes:
        model: what was traced.
        example: shape and dtype of one batch of inputs.
        layers: every layer that runs, in the order of running.
        norms: the BatchNorm right behind a layer, by the layer's name.
        neurons: sites of neurons.
        heads: sites of attention heads.
        not_neurons: layers whose neurons cannot be units, with the reason.
        programs: what has been compiled for this network so far; see `jitted`.
    """

    model: Model
    example: jax.ShapeDtypeStruct
    layers: Mapping[str, Layer]
    norms: Mapping[str, Norm]
    neurons: Mapping[str, Site]
    heads: Mapping[str, Site]
    not_neurons: Mapping[str, str]
    programs: dict[Hashable, Callable[..., Any]] = field(default_factory=dict, repr=False, compare=False)

    @property
    def params(self) -> Params:
        """The model's parameters by path."""
        return self.model.params

    def sites(self, unit: str) -> Mapping[str, Site]:
        """Sites of "neuron" or "head" units."""
        return {"neuron": self.neurons, "head": self.heads}[unit]

    def in_order(self, layers: Iterable[str]) -> list[str]:
        """Names of layers, each once, in the order of running."""
        wanted = set(layers)
        return [name for name in self.layers if name in wanted]

    def replace(self, trained: Any) -> "Network":
        """The same network with the parameters of `trained`; it shares all that has been compiled (see `Model.replace`)."""
        return replace(self, model=self.model.replace(trained))

    def jitted(self, *key: Hashable) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
        """A decorator like `jax.jit` for functions of parameters and batches that belong to this network.

        A pass over data defines its step anew each time; steps with the same key are compiled once. The key must tell
        everything that the step closes over, except the network; parameters must come in as arguments.
        """
        return lambda function: self.programs.setdefault(key, jax.jit(function))

    def apply(self, params: Params, inputs: Any) -> jax.Array:
        """The network's outputs."""
        return self.model.call(params, inputs)

    def run(
        self,
        params: Params,
        inputs: Any,
        *,
        gates: Mapping[str, jax.Array] | None = None,
        shifts: Mapping[str, jax.Array] | None = None,
        maps: Mapping[str, Callable[[jax.Array], jax.Array]] | None = None,
        record: Iterable[str] = (),
    ) -> tuple[jax.Array, dict[str, tuple[jax.Array, jax.Array]]]:
        """Run with gates and shifts, and record layers.

        Args:
            params: by path.
            inputs: one batch.
            gates: for a site, `[units]` or `[batch, units]` factors of its units (1 leaves a unit as it is).
            shifts: for a layer, an array of its output's shape that is added to it (before any gate).
            maps: for a layer or a BatchNorm, a function of its output that takes the output's place (before any gate).
            record: names of layers.

        Returns:
            Outputs; and for each recorded layer what it was called with and what it returned, shift included.
        """
        taps = _Taps(self, gates or {}, shifts or {}, maps or {}, frozenset(record))
        program, values = self._begun(params, known_of(jnp.asarray(inputs)))
        program.run(values, taps.step)
        return read(values, program.outputs), taps.records

    def run_to_sum(self, params: Params, known: Known, layer: str) -> tuple[jax.Array, jax.Array, jax.Array, jax.Array | None]:
        """Run on, and see what a layer's outputs are added to (the residual sum behind it).

        Args:
            params: by path.
            known: before that layer, or one before it.
            layer: name.

        Returns:
            What the layer was called with; what it returned; that behind the BatchNorm that alone reads it, if there is one;
            and the sum that this goes into, or None.
        """
        taps = _Taps(self, {}, {}, {}, frozenset([layer]), followed=layer)
        program, values = self._begun(params, known)
        program.run(values, taps.step, known.place(program))
        return *taps.records[layer], taps.followed[-1], taps.total

    def run_before(self, params: Params, known: Known, layer: str) -> Known:
        """Run on, up to a layer: what is known right before it.

        Args:
            params: by path; those of `layer` and behind it are not read.
            known: before a layer that runs no later.
            layer: name.
        """
        program, values = self._begun(params, known)
        place = program.places[layer]
        program.run(values, _Taps(self, {}, {}, {}, frozenset()).step, known.place(program), place)
        return Known(layer, known.shape, tuple(values[number] for number in program.known_before(place)))

    def known_size(self) -> int:
        """The most numbers that are known of one example right before any layer."""
        one = jax.ShapeDtypeStruct((1, *self.example.shape[1:]), self.example.dtype)
        program = in_a_row(_trace(self.model, self.params, one))
        known = [program.known_before(program.places[name]) for name in self.layers]
        return max((sum(program.sizes[number] for number in numbers) for numbers in known), default=0)

    def _begun(self, params: Params, known: Known) -> tuple[Program, dict[int, Any]]:
        """The program, and the values to run it on from what is known."""
        program = in_a_row(_trace(self.model, params, known.shape))
        given = [params[path] for path in sorted(params)]
        return program, {
            **program.constants,
            **dict(zip(program.params, given, strict=True)),
            **dict(zip(program.known_before(known.place(program)), known.values, strict=True)),
        }

    def __repr__(self) -> str:
        return f"Network({len(self.layers)} layers, {len(self.neurons)} neuron sites, {len(self.heads)} head sites)"


def trace(model: Model, example: Any) -> Network:
    """Run a model abstractly and find its layers and units.

    Args:
        model: from one of the adapters.
        example: one batch of inputs (only shape and dtype are read).

    Raises:
        ValueError: if the model does not accept such inputs, holds NaN or infinite parameters, calls a layer twice or in a
            loop, ties layers, reads their weights elsewhere too, is in training mode or draws random numbers, or holds no
            kernel that a supported layer uses; each names the layer.
    """
    shape = jax.ShapeDtypeStruct(example.shape, jax.dtypes.canonicalize_dtype(example.dtype))
    check_finite(model.params, what="Parameter")
    closed = _trace(model, model.params, jax.ShapeDtypeStruct((1, *shape.shape[1:]), shape.dtype))
    if draws_in(closed):
        raise ValueError(
            "The model draws random numbers when it runs, as dropout does in training mode: call model.eval() first (NNX), "
            "give from_linen the option that sets deterministic=True, and draw what is fixed once, outside of the call."
        )
    flow = follow(closed, len(model.params))
    _check_kernels(model, flow.layers)
    check_reads(closed.jaxpr, sorted(model.params), [*flow.layers.values(), *flow.every_norm.values()])
    neurons, reasons = neuron_sites(flow)
    return Network(model, shape, dict(flow.layers), dict(flow.norms), neurons, head_sites(flow), reasons)


def _check_kernels(model: Model, layers: Mapping[str, Layer]) -> None:
    known = {layer.kernel for layer in layers.values()}
    for layer in layers.values():
        found = model.params[layer.kernel].shape if layer.kernel in model.params else None
        if found != layer.shape:
            raise ValueError(
                f"Layer {layer.name!r} multiplies by {layer.shape}, but parameter {layer.kernel!r} is {found}; "
                "mapped, scanned and reparametrized layers are not supported."
            )
    unknown = [path for path in model.params if path.rpartition("/")[2] == "kernel" and path not in known]
    if unknown and not layers:
        raise ValueError(f"No supported layer was found; the parameters hold kernels at {unknown}.")


def _trace(model: Model, params: Params, inputs: Any) -> ClosedJaxpr:
    paths = sorted(params)

    def flat(*values: Any) -> Any:
        outputs = model.call(dict(zip(paths, values[:-1], strict=True)), values[-1])
        if not isinstance(outputs, jax.Array):
            raise ValueError(f"The model must return one array, not {type(outputs).__name__}; wrap it so that it does.")
        return outputs

    shapes = [jax.ShapeDtypeStruct(value.shape, value.dtype) for value in (*(params[path] for path in paths), inputs)]
    try:
        return jax.make_jaxpr(flat)(*shapes)
    except (TypeError, AssertionError, FlaxError) as error:
        raise ValueError(f"The model does not accept inputs of shape {inputs.shape}, {inputs.dtype}: {error}") from error


class _Taps:
    """What happens at the taps of one run."""

    def __init__(
        self,
        network: Network,
        gates: Mapping[str, Any],
        shifts: Mapping[str, Any],
        maps: Mapping[str, Callable[[jax.Array], jax.Array]],
        record: frozenset[str],
        *,
        followed: str | None = None,
    ):
        self.records: dict[str, tuple[jax.Array, jax.Array]] = {}
        self._inputs: dict[str, jax.Array] = {}
        self._record, self._shifts, self._maps = record, shifts, maps
        # The outputs of a layer on their way to a sum: as they are, and behind the BatchNorm that alone reads them. And what
        # else is computed from them.
        self.followed: list[jax.Array] = []
        self._behind: dict[int, Any] = {}
        self.total: jax.Array | None = None
        self._carriers = () if followed is None else (followed, *(norm.name for norm in [network.norms.get(followed)] if norm))
        self._gates: dict[tuple[str, str], list[tuple[Gate, jax.Array]]] = {}
        for name, factors in gates.items():
            site = network.neurons.get(name) or network.heads[name]
            for gate in site.gates:
                self._gates.setdefault((gate.tap, gate.side), []).append((gate, factors))

    def step(self, equation: Any, operands: list[Any]) -> list[Any]:
        """The results of an equation, a tap or another."""
        handler: Callable[[str, Any], Any] | None = {tap_in_p: self.enter, tap_out_p: self.leave}.get(equation.primitive)
        results = bind(equation, operands) if handler is None else [handler(equation.params["spec"].name, operands[0])]
        if equation.primitive.name in ("add", "add_any"):
            self.summed(operands, results[0])
        if any(self._is_followed(operand) or id(operand) in self._behind for operand in operands):
            # Kept by identity, and kept alive so that no other value gets it.
            self._behind.update((id(result), result) for result in results if not self._is_followed(result))
        return results

    def enter(self, name: str, value: jax.Array) -> jax.Array:
        value = self._gated(name, "in", value)
        self._inputs[name] = value
        return value

    def leave(self, name: str, value: jax.Array) -> jax.Array:
        if name in self._shifts:
            value = value + self._shifts[name]
        if name in self._maps:
            value = self._maps[name](value)
        value = self._gated(name, "out", value)
        if name in self._record:
            self.records[name] = (self._inputs[name], value)
        if name in self._carriers:
            self.followed.append(value)
        return value

    def summed(self, operands: list[Any], result: jax.Array) -> None:
        """Note a sum, if it is the first that what is followed goes into, and adds something as large to it.

        What follows from it itself does not count, as in z + .045 z³ (GELU) or z + f(z): no z makes up for an error there.
        """
        if self.total is None and self.followed and len(self.followed) == len(self._carriers) and len(operands) == 2:
            now = self.followed[-1]
            others = [operand for operand in operands if operand is not now]
            if len(others) == 1 and jnp.shape(others[0]) == result.shape:
                own = self._is_followed(others[0]) or id(others[0]) in self._behind
                self.total = self.total if own else result

    def _is_followed(self, value: Any) -> bool:
        return any(value is each for each in self.followed)

    def _gated(self, name: str, side: str, value: jax.Array) -> jax.Array:
        for gate, factors in self._gates.get((name, side), ()):
            channels = value.shape[value.ndim - gate.num_channel_axes :]
            # Channels that no unit owns read the 1 appended here, at index −1.
            padded = jnp.concatenate([factors, jnp.ones((*factors.shape[:-1], 1), factors.dtype)], axis=-1)
            spread = padded[..., gate.unit_of_channel].astype(value.dtype)
            batch = spread.shape[:-1]
            between = (1,) * (value.ndim - len(batch) - len(channels))
            value = value * spread.reshape(*batch, *between, *channels)
        return value
