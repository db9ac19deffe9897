"""What every test shares: JAX on the CPU, shapes and types checked at run time, marks that skip what isn't at hand."""

import atexit
import os
import shutil
import signal
import tempfile
from collections.abc import Iterator

os.environ.setdefault("JAX_PLATFORMS", "cpu")
# On a GPU (JAX_PLATFORMS=cuda,cpu) networks would multiply in TF32, and laws hold to three digits only.
os.environ.setdefault("JAX_DEFAULT_MATMUL_PRECISION", "highest")
os.environ.setdefault("MPLBACKEND", "agg")
# Many tests, and commands that they start, compile the same programs: each is compiled once a run, by all workers together.
# (To keep them from run to run, name a folder in JAX_COMPILATION_CACHE_DIR.)
if "JAX_COMPILATION_CACHE_DIR" not in os.environ:
    os.environ["JAX_COMPILATION_CACHE_DIR"] = tempfile.mkdtemp(prefix="annealsubnet-tests-")
    atexit.register(shutil.rmtree, os.environ["JAX_COMPILATION_CACHE_DIR"], ignore_errors=True)
os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0")

import jax
import pytest
from hypothesis import HealthCheck, settings
from jaxtyping import install_import_hook

# Tests compile thousands of small programs and run each for a moment. Commands that they start are compiled as ever.
jax.config.update("jax_disable_most_optimizations", True)

# The same examples in every run, however slow the machine is.
settings.register_profile("any machine", deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("any machine")

# Every annotated function in these modules is checked against its jaxtyping shapes by beartype while the tests run.
# The solvers stay out: their numba kernels are compiled, not called.
CHECKED = (
    "trees",
    "progress",
    "batches",
    "networks",
    "mask_files",
    "masks",
    "parameter_files",
    "budgets",
    "patterns",
    "losses",
    "shrinking",
    "evaluation",
    "statistics",
    "neighborhoods",
    "problems",
    "refitting",
    "allocation",
    "selection",
    "frozen",
    "shares",
    "pruning",
    "baselines",
    "examples",
)
BEARTYPE = "beartype.beartype(conf=beartype.BeartypeConf(is_pep484_tower=True))"  # an int will do for a float
install_import_hook([f"annealsubnet.{name}" for name in CHECKED], BEARTYPE)


@pytest.fixture
def ctrl_c() -> Iterator[None]:
    """Ctrl-C as Python answers it; a shell's background jobs, tests among them, ignore it."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    absent = {
        "data": None if os.environ.get("ANNEALSUBNET_DATA") else "ANNEALSUBNET_DATA is not set",
        "leap": None if os.environ.get("DWAVE_API_TOKEN") else "DWAVE_API_TOKEN is not set",
    }
    for item in items:
        for mark, reason in absent.items():
            if reason and item.get_closest_marker(mark):
                item.add_marker(pytest.mark.skip(reason=reason))
