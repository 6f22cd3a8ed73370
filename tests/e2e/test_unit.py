"""The hardened unit takes nothing from the daemon that it needs, and as much from others as it says."""

import os
import re
import shutil
import signal
import subprocess
from pathlib import Path

import pytest

from headrace.daemon.cli import unit
from tests.support.daemons import Daemon
from tests.support.repositories import Repository

needs_systemd = pytest.mark.skipif(not shutil.which("systemd-analyze"), reason="systemd-analyze is not installed")
needs_strace = pytest.mark.skipif(not shutil.which("strace"), reason="strace is not installed")

EXPOSURE_MAX = 1.7
#: Refused by the unit, and no harm: who asks for another owner of a file goes on without.
HARMLESS = {"chown", "fchown", "fchownat", "lchown"}
FLOW = """
import subprocess, sys, tempfile, threading, socket, os
def handler(system, this):
    subprocess.run([sys.executable, '-c', 'print(1)'], check=True)
    thread = threading.Thread(target=print)
    thread.start()
    thread.join()
    with tempfile.TemporaryDirectory() as folder:
        open(folder + '/x', 'w').write('x')
    socket.getaddrinfo('localhost', 80)
    system.file('kept.txt').save_text_content('kept')
    with this.lock('one'):
        child = this.flow('leaf', wait=False)
        this.wait_for(child)
    return os.cpu_count()
"""


def groups():
    """What systemd's groups of system calls hold: names, and other groups."""
    told = subprocess.run(["systemd-analyze", "syscall-filter"], capture_output=True, text=True, check=True).stdout
    found = {}
    for line in told.splitlines():
        if line.startswith("@"):
            found[line.strip()] = name = set()
        elif line.strip() and not line.strip().startswith("#") and found:
            name.add(line.strip())
    return found


def calls(group, known):
    """All system calls of a group."""
    return {call for name in known[group] for call in (calls(name, known) if name.startswith("@") else {name})}


def allowed():
    """What the unit's lines leave, read as systemd.exec(5) says: added and taken away one after the other."""
    known, left = groups(), set()
    for words in re.findall(r"^SystemCallFilter=(.*)$", unit.text("/x"), re.MULTILINE):
        for word in words.removeprefix("~").split():
            these = calls(word, known) if word.startswith("@") else {word}
            left = left - these if words.startswith("~") else left | these
    return left


@needs_systemd
def test_systemd_finds_little_that_the_service_could_do(tmp_path):
    file = tmp_path / "headrace.service"
    file.write_text(unit.text("/bin/true"))
    command = ["systemd-analyze", "security", "--offline=true", "--no-pager", str(file)]
    told = subprocess.run(command, capture_output=True, text=True, timeout=60).stdout
    score = float(re.search(r"Overall exposure level for \S+: ([\d.]+)", told)[1])
    assert score <= EXPOSURE_MAX, told


@needs_systemd
@needs_strace
def test_the_daemon_its_flows_and_git_ask_for_no_system_call_that_the_unit_takes_away(tmp_path):
    repository = Repository(tmp_path / "r")
    repository.write("busy.py", FLOW)
    repository.write("leaf.py")
    repository.push()
    counts = tmp_path / "calls"
    daemon = Daemon(tmp_path / "s", repository.url)
    daemon.start(
        "strace", "-f", "-qq", "-o", str(counts), "-e", f"trace=!{','.join(f'?{one}' for one in sorted(allowed()))}"
    )
    try:
        assert daemon.run("busy")["status"] == "ENDED_SUCCESS"
        daemon.client.save_flow("made", "def handler(system, this): pass\n")
        repository.write("leaf.py", "def handler(system, this): return 2\n")
        assert daemon.client.sync()["state"] == "ok"
        daemon.client.cancel(daemon.client.run("busy")["id"])
        traced = Path(f"/proc/{daemon.pid}/task/{daemon.pid}/children").read_text().split()[0]
        os.kill(int(traced), signal.SIGTERM)  # strace itself hears of no signal while it traces
        assert daemon.process.wait(60) == 0
    finally:
        daemon.kill()
    asked = set(re.findall(r"^\d+ (\w+)\(", counts.read_text(), re.MULTILINE))
    assert asked <= HARMLESS
