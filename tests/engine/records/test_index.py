"""The index: it shows what the journal holds, and no accident to its file changes that."""

from __future__ import annotations

import asyncio
import contextlib
import random
import shutil
import sqlite3
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path

import msgspec
import pytest

from headrace.engine import errors, events, model
from headrace.engine.records import filing, index, journal, listing, places, reading, recovery, segments, tables
from tests.engine.records import journals


@contextlib.asynccontextmanager
async def both(directory: Path) -> AsyncIterator[tuple[journal.Journal, index.Index]]:
    known = places.Places()
    recovered = await asyncio.to_thread(recovery.recover, directory / "records", known.visit)
    catalogue = await index.Index.open(directory / "index.db", directory / "records", recovered, known)
    try:
        async with journals.opened(directory / "records", recovered=recovered, segment_bytes_max=20_000) as writer:
            writer.subscribe(catalogue.absorb)
            yield writer, catalogue
    finally:
        await catalogue.close()


def created(number: int, flow: str = "orders/daily", **fields: object) -> events.ExecutionCreated:
    return events.ExecutionCreated(execution=f"e{number:05d}", flow_name=flow, **fields)


async def busy(writer: journal.Journal, count: int = 60, seed: int = 1) -> None:
    """Write the events of ``count`` executions, interleaved, in all the ways they can go."""
    pick = random.Random(seed)
    for number in range(count):
        execution = f"e{number:05d}"
        parent = f"e{number // 10 * 10:05d}" if number % 10 else ""
        kind = pick.choice(listing.TYPES)
        key = f"hook:{number}" if number % 7 == 0 else ""
        flow = pick.choice(["orders/daily", "orders/hourly", "müll"]) if kind != "TASK" else ""
        writer.append(created(number, flow, type=kind, parent=parent, key=key, key_digest="d", queued=number % 5 > 0))
        if number % 5 == 0:
            writer.append(events.ExecutionQueued(execution=execution))
        if number % 4 == 0:
            continue
        writer.append(events.ExecutionStarted(execution=execution, pid=number))
        if pick.random() < 0.3:
            await writer.durable()
        writer.append(events.CallStarted(execution=execution, call=1, kind="sleep", waits=True))
        writer.append(events.LogWritten(execution=f"e{pick.randint(0, number):05d}", text="between"))
        if number % 6 == 1:
            continue
        writer.append(events.CallEnded(execution=execution, call=1))
        writer.append(events.ExecutionSaved(execution=execution, message=f"half of {number}", name=f"No. {number}"))
        status = pick.choice(["ENDED_SUCCESS", "ENDED_ERROR", "ENDED_CANCELLED"])
        writer.append(events.ExecutionEnded(execution=execution, status=status, message=f"done {number % 3}"))
    await writer.durable()


def oracle(directory: Path) -> dict[str, model.Execution]:
    """What the journal says, through the one function that everything else uses, newest first."""
    executions: dict[str, model.Execution] = {}

    def visit(recorded: events.Recorded) -> None:
        if isinstance(recorded.event, events.ExecutionCreated):
            executions[recorded.event.execution] = model.Execution.created(recorded.event, recorded.at)
        else:
            executions[recorded.event.execution].apply(recorded.event, recorded.at)

    reader = recovery.Reader(visit)
    reader.read(segments.files(directory / "records"))
    return dict(reversed(executions.items()))


FIELDS = [name for name in listing.Summary.__struct_fields__ if name != "commit"]


def plain(executions: list) -> list[tuple]:
    return [tuple(str(getattr(execution, name)) for name in FIELDS) for execution in executions]


async def everything(catalogue: index.Index, **filters: object) -> list[listing.Summary]:
    items, cursor = [], ""
    while True:
        page = await catalogue.query(listing.Query(cursor=cursor, **filters))
        items += page.items
        cursor = page.cursor
        if not cursor:
            return items


async def assert_as_the_journal_says(catalogue: index.Index, directory: Path) -> None:
    assert plain(await everything(catalogue, limit=200)) == plain(list(oracle(directory).values()))
    seen: dict[str, list[events.Recorded]] = {}
    reader = recovery.Reader(lambda recorded: seen.setdefault(recorded.event.execution, []).append(recorded))
    reader.read(segments.files(directory / "records"))
    for execution in list(seen)[::7]:
        assert await catalogue.events_of(execution) == seen[execution]


