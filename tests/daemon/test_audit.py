"""The audit log: a chain in which no line can be touched unseen, and which no full disk tears."""

import asyncio
import hashlib
import json
import os
import resource

import pytest
from structlog import testing

from headrace.daemon import audit
from headrace.engine import errors
from tests.support.clocks import Clock

FIELDS = {"at": "", "who": "ada", "what": "POST /x", "target": "/x", "origin": "127.0.0.1", "status": 200}


@pytest.fixture
def path(tmp_path):
    return tmp_path / audit.FILE


def book(path):
    return audit.Audit.open(path, Clock())


def verified(path):
    with path.open("rb") as lines:
        return audit.verify(lines)


def filled(path, count):
    one = book(path)
    for n in range(count):
        one.write(audit.Entry(**FIELDS | {"target": f"/{n}"}))
    return one


def test_lines_follow_each_other_also_after_a_restart(path):
    filled(path, 3).close()
    filled(path, 2).close()
    lines = path.read_bytes().splitlines()
    heads = ["", *(hashlib.sha256(line).hexdigest() for line in lines)]
    assert [json.loads(line)["prev"] for line in lines] == heads[:-1]
    assert verified(path) == (5, "") and path.stat().st_mode & 0o777 == 0o600


def test_every_flipped_byte_every_lost_and_every_moved_line_shows(path):
    filled(path, 4).close()
    whole = path.read_bytes()
    lines = whole.splitlines(keepends=True)
    for position in range(len(whole) - len(lines[-1])):  # of the last line nothing follows that could tell
        path.write_bytes(whole[:position] + bytes([whole[position] ^ 1]) + whole[position + 1 :])
        count, problem = verified(path)
        assert count < 4 and problem, position
    for number in range(3):
        path.write_bytes(b"".join(lines[:number] + lines[number + 1 :]))
        assert verified(path)[1]
        swapped = [*lines]
        swapped[number], swapped[number + 1] = swapped[number + 1], swapped[number]
        path.write_bytes(b"".join(swapped))
        assert verified(path)[1]
    path.write_bytes(whole[:-1])
    assert verified(path) == (3, "it is not whole")


def test_a_line_that_was_torn_is_dropped_and_the_chain_goes_on(path):
    filled(path, 2).close()
    path.write_bytes(path.read_bytes() + b'{"at":"20')
    filled(path, 1).close()
    assert verified(path) == (3, "")


def test_lines_cut_off_at_the_end_show_against_a_head_that_was_told(path):
    with testing.capture_logs() as told:
        filled(path, 5).close()
    (head,) = (line["sha256"] for line in told if line["event"] == "audit.head")
    whole = path.read_bytes().splitlines(keepends=True)
    for kept in range(5):
        path.write_bytes(b"".join(whole[:kept]))
        assert verified(path) == (kept, "")
        with path.open("rb") as lines:
            assert "missing at the end" in audit.verify(lines, head)[1]
    path.write_bytes(b"".join(whole))
    filled(path, 2).close()
    with path.open("rb") as lines:
        assert audit.verify(lines, head) == (7, "")


def test_the_latest_are_shown_newest_first(path):
    one = filled(path, 10)
    assert [entry.target for entry in one.latest(3)[0]] == ["/9", "/8", "/7"]
    assert len(one.latest(1000)[0]) == 10


def test_pages_of_the_log_lead_from_the_newest_line_to_the_first(path):
    one = filled(path, 10)
    seen, end = [], None
    while end != 0:
        entries, end = one.latest(3, end)
        seen += [entry.target for entry in entries]
        if len(seen) == 3:
            one.write(audit.Entry(**FIELDS | {"target": "/later"}))
    assert seen == [f"/{n}" for n in range(9, -1, -1)]
    for nowhere in (5, path.stat().st_size + 1, -1):
        with pytest.raises(errors.InvalidRequest, match="cursor"):
            one.latest(3, nowhere)


def test_while_it_cannot_be_written_nothing_is_let_through_and_then_nothing_is_missing(path):
    one = filled(path, 2)
    one.check()
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (path.stat().st_size + 100, hard))  # a disk with room for half a line
    try:
        one.write(audit.Entry(**FIELDS | {"target": "/kept"}))
        with pytest.raises(errors.NotAccepting):
            one.check()
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    one.check()
    assert verified(path) == (3, "") and one.latest(1)[0][0].target == "/kept"


async def test_lines_are_brought_to_the_disk_together_and_a_log_at_rest_wakes_nobody(path, monkeypatch):
    loop, synced, looks = asyncio.get_running_loop(), asyncio.Queue(), []

    class Looked(Clock):
        def monotonic(self):
            looks.append(1)
            return super().monotonic()

    def fdatasync(_descriptor):
        loop.call_soon_threadsafe(synced.put_nowait, path.read_text().count("\n"))

    monkeypatch.setattr(os, "fdatasync", fdatasync)
    monkeypatch.setattr(audit, "_SYNC_S", 0.01)
    one = audit.Audit.open(path, Looked())
    running = asyncio.create_task(one.run(), name="audit log")
    for lines in (2, 4):
        for _ in range(2):
            one.write(audit.Entry(**FIELDS))
        assert await synced.get() == lines
    await asyncio.sleep(0.02)
    before = len(looks)
    await asyncio.sleep(0.1)
    assert len(looks) == before and synced.empty()
    running.cancel()
