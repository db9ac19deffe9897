"""Many problems in one call: the same as one by one, whatever their sizes and the number of threads."""

import itertools

import numpy as np
import pytest
from scipy import stats

from annealsubnet.solvers import Annealer
from annealsubnet.solvers.schedules import default_beta_range


def random_problems(sizes, seed):
    rng = np.random.default_rng(seed)
    couplings = []
    for size in sizes:
        upper = np.triu(rng.normal(size=(size, size)), 1)
        couplings.append(upper + upper.T)
    return [rng.normal(size=size) for size in sizes], couplings


def energies(states, linear, couplings):
    x = states.astype(float)
    return x @ linear + 0.5 * np.einsum("...i,ij,...j->...", x, couplings, x)


@pytest.mark.parametrize("counted", [False, True])
def test_mixed_sizes_reach_their_optima(counted):
    sizes = [0, 1, 2, 5, 10, 12, 16, 17, 3] * 3
    linear, couplings = random_problems(sizes, 0)
    num_kept = np.array([size // 3 for size in sizes]) if counted else None
    samples = Annealer().sample_many(linear, couplings, num_kept=num_kept, num_reads=4, num_sweeps=200, seed=1, num_threads=2)
    lowest = samples.best()[1]
    for problem, size in enumerate(sizes):
        assert not samples.states[problem, :, size:].any()
        np.testing.assert_allclose(
            samples.energies[problem],
            energies(samples.states[problem, :, :size], linear[problem], couplings[problem]),
            atol=1e-12,
        )
        states = np.array(list(itertools.product((0, 1), repeat=size))).reshape(2**size, size)
        if counted:
            assert (samples.states[problem].sum(axis=1) == size // 3).all()
            states = states[states.sum(axis=1) == size // 3]
        optimum = energies(states, linear[problem], couplings[problem]).min()
        assert lowest[problem] == pytest.approx(optimum, abs=1e-9)


def test_neurons_share_one_matrix():
    rng = np.random.default_rng(2)
    inputs = rng.normal(size=(30, 10))
    moments = inputs.T @ inputs / 30
    scales, linear = rng.normal(size=(25, 10)), rng.normal(size=(25, 10))
    shared = Annealer().sample_many(linear, moments, scales=scales, num_kept=4, num_sweeps=100, seed=3)
    full = scales[:, :, None] * scales[:, None, :] * moments
    own = full[:, range(10), range(10)]
    separate = Annealer().sample_many(linear + own, 2 * full, num_kept=4, num_sweeps=100, seed=3)
    np.testing.assert_array_equal(shared.states, separate.states)
    x = shared.states.astype(float)
    expected = np.einsum("nri,nij,nrj->nr", x, full, x) + np.einsum("nri,ni->nr", x, linear)
    np.testing.assert_allclose(shared.energies, expected, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("num_kept", [None, 2])
def test_samples_follow_boltzmann(num_kept):
    linear, couplings = random_problems([6], 3)
    beta, count = 0.7, 20_000
    options = {"beta_range": (beta, beta), "num_sweeps": 25, "num_kept": num_kept, "state": "last"}
    found = Annealer().sample_many(linear, couplings, num_reads=count, seed=1, **options)
    states = np.array(list(itertools.product((0, 1), repeat=6)))
    states = states if num_kept is None else states[states.sum(axis=1) == num_kept]
    code = 2 ** np.arange(6)
    counts = np.bincount(found.states[0] @ code, minlength=64)[states @ code]
    weights = np.exp(-beta * energies(states, linear[0], couplings[0]))
    assert counts.sum() == count
    assert stats.chisquare(counts, count * weights / weights.sum()).pvalue > 1e-3


def test_threads_seeds_and_one_by_one():
    linear, couplings = random_problems([20] * 300, 4)
    options = {"num_reads": 2, "num_sweeps": 20}
    first = Annealer().sample_many(np.array(linear), np.array(couplings), seed=5, num_threads=1, **options)
    for num_threads in (2, 3):
        again = Annealer().sample_many(linear, couplings, seed=5, num_threads=num_threads, **options)
        np.testing.assert_array_equal(first.states, again.states)
    other = Annealer().sample_many(linear, couplings, seed=6, **options)
    assert (other.states != first.states).any()


@pytest.mark.parametrize("num_kept", [None, 5])
def test_the_compiled_default_range_is_the_documented_one(num_kept):
    linear, couplings = random_problems([20] * 5, 6)
    couplings[1] = np.sign(couplings[1])
    linear[1] = np.round(linear[1])
    samples = Annealer().sample_many(linear, couplings, num_kept=num_kept, num_sweeps=1, seed=0)
    for problem in range(5):
        share = None if num_kept is None else num_kept / 20
        expected = default_beta_range(linear[problem], couplings[problem], kept_share=share)
        np.testing.assert_allclose(samples.beta_ranges[problem], expected, rtol=1e-5)


def test_initial_states_are_kept_at_zero_sweeps():
    linear, couplings = random_problems([6, 4], 7)
    states = np.zeros((2, 6), bool)
    states[:, :2] = True
    options = {"initial_states": states, "num_sweeps": 0, "state": "last", "seed": 0, "num_reads": 3}
    samples = Annealer().sample_many(linear, couplings, num_kept=2, **options)
    assert (samples.states == states[:, None]).all()
    with pytest.raises(ValueError, match="num_kept asks for 3"):
        Annealer().sample_many(linear, couplings, num_kept=3, **options)


def test_what_does_not_fit_is_refused():
    annealer = Annealer()
    with pytest.raises(ValueError, match="couplings must be one square matrix"):
        annealer.sample_many(np.zeros((2, 3)), np.zeros((2, 3, 4)))
    with pytest.raises(ValueError, match="with scales"):
        annealer.sample_many(np.zeros((2, 3)), np.zeros((4, 4)), scales=np.ones((2, 3)))
    with pytest.raises(ValueError, match="num_kept of problem 1 is 4"):
        annealer.sample_many(np.zeros((2, 3)), np.zeros((2, 3, 3)), num_kept=[3, 4])
    with pytest.raises(ValueError, match="couplings holds 1 values"):
        annealer.sample_many(np.zeros((1, 2)), np.array([[[0, np.nan], [0, 0]]]))
    empty = annealer.sample_many(np.zeros((0, 5)), np.zeros((0, 5, 5)))
    assert empty.states.shape == (0, 1, 0)


def test_couplings_must_be_symmetric():
    annealer, upper = Annealer(), np.triu(np.ones((3, 4, 4)), 1)
    both, linear = upper + upper.transpose(0, 2, 1), np.zeros((3, 4))
    half = np.concatenate([both[:2], upper[:1]])
    for couplings in (half, list(half)):
        with pytest.raises(ValueError, match="couplings of problem 2 must be symmetric"):
            annealer.sample_many(linear, couplings, seed=0)
    with pytest.raises(ValueError, match="couplings must be symmetric"):
        annealer.sample_many(linear, upper[0], scales=np.ones((3, 4)), seed=0)
    rounded = both * (1 + 1e-8 * upper) + 5 * np.triu(np.ones((4, 4))) * np.eye(4)
    found = annealer.sample_many(linear - 1, rounded, seed=0, num_reads=2)
    np.testing.assert_allclose(found.energies, energies(found.states, linear[0] - 1, both[0]), atol=1e-6)


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"num_kept": 2.7}, TypeError, "num_kept must be a whole number"),
        ({"num_kept": [1, 1, 1]}, ValueError, "one for each of 2 problems"),
        ({"seed": 1.5}, TypeError, "seed must be a whole number"),
        ({"seed": -1}, ValueError, "seed must be at least 0"),
        ({"num_threads": 0}, ValueError, "num_threads must be at least 1"),
        ({"num_threads": -3}, ValueError, "num_threads must be at least 1"),
        ({"num_sweeps": 10.5}, TypeError, "num_sweeps must be a whole number"),
        ({"num_reads": 0}, ValueError, "num_reads must be at least 1"),
        ({"initial_states": [[-1, 1, -1, 1]] * 2}, ValueError, "initial_states must be 0 or 1.*there is -1"),
        ({"initial_states": [[0.5, 1, 0, 1]] * 2}, ValueError, "there is 0.5"),
        ({"initial_states": [[0, 1, 0]] * 2}, ValueError, r"initial_states must be \(2, 1, 4\)"),
    ],
)
def test_odd_values_are_refused_by_name(options, error, message):
    with pytest.raises(error, match=message):
        Annealer().sample_many(np.zeros((2, 4)), np.zeros((2, 4, 4)), **options)
