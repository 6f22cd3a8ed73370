"""How a handler ends, and what it leaves."""

from __future__ import annotations

import pytest


def end(ended):
    return ended["status"], ended["message"]


@pytest.mark.contract("2.outcome.marks")
@pytest.mark.parametrize(
    ("body", "expected"),
    [
        ("this.success('well done')", ("ENDED_SUCCESS", "well done")),
        ("return this.success(message='well done')", ("ENDED_SUCCESS", "well done")),
        ("this.error('the disk is full')", ("ENDED_ERROR", "the disk is full")),
        ("this.success()", ("ENDED_SUCCESS", "")),
        ("this.error({'code': 7})", ("ENDED_ERROR", "{'code': 7}")),
    ],
)
def test_a_handler_marks_how_it_ends(run, body, expected):
    assert end(run(body)) == expected


@pytest.mark.contract("2.outcome.marks")
def test_a_mark_needs_no_message(run):
    assert run("this.error()")["status"] == "ENDED_ERROR"


@pytest.mark.contract("2.outcome.returns")
def test_no_except_swallows_a_mark_and_no_finally_is_cut_short(workshop, run):
    ended = run("""
try:
    this.error('marked')
    print('goes on')
except BaseException:
    print('never here')
finally:
    this.flow('child', n=1)
    this.set_output('finally', this.get('status'))
return
""")
    assert end(ended) == ("ENDED_ERROR", "marked")
    assert ended["output_value"] == {"finally": "RUNNING"}
    assert [line["text"] for line in workshop.log(ended["id"])] == ["goes on"]


@pytest.mark.contract("2.outcome.last")
def test_the_last_mark_wins(run):
    assert end(run("this.error('first')\nthis.success('second')")) == ("ENDED_SUCCESS", "second")
    assert end(run("this.success('first')\nthis.error('second')")) == ("ENDED_ERROR", "second")


@pytest.mark.contract("2.outcome.exception")
def test_an_exception_wins_over_a_mark(run):
    assert end(run("this.success('fine')\nraise KeyError('x')")) == ("ENDED_ERROR", "KeyError: 'x'")


@pytest.mark.contract("2.outcome.unmarked")
@pytest.mark.parametrize("body", ["pass", "return", "return None", "return 7"])
def test_a_handler_that_just_returns_has_succeeded(run, body):
    assert end(run(body)) == ("ENDED_SUCCESS", "")


@pytest.mark.contract("2.outcome.return-value")
@pytest.mark.parametrize("result", [{"x": 1}, [1, "a", None], "text", 0, False, 1.5])
def test_a_return_value_becomes_the_output_if_none_was_set(run, result):
    assert run("return inputs['result']", result=result)["output_value"] == result


@pytest.mark.contract("2.outcome.return-value")
def test_a_return_value_does_not_replace_what_was_set(run):
    assert run("this.set_output('y', 2)\nreturn {'x': 1}")["output_value"] == {"y": 2}
    assert run("this.append_output('y', 2)\nreturn {'x': 1}")["output_value"] == {"y": [2]}
    assert run("this.save(output_value={'y': 2})\nreturn {'x': 1}")["output_value"] == {"y": 2}


@pytest.mark.contract("2.outcome.return-value")
@pytest.mark.parametrize(
    "body", ["return this.success('m')", "return this", "return this.log('x')", "return this.sleep(0)"]
)
def test_what_our_calls_return_is_no_output(run, body):
    ended = run(body)
    assert (ended["status"], ended["output_value"]) == ("ENDED_SUCCESS", {})


@pytest.mark.contract("2.outcome.return-value")
def test_a_return_value_that_is_not_json_does_no_harm_and_is_told(workshop, run):
    ended = run("return object()")
    assert (ended["status"], ended["output_value"]) == ("ENDED_SUCCESS", {})
    assert "cannot be written as JSON" in workshop.log(ended["id"])[0]["text"]


@pytest.mark.contract("2.outcome.traceback")
def test_an_exception_is_told_with_its_last_line_and_the_traceback_of_the_flow_alone(workshop):
    workshop.write("shared_words/speaking.py", 'def speak(loud):\n    raise ValueError("first line\\nlast line")\n')
    workshop.flow(
        "folder/speaks up",
        "from shared_words.speaking import speak\n\n\ndef handler(system, this):\n    try:\n"
        "        this.flow('child', fail='x')\n    finally:\n        speak(True)\n",
    )
    ended = workshop.ended(workshop.daemon.client.run("folder/speaks up")["id"])
    error = ended["error"]
    assert end(ended) == ("ENDED_ERROR", "last line")
    assert (error["type"], error["file"], error["line"]) == ("ValueError", "shared_words/speaking.py", 2)
    assert 'File "folder/speaks up.py", line 8, in handler' in error["traceback"]
    assert 'File "shared_words/speaking.py", line 2, in speak' in error["traceback"]
    assert "DependencyFailedError" in error["traceback"]
    assert "guest" not in error["traceback"] and str(workshop.folder) not in error["traceback"]
    assert "snapshots" not in error["traceback"]


@pytest.mark.contract("2.outcome.traceback")
@pytest.mark.parametrize(
    ("body", "kind"),
    [("import sys\nsys.exit(3)", "SystemExit"), ("raise KeyboardInterrupt", "KeyboardInterrupt")],
)
def test_whatever_leaves_the_handler_is_an_error_with_a_name(run, body, kind):
    ended = run(body)
    assert (ended["status"], ended["error"]["type"]) == ("ENDED_ERROR", kind)


@pytest.mark.contract("2.outcome.traceback", "2.failed.output-dict")
def test_what_was_set_before_a_failure_stays(run):
    ended = run("this.set_output('a', 1)\nthis.save(message='half way')\nraise ValueError('no')")
    assert (ended["output_value"], ended["message"]) == ({"a": 1}, "ValueError: no")
