"""What tests of this room share: a running contract server and a clean environment around it."""

import pytest

from tests.support import contract_server


@pytest.fixture
def server(tmp_path):
    with contract_server.ContractServer(tmp_path) as running:
        yield running


@pytest.fixture(autouse=True)
def _no_daemon_of_the_developer(monkeypatch, tmp_path):
    """A daemon that happens to run here must not be met by tests."""
    for name in ("HEADRACE_URL", "HEADRACE_TOKEN", "STATE_DIRECTORY", "NO_COLOR"):
        monkeypatch.delenv(name, raising=False)
