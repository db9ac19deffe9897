"""Stochastic fit: all that is left of a network at once, to the dense network's own outputs, a small batch at a time.

Levenberg-Marquardt (`annealsubnet.fitting`) passes through all examples some hundred times. Where a pass is costly, more
examples passed once serve better: Adam on the divergence of outputs softened by a temperature T,

    min_θ  T² E KL(softmax(f_0 / T) ‖ softmax(f_θ / T)),

over the kept weights, the biases, and scales and biases of normalizations (θ). To second order around the dense network's
outputs f_0 that is ½ (f_θ − f_0)ᵀ F (f_θ − f_0) with F the Hessian of cross-entropy at outputs f_0 / T, the distance that the
other fit minimizes; a temperature above 1 also holds what the dense network is sure of. No labels are read. For a loss whose
outputs are not classes it is that distance itself, ½ E‖F^½ (f_θ − f_0)‖², without a temperature.

Large steps lead away from the dense outputs where these are near already, and small ones never arrive from afar. So some
examples are held out, and of several learning rates the one whose fit ends nearest on those serves: first the middle one, then
larger ones while these end nearer, else smaller ones. A fit counts only if it ends nearer than it began. (Trials of a fifth of
the steps choose too small a rate: what is coarse early is near in the end. And the choice takes a thousand examples: on 200
of them it was wrong where the ends differ by a tenth.)

References:
    Hinton, Vinyals, Dean, *Distilling the knowledge in a neural network*, 2015, section 2.
    Kingma, Ba, *Adam: a method for stochastic optimization*, ICLR 2015, algorithm 1.
"""

import itertools
import logging
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from annealsubnet.arguments import check_whole
from annealsubnet.batches import stream
from annealsubnet.fitting import Fit, apply_rounded, narrowed, widened
from annealsubnet.losses import Loss, cross_entropy
from annealsubnet.masks import Mask
from annealsubnet.networks import Network, Params
from annealsubnet.statistics.streams import as_wide
from annealsubnet.statistics.weight_distance import squared_distances

logger = logging.getLogger(__name__)


TEMPERATURE = 4.0
"""T, unless another is given."""
_EVERY, _MOST = 10, 1_000
"""One example in so many is held out, and so many at most."""
_WARM = 10
"""The rate rises for one step in so many: Adam's first steps, each weight by the whole rate, lead away from where it starts."""
_RATES = (1e-4, 3e-4, 1e-3, 3e-3)
"""Learning rates that are tried."""
_ADAM = optax.scale_by_adam()
_NEAR = 0.1
"""Log-probabilities that are less apart have a term of the divergence by its series: off by d⁴/360 of it; beyond, d − 1 + e⁻ᵈ
keeps five digits in float32."""


def divergence(outputs: jax.Array | np.ndarray, target: jax.Array | np.ndarray, temperature: float = TEMPERATURE) -> jax.Array:
    """T² E KL(softmax(target / T) ‖ softmax(outputs / T)) of `[examples, classes]`, never negative.

    Between near outputs the terms p (log p − log q) have both signs, and in float32 their sum may fall below zero. As p and q
    sum to one, KL is also Σ p d + q − p = Σ p (d − 1 + e⁻ᵈ) with d = log p − log q, where no term is negative: for small d it
    is p (d²/2 − d³/6 + …), which loses no digits.
    """
    wanted, found = (jax.nn.log_softmax(as_wide(jnp.asarray(each)) / temperature) for each in (target, outputs))
    share, apart = jnp.exp(wanted), wanted - found
    near = jnp.clip(apart, -_NEAR, _NEAR)
    series = near**2 * (1 / 2 - near * (1 / 6 - near * (1 / 24 - near / 120)))
    terms = jnp.where(jnp.abs(apart) < _NEAR, share * series, share * apart + jnp.exp(found) - share)
    return temperature**2 * terms.sum(1).mean()


def output_distance(
    outputs: jax.Array | np.ndarray, target: jax.Array | np.ndarray, loss: Loss, temperature: float = TEMPERATURE
) -> jax.Array:
    """How far outputs `[examples, outputs]` are from others: the divergence for losses of classes, else ½ E‖F^½ (f − f_0)‖²."""
    if loss.of_classes:
        return divergence(outputs, target, temperature)
    return squared_distances(jnp.asarray(outputs), jnp.asarray(target), loss).mean()


