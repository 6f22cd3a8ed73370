"""Spans as they follow from events alone: whoever folds the same record gets the same spans."""

import itertools

import msgspec
import pytest

from headrace.daemon import span_exporter, spans
from headrace.engine import events, policy, traces

TRACING = traces.Tracing(1.0)


def at(n):
    return f"2026-11-28T10:00:{n:02}.000000+00:00"


def recorded(told):
    return [events.Recorded(n, at(n), event, 1, 0, 0) for n, event in enumerate(told, 1)]


def created(execution, **more):
    begun = more.pop("traceparent", TRACING.begun(execution))
    return events.ExecutionCreated(execution=execution, flow_name="f", path="f.py", traceparent=begun, **more)


def fold(told):
    state = spans.Spans()
    return list(itertools.chain.from_iterable(state.take(line) for line in recorded(told)))


def names(told):
    return [span.name for span in fold(told)]


LONG = [
    created("a"),
    events.ExecutionStarted(execution="a"),
    events.CallStarted(execution="a", call=1, kind="sleep", waits=True),
    events.ExecutionHibernated(execution="a"),
    events.ExecutionStarted(execution="a", attempt=2),
    events.CallEnded(execution="a", call=1),
    events.CallStarted(execution="a", call=2, kind="flow", target="g", children=("b",), where="f.py:7"),
    created("b", parent="a", parent_call=2, traceparent=traces.onward(TRACING.begun("a"), "a")),
    events.ExecutionRestarted(execution="a", by="admin"),
    events.ExecutionStarted(execution="a"),
    events.CallStarted(execution="a", call=1, kind="wait", children=("b",), waits=True),
    events.ExecutionEnded(execution="b", status="ENDED_SUCCESS"),
    events.CallEnded(execution="a", call=1),
    events.ExecutionEnded(execution="a", status="ENDED_CANCELLED", reason="x"),
]


def test_a_life_with_all_its_turns_is_told_by_events_and_calls_of_each_generation_have_spans_of_their_own():
    first, cut, child, second, own = fold(LONG)
    assert [one.name for one in (first, cut, child, second, own)] == ["sleep", "flow g", "flow f", "wait", "flow f"]
    assert [one.name for one in own.events] == [
        *("execution.started", "execution.hibernated", "execution.started", "execution.restarted", "execution.started"),
    ]
    assert own.events[2].attributes == {"headrace.attempt": 2}
    assert (own.failed, own.attributes["headrace.execution.generation"]) == (None, 2)
    assert {first.span, second.span} == {traces.span_of_call("a", 1, 1), traces.span_of_call("a", 2, 1)}
    assert (cut.description, cut.failed) == ("the execution began anew", None)
    assert cut.attributes["code.line.number"] == 7
    assert (child.parent, child.remote, child.failed) == (cut.span, False, False)
    assert second.links == [spans.Link(own.trace, child.span, "waits for")]
    assert (own.parent, own.began, own.ended) == ("", at(1), at(14))


def test_a_record_that_was_carried_goes_on_with_the_spans_it_had():
    plain = fold(LONG)
    for cut in range(1, len(LONG)):
        state = spans.Spans()
        lines = recorded(LONG)
        found = [span for line in lines[:cut] for span in state.take(line)]
        for execution in ("a", "b"):
            its = [one for one in lines[:cut] if one.event.execution == execution]
            told = tuple(
                events.CarriedLine(one.seq, one.at, msgspec.Raw(msgspec.json.encode(one.event))) for one in its
            )
            if its and not any(isinstance(one.event, events.ExecutionEnded) for one in its):
                for last, part in ((False, told[:1]), (True, told[1:])):
                    event = events.ExecutionCarried(execution=execution, carry="c", last=last, lines=part)
                    assert state.take(events.Recorded(100, at(50), event, 2, 0, 0)) == []
        found += [span for line in lines[cut:] for span in state.take(line)]
        assert [(one.span, one.parent, one.events) for one in found] == [
            (one.span, one.parent, one.events) for one in plain
        ]


def test_what_nobody_keeps_or_nobody_began_has_no_span():
    end = events.ExecutionEnded(execution="a", status="ENDED_SUCCESS")
    call = events.CallStarted(execution="a", call=1, kind="sleep"), events.CallEnded(execution="a", call=1)
    for begun in ("", traces.Tracing(0.0).begun("a")):
        assert fold([created("a", traceparent=begun), *call, end]) == []
    assert fold([*call, end]) == []  # an execution of before the journal's beginning


