"""The annealer finds optima, samples Boltzmann's law, keeps counts exactly, and is a well-behaved dimod sampler."""

import itertools
import time
import unittest

import dimod
import dimod.testing
import numpy as np
import pytest
from scipy import stats

from annealsubnet.solvers import Annealer


@dimod.testing.load_sampler_bqm_tests(Annealer)
class TestConformance(unittest.TestCase):
    def test_api(self):
        dimod.testing.assert_sampler_api(Annealer())


def random_bqm(size, seed, *, vartype="BINARY", density=1.0, integer=False):
    rng = np.random.default_rng(seed)
    rows, columns = np.triu_indices(size, 1)
    used = rng.random(rows.size) < density
    biases = rng.integers(-3, 4, rows.size) if integer else rng.normal(size=rows.size)
    linear = rng.integers(-3, 4, size) if integer else rng.normal(size=size)
    quadratic = (rows[used], columns[used], biases[used])
    return dimod.BinaryQuadraticModel.from_numpy_vectors(linear, quadratic, 0.5, vartype)


def all_states(size, vartype="BINARY"):
    states = np.array(list(itertools.product((0, 1), repeat=size)), dtype=np.int8)
    return states if vartype == "BINARY" else 2 * states - 1


def allowed(states, groups):
    return np.all([(states[:, list(members)] > 0).sum(axis=1) == count for members, count in groups], axis=0)


GROUPS = {
    "free": None,
    "kept": [(range(16), 5)],
    "groups": [(range(0, 16, 2), 3), (range(1, 9, 2), 1)],
    "four of four": [(range(4 * g, 4 * g + 4), 2) for g in range(4)],
}


@pytest.mark.parametrize("vartype", ["BINARY", "SPIN"])
@pytest.mark.parametrize("density", [1.0, 0.03])
@pytest.mark.parametrize("kind", GROUPS)
def test_optimum_by_enumeration(kind, density, vartype):
    states = all_states(16, vartype)
    if GROUPS[kind]:
        states = states[allowed(states, GROUPS[kind])]
    for seed in range(25):  # with both densities and vartypes a hundred of each kind
        bqm = random_bqm(16, seed, vartype=vartype, density=density, integer=seed % 2 == 1)
        found = Annealer().sample(bqm, groups=GROUPS[kind], num_reads=12, num_sweeps=200, seed=seed)
        assert found.first.energy == pytest.approx(bqm.energies((states, range(16))).min(), abs=1e-9)
        np.testing.assert_allclose(found.record.energy, bqm.energies(found), rtol=1e-12, atol=1e-12)
        if GROUPS[kind]:
            assert allowed(found.record.sample, GROUPS[kind]).all()


@pytest.mark.parametrize("density", [1.0, 0.05])
@pytest.mark.parametrize("num_kept", [None, 3])
def test_samples_follow_boltzmann(num_kept, density):
    bqm = random_bqm(8, 11, density=density)
    beta, num_reads = 0.7, 30_000
    found = Annealer().sample(bqm, num_reads=num_reads, beta_schedule=[beta] * 25, num_kept=num_kept, state="last", seed=5)
    states = all_states(8)
    if num_kept is not None:
        states = states[states.sum(axis=1) == num_kept]
    weights = np.exp(-beta * bqm.energies((states, range(8))))
    code = 2 ** np.arange(8)
    counts = np.bincount(found.record.sample @ code, minlength=256)[states @ code]
    assert counts.sum() == num_reads
    expected = num_reads * weights / weights.sum()
    large = expected >= 5
    observed = np.append(counts[large], counts[~large].sum())
    predicted = np.append(expected[large], expected[~large].sum())
    observed, predicted = observed[predicted > 0], predicted[predicted > 0]
    assert stats.chisquare(observed, predicted).pvalue > 1e-3


