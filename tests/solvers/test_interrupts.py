"""Ctrl-C is seen while reads run, on one thread as on many, and the number of threads changes no answer."""

import os
import signal
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import dimod
import numpy as np
import pytest

from annealsubnet.solvers import Annealer


def interrupted_after(call):
    """Seconds from a Ctrl-C to its exception."""
    sent = []

    def send():
        sent.append(time.perf_counter())
        os.kill(os.getpid(), signal.SIGINT)

    timer = threading.Timer(0.3, send)
    timer.start()
    try:
        with pytest.raises(KeyboardInterrupt):
            call()
            time.sleep(1)
    finally:
        timer.cancel()
    return time.perf_counter() - sent[0]


@pytest.fixture(scope="module")
def arrays():
    rng = np.random.default_rng(0)
    upper = np.triu(rng.normal(size=(300, 300)), 1)
    return rng.normal(size=300), upper + upper.T


@pytest.mark.usefixtures("ctrl_c")
@pytest.mark.parametrize("num_threads", [1, 2])
def test_reads(arrays, num_threads):
    bqm = dimod.BinaryQuadraticModel(*arrays, 0.0, "BINARY")
    options = {"num_reads": 2, "num_threads": num_threads, "seed": 0}
    Annealer().sample(bqm, num_sweeps=1, **options)  # compiled
    assert interrupted_after(lambda: Annealer().sample(bqm, num_sweeps=1_000_000, **options)) < 3


@pytest.mark.usefixtures("ctrl_c")
def test_many_problems(arrays):
    linear, couplings = ([array] * 3 for array in arrays)
    options = {"num_threads": 1, "seed": 0}
    Annealer().sample_many(linear, couplings, num_sweeps=1, **options)
    assert interrupted_after(lambda: Annealer().sample_many(linear, couplings, num_sweeps=1_000_000, **options)) < 3


def test_one_thread_beside_the_callers_answers_as_the_caller(arrays, monkeypatch):
    bqm = dimod.BinaryQuadraticModel(*arrays, 0.0, "BINARY")
    options = {"num_reads": 20, "num_threads": 1, "num_sweeps": 40, "seed": 3}
    answers = []
    for small in (0, 10**9):
        monkeypatch.setattr("annealsubnet.solvers.running._SMALL", small)
        answers.append(Annealer().sample(bqm, **options).record.sample)
        answers.append(Annealer().sample(bqm, num_kept=9, **options).record.sample)
    np.testing.assert_array_equal(answers[0], answers[2])
    np.testing.assert_array_equal(answers[1], answers[3])


def test_descents_are_work_too(arrays, monkeypatch):
    """Reads without a sweep, as after an accelerator's, are handed to threads when their sums are many."""
    used = []

    class Pool(ThreadPoolExecutor):
        def __init__(self, size):
            used.append(size)
            super().__init__(size)

    monkeypatch.setattr("annealsubnet.solvers.running.ThreadPoolExecutor", Pool)
    monkeypatch.setattr("annealsubnet.solvers.running.default_num_threads", lambda: 2)
    bqm = dimod.BinaryQuadraticModel(*arrays, 0.0, "BINARY")
    few, many = (Annealer().sample(bqm, num_reads=reads, num_sweeps=0, seed=0) for reads in (8, 800))
    assert used == [2, 2]  # the descents and the energies of many
    for found in (few, many):
        np.testing.assert_allclose(found.record.energy, bqm.energies((found.record.sample, range(300))), rtol=1e-12)
