"""What follows an end: once, in the batch of that end, and not before its time."""

import itertools
import json

import msgspec
import pytest

from headrace.engine import events, policy
from headrace.engine.records import journal
from tests.engine.running.timetables import flow, opened
from tests.support.clocks import Clock

RAW = msgspec.Raw


def failed(kind="ValueError", **fields):
    failure = events.Failure(type=kind, message="no", file="f.py", line=3)
    return {"status": "ENDED_ERROR", "message": f"{kind}: no", "failure": failure, **fields}


class Office:
    """A ledger whose ends are followed, over real records."""

    def __init__(self, table):
        self.table = table
        self.ledger = table.archive.ledger
        self.ledger.at_end = table.sequels.follow
        self.begun = table.begun

    def run(self, name="f", execution="e", end=None, **fields):
        """Let an execution begin and end."""
        subject = self.ledger.create(
            events.ExecutionCreated(execution=execution, flow_id=f"id of {name}", flow_name=name, name=name, **fields)
        )
        self.finish(subject, end or failed())
        return subject.state

    def finish(self, subject, end):
        execution = subject.state.id
        self.ledger.record(subject, events.ExecutionStarted(execution=execution))
        self.ledger.record(subject, events.ExecutionEnded(execution=execution, **end))


@pytest.fixture
async def office(tmp_path):
    retry = policy.Retry(attempts=3, delay_s=10.0, factor=3.0, on=())
    flows = [
        flow("f", retry=retry, on_failure="told", on_success="told"),
        flow("named", retry=policy.Retry(attempts=2, on=("OSError", "timeout"))),
        flow("told", on_failure="told"),
        flow("lost", on_failure="nobody"),
    ]
    async with opened(tmp_path, Clock(), *flows) as table:
        yield Office(table)


async def test_it_is_tried_again_after_growing_whiles_with_what_it_was_given(office):
    now = office.table.clock.now_s
    terms = policy.Terms(lane="l", when_full="skip", tags=("a",), priority=3)
    first = office.run(inputs=RAW(b'{"a":1}'), created_by="Ada", terms=terms)
    second = office.begun[0]
    assert (bytes(second.inputs), second.created_by, second.terms.tags) == (b'{"a":1}', "Ada", ("a",))
    assert (second.terms.retry, second.terms.retry_of, second.terms.not_before) == (1, first.id, now + 10.0)
    assert second.terms.when_full == "queue", "it was let in once"
    office.finish(office.ledger.find(second.id), failed())
    third = office.begun[1]
    assert (third.terms.retry, third.terms.retry_of, third.terms.not_before) == (2, first.id, now + 30.0)
    office.finish(office.ledger.find(third.id), failed())
    (told,) = office.begun[2:]
    said = json.loads(bytes(told.inputs))
    assert (said["execution_id"], said["attempts"], said["where"]) == (third.id, 3, "f.py:3")
    assert (told.terms.follows, told.created_by, told.flow_name) == (third.id, "flow f", "told")


async def test_only_what_is_named_is_tried_again(office):
    office.run("named", "e1", failed("ValueError"))
    assert office.begun == []
    office.run("named", "e2", failed("OSError"))
    office.run("named", "e3", failed("", reason="timeout"))
    assert [one.terms.retry_of for one in office.begun] == ["e2", "e3"]


@pytest.mark.parametrize(
    ("fields", "end"),
    [
        ({}, {"status": "ENDED_CANCELLED"}),
        ({"type": "TASK", "task": "REST"}, failed()),
        ({"type": "SCRIPT"}, failed()),
        ({"flow_id": "unknown", "flow_name": "unknown"}, failed()),
    ],
)
async def test_nothing_follows_a_cancel_or_what_is_no_flow(office, fields, end):
    event = {"execution": "e", "flow_id": "id of f", "flow_name": "f"} | fields
    office.finish(office.ledger.create(events.ExecutionCreated(**event)), end)
    assert office.begun == []


async def test_a_child_is_not_tried_again_for_its_parent_waits_for_it(office):
    office.run(parent="p", parent_call=1)
    assert [one.flow_name for one in office.begun] == ["told"]


async def test_who_is_told_tells_nobody_and_a_missing_flow_is_no_failure(office):
    office.run(end={"status": "ENDED_SUCCESS"})
    (told,) = office.begun
    office.finish(office.ledger.find(told.id), failed())
    office.run("lost", "l")
    assert office.begun == [told]


async def test_what_follows_is_durable_with_the_end_or_neither_is(office):
    """Also where the batch is full right behind the end."""
    seen = []
    office.table.archive.journal.subscribe(lambda batch: seen.append([line.event for line in batch]))
    half = journal.BATCH_BYTES_MAX // 2
    for number in range(20):  # somewhere in between the end is the last line that has room
        office.ledger.journal.append(events.LogWritten(execution="x", text="x" * half))
        office.ledger.journal.append(events.LogWritten(execution="x", text="x" * (half - 60 * number)))
        office.run(execution=f"e{number}")
        await office.ledger.journal.durable()
    assert len(seen) >= 20
    for batch in seen:
        for before, after in itertools.pairwise([*batch, None]):
            if isinstance(before, events.ExecutionEnded):
                assert isinstance(after, events.ExecutionCreated) and after.terms.retry_of == before.execution


def test_a_while_grows_up_to_its_bound_and_is_spread():
    said = policy.Retry(delay_s=1.0, factor=10.0, max_s=50.0, jitter=0.5)
    assert [said.delay_before_s(n, 0.5) for n in (1, 2, 3, 10_000)] == [1.0, 10.0, 50.0, 50.0]
    assert (said.delay_before_s(1, 0.0), said.delay_before_s(1, 1.0)) == (0.5, 1.5)
    assert policy.Retry(on=("ConnectionError",)).covers("requests.exceptions.ConnectionError", "")


async def test_another_attempt_has_whatever_the_first_one_had(office):
    """Each field of the event is carried on, or stands here with the reason why not."""
    of_its_own = {"execution", "terms", "key", "key_digest"}  # a new one; its place among the attempts; sent once
    of_a_parent = {"parent", "parent_call", "depth", "orphan", "queued"}  # what has a parent is not tried again
    of_others = {"type", "task", "script", "script_blob", "inputs_sealed", "inputs_blob"}  # no flow, or see ``inputs``
    given = {
        "name": "n",
        "commit": "c" * 40,
        "path": "f.py",
        "venv": "v" * 24,
        "webhook": True,
        "outside": True,
        "created_by": "Ada",
        "timeout_s": 7.0,
        "reuse": False,
        "protect_inputs": ("a",),
        "protect_outputs": ("b",),
        "retention_time_s": 9.0,
        "on_interrupt": "restart",
        "strict_replay": True,
        "traceparent": "00-" + "1" * 32 + "-" + "2" * 16 + "-01",
        "inputs": RAW(b'{"a":1}'),
    }
    subject = office.ledger.create(events.ExecutionCreated(execution="e", flow_id="id of f", flow_name="f", **given))
    office.finish(subject, failed())
    again = office.begun[0]
    assert {name: getattr(again, name) for name in given} == given
    left = set(events.ExecutionCreated.__struct_fields__) - of_its_own - of_a_parent - of_others - given.keys()
    assert left == {"flow_id", "flow_name"}
