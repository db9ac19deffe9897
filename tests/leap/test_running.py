"""Running a ledger: whatever goes wrong, nothing is lost, nothing is paid for twice, and the budget holds."""

import logging
import os
import random
import shutil
import sqlite3
import subprocess
import sys
import time
import traceback

import numpy as np
import pytest

from annealsubnet.leap.connection import LeapError
from annealsubnet.leap.ledger import Ledger
from annealsubnet.leap.merging import results
from annealsubnet.leap.patience import Patience
from annealsubnet.leap.resuming import resume
from annealsubnet.leap.running import Pace, run, spending
from annealsubnet.testing import FAULTS, Faults, LoopbackLeap
from tests.leap.ledgers import QUICK, connect, small_jobs, write_ledger


def work(leap, path, *, budget=1e9, pace=None, patience=QUICK, **options):
    with Ledger(path, mode="write") as ledger, connect(leap, patience) as connection:
        run(ledger, connection, budget_seconds=budget, pace=pace or Pace(batch=5), **options)


def settled(leap, path):
    """Every job is completed, or says why not; none was accepted twice; none that was paid for is missing."""
    with Ledger(path) as ledger:
        entries = ledger.entries()
    assert max(leap.labels.values(), default=0) <= 1
    known = {entry.label: entry for entry in entries}
    assert set(leap.labels) <= set(known)
    for job in leap.jobs:
        entry = known[job.label]
        if job.status == "COMPLETED":
            assert entry.state == "completed" or (entry.state == "unresolved" and entry.reason)
            assert entry.problem_id == job.id or entry.state == "unresolved"
    for entry in entries:
        assert entry.state in ("completed", "failed", "unresolved"), entry
        assert entry.state == "completed" or entry.reason, entry
    return entries


def test_everything_is_answered(tmp_path):
    with LoopbackLeap(size=2) as leap:
        path = write_ledger(tmp_path / "jobs.sqlite", leap, 12)
        work(leap, path)
        entries = settled(leap, path)
        found = results(path)
    assert {entry.state for entry in entries} == {"completed"}
    assert found.classical and "classical" in repr(found)
    assert found.spending.reported == pytest.approx(leap.qpu_seconds)
    for problem_states, problem, job in zip(found.states, found.planned, small_jobs(leap, 12), strict=True):
        every = np.array([[0, 0], [0, 1], [1, 0], [1, 1]])
        assert problem.part.energy(problem_states) == problem.part.energy(every).min(), job


@pytest.mark.parametrize("fault", FAULTS)
def test_one_fault_of_each_kind(tmp_path, fault):
    with LoopbackLeap(size=2, faults=Faults(slow_seconds=0.1)) as leap:
        path = write_ledger(tmp_path / "jobs.sqlite", leap, 4)
        leap.next_fault(fault, times=2)
        work(leap, path, pace=Pace(batch=2))
        settled(leap, path)
        assert leap.faults_thrown[fault] == 2


@pytest.mark.parametrize("seed", range(2))
def test_every_fault_at_once(tmp_path, seed):
    with LoopbackLeap(size=2, faults=Faults.everything(0.3, seed=seed, slow_seconds=0.05)) as leap:
        path = write_ledger(tmp_path / "jobs.sqlite", leap, 40)
        work(leap, path, pace=Pace(batch=4))
        entries = settled(leap, path)
        assert sum(entry.state == "completed" for entry in entries) > 20
        assert len(leap.faults_thrown) >= 6


@pytest.mark.parametrize("fault", ["dropped after", "truncated"])
def test_a_job_whose_acceptance_was_lost_is_found_by_its_label(tmp_path, fault):
    with LoopbackLeap(size=2) as leap:
        path = write_ledger(tmp_path / "jobs.sqlite", leap, 3)
        with Ledger(path, mode="write") as ledger, connect(leap) as connection:
            send = connection.submit
            connection.submit = lambda bodies: (leap.next_fault(fault), send(bodies))[1]
            run(ledger, connection, budget_seconds=1.0, pace=Pace(batch=3))
        assert {entry.state for entry in settled(leap, path)} == {"completed"}


