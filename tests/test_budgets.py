"""Budgets: exact counts, and the best units within them."""

from decimal import Decimal

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from annealsubnet.budgets import budget_of, keep_best, largest
from annealsubnet.masks import Mask
from tests.models import EXAMPLES


@given(st.lists(st.integers(0, 4), min_size=1, max_size=30), st.integers(0, 30))
def test_largest_is_a_stable_sort(values, count):
    scores = np.array(values, np.float32)
    count = min(count, len(values))
    wanted = np.zeros(len(values), bool)
    wanted[np.argsort(-scores, kind="stable")[:count]] = True
    np.testing.assert_array_equal(largest(scores, count), wanted)
    table = np.stack([scores, scores[::-1]], axis=1)
    np.testing.assert_array_equal(largest(table, count, axis=0)[:, 0], wanted)


def random_scores(budget, seed=0):
    generator = np.random.default_rng(seed)
    # Few distinct values, so that ties are common.
    return {name: generator.integers(0, 5, budget.shapes[name]).astype(np.float32) for name in budget.selected}


@settings(max_examples=30, deadline=None)
@given(
    st.sampled_from(["mlp", "cnn", "residual", "separable"]),
    st.sampled_from(
        [("weight", "network"), ("weight", "layer"), ("weight", "neuron"), ("neuron", "network"), ("neuron", "layer")]
    ),
    st.sampled_from([0.2, 0.35, 0.5, 0.77, 1.0]),
    st.booleans(),
)
def test_kept_counts_are_exact(name, how, keep, leave_one):
    unit, scope = how
    network = EXAMPLES[name]().network()
    exclude = [next(iter(network.layers))] if leave_one else []
    budget = budget_of(network, keep=keep, unit=unit, scope=scope, exclude=exclude)
    mask = Mask.of(network, unit, keep_best(random_scores(budget), budget))
    assert sum(int(mask.kept[site].sum()) for site in budget.selected) == budget.total
    assert all(kept.all() for site, kept in mask.kept.items() if site not in budget.selected)
    assert (not leave_one) or exclude[0] not in budget.selected
    if scope == "network":
        assert budget.total == int(Decimal(str(keep)) * budget.size + Decimal("0.5"))
        assert unit == "weight" or all(kept.any() for kept in mask.kept.values())
    if scope == "layer":
        assert all(int(mask.kept[site].sum()) == count for site, count in budget.counts.items())
    if scope == "neuron":
        for site, count in budget.counts.items():
            assert (network.layers[site].matrix(mask.kept[site]).sum(axis=1) == count).all()


def test_the_best_are_kept():
    network = EXAMPLES["mlp"]().network()
    budget = budget_of(network, keep=10, unit="weight", scope="network")
    scores = random_scores(budget)
    kept = keep_best(scores, budget)
    kept_scores = np.concatenate([scores[name][kept[name]] for name in scores])
    dropped = np.concatenate([scores[name][~kept[name]] for name in scores])
    assert kept_scores.min() >= dropped.max() and len(kept_scores) == 10


def test_every_site_keeps_its_best_neuron():
    network = EXAMPLES["mlp"]().network()
    budget = budget_of(network, keep=3, unit="neuron", scope="network")
    kept = keep_best({"fc1": np.arange(8.0) + 100, "fc2": np.arange(7.0)}, budget)
    assert kept["fc1"].tolist() == [False] * 6 + [True] * 2 and kept["fc2"].tolist() == [False] * 6 + [True]


def test_halves_are_rounded_up_in_decimals():
    network = EXAMPLES["transformer"]().network()
    counts = budget_of(network, keep=0.5, unit="neuron", scope="layer").counts
    assert counts["up"] == 5  # of 9
    size = budget_of(network, keep=1.0, unit="weight", scope="network").size
    fraction = 0.29
    total = budget_of(network, keep=fraction, unit="weight", scope="network").total
    assert total == int(Decimal("0.29") * size + Decimal("0.5"))


def test_a_mapping_names_layers_and_leaves_the_others_alone():
    network = EXAMPLES["residual"]().network()
    # The shortcut's neurons are those of the block's last convolution.
    budget = budget_of(network, keep={"second/shortcut": 2, "first/conv1": 0.5}, unit="neuron", scope="network")
    assert dict(budget.counts) == {"first/conv1": 2, "second/conv2": 2} and budget.scope == "layer"
    kept = keep_best(random_scores(budget), budget)
    assert kept["stem"].all() and kept["second/conv2"].sum() == 2
    assert budget_of(network, keep={"stem": 1.0}, unit="neuron", scope="layer", exclude=("second/shortcut",)).total == 4


def test_weights_need_no_trace():
    example = EXAMPLES["cnn"]()
    bare = budget_of(example.nnx, keep=0.1, unit="weight", scope="layer")
    traced = budget_of(example.network(), keep=0.1, unit="weight", scope="layer")
    assert dict(bare.counts) == dict(traced.counts)


