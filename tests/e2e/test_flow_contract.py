"""What a flow may rely on, tried on the real daemon."""

import datetime

import pytest

from headrace.engine.guest import exceptions

CHILD = """
import flow_api
def handler(system, this, inputs):
    this.set_output('got', inputs)
    if inputs.get('sleep'):
        this.sleep(inputs['sleep'])
    if inputs.get('fail'):
        raise ValueError(inputs['fail'])
    return this.success('child done')
"""


@pytest.fixture(scope="module")
def daemon(workshop):
    workshop.flow("child", CHILD)
    return workshop.daemon


@pytest.fixture
def run(workshop, daemon, request):
    """Write a handler's body as a flow of its own, run it and return the ended execution."""

    def run(body, name=None, **inputs):
        name = name or request.node.name[:60].replace("[", " ").replace("]", "")
        lines = "\n".join("    " + line for line in body.strip("\n").splitlines())
        workshop.flow(name, f"import flow_api\ndef handler(system, this, inputs):\n{lines}\n")
        return daemon.run(name, **inputs)

    return run


def test_a_handler_with_two_parameters_finds_its_inputs_too(workshop, daemon):
    workshop.flow(
        "two", "def handler(system, this):\n    return [this.get('input_value'), system.get('input_value')]\n"
    )
    assert daemon.run("two", a=1)["output_value"] == [{"a": 1}, {"a": 1}]


def test_inputs_are_merged_from_all_the_ways_of_giving_them(run):
    ended = run(
        "return this.flow('child', {'a': 1}, input_value={'b': 2}, name='shown', c=3).get('output_value', 'name')"
    )
    assert ended["output_value"] == [{"got": {"a": 1, "b": 2, "c": 3}}, "shown"]


def test_a_failing_child_raises_what_can_be_caught_with_its_execution(run):
    ended = run("""
try:
    this.flow('child', fail='no luck')
except flow_api.DependencyFailedError as error:
    return [error.execution.get('status', 'message', 'output_value'), repr(error).split('(')[0]]
""")
    assert ended["output_value"] == [
        ["ENDED_ERROR", "ValueError: no luck", {"got": {"fail": "no luck"}}],
        "DependencyFailedError",
    ]


def test_a_failing_child_that_nobody_catches_fails_its_parent_with_a_traceback_of_the_flow_alone(run):
    ended = run("this.flow('child', fail='no luck')", name="uncaught")
    assert ended["status"] == "ENDED_ERROR"
    assert "child" in ended["message"] and "no luck" in ended["message"]
    assert ended["error"]["file"] == "uncaught.py" and ended["error"]["line"] == 3
    assert "guest" not in ended["error"]["traceback"] and "this.flow('child'" in ended["error"]["traceback"]


def test_waiting_for_an_end_of_either_kind_never_raises(run):
    ended = run("return this.flow('child', fail='x', wait=system.return_when.ALL_ENDED).get('status')")
    assert ended["output_value"] == "ENDED_ERROR"


def test_children_started_without_waiting_run_at_the_same_time_and_handles_stay_current(run):
    ended = run("""
children = [this.flow('child', sleep=0.5, n=n, wait=False) for n in range(4)]
early = [child.get('status') for child in children]
this.wait_for(children)
return [early, [child.get('status') for child in children], [c.get('output_value')['got']['n'] for c in children]]
""")
    early, late, numbers = ended["output_value"]
    assert set(early) <= {"QUEUED", "RUNNING", "WAITING"} and set(late) == {"ENDED_SUCCESS"} and numbers == [0, 1, 2, 3]
    took = datetime.datetime.fromisoformat(ended["ended_at"]) - datetime.datetime.fromisoformat(ended["started_at"])
    assert took.total_seconds() < 1.9  # one after the other would take 2 s


@pytest.mark.parametrize(
    ("return_when", "expected"),
    [("FIRST_ENDED", ["quick"]), ("FIRST_SUCCEEDED", ["bad", "quick"]), ("ALL_ENDED", ["slow", "bad", "quick"])],
)
def test_waiting_for_several_returns_those_that_have_ended(run, return_when, expected):
    fails = {"FIRST_SUCCEEDED": 0.05, "FIRST_ENDED": 1.5, "ALL_ENDED": 0.4}[return_when]
    ended = run(f"""
slow = this.flow('child', sleep=1, name='slow', wait=False)
bad = this.flow('child', sleep={fails}, fail='x', name='bad', wait=False)
quick = this.flow('child', sleep=0.2, name='quick', wait=False)
return [e.get('name') for e in this.wait_for(slow, bad, quick, return_when=system.return_when.{return_when})]
""")
    assert ended["output_value"] == expected


