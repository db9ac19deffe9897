"""Rows of weights: how the outputs of a network move with every one of its weights, as a matrix with few rows.

With J_n the Jacobian of the outputs by all kernels at the present weights w_t, f_t the present outputs, f_0 the dense network's
and F_n = Σ_c s_nc s_ncᵀ the Hessian of the loss in them, the distance to the dense network is, to second order,

    D(w) = ½ E‖F_n^½ [J_n (w − w_t) + f_t − f_0]‖² = ½ ‖A (w − w_t) + r‖²

with a row s_ncᵀ J_n / √N for every example and factor. It needs no labels, and at the dense network its gradient is zero by
construction. Fewer rows serve as well: each then stands for some consecutive examples, whose rows are added with random signs
ε,

    A_k = Σ_{n in k, c} ε_nc s_ncᵀ J_n / √N,        E[AᵀA] = E_n[J_nᵀ F_n J_n],

so that one pass back for an example is enough, whatever its number of classes. `gradient_rows` gives the empirical Fisher
information of the labeled loss in the same form.

A layer multiplies vectors a by its kernel and receives cotangents δ, so a row of its kernel is Σ a δᵀ over the row's examples
and positions; no gradient of a single example is ever asked of automatic differentiation.

References:
    Yu, Serra, Ramalingam, Zhe, *The Combinatorial Brain Surgeon*, ICML 2022, section 4 (G of gradients as the model's factor).
    Benbaki et al., *Fast as CHITA*, ICML 2023, equation 4 (the regression on gradient rows).
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float

from annealsubnet.arguments import check_whole
from annealsubnet.batches import stream
from annealsubnet.losses import Loss, cross_entropy
from annealsubnet.networks import Layer, Network, Params
from annealsubnet.statistics.gradients import pull_back
from annealsubnet.statistics.passes import backward_chunk, labeled_for
from annealsubnet.statistics.signs import random_signs
from annealsubnet.statistics.streams import check_statistics, chunks

Chosen = Mapping[str, np.ndarray]
"""For each layer flat indices into its kernel, in the kernel's own shape."""


@dataclass(frozen=True)
class WeightRows:
    """The distance, or the loss, as a quadratic form in weights: ½ ‖matrix · (w − w_t) + residual‖².

    Attributes:
        places: where the weights of each layer stand among the columns, in the order of the kernel raveled (or of `chosen`).
        matrix: `[rows, weights]`, float32; divided by the root of the number of examples.
        residual: `[rows]`, likewise; 0 at the dense network.
        count: how many examples went in.
    """

    places: Mapping[str, slice]
    matrix: Float[np.ndarray, "rows weights"]
    residual: Float[np.ndarray, "rows"]
    count: int

    def __repr__(self) -> str:
        rows, weights = self.matrix.shape
        return f"WeightRows({rows:,} rows of {weights:,} weights in {len(self.places)} layers, {self.count:,} examples)"