def test_what_it_says_of_itself():
    budget = budget_of(EXAMPLES["mlp"]().network(), keep=0.1, unit="weight", scope="network")
    assert repr(budget) == "Budget(13 of 125 weights by network in 3 sites)"


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"keep": 0.0}, "keep=0.0 is no fraction"),
        ({"keep": 1.5}, "keep=1.5 is no fraction: give a float above 0 and at most 1"),
        ({"keep": -0.1}, "keep=-0.1 is no fraction"),
        ({"keep": float("nan")}, "keep=nan is no fraction"),
        ({"keep": 0}, "keep=0 asks for 0 of the 15 neurons"),
        ({"keep": 16}, "keep=16 asks for 16 of the 15 neurons of the network; give 1 to 15"),
        ({"keep": 9, "scope": "layer"}, "keep=9 asks for 9 of the 8 neurons of 'fc1'"),
        ({"keep": 1}, "keep=1 leaves 1 neurons for 2 layers; each needs at least one"),
        ({"keep": 0.01, "scope": "layer"}, "keep=0.01 leaves none of the 8 neurons of 'fc1'; give at least 0.12"),
        ({"keep": True}, "keep=True is neither a fraction, nor a count, nor a mapping"),
        ({"keep": "half"}, "keep='half' is neither"),
        ({"keep": {"fc9": 0.5}}, r"keep names 'fc9', which the network does not have; it has \['fc1', 'fc2'\]"),
        ({"keep": {"out": 0.5}}, "keep names 'out', which has no such units: its outputs are the network's outputs"),
        ({"keep": {"fc1": 9}}, "keep=9 asks for 9 of the 8 neurons of 'fc1'"),
        ({"keep": {}}, "There are no neurons to select"),
        ({"exclude": ("fc9",)}, r"exclude names 'fc9', which the network does not have; it has \['fc1', 'fc2', 'out'\]"),
        ({"exclude": ("fc1", "fc2")}, "There are no neurons to select: keep and exclude leave none"),
        ({"unit": "head"}, "There are no heads to select"),
        ({"unit": "synapse"}, "unit is one of 'weight', 'neuron', 'head', not 'synapse'"),
        ({"scope": "world"}, "scope for neurons is one of 'network', 'layer', not 'world'"),
        ({"scope": "neuron"}, "scope for neurons is one of 'network', 'layer', not 'neuron'"),
        ({"unit": "weight", "scope": "neuron", "keep": 8}, "keep=8 asks for 8 of the 6 weights that feed each neuron of 'fc1'"),
    ],
)
def test_refusals(options, says):
    network = EXAMPLES["mlp"]().network()
    with pytest.raises(ValueError, match=says):
        budget_of(network, **{"keep": 0.5, "unit": "neuron", "scope": "network", **options})


@pytest.mark.parametrize(
    ("scope", "keep"), [("network", 0.1), ("layer", {"fc1": 3, "fc2": 1.0}), ("neuron", {"fc1": 1, "fc2": 6, "out": 0.5})]
)
def test_on_the_way_the_total_is_what_masks_of_these_counts_keep(scope, keep):
    budget = budget_of(EXAMPLES["mlp"]().network(), keep=keep, unit="weight", scope=scope)
    scores = {name: np.random.default_rng(0).random(budget.shapes[name]) for name in budget.selected}
    for change in (budget, *(budget.stage(progress) for progress in (0.0, 0.5, 0.9, 1.0)), budget.enlarged(2.3)):
        kept = keep_best(scores, change)
        assert change.total == sum(int(kept[name].sum()) for name in budget.selected)
    assert budget.stage(0.0).total == budget.size and budget.stage(1.0) == budget


def test_two_counts_for_one_site():
    network = EXAMPLES["residual"]().network()
    with pytest.raises(ValueError, match="keep asks for 2 and 3 of the units that 'second/conv2' shares"):
        budget_of(network, keep={"second/shortcut": 2, "second/conv2": 3}, unit="neuron", scope="layer")


@pytest.mark.parametrize(
    ("scores", "says"),
    [
        ({"fc1": np.ones(8)}, r"no scores for 'fc2'; there are for \['fc1'\]"),
        ({"fc1": np.ones(8), "fc2": np.ones(8)}, r"scores of 'fc2' have shape \(8,\); its units have \(7,\)"),
        ({"fc1": np.full(8, np.nan), "fc2": np.ones(7)}, "Layer 'fc1' has 8 of 8 scores that are NaN or infinite"),
    ],
)
def test_scores_that_cannot_be(scores, says):
    budget = budget_of(EXAMPLES["mlp"]().network(), keep=0.5, unit="neuron", scope="layer")
    with pytest.raises(ValueError, match=says):
        keep_best(scores, budget)
