"""Neurons that sum to a teacher's outputs: the energy is the error, and the choice is exact where it can be enumerated."""

from itertools import combinations

import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from annealsubnet import Mask
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


class Student(nnx.Module):
    """A random hidden layer, an activation, and a last layer that reads all of its neurons, reversed ones, or some of them."""

    def __init__(self, act=nnx.relu, *, read=slice(None), bias=(0.0, 1.0, 2.0)) -> None:
        rngs = nnx.Rngs(1)
        self.a, self.act, self.read = nnx.Linear(6, 12, rngs=rngs), act, read
        self.b = nnx.Linear(len(range(12)[read]), 3, rngs=rngs)
        self.b.bias[...] = jnp.asarray(bias)

    def __call__(self, inputs):
        return self.b(self.act(self.a(inputs))[:, self.read])


@pytest.mark.parametrize("scale", [1.0, 3.0])
@pytest.mark.parametrize(
    "student", [Student(), Student(jnp.tanh), Student(read=slice(None, None, -1))], ids=["relu", "tanh", "reversed"]
)
def test_no_choice_of_neurons_is_nearer_to_the_teacher(case, student, scale):
    teacher, _, inputs = case
    network = as_network(student, inputs)
    wanted = scale * np.asarray(teacher.apply(teacher.params, inputs))

    def error(kept):
        outputs = Mask.of(network, "neuron", {"a": kept}).apply(student)(inputs)
        return float(np.square(np.asarray(outputs) - wanted).sum())

    found = distill_neurons(teacher, student, [inputs], keep=4, scale=scale, seed=0, num_reads=8)
    least = min(error(np.isin(np.arange(12), chosen)) for chosen in combinations(range(12), 4))
    assert error(found.kept["a"]) == pytest.approx(least, rel=1e-5)


def test_several_inputs_of_a_neuron_are_one_choice(case):
    class Pixels(nnx.Module):
        def __init__(self) -> None:
            self.a, self.b = nnx.Conv(1, 5, (3,), rngs=nnx.Rngs(1)), nnx.Linear(30, 3, rngs=nnx.Rngs(2))

        def __call__(self, inputs):
            return self.b(nnx.relu(self.a(inputs[..., None])).reshape(len(inputs), -1))

    teacher, _, inputs = case
    student = Pixels()
    network = as_network(student, inputs)
    wanted = np.asarray(teacher.apply(teacher.params, inputs))
    errors = {
        chosen: np.square(np.asarray(mask.apply(student)(inputs)) - wanted).sum()
        for chosen in combinations(range(5), 2)
        for mask in [Mask.of(network, "neuron", {"a": np.isin(np.arange(5), chosen)})]
    }
    found = distill_neurons(teacher, student, [inputs], keep=2, scale=1.0, seed=0)
    assert tuple(np.flatnonzero(found.kept["a"])) == min(errors, key=errors.get)


def test_what_is_refused(case):
    teacher, student, inputs = case
    with pytest.raises(ValueError, match="nothing of those that are removed"):
        distill_neurons(teacher, Student(nnx.softplus), [inputs], keep=5, seed=0)
    with pytest.raises(ValueError, match="it must read all neurons"):
        distill_neurons(teacher, Student(read=slice(0, 7)), [inputs], keep=5, seed=0)
    with pytest.raises(ValueError, match="scale is 0"):
        distill_neurons(teacher, student, [inputs], keep=5, scale=0.0, seed=0)
    with pytest.raises(ValueError, match=r"it must read all neurons of one layer, .* and return 3"):
        distill_neurons(teacher, MLP((6,), (12, 4), rngs=nnx.Rngs(1)), [inputs], keep=5, seed=0)
    with pytest.raises(ValueError, match="keep"):
        distill_neurons(teacher, student, [inputs], keep=0.0, seed=0)
