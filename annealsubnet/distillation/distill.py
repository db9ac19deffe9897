"""Distill a ticket: mask a random student so that each of its blocks returns what the trained teacher's layer returns.

Block after block, in the teacher's order: the inputs are the student's own, masked so far, the targets the teacher's. No
labels, no gradients, and no weight of the student is changed.
"""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from math import ceil, inf
from numbers import Real
from typing import Any, Protocol

import jax
import numpy as np

from annealsubnet.arguments import check_whole
from annealsubnet.batches import Batches, first_inputs
from annealsubnet.distillation.anneal import Schedule, anneal_sums
from annealsubnet.distillation.blocks import (
    Block,
    blocks_of,
    check_reads,
    check_turns,
    follows,
    measure_matching,
    measure_signs,
    pieces,
    reads_of,
)
from annealsubnet.distillation.hidden import Hidden, improve_hidden
from annealsubnet.distillation.paths import copies_of, drop_unread, lay_paths
from annealsubnet.distillation.sums import Sums, sums_of
from annealsubnet.masks import Mask
from annealsubnet.networks import Layer, Network, Params, as_network
from annealsubnet.statistics.passes import one_example


class Solve(Protocol):
    """Anything that chooses candidates: `anneal_sums`, a `functools.partial` of it, or a function of your own."""

    def __call__(self, sums: Sums, *, num_kept: int, seed: int) -> np.ndarray:
        """The candidates that each neuron keeps, `num_kept` of them at most."""


_HIDDEN = Schedule(100)
_KEPT = 0.6
"""Weights that may stay for each of the teacher's, besides those that hand on a block's inputs, where no number is given."""


@dataclass(frozen=True)
class Fit:
    """How well a block came out.

    Attributes:
        layer: of the teacher.
        kept: weights of the student's block.
        weights: of the teacher's layer.
        error: mean squared error of the block's outputs, in units of the mean square of what its
            weights are to return: the teacher's outputs, less the student's biases.
        seconds: wall time.
    """

    layer: str
    kept: int
    weights: int
    error: float
    seconds: float


@dataclass(frozen=True)
class Alternation:
    """How both layers of a block are annealed in turn, instead of laying paths; between them stands a ReLU and nothing else.

    Attributes:
        fan_in: weights that each neuron of the first layer keeps.
        rounds: how often the last layer, then every neuron of the first, is annealed; the last layer once more at the end.
        examples: input vectors that are held in memory.
        schedule: of a neuron of the first layer.
    """

    fan_in: int = 16
    rounds: int = 3
    examples: int = 2000
    schedule: Schedule = _HIDDEN

    def __post_init__(self) -> None:
        for name, least in (("fan_in", 1), ("rounds", 0), ("examples", 1)):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int | np.integer) or value < least:
                raise ValueError(f"{name} of Alternation must be a whole number of at least {least}; it is {value!r}.")


