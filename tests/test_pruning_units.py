"""Neurons: those that nobody reads go first and change nothing else; what one round removes may come back in the next."""

from functools import partial

import dimod
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from annealsubnet import Mask, baselines, from_function, prune
from annealsubnet.losses import squared_error
from annealsubnet.networks import as_network
from annealsubnet.refitting import refit_params
from annealsubnet.statistics.weight_distance import distance_to

READ, UNREAD = 6, 5
EXACT = partial(prune, sampler=dimod.ExactSolver(), polish=0)
METHODS = {"annealed": partial(prune, polish=0), "sampler": EXACT, "osscar": baselines.osscar}
PLACES = {"first": np.arange(READ), "every other": 2 * np.arange(READ)}


def encoder(places=None):
    """Six neurons, five more among them that nobody reads if there are places for the six; and examples."""
    rng = np.random.default_rng(0)
    inputs = rng.normal(size=(90, 7)).astype(np.float32)
    kernels = {"first": rng.normal(size=(7, READ)), "second": rng.normal(size=(READ, 8)), "out": rng.normal(size=(8, 3))}
    if places is not None:
        wide = 10 * rng.normal(size=(7, READ + UNREAD))
        wide[:, places] = kernels["first"]
        kernels["first"] = wide
    params = {name: {"kernel": jnp.float32(kernel), "bias": jnp.zeros(kernel.shape[1])} for name, kernel in kernels.items()}

    def apply(values, x, tap):
        hidden = tap.dense("first", x)
        if places is not None:
            hidden = hidden[:, places[0] : places[-1] + 1 : places[1] - places[0]]
        return tap.dense("out", jax.nn.relu(tap.dense("second", jax.nn.relu(hidden))))

    return from_function(apply, params), inputs


@pytest.mark.parametrize("places", PLACES.values(), ids=PLACES)
@pytest.mark.parametrize("method", METHODS.values(), ids=METHODS)
def test_neurons_that_nobody_reads_change_no_choice(method, places):
    (model, inputs), (without, _) = encoder(places), encoder()
    options = {"keep": 7, "unit": "neuron", "scope": "network", "seed": 0}
    (mask, _), (other, _) = method(model, [inputs], **options), method(without, [inputs], **options)
    assert mask.kept_count == 7
    np.testing.assert_array_equal(mask.kept["first"][places], other.kept["first"])
    np.testing.assert_array_equal(mask.kept["second"], other.kept["second"])


@pytest.mark.parametrize("places", PLACES.values(), ids=PLACES)
@pytest.mark.parametrize("method", METHODS.values(), ids=METHODS)
def test_neurons_that_nobody_reads_fill_up_what_is_asked_for(method, places):
    model, inputs = encoder(places)
    for count in (READ - 1, READ + 2):
        mask, _ = method(model, [inputs], keep={"first": count}, unit="neuron", scope="layer", seed=0)
        assert mask.kept["first"].sum() == count
        assert mask.kept["first"][places].sum() == min(count, READ)


def a_sum_of_two():
    """Linear neurons: two whose sum is what the network returns, and a third that returns about this sum and is not read."""
    kernels = {"hidden": [[1.0, 0.0, 1.0], [0.0, 1.0, 1.0], [0.0, 0.0, 0.1]], "out": [[1.0, 2.0], [1.0, 2.0], [0.0, 0.0]]}
    params = {name: {"kernel": jnp.array(kernel)} for name, kernel in kernels.items()}
    model = from_function(lambda values, x, tap: tap.dense("out", tap.dense("hidden", x)), params)
    return model, np.random.default_rng(0).normal(size=(100, 3)).astype(np.float32)


@pytest.mark.parametrize("polish", [0, 3])
def test_a_neuron_that_one_round_removes_may_come_back_in_the_next(polish):
    """Of three neurons the best two do not hold the best one."""
    model, inputs = a_sum_of_two()
    network = as_network(model, inputs)
    options = {"unit": "neuron", "polish": polish, "loss": squared_error, "ridge": 1e-6, "seed": 0}
    two, _ = prune(model, [inputs], keep=2, **options)
    assert two.kept["hidden"].tolist() == [True, True, False]  # what the first of two rounds keeps on the way to one
    one, pruned = prune(model, [inputs], keep=1, rounds=2, **options)
    masks = [Mask.of(network, "neuron", {"hidden": np.arange(3) == unit}) for unit in range(3)]
    fits = [refit_params(network, mask, [inputs]) for mask in masks]
    errors = [distance_to(network, [inputs], params=params, loss=squared_error) for params in fits]
    assert one.kept["hidden"].tolist() == masks[int(np.argmin(errors))].kept["hidden"].tolist()
    assert not one.kept["hidden"][two.kept["hidden"]].any()
    found = network.replace(pruned).params
    assert distance_to(network, [inputs], params=found, loss=squared_error) <= min(errors) * (1 + 1e-3)


def test_a_removed_neuron_comes_back_as_it_was():
    """Its column of the kernel is the dense network's: nothing feeds the first layer, so that it is not refitted."""
    model, inputs = a_sum_of_two()
    options = {"unit": "neuron", "polish": 0, "loss": squared_error, "ridge": 1e-6, "seed": 0}
    mask, pruned = prune(model, [inputs], keep=1, rounds=2, **options)
    (unit,) = np.flatnonzero(mask.kept["hidden"])
    assert unit == 2  # which the first round removes
    np.testing.assert_array_equal(pruned["hidden"]["kernel"][:, unit], model.params["hidden/kernel"][:, unit])
    assert not np.asarray(pruned["hidden"]["kernel"])[:, ~mask.kept["hidden"]].any()
