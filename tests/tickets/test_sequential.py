"""Sequential blocks: their model against the definition, their rounds against the loss, and what they refuse."""

import os
import subprocess
import sys

import numpy as np
import pytest

from annealsubnet import evaluate
from annealsubnet.budgets import budget_of
from annealsubnet.examples import load, named_network
from annealsubnet.losses import cross_entropy
from annealsubnet.tickets import Blocks, find_ticket, greedy_exchanges, initialize, sequential
from annealsubnet.tickets.draws import draws_of
from annealsubnet.tickets.quadratic import Terms, models_around
from annealsubnet.tickets.switches import Switches
from annealsubnet.tickets.thermal import ground_state


def in_blocks(network, batches, rounds, blocks=None, size=200, **options):
    """The mask after so many rounds, and their checks."""
    checks = []
    passes = rounds * size / sum(len(labels) for _, labels in batches)
    rule = Blocks() if blocks is None else blocks
    options = {"seed": 0, "report": checks.append} | options
    return find_ticket(network, batches, rule=rule, passes=passes, batch_size=size, **options), checks


def same(one, other):
    return all((one.kept[name] == other.kept[name]).all() for name in one.kept)


def models_of(network, batches, blocks, **prices):
    switches = Switches(network, budget_of(network, keep=0.5, unit="weight", scope="layer", exclude=()), cross_entropy)
    draws = draws_of(network, batches, cross_entropy, size=200, seed=0)
    generator = np.random.default_rng(0)
    kept = ground_state({name: generator.random(shape) for name, shape in switches.shapes.items()}, switches.budget, None)
    models, _ = models_around(switches, kept, draws.round(0), blocks, Terms(**prices), seed=0)
    return switches, draws, kept, models


def test_the_gradient_of_the_model_is_that_of_the_loss(case):
    network, batches = case
    switches, draws, kept, models = models_of(network, batches, Blocks())
    inputs, labels = draws.round(0)
    for name, model in models.items():
        for i, o in [(3, 2), (20, 5), (11, 9)]:
            there = {site: array.astype(np.float32) for site, array in kept.items()}
            losses = []
            for step in (-0.01, 0.01):
                moved = there | {name: there[name].copy()}
                moved[name][i, o] += step
                losses.append(switches.measure(moved, inputs, labels)[0])
            assert model.slopes[0, i, o] == pytest.approx((losses[1] - losses[0]) / 0.02, rel=0.05, abs=2e-4)


@pytest.mark.parametrize("coupling", [True, False])
def test_ranks_are_differences_of_the_model_and_annealing_ends_where_no_flip_helps(case, coupling):
    network, batches = case
    blocks = Blocks(temperature=0.0, num_sweeps=60, coupling=coupling)
    *_, kept, models = models_of(network, batches, blocks)
    for name, model in models.items():
        state = model.annealed(blocks, 1.0, (0,))
        assert model.change(state)[1] < 0
        ranks = model.ranks(state)
        for i, o in [(0, 0), (5, 3), (17, 8)]:
            opened, closed = state.copy(), state.copy()
            opened[0, i, o], closed[0, i, o] = True, False
            assert ranks[0, i, o] == pytest.approx(model.change(closed)[1] - model.change(opened)[1], abs=1e-9)
        assert (np.where(state, ranks, -ranks) >= -1e-6).all()
        assert (np.asarray(model.layer.from_matrix(model.kept)) == kept[name]).all()


def test_a_high_price_leaves_the_mask_as_it_is(case):
    network, batches = case
    blocks = Blocks(temperature=0.0)
    for model in models_of(network, batches, blocks, flip_price=1e6)[-1].values():
        assert (model.annealed(blocks, 1.0, (0,)) == model.kept).all()


def test_units_that_cost_more_than_they_bring_are_closed(case):
    network, batches = case
    blocks = Blocks(temperature=0.0)
    for model in models_of(network, batches, blocks, unit_price=1e6)[-1].values():
        assert not model.annealed(blocks, 1.0, (0,)).any()