def distill_ticket(
    teacher: Any,
    student: Any,
    batches: Batches,
    *,
    kept_per_weight: float | Mapping[str, float] | None = None,
    blocks: Mapping[str, str | Sequence[str]] | None = None,
    alternation: Alternation | None = None,
    solve: Solve = anneal_sums,
    seed: int,
    report: Callable[[Fit], None] = lambda fit: None,
) -> Mask:
    """The mask of a random student that computes what a trained teacher computes.

    Args:
        teacher: trained: an `nnx.Module`, what `from_linen` or `from_function` return, or a `Network`.
        student: with random weights of the size that sums of them need (see `draw_student`: with others it may end far from the
            teacher, as the errors in `report` say), in any of these forms. For each of the teacher's layers it has one or two,
            the last with as many outputs; in one, inputs should be there several times, for a weight is summed from copies of
            its input. (Where the teacher has biases, give the student an input that is always one, before each layer.)
        batches: of inputs or (inputs, labels); labels are not read.
        kept_per_weight: at most so many of the student's weights stay for each of the teacher's, in every block, those of both
            its layers counted; or by the teacher's layer. It may be above one. By default 0.6 in every block, and on top of
            them what the first of two layers takes: one weight for each of its neurons, or the fan-in of `alternation`.
        blocks: the student's layer, or its two layers, for each of the teacher's, where their order does not tell.
        alternation: how the first of two layers is annealed too, with a ReLU alone between them; if None its neurons copy one
            input each, whatever the nonlinearity (see `paths`).
        solve: chooses the weights of a last layer.
        seed: the same seed gives the same mask.
        report: called with the `Fit` of every block.

    Returns:
        A mask of the student's weights.

    Raises:
        ValueError: for layers that do not fit each other, `alternation` of layers with anything but a ReLU between them, a
            `kept_per_weight` that leaves a block's last layer nothing, a negative seed, or bad batches.
        TypeError: for a seed that is no whole number.

    Example:
        >>> from annealsubnet.distillation import draw_student
        >>> from annealsubnet.examples import load, named_network, train
        >>> from annealsubnet.examples.architectures import MLP
        >>> from flax import nnx
        >>> data, named = load("digits", seed=0), named_network("digits-mlp")
        >>> batches = data.batches("train", 500, normalize=named.normalize)
        >>> teacher = train(MLP((8, 8, 1), (10,), use_bias=False, rngs=nnx.Rngs(0)), batches, seed=0, epochs=2)
        >>> student = draw_student(teacher, MLP((8, 8, 1), (256, 10), use_bias=False, rngs=nnx.Rngs(1)), batches, seed=0)
        >>> distill_ticket(teacher, student, batches, kept_per_weight=1.0, seed=0).kept_count <= 640
        True
    """
    seed = check_whole("seed", seed, 0)
    example = first_inputs(batches)
    theirs, ours = as_network(teacher, example), as_network(student, example)
    laid = blocks_of(theirs, ours, blocks)
    allowed = _allowed_by_default(laid, alternation) if kept_per_weight is None else _allowed(laid, kept_per_weight)
    if alternation is not None:
        check_turns(ours, laid, batches)
    params = dict(ours.params)
    kept: dict[str, np.ndarray] = {}
    for number, block in enumerate(laid):
        start = time.perf_counter()
        own = int(np.random.SeedSequence([seed, number]).generate_state(1)[0])
        if block.first is None or alternation is None:
            masks, error = _by_paths(theirs, ours, params, block, batches, allowed[block.teacher.name], solve, own)
        else:
            masks, error = _by_turns(theirs, ours, params, block, batches, allowed[block.teacher.name], solve, alternation, own)
        for layer, mask in masks:
            kept[layer.name] = np.asarray(layer.from_matrix(mask[None]))
            params[layer.kernel] = params[layer.kernel] * kept[layer.name]
        count = sum(int(mask.sum()) for _, mask in masks)
        report(Fit(block.teacher.name, count, block.weights, error, time.perf_counter() - start))
    return Mask.of(ours, "weight", kept)


_Masks = list[tuple[Layer, np.ndarray]]


def _by_paths(
    teacher: Network,
    student: Network,
    params: Params,
    block: Block,
    batches: Batches,
    allowed: int,
    solve: Solve,
    seed: int,
) -> tuple[_Masks, float]:
    """A block whose last layer is annealed, over copies of inputs if there is a layer before it."""
    first, laid, copies = block.first, None, None
    if first is not None:
        weights = _matrix(first, params)
        laid = lay_paths(weights, measure_signs(student, params, first, batches))
        params = {**params, first.kernel: params[first.kernel] * first.from_matrix(laid[None])}
        copies = copies_of(weights, laid)
        if first.outputs != block.last.fan_in or not follows(student, params, block.last, copies, batches):
            copies = None  # another nonlinearity, biases or pooling between: what is proportional is found in the moments
    left = allowed - (0 if laid is None else int(laid.sum()))
    if left < 1:
        raise ValueError(
            f"{block.teacher.name!r} may keep {allowed} weights, and the copies of its inputs in {block.last.name!r} take "
            f"{allowed - left} of them; raise kept_per_weight for it, or narrow the student's layer."
        )
    columns = None if copies is None else copies.leaders
    matching = measure_matching(teacher, student, params, block, batches, columns=columns)
    sums = sums_of(_matrix(block.last, params), matching.gram, matching.cross, matching.energy, copies=copies)
    state = solve(sums, num_kept=left, seed=seed)
    last = sums.to_mask(state)
    error = float(sums.errors(state).sum() / max(sums.energy.sum(), 1e-30))
    if first is None or laid is None:
        return [(block.last, last)], error
    return [(first, drop_unread(laid, last, reads_of(student, block))), (block.last, last)], error


