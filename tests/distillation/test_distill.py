"""distill_ticket: students that compute what the teacher computes, whatever their form, and what is refused."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from annealsubnet import evaluate
from annealsubnet.distillation import Alternation, Fit, Schedule, distill_ticket, draw_student
from annealsubnet.examples import load, named_network, train
from annealsubnet.examples.architectures import CNN, MLP
from annealsubnet.networks import as_network, from_function

SHAPE = (8, 8, 1)
KEPT = {"fc1": 2.0, "fc2": 4.0}


@pytest.fixture(scope="module")
def digits():
    data, named = load("digits", seed=0), named_network("digits-mlp")
    batches = list(data.batches("train", 500, normalize=named.normalize))
    model = train(MLP(SHAPE, (24, 10), use_bias=False, rngs=nnx.Rngs(0)), batches, seed=0, epochs=30, learning_rate=3e-3)
    return model, batches


def perceptron(widths, seed=1):
    return MLP(SHAPE, widths, use_bias=False, rngs=nnx.Rngs(seed))


def repeated(teacher, copies, seed):
    """A random student of one layer for each of the teacher's, its inputs repeated."""
    rng = np.random.default_rng(seed)
    kernels = {name: np.asarray(getattr(teacher, name).kernel[...]) for name in ("fc1", "fc2")}
    params = {
        name: {"kernel": jnp.float32(3 * kernel.std() * rng.normal(size=(copies * len(kernel), kernel.shape[1])))}
        for name, kernel in kernels.items()
    }

    def apply(params, inputs, tap):
        inputs = inputs.reshape(len(inputs), -1)
        hidden = jax.nn.relu(tap.dense("fc1", jnp.tile(inputs, copies)))
        return tap.dense("fc2", jnp.tile(hidden, copies))

    return from_function(apply, params)


def test_a_student_of_paths_computes_what_the_teacher_does(digits):
    teacher, batches = digits
    student = draw_student(teacher, perceptron((64 * 9, 24, 24 * 9, 10)), batches, seed=0)
    fits: list[Fit] = []
    mask = distill_ticket(teacher, student, batches, kept_per_weight=KEPT, seed=0, report=fits.append)
    assert [fit.layer for fit in fits] == ["fc1", "fc2"]
    assert sum(fit.kept for fit in fits) == mask.kept_count
    assert all(fit.kept <= share * fit.weights for fit, share in zip(fits, KEPT.values(), strict=True))
    assert evaluate(student, batches, mask).accuracy > evaluate(teacher, batches).accuracy - 0.01
    found = mask.multiply(as_network(student, batches[0][0]).params)
    for path, value in as_network(student, batches[0][0]).params.items():
        assert ((np.asarray(found[path]) == np.asarray(value)) | (np.asarray(found[path]) == 0)).all()
    again = distill_ticket(teacher, student, batches, kept_per_weight=KEPT, seed=0)
    assert all((again.kept[name] == mask.kept[name]).all() for name in mask.kept)


def test_the_reported_error_is_that_of_the_outputs(digits):
    teacher, batches = digits
    student = repeated(teacher, 4, seed=0)
    fits: list[Fit] = []
    mask = distill_ticket(teacher, student, batches, kept_per_weight=1.0, seed=0, report=fits.append)
    inputs = np.concatenate([inputs for inputs, _ in batches])
    network = as_network(student, inputs[:1])
    wanted, found = np.asarray(teacher(inputs)), np.asarray(network.apply(mask.multiply(network.params), inputs))
    assert fits[1].error == pytest.approx(np.square(found - wanted).sum() / np.square(wanted).sum(), rel=1e-3)


def test_both_layers_of_a_block_in_turn(digits):
    teacher, batches = digits
    student = draw_student(teacher, perceptron((96, 24, 64, 10)), batches, spread=1.0, seed=0)

    def error(rounds):
        fits: list[Fit] = []
        turns = Alternation(fan_in=6, rounds=rounds, examples=300, schedule=Schedule(10))
        distill_ticket(teacher, student, batches, kept_per_weight={"fc1": 1.2, "fc2": 4.0}, alternation=turns, seed=0,
                       report=fits.append)  # fmt: skip
        assert all(fit.kept <= share * fit.weights for fit, share in zip(fits, (1.2, 4.0), strict=True))
        return fits[0].error

    assert error(1) < 0.9 * error(0)


@pytest.mark.parametrize("outputs", [10, 1])
@pytest.mark.parametrize("turns", [None, Alternation(fan_in=3, rounds=0, examples=100)])
def test_a_student_as_documented_needs_no_number(digits, outputs, turns):
    """Six to eight neurons for every input are more than 0.6 of the teacher's weights where there are few outputs."""
    _, batches = digits
    teacher = perceptron((24, outputs), seed=0)
    widths = (64 * 6, 24, 24 * 8, outputs)
    student, fits = draw_student(teacher, perceptron(widths), batches, seed=0), list[Fit]()
    mask = distill_ticket(teacher, student, batches, alternation=turns, seed=0, report=fits.append)
    first = (1 if turns is None else 3) * np.array([widths[0], widths[2]])
    most = first + 0.6 * 24 * np.array([64, outputs])
    assert all(0 < fit.kept <= limit and fit.error < 1 for fit, limit in zip(fits, most, strict=True))
    assert mask.kept_count == sum(fit.kept for fit in fits) and all(kept.any() for kept in mask.kept.values())


