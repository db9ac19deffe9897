"""Numbers and losses that cannot be are refused by name, whatever function they are given to."""

from inspect import signature

import numpy as np
import pytest

from annealsubnet import prune, refit, thin
from annealsubnet.baselines import METHODS, ON_REQUEST, magnitude
from annealsubnet.losses import check_loss
from annealsubnet.solvers.options import check_weight
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


def test_what_is_no_loss(mlp):
    with pytest.raises(TypeError, match="loss is 'mse'; give a Loss, such as"):
        check_loss("mse")
    with pytest.raises(TypeError, match="loss is 'mse'"):
        thin(*mlp, keep=0.5, loss="mse", seed=0)
