"""Under a service manager: it hears when the daemon is ready and that it is alive, and keeps its socket open."""

import collections
import contextlib
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request

import pytest

from tests.support.daemons import Daemon, until

FLOWS = {
    "quick": "def handler(system, this, inputs):\n    this.set_output('n', inputs['n'])\n",
    "hook": (
        "# /// script\n# [tool.headrace]\n# webhook = true\n# ///\n"
        "def handler(system, this, inputs):\n    this.set_output('n', inputs['json']['n'])\n"
    ),
    "seen": "import os\ndef handler(system, this):\n    return sorted(os.environ)\n",
}
RESTARTS = int(os.environ.get("HEADRACE_RESTARTS", "2"))
#: Hands a descriptor over as number 3, the way of systemd.
HAND_OVER = """
import os, sys
os.dup2(int(sys.argv[1]), 3)
os.environ.update(LISTEN_PID=str(os.getpid()), LISTEN_FDS='1')
os.execvp(sys.argv[2], sys.argv[2:])
"""
needs_strace = pytest.mark.skipif(not shutil.which("strace"), reason="strace is not installed")


class Manager:
    """The socket that a service manager listens on, and what it heard."""

    def __init__(self, path):
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.bind(str(path))

    def hears(self, seconds):
        """Return the first line of what comes next, None if nothing does for so long."""
        self._socket.settimeout(seconds)
        try:
            return self._socket.recv(4096).decode().splitlines()[0]
        except TimeoutError:
            return None

    def until(self, word):
        """Return all that is heard up to a line that begins so."""
        heard = []
        while not heard or not heard[-1].startswith(word):
            line = self.hears(30)
            assert line is not None, (word, heard)
            heard.append(line)
        return heard

    def quiet(self):
        """Hear what is on its way, and return whether nothing follows for two more periods of the watchdog."""
        while self.hears(0.5):
            pass
        return self.hears(3.0) is None

    def close(self):
        self._socket.close()


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    home = tmp_path_factory.mktemp("m")
    (home / "flows").mkdir()
    for name, text in FLOWS.items():
        (home / "flows" / f"{name}.py").write_text(text)
    return home


@pytest.fixture(scope="module")
def managed(home):
    manager = Manager(home / "notify")
    daemon = Daemon(home / "s", home / "flows")
    daemon.environment = {"NOTIFY_SOCKET": str(home / "notify"), "WATCHDOG_USEC": "1500000"}
    daemon.start(wait=False)
    try:
        yield manager, daemon
    finally:
        daemon.kill()
        manager.close()


def test_ready_is_said_when_what_was_recorded_is_recovered_and_requests_are_taken(managed):
    manager, daemon = managed
    heard = manager.until("READY=1")
    assert set(heard[:-1]) == {"EXTEND_TIMEOUT_USEC=30000000"}
    assert daemon.raw("GET", "/healthz")[0] == 200
    daemon.until_ready()
    assert manager.until("WATCHDOG=1") == ["WATCHDOG=1"]


def test_flows_know_nothing_of_it(managed):
    _, daemon = managed
    seen = daemon.run("seen")["output_value"]
    assert "PATH" in seen and not {"NOTIFY_SOCKET", "WATCHDOG_USEC"} & set(seen)


@needs_strace
@pytest.mark.parametrize(
    ("wedge", "loop_turns"),
    [
        (("-f", "-e", "trace=fdatasync", "-e", "inject=fdatasync:delay_enter=60s"), True),
        (("-e", "trace=epoll_wait,epoll_pwait", "-e", "inject=epoll_wait,epoll_pwait:delay_exit=60s"), False),
    ],
    ids=["the writer", "the loop"],
)
def test_who_is_stuck_is_not_said_to_be_alive(managed, wedge, loop_turns):
    manager, daemon = managed
    command = ["strace", "-q", "-o", "/dev/null", *wedge, "-p", str(daemon.pid)]
    with subprocess.Popen(command, stderr=subprocess.DEVNULL) as tracer:
        asks = threading.Thread(target=ask_in_vain, args=(daemon,))
        try:
            until(lambda: traced(daemon.pid), "it is traced")
            asks.start()
            assert manager.quiet()
            if loop_turns:
                assert daemon.raw("GET", "/healthz")[0] == 200
        finally:
            tracer.send_signal(signal.SIGINT)
            tracer.wait()
    asks.join()
    assert manager.until("WATCHDOG=1"), "it goes on"
    assert daemon.run("quick", n=1)["status"] == "ENDED_SUCCESS"


