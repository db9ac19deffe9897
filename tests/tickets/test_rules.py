"""Rules and what they see: draws, augmented inputs, and steps that are refused."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from annealsubnet import evaluate
from annealsubnet.examples.architectures import MLP
from annealsubnet.losses import cross_entropy, squared_error
from annealsubnet.tickets import Blocks, annealed, edge_popup, find_ticket, initialize, latent_scores, sampled
from annealsubnet.tickets.draws import draws_of
from annealsubnet.tickets.rules import Clock
from annealsubnet.tickets.thermal import drawn


@pytest.mark.parametrize("rule", [latent_scores(), sampled(temperature=0.0)], ids=lambda rule: rule.name)
def test_at_temperature_zero_nobody_waits_for_random_numbers(rule):
    scores = {"a": jax.random.normal(jax.random.key(0), (40, 30))}
    state, clock = {"scores": scores, "price": {"a": jnp.full((1, 1), 0.1)}}, Clock(1.0, 0.1, jnp.zeros(()))
    key = jax.random.key(1)
    np.testing.assert_array_equal(rule.draw(state, clock, key)["a"], drawn(scores, state["price"], clock.temperature, key)["a"])
    assert "random_bits" not in str(jax.make_jaxpr(lambda key: rule.draw(state, clock, key))(key))


@pytest.mark.parametrize(
    ("augment", "found"),
    [
        (lambda inputs, generator: inputs[:1], r"float32 of shape \(1, 8, 8, 1\)"),
        (lambda inputs, generator: inputs[..., 0], r"float32 of shape \(20, 8, 8\)"),
        (lambda inputs, generator: None, "object of shape"),
    ],
)
@pytest.mark.parametrize("rule", [annealed(), Blocks()], ids=["annealed", "blocks"])
def test_inputs_augmented_to_another_shape_are_refused(case, augment, found, rule):
    network, batches = case
    with pytest.raises(ValueError, match=f"augment returns {found}"):
        find_ticket(network, batches, passes=1, batch_size=20, augment=augment, rule=rule, seed=0)


def test_one_output_has_no_accuracy(case):
    _, batches = case
    model = initialize(MLP((8, 8, 1), (8, 1), rngs=nnx.Rngs(0)), keep=0.5, example=batches[0][0], seed=0)
    checks = []
    mask = find_ticket(model, batches, loss=squared_error, passes=1, checks=1, seed=0, report=checks.append)
    assert np.isnan(checks[0].held_in_accuracy) and np.isnan(evaluate(model, batches, mask, loss=squared_error).accuracy)


@pytest.mark.parametrize(
    "wrong", [{"momentum": 1.0}, {"momentum": np.nan}, {"momentum": -0.1}, {"decay": -1.0}, {"decay": np.inf}]
)
def test_steps_that_blow_up_are_refused(wrong):
    with pytest.raises(ValueError, match=r"momentum is in \[0, 1\) and decay at least 0"):
        edge_popup(**wrong)


def test_edge_popup_is_that_of_the_paper_step_by_step(case):
    network, batches = case
    rounds, keep, shapes = 12, 0.5, {name: network.params[layer.kernel].shape for name, layer in network.layers.items()}
    rule, losses = edge_popup(), []
    find_ticket(
        network, batches, keep=keep, passes=rounds * 20 / 400, batch_size=20, rule=rule, checks=rounds, seed=0,
        report=lambda check: losses.append(check.loss),
    )  # fmt: skip
    draws = draws_of(network, batches, cross_entropy, size=20, seed=0)
    scores = rule.begin(jax.random.fold_in(jax.random.key(0), 0), shapes)
    speed = {name: jnp.zeros(shape) for name, shape in shapes.items()}

    def loss(gates, inputs, labels):
        kernels = {layer.kernel: network.params[layer.kernel] * gates[name] for name, layer in network.layers.items()}
        return cross_entropy.value(network.apply({**network.params, **kernels}, inputs), labels).mean()

    for number in range(rounds):
        sizes = {name: jnp.abs(each) for name, each in scores.items()}
        cuts = {name: jnp.sort(each.ravel())[each.size - round(keep * each.size)] for name, each in sizes.items()}
        gates = {name: (sizes[name] >= cuts[name]).astype(jnp.float32) for name in sizes}
        value, slopes = jax.value_and_grad(loss)(gates, *map(jnp.asarray, draws.round(number)))
        assert losses[number] == pytest.approx(float(value), rel=1e-3)
        for name, slope in slopes.items():
            speed[name] = 0.9 * speed[name] + slope * jnp.sign(scores[name]) + 1e-4 * scores[name]
            scores[name] = scores[name] - 0.4 * 0.5 * (1 + np.cos(np.pi * number / rounds)) * speed[name]
