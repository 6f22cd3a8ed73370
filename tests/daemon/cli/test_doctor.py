"""`headrace doctor` and `headrace unit`: what is well is said, what is not comes with the next step."""

import datetime
import json
import os
import shutil
import subprocess
import time
from pathlib import Path

import msgspec
import pytest

from headrace.daemon.cli import main, symptoms, unit
from headrace.engine.records import recovery, tables
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
    assert found.pop("clock")["text"] in ("it is in front of the records", "nothing synchronises it")
    expected = dict.fromkeys(
        ["git", "state directory", "disk", "records", "index", "daemon", "flow processes", "source", "flows"], "good"
    )
    if "free on the disk" in found["daemon"]["text"]:  # of this machine
        expected.update(dict.fromkeys(["disk", "daemon"], "warning"))
    assert {about: one["level"] for about, one in found.items()} == expected
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


def test_a_disk_with_little_room_is_a_warning_as_the_daemon_has_it(tmp_path, capsys):
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m,mode=700", "tmpfs", tmp_path]).returncode:
        pytest.skip("a small file system cannot be mounted")
    try:
        assert examined(tmp_path, capsys)[1]["disk"]["level"] == "good"
        (tmp_path / "filler").write_bytes(bytes(950 * 1024))
        disk = examined(tmp_path, capsys)[1]["disk"]
        assert (disk["level"], disk["text"]) == ("warning", "0.0 GiB are free") and "records prune" in disk["hint"]
    finally:
        subprocess.run(["umount", "-l", tmp_path], check=True)


def test_a_clock_that_went_back_behind_the_records_and_one_that_nothing_keeps(daemon, tmp_path):
    last_s = datetime.datetime.fromisoformat(until(daemon.lines, "something is recorded")[-1]["at"]).timestamp()
    found = symptoms.clock(daemon.state, last_s - 7200, 0)
    assert (found.level, found.text.partition(" the last")[0]) == ("bad", "it is 7,200 s behind")
    assert symptoms.clock(daemon.state, last_s - 30, 0).level == "good"
    assert symptoms.clock(daemon.state, last_s + 1, 5).level == "warning"
    assert symptoms.clock(tmp_path, 0.0, 0).level == "good", "nothing is recorded yet"


def test_what_a_git_that_died_and_somebody_else_left_in_the_state_directory(daemon, tmp_path, capsys):
    state = tmp_path / "s"
    shutil.copytree(daemon.state, state, ignore=shutil.ignore_patterns("*.sock", "HEAD"))
    old, young = state / "mirror.git" / "refs" / "heads" / "main.lock", state / "mirror.git" / "packed-refs.lock"
    for lock in (old, young):
        lock.parent.mkdir(parents=True, exist_ok=True)
        lock.touch()
    os.utime(old, (time.time() - 3600,) * 2)
    (state / "client.json").chmod(0o644)
    if os.geteuid() == 0:
        os.chown(state / "audit.jsonl", 1234, 1234)
    found = [(one.about, one.level, one.text) for one in (*symptoms.permissions(state), *symptoms.git_locks(state))]
    assert ("permissions", "bad", f"others can read {state / 'client.json'}") in found
    assert ("git locks", "warning", "left over from a git that died: mirror.git/refs/heads/main.lock") in found
    if os.geteuid() == 0:
        assert ("permissions", "bad", f"they belong to somebody else than {state}: audit.jsonl") in found


def test_an_index_that_does_not_know_what_the_records_do(daemon, tmp_path):
    report = recovery.verify(daemon.state / "records")
    (tmp_path / "index.db").write_text("not one")
    assert symptoms.index(tmp_path, report).level == "warning"
    reached = until(lambda: tables.reached(daemon.state / "index.db"), "something is indexed")
    behind = msgspec.structs.replace(report, records=reached + 20_000)
    assert "20,000 records behind" in symptoms.index(daemon.state, behind).text
    ahead = msgspec.structs.replace(report, records=reached - 3)
    assert "3 records ahead" in symptoms.index(daemon.state, ahead).text


def test_a_lock_that_outlived_its_execution_is_named(daemon, capsys):
    taking = Path(daemon.source) / "takes.py"
    taking.write_text("def handler(system, this):\n    system.setting('gate', value=1).acquire()\n")
    daemon.client.sync()
    taken = daemon.run("takes")
    assert taken["status"] == "ENDED_SUCCESS", taken
    _, found = examined(daemon.state, capsys)
    assert taken["id"] in found["locks"]["text"] and "headrace locks release" in found["locks"]["hint"]
    taking.unlink()
    for lock in daemon.client.locks():
        daemon.client.release_lock(lock["name"])
    daemon.client.sync()


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
