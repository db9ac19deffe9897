"""The accelerator's kernels: the same optima and the same Boltzmann law as the compiled ones (JAX_PLATFORMS says where)."""

import itertools

import jax
import numpy as np
import pytest
import scipy.sparse
from scipy import stats

from annealsubnet.problems import Problem
from annealsubnet.solvers import Annealer, annealing, compiled, jax_kernels
from annealsubnet.solvers.jax_kernels import color_classes
from annealsubnet.solvers.options import Options

STATES = np.array(list(itertools.product((0, 1), repeat=12)))


def random_problem(size, seed, density):
    rng = np.random.default_rng(seed)
    upper = np.triu(rng.normal(size=(size, size)) * (rng.random((size, size)) < density), 1)
    return Problem(rng.normal(size=size), upper + upper.T)


@pytest.mark.parametrize(("density", "num_kept"), [(1.0, None), (0.03, None), (1.0, 4), (0.03, 4)])
def test_optimum_and_boltzmann(density, num_kept):
    problem = random_problem(12, 0, density)
    allowed = STATES if num_kept is None else STATES[STATES.sum(axis=1) == num_kept]
    energies = problem.energy(allowed)
    options = {"num_kept": num_kept, "backend": "jax", "seed": 1}
    found = Annealer().sample(problem.to_bqm(), num_reads=32, num_sweeps=60, **options)
    assert found.info["kernel"] == "jax"
    assert found.first.energy == pytest.approx(energies.min(), abs=1e-9)
    np.testing.assert_allclose(found.record.energy, problem.energy(found.record.sample), atol=1e-12)
    samples = (
        Annealer().sample(problem.to_bqm(), num_reads=20_000, beta_schedule=[1.0] * 25, state="last", **options).record.sample
    )
    weights = np.exp(-(energies - energies.min()))
    code = 2 ** np.arange(12)
    counts = np.bincount(samples @ code, minlength=4096)[allowed @ code]
    expected = len(samples) * weights / weights.sum()
    large = expected >= 5
    observed = np.append(counts[large], counts[~large].sum())
    predicted = np.append(expected[large], expected[~large].sum())
    assert counts.sum() == len(samples)
    assert stats.chisquare(observed[predicted > 0], predicted[predicted > 0]).pvalue > 1e-3


@pytest.mark.parametrize(("block", "size"), [(1, 37), (5, 37), (16, 37), (16, 12)])
def test_flips_one_after_the_other(block, size, monkeypatch):
    rng = np.random.default_rng(0)
    couplings = rng.integers(-8, 9, (2, size, size)).astype(np.float32)
    couplings = np.triu(couplings, 1) + np.triu(couplings, 1).transpose(0, 2, 1)
    linear, states = rng.integers(-8, 9, (2, size)).astype(np.float32), rng.random((2, 3, size)) < 0.5
    betas, key = np.geomspace(0.01, 1.0, 6).astype(np.float32), jax.random.key(0)
    monkeypatch.setattr(jax_kernels, "_BLOCK", block)
    jax.clear_caches()
    found = jax_kernels.flip_dense(linear, couplings, states, betas, key, keep_best=False)
    expected = states.copy()
    for beta, sweep_key in zip(betas, jax.random.split(key, betas.size), strict=True):
        limits = np.asarray(jax.random.exponential(sweep_key, (size, 2, 3)))
        for i in range(size):
            fields = linear[:, None, i] + np.einsum("prj,pj->pr", expected, couplings[:, i])
            expected[:, :, i] ^= beta * np.where(expected[:, :, i], -1, 1) * fields < limits[i]
    np.testing.assert_array_equal(found, expected)


def test_a_device_is_chosen_for_many_large_reads(monkeypatch):
    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
    energy = compiled.energy_of(random_problem(60, 4, 1.0).to_bqm())
    wide, narrow = {"num_reads": 20_000, "num_sweeps": 1000}, {"num_reads": 20, "num_sweeps": 1_000_000}
    assert annealing._on_device(energy, Options(**wide))
    assert not annealing._on_device(energy, Options(**narrow))
    assert not annealing._on_device(energy, Options(**wide, num_kept=4))


def test_temperature_zero_and_options():
    problem = random_problem(12, 2, 1.0)
    zero = Annealer().sample(problem.to_bqm(), beta_range=(np.inf, np.inf), num_sweeps=10, seed=0, backend="jax")
    for state, energy in zip(zero.record.sample, zero.record.energy, strict=True):
        flipped = np.abs(state - np.eye(12, dtype=int))
        assert (problem.energy(flipped) >= energy - 1e-9).all()
    with pytest.raises(ValueError, match='backend "jax" has no target'):
        Annealer().sample(problem.to_bqm(), backend="jax", target=0.0)


def test_colors_share_no_coupling():
    couplings = scipy.sparse.csr_array(random_problem(60, 3, 0.1).couplings)
    classes = color_classes(couplings)
    assert sorted(classes[classes < 60].tolist()) == list(range(60))
    for members in classes:
        inside = members[members < 60]
        assert not couplings[inside][:, inside].nnz
