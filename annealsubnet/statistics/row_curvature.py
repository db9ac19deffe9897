"""Second moments by rows of kernels: what the error of one neuron's weights costs the loss.

A layer's own second moment E[a aᵀ] counts a neuron's error a_npᵀ v alike at every position p of every example n, and as if the
errors at different positions were independent. The outputs are moved by their sum, and in some examples more than in others:

    x_nc = Σ_p δ_ncp a_np,    t_nc = Σ_p δ_ncp y_np,    δ_nc = s_ncᵀ ∂outputs_n/∂z_n,

with y what the neuron should return and s_nc the factors of the loss's Hessian in the outputs, F_n = Σ_c s_nc s_ncᵀ. Then
½ E_n Σ_c (t_nc − x_ncᵀ v)² is the loss, to second order (Gauss-Newton), of putting the weights v into that neuron alone, and
E[x xᵀ] the block of the neuron's row. So every neuron gets a regression of its own. From few examples it is not known well, so
half of each moment is the layer's own, scaled to the same trace.

Examples tell more than the factors of one: of 1,600 examples with two each more is known than of 400 with all ten, for the same
operations. So where there are many examples the factors s_nc of each are added up with random signs to fewer of them.

Where a network is sure of its outputs F is next to nothing. A temperature above 1 softens the outputs first, as in
`annealsubnet.stochastic_fit`.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from itertools import tee
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float

from annealsubnet.batches import stream
from annealsubnet.losses import Loss
from annealsubnet.networks import Layer, Network, Params
from annealsubnet.statistics.gradients import pull_back, vectors_of
from annealsubnet.statistics.moments import Regression, moments_chunk, regression_of, target_sums
from annealsubnet.statistics.passes import FACTORS, backward_chunk
from annealsubnet.statistics.signs import random_signs
from annealsubnet.statistics.streams import CHUNK_BYTES, accumulate, check_statistics, chunks
from annealsubnet.statistics.targets import LayerTargets

_OWN = 0.5
"""The layer's own share of a row's moments; .1 is too little for 400 examples in layers of 576 inputs."""
_NUMBERS = 2**26
"""Most numbers in the moments that one pass gathers (as many as 512 MiB hold), and so in one layer's."""
_VECTORS = 2**12
"""Most δ, examples times factors, where an example has more than one factor."""
_DELTAS = 2**28
"""Most numbers in the δ held at once, as many as 1 GiB holds: a pass back for each layer would take half of the time."""
_CHUNKS = 8
"""How many usual chunks are passed at once: the moments are large, and every chunk adds all of them up."""


Deltas = Iterable[tuple[np.ndarray, jax.Array]]
"""δ of one layer: inputs of the network, a piece of the examples at a time, and `[factor, example, *outputs of the layer]`."""


@dataclass(frozen=True)
class RowCurvature:
    """Which curvature counts.

    Attributes:
        loss: of one example.
        temperature: by which outputs are divided first, if they are those of classes.
    """

    loss: Loss
    temperature: float


@dataclass(frozen=True)
class RowProducts:
    """Sums over examples and factors, for each neuron of a layer; the last input is the constant 1, for the bias.

    Attributes:
        gram: `[row, i, j]` is E Σ_c x_i x_j.
        cross: `[row, i]` is E Σ_c x_i t.
        energy: `[row]` is E Σ_c t².
    """

    gram: Float[np.ndarray, "rows inputs inputs"]
    cross: Float[np.ndarray, "rows inputs"]
    energy: Float[np.ndarray, "rows"]


@dataclass(frozen=True)
class RowRegression:
    """A layer's neurons as groups of one output each.

    Attributes:
        regression: groups are rows, in the order of groups and outputs.
        cost: what a unit of a row's squared error costs the loss.
    """

    regression: Regression
    cost: Float[np.ndarray, "rows 1"]


def as_rows(matrix: np.ndarray) -> np.ndarray:
    """`[groups, fan_in, outputs]` as `[groups · outputs, fan_in, 1]`."""
    return matrix.transpose(0, 2, 1).reshape(-1, matrix.shape[1], 1)


def from_rows(rows: np.ndarray, groups: int) -> np.ndarray:
    """The inverse of `as_rows`."""
    return rows.reshape(groups, -1, rows.shape[1]).transpose(0, 2, 1)


