"""Numbers and losses that cannot be are refused by name, whatever function they are given to."""

from functools import partial
from inspect import signature

import numpy as np
import pytest

from annealsubnet import distill_ticket, landscapes, prune, refit, thin
from annealsubnet.arguments import check_weight
from annealsubnet.baselines import METHODS, ON_REQUEST, magnitude
from annealsubnet.distillation import draw_student
from annealsubnet.landscapes import random_landscape
from annealsubnet.losses import check_loss
from annealsubnet.networks import as_network
from annealsubnet.problems.gates import gate_problem
from annealsubnet.statistics.weight_rows import distance_rows, gradient_rows
from tests.models import EXAMPLES

BASELINES = METHODS | ON_REQUEST
RIDGED = [name for name, method in BASELINES.items() if "ridge" in signature(method).parameters]
COUNTS = [
    *((name, {"rows": 0}) for name in ("woodfisher", "surgeon", "zero-swaps", "chita")),
    ("woodfisher", {"block": 0}),
    ("sparsegpt", {"block": 0}),
    ("gradual", {"stages": 0}),
    ("gradual", {"batch_size": 0}),
    ("gradual", {"examples": 0}),
    ("gradual", {"looked_at": 0}),
    ("osscar", {"steps": 0}),
]


@pytest.fixture(scope="module")
def mlp():
    example = EXAMPLES["mlp"]()
    return example.network("nnx"), [(example.inputs, np.arange(len(example.inputs)) % 3)]


def unit(name):
    return "neuron" if name == "osscar" else "weight"


@pytest.mark.parametrize("ridge", [-1.0, np.nan, np.inf])
def test_ridges(mlp, ridge):
    network, batches = mlp
    mask, _ = magnitude(network, None, keep=0.5)
    for call in (
        lambda: prune(network, batches, keep=0.5, ridge=ridge, seed=0),
        lambda: thin(network, batches, keep=0.5, ridge=ridge, seed=0),
        lambda: refit(network, mask, batches, ridge=ridge),
        *(lambda name=name: BASELINES[name](network, batches, keep=0.5, unit=unit(name), ridge=ridge) for name in RIDGED),
    ):
        with pytest.raises(ValueError, match=f"ridge is {ridge}; give a finite number"):
            call()


@pytest.mark.parametrize("penalty", [0.0, -1.0, np.nan])
def test_penalties(mlp, penalty):
    with pytest.raises(ValueError, match=f"penalty is {penalty}; give a finite number above 0"):
        BASELINES["alps"](*mlp, keep=0.5, penalty=penalty)


@pytest.mark.parametrize(("name", "option"), COUNTS)
def test_counts(mlp, name, option):
    with pytest.raises(ValueError, match=f"{next(iter(option))} must be at least 1; it is 0"):
        BASELINES[name](*mlp, keep=0.5, unit=unit(name), **option)


@pytest.mark.parametrize("frozen", [True, False])
def test_degrees(mlp, frozen):
    with pytest.raises(ValueError, match="degree must be at least 0; it is -1"):
        prune(*mlp, keep=0.5, refit=not frozen, degree=-1, seed=0)


@pytest.mark.parametrize("value", ["a", None, True, [0.1]])
def test_what_is_no_number(value):
    with pytest.raises(TypeError, match="ridge must be a number"):
        check_weight("ridge", value)


def test_rows_and_ridges_of_models_that_are_made_by_hand(mlp):
    network = as_network(*mlp[0:1], mlp[1][0][0])
    for measure in (partial(distance_rows, seed=0), gradient_rows):
        with pytest.raises(ValueError, match="rows must be at least 1; it is 0"):
            measure(network, mlp[1], rows=0)
    with pytest.raises(ValueError, match="ridge is nan; give a finite number"):
        gate_problem({"a": 2}, np.eye(2), ridge=np.nan)


def test_seeds_below_zero(mlp):
    network, batches = mlp
    for draws in (
        lambda: distill_ticket(network, network, batches, seed=-1),
        lambda: draw_student(network, network, batches, seed=-1),
        lambda: random_landscape(8, 2, seed=-1),
        lambda: landscapes.anneal(random_landscape(8, 2, seed=0), seed=-1),
    ):
        with pytest.raises(ValueError, match="seed must be at least 0; it is -1"):
            draws()


def test_what_is_no_loss(mlp):
    with pytest.raises(TypeError, match="loss is 'mse'; give a Loss, such as"):
        check_loss("mse")
    with pytest.raises(TypeError, match="loss is 'mse'"):
        thin(*mlp, keep=0.5, loss="mse", seed=0)
