"""Plans: from problems to jobs and back, on the loopback service; nothing is dropped, nothing gets worse."""

import importlib
import pkgutil
from dataclasses import replace

import dimod
import numpy as np
import pytest
from dwave.system import DWaveSampler

from annealsubnet import leap
from annealsubnet.decompose import Limits
from annealsubnet.leap.answers import prices_of
from annealsubnet.leap.connection import LeapError
from annealsubnet.leap.merging import merged, read_parts, read_problems, results, write_parts, write_problems
from annealsubnet.leap.planning import problem_of
from annealsubnet.leap.solvers import described
from annealsubnet.problems import Problem
from annealsubnet.solvers import solve
from annealsubnet.testing import LoopbackLeap
from tests.leap.ledgers import QUICK


def random_problem(size, seed, num_kept=None):
    rng = np.random.default_rng(seed)
    upper = np.triu(rng.normal(size=(size, size)), 1)
    labels = tuple(f"u{number}" for number in range(size))
    return Problem(rng.normal(size=size), upper + upper.T, 0.5, num_kept, labels)


def ground_energy(problem):
    return solve(problem, dimod.ExactSolver(), seed=0).energies[0] if problem.num_kept is None else _kept_ground(problem)


def _kept_ground(problem):
    states = (np.arange(2**problem.size)[:, None] >> np.arange(problem.size)) & 1
    return problem.energy(states[states.sum(axis=1) == problem.num_kept]).min()


@pytest.fixture(scope="module")
def service():
    with LoopbackLeap(size=3, seed=2) as server, DWaveSampler(**server.config) as sampler:
        yield server, sampler


@pytest.fixture(scope="module")
def problems():
    return [random_problem(10, 0), random_problem(8, 1, num_kept=3), random_problem(9, 2)]


@pytest.mark.parametrize("options", [{}, {"reverse": True}, {"spin_reversals": 0}, {"spin_reversals": 2}], ids=str)
def test_small_problems_are_solved_whole_from_bad_starts(service, problems, tmp_path, options):
    server, sampler = service
    starts = [np.zeros(10, bool), np.arange(8) < 3, np.ones(9, bool)]
    made = leap.plan(problems, sampler, seed=0, starts=starts, num_reads=100, **options)
    assert {place.part for job in made.jobs for place in job.placements} == set(range(len(made.parts)))
    found = made.submit(budget_seconds=1.0, ledger=tmp_path / "jobs.sqlite", solver=sampler, patience=QUICK)
    assert found.energies == pytest.approx([ground_energy(problem) for problem in problems])
    assert not found.unresolved and found.improvement > 0 and found.improvement_per_second > 0
    assert found.spending.reported == pytest.approx(made.qpu_seconds, rel=0.01)
    assert [int(state.sum()) for state in found.states][1] == 3
    again = results(tmp_path / "jobs.sqlite")
    assert all(np.array_equal(one, other) for one, other in zip(again.states, found.states, strict=True))
    assert all("qpu_access_time" in job.timing and 0 <= job.chain_breaks <= 1 for job in found.jobs)


def test_parts_of_a_large_problem_never_raise_its_energy(service, tmp_path):
    server, sampler = service
    problem = random_problem(40, 5, num_kept=15)
    start = np.arange(40) < 15
    made = leap.plan(problem, sampler, seed=1, starts=[start], limits=Limits(variables=8), num_reads=50)
    assert sorted(np.concatenate([part.variables for part in made.parts]).tolist()) == list(range(40))
    assert all(part.part.size <= 8 for part in made.parts)
    found = made.submit(budget_seconds=1.0, ledger=tmp_path / "jobs.sqlite", solver=sampler, patience=QUICK)
    assert found.energies[0] < found.start_energies[0] == pytest.approx(problem.energy(start))
    assert found.states[0].sum() == 15 and found.energies[0] == pytest.approx(problem.energy(found.states[0]))