@pytest.mark.parametrize("seed", range(4))
def test_bands_by_tree_decomposition(seed):
    from dwave.samplers import TreeDecompositionSolver

    rng = np.random.default_rng(seed)
    size, band = 100, 4
    pairs = [(i, j) for i in range(size) for j in range(i + 1, min(i + band, size))]
    bqm = dimod.BinaryQuadraticModel(
        dict(enumerate(rng.normal(size=size))), dict(zip(pairs, rng.normal(size=len(pairs)), strict=True)), 0, "SPIN"
    )
    exact = TreeDecompositionSolver().sample(bqm).first.energy
    found = Annealer().sample(bqm, num_reads=64, num_sweeps=4000, seed=0).first.energy
    assert found == pytest.approx(exact, abs=1e-9)


@pytest.mark.parametrize("size", [40, 300])
@pytest.mark.parametrize("num_kept", [None, 10])
def test_seeds_and_threads(size, num_kept):
    bqm = random_bqm(size, 1, density=0.02 if size == 300 else 1.0)
    options = {"num_reads": 20, "num_sweeps": 30, "num_kept": num_kept, "beta_range": (0.01, 0.02), "state": "last"}
    reference = Annealer().sample(bqm, seed=3, num_threads=1, **options).record
    for num_threads in (2, 3):
        again = Annealer().sample(bqm, seed=3, num_threads=num_threads, **options).record
        np.testing.assert_array_equal(reference.sample, again.sample)
    other = Annealer().sample(bqm, seed=4, num_threads=1, **options).record
    assert (reference.sample != other.sample).any()
    drawn = Annealer().sample(bqm, **options)
    again = Annealer().sample(bqm, seed=drawn.info["seed"], **options)
    np.testing.assert_array_equal(drawn.record.sample, again.record.sample)


def test_scaling_by_powers_of_two_changes_nothing():
    bqm = random_bqm(30, 2)
    reference = Annealer().sample(bqm, seed=0, num_reads=4, num_sweeps=50).record
    for power in (-300, 40, 300):
        scaled = bqm.copy()
        scaled.scale(2.0**power)
        found = Annealer().sample(scaled, seed=0, num_reads=4, num_sweeps=50).record
        np.testing.assert_array_equal(reference.sample, found.sample)


def test_scaling_by_any_factor_scales_the_best_energy():
    bqm = random_bqm(24, 2)
    options = {"num_reads": 10, "num_sweeps": 300, "seed": 0}
    best = Annealer().sample(bqm, **options).first.energy
    for factor in (0.37, 5e9):
        scaled = bqm.copy()
        scaled.scale(factor)
        assert Annealer().sample(scaled, **options).first.energy == pytest.approx(factor * best)


def test_relabelling_changes_nothing_and_spin_reversal_no_energy():
    bqm = random_bqm(24, 3, vartype="SPIN")
    reference = Annealer().sample(bqm, seed=0, num_reads=4, num_sweeps=50)
    labels = {i: ("unit", str(i)) for i in range(24)}
    found = Annealer().sample(bqm.relabel_variables(labels, inplace=False), seed=0, num_reads=4, num_sweeps=50)
    np.testing.assert_array_equal(reference.record.sample, found.record.sample)
    reversed_bqm = bqm.copy()
    for variable in range(0, 24, 2):
        reversed_bqm.flip_variable(variable)
    options = {"num_reads": 10, "num_sweeps": 300, "seed": 0}
    assert Annealer().sample(reversed_bqm, **options).first.energy == pytest.approx(
        Annealer().sample(bqm, **options).first.energy
    )


def test_temperature_zero_ends_in_local_minima():
    bqm = random_bqm(60, 4)
    found = Annealer().sample(bqm, beta_range=(np.inf, np.inf), num_reads=10, seed=0)
    for state, energy in zip(found.record.sample, found.record.energy, strict=True):
        flipped = np.repeat(state[None], 60, axis=0)
        flipped[range(60), range(60)] = 1 - state
        assert (bqm.energies((flipped, range(60))) >= energy - 1e-6).all()
    annealed = Annealer().sample(bqm, num_reads=10, num_sweeps=200, seed=0)
    assert annealed.record.energy.mean() < found.record.energy.mean()


