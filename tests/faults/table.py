"""docs/reliability.md: what is promised, the tests that try to break it, and what they came to where that was recorded.

    python -m tests.faults.table           write the page
    python -m tests.faults.table --tests   the files of the suite that it names, for `make faults`

Figures are those of the newest outcome of each test in ``faults-results/``; where there is none, what the page has
stays, with its date. Nothing else ever makes a figure.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterable
from pathlib import Path

from . import outcomes

ROOT = Path(__file__).resolve().parents[2]
PAGE = ROOT / "docs" / "reliability.md"
UNRECORDED = "in the suite only"

_DURABLE = "tests/e2e/test_durable.py::test_"
_TURNS = "tests/engine/workers/test_turns.py::test_"

#: Chapter → promise → the tests that try to break it.
PROMISES: dict[str, dict[str, tuple[str, ...]]] = {
    "Calls after a crash": {
        "An accepted webhook or run request is recorded, and runs; one with a key runs once": (
            "tests/e2e/test_kill.py::test_kill_9_under_load_loses_nothing_that_was_acknowledged",
        ),
        "A child, a script and a task are made once, and their end is handed on once": (
            f"{_DURABLE}killed_at_any_moment_it_goes_on_where_it_was",
        ),
        "A task that was cut off is repeated only if that does no harm": (
            f"{_DURABLE}a_task_that_was_cut_off_is_repeated_only_if_that_does_no_harm",
            "tests/e2e/test_every_task_type.py",
        ),
        "A sleep ends when it was to end, never early, whatever the clock is set to": (
            f"{_DURABLE}a_sleep_goes_on_through_a_crash_and_ends_when_it_was_to",
            "tests/e2e/test_clock_steps.py",
        ),
        "A question is asked once, and an acknowledged answer is there; a long wait needs no process": (
            f"{_DURABLE}a_long_wait_gives_the_process_back_and_goes_on_after_it",
        ),
        "A lock is held until it is given back; who waits keeps the place in the line": (
            f"{_DURABLE}who_waits_for_a_lock_gets_it_after_a_crash_in_the_order_of_coming",
        ),
        "Settings, files and other records are changed exactly once": ("tests/e2e/test_kill_state.py",),
        "What a handler read, it reads again": (f"{_DURABLE}what_was_polled_is_replayed_in_the_same_number",),
        "A recorded step is not done again; with a mark in its transaction a database is changed exactly once": (
            f"{_DURABLE}a_step_that_is_recorded_is_not_done_again",
            "tests/e2e/test_exactly_once.py",
        ),
        "A cancel that was acknowledged is met, also after a restart": (
            f"{_DURABLE}a_cancel_reaches_the_handler_of_an_execution_that_has_no_process",
        ),
        "A timeout counts while the daemon is away": (f"{_DURABLE}the_time_limit_counts_while_nobody_is_there",),
        "Parents that wait never starve their children": (f"{_DURABLE}parents_that_wait_never_starve_their_children",),
        "An execution that waits behind another one in a process begins once, and is not killed with that": (
            f"{_TURNS}killed_at_any_moment_each_has_ended_or_not_begun_but_for_one",
            f"{_TURNS}who_is_killed_takes_nobody_along",
        ),
        "These tests would see a defect of that: each that is put in makes them fail": (
            "tests/faults/test_turn_mutants.py",
        ),
    },
    "Replay": {
        "A handler that does something else than recorded stands still, and both sides are shown": (
            f"{_DURABLE}a_replay_that_is_not_like_the_record_stands_still_and_says_both_sides",
        ),
        "With strict replay, arguments count, too": (
            "tests/e2e/test_strict_replay.py::test_what_calls_are_given_counts_where_a_flow_asks_for_it",
        ),
        "Sets come in the same order in each life": ("tests/e2e/test_hash_seeds.py",),
        "Flows nobody would write, killed again and again, diverge nowhere and do nothing twice": (
            "tests/faults/test_generated.py",
        ),
        "In a simulation of disk, time and processes no crash at any moment breaks a law of executions": (
            "tests/faults/test_simulation.py",
        ),
        "A changed flow is found at the right call, and nothing where nothing changed": (
            "tests/e2e/test_changed_flows.py",
        ),
        "These tests would see a defect of replay: each that is put in makes them fail": (
            "tests/faults/test_replay_mutants.py",
        ),
    },
    "Records": {
        "Killed or refused at any system call of the journal or its recovery, nothing acknowledged is lost": (
            "tests/faults/test_crash_points.py",
        ),
        "An end is told when it is on disk, and not before that": ("tests/e2e/test_told_ends.py",),
        "A power cut takes nothing that was acknowledged": (
            "tests/faults/test_power_cut.py::test_power_cuts",
            "tests/e2e/test_power_cut.py::test_power_cuts_lose_nothing_that_was_acknowledged",
        ),
        "What a disk loses that only says it synced, is noticed": (
            "tests/faults/test_power_cut.py::test_a_disk_that_lies_is_noticed",
            "tests/e2e/test_power_cut.py::test_on_a_disk_that_lies_this_would_be_seen",
            "tests/engine/records/test_head.py",
        ),
        "Whatever is flipped, cut off or swapped in the journal, no wrong record is read": (
            "tests/faults/test_damage.py",
        ),
        "A full disk refuses requests, loses nothing, and is enough to start": ("tests/faults/test_full_disk.py",),
        "The index can be lost or damaged at any moment": ("tests/faults/test_index.py",),
        "Retention takes nothing that counts, and leaves nothing behind, wherever it is killed": (
            "tests/engine/running/test_pruning_faults.py",
            "tests/engine/running/test_pruning.py::test_a_pruned_history_folds_to_what_happened",
        ),
        "These tests would see a defect of retention: each that is put in makes them fail": (
            "tests/faults/test_retention_mutants.py",
        ),
        "A backup holds all that was acknowledged before it; a damaged one is refused": (
            "tests/e2e/test_backup.py",
            "tests/daemon/test_backup.py",
        ),
        "A newer version goes on with what an older one left": ("tests/e2e/test_upgrade.py",),
        "Records of every version stay readable": ("tests/engine/records/test_golden.py",),
        "These tests would see a defect of the records: each that is put in makes them fail": (
            "tests/faults/test_mutants.py",
        ),
    },
    "Git": {
        "Sync that is killed at any system call heals by itself": ("tests/faults/test_killed_sync.py",),
        "Whatever happens to a branch, what git has is in force, or what was": ("tests/faults/test_rewrites.py",),
        "A git server that misbehaves takes nothing away": ("tests/faults/test_git_servers.py",),
        "A hostile repository runs nothing and writes nothing outside": ("tests/sync/test_corpus.py",),
        "No address, ref, path or commit becomes an option of git": ("tests/sync/test_arguments.py",),
        "A large, heavy history needs little memory and disk": ("tests/faults/test_big_repository.py",),
        "Environments of packages are whole after a kill and after a power cut": (
            "tests/sync/test_environments.py",
            "tests/faults/test_environments.py",
        ),
    },
    "Schedules, callers, and all of it": {
        "A schedule runs as cron's manual says: no tick twice, none left out, none early": (
            "tests/faults/test_schedules.py",
        ),
        "Slow clients by the thousand hold up nobody": ("tests/faults/test_slow_clients.py",),
        "A burst of deliveries on a slow disk is acknowledged and kept": ("tests/e2e/test_burst.py",),
        "No mangled request is a defect, nor shifts what follows": ("tests/e2e/test_mangled_requests.py",),
        "The API answers whatever it is sent as it is described": ("tests/e2e/test_openapi.py",),
        "No request with a changed bit passes for signed": ("tests/daemon/test_signatures.py",),
        "Each route lets in those who have its scope, and nobody by guessing": ("tests/e2e/test_access.py",),
        "Nobody is refused while it restarts under a service manager": ("tests/e2e/test_service_manager.py",),
        "On a cluster that loses any part of it, no execution is lost and no completed call done again": (
            "tests/faults/test_cluster.py",
        ),
        "However a flow process ends, that is told, nothing it started stays, and the next one is as new": (
            "tests/engine/workers/test_processes.py",
        ),
        "These tests would see a defect of that: each that is put in makes them fail": (
            "tests/faults/test_process_mutants.py",
        ),
        "A node that the network cuts off, and gives back late, changes nothing": ("tests/faults/test_partition.py",),
        "A long life with a fault each minute loses nothing, does nothing twice, leaves nothing behind": (
            "tests/faults/test_soak.py",
        ),
    },
}

_HEAD = """\
# What is tried

