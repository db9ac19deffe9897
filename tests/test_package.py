"""Importing the package is light, silent and changes nothing; its public names resolve."""

import importlib.metadata
import json
import subprocess
import sys
import types

import pytest

import annealsubnet

HEAVY = ("numba", "matplotlib", "sklearn", "tyro", "dwave.system", "minorminer", "pandas", "rich", "scipy.optimize")

PROBE = """
import sys
before = set(sys.modules)
import annealsubnet
import json, logging, os, warnings
print(json.dumps({"loaded": sorted(set(sys.modules) - before), "handlers": len(logging.getLogger().handlers)}))
"""


def test_import_is_light_and_silent():
    result = subprocess.run([sys.executable, "-W", "error", "-c", PROBE], capture_output=True, text=True, check=True)
    lines = result.stdout.splitlines()
    assert len(lines) == 1 and result.stderr == ""
    report = json.loads(lines[0])
    assert [name for name in report["loaded"] if name.startswith(HEAVY)] == []
    assert report["handlers"] == 0


def test_public_names_resolve_and_are_what_they_are_called():
    for name in annealsubnet.__all__:
        value = getattr(annealsubnet, name)
        if name in annealsubnet._SUBPACKAGES:
            assert isinstance(value, types.ModuleType)
        else:
            assert callable(value), f"{name} is {value!r}; does a module of that name hide it?"
            assert value.__name__ == name
        assert name in dir(annealsubnet)


def test_version_is_the_installed_one():
    assert annealsubnet.__version__ == importlib.metadata.version("annealsubnet")


def test_unknown_names_are_refused():
    with pytest.raises(AttributeError, match="has no attribute 'prnue'; it has Annealer"):
        _ = annealsubnet.prnue