def test_merging_takes_only_what_helps():
    problem = random_problem(6, 3)
    from annealsubnet.leap.answers import PartAnswer
    from annealsubnet.leap.merging import PlannedPart

    start = solve(problem, dimod.ExactSolver(), seed=0).best
    worse = PartAnswer(0, ~start[None, :3], np.array([-1e9]), -1e9, 0.0, (0, 0.0, 0), 1)
    planned = PlannedPart(0, np.arange(3), random_problem(3, 0), 0.0, 1, 3)
    assert np.array_equal(merged(problem, start, [(planned, worse)]), start)


def test_prices_straddle_the_count():
    problems = [random_problem(20, seed, num_kept=kept) for seed, kept in enumerate((3, 10, 17))]
    for problem, price in zip(problems, prices_of(problems, seed=0), strict=True):
        assert problem.num_kept is not None
        cheap, dear = (
            solve(Problem(problem.linear + price + step, problem.couplings), seed=0).best.sum() for step in (-1.5, 1.5)
        )
        assert dear <= problem.num_kept <= cheap


def test_plans_need_no_network_and_are_the_same_twice(problems):
    made = [leap.plan(problems, "zephyr:3", seed=0) for _ in range(2)]
    assert made[0].fingerprint == made[1].fingerprint != leap.plan(problems, "zephyr:3", seed=1).fingerprint
    assert 0 < made[0].qpu_seconds < 0.1
    for row, job in zip(made[0].rows(), made[0].jobs, strict=True):
        assert row["qubits"] == job.qubits.size and row["predicted_seconds"] == job.seconds
    with pytest.raises(LeapError, match="this plan is for a typical QPU"):
        made[0].submit(budget_seconds=1.0, ledger="never.sqlite")


def test_reads_and_annealing_time_are_those_given(problems):
    made = leap.plan(problems, "pegasus:3", seed=0, num_reads=7, annealing_time=3.0)
    assert all(job.params["num_reads"] == 7 and job.params["annealing_time"] == 3.0 for job in made.jobs)
    with pytest.raises(LeapError, match=r"annealing_time must be from 0\.5 to 2000 microseconds"):
        leap.plan(problems, "pegasus:3", seed=0, annealing_time=1e6)
    with pytest.raises(LeapError, match="num_reads must be from 1 to 10000"):
        leap.plan(problems, "pegasus:3", seed=0, num_reads=0)


def test_reading_takes_as_long_as_programming(problems):
    device = described("zephyr:12")
    job = leap.plan(problems, "zephyr:12", seed=0).jobs[0]
    programming = 2 * device.seconds(job.qubits.size, {**job.params, "num_reads": 1}) - device.seconds(
        job.qubits.size, {**job.params, "num_reads": 2}
    )
    assert job.seconds == pytest.approx(2 * programming, rel=0.02)


def test_a_part_that_cannot_embed_is_named_with_limits_that_would():
    with pytest.raises(ValueError, match=r"(?s)part.*Limits\(variables=\d+\)"):
        leap.plan(random_problem(60, 0), "zephyr:2", seed=0, starts=[np.zeros(60)], limits=Limits(variables=60), time_limit=1.0)


def test_a_ledger_of_another_plan_is_refused(service, problems, tmp_path):
    server, sampler = service
    first = leap.plan(problems[:1], sampler, seed=0, num_reads=5)
    first.submit(budget_seconds=1.0, ledger=tmp_path / "jobs.sqlite", solver=sampler, patience=QUICK)
    jobs = len(server.jobs)
    first.submit(budget_seconds=1.0, ledger=tmp_path / "jobs.sqlite", solver=sampler, patience=QUICK)
    assert len(server.jobs) == jobs  # the same plan again pays nothing
    with pytest.raises(LeapError, match="is the ledger of another plan"):
        leap.plan(problems[1:], sampler, seed=0).submit(budget_seconds=1.0, ledger=tmp_path / "jobs.sqlite", solver=sampler)
    assert len(server.jobs) == jobs


