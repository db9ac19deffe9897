"""Blocks of neurons: their model against the loss's own derivatives, and searches that keep the count."""

import numpy as np
import pytest
from flax import nnx

from annealsubnet import evaluate
from annealsubnet.budgets import budget_of
from annealsubnet.examples import load, named_network
from annealsubnet.examples.architectures import MLP
from annealsubnet.losses import cross_entropy
from annealsubnet.networks import as_network
from annealsubnet.tickets import Blocks, find_ticket, initialize, random_masks
from annealsubnet.tickets.gate_model import GateModel, gate_model_around
from annealsubnet.tickets.quadratic import Terms
from annealsubnet.tickets.switches import Switches

COUNTS = {"fc1": 10, "fc2": 6}


@pytest.fixture(scope="module")
def wide():
    """A random network with two hidden layers."""
    data, named = load("digits", seed=0), named_network("digits-mlp")
    batches = list(data.batches("train", 400, normalize=named.normalize, examples=400))
    model = MLP((8, 8, 1), (40, 24, 10), rngs=nnx.Rngs(0))
    return as_network(initialize(model, "kaiming-normal", example=batches[0][0], seed=0), batches[0][0]), batches


def model_of(wide, blocks, **prices):
    network, batches = wide
    switches = Switches(network, budget_of(network, keep=COUNTS, unit="neuron", scope="layer"), cross_entropy)
    rng = np.random.default_rng(1)
    kept = {name: rng.permutation(size) < COUNTS[name] for name, (size,) in switches.shapes.items()}
    return switches, kept, gate_model_around(switches, kept, batches[0], blocks, Terms(**prices))[0]


def test_the_change_is_that_of_the_gauss_newton_model_of_the_loss(wide):
    switches, kept, model = model_of(wide, Blocks(damping=1.0))
    rng = np.random.default_rng(2)
    for flips in (1, 5, 30):
        state = model.kept.copy()
        state[rng.choice(state.size, flips, replace=False)] ^= True
        expected = switches.predict(kept, model.by_site(state), *wide[1][0])
        np.testing.assert_allclose(model.change(state), expected, rtol=2e-4, atol=1e-6)


def test_without_couplings_only_the_diagonal_is_left(wide):
    whole, diagonal = (model_of(wide, Blocks(damping=3.0, coupling=coupling))[-1].curvature for coupling in (True, False))
    np.testing.assert_allclose(np.diag(np.diag(whole)), diagonal, rtol=1e-4, atol=1e-7)
    assert np.abs(whole - diagonal).max() > 0.1 * diagonal.max()


def test_annealing_keeps_the_counts_and_ends_where_no_exchange_helps(wide):
    blocks = Blocks(temperature=0.0)
    switches, _, model = model_of(wide, blocks, flip_price=1e-4)
    state = model.annealed(blocks, switches.budget, 1.0, 0)
    assert {name: int(array.sum()) for name, array in model.by_site(state).items()} == COUNTS

    def energy(state):
        return model.change(state)[1] + 1e-4 * np.count_nonzero(state != model.kept)

    assert energy(state) < 0
    for place in model.places.values():
        units = np.arange(place.start, place.stop)
        for one in units[state[place]]:
            for other in units[~state[place]]:
                exchanged = state.copy()
                exchanged[[one, other]] = False, True
                assert energy(exchanged) >= energy(state) - 1e-5


def test_prices_hold_units_or_close_them(wide):
    blocks = Blocks(temperature=0.0)
    switches, _, held = model_of(wide, blocks, flip_price=1e6)
    assert (held.annealed(blocks, switches.budget, 1.0, 0) == held.kept).all()
    *_, dear = model_of(wide, blocks, unit_price=1e6)
    assert not dear.annealed(blocks, None, 1.0, 0).any()


@pytest.mark.parametrize(
    ("options", "count"),
    [({"keep": 0.5}, 32), ({"keep": 32, "scope": "network"}, 32), ({"keep": 0.5, "keep_from": 0.75}, 32)],
)
def test_a_search_keeps_what_was_asked_for_and_performs(wide, options, count):
    network, batches = wide
    options = {"unit": "neuron", "seed": 0} | options
    mask = find_ticket(network, batches, rule=Blocks(), passes=25, batch_size=400, **options)
    again = find_ticket(network, batches, rule=Blocks(), passes=25, batch_size=400, **options)
    assert mask.kept_count == count and all((mask.kept[name] == again.kept[name]).all() for name in mask.kept)
    options.pop("keep_from", None)
    random = random_masks(network, batches, evaluations=25, **options)
    assert evaluate(network, batches, mask).loss < evaluate(network, batches, random).loss


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_a_narrow_site_keeps_a_unit_where_all_compete(seed):
    rng = np.random.default_rng(0)
    inputs = rng.normal(size=(200, 4)).astype(np.float32)
    labels = (inputs[:, 0] > 0).astype(np.int32)
    model = initialize(MLP((4,), (16, 3, 8, 2), rngs=nnx.Rngs(0)), "kaiming-normal", example=inputs, seed=seed)
    options = {"unit": "neuron", "scope": "network", "keep": 0.25, "passes": 12, "batch_size": 200, "seed": seed}
    for keep_from in (None, 1.0):
        mask = find_ticket(model, [(inputs, labels)], rule=Blocks(), keep_from=keep_from, **options)
        assert mask.kept_count == 7 and all(array.any() for array in mask.kept.values())


def test_a_price_leaves_the_count_free(wide):
    network, batches = wide
    found = [
        find_ticket(network, batches, rule=Blocks(), unit="neuron", passes=15, batch_size=400, price=price, seed=0)
        for price in (0.0, 0.02)
    ]
    assert found[1].kept_count < found[0].kept_count


def test_examples_that_are_passed_are_counted(wide):
    network, batches = wide
    checks = []
    find_ticket(
        network, batches, rule=Blocks(), unit="neuron", passes=2, batch_size=400, held_in=50, seed=0, report=checks.append
    )
    # Forward and back for the gradient, forward and ten times back for the curvature, and the held-in examples.
    assert [check.read for check in checks] == [50 + n * (13 * 400 + 50) for n in (1, 2)]


def test_a_search_that_goes_on_ends_where_one_that_was_not_stopped_does(wide, tmp_path):
    network, batches = wide
    options = {"rule": Blocks(), "unit": "neuron", "keep": 0.25, "passes": 6, "batch_size": 400, "seed": 0}

    def stop(check):
        if check.round == 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        find_ticket(network, batches, state_file=tmp_path / "search.npz", report=stop, **options)
    resumed = find_ticket(network, batches, state_file=tmp_path / "search.npz", resume=True, **options)
    whole = find_ticket(network, batches, **options)
    assert all((whole.kept[name] == resumed.kept[name]).all() for name in whole.kept)


def test_neurons_that_are_nearly_silent_raise_no_alarm(caplog):
    curvature = np.array([[2.0, 0.5, 1e-10], [0.5, 1.0, 2e-10], [1e-10, 2e-10, 1e-10]])
    model = GateModel({"fc1": slice(0, 3)}, np.array([True, False, False]), np.array([0.5, -0.6, 0.0]), curvature, 0.01)
    assert model.annealed(Blocks(), None, 1.0, 0).tolist() == [True, True, False]
    assert not caplog.records
