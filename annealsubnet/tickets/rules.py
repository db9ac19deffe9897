"""Rules: how scores turn evidence into masks. Every search for a ticket is one of these, in the same loop.

Annealed (ours) is mean-field annealing of an energy that is learned while it cools. Each unit has a score s_i, the evidence
collected in its favor, and the masks have a Boltzmann distribution, of which a round takes the mean p:

    E(x) = −Σ_i (s_i − μ) x_i,      P(x) ∝ exp(−E(x) / T_t),      p_i = σ((s_i − μ) / T_t),      s ← s − η_t ĝ / σ

g is the gradient of the loss at the gates p, ĝ its running mean and σ² one of its mean square over the *layer*: scores stay
comparable evidence within a layer, while Adam's own scale for every unit lets inputs that hardly vary vote like the others. μ
is the price of a kept unit, at which the expected count is the one asked for. s / T are the natural parameters of P, p its mean
parameters, so a step along ∂L/∂p is a natural-gradient step for the expected loss, evaluated at the mean. Both η_t and T_t fall
to zero over the rounds; units become certain one after the other, and the last state is a mask.

Sampled takes a mask drawn from P instead of its mean, and may have couplings of units within a neuron in its energy,

    E(x) = −Σ_i (s_i − μ) x_i + ½ γ η_t (x − m)ᵀ G (x − m)

with G block-diagonal over neurons (`blocks`) and m the mask before. At γ = 0 P is a product and sampled exactly (`thermal`).

Latent scores, edge-popup and supermasks are here too, so that all are run by the same loop on the same examples.

References:
    M. Courbariaux and others, BinaryNet, 2016 (latent scores with a straight-through gradient).
    V. Ramanujan and others, What's Hidden in a Randomly Weighted Neural Network?, CVPR 2020, equations 2 to 4 (edge-popup).
    C. Peterson, J. R. Anderson, A Mean Field Theory Learning Algorithm for Neural Networks, Complex Systems 1, 1987 (mean-field
    annealing).
    X. Meng, R. Bachmann, M. E. Khan, Training Binary Neural Networks using the Bayesian Learning Rule, ICML 2020 (steps in
    natural parameters).
    H. Zhou and others, Deconstructing Lottery Tickets, NeurIPS 2019, section 5 (supermasks).
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from math import prod
from typing import Any

import jax
import jax.numpy as jnp

from annealsubnet.tickets.thermal import drawn, expected

State = dict[str, Any]
"""A tree of arrays: "scores", "mask", "price" and what else the rule keeps, each by site."""

_MEAN, _SQUARE, _TINY = 0.9, 0.999, 1e-12
PRICE_EVERY = 10
"""Rounds between two prices; at temperature zero, where a price costs a fifth, every round has its own."""


@dataclass(frozen=True)
class Clock:
    """What time it is in a search.

    Attributes:
        number: of the round, from 1.
        step: η, how far a score moves at most (about).
        temperature: in units of the scores.
        more: times as many units as asked for stay in this round.
    """

    number: Any
    step: Any
    temperature: Any
    more: Any = 1.0


jax.tree_util.register_dataclass(Clock, data_fields=["number", "step", "temperature", "more"], meta_fields=[])


@dataclass(frozen=True)
class Rule:
    """One way to search.

    Attributes:
        name: for tables.
        step: η at the start.
        temperature: T at the start, in units of `step`.
        cooling: T falls as (1 − share of the rounds) to this power.
        begin: `(key, shapes) -> scores`.
        update: `(state, gradient, clock) -> state` with new scores.
        draw: `(state, clock, key) -> mask`.
        rank: from scores to what the ground state keeps the largest of.
        couples: whether masks are drawn from the Boltzmann distribution of scores − price, which couplings change.
        counted: whether the masks of rounds keep the count that is asked for.

    Its functions are the module's own, or frozen dataclasses: rules made alike are equal, and what is compiled for one
    serves the other.
    """

    name: str
    step: float
    temperature: float
    cooling: float
    begin: Callable[[jax.Array, Mapping[str, tuple[int, ...]]], dict[str, jax.Array]]
    update: Callable[[State, Mapping[str, jax.Array], Clock], State]
    draw: Callable[[State, Clock, jax.Array], dict[str, jax.Array]]
    rank: Callable[[jax.Array], jax.Array] = jnp.asarray
    couples: bool = False
    counted: bool = True

    def __post_init__(self) -> None:
        if not (0 < self.step < jnp.inf and 0 <= self.temperature < jnp.inf):
            raise ValueError(
                f"step is above 0 and temperature at least 0, both finite; they are {self.step} and {self.temperature}."
            )

    def __repr__(self) -> str:
        return f"Rule({self.name!r}, step={self.step:g}, temperature={self.temperature:g})"


def annealed(*, step: float = 0.0005, temperature: float = 12.0) -> Rule:
    """Mean-field annealing: scores with one scale a layer, gates at the mean of the Boltzmann distribution.

    Args:
        step: η at the start; scores start within ±0.01.
        temperature: at the start, in units of `step`; it falls by a square, as the step does.
    """
    return Rule("annealed", step, temperature, 2.0, _small, _by_layer, _mean_field)


def sampled(*, step: float = 0.0005, temperature: float = 1.0) -> Rule:
    """The same scores, with masks drawn from the Boltzmann distribution; the rule that couplings go with.

    Args:
        step: η at the start; scores start within ±0.01.
        temperature: at the start, in units of `step`, falling linearly; 0 takes the ground state in every round.
    """
    draw = _boltzmann if temperature else _ground
    return Rule("sampled", step, temperature, 1.0, _small, _by_layer, draw, couples=True)


def latent_scores(*, step: float = 0.0005) -> Rule:
    """Straight-through Adam on latent scores, clipped to about [−1, 1]; the mask is the ground state.

    Args:
        step: Adam's learning rate at the start.
    """
    return Rule("latent scores", step, 0.0, 1.0, _small, _adam, _ground, couples=True)


def edge_popup(*, step: float = 0.4, momentum: float = 0.9, decay: float = 1e-4) -> Rule:
    """Edge-popup: SGD with momentum on scores whose largest absolute values are kept.

    Args:
        step: learning rate at the start; half a cosine to zero, as in the paper.
        momentum: of SGD.
        decay: weight decay of the scores.

    Raises:
        ValueError: for a momentum outside [0, 1), or a decay that is negative or not finite.
    """
    return Rule("edge-popup", step, 0.0, 1.0, _kaiming_uniform, _Momentum(momentum, decay), _largest_absolute, jnp.abs)


def supermask(*, step: float = 0.3) -> Rule:
    """Supermasks: Bernoulli masks with probabilities σ(s), a gradient through the sigmoid, Adam on s.

    The expected count is left free, as in the paper, and starts at a half; the answer has the count asked for. (Adam,
    for in short searches it gets farther than the paper's SGD.)

    Args:
        step: Adam's learning rate at the start.
    """
    return Rule("supermask", step, 0.0, 1.0, _small, _adam_through_sigmoid, _bernoulli, counted=False)


def _adam(state: State, gradient: Mapping[str, jax.Array], clock: Clock, *, limit: Any = 1.0) -> State:
    """Adam on the scores, clipped."""
    scores, mean, square = {}, {}, {}
    for name, old in state["scores"].items():
        slope = gradient[name]
        mean[name] = _MEAN * state["mean"][name] + (1 - _MEAN) * slope
        square[name] = _SQUARE * state["square"][name] + (1 - _SQUARE) * slope**2
        size = jnp.sqrt(square[name] / (1 - _SQUARE**clock.number)) + _TINY
        change = clock.step * mean[name] / (1 - _MEAN**clock.number) / size
        most = limit * _just_below_one(old.shape)
        scores[name] = jnp.clip(old - change, -most, most)
    return {**state, "scores": scores, "mean": mean, "square": square}


def _just_below_one(shape: tuple[int, ...]) -> jax.Array:
    """Numbers from .999 to 1, spread over the units: clipped to one number, all would be kept or none, whatever the count."""
    places = jnp.arange(prod(shape), dtype=jnp.uint32).reshape(shape) * jnp.uint32(0x9E3779B1)
    return 1 - 0.001 * 2.0**-32 * places.astype(jnp.float32)


def _adam_through_sigmoid(state: State, gradient: Mapping[str, jax.Array], clock: Clock) -> State:
    """Adam on the scores s of gates σ(s)."""
    through = {name: gradient[name] * jax.nn.sigmoid(s) * jax.nn.sigmoid(-s) for name, s in state["scores"].items()}
    return _adam(state, through, clock, limit=jnp.inf)


@dataclass(frozen=True)
class _Momentum:
    """SGD with momentum and weight decay on scores whose absolute values count."""

    momentum: float
    decay: float

    def __post_init__(self) -> None:
        if not (0 <= self.momentum < 1 and 0 <= self.decay < jnp.inf):
            raise ValueError(f"momentum is in [0, 1) and decay at least 0, finite; they are {self.momentum} and {self.decay}.")

    def __call__(self, state: State, gradient: Mapping[str, jax.Array], clock: Clock) -> State:
        scores, speed = {}, {}
        for name, old in state["scores"].items():
            # The straight-through gradient is that of the gate; the absolute value passes it on with the score's sign.
            slope = gradient[name] * jnp.sign(old) + self.decay * old
            speed[name] = self.momentum * state["mean"][name] + slope
            scores[name] = old - clock.step * speed[name]
        return {**state, "scores": scores, "mean": speed}


def _by_layer(state: State, gradient: Mapping[str, jax.Array], clock: Clock) -> State:
    """A running mean of the gradient, in units of its root mean square over the layer."""
    scores, mean, square = {}, {}, {}
    for name, old in state["scores"].items():
        slope = gradient[name]
        mean[name] = _MEAN * state["mean"][name] + (1 - _MEAN) * slope
        # XLA makes a dot product of a bare sum of squares, whose rounding depends on the number of threads.
        square[name] = _SQUARE * state["square"][name] + (1 - _SQUARE) * jnp.mean(slope**2 + _TINY**2)
        size = jnp.sqrt(square[name] / (1 - _SQUARE**clock.number)) + _TINY
        scores[name] = old - clock.step * mean[name] / (1 - _MEAN**clock.number) / size
    return {**state, "scores": scores, "mean": mean, "square": square}


def _mean_field(state: State, clock: Clock, key: jax.Array) -> dict[str, jax.Array]:
    """The mean of the masks at this temperature."""
    return expected(state["scores"], state["price"], clock.temperature)


def _boltzmann(state: State, clock: Clock, key: jax.Array) -> dict[str, jax.Array]:
    """The next mask at this temperature."""
    return drawn(state["scores"], state["price"], clock.temperature, key)


def _ground(state: State, clock: Clock, key: jax.Array) -> dict[str, jax.Array]:
    """The ground state: what `_boltzmann` draws at temperature zero, without random numbers that take half of a round."""
    return {name: (scores > state["price"][name]).astype(jnp.float32) for name, scores in state["scores"].items()}


def _bernoulli(state: State, clock: Clock, key: jax.Array) -> dict[str, jax.Array]:
    """A mask with probabilities σ(s), whatever its count."""
    zero = {name: jnp.zeros(()) for name in state["scores"]}
    return drawn(state["scores"], zero, jnp.ones(()), key)


def _largest_absolute(state: State, clock: Clock, key: jax.Array) -> dict[str, jax.Array]:
    """The ground state of the scores' absolute values."""
    ranks = {name: jnp.abs(scores) for name, scores in state["scores"].items()}
    return {name: (rank > state["price"][name]).astype(jnp.float32) for name, rank in ranks.items()}


def _small(key: jax.Array, shapes: Mapping[str, tuple[int, ...]]) -> dict[str, jax.Array]:
    """Scores near zero: no evidence yet, ties broken."""
    keys = {name: jax.random.fold_in(key, number) for number, name in enumerate(shapes)}
    return {name: jax.random.uniform(keys[name], shape, minval=-0.01, maxval=0.01) for name, shape in shapes.items()}


def _kaiming_uniform(key: jax.Array, shapes: Mapping[str, tuple[int, ...]]) -> dict[str, jax.Array]:
    """As the reference implementation draws them: uniform within ±1/√fan-in (Kaiming's with a = √5)."""
    scores = {}
    for number, (name, shape) in enumerate(shapes.items()):
        bound = max(1, prod(shape[:-1])) ** -0.5
        scores[name] = jax.random.uniform(jax.random.fold_in(key, number), shape, minval=-bound, maxval=bound)
    return scores