def test_waiting_too_long_raises_and_the_child_goes_on(run, daemon):
    ended = run("""
child = this.flow('child', sleep=1, wait=False)
try:
    child.wait(timeout=0.1)
except flow_api.TimeoutExceededError as error:
    return [type(error).__name__, child.id]
""")
    name, child = ended["output_value"]
    assert name == "DependencyTimeoutError"
    assert daemon.client.wait(child)["status"] == "ENDED_SUCCESS"


def test_an_empty_list_is_waited_for_at_once(run):
    assert run("return this.wait_for()")["output_value"] == []


def test_a_child_can_be_created_now_and_run_later_and_running_an_ended_one_does_nothing(run):
    ended = run("""
child = this.flow('child', run=False)
before = child.get('status')
child.run()
return [before, child.get('status'), child.run().get('status')]
""")
    assert ended["output_value"] == ["NEW", "ENDED_SUCCESS", "ENDED_SUCCESS"]


def test_a_child_that_was_never_run_does_not_stay_behind(run, daemon):
    ended = run("return this.flow('child', run=False).id")
    assert daemon.client.wait(ended["output_value"])["status"] == "ENDED_CANCELLED"


def test_run_async_starts_without_waiting(run):
    ended = run("""
child = this.flow('child', sleep=0.3, run=False).run_async()
early = child.get('status')
return [early in ('QUEUED', 'RUNNING', 'WAITING'), child.wait().get('status')]
""")
    assert ended["output_value"] == [True, "ENDED_SUCCESS"]


def test_a_child_can_be_cancelled(run):
    ended = run("""
child = this.flow('child', sleep=60, wait=False)
child.cancel()
child.wait(return_when=system.return_when.ALL_ENDED)
return child.get('status')
""")
    assert ended["output_value"] == "ENDED_CANCELLED"


def test_outputs_are_set_key_by_key_and_whole(run):
    ended = run("""
this.set_output('a', 1)
this.set_output(b=2, c={'d': None})
first = this.get('output_value')
this.save(output_value={'only': first})
this.set_output('a', 3)
""")
    assert ended["output_value"] == {"only": {"a": 1, "b": 2, "c": {"d": None}}, "a": 3}


def test_a_return_value_becomes_the_output_only_if_none_was_set(run):
    assert run("return {'x': 1}")["output_value"] == {"x": 1}
    assert run("this.set_output('y', 2)\nreturn {'x': 1}")["output_value"] == {"y": 2}


def test_a_return_value_that_is_not_json_is_told_and_does_no_harm(run, daemon):
    ended = run("return object()")
    assert (ended["status"], ended["output_value"]) == ("ENDED_SUCCESS", {})
    assert "cannot be written as JSON" in list(daemon.client.log(ended["id"]))[0]["text"]


def test_set_stays_in_the_handle_until_it_is_saved(run):
    ended = run("""
this.set(message='mine')
seen = [this.get('message'), this.load('message')]
this.set(message='mine').save()
return seen + [this.load('message'), this.get('status_message')]
""")
    assert ended["output_value"] == ["mine", "", "mine", "mine"]


def test_marks_count_when_the_handler_returns_and_the_last_one_wins(run):
    marked = run(
        "this.error('first')\ntry:\n    this.success('second')\nexcept BaseException:\n    pass\nthis.log('on')"
    )
    assert (marked["status"], marked["message"]) == ("ENDED_SUCCESS", "second")
    failed = run("this.success('fine')\nreturn this.error('in the end not')")
    assert (failed["status"], failed["message"]) == ("ENDED_ERROR", "in the end not")
    raised = run("this.success('fine')\nraise KeyError('x')")
    assert (raised["status"], raised["message"]) == ("ENDED_ERROR", "KeyError: 'x'")


