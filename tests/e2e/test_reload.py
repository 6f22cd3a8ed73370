"""The configuration is read anew while the daemon runs: taken where it can be, named where not, or refused whole."""

import json
import os
import pty
import shutil
import signal
import socket
import ssl
import subprocess
import sys
import time
import types

import pytest

from headrace.daemon import config, endpoint, signatures, surroundings
from tests.support.daemons import Daemon, until
from tests.support.front_door import ask

FLOWS = {
    "idle": "def handler(system, this):\n    return this.success()\n",
    "busy": "import time\ndef handler(system, this):\n    this.log('begun')\n    time.sleep(600)\n",
    "rests": "def handler(system, this):\n    this.sleep(600)\n",
}
needs_openssl = pytest.mark.skipif(not shutil.which("openssl"), reason="openssl is not installed")


class Service:
    """A daemon with a configuration file, under a service manager that writes down what it is told."""

    def __init__(self, home):
        self.file = home / "headrace.toml"
        (home / "flows").mkdir()
        for name, text in FLOWS.items():
            (home / "flows" / f"{name}.py").write_text(text)
        self._ear = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._ear.bind(str(home / "notify"))
        self._ear.setblocking(False)
        self.daemon = Daemon(home / "s", home / "flows", "--config", str(self.file))
        self.daemon.environment = {"NOTIFY_SOCKET": str(home / "notify"), "HEADRACE_LOG__FORMAT": "json"}

    def write(self, **sections):
        """Make these the settings: ``run={"max_running": 1}``."""
        tables = [f"[{name}]\n" + "".join(f"{k} = {json.dumps(v)}\n" for k, v in said.items())
                  for name, said in sections.items()]  # fmt: skip
        self.file.write_text("\n".join(tables))

    def heard(self):
        """What it was told since the last time, each as a dictionary."""
        found = []
        while True:
            try:
                lines = self._ear.recv(8192).decode().splitlines()
            except BlockingIOError:
                return found
            found.append(dict(line.split("=", 1) for line in lines))

    def logged(self, event):
        """Lines of the daemon's log."""
        lines = self.daemon.log.read_text().splitlines()
        return [line for line in map(json.loads, filter(lambda text: text.startswith("{"), lines))
                if line["event"] == event]  # fmt: skip

    def hang_up(self):
        """SIGHUP, and wait until it has been dealt with; returns how that went."""
        before = self.daemon.client.status()["reload"]
        self.daemon.process.send_signal(signal.SIGHUP)
        return until(lambda: changed(self.daemon.client.status()["reload"], before), "it is read")

    def close(self):
        self.daemon.kill()
        self._ear.close()


def changed(now, before):
    return now if now != before else None


@pytest.fixture
def service(tmp_path):
    made = Service(tmp_path)
    yield made
    made.close()


def headrace(*words):
    """Type a command; returns its exit code, stdout, stderr."""
    done = subprocess.run(
        [sys.executable, "-m", "headrace", *map(str, words)], capture_output=True, text=True, check=False
    )
    return done.returncode, done.stdout, done.stderr


def statuses(daemon, ids):
    return [daemon.client.execution(one)["status"] for one in ids]


def test_what_can_change_does_at_once_and_the_rest_is_named(service):
    service.write(run={"max_running": 1, "stop_grace": "1h", "cancel_grace": "1h", "hibernate_after": "1h"})
    daemon = service.daemon.start()
    ids = [daemon.client.run("busy")["id"] for _ in range(3)]
    until(lambda: statuses(daemon, ids) == ["RUNNING", "QUEUED", "QUEUED"], "one runs")
    daemon.client.sync()
    assert not service.logged("sync.nudged")
    service.heard()
    service.write(
        run={"max_running": 4, "stop_grace": "0s", "cancel_grace": "0s", "hibernate_after": "0s"},
        log={"level": "debug"},
        identity={"environment": "production"},
        source={"poll": "1h"},
    )
    done = daemon.client.reload()
    assert (done["result"], done["by"]) == ("taken", "admin")
    assert daemon.client.workers()["items"][0]["resources"] == {"running": 4}
    assert sorted(done["changed"]) == ["log.level", "run.cancel_grace", "run.hibernate_after", "run.max_running",
                                       "run.stop_grace"]  # fmt: skip
    assert sorted(done["restart"]) == ["identity.environment", "source.poll"]
    begins, ends = [one for one in service.heard() if "WATCHDOG" not in one]
    assert begins["RELOADING"] == "1" and 0 < int(begins["MONOTONIC_USEC"]) <= time.monotonic_ns() // 1000
    assert ends["READY"] == "1" and "restart: " in ends["STATUS"] and "source.poll" in ends["STATUS"]
    until(lambda: set(statuses(daemon, ids)) == {"RUNNING"}, "there is room for all")
    daemon.client.sync()
    until(lambda: service.logged("sync.nudged"), "debugging is on")
    (notice,) = daemon.notices()
    assert "identity.environment" in notice
    rests = daemon.client.run("rests")["id"]
    until(lambda: "execution.hibernated" in {one["event"] for one in daemon.record(rests)}, "its process is given back")
    daemon.client.cancel(ids[0])
    assert daemon.client.wait(ids[0], 20)["reason"] == "killed"
    assert daemon.stop() == 0, "nobody is waited for"


