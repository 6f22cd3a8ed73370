"""What a replay is answered from, as the lines of a record tell it."""

import msgspec
import pytest

from headrace.engine import events, model
from headrace.engine.running import history, reads, resting
from headrace.engine.workers import protocol

E = "x1"
ONE = msgspec.Raw(b"1")


def told(*lines, loose=()):
    return history.of([events.Recorded(n, "", line, 1, 0, 0) for n, line in enumerate(lines, 1)], loose)


def ended(call, kind="get", **more):
    return events.CallEnded(execution=E, call=call, kind=kind, **more)


def test_a_call_has_its_kind_from_its_beginning_and_its_result_from_its_end():
    found = told(
        events.CallStarted(
            execution=E, call=1, kind="flow", target="child", children=("c",), waits=True, where="a.py:3"
        ),
        ended(1, "", result=ONE),
        events.CallStarted(execution=E, call=2, kind="sleep", waits=True),
    )
    first, second = found.find(1), found.find(2)
    assert (first.kind, first.target, first.where, first.children, first.ended) == (
        "flow",
        "child",
        "a.py:3",
        ("c",),
        True,
    )
    assert bytes(first.result) == b"1"
    assert (second.kind, second.ended, found.last, found.find(3)) == ("sleep", False, 2, None)


def test_what_was_repeated_is_found_under_each_of_its_numbers():
    found = told(ended(1, result=ONE), events.CallsRepeated(execution=E, call=2, count=5), ended(7, "uuid"))
    assert [found.find(n).kind for n in range(1, 8)] == ["get"] * 6 + ["uuid"]
    assert found.last == 7


def test_lines_logged_and_writes_are_calls_too_and_output_is_none():
    found = told(
        events.LogWritten(execution=E, call=1),
        events.LogWritten(execution=E, stream="stdout", text="x"),
        events.ExecutionSaved(execution=E, call=2, kind="set_output"),
        events.ExecutionSaved(execution=E, call=9, by="another"),
        events.WebhookAnswered(execution=E, call=3),
    )
    assert [found.find(n).kind for n in (1, 2, 3)] == [history.LOG, "set_output", "webhook_response"]
    assert found.last == 3


def test_nothing_before_a_restart_is_replayed():
    found = told(ended(1), ended(2), events.ExecutionRestarted(execution=E), ended(1, "uuid"))
    assert (found.find(1).kind, found.find(2), found.last) == ("uuid", None, 1)


@pytest.mark.parametrize(
    ("change", "result"),
    [
        (events.RecordSaved(type="setting", name="s", id="i", execution=E, call=2), {"id": "i", "name": "s"}),
        (events.RecordDeleted(type="setting", name="s", execution=E, call=2), None),
        (events.LockTaken(name="l", execution=E, call=2), None),
        (events.LockReleased(name="l", execution=E, call=2), None),
        (events.MessageCreated(message="m", subject="s", execution=E, call=2), {"id": "m"}),
        (events.ExecutionSaved(execution="other", by=E, call=2), None),
    ],
)
def test_a_change_tells_of_its_call_when_nothing_else_does(change, result):
    found = told(ended(1), loose=[change]).find(2)
    assert (found.ended, found.loose, msgspec.json.decode(found.result)) == (True, True, result)
    assert found.is_like("anything", "at all") and not found.is_like(history.LOG, "")
    begun = told(events.CallStarted(execution=E, call=2, kind="lock", target="l", waits=True), loose=[change]).find(2)
    assert (begun.kind, begun.ended, begun.loose) == ("lock", True, True)


def test_a_question_that_was_asked_is_not_asked_again_and_not_answered_by_that():
    found = told(loose=[events.MessageCreated(message="m", subject="s", execution=E, call=1, bound=True)]).find(1)
    assert (found.ended, found.message) == (False, "m")


