"""Sequential blocks: their model against the definition, their rounds against the loss, and what they refuse."""

import numpy as np
import pytest

from annealsubnet import Mask, evaluate
from annealsubnet.budgets import budget_of
from annealsubnet.examples import load, named_network
from annealsubnet.losses import cross_entropy
from annealsubnet.tickets import Blocks, greedy_exchanges, initialize, sequential, sequential_blocks
from annealsubnet.tickets.draws import draws_of
from annealsubnet.tickets.searches import Pool
from annealsubnet.tickets.switches import Switches


def models_of(network, batches, blocks, price=0.0):
    budget = budget_of(network, keep=0.5, unit="weight", scope="layer", exclude=())
    draws = draws_of(network, batches, cross_entropy, size=200, seed=0)
    pool = Pool(Switches(network, budget, cross_entropy), draws, 100, 0)
    kept = pool.random(np.random.default_rng(0))
    return pool, kept, sequential._models(pool, kept, None, blocks, price, 0)[0]


def test_the_gradient_of_the_model_is_that_of_the_loss(case):
    network, batches = case
    pool, kept, models = models_of(network, batches, Blocks())
    inputs, labels = pool.draws.round(0)
    for name, model in models.items():
        for i, o in [(3, 2), (20, 5), (11, 9)]:
            there = {site: array.astype(np.float32) for site, array in kept.items()}
            losses = []
            for step in (-0.01, 0.01):
                moved = there | {name: there[name].copy()}
                moved[name][i, o] += step
                losses.append(pool.switches.measure(moved, inputs, labels)[0])
            assert model.slopes[0, i, o] == pytest.approx((losses[1] - losses[0]) / 0.02, rel=0.05, abs=2e-4)


@pytest.mark.parametrize("coupling", [True, False])
def test_ranks_are_differences_of_the_model_and_annealing_ends_where_no_flip_helps(case, coupling):
    network, batches = case
    blocks = Blocks(temperature=0.0, num_sweeps=60, coupling=coupling)
    _, kept, models = models_of(network, batches, blocks)
    for name, model in models.items():
        state = model.annealed(blocks, 1.0, (0,))
        assert model.change(state) < 0
        ranks = model.ranks(state)
        for i, o in [(0, 0), (5, 3), (17, 8)]:
            opened, closed = state.copy(), state.copy()
            opened[0, i, o], closed[0, i, o] = True, False
            assert ranks[0, i, o] == pytest.approx(model.change(closed) - model.change(opened), abs=1e-9)
        assert (np.where(state, ranks, -ranks) >= -1e-6).all()
        assert (np.asarray(model.layer.from_matrix(model.kept)) == kept[name]).all()


def test_a_high_price_leaves_the_mask_as_it_is(case):
    network, batches = case
    blocks = Blocks(temperature=0.0)
    for model in models_of(network, batches, blocks, price=1e6)[2].values():
        assert (model.annealed(blocks, 1.0, (0,)) == model.kept).all()


@pytest.mark.parametrize("scope", ["layer", "neuron", "network"])
def test_the_count_is_exact_and_the_answer_the_same_again(case, scope):
    network, batches = case
    options = {"keep": 0.25, "scope": scope, "evaluations": 60, "seed": 1}
    mask, again = (sequential_blocks(network, batches, **options) for _ in range(2))
    assert all((mask.kept[name] == again.kept[name]).all() for name in mask.kept)
    assert 4 * mask.kept_count == mask.size


def test_more_rounds_find_a_lower_loss_and_couplings_help(case):
    network, batches = case
    losses = [
        evaluate(network, batches, search).loss
        for search in (
            sequential_blocks(network, batches, evaluations=1, seed=0),
            sequential_blocks(network, batches, evaluations=200, blocks=Blocks(coupling=False), seed=0),
            sequential_blocks(network, batches, evaluations=60, seed=0),
            sequential_blocks(network, batches, evaluations=200, seed=0),
        )
    ]
    assert losses == sorted(losses, reverse=True)
    assert losses[-1] < evaluate(network, batches, greedy_exchanges(network, batches, evaluations=200, seed=0)).loss


def test_no_more_examples_are_passed_than_asked_for(case, monkeypatch):
    network, batches = case
    judged, drawn = [], []
    measure, models = Switches.measure, sequential._models
    monkeypatch.setattr(Switches, "measure", lambda self, *rest: judged.append(1) or measure(self, *rest))
    monkeypatch.setattr(sequential, "_models", lambda *given: drawn.append(1) or models(*given))
    sequential_blocks(network, batches, evaluations=40, seed=0)
    # The last loss is the harness's own check that the answer is finite.
    assert len(drawn) == 6 and len(judged) == 1 + 6 + 1
    assert 5 * len(drawn) + len(judged) - 1 <= 40


def test_every_round_is_logged_with_the_change_predicted_and_the_change_that_came(case, caplog):
    network, batches = case
    with caplog.at_level("INFO", logger="annealsubnet.tickets.sequential"):
        mask = sequential_blocks(network, batches, evaluations=61, batch_size=200, seed=0)
        start = sequential_blocks(network, batches, evaluations=1, batch_size=200, seed=0)
    rounds = [record.args for record in caplog.records]
    assert [number for number, *_ in rounds] == list(range(1, 11))
    assert rounds[0][2] < 0  # the first round has no price, and goes where the model says
    taken = sum(actual for _, _, _, actual, _, note in rounds if not note)
    pool = models_of(network, batches, Blocks())[0]
    ends = [pool.switches.measure(each.kept, *pool.draws.held_in(200))[0] for each in (start, mask)]
    assert ends[0] + taken == pytest.approx(ends[1], abs=1e-4)


def test_convolutions_have_blocks_too():
    data, named = load("digits", seed=0), named_network("digits-cnn")
    batches = list(data.batches("train", 100, normalize=named.normalize, examples=100))
    model = initialize(named.build(seed=0), keep=0.5, example=batches[0][0], seed=0)
    masks = [sequential_blocks(model, batches, evaluations=n, batch_size=100, seed=0) for n in (1, 43)]
    losses = [evaluate(model, batches, mask).loss for mask in masks]
    assert losses[1] < losses[0]
    assert [mask.kept_count for mask in masks] == [masks[0].kept_count] * 2


def test_other_units_and_settings_are_refused(case):
    network, batches = case
    with pytest.raises(ValueError, match="chooses weights"):
        sequential_blocks(network, batches, unit="neuron", seed=0)
    for wrong in ({"damping": 0.0}, {"temperature": -1.0}, {"num_sweeps": 0}, {"damping": np.nan}, {"damping": np.inf}):
        with pytest.raises(ValueError, match="damping is above 0"):
            Blocks(**wrong)
    assert isinstance(sequential_blocks(network, batches, evaluations=1, seed=0), Mask)


def test_the_price_of_a_flip_follows_what_came(case, monkeypatch):
    network, batches = case
    prices = []
    models = sequential._models
    monkeypatch.setattr(sequential, "_models", lambda *given: prices.append(given[-2]) or models(*given))
    monkeypatch.setattr(sequential, "trusted", lambda actual, predicted: 3.0)
    sequential_blocks(network, batches, evaluations=31, seed=0)
    assert prices[0] == 0 and prices[1] > 0
    np.testing.assert_allclose(np.divide(prices[2:], prices[1:-1]), 3.0)
