"""The accelerator's kernels, on the CPU: the same optima and the same Boltzmann law as the compiled ones."""

import itertools

import numpy as np
import pytest
import scipy.sparse
from scipy import stats

from annealsubnet.problems import Problem
from annealsubnet.solvers import Annealer
from annealsubnet.solvers.jax_kernels import color_classes

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
