"""A daemon that would be unsafe does not start, and says why."""

import os
import ssl
import subprocess
import sys
import urllib.request
import warnings

import pytest

from headrace.daemon.client import Client
from headrace.engine import errors
from tests.support import certificates

IDLE = "def handler(system, this):\n    return this.success()\n"


@pytest.fixture
def flows(tmp_path):
    (tmp_path / "flows").mkdir()
    (tmp_path / "flows" / "idle.py").write_text(IDLE)
    return tmp_path / "flows"


def refused(flows, state, *options, **environment):
    """Start a daemon that must not start; returns what it says."""
    done = subprocess.run(
        [sys.executable, "-m", "headrace", "up", str(flows), "--state", str(state), *options],
        capture_output=True,
        text=True,
        env={**os.environ, "HEADRACE_LISTEN__ADDRESS": "127.0.0.1:0", "HEADRACE_LOG__FORMAT": "json", **environment},
        timeout=30,
    )
    assert done.returncode == errors.ConfigurationInvalid.exit_code, done.stderr
    return done.stderr


@pytest.mark.parametrize("address", ["0.0.0.0:0", "[::]:0", "192.0.2.1:0", "example.org:0", "127.0.0.1.example.org:0"])
def test_an_address_for_others_needs_tls_or_a_proxy(flows, tmp_path, address):
    assert "would serve them without TLS" in refused(flows, tmp_path / "s", "--listen", address)
    assert not (tmp_path / "s").exists()


@pytest.mark.parametrize("name", ["client.json", "tokens.json"])
@pytest.mark.parametrize("mode", [0o644, 0o640, 0o602])
def test_credentials_that_others_could_read_are_not_used(flows, tmp_path, name, mode):
    state = tmp_path / "s"
    state.mkdir(mode=0o700)
    (state / name).write_text("{}")
    (state / name).chmod(mode)
    assert "can be read by others" in refused(flows, state)


def test_a_key_that_others_could_read_or_that_is_none_is_not_used(flows, tmp_path):
    pem = tmp_path / "credentials" / "tls"
    pem.parent.mkdir()
    pem.write_text("no certificate")
    pem.chmod(0o600)
    assert "cannot be used" in refused(flows, tmp_path / "s", CREDENTIALS_DIRECTORY=str(pem.parent))
    pem.chmod(0o644)
    assert "can be read by others" in refused(flows, tmp_path / "s", CREDENTIALS_DIRECTORY=str(pem.parent))


def test_a_state_directory_that_others_can_look_into_is_closed(flows, tmp_path, make_daemon):
    (tmp_path / "s").mkdir(mode=0o755)
    daemon = make_daemon(flows).start()
    assert daemon.state.stat().st_mode & 0o777 == 0o700 and '"state.closed"' in daemon.log.read_text()
    for name in ("client.json", "audit.jsonl", "login-link", "daemon.sock", "daemon.lock"):
        assert (daemon.state / name).stat().st_mode & 0o077 == 0, name


def test_with_a_certificate_it_speaks_tls_and_nothing_else(flows, tmp_path, make_daemon, monkeypatch):
    folder = certificates.make(tmp_path).folder
    pem = folder / "credentials" / "tls"
    pem.parent.mkdir()
    pem.write_text((folder / "server.crt").read_text() + (folder / "server.key").read_text())
    pem.chmod(0o600)
    monkeypatch.setenv("SSL_CERT_FILE", str(folder / "ca.crt"))
    daemon = make_daemon(flows)
    daemon.environment["CREDENTIALS_DIRECTORY"] = str(pem.parent)
    daemon.start()
    assert daemon.url.startswith("https://127.0.0.1:")
    assert Client.find(daemon.url, daemon.token(), environ={}).me()["name"] == "admin"
    with pytest.raises(OSError):
        urllib.request.urlopen(daemon.url.replace("https", "http") + "/healthz", timeout=5)
    for version, spoken in ((ssl.TLSVersion.TLSv1_1, False), (ssl.TLSVersion.TLSv1_2, True)):
        context = ssl.create_default_context(cafile=folder / "ca.crt")
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)  # that is the point
            context.minimum_version = context.maximum_version = version
        context.set_ciphers("ALL:@SECLEVEL=0")
        try:
            urllib.request.urlopen(daemon.url + "/healthz", context=context).close()
        except OSError:
            assert not spoken
        else:
            assert spoken