async def test_it_shows_what_the_journal_holds(tmp_path: Path) -> None:
    async with both(tmp_path) as (writer, catalogue):
        await busy(writer)
        await assert_as_the_journal_says(catalogue, tmp_path)
        counts = await catalogue.counts()
        assert sum(counts.values()) == 60
        assert await catalogue.events_of("nobody") == []


async def test_it_counts_by_hour_what_ended_and_what_failed(tmp_path: Path) -> None:
    async with both(tmp_path) as (writer, catalogue):
        await busy(writer)
        ended = [one for one in await everything(catalogue, type="FLOW") if one.ended_at]
        hours = sorted({one.created_at[:13] for one in ended})
        expected = {
            hour: (
                sum(one.created_at.startswith(hour) for one in ended),
                sum(one.created_at.startswith(hour) and one.status == "ENDED_ERROR" for one in ended),
            )
            for hour in hours
        }
        assert await catalogue.by_hour([*hours, "1970-01-01T00"]) == {**expected, "1970-01-01T00": (0, 0)}
        assert sum(count for count, _ in expected.values()) > 0


async def test_what_is_durable_is_in_the_next_answer(tmp_path: Path) -> None:
    async with both(tmp_path) as (writer, catalogue):
        for number in range(5):
            await writer.submit(created(number))
            assert (await catalogue.query(listing.Query(limit=1))).items[0].id == f"e{number:05d}"
            assert len(await catalogue.events_of(f"e{number:05d}")) == 1


FILTERS: list[tuple[dict[str, object], Callable[[model.Execution], bool]]] = [
    ({"flow": "müll"}, lambda e: e.flow_name == "müll"),
    ({"status": ("QUEUED",)}, lambda e: e.status == "QUEUED"),
    ({"status": ("WAITING", "ENDED_ERROR")}, lambda e: e.status in ("WAITING", "ENDED_ERROR")),
    ({"type": "TASK"}, lambda e: e.type == "TASK"),
    ({"parent": "e00010"}, lambda e: e.parent == "e00010"),
    ({"parent": "e00010", "status": ("WAITING",)}, lambda e: e.parent == "e00010" and e.status == "WAITING"),
    ({"parent": ""}, lambda e: not e.parent),
    ({"parent": "", "type": "FLOW"}, lambda e: not e.parent and e.type == "FLOW"),
    ({"parent": "", "status": ("ENDED_ERROR",)}, lambda e: not e.parent and e.status == "ENDED_ERROR"),
    ({"parent": "", "acknowledged": False}, lambda e: not e.parent and e.status == "ENDED_ERROR"),
    ({"parent": "", "flow": "müll"}, lambda e: not e.parent and e.flow_name == "müll"),
    ({"parent": "", "flows": ("müll",)}, lambda e: not e.parent and e.flow_name == "müll" and e.type == "FLOW"),
    ({"parent": "", "q": "done"}, lambda e: not e.parent and "done" in e.message),
    ({"parent": "", "q": "1"}, lambda e: not e.parent and ("1" in e.name or "1" in e.message)),
    (
        {"flow": "orders/daily", "type": "FLOW", "status": ("ENDED_ERROR", "ENDED_ERROR")},
        lambda e: (e.flow_name, e.type, e.status) == ("orders/daily", "FLOW", "ENDED_ERROR"),
    ),
    ({"q": "Done 1"}, lambda e: "done 1" in e.message),
    ({"q": "orders"}, lambda e: "orders" in e.name),
    ({"q": "no. 1"}, lambda e: "No. 1" in e.name),
    ({"q": "üll"}, lambda e: "üll" in e.name),
    ({"q": "1"}, lambda e: "1" in e.name or "1" in e.message),
    ({"q": "%"}, lambda e: False),
    ({"q": '"half" OR x'}, lambda e: False),
    ({"q": "done", "type": "TASK"}, lambda e: e.type == "TASK" and "done" in e.message),
    ({"q": "done", "flow": "müll"}, lambda e: e.flow_name == "müll" and "done" in e.message),
]


