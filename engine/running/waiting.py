"""When waiting for executions is over: the decision alone, without any waiting."""

from __future__ import annotations

import enum
from collections.abc import Sequence

from ..lifecycle import Status


class ReturnWhen(enum.StrEnum):
    """What a flow may wait for; the names are part of the flow contract."""

    ALL_SUCCEEDED = "ALL_SUCCEEDED"
    ALL_ENDED = "ALL_ENDED"
    FIRST_ENDED = "FIRST_ENDED"
    FIRST_SUCCEEDED = "FIRST_SUCCEEDED"


class Verdict(enum.Enum):
    """What the statuses so far mean for the one who waits."""

    WAIT = "wait"
    DONE = "done"
    FAILED = "failed"


def judge(return_when: ReturnWhen, statuses: Sequence[Status]) -> Verdict:
    """Decide from the present statuses of all executions waited for."""
    ended = [status for status in statuses if status.ended]
    succeeded = Status.ENDED_SUCCESS in ended
    everything = len(ended) == len(statuses)
    match return_when:
        case ReturnWhen.ALL_SUCCEEDED:
            if any(status is not Status.ENDED_SUCCESS for status in ended):
                return Verdict.FAILED
            return Verdict.DONE if everything else Verdict.WAIT
        case ReturnWhen.ALL_ENDED:
            return Verdict.DONE if everything else Verdict.WAIT
        case ReturnWhen.FIRST_ENDED:
            return Verdict.DONE if ended else Verdict.WAIT
        case ReturnWhen.FIRST_SUCCEEDED:
            if succeeded:
                return Verdict.DONE
            return Verdict.FAILED if everything else Verdict.WAIT