def test_a_configuration_with_a_fault_is_refused_whole_however_it_is_asked_for(service):
    service.write(run={"max_running": 1})
    daemon = service.daemon.start()
    running, waits = daemon.client.run("busy")["id"], daemon.client.run("busy")["id"]
    service.write(run={"max_running": 5, "max_runing": 5}, records={"keep": "long"})
    service.heard()
    told = service.hang_up()
    assert (told["result"], told["by"]) == ("refused", "SIGHUP")
    assert "run.max_runing" in told["problem"] and "records.keep" in told["problem"]
    begins, ends = [one for one in service.heard() if "WATCHDOG" not in one]
    assert "RELOADING" in begins and ends["READY"] == "1" and "refused" in ends["STATUS"]
    (line,) = service.logged("configuration.refused")
    assert line["level"] == "error" and "did you mean run.max_running?" in line["reason"]
    answer = ask(daemon, "POST", "/api/v1/reload", daemon.token())
    assert answer.status == 409 and "run.max_runing" in answer.json["detail"]
    code, _, said = headrace("--state", daemon.state, "reload")
    assert code != 0 and "nothing has changed" in said and "records.keep" in said
    code, shown, _ = headrace("--state", daemon.state, "status")
    assert code == 0 and "refused" in shown
    service.file.unlink()
    assert "there is no file" in service.hang_up()["problem"]
    assert statuses(daemon, [running, waits]) == ["RUNNING", "QUEUED"]
    service.write(run={"max_running": 2})
    assert service.hang_up()["changed"] == ["run.max_running"]
    until(lambda: statuses(daemon, [waits]) == ["RUNNING"], "the next good one is taken")
    assert daemon.notices() == []


def test_the_secret_of_push_events_is_replaced_without_a_restart(service, tmp_path):
    secret = tmp_path / "secret"
    secret.write_text("old")
    service.write(source={"push": {"secret_file": str(secret)}, "poll": "0"})
    service.file.write_text(f'[source]\npoll = "0"\n[source.push]\nsecret_file = "{secret}"\n')
    daemon = service.daemon.start()

    def push(key):
        headers = {"Content-Type": "application/json", "X-GitHub-Event": "push"}
        signed = signatures.signed("github", b'{"ref": "refs/heads/main"}', key, time.time(), "d1")
        return ask(daemon, "POST", "/api/v1/sync/push", body=b'{"ref": "refs/heads/main"}', headers=headers | signed)

    assert (push("old").status, push("new").status) == (202, 401)
    secret.write_text("new\n")
    assert daemon.client.reload()["result"] == "taken"
    assert (push("old").status, push("new").status) == (401, 202)


def made(home, name, *key):
    """A certificate of its own, as the credential ``tls`` holds it."""
    files = ["-keyout", f"{name}.key", "-out", f"{name}.crt"]
    subject = ["-subj", f"/CN={name}", "-addext", "subjectAltName=IP:127.0.0.1"]
    command = ["openssl", "req", "-x509", *key, "-nodes", "-days", "30", *subject, *files]
    subprocess.run(command, cwd=home, check=True, capture_output=True)
    return (home / f"{name}.crt").read_text() + (home / f"{name}.key").read_text()


def connected(port):
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    return context.wrap_socket(socket.create_connection(("127.0.0.1", port), timeout=20))


