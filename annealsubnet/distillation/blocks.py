"""Blocks: which layers of a random student stand for which layer of a trained teacher, and what is measured of them.

A block is one teacher layer and one or two student layers. Its last layer returns what the teacher's returns before the
nonlinearity, so that the error is quadratic in its mask; it reads what the student itself, masked so far, hands it.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from math import prod
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float, Int

from annealsubnet.batches import Batches, first_inputs, stream
from annealsubnet.distillation.sums import Copies
from annealsubnet.networks import Layer, Network, Params
from annealsubnet.statistics.passes import one_example
from annealsubnet.statistics.streams import accumulate, as_wide, check_statistics, chunk_size, chunks

_CHUNK = 1024
"""Most examples that are passed at once."""
CHECKED = 64
"""Examples on which it is seen what a layer reads."""


@dataclass(frozen=True)
class Block:
    """One teacher layer and the student layers that stand for it.

    Attributes:
        teacher: the layer of the teacher.
        first: the student's layer before the nonlinearity; None where the block has one layer.
        last: the student's layer whose outputs are matched.
    """

    teacher: Layer
    first: Layer | None
    last: Layer

    @property
    def weights(self) -> int:
        """How many weights the teacher's layer has."""
        return prod(self.teacher.shape)


def blocks_of(teacher: Network, student: Network, pairs: Mapping[str, str | Sequence[str]] | None = None) -> tuple[Block, ...]:
    """The blocks, in the teacher's order.

    Args:
        teacher: traced.
        student: traced.
        pairs: the student's layer, or its two layers, for each of the teacher's; if None they are taken in the order of
            running, one or two for each.

    Raises:
        ValueError: for counts or shapes that do not fit, unknown layers, layers of the student that are taken twice or out of
            order, or grouped convolutions.
    """
    if pairs is None:
        pairs = _in_order(teacher, student)
    unknown = sorted(set(pairs) - set(teacher.layers))
    if unknown:
        raise ValueError(f"blocks names {unknown}, which the teacher does not have; its layers are {sorted(teacher.layers)}.")
    missing = sorted(set(teacher.layers) - set(pairs))
    if missing:
        raise ValueError(f"blocks leaves out the teacher's layers {missing}; name one or two of the student's for each.")
    blocks = []
    for name, layer in teacher.layers.items():
        named = pairs[name]
        own = (named,) if isinstance(named, str) else tuple(named)
        unknown = [part for part in own if part not in student.layers]
        if unknown or not 1 <= len(own) <= 2:
            raise ValueError(
                f"blocks[{name!r}] is {pairs[name]!r}; it is one or two of the student's layers {sorted(student.layers)}."
            )
        blocks.append(Block(layer, student.layers[own[0]] if len(own) == 2 else None, student.layers[own[-1]]))
    _check_order(student, blocks)
    _check_outputs(teacher, student, blocks)
    return tuple(blocks)


def _in_order(teacher: Network, student: Network) -> dict[str, Sequence[str]]:
    names, theirs = list(teacher.layers), list(student.layers)
    if not names or len(theirs) not in (len(names), 2 * len(names)):
        raise ValueError(
            f"The teacher has {len(names)} layers and the student {len(theirs)}; a student has one or two layers for each of "
            "the teacher's, or blocks says which stand for which."
        )
    each = len(theirs) // len(names)
    return {name: theirs[each * number : each * (number + 1)] for number, name in enumerate(names)}


def _check_order(student: Network, blocks: Iterable[Block]) -> None:
    """Each block is fitted to what the masked layers before it return, so none of those may be masked later, or again."""
    taken = [layer.name for block in blocks for layer in (block.first, block.last) if layer is not None]
    running = list(student.layers)
    if any(running.index(one) >= running.index(next_one) for one, next_one in pairwise(taken)):
        raise ValueError(
            f"In the teacher's order, blocks takes the student's layers {taken}; take each once at most, in the order of "
            f"running, {running}."
        )


