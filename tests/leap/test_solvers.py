"""Reads and annealing times: what is chosen is what the solver runs, and what it runs is not refused."""

from dataclasses import replace

import pytest
from dwave.cloud.solver import StructuredSolver

from annealsubnet import leap
from annealsubnet.leap.connection import LeapError
from annealsubnet.leap.solvers import chosen_params, described
from tests.leap.test_planning import random_problem


def changed(name, **properties):
    """A typical QPU with other properties; without those that are None."""
    device = described(name)
    kept = {name: value for name, value in {**device.properties, **properties}.items() if value is not None}
    return replace(device, properties=kept)


def chosen(device, num_qubits=100, *, num_reads=None, annealing_time=None, turns=1):
    return chosen_params(device, num_qubits, num_reads=num_reads, annealing_time=annealing_time, turns=turns)


def duration(device, params):
    """Microseconds that a job runs, by the definition of problem_run_duration_range."""
    readout, programming = (device.properties[f"default_{name}_thermalization"] for name in ("readout", "programming"))
    return params["num_reads"] * (params["annealing_time"] + readout) + programming


def most_reads(device, annealing_time):
    """What the client says."""
    return StructuredSolver(client=None, data=device.to_data()).max_num_reads(annealing_time=annealing_time)


@pytest.mark.parametrize("annealing_time", [100.9, 500.0, 1234.5, 2000.0])
@pytest.mark.parametrize("readout", [0.0, 12.5])
def test_as_many_reads_are_taken_as_the_client_says_and_not_one_more(annealing_time, readout):
    device = changed("pegasus:2", default_readout_thermalization=readout)
    most = most_reads(device, annealing_time)
    assert chosen(device, num_reads=most, annealing_time=annealing_time)["num_reads"] == most < 10000
    with pytest.raises(LeapError, match=rf"num_reads is {most + 1}, but {most} reads .* problem_run_duration_range"):
        chosen(device, num_reads=most + 1, annealing_time=annealing_time)


def test_jobs_that_share_reads_are_each_within_the_limit():
    most = most_reads(described("zephyr:2"), 500.0)
    problem = random_problem(8, 0)
    made = leap.plan(problem, "zephyr:2", seed=0, num_reads=4 * most, annealing_time=500.0, spin_reversals=4)
    assert [job.params["num_reads"] for job in made.jobs] == [most] * 4
    with pytest.raises(LeapError, match=f"{4 * most} reads are the most"):
        leap.plan(problem, "zephyr:2", seed=0, num_reads=4 * most + 1, annealing_time=500.0, spin_reversals=4)
    with pytest.raises(LeapError, match="problem_run_duration_range"):
        leap.plan(problem, "zephyr:2", seed=0, num_reads=most + 1, annealing_time=500.0, reverse=True)


@pytest.mark.parametrize("limit", [1_200.0, 5_000.0, 20_000.0, 1_000_000.0])
@pytest.mark.parametrize("given", [{}, {"annealing_time": 150.0}, {"num_reads": 100}, {"num_reads": 10000}], ids=str)
def test_what_is_not_given_leaves_the_job_within_the_limit(limit, given):
    device = changed("pegasus:16", problem_run_duration_range=[0.0, limit])
    shortest = device.properties["annealing_time_range"][0]
    if given.get("num_reads", 1) * shortest + 1000.0 > limit:
        with pytest.raises(LeapError, match=r"num_reads is .* problem_run_duration_range"):
            chosen(device, device.num_qubits, **given)
        return
    params = chosen(device, device.num_qubits, **given)
    assert params["num_reads"] >= 1 and params["annealing_time"] >= shortest and duration(device, params) <= limit
    assert {name: params[name] for name in given} == given


def test_an_annealing_of_which_not_one_fits_is_refused():
    device = changed("zephyr:2", problem_run_duration_range=[0.0, 1500.0])
    assert chosen(device, annealing_time=500.0)["num_reads"] == 1
    with pytest.raises(LeapError, match=r"annealing_time must be from 0\.5 to 500 microseconds; it is 501"):
        chosen(device, annealing_time=501.0)


def test_a_solver_without_the_limit_takes_anything():
    device = changed(
        "zephyr:2",
        problem_run_duration_range=None, default_readout_thermalization=None, default_programming_thermalization=None,
    )  # fmt: skip
    params = chosen(device, num_reads=10000, annealing_time=2000.0)
    assert (params["num_reads"], params["annealing_time"]) == (10000, 2000.0)
