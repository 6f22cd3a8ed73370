"""docs/durability.md promises nothing that no test proves."""

import re
from pathlib import Path

from headrace.engine.running import calls, dispatcher, flow_run, resting

ROOT = Path(__file__).resolve().parents[2]
DOCUMENT = (ROOT / "docs" / "durability.md").read_text()


def test_every_test_that_is_named_exists():
    named = set(re.findall(r"`(tests/[^`]+)`", DOCUMENT))
    assert len(named) > 10
    for test in named:
        path, _, name = test.partition("::")
        assert (ROOT / path).is_file(), path
        assert not name or f"def {name}(" in (ROOT / path).read_text(), test


def test_every_promise_names_its_test():
    table = DOCUMENT.partition("| --- | --- | --- |\n")[2].partition("\n\n")[0]
    rows = [[cell.strip() for cell in row.strip("|").split("|")] for row in table.splitlines()]
    assert [what for what, _, proof in rows if not proof] == ["`print`, `logging`, output of subprocesses"]


def test_the_figures_are_those_of_the_code():
    assert f"more than {flow_run.HIBERNATED_CALLS_MAX:,} calls or {flow_run.HIBERNATED_BYTES_MAX >> 20} MiB" in DOCUMENT
    assert f"{calls.CALLS_MAX:,} calls with {calls.HISTORY_BYTES_MAX >> 20} MiB" in DOCUMENT
    assert f"({dispatcher.WAITING_PROCESSES_MIN} at least)" in DOCUMENT
    assert f"lost {resting.FRUITLESS_MAX} times in a row" in DOCUMENT
