"""The exceptions a flow may meet."""

from __future__ import annotations

import pytest

NAMES = (
    "EngineException", "CloudomationException", "InternalError", "PermissionDenied", "ResourceNotFoundError",
    "DependencyFailedError", "MissingInputError", "InvalidInputError", "ExtraInputError", "SchemaValidationError",
    "TimeoutExceededError", "LockTimeoutError", "DependencyTimeoutError", "MessageResponseTimeoutError",
    "ReplayDivergedError", "OutcomeUnknownError", "LifecycleSignal", "ExecutionCancel",
)  # fmt: skip
TIMEOUTS = ("LockTimeoutError", "DependencyTimeoutError", "MessageResponseTimeoutError")
SIGNALS = ("LifecycleSignal", "ExecutionCancel")


@pytest.mark.contract("4.names")
def test_every_exception_is_importable_from_both_places(value):
    assert value(
        """
import flow_api.exceptions as module
from flow_api import exceptions
from flow_api.exceptions import LockTimeoutError
assert module is exceptions and LockTimeoutError is flow_api.LockTimeoutError
return [getattr(flow_api, name) is getattr(exceptions, name) for name in inputs['names']]
""",
        names=NAMES,
    ) == [True] * len(NAMES)


@pytest.mark.contract("4.tree", "4.timeouts", "4.signals")
def test_exceptions_derive_from_one_another_as_they_say(value):
    assert value(
        """
kinds = {name: getattr(flow_api, name) for name in inputs['names']}
assert flow_api.CloudomationException is flow_api.EngineException
return {name: [issubclass(kind, Exception), issubclass(kind, flow_api.EngineException),
               issubclass(kind, flow_api.TimeoutExceededError), issubclass(kind, flow_api.LifecycleSignal),
               issubclass(kind, BaseException)] for name, kind in kinds.items()}
""",
        names=NAMES,
    ) == {
        name: [
            name not in SIGNALS,
            name not in SIGNALS,
            name in ("TimeoutExceededError", *TIMEOUTS),
            name in SIGNALS,
            True,
        ]
        for name in NAMES
    }


@pytest.mark.contract("4.repr")
def test_a_repr_begins_with_the_class_and_tells_what_failed(value):
    assert (
        value("""
told = []
for call in (lambda: this.flow('no such flow'), lambda: this.flow('child', fail='no luck', name='the unlucky'),
             lambda: this.sleep(-1), lambda: system.setting('no such setting').get('value')):
    try:
        call()
    except flow_api.EngineException as error:
        told.append([repr(error).startswith(type(error).__name__), repr(error)])
return [told[0][0] and 'no such flow' in told[0][1], told[1][0] and 'the unlucky' in told[1][1]
        and 'no luck' in told[1][1], told[2][0], told[3][0] and 'no such setting' in told[3][1]]
""")
        == [True] * 4
    )


@pytest.mark.contract("4.raised.DependencyFailedError")
def test_a_failure_goes_up_the_generations_with_its_words(workshop, run):
    ended = run("""
if inputs.get('depth', 0) == 2:
    raise ValueError('at the bottom')
this.clone(depth=inputs.get('depth', 0) + 1)
""")
    assert ended["status"] == "ENDED_ERROR"
    assert ended["error"]["type"] == "DependencyFailedError"
    assert "at the bottom" in ended["message"]


@pytest.mark.contract("4.raised.ResourceNotFoundError")
@pytest.mark.parametrize(
    "call",
    [
        "this.flow('no such thing')",
        "this.task('no such thing')",
        "this.connect('no such thing')",
        "system.execution('no such thing').get('status')",
        "system.execution('no such thing').wait()",
        "system.execution('no such thing').cancel()",
        "system.setting('no such thing').get('value')",
        "system.flow('no such thing').get('script')",
        "system.message('no such thing').get('response')",
        "system.message('no such thing').wait()",
        "system.user('no such thing').get('name', 'id')",
    ],
)
def test_what_does_not_exist_is_told_by_its_name(refused, call):
    message = refused(call, "ResourceNotFoundError")
    assert "no such thing" in message.lower()


@pytest.mark.contract("4.raised.ResourceNotFoundError")
def test_near_names_are_told(refused):
    assert "child" in refused("this.flow('chidl')", "ResourceNotFoundError")


@pytest.mark.contract("4.raised.InvalidInputError")
@pytest.mark.parametrize(
    ("call", "words"),
    [
        ("this.flow('child', inputs='text')", "inputs are a dict"),
        ("this.flow('child', what=object())", "JSON"),
        ("this.flow('child', init={'colour': 'red'})", "colour"),
        ("this.flow(7)", "7"),
        ("this.script(7)", "int"),
        ("this.flow('child').save(message='late')", "ended"),
        ("this.flow('child', protect_inputs=[1])", "list of names"),
        ("this.flow('child', save=False).wait()", "template"),
        ("this.message('Hi', body=[1])", "list"),
        ("system.message(subject='Hi', message_type='LOUD', message='x')", "LOUD"),
        ("this.webhook_response(200, body=1)", "text or bytes"),
    ],
)
def test_an_argument_that_cannot_be_used_is_told(refused, call, words):
    assert words in refused(call, "InvalidInputError")


@pytest.mark.contract("4.raised.PermissionDenied")
@pytest.mark.parametrize(
    "call", ["this.flow('child', run=False).success('for another')", "system.execution(this.id).error('not this')"]
)
def test_what_a_flow_may_not_do_is_told(refused, call):
    refused(call, "PermissionDenied")