def test_kind_and_target_must_be_equal_and_a_masked_target_may_stand_for_any():
    entry = history.Entry(1, "file.read", "a")
    assert (
        entry.is_like("file.read", "a") and not entry.is_like("file.read", "b") and not entry.is_like("file.write", "a")
    )
    masked = history.Entry(1, "file.read", "[protected]")
    assert masked.is_like("file.read", "a secret name") and not masked.is_like("file.write", "a secret name")


def test_the_next_call_after_a_gap_is_found():
    found = told(ended(1), ended(4, "uuid"))
    assert (found.next_after(1).number, found.next_after(4)) == (4, None)


# -- reads in a loop ------------------------------------------------------------------------------------------------


def call(number, kind="get", args=b"{}"):
    return protocol.Call(call=number, kind=kind, args=msgspec.Raw(args))


def test_equal_answers_in_a_row_are_counted_and_any_other_call_between_ends_that():
    read = reads.Reads()
    assert [read.again(call(n), {"result": ONE}) for n in (1, 2, 3)] == [False, True, True]
    assert read.unwritten(E) == events.CallsRepeated(execution=E, call=2, count=2)
    assert read.unwritten(E) is None
    assert not read.again(call(5), {"result": ONE}), "a log came between"
    assert not read.again(call(6), {"result": msgspec.Raw(b"2")}), "another answer"
    assert not read.again(call(7, args=b'{"fields":["x"]}'), {"result": msgspec.Raw(b"2")}), "another question"


def test_a_loop_that_only_polls_is_answered_ever_later_but_within_a_second():
    read = reads.Reads()
    delays = []
    for number in range(1, 60):
        delays.append(read.delay_s(call(number)))
        read.again(call(number), {"result": ONE})
    assert delays[: reads.Reads.PATIENCE] == [0.0] * reads.Reads.PATIENCE
    assert delays == sorted(delays) and 0 < delays[15] < delays[20] and delays[-1] == 1.0
    assert read.delay_s(call(60, kind="setting.get")) == 0.0


# -- what becomes of one that was cut off ----------------------------------------------------------------------------


def state(on_interrupt="", effect=False, fruitless=0):
    created = events.ExecutionCreated(execution=E, on_interrupt=on_interrupt)
    found = model.Execution.created(created, "2026-01-01T00:00:00.000000+00:00")
    found.effect = events.EffectNoticed(execution=E, effect="open") if effect else None
    found.fruitless = fruitless
    return found


@pytest.mark.parametrize(
    ("on_interrupt", "effect", "fruitless", "verdict"),
    [
        ("", False, 0, "REPLAY"),
        ("", True, 0, "FAIL"),
        ("resume", True, 4, "REPLAY"),
        ("restart", False, 0, "RESTART"),
        ("fail", False, 0, "FAIL"),
        ("", False, 5, "PARK"),
        ("restart", False, 5, "PARK"),
    ],
)
def test_the_flow_has_the_first_word_unless_it_leads_nowhere(on_interrupt, effect, fruitless, verdict):
    assert resting.judge(state(on_interrupt, effect, fruitless)).name == verdict


def test_fruitless_tries_come_ever_later():
    assert [resting.back_off_s(state(fruitless=n)) for n in (0, 1, 2, 3, 4)] == [0, 1, 2, 4, 8]
    assert resting.back_off_s(state(fruitless=30)) == 300


def test_only_interruptions_of_its_own_without_progress_count():
    at = "2026-01-01T00:00:00.000000+00:00"
    found = state()

    def cut(**more):
        found.apply(events.ExecutionStarted(execution=E, attempt=found.attempt + 1), at)
        if more.pop("gets_on", False):
            found.apply(ended(found.calls + 1, "uuid"), at)
        found.apply(events.ExecutionInterrupted(execution=E, **more), at)
        return found.fruitless

    assert [cut(gets_on=True), cut(), cut(daemon=True), cut(), cut(gets_on=True)] == [0, 1, 1, 2, 0]
