"""Stops, starts, and that nobody is left behind."""

import concurrent.futures
import contextlib
import json
import os
import shutil
import signal
import time

import pytest

from headrace.engine import errors
from tests.support.daemons import processes_matching, until

SLEEPS = (
    "def handler(system, this, inputs):\n"
    "    this.save(message='on')\n    this.sleep(inputs.get('s', 0))\n    return 'slept'\n"
)
SPINS = (
    "def handler(system, this):\n"
    "    this.save(message='on')\n"
    "    while not system.setting('stop').exists(): pass\n"
    "    return 'stopped'\n"
)


@pytest.fixture
def daemon(tmp_path, make_daemon):
    flows = tmp_path / "flows"
    flows.mkdir()
    (flows / "sleeps.py").write_text(SLEEPS)
    (flows / "spins.py").write_text(SPINS)
    (flows / "hook.py").write_text("# /// script\n# [tool.headrace]\n# webhook = true\n# ///\n" + SPINS)
    daemon = make_daemon(flows)
    daemon.environment["HEADRACE_RUN__STOP_GRACE"] = "1s"
    return daemon


def begun(daemon, execution):
    until(lambda: daemon.client.execution(execution)["message"] == "on", "it has begun")


def test_a_graceful_stop_lets_running_executions_end(daemon):
    daemon.environment["HEADRACE_RUN__STOP_GRACE"] = "20s"
    daemon.start()
    execution = daemon.client.run("sleeps", {"s": 1})["id"]
    begun(daemon, execution)
    assert daemon.stop() == 0
    assert [line["event"] for line in daemon.lines()][-1] != "execution.ended"
    ends = [line for line in daemon.record(execution) if line["event"] == "execution.ended"]
    assert [end["status"] for end in ends] == ["ENDED_SUCCESS"]


def test_a_stop_waits_for_nobody_who_waits_for_a_person_however_many_lie_between(daemon, tmp_path):
    form = {"properties": {"response": {"element": "string"}}}
    for name, does in {
        "asks": f"return this.message('Deploy?', body={form}).get('response')",
        "questions": "return this.task('INPUT', request='Deploy?').get('output_value')",
        "both": "this.wait_for(*[this.flow(name, wait=False) for name in ('asks', 'questions', 'sleeps')])",
        "above": "return this.flow('both').get('id')",
    }.items():
        (tmp_path / "flows" / f"{name}.py").write_text(f"def handler(system, this):\n    {does}\n")
    daemon.environment["HEADRACE_RUN__STOP_GRACE"] = "1h"
    daemon.start()
    above = daemon.client.run("above")["id"]
    asked = until(lambda: len(found := daemon.client.messages(pending=True)) == 2 and found, "both ask")
    until(
        lambda: [one["status"] for one in daemon.client.executions(flow="sleeps")["items"]] == ["ENDED_SUCCESS"],
        "slept",
    )
    assert daemon.stop() == 0
    daemon.start()
    for message in asked:
        daemon.client.answer(message["id"], {"response": "yes"})
    assert daemon.client.wait(above, 20)["status"] == "ENDED_SUCCESS"


def finished(daemon, execution):
    """Let a flow that spins go on to its end, and return that."""
    daemon.client.keep("settings", "stop", {"value": True})
    return daemon.client.wait(execution, 20)


def test_a_stop_interrupts_what_outlasts_its_grace_and_it_goes_on_after_the_next_start(daemon):
    daemon.start()
    execution = daemon.client.run("spins")["id"]
    begun(daemon, execution)
    bearer = {"Authorization": f"Bearer {daemon.token()}"}
    asked = [("POST", "/api/v1/flows/spins/run?wait=600"), ("GET", f"/api/v1/executions/{execution}?wait=600")]
    with concurrent.futures.ThreadPoolExecutor(3) as pool:
        waiting = [
            *(pool.submit(daemon.raw, *one, headers=bearer) for one in asked),
            pool.submit(daemon.raw, "POST", "/webhook/hook?wait=600", {}),
        ]
        until(lambda: len(daemon.client.executions(status="RUNNING")["items"]) == 3, "all of them run")
        began = time.monotonic()
        assert daemon.stop() == 0
        assert time.monotonic() - began < 10
        (run, ran, headers), (shown, again, _), (hook, hooked, _) = [one.result() for one in waiting]
    assert (run, shown, hook) == (202, 200, 202)
    assert headers["Location"] == f"/api/v1/executions/{ran['id']}"
    assert again["id"] == execution and hooked.keys() == {"id", "status"}
    assert daemon.record(execution)[-1]["event"] == "execution.interrupted"
    assert daemon.record(execution)[-1]["reason"] == "interrupted: the daemon stopped"
    daemon.start()
    ended = finished(daemon, execution)
    assert (ended["status"], ended["output_value"], ended["attempt"]) == ("ENDED_SUCCESS", "stopped", 2)