def _by_turns(
    teacher: Network,
    student: Network,
    params: Params,
    block: Block,
    batches: Batches,
    allowed: int,
    solve: Solve,
    alternation: Alternation,
    seed: int,
) -> tuple[_Masks, float]:
    """A block of which both layers are annealed in turn."""
    assert block.first is not None
    first, last = block.first, block.last
    inputs, targets = _vectors(teacher, student, params, block, batches, alternation.examples)
    weights, outgoing, bias = _matrix(first, params), _matrix(last, params), first.bias_matrix(params)[0]
    rng = np.random.default_rng(seed)
    mask = rng.permuted(np.arange(first.fan_in)[:, None] < np.full(first.outputs, alternation.fan_in), axis=0)
    left = allowed - int(mask.sum())
    if left < 1:
        raise ValueError(
            f"{block.teacher.name!r} may keep {allowed} weights, and {first.outputs} neurons of {first.name!r} with a fan-in "
            f"of {alternation.fan_in} take {allowed - left} of them; raise kept_per_weight for it, or lower fan_in."
        )

    def summed(number: int) -> np.ndarray:
        read = Hidden(inputs, targets, weights, bias, outgoing).returned(mask)
        count = len(inputs)
        sums = sums_of(outgoing, read.T @ read / count, read.T @ targets / count, np.square(targets).mean(axis=0))
        return sums.to_mask(solve(sums, num_kept=left, seed=seed + number))

    chosen = summed(0)
    for number in range(alternation.rounds):
        hidden = Hidden(inputs, targets, weights, bias, outgoing * chosen)
        better = improve_hidden(hidden, mask, schedule=alternation.schedule, seed=seed + number)
        mask, before, old = better, hidden.error(better), chosen
        chosen = summed(number + 1)
        if Hidden(inputs, targets, weights, bias, outgoing * chosen).error(mask) > before:
            chosen = old
    error = Hidden(inputs, targets, weights, bias, outgoing * chosen).error(mask)
    mask = drop_unread(mask, chosen, reads_of(student, block))
    return [(first, mask), (last, chosen)], error / max(float(np.square(targets).sum(1).mean()), 1e-30)


def _vectors(
    teacher: Network, student: Network, params: Params, block: Block, batches: Batches, most: int
) -> tuple[np.ndarray, np.ndarray]:
    """What the block's first layer reads and its last should return, less its bias, for `most` vectors."""
    assert block.first is not None
    first, rows, targets, found = block.first, [], [], 0

    @jax.jit
    def both(params: Params, theirs: Params, inputs: jax.Array) -> tuple[jax.Array, jax.Array]:
        read = student.run(params, inputs, record=(first.name,))[1][first.name][0]
        wanted = teacher.run(theirs, inputs, record=(block.teacher.name,))[1][block.teacher.name][1]
        return first.patches(read)[:, 0], wanted.reshape(-1, block.last.outputs)

    # What one example gives tells how many give `most`.
    each = jax.eval_shape(both, params, teacher.params, one_example(student))[0].shape[0]
    for (inputs,) in pieces(batches, (student, first), (teacher, block.teacher), most=ceil(most / each)):
        pair = both(params, teacher.params, inputs)
        rows.append(np.asarray(pair[0])[: most - found].astype(np.float64))
        targets.append(np.asarray(pair[1])[: most - found].astype(np.float64))
        found += len(rows[-1])
        if found >= most:
            break
    read = np.concatenate(rows)
    check_reads(first, read)
    return read, np.concatenate(targets) - block.last.bias_matrix(params)[0]


def _matrix(layer: Layer, params: Params) -> np.ndarray:
    """A layer's weights, `[fan_in, outputs]`."""
    return layer.weight_matrix(params)[0]


def _allowed_by_default(blocks: Sequence[Block], alternation: Alternation | None) -> dict[str, int]:
    """How many weights each block may keep by default: enough for its first layer, and some for its last."""
    fan_in = 1 if alternation is None else alternation.fan_in
    first = [0 if block.first is None else block.first.outputs * min(fan_in, block.first.fan_in) for block in blocks]
    return {block.teacher.name: own + max(1, int(_KEPT * block.weights)) for block, own in zip(blocks, first, strict=True)}


def _allowed(blocks: Sequence[Block], kept_per_weight: float | Mapping[str, float]) -> dict[str, int]:
    """How many weights each block may keep by what is given."""
    names = [block.teacher.name for block in blocks]
    shares = dict(kept_per_weight) if isinstance(kept_per_weight, Mapping) else dict.fromkeys(names, kept_per_weight)
    if set(shares) != set(names):
        raise ValueError(f"kept_per_weight names {sorted(shares)}; the teacher's layers are {names}.")
    bad = [name for name in names if not isinstance(shares[name], Real) or not 0 < shares[name] < inf]
    if bad:
        raise ValueError(f"kept_per_weight of {bad[0]!r} is {shares[bad[0]]!r}; give a number above 0.")
    return {block.teacher.name: int(shares[block.teacher.name] * block.weights) for block in blocks}
