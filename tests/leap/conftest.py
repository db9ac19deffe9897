"""No test reads a user's own credentials."""

import pytest

pytest.importorskip("dwave.system")


@pytest.fixture(autouse=True)
def no_configuration(request, monkeypatch, tmp_path):
    """No test reads a user's own credentials, but those that are meant to."""
    if request.node.get_closest_marker("leap"):
        return
    for name in ("DWAVE_API_TOKEN", "DWAVE_API_ENDPOINT", "DWAVE_PROFILE", "DWAVE_API_SOLVER", "DWAVE_CONFIG_FILE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("DWAVE_CACHE_HOME", "off")
