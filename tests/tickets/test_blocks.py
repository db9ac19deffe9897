"""Blocks: the compiled heat bath against its energy and the Boltzmann distribution."""

import numpy as np
import pytest

from annealsubnet.tickets.blocks import anneal_blocks, block_energy


def problem(neurons=3, inputs=6, seed=0):
    generator = np.random.default_rng(seed)
    activity = generator.normal(size=(50, inputs)).astype(np.float32)
    fields, weights = generator.normal(size=(2, neurons, inputs)).astype(np.float32)
    return fields, weights, activity.T @ activity / 50, generator.random((neurons, inputs)) < 0.5


def test_at_zero_temperature_no_flip_helps_any_more():
    fields, weights, moment, mask = problem()
    found = anneal_blocks(fields, weights, moment, mask, coupling=0.7, temperature=0.0, num_sweeps=50, seed=0)
    energy = block_energy(fields, weights, moment, mask, found, 0.7)
    assert (energy <= block_energy(fields, weights, moment, mask, mask, 0.7) + 1e-6).all()
    for i in range(fields.shape[1]):
        other = found.copy()
        other[:, i] ^= True
        assert (block_energy(fields, weights, moment, mask, other, 0.7) >= energy - 1e-5).all()


def test_without_couplings_the_ground_state_is_the_sign_of_the_field():
    fields, weights, moment, mask = problem()
    found = anneal_blocks(fields, weights, moment, mask, coupling=0.0, temperature=0.0, num_sweeps=2, seed=0)
    assert (found == (fields > 0)).all()


def test_many_sweeps_sample_the_boltzmann_distribution():
    fields, weights, moment, mask = problem(neurons=1, inputs=4)
    copies = 20000
    many = [np.repeat(array, copies, axis=0) for array in (fields, weights, mask)]
    found = anneal_blocks(many[0], many[1], moment, many[2], coupling=0.5, temperature=1.0, num_sweeps=30, seed=1)
    states = (np.arange(16)[:, None] >> np.arange(4)) & 1
    energy = block_energy(fields, weights, moment, mask, states.astype(bool), 0.5)
    wanted = np.exp(-energy) / np.exp(-energy).sum()
    seen = np.bincount((found << np.arange(4)).sum(axis=1), minlength=16) / copies
    assert np.abs(seen - wanted).max() < 0.012


@pytest.mark.parametrize("threads", [2, 3])
def test_threads_do_not_matter(threads):
    fields, weights, moment, mask = problem(neurons=40)
    options = {"coupling": 0.5, "temperature": 0.5, "num_sweeps": 3, "seed": 2}
    one = anneal_blocks(fields, weights, moment, mask, num_threads=1, **options)
    assert (one == anneal_blocks(fields, weights, moment, mask, num_threads=threads, **options)).all()