def test_a_stop_closes_streams_at_once(daemon):
    daemon.start()
    execution = daemon.client.run("sleeps", {"s": 0.5})["id"]
    stream = daemon.client.events(daemon.client.run("sleeps", {"s": 600})["id"])
    next(stream)
    daemon.client.wait(execution)
    began = time.monotonic()
    assert daemon.stop() == 0
    assert time.monotonic() - began < 8


def test_after_kill_9_nothing_is_stuck_running_ones_go_on_and_queued_ones_run(daemon):
    daemon.environment["HEADRACE_RUN__MAX_RUNNING"] = "1"
    daemon.start()
    running = daemon.client.run("spins")["id"]
    begun(daemon, running)
    queued = [daemon.client.run("sleeps")["id"] for _ in range(5)]
    daemon.kill()
    daemon.start()
    ended = finished(daemon, running)
    assert (ended["status"], ended["output_value"]) == ("ENDED_SUCCESS", "stopped")
    assert [daemon.client.wait(execution, 20)["output_value"] for execution in queued] == ["slept"] * 5


def test_when_the_daemon_is_killed_its_flow_processes_die_with_all_they_started(daemon, tmp_path):
    (tmp_path / "flows" / "starts.py").write_text(
        "import subprocess\ndef handler(system, this):\n"
        "    subprocess.Popen(['sleep', '97531'])\n    subprocess.Popen('setsid sleep 97532 &', shell=True)\n"
        "    this.save(message='on')\n    while True: pass\n"
    )
    daemon.start()
    begun(daemon, daemon.client.run("starts")["id"])
    until(lambda: len(processes_matching("sleep 9753")) == 2, "they are there")
    guests = [pid for pid in processes_matching("engine/guest/__main__.py") if parent_of(pid) == daemon.pid]
    assert guests
    daemon.kill()
    until(lambda: not processes_matching("sleep 9753"), "they are gone", 5)
    until(lambda: not any(os.path.exists(f"/proc/{pid}/exe") for pid in guests), "the fork server is gone", 5)


def test_executions_of_a_fork_server_that_dies_go_on_with_another_one(daemon):
    daemon.start()
    execution = daemon.client.run("spins")["id"]
    begun(daemon, execution)
    (server,) = [pid for pid in processes_matching("engine/guest/__main__.py") if parent_of(pid) == daemon.pid]
    os.kill(server, signal.SIGKILL)
    until(
        lambda: [line for line in daemon.record(execution) if line["event"] == "execution.interrupted"],
        "its process died with the fork server",
    )
    ended = finished(daemon, execution)
    assert (ended["status"], ended["output_value"]) == ("ENDED_SUCCESS", "stopped")
    (interrupted,) = [line for line in daemon.record(execution) if line["event"] == "execution.interrupted"]
    assert interrupted["reason"] == "interrupted: the flow process was killed by SIGKILL"
    assert daemon.run("sleeps")["output_value"] == "slept"


def parent_of(pid):
    with open(f"/proc/{pid}/stat") as stat:
        return int(stat.read().rsplit(")", 1)[1].split()[1])


def test_a_second_daemon_on_the_same_state_is_refused(daemon, make_daemon):
    daemon.start()
    second = make_daemon(daemon.source)
    second.start(wait=False)
    assert second.process.wait(20) == 73
    assert "another daemon works in" in second.log.read_text()
    assert daemon.run("sleeps")["output_value"] == "slept"


@pytest.mark.skipif(shutil.which("strace") is None, reason="strace is not installed")
def test_a_disk_that_breaks_its_promise_ends_the_daemon_and_nothing_is_acknowledged_after(daemon):
    inject = ("strace", "-f", "-qq", "-o", "/dev/null", "-e", "trace=fdatasync", "-e")
    daemon.start(*inject, "inject=fdatasync:error=EIO:when=25+", wait=False)
    acknowledged = []
    try:
        daemon.until_ready()
        while True:
            acknowledged.append(daemon.client.run("sleeps")["id"])
    except (OSError, errors.HeadraceError):
        pass
    assert daemon.process.wait(20) == 74
    assert "fdatasync" in daemon.log.read_text() or "fsync" in daemon.log.read_text()
    daemon.start()
    assert acknowledged
    assert {daemon.client.wait(execution, 20)["ended_at"] is None for execution in acknowledged} == {False}


