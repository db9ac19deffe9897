"""Laws of select-and-refit: exact error, exact counts, the optimum of small problems, and invariances."""

import os
import subprocess
import sys
from itertools import combinations

import numpy as np
import pytest

from annealsubnet.solvers.select_refit import error_curves, select_inputs, select_units, unit_curve
from annealsubnet.solvers.select_refit_kernels import new_state, rebuild, set_members

SUBSETS = np.array(list(combinations(range(20), 6)))


def regression(seed, inputs=20, columns=1, examples=60):
    """A second moment, right-hand sides and energies: every other one with strongly correlated inputs."""
    rng = np.random.default_rng(seed)
    a = rng.normal(size=(examples, inputs))
    a = a @ rng.normal(size=(inputs, inputs)) if seed % 2 else a + 1.5 * rng.normal(size=(examples, 1))
    w = rng.normal(size=(inputs, columns))
    gram = a.T @ a / examples
    return gram, gram @ w, np.einsum("ij,ij->j", w, gram @ w)


def error_of(gram, targets, energy, kept):
    """Summed error of all columns on the inputs `kept`, by its definition."""
    s = np.flatnonzero(kept)
    b = targets[s]
    return float(np.sum(energy) - np.sum(b * np.linalg.solve(gram[np.ix_(s, s)], b))) if s.size else float(np.sum(energy))


def best_of_all(gram, targets, energy, subsets):
    """The least error over rows of `subsets`."""
    b = targets[subsets]
    solved = np.linalg.solve(gram[subsets[:, :, None], subsets[:, None, :]], b)
    return float(np.sum(energy) - np.einsum("sij,sij->s", b, solved).max())


def test_small_problems_reach_the_optimum():
    excess = []
    for seed in range(100):
        gram, b, t = regression(seed)
        found = select_inputs(gram, b, t, 6, seed=seed, num_reads=8, num_sweeps=100, ridge=0.0)
        excess.append(found.error[0] / best_of_all(gram, b, t, SUBSETS) - 1)
    assert np.mean(np.array(excess) < 1e-7) >= 0.99


@pytest.mark.parametrize("num_kept", [6, 14])
def test_error_is_that_of_a_direct_solve(num_kept):
    gram, b, t = regression(0, inputs=60, columns=5, examples=200)
    sizes = np.full(5, num_kept * 3)
    found = select_inputs(gram, b, t, sizes, seed=0, ridge=0.0)
    for n in range(5):
        direct = error_of(gram, b[:, n : n + 1], t[n], found.kept[:, n])
        assert found.error[n] == pytest.approx(direct, rel=1e-8, abs=1e-10 * t[n])
        s = np.flatnonzero(found.kept[:, n])
        np.testing.assert_allclose(found.coefficients[s, n], np.linalg.solve(gram[np.ix_(s, s)], b[s, n]), rtol=1e-6)
    assert not found.coefficients[~found.kept].any()


def test_counts_are_exact_for_every_column():
    gram, b, t = regression(2, inputs=24, columns=25)
    found = select_inputs(gram, b, t, np.arange(25), seed=0)
    assert found.kept.sum(axis=0).tolist() == list(range(25))
    assert found.error[0] == t[0]


@pytest.mark.parametrize("num_kept", [5, 20])
def test_the_number_of_threads_does_not_matter(num_kept):
    gram, b, t = regression(1, inputs=25, columns=9)
    one = select_inputs(gram, b, t, num_kept, seed=7, num_reads=2, num_threads=1)
    two = select_inputs(gram, b, t, num_kept, seed=7, num_reads=2, num_threads=2)
    np.testing.assert_array_equal(one.kept, two.kept)
    one_unit = select_units(gram, b, t, num_kept, seed=7, num_reads=4, num_threads=1)
    two_unit = select_units(gram, b, t, num_kept, seed=7, num_reads=4, num_threads=2)
    np.testing.assert_array_equal(one_unit.kept, two_unit.kept)