def test_a_working_graph_that_changed_leaves_parts_behind_by_name(problems, tmp_path):
    with LoopbackLeap(size=3, seed=2) as server, DWaveSampler(**server.config) as sampler:
        made = leap.plan(problems, sampler, seed=0, num_reads=20)
        dead = int(made.jobs[0].qubits[made.jobs[0].placements[0].chains[0][0]])
        solver = server.service.solvers[server.solver_name]
        properties = dict(solver["properties"])
        properties["qubits"] = [qubit for qubit in properties["qubits"] if qubit != dead]
        properties["couplers"] = [pair for pair in properties["couplers"] if dead not in pair]
        identity = {"name": server.solver_name, "version": {"graph_id": "another"}}
        server.service.solvers[server.solver_name] = {**solver, "properties": properties, "identity": identity}
        found = made.submit(budget_seconds=1.0, ledger=tmp_path / "jobs.sqlite", solver=sampler, patience=QUICK)
    lost = made.jobs[0].placements[0].part
    assert found.jobs[0].entry.lost == (lost,)
    assert {answer.part for answer in found.parts} == set(range(len(made.parts))) - {lost}


def test_problems_and_parts_survive_the_ledger(problems):
    parts = leap.plan(problems, "zephyr:3", seed=0).parts
    starts = [np.ones(problem.size) for problem in problems]
    back, begun = read_problems(write_problems(problems, starts))
    for one, other in zip(back, problems, strict=True):
        assert one.to_bqm() == other.to_bqm() and one.num_kept == other.num_kept
    assert all(np.array_equal(one, other) for one, other in zip(begun, starts, strict=True))
    for one, other in zip(read_parts(write_parts(parts)), parts, strict=True):
        assert one.part.to_bqm() == other.part.to_bqm() and one.price == other.price and one.problem == other.problem


def test_public_names_are_never_hidden_by_a_module_of_that_name():
    """All modules are loaded first, as a program that plans, runs and reads results has done."""
    for module in pkgutil.iter_modules(leap.__path__, "annealsubnet.leap."):
        importlib.import_module(module.name)
    for name in leap.__all__:
        assert callable(getattr(leap, name)), f"{name} is {getattr(leap, name)!r}"


def test_models_are_taken_too():
    model = dimod.generators.ran_r(3, 6, seed=0)
    problem = problem_of(model, num_kept=2)
    states = np.random.default_rng(0).integers(0, 2, (20, 6))
    assert np.allclose(problem.energy(states), model.energies((2 * states - 1, list(model.variables))))
    with pytest.raises(TypeError, match="problem 0 is a dict"):
        leap.plan([{}], "zephyr:2", seed=0)  # type: ignore[list-item]


@pytest.mark.parametrize("vartype", ["BINARY", "SPIN"])
def test_labels_whose_strings_are_the_same_come_back(service, tmp_path, vartype):
    model = dimod.BinaryQuadraticModel({0: 1.0, "0": -2.0, (0,): 0.5, "(0,)": -0.25}, {(0, "0"): -0.5}, 0.0, vartype)
    quantum = leap.LeapSampler(service[1], budget_seconds=0.1, folder=tmp_path, patience=QUICK)
    found = quantum.sample(model, seed=0)
    assert found.first.sample == dimod.ExactSolver().sample(model).first.sample and quantum.spent > 0
    held = quantum.results[0]  # 0 or 1 in the order of the model's variables, for SPIN too
    values = held.states[0].astype(int) if vartype == "BINARY" else 2 * held.states[0].astype(int) - 1
    assert model.energy((values, list(model.variables))) == pytest.approx(held.energies[0])
    assert leap.plan(model, "zephyr:2", seed=0).problems[0].names == ("0", "1", "2", "3")