@pytest.mark.parametrize("scope", ["layer", "neuron", "network"])
def test_the_count_is_exact_and_the_answer_the_same_again(case, scope):
    network, batches = case
    mask, again = (in_blocks(network, batches, 10, keep=0.25, scope=scope, seed=1)[0] for _ in range(2))
    assert same(mask, again)
    assert 4 * mask.kept_count == mask.size


def test_more_rounds_find_a_lower_loss_and_couplings_help(case):
    network, batches = case
    masks = [
        in_blocks(network, batches, 33, blocks=Blocks(coupling=False))[0],
        in_blocks(network, batches, 10)[0],
        in_blocks(network, batches, 33)[0],
    ]
    losses = [evaluate(network, batches, mask).loss for mask in masks]
    assert losses == sorted(losses, reverse=True)
    assert losses[-1] < evaluate(network, batches, greedy_exchanges(network, batches, evaluations=200, seed=0)).loss


def test_every_round_is_checked_and_its_mask_taken_where_the_loss_falls(case):
    network, batches = case
    mask, checks = in_blocks(network, batches, 20, keep=0.25)
    assert [check.round for check in checks] == list(range(1, 21))
    assert [check.accepted for check in checks] == [check.actual < 0 for check in checks]
    assert checks[0].predicted < 0  # the first round has no price, and goes where the model says
    assert all(check.held_in_loss == pytest.approx(check.loss + check.actual) for check in checks)
    taken = sum(check.actual for check in checks if check.accepted)
    switches, draws, *_ = models_of(network, batches, Blocks())
    assert checks[0].loss + taken == pytest.approx(switches.measure(mask.kept, *draws.held_in(200))[0], abs=1e-4)


def test_examples_that_are_passed_are_counted(case, monkeypatch):
    network, batches = case
    passed = []
    measure = Switches.measure
    monkeypatch.setattr(
        Switches,
        "measure",
        lambda self, gates, inputs, labels: passed.append(len(labels)) or measure(self, gates, inputs, labels),
    )
    _, checks = in_blocks(network, batches, 4, held_in=50)
    assert passed == [50] * 5
    assert [check.read for check in checks] == [50 + (5 * 200 + 50) * round for round in (1, 2, 3, 4)]


def test_convolutions_have_blocks_too():
    data, named = load("digits", seed=0), named_network("digits-cnn")
    batches = list(data.batches("train", 100, normalize=named.normalize, examples=100))
    model = initialize(named.build(seed=0), keep=0.5, example=batches[0][0], seed=0)
    mask, checks = in_blocks(model, batches, 7, size=100)
    assert evaluate(model, batches, mask).loss < checks[0].loss
    assert 2 * mask.kept_count == mask.size