def test_a_job_that_never_arrived_waits_for_the_users_word(tmp_path):
    with LoopbackLeap(size=2) as leap:
        path = write_ledger(tmp_path / "jobs.sqlite", leap, 2)
        with Ledger(path, mode="write") as ledger, connect(leap) as connection:
            send, calls = connection.submit, []

            def lose_the_first(bodies):
                if not calls:
                    leap.next_fault("dropped before")
                calls.append(len(bodies))
                return send(bodies)

            connection.submit = lose_the_first
            run(ledger, connection, budget_seconds=1.0, pace=Pace(batch=1))
        assert sorted(entry.state for entry in settled(leap, path)) == ["completed", "unresolved"]
        work(leap, path)
        assert len(leap.jobs) == 1  # still not sent again
        work(leap, path, resubmit=True)
        assert {entry.state for entry in settled(leap, path)} == {"completed"} and len(leap.jobs) == 2


def test_budget_is_never_exceeded(tmp_path):
    with LoopbackLeap(size=2, latency=0.01) as leap:
        path = write_ledger(tmp_path / "jobs.sqlite", leap, 10, seconds=0.0309)
        work(leap, path, budget=0.1, pace=Pace(batch=2))
        assert len(leap.jobs) == 3 and leap.qpu_seconds <= 0.1
        with Ledger(path) as ledger:
            left = ledger.entries("planned")
        assert len(left) == 7 and all("the budget of 0.1 QPU seconds" in entry.reason for entry in left)
        work(leap, path, budget=0.2)
        assert leap.qpu_seconds <= 0.2 and len(leap.jobs) == 6


def test_what_may_have_been_accepted_counts_against_the_budget(tmp_path):
    with LoopbackLeap(size=2) as leap:
        path = write_ledger(tmp_path / "jobs.sqlite", leap, 4, seconds=0.0309)
        with Ledger(path, mode="write") as ledger:
            ledger.move([0, 1], "unresolved", "perhaps sent")
        work(leap, path, budget=0.1)
        assert len(leap.jobs) == 1
        with Ledger(path) as ledger:
            assert spending(ledger).reserved == pytest.approx(2 * 0.0309)


def test_predictions_too_low_stop_at_what_was_reported(tmp_path):
    with LoopbackLeap(size=2) as leap:
        path = write_ledger(tmp_path / "jobs.sqlite", leap, 10, seconds=0.01)  # a third of what jobs take
        work(leap, path, budget=0.1, pace=Pace(batch=1, in_flight=2))
        assert leap.qpu_seconds <= 0.1 + 2 * 0.031  # no more than what was in flight


PARENT = """
import os, signal, sys, time
import dwave.cloud.api
from annealsubnet.leap.patience import Patience
from annealsubnet.leap.resuming import resume
from annealsubnet.leap.running import Pace
for line in sys.stdin:
    child = os.fork()
    if child == 0:
        try:
            resume(sys.argv[1], pace=Pace(batch=2, in_flight=6), patience=Patience(first=0.01, most=0.1, poll_seconds=1))
        finally:
            os._exit(0)
    time.sleep(float(line))
    os.kill(child, signal.SIGKILL)
    print(int(os.WIFSIGNALED(os.waitpid(child, 0)[1])), flush=True)
"""


