import re

import pytest

from headrace.engine import lifecycle
from headrace.engine.lifecycle import Status, next_status


def test_the_drawing_lists_exactly_the_arrows_of_the_table():
    drawn = {
        (Status(start), word): Status(end)
        for start, word, end in re.findall(r"^    [a-m]  (\w+) +(\w+) +(\w+)  ", lifecycle.__doc__, re.MULTILINE)
    }
    assert drawn == lifecycle.TABLE


def test_nothing_follows_an_end():
    assert not [status for status, _ in lifecycle.TABLE if status.ended]


def test_every_status_that_is_not_final_can_fail_and_be_cancelled():
    for status in set(Status) - lifecycle.ENDED:
        assert next_status(status, "failed") is Status.ENDED_ERROR
        assert next_status(status, "cancelled") is Status.ENDED_CANCELLED


def test_what_the_table_does_not_know_is_refused_with_both_sides_named():
    with pytest.raises(lifecycle.IllegalTransition, match="ENDED_SUCCESS cannot be started"):
        next_status(Status.ENDED_SUCCESS, "started")
