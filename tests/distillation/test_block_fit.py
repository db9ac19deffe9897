"""Blocks: two layers fit a teacher's whatever lies between them, and what does not fit is refused by name."""

from itertools import pairwise

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from annealsubnet.distillation import Alternation, Fit, Schedule, distill_neurons, distill_ticket, draw_student
from annealsubnet.networks import as_network, from_function

IMAGES = np.random.default_rng(0).normal(size=(40, 6, 6, 2)).astype(np.float32)
CHANNELS, OUTPUTS = 12, 3


class Pair(nnx.Module):
    """Two layers with something between them, and perhaps something beside the second."""

    def __init__(self, one, two, between, beside=None):
        self.one, self.two, self.between, self.beside = one, two, between, beside

    def __call__(self, inputs):
        hidden = self.between(self.one(inputs))
        return self.two(hidden) if self.beside is None else self.two(hidden) + 0.1 * self.beside(hidden)


def conv(inputs, outputs, size, seed, strides=1):
    return nnx.Conv(inputs, outputs, (size, size), strides=strides, use_bias=False, rngs=nnx.Rngs(seed))


def dense(inputs, outputs, seed):
    return nnx.Linear(inputs, outputs, use_bias=False, rngs=nnx.Rngs(seed))


def flat(images):
    return jax.nn.relu(images).reshape(len(images), -1)


def pooled(images):
    return nnx.max_pool(jax.nn.relu(images), (2, 2), strides=(2, 2))


def centered(images):
    hidden = jax.nn.relu(images)
    return hidden - hidden.mean(axis=-1, keepdims=True)


def pair_of(name):
    """A teacher of one layer and a student of two."""
    one = conv(2, CHANNELS, 3, seed=1)
    return {
        "two windows": lambda: (conv(2, OUTPUTS, 3, seed=0), Pair(one, conv(CHANNELS, OUTPUTS, 3, seed=2), jax.nn.relu)),
        "one window": lambda: (conv(2, OUTPUTS, 3, seed=0), Pair(one, conv(CHANNELS, OUTPUTS, 1, seed=2), jax.nn.relu)),
        "pooled": lambda: (conv(2, OUTPUTS, 3, 0, strides=2), Pair(one, conv(CHANNELS, OUTPUTS, 3, seed=2), pooled)),
        "centered": lambda: (conv(2, OUTPUTS, 3, seed=0), Pair(one, conv(CHANNELS, OUTPUTS, 1, seed=2), centered)),
        "flattened": lambda: (
            nnx.Sequential(flat, dense(72, OUTPUTS, seed=0)),
            Pair(one, dense(36 * CHANNELS, OUTPUTS, seed=2), flat),
        ),
    }[name]()


def distilled(name, **options):
    model, theirs = pair_of(name)
    teacher, student, fits = as_network(model, IMAGES), as_network(theirs, IMAGES), list[Fit]()
    mask = distill_ticket(teacher, student, [IMAGES], kept_per_weight=2.0, seed=0, report=fits.append, **options)
    return teacher, student, mask, fits[0]


@pytest.mark.parametrize("name", ["two windows", "one window", "pooled", "centered", "flattened"])
def test_the_reported_error_is_that_of_the_masked_student(name):
    teacher, student, mask, fit = distilled(name)
    wanted = np.asarray(teacher.apply(teacher.params, IMAGES))
    found = np.asarray(student.apply(mask.multiply(student.params), IMAGES))
    assert fit.error == pytest.approx(np.square(found - wanted).sum() / np.square(wanted).sum(), rel=1e-3)
    assert 0 < fit.kept == mask.kept_count <= 2 * fit.weights and fit.error < 1


@pytest.mark.parametrize("name", ["two windows", "one window", "pooled"])
def test_a_neuron_stays_only_if_a_position_of_the_window_reads_it(name):
    _, _, mask, _ = distilled(name)
    busy, read = mask.kept["one"].any(axis=(0, 1, 2)), mask.kept["two"].any(axis=(0, 1, 3))
    assert busy.any() and not (busy & ~read).any()


def test_neurons_that_another_layer_reads_too_stay():
    few = dense(4, 6, seed=1)
    student = as_network(Pair(few, dense(6, 2, seed=2), jax.nn.relu, dense(6, 2, seed=3)), IMAGES[:, 0, :2].reshape(40, 4))
    teacher = as_network(dense(4, 2, seed=0), student.example)
    inputs = np.asarray(IMAGES[:, 0, :2].reshape(40, 4))

    def one_weight(sums, *, num_kept, seed):
        return np.arange(sums.coefficients.size).reshape(sums.coefficients.shape) == 0

    pairs = dict.fromkeys(teacher.layers, ("one", "two"))
    mask = distill_ticket(teacher, student, [inputs], kept_per_weight=2.0, blocks=pairs, solve=one_weight, seed=0)
    assert mask.kept["two"].sum() == 1 and mask.kept["one"].any(axis=0).sum() > 1