def test_a_schedule_a_flow_that_is_told_and_a_repetition_say_what_they_are():
    tick = created("a", terms=policy.Terms(schedule="s", due=at(0), tags=("x",), retry=1, retry_of="z"))
    told = created("b", traceparent=traces.onward(TRACING.begun("a"), "a"), terms=policy.Terms(follows="a"))
    trace = "00-" + "1" * 32 + "-" + "2" * 16 + "-01"
    again = created("c", terms=policy.Terms(rerun_of="y", rerun_trace=trace))
    ends = [events.ExecutionEnded(execution=one, status="ENDED_SUCCESS") for one in "abc"]
    a, b, c = fold([tick, told, again, *ends])
    assert (a.kind, a.attributes["faas.trigger"], a.attributes["faas.time"]) == ("internal", "timer", at(0))
    assert (a.attributes["headrace.tags"], a.attributes["headrace.retry"]) == (["x"], 1)
    assert [link.why for link in (*a.links, *b.links, *c.links)] == ["retry of", "follows", "rerun of"]
    assert (b.trace, b.parent, b.remote, "faas.trigger" in b.attributes) == (a.trace, a.span, False, False)
    assert c.links == [spans.Link("1" * 32, "2" * 16, "rerun of")]
    assert c.kind == "server"


@pytest.mark.parametrize(
    ("inputs", "said"),
    [
        ({"url": "http://u:p@h.example/a?key=k#f", "method": "post"}, ("POST", "http://***@h.example/a", 80)),
        ({"url": "https://h.example:8443/"}, ("GET", "https://h.example:8443/", 8443)),
        ({"url": "http://h.example:99999/"}, ("GET", None, None)),
        ({"url": 7}, (None, None, None)),
        (["masked"], (None, None, None)),
    ],
)
def test_a_request_is_described_without_what_is_nobodys_business(inputs, said):
    task = events.ExecutionCreated(
        execution="t",
        type="TASK",
        task="REST",
        traceparent=TRACING.begun("t"),
        inputs=msgspec.Raw(msgspec.json.encode(inputs)),
    )
    (span,) = fold([task, events.ExecutionEnded(execution="t", status="ENDED_SUCCESS")])
    found = span.attributes
    assert (found.get("http.request.method"), found.get("url.full"), found.get("server.port")) == said
    assert span.kind == "client"


def test_events_beyond_the_limit_are_counted():
    many = [events.ExecutionStarted(execution="a", attempt=n) for n in range(spans.EVENTS_MAX + 5)]
    state = spans.Spans()
    for line in [created("a"), *many]:
        state.take(events.Recorded(1, at(1), line, 1, 0, 0))
    (own,) = state.take(events.Recorded(2, at(0), events.ExecutionEnded(execution="a", status="ENDED_ERROR"), 1, 0, 0))
    assert (len(own.events), own.events_dropped, own.failed) == (spans.EVENTS_MAX, 5, True)
    assert own.ended == own.began  # the clock was put back


def test_the_mark_of_another_journal_or_of_one_that_was_longer_is_not_believed(tmp_path):
    def begin(mark, instance, seq):
        (tmp_path / span_exporter.FILE_NAME).write_text(mark)
        counted = []
        setting = msgspec.convert({"endpoint": "http://127.0.0.1:9/v1/traces"}, span_exporter.tracing.Export)
        made = span_exporter.SpanExporter(setting, tmp_path, "", lambda *told: counted.append(told))
        for line in recorded(LONG):
            made.visit(line)
        waiting = made.waiting
        made.begin(instance, seq)
        kept = made.waiting
        made.close()
        return waiting, kept, msgspec.json.decode((tmp_path / span_exporter.FILE_NAME).read_bytes())

    good = '{"instance":"j","seq":6}'
    assert begin(good, "j", 14) == (4, 4, {"instance": "j", "seq": 6})
    assert begin(good, "other", 14) == (4, 0, {"instance": "other", "seq": 14})
    assert begin('{"instance":"j","seq":15}', "j", 14)[1:] == (0, {"instance": "j", "seq": 14})
    assert begin("{torn", "j", 14) == (0, 0, {"instance": "j", "seq": 14})
