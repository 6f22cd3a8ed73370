"""`headrace doctor` and `headrace unit`: what is well is said, what is not comes with the next step."""

import json
import os
import shutil
import subprocess
from pathlib import Path

import pytest

from headrace.daemon.cli import main, unit
from tests.support.daemons import Daemon, until


@pytest.fixture(scope="module")
def daemon(tmp_path_factory):
    home = tmp_path_factory.mktemp("doctor")
    (home / "flows").mkdir()
    (home / "flows" / "hello.py").write_text("def handler(system, this):\n    return {}\n")
    daemon = Daemon(home / "s", home / "flows").start()
    daemon.run("hello")
    yield daemon
    daemon.kill()


def examined(state, capsys):
    status = main.main(["doctor", "--state", str(state), "--json"])
    return status, {one["about"]: one for one in json.loads(capsys.readouterr().out)["items"]}


def test_all_is_well_with_a_daemon_that_works(daemon, capsys):
    status, found = examined(daemon.state, capsys)
    assert status == 0
    assert {about: one["level"] for about, one in found.items()} == dict.fromkeys(
        ["git", "state directory", "disk", "records", "daemon", "source", "flows"], "good"
    )
    assert main.main(["doctor", "--state", str(daemon.state)]) == 0
    assert "good    flows: 1, none is broken\n" in capsys.readouterr().out


def test_a_broken_flow_is_a_warning(daemon, capsys):
    broken = Path(daemon.source) / "broken.py"
    broken.write_text("def handler(:\n")
    daemon.client.sync()
    status, found = examined(daemon.state, capsys)
    assert (status, found["flows"]["level"]) == (0, "warning")
    assert "broken" in found["flows"]["text"] and "headrace flows" in found["flows"]["hint"]
    broken.unlink()
    daemon.client.sync()


def test_a_state_directory_that_is_open_and_damaged_without_a_daemon(daemon, tmp_path, capsys):
    state = tmp_path / "s"
    until(lambda: daemon.lines(), "something is recorded")
    shutil.copytree(daemon.state, state, ignore=shutil.ignore_patterns("*.sock", "client.json", "HEAD"))
    segment = min((state / "records").glob("*.jsonl"))
    damaged = bytearray(segment.read_bytes())
    damaged[len(damaged) // 2] ^= 1
    segment.write_bytes(damaged)
    state.chmod(0o755)
    status, found = examined(state, capsys)
    assert status == 1
    assert {about for about, one in found.items() if one["level"] == "bad"} == {"state directory", "records", "daemon"}
    assert all(one["hint"] for one in found.values() if one["level"] == "bad")
    assert found["state directory"]["hint"] == f"chmod 700 {state}"


@pytest.mark.parametrize("words", [[], ["--user"]])
def test_systemd_takes_the_unit(words, tmp_path, capsys):
    assert main.main(["unit", *words]) == 0
    text = capsys.readouterr().out
    assert "Type=notify" in text and text.count("ExecStart=/") == 1
    program = text.partition("ExecStart=")[2].split()[0]
    assert Path(program).is_file() and os.access(program, os.X_OK)
    if shutil.which("systemd-analyze") is None:
        pytest.skip("systemd-analyze is not installed")
    file = tmp_path / "headrace.service"
    file.write_text(text)
    done = subprocess.run(["systemd-analyze", "verify", *words, str(file)], capture_output=True, text=True)
    assert "headrace.service" not in done.stdout + done.stderr


def test_what_a_user_may_not_have_is_left_out():
    system, own = unit.text("/bin/headrace"), unit.text("/bin/headrace", for_user=True)
    assert "User=headrace" in system and "ProtectSystem=strict" in system
    assert "User=" not in own and "Protect" not in own and "WantedBy=default.target" in own