@pytest.mark.contract("4.raised.InvalidInputError")
def test_a_refused_call_leaves_the_flow_as_it_was(value):
    assert value("""
for _ in range(20):
    try:
        this.flow('child', what=object())
    except flow_api.InvalidInputError:
        pass
return this.flow('child', n=1).get('output_value')['got']
""") == {"n": 1}


# -- tasks refuse before anything is sent -----------------------------------------------------------------------------


@pytest.mark.contract("8.refused.missing", "8.refused.invalid", "8.refused.extra")
@pytest.mark.parametrize(
    ("inputs", "kind", "words"),
    [
        ({}, "MissingInputError", "url"),
        ({"url": 7}, "InvalidInputError", "url"),
        ({"url": "URL", "method": ["get"]}, "InvalidInputError", "method"),
        ({"url": "URL", "timeout": "soon"}, "InvalidInputError", "timeout"),
        ({"url": "URL", "retry_backoff": {"initial": -1}}, "InvalidInputError", "retry_backoff"),
        ({"url": "URL", "nonsense": 1}, "ExtraInputError", "nonsense"),
    ],
)
def test_wrong_inputs_of_a_task_are_told_before_anything_is_sent(workshop, refused, loopback, inputs, kind, words):
    sent = len(loopback.seen)
    given = {key: loopback.url if text == "URL" else text for key, text in inputs.items()}
    assert words in refused("this.task('REST', inputs['given'])", kind, given=given)
    assert len(loopback.seen) == sent


@pytest.mark.contract("8.refused.missing")
def test_a_task_that_was_refused_leaves_no_execution(workshop, run):
    ended = run("try:\n    this.task('REST')\nexcept flow_api.MissingInputError:\n    return 'told'")
    assert ended["output_value"] == "told"
    assert workshop.children(ended["id"]) == []


# -- what all tasks take ----------------------------------------------------------------------------------------------


@pytest.mark.contract("8.common.timeout")
def test_a_task_that_takes_too_long_is_ended(value, loopback):
    status, message = value(
        "return this.task('REST', url=inputs['url'], timeout=0.3, wait='ALL_ENDED').get('status', 'message')",
        url=f"{loopback.url}/slow/20",
    )
    assert status == "ENDED_ERROR"
    assert "0.3" in message


@pytest.mark.contract("8.common.retry-backoff")
def test_a_passing_failure_is_tried_again_as_told(value, loopback):
    body = """
quick = {'initial': 0.02, 'maximum': 0.05, 'multiplier': 2, 'deadline': 10}
url = inputs['url']
get = this.task('REST', url=url + '/flaky/get/2', retry_backoff=quick)
post = this.task('REST', url=url + '/flaky/post/2', method='post', retry_backoff=quick)
never = this.task('REST', url=url + '/flaky/never/2', retry_backoff=False, wait='ALL_ENDED')
once = this.task('REST', url=url + '/flaky/once/2', method='post', wait='ALL_ENDED')
return [task.get('status', 'output_value')[0] for task in (get, post, never, once)]
"""
    assert value(body, url=loopback.url) == ["ENDED_SUCCESS", "ENDED_SUCCESS", "ENDED_ERROR", "ENDED_ERROR"]
    assert [loopback.asked[name] for name in ("get", "post", "never", "once")] == [3, 3, 1, 1]


@pytest.mark.contract("8.common.retry-backoff")
def test_trying_again_ends_at_its_deadline(value, loopback):
    assert value(
        """
import time
began = time.monotonic()
short = {'initial': 0.01, 'maximum': 0.05, 'deadline': 0.3}
task = this.task('REST', url=inputs['url'], retry_backoff=short, wait='ALL_ENDED')
return [task.get('status'), task.get('output_value')['status_code'], time.monotonic() - began < 5]
""",
        url=f"{loopback.url}/flaky/for ever/1000000".replace(" ", "%20"),
    ) == ["ENDED_ERROR", 503, True]


@pytest.mark.contract("8.common.expected")
@pytest.mark.parametrize(
    ("expected", "status"), [(404, "ENDED_SUCCESS"), ([200, 404], "ENDED_SUCCESS"), (200, "ENDED_ERROR")]
)
def test_what_counts_as_success_can_be_said(value, loopback, expected, status):
    assert value(
        """
task = this.task('REST', url=inputs['url'], expected_status_code=inputs['expected'], wait='ALL_ENDED')
return [task.get('status'), task.get('output_value')['status_code']]
""",
        url=f"{loopback.url}/status/404",
        expected=expected,
    ) == [status, 404]


@pytest.mark.contract("8.common.protect")
def test_keys_of_a_task_s_record_are_redacted(workshop, run, loopback):
    ended = run(
        """
hushed = '-'.join(('hushed', 'for', 'this', 'task'))
task = this.task('REST', url=inputs['url'], method='post', json={'a': hushed},
                 protect_inputs=['json'], protect_outputs=['json', 'text'])
echoed = task.get('output_value')['json']['body']
kept = task.get('protect_inputs', 'protect_outputs')
return [hushed in echoed, 'protect_inputs' in task.get('input_value'), kept, task.id]
""",
        url=f"{loopback.url}/echo",
    )
    true, leaked, protected, task = ended["output_value"]
    assert (true, leaked, protected) == (True, False, [["json"], ["json", "text"]])
    assert "hushed-for-this-task" not in workshop.seen_by_people(task)
    assert "hushed-for-this-task" not in workshop.seen_by_people(ended["id"])
    assert workshop.execution(task)["output_value"]["status_code"] == 200