def test_compiled_now_or_before_the_answer_is_the_same(tmp_path):
    script = """if True:
        import hashlib, numpy as np
        from annealsubnet.solvers.select_refit import error_curves
        rng = np.random.default_rng(0)
        a = np.maximum(rng.normal(size=(1078, 64)) @ rng.normal(size=(64, 64)), 0.0)
        weights = rng.normal(size=(64, 128))
        targets = a.T @ a @ weights / 1078
        curves = error_curves(a.T @ a / 1078, targets, (weights * targets).sum(0), method="forward", max_kept=32)
        print(hashlib.sha256(curves.error.tobytes() + curves.order.tobytes()).hexdigest())
    """
    environment = {**os.environ, "NUMBA_CACHE_DIR": str(tmp_path), "PYTHONPATH": os.pathsep.join(sys.path)}
    runs = [
        subprocess.run([sys.executable, "-c", script], env=environment, capture_output=True, text=True, check=True).stdout
        for _ in range(2)
    ]
    assert any(tmp_path.rglob("*.nbc")), "the second run has compiled code to load"
    assert runs[0] == runs[1]


def test_a_column_is_solved_alike_alone_and_among_others():
    gram, b, t = regression(0, inputs=25, columns=6)
    together = select_inputs(gram, b, t, 6, seed=0)
    first = select_inputs(gram, b[:, :1], t[:1], 6, seed=0)
    np.testing.assert_array_equal(together.kept[:, :1], first.kept)


@pytest.mark.parametrize("temperature", ["annealed", "zero"])
def test_scaling_changes_nothing(temperature):
    gram, b, t = regression(0, columns=4)
    found = select_inputs(gram, b, t, 6, seed=0, temperature=temperature)
    scaled = select_inputs(4.0 * gram, 4.0**10 * b, 4.0**19 * t, 6, seed=0, temperature=temperature)
    np.testing.assert_array_equal(found.kept, scaled.kept)
    np.testing.assert_allclose(scaled.error, 4.0**19 * found.error, rtol=1e-9)


def test_permuting_inputs_permutes_the_answer():
    gram, b, t = regression(0, columns=4)
    order = np.random.default_rng(0).permutation(20)
    found = select_inputs(gram, b, t, 6, seed=0, num_reads=8, num_sweeps=100)
    permuted = select_inputs(gram[np.ix_(order, order)], b[order], t, 6, seed=0, num_reads=8, num_sweeps=100)
    np.testing.assert_array_equal(permuted.kept, found.kept[order])


def test_both_sides_agree():
    """The complement (more than half kept) reaches what enumeration of the kept set says is best."""
    subsets = np.array(list(combinations(range(14), 10)))
    for seed in range(10):
        gram, b, t = regression(seed, inputs=14)
        found = select_inputs(gram, b, t, 10, seed=0, num_reads=8, num_sweeps=100, ridge=0.0)
        assert found.error[0] == pytest.approx(best_of_all(gram, b, t, subsets), rel=1e-6)


@pytest.mark.parametrize("start", ["forward", "backward", "splitting", "given"])
@pytest.mark.parametrize("num_kept", [8, 30])
def test_never_worse_than_its_start(start, num_kept):
    gram, b, t = regression(1, inputs=40, columns=6, examples=80)
    if start == "given":
        support = np.zeros((40, 6), dtype=bool)
        support[:num_kept] = True
        options = {"start": support}
        before = np.array([error_of(gram, b[:, [n]], t[n], support[:, n]) for n in range(6)])
    else:
        options = {"start": start}
        before = select_inputs(gram, b, t, num_kept, seed=0, temperature="greedy", ridge=1e-9, start=start).error
    zero = select_inputs(gram, b, t, num_kept, seed=0, temperature="zero", ridge=1e-9, **options)
    annealed = select_inputs(gram, b, t, num_kept, seed=0, ridge=1e-9, **options)
    assert (zero.error <= before * (1 + 1e-6)).all()
    assert (annealed.error <= zero.error * (1 + 1e-6)).all()


@pytest.mark.parametrize("pattern", ["2:4", "4:8", "1:4", "3:4"])
def test_patterns_are_respected(pattern):
    stay, size = map(int, pattern.split(":"))
    gram, b, t = regression(0, inputs=32, columns=7)
    found = select_inputs(gram, b, t, pattern=pattern, seed=0)
    assert (found.kept.reshape(-1, size, 7).sum(axis=1) == stay).all()
    for start in ("forward", "backward"):
        zero = select_inputs(gram, b, t, pattern=pattern, seed=0, start=start, temperature="zero")
        assert (zero.kept.reshape(-1, size, 7).sum(axis=1) == stay).all()
    magnitude = np.zeros((32, 7), dtype=bool).reshape(-1, size, 7)
    magnitude[:, :stay] = True
    started = select_inputs(gram, b, t, pattern=pattern, seed=0, start=magnitude.reshape(32, 7))
    assert (started.kept.reshape(-1, size, 7).sum(axis=1) == stay).all()


