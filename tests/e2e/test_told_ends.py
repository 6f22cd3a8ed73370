"""Whoever waits for an end is told when that is on disk; everything else of the answer is made before that."""

import json
import shutil
import threading

import pytest

from headrace.daemon import audit
from tests.support.daemons import until

FLOWS = {
    "quick": "def handler(system, this):\n    return {'value': 'quick and durable'}\n",
    "hook": "# /// script\n# [tool.headrace]\n# webhook = {auth = 'none'}\n# ///\n"
    "def handler(system, this):\n    return {'value': 'called and durable'}\n",
    "slow": "import os, time\ndef handler(system, this, inputs):\n    while not os.path.exists(inputs['go']):\n"
    "        time.sleep(0.02)\n    return {'value': 'slow'}\n",
}
pytestmark = pytest.mark.skipif(not shutil.which("strace"), reason="strace makes the disk slow, or full")


@pytest.fixture
def daemon(make_daemon, tmp_path):
    flows = tmp_path / "flows"
    flows.mkdir()
    for name, text in FLOWS.items():
        (flows / f"{name}.py").write_text(text)
    return make_daemon(flows)


def audited(daemon):
    return [json.loads(line) for line in (daemon.state / audit.FILE).read_text().splitlines()]


@pytest.mark.parametrize(
    ("path", "value"),
    [("/api/v1/flows/quick/run?wait=30", "quick and durable"), ("/webhook/hook", "called and durable")],
    ids=["api", "webhook"],
)
def test_an_answer_goes_out_when_the_disk_has_what_it_tells(daemon, tmp_path, path, value):
    """The order of the calls to the kernel, on a disk that takes 200 ms: what the end says is written, then synced, and
    only then sent; before that there is a line in the audit log, at best while the disk is at work."""
    trace = tmp_path / "trace"
    slow = ("-e", "trace=write,fdatasync", "-e", "inject=fdatasync:delay_enter=200ms")
    daemon.start("strace", "-D", "-f", "--seccomp-bpf", "-q", "-s", "2000", "-o", str(trace), *slow)
    status, answer, _ = daemon.raw("POST", path, {}, {"Authorization": f"Bearer {daemon.token()}"})
    assert (status, answer["output_value"]) == (200, {"value": value})
    daemon.kill()
    steps, writer = [], ""  # what was over when; the thread of the journal, as others sync files of their own
    for line in trace.read_text().splitlines():
        if "execution.ended" in line and value in line and "write(" in line and '"seq' in line:
            steps.append("recorded")
            writer = line.split()[0]
        elif "fdatasync" in line and "<unfinished" not in line and line.split()[0] == writer:
            steps.append("synced")
        elif "HTTP/1.1 200" in line and value in line:
            steps.append("sent")
        elif "write(" in line and r"\"what\":\"POST /api" in line and steps:
            steps.append("audited")
    told = steps[: steps.index("sent") + 1]
    assert [step for step in told if step != "audited"] == ["recorded", "synced", "sent"]
    assert told.count("audited") == ("api" in path)


@pytest.mark.parametrize("freed", [True, False])
def test_an_end_is_not_told_while_the_disk_is_full(daemon, tmp_path, freed):
    """Whoever can wait is told when there is room again. Whoever cannot learns why there is no answer; both are in the
    audit log, and the execution has ended all the same."""
    daemon.start()
    headers = {"Authorization": f"Bearer {daemon.token()}", "X-Request-Id": "the-one"}
    answers = []
    path = f"/api/v1/flows/slow/run?wait={20 if freed else 2}"
    go = tmp_path / "go"
    body = {"inputs": {"go": str(go)}}
    asking = threading.Thread(target=lambda: answers.append(daemon.raw("POST", path, body, headers)[:2]))
    asking.start()
    until(lambda: any(line["event"] == "execution.started" for line in daemon.lines()), "it runs")
    with daemon.writing("error=ENOSPC"):
        go.touch()
        until(lambda: "journal.stalled" in daemon.log.read_text(), "the disk is full")
        asking.join(1 if freed else 30)
        assert bool(answers) is not freed
    asking.join()
    ((status, answer),) = answers
    told = [(line["status"], bool(line["made"])) for line in audited(daemon) if line["request"] == "the-one"]
    if freed:
        assert (status, answer["output_value"], told) == (200, {"value": "slow"}, [(200, True)])
    else:
        assert (status, told) == (503, [(200, True), (503, False)])
        assert answer["detail"] == "it has ended, but its end cannot be recorded now"
    (execution,) = daemon.client.all_executions(limit=10)
    assert daemon.client.wait(execution["id"], 20)["output_value"] == {"value": "slow"}
    assert [line["event"] for line in daemon.lines()].count("execution.ended") == 1
