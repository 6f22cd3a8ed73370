"""docs/upgrade.md: what an older version does with the records of a newer one. It goes forward in tests/e2e."""

import json
from pathlib import Path

import pytest

from headrace.engine import errors
from headrace.engine.records import recovery, segments
from tests.support.daemons import Daemon, until

DOCUMENT = (Path(__file__).parents[2] / "docs" / "upgrade.md").read_text()
WAITS = "def handler(system, this):\n    this.sleep(600)\n"


@pytest.fixture
def daemon(tmp_path):
    (tmp_path / "flows").mkdir()
    (tmp_path / "flows" / "waits.py").write_text(WAITS)
    daemon = Daemon(tmp_path / "s", tmp_path / "flows")
    yield daemon
    daemon.kill()


def add(daemon, body):
    """Append a line as a newer version would have written it."""
    found = recovery.recover(daemon.state / "records", lambda recorded: None).position
    line, _ = segments.compose(found.seq + 1, found.seq + 1, b"2030-01-01T00:00:00.000000+00:00", body, found.crc)
    with (daemon.state / "records" / segments.file_name(found.segment)).open("ab") as file:
        file.write(line)


def test_what_a_newer_version_wrote_is_kept_and_its_executions_are_parked_alone(daemon):
    daemon.start()
    newer, plain = (daemon.client.run("waits")["id"] for _ in range(2))
    for execution in (newer, plain):
        until(lambda one=execution: daemon.client.execution(one)["status"] == "WAITING", "it waits")
    assert daemon.stop() == 0
    add(daemon, json.dumps({"event": "call.dreamt", "execution": newer}).encode())
    before = (daemon.state / "records" / "00000001.jsonl").read_bytes()
    daemon.start()
    parked = until(lambda: (one := daemon.client.execution(newer))["status"] == "PAUSED" and one, "it is parked")
    assert "records of a newer version" in json.dumps([parked, daemon.record(newer)])
    assert daemon.client.execution(plain)["status"] == "WAITING"
    told = [json.loads(line) for line in daemon.log.read_text().splitlines() if line.startswith("{")]
    assert [line["kinds"] for line in told if line["event"] == "journal.kinds_unknown"] == [{"call.dreamt": 1}]
    daemon.client.cancel(newer)
    assert daemon.client.wait(newer, 30)["status"] == "ENDED_CANCELLED"
    assert daemon.stop() == 0
    assert (daemon.state / "records" / "00000001.jsonl").read_bytes().startswith(before)


def test_another_format_is_refused_and_nothing_is_changed(daemon):
    records = daemon.state / "records"
    records.mkdir(parents=True, mode=0o700)
    body = (
        b'{"event":"segment.opened","format":%d,"instance":"i","segment":1,"previous_crc":"%b","previous_sha256":"%b"}'
    )
    body %= (segments.FORMAT + 1, segments.NO_CRC.encode(), segments.NO_SHA256.encode())
    line, _ = segments.compose(1, 1, b"2030-01-01T00:00:00.000000+00:00", body, 0)
    (records / "00000001.jsonl").write_bytes(line)
    daemon.start(wait=False)
    assert daemon.process.wait(30) == errors.JournalCorrupt.exit_code
    assert f"format {segments.FORMAT + 1}, this version reads {segments.FORMAT}" in daemon.log.read_text()
    assert {path.name: path.read_bytes() for path in records.iterdir()} == {"00000001.jsonl": line}
    assert f"{segments.FORMAT} since the first version" in DOCUMENT
    assert f"exit code {errors.JournalCorrupt.exit_code}" in DOCUMENT