def test_pattern_reaches_the_optimum():
    choices = [c for c in combinations(range(12), 6) if all(sum(i // 4 == g for i in c) == 2 for g in range(3))]
    for seed in range(10):
        gram, b, t = regression(seed, inputs=12)
        found = select_inputs(gram, b, t, pattern="2:4", seed=0, num_reads=8, num_sweeps=100, ridge=0.0)
        assert found.error[0] == pytest.approx(best_of_all(gram, b, t, np.array(choices)), rel=1e-6)


@pytest.mark.parametrize("num_kept", [0, 3, 30, 37, 40])
def test_singular_moments_give_a_stable_answer(num_kept):
    rng = np.random.default_rng(0)
    a = rng.normal(size=(25, 40))  # fewer examples than inputs
    a[:, 30:34] = 0.0  # dead
    a[:, 34] = a[:, 35]  # twins
    w = rng.normal(size=(40, 3))
    gram = a.T @ a / 25
    b, t = gram @ w, np.einsum("ij,ij->j", w, gram @ w)
    found = select_inputs(gram, b, t, num_kept, seed=0)
    assert np.isfinite(found.coefficients).all()
    assert (found.kept.sum(axis=0) == num_kept).all()
    assert ((found.error >= 0) & (found.error <= t)).all()
    if num_kept >= 30:
        assert (found.error < 1e-3 * t).all()
    units = select_units(gram, b, t, num_kept, seed=0)
    assert units.kept.sum() == num_kept
    assert units.error.sum() <= t.sum()


@pytest.mark.parametrize("num_kept", [2, 4, 7])
@pytest.mark.parametrize("block", [1, 2, 3])
def test_units_reach_the_optimum(block, num_kept):
    for seed in range(6):
        always = 2
        gram, b, t = regression(seed, inputs=9 * block + always, columns=4)
        units = np.random.default_rng(seed).permutation(np.r_[np.repeat(np.arange(9), block), [-1] * always])
        found = select_units(gram, b, t, num_kept, seed=0, unit_of_input=units, num_reads=8, ridge=0.0)
        subsets = np.array([np.flatnonzero(np.isin(units, c) | (units < 0)) for c in combinations(range(9), num_kept)])
        assert found.kept.sum() == num_kept
        assert found.error.sum() == pytest.approx(best_of_all(gram, b, t, subsets), rel=1e-7)
        assert found.error.sum() == pytest.approx(error_of(gram, b, t, np.r_[found.kept, True][units]), rel=1e-7)


def test_blocks_of_one_equal_the_plain_form():
    gram, b, t = regression(0, inputs=30, columns=3)
    plain = select_units(gram, b, t, 10, seed=0)
    blocks = select_units(gram, b, t, 10, seed=0, unit_of_input=np.arange(30))
    np.testing.assert_array_equal(plain.kept, blocks.kept)


@pytest.mark.parametrize("num_kept", [6, 14])
def test_one_column_is_the_same_problem_for_units_and_inputs(num_kept):
    for seed in range(5):
        gram, b, t = regression(seed)
        inputs = select_inputs(gram, b, t, num_kept, seed=0, num_reads=8, num_sweeps=100, ridge=1e-9)
        units = select_units(gram, b, t, num_kept, seed=0, num_reads=8, num_sweeps=100, ridge=1e-9)
        assert units.error[0] == pytest.approx(inputs.error[0], rel=1e-6)


def test_many_columns_are_what_their_second_moment_says():
    """e(S) depends on the columns through B B' alone: a rotation of the columns changes nothing."""
    gram, b, t = regression(0, inputs=20, columns=50)
    rotation = np.linalg.qr(np.random.default_rng(0).normal(size=(50, 50)))[0]
    found = select_units(gram, b, t, 7, seed=0)
    rotated = select_units(gram, b @ rotation, np.full(50, t.sum() / 50), 7, seed=0)
    np.testing.assert_array_equal(found.kept, rotated.kept)


@pytest.mark.parametrize("start", ["forward", "backward", "given"])
def test_units_are_never_worse_than_their_start(start):
    gram, b, t = regression(1, inputs=60, columns=5, examples=120)
    units = np.repeat(np.arange(20), 3)
    given = np.arange(20) < 8
    start = given if start == "given" else start
    zero = select_units(gram, b, t, 8, seed=0, unit_of_input=units, start=start, temperature="zero", num_candidates=6)
    annealed = select_units(gram, b, t, 8, seed=0, unit_of_input=units, start=start, num_candidates=6)
    assert annealed.error.sum() <= zero.error.sum() * (1 + 1e-9)
    assert zero.error.sum() <= error_of(gram, b, t, given[units]) * (1 + 1e-4)


@pytest.mark.parametrize("method", ["forward", "backward"])
def test_error_curves_are_those_of_their_supports(method):
    gram, b, t = regression(0, columns=3)
    curves = error_curves(gram, b, t, method=method, ridge=0.0)
    assert curves.error.shape == (21, 3)
    for n in range(3):
        assert sorted(curves.order[:, n]) == list(range(20))
        for k in range(21):
            kept = np.isin(np.arange(20), curves.order[:k, n])
            direct = error_of(gram, b[:, [n]], t[n], kept)
            assert curves.error[k, n] == pytest.approx(direct, rel=1e-6, abs=1e-9 * t[n])
    short = error_curves(gram, b, t, method=method, ridge=0.0, max_kept=5)
    np.testing.assert_allclose(short.error, curves.error[:6])


def test_backward_elimination_removes_the_cheapest_input_each_time():
    gram, b, t = regression(1)
    order = error_curves(gram, b, t, method="backward", ridge=0.0).order[:, 0]
    left = np.ones(20, dtype=bool)
    for removed in order[:0:-1]:
        costs = {j: error_of(gram, b, t, left & (np.arange(20) != j)) for j in np.flatnonzero(left)}
        assert costs[removed] == pytest.approx(min(costs.values()), rel=1e-6)
        left[removed] = False


BAD = [
    ({"gram": np.full((4, 4), np.nan)}, "gram has 16 entries"),
    ({"gram": np.eye(5)}, "5 inputs"),
    ({"gram": np.triu(np.ones((4, 4)))}, "not symmetric"),
    ({"num_kept": 5}, "there are 4 inputs"),
    ({"num_kept": -1}, "there are 4 inputs"),
    ({"num_kept": 0.5}, "give an integer"),
    ({"num_kept": None}, "neither num_kept nor pattern"),
    ({"num_kept": None, "pattern": "2:3"}, "does not divide 4 inputs"),
    ({"num_kept": None, "pattern": "4:2"}, 'give "N:M"'),
    ({"pattern": "2:4"}, "both num_kept and pattern"),
    ({"start": "sideways"}, "start is 'sideways'"),
    ({"start": np.ones((4, 1), dtype=bool)}, "as many as num_kept"),
    ({"temperature": "hot"}, "temperature is 'hot'"),
    ({"num_reads": 0}, "num_reads"),
    ({"ridge": -1.0}, "ridge is -1.0"),
]


@pytest.mark.parametrize(("change", "message"), BAD)
def test_refusals_say_what_was_found(change, message):
    options = {"gram": np.eye(4), "targets": np.ones((4, 1)), "target_energy": [4.0], "num_kept": 2, "seed": 0} | change
    with pytest.raises(ValueError, match=message):
        select_inputs(**options)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"num_kept": 9}, "at most 4 units"),
        ({"unit_of_input": [0, 0, 2, 2]}, "no input to units"),
        ({"unit_of_input": [0, 0, 1]}, "for each of 4 inputs"),
        ({"unit_of_input": [-2, 0, 1, 2]}, "units from 0"),
        ({"start": np.ones(4, dtype=bool)}, "with 2"),
    ],
)
def test_unit_refusals_say_what_was_found(change, message):
    options = {"gram": np.eye(4), "targets": np.ones((4, 1)), "target_energy": [4.0], "num_kept": 2, "seed": 0} | change
    with pytest.raises(ValueError, match=message):
        select_units(**options)


