# ruff: noqa: E501 - texts of code
"""The negative controls of retention: each of these defects, by which it takes too much or too little, is noticed.

As in ``test_mutants``: one change of the text of a module, in a copy of the tree, and the real tests on the copy.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.faults.conftest import Suite
from tests.faults.test_mutants import Mutant, copied, notice

pytestmark = pytest.mark.timeout(900)

_NEED = (
    ("engine", "daemon", "sync", "tasks"),
    ("tests/engine/running", "tests/engine/records", "tests/support", "tests/sync"),
)
_CARRYING, _PRUNING = "engine/running/carrying", "engine/running/pruning"
_HISTORY = "folds or nothing_an_unfinished or long_lived or killed"


def _not_said(words: str) -> Mutant:
    return Mutant(_CARRYING, f"yield functools.partial(self._{words})\n", "pass\n", _HISTORY)


#: What is wrong, the change, and the words of the tests that notice.
MUTANTS = {
    "records are not carried": _not_said("record, type_, name"),
    "messages are not carried": _not_said("message, message"),
    "what is in force is not carried": _not_said("publication, source"),
    "schedules are not carried": Mutant(
        _CARRYING, "yield functools.partial(self._schedule, schedule)\n", "pass\n", "goes_on_where_it_was"
    ),
    "locks are not carried": Mutant(_CARRYING, "            yield self._locks\n", "            pass\n", _HISTORY),
    "maintenance is not carried": Mutant(
        _CARRYING, "            yield self._maintenance\n", "            pass\n", "maint"
    ),
    "keys are not carried": Mutant(_CARRYING, "        await self._keys(prefix)\n", "", "key"),
    "only the first keys of a segment are carried": Mutant(
        _CARRYING, "range(0, len(offsets), _AT_ONCE)", "range(0, min(1, len(offsets)), _AT_ONCE)", "key"
    ),
    "keys are carried all at once": Mutant(
        _CARRYING,
        "self._journal.append(key)\n                await self._settle()\n",
        "self._journal.append(key)\n                await asyncio.sleep(0)\n",
        "at_a_time",
    ),
    "a key is carried as often as it was said": Mutant(_CARRYING, "if key.key not in said:", "if True:", "in_vain"),
    "old keys are carried as well": Mutant("dropping", " and key.created_at >= keys_since:", ":", "young_keys"),
    "a key that is carried is young again": Mutant(
        "dropping",
        "            return event\n        case events.ExecutionCreated(",
        '            return events.KeyCarried(**{**{f: getattr(event, f) for f in event.__struct_fields__}, "created_at": line.at})'
        "\n        case events.ExecutionCreated(",
        "key",
    ),
    "an execution that goes on is carried as it was": Mutant(
        _CARRYING,
        "if record and not self._goes_on(execution, record[-1].seq):",
        "if record:",
        "while_it_is_carried",
    ),
    "the index is believed when it has less": Mutant(
        _CARRYING,
        "                    self._check(execution, record, prefix)\n",
        "",
        "not_believed",
    ),
    "what has not quite ended is forgotten": Mutant(
        _PRUNING,
        "            gone = [id_ for id_ in found if self._ledger.find(id_) is None]\n            for",
        "            gone = found\n            for",
        "only_just",
    ),
    "the newest segment goes first": Mutant(
        "dropping",
        "    for number, path in segments.files(directory):\n        if number > segment:\n            break\n",
        "    for number, path in reversed(segments.files(directory)):\n        if number > segment:\n            continue\n",
        "killed",
    ),
    "segments go before the line that vouches for the rest is durable": Mutant(
        _PRUNING,
        "        await self._journal.durable()\n        await self._archive.flushed()\n        freed",
        "        freed",
        "killed",
    ),
    "segments go before what is carried is durable": Mutant(
        _PRUNING,
        "        self._journal.append(await asyncio.to_thread(dropping.tombstone, self._directory, prefix.segment))\n"
        "        await self._journal.durable()\n        await self._archive.flushed()\n"
        "        freed = await asyncio.to_thread(dropping.unlink, self._directory, prefix.segment)\n",
        "        freed = await asyncio.to_thread(dropping.unlink, self._directory, prefix.segment)\n"
        "        self._journal.append(await asyncio.to_thread(dropping.tombstone, self._directory, prefix.segment))\n"
        "        await self._journal.durable()\n        await self._archive.flushed()\n",
        "killed or old_executions",
    ),
    "a damaged segment is dropped": Mutant(
        "dropping", "if chain is None or not chain.follow(line):", "if chain is None:", "damaged"
    ),
    "files that lines name go": Mutant("sweeping", "self._named[name] = number\n", "pass\n", "file"),
    "files that nothing names stay": Mutant(
        "sweeping", "                removed.append(file)\n", "                pass\n", "files"
    ),
    "the last segment counts as read": Mutant(
        "sweeping", "through = max(numbers, default=1) - 1", "through = max(numbers, default=1)", "file"
    ),
}


@pytest.mark.parametrize("name", MUTANTS)
def test_the_suites_notice(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, suite: Suite, name: str) -> None:
    mutant = MUTANTS[name]
    monkeypatch.setenv("HEADRACE_FAULT_STRIDE", "1")  # at every system call
    (tmp_path / "headrace").mkdir()
    copied(tmp_path, mutant, _NEED)
    tests = [f"tests/engine/running/test_{word}.py" for word in ("pruning", "pruning_faults", "schedules")]
    assert "FAILED" in notice(tmp_path, suite, name, mutant, [*tests, "-k", mutant.tests], 60)
