"""What is exported of records that lie elsewhere than they were written."""

import json

import msgspec

from headrace.engine import events
from headrace.engine.records import exports, segments
from headrace.engine.running import extract
from tests.engine.records.test_exports import GOLDEN
from tests.support.replays import outcome


def carried_away(state):
    """Write the golden export's record into a state directory as a record that was carried; return its execution."""
    (golden,) = exports.read(GOLDEN.read_bytes().splitlines(keepends=True), "golden")
    lines = []
    for execution, record in golden.records.items():
        inner = tuple(
            events.CarriedLine(line.seq, line.at, msgspec.Raw(msgspec.json.encode(line.event))) for line in record
        )
        lines.append(events.ExecutionCarried(execution=execution, carry="c", lines=inner))
    (state / "records").mkdir(parents=True)
    crc = 0
    with (state / "records" / segments.file_name(1)).open("wb") as file:
        for number, event in enumerate(lines, 1000):
            at = golden.records[golden.header.execution][0].at.encode()
            line, crc = segments.compose(number, number, at, msgspec.json.encode(event), crc)
            file.write(line)
    for path, content in golden.sources.items():
        target = state / "snapshots" / golden.header.commit / path
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(content)
    return golden.header.execution


async def test_a_record_that_was_carried_is_exported_line_by_line(tmp_path):
    execution = carried_away(tmp_path / "s")
    extracts, records = extract.from_files(tmp_path / "s")
    assert records.newest() == execution
    lines = [line async for line in extracts.of(execution)]
    file = tmp_path / "it.jsonl"
    file.write_bytes(b"".join(lines))

    def told(text):
        found = [json.loads(line) for line in text.splitlines()]
        return [{key: line[key] for key in line if key not in ("batch", "crc")} for line in found if "seq" in line]

    assert told(file.read_bytes()) == told(GOLDEN.read_bytes())


def test_it_is_replayed_as_ever_where_no_daemon_runs(tmp_path):
    execution = carried_away(tmp_path / "s")
    assert outcome("--state", tmp_path / "s", execution)["verdict"] == "same"