def distance_rows(
    network: Network,
    batches: Iterable[Any],
    *,
    rows: int,
    seed: int,
    params: Params | None = None,
    target_params: Params | None = None,
    layers: Iterable[str] | None = None,
    chosen: Chosen | None = None,
    count: int | None = None,
    loss: Loss = cross_entropy,
) -> WeightRows:
    """The distance to the dense network around present weights, in one pass with one backward pass an example and draw of
    signs.

    Args:
        network: traced.
        batches: inputs or (inputs, labels); labels are not read.
        rows: about how many: rounded so that every example (or factor, if there is a row for each) is in equally many.
        seed: of the signs.
        params: w_t; the network's own by default.
        target_params: of the dense network; the network's own by default.
        layers: whose weights; all by default.
        chosen: only these weights of them.
        count: of examples, where it is known; else the batches are iterated once more to count them.
        loss: whose Hessian F measures outputs.

    Raises:
        ValueError: for bad batches, fewer rows than one, or rows that are not finite.
        TypeError: for rows or a seed that are no whole numbers.

    Example:
        >>> from annealsubnet.networks import as_network, from_function
        >>> from annealsubnet.losses import squared_error
        >>> model = from_function(lambda params, x, tap: tap.dense("out", x), {"out": {"kernel": jnp.eye(2)}})
        >>> inputs = np.array([[2.0, 0.0]], np.float32)
        >>> found = distance_rows(as_network(model, inputs), [inputs], rows=2, seed=0, loss=squared_error)
        >>> found.matrix.T @ found.matrix
        array([[4., 0., 0., 0.],
               [0., 4., 0., 0.],
               [0., 0., 0., 0.],
               [0., 0., 0., 0.]], dtype=float32)
    """
    rows, seed = check_whole("rows", rows, 1), check_whole("seed", seed)
    params = network.params if params is None else params
    dense = network.params if target_params is None else target_params
    names = _named(network, layers, chosen)
    key = jax.random.key(seed % 2**32)
    count = sum(len(inputs) for inputs, _ in stream(batches)) if count is None else count
    rank = _rank(network, loss)
    per_row, copies = _grouping(count, rows, rank)

    @network.jitted("distance rows", *names, loss, per_row, copies, chosen is None)
    def step(now: Params, then: Params, places: Any, number: jax.Array, key: jax.Array, inputs: jax.Array) -> Any:
        outputs, pull, records = pull_back(network, now, inputs)
        target = network.apply(then, inputs)

        def once(combination: jax.Array) -> Any:
            deltas = pull(combination)
            moved = jnp.sum(combination * (outputs - target), axis=1)
            parts = [
                _rows(network.layers[name], records[name][0], deltas[name], places.get(name), len(inputs), per_row)
                for name in names
            ]
            return jnp.concatenate(parts, axis=1), moved.reshape(-1, per_row).sum(1)

        if copies >= rank:  # a row for every factor: no signs
            matrix, residual = jax.lax.map(once, loss.curvature_factor(target).astype(outputs.dtype))
        else:
            along, back = jax.vjp(loss.products_at(target), outputs)
            signs = random_signs(jax.random.fold_in(key, number), (copies, *along.shape), along.dtype)
            matrix, residual = jax.lax.map(lambda drawn: once(*back(drawn)), signs)
        return matrix.reshape(-1, matrix.shape[-1]), residual.ravel()

    rows_an_example = rank if copies >= rank else 1
    pairs = chunks(stream(batches), _chunk(network, per_row, loss))
    indices = {} if chosen is None else {name: jnp.asarray(chosen[name]) for name in names}
    found = [
        step(params, dense, indices, np.uint32(number), key, inputs)
        for number, inputs in _whole_rows(((inputs,) for inputs, _ in pairs), per_row)
    ]
    used = sum(len(residual) for _, residual in found) * per_row
    return _joined(network, names, chosen, found, np.sqrt(used / rows_an_example), count)


def gradient_rows(
    network: Network,
    batches: Iterable[Any],
    *,
    rows: int,
    params: Params | None = None,
    layers: Iterable[str] | None = None,
    chosen: Chosen | None = None,
    loss: Loss = cross_entropy,
) -> WeightRows:
    """Gradients of the labeled loss, each averaged over some consecutive examples: the factor that CBS and CHITA use.

    Args:
        network, params, layers, chosen, loss: as in `distance_rows`.
        batches: (inputs, labels), which are held in memory.
        rows: about how many: examples are divided evenly among them.

    Returns:
        Rows divided by the root of their number, so that matrixᵀ matrix is the mean of g gᵀ over the groups; residuals are 0.

    Raises:
        ValueError: for bad batches or missing labels, fewer rows than one, or rows that are not finite.
        TypeError: for rows that are no whole number.
    """
    rows = check_whole("rows", rows, 1)
    params = network.params if params is None else params
    names = _named(network, layers, chosen)
    held = list(labeled_for(network, batches, loss))
    count = sum(len(labels) for _, labels in held)
    per_row = max(1, round(count / rows))

    @network.jitted("gradient rows", *names, loss, per_row, chosen is None)
    def step(values: Params, places: Any, inputs: jax.Array, labels: jax.Array) -> Any:
        outputs, pull, records = pull_back(network, values, inputs)
        deltas = pull(jax.grad(lambda logits: loss.value(logits, labels).sum())(outputs))
        parts = [
            _rows(network.layers[name], records[name][0], deltas[name], places.get(name), len(inputs), per_row)
            for name in names
        ]
        matrix = jnp.concatenate(parts, axis=1)
        return matrix, jnp.zeros(len(matrix), matrix.dtype)

    pairs = chunks(held, _chunk(network, per_row))
    indices = {} if chosen is None else {name: jnp.asarray(chosen[name]) for name in names}
    found = [step(params, indices, *arrays) for _, arrays in _whole_rows(pairs, per_row, several=True)]
    groups = sum(len(residual) for _, residual in found)
    return _joined(network, names, chosen, found, per_row * np.sqrt(groups), count)