def shown(port):
    with connected(port) as connection:
        return ssl.DER_cert_to_PEM_cert(connection.getpeercert(binary_form=True)).strip()


def answers(connection):
    connection.sendall(b"GET /healthz HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n")
    return connection.recv(4096).startswith(b"HTTP/1.1 200")


@needs_openssl
def test_a_renewed_certificate_counts_for_new_connections_and_old_ones_go_on(service, tmp_path):
    folder = tmp_path / "credentials"
    folder.mkdir()
    old, new = made(tmp_path, "old", "-newkey", "rsa:2048"), made(tmp_path, "new", "-newkey", "ec", "-pkeyopt",
                                                                  "ec_paramgen_curve:prime256v1")  # fmt: skip
    (folder / "tls").write_text(old)
    (folder / "tls").chmod(0o600)
    service.write()
    daemon = service.daemon
    daemon.environment["CREDENTIALS_DIRECTORY"] = str(folder)
    daemon.start(wait=False)
    until(lambda: service.logged("daemon.ready") if daemon.log.exists() else None, "it listens")
    port = int(daemon.url.rpartition(":")[2])
    with connected(port) as kept:
        assert shown(port) in old and answers(kept)
        (folder / "tls").write_text("nothing of the kind")
        with pytest.raises(endpoint.Refused, match="the credential tls"):
            daemon.client.reload()
        assert shown(port) in old
        (folder / "tls").write_text(new)
        assert daemon.client.reload()["result"] == "taken"
        assert shown(port) in new and answers(kept)


def test_the_table_says_which_settings_a_reload_takes():
    before = config.load({"source.url": "/flows"}, {}, {})
    other = {row.key: after(row) for row in config.ROWS.values()}
    for key, value in other.items():
        if value is not None:
            wanted = config.load({"source.url": "/flows", key: value}, {}, {})
            taken, changed, restart = before.taking(wanted)
            told = [key] if config.ROWS[key].live else []
            assert (changed, restart) == (told, [] if told else [key])
            assert (taken == before) == (not told)


def after(row):
    """Another value than the default, where one can be written down as text."""
    kinds = {"duration": "77s", "true | false": str(not row.default).lower(), "host:port": "127.0.0.1:1"}
    if " | " in row.kind.name and row.kind.name != "true | false":
        return row.kind.name.split(" | ")[-1 if row.default != row.kind.name.split(" | ")[-1] else 0]
    if row.key == "run.max_running":
        return "77"
    return kinds.get(row.kind.name, "other" if row.kind.name in ("text", "directory") else None)


def test_of_several_sources_each_is_told_apart():
    def loaded(secret, ref):
        table = f'[[source]]\nurl = "/a"\n[[source]]\nprefix = "team"\nurl = "/b"\nref = "{ref}"\n'
        return config.load({}, {}, {"f": table + f'push = {{secret_file = "{secret}"}}\n'})

    before = loaded("/etc/hostname", "main")
    taken, changed, restart = before.taking(loaded("/etc/passwd", "production"))
    assert (changed, restart) == (["source.push (team)"], ["source.ref (team)"])
    ((_, values),) = taken.others
    assert (values["source_push"].secret_file, values["source_ref"]) == ("/etc/passwd", "main")


def test_a_daemon_whose_terminal_is_gone_ends(service):
    service.write()
    daemon = service.daemon
    pid, terminal = pty.fork()
    if pid == 0:
        os.environ.update(daemon.environment)
        words = ["up", str(daemon.source), "--state", str(daemon.state), "--listen", "127.0.0.1:0"]
        os.execv(sys.executable, [sys.executable, "-m", "headrace", *words])
    seen = b""
    while b"daemon.ready" not in seen:
        seen += os.read(terminal, 4096)
    os.close(terminal)
    _, status = os.waitpid(pid, 0)
    assert os.waitstatus_to_exitcode(status) == 0


def test_retention_follows_the_settings():
    pruner, nothing = types.SimpleNamespace(keep_s=1.0), types.SimpleNamespace()
    settings = config.load({"source.url": "/flows", "records.keep": "7d"}, {}, {})
    loudness = types.SimpleNamespace(configure=lambda *_: None)
    ready = [take(settings) for take in surroundings.followers(nothing, pruner, loudness, nothing)]
    assert pruner.keep_s == 1.0, "nothing counts before all are ready"
    ready[1]()
    assert pruner.keep_s == 7 * 86400.0