def test_descriptions_can_be_saved(tmp_path, service):
    server, sampler = service
    described(sampler).save(tmp_path / "solver.json")
    again = described(tmp_path / "solver.json")
    assert again == described(sampler) and again.name == server.solver_name
    for bad, message in (("zephyr:x", "neither a topology"), (3, "int does not describe a QPU")):
        with pytest.raises(LeapError, match=message):
            described(bad)


def test_the_sampler_spends_no_more_than_its_budget(service, tmp_path):
    server, sampler = service
    asked = []
    quantum = leap.LeapSampler(
        sampler, budget_seconds=0.07, folder=tmp_path, patience=QUICK, confirm=lambda plan, budget: asked.append(plan) or True
    )
    spent = server.qpu_seconds
    problem = random_problem(9, 7, num_kept=4)
    assert solve(problem, quantum, seed=0).energies[0] == pytest.approx(_kept_ground(problem))
    answers = [quantum.sample(random_problem(6, seed).to_bqm(), seed=seed, num_reads=50) for seed in (1, 2)]
    assert len(asked) == 1 and server.qpu_seconds - spent <= 0.07
    assert [answer.info["answered_by"] == "local annealer" for answer in answers] == [True, True]
    assert quantum.left_to_local == 2
    repeated = leap.LeapSampler(sampler, budget_seconds=0.07, folder=tmp_path, patience=QUICK, confirm=lambda *_: False)
    jobs = len(server.jobs)
    solve(problem, repeated, seed=0)  # the same call again, as after a crash, pays nothing
    assert len(server.jobs) == jobs and repeated.spent == pytest.approx(quantum.spent)
    again = leap.LeapSampler(sampler, budget_seconds=1.0, folder=tmp_path, confirm=lambda *_: False)
    solve(problem, again, seed=0)  # what is answered already needs no word, and is none for anything else
    with pytest.raises(LeapError, match="you said no"):
        solve(random_problem(7, 8), again, seed=0)


def test_a_call_made_again_pays_once_and_is_counted_once(tmp_path):
    model = random_problem(8, 3).to_bqm()
    with LoopbackLeap(size=3, seed=2) as server, DWaveSampler(**server.config) as sampler:
        quantum = leap.LeapSampler(sampler, budget_seconds=0.1, folder=tmp_path, patience=QUICK)
        answers = [quantum.sample(model, seed=0) for _ in range(4)]
        assert len(server.jobs) == len(quantum.results) == 1 and quantum.spent == pytest.approx(server.qpu_seconds)
        assert [answer.info["qpu_seconds"] for answer in answers] == pytest.approx([server.qpu_seconds, 0.0, 0.0, 0.0])
        assert len({answer.info["answered_by"] for answer in answers}) == 1 and quantum.left_to_local == 0
        other = quantum.sample(random_problem(8, 4).to_bqm(), seed=0, num_reads=20)
        assert other.info["qpu_seconds"] == pytest.approx(server.qpu_seconds - answers[0].info["qpu_seconds"])
        assert quantum.spent == pytest.approx(server.qpu_seconds) and len(server.jobs) == 2
        last = quantum.sample(random_problem(8, 5).to_bqm(), seed=0)  # the budget is spent; what is paid for can still be had
        assert last.info["answered_by"] == "local annealer" and last.info["qpu_seconds"] == 0.0
        again = quantum.sample(model, seed=0)
        assert again.info["answered_by"] == answers[0].info["answered_by"] and again.first.energy == answers[0].first.energy
        late = leap.LeapSampler(sampler, budget_seconds=0.1, folder=tmp_path, patience=QUICK)
        assert late.sample(model, seed=0).info["qpu_seconds"] == 0.0 < late.spent  # paid for by an earlier process
        assert len(server.jobs) == 2 and server.qpu_seconds <= 0.1 and quantum.spent == pytest.approx(server.qpu_seconds)


