"""Who looks after the records: what people should see to reaches them, and a loss is only accepted when asked."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
from structlog import testing

from headrace.daemon import caretaker
from headrace.engine import errors
from headrace.engine.records import head
from tests.engine.records import journals


async def test_a_damaged_segment_is_a_notice_until_it_is_mended(tmp_path: Path) -> None:
    await journals.fill(tmp_path / "records", [1, 2, 1, 1, 2, 1, 2], segment_bytes_max=640)
    recovered = caretaker.recover(tmp_path, lambda recorded: None, accept_loss=False)
    async with journals.opened(tmp_path / "records", recovered=recovered) as lines:
        path = tmp_path / "records" / "00000001.jsonl"
        whole = path.read_bytes()
        path.chmod(0o600)
        path.write_bytes(whole.replace(b"line 1", b"line 7"))
        care = caretaker.Caretaker(tmp_path, lines, recovered.instance, journals.Clock())
        await care.begin()
        with testing.capture_logs() as told:
            async with asyncio.TaskGroup() as group:
                care.start(group)
                while not any("00000001.jsonl is damaged" in notice for notice in care.notices()):
                    await asyncio.sleep(0.01)
                await lines.submit(journals.log(99))
                care.rest()
            await care.close()
        assert "segment.damaged" in [line["event"] for line in told]
        assert head.read(tmp_path / "HEAD").seq == lines.position.seq


async def test_a_loss_is_said_and_accepted_only_when_asked(tmp_path: Path) -> None:
    await journals.fill(tmp_path / "records", [1])
    head.Head(tmp_path / "HEAD").write("f" * 32, journals.recovered(tmp_path / "records")[0].position)
    for content in ((tmp_path / "HEAD").read_bytes(), b"nonsense"):
        (tmp_path / "HEAD").write_bytes(content)
        with pytest.raises(errors.HistoryLost):
            caretaker.recover(tmp_path, lambda recorded: None, accept_loss=False)
        with testing.capture_logs() as told:
            recovered = caretaker.recover(tmp_path, lambda recorded: None, accept_loss=True)
        assert recovered.position.seq == 2
        assert [line["event"] for line in told] == ["history.loss_accepted"]


async def test_kinds_of_the_future_are_said_once_with_their_counts(tmp_path: Path) -> None:
    golden = Path(__file__).parents[1] / "golden" / "records" / "v1" / "unknown_kinds" / "00000001.jsonl"
    (tmp_path / "records").mkdir()
    (tmp_path / "records" / golden.name).write_bytes(golden.read_bytes())
    with testing.capture_logs() as told:
        recovered = caretaker.recover(tmp_path, lambda recorded: None, accept_loss=False)
    assert recovered.unknown_executions == {"e7", "e8", ""}
    assert (told[0]["event"], told[0]["executions"]) == ("journal.kinds_unknown", 2)