def fit_by_batches(
    network: Network,
    mask: Mask,
    batches: Iterable[Any],
    *,
    params: Params,
    seed: int,
    examples: int,
    target_params: Params | None = None,
    batch_size: int = 32,
    learning_rate: float | Sequence[float] = _RATES,
    temperature: float = TEMPERATURE,
    loss: Loss = cross_entropy,
) -> Fit:
    """Adam on the distance from the dense network; its rate rises for a tenth of the steps, then falls to zero by a cosine.

    Args:
        network: traced, with outputs `[batch, classes]`.
        mask: what is kept; its zeros stay zeros.
        batches: inputs or (inputs, labels); labels are not read. They are held in memory and drawn without replacement, again
            and again.
        params: where to start.
        seed: of the drawing.
        examples: how many gradients of single examples are taken, with each rate that is tried; those that fill no batch are
            not.
        target_params: of the dense network; the network's own by default.
        batch_size: of them in a step.
        learning_rate: of Adam at its height; of several the one that ends nearest, as above.
        temperature: T.
        loss: whose distance is lowered: the divergence for losses of classes.

    Returns:
        Fit: its values are the distance on the held-out examples; if it did not fall, where it started.

    Raises:
        ValueError: for bad batches, a mask for another model, or numbers that are not positive.
    """
    seed = check_whole("seed", seed)
    rates = tuple(sorted(np.ravel(learning_rate).tolist()))
    if not rates or min(examples, batch_size) < 1 or min(*rates, temperature) <= 0:
        raise ValueError(
            f"examples is {examples}, batch_size {batch_size}, learning_rate {learning_rate} and temperature {temperature}; "
            "all must be positive."
        )
    dense = network.params if target_params is None else target_params
    inputs = np.concatenate([batch for batch, _ in stream(batches)])
    held, inputs = _held_out(inputs)
    size = min(batch_size, len(inputs))
    steps = max(1, examples // size)
    order = _drawn(len(inputs), steps * size, seed).reshape(steps, size)
    used = np.unique(order)
    targets = _outputs(network, dense, inputs, used, size=size)
    wanted = _outputs(network, dense, held, np.arange(len(held)), size=size)
    step = _step_of(network, loss, temperature)
    first: Any = widened(mask.multiply(params))
    keeps = {path: jnp.asarray(keep, first[path].dtype) for path, keep in mask.keeps().items()}

    def measure(now: Params) -> float:
        found = _outputs(network, now, held, np.arange(len(held)), size=size)
        return float(output_distance(found, wanted, loss, temperature))

    def walk(rate: float) -> tuple[Any, float]:
        now, state = first, _ADAM.init(first)
        for drawn, share in zip(order, _schedule(steps), strict=True):
            now, state = step(now, state, keeps, inputs[drawn], targets[drawn], np.float32(rate * share))
        return now, measure(now)

    start = measure(first)
    end, rate, found, tried = _nearest(walk, rates)
    logger.info(
        "fit by batches: rate %g of %d, held-out distance %.4g to %.4g, %d steps of %d examples",
        rate, tried, start, end, steps, size,
    )  # fmt: skip
    passed = len(used) + order.size * tried + len(held) * (2 + tried)
    nearer = (found, end) if end < start else (first, start)
    return Fit(narrowed(nearer[0], params), nearer[1], start, passed)


def _drawn(size: int, count: int, seed: int) -> np.ndarray:
    """`count` of `size` examples, none again before all have been drawn."""
    rng = np.random.default_rng(seed % 2**63)
    return np.concatenate([rng.permutation(size) for _ in range(-(-count // size))])[:count]


def _schedule(steps: int) -> np.ndarray:
    """Shares of the learning rate: up along a line for the first tenth of the steps, then down to zero by a cosine."""
    warm = steps // _WARM
    rising = np.arange(1, warm + 1) / (warm + 1)
    return np.concatenate([rising, (1 + np.cos(np.pi * np.arange(steps - warm) / (steps - warm))) / 2])


def _nearest(walk: Callable[[float], tuple[Any, float]], rates: tuple[float, ...]) -> tuple[float, float, Any, int]:
    """Where the best of the walks ends, its rate and parameters, and how many were made: from the middle rate up, else down."""
    nearest: tuple[float, float, Any] = (np.inf, rates[0], None)
    tried = 0

    def ends_nearer(rate: float) -> bool:
        nonlocal nearest, tried
        found, end = walk(rate)
        tried += 1
        if not end < nearest[0]:
            return False
        nearest = (end, rate, found)
        return True

    middle = len(rates) // 2
    ends_nearer(rates[middle])
    for side in (rates[middle + 1 :], rates[:middle][::-1]):
        if list(itertools.takewhile(ends_nearer, side)):
            break
    return *nearest, tried


def _held_out(inputs: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Inputs to measure on, and inputs to fit to; the same ones where there are few."""
    held = np.arange(len(inputs)) % _EVERY == _EVERY - 1
    held &= np.cumsum(held) <= _MOST
    return (inputs[held], inputs[~held]) if held.sum() >= _EVERY else (inputs[-_MOST:], inputs)


def _outputs(network: Network, params: Params, inputs: np.ndarray, used: np.ndarray, *, size: int) -> np.ndarray:
    """Outputs for the inputs that are used, in batches of one size; the others' are zero."""
    apply = network.jitted("outputs")(lambda values, images: apply_rounded(network, values, images))
    places = np.resize(used, (-(-len(used) // size), size))
    found = np.stack([np.asarray(apply(params, inputs[chosen])) for chosen in places])
    outputs = np.zeros((len(inputs), *found.shape[2:]), found.dtype)
    outputs[places] = found
    return outputs


def _step_of(network: Network, loss: Loss, temperature: float) -> Callable[..., Any]:
    """One step of Adam: parameters and state."""

    @network.jitted("fit by batches", loss, temperature)
    def step(now: Params, state: Any, keeps: Params, images: jax.Array, target: jax.Array, rate: jax.Array) -> Any:
        def moved(values: Params) -> jax.Array:
            return output_distance(apply_rounded(network, values, images), target, loss, temperature)

        def kept(tree: Params) -> Params:
            return {path: value * keeps[path] if path in keeps else value for path, value in tree.items()}

        directions, state = _ADAM.update(kept(jax.grad(moved)(dict(now))), state, dict(now))
        after = {path: value - (rate * directions[path]).astype(value.dtype) for path, value in now.items()}
        return kept(after), state

    return step