def mixed(regression: Regression, products: RowProducts) -> RowRegression:
    """Each neuron's own regression: half from its row's products, half from the layer's regression at the same trace."""
    groups, fan_in, outputs = regression.cross.shape
    group = np.repeat(np.arange(groups), outputs)
    cross = np.concatenate([regression.cross, regression.target_mean[:, None]], 1).transpose(0, 2, 1).reshape(-1, fan_in + 1)
    whole, wanted = np.trace(regression.gram, axis1=1, axis2=2)[group], np.trace(products.gram[:, :-1, :-1], axis1=1, axis2=2)
    trace = np.divide(wanted, whole, out=np.zeros_like(wanted), where=whole > 0)
    # A neuron that moves no output has only the layer's own moments, and costs next to nothing.
    scale = np.maximum(trace, max(1e-6 * trace.mean(), 1e-30))
    targets = _OWN * scale[:, None] * cross + (1 - _OWN) * products.cross
    energy = _OWN * scale * regression.target_energy.ravel() + (1 - _OWN) * products.energy
    unit = _OWN * scale + (1 - _OWN) * products.gram[:, -1, -1]
    own, rest = _OWN * scale / unit, (1 - _OWN) / unit
    both = np.empty((len(unit), fan_in, fan_in))
    for row, found in enumerate(both):  # one fits the cache, all of them do not
        np.multiply(products.gram[row, :-1, :-1], rest[row], out=found)
        found += own[row] * regression.gram[group[row]]
    mean = own[:, None] * regression.mean[group] + rest[:, None] * products.gram[:, :-1, -1]
    mixture = Regression(
        both,
        mean,
        targets[:, :-1, None] / unit[:, None, None],
        targets[:, -1:] / unit[:, None],
        (energy / unit)[:, None],
        regression.count,
        regression.with_bias,
    )
    return RowRegression(mixture, 0.5 * unit[:, None])


def own_row_regressions(
    network: Network,
    batches: Iterable[Any],
    regressions: Mapping[str, Regression],
    *,
    params: Params,
    curvature: RowCurvature,
) -> Iterator[tuple[str, RowRegression]]:
    """Layers by rows whose targets are their own outputs, one after the other; moments of several are gathered in a pass.

    Args:
        network: traced, with outputs `[batch, classes]`.
        batches: inputs or (inputs, labels); labels are not read.
        regressions: of layers' own outputs (`self_regression`), by name.
        params: of the network.
        curvature: of the loss.

    Raises:
        ValueError: for bad batches, layers that are not called with the examples along the first axis, or sums that are not
            finite (layer named).
    """
    sizes = {name: _numbers(network.layers[name]) for name in regressions}
    rank = _rank(network, batches)
    for names, _ in _in_passes(regressions, sizes, _NUMBERS):
        step = partial(_own_step(network, names, curvature, rank), params)
        sums, count = accumulate(step, _pieces(batches, rows_chunk(network, batches, names)))
        for name in names:
            layer, gram = network.layers[name], sums.pop(name) / count
            check_statistics(name, gram)
            weights = as_rows(layer.weight_matrix(params))[:, :, 0]
            extended = np.concatenate([weights, layer.bias_matrix(params).reshape(-1, 1)], 1)
            cross = np.einsum("rij,rj->ri", gram, extended)
            yield name, mixed(regressions[name], RowProducts(gram, cross, np.einsum("ri,ri->r", cross, extended)))


def row_deltas(
    network: Network, batches: Iterable[Any], layers: Iterable[str], *, params: Params, curvature: RowCurvature
) -> Iterator[Deltas]:
    """δ of layers, one layer after the other; of several, as many as 1 GiB holds, in a pass.

    Args:
        network, batches, curvature: as in `own_row_regressions`.
        layers: names.
        params: of the network (the dense one) that gives curvature.

    Raises:
        ValueError: for bad batches.
    """
    layers, rank, size = list(layers), _rank(network, batches), rows_chunk(network, batches, layers)
    for names, held in _in_passes(layers, _delta_sizes(network, layers, rank * _count(batches)), _DELTAS):
        found = _passed_back(network, batches, size, names, rank, params=params, curvature=curvature)
        if held > _DELTAS:  # a layer by itself that is too large: piece by piece, while they are read
            (name,) = names
            yield ((inputs, deltas[name]) for inputs, deltas in found)
            continue
        pieces = list(found)
        for name in names:
            yield [(inputs, deltas.pop(name)) for inputs, deltas in pieces]


