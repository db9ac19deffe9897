"""Searches without evidence: exact counts, better than a random mask, the same again, and the best of what was judged."""

import numpy as np
import pytest

from annealsubnet import evaluate
from annealsubnet.tickets import genetic, greedy_exchanges, random_masks
from annealsubnet.tickets.searches import trusted
from annealsubnet.tickets.switches import Switches

SEARCHES = [random_masks, genetic, greedy_exchanges]


@pytest.mark.parametrize("search", SEARCHES)
@pytest.mark.parametrize(("unit", "scope"), [("weight", "layer"), ("weight", "neuron"), ("neuron", "layer")])
def test_the_count_is_exact_and_the_answer_the_same_again(case, search, unit, scope):
    network, batches = case
    options = {"keep": 0.25, "unit": unit, "scope": scope, "evaluations": 80, "seed": 1}
    mask = search(network, batches, **options)
    again = search(network, batches, **options)
    assert all((mask.kept[name] == again.kept[name]).all() for name in mask.kept)
    assert 4 * mask.kept_count == mask.size
    if scope == "neuron":
        assert all((kept.sum(axis=0) == kept.shape[0] // 4).all() for kept in mask.kept.values())


@pytest.mark.parametrize(("search", "size"), [(random_masks, 500), (genetic, 500), (genetic, 100), (greedy_exchanges, 100)])
def test_more_evaluations_find_a_lower_loss(case, search, size):
    network, batches = case
    options = {"batch_size": size, "seed": 0}
    losses = [evaluate(network, batches, search(network, batches, evaluations=n, **options)).loss for n in (3, 300)]
    assert losses[1] < losses[0]


def test_random_masks_gives_the_best_of_what_it_judged(case):
    network, batches = case
    found = [evaluate(network, batches, random_masks(network, batches, evaluations=n, seed=2)).loss for n in range(1, 12)]
    assert found == sorted(found, reverse=True)


def test_greedy_goes_further_than_a_genetic_algorithm_and_that_further_than_chance(case):
    network, batches = case
    losses = [evaluate(network, batches, search(network, batches, evaluations=600, seed=0)).loss for search in SEARCHES]
    assert losses == sorted(losses, reverse=True)


def test_no_more_masks_are_judged_than_asked_for(case, monkeypatch):
    network, batches = case
    judged = []
    measure = Switches.measure
    monkeypatch.setattr(Switches, "measure", lambda self, *rest: judged.append(1) or measure(self, *rest))
    for size in (100, 500):
        judged.clear()
        genetic(network, batches, evaluations=130, batch_size=size, seed=0)
        assert 80 < len(judged) <= 130


def test_no_evaluations_are_refused(case):
    network, batches = case
    assert genetic(network, batches, evaluations=1, seed=0).kept_count == 888
    with pytest.raises(ValueError, match="evaluations must be at least 1"):
        genetic(network, batches, evaluations=0, seed=0)
    assert np.isfinite(evaluate(network, batches, random_masks(network, batches, evaluations=1, seed=0)).loss)


def test_flips_cost_less_where_the_model_was_right_and_more_where_it_was_not():
    assert trusted(-1.0, -1.0) < trusted(-0.4, -1.0) == 1.0 < trusted(-0.1, -1.0)
    assert trusted(0.5, -1.0) == trusted(np.inf, -1.0) == trusted(-1.0, 0.5) > 1.0
    assert trusted(0.0, 0.0) < trusted(-1.0, -1.0)
