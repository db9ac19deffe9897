"""Layers annealed in turn: the reported error is the masked student's, and what stands between them is verified."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from annealsubnet.distillation import Alternation, Fit, Schedule, distill_ticket
from annealsubnet.networks import as_network, from_function

INPUTS = np.random.default_rng(0).normal(size=(200, 6)).astype(np.float32)
TURNS = Alternation(fan_in=2, rounds=1, examples=len(INPUTS), schedule=Schedule(10))


@pytest.fixture(scope="module")
def teacher():
    return as_network(nnx.Linear(6, 3, use_bias=False, rngs=nnx.Rngs(0)), INPUTS)


def student(between):
    """Two random layers with something between them."""
    rng = np.random.default_rng(1)
    params = {
        "one": {"kernel": jnp.float32(rng.normal(size=(6, 32))), "bias": jnp.float32(rng.normal(size=32))},
        "two": {"kernel": jnp.float32(rng.normal(size=(32, 3)))},
    }

    def apply(params, inputs, tap):
        return tap.dense("two", between(tap.dense("one", inputs)))

    return as_network(from_function(apply, params), INPUTS)


def test_the_reported_error_is_that_of_the_masked_student(teacher):
    ours, fits = student(jax.nn.relu), list[Fit]()
    mask = distill_ticket(teacher, ours, [INPUTS], kept_per_weight=6.0, alternation=TURNS, seed=0, report=fits.append)
    wanted = np.asarray(teacher.apply(teacher.params, INPUTS))
    found = np.asarray(ours.apply(mask.multiply(ours.params), INPUTS))
    assert fits[0].error == pytest.approx(np.square(found - wanted).sum() / np.square(wanted).sum(), rel=1e-3)


@pytest.mark.parametrize(
    "between",
    [
        jnp.tanh,
        jax.nn.gelu,
        jax.nn.leaky_relu,
        lambda z: z,
        lambda z: 2 * jax.nn.relu(z),
        lambda z: jax.nn.relu(z)[:, ::-1],
        lambda z: jax.nn.relu(z / (1 + jnp.abs(z).max(axis=1, keepdims=True))),
    ],
    ids=["tanh", "gelu", "leaky", "nothing", "scaled", "permuted", "normalized"],
)
def test_anything_but_a_relu_between_them_is_refused_before_annealing(teacher, between):
    def solve(sums, *, num_kept, seed):
        raise AssertionError("nothing is annealed")

    with pytest.raises(ValueError, match="'two' of the student reads something else of 'one'"):
        distill_ticket(teacher, student(between), [INPUTS], kept_per_weight=6.0, alternation=TURNS, solve=solve, seed=0)
