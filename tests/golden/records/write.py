"""Writes the journals of ``tests/golden/records/vN``: what a version once wrote, every later one reads, for ever.

    python -m tests.golden.records.write v1

A folder that was released is never written again; a change of the format, or of what events hold, gets a new one beside
it. ``SHA256SUMS`` pins every byte. Clock, instance and order are fixed, so the same version writes the same.
"""

from __future__ import annotations

import asyncio
import hashlib
import sys
import types
import typing
from pathlib import Path

import msgspec

from headrace.engine import events, policy
from headrace.engine.records import dropping, journal, recovery, segments

FOLDER = Path(__file__).parent
INSTANCE = "0123456789abcdef" * 2
BLOB = events.Blob("ab" * 32, 70_000)
RAW = msgspec.Raw(b'{"text":"gr\\u00fcn","list":[1,2.5,null,true],"nested":{"a":{}}}')
FAILURE = events.Failure(type="ValueError", message="odd", traceback="Traceback …", file="a.py", line=3, execution="e2")


class Clock:
    """Steps a quarter of a second; now and then it is set back, as clocks are."""

    def __init__(self) -> None:
        self._time = 1_790_000_000.0
        self._readings = 0

    def time(self) -> float:
        self._readings += 1
        self._time += -7200 if self._readings % 9 == 0 else 0.25
        return self._time

    def monotonic(self) -> float:
        return self._time


def value(name: str, type_: object) -> object:
    """Return a telling value for a field of that type."""
    options = set(typing.get_args(type_)) or {type_}
    for kind, found in (
        (msgspec.Raw, RAW if name != "body" else msgspec.Raw(b'"<h1>gr\\u00fcn</h1>"')),
        (events.Blob, BLOB),
        (events.Failure, FAILURE),
        (bool, True),
        (float, 2.5),
        (int, 7),
        (str, f'{name} – grün \\ " \u2028'),
    ):
        if kind in options and typing.get_origin(type_) in (None, typing.Union, types.UnionType):
            return found
    if typing.get_origin(type_) not in (dict, tuple):
        for struct in (each for each in options if isinstance(each, type) and issubclass(each, msgspec.Struct)):
            return full(struct)
    if typing.get_origin(type_) is tuple and typing.get_args(type_)[0] is not str:
        return (value(name, typing.get_args(type_)[0]),)
    if typing.get_origin(type_) is tuple:
        return ("one", "two")
    assert typing.get_origin(type_) is dict, (name, type_)
    return {"key": value(name, typing.get_args(type_)[1])}


def full(kind: type[msgspec.Struct]) -> typing.Any:
    """Return an event (or what is part of one) of that kind with every field filled."""
    hints = typing.get_type_hints(kind, vars(events) | vars(policy))
    fields = msgspec.structs.fields(kind)
    return kind(**{f.name: not f.default if f.type is bool else value(f.name, hints[f.name]) for f in fields})


def sparse(kind: type[events.Event]) -> events.Event:
    """Return an event of that kind with what it must have and nothing else."""
    hints = typing.get_type_hints(kind, vars(events) | vars(policy))
    return kind(**{f.name: value(f.name, hints[f.name]) for f in msgspec.structs.fields(kind) if f.required})


async def write(directory: Path, batches: list[list[events.Event]], segment_bytes_max: int = 1 << 26) -> None:
    found = recovery.recover(directory)
    found.instance = found.instance if found.position.segment else INSTANCE
    lines = await journal.Journal.open(directory, Clock(), segment_bytes_max=segment_bytes_max, recovered=found)
    for batch in batches:
        for event in batch:
            lines.append(event)
        await lines.durable()
    await lines.close()


def log(number: int) -> events.LogWritten:
    return events.LogWritten(execution=f"e{number}", text=f"line {number}")


def append_raw(directory: Path, bodies: list[bytes]) -> None:
    """Go on with lines that this version cannot write."""
    found = recovery.recover(directory)
    seq, crc = found.position.seq, found.position.crc
    path = directory / segments.file_name(found.position.segment)
    with path.open("ab") as file:
        for body in bodies:
            seq += 1
            line, crc = segments.compose(seq, seq, b"2027-01-01T00:00:00.000000+00:00", body, crc)
            file.write(line)


def write_all(folder: Path) -> None:
    kinds = [kind for kind in typing.get_args(events.AnyEvent) if kind is not events.SegmentsDropped]
    asyncio.run(write(folder / "every_kind_full", [[full(kind)] for kind in kinds]))
    asyncio.run(write(folder / "every_kind_sparse", [[sparse(kind) for kind in kinds]]))
    asyncio.run(write(folder / "rotated", [[log(n), log(n + 100)] for n in range(12)], 900))
    asyncio.run(write(folder / "dropped", [[log(n), log(n + 100)] for n in range(12)], 900))
    end = dropping.end_before((folder / "dropped" / "00000002.jsonl").read_bytes().splitlines(keepends=True)[0])
    assert end is not None
    said = events.SegmentsDropped(segment=1, last_seq=end.seq, last_crc=end.crc, sha256=end.sha256)
    append_raw(folder / "dropped", [msgspec.json.encode(said)])
    (folder / "dropped" / "00000001.jsonl").unlink()
    asyncio.run(write(folder / "torn", [[log(1)], [log(2), log(3)]]))
    path = folder / "torn" / "00000001.jsonl"
    path.write_bytes(path.read_bytes()[:-20] + b"\0" * 100)
    asyncio.run(write(folder / "unknown_kinds", [[log(1)]]))
    append_raw(
        folder / "unknown_kinds",
        [
            b'{"event":"thing.invented","execution":"e7","of":[1,{"deep":null}]}',
            b'{"event":"log.written","execution":"e8","text":{"now":"an object"}}',
            b'{"event":"log.written","execution":"e9","text":"known","new_field":[1]}',
            b'{"event":"daemon.dreamt"}',
        ],
    )
    asyncio.run(write(folder / "newer_format", [[log(1)]]))
    path = folder / "newer_format" / "00000001.jsonl"
    lines = path.read_bytes().splitlines(keepends=True)
    opened = lines[0][lines[0].index(b'"event"') : lines[0].rindex(b',"crc"')].replace(b'"format":1', b'"format":99')
    line, crc = segments.compose(1, 1, b"2027-01-01T00:00:00.000000+00:00", b"{" + opened + b"}", 0)
    path.write_bytes(line + segments.compose(2, 2, b"2027-01-01T00:00:00.000000+00:00", b'{"any":"thing"}', crc)[0])
    sums = [
        f"{hashlib.sha256(path.read_bytes()).hexdigest()}  {path.relative_to(folder)}\n"
        for path in sorted(folder.rglob("*.jsonl"))
    ]
    (folder / "SHA256SUMS").write_text("".join(sums))


if __name__ == "__main__":
    target = FOLDER / sys.argv[1]
    if target.exists():
        sys.exit(f"{target} exists: what was written once is not written again")
    write_all(target)