def test_logs_keep_values_labels_levels_and_what_is_not_json(run, daemon):
    ended = run("""
this.log('text', 1, {'k': [None]}, answer=42)
this.logln(object, level='warning')
print('printed ä \\x1b[31mred\\x1b[0m')
import subprocess, sys
sys.stdout.flush()
subprocess.run(['sh', '-c', 'echo from a subprocess; echo to stderr >&2'])
""")
    lines = list(daemon.client.log(ended["id"]))
    assert (lines[0]["args"], lines[0]["kwargs"], lines[0]["text"]) == (
        ["text", 1, {"k": [None]}],
        {"answer": 42},
        'text 1 {"k": [null]} answer=42',
    )
    assert lines[1]["level"] == "WARNING" and lines[1]["args"] == ["<class 'object'>"]
    streams = [(line["stream"], line["text"]) for line in lines[2:]]
    assert ("stderr", "to stderr") in streams
    assert "printed ä \x1b[31mred\x1b[0m\nfrom a subprocess" in "\n".join(t for s, t in streams if s == "stdout")


def test_what_is_printed_keeps_its_place_among_the_calls(run, daemon):
    ended = run("print('one')\nthis.log('two')\nprint('three')\nthis.set_output('x', 1)\nprint('four')")
    assert [line["text"] for line in daemon.client.log(ended["id"])] == ["one", "two", "three", "four"]


def test_helper_modules_are_importable_and_cannot_shadow_the_standard_library(workshop, daemon):
    workshop.write("json.py", "raise SystemExit('shadowed')\n")
    workshop.write("my/helper.py", "def words():\n    return 'from the helper'\n")
    workshop.flow(
        "imports", "import json\nfrom my.helper import words\ndef handler(system, this):\n    return words()\n"
    )
    ended = daemon.run("imports")
    assert (ended["status"], ended["output_value"]) == ("ENDED_SUCCESS", "from the helper")


def test_globals_start_fresh_in_a_warm_process(workshop, daemon):
    workshop.flow("counts", "seen = []\ndef handler(system, this):\n    seen.append(1)\n    return len(seen)\n")
    assert [daemon.run("counts")["output_value"] for _ in range(3)] == [1, 1, 1]


def test_a_process_that_left_something_behind_is_not_used_again(workshop, daemon):
    text = "import os, {module}\ndef handler(system, this):\n    {act}\n    return os.getpid()\n"
    for name, module, act in (
        ("thread", "threading, time", "threading.Thread(target=time.sleep, args=(60,), daemon=True).start()"),
        ("folder", "os", "os.chdir('/')"),
        ("environ", "os", "os.environ['X'] = 'y'"),
        ("child process", "subprocess", "subprocess.Popen(['sleep', '600'])"),
    ):
        workshop.flow(name, text.format(module=module, act=act))
        assert len({daemon.run(name)["output_value"] for _ in range(3)}) == 3, name
    workshop.flow("clean", text.format(module="os", act="pass"))
    assert len({daemon.run("clean")["output_value"] for _ in range(3)}) == 1


def test_every_exception_of_the_contract_is_importable_both_ways(run):
    names = [name for name in exceptions.__all__ if name != "CloudomationException"]
    ended = run(f"""
from flow_api import exceptions
from flow_api.exceptions import LockTimeoutError
names = {names!r}
assert issubclass(LockTimeoutError, flow_api.TimeoutExceededError)
assert not issubclass(flow_api.ExecutionCancel, Exception)
return all(getattr(flow_api, n) is getattr(exceptions, n) for n in names) and flow_api.CloudomationException.__name__
""")
    assert ended["output_value"] == "EngineException"


