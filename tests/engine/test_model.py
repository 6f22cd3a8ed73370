import msgspec
import pytest

from headrace.engine import errors, events, lifecycle, model
from headrace.engine.lifecycle import Status

AT = "2026-01-01T00:00:00.000000+00:00"


def an_execution(**fields):
    return model.Execution.created(events.ExecutionCreated(execution="e1", flow_name="hello", **fields), AT)


def test_an_execution_walks_through_its_life_by_its_events_alone():
    state = an_execution()
    assert state.status is Status.QUEUED
    state.apply(events.ExecutionStarted(execution="e1"), AT)
    state.apply(events.CallStarted(execution="e1", call=1, kind="flow", waits=True), AT)
    assert state.status is Status.WAITING
    assert [call.kind for call in state.pending.values()] == ["flow"]
    state.apply(events.CallEnded(execution="e1", call=1), AT)
    assert state.status is Status.RUNNING
    state.apply(events.ExecutionEnded(execution="e1", status="ENDED_SUCCESS", message="done"), AT)
    assert (state.status, state.message, state.ended_at, state.calls) == (Status.ENDED_SUCCESS, "done", AT, 1)


def test_single_output_keys_are_set_and_the_others_kept():
    state = an_execution()
    state.apply(events.ExecutionSaved(execution="e1", call=1, output=msgspec.Raw(b'{"a":1,"b":2}')), AT)
    state.apply(events.ExecutionSaved(execution="e1", call=2, output_keys={"b": msgspec.Raw(b"3")}), AT)
    assert {key: bytes(value) for key, value in state.output.items()} == {"a": b"1", "b": b"3"}


def test_an_output_that_is_no_object_stays_one_value_and_null_is_a_value():
    state = an_execution()
    state.apply(events.ExecutionSaved(execution="e1", call=1, output=msgspec.Raw(b"[1]")), AT)
    assert bytes(state.output) == b"[1]"
    state.apply(events.ExecutionSaved(execution="e1", call=2, output=msgspec.Raw(b"null")), AT)
    assert bytes(state.output) == b"null"


def test_a_write_by_another_execution_does_not_count_as_a_call_of_this_one():
    state = an_execution()
    state.apply(events.ExecutionSaved(execution="e1", call=9, by="e2", message="from outside"), AT)
    assert (state.calls, state.message) == (0, "from outside")


def test_an_execution_that_ended_cannot_end_again():
    state = an_execution()
    state.apply(events.ExecutionEnded(execution="e1", status="ENDED_CANCELLED"), AT)
    with pytest.raises(lifecycle.IllegalTransition):
        state.apply(events.ExecutionEnded(execution="e1", status="ENDED_ERROR"), AT)


def test_every_event_survives_being_written_and_read():
    written = events.CallEnded(
        execution="e1",
        call=2,
        kind="get",
        args=msgspec.Raw(b"[1]"),
        result=msgspec.Raw(b'{"k":null}'),
        failure=events.Failure(type="X", message="y"),
    )
    read = msgspec.json.decode(msgspec.json.encode(written), type=events.AnyEvent)
    assert (bytes(read.args), bytes(read.result), read.failure) == (b"[1]", b'{"k":null}', written.failure)
    bare = msgspec.json.decode(b'{"event":"call.ended","execution":"e","call":1}', type=events.AnyEvent)
    assert bare.result is msgspec.UNSET


def test_a_flow_that_is_not_there_is_answered_with_the_nearest_names():
    flow = model.Flow(id="f1", name="deploy", path="deploy.py", commit="c", blob="b")
    catalogue = model.Catalogue(flows={"deploy": flow})
    assert catalogue.find("deploy") is catalogue.find("f1")
    with pytest.raises(errors.NotFound, match="no flow 'deplyo'") as caught:
        catalogue.find("deplyo")
    assert "deploy" in caught.value.hint


def test_the_first_effect_of_its_own_is_kept():
    state = an_execution(on_interrupt="restart")
    first = events.EffectNoticed(execution="e1", effect="open", detail="report.txt", file="hello.py", line=3, call=2)
    state.apply(first, AT)
    state.apply(events.EffectNoticed(execution="e1", effect="os.remove"), "later")
    assert (state.effect, state.effect_at, state.on_interrupt) == (first, AT, "restart")
