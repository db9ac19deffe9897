"""Blocks: the compiled heat bath against its energy and the Boltzmann distribution."""

import numpy as np
import pytest

from annealsubnet.tickets.blocks import anneal_blocks, block_energy, scaled_to_one


def problem(neurons=3, inputs=6, seed=0, coupling=0.7):
    generator = np.random.default_rng(seed)
    activity = generator.normal(size=(50, inputs)).astype(np.float32)
    fields, weights = generator.normal(size=(2, neurons, inputs)).astype(np.float32)
    moment = activity.T @ activity / 50
    return fields, np.sqrt(coupling) * scaled_to_one(weights, moment), moment, generator.random((neurons, inputs)) < 0.5


def test_at_zero_temperature_no_flip_helps_any_more():
    fields, scales, moment, mask = problem()
    found = anneal_blocks(fields, scales, moment, mask, temperature=0.0, num_sweeps=50, seed=0)
    energy = block_energy(fields, scales, moment, mask, found)
    assert (energy <= block_energy(fields, scales, moment, mask, mask) + 1e-6).all()
    for i in range(fields.shape[1]):
        other = found.copy()
        other[:, i] ^= True
        assert (block_energy(fields, scales, moment, mask, other) >= energy - 1e-5).all()


def test_without_couplings_the_ground_state_is_the_sign_of_the_field():
    fields, scales, moment, mask = problem(coupling=0.0)
    found = anneal_blocks(fields, scales, moment, mask, temperature=0.0, num_sweeps=2, seed=0)
    assert (found == (fields > 0)).all()


def test_many_sweeps_sample_the_boltzmann_distribution():
    fields, scales, moment, mask = problem(neurons=1, inputs=4, coupling=0.5)
    copies = 20000
    many = [np.repeat(array, copies, axis=0) for array in (fields, scales, mask)]
    found = anneal_blocks(many[0], many[1], moment, many[2], temperature=1.0, num_sweeps=30, seed=1)
    states = (np.arange(16)[:, None] >> np.arange(4)) & 1
    energy = block_energy(fields, scales, moment, mask, states.astype(bool))
    wanted = np.exp(-energy) / np.exp(-energy).sum()
    seen = np.bincount((found << np.arange(4)).sum(axis=1), minlength=16) / copies
    assert np.abs(seen - wanted).max() < 0.012


@pytest.mark.parametrize("threads", [2, 3])
def test_threads_do_not_matter(threads):
    fields, scales, moment, mask = problem(neurons=40, coupling=0.5)
    options = {"temperature": 0.5, "num_sweeps": 3, "seed": 2}
    one = anneal_blocks(fields, scales, moment, mask, num_threads=1, **options)
    assert (one == anneal_blocks(fields, scales, moment, mask, num_threads=threads, **options)).all()


def test_scales_give_the_diagonal_a_mean_of_one_however_large_the_weights():
    rng = np.random.default_rng(0)
    weights, moment = rng.normal(size=(3, 6)) * np.array([[1e-3], [1.0], [1e3]]), problem()[2]
    np.testing.assert_allclose((scaled_to_one(weights, moment) ** 2 * np.diag(moment)).mean(axis=1), 1.0, rtol=1e-6)
    assert not scaled_to_one(np.zeros((2, 6)), moment).any()


def test_what_is_cooled_ends_where_no_flip_helps_and_what_is_not_does_not():
    fields, scales, moment, mask = problem(neurons=200)
    ends = []
    for cooled in (True, False):
        options = {"temperature": 2.0, "num_sweeps": 50, "seed": 3, "cooled": cooled}
        found = anneal_blocks(fields, scales, moment, mask, **options)
        energy, flipped = block_energy(fields, scales, moment, mask, found), []
        for i in range(fields.shape[1]):
            other = found.copy()
            other[:, i] ^= True
            flipped.append(block_energy(fields, scales, moment, mask, other))
        ends.append((np.min(flipped, axis=0) >= energy - 1e-5).mean())
    assert ends[0] == 1.0 and ends[1] < 0.5