@pytest.mark.parametrize(
    ("body", "kind", "words"),
    [
        ("this.flow('no such flow')", "ResourceNotFoundError", "there is no flow 'no such flow'"),
        ("this.task('NOSUCH')", "ResourceNotFoundError", "NOSUCH"),
        ("this.task('REST')", "MissingInputError", "url"),
        ("this.task('REST', url='http://127.0.0.1:1', nonsense=1)", "ExtraInputError", "nonsense"),
        ("this.task('REST', url=7)", "InvalidInputError", "url"),
        ("this.flow('child', inputs='text')", "InvalidInputError", "inputs are a dict"),
        ("this.flow('child', what=object())", "InvalidInputError", "cannot be written as JSON"),
        ("this.flow('child', wait='soon')", "InvalidInputError", "ALL_ENDED"),
        ("this.flow('child', init={'colour': 'red'})", "InvalidInputError", "init has no 'colour'"),
        ("this.get('no field')", "InvalidInputError", "no field 'no field'"),
        ("this.save(status='ENDED_SUCCESS')", "InvalidInputError", "cannot be saved"),
        ("this.sleep(-1)", "InvalidInputError", "0 or more"),
        ("this.log('x', level='LOUD')", "InvalidInputError", "LOUD"),
        ("this.wait()", "InvalidInputError", "cannot wait for itself"),
        ("system.execution('nope').get('status')", "ResourceNotFoundError", "nope"),
        ("this.flow('child').save(message='late')", "InvalidInputError", "has ended"),
        (
            "import threading\nfound = []\ndef work():\n    try:\n        this.log('x')\n    except Exception as e:\n"
            "        found.append(e)\nt = threading.Thread(target=work)\nt.start()\nt.join()\nraise found[0]",
            "InternalError",
            "own thread",
        ),
    ],
)
def test_wrong_calls_raise_what_says_how_to_mend_them(run, body, kind, words):
    ended = run(body, name="wrong call")
    assert ended["status"] == "ENDED_ERROR"
    assert ended["error"]["type"] == kind and words in ended["message"], ended["message"]


def test_a_flow_that_calls_itself_without_end_is_stopped(workshop, daemon):
    workshop.flow(
        "deeper", "def handler(system, this, inputs):\n    return this.flow('deep', n=1).get('output_value')\n"
    )
    workshop.flow(
        "deep",
        "def handler(system, this, inputs):\n    n = inputs['n']\n"
        "    return n if n == 50 else this.flow('deep', n=n + 1).get('output_value')\n",
    )
    assert daemon.run("deep", n=1)["output_value"] == 50


def test_every_call_is_in_the_record_with_its_number(run, daemon):
    ended = run("""
this.log('one')
child = this.flow('child')
child.get('status')
this.get('status')
this.set_output('x', 1)
this.sleep(0)
""")
    lines = daemon.record(ended["id"])
    numbered = [(line["call"], line["event"], line.get("kind", "")) for line in lines if "call" in line]
    assert numbered == [
        (1, "log.written", ""),
        (2, "call.started", "flow"),
        (2, "call.ended", ""),
        (3, "call.ended", "get"),
        (4, "execution.saved", "set_output"),
        (5, "call.started", "sleep"),
        (5, "call.ended", ""),
    ]
    assert lines[0]["event"] == "execution.created" and lines[-1]["event"] == "execution.ended"


def test_large_values_travel_whole_and_stay_out_of_the_journal(run, daemon):
    ended = run("""
child = this.flow('child', blob='x' * 300_000)
this.log('y' * 200_000)
this.set_output('big', child.get('output_value')['got']['blob'] + 'z')
return len(child.get('output_value')['got']['blob'])
""")
    assert len(ended["output_value"]["big"]) == 300_001
    assert len(list(daemon.client.log(ended["id"]))[0]["text"]) == 200_000
    assert max(len(str(line)) for line in daemon.record(ended["id"])) < 10_000


def test_a_value_over_the_hard_limit_is_a_clear_error(run):
    ended = run("this.set_output('big', 'x' * (66 * 1024 * 1024))")
    assert ended["error"]["type"] == "InvalidInputError" and "too large" in ended["message"]


def test_text_that_utf8_cannot_hold_and_huge_numbers_do_no_harm(run):
    ended = run("this.set_output('odd', 'a\\ud800b')\nthis.set_output('big', 10**40)\nprint('\\udcff')")
    assert ended["output_value"] == {"odd": "a?b", "big": 10**40}


def test_leaving_by_sys_exit_is_an_error_with_a_name(run):
    ended = run("import sys\nsys.exit(3)")
    assert (ended["status"], ended["error"]["type"]) == ("ENDED_ERROR", "SystemExit")


def test_dying_without_a_word_is_told_as_what_it_was(run):
    died = run("import os, signal\nos.kill(os.getpid(), signal.SIGSEGV)")
    assert died["message"].startswith("interrupted: the flow process was killed by SIGSEGV; it is not run again")