def test_initial_states():
    bqm = random_bqm(12, 5)
    start = np.zeros((2, 12), dtype=np.int8)
    frozen = {"beta_schedule": [], "state": "last"}
    found = Annealer().sample(bqm, initial_states=(start, range(12)), seed=0, **frozen)
    assert found.record.sample.tolist() == start.tolist()
    tiled = Annealer().sample(bqm, initial_states=start, initial_states_generator="tile", num_reads=5, seed=0, **frozen)
    assert len(tiled) == 5 and not tiled.record.sample.any()
    mixed = Annealer().sample(bqm, initial_states=start, num_reads=5, seed=0, **frozen)
    assert not mixed.record.sample[:2].any() and mixed.record.sample[2:].any()
    shuffled = Annealer().sample(bqm, initial_states={i: int(i < 3) for i in reversed(range(12))}, seed=0, num_kept=3, **frozen)
    assert shuffled.first.sample == {i: int(i < 3) for i in range(12)}
    with pytest.raises(ValueError, match="only 2 initial states"):
        Annealer().sample(bqm, initial_states=start, initial_states_generator="none", num_reads=3)
    with pytest.raises(ValueError, match="initial state 0 has 0 ones"):
        Annealer().sample(bqm, initial_states=start, num_kept=4)


def test_target_stops_at_the_same_read_for_any_number_of_threads():
    bqm = random_bqm(40, 6)
    reference = Annealer().sample(bqm, num_reads=64, num_sweeps=100, seed=0)
    target = float(np.sort(reference.record.energy)[5])
    results = [
        Annealer().sample(bqm, num_reads=64, num_sweeps=100, seed=0, target=target, num_threads=threads) for threads in (1, 2)
    ]
    assert len(results[0]) < 64 and results[0].info["stopped_by"] == "target"
    np.testing.assert_array_equal(results[0].record.sample, results[1].record.sample)
    assert results[0].record.energy[-1] <= target + 1e-6 and (results[0].record.energy[:-1] > target).all()


def test_time_limit_and_interrupt():
    bqm = random_bqm(500, 7)
    start = time.perf_counter()
    found = Annealer().sample(bqm, num_reads=100, num_sweeps=100_000, time_limit=0.2, seed=0)
    assert time.perf_counter() - start < 3
    assert found.info["stopped_by"] == "time_limit" and 1 <= len(found) < 100
    found = Annealer().sample(bqm, num_reads=100, num_sweeps=100_000, interrupt_function=lambda: True, seed=0)
    assert found.info["stopped_by"] == "interrupt_function" and len(found) >= 1


def test_edges():
    annealer = Annealer()
    assert annealer.sample(dimod.BinaryQuadraticModel("SPIN"), seed=0).first.sample == {}
    one = dimod.BinaryQuadraticModel({"a": 2.0}, {}, 1.0, "BINARY")
    assert annealer.sample(one, seed=0).first.energy == 1.0
    assert annealer.sample(one, num_kept=1, seed=0).first.energy == 3.0
    constant = dimod.BinaryQuadraticModel(dict.fromkeys(range(20), 0.0), {}, 7.0, "SPIN")
    assert set(annealer.sample(constant, seed=0).record.energy) == {7.0}
    islands = dimod.BinaryQuadraticModel({}, {(2 * i, 2 * i + 1): -1.0 for i in range(40)}, 0.0, "SPIN")
    assert annealer.sample(islands, seed=0).first.energy == -40.0
    for num_kept in (0, 30):
        kept = annealer.sample(random_bqm(30, 8), num_kept=num_kept, seed=0)
        assert (kept.record.sample.sum(axis=1) == num_kept).all()


@pytest.mark.parametrize("huge", [1e30, -1e30])
def test_huge_biases_leave_the_rest_solved(huge):
    small = random_bqm(14, 9)
    far = small.copy()
    far.add_linear("far", huge)
    coupled = small.copy()
    coupled.add_quadratic("left", "right", abs(huge))
    coupled.add_linear("left", -1.0)
    states = all_states(14)
    optimum = small.energies((states, range(14))).min()
    for bqm in (far, coupled):
        best = Annealer().sample(bqm, num_sweeps=500, seed=0).first.sample
        found = small.energy({i: best[i] for i in range(14)})
        assert found == pytest.approx(optimum, abs=1e-9)


