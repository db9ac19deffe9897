"""The annealer's kernels in JAX, for accelerators: reads and problems are vectorized, not threads.

- `flip_dense`: Metropolis flips in sequence, each variable in all reads of all problems at once. An accelerator would spend its
  time on launching kernels for every flip, so sixteen are decided in one pass, by their own fields; then all hear of it.
- `flip_sparse`: chromatic updates; variables of one color share no coupling, so a whole color is updated in parallel
  from its neighbors' states, and the result is that of flipping them one after the other.
- `exchange_dense`: a kept variable, drawn uniformly, is put back in its own or any free place j, drawn from the Boltzmann
  distribution of the fields by the Gumbel-max trick, argmax_j (-β (f_j - C_ij) + Gumbel noise). That is a heat bath for
  the place of one of k labelled particles, so it leaves the Boltzmann distribution at fixed count invariant and rejects
  nothing but staying; a sweep makes as many of them as there are kept variables.

All three scan over the schedule inside one compiled call and keep the best state seen at the end of a sweep.
"""

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import scipy.sparse
from jaxtyping import Array, Bool, Float, Int
from numba import njit

from annealsubnet.solvers.compiled import Energy, Groups, scale_of

_BLOCK = 16
"""Variables whose flips are passed on to all fields together."""


def _energies(linear: Array, fields: Array, states: Array) -> Array:
    return 0.5 * jnp.sum(jnp.where(states, linear[:, None] + fields, 0.0), axis=-1)


def _keep_best(best: tuple[Array, Array], states: Array, energies: Array) -> tuple[Array, Array]:
    better = energies < best[1]
    return jnp.where(better[..., None], states, best[0]), jnp.where(better, energies, best[1])