def _passed_back(
    network: Network,
    batches: Iterable[Any],
    size: int,
    names: tuple[str, ...],
    rank: int,
    *,
    params: Params,
    curvature: RowCurvature,
) -> Iterator[tuple[np.ndarray, dict[str, jax.Array]]]:
    """Inputs, a piece of the examples at a time, and δ of layers by name."""

    @network.jitted("row deltas", curvature, rank, *names)
    def step(values: Params, inputs: jax.Array, number: jax.Array) -> dict[str, jax.Array]:
        deltas, _ = _deltas(network, values, inputs, number, curvature, rank)
        return {name: deltas[name] for name in names}

    for inputs, number in _pieces(batches, size):
        yield inputs, step(params, inputs, number)


def row_regression(network: Network, layer: str, deltas: Deltas, targets: LayerTargets, *, params: Params) -> RowRegression:
    """A layer by rows, whose inputs are the present network's.

    Args:
        network: as in `own_row_regressions`.
        layer: name.
        deltas: its δ (`row_deltas`), of `targets.batches`.
        targets: of the layers (`layer_targets`), of which this is the next.
        params: of the present (pruned) network.

    Raises:
        ValueError: as `own_row_regressions`, or for δ of other pieces.
    """
    described = network.layers[layer]

    @network.jitted("row regression", described.geometry)
    def step(read: jax.Array, targets: jax.Array, delta: jax.Array) -> Any:
        rows, wanted = _rows(described, read, delta), _pulled(described, targets, delta)
        cross = jnp.einsum("rni,rn->ri", rows, wanted, precision="highest")
        examples = jnp.full((), delta.shape[1], jnp.float32)
        return target_sums(described, read, targets), examples, (_gram(rows), cross, jnp.square(wanted).sum(1))

    # Where nothing is held the targets are of the inputs that come with δ, for batches may be in another order each time.
    deltas, again = tee(deltas)
    visit = targets.of(layer, params, (inputs for inputs, _ in again))
    pieces = ((read, wanted, delta) for (read, wanted), (_, delta) in zip(visit, deltas, strict=True))
    (sums, examples, products), _ = accumulate(step, pieces)
    check_statistics(layer, *products)
    return mixed(regression_of(described, sums), RowProducts(*(total / examples for total in products)))


def obstacle(network: Network, layers: Iterable[str]) -> str | None:
    """Why layers cannot be had by rows, or None."""
    outputs, records = jax.eval_shape(lambda params, inputs: network.run(params, inputs, record=layers), *_shapes(network))
    if len(outputs.shape) != 2:
        return f"the network returns {outputs.shape[1:]} an example, not one vector"
    for name in layers:
        if (size := _numbers(network.layers[name])) > _NUMBERS:
            return f"layer {name!r} has {size:.1e} moments by rows, more than {_NUMBERS:.1e}"
        if records[name][0].shape[0] != outputs.shape[0]:
            return f"layer {name!r} is not called with the examples along the first axis"
    return None


def operations_by_rows(network: Network, layers: Iterable[str], examples: int) -> float:
    """Operations of gathering the moments of layers once."""
    return 2.0 * examples * _rank_of(network, examples) * sum(_numbers(network.layers[name]) for name in layers)


def _numbers(layer: Layer) -> int:
    """How many numbers a layer's moments by rows are."""
    return layer.outputs * (layer.fan_in + 1) ** 2


def _shapes(network: Network) -> tuple[Params, jax.ShapeDtypeStruct]:
    return network.params, jax.ShapeDtypeStruct((2, *network.example.shape[1:]), network.example.dtype)


def _count(batches: Iterable[Any]) -> int:
    return sum(len(inputs) for inputs, _ in stream(batches))


def _rank(network: Network, batches: Iterable[Any]) -> int:
    return _rank_of(network, _count(batches))