def _check_outputs(teacher: Network, student: Network, blocks: Iterable[Block]) -> None:
    if teacher.example.shape[1:] != student.example.shape[1:]:
        raise ValueError(
            f"The teacher reads inputs of shape {teacher.example.shape[1:]} and the student {student.example.shape[1:]}."
        )
    shapes = [_output_shapes(network) for network in (teacher, student)]
    for block in blocks:
        wanted, found = shapes[0][block.teacher.name], shapes[1][block.last.name]
        if wanted != found:
            raise ValueError(
                f"Layer {block.last.name!r} of the student returns {found} an example, where {block.teacher.name!r} of the "
                f"teacher returns {wanted}; the last layer of a block has the teacher's outputs."
            )
        for layer in (block.first, block.last):
            if layer is not None and layer.groups > 1:
                raise ValueError(f"Layer {layer.name!r} is a grouped convolution; distillation takes layers of one group.")


def _output_shapes(network: Network) -> dict[str, tuple[int, ...]]:
    def outputs(params: Params, inputs: jax.Array) -> dict[str, jax.Array]:
        _, records = network.run(params, inputs, record=network.layers)
        return {name: record[1] for name, record in records.items()}

    return {name: shape.shape[1:] for name, shape in jax.eval_shape(outputs, network.params, one_example(network)).items()}


@dataclass(frozen=True)
class Matching:
    """What a block's last layer reads and should return, as sums over unlabeled data.

    Attributes:
        gram: E[a aᵀ] of its inputs, or of those asked for.
        cross: E[a yᵀ], y what the teacher returns less the student's own bias.
        energy: E[y²].
    """

    gram: Float[np.ndarray, "inputs inputs"]
    cross: Float[np.ndarray, "inputs neurons"]
    energy: Float[np.ndarray, "neurons"]


def measure_matching(
    teacher: Network,
    student: Network,
    params: Params,
    block: Block,
    batches: Batches,
    *,
    columns: Int[np.ndarray, "inputs"] | None = None,
) -> Matching:
    """One pass over the batches; `params` are the student's, masked so far; of some `columns` of the fan-in, or all if None."""
    layer = block.last

    @jax.jit
    def step(params: Params, theirs: Params, inputs: jax.Array) -> Any:
        _, records = student.run(params, inputs, record=(layer.name,))
        rows = layer.patches(as_wide(records[layer.name][0]))[:, 0]
        rows = rows if columns is None else rows[:, columns]
        _, records = teacher.run(theirs, inputs, record=(block.teacher.name,))
        targets = as_wide(records[block.teacher.name][1]).reshape(len(rows), -1)
        if layer.bias is not None:
            targets = targets - as_wide(params[layer.bias]).reshape(-1)
        vectors = jnp.full((), len(rows), jnp.float32)
        gram, cross = (jnp.matmul(rows.T, other, precision="highest") for other in (rows, targets))
        return gram, cross, (targets**2).sum(0), vectors

    read = pieces(batches, (student, layer), (teacher, block.teacher))
    sums, _ = accumulate(lambda inputs: step(params, teacher.params, inputs), read)
    gram, cross, energy = (total / sums[3] for total in sums[:3])
    check_statistics(layer.name, gram, cross, energy)
    check_reads(layer, gram)
    return Matching(gram, cross, energy)


def follows(student: Network, params: Params, layer: Layer, copies: Copies, batches: Batches) -> bool:
    """Whether the inputs of a layer are these copies, on the first batch."""
    _, records = student.run(params, first_inputs(batches)[:CHECKED], record=(layer.name,))
    rows = np.asarray(layer.patches(records[layer.name][0])[:, 0], np.float64)
    busy, wanted = copies.leader_of >= 0, np.zeros_like(rows)
    wanted[:, busy] = rows[:, copies.leaders[copies.leader_of[busy]]] * copies.ratio[busy]
    return bool(np.allclose(rows, wanted, rtol=1e-4, atol=1e-6 * np.abs(rows).max(initial=0.0)))