@partial(jax.jit, static_argnames="keep_best")
def flip_dense(
    linear: Float[Array, "problems variables"],
    couplings: Float[Array, "problems variables variables"],
    states: Bool[Array, "problems reads variables"],
    betas: Float[Array, "sweeps"],
    key: Array,
    *,
    keep_best: bool,
) -> Bool[Array, "problems reads variables"]:
    """Anneal dense problems by flips; every read of every problem flips the same variables at the same time."""
    size = linear.shape[1]
    width = min(_BLOCK, size)

    def sweep(carry: Any, inputs: Any) -> Any:
        states, fields, best = carry
        beta, sweep_key = inputs
        limits = jax.random.exponential(sweep_key, (size, *states.shape[:2]))
        flip = partial(_flip_block, couplings, beta, limits)
        both = jax.lax.fori_loop(0, size // width, lambda i, both: flip(i * width, width, both), (states, fields))
        rest = size % width
        states, fields = flip(size - rest, rest, both) if rest else both
        return (states, fields, _keep_best(best, states, _energies(linear, fields, states)) if keep_best else best), None

    fields = linear[:, None] + jnp.einsum("prj,pij->pri", states.astype(linear.dtype), couplings, precision="highest")
    start = (states, fields, (states, _energies(linear, fields, states)))
    (states, _, best), _ = jax.lax.scan(sweep, start, (betas, jax.random.split(key, betas.shape[0])))
    return best[0] if keep_best else states


def _flip_block(
    couplings: Array, beta: Array, limits: Array, first: Any, width: int, both: tuple[Array, Array]
) -> tuple[Array, Array]:
    """Flip variables one after the other, and then tell all fields of it at once.

    Only the fields of these variables follow each flip; written out, so that they are compiled to one pass.
    """
    states, fields = both
    rows = jax.lax.dynamic_slice_in_dim(couplings, first, width, axis=1)
    among = jax.lax.dynamic_slice_in_dim(rows, first, width, axis=2)
    own = jnp.unstack(jax.lax.dynamic_slice_in_dim(states, first, width, axis=2), axis=2)
    costs = list(jnp.unstack(jax.lax.dynamic_slice_in_dim(fields, first, width, axis=2), axis=2))
    limits = jax.lax.dynamic_slice_in_dim(limits, first, width, axis=0)
    flips, changes = [], []
    for i in range(width):
        direction = 1.0 - 2.0 * own[i]
        accepted = beta * direction * costs[i] < limits[i]
        change = jnp.where(accepted, direction, 0.0)
        for j in range(i + 1, width):
            costs[j] = costs[j] + change * among[:, i, j, None]
        flips.append(own[i] ^ accepted)
        changes.append(change)
    states = jax.lax.dynamic_update_slice_in_dim(states, jnp.stack(flips, axis=-1), first, axis=2)
    change = jnp.stack(changes, axis=-1)
    # A sum, not a product of matrices, for which the rows would be copied first.
    return states, fields + jnp.sum(change[..., None] * rows[:, None], axis=2)


@partial(jax.jit, static_argnames="keep_best")
def exchange_dense(
    linear: Float[Array, "problems variables"],
    couplings: Float[Array, "problems variables variables"],
    states: Bool[Array, "problems reads variables"],
    betas: Float[Array, "sweeps"],
    key: Array,
    *,
    keep_best: bool,
) -> Bool[Array, "problems reads variables"]:
    """Anneal dense problems by informed exchanges; every read keeps the count of its state."""
    problems = jnp.arange(linear.shape[0])[:, None]
    moves = jnp.max(states.sum(axis=-1))

    def fields_of(states: Array) -> Array:
        kept = states.astype(linear.dtype)
        return linear[:, None] + jnp.einsum("prj,pij->pri", kept, couplings, precision="highest")

    def exchange(beta: Array, _: Array, carry: Any) -> Any:
        states, fields, key = carry
        key, out_key, in_key = jax.random.split(key, 3)
        out = jnp.argmax(jnp.where(states, jax.random.uniform(out_key, states.shape), -1.0), axis=-1)
        rows = jnp.arange(states.shape[1])[None]
        without = fields - couplings[problems, out]
        free = ~states.at[problems, rows, out].set(False)
        # Relative to the place it left, so that a descent (β = inf) has neither inf - inf nor a tie with noise.
        changes = without - without[problems, rows, out][..., None]
        score = jnp.where(free, -beta * changes + jax.random.gumbel(in_key, states.shape), -jnp.inf)
        into = jnp.argmax(score, axis=-1)
        any_kept = states.any(axis=-1)
        moved = states.at[problems, rows, out].set(False).at[problems, rows, into].set(True)
        states = jnp.where(any_kept[..., None], moved, states)
        fields = jnp.where(any_kept[..., None], without + couplings[problems, into], fields)
        return states, fields, key

    def sweep(carry: Any, inputs: Any) -> Any:
        states, best = carry
        beta, sweep_key = inputs
        start = (states, fields_of(states), sweep_key)
        states, fields, _ = jax.lax.fori_loop(0, moves, partial(exchange, beta), start)
        return (states, _keep_best(best, states, _energies(linear, fields, states)) if keep_best else best), None

    best = (states, _energies(linear, fields_of(states), states))
    (states, best), _ = jax.lax.scan(sweep, (states, best), (betas, jax.random.split(key, betas.shape[0])))
    return best[0] if keep_best else states


@partial(jax.jit, static_argnames="keep_best")
def flip_sparse(
    linear: Float[Array, "padded"],
    neighbors: Int[Array, "padded degree"],
    values: Float[Array, "padded degree"],
    colors: Int[Array, "colors members"],
    states: Bool[Array, "padded reads"],
    betas: Float[Array, "sweeps"],
    key: Array,
    *,
    keep_best: bool,
) -> Bool[Array, "padded reads"]:
    """Anneal a sparse problem by chromatic flips; the last variable is padding, coupled to nothing."""

    def fields_of(members: Array, states: Array) -> Array:
        kept = states[neighbors[members]].astype(linear.dtype)
        return linear[members, None] + jnp.einsum("mdr,md->mr", kept, values[members], precision="highest")

    def energies_of(states: Array) -> Array:
        fields = fields_of(jnp.arange(linear.shape[0]), states)
        return 0.5 * jnp.sum(jnp.where(states, fields + linear[:, None], 0.0), axis=0)

    def sweep(carry: Any, inputs: Any) -> Any:
        states, best = carry
        beta, sweep_key = inputs

        def update(states: Array, inputs: Any) -> Any:
            members, color_key = inputs
            own = states[members]
            limits = jax.random.exponential(color_key, own.shape)
            accepted = beta * (1.0 - 2.0 * own) * fields_of(members, states) < limits
            return states.at[members].set(own ^ accepted), None

        states, _ = jax.lax.scan(update, states, (colors, jax.random.split(sweep_key, colors.shape[0])))
        if keep_best:
            energies = energies_of(states)
            better = energies < best[1]
            best = jnp.where(better, states, best[0]), jnp.where(better, energies, best[1])
        return (states, best), None

    best = (states, energies_of(states))
    (states, best), _ = jax.lax.scan(sweep, (states, best), (betas, jax.random.split(key, betas.shape[0])))
    return best[0] if keep_best else states


def color_classes(couplings: scipy.sparse.csr_array) -> Int[np.ndarray, "colors members"]:
    """Greedy coloring, most coupled variables first: rows of variables that share no coupling, filled up with `size`."""
    size = couplings.shape[0]
    degrees = np.diff(couplings.indptr)
    colors = _greedy_colors(couplings.indptr, couplings.indices, np.argsort(-degrees, kind="stable"))
    counts = np.bincount(colors, minlength=1)
    classes = np.full((counts.size, max(int(counts.max(initial=0)), 1)), size, np.int32)
    by_color = np.argsort(colors, kind="stable")
    places = np.arange(size) - np.repeat(np.cumsum(counts) - counts, counts)
    classes[colors[by_color], places] = by_color
    return classes


@njit(cache=True)
def _greedy_colors(starts, columns, order):  # type: ignore[no-untyped-def]
    colors = np.full(order.size, -1, np.int64)
    seen_by = np.full(order.size + 1, -1, np.int64)
    for variable in order:
        for entry in range(starts[variable], starts[variable + 1]):
            if colors[columns[entry]] >= 0:
                seen_by[colors[columns[entry]]] = variable
        color = 0
        while seen_by[color] == variable:
            color += 1
        colors[variable] = color
    return colors


def padded_neighbors(couplings: scipy.sparse.csr_array, scale: float) -> tuple[np.ndarray, np.ndarray]:
    """Neighbors and couplings of each variable in rows of equal length; one more row, of padding."""
    size = couplings.shape[0]
    degrees = np.diff(couplings.indptr)
    neighbors = np.full((size + 1, max(int(degrees.max(initial=0)), 1)), size, np.int32)
    values = np.zeros(neighbors.shape, np.float32)
    rows = np.repeat(np.arange(size), degrees)
    places = np.arange(couplings.nnz) - np.repeat(couplings.indptr[:-1], degrees)
    neighbors[rows, places] = couplings.indices
    values[rows, places] = couplings.data / scale
    return neighbors, values


def anneal_on_device(
    energy: Energy, groups: Groups, states: np.ndarray, betas: np.ndarray, seed: int, *, keep_best: bool
) -> np.ndarray:
    """Anneal one problem in JAX from the given states (0 or 1, one row a read); returns states of the same form.

    Raises:
        ValueError: for groups other than one of all variables, which only the CPU's kernels exchange.
    """
    exchanged = groups.counts.size > 0
    if exchanged and not (groups.counts.size == 1 and (groups.member == 0).all()):
        raise ValueError('groups need backend="numba"; the JAX kernels exchange only among all variables (num_kept).')
    sparse = scipy.sparse.issparse(energy.couplings)
    scale = scale_of(energy.linear, energy.couplings.data if sparse else energy.couplings)
    linear = (energy.linear / scale).astype(np.float32)
    # A finite stand-in for temperature zero: larger products than float32 holds would be inf * 0.
    schedule = np.minimum(betas * scale, 1e30).astype(np.float32)
    key = jax.random.key(seed)
    if sparse and not exchanged:
        neighbors, values = padded_neighbors(energy.couplings, scale)
        start = np.zeros((energy.size + 1, len(states)), np.bool_)
        start[:-1] = states.T != 0
        padded = np.append(linear, np.float32(1.0))
        colors = color_classes(energy.couplings)
        found = flip_sparse(padded, neighbors, values, colors, start, schedule, key, keep_best=keep_best)
        return np.asarray(found)[:-1].T.astype(np.int8)
    dense = energy.couplings.toarray() if sparse else energy.couplings
    kernel = exchange_dense if exchanged else flip_dense
    matrix = (dense / scale).astype(np.float32)[None]
    found = kernel(linear[None], matrix, states[None] != 0, schedule, key, keep_best=keep_best)
    return np.asarray(found)[0].astype(np.int8)
