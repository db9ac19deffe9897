"""Presolve keeps the optimum, whatever the labels, and says what all its parts took."""

import dimod
import numpy as np
import pytest

from annealsubnet.solvers import Annealer
from annealsubnet.solvers.presolve import presolve


def random_bqm(size, seed, labels, vartype="BINARY"):
    """Sparse, its variables in a random order, some couplings an explicit zero."""
    rng = np.random.default_rng(seed)
    rows, columns = np.triu_indices(size, 1)
    used = rng.random(rows.size) < 0.25
    biases = rng.integers(-2, 3, rows.size) if seed % 2 else rng.normal(size=rows.size) * (rng.random(rows.size) < 0.7)
    linear = rng.integers(-3, 4, size) if seed % 2 else rng.normal(size=size)
    order = [labels[i] for i in rng.permutation(size)]
    quadratic = (rows[used], columns[used], biases[used])
    return dimod.BinaryQuadraticModel.from_numpy_vectors(linear, quadratic, 0.5, vartype, variable_order=order)


@pytest.mark.parametrize("vartype", ["BINARY", "SPIN"])
@pytest.mark.parametrize("labels", [range(9), range(3, 12), "abcdefghi"], ids=["positions", "integers", "letters"])
def test_the_optimum_stays_whatever_the_labels(labels, vartype):
    for seed in range(60):
        bqm = random_bqm(9, seed, labels, vartype)
        exact = dimod.ExactSolver().sample(bqm)
        best = exact.first.energy
        agrees = exact.record.energy <= best + 1e-9
        for variable, value in presolve(bqm).fixed.items():
            agrees &= exact.record.sample[:, exact.variables.index(variable)] == value
        assert agrees.any()
        found = Annealer().sample(bqm, presolve=True, num_reads=4, num_sweeps=50, seed=seed)
        assert found.first.energy == pytest.approx(best, abs=1e-9)


def test_a_zero_between_two_components_couples_nothing():
    bqm = dimod.BinaryQuadraticModel({}, {("a", "b"): -1.0, ("c", "d"): -1.0, ("c", "a"): 0.0}, 0.0, "SPIN")
    components = presolve(bqm).components
    assert [set(component.variables) for component in components] == [{"a", "b"}, {"c", "d"}]
    assert Annealer().sample(bqm, presolve=True, num_reads=2, seed=0).first.energy == -2.0


def test_info_is_of_all_components():
    pairs = {(i, i + 1): 1.0 for i in range(5)} | {(0, 2): 1.0, (10, 11): 8.0, (11, 12): 8.0, (10, 12): 8.0}
    bqm = dimod.BinaryQuadraticModel({}, pairs, 0.0, "SPIN")
    options = {"num_reads": 3, "num_sweeps": 7, "seed": 0}
    info = Annealer().sample(bqm, presolve=True, **options).info
    parts = [Annealer().sample(part, **options | {"seed": i}).info for i, part in enumerate(presolve(bqm).components)]
    assert info["components"] == len(parts) == 2
    for name in ("sweeps", "moves_tried", "moves_accepted"):
        assert info[name] == sum(part[name] for part in parts)
    assert info["beta_range"] == (parts[1]["beta_range"][0], parts[0]["beta_range"][1])
    settled = Annealer().sample(dimod.BinaryQuadraticModel({"a": 1.0}, {}, 0.0, "SPIN"), presolve=True, **options).info
    assert (settled["fixed"], settled["components"], settled["sweeps"], settled["kernel"]) == (1, 0, 0, None)


def test_biases_that_are_not_finite_are_refused_as_without_presolve():
    bqm = dimod.BinaryQuadraticModel({"a": np.nan, "b": 1.0}, {("a", "b"): 1.0}, 0.0, "SPIN")
    with pytest.raises(ValueError, match="bias of variable 'a' is nan"):
        Annealer().sample(bqm, presolve=True, seed=0)