async def test_each_filter_lists_what_it_names_page_by_page(tmp_path: Path) -> None:
    async with both(tmp_path) as (writer, catalogue):
        await busy(writer)
        executions = list(oracle(tmp_path).values())
        for filters, wanted in FILTERS:
            expected = [e.id for e in executions if wanted(e)]
            for limit in (200, 3):
                assert [e.id for e in await everything(catalogue, limit=limit, **filters)] == expected, filters
        middle = executions[30].created_at
        newer = [e.id for e in executions if e.created_at >= middle]
        assert [e.id for e in await everything(catalogue, since=middle)] == newer
        assert [e.id for e in await everything(catalogue, until=middle)] == [e.id for e in executions[len(newer) :]]
        parents = [child.id for child in await catalogue.children("e00020")]
        assert parents == [f"e{n:05d}" for n in range(21, 30)]


async def test_a_flow_with_many_executions_is_searched_by_text(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(listing, "_READ_THROUGH_MAX", 3)
    async with both(tmp_path) as (writer, catalogue):
        await busy(writer)
        found = await everything(catalogue, q="done", flow="orders/daily", limit=2)
        wanted = [e.id for e in oracle(tmp_path).values() if "done" in e.message and e.flow_name == "orders/daily"]
        assert [e.id for e in found] == wanted


@pytest.mark.parametrize(
    "query",
    [
        listing.Query(limit=0),
        listing.Query(limit=201),
        listing.Query(status=("DONE",)),
        listing.Query(type="flow"),
        listing.Query(cursor="nonsense"),
        listing.Query(cursor="é"),
    ],
)
async def test_impossible_questions_are_refused(tmp_path: Path, query: listing.Query) -> None:
    async with both(tmp_path) as (_, catalogue):
        with pytest.raises(errors.InvalidRequest):
            await catalogue.query(query)


async def test_a_key_is_known_from_the_moment_it_is_durable(tmp_path: Path) -> None:
    async with both(tmp_path) as (writer, catalogue):
        assert catalogue.find_key("hook:1") is None
        at = await writer.submit(created(1, key="hook:1", key_digest="abc"))
        assert catalogue.find_key("hook:1") == ("e00001", "abc", at)
        await writer.submit(created(2, key="hook:1", key_digest="other"))
        await catalogue.flushed()
        await asyncio.sleep(0)
        assert catalogue._fresh_keys == {}
        assert catalogue.find_key("hook:1") == ("e00001", "abc", at)
    async with both(tmp_path) as (_, catalogue):
        assert catalogue.find_key("hook:1") == ("e00001", "abc", at)


async def told_of_all_keys(catalogue: index.Index) -> None:
    """Ask for a key that there is not; the second time this is known without the file."""
    assert catalogue.find_key("unheard of") is None
    await asyncio.wait([catalogue._reading])


async def test_a_key_that_there_is_not_is_looked_for_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async with both(tmp_path) as (writer, _):
        await writer.submit(created(1, key="hook:1"))
    async with both(tmp_path) as (writer, catalogue):
        await told_of_all_keys(catalogue)
        await writer.submit(created(2, key="hook:2"))
        await catalogue.flushed()
        await asyncio.sleep(0)
        assert catalogue._fresh_keys == {}
        assert [catalogue.find_key(f"hook:{number}")[0] for number in (1, 2)] == ["e00001", "e00002"]
        with monkeypatch.context() as patched:
            patched.delattr(catalogue, "_key_reader")
            assert catalogue.find_key("hook:3") is None
            with pytest.raises(AttributeError):
                catalogue.find_key("hook:1")


async def test_a_key_that_comes_while_others_are_read_is_known(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    go_on = threading.Event()

    def slow(connection: sqlite3.Connection) -> object:
        found = read(connection)
        go_on.wait(8)
        return found

    read = index._all_keys
    monkeypatch.setattr(index, "_all_keys", slow)
    async with both(tmp_path) as (writer, catalogue):
        assert catalogue.find_key("hook:1") is None
        await writer.submit(created(1, key="hook:1"))
        go_on.set()
        await asyncio.wait([catalogue._reading])
        await catalogue.flushed()
        await asyncio.sleep(0)
        assert catalogue._fresh_keys == {}
        assert catalogue.find_key("hook:1")[0] == "e00001"


async def test_what_a_bad_file_said_of_keys_is_forgotten_with_it(tmp_path: Path) -> None:
    async with both(tmp_path) as (writer, catalogue):
        await writer.submit(created(1, key="hook:1"))
    with contextlib.closing(sqlite3.connect(tmp_path / "index.db")) as connection, connection:
        assert connection.execute("DELETE FROM keys").rowcount == 1
    async with both(tmp_path) as (_, catalogue):
        await told_of_all_keys(catalogue)
        assert catalogue.find_key("hook:1") is None  # nobody knows yet that it is bad
        catalogue._filing.distrust("it lost a key", catalogue._filing.generation)
        await catalogue.flushed()
        assert catalogue.find_key("hook:1")[0] == "e00001"
        await told_of_all_keys(catalogue)
        assert catalogue.find_key("hook:1")[0] == "e00001"


def remove(path: Path, kept: dict[str, bytes]) -> None:
    for name in kept:
        path.with_name(name).unlink()


def truncate(path: Path, kept: dict[str, bytes]) -> None:
    path.write_bytes(kept[path.name][: len(kept[path.name]) // 2])


def empty(path: Path, kept: dict[str, bytes]) -> None:
    path.write_bytes(b"")


def scribble(path: Path, kept: dict[str, bytes]) -> None:
    path.write_bytes(random.Random(3).randbytes(len(kept[path.name])))


def older_schema(path: Path, kept: dict[str, bytes]) -> None:
    with contextlib.closing(sqlite3.connect(path)) as connection:
        connection.execute(f"PRAGMA user_version = {segments.FORMAT + 100}")


def foreign(path: Path, kept: dict[str, bytes]) -> None:
    with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as connection:
        connection.execute("UPDATE position SET instance = 'somebody else'")


def ahead(path: Path, kept: dict[str, bytes]) -> None:
    with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as connection:
        connection.execute("UPDATE position SET seq = 1000000")


def other_history(path: Path, kept: dict[str, bytes]) -> None:
    with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as connection:
        connection.execute("UPDATE position SET at = '1999'")


def no_table(path: Path, kept: dict[str, bytes]) -> None:
    with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as connection:
        connection.execute("DROP TABLE extents")


ACCIDENTS = [remove, truncate, empty, scribble, older_schema, foreign, ahead, other_history, no_table]


@pytest.mark.parametrize("accident", ACCIDENTS)
async def test_an_index_that_cannot_be_used_is_made_anew(tmp_path: Path, accident: Callable) -> None:
    async with both(tmp_path) as (writer, _):
        await busy(writer)
    path = tmp_path / "index.db"
    accident(path, {name.name: name.read_bytes() for name in tmp_path.glob("index.db*")})
    async with both(tmp_path) as (writer, catalogue):
        await writer.submit(created(100))
        await assert_as_the_journal_says(catalogue, tmp_path)
        assert catalogue.find_key("hook:7")[0] == "e00007"


def test_a_file_that_cannot_be_opened_does_not_stay_open(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = []

    class Noted(tables._Connection):
        def __init__(self, *given: object, **named: object) -> None:
            super().__init__(*given, **named)
            made.append(self)

    monkeypatch.setattr(tables, "_Connection", Noted)
    (tmp_path / "index.db").write_bytes(b"no database at all\n" * 100)
    with pytest.raises(sqlite3.DatabaseError):
        tables.connect(tmp_path / "index.db")
    with pytest.raises(sqlite3.ProgrammingError, match="closed"):
        made[0].execute("SELECT 1")


@pytest.fixture
def held_up(monkeypatch: pytest.MonkeyPatch) -> Iterator[threading.Event]:
    """Have every index be made behind, and no further than its first portion until the event is set."""
    go_on = threading.Event()
    real = reading.between

    def between(*arguments: object) -> Iterator[list[events.Recorded]]:
        for portion in real(*arguments):
            yield portion[: len(portion) // 2]
            go_on.wait(8)
            yield portion[len(portion) // 2 :]

    monkeypatch.setattr(reading, "between", between)
    monkeypatch.setattr(filing, "CATCH_UP_BYTES_MAX", 1000)
    monkeypatch.setattr(index, "PATIENCE_S", 0.02)
    yield go_on
    go_on.set()


async def test_a_lost_index_does_not_hold_up_the_start(tmp_path: Path, held_up: threading.Event) -> None:
    held_up.set()
    async with both(tmp_path) as (writer, _):
        await busy(writer)
    ended = [e.id for e in oracle(tmp_path).values() if e.status.ended]
    unfinished = [e.id for e in oracle(tmp_path).values() if not e.status.ended]
    assert ended
    assert unfinished
    (tmp_path / "index.db").unlink()
    held_up.clear()
    async with both(tmp_path) as (writer, catalogue):
        await writer.submit(created(100, key="fresh"))
        await writer.submit(events.ExecutionEnded(execution="e00100", status="ENDED_CANCELLED"))
        for question in (catalogue.query(listing.Query()), catalogue.counts(), catalogue.events_of(ended[0])):
            with pytest.raises(errors.NotAccepting, match=r"being made anew, \d+% of it is there"):
                await question
        with pytest.raises(errors.NotAccepting, match="made anew"):
            catalogue.find_key("hook:unheard-of")
        assert catalogue.find_key("fresh")[0] == "e00100"
        for execution in unfinished:
            assert [r.event.execution for r in await catalogue.events_of(execution)].count(execution) >= 1
        lines = await catalogue.events_of("e00100")
        assert [type(r.event).__name__ for r in lines] == ["ExecutionCreated", "ExecutionEnded"]
        written = {execution: await catalogue.events_of(execution) for execution in unfinished}
        held_up.set()
        while True:
            with contextlib.suppress(errors.NotAccepting):
                await catalogue.flushed()
                break
        await assert_as_the_journal_says(catalogue, tmp_path)
        assert written == {execution: await catalogue.events_of(execution) for execution in unfinished}
        await writer.submit(created(101))
        assert catalogue._places is None


async def test_an_index_that_was_left_half_made_goes_on_where_it_was(tmp_path: Path, held_up: threading.Event) -> None:
    held_up.set()
    async with both(tmp_path) as (writer, _):
        await busy(writer)
    (tmp_path / "index.db").unlink()
    held_up.clear()
    async with both(tmp_path) as (_, catalogue):
        while catalogue._filing._done_seq == 0:
            await asyncio.sleep(0.001)
        catalogue._filing._stopping = True
        held_up.set()
    half = catalogue._filing._done_seq
    assert not catalogue._filing.complete
    async with both(tmp_path) as (_, catalogue):
        assert catalogue._filing._done_seq >= half
        while not catalogue._filing.complete:
            await asyncio.sleep(0.001)
        assert catalogue._filing.generation == 0
        await assert_as_the_journal_says(catalogue, tmp_path)


def test_an_index_is_made_without_a_daemon(tmp_path: Path) -> None:
    async def fill() -> None:
        async with both(tmp_path) as (writer, _):
            await busy(writer)

    async def compare() -> None:
        async with both(tmp_path) as (_, catalogue):
            assert catalogue._filing.generation == 0
            await assert_as_the_journal_says(catalogue, tmp_path)

    asyncio.run(fill())
    (tmp_path / "index.db").write_bytes(b"odd")
    found = recovery.recover(tmp_path / "records")
    filing.rebuild(tmp_path / "index.db", tmp_path / "records", found.instance, found.position)
    asyncio.run(compare())


async def test_an_index_that_was_rolled_back_catches_up(tmp_path: Path) -> None:
    async with both(tmp_path) as (writer, _):
        await busy(writer, 20)
    kept = (tmp_path / "index.db").read_bytes()
    async with both(tmp_path) as (writer, _):
        for number in range(20, 40):
            writer.append(created(number))
        await writer.durable()
    (tmp_path / "index.db").write_bytes(kept)
    async with both(tmp_path) as (_, catalogue):
        assert catalogue._filing.generation == 0
        await assert_as_the_journal_says(catalogue, tmp_path)


async def test_an_index_of_a_history_that_went_another_way_is_made_anew(tmp_path: Path) -> None:
    async with both(tmp_path) as (writer, _):
        await busy(writer, 10)
    shutil.copytree(tmp_path / "records", tmp_path / "older")
    async with both(tmp_path) as (writer, _):
        await writer.submit(created(50))
    shutil.rmtree(tmp_path / "records")
    (tmp_path / "older").rename(tmp_path / "records")
    async with journals.opened(tmp_path / "records", segment_bytes_max=20_000) as writer:
        for number in range(60, 64):
            await writer.submit(created(number, "müll"))
    async with both(tmp_path) as (_, catalogue):
        await assert_as_the_journal_says(catalogue, tmp_path)


async def test_an_index_damaged_while_running_is_made_anew(tmp_path: Path) -> None:
    async with both(tmp_path) as (writer, catalogue):
        await busy(writer)
        await catalogue.query(listing.Query())
        with contextlib.closing(sqlite3.connect(tmp_path / "index.db", isolation_level=None)) as connection:
            connection.execute("DROP TABLE extents")
            connection.execute("DROP INDEX executions_by_kind")
        await assert_as_the_journal_says(catalogue, tmp_path)
        await writer.submit(created(100))
        await assert_as_the_journal_says(catalogue, tmp_path)
        assert catalogue.find_key("hook:7")[0] == "e00007"
        assert catalogue._filing.generation == 1 + 1  # made at first, and anew


async def test_what_is_too_much_to_hold_is_read_from_the_journal(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(filing, "WAITING_EVENTS_MAX", 10)
    async with both(tmp_path) as (writer, catalogue):
        await busy(writer, 120)
        await assert_as_the_journal_says(catalogue, tmp_path)
        await writer.submit(created(500))
        await assert_as_the_journal_says(catalogue, tmp_path)


async def test_lines_that_are_gone_are_an_error_not_an_empty_answer(tmp_path: Path) -> None:
    async with both(tmp_path) as (writer, catalogue):
        await busy(writer)
        await catalogue.flushed()
        (tmp_path / "records" / "00000001.jsonl").rename(tmp_path / "gone")
        with pytest.raises(errors.JournalCorrupt, match=r"00000001\.jsonl"):
            await catalogue.events_of("e00001")


async def test_events_without_an_execution_and_odd_ones_are_passed_over(tmp_path: Path) -> None:
    async with both(tmp_path) as (writer, catalogue):
        writer.append(events.DaemonStarted(version="1", pid=1))
        writer.append(events.ExecutionStarted(execution="never-created"))
        writer.append(created(1))
        writer.append(events.ExecutionEnded(execution="e00001", status="ENDED_SUCCESS"))
        writer.append(events.LogWritten(execution="e00001", args=msgspec.Raw(b'["x"]')))
        await writer.durable()
        assert [e.status for e in (await catalogue.query(listing.Query())).items] == ["QUEUED"]
        assert len(await catalogue.events_of("e00001")) == 3


async def test_a_closed_index_answers_with_an_error(tmp_path: Path) -> None:
    async with both(tmp_path) as (writer, catalogue):
        await writer.submit(created(1))
    with pytest.raises(errors.NotAccepting, match="closed"):
        await catalogue.query(listing.Query())


def test_a_file_whose_damage_is_told_in_words_that_are_no_text_is_damaged_too(tmp_path):
    """SQLite names the table it cannot read, and its name is what was damaged."""
    path = tmp_path / "index.db"
    with contextlib.closing(sqlite3.connect(path)) as connection:
        connection.execute("CREATE TABLE executions (a)")
        connection.commit()
    whole = path.read_bytes()
    harm = {b"executionsexecutions": b"\xff\xfeecutions\xff\xfeecutions", b"CREATE TABLE exec": b"CREATX TABLE exec"}
    for before, after in harm.items():
        assert before in whole
        whole = whole.replace(before, after)
    path.write_bytes(whole)
    assert tables.reached(path) is None
    with pytest.raises(sqlite3.DatabaseError):
        tables.Tables(path, lambda *_: None).create("x")
