"""What a difference of accuracies is worth, over seeds and over images."""

import numpy as np
import pytest

from benchmarks.verdicts import cell, gap, packed, unpacked


@pytest.mark.parametrize("shape", [(7,), (2, 5), (3, 4, 3)])
def test_verdicts_survive_a_row(shape):
    right = np.random.default_rng(0).random(shape) < 0.7
    np.testing.assert_array_equal(unpacked(packed(right)), right)


def test_one_seed_has_the_error_of_its_discordant_images():
    """McNemar's: b images are right in one alone, c in the other, and the sum of ±1 has variance b + c − (b − c)² / N."""
    rng = np.random.default_rng(1)
    theirs, ours = rng.random((1, 500)) < 0.8, rng.random((1, 500)) < 0.7
    b, c = (theirs & ~ours).sum(), (~theirs & ours).sum()
    found = gap(theirs, ours)
    assert found.mean == pytest.approx(100 * (b - c) / 500)
    assert found.over_both == pytest.approx(100 * np.sqrt((b + c - (b - c) ** 2 / 500) / 499 / 500))
    assert np.isnan(found.over_seeds)


def _drawn(rng, seeds, images, *, by_seed, by_image):
    """Verdicts of two methods that differ by chance in every seed, every image and every pair."""
    lean = by_seed * rng.standard_normal((seeds, 1)) + by_image * rng.standard_normal(images)
    return (rng.standard_normal((seeds, images)) + lean > -1), (rng.standard_normal((seeds, images)) > -1)


@pytest.mark.parametrize(("by_seed", "by_image"), [(0.0, 0.0), (0.15, 0.0), (0.0, 0.8), (0.15, 0.8)])
def test_the_error_over_both_is_the_spread_of_the_mean_when_all_is_drawn_again(by_seed, by_image):
    rng = np.random.default_rng(2)
    found = [gap(*_drawn(rng, 6, 400, by_seed=by_seed, by_image=by_image)) for _ in range(400)]
    spread = np.std([each.mean for each in found])
    # Of three estimates the largest is taken, so it is rather too large, most where neither source is there.
    assert 0.9 * spread < np.sqrt(np.mean([each.over_both**2 for each in found])) < 1.25 * spread


def test_the_error_over_seeds_does_not_see_that_the_images_are_shared():
    rng = np.random.default_rng(3)
    found = [gap(*_drawn(rng, 6, 400, by_seed=0.0, by_image=0.8)) for _ in range(200)]
    assert np.mean([each.over_seeds for each in found]) < 0.8 * np.std([each.mean for each in found])


def test_a_cell_compares_over_the_seeds_that_both_have():
    right = {seed: np.arange(10) < 5 + seed for seed in range(3)}
    ours = {seed: np.arange(10) < 6 + seed for seed in (1, 2, 4)}
    assert cell(right, ours) == "60.00 (-10.00 ± 0.00 / 6.67)"  # images 6 and 7, each in one of two seeds
    assert cell(ours, ours) == "83.33"
    assert cell(right, {7: right[0]}) == "60.00"


def test_verdicts_of_other_images_are_not_compared():
    with pytest.raises(ValueError, match=r"\(2, 9\) cannot be compared with those of shape \(2, 10\)"):
        gap(np.ones((2, 9), bool), np.ones((2, 10), bool))
