"""When a task is tried again."""

from __future__ import annotations

import pytest

from headrace.engine import errors
from headrace.tasks import retry
from tests.support.task_context import Context, ManualPacing


def _passing(retry_after_s: float | None = None) -> retry.Transient:
    return retry.Transient(errors.TaskFailed("no luck", output=b'{"n":1}', kind="K"), retry_after_s=retry_after_s)


DEFAULT = retry.Backoff()


class Flaky:
    """Fails ``times`` times, then succeeds."""

    def __init__(self, times: int, failure: Exception | None = None) -> None:
        self.left, self.failure = times, failure or _passing()

    async def __call__(self) -> str:
        if self.left:
            self.left -= 1
            raise self.failure
        return "done"


async def _attempts(
    flaky: Flaky, context: Context, pacing: ManualPacing, backoff: retry.Backoff | None = DEFAULT
) -> str:
    return await retry.attempts(flaky, backoff, context, pacing)  # type: ignore[arg-type]


async def test_pauses_double_up_to_the_maximum(context: Context, pacing: ManualPacing) -> None:
    assert await _attempts(Flaky(9), context, pacing) == "done"
    assert pacing.pauses == [1, 2, 4, 8, 16, 32, 60, 60, 60]
    assert context.lines[0] == ("WARNING", "attempt 1 failed, next one in 1.0 s: no luck")


async def test_a_pause_is_a_random_part_of_its_ceiling(context: Context, pacing: ManualPacing) -> None:
    pacing.random = lambda: 0.25  # type: ignore[method-assign]
    await _attempts(Flaky(3), context, pacing)
    assert pacing.pauses == [0.25, 0.5, 1.0]


async def test_the_deadline_ends_it_with_the_last_failure(context: Context, pacing: ManualPacing) -> None:
    with pytest.raises(errors.TaskFailed) as failed:
        await _attempts(Flaky(99), context, pacing, retry.Backoff(deadline=10))
    assert failed.value.message == "no luck (tried 4 times, the deadline for retries is 10 s)"
    assert (failed.value.output, failed.value.kind) == (b'{"n":1}', "K")
    assert sum(pacing.pauses) <= 10


async def test_a_longer_wait_asked_for_by_the_server_is_kept(context: Context, pacing: ManualPacing) -> None:
    await _attempts(Flaky(1, _passing(120)), context, pacing)
    assert pacing.pauses == [120]


async def test_a_wait_beyond_the_deadline_fails_at_once(context: Context, pacing: ManualPacing) -> None:
    with pytest.raises(errors.TaskFailed, match=r"tried once, .* 600 s, the server asked to wait 3600 s"):
        await _attempts(Flaky(1, _passing(3600)), context, pacing)
    assert pacing.pauses == []


async def test_without_back_off_there_is_one_attempt(context: Context, pacing: ManualPacing) -> None:
    with pytest.raises(errors.TaskFailed, match=r"^no luck$"):
        await _attempts(Flaky(1), context, pacing, None)


async def test_a_lasting_failure_leaves_at_once(context: Context, pacing: ManualPacing) -> None:
    with pytest.raises(errors.TaskFailed, match=r"^never$"):
        await _attempts(Flaky(1, errors.TaskFailed("never")), context, pacing)
    assert pacing.pauses == []


@pytest.mark.parametrize(
    ("asked", "repeatable", "tries"),
    [
        (None, True, True),
        (None, False, False),
        (False, True, False),
        (True, False, True),
        (retry.Backoff(), False, True),
    ],
)
def test_what_may_be_repeated_is_retried_unless_the_call_says_otherwise(
    asked: retry.Backoff | bool | None, repeatable: bool, tries: bool
) -> None:
    assert (retry.chosen(asked, repeatable=repeatable) is not None) is tries


def test_a_huge_multiplier_does_not_overflow() -> None:
    assert retry.Backoff(multiplier=1e300).ceiling(5) == 60
