"""Death and refusal at each system call of the journal and of HEAD, and at each of the recovery that follows."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.engine.records import journals
from tests.engine.records import test_faults as small
from tests.faults.conftest import Suite

pytestmark = [small.needs_strace, pytest.mark.timeout(3600)]

WORDS = {"journal": ["resume"], "HEAD": ["resume", "mark"]}


def begun(tmp_path: Path, words: list[str]) -> tuple[dict[str, bytes], list[tuple[str, int]]]:
    """Return a small journal and every point at which its writer can be hit."""
    records = tmp_path / "counted" / "records"
    journals.filled(records, [1])
    files = journals.snapshot(records)
    counted = small.calls_of(records, *words)
    return files, [(call, k) for call, count in counted.items() for k in range(1, count + 1)]


@pytest.mark.parametrize("kind", WORDS)
def test_double_crash(tmp_path: Path, suite: Suite, kind: str) -> None:
    """Killed at one call, then at one of the recovery; what the second recovery leaves is what one alone leaves."""
    files, points = begun(tmp_path, WORDS[kind])
    for number in suite.times(60):
        call, k = suite.random.choice(points)
        then, k2 = suite.random.choice(("write", "fdatasync", "rename", "fsync", "fchmod")), suite.random.randint(1, 2)
        records = tmp_path / str(number) / "records"
        records.parent.mkdir()
        journals.restore(records, files)
        with suite.attempt((call, k, then, k2)):
            kill = f"inject={call}:signal=SIGKILL:when={k}"
            acknowledged, code, _ = small.run(records, *WORDS[kind], strace=("-e", kill))
            assert code != 0
            small.run(records, "recover", strace=("-e", f"inject={then}:signal=SIGKILL:when={k2}"))
            small.assert_acknowledged_are_there(records, acknowledged)
            mended = journals.snapshot(records)
            small.run(records, "recover")
            assert journals.snapshot(records) == mended


@pytest.mark.parametrize("sticky", [False, True], ids=["once", "sticky"])
@pytest.mark.parametrize("call", ["fdatasync", "fsync", "rename"])
def test_errors_of_the_disk(tmp_path: Path, suite: Suite, call: str, *, sticky: bool) -> None:
    """EIO at the n-th call, once or from then on: nothing is acknowledged after it, all before is there."""
    files, points = begun(tmp_path, ["resume"])
    for _, k in [point for point in points if point[0] == call]:
        records = tmp_path / f"{call}{k}" / "records"
        records.parent.mkdir()
        journals.restore(records, files)
        with suite.attempt(k):
            fault = f"inject={call}:error=EIO:when={k}{'+' if sticky else ''}"
            acknowledged, code, trace = small.run(records, "resume", strace=("-e", f"trace={call},write", "-e", fault))
            assert code == 74
            assert trace.rsplit("EIO", 1)[1].count("write(") == 0
            small.assert_acknowledged_are_there(records, acknowledged)


@pytest.mark.parametrize("error", ["EIO", "ENOSPC", "EDQUOT", "EINTR"])
def test_errors_of_writing(tmp_path: Path, suite: Suite, error: str) -> None:
    files, points = begun(tmp_path, ["resume"])
    for _, k in [point for point in points if point[0] == "write"]:
        records = tmp_path / f"{error}{k}" / "records"
        records.parent.mkdir()
        journals.restore(records, files)
        with suite.attempt(k):
            fault = f"inject=write:error={error}:when={k}"
            acknowledged, code, _ = small.run(records, "resume", strace=("-e", fault))
            assert code == 0
            assert "refused" in acknowledged or error == "EINTR" or len(acknowledged) == 8
            small.assert_acknowledged_are_there(records, acknowledged)


def test_errors_of_head_cost_no_request(tmp_path: Path, suite: Suite) -> None:
    files, points = begun(tmp_path, ["resume", "mark"])
    for call, k in points:
        for error in ("EIO", "ENOSPC"):
            records = tmp_path / f"{call}{k}{error}" / "records"
            records.parent.mkdir()
            journals.restore(records, files)
            with suite.attempt((call, k, error)):
                fault = f"inject={call}:error={error}:when={k}"
                acknowledged, code, _ = small.run(records, "resume", "mark", strace=("-e", fault))
                assert (len(acknowledged), code) == (8, 0)
                small.assert_acknowledged_are_there(records, acknowledged)