def test_convolutions_and_biases():
    data, named = load("digits", seed=0), named_network("digits-cnn")
    batches = list(data.batches("train", 100, normalize=named.normalize, examples=100))
    teacher = CNN(SHAPE, channels=(2, 2), hidden=4, rngs=nnx.Rngs(0))
    student = CNN(SHAPE, channels=(2, 2), hidden=4, rngs=nnx.Rngs(1))
    teacher.eval(), student.eval()
    mask = distill_ticket(teacher, student, batches, kept_per_weight=0.5, seed=0)
    assert all(0 < kept.sum() <= kept.size // 2 for kept in mask.kept.values())


def test_a_constant_input_makes_the_bias(digits):
    _, batches = digits
    teacher = as_network(nnx.Linear(64, 3, rngs=nnx.Rngs(0)), np.zeros((1, 64), np.float32))
    teacher = teacher.replace(teacher.model.export({**teacher.params, "bias": jnp.array([3.0, -2.0, 0.5])}))
    inputs = [inputs.reshape(len(inputs), -1) for inputs, _ in batches]

    def apply(params, inputs, tap):
        return tap.dense("out", jnp.tile(jnp.concatenate([inputs, jnp.ones((len(inputs), 1))], axis=1), 6))

    student = from_function(apply, {"out": {"kernel": jnp.float32(np.random.default_rng(0).normal(size=(65 * 6, 3)))}})
    fits: list[Fit] = []
    mask = distill_ticket(teacher, student, inputs, kept_per_weight=2.0, seed=0, report=fits.append)
    assert mask.kept["out"].reshape(6, 65, 3)[:, -1, :2].any(axis=0).all()
    assert fits[0].error < 0.05


def test_what_is_refused(digits):
    teacher, batches = digits
    student = perceptron((32, 24, 32, 10))
    with pytest.raises(ValueError, match="has 2 layers and the student 3"):
        distill_ticket(teacher, perceptron((32, 24, 10)), batches, seed=0)
    with pytest.raises(ValueError, match="'fc2' of the student returns \\(20,\\)"):
        distill_ticket(teacher, perceptron((32, 20, 32, 10)), batches, seed=0)
    with pytest.raises(ValueError, match="leaves out the teacher's layers \\['fc2'\\]"):
        distill_ticket(teacher, student, batches, blocks={"fc1": ("fc1", "fc2")}, seed=0)
    with pytest.raises(ValueError, match="one or two of the student's layers"):
        distill_ticket(teacher, student, batches, blocks={"fc1": ("fc1", "nothing"), "fc2": "fc4"}, seed=0)
    with pytest.raises(ValueError, match="the teacher's layers are"):
        distill_ticket(teacher, student, batches, kept_per_weight={"fc1": 0.5}, seed=0)
    with pytest.raises(ValueError, match="give a number above 0"):
        distill_ticket(teacher, student, batches, kept_per_weight=0.0, seed=0)
    with pytest.raises(ValueError, match="copies of its inputs in 'fc4' take"):
        distill_ticket(teacher, student, batches, kept_per_weight={"fc1": 0.6, "fc2": 0.05}, seed=0)
    with pytest.raises(ValueError, match="with a fan-in of 64"):
        distill_ticket(teacher, student, batches, kept_per_weight=0.6, alternation=Alternation(fan_in=64), seed=0)
    for spread in (0, np.inf):
        with pytest.raises(ValueError, match=f"spread is {spread}"):
            draw_student(teacher, student, batches, spread=spread, seed=0)


def test_another_nonlinearity_is_measured_not_assumed(digits):
    teacher, batches = digits
    rng = np.random.default_rng(0)
    params = {
        "one": {"kernel": jnp.float32(rng.normal(size=(64, 256)))},
        "two": {"kernel": jnp.float32(rng.normal(size=(256, 24)))},
    }
    linear = as_network(nnx.Linear(64, 24, use_bias=False, rngs=nnx.Rngs(0)), np.zeros((1, 64), np.float32))
    inputs = [inputs.reshape(len(inputs), -1) for inputs, _ in batches]

    def apply(params, inputs, tap):
        return tap.dense("two", jnp.tanh(tap.dense("one", inputs)))

    student, fits = as_network(from_function(apply, params), inputs[0]), list[Fit]()
    mask = distill_ticket(linear, student, inputs, kept_per_weight=1.0, seed=0, report=fits.append)
    every = np.concatenate(inputs)
    wanted = np.asarray(linear.apply(linear.params, every))
    found = np.asarray(student.apply(mask.multiply(student.params), every))
    assert fits[0].error == pytest.approx(np.square(found - wanted).sum() / np.square(wanted).sum(), rel=1e-3)
    assert fits[0].error < 0.2