def test_a_price_leaves_the_count_free_and_a_higher_one_keeps_less(case):
    network, batches = case
    (loose, checks), (tight, _) = (in_blocks(network, batches, 15, price=price) for price in (0.0, 3e-4))
    assert tight.kept_count < min(loose.kept_count, loose.size // 2)
    assert evaluate(network, batches, loose).loss < evaluate(network, batches, tight).loss < checks[0].loss


@pytest.mark.parametrize("rounds", [1, 9])
def test_a_schedule_starts_from_more_and_ends_with_what_was_asked_for(case, rounds):
    network, batches = case
    mask, checks = in_blocks(network, batches, rounds, keep=0.1, keep_from=0.8)
    counts = [check.kept for check in checks]
    assert counts == sorted(counts, reverse=True)
    assert mask.kept_count == counts[-1] == sum(round(0.1 * kept.size) for kept in mask.kept.values())
    assert set(counts[rounds // 2 :]) == {mask.kept_count}


def test_a_search_that_goes_on_ends_where_one_that_was_not_stopped_does(case, tmp_path):
    network, batches = case
    whole, checks = in_blocks(network, batches, 8)
    state = tmp_path / "search.npz"

    def stop(check):
        if check.round == 5:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        in_blocks(network, batches, 8, state_file=state, report=stop)
    resumed, rest = in_blocks(network, batches, 8, state_file=state, resume=True)
    assert same(whole, resumed)
    assert [check.round for check in rest] == [6, 7, 8]
    assert [check.actual for check in rest] == [check.actual for check in checks[5:]]
    with pytest.raises(ValueError, match=r"other settings: .*rule's damping"):
        in_blocks(network, batches, 8, blocks=Blocks(damping=3.0), state_file=state, resume=True)
    with pytest.raises(ValueError, match="other settings"):
        find_ticket(network, batches, seed=0, state_file=state, resume=True)


_THREADS = """
import numpy as np
from annealsubnet.examples.ticket_networks import ticket_network
from annealsubnet.tickets import Blocks, find_ticket, initialize
rng = np.random.default_rng(0)
batches = [(rng.normal(size=(500, 28, 28, 1)).astype(np.float32), rng.integers(0, 10, 500))]
model = initialize(ticket_network("lenet-300-100").build(seed=0), keep=0.5, example=batches[0][0], seed=0)
mask = find_ticket(model, batches, rule=Blocks(), passes=4, seed=0)
print([int(np.flatnonzero(kept).sum()) for kept in mask.kept.values()])
"""


def test_one_thread_finds_the_ticket_that_two_find():
    cores = sorted(os.sched_getaffinity(0))
    if len(cores) < 2:
        pytest.skip("takes two processors")
    answers = set()
    for count in (1, 2):
        code = f"import os; os.sched_setaffinity(0, {cores[:count]})\n{_THREADS}"
        answers.add(subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout)
    assert len(answers) == 1 and answers.pop().startswith("[")


def test_what_does_not_go_with_blocks_is_refused(case):
    network, batches = case
    with pytest.raises(ValueError, match="has couplings of its own"):
        find_ticket(network, batches, rule=Blocks(), coupling=1.0, seed=0)
    with pytest.raises(ValueError, match=r"At a price of 1\.0 no round found a better mask"):
        in_blocks(network, batches, 3, price=1.0)
    for price in (np.nan, np.inf, "1"):
        with pytest.raises(ValueError, match=r"price is .*; give a finite number"):
            find_ticket(network, batches, rule=Blocks(), price=price, seed=0)
    with pytest.raises(ValueError, match="batch_size must be at least 1; it is 0"):
        find_ticket(network, batches, rule=Blocks(), batch_size=0, seed=0)
    with pytest.raises(TypeError, match=r"give one that is made, such as .*Blocks\(\)"):
        find_ticket(network, batches, rule="blocks", seed=0)
    with pytest.raises(ValueError, match=r"No unit of 'fc\d' is kept"):
        find_ticket(network, batches, rule=Blocks(), keep=1, scope="network", seed=1)
    for wrong in ({"damping": 0.0}, {"temperature": -1.0}, {"num_sweeps": 0}, {"damping": np.nan}, {"damping": np.inf}):
        with pytest.raises(ValueError, match=f"{next(iter(wrong))} (is|must be)"):
            Blocks(**wrong)
    with pytest.raises(ValueError, match="inputs that are NaN or infinite"):
        in_blocks(network, batches, 2, augment=lambda inputs, generator: inputs * np.nan)


def test_the_price_of_a_flip_follows_what_came(case, monkeypatch):
    network, batches = case
    prices = []
    models = models_around
    monkeypatch.setattr(
        sequential, "models_around", lambda *given, **options: prices.append(given[-1].flip_price) or models(*given, **options)
    )
    monkeypatch.setattr(sequential, "trusted", lambda actual, predicted: 3.0)
    in_blocks(network, batches, 5)
    assert prices[0] == 0 and prices[1] > 0
    np.testing.assert_allclose(np.divide(prices[2:], prices[1:-1]), 3.0)
