"""Patterns of zeros: exact in every group and block, better than magnitude's, and one sentence for every mistake."""

from functools import partial

import numpy as np
import pytest
from flax import nnx

from annealsubnet import baselines, prune, refit
from annealsubnet.baselines.selection import keep_pattern
from annealsubnet.networks import as_network
from annealsubnet.patterns import parse_pattern


class Network(nnx.Module):
    """Two layers whose fan-ins are 16 and 8."""

    def __init__(self) -> None:
        self.first = nnx.Linear(16, 8, rngs=nnx.Rngs(0))
        self.out = nnx.Linear(8, 4, rngs=nnx.Rngs(1))

    def __call__(self, inputs):
        return self.out(nnx.relu(self.first(inputs)))


@pytest.fixture(scope="module")
def inputs():
    rng = np.random.default_rng(0)
    return (rng.normal(size=(200, 16)) @ rng.normal(size=(16, 16))).astype(np.float32)


def error(model, pruned, inputs):
    return float(((np.asarray(model(inputs)) - np.asarray(pruned(inputs))) ** 2).mean())


@pytest.mark.parametrize("pattern", ["2:4", "4:8", "1:4", "3:4"])
def test_groups_keep_what_the_pattern_says(pattern, inputs):
    model = Network()
    stays, size = map(int, pattern.split(":"))
    for choose in (prune, baselines.magnitude):
        mask, pruned = choose(model, [inputs], pattern=pattern, seed=0)
        for name, kept in mask.kept.items():
            assert (kept.reshape(-1, size, kept.shape[1]).sum(axis=1) == stays).all()
            assert not np.asarray(getattr(pruned, name).kernel[...])[~kept].any()
    magnitude = refit(model, baselines.magnitude(model, [inputs], pattern=pattern)[0], [inputs])
    ours = prune(model, [inputs], pattern=pattern, polish=0, seed=0, exclude=("out",))[1]
    assert error(model, ours, inputs) < error(model, magnitude, inputs)


@pytest.mark.parametrize("pattern", ["4x1", "2x4", "8x2"])
def test_blocks_stay_or_go_together(pattern, inputs):
    model = Network()
    rows, columns = map(int, pattern.split("x"))
    for choose in (partial(prune, polish=0), baselines.magnitude):
        mask, _ = choose(model, [inputs], keep=0.5, pattern=pattern, seed=0)
        for kept in mask.kept.values():
            blocks = kept.reshape(kept.shape[0] // rows, rows, kept.shape[1] // columns, columns).sum(axis=(1, 3))
            assert set(np.unique(blocks)) <= {0, rows * columns}
            assert (kept.sum(axis=0) == max(round(0.5 * kept.shape[0] / rows), 1) * rows).all()


@pytest.mark.parametrize(("keep", "blocks"), [(10, 3), (6, 2), (2, 1), (1, 1), (0.625, 3), (0.375, 2), (0.34, 1), (1.0, 4)])
def test_numbers_of_blocks_are_rounded_half_up_as_all_shares_are(keep, blocks, inputs):
    mask, _ = baselines.magnitude(Network(), [inputs], keep={"first": keep}, pattern="4x1")
    assert (mask.kept["first"].sum(axis=0) == 4 * blocks).all()


def test_scores_are_compared_within_a_group_and_summed_over_a_block():
    scores = np.arange(16.0).reshape(1, 8, 2)
    assert keep_pattern(scores, parse_pattern("1:4"), 2)[0, :, 0].tolist() == [False, False, False, True] * 2
    assert keep_pattern(scores, parse_pattern("4x2"), 4)[0].sum(axis=1).tolist() == [0] * 4 + [2] * 4


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"pattern": "3:5"}, "does not divide the 16 inputs of layer 'first'.*exclude"),
        ({"pattern": "1:64"}, "does not divide the 16 inputs of layer 'first'.*exclude"),
        ({"pattern": "2x3", "keep": 0.5}, "does not divide the 8 neurons of layer 'first'"),
        ({"pattern": "4:2"}, "pattern is '4:2'; give 'N:M'"),
        ({"pattern": "two"}, "pattern is 'two'"),
        ({"pattern": "2:4", "keep": 0.5}, "the pattern says how many stay"),
        ({"pattern": "4x1"}, "keep is missing"),
        ({}, "keep is missing"),
        ({"pattern": "2:4", "unit": "neuron"}, "is for weights"),
    ],
)
def test_bad_patterns_are_named(options, words, inputs):
    for choose in (prune, baselines.magnitude):
        with pytest.raises(ValueError, match=words):
            choose(as_network(Network(), inputs), [inputs], seed=0, **options)


def test_a_layer_that_the_pattern_does_not_divide_can_be_left_alone(inputs):
    mask, _ = prune(Network(), [inputs], pattern="8:16", exclude=("out",), polish=0, seed=0)
    assert mask.kept["first"].sum() == 64 and mask.kept["out"].all()


def test_what_a_pattern_does_not_go_with_is_refused(inputs):
    for options in ({"rounds": 2}, {"refit": False}):
        with pytest.raises(ValueError, match="select-and-refit annealer"):
            prune(Network(), [inputs], pattern="2:4", seed=0, **options)


def test_a_pattern_that_is_no_word_is_refused_in_words():
    with pytest.raises(ValueError, match="pattern is 24; give 'N:M'"):
        parse_pattern(24)