Each promise, the tests that try to break it, and what they came to when that was recorded last: `make faults` does so.
A test without figures is in the suite, and no outcome of it was kept. What is in `tests/faults` runs for hours if it is
let (`SCALE=10`), all others at each change as well. A failure here is a defect that was not mended then. No failure in
N independent tries means, at 95 %, that less than 3 in N fail.

What the promises mean in detail: [durability.md](durability.md), [replay.md](replay.md), [scale.md](scale.md),
[operation.md](operation.md)."""

#: Tries, failures, date.
Figures = tuple[str, str, str]
_LINE = re.compile(r"^\| [^|]*\| `(tests/[^`]+)` \| ([\d,]+) \| ([\d,]+) \| ([\d-]+) \|$", re.MULTILINE)


def figures(tests: Iterable[str], found: Iterable[outcomes.Outcome]) -> dict[str, Figures]:
    """What is recorded of each of these tests, a file's all together; the date is that of the oldest part of it."""
    newest = {one.name: one for one in sorted(found, key=lambda one: one.date)}
    known = {}
    for test in tests:
        parts = [one for name, one in newest.items() if re.fullmatch(re.escape(test) + r"((::|\[).*)?", name)]
        if parts:
            tries, failures = (sum(getattr(one, what) for one in parts) for what in ("tries", "failures"))
            known[test] = f"{tries:,}", f"{failures:,}", min(one.date for one in parts)[:10]
    return known


def written(page: str) -> dict[str, Figures]:
    """What a page says."""
    return {test: (tries, failures, date) for test, tries, failures, date in _LINE.findall(page)}


def page(known: dict[str, Figures]) -> str:
    """The text of docs/reliability.md."""
    parts = [_HEAD]
    for chapter, promises in PROMISES.items():
        parts += [
            f"\n## {chapter}\n",
            "| promise | test | tries | failures | date |",
            "| --- | --- | --- | --- | --- |",
        ]
        for promise, tests in promises.items():
            for number, test in enumerate(tests):
                what = "the same" if number else promise
                parts.append(f"| {what} | `{test}` | {' | '.join(known.get(test, (UNRECORDED, '', '')))} |")
    return "\n".join(parts).replace("|  |  |", "| | |") + "\n"


def tests() -> list[str]:
    """All that are named."""
    return [test for promises in PROMISES.values() for named in promises.values() for test in named]


def files() -> list[str]:
    """Those it names that are in the suite, too: what is in ``tests/faults`` runs as a whole."""
    return sorted({test.partition("::")[0] for test in tests() if not test.startswith("tests/faults/")})


def main() -> None:
    """Write the page anew, or say what it names."""
    if sys.argv[1:] == ["--tests"]:
        print(*files())
        return
    before = written(PAGE.read_text()) if PAGE.exists() else {}
    PAGE.write_text(page(before | figures(tests(), outcomes.read(ROOT / outcomes.FOLDER))))


if __name__ == "__main__":
    main()