def _rank_of(network: Network, examples: int) -> int:
    """How many factors of F an example has."""
    classes: int = jax.eval_shape(network.apply, *_shapes(network)).shape[-1]
    return min(classes, FACTORS, max(1, _VECTORS // max(1, examples)))


def _delta_sizes(network: Network, layers: Iterable[str], vectors: int) -> dict[str, int]:
    """How many numbers so many δ of layers are."""
    _, records = jax.eval_shape(lambda params, inputs: network.run(params, inputs, record=layers), *_shapes(network))
    return {name: vectors * (records[name][1].size // len(records[name][1])) for name in layers}


def _in_passes(layers: Iterable[str], sizes: Mapping[str, int], most: int) -> Iterator[tuple[tuple[str, ...], int]]:
    """The layers in groups whose sizes add up to at most that, or of one layer; and what they add up to."""
    waiting: list[str] = []
    held = 0
    for name in layers:
        if waiting and held + sizes[name] > most:
            yield tuple(waiting), held
            waiting, held = [], 0
        waiting.append(name)
        held += sizes[name]
    if waiting:
        yield tuple(waiting), held


def rows_chunk(network: Network, batches: Iterable[Any], layers: Iterable[str]) -> int:
    """How many examples to pass at once: as many as fit the memory on the way back and as rows of one layer."""
    count = _count(batches)
    rank = _rank_of(network, count)
    rows = max(network.layers[name].outputs * network.layers[name].fan_in for name in layers)
    size = _CHUNKS * max(1, min(backward_chunk(network, most=4096) // (1 + rank), CHUNK_BYTES // (4 * rows * rank)))
    # Chunks of one size, if there are nearly as large ones: every size is compiled by itself.
    return next((even for even in range(min(size, count), size // 2, -1) if count % even == 0), size)


def layer_targets(
    network: Network, batches: Iterable[Any], layers: Iterable[str], *, weighed: Iterable[str], target_params: Params
) -> LayerTargets:
    """Targets of layers, in pieces of the examples as those of `row_deltas` if any layers are weighed by these."""
    chosen = list(weighed)
    size = rows_chunk(network, batches, chosen) if chosen else moments_chunk(network, layers)
    return LayerTargets(network, batches, size, target_params=target_params)


def _pieces(batches: Iterable[Any], size: int) -> Iterator[tuple[np.ndarray, np.uint32]]:
    """Inputs and their number."""
    for number, (inputs, _) in enumerate(chunks(stream(batches), size)):
        yield inputs, np.uint32(number)


def _own_step(network: Network, names: tuple[str, ...], curvature: RowCurvature, rank: int) -> Callable[..., Any]:
    @network.jitted("own row regressions", curvature, rank, *names)
    def step(values: Params, inputs: jax.Array, number: jax.Array) -> Any:
        deltas, records = _deltas(network, values, inputs, number, curvature, rank)
        return {name: _gram(_rows(network.layers[name], records[name][0], deltas[name])) for name in names}

    return step


def _deltas(
    network: Network, params: Params, inputs: jax.Array, number: jax.Array, curvature: RowCurvature, rank: int
) -> tuple[dict[str, jax.Array], Any]:
    """δ of every layer, factors first, and what the layers were called with and returned.

    More than `rank` of them are added up with random signs to that many: E_ε Σ_r (Σ_c ε_rc s_c)(…)ᵀ / rank = F.
    """
    outputs, pull, records = pull_back(network, params, inputs)
    loss = curvature.loss
    factors = loss.curvature_factor(outputs / curvature.temperature if loss.of_classes else outputs)
    if len(factors) > rank:
        key = jax.random.fold_in(jax.random.key(0), number)
        signs = random_signs(key, (rank, *factors.shape[:2]), factors.dtype)
        factors = jnp.einsum("rcn,cnk->rnk", signs, factors) / np.sqrt(rank)
    return jax.vmap(pull)(factors), records


def _rows(layer: Layer, read: jax.Array, deltas: jax.Array) -> jax.Array:
    """x of every neuron: `[row, example and factor, input]`, the last input constant."""
    examples = deltas.shape[1]
    vectors = vectors_of(layer, read, examples)
    vectors = jnp.concatenate([vectors, jnp.ones((*vectors.shape[:3], 1), vectors.dtype)], 3)
    found = jnp.einsum("cnpgo,npgi->gocni", _by_position(layer, deltas), vectors, precision="highest")
    return found.reshape(layer.outputs, -1, layer.fan_in + 1)


def _pulled(layer: Layer, targets: jax.Array, deltas: jax.Array) -> jax.Array:
    """t of every neuron: `[row, example and factor]`."""
    deltas, targets = _by_position(layer, deltas), _by_position(layer, targets[None])
    found = jnp.einsum("cnpgo,cnpgo->gocn", deltas, targets, precision="highest")
    return found.reshape(layer.outputs, -1)


def _by_position(layer: Layer, outputs: jax.Array) -> jax.Array:
    return outputs.reshape(*outputs.shape[:2], -1, layer.groups, layer.outputs // layer.groups)


def _gram(rows: jax.Array) -> jax.Array:
    return jnp.einsum("rni,rnj->rij", rows, rows, precision="highest")
