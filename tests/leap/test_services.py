"""The same tests on the loopback service and, with a token in the environment and `-m leap`, on the user's own QPU.

On a real service they take less than half a second of QPU access time and the least time limit of one hybrid job.
"""

import dimod
import numpy as np
import pytest
from dwave.system import DWaveSampler, LeapHybridSampler

from annealsubnet import leap
from annealsubnet.leap.connection import Connection, LeapError
from annealsubnet.leap.ledger import Ledger
from annealsubnet.leap.sampler import own_solver
from annealsubnet.problems import Problem
from annealsubnet.solvers import solve
from annealsubnet.testing import LoopbackLeap

SERVICES = ["loopback", pytest.param("real", marks=pytest.mark.leap)]


@pytest.fixture(scope="module", params=SERVICES)
def service(request):
    """The name of a service, its QPU, and how its client is configured."""
    if request.param == "real":
        with own_solver() as sampler:
            yield "real", sampler, {}
        return
    with LoopbackLeap(size=3, seed=3) as server, DWaveSampler(**server.config) as sampler:
        yield "loopback", sampler, server.config


def problems():
    rng = np.random.default_rng(0)
    found = []
    for size, num_kept in ((10, None), (8, 3), (9, None)):
        upper = np.triu(rng.normal(size=(size, size)), 1)
        found.append(Problem(rng.normal(size=size), upper + upper.T, 0.0, num_kept))
    return found


@pytest.mark.parametrize("options", [{}, {"reverse": True}, {"spin_reversals": 2}], ids=str)
def test_jobs_go_there_and_come_back(service, tmp_path, options):
    name, sampler, _ = service
    path = tmp_path / "jobs.sqlite"
    made = leap.plan(problems(), sampler, seed=0, num_reads=50, **options)
    found = made.submit(budget_seconds=0.2, ledger=path, solver=sampler)
    assert not found.unresolved and found.classical == (name == "loopback")
    assert found.spending.reported == pytest.approx(made.qpu_seconds, rel=0.2)
    assert (found.energies <= found.start_energies + 1e-9).all() and found.states[1].sum() == 3
    with Ledger(path) as ledger:
        ids = {entry.label: entry.problem_id for entry in ledger.entries()}
    again = leap.resume(path, solver=sampler)  # nothing is left to do, and nothing is paid
    assert again.spending == found.spending and {job.entry.label: job.entry.problem_id for job in again.jobs} == ids
    with Connection.open(sampler) as connection:
        assert {label: connection.find(label) for label in ids} == {label: [problem_id] for label, problem_id in ids.items()}


def test_hybrid_solvers_are_just_other_samplers(service):
    _, _, config = service
    problem = problems()[1]
    hybrid, models = leap.HybridSampler(**config), LeapHybridSampler(**config)
    try:
        for sampler in (hybrid, models):
            assert solve(problem, sampler, seed=0).best.sum() == 3
    finally:
        hybrid.close()
        models.close()


def test_a_token_that_is_wrong_is_refused(service, tmp_path):
    _, sampler, _ = service
    made = leap.plan(problems()[:1], sampler, seed=0, num_reads=5)
    config = sampler.client.config.model_copy(update={"token": "DEV-" + 40 * "0"})
    with Connection(config) as connection, pytest.raises(LeapError, match="does not accept the token"):
        connection.solver(made.solver.name)


def test_an_exact_solver_finds_nothing_better(service, tmp_path):
    """Ten variables: the answer of the QPU, polished, is the ground state."""
    _, sampler, _ = service
    problem = problems()[0]
    made = leap.plan(problem, sampler, seed=1, starts=[np.zeros(10)], num_reads=50)
    found = made.submit(budget_seconds=0.1, ledger=tmp_path / "jobs.sqlite", solver=sampler)
    assert found.energies[0] == pytest.approx(solve(problem, dimod.ExactSolver(), seed=0).energies[0])