@pytest.mark.parametrize("method", ["forward", "backward"])
def test_greedy_selections_are_those_of_the_curves(method):
    gram, b, t = regression(1, columns=4)
    for kept in (6, 15):
        found = select_inputs(gram, b, t, kept, seed=0, start=method, temperature="greedy", ridge=1e-9)
        order = error_curves(gram, b, t, method=method, ridge=1e-9).order
        for n in range(4):
            assert set(np.flatnonzero(found.kept[:, n])) == set(order[:kept, n])


def test_greedy_elimination_within_groups_removes_the_cheapest_input_that_may_still_go():
    gram, b, t = regression(1, inputs=12)
    found = select_inputs(gram, b, t, pattern="2:4", seed=0, start="backward", temperature="greedy", ridge=0.0)
    left = np.ones(12, dtype=bool)
    while left.sum() > 6:
        free = [j for j in np.flatnonzero(left) if left.reshape(3, 4)[j // 4].sum() > 2]
        left[min(free, key=lambda j: error_of(gram, b, t, left & (np.arange(12) != j)))] = False
    np.testing.assert_array_equal(found.kept[:, 0], left)


def test_the_curve_of_units_lies_between_the_optimum_and_single_greedy_choices():
    gram, targets, energy = regression(3, inputs=8, columns=2)
    units = np.array([-1, 0, 0, 1, 1, 2, 3, 3])
    curve = unit_curve(gram, targets, energy, unit_of_input=units, ridge=0.0)
    assert curve.shape == (5,) and (np.diff(curve) <= 0).all()
    for kept in range(5):
        chosen = [np.isin(units, (-1, *some)) for some in combinations(range(4), kept)]
        best = min(error_of(gram, targets, energy, inside) for inside in chosen)
        assert curve[kept] >= best - 1e-9 * energy.sum()
        if kept in (0, 1, 3, 4):  # the first and the last greedy step are the best there are
            assert curve[kept] == pytest.approx(best, rel=1e-6, abs=1e-9 * energy.sum())


@pytest.mark.parametrize("pattern", [None, "2:4"])
def test_splitting_starts_with_the_right_counts(pattern):
    gram, b, t = regression(0, inputs=40, columns=5, examples=100)
    sizes = None if pattern else np.array([3, 12, 20, 28, 40])
    found = select_inputs(gram, b, t, sizes, pattern=pattern, seed=0, start="splitting", temperature="greedy")
    assert found.kept.sum(axis=0).tolist() == ([20] * 5 if pattern else [3, 12, 20, 28, 40])
    if pattern:
        assert (found.kept.reshape(10, 4, 5).sum(axis=1) == 2).all()


@pytest.mark.parametrize("count", [1, 7, 30])
def test_a_state_made_by_matrix_products_is_that_of_one_input_at_a_time(count):
    gram, b, t = regression(0, inputs=40, columns=1, examples=100)
    scale = np.sqrt(np.diag(gram))
    gram, column = gram / scale / scale[:, None], b[:, 0] / scale
    members = np.random.default_rng(count).permutation(40)[:count]
    states = [new_state(32, 40), new_state(32, 40)]
    set_members(gram, column, members, states[0])
    states[1].active[:count] = members
    rebuild(gram, column, count, states[1])
    for name in ("active", "inverse", "rows", "weights", "residual", "schur", "barred"):
        found, expected = (getattr(state, name) for state in states)
        rows = slice(count) if name in ("active", "inverse", "rows", "weights") else slice(None)
        np.testing.assert_allclose(found[rows], expected[rows], rtol=1e-9, atol=1e-9, err_msg=name)


def test_dependent_members_are_set_one_at_a_time():
    gram, column = np.ones((3, 3)), np.ones(3)
    state = new_state(2, 3)
    set_members(gram, column, np.array([0, 2]), state)
    assert np.isfinite(state.inverse).all() and state.active.tolist() == [0, 2]
    np.testing.assert_allclose(column - gram[:, [0, 2]] @ state.weights, 0.0, atol=1e-9)


def test_descent_from_a_given_start_ends_where_no_exchange_helps():
    gram, b, t = regression(0, inputs=240, columns=2, examples=500)
    start = np.zeros((240, 2), dtype=bool)
    start[:110] = True
    found = select_inputs(gram, b, t, 110, seed=0, start=start, temperature="zero", ridge=1e-6)
    ridged = gram + 1e-6 * np.diag(gram).mean() * np.eye(240)
    for n in range(2):
        direct = error_of(ridged, b[:, [n]], t[n], found.kept[:, n])
        assert found.error[n] == pytest.approx(direct, rel=1e-6)
        for a in np.flatnonzero(found.kept[:, n])[:10]:
            for j in np.flatnonzero(~found.kept[:, n])[:10]:
                other = found.kept[:, n].copy()
                other[[a, j]] = other[[j, a]]
                assert error_of(ridged, b[:, [n]], t[n], other) >= found.error[n] * (1 - 1e-7)