def _named(network: Network, layers: Iterable[str] | None, chosen: Chosen | None) -> list[str]:
    names = set(network.layers if layers is None else layers)
    return [name for name in network.layers if name in (names if chosen is None else names & set(chosen))]


def _rank(network: Network, loss: Loss) -> int:
    """How many factors the loss's curvature has."""
    one = jax.ShapeDtypeStruct((1, *network.example.shape[1:]), network.example.dtype)
    outputs = jax.eval_shape(network.apply, network.params, one)
    return int(jax.eval_shape(lambda outputs: loss.products_at(outputs)(outputs), outputs).shape[0])


def _grouping(count: int, rows: int, rank: int) -> tuple[int, int]:
    """Examples in a row, and draws of signs for an example (as many as factors: a row for each factor, without signs)."""
    if rows >= count:
        return 1, min(max(1, round(rows / count)), rank)
    return max(1, round(count / rows)), 1


def _chunk(network: Network, per_row: int, loss: Loss | None = None) -> int:
    """Examples at a time: whole rows."""
    weights = sum(int(np.prod(layer.shape)) for layer in network.layers.values())
    held = max(1, 2**24 // weights) * per_row
    return max(1, min(backward_chunk(network, loss=loss), held) // per_row) * per_row


def _whole_rows(arrays: Iterable[tuple[Any, ...]], per_row: int, *, several: bool = False) -> Iterable[tuple[int, Any]]:
    """Each chunk with its number; the few examples that fill no row are left out."""
    for number, chunk in enumerate(arrays):
        whole = len(chunk[0]) - len(chunk[0]) % per_row
        if whole:
            parts = tuple(part[:whole] for part in chunk)
            yield number, parts if several else parts[0]


def _rows(layer: Layer, inputs: jax.Array, deltas: jax.Array, chosen: Any, examples: int, per_row: int) -> jax.Array:
    """Rows of one layer's kernel, `[rows, weights]`: Σ a δᵀ over each row's examples and positions."""
    if inputs.shape[0] != examples:
        raise ValueError(
            f"Layer {layer.name!r} is called with {inputs.shape} for {examples} examples; rows of weights need the examples "
            "along the first axis."
        )
    groups, outputs = layer.groups, layer.outputs // layer.groups
    vectors = layer.patches(inputs).reshape(examples // per_row, -1, groups, layer.fan_in)
    slopes = deltas.reshape(*vectors.shape[:3], outputs)
    if chosen is not None and vectors.shape[1] == 1:
        # kernel [fan_in, groups · outputs], raveled
        place, output = jnp.divmod(chosen, layer.outputs)
        return vectors[:, 0, output // outputs, place] * slopes[:, 0].reshape(len(slopes), -1)[:, output]
    full = jnp.einsum("kpgi,kpgo->kigo", vectors, slopes, precision="highest").reshape(len(vectors), -1)
    return full if chosen is None else full[:, chosen]


def _joined(
    network: Network, names: list[str], chosen: Chosen | None, found: list[Any], scale: float, count: int
) -> WeightRows:
    if not found:
        raise ValueError(f"{count} examples do not fill a single row; ask for more rows.")
    matrix = np.concatenate([np.asarray(part) for part, _ in found])
    residual = np.concatenate([np.asarray(part, np.float64) for _, part in found])
    matrix *= np.float32(1 / scale)
    sizes = [int(np.prod(network.layers[name].shape)) if chosen is None else len(chosen[name]) for name in names]
    ends = np.cumsum(sizes).tolist()
    places = {name: slice(end - size, end) for name, size, end in zip(names, sizes, ends, strict=True)}
    for name, place in places.items():
        check_statistics(name, matrix[:, place])
    return WeightRows(places, matrix, residual / scale, count)
