"""Passes over the batches: what they hold at once does not decide what they find, nor does the precision of the network."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from annealsubnet.distillation import Alternation, Schedule, distill_ticket
from annealsubnet.distillation.blocks import blocks_of, measure_matching, measure_signs
from annealsubnet.networks import as_network
from annealsubnet.statistics import streams

IMAGES = np.random.default_rng(0).normal(size=(100, 6, 6, 2)).astype(np.float32)
BATCHES = [IMAGES[:17], IMAGES[17:80], IMAGES[80:]]
CHANNELS, OUTPUTS, POSITIONS = 12, 3, 36


def conv(inputs, outputs, size, seed):
    return nnx.Conv(inputs, outputs, (size, size), use_bias=False, rngs=nnx.Rngs(seed))


class Student(nnx.Module):
    """Two convolutions, and a note of how many images went through them at once."""

    def __init__(self, size, seen):
        self.one, self.two = conv(2, CHANNELS, 3, seed=1), conv(CHANNELS, OUTPUTS, size, seed=2)
        self.note = seen.append

    def __call__(self, images):
        self.note(len(images))
        return self.two(jax.nn.relu(self.one(images)))


def case(size):
    seen = []
    teacher, student = as_network(conv(2, OUTPUTS, 3, seed=0), IMAGES), as_network(Student(size, seen), IMAGES)
    seen.clear()
    return teacher, student, blocks_of(teacher, student, dict.fromkeys(teacher.layers, ("one", "two")))[0], seen


@pytest.mark.parametrize("images", [1, 7, 64])
def test_as_many_images_are_held_as_fit_a_chunk_and_sums_do_not_depend_on_it(monkeypatch, images):
    teacher, student, block, seen = case(3)
    whole = measure_matching(teacher, student, student.params, block, BATCHES)
    signs = measure_signs(student, student.params, block.last, BATCHES)
    assert max(seen) == 100
    monkeypatch.setattr(streams, "CHUNK_BYTES", images * 4 * POSITIONS * block.last.fan_in)
    seen.clear()
    found = measure_matching(teacher, student, student.params, block, BATCHES)
    np.testing.assert_allclose(measure_signs(student, student.params, block.last, BATCHES), signs, rtol=1e-5)
    assert max(seen) == images
    for name in ("gram", "cross", "energy"):
        wanted = getattr(whole, name)
        np.testing.assert_allclose(getattr(found, name), wanted, rtol=1e-4, atol=1e-6 * np.abs(wanted).max())


def test_layers_before_the_one_that_is_measured_are_held_too(monkeypatch):
    teacher, student, block, seen = case(1)
    monkeypatch.setattr(streams, "CHUNK_BYTES", 5 * 4 * POSITIONS * CHANNELS)
    measure_signs(student, student.params, block.last, BATCHES)
    assert max(seen) == 5


def test_annealing_in_turn_reads_the_images_that_it_needs():
    turns = Alternation(fan_in=2, rounds=1, examples=2 * POSITIONS, schedule=Schedule(10))
    masks = []
    for batches in ([IMAGES], BATCHES, [IMAGES[:2]]):
        teacher, student, _, seen = case(1)
        pairs = dict.fromkeys(teacher.layers, ("one", "two"))
        masks.append(distill_ticket(teacher, student, batches, kept_per_weight=2.0, blocks=pairs, alternation=turns, seed=0))
        assert max(seen) <= 64  # to see what is between the layers
    assert all((mask.kept[name] == masks[0].kept[name]).all() for mask in masks for name in ("one", "two"))


class Half(nnx.Module):
    """A perceptron of few digits."""

    def __init__(self, seed, dtype):
        options = {"dtype": dtype, "param_dtype": dtype, "rngs": nnx.Rngs(seed)}
        self.one, self.two = nnx.Linear(8, 12, **options), nnx.Linear(12, 3, **options)
        self.two.bias[...] = jnp.asarray([0.25, -0.5, 1.0], dtype)

    def __call__(self, inputs):
        return self.two(jax.nn.relu(self.one(jnp.asarray(inputs))))


@pytest.mark.parametrize("dtype", [jnp.bfloat16, jnp.float16])
def test_sums_over_half_floats_are_those_in_double_precision(dtype):
    """But for what rounding a thousand numbers leaves of it; their squares add up to more than the largest half float."""
    inputs = 10 * np.random.default_rng(0).normal(size=(1000, 8)).astype(np.float32)
    teacher, student = (as_network(Half(seed, dtype), inputs) for seed in (0, 1))
    block = blocks_of(teacher, student)[1]
    found = measure_matching(teacher, student, student.params, block, [inputs])
    signs = measure_signs(student, student.params, block.last, [inputs])
    read = jax.jit(lambda params: student.run(params, inputs, record=("two",))[1]["two"][0])(student.params)
    wanted = jax.jit(lambda params: teacher.run(params, inputs)[0])(teacher.params)
    read = np.asarray(read, np.float64)
    wanted = np.asarray(wanted, np.float64) - block.last.bias_matrix(student.params)[0]
    for sums, exact in (
        (found.gram, read.T @ read), (found.cross, read.T @ wanted), (found.energy, np.square(wanted).sum(0)),
        (signs[0], np.square(read).sum(0)),
    ):  # fmt: skip
        np.testing.assert_allclose(1000 * sums, exact, rtol=0, atol=float(jnp.finfo(dtype).eps) / 16 * np.abs(exact).max())
    assert not signs[1].any()