def test_what_was_sent_before_a_failure_is_counted(tmp_path):
    model = random_problem(8, 3).to_bqm()
    with LoopbackLeap(size=3, seed=2) as server, DWaveSampler(**server.config) as sampler:
        quantum = leap.LeapSampler(sampler, budget_seconds=0.2, folder=tmp_path, patience=QUICK)
        sent = []

        def interrupted(*args, **options):
            sent.append(found := submit(*args, **options))
            raise KeyboardInterrupt(found)

        submit = leap.Plan.submit
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(leap.Plan, "submit", interrupted)
            with pytest.raises(KeyboardInterrupt):
                quantum.sample(model, seed=0)
        assert sent and quantum.spent == pytest.approx(server.qpu_seconds) and server.qpu_seconds > 0
        assert quantum.sample(model, seed=0).info["qpu_seconds"] == 0.0 and len(server.jobs) == 1


def test_a_solver_gone_between_plan_and_submit_costs_nothing_and_can_come_back(tmp_path):
    with LoopbackLeap(size=2) as server, DWaveSampler(**server.config) as sampler:
        made = leap.plan(random_problem(6, 0), sampler, seed=0, starts=[np.zeros(6, bool)], cover="all")
        told = {"budget_seconds": 1.0, "ledger": tmp_path / "jobs.sqlite", "solver": sampler, "patience": QUICK}
        server.go_offline()
        with pytest.raises(LeapError, match=f"{server.solver_name} is off line"):
            made.submit(**told)
        assert not server.jobs
        server.service.solvers[server.solver_name]["status"] = "ONLINE"
        assert made.submit(**told).energies == pytest.approx([ground_energy(random_problem(6, 0))])
        elsewhere = replace(made, solver=replace(made.solver, name="Advantage_system99"))
        with pytest.raises(LeapError, match="the solver Advantage_system99 is not there"):
            elsewhere.submit(**{**told, "ledger": tmp_path / "elsewhere.sqlite"})
        assert len(server.jobs) == len(made.jobs)


def test_a_plan_is_told_from_one_of_other_problems(service):
    _, sampler = service
    problem = random_problem(6, 3)
    moved = replace(problem, offset=problem.offset + 1.0)
    first, other = (leap.plan(one, sampler, seed=0, cover="all") for one in (problem, moved))
    assert first.fingerprint == leap.plan(problem, sampler, seed=0, cover="all").fingerprint != other.fingerprint


def test_covers_that_there_are_not_plan_nothing(service):
    problem, starts = random_problem(30, 0), [np.zeros(30, bool)]
    with pytest.raises(ValueError, match="cover must be 'contested' or 'all'; it is 'contestd'"):
        leap.plan(problem, "zephyr:3", seed=0, cover="contestd")
    with pytest.raises(ValueError, match="cover must be 'contested' or 'all'"):
        leap.LeapSampler(service[1], budget_seconds=1.0, cover="contestd").sample(problem.to_bqm(), seed=0)
    with pytest.raises(ValueError, match="not known of starts"):
        leap.plan(problem, "zephyr:3", seed=0, starts=starts, cover="contested")
    default, everything = (leap.plan(problem, "zephyr:3", seed=0, starts=starts, cover=cover) for cover in (None, "all"))
    assert default.fingerprint == everything.fingerprint


@pytest.mark.parametrize(
    ("start", "message"),
    [
        (np.ones(8), r"starts\[1\] keeps 8 units; the problem keeps 3"),
        (np.array([-1, 1] * 4), r"starts\[1\] must be 0 or 1 for each variable; there is -1"),
        (np.ones(7), r"starts\[1\] must be 0 or 1 for each of 8 variables; its shape is \(7,\)"),
    ],
)
def test_starts_that_are_no_states_of_their_problem(start, message):
    with pytest.raises(ValueError, match=message):
        leap.plan([random_problem(4, 0), random_problem(8, 1, num_kept=3)], "zephyr:2", seed=0, starts=[np.zeros(4), start])


