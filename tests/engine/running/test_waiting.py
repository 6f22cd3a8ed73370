import pytest

from headrace.engine.lifecycle import Status
from headrace.engine.running.waiting import ReturnWhen, Verdict, judge

RUNNING, GOOD, BAD, CANCELLED = Status.RUNNING, Status.ENDED_SUCCESS, Status.ENDED_ERROR, Status.ENDED_CANCELLED

TABLE = [
    ("ALL_SUCCEEDED", [RUNNING, GOOD], Verdict.WAIT),
    ("ALL_SUCCEEDED", [GOOD, GOOD], Verdict.DONE),
    ("ALL_SUCCEEDED", [RUNNING, BAD], Verdict.FAILED),
    ("ALL_SUCCEEDED", [GOOD, CANCELLED], Verdict.FAILED),
    ("ALL_ENDED", [RUNNING, BAD], Verdict.WAIT),
    ("ALL_ENDED", [CANCELLED, BAD], Verdict.DONE),
    ("FIRST_ENDED", [RUNNING, RUNNING], Verdict.WAIT),
    ("FIRST_ENDED", [RUNNING, BAD], Verdict.DONE),
    ("FIRST_SUCCEEDED", [RUNNING, BAD], Verdict.WAIT),
    ("FIRST_SUCCEEDED", [GOOD, BAD], Verdict.DONE),
    ("FIRST_SUCCEEDED", [CANCELLED, BAD], Verdict.FAILED),
]


@pytest.mark.parametrize(("return_when", "statuses", "verdict"), TABLE)
def test_when_waiting_is_over(return_when, statuses, verdict):
    assert judge(ReturnWhen(return_when), statuses) is verdict