def check_turns(student: Network, blocks: Iterable[Block], batches: Batches) -> None:
    """Raise unless the last of two layers reads max(z, 0) of every neuron z of the first, on the first batch.

    Raises:
        ValueError: naming the layers of the first block where it reads something else.
    """
    for first, last in ((block.first, block.last) for block in blocks if block.first is not None):
        _, records = student.run(student.params, first_inputs(batches)[:CHECKED], record=(first.name, last.name))
        wanted = np.maximum(np.asarray(records[first.name][1], np.float64).reshape(-1, first.outputs), 0.0)
        read = np.asarray(last.patches(records[last.name][0])[:, 0], np.float64)
        if read.shape != wanted.shape or not np.allclose(read, wanted, rtol=1e-4, atol=1e-6 * wanted.max(initial=0.0)):
            raise ValueError(
                f"Layers are annealed in turn with max(z, 0) between them, and {last.name!r} of the student reads something "
                f"else of {first.name!r}: another nonlinearity, a normalization, pooling or a window of several positions. "
                "Put a ReLU alone between them, or leave out alternation: paths need no ReLU."
            )


def measure_signs(student: Network, params: Params, layer: Layer, batches: Batches) -> Float[np.ndarray, "2 fan_in"]:
    """E[max(a, 0)²] and E[max(−a, 0)²] of each input of a layer."""

    @jax.jit
    def step(params: Params, inputs: jax.Array) -> Any:
        _, records = student.run(params, inputs, record=(layer.name,))
        rows = layer.patches(as_wide(records[layer.name][0]))[:, 0]
        parts = jnp.stack([jnp.maximum(rows, 0), jnp.maximum(-rows, 0)])
        return (parts**2).sum(1), jnp.full((), len(rows), jnp.float32)

    (total, vectors), _ = accumulate(lambda inputs: step(params, inputs), pieces(batches, (student, layer)))
    check_statistics(layer.name, total)
    check_reads(layer, total)
    return np.asarray(total / vectors)


def check_reads(layer: Layer, read: np.ndarray) -> None:
    """Raise if a layer's inputs, or their moments, are all zero.

    Raises:
        ValueError: with the layer's name.
    """
    if not read.any():
        raise ValueError(
            f"Layer {layer.name!r} of the student reads nothing but zeros on these batches, and no choice of its weights makes "
            "anything of them; give other batches, or keep more weights in the blocks before it."
        )


def reads_of(student: Network, block: Block) -> Int[np.ndarray, "fan_in"] | None:
    """The neuron of the first layer behind each input of the last, −1 for none; None unless that is all that reads them.

    One neuron may be behind several inputs, as in a window or where images are flattened. Where a normalization lies between,
    every neuron is read through it by all.
    """
    assert block.first is not None
    site = student.neurons.get(block.first.name)
    if site is None or site.members != (block.first.name,) or set(site.consumers) != {block.last.name} or site.normalized_by:
        return None
    return site.consumers[block.last.name][0]


def pieces(batches: Batches, *passes: tuple[Network, Layer], most: int = _CHUNK) -> Iterator[tuple[np.ndarray]]:
    """The inputs, as many at a time as fit the memory on their way through networks up to a layer of each, `most` at most."""
    sizes = [chunk_size(4 * _largest(network, layer), most=_CHUNK) for network, layer in passes]
    return ((inputs,) for inputs, _ in chunks(stream(batches), min(most, *sizes)))


def _largest(network: Network, layer: Layer) -> int:
    """Most numbers that an example has on its way up to a layer, or as the vectors that the layer multiplies."""
    names = list(network.layers)
    names = names[: names.index(layer.name) + 1]

    def held(params: Params, inputs: jax.Array) -> Any:
        _, records = network.run(params, inputs, record=names)
        return records, layer.patches(records[layer.name][0])

    return max(array.size for array in jax.tree.leaves(jax.eval_shape(held, network.params, one_example(network))))