def test_what_is_wrong_is_refused_by_name():
    bqm = random_bqm(4, 0)
    with pytest.raises(TypeError, match=r"no option 'num_read'; it has .*num_reads"):
        Annealer().sample(bqm, num_read=3)
    broken = bqm.copy()
    broken.set_linear(2, np.nan)
    with pytest.raises(ValueError, match="variable 2 is nan"):
        Annealer().sample(broken)
    broken = bqm.copy()
    broken.set_quadratic(1, 3, np.inf)
    with pytest.raises(ValueError, match="coupling of variables"):
        Annealer().sample(broken)
    for options, message in [
        ({"num_reads": 0}, "num_reads"),
        ({"num_kept": 5}, "num_kept"),
        ({"beta_range": (2.0, 1.0)}, "beta_range"),
        ({"beta_range": (1.0, 2.0), "beta_schedule": [1.0]}, "not both"),
        ({"beta_schedule": [-1.0]}, "beta_schedule"),
        ({"num_sweeps": 3, "beta_schedule": [1.0]}, "num_sweeps"),
        ({"state": "first"}, "state"),
        ({"groups": [([0, 1], 1), ([1, 2], 1)]}, "another group"),
        ({"groups": [([0, 9], 1)]}, "variable 9"),
        ({"groups": [([0, 1], 3)]}, "group 0"),
        ({"time_limit": -1}, "time_limit"),
        ({"target": np.nan}, "target"),
    ]:
        with pytest.raises(ValueError, match=message):
            Annealer().sample(bqm, **options)


def test_sixteen_reads_at_once_move_as_each_alone():
    bqm = random_bqm(200, 12, density=0.02)
    options = {"num_sweeps": 20, "seed": 0, "state": "last"}
    together = Annealer().sample(bqm, num_reads=19, **options)
    alone = Annealer().sample(bqm, num_reads=3, **options)
    assert (together.info["kernel"], alone.info["kernel"]) == ("lanes", "sparse")
    np.testing.assert_array_equal(together.record.sample[:3], alone.record.sample)


@pytest.mark.parametrize("density", [1.0, 0.05])
@pytest.mark.parametrize("num_kept", [None, 5])
def test_tempering_finds_the_optimum_and_keeps_the_count(num_kept, density):
    states = all_states(16)
    if num_kept is not None:
        states = states[states.sum(axis=1) == num_kept]
    for seed in range(5):
        bqm = random_bqm(16, seed, density=density)
        options = {"num_replicas": 8, "num_reads": 4, "num_sweeps": 100, "num_kept": num_kept, "seed": seed}
        found = Annealer().sample(bqm, **options)
        assert found.first.energy == pytest.approx(bqm.energies((states, range(16))).min(), abs=1e-9)
        again = Annealer().sample(bqm, num_threads=2, **options)
        np.testing.assert_array_equal(found.record.sample, again.record.sample)


def test_the_coldest_replica_follows_boltzmann():
    bqm = random_bqm(6, 3)
    found = Annealer().sample(bqm, num_reads=20_000, num_sweeps=30, num_replicas=4, beta_range=(0.1, 1.0), state="last", seed=1)
    states = all_states(6)
    weights = np.exp(-bqm.energies((states, range(6))))
    code = 2 ** np.arange(6)
    counts = np.bincount(found.record.sample @ code, minlength=64)[states @ code]
    expected = 20_000 * weights / weights.sum()
    large = expected >= 5
    observed = np.append(counts[large], counts[~large].sum())
    predicted = np.append(expected[large], expected[~large].sum())
    assert stats.chisquare(observed[predicted > 0], predicted[predicted > 0]).pvalue > 1e-3


@pytest.mark.parametrize("vartype", ["BINARY", "SPIN"])
def test_presolve_keeps_the_optimum(vartype):
    for seed in range(20):
        bqm = random_bqm(14, seed, vartype=vartype, density=0.12, integer=seed % 2 == 0)
        exact = bqm.energies((all_states(14, vartype), range(14))).min()
        found = Annealer().sample(bqm, presolve=True, num_reads=6, num_sweeps=100, seed=seed)
        assert found.first.energy == pytest.approx(exact, abs=1e-9)
        np.testing.assert_allclose(found.record.energy, bqm.energies(found), atol=1e-9)
    with pytest.raises(ValueError, match="presolve cannot be combined with num_kept"):
        Annealer().sample(bqm, presolve=True, num_kept=3)