def ask_in_vain(daemon):
    with contextlib.suppress(OSError):
        daemon.client.run("quick", {"n": 0})


def traced(pid):
    with open(f"/proc/{pid}/status", encoding="ascii") as status:
        return "TracerPid:\t0\n" not in status.read()


def test_a_stop_is_said_and_the_watchdog_is_quiet_after_it(managed):
    manager, daemon = managed
    assert daemon.stop() == 0
    assert "STOPPING=1" in manager.until("STOPPING=1")
    assert manager.quiet()


@pytest.mark.timeout(90 + 30 * RESTARTS)
def test_with_a_socket_of_the_manager_nobody_is_refused_while_it_restarts(home, record_property):
    """Eight callers, of whom four deliver webhooks as forges do: once, without another try."""
    record_property("tries", RESTARTS)
    with socket.create_server(("127.0.0.1", 0), backlog=1024) as listening:
        daemon = Daemon(home / "t", home / "flows")
        daemon.descriptors = (listening.fileno(),)
        wrapper = (sys.executable, "-c", HAND_OVER, str(listening.fileno()))
        daemon.start(*wrapper)
        url = f"http://127.0.0.1:{listening.getsockname()[1]}"
        assert daemon.url == url, "the address of the socket wins"
        over, answers, acknowledged = threading.Event(), collections.Counter(), []
        callers = [
            threading.Thread(target=call, args=(url, number, daemon.token(), over, answers, acknowledged))
            for number in range(8)
        ]
        for caller in callers:
            caller.start()
        try:
            for _ in range(RESTARTS):
                time.sleep(0.3)
                assert daemon.stop() == 0
                daemon.start(*wrapper)
        finally:
            over.set()
            for caller in callers:
                caller.join()
        until(lambda: not daemon.client.executions(status=["QUEUED", "RUNNING"])["items"], "all is over")
        daemon.stop()
        print(f"{RESTARTS} restarts, {dict(answers)}")
        taken = {("run", 202), ("hook", 202), ("hook and wait", 200)}
        assert taken <= set(answers) <= {*taken, ("hook and wait", 202)}, answers
        ended = [line["execution"] for line in daemon.lines() if line["event"] == "execution.ended"]
        assert sorted(acknowledged) == sorted(ended), "what was taken ran, once, and nothing else did"


def call(url, number, token, over, answers, acknowledged):
    path, body, what = [
        ("/api/v1/flows/quick/run", b'{"inputs": {"n": 1}}', "run"),
        ("/webhook/hook?async=1", b'{"n": 1}', "hook"),
        ("/api/v1/flows/quick/run", b'{"inputs": {"n": 1}}', "run"),
        ("/webhook/hook", b'{"n": 1}', "hook and wait"),
    ][number % 4]
    headers = {"Authorization": f"Bearer {token}", "Content-Type": "application/json"}
    while not over.is_set():
        try:
            with urllib.request.urlopen(urllib.request.Request(url + path, body, headers), timeout=60) as answer:
                answers[what, answer.status] += 1
                acknowledged.append(json.load(answer)["id"])
        except urllib.error.HTTPError as error:
            answers[what, error.code] += 1
            error.close()
        except urllib.error.URLError as error:
            answers[what, type(error.reason).__name__] += 1
        except OSError as error:
            answers[what, type(error).__name__] += 1
        time.sleep(0.01)


def test_a_descriptor_that_is_no_listening_socket_is_refused(home):
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as other:
        done = subprocess.run(
            [sys.executable, "-c", HAND_OVER, str(other.fileno()), sys.executable, "-m", "headrace", "up", "flows"],
            cwd=home, pass_fds=(other.fileno(),), capture_output=True, text=True, check=False,
        )  # fmt: skip
    assert done.returncode == 2
    assert "descriptor 3 is not a TCP socket that listens" in done.stderr