def test_layers_annealed_in_turn_meet_at_one_position():
    turns = Alternation(fan_in=2, rounds=1, examples=200, schedule=Schedule(10))
    assert distilled("one window", alternation=turns)[3].error < 1
    with pytest.raises(ValueError, match="'two' of the student reads something else of 'one'"):
        distilled("two windows", alternation=turns)


def chain(widths, seed=0):
    """A perceptron with layers l0, l1, ... of these widths."""
    rng = np.random.default_rng(seed)
    params = {f"l{number}": {"kernel": jnp.float32(rng.normal(size=shape))} for number, shape in enumerate(pairwise(widths))}

    def apply(params, inputs, tap):
        for number in range(len(params)):
            inputs = tap.dense(f"l{number}", inputs if number == 0 else jax.nn.relu(inputs))
        return inputs

    return from_function(apply, params)


VECTORS = np.random.default_rng(1).normal(size=(50, 6)).astype(np.float32)


@pytest.mark.parametrize(
    ("blocks", "words"),
    [
        ({"l0": "l1", "l1": "l1"}, r"takes the student's layers \['l1', 'l1'\]; take each once"),
        ({"l0": ("l0", "l1"), "l1": ("l0", "l3")}, r"\['l0', 'l1', 'l0', 'l3'\]; take each once"),
        ({"l0": ("l1", "l0"), "l1": ("l2", "l3")}, r"in the order of running, \['l0', 'l1', 'l2', 'l3'\]"),
        ({"l0": ("l2", "l3"), "l1": ("l0", "l1")}, "in the order of running"),
        ({"l0": "l1", "l1": "l3", "l7": "l2"}, r"names \['l7'\], which the teacher does not have"),
    ],
)
def test_layers_taken_twice_or_out_of_order_are_refused(blocks, words):
    teacher, student = chain((6, 6, 6)), chain((6, 6, 6, 6, 6), seed=1)
    with pytest.raises(ValueError, match=words):
        distill_ticket(teacher, student, [VECTORS], blocks=blocks, kept_per_weight=5.0, seed=0)
    with pytest.raises(ValueError, match=words):
        draw_student(teacher, student, [VECTORS], blocks=blocks, seed=0)


@pytest.mark.parametrize("widths", [(6, 3), (6, 12, 3)])
@pytest.mark.parametrize("alternation", [None, Alternation(fan_in=1, rounds=0)])
def test_a_layer_that_reads_only_zeros_is_refused(widths, alternation):
    teacher, student = chain((6, 3)), chain(widths, seed=1)
    with pytest.raises(ValueError, match="'l0' of the student reads nothing but zeros"):
        distill_ticket(teacher, student, [0 * VECTORS], alternation=alternation, kept_per_weight=5.0, seed=0)


def test_a_layer_behind_one_that_copies_nothing_is_refused():
    """Positive weights copy nothing of inputs that are never positive."""
    student = as_network(chain((6, 12, 3), seed=1), VECTORS)
    student = student.replace(student.model.export({path: abs(value) for path, value in student.params.items()}))
    with pytest.raises(ValueError, match="'l1' of the student reads nothing but zeros"):
        distill_ticket(chain((6, 3)), student, [-abs(VECTORS)], kept_per_weight=5.0, seed=0)


def test_neurons_that_are_always_zero_are_refused():
    with pytest.raises(ValueError, match="'l1' of the student reads nothing but zeros"):
        distill_neurons(chain((6, 3)), chain((6, 12, 3), seed=1), [0 * VECTORS], keep=4, seed=0)


@pytest.mark.parametrize("bad", [{"fan_in": 0}, {"rounds": -1}, {"examples": 0}, {"examples": 1.5}, {"rounds": True}])
def test_alternations_that_do_nothing_are_refused(bad):
    name, value = next(iter(bad.items()))
    with pytest.raises(ValueError, match=f"{name} of Alternation must be a whole number of at least .; it is {value}"):
        Alternation(**bad)


@pytest.mark.parametrize("bad", ["x", {"l0": None}, float("nan"), float("inf"), -1])
def test_a_share_that_is_no_number_above_zero_is_refused(bad):
    value = bad["l0"] if isinstance(bad, dict) else bad
    with pytest.raises(ValueError, match=f"kept_per_weight of 'l0' is {value!r}; give a number above 0"):
        distill_ticket(chain((6, 3)), chain((6, 3), seed=1), [VECTORS], kept_per_weight=bad, seed=0)