def test_damaged_records_stop_the_start_loudly_and_nothing_is_touched(daemon):
    daemon.start()
    for _ in range(5):
        daemon.run("sleeps")
    daemon.stop()
    (segment,) = (daemon.state / "records").glob("*.jsonl")
    data = bytearray(segment.read_bytes())
    data[len(data) // 2] ^= 1
    segment.write_bytes(data)
    daemon.start(wait=False)
    assert daemon.process.wait(20) == 74
    assert segment.name in daemon.log.read_text() and segment.read_bytes() == data


def test_an_address_in_use_and_a_source_that_is_not_there_are_said_clearly(daemon, make_daemon, tmp_path):
    daemon.start()
    port = daemon.url.rsplit(":", 1)[1]
    other = make_daemon(daemon.source, "--listen", f"127.0.0.1:{port}", state="other")
    other.start(wait=False)
    assert other.process.wait(20) == 2 and f"cannot listen on 127.0.0.1:{port}" in other.log.read_text()
    nowhere = make_daemon(tmp_path / "nowhere", state="third")
    nowhere.start(wait=False)
    assert nowhere.process.wait(20) == 2 and "there is no directory" in nowhere.log.read_text()


def test_the_index_may_be_deleted_at_any_time(daemon):
    daemon.start()
    ids = [daemon.run("sleeps")["id"] for _ in range(3)]
    daemon.stop()
    for file in daemon.state.glob("index.db*"):
        file.unlink()
    daemon.start()
    assert [item["id"] for item in daemon.client.executions()["items"]] == ids[::-1]
    assert daemon.client.execution(ids[0])["output_value"] == "slept"


def _fill(path):
    with contextlib.suppress(OSError), path.open("ab", buffering=0) as file:
        while True:
            file.write(b"x" * 4096)


def test_a_full_disk_refuses_new_work_and_loses_nothing(tmp_path, make_daemon):
    import subprocess

    disk = tmp_path / "disk"
    disk.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=24m", "tmpfs", str(disk)], capture_output=True).returncode:
        pytest.skip("a file system cannot be mounted here")
    try:
        flows = tmp_path / "flows"
        flows.mkdir()
        (flows / "sleeps.py").write_text(SLEEPS)
        (flows / "large.py").write_text(
            "import time\ndef handler(system, this):\n    this.save(message='on')\n    time.sleep(5)\n"
            "    system.file('kept').save_text_content('y' * 200_000)\n    this.log('x' * 100_000)\n"
            "    return 100_000\n"
        )
        daemon = make_daemon(flows)
        daemon.state = disk / "s"
        daemon.start()
        running = daemon.client.run("sleeps", {"s": 2})["id"]
        begun(daemon, running)
        large = daemon.client.run("large")["id"]
        begun(daemon, large)
        filler = disk / "filler"
        _fill(filler)
        header = {"Authorization": f"Bearer {daemon.token()}"}
        refused = until(
            lambda: (a := daemon.raw("POST", "/api/v1/flows/sleeps/run", {}, header))[0] == 503 and a, "it refuses"
        )
        assert "Retry-After" in refused[2] and "disk" in refused[1]["detail"] + refused[1].get("hint", "")
        status, body, _ = daemon.raw("GET", "/readyz")
        assert status == 503
        assert "space" in body["reasons"][0] or "free on the disk" in body["reasons"][0]
        until(lambda: not (daemon.state / "ballast").exists(), "the ballast is given up")
        _fill(filler)
        time.sleep(3)  # the running ones end, and one has a file and a large value to keep, while there is no room
        assert daemon.raw("GET", f"/api/v1/executions/{running}", headers=header)[0] in (200, 503)
        filler.unlink()
        assert daemon.client.wait(running, 20)["output_value"] == "slept"
        assert daemon.client.wait(large, 20)["output_value"] == 100_000
        assert len(list(daemon.client.log(large))[0]["text"]) == 100_000
        assert daemon.client.file("kept") == b"y" * 200_000
        until(lambda: daemon.raw("GET", "/readyz")[0] == 200, "requests are taken again")
        assert daemon.run("sleeps")["output_value"] == "slept"
        assert daemon.stop() == 0
        assert [json.dumps(line)[:1] for line in daemon.lines()]
    finally:
        for daemon_process in processes_matching(str(disk / "s")):
            os.kill(daemon_process, signal.SIGKILL)
        subprocess.run(["umount", "-l", str(disk)], check=True)
