"""The rows of a statement as a file that flows keep, with SQLITE; the other types take the same way."""

from __future__ import annotations

import asyncio
import csv
import json

import pytest

from headrace.engine import errors
from headrace.tasks import rows
from tests.support.task_context import FolderWriter

KINDS = "SELECT 1 AS n, 'a,\"b\"\nü' AS text, NULL AS empty, 0.5 AS half, x'00ff' AS bytes"
MANY = (
    "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n LIMIT {}) SELECT i, hex(zeroblob(250)) AS x FROM n"
)


@pytest.fixture
def sql(call):
    async def run(**inputs):
        return await call("SQLITE", **{"retry_backoff": False, **inputs})

    return run


def read(context, path: str) -> str:
    return context.files.read(path).decode()


async def test_a_row_is_a_line_of_csv_or_an_object_as_the_name_says(sql, context):
    assert await sql(fetch=KINDS, dst="headrace:made/kinds.csv") == {"result": None, "row_count": 1, "size": 51}
    assert read(context, "made/kinds.csv") == 'n,text,empty,half,bytes\r\n1,"a,""b""\nü",,0.5,AP8=\r\n'
    for name in ("kinds.jsonl", "kinds.ndjson"):
        await sql(fetch=f"{KINDS} UNION ALL SELECT 2, '', '', 0, ''", dst=f"headrace:{name}")
        first, second = map(json.loads, read(context, name).splitlines())
        assert first == (await sql(fetchrow=KINDS))["result"] and second["text"] == ""


async def test_no_rows_are_a_file_too(sql, context):
    assert (await sql(fetch=f"{KINDS} LIMIT 0", dst="headrace:a.csv"))["row_count"] == 0
    await sql(fetch=f"{KINDS} LIMIT 0", dst="headrace:a.jsonl")
    assert (read(context, "a.csv"), read(context, "a.jsonl")) == ("n,text,empty,half,bytes\r\n", "")


async def test_rows_are_written_in_pieces_and_never_all_in_memory(sql, context, monkeypatch):
    pieces = []

    def write(writer, chunk):
        pieces.append(len(chunk))
        writer._stream.write(chunk)

    monkeypatch.setattr(FolderWriter, "write", write)
    monkeypatch.setattr(rows, "_PIECE_BYTES", 10_000)
    for name in ("many.csv", "many.jsonl"):
        pieces.clear()
        told = await sql(fetch=MANY.format(20_000), dst=f"headrace:{name}")
        assert told["row_count"] == 20_000 and told["size"] == sum(pieces) > 10_000_000
        assert max(pieces) < 12_000
    with (context.files.root / "many.csv").open(newline="") as file:
        assert sum(int(row["i"]) for row in csv.DictReader(file)) == 20_000 * 20_001 // 2


async def test_a_file_takes_more_rows_than_a_result_unless_the_call_says_how_many(sql, context):
    assert (await sql(fetch=MANY.format(10_001), dst="headrace:a.csv"))["row_count"] == 10_001
    before = read(context, "a.csv")
    with pytest.raises(errors.TaskFailed, match="there are more than 10 rows"):
        await sql(fetch=MANY.format(11), dst="headrace:a.csv", max_rows=10)
    assert read(context, "a.csv") == before, "a file appears whole or not at all"


async def test_a_file_is_bounded(sql, context, monkeypatch):
    monkeypatch.setattr(rows, "FILE_BYTES_MAX", 1000)
    with pytest.raises(errors.TaskFailed, match="the rows are larger than"):
        await sql(fetch=MANY.format(10), dst="headrace:a.csv")
    assert context.files.names() == []


async def test_cancelled_in_the_middle_there_is_no_file(sql, context, monkeypatch):
    monkeypatch.setattr(rows, "_PIECE_BYTES", 1000)
    work = asyncio.create_task(sql(fetch=MANY.format(-1), dst="headrace:a.csv"))
    while not (part := list(context.files.root.glob("*.part"))) or not part[0].stat().st_size:
        await asyncio.sleep(0.001)
    work.cancel()
    with pytest.raises(asyncio.CancelledError):
        await work
    assert context.files.names() == []


async def test_columns_of_one_name_are_told_where_an_object_loses_one(sql, context):
    await sql(fetch="SELECT 1 AS a, 2 AS a", dst="headrace:a.csv")
    assert context.lines == [] and read(context, "a.csv") == "a,a\r\n1,2\r\n"
    await sql(fetch="SELECT 1 AS a, 2 AS a", dst="headrace:a.jsonl")
    assert context.lines == [("WARNING", "several columns are called a: name them with AS")]


async def test_over_the_event_loop_others_have_their_turn(context):
    """A library that never waits must not hold up the daemon; nor may rows be lost on the way."""
    turns = 0

    async def others():
        nonlocal turns
        while True:
            turns += 1
            await asyncio.sleep(0)

    async def found():
        for number in range(5000):
            yield (number,)

    class Inputs:
        fetch, args, dst, max_rows = "x", None, "headrace:a.csv", None
        fetchrow = fetchval = execute = executemany = script = None

    beside = asyncio.create_task(others())
    told = await rows.streamed(Inputs(), context, lambda: ["n"], found())
    beside.cancel()
    assert told.row_count == 5000 and turns >= 5000 // rows._ROWS_AT_A_TIME
    assert read(context, "a.csv").splitlines()[-1] == "4999"


@pytest.mark.parametrize(
    ("inputs", "message"),
    [
        ({"fetchrow": "x", "dst": "headrace:a.csv"}, "'dst': fetchrow returns no rows for a file; use fetch"),
        (
            {"fetch": "x", "dst": "a.csv"},
            "'dst': expected headrace:<path> with a name that ends with .csv, .jsonl or .nd",
        ),
        ({"fetch": "x", "dst": "headrace:a.xml"}, "'dst': expected headrace:<path> with a name that ends with .csv"),
        (
            {"fetch": "x", "max_rows": 1_000_001},
            "'max_rows': expected a whole number <= 1000000, unless 'dst' is given",
        ),
    ],
    ids=range(4),
)
def test_inputs_that_cannot_be_used(tasks, inputs, message):
    with pytest.raises(errors.InputRefused) as refused:
        tasks.prepare("SQLITE", json.dumps(inputs).encode())
    assert refused.value.message.startswith(f"SQLITE cannot use the input {message}")
