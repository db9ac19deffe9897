"""Threads of ours have BLAS to themselves, and give it back."""

import numpy as np  # noqa: F401 - with it comes a BLAS to look at
from threadpoolctl import threadpool_info, threadpool_limits

from annealsubnet.solvers.threads import ONE_BLAS_THREAD, in_threads


def blas_threads() -> list[int]:
    return [library["num_threads"] for library in threadpool_info() if library["user_api"] == "blas"]


def test_blas_has_one_thread_within_threads_of_ours_and_its_own_number_after():
    with threadpool_limits(limits=2, user_api="blas"):
        before, seen = blas_threads(), []
        in_threads(lambda lo, hi: seen.append(blas_threads()), 4, 2)
        assert seen
        assert all(set(each) == {1} for each in seen)
        assert blas_threads() == before
        with ONE_BLAS_THREAD:
            in_threads(lambda lo, hi: None, 4, 2)
            assert set(blas_threads()) == {1}, "somebody else is still inside"
        assert blas_threads() == before