def test_killed_at_any_moment(tmp_path):
    """Each process is forked from one that has imported everything, so that it dies at work and not while it starts."""
    rng = random.Random(5)
    with LoopbackLeap(size=2, latency=0.02) as leap:
        path = write_ledger(tmp_path / "jobs.sqlite", leap, 40)
        environment = {**os.environ, **leap.environment, "PYTHONPATH": os.pathsep.join(sys.path)}
        command = [sys.executable, "-c", PARENT, str(path)]
        with subprocess.Popen(command, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as parent:
            assert parent.stdin is not None and parent.stdout is not None
            killed = 0
            for _ in range(8):
                parent.stdin.write(f"{rng.uniform(0.0, 0.3)}\n")
                parent.stdin.flush()
                killed += int(parent.stdout.readline())
            parent.stdin.close()
        assert killed >= 4  # the others had nothing left to do
        work(leap, path)
        entries = settled(leap, path)
        assert sum(entry.state == "completed" for entry in entries) >= 30


def test_a_process_dies_between_the_request_and_the_ledger(tmp_path, monkeypatch):
    class Killed(BaseException):
        pass

    def die(self, ids):
        raise Killed

    with LoopbackLeap(size=2) as leap:
        path = write_ledger(tmp_path / "jobs.sqlite", leap, 3)
        with monkeypatch.context() as patched, pytest.raises(Killed):
            patched.setattr(Ledger, "submitted", die)
            work(leap, path)
        with Ledger(path) as ledger:
            assert {entry.state for entry in ledger.entries()} == {"sending"}
        work(leap, path)
        assert {entry.state for entry in settled(leap, path)} == {"completed"} and len(leap.jobs) == 3


def test_two_processes_cannot_work_on_one_ledger(tmp_path):
    with LoopbackLeap(size=2) as leap:
        path = write_ledger(tmp_path / "jobs.sqlite", leap, 1)
        with Ledger(path, mode="write"):
            with pytest.raises(LeapError, match="another process works on"):
                Ledger(path, mode="write")
            assert len(results(path).jobs) == 1  # reading is allowed


def test_a_reader_undoes_what_a_killed_writer_left_half_written(tmp_path):
    """A journal beside a file whose pages have begun to change, as SIGKILL in a transaction leaves them."""
    (tmp_path / "killed").mkdir()
    with LoopbackLeap(size=2) as leap:
        path = write_ledger(tmp_path / "jobs.sqlite", leap, 2)
    writer = sqlite3.connect(path, isolation_level=None)
    writer.execute("PRAGMA cache_size = 1")
    writer.execute("BEGIN")
    writer.execute("CREATE TABLE more (text)")
    writer.executemany("INSERT INTO more VALUES (?)", [("half written " * 100,)] * 100)
    for name in ("jobs.sqlite", "jobs.sqlite-journal"):
        shutil.copy(tmp_path / name, tmp_path / "killed" / name)
    writer.execute("ROLLBACK")
    writer.close()
    with Ledger(tmp_path / "killed" / "jobs.sqlite") as ledger, Ledger(path) as untouched:
        assert ledger.entries() == untouched.entries() and len(ledger.entries()) == 2
    assert not (tmp_path / "killed" / "jobs.sqlite-journal").exists()


def test_a_solver_that_went_off_line(tmp_path):
    with LoopbackLeap(size=2) as leap:
        path = write_ledger(tmp_path / "jobs.sqlite", leap, 2)
        leap.go_offline()
        with pytest.raises(LeapError, match="Loopback_zephyr2 is off line"):
            work(leap, path)
        assert not leap.jobs
        leap.service.solvers[leap.solver_name]["status"] = "ONLINE"
        work(leap, path)
        settled(leap, path)


def test_an_unknown_solver(tmp_path):
    with LoopbackLeap(size=2) as leap:
        path = write_ledger(tmp_path / "jobs.sqlite", leap, 1)
        with Ledger(path, mode="write") as ledger:
            ledger.set_facts({"solver": "Advantage_system99"})
        with pytest.raises(LeapError, match="the solver Advantage_system99 is not there"):
            work(leap, path)


def test_a_refused_token_is_told_without_being_shown(tmp_path, caplog):
    secret = "DEV-0123456789abcdef"
    with LoopbackLeap(size=2, token="another") as leap, caplog.at_level(logging.DEBUG):
        path = write_ledger(tmp_path / "jobs.sqlite", leap, 1)
        leap.token = secret
        with connect(leap) as connection, Ledger(path, mode="write") as ledger:
            with pytest.raises(LeapError, match="does not accept the token") as caught:
                run(ledger, connection, budget_seconds=1.0, pace=Pace())
            shown = [repr(connection), str(vars(connection)), repr(caught.value), path.read_bytes()]
            shown += traceback.format_exception(caught.value)
    assert not any(secret in str(text) for text in shown)
    ours = [record.getMessage() for record in caplog.records]
    assert not any(secret in text for text in ours)


def test_no_credentials(tmp_path):
    with LoopbackLeap(size=2) as leap:
        path = write_ledger(tmp_path / "jobs.sqlite", leap, 1)
    with pytest.raises(LeapError, match="there is no token for D-Wave Leap; set DWAVE_API_TOKEN"):
        resume(path)
    for budget in (0.0, -1.0, float("nan")):
        with pytest.raises(LeapError, match="budget_seconds must be above 0"):
            resume(path, budget_seconds=budget)


def test_a_token_does_not_go_where_a_file_says(tmp_path, monkeypatch):
    with LoopbackLeap(size=2) as leap, LoopbackLeap(size=2) as other:
        path = write_ledger(tmp_path / "jobs.sqlite", other, 1)
        for name, value in leap.environment.items():
            monkeypatch.setenv(name, value)
        with pytest.raises(LeapError, match="but the configuration leads to"):
            resume(path)
        assert not other.service.requests


def test_a_service_that_is_not_there(tmp_path):
    with LoopbackLeap(size=2) as leap:
        path = write_ledger(tmp_path / "jobs.sqlite", leap, 1)
        connection = connect(leap, Patience(attempts=2, first=0.001))
    with connection, Ledger(path, mode="write") as ledger, pytest.raises(LeapError, match="did not answer 2 times in a row"):
        run(ledger, connection, budget_seconds=1.0, pace=Pace())


@pytest.mark.parametrize("read", [results, resume])
def test_a_process_dies_before_its_plan_is_written(tmp_path, read):
    path = tmp_path / "jobs.sqlite"
    Ledger(path, mode="create").close()
    with pytest.raises(LeapError, match=r"jobs\.sqlite holds no plan yet: the process ended before it was written"):
        read(path)


def test_files_that_are_no_ledgers(tmp_path):
    with pytest.raises(LeapError, match="there is no ledger"):
        resume(tmp_path / "nothing.sqlite")
    text = tmp_path / "text.sqlite"
    text.write_text("this is no database, and it is longer than the header of one " * 20)
    with pytest.raises(LeapError, match="check that it is a ledger"):
        resume(text)


@pytest.mark.skipif(os.geteuid() == 0, reason="the superuser can write anywhere")
def test_a_folder_that_is_read_only(tmp_path):
    folder = tmp_path / "closed"
    folder.mkdir()
    folder.chmod(0o500)
    with pytest.raises(LeapError, match="its folder can be written"):
        Ledger(folder / "jobs.sqlite", mode="create")


@pytest.fixture
def full_disk():
    """No file of this process can grow; what may write anywhere can't either."""
    resource = pytest.importorskip("resource")
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, before[1]))
    yield
    resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_a_disk_that_takes_nothing(tmp_path, full_disk):
    with pytest.raises(LeapError, match="Nothing was sent that is not in it"):
        Ledger(tmp_path / "jobs.sqlite", mode="create")