@pytest.mark.parametrize("density", [1.0, 0.05])
def test_exchanges_beside_flips_follow_boltzmann_and_find_optima(density):
    bqm = random_bqm(8, 13, density=density)
    found = Annealer().sample(bqm, num_reads=20_000, beta_schedule=[0.7] * 20, exchanges=True, state="last", seed=2)
    states = all_states(8)
    weights = np.exp(-0.7 * bqm.energies((states, range(8))))
    code = 2 ** np.arange(8)
    counts = np.bincount(found.record.sample @ code, minlength=256)[states @ code]
    expected = len(found) * weights / weights.sum()
    large = expected >= 5
    observed = np.append(counts[large], counts[~large].sum())
    predicted = np.append(expected[large], expected[~large].sum())
    assert stats.chisquare(observed[predicted > 0], predicted[predicted > 0]).pvalue > 1e-3
    mixed = Annealer().sample(bqm, exchanges=True, groups=[([0, 1, 2, 3], 1)], num_sweeps=50, seed=0)
    assert (mixed.record.sample[:, :4].sum(axis=1) == 1).all()
    inside = states[states[:, :4].sum(axis=1) == 1]
    assert mixed.first.energy == pytest.approx(bqm.energies((inside, range(8))).min(), abs=1e-9)


def least_squares(size, rows, seed):
    """Which columns add up to a target, all of them pulling one way: ‖A x − t‖²."""
    rng = np.random.default_rng(seed)
    columns = rng.normal(size=(rows, size)) + 0.7 * rng.normal(size=(rows, 1))
    target = columns[:, : size // 2].sum(axis=1) + 5 * rng.normal(size=rows)
    products = columns.T @ columns
    quadratic = (*np.triu_indices(size, 1), 2 * products[np.triu_indices(size, 1)])
    linear = np.diag(products) - 2 * columns.T @ target
    return dimod.BinaryQuadraticModel.from_numpy_vectors(linear, quadratic, float(target @ target), "BINARY")


def test_the_settled_range_is_the_mean_change_of_a_local_minimum_and_serves_least_squares():
    for seed in range(3):
        bqm = least_squares(150, 60, seed)
        options = {"num_reads": 8, "num_sweeps": 30, "seed": 0}
        found = Annealer().sample(bqm, beta_range="settled", **options)
        rough = Annealer().sample(bqm, **options)
        assert found.record.energy.mean() < rough.record.energy.mean()
        hot, cold = found.info["beta_range"]
        assert cold == pytest.approx(50 * hot)
        still = Annealer().sample(bqm, num_reads=1, beta_range=(np.inf, np.inf), num_sweeps=0, seed=0)
        state = np.array([still.first.sample[variable] for variable in bqm.variables])
        flipped = np.where(np.eye(150, dtype=bool), 1 - state, state)
        assert 1 / hot == pytest.approx((bqm.energies((flipped, list(bqm.variables))) - still.first.energy).mean(), rel=1e-6)
        twice = dimod.BinaryQuadraticModel(bqm)
        twice.scale(2.0)
        assert Annealer().sample(twice, beta_range="settled", **options).info["beta_range"][0] == pytest.approx(hot / 2)


def test_the_settled_range_goes_with_replicas_and_empty_models_but_not_with_counts():
    bqm = least_squares(20, 10, 0)
    found = Annealer().sample(bqm, beta_range="settled", num_replicas=4, num_sweeps=50, num_reads=2, seed=0)
    assert found.first.energy == pytest.approx(Annealer().sample(bqm, seed=0).first.energy)
    assert Annealer().sample(dimod.BinaryQuadraticModel("BINARY"), beta_range="settled", seed=0).first.energy == 0
    for options in ({"num_kept": 3}, {"groups": [([0, 1], 1)]}):
        with pytest.raises(ValueError, match="settled"):
            Annealer().sample(bqm, beta_range="settled", seed=0, **options)
    with pytest.raises(ValueError, match="warm"):
        Annealer().sample(bqm, beta_range="warm", seed=0)