def test_two_parts_of_a_problem_are_sent_unless_all_are_asked_for():
    rng = np.random.default_rng(0)
    upper = np.triu(rng.choice([-1.0, 1.0], (60, 60)), 1)
    glass = Problem(np.zeros(60), upper + upper.T)
    limits = Limits(variables=4)
    found = leap.plan(glass, "zephyr:3", seed=0, limits=limits)
    everything = leap.plan(glass, "zephyr:3", seed=0, limits=limits, cover="all")
    assert len(found.parts) == 2 < len(everything.parts)
    assert sorted(np.concatenate([part.variables for part in everything.parts]).tolist()) == list(range(60))


@pytest.mark.parametrize("reversals", [0, 1, 4, 10])
def test_reversals_share_the_reads_of_a_job(problems, reversals):
    made = leap.plan(problems, "zephyr:3", seed=0, num_reads=10, spin_reversals=reversals)
    reads = [job.params["num_reads"] for job in made.jobs]
    assert len(reads) == max(reversals, 1) and sum(reads) == 10 and max(reads) - min(reads) <= 1
    device = described("zephyr:3")
    assert [job.seconds for job in made.jobs] == [device.seconds(job.qubits.size, job.params) for job in made.jobs]
    with pytest.raises(ValueError, match="spin_reversals is 30, but a job has 10 reads"):
        leap.plan(problems, "zephyr:3", seed=0, num_reads=10, spin_reversals=30)


def test_numbers_of_numpy_are_those_of_python(service, problems, tmp_path):
    _, sampler = service
    made = leap.plan(
        problems, sampler, seed=np.int64(0), num_reads=np.int64(20), annealing_time=np.float32(5), spin_reversals=np.int8(1)
    )
    assert made.fingerprint == leap.plan(problems, sampler, seed=0, num_reads=20, annealing_time=5.0).fingerprint
    told = {"budget_seconds": np.float32(1), "ledger": tmp_path / "jobs.sqlite", "solver": sampler, "patience": QUICK}
    assert not made.submit(**told).unresolved


def test_numbers_that_cannot_be_are_refused_by_name(service, problems, tmp_path):
    for options, message in (
        ({"seed": 2.7}, "seed must be a whole number; it is 2.7"),
        ({"seed": -1}, "seed must be at least 0"),
        ({"num_reads": 20.5}, "num_reads must be a whole number; it is 20.5"),
        ({"spin_reversals": -1}, "spin_reversals must be at least 0"),
        ({"annealing_time": "5"}, "annealing_time must be a number"),
    ):
        with pytest.raises((TypeError, ValueError), match=message):
            leap.plan(problems, "zephyr:3", **({"seed": 0} | options))
    quantum = leap.LeapSampler(service[1], budget_seconds=np.float32(1), folder=tmp_path)
    with pytest.raises(TypeError, match=r"seed must be a whole number; it is 2\.7"):
        quantum.sample(problems[0].to_bqm(), seed=2.7)
    for budget in (0, -1.0, np.nan, "1", None):
        with pytest.raises(LeapError, match="budget_seconds must be above 0"):
            leap.LeapSampler(service[1], budget_seconds=budget)


def test_sparse_parts_alone_are_planned():
    ring = np.roll(np.eye(30), 1, axis=0)
    made = leap.plan(Problem(np.ones(30), ring + ring.T), "zephyr:2", seed=0, limits="sparse", cover="all")
    assert len(made.jobs) == 1 and made.parts


def test_hybrid_sampler_keeps_counts(service):
    server, _ = service
    problem = random_problem(10, 4, num_kept=4)
    hybrid = leap.HybridSampler(**server.config)
    try:
        found = solve(problem, hybrid, seed=0)
    finally:
        hybrid.close()
    assert found.calls == 1 and found.best.sum() == 4
    assert found.energies[0] == pytest.approx(_kept_ground(problem))
