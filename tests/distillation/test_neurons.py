"""Neurons that sum to a teacher's outputs: the energy is the error, and the choice is exact where it can be enumerated."""

from itertools import combinations

import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from annealsubnet.distillation import distill_neurons
from annealsubnet.distillation.blocks import Block, measure_matching
from annealsubnet.distillation.neurons import neuron_problem
from annealsubnet.examples.architectures import MLP
from annealsubnet.networks import as_network


@pytest.fixture(scope="module")
def case():
    inputs = np.random.default_rng(0).normal(size=(200, 6)).astype(np.float32)
    teacher = as_network(MLP((6,), (8, 3), rngs=nnx.Rngs(0)), inputs)
    student = as_network(MLP((6,), (12, 3), rngs=nnx.Rngs(1)), inputs)
    return teacher, student, inputs


def test_the_energy_is_the_error_of_the_masked_network(case):
    teacher, student, inputs = case
    last = student.layers["fc2"]
    matching = measure_matching(teacher, student, student.params, Block(teacher.layers["fc2"], None, last), [inputs])
    problem = neuron_problem(matching, np.asarray(student.params["fc2/kernel"]), num_kept=5, scale=0.7)
    kept = np.arange(12) % 3 == 0
    outputs, _ = student.run(student.params, inputs, gates={"fc1": jnp.asarray(kept, jnp.float32)})
    wanted = np.asarray(teacher.apply(teacher.params, inputs)) - np.asarray(student.params["fc2/bias"])
    error = np.square(0.7 * wanted - (np.asarray(outputs) - np.asarray(student.params["fc2/bias"]))).sum()
    assert problem.energy(kept) == pytest.approx(error / np.square(0.7 * wanted).sum(), rel=1e-4)


def test_the_choice_meets_enumeration(case):
    teacher, student, inputs = case
    mask = distill_neurons(teacher, student, [inputs], keep=5, seed=0, num_reads=8)
    last = student.layers["fc2"]
    matching = measure_matching(teacher, student, student.params, Block(teacher.layers["fc2"], None, last), [inputs])
    problem = neuron_problem(matching, np.asarray(student.params["fc2/kernel"]), num_kept=5)
    states = np.zeros((792, 12))
    for row, chosen in zip(states, combinations(range(12), 5), strict=True):
        row[list(chosen)] = 1
    assert problem.energy(mask.kept["fc1"]) == pytest.approx(problem.energy(states).min(), rel=1e-6)


def test_what_is_refused(case):
    teacher, student, inputs = case
    with pytest.raises(ValueError, match="it must read the neurons of one layer and return 3"):
        distill_neurons(teacher, MLP((6,), (12, 4), rngs=nnx.Rngs(1)), [inputs], keep=5, seed=0)
    with pytest.raises(ValueError, match="keep"):
        distill_neurons(teacher, student, [inputs], keep=0.0, seed=0)