def test_a_folder_that_is_not_there(tmp_path):
    with pytest.raises(LeapError, match="its folder can be written"):
        Ledger(tmp_path / "nowhere" / "jobs.sqlite", mode="create")


def test_a_disk_that_fills_up_stops_before_anything_is_sent(tmp_path):
    with LoopbackLeap(size=2) as leap:
        path = write_ledger(tmp_path / "jobs.sqlite", leap, 2)
        with Ledger(path, mode="write") as ledger, connect(leap) as connection:
            ledger._file.execute("PRAGMA query_only = ON")
            with pytest.raises(LeapError, match="Nothing was sent that is not in it"):
                run(ledger, connection, budget_seconds=1.0, pace=Pace())
        assert not leap.jobs


def test_clocks_that_jump_change_nothing(tmp_path, monkeypatch):
    jumps = iter(range(10**9, 0, -(10**7)))
    monkeypatch.setattr(time, "time", lambda: float(next(jumps, 0)))
    with LoopbackLeap(size=2) as leap:
        path = write_ledger(tmp_path / "jobs.sqlite", leap, 5)
        work(leap, path, pace=Pace(seconds=60.0))
        assert {entry.state for entry in settled(leap, path)} == {"completed"}


def test_time_allowed_is_kept_and_nothing_is_lost(tmp_path):
    with LoopbackLeap(size=2, latency=3.0) as leap:
        path = write_ledger(tmp_path / "jobs.sqlite", leap, 2)
        work(leap, path, pace=Pace(seconds=0.3))
        with Ledger(path) as ledger:
            assert {entry.state for entry in ledger.entries()} <= {"planned", "submitted"}
        work(leap, path)
        settled(leap, path)
